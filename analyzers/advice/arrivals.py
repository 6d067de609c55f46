"""Work that arrives, in GPUs that it keeps busy: what sizes a partition whose queue grows without end, or hardly ever empties.

There offered load is no measure of need. What waits is all that arrived and was not done, and it is the larger the longer
one looks: at 1.2 times what is installed, a month's queue is six days of everybody's GPUs. What arrives stays what it is.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from coldaisle.analyzers.advice.intervals import Span, bootstrap, staffed, theil_sen, widened
from coldaisle.analyzers.advice.load import Load, level, submitted, waits, waits_for_hardware
from coldaisle.analyzers.advice.pool import DAY, WEEK, Bools, Numbers, Pool

LEAST_RISE = 0.1
"""Of what is installed: a queue that rose by less over the span may be weather (guess)."""
_FULL = 0.8
"""Of what is installed that runs on the mean: below, who waits all the time waits for something else (guess)."""
_HALF_FULL = 0.6
"""As the one before, of a queue that is there at times (guess)."""
_ALWAYS, _MOSTLY, _OFTEN = 0.95, 0.8, 0.2
"""Shares of the time in which somebody waits: of a queue that never empties; from which on its length is more what was left over
than what is asked for at once; and from which on some of it is (guesses)."""
MANY = 2_000
"""Jobs at once, from which on waits say nothing that the margin does not."""


@dataclass(frozen=True, slots=True, eq=False)
class Arrivals:
    """Jobs submitted within the span that ran, run or wait for hardware; those that gave up while they waited are left out."""

    at: Numbers
    """[job] epoch seconds of submission."""
    work: Numbers
    """[job] GPU-seconds."""
    known: float
    """Share of that work that is done: the rest is reckoned from how long jobs run."""
    gang: float
    """GPUs a job, on the mean."""

    def gpus(self, pool: Pool) -> Span:
        """GPUs that all of it keeps busy, drawn again by days, wider for short spans; NaN: nothing arrived."""
        days = self._daily(pool)
        if not self.work.any():
            return Span(math.nan, math.nan, math.nan)
        value = float(self.work.sum()) / pool.usage.span_s
        low, high = bootstrap(
            len(days), lambda chosen: float(days[chosen].mean()), pool.common.resamples, pool.common.seed
        )
        return widened(Span(min(low, value), value, max(high, value)), pool.usage.span_s)

    def _daily(self, pool: Pool) -> Numbers:
        """[day] GPUs, of whole days and a rest that counts for as much as it has."""
        count = max(round(pool.usage.span_s / DAY), 1)
        edges = pool.start + np.linspace(0.0, pool.usage.span_s, count + 1)
        sums, _ = np.histogram(self.at, edges, weights=self.work)
        return np.asarray(sums / np.diff(edges))

    def weekly(self, pool: Pool) -> tuple[Numbers, Numbers]:
        """([week] middle in epoch seconds, [week] GPUs), of whole weeks."""
        count = int(pool.usage.span_s * 1.001 // WEEK)
        edges = pool.start + WEEK * np.arange(count + 1)
        sums, _ = np.histogram(self.at, edges, weights=self.work)
        return np.asarray(edges[:-1] + WEEK / 2), np.asarray(sums / WEEK)


class _Jobs(NamedTuple):
    """Of one partition, [job] each."""

    asked: Numbers
    """Epoch seconds of submission."""
    gpus: Numbers
    elapsed: Numbers
    whole: Numbers
    """Seconds that it runs in the end: of one that has not ended, as jobs of its name do on average, within its time limit."""
    comes: Bools
    """Whether it ran, runs or waits for hardware."""


def _jobs(pool: Pool, load: Load) -> _Jobs:
    return pool.cached(("jobs that arrive", load.partition), lambda: _made_jobs(pool, load))


def _made_jobs(pool: Pool, load: Load) -> _Jobs:
    members = load.members
    stays = [pool.stays[number] for number in members.tolist()]
    gpus = np.array([stay.gpus_held for stay in stays], dtype=np.float64)
    limit = np.array([stay.limit_s for stay in stays], dtype=np.float64)
    asked, started, ended = submitted(pool)[members], pool.started[members], pool.ended[members]
    ran = ~np.isnan(started)
    is_over = ran & np.array([not math.isnan(stay.ended_at) for stay in stays], dtype=np.bool_)
    waiting = np.array([waits_for_hardware(stay) for stay in stays], dtype=np.bool_) & ~ran
    waiting &= ended >= pool.end
    elapsed = np.where(ran, np.maximum(ended - started, 0.0), 0.0)
    life = _lives([stay.name for stay in stays], gpus, elapsed, limit, is_over)
    whole = np.where(is_over, elapsed, np.fmax(np.fmin(elapsed + life, limit), elapsed))
    return _Jobs(asked, gpus, elapsed, whole, ran | waiting)


def arrivals(pool: Pool, load: Load) -> Arrivals:
    """Of one partition."""
    asked, gpus, elapsed, whole, comes = _jobs(pool, load)
    within: Bools = (asked >= pool.start) & (asked < pool.end) & comes
    work = (gpus * whole)[within]
    done = float((gpus * elapsed)[within].sum())
    total = float(work.sum())
    gang = float(gpus[within].mean()) if within.any() else 1.0
    return Arrivals(asked[within], work, done / total if total > 0 else 1.0, max(gang, 1.0))


def undelayed(pool: Pool, load: Load) -> Numbers | None:
    """[instant] GPUs that would be busy had nobody waited; None: hardly anybody does, so what was asked for says it.

    What waits at a peak was in part left over from before: with more GPUs it would have been done by then.
    """
    if queued_share(load) < _OFTEN or float(load.running.mean()) < _HALF_FULL * load.installed:
        return None
    jobs = _jobs(pool, load)
    use = jobs.comes & ~np.isnan(jobs.asked)
    return level(load.at, jobs.asked[use], (jobs.asked + jobs.whole)[use], jobs.gpus[use])


def _lives(names: list[str], gpus: Numbers, elapsed: Numbers, limit: Numbers, is_over: Bools) -> Numbers:
    """[job] seconds that jobs of its name run. Of a name of which none has ended: the share of their limits that others took,
    else what they ran.

    Small jobs overtake large ones in a long queue: all together would say that what waits is as short as what got through.
    """
    _, of_name = np.unique(np.array(names, dtype=object).astype(str), return_inverse=True)
    count = int(of_name.max()) + 1 if len(of_name) else 0
    spent = np.bincount(of_name, weights=gpus * elapsed, minlength=count)
    ends = np.bincount(of_name, weights=gpus * is_over, minlength=count)
    # All that was run over what ended: those that still run are not lost, as if ends came by chance.
    overall = float(spent.sum() / ends.sum()) if ends.sum() > 0 else 0.0
    bounded = is_over & (limit > 0)
    granted = float((gpus * limit)[bounded].sum())
    share = float((gpus * elapsed)[bounded].sum()) / granted if granted > 0 else math.nan
    others = np.where(limit * share >= 0, limit * share, overall)
    return np.asarray(np.where(ends[of_name] > 0, spent[of_name] / np.maximum(ends[of_name], 1e-9), others))


class Overflow(NamedTuple):
    """A queue of which the length says nothing of what is needed."""

    arrivals: Arrivals
    words: str
    """``the queue grows day by day``"""
    empties: bool = False
    """Whether it does at times: then the peaks of what is submitted count for something."""


def overflows(pool: Pool, load: Load) -> Overflow | None:
    """Where the queue rises day by day and no more could have been done, or where it hardly ever empties. None: neither."""
    return pool.cached(("overflow", load.partition), lambda: _overflow(pool, load))


def _overflow(pool: Pool, load: Load) -> Overflow | None:
    if not len(load.at):
        return None
    found = arrivals(pool, load)
    come = found.gpus(pool)
    if not 0 < come.value < math.inf:
        return None  # what waits came before the span
    done, could = float(load.running.mean()), float(np.quantile(load.running, 0.95))
    if come.value > done and come.high > could and _rises(pool, load):
        return Overflow(found, "the queue grows day by day")
    queued = queued_share(load)
    if queued >= _MOSTLY and done >= _FULL * max(load.installed, 1):
        if queued >= _ALWAYS:
            return Overflow(found, "the queue never empties")
        return Overflow(found, f"the queue is empty {1 - queued:.0%} of the time only", empties=True)
    return None


def queued_share(load: Load) -> float:
    """Share of the time in which somebody waits for hardware."""
    return float((load.waiting > 0).mean()) if len(load.at) else 0.0


def _rises(pool: Pool, load: Load) -> bool:
    days, waiting = _by_day(pool, load)
    rise = theil_sen(days, waiting)
    grew = rise.value * pool.usage.span_s / DAY
    return rise.low > 0 and grew > LEAST_RISE * max(load.installed, 1)


def _by_day(pool: Pool, load: Load) -> tuple[Numbers, Numbers]:
    """([day], [day] GPUs that waited on the mean)."""
    day = ((load.at - pool.start) // DAY).astype(np.intp)
    counts = np.bincount(day)
    sums = np.bincount(day, weights=load.waiting)
    full = np.flatnonzero(counts >= 0.5 * counts.max()) if len(counts) else np.zeros(0, dtype=np.intp)
    return full.astype(np.float64), sums[full] / counts[full]


def needed_for(pool: Pool, load: Load, found: Arrivals, wait: float) -> Span:
    """GPUs for what arrives, with the margin; the upper end also for a mean wait of ``wait`` run times (Allen-Cunneen)."""
    come = found.gpus(pool)
    low, value, high = come.scaled(1 + pool.common.margin)
    at_once = come.high / found.gang
    if at_once < MANY:
        high = max(high, staffed(at_once, wait, waits(pool, load).spread) * found.gang)
    return Span(*(float(math.ceil(one)) for one in (low, value, high)))
