"""What heat costs: clocks while temperature held a board back, against its peers' clocks while it did not.

A low clock alone is no sign of heat: power limits and kinds of work lower it as well.
"""

from __future__ import annotations

from collections.abc import Iterator

import msgspec
import numpy as np

from coldaisle.analyzers.advice.advice import Advice, Grade, Ground, Refused, Saving
from coldaisle.analyzers.advice.intervals import bootstrap
from coldaisle.analyzers.advice.measuring import block_starts
from coldaisle.analyzers.advice.places import short
from coldaisle.analyzers.advice.pool import HOUR, WEEK, Bools, Index, Numbers, Pool
from coldaisle.analyzers.advice.telling import between, named
from coldaisle.analyzers.finding import NOWHERE, Scope
from coldaisle.analyzers.usage import Floats

NAME = "thermal"
KEYS = ("gpu.thermal_violation", "gpu.hw_thermal_violation", "gpu.sw_thermal_violation")


class Thresholds(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """See the TOML file."""

    least_days: float
    busy: float
    held_back: float
    least_gpus: float


def advise(pool: Pool, rules: Thresholds) -> Iterator[Advice | Refused]:
    """A line a rack."""
    if refused := short(pool, NAME, rules.least_days):
        yield refused
        return
    hot, busy = _held_back(pool), pool.busy
    if hot is None or busy is None:
        yield Refused(
            NAME, NOWHERE, "gpu.thermal_violation is not measured: low clocks alone are no sign of heat"
        )
        return
    works: Bools = busy > rules.busy
    known = ~np.isnan(hot) & works
    if known.sum() < pool.common.least_coverage * works.sum():
        yield Refused(NAME, NOWHERE, f"measured for {known.sum() / max(works.sum(), 1):.0%} of busy time")
        return
    lost = _lost(pool, rules, hot, works)
    racks: dict[str, list[int]] = {}
    for number, board in enumerate(pool.usage.boards):
        racks.setdefault(board.rack, []).append(number)
    for rack, members in racks.items():
        chosen = np.array(members, dtype=np.intp)
        if lost[chosen].sum() / max(pool.bins, 1) >= rules.least_gpus:
            yield _advice(pool, rules, rack, chosen, lost, hot, known)


def _held_back(pool: Pool) -> Floats | None:
    """[board, bin] share of time held back by temperature, by the largest counter."""
    found: Floats | None = None
    for key in KEYS:
        values = pool.metric(key)
        if values is not None:
            found = values if found is None else np.fmax(found, values)
    return found


def _lost(pool: Pool, rules: Thresholds, hot: Floats, works: Bools) -> Numbers:
    """[board, bin] of a GPU: 1 - clock / clock of the same part while it is cool; where clocks are not measured the time itself."""
    held = works & (hot > rules.held_back)
    clock = pool.metric("gpu.sm_clock")
    if clock is None:
        return np.where(held, np.nan_to_num(hot), 0.0).clip(0, 1)
    out: Numbers = np.zeros(hot.shape)
    cool = works & ~(hot > rules.held_back) & ~np.isnan(clock)
    parts: dict[str, list[int]] = {}
    for number, board in enumerate(pool.usage.boards):
        parts.setdefault(board.part, []).append(number)
    for members in parts.values():
        usual = cool[members]
        if not usual.any():
            continue
        highest = float(np.median(clock[members][usual]))
        loss = np.clip(1 - clock[members] / highest, 0, 1)
        out[members] = np.where(held[members], np.nan_to_num(loss), 0.0)
    return out


def _advice(
    pool: Pool, rules: Thresholds, rack: str, members: Index, lost: Numbers, hot: Floats, known: Bools
) -> Advice:
    starts = block_starts(pool)
    per_block = np.add.reduceat(lost[members].sum(axis=0), starts)
    lengths = np.diff(np.append(starts, pool.bins)).astype(np.float64)
    gpus = float(per_block.sum() / lengths.sum())

    def mean(chosen: Index) -> float:
        return float(per_block[chosen].sum() / lengths[chosen].sum())

    low, high = bootstrap(len(starts), mean, pool.common.resamples, pool.common.seed)
    quantity = between(
        low, gpus, high, "gpus", "sum of 1 - clock / clock of cool peers while held back, over all time"
    )
    seen = known[members]
    share = float(((hot[members] > rules.held_back) & seen).sum() / max(seen.sum(), 1))
    worst = members[np.argsort(-lost[members].sum(axis=1), kind="stable")]
    boards = [pool.usage.boards[number] for number in worst.tolist() if lost[number].any()]
    return Advice(
        id=f"{NAME}:{rack}",
        rule=NAME,
        action=f"cool rack {named(rack)}: heat costs as much as {gpus:.2g} of its GPUs",
        scope=Scope(racks=(rack,) if rack else (), gpus=tuple(board.key for board in boards)),
        quantity=quantity,
        saving=Saving(quantity.scaled(WEEK / HOUR, "gpu_hours")),
        grade=Grade.B if pool.metric("gpu.sm_clock") is not None else Grade.C,
        grounds=(
            Ground(
                KEYS[0], pool.usage.span_s, int(seen.sum()), 1.0, tuple(board.key for board in boards[:5])
            ),
        ),
        because=f"held back by temperature {share:.0%} of busy time, {len(boards)} of {len(members)} GPUs",
        would_change="inlet temperature and flow at this rack; one bad board is a repair, not cooling",
    )
