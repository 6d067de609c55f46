"""From what Slurm says, again and again, to the facts and events that are news. Pure: no clock, no socket.

Slurm's times are by slurmctld's clock; a fact's are by ours. They are told apart where the clocks differ
by more than the second in which Slurm counts.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from coldaisle.sources.nodesets import fold
from coldaisle.sources.registry import boards_of, is_mig_type
from coldaisle.sources.slurm import topology as places
from coldaisle.sources.slurm.records import Jobs, Nodes, Partitions, SlurmJob, SlurmNode, Topology
from coldaisle.sources.slurm.words import COMPLETING, PENDING
from coldaisle.sources.source import (
    Demand,
    Event,
    GpuRef,
    Item,
    JobFact,
    JobRef,
    NodeFact,
    NodeRef,
    Partition,
    PartitionFact,
    QueueFact,
)
from coldaisle.sources.text import is_loopback

FAITHFUL_S = 2.0
"""Clocks that differ by less are one clock."""
DRAINS_TOLD_S = 86400.0
"""So old a drain may be to be told as an event at the first look."""
MAX_PARTITIONS = 200
_OUT = ("drain", "down", "fail", "maint")
"""States of a node that gets no new work; the events of these names tell why."""
_CALM = {"idle", "mix", "alloc", "comp", "resv"}
"""States between which a node changes as jobs come and go."""
_STOPPED = ("PartitionDown", "PartitionInactive")
"""What slurmctld says of a job whose partition starts none."""
_OFFERED = (None, "Resources", "Priority", "None", "")
"""Reasons of jobs that would run if the cluster were larger; None: not looked at by the scheduler yet."""


class Teller:
    """Remembers what it has told."""

    def __init__(
        self, *, all_nodes: bool = False, has_racks: bool = False, topology: Topology | None = None
    ) -> None:
        """``has_racks``: whether nodes stand where features, blocks or leaf switches say."""
        self.offset_s = 0.0
        """slurmctld's clock minus ours."""
        self.is_all = all_nodes
        self._has_racks = has_racks
        self._topology = topology or Topology({}, "")
        self._boards: dict[str, int] = {}
        """Node → GPUs, of those that are told of."""
        self._nodes: dict[str, NodeFact] = {}
        self._seen: dict[int, SlurmJob] = {}
        self._jobs: dict[int, JobFact] = {}
        self._partitions: tuple[Partition, ...] = ()
        self._is_first = True

    @property
    def waits(self) -> int:
        """How many jobs wait."""
        return sum(job.is_waiting for job in self._seen.values())

    # --- nodes ------------------------------------------------------------------------------------

    def take_topology(self, topology: Topology) -> None:
        """The fabric; told with the nodes."""
        if topology.switches:
            self._topology = topology

    def take_nodes(self, said: Nodes, at: float) -> list[Item]:
        """Facts of nodes that are news, and what happened to them since."""
        shown = self._shown(said.nodes)
        topology = self._topology
        if not topology.switches:
            topology = places.from_nodes(shown)
        if not topology.switches:
            topology = places.leaves_from_features(shown)
        racks = places.racks_from(shown, topology) if self._has_racks else {}
        addresses = _unique_addresses(said.nodes)
        items: list[Item] = []
        self._boards = {node.name: boards_of(node.gres) for node in shown}
        for node in shown:
            rack, how = racks.get(node.name, (None, None))
            fact = NodeFact(
                at=at,
                node=node.name,
                hostname=node.hostname if node.hostname != node.name else None,
                rack=rack,
                place=how,
                cpus=node.cpus,
                memory_bytes=node.memory,
                booted_at=self._ours(node.booted),
                gpus_expected=_expected(node),
                state=node.state,
                is_hearsay=True,
                address=addresses.get(node.name),
                flags=node.flags,
                reason=node.reason,
                reason_by=node.reason_by or "",
                reason_at=self._ours(node.reason_at),
                gres=node.gres,
                gpus_used=node.gpus_used,
                cpus_used=node.cpus_used,
                memory_used_bytes=node.memory_used,
                features=node.features,
                partitions=node.partitions,
                switches=topology.switches.get(node.name),
            )
            known = self._nodes.get(node.name)
            if known is None or replace(fact, at=known.at) != known:
                items.append(fact)
                items += _node_events(known, fact, at)
                self._nodes[node.name] = fact
        items += self._gone({node.name for node in shown}, at)
        return items

    def _shown(self, nodes: Sequence[SlurmNode]) -> list[SlurmNode]:
        """Nodes with GPUs; all of them, where that is wanted or no node is said to have any."""
        nodes = [node for node in nodes if node.state != "future"]
        if self.is_all:
            return nodes
        return [node for node in nodes if _has_gpus(node)] or nodes

    def _gone(self, names: set[str], at: float) -> list[Item]:
        """Nodes that Slurm has no more."""
        items: list[Item] = []
        for name in self._nodes.keys() - names:
            del self._nodes[name]
            items.append(
                NodeFact(
                    at=at, node=name, state="", flags=(), reason="", gres=(), gpus_used=0, is_hearsay=True
                )
            )
            items.append(Event(at, NodeRef(name), "node_state", "Slurm has no such node any more"))
        return items

    # --- partitions -------------------------------------------------------------------------------

    def take_partitions(self, said: Partitions, at: float) -> list[Item]:
        """All partitions, if any is another than before; GPUs that TRES do not count are counted node by node."""
        boards: dict[str, int] = {}
        for fact in self._nodes.values():
            for name in fact.partitions or ():
                boards[name] = boards.get(name, 0) + boards_of(fact.gres or ())
        counted = (
            one if one.gpus is not None or not boards else one._replace(gpus=boards.get(one.name, 0))
            for one in said.partitions
        )
        told = tuple(sorted(counted, key=lambda one: one.name))
        if told == self._partitions:
            return []
        self._partitions = told
        return [PartitionFact(at, told)]

    def doubts_partitions(self, said: Jobs) -> bool:
        """Whether jobs wait for reasons that do not fit to what is known of their partitions' states."""
        stopped = {one.name: one.state in ("down", "inactive") for one in self._partitions}
        blamed = {name for job in said.jobs if job.reason in _STOPPED for name in _names(job.partition)}
        queued = {
            job.partition
            for job in said.jobs
            if job.is_waiting and job.reason in ("Resources", "Priority") and job.partition
        }
        return any(not stopped.get(name, False) for name in blamed) or any(
            stopped.get(name, False) for name in queued - blamed
        )

    # --- jobs -------------------------------------------------------------------------------------

    def take_jobs(self, said: Jobs, at: float) -> list[Item]:
        """Facts of jobs that are news, what happened to them since, and what the queue comes to."""
        items: list[Item] = []
        seen = {job.id: job for job in said.jobs}
        for key, job in seen.items():
            if job != self._seen.get(key):
                items += self._changed(job, at)
        for key in self._seen.keys() - seen.keys():
            items += self._vanished(key, at)
        self._seen = seen
        self._is_first = False
        items.append(self._queue(said.jobs, at))
        return items

    def _changed(self, job: SlurmJob, at: float) -> list[Item]:
        if not self._concerns(job):
            return []
        known = self._jobs.get(job.id)
        fact = self._fact(job, at, known)
        if fact == known:
            return []
        events = [] if self._is_first else _job_events(known, fact, at)
        if fact.until is None:
            self._jobs[job.id] = fact
        else:
            self._jobs.pop(job.id, None)
            if known is None and not self._is_first and not fact.nodes:
                return []  # it came and went between two looks, and held nothing
        return [fact, *events]

    def _vanished(self, key: int, at: float) -> list[Item]:
        """Slurm forgets a job some minutes after its end; one that we saw running has ended since."""
        known = self._jobs.pop(key, None)
        if known is None:
            return []
        over = replace(known, until=at, state=known.state if known.is_waiting else "ENDED")
        return [over, *_job_events(known, over, at)]

    def _concerns(self, job: SlurmJob) -> bool:
        """Whether it has to do with GPUs, or with their nodes."""
        if self.is_all or job.gpus or job.gpus_asked or job.shares or job.boards:
            return True
        if job.is_waiting:
            return job.gpus_asked is None
        return any(node in self._boards for node in job.nodes)

    def _fact(self, job: SlurmJob, at: float, known: JobFact | None) -> JobFact:
        start, end, submitted = self._ours(job.start), self._ours(job.end), self._ours(job.submitted)
        has_run = bool(job.nodes) and start is not None
        is_over = not job.is_waiting and not job.is_holding
        waits = job.is_waiting or (is_over and not has_run)
        since = submitted if waits else start
        gpus, count, restarts = self._gpus(job), job.gpus, job.restarts
        if (is_over or job.state == COMPLETING) and known is not None and not known.is_waiting:
            # Slurm forgets at once which it had, though they are not free before the nodes are clean; and one
            # that is requeued has its next start already
            gpus, count = gpus or known.gpus, known.gpu_count if count is None else count
            since, restarts = (known.since, known.restarts) if job.is_holding else (since, restarts)
        return JobFact(
            since=since if since is not None else known.since if known is not None else at,
            until=(end if end is not None and end <= at else at) if is_over else None,
            id=f"slurm:{job.id}",
            name=job.name,
            user=job.user,
            nodes=() if waits else job.nodes,
            gpus=() if waits else gpus,
            account=job.account,
            partition=job.partition,
            state=PENDING if waits else job.state,
            limit_at=end if job.is_holding and job.limit_s is not None else None,
            display=job.display,
            qos=job.qos,
            reason=job.state if is_over and waits else job.reason,
            submitted_at=submitted,
            eligible_at=self._ours(job.eligible),
            expected_at=start if job.is_waiting else None,
            cpus=job.cpus,
            memory_bytes=job.memory,
            gpu_count=count,
            shares=job.shares,
            cpus_asked=job.cpus_asked,
            memory_asked_bytes=job.memory_asked,
            gpus_asked=job.gpus_asked,
            nodes_asked=job.nodes_asked,
            dependency=job.dependency,
            tasks=job.tasks,
            restarts=restarts,
        )

    def past(self, jobs: Iterable[SlurmJob], start: float, end: float) -> list[JobFact]:
        """Jobs of accounting that ran or waited in [start, end), oldest first."""
        facts = [
            self._fact(job, end, None)
            for job in jobs
            if (job.is_waiting or job.nodes) and self._concerns(job)
        ]
        wanted = [fact for fact in facts if fact.since < end and (fact.until is None or fact.until >= start)]
        return sorted(wanted, key=lambda fact: (fact.since, fact.id))

    def nodes_then(self, jobs: Iterable[JobFact], at: float) -> list[NodeFact]:
        """The nodes that these jobs ran on, which were there then: with their place and their GPUs, as these are now.

        What may have been another then (state, reason, what was given away) is left out.
        """
        names = {name for job in jobs for name in job.nodes}
        return [
            NodeFact(
                at=at,
                node=fact.node,
                hostname=fact.hostname,
                rack=fact.rack,
                place=fact.place,
                gpus_expected=fact.gpus_expected,
                is_hearsay=True,
                address=fact.address,
                gres=fact.gres,
                switches=fact.switches,
            )
            for fact in self._nodes.values()
            if fact.node in names
        ]

    def _gpus(self, job: SlurmJob) -> tuple[GpuRef, ...]:
        """Which boards it has: as Slurm numbers them; all of its nodes, where it has as many as these have."""
        if job.boards:
            return tuple(
                GpuRef(board.node, slurm=number, mig="?" if board.is_mig else None)
                for board in job.boards
                for number in board.numbers
            )
        boards = [(node, self._boards.get(node, 0)) for node in job.nodes] if job.gpus else []
        if not boards or job.gpus != sum(count for _, count in boards):
            return ()
        return tuple(GpuRef(node, slurm=number) for node, count in boards for number in range(count))

    def _queue(self, jobs: Sequence[SlurmJob], at: float) -> QueueFact:
        kinds: dict[str, list[int]] = {"running": [0, 0], "waiting": [0, 0], "held": [0, 0]}
        by_partition: dict[str, dict[str, list[int]]] = {}
        starts = []
        for job in jobs:
            if not (job.is_waiting or job.is_holding) or not self._concerns(job):
                continue
            kind = "running" if job.is_holding else "waiting" if job.reason in _OFFERED else "held"
            gpus = (job.gpus or 0) * job.tasks
            partition = by_partition.setdefault(job.partition or "", {"running": [0, 0], "waiting": [0, 0]})
            for one in (kinds[kind], partition.get(kind)):
                if one is not None:
                    one[0] += job.tasks
                    one[1] += gpus
            if job.is_waiting and job.start is not None:
                starts.append(job.start)
        ahead = [start for start in map(self._ours, starts) if start is not None and start >= at - 60.0]
        return QueueFact(
            at,
            Demand(*kinds["running"]),
            Demand(*kinds["waiting"]),
            Demand(*kinds["held"]),
            min(ahead, default=None),
            tuple(
                (name, Demand(*one["running"]), Demand(*one["waiting"]))
                for name, one in sorted(by_partition.items())[:MAX_PARTITIONS]
            ),
        )

    def _ours(self, at: float | None) -> float | None:
        """An instant of slurmctld's clock, by ours."""
        if at is None or abs(self.offset_s) <= FAITHFUL_S:
            return at
        return at - self.offset_s


def _names(partition: str | None) -> list[str]:
    """A job that waits may name several, between commas."""
    return partition.split(",") if partition else []


def _has_gpus(node: SlurmNode) -> bool:
    return any(one.name in ("gpu", "shard", "mps") for one in node.gres)


def _expected(node: SlurmNode) -> int | None:
    """How many boards; None: MIG instances do not say."""
    if any(one.name == "gpu" and is_mig_type(one.type) for one in node.gres):
        return None
    return boards_of(node.gres)


def _unique_addresses(nodes: Sequence[SlurmNode]) -> Mapping[str, str]:
    """Node → NodeAddr, where it says something that its name does not, and of it alone."""
    counts: dict[str, int] = {}
    for node in nodes:
        if node.address:
            counts[node.address] = counts.get(node.address, 0) + 1
    return {
        node.name: node.address
        for node in nodes
        if node.address
        and node.address != node.name
        and counts[node.address] == 1
        and not is_loopback(node.address)
    }


def _node_events(before: NodeFact | None, now: NodeFact, at: float) -> list[Item]:
    entity = NodeRef(now.node)
    reason = f": {now.reason}" if now.reason else ""
    by = f" ({now.reason_by})" if now.reason and now.reason_by else ""
    is_out = now.state in _OUT
    if before is None:
        is_recent = now.reason_at is not None and at - now.reason_at < DRAINS_TOLD_S
        if is_out and is_recent and now.reason_at is not None:
            return [Event(now.reason_at, entity, str(now.state), f"{now.state}{reason}{by}")]
        return []
    items: list[Item] = []
    if before.booted_at and now.booted_at and now.booted_at > before.booted_at + 60.0:
        items.append(Event(now.booted_at, entity, "reboot", "it was booted again"))
    if is_out and (before.state != now.state or before.reason != now.reason):
        items.append(Event(at, entity, str(now.state), f"{before.state} -> {now.state}{reason}{by}"))
    elif before.state != now.state and not {before.state, now.state} <= _CALM:
        items.append(Event(at, entity, "node_state", f"{before.state} -> {now.state}"))
    return items


def happened_to(jobs: Iterable[JobFact], start: float, end: float) -> list[Event]:
    """Starts and ends of jobs in [start, end)."""
    events: list[Event] = []
    for job in jobs:
        if not job.is_waiting:
            events += _job_events(None, replace(job, until=None), job.since)
        if job.until is not None:
            events += _job_events(job, job, job.until)
    return [event for event in events if start <= event.at < end]


def in_order(jobs: Iterable[JobFact], events: Iterable[Event]) -> list[JobFact | Event]:
    """Oldest first, a job before what happened to it."""
    return sorted([*jobs, *events], key=lambda item: item.since if isinstance(item, JobFact) else item.at)


def _job_events(before: JobFact | None, now: JobFact, at: float) -> list[Event]:
    entity = JobRef(now.id)
    if now.until is not None:
        if now.is_waiting:
            return [
                Event(
                    now.until,
                    entity,
                    "job_end",
                    f"{now.user}'s {now.name} left the queue: {now.reason or 'gone'}",
                )
            ]
        return [
            Event(
                now.until, entity, "job_end", f"{now.user}'s {now.name} ended: {now.state} on {_where(now)}"
            )
        ]
    if now.is_waiting:
        if before is not None and not before.is_waiting:
            return [
                Event(
                    at,
                    entity,
                    "job_requeue",
                    f"{now.user}'s {now.name} waits again: {now.reason or 'requeued'}",
                )
            ]
        return []
    if before is None or before.is_waiting or before.restarts != now.restarts:
        again = (
            []
            if before is None or before.is_waiting
            else [Event(now.since, entity, "job_requeue", f"{now.user}'s {now.name} was requeued")]
        )
        return [
            *again,
            Event(now.since, entity, "job_start", f"{now.user}'s {now.name} started on {_where(now)}"),
        ]
    return []


def _where(job: JobFact) -> str:
    count = f"{job.gpu_count} GPU{'s' * (job.gpu_count != 1)} of " if job.gpu_count else ""
    return f"{count}{fold(job.nodes)[:120]}" if job.nodes else "no node"
