"""Two properties of a job: what it does (workload) and what its speed depends on (bound). Neither is a finding.

What a job says of itself comes first (a server on its GPUs, its name, its owner's kind, its processes); telemetry after that,
with "unknown" where it does not tell. Rules over busy samples of the last five minutes.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from coldaisle.analyzers.exchange import fullest
from coldaisle.analyzers.features import (
    Hosts,
    activity,
    averaged_busy,
    fabric,
    hosts,
    idle_power,
    nvlink,
    power_limit,
    synchrony,
)
from coldaisle.analyzers.finding import Bound, JobClass, Workload
from coldaisle.analyzers.hints import workload_of
from coldaisle.analyzers.teams import teams
from coldaisle.analyzers.window import MINUTES, Window, mean
from coldaisle.sources.source import Floats

SECONDS = 300.0
IDLE_BUSY = 0.05
WORKS = 0.6
"""Utilisation from which a job's speed can be said to depend on its GPUs."""
COMPUTE_TENSOR, COMPUTE_SHARE, COMPUTE_PIPE = 0.4, 0.5, 0.6
"""Tensor activity, the same as a share of SM activity, or another pipe's."""
MEMORY_DRAM, MEMORY_TENSOR = 0.6, 0.3
LATENCY_SM, LATENCY_TENSOR, LATENCY_DRAM = 0.4, 0.15, 0.3
FULL = 0.75
"""Of what a link can reach, on average, from which a job that does not fill its tensor cores has its speed from it."""
HALF_POWER = 0.5
"""Of the power range, at most: the same where nobody counts tensor cores."""
WAITS = 0.5
"""Share of samples in which kernels only wait."""
TRAINING_TENSOR_SHARE, TRAINING_POWER, TRAINING_SYNC = 0.25, 0.55, 0.6
"""Tensor share of SM activity, intensity, and ranks in step: no single one is enough."""
TRAINED_MINUTES, TRAINED_BOARDS = 4, 0.8
"""So many minutes, and such a share of a job's boards, tell that it trained. Engineering choice."""
HOST_WAITS = 0.1


class Means(NamedTuple):
    """[job] each, of samples in which the GPUs had kernels, but for ``busy`` and ``waits``; NaN: not measured, or no GPU known."""

    busy: Floats
    waits: Floats
    intensity: Floats
    sm: Floats
    tensor: Floats
    dram: Floats
    pipe: Floats
    memory: Floats
    in_step: Floats
    traffic: Floats
    """Bytes a second a GPU over NVLink, or a node over the fabric, whichever is more."""
    host_waits: Floats
    links: Floats
    """How full the fullest kind of its links is, of what it can reach."""


def classify(window: Window) -> dict[str, JobClass]:
    """By job id."""
    if not window.jobs:
        return {}
    means = _means(window)
    return {job.id: _class_of(window, means, number) for number, job in enumerate(window.jobs)}


def _class_of(window: Window, means: Means, number: int) -> JobClass:
    workload, why = _workload(window, means, number)
    if workload is Workload.IDLE or not window.jobs[number].gpus:
        return JobClass(workload, Bound.UNKNOWN, why)
    bound, reason = _bound(means, number)
    return JobClass(workload, bound, "; ".join(part for part in (why, reason) if part))


def _workload(window: Window, means: Means, number: int) -> tuple[Workload, str]:
    said = workload_of(window, window.jobs[number])
    busy = float(means.busy[number])
    if said is Workload.INFERENCE:
        return said, "a server runs on it, or its name says so"
    if said is Workload.INTERACTIVE:
        return said, "its name, partition or processes say so"
    if busy <= IDLE_BUSY:
        return Workload.IDLE, f"busy {busy:.0%} of the last minutes"
    if said is not None:
        return said, "its name, owner or processes say so"
    return _shown(means, number)


def _shown(means: Means, number: int) -> tuple[Workload, str]:
    """What telemetry alone tells: several signs together, else nothing."""
    share = float(means.tensor[number] / means.sm[number]) if means.sm[number] > 0.05 else np.nan
    signs = [
        (share >= TRAINING_TENSOR_SHARE, f"tensor cores {share:.0%} of SM activity"),
        (means.intensity[number] >= TRAINING_POWER, f"at {means.intensity[number]:.0%} of the power range"),
        (means.in_step[number] >= TRAINING_SYNC, "ranks in step"),
        (means.traffic[number] >= 1e9 and means.intensity[number] >= 0.3, "ranks exchange data"),
    ]
    found = [text for holds, text in signs if holds]
    if len(found) >= 2:
        return Workload.TRAINING, ", ".join(found)
    return Workload.UNKNOWN, "telemetry does not tell"


def trained(window: Window, gpus: NDArray[np.intp], start: float, end: float) -> bool:
    """Whether boards worked in the minutes of [start, end) as training does: tensor cores at a share of the SMs' time (where that
    is not told, of the engine's, which is no less) that decoding does not reach, and at much of the power range."""
    minutes = window.at // 60 * 60 - 60.0 * np.arange(MINUTES, 0, -1.0)
    rows = (minutes >= start) & (minutes + 60.0 <= end)
    if rows.sum() < TRAINED_MINUTES or not window.has("gpu.tensor_active"):
        return False

    def level(key: str) -> Floats:
        return mean(window.minutes(key).mean[rows][:, gpus])

    works = level("gpu.sm_active" if window.has("gpu.sm_active") else "gpu.gr_active")
    idle = idle_power(window)[gpus]
    intensity = (level("gpu.power") - idle) / np.maximum(power_limit(window)[gpus] - idle, 1.0)
    is_hard = (level("gpu.tensor_active") >= TRAINING_TENSOR_SHARE * works) & (intensity >= TRAINING_POWER)
    return bool(is_hard.mean() >= TRAINED_BOARDS)


def _bound(means: Means, number: int) -> tuple[Bound, str]:
    """The first that holds; without profiling metrics power and memory activity say less."""
    busy, waits = float(means.busy[number]), float(means.waits[number])
    sm, tensor, dram, pipe = (float(x[number]) for x in (means.sm, means.tensor, means.dram, means.pipe))
    if np.isnan(busy):
        return Bound.UNKNOWN, ""
    if waits >= WAITS:
        return Bound.COMMUNICATION, f"kernels only wait in {waits:.0%} of samples"
    if busy < 0.85 and means.host_waits[number] >= HOST_WAITS:
        return Bound.HOST, f"busy {busy:.0%}, and its hosts wait for CPU or I/O"
    if busy < WORKS:
        return Bound.UNKNOWN, f"busy {busy:.0%}: it does not fill its GPUs"
    if np.isnan(tensor) and np.isnan(dram):
        return _without_profiling(means, number)
    if tensor >= COMPUTE_TENSOR or pipe >= COMPUTE_PIPE or (sm >= 0.3 and tensor / sm >= COMPUTE_SHARE):
        return Bound.COMPUTE, f"tensor cores {tensor:.0%}"
    if means.links[number] >= FULL:
        return Bound.COMMUNICATION, _full_links(means, number)
    if dram >= MEMORY_DRAM and not tensor >= MEMORY_TENSOR:
        return Bound.MEMORY, f"memory {dram:.0%}"
    if sm < LATENCY_SM and not tensor >= LATENCY_TENSOR and not dram >= LATENCY_DRAM:
        return Bound.LATENCY, f"SMs {sm:.0%} while busy {busy:.0%}"
    return Bound.MIXED, ""


def _full_links(means: Means, number: int) -> str:
    return f"its links carry {min(float(means.links[number]), 1.0):.0%} of what they can reach"


def _without_profiling(means: Means, number: int) -> tuple[Bound, str]:
    level, memory = float(means.intensity[number]), float(means.memory[number])
    if level >= 0.8 and not memory >= 0.6:
        return Bound.COMPUTE, f"at {level:.0%} of the power range (no profiling metrics: less sure)"
    if means.links[number] >= FULL and level < HALF_POWER:
        return Bound.COMMUNICATION, _full_links(means, number)
    if memory >= 0.6 and level < 0.7:
        return Bound.MEMORY, f"memory controller {memory:.0%} (no profiling metrics: less sure)"
    if level < 0.25 and not memory >= 0.2:
        return (
            Bound.LATENCY,
            f"at {level:.0%} of the power range while busy (no profiling metrics: less sure)",
        )
    return Bound.UNKNOWN, "no profiling metrics"


def _means(window: Window) -> Means:
    """Of teams, put in the order of jobs."""
    team, work = teams(window), activity(window, SECONDS)
    runs = work.have & ~work.quiet

    def in_work(values: Floats) -> Floats:
        found: Floats = team.mean(mean(np.where(runs, values, np.float32(np.nan)))[None])[0]
        return found

    def level(key: str) -> Floats:
        """Over samples with work; metrics of another step as they are."""
        if not window.has(key):
            return np.full(len(team), np.nan, dtype=np.float32)
        values = window.recent(key, SECONDS, step=work.step).values
        found: Floats = in_work(values) if values.shape == runs.shape else team.mean(mean(values)[None])[0]
        return found

    waits = team.mean(mean(np.where(work.have, work.spin, np.nan).astype(np.float32))[None])[0]
    host: Hosts = hosts(window, SECONDS)
    found = Means(
        team.mean(averaged_busy(window, SECONDS)[None])[0],
        waits,
        in_work(work.intensity),
        level("gpu.sm_active"),
        level("gpu.tensor_active"),
        level("gpu.dram_active"),
        np.fmax(level("gpu.fp64_active"), np.fmax(level("gpu.fp32_active"), level("gpu.fp16_active"))),
        level("gpu.mem_util"),
        synchrony(window, SECONDS),
        np.fmax(
            team.mean(nvlink(window, SECONDS)[None])[0], team.node_mean(fabric(window, SECONDS)[None])[0]
        ),
        np.fmax(host.waits_cpu, host.waits_io),
        fullest(window),
    )
    return Means(*(_of_jobs(window, values) for values in found))


def _of_jobs(window: Window, values: Floats) -> Floats:
    """[team] to [job]"""
    out = np.full(len(window.jobs), np.nan, dtype=np.float32)
    job = teams(window).job
    out[job[job >= 0]] = values[job >= 0]
    return out
