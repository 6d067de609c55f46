"""What was measured, in columns: time × entity per metric, float32, NaN for missing.

The history stores samples and never holds them: a cell is written only by a new sample, so a 30 s
metric on a 2 s screen is not a frozen feed. Each (source, entity kind) is a :class:`Block` with a time
axis and a learnt period of its own. Full resolution is kept for 15 minutes, then one-minute mean,
minimum and maximum. Rows are the integers of :class:`~coldaisle.sources.cluster.Cluster`.

Where two sources measure the same cell, one is current (the better rank) until it is stale; they
never interleave. Not safe for several threads: it belongs to the collector's.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from coldaisle.sources.catalog import catalog
from coldaisle.sources.source import Batch, Codes, Floats, Kind, Missing, Rank

Times = NDArray[np.float64]
Rows = NDArray[np.intp]

FULL_S = 900.0
"""Seconds of full resolution."""
MINUTE = 60.0
STALE_PERIODS = 3.0
NO_SOURCE = 255


class Latest(NamedTuple):
    """The newest known state of one metric, [row] each."""

    values: Floats
    """NaN: missing. A stale value is kept, with reason STALE."""
    at: Times
    reason: Codes
    source: Codes
    """Source number; NO_SOURCE: none."""


@dataclass(frozen=True, slots=True)
class Limits:
    """How much is kept. Nothing but the newest values with ``full_s`` and ``minutes`` 0."""

    full_s: float = FULL_S
    minutes: int = 60
    full_bytes: int = 260_000_000
    """Full resolution ends earlier than ``full_s`` when all blocks together would pass this."""
    extremes: bool = True
    """Whether minutes keep minimum and maximum beside the mean."""


class Ring:
    """Rows of equal width in time order, the oldest overwritten; grows when it is told to.

    Memory that was never written is never touched, so the operating system does not count it.
    """

    def __init__(self, capacity: int) -> None:
        self.times: Times = np.full(capacity, np.nan)
        self.arrays: dict[str, Floats] = {}
        self.width = 0
        self.head = -1  # position of the newest row
        self.count = 0

    @property
    def capacity(self) -> int:
        return len(self.times)

    @property
    def newest(self) -> float:
        return float(self.times[self.head]) if self.count else float("-inf")

    @property
    def oldest(self) -> float:
        return float(self.times[(self.head - self.count + 1) % self.capacity]) if self.count else float("inf")

    @property
    def bytes(self) -> int:
        """What the rows in use take."""
        return self.count * (8 + 4 * self.width * len(self.arrays))

    def append(self, at: float) -> None:
        """A new row, all missing."""
        self.head = (self.head + 1) % self.capacity
        self.count = min(self.count + 1, self.capacity)
        self.times[self.head] = at
        for array in self.arrays.values():
            array[self.head] = np.nan

    def add(self, name: str) -> Floats:
        """An array for ``name``; all its earlier rows are missing."""
        array = np.empty((self.capacity, self.width), dtype=np.float32)
        array[self._order()] = np.nan
        self.arrays[name] = array
        return array

    def widen(self, width: int) -> None:
        """Room for more entities; their earlier rows are missing."""
        order = self._order()
        for name, array in self.arrays.items():
            wider = np.empty((self.capacity, width), dtype=np.float32)
            wider[order, : self.width] = array[order]
            wider[order, self.width :] = np.nan
            self.arrays[name] = wider
        self.width = width

    def grow(self, capacity: int) -> None:
        """Room for more rows."""
        order = self._order()
        times = np.full(capacity, np.nan)
        times[: self.count] = self.times[order]
        for name, array in self.arrays.items():
            larger = np.empty((capacity, self.width), dtype=np.float32)
            larger[: self.count] = array[order]
            self.arrays[name] = larger
        self.times, self.head = times, self.count - 1

    def prepend(self, times: Times, arrays: Mapping[str, Floats], room: int) -> None:
        """Rows older than all that are here, [row, entity] by name; the newest of them, as many as ``room`` rows in all allow."""
        order = self._order()
        first = max(len(times) - max(room - self.count, 0), 0)
        added = len(times) - first
        count = added + self.count
        all_times = np.full(max(self.capacity, count), np.nan)
        all_times[:count] = np.concatenate([times[first:], self.times[order]])
        for name in dict.fromkeys((*self.arrays, *arrays)):
            joined = np.empty((len(all_times), self.width), dtype=np.float32)
            joined[:added] = arrays[name][first:] if name in arrays else np.nan
            joined[added:count] = self.arrays[name][order] if name in self.arrays else np.nan
            self.arrays[name] = joined
        self.times, self.count, self.head = all_times, count, count - 1

    def between(self, start: float, end: float) -> Rows:
        """Positions of the rows with start <= time < end, oldest first."""
        order = self._order()
        times = self.times[order]
        return order[np.searchsorted(times, start) : np.searchsorted(times, end)]

    def _order(self) -> Rows:
        return (np.arange(self.head - self.count + 1, self.head + 1)) % self.capacity


class Block:
    """All samples of one kind of entity from one source."""

    def __init__(self, source: int, rank: Rank, kind: Kind, interval: float, rows: int = 128) -> None:
        self.source = source
        self.rank = rank
        self.kind = kind
        self.period = interval
        # Rows that were never written cost no memory, and a ring that grows must be copied.
        self.full = Ring(rows)
        self.minutes = Ring(16)
        self.rows: Rows = np.zeros(0, dtype=np.intp)
        """History row of each column."""
        self.last: dict[str, Floats] = {}
        self.last_at: dict[str, Times] = {}
        self.reasons: dict[str, Codes] = {}
        self.seen: Times = np.zeros(0)
        self._column_of: dict[int, int] = {}
        self._columns: dict[int, tuple[object, Rows]] = {}

    @property
    def keys(self) -> Iterable[str]:
        return self.last.keys()

    def write(self, batch: Batch, rows: Rows, limits: Limits, may_grow: bool, is_past: bool = False) -> None:
        """Take a batch in; ``rows`` are the history rows of its entities. An older batch than the last is dropped."""
        if batch.at < self.full.newest:
            return
        columns = self._columns_for(batch.entities, rows)
        if batch.at > self.full.newest:
            if self.full.count and not is_past:
                self._learn_period(batch.at - self.full.newest)
            self._advance(batch.at, limits, may_grow)
        values = _in_range(batch)
        present = ~np.isnan(values)
        self._write_intervals(batch, columns)
        for position, key in enumerate(batch.metrics):
            self._write_metric(key, columns, values[position], present[position], batch.at)
        self.seen[columns[present.any(axis=0)]] = batch.at
        self._write_reasons(batch, columns, present)

    def limit_age(self) -> float:
        """Seconds after which a value of this block is stale."""
        return STALE_PERIODS * self.period

    def column_of(self, row: int) -> int | None:
        return self._column_of.get(row)

    def move(self, old: int, new: int) -> None:
        """The entity of row ``old`` turned out to be that of ``new``: give it this block's samples."""
        column = self._column_of.pop(old, None)
        if column is None:
            return
        self._columns.clear()
        target = self._column_of.get(new)
        if target is None:
            self.rows[column] = new
            self._column_of[new] = column
            return
        self.rows[column] = -1
        for ring in (self.full, self.minutes):
            for array in ring.arrays.values():
                hole = np.isnan(array[:, target])
                array[hole, target] = array[hole, column]
        for key, at in self.last_at.items():
            if np.isnan(at[target]) or at[column] > at[target]:
                at[target] = at[column]
                self.last[key][target] = self.last[key][column]
        self.seen[target] = np.fmax(self.seen[target], self.seen[column])

    def forget(self, row: int) -> None:
        """Another board sits in this slot now: its baselines start afresh."""
        column = self._column_of.get(row)
        if column is None:
            return
        for ring in (self.full, self.minutes):
            for array in ring.arrays.values():
                array[:, column] = np.nan
        for key in self.last:
            self.last[key][column] = np.nan
            self.last_at[key][column] = np.nan

    def shift(self, seconds: float) -> None:
        """Our clock was set: move everything with it."""
        for ring in (self.full, self.minutes):
            ring.times += seconds
        for at in self.last_at.values():
            at += seconds
        self.seen += seconds

    def _columns_for(self, entities: object, rows: Rows) -> Rows:
        known = self._columns.get(id(entities))
        if known is not None and known[0] is entities:
            return known[1]
        for row in rows.tolist():
            if row not in self._column_of:
                self._column_of[row] = len(self.rows)
                self.rows = np.append(self.rows, row)
        self._widen(len(self.rows))
        columns = np.array([self._column_of[row] for row in rows.tolist()], dtype=np.intp)
        if len(self._columns) > 8:
            self._columns.clear()
        self._columns[id(entities)] = (entities, columns)
        return columns

    def _widen(self, width: int) -> None:
        extra = width - self.full.width
        if extra <= 0:
            return
        self.full.widen(width)
        self.minutes.widen(width)
        self.seen = np.concatenate([self.seen, np.full(extra, np.nan)])
        for key in self.last:
            self.last[key] = np.concatenate([self.last[key], np.full(extra, np.nan, dtype=np.float32)])
            self.last_at[key] = np.concatenate([self.last_at[key], np.full(extra, np.nan)])
        for key in self.reasons:
            self.reasons[key] = np.concatenate(
                [self.reasons[key], np.full(extra, Missing.NOT_SAMPLED, dtype=np.uint8)]
            )

    def _advance(self, at: float, limits: Limits, may_grow: bool) -> None:
        ring = self.full
        if ring.count and limits.minutes and at // MINUTE != ring.newest // MINUTE:
            self._fold_minute(ring.newest // MINUTE * MINUTE, limits)
        if ring.count == ring.capacity and may_grow and ring.oldest > at - limits.full_s:
            ring.grow(2 * ring.capacity)
        ring.append(at)

    def _learn_period(self, step: float) -> None:
        # A single long gap is a gap, not a period; several in a row are.
        self.period += 0.2 * (min(step, 3 * self.period) - self.period)

    def _fold_minute(self, minute: float, limits: Limits) -> None:
        rows = self.full.between(minute, minute + MINUTE)
        if not len(rows):
            return
        ring = self.minutes
        if ring.count == ring.capacity and ring.capacity < limits.minutes:
            ring.grow(min(limits.minutes, ring.capacity * 3 // 2))
        ring.append(minute + MINUTE / 2)
        for key in self.full.arrays.keys() & self.last.keys():
            folds = _fold(self.full.arrays[key][rows])
            for name, folded in folds if limits.extremes else folds[:1]:
                array = ring.arrays.get(key + name)
                if array is None:
                    array = ring.add(key + name)
                array[ring.head] = folded

    def _write_metric(
        self, key: str, columns: Rows, values: Floats, present: NDArray[np.bool_], at: float
    ) -> None:
        if key not in self.last:
            self.last[key] = np.full(self.full.width, np.nan, dtype=np.float32)
            self.last_at[key] = np.full(self.full.width, np.nan)
            self.reasons[key] = np.full(self.full.width, Missing.NOT_SAMPLED, dtype=np.uint8)
        if not present.any():
            return
        array = self.full.arrays.get(key)
        if array is None:
            array = self.full.add(key)
        where, what = (columns, values) if present.all() else (columns[present], values[present])
        array[self.full.head, where] = what
        self.last[key][where] = what
        self.last_at[key][where] = at

    def _write_intervals(self, batch: Batch, columns: Rows) -> None:
        array = self.full.arrays.get(INTERVAL)
        if array is None:
            array = self.full.add(INTERVAL)
        array[self.full.head, columns] = self.period if batch.intervals is None else batch.intervals

    def _write_reasons(self, batch: Batch, columns: Rows, present: NDArray[np.bool_]) -> None:
        """Keep why values are missing. Where the source makes no statement, a missing value is a dropped sample."""
        if batch.reasons is None:
            for position, key in enumerate(batch.metrics):
                self.reasons[key][columns[present[position]]] = Missing.PRESENT
            return
        codes = batch.reasons.T
        heard = present.any(axis=0) | (codes > Missing.NOT_SAMPLED).any(axis=0)
        for position, key in enumerate(batch.metrics):
            self.reasons[key][columns[heard]] = codes[position, heard]


INTERVAL = "interval"
"""The ring's array of seconds that each row's rates cover."""


def _in_range(batch: Batch) -> Floats:
    """[metric, entity] values; what the catalog calls impossible is missing."""
    values = np.array(batch.values.T, dtype=np.float32, order="C")
    known = catalog()
    for position, key in enumerate(batch.metrics):
        metric = known.get(key)
        if metric is None:
            continue
        row = values[position]
        bad = (row < metric.low) | (row > metric.high)
        if bad.any():
            row[bad] = np.nan
    return values


def _fold(rows: Floats) -> tuple[tuple[str, Floats], ...]:
    """Mean, minimum and maximum of [time, entity] over time; NaN where no sample is."""
    present = ~np.isnan(rows)
    count = present.sum(axis=0)
    total = np.add.reduce(rows, axis=0, where=present, dtype=np.float64)
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = (total / count).astype(np.float32)
    return (("", mean), (":low", np.fmin.reduce(rows, axis=0)), (":high", np.fmax.reduce(rows, axis=0)))


@dataclass(slots=True)
class Currency:
    """Which block is current for each row of a metric that several deliver."""

    block: NDArray[np.int16]
    since: Times
    previous: NDArray[np.int16]
    waiting: Times
    """Since when a better block has been delivering without a gap; NaN: none."""


class History:
    """All blocks. ``write`` takes samples in; ``latest``, ``series`` and ``integral`` read them."""

    def __init__(self, limits: Limits | None = None) -> None:
        self.limits = limits or Limits()
        self.blocks: list[Block] = []
        self._by_source: dict[tuple[int, Kind], Block] = {}
        self._currency: dict[str, Currency] = {}

    @property
    def bytes(self) -> int:
        return sum(block.full.bytes + block.minutes.bytes for block in self.blocks)

    @property
    def reach(self) -> float:
        """The oldest instant of which anything is known; +inf: nothing yet."""
        return min((min(b.full.oldest, b.minutes.oldest) for b in self.blocks), default=float("inf"))

    def keys(self, kind: Kind | None = None) -> tuple[str, ...]:
        """Metrics of which there is a sample, or a reason for its absence."""
        return tuple(dict.fromkeys(key for b in self.blocks if kind in (None, b.kind) for key in b.keys))

    def write(
        self, batch: Batch, rows: Rows, source: int, rank: Rank, interval: float, *, is_past: bool = False
    ) -> None:
        """Store a batch; ``rows`` holds the history row of each of its entities.

        The steps of a told past (``is_past``) say nothing about the source's live period.
        """
        block = self._by_source.get((source, batch.kind))
        if block is None:
            rows_kept = 128 if self.limits.full_s else 2
            block = Block(source, rank, batch.kind, interval, rows_kept)
            self._by_source[source, batch.kind] = block
            self.blocks.append(block)
        may_grow = sum(b.full.bytes for b in self.blocks) < self.limits.full_bytes
        block.write(batch, rows, self.limits, may_grow, is_past)

    def latest(self, key: str, size: int, now: float) -> Latest:
        """The state of a metric at ``now`` for rows 0..size-1."""
        out = Latest(
            np.full(size, np.nan, dtype=np.float32),
            np.full(size, np.nan),
            np.full(size, Missing.NOT_SAMPLED, dtype=np.uint8),
            np.full(size, NO_SOURCE, dtype=np.uint8),
        )
        blocks = self._blocks_with(key)
        if len(blocks) == 1:
            block = self.blocks[blocks[0]]
            live = block.rows >= 0
            _put(out, block, key, np.flatnonzero(live), now)
            return out
        if blocks:
            current = self._choose(key, blocks, size, now).block
            for number in reversed(blocks):
                block = self.blocks[number]
                # Where nobody ever delivered, the most trusted says why.
                mine = (current[block.rows] == number) | (current[block.rows] < 0)
                _put(out, block, key, np.flatnonzero((block.rows >= 0) & mine), now)
        return out

    def seen(self, kind: Kind, size: int, silent: Collection[int] = ()) -> tuple[Times, Times]:
        """When each row was last heard of, by any source but ``silent``, and after how many seconds that is stale."""
        at = np.full(size, np.nan)
        limit = np.full(size, np.inf)
        for block in self.blocks:
            if block.kind is kind and block.source not in silent:
                live = block.rows >= 0
                rows, seen = block.rows[live], block.seen[live]
                newer = ~(seen <= at[rows]) & ~np.isnan(seen)
                at[rows[newer]] = seen[newer]
                limit[rows[newer]] = block.limit_age()
        return at, limit

    def period(self, source: int) -> float | None:
        """Learnt seconds between two samples of a source."""
        periods = [b.period for b in self.blocks if b.source == source and b.full.count > 1]
        return min(periods) if periods else None

    def poll(self, kind: Kind) -> float | None:
        """Learnt seconds between two samples of the fastest source of a kind; None: nobody delivers it."""
        return min((b.period for b in self.blocks if b.kind is kind and b.full.count), default=None)

    def newest(self, source: int) -> float | None:
        """When a source last delivered."""
        times = [b.full.newest for b in self.blocks if b.source == source and b.full.count]
        return max(times) if times else None

    def series(
        self,
        key: str,
        rows: Sequence[int],
        start: float,
        end: float,
        points: int,
        before: float = float("inf"),
    ) -> Floats:
        """Means in ``points`` equal bins of [start, end): [row, point], NaN where no sample is.

        Samples from ``before`` on are left out: at a past instant they are still to come.
        """
        out = np.full((len(rows), points), np.nan, dtype=np.float32)
        blocks = self._blocks_with(key)
        currency = self._currency.get(key) if len(blocks) > 1 else None
        edges = np.linspace(start, end, points + 1)
        for position, row in enumerate(rows):
            for number, since, until in _segments(currency, blocks, row):
                block = self.blocks[number]
                column = block.column_of(row)
                if column is not None:
                    line = _binned(block, key, column, edges, since, min(until, before))
                    np.copyto(out[position], line, where=~np.isnan(line))
        return out

    def grid(self, key: str, size: int, end: float, step: float, points: int) -> Floats:
        """The newest sample in each of ``points`` bins of ``step`` seconds that end at ``end``: [point, row], oldest first.

        NaN where a bin holds no sample of a row. Full resolution only.
        """
        out = np.full((points, size), np.nan, dtype=np.float32)
        start = end - points * step
        for block, mine, since, until in self._shares(key, size, end):
            ring = block.full
            if key not in ring.arrays:
                continue
            chosen = ring.between(max(start, since), min(end, until) + 1e-3)
            # Samples lie about a period apart, the newest at the end: rounding keeps jitter from moving one across.
            bins = points - 1 - np.rint((end - ring.times[chosen]) / step).astype(np.intp)
            rows = block.rows[mine]
            for row, line in zip(bins.tolist(), ring.arrays[key][chosen], strict=True):
                if row >= 0:
                    values = line[mine]
                    have = ~np.isnan(values)
                    out[row, rows[have]] = values[have]
        return out

    def folded(self, key: str, size: int, end: float, minutes: int) -> tuple[Floats, Floats, Floats]:
        """Mean, minimum and maximum of each whole minute, the last one before ``end``: [minute, row] each, oldest first.

        NaN where a minute holds no sample; minimum and maximum are the mean where they are not kept.
        """
        out = tuple(np.full((minutes, size), np.nan, dtype=np.float32) for _ in range(3))
        last = end // MINUTE - 1
        for block, mine, since, until in self._shares(key, size, end):
            ring = block.minutes
            if key not in ring.arrays:
                continue
            chosen = ring.between(max((last + 1 - minutes) * MINUTE, since), min((last + 1) * MINUTE, until))
            places = minutes - 1 - (last - ring.times[chosen] // MINUTE).astype(np.intp)
            rows = block.rows[mine]
            for kept, name in zip(out, ("", ":low", ":high"), strict=True):
                array = ring.arrays.get(key + name, ring.arrays[key])
                for place, at in zip(places.tolist(), chosen.tolist(), strict=True):
                    values = array[at, mine]
                    have = ~np.isnan(values)
                    kept[place, rows[have]] = values[have]
        return out[0], out[1], out[2]

    def step_of(self, key: str) -> float | None:
        """Seconds between two samples of a metric, as learnt: of its slowest source that delivers; None: nobody does."""
        periods = [self.blocks[n].period for n in self._blocks_with(key) if key in self.blocks[n].full.arrays]
        return max(periods, default=None)

    def newest_of(self, key: str, end: float) -> float | None:
        """When the newest sample of a metric came, at most ``end``; None: there is none."""
        times = []
        for number in self._blocks_with(key):
            ring = self.blocks[number].full
            if key in ring.arrays:
                chosen = ring.between(-float("inf"), end + 1e-3)
                times += [float(ring.times[chosen[-1]])] if len(chosen) else []
        return max(times, default=None)

    def _shares(
        self, key: str, size: int, now: float
    ) -> Iterable[tuple[Block, NDArray[np.bool_], float, float]]:
        """(block, its columns that stand for their rows, from, until); a later one before an earlier one."""
        numbers = self._blocks_with(key)
        forever = float("inf")
        if len(numbers) > 1:
            self._choose(key, numbers, size, now)
        currency = self._currency.get(key) if len(numbers) > 1 else None
        for number in numbers:
            block = self.blocks[number]
            known = (block.rows >= 0) & (block.rows < size)
            if currency is None:
                yield block, known, -forever, forever
                continue
            rows = np.where(known, block.rows, 0)
            yield block, known & (currency.block[rows] == number), -forever, forever
            former = known & (currency.previous[rows] == number)
            for since in np.unique(currency.since[rows[former]]).tolist():
                yield block, former & (currency.since[rows] == since), -forever, since

    def take_earlier(self, other: History, rows: Mapping[Kind, Mapping[int, int]]) -> None:
        """The minutes of a history of the same sources that lie before all that is here; ``rows``: its row -> ours."""
        for (source, kind), theirs in other._by_source.items():
            mine = self._by_source.get((source, kind))
            if mine is None:
                continue
            before = min(mine.minutes.oldest, mine.full.oldest // MINUTE * MINUTE)
            chosen = theirs.minutes.between(-float("inf"), before)
            known = rows.get(kind, {})
            pairs = [
                (column, own)
                for column, row in enumerate(theirs.rows.tolist())
                if (own := mine.column_of(known.get(row, -1))) is not None
            ]
            if not len(chosen) or not pairs:
                continue
            columns, own_columns = np.array(pairs, dtype=np.intp).T
            arrays = {}
            for name, array in theirs.minutes.arrays.items():
                arrays[name] = np.full((len(chosen), mine.minutes.width), np.nan, dtype=np.float32)
                arrays[name][:, own_columns] = array[chosen][:, columns]
            mine.minutes.prepend(theirs.minutes.times[chosen], arrays, self.limits.minutes)

    def integral(self, key: str, rows: Sequence[int], start: float, end: float) -> NDArray[np.float64]:
        """Sum of rate × the seconds it covers over [start, end), from full resolution: [row]; NaN: no sample."""
        out = np.full(len(rows), np.nan)
        blocks = self._blocks_with(key)
        currency = self._currency.get(key) if len(blocks) > 1 else None
        for position, row in enumerate(rows):
            for number, since, until in _segments(currency, blocks, row):
                block = self.blocks[number]
                column = block.column_of(row)
                if column is None:
                    continue
                if key not in block.full.arrays:
                    continue
                chosen = block.full.between(max(start, since), min(end, until))
                amount = block.full.arrays[key][chosen, column] * block.full.arrays[INTERVAL][chosen, column]
                if not np.isnan(amount).all():
                    out[position] = np.nansum([out[position], np.nansum(amount, dtype=np.float64)])
        return out

    def join(self, kind: Kind, old: int, new: int) -> None:
        """Two rows are one entity: ``new`` inherits all samples of ``old``."""
        for block in self.blocks:
            if block.kind is kind:
                block.move(old, new)

    def forget(self, kind: Kind, row: int) -> None:
        """Another board sits there now."""
        for block in self.blocks:
            if block.kind is kind:
                block.forget(row)

    def shift(self, seconds: float) -> None:
        """Our clock was set by so much: the past moves with it."""
        for block in self.blocks:
            block.shift(seconds)
        for currency in self._currency.values():
            currency.since += seconds
            currency.waiting += seconds

    def _blocks_with(self, key: str) -> list[int]:
        """Numbers of the blocks that deliver a metric, the most trusted first."""
        numbers = [n for n, block in enumerate(self.blocks) if key in block.last]
        return sorted(numbers, key=lambda n: self.blocks[n].rank)

    def _choose(self, key: str, blocks: Sequence[int], size: int, now: float) -> Currency:
        """Keep the current block of each row until it is stale; a better one takes over once it held for 3 periods."""
        currency = self._currency.get(key) or Currency(
            np.full(0, -1, np.int16), np.zeros(0), np.full(0, -1, np.int16), np.zeros(0)
        )
        extra = size - len(currency.block)
        if extra > 0:
            none, never = np.full(extra, -1, np.int16), np.full(extra, np.nan)
            currency = Currency(
                np.concatenate([currency.block, none]),
                np.concatenate([currency.since, never]),
                np.concatenate([currency.previous, none]),
                np.concatenate([currency.waiting, never]),
            )
        fresh = {number: self._fresh(number, key, size, now) for number in blocks}
        _switch(currency, blocks, fresh, {n: self.blocks[n].limit_age() for n in blocks}, now)
        self._currency[key] = currency
        return currency

    def _fresh(self, number: int, key: str, size: int, now: float) -> NDArray[np.bool_]:
        block = self.blocks[number]
        fresh = np.zeros(size, dtype=np.bool_)
        live = block.rows >= 0
        ok = (now - block.last_at[key] <= block.limit_age()) & (block.reasons[key] == Missing.PRESENT)
        fresh[block.rows[live]] = ok[live]
        return fresh


def _switch(
    currency: Currency,
    blocks: Sequence[int],
    fresh: Mapping[int, NDArray[np.bool_]],
    hold: Mapping[int, float],
    now: float,
) -> None:
    """Choose each row's current block in place; ``blocks`` come best first."""
    best = np.full(len(currency.block), -1, np.int16)
    for number in reversed(blocks):
        best[fresh[number]] = number
    current_fresh = np.zeros(len(best), dtype=np.bool_)
    for number in blocks:
        current_fresh |= (currency.block == number) & fresh[number]
    better = (best >= 0) & (best != currency.block) & current_fresh
    currency.waiting[~better] = np.nan
    starts = better & np.isnan(currency.waiting)
    currency.waiting[starts] = now
    held = np.zeros(len(best), dtype=np.bool_)
    for number in blocks:
        held |= better & (best == number) & (now - currency.waiting >= hold[number])
    change = (best >= 0) & (best != currency.block) & (~current_fresh | held)
    currency.previous[change] = currency.block[change]
    currency.since[change] = np.where(currency.block[change] < 0, -np.inf, now)
    currency.block[change] = best[change]
    currency.waiting[change] = np.nan


def _segments(
    currency: Currency | None, blocks: Sequence[int], row: int
) -> Iterable[tuple[int, float, float]]:
    """(block, from, until) whose samples stand for a row; a later one before an earlier one."""
    forever = float("inf")
    if currency is None:  # the most trusted comes last: its samples stay
        return [(number, -forever, forever) for number in reversed(blocks)]
    if not 0 <= row < len(currency.block) or currency.block[row] < 0:
        return []
    since = float(currency.since[row])
    segments = [(int(currency.block[row]), since, forever)]
    if currency.previous[row] >= 0:
        segments.append((int(currency.previous[row]), -forever, since))
    return segments


def _put(out: Latest, block: Block, key: str, columns: Rows, now: float) -> None:
    """Write a block's newest values of a metric into ``out``."""
    rows = block.rows[columns]
    inside = rows < len(out.values)
    rows, columns = rows[inside], columns[inside]
    reason = block.reasons[key][columns].copy()
    at = block.last_at[key][columns]
    values = block.last[key][columns].copy()
    said_missing = (reason != Missing.PRESENT) & (reason != Missing.NOT_SAMPLED)
    values[said_missing] = np.nan
    have = ~np.isnan(values)
    old = now - at > block.limit_age()
    reason[have] = np.where(old[have], Missing.STALE, Missing.PRESENT)
    out.values[rows] = values
    out.at[rows] = at
    out.reason[rows] = reason
    out.source[rows] = block.source


def _binned(block: Block, key: str, column: int, edges: Times, since: float, until: float) -> Floats:
    """One block's samples of one cell as means between ``edges``; minutes where full resolution has ended."""
    full = block.full
    times, values = _samples(full, key, column, max(edges[0], since), min(edges[-1], until))
    if full.oldest > edges[0] and block.minutes.count:
        whole_until = full.oldest - MINUTE / 2  # a minute is stamped at its middle
        older = _samples(block.minutes, key, column, max(edges[0], since), min(edges[-1], until, whole_until))
        times, values = np.concatenate([older[0], times]), np.concatenate([older[1], values])
    points = len(edges) - 1
    have = ~np.isnan(values)
    bins = np.clip(np.searchsorted(edges, times[have], side="right") - 1, 0, points - 1)
    count = np.bincount(bins, minlength=points)
    total = np.bincount(bins, weights=values[have], minlength=points)
    with np.errstate(invalid="ignore", divide="ignore"):
        return (total / count).astype(np.float32)


def _samples(ring: Ring, key: str, column: int, start: float, end: float) -> tuple[Times, Floats]:
    if key not in ring.arrays:
        return np.zeros(0), np.zeros(0, dtype=np.float32)
    rows = ring.between(start, end)
    return ring.times[rows], ring.arrays[key][rows, column]
