"""Travelling in time: which past instant is looked at, and how what it needs gets here.

The picture comes first (two minutes of samples before the instant), then a quarter of an hour around it for
charts and steps, then the hour before at one-minute steps; then what was wrong is folded over all that, once for all
instants of the span. Inside what is there, a step needs no source.
What is read is in memory only, bounded, and gone when one returns to live.
"""

from __future__ import annotations

import asyncio
import logging
from bisect import bisect_right
from collections.abc import Callable, Container, Coroutine, Sequence
from dataclasses import replace
from functools import partial

from coldaisle.analyzers.detectors import Ready
from coldaisle.analyzers.diagnosis import SLOWEST_LOOK_S, Diagnoser, fold_over, instants
from coldaisle.analyzers.finding import NO_DIAGNOSIS, Diagnosis
from coldaisle.analyzers.past import MOST_BYTES, MakeCollector, Replay, Span, read_span, those_with_a_past
from coldaisle.analyzers.snapshot import (
    LIVE_ONLY,
    TOLD_NOTHING,
    Reading,
    SeriesAnswer,
    SeriesQuery,
    Snapshot,
    SourceView,
    Travel,
)
from coldaisle.analyzers.view import View
from coldaisle.sources.collector import Collector, Supervised
from coldaisle.sources.history import Limits
from coldaisle.sources.source import Clock, Source, TargetState

log = logging.getLogger(__name__)

PICTURE_S = 120.0
"""So many seconds of samples make a first picture of an instant."""
BEFORE_S, AFTER_S = 900.0, 300.0
"""What is read around an instant in fine steps."""
CHART_S = 3600.0
"""What is read before an instant in coarse steps: the longest chart."""
LEAST_S = 60.0
"""An instant with less before it is not shown from what is there."""
NEAR_S = 300.0
"""An instant with less before it in fine steps makes more be read."""
FINE_STEPS = (10.0, 20.0, 30.0, 60.0)
COARSE_STEPS = (60.0, 120.0, 300.0)
PROGRESS_S = 0.3
PICTURE_LIMITS = Limits(full_s=0.0, minutes=0)
CHART_LIMITS = Limits(full_s=BEFORE_S + AFTER_S, minutes=90, full_bytes=2 * MOST_BYTES, extremes=False)

DIAGNOSIS_LIMITS = Limits(full_s=BEFORE_S, minutes=90, full_bytes=2 * MOST_BYTES)
MOST_LOOKS = 10_000
"""Looks times GPUs, up to the instant that was asked for: somebody waits. Older instants are looked at less often."""

MakeView = Callable[[Collector], View]
Work = Callable[[], Coroutine[None, None, None]]


class Traveller:
    """Reads the past and keeps the picture of one instant of it. Lives on the monitor's event loop."""

    def __init__(
        self,
        sources: Sequence[Source],
        make_collector: MakeCollector,
        make_view: MakeView,
        clock: Clock,
        changed: Callable[[], None],
        detectors: Sequence[Ready] = (),
    ) -> None:
        """``changed`` is called when there is a new picture, or something new to say."""
        self._names = [source.name for source in sources]
        self._pasts = those_with_a_past(sources)
        self._make_collector = make_collector
        self._make_view = make_view
        self._clock = clock
        self._changed = changed
        self._detectors = detectors
        self._tasks: set[asyncio.Task[None]] = set()
        self._said: Reading | None = None
        self.wanted: float | None = None
        """The instant that was asked for; None: live."""
        self.picture: Snapshot | None = None
        """Of the past instant that is shown; None: live is shown."""
        self._forget()

    def _forget(self) -> None:
        self._painter: asyncio.Task[None] | None = None
        self._reader: asyncio.Task[None] | None = None
        self._span: Span | None = None
        """What is there around the instant; before it is, what the first picture needs."""
        self._next_span: Span | None = None
        """What is being read to take its place."""
        self._readings: list[Span] = []
        self._replay: Replay | None = None
        self._view: View | None = None
        self._charts: View | None = None
        """Of all that is there; None: what the picture was made of must do."""
        self._diagnoses: list[Diagnosis] = []
        """What was wrong at the instants of the span, oldest first, as far as that is known."""
        self._problem: Travel | None = None

    def go(self, at: float | None, *, at_once: bool = False) -> None:
        """Look at an instant, or return to live; what an earlier request still reads is cancelled.

        ``at_once``: until the picture is there an empty one stands for it, not the live one.
        """
        self._problem = None
        if at is None:
            self.stop()
            self.wanted = self.picture = None
            self._forget()
        elif refused := self._refused(at):
            self._problem = refused
        else:
            self.wanted = at
            if at_once and self.picture is None:
                self.picture = self._empty(at)
            coming = self._next_span or self._span
            if coming is None or not coming.holds(at, NEAR_S):
                self._cancel(self._reader)
                self._reader = self._next_span = None
            self._paint()
        self._changed()

    def stop(self) -> None:
        """Cancel all that is under way."""
        for task in list(self._tasks):
            task.cancel()

    def travel(self, live: Snapshot | None) -> Travel | None:
        """How it stands; None: nobody travels. ``live`` is the newest live picture."""
        if self.wanted is None:
            return self._problem
        beside = tuple((source.name, source.state) for source in live.sources) if live else ()
        said = self._problem or Travel(self.wanted)
        return replace(said, wanted=self.wanted, reading=self._reading(), live=beside)

    def read(self, query: SeriesQuery) -> SeriesAnswer | None:
        """Metrics over time up to the instant that is shown; None: live is shown."""
        view = self._charts or self._view
        if self.picture is None or view is None:
            return None
        return view.read(query, before=self.picture.at + 1e-3)

    # --- what is under way -----------------------------------------------------------------------

    def _refused(self, at: float) -> Travel | None:
        if not self._pasts:
            problem = f"no source here has a past ({', '.join(self._names)}): live only"
            return Travel(at, problem=problem, remedy="a Prometheus server has one")
        if at > self._clock():
            return Travel(at, problem="that is still to come", remedy="t returns to live")
        return None

    def _empty(self, at: float) -> Snapshot:
        return self._make_view(self._make_collector(PICTURE_LIMITS)).snapshot(at, None, live=False)

    def _paint(self) -> None:
        self._cancel(self._painter)
        self._painter = self._start(self._show)

    def _start(self, work: Work) -> asyncio.Task[None]:
        task = asyncio.create_task(self._supervise(work), name="travel")
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        self._changed()

    def _cancel(self, task: asyncio.Task[None] | None) -> None:
        if task is not None:
            task.cancel()

    async def _supervise(self, work: Work) -> None:
        try:
            await work()
        except Exception as error:
            log.exception("the past could not be shown")
            problem = f"a mistake of ours: {type(error).__name__}"
            self._problem = Travel(
                self.wanted or 0.0, problem=problem, remedy="see the log file, and please report it"
            )

    async def _show(self) -> None:
        """The picture of the wanted instant, from what is there or, first, from what must be read."""
        at = self.wanted
        assert at is not None
        if self._span is None or not self._span.holds(at, LEAST_S):
            step = FINE_STEPS[0]
            glimpse = await self._read(Span(at - PICTURE_S, min(at + step, self._clock()), step, at))
            self._span, self._charts = glimpse, None
        await self._tell(self._span, at)
        if not self._is_comfortable(self._span, at) and self._next_span is None:
            self._cancel(self._reader)
            self._reader = self._start(partial(self._widen, at, self._span))

    def _is_comfortable(self, span: Span, at: float) -> bool:
        """Whether there is enough around an instant for charts and the next steps."""
        ahead = min(at + 3 * FINE_STEPS[0], self._clock() - 3 * FINE_STEPS[0])
        return span.holds(at, NEAR_S) and ahead <= span.end

    async def _tell(self, span: Span, at: float) -> None:
        """Replay a span up to an instant; going back begins anew, with a quick picture first."""
        old = self._replay
        if old is not None and old.span is span and old.is_whole and old.at <= at:
            await old.go(at)
            return self._take_picture(old, at)
        quick = Replay(span, self._make_collector(PICTURE_LIMITS), samples_since=at - PICTURE_S)
        await quick.go(at)
        self._take_picture(quick, at)
        if not quick.is_whole:
            whole = Replay(span, self._make_collector(PICTURE_LIMITS))
            await whole.go(at)
            self._take_picture(whole, at)
        return None

    def _take_picture(self, replay: Replay, at: float) -> None:
        if self._replay is not replay or self._view is None:
            self._replay, self._view = replay, self._make_view(replay.collector)
        snapshot = self._view.snapshot(at, None, live=False)
        telling = {told.number for told in replay.span.told}
        self.picture = self._diagnosed(as_of(snapshot, replay.collector, self._pasts, telling))
        self._changed()

    async def _widen(self, at: float, known: Span) -> None:
        """Read a quarter of an hour around an instant, then the hour before it."""
        step = _step(FINE_STEPS, known, BEFORE_S + AFTER_S)
        self._next_span = span = Span(at - BEFORE_S, min(at + AFTER_S, self._clock()), step, at)
        await self._read(span)
        await self._chart(span, None)
        self._span, self._next_span = span, None
        self._paint()
        step = _step(COARSE_STEPS, span, CHART_S - BEFORE_S)
        earlier = await self._read(Span(at - CHART_S, span.start, step, span.start))
        await self._chart(span, earlier)
        self._changed()
        await self._diagnose(span, earlier)

    async def _diagnose(self, span: Span, earlier: Span) -> None:
        """Fold what was wrong over the span, up to its end; the picture that is shown gets its own as soon as it is there."""
        if not self._detectors:
            return
        self._said = None  # all is read
        replay = Replay(span, self._make_collector(DIAGNOSIS_LIMITS))
        await replay.go_before(earlier)
        diagnoser = Diagnoser(self._make_view(replay.collector), self._detectors)
        diagnoses: list[Diagnosis] = []

        def seen(diagnosis: Diagnosis) -> None:
            diagnoses.append(diagnosis)
            if self.picture is not None and diagnosis.at <= self.picture.at < diagnosis.at + span.step:
                self._show_diagnoses(diagnoses)

        before = instants(span.start + span.step, span.anchor, span.step)
        await fold_over(replay, diagnoser, before, most=MOST_LOOKS, seen=seen)
        end = span.anchor + (span.end - span.anchor) // span.step * span.step
        after = instants(span.anchor + span.step, end, span.step) if end > span.anchor else []
        await fold_over(replay, diagnoser, after, most=MOST_LOOKS, seen=seen)
        self._show_diagnoses(diagnoses)

    def _show_diagnoses(self, diagnoses: list[Diagnosis]) -> None:
        self._diagnoses = diagnoses
        if self.picture is not None:
            self.picture = self._diagnosed(self.picture)
            self._changed()

    def _diagnosed(self, picture: Snapshot) -> Snapshot:
        """A picture with what was wrong then; without a diagnosis as long as that is not known."""
        number = bisect_right(self._diagnoses, picture.at, key=lambda diagnosis: diagnosis.at) - 1
        known = self._diagnoses[number] if number >= 0 else NO_DIAGNOSIS
        if picture.at - known.at > SLOWEST_LOOK_S:
            known = NO_DIAGNOSIS
        return picture if picture.diagnosis is known else replace(picture, diagnosis=known)

    async def _chart(self, span: Span, earlier: Span | None) -> None:
        replay = Replay(span, self._make_collector(CHART_LIMITS))
        if earlier is not None:
            await replay.go_before(earlier)
        await replay.go(span.end)
        self._charts = self._make_view(replay.collector)

    async def _read(self, span: Span) -> Span:
        """Read a span, saying from time to time how far that is; cancelled, nobody waits for the sources."""
        self._readings.append(span)
        task = asyncio.create_task(read_span(span, self._pasts), name="reading the past")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        try:
            while not task.done():
                self._changed()
                await asyncio.wait({task}, timeout=PROGRESS_S)
        finally:
            task.cancel()
            self._readings.remove(span)
        await task
        return span

    def _reading(self) -> Reading | None:
        """What is read now; between two readings of one journey still the first."""
        if not self._tasks:
            self._said = None
        elif self._readings:
            span = self._readings[-1]
            telling = tuple(self._names[n] for n in self._pasts if span.reached.get(n, span.start) < span.end)
            self._said = Reading(span.start, span.end, telling, round(span.share, 2))
        return self._said


def as_of(
    snapshot: Snapshot, collector: Collector, pasts: Container[int], telling: Container[int] | None = None
) -> Snapshot:
    """The picture of a past instant without what came later, its sources as they were then.

    ``pasts``: those that remember; ``telling``: those that told anything, None: those with samples.
    """
    sources = tuple(
        _then(
            source,
            supervised,
            supervised.number in pasts,
            source.last_at is not None if telling is None else supervised.number in telling,
        )
        for source, supervised in zip(snapshot.sources, collector.supervised, strict=True)
    )
    events = tuple(event for event in snapshot.events if event.at <= snapshot.at)
    return replace(snapshot, sources=sources, events=events)


def _then(source: SourceView, supervised: Supervised, has_past: bool, has_told: bool) -> SourceView:
    """A source as it was at a past instant: one that does not remember says so, one that failed to tell why."""
    if not has_past:
        return replace(source, state=LIVE_ONLY, why="it remembers nothing", remedy="t returns to live")
    if supervised.error:
        return replace(source, state=str(TargetState.FAILING), why=supervised.error, remedy=supervised.remedy)
    if source.last_at is None and has_told:  # who tells of jobs alone has no samples
        return replace(source, state=str(TargetState.OK), why="", remedy="")
    if source.last_at is None:
        return replace(source, state=TOLD_NOTHING, why="it has nothing of that time", remedy="")
    return source


def _step(steps: Sequence[float], known: Span, seconds: float) -> float:
    """The finest step at which so many seconds are not too much to hold, judged by what is known."""
    rate = known.bytes / max(known.end - known.start, known.step) * known.step
    return next((step for step in steps if seconds / step * rate <= MOST_BYTES), steps[-1])
