"""Which findings touch which entity: as a part of the cause, or as a victim.

A finding names its roots in full. The GPUs that it is about are those; without any the GPUs of its servers, else of its
nodes (unless ports are the cause), else of its jobs.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple, TypeAlias

from coldaisle.analyzers.finding import Finding, Scope
from coldaisle.analyzers.snapshot import Snapshot


class Hit(NamedTuple):
    """A finding that touches an entity."""

    finding: int
    """Index into Diagnosis.findings, the worst first."""
    is_victim: bool


Hits: TypeAlias = Mapping[int, tuple[Hit, ...]]
"""By the entity's index: the worst first, each finding once."""


@dataclass(frozen=True, slots=True)
class Reach:
    """The entities of a scope, by their indices in Layout and Snapshot.jobs."""

    gpus: tuple[int, ...] = ()
    """Those that it is about."""
    nodes: frozenset[int] = frozenset()
    jobs: frozenset[int] = frozenset()
    servers: frozenset[int] = frozenset()
    ports: frozenset[int] = frozenset()
    racks: frozenset[int] = frozenset()


@dataclass(frozen=True, slots=True)
class Touching:
    """Everything that the open findings of a snapshot touch."""

    findings: tuple[Finding, ...] = ()
    reach: tuple[Reach, ...] = ()
    """Of each finding's scope."""
    suffering: tuple[Reach, ...] = ()
    """Of each finding's victims."""
    gpus: Hits = field(default_factory=dict)
    nodes: Hits = field(default_factory=dict)
    jobs: Hits = field(default_factory=dict)
    servers: Hits = field(default_factory=dict)

    def worst(self, hits: Hits, index: int) -> Finding | None:
        """The worst finding that touches an entity, by its index in its kind's ``hits``; None: none does."""
        found = hits.get(index)
        return self.findings[found[0].finding] if found else None


NOTHING = Touching()


class Places:
    """A snapshot's entities by their keys."""

    def __init__(self, snapshot: Snapshot) -> None:
        layout = snapshot.layout
        self.snapshot, self.layout = snapshot, layout
        self.racks = {rack.name: number for number, rack in enumerate(layout.racks)}
        self.ports = {port.key: number for number, port in enumerate(layout.ports)}
        self.servers = {server.key: number for number, server in enumerate(layout.servers)}
        self.server_of = {gpu: number for number, server in enumerate(layout.servers) for gpu in server.gpus}
        self.jobs = {job.id: number for number, job in enumerate(snapshot.jobs)}

    def reach(self, scope: Scope) -> Reach:
        """The entities of a scope; keys that nobody knows are left out."""
        layout = self.layout
        nodes = set(_known(layout.node_of, scope.nodes))
        ports = frozenset(_known(self.ports, scope.ports))
        servers = frozenset(_known(self.servers, scope.servers))
        jobs = frozenset(_known(self.jobs, scope.jobs))
        gpus = self._gpus(scope, nodes, ports, servers, jobs)
        nodes |= {layout.gpus[gpu].node for gpu in gpus}
        servers |= {self.server_of[gpu] for gpu in gpus if gpu in self.server_of}
        nodes |= {layout.ports[port].node for port in ports} | {layout.servers[one].node for one in servers}
        return Reach(gpus, frozenset(nodes), jobs, servers, ports, frozenset(_known(self.racks, scope.racks)))

    def _gpus(
        self, scope: Scope, nodes: Iterable[int], ports: Iterable[int], servers: Iterable[int], jobs: Iterable[int]
    ) -> tuple[int, ...]:  # fmt: skip
        layout = self.layout
        if scope.gpus:
            found = set(_known(layout.gpu_of, scope.gpus))
        elif scope.servers:
            found = {gpu for server in servers for gpu in layout.servers[server].gpus}
        elif scope.ports:
            found = set()
        elif scope.nodes:
            found = {gpu for node in nodes for gpu in layout.nodes[node].gpus}
        else:
            found = {gpu for job in jobs for gpu in self.snapshot.jobs[job].gpus}
        return tuple(sorted(found))


class _Last:
    """What was made last: every widget of a screen asks for the same snapshot."""

    made_of: tuple[object, ...] = ()
    made: Touching = NOTHING


def touching(snapshot: Snapshot) -> Touching:
    """What the open findings of a snapshot touch; made once a diagnosis."""
    findings = snapshot.diagnosis.findings
    if not findings:
        return NOTHING
    made_of = (findings, snapshot.layout, snapshot.jobs)
    if len(_Last.made_of) != 3 or any(a is not b for a, b in zip(_Last.made_of, made_of, strict=True)):
        _Last.made, _Last.made_of = _touching(snapshot, findings), made_of
    return _Last.made


def _touching(snapshot: Snapshot, findings: tuple[Finding, ...]) -> Touching:
    places = Places(snapshot)
    reach = tuple(places.reach(finding.scope) for finding in findings)
    suffering = tuple(places.reach(finding.victims) for finding in findings)
    kinds: dict[str, dict[int, dict[int, bool]]] = {name: {} for name in ("gpus", "nodes", "jobs", "servers")}
    for number, (own, others) in enumerate(zip(reach, suffering, strict=True)):
        for name, hits in kinds.items():
            for entity in getattr(own, name):
                hits.setdefault(entity, {})[number] = False
            for entity in getattr(others, name):
                hits.setdefault(entity, {}).setdefault(number, True)
    made = {name: {at: _hits(one) for at, one in hits.items()} for name, hits in kinds.items()}
    return Touching(findings, reach, suffering, made["gpus"], made["nodes"], made["jobs"], made["servers"])


def _hits(found: Mapping[int, bool]) -> tuple[Hit, ...]:
    return tuple(Hit(number, is_victim) for number, is_victim in sorted(found.items()))


def _known(place: Mapping[str, int], keys: Iterable[str]) -> Iterable[int]:
    return (place[key] for key in keys if key in place)
