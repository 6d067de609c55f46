"""What screens with charts have in common: they ask for series over time, one question after the other."""

from __future__ import annotations

import asyncio
import logging
import math
from concurrent.futures import Future
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, cast

from coldaisle.tui.screens.live import LiveScreen

if TYPE_CHECKING:
    from coldaisle.analyzers.snapshot import SeriesAnswer, SeriesQuery, Snapshot

log = logging.getLogger(__name__)

SPANS = (300.0, 900.0, 3600.0)
"""Ranges that the charts can cover: what the history keeps."""
BINS = (1, 2, 3, 4, 5, 6, 10, 12, 15, 20, 30, 60, 120, 180, 300, 600)
FULL_S = 900.0
"""Older than this the history holds one-minute means."""
ANSWER_LIMIT_S = 10.0


class Feed(Protocol):
    """What these screens ask of the app's feed."""

    def query(self, q: SeriesQuery) -> Future[SeriesAnswer]:
        """A series over time, answered off the screen's thread."""
        ...


@dataclass(frozen=True, slots=True)
class Bins:
    """Equal bins that end now, on round instants: what was drawn once does not change when time goes on."""

    start: float
    end: float
    points: int


def bins(now: float, span: float, columns: int, period: float) -> Bins:
    """The finest bins that fill ``columns``, hold a sample each and are not finer than the history."""
    least = max(span / max(1, columns), 1.5 * period, 60.0 if span > FULL_S else 0.0)
    width = next((float(size) for size in BINS if size >= least), math.ceil(least / 600.0) * 600.0)
    # a bin that has just begun holds no sample yet: it would blink as a gap
    end = math.ceil((now - 1.5 * period) / width) * width
    points = max(1, math.ceil(span / width))
    return Bins(end - points * width, end, points)


def period_of(snapshot: Snapshot, key: str) -> float:
    """Seconds between samples of a metric, from its current sources; 0: not known."""
    column = snapshot.column(key)
    if column is None or not len(column.source):
        return 0.0
    periods = {int(source) for source in column.source if source < len(snapshot.sources)}
    found = [snapshot.sources[source] for source in periods]
    return max((source.period or source.interval for source in found), default=0.0)


class SeriesScreen(LiveScreen):
    """Asks what its :meth:`question` says and draws the answer; hidden it asks nothing."""

    def __init__(self) -> None:
        super().__init__()
        self._answer: SeriesAnswer | None = None
        """The last one that fits the question."""
        self._asking = False
        self._stale_question = False

    def question(self, snapshot: Snapshot) -> SeriesQuery | None:
        """What is wanted over time for what is in sight; None: nothing."""
        return None

    def answered(self, snapshot: Snapshot) -> None:
        """Draw with the answer that came, or with what is known where none can be had."""

    def ask(self) -> None:
        """Ask the question of now; while an answer is awaited, only remember that it must be asked again."""
        if self._asking:
            self._stale_question = True
            return
        self._asking = True
        self.run_worker(self._fetch(), group="series", exit_on_error=False)

    async def _fetch(self) -> None:
        try:
            while self.is_current and self.snapshot is not None:
                self._stale_question = False
                query = self.question(self.snapshot)
                if query is not None:
                    self._take(await self._answered(query))
                if not self._stale_question:
                    return
        finally:
            self._asking = False

    async def _answered(self, query: SeriesQuery) -> SeriesAnswer | None:
        feed = cast(Feed, getattr(self.app, "feed"))  # noqa: B009
        try:
            return await asyncio.wait_for(asyncio.wrap_future(feed.query(query)), ANSWER_LIMIT_S)
        except Exception:  # supervision: a chart that cannot be had must not end the screen
            log.exception("no series for %s", query.keys)
            return None

    def _take(self, answer: SeriesAnswer | None) -> None:
        """Keep an answer, if it is still what is asked for."""
        if self.snapshot is None or not self.is_mounted:
            return
        if answer is not None:
            now = self.question(self.snapshot)
            if now is None or (now.keys, now.entities) != (answer.query.keys, answer.query.entities):
                self._stale_question = True
                return
            self._answer = answer
        self.answered(self.snapshot)
