"""Jobs with what their GPUs do: who runs on how much and how well, who waits for how much and why. Pure.

What a job holds and what it uses are columns, [job] each, so that thousands of them are computed at once and sorted
without an object a row. A missing value is NaN, and never part of a mean, a sum or an extreme.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from coldaisle.analyzers.snapshot import Snapshot, Status
from coldaisle.sources.cluster import Job, Layout
from coldaisle.sources.source import Demand, Floats

Numbers: TypeAlias = NDArray[np.float64]
Index: TypeAlias = NDArray[np.intp]
ValuesOf: TypeAlias = Callable[[str], Floats]
"""A metric of all GPUs, [gpu] in the layout's order, boards and MIG instances; NaN: missing."""

OFFERED = frozenset({"Resources", "Priority", "Unschedulable"})
"""Reasons to wait that more hardware would end (squeue's, and Kubernetes'): the offered load that is not served."""


@dataclass(frozen=True, slots=True, eq=False)
class Held:
    """Which GPUs jobs hold. Follows from a layout and a tuple of jobs alone; made once for each."""

    layout: Layout
    jobs: tuple[Job, ...]
    owner: Index
    """[hold] index into jobs; a GPU that several jobs share is there several times."""
    gpu: Index
    """[hold] index into Layout.gpus"""
    whole: NDArray[np.bool_]
    """[hold] whether it is a board, not a MIG instance of one."""
    known: Numbers
    """[job] how many GPUs are known by name."""
    size: Numbers
    """[job] how many GPUs it has, known by name or not; NaN: nobody says."""

    def fits(self, snapshot: Snapshot) -> bool:
        """Whether the snapshot has the same jobs in the same layout."""
        return self.layout is snapshot.layout and self.jobs is snapshot.jobs


def held_by(layout: Layout, jobs: tuple[Job, ...]) -> Held:
    """What each job holds; GPUs that lie outside the layout are nobody's."""
    counts = [len(job.gpus) for job in jobs]
    owner = np.repeat(np.arange(len(jobs), dtype=np.intp), counts)
    gpu = np.fromiter((gpu for job in jobs for gpu in job.gpus), np.intp, sum(counts))
    inside = (gpu >= 0) & (gpu < len(layout.gpus))
    owner, gpu = owner[inside], gpu[inside]
    is_board = np.zeros(len(layout.gpus), dtype=np.bool_)
    is_board[layout.boards] = True
    known = np.bincount(owner, minlength=len(jobs)).astype(np.float64)
    return Held(
        layout, jobs, owner, gpu, is_board[gpu], known, np.array([*map(gpus_of, jobs)], dtype=np.float64)
    )


def gpus_of(job: Job) -> float:
    """How many GPUs a job has, or asks for while it waits; NaN: nobody says."""
    if job.gpu_count is not None:
        return float(job.gpu_count)
    if job.is_waiting:
        return float(job.gpus_asked) if job.gpus_asked is not None else np.nan
    return float(len(job.gpus)) if job.gpus else np.nan


@dataclass(frozen=True, slots=True, eq=False)
class Figures:
    """What the GPUs of running jobs do now, [job] each, in the order of Snapshot.jobs; NaN: missing.

    Only GPUs that answer take part. What binds a job, and what it loses, is for the diagnosis to say.
    """

    metric: str
    """What stands in for the useful share until that is known: ``gpu.sm_active``, else ``gpu.power_ratio``, ``gpu.util``."""
    active: Numbers
    """Mean of that metric."""
    lowest: Numbers
    highest: Numbers
    told: Numbers
    """How many of its GPUs have a value of it."""
    memory: Numbers
    """Of the GPU whose memory is fullest now, 0..1."""
    power: Numbers
    """W, of its whole boards that tell."""
    powered: Numbers
    """How many of its GPUs that is."""
    elapsed: Numbers
    """Seconds since it started."""
    left: Numbers
    """Seconds until its time limit; NaN: it has none, or nobody says."""
    hours: Numbers
    """GPU-hours since it started."""


def figures(snapshot: Snapshot, held: Held, metric: str, values_of: ValuesOf) -> Figures:
    """Figures of all running jobs; ``metric`` is a ratio of GPUs."""
    answers = snapshot.gpu_status[held.gpu] == Status.OK
    size = len(held.jobs)
    active = _Reduced(values_of(metric)[held.gpu], answers, held.owner, size)
    memory = _Reduced(values_of("gpu.mem_ratio")[held.gpu], answers, held.owner, size)
    power = _Reduced(values_of("gpu.power")[held.gpu], answers & held.whole, held.owner, size)
    since = np.array([job.since for job in held.jobs], dtype=np.float64)
    limit = np.array(
        [np.nan if job.limit_at is None else job.limit_at for job in held.jobs], dtype=np.float64
    )
    elapsed = np.maximum(snapshot.at - since, 0.0)
    return Figures(
        metric=metric,
        active=active.mean(),
        lowest=active.extreme(np.minimum, np.inf),
        highest=active.extreme(np.maximum, -np.inf),
        told=active.count,
        memory=memory.extreme(np.maximum, -np.inf),
        power=power.total(),
        powered=power.count,
        elapsed=elapsed,
        left=limit - snapshot.at,
        hours=held.size * elapsed / 3600.0,
    )


class _Reduced:
    """Values of GPUs, brought together by job."""

    def __init__(self, values: Floats, counted: NDArray[np.bool_], owner: Index, size: int) -> None:
        there = counted & np.isfinite(values)
        self._values, self._owner, self._size = values[there].astype(np.float64), owner[there], size
        self.count: Numbers = np.bincount(self._owner, minlength=size).astype(np.float64)

    def total(self) -> Numbers:
        total = np.bincount(self._owner, weights=self._values, minlength=self._size)
        return np.where(self.count > 0, total, np.nan)

    def mean(self) -> Numbers:
        return self.total() / np.maximum(self.count, 1.0)

    def extreme(self, fold: np.ufunc, start: float) -> Numbers:
        found = np.full(self._size, start)
        fold.at(found, self._owner, self._values)
        return np.where(self.count > 0, found, np.nan)


def is_offered(job: Job) -> bool:
    """Whether a job waits for nothing but free hardware: it belongs to the offered load."""
    return job.is_waiting and (job.reason or "").strip("()") in OFFERED


class Load(NamedTuple):
    """What runs, and what waits."""

    running: Demand
    waiting: Demand
    """For resources, or behind others that do: the offered load that is not served."""
    held: Demand
    """For something else: a dependency, a limit, a person."""
    next_start_at: float | None
    """When the scheduler plans to start the first of those that wait; None: nobody says."""


def load_of(snapshot: Snapshot, held: Held, waiting: Sequence[Job]) -> Load:
    """What the schedulers say of their queues themselves, with pods that wait; else counted job by job."""
    if not snapshot.queues:
        offered: list[Job] = []
        rest: list[Job] = []
        for job in waiting:
            (offered if is_offered(job) else rest).append(job)
        running = Demand(len(held.jobs), int(np.nansum(held.size)))
        return Load(running, _demand(offered), _demand(rest), _first(job.expected_at for job in waiting))
    facts = snapshot.queues.values()
    known = [job for job in held.jobs if job.workload_key is not None]
    pods = [job for job in waiting if job.workload_key is not None]
    return Load(
        _added([*(fact.running for fact in facts), _demand(known)]),
        _added([*(fact.waiting for fact in facts), _demand([*filter(is_offered, pods)])]),
        _added([*(fact.held for fact in facts), _demand([pod for pod in pods if not is_offered(pod)])]),
        _first(fact.next_start_at for fact in facts),
    )


def _demand(jobs: Sequence[Job]) -> Demand:
    """Tasks of an array that wait together are a job each, and ask for GPUs each."""
    gpus = (gpus_of(job) * job.tasks for job in jobs)
    return Demand(sum(job.tasks for job in jobs), int(sum(number for number in gpus if not np.isnan(number))))


def _added(demands: Iterable[Demand]) -> Demand:
    jobs, gpus = zip(*demands, strict=True)
    return Demand(sum(jobs), sum(gpus))


def _first(instants: Iterable[float | None]) -> float | None:
    return min((at for at in instants if at is not None), default=None)


class Group(NamedTuple):
    """Jobs that belong together, and what they hold and ask for."""

    name: str
    """Other people's text; empty: not known."""
    running: tuple[int, ...]
    """Indices into Snapshot.jobs."""
    waiting: tuple[int, ...]
    """Indices into Snapshot.queue."""
    gpus: int
    """That its running jobs have, as far as that is known."""
    unsized: int
    """Running jobs of which nobody says how many GPUs they have."""
    pending: int
    """GPUs that its waiting jobs ask for."""
    offered: int
    """Of these, for hardware alone."""


class Use(NamedTuple):
    """What a group's running jobs make of their GPUs; NaN: not known."""

    active: float
    """Mean of Figures.active over its GPUs that tell."""
    memory: float
    """Of the GPU whose memory is fullest."""
    power: float
    hours: float
    """GPU-hours so far."""


KEYS: Mapping[str, Callable[[Job], str]] = {
    "user": lambda job: job.user,
    "account": lambda job: job.account or "",
    "partition": lambda job: job.partition or "",
}
"""What jobs can be put together by."""


def groups(
    held: Held, waiting: Sequence[Job], by: str, running: Iterable[int], queued: Iterable[int]
) -> tuple[Group, ...]:
    """Some jobs, by their numbers, put together by user, account or partition (see KEYS).

    Who has most GPUs comes first, then who waits for most.
    """
    key = KEYS[by]
    runs: dict[str, list[int]] = {}
    for number in running:
        runs.setdefault(key(held.jobs[number]), []).append(number)
    waits: dict[str, list[int]] = {}
    for number in queued:
        waits.setdefault(key(waiting[number]), []).append(number)
    names = dict.fromkeys([*runs, *waits])
    found = [group(name, held, waiting, runs.get(name, ()), waits.get(name, ())) for name in names]
    return tuple(sorted(found, key=lambda one: (-one.gpus, -one.pending, one.name)))


def group(
    name: str, held: Held, waiting: Sequence[Job], running: Sequence[int], queued: Sequence[int]
) -> Group:
    """Some jobs, by their numbers, as one group."""
    size = held.size[np.array(running, dtype=np.intp)]
    demand = _demand([waiting[number] for number in queued])
    offered = _demand([waiting[number] for number in queued if is_offered(waiting[number])])
    return Group(
        name=name,
        running=tuple(running),
        waiting=tuple(queued),
        gpus=int(np.nansum(size)),
        unsized=int(np.isnan(size).sum()),
        pending=demand.gpus,
        offered=offered.gpus,
    )


def use_of(one: Group, seen: Figures) -> Use:
    """What a group's running jobs do now."""
    pick = np.array(one.running, dtype=np.intp)
    told = seen.told[pick]
    weight = float(told.sum())
    memory = seen.memory[pick]
    return Use(
        active=float(np.nansum(seen.active[pick] * told) / weight) if weight else np.nan,
        memory=float(np.nanmax(memory)) if np.isfinite(memory).any() else np.nan,
        power=_sum_of(seen.power[pick]),
        hours=_sum_of(seen.hours[pick]),
    )


def _sum_of(values: Numbers) -> float:
    there = values[np.isfinite(values)]
    return float(there.sum()) if len(there) else np.nan
