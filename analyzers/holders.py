"""Who holds the GPUs at an instant, and who waits for some."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from coldaisle.sources.cluster import EMPTY, Job, Layout, job_from
from coldaisle.sources.registry import Registry
from coldaisle.sources.source import JobFact, PodFact


@dataclass(frozen=True, slots=True, eq=False)
class Holders:
    """The jobs of an instant, and how long that is true."""

    layout: Layout
    version: int
    from_at: float
    until: float
    running: tuple[Job, ...]
    gpu_job: NDArray[np.int32]
    """[gpu] index into ``running``; -1: none known."""
    waiting: tuple[Job, ...]
    made: Mapping[str, tuple[JobFact, Job]]
    """By id, from which fact: a queue changes by a few jobs at a time."""
    loose: frozenset[int]
    """Indices of nodes on which a job has GPUs, and nobody says which."""

    def holds(self, layout: Layout, registry: Registry, now: float) -> bool:
        """Whether the same would be found now: a queue may have 20,000 jobs, and mostly nothing has changed."""
        return (
            self.layout is layout
            and self.version == registry.jobs_version
            and self.from_at <= now < self.until
            and registry.workloads.is_empty
        )


def pod_job(pod: PodFact) -> Job:
    """A pod that waits, as a job of the queue: each by itself, since each waits for a node of its own."""
    return Job(
        id=f"k8s:{pod.namespace}/Pod/{pod.pod}", name=pod.owner, user="", since=pod.since, nodes=(), gpus=(),
        account=pod.namespace, state="PENDING", reason=pod.waiting or None, gpu_count=pod.gpus,
    )  # fmt: skip


NOBODY = Holders(EMPTY, -1, 0.0, 0.0, (), np.zeros(0, dtype=np.int32), (), {}, frozenset())


def holders(
    layout: Layout, place: Mapping[int, int], registry: Registry, now: float, before: Holders = NOBODY
) -> Holders:
    """``place``: index in the layout by a GPU's row; ``before``: those of an earlier instant."""
    old = before.made if before.layout is layout else {}
    made: dict[str, tuple[JobFact, Job]] = {}

    def job(fact: JobFact) -> Job:
        known = old.get(fact.id)
        if known is None or known[0] is not fact:
            rows, known_by = registry.gpu_rows_known_by(fact.gpus)
            gpus = tuple(dict.fromkeys(place[row] for row in rows if row in place))
            known = (fact, job_from(fact, gpus, known_by))
        made[fact.id] = known
        return known[1]

    running = tuple(map(job, sorted(registry.jobs_at(now), key=lambda job: (job.since, job.id))))
    queue = tuple(map(job, sorted(registry.waiting_at(now), key=lambda job: (job.since, job.id))))
    waiting = (*queue, *map(pod_job, registry.workloads.waiting(now)))
    if waiting == before.waiting:
        waiting = before.waiting  # the same object while nothing has changed
    gpu_job = np.full(len(layout.gpus), -1, dtype=np.int32)
    for number, one in enumerate(running):
        gpu_job[list(one.gpus)] = number
    changes = (
        at for one in registry.jobs.values() for at in (one.since, one.until) if at is not None and at > now
    )
    until = min(changes, default=float("inf"))
    loose = frozenset(
        layout.node_of[name]
        for one in running
        if one.gpu_count and not one.gpus
        for name in one.nodes
        if name in layout.node_of
    )
    return Holders(layout, registry.jobs_version, now, until, running, gpu_job, waiting, made, loose)
