"""A month of a cluster that never was: jobs that queue, run and end, what their GPUs did, and the waste that was planted.

:func:`month` gives a :class:`~coldaisle.analyzers.usage.Usage` as a source would have made it, and :class:`Planted`, what an
advisor should find in it. A line of :data:`HEALTHY` or :data:`WASTEFUL` is a kind of job: who, how large, how long, doing what.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from coldaisle.analyzers.usage import Board, Host, Stay, Usage

START = 1_767_225_600.0
"""2026-01-01T00:00:00Z"""
HOUR, DAY = 3600.0, 86400.0
H100 = "NVIDIA H100 80GB HBM3"
H100_BYTES = 81559 * 2.0**20
GB = 1e9


class Doing(NamedTuple):
    """What a busy GPU reads, 0..1, W and bytes."""

    util: float
    sm: float
    tensor: float
    dram: float
    power: float
    memory: float
    clock: float = 1700.0
    """MHz"""
    cpu: float = 0.3
    """Of the node's cores that it was given."""


COMPUTE = Doing(0.98, 0.86, 0.58, 0.38, 640.0, 62 * GB)
MEMORY = Doing(0.99, 0.80, 0.12, 0.76, 520.0, 66 * GB)
LATENCY = Doing(0.90, 0.22, 0.04, 0.10, 220.0, 30 * GB)
NOTHING = Doing(0.0, 0.0, 0.0, 0.0, 88.0, 0.6 * GB, 345.0, 0.02)
LOADED = NOTHING._replace(power=118.0, memory=24 * GB)
"""A model or a notebook holds memory, and nobody asks it anything."""
FREE = NOTHING._replace(power=72.0, memory=0.0)


@dataclass(frozen=True)
class JobKind:
    """Jobs alike. ``share``: of all GPU-hours that are asked for."""

    name: str
    users: tuple[str, ...]
    gpus: tuple[int, ...]
    hours: float
    """Median; the times are spread log-normally."""
    doing: Doing
    share: float
    idle_share: float = 0.0
    """Of its GPUs, the last ones, never used."""
    partition: str = "gpu"
    cores_a_gpu: int = 12
    memory_used: float = 60 * GB
    """A GPU, as of the next."""
    memory_asked: float = 90 * GB
    limit: float = 1.5
    """Times the run time."""


@dataclass(frozen=True)
class Planted:
    """What is in the month by design."""

    reclaimable_gpu_hours: float
    """Held by jobs and never used, within the span."""
    idle_jobs: int
    half_used_jobs: int
    drained_nodes: tuple[str, ...]
    busy_gpu_hours: dict[str, float] = field(default_factory=dict)
    """By what binds: ``compute``, ``memory``, ``latency``."""


@dataclass(frozen=True)
class Month:
    usage: Usage
    planted: Planted


HEALTHY: tuple[JobKind, ...] = (
    JobKind("pretrain-13b", ("ann", "bea"), (32, 64), 14.0, COMPUTE, 0.45),
    JobKind("finetune-8b", ("carl", "dora", "emil"), (8,), 5.0, COMPUTE, 0.25),
    JobKind(
        "vision-train", ("fritz", "gisa"), (1, 2, 4), 3.0, COMPUTE._replace(tensor=0.45, dram=0.44), 0.30
    ),
)
WASTEFUL: tuple[JobKind, ...] = (
    JobKind("pretrain-13b", ("ann", "bea"), (32, 64), 14.0, COMPUTE, 0.17),
    JobKind("gnn-train", ("carl", "dora", "emil"), (8, 16), 6.0, MEMORY, 0.40),
    JobKind("recsys-train", ("fritz", "gisa"), (4, 8), 4.0, MEMORY._replace(dram=0.70, tensor=0.08), 0.25),
    JobKind("protein-fold", ("hugo",), (8,), 5.0, COMPUTE, 0.08, idle_share=0.5),
    JobKind("jupyter", ("ida", "jan", "kim"), (1, 2), 8.0, LOADED, 0.06, idle_share=1.0),
    JobKind("sweep", ("lea",), (4,), 2.0, NOTHING, 0.04, idle_share=1.0),
)


def month(
    kinds: Sequence[JobKind] = WASTEFUL,
    *,
    nodes: int = 32,
    each: int = 8,
    days: float = 28.0,
    step: float = 300.0,
    load: float = 0.75,
    drained: int = 0,
    gaps: float = 0.0,
    outages: float = 0.0,
    nodes_a_rack: int = 4,
    model: str = H100,
    memory_bytes: float = H100_BYTES,
    seed: int = 1,
) -> Month:
    """``load``: GPU-hours asked for, of those installed and not drained. ``gaps``: share of samples that are missing, each for
    itself; ``outages``: share of the time in which nothing was measured at all. Racks have ``nodes_a_rack`` nodes."""
    rng = np.random.default_rng(seed)
    hosts = tuple(Host(f"r{n // nodes_a_rack + 1:02}n{n % nodes_a_rack + 1:02}", f"r{n // nodes_a_rack + 1:02}", 96, 2e12,
                       "drain" if n >= nodes - drained else "alloc") for n in range(nodes))  # fmt: skip
    boards = tuple(
        Board(f"{host.key}/{slot}", host.key, host.rack, model, memory_bytes, "gpu")
        for host in hosts
        for slot in range(each)
    )
    end = START + days * DAY
    asked = _arrivals(kinds, rng, load * (nodes - drained) * each, days)
    stays, kind_of = _scheduled(asked, nodes - drained, each, end)
    bins = round(days * DAY / step)
    cells = _Cells(bins, len(boards), step, rng)
    cpu = np.zeros((bins, nodes), dtype=np.float32)
    for stay, kind in zip(stays, kind_of, strict=True):
        cells.run(stay, kind)
        _use_cores(cpu, stay, kind, step)
    usage = Usage(
        starts=START + step * np.arange(bins, dtype=np.float64),
        step=step,
        boards=boards,
        hosts=hosts,
        means=cells.means,
        peaks={"gpu.mem_used": cells.means["gpu.mem_used"]},
        host_means={"node.cpu_util": np.clip(cpu / 96 + 0.01, 0, 1)},
        stays=tuple(stays),
        jobs_known=True,
        source="a month that never was",
    )
    _lose(usage, gaps, outages, rng)
    return Month(usage, _planted(stays, kind_of, hosts, end, drained))


class _Asked(NamedTuple):
    at: float
    kind: JobKind
    user: str
    gpus: int
    seconds: float


def _arrivals(kinds: Sequence[JobKind], rng: np.random.Generator, gpus: float, days: float) -> list[_Asked]:
    """Submissions from a day before the start on, more of them by day than by night, until ``gpus`` are asked for on average."""
    asked = []
    for kind in kinds:
        wanted = kind.share * gpus * (days + 1) * 24
        while wanted > 0:
            size = int(rng.choice(kind.gpus))
            hours = float(kind.hours * np.exp(rng.normal(0, 0.4)))
            at = START - DAY + rng.random() * (days + 1) * DAY
            if rng.random() < 0.5 and not 8 <= at / HOUR % 24 < 20:
                continue
            asked.append(_Asked(at, kind, str(rng.choice(kind.users)), size, max(hours, 0.5) * HOUR))
            wanted -= size * hours
    return sorted(asked, key=lambda one: one.at)


def _scheduled(
    asked: Iterable[_Asked], nodes: int, each: int, end: float
) -> tuple[list[Stay], list[JobKind]]:
    """First come, first served, with backfill; jobs of more than a node get whole nodes."""
    free = [list(range(n * each, (n + 1) * each)) for n in range(nodes)]
    running: list[tuple[float, int, tuple[int, ...]]] = []
    waiting: list[_Asked] = []
    stays: list[Stay] = []
    kinds: list[JobKind] = []

    def release(until: float) -> None:
        while running and running[0][0] <= until:
            at, _, boards = heapq.heappop(running)
            for board in boards:
                free[board // each].append(board)
            start(at)

    def start(at: float) -> None:
        for one in list(waiting):
            boards = _fit(free, one.gpus, each)
            if boards is None:
                continue
            waiting.remove(one)
            over = at + one.seconds
            heapq.heappush(running, (over, len(stays), boards))
            stays.append(_stay(len(stays), one, at, over if over < end else np.nan, boards, each))
            kinds.append(one.kind)

    for one in asked:
        release(one.at)
        waiting.append(one)
        start(one.at)
    release(end)
    for one in waiting:
        stays.append(_stay(len(stays), one, np.nan, np.nan, None, each))
        kinds.append(one.kind)
    return stays, kinds


def _fit(free: list[list[int]], gpus: int, each: int) -> tuple[int, ...] | None:
    """Boards for a job, taken from the free ones: of the fullest node that has room, or of whole nodes."""
    if gpus > each:
        whole = [node for node, boards in enumerate(free) if len(boards) == each][: -(-gpus // each)]
        if len(whole) * each < gpus:
            return None
        taken = [board for node in whole for board in sorted(free[node])]
        for node in whole:
            free[node].clear()
        return tuple(taken)
    room = [node for node, boards in enumerate(free) if len(boards) >= gpus]
    if not room:
        return None
    node = min(room, key=lambda n: (len(free[n]), n))
    boards = sorted(free[node])[:gpus]
    free[node] = [board for board in free[node] if board not in boards]
    return tuple(boards)


def _stay(
    number: int, one: _Asked, start: float, over: float, boards: tuple[int, ...] | None, each: int
) -> Stay:
    kind, waits = one.kind, bool(np.isnan(start))
    return Stay(
        id=f"slurm:{10_000 + number}",
        name=kind.name,
        user=one.user,
        account="lab",
        partition=kind.partition,
        submitted_at=one.at,
        started_at=start,
        ended_at=over,
        state="PENDING" if waits else "RUNNING" if np.isnan(over) else "COMPLETED",
        gpu_count=one.gpus,
        reason="Resources" if waits else "",
        boards=boards,
        hosts=tuple(sorted({board // each for board in boards or ()})),
        cores=kind.cores_a_gpu * one.gpus,
        memory_asked_bytes=kind.memory_asked * one.gpus,
        memory_used_bytes=np.nan if waits else kind.memory_used * one.gpus,
        limit_s=one.seconds * kind.limit,
        cpu_s=np.nan if waits else one.seconds * kind.cores_a_gpu * one.gpus * kind.doing.cpu,
    )


class _Cells:
    """[bin, board] of every metric."""

    def __init__(self, bins: int, boards: int, step: float, rng: np.random.Generator) -> None:
        self.bins, self.step, self.rng = bins, step, rng
        names = {"util": "gpu.util", "sm": "gpu.sm_active", "tensor": "gpu.tensor_active", "dram": "gpu.dram_active",
                 "power": "gpu.power", "memory": "gpu.mem_used", "clock": "gpu.sm_clock"}  # fmt: skip
        self.means = {
            key: np.full((bins, boards), getattr(FREE, field_), dtype=np.float32)
            for field_, key in names.items()
        }
        self._names = names

    def run(self, stay: Stay, kind: JobKind) -> None:
        """Write what a job did: two bins of setup, then work with a checkpoint now and then."""
        if stay.boards is None:
            return
        first, last = self._bin(stay.started_at), self._bin(stay.ended_at)
        if last <= first:
            return
        used = len(stay.boards) - round(kind.idle_share * len(stay.boards))
        self._write(first, last, stay.boards[:used], kind.doing, works=True)
        rest = kind.doing if kind.idle_share == 1.0 else NOTHING
        self._write(first, last, stay.boards[used:], rest, works=False)

    def _bin(self, at: float) -> int:
        if np.isnan(at):
            return self.bins
        return int(np.clip(np.ceil((at - START) / self.step - 0.5), 0, self.bins))

    def _write(self, first: int, last: int, boards: Sequence[int], doing: Doing, works: bool) -> None:
        if not boards:
            return
        shape = (last - first, len(boards))
        pace = np.ones((last - first, 1), dtype=np.float32)
        if works:
            pace[:2] = 0.05
            pace[24::24] = 0.6  # a checkpoint every two hours at five minutes a bin
        for field_, key in self._names.items():
            level = getattr(doing, field_)
            is_share = field_ in ("util", "sm", "tensor", "dram")
            noise = 1 + 0.03 * self.rng.standard_normal(shape).astype(np.float32)
            values = level * noise * (pace if is_share else 1.0)
            if field_ == "power":
                values = FREE.power + (level * noise - FREE.power) * pace
            self.means[key][first:last, list(boards)] = np.clip(values, 0, 1) if is_share else values


def _use_cores(cpu: NDArray[np.float32], stay: Stay, kind: JobKind, step: float) -> None:
    if stay.boards is None:
        return
    bins = len(cpu)
    first, last = (
        bins if np.isnan(at) else int(np.clip(round((at - START) / step), 0, bins))
        for at in (stay.started_at, stay.ended_at)
    )
    for host in stay.hosts:
        cpu[first:last, host] += kind.doing.cpu * kind.cores_a_gpu * len(stay.boards) / len(stay.hosts)


def _lose(usage: Usage, gaps: float, outages: float, rng: np.random.Generator) -> None:
    """Take samples away, in place."""
    shape = (len(usage.starts), len(usage.boards))
    lost = rng.random(shape) < gaps if gaps else np.zeros(shape, dtype=np.bool_)
    if outages:
        dark = np.zeros(shape[0], dtype=np.bool_)
        while dark.mean() < outages:
            first = int(rng.integers(0, shape[0]))
            dark[first : first + int(rng.integers(1, 1 + shape[0] // 10))] = True
        lost |= dark[:, None]
    for values in (*usage.means.values(), *usage.peaks.values()):
        values[lost] = np.nan
    for values in usage.host_means.values():
        values[lost.all(axis=1)] = np.nan


def _planted(
    stays: Sequence[Stay], kinds: Sequence[JobKind], hosts: Sequence[Host], end: float, drained: int
) -> Planted:
    idle, busy = 0.0, {"compute": 0.0, "memory": 0.0, "latency": 0.0}
    for stay, kind in zip(stays, kinds, strict=True):
        if np.isnan(stay.started_at):
            continue
        over = end if np.isnan(stay.ended_at) else min(stay.ended_at, end)
        hours = max(over - max(stay.started_at, START), 0.0) / HOUR
        unused = round(kind.idle_share * stay.gpu_count)
        idle += hours * unused
        if kind.idle_share < 1:
            bound = (
                "memory" if kind.doing.dram > 0.55 else "compute" if kind.doing.tensor > 0.35 else "latency"
            )
            busy[bound] += hours * (stay.gpu_count - unused)
    return Planted(
        idle,
        sum(k.idle_share == 1 for k in kinds),
        sum(0 < k.idle_share < 1 for k in kinds),
        tuple(host.key for host in hosts[len(hosts) - drained :]),
        busy,
    )
