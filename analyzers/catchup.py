"""What was wrong before coldaisle started: the back-filled minutes, folded, so that findings stand within seconds.

Sources that remember tell the last quarter of an hour first, and are live from then on. Meanwhile the hour before is read in
minutes, both are replayed into a collector of their own and looked at, instant after instant; then the live diagnosis goes on
from there, and the live history has that hour too.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Mapping, Sequence

from coldaisle.analyzers.diagnosis import Diagnoser, fold_over, instants
from coldaisle.analyzers.past import (
    MOST_BYTES,
    Order,
    Replay,
    Span,
    Told,
    bytes_of,
    read_span,
    those_with_a_past,
)
from coldaisle.analyzers.view import View
from coldaisle.sources.collector import BACKFILL_S, BACKFILL_STEP_S, Collector, Supervised
from coldaisle.sources.history import Limits
from coldaisle.sources.source import Batch, Event, Item, Kind, Source

log = logging.getLogger(__name__)

EARLIER_S, EARLIER_STEP_S = 3600.0, 60.0
"""The longest lookback of a detector."""
WAIT_S = 30.0
"""So long sources have for telling the last quarter of an hour."""
MOST_LOOKS = 40_000
"""Looks times GPUs: all looks of a quarter of an hour at 512 GPUs, a few seconds of work; on larger clusters older ones are fewer."""
LIMITS = Limits(full_s=BACKFILL_S, minutes=90, full_bytes=2 * MOST_BYTES)


class CatchUp:
    """Collects what sources tell of the past, and folds it once. On the monitor's loop."""

    def __init__(
        self,
        sources: Sequence[Source],
        make_collector: Callable[[Limits], Collector],
        make_view: Callable[[Collector], View],
        diagnoser: Diagnoser,
    ) -> None:
        """``diagnoser``: the live one, which goes on from what is found."""
        self._pasts = those_with_a_past(sources)
        self._make_collector = make_collector
        self._make_view = make_view
        self._live = diagnoser
        self._told: list[Told] = []
        self._bytes = 0
        self._orders: dict[int, Order] = {}
        self.is_over = not self._pasts
        """Whether there is nothing more to come of it."""

    def take(self, supervised: Supervised, item: Item) -> None:
        """One item of a back-fill."""
        if self.is_over or self._bytes > 2 * MOST_BYTES:
            return
        order = self._orders.setdefault(supervised.number, Order(0.0))
        self._told.append(Told(order(item), supervised.number, item))
        self._bytes += bytes_of(item)

    async def run(self) -> None:
        """Wait for the back-fills, read what lies before them, fold. Whatever fails here costs only the findings' past."""
        try:
            if not self.is_over:
                await self._run()
        except Exception:  # supervision
            log.exception("the past could not be looked at")
        finally:
            self.is_over, self._told = True, []

    async def _run(self) -> None:
        collector = self._live.view.collector
        mine = [supervised for supervised in collector.supervised if supervised.number in self._pasts]
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(WAIT_S):
                await asyncio.gather(*(one.has_filled.wait() for one in mine))
        samples = [told.at for told in self._told if told.at > 0 and _is_sample(told)]
        if not samples:
            return
        start, end = min(samples), max(samples)
        earlier = Span(start - EARLIER_S, start, EARLIER_STEP_S, start)
        await read_span(earlier, self._pasts)
        step = max(
            BACKFILL_STEP_S, min(self._live.view.collector.supervised[n].source.interval for n in self._pasts)
        )
        fine = Span(start, end + step, step, start, sorted(self._told, key=lambda told: told.at))
        replay = Replay(fine, self._make_collector(LIMITS))
        await replay.go_before(earlier)
        diagnoser = Diagnoser(self._make_view(replay.collector), self._live.detectors, self._live.triage.zone)
        await fold_over(replay, diagnoser, instants(start + step, end, step), most=MOST_LOOKS)
        await replay.go(end)
        self._hand_over(diagnoser, earlier)

    def _hand_over(self, diagnoser: Diagnoser, earlier: Span) -> None:
        live = self._live.view
        theirs = diagnoser.view
        live.history.take_earlier(theirs.history, _rows(theirs, live))
        for told in earlier.told:
            if isinstance(told.item, Event) and not told.item.kind.startswith("alert"):
                live.collector.take(live.collector.supervised[told.number], told.item)
        self._live.go_on_from(diagnoser)


def _is_sample(told: Told) -> bool:
    return isinstance(told.item, Batch)


def _rows(theirs: View, ours: View) -> Mapping[Kind, Mapping[int, int]]:
    """Their history row -> ours, of the entities that both know, by key."""
    return {kind: _paired(theirs.rows_by_key(kind), ours.rows_by_key(kind)) for kind in Kind}


def _paired(theirs: Mapping[str, int], ours: Mapping[str, int]) -> dict[int, int]:
    return {row: ours[key] for key, row in theirs.items() if key in ours}
