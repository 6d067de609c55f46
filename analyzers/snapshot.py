"""What the screen is given: an immutable picture of the cluster at one instant.

The monitor builds one a tick, or one of a past instant, off the screen's thread. Arrays are in the order of
:class:`~coldaisle.sources.cluster.Layout`, not of the history's rows.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

from coldaisle.analyzers.advice.advice import NO_COUNSEL, Counsel
from coldaisle.analyzers.finding import NO_DIAGNOSIS, Diagnosis
from coldaisle.sources.cluster import Job, Layout
from coldaisle.sources.source import (
    Codes,
    Floats,
    Partition,
    Process,
    QueueFact,
    ServiceFact,
    Target,
)

Times = NDArray[np.float64]


class Status(IntEnum):
    """How far an entity's readings can be trusted now."""

    UNKNOWN = 0  # never seen a sample
    OK = 1
    STALE = 2  # last sample older than three periods
    LOST = 3  # the GPU is lost, or nothing has been heard for long


@dataclass(frozen=True, slots=True, eq=False)
class Column:
    """One metric over all entities of its kind, [entity] each."""

    values: Floats
    """NaN: missing; a stale value is kept, with reason STALE."""
    at: Times
    """When it was sampled; NaN: never."""
    reason: Codes
    """source.Missing"""
    source: Codes
    """Index into Snapshot.sources; 255: none."""


@dataclass(frozen=True, slots=True)
class Coverage:
    """What was heard from, of what is expected."""

    nodes: int
    nodes_expected: int
    gpus: int
    gpus_expected: int


@dataclass(frozen=True, slots=True)
class SourceView:
    """A source's state, for the header and the Sources screen."""

    name: str
    kind: str
    state: str
    """ok, slow, stale, failing, denied, connecting (source.TargetState), or partial: some of its targets do not deliver"""
    why: str
    """In a sentence, foreign text possible; empty when ok."""
    remedy: str
    interval: float
    period: float | None
    """Seconds between its samples, as learnt."""
    last_at: float | None
    """When its last sample came."""
    targets: tuple[Target, ...]
    targets_ok: int
    latency_s: float | None
    """Median of its targets'."""
    metrics: tuple[str, ...]
    """Keys that it has delivered, ever."""
    restarts: int = 0
    retry_at: float | None = None


@dataclass(frozen=True, slots=True)
class EventView:
    """An event with its entity's key as it is known now."""

    at: float
    entity: str
    kind: str
    detail: str
    job: Job | None = None
    """The job that it happened to, as it was then, also after its end; which GPUs it held is not told."""


@dataclass(frozen=True, slots=True)
class Join:
    """Two names found to be one entity, or a conflict that was left alone."""

    at: float
    name: str
    joined: str
    """The key it belongs to."""
    how: str
    """``GPU UUID``, ``hostname``, ``configuration``, ``short name``"""
    conflict: bool = False


@dataclass(frozen=True, slots=True)
class Cost:
    """What coldaisle itself takes."""

    cpu: float
    """Share of one core, over the last seconds, all threads."""
    rss_bytes: int
    tick_s: float
    """Wall time the last tick took."""
    history_bytes: int
    look_s: float = 0.0
    """Wall time that the last look at what is wrong took."""


SCHEDULERS = ("slurm",)
"""Kinds of source that know who holds what, and measure nothing."""
LIVE_ONLY = "live only"
"""The state, at a past instant, of a source that remembers nothing."""
TOLD_NOTHING = "no data"
"""The state, at a past instant, of a source that remembers, but nothing of then."""


@dataclass(frozen=True, slots=True)
class Reading:
    """What is being read of the past."""

    start: float
    end: float
    sources: tuple[str, ...]
    """Names of those that still tell."""
    share: float
    """Of what is wanted, 0..1."""


@dataclass(frozen=True, slots=True)
class Travel:
    """How a journey to a past instant stands."""

    wanted: float
    """The instant that was asked for last; the snapshot shows it when enough was read."""
    reading: Reading | None = None
    problem: str = ""
    """Why it cannot be shown; empty: it can, or that is not known yet."""
    remedy: str = ""
    live: tuple[tuple[str, str], ...] = ()
    """Name and state of every source now, while the past is shown."""


@dataclass(frozen=True, slots=True, eq=False)
class Snapshot:
    """Everything a screen shows that is not a chart over time."""

    at: float
    """Now, or the past instant that it shows."""
    name: str
    live: bool
    layout: Layout
    columns: Mapping[str, Column]
    """By catalog key; a key nobody delivers is absent. Of ``job.*`` in the order of ``jobs``."""
    gpu_status: Codes
    """[gpu] Status"""
    gpu_seen: Times
    """[gpu] when it was last heard of; NaN: never"""
    node_status: Codes
    node_seen: Times
    jobs: tuple[Job, ...]
    gpu_job: NDArray[np.int32]
    """[gpu] index into jobs; -1: none known."""
    jobs_known: bool
    """Whether any source says which GPUs are held: only then is a GPU without a job free."""
    sources: tuple[SourceView, ...]
    coverage: Coverage
    events: tuple[EventView, ...] = ()
    """Newest last, at most 2,000."""
    processes: Mapping[str, tuple[Process, ...]] = field(default_factory=dict)
    """By node key."""
    joins: tuple[Join, ...] = ()
    cost: Cost | None = None
    server_status: Codes = field(default_factory=lambda: np.zeros(0, dtype=np.uint8))
    """[server] Status"""
    server_seen: Times = field(default_factory=lambda: np.zeros(0))
    replicas: Mapping[str, ServiceFact] = field(default_factory=dict)
    """By Server.service: how many should be there, and how many are ready."""
    gpu_unnamed: NDArray[np.bool_] = field(default_factory=lambda: np.zeros(0, dtype=np.bool_))
    """[gpu] no job is known, yet on its node more GPUs are held than are named: it may be one of them. Empty: none."""
    travel: Travel | None = None
    """None: nobody travels."""
    queue: tuple[Job, ...] = ()
    """Jobs that wait for their start, as the scheduler's queue has them, then pods that wait for GPUs, the longest first
    each; ``jobs`` are the others."""
    queues: Mapping[str, QueueFact] = field(default_factory=dict)
    """By source: what its queue comes to."""
    diagnosis: Diagnosis = NO_DIAGNOSIS
    """What is wrong, as triage stands by it at this instant."""
    partitions: tuple[Partition, ...] = ()
    """Of all schedulers that have some."""
    counsel: Counsel = NO_COUNSEL
    """What to do with the cluster, from what the history still has: made anew once a minute, of live pictures only."""

    @property
    def is_jobs_only(self) -> bool:
        """Whether schedulers are all that is asked: they measure nothing, and no node is silent for that."""
        return bool(self.sources) and all(source.kind in SCHEDULERS for source in self.sources)

    def column(self, key: str) -> Column | None:
        """The column of a metric, or None if nobody delivers it."""
        return self.columns.get(key)


@dataclass(frozen=True, slots=True)
class SeriesQuery:
    """Ask for metrics over time; answered off the screen's thread."""

    keys: tuple[str, ...]
    """Catalog keys, all of one kind."""
    entities: tuple[str, ...]
    """Entity keys: ``n03/5``, ``n03``, ``n03/mlx5_0/1``."""
    start: float
    end: float
    points: int
    """Number of equal bins in [start, end)."""


@dataclass(frozen=True, slots=True, eq=False)
class SeriesAnswer:
    """Means a bin; NaN where a bin holds no sample."""

    query: SeriesQuery
    times: Times
    """[points] the middle of each bin"""
    values: Mapping[str, Floats]
    """By key: [entity, points]"""
