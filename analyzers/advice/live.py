"""Counsel while the program runs: from the hour that the history has, once a minute, giving way between steps.

Whole minutes are kept by metric and only new ones are folded: at 8,192 GPUs that is a millisecond a metric.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Mapping

import numpy as np

from coldaisle.analyzers.advice.advice import NO_COUNSEL, Counsel
from coldaisle.analyzers.advice.counsel import steps
from coldaisle.analyzers.advice.settings import Settings
from coldaisle.analyzers.finding import JobClass
from coldaisle.analyzers.jobs import gpus_of
from coldaisle.analyzers.snapshot import Snapshot
from coldaisle.analyzers.usage import Board, Floats, Host, Stay, Usage
from coldaisle.analyzers.view import View
from coldaisle.sources.cluster import EMPTY, Job, Layout
from coldaisle.sources.history import MINUTE
from coldaisle.sources.source import Kind

log = logging.getLogger(__name__)

MINUTES = 60
BOARD_METRICS = (
    "gpu.util", "gpu.gr_active", "gpu.sm_active", "gpu.tensor_active", "gpu.dram_active", "gpu.power", "gpu.mem_used",
    "gpu.sm_clock", "gpu.nvlink_tx", "gpu.nvlink_rx", "gpu.thermal_violation",
)  # fmt: skip
HOST_METRICS = ("node.cpu_util", "node.cpu_iowait")
LATE = 2
"""Whole minutes that are read again: slow sources tell of them after they are over."""
SOON_S = 5.0
"""Between two looks while sources still tell the past."""


class Book:
    """What one look leaves to the next, as long as the layout stays: whole minutes by metric, boards, hosts, ended jobs."""

    def __init__(self, view: View) -> None:
        self.view = view
        self._layout = EMPTY
        self._reach = math.inf
        self._kept: dict[str, tuple[int, Floats]] = {}
        """By key: the last minute (epoch) and [minute, entity]."""
        self.over: dict[tuple[str, float], Stay] = {}
        """Jobs that have ended, by id and end."""
        self.boards: tuple[Board, ...] = ()
        self.hosts: tuple[Host, ...] = ()

    def turn_to(self, layout: Layout) -> None:
        """What was kept is of no use for another layout; of the minutes, nor when more of the past has become known."""
        reach = self.view.history.reach
        if layout is not self._layout:
            self.over.clear()
            self.boards, self.hosts = _boards(layout), _hosts(layout)
        if layout is not self._layout or reach < self._reach:
            self._kept.clear()
        self._layout, self._reach = layout, reach

    def minutes(self, key: str, kind: Kind, at: float) -> Floats:
        """[minute, board or node], the newest whole minute before ``at`` last."""
        rows = self._layout.rows.get(kind, np.zeros(0, dtype=np.intp))
        rows = rows[self._layout.boards] if kind is Kind.GPU and len(rows) else rows
        last = int(at // MINUTE)
        before, kept = self._kept.get(key, (0, np.zeros((0, len(rows)), dtype=np.float32)))
        new = min(last - before, MINUTES) if last >= before else MINUTES
        if new:
            new = min(new + LATE, MINUTES)
            size = int(rows.max(initial=-1)) + 1
            folded = self.view.history.folded(key, size, at, new)[0]
            fresh = folded[:, np.maximum(rows, 0)]
            fresh[:, rows < 0] = np.nan
            kept = np.concatenate([kept[-(MINUTES - new) :] if new < MINUTES else kept[:0], fresh])
            self._kept[key] = (last, kept)
        if len(kept) == MINUTES:
            return kept
        missing = np.full((MINUTES - len(kept), len(rows)), np.nan, dtype=np.float32)
        return np.concatenate([missing, kept])


class Counsellor:
    """The counsel of one view, minute by minute. Lives where the view does: on the monitor's loop."""

    def __init__(self, view: View, settings: Settings) -> None:
        self.view = view
        self.settings = settings
        self.newest: Counsel = NO_COUNSEL
        self.look_s = 0.0
        """CPU seconds of the last look, without what others did between its steps."""
        self._book = Book(view)
        self._looked_at = self._reached = math.inf

    def is_due(self, now: float) -> bool:
        """Whether a minute has passed since the last look, the clock was set back, or more of the past has become known."""
        if now - self._looked_at >= SOON_S and self.view.history.reach < self._reached - MINUTE:
            return True
        return not 0 <= now - self._looked_at < MINUTE or now // MINUTE > self._looked_at // MINUTE

    async def look(self, snapshot: Snapshot) -> Counsel:
        """Make it anew; a mistake there keeps the old one, and silences nothing else."""
        self._looked_at, self._reached = snapshot.at, self.view.history.reach
        try:
            await self._look(snapshot)
        except Exception:  # supervision
            log.exception("advice failed")
        return self.newest

    async def _look(self, snapshot: Snapshot) -> None:
        spent, began = 0.0, time.thread_time()
        self._book.turn_to(snapshot.layout)
        for key in (*BOARD_METRICS, *HOST_METRICS):
            if self.view.history.step_of(key) is not None:
                kind = Kind.NODE if key.startswith("node.") else Kind.GPU
                self._book.minutes(key, kind, snapshot.at)
                spent += time.thread_time() - began
                await asyncio.sleep(0)
                began = time.thread_time()
        usage = usage_of_history(self.view, snapshot, self._book)
        found = NO_COUNSEL
        for step in steps(usage, self.settings):
            found = step
            spent += time.thread_time() - began
            await asyncio.sleep(0)
            began = time.thread_time()
        self.newest, self.look_s = found, spent


def usage_of_history(view: View, snapshot: Snapshot, book: Book | None = None) -> Usage:
    """The last hour, or what is known of it, in whole minutes up to the snapshot's; boards alone, without MIG instances."""
    if book is None:
        book = Book(view)
        book.turn_to(snapshot.layout)
    at, layout = snapshot.at, snapshot.layout
    delivered = [key for key in (*BOARD_METRICS, *HOST_METRICS) if view.history.step_of(key) is not None]
    means = {key: book.minutes(key, Kind.GPU, at) for key in delivered if not key.startswith("node.")}
    hosts = {key: book.minutes(key, Kind.NODE, at) for key in delivered if key.startswith("node.")}
    for values in means.values():
        values[:, _cut(layout)] = np.nan  # cut into instances: its own activity says nothing
    end = at // MINUTE * MINUTE
    reach = view.history.reach
    whole = (
        0
        if math.isinf(reach)
        else int(min(max((end - math.floor(reach / MINUTE) * MINUTE) / MINUTE, 0), MINUTES))
    )
    return Usage(
        starts=end - MINUTE * np.arange(whole, 0, -1.0),
        step=MINUTE,
        boards=book.boards,
        hosts=book.hosts,
        means={key: values[MINUTES - whole :] for key, values in means.items()},
        host_means={key: values[MINUTES - whole :] for key, values in hosts.items()},
        stays=_stays(view, snapshot, book),
        jobs_known=snapshot.jobs_known,
        source="this program's own history",
    )


def _cut(layout: Layout) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    """[board] whether it is cut into MIG instances."""
    parents = {gpu.parent for gpu in layout.gpus if gpu.parent >= 0}
    return np.array([int(board) in parents for board in layout.boards], dtype=np.bool_)


def _boards(layout: Layout) -> tuple[Board, ...]:
    found = []
    for number in layout.boards.tolist():
        gpu = layout.gpus[number]
        node = layout.nodes[gpu.node]
        found.append(
            Board(
                gpu.key,
                node.key,
                layout.racks[node.rack].name,
                gpu.model or "",
                float(gpu.memory_bytes) if gpu.memory_bytes else math.nan,
                node.partitions[0] if node.partitions else "",
            )
        )
    return tuple(found)


def _hosts(layout: Layout) -> tuple[Host, ...]:
    return tuple(
        Host(
            node.key,
            layout.racks[node.rack].name,
            node.cpus,
            float(node.memory_bytes) if node.memory_bytes else math.nan,
            node.state or "",
            node.cpus_used,
            math.nan if node.memory_used_bytes is None else float(node.memory_used_bytes),
        )
        for node in layout.nodes
    )


def _stays(view: View, snapshot: Snapshot, book: Book) -> tuple[Stay, ...]:
    layout, at = snapshot.layout, snapshot.at
    position = {int(gpu): number for number, gpu in enumerate(layout.boards)}
    classes = snapshot.diagnosis.jobs

    def stay(job: Job, ended: float = math.nan) -> Stay:
        return _stay(job, layout, position, classes, ended)

    for key in [key for key in book.over if key[1] < at - (MINUTES + 1) * MINUTE]:
        del book.over[key]
    book.over |= {(job.id, until): stay(job, until) for job, until in view.ended(book.over) if until <= at}
    return (
        *book.over.values(),
        *(stay(job) for job in snapshot.jobs),
        *(stay(job) for job in snapshot.queue),
    )


def _stay(
    job: Job, layout: Layout, position: Mapping[int, int], classes: Mapping[str, JobClass], ended: float
) -> Stay:
    gpus = (layout.gpus[gpu].parent if layout.gpus[gpu].parent >= 0 else gpu for gpu in job.gpus)
    boards = tuple(dict.fromkeys(position[gpu] for gpu in gpus if gpu in position))
    count = gpus_of(job)
    known = classes.get(job.id)
    number = 0 if math.isnan(count) else int(count) * (max(job.tasks, 1) if job.is_waiting else 1)
    submitted = (
        job.submitted_at if job.submitted_at is not None else job.since if job.is_waiting else math.nan
    )
    return Stay(
        id=job.id,
        name=job.name,
        user=job.user,
        account=job.account or "",
        partition=job.partition or "",
        submitted_at=submitted,
        started_at=math.nan if job.is_waiting else job.since,
        ended_at=ended,
        state=job.state,
        gpu_count=number or len(boards),
        reason=job.reason or "",
        boards=boards if boards or not number else None,
        hosts=tuple(layout.node_of[node] for node in job.nodes if node in layout.node_of),
        cores=job.cpus,
        memory_asked_bytes=math.nan if job.memory_bytes is None else float(job.memory_bytes),
        limit_s=math.nan if job.limit_at is None or job.is_waiting else job.limit_at - job.since,
        workload="" if known is None else str(known.workload),
    )
