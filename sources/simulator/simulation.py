"""The boards at work: from jobs and faults to activity, power, clocks, heat and traffic, interval by interval.

Almost everything is a function of (seed, time). What has a memory (two thermal poles, the request queues) is
advanced from an earlier instant and forgets its start within minutes, so any stretch of time can be computed
on its own and joins the next without a seam.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from coldaisle.sources.simulator import physics, serving
from coldaisle.sources.simulator.effects import Effects, effects
from coldaisle.sources.simulator.faults import Schedule
from coldaisle.sources.simulator.plan import Array, Bools, Ints, Plan
from coldaisle.sources.simulator.workloads import Assignment, Replica, Work, Workload, assign

GAUGE_S = 1.0
"""Power and utilisation are means over the last second (H100)."""
_HEAT_STEP_S = 10.0
_TAU_MEM = 22.0
_STARTUP_S = 75.0
"""From the start of a job to its first step: imports, sharded weights, compilation."""
_CONTEXT_S = 20.0
"""From the start of a job until its processes hold a CUDA context."""
_TRAFFIC_CAP = 0.82
"""Achievable share of a link's rate."""
WARM_UP_S = 300.0

IDLE, POWER_CAP, HW_SLOWDOWN, SW_THERMAL, HW_THERMAL = 0x1, 0x4, 0x8, 0x20, 0x40


@dataclass(frozen=True, slots=True, eq=False)
class Shares:
    """How a stretch of time divides, [gpu], summing to 1."""

    compute: Array
    spin: Array
    """Inside a collective: waiting for a peer, or moving bytes that nothing hides."""
    gap: Array
    """Without a kernel."""


@dataclass(frozen=True, slots=True, eq=False)
class Pace:
    """A step of each job as it goes now, [job + 1] unless said otherwise."""

    seconds: Array
    speed: Array
    """Healthy step time over step time."""
    gap: Array
    comm: Array
    """Shares of the step."""
    busy: Array
    """[gpu] share of the compute phase that this rank computes; the rest it waits for the slowest."""
    cycle: Array
    """Seconds between two gaps: a prefetch queue gathers them."""
    pause: Array
    """Share of time in checkpoints."""


@dataclass(frozen=True, slots=True, eq=False)
class Boards:
    """The GPUs at an instant (gauges) and over the interval before it (rates), [gpu], canonical units."""

    util: Array
    sm: Array
    tensor: Array
    dram: Array
    fp32: Array
    power: Array
    power_instant: Array
    energy: Array
    limit: Array
    temp: Array
    mem_temp: Array
    clock: Array
    throttle: Array
    power_violation: Array
    sw_thermal: Array
    hw_thermal: Array
    nvlink: Array
    fabric: Array
    pcie_rx: Array
    pcie_tx: Array
    memory: Array
    """Share of what can be used."""
    context: Bools


@dataclass(frozen=True, slots=True, eq=False)
class Instant:
    """All that the metrics are made of."""

    time: float
    seconds: float
    """The interval that ends now."""
    assignment: Assignment
    effects: Effects
    pace: Pace
    shares: Shares
    """Over the interval."""
    pausing: Array
    """[job + 1] share of the interval in a checkpoint."""
    starting: Bools
    """[job + 1]"""
    boards: Boards
    served: serving.Served
    inlet: Array
    """[rack] Celsius."""
    draw: np.random.Generator
    """This instant's noise, for what is still to be made of it."""
    noise: float


class Simulation:
    """A cluster in motion. ``noise`` scales the measurement noise; 0 gives the bare physics."""

    def __init__(self, plan: Plan, workload: Workload, schedule: Schedule, noise: float = 1.0) -> None:
        self.plan = plan
        self.workload = workload
        self.schedule = schedule
        self.noise = noise
        self.fleet = serving.build_fleet(plan, workload.replicas)
        self.replica_of = _owner(plan.gpus, workload.replicas)
        self._slow = np.zeros(plan.gpus)
        self._mem = np.zeros(plan.gpus)
        self._queues = serving.start(self.fleet)
        self._assignment: Assignment | None = None

    def warm_up(self, time: float) -> None:
        """Forgets the cold start: ends just before ``time``, in a state that does not depend on when we began."""
        for _ in self.settle(time):
            pass

    def settle(self, time: float) -> Iterator[None]:
        """As :meth:`warm_up`, a step at a time."""
        at = np.floor((time - WARM_UP_S) / _HEAT_STEP_S) * _HEAT_STEP_S
        for _ in range(4):
            power = self.advance(at, _HEAT_STEP_S).boards.energy
            self._slow, self._mem = self.plan.r_slow * power, self.plan.r_mem * power
            yield
        while at + _HEAT_STEP_S < time:
            at += _HEAT_STEP_S
            self.advance(at, _HEAT_STEP_S)
            yield

    def assignment(self, time: float) -> Assignment:
        """The jobs of ``time``; the same object until one starts or ends."""
        held = self._assignment
        if held is None or not held.since <= time < held.until:
            held = self._assignment = assign(self.plan, self.workload, time)
        return held

    def advance(self, time: float, seconds: float) -> Instant:
        """Moves on by ``seconds`` to ``time``."""
        jobs = self.assignment(time)
        episodes = self.schedule.between(time - 300.0, time + 0.001)
        wrong = effects(self.plan, jobs, episodes, len(self.workload.replicas), time)
        draw = self._draw(1, int(time * 1000))
        clump = self._draw(2, int(time // serving.CLUMP_S)).standard_normal(len(self.fleet.gpus))
        self._queues.drop(wrong.down)
        served = serving.serve(self.fleet, self._queues, time, seconds, wrong.arrivals, clump)
        wobble = 0.4 * np.sin(2 * np.pi * (time / 613 + np.arange(len(self.plan.racks)) * 0.37))
        inlet = self.plan.inlet + wobble + wrong.inlet
        phase = self._compute_phase(jobs, served, time, seconds)
        wanted, clock, heat_bound = self._govern(phase, jobs, wrong, inlet)
        pace = _pace(self.plan, jobs, wrong, clock / self.plan.columns["clock"], draw, self.noise)
        starting = (time - jobs.starts < _STARTUP_S) & (jobs.work != Work.SERVE)
        over = self._shares(jobs, wrong, pace, served, starting, time, seconds)
        now = self._shares(jobs, wrong, pace, served, starting, time, min(GAUGE_S, seconds))
        state = _Governed(wanted, clock, heat_bound)
        boards = self._boards(jobs, wrong, pace, phase, state, now, over, inlet, time, seconds, draw)
        pausing = physics.on_share(pace.pause, _checkpoint_cycle(jobs), jobs.phase, time, seconds)
        return Instant(
            time, seconds, jobs, wrong, pace, over, pausing, starting, boards, served, inlet, draw, self.noise
        )

    def _draw(self, stream: int, counter: int) -> np.random.Generator:
        """Random numbers that belong to an instant, whoever asks and whenever."""
        key = [(self.plan.seed * 4 + stream) % 2**64, counter % 2**63]
        return np.random.Generator(np.random.Philox(key=key))

    def _compute_phase(self, jobs: Assignment, served: serving.Served, time: float, seconds: float) -> _Phase:
        """Activities while a kernel computes, [gpu]: the job's, or the replica's mix of prefill and decode."""
        of, cols = jobs.job_of, jobs.columns
        drift = (
            1 + 0.02 * np.sin(2 * np.pi * (time / 173 + self.plan.phase)) + 0.015 * (2 * self.plan.phase - 1)
        )
        sm = np.minimum(cols["sm"][of] * drift, 0.99)
        tensor, dram, fp32 = sm * cols["tensor"][of], cols["dram"][of] * drift, cols["fp32"][of]
        nvlink = np.where(jobs.count[of] > 1, cols["nvlink"][of], 0.0)
        on = self.replica_of >= 0
        if on.any():
            replica = self.replica_of[on]
            prefill = served.prefill_share[replica]
            batch = 1 - np.exp(-served.running[replica] / 48)
            sm[on] = prefill * 0.86 + (1 - prefill) * (0.22 + 0.36 * batch) * drift[on]
            tensor[on] = prefill * 0.42 + (1 - prefill) * 0.09 * batch
            dram[on] = prefill * 0.35 + (1 - prefill) * served.decode_read[replica]
            fp32[on] = 0.06
            nvlink[on] = np.where(
                self.fleet.gpus[replica] > 1, 3e9 + 2.2e6 * served.prompt_rate[replica], 0.0
            )
        scaled = nvlink * self.plan.columns["nvlink"] / 450e9
        return _Phase(
            sm, tensor, np.minimum(dram, 0.95), fp32, np.minimum(scaled, 0.8 * self.plan.columns["nvlink"])
        )

    def _govern(
        self, phase: _Phase, jobs: Assignment, wrong: Effects, inlet: Array
    ) -> tuple[Array, Array, Array]:
        """(watts wanted at full clock, clock, 1 where heat rather than the limit binds)."""
        plan, board = self.plan, self.plan.columns
        relative = phase.nvlink * 450e9 / board["nvlink"]
        wanted = physics.demand(
            board["power"], board["context"], plan.gain, phase.sm, phase.tensor, phase.dram, relative
        )
        t_in = inlet[plan.rack_of][plan.node_of]
        core = physics.thermal_budget(board["slowdown"] - 1, t_in, self._slow, plan.r_fast)
        memory = physics.thermal_budget(board["mem_max"] - 1, t_in + self._mem, self._slow, plan.r_fast)
        heat = np.minimum(core, memory)
        limit = board["power"] * wrong.cap
        clock = physics.governed_clock(
            board["clock"], board["clock_idle"], board["context"], wanted, np.minimum(limit, heat)
        )
        return wanted, clock, (heat < np.minimum(limit, wanted)).astype(np.float64)

    def _shares(
        self, jobs: Assignment, wrong: Effects, pace: Pace, served: serving.Served, starting: Bools,
        time: float, window: float,
    ) -> Shares:  # fmt: skip
        """How the last ``window`` seconds divide; all ranks of a job in step."""
        of = jobs.job_of
        gap = physics.on_share(pace.gap, pace.cycle, jobs.phase, time, window)
        pause = physics.on_share(pace.pause, _checkpoint_cycle(jobs), jobs.phase, time, window)
        gap = 1 - (1 - gap) * (1 - pause)
        gap[starting | wrong.stopped | (jobs.work == Work.IDLE)] = 1.0
        played = physics.on_share(np.full(len(gap), 0.2), np.full(len(gap), 140.0), jobs.phase, time, window)
        gap = np.where(jobs.work == Work.NOTEBOOK, 1 - 0.7 * played, gap)
        comm = physics.on_share(pace.comm, pace.seconds, jobs.phase + 0.37, time, window)
        gap[wrong.hung], comm[wrong.hung] = 0.0, 1.0
        idle = gap[of]
        on = self.replica_of >= 0
        idle[on] = 1 - physics.unit(2 * served.running[self.replica_of[on]])
        compute = (1 - idle) * (1 - comm[of]) * pace.busy
        return Shares(compute, np.maximum(1 - idle - compute, 0.0), idle)

    def _boards(
        self, jobs: Assignment, wrong: Effects, pace: Pace, phase: _Phase, state: _Governed, now: Shares, over: Shares,
        inlet: Array, time: float, seconds: float, draw: np.random.Generator,
    ) -> Boards:  # fmt: skip
        plan, board, of = self.plan, self.plan.columns, jobs.job_of
        normal = draw.standard_normal((4, plan.gpus)) * self.noise
        uniform = draw.random((2, plan.gpus))
        context = (of < len(jobs.jobs)) & (time - jobs.starts[of] > _CONTEXT_S)
        ratio = state.clock / board["clock"]
        working = physics.power_at(ratio, board["context"], state.wanted)
        resting = np.where(context, board["context"], board["idle"]) + 3 * (plan.phase - 0.5)
        waiting = board["context"] + plan.spin_power
        energy = over.compute * working + over.spin * waiting + over.gap * resting
        power = now.compute * working + now.spin * waiting + now.gap * resting
        self._heat(energy, inlet, wrong, seconds)
        core = inlet[plan.rack_of][plan.node_of] + plan.r_fast * power + self._slow
        held = state.wanted > board["power"] * wrong.cap
        hot = state.heat_bound > 0
        emergency = hot & (ratio < 0.5)
        flowing = _flowing(jobs, wrong, pace, over)
        fabric = jobs.multi[of] * jobs.columns["fabric"][of] * flowing * board["port"] / 50e9
        return Boards(
            util=physics.unit(1 - now.gap),
            sm=physics.unit((over.compute * phase.sm + over.spin * plan.spin_sm) * (1 + 0.006 * normal[0])),
            tensor=physics.unit(over.compute * phase.tensor * (1 + 0.008 * normal[1])),
            dram=physics.unit((over.compute * phase.dram + 0.01 * over.spin) * (1 + 0.008 * normal[2])),
            fp32=physics.unit(over.compute * phase.fp32),
            power=np.maximum(power + (1.0 + 0.006 * power) * normal[3], 20.0),
            power_instant=np.maximum(
                np.where(uniform[0] < now.compute, working, power) + 3 * normal[2], 20.0
            ),
            energy=energy,
            limit=board["power"] * wrong.cap,
            temp=np.round(core + 0.2 * normal[0]),
            mem_temp=np.round(core + self._mem + 0.2 * normal[1]),
            clock=_reported_clock(plan, state.clock, now, context, uniform),
            throttle=_bits(now, held & ~hot, hot, emergency, uniform[1], self.noise),
            power_violation=np.where(held & ~hot, over.compute, 0.0),
            sw_thermal=np.where(hot & ~emergency, over.compute, 0.0),
            hw_thermal=np.where(emergency, over.compute, 0.0),
            nvlink=phase.nvlink * flowing,
            fabric=np.minimum(fabric, _TRAFFIC_CAP * board["port"] * wrong.link),
            pcie_rx=jobs.columns["pcie"][of] * flowing + 2e6,
            pcie_tx=0.35 * jobs.columns["pcie"][of] * flowing + 1e6,
            memory=self._memory(jobs, time),
            context=context,
        )

    def _heat(self, power: Array, inlet: Array, wrong: Effects, seconds: float) -> None:
        """Advances the slow pole and the HBM above the core."""
        steps = max(1, int(np.ceil(seconds / _HEAT_STEP_S)))
        for _ in range(steps):
            target = self.plan.r_slow * wrong.cooling * power
            self._slow = physics.settle(self._slow, target, self.plan.tau, seconds / steps)
            self._mem = physics.settle(self._mem, self.plan.r_mem * power, _TAU_MEM, seconds / steps)

    def _memory(self, jobs: Assignment, time: float) -> Array:
        """Share of usable memory in use: it fills while a job starts."""
        of = jobs.job_of
        filled = physics.unit((time - jobs.starts[of] - _CONTEXT_S) / (_STARTUP_S - _CONTEXT_S))
        memory = jobs.columns["memory"][of] * (0.98 + 0.02 * self.plan.phase) * filled
        on = self.replica_of >= 0
        memory[on] = self.fleet.memory[self.replica_of[on]]
        return memory


@dataclass(frozen=True, slots=True, eq=False)
class _Phase:
    """Activities while a kernel computes, [gpu]."""

    sm: Array
    tensor: Array
    dram: Array
    fp32: Array
    nvlink: Array


@dataclass(frozen=True, slots=True, eq=False)
class _Governed:
    """What the governor made of it, [gpu]."""

    wanted: Array
    clock: Array
    heat_bound: Array


def _owner(gpus: int, replicas: tuple[Replica, ...]) -> Ints:
    owner = np.full(gpus, -1, dtype=np.intp)
    for i, replica in enumerate(replicas):
        owner[replica.gpus] = i
    return owner


def _flowing(jobs: Assignment, wrong: Effects, pace: Pace, over: Shares) -> Array:
    """[gpu] bytes of the interval, of a healthy interval's: each step moves the same, whatever it takes."""
    rate = np.where(wrong.hung, 0.0, pace.speed / np.maximum(1 - pace.gap, 0.02))
    return rate[jobs.job_of] * (over.compute + over.spin)


def _checkpoint_cycle(jobs: Assignment) -> Array:
    return np.maximum(jobs.columns["checkpoint"], 60.0)


def _pace(
    plan: Plan, jobs: Assignment, wrong: Effects, ratio: Array, draw: np.random.Generator, noise: float
) -> Pace:
    """The step as its slowest rank sets it: t = max over ranks (compute) + exposed communication + waiting for batches."""
    of, cols = jobs.job_of, jobs.columns
    step, healthy = cols["step"], 1 - cols["comm"] - cols["host"]
    slower = physics.stretch(cols["clock"][of], ratio) * np.exp(
        0.02 * noise * draw.standard_normal(plan.gpus)
    )
    slowest = np.zeros(len(step))
    np.maximum.at(slowest, of, slower)
    compute = step * healthy * slowest
    left = np.ones(len(step))
    np.minimum.at(left, of, np.where(jobs.multi[of] > 0, wrong.link, 1.0))
    comm = step * cols["comm"] / left
    ready = compute + comm + step * cols["host"]
    seconds = np.maximum(np.maximum(ready, step * wrong.batch), 1e-3)
    starving = wrong.batch * step > ready
    gathered = np.where(starving, np.ceil(9.0 / seconds), 1.0)
    return Pace(
        seconds=seconds,
        speed=step / seconds,
        gap=(seconds - compute - comm) / seconds,
        comm=np.divide(comm, compute + comm, out=np.zeros_like(comm), where=compute + comm > 0),
        busy=np.divide(slower, slowest[of], out=np.ones_like(slower), where=slowest[of] > 0),
        cycle=seconds * gathered,
        pause=np.divide(cols["pause"], _checkpoint_cycle(jobs)),
    )


def _reported_clock(plan: Plan, governed: Array, now: Shares, context: Bools, uniform: Array) -> Array:
    """An instant's clock: the governed one inside a compute phase, else the highest; without a context the idle one."""
    board = plan.columns
    held = governed < board["clock"]
    jitter = np.where(held & (uniform[1] > 0.7), physics.CLOCK_BIN, 0.0)
    inside = np.where(uniform[0] < now.compute, np.minimum(governed + jitter, board["clock"]), board["clock"])
    return np.where(context, inside, board["clock_idle"])


def _bits(now: Shares, power: Bools, hot: Bools, emergency: Bools, uniform: Array, noise: float) -> Array:
    """Clock-event reasons of the instant. The power-cap bit also flickers at load transients, far below the limit."""
    computing = now.compute > 0.3
    flicker = (uniform < 0.03 * noise) & (now.compute > 0.02) & (now.gap > 0.02)
    bits = np.where(now.gap >= 0.999, IDLE, 0)
    bits = bits | np.where((power & computing) | flicker, POWER_CAP, 0)
    bits = bits | np.where(hot & computing, SW_THERMAL, 0)
    bits = bits | np.where(emergency & computing, HW_SLOWDOWN | HW_THERMAL, 0)
    return bits.astype(np.float64)
