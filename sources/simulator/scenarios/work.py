"""Jobs at work: batches are made, copied, computed, exchanged, saved; a step is as long as its slowest rank makes it.

A semi-Markov machine a job, advanced in small steps over all jobs and GPUs of the world at once. What a fault does is a
change of one of the arrays of :class:`Conditions`; everything else follows.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import IntEnum

import numpy as np

from coldaisle.sources.simulator.plan import Array, Bools, Ints

ACHIEVABLE = 0.82
"""Of a link's rate, what a collective reaches (NCCL all-reduce on NVLink 4: 367 of 450 GB/s)."""
COPY = 0.9
"""Of a PCIe link's usable rate, what pinned copies reach."""
SPREAD = 0.02
"""Of log compute time, between steps and ranks (measured)."""
WORKER_SPREAD = 1.04
PREFETCH = 4.0
SNAPSHOT_S = 1.5
"""An asynchronous checkpoint holds the job up for as long as the copy to host memory takes."""


class Phase(IntEnum):
    """What a job does."""

    START = 0
    """Imports, weights, compilation: contexts, hardly any kernels."""
    LOAD = 1
    """No kernel: the host's part of a step, then waiting for a batch."""
    COMPUTE = 2
    COMM = 3
    SAVE = 4
    """A synchronous checkpoint: no kernels, writes."""
    REST = 5
    """An evaluation on the CPU, a pause of a person, a gap by design: no kernels, no I/O to speak of."""
    HUNG = 6
    """A collective that never ends: kernels, no bytes."""
    IDLE = 7
    """Processes with contexts, and nothing runs."""
    NONE = 8
    """No processes."""


@dataclass(slots=True, eq=False)
class Program:
    """What each job does when nothing hinders it, [job] each, seconds and bytes of a step, activities in the compute phase."""

    compute: Array
    host: Array
    """Without a kernel in each step, by the program itself."""
    comm: Array
    """Least exposed communication."""
    nvlink: Array
    """Bytes a GPU sends in a step."""
    fabric: Array
    """Bytes a rail sends in a step."""
    pcie: Array
    """Bytes a GPU receives over PCIe in a step, while it computes; what takes longer than computing holds the step up."""
    overlap: Array
    """Share of the exchanged bytes that is hidden behind compute."""
    batch: Array
    """Seconds to make a batch."""
    clock_share: Array
    """Share of compute that goes with the SM clock; the rest waits for memory."""
    sm: Array
    tensor: Array
    dram: Array
    save_every: Array
    """Seconds; inf: never."""
    save_for: Array
    save_async: Array
    """Seconds in which a checkpoint is written in the background; 0: the job waits for it."""
    alone: Array
    """1: in saves and rests rank 0 works and all others wait for it in a barrier."""
    rest_every: Array
    rest_for: Array
    starts_for: Array
    """Seconds until the first step."""
    ends_at: Array
    """Seconds after which nothing runs any more; inf."""


DEFAULTS = {
    "compute": 1.0, "host": 0.02, "comm": 0.05, "nvlink": 0.0, "fabric": 0.0, "pcie": 1e8, "overlap": 0.8, "batch": 0.3,
    "clock_share": 0.8, "sm": 0.0, "tensor": 0.0, "dram": 0.0, "save_every": np.inf, "save_for": 20.0, "save_async": 0.0,
    "alone": 0.0, "rest_every": np.inf, "rest_for": 0.0, "starts_for": -1.0, "ends_at": np.inf,
}  # fmt: skip


@dataclass(slots=True, eq=False)
class Conditions:
    """What hinders whom; changed by causes while the world runs."""

    loader: Array
    """[job] factor of the time to make a batch"""
    host: Array
    """[job] seconds of the host in every step, besides the program's own"""
    traffic: Array
    """[job] factor of the bytes of a step"""
    copies: Array
    """[job] factor of the bytes copied over PCIe in a step"""
    saves: Array
    """[job] factor of the time of a checkpoint"""
    launch: Array
    """[gpu] factor by which its host is late with launches: its kernels stand further apart"""
    nvlink: Array
    """[gpu] share of the link rate that is left"""
    rail: Array
    """[gpu] the same of its InfiniBand port"""
    pcie: Array
    """[gpu]"""
    late: Bools
    """[gpu] its process is there and does not come to the collective"""
    absent: Bools
    """[gpu] its process is gone: collectives wait for ever"""
    dead: Bools
    """[gpu] off the bus"""


JOB_CONDITIONS = frozenset({"loader", "host", "traffic", "copies", "saves"})
"""Those of :class:`Conditions` that belong to a job, not to a GPU."""


def conditions(jobs: int, gpus: int) -> Conditions:
    """Nothing hinders anybody."""

    def ones(count: int) -> Array:
        return np.ones(count)

    def none() -> Bools:
        return np.zeros(gpus, dtype=np.bool_)

    return Conditions(
        ones(jobs), np.zeros(jobs), ones(jobs), ones(jobs), ones(jobs), ones(gpus), ones(gpus), ones(gpus), ones(gpus),
        none(), none(), none(),
    )  # fmt: skip


@dataclass(slots=True, eq=False)
class Activity:
    """What the boards do during a step, [gpu] each."""

    kernel: Array
    """Share of the time with a kernel resident."""
    spins: Bools
    context: Bools
    sm: Array
    tensor: Array
    dram: Array
    nvlink: Array
    """Bytes/s sent."""
    rail: Array
    talks: Bools
    """Whether its rail has something to send."""
    pcie_rx: Array
    pcie_tx: Array


@dataclass(slots=True, eq=False)
class Crew:
    """All jobs of a world in motion."""

    program: Program
    job_of: Ints
    """[gpu] -1: free"""
    role: Array
    """[gpu] factor of compute by what its rank has to do (pipeline stage)"""
    role_sm: Array
    """[gpu] factor of its activities"""
    nvlink_rate: Array
    """[gpu] bytes/s one way"""
    rail_rate: Array
    pcie_rate: Array
    uses_rail: Bools
    draw: np.random.Generator
    phase: Ints = field(init=False)
    left: Array = field(init=False)
    queue: Array = field(init=False)
    """[job] batches that are ready"""
    work: Array = field(init=False)
    """[gpu] seconds of compute that are left in this step"""
    copy: Array = field(init=False)
    """[gpu] bytes that are still to be copied to the board in this step"""
    steps: Array = field(init=False)
    since_save: Array = field(init=False)
    since_rest: Array = field(init=False)
    background: Array = field(init=False)
    """[job] seconds of writing in the background that are left"""
    loading: Bools = field(init=False)
    """[job] whether the loader works now (its queue is not full)."""
    starved: Bools = field(init=False)
    """[job] whether it waits for a batch"""
    _held: Bools = field(init=False)
    _job: Ints = field(init=False)
    _spread: Array = field(init=False)
    _first: Bools = field(init=False)
    """[gpu] whether it is its job's rank 0"""

    def __post_init__(self) -> None:
        jobs, gpus = len(self.program.compute), len(self.job_of)
        every = self.program.save_every
        self.phase = np.full(jobs, Phase.START)
        self.left = self.program.starts_for.copy()
        self.queue = np.full(jobs, PREFETCH)
        self.work, self.copy = np.zeros(gpus), np.zeros(gpus)
        self.steps = np.zeros(jobs)
        self.since_save = self.draw.uniform(0, 0.5, jobs) * np.where(np.isinf(every), 0, every)
        self.since_rest = np.zeros(jobs)
        self.background = np.zeros(jobs)
        self.loading = np.zeros(jobs, dtype=np.bool_)
        self.starved = np.zeros(jobs, dtype=np.bool_)
        self._held = self.job_of >= 0
        self._job = np.maximum(self.job_of, 0)
        self._spread = np.exp(np.log(WORKER_SPREAD) * self.draw.uniform(-1, 1, gpus))
        first = np.zeros(gpus, dtype=np.bool_)
        first[np.unique(self.job_of, return_index=True)[1]] = True
        self._first = first & self._held

    def advance(
        self, time: float, seconds: float, c: Conditions, clock_ratio: Array, spin_sm: Array
    ) -> Activity:
        """One step of ``seconds``; what the boards do in it."""
        self._load(seconds, c)
        phase, before, copying = self.phase.copy(), self.work.copy(), self.copy > 0
        timed = np.isin(phase, (Phase.START, Phase.LOAD, Phase.COMM, Phase.SAVE, Phase.REST))
        self.left = np.where(timed, self.left - seconds, self.left)
        computing = self._held & (phase[self._job] == Phase.COMPUTE)
        copied = self._compute(seconds, c, clock_ratio, computing)
        self._move_on(time, seconds, c, timed)
        return self._activity(phase, before > 0, copying, computing, copied, c, spin_sm)

    def _load(self, seconds: float, c: Conditions) -> None:
        """The loader fills its queue beside everything else."""
        trains = np.isin(self.phase, (Phase.LOAD, Phase.COMPUTE, Phase.COMM))
        make = np.maximum(self.program.batch * c.loader, 1e-3)
        self.loading = trains & (self.queue < PREFETCH)
        self.starved = (self.phase == Phase.LOAD) & (self.left <= 0) & (self.queue < 1)
        self.queue = np.minimum(self.queue + np.where(self.loading, seconds / make, 0.0), PREFETCH)
        self.since_save += np.where(trains, seconds, 0.0)
        self.since_rest += np.where(trains, seconds, 0.0)
        self.background = np.maximum(self.background - seconds, 0.0)

    def _compute(self, seconds: float, c: Conditions, clock_ratio: Array, computing: Bools) -> Array:
        """[gpu] bytes/s that are copied to boards meanwhile."""
        share = self.program.clock_share[self._job]
        slower = (share / np.maximum(clock_ratio, 0.05) + 1 - share) * c.launch
        goes = computing & ~self._stands(c)
        self.work = np.where(goes, self.work - seconds / slower, self.work)
        before = self.copy
        self.copy = np.where(goes, np.maximum(before - self._copy_rate(c) * seconds, 0.0), before)
        copied: Array = (before - self.copy) / seconds
        return copied

    def _copy_rate(self, c: Conditions) -> Array:
        return COPY * self.pcie_rate * c.pcie

    def _stands(self, c: Conditions) -> Bools:
        return c.absent | c.dead | c.late

    def _move_on(self, time: float, seconds: float, c: Conditions, timed: Bools) -> None:
        """Transitions, carrying over what a step went beyond its phase."""
        p, jobs, phase = self.program, len(self.phase), self.phase.copy()
        stands = np.zeros(jobs, dtype=np.bool_)
        np.logical_or.at(stands, self._job[self._held & self._stands(c)], True)
        worst = np.full(jobs, -np.inf)
        rest = np.where(self.copy > 0, np.maximum(self.work, 1e-6), self.work)
        np.maximum.at(worst, self._job[self._held], rest[self._held])
        done = (phase == Phase.COMPUTE) & (worst <= 0) & ~stands
        over = timed & (self.left <= 0)
        self._enter(done, Phase.COMM, np.maximum(worst, -seconds) + self._comm_seconds(c))
        stepped = over & (phase == Phase.COMM)
        self.steps += stepped
        saves = stepped & (self.since_save >= p.save_every)
        rests = stepped & ~saves & (self.since_rest >= p.rest_every)
        pause = np.where(p.save_async > 0, SNAPSHOT_S, p.save_for * c.saves)
        self._enter(saves, Phase.SAVE, self.left + pause * self.draw.lognormal(0, 0.15, jobs))
        self.background = np.where(saves, p.save_async, self.background)
        self.since_save[saves] = 0.0
        self._enter(rests, Phase.REST, self.left + p.rest_for * self.draw.lognormal(0, 0.1, jobs))
        self.since_rest[rests] = 0.0
        paused = np.isin(phase, (Phase.START, Phase.SAVE, Phase.REST))
        begin = (stepped & ~saves & ~rests) | (over & paused)
        self._enter(begin, Phase.LOAD, np.minimum(self.left, 0.0) + p.host + c.host)
        ends = time >= p.ends_at
        ready = (self.phase == Phase.LOAD) & (self.left <= 0) & (self.queue >= 1) & ~ends
        if ready.any():
            self._begin(ready, seconds, c)
        self.phase[ends & np.isin(self.phase, (Phase.LOAD, Phase.REST))] = Phase.NONE

    def _begin(self, ready: Bools, seconds: float, c: Conditions) -> None:
        """A step's compute, with a batch of the queue."""
        self.queue[ready] -= 1
        self.phase[ready] = Phase.COMPUTE
        mine = self._held & ready[self._job]
        job = self._job[mine]
        jitter = self.draw.lognormal(0, SPREAD, int(mine.sum()))
        late = np.maximum(self.left[job], -seconds)
        self.work[mine] = self.program.compute[job] * self.role[mine] * self._spread[mine] * jitter + late
        self.copy[mine] = self.program.pcie[job] * c.copies[job]

    def _enter(self, which: Bools, phase: Phase, left: Array) -> None:
        self.phase[which] = phase
        self.left[which] = left[which]

    def _comm_seconds(self, c: Conditions) -> Array:
        """[job] exposed communication: the least, or what the narrowest link of any rank takes."""
        p, j = self.program, self._job
        exposed = (1 - p.overlap)[j] * c.traffic[j]
        hidden = p.overlap[j] * c.traffic[j]
        seconds = np.zeros(len(self.phase))
        for size, rate, left, used in (
            (p.nvlink, self.nvlink_rate, c.nvlink, self._held),
            (p.fabric, self.rail_rate, c.rail, self._held & self.uses_rail),
        ):
            room = np.maximum(ACHIEVABLE * rate * left, 1.0)
            needed = size[j] * exposed / room + np.maximum(size[j] * hidden / room - p.compute[j], 0.0)
            np.maximum.at(seconds, j[used], needed[used])
        return np.maximum(seconds, p.comm)

    def _activity(
        self, phase: Ints, has_work: Bools, copying: Bools, computing: Bools, copied: Array, c: Conditions, spin_sm: Array
    ) -> Activity:  # fmt: skip
        p, j = self.program, self._job
        count = len(j)
        alive = self._held & ~c.dead & ~c.absent & (phase[j] != Phase.NONE)
        here = alive & ~c.late
        works = computing & has_work & here
        comm = here & (phase[j] == Phase.COMM)
        starting = here & (phase[j] == Phase.START)
        waits = computing & ~has_work & ~copying & here
        barrier = here & np.isin(phase[j], (Phase.SAVE, Phase.REST)) & (p.alone[j] > 0) & ~self._first
        spins = waits | barrier | (here & (phase[j] == Phase.HUNG))
        lively = self.draw.normal(1.0, 0.03, count).clip(0.85, 1.1) * self.role_sm / c.launch
        sm = np.where(works, p.sm[j] * lively, 0.0)
        tensor = np.where(works, p.tensor[j] * lively, 0.0)
        dram = np.where(works, p.dram[j] * lively, 0.0)
        sm = np.where(spins, spin_sm, np.where(comm, np.minimum(spin_sm + 0.06, 1.0), sm))
        dram = np.where(spins, 0.01, np.where(comm, 0.12, dram))
        warm = starting & (self.draw.random(count) < 0.06)
        sm, dram = np.where(warm, 0.05, sm), np.where(warm, 0.05, dram)
        nvlink, rail, talks = self._traffic(works, comm, c)
        snapshot = here & (phase[j] == Phase.SAVE) & (p.save_async[j] > 0)
        pcie_rx = copied + np.where(starting, 2e8, 0.0)
        pcie_tx = np.where(snapshot, 0.6 * self._copy_rate(c), 0.3 * pcie_rx)
        return Activity(
            kernel=np.where(works, 1 / c.launch, np.where(spins | comm | warm, 1.0, 0.0)),
            spins=spins,
            context=alive,
            sm=np.minimum(sm, 1.0),
            tensor=np.minimum(tensor, 1.0),
            dram=np.minimum(dram, 1.0),
            nvlink=nvlink,
            rail=rail,
            talks=talks,
            pcie_rx=pcie_rx + rail + np.where(alive, 2e6, 0.0),  # network cards read the boards over PCIe
            pcie_tx=pcie_tx + rail + np.where(alive, 1e6, 0.0),
        )

    def _traffic(self, works: Bools, comm: Bools, c: Conditions) -> tuple[Array, Array, Bools]:
        """(NVLink bytes/s, rail bytes/s, whether the rail has something to send): hidden behind compute, and exposed."""
        p, j = self.program, self._job
        step = np.maximum(p.compute[j], 0.1)
        hidden, exposed = p.overlap[j] * c.traffic[j], (1 - p.overlap[j]) * c.traffic[j]
        long = np.maximum(self._comm_seconds(c)[j], 0.05)
        nvlink = np.where(
            works, p.nvlink[j] * hidden / step, np.where(comm, p.nvlink[j] * exposed / long, 0.0)
        )
        rail = np.where(works, p.fabric[j] * hidden / step, np.where(comm, p.fabric[j] * exposed / long, 0.0))
        nvlink = np.minimum(nvlink, ACHIEVABLE * self.nvlink_rate * c.nvlink)
        rail = np.where(self.uses_rail, np.minimum(rail, ACHIEVABLE * self.rail_rate * c.rail), 0.0)
        return nvlink, rail, (works | comm) & (rail > 0)
