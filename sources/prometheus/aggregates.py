"""Weeks and months of a Prometheus-compatible server as bins: the server aggregates, means and maxima travel.

For each metric one query over ``[step]``: ``avg_over_time`` and ``max_over_time`` of gauges, ``rate`` of counters (which sees
resets), ``count_over_time`` for what was covered. Names, labels, folds, units and blanks are the vocabularies', as for
everything else that is asked of these servers; only statistics over a bin take the place of newest values.

A span is read in slices, so that neither an answer nor what is held of it is large; whoever is seen in any slice has a
column. No more than four questions are in flight: :mod:`.api` sees to that.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from coldaisle.sources.errors import AccessDenied, SourceError, TimedOut, Unreachable
from coldaisle.sources.prometheus.alerts import ALERTS, FIRING
from coldaisle.sources.prometheus.answers import Flavour, Labels, Values
from coldaisle.sources.prometheus.asking import Asker, Remarks, Series, grid
from coldaisle.sources.prometheus.holders import job_words
from coldaisle.sources.prometheus.identity import Names, is_exporters_own, names, rack_of
from coldaisle.sources.prometheus.queries import (
    Keys,
    Question,
    Wording,
    any_name,
    families,
    gpu_key,
    grouped,
    place_key,
    questions,
    seconds,
    selector,
)
from coldaisle.sources.prometheus.source import Server
from coldaisle.sources.prometheus.spoken import Spoken
from coldaisle.sources.prometheus.tables import Answer, Frame, KeyValues
from coldaisle.sources.settings import Rewrite
from coldaisle.sources.source import EntityRef, GpuRef, Kind, NodeRef
from coldaisle.sources.text import natural_key
from coldaisle.sources.translation import Boards, jobs_of, labelled_ref
from coldaisle.sources.vocabularies import Labels as Words
from coldaisle.sources.vocabularies import Rule, Vocabulary, counters_for

log = logging.getLogger(__name__)

Floats = NDArray[np.float32]
Progress = Callable[[int, int], None]
"""Told (slices done, slices in all)."""

MEANS = (
    "gpu.util", "gpu.gr_active", "gpu.sm_active", "gpu.tensor_active", "gpu.dram_active", "gpu.power", "gpu.mem_used",
    "gpu.sm_clock", "gpu.nvlink_tx", "gpu.nvlink_rx", "gpu.thermal_violation", "gpu.power_violation",
    "node.cpu_util", "node.cpu_iowait",
)  # fmt: skip
PEAKS = ("gpu.mem_used",)
CONSTANTS = ("gpu.mem_total", "gpu.power_limit", "gpu.sm_clock_max", "node.cpus", "node.mem_total")
"""Looked at now and then: they hardly change."""
SLICE_POINTS = 500
SLICE_CELLS = 4_000_000
REACH_POINTS = 400
"""Instants at which it is looked whether there is anything, over four spans."""
WINDOW_SCRAPES = 4.0
SCRAPE_SPANS = ((900.0, 5.0), (14_400.0, 60.0))
USUAL_SCRAPE_S = 60.0
POINT_BYTES = 26
"""Of a sample in an answer."""
DAY = 86400.0
JOIN_S = 3600.0
"""A job that is not seen on its GPU for longer, while the GPU is, has ended there."""
MOST_JOBS = 500_000


class Span(NamedTuple):
    """Bins ``(start + n * step, start + (n + 1) * step]`` by the server's clock."""

    start: float
    step: float
    bins: int

    @property
    def end(self) -> float:
        return self.start + self.bins * self.step

    @property
    def starts(self) -> Values:
        """[bin]"""
        return self.start + self.step * np.arange(self.bins, dtype=np.float64)


class Lacking(NamedTuple):
    """A metric that the server does not have."""

    key: str
    remedy: str
    """What would bring it; empty: nothing that is known here."""


class Cost(NamedTuple):
    """What a reading asks of a server, about."""

    queries: int
    samples_read: float
    """From its store."""
    answer_bytes: float
    seconds: float


@dataclass(frozen=True, slots=True)
class Survey:
    """What there is to ask a server for, before it is asked."""

    flavour: Flavour
    target: str
    found: Mapping[str, str]
    """Catalog key -> the name that it is read from."""
    lacking: tuple[Lacking, ...]
    reach: float
    """The oldest instant with samples within four spans; NaN: there are none."""
    newest: float
    """The newest one."""
    look_s: float
    """Between two looks for them."""
    boards: int
    """GPUs at their most."""
    coverage: float
    """Share of looks at which they were there, of those within the span; NaN: none."""
    scrape_s: float
    has_jobs: bool
    """Whether labels say who holds a GPU."""
    latency_s: float
    """Of one small question."""
    warnings: tuple[str, ...] = ()

    def cost(self, span: Span) -> Cost:
        """What reading a span asks of the server, about."""
        metrics = sum(key.startswith("gpu.") for key in self.found) + len(PEAKS) + 1
        answered = float(metrics * self.boards * span.bins)
        read = metrics * self.boards * (span.end - span.start) / self.scrape_s
        slices = math.ceil(span.bins / SLICE_POINTS)
        queries = max(math.ceil(answered * POINT_BYTES / 2e6), 2 * slices * metrics) + 12
        # an ordinary server gives some million samples of its store in a second; we read as many answers
        return Cost(
            queries,
            read,
            answered * POINT_BYTES,
            answered / 2.0e6 + read / 8e6 + queries * self.latency_s / 4,
        )


class Seen(NamedTuple):
    """A position on a node where a GPU was seen."""

    node: str
    slot: str
    """Its index there, else its address, else its UUID."""
    uuids: tuple[str, ...]
    model: str
    rack: str
    """As the server's labels say; empty: they do not."""
    first: int
    """The first bin in which it was seen."""
    last: int
    was_elsewhere: bool = False
    """Whether it was on another node before."""


class Held(NamedTuple):
    """A job on one GPU, as labels beside its series say."""

    job: str
    """``slurm:4711`` or ``k8s:<namespace>/Pod/<pod>``."""
    name: str
    user: str
    partition: str
    board: int
    start: float
    end: float
    is_open: bool
    """It was still there in the last bin."""
    share: float = 1.0
    """Of a GPU that is divided (MIG): its instances, of all that were seen at work or idle."""


class Incident(NamedTuple):
    """What happened on a day, seen from there."""

    kind: str
    """``xid`` or ``alert``."""
    name: str
    """``79``, ``DiskFull``: other people's text."""
    node: str
    slot: str
    day: float
    """Epoch seconds of its end."""
    amount: float
    """Changes of an XID code; hours that an alert fired."""


@dataclass(slots=True)
class Gathered:
    """A span as it was read."""

    span: Span
    boards: list[Seen] = field(default_factory=list)
    hosts: list[str] = field(default_factory=list)
    means: dict[str, Floats] = field(default_factory=dict)
    """[bin, board], or [bin, host] for ``node.*``."""
    peaks: dict[str, Floats] = field(default_factory=dict)
    constants: dict[str, Floats] = field(default_factory=dict)
    """[board] or [host]; NaN: not known."""
    coverage: Floats = field(default_factory=lambda: np.zeros((0, 0), np.float32))
    """[bin, board] share of the samples that should have been there."""
    held: list[Held] = field(default_factory=list)
    jobs_known: bool = False
    scrape_s: float = USUAL_SCRAPE_S
    incidents: list[Incident] = field(default_factory=list)
    incidents_looked_at: tuple[str, ...] = ()
    queries: int = 0
    seconds: float = 0.0
    warnings: tuple[str, ...] = ()
    failures: tuple[str, ...] = ()


@dataclass(slots=True, eq=False)
class _Speech:
    """One vocabulary on the server, with all that it has ever spoken of within the span."""

    spoken: Spoken
    keys: Keys
    wordings: Mapping[str, Wording]
    """By statistic."""
    frames: dict[tuple[str, Kind], Frame]
    """By statistic and kind."""
    job_words: Words
    by_jobs: tuple[str, ...]
    places: dict[KeyValues, tuple[str, str]] = field(default_factory=dict)
    """Scraped target -> its node, and the rack that labels name."""
    boards: dict[str, Boards] = field(default_factory=dict)
    rows: dict[Kind, dict[KeyValues, tuple[EntityRef, int]]] = field(default_factory=dict)
    columns: dict[tuple[str, str], list[tuple[int, dict[EntityRef, int], Floats]]] = field(
        default_factory=dict
    )
    """(statistic, key) -> (first bin, row of each entity, [bin, row]) a slice."""
    counts: list[tuple[int, dict[EntityRef, int], Floats]] = field(default_factory=list)
    runs: dict[tuple[str, EntityRef], list[list[float]]] = field(default_factory=dict)
    """(job, GPU) -> [start, end] each."""
    jobs: dict[str, tuple[str, str, str]] = field(default_factory=dict)
    """Job -> name, user, partition."""
    instances: dict[EntityRef, set[str]] = field(default_factory=dict)
    """Those of a divided GPU."""
    held_instances: dict[tuple[str, EntityRef], set[str]] = field(default_factory=dict)
    """Of them, those of a job."""

    @property
    def has_gpus(self) -> bool:
        return any(kind is Kind.GPU for _, kind in self.frames)

    @property
    def anchor(self) -> str:
        return self.spoken.anchors[0]

    @property
    def node_parts(self) -> int:
        """Of a node's key; 0: it speaks of none."""
        frames = (frame for (_, kind), frame in self.frames.items() if kind is Kind.NODE)
        return max((len(frame.questions[0].key.parts) for frame in frames), default=0)


def covered(counts: Floats, expected: float) -> Floats:
    """Share of the samples that were there. Of 2.5 in a bin there are 2 or 3: with 2 of them none is missing."""
    whole = max(math.floor(expected + 0.01), 1)
    return np.where(counts >= whole, 1.0, counts / max(expected, 1.0)).astype(np.float32)


class Aggregates:
    """Reads spans of one server; ``match`` and ``rewrite`` as for the source. Raises SourceError throughout."""

    def __init__(
        self,
        server: Server,
        *,
        match: Sequence[str] = (),
        rewrite: Sequence[Rewrite] = (),
        vocabularies: Sequence[Vocabulary] = (),
    ) -> None:
        self._server = server
        self._match = tuple(match)
        self._rewrite = tuple(rewrite)
        self._vocabularies = tuple(vocabularies)
        self._remarks = Remarks()
        self._speeches: list[_Speech] = []
        self._scrape = USUAL_SCRAPE_S
        self._asked = 0

    @property
    def target(self) -> str:
        """The server, as errors name it."""
        return self._server.target

    async def now(self) -> float:
        """The server's clock."""
        return await self._server.server_time()

    # -- what there is

    async def survey(self, span: Span) -> Survey:
        """What there is within the span, and what reading it will cost; asks about ten small questions."""
        began = time.monotonic()
        flavour = await self._server.flavour()
        await self._meet(span)
        gpus = next((one for one in self._speeches if one.has_gpus), None)
        times, counts = await self._presence(span, gpus) if gpus else (np.zeros(0), np.zeros(0))
        there = np.flatnonzero(counts > 0)
        inside = (times > span.start) & (times <= span.end)
        most = int(counts[inside].max(initial=0)) if len(there) else 0
        if gpus and len(there):
            self._scrape = await self._learn_scrape(gpus, min(float(times[there[-1]]), span.end))
        found = self._found()
        per_query = max(time.monotonic() - began, 0.01) / max(self._asked, 1)
        return Survey(
            flavour,
            self.target,
            found,
            self._lacking(found),
            float(times[there[0]]) if len(there) else math.nan,
            float(times[there[-1]]) if len(there) else math.nan,
            float(times[1] - times[0]) if len(times) > 1 else math.inf,
            most,
            float(counts[inside].mean() / most) if most else math.nan,
            self._scrape,
            any(one.by_jobs for one in self._speeches),
            per_query,
            tuple(self._remarks.warnings),
        )

    def _found(self) -> dict[str, str]:
        found: dict[str, str] = {}
        for speech in self._speeches:
            for frame in speech.frames.values():
                for question in frame.questions:
                    for rule in question.rules:
                        if not rule.key.partition(".")[2].startswith("_"):
                            found.setdefault(rule.key, question.name)
                for _, derived, _ in frame.columns.derived:
                    if derived.key in (*MEANS, *CONSTANTS):
                        found.setdefault(derived.key, "derived from others")
        return {key: found[key] for key in (*MEANS, *CONSTANTS) if key in found}

    def _lacking(self, found: Mapping[str, str]) -> tuple[Lacking, ...]:
        spoken = [one.spoken.vocabulary for one in self._speeches if one.has_gpus]
        # where nobody speaks of GPUs, who might
        speaks = spoken or [one for one in self._vocabularies if counters_for(["gpu.util"], one)]
        lacking = []
        for key in MEANS:
            if key in found or (key == "gpu.gr_active" and "gpu.util" in found):
                continue
            lines = counters_for([key], speaks[0]) if speaks else ()
            if key.startswith("node."):
                lines = ("scrape node_exporter on the GPU nodes, too",)
            lacking.append(Lacking(key, "; ".join(lines)))
        return tuple(lacking)

    async def _meet(self, span: Span) -> None:
        """Which vocabularies the server speaks."""
        if self._speeches:
            return
        asker = Asker(self._server, np.array([span.start, span.end]), self._remarks)
        wanted = frozenset().union(*(one.wanted() for one in self._vocabularies))
        held = await asker.names("__name__", families(wanted, self._match))
        self._asked += 2
        last = Asker(self._server, np.array([span.end]), self._remarks)
        for vocabulary in self._vocabularies:
            has = held & vocabulary.wanted()
            if not vocabulary.is_spoken_on(has):
                continue
            labels = await asker.labels(any_name(has, self._match))
            self._asked += 1
            speech = _speech(vocabulary, has, labels, self._match)
            if speech is not None:
                await speech.spoken.ask_nodes(last)
                self._asked += 2
                self._speeches.append(speech)
        self._names: Names = names(
            self._rewrite, [pair for one in self._speeches for pair in one.spoken.told_names()]
        )

    async def _presence(self, span: Span, speech: _Speech) -> tuple[Values, Values]:
        """How many series there were, at instants over four spans."""
        back = min(4 * (span.end - span.start), 400 * DAY)
        step = max(math.ceil(back / REACH_POINTS), 60.0)
        times = grid(span.end - (REACH_POINTS - 1) * step, step, REACH_POINTS)
        asker = Asker(self._server, times, self._remarks)
        # one series a board, however many jobs it had
        boards = grouped("max", speech.keys.gpu.labels, speech.spoken.wording.selector(speech.anchor))
        series = await self._ask(asker, f"count({boards})")
        counts = np.nan_to_num(series.values[0]) if len(series.values) else np.zeros(len(times))
        return asker.times, counts

    async def _learn_scrape(self, speech: _Speech, at: float) -> float:
        """How often the server takes a sample, from the stamps before ``at``."""
        series = f"timestamp({speech.spoken.wording.selector(speech.anchor)})"
        for back, step in SCRAPE_SPANS:
            times = grid(math.floor(at) - back, step, round(back / step) + 1)
            asker = Asker(self._server, times, self._remarks)
            found = await self._ask(asker, f"topk(8, {grouped('max', speech.keys.gpu.labels, series)})")
            gaps = [np.diff(np.unique(stamps[~np.isnan(stamps)])) for stamps in found.values[:64]]
            every = np.concatenate([*gaps, np.zeros(0)])
            every = every[every > 0.5]
            if len(every) >= 3:
                # samples that were lost make gaps longer, nothing makes many of them shorter
                return float(max(round(float(np.percentile(every, 10))), 1))
        return USUAL_SCRAPE_S

    # -- reading

    async def read(self, span: Span, progress: Progress = lambda done, of: None) -> Gathered:
        """Everything within the span."""
        began = time.monotonic()
        await self._meet(span)
        failures: dict[str, None] = {}
        size = self._slice_points(span)
        slices = range(0, span.bins, size)
        for number, first in enumerate(slices):
            progress(number, len(slices))
            count = min(size, span.bins - first)
            ends = grid(span.start + span.step * (first + 1), span.step, count)
            asker = Asker(self._server, ends, self._remarks)
            for speech in self._speeches:
                await self._slice(speech, asker, span, first, failures)
        progress(len(slices), len(slices))
        gathered = self._assembled(span)
        await self._constants(gathered, span, failures)
        gathered.incidents, gathered.incidents_looked_at = await self._incidents(span, failures)
        gathered.queries, gathered.seconds = self._asked, time.monotonic() - began
        gathered.warnings, gathered.failures = tuple(self._remarks.warnings), tuple(failures)
        gathered.scrape_s = self._scrape
        return gathered

    def _slice_points(self, span: Span) -> int:
        columns = sum(len(frame.metrics) for one in self._speeches for frame in one.frames.values())
        rows = max((len(one.rows.get(Kind.GPU, ())) for one in self._speeches), default=0) or 512
        return int(min(SLICE_POINTS, span.bins, max(1, SLICE_CELLS // max(1, rows * columns))))

    async def _slice(
        self, speech: _Speech, asker: Asker, span: Span, first: int, failures: dict[str, None]
    ) -> None:
        await self._who(speech, asker, span, first)
        window = span.step - 0.001 if span.step > 1 else span.step
        # a rate needs two samples
        rated = max(span.step, WINDOW_SCRAPES * self._scrape) if span.step < 2.5 * self._scrape else span.step
        for (statistic, kind), frame in speech.frames.items():
            if statistic == "constant":
                continue
            wording = speech.wordings[statistic]
            frame.arrange(speech.rows.get(kind, {}))
            answers, failed = await self._answers(
                asker,
                [(one, wording.ask(one, rated if one.is_rate else window)) for one in frame.questions],
                failures,
            )
            self._take_unknown(speech, kind, frame, answers)
            sheet, _ = frame.evaluate(answers, failed, len(asker.times))
            rows = {ref: row for row, ref in enumerate(frame.entities)}
            for place, key in enumerate(frame.metrics):
                if key not in (MEANS if statistic == "avg" else PEAKS):
                    continue
                values = sheet.values[:, :, place].astype(np.float32)
                if not np.isnan(values).all():
                    speech.columns.setdefault((statistic, key), []).append((first, rows, values))
            await asyncio.sleep(0)

    async def _answers(
        self, asker: Asker, asked: Sequence[tuple[Question, str]], failures: dict[str, None]
    ) -> tuple[list[Answer], list[Rule]]:
        results = await asyncio.gather(
            *(self._ask(asker, promql) for _, promql in asked), return_exceptions=True
        )
        answers: list[Answer] = []
        failed: list[Rule] = []
        for (question, _), result in zip(asked, results, strict=True):
            if isinstance(result, Series):
                answers.append(Answer(question, result.labels, result.values))
            elif isinstance(result, SourceError) and not isinstance(result, _GONE):
                failures[f"{question.name}: {result.problem}"] = None
                failed += question.rules
            else:
                raise result
        return answers, failed

    async def _ask(self, asker: Asker, promql: str) -> Series:
        self._asked += 1
        return await asker.ask(promql)

    async def _who(self, speech: _Speech, asker: Asker, span: Span, first: int) -> None:
        """Who is there in this slice, how many samples there are of each, and whose jobs hold them."""
        by = [*dict.fromkeys([*speech.spoken.identity_labels(), *speech.by_jobs])]
        series = speech.spoken.wording.selector(speech.anchor)
        window = span.step - 0.001 if span.step > 1 else span.step
        if speech.has_gpus:
            promql = grouped("max", by, f"count_over_time({series}[{seconds(window)}])")
        else:
            promql = grouped("max", by, f"last_over_time({series}[{seconds(window)}])")
            asker = asker.coarser(24)
        found = await self._ask(asker, promql)
        refs = [self._placed(speech, labels) for labels in found.labels]
        if speech.has_gpus:
            self._count(speech, found, refs, span, first)

    def _placed(self, speech: _Speech, labels: Labels) -> GpuRef | None:
        """Whose series this is: its board, where it has one."""
        key = speech.keys.place.of(labels)
        if key not in speech.places:
            named = self._names.node(labels, speech.spoken.vocabulary.labels)
            if named is None:
                speech.spoken.unnamed.add(" ".join(key)[:80])
                return None
            rack = rack_of(labels)
            speech.places[key] = named.node, rack[0] if rack else ""
        node = speech.places[key][0]
        if speech.node_parts:
            padded = (*key, *[""] * (speech.node_parts - len(key)))
            speech.rows.setdefault(Kind.NODE, {}).setdefault(padded, (NodeRef(node), 0))
        if not speech.has_gpus:
            return None
        return self._board(speech, node, labels)

    def _board(self, speech: _Speech, node: str, labels: Labels) -> GpuRef | None:
        boards = speech.boards.setdefault(node, Boards(node, speech.spoken.vocabulary.labels))
        boards.learn(labels)
        whole = boards.ref(labels, whole=True)
        own = speech.keys.gpu.of(labels)
        rows = speech.rows.setdefault(Kind.GPU, {})
        for ref, key in ((whole, (*own[:-1], "")), (boards.ref(labels, whole=False), own)):
            if ref is not None:
                rows.setdefault(key, (ref, 0))
        return whole

    def _take_unknown(self, speech: _Speech, kind: Kind, frame: Frame, answers: Sequence[Answer]) -> None:
        """Boards that the anchor does not have, on targets that are known."""
        news: dict[KeyValues, tuple[EntityRef, int]] = {}
        for key, (question, labels) in frame.unknown(answers).items():
            place = speech.places.get(speech.keys.place.of(labels))
            if place is None:
                continue
            if kind is Kind.GPU:
                self._board(speech, place[0], labels)
                known = speech.rows[Kind.GPU].get(key)
                if known is not None:
                    news[key] = known
            else:
                ref = labelled_ref(speech.spoken.vocabulary, question.rule, labels, place[0])
                if isinstance(ref, NodeRef):
                    news[key] = speech.rows.setdefault(kind, {}).setdefault(key, (ref, 0))
        if news:
            frame.add(news)

    def _count(
        self, speech: _Speech, found: Series, refs: Sequence[GpuRef | None], span: Span, first: int
    ) -> None:
        rows: dict[EntityRef, int] = {}
        for ref in refs:
            if ref is not None:
                rows.setdefault(ref, len(rows))
        counts = np.zeros((found.values.shape[1], len(rows)), np.float32)
        for labels, ref, values in zip(found.labels, refs, found.values, strict=True):
            if ref is None:
                continue
            samples = np.nan_to_num(values)
            counts[:, rows[ref]] += samples
            instance = speech.boards[ref.node].ref(labels, whole=False)
            mig = instance.mig if instance is not None else None
            if mig is not None:
                speech.instances.setdefault(ref, set()).add(str(mig))
            for job in jobs_of(labels, speech.job_words, ref):
                own = job.id.startswith("k8s:") and is_exporters_own(
                    job.name, labels, speech.spoken.vocabulary.labels
                )
                if not own and len(speech.jobs) < MOST_JOBS:
                    speech.jobs.setdefault(job.id, (job.name, job.user, job.partition or ""))
                    self._run(speech, job.id, ref, samples, span, first)
                    if mig is not None:
                        speech.held_instances.setdefault((job.id, ref), set()).add(str(mig))
        speech.counts.append((first, rows, counts))

    def _run(
        self, speech: _Speech, job: str, ref: EntityRef, samples: Values, span: Span, first: int
    ) -> None:
        """From when to when a job's label was there, to the sample where a bin is only partly its."""
        there = np.flatnonzero(samples > 0)
        if not len(there):
            return
        runs = speech.runs.setdefault((job, ref), [])
        breaks = np.flatnonzero(np.diff(there) * span.step > JOIN_S)
        for low, high in zip([0, *(breaks + 1)], [*breaks, len(there) - 1], strict=True):
            head, tail = int(there[low]), int(there[high])
            start = span.start + (first + head) * span.step
            end = start + (tail - head + 1) * span.step
            shown = [min(float(samples[at]) * self._scrape, span.step) for at in (head, tail)]
            if head != tail:
                start, end = start + span.step - shown[0], end - span.step + shown[1]
            elif runs and start - runs[-1][1] < self._scrape * 1.5:
                end = start + shown[0]
            # between two samples nothing is known: the middle
            start, end = start + self._scrape / 2, end + self._scrape / 2
            if runs and start - runs[-1][1] <= JOIN_S:
                runs[-1][1] = end
            else:
                runs.append([start, end])

    # -- what is nearly constant

    async def _constants(self, gathered: Gathered, span: Span, failures: dict[str, None]) -> None:
        step = (span.end - span.start) / 8
        times = grid(span.start + step, step, 8)
        asker = Asker(self._server, times, self._remarks)
        place = {(one.node, one.slot): at for at, one in enumerate(gathered.boards)}
        host = {name: at for at, name in enumerate(gathered.hosts)}
        for speech in self._speeches:
            for (statistic, kind), frame in speech.frames.items():
                if statistic != "constant" or not frame.questions:
                    continue
                frame.arrange(speech.rows.get(kind, {}))
                window = max(WINDOW_SCRAPES * self._scrape, 300.0)
                asked = [(one, speech.spoken.wording.ask(one, window)) for one in frame.questions]
                answers, failed = await self._answers(asker, asked, failures)
                sheet, _ = frame.evaluate(answers, failed, len(times))
                size = len(place) if kind is Kind.GPU else len(host)
                for column, key in enumerate(frame.metrics):
                    if key not in CONSTANTS:
                        continue
                    known = gathered.constants.setdefault(key, np.full(size, np.nan, np.float32))
                    for row, ref in enumerate(frame.entities):
                        values = sheet.values[:, row, column]
                        at = (
                            place.get(self._spot(ref))
                            if isinstance(ref, GpuRef)
                            else host.get(self._short(ref))
                        )
                        if at is not None and not np.isnan(values).all() and not getattr(ref, "mig", None):
                            known[at] = np.nanmax(values)

    # -- what happened

    async def _incidents(
        self, span: Span, failures: dict[str, None]
    ) -> tuple[list[Incident], tuple[str, ...]]:
        """XIDs and alerts by day: small questions, at most one a day of the span."""
        days = max(1, math.ceil((span.end - span.start) / DAY))
        width = (span.end - span.start) / days
        asker = Asker(self._server, grid(span.start + width, width, days), self._remarks)
        found: list[Incident] = []
        looked: list[str] = []
        try:
            fired = await self._ask(
                asker,
                grouped(
                    "sum",
                    ("alertname", "severity"),
                    f"count_over_time({selector(ALERTS, (FIRING, *self._match))}[{seconds(width)}:60s])",
                ),
            )
            looked.append("ALERTS")
            for labels, values in zip(fired.labels, fired.values, strict=True):
                for at, value in zip(asker.times, values, strict=True):
                    if value > 0:
                        name = labels.get("alertname", "?")
                        found.append(Incident("alert", name, "", "", float(at), float(value) / 60))
        except SourceError as error:
            failures[f"ALERTS: {error.problem}"] = None
        for speech in self._speeches:
            rule = next((one for one in speech.spoken.vocabulary.metric if one.event == "xid"), None)
            sample = next((one for one in (rule.names if rule else ()) if one in speech.spoken.names), None)
            if sample is None:
                continue
            try:
                found += await self._xids(speech, sample, asker, width)
                looked.append(sample)
            except SourceError as error:
                failures[f"{sample}: {error.problem}"] = None
        return found, tuple(looked)

    async def _xids(self, speech: _Speech, name: str, asker: Asker, width: float) -> list[Incident]:
        series = speech.spoken.wording.selector(name)
        by = speech.keys.gpu.labels
        # the newest code of the day, where it became another one than it was; blanks are beyond all codes
        promql = (
            f"{grouped('max', by, f'max_over_time({series}[{seconds(width)}])')} and "
            f"({grouped('max', by, f'changes({series}[{seconds(width)}])')} > 0)"
        )
        answer = await self._ask(asker, promql)
        found = []
        for labels, values in zip(answer.labels, answer.values, strict=True):
            row = speech.rows.get(Kind.GPU, {}).get(speech.keys.gpu.of(labels))
            if row is None or not isinstance(row[0], GpuRef):
                continue
            node, slot = self._spot(row[0])
            for at, value in zip(asker.times, values, strict=True):
                if 0 < value < 1000:
                    found.append(Incident("xid", f"{value:.0f}", node, slot, float(at), 1.0))
        return found

    # -- putting it together

    def _spot(self, ref: GpuRef) -> tuple[str, str]:
        slot = str(ref.index) if ref.index is not None else ref.pci or ref.uuid or "?"
        return self._shorts.get(ref.node, ref.node), slot

    def _short(self, ref: EntityRef) -> str:
        node = getattr(ref, "node", "")
        return self._shorts.get(node, node)

    def _assembled(self, span: Span) -> Gathered:
        gathered = Gathered(span)
        self._shorts = _short_names({node for one in self._speeches for node, _ in one.places.values()})
        homes = self._homes(span)
        gathered.boards = homes.seen
        gathered.hosts = sorted(
            {self._shorts.get(node, node) for one in self._speeches for node, _ in one.places.values()}
        )
        host = {name: at for at, name in enumerate(gathered.hosts)}
        size = len(homes.seen)
        counted = np.zeros((span.bins, size), np.float32)
        for speech in self._speeches:
            if not speech.has_gpus:
                continue
            mine = np.zeros_like(counted)
            for first, rows, counts in speech.counts:
                for ref, row in rows.items():
                    at = homes.column.get(ref)
                    if at is not None:
                        mine[first : first + len(counts), at] += counts[:, row]
            np.maximum(counted, covered(mine, span.step / self._scrape), out=counted)
            speech.counts.clear()
        gathered.coverage = counted
        for speech in self._speeches:
            for (statistic, key), parts in speech.columns.items():
                into = gathered.means if statistic == "avg" else gathered.peaks
                is_gpu = key.startswith("gpu.")
                if key not in into:
                    into[key] = np.full((span.bins, size if is_gpu else len(host)), np.nan, np.float32)
                for first, rows, values in parts:
                    _lay(
                        into[key],
                        first,
                        values,
                        rows,
                        homes.column if is_gpu else None,
                        host,
                        self._short,
                        key,
                    )
                parts.clear()
        gathered.jobs_known = any(one.runs for one in self._speeches)
        gathered.held = [held for one in self._speeches for held in _held(one, homes.column, span, counted)]
        return gathered

    def _homes(self, span: Span) -> _Homes:
        """A column a position; a board that moved to another position that was empty keeps its own."""
        life: dict[EntityRef, NDArray[np.bool_]] = {}
        about: dict[EntityRef, tuple[str, str]] = {}
        for speech in self._speeches:
            for first, rows, counts in speech.counts:
                for ref, row in rows.items():
                    seen = life.setdefault(ref, np.zeros(span.bins, np.bool_))
                    seen[first : first + len(counts)] |= counts[:, row] > 0
            racks = {node: rack for node, rack in speech.places.values() if rack}
            for boards in speech.boards.values():
                for board in boards.all():
                    if board.gpu.mig is None:
                        about.setdefault(board.gpu, (board.model or "", racks.get(board.gpu.node, "")))
        return _housed(life, about, self._spot)


class _Homes(NamedTuple):
    seen: list[Seen]
    column: dict[EntityRef, int]


def _housed(
    life: Mapping[EntityRef, NDArray[np.bool_]],
    about: Mapping[EntityRef, tuple[str, str]],
    spot: Callable[[GpuRef], tuple[str, str]],
) -> _Homes:
    """Which column each board's readings go to, by where it was and when."""
    groups: list[tuple[tuple[str, str], list[GpuRef], NDArray[np.bool_]]] = []
    at_spot: dict[tuple[str, str], list[int]] = {}
    refs = [ref for ref in life if isinstance(ref, GpuRef) and life[ref].any()]
    for ref in sorted(refs, key=lambda one: int(life[one].argmax())):
        mine = spot(ref)
        for number in at_spot.get(mine, []):
            if (groups[number][2] & life[ref]).sum() <= 1:  # one bin may see both, the old board and the new
                groups[number][1].append(ref)
                groups[number][2][:] |= life[ref]
                break
        else:
            at_spot.setdefault(mine, []).append(len(groups))
            groups.append((mine, [ref], life[ref].copy()))
    owner: dict[str, int] = {}
    merged: list[int] = list(range(len(groups)))
    for number, (_, members, alive) in enumerate(groups):
        for ref in members:
            before = owner.get(ref.uuid or "") if ref.uuid else None
            if (
                before is not None
                and merged[number] == number
                and not (groups[before][2] & alive)[:-1].sum() > 1
            ):
                merged[number] = before
                groups[before][1].extend(members)
                groups[before][2][:] |= alive
        for ref in members:
            if ref.uuid:
                owner[ref.uuid] = merged[number]
    seen: list[Seen] = []
    column: dict[EntityRef, int] = {}
    used: set[tuple[str, str]] = set()
    newest = {
        number: max(members, key=lambda one: int(np.flatnonzero(life[one])[-1]))
        for number, (_, members, _) in enumerate(groups)
        if merged[number] == number
    }
    for number in sorted(newest, key=lambda one: tuple(map(natural_key, spot(newest[one])))):
        _, members, alive = groups[number]
        last = newest[number]
        node, slot = spot(last)
        while (node, slot) in used:
            slot += "'"
        used.add((node, slot))
        model, rack = about.get(last, ("", ""))
        uuids = tuple(dict.fromkeys(ref.uuid for ref in members if ref.uuid))
        there = np.flatnonzero(alive)
        for ref in members:
            column[ref] = len(seen)
        was_elsewhere = any(spot(ref)[0] != node for ref in members)
        seen.append(Seen(node, slot, uuids, model, rack, int(there[0]), int(there[-1]), was_elsewhere))
    return _Homes(seen, column)


def _lay(
    into: Floats,
    first: int,
    values: Floats,
    rows: Mapping[EntityRef, int],
    column: Mapping[EntityRef, int] | None,
    host: Mapping[str, int],
    short: Callable[[EntityRef], str],
    key: str,
) -> None:
    """A slice into its place; what is there already stands. MIG instances give their board's mean, or sum of bytes."""
    part = into[first : first + len(values)]
    instances: dict[int, list[int]] = {}
    at: int | None
    for ref, row in rows.items():
        if column is None:
            at = host.get(short(ref))
        elif isinstance(ref, GpuRef) and ref.mig is not None:
            parent = column.get(ref._replace(mig=None))
            if parent is not None:
                instances.setdefault(parent, []).append(row)
            continue
        else:
            at = column.get(ref)
        if at is not None:
            np.copyto(part[:, at], values[:, row], where=np.isnan(part[:, at]))
    for parent, these in instances.items():
        several = values[:, these]
        some = ~np.isnan(several).all(axis=1) & np.isnan(part[:, parent])
        if some.any():
            fold = np.nansum if key in ("gpu.mem_used",) else np.nanmean
            part[some, parent] = fold(several[some], axis=1)


def _held(speech: _Speech, column: Mapping[EntityRef, int], span: Span, counted: Floats) -> Iterable[Held]:
    for (job, ref), runs in speech.runs.items():
        at = column.get(ref)
        if at is None:
            continue
        name, user, partition = speech.jobs[job]
        mine, every = speech.held_instances.get((job, ref)), speech.instances.get(ref)
        share = len(mine) / len(every) if mine and every else 1.0
        joined: list[list[float]] = []
        for start, end in sorted(runs):
            if joined and (
                start - joined[-1][1] <= JOIN_S or _is_silent(counted[:, at], span, joined[-1][1], start)
            ):
                joined[-1][1] = max(joined[-1][1], end)
            else:
                joined.append([start, end])
        for start, end in joined:
            yield Held(job, name, user, partition, at, start, end, end > span.end - 1.5 * span.step, share)


def _is_silent(counts: Floats, span: Span, start: float, end: float) -> bool:
    """Whether the board itself was hardly heard in between."""
    low, high = (int((at - span.start) // span.step) for at in (start, end))
    between = counts[low + 1 : high]
    return not len(between) or float((between > 0).mean()) < 0.2


def _speech(
    vocabulary: Vocabulary, has: frozenset[str], labels: frozenset[str], match: tuple[str, ...]
) -> _Speech | None:
    """What of a vocabulary is wanted, as questions; None: nothing."""
    spoken = Spoken(vocabulary, has, labels, match)
    place = place_key(vocabulary.labels, labels)
    frames: dict[tuple[str, Kind], Frame] = {}
    wordings: dict[str, Wording] = {}
    for statistic, wanted in (("avg", MEANS), ("max", PEAKS), ("constant", CONSTANTS)):
        part = _reduced(vocabulary, wanted)
        gpu = gpu_key(vocabulary.labels, labels, place, has_uuids=False)
        keys = Keys(place, gpu, part, labels)
        asked = [one for one in questions(part, has, keys) if not one.is_raw]
        for kind in dict.fromkeys(one.rule.kind for one in asked):
            if kind in (Kind.GPU, Kind.NODE):
                mine = [one for one in asked if one.rule.kind is kind]
                frames[statistic, kind] = Frame(part, kind, mine)
        wordings[statistic] = Wording(part, match, "max" if statistic == "max" else "avg")
    if not any(statistic != "constant" for statistic, _ in frames):
        return None
    words = job_words(spoken)
    by = (*words.job, *words.user, *words.partition, *words.pod, *words.namespace)
    has_gpus = any(kind is Kind.GPU for _, kind in frames)
    return _Speech(
        spoken,
        Keys(place, gpu_key(vocabulary.labels, labels, place, has_uuids=False), vocabulary, labels),
        wordings,
        frames,
        words,
        by if has_gpus and (words.job or words.pod) else (),
    )


def _reduced(vocabulary: Vocabulary, wanted: Sequence[str]) -> Vocabulary:
    """Only what leads to these keys."""
    keys = set(wanted)
    measured = {rule.key for rule in vocabulary.metric}
    derived = []
    for one in reversed(vocabulary.derived):
        if one.key in keys:
            keys |= set(one.parts)
            derived.append(one)
    return msgspec.structs.replace(
        vocabulary,
        metric=tuple(rule for rule in vocabulary.metric if rule.key in keys and rule.key in measured),
        derived=tuple(reversed(derived)),
    )


def _short_names(nodes: Iterable[str]) -> dict[str, str]:
    """Node -> its name without a domain, where that is nobody else's."""
    from coldaisle.sources.racks import short_name

    owners: dict[str, set[str]] = {}
    for node in nodes:
        owners.setdefault(short_name(node), set()).add(node)
    return {node: short for short, of in owners.items() for node in of if len(of) == 1}


_GONE = (Unreachable, TimedOut, AccessDenied)
__all__ = ["Aggregates", "Gathered", "Held", "Incident", "Lacking", "Seen", "Span", "Survey"]
