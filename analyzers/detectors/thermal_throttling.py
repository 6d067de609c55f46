"""Thermal throttling: a GPU slows itself because its core or its memory is hot.

Always two independent signals. That heat holds it back: the violation counters (exact at any poll), else the duty of the
thermal bits, else that it is hot (near its slowdown, or HBM at its own limit or far above its peers'). And that it is slow:
its clock below what it or its peers ran at, while it is busy and power is not what holds it. Who has been hot and slow for
longer than the window reaches, without peers, is held against the highest clock of its model, and has to lie far below it.

Loss: 1 - f / f_ref, by the share of the work that follows the clock (most of it where tensor cores work, little where
memory binds); of a job that runs in lock-step it is everybody's.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec
import numpy as np
from numpy.typing import NDArray

from coldaisle.analyzers.features import aligned, power_limit, reference_clock, usual_clock
from coldaisle.analyzers.finding import (
    Candidate,
    Evidence,
    Rejected,
    Scope,
    Severity,
    Verdict,
    Warming,
    severity_of,
)
from coldaisle.analyzers.progress import slowed
from coldaisle.analyzers.snapshot import Times
from coldaisle.analyzers.window import (
    POLLS,
    Bools,
    Window,
    began,
    carried,
    mean,
    median,
    present,
    robust_z,
    share,
)
from coldaisle.sources.parts.catalogue import sheet_clock
from coldaisle.sources.source import Floats

LOOKBACK_S = 3600.0
FINE_S = 900.0
"""As long as samples are kept."""
WELL_S = 180.0
"""So long cool, it is over: longer than boards cool in the pauses of a job that heats them again. Engineering choice."""
COUNTERS = ("gpu.thermal_violation", "gpu.sw_thermal_violation", "gpu.hw_thermal_violation")
NAME = "thermal_throttling"
SW_THERMAL, HW_THERMAL, HW_SLOWDOWN = 0x20, 0x40, 0x08
LEAST = 4
"""Samples."""
LEAST_PEERS = 3
AS_MUCH = 0.03
"""Of the power limit: boards that draw as much as each other."""


class Thresholds(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """See the TOML file."""

    window_s: float
    violation: float
    duty: float
    clock_share: float
    slow_clock: float
    busy: float
    blind_clock_share: float
    blind_power_share: float
    blind_top_share: float
    near_c: float
    hot_mem_c: float
    mem_spread_c: float
    near_power: float
    plain: float
    keep: float
    hw_slowdown: float


class Signs(msgspec.Struct):
    """What was measured, [gpu] each."""

    held: Floats
    """Share of time held back by heat, by counters or bits; NaN: neither is there."""
    counted: Floats
    """The same, by counters alone."""
    hardware: Floats
    """Duty of the hardware's thermal bit."""
    mhz: Floats
    """Its clock."""
    clock: Floats
    """Of the reference."""
    of_top: Floats
    """Of the highest clock of its model."""
    busy: Floats
    power: Floats
    """Of the limit."""
    temp: Floats
    mem_temp: Floats
    near_core: Bools
    near_mem: Bools
    by_top: Bools
    """Held against the model's highest clock: no healthy one is known."""


def detect(window: Window, rules: Thresholds) -> Verdict:
    """One candidate a GPU."""
    signs = _signs(window, rules)
    util = window.recent("gpu.util", rules.window_s)
    enough = util.samples >= LEAST
    if not enough.any() and len(enough):
        return Verdict(warming=Warming(NAME, float(util.samples.max(initial=0)), LEAST))
    told = ~np.isnan(signs.held)
    strength = np.where(told, np.nan_to_num(signs.held) / rules.violation, 0.0)
    slow = signs.clock <= rules.clock_share
    # The counter may be the sum of causes: power that sits at its limit explains a slow clock by itself.
    near_power = signs.power >= rules.near_power
    hot = signs.near_core | signs.near_mem
    # Held back so much and hot: no reference is needed, it may have been slow for as long as is known.
    plain = told & hot & (np.nan_to_num(signs.held) >= rules.plain)
    by_counter = told & ((slow & (signs.busy >= rules.busy) & (~near_power | hot)) | plain)
    busy = ~told & (signs.busy >= rules.busy) & hot
    suspect = busy & ~(signs.power >= rules.blind_power_share)
    blind = suspect & (signs.clock <= rules.blind_clock_share)
    blind |= busy & _slower_for_its_watts(window, rules, signs, hot)
    far_below = suspect & (signs.of_top <= rules.blind_top_share)
    lingering = suspect & (signs.of_top <= rules.blind_clock_share)
    strength = np.where(by_counter, strength, 0.0)
    strength = np.where(blind | far_below, 1.0, np.where(lingering, rules.keep, strength))
    signs.by_top = (far_below | lingering) & ~blind
    signs.clock = np.where(signs.by_top, signs.of_top, signs.clock)
    found = np.flatnonzero(enough & (strength >= rules.keep) & window.groups.is_board)
    well = _well(window, rules)
    if not len(found):
        return Verdict(well=well)
    since, bound = _since(window, rules, signs)
    made = (_candidate(window, rules, signs, int(g), float(strength[g]), since, bound) for g in found)
    return Verdict(tuple(made), well=well)


def _slower_for_its_watts(window: Window, rules: Thresholds, signs: Signs, hot: Bools) -> Bools:
    """[gpu] clock below that of the cool boards of its job that draw as much: power at its limit holds all of them alike."""
    clock = median(window.recent("gpu.sm_clock", rules.window_s).values)
    group = np.where(
        window.gpu_job >= 0, window.groups.gpu_model * (len(window.jobs) + 1) + window.gpu_job, -1
    )
    slower = np.zeros(len(clock), dtype=np.bool_)
    for one in np.unique(group[(group >= 0) & hot]).tolist():
        cool = np.flatnonzero((group == one) & ~hot & (signs.busy >= rules.busy))
        if len(cool) >= LEAST_PEERS:
            slower |= (
                (group == one)
                & (clock <= rules.blind_clock_share * np.median(clock[cool]))
                & (signs.power <= np.median(signs.power[cool]) + AS_MUCH)
            )
    return slower


def _signs(window: Window, rules: Thresholds) -> Signs:
    bits = window.recent("gpu.throttle", rules.window_s)
    codes = np.nan_to_num(bits.values).astype(np.int64)
    have = present(bits.values)
    duty = share((codes & (SW_THERMAL | HW_THERMAL)) != 0, have)
    hardware = share((codes & HW_THERMAL) != 0, have)
    counted = np.full(len(duty), np.nan, dtype=np.float32)
    for key in COUNTERS:
        if window.has(key):
            counted = np.fmax(counted, mean(window.recent(key, rules.window_s).values))
    # A bit is a glimpse: its duty counts as the counter would, scaled so that both open at the same strength.
    held = np.where(np.isnan(counted), duty * (rules.violation / rules.duty), counted)
    clock = median(window.recent("gpu.sm_clock", rules.window_s).values)
    temp = median(window.recent("gpu.temp", rules.window_s).values)
    mem = median(window.recent("gpu.mem_temp", rules.window_s).values)
    return Signs(
        held=held.astype(np.float32),
        counted=counted,
        hardware=hardware,
        mhz=clock,
        clock=clock / reference_clock(window),
        of_top=clock / _top_clock(window),
        busy=mean(window.recent("gpu.util", rules.window_s).values),
        power=median(window.recent("gpu.power", rules.window_s).values) / power_limit(window),
        temp=temp,
        mem_temp=mem,
        near_core=temp >= _slowdown(window) - rules.near_c,
        near_mem=_near_mem(window, rules, mem),
        by_top=np.zeros(len(duty), dtype=np.bool_),
    )


def _well(window: Window, rules: Thresholds) -> Bools:
    """[gpu] far from its limits and never held back in all of the last minutes: no heat can slow it."""
    temp, mem = (window.recent(key, WELL_S) for key in ("gpu.temp", "gpu.mem_temp"))
    bits = window.recent("gpu.throttle", WELL_S).values
    is_held = (np.nan_to_num(bits).astype(np.int64) & (SW_THERMAL | HW_THERMAL)) != 0
    well = temp.samples >= LEAST
    well &= ~(temp.values >= _slowdown(window) - rules.near_c).any(axis=0)
    well &= ~(mem.values >= rules.hot_mem_c).any(axis=0) & ~is_held.any(axis=0)
    for key in COUNTERS:
        if window.has(key):
            well &= ~(window.recent(key, WELL_S).values > 0).any(axis=0)
    return well


def _top_clock(window: Window) -> Floats:
    """[gpu] MHz; what the model is known by where it is not exported. NaN: not known."""
    told = window.current("gpu.sm_clock_max")
    sheet = np.array([sheet_clock(model) for model in window.groups.models], dtype=np.float32)
    return np.where(np.isnan(told), sheet[window.groups.gpu_model], told).astype(np.float32)


def _slowdown(window: Window) -> Floats:
    """[gpu] Celsius at which the core slows; what the part is known by where it is not exported."""
    told = window.current("gpu.temp_slowdown")
    facts = np.array([gpu.slowdown_c or 87.0 for gpu in window.layout.gpus], dtype=np.float32)
    return np.where(np.isnan(told) | (told < 60), facts, told).astype(np.float32)


def _near_mem(window: Window, rules: Thresholds, mem: Floats) -> Bools:
    """[gpu] HBM at its limit, or hot and far above that of its job's or model's other boards."""
    limit = window.current("gpu.mem_temp_max")
    at_limit = mem >= np.where(np.isnan(limit), 95.0, limit) - rules.near_c / 2
    group = np.where(window.gpu_job >= 0, window.gpu_job, -1)
    _, peers = robust_z(mem, group)
    far: Bools = (mem >= rules.hot_mem_c) & (mem - peers >= rules.mem_spread_c)
    return at_limit | far


def _since(window: Window, rules: Thresholds, signs: Signs) -> tuple[Times, Bools]:
    """[gpu] since when it has shown the signs that it shows now, by samples and then by whole minutes; and whether that is all
    that is known.

    A low clock alone is no beginning: a board at its power limit has had one for as long as it has worked.
    """
    now = _Shown(window, rules, signs)
    recent = window.recent("gpu.sm_clock", FINE_S)
    fine = {
        key: aligned(window.recent(key, FINE_S, step=recent.step), recent.times, recent.step)
        for key in now.keys
    }
    since = _shown_since(now.by(fine), fine["gpu.sm_clock"], recent.times)
    minutes = {key: window.minutes(key).mean for key in now.keys}
    clock = minutes["gpu.sm_clock"]
    times = window.at // 60 * 60 - 60.0 * np.arange(len(clock), 0, -1.0)
    longer = since <= recent.times[0] + recent.step
    since = np.where(longer, np.fmin(since, _shown_since(now.by(minutes), clock, times)), since)
    since = np.where(np.isnan(since), window.at, since)
    first = np.fmin(_first_of(clock, times), _first_of(fine["gpu.sm_clock"], recent.times))
    return since, since <= np.fmax(first, window.at - LOOKBACK_S) + max(recent.step, 60.0)


class _Shown:
    """What a board shows now, to be looked for in its past: heat, being held back, a low clock."""

    def __init__(self, window: Window, rules: Thresholds, signs: Signs) -> None:
        self.counters = tuple(key for key in COUNTERS if window.has(key))
        self.keys = ("gpu.sm_clock", "gpu.util", "gpu.temp", "gpu.mem_temp", *self.counters)
        self._rules = rules
        usual = usual_clock(window)
        reference = np.where(signs.by_top, _top_clock(window), reference_clock(window))
        own = np.where(signs.mhz <= rules.clock_share * usual, np.fmin(usual, reference), reference)
        self._clock = _where(signs.mhz <= rules.clock_share * own, rules.clock_share * own)
        is_hot = signs.near_core | signs.near_mem
        self._is_cool = ~is_hot
        self._core = _where(signs.near_core, _slowdown(window) - rules.near_c)
        self._mem = _where(signs.near_mem, signs.mem_temp - rules.near_c)
        self._is_held = signs.counted >= rules.violation

    def by(self, values: Mapping[str, Floats]) -> Bools:
        """[time, gpu] of metrics in samples or minutes; a missing value is as the one before it."""
        told = {key: carried(one) for key, one in values.items()}
        shown = ~(told["gpu.sm_clock"] > self._clock) & ~(told["gpu.util"] < 0.5)
        shown &= self._is_cool | (told["gpu.temp"] >= self._core) | (told["gpu.mem_temp"] >= self._mem)
        if self.counters:
            held = np.fmax.reduce([told[key] for key in self.counters])
            shown &= ~self._is_held | _lately(held >= self._rules.violation)
        return shown


def _lately(condition: Bools) -> Bools:
    """[time, gpu] whether it held in one of the last samples: what comes and goes is one episode, and no earlier for it."""
    counted = np.cumsum(np.pad(condition, ((POLLS, 0), (0, 0))), axis=0, dtype=np.int32)
    held: Bools = counted[POLLS:] > np.pad(counted[POLLS:-POLLS], ((POLLS, 0), (0, 0)))[: len(condition)]
    return held


def _where(condition: Bools, values: NDArray[np.floating]) -> Floats:
    """NaN where a condition does not hold: comparisons with it are False."""
    return np.where(condition, values, np.nan).astype(np.float32)


def _shown_since(shown: Bools, clock: Floats, times: Times) -> Times:
    """[gpu] not before its first sample."""
    return began(shown & present(carried(clock)), times)


def _first_of(clock: Floats, times: Times) -> Times:
    """[gpu] when its first sample is; NaN: there is none."""
    have = present(clock)
    return np.where(have.any(axis=0), times[np.argmax(have, axis=0)], np.nan)


def _candidate(
    window: Window, rules: Thresholds, signs: Signs, gpu: int, strength: float, since: Times, bound: Bools
) -> Candidate:
    key = window.layout.gpus[gpu].key
    clock = 1.0 if np.isnan(signs.clock[gpu]) else float(min(signs.clock[gpu], 1.0))
    follows = _clock_share(window, gpu)
    pace = float(np.fmin(_of_usual(window, rules)[gpu], 1.0))
    alone = max(1 - 1 / (follows / max(clock if np.isnan(pace) else pace, 0.05) + 1 - follows), 0.0)
    loss = slowed(window, gpu, alone, signs.clock <= rules.slow_clock, float(since[gpu]))
    hbm = bool(signs.near_mem[gpu] and not signs.near_core[gpu])
    variant = "hardware" if signs.hardware[gpu] >= rules.hw_slowdown else "hbm" if hbm else "core"
    evidence = [Evidence("gpu.sm_clock", key, clock, "ratio", f"<= {rules.clock_share:g} of its reference")]
    if not np.isnan(signs.held[gpu]):
        metric = "gpu.thermal_violation" if window.has("gpu.thermal_violation") else "gpu.throttle"
        evidence.append(Evidence(metric, key, float(signs.held[gpu]), "ratio", f">= {rules.violation:g}"))
    hot = "gpu.mem_temp" if hbm else "gpu.temp"
    value = float(signs.mem_temp[gpu] if hbm else signs.temp[gpu])
    evidence.append(
        Evidence(hot, key, value, "C", "near its limit" if signs.near_core[gpu] or hbm else "for information")
    )
    missing = () if window.has("gpu.mem_temp") else (window.why_missing("gpu.mem_temp", gpu),)
    return Candidate(
        NAME,
        variant,
        Scope(gpus=(key,)),
        Severity.CRITICAL if variant == "hardware" else max(severity_of(loss), Severity.WARNING),
        float(since[gpu]),
        loss,
        0.95 if not np.isnan(signs.held[gpu]) else 0.75,
        tuple(evidence),
        since_bound=bool(bound[gpu]),
        is_open=strength >= 1,
        rejected=_rejected(signs, gpu),
        missing=missing,
        words={
            "temp": _celsius(signs.temp[gpu]),
            "mem_temp": _celsius(signs.mem_temp[gpu]),
            "clock": f"{clock:.0%}",
            "held": "an unknown share"
            if np.isnan(signs.held[gpu])
            else f"{min(float(signs.held[gpu]), 1.0):.0%}",
        },
    )


def _rejected(signs: Signs, gpu: int) -> tuple[Rejected, ...]:
    if np.isnan(signs.power[gpu]):
        return ()
    return (Rejected("power_capping", f"power at {float(signs.power[gpu]):.0%} of the limit"),)


def _of_usual(window: Window, rules: Thresholds) -> Floats:
    """[gpu] of the clock that it usually has at work: what heat takes, without what dense work does at any temperature."""
    found: Floats = mean(window.recent("gpu.sm_clock", rules.window_s).values) / usual_clock(window)
    return found


def _clock_share(window: Window, gpu: int) -> float:
    """How much of a step's time follows the SM clock: more where tensor cores work, less where memory binds.

    Between what throughput under power caps says (ml-energy's Zeus traces, V100, power as the 2.5th power of the clock: .42 to
    .6) and a step that is all compute (1).
    """
    tensor, dram = (
        float(mean(window.recent(k, 120.0).values)[gpu]) if window.has(k) else float("nan")
        for k in ("gpu.tensor_active", "gpu.dram_active")
    )
    if dram >= 0.6:
        return 0.3
    return 0.75 if tensor >= 0.3 else 0.6


def _celsius(value: float) -> str:
    return "?" if np.isnan(value) else f"{value:.0f} C"
