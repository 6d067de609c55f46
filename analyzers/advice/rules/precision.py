"""Tensor cores that stay unused while SMs work: fp32 where bf16 or TF32 would do. A hint, never a size."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec
import numpy as np

from coldaisle.analyzers.advice.advice import Advice, Grade, Refused, Saving
from coldaisle.analyzers.advice.framing import SERVED, over_groups
from coldaisle.analyzers.advice.groups import Group, ground, mean_of
from coldaisle.analyzers.advice.measuring import part_of
from coldaisle.analyzers.advice.pool import Pool
from coldaisle.analyzers.advice.telling import between
from coldaisle.analyzers.finding import NOWHERE

NAME = "precision"


class Thresholds(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """See the TOML file."""

    tensor: float
    sm: float
    dram: float


def advise(pool: Pool, rules: Thresholds) -> Iterator[Advice | Refused]:
    """A line a group that computes without tensor cores on parts that have them."""
    tensor, sm = mean_of(pool, "gpu.tensor_active"), mean_of(pool, "gpu.sm_active")
    if tensor is None or sm is None:
        yield Refused(NAME, NOWHERE, "gpu.tensor_active and gpu.sm_active are not both measured")
        return
    yield from over_groups(pool, NAME, lambda group: _hint(pool, rules, group), but_not=SERVED)


def _hint(pool: Pool, rules: Thresholds, group: Group) -> Advice | None:
    tensor, sm, dram = (
        _median(pool, group, key) for key in ("gpu.tensor_active", "gpu.sm_active", "gpu.dram_active")
    )
    # Where memory binds, faster arithmetic gains nothing.
    if not (tensor < rules.tensor and sm > rules.sm) or dram > rules.dram:
        return None
    boards = {board for number in group.members.tolist() for board in pool.boards_of[number] or ()}
    parts = [part_of(pool)[board] for board in boards]
    if not parts or any(part is None or not part.peak("bf16") > 0 for part in parts):
        return None
    return Advice(
        id=f"{NAME}:{group.key}",
        rule=NAME,
        action=f"try bf16 or TF32 in {group.title()}: its SMs work without tensor cores",
        scope=group.scope(pool),
        quantity=between(
            1.0, 1.5, 8.0, "ratio", "speed-up", "guess: how much of it is matrix products is not known"
        ),
        saving=Saving(),
        grade=Grade.D,
        grounds=(ground(pool, group, "gpu.tensor_active"), ground(pool, group, "gpu.sm_active")),
        because=f"tensor cores active {tensor:.1%} of the time while {sm:.0%} of the SMs are, in {len(group.members)} jobs",
        would_change="a profile (nsys, torch.profiler): which kernels run, in which format",
        but="some work needs fp32 or fp64, or has no matrix products at all",
    )


def _median(pool: Pool, group: Group, key: str) -> float:
    means = mean_of(pool, key)
    known = means[group.members] if means is not None else np.zeros(0)
    known = known[~np.isnan(known)]
    return float(np.median(known)) if len(known) else float("nan")
