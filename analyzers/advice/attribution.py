"""What busy GPU time is bound by, and what it takes in flop/s, bytes/s and bytes: by part and by kind of work.

A bin of a board counts for the first that fits: memory bandwidth, compute, communication; idle time of a job on a node that
waits for I/O or whose cores are used up counts for these; what nothing of it fits is latency-bound.
Kinds of work are never mixed: each is sized by its own rules.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import msgspec
import numpy as np

from coldaisle.analyzers.advice.groups import workload_of
from coldaisle.analyzers.advice.measuring import clock_share, of_parts, part_of
from coldaisle.analyzers.advice.pool import CELLS_AT_ONCE, Bools, Holds, Index, Numbers, Pool
from coldaisle.analyzers.usage import Floats
from coldaisle.sources.parts import nvlink_achievable
from coldaisle.sources.parts.catalogue import Part

CELLS_TOGETHER = CELLS_AT_ONCE // 16
"""Some ten sums are made of a cell at once, in double precision."""
RESOURCES = ("memory bandwidth", "compute", "communication", "I/O", "host", "latency")
WORK = ("training", "finetuning", "inference", "interactive", "")
"""Of jobs; the last: not known."""


class Bounds(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """See ``[purchase.bounds]`` of the TOML file."""

    memory: float
    compute: float
    link: float
    link_in_use: float
    few_sms: float
    little_memory: float
    busy: float
    iowait: float
    cpu: float


@dataclass(frozen=True, slots=True, eq=False)
class Work:
    """One kind of work on one part, over time. Sums over boards are scaled up by the share of them that was measured."""

    workload: str
    part: Part | None
    model: str
    """As its source has it."""
    stays: Index
    held: Numbers
    """[bin] boards that its jobs hold."""
    known: Numbers
    """[bin] of them measured: activity and memory bandwidth."""
    busy: Numbers
    """[bin] boards that work, each by its share of time."""
    bound: Numbers
    """[resource, bin] boards x time, as :data:`RESOURCES`; I/O and host are of idle time."""
    flops: Numbers
    """[bin] flop/s"""
    bandwidth: Numbers
    """[bin] bytes/s of device memory"""
    memory: Numbers
    """[bin] bytes of device memory in use"""
    has_links: bool
    """Whether anything was said of NVLink."""
    has_memory: bool
    """Whether anything was said of device memory in use: else ``memory`` is no measure."""

    @property
    def coverage(self) -> float:
        """Share of its boards' time that was measured."""
        held = float(self.held.sum())
        return float(self.known.sum()) / held if held else 0.0

    def total(self, chosen: Index | None = None) -> Numbers:
        """[resource] boards x bins; of some bins."""
        bound = self.bound if chosen is None else self.bound[:, chosen]
        total: Numbers = bound.sum(axis=1)
        return total

    def summed(self, values: Numbers) -> Numbers:
        """[bin] a sum over boards for all that were held; NaN: too few of them were measured."""
        with np.errstate(divide="ignore", invalid="ignore"):
            scaled = values * self.held / self.known
        return np.where(self.known >= 0.5 * self.held, np.where(self.held > 0, scaled, 0.0), np.nan)


def works(pool: Pool, bounds: Bounds) -> tuple[Work, ...]:
    """All kinds on all parts, those with the most GPU time first; none where activity is not measured."""
    return pool.cached("works", lambda: tuple(sorted(_works(pool, bounds), key=lambda one: -one.held.sum())))


def _works(pool: Pool, bounds: Bounds) -> Iterator[Work]:
    kinds = np.array([_kind(workload_of(stay)) for stay in pool.stays], dtype=np.intp)
    models = tuple(dict.fromkeys(board.part for board in pool.usage.boards))
    place = {model: number for number, model in enumerate(models)}
    of_board = np.array([place[board.part] for board in pool.usage.boards], dtype=np.intp)
    sums = _Sums(pool, bounds, len(models))
    step = max(CELLS_TOGETHER // max(pool.bins, 1), 1)
    for low in range(0, pool.size, step):
        chosen = slice(low, min(low + step, pool.size))
        sums.add(chosen, _marks(pool.holds, kinds, chosen, pool.bins), of_board[chosen])
    parts = part_of(pool)
    for model, name in enumerate(models):
        boards = np.flatnonzero(of_board == model)
        for kind, workload in enumerate(WORK):
            if not sums.held[kind, model].any():
                continue
            owners = pool.holds.stay[np.isin(pool.holds.board, boards)]
            yield Work(
                workload,
                parts[int(boards[0])],
                name,
                np.unique(owners[kinds[owners] == kind]),
                sums.held[kind, model],
                sums.known[kind, model],
                sums.busy[kind, model],
                sums.bound[:, kind, model],
                sums.flops[kind, model],
                sums.bandwidth[kind, model],
                sums.memory[kind, model],
                sums.links is not None,
                pool.metric("gpu.mem_used") is not None or "gpu.mem_used" in pool.usage.peaks,
            )


def _kind(workload: str) -> int:
    return WORK.index(workload) if workload in WORK else len(WORK) - 1


def _marks(holds: Holds, kinds: Index, boards: slice, bins: int) -> Index:
    """[board, bin] the kind of work that holds it; -1: nobody does."""
    marks = np.full((boards.stop - boards.start, bins), -1, dtype=np.intp)
    chosen = np.flatnonzero((holds.board >= boards.start) & (holds.board < boards.stop))
    for hold in chosen.tolist():
        marks[holds.board[hold] - boards.start, holds.first[hold] : holds.end[hold]] = kinds[holds.stay[hold]]
    return marks


class _Sums:
    """[kind, part, bin] of everything, added up over slices of boards."""

    def __init__(self, pool: Pool, bounds: Bounds, models: int) -> None:
        shape = (len(WORK), models, pool.bins)
        self.pool, self.bounds = pool, bounds
        self.held, self.known, self.busy, self.flops, self.bandwidth, self.memory = (
            np.zeros(shape) for _ in range(6)
        )
        self.bound = np.zeros((len(RESOURCES), *shape))
        self.links = _links(pool)
        self.clock = clock_share(pool)
        self.peak, self.rate = of_parts(pool, "flops"), of_parts(pool, "bandwidth")
        reach = [nvlink_achievable(board.part) for board in pool.usage.boards]
        self.reach = np.array(reach, dtype=np.float64)
        host = {one.key: number for number, one in enumerate(pool.usage.hosts)}
        self.host = np.array([host.get(board.node, -1) for board in pool.usage.boards], dtype=np.intp)

    def add(self, boards: slice, kind: Index, model: Index) -> None:
        """One slice; ``kind`` [board, bin], ``model`` [board]."""
        busy = self._of("gpu.util", boards)
        busy = self._of("gpu.gr_active", boards) if busy is None else busy
        tensor, dram = self._of("gpu.tensor_active", boards), self._of("gpu.dram_active", boards)
        sm = self._of("gpu.sm_active", boards)
        if busy is None or tensor is None or dram is None:
            return
        known: Bools = ~(np.isnan(busy) | np.isnan(tensor) | np.isnan(dram))
        bound = self._bound(boards, busy, tensor, dram, sm)
        busy, tensor, dram = (np.where(known, one, 0) for one in (busy, tensor, dram))
        clock = np.float32(1) if self.clock is None else self.clock[boards]
        used = self.pool.usage.peaks.get("gpu.mem_used")
        is_peak = used is not None and used.shape == (self.pool.bins, self.pool.size)
        memory = used.T[boards] if used is not None and is_peak else self._of("gpu.mem_used", boards)
        memory = np.zeros_like(busy) if memory is None else np.nan_to_num(memory)
        columns = np.broadcast_to(np.arange(self.pool.bins), kind.shape)
        rows = np.broadcast_to(model[:, None], kind.shape)
        cell = (np.maximum(kind, 0) * self.held.shape[1] + rows) * self.pool.bins + columns
        is_held = kind >= 0
        use = is_held & known

        def put(into: Numbers, chosen: Bools, weights: Floats | Numbers | None = None) -> None:
            told = None if weights is None else np.broadcast_to(weights, kind.shape)[chosen]
            into += np.bincount(cell[chosen], told, into.size).reshape(into.shape)

        put(self.held, is_held)
        put(self.known, use)
        put(self.busy, use, busy)
        put(self.flops, use, np.nan_to_num(tensor * clock * self.peak[boards, None]))
        put(self.bandwidth, use, np.nan_to_num(dram * self.rate[boards, None]))
        put(self.memory, use, memory)
        for number in range(len(RESOURCES)):
            idle = RESOURCES[number] in ("I/O", "host")
            put(self.bound[number], use & (bound == number), 1 - busy if idle else busy)

    def _of(self, key: str, boards: slice) -> Floats | None:
        values = self.pool.metric(key)
        return None if values is None else values[boards]

    def _bound(self, boards: slice, busy: Floats, tensor: Floats, dram: Floats, sm: Floats | None) -> Index:
        """[board, bin] index into RESOURCES; -1: idle."""
        rules = self.bounds
        works = busy >= rules.busy
        found = np.full(busy.shape, -1, dtype=np.intp)
        found[works] = RESOURCES.index("latency")
        cpu = self._of_host("node.cpu_util", boards)
        wait = self._of_host("node.cpu_iowait", boards)
        halting = busy < 1 - 0.3  # idle for more than 30 %
        if cpu is not None:
            found[halting & (cpu > rules.cpu)] = RESOURCES.index("host")
        if wait is not None:
            found[halting & (wait > rules.iowait)] = RESOURCES.index("I/O")
        if self.links is not None:
            share = self.links[boards] / self.reach[boards, None]
            found[works & (share > rules.link)] = RESOURCES.index("communication")
            if sm is not None:  # collectives of small messages fill no link, and few SMs
                alike = (sm < rules.few_sms) & (dram < rules.little_memory) & (share > rules.link_in_use)
                found[works & alike] = RESOURCES.index("communication")
        found[works & (tensor > rules.compute) & (tensor > dram)] = RESOURCES.index("compute")
        found[works & (dram > rules.memory) & (dram >= tensor)] = RESOURCES.index("memory bandwidth")
        return found

    def _of_host(self, key: str, boards: slice) -> Floats | None:
        """[board, bin] what its node reads."""
        values = self.pool.usage.host_means.get(key)
        if values is None or values.shape != (self.pool.bins, len(self.pool.usage.hosts)):
            return None
        host = self.host[boards]
        if not values.shape[1]:
            return None
        rows: Floats = values.T[np.maximum(host, 0)]
        return np.where(host[:, None] >= 0, rows, np.float32(np.nan))


def _links(pool: Pool) -> Floats | None:
    """[board, bin] bytes/s over NVLink, the busier direction; None: not measured."""
    both = pool.metric("gpu.nvlink_tx"), pool.metric("gpu.nvlink_rx")
    ways = [one for one in both if one is not None]
    if ways:
        return np.fmax(ways[0], ways[-1])
    summed = pool.metric("gpu.nvlink_bandwidth")
    return None if summed is None else summed / np.float32(2)


def is_sized(part: Part | None) -> bool:
    """Whether the catalogue has the figures that sizing takes."""
    return part is not None and not (math.isnan(part.bandwidth) or math.isnan(part.memory_bytes))
