"""The cluster that the numbers describe: racks, nodes, GPUs, ports, disks, servers, jobs.

:class:`~coldaisle.sources.registry.Registry` knows who is who; a :class:`Layout` is the immutable picture
of it, in the order in which people read racks.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from coldaisle.sources.racks import Placement, RackRules, place
from coldaisle.sources.registry import GpuRecord, NodeRecord, PartRecord, Registry
from coldaisle.sources.servers import NOWHERE, Placed, place_servers
from coldaisle.sources.source import GpuFact, GpuRef, Gres, JobFact, Kind, NodeFact, ServerFact
from coldaisle.sources.text import natural_key

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
    flags: tuple[str, ...] = ()
    """All the scheduler's words for its state: idle, drain, not_responding."""
    reason: str | None = None
    """Why it is drained or down; other people's text."""
    reason_by: str | None = None
    reason_at: float | None = None
    gres: tuple[Gres, ...] = ()
    gpus_used: int | None = None
    """How many of its GPUs the scheduler has given away."""
    cpus_used: int | None = None
    memory_used_bytes: int | None = None
    features: tuple[str, ...] = ()
    partitions: tuple[str, ...] = ()
    switches: tuple[str, ...] = ()
    """Of the fabric, as the scheduler's topology has it: the leaf (or block) first, then upwards."""

    @property
    def leaf(self) -> str | None:
        """Its leaf switch, or block."""
        return self.switches[0] if self.switches else None


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
    """A port or disk of a node."""

    key: str
    """``n03/mlx5_0/1``"""
    node: int
    name: str


@dataclass(frozen=True, slots=True)
class Server(Part):
    """An inference server on a node. None: nobody said. All texts are other people's."""

    gpus: tuple[int, ...] = ()
    """Indices into Layout.gpus: the boards it runs on; empty: none, or not known."""
    gpus_known_by: str | None = None
    """How that is known (see :mod:`.servers`); None: it is not."""
    engine: str | None = None
    model: str | None = None
    service: str | None = None
    """The deployment it is a replica of."""
    version: str | None = None
    pod: str | None = None
    namespace: str | None = None
    absent: tuple[str, ...] = ()
    """Catalog keys that its engine does not expose at all."""


@dataclass(frozen=True, slots=True)
class Job:
    """A job that runs now, or waits (see source.JobFact). ``name``, ``user``, ``account`` are other people's text."""

    id: str
    name: str
    user: str
    since: float
    """When it started; of one that waits, when it was submitted."""
    nodes: tuple[str, ...]
    gpus: tuple[int, ...]
    """Indices into Layout.gpus."""
    account: str | None = None
    partition: str | None = None
    state: str = "RUNNING"
    limit_at: float | None = None
    workload: str | None = None
    gpus_known_by: str | None = None
    """How it is known which GPUs these are, where that is less than certain; None: by their UUIDs, or not at all."""
    display: str = ""
    qos: str | None = None
    reason: str | None = None
    submitted_at: float | None = None
    eligible_at: float | None = None
    expected_at: float | None = None
    cpus: int | None = None
    memory_bytes: int | None = None
    gpu_count: int | None = None
    """How many it holds, or asks for while it waits, whether or not it is known which; see ``gpus``."""
    shares: int | None = None
    cpus_asked: int | None = None
    memory_asked_bytes: int | None = None
    gpus_asked: int | None = None
    nodes_asked: int | None = None
    dependency: str | None = None
    tasks: int = 1
    restarts: int | None = None

    @property
    def is_waiting(self) -> bool:
        """Whether it waits for its start and holds nothing."""
        return self.state == "PENDING" and not self.nodes

    @property
    def bare_id(self) -> str:
        """``4711`` of ``slurm:4711``."""
        return self.id.partition(":")[2] or self.id

    @property
    def workload_key(self) -> tuple[str, str, str] | None:
        """(namespace, kind, owner) of ``k8s:team-a/PyTorchJob/llama``; None: not of Kubernetes."""
        namespace, _, rest = self.id.removeprefix("k8s:").partition("/")
        kind, _, owner = rest.partition("/")
        return (namespace, kind, owner) if owner and self.id.startswith("k8s:") else None

    @property
    def title(self) -> str:
        """As people say it: ``4711``, ``4700_3``; ``team-a/llama (PyTorchJob)`` of ``k8s:team-a/PyTorchJob/llama``."""
        if self.workload_key is None:
            return self.display or self.bare_id
        namespace, kind, owner = self.workload_key
        return f"{namespace}/{owner} ({kind})"


@dataclass(frozen=True, slots=True, eq=False)
class Layout:
    """The cluster, frozen, in reading order: racks, their nodes, their slots. The same object while nothing changed."""

    version: int
    racks: tuple[Rack, ...] = ()
    nodes: tuple[Node, ...] = ()
    gpus: tuple[Gpu, ...] = ()
    ports: tuple[Part, ...] = ()
    disks: tuple[Part, ...] = ()
    servers: tuple[Server, ...] = ()
    rows: Mapping[Kind, Rows] = field(default_factory=dict)
    """History row of each entity of a kind, in the order of the tuples above."""
    node_of: Mapping[str, int] = field(default_factory=dict)
    gpu_of: Mapping[str, int] = field(default_factory=dict)
    boards: Rows = field(default_factory=lambda: np.zeros(0, dtype=np.intp))
    """Indices of the GPUs that are whole boards."""


EMPTY = Layout(0)


def build_layout(registry: Registry, rules: RackRules) -> Layout:
    """The registry's picture: racks in natural order, their nodes, their slots; rows by kind beside it."""
    nodes = [node for node in registry.nodes if node.joined_to is None]
    reported = {n.key: (n.fact.rack, n.fact.place or "its source") for n in nodes if n.fact and n.fact.rack}
    placements = place([node.key for node in nodes], rules, reported)
    by_key = {node.key: node for node in nodes}
    nodes = [by_key[key] for key in placements]
    builder = _Builder(registry)
    for position, record in enumerate(nodes):
        builder.add_node(record, placements[record.key], last=position == len(nodes) - 1)
    return builder.layout()


class _Builder:
    """Collects entities in reading order."""

    def __init__(self, registry: Registry) -> None:
        self.registry = registry
        self.racks: list[Rack] = []
        self.nodes: list[Node] = []
        self.gpus: list[Gpu] = []
        self.parts: dict[Kind, list[Part]] = {kind: [] for kind in (Kind.PORT, Kind.DISK, Kind.SERVER)}
        self.rows: dict[Kind, list[int]] = {kind: [] for kind in Kind}
        self._parts_of: dict[tuple[Kind, int], list[PartRecord]] = {}
        for kind in self.parts:
            for part in registry.parts[kind]:
                if part.joined_to is None:
                    self._parts_of.setdefault((kind, part.node), []).append(part)
        self._open: tuple[Placement, int, int] | None = None

    def add_node(self, record: NodeRecord, placement: Placement, last: bool) -> None:
        if self._open is None or self._open[0].rack != placement.rack:
            self._close_rack()
            self._open = (placement, len(self.nodes), len(self.gpus))
        number = len(self.nodes)
        self.rows[Kind.NODE].append(record.row)
        first_gpu = len(self.gpus)
        for slot, row in enumerate(record.gpus):
            self._add_board(record, number, slot, self.registry.gpus[row])
        gpus = range(first_gpu, len(self.gpus))
        ports, disks, servers = (self._add_parts(kind, record, number) for kind in self.parts)
        self.nodes.append(_node(record, len(self.racks), gpus, ports, disks, servers))
        if last:
            self._close_rack()

    def layout(self) -> Layout:
        rows = {kind: np.array(numbers, dtype=np.intp) for kind, numbers in self.rows.items()}
        racks = {part.name: part.row for part in self.registry.parts[Kind.RACK]}
        rows[Kind.RACK] = np.array([racks.get(rack.name, -1) for rack in self.racks], dtype=np.intp)
        return Layout(
            version=self.registry.version,
            racks=tuple(self.racks),
            nodes=tuple(self.nodes),
            gpus=tuple(self.gpus),
            ports=tuple(self.parts[Kind.PORT]),
            disks=tuple(self.parts[Kind.DISK]),
            servers=self._servers(),
            rows=rows,
            node_of={node.key: number for number, node in enumerate(self.nodes)},
            gpu_of={gpu.key: number for number, gpu in enumerate(self.gpus)},
            boards=np.array([n for n, gpu in enumerate(self.gpus) if gpu.parent < 0], dtype=np.intp),
        )

    def _servers(self) -> tuple[Server, ...]:
        gpus = {row: number for number, row in enumerate(self.rows[Kind.GPU])}
        placed = place_servers(self.registry)
        return tuple(
            _server(part, self._server_fact(row), placed.get(row, NOWHERE), gpus)
            for part, row in zip(self.parts[Kind.SERVER], self.rows[Kind.SERVER], strict=True)
        )

    def _server_fact(self, row: int) -> ServerFact | None:
        """What is known of a server, with the workload that its pod belongs to."""
        fact = self.registry.servers.get(row)
        if fact is None or fact.service is not None:
            return fact
        return replace(fact, service=self.registry.workloads.service_of(fact.namespace, fact.pod))

    def _close_rack(self) -> None:
        if self._open is None:
            return
        placement, node, gpu = self._open
        nodes, gpus = range(node, len(self.nodes)), range(gpu, len(self.gpus))
        self.racks.append(Rack(placement.rack, placement.how, nodes, gpus))
        self._open = None

    def _add_board(self, record: NodeRecord, node: int, slot: int, board: GpuRecord) -> None:
        number = len(self.gpus)
        key = f"{record.key}/{slot}"
        self._add_gpu(_gpu(key, node, slot, -1, board), board.row)
        for row in board.instances:
            instance = self.registry.gpus[row]
            if instance.joined_to is None:
                self._add_gpu(_gpu(f"{key}:{instance.mig}", node, slot, number, instance), row)

    def _add_gpu(self, gpu: Gpu, row: int) -> None:
        self.gpus.append(gpu)
        self.rows[Kind.GPU].append(row)

    def _add_parts(self, kind: Kind, record: NodeRecord, node: int) -> range:
        entities = self.parts[kind]
        first = len(entities)
        parts = sorted(self._parts_of.get((kind, record.row), ()), key=lambda part: natural_key(part.name))
        for part in parts:
            # A server at a name of its node is shown at the one that the node goes by.
            name = f"{record.key}{part.name}" if part.name.startswith(":") else part.name
            entities.append(Part(f"{record.key}/{name}", node, name))
            self.rows[kind].append(part.row)
        return range(first, len(entities))


def job_from(fact: JobFact, gpus: tuple[int, ...], known_by: str | None = None) -> Job:
    """A job as a snapshot has it; ``gpus``: indices into Layout.gpus."""
    return Job(
        fact.id, fact.name, fact.user, fact.since, fact.nodes, gpus, fact.account, fact.partition, fact.state,
        fact.limit_at, fact.workload, known_by, fact.display, fact.qos, fact.reason, fact.submitted_at,
        fact.eligible_at, fact.expected_at, fact.cpus, fact.memory_bytes, fact.gpu_count, fact.shares,
        fact.cpus_asked, fact.memory_asked_bytes, fact.gpus_asked, fact.nodes_asked, fact.dependency, fact.tasks,
        fact.restarts,
    )  # fmt: skip


def _node(record: NodeRecord, rack: int, gpus: range, ports: range, disks: range, servers: range) -> Node:
    fact = record.fact or NodeFact(0.0, record.key)
    return Node(
        key=record.key,
        rack=rack,
        gpus=gpus,
        ports=ports,
        disks=disks,
        servers=servers,
        aliases=tuple(name for name in record.names if name != record.key.lower()),
        hostname=fact.hostname,
        cpus=fact.cpus,
        memory_bytes=fact.memory_bytes,
        kernel=fact.kernel,
        driver=fact.driver,
        booted_at=fact.booted_at,
        gpus_expected=len(fact.gpu_pci) if fact.gpu_pci is not None else fact.gpus_expected,
        gpus_visible=fact.gpus_visible if fact.gpu_pci is not None else None,
        clock_offset_s=fact.clock_offset_s,
        state=fact.state or None,
        problem=fact.problem or None,
        flags=fact.flags or (),
        reason=fact.reason or None,
        reason_by=fact.reason_by or None,
        reason_at=fact.reason_at,
        gres=fact.gres or (),
        gpus_used=fact.gpus_used,
        cpus_used=fact.cpus_used,
        memory_used_bytes=fact.memory_used_bytes,
        features=fact.features or (),
        partitions=fact.partitions or (),
        switches=fact.switches or (),
    )


def _server(part: Part, fact: ServerFact | None, placed: Placed, gpus: Mapping[int, int]) -> Server:
    """A server with what is known of it; ``gpus``: index by history row."""
    if fact is None:
        return Server(part.key, part.node, part.name)
    return Server(
        part.key,
        part.node,
        part.name,
        gpus=tuple(sorted(gpus[row] for row in placed.gpus if row in gpus)),
        gpus_known_by=placed.known_by,
        engine=fact.engine,
        model=fact.model,
        service=fact.service,
        version=fact.version,
        pod=fact.pod,
        namespace=fact.namespace,
        absent=fact.absent or (),
    )


def _gpu(key: str, node: int, slot: int, parent: int, record: GpuRecord) -> Gpu:
    fact = record.fact or GpuFact(0.0, GpuRef(""))
    return Gpu(
        key=key,
        node=node,
        slot=slot,
        parent=parent,
        uuid=record.uuid,
        pci=record.pci,
        minor=record.minor,
        index=record.index,
        mig=record.mig,
        model=fact.model,
        memory_bytes=fact.memory_bytes,
        power_limit_w=fact.power_limit_w,
        power_max_w=fact.power_max_w,
        slowdown_c=fact.slowdown_c,
        mig_profile=fact.mig_profile,
        mig_enabled=fact.mig_enabled,
        serial=fact.serial,
        fabric=fact.fabric,
        since=record.since,
    )
