"""A vocabulary's rules as PromQL: one metric a query, only wanted series, only wanted labels.

The server folds: of a CPU's cores and modes, a node's disks, a board's links only the folded value
travels. Scale, offset, range and what is derived are applied to the answer, by translation.py. Pure.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from string import Formatter
from typing import Literal, NamedTuple

from coldaisle.sources.source import Kind
from coldaisle.sources.vocabularies import NAME, Labels, Rule, Selection, Vocabulary

INSTANCE = "instance"
WINDOW_SCRAPES = 4.0
"""A rate looks back over so many scrapes: two of them may be lost and it still has two samples."""
SHORTEST_QUANTILE_S = 60.0
"""Percentiles of less time would be those of a few requests."""
_PLAIN_NAME = re.compile(r"[a-zA-Z_:][a-zA-Z0-9_:]*")
_OPERATORS = {"sum": "sum", "max": "max", "min": "min", "mean": "avg", "count": "count"}


class Key(NamedTuple):
    """How a series' entity is told from others: for each part the labels of which the first that is there counts."""

    parts: tuple[tuple[str, ...], ...]

    @property
    def labels(self) -> tuple[str, ...]:
        """All of them, each once."""
        return tuple(dict.fromkeys(label for part in self.parts for label in part))

    def of(self, labels: Mapping[str, str]) -> tuple[str, ...]:
        """A series' key; a part that is not there is empty."""
        get = labels.get
        return tuple(
            get(part[0], "")
            if len(part) == 1
            else next((value for label in part if (value := get(label))), "")
            for part in self.parts
        )


class Keys(NamedTuple):
    """The keys of a vocabulary's entities, given the labels that the server has."""

    place: Key
    """Of the scraped target."""
    gpu: Key
    """The last part is the MIG instance's."""
    vocabulary: Vocabulary
    labels: Collection[str]
    """Label names that the server has."""

    def of_rule(self, rule: Rule) -> Key:
        """A whole board's last part is empty, whatever its series says of an instance."""
        if rule.kind is Kind.GPU:
            return Key((*self.gpu.parts[:-1], ())) if rule.board else self.gpu
        if rule.kind is Kind.SERVER:
            engine = self.vocabulary.server
            return Key((*self.place.parts, _present(engine.apart if engine else (), self.labels)))
        if rule.kind is Kind.JOB and not self.template(rule):
            words = self.vocabulary.labels
            parts = (_present(labels, self.labels) for labels in (words.job, words.pod, words.namespace))
            return Key((*self.place.parts, *parts))
        # rules of a kind have as many parts, so that what names nothing in one is what names nothing in another
        alike = (one for one in self.vocabulary.metric if one.kind is rule.kind)
        every = dict.fromkeys(label for one in alike for label in template_labels(self.template(one)))
        mine = template_labels(self.template(rule))
        named = (_present((label,), self.labels) if label in mine else () for label in every)
        return Key((*self.place.parts, *named))

    def template(self, rule: Rule) -> str:
        """What the entity's name is made of."""
        return rule.entity or self.vocabulary.entity.get(rule.kind, "")


class Question(NamedTuple):
    """What one query asks: one name, read by one or several rules."""

    name: str
    rules: tuple[Rule, ...]
    """Alike but for what they select; several share an answer where one of them wants all of it."""
    key: Key
    kept: tuple[str, ...] = ()
    """Labels beside the key, by which the answer is selected, or that hold its numbers, and is folded here."""
    is_raw: bool = False
    """The counter itself and not its rate: its rise is an event."""

    @property
    def rule(self) -> Rule:
        return self.rules[0]

    @property
    def is_rate(self) -> bool:
        return self.rule.type == "rate" and not self.is_raw


@dataclass(frozen=True, slots=True)
class Wording:
    """What every query of a vocabulary has in common."""

    vocabulary: Vocabulary
    match: tuple[str, ...] = ()
    """Matchers that every selector gets."""
    statistic: Literal["", "avg", "max"] = ""
    """What of a gauge over the window is asked for; empty: its newest value."""

    def ask(self, question: Question, window: float, shard: Sequence[str] = ()) -> str:
        """The PromQL of a question; ``window``: seconds that a rate looks back; ``shard``: further matchers."""
        rule = question.rule
        chosen = self.vocabulary.select.get(rule.select) if len(question.rules) == 1 else None
        series = selector(question.name, (*_selecting(chosen), *self.match, *shard))
        if question.is_rate:
            value = f"rate({series}[{seconds(window)}])"
        elif self.statistic:
            value = f"{self.statistic}_over_time({series}[{seconds(window)}])"
        else:
            value = series
        # series of one board that follow each other within a window are those of its jobs: none of them is all of it
        alike = self.statistic or "max"
        by = (*question.key.labels, *question.kept)
        if rule.fold == "quantile":
            over = max(window, SHORTEST_QUANTILE_S)
            rises = grouped("sum", (*by, "le"), f"rate({series}[{seconds(over)}])")
            return grouped("max", by, f"histogram_quantile({number(rule.quantile)}, {rises})")
        if question.is_raw or rule.fold not in _OPERATORS:
            return grouped(alike, by, self._without_blanks(value, series, question, window))
        parts = [label for label in rule.parts if label != NAME]
        value = grouped(alike, (*by, *parts), self._without_blanks(value, series, question, window))
        if rule.within:
            value = grouped(rule.inner, (*by, *rule.within), value)
        return grouped(_OPERATORS[rule.fold], by, value)

    def selector(self, name: str, *more: str) -> str:
        """All series of a name."""
        return selector(name, (*self.match, *more))

    def _without_blanks(self, value: str, series: str, question: Question, window: float) -> str:
        """A gauge that stands alone is looked at when it arrives; what is folded or rated must not hold a blank before."""
        blanks = self.vocabulary.blanks
        if not blanks or not (question.is_rate or question.rule.fold != "one"):
            return value
        is_over_time = question.is_rate or self.statistic
        held = f"max_over_time({series}[{seconds(window)}])" if is_over_time else series
        blank = " or ".join(f"{held} >= {number(low)} <= {number(high)}" for low, high in blanks)
        return f"({value} unless ({blank}))"


def questions(vocabulary: Vocabulary, names: Collection[str], keys: Keys) -> list[Question]:
    """Everything to ask, given the names that the server has."""
    found: dict[object, list[Question]] = {}
    for rule in vocabulary.metric:
        if not _has_entity(rule, keys):
            continue
        for name in rule.names:
            if name in names:
                kept = (*rule.from_labels, *rule.parts) if rule.from_labels else ()
                found.setdefault(_alike(name, rule), []).append(
                    Question(name, (rule,), keys.of_rule(rule), kept)
                )
    asked: list[Question] = []
    for group in found.values():
        asked += _shared(group, vocabulary) or group
    raw = [one._replace(is_raw=True) for one in asked if one.rule.event and one.rule.type == "rate"]
    return asked + raw


def _alike(name: str, rule: Rule) -> object:
    """What rules must agree on to share an answer."""
    return (
        name, rule.kind, rule.type, rule.fold, rule.quantile, rule.parts, rule.within, rule.inner,
        rule.from_labels, rule.entity, rule.board,
    )  # fmt: skip


def _has_entity(rule: Rule, keys: Keys) -> bool:
    if rule.kind in (Kind.NODE, Kind.SERVER):
        return True
    if rule.kind is Kind.JOB and not keys.template(rule):
        return any(keys.of_rule(rule).parts[len(keys.place.parts) :])
    return bool(keys.gpu.labels) if rule.kind is Kind.GPU else bool(keys.template(rule))


def _shared(group: Sequence[Question], vocabulary: Vocabulary) -> list[Question]:
    """One question for sums of which one wants every series (a CPU's time by mode): the others choose from its answer."""
    first = group[0].rule
    if (
        len(group) == 1
        or first.fold != "sum"
        or first.within
        or first.from_labels
        or all(one.rule.select for one in group)
    ):
        return []
    chosen = [vocabulary.select[one.rule.select] for one in group if one.rule.select]
    kept = tuple(dict.fromkeys(label for one in chosen for label in (*one.only, *one.unless)))
    rules = tuple(one.rule for one in group)
    return [Question(group[0].name, rules, group[0].key, kept)]


def gpu_key(words: Labels, labels: Collection[str], place: Key, *, has_uuids: bool) -> Key:
    """By the UUID where every board has one, else by its address on its target; the instance's number comes last."""
    uuid, instance = _present(words.uuid, labels), _present(words.mig_id, labels)
    if uuid and has_uuids:
        return Key((uuid, instance))
    other = _present(words.pci, labels) or _present(words.index, labels)
    return Key((*place.parts, uuid, other, instance)) if uuid or other else Key(())


def place_key(words: Labels, labels: Collection[str]) -> Key:
    """A scraped target: its instance, or the node where no series has one."""
    return Key(((INSTANCE,),)) if INSTANCE in labels else Key((_present(words.node, labels),))


def _present(wanted: Iterable[str], labels: Collection[str]) -> tuple[str, ...]:
    return tuple(label for label in wanted if label in labels)


def template_labels(template: str) -> tuple[str, ...]:
    """The labels of ``{device}/{port}``."""
    return tuple(name for _, name, _, _ in Formatter().parse(template) if name)


# ---- PromQL


def selector(name: str, matchers: Iterable[str] = ()) -> str:
    """``name{a="b"}``; a name that is not plain stands quoted inside."""
    inside = ",".join(matchers)
    if _PLAIN_NAME.fullmatch(name):
        return f"{name}{{{inside}}}" if inside else name
    return f"{{{','.join(filter(None, (f'__name__={quoted(name)}', inside)))}}}"


def any_of(label: str, values: Iterable[str]) -> str:
    """A matcher for one of these values."""
    return f"{label}=~{quoted('|'.join(map(re.escape, values)))}"


def any_name(names: Iterable[str], match: Iterable[str] = ()) -> str:
    """A selector for all series of these names."""
    return f"{{{','.join((any_of('__name__', sorted(names)), *match))}}}"


def families(names: Iterable[str], match: Iterable[str] = ()) -> str:
    """A selector for all names that begin as these do: short enough for an address, which is how it is asked."""
    stems = sorted({stem[0] for name in names if (stem := _STEM.match(name))})
    return f"{{{','.join((f'__name__=~{quoted(_any(stems))}', *match))}}}"


def none_of(label: str, values: Iterable[str]) -> str:
    """A matcher for every other value."""
    return f"{label}!~{quoted('|'.join(map(re.escape, values)))}"


def grouped(operator: str, by: Iterable[str], value: str) -> str:
    """``max by (a, b) (value)``."""
    return f"{operator} by ({', '.join(dict.fromkeys(by))}) ({value})"


def quoted(text: str) -> str:
    """A string of PromQL; JSON's are."""
    return json.dumps(text, ensure_ascii=False)


def seconds(window: float) -> str:
    """A duration, in whole milliseconds."""
    return f"{round(window * 1000)}ms"


def number(value: float) -> str:
    """A number of PromQL."""
    return f"{value:+}".replace("inf", "Inf") if value in (float("inf"), float("-inf")) else repr(value)


_STEM = re.compile(r"[A-Za-z0-9]+[_:]?")


def _any(stems: Iterable[str]) -> str:
    return f"(?:{'|'.join(stems)}).*"


def _selecting(selection: Selection | None) -> Iterable[str]:
    if selection is None:
        return
    for label, regex in selection.only.items():
        yield f"{label}=~{quoted(regex)}"
    for label, regex in selection.unless.items():
        yield f"{label}!~{quoted(regex)}"
