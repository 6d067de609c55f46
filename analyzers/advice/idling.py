"""Stretches in which boards that a job held did nothing: what reclaiming is counted from."""

from __future__ import annotations

from dataclasses import dataclass

import msgspec
import numpy as np

from coldaisle.analyzers.advice.pool import CELLS_AT_ONCE, Bools, Holds, Index, Numbers, Pool, over_holds

GLIMPSE = 0.5
"""Of the shortest stretch that counts: so much of one must be seen where gaps hide its ends, or a short pause beside a gap
would count for one."""


class Thresholds(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """See ``[idle_gpus]`` of the TOML file."""

    util: float
    sm_active: float
    share: float
    whole_life_s: float
    run_s: float
    staging_s: float
    least_seen: float
    least_gpu_hours: float
    most_lines: int


@dataclass(frozen=True, slots=True, eq=False)
class Runs:
    """Idle stretches of holds, [run] each."""

    hold: Index
    first: Index
    end: Index
    """Bins; gaps in the readings inside are bridged."""
    known: Numbers
    """Bins of them that were measured."""
    whole: Bools
    """Whether it is the hold's whole life."""

    def __len__(self) -> int:
        return len(self.hold)


def idle_cells(pool: Pool, rules: Thresholds) -> tuple[Bools, Bools] | None:
    """([board, bin] known, idle): no kernel, and no warp where that is measured; None: not measured at all."""
    busy = pool.busy
    if busy is None:
        return None
    known = ~np.isnan(busy)
    idle = busy < rules.util
    active = pool.metric("gpu.sm_active")
    if active is not None:
        idle &= ~(active > rules.sm_active)
    return known, idle


def idle_runs(pool: Pool, rules: Thresholds, least: float | None = None) -> Runs | None:
    """The stretches that count; None: nothing tells whether boards were busy.

    ``least``: the share of a stretch that must be measured, by default as of anything sized.
    """
    least = pool.common.least_coverage if least is None else least
    cells = idle_cells(pool, rules)
    if cells is None:
        return None
    known, idle = cells
    holds = pool.holds
    seen, quiet = over_holds(holds, known), over_holds(holds, idle)
    step = pool.usage.step
    life = holds.bins * step
    is_seen_whole = (pool.started[holds.stay] >= pool.start) & ~pool.is_running[holds.stay]
    if pool.is_snapshot:
        # It cannot show half an hour, but jobs are not judged before they have run for so long.
        life, is_seen_whole = pool.end - pool.started[holds.stay], np.zeros(len(holds), np.bool_)
    shortest = np.where(is_seen_whole, rules.whole_life_s, rules.run_s)
    glimpse = GLIMPSE * rules.run_s
    is_seen = (seen > 0) & ((seen >= pool.common.least_coverage * holds.bins) | (seen * step >= glimpse))
    whole = is_seen & (quiet >= rules.share * seen) & (life >= shortest)
    enough = (quiet > 0) & (quiet * step >= max(rules.run_s * least, glimpse))
    parts = [
        _stretches(pool, rules, known, idle, chosen, least) for chosen in _slices(holds, ~whole & enough)
    ]
    number = np.flatnonzero(whole)
    parts.append(
        Runs(number, holds.first[number], holds.end[number], seen[number], np.ones(len(number), np.bool_))
    )
    return Runs(*(np.concatenate([getattr(part, name) for part in parts]) for name in Runs.__slots__))


def _slices(holds: Holds, chosen: Bools) -> list[Index]:
    """The chosen holds in pieces of bounded size."""
    number = np.flatnonzero(chosen)
    if not len(number):
        return []
    piece = np.cumsum(holds.bins[number]) // CELLS_AT_ONCE
    return np.split(number, np.flatnonzero(np.diff(piece)) + 1)


def could_be_idle(pool: Pool, rules: Thresholds, chosen: Index) -> Numbers:
    """[chosen hold] seconds in stretches of at least ``run_s`` in which nothing shows that it worked."""
    cells = idle_cells(pool, rules)
    out = np.zeros(len(pool.holds))
    if cells is None:
        return out[chosen]
    known, idle = cells
    for piece in _slices(pool.holds, _marked(len(pool.holds), chosen)):
        hold, board, bin_ = _cells_of(pool.holds, piece)
        maybe = ~known[board, bin_] | idle[board, bin_]
        new = np.ones(len(hold), np.bool_)
        new[1:] = (hold[1:] != hold[:-1]) | (maybe[1:] != maybe[:-1])
        start = np.flatnonzero(new)
        lasts = np.diff(np.append(start, len(hold))) * pool.usage.step
        use = maybe[start] & (lasts >= rules.run_s)
        out += np.bincount(hold[start][use], lasts[use], len(out))
    return out[chosen]


def _marked(size: int, chosen: Index) -> Bools:
    marks = np.zeros(size, np.bool_)
    marks[chosen] = True
    return marks


def _cells_of(holds: Holds, chosen: Index) -> tuple[Index, Index, Index]:
    """([cell] hold, board, bin) of the chosen holds, one hold after the other."""
    lengths = holds.bins[chosen]
    hold = np.repeat(chosen, lengths)
    offset = np.arange(len(hold)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    return hold, holds.board[hold], holds.first[hold] + offset


def _stretches(pool: Pool, rules: Thresholds, known: Bools, idle: Bools, chosen: Index, least: float) -> Runs:
    """Idle stretches of at least ``run_s`` within the lives of the chosen holds.

    What was not measured is taken for what was before it; of a stretch the share ``least`` must be measured.
    """
    holds, step = pool.holds, pool.usage.step
    hold, board, bin_ = _cells_of(holds, chosen)
    told = known[board, bin_]
    hold, bin_, quiet = hold[told], bin_[told], idle[board, bin_][told]
    if not len(hold):
        return _none()
    new = np.ones(len(hold), np.bool_)
    new[1:] = (hold[1:] != hold[:-1]) | (quiet[1:] != quiet[:-1])
    start = np.flatnonzero(new)
    count = np.diff(np.append(start, len(hold)))
    last = start + count - 1
    owner = hold[start]
    is_last = np.append(owner[1:] != owner[:-1], True)
    is_first = np.append(True, owner[1:] != owner[:-1])
    first = np.where(is_first, holds.first[owner], bin_[start])
    # A stretch ends where the next one begins; the last one where the hold does.
    end = np.where(is_last, holds.end[owner], np.append(bin_[start][1:], 0))
    end = np.maximum(end, bin_[last] + 1)
    lasts = (end - first) * step
    # Before its first kernel a job may stage its data: only what is longer than that counts.
    began = pool.started[holds.stay[owner]] >= pool.start
    staged = is_first & ~is_last & began
    spare = np.where(staged, np.ceil(rules.staging_s / step).astype(np.intp), 0)
    first = np.minimum(first + spare, end)
    lasts = np.where(staged, (end - first) * step, lasts)
    known_bins = np.where(staged, np.maximum(count - spare, 0), count).astype(np.float64)
    is_measured = (known_bins >= least * (end - first)) & (known_bins * step >= GLIMPSE * rules.run_s)
    use = quiet[start] & (lasts >= rules.run_s) & is_measured
    return Runs(owner[use], first[use], end[use], known_bins[use], np.zeros(int(use.sum()), np.bool_))


def _none() -> Runs:
    nothing = np.zeros(0, dtype=np.intp)
    return Runs(nothing, nothing, nothing, np.zeros(0), np.zeros(0, dtype=np.bool_))
