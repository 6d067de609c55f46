"""A page's numbers as metrics of entities: a shape and a vocabulary, compiled once, then only arrays.

:func:`translate` works through the labels of a :class:`~coldaisle.sources.exposition.Shape`: whose
series these are, which rule reads them, how they fold. :class:`Translation` then turns the values
of each further page of that shape into one matrix per kind of entity, in float64. Pure: no clock,
no socket.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from coldaisle.sources.catalog import catalog
from coldaisle.sources.exposition import Series, Shape
from coldaisle.sources.histograms import edge, quantiles
from coldaisle.sources.source import (
    DiskRef,
    EntityRef,
    GpuRef,
    JobRef,
    Kind,
    Missing,
    NodeRef,
    PortRef,
    RackRef,
    ServerRef,
    normal_pci,
)
from coldaisle.sources.vocabularies import NAME, Derived, Engine, Labels, Rule, Vocabulary, is_part

Values = NDArray[np.float64]
Indices = NDArray[np.intp]

MAX_BOARDS = 64
MAX_NAMED = 4096
"""Nodes, racks or jobs that one page may name in labels, of each kind."""
MAX_INSTANCES = 16
"""MIG instances of a board; the hardware has 7."""
MAX_SERVERS = 256
"""Inference servers on one page."""
MAX_BUCKETS = 256
"""Of a histogram; without some of its edges it is only coarser."""
UP = "serve.up"
_HOST = re.compile(r"(?!-)[A-Za-z0-9._-]{1,253}")
_NOBODY = {"localhost", "localhost.localdomain", "localhost4", "localhost6"}
_MINOR = re.compile(r"nvidia(\d{1,4})")
_NUMBER = re.compile(r"\d{1,6}")
_OPERATORS: Mapping[str, np.ufunc] = {"sum": np.add, "max": np.maximum, "min": np.minimum, "mean": np.add}
_NEUTRAL: Mapping[str, float] = {"max": -np.inf, "min": np.inf}


class Job(NamedTuple):
    """A job that a page's labels name beside a GPU."""

    id: str
    """``slurm:4711`` or ``k8s:<namespace>/Pod/<pod>``."""
    name: str
    """Empty where labels have only its number."""
    gpu: GpuRef
    user: str = ""
    partition: str | None = None


class Hosted(NamedTuple):
    """What labels say of an inference server."""

    server: ServerRef
    model: str | None
    service: str | None
    version: str | None
    pod: str | None
    namespace: str | None


class Board(NamedTuple):
    """What labels say of a GPU."""

    gpu: GpuRef
    model: str | None
    serial: str | None
    mig_profile: str | None


@dataclass(frozen=True, slots=True, eq=False)
class Columns:
    """The metrics of one kind, measured and derived, and how they are finished once they stand in a matrix."""

    metrics: tuple[str, ...]
    """Keys that are given, parts of derived ones included, then those that should be given and are not."""
    derived: tuple[tuple[int, Derived, tuple[int, ...]], ...]
    low: Values
    high: Values
    shown: Indices
    """Columns that are metrics, not parts."""
    shown_metrics: tuple[str, ...]
    never: Indices
    """Columns of what an inference engine does not expose at all."""
    up: int | None
    """The column that is 1 as long as its server answers."""

    def finish(self, out: Values, reasons: NDArray[np.uint8]) -> tuple[Values, NDArray[np.uint8]]:
        """Derive, keep in range, leave out what only serves others; ``out`` and ``reasons`` ([entity, metric]) change."""
        _derive(self, out, reasons)
        _keep_in_range(self, out, reasons)
        return out[:, self.shown], reasons[:, self.shown]


@dataclass(frozen=True, slots=True, eq=False)
class Table:
    """The entities of one kind on a page, and what of each metric is there."""

    kind: Kind
    entities: tuple[EntityRef, ...]
    columns: Columns
    absent: NDArray[np.uint8]
    """[entity, metric]: PRESENT where the page has series, else why not."""
    folds: tuple[_Fold, ...]
    places: Mapping[EntityRef, int]
    """Row of each entity."""
    quantiles: _Quantiles | None = None

    @property
    def metrics(self) -> tuple[str, ...]:
        return self.columns.metrics

    @property
    def shown_metrics(self) -> tuple[str, ...]:
        return self.columns.shown_metrics


@dataclass(frozen=True, slots=True, eq=False)
class Translation:
    """A shape in the words of a vocabulary."""

    vocabulary: Vocabulary
    shape: Shape
    node: str
    hostname: str | None
    kernel: str | None
    driver: str | None
    tables: Mapping[Kind, Table]
    boards: tuple[Board, ...]
    jobs: tuple[Job, ...]
    booted_at: int | None
    """Index of the value that says when the node booted."""
    clock: int | None
    missing: tuple[str, ...]
    """Catalog keys that this vocabulary expects and the page lacks."""
    events: tuple[tuple[Kind, int, int, Rule], ...] = ()
    """(kind, row, column, rule) of cells whose change is an event, read from raw values."""
    event_sources: Indices = field(default_factory=lambda: np.zeros(0, np.intp))
    left_out: int = 0
    """GPUs, MIG instances and servers beyond what a node can have; nothing is known of them."""
    servers: tuple[Hosted, ...] = ()
    buckets: Indices = field(default_factory=lambda: np.zeros(0, np.intp))
    """The series whose increases :meth:`evaluate` makes quantiles of."""
    unnamed: int = 0
    """Nodes, racks and jobs beyond what a page may name."""

    @property
    def nodes(self) -> tuple[str, ...]:
        """Whom the page speaks of: its own node, if anything on it is that node's, then those that it names."""
        refs = (entity for table in self.tables.values() for entity in table.entities)
        named = dict.fromkeys(entity.node for entity in refs if not isinstance(entity, RackRef | JobRef))
        own = (self.node,) if self.node in named or not self.tables else ()
        return tuple(dict.fromkeys((*own, *named)))

    def evaluate(
        self, values: Values, rates: Values, increases: Values | None = None
    ) -> dict[Kind, tuple[Values, NDArray[np.uint8]]]:
        """[entity, metric] and the reasons for what is missing, per kind.

        ``rates``: increase per second of every series, NaN without an earlier page or after a reset.
        ``increases``: of every series over the time that quantiles are to cover; None: that of the rates.
        """
        blank = is_blank(values, self.vocabulary)
        over = rates if increases is None else increases
        return {kind: _evaluate(table, values, rates, over, blank) for kind, table in self.tables.items()}


def is_blank(values: Values, vocabulary: Vocabulary) -> NDArray[np.bool_]:
    """Where a value means "no value"."""
    blank = ~np.isfinite(values)
    for low, high in vocabulary.blanks:
        blank |= (values >= low) & (values <= high)
    return blank


def rates_between(before: Values, after: Values, seconds: float) -> Values:
    """Increase per second; NaN where a counter went back (a reset) or time did not pass."""
    if seconds <= 0:
        return np.full(len(after), np.nan)
    with np.errstate(invalid="ignore", over="ignore"):
        change = after - before
        change[change < 0] = np.nan
        return change / seconds


@dataclass(frozen=True, slots=True, eq=False)
class _Fold:
    """All cells of a table that fold alike: terms -> (inner sums ->) cells."""

    operator: str
    sources: Indices
    is_rate: NDArray[np.bool_]
    scale: Values
    offset: Values
    inner: Indices | None
    """Where each inner sum begins among the terms; None: every term stands alone."""
    starts: Indices
    """Where each cell begins among the inner sums."""
    rows: Indices
    columns: Indices
    inner_operator: str = "sum"


@dataclass(frozen=True, slots=True, eq=False)
class _Quantiles:
    """All cells of a table that are quantiles of histograms, as one matrix [cell, bucket]."""

    sources: Indices
    """Of each bucket's series."""
    slots: Indices
    """Where its increase is added in the flattened matrix."""
    edges: Values
    q: Values
    scale: Values
    rows: Indices
    columns: Indices


def _evaluate(
    table: Table, values: Values, rates: Values, increases: Values, blank: NDArray[np.bool_]
) -> tuple[Values, NDArray[np.uint8]]:
    out = np.full((len(table.entities), len(table.metrics)), np.nan)
    reasons = table.absent.copy()
    for fold in table.folds:
        cells, why = _folded(fold, values, rates, blank)
        out[fold.rows, fold.columns] = cells
        reasons[fold.rows, fold.columns] = why
    if table.quantiles is not None:
        cells, why = _read_off(table.quantiles, increases)
        out[table.quantiles.rows, table.quantiles.columns] = cells
        reasons[table.quantiles.rows, table.quantiles.columns] = why
    if table.columns.up is not None:
        out[:, table.columns.up], reasons[:, table.columns.up] = 1.0, Missing.PRESENT
    return table.columns.finish(out, reasons)


def _folded(
    fold: _Fold, values: Values, rates: Values, blank: NDArray[np.bool_]
) -> tuple[Values, NDArray[np.uint8]]:
    terms = np.where(fold.is_rate, rates[fold.sources], values[fold.sources]) * fold.scale + fold.offset
    empty = blank[fold.sources]
    terms[empty] = np.nan
    if fold.operator == "one":
        cells, all_empty = terms, empty
    else:
        cells, all_empty = _reduced(fold, terms, empty)
    why = np.where(np.isnan(cells), np.uint8(Missing.NOT_SAMPLED), np.uint8(Missing.PRESENT))
    why[all_empty] = Missing.BLANK
    return cells, why


def _reduced(fold: _Fold, terms: Values, empty: NDArray[np.bool_]) -> tuple[Values, NDArray[np.bool_]]:
    """Blank terms are left out; a rate that is not known yet makes its cell unknown."""
    if fold.inner is not None:
        within = _OPERATORS[fold.inner_operator]
        terms = within.reduceat(np.where(empty, _NEUTRAL.get(fold.inner_operator, 0.0), terms), fold.inner)
        empty = np.logical_and.reduceat(empty, fold.inner)
    present = np.add.reduceat((~empty).astype(np.float64), fold.starts)
    none = present == 0
    if fold.operator == "count":
        return np.where(none, np.nan, present), none
    neutral = _NEUTRAL.get(fold.operator, 0.0)
    cells = _OPERATORS[fold.operator].reduceat(np.where(empty, neutral, terms), fold.starts)
    if fold.operator == "mean":
        cells = cells / np.maximum(present, 1.0)
    return np.where(none, np.nan, cells), none


def _read_off(cells: _Quantiles, increases: Values) -> tuple[Values, NDArray[np.uint8]]:
    """A bucket without an earlier page counts nothing; a histogram that nothing was added to has no quantile."""
    rise = increases[cells.sources]
    known = np.isfinite(rise)
    counts = np.bincount(cells.slots, np.where(known, rise, 0.0), cells.edges.size).astype(np.float64)
    found = quantiles(cells.edges, counts.reshape(cells.edges.shape), cells.q) * cells.scale
    heard = np.bincount(cells.slots // cells.edges.shape[1], known, len(found)) > 0
    why = np.where(heard, np.uint8(Missing.BLANK), np.uint8(Missing.NOT_SAMPLED))
    why[~np.isnan(found)] = Missing.PRESENT
    return found, why


def _derive(table: Columns, out: Values, reasons: NDArray[np.uint8]) -> None:
    """Fill what no rule measured from its parts."""
    for column, derived, parts in table.derived:
        hole = np.isnan(out[:, column])
        if not hole.any():
            continue
        made = _from_parts(derived, parts, out)
        out[hole, column] = made[hole]
        nothing = np.isnan(made)
        if not nothing.any():
            reasons[hole, column] = Missing.PRESENT
            continue
        why = reasons[:, list(parts)].max(axis=1)
        # Parts without a fault that still give nothing: a ratio of nothing, such as the time of no reads.
        why[nothing & (why == Missing.PRESENT)] = Missing.BLANK
        reasons[hole, column] = np.where(nothing, why, Missing.PRESENT)[hole]


def _from_parts(derived: Derived, parts: tuple[int, ...], out: Values) -> Values:
    with np.errstate(invalid="ignore", divide="ignore"):
        if derived.ratio:
            whole = out[:, parts[1]]
            return np.where(whole > 0, out[:, parts[0]] / whole, np.nan)
        if derived.difference:
            return out[:, parts[0]] - out[:, parts[1]]
        if derived.product:
            product: Values = out[:, list(parts)].prod(axis=1)
            return product
        made: Values = out[:, list(parts)].sum(axis=1)
        return made


def _keep_in_range(table: Columns, out: Values, reasons: NDArray[np.uint8]) -> None:
    """What the catalog calls impossible is a blank; a share a little above 1 is the jitter of two clocks."""
    with np.errstate(invalid="ignore"):
        high = out > table.high
        if high.any():
            slight = high & (out <= table.high * 1.1) & (table.high == 1.0)
            np.copyto(out, 1.0, where=slight)
            high &= ~slight
        wrong = high | (out < table.low)
    if not wrong.any():
        return
    out[wrong] = np.nan
    reasons[wrong] = Missing.BLANK


# ---- compiling


def translate_all(
    shape: Shape,
    vocabularies: Sequence[Vocabulary],
    host: str,
    *,
    endpoint: str = "",
    ignore_names: bool = False,
) -> tuple[Translation, ...]:
    """A translation for each vocabulary that a page speaks; all of them believe in one node.

    What the node's own kernel says of its name counts more than a label.
    """
    made = [
        translate(shape, words, host, endpoint=endpoint, ignore_names=ignore_names) for words in vocabularies
    ]
    named = sorted(
        (one for one in made if one.node != host), key=lambda one: not one.vocabulary.facts.hostname
    )
    if not named:
        return tuple(made)
    name = named[0].node
    return tuple(
        one
        if one.node == name
        else translate(shape, one.vocabulary, name, endpoint=endpoint, ignore_names=True)
        for one in made
    )


def translate(
    shape: Shape, vocabulary: Vocabulary, host: str, *, endpoint: str = "", ignore_names: bool = False
) -> Translation:
    """Compile. ``host`` names the node where the page does not, or where ``ignore_names`` says not to believe it.

    ``endpoint`` (``host:port``) names the page's inference server, if it is one.
    """
    return _Compiler(shape, vocabulary, host, endpoint or host, ignore_names).compile()


class _Term(NamedTuple):
    rule: Rule
    source: int
    group: tuple[str, ...]
    factor: float = 1.0
    edge: float = np.nan
    """A bucket's."""


Part = tuple[object, ...]
Cells = list[tuple[tuple[int, str], list[_Term]]]


@dataclass
class _Sheet:
    """A table being filled: rows, columns, and for each cell its terms."""

    rows: dict[EntityRef, int] = field(default_factory=dict)
    cells: dict[tuple[int, str], dict[Part, _Term]] = field(default_factory=dict)
    owners: dict[tuple[int, str], int] = field(default_factory=dict)
    """Which rule (by its place in the file) holds a cell."""


class _Compiler:
    def __init__(
        self, shape: Shape, vocabulary: Vocabulary, host: str, endpoint: str, ignore_names: bool
    ) -> None:
        self._shape = shape
        self._words = vocabulary
        self._labels = [dict(series.labels) for series in shape.series]
        self._by_name: dict[str, list[int]] = {}
        for number, series in enumerate(shape.series):
            self._by_name.setdefault(series.name, []).append(number)
        self._sheets: dict[Kind, _Sheet] = {}
        # Another vocabulary's labels may have the same names and mean something else.
        self._spoken = self._of(vocabulary.wanted())
        self._of_gpus = self._of(vocabulary.names_of(Kind.GPU))
        self._unnamed: set[EntityRef] = set()
        self.hostname = self._text_fact(vocabulary.facts.hostname) or self._first(vocabulary.labels.node)
        believed = None if ignore_names else host_name(self.hostname)
        self._node = believed or host
        self._boards = Boards(self._node, vocabulary.labels)
        self._servers = Servers(self._node, endpoint, vocabulary)

    def compile(self) -> Translation:
        for labels in sorted(self._of_gpus, key=self._boards.is_unnamed):
            self._boards.learn(labels)
        picked = list(self._picked())
        for _, rule, number in picked:
            if rule.kind is Kind.SERVER:
                self._servers.learn(self._labels[number])
        for place, rule, number in picked:
            entity = self._entity(rule, self._labels[number])
            if entity is not None:
                self._add(place, rule, entity, number)
        tables = {kind: self._table(kind, sheet) for kind, sheet in self._sheets.items()}
        jobs = dict.fromkeys(job for labels in self._of_gpus for job in self._jobs(labels))
        facts = self._words.facts
        events, sources = self._events(tables)
        return Translation(
            vocabulary=self._words,
            shape=self._shape,
            node=self._node,
            hostname=self.hostname,
            kernel=self._text_fact(facts.kernel),
            driver=self._first(self._words.labels.driver),
            tables=tables,
            boards=tuple(self._boards.all()),
            jobs=tuple(jobs),
            booted_at=self._value_fact(facts.booted_at),
            clock=self._value_fact(facts.clock),
            missing=self._missing(tables),
            events=events,
            event_sources=sources,
            left_out=len(self._boards.left_out) + len(self._servers.left_out),
            unnamed=len(self._unnamed),
            servers=tuple(self._servers.all()),
            buckets=np.unique(
                np.concatenate(
                    [np.zeros(0, np.intp), *(t.quantiles.sources for t in tables.values() if t.quantiles)]
                )
            ),
        )

    def _picked(self) -> Iterator[tuple[int, Rule, int]]:
        """(place of the rule in the file, rule, series) of all that is read."""
        for place, rule in enumerate(self._words.metric):
            selection = self._words.select.get(rule.select)
            for name in rule.names:
                for number in self._by_name.get(name, ()):
                    if selection is None or selection.takes(self._labels[number]):
                        yield place, rule, number

    def _of(self, names: Set[str]) -> list[dict[str, str]]:
        return [
            labels
            for series, labels in zip(self._shape.series, self._labels, strict=True)
            if series.name in names
        ]

    def _add(self, place: int, rule: Rule, entity: EntityRef, number: int) -> None:
        labels = self._labels[number]
        term = _term(rule, number, labels)
        if term is None:
            return
        sheet = self._sheets.setdefault(rule.kind, _Sheet())
        if entity not in sheet.rows and rule.kind in _NAMED and len(sheet.rows) >= MAX_NAMED:
            self._unnamed.add(entity)
            return
        cell = (sheet.rows.setdefault(entity, len(sheet.rows)), rule.key)
        if sheet.owners.setdefault(cell, place) != place:
            return
        sheet.cells.setdefault(cell, {}).setdefault(_part(rule, self._shape.series[number], labels), term)

    def _entity(self, rule: Rule, labels: dict[str, str]) -> EntityRef | None:
        if rule.kind is Kind.GPU:
            return self._boards.ref(labels, whole=rule.board)
        if rule.kind is Kind.SERVER:
            return self._servers.ref(labels)
        return labelled_ref(self._words, rule, labels, self._node)

    def _table(self, kind: Kind, sheet: _Sheet) -> Table:
        columns = columns_for(self._words, kind, dict.fromkeys(key for _, key in sheet.cells))
        column = {key: place for place, key in enumerate(columns.metrics)}
        absent = np.full((len(sheet.rows), len(columns.metrics)), Missing.NOT_EXPORTED, np.uint8)
        for row, key in sheet.cells:
            absent[row, column[key]] = Missing.PRESENT
        self._mark_instances(kind, sheet, column, absent)
        absent[:, columns.never] = Missing.NOT_SUPPORTED
        return Table(
            kind=kind,
            entities=tuple(sheet.rows),
            columns=columns,
            absent=absent,
            folds=tuple(_folds(sheet, column)),
            quantiles=_quantiles(sheet, column),
            places=dict(sheet.rows),
        )

    def _mark_instances(
        self, kind: Kind, sheet: _Sheet, column: Mapping[str, int], absent: NDArray[np.uint8]
    ) -> None:
        """A MIG instance has no power or temperature of its own: its board has."""
        if kind is not Kind.GPU:
            return
        boards = [column[rule.key] for rule in self._words.metric if rule.board and rule.key in column]
        for entity, row in sheet.rows.items():
            if isinstance(entity, GpuRef) and entity.mig is not None:
                absent[row, boards] = Missing.NOT_SUPPORTED

    def _jobs(self, labels: dict[str, str]) -> Iterator[Job]:
        gpu = self._boards.ref(labels, whole=False)
        return jobs_of(labels, self._words.labels, gpu) if gpu is not None else iter(())

    def _events(
        self, tables: Mapping[Kind, Table]
    ) -> tuple[tuple[tuple[Kind, int, int, Rule], ...], Indices]:
        events: list[tuple[Kind, int, int, Rule]] = []
        sources: list[int] = []
        for kind, sheet in self._sheets.items():
            for (row, key), terms in sheet.cells.items():
                first = next(iter(terms.values()))
                if first.rule.event:
                    events.append((kind, row, tables[kind].metrics.index(key), first.rule))
                    sources.append(first.source)
        return tuple(events), np.array(sources, np.intp)

    def _missing(self, tables: Mapping[Kind, Table]) -> tuple[str, ...]:
        given = {
            key
            for table in tables.values()
            for place, key in enumerate(table.metrics)
            if (table.absent[:, place] == Missing.PRESENT).any()
        } | {one.key for table in tables.values() for _, one, _ in table.columns.derived}
        return tuple(dict.fromkeys(r.key for r in self._words.metric if r.expected and r.key not in given))

    def _first(self, names: Iterable[str]) -> str | None:
        for labels in self._spoken:
            found = first_of(names, labels)
            if found:
                return found
        return None

    def _text_fact(self, place: str) -> str | None:
        name, _, label = place.partition(".")
        numbers = self._by_name.get(name, ())
        return next((value for n in numbers if (value := self._labels[n].get(label))), None)

    def _value_fact(self, name: str) -> int | None:
        numbers = self._by_name.get(name) if name else None
        return numbers[0] if numbers else None


def columns_for(vocabulary: Vocabulary, kind: Kind, given: Iterable[str]) -> Columns:
    """Columns for the keys that are ``given``, for what the vocabulary derives from them and for what it promises."""
    measured = dict.fromkeys(given)
    derived = _derivable(vocabulary, kind, measured)
    keys = measured | dict.fromkeys(one.key for one in derived)
    metrics = tuple(keys) + tuple(key for key in _promised(vocabulary, kind) if key not in keys)
    column = {key: place for place, key in enumerate(metrics)}
    known = catalog()
    shown = [place for place, key in enumerate(metrics) if not is_part(key)]
    bounds = [(known[key].low, known[key].high) if key in known else (-np.inf, np.inf) for key in metrics]
    engine = vocabulary.server if kind is Kind.SERVER else None
    never = [column[key] for key in engine.absent if key not in keys] if engine else []
    return Columns(
        metrics=metrics,
        derived=tuple((column[one.key], one, tuple(column[part] for part in one.parts)) for one in derived),
        low=np.array([low for low, _ in bounds]),
        high=np.array([high for _, high in bounds]),
        shown=np.array(shown, np.intp),
        shown_metrics=tuple(metrics[place] for place in shown),
        never=np.array(never, np.intp),
        up=column[UP] if kind is Kind.SERVER else None,
    )


def _promised(vocabulary: Vocabulary, kind: Kind) -> Iterable[str]:
    """Metrics that have a column though the page may not have them: so it can be said why."""
    if kind is not Kind.SERVER or vocabulary.server is None:
        up = (UP,) if kind is Kind.SERVER else ()
        return dict.fromkeys((*(r.key for r in vocabulary.metric if r.kind is kind and r.expected), *up))
    rules: tuple[Rule | Derived, ...] = (*vocabulary.metric, *vocabulary.derived)
    keys = [one.key for one in rules if one.kind is kind and not is_part(one.key)]
    return dict.fromkeys((*keys, *vocabulary.server.absent, UP))


def _derivable(vocabulary: Vocabulary, kind: Kind, given: Mapping[str, None]) -> list[Derived]:
    """Derived metrics whose parts are given, in the file's order."""
    have, found = set(given), []
    for one in vocabulary.derived:
        if one.kind is kind and have.issuperset(one.parts):
            have.add(one.key)
            found.append(one)
    return found


def labelled_ref(
    vocabulary: Vocabulary, rule: Rule, labels: Mapping[str, str], node: str
) -> EntityRef | None:
    """The node, port, disk, rack or job that a series' labels name; without a label for it, ``node`` itself."""
    name = entity_name(rule.entity or vocabulary.entity.get(rule.kind, ""), labels)
    if rule.kind is Kind.NODE:
        believed = host_name(name) if name else node
        return NodeRef(believed) if believed else None
    if rule.kind is Kind.JOB:
        job = name or next((job.id for job in jobs_of(labels, vocabulary.labels, GpuRef(node))), None)
        return JobRef(job[:MAX_NAME]) if job else None
    if not name:
        return None
    if rule.kind is Kind.RACK:
        return RackRef(name[:MAX_NAME])
    if rule.kind is Kind.PORT:
        return PortRef(node, name)
    return DiskRef(node, name) if rule.kind is Kind.DISK else None


def jobs_of(labels: Mapping[str, str], words: Labels, gpu: GpuRef) -> Iterator[Job]:
    """The jobs that a GPU's labels name."""
    if job := first_of(words.job, labels):
        partition = first_of(words.partition, labels)
        yield Job(f"slurm:{job}", "", gpu, first_of(words.user, labels) or "", partition)
    if pod := first_of(words.pod, labels):
        space = first_of(words.namespace, labels) or "default"
        yield Job(f"k8s:{space}/Pod/{pod}", pod, gpu)


class Boards:
    """The GPUs of a node. Families differ in the labels they carry; what any of them says of a board counts for all."""

    def __init__(self, node: str, words: Labels) -> None:
        self._node = node
        self._words = words
        self._known: dict[str, dict[str, str]] = {}
        self._instances: dict[str, dict[str, str]] = {}
        """Board → instance → profile."""
        self._at: dict[str, str] = {}
        """Index -> the name of the board that has it: not all series of it may say more."""
        self._refs: dict[tuple[str, str], GpuRef] = {}
        """As made, once all labels are learnt: hundreds of series speak of a board."""
        self.left_out: set[tuple[str, str]] = set()
        """(board, instance) of those too many."""

    def learn(self, labels: Mapping[str, str]) -> None:
        """Take in what a series' labels say of its board."""
        name = self._name(labels)
        if name is None:
            return
        if name not in self._known and len(self._known) >= MAX_BOARDS:
            self.left_out.add((name, ""))
            return
        known = self._known.setdefault(name, {})
        for role in ("pci", "index", "device", "model", "serial"):
            value = first_of(getattr(self._words, role), labels)
            if value:
                known.setdefault(role, value)
        if "index" in known:
            self._at.setdefault(known["index"], name)
        instance = first_of(self._words.mig_id, labels)
        if instance:
            self._learn_instance(name, instance, first_of(self._words.mig_profile, labels) or "")

    def is_unnamed(self, labels: Mapping[str, str]) -> bool:
        """Whether only a number says which board is meant; to be learnt after those that are named."""
        return not (first_of(self._words.uuid, labels) or first_of(self._words.pci, labels))

    def _learn_instance(self, name: str, instance: str, profile: str) -> None:
        known = self._instances.setdefault(name, {})
        if instance in known or len(known) < MAX_INSTANCES:
            known.setdefault(instance, profile)
        else:
            self.left_out.add((name, instance))

    def ref(self, labels: Mapping[str, str], *, whole: bool) -> GpuRef | None:
        """Whose series this is; ``whole``: the board, also for a MIG instance's series."""
        name = self._name(labels)
        if name not in self._known:
            return None
        instance = "" if whole else (first_of(self._words.mig_id, labels) or "")
        if instance and instance not in self._instances.get(name, {}):
            return None
        return self._made(name, instance)

    def all(self) -> Iterator[Board]:
        """Every board, and its MIG instances."""
        for name, known in self._known.items():
            yield Board(self._made(name, ""), known.get("model"), known.get("serial"), None)
            for instance, profile in self._instances.get(name, {}).items():
                gpu = self._made(name, instance)
                yield Board(gpu, known.get("model"), known.get("serial"), profile or None)

    def _made(self, name: str, instance: str) -> GpuRef:
        ref = self._refs.get((name, instance))
        if ref is None:
            ref = self._refs[name, instance] = self._new(name, instance)
        return ref

    def _new(self, name: str, instance: str) -> GpuRef:
        known = self._known[name]
        minor = _MINOR.fullmatch(known.get("device", ""))
        index = known.get("index", "")
        return GpuRef(
            node=self._node,
            uuid=name if not name.startswith(_UNNAMED) else None,
            pci=normal_pci(known["pci"]) if "pci" in known else None,
            minor=int(minor[1]) if minor else None,
            index=int(index) if _NUMBER.fullmatch(index) else None,
            mig=f"gi{instance}" if instance else None,
        )

    def _name(self, labels: Mapping[str, str]) -> str | None:
        """What tells boards apart on a page: the UUID, else the PCI address, else the index."""
        uuid = first_of(self._words.uuid, labels)
        if uuid:
            prefix = self._words.uuid_prefix
            return uuid if uuid.startswith(prefix) else prefix + uuid
        pci, index = first_of(self._words.pci, labels), first_of(self._words.index, labels)
        if pci:
            return _UNNAMED + pci
        return self._at.get(index, _UNNAMED + index) if index else None


_UNNAMED = "#"
_NAMED = frozenset((Kind.NODE, Kind.RACK, Kind.JOB))
MAX_NAME = 200
"""Characters of a rack's or job's name."""


class Servers:
    """The inference servers of a page, by what tells them apart.

    A series without such a label is the only server's; where there are several it is nobody's.
    """

    def __init__(self, node: str, endpoint: str, words: Vocabulary) -> None:
        self._node = node
        self._endpoint = endpoint
        self._words = words.labels
        self._engine = words.server or Engine("")
        self._known: dict[str, dict[str, str]] = {}
        """What labels say of each."""
        self.left_out: set[str] = set()

    def learn(self, labels: Mapping[str, str]) -> None:
        """Take in what a series' labels say of its server."""
        which = self._engine.which(labels)
        if which not in self._known and len(self._known) >= MAX_SERVERS:
            self.left_out.add(which)
            return
        known = self._known.setdefault(which, {})
        for role in Hosted._fields[1:]:
            value = first_of(getattr(self._words, role), labels)
            if value:
                known.setdefault(role, value)

    def ref(self, labels: Mapping[str, str]) -> ServerRef | None:
        """Whose series this is."""
        which = self._engine.which(labels) or self._only
        return None if which is None or which not in self._known else self._made(which)

    def all(self) -> Iterator[Hosted]:
        """The servers; what a series that is nobody's says counts for the only one."""
        for which, known in self._known.items():
            if which or self._only == "":
                merged = self._known.get("", {}) | known if which == self._only else known
                yield Hosted(self._made(which), *(merged.get(role) for role in Hosted._fields[1:]))

    @property
    def _only(self) -> str | None:
        """The server of a page that has no other."""
        named = [which for which in self._known if which]
        return None if len(named) > 1 else "".join(named)

    def _made(self, which: str) -> ServerRef:
        return ServerRef(self._node, self._engine.server_name(self._endpoint, which))


def _term(rule: Rule, source: int, labels: Mapping[str, str]) -> _Term | None:
    """A series as a rule reads it; None: its labels do not hold the numbers that the rule needs."""
    factor, top = 1.0, np.nan
    for label in rule.from_labels:
        number = edge(labels.get(label, ""))
        if number is None or not np.isfinite(number):
            return None
        factor *= number
    if rule.fold == "quantile":
        found = edge(labels.get("le", ""))
        if found is None:
            return None
        top = found
    return _Term(rule, source, tuple(labels.get(label, "") for label in rule.within), factor, top)


def _part(rule: Rule, series: Series, labels: Mapping[str, str]) -> Part:
    """What tells the series of a cell apart; the buckets of a histogram are told apart by all they have."""
    if rule.fold == "quantile":
        return tuple(sorted(labels.items()))
    return tuple(series.name if label == NAME else labels.get(label, "") for label in rule.parts)


def _quantiles(sheet: _Sheet, column: Mapping[str, int]) -> _Quantiles | None:
    cells: Cells = [
        (cell, list(terms.values()))
        for cell, terms in sheet.cells.items()
        if next(iter(terms.values())).rule.fold == "quantile"
    ]
    if not cells:
        return None
    rising = [_edges(terms) for _, terms in cells]
    edges = np.full((len(cells), max(map(len, rising))), np.inf)
    sources: list[int] = []
    slots: list[int] = []
    for row, (found, (_, terms)) in enumerate(zip(rising, cells, strict=True)):
        if found[-1] == np.inf:  # without that bucket nobody knows how many there were: the row stays inf
            edges[row, : len(found)] = found
        place = {top: row * edges.shape[1] + number for number, top in enumerate(found)}
        kept = [term for term in terms if term.edge in place]
        sources += [term.source for term in kept]
        slots += [place[term.edge] for term in kept]
    rules = [terms[0].rule for _, terms in cells]
    return _Quantiles(
        sources=np.array(sources, np.intp),
        slots=np.array(slots, np.intp),
        edges=edges,
        q=np.array([rule.quantile for rule in rules]),
        scale=np.array([rule.scale for rule in rules]),
        rows=np.array([row for (row, _), _ in cells], np.intp),
        columns=np.array([column[key] for (_, key), _ in cells], np.intp),
    )


def _edges(terms: list[_Term]) -> list[float]:
    """A histogram's edges, rising."""
    found = sorted({term.edge for term in terms})
    return found if len(found) <= MAX_BUCKETS else [*found[: MAX_BUCKETS - 1], found[-1]]


def _folds(sheet: _Sheet, column: Mapping[str, int]) -> Iterator[_Fold]:
    """Cells grouped by how they fold."""
    groups: dict[tuple[str, str], Cells] = {}
    for cell, known in sheet.cells.items():
        terms = list(known.values())
        rule = terms[0].rule
        if rule.fold != "quantile":
            groups.setdefault((rule.fold, rule.inner if rule.within else ""), []).append((cell, terms))
    for (operator, inner), cells in groups.items():
        yield _fold(operator, inner, cells, column)


def _fold(operator: str, inner_operator: str, cells: Cells, column: Mapping[str, int]) -> _Fold:
    has_inner = bool(inner_operator)
    terms: list[_Term] = []
    inner: list[int] = []
    starts: list[int] = []
    for _, members in cells:
        starts.append(len(inner))
        ordered = sorted(members, key=lambda term: term.group) if has_inner else members
        for place, term in enumerate(ordered):
            if not has_inner or place == 0 or term.group != ordered[place - 1].group:
                inner.append(len(terms))
            terms.append(term)
    return _Fold(
        operator=operator,
        sources=np.array([term.source for term in terms], np.intp),
        is_rate=np.array([term.rule.type == "rate" for term in terms], np.bool_),
        scale=np.array([term.rule.scale * term.factor for term in terms]),
        offset=np.array([term.rule.offset for term in terms]),
        inner=np.array(inner, np.intp) if has_inner else None,
        starts=np.array(starts, np.intp),
        rows=np.array([row for (row, _), _ in cells], np.intp),
        columns=np.array([column[key] for (_, key), _ in cells], np.intp),
        inner_operator=inner_operator or "sum",
    )


def first_of(names: Iterable[str], labels: Mapping[str, str]) -> str | None:
    """The first of these labels that is there and not empty."""
    for name in names:
        value = labels.get(name)
        if value:
            return value
    return None


def entity_name(template: str, labels: Mapping[str, str]) -> str | None:
    """``{device}/{port}`` with a series' labels; None when one is not there."""
    try:
        return template.format_map(labels)
    except (KeyError, IndexError, ValueError, AttributeError):
        return None


def host_name(text: str | None) -> str | None:
    """A name that can be a host's and says which."""
    if text is None or not _HOST.fullmatch(text) or text.lower() in _NOBODY:
        return None
    return text
