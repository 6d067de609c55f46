"""The diagnosis of a past instant: what sources remember is read, and folded up to it at the pace at which it was sampled.

Read are the window that is reported on, a quarter of an hour before it in fine steps (what a dashboard had in full
resolution then), and the hour before that in minutes. The pace is learnt from the source: Prometheus tells how often it
scraped. So the same findings stand, with the same ids and beginnings, as the dashboard showed then.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import tzinfo

from coldaisle.analyzers.detectors import Ready
from coldaisle.analyzers.diagnosis import Diagnoser, fold_over, instants
from coldaisle.analyzers.finding import NO_DIAGNOSIS
from coldaisle.analyzers.past import MOST_BYTES, Failure, Replay, Span, Told, read_span, those_with_a_past
from coldaisle.analyzers.snapshot import Snapshot
from coldaisle.analyzers.travel import as_of
from coldaisle.analyzers.view import View
from coldaisle.sources.collector import Collector
from coldaisle.sources.history import Limits
from coldaisle.sources.source import Batch, Event, Source

log = logging.getLogger(__name__)

FINE_S = 900.0
"""Before the window, in the steps of the samples."""
COARSE_S, COARSE_STEP_S = 3600.0, 60.0
"""Before that, in minutes: the longest lookback of a detector."""
SHORTEST_STEP_S, LONGEST_STEP_S = 5.0, 60.0
SHORTEST_READ_S, LONGEST_READ_S = 300.0, 3600.0
OVERLAP = 2
"""Steps that two readings share, so that what changes between them is seen."""
MOST_LOOKS = 200_000
"""Looks times GPUs, of what is read at once: every sample of half an hour at 512 GPUs; of more, older instants less often."""
LIMITS = Limits(full_s=FINE_S, minutes=int(COARSE_S // 60) + 30, full_bytes=4 * MOST_BYTES)

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Hindsight:
    """What is looked back with."""

    sources: Sequence[Source]
    make_collector: Callable[[Limits], Collector]
    make_view: Callable[[Collector], View]
    detectors: Sequence[Ready]
    say: Say = lambda _: None
    """Told how far it is."""
    zone: tzinfo | None = None
    """Of the times in findings' texts; None: this machine's."""

    async def look(self, at: float, window_s: float) -> Snapshot:
        """The picture of ``at`` with its diagnosis, folded over the ``window_s`` before it.

        Where a source that has told samples fails before the end, nothing is diagnosed: what it had no time to tell would look
        as if its nodes had fallen silent. Its error says why.
        """
        pasts = those_with_a_past(self.sources)
        collector = self.make_collector(LIMITS)
        diagnoser = Diagnoser(self.make_view(collector), self.detectors, self.zone)
        start = at - window_s - FINE_S
        self.say("reading the hour before")
        coarse = Span(start - COARSE_S, start, COARSE_STEP_S, start)
        await read_span(coarse, pasts)
        if not any(isinstance(one.item, Batch) for one in coarse.told):
            await read_span(
                Span(at - COARSE_STEP_S, at, COARSE_STEP_S, at), pasts
            )  # they remember less: for the pace alone
        step = self._step(pasts)
        rate = coarse.bytes / COARSE_S * COARSE_STEP_S / step
        failures: dict[int, Failure] = dict(coarse.failures)
        samplers = _samplers(coarse)
        is_first, is_cut = True, False
        for begin, end in _parts(start, at, step, rate):
            self.say(f"reading {begin - at:+.0f} s to {end - at:+.0f} s")
            span = Span(begin - (0 if is_first else OVERLAP * step), end + step / 2, step, at)
            await read_span(span, pasts)
            span.told = list(_since(span.told, begin, is_first=is_first))
            failures |= span.failures
            samplers |= _samplers(span)
            if is_cut := not samplers.isdisjoint(span.failures):
                break
            replay = Replay(span, collector)
            if is_first:
                await replay.go_before(coarse)
            is_first = False
            first = max(begin + step, at - window_s)
            await fold_over(
                replay, diagnoser, instants(first, end, step) if first <= end else (), most=MOST_LOOKS
            )
            await replay.go(end)
        for number, failure in failures.items():
            collector.supervised[number].error, collector.supervised[number].remedy = failure
        shown = as_of(diagnoser.view.snapshot(at, None, live=False), collector, pasts)
        return replace(shown, diagnosis=NO_DIAGNOSIS if is_cut else diagnoser.newest)

    def _step(self, pasts: Iterable[int]) -> float:
        """Seconds between two samples of the fastest of those that remember; a reading has taught it to them."""
        steps = [self.sources[number].interval for number in pasts]
        return min(max(min(steps, default=LONGEST_STEP_S), SHORTEST_STEP_S), LONGEST_STEP_S)


def _samplers(span: Span) -> set[int]:
    """Numbers of the sources that told samples."""
    return {one.number for one in span.told if isinstance(one.item, Batch)}


def _parts(start: float, end: float, step: float, rate: float) -> Iterator[tuple[float, float]]:
    """What is read at a time: as much as may be held; ``rate``: bytes a second."""
    seconds = min(max(MOST_BYTES / max(rate, 1.0), SHORTEST_READ_S), LONGEST_READ_S)
    seconds = max(seconds // step, 1.0) * step
    ends = [end]
    while ends[-1] - seconds > start + step:
        ends.append(ends[-1] - seconds)
    begin = start
    for stop in reversed(ends):
        yield begin, stop
        begin = stop


def _since(told: Sequence[Told], begin: float, *, is_first: bool) -> Iterator[Told]:
    """Without the samples and events of an earlier part."""
    for one in told:
        if is_first or one.at > begin or not isinstance(one.item, Batch | Event):
            yield one
