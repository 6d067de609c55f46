"""Jobs that split one model over more GPUs than its memory needs: ceil(sum of high waters x 1.1 / memory of a GPU).

Not where all ranks look alike (data-parallel: then how it scales is the question), and not where a program takes all memory
beforehand (vLLM, JAX, TensorFlow): what it needs cannot be known.
"""

from __future__ import annotations

from collections.abc import Iterator

import msgspec
import numpy as np

from coldaisle.analyzers.advice.advice import Advice, Grade, Refused, Saving
from coldaisle.analyzers.advice.groups import Group, ground, sized
from coldaisle.analyzers.advice.intervals import quantile
from coldaisle.analyzers.advice.pool import HOUR, Pool, over_holds
from coldaisle.analyzers.advice.rules.sharing import memory_high
from coldaisle.analyzers.advice.telling import between, counted
from coldaisle.analyzers.finding import NOWHERE

NAME = "gpus_by_memory"


class Thresholds(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """See the TOML file."""

    headroom: float
    alike_memory: float
    alike_busy: float
    reserved: float
    reserved_s: float
    used_util: float


def advise(pool: Pool, rules: Thresholds) -> Iterator[Advice | Refused]:
    """A line a group of unlike ranks whose memory would fit on fewer GPUs."""
    if memory_high(pool) is None:
        yield Refused(NAME, NOWHERE, "gpu.mem_used is not measured")
        return
    unknowable = 0
    for group in sized(pool, NAME):
        if isinstance(group, Refused):
            yield group
            continue
        found = _group(pool, rules, group)
        if isinstance(found, Advice):
            yield found
        unknowable += found is False
    if unknowable:
        yield Refused(
            NAME,
            NOWHERE,
            f"{counted(unknowable, 'group')} took their memory beforehand: what they need cannot be known",
        )


def _group(pool: Pool, rules: Thresholds, group: Group) -> Advice | bool:
    """True: nothing to advise; False: it cannot be known."""
    high, busy = memory_high(pool), pool.busy
    held = np.array([stay.gpu_count for stay in group.stays(pool)])
    if high is None or busy is None or np.median(held) < 2:
        return True
    if group.workload == "inference":
        return False
    holds = pool.holds
    seen = over_holds(holds, ~np.isnan(busy)) if len(holds) else np.zeros(0)
    level = np.divide(over_holds(holds, busy), seen, out=np.zeros(len(holds)), where=seen > 0)
    needs, sizes = [], []
    for number in group.members.tolist():
        mine = pool.holds_of[number]
        mine = mine[level[mine] >= rules.used_util]
        room = np.array([pool.usage.boards[board].memory_bytes for board in holds.board[mine]])
        if len(mine) < 2 or np.isnan(high[mine]).any() or not (room > 0).all():
            continue
        if (high[mine] / room > rules.reserved).all() and _is_flat(pool, rules, mine):
            return False
        spread = float(np.ptp(high[mine]) / max(high[mine].max(), 1))
        if spread < rules.alike_memory and float(np.ptp(level[mine])) < rules.alike_busy:
            continue  # ranks alike: data-parallel
        needs.append(float(np.ceil(high[mine].sum() * rules.headroom / np.median(room))))
        sizes.append(float(len(mine)))
    if len(needs) < pool.common.least_jobs:
        return True
    need, size = quantile(np.array(needs), 1.0), float(np.median(sizes))
    if not need.value < size:
        return True
    hours = float(pool.gpu_s[group.members].sum()) / HOUR / pool.weeks
    saved = hours * (1 - need.value / size)
    return Advice(
        id=f"{NAME}:{group.key}",
        rule=NAME,
        action=f"run {group.title()} on {counted(need.value, 'GPU')} instead of {size:.0f}: its memory fits",
        scope=group.scope(pool),
        quantity=between(
            need.low,
            need.value,
            size,
            "gpus",
            f"ceil(sum of high waters x {rules.headroom} / memory of a GPU)",
        ),
        saving=Saving(between(0.0, saved, saved, "gpu_hours", "if it takes no longer on fewer GPUs")),
        grade=Grade.C,
        grounds=(ground(pool, group, "gpu.mem_used"),),
        because=f"the most that {len(needs)} jobs used on all their GPUs fits on {need.value:.0f}",
        would_change="how it is split; whether fewer GPUs make it slower",
        but="with fewer GPUs it has less bandwidth and compute as well: time may grow more than GPU-hours shrink",
    )


def _is_flat(pool: Pool, rules: Thresholds, holds: np.ndarray[tuple[int], np.dtype[np.intp]]) -> bool:
    """Whether memory stood at its height from the start: a reservation."""
    memory = pool.metric("gpu.mem_used")
    if memory is None:
        return False
    hold = int(holds[0])
    line = memory[pool.holds.board[hold], pool.holds.first[hold] : pool.holds.end[hold]]
    skip = int(np.ceil(rules.reserved_s / pool.usage.step))
    line = line[skip:]
    line = line[~np.isnan(line)]
    return bool(len(line) and np.ptp(line) <= 0.02 * float(line.max()))
