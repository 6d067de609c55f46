"""Who is who: joins what every source calls its entities into nodes, GPUs and their parts.

Rows are given once and never move. A name that turns out to be another node's is joined to it with
all history; a doubt is recorded as a conflict and left alone. GPUs join by UUID, PCI address or
minor number, never by index alone: inside a job's cgroup NVML counts from 0.
"""

from __future__ import annotations

import ipaddress
import re
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from coldaisle.sources.errors import Garbled
from coldaisle.sources.source import (
    DiskRef,
    EntityRef,
    Event,
    GpuFact,
    GpuRef,
    Gres,
    JobFact,
    JobRef,
    Kind,
    NodeFact,
    NodeRef,
    Partition,
    PodFact,
    PortRef,
    ProcessFact,
    QueueFact,
    RackRef,
    ServerFact,
    ServerRef,
    ServiceFact,
)
from coldaisle.sources.text import is_loopback, natural_key
from coldaisle.sources.workloads import Workloads

Rows = NDArray[np.intp]

ENDED_JOB_KEPT_S = 3600.0
MAX_NODES = 20_000
MAX_BOARDS = 64
"""Per node."""
MAX_INSTANCES = 16
"""MIG instances per board; the hardware has 7."""
MAX_PAST = 64
JOBS_PRUNED_EVERY_S = 60.0
ASSUMED_SLOTS = "assumed: Slurm's number is the slot in PCI order"
ASSUMED_INSTANCES = "assumed: Slurm counts MIG instances board by board"
_HARDWARE = ("cpus", "memory_bytes", "kernel", "driver", "booted_at")
_MIG_TYPE = re.compile(r"\d+g\.\d+gb", re.IGNORECASE)
_ENDED = (
    "COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL", "PREEMPTED", "OUT_OF_MEMORY", "BOOT_FAIL",
    "DEADLINE", "REVOKED", "SPECIAL_EXIT", "REQUEUED", "ENDED",
)  # fmt: skip
"""How a job ended; while it ran, it ran."""


class Joined(NamedTuple):
    """Two names found to be one node, or a doubt left alone."""

    at: float
    name: str
    node: str
    how: str
    conflict: bool


class Happened(NamedTuple):
    """An event with the row of its entity."""

    at: float
    kind: Kind | None
    """None: the cluster."""
    row: int
    """-1: the cluster."""
    what: str
    detail: str
    job: JobFact | None = None
    """Whose event it is, as it was then: jobs that have ended are forgotten before their events are."""


class Moved(NamedTuple):
    """What the history must do after a join or a replaced board."""

    kind: Kind
    old: int
    new: int
    """Equal to ``old``: forget this row's past."""


@dataclass(slots=True)
class NodeRecord:
    """A node as known so far."""

    row: int
    key: str
    names: dict[str, str] = field(default_factory=dict)
    """Every name it goes by, with how that is known."""
    gpus: list[int] = field(default_factory=list)
    """GPU rows by slot, boards only."""
    settled: bool = False
    """The slots were seen complete and keep their numbers."""
    surplus: bool = False
    """It was given more GPUs than a node can have."""
    fact: NodeFact | None = None
    firsthand: set[str] = field(default_factory=set)
    """What of ``fact`` the node itself has told."""
    hostnames: dict[str, str] = field(default_factory=dict)
    """Source → the hostname it reported."""
    joined_to: int | None = None


@dataclass(slots=True)
class GpuRecord:
    """A board or MIG instance as known so far."""

    row: int
    node: int
    parent: int | None
    uuid: str | None = None
    pci: str | None = None
    minor: int | None = None
    index: int | None = None
    slurm: int | None = None
    mig: str | None = None
    fact: GpuFact | None = None
    since: float | None = None
    joined_to: int | None = None
    past: list[tuple[float, str | None]] = field(default_factory=list)
    """(until, uuid) of boards that were in this slot before."""
    instances: list[int] = field(default_factory=list)
    """Rows of its MIG instances."""

    @property
    def is_unseen(self) -> bool:
        """Whether nothing but Slurm's configuration says that there is such a board."""
        names = (self.uuid, self.pci, self.minor, self.index)
        return self.slurm is not None and all(name is None for name in names)


@dataclass(slots=True)
class PartRecord:
    """A port, disk, server, rack or job."""

    row: int
    kind: Kind
    node: int
    name: str
    """Of a server: ``:8000``, or ``host:8000`` when the host is no name of its node; behind it a model, where several are."""
    joined_to: int | None = None


class Registry:
    """All entities. ``version`` changes whenever a layout made from it would differ."""

    def __init__(
        self, aliases: Mapping[str, str] | None = None, rename: Callable[[str], str] | None = None
    ) -> None:
        """``aliases`` maps other names to node keys; ``rename`` rewrites a name before it is looked up."""
        self.version = 0
        self.nodes: list[NodeRecord] = []
        self.gpus: list[GpuRecord] = []
        self.parts: dict[Kind, list[PartRecord]] = {
            Kind.PORT: [],
            Kind.DISK: [],
            Kind.SERVER: [],
            Kind.RACK: [],
            Kind.JOB: [],
        }
        self.jobs: dict[str, JobFact] = {}
        """The last that is known of each: running, waiting, or ended within the last hour."""
        self.jobs_version = 0
        """Changes with ``jobs``."""
        self.queues: dict[str, QueueFact] = {}
        """By source."""
        self.partitions: dict[str, tuple[Partition, ...]] = {}
        """By source."""
        self._told: dict[str, dict[str, JobFact]] = {}
        """Job → source → what that one says of it."""
        self._runs: list[JobFact] = []
        """Earlier runs of jobs that were requeued."""
        self._jobs_pruned_at = float("-inf")
        self._jobs_taken = 0
        """Since they were pruned: a look at all of them must not cost more than the news."""
        self.workloads = Workloads()
        """Kubernetes pods and their owners."""
        self.processes: dict[int, ProcessFact] = {}
        self.servers: dict[int, ServerFact] = {}
        """By the server's row."""
        self.services: dict[str, ServiceFact] = {}
        self.joins: deque[Joined] = deque(maxlen=1000)
        self.events: deque[Happened] = deque(maxlen=5000)
        self.moved: list[Moved] = []
        """For the history; whoever applies them clears the list."""
        self._aliases = dict(aliases or {})
        self._rename = rename
        self._names: dict[str, int] = {}
        self._uuids: dict[str, int] = {}
        self._addressed: dict[tuple[int, str, object], list[int]] = {}
        """(node, field, value) → boards that may have it; looked up instead of searched for."""
        self._part_rows: dict[tuple[Kind, int, str], int] = {}
        self._served_pods: set[tuple[str, str]] = set()
        """(namespace, pod) that servers run in."""
        self._cache: dict[tuple[str, int], tuple[int, object, Rows]] = {}
        self._joins_made = 0

    # --- resolving -----------------------------------------------------------------------------

    def rows_of(self, source: str, kind: Kind, entities: tuple[EntityRef, ...], at: float) -> Rows:
        """History rows of a batch's entities, -1 for a GPU too many; remembered while the tuple is the same object."""
        cached = self._cache.get((source, id(entities)))
        if cached is not None and cached[1] is entities and cached[0] == self._joins_made:
            return cached[2]
        if kind is Kind.GPU:
            self._take_gpus(source, [ref for ref in entities if isinstance(ref, GpuRef)], at)
        rows = np.array([self.row_of(source, ref, at) for ref in entities], dtype=np.intp)
        if len(self._cache) > 64:
            self._cache.clear()
        self._cache[source, id(entities)] = (self._joins_made, entities, rows)
        return rows

    def row_of(self, source: str, ref: EntityRef, at: float) -> int:
        """The row of one entity, made if it is new; -1 for a GPU beyond what a node can have."""
        if isinstance(ref, NodeRef):
            return self.node(ref.node, at).row
        if isinstance(ref, GpuRef):
            found = self._find_gpu(self.node(ref.node, at), ref)
            if found is None and self._has_room(self.node(ref.node, at), ref):
                self._take_gpus(source, [ref], at)
                found = self._find_gpu(self.node(ref.node, at), ref)
            return found.row if found is not None else -1
        if isinstance(ref, RackRef):
            return self._part(Kind.RACK, -1, ref.rack)
        if isinstance(ref, JobRef):
            return self._part(Kind.JOB, -1, ref.job)
        kind, name = _part_name(ref)
        node = self.node(ref.node, at)
        return self._part(kind, node.row, _endpoint(node, name) if kind is Kind.SERVER else name)

    def node(self, name: str, at: float) -> NodeRecord:
        """The node that goes by ``name``, made if it is new."""
        if self._rename is not None:
            name = self._rename(name)
        row = self._names.get(name.lower())
        if row is None:
            row = self._learn_name(name, at)
        return self.nodes[row]

    def find_node(self, name: str) -> NodeRecord | None:
        """The node that goes by ``name``, if there is one."""
        row = self._names.get(name.lower())
        return None if row is None else self.nodes[row]

    def find_part(self, kind: Kind, name: str) -> int | None:
        """The row of a rack or job, if anything is measured of it."""
        return self._part_rows.get((kind, -1, name))

    # --- facts and events ----------------------------------------------------------------------

    def take_node_fact(self, source: str, fact: NodeFact) -> None:
        """Learn of a node; a hostname may join it to another name's."""
        record = self.node(fact.node, fact.at)
        if fact.address:
            record = self._take_address(record, fact.address, fact.at)
        if fact.hostname:
            record = self._take_hostname(source, record, fact)
        fact = _of_hardware(record, fact)
        merged = _merged(record.fact, fact)
        if _differs(record.fact, merged):
            self.version += 1
        self._tell_driver(record, fact)
        record.fact = merged
        if fact.gres is not None:
            self._expect_boards(record, fact.gres)
        if fact.gpu_pci is not None and len(record.gpus) > 1:
            self._number_slots(record)

    def _tell_driver(self, record: NodeRecord, fact: NodeFact) -> None:
        """A driver that is another one than before is an event."""
        known = record.fact.driver if record.fact is not None else None
        if known and fact.driver and known != fact.driver:
            self.events.append(
                Happened(fact.at, Kind.NODE, record.row, "driver", f"driver {known} -> {fact.driver}")
            )

    def take_gpu_fact(self, source: str, fact: GpuFact) -> None:
        """Learn what a board is."""
        row = self.row_of(source, fact.gpu, fact.at)
        if row < 0:
            return
        record = self.gpus[row]
        merged = _merged(record.fact, fact)
        if _differs(record.fact, merged):
            self.version += 1
        record.fact = merged

    def take_job(self, fact: JobFact, source: str = "") -> None:
        """A job began to wait or to run, changed or ended. Jobs that ended an hour ago are forgotten.

        A scheduler knows all of a job, an exporter's labels know best which GPUs it has: both are put together.
        """
        told = self._told.setdefault(fact.id, {})
        before = told.get(source)
        if before is not None and _is_another_run(before, fact):
            over = before.until if before.until is not None else fact.since
            self._runs.append(replace(before, until=over))
        told[source] = fact
        self.jobs[fact.id] = joined_job(list(told.values()))
        self.jobs_version += 1
        if fact.id.startswith("k8s:"):  # a server's pod may hold other GPUs now
            self.version += 1
        self._prune_jobs(max(fact.since, fact.until or 0.0))

    def _prune_jobs(self, now: float) -> None:
        self._jobs_taken += 1
        if now < self._jobs_pruned_at + JOBS_PRUNED_EVERY_S or self._jobs_taken < len(self.jobs) // 8:
            return
        self._jobs_pruned_at, self._jobs_taken = now, 0
        oldest = now - ENDED_JOB_KEPT_S
        for key in [key for key, job in self.jobs.items() if job.until is not None and job.until < oldest]:
            del self.jobs[key], self._told[key]
        self._runs = [run for run in self._runs if run.until is None or run.until >= oldest]

    def take_pod(self, fact: PodFact) -> None:
        """A pod began, changed or ended; a server that runs in it belongs to the pod's owner."""
        if self.workloads.take(fact) and (fact.namespace, fact.pod) in self._served_pods:
            self.version += 1

    def take_processes(self, fact: ProcessFact) -> None:
        """The GPU processes of a node."""
        row = self.node(fact.node, fact.at).row
        known = self.processes.get(row)
        self.processes[row] = fact
        places = {part.node for part in self.parts[Kind.SERVER]}
        matters = row in places or any(is_loopback(self.nodes[place].key) for place in places)
        if matters and _holders(known) != _holders(fact):
            self.version += 1

    def take_server(self, source: str, fact: ServerFact) -> None:
        """Learn what an inference server is."""
        row = self.row_of(source, fact.server, fact.at)
        merged = _merged(self.servers.get(row), fact)
        if _differs(self.servers.get(row), merged):
            self.version += 1
        self.servers[row] = merged
        if merged.pod:
            self._served_pods.add((merged.namespace or "", merged.pod))

    def take_event(self, source: str, event: Event) -> None:
        """Keep an event with the row of its entity."""
        if event.entity is None:
            self.events.append(Happened(event.at, None, -1, event.kind, event.detail))
            return
        row = self.row_of(source, event.entity, event.at)
        if row >= 0:
            job = self.jobs.get(event.entity.job) if isinstance(event.entity, JobRef) else None
            self.events.append(Happened(event.at, _kind_of(event.entity), row, event.kind, event.detail, job))

    def jobs_at(self, at: float) -> list[JobFact]:
        """Jobs that ran at an instant; pods as their owners' jobs, as far as owners are known."""
        held = [
            job if job.until is None or job.state not in _ENDED else replace(job, state="RUNNING")
            for job in (*self._runs, *self.jobs.values())
            if job.since <= at and (job.until is None or at < job.until) and not job.is_waiting
        ]
        return self.workloads.jobs(held, at, self._node_key)

    def waiting_at(self, at: float) -> list[JobFact]:
        """Jobs of a scheduler's queue that waited at an instant, those that started later included."""
        waiting = []
        for job in (*self._runs, *self.jobs.values()):
            if job.is_waiting:
                if job.since <= at and (job.until is None or at < job.until):
                    waiting.append(job)
            elif job.submitted_at is not None and job.submitted_at <= at < job.since:
                waiting.append(
                    replace(
                        job,
                        since=job.submitted_at,
                        until=job.since,
                        state="PENDING",
                        nodes=(),
                        gpus=(),
                        reason=None,
                    )
                )
        return waiting

    def held_by_pods(self, at: float) -> dict[str, int]:
        """Node key → how many GPUs the pods there ask for, whether or not it is known which they are."""
        held: dict[str, int] = {}
        for pod in self.workloads.holding(at):
            key = self._node_key(pod.node or "")
            held[key] = held.get(key, 0) + (pod.gpus or 0)
        return held

    def _node_key(self, name: str) -> str:
        node = self.find_node(name) or self.find_node(name.partition(".")[0])
        return node.key if node is not None else name

    def gpu_rows(self, refs: Iterable[GpuRef]) -> list[int]:
        """Rows of GPUs that are already known; unknown ones are left out."""
        return self.gpu_rows_known_by(refs)[0]

    def gpu_rows_known_by(self, refs: Iterable[GpuRef]) -> tuple[list[int], str | None]:
        """The same, with how it is known that these are the ones; one that begins with "assumed" is less than certain."""
        rows: list[int] = []
        ways: dict[str, None] = {}
        for ref in refs:
            node = self.find_node(ref.node)
            if node is None:
                continue
            found, how = self._find_said(node, ref)
            if found is not None:
                rows.append(found.row)
                ways[how] = None
        return rows, next((way for way in ways if way.startswith("assumed")), next(iter(ways), None))

    def shift(self, seconds: float) -> None:
        """Our clock was set: events move with it."""
        moved = (event._replace(at=event.at + seconds) for event in self.events)
        self.events = deque(moved, maxlen=self.events.maxlen)

    # --- nodes ---------------------------------------------------------------------------------

    def _learn_name(self, name: str, at: float) -> int:
        key = self._aliases.get(name) or self._aliases.get(name.lower())
        if key is not None:
            return self._alias(name, self._row_for_key(key), "configuration", at)
        short = name.partition(".")[0]
        if _is_address(name) or short == name:
            return self._row_for_key(name)
        known = self._names.get(short.lower())
        if known is None:
            return self._alias(name, self._row_for_key(short), "short name", at)
        others = [other for other in self.nodes[known].names if "." in other and not _is_address(other)]
        if others and name.lower() not in others:
            self._note(at, name, self.nodes[known].key, "same short name, another domain", conflict=True)
            return self._row_for_key(name)
        return self._alias(name, known, "short name", at)

    def _row_for_key(self, key: str) -> int:
        row = self._names.get(key.lower())
        if row is None:
            row = len(self.nodes)
            if row >= MAX_NODES:
                raise Garbled(
                    key,
                    f"more than {MAX_NODES} different node names",
                    "look at the node names this source gives",
                )
            self.nodes.append(NodeRecord(row, key, {key.lower(): "key"}))
            self._names[key.lower()] = row
            self.version += 1
        return row

    def _alias(self, name: str, row: int, how: str, at: float) -> int:
        record = self.nodes[row]
        self._names[name.lower()] = row
        if name.lower() not in record.names:
            record.names[name.lower()] = how
            self._note(at, name, record.key, how)
        return row

    def _take_hostname(self, source: str, record: NodeRecord, fact: NodeFact) -> NodeRecord:
        """A node says what it is called. Believed unless two targets of one source say the same."""
        hostname = fact.hostname or ""
        if record.hostnames.get(source) == hostname:
            return record
        record.hostnames[source] = hostname
        twins = [n for n in self._live_nodes() if n is not record and n.hostnames.get(source) == hostname]
        if twins:
            self._note(
                fact.at, record.key, hostname, f"several hosts call themselves {hostname}", conflict=True
            )
            return record
        row = self._names.get(hostname.lower(), self._names.get(hostname.partition(".")[0].lower()))
        if row is None:
            self._alias(hostname, record.row, "hostname", fact.at)
            if _is_address(record.key):
                self._rename_node(record, hostname.partition(".")[0])
            return record
        other = self.nodes[row]
        if other is record:
            return record
        if source in other.hostnames or len(set(other.hostnames.values()) | {hostname}) > 1:
            self._note(
                fact.at,
                record.key,
                other.key,
                f"calls itself {hostname}, which is another node",
                conflict=True,
            )
            return record
        return self._join_nodes(record, other, "hostname", fact.at)

    def _take_address(self, record: NodeRecord, address: str, at: float) -> NodeRecord:
        """A scheduler says where it reaches a node: who goes by that name is the node."""
        row = self._names.get(address.lower())
        if row is None:
            self._alias(address, record.row, "NodeAddr", at)
            return record
        other = self.nodes[self._resolved(row)]
        return record if other is record else self._join_nodes(other, record, "NodeAddr", at)

    def _rename_node(self, record: NodeRecord, key: str) -> None:
        if key.lower() not in self._names or self._names[key.lower()] == record.row:
            record.key = key
            record.names.setdefault(key.lower(), "hostname")
            self._names[key.lower()] = record.row
            self.version += 1

    def _join_nodes(self, old: NodeRecord, new: NodeRecord, how: str, at: float) -> NodeRecord:
        """Everything of ``old`` becomes ``new``'s."""
        if _is_address(new.key) and not _is_address(old.key):
            old, new = new, old
        for name, known in old.names.items():
            self._names[name] = new.row
            new.names.setdefault(name, how if known == "key" else known)
        new.hostnames.update(old.hostnames)
        new.fact = _merged(new.fact, old.fact) if old.fact is not None else new.fact
        old.joined_to = new.row
        self._note(at, old.key, new.key, how)
        self.moved.append(Moved(Kind.NODE, old.row, new.row))
        for row in list(old.gpus):
            self._adopt_board(self.gpus[row], new)
        for kind, parts in self.parts.items():
            for part in parts:
                if part.node == old.row and part.joined_to is None:
                    if kind is Kind.SERVER and part.name.startswith(":") and how == "GPU UUID":
                        part.name = f"{old.key}{part.name}"
                    self._adopt_part(kind, part, new.row)
        self._number_slots(new)
        self._joins_made += 1
        self.version += 1
        return new

    def _adopt_board(self, board: GpuRecord, node: NodeRecord) -> None:
        ref = GpuRef(node.key, board.uuid, board.pci, board.minor, board.index)
        twin = self._find_gpu(node, ref)
        if twin is None and not board.is_unseen:
            twin = self._see_board(node, ref)
        if twin is None and board.is_unseen and node.gpus:
            board.node = -1  # the other name's boards are seen, or expected already
            return
        if twin is None:
            node.gpus.append(board.row)
        else:
            self._become(board, twin)
        for row in list(board.instances):
            self._adopt_instance(self.gpus[row], twin)
            self.gpus[row].node = node.row
        board.node = node.row
        self._index_gpu(board)

    def _adopt_instance(self, instance: GpuRecord, board: GpuRecord | None) -> None:
        if board is None:
            return
        same = _first([self.gpus[row] for row in board.instances], lambda g: g.mig == instance.mig)
        if same is not None:
            self._become(instance, same)
        else:
            instance.parent = board.row
            board.instances.append(instance.row)

    def _become(self, old: GpuRecord, new: GpuRecord) -> None:
        """Two records are one GPU."""
        old.joined_to = new.row
        _fill(new, GpuRef("", old.uuid, old.pci, old.minor, old.index))
        new.fact = _merged(new.fact, old.fact) if old.fact is not None else new.fact
        self._index_gpu(new)
        self.moved.append(Moved(Kind.GPU, old.row, new.row))

    def _adopt_part(self, kind: Kind, part: PartRecord, node: int) -> None:
        twin = self._part_rows.get((kind, node, part.name))
        if twin is None:
            self._part_rows[kind, node, part.name] = part.row
            part.node = node
            return
        part.joined_to = twin
        self.moved.append(Moved(kind, part.row, twin))
        fact = self.servers.pop(part.row, None) if kind is Kind.SERVER else None
        if fact is not None:
            self.servers[twin] = _merged(self.servers.get(twin), fact)

    def _live_nodes(self) -> list[NodeRecord]:
        return [node for node in self.nodes if node.joined_to is None]

    def _note(self, at: float, name: str, node: str, how: str, conflict: bool = False) -> None:
        self.joins.append(Joined(at, name, node, how, conflict))

    # --- GPUs ----------------------------------------------------------------------------------

    def _take_gpus(self, source: str, refs: Sequence[GpuRef], at: float) -> None:
        """Learn the boards of each node in a batch; boards first, then their MIG instances."""
        by_node: dict[str, list[GpuRef]] = {}
        for ref in refs:
            by_node.setdefault(ref.node, []).append(ref)
        for name, mine in by_node.items():
            node = self._join_by_uuid(source, self.node(name, at), mine, at)
            for ref in sorted(mine, key=lambda ref: ref.mig is not None):
                self._take_gpu(node, ref, at)
            self._number_slots(node)

    def _take_gpu(self, node: NodeRecord, ref: GpuRef, at: float) -> None:
        found = self._find_gpu(node, ref)
        found = found or self._see_board(node, ref)
        if found is None:
            if self._has_room(node, ref):
                self._new_gpu(node, ref)
            else:
                self._note_surplus(node, at)
        elif ref.mig is None and found.uuid and ref.uuid and found.uuid != ref.uuid:
            self._replace_board(found, ref, at)
        else:
            before = (found.uuid, found.pci, found.minor, found.index)
            _fill(found, ref)
            self._index_gpu(found)
            if before != (found.uuid, found.pci, found.minor, found.index):
                self.version += 1  # a job's GPUs may be others than was assumed

    def _has_room(self, node: NodeRecord, ref: GpuRef) -> bool:
        """Whether the node, or the instance's board, can have one more."""
        board = self._find_gpu(node, ref._replace(mig=None, mig_uuid=None)) if ref.mig is not None else None
        return len(node.gpus) < MAX_BOARDS if board is None else len(board.instances) < MAX_INSTANCES

    def _note_surplus(self, node: NodeRecord, at: float) -> None:
        if not node.surplus:
            node.surplus = True
            how = "more GPUs than a node can have; the rest is left out"
            self._note(at, node.key, node.key, how, conflict=True)

    def _new_gpu(self, node: NodeRecord, ref: GpuRef) -> int:
        parent = self._board_of(node, ref) if ref.mig is not None else None
        record = GpuRecord(len(self.gpus), node.row, parent, mig=ref.mig)
        _fill(record, ref)
        self.gpus.append(record)
        if parent is None:
            node.gpus.append(record.row)
        else:
            self.gpus[parent].instances.append(record.row)
        self._index_gpu(record)
        self.version += 1
        return record.row

    def _board_of(self, node: NodeRecord, ref: GpuRef) -> int:
        """The row of a MIG instance's board, made if nobody has named it yet."""
        whole = ref._replace(mig=None, mig_uuid=None)
        board = self._find_gpu(node, whole)
        if board is None and (board := self._see_board(node, whole)) is not None:
            _fill(board, whole)
            self._index_gpu(board)
        return board.row if board is not None else self._new_gpu(node, whole)

    def _replace_board(self, record: GpuRecord, ref: GpuRef, at: float) -> None:
        """Another board answers at this address: the slot stays, its baselines start afresh."""
        record.past = [*record.past, (at, record.uuid)][-MAX_PAST:]
        self._uuids.pop(record.uuid or "", None)
        self._addressed.pop((record.node, "uuid", record.uuid), None)
        self.events.append(Happened(at, Kind.GPU, record.row, "gpu_replaced", f"{record.uuid} -> {ref.uuid}"))
        record.uuid, record.fact, record.since = ref.uuid, None, at
        _fill(record, ref)
        self._index_gpu(record)
        self.moved.append(Moved(Kind.GPU, record.row, record.row))
        self.version += 1

    def _index_gpu(self, record: GpuRecord) -> None:
        if record.mig is not None:
            return
        if record.uuid:
            self._uuids[record.uuid] = record.row
        for name in ("uuid", "pci", "minor", "index", "slurm"):
            value = getattr(record, name)
            if value is not None:
                rows = self._addressed.setdefault((record.node, name, value), [])
                if record.row not in rows:
                    rows.append(record.row)

    def _find_gpu(self, node: NodeRecord, ref: GpuRef) -> GpuRecord | None:
        """By UUID, PCI address or minor number; by index only when there is nothing else on either side."""
        board = (
            _first(self._with(node, "uuid", ref.uuid), lambda g: g.uuid == ref.uuid)
            or _first(self._with(node, "pci", ref.pci), lambda g: g.pci == ref.pci)
            or _first(self._with(node, "minor", ref.minor), lambda g: _same_minor(g, ref))
            or _first(self._with(node, "index", ref.index), lambda g: _only_index(g, ref))
        )
        if board is None or ref.mig is None:
            return board
        return _first([self.gpus[row] for row in board.instances], lambda g: g.mig == ref.mig)

    def _with(self, node: NodeRecord, name: str, value: object) -> list[GpuRecord]:
        """The node's boards that may have this address, as far as they still are boards of their own."""
        found = [self.gpus[row] for row in self._addressed.get((node.row, name, value), ())]
        return [board for board in found if board.node == node.row and board.joined_to is None]

    def _find_said(self, node: NodeRecord, ref: GpuRef) -> tuple[GpuRecord | None, str]:
        """A board or instance that somebody says a job holds, and how it was found."""
        if ref.slurm is not None:
            return self._by_slurm_index(node, ref.slurm, is_mig=ref.mig is not None)
        found = self._find_gpu(node, ref)
        if found is not None:
            return found, "UUID" if ref.uuid or ref.mig_uuid else "PCI address" if ref.pci else "minor number"
        # a scheduler's statement, which has nothing but a number: the slot of that number
        if ref.uuid or ref.pci or ref.index is None or ref.index >= len(node.gpus):
            return None, ""
        return self.gpus[node.gpus[ref.index]], ASSUMED_SLOTS

    def _by_slurm_index(self, node: NodeRecord, number: int, is_mig: bool) -> tuple[GpuRecord | None, str]:
        """Slurm counts device files, as minor numbers do; of MIG instances board by board."""
        if is_mig:
            instances = [
                self.gpus[row]
                for board in node.gpus
                for row in _in_order(self.gpus, self.gpus[board].instances)
            ]
            return (instances[number], ASSUMED_INSTANCES) if number < len(instances) else (None, "")
        for board in self._with(node, "minor", number):
            if board.minor == number:
                return board, "minor number"
        for board in self._with(node, "slurm", number):
            if board.is_unseen and board.slurm == number:
                return board, "Slurm's own numbers"
        return (self.gpus[node.gpus[number]], ASSUMED_SLOTS) if number < len(node.gpus) else (None, "")

    # --- boards that only a scheduler knows --------------------------------------------------------

    def _expect_boards(self, node: NodeRecord, gres: Sequence[Gres]) -> None:
        """Where nobody has seen the node's boards, Slurm's configuration says how many there are."""
        boards = [self.gpus[row] for row in node.gpus]
        if not all(board.is_unseen for board in boards):
            return
        count = min(boards_of(gres), MAX_BOARDS)
        if len(boards) == count:
            return
        for board in boards[count:]:
            board.node = -1
        node.gpus = node.gpus[:count]
        for number in range(len(boards), count):
            self._new_gpu(node, GpuRef(node.key, slurm=number))
        self.version += 1

    def _see_board(self, node: NodeRecord, ref: GpuRef) -> GpuRecord | None:
        """The board that was only expected and is seen now, if there is one; its number is believed if it is the minor."""
        unseen = [board for board in (self.gpus[row] for row in node.gpus) if board.is_unseen]
        if not unseen or ref.mig is not None:
            return None
        board = next((board for board in unseen if board.slurm == ref.minor), None)
        if board is None:
            number = ref.index if ref.minor is None else None
            board = next((board for board in unseen if board.slurm == number), unseen[0])
        board.slurm = None
        self.version += 1
        return board

    def _join_by_uuid(self, source: str, node: NodeRecord, refs: Sequence[GpuRef], at: float) -> NodeRecord:
        """The same boards under another node's name: it is that node, unless its own word is against it."""
        uuids = {ref.uuid for ref in refs if ref.uuid and ref.mig is None}
        homes = {self.gpus[self._uuids[uuid]].node for uuid in uuids if uuid in self._uuids}
        homes = {self._resolved(row) for row in homes} - {node.row}
        if not uuids or not homes:
            return node
        other = self.nodes[min(homes)]
        everything = all(uuid in self._uuids for uuid in uuids)
        clash = source in node.hostnames and source in other.hostnames
        if len(homes) > 1 or not everything or clash:
            known = any(join.conflict and join.name == node.key for join in self.joins)
            if not known:
                self._note(at, node.key, other.key, "shares some GPU UUIDs, not all", conflict=True)
            return node
        return self._join_nodes(node, other, "GPU UUID", at)

    def _resolved(self, row: int) -> int:
        joined = self.nodes[row].joined_to
        return row if joined is None else self._resolved(joined)

    def _number_slots(self, node: NodeRecord) -> None:
        """Slots in PCI order until the node was seen complete; boards that come later follow."""
        node.gpus = list(dict.fromkeys(row for row in node.gpus if self.gpus[row].joined_to is None))
        expected = node.fact.gpu_pci if node.fact is not None else None
        if node.settled and expected is None:
            return
        if node.settled and len(node.gpus) <= len(expected or ()):
            return
        before = list(node.gpus)
        node.gpus.sort(key=lambda row: _slot_order(self.gpus[row]))
        node.settled = len(node.gpus) >= len(expected) if expected is not None else False
        if node.gpus != before:
            self.version += 1

    # --- parts ---------------------------------------------------------------------------------

    def _part(self, kind: Kind, node: int, name: str) -> int:
        row = self._part_rows.get((kind, node, name))
        if row is None:
            row = len(self.parts[kind])
            self.parts[kind].append(PartRecord(row, kind, node, name))
            self._part_rows[kind, node, name] = row
            self.version += 1
        return row


def boards_of(gres: Iterable[Gres]) -> int:
    """How many boards a node's GRES come to; MIG instances and shares do not say."""
    return sum(one.number for one in gres if one.name == "gpu" and not is_mig_type(one.type))


def is_mig_type(name: str) -> bool:
    """Whether a GRES type is a MIG profile: ``a100_1g.10gb``, ``1g.5gb``."""
    return _MIG_TYPE.search(name) is not None


def joined_job(told: Sequence[JobFact]) -> JobFact:
    """One job from what several sources say of it: the scheduler's word, and GPUs from whoever names them by UUID."""
    if len(told) == 1:
        return told[0]
    best = max(told, key=lambda job: (job.submitted_at is not None, bool(job.user)))
    claims = [job for job in told if job is not best and job.until is None and job.gpus]
    if not claims:
        return best
    exact = tuple(dict.fromkeys(gpu for claim in claims for gpu in claim.gpus if gpu.uuid or gpu.pci))
    if best.is_waiting and best.until is None:  # it has started since the scheduler was asked
        nodes = tuple(dict.fromkeys(node for claim in claims for node in claim.nodes))
        since = min(claim.since for claim in claims)
        return replace(best, state="RUNNING", since=since, nodes=nodes, gpus=exact, reason=None)
    named = {gpu.node.partition(".")[0] for gpu in exact}
    rest = tuple(gpu for gpu in best.gpus if gpu.node.partition(".")[0] not in named)
    return replace(best, gpus=(*rest, *exact)) if best.until is None else best


def _is_another_run(before: JobFact, now: JobFact) -> bool:
    """Whether a job ran before and was requeued since; Slurm moves the start of a run, too, while its nodes get ready."""
    has_ended = before.until is not None or now.is_waiting or before.restarts != now.restarts
    return bool(before.nodes) and before.since < now.since and has_ended


def _of_hardware(record: NodeRecord, fact: NodeFact) -> NodeFact:
    """The fact without what the node has told of its hardware itself, where it is hearsay."""
    told = {name for name in _HARDWARE if getattr(fact, name) is not None}
    if not fact.is_hearsay:
        record.firsthand |= told
        return fact
    known = told & record.firsthand
    return replace(fact, **dict.fromkeys(known)) if known else fact  # type: ignore[arg-type]


def _in_order(gpus: Sequence[GpuRecord], rows: Iterable[int]) -> list[int]:
    """Rows of MIG instances, as their numbers count: ``gi2`` before ``gi10``."""
    return sorted(
        (row for row in rows if gpus[row].joined_to is None), key=lambda row: natural_key(gpus[row].mig or "")
    )


def _part_name(ref: PortRef | DiskRef | ServerRef) -> tuple[Kind, str]:
    if isinstance(ref, PortRef):
        return Kind.PORT, ref.port
    if isinstance(ref, DiskRef):
        return Kind.DISK, ref.disk
    return Kind.SERVER, ref.server


def _endpoint(node: NodeRecord, name: str) -> str:
    """A server's name on its node, the same under whichever name of the node it was asked.

    A node known only by its GPUs may be a pod with an address of its own, and there may be several: these names stay.
    """
    host, colon, port = name.partition(" ")[0].rpartition(":")
    how = node.names.get(host.lower())
    return f":{name[len(host) + 1 :]}" if colon and port and how not in (None, "GPU UUID") else name


def _holders(fact: ProcessFact | None) -> set[object]:
    """Who is on which GPU, whatever they use of it."""
    return {(one.gpu, one.command, one.ports) for one in fact.processes} if fact is not None else set()


def _kind_of(ref: EntityRef) -> Kind:
    kinds: dict[type, Kind] = {NodeRef: Kind.NODE, GpuRef: Kind.GPU, RackRef: Kind.RACK, JobRef: Kind.JOB}
    return kinds.get(type(ref)) or _part_name(ref)[0]  # type: ignore[arg-type]


def _fill(record: GpuRecord, ref: GpuRef) -> None:
    """Learn what is not known yet; an address once known stays."""
    record.uuid = record.uuid or (ref.mig_uuid if ref.mig else ref.uuid)
    record.pci = record.pci or ref.pci
    record.minor = ref.minor if record.minor is None else record.minor
    record.index = ref.index if record.index is None else record.index
    record.slurm = ref.slurm if record.slurm is None else record.slurm


def _same_minor(record: GpuRecord, ref: GpuRef) -> bool:
    clash = (record.pci and ref.pci and record.pci != ref.pci) or (
        record.uuid and ref.uuid and record.uuid != ref.uuid and record.pci is None and ref.pci is None
    )
    return ref.minor is not None and record.minor == ref.minor and not clash


def _only_index(record: GpuRecord, ref: GpuRef) -> bool:
    nothing_else = not (ref.uuid or ref.pci or ref.minor is not None)
    bare = not (record.uuid or record.pci or record.minor is not None)
    return nothing_else and bare and ref.index is not None and record.index == ref.index


def _slot_order(record: GpuRecord) -> tuple[bool, str, int, int]:
    number = record.minor if record.minor is not None else record.index
    return (record.pci is None, record.pci or "", number if number is not None else 1 << 30, record.row)


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name.strip("[]"))
    except ValueError:
        return False
    return True


def _first(records: Iterable[GpuRecord], wanted: Callable[[GpuRecord], bool]) -> GpuRecord | None:
    return next((record for record in records if wanted(record)), None)


def _merged(old: Any, new: Any) -> Any:
    """The newer fact, with what only the older one knew."""
    if old is None:
        return new
    known = {f.name: getattr(old, f.name) for f in fields(new) if getattr(new, f.name) is None}
    return replace(new, **known)


def _differs(old: Any, new: Any) -> bool:
    """Whether a fact changes what a layout shows."""
    if old is None:
        return True
    return any(
        getattr(old, f.name) != getattr(new, f.name)
        for f in fields(new)
        if f.name not in ("at", "clock_offset_s")
    )
