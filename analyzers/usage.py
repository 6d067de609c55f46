"""What a pool of GPUs did over hours or months, in bins: what audits and advice are made from.

Made from the history of a running program, from a Prometheus server's aggregates or from Slurm's accounting alone. Arrays
are float32 [bin, GPU] or [bin, node], NaN where nothing was measured: a missing value is never 0.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Times = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Board:
    """A GPU of the pool."""

    key: str
    """``r07n01/0``."""
    node: str
    rack: str
    part: str
    """Its model as its source has it; empty: not known."""
    memory_bytes: float = float("nan")
    partition: str = ""
    first: int = 0
    """The bin from which on it was there."""
    last: int | None = None
    """The last bin in which it was; None: it still is."""


@dataclass(frozen=True, slots=True)
class Host:
    """A node of the pool."""

    key: str
    rack: str
    cores: int | None = None
    memory_bytes: float = float("nan")
    state: str = ""
    """As the scheduler has it now."""
    cores_given: int | None = None
    """Of its cores the scheduler has given away now, as of its memory in the next."""
    memory_given_bytes: float = float("nan")


@dataclass(frozen=True, slots=True)
class Stay:
    """A job, from submission to end. ``name``, ``user``, ``account`` and ``partition`` are other people's text."""

    id: str
    name: str
    user: str
    account: str
    partition: str
    submitted_at: float
    """Epoch seconds; NaN where it is not known, as in the next two."""
    started_at: float
    """NaN: has not."""
    ended_at: float
    """NaN: has not."""
    state: str
    """As Slurm has it: COMPLETED, FAILED, TIMEOUT, CANCELLED, PREEMPTED, NODE_FAIL, OUT_OF_MEMORY, RUNNING, PENDING."""
    gpu_count: int
    reason: str = ""
    """Why it waits."""
    boards: tuple[int, ...] | None = None
    """Indices into ``Usage.boards``; None: not known which."""
    hosts: tuple[int, ...] = ()
    """Indices into ``Usage.hosts``."""
    cores: int | None = None
    memory_asked_bytes: float = float("nan")
    memory_used_bytes: float = float("nan")
    """High water over all of its nodes."""
    limit_s: float = float("nan")
    cpu_s: float = float("nan")
    """CPU seconds used, as accounting has them."""
    workload: str = ""
    """What it does, where that is known otherwise than by its name (see finding.Workload); empty: not known."""
    throughput: float = float("nan")
    """Work a second, in whatever unit its name always has: for how it scales."""
    share: float = 1.0
    """Of each of its GPUs that it holds; of one that is divided (MIG) its instances, of how many there are."""

    @property
    def gpus_held(self) -> float:
        """As many whole GPUs as it holds, or waits for."""
        return max(self.gpu_count, 0) * self.share


@dataclass(frozen=True, slots=True)
class Usage:
    """A pool over a span of time."""

    starts: Times
    """[bin] epoch seconds."""
    step: float
    """Seconds a bin lasts."""
    boards: tuple[Board, ...]
    hosts: tuple[Host, ...]
    means: Mapping[str, Floats]
    """[bin, GPU] by metric key: ``gpu.util``, ``gpu.sm_active``, ``gpu.tensor_active``, ``gpu.dram_active``, ``gpu.power``,
    ``gpu.mem_used``, ``gpu.sm_clock``, ``gpu.nvlink_tx`` ...; canonical units."""
    peaks: Mapping[str, Floats] = field(default_factory=dict)
    """[bin, GPU] the largest sample of each bin."""
    host_means: Mapping[str, Floats] = field(default_factory=dict)
    """[bin, node]: ``node.cpu_util``, ``node.iowait`` ..."""
    coverage: Floats | None = None
    """[bin, GPU] share of the expected samples that were there; None: only whether there was any is known."""
    stays: tuple[Stay, ...] = ()
    jobs_known: bool = False
    """Whether ``stays`` is the whole of what ran: with False nothing is known of allocation."""
    source: str = ""
    """Where it is from, in words."""

    @property
    def installed(self) -> NDArray[np.bool_]:
        """[bin, GPU] whether it was there."""
        bins = np.arange(len(self.starts))[:, None]
        first = np.array([board.first for board in self.boards], dtype=np.intp)
        last = [len(bins) if board.last is None else board.last for board in self.boards]
        return np.asarray((bins >= first) & (bins <= np.array(last, dtype=np.intp)))

    @property
    def span_s(self) -> float:
        """From the first bin's start to the last one's end."""
        return len(self.starts) * self.step
