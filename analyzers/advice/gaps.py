"""What gaps in the readings leave open: between neighbours that are near, nothing; else anything.

A gap of at most :data:`BRIDGED_S` between two readings of a board lies between them. Of a longer one nothing is known: figures
over it reach from all of it idle to all of it at work.
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from coldaisle.analyzers.advice.pool import Bools, Pool
from coldaisle.analyzers.advice.telling import between
from coldaisle.analyzers.sizing.quantity import Quantity

BRIDGED_S = 1800.0
"""As long as a stretch must be idle to count (see ``[idle_gpus]`` run_s): nothing that counts hides in a shorter gap."""

ROWS = 64
"""Boards that are looked at together: bounds the memory."""
Shares = NDArray[np.floating]
"""0 to 1; half precision is enough for what is mostly 0 or 1."""


def unseen(pool: Pool, known: Bools) -> Shares | None:
    """[board, bin] share of the cell of which nothing can be said; None: nowhere any."""
    coarse = pool.usage.step > BRIDGED_S
    if not coarse and known.all():
        return None
    longest = BRIDGED_S / pool.usage.step
    holes = np.empty(known.shape, dtype=np.bool_)
    for low in range(0, len(known), ROWS):
        holes[low : low + ROWS] = _long_gaps(known[low : low + ROWS], longest)
    if coarse:
        return np.where(known, 1 - pool.share_measured, holes.astype(np.float32))
    return holes.astype(np.float16) if holes.any() else None


def _long_gaps(known: Bools, longest: float) -> Bools:
    """[board, bin] whether it lies in a gap of more than so many bins; before its first reading and after its last one all do."""
    bins = known.shape[1]
    at = np.arange(bins, dtype=np.int32)
    before = np.maximum.accumulate(np.where(known, at, np.int32(-1)), axis=1)
    after = np.minimum.accumulate(np.where(known, at, np.int32(bins))[:, ::-1], axis=1)[:, ::-1]
    gaps: Bools = ~known & ((after - before - 1 > longest) | (before < 0) | (after >= bins))
    return gaps


def unheard(pool: Pool) -> Shares | None:
    """The same of boards: neither busy nor idle is known of them."""

    def make() -> Shares | None:
        busy = pool.busy
        return None if busy is None else unseen(pool, ~np.isnan(busy))

    return pool.cached("unheard", make)


def dark_time(pool: Pool) -> Shares | None:
    """[board, bin] of boards that no label shows at a job, whether one held it is not known; None: accounting tells of jobs."""

    def make() -> Shares | None:
        if not pool.usage.jobs_known or pool.knows_submissions:
            return None
        holes = unheard(pool)
        return None if holes is None else holes * (pool.usage.installed.T & ~pool.held)

    return pool.cached("dark", make)


def heard_share(pool: Pool) -> float:
    """Of the time that boards were there, how much of it readings tell of."""
    there = pool.usage.installed.T | pool.held
    whole = float(there.sum())
    return float(pool.share_measured.sum(where=there, dtype=np.float64)) / whole if whole else 0.0


def opened(ratio: Quantity, whole: float, unknown: float) -> Quantity:
    """A share of ``whole``, with ``unknown`` more of the same unit of which none or all may belong to it."""
    if not unknown > 0 or not math.isfinite(unknown):
        return ratio
    total = whole + unknown
    low, high = ratio.low * whole / total, (ratio.high * whole + unknown) / total
    made = between(max(low, 0.0), ratio.value, min(high, 1.0), ratio.unit, ratio.formula, ratio.source)
    return replace(made, formula=f"{ratio.formula}; time without readings all idle to all at work")
