"""Boards of a scenario's cluster as arrays, and what makes a clock: power, heat, limits. Physics of :mod:`..physics`."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from coldaisle.sources.simulator.physics import CLOCK_BIN, DVFS_EXPONENT, demand
from coldaisle.sources.simulator.plan import PARTS, R_FAST, Array, Bools, Ints, Part

MARGIN_C = 2.0
"""A board that slowed itself speeds up again when it is so much cooler."""
HBM_SPREAD_C = (12.0, 17.0)
"""By which HBM is hotter than the core under load (measured on an A100 that overheated)."""
MEM_TAU_S = 20.0


def part_named(name: str) -> Part:
    """The board whose model has a word: ``H100``, ``A100``, ``H200``, ``B200``."""
    return next(part for part in PARTS if name in part.model)


@dataclass(slots=True, eq=False)
class Boards:
    """State of all boards, [gpu]."""

    part: tuple[Part, ...]
    power_max: Array
    idle: Array
    context: Array
    clock_max: Array
    clock_idle: Array
    slowdown: Array
    mem_max: Array
    gain: Array
    r_fast: Array
    r_slow: Array
    tau: Array
    r_mem: Array
    spin_sm: Array
    spin_power: Array
    # what causes change
    limit: Array
    inlet: Array
    cooling: Array
    """Factor of the slow thermal resistance."""
    hbm: Array
    """Factor of the resistance between core and HBM."""
    app_clock: Array
    """MHz that the operator locked; inf: none."""
    lame_clock: Array
    """MHz that a board does not pass, without a word why; inf: none."""
    brake: Bools
    # what follows
    clock: Array
    thermal_clock: Array
    slow_c: Array
    """Degrees of the slow pole."""
    mem_c: Array
    """Degrees by which HBM is hotter than the core."""
    power: Array


def boards(parts: tuple[Part, ...], draw: np.random.Generator) -> Boards:
    """Cold boards with the spread that is measured between boards of one model."""
    count = len(parts)

    def of(field: str) -> Array:
        return np.array([float(getattr(part, field)) for part in parts])

    power = of("power")
    scale = 700.0 / power
    slot = np.arange(count) % 8
    r_slow = np.where(
        np.isin(slot, (0, 3, 4, 6)), draw.uniform(0.036, 0.045, count), draw.uniform(0.018, 0.034, count)
    )
    limit = power.copy()
    clock = of("clock")
    return Boards(
        part=parts,
        power_max=power,
        idle=of("idle") * draw.uniform(0.93, 1.07, count),
        context=of("context") * draw.uniform(0.95, 1.05, count),
        clock_max=clock,
        clock_idle=of("clock_idle"),
        slowdown=of("slowdown"),
        mem_max=of("mem_max"),
        gain=1 + 0.015 * draw.standard_normal(count).clip(-2, 2),
        r_fast=R_FAST * scale,
        r_slow=r_slow * scale,
        tau=draw.uniform(35, 55, count),
        r_mem=draw.uniform(*HBM_SPREAD_C, count) / (0.85 * power),
        spin_sm=draw.uniform(0.14, 0.20, count),
        spin_power=draw.uniform(22, 58, count) / scale,
        limit=limit,
        inlet=draw.uniform(18, 23) + draw.uniform(-1, 1, (count + 7) // 8).repeat(8)[:count],
        cooling=np.ones(count),
        hbm=np.ones(count),
        app_clock=np.full(count, np.inf),
        lame_clock=np.full(count, np.inf),
        brake=np.zeros(count, dtype=np.bool_),
        clock=clock.copy(),
        thermal_clock=clock.copy(),
        slow_c=np.zeros(count),
        mem_c=np.zeros(count),
        power=of("idle"),
    )


@dataclass(slots=True, eq=False)
class Held:
    """What holds the clocks back during a step, [gpu]."""

    by_power: Bools
    by_heat: Bools
    by_hw_heat: Bools
    by_app: Bools


def settle(
    b: Boards,
    seconds: float,
    kernel: Array,
    spins: Bools,
    context: Bools,
    sm: Array,
    tensor: Array,
    dram: Array,
    nvlink: Array,
) -> Held:
    """Advance clocks, power and heat by a step, given the activities at full clock (0..1) and NVLink bytes/s sent.

    ``kernel``: whether one is resident. Power in a spinning collective is measured apart: little above context idle.
    """
    floor = np.where(context, b.context, b.idle)
    wanted = demand(b.power_max, floor, b.gain, sm, tensor, dram, nvlink)
    wanted = np.where(spins, floor + b.spin_power, wanted)
    budget = np.where(b.brake, np.minimum(b.limit, 0.5 * b.power_max), b.limit)
    room = np.maximum(budget - floor, 1.0) / np.maximum(wanted - floor, 1.0)
    power_clock = np.floor(b.clock_max * np.minimum(room, 1.0) ** (1 / DVFS_EXPONENT) / CLOCK_BIN) * CLOCK_BIN
    core = temperature(b)
    hot = (core >= b.slowdown) | (core + b.mem_c >= b.mem_max)
    cool = (core < b.slowdown - MARGIN_C) & (core + b.mem_c < b.mem_max - MARGIN_C)
    bins = CLOCK_BIN * max(round(seconds / 0.1), 1)
    b.thermal_clock = np.where(
        hot, b.thermal_clock - bins, np.where(cool, b.thermal_clock + bins / 2, b.thermal_clock)
    )
    b.thermal_clock = np.clip(b.thermal_clock, b.clock_idle, b.clock_max)
    over = core >= b.slowdown + 3.0
    ceiling = np.minimum(np.minimum(power_clock, b.thermal_clock), np.minimum(b.app_clock, b.lame_clock))
    ceiling = np.where(over, np.minimum(ceiling, b.clock_max / 2), ceiling)
    b.clock = np.where((kernel > 0) | context, np.maximum(ceiling, b.clock_idle), b.clock_idle)
    ratio = b.clock / b.clock_max
    target = np.where(kernel > 0, floor + np.maximum(wanted - floor, 0.0) * ratio**DVFS_EXPONENT, floor)
    b.power = np.minimum(target, 1.02 * budget)
    b.slow_c += (b.r_slow * b.cooling * b.power - b.slow_c) * (1 - np.exp(-seconds / b.tau))
    b.mem_c += (b.r_mem * b.hbm * b.power - b.mem_c) * (1 - np.exp(-seconds / MEM_TAU_S))
    busy = kernel > 0
    binding = np.minimum(ceiling, b.clock_max - 1)
    return Held(
        by_power=busy & (power_clock <= binding),
        by_heat=busy & ((b.thermal_clock <= binding) | over),
        by_hw_heat=busy & over,
        by_app=busy & (b.app_clock < b.clock_max),
    )


def temperature(b: Boards) -> Array:
    """Core, Celsius."""
    core: Array = b.inlet + b.r_fast * b.power + b.slow_c
    return core


def full_load(b: Boards) -> Array:
    """Watts of a dense job, for what a cause of heat is measured by."""
    watts: Array = 0.93 * b.limit
    return watts


def cooling_for(b: Boards, over: float) -> Array:
    """[gpu] factor of the slow resistance at which a dense job would settle ``over`` degrees above the slowdown."""
    watts = full_load(b)
    factor: Array = (b.slowdown + over - b.inlet - b.r_fast * watts) / (b.r_slow * watts)
    return np.maximum(factor, 1.0)


def hbm_for(b: Boards, over: float) -> Array:
    """[gpu] factor of the resistance of HBM at which a dense job would settle ``over`` degrees above HBM's limit."""
    watts = full_load(b)
    core = b.inlet + (b.r_fast + b.r_slow * b.cooling) * watts
    factor: Array = (b.mem_max + over - core) / (b.r_mem * watts)
    return np.maximum(factor, 1.0)


def inlet_for(b: Boards, gpus: Ints, under: float) -> float:
    """Air with which the hottest of these boards settles ``under`` degrees below its slowdown in a dense job."""
    rise = (b.r_fast + b.r_slow) * full_load(b)
    return float(np.min((b.slowdown - rise)[gpus]) - under)
