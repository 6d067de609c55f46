"""What the rules of partitions, racks and purchases have in common: how they name a place, and when they say nothing."""

from __future__ import annotations

from coldaisle.analyzers.advice.advice import Ground, Refused
from coldaisle.analyzers.advice.load import Load, unknown_submissions
from coldaisle.analyzers.advice.pool import DAY, Pool
from coldaisle.analyzers.advice.telling import EXAMPLES, named
from coldaisle.analyzers.finding import NOWHERE
from coldaisle.sources.units import age


def short(pool: Pool, rule: str, days: float) -> Refused | None:
    """Where the span is too short for it."""
    if pool.is_snapshot:
        return Refused(rule, NOWHERE, f"a look of {pool.usage.span_s / 60:.0f} min sizes nothing")
    if pool.usage.span_s < 0.999 * days * DAY:
        return Refused(rule, NOWHERE, f"only {age(pool.usage.span_s)} of the {days:g} d that it takes")
    seen = measured_share(pool)
    if pool.usage.jobs_known and not pool.knows_submissions and seen < pool.common.least_coverage:
        # accounting knows of jobs that nobody heard of, labels do not
        why = f"boards were measured for {seen:.0%} of the time, and who held them else is not known; it takes {pool.common.least_coverage:.0%}"
        return Refused(rule, NOWHERE, why)
    return None


def measured_share(pool: Pool) -> float:
    """Of the time that boards were installed; 1 where none is measured at all."""
    there = pool.usage.installed.T
    return float(pool.share_measured[there].mean()) if pool.busy is not None and there.any() else 1.0


def without_load(pool: Pool, rule: str, days: float) -> Refused | None:
    """Where offered load is not known."""
    if not pool.usage.jobs_known:
        return Refused(rule, NOWHERE, "jobs are not known: what was asked for cannot be told")
    return short(pool, rule, days)


def thin_load(pool: Pool, rule: str, load: Load) -> Refused | None:
    """Where too little is known of one partition's jobs."""
    common, where = pool.common, place(load.partition)
    if len(load.members) < common.least_jobs:
        return Refused(
            rule, NOWHERE, f"{len(load.members)} of the {common.least_jobs} jobs that {where} takes"
        )
    if unknown_submissions(pool, load) > 1 - common.least_coverage:
        return Refused(
            rule, NOWHERE, f"when the jobs of {where} were submitted is not known, so what waited is not"
        )
    return None


def place(partition: str) -> str:
    """``partition gpu``"""
    return f"partition {named(partition)}" if partition else "the cluster"


def of_jobs(pool: Pool, load: Load, metric: str) -> Ground:
    """What jobs tell."""
    stays = [pool.stays[number].id for number in load.members[-EXAMPLES:].tolist()]
    return Ground(
        metric,
        pool.usage.span_s,
        len(load.members),
        1.0 - unknown_submissions(pool, load),
        tuple(stays),
    )
