"""What happened to whom: which events concern an entity, because they are of it, of its parts or of what it stands in."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from coldaisle.analyzers.snapshot import EventView, Snapshot
from coldaisle.sources.cluster import Job

KIND_WORDS: Mapping[str, str] = {
    "xid": "XID",
    "oom": "OOM",
    "gpu_lost": "GPU lost",
    "gpu_back": "GPU is back",
    "gpu_hung": "GPU hangs",
    "gpu_replaced": "GPU replaced",
    "job_start": "job started",
    "job_end": "job ended",
    "job_requeue": "job requeued",
    "node_state": "node state",
    "driver": "new driver",
    "link_recovery": "link retrained",
    "link_downed": "link down",
    "inlet_fall": "inlet falls",
    "inlet_rise": "inlet rises",
    "power_cap": "power cap",
    "server_down": "server down",
    "server_up": "server is up",
    "reboot": "rebooted",
    "clock_jump": "clock jumped",
    "alert_over": "alert is over",
}
"""Kinds of events as people say them, where that is not the kind itself."""


def kind_words(kind: str) -> str:
    """``job started`` of ``job_start``; a kind that is not known may be other people's text."""
    return KIND_WORDS.get(kind) or kind.replace("_", " ")


@dataclass(frozen=True, slots=True)
class Kin:
    """An entity with what its events are told of."""

    name: str
    """As it is asked for: a GPU's, node's, rack's or server's key, a job's id."""
    whole: frozenset[str] = frozenset()
    """Keys whose own events concern it."""
    parts: tuple[str, ...] = ()
    """Beginnings of keys: everything on these nodes concerns it."""

    def concerns(self, event: EventView) -> bool:
        """Whether an event is of it, its parts or what it stands in."""
        return event.entity in self.whole or (bool(self.parts) and event.entity.startswith(self.parts))


NOBODY = Kin("")


def holder_then(snapshot: Snapshot, event: EventView) -> Job | None:
    """The job that held a GPU when something happened to it; of one that has let go of it since nothing is known."""
    gpu = snapshot.layout.gpu_of.get(event.entity)
    number = -1 if gpu is None else int(snapshot.gpu_job[gpu])
    job = snapshot.jobs[number] if number >= 0 else None
    return job if job is not None and job.since <= event.at else None


def kin_of(snapshot: Snapshot, entity: str) -> Kin:
    """Whose events concern an entity, by its key; of one that is not known only its own."""
    layout = snapshot.layout
    job = next((job for job in (*snapshot.jobs, *snapshot.queue) if job.id == entity), None)
    if job is not None:
        return _of_job(job)
    if (gpu := layout.gpu_of.get(entity)) is not None:
        node = layout.nodes[layout.gpus[gpu].node]
        number = int(snapshot.gpu_job[gpu])
        jobs = {snapshot.jobs[number].id} if number >= 0 else set()
        return Kin(
            entity, frozenset({entity, node.key, layout.racks[node.rack].name, *jobs}), (f"{entity}:",)
        )
    if (index := layout.node_of.get(entity)) is not None:
        node = layout.nodes[index]
        numbers = {int(snapshot.gpu_job[gpu]) for gpu in node.gpus}
        jobs = {snapshot.jobs[number].id for number in numbers if number >= 0}
        return Kin(entity, frozenset({entity, layout.racks[node.rack].name, *jobs}), (f"{entity}/",))
    rack = next((rack for rack in layout.racks if rack.name == entity), None)
    if rack is not None:
        nodes = [layout.nodes[at].key for at in rack.nodes]
        return Kin(entity, frozenset({entity, *nodes}), tuple(f"{node}/" for node in nodes))
    server = next((server for server in layout.servers if server.key == entity), None)
    if server is not None:
        gpus = [layout.gpus[gpu].key for gpu in server.gpus]
        return Kin(entity, frozenset({entity, layout.nodes[server.node].key, *gpus}))
    return Kin(entity, frozenset({entity}) if entity else frozenset())


def _of_job(job: Job) -> Kin:
    """A job and its nodes with all that is on them."""
    return Kin(job.id, frozenset({job.id, *job.nodes}), tuple(f"{node}/" for node in job.nodes))


def newest_first(events: Iterable[EventView]) -> list[EventView]:
    """Events, newest first; of one instant the last one told first."""
    found = sorted(events, key=lambda event: event.at)
    found.reverse()
    return found
