"""The seam between where numbers come from and everything that reads them.

A :class:`Source` streams :data:`Item`\\ s: batches of samples, facts with a time of validity, events,
and the state of each target it watches. It knows nothing of other sources, of the history or of a
screen; the collector joins identities and writes the history. Errors are in :mod:`.errors`.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass
from enum import IntEnum, StrEnum
from typing import NamedTuple, Protocol, TypeAlias, runtime_checkable

import numpy as np
from numpy.typing import NDArray

Clock: TypeAlias = Callable[[], float]
"""Seconds since the epoch, by our own clock; steady between two readings (see collector.SteadyClock)."""

Floats: TypeAlias = NDArray[np.float32]
Codes: TypeAlias = NDArray[np.uint8]


class Kind(StrEnum):
    """What a metric can belong to; the first part of a metric's key (``gpu.power``)."""

    GPU = "gpu"
    NODE = "node"
    PORT = "port"
    DISK = "disk"
    SERVER = "serve"
    RACK = "rack"
    JOB = "job"


class Missing(IntEnum):
    """Why a value is not there. In the history it is NaN; the reason is kept beside it."""

    PRESENT = 0
    NOT_SAMPLED = 1  # nobody has asked yet, or a rate waits for its second sample
    NOT_SUPPORTED = 2  # this part or driver does not have it
    NOT_EXPORTED = 3  # the exporter answers, without this metric
    NOT_PERMITTED = 4  # our user may not read it
    BLANK = 5  # a sentinel that means "no value" (DCGM blanks, [N/A])
    LOST = 6  # the GPU fell off the bus, or needs a reset
    FAILED = 7  # the call failed or hung
    UNREACHABLE = 8  # the target does not answer
    STALE = 9  # there was a value; it is older than three periods


MISSING_TEXT: dict[Missing, str] = {
    Missing.PRESENT: "",
    Missing.NOT_SAMPLED: "not yet sampled",
    Missing.NOT_SUPPORTED: "not supported by this part or driver",
    Missing.NOT_EXPORTED: "not exported",
    Missing.NOT_PERMITTED: "not permitted for our user",
    Missing.BLANK: "the source says: no value",
    Missing.LOST: "the GPU is lost",
    Missing.FAILED: "the reading failed",
    Missing.UNREACHABLE: "the node does not answer",
    Missing.STALE: "stale",
}


class Rank(IntEnum):
    """Who is believed when two sources measure the same cell; the lowest wins."""

    PROBE = 0
    EXPORTER = 1
    PROMETHEUS = 2
    SCHEDULER = 3


class NodeRef(NamedTuple):
    """A node, under the name by which this source knows it."""

    node: str


class GpuRef(NamedTuple):
    """A GPU, or a MIG instance of one, as a source sees it. Joined by uuid, pci or minor, never by index alone.

    ``pci`` is normalised (``0000:1b:00.0``, see :func:`normal_pci`). ``mig`` is None for a whole
    board, else the instance (``gi1``); then uuid and pci are the *parent's*, and ``mig_uuid`` its own.
    """

    node: str
    uuid: str | None = None
    pci: str | None = None
    minor: int | None = None
    index: int | None = None  # type: ignore[assignment]  # NVML's word; nobody searches this tuple
    mig: str | None = None
    mig_uuid: str | None = None
    slurm: int | None = None
    """Slurm's number of it among the node's ``gpu`` GRES: as a rule the minor number."""


class PortRef(NamedTuple):
    """A network port: ``mlx5_0/1`` for InfiniBand and RoCE, ``eth0`` for a netdev."""

    node: str
    port: str


class DiskRef(NamedTuple):
    """A block device (``nvme0n1``) of a node."""

    node: str
    disk: str


class ServerRef(NamedTuple):
    """An inference server's endpoint on a node: ``host:port``, or ``host:port model`` where pages tell models apart."""

    node: str
    server: str


class RackRef(NamedTuple):
    """A rack, for facility metrics."""

    rack: str


class JobRef(NamedTuple):
    """A job, for what it says of itself (a training step's time): ``slurm:4711``, ``k8s:<namespace>/<kind>/<owner>``."""

    job: str


EntityRef: TypeAlias = NodeRef | GpuRef | PortRef | DiskRef | ServerRef | RackRef | JobRef


@dataclass(frozen=True, slots=True, eq=False)
class Batch:
    """Samples of one kind of entity, taken together.

    ``entities`` and ``metrics`` stay the *same objects* while they do not change, so that whoever
    maps them to rows does it once. A NaN in ``values`` is a missing value.
    """

    at: float
    """When, by our clock (seconds since the epoch)."""
    kind: Kind
    entities: tuple[EntityRef, ...]
    metrics: tuple[str, ...]
    """Catalog keys, all of ``kind``."""
    values: Floats
    """[entity, metric], canonical units, rates already computed."""
    reasons: Codes | None = None
    """[entity, metric] of :class:`Missing`; None: nothing to say. The same object while unchanged."""
    intervals: Floats | None = None
    """[entity]: the seconds that this batch's rates cover; None: the time since the last batch."""


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened once: an XID, an OOM kill, a link down, a restart."""

    at: float
    entity: EntityRef | None
    """None: the cluster as a whole, or something that coldaisle does not know."""
    kind: str
    """``xid``, ``oom``, ``link_down``, ``reboot``, ``driver``, ``gpu_lost``, ``gpu_replaced``, ``clock_jump``, ``alert``,
    ``alert_over``, ``job_start``, ``job_end``, ``job_requeue``, ``node_state``, ``drain``, ``down``, ..."""
    detail: str
    """One line, foreign text possible."""


class Gres(NamedTuple):
    """What Slurm's configuration says that a node has: ``gpu:h100:8``."""

    name: str
    """``gpu``, ``shard``, ``mps``, or whatever else the site counts."""
    type: str
    """``h100``, ``a100_1g.10gb``; empty: without a type."""
    number: int


@dataclass(frozen=True, slots=True)
class NodeFact:
    """What is known of a node from ``at`` on, until the next fact. None: this source does not know."""

    at: float
    node: str
    hostname: str | None = None
    """As the node calls itself; joins aliases."""
    rack: str | None = None
    """Where the source says it stands."""
    place: str | None = None
    """How the source knows the rack (``simulator``, ``topology.conf``)."""
    cpus: int | None = None
    memory_bytes: int | None = None
    kernel: str | None = None
    driver: str | None = None
    booted_at: float | None = None
    gpu_pci: tuple[str, ...] | None = None
    """PCI addresses of all GPUs the kernel knows, also those we may not open, normalised, sorted."""
    gpus_expected: int | None = None
    """How many boards an inventory says it has, where nobody lists their addresses."""
    gpus_visible: int | None = None
    clock_offset_s: float | None = None
    """The node's clock minus ours."""
    state: str | None = None
    """The scheduler's: ``idle``, ``mix``, ``alloc``, ``drain``, ``down``."""
    problem: str | None = None
    """What hinders the readings ("driver not loaded"); an empty text: nothing does any more."""
    is_hearsay: bool = False
    """Told by a scheduler's configuration: of the hardware the node's own word counts more."""
    address: str | None = None
    """Where the scheduler reaches it, if nobody else is there; joins aliases."""
    flags: tuple[str, ...] | None = None
    """All the scheduler's words for its state: ``("idle", "drain", "not_responding")``."""
    reason: str | None = None
    """Why it is drained or down, other people's text; empty: no reason is given."""
    reason_by: str | None = None
    reason_at: float | None = None
    gres: tuple[Gres, ...] | None = None
    gpus_used: int | None = None
    """How many of its GPUs the scheduler has given away."""
    cpus_used: int | None = None
    memory_used_bytes: int | None = None
    """Given away, not touched."""
    features: tuple[str, ...] | None = None
    partitions: tuple[str, ...] | None = None
    switches: tuple[str, ...] | None = None
    """Of the fabric, as the scheduler's topology has it: the leaf (or block) first, then upwards."""


@dataclass(frozen=True, slots=True)
class GpuFact:
    """What a board is, from ``at`` on."""

    at: float
    gpu: GpuRef
    model: str | None = None
    memory_bytes: int | None = None
    power_limit_w: float | None = None
    power_max_w: float | None = None
    slowdown_c: float | None = None
    mig_profile: str | None = None
    mig_enabled: bool | None = None
    serial: str | None = None
    fabric: str | None = None
    """Cluster UUID and clique, where NVSwitch fabric is registered, else its state."""


@dataclass(frozen=True, slots=True)
class JobFact:
    """A job that runs in [since, until), or waits for that; sent again when something of it changes."""

    since: float
    """When it started; of one that waits, when it was submitted."""
    until: float | None
    """When it ended, or stopped waiting; None: not yet."""
    id: str
    """``slurm:4711`` or ``k8s:<namespace>/<kind>/<owner>``."""
    name: str
    user: str
    nodes: tuple[str, ...]
    gpus: tuple[GpuRef, ...]
    account: str | None = None
    partition: str | None = None
    state: str = "RUNNING"
    limit_at: float | None = None
    """When its time limit ends it."""
    workload: str | None = None
    """``training``, ``inference``, ``interactive``, if the source knows."""
    display: str = ""
    """As people write its id: ``4700_3`` (of an array), ``4800+1`` (of a heterogeneous job), ``4700_[4-9%2]``
    (tasks that wait together); empty: as in ``id``."""
    qos: str | None = None
    reason: str | None = None
    """Why it waits (``Resources``, ``Priority``), or how it ended; other people's text."""
    submitted_at: float | None = None
    eligible_at: float | None = None
    """When it may start at the earliest: not before its dependencies have ended."""
    expected_at: float | None = None
    """When the scheduler plans to start it."""
    cpus: int | None = None
    """Given to it; of one that waits, asked for. The same holds for memory and GPUs."""
    memory_bytes: int | None = None
    gpu_count: int | None = None
    """Whether or not it is known which these are."""
    shares: int | None = None
    """Of GPUs that it shares with others: Slurm's ``shard`` or ``mps``."""
    cpus_asked: int | None = None
    memory_asked_bytes: int | None = None
    gpus_asked: int | None = None
    nodes_asked: int | None = None
    dependency: str | None = None
    tasks: int = 1
    """Tasks of an array that wait together as this one entry."""
    restarts: int | None = None

    @property
    def is_waiting(self) -> bool:
        """Whether it waits for its start and holds nothing."""
        return self.state == "PENDING" and not self.nodes


class Demand(NamedTuple):
    """How many jobs, and how many GPUs for them."""

    jobs: int
    gpus: int


@dataclass(frozen=True, slots=True)
class QueueFact:
    """What a scheduler's queue holds at an instant; replaces the last one of its source."""

    at: float
    running: Demand
    waiting: Demand
    """For resources or behind others: what the cluster is asked to do and cannot yet (the offered load)."""
    held: Demand
    """Waiting for something else: a dependency, a limit, its time, a person."""
    next_start_at: float | None = None
    """When the scheduler plans to start the first of those that wait."""
    partitions: tuple[tuple[str, Demand, Demand], ...] = ()
    """(partition, running, waiting)"""


class Partition(NamedTuple):
    """A queue of a scheduler, as its configuration has it. None: not told, or without a limit."""

    name: str
    state: str
    """``up``, ``down`` (jobs may be submitted, none starts), ``drain`` (none may be submitted, those that wait start),
    ``inactive`` (neither)."""
    is_default: bool | None
    limit_s: float | None
    """The longest that a job of it may run."""
    default_s: float | None
    """The time limit of a job that names none."""
    most_nodes: int | None
    """A job may have."""
    nodes: int | None
    cpus: int | None
    gpus: int | None
    memory: int | None
    """Bytes, of all its nodes."""
    accounts: tuple[str, ...]
    """Who alone may use it; empty: everybody."""
    accounts_denied: tuple[str, ...]
    tier: int | None
    """Jobs of a higher one are looked at first, and may preempt those of lower ones."""


@dataclass(frozen=True, slots=True)
class PartitionFact:
    """All partitions of a scheduler, by name; replaces the last one of its source."""

    at: float
    partitions: tuple[Partition, ...]


class Process(NamedTuple):
    """A process on a GPU. ``user`` and ``command`` are other people's text."""

    gpu: GpuRef
    pid: int
    user: str | None
    command: str | None
    memory_bytes: int | None
    sm: float | None
    """Share of the GPU's SM time, 0..1."""
    ports: tuple[int, ...] = ()
    """Ports named in its command line or in that of the parent that started it."""


@dataclass(frozen=True, slots=True)
class ProcessFact:
    """All GPU processes of a node at an instant; replaces the last one."""

    at: float
    node: str
    processes: tuple[Process, ...]


@dataclass(frozen=True, slots=True)
class ServerFact:
    """What an inference server is, from ``at`` on. None: this source does not know. All texts are other people's."""

    at: float
    server: ServerRef
    engine: str | None = None
    """``vLLM``, ``SGLang``, ``TGI``, ``Triton``, ``TensorRT-LLM``."""
    model: str | None = None
    """As it is asked for by clients."""
    service: str | None = None
    """The deployment it is a replica of, where the source knows one; else servers of one model are a service."""
    version: str | None = None
    gpus: tuple[GpuRef, ...] | None = None
    """The boards it runs on."""
    pod: str | None = None
    namespace: str | None = None
    absent: tuple[str, ...] | None = None
    """Catalog keys that this engine does not expose at all."""
    processes: tuple[str, ...] | None = None
    """Regular expressions for the command lines of its GPU processes; None: those that coldaisle knows of the engine."""


@dataclass(frozen=True, slots=True)
class ServiceFact:
    """How many replicas a deployment should have, and how many are ready, from ``at`` on."""

    at: float
    id: str
    """As in ServerFact.service."""
    ready: int | None = None
    expected: int | None = None


@dataclass(frozen=True, slots=True)
class PodFact:
    """A Kubernetes pod, there in [since, until); sent again when something of it changes. All texts are other people's."""

    since: float
    """When it started; of one that waits for a node, when it was created."""
    until: float | None
    namespace: str
    pod: str
    owner_kind: str
    """Of the workload at the top of its owners, as far as they are known: ``Deployment``, ``PyTorchJob``;
    ``Pod``: nobody owns it."""
    owner: str
    uid: str = ""
    """Tells it from an earlier pod of its name; empty: not known."""
    node: str | None = None
    """None: it waits for one."""
    phase: str = ""
    """``Pending``, ``Running``, ``Succeeded``, ``Failed``, ``Unknown``."""
    gpus: int | None = None
    """Boards, shares of boards and MIG instances that it asks for; None: not known."""
    waiting: str = ""
    """Why it does not run, where that is exported: ``Unschedulable``, ``ImagePullBackOff``."""


Fact: TypeAlias = (
    NodeFact
    | GpuFact
    | JobFact
    | QueueFact
    | PartitionFact
    | ProcessFact
    | ServerFact
    | ServiceFact
    | PodFact
)


class TargetState(StrEnum):
    """How a target (a host, an exporter's page) is doing."""

    CONNECTING = "connecting"
    OK = "ok"
    SLOW = "slow"
    PARTIAL = "partial"
    """It answers, and says that its answer is not whole."""
    STALE = "stale"
    FAILING = "failing"
    DENIED = "denied"
    SKIPPED = "skipped"
    GONE = "gone"
    """It is a target no longer: nothing of it is kept."""


@dataclass(frozen=True, slots=True)
class Target:
    """The state of one target of a source; sent when it changes and at least once a minute."""

    at: float
    name: str
    """Unique within the source: the host, or ``host:port``."""
    state: TargetState
    nodes: tuple[str, ...] = ()
    """Names of the nodes it speaks for, as this source knows them."""
    detail: str = ""
    """Why, in a sentence."""
    remedy: str = ""
    latency_s: float | None = None
    what: str = ""
    """What answered: ``probe 3.11 nvml 580.95``, ``dcgm-exporter``, ``node_exporter``, ``nvidia-smi``."""


Item: TypeAlias = Batch | Event | Fact | Target


class Source(Protocol):
    """Where numbers come from. One object, one configured source, any number of targets."""

    name: str
    """Unique, shown to people."""
    kind: str
    """``local``, ``ssh``, ``exporters``, ``simulator``, ..."""
    rank: Rank
    interval: float
    """Seconds between two samples of a target, as configured."""

    def stream(self) -> AsyncGenerator[Item, None]:
        """Items until cancelled or closed; everything it started ends with it.

        Raises SourceError when the source as a whole cannot go on; the collector starts it again
        after a pause. One failing target never ends the stream: it becomes a :class:`Target`.
        """
        ...


@runtime_checkable
class Past(Protocol):
    """A source that remembers."""

    def read(self, start: float, end: float, step: float) -> AsyncGenerator[Item, None]:
        """Items with ``start <= at < end``, oldest first, about ``step`` seconds apart.

        It begins with what was so at ``start`` (nodes, GPUs, jobs that ran then). What is known only of now
        is left out: whoever looks at a past instant would take it for what was so then. Several readings, and
        the stream, may go on at once; one that is no longer wanted is closed. Raises SourceError.
        """
        ...


def normal_pci(address: str) -> str | None:
    """``00000000:1B:00.0`` (NVML), ``0000:1b:00.0`` (sysfs) or ``1B:00.0`` -> ``0000:1b:00.0``; None if none of these."""
    parts = address.strip().lower().split(":")
    if len(parts) == 2:
        parts.insert(0, "0")
    if len(parts) != 3 or "." not in parts[2]:
        return None
    device, function = parts[2].split(".", 1)
    try:
        return f"{int(parts[0], 16):04x}:{int(parts[1], 16):02x}:{int(device, 16):02x}.{int(function, 16):x}"
    except ValueError:
        return None
