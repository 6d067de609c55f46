"""Answers as matrices: whose series these are, which rule reads them, what of them is new. Pure.

Everything here works on a grid of instants; what is asked live has one instant.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from typing import NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from coldaisle.sources.histograms import edge
from coldaisle.sources.prometheus.answers import Labels, Values
from coldaisle.sources.prometheus.queries import Key, Question
from coldaisle.sources.source import EntityRef, GpuRef, Kind, Missing
from coldaisle.sources.translation import Columns, columns_for, is_blank
from coldaisle.sources.vocabularies import NAME, Rule, Vocabulary

Rows = NDArray[np.intp]
Codes = NDArray[np.uint8]
Mask = NDArray[np.bool_]
KeyValues = tuple[str, ...]
Scalar = TypeVar("Scalar", bound=np.generic)

NOWHERE = -1
MAX_PARTS = 512
"""Ports, disks or servers of a target."""
MAX_NAMED = 4096
"""Nodes, racks or jobs that a target may name in labels."""


class Answer(NamedTuple):
    """What came back for a question."""

    question: Question
    labels: Sequence[Labels]
    values: Values
    """[series, instant]"""


class Age(IntEnum):
    """What a target's newest sample is worth at an instant."""

    NEW = 0
    TOLD = 1  # it was delivered at an earlier instant
    OLD = 2  # the server still shows it, the target has stopped
    GONE = 3


class Sheet(NamedTuple):
    """What answers say of the entities of a kind."""

    values: Values
    """[instant, entity, metric]"""
    reasons: Codes
    """[instant, entity, metric] of Missing"""
    seen: Mask
    """[instant, entity]: whether any answer had a series of it."""


class Raw(NamedTuple):
    """Codes and counters whose change is an event."""

    rule: Rule
    values: Values
    """[entity, instant]; NaN: nothing, or a blank."""


@dataclass(slots=True, eq=False)
class Frame:
    """The entities of one kind, with their rows, and the metrics that are asked of them."""

    vocabulary: Vocabulary
    kind: Kind
    questions: Sequence[Question]
    entities: tuple[EntityRef, ...] = ()
    """The same object while nothing has changed."""
    row_of: dict[KeyValues, int] = field(default_factory=dict)
    places: Rows = field(default_factory=lambda: np.zeros(0, np.intp))
    """[entity]: the target that it was scraped from; NOWHERE: not known."""
    ever: Mask = field(default_factory=lambda: np.zeros(0, np.bool_))
    """[entity]: whether it was seen since we look."""
    lost: Mask = field(default_factory=lambda: np.zeros(0, np.bool_))
    """[entity]: whether it has vanished while its target answers."""
    reasons: Codes | None = None
    """[entity, metric], as last told; the same object while unchanged."""
    known: dict[str, Values] = field(default_factory=dict)
    """Metric -> [entity] of codes and counters whose change is an event, as last seen."""
    newest: Values | None = None
    """[entity, metric], the newest value of each cell."""
    columns: Columns = field(init=False)
    place_of: dict[str, int] = field(init=False)
    """Where each metric stands."""
    _found: dict[int, tuple[Sequence[Labels], dict[KeyValues, int], list[int]]] = field(default_factory=dict)
    """Rows of the answers of this round, by their labels' identity."""
    _column: dict[str, int] = field(init=False)
    _order: list[Rule] = field(init=False)

    def __post_init__(self) -> None:
        keys = dict.fromkeys(r.key for one in self.questions if not one.is_raw for r in one.rules)
        self.columns = columns_for(self.vocabulary, self.kind, keys)
        self._column = {key: place for place, key in enumerate(self.columns.metrics)}
        self.place_of = {key: place for place, key in enumerate(self.metrics)}
        self._order = [rule for rule in self.vocabulary.metric if rule.kind is self.kind]

    @property
    def metrics(self) -> tuple[str, ...]:
        return self.columns.shown_metrics

    def arrange(self, wanted: Mapping[KeyValues, tuple[EntityRef, int]]) -> None:
        """Exactly these entities, each with its target; what is known of those that stay is kept."""
        entities = tuple(ref for ref, _ in wanted.values())
        places = np.fromiter((place for _, place in wanted.values()), np.intp, len(wanted))
        before = np.fromiter((self.row_of.get(key, -1) for key in wanted), np.intp, len(wanted))
        stays = before >= 0
        self.ever = _carried(self.ever, before, stays, False)
        self.lost = _carried(self.lost, before, stays, False)
        self.known = {key: _carried(values, before, stays, np.nan) for key, values in self.known.items()}
        if entities != self.entities:
            self.entities, self.reasons, self.newest = entities, None, None
        self.places = places
        self.row_of = {key: row for row, key in enumerate(wanted)}

    def add(self, wanted: Mapping[KeyValues, tuple[EntityRef, int]]) -> None:
        """Further entities, as many as a target can have."""
        counts = np.bincount(self.places[self.places >= 0], minlength=1).tolist()
        rows: dict[KeyValues, tuple[EntityRef, int]] = {
            key: (self.entities[row], int(self.places[row])) for key, row in self.row_of.items()
        }
        most = MAX_NAMED if self.kind in (Kind.NODE, Kind.RACK, Kind.JOB) else MAX_PARTS
        for key, (ref, place) in wanted.items():
            counts += [0] * (place + 1 - len(counts))
            if key not in rows and counts[place] < most:
                counts[place] += 1
                rows[key] = ref, place
        self.arrange(rows)

    def remember(self, values: Values) -> None:
        """Keep the newest value of each cell, of [entity, metric]."""
        if self.newest is None or self.newest.shape != values.shape:
            self.newest = values.copy()
        else:
            np.copyto(self.newest, values, where=~np.isnan(values))

    def unknown(self, answers: Iterable[Answer]) -> dict[KeyValues, tuple[Question, Labels]]:
        """Series of no entity that is known, by their key."""
        found: dict[KeyValues, tuple[Question, Labels]] = {}
        for answer in answers:
            rows = self.find(answer)
            if -1 not in rows:
                continue
            for labels, row in zip(answer.labels, rows, strict=True):
                if row < 0:
                    found.setdefault(answer.question.key.of(labels), (answer.question, labels))
        return found

    def find(self, answer: Answer) -> list[int]:
        """The row of each series, -1: of nobody who is known. Found once a round, as answers come in."""
        known = self._found.get(id(answer.labels))
        if known is not None and known[0] is answer.labels and known[1] is self.row_of:
            return known[2]
        get = self.row_of.get
        rows = [get(key, -1) for key in keys_of(answer.question.key, answer.labels)]
        self._found[id(answer.labels)] = answer.labels, self.row_of, rows
        return rows

    def evaluate(
        self, answers: Sequence[Answer], failed: Iterable[Rule], instants: int
    ) -> tuple[Sheet, list[Raw]]:
        """All metrics of all entities at each instant."""
        shape = (instants, len(self.entities), len(self.columns.metrics))
        out = np.full(shape, np.nan)
        reasons = self._absent(shape, failed)
        seen = np.zeros(shape[:2], np.bool_)
        cells: dict[int, Values] = {}
        raw: list[Raw] = []
        for answer in answers:
            rows = np.array(self.find(answer), np.intp)
            answer, rows = _within(answer, rows)
            blank = self._blanks(answer)
            if answer.question.rule.fold == "quantile":
                # a histogram that nothing was added to has no quantile
                blank = np.isnan(answer.values)
            seen[:, rows] |= ~np.isnan(answer.values).T
            if blank is not None:
                answer.values[blank] = np.nan
            if answer.question.rule.event and (
                answer.question.is_raw or answer.question.rule.type == "gauge"
            ):
                raw.append(Raw(answer.question.rule, self._spread(answer, rows, answer.values)))
            if not answer.question.is_raw:
                self._read(answer, rows, cells)
                self._mark(answer, rows, blank, reasons)
        for rule in self._order:
            if id(rule) in cells:
                column, cell = out[:, :, self._column[rule.key]], cells[id(rule)].T
                np.copyto(column, cell, where=np.isnan(column))
        reasons[:, :, self.columns.never] = Missing.NOT_SUPPORTED
        if self.columns.up is not None:
            out[:, :, self.columns.up] = 1.0
        self._found.clear()
        reasons[~np.isnan(out)] = Missing.PRESENT
        flat = (shape[0] * shape[1], shape[2])
        values, why = self.columns.finish(out.reshape(flat), reasons.reshape(flat))
        shown = (*shape[:2], len(self.metrics))
        return Sheet(values.reshape(shown), why.reshape(shown), seen), raw

    def _absent(self, shape: tuple[int, int, int], failed: Iterable[Rule]) -> Codes:
        """Why a value is not there, as long as no answer says more."""
        reasons = np.full(shape, Missing.NOT_EXPORTED, np.uint8)
        rates = {r.key for one in self.questions if one.is_rate for r in one.rules}
        reasons[:, :, [self._column[key] for key in rates]] = Missing.NOT_SAMPLED
        if self.kind is Kind.GPU:
            instances = [row for row, ref in enumerate(self.entities) if isinstance(ref, GpuRef) and ref.mig]
            boards = [
                self._column[rule.key] for rule in self._order if rule.board and rule.key in self._column
            ]
            reasons[np.ix_(range(shape[0]), instances, boards)] = Missing.NOT_SUPPORTED
        reasons[:, :, [self._column[rule.key] for rule in failed if rule.key in self._column]] = (
            Missing.FAILED
        )
        return reasons

    def _blanks(self, answer: Answer) -> Mask | None:
        blank = is_blank(answer.values, self.vocabulary) & ~np.isnan(answer.values)
        return blank if blank.any() else None

    def _mark(self, answer: Answer, rows: Rows, blank: Mask | None, reasons: Codes) -> None:
        if blank is not None:
            for rule in answer.question.rules:
                series, instants = np.nonzero(blank)
                reasons[instants, rows[series], self._column[rule.key]] = Missing.BLANK

    def _spread(self, answer: Answer, rows: Rows, values: Values) -> Values:
        """[entity, instant]"""
        spread = np.full((len(self.entities), answer.values.shape[1]), np.nan)
        spread[rows] = values
        return spread

    def _read(self, answer: Answer, rows: Rows, cells: dict[int, Values]) -> None:
        """Each rule's value of each entity, from one more answer."""
        for rule in answer.question.rules:
            if answer.question.kept:
                made = self._folded(answer, rows, rule)
            else:
                made = self._spread(answer, rows, answer.values * rule.scale + rule.offset)
            before = cells.get(id(rule))
            if before is None:
                cells[id(rule)] = made
            elif NAME in rule.parts:
                cells[id(rule)] = _joined(rule, before, made)
            else:
                np.copyto(before, made, where=np.isnan(before))

    def _folded(self, answer: Answer, rows: Rows, rule: Rule) -> Values:
        """The fold of the series that the rule selects; of their labels' numbers, where these are the values."""
        chosen = self.vocabulary.select.get(rule.select) if len(answer.question.rules) > 1 else None
        takes = [chosen is None or chosen.takes(dict(labels)) for labels in answer.labels]
        values = answer.values
        if rule.from_labels:
            factors = [_product(labels, rule.from_labels) for labels in answer.labels]
            values = np.where(np.isnan(values), np.nan, np.array(factors)[:, None])
        values, rows = values[takes], rows[takes]
        fold = np.fmax if rule.fold == "max" else np.add
        have = ~np.isnan(values)
        made = np.full((len(self.entities), values.shape[1]), -np.inf if rule.fold == "max" else 0.0)
        count = np.zeros_like(made)
        fold.at(made, rows, np.where(have, values, made[0, 0] if len(made) else 0.0))
        np.add.at(count, rows, have)
        return np.where(count > 0, made * rule.scale + rule.offset, np.nan)


def keys_of(key: Key, series: Sequence[Labels]) -> list[KeyValues]:
    """The key of each series; the usual ones without a call a series."""
    parts = key.parts
    if all(len(part) < 2 for part in parts):
        names = [part[0] if part else "" for part in parts]
        if len(names) == 1:
            (only,) = names
            return [(labels.get(only, ""),) for labels in series]
        if len(names) == 2:
            one, two = names
            return [(labels.get(one, ""), labels.get(two, "")) for labels in series]
    return [key.of(labels) for labels in series]


def ages(stamps: Values, at: Values, told: Values, limit: float) -> tuple[Codes, Values]:
    """[target, instant] of Age, and the newest stamp told by then.

    ``stamps``: [target, instant], when the newest sample that the server shows was taken; ``told``:
    [target], the newest that was delivered before.
    """
    newest = np.fmax.accumulate(np.column_stack([told, stamps]), axis=1)
    codes = np.full(stamps.shape, Age.NEW, np.uint8)
    with np.errstate(invalid="ignore"):
        codes[~(stamps > newest[:, :-1]) & ~np.isnan(newest[:, :-1])] = Age.TOLD
        codes[at - stamps > limit] = Age.OLD
    codes[np.isnan(stamps)] = Age.GONE
    return codes, newest[:, -1]


def _product(labels: Labels, names: Iterable[str]) -> float:
    """The numbers of these labels, multiplied; NaN where one is no number."""
    found = 1.0
    for name in names:
        value = edge(labels.get(name, ""))
        found *= value if value is not None and np.isfinite(value) else np.nan
    return found


def _within(answer: Answer, rows: Rows) -> tuple[Answer, Rows]:
    """Only the series of entities that are known; the values are a copy that may be changed."""
    known = rows >= 0
    if known.all():
        return answer._replace(values=answer.values.copy()), rows
    labels = [labels for labels, is_known in zip(answer.labels, known.tolist(), strict=True) if is_known]
    return answer._replace(labels=labels, values=answer.values[known]), rows[known]


def _joined(rule: Rule, one: Values, other: Values) -> Values:
    """What two names give together; where one has nothing, the other stands."""
    fold = {"max": np.fmax, "min": np.fmin}.get(rule.fold)
    if fold is not None:
        joined: Values = fold(one, other)
        return joined
    total = np.where(np.isnan(one), 0.0, one) + np.where(np.isnan(other), 0.0, other)
    return np.where(np.isnan(one) & np.isnan(other), np.nan, total)


def _carried(values: NDArray[Scalar], before: Rows, stays: Mask, empty: object) -> NDArray[Scalar]:
    carried: NDArray[Scalar] = np.full(len(before), empty, values.dtype)
    carried[stays] = values[before[stays]]
    return carried
