"""Offered load: the GPUs that jobs held or waited for, which what is busy hides once everything is taken.

Waiting counts for Resources or Priority alone (what more hardware would end); of jobs that have started since, why they
waited is not known, so their wait counts unless another reason is told.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from coldaisle.analyzers.advice.intervals import Span, effective, quantile
from coldaisle.analyzers.advice.pool import DAY, HOUR, WEEK, Bools, Index, Numbers, Pool
from coldaisle.analyzers.jobs import OFFERED
from coldaisle.analyzers.usage import Stay

TOLD_BY_NOTHING = frozenset({"", "None"})
"""Reasons of jobs that no longer wait."""
HOURS_A_WEEK = 168
AT = 900.0
"""Seconds between the instants at which load is looked at."""


@dataclass(frozen=True, slots=True, eq=False)
class Load:
    """What one partition was asked for, at instants ``AT`` seconds apart; GPUs."""

    partition: str
    """Other people's text; empty: the whole pool."""
    members: Index
    """Indices into the pool's stays."""
    boards: Index
    """Indices into the pool's boards: what is installed."""
    at: Numbers
    running: Numbers
    waiting: Numbers

    @property
    def offered(self) -> Numbers:
        """Running and waiting."""
        return self.running + self.waiting

    @property
    def installed(self) -> int:
        """GPUs."""
        return len(self.boards)

    def quantile(self, q: float) -> Span:
        """Of the offered load over time, with the interval of as many samples as it is worth."""
        offered = self.offered
        return quantile(offered, q, effective(offered))


def loads(pool: Pool) -> tuple[Load, ...]:
    """By partition, the largest first; one of the whole pool where boards or jobs know of no partition."""
    return pool.cached("loads", lambda: tuple(_loads(pool)))


def whole(pool: Pool) -> Load:
    """Of all partitions together."""
    return pool.cached(
        "load", lambda: _load(pool, "", np.arange(len(pool.stays)), np.arange(pool.size, dtype=np.intp))
    )


def _loads(pool: Pool) -> list[Load]:
    of_board = np.array([board.partition for board in pool.usage.boards], dtype=object)
    of_stay = np.array([_first(stay.partition) for stay in pool.stays], dtype=object)
    names = [name for name in dict.fromkeys(of_board.tolist()) if name]
    asked = [name for name in dict.fromkeys(of_stay.tolist()) if name]
    # Partitions that share their boards, or boards that name none, can only be looked at together.
    if not names or set(asked) - set(names) or bool((of_board == "").any()):
        return [whole(pool)]
    found = [
        _load(pool, name, np.flatnonzero(of_stay == name), np.flatnonzero(of_board == name)) for name in names
    ]
    return sorted(found, key=lambda load: -load.installed)


def _first(partition: str) -> str:
    """A job may name several."""
    return partition.partition(",")[0]


def waits_for_hardware(stay: Stay) -> bool:
    """Whether more GPUs would have ended its wait."""
    is_past = not math.isnan(stay.started_at) and stay.reason in TOLD_BY_NOTHING
    return is_past or stay.reason in OFFERED


def _load(pool: Pool, partition: str, members: Index, boards: Index) -> Load:
    step = max(AT, pool.usage.step)
    at: Numbers = np.arange(pool.start + pool.usage.step / 2, pool.end, step)
    stays = [pool.stays[number] for number in members.tolist()]
    gpus = np.array([stay.gpus_held for stay in stays], dtype=np.float64)
    started, ended = pool.started[members], pool.ended[members]
    ran = ~np.isnan(started)
    running = level(at, started[ran], ended[ran], gpus[ran])
    asked = submitted(pool)[members]
    queued = np.array([waits_for_hardware(stay) for stay in stays], dtype=np.bool_) & ~np.isnan(asked)
    until = np.where(ran, started, ended)
    waiting = level(at, asked[queued], np.maximum(until, asked)[queued], gpus[queued])
    return Load(partition, members.astype(np.intp), boards.astype(np.intp), at, running, waiting)


def submitted(pool: Pool) -> Numbers:
    """[stay] epoch seconds; NaN: not known."""
    return pool.cached(
        "submitted", lambda: np.array([stay.submitted_at for stay in pool.stays], dtype=np.float64)
    )


def level(at: Numbers, first: Numbers, end: Numbers, size: Numbers) -> Numbers:
    """[instant] sum of the sizes of all that have begun and not ended."""
    change = np.zeros(len(at) + 1)
    np.add.at(change, np.searchsorted(at, first), size)
    np.add.at(change, np.searchsorted(at, end), -size)
    level: Numbers = np.cumsum(change)[:-1]
    return np.maximum(level, 0.0)


def unknown_submissions(pool: Pool, load: Load) -> float:
    """Share of its jobs of which nobody says when they were submitted: of 1, what waited is not known."""
    if not len(load.members):
        return 0.0
    return float(np.isnan(submitted(pool)[load.members]).mean())


def by_hour_of_week(load: Load, q: float = 0.95) -> Numbers:
    """[168] the quantile of the offered load in each hour of the week, Monday 00:00 UTC first; NaN: not seen."""
    out = np.full(HOURS_A_WEEK, np.nan)
    # The epoch began on a Thursday.
    hour = (((load.at + 3 * DAY) % WEEK) // HOUR).astype(np.intp)
    for number in np.unique(hour).tolist():
        out[number] = float(np.quantile(load.offered[hour == number], q))
    return out


def weekly(load: Load, start: float, q: float) -> tuple[Numbers, Numbers]:
    """([week] middle in epoch seconds, [week] quantile of the offered load), of whole weeks."""
    week = ((load.at - start) // WEEK).astype(np.intp)
    step = float(load.at[1] - load.at[0]) if len(load.at) > 1 else WEEK
    counts = np.bincount(week) if len(week) else np.zeros(0, dtype=np.intp)
    full = [number for number, count in enumerate(counts.tolist()) if count * step >= 0.99 * WEEK]
    middles = np.array([start + (number + 0.5) * WEEK for number in full])
    return middles, np.array([float(np.quantile(load.offered[week == number], q)) for number in full])


@dataclass(frozen=True, slots=True, eq=False)
class Waits:
    """Of the jobs of a load that started within the span and whose submission is known, [job] each; seconds."""

    wait: Numbers
    run: Numbers
    gpus: Numbers
    apart: Numbers
    """Between submissions."""

    @property
    def ratio(self) -> Numbers:
        """Wait / run time, runs below a quarter of an hour taken as one (bounded slowdown)."""
        return np.asarray(self.wait / np.maximum(self.run, 900.0))

    @property
    def spread(self) -> float:
        """(Ca² + Cs²) / 2 of Allen and Cunneen."""
        return (_variation(self.apart) + _variation(self.run)) / 2


def waits(pool: Pool, load: Load) -> Waits:
    """Jobs that never started are left out: how long they will wait is not known."""
    members = load.members
    started, asked = pool.started[members], submitted(pool)[members]
    told = np.array([waits_for_hardware(pool.stays[number]) for number in members.tolist()], dtype=np.bool_)
    gpus = np.array([pool.stays[number].gpus_held for number in members.tolist()], dtype=np.float64)
    use: Bools = (started >= pool.start) & (started < pool.end) & (asked <= started) & told & (gpus > 0)
    return Waits(
        (started - asked)[use],
        (pool.ended[members] - started)[use],
        gpus[use],
        np.diff(np.sort(asked[use])),
    )


def _variation(values: Numbers) -> float:
    """Squared coefficient of variation; 1, as of an exponential time, where it cannot be told."""
    mean = float(values.mean()) if len(values) > 2 else 0.0
    return float(values.var()) / mean**2 if mean > 0 else 1.0


def queue_by_little(pool: Pool, load: Load) -> tuple[float, float]:
    """(jobs that waited on average, starts a second x their mean wait): L = λW, apart where jobs are missing or a queue grows."""
    members = load.members
    asked, started = submitted(pool)[members], pool.started[members]
    told = np.array([waits_for_hardware(pool.stays[number]) for number in members.tolist()], dtype=np.bool_)
    until = np.where(np.isnan(started), pool.ended[members], started)
    known: Bools = told & ~np.isnan(asked) & (until >= asked)
    sampled = level(load.at, asked[known], until[known], np.ones(int(known.sum())))
    left: Bools = known & (started >= pool.start) & (started < pool.end)
    span = max(pool.usage.span_s, 1.0)
    return (float(sampled.mean()) if len(sampled) else math.nan, float((started - asked)[left].sum()) / span)
