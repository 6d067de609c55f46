"""Failures, checkpoints and goodput of a long run. Pure.

C: seconds that a checkpoint stops the run; M: seconds between failures; R: from a failure until work goes on. Overhead of an
interval T: ``C/T + T/(2M) + R/M``. Sources: Young 1974, Daly 2006; availability-optimal interval: arXiv 2410.18124.
"""

from __future__ import annotations

import math

from coldaisle.analyzers.sizing.assumptions import assumed
from coldaisle.analyzers.sizing.bounds import check_above_zero
from coldaisle.analyzers.sizing.quantity import Quantity, exact

HOUR = 3600.0
_YOUNG = "Young 1974"
_LEAST = 0.02


def mtbf(gpus: float, gpu_hours: Quantity | None = None) -> Quantity:
    """Seconds between failures that stop a job: GPU-hours an interruption over its GPUs."""
    check_above_zero("GPUs", gpus)
    each = gpu_hours or assumed("failures.gpu_hours")
    return each.scaled(HOUR / gpus, "s", f"{each.value:,.0f} GPU-hours / {gpus:g} GPUs", each.source)


def young(write_s: float, mtbf_s: float) -> Quantity:
    """Seconds from one checkpoint to the next that cost least: ``sqrt(2 C M)``."""
    check_above_zero("checkpoint time", write_s)
    check_above_zero("time between failures", mtbf_s)
    return exact(
        math.sqrt(2 * write_s * mtbf_s), "s", f"sqrt(2·C·M) = sqrt(2·{write_s:.4g}·{mtbf_s:.4g})", _YOUNG
    )


def daly(write_s: float, mtbf_s: float) -> Quantity:
    """Young's to a higher order, for checkpoints that are long beside the time between failures; M itself from C = 2 M on."""
    check_above_zero("checkpoint time", write_s)
    check_above_zero("time between failures", mtbf_s)
    ratio = write_s / (2 * mtbf_s)
    best = (
        mtbf_s
        if ratio >= 1
        else math.sqrt(2 * write_s * mtbf_s) * (1 + math.sqrt(ratio) / 3 + ratio / 9) - write_s
    )
    return exact(best, "s", "sqrt(2CM)·(1 + sqrt(C/2M)/3 + C/18M) - C", "Daly 2006")


def availability_optimal(write_s: float, mtbf_s: float, restart_s: float) -> Quantity:
    """Seconds from one checkpoint to the next with the highest availability: ``Ts + sqrt(2 (Tf + Tr) Ts + Ts²)``."""
    for name, size in (("checkpoint", write_s), ("between failures", mtbf_s), ("restart", restart_s)):
        check_above_zero(f"time ({name})", size)
    return exact(
        write_s + math.sqrt(2 * (mtbf_s + restart_s) * write_s + write_s**2),
        "s",
        "Ts + sqrt(2(Tf + Tr)Ts + Ts²)",
        "arXiv 2410.18124",
    )


def overhead(write_s: float, interval_s: float, mtbf_s: float, restart_s: float) -> float:
    """Share of the time that checkpoints, lost work and restarts take; may pass 1, then nothing gets done."""
    return write_s / interval_s + interval_s / (2 * mtbf_s) + restart_s / mtbf_s


def goodput(write_s: float, interval_s: float, between: Quantity, restart: Quantity) -> Quantity:
    """Ratio of the time in which steps are made that last; 0.02 where failures come faster than work."""
    check_above_zero("checkpoint interval", interval_s)

    def left(mtbf_s: float, restart_s: float) -> float:
        return max(1 - overhead(write_s, interval_s, mtbf_s, restart_s), _LEAST)

    return Quantity(
        left(between.value, restart.value),
        min(left(between.low, restart.value), left(between.value, restart.high)),
        max(left(between.high, restart.value), left(between.value, restart.low)),
        "ratio",
        f"1 - (C/T + T/2M + R/M), C = {write_s:.3g} s, T = {interval_s:.4g} s, M = {between.value:.4g} s, R = {restart.value:.3g} s",
        f"{_YOUNG}; {between.source}",
    )


def write_bandwidth(state_bytes: float, interval_s: float, share: float) -> Quantity:
    """Bytes/s of storage for checkpoints that take ``share`` of the time: ``state / (f T)``."""
    for name, size in (("checkpoint", state_bytes), ("checkpoint interval", interval_s), ("share", share)):
        check_above_zero(name, size)
    return exact(
        state_bytes / (share * interval_s),
        "bytes/s",
        f"state/(f·T) = {state_bytes:.4g}/({share:g}·{interval_s:g})",
        "the write stops the run; asynchronous checkpoints need less",
    )


def read_bandwidth(state_bytes: float, restart_s: float) -> Quantity:
    """Bytes/s of storage to read a checkpoint back within a restart."""
    check_above_zero("restart", restart_s)
    return exact(
        state_bytes / restart_s, "bytes/s", f"state/R = {state_bytes:.4g}/{restart_s:g}", "all ranks at once"
    )
