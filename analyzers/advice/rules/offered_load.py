"""How many GPUs what is asked for takes: running and waiting, p95 over time, with one margin.

Where the queue grows without end or hardly ever empties, what waits says how long that went on, not what is needed: then by the work that arrives.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import msgspec
import numpy as np

from coldaisle.analyzers.advice.advice import Advice, Grade, Refused, Saving
from coldaisle.analyzers.advice.arrivals import Overflow, needed_for, overflows, undelayed
from coldaisle.analyzers.advice.intervals import Span, effective, quantile, staffed
from coldaisle.analyzers.advice.load import (
    Load,
    Waits,
    by_hour_of_week,
    loads,
    queue_by_little,
    waits,
)
from coldaisle.analyzers.advice.places import of_jobs, place, thin_load, without_load
from coldaisle.analyzers.advice.pool import Pool
from coldaisle.analyzers.advice.telling import counted
from coldaisle.analyzers.finding import NOWHERE

NAME = "offered_load"
_DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")


class Thresholds(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """See the TOML file."""

    least_days: float
    q: float
    wait: float
    little: float
    least_queue: float


def advise(pool: Pool, rules: Thresholds) -> Iterator[Advice | Refused]:
    """A line a partition."""
    if refused := without_load(pool, NAME, rules.least_days):
        yield refused
        return
    for load in loads(pool):
        if not load.installed and not len(load.members):
            continue
        yield thin_load(pool, NAME, load) or _advice(pool, rules, load)


def asked(pool: Pool, load: Load, q: float) -> Span:
    """The quantile of the offered load; where many wait, as it would have been had nobody."""
    series = undelayed(pool, load)
    return load.quantile(q) if series is None else quantile(series, q, effective(series))


def needed(pool: Pool, rules: Thresholds, load: Load) -> Span:
    """GPUs for the quantile of the offered load, with the margin; from as many as do where jobs may wait."""
    top = asked(pool, load, rules.q).scaled(1 + pool.common.margin)
    low, value, high = (float(math.ceil(one)) for one in top)
    patient = _patient(pool, rules, load)
    return Span(low if math.isnan(patient) else min(low, float(math.ceil(patient))), value, high)


def _patient(pool: Pool, rules: Thresholds, load: Load) -> float:
    """GPUs with which jobs wait as long as they may on the mean (Allen-Cunneen); NaN: none started within the span."""
    found = waits(pool, load)
    if not len(found.gpus):
        return math.nan
    gang = max(float(found.gpus.mean()), 1.0)
    return staffed(float(load.running.mean()) / gang, rules.wait, found.spread) * gang


def _advice(pool: Pool, rules: Thresholds, load: Load) -> Advice:
    overflow = overflows(pool, load)
    return _by_load(pool, rules, load) if overflow is None else _by_arrivals(pool, rules, load, overflow)


def _by_arrivals(pool: Pool, rules: Thresholds, load: Load, overflow: Overflow) -> Advice:
    found = overflow.arrivals
    where, have = place(load.partition), load.installed
    need = needed_for(pool, load, found, rules.wait)
    if overflow.empties:
        # up to where hardly a job would wait
        top = asked(pool, load, rules.q).value * (1 + pool.common.margin)
        need = need._replace(high=max(need.high, float(math.ceil(top))))
    come, end = found.gpus(pool), float(load.waiting[-1])
    return Advice(
        id=f"{NAME}:{load.partition}",
        rule=NAME,
        action=_action(where, need, have, None, rules.wait),
        scope=NOWHERE,
        quantity=need.quantity(
            "gpus",
            f"GPU-hours submitted an hour x {1 + pool.common.margin:.2f}",
            "bootstrap by days; upper end with Allen-Cunneen's wait",
        ),
        saving=Saving(),
        grade=Grade.B
        if found.known >= pool.common.least_coverage and (need.low > have or need.high <= have)
        else Grade.C,
        grounds=(of_jobs(pool, load, "slurm.pending"),),
        because=(
            f"{overflow.words}, so this is by the work that arrives: {come.value:,.0f} GPU-hours an hour"
            f" [{come.low:,.0f}, {come.high:,.0f}] were submitted and {float(load.running.mean()):,.0f} done; {have:,} GPUs are"
            f" installed, and jobs of {counted(end, 'GPU')} waited at the end"
        ),
        would_change=(
            f"how long jobs run that have not ended: {1 - found.known:.0%} of the work is reckoned from those that have;"
            " users who would submit more if they waited less"
        ),
        but=_RECLAIM if need.low > have else "",
    )


_RECLAIM = "reclaim idle GPUs first: work that waits behind them needs no new ones"


def _by_load(pool: Pool, rules: Thresholds, load: Load) -> Advice:
    where, need, have = place(load.partition), needed(pool, rules, load), load.installed
    half, top = asked(pool, load, 0.5), asked(pool, load, rules.q)
    undone = " (had nobody waited)" if undelayed(pool, load) is not None else ""
    queue, by_law = queue_by_little(pool, load)
    is_whole = max(queue, by_law) < rules.least_queue or abs(queue - by_law) <= rules.little * max(
        queue, by_law
    )
    margin = pool.common.margin
    slow = quantile(waits(pool, load).ratio, 0.9).value
    return Advice(
        id=f"{NAME}:{load.partition}",
        rule=NAME,
        action=_action(where, need, have, None if math.isnan(slow) else slow, rules.wait),
        scope=NOWHERE,
        quantity=need.quantity(
            "gpus",
            f"p{rules.q * 100:.0f} of running and waiting GPUs x {1 + margin:.2f}",
            "order statistics, independent samples by autocorrelation",
        ),
        saving=Saving(),
        grade=Grade.B if is_whole and (need.low > have or need.high <= have) else Grade.C,
        grounds=(of_jobs(pool, load, "slurm.pending"),),
        because=(
            f"jobs asked for {half.value:,.0f} GPUs half of the time and {top.value:,.0f} at p{rules.q * 100:.0f}{undone}"
            f" (busiest {_busiest(load)}); {have:,} are installed{_waiting(waits(pool, load))}"
        ),
        would_change=_would_change(pool, rules, load, is_whole, queue, by_law),
        but=_RECLAIM if need.low > have else "",
    )


def _action(where: str, need: Span, have: int, slow: float | None, most: float) -> str:
    if not have:
        return f"plan {need.value:,.0f} GPUs for {where}"
    if need.value > have and slow is not None and slow <= most:
        return f"keep the {have:,} GPUs of {where}: peaks ask for {need.value:,.0f}, but hardly a job waits"
    if need.value > have:
        return f"{where} is short of {counted(need.value - have, 'GPU')}: {need.value:,.0f} needed, {have:,} installed"
    return f"buy no GPUs for {where}: {need.value:,.0f} needed, {have:,} installed"


def _busiest(load: Load) -> str:
    hours = by_hour_of_week(load)
    number = int(np.nanargmax(hours))
    return f"{_DAYS[number // 24]} {number % 24:02}:00 UTC"


def _waiting(found: Waits) -> str:
    if not len(found.wait):
        return ""
    p50, p90 = (quantile(found.ratio, q).value for q in (0.5, 0.9))
    return f"; jobs waited {p50:.2g} of their run time at p50, {p90:.2g} at p90"


def _would_change(
    pool: Pool, rules: Thresholds, load: Load, is_whole: bool, queue: float, by_law: float
) -> str:
    if not is_whole:
        return f"{queue:,.3g} jobs waited on average, but {by_law:,.3g} by Little's law: jobs are missing, or the queue grows"
    patient = _patient(pool, rules, load)
    if math.isnan(patient):
        return "jobs that start within the span"
    return (
        f"how long jobs may wait: with a mean wait of {rules.wait:g} run times {patient:,.0f} GPUs do"
        " (Allen-Cunneen)"
    )
