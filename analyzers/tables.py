"""A snapshot as columns: every field of :mod:`.fields` by entity, and how entities hang together.

What follows from the layout alone is made once a layout. A value that is stale is no value here: nothing is said
of now by what was measured long ago (``status`` tells stale from lost).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import reduce
from typing import TypeVar, cast

import numpy as np
from numpy.typing import NDArray

from coldaisle.analyzers.advice.advice import Advice, Refused
from coldaisle.analyzers.fields import Column, Entity, Field, Spellings, Texts, Value, things
from coldaisle.analyzers.finding import Finding
from coldaisle.analyzers.finding import Scope as Roots
from coldaisle.analyzers.snapshot import Column as Measured
from coldaisle.analyzers.snapshot import EventView, Snapshot
from coldaisle.analyzers.touching import Places
from coldaisle.sources.cluster import Job, Layout
from coldaisle.sources.source import Floats, Missing

T = TypeVar("T")
Index = NDArray[np.intp]
NONE, ELSEWHERE = -1, -2
"""In an index: there is no such entity, or it is not known which; and: other rows of the same owner speak of it."""


@dataclass(frozen=True, slots=True, eq=False)
class Scope:
    """Rows to be judged, and what each of them is made of.

    A node is judged once for itself and once for each of its GPUs; a job and a server likewise.
    """

    size: int
    owner: Index
    """[row] the entity that is kept when the row matches."""
    of: dict[Entity, Index]
    """[row] which entity of a kind belongs to it; else NONE or ELSEWHERE."""


class Tables:
    """The columns of one snapshot after the other."""

    def __init__(self) -> None:
        self._layout: Layout | None = None
        self._kept: dict[object, object] = {}
        """Of the layout."""
        self._snapshot: Snapshot | None = None
        self._fresh: dict[object, object] = {}
        """Of the snapshot."""

    def take(self, snapshot: Snapshot) -> None:
        """Answer from this one from now on."""
        if self._layout is not snapshot.layout:
            self._layout, self._kept = snapshot.layout, {}
        if self._snapshot is not snapshot:
            self._snapshot, self._fresh = snapshot, {}

    @property
    def snapshot(self) -> Snapshot:
        """The one that was taken last."""
        assert self._snapshot is not None
        return self._snapshot

    def size(self, entity: Entity) -> int:
        """How many entities of a kind there are."""
        return len(things(self.snapshot, entity))

    def column(self, field: Field) -> Column:
        """A field of all its entities."""
        if field.fact is None:
            return self._now(field, lambda: self._metric(field))
        if (whole := field.fact.column) is not None:
            return self._now(field, lambda: whole(self.snapshot))
        if field.entity in (
            Entity.JOB,
            Entity.TARGET,
            Entity.EVENT,
            Entity.PARTITION,
            Entity.FINDING,
            Entity.ADVICE,
        ):
            return self._now(field, lambda: self._fact(field, self.snapshot))
        return self._always(field, lambda: self._fact(field, self.snapshot.layout))

    def scope(self, row: Entity) -> Scope:
        """What rows of a kind are judged by."""
        return self._now(("scope", row), lambda: self._scope(row))

    def linked(self, row: Entity) -> Scope:
        """Each row of a kind with the one GPU, node, job ... that belongs to it, for tables."""
        return self._now(("linked", row), lambda: self._own(row))

    # --- columns -----------------------------------------------------------------------------------

    def _metric(self, field: Field) -> Floats:
        size = self.size(field.entity)
        column = self.snapshot.column(field.key)
        if field.entity is Entity.JOB and column is not None and self.snapshot.queue:
            column = _with_waiting(column, len(self.snapshot.queue))
        if column is None or len(column.values) != size:
            return np.full(size, np.nan, dtype=np.float32)
        values = column.values
        old = column.reason == Missing.STALE
        if old.any():
            values = np.where(old, np.float32(np.nan), values)
        return shared(self.snapshot.layout, values) if field.entity is Entity.GPU else values

    def _fact(self, field: Field, context: object) -> Column:
        assert field.fact is not None
        assert field.fact.of is not None
        of = field.fact.of
        values = [of(thing, context) for thing in things(self.snapshot, field.entity)]
        if field.is_text:
            return texts(values)
        return np.array([np.nan if value is None else value for value in values], dtype=np.float64)

    # --- relations ---------------------------------------------------------------------------------

    def _scope(self, row: Entity) -> Scope:
        own = self._own(row)
        if row in (Entity.GPU, Entity.RACK, Entity.TARGET, Entity.PARTITION):
            return own
        if row is Entity.EVENT:
            return self._places_of_events(own)
        pairs = {
            Entity.NODE: self._gpus_of_nodes, Entity.JOB: self._gpus_of_jobs, Entity.SERVER: self._gpus_of_servers,
            Entity.FINDING: self._parts_of_findings, Entity.ADVICE: self._parts_of_advice,
        }[row]()  # fmt: skip
        return _joined(own, pairs)

    def _own(self, row: Entity) -> Scope:
        size = self.size(row)
        every = np.arange(size, dtype=np.intp)
        of = {row: every}
        if row is Entity.GPU:
            of = self._of_gpus(every)
        elif row is Entity.NODE:
            of = {row: every, Entity.RACK: self._node_rack()}
        elif row is Entity.SERVER:
            node = np.array([server.node for server in self.snapshot.layout.servers], dtype=np.intp)
            of = {row: every, Entity.NODE: node, Entity.RACK: _pick(self._node_rack(), node)}
        elif row is Entity.EVENT:
            of = {row: every, **self._of_events()}
        return Scope(size, every, of)

    def _of_gpus(self, gpu: Index) -> dict[Entity, Index]:
        node = _pick(self._gpu_node(), gpu)
        return {
            Entity.GPU: gpu,
            Entity.NODE: node,
            Entity.RACK: _pick(self._node_rack(), node),
            Entity.JOB: _pick(self.snapshot.gpu_job.astype(np.intp), gpu),
            Entity.SERVER: _pick(self._gpu_server(), gpu),
        }

    def _of_events(self) -> dict[Entity, Index]:
        """What each happened to, where there is one of it; see :meth:`_places_of_events`."""
        layout, events = self.snapshot.layout, self.snapshot.events
        known: dict[Entity, Mapping[str, int]] = {
            Entity.GPU: layout.gpu_of,
            Entity.SERVER: {server.key: number for number, server in enumerate(layout.servers)},
            Entity.JOB: {job.id: n for n, job in enumerate((*self.snapshot.jobs, *self.snapshot.queue))},
        }
        return {
            entity: np.array([places.get(event.entity, NONE) for event in events], dtype=np.intp)
            for entity, places in known.items()
        }

    def _places_of_events(self, own: Scope) -> Scope:
        """Each event once for every node it happened on: a job has several. One of a rack, or of nobody, has none."""
        layout, events = self.snapshot.layout, self.snapshot.events
        racks = {rack.name: number for number, rack in enumerate(layout.racks)}
        pairs = [
            (at, node) for at, event in enumerate(events) for node in self._nodes_of_event(event) or [NONE]
        ]
        owner, node = np.array(pairs, dtype=np.intp).reshape(-1, 2).T
        rack = np.array([racks.get(event.entity, NONE) for event in events], dtype=np.intp)
        rack = np.where(node >= 0, _pick(self._node_rack(), node), rack[owner])
        of = {entity: index[owner] for entity, index in own.of.items()}
        return Scope(len(owner), owner, {**of, Entity.NODE: node, Entity.RACK: rack})

    def _nodes_of_event(self, event: EventView) -> list[int]:
        layout = self.snapshot.layout
        if event.job is not None:
            return self._nodes_of(event.job)
        if (gpu := layout.gpu_of.get(event.entity)) is not None:
            return [layout.gpus[gpu].node]
        # what is on a node has its name before the first slash
        node = layout.node_of.get(event.entity.partition("/")[0])
        return [] if node is None else [node]

    def _gpus_of_nodes(self) -> Scope:
        """Every GPU; and what is on a node without anybody saying on which of its GPUs."""
        gpu = np.arange(self.size(Entity.GPU), dtype=np.intp)
        of = self._of_gpus(gpu)
        pairs = Scope(len(gpu), of[Entity.NODE], of)
        loose = [
            (node, number)
            for number, job in enumerate(self.snapshot.jobs)
            if not job.gpus
            for node in self._nodes_of(job)
        ]
        if not loose:
            return pairs
        node, number = np.array(loose, dtype=np.intp).T
        rack = _pick(self._node_rack(), node)
        return _joined(
            pairs, Scope(len(node), node, {Entity.NODE: node, Entity.JOB: number, Entity.RACK: rack})
        )

    def _gpus_of_jobs(self) -> Scope:
        """Every GPU of every job, whoever else holds it; of a job without known GPUs its nodes."""
        jobs = self.snapshot.jobs
        counts = [len(job.gpus) for job in jobs]
        owner = np.repeat(np.arange(len(jobs), dtype=np.intp), counts)
        gpu = np.fromiter((gpu for job in jobs for gpu in job.gpus), np.intp, sum(counts))
        pairs = Scope(len(gpu), owner, {**self._of_gpus(gpu), Entity.JOB: owner})
        loose = [
            (number, node) for number, job in enumerate(jobs) if not job.gpus for node in self._nodes_of(job)
        ]
        if not loose:
            return pairs
        number, node = np.array(loose, dtype=np.intp).T
        rack = _pick(self._node_rack(), node)
        return _joined(
            pairs, Scope(len(node), number, {Entity.JOB: number, Entity.NODE: node, Entity.RACK: rack})
        )

    def _gpus_of_servers(self) -> Scope:
        servers = self.snapshot.layout.servers
        counts = [len(server.gpus) for server in servers]
        owner = np.repeat(np.arange(len(servers), dtype=np.intp), counts)
        gpu = np.fromiter((gpu for server in servers for gpu in server.gpus), np.intp, sum(counts))
        return Scope(len(gpu), owner, {**self._of_gpus(gpu), Entity.SERVER: owner})

    def _parts_of_findings(self) -> Scope:
        """Every GPU that a finding is about or that suffers from it; and its nodes, jobs and servers for themselves."""
        found = [one for one in things(self.snapshot, Entity.FINDING) if isinstance(one, Finding)]
        return self._parts_of_scopes(Entity.FINDING, [(one.scope, one.victims) for one in found])

    def _parts_of_advice(self) -> Scope:
        """The same of what was advised, and of what was refused."""
        found = [one for one in things(self.snapshot, Entity.ADVICE) if isinstance(one, Advice | Refused)]
        return self._parts_of_scopes(Entity.ADVICE, [(one.scope,) for one in found])

    def _parts_of_scopes(self, row: Entity, told: Sequence[Sequence[Roots]]) -> Scope:
        places = Places(self.snapshot)
        pairs: dict[Entity, list[tuple[int, int]]] = {
            Entity.GPU: [], Entity.NODE: [], Entity.JOB: [], Entity.SERVER: []
        }  # fmt: skip
        for number, scopes_of in enumerate(told):
            for reach in map(places.reach, scopes_of):
                pairs[Entity.GPU] += [(number, at) for at in reach.gpus]
                pairs[Entity.NODE] += [
                    (number, at) for at in reach.nodes or self._nodes_of_racks(reach.racks)
                ]
                pairs[Entity.JOB] += [(number, at) for at in reach.jobs]
                pairs[Entity.SERVER] += [(number, at) for at in reach.servers]
        scopes = []
        for entity, found in pairs.items():
            owner, at = np.array(found, dtype=np.intp).reshape(-1, 2).T
            of: dict[Entity, Index] = self._of_gpus(at) if entity is Entity.GPU else {entity: at}
            if entity is Entity.NODE:
                of[Entity.RACK] = _pick(self._node_rack(), at)
            scopes.append(Scope(len(at), owner, {**of, row: owner}))
        return reduce(_joined, scopes)

    def _nodes_of_racks(self, racks: Iterable[int]) -> list[int]:
        return [node for rack in racks for node in self.snapshot.layout.racks[rack].nodes]

    def _nodes_of(self, job: Job) -> list[int]:
        known = self.snapshot.layout.node_of
        return [known[name] for name in job.nodes if name in known]

    def _gpu_node(self) -> Index:
        layout = self.snapshot.layout
        return self._always("gpu_node", lambda: np.array([gpu.node for gpu in layout.gpus], dtype=np.intp))

    def _node_rack(self) -> Index:
        layout = self.snapshot.layout
        return self._always(
            "node_rack", lambda: np.array([node.rack for node in layout.nodes], dtype=np.intp)
        )

    def _gpu_server(self) -> Index:
        def made() -> Index:
            of = np.full(len(self.snapshot.layout.gpus), NONE, dtype=np.intp)
            for number, server in enumerate(self.snapshot.layout.servers):
                of[list(server.gpus)] = number
            return of

        return self._always("gpu_server", made)

    def _always(self, key: object, make: Callable[[], T]) -> T:
        if key not in self._kept:
            self._kept[key] = make()
        return cast("T", self._kept[key])

    def _now(self, key: object, make: Callable[[], T]) -> T:
        if key not in self._fresh:
            self._fresh[key] = make()
        return cast("T", self._fresh[key])


def texts(values: Iterable[Value]) -> Texts:
    """A column of texts; an empty one is not known."""
    known: dict[Spellings, int] = {}
    codes = []
    for value in values:
        spelled = (value,) if isinstance(value, str) else value
        if not isinstance(spelled, tuple) or not spelled[0]:
            codes.append(NONE)
        else:
            codes.append(known.setdefault(tuple(filter(None, spelled)), len(known)))
    return Texts(np.array(codes, dtype=np.intp), tuple(known))


def shared(layout: Layout, values: Floats) -> Floats:
    """[gpu]: a board without a value gets its MIG instances' mean, an instance its board's value."""
    if len(layout.boards) == len(values):
        return values
    parent = np.array([gpu.parent for gpu in layout.gpus], dtype=np.intp)
    child = np.flatnonzero(parent >= 0)
    known = child[np.isfinite(values[child])]
    count = np.bincount(parent[known], minlength=len(values))
    total = np.bincount(parent[known], weights=values[known], minlength=len(values))
    filled = values.copy()
    fill = np.isnan(filled) & (count > 0)
    filled[fill] = total[fill] / count[fill]
    orphan = child[np.isnan(values[child])]
    filled[orphan] = values[parent[orphan]]
    return filled


def _with_waiting(column: Measured, waiting: int) -> Measured:
    """Of a job that waits nothing is measured."""
    nothing = np.full(waiting, np.nan)
    return replace(
        column,
        values=np.concatenate([column.values, nothing.astype(np.float32)]),
        reason=np.concatenate([column.reason, np.full(waiting, Missing.NOT_SAMPLED, dtype=np.uint8)]),
    )


def _pick(of: Index, index: Index) -> Index:
    """What belongs to the entities of ``index``; NONE where there is none."""
    if not len(of):
        return np.full(len(index), NONE, dtype=np.intp)
    return np.where(index < 0, NONE, of[np.maximum(index, 0)])


def _joined(first: Scope, second: Scope) -> Scope:
    of = {}
    for entity in {*first.of, *second.of}:
        parts = [
            scope.of.get(entity, np.full(scope.size, ELSEWHERE, dtype=np.intp)) for scope in (first, second)
        ]
        of[entity] = np.concatenate(parts)
    return Scope(first.size + second.size, np.concatenate([first.owner, second.owner]), of)
