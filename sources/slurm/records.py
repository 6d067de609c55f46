"""What Slurm says, whichever way it was asked and in whatever release: jobs, nodes, the controller. Times are its own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from coldaisle.sources.source import Gres, Partition

MAX_JOBS = 200_000
MAX_NODES = 20_000
MAX_PARTITIONS = 1_000
MAX_WORDS = 400
"""Characters of a name or a reason that are kept."""


class Board(NamedTuple):
    """GPUs of one node that a job has, by Slurm's numbers."""

    node: str
    numbers: tuple[int, ...]
    is_mig: bool = False


class SlurmJob(NamedTuple):
    """A job. Times in seconds since the epoch by slurmctld's clock; None: not set, or not told."""

    id: int
    display: str
    name: str
    user: str
    account: str | None
    partition: str | None
    qos: str | None
    state: str
    """``RUNNING``, ``PENDING``, ``COMPLETING``, ``SUSPENDED``, ``COMPLETED``, ``FAILED`` ..."""
    is_waiting: bool
    is_holding: bool
    """It has its nodes."""
    reason: str | None
    submitted: float | None
    eligible: float | None
    start: float | None
    """Of one that waits: when it is expected to start."""
    end: float | None
    """Of one that runs: when its time limit ends it."""
    limit_s: float | None
    nodes: tuple[str, ...]
    boards: tuple[Board, ...]
    """Empty: not told which."""
    gpus: int | None
    """Held; of one that waits, asked for."""
    shares: int | None
    cpus: int | None
    memory: int | None
    """Bytes."""
    gpus_asked: int | None
    cpus_asked: int | None
    memory_asked: int | None
    nodes_asked: int | None
    dependency: str | None
    tasks: int
    restarts: int | None


class SlurmNode(NamedTuple):
    """A node. None: not told."""

    name: str
    hostname: str | None
    address: str | None
    state: str
    flags: tuple[str, ...]
    reason: str
    reason_by: str | None
    reason_at: float | None
    gres: tuple[Gres, ...]
    gpus_used: int | None
    cpus: int | None
    cpus_used: int | None
    memory: int | None
    memory_used: int | None
    features: tuple[str, ...]
    partitions: tuple[str, ...]
    booted: float | None
    system: str | None
    topology: str | None = None
    """``default:spine:leaf1``, where the release says so."""


class Diagnosis(NamedTuple):
    """How slurmctld is doing."""

    at: float | None
    """Its clock."""
    threads: int | None
    """Requests that it works on now; it takes 256."""
    agents: int | None
    """Messages to nodes that wait to be sent."""
    rpcs: Mapping[str, int]
    """Requests since its statistics were reset, by kind."""


class Jobs(NamedTuple):
    """All jobs at an instant."""

    jobs: list[SlurmJob]
    updated: float | None = None
    """When slurmctld last changed any, by its clock."""
    left_out: int = 0
    """Jobs that could not be read, or were too many."""


class Nodes(NamedTuple):
    """All nodes at an instant."""

    nodes: list[SlurmNode]
    left_out: int = 0


class Partitions(NamedTuple):
    """All partitions at an instant."""

    partitions: list[Partition]
    left_out: int = 0


class Topology(NamedTuple):
    """The fabric as Slurm's configuration has it: switches, or blocks."""

    switches: Mapping[str, tuple[str, ...]]
    """Node → its leaf switch or block, then upwards."""
    source: str
    """``topology.conf``, ``topology.yaml``, ``scontrol show topology``."""
    kind: str = "tree"
    """``tree``, ``block``, ``ring``."""
