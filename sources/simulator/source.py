"""A cluster that does not exist, as a Source: same seed, same instants, same numbers."""

from __future__ import annotations

import asyncio
import math
import time as wall
from collections import Counter
from collections.abc import AsyncGenerator, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from coldaisle.sources.nodesets import fold
from coldaisle.sources.simulator import readings
from coldaisle.sources.simulator.faults import LANES, Episode, Lane, Schedule
from coldaisle.sources.simulator.plan import PARTS, Bools, Ints, Plan, build
from coldaisle.sources.simulator.simulation import Instant, Simulation
from coldaisle.sources.simulator.workloads import (
    SERVICES,
    WORKLOADS,
    Assignment,
    JobRun,
    QueuedJob,
    Replica,
    Work,
    Workload,
)
from coldaisle.sources.source import (
    Batch,
    Clock,
    Codes,
    Demand,
    EntityRef,
    Event,
    Floats,
    GpuFact,
    GpuRef,
    Item,
    JobFact,
    JobRef,
    Kind,
    Missing,
    NodeFact,
    Process,
    ProcessFact,
    QueueFact,
    Rank,
    ServerFact,
    ServerRef,
    ServiceFact,
    Target,
    TargetState,
)

TARGET_EVERY_S = 60.0
QUEUE_EVERY_S = 10.0
"""How often the queue is looked at."""
_WARM_FOR_S = 60.0
"""A stream goes on from where a reading of the past ended, if that is no longer ago than this."""


@dataclass(frozen=True, slots=True, eq=False)
class _Seen:
    """Which entities answer, as tuples that stay the same objects while the answering nodes do."""

    silent: tuple[int, ...]
    entities: dict[Kind, tuple[EntityRef, ...]]
    rows: dict[Kind, Ints | None]
    """Rows that answer; None: all."""


class SimulatorSource:
    """A simulated cluster of ``racks`` x ``nodes_per_rack`` x ``gpus_per_node``.

    ``interval`` is in seconds; ``clock`` gives seconds since the epoch; ``noise`` scales measurement noise;
    ``drops`` is the share of samples that a node fails to give; ``lanes`` are the faults (empty: none).
    """

    kind = "simulator"
    rank = Rank.PROBE

    def __init__(
        self,
        racks: int = 16,
        nodes_per_rack: int = 4,
        gpus_per_node: int = 8,
        *,
        seed: int = 7,
        interval: float = 2.0,
        clock: Clock = wall.time,
        name: str = "simulator",
        noise: float = 1.0,
        drops: float = 0.0,
        lanes: tuple[Lane, ...] = LANES,
    ) -> None:
        self.name = name
        self.interval = interval
        self.seed = seed
        self._clock = clock
        self._noise = noise
        self._drops = drops
        self.plan = build(racks, nodes_per_rack, gpus_per_node, seed)
        self._workload = Workload(self.plan)
        self._schedule = Schedule(self.plan, self._workload, lanes)
        self._warm: tuple[float, _Telling] | None = None
        self._before: _Telling | None = None
        """The reading that led up to now, however far it came: a stream tells which of its jobs have ended."""

    def episodes(self, start: float, end: float) -> tuple[Episode, ...]:
        """The ground truth: every fault that touches [start, end), oldest first."""
        return self._schedule.between(start, end)

    def jobs(self, time: float) -> tuple[JobRun, ...]:
        """The jobs that run at ``time``, with what each of them will do."""
        return self._workload.at(time)

    def simulation(self) -> Simulation:
        """A fresh run of this cluster, for whoever wants the physics rather than the items."""
        return Simulation(self.plan, self._workload, self._schedule, self._noise)

    async def stream(self) -> AsyncGenerator[Item, None]:
        """Facts and one sample of everything at once, then a sample at each multiple of the interval."""
        at, seconds = self._clock(), self.interval
        warm, self._warm = self._warm, None
        past, self._before = self._before, None
        if warm is not None and 0 < at - warm[0] <= _WARM_FOR_S:
            telling, seconds = warm[1], at - warm[0]
        else:
            telling = self._telling()
            telling.jobs = past.jobs if past is not None else None
            for _ in telling.simulation.settle(at):
                await asyncio.sleep(0)
        for fact in telling.facts(at):
            yield fact
        while True:
            for item in telling.tick(at, seconds):
                yield item
            before, at = at, self._next(at)
            seconds = at - before
            await asyncio.sleep(max(at - self._clock(), 0.0))

    def _next(self, at: float) -> float:
        """The next multiple of the interval that leaves at least half of one; no catching up after a pause."""
        due = (math.floor(at / self.interval + 0.5) + 1) * self.interval
        return max(due, math.floor(self._clock() / self.interval) * self.interval)

    async def read(self, start: float, end: float, step: float) -> AsyncGenerator[Item, None]:
        """The past, or any other time: samples at the multiples of ``step`` in [start, end)."""
        telling = self._telling()
        at = float(np.ceil(start / step) * step)
        if at >= end:
            return
        leads_up_to_now = end >= self._clock() - _WARM_FOR_S
        if leads_up_to_now:
            self._before = telling
        for _ in telling.simulation.settle(at):
            await asyncio.sleep(0)
        for fact in telling.facts(at):
            yield fact
        while at < end:
            for item in telling.tick(at, step):
                yield item
            at += step
            await asyncio.sleep(0)
        if leads_up_to_now:
            self._warm = (at - step, telling)

    def _telling(self) -> _Telling:
        simulation = self.simulation()
        return _Telling(self.plan, self._workload, self._schedule, simulation, self.seed, self._drops)


@dataclass(eq=False)
class _Telling:
    """One run through time: what was said already, and what is new."""

    plan: Plan
    workload: Workload
    schedule: Schedule
    simulation: Simulation
    seed: int
    drops: float
    _seen: _Seen | None = None
    jobs: Assignment | None = None
    """Those that were told to run."""
    _told: float = -np.inf
    _queue_told: float = -np.inf
    _queue: dict[str, JobFact] = field(default_factory=dict)
    """Jobs that wait, as they were told last, by id."""
    _states: dict[str, str] = field(default_factory=dict)
    _reasons: tuple[tuple[int, ...], Codes | None] = ((), None)
    _metrics: dict[Kind, tuple[str, ...]] = field(default_factory=dict)
    _held_blanks: dict[Kind, Codes] = field(default_factory=dict)

    def facts(self, at: float) -> Iterator[Item]:
        """Everything that is known at the start; before it what changed, if this goes on from an earlier time."""
        yield from self._changes(at)
        jobs = self.jobs = self.simulation.assignment(at)
        states = self._node_states(jobs)
        for node in range(len(self.plan.nodes)):
            yield self._node_fact(node, at, states[node])
        for index, gpu in enumerate(self.plan.gpu_refs):
            yield _gpu_fact(self.plan, index, gpu, at)
        for job in jobs.jobs:
            yield self._job_fact(job, ended=False)
        yield from self._waiting(at)
        yield from self._services(at)
        for node in range(len(self.plan.nodes)):
            yield self._processes(node, at)
        self._states = dict(zip(self.plan.nodes, states, strict=True))

    def tick(self, at: float, seconds: float) -> Iterator[Item]:
        """The items of one instant."""
        now = self.simulation.advance(at, seconds)
        before = self.jobs
        yield from self._changes(at)
        if self.jobs is not before or at - self._queue_told >= QUEUE_EVERY_S:
            yield from self._waiting(at)
        yield from self._events(at - seconds, at)
        yield from self._targets(now)
        yield from self._batches(now)

    def _batches(self, now: Instant) -> Iterator[Batch]:
        seen = self._answering(now)
        nodes = readings.node_columns(self.plan, now)
        yield self._gpu_batch(now, seen)
        yield self._batch(now, Kind.NODE, nodes, seen)
        yield self._batch(now, Kind.PORT, readings.port_columns(self.plan, now), seen)
        yield self._batch(now, Kind.DISK, readings.disk_columns(self.plan, now), seen)
        if self.workload.replicas:
            yield self._batch(now, Kind.SERVER, readings.serve_columns(self.simulation.fleet, now), seen)
        yield self._batch(now, Kind.RACK, readings.rack_columns(self.plan, now, nodes), seen)

    def _batch(self, now: Instant, kind: Kind, columns: readings.Columns, seen: _Seen) -> Batch:
        rows = seen.rows[kind]
        values = readings.table(columns)
        values = values if rows is None else values[rows]
        keys = self._keys(kind, columns)
        return Batch(now.time, kind, seen.entities[kind], keys, values, self._blanks(kind, values))

    def _blanks(self, kind: Kind, values: Floats) -> Codes | None:
        """BLANK where there is no value (the latencies of a server without requests); the same object while unchanged."""
        missing = np.isnan(values)
        if not missing.any():
            return None
        codes = (missing * np.uint8(Missing.BLANK)).astype(np.uint8)
        held = self._held_blanks.get(kind)
        if held is None or not np.array_equal(held, codes):
            held = self._held_blanks[kind] = codes
        return held

    def _keys(self, kind: Kind, columns: readings.Columns) -> tuple[str, ...]:
        """The metric tuple of a kind: the same object every time."""
        return self._metrics.setdefault(kind, tuple(columns))

    def _gpu_batch(self, now: Instant, seen: _Seen) -> Batch:
        columns = readings.gpu_columns(self.plan, now)
        values = readings.table(columns)
        reasons = self._blank(now, seen, values)
        rows = seen.rows[Kind.GPU]
        keys = self._keys(Kind.GPU, columns)
        values = values if rows is None else values[rows]
        return Batch(now.time, Kind.GPU, seen.entities[Kind.GPU], keys, values, reasons)

    def _blank(self, now: Instant, seen: _Seen, values: Floats) -> Codes | None:
        """Blanks lost boards and dropped samples in ``values`` [gpu, metric]; why, for the rows that answer."""
        lost = tuple(int(i) for i in np.flatnonzero(now.effects.lost))
        values[list(lost)] = np.nan
        rows = seen.rows[Kind.GPU]
        dropped: Bools = (now.draw.random(len(self.plan.nodes)) < self.drops)[self.plan.node_of]
        values[dropped] = np.nan
        key = (*lost, -1, *seen.silent)
        if key != self._reasons[0] or dropped.any():
            reasons = readings.reasons(self.plan, lost, dropped, values.shape[1])
            kept = reasons if reasons is None or rows is None else reasons[rows]
            self._reasons = ((-2,) if dropped.any() else key, kept)
        return self._reasons[1]

    def _answering(self, now: Instant) -> _Seen:
        """Who answers now; computed anew only when that changes."""
        silent = tuple(int(i) for i in np.flatnonzero(now.effects.silent))
        if self._seen is None or self._seen.silent != silent:
            self._seen = _seen(self.plan, self.workload, silent)
        return self._seen

    def _changes(self, at: float) -> Iterator[Item]:
        """Jobs that ended or started since the last instant, and what follows from it."""
        before, jobs = self.jobs, self.simulation.assignment(at)
        if before is None or before is jobs:
            return
        self.jobs = jobs
        gone = [job for job in before.jobs if job.key not in jobs.index]
        new = [job for job in jobs.jobs if job.key not in before.index]
        for job in gone:
            yield self._job_fact(job, ended=True)
            yield Event(
                job.until, JobRef(job.id), "job_end", f"{job.user}'s {job.name} ended on {self._where(job)}"
            )
        for job in new:
            yield self._job_fact(job, ended=False)
            yield Event(
                job.since,
                JobRef(job.id),
                "job_start",
                f"{job.user}'s {job.name} started on {self._where(job)}",
            )
        states = self._node_states(jobs)
        for node in sorted({node for job in (*gone, *new) for node in job.nodes}):
            if self._states.get(self.plan.nodes[node]) != states[node]:
                self._states[self.plan.nodes[node]] = states[node]
                yield self._node_fact(node, at, states[node])
            yield self._processes(node, at)

    def _waiting(self, at: float) -> Iterator[Item]:
        """What the queue holds, where that is news."""
        self._queue_told = at
        queue = self.workload.queue(at)
        told = {queued.job.id: self._queued_fact(queued) for queued in queue}
        yield from (fact for key, fact in told.items() if self._queue.get(key) != fact)
        self._queue = told
        yield self._queue_fact(at, queue)

    def _queue_fact(self, at: float, queue: tuple[QueuedJob, ...]) -> QueueFact:
        running = [job for job in self.simulation.assignment(at).jobs if job.partition != "k8s"]
        offered = [queued.job for queued in queue if queued.reason in ("Resources", "Priority")]
        held = [queued.job for queued in queue if queued.reason not in ("Resources", "Priority")]
        starts = [queued.expected_at for queued in queue if queued.expected_at is not None]
        return QueueFact(at, _demand(running), _demand(offered), _demand(held), min(starts, default=None))

    def _queued_fact(self, queued: QueuedJob) -> JobFact:
        job = queued.job
        return JobFact(
            job.submitted_at,
            None,
            job.id,
            job.name,
            job.user,
            (),
            (),
            account=job.account,
            partition=job.partition,
            state="PENDING",
            reason=queued.reason,
            submitted_at=job.submitted_at,
            expected_at=queued.expected_at,
            gpu_count=len(job.gpus),
            nodes_asked=len(job.nodes),
            dependency=f"afterok:{_bare(queued.after)}" if queued.after else None,
        )

    def _where(self, job: JobRun) -> str:
        """``16 GPUs of r03n[01-02]``."""
        return f"{len(job.gpus)} GPU{'s' * (len(job.gpus) != 1)} of {fold(self.plan.nodes[node] for node in job.nodes)}"

    def _node_states(self, jobs: Assignment) -> list[str]:
        busy = {node for job in jobs.jobs for node in job.nodes}
        return [
            "drain" if node in self.workload.drained else "alloc" if node in busy else "idle"
            for node in range(len(self.plan.nodes))
        ]

    def _node_fact(self, node: int, at: float, state: str) -> NodeFact:
        plan = self.plan
        return NodeFact(
            at,
            plan.nodes[node],
            hostname=plan.nodes[node],
            rack=plan.racks[plan.rack_of[node]],
            place="simulator",
            cpus=plan.spec.cpus,
            memory_bytes=int(plan.spec.memory),
            kernel=plan.spec.kernel,
            driver=plan.spec.driver,
            booted_at=float(plan.booted_at[node]),
            gpu_pci=plan.pci,
            clock_offset_s=0.0,
            state=state,
        )

    def _job_fact(self, job: JobRun, *, ended: bool) -> JobFact:
        return JobFact(
            job.since,
            job.until if ended else None,
            job.id,
            job.name,
            job.user,
            tuple(self.plan.nodes[node] for node in job.nodes),
            tuple(self.plan.gpu_refs[gpu] for gpu in job.gpus),
            account=job.account,
            partition=job.partition,
            state="COMPLETED" if ended else "RUNNING",
            limit_at=None if job.profile.work is Work.SERVE else job.limit_at,
            submitted_at=None if job.profile.work is Work.SERVE else job.submitted_at,
            gpu_count=len(job.gpus),
            nodes_asked=len(job.nodes),
            workload=None if job.profile.work is Work.IDLE else WORKLOADS[job.profile.work],
        )

    def _services(self, at: float) -> Iterator[ServerFact | ServiceFact]:
        """What is served where."""
        count = Counter(SERVICES[replica.service].name for replica in self.workload.replicas)
        for replica in self.workload.replicas:
            name = SERVICES[replica.service].name
            gpus = tuple(self.plan.gpu_refs[gpu] for gpu in replica.gpus)
            yield ServerFact(at, _server_ref(self.plan, replica), "vLLM", name, name, gpus=gpus)
        for name, expected in count.items():
            yield ServiceFact(at, name, expected=expected)

    def _processes(self, node: int, at: float) -> ProcessFact:
        """One process a GPU that a job holds, but a server's processes carry its command line."""
        jobs = self.jobs or self.simulation.assignment(at)
        first = node * self.plan.slots
        found = []
        for gpu in range(first, first + self.plan.slots):
            index = int(jobs.job_of[gpu])
            if index < len(jobs.jobs):
                found.append(self._process(gpu, jobs.jobs[index], jobs))
        return ProcessFact(at, self.plan.nodes[node], tuple(found))

    def _process(self, gpu: int, job: JobRun, jobs: Assignment) -> Process:
        command = job.profile.process
        share = float(jobs.columns["memory"][jobs.job_of[gpu]])
        if job.profile.work is Work.SERVE:
            replica = self.workload.replicas[self.simulation.replica_of[gpu]]
            command, share = f"vllm serve {SERVICES[replica.service].name} --port {replica.port}", 0.92
        pid = 20_000 + (job.slot * 7919 + job.number * 104_729 + gpu * 13) % 900_000
        memory = int(share * self.plan.columns["memory"][gpu])
        return Process(self.plan.gpu_refs[gpu], pid, job.user, command, memory, None)

    def _events(self, after: float, until: float) -> Iterator[Event]:
        """What the faults say in (after, until]."""
        for episode in self.schedule.between(after - 1, until + 0.001):
            if after < episode.start <= until:
                yield from _begun(self.plan, self.workload, episode)
            if after < episode.end <= until:
                yield from _over(self.plan, self.workload, episode)

    def _targets(self, now: Instant) -> Iterator[Target]:
        """A target a node, as over SSH; at changes and once a minute."""
        silent = tuple(int(i) for i in np.flatnonzero(now.effects.silent))
        before = self._seen.silent if self._seen is not None else ()
        due = now.time - self._told >= TARGET_EVERY_S
        if due:
            self._told = now.time
        for node, name in enumerate(self.plan.nodes):
            if due or (node in silent) != (node in before):
                yield _target(name, node in silent, now.time, self.seed)


def _demand(jobs: Sequence[JobRun]) -> Demand:
    return Demand(len(jobs), sum(len(job.gpus) for job in jobs))


def _bare(job: str) -> str:
    """``4711`` of ``slurm:4711``."""
    return job.partition(":")[2]


def _target(node: str, silent: bool, at: float, seed: int) -> Target:
    if silent:
        return Target(
            at,
            node,
            TargetState.FAILING,
            (node,),
            "no answer (simulated)",
            "wait: the simulated node comes back",
        )
    return Target(at, node, TargetState.OK, (node,), latency_s=0.004, what=f"simulator, seed {seed}")


def _gpu_fact(plan: Plan, index: int, gpu: GpuRef, at: float) -> GpuFact:
    part = PARTS[int(plan.part_of[plan.node_of[index]])]
    return GpuFact(
        at,
        gpu,
        model=part.model,
        memory_bytes=int(part.memory),
        power_limit_w=part.power,
        power_max_w=part.power,
        slowdown_c=part.slowdown,
        mig_enabled=False,
        serial=f"16{plan.seed % 100:02d}{index:09d}",
    )


def _server_ref(plan: Plan, replica: Replica) -> ServerRef:
    node = plan.nodes[replica.node]
    return ServerRef(node, f"{node}:{replica.port}")


def _seen(plan: Plan, workload: Workload, silent: tuple[int, ...]) -> _Seen:
    servers: tuple[EntityRef, ...] = tuple(_server_ref(plan, replica) for replica in workload.replicas)
    everything: dict[Kind, tuple[EntityRef, ...]] = {
        Kind.GPU: plan.gpu_refs,
        Kind.NODE: plan.node_refs,
        Kind.PORT: plan.port_refs,
        Kind.DISK: plan.disk_refs,
        Kind.SERVER: servers,
        Kind.RACK: plan.rack_refs,
    }
    if not silent:
        return _Seen(silent, everything, dict.fromkeys(everything))
    quiet = {plan.nodes[node] for node in silent}
    rows: dict[Kind, Ints | None] = {kind: _rows(entities, quiet) for kind, entities in everything.items()}
    kept = {kind: tuple(e for e in entities if e[0] not in quiet) for kind, entities in everything.items()}
    return _Seen(silent, kept, rows)


def _rows(entities: tuple[EntityRef, ...], quiet: set[str]) -> Ints:
    return np.array([i for i, entity in enumerate(entities) if entity[0] not in quiet], dtype=np.intp)


def _begun(plan: Plan, workload: Workload, episode: Episode) -> Iterator[Event]:
    at = episode.start
    if episode.fault == "gpu_lost":
        gpu = plan.gpu_refs[episode.gpu]
        text = f"NVRM: Xid (PCI:{gpu.pci}): 79, pid='<unknown>', name=<unknown>, GPU has fallen off the bus."
        yield Event(at, gpu, "xid", text)
        yield Event(at, gpu, "gpu_lost", "Xid 79: GPU has fallen off the bus")
    elif episode.fault == "server_down":
        yield Event(
            at, _server_ref(plan, workload.replicas[episode.replica]), "server_down", "does not answer"
        )
    elif episode.fault == "inlet_rise":
        yield Event(
            at, plan.rack_refs[episode.rack], "inlet_rise", f"{plan.racks[episode.rack]} inlet air is rising"
        )
    elif episode.fault == "lame_rail":
        share = 0.25 if episode.strength < 0.375 else 0.5
        yield Event(
            at, plan.port_refs[episode.port], "link_recovery", f"link retrained at {share:.0%} of its rate"
        )
    elif episode.fault == "power_cap":
        share = np.round(episode.strength * 20) / 20
        yield Event(
            at, plan.rack_refs[episode.rack], "power_limit", f"power limit set to {share:.0%} of the default"
        )


def _over(plan: Plan, workload: Workload, episode: Episode) -> Iterator[Event]:
    at = episode.end
    if episode.fault == "gpu_lost":
        yield Event(at, plan.gpu_refs[episode.gpu], "gpu_back", "the GPU is on the bus again after a reset")
    elif episode.fault == "server_down":
        yield Event(at, _server_ref(plan, workload.replicas[episode.replica]), "server_up", "answers again")
    elif episode.fault == "inlet_rise":
        yield Event(
            at, plan.rack_refs[episode.rack], "inlet_fall", f"{plan.racks[episode.rack]} inlet air is falling"
        )
    elif episode.fault == "lame_rail":
        yield Event(at, plan.port_refs[episode.port], "link_recovery", "link retrained at its full rate")
    elif episode.fault == "power_cap":
        yield Event(at, plan.rack_refs[episode.rack], "power_limit", "power limit back at the default")
