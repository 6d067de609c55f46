"""Host memory that jobs ask for and do not touch, or that they lack. Need = the most that any took x 1.2."""

from __future__ import annotations

import math
from collections.abc import Iterator

import msgspec
import numpy as np

from coldaisle.analyzers.advice.advice import Advice, Grade, Refused
from coldaisle.analyzers.advice.framing import Said, of_group, over_groups
from coldaisle.analyzers.advice.groups import Group
from coldaisle.analyzers.advice.intervals import quantile
from coldaisle.analyzers.advice.pool import Pool
from coldaisle.analyzers.advice.telling import between
from coldaisle.sources.parts.catalogue import GIB
from coldaisle.sources.units import show

NAME = "ram"


class Thresholds(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """See the TOML file."""

    headroom: float
    least_used: float
    failures: float
    least_bytes: float


def advise(pool: Pool, rules: Thresholds) -> Iterator[Advice | Refused]:
    """A line a group that asks for much more than it takes, or is killed for want of it."""
    yield from over_groups(pool, NAME, lambda group: _memory(pool, rules, group), measured=False)


def _memory(pool: Pool, rules: Thresholds, group: Group) -> Advice | None:
    stays = group.stays(pool)
    gpus = np.array([max(stay.gpu_count, 1) for stay in stays], dtype=np.float64)
    asked = np.array([stay.memory_asked_bytes for stay in stays]) / gpus
    used = np.array([stay.memory_used_bytes for stay in stays]) / gpus
    known = np.isfinite(asked) & np.isfinite(used) & (used > 0)
    if known.sum() < pool.common.least_jobs:
        return None
    killed = float(np.mean([stay.state == "OUT_OF_MEMORY" for stay in stays]))
    top = float(used[known].max())
    ask, need = float(np.median(asked[known])), max(top * rules.headroom, GIB)
    if killed > rules.failures:
        action = f"ask for more host memory than {ask / GIB:,.0f} GiB a GPU in {group.title()}: {killed:.0%} ran out of it"
        value = max(need, ask * rules.headroom)
        quantity = between(ask, value, 2 * value, "bytes", f"asked x {rules.headroom}, a GPU", "guess")
    elif top < rules.least_used * ask and (ask - need) * float(np.median(gpus)) >= rules.least_bytes:
        action = f"ask for {math.ceil(need / GIB):,} instead of {ask / GIB:,.0f} GiB of host memory a GPU in {group.title()}"
        low = min(quantile(used[known], 0.95).low * rules.headroom, need)
        high = min(need * (1 + 1 / float(known.sum())), ask)
        quantity = between(
            low, need, high, "bytes", f"largest high water x {rules.headroom}, a GPU", "accounting"
        )
    else:
        return None
    said = Said(
        action,
        quantity,
        Grade.B,
        f"{int(known.sum())} jobs took at most {show(top, 'B')} a GPU of the {show(ask, 'B')} asked for",
        "larger inputs; the sampling of accounting (every 30 s as a rule) misses short peaks",
        "page cache is not counted: a data loader may live on memory that it does not own",
    )
    return of_group(pool, NAME, group, said, "slurm.max_rss")
