"""Runs the sources under supervision, joins identities, writes the history.

Everything here happens on one event loop, in the monitor's thread. A source that fails is started
again after a pause that grows; no source can stop another.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field

from coldaisle.sources.errors import SourceError
from coldaisle.sources.history import History
from coldaisle.sources.registry import Registry
from coldaisle.sources.source import (
    Batch,
    Event,
    Fact,
    GpuFact,
    Item,
    JobFact,
    NodeFact,
    PartitionFact,
    Past,
    PodFact,
    ProcessFact,
    QueueFact,
    ServerFact,
    ServiceFact,
    Source,
    Target,
    TargetState,
)

log = logging.getLogger(__name__)

FIRST_PAUSE_S = 1.0
LONGEST_PAUSE_S = 60.0
STEADY_S = 60.0
"""A source that ran so long starts its pauses afresh."""
BACKFILL_S = 900.0
BACKFILL_STEP_S = 10.0
BACKFILL_BUDGET_S = 5.0
"""Wall time after which a long story of the past is cut short: now matters more."""
MAX_TARGETS = 20_000
CLOCK_JUMP_S = 1.5
PARTIAL = TargetState.PARTIAL
"""The state of a source some of whose targets do not deliver."""


class SteadyClock:
    """Seconds since the epoch that do not jump between two readings.

    Anchored to the wall clock and carried on by the boot-time clock, which also counts while the
    machine sleeps. :meth:`correct` follows the wall clock when somebody has set it.
    """

    def __init__(
        self, wall: Callable[[], float] = time.time, steady: Callable[[], float] | None = None
    ) -> None:
        self._wall = wall
        self._steady = steady or _boot_time
        self._anchor = wall() - self._steady()

    def __call__(self) -> float:
        return self._anchor + self._steady()

    def correct(self) -> float:
        """By how many seconds the wall clock was set since the last call; 0.0: not noticeably."""
        jump = self._wall() - self()
        if abs(jump) < CLOCK_JUMP_S:
            return 0.0
        self._anchor += jump
        return jump


def _boot_time() -> float:
    clock = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)
    return time.clock_gettime(clock)


@dataclass(slots=True)
class Supervised:
    """A source with its state."""

    source: Source
    number: int
    targets: dict[str, Target] = field(default_factory=dict)
    metrics: dict[str, None] = field(default_factory=dict)
    error: str = ""
    remedy: str = ""
    restarts: int = 0
    retry_at: float | None = None
    heard: bool = False
    """Whether it has delivered a sample since it was started."""
    has_filled: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when it has told what it remembers of the last minutes, as far as it will."""
    filling: bool = False
    """Whether it is still telling the past: until its first live sample."""
    step: float | None = None
    """Seconds between its samples, where it tells the past in steps of its own; None: its interval."""


class Collector:
    """The sources, the registry and the history they fill."""

    def __init__(
        self, sources: Sequence[Source], history: History, registry: Registry, clock: SteadyClock
    ) -> None:
        self.supervised = [Supervised(source, number) for number, source in enumerate(sources)]
        self.history = history
        self.registry = registry
        self.clock = clock
        self.arrived = asyncio.Event()
        """Set when samples came in; whoever waits for it clears it."""
        self.on_past: Callable[[Supervised, Item], None] | None = None
        """Told every item of a back-fill, too."""

    async def run(self) -> None:
        """Run all sources until cancelled."""
        async with asyncio.TaskGroup() as group:
            for supervised in self.supervised:
                group.create_task(self._supervise(supervised), name=f"source {supervised.source.name}")

    def follow_clock(self) -> float:
        """Move the past with our clock, if it was set: by how many seconds."""
        jump = self.clock.correct()
        if jump:
            log.warning("the clock was set by %+.1f s; the history moves with it", jump)
            self.history.shift(jump)
            self.registry.shift(jump)
        return jump

    def take(self, supervised: Supervised, item: Item) -> None:
        """One item of a source into the registry and the history."""
        name = supervised.source.name
        match item:
            case Batch():
                self._take_batch(supervised, item)
            case Target(state=TargetState.GONE):
                supervised.targets.pop(item.name, None)
            case Target():
                if len(supervised.targets) < MAX_TARGETS or item.name in supervised.targets:
                    supervised.targets[item.name] = item
            case Event():
                self.registry.take_event(name, item)
            case _:
                self._take_fact(name, item)
        if self.registry.moved:
            self._apply_moves()

    def _take_fact(self, source: str, fact: Fact) -> None:
        match fact:
            case NodeFact():
                self.registry.take_node_fact(source, fact)
            case GpuFact():
                self.registry.take_gpu_fact(source, fact)
            case JobFact():
                self.registry.take_job(fact, source)
            case QueueFact():
                self.registry.queues[source] = fact
            case PartitionFact():
                self.registry.partitions[source] = fact.partitions
            case ProcessFact():
                self.registry.take_processes(fact)
            case ServerFact():
                self.registry.take_server(source, fact)
            case ServiceFact():
                self.registry.services[fact.id] = fact
            case PodFact():
                self.registry.take_pod(fact)

    def _take_batch(self, supervised: Supervised, batch: Batch) -> None:
        source = supervised.source
        rows = self.registry.rows_of(source.name, batch.kind, batch.entities, batch.at)
        if self.registry.moved:
            self._apply_moves()
        interval = supervised.step or source.interval
        self.history.write(batch, rows, supervised.number, source.rank, interval, is_past=supervised.filling)
        supervised.metrics.update(dict.fromkeys(batch.metrics))
        supervised.heard = True
        self.arrived.set()

    def _apply_moves(self) -> None:
        for move in self.registry.moved:
            if move.old == move.new:
                self.history.forget(move.kind, move.old)
            else:
                self.history.join(move.kind, move.old, move.new)
        self.registry.moved.clear()

    async def _supervise(self, supervised: Supervised) -> None:
        """Run one source for ever; each failure is kept, shown and followed by a longer pause."""
        pause = FIRST_PAUSE_S
        supervised.filling = isinstance(supervised.source, Past)
        await self._back_fill(supervised)
        supervised.has_filled.set()
        if getattr(supervised.source, "has_no_samples", False):  # no first live sample ends its past
            supervised.filling = False
        while True:
            started = self.clock()
            supervised.heard, supervised.retry_at = False, None
            await self._run_once(supervised)
            supervised.filling = False
            if self.clock() - started > STEADY_S:
                pause = FIRST_PAUSE_S
            wait = pause * random.uniform(0.8, 1.2)
            supervised.restarts += 1
            supervised.retry_at = self.clock() + wait
            await asyncio.sleep(wait)
            pause = min(2 * pause, LONGEST_PAUSE_S)

    async def _run_once(self, supervised: Supervised) -> None:
        """The source's stream until it ends, for whatever reason."""
        try:
            async with aclosing(supervised.source.stream()) as items:
                async for item in items:
                    self.take(supervised, item)
                    supervised.filling = supervised.filling and not supervised.heard
                    if supervised.error and supervised.heard:
                        supervised.error = supervised.remedy = ""
            supervised.error = "it ended by itself"
        except SourceError as error:
            supervised.error, supervised.remedy = str(error), error.remedy
            log.warning("source %s: %s", supervised.source.name, error)
        except Exception as error:
            supervised.error, supervised.remedy = (
                f"internal error: {error!r}",
                "see the log file, and please report it",
            )
            log.exception("source %s failed", supervised.source.name)

    async def _back_fill(self, supervised: Supervised) -> None:
        """What a source with a memory knows of the last minutes, before it goes live."""
        source = supervised.source
        if not isinstance(source, Past):
            return
        now = self.clock()
        step = max(source.interval, BACKFILL_STEP_S)
        began = time.monotonic()
        # who tells of jobs alone must not keep them waiting for an accounting that is slow or silent
        limit = BACKFILL_BUDGET_S if getattr(source, "has_no_samples", False) else None
        try:
            async with (
                asyncio.timeout(limit),
                aclosing(source.read(now - BACKFILL_S, now, step)) as items,
            ):
                async for item in items:
                    self.take(supervised, item)
                    if self.on_past is not None:
                        self.on_past(supervised, item)
                    if time.monotonic() - began > BACKFILL_BUDGET_S:
                        log.info("source %s: its past was cut short", source.name)
                        break
        except SourceError as error:
            log.warning("source %s has no past to give: %s", source.name, error)
        except TimeoutError:
            log.info("source %s: its past did not come in time", source.name)
        except Exception:
            log.exception("source %s: its past could not be read", source.name)


def state_of(
    supervised: Supervised, newest: float | None, period: float | None, now: float
) -> tuple[str, str, str]:
    """(state, why, remedy) of a source as a whole, from its own error and its targets'."""
    targets = supervised.targets.values()
    bad = [t for t in targets if t.state in (TargetState.FAILING, TargetState.DENIED, TargetState.STALE)]
    if supervised.error and not supervised.heard:
        return TargetState.FAILING, supervised.error, supervised.remedy
    if bad and len(bad) == len(supervised.targets):
        worst = bad[0]
        state = TargetState.DENIED if all(t.state is TargetState.DENIED for t in bad) else TargetState.FAILING
        return state, f"{worst.name}: {worst.detail}", worst.remedy
    if newest is None:
        has_only_facts = bool(targets) and all(t.what and not t.nodes for t in targets)
        return (TargetState.OK if has_only_facts else TargetState.CONNECTING), "", ""
    if period is not None and now - newest > 3 * period:
        why, remedy = (f": {bad[0].name}: {bad[0].detail}", bad[0].remedy) if bad else ("", "")
        return TargetState.STALE, f"nothing new for {now - newest:.0f} s{why}", remedy
    if bad:
        why = f"{len(bad)} of {len(supervised.targets)}: {bad[0].name}: {bad[0].detail}"
        return PARTIAL, why, bad[0].remedy
    partial = [t for t in targets if t.state is TargetState.PARTIAL]
    if partial:
        return PARTIAL, f"{partial[0].name}: {partial[0].detail}", partial[0].remedy
    slow = [t for t in targets if t.state is TargetState.SLOW]
    if slow:
        why = f"{len(slow)} of {len(supervised.targets)}: {slow[0].name}: {slow[0].detail}"
        return TargetState.SLOW, why, slow[0].remedy
    return TargetState.OK, "", ""
