"""Vocabularies: which exporter name, label and scale means which metric. The data is ``vocabulary/*.toml``.

A vocabulary is recognised by the names on a page (``probe``), never by a port. Sites add their own
files; every mistake in one is a ConfigError with the file, the place in it and what is allowed.

A rule in ``metric`` reads series by ``names`` (generations of one name); of several rules of a key the
first that finds series of an entity counts. Series of one entity are told apart by the labels in
``parts`` (equal parts are duplicates: the first counts), summed over equal ``within`` labels, then folded.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Literal

import msgspec

from coldaisle.sources.catalog import catalog
from coldaisle.sources.errors import ConfigError
from coldaisle.sources.source import Kind

Fold = Literal["one", "sum", "max", "min", "mean", "count"]
NAME = "__name__"
"""In ``parts``: the sample's own name, where several names are summed."""


class Selection(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Which series of a name: label -> regular expression for the whole value."""

    only: dict[str, str] = {}
    unless: dict[str, str] = {}

    def takes(self, labels: dict[str, str]) -> bool:
        """Whether a series with these labels is meant; an absent label is empty."""
        wanted = all(_pattern(regex).fullmatch(labels.get(name, "")) for name, regex in self.only.items())
        return wanted and not any(
            _pattern(regex).fullmatch(labels.get(name, "")) for name, regex in self.unless.items()
        )


class Rule(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One way to a metric."""

    key: str
    """Catalog key; a name that begins with ``_`` (``node._cpu_all``) is only a part of derived ones."""
    names: tuple[str, ...]
    type: Literal["gauge", "rate"] = "gauge"
    """``rate``: the page has a counter; the value is its increase per second."""
    scale: float = 1.0
    """Turns the page's unit (per second, for rates) into the catalog's."""
    offset: float = 0.0
    """Added after scaling."""
    fold: Fold = "one"
    parts: tuple[str, ...] = ()
    within: tuple[str, ...] = ()
    select: str = ""
    """Name of a ``[select.*]`` table."""
    entity: str = ""
    """The entity's name, made of labels: ``{device}/{port}``."""
    board: bool = False
    """On a MIG instance's series this is the whole board's value."""
    event: str = ""
    """Kind of the event when the value rises (a sticky code: when it becomes another one than 0)."""
    sticky: bool = False
    expected: bool = False
    """Worth saying when the page lacks it."""
    csv: str = ""
    """The line that makes dcgm-exporter export it."""

    @property
    def kind(self) -> Kind:
        return Kind(self.key.partition(".")[0])


class Derived(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A metric made of others of the same entity, where no rule has measured it."""

    key: str
    ratio: tuple[str, str] | None = None
    sum: tuple[str, ...] | None = None
    difference: tuple[str, str] | None = None

    @property
    def parts(self) -> tuple[str, ...]:
        return self.ratio or self.difference or self.sum or ()


class Labels(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a label says of the entity; of several names the first that is there and not empty counts."""

    node: tuple[str, ...] = ()
    uuid: tuple[str, ...] = ()
    pci: tuple[str, ...] = ()
    index: tuple[str, ...] = ()
    device: tuple[str, ...] = ()
    """Ends in the minor number: ``nvidia3``."""
    model: tuple[str, ...] = ()
    serial: tuple[str, ...] = ()
    driver: tuple[str, ...] = ()
    mig_id: tuple[str, ...] = ()
    mig_profile: tuple[str, ...] = ()
    job: tuple[str, ...] = ()
    """A Slurm job's id."""
    pod: tuple[str, ...] = ()
    namespace: tuple[str, ...] = ()


class NodeFacts(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a page says of its node: ``sample`` for a value, ``sample.label`` for a text."""

    hostname: str = ""
    kernel: str = ""
    booted_at: str = ""
    clock: str = ""


class Vocabulary(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One kind of exporter."""

    name: str
    """As people know it: ``dcgm-exporter``."""
    probe: tuple[str, ...]
    """Names that only this exporter has; a trailing ``*`` stands for anything."""
    metric: tuple[Rule, ...]
    blanks: tuple[tuple[float, float], ...] = ()
    """Ranges [low, high] of values that mean "no value"."""
    labels: Labels = Labels()
    entity: dict[str, str] = {}
    """Kind -> the entity's name, made of labels; a rule's own goes first."""
    select: dict[str, Selection] = {}
    derived: tuple[Derived, ...] = ()
    facts: NodeFacts = NodeFacts()

    def is_spoken_on(self, names: Iterable[str]) -> bool:
        """Whether a page with these sample names is of this kind."""
        exact = {probe for probe in self.probe if not probe.endswith("*")}
        stems = tuple(probe[:-1] for probe in self.probe if probe.endswith("*"))
        return any(name in exact or (bool(stems) and name.startswith(stems)) for name in names)

    def wanted(self) -> frozenset[str]:
        """Every sample name that something here reads."""
        facts = (self.facts.hostname, self.facts.kernel, self.facts.booted_at, self.facts.clock)
        return frozenset(name for rule in self.metric for name in rule.names) | frozenset(
            fact.partition(".")[0] for fact in facts if fact
        )


def parse_vocabulary(text: str, file: Path) -> Vocabulary:
    """A vocabulary from TOML. Raises ConfigError."""
    try:
        vocabulary = msgspec.toml.decode(text, type=Vocabulary)
    except (msgspec.ValidationError, msgspec.DecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(
            f"not a vocabulary: {error}", "compare it with the vocabularies that coldaisle ships", file=file
        ) from None
    for place, problem in _problems(vocabulary):
        raise ConfigError(
            f"{place}: {problem}",
            "see sources/README.md for what a vocabulary may say",
            file=file,
            line=_line(text, place),
        )
    return vocabulary


def load_vocabulary(file: Path) -> Vocabulary:
    """A site's own vocabulary. Raises ConfigError."""
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"cannot be read: {error}", file=file) from None
    return parse_vocabulary(text, file)


@cache
def shipped() -> tuple[Vocabulary, ...]:
    """The vocabularies that come with coldaisle."""
    folder = files(__package__) / "vocabulary"
    found = sorted(
        (item for item in folder.iterdir() if item.name.endswith(".toml")), key=lambda item: item.name
    )
    return tuple(parse_vocabulary(item.read_text(encoding="utf-8"), Path(item.name)) for item in found)


def recognise(names: Iterable[str], vocabularies: Iterable[Vocabulary]) -> Vocabulary | None:
    """The vocabulary of a page with these sample names; None: an exporter we cannot read."""
    seen = frozenset(names)
    return next((one for one in vocabularies if one.is_spoken_on(seen)), None)


def counters_for(keys: Iterable[str], vocabulary: Vocabulary | None = None) -> tuple[str, ...]:
    """The dcgm-exporter CSV lines that make it export these catalog keys (those that it can)."""
    wanted = set(keys)
    sources = (vocabulary,) if vocabulary else shipped()
    lines: dict[str, str] = {}
    for one in sources:
        for derived in one.derived:
            if derived.key in wanted:
                wanted.update(derived.parts)
        for rule in one.metric:
            if rule.csv and rule.key in wanted:
                lines.setdefault(rule.key, rule.csv)
    return tuple(lines.values())


def lacking(missing: Iterable[str], vocabulary: Vocabulary) -> tuple[str, str]:
    """What is said of catalog keys that an exporter of this kind could export and does not, and how to get them."""
    keys = tuple(missing)
    lines = counters_for(keys, vocabulary)
    remedy = "add to the exporter's counters file: " + "; ".join(lines) if lines else ""
    return f"does not export {', '.join(keys)}" if keys else "", remedy


def _problems(vocabulary: Vocabulary) -> Iterable[tuple[str, str]]:
    known = catalog()
    keys = {rule.key for rule in vocabulary.metric} | {derived.key for derived in vocabulary.derived}
    for rule in vocabulary.metric:
        yield from ((rule.key, problem) for problem in _rule_problems(rule, vocabulary))
    for key in keys:
        if not is_part(key) and key not in known:
            yield key, "the catalog has no such metric"
    for derived in vocabulary.derived:
        given = [form for form in (derived.ratio, derived.sum, derived.difference) if form]
        if len(given) != 1:
            yield derived.key, "one of ratio, sum and difference"
        for part in derived.parts:
            if part not in keys:
                yield derived.key, f"no rule gives {part}"
    for name, selection in vocabulary.select.items():
        for regex in (*selection.only.values(), *selection.unless.values()):
            if _broken(regex):
                yield name, f"not a regular expression: {regex}"


def _rule_problems(rule: Rule, vocabulary: Vocabulary) -> Iterable[str]:
    if rule.key.partition(".")[0] not in set(Kind):
        yield f"no such entity; one of {', '.join(Kind)}"
        return
    if not rule.names:
        yield "names is empty"
    if rule.select and rule.select not in vocabulary.select:
        yield f"there is no [select.{rule.select}]"
    if rule.kind in (Kind.PORT, Kind.DISK) and not (rule.entity or vocabulary.entity.get(rule.kind)):
        yield f"it needs an entity, such as {{device}}, or [entity] {rule.kind}"
    if rule.within and rule.fold == "one":
        yield "within needs a fold"


def is_part(key: str) -> bool:
    """Whether a key only serves derived metrics: ``gpu._energy``."""
    return key.partition(".")[2].startswith("_")


def _broken(regex: str) -> bool:
    try:
        _pattern(regex)
    except re.error:
        return True
    return False


def _line(text: str, place: str) -> int | None:
    """Where a key stands in the file, roughly."""
    return next((number for number, line in enumerate(text.splitlines(), 1) if place in line), None)


@cache
def _pattern(regex: str) -> re.Pattern[str]:
    return re.compile(regex)
