"""When what is asked for will cross what is installed: a dated forecast with its interval, never a factor.

The trend is Theil and Sen's of weekly p95 of the offered load; where the queue grows without end, of the work that arrives a
week, for a queue that builds up looks like growth while work arrives as ever. Source: Conover, Practical Nonparametric
Statistics, for the interval.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import NamedTuple

import msgspec
import numpy as np

from coldaisle.analyzers.advice.advice import Advice, Grade, Refused, Saving
from coldaisle.analyzers.advice.arrivals import Overflow, overflows
from coldaisle.analyzers.advice.intervals import Span, theil_sen
from coldaisle.analyzers.advice.load import Load, loads, weekly
from coldaisle.analyzers.advice.places import of_jobs, place, thin_load, without_load
from coldaisle.analyzers.advice.pool import WEEK, Numbers, Pool
from coldaisle.analyzers.finding import NOWHERE

NAME = "growth"


class Thresholds(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """See the TOML file."""

    least_weeks: int
    q: float
    horizon_weeks: float


def advise(pool: Pool, rules: Thresholds) -> Iterator[Advice | Refused]:
    """A line a partition that grows so surely that a date can be told."""
    if refused := without_load(pool, NAME, 7.0 * rules.least_weeks):
        yield refused
        return
    for load in loads(pool):
        if load.installed:
            yield thin_load(pool, NAME, load) or _forecast(pool, rules, load)


class _Trend(NamedTuple):
    """What grows, week by week."""

    at: Numbers
    """Middles, epoch seconds."""
    gpus: Numbers
    what: str
    """``p95 of what was asked for``"""
    short: str
    """``p95``"""


def _trend(pool: Pool, rules: Thresholds, load: Load, overflowing: Overflow | None) -> _Trend:
    if overflowing is not None:
        return _Trend(*overflowing.arrivals.weekly(pool), "the work that arrives", "arriving work")
    top = f"p{rules.q * 100:.0f}"
    return _Trend(*weekly(load, pool.start, rules.q), f"{top} of what was asked for", top)


def _forecast(pool: Pool, rules: Thresholds, load: Load) -> Advice | Refused:
    overflowing = overflows(pool, load)
    trend, where = _trend(pool, rules, load, overflowing), place(load.partition)
    at, tops = trend.at, trend.gpus
    if len(at) < rules.least_weeks:
        return Refused(NAME, NOWHERE, f"{len(at)} of the {rules.least_weeks} whole weeks that {where} takes")
    slope = theil_sen(at / WEEK, tops)
    if not slope.low > 0:
        return Refused(NAME, NOWHERE, _no_growth(where, slope, overflowing))
    # Theil and Sen's line goes through the medians.
    now = float(np.median(tops - slope.value * at / WEEK)) + slope.value * pool.end / WEEK
    left = load.installed - now
    weeks = Span(*(max(left, 0.0) / one for one in (slope.high, slope.value, slope.low)))
    if weeks.low > rules.horizon_weeks:
        return Refused(
            NAME, NOWHERE, f"{where} grows, but fills up in more than {rules.horizon_weeks:.0f} weeks"
        )
    return Advice(
        id=f"{NAME}:{load.partition}",
        rule=NAME,
        action=f"{where} is full already and grows by {slope.value:,.1f} GPUs a week"
        if left <= 0
        else f"{where} will be full on {_day(pool, weeks.value)} ({_day(pool, weeks.low)} to {_day(pool, weeks.high)})",
        scope=NOWHERE,
        quantity=weeks.scaled(WEEK).quantity(
            "s", f"(installed - {trend.short} now) / weekly growth of {trend.short}", "Theil-Sen"
        ),
        saving=Saving(),
        grade=Grade.B if len(at) >= 2 * rules.least_weeks and weeks.high < rules.horizon_weeks else Grade.C,
        grounds=(of_jobs(pool, load, "slurm.pending"),),
        because=(
            f"{trend.what} rose by {slope.value:,.1f} GPUs a week"
            f" [{slope.low:,.1f}, {slope.high:,.1f}] over {len(at)} weeks, to {now:,.0f} of {load.installed:,}"
        ),
        would_change="a longer history: weeks of one season say nothing of the next",
        but="a queue that builds up looks like growth while work arrives as ever"
        if left <= 0 and overflowing is None
        else "",
    )


def _no_growth(where: str, slope: Span, overflowing: Overflow | None) -> str:
    told = f"{slope.value:+,.1f} GPUs a week, [{slope.low:+,.1f}, {slope.high:+,.1f}]"
    if overflowing is None:
        return f"no growth of {where} that can be told from chance: {told}"
    return f"{overflowing.words} at {where}, while work arrives as ever ({told}): it is short by now, see offered_load"


def _day(pool: Pool, weeks: float) -> str:
    at = pool.end + weeks * WEEK
    if not math.isfinite(at) or at > 4_000_000_000:
        return "no day"
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d")
