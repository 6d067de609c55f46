"""Thermal throttling: a GPU slows itself because it is hot.

Two independent signals: that temperature holds it back (the violation counters, or the thermal bits' duty), and that its
clock is below what it or its peers ran at while busy.
"""

from __future__ import annotations

import msgspec
import numpy as np

from coldaisle.analyzers.features import reference_clock
from coldaisle.analyzers.finding import Candidate, Evidence, Scope, Severity, Verdict, severity_of
from coldaisle.analyzers.window import Window, began, mean, median, present, share

LOOKBACK_S = 3600.0
THERMAL_BITS = 0x20 | 0x40
NAME = "thermal_throttling"


class Thresholds(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """See the TOML file."""

    window_s: float
    violation: float
    duty: float
    clock_share: float
    busy: float
    keep: float


def detect(window: Window, rules: Thresholds) -> Verdict:
    """One candidate a GPU."""
    bits = window.recent("gpu.throttle", rules.window_s)
    is_set = (np.nan_to_num(bits.values).astype(np.int64) & THERMAL_BITS) != 0
    duty = share(is_set, present(bits.values))
    counted = mean(window.recent("gpu.thermal_violation", rules.window_s).values)
    held = np.fmax(counted / rules.violation, duty / rules.duty)
    clock = median(window.recent("gpu.sm_clock", rules.window_s).values) / reference_clock(window)
    busy = mean(window.recent("gpu.util", rules.window_s).values) >= rules.busy
    found = np.flatnonzero((held >= rules.keep) & (clock <= rules.clock_share) & busy & (bits.samples >= 4))
    since = began(is_set, bits.times)
    return Verdict(tuple(_candidate(window, rules, int(gpu), held, clock, duty, since) for gpu in found))


def _candidate(
    window: Window,
    rules: Thresholds,
    gpu: int,
    held: np.ndarray,
    clock: np.ndarray,
    duty: np.ndarray,
    since: np.ndarray,
) -> Candidate:
    key = window.layout.gpus[gpu].key
    loss = float(1 - clock[gpu])
    return Candidate(
        NAME,
        "core",
        Scope(gpus=(key,)),
        max(severity_of(loss), Severity.WARNING),
        float(since[gpu]) if np.isfinite(since[gpu]) else window.at,
        loss,
        0.8,
        (
            Evidence("gpu.throttle", key, float(duty[gpu]), "ratio", f">= {rules.duty}"),
            Evidence("gpu.sm_clock", key, float(clock[gpu]), "ratio", f"<= {rules.clock_share}"),
        ),
        is_open=bool(held[gpu] >= 1),
        words={"temp": f"{window.current('gpu.temp')[gpu]:.0f} C", "clock": f"{clock[gpu]:.0%}"},
    )
