"""Interconnect saturation: a team's exchange fills NVLink, its network rails or PCIe, and its compute waits for it.

Two signals: the rate, as a share of what is *achievable* (high on average, or at its top in most samples), and a job that is
busy without computing: its pace below its own best, tensor activity or power low. A full link under full compute is good
overlap, and no finding; bursts on 30 % of the time neither.

Loss: what the job's pace lost against its own best minutes; without these, what tensor activity or power lack.
"""

from __future__ import annotations

import msgspec
import numpy as np

from coldaisle.analyzers.features import activity, aligned, fell, intensity, line
from coldaisle.analyzers.finding import Candidate, Evidence, Rejected, Verdict, severity_of
from coldaisle.analyzers.links import expected_rates, nvlink_ceilings, pcie_ceilings, port_ceilings
from coldaisle.analyzers.progress import progress
from coldaisle.analyzers.teams import Teams, teams
from coldaisle.analyzers.window import Bools, Window, by_group, mean, present, quantile, share
from coldaisle.sources.cluster import Rows
from coldaisle.sources.source import Floats
from coldaisle.sources.units import show

LOOKBACK_S = 3600.0
NAME = "interconnect_saturation"
MORE = 1.15
"""Times what a team's links used to carry."""


class Thresholds(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """See the TOML file."""

    window_s: float
    high: float
    full: float
    mean: float
    lost: float
    idle_intensity: float
    tensor: float
    busy: float
    waits: float
    half_lost: float
    keep: float
    blind: float
    stalled: float
    blind_share: float


class Load(msgspec.Struct):
    """One kind of link over the teams, [team] each."""

    variant: str
    metric: str
    rate: Floats
    """Bytes/s one way, the mean over the team's links that carry anything."""
    share: Floats
    """Of the achievable, on average."""
    duty: Floats
    """Of the samples at the top."""


def detect(window: Window, rules: Thresholds) -> Verdict:
    """One candidate a team, of the link that is fullest."""
    team = teams(window)
    if not len(team):
        return Verdict()
    loads = [
        load
        for load in (_nvlink(window, rules, team), _network(window, rules, team), _pcie(window, rules, team))
        if load is not None
    ]
    if not loads:
        return Verdict()
    lost = progress(window, rules.window_s).lost
    hungry = _hungry(window, rules, team)
    seen = activity(window, 60.0)
    busy = team.mean(mean(seen.busy)[None])[0]
    computes = ~(
        team.mean(share(seen.spin, seen.have)[None])[0] >= rules.stalled
    )  # else it waits, and not for bytes
    whole = activity(window, rules.window_s)
    waited = team.mean(share(whole.spin, whole.have)[None])[0]
    found: dict[int, Candidate] = {}
    for load in loads:
        strength = np.fmax(
            load.share / rules.mean, np.where(load.duty >= 0.5, load.share / rules.mean + 0.2, 0.0)
        )
        # Copies need no kernel; exchange is one.
        runs = (busy >= rules.busy) | (load.variant == "pcie")
        fills = (strength >= rules.keep) & runs & computes
        if not fills.any():
            continue
        blind = (hungry >= rules.blind) & (load.share >= rules.blind_share)
        # A full link explains a lost pace by itself; of one that is half full the GPUs have to say so, too.
        full = load.share >= rules.full
        # Fabrics are shared, and bursts unseen: a rail's average says less than a board's own link.
        least = rules.half_lost if load.variant == "network" else rules.lost
        waits = full | ((hungry >= rules.waits) & (lost >= least))
        rises = _rises(window, team, load)
        # Whose link has been full for as long as is known has no better pace to hold this one against.
        unknown = np.isnan(lost) | ~rises
        slow = (unknown & blind) | (~unknown & (lost >= rules.lost) & waits)
        own = np.where(unknown, np.nan, lost).astype(np.float32)
        slow &= ~(waited >= 0.5 * own)  # what is lost was lost to waiting, which may be over
        for number in np.flatnonzero(fills & slow).tolist():
            known = found.get(number)
            if known is None or known.evidence[0].value < float(load.share[number]):
                found[number] = _candidate(
                    window, rules, team, load, number, float(strength[number]), own, hungry
                )
    return Verdict(tuple(found.values()))


def _rises(window: Window, team: Teams, load: Load) -> Bools:
    """[team] whether its traffic is more than it used to be: what was so all along costs nothing of its own best pace."""
    minutes = window.minutes(load.metric).mean
    if load.variant == "network":
        group = _only_team(window, team)[window.groups.port_node]
        past = np.stack([by_group(row, group, len(team)) for row in minutes]) if len(minutes) else minutes
    else:
        past = team.mean(minutes)
    usual = quantile(past, 0.25) / (2 if load.metric == "gpu.nvlink_bandwidth" else 1)
    rises: Bools = ~(load.rate < MORE * usual)
    return rises


def _hungry(window: Window, rules: Thresholds, team: Teams) -> Floats:
    """[team] how far it is from computing, 0..1; below 0 it computes; NaN: not known."""
    power = team.mean(mean(intensity(window, rules.window_s).values)[None])[0]
    lack = 1 - power / rules.idle_intensity
    if window.has("gpu.tensor_active"):
        tensor = team.mean(mean(window.recent("gpu.tensor_active", rules.window_s).values)[None])[0]
        lack = np.fmax(lack, np.where(tensor > 0.005, 1 - tensor / rules.tensor, np.nan))
    hungry: Floats = lack.astype(np.float32)
    return hungry


def _nvlink(window: Window, rules: Thresholds, team: Teams) -> Load | None:
    ceiling = nvlink_ceilings(window.snapshot)
    if window.has("gpu.nvlink_tx"):
        sent = window.recent("gpu.nvlink_tx", rules.window_s).values
        return _of_gpus(rules, team, "nvlink", "gpu.nvlink_tx", sent, ceiling)
    if window.has("gpu.nvlink_bandwidth"):
        half = np.asarray(window.recent("gpu.nvlink_bandwidth", rules.window_s).values / 2, dtype=np.float32)
        return _of_gpus(rules, team, "nvlink", "gpu.nvlink_bandwidth", half, ceiling)
    return None


def _pcie(window: Window, rules: Thresholds, team: Teams) -> Load | None:
    ceiling = pcie_ceilings(window.snapshot)
    ways = [key for key in ("gpu.pcie_rx", "gpu.pcie_tx") if window.has(key)]
    if ways:
        most = window.recent(ways[0], rules.window_s)
        for key in ways[1:]:
            other = aligned(window.recent(key, rules.window_s, step=most.step), most.times, most.step)
            most = most._replace(values=np.fmax(most.values, other))
        return _of_gpus(rules, team, "pcie", ways[0], most.values, ceiling)
    if window.has("gpu.pcie_bandwidth"):  # most copies go one way
        both = window.recent("gpu.pcie_bandwidth", rules.window_s).values
        return _of_gpus(rules, team, "pcie", "gpu.pcie_bandwidth", both, ceiling)
    return None


def _of_gpus(
    rules: Thresholds, team: Teams, variant: str, metric: str, values: Floats, ceiling: Floats
) -> Load:
    share_of = values / ceiling
    top = share(share_of >= rules.high, present(share_of))
    return Load(variant, metric, *(team.mean(of[None])[0] for of in (mean(values), mean(share_of), top)))


def _network(window: Window, rules: Thresholds, team: Teams) -> Load | None:
    """Of the rails of a team's nodes those that carry anything; a node of several teams tells of none."""
    if not window.has("port.tx") or not window.layout.ports:
        return None
    group = _only_team(window, team)[window.groups.port_node]
    count = len(team)
    # A lame rail that is full holds the others back: that is no saturation.
    ceiling = port_ceilings(window.snapshot, expected_rates(window.snapshot))
    values = np.fmax(
        window.recent("port.tx", rules.window_s).values, window.recent("port.rx", rules.window_s).values
    )
    share_of = (values / ceiling).astype(np.float32)
    level = mean(share_of)
    busiest = np.zeros(count, dtype=np.float32)
    np.fmax.at(busiest, group[group >= 0], np.nan_to_num(level)[group >= 0])
    used = np.where((group >= 0) & (level >= 0.5 * busiest[np.maximum(group, 0)]), group, -1)
    top = share(share_of >= rules.high, present(share_of))
    return Load("network", "port.tx", *(by_group(of, used, count) for of in (mean(values), level, top)))


def _only_team(window: Window, team: Teams) -> Rows:
    """[node] the team that alone has GPUs there; -1."""
    nodes = len(window.layout.nodes)
    low, high = np.full(nodes, len(team), dtype=np.intp), np.full(nodes, -1, dtype=np.intp)
    held = team.of >= 0
    np.minimum.at(low, window.groups.gpu_node[held], team.of[held])
    np.maximum.at(high, window.groups.gpu_node[held], team.of[held])
    return np.where(low == high, high, -1)


def _candidate(
    window: Window,
    rules: Thresholds,
    team: Teams,
    load: Load,
    number: int,
    strength: float,
    lost: Floats,
    hungry: Floats,
) -> Candidate:
    told = float(lost[number])
    loss = told if not np.isnan(told) else float(np.clip(hungry[number], 0.0, 0.9))
    rate, of = float(load.rate[number]), float(load.share[number])
    scope = team.scope(window, number)
    name = scope.jobs[0] if scope.jobs else scope.nodes[0]
    return Candidate(
        NAME,
        load.variant,
        scope,
        severity_of(loss),
        _since(window, rules, team, load, number, told),
        loss,
        0.8 if not np.isnan(told) else 0.6,
        (
            Evidence(load.metric, name, of, "ratio", f"of the achievable, >= {rules.mean:.0%}"),
            Evidence("gpu.tensor_active" if window.has("gpu.tensor_active") else "gpu.power", name, loss, "ratio", f"of its pace lost, >= {rules.lost:g}"),
        ),
        is_open=strength >= 1,
        rejected=(Rejected("data_loader_starvation", "kernels run all the time"), Rejected("communication_stall", "bytes flow")),
        words={
            "rate": show(rate, "B/s"),
            "share": f"{min(of, 1.0):.0%}" + (" (bursts unseen at this poll)" if window.step(load.metric) > 10 else ""),
            "lost": f"{loss:.0%}",
            "job": name.removeprefix("slurm:"),
        },
    )  # fmt: skip


def _since(window: Window, rules: Thresholds, team: Teams, load: Load, number: int, lost: float) -> float:
    """When the team's traffic came up to what it is; where it has lost pace since, when it did: before, the link cost nothing."""
    rose = _rose(window, rules, team, load, number)
    if np.isnan(lost):
        return rose
    key = "gpu.tensor_active" if window.has("gpu.tensor_active") else "gpu.power"
    pace = line(window, key, team.members(number))
    since, is_bound, _ = fell(pace, 0.5 * lost * float(np.quantile(pace.values, 0.85)), rose)
    return rose if is_bound else max(rose, since)


def _rose(window: Window, rules: Thresholds, team: Teams, load: Load, number: int) -> float:
    """When the team's traffic came up to what it is, in whole minutes."""
    if load.variant == "network":
        mine = _only_team(window, team)[window.groups.port_node] == number
        minutes = window.minutes("port.tx").mean
    else:
        mine, minutes = team.of == number, window.minutes(load.metric).mean
    if not len(minutes) or not mine.any():
        return window.at - rules.window_s
    line = mean(minutes[:, mine].T)
    low = np.flatnonzero(~(line >= 0.7 * np.fmax.reduce(line)))
    if not len(low):
        return float(np.fmax(window.since, np.nan_to_num(team.since[number], nan=-np.inf)))
    return (
        float((window.at // 60 - len(line) + low[-1] + 1) * 60.0)
        if low[-1] < len(line) - 1
        else window.at - 60.0
    )
