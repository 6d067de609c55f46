"""The cluster that the numbers describe: racks, nodes, GPUs, ports, disks, servers, jobs.

:class:`Cluster` joins what every source says into one set of entities with stable history rows;
:class:`Layout` is the immutable picture of it, in the order in which people read racks. Rows never
move: renaming or joining an entity keeps its history.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from .source import Kind

Rows = NDArray[np.intp]


@dataclass(frozen=True, slots=True)
class Rack:
    """A rack, or a sensible group of nodes where no rack is known."""

    name: str
    place: str
    """How the place is known: ``racks.csv``, ``pattern``, ``simulator``, ``learnt from names``, ``no rack known: ...``."""
    nodes: range
    """Indices into Layout.nodes."""
    gpus: range
    """Indices into Layout.gpus: all of its nodes' GPUs, MIG instances included."""


@dataclass(frozen=True, slots=True)
class Node:
    """A node, in the words of whoever knows it best. None: nobody said."""

    key: str
    rack: int
    """Index into Layout.racks."""
    gpus: range
    ports: range
    disks: range
    servers: range
    aliases: tuple[str, ...] = ()
    hostname: str | None = None
    cpus: int | None = None
    memory_bytes: int | None = None
    kernel: str | None = None
    driver: str | None = None
    booted_at: float | None = None
    gpus_expected: int | None = None
    """GPUs the kernel or an inventory knows."""
    gpus_visible: int | None = None
    """GPUs our user may open there; None: all."""
    clock_offset_s: float | None = None
    state: str | None = None
    """The scheduler's: idle, alloc, drain, down."""
    problem: str | None = None


@dataclass(frozen=True, slots=True)
class Gpu:
    """A GPU at its position (node, slot), or a MIG instance of one."""

    key: str
    """``n03/5``, or ``n03/5:gi1``."""
    node: int
    """Index into Layout.nodes."""
    slot: int
    parent: int = -1
    """Index of its board in Layout.gpus; -1: it is a board."""
    uuid: str | None = None
    pci: str | None = None
    minor: int | None = None
    index: int | None = None
    mig: str | None = None
    model: str | None = None
    memory_bytes: int | None = None
    power_limit_w: float | None = None
    power_max_w: float | None = None
    slowdown_c: float | None = None
    mig_profile: str | None = None
    mig_enabled: bool | None = None
    serial: str | None = None
    fabric: str | None = None
    since: float | None = None
    """Since when this board is in this slot, if it was seen to change."""


@dataclass(frozen=True, slots=True)
class Part:
    """A port, disk or server of a node."""

    key: str
    """``n03/mlx5_0/1``"""
    node: int
    name: str


@dataclass(frozen=True, slots=True)
class Job:
    """A job that holds GPUs now. ``name``, ``user``, ``account`` are other people's text."""

    id: str
    name: str
    user: str
    since: float
    nodes: tuple[str, ...]
    gpus: tuple[int, ...]
    """Indices into Layout.gpus."""
    account: str | None = None
    partition: str | None = None
    state: str = "RUNNING"
    limit_at: float | None = None
    workload: str | None = None

    @property
    def bare_id(self) -> str:
        """``4711`` of ``slurm:4711``."""
        return self.id.partition(":")[2] or self.id


@dataclass(frozen=True, slots=True, eq=False)
class Layout:
    """The cluster, frozen, in reading order: racks, their nodes, their slots. The same object while nothing changed."""

    version: int
    racks: tuple[Rack, ...] = ()
    nodes: tuple[Node, ...] = ()
    gpus: tuple[Gpu, ...] = ()
    ports: tuple[Part, ...] = ()
    disks: tuple[Part, ...] = ()
    servers: tuple[Part, ...] = ()
    rows: Mapping[Kind, Rows] = field(default_factory=dict)
    """History row of each entity of a kind, in the order of the tuples above."""
    node_of: Mapping[str, int] = field(default_factory=dict)
    gpu_of: Mapping[str, int] = field(default_factory=dict)
    boards: Rows = field(default_factory=lambda: np.zeros(0, dtype=np.intp))
    """Indices of the GPUs that are whole boards."""
