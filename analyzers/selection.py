"""A filter at work: a tree of :mod:`.filter`, checked against the fields of a row, as a mask over a snapshot.

A node, job or server is kept when it matches itself or when one of its GPUs does: the whole filter is asked of each
GPU with its node and job. What has no value (missing, or stale) answers neither yes nor no, and a negation does not
make a yes of it: ``power<300``, ``power!=300`` and ``!(power<300)`` all leave it out; ``missing(power)`` finds it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from fnmatch import translate
from functools import lru_cache
from typing import NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from coldaisle.analyzers.fields import Entity, Field, Texts, find, nearest, title
from coldaisle.analyzers.filter import Absent, All, Any, Comparison, Filter, Not, Op, Words, parse
from coldaisle.analyzers.happenings import kind_words
from coldaisle.analyzers.patterns import Pattern, PatternError
from coldaisle.analyzers.snapshot import Snapshot, Status
from coldaisle.analyzers.tables import ELSEWHERE, Index, Scope, Tables
from coldaisle.sources.cluster import Job, Layout, Server
from coldaisle.sources.errors import FilterError
from coldaisle.sources.nodesets import expand
from coldaisle.sources.source import Target
from coldaisle.sources.units import parse as parse_value

Flags: TypeAlias = NDArray[np.bool_]
MOST_TEXT = 512
"""Characters of a foreign text that are looked at."""
_ORDERED = {Op.LESS: np.less, Op.AT_MOST: np.less_equal, Op.MORE: np.greater, Op.AT_LEAST: np.greater_equal}
_EQUAL_WITHIN = 1e-6
"""Of the value: measurements are float32."""


class Answer(NamedTuple):
    """What a part of a filter says of each row; where both are False nothing is known."""

    yes: Flags
    no: Flags


Judge: TypeAlias = Callable[[Tables, Scope], Answer]


class Selection:
    """A filter ready for rows of one kind."""

    def __init__(self, text: str, row: Entity) -> None:
        """FilterError says what is wrong with the text."""
        self.text = text
        self.row = row
        tree = parse(text)
        self._judge = None if tree is None else _compiled(tree, row)
        self.fields = () if tree is None else tuple(_asked(tree, row))
        """What it looks at."""
        self._tables = Tables()

    def mask(self, snapshot: Snapshot) -> Flags:
        """[row] which rows it keeps, in the snapshot's order."""
        self._tables.take(snapshot)
        size = self._tables.size(self.row)
        if self._judge is None:
            return np.ones(size, dtype=np.bool_)
        scope = self._tables.scope(self.row)
        yes = self._judge(self._tables, scope).yes
        if scope.size == size:
            return yes
        kept = np.zeros(size, dtype=np.bool_)
        kept[scope.owner[yes]] = True
        return kept


def with_boards(layout: Layout, mask: Flags) -> Flags:
    """[gpu] the same, and every board one of whose MIG instances is kept: a map shows boards."""
    if len(layout.boards) == len(mask):
        return mask
    lit = mask.copy()
    for index in np.flatnonzero(mask):
        if (parent := layout.gpus[index].parent) >= 0:
            lit[parent] = True
    return lit


def named(layout: Layout, word: str) -> Flags:
    """[node] whether a word means it: a part of a name, a pattern, a node set; ValueError says what is wrong with it.

    Its names are its own, its host name, its aliases and its rack. A word that is the whole name of a rack means
    that rack alone, not ``r010`` for ``r01``.
    """
    word = word.casefold()
    if _is_node_set(word):
        wanted = frozenset(expand(word))
        return np.array([any(name in wanted for name in names) for names in _names(layout)], dtype=np.bool_)
    if "*" in word or "?" in word:
        fits = _glob(word)
        return np.array([any(map(fits, names)) for names in _names(layout)], dtype=np.bool_)
    racks = [rack.name.casefold() == word for rack in layout.racks]
    if any(racks):
        return np.array([racks[node.rack] for node in layout.nodes], dtype=np.bool_)
    return np.array([any(word in name for name in names) for names in _names(layout)], dtype=np.bool_)


def values(field: Field, snapshot: Snapshot) -> list[str]:
    """What a text field holds now, each once."""
    if not field.is_text:
        return []
    tables = Tables()
    tables.take(snapshot)
    column = tables.column(field)
    assert isinstance(column, Texts)
    return list(dict.fromkeys(spelled[0] for spelled in column.values))


# --- the tree ---------------------------------------------------------------------------------------


def _asked(tree: Filter, row: Entity) -> Iterator[Field]:
    match tree:
        case Comparison(name) | Absent(name):
            yield from find(name, row)
        case Not(of):
            yield from _asked(of, row)
        case All(parts) | Any(parts):
            for part in parts:
                yield from _asked(part, row)
        case _:
            pass


def _compiled(tree: Filter, row: Entity) -> Judge:
    match tree:
        case Words():
            return _words(tree, row)
        case Comparison():
            return _comparison(tree, row)
        case Absent(name):
            return _absent(_field(name, tree.at, row)[0])
        case Not(of):
            inner = _compiled(of, row)
            return lambda tables, scope: Answer(*reversed(inner(tables, scope)))
        case All(parts):
            return _together([_compiled(part, row) for part in parts], np.logical_and, np.logical_or)
        case Any(parts):
            return _together([_compiled(part, row) for part in parts], np.logical_or, np.logical_and)


def _together(judges: Sequence[Judge], yes: np.ufunc, no: np.ufunc) -> Judge:
    def judge(tables: Tables, scope: Scope) -> Answer:
        answers = [one(tables, scope) for one in judges]
        return Answer(yes.reduce([one.yes for one in answers]), no.reduce([one.no for one in answers]))

    return judge


def _field(name: str, at: tuple[int, int], row: Entity) -> tuple[Field, ...]:
    if found := find(name, row):
        return found
    near = nearest(name, row)
    remedy = (
        f"did you mean {near}?"
        if near
        else "Tab completes fields; coldaisle list gpus --columns help lists them"
    )
    raise FilterError(f"no field {name!r} of a {title(row)}", remedy, *at)


def _index(scope: Scope, field: Field) -> Index | None:
    """[row] where the field's value is; None: these rows have nothing of the kind."""
    return scope.of.get(field.entity)


def _nothing(scope: Scope) -> Answer:
    return Answer(np.zeros(scope.size, dtype=np.bool_), np.zeros(scope.size, dtype=np.bool_))


def _absent(field: Field) -> Judge:
    def judge(tables: Tables, scope: Scope) -> Answer:
        index = _index(scope, field)
        column = tables.column(field)
        if index is None:
            return _nothing(scope)
        there = column.codes >= 0 if isinstance(column, Texts) else ~np.isnan(column)
        has = _taken(there, index)
        # a node itself has no utilisation, missing or not: only its GPUs can lack one
        return Answer(~has & (index != ELSEWHERE), has)

    return judge


def _taken(flags: Flags, index: Index) -> Flags:
    """[row] of the flags of entities; False where there is no entity."""
    if not len(flags):
        return np.zeros(len(index), dtype=np.bool_)
    return np.asarray(flags[np.maximum(index, 0)] & (index >= 0), dtype=np.bool_)


def _comparison(tree: Comparison, row: Entity) -> Judge:
    fields = _field(tree.name, tree.at, row)
    if fields[0].is_text:
        return _text(tree, fields[0])
    if tree.op in (Op.LIKE, Op.UNLIKE):
        raise FilterError(
            f"{tree.name} is a number", f"compare it with < <= > >= == !=, as in {tree.name}>5", *tree.at
        )
    return _number(tree, *_meant(tree, fields))


# --- numbers ----------------------------------------------------------------------------------------


def _meant(tree: Comparison, fields: Sequence[Field]) -> tuple[Field, float]:
    """The field that the value's unit speaks of, and the value in its canonical unit."""
    bare = re.fullmatch(r"[+-]?[0-9.]+", tree.value) is not None
    problems = []
    for field in fields:
        if bare and len(fields) > 1 and field.unit == "B" and tree.value.strip("+-0."):
            problems.append(
                f"{tree.value} of what? write {tree.name}{tree.op}{tree.value}GiB or {tree.name}{tree.op}{tree.value}%"
            )
            break
        try:
            return field, parse_value(tree.value, field.unit)
        except ValueError as error:
            problems.append(str(error))
    problem, _, remedy = problems[0].partition(": ") if ": " in problems[0] else (problems[0], "", "")
    raise FilterError(f"{tree.name}: {problem}", remedy, *tree.value_at)


def _number(tree: Comparison, field: Field, wanted: float) -> Judge:
    def judge(tables: Tables, scope: Scope) -> Answer:
        index = _index(scope, field)
        column = tables.column(field)
        if index is None:
            return _nothing(scope)
        assert not isinstance(column, Texts)
        there = ~np.isnan(column)
        yes = _compared(column, tree.op, wanted) & there
        return Answer(_taken(yes, index), _taken(there & ~yes, index))

    return judge


def _compared(column: NDArray[np.float32] | NDArray[np.float64], op: Op, wanted: float) -> Flags:
    with np.errstate(over="ignore", invalid="ignore"):
        if op in _ORDERED:
            # in the column's own precision: 5 % as it was measured is no less than 5 %
            return np.asarray(_ORDERED[op](column, wanted), dtype=np.bool_)
        equal = np.abs(column - wanted) <= abs(wanted) * _EQUAL_WITHIN
    return np.asarray(equal if op is Op.IS else ~equal, dtype=np.bool_)


# --- texts ------------------------------------------------------------------------------------------


def _text(tree: Comparison, field: Field) -> Judge:
    if tree.op in _ORDERED:
        raise FilterError(
            f"{tree.name} is a text", f"compare it with == != ~= !~, as in {tree.name}==...", *tree.at
        )
    fits = _test(tree, field)
    denies = tree.op in (Op.IS_NOT, Op.UNLIKE)
    tested = _Tested(fits)

    def judge(tables: Tables, scope: Scope) -> Answer:
        index = _index(scope, field)
        column = tables.column(field)
        if index is None:
            return _nothing(scope)
        assert isinstance(column, Texts)
        fit = tested.of(column)
        there = column.codes >= 0
        yes = _taken(fit, column.codes)
        found = Answer(_taken(yes, index), _taken(there & ~yes, index))
        return Answer(found.no, found.yes) if denies else found

    return judge


class _Tested:
    """What a test says of a column's texts; those of a layout are the same tick after tick."""

    def __init__(self, fits: Callable[[str], bool]) -> None:
        self._fits = fits
        self._last: tuple[Texts, Flags] | None = None

    def of(self, column: Texts) -> Flags:
        """[value] whether any of its spellings fits."""
        if self._last is None or self._last[0] is not column:
            fit = [any(self._fits(text[:MOST_TEXT]) for text in spelled) for spelled in column.values]
            self._last = column, np.array(fit, dtype=np.bool_)
        return self._last[1]


def _test(tree: Comparison, field: Field) -> Callable[[str], bool]:
    """Whether a text is the one that was typed."""
    if tree.op in (Op.LIKE, Op.UNLIKE):
        try:
            return Pattern(tree.value).search
        except PatternError as error:
            # a quoted one may hold escapes: then the whole of it is marked
            is_plain = tree.value_at.stop - tree.value_at.start == len(tree.value)
            at = tree.value_at.start + error.at if is_plain else tree.value_at.start
            problem, _, remedy = str(error).partition(": ")
            raise FilterError(problem, remedy, at, at + 1 if is_plain else tree.value_at.stop) from None
    wanted = tree.value.casefold()
    if tree.literal:
        return lambda text: text.casefold() == wanted
    if field.is_name and "[" in wanted:
        return _one_of(wanted, tree.value_at)
    if "*" in wanted or "?" in wanted:
        fits = _glob(wanted)
        return lambda text: fits(text.casefold())
    return lambda text: text.casefold() == wanted


def _one_of(nodeset: str, at: tuple[int, int]) -> Callable[[str], bool]:
    try:
        wanted = frozenset(expand(nodeset))
    except ValueError as error:
        raise FilterError(str(error), "", *at) from None
    return lambda text: text.casefold() in wanted


@lru_cache(maxsize=64)
def _glob(pattern: str) -> Callable[[str], bool]:
    fits = re.compile(translate(re.sub(r"\*+", "*", pattern[:200])))
    return lambda text: fits.fullmatch(text) is not None


# --- words ------------------------------------------------------------------------------------------


def _words(tree: Words, row: Entity) -> Judge:
    """Names as on the map; on rows other than GPUs also a part of what is said of the row."""
    for word, at in zip(tree.words, tree.spans, strict=True):
        if _is_node_set(word):
            _one_of(word.casefold(), at)
    words = tree.words
    last: list[tuple[Layout, Flags]] = []
    heard = _Heard(words)

    def meant(layout: Layout) -> Flags:
        """[node] whether any word means it; asked again when the layout is another one."""
        if not last or last[0][0] is not layout:
            found = np.zeros(len(layout.nodes), dtype=np.bool_)
            for word in words:
                found |= named(layout, word)
            last[:] = [(layout, found)]
        return last[0][1]

    def judge(tables: Tables, scope: Scope) -> Answer:
        snapshot = tables.snapshot
        yes = np.zeros(scope.size, dtype=np.bool_)
        nodes = scope.of.get(Entity.NODE)
        if nodes is not None:
            yes |= _taken(meant(snapshot.layout), nodes)
        for entity in _SAID:
            index = scope.of.get(entity)
            if (
                row is not Entity.GPU
                and index is not None
                and (entity is row or entity in _HEARD.get(row, ()))
            ):
                yes |= _taken(heard.of(entity, snapshot), index)
        return Answer(yes, ~yes)

    return judge


class _Heard:
    """Of which entities words are said; of jobs, which may be thousands, the same is said tick after tick."""

    def __init__(self, words: Sequence[str]) -> None:
        self._words = words
        self._last: tuple[tuple[Job, ...], tuple[Job, ...], Flags] | None = None

    def of(self, entity: Entity, snapshot: Snapshot) -> Flags:
        """[entity] whether any word is said of it."""
        if entity is not Entity.JOB:
            return _says(_SAID[entity](snapshot), self._words)
        last = self._last
        if last is None or last[0] is not snapshot.jobs or last[1] is not snapshot.queue:
            last = self._last = snapshot.jobs, snapshot.queue, _says(_said_of_jobs(snapshot), self._words)
        return last[2]


def _is_node_set(word: str) -> bool:
    """``r[01-04]n02``; but ``4700_[4-9%2]`` is the id of tasks that wait together."""
    return "[" in word and not word.partition("_[")[0].isdigit()


def _says(said: Sequence[str], words: Sequence[str]) -> Flags:
    folded = [word.casefold() for word in words]
    return np.array([any(word in text for word in folded) for text in said], dtype=np.bool_)


def _said_of_nodes(snapshot: Snapshot) -> list[str]:
    states = [Status(int(code)).name for code in snapshot.node_status]
    return [
        _folded(state, node.state, *node.flags, node.problem, node.reason)
        for state, node in zip(states, snapshot.layout.nodes, strict=True)
    ]


def _said_of_jobs(snapshot: Snapshot) -> list[str]:
    return [_of_job(job) for job in (*snapshot.jobs, *snapshot.queue)]


def _of_job(job: Job) -> str:
    # one text made at once: a queue may have 20,000 jobs
    said = (
        f"{job.title} {job.bare_id} {job.user} {job.account or ''} {job.partition or ''} {job.state} "
        f"{job.qos or ''} {job.reason or ''} {job.name}"
    )
    return said[:MOST_TEXT].casefold()


_SERVER_STATES = ("unknown", "ok ready", "stale", "lost down")
"""By Status, in the words of the screens."""


def _said_of_servers(snapshot: Snapshot) -> list[str]:
    states = [_SERVER_STATES[int(code)] for code in snapshot.server_status]
    states += [""] * (len(snapshot.layout.servers) - len(states))
    return [_of_server(server, state) for server, state in zip(snapshot.layout.servers, states, strict=True)]


def _of_server(server: Server, state: str) -> str:
    return _folded(
        server.key, server.service, server.model, server.engine, server.pod, server.namespace, state
    )


def _said_of_targets(snapshot: Snapshot) -> list[str]:
    return [_of_target(target) for source in snapshot.sources for target in source.targets]


def _of_target(target: Target) -> str:
    return _folded(target.name, str(target.state), target.what, target.detail, *target.nodes)


def _said_of_events(snapshot: Snapshot) -> list[str]:
    return [
        _folded(event.entity, event.kind, kind_words(event.kind), event.detail)
        + ("" if event.job is None else f" {_of_job(event.job)}")
        for event in snapshot.events
    ]


def _said_of_findings(snapshot: Snapshot) -> list[str]:
    return [
        _folded(
            one.id,
            one.detector.replace("_", " "),
            one.title,
            one.owner,
            str(one.urgency),
            one.severity.name,
            *one.scope.servers,
        )
        for one in (*snapshot.diagnosis.findings, *snapshot.diagnosis.cleared)
    ]


def _said_of_advice(snapshot: Snapshot) -> list[str]:
    given = [_folded(one.id, one.rule.replace("_", " "), one.action) for one in snapshot.counsel.given]
    return [*given, *(_folded(one.rule.replace("_", " "), one.why) for one in snapshot.counsel.refused)]


def _folded(*texts: str | None) -> str:
    return " ".join(text[:MOST_TEXT] for text in texts if text).casefold()


def _said_of_partitions(snapshot: Snapshot) -> list[str]:
    return [_folded(one.name, one.state, *one.accounts) for one in snapshot.partitions]


_SAID: dict[Entity, Callable[[Snapshot], list[str]]] = {
    Entity.NODE: _said_of_nodes,
    Entity.JOB: _said_of_jobs,
    Entity.SERVER: _said_of_servers,
    Entity.TARGET: _said_of_targets,
    Entity.EVENT: _said_of_events,
    Entity.PARTITION: _said_of_partitions,
    Entity.FINDING: _said_of_findings,
    Entity.ADVICE: _said_of_advice,
}
_HEARD: dict[Entity, tuple[Entity, ...]] = {
    Entity.NODE: (Entity.JOB,),
    Entity.FINDING: (Entity.JOB, Entity.SERVER),
    Entity.ADVICE: (Entity.JOB, Entity.SERVER),
}
"""Whose words a row answers to besides its own: a node to its jobs'."""


@dataclass(slots=True)
class _Names:
    """The last layout's names: they are asked for with every key that is typed."""

    layout: Layout | None = None
    names: tuple[tuple[str, ...], ...] = ()


_last = _Names()


def _names(layout: Layout) -> tuple[tuple[str, ...], ...]:
    """Of each node every name it goes by, its rack's among them, in lower case."""
    if _last.layout is not layout:
        made = tuple(
            tuple(
                name.casefold()
                for name in (node.key, layout.racks[node.rack].name, node.hostname or "", *node.aliases)
                if name
            )
            for node in layout.nodes
        )
        _last.layout, _last.names = layout, made
        return made
    return _last.names
