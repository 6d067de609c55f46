"""Jobs at work: batches are made, computed, exchanged, saved; a step is as long as its slowest rank makes it.

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
SPREAD = 0.02
"""Of log compute time, between steps and ranks (measured)."""
WORKER_SPREAD = 1.04
PREFETCH = 4.0


class Phase(IntEnum):
    """What a job does."""

    START = 0
    """Imports, weights, compilation: contexts, hardly any kernels."""
    LOAD = 1
    COMPUTE = 2
    COMM = 3
    SAVE = 4
    """A synchronous checkpoint: no kernels, writes."""
    REST = 5
    """An evaluation on the CPU, a pause of a person, a gap by design: no kernels, no I/O to speak of."""
    HUNG = 6
    IDLE = 7
    """Contexts or not, and nothing runs."""
    STEADY = 8
    """Not a training loop: activities are told by a server or a steady kernel."""


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
    """Bytes a GPU receives over PCIe in a step."""
    overlap: Array
    """Share of the bytes that is hidden behind compute."""
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
    rest_every: Array
    rest_for: Array
    starts_for: Array
    """Seconds until the first step."""
    ends_at: Array
    """Seconds after which nothing runs any more; inf."""


@dataclass(slots=True, eq=False)
class Conditions:
    """What hinders whom; changed by causes while the world runs."""

    loader: Array
    """[job] factor of the time to make a batch"""
    host: Array
    """[job] seconds of the host in every step, besides the program's own"""
    traffic: Array
    """[job] factor of the bytes of a step"""
    saves: Array
    """[job] factor of the time of a checkpoint"""
    slow: Array
    """[gpu] factor of compute time that is no matter of clocks: a CPU neighbour, PCIe, an unlucky share of experts"""
    nvlink: Array
    """[gpu] share of the link rate that is left"""
    rail: Array
    """[gpu] the same of its InfiniBand port"""
    pcie: Array
    """[gpu]"""
    absent: Bools
    """[gpu] its process is gone, or it fell off the bus: collectives wait for ever"""
    dead: Bools
    """[gpu] off the bus"""


def conditions(jobs: int, gpus: int) -> Conditions:
    """Nothing hinders anybody."""
    one_j, one_g = np.ones(jobs), np.ones(gpus)
    none = np.zeros(gpus, dtype=np.bool_)
    return Conditions(
        one_j.copy(), np.zeros(jobs), one_j.copy(), one_j.copy(), one_g.copy(), one_g.copy(), one_g.copy(), one_g.copy(),
        none.copy(), none.copy(),
    )  # fmt: skip


@dataclass(slots=True, eq=False)
class Activity:
    """What the boards do during a step, [gpu] each."""

    kernel: Array
    spins: Bools
    context: Bools
    sm: Array
    tensor: Array
    dram: Array
    nvlink: Array
    """Bytes/s sent."""
    rail: Array
    pcie_rx: Array
    pcie_tx: Array


@dataclass(eq=False)
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
    steps: Array = field(init=False)
    since_save: Array = field(init=False)
    since_rest: Array = field(init=False)
    loading: Bools = field(init=False)
    """[job] whether the loader works now (its queue is not full)."""

    def __post_init__(self) -> None:
        jobs = len(self.program.compute)
        self.phase = np.full(jobs, Phase.START)
        self.left = self.program.starts_for.copy()
        self.queue = np.full(jobs, PREFETCH)
        self.work = np.zeros(len(self.job_of))
        self.steps = np.zeros(jobs)
        self.since_save = self.draw.uniform(0, 0.5, jobs) * np.where(
            np.isinf(self.program.save_every), 0, self.program.save_every
        )
        self.since_rest = np.zeros(jobs)
        self.loading = np.zeros(jobs, dtype=np.bool_)
        self._held = self.job_of >= 0
        self._job = np.maximum(self.job_of, 0)
        self._spread = np.exp(np.log(WORKER_SPREAD) * self.draw.uniform(-1, 1, len(self.job_of)))

    def advance(
        self, time: float, seconds: float, c: Conditions, clock_ratio: Array, b_spin_sm: Array
    ) -> Activity:
        """One step of ``seconds``; what the boards do in it."""
        p, jobs = self.program, len(self.phase)
        make = np.maximum(p.batch * c.loader, 1e-3)
        trains = (self.phase == Phase.LOAD) | (self.phase == Phase.COMPUTE) | (self.phase == Phase.COMM)
        self.loading = trains & (self.queue < PREFETCH)
        self.queue = np.minimum(self.queue + np.where(self.loading, seconds / make, 0.0), PREFETCH)
        self.since_save += np.where(trains, seconds, 0.0)
        self.since_rest += np.where(trains, seconds, 0.0)

        phase = self.phase.copy()
        timed = np.isin(phase, (Phase.START, Phase.LOAD, Phase.COMM, Phase.SAVE, Phase.REST))
        self.left = np.where(timed, self.left - seconds, self.left)
        absent = np.zeros(jobs, dtype=np.bool_)
        np.logical_or.at(absent, self._job[self._held & (c.absent | c.dead)], True)
        # compute
        computing = self._held & (phase[self._job] == Phase.COMPUTE)
        share = p.clock_share[self._job]
        speed = 1 / ((share / np.maximum(clock_ratio, 0.05) + 1 - share) * c.slow)
        before = self.work.copy()
        self.work = np.where(computing & ~c.absent & ~c.dead, self.work - speed * seconds, self.work)
        worst = np.full(jobs, -np.inf)
        np.maximum.at(worst, self._job[self._held], self.work[self._held])
        done = (phase == Phase.COMPUTE) & (worst <= 0) & ~absent
        over = timed & (self.left <= 0)
        # transitions, carrying over what a step went beyond its phase
        self._enter(done, Phase.COMM, worst + self._comm_seconds(c))
        stepped = over & (phase == Phase.COMM)
        self.steps += stepped
        ends = time >= p.ends_at
        saves = stepped & (self.since_save >= p.save_every)
        rests = stepped & ~saves & (self.since_rest >= p.rest_every)
        self._enter(saves, Phase.SAVE, self.left + p.save_for * c.saves * self.draw.lognormal(0, 0.15, jobs))
        self.since_save[saves] = 0.0
        self._enter(rests, Phase.REST, self.left + p.rest_for)
        self.since_rest[rests] = 0.0
        begin = (stepped & ~saves & ~rests) | (over & np.isin(phase, (Phase.START, Phase.SAVE, Phase.REST)))
        self._enter(begin, Phase.LOAD, np.minimum(self.left, 0.0) + p.host + c.host)
        ready = (self.phase == Phase.LOAD) & (self.left <= 0) & (self.queue >= 1) & ~ends
        self.queue[ready] -= 1
        if ready.any():
            self.phase[ready] = Phase.COMPUTE
            mine = self._held & ready[self._job]
            count = int(mine.sum())
            jitter = self.draw.lognormal(0, SPREAD, count)
            late = np.maximum(self.left[self._job[mine]], -seconds)
            self.work[mine] = (
                p.compute[self._job[mine]] * self.role[mine] * self._spread[mine] * jitter + late
            )
        self.phase[ends & np.isin(self.phase, (Phase.LOAD, Phase.REST))] = Phase.IDLE
        return self._activity(phase, before, computing, c, b_spin_sm)

    def _enter(self, which: Bools, phase: Phase, left: Array) -> None:
        self.phase[which] = phase
        self.left[which] = left[which]

    def _comm_seconds(self, c: Conditions) -> Array:
        """[job] exposed communication: the least, or what the narrowest link of any rank takes."""
        p, jobs = self.program, len(self.phase)
        j = self._job
        exposed = (1 - p.overlap)[j] * c.traffic[j]
        hidden = p.overlap[j] * c.traffic[j]
        seconds = np.zeros(jobs)
        for size, rate, left, used in (
            (p.nvlink, self.nvlink_rate, c.nvlink, self._held),
            (p.fabric, self.rail_rate, c.rail, self._held & self.uses_rail),
            (p.pcie * 0.0, self.pcie_rate, c.pcie, self._held),
        ):
            room = np.maximum(ACHIEVABLE * rate * left, 1.0)
            needed = size[j] * exposed / room + np.maximum(size[j] * hidden / room - p.compute[j], 0.0)
            np.maximum.at(seconds, j[used], needed[used])
        return np.maximum(seconds, p.comm)

    def _activity(
        self, phase: Ints, before: Array, computing: Bools, c: Conditions, spin_sm: Array
    ) -> Activity:
        p, j = self.program, self._job
        count = len(j)
        alive = self._held & ~c.dead & ~c.absent
        works = computing & (before > 0) & alive
        waits = computing & (before <= 0) & alive
        comm = alive & (phase[j] == Phase.COMM)
        hung = alive & (phase[j] == Phase.HUNG)
        starting = alive & (phase[j] == Phase.START)
        lively = self.draw.normal(1.0, 0.03, count).clip(0.85, 1.1)
        sm = np.where(works, p.sm[j] * self.role_sm * lively, 0.0)
        tensor = np.where(works, p.tensor[j] * self.role_sm * lively, 0.0)
        dram = np.where(works, p.dram[j] * lively, 0.0)
        spins = waits | hung
        sm = np.where(spins, spin_sm, np.where(comm, np.minimum(spin_sm + 0.06, 1.0), sm))
        dram = np.where(spins, 0.01, np.where(comm, 0.12, dram))
        warm = starting & (self.draw.random(count) < 0.06)
        sm, dram = np.where(warm, 0.05, sm), np.where(warm, 0.05, dram)
        step = np.maximum(p.compute[j], 0.1)
        hidden, exposed = p.overlap[j] * c.traffic[j], (1 - p.overlap[j]) * c.traffic[j]
        comm_s = np.maximum(self._comm_seconds(c)[j], 0.05)
        nvlink = np.where(
            works, p.nvlink[j] * hidden / step, np.where(comm, p.nvlink[j] * exposed / comm_s, 0.0)
        )
        rail = np.where(
            works, p.fabric[j] * hidden / step, np.where(comm, p.fabric[j] * exposed / comm_s, 0.0)
        )
        nvlink = np.minimum(nvlink, ACHIEVABLE * self.nvlink_rate * c.nvlink)
        rail = np.where(self.uses_rail, np.minimum(rail, ACHIEVABLE * self.rail_rate * c.rail), 0.0)
        pcie = np.where(works, p.pcie[j] / step, np.where(starting, 2e8, 0.0))
        return Activity(
            kernel=np.where(works | waits | comm | hung | warm, 1.0, 0.0),
            spins=spins,
            context=alive,
            sm=sm,
            tensor=tensor,
            dram=dram,
            nvlink=nvlink,
            rail=rail,
            pcie_rx=np.minimum(pcie, 0.9 * self.pcie_rate * c.pcie) + np.where(alive, 2e6, 0.0),
            pcie_tx=np.minimum(0.3 * pcie + 0.5 * rail, 0.9 * self.pcie_rate * c.pcie)
            + np.where(alive, 1e6, 0.0),
        )
