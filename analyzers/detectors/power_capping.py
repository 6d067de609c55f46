"""Power capping: a limit below what the board is made for, or below its peers', or the brake of the power supply.

A dense job at the default limit is healthy, however often the bit is set: that is no finding. Two signals each: the limit
against the default (or the peers'), and power at that limit with the clock below its reference; the brake's bit or counter,
and the clock.

Loss: 1 - f / f_ref while the cap binds; where clocks say nothing, 1 - (cap / default) ** 0.68.
"""

from __future__ import annotations

import msgspec
import numpy as np

from coldaisle.analyzers.features import power_limit, reference_clock, usual_clock
from coldaisle.analyzers.finding import (
    Candidate,
    Evidence,
    Rejected,
    Scope,
    Severity,
    Undecided,
    Verdict,
    severity_of,
)
from coldaisle.analyzers.progress import slowed
from coldaisle.analyzers.snapshot import Times
from coldaisle.analyzers.teams import teams
from coldaisle.analyzers.window import (
    Bools,
    Recent,
    Window,
    began,
    carried,
    mean,
    median,
    present,
    quantile,
    share,
)
from coldaisle.sources.source import Floats

LOOKBACK_S = 3600.0
NAME = "power_capping"
SW_POWER_CAP, HW_POWER_BRAKE = 0x4, 0x80
LEAST = 4
FOLLOWS = 0.55
"""How much of a step's time follows the clock: throughput under caps as the Zeus traces have it, power ~ clock ** 2.5."""


DECIDING = ("gpu.power_limit", "gpu.throttle", "gpu.power_brake_violation")
PINNED = "run at one clock that does not move, below their usual one and their power"
LOCKED = "cannot tell locked clocks from a hardware slowdown without gpu.throttle"
BLIND = "cannot tell a power cap from heat or locked clocks without gpu.power_limit or gpu.throttle"


class Thresholds(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """See the TOML file."""

    window_s: float
    near: float
    lowered: float
    duty: float
    brake_duty: float
    clock_share: float
    slow_clock: float
    blind_clock: float
    pinned_mhz: float
    drift_mhz: float
    busy: float
    keep: float
    exponent: float


class Signs(msgspec.Struct):
    """[gpu] each."""

    limit: Floats
    default: Floats
    """The board's own limit: its default or highest."""
    peers: Floats
    """The median limit of the same model in the same job."""
    power: Floats
    """Of the limit in force."""
    clock: Floats
    """Of the reference or the peers' clock, whichever is higher."""
    brake: Floats


def detect(window: Window, rules: Thresholds) -> Verdict:
    """One candidate a GPU."""
    undecided = _undecided(window, rules)
    if not any(window.has(key) for key in DECIDING):
        return Verdict(undecided=undecided)
    signs = _signs(window, rules)
    util = window.recent("gpu.util", rules.window_s)
    ready = (util.samples >= LEAST) & (mean(util.values) >= rules.busy) & window.groups.is_board
    brake = ready & (signs.brake >= rules.keep * rules.brake_duty)
    binds = ready & (signs.power >= rules.near * np.where(brake, 0, 1)) & ~(signs.clock > rules.clock_share)
    unequal = binds & (signs.limit <= rules.lowered * signs.peers)
    lowered = binds & (signs.limit <= rules.lowered * signs.default)
    found = np.flatnonzero(brake | unequal | lowered)
    if not len(found):
        return Verdict(undecided=undecided)
    times, since = _since(window, signs)
    return Verdict(
        tuple(
            _candidate(window, rules, signs, g, _variant(bool(brake[g]), bool(unequal[g])), since, times)
            for g in found.tolist()
        ),
        undecided,
    )


def _undecided(window: Window, rules: Thresholds) -> tuple[Undecided, ...]:
    """Jobs with boards at work below their usual clock and their power, far or at one clock that does not move, of which nobody says
    what holds them back."""
    told = np.zeros(len(window.layout.gpus), dtype=np.bool_)
    for key in DECIDING:
        told |= present(window.current(key))
    if told.all():
        return ()
    util = window.recent("gpu.util", rules.window_s)
    busy = (util.samples >= LEAST) & (mean(util.values) >= rules.busy) & window.groups.is_board & ~told
    eased = _upper(window.recent("gpu.power", rules.window_s).values) <= rules.near * power_limit(window)
    clocks, usual = window.recent("gpu.sm_clock", rules.window_s), usual_clock(window)
    slow = mean(clocks.values) <= rules.blind_clock * usual
    return (
        *_of_jobs(window, busy & eased & slow, f"run far below their usual clock; {BLIND}"),
        *_of_jobs(
            window,
            _of_most(window, busy & eased & ~slow & _is_pinned(rules, clocks, usual)),
            f"{PINNED}; {LOCKED}",
        ),
    )


def _is_pinned(rules: Thresholds, clocks: Recent, usual: Floats) -> Bools:
    """[gpu] clocks that stand still below what they were: a governor that keeps to watts or to a temperature steps up and down."""
    highest, lowest = (pick.reduce(clocks.values, axis=0) for pick in (np.fmax, np.fmin))
    still = (clocks.samples >= LEAST) & (highest - lowest <= rules.pinned_mhz)
    pinned: Bools = still & (highest <= rules.clock_share * usual) & (usual - highest >= rules.drift_mhz)
    return pinned


def _of_most(window: Window, gpus: Bools) -> Bools:
    """Those of teams of which most are meant: where a few differ from the others, they are stragglers."""
    team = teams(window)
    if not len(team):
        return np.zeros_like(gpus)
    share_of_team = team.mean(gpus.astype(np.float32)[None])[0]
    most: Bools = gpus & (team.of >= 0) & (share_of_team[np.maximum(team.of, 0)] > 0.5)
    return most


def _of_jobs(window: Window, gpus: Bools, what: str) -> list[Undecided]:
    """What is not decided of some boards, job by job."""
    held: dict[tuple[str, ...], list[str]] = {}
    for gpu in np.flatnonzero(gpus).tolist():
        job = int(window.gpu_job[gpu])
        held.setdefault((window.jobs[job].id,) if job >= 0 else (), []).append(window.layout.gpus[gpu].key)
    return [
        Undecided(NAME, Scope(gpus=tuple(keys), jobs=jobs), f"{len(keys)} GPUs {what}")
        for jobs, keys in held.items()
    ]


def _variant(brake: bool, unequal: bool) -> str:
    return "brake" if brake else "unequal" if unequal else "operator"


def _signs(window: Window, rules: Thresholds) -> Signs:
    limit = window.current("gpu.power_limit")
    most = window.current("gpu.power_max")
    facts = np.array([gpu.power_max_w or np.nan for gpu in window.layout.gpus], dtype=np.float32)
    before = window.minutes("gpu.power_limit").high
    default = np.where(np.isnan(most), facts, most)
    # A site may sell boards with a lower default: what was in force for most of the hour is the default, if it is higher.
    default = np.fmin(default, np.fmax(_highest(before), default))
    peers = _peer_median(window, limit)
    bits = window.recent("gpu.throttle", rules.window_s)
    brake = share((np.nan_to_num(bits.values).astype(np.int64) & HW_POWER_BRAKE) != 0, present(bits.values))
    if window.has("gpu.power_brake_violation"):
        brake = np.fmax(brake, mean(window.recent("gpu.power_brake_violation", rules.window_s).values))
    clock = median(window.recent("gpu.sm_clock", rules.window_s).values)
    reference = np.fmax(reference_clock(window), _peer_median(window, clock))
    power = window.recent("gpu.power", rules.window_s)
    busy_power = _upper(power.values)
    return Signs(
        limit,
        default.astype(np.float32),
        peers,
        (busy_power / limit).astype(np.float32),
        (clock / reference).astype(np.float32),
        brake,
    )


def _upper(values: Floats) -> Floats:
    """What it draws while it computes: the upper half of the samples, so that gaps between steps do not count."""
    return quantile(values, 0.7)


def _highest(values: Floats) -> Floats:
    return (
        np.fmax.reduce(values, axis=0) if len(values) else np.full(values.shape[1], np.nan, dtype=np.float32)
    )


def _peer_median(window: Window, values: Floats) -> Floats:
    """[gpu] the upper median of the same model in the same job, of at least three: a value that one of them has; NaN."""
    out = np.full(len(values), np.nan, dtype=np.float32)
    group = window.groups.gpu_model * (len(window.jobs) + 1) + window.gpu_job + 1
    for one in np.unique(group[window.gpu_job >= 0]):
        members = np.flatnonzero((group == one) & ~np.isnan(values))
        if len(members) >= 3:
            out[members] = np.sort(values[members])[len(members) // 2]
    return out


def _since(window: Window, signs: Signs) -> tuple[Times, Times]:
    """The recent limits' times, and since when each limit has been what it is."""
    recent = window.recent("gpu.power_limit", 900.0)
    # before what is kept in full there is a sample a minute: the others were what that one was
    same: Bools = ~(np.abs(carried(recent.values) - signs.limit) > 0.5)
    return recent.times, began(same, recent.times)


def _braked_since(window: Window) -> tuple[Times, Times]:
    """The same of the power brake, where its bit is told."""
    recent = window.recent("gpu.throttle", 900.0)
    held: Bools = np.isnan(recent.values) | (
        np.nan_to_num(recent.values).astype(np.int64) & HW_POWER_BRAKE != 0
    )
    since = np.where(present(recent.values).any(axis=0), began(held, recent.times), np.nan)
    return recent.times, since


def _candidate(
    window: Window, rules: Thresholds, signs: Signs, gpu: int, variant: str, since: Times, times: Times
) -> Candidate:
    key = window.layout.gpus[gpu].key
    wanted = float(signs.peers[gpu] if variant == "unequal" else signs.default[gpu])
    clock = float(min(signs.clock[gpu], 1.0)) if not np.isnan(signs.clock[gpu]) else float("nan")
    capped = (float(signs.limit[gpu]) / wanted) ** rules.exponent if wanted > 0 else 1.0
    alone = 1 - (capped if np.isnan(clock) else 1 / (FOLLOWS / max(clock, 0.05) + 1 - FOLLOWS))
    if variant == "brake":
        times, since = _braked_since(window)
    begun = float(since[gpu]) if not np.isnan(since[gpu]) else window.at - rules.window_s
    is_bound = begun <= float(times[0])
    loss = slowed(window, gpu, alone, signs.clock <= rules.slow_clock, -np.inf if is_bound else begun)
    evidence = [
        Evidence("gpu.power_limit", key, float(signs.limit[gpu]), "W", f"< {wanted:.0f} W"),
        Evidence(
            "gpu.power",
            key,
            float(signs.power[gpu] * signs.limit[gpu]),
            "W",
            f">= {rules.near:.0%} of the limit",
        ),
        Evidence("gpu.sm_clock", key, clock, "ratio", f"<= {rules.clock_share:g} of its reference"),
    ]
    if variant == "brake":
        evidence.insert(
            0, Evidence("gpu.throttle", key, float(signs.brake[gpu]), "ratio", f">= {rules.brake_duty:g}")
        )
    severity = Severity.CRITICAL if variant == "brake" else severity_of(loss)
    return Candidate(
        NAME,
        variant,
        Scope(gpus=(key,)),
        severity,
        begun,
        loss,
        0.9,
        tuple(evidence),
        since_bound=is_bound,
        is_open=variant != "brake" or bool(signs.brake[gpu] >= rules.brake_duty),
        rejected=(Rejected("thermal_throttling", "power sits at its limit"),),
        words={
            "cap": f"{signs.limit[gpu]:.0f} W",
            "default": f"{wanted:.0f} W",
            "default_w": f"{wanted:.0f}",
            "power": f"{signs.power[gpu]:.0%}",
            "clock": "?" if np.isnan(clock) else f"{clock:.0%}",
        },
    )
