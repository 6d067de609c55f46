"""What the detectors look at: the whole cluster over the last minutes, one [time, entity] array a metric.

A :class:`Window` is of one instant and never changes; it makes its arrays when they are asked for and keeps them, so that
detectors that look at the same metric share it. Entities are in the order of the layout, missing values are NaN.
Recent samples come at the metric's own step (:meth:`Window.recent`), what lies further back in whole minutes
(:meth:`Window.minutes`). A detector that relates metrics of different steps asks for one with ``step``.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from coldaisle.analyzers.snapshot import Column, EventView, Snapshot, Status
from coldaisle.sources.catalog import catalog, kind_of
from coldaisle.sources.cluster import EMPTY, Job, Layout, Rows
from coldaisle.sources.history import History
from coldaisle.sources.source import MISSING_TEXT, Codes, Floats, Kind, Missing

Bools = NDArray[np.bool_]
Made = TypeVar("Made")

SHORTEST_S = 60.0
POLLS = 8
MINUTES = 60
"""How far back whole minutes go."""


class Recent(NamedTuple):
    """Samples of one metric, oldest first; the last row lies at the newest sample."""

    times: NDArray[np.float64]
    """[time]"""
    values: Floats
    """[time, entity], NaN: no sample."""
    step: float
    """Seconds between rows."""

    @property
    def samples(self) -> NDArray[np.intp]:
        """[entity] how many there are."""
        counted: NDArray[np.intp] = present(self.values).sum(axis=0)
        return counted


class Minutes(NamedTuple):
    """Whole minutes of one metric, oldest first: [minute, entity] each, NaN where a minute has no sample."""

    mean: Floats
    low: Floats
    high: Floats


@dataclass(frozen=True, slots=True, eq=False)
class Groups:
    """Who belongs to whom, as integers; -1: to nobody. Made once a layout."""

    gpu_node: Rows
    gpu_rack: Rows
    gpu_model: Rows
    """[gpu] index into ``models``"""
    models: tuple[str, ...]
    is_board: Bools
    """[gpu] False: a MIG instance."""
    has_instances: Bools
    """[gpu] a board that is cut into MIG instances: its own activity says nothing."""
    node_rack: Rows
    node_leaf: Rows
    """[node] index into ``leaves``; -1: not known."""
    leaves: tuple[str, ...]
    port_node: Rows
    server_node: Rows


def groups_of(layout: Layout) -> Groups:
    """The integers of a layout."""
    models = tuple(dict.fromkeys(gpu.model or "" for gpu in layout.gpus))
    leaves = tuple(dict.fromkeys(node.leaf for node in layout.nodes if node.leaf))
    model_of, leaf_of = ({name: number for number, name in enumerate(names)} for names in (models, leaves))
    gpu_node = np.array([gpu.node for gpu in layout.gpus], dtype=np.intp)
    node_rack = np.array([node.rack for node in layout.nodes], dtype=np.intp)
    parent = np.array([gpu.parent for gpu in layout.gpus], dtype=np.intp)
    has_instances = np.zeros(len(layout.gpus), dtype=np.bool_)
    has_instances[parent[parent >= 0]] = True
    return Groups(
        gpu_node=gpu_node,
        gpu_rack=node_rack[gpu_node] if len(gpu_node) else gpu_node,
        gpu_model=np.array([model_of[gpu.model or ""] for gpu in layout.gpus], dtype=np.intp),
        models=models,
        is_board=parent < 0,
        has_instances=has_instances,
        node_rack=node_rack,
        node_leaf=np.array([leaf_of.get(node.leaf or "", -1) for node in layout.nodes], dtype=np.intp),
        leaves=leaves,
        port_node=np.array([port.node for port in layout.ports], dtype=np.intp),
        server_node=np.array([server.node for server in layout.servers], dtype=np.intp),
    )


EMPTY_GROUPS = groups_of(EMPTY)


@dataclass(eq=False)
class Window:
    """The cluster up to an instant. Not safe for several threads: it reads a history."""

    history: History
    snapshot: Snapshot
    """Of the same instant: facts, jobs, status, newest values with the reasons for missing ones."""
    groups: Groups
    poll: float
    """Seconds between two looks at the cluster: the step of the fastest source of GPUs, at least."""
    since: float = -math.inf
    """Nothing earlier is known: the history begins there."""
    reading: float = 0.0
    """Seconds between two readings of the boards, where their exporter says each more than once (readings.py); 0: it does not."""
    kept_minutes: dict[str, tuple[int, Minutes]] = field(default_factory=dict)
    """Whole minutes by metric, shared by the windows of one history: they change once a minute."""
    _made: dict[object, object] = field(default_factory=dict)

    @property
    def at(self) -> float:
        return self.snapshot.at

    @property
    def layout(self) -> Layout:
        return self.snapshot.layout

    @property
    def jobs(self) -> tuple[Job, ...]:
        return self.snapshot.jobs

    @property
    def gpu_job(self) -> NDArray[np.int32]:
        """[gpu] index into jobs; -1: none known."""
        return self.snapshot.gpu_job

    @property
    def held_since(self) -> NDArray[np.float64]:
        """[gpu] when the job that holds it began, in Unix seconds; -inf: no job is known to. What was before is not its doing."""

        def make() -> NDArray[np.float64]:
            began = np.array([*(job.since for job in self.jobs), -np.inf])
            return began[self.gpu_job]

        return self.cached("held since", make)

    def size(self, kind: Kind) -> int:
        """How many entities of a kind there are."""
        if kind is Kind.JOB:
            return len(self.jobs)
        return len(self.layout.rows.get(kind, ()))

    def has(self, key: str) -> bool:
        """Whether anybody delivers a metric."""
        return self.history.step_of(key) is not None

    def step(self, key: str) -> float:
        """Seconds between two samples of a metric that may differ; the window's own where nobody delivers it."""
        step = max(self.history.step_of(key) or self.poll, 0.5)
        return max(step, self.reading) if kind_of(key) is Kind.GPU else step

    def recent(
        self, key: str, seconds: float = SHORTEST_S, polls: int = POLLS, step: float | None = None
    ) -> Recent:
        """Samples of the last ``max(seconds, polls * step)``; all NaN where nobody delivers the metric."""
        step = max(step or 0.0, self.step(key))
        points = max(math.ceil(seconds / step), polls)
        return self.cached(("recent", key, points, step), lambda: self._recent(key, points, step))

    def minutes(self, key: str) -> Minutes:
        """The last whole minutes of a metric, MINUTES of them."""
        minute = int(self.at // 60)
        known = self.kept_minutes.get(key)
        if known is None or known[0] != minute or known[1].mean.shape[1] != self.size(kind_of(key)):
            rows = self._rows(key)
            folded = self.history.folded(key, _bound(rows), self.at, MINUTES)
            known = (minute, Minutes(*(_pick(one, rows) for one in folded)))
            self.kept_minutes[key] = known
        return known[1]

    def latest(self, key: str) -> Column | None:
        """The newest values with age and the reasons for missing ones; None: nobody delivers the metric."""
        return self.snapshot.column(key)

    def current(self, key: str) -> Floats:
        """[entity] newest values that are not stale; NaN: none."""
        column = self.snapshot.column(key)
        if column is None:
            return np.full(self.size(kind_of(key)), np.nan, dtype=np.float32)
        return np.where(column.reason == Missing.PRESENT, column.values, np.float32(np.nan))

    def why_missing(self, key: str, entity: int) -> str:
        """``gpu.mem_temp: not exported``"""
        column = self.snapshot.column(key)
        reason = Missing.NOT_EXPORTED if column is None else Missing(int(column.reason[entity]))
        return f"{key}: {MISSING_TEXT[reason] or 'no sample in the window'}"

    def heard(self, kind: Kind) -> Bools:
        """[entity] whether it delivers now (GPU, node or server)."""
        status: Codes = {
            Kind.GPU: self.snapshot.gpu_status,
            Kind.NODE: self.snapshot.node_status,
            Kind.SERVER: self.snapshot.server_status,
        }[kind]
        heard: Bools = status == Status.OK
        return heard

    def events(self, seconds: float) -> tuple[EventView, ...]:
        """What happened within the last seconds, newest last."""
        events = self.snapshot.events
        first = len(events)
        while first and events[first - 1].at > self.at - seconds:
            first -= 1
        return tuple(event for event in events[first:] if event.at <= self.at)

    def cached(self, name: object, make: Callable[[], Made]) -> Made:
        """What ``make`` gives, made once a window: for measures that several detectors share."""
        if name not in self._made:
            self._made[name] = make()
        return self._made[name]  # type: ignore[return-value]

    def _recent(self, key: str, points: int, step: float) -> Recent:
        rows = self._rows(key)
        newest = self.history.newest_of(key, self.at)
        # Where nothing has come for long the end is now: what is old is not recent.
        end = self.at if newest is None or self.at - newest > 2 * step else newest
        parts = self._parts(key, step)
        grid = self.history.grid(key, _bound(rows), end, step / parts, points * parts)
        if parts > 1:
            grid = _of_readings(key, grid.reshape(points, parts, -1))
        values = _pick(grid, rows)
        return Recent(end - step * np.arange(points - 1, -1, -1.0), values, step)

    def _parts(self, key: str, step: float) -> int:
        """Samples that tell of one reading of the boards: so many lie in a step."""
        native = self.history.step_of(key)
        if not self.reading or kind_of(key) is not Kind.GPU or not native:
            return 1
        return max(round(step / native), 1)

    def _rows(self, key: str) -> Rows:
        kind = kind_of(key)
        rows = self.job_rows if kind is Kind.JOB else self.layout.rows.get(kind)
        return np.zeros(0, dtype=np.intp) if rows is None else rows

    job_rows: Rows = field(default_factory=lambda: np.zeros(0, dtype=np.intp))
    """[job] history row of each of ``jobs``; -1: nothing is measured of it."""


def _of_readings(key: str, samples: Floats) -> Floats:
    """[time, entity] of [time, sample, entity]: the newest sample of each reading. Of a rate their mean: a counter that moves only
    when it is read moves in one of them for all."""
    metric = catalog().get(key)
    if metric is not None and (metric.is_rate or key == "gpu.energy"):
        return mean(samples.swapaxes(0, 1))
    newest = samples[:, 0]
    for number in range(1, samples.shape[1]):
        newest = np.where(present(samples[:, number]), samples[:, number], newest)
    return newest


def _bound(rows: Rows) -> int:
    return int(rows.max(initial=-1)) + 1


def _pick(values: Floats, rows: Rows) -> Floats:
    """[time, entity] in the layout's order; an entity without a row is NaN."""
    if len(rows) == values.shape[1] and np.array_equal(rows, np.arange(len(rows))):
        return values
    picked = (
        values[:, np.maximum(rows, 0)]
        if values.shape[1]
        else np.full((len(values), len(rows)), np.nan, np.float32)
    )
    picked[:, rows < 0] = np.nan
    return picked


# --- over time, NaN-aware: [time, entity] -> [entity] --------------------------------------------


def present(values: NDArray[np.floating]) -> Bools:
    have: Bools = ~np.isnan(values)
    return have


def mean(values: Floats) -> Floats:
    """NaN where there is no sample."""
    have = present(values)
    count = have.sum(axis=0)
    total = np.add.reduce(values, axis=0, where=have, dtype=np.float64)
    with np.errstate(invalid="ignore", divide="ignore"):
        means: Floats = (total / count).astype(np.float32)
    return means


def share(condition: Bools, have: Bools) -> Floats:
    """Of the samples that are there, those for which a condition holds: the duty. NaN where there is no sample."""
    count = have.sum(axis=0)
    with np.errstate(invalid="ignore", divide="ignore"):
        duty: Floats = ((condition & have).sum(axis=0) / count).astype(np.float32)
    return duty


def quantile(values: Floats, q: float) -> Floats:
    """By sorting, many times faster than nanquantile: the nearest sample. NaN where there is none."""
    if not values.size:
        return np.full(values.shape[1], np.nan, dtype=np.float32)
    ordered = np.sort(values, axis=0)  # NaN last
    count = present(values).sum(axis=0)
    place = np.clip(np.rint(q * (count - 1)).astype(np.intp), 0, len(values) - 1)
    picked: Floats = ordered[place, np.arange(values.shape[1])]
    return picked


def median(values: Floats) -> Floats:
    return quantile(values, 0.5)


def by_group(values: NDArray[np.floating], group: NDArray[np.integer], groups: int) -> Floats:
    """[group] mean over the entities of each that have a value; group -1 counts nowhere. NaN: none has."""
    use = (group >= 0) & ~np.isnan(values)
    count = np.bincount(group[use], minlength=groups)
    total = np.bincount(group[use], weights=values[use], minlength=groups)
    with np.errstate(invalid="ignore", divide="ignore"):
        means: Floats = (total / count).astype(np.float32)
    return means


def peer_median(values: Floats, group: NDArray[np.integer]) -> Floats:
    """[entity] the median of the others of its group; NaN: it has no value, or nobody beside it has."""
    out = np.full(len(values), np.nan, dtype=np.float32)
    use = np.flatnonzero((group >= 0) & ~np.isnan(values))
    order = use[np.lexsort((values[use], group[use]))]
    if not len(order):
        return out
    size = np.bincount(group[order])[group[order]]
    new = np.diff(group[order], prepend=-1) != 0
    start = np.flatnonzero(new)[np.cumsum(new) - 1]
    rank, others = np.arange(len(order)) - start, size - 1

    def nth(place: NDArray[np.intp]) -> Floats:
        """Of the others in order: those from the entity itself on lie one further."""
        found: Floats = values[order[np.minimum(start + place + (place >= rank), start + others)]]
        return found

    middle = (nth(np.maximum(others - 1, 0) // 2) + nth(others // 2)) / 2
    out[order] = np.where(others > 0, middle, np.nan)
    return out


def robust_z(values: Floats, group: NDArray[np.integer], floor: float = 0.01) -> tuple[Floats, Floats]:
    """[entity] how far each lies from the median of its group, in robust deviations, and that median.

    z = (x - median) / (1.4826 MAD), the MAD at least ``floor`` of the median's size. NaN in groups of fewer than 3.
    """
    z = np.full(len(values), np.nan, dtype=np.float32)
    centre = np.full(len(values), np.nan, dtype=np.float32)
    use = np.flatnonzero((group >= 0) & ~np.isnan(values))
    order = use[np.argsort(group[use], kind="stable")]
    starts = np.flatnonzero(np.diff(group[order], prepend=-1))
    for members in np.split(order, starts[1:]) if len(order) else ():
        if len(members) >= 3:
            middle = np.median(values[members])
            spread = 1.4826 * max(
                float(np.median(np.abs(values[members] - middle))), floor * abs(float(middle)), 1e-9
            )
            z[members] = (values[members] - middle) / spread
            centre[members] = middle
    return z, centre


def carried(values: Floats) -> Floats:
    """[time, entity] each missing sample as the one before it: a dropped sample is no change; NaN before the first."""
    rows = np.where(present(values), np.arange(len(values))[:, None], 0)
    np.maximum.accumulate(rows, axis=0, out=rows)
    found: Floats = values[rows, np.arange(values.shape[1])[None, :]]
    return found


def began(condition: Bools, times: NDArray[np.float64]) -> NDArray[np.float64]:
    """[entity] since when a condition has held without more than one gap, of those that hold at the end; NaN: it does not.

    ``condition`` is [time, entity]; a missing sample should be given as what the neighbours say.
    """
    broken = ~condition
    twice = broken[1:] & broken[:-1] if len(broken) > 1 else broken
    offset = 2 if len(broken) > 1 else 1
    last_break = np.where(twice.any(axis=0), len(twice) - 1 - np.argmax(twice[::-1], axis=0) + offset, 0)
    inside = np.minimum(last_break, len(times) - 1)
    found = times[inside]
    return np.where(condition[-2:].any(axis=0), found, np.nan)
