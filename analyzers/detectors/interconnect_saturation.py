"""Interconnect saturation: a team's exchange fills NVLink, its network rails or PCIe, and its compute waits for it.

Two signals: the rate, as a share of what is *achievable* (high on average, or at its top in most samples), and a job that is
busy without computing: its pace below its own best, tensor activity or power low. A full link under full compute is good
overlap, and no finding; bursts on 30 % of the time neither.

Loss: what the job's pace lost against its own best minutes, where its links carry more than in its own quieter ones. Links that
have been full since a job began leave it no better pace: then the share of its time in which only the links work, by how many of
the SMs do (an exchange holds some of them), else by tensor activity or power; part of that any exchange would take.
"""

from __future__ import annotations

from typing import NamedTuple

import msgspec
import numpy as np

from coldaisle.analyzers.exchange import Load, loads, past_rate, usual_rate
from coldaisle.analyzers.features import activity, intensity, line, shifted
from coldaisle.analyzers.finding import Candidate, Evidence, Rejected, Verdict, severity_of
from coldaisle.analyzers.progress import progress
from coldaisle.analyzers.teams import Teams, teams
from coldaisle.analyzers.window import Bools, Window, mean, present, share
from coldaisle.sources.source import Floats
from coldaisle.sources.units import show

LOOKBACK_S = 3600.0
NAME = "interconnect_saturation"
MORE = 1.15
"""Times what a team's links used to carry."""
USES_TENSOR = 0.005
"""Tensor activity below which a program has no use for them, and they tell nothing of it."""
EXCHANGE_SM = 0.165
"""SM activity of ranks that only exchange: the channels of NCCL (22 to 24 of 132 SMs, measured)."""
DENSE_SM, DENSE_TENSOR = 0.9, 0.4
"""What they are in the computing part of a step: engineering choices (dense training: .85 and more; tensor .3 to .6, measured)."""


class Thresholds(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """See the TOML file."""

    window_s: float
    high: float
    full: float
    mean: float
    lost: float
    idle_intensity: float
    tensor: float
    little_tensor: float
    busy: float
    waits: float
    half_lost: float
    keep: float
    blind: float
    stalled: float
    blind_share: float


def detect(window: Window, rules: Thresholds) -> Verdict:
    """One candidate a team, of the link that is fullest."""
    team = teams(window)
    if not len(team):
        return Verdict()
    measured = loads(window, rules.window_s, rules.high)
    if not measured:
        return Verdict()
    lost = progress(window, rules.window_s).lost
    hungry = _hungry(window, rules, team)
    little = _computes_little(window, rules, team)
    seen = activity(window, 60.0)
    busy = team.mean(mean(seen.busy)[None])[0]
    computes = ~(
        team.mean(share(seen.spin, seen.have)[None])[0] >= rules.stalled
    )  # else it waits, and not for bytes
    whole = activity(window, rules.window_s)
    waited = team.mean(share(whole.spin, whole.have)[None])[0]
    found: dict[int, Candidate] = {}
    for load in measured:
        strength = np.fmax(
            load.share / rules.mean, np.where(load.duty >= 0.5, load.share / rules.mean + 0.2, 0.0)
        )
        # Copies need no kernel; exchange is one.
        runs = (busy >= rules.busy) | (load.variant == "pcie")
        fills = (strength >= rules.keep) & runs & computes
        if not fills.any():
            continue
        blind = little & (load.share >= rules.blind_share)
        # A full link explains a lost pace by itself; of one that is half full the GPUs have to say so, too.
        full = load.share >= rules.full
        # Fabrics are shared, and bursts unseen: a rail's average says less than a board's own link.
        least = rules.half_lost if load.variant == "network" else rules.lost
        waits = full | ((hungry >= rules.waits) & (lost >= least))
        # Whose link has been full since it began has no better pace to hold this one against.
        unknown = np.isnan(lost) | ~(load.rate >= MORE * usual_rate(window, load))
        slow = (unknown & blind) | (~unknown & (lost >= rules.lost) & waits)
        own = np.where(unknown, np.nan, lost).astype(np.float32)
        slow &= ~(waited >= 0.5 * own)  # what is lost was lost to waiting, which may be over
        for number in np.flatnonzero(fills & slow).tolist():
            known = found.get(number)
            if known is None or known.evidence[0].value < float(load.share[number]):
                found[number] = _candidate(
                    window, rules, team, load, number, float(strength[number]), float(own[number])
                )
    return Verdict(tuple(found.values()))


def _hungry(window: Window, rules: Thresholds, team: Teams) -> Floats:
    """[team] how far it is from computing, 0..1; below 0 it computes; NaN: not known."""
    power = team.mean(mean(intensity(window, rules.window_s).values)[None])[0]
    lack = 1 - power / rules.idle_intensity
    if window.has("gpu.tensor_active"):
        tensor = _level(window, rules, team, "gpu.tensor_active")
        lack = np.fmax(lack, np.where(tensor > USES_TENSOR, 1 - tensor / rules.tensor, np.nan))
    hungry: Floats = lack.astype(np.float32)
    return hungry


def _computes_little(window: Window, rules: Thresholds, team: Teams) -> Bools:
    """[team] whether that alone says, beside a full link, that it waits for it."""
    power = team.mean(mean(intensity(window, rules.window_s).values)[None])[0]
    little: Bools = 1 - power / rules.idle_intensity >= rules.blind
    if window.has("gpu.tensor_active"):
        tensor = _level(window, rules, team, "gpu.tensor_active")
        little |= (tensor > USES_TENSOR) & (tensor < rules.little_tensor)
    return little


def _level(window: Window, rules: Thresholds, team: Teams, key: str) -> Floats:
    """[team] a metric of its boards, on average."""
    level: Floats = team.mean(mean(window.recent(key, rules.window_s).values)[None])[0]
    return level


class Exchange(NamedTuple):
    """Of a team: the part of its time in which only the links work."""

    share: float
    """0..1"""
    metric: str
    """The key that tells it."""
    level: float
    """Of that metric; of power the share of its range."""


def _exchanges(window: Window, rules: Thresholds, team: Teams, load: Load, number: int) -> Exchange:
    """What is left of its step, where it has no better pace of its own."""
    exchange_sm = 0.0 if load.variant == "pcie" else EXCHANGE_SM  # copies need no SM
    for key, none, dense in (
        ("gpu.sm_active", exchange_sm, DENSE_SM),
        ("gpu.tensor_active", 0.0, DENSE_TENSOR),
    ):
        level = float(_level(window, rules, team, key)[number]) if window.has(key) else np.nan
        if level > (USES_TENSOR if key == "gpu.tensor_active" else 0.0):
            return Exchange(float(np.clip(1 - (level - none) / (dense - none), 0.0, 0.95)), key, level)
    power = float(team.mean(mean(intensity(window, rules.window_s).values)[None])[0][number])
    return Exchange(float(np.clip(1 - power / rules.idle_intensity, 0.0, 0.9)), "gpu.power", power)


_BY = {"gpu.sm_active": "SM activity", "gpu.tensor_active": "tensor activity", "gpu.power": "power"}


def _candidate(
    window: Window, rules: Thresholds, team: Teams, load: Load, number: int, strength: float, lost: float
) -> Candidate:
    """``lost``: of its own pace; NaN: it has none to hold this one against."""
    is_known = not np.isnan(lost)
    left = None if is_known else _exchanges(window, rules, team, load, number)
    loss = left.share if left else lost
    rate, of = float(load.rate[number]), float(load.share[number])
    scope = team.scope(window, number)
    name = scope.jobs[0] if scope.jobs else scope.nodes[0]
    since, is_bound = _since(window, rules, team, load, number, lost)
    return Candidate(
        NAME,
        load.variant,
        scope,
        severity_of(loss),
        since,
        loss,
        0.6 if left else 0.8,
        (
            Evidence(load.metric, name, of, "ratio", f"of the achievable, >= {rules.mean:.0%}"),
            Evidence(left.metric, name, left.level, "ratio", f"{'of its range, ' * (left.metric == 'gpu.power')}on average") if left
            else Evidence(_pace_key(window), name, loss, "ratio", f"of its pace lost, >= {rules.lost:g}"),
        ),
        since_bound=is_bound,
        is_open=strength >= 1,
        rejected=(Rejected("data_loader_starvation", "kernels run all the time"), Rejected("communication_stall", "bytes flow")),
        words={
            "rate": show(rate, "B/s"),
            "share": f"{min(of, 1.0):.0%}" + (" (bursts unseen at this poll)" if window.step(load.metric) > 12 else ""),
            "lost": f"no better pace of its own is known; by its {_BY[left.metric]} it computes {1 - loss:.0%} of the time" if left
            else f"{loss:.0%} of its pace lost",
            "job": name.removeprefix("slurm:"),
        },
    )  # fmt: skip


def _pace_key(window: Window) -> str:
    return "gpu.tensor_active" if window.has("gpu.tensor_active") else "gpu.power"


def _since(
    window: Window, rules: Thresholds, team: Teams, load: Load, number: int, lost: float
) -> tuple[float, bool]:
    """When the team's traffic came up to what it is, and whether it may have been earlier; where it has lost pace since, when it
    did: before, the link cost nothing."""
    rose, is_bound = _rose(window, rules, team, load, number)
    if np.isnan(lost):
        return rose, is_bound
    pace = line(window, _pace_key(window), team.members(number))
    fell, always = shifted(pace, 0.5 * lost * float(np.quantile(pace.values, 0.85)), rose)
    return (rose, is_bound) if always or fell <= rose else (fell, False)


def _rose(window: Window, rules: Thresholds, team: Teams, load: Load, number: int) -> tuple[float, bool]:
    """When the team's traffic came up to what it is, in whole minutes of its own past; and whether it may have been earlier."""
    began = float(team.since[number])
    past = past_rate(window, load)[:, number]
    low = np.flatnonzero(past < 0.7 * np.fmax.reduce(past, initial=np.nan))
    if len(low):
        return min(float((window.at // 60 - len(past) + low[-1] + 1) * 60.0), window.at), False
    if began > window.since:
        return began, False
    told = np.flatnonzero(present(past))
    first = (window.at // 60 - len(past) + told[0]) * 60.0 if len(told) else window.at - rules.window_s
    return max(window.since, float(first)), True
