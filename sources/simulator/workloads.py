"""Whose work runs where, from when until when: slots of nodes, each with its own sequence of jobs.

The timeline is a pure function of (seed, time): a slot cuts time into spans of its own length, and one job
fills each span but for the gap in which the freed GPUs wait for the next one.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from enum import IntEnum
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np

from coldaisle.sources.simulator.plan import PARTS, Array, Ints, Plan, models


class Work(IntEnum):
    """What a job does with its GPUs."""

    TRAIN = 0
    SERVE = 1
    NOTEBOOK = 2
    IDLE = 3


WORKLOADS = {
    Work.TRAIN: "training",
    Work.SERVE: "inference",
    Work.NOTEBOOK: "interactive",
    Work.IDLE: "interactive",
}


class Profile(NamedTuple):
    """What one kind of program does to a GPU, in its compute phase, on a healthy H100. Ratios 0..1; bytes/s."""

    name: str
    work: Work
    weight: float
    sm: float
    tensor: float
    """Tensor activity as a share of SM activity (measured .16 to .66)."""
    dram: float
    fp32: float
    step: float
    """Seconds of a step."""
    comm: float
    """Share of a step in exposed communication."""
    host: float
    """Share of a step without a kernel."""
    nvlink: float
    fabric: float
    """InfiniBand bytes/s per rail when the job spans nodes."""
    pcie: float
    memory: float
    cpu: float
    read: float
    """NFS bytes/s per GPU."""
    clock: float
    """How much of the compute phase stretches with the SM clock."""
    checkpoint: float
    """Seconds between two checkpoints; 0: none."""
    pause: float
    """Seconds that one takes."""
    process: str


def _profile(name: str, work: Work, row: dict[str, Any]) -> Profile:
    return Profile(**{"name": name, "work": work, **row})


PROFILES: tuple[Profile, ...] = tuple(
    _profile(name, Work.TRAIN, row) for name, row in models()["training"].items()
)
NOTEBOOK = _profile("jupyter", Work.NOTEBOOK, models()["other"]["notebook"])
FORGOTTEN = _profile("bash", Work.IDLE, models()["other"]["forgotten"])


class Service(NamedTuple):
    """A model that is served: what a replica holds and what a request asks."""

    name: str
    gpus: int
    weights: float
    kv_token: float
    """Bytes of KV cache per token."""
    params: float
    prompt: float
    answer: float
    """Mean tokens of a request."""
    load: float
    """Requests in flight, as a share of what fits."""


SERVICES: tuple[Service, ...] = tuple(
    Service(**{"name": name, **row}) for name, row in models()["services"].items()
)

QUEUED_S = 4000.0
"""Mean seconds from the submission of a job to its start."""
_DEPENDS, _LIMITED = 0.15, 0.27
"""Shares of waiting jobs that wait for the job before them; the next ones up to here for their user's limit."""

_PEOPLE = (
    ("mlee", "nlp"), ("kim", "proj-moe"), ("rsun", "bio"), ("kpark", "nlp"), ("asingh", "vision"), ("jdoe", "vision"),
    ("tnovak", "proj-moe"), ("lmartin", "bio"), ("ychen", "speech"), ("okafor", "physics"), ("bweber", "physics"),
    ("hsato", "speech"), ("dcosta", "climate"), ("emeyer", "climate"), ("fdubois", "nlp"),
)  # fmt: skip
_TRAIN_NODES = (1, 1, 2, 2, 3, 4, 4, 6, 8)


COLUMNS = (
    "sm",
    "tensor",
    "dram",
    "fp32",
    "step",
    "comm",
    "host",
    "nvlink",
    "fabric",
    "pcie",
    "memory",
    "cpu",
    "read",
    "clock",
    "checkpoint",
    "pause",
)


class Slot(NamedTuple):
    """GPUs that go from job to job together."""

    kind: str
    """``train``, ``serve``, ``notebook``, ``free``, ``drained``."""
    nodes: tuple[int, ...]
    gpus: Ints
    span: float
    """Seconds from the start of one job's place to the next one's."""
    offset: float
    gap: float
    """Mean seconds between two jobs."""


class Replica(NamedTuple):
    """One server of a service, on some GPUs of one node."""

    service: int
    node: int
    gpus: Ints
    port: int


@dataclass(frozen=True, slots=True, eq=False)
class JobRun:
    """One job, from ``since`` until ``until`` (seconds since the epoch; the end is known to the simulator only)."""

    slot: int
    number: int
    """Which of the slot's jobs."""
    id: str
    name: str
    user: str
    account: str
    partition: str
    since: float
    until: float
    limit_at: float
    profile: Profile
    nodes: tuple[int, ...]
    gpus: Ints
    numbers: tuple[float, ...]
    """Its profile in :data:`COLUMNS`, departed from a little."""
    seed: float
    """0..1, phases."""

    submitted_at: float = 0.0
    luck: float = 1.0
    """0..1, what it waits for besides GPUs."""

    @property
    def key(self) -> tuple[int, int]:
        return self.slot, self.number


class QueuedJob(NamedTuple):
    """A job that waits for its start."""

    job: JobRun
    reason: str
    """As Slurm says it: ``Resources`` (the next of its partition), ``Priority``, ``Dependency``, ``QOSMaxGRESPerUser``."""
    expected_at: float | None
    """When a scheduler that knows only time limits plans to start it."""
    after: str | None
    """The id of the job it depends on."""


def _quotas(nodes: int) -> dict[str, int]:
    """Nodes of each slot kind: a busy cluster with some of everything."""
    if nodes < 4:
        return {"train": nodes}
    others = {"serve": max(1, round(nodes * 0.14)), "notebook": round(nodes * 0.05)}
    others |= {"free": round(nodes * 0.05), "drained": round(nodes * 0.04)}
    return {"train": nodes - sum(others.values())} | others


def _blocks(draw: np.random.Generator, nodes: int) -> list[tuple[str, int]]:
    """(kind, nodes) in the order in which they fill the racks."""
    blocks: list[tuple[str, int]] = []
    for kind, left in _quotas(nodes).items():
        while left > 0:
            size = (
                int(draw.choice(_TRAIN_NODES)) if kind == "train" else 2 if kind in ("serve", "free") else 1
            )
            size = min(size, left, max(1, nodes // 3))
            blocks.append((kind, size))
            left -= size
    order = draw.permutation(len(blocks))
    return [blocks[i] for i in order]


def _span(kind: str, draw: np.random.Generator) -> tuple[float, float]:
    """(span, mean gap) in seconds of a slot of this kind."""
    if kind == "serve":
        return 40 * 86_400.0, 0.0
    if kind == "notebook":
        return float(draw.uniform(40, 200)) * 60, 600.0
    return float(draw.uniform(50, 330)) * 60, 110.0


def _shares(kind: str, gpus: int, draw: np.random.Generator) -> list[int]:
    """How a node of this kind is divided between slots, in GPUs."""
    if kind != "notebook":
        return [gpus]
    parts: list[int] = []
    while sum(parts) < gpus:
        parts.append(min(int(draw.choice((1, 1, 2, 4))), gpus - sum(parts)))
    return parts


def build_slots(plan: Plan) -> tuple[Slot, ...]:
    """The seed's slots; a slot never mixes two models of GPU."""
    draw = np.random.default_rng((plan.seed, 1))
    slots: list[Slot] = []
    at = 0
    for kind, size in _blocks(draw, len(plan.nodes)):
        block = range(at, at + size)
        at += size
        for part in dict.fromkeys(int(plan.part_of[n]) for n in block):
            nodes = tuple(n for n in block if plan.part_of[n] == part)
            slots.extend(_cut(plan, kind, nodes, draw))
    return tuple(slots)


def _cut(plan: Plan, kind: str, nodes: tuple[int, ...], draw: np.random.Generator) -> Iterator[Slot]:
    gpus = np.concatenate([np.arange(n * plan.slots, (n + 1) * plan.slots) for n in nodes])
    first = 0
    for count in _shares(kind, len(gpus), draw):
        span, gap = _span(kind, draw)
        mine = gpus[first : first + count]
        where = tuple(sorted({int(plan.node_of[g]) for g in mine}))
        yield Slot(kind, where, mine, span, float(draw.random()) * span, gap)
        first += count


def build_replicas(plan: Plan, slots: tuple[Slot, ...]) -> tuple[Replica, ...]:
    """Every serving slot belongs to one service and is filled with its replicas, node by node."""
    replicas: list[Replica] = []
    for number, slot in enumerate(s for s in slots if s.kind == "serve"):
        service = (0, 1, 0, 2, 3, 0, 1)[number % 7]
        each = min(SERVICES[service].gpus, plan.slots)
        for node in slot.nodes:
            for i in range(plan.slots // each):
                first = node * plan.slots + i * each
                replicas.append(Replica(service, node, np.arange(first, first + each), 8000 + i))
    return tuple(replicas)


@dataclass(eq=False)
class Workload:
    """The jobs of a plan at any instant."""

    plan: Plan

    def __post_init__(self) -> None:
        self.slots = build_slots(self.plan)
        self.replicas = build_replicas(self.plan, self.slots)
        self._known: dict[tuple[int, int], JobRun] = {}
        self._service_of = self._services()

    def _services(self) -> dict[int, int]:
        """Slot -> service, for the serving slots."""
        by_node = {replica.node: replica.service for replica in self.replicas}
        return {i: by_node[slot.nodes[0]] for i, slot in enumerate(self.slots) if slot.kind == "serve"}

    @cached_property
    def drained(self) -> frozenset[int]:
        """Nodes that the scheduler may not use."""
        return frozenset(n for slot in self.slots if slot.kind == "drained" for n in slot.nodes)

    def at(self, time: float) -> tuple[JobRun, ...]:
        """Jobs that run at ``time``, in slot order."""
        jobs = (self._job(i, time) for i in range(len(self.slots)))
        return tuple(job for job in jobs if job is not None and job.since <= time < job.until)

    def next_change(self, time: float) -> float:
        """The first instant after ``time`` at which a job starts or ends."""
        ends = [time + 3600.0]
        for i in range(len(self.slots)):
            job = self._job(i, time)
            if job is not None:
                ends.append(job.since if time < job.since else job.until)
        return min(ends)

    def queue(self, time: float) -> tuple[QueuedJob, ...]:
        """Jobs that were submitted and wait at ``time``, in the order in which they will start.

        What waits is what will run: the next job of a slot, for the end of the one that runs there.
        """
        found = [
            self._next(i, time) for i, slot in enumerate(self.slots) if slot.kind in ("train", "notebook")
        ]
        pairs = [pair for pair in found if pair is not None and pair[0].submitted_at <= time]
        pairs.sort(key=lambda pair: (pair[0].since, pair[0].slot))
        served: set[str] = set()
        return tuple(_queued(job, before, served) for job, before in pairs)

    def _next(self, slot: int, time: float) -> tuple[JobRun, JobRun | None] | None:
        """The job of a slot that starts next, and the one that runs there until then."""
        held = self._job(slot, time)
        if held is None or time < held.since:
            return None if held is None else (held, None)
        return self._numbered(slot, held.number + 1), held

    def _job(self, slot: int, time: float) -> JobRun | None:
        """The job whose span holds ``time``; None for slots without work."""
        at = self.slots[slot]
        if at.kind in ("free", "drained"):
            return None
        return self._numbered(slot, int((time - at.offset) // at.span))

    def _numbered(self, slot: int, number: int) -> JobRun:
        job = self._known.get((slot, number))
        if job is None:
            if len(self._known) > 8 * len(self.slots) + 256:
                self._known.clear()
            job = self._known[slot, number] = self._draw(slot, number)
        return job

    def _draw(self, slot: int, number: int) -> JobRun:
        at = self.slots[slot]
        draw = np.random.default_rng((self.plan.seed, 2, slot, number % 2**31))
        gap = float(draw.exponential(at.gap)) if at.gap else 0.0
        since = at.offset + number * at.span + min(gap, at.span / 3)
        until = at.offset + (number + 1) * at.span
        limit = max(1800.0, np.ceil((until - since) * draw.uniform(1.05, 1.7) / 1800) * 1800)
        user, account = _PEOPLE[int(draw.integers(len(_PEOPLE)))]
        serial = int(since // 60) % 10_000 * len(self.slots) + slot
        profile = self._profile(at, draw)
        job = JobRun(
            slot=slot,
            number=number,
            id=f"slurm:{100_000 + serial}",
            name=profile.name,
            user=user,
            account=account,
            partition=_partition(self.plan, at),
            since=since,
            until=until,
            limit_at=since + limit,
            profile=profile,
            nodes=at.nodes,
            gpus=at.gpus,
            numbers=_numbers(profile, float(draw.uniform(-1, 1))),
            seed=float(draw.random()),
        )
        return self._queued(self._named(job, draw), at)

    def _queued(self, job: JobRun, slot: Slot) -> JobRun:
        """With its submission; no job waits so long that two of its slot wait at once."""
        draw = np.random.default_rng((self.plan.seed, 5, job.slot, job.number % 2**31))
        wait = min(float(draw.exponential(QUEUED_S)), 0.6 * slot.span)
        return replace(job, submitted_at=job.since - wait, luck=float(draw.random()))

    def _profile(self, slot: Slot, draw: np.random.Generator) -> Profile:
        if slot.kind == "serve":
            return NOTEBOOK._replace(name="serve", work=Work.SERVE, process="vllm serve")
        if slot.kind == "notebook":
            return FORGOTTEN if draw.random() < 0.25 else NOTEBOOK
        weights = np.array([profile.weight for profile in PROFILES])
        chosen = PROFILES[int(draw.choice(len(PROFILES), p=weights / weights.sum()))]
        small = len(slot.nodes) == 1
        return PROFILES[int(draw.integers(3, len(PROFILES)))] if small and chosen.fabric > 15e9 else chosen

    def _named(self, job: JobRun, draw: np.random.Generator) -> JobRun:
        if job.profile.work is not Work.SERVE:
            return replace(
                job,
                name=f"{job.profile.name}-{int(draw.integers(2, 40))}"
                if draw.random() < 0.6
                else job.profile.name,
            )
        service = SERVICES[self._service_of[job.slot]].name
        number = [i for i in self._service_of if self._service_of[i] == self._service_of[job.slot]].index(
            job.slot
        )
        name = service if number == 0 else f"{service}-{number + 1}"
        return replace(
            job,
            id=f"k8s:serving/Deployment/{name}",
            name=name,
            user="svc-llm",
            account="serving",
            partition="k8s",
        )


def _queued(job: JobRun, before: JobRun | None, served: set[str]) -> QueuedJob:
    """Why a job waits; ``served``: partitions whose next job was seen, this one's is added."""
    if before is not None and job.luck < _DEPENDS:
        return QueuedJob(job, "Dependency", None, before.id)
    if job.luck < _LIMITED:
        return QueuedJob(job, "QOSMaxGRESPerUser", None, None)
    reason = "Priority" if job.partition in served else "Resources"
    served.add(job.partition)
    return QueuedJob(job, reason, float(before.limit_at) if before is not None else None, None)


_SPREAD = {
    "sm": 0.05,
    "tensor": 0.12,
    "dram": 0.08,
    "step": 0.3,
    "comm": 0.25,
    "nvlink": 0.1,
    "fabric": 0.1,
    "memory": 0.06,
    "read": 0.4,
}


def _numbers(profile: Profile, vary: float) -> tuple[float, ...]:
    """A job's profile, departed from by ``vary`` (-1..1) of each number's spread; shares stay shares."""
    values = ((name, float(getattr(profile, name)) * (1 + _SPREAD.get(name, 0.0) * vary)) for name in COLUMNS)
    return tuple(min(value, 0.97) if name in ("sm", "memory", "tensor") else value for name, value in values)


def _partition(plan: Plan, slot: Slot) -> str:
    model = PARTS[int(plan.part_of[slot.nodes[0]])].model.split()[1].split("-")[0].lower()
    return "interactive" if slot.kind == "notebook" else model


@dataclass(frozen=True, slots=True, eq=False)
class Assignment:
    """Which job holds which GPU, between two changes, with the jobs' numbers as columns."""

    jobs: tuple[JobRun, ...]
    since: float
    until: float
    """Valid in [since, until)."""
    job_of: Ints
    """[gpu] index into jobs; ``len(jobs)`` stands for none."""
    count: Array
    """[job + 1] GPUs."""
    columns: dict[str, Array]
    """[job + 1] of each of :data:`COLUMNS`; the last row is "no job"."""
    work: Ints
    """[job + 1] of :class:`Work`; IDLE for no job."""
    multi: Array
    """[job + 1] 1 where the job spans nodes."""
    starts: Array
    """[job + 1]"""
    phase: Array
    """[job + 1] 0..1"""
    index: dict[tuple[int, int], int]


def assign(plan: Plan, workload: Workload, time: float) -> Assignment:
    """The assignment in force at ``time``."""
    jobs = workload.at(time)
    job_of = np.full(plan.gpus, len(jobs), dtype=np.intp)
    for i, job in enumerate(jobs):
        job_of[job.gpus] = i
    table = np.array([*(job.numbers for job in jobs), (0.0,) * len(COLUMNS)])
    columns = {name: table[:, i].copy() for i, name in enumerate(COLUMNS)}
    columns["step"][-1] = 1.0
    return Assignment(
        jobs=jobs,
        since=time,
        until=workload.next_change(time),
        job_of=job_of,
        count=np.bincount(job_of, minlength=len(jobs) + 1).astype(np.float64),
        columns=columns,
        work=np.array([*(job.profile.work for job in jobs), Work.IDLE], dtype=np.intp),
        multi=np.array([*(float(len(job.nodes) > 1) for job in jobs), 0.0]),
        starts=np.array([*(job.since for job in jobs), 0.0]),
        phase=np.array([*(job.seed for job in jobs), 0.0]),
        index={job.key: i for i, job in enumerate(jobs)},
    )
