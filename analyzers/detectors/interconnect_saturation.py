"""Interconnect saturation: a job's exchange fills NVLink, its network rails or PCIe, and its compute waits for it.

Two signals: the rate, as a share of what is *achievable* (high on average, or at its top in most samples), and a job that is
busy without computing: its pace below its own best, tensor activity or power low. A full link under full compute is good
overlap, and no finding; bursts on 30 % of the time neither.

Loss: what the job's pace lost against its own best minutes; without these, what tensor activity or power lack.
"""

from __future__ import annotations

import msgspec
import numpy as np

from coldaisle.analyzers.features import intensity
from coldaisle.analyzers.finding import Candidate, Evidence, Rejected, Scope, Verdict, severity_of
from coldaisle.analyzers.progress import progress
from coldaisle.analyzers.window import Window, by_group, mean, present, share
from coldaisle.sources.parts import nvlink_achievable, pcie_achievable, port_efficiency
from coldaisle.sources.source import Floats
from coldaisle.sources.units import show

LOOKBACK_S = 3600.0
NAME = "interconnect_saturation"


class Thresholds(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """See the TOML file."""

    window_s: float
    high: float
    mean: float
    lost: float
    idle_intensity: float
    tensor: float
    busy: float
    keep: float


class Load(msgspec.Struct):
    """One kind of link over the jobs, [job] each."""

    variant: str
    metric: str
    rate: Floats
    """Bytes/s one way, the mean over the job's links that carry anything."""
    share: Floats
    """Of the achievable, on average."""
    duty: Floats
    """Of the samples at the top."""


def detect(window: Window, rules: Thresholds) -> Verdict:
    """One candidate a job."""
    if not window.jobs:
        return Verdict()
    loads = [
        load
        for load in (_nvlink(window, rules), _network(window, rules), _pcie(window, rules))
        if load is not None
    ]
    if not loads:
        return Verdict()
    jobs = len(window.jobs)
    lost = progress(window, rules.window_s).lost
    busy = by_group(mean(window.recent("gpu.util", rules.window_s).values), window.gpu_job, jobs)
    hungry = _hungry(window, rules, jobs)
    made = []
    for load in loads:
        strength = np.fmax(
            load.share / rules.mean, np.where(load.duty >= 0.5, load.share / rules.mean + 0.2, 0.0)
        )
        slow = np.where(np.isnan(lost), hungry > 0, (lost >= rules.lost) & (hungry > -0.5))
        found = np.flatnonzero((strength >= rules.keep) & slow & (busy >= rules.busy))
        made += [
            _candidate(window, rules, load, int(job), float(strength[job]), lost, hungry) for job in found
        ]
    return Verdict(tuple(made))


def _hungry(window: Window, rules: Thresholds, jobs: int) -> Floats:
    """[job] how far it is from computing, 0..1; below 0 it computes; NaN: not known."""
    power = by_group(mean(intensity(window, rules.window_s).values), window.gpu_job, jobs)
    lack = 1 - power / rules.idle_intensity
    if window.has("gpu.tensor_active"):
        tensor = by_group(
            mean(window.recent("gpu.tensor_active", rules.window_s).values), window.gpu_job, jobs
        )
        lack = np.fmax(lack, np.where(tensor > 0.005, 1 - tensor / rules.tensor, np.nan))
    return lack.astype(np.float32)


def _nvlink(window: Window, rules: Thresholds) -> Load | None:
    ceiling = np.array([nvlink_achievable(gpu.model) for gpu in window.layout.gpus], dtype=np.float32)
    if window.has("gpu.nvlink_tx"):
        return _of_gpus(
            window,
            rules,
            "nvlink",
            "gpu.nvlink_tx",
            window.recent("gpu.nvlink_tx", rules.window_s).values,
            ceiling,
        )
    if window.has("gpu.nvlink_bandwidth"):
        both = window.recent("gpu.nvlink_bandwidth", rules.window_s).values
        return _of_gpus(
            window, rules, "nvlink", "gpu.nvlink_bandwidth", np.asarray(both / 2, dtype=np.float32), ceiling
        )
    return None


def _pcie(window: Window, rules: Thresholds) -> Load | None:
    if not window.has("gpu.pcie_rx"):
        return None
    generation, lanes = window.current("gpu.pcie_gen_max"), window.current("gpu.pcie_width_max")
    ceiling = np.array(
        [pcie_achievable(g, n) for g, n in zip(generation.tolist(), lanes.tolist(), strict=True)],
        dtype=np.float32,
    )
    most: Floats = np.fmax(
        window.recent("gpu.pcie_rx", rules.window_s).values,
        window.recent("gpu.pcie_tx", rules.window_s).values,
    )
    return _of_gpus(window, rules, "pcie", "gpu.pcie_rx", np.asarray(most, dtype=np.float32), ceiling)


def _of_gpus(
    window: Window, rules: Thresholds, variant: str, metric: str, values: Floats, ceiling: Floats
) -> Load:
    jobs = len(window.jobs)
    share_of = values / ceiling
    return Load(
        variant,
        metric,
        by_group(mean(values), window.gpu_job, jobs),
        by_group(mean(share_of), window.gpu_job, jobs),
        by_group(share(share_of >= rules.high, present(share_of)), window.gpu_job, jobs),
    )


def _network(window: Window, rules: Thresholds) -> Load | None:
    """Of the rails of a job's nodes those that carry anything; a node of several jobs tells of none."""
    if not window.has("port.tx") or not window.layout.ports:
        return None
    job_of_node = _only_job(window)
    group = job_of_node[window.groups.port_node]
    rate = window.current("port.rate")
    roce = np.nan_to_num(window.current("port.roce")) > 0
    ceiling = rate * np.where(roce, port_efficiency(roce=True), port_efficiency())
    values = np.fmax(
        window.recent("port.tx", rules.window_s).values, window.recent("port.rx", rules.window_s).values
    )
    share_of = (values / ceiling).astype(np.float32)
    level = mean(share_of)
    jobs = len(window.jobs)
    busiest = np.zeros(jobs, dtype=np.float32)
    np.fmax.at(busiest, group[group >= 0], np.nan_to_num(level)[group >= 0])
    used = np.where((group >= 0) & (level >= 0.5 * busiest[np.maximum(group, 0)]), group, -1)
    return Load(
        "network",
        "port.tx",
        by_group(mean(values), used, jobs),
        by_group(level, used, jobs),
        by_group(share(share_of >= rules.high, present(share_of)), used, jobs),
    )


def _only_job(window: Window) -> np.ndarray:
    """[node] the job that alone holds its GPUs; -1."""
    nodes = len(window.layout.nodes)
    low, high = np.full(nodes, len(window.jobs)), np.full(nodes, -1)
    held = window.gpu_job >= 0
    np.minimum.at(low, window.groups.gpu_node[held], window.gpu_job[held])
    np.maximum.at(high, window.groups.gpu_node[held], window.gpu_job[held])
    return np.where(low == high, high, -1)


def _candidate(
    window: Window, rules: Thresholds, load: Load, number: int, strength: float, lost: Floats, hungry: Floats
) -> Candidate:
    job = window.jobs[number]
    told = float(lost[number])
    loss = told if not np.isnan(told) else float(np.clip(hungry[number], 0.0, 0.9))
    at = _since(window, rules, load, number)
    rate, of = float(load.rate[number]), float(load.share[number])
    return Candidate(
        NAME,
        load.variant,
        Scope(jobs=(job.id,), nodes=job.nodes, gpus=tuple(window.layout.gpus[g].key for g in job.gpus)),
        severity_of(loss),
        at,
        loss,
        0.8 if not np.isnan(told) else 0.6,
        (
            Evidence(load.metric, job.id, rate, "B/s", f"{of:.0%} of the achievable, >= {rules.mean:.0%}"),
            Evidence(
                "gpu.tensor_active" if window.has("gpu.tensor_active") else "gpu.power",
                job.id,
                loss,
                "ratio",
                f"of its pace lost, >= {rules.lost:g}",
            ),
        ),
        is_open=strength >= 1,
        rejected=(
            Rejected("data_loader_starvation", "kernels run all the time"),
            Rejected("communication_stall", "bytes flow"),
        ),
        words={
            "rate": show(rate, "B/s"),
            "share": f"{min(of, 1.0):.0%}"
            + (" (bursts unseen at this poll)" if window.step(load.metric) > 10 else ""),
            "lost": f"{loss:.0%}",
        },
    )


def _since(window: Window, rules: Thresholds, load: Load, number: int) -> float:
    """When the job's traffic came up to what it is, in whole minutes."""
    if load.variant == "network":
        group = _only_job(window)[window.groups.port_node]
        minutes = window.minutes("port.tx").mean
    else:
        group, minutes = window.gpu_job, window.minutes(load.metric).mean
    if not len(minutes) or not (group == number).any():
        return window.at - rules.window_s
    line = mean(minutes[:, group == number].T)
    low = np.flatnonzero(~(line >= 0.7 * np.fmax.reduce(line)))
    if not len(low):
        return max(window.since, window.jobs[number].since)
    return (
        float((window.at // 60 - len(line) + low[-1] + 1) * 60.0)
        if low[-1] < len(line) - 1
        else window.at - 60.0
    )
