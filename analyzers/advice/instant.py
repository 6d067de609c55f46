"""The four utilisations of one instant, measured as those of a window are: a pool of a single bin."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from coldaisle.analyzers.advice.measuring import utilisations
from coldaisle.analyzers.advice.pool import Pool
from coldaisle.analyzers.advice.settings import Common, table
from coldaisle.analyzers.advice.utilisation import Utilisations
from coldaisle.analyzers.snapshot import Snapshot
from coldaisle.analyzers.usage import Board, Stay, Usage
from coldaisle.sources.source import Missing

KEYS = ("gpu.util", "gpu.gr_active", "gpu.sm_active", "gpu.tensor_active", "gpu.dram_active", "gpu.sm_clock")
BIN_S = 60.0
"""Of no account for ratios; a job has to hold its GPUs at the middle of it."""


@dataclass(frozen=True, slots=True)
class Waiting:
    """What is short: jobs that wait for GPUs which nobody has."""

    jobs: int
    gpus: int


def waiting(snapshot: Snapshot) -> Waiting:
    """Jobs that wait for resources or for their turn, and the GPUs that they ask for; held and limited ones do not count."""
    from coldaisle.analyzers.jobs import gpus_of

    jobs = gpus = 0
    for job in snapshot.queue:
        count = gpus_of(job)
        if count > 0 and (job.reason or "").partition(",")[0] in WAITS_FOR_GPUS:
            tasks = max(job.tasks, 1)
            jobs, gpus = jobs + tasks, gpus + int(count) * tasks
    return Waiting(jobs, gpus)


WAITS_FOR_GPUS = frozenset({"Resources", "Priority", "None", ""})
"""Reasons of Slurm behind which a job would run if there were more GPUs."""


def utilisations_now(snapshot: Snapshot) -> Utilisations:
    """Of the whole cluster and its parts; boards alone, what is stale or missing counts as not measured."""
    return utilisations(Pool(usage_of_snapshot(snapshot), table("common", Common, {})))


def usage_of_snapshot(snapshot: Snapshot) -> Usage:
    """One bin that holds what a snapshot shows."""
    layout = snapshot.layout
    boards = layout.boards
    place = {int(gpu): number for number, gpu in enumerate(boards)}
    means = {}
    for key in KEYS:
        column = snapshot.column(key)
        if column is not None and len(column.values) == len(layout.gpus):
            fresh = np.where(column.reason == Missing.STALE, np.float32(np.nan), column.values)
            means[key] = fresh[boards][np.newaxis, :].astype(np.float32)
    start = snapshot.at - BIN_S / 2
    return Usage(
        starts=np.array([start]),
        step=BIN_S,
        boards=tuple(_board(snapshot, int(gpu)) for gpu in boards),
        hosts=(),
        means=means,
        stays=_stays(snapshot, place, start - 1.0),
        jobs_known=snapshot.jobs_known,
        source="the newest samples",
    )


def _board(snapshot: Snapshot, number: int) -> Board:
    layout = snapshot.layout
    gpu = layout.gpus[number]
    node = layout.nodes[gpu.node]
    memory = float(gpu.memory_bytes) if gpu.memory_bytes else float("nan")
    return Board(gpu.key, node.key, layout.racks[node.rack].name, gpu.model or "", memory)


def _stays(snapshot: Snapshot, place: dict[int, int], since: float) -> tuple[Stay, ...]:
    gpus, nothing = snapshot.layout.gpus, float("nan")
    found = []
    for job in snapshot.jobs:
        held = (gpus[gpu].parent if gpus[gpu].parent >= 0 else gpu for gpu in job.gpus)
        boards = tuple(dict.fromkeys(place[gpu] for gpu in held if gpu in place))
        found.append(
            Stay(
                id=job.id,
                name=job.name,
                user=job.user,
                account=job.account or "",
                partition=job.partition or "",
                submitted_at=nothing,
                started_at=since,
                ended_at=nothing,
                state=job.state,
                gpu_count=len(boards),
                boards=boards,
            )
        )
    return tuple(found)
