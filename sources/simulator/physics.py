"""Power, clocks and heat of a board, as formulas over arrays. No state, no time, no randomness.

Fitted on eight H100 SXM runs, 5-s means, uncapped: P = 120 + 438 SM + 1408 TENSOR - 442 DRAM + 165 NVLink_tx/(100 GB/s)
(R2 .996, RMSE 11 W) and P = 98 + 698 SM (R2 .97, RMSE 30 W). Other boards scale by their power limit.
"""

from __future__ import annotations

import numpy as np

from coldaisle.sources.simulator.plan import Array

CLOCK_BIN = 15.0
"""MHz between two clocks that a board can run at."""
DVFS_EXPONENT = 2.5
"""Dynamic power over clock near the top: f * V(f)^2."""
_FLOOR = 0.65
"""The four-variable fit is collinear: outside its data (no tensor work, much DRAM) it falls too low; there the
one-variable fit, less its spread, is the lower bound."""
_TRANSIENT = 1.9
"""Highest demand of an uncapped kernel, of the board's limit."""


def demand(
    limit: Array, context: Array, gain: Array, sm: Array, tensor: Array, dram: Array, nvlink: Array
) -> Array:
    """Watts that this activity would draw at the highest clock. Activities 0..1, nvlink in bytes/s sent."""
    fit = 438 * sm + 1408 * tensor - 442 * dram + 165 * (nvlink / 100e9)
    dynamic = np.maximum(fit, _FLOOR * 698 * sm) * (limit / 700.0) * gain
    return context + np.minimum(dynamic, _TRANSIENT * limit)


def thermal_budget(limit_c: Array, t_in: Array, slow: Array, r_fast: Array) -> Array:
    """Watts at which the fast pole reaches ``limit_c``: what a governor that steps every 100 ms settles at."""
    return (limit_c - t_in - slow) / r_fast


def governed_clock(clock: Array, idle: Array, floor: Array, wanted: Array, budget: Array) -> Array:
    """MHz, in 15 MHz bins, at which ``wanted`` watts become ``budget`` watts; only the part above ``floor`` scales."""
    room = np.maximum(budget - floor, 1.0) / np.maximum(wanted - floor, 1.0)
    ratio = np.minimum(room, 1.0) ** (1 / DVFS_EXPONENT)
    return np.maximum(np.floor(clock * ratio / CLOCK_BIN) * CLOCK_BIN, idle)


def power_at(clock_ratio: Array, floor: Array, wanted: Array) -> Array:
    """Watts of work that would draw ``wanted`` at the full clock."""
    scaled: Array = floor + np.maximum(wanted - floor, 0.0) * clock_ratio**DVFS_EXPONENT
    return scaled


def unit(share: Array) -> Array:
    """Limited to 0..1; several times cheaper than numpy.clip on a few hundred values."""
    limited: Array = np.minimum(np.maximum(share, 0.0), 1.0)
    return limited


def settle(state: Array, target: Array, tau: Array | float, seconds: float) -> Array:
    """A first-order lag towards ``target``, exact for a target that stays."""
    return target + (state - target) * np.exp(-seconds / tau)


def on_share(share: Array, period: Array, phase: Array, end: float, window: float) -> Array:
    """Share of [end - window, end] that falls into the "on" part of a cycle: the first ``share`` of each ``period``."""
    stop = end / period + phase
    start = stop - window / period
    covered = _covered(stop, share) - _covered(start, share)
    return unit(covered * period / window)


def _covered(cycles: Array, share: Array) -> Array:
    whole = np.floor(cycles)
    return whole * share + np.minimum(cycles - whole, share)


def stretch(clock_share: Array, clock_ratio: Array) -> Array:
    """How much longer the compute phase takes at a lower clock."""
    return 1 + clock_share * (1 / np.maximum(clock_ratio, 0.05) - 1)
