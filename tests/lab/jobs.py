"""Snapshots with a queue, jobs of arrays and of Kubernetes, and what happened to them: for tests of jobs."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any, TypeVar

import numpy as np
from lab.snapshots import make_snapshot
from textual.app import App
from textual.screen import Screen

from coldaisle.analyzers.holders import pod_job
from coldaisle.analyzers.snapshot import EventView, Snapshot
from coldaisle.sources.cluster import Job
from coldaisle.sources.source import Demand, PodFact, QueueFact

HOSTILE = "evil\x1b[2J\x1b]52;c;aGk=\x07[red]x[/red]\u202e\r\n"
REASONS = ("Resources", "Priority", "Priority", "Dependency", "QOSMaxGRESPerUser", "Priority", "JobHeldUser")


S = TypeVar("S", bound=Screen[Any])


def screen_of(app: App[Any], kind: type[S]) -> S:
    """The screen in sight, which must be of a kind."""
    screen = app.screen
    assert isinstance(screen, kind), screen
    return screen


def waiting_job(number: int, at: float) -> Job:
    """The ``number``-th job of a queue; the longest waiting come first."""
    reason = REASONS[number % len(REASONS)]
    return Job(
        id=f"slurm:{4900 + number}",
        name=("train-moe", "sft", "eval", "vit-large")[number % 4],
        user=("kim", "mlee", "rsun", "kpark", "asingh")[number % 5],
        since=at - 9000.0 + number * 450.0 % 8900.0,
        nodes=(),
        gpus=(),
        account=("proj-moe", "nlp", "bio")[number % 3],
        partition="gpu",
        state="PENDING",
        reason=reason,
        submitted_at=at - 9000.0 + number * 450.0 % 8900.0,
        expected_at=at + 1500.0 + number * 300.0 if reason in ("Resources", "Priority") else None,
        gpu_count=8 * (1 + number % 4),
        nodes_asked=1 + number % 4,
        dependency="afterok:4711" if reason == "Dependency" else None,
    )


def with_queue(snapshot: Snapshot, waiting: int = 12) -> Snapshot:
    """A queue, an array's task, a heterogeneous part, a workload of Kubernetes, a pod that waits, and events of jobs."""
    at = snapshot.at
    jobs = list(snapshot.jobs)
    jobs[0] = replace(
        jobs[0], display="4690_3", qos="high", cpus=96, memory_bytes=1 << 40, gpu_count=len(jobs[0].gpus)
    )
    jobs[1] = replace(jobs[1], id="k8s:serving/Deployment/chat-70b", name="chat-70b", user="", account="serving",
                      partition=None, limit_at=None)  # fmt: skip
    jobs[2] = replace(jobs[2], display="4695+1", restarts=2, limit_at=at + 300.0)
    jobs[3] = replace(jobs[3], state="COMPLETING", limit_at=None)
    queue = tuple(waiting_job(number, at) for number in range(waiting))
    if queue:
        queue = (replace(queue[0], display="4900_[4-9%2]", tasks=6), *queue[1:])
    pod = PodFact(
        at - 700.0, None, "team-a", "llama-worker-0", "PyTorchJob", "llama", gpus=8, waiting="Unschedulable"
    )
    offered = [job for job in queue if job.reason in ("Resources", "Priority")]
    held = [job for job in queue if job not in offered]
    slurm = [job for job in jobs if job.workload_key is None]
    fact = QueueFact(at - 20.0, _demand(slurm), _demand(offered), _demand(held), at + 1500.0)
    return replace(
        snapshot, jobs=tuple(jobs), queue=(*queue, pod_job(pod)), queues={"slurm": fact}, events=_events(snapshot, jobs)
    )  # fmt: skip


def _demand(jobs: Iterable[Job]) -> Demand:
    jobs = tuple(jobs)
    gpus = sum((job.gpu_count or len(job.gpus)) * job.tasks for job in jobs)
    return Demand(sum(job.tasks for job in jobs), gpus)


def ended(at: float) -> Job:
    """An array's task that is there no more."""
    return Job("slurm:4650", "eval", "kim", at - 9000.0, ("r01n01",), (), "nlp", "gpu", display="4600_2")


def _events(snapshot: Snapshot, jobs: list[Job]) -> tuple[EventView, ...]:
    at, node = snapshot.at, snapshot.layout.nodes[0].key
    found = [
        *snapshot.events,
        EventView(at - 90_000, node, "driver", "driver 570.86.15 -> 580.95.05"),
        EventView(at - 3000, jobs[2].id, "job_requeue", "rsun's vit-large waits again: BeginTime", jobs[2]),
        EventView(
            at - 2400, "slurm:4650", "job_end", "kim's eval ended: COMPLETED on 8 GPUs of r01n01", ended(at)
        ),
        EventView(at - 1800, jobs[0].id, "job_start", "kim's train-moe started on 8 GPUs of r01n01", jobs[0]),
        EventView(at - 900, snapshot.layout.nodes[-1].key, "drain", "idle -> drain: bad DIMM (root)"),
        EventView(at - 30, f"{node}/2", "xid", "XID 31: memory page fault"),
    ]
    return tuple(sorted(found, key=lambda event: event.at))


def night_of_jobs() -> Snapshot:
    """The night of make_snapshot with its jobs and their queue."""
    return with_queue(make_snapshot())


def crowd(waiting: int = 20_000) -> Snapshot:
    """A cluster of 8,192 GPUs and a queue of thousands."""
    snapshot = make_snapshot(64, 16, 8, jobs_known=True)
    return replace(snapshot, queue=tuple(waiting_job(number, snapshot.at) for number in range(waiting)))


def hostile() -> Snapshot:
    """Every text of a job that other people write, at its worst."""
    snapshot = with_queue(make_snapshot(4, 4, 8))
    long = "x" * 10_000
    bad = replace(
        snapshot.jobs[0], id=f"slurm:{HOSTILE}", name=HOSTILE, user=HOSTILE, account=HOSTILE, partition=HOSTILE, qos=HOSTILE,
        nodes=(HOSTILE, *snapshot.jobs[0].nodes, "a,b[1-99999999]"), state=HOSTILE, display=HOSTILE, dependency=HOSTILE,
    )  # fmt: skip
    waits = replace(
        snapshot.queue[0], name=long, user=long, reason=HOSTILE, dependency=long, display="", id="slurm:1"
    )
    event = EventView(snapshot.at - 1, bad.id, HOSTILE, HOSTILE)
    return replace(
        snapshot,
        jobs=(bad, *snapshot.jobs[1:]),
        queue=(waits, *snapshot.queue[1:]),
        events=(*snapshot.events, event),
    )


def without_values(snapshot: Snapshot, key: str, job: int) -> Snapshot:
    """The GPUs of a job have no value of a metric."""
    column = snapshot.columns[key]
    values = column.values.copy()
    values[list(snapshot.jobs[job].gpus)] = np.nan
    return replace(snapshot, columns={**snapshot.columns, key: replace(column, values=values)})
