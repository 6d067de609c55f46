"""History of a cluster for a real Prometheus: GPUs with jobs, as dcgm-exporter would have told of them.

A job is planted with what it does; everything else is idle. Times are samples', ``step`` apart.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

METRICS = {
    "DCGM_FI_DEV_GPU_UTIL": (0.0, 100.0),
    "DCGM_FI_PROF_SM_ACTIVE": (0.0, 1.0),
    "DCGM_FI_PROF_PIPE_TENSOR_ACTIVE": (0.0, 1.0),
    "DCGM_FI_PROF_DRAM_ACTIVE": (0.0, 1.0),
    "DCGM_FI_DEV_POWER_USAGE": (70.0, 700.0),
    "DCGM_FI_DEV_FB_USED": (500.0, 80_000.0),
}
"""Name -> what an idle board has, and what one has that is used to the full."""
IDLE = {name: 0.0 for name in METRICS}
BUSY = {
    "DCGM_FI_DEV_GPU_UTIL": 0.95,
    "DCGM_FI_PROF_SM_ACTIVE": 0.6,
    "DCGM_FI_PROF_PIPE_TENSOR_ACTIVE": 0.15,
    "DCGM_FI_PROF_DRAM_ACTIVE": 0.7,
    "DCGM_FI_DEV_POWER_USAGE": 0.7,
    "DCGM_FI_DEV_FB_USED": 0.6,
}


@dataclass(frozen=True, slots=True)
class Work:
    """A job on boards (numbers among all of the cluster) in [start, end), and what each of them does."""

    job: str
    boards: Sequence[int]
    start: float
    end: float
    does: Mapping[str, float] = field(default_factory=lambda: BUSY)


@dataclass(frozen=True, slots=True)
class Cluster:
    """``nodes`` named ``r01n01`` ..., four a rack, ``gpus`` each, over [start, start + days)."""

    start: float
    days: float
    nodes: int = 4
    gpus: int = 8
    step: float = 300.0
    works: Sequence[Work] = ()
    seed: int = 1
    lost: float = 0.0
    """Share of samples that never came."""

    @property
    def times(self) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
        return self.start + self.step * np.arange(round(self.days * 86400 / self.step))

    def node(self, number: int) -> str:
        return f"r{number // 4 + 1:02d}n{number % 4 + 1:02d}"

    def labels(self, board: int, job: str = "") -> str:
        """Between the braces."""
        node = self.node(board // self.gpus)
        said = (
            f'instance="{node}:9400",job="dcgm",Hostname="{node}",gpu="{board % self.gpus}",UUID="GPU-{board:08x}",'
            f'modelName="NVIDIA H100 80GB HBM3"'
        )
        return f'{said},hpc_job="{job}"' if job else said

    def texts(self, metrics: Sequence[str] = tuple(METRICS)) -> Iterator[str]:
        """OpenMetrics, a metric each."""
        chance = np.random.default_rng(self.seed)
        times = self.times
        stamps = [f"{at:.0f}" for at in times.tolist()]
        there = chance.random((self.nodes * self.gpus, len(times))) >= self.lost
        jobs: list[list[Work]] = [[] for _ in range(self.nodes * self.gpus)]
        for work in self.works:
            for board in work.boards:
                jobs[board].append(work)
        for name in metrics:
            low, high = METRICS[name]
            lines = [f"# TYPE {name} gauge"]
            for board in range(self.nodes * self.gpus):
                values = np.full(len(times), low)
                owner = [""] * len(times)
                for work in jobs[board]:
                    first, last = np.searchsorted(times, [work.start, work.end]).tolist()
                    level = low + (high - low) * work.does[name]
                    noise = chance.uniform(0.95, 1.05, last - first)
                    values[first:last] = np.clip(level * noise, low, high)
                    owner[first:last] = [work.job] * (last - first)
                known = {job: self.labels(board, job) for job in {*owner}}
                # series by series: OpenMetrics wants one series' samples in their order
                for job in known:
                    head = f"{name}{{{known[job]}}} "
                    lines += [
                        f"{head}{value:.4g} {at}"
                        for value, at, mine, is_there in zip(
                            values.tolist(), stamps, owner, there[board].tolist(), strict=True
                        )
                        if mine == job and is_there
                    ]
            yield "\n".join(lines) + "\n"
