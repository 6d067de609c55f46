"""A usage with what all rules derive from it: which board was whose when, and what it did meanwhile.

A *hold* is one job on one board, over a range of bins: a bin is a job's when the job runs at its middle. Sums over holds are
made for all of them at once.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from coldaisle.analyzers.advice.settings import Common
from coldaisle.analyzers.usage import Floats, Stay, Usage

Bools = NDArray[np.bool_]
Index = NDArray[np.intp]
Numbers = NDArray[np.float64]
Made = TypeVar("Made")

HOUR = 3600.0
DAY = 86400.0
WEEK = 7 * DAY
CELLS_AT_ONCE = 4_000_000
"""Bins of single boards that are looked at together: bounds the memory of long and large usages."""


@dataclass(frozen=True, slots=True, eq=False)
class Holds:
    """Who held which board when, [hold] each, by board, then by time."""

    stay: Index
    board: Index
    first: Index
    end: Index
    """One past its last bin."""

    def __len__(self) -> int:
        return len(self.stay)

    @property
    def bins(self) -> Index:
        """[hold] how many."""
        return self.end - self.first


class Members:
    """Which members every group has, of ``size`` groups; -1: in none."""

    def __init__(self, group: Index, size: int) -> None:
        self._order = np.argsort(group, kind="stable")
        self._bounds = np.searchsorted(group[self._order], np.arange(size + 1))

    def __getitem__(self, number: int) -> Index:
        return self._order[self._bounds[number] : self._bounds[number + 1]]


class Pool:
    """A usage and its derived arrays, made when they are asked for and kept. Never changes what it was given."""

    def __init__(self, usage: Usage, common: Common) -> None:
        self.usage = usage
        self.common = common
        self.start = float(usage.starts[0]) if len(usage.starts) else 0.0
        self.end = self.start + usage.span_s
        self.bins = len(usage.starts)
        self.size = len(usage.boards)
        self._made: dict[object, object] = {}

    @property
    def weeks(self) -> float:
        """How long was looked, of which anything is known; at least a bin."""
        known = self.known_bins * self.usage.step
        return max(known, self.usage.step, 1.0) / WEEK

    @cached_property
    def known_bins(self) -> int:
        """Bins in which any board was measured; all where only jobs are known."""
        busy = self.busy
        return self.bins if busy is None else int((~np.isnan(busy)).any(axis=0).sum())

    @property
    def is_snapshot(self) -> bool:
        """Whether it is too short to size anything from."""
        return self.usage.span_s <= self.common.snapshot_s

    def metric(self, key: str) -> Floats | None:
        """[board, bin], NaN where nothing was measured; None: nobody delivers it."""

        def make() -> Floats | None:
            values = self.usage.means.get(key)
            if values is None or values.shape != (self.bins, self.size):
                return None
            known = np.isfinite(values.T)
            if not known.any():
                return None
            return np.where(known, values.T, np.float32(np.nan)).astype(np.float32, order="C", copy=False)

        return self.cached(("metric", key), make)

    @property
    def busy_metric(self) -> str:
        """What says that a kernel is resident."""
        return "gpu.util" if self.metric("gpu.util") is not None else "gpu.gr_active"

    @property
    def busy(self) -> Floats | None:
        """[board, bin] share of time with a kernel resident; None: not measured."""
        return self.metric(self.busy_metric)

    @cached_property
    def stays(self) -> tuple[Stay, ...]:
        """Those of the usage."""
        return self.usage.stays

    @cached_property
    def started(self) -> Numbers:
        """[stay] epoch seconds; NaN: has not."""
        return np.array([stay.started_at for stay in self.stays], dtype=np.float64)

    @cached_property
    def ended(self) -> Numbers:
        """[stay] epoch seconds; the end of the usage for one that has not ended."""
        ended: Numbers = np.array([stay.ended_at for stay in self.stays], dtype=np.float64)
        ended[np.isnan(ended)] = self.end
        return ended

    @cached_property
    def knows_submissions(self) -> bool:
        """Whether any job's submission is known: else jobs are those that labels showed while their boards were measured."""
        return any(not math.isnan(stay.submitted_at) for stay in self.stays)

    @cached_property
    def is_running(self) -> Bools:
        """[stay] whether it holds its GPUs at the end of the usage."""
        running: Bools = ~np.isnan(self.started) & (self.ended >= self.end)
        return running

    @cached_property
    def inside_s(self) -> Numbers:
        """[stay] seconds that it ran within the span."""
        inside = np.minimum(self.ended, self.end) - np.maximum(self.started, self.start)
        seconds: Numbers = np.maximum(np.nan_to_num(inside), 0.0)
        return seconds

    @cached_property
    def gpu_s(self) -> Numbers:
        """[stay] GPU seconds within the span, known by board or not."""
        counts = np.array([stay.gpus_held for stay in self.stays], dtype=np.float64)
        return self.inside_s * counts

    @cached_property
    def boards_of(self) -> tuple[tuple[int, ...] | None, ...]:
        """[stay] its boards; of a job that has all GPUs of its nodes these, also where nobody lists them."""
        of_host: dict[str, list[int]] = {}
        for number, board in enumerate(self.usage.boards):
            of_host.setdefault(board.node, []).append(number)

        def boards(stay: Stay) -> tuple[int, ...] | None:
            if stay.boards is not None:
                return tuple(board for board in stay.boards if 0 <= board < self.size)
            hosts = (self.usage.hosts[host] for host in stay.hosts if 0 <= host < len(self.usage.hosts))
            every = [board for host in hosts for board in of_host.get(host.key, ())]
            return tuple(every) if every and len(every) == stay.gpu_count else None

        return tuple(boards(stay) for stay in self.stays)

    @cached_property
    def homeless(self) -> int:
        """Jobs that ran on GPUs of which nobody knows which."""
        return sum(b is None and s > 0 for b, s in zip(self.boards_of, self.gpu_s.tolist(), strict=True))

    @cached_property
    def holds(self) -> Holds:
        """All of them, where it is known which boards."""
        counts = [len(boards or ()) for boards in self.boards_of]
        board = np.fromiter((b for boards in self.boards_of for b in boards or ()), np.intp, sum(counts))
        stay = np.repeat(np.arange(len(self.stays), dtype=np.intp), counts)
        first, end = self.bins_of(self.started), self.bins_of(self.ended)
        use = (end > first)[stay]
        stay, board = stay[use], board[use]
        order = np.lexsort((first[stay], board))
        stay, board = stay[order], board[order]
        return Holds(stay, board, first[stay], end[stay])

    @cached_property
    def holds_of(self) -> Members:
        """The holds of every stay."""
        return Members(self.holds.stay, len(self.stays))

    @cached_property
    def share_measured(self) -> Floats:
        """[board, bin] share of the samples that should be there; where they were not counted, 1 with any and 0 with none."""
        if self.busy is None:
            return np.zeros((self.size, self.bins), dtype=np.float32)
        there = ~np.isnan(self.busy)
        told = self.usage.coverage
        if told is None or told.shape != (self.bins, self.size):
            return there.astype(np.float32)
        share: Floats = np.where(there, np.clip(np.nan_to_num(told.T, nan=1.0), 0, 1), 0).astype(np.float32)
        return share

    def bins_of(self, at: Numbers) -> Index:
        """The first bin whose middle lies at or after an instant; NaN: none does."""
        bins = np.ceil((at - self.start) / self.usage.step - 0.5) if self.bins else np.zeros_like(at)
        bins = np.where(np.isnan(at), self.bins, bins)
        return np.clip(bins, 0, self.bins).astype(np.intp)

    def sums(self, values: NDArray[np.generic]) -> Numbers:
        """[hold] sum over its cells of [board, bin] ``values``: booleans are counted, NaN is left out."""
        return over_holds(self.holds, values)

    def highest(self, values: Floats) -> Floats:
        """[hold] the largest over its cells; NaN: nothing was measured."""
        holds = self.holds
        if not len(holds):
            return np.zeros(0, dtype=np.float32)
        flat = np.append(np.where(np.isnan(values), -np.inf, values).ravel(), -np.inf).astype(np.float32)
        pairs = _pairs(holds, self.bins)
        high: Floats = np.maximum.reduceat(flat, pairs)[::2]
        return np.where(np.isneginf(high), np.float32(np.nan), high)

    @cached_property
    def held(self) -> Bools:
        """[board, bin] whether some job holds it."""
        row = self.bins + 1
        holds, size = self.holds, self.size * row
        marks = np.bincount(holds.board * row + holds.first, minlength=size)
        marks -= np.bincount(holds.board * row + holds.end, minlength=size)
        deep = marks.reshape(self.size, row).cumsum(axis=1, dtype=np.int32)
        return np.asarray(deep[:, :-1] > 0)

    def by_stay(self, per_hold: NDArray[np.floating]) -> Numbers:
        """[stay] sum over its holds."""
        return tally(self.holds.stay, np.nan_to_num(per_hold), len(self.stays))

    @cached_property
    def coverage(self) -> Numbers:
        """[stay] share of its cells in which its boards were measured; NaN: it has none."""
        holds = self.holds
        cells = self.by_stay(holds.bins.astype(np.float64))
        known = self.by_stay(self.sums(self.share_measured))
        return np.where(cells > 0, known / np.maximum(cells, 1), np.nan)

    def cached(self, name: object, make: Callable[[], Made]) -> Made:
        """What ``make`` gives, made once a pool: for measures that several rules share."""
        if name not in self._made:
            self._made[name] = make()
        return self._made[name]  # type: ignore[return-value]


def tally(group: Index, weights: NDArray[np.floating], groups: int) -> Numbers:
    """[group] sum of the weights of its members; group -1 counts nowhere."""
    use = group >= 0
    return np.bincount(group[use], weights=weights[use], minlength=groups).astype(np.float64)


def over_holds(holds: Holds, values: NDArray[np.generic]) -> Numbers:
    """[hold] sum over its cells of [board, bin] ``values``; NaN is left out."""
    if not len(holds) or not values.size:
        return np.zeros(len(holds))
    bins = values.shape[1]
    out = np.zeros(len(holds))
    step = max(CELLS_AT_ONCE // max(bins, 1), 1)
    for low in range(0, values.shape[0], step):
        chosen = (holds.board >= low) & (holds.board < low + step)
        if not chosen.any():
            continue
        part = values[low : low + step]
        flat = np.zeros(part.size + 1, dtype=part.dtype)
        np.copyto(flat[:-1].reshape(part.shape), part, where=part == part)
        rows = (holds.board[chosen] - low) * bins
        pairs = np.stack([rows + holds.first[chosen], rows + holds.end[chosen]], axis=1).ravel()
        out[chosen] = np.add.reduceat(flat, pairs, dtype=np.float64)[::2]
    return out


def _pairs(holds: Holds, bins: int) -> Index:
    rows = holds.board * bins
    return np.stack([rows + holds.first, rows + holds.end], axis=1).ravel()


def hours(seconds: float) -> float:
    """``seconds`` as hours."""
    return seconds / HOUR


def finite(value: float, otherwise: float = 0.0) -> float:
    """A number to go on with."""
    return value if math.isfinite(value) else otherwise
