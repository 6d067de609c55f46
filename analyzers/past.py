"""The past as the sources that remember tell it: read once, then told again up to any instant of it.

A :class:`Span` is what they told of some minutes. A :class:`Replay` gives it to a collector of its own, just as
it would have come: so a past instant is looked at through the same joins, the same history and the same
:class:`~coldaisle.analyzers.view.View` as now.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import NamedTuple

from coldaisle.sources.collector import Collector
from coldaisle.sources.errors import SourceError
from coldaisle.sources.history import Limits
from coldaisle.sources.source import Batch, Item, JobFact, Past, PodFact, ProcessFact, ServiceFact, Source

log = logging.getLogger(__name__)

READ_LIMIT_S = 60.0
"""A source that has not told a span by then is left."""
MOST_BYTES = 100_000_000
"""Of what is held of a span; a source that tells twice as much is cut short."""
ITEM_BYTES = 500
"""Of a fact, an event or a target, about."""
SLICE_S = 0.01
"""So long a replay goes on before others have their turn."""


class Told(NamedTuple):
    """An item with its source and the instant from which it counts."""

    at: float
    number: int
    item: Item


class Failure(NamedTuple):
    """Why a source did not tell all of a span, and what to do."""

    why: str
    remedy: str


@dataclass(eq=False)
class Span:
    """What the sources told of [start, end); ``step`` seconds between samples, one of them at ``anchor``."""

    start: float
    end: float
    step: float
    anchor: float
    told: list[Told] = field(default_factory=list)
    """In the order of time, once it is read."""
    bytes: int = 0
    failures: dict[int, Failure] = field(default_factory=dict)
    """By number of the source."""
    reached: dict[int, float] = field(default_factory=dict)
    """By number of the source: the instant up to which it has told; ``end`` when it is done."""

    @property
    def share(self) -> float:
        """How much of it is read."""
        whole = (self.end - self.start) * len(self.reached)
        return sum(at - self.start for at in self.reached.values()) / whole if whole > 0 else 0.0

    def holds(self, at: float, before: float) -> bool:
        """Whether an instant lies in it, with so many seconds before it."""
        return self.start + before <= at <= self.end

    def of_samples(self) -> list[Told]:
        """What an earlier part of a chart needs: no jobs or processes, of which the end may not have been told."""
        left_out = JobFact | PodFact | ProcessFact | ServiceFact
        return [told for told in self.told if not isinstance(told.item, left_out)]


async def read_span(span: Span, sources: Mapping[int, Past]) -> None:
    """Let each source, by number, tell a span. One that fails is told of in ``span.failures``; never raises for it."""
    span.reached.update(dict.fromkeys(sources, span.start))
    async with asyncio.TaskGroup() as group:
        for number, source in sources.items():
            group.create_task(_read(span, number, source), name="past")
    span.told.sort(key=lambda told: told.at)


async def _read(span: Span, number: int, source: Past) -> None:
    step = max(span.step, getattr(source, "interval", 0.0))
    first = span.anchor - math.floor((span.anchor - span.start) / step) * step
    counts_from = Order(span.start)
    try:
        async with asyncio.timeout(READ_LIMIT_S), aclosing(source.read(first, span.end, step)) as items:
            async for item in items:
                told = Told(counts_from(item), number, item)
                span.told.append(told)
                span.bytes += bytes_of(item)
                span.reached[number] = min(max(span.reached[number], told.at), span.end)
                if span.bytes > 2 * MOST_BYTES:
                    span.failures[number] = Failure("it has more to tell than can be kept", "")
                    break
    except SourceError as error:
        span.failures[number] = Failure(str(error), error.remedy)
    except TimeoutError:
        why = f"it has not told its past within {READ_LIMIT_S:.0f} s"
        span.failures[number] = Failure(
            why, "ask for the instant again, or look whether the server is overloaded"
        )
    except Exception as error:  # supervision: one source's mistake must not hide what the others tell
        log.exception("a past could not be read")
        span.failures[number] = Failure(
            f"internal error: {error!r}", "see the log file, and please report it"
        )
    span.reached[number] = span.end


def bytes_of(item: Item) -> int:
    """What an item takes in memory, about."""
    return item.values.nbytes if isinstance(item, Batch) else ITEM_BYTES


class Order:
    """From when an item counts. A job's or pod's fact has no instant of its own: it begins, and later ends."""

    def __init__(self, start: float) -> None:
        self._start = self._now = start
        self._begun: set[object] = set()

    def __call__(self, item: Item) -> float:
        if not isinstance(item, JobFact | PodFact):
            self._now = max(self._now, item.at)
            return item.at
        subject = item.id if isinstance(item, JobFact) else (item.namespace, item.pod, item.uid)
        if subject not in self._begun:
            self._begun.add(subject)
            return max(item.since, self._start)
        return item.until if item.until is not None else max(item.since, self._now)


class Replay:
    """A collector that was told a span up to an instant."""

    def __init__(self, span: Span, collector: Collector, *, samples_since: float = -math.inf) -> None:
        """``samples_since``: earlier samples are left out, for a first picture sooner."""
        self.span = span
        self.collector = collector
        self.is_whole = samples_since <= span.start
        self._samples_since = samples_since
        self._next = 0
        for supervised in collector.supervised:
            supervised.step = max(span.step, supervised.source.interval)
            if failure := span.failures.get(supervised.number):
                supervised.error, supervised.remedy = failure

    @property
    def at(self) -> float:
        """The last instant of which it was told."""
        return self.span.told[self._next - 1].at if self._next else -math.inf

    async def go(self, until: float) -> None:
        """Take in what counts up to ``until``, a slice at a time."""
        told, slice_end = self.span.told, time.monotonic() + SLICE_S
        while self._next < len(told) and told[self._next].at <= until:
            self._take(told[self._next])
            self._next += 1
            if time.monotonic() > slice_end:
                await asyncio.sleep(0)
                slice_end = time.monotonic() + SLICE_S

    async def go_before(self, earlier: Span) -> None:
        """First the samples and events of an earlier, coarser span."""
        for supervised in self.collector.supervised:
            supervised.filling = True  # its steps are not the period of what follows
        for number, told in enumerate(earlier.of_samples()):
            self._take(told)
            if number % 64 == 0:
                await asyncio.sleep(0)
        for supervised in self.collector.supervised:
            supervised.filling = False

    def _take(self, told: Told) -> None:
        if told.at < self._samples_since and isinstance(told.item, Batch):
            return
        supervised = self.collector.supervised[told.number]
        try:
            self.collector.take(supervised, told.item)
        except SourceError as error:
            supervised.error, supervised.remedy = str(error), error.remedy


def those_with_a_past(sources: Sequence[Source]) -> dict[int, Past]:
    """By number."""
    return {number: source for number, source in enumerate(sources) if isinstance(source, Past)}


MakeCollector = Callable[[Limits], Collector]
"""A new, empty collector over the same sources, that keeps so much."""
