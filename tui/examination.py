"""Trying sources: each is streamed for a while, and what came and what did not is kept."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence, Set
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import aclosing
from dataclasses import dataclass, field, fields, replace
from functools import partial
from queue import SimpleQueue
from threading import Thread
from types import MappingProxyType
from typing import ParamSpec, TypeVar

import numpy as np

from coldaisle.sources.errors import SourceError
from coldaisle.sources.source import (
    Batch,
    EntityRef,
    Item,
    JobRef,
    Kind,
    Missing,
    NodeFact,
    NodeRef,
    Partition,
    PartitionFact,
    QueueFact,
    RackRef,
    Source,
    Target,
    TargetState,
)
from coldaisle.sources.units import show

log = logging.getLogger(__name__)

ROUNDS = 3
"""Samples after which a source has shown what it has: a rate needs two, a slow metric may skip one."""
FEWER_ROUNDS: Mapping[str, int] = MappingProxyType({"prometheus": 1})
"""By kind of source: who remembers needs no second sample for a rate."""
PROGRESS_S = 0.5
CLOSING_S = 0.5
"""What sources may take to close beyond their time; then they are left as they are."""
RESOLVERS = 64
"""Threads that look up names and read files, at most."""

NOTHING_EXPECTED: Mapping[str, int] = MappingProxyType({})

P = ParamSpec("P")
T = TypeVar("T")
Progress = Callable[[Sequence["Examined"], float], None]


@dataclass(slots=True, repr=False)  # asyncio writes out the results of its tasks: of these, for seconds
class Examined:
    """What one source gave so far."""

    name: str
    kind: str
    interval: float
    needed: int = ROUNDS
    """Rounds after which it has shown what it has."""
    expected: int = 0
    """Targets that were configured, so far as that is known."""
    targets: dict[str, Target] = field(default_factory=dict)
    cells: dict[str, dict[EntityRef, Missing]] = field(default_factory=dict)
    """Metric -> entity -> PRESENT if it ever had a value, else the last reason."""
    nodes: dict[str, NodeFact] = field(default_factory=dict)
    """By the source's name for them."""
    queue: QueueFact | None = None
    partitions: tuple[Partition, ...] = ()
    error: str = ""
    remedy: str = ""
    rounds: Counter[Kind] = field(default_factory=Counter)
    _last: dict[Kind, float] = field(default_factory=dict)
    _entities: dict[Kind, set[EntityRef]] = field(default_factory=dict)

    def take(self, item: Item) -> None:
        """Keep what an item tells."""
        match item:
            case Batch():
                self._take_batch(item)
            case Target(state=TargetState.GONE):
                self.targets.pop(item.name, None)
            case Target():
                self.targets[item.name] = item
            case NodeFact():
                self.nodes[item.node] = _merged(self.nodes.get(item.node), item)
            case QueueFact():
                self.queue = item
            case PartitionFact():
                self.partitions = item.partitions
            case _:
                pass

    @property
    def answering(self) -> list[Target]:
        """Targets that deliver."""
        return [
            target for target in self.targets.values() if target.state in (TargetState.OK, TargetState.SLOW)
        ]

    @property
    def is_settled(self) -> bool:
        """Whether nothing more is to be expected: every target has its answer, and samples came often enough."""
        if not self.targets and not self.rounds:
            return False
        if len(self.targets) < self.expected:
            return False
        if any(target.state is TargetState.CONNECTING for target in self.targets.values()):
            return False
        return not (self.answering or not self.targets) or min(self.rounds.values(), default=0) >= self.needed

    def end(self, seconds: float) -> None:
        """No more comes: targets that have not answered yet did not within these ``seconds``."""
        if not (self.targets or self.rounds or self.error):
            self.error = f"nothing came within {show(seconds, 's')}"
        for name, target in self.targets.items():
            if target.state is TargetState.CONNECTING:
                doing = f"{target.detail}: " if target.detail not in ("", TargetState.CONNECTING) else ""
                detail = f"{doing}no answer within {show(seconds, 's')}"
                self.targets[name] = replace(target, detail=detail)

    def entities(self, kind: Kind) -> Set[EntityRef]:
        """All of this kind that it named."""
        return self._entities.get(kind, set())

    def found(self, key: str) -> int:
        """How many entities have a value of this metric."""
        return sum(reason is Missing.PRESENT for reason in self.cells.get(key, {}).values())

    def why_missing(self, keys: Sequence[str]) -> Missing:
        """The commonest reason why none of these metrics has a value."""
        reasons: Counter[Missing] = Counter()
        for key in keys:
            reasons.update(self.cells.get(key, {}).values())
        reasons.pop(Missing.PRESENT, None)
        return reasons.most_common(1)[0][0] if reasons else Missing.NOT_EXPORTED

    def node_names(self) -> set[str]:
        """Every node it speaks for."""
        told = {node for target in self.targets.values() for node in target.nodes}
        seen = {entity.node for entity in self.entities(Kind.NODE) if isinstance(entity, NodeRef)}
        return told | seen | set(self.nodes)

    def heard_nodes(self) -> set[str]:
        """Every node of which it has a value, of itself or of something on it."""
        there = {
            entity for row in self.cells.values() for entity, why in row.items() if why is Missing.PRESENT
        }
        return {entity.node for entity in there if not isinstance(entity, RackRef | JobRef)}

    def _take_batch(self, batch: Batch) -> None:
        if batch.at != self._last.get(batch.kind):
            self._last[batch.kind] = batch.at
            self.rounds[batch.kind] += 1
        self._entities.setdefault(batch.kind, set()).update(batch.entities)
        has_value = np.isfinite(batch.values)
        reasons = batch.reasons if batch.reasons is not None else np.zeros(batch.values.shape, np.uint8)
        for column, key in enumerate(batch.metrics):
            row = self.cells.setdefault(key, {})
            if has_value[:, column].all():
                row.update(dict.fromkeys(batch.entities, Missing.PRESENT))
                continue
            for number, entity in enumerate(batch.entities):
                if has_value[number, column]:
                    row[entity] = Missing.PRESENT
                elif row.get(entity) is not Missing.PRESENT:
                    row[entity] = _reason(int(reasons[number, column]))


class Abandoning(ThreadPoolExecutor):
    """Threads that nobody waits for: a name server that is silent must not hold the end of the program."""

    def __init__(self) -> None:
        super().__init__()
        self._calls: SimpleQueue[Callable[[], None]] = SimpleQueue()
        self._started = 0

    def submit(self, call: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """As in any executor; the call waits while all threads are taken."""
        future: Future[T] = Future()
        self._calls.put(partial(_answer, future, partial(call, *args, **kwargs)))
        if self._started < RESOLVERS:
            self._started += 1
            Thread(target=self._serve, daemon=True).start()
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Nothing to wait for."""
        super().shutdown(wait=False, cancel_futures=cancel_futures)

    def _serve(self) -> None:
        while True:
            self._calls.get()()


def _answer(future: Future[T], call: Callable[[], T]) -> None:
    if not future.set_running_or_notify_cancel():
        return
    try:
        future.set_result(call())
    except BaseException as error:  # noqa: BLE001 - whoever waits for the future gets it
        future.set_exception(error)


async def examine(
    sources: Sequence[Source],
    seconds: float,
    progress: Progress,
    expected: Mapping[str, int] = NOTHING_EXPECTED,
) -> list[Examined]:
    """Stream all sources together, each until it has shown what it has, for ``seconds`` at most.

    ``expected`` has the number of targets by source. The running loop's executor is replaced.
    """
    asyncio.get_running_loop().set_default_executor(Abandoning())
    examined = [
        Examined(
            source.name,
            source.kind,
            source.interval,
            FEWER_ROUNDS.get(source.kind, ROUNDS),
            expected.get(source.name, 0),
        )
        for source in sources
    ]
    begun = time.monotonic()
    watch = asyncio.create_task(_report_progress(examined, progress, begun))
    asked = [
        asyncio.create_task(_examine_one(source, one, seconds))
        for source, one in zip(sources, examined, strict=True)
    ]
    try:
        if asked:
            await asyncio.wait(asked, timeout=seconds + CLOSING_S)
    finally:
        for task in (watch, *asked):
            task.cancel()
    for one in examined:
        one.end(seconds)
    progress(examined, time.monotonic() - begun)
    return examined


async def _examine_one(source: Source, one: Examined, seconds: float) -> None:
    try:
        async with asyncio.timeout(seconds), aclosing(source.stream()) as items:
            async for item in items:
                one.take(item)
                if one.is_settled:
                    break
    except TimeoutError:
        log.debug("source %s was asked for %s s", one.name, seconds)
    except SourceError as error:
        one.error, one.remedy = str(error), error.remedy
    except Exception as error:  # supervision: one source must not end the examination of the others
        log.exception("source %s failed", one.name)
        one.error = f"a mistake of ours: {type(error).__name__}: {error}"
        one.remedy = "the log has the details"


async def _report_progress(examined: Sequence[Examined], progress: Progress, begun: float) -> None:
    while True:
        progress(examined, time.monotonic() - begun)
        await asyncio.sleep(PROGRESS_S)


def _merged(known: NodeFact | None, new: NodeFact) -> NodeFact:
    if known is None:
        return new
    told = {
        item.name: value
        for item in fields(new)
        if (value := getattr(new, item.name)) is not None and item.name != "node"
    }
    return replace(known, **told)


def _reason(code: int) -> Missing:
    try:
        reason = Missing(code)
    except ValueError:
        return Missing.FAILED
    return Missing.NOT_SAMPLED if reason is Missing.PRESENT else reason


def shared_nodes(examined: Sequence[Examined], same: Callable[[str], str]) -> Mapping[str, list[str]]:
    """Node -> the sources that know it; ``same`` gives a name's node."""
    known: dict[str, list[str]] = {}
    for one in examined:
        for node in {same(name) for name in one.node_names()}:
            known.setdefault(node, []).append(one.name)
    return known
