"""What a collector knows at an instant, as a picture.

The live picture and one of the past are the same: a :class:`View` of a history and a registry, whoever
filled them.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Mapping, Sequence
from itertools import chain
from statistics import median

import numpy as np
from numpy.typing import NDArray

from coldaisle.analyzers.holders import NOBODY, Holders, holders
from coldaisle.analyzers.snapshot import (
    Column,
    Cost,
    Coverage,
    EventView,
    Join,
    SeriesAnswer,
    SeriesQuery,
    Snapshot,
    SourceView,
    Status,
    Times,
    Travel,
)
from coldaisle.sources.catalog import kind_of
from coldaisle.sources.cluster import EMPTY, Job, Layout, Node, Part, Rows, build_layout, job_from
from coldaisle.sources.collector import Collector, Supervised, state_of
from coldaisle.sources.config import bare_host
from coldaisle.sources.racks import RackRules
from coldaisle.sources.registry import Happened, Registry, is_mig_type
from coldaisle.sources.source import Codes, Kind, Missing, Process, TargetState

EVENTS_SHOWN = 2000
"""Of the newest: on a busy cluster jobs start and end by the hundred an hour."""
LOST_AFTER_S = 30.0
LOST_AFTER_PERIODS = 10.0


class View:
    """Snapshots and series of what one collector knows."""

    def __init__(self, collector: Collector, name: str, racks: RackRules) -> None:
        self.collector = collector
        self.history = collector.history
        self.registry: Registry = collector.registry
        self._name = name
        self._racks = racks
        self._layout = EMPTY
        self._places = _Places(EMPTY)
        self._known_holders = NOBODY
        self._known_events: tuple[tuple[object, ...], tuple[EventView, ...]] = ((), ())
        """What they were made of, and the events."""

    def snapshot(
        self, now: float, cost: Cost | None, *, live: bool = True, travel: Travel | None = None
    ) -> Snapshot:
        """The cluster as known at ``now``, which nothing that was taken in lies behind."""
        layout = self._current_layout()
        known = self._holders(layout, now)
        keys = self.history.keys()
        columns = {key: self._column(key, self._rows(key, layout, known.running), now) for key in keys}
        gpu_status, gpu_seen = self._status(Kind.GPU, layout, now)
        _mark_lost(gpu_status, columns)
        node_status, node_seen = self._status(Kind.NODE, layout, now)
        server_status, server_seen = self._status(Kind.SERVER, layout, now)
        _mark_down(server_status, columns)
        _hear_from(self._places.gpu_node, node_status, node_seen, gpu_status, gpu_seen)
        _hear_from(self._places.server_node, node_status, node_seen, server_status, server_seen)
        return Snapshot(
            at=now,
            name=self._name,
            live=live,
            layout=layout,
            columns=columns,
            gpu_status=gpu_status,
            gpu_seen=gpu_seen,
            node_status=node_status,
            node_seen=node_seen,
            jobs=known.running,
            gpu_job=known.gpu_job,
            gpu_unnamed=self._unnamed(layout, known, now),
            jobs_known=bool(self.registry.jobs or self.registry.queues),
            sources=tuple(self._source_view(s, now) for s in self.collector.supervised),
            coverage=self._coverage(layout, node_status, gpu_status),
            events=self._events(),
            processes=self._processes(),
            joins=tuple(Join(j.at, j.name, j.node, j.how, j.conflict) for j in self.registry.joins),
            cost=cost,
            server_status=server_status,
            server_seen=server_seen,
            replicas=dict(self.registry.services),
            queue=known.waiting,
            queues=dict(self.registry.queues),
            partitions=tuple(chain.from_iterable(self.registry.partitions.values())),
            travel=travel,
        )

    def read(self, query: SeriesQuery, before: float = float("inf")) -> SeriesAnswer:
        """Metrics over time, of samples before an instant. An entity that is not known is a row of NaN."""
        self._current_layout()
        edges = np.linspace(query.start, query.end, query.points + 1)
        values = {}
        for key in query.keys:
            row_of = self._row_of(kind_of(key))
            rows = [row_of(entity) for entity in query.entities]
            values[key] = self.history.series(key, rows, query.start, query.end, query.points, before)
        return SeriesAnswer(query, (edges[:-1] + edges[1:]) / 2, values)

    def _current_layout(self) -> Layout:
        if self._layout.version != self.registry.version:
            self._layout = build_layout(self.registry, self._racks)
            self._places = _Places(self._layout)
        return self._layout

    def _rows(self, key: str, layout: Layout, jobs: Sequence[Job]) -> Rows:
        """History rows of a metric's entities, in the layout's order; of jobs in the order of ``jobs``."""
        kind = kind_of(key)
        if kind is not Kind.JOB:
            return layout.rows[kind]
        return self.job_rows(jobs)

    def job_rows(self, jobs: Sequence[Job]) -> Rows:
        """History row of each job; -1: nothing is measured of it."""
        return np.array([self._part_row(Kind.JOB, job.id) for job in jobs], dtype=np.intp)

    def rows_by_key(self, kind: Kind) -> Mapping[str, int]:
        """History row of every entity of a kind, by its key."""
        self._current_layout()
        if kind in (Kind.JOB, Kind.RACK):
            return {part.name: part.row for part in self.registry.parts[kind]}
        return self._places.rows(kind)

    def ended(self, known: Container[tuple[str, float]] = ()) -> tuple[tuple[Job, float], ...]:
        """Jobs that have ended within the last hour, and when, but for those of ``known`` (id, end)."""
        place = self._places.gpu_of_row
        found = []
        for fact in self.registry.jobs.values():
            if fact.until is not None and not fact.is_waiting and (fact.id, fact.until) not in known:
                rows, known_by = self.registry.gpu_rows_known_by(fact.gpus)
                gpus = tuple(dict.fromkeys(place[row] for row in rows if row in place))
                found.append((job_from(fact, gpus, known_by), fact.until))
        return tuple(found)

    def _part_row(self, kind: Kind, name: str) -> int:
        """The row of a rack or job; -1: nothing is measured of it."""
        row = self.registry.find_part(kind, name)
        return -1 if row is None else row

    def _row_of(self, kind: Kind) -> Callable[[str], int]:
        """What gives the history row of an entity's key; -1: not known."""
        if kind in (Kind.JOB, Kind.RACK):
            return lambda entity: self._part_row(kind, entity)
        rows = self._places.rows(kind)
        return lambda entity: rows.get(entity, -1)

    def _column(self, key: str, rows: Rows, now: float) -> Column:
        size = int(rows.max(initial=-1)) + 1
        latest = self.history.latest(key, size + 1, now)
        # Row ``size`` was never written: it stands for entities without a row.
        pick = np.where(rows < 0, size, rows)
        return Column(latest.values[pick], latest.at[pick], latest.reason[pick], latest.source[pick])

    def _status(self, kind: Kind, layout: Layout, now: float) -> tuple[Codes, Times]:
        rows = layout.rows[kind] if kind in layout.rows else np.zeros(0, dtype=np.intp)
        size = int(rows.max(initial=-1)) + 1
        # Who still tells the past has not said anything of now.
        telling = {s.number for s in self.collector.supervised if s.filling}
        seen, limit = self.history.seen(kind, size, telling)
        seen, limit = seen[rows], limit[rows]
        age = now - seen
        status = np.full(len(rows), Status.OK, dtype=np.uint8)
        status[age > limit] = Status.STALE
        status[age > np.maximum(LOST_AFTER_S, limit / 3 * LOST_AFTER_PERIODS)] = Status.LOST
        status[np.isnan(seen)] = Status.UNKNOWN
        return status, seen

    def _holders(self, layout: Layout, now: float) -> Holders:
        """Who runs and who waits; the same object while that has not changed."""
        if not self._known_holders.holds(layout, self.registry, now):
            self._known_holders = holders(
                layout, self._places.gpu_of_row, self.registry, now, self._known_holders
            )
        return self._known_holders

    def _unnamed(self, layout: Layout, known: Holders, now: float) -> NDArray[np.bool_]:
        """GPUs of nodes on which more of them are held than any source names: which these are is not known.

        Pods say so, and a scheduler's jobs without GPU numbers; and the node itself, where the jobs of others are hidden.
        """
        nobodys = known.gpu_job < 0
        places = self._places
        named = np.bincount(places.gpu_node[~nobodys], minlength=len(layout.nodes))
        more = places.gpus_used > named
        more[list(known.loose)] = True
        for key, held in self.registry.held_by_pods(now).items():
            if key in layout.node_of:
                more[layout.node_of[key]] |= held > named[layout.node_of[key]]
        return np.asarray(nobodys & more[places.gpu_node], dtype=np.bool_)

    def _events(self) -> tuple[EventView, ...]:
        """The same object while there is nothing new: most ticks bring nothing."""
        told = self.registry.events
        made_of = (len(told), told[-1] if told else None, self._layout)
        known, events = self._known_events
        if len(known) != len(made_of) or any(
            a is not b and a != b for a, b in zip(known, made_of, strict=True)
        ):
            newest = sorted(told, key=lambda event: event[0])[-EVENTS_SHOWN:]
            events = tuple(map(self._event, newest))
            self._known_events = (made_of, events)
        return events

    def _event(self, told: Happened) -> EventView:
        at, kind, row, what, detail, job = told
        if kind is Kind.JOB:
            key = self.registry.parts[Kind.JOB][row].name
            return EventView(at, key, what, detail, None if job is None else job_from(job, ()))
        key = "" if kind is None else self._places.keys(kind).get(row, "")
        return EventView(at, key, what, detail)

    def _processes(self) -> Mapping[str, tuple[Process, ...]]:
        rows = self._places.keys(Kind.NODE)
        return {rows[row]: fact.processes for row, fact in self.registry.processes.items() if row in rows}

    def _coverage(self, layout: Layout, nodes: Codes, gpus: Codes) -> Coverage:
        """Heard from now, of all that any source names: targets without a sample yet count as expected."""
        unheard = {
            target.nodes or (bare_host(target.name),)  # two exporters of a host are one node
            for s in self.collector.supervised
            for target in s.targets.values()
            if not target.what and target.state is not TargetState.OK
        }
        silent = [names for names in unheard if not any(self.registry.find_node(name) for name in names)]
        boards = layout.boards
        return Coverage(
            nodes=int((nodes == Status.OK).sum()),
            nodes_expected=len(layout.nodes) + len(silent),
            gpus=int((gpus[boards] == Status.OK).sum()),
            gpus_expected=len(boards) + self._places.boards_unseen,
        )

    def _source_view(self, supervised: Supervised, now: float) -> SourceView:
        newest, period = self.history.newest(supervised.number), self.history.period(supervised.number)
        state, why, remedy = state_of(supervised, newest, period, now)
        targets = tuple(supervised.targets.values())
        latencies = [t.latency_s for t in targets if t.latency_s is not None]
        return SourceView(
            name=supervised.source.name,
            kind=supervised.source.kind,
            state=str(state),
            why=why,
            remedy=remedy,
            interval=supervised.source.interval,
            period=period,
            last_at=newest,
            targets=targets,
            targets_ok=sum(t.state in (TargetState.OK, TargetState.SLOW) for t in targets),
            latency_s=median(latencies) if latencies else None,
            metrics=tuple(supervised.metrics),
            restarts=supervised.restarts,
            retry_at=supervised.retry_at,
        )


def _mark_lost(status: Codes, columns: Mapping[str, Column]) -> None:
    """A GPU whose source says it is lost is lost at once."""
    for key, column in columns.items():
        if kind_of(key) is Kind.GPU:
            status[column.reason == Missing.LOST] = Status.LOST


def _mark_down(status: Codes, columns: Mapping[str, Column]) -> None:
    """A server that does not answer is lost at once."""
    up = columns.get("serve.up")
    if up is not None:
        status[(up.values == 0) & (up.reason == Missing.PRESENT)] = Status.LOST


def _hear_from(node_of: Rows, status: Codes, seen: Times, part_status: Codes, part_seen: Times) -> None:
    """A node without host metrics of its own is heard through its GPUs, or its servers; ``node_of``: of each of them."""
    nodes = len(status)
    newest = np.full(nodes, -np.inf)
    known = ~np.isnan(part_seen)
    np.maximum.at(newest, node_of[known], part_seen[known])
    np.fmax(seen, np.where(np.isinf(newest), np.nan, newest), out=seen)
    best = np.zeros(nodes, dtype=np.uint8)
    np.maximum.at(best, node_of, part_status)
    heard = np.bincount(node_of[part_status == Status.OK], minlength=nodes) > 0
    mute = status == Status.UNKNOWN
    status[mute] = best[mute]
    status[heard] = Status.OK


def _given_away(node: Node) -> int:
    """How many GPUs of a node its scheduler has given away; 0: not told, or counted in MIG instances."""
    return 0 if any(is_mig_type(one.type) for one in node.gres) else node.gpus_used or 0


class _Places:
    """What follows from a layout alone; made once for each."""

    def __init__(self, layout: Layout) -> None:
        self.layout = layout
        self.gpu_node = np.array([gpu.node for gpu in layout.gpus], dtype=np.intp)
        self.server_node = np.array([server.node for server in layout.servers], dtype=np.intp)
        self.gpu_of_row = {int(row): number for number, row in enumerate(layout.rows.get(Kind.GPU, ()))}
        self.gpus_used = np.array([_given_away(node) for node in layout.nodes], dtype=np.intp)
        boards = np.bincount(self.gpu_node[layout.boards], minlength=len(layout.nodes))
        expected = np.array([node.gpus_expected or 0 for node in layout.nodes], dtype=np.intp)
        self.boards_unseen = int(np.maximum(expected - boards, 0).sum())
        self._keys: dict[Kind, dict[int, str]] = {}
        self._rows: dict[Kind, dict[str, int]] = {}

    def keys(self, kind: Kind) -> dict[int, str]:
        """Entity keys of a kind by history row."""
        if kind not in self._keys:
            self._keys[kind] = _keys_by_row(self.layout, kind)
        return self._keys[kind]

    def rows(self, kind: Kind) -> dict[str, int]:
        """The history rows of a kind by entity key."""
        if kind not in self._rows:
            self._rows[kind] = {key: row for row, key in self.keys(kind).items()}
        return self._rows[kind]


def _parts(layout: Layout, kind: Kind) -> tuple[Part, ...]:
    return {Kind.PORT: layout.ports, Kind.DISK: layout.disks, Kind.SERVER: layout.servers}.get(kind, ())


def _keys_by_row(layout: Layout, kind: Kind) -> dict[int, str]:
    keys: list[str]
    match kind:
        case Kind.RACK:
            keys = [rack.name for rack in layout.racks]
        case Kind.NODE:
            keys = [node.key for node in layout.nodes]
        case Kind.GPU:
            keys = [gpu.key for gpu in layout.gpus]
        case _:
            keys = [part.key for part in _parts(layout, kind)]
    return {int(row): key for row, key in zip(layout.rows.get(kind, ()), keys, strict=True)}
