"""A vocabulary as a server speaks it: what of it is there, whose it is, and its numbers at an instant or on a grid.

Who is who is asked seldom, with every label that says something; values often, by the few labels that
tell entities apart. A sample is told once: the time at which the server took it is asked with every round.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import NamedTuple

import numpy as np

from coldaisle.sources.errors import AccessDenied, SourceError, TimedOut, Unreachable
from coldaisle.sources.prometheus.answers import Labels, Values
from coldaisle.sources.prometheus.asking import Asker, Series, grid
from coldaisle.sources.prometheus.delivery import Scraped, batches, events
from coldaisle.sources.prometheus.identity import (
    NODE_LABELS,
    POD_LABELS,
    RACK_LABELS,
    Names,
)
from coldaisle.sources.prometheus.queries import (
    INSTANCE,
    Keys,
    Question,
    Wording,
    any_of,
    gpu_key,
    grouped,
    place_key,
    questions,
)
from coldaisle.sources.prometheus.tables import (
    NOWHERE,
    Answer,
    Codes,
    Frame,
    KeyValues,
    Sheet,
    ages,
)
from coldaisle.sources.source import (
    EntityRef,
    GpuRef,
    Item,
    JobRef,
    Kind,
    NodeRef,
    RackRef,
    ServerRef,
)
from coldaisle.sources.translation import Boards, Servers, first_of, labelled_ref
from coldaisle.sources.vocabularies import NAME, Rule, Vocabulary

ANSWER_BYTES = 2_000_000
"""No answer at an instant should be larger: decoding one holds up every other thread."""
SERIES_BYTES = 60
"""Of a series in an answer beside its labels, about."""
MAX_PLACES = 20_000
MAX_SERIES = 200_000
"""Of who is who, in one answer."""
Scrapes = Mapping[tuple[str, str], bool]
"""(instance, job) of a target -> whether the server can scrape it: several jobs may call theirs alike."""
NO_SCRAPES: Scrapes = MappingProxyType({})
FORGOTTEN_S = 3600.0
"""A target that has not been seen for so long is no longer expected."""
IDENTITY_POINTS = 24
"""On a grid, who is who is asked at so many instants at most."""
SCRAPE_SPANS = ((60.0, 1.0), (900.0, 15.0))
"""Seconds looked back, and between two looks, to learn how often a server scrapes."""
SHORTEST_SCRAPE_S = 0.5
REBOOT_S = 60.0
"""A boot time that moves by less is the jitter of a clock."""
MAX_ANCHORS = 8
PATIENCE = 4
"""Queries that may go unanswered before the rest of a round is given up."""
JOB_LABEL = "job"


class Timing(NamedTuple):
    """What is known of the times of a server."""

    window: float
    """Seconds that a rate looks back."""
    limit: float
    """Seconds after which a sample is too old to be now's."""
    ahead: float
    """Our clock minus the server's."""


@dataclass(slots=True)
class Place:
    """A scraped target of a vocabulary."""

    labels: Labels
    node: str
    how: str
    seen_at: float
    """By the server's clock."""
    told: float = float("nan")
    """The newest sample of it that was delivered."""

    @property
    def instance(self) -> str:
        return self.labels.get(INSTANCE, "")

    @property
    def job(self) -> str:
        return self.labels.get(JOB_LABEL, "")


class Round(NamedTuple):
    """What one asking brought."""

    items: list[Item]
    errors: Mapping[Question, SourceError]
    asked: int


@dataclass(slots=True, eq=False)
class Spoken:
    """One vocabulary on one server."""

    vocabulary: Vocabulary
    names: frozenset[str]
    """Sample names that the server has."""
    labels: frozenset[str]
    """Label names of their series."""
    match: tuple[str, ...] = ()
    wording: Wording = field(init=False)
    keys: Keys = field(init=False)
    questions: list[Question] = field(init=False)
    frames: dict[Kind, Frame] = field(init=False)
    anchors: list[str] = field(init=False)
    """Names by which targets are known to live."""
    places: dict[KeyValues, Place] = field(default_factory=dict)
    boards: dict[str, Boards] = field(default_factory=dict)
    """By node."""
    servers: dict[KeyValues, Servers] = field(default_factory=dict)
    """Inference servers by target."""
    owns: dict[KeyValues, dict[str, str]] = field(default_factory=dict)
    """Target -> what it says of its node: hostname, kernel."""
    numbers: dict[KeyValues, dict[str, float]] = field(default_factory=dict)
    """Target -> booted_at, clock (its node's minus the server's)."""
    renamed: dict[str, str] = field(default_factory=dict)
    """Earlier name of a node -> the one that is known now."""
    sizes: dict[Question, int] = field(default_factory=dict)
    """Series of an answer, as learnt."""
    unnamed: set[str] = field(default_factory=set)
    """Targets of which no label can be a node's name."""
    scrape: float | None = None
    """Seconds between two samples of a target; None: not yet learnt."""
    strangers: set[KeyValues] = field(default_factory=set)
    """Keys that stayed unknown after asking who they are."""

    def __post_init__(self) -> None:
        self.wording = Wording(self.vocabulary, self.match)
        self.anchors = [_anchor(self.vocabulary, self.names)]
        self._lay_out(has_uuids=True)

    def _lay_out(self, *, has_uuids: bool) -> None:
        words = self.vocabulary.labels
        place = place_key(words, self.labels)
        gpu = gpu_key(words, self.labels, place, has_uuids=has_uuids)
        self.keys = Keys(place, gpu, self.vocabulary, self.labels)
        self.questions = questions(self.vocabulary, self.names, self.keys)
        kinds = dict.fromkeys(one.rule.kind for one in self.questions)
        self.frames = {
            kind: Frame(self.vocabulary, kind, [q for q in self.questions if q.rule.kind is kind])
            for kind in kinds
        }

    @property
    def missing(self) -> tuple[str, ...]:
        """Catalog keys that the vocabulary expects and the server lacks."""
        given = {key for frame in self.frames.values() for key in frame.columns.metrics} - {
            rule.key for rule in self.vocabulary.metric if self.names.isdisjoint(rule.names)
        }
        given |= {one.key for frame in self.frames.values() for _, one, _ in frame.columns.derived}
        given |= {rule.key for one in self.questions for rule in one.rules}
        return tuple(
            dict.fromkeys(r.key for r in self.vocabulary.metric if r.expected and r.key not in given)
        )

    # -- who is who

    async def identify(self, asker: Asker, names: Names) -> None:
        """Learn targets, boards and their nodes. Raises SourceError."""
        rows = await self._identities(asker.coarser(IDENTITY_POINTS))
        if Kind.GPU in self.frames and len(self.keys.gpu.parts) == 2:
            boards = [labels for labels, _ in rows if first_of(self._address_labels(), labels)]
            if not all(first_of(self.vocabulary.labels.uuid, labels) for labels in boards):
                self._lay_out(has_uuids=False)
        self._take_places(rows, names, asker.end)
        described = [*rows, *await self._descriptions(asker)]
        self.boards = self._learn_boards(described)
        self._learn_servers(rows)
        self._arrange(rows)

    def _address_labels(self) -> tuple[str, ...]:
        words = self.vocabulary.labels
        return (*words.uuid, *words.pci, *words.index)

    async def _identities(self, asker: Asker) -> list[tuple[Labels, float]]:
        """Series of the anchors with all labels that say who they are, and their newest stamp, the newest first."""
        by = self.identity_labels()
        rows: list[tuple[Labels, float]] = []
        keys = self.places or await self.stamps(asker)
        shards = self._shards(keys, len(keys) * (8 if Kind.GPU in self.frames else 1), 400)
        for anchor in self.anchors:
            for shard in shards:
                series = f"timestamp({self.wording.selector(anchor, *shard)})"
                found = await asker.ask(grouped("max", by, series))
                newest = np.fmax.reduce(found.values, axis=1).tolist() if len(found.labels) else []
                rows += zip(found.labels, newest, strict=True)
        return sorted(rows[:MAX_SERIES], key=lambda row: -row[1])

    async def _descriptions(self, asker: Asker) -> list[tuple[Labels, float]]:
        """Series that say what boards are, and whose value says nothing."""
        rows: list[tuple[Labels, float]] = []
        for name in self.vocabulary.info if Kind.GPU in self.frames else ():
            if name in self.names:
                last = Asker(asker.querier, asker.times[-1:], asker.remarks)
                found = await last.ask(grouped("max", self.identity_labels(), self.wording.selector(name)))
                rows += ((labels, float("-inf")) for labels in found.labels[:MAX_SERIES])
        return rows

    def identity_labels(self) -> list[str]:
        """Labels that say which node, board and rack a series of the anchor is of, where the server has them."""
        words, engine = self.vocabulary.labels, self.vocabulary.server
        wanted = [*self.keys.place.labels, INSTANCE, JOB_LABEL, *NODE_LABELS, *RACK_LABELS, *POD_LABELS]
        wanted += words.node
        if Kind.GPU in self.frames:
            wanted += [*self._address_labels(), *words.device, *words.model, *words.serial, *words.driver]
            wanted += [*words.mig_id, *words.mig_profile]
        if engine is not None:
            wanted += [*engine.apart, *words.model, *words.service, *words.version, *words.pod]
            wanted += words.namespace
        return [label for label in dict.fromkeys(wanted) if label in self.labels]

    def _take_places(self, rows: Iterable[tuple[Labels, float]], names: Names, now: float) -> None:
        current: dict[KeyValues, tuple[Labels, float]] = {}
        for labels, stamp in rows:
            current.setdefault(self.keys.place.of(labels), (labels, stamp))
        for key, (labels, stamp) in current.items():
            named = names.node(labels, self.vocabulary.labels)
            if named is None:
                self.unnamed.add(" ".join(key)[:80])
                continue
            known = self.places.get(key)
            if known is not None:
                if known.node != named.node:
                    self.renamed[known.node] = named.node
                known.labels, known.node, known.how, known.seen_at = labels, named.node, named.how, stamp
            elif len(self.places) < MAX_PLACES:
                self.places[key] = Place(labels, named.node, named.how, stamp)
        old = [key for key, place in self.places.items() if place.seen_at < now - FORGOTTEN_S]
        for key in old:
            del self.places[key]

    def _learn_boards(self, rows: Iterable[tuple[Labels, float]]) -> dict[str, Boards]:
        boards: dict[str, Boards] = {}
        if Kind.GPU in self.frames:
            nobody = Boards("", self.vocabulary.labels)
            for labels, _ in sorted(rows, key=lambda row: nobody.is_unnamed(row[0])):
                place = self.places.get(self.keys.place.of(labels))
                if place is not None:
                    boards.setdefault(place.node, Boards(place.node, self.vocabulary.labels)).learn(labels)
        return boards

    def _learn_servers(self, rows: Iterable[tuple[Labels, float]]) -> None:
        self.servers = {}
        if self.vocabulary.server is None:
            return
        for labels, _ in rows:
            key = self.keys.place.of(labels)
            place = self.places.get(key)
            if place is not None:
                known = self.servers.setdefault(key, Servers(place.node, place.instance, self.vocabulary))
                known.learn(labels)

    def _arrange(self, rows: Sequence[tuple[Labels, float]]) -> None:
        """Rows for what is there now; what is gone keeps its row until it is forgotten or replaced."""
        number = {key: place for place, key in enumerate(self.places)}
        for kind, frame in self.frames.items():
            if kind is Kind.GPU:
                wanted = self._gpus(rows, number)
                wanted |= self._gone(frame, wanted, number)
            else:
                wanted = self._moved(frame, number)
            frame.arrange(wanted)

    def _gpus(
        self, rows: Iterable[tuple[Labels, float]], number: Mapping[KeyValues, int]
    ) -> dict[KeyValues, tuple[EntityRef, int]]:
        wanted: dict[KeyValues, tuple[EntityRef, int]] = {}
        for labels, _ in rows:
            key = self.keys.place.of(labels)
            if key not in number:
                continue
            boards, where = self.boards[self.places[key].node], number[key]
            for whole in (True, False):
                ref = boards.ref(labels, whole=whole)
                own = self.keys.gpu.of(labels)
                if ref is not None:
                    wanted.setdefault((*own[:-1], "") if whole else own, (ref, where))
        return wanted

    def _gone(
        self,
        frame: Frame,
        current: Mapping[KeyValues, tuple[EntityRef, int]],
        number: Mapping[KeyValues, int],
    ) -> dict[KeyValues, tuple[EntityRef, int]]:
        """Boards that were there and are not: another one at the same address takes their place."""
        taken = {address for ref, _ in current.values() for address in _addresses(ref)}
        homes = {place.node: number[key] for key, place in self.places.items()}
        return {
            key: (ref, homes[ref.node])
            for key, row in frame.row_of.items()
            if isinstance(ref := frame.entities[row], GpuRef)
            and key not in current
            and ref.mig is None
            and ref.node in homes
            and taken.isdisjoint(_addresses(ref))
        }

    def _moved(self, frame: Frame, number: Mapping[KeyValues, int]) -> dict[KeyValues, tuple[EntityRef, int]]:
        """Ports, disks and servers where their targets are now."""
        parts = len(self.keys.place.parts)
        kept: dict[KeyValues, tuple[EntityRef, int]] = {}
        for key, row in frame.row_of.items():
            place = self.places.get(key[:parts])
            if place is None:
                continue
            ref = frame.entities[row]
            is_named_node = isinstance(ref, NodeRef) and any(key[parts:])
            if not (is_named_node or isinstance(ref, RackRef | JobRef)):
                ref = ref._replace(node=place.node)
            kept[key] = ref, number[key[:parts]]
        return kept

    def _shards(self, keys: Iterable[KeyValues], series: int, label_bytes: int) -> list[tuple[str, ...]]:
        """Matchers that part the targets so that no answer is large."""
        count = -(-series * (SERIES_BYTES + label_bytes) // ANSWER_BYTES)
        instances = sorted({key[0] for key in keys}) if INSTANCE in self.labels else []
        if count < 2 or not instances:
            return [()]
        size = -(-len(instances) // count)
        return [(any_of(INSTANCE, instances[at : at + size]),) for at in range(0, len(instances), size)]

    # -- what nodes say of themselves

    async def learn_scrape(self, asker: Asker) -> None:
        """How often the server scrapes these targets, from the stamps of a few. Raises SourceError."""
        newest = sorted(self.places.values(), key=lambda place: -place.seen_at)[:3]
        instances = sorted({place.instance for place in newest})
        few = [any_of(INSTANCE, instances)] if INSTANCE in self.labels else []
        series = f"timestamp({self.wording.selector(self.anchors[0], *few)})"
        for span, step in SCRAPE_SPANS:
            times = grid(asker.end - span, step, int(span / step) + 1)
            found = await Asker(asker.querier, times, asker.remarks).ask(
                grouped("max", self.keys.place.labels, series)
            )
            gaps = [gap for stamps in found.values for gap in np.diff(np.unique(stamps[~np.isnan(stamps)]))]
            if gaps:
                self.scrape = max(round(float(np.median(gaps)), 3), SHORTEST_SCRAPE_S)
                return

    async def ask_nodes(self, asker: Asker) -> list[KeyValues]:
        """What targets say of their nodes; those that were booted since that was last asked. Raises SourceError.

        What they call themselves holds for the asker's whole span, also of those that fell silent in it.
        """
        booted: list[KeyValues] = []
        facts = self.vocabulary.facts
        last = Asker(asker.querier, asker.times[-1:], asker.remarks)
        span = asker.coarser(IDENTITY_POINTS)
        for role, told in (("hostname", facts.hostname), ("kernel", facts.kernel)):
            name, _, label = told.partition(".")
            if name in self.names and label:
                by = [
                    one
                    for one in (*self.keys.place.labels, *NODE_LABELS, *POD_LABELS, label)
                    if one in self.labels
                ]
                found = await span.ask(grouped("max", by, self.wording.selector(name)))
                for labels in _latest_last(found):
                    if value := labels.get(label):
                        own = self.owns.setdefault(self.keys.place.of(labels), dict(labels))
                        own[f"={role}"] = value
        for role, name in (("booted_at", facts.booted_at), ("clock", facts.clock)):
            if name in self.names:
                series = self.wording.selector(name)
                value = f"{series} - timestamp({series})" if role == "clock" else series
                found = await last.ask(grouped("max", self.keys.place.labels, value))
                for labels, number in zip(found.labels, found.values[:, 0].tolist(), strict=True):
                    key = self.keys.place.of(labels)
                    known = self.numbers.setdefault(key, {})
                    if role == "booted_at" and number > known.get(role, math.inf) + REBOOT_S:
                        booted.append(key)
                    known[role] = number
        return booted

    def told_names(self) -> Iterator[tuple[Labels, str]]:
        """(labels of a target, what the node there calls itself)."""
        for own in self.owns.values():
            if hostname := own.get("=hostname"):
                yield own, hostname

    # -- numbers

    async def stamps(self, asker: Asker) -> dict[KeyValues, Values]:
        """When the newest sample of each target was taken, at each instant."""
        found: dict[KeyValues, Values] = {}
        for anchor in self.anchors:
            series = f"timestamp({self.wording.selector(anchor)})"
            answer = await asker.ask(grouped("max", self.keys.place.labels, series))
            for labels, stamps in zip(answer.labels, answer.values, strict=True):
                key = self.keys.place.of(labels)
                found[key] = np.fmax(found[key], stamps) if key in found else stamps
        return found

    async def round(self, asker: Asker, timing: Timing, names: Names, up: Scrapes = NO_SCRAPES) -> Round:
        """All numbers at each of the asker's instants, and what happened between them. Raises SourceError.

        ``up``: whether the server can scrape each target, at its end.
        """
        stamps = await self.stamps(asker)
        known = not self._is_unknown(stamps)
        if not known:
            await self.identify(asker, names)
        if not self._has_news(stamps):
            codes = self._ages(stamps, asker.times, timing.limit)
            return Round(list(self._silences(codes, asker.times + timing.ahead, up)), {}, 0)
        answers, errors = await self._ask_all(asker, timing.window)
        if self._settle(answers) and known:
            await self.identify(asker, names)
            stamps |= await self.stamps(asker)
            self._settle(answers)
        codes = self._ages(stamps, asker.times, timing.limit)
        is_whole = not errors and not asker.remarks.warnings
        items: list[Item] = []
        for kind, frame in self.frames.items():
            mine = [answer for answer in answers if answer.question.rule.kind is kind]
            failed = [rule for one in errors if one.rule.kind is kind for rule in one.rules]
            sheet, raw = frame.evaluate(mine, failed, len(asker.times))
            at = asker.times + timing.ahead
            scraped = self._scraped(codes, up)
            items += events(frame, raw, scraped, at)
            items += batches(frame, sheet, scraped, at, is_whole=is_whole)
        return Round(items, errors, len(self.questions))

    def _has_news(self, stamps: Mapping[KeyValues, Values]) -> bool:
        """Whether any target has a sample that was not told."""
        told = {key: place.told for key, place in self.places.items()}
        return any(not (stamp.max() <= told[key]) for key, stamp in stamps.items() if key in told)

    def _silences(self, codes: Codes, at: Values, up: Scrapes) -> Iterator[Item]:
        """Nothing is new: only who has fallen silent is."""
        for frame in self.frames.values():
            shape = (len(at), len(frame.entities), len(frame.metrics))
            if frame.reasons is not None:
                nothing = np.zeros(shape[:2], np.bool_)
                sheet = Sheet(
                    np.full(shape, np.nan), np.repeat(frame.reasons[None], len(at), axis=0), nothing
                )
                yield from batches(frame, sheet, self._scraped(codes, up), at, is_whole=False)

    def _scraped(self, codes: Codes, up: Scrapes) -> Scraped:
        known = [up.get((place.instance, place.job)) for place in self.places.values()]
        return Scraped(
            codes,
            np.array([one is True for one in known], np.bool_),
            np.array([one is False for one in known], np.bool_),
        )

    def _is_unknown(self, stamps: Mapping[KeyValues, Values]) -> bool:
        return any(key not in self.places and " ".join(key)[:80] not in self.unnamed for key in stamps)

    async def _ask_all(self, asker: Asker, window: float) -> tuple[list[Answer], dict[Question, SourceError]]:
        """Every question; an error of one loses no other, unless the server has gone."""
        patience = [PATIENCE]
        results = await asyncio.gather(*(self._ask(asker, one, window, patience) for one in self.questions))
        errors = {
            question: result
            for question, result in zip(self.questions, results, strict=True)
            if isinstance(result, SourceError)
        }
        answers = [answer for result in results if not isinstance(result, SourceError) for answer in result]
        if patience[0] <= 0 and errors:
            raise next(error for error in errors.values() if isinstance(error, _GONE))
        return answers, errors

    async def _ask(
        self, asker: Asker, question: Question, window: float, patience: list[int]
    ) -> list[Answer] | SourceError:
        answers: list[Answer] = []
        label_bytes = sum(20 + (40 if "uuid" in label.lower() else 12) for label in question.key.labels)
        try:
            for shard in self._shards(
                self.places, self.sizes.get(question, self._guess(question)), label_bytes
            ):
                if patience[0] <= 0:
                    return Unreachable("the server", "was not asked: it does not answer")
                found = await asker.ask(self.wording.ask(question, window, shard))
                answers.append(Answer(question, found.labels, found.values))
                self.frames[question.rule.kind].find(answers[-1])
        except SourceError as error:
            if isinstance(error, _GONE):
                patience[0] -= 1 if isinstance(error, TimedOut) else PATIENCE
            return error
        self.sizes[question] = sum(len(answer.labels) for answer in answers)
        return answers

    def _guess(self, question: Question) -> int:
        frame = self.frames[question.rule.kind]
        return max(len(frame.entities), len(self.places) * (8 if len(question.key.parts) > 1 else 1))

    def _settle(self, answers: Sequence[Answer]) -> bool:
        """Take in parts of targets that are known; whether somebody is left of whom nobody knows who it is."""
        number = {key: place for place, key in enumerate(self.places)}
        left = False
        for kind, frame in self.frames.items():
            unknown = frame.unknown(answer for answer in answers if answer.question.rule.kind is kind)
            if not unknown:
                continue
            wanted: dict[KeyValues, tuple[EntityRef, int]] = {}
            for key, (question, labels) in unknown.items():
                where = self.keys.place.of(labels)
                ref = self._entity(question.rule, labels, where)
                if ref is not None:
                    wanted[key] = ref, number[where]
                elif key not in self.strangers and len(self.strangers) < MAX_SERIES:
                    self.strangers.add(key)
                    if kind in (Kind.GPU, Kind.SERVER) or where not in self.places:
                        left = True
                        if question.name not in self.anchors and len(self.anchors) < MAX_ANCHORS:
                            self.anchors.append(question.name)
            if wanted:
                frame.add(wanted)
        return left

    def _entity(self, rule: Rule, labels: Labels, where: KeyValues) -> EntityRef | None:
        """Whose series this is, as far as its target is known."""
        place = self.places.get(where)
        if place is None:
            return None
        if rule.kind is Kind.GPU:
            boards = self.boards.get(place.node)
            return boards.ref(labels, whole=rule.board) if boards else None
        if rule.kind is Kind.SERVER:
            servers = self.servers.get(where)
            return servers.ref(labels) if servers else ServerRef(place.node, place.instance)
        return labelled_ref(self.vocabulary, rule, labels, place.node)

    def _ages(self, stamps: Mapping[KeyValues, Values], at: Values, limit: float) -> Codes:
        """[target, instant] of Age; what is new counts as told from here on."""
        found = np.full((len(self.places), len(at)), np.nan)
        for row, key in enumerate(self.places):
            if key in stamps:
                found[row] = stamps[key]
        told = np.array([place.told for place in self.places.values()])
        codes, newest = ages(found, at, told.reshape(-1), limit)
        for place, stamp in zip(self.places.values(), newest.tolist(), strict=True):
            place.told = stamp
            if stamp == stamp:
                place.seen_at = max(place.seen_at, stamp)
        return codes

    # -- what is known

    def nodes(self) -> list[set[str]]:
        """For each target the nodes that it speaks of."""
        found: list[set[str]] = [set() for _ in self.places]
        for frame in self.frames.values():
            for ref, place in zip(frame.entities, frame.places.tolist(), strict=True):
                if place != NOWHERE and not isinstance(ref, RackRef | JobRef):
                    found[place].add(ref.node)
        return found


_GONE = (Unreachable, TimedOut, AccessDenied)


def _anchor(vocabulary: Vocabulary, names: frozenset[str]) -> str:
    """A name that every target of this kind has: of GPUs if it has any, whole, and worth expecting."""
    order = (Kind.GPU, Kind.NODE, Kind.SERVER, Kind.PORT, Kind.DISK, Kind.RACK, Kind.JOB)

    def rank(rule: Rule) -> tuple[int, bool, bool, bool]:
        return order.index(rule.kind), bool(rule.select or rule.parts), not rule.expected, NAME in rule.parts

    rules = sorted(vocabulary.metric, key=rank)
    found = (name for rule in rules for name in rule.names if name in names)
    return next(found, min(names))


def _latest_last(series: Series) -> list[Labels]:
    """The labels of an answer, those that were seen at a later instant behind the others."""
    seen = np.where(np.isnan(series.values), -1, np.arange(series.values.shape[1])).max(axis=1, initial=-1)
    return [series.labels[row] for row in np.argsort(seen, kind="stable").tolist()]


def _addresses(ref: EntityRef) -> Iterator[tuple[str, str, object]]:
    """By what a board is found on its node."""
    if isinstance(ref, GpuRef) and ref.mig is None:
        for name, value in (("pci", ref.pci), ("minor", ref.minor)):
            if value is not None:
                yield ref.node, name, value
