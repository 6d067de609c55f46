"""Vocabularies: which exporter name, label and scale means which metric. The data is ``vocabulary/*.toml``.

A vocabulary is recognised by the names on a page (``probe``), never by a port; an agent's page may speak
several. Sites add their own files, and metrics of their own (``[catalog]``); every mistake in one is a
ConfigError with the file, the place in it and what is allowed.

A rule in ``metric`` reads series by ``names`` (generations of one name); of several rules of a key the
first that finds series of an entity counts. Series of one entity are told apart by the labels in
``parts`` (equal parts are duplicates: the first counts), summed (``inner``) over equal ``within`` labels, then folded.
The fold ``quantile`` reads a histogram's buckets: their increases, summed over series with equal ``le``.

A vocabulary with ``[server]`` speaks of inference servers: its page is one, or several that ``apart`` tells apart.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Container, Iterable, Mapping
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Literal

import msgspec

from coldaisle.sources.catalog import catalog, declare
from coldaisle.sources.entries import Entry, entry_problems
from coldaisle.sources.errors import ConfigError
from coldaisle.sources.positions import line_of
from coldaisle.sources.settings import MetricSettings
from coldaisle.sources.source import Kind

Fold = Literal["one", "sum", "max", "min", "mean", "count", "quantile"]
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
    inner: Literal["sum", "max"] = "sum"
    """How series of equal ``within`` labels are taken together, before the fold."""
    quantile: float = 0.0
    """Of the fold ``quantile``: 0.99. The names are the buckets' (``..._bucket``)."""
    from_labels: tuple[str, ...] = ()
    """Labels whose numbers, multiplied, are the value; the sample itself is the 1 of an ``_info``."""
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
    field: str = ""
    """What its exporter calls it in its configuration, where that is no line of CSV."""

    @property
    def kind(self) -> Kind:
        return Kind(self.key.partition(".")[0])


class Derived(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A metric made of others of the same entity, where no rule has measured it."""

    key: str
    ratio: tuple[str, str] | None = None
    sum: tuple[str, ...] | None = None
    difference: tuple[str, str] | None = None
    product: tuple[str, ...] | None = None

    @property
    def kind(self) -> Kind:
        return Kind(self.key.partition(".")[0])

    @property
    def parts(self) -> tuple[str, ...]:
        return self.ratio or self.difference or self.sum or self.product or ()


class Labels(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a label says of the entity; of several names the first that is there and not empty counts."""

    node: tuple[str, ...] = ()
    uuid: tuple[str, ...] = ()
    uuid_prefix: str = ""
    """What everybody else writes before the UUID, and this exporter leaves out: ``GPU-``."""
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
    user: tuple[str, ...] = ()
    """Whose job it is."""
    partition: tuple[str, ...] = ()
    pod: tuple[str, ...] = ()
    namespace: tuple[str, ...] = ()
    service: tuple[str, ...] = ()
    """The deployment that a server is a replica of."""
    version: tuple[str, ...] = ()
    """The engine's."""


class Engine(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The inference servers that a vocabulary speaks of."""

    engine: str
    """As people know it: ``vLLM``."""
    apart: tuple[str, ...] = ()
    """Labels that tell several servers of one page apart; the first that a series has counts."""
    absent: tuple[str, ...] = ()
    """Catalog keys that this engine does not expose at all."""
    processes: tuple[str, ...] = ()
    """Regular expressions that are found in the command lines of its GPU processes."""
    has_gpus: bool = True
    """False: a front end, which only passes requests on."""

    def which(self, labels: Mapping[str, str]) -> str:
        """What tells a series' server apart from others of its page; empty: nothing does."""
        return next((value for name in self.apart if (value := labels.get(name))), "")

    def server_name(self, endpoint: str, which: str) -> str:
        """``host:8000``, or ``host:8000 llama``: also where the page has but one, for another may be loaded."""
        return f"{endpoint} {which}" if which else endpoint


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
    info: tuple[str, ...] = ()
    """Samples whose labels say what a GPU is, and whose value says nothing."""
    counters: str = ""
    """Where a missing metric's ``csv`` or ``field`` is to be added, for people."""
    catalog: dict[str, Entry] = {}
    """Metrics of the site's own, by key."""
    blanks: tuple[tuple[float, float], ...] = ()
    """Ranges [low, high] of values that mean "no value"."""
    labels: Labels = Labels()
    entity: dict[str, str] = {}
    """Kind -> the entity's name, made of labels; a rule's own goes first."""
    select: dict[str, Selection] = {}
    derived: tuple[Derived, ...] = ()
    facts: NodeFacts = NodeFacts()
    server: Engine | None = None
    prefixes: tuple[str, ...] = ()
    """What ``@`` stands for at the beginning of a name: ``""`` and what a site may put before all of them, or the forms
    that proxies make of ``vllm:``."""

    def is_spoken_on(self, names: Iterable[str]) -> bool:
        """Whether a page with these sample names is of this kind."""
        exact = {probe for probe in self.probe if not probe.endswith("*")}
        stems = tuple(probe[:-1] for probe in self.probe if probe.endswith("*"))
        return any(name in exact or (bool(stems) and name.startswith(stems)) for name in names)

    def wanted(self) -> frozenset[str]:
        """Every sample name that something here reads."""
        facts = (self.facts.hostname, self.facts.kernel, self.facts.booted_at, self.facts.clock)
        return self.names_of(*Kind) | frozenset(fact.partition(".")[0] for fact in facts if fact)

    def names_of(self, *kinds: Kind) -> frozenset[str]:
        """Sample names whose labels speak of entities of these kinds."""
        names = frozenset(name for rule in self.metric if rule.kind in kinds for name in rule.names)
        return names | frozenset(self.info) if Kind.GPU in kinds else names


def parse_vocabulary(text: str, file: Path) -> Vocabulary:
    """A vocabulary from TOML. Raises ConfigError."""
    try:
        vocabulary = msgspec.toml.decode(text, type=Vocabulary)
    except (msgspec.ValidationError, msgspec.DecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(
            f"not a vocabulary: {error}", "compare it with the vocabularies that coldaisle ships", file=file
        ) from None
    vocabulary = _spelt_out(vocabulary)
    remedy = "see sources/README.md for what a vocabulary may say"
    for key, entry in vocabulary.catalog.items():
        for problem in entry_problems(key, entry):
            raise ConfigError(f"{key}: {problem}", remedy, file=file, line=line_of(text, ("catalog", key)))
    for place, problem in _problems(vocabulary):
        raise ConfigError(f"{place}: {problem}", remedy, file=file, line=_line(text, place))
    return vocabulary


def load_vocabulary(file: Path) -> Vocabulary:
    """A site's own vocabulary. Raises ConfigError."""
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"cannot be read: {error}", file=file) from None
    return parse_vocabulary(text, file)


def vocabularies_for(files: Iterable[str], metrics: Iterable[MetricSettings]) -> tuple[Vocabulary, ...]:
    """A site's own words, then the shipped ones; its own metrics join the catalog. Raises ConfigError."""
    own: list[Vocabulary] = []
    for file in map(Path, files):
        vocabulary = load_vocabulary(file)
        try:
            declare(vocabulary.catalog)
        except ConfigError as error:
            raise ConfigError(error.problem, error.remedy, file=file) from None
        own.append(vocabulary)
    for metric in metrics:
        if metric.unit:
            declare({metric.key: metric.entry})
        own.append(_of_setting(metric))
    return (*own, *shipped())


def _of_setting(metric: MetricSettings) -> Vocabulary:
    """What one ``[[metric]]`` of the configuration says."""
    rule = Rule(
        metric.key,
        metric.names,
        type=metric.type,
        scale=metric.scale,
        offset=metric.offset,
        fold=metric.fold,
        parts=metric.parts,
    )
    return Vocabulary(
        "configuration",
        probe=metric.names,
        metric=(rule,),
        labels=Labels(uuid=_one(metric.gpu), job=_one(metric.job)),
        entity={
            kind: f"{{{label}}}" for kind, label in (("node", metric.node), ("rack", metric.rack)) if label
        },
    )


def _one(label: str) -> tuple[str, ...]:
    return (label,) if label else ()


@cache
def shipped() -> tuple[Vocabulary, ...]:
    """The vocabularies that come with coldaisle."""
    folder = files(__package__) / "vocabulary"
    found = sorted(
        (item for item in folder.iterdir() if item.name.endswith(".toml")), key=lambda item: item.name
    )
    return tuple(parse_vocabulary(item.read_text(encoding="utf-8"), Path(item.name)) for item in found)


def spoken(names: Iterable[str], vocabularies: Iterable[Vocabulary]) -> tuple[Vocabulary, ...]:
    """All vocabularies of a page with these sample names; none: an exporter we cannot read."""
    seen = frozenset(names)
    return tuple(one for one in vocabularies if one.is_spoken_on(seen))


def recognise(names: Iterable[str], vocabularies: Iterable[Vocabulary]) -> Vocabulary | None:
    """The first of them."""
    return next(iter(spoken(names, vocabularies)), None)


def counters_for(keys: Iterable[str], vocabulary: Vocabulary) -> tuple[str, ...]:
    """What makes its exporter export these catalog keys, of those that it can: CSV lines, names of fields."""
    wanted = set(keys)
    for derived in vocabulary.derived:
        if derived.key in wanted:
            wanted.update(derived.parts)
    lines: dict[str, str] = {}
    for rule in vocabulary.metric:
        if (rule.csv or rule.field) and rule.key in wanted:
            lines.setdefault(rule.key, rule.csv or rule.field)
    return tuple(dict.fromkeys(lines.values()))


def _spelt_out(vocabulary: Vocabulary) -> Vocabulary:
    """Names with ``@`` in all their forms; a name's forms stand together, the names in their order."""

    def forms(names: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(
            form
            for name in names
            for form in ([p + name[1:] for p in vocabulary.prefixes] if name.startswith("@") else [name])
        )

    rules = tuple(msgspec.structs.replace(rule, names=forms(rule.names)) for rule in vocabulary.metric)
    return msgspec.structs.replace(
        vocabulary, probe=forms(vocabulary.probe), info=forms(vocabulary.info), metric=rules
    )


def lacking(missing: Iterable[str], vocabulary: Vocabulary) -> tuple[str, str]:
    """What is said of catalog keys that an exporter of this kind could export and does not, and how to get them."""
    keys = tuple(missing)
    lines = counters_for(keys, vocabulary)
    remedy = f"add to {vocabulary.counters}: {'; '.join(lines)}" if lines else ""
    return f"does not export {', '.join(keys)}" if keys else "", remedy


def _problems(vocabulary: Vocabulary) -> Iterable[tuple[str, str]]:
    known = catalog().keys() | vocabulary.catalog.keys()
    keys = {rule.key for rule in vocabulary.metric} | {derived.key for derived in vocabulary.derived}
    for rule in vocabulary.metric:
        yield from ((rule.key, problem) for problem in _rule_problems(rule, vocabulary))
    for key in keys:
        if not is_part(key) and key not in known:
            yield key, f'the catalog has no such metric: misspelt, or declare it: [catalog."{key}"]'
    for derived in vocabulary.derived:
        given = [form for form in (derived.ratio, derived.sum, derived.difference, derived.product) if form]
        if len(given) != 1:
            yield derived.key, "one of ratio, sum, difference and product"
        for part in derived.parts:
            if part not in keys:
                yield derived.key, f"no rule gives {part}"
    for name, selection in vocabulary.select.items():
        for regex in (*selection.only.values(), *selection.unless.values()):
            if _broken(regex):
                yield name, f"not a regular expression: {regex}"
    yield from _server_problems(vocabulary, known)


def _server_problems(vocabulary: Vocabulary, known: Container[str]) -> Iterable[tuple[str, str]]:
    if vocabulary.server is None:
        for rule in vocabulary.metric:
            if rule.kind is Kind.SERVER:
                yield rule.key, "it needs a [server] with the engine's name"
        return
    for key in vocabulary.server.absent:
        if key not in known:
            yield key, "the catalog has no such metric"
    for regex in vocabulary.server.processes:
        if _broken(regex):
            yield "processes", f"not a regular expression: {regex}"


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
    if rule.within and rule.fold in ("one", "quantile"):
        yield "within needs a fold such as sum"
    if rule.fold == "quantile" and not (0 < rule.quantile < 1 and rule.type == "rate"):
        yield 'the fold quantile needs type = "rate" and a quantile between 0 and 1'
    if rule.kind is Kind.RACK and not (rule.entity or vocabulary.entity.get(rule.kind)):
        yield "it needs an entity, such as {rack}, or [entity] rack"
    labels = vocabulary.labels
    if rule.kind is Kind.JOB and not (
        rule.entity or vocabulary.entity.get(rule.kind) or labels.job or labels.pod
    ):
        yield 'it needs the label that names the job: [labels] job = ["slurm_job_id"]'


def is_part(key: str) -> bool:
    """Whether a key only serves derived metrics: ``gpu._energy``."""
    return key.partition(".")[2].startswith("_")


def matches(regex: str, text: str) -> bool:
    """Whether an expression of a vocabulary is found in a text."""
    return _pattern(regex).search(text) is not None


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
