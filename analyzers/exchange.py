"""How full the links of teams are: NVLink, the network's rails and PCIe, against what they can reach, now and before.

The past of a team is its own: minutes before its job began belong to whoever had its boards and ports then.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from coldaisle.analyzers.features import aligned
from coldaisle.analyzers.links import expected_rates, nvlink_ceilings, pcie_ceilings, port_ceilings
from coldaisle.analyzers.progress import LEAST_MINUTES, since_start
from coldaisle.analyzers.teams import Teams, teams
from coldaisle.analyzers.window import Recent, Window, by_group, mean, present, quantile, share
from coldaisle.sources.cluster import Rows
from coldaisle.sources.source import Floats

TOP = 0.80
"""Of the achievable, of a sample at the top."""
RAIL_USED = 0.5
"""Of the busiest rail's rate, from which a team uses a rail."""


class Load(NamedTuple):
    """One kind of link over the teams, [team] each."""

    variant: str
    keys: tuple[str, ...]
    """Of its directions; the busier one counts."""
    ways: int
    """2: a key is the sum of both directions."""
    of: Rows
    """[gpu] or [port] the team that it counts for; -1: none."""
    rate: Floats
    """Bytes/s one way, the mean over the team's links that carry anything."""
    share: Floats
    """Of the achievable, on average."""
    duty: Floats
    """Of the samples at the top."""

    @property
    def metric(self) -> str:
        """The key that evidence names."""
        return self.keys[0]


def loads(window: Window, seconds: float = 120.0, top: float = TOP) -> tuple[Load, ...]:
    """Of every kind of link that is measured."""

    def make() -> tuple[Load, ...]:
        team = teams(window)
        if not len(team):
            return ()
        made = (of(window, seconds, top, team) for of in (_nvlink, _network, _pcie))
        return tuple(load for load in made if load is not None)

    return window.cached(("loads", seconds, top), make)


def fullest(window: Window, seconds: float = 120.0) -> Floats:
    """[team] of what its fullest kind of link can reach, the share that it carries on average; NaN: nothing is measured."""
    nothing = np.full(len(teams(window)), np.nan, dtype=np.float32)
    found: Floats = np.fmax.reduce([nothing, *(load.share for load in loads(window, seconds))])
    return found


def past_rate(window: Window, load: Load) -> Floats:
    """[minute, team] bytes/s one way in the minutes since its job began; NaN before, and where nothing was measured."""

    def make() -> Floats:
        team = teams(window)
        parts = [window.minutes(key).mean for key in load.keys if window.has(key)]
        both = parts[0] if len(parts) == 1 else np.fmax(*parts)
        rates = np.stack([by_group(row, load.of, len(team)) for row in both / load.ways])
        return since_start(window, team, rates)

    return window.cached(("past_rate", load.variant, load.keys), make)


def usual_rate(window: Window, load: Load) -> Floats:
    """[team] bytes/s one way in the quieter minutes of its own past; NaN: that is too short to tell."""
    past = past_rate(window, load)
    enough = present(past).sum(axis=0) >= LEAST_MINUTES
    usual: Floats = np.where(enough, quantile(past, 0.25), np.float32(np.nan))
    return usual


def _nvlink(window: Window, seconds: float, top: float, team: Teams) -> Load | None:
    ceiling = nvlink_ceilings(window.snapshot)
    for key, ways in (("gpu.nvlink_tx", 1), ("gpu.nvlink_bandwidth", 2)):
        if window.has(key):
            sent = (window.recent(key, seconds).values / ways).astype(np.float32)
            return _of_boards("nvlink", (key,), ways, sent, ceiling, top, team)
    return None


def _pcie(window: Window, seconds: float, top: float, team: Teams) -> Load | None:
    keys = tuple(key for key in ("gpu.pcie_rx", "gpu.pcie_tx") if window.has(key))
    if not keys and window.has("gpu.pcie_bandwidth"):  # most copies go one way
        keys = ("gpu.pcie_bandwidth",)
    if not keys:
        return None
    most = _busier(window, keys, seconds)
    return _of_boards("pcie", keys, 1, most.values, pcie_ceilings(window.snapshot), top, team)


def _busier(window: Window, keys: Sequence[str], seconds: float) -> Recent:
    """The larger of some metrics of one kind, sample by sample."""
    most = window.recent(keys[0], seconds)
    for key in keys[1:]:
        other = aligned(window.recent(key, seconds, step=most.step), most.times, most.step)
        most = most._replace(values=np.fmax(most.values, other))
    return most


def _of_boards(
    variant: str, keys: tuple[str, ...], ways: int, values: Floats, ceiling: Floats, top: float, team: Teams
) -> Load:
    full = values / ceiling
    high = share(full >= top, present(full))
    means = (team.mean(of[None])[0] for of in (mean(values), mean(full), high))
    return Load(variant, keys, ways, team.of, *means)


def _network(window: Window, seconds: float, top: float, team: Teams) -> Load | None:
    """Of the rails of a team's nodes those that carry anything; a node of several teams tells of none."""
    if not window.has("port.tx") or not window.layout.ports:
        return None
    keys = tuple(key for key in ("port.tx", "port.rx") if window.has(key))
    group, count = _only_team(window, team)[window.groups.port_node], len(team)
    # A lame rail that is full holds the others back: that is no saturation.
    ceiling = port_ceilings(window.snapshot, expected_rates(window.snapshot))
    values = _busier(window, keys, seconds).values
    full = (values / ceiling).astype(np.float32)
    level = mean(full)
    busiest = np.zeros(count, dtype=np.float32)
    np.fmax.at(busiest, group[group >= 0], np.nan_to_num(level)[group >= 0])
    used = np.where((group >= 0) & (level >= RAIL_USED * busiest[np.maximum(group, 0)]), group, -1)
    high = share(full >= top, present(full))
    return Load("network", keys, 1, used, *(by_group(of, used, count) for of in (mean(values), level, high)))


def _only_team(window: Window, team: Teams) -> Rows:
    """[node] the team that alone has GPUs there; -1."""
    nodes = len(window.layout.nodes)
    low, high = np.full(nodes, len(team), dtype=np.intp), np.full(nodes, -1, dtype=np.intp)
    held = team.of >= 0
    np.minimum.at(low, window.groups.gpu_node[held], team.of[held])
    np.maximum.at(high, window.groups.gpu_node[held], team.of[held])
    return np.where(low == high, high, -1)
