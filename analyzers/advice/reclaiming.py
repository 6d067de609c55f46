"""GPU time that jobs held and did not use: as counted, and where readings lack from what was seen of it.

Of a job that was measured for most of its time, its idle stretches are counted. Of the others, and of time in which nobody says
who held a board, as much is idle as of what was heard; the bounds leave gaps of half an hour and more all busy to all idle.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from coldaisle.analyzers.advice.gaps import dark_time, heard_share
from coldaisle.analyzers.advice.idling import Runs, Thresholds, could_be_idle, idle_runs
from coldaisle.analyzers.advice.intervals import agreeing
from coldaisle.analyzers.advice.placing import placed
from coldaisle.analyzers.advice.pool import (
    HOUR,
    Bools,
    Holds,
    Index,
    Members,
    Numbers,
    Pool,
    over_holds,
    tally,
)
from coldaisle.analyzers.advice.telling import between
from coldaisle.analyzers.sizing.quantity import Quantity

SOURCE = "counted: no kernel and no warp for the whole life, or for half an hour and more"
BY_GLIMPSES = "idle as measured, of jobs with gaps by what was seen of them; gaps of half an hour and more all busy to all idle"

BY_PLACING = "of jobs of which only nodes are known, by the boards of these that worked while they ran"
PLACING = 0.05
"""Of what such jobs left idle: as far as it may be off either way (judgement; months that were made up were told within 1 %)."""


@dataclass(frozen=True, slots=True, eq=False)
class Waste:
    """GPU seconds that jobs held and did not use, [stay] each."""

    runs: Runs
    run_stay: Index
    """[run] whose."""
    seconds: Numbers
    low: Numbers
    """Of them measured, less a bin for each end."""
    high: Numbers
    enough: Bools
    """Whether so much of the job was measured that it can be judged."""
    of_stay: Members
    """Which runs are whose."""

    def hours(self, chosen: Bools | Index) -> Quantity:
        """Of some stays, in GPU-hours."""
        low, value, high = (float(x[chosen].sum()) / HOUR for x in (self.low, self.seconds, self.high))
        return between(low, value, high, "gpu_hours", "sum of the idle time of each GPU held", SOURCE)


class Glimpses(NamedTuple):
    """What was seen of jobs through gaps, GPU seconds, [stay] each."""

    runs: Runs
    known: Numbers
    """In bins with readings."""
    sampled: Numbers
    """The same, each bin by the share of its samples that was there."""
    idle: Numbers
    """Of ``known``, idle in stretches that count."""
    open: Numbers
    """In stretches in which nothing shows that they worked."""


def waste(pool: Pool, rules: Thresholds) -> Waste | None:
    """What is idle; None: nothing tells whether boards were busy."""
    return pool.cached("waste", lambda: _waste(pool, rules))


def _waste(pool: Pool, rules: Thresholds) -> Waste | None:
    runs = idle_runs(pool, rules)
    if runs is None:
        return None
    stay, step, size = pool.holds.stay[runs.hold], pool.usage.step, len(pool.stays)
    bins = (runs.end - runs.first).astype(np.float64)
    # Of a whole life to the second, else by bins.
    seconds = np.where(runs.whole, pool.inside_s[stay], bins * step)
    known = np.minimum(runs.known, bins) / np.maximum(bins, 1)
    # labels begin and end between two samples, and these are no further apart than a bin
    edges = np.where(runs.whole & pool.knows_submissions, 0.0, step)
    share = shares(pool)
    high = tally(stay, seconds + edges, size) * share
    return Waste(
        runs,
        stay,
        tally(stay, seconds, size) * share,
        tally(stay, np.maximum(seconds * known - edges, 0), size) * share,
        # of an instance it is known how it was with its board: it may have been idle while another was not
        np.where(share < 1, pool.gpu_s, high),
        np.asarray(pool.coverage >= pool.common.least_coverage),
        Members(stay, size),
    )


def shares(pool: Pool) -> Numbers:
    """[stay] of each of its GPUs that it holds."""
    return np.array([stay.share for stay in pool.stays], dtype=np.float64)


def reclaimable(pool: Pool, rules: Thresholds) -> Quantity | None:
    """GPU-hours of the span that nobody used although somebody held them; None: it cannot be told.

    Where readings lack, from what was seen idle to all that may have been.
    """
    return pool.cached("reclaimable", lambda: _reclaimable(pool, rules))


def _reclaimable(pool: Pool, rules: Thresholds) -> Quantity | None:
    likely = None if pool.is_snapshot or not pool.usage.jobs_known else placed(pool, rules)
    if likely is None:
        return _of_placed(pool, rules)
    told, known = _of_placed(likely, rules), waste(pool, rules)
    if told is None or known is None:
        return None
    doubt = PLACING * max(told.value - known.hours(known.enough).value, 0.0)
    hours = (max(told.low - doubt, 0.0), told.value, told.high + doubt)
    return between(*hours, told.unit, f"{told.formula}; {BY_PLACING}", told.source)


def _of_placed(pool: Pool, rules: Thresholds) -> Quantity | None:
    found = waste(pool, rules) if pool.usage.jobs_known else None
    if found is None:
        return None
    held = pool.gpu_s
    judged = float(held[found.enough].sum())
    is_thin = float(held.sum()) > 0 and judged < pool.common.least_coverage * float(held.sum())
    if pool.is_snapshot:
        return None if is_thin else _at_an_instant(pool, found)
    if is_thin:
        seen = _seen(pool, rules)
        return None if seen is None else _with_dark(pool, _bounded(pool, found, seen), seen.runs)
    total = found.hours(found.enough)
    rest = max(float(held.sum()) - judged, 0.0) / HOUR
    return _with_dark(pool, replace(total, high=total.high + rest), found.runs)


def _at_an_instant(pool: Pool, found: Waste) -> Quantity:
    """A look too short to count hours from: as a share of what is held, with what another instant would show."""
    total, held = found.hours(found.enough), float(pool.gpu_s.sum()) / HOUR
    low, high = agreeing(len(found.runs), len(pool.holds))
    what = "idle of allocated GPUs, at another instant like this"
    return between(low * held, total.value, high * held, total.unit, what, "Clopper and Pearson")


def _seen(pool: Pool, rules: Thresholds) -> Glimpses | None:
    """None: too little was seen to say anything at all."""
    held = pool.gpu_s
    seen = np.clip(np.nan_to_num(pool.coverage), 0, 1)
    if float((seen * held).sum()) < rules.least_seen * float(held.sum()):
        return None
    runs = idle_runs(pool, rules, least=0.0)
    busy = pool.busy
    if runs is None or busy is None:
        return None
    holds, step = pool.holds, pool.usage.step
    known = ~np.isnan(busy)
    return Glimpses(
        runs,
        pool.by_stay(pool.sums(known)) * step,
        pool.by_stay(pool.sums(pool.share_measured)) * step,
        tally(holds.stay[runs.hold], _measured(runs) * step, len(pool.stays)),
        pool.by_stay(could_be_idle(pool, rules, np.arange(len(holds), dtype=np.intp))),
    )


def _measured(runs: Runs) -> Numbers:
    """[run] bins of it that were measured."""
    return np.minimum(runs.known, (runs.end - runs.first).astype(np.float64))


def _heard(pool: Pool, runs: Runs) -> Numbers:
    """[run] the same, each bin by the share of its samples that was there."""
    holds = pool.holds
    idle = Holds(holds.stay[runs.hold], holds.board[runs.hold], runs.first, runs.end)
    return over_holds(idle, pool.share_measured)


def _bounded(pool: Pool, found: Waste, seen: Glimpses) -> Quantity:
    """Jobs that can be judged as counted, the others by what was seen of them."""
    low = np.where(found.enough, found.low, _least(pool, seen)).sum()
    high = np.where(found.enough, found.high, _most(pool, seen)).sum()
    value = min(max(float(_likely(pool, found, seen).sum()), float(low)), float(high))
    hours = (float(low) / HOUR, value / HOUR, float(high) / HOUR)
    return between(*hours, "gpu_hours", BY_GLIMPSES, SOURCE)


def _least(pool: Pool, seen: Glimpses) -> Numbers:
    """[stay] seconds that were seen idle; of a bin's samples some lack, too."""
    dense = np.divide(seen.sampled, seen.known, out=np.zeros(len(seen.known)), where=seen.known > 0)
    least: Numbers = np.minimum(seen.idle * shares(pool), pool.gpu_s) * np.minimum(dense, 1)
    return least


def _most(pool: Pool, seen: Glimpses) -> Numbers:
    """[stay] seconds that nothing shows to have been at work; all of a job whose boards are not known."""
    is_nowhere = np.array([not boards for boards in pool.boards_of], dtype=np.bool_)
    most: Numbers = np.maximum(seen.open, seen.idle)
    return np.where(is_nowhere | (shares(pool) < 1), pool.gpu_s, most)


def _likely(pool: Pool, found: Waste, seen: Glimpses) -> Numbers:
    """[stay] seconds: a job's share of what was seen of it; where nothing was, as of the others."""
    held, is_seen = pool.gpu_s, seen.known > 0
    share = np.divide(seen.idle, seen.known, out=np.zeros(len(held)), where=is_seen)
    likely = np.where(found.enough, found.seconds, np.minimum(share, 1) * held)
    others = float(likely[is_seen].sum()) / max(float(held[is_seen].sum()), 1.0)
    return np.where(found.enough | is_seen, likely, others * held)


def _with_dark(pool: Pool, seen: Quantity, runs: Runs) -> Quantity:
    """With time of which nobody says who held the boards: none of it to all of it, else as of what was heard.

    What was heard alone is the measure: between two readings with its label a job goes on through a gap, a free board does not.
    """
    dark = dark_time(pool)
    if dark is None or not dark.any():
        return seen
    cell = pool.usage.step / HOUR
    hours = float(dark.sum(dtype=np.float64)) * cell
    told = float(_heard(pool, runs).sum()) * cell / max(heard_share(pool), 1e-9)
    return replace(seen, value=min(max(told, seen.value), seen.high + hours), high=seen.high + hours)
