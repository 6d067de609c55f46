"""Time limits that are far from what jobs of that name take: the scheduler cannot fill gaps with them, or they are cut off.

Limit = p95 of the run times of those that completed x 1.2, at least half an hour.
"""

from __future__ import annotations

from collections.abc import Iterator

import msgspec
import numpy as np

from coldaisle.analyzers.advice.advice import Advice, Grade, Refused
from coldaisle.analyzers.advice.framing import Said, of_group, over_groups
from coldaisle.analyzers.advice.groups import Group
from coldaisle.analyzers.advice.intervals import Span, quantile
from coldaisle.analyzers.advice.pool import Pool
from coldaisle.analyzers.advice.telling import lasting

NAME = "time_limit"


class Thresholds(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """See the TOML file."""

    q: float
    headroom: float
    least_s: float
    times: float
    timeouts: float


def advise(pool: Pool, rules: Thresholds) -> Iterator[Advice | Refused]:
    """A line a group whose limit is several times what it needs, or too short."""
    yield from over_groups(pool, NAME, lambda group: _limit(pool, rules, group), measured=False)


def _limit(pool: Pool, rules: Thresholds, group: Group) -> Advice | None:
    stays = group.stays(pool)
    limits = np.array([stay.limit_s for stay in stays])
    lasted = np.array([stay.ended_at - stay.started_at for stay in stays])
    done = np.array([stay.state == "COMPLETED" for stay in stays])
    cut = np.array([stay.state == "TIMEOUT" for stay in stays])
    over = (done | cut) & np.isfinite(limits) & np.isfinite(lasted)
    if over.sum() < pool.common.least_jobs:
        return None
    limit = float(np.median(limits[over]))
    share = float(cut[over].mean())
    need = quantile(lasted[over], rules.q).scaled(rules.headroom)
    longest = float(lasted[over].max())
    if share > rules.timeouts:
        value = max(limit * rules.headroom, need.value)
        action = f"raise the time limit of {group.title()} above {lasting(limit)}: {share:.0%} ran into it"
        low, high = limit, max(2 * limit, value)
        but = "jobs that hang run into any limit: look at whether they still worked"
    else:
        value = max(need.value, rules.least_s)
        if limit < rules.times * value or limit < longest:
            return None
        low, high = max(need.low, rules.least_s), max(need.high, rules.least_s)
        action = f"lower the time limit of {group.title()} from {lasting(limit)} to {lasting(value)}"
        but = "a limit that cuts a job off costs the whole job: with checkpoints it may be tight, without it may not"
        longer = int((lasted[over] > value).sum())
        if longer:
            but = f"{longer} of these {int(over.sum())} jobs took longer, and would be cut off: start such ones under another name"
    words = f"p{rules.q * 100:.0f} of run times x {rules.headroom}"
    said = Said(
        action,
        Span(low, value, high).quantity("s", words, "order statistics of completed jobs"),
        Grade.A if over.sum() >= 20 and share == 0 and (lasted[over] <= value).all() else Grade.B,
        f"{int(over.sum())} jobs took {lasting(float(np.median(lasted[over])))} (median), {lasting(longest)} at most,"
        f" of a limit of {lasting(limit)}",
        "other inputs: the time limit follows the size of the work",
        but,
    )
    return of_group(pool, NAME, group, said, "slurm.elapsed")
