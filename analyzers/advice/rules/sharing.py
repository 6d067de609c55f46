"""Jobs of one GPU that would do with a slice of one: SM activity and memory both fit, with room."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec
import numpy as np

from coldaisle.analyzers.advice.advice import Advice, Grade, Refused, Saving
from coldaisle.analyzers.advice.framing import over_groups
from coldaisle.analyzers.advice.groups import Group, ground, mean_of
from coldaisle.analyzers.advice.intervals import quantile
from coldaisle.analyzers.advice.measuring import part_of
from coldaisle.analyzers.advice.pool import HOUR, Numbers, Pool
from coldaisle.analyzers.advice.telling import between
from coldaisle.analyzers.finding import NOWHERE
from coldaisle.analyzers.usage import Floats

NAME = "sharing"


class Slice(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A MIG profile, as shares of its board."""

    name: str
    sm: float
    memory: float


class Thresholds(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """See the TOML file."""

    sm_room: float
    memory_room: float
    idle: float
    most_sm: float
    parts: list[str]
    slices: list[Slice]


def advise(pool: Pool, rules: Thresholds) -> Iterator[Advice | Refused]:
    """A line a group of one-GPU jobs that fit into a slice."""
    values = pool.usage.peaks.get("gpu.sm_active")
    active = pool.metric("gpu.sm_active")
    if active is None:
        yield Refused(
            NAME, NOWHERE, "gpu.sm_active is not measured: gpu.util says nothing of how much of a GPU is used"
        )
        return
    peaks = active if values is None or values.shape != active.T.shape else values.T
    own = np.ascontiguousarray(peaks)
    yield from over_groups(pool, NAME, lambda group: _slice(pool, rules, group, own))


def memory_high(pool: Pool) -> Numbers | None:
    """[hold] the most device memory in use, bytes; NaN: not measured; None: of nobody."""
    peaks = pool.usage.peaks.get("gpu.mem_used")
    means = pool.metric("gpu.mem_used")
    values: Floats | None = means
    if peaks is not None and peaks.shape == (pool.bins, pool.size):
        values = np.ascontiguousarray(peaks.T, dtype=np.float32)
    if values is None:
        return None
    used = values
    return pool.cached("memory high", lambda: pool.highest(used).astype(np.float64))


def _slice(pool: Pool, rules: Thresholds, group: Group, peaks: Floats) -> Advice | None:
    stays = group.stays(pool)
    if max(stay.gpu_count for stay in stays) > 1:
        return None
    busy, high = mean_of(pool, pool.busy_metric), memory_high(pool)
    if busy is None or high is None:
        return None
    holds = pool.holds
    chosen = np.concatenate([pool.holds_of[number] for number in group.members.tolist()])
    parts = [part_of(pool)[board] for board in set(holds.board[chosen].tolist())]
    if not parts or any(part is None or part.id.split("_")[0] not in rules.parts for part in parts):
        return None
    if not float(np.nanmean(busy[group.members])) > rules.idle:
        return None  # idle: that is another advice
    sizes = np.array([pool.usage.boards[board].memory_bytes for board in holds.board[chosen]])
    memory = quantile(high[chosen] / sizes, 1.0)
    cells = np.concatenate(
        [peaks[holds.board[h], holds.first[h] : holds.end[h]] for h in chosen[:2000].tolist()]
    )
    sm = quantile(cells.astype(np.float64), 0.95, worth=float(len(group.members)))
    fits = [
        one
        for one in rules.slices
        if sm.high < one.sm * rules.sm_room and memory.value < one.memory * rules.memory_room
    ]
    if not fits or not sm.value < rules.most_sm:
        return None
    best = min(fits, key=lambda one: one.sm)
    count = max(int(1 / max(best.sm, best.memory)), 1)
    held = float(pool.gpu_s[group.members].sum()) / HOUR / pool.weeks
    saved = held * (1 - 1 / count)
    return Advice(
        id=f"{NAME}:{group.key}",
        rule=NAME,
        action=f"run {group.title()} on slices ({best.name}): {count} fit on a GPU",
        scope=group.scope(pool),
        quantity=between(1 / count, max(best.sm, 1 / count), 1.0, "gpus", "share of a GPU a job"),
        saving=Saving(
            between(0.0, saved, saved, "gpu_hours", "GPU-hours x (1 - 1 / jobs a GPU)", "if slices fill up")
        ),
        grade=Grade.B if pool.usage.peaks.get("gpu.sm_active") is not None else Grade.C,
        grounds=(ground(pool, group, "gpu.sm_active"), ground(pool, group, "gpu.mem_used")),
        because=(
            f"SM activity p95 {sm.value:.0%} and memory at most {memory.value:.0%} of a GPU,"
            f" in {len(group.members)} jobs of one GPU"
        ),
        would_change="finer samples: a mean over minutes hides bursts that a slice would stretch",
        but="slices share nothing, not even idle moments, and jobs on them cannot span GPUs; time-slicing or MPS may do as well",
    )
