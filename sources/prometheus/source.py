"""Prometheus-compatible servers as a source: every target they scrape, now and at any instant they remember.

Queries are made from the vocabularies that read exporters' pages. Now is asked no faster than the server
scrapes; a sample is told once, so that nothing lives longer here than the server saw it. What fails costs
its own target: the server, a job with its vocabulary, a target that cannot be scraped.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections import Counter
from collections.abc import AsyncGenerator, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from statistics import median
from typing import Protocol

import numpy as np

from coldaisle.sources.errors import AccessDenied, ConfigError, SourceError, TimedOut, Unreachable
from coldaisle.sources.facts import FactBook, JobBook, holdings
from coldaisle.sources.kubernetes import Survey, Teller
from coldaisle.sources.prometheus.alerts import ALERTS, FIRING, AlertBook
from coldaisle.sources.prometheus.answers import Flavour, Labels, Querier, Values
from coldaisle.sources.prometheus.asking import Asker, Remarks, grid
from coldaisle.sources.prometheus.descriptions import describe
from coldaisle.sources.prometheus.holders import beginnings, jobs
from coldaisle.sources.prometheus.identity import NODE_LABELS, Names, host_of, names, same_node
from coldaisle.sources.prometheus.orchestrator import NAMES, Orchestrator, what_it_lacks
from coldaisle.sources.prometheus.queries import (
    INSTANCE,
    WINDOW_SCRAPES,
    any_name,
    any_of,
    families,
    grouped,
    selector,
)
from coldaisle.sources.prometheus.spoken import JOB_LABEL, Place, Round, Spoken, Timing
from coldaisle.sources.settings import Rewrite
from coldaisle.sources.source import (
    Batch,
    Clock,
    EntityRef,
    Event,
    Item,
    JobFact,
    Kind,
    NodeRef,
    Rank,
    Target,
    TargetState,
)
from coldaisle.sources.text import natural_key
from coldaisle.sources.translation import Job, first_of
from coldaisle.sources.vocabularies import Vocabulary, lacking, shipped

log = logging.getLogger(__name__)

DISCOVERY_S = 600.0
IDENTITY_S = 120.0
JOBS_S = 30.0
HELD_S = 3600.0
"""Names that the server had within this are expected of it now."""
JOBS_BACK_S, JOBS_STEP_S = 86_400.0, 300.0
"""How far back, and how exactly, the beginning of a job is looked for."""
USUAL_S = 15.0
UNLEARNT_S = 3.0
"""Between two questions while nobody knows how often the server scrapes: it has only just begun to."""
UNLEARNT_SCRAPE_S = 60.0
OLD_SCRAPES = 2.2
"""A sample older than so many scrapes is not of now."""
SKEW_S = 1.5
"""Less than this is not the clocks' difference but the way there; VictoriaMetrics tells whole seconds."""
REPEAT_S = 55.0
SLICE_CELLS = 4_000_000
SLICE_POINTS = 500
"""Of the past, so much is in memory at a time."""
KUBERNETES = "kube-state-metrics"
SHOWN = 5
"""Names that a target's detail lists."""


class Server(Querier, Protocol):
    """A Querier that says who it is."""

    @property
    def target(self) -> str:
        """Its address as errors name it."""
        ...

    async def flavour(self) -> Flavour:
        """What kind of server answers."""
        ...

    async def server_time(self) -> float:
        """Its clock, now."""
        ...

    async def aclose(self) -> None:
        """End the connections."""
        ...


@dataclass(slots=True, eq=False)
class _Watch:
    """What is known of a server by whoever follows it, now or through a span of the past."""

    spoken: list[Spoken] = field(default_factory=list)
    names: Names = field(default_factory=Names)
    jobs: tuple[str, ...] = ()
    """Scrape jobs that deliver what we read."""
    flavour: Flavour | None = None
    ahead: float = 0.0
    """Our clock minus the server's."""
    facts: FactBook = field(default_factory=FactBook)
    running: JobBook = field(default_factory=JobBook)
    has_looked_back: bool = False
    """Whether the beginnings of jobs were looked for."""
    orchestrator: Orchestrator | None = None
    kubernetes: Teller = field(default_factory=Teller)
    survey: Survey | None = None
    """What was last said of a Kubernetes cluster."""
    alerts: AlertBook = field(default_factory=AlertBook)
    down: dict[str, Labels] = field(default_factory=dict)
    """Targets that the server cannot scrape, by their name."""
    up: dict[tuple[str, str], bool] = field(default_factory=dict)
    """Whether the server can scrape each target."""
    troubles: dict[str, tuple[str, str]] = field(default_factory=dict)
    """Vocabulary -> (what went wrong in the last round, what to do)."""
    discovered_at: float = float("-inf")
    identified_at: float = float("-inf")
    jobs_at: float = float("-inf")

    def begin_now(self) -> None:
        """The past has been told. The newest samples are told once more: they are what is known of now."""
        for place in (place for one in self.spoken for place in one.places.values()):
            place.told = float("nan")


class PrometheusSource:
    """Watches what a Prometheus-compatible server has scraped; implements Source and Past.

    ``interval``: seconds between two questions, None: as the server scrapes. ``match``: matchers that
    every selector gets. ``rewrite``: rules for node names. ``lookback``: seconds that the server shows a
    series after its last sample; nothing older is believed to be of now. Closing the stream does not close the server's
    connections for a :meth:`read` that goes on.
    """

    kind = "prometheus"
    rank = Rank.PROMETHEUS

    def __init__(
        self,
        server: Server,
        *,
        name: str = "prometheus",
        interval: float | None = None,
        match: Sequence[str] = (),
        rewrite: Sequence[Rewrite] = (),
        vocabularies: Sequence[Vocabulary] | None = None,
        lookback: float | None = None,
        clock: Clock = time.time,
    ) -> None:
        self.name = name
        self.interval = interval or USUAL_S
        self._wanted_interval = interval
        self._server = server
        self._match = tuple(match)
        self._rewrite = tuple(rewrite)
        self._lookback = lookback or math.inf
        self._vocabularies = tuple(vocabularies) if vocabularies is not None else shipped()
        self._clock = clock
        self._told: dict[str, Target] = {}
        self._handed: _Watch | None = None
        """What a back-fill has learnt, for the stream that follows it."""
        self._users = 0
        self._is_streaming = False

    # -- now

    async def stream(self) -> AsyncGenerator[Item, None]:
        """Batches as the server scrapes; facts, events and target states as they come."""
        watch, self._handed = self._handed or _Watch(), None
        watch.begin_now()
        self._told = {}
        loop = asyncio.get_running_loop()
        self._users += 1
        self._is_streaming = True
        turn: asyncio.Task[list[Item]] | None = None
        try:
            yield self._tell(self._server_target(watch, TargetState.CONNECTING, ""))
            due = loop.time()
            while True:
                pause = self._pause(watch)
                turn = asyncio.create_task(self._turn(watch))
                await asyncio.wait([turn], timeout=pause)
                if not turn.done() and self._told[self._server.target].state in _WELL:
                    late = f"no whole answer within the {pause:g} s between two questions"
                    yield self._tell(self._server_target(watch, TargetState.SLOW, late))
                for item in await turn:
                    yield item
                pause = self._pause(watch)
                due += pause * max(1, math.ceil((loop.time() - due) / pause))
                await asyncio.sleep(due - loop.time())
        finally:
            if turn is not None:
                turn.cancel()
                await asyncio.wait([turn])
            self._is_streaming = False
            await self._leave()

    def _pause(self, watch: _Watch) -> float:
        is_learnt = any(spoken.scrape is not None for spoken in watch.spoken) or not watch.spoken
        return self.interval if is_learnt else max(self._wanted_interval or 0.0, UNLEARNT_S)

    async def _leave(self) -> None:
        self._users -= 1
        if self._users == 0:
            await self._server.aclose()

    async def _turn(self, watch: _Watch) -> list[Item]:
        """One round; whatever fails in it becomes a target's state."""
        remarks = Remarks()
        begun = time.monotonic()
        try:
            items = await self._asked(watch, remarks)
        except (SourceError, ConfigError) as error:  # a secret that cannot be read, too
            watch.discovered_at = min(watch.discovered_at, self._clock() - DISCOVERY_S)
            state = TargetState.DENIED if isinstance(error, AccessDenied) else TargetState.FAILING
            return self._news([self._server_target(watch, state, error.problem, error.remedy)])
        took = time.monotonic() - begun
        targets = [*self._targets(watch), self._how_it_is(watch, remarks, took)]
        return items + self._gone(targets) + self._news(targets)

    async def _asked(self, watch: _Watch, remarks: Remarks) -> list[Item]:
        """Everything there is to ask now. Raises SourceError where the server as a whole does not answer."""
        now = self._clock()
        has_nothing = not watch.spoken and watch.orchestrator is None  # it may only have begun to scrape
        if has_nothing or now - watch.discovered_at >= DISCOVERY_S:
            await self._meet(watch, now - watch.ahead - HELD_S, now - watch.ahead, remarks)
            # what a store that is away has is looked for sooner
            watch.discovered_at = now if not remarks.warnings else now - DISCOVERY_S + IDENTITY_S
            watch.identified_at = float("-inf")
        asker = Asker(self._server, np.array([self._clock() - watch.ahead]), remarks)
        await self._ask_up(watch, asker)
        is_due = now - watch.identified_at >= IDENTITY_S
        items: list[Item] = []
        if is_due:
            items += await self._who_is_who(watch, asker)
            watch.identified_at = now
        elif any(spoken.scrape is None for spoken in watch.spoken):
            await self._learn_interval(watch, asker)
        for spoken in watch.spoken:
            items += await self._round(watch, spoken, asker)
        if is_due:
            items = self._facts(watch, asker.end + watch.ahead) + items
        items += await self._ask_alerts(watch, asker)
        if now - watch.jobs_at >= JOBS_S - 1.0:
            watch.jobs_at = now
            items += [fact for _, fact in await self._ask_jobs(watch, asker)]
            items += await self._ask_cluster(watch, asker)
        return items

    async def _round(self, watch: _Watch, spoken: Spoken, asker: Asker) -> list[Item]:
        """A vocabulary's numbers; its own failure is its own."""
        name = spoken.vocabulary.name
        watch.troubles.pop(name, None)
        try:
            done = await spoken.round(asker, self._timing(watch, spoken), watch.names, watch.up)
        except _GONE:
            raise
        except SourceError as error:
            watch.troubles[name] = f"cannot be asked: {error.problem}", error.remedy
            return []
        except Exception:
            # The boundary between vocabularies: a mistake of ours in one must not end the others.
            log.exception("asking %s for %s", self._server.target, name)
            watch.troubles[name] = "an error of coldaisle's own, see its log", "please report it"
            return []
        if done.errors:
            watch.troubles[name] = _failures(done)
        return done.items

    def _timing(self, watch: _Watch, spoken: Spoken) -> Timing:
        scrape = spoken.scrape or UNLEARNT_SCRAPE_S
        limit = min(OLD_SCRAPES * scrape + 1.0, self._lookback)
        return Timing(WINDOW_SCRAPES * scrape, limit, watch.ahead)

    # -- the past

    async def read(self, start: float, end: float, step: float) -> AsyncGenerator[Item, None]:
        """The past on a grid, oldest first; see :class:`~coldaisle.sources.source.Past`. Raises SourceError."""
        watch = _Watch()
        self._users += 1
        try:
            async for item in self._past(watch, start, end, step):
                yield item
        finally:
            is_recent = abs(self._clock() - end) < 2 * max(step, UNLEARNT_SCRAPE_S)
            if is_recent and watch.spoken and not self._is_streaming:
                self._handed = watch
            await self._leave()

    async def _past(self, watch: _Watch, start: float, end: float, step: float) -> AsyncGenerator[Item, None]:
        watch.ahead = await self._ahead()
        count = math.ceil((end - start) / step - 1e-9)
        if count < 1:
            return
        times = grid(start - watch.ahead, step, count)
        remarks = Remarks()
        whole = Asker(self._server, times, remarks)
        await self._meet(watch, float(times[0]) - HELD_S, float(times[-1]), remarks)
        await self._who_is_who(watch, whole)
        cells = sum(len(f.entities) * len(f.columns.metrics) for s in watch.spoken for f in s.frames.values())
        points = int(min(SLICE_POINTS, max(1, SLICE_CELLS // max(cells, 1))))
        for first in range(0, count, points):
            asker = Asker(self._server, times[first : first + points], remarks)
            items = await self._slice(watch, asker, step)
            if first == 0:
                for item in self._facts(watch, start):
                    yield item
            for _, item in sorted(items, key=lambda told: told[0]):
                yield item
            yield self._how_it_was(watch, remarks, float(asker.times[0]) + watch.ahead)

    async def _slice(self, watch: _Watch, asker: Asker, step: float) -> list[tuple[float, Item]]:
        """What was told in it, and when."""
        items: list[Item] = []
        for spoken in watch.spoken:
            timing = self._timing(watch, spoken)
            timing = timing._replace(window=max(timing.window, step))
            done = await spoken.round(asker, timing, watch.names)
            items += done.items
            if done.errors:
                watch.troubles[spoken.vocabulary.name] = _failures(done)
        items += await self._ask_alerts(watch, asker)
        items += await self._ask_cluster(watch, asker)
        return [*((_at(item), item) for item in items), *await self._ask_jobs(watch, asker)]

    # -- who is there

    async def _ahead(self) -> float:
        """Our clock minus the server's; 0 where they agree but for the way there."""
        before = self._clock()
        theirs = await self._server.server_time()
        ahead = (before + self._clock()) / 2 - theirs
        return ahead if abs(ahead) > SKEW_S else 0.0

    async def _meet(self, watch: _Watch, start: float, end: float, remarks: Remarks) -> None:
        """What the server is, and what of the vocabularies it had within [start, end] by its clock."""
        watch.ahead = await self._ahead()
        watch.flavour = await self._server.flavour()
        asker = Asker(self._server, np.array([start, end]), remarks)
        wanted = families(NAMES.union(*(one.wanted() for one in self._vocabularies)), self._match)
        held = await asker.names("__name__", wanted)
        found: list[Spoken] = []
        for vocabulary in self._vocabularies:
            has = held & vocabulary.wanted()
            if not vocabulary.is_spoken_on(has) or any(o.vocabulary.name == vocabulary.name for o in found):
                continue
            labels = await asker.labels(any_name(has, self._match))
            known = next((s for s in watch.spoken if s.vocabulary is vocabulary), None)
            is_same = known is not None and known.names == has and known.labels == labels
            found.append(known if known and is_same else Spoken(vocabulary, has, labels, self._match))
        watch.spoken = found
        cluster = held & NAMES
        watch.orchestrator = None
        if cluster:
            labels = await asker.labels(any_name(cluster, self._match))
            watch.orchestrator = Orchestrator(cluster, labels, self._match)
        everything = cluster.union(*(one.names for one in found))
        jobs = await asker.names(JOB_LABEL, families(everything, self._match)) if everything else ()
        watch.jobs = tuple(sorted(jobs))

    async def _who_is_who(self, watch: _Watch, asker: Asker) -> list[Item]:
        """Targets, boards, nodes and their names; the nodes that were booted since that was last asked."""
        booted = [(spoken, key) for spoken in watch.spoken for key in await spoken.ask_nodes(asker)]
        told = [pair for spoken in watch.spoken for pair in spoken.told_names()]
        watch.names = names(self._rewrite, told)
        for spoken in watch.spoken:
            await spoken.identify(asker, watch.names)
        await self._learn_interval(watch, asker)
        return [
            Event(asker.end + watch.ahead, NodeRef(place.node), "reboot", "its boot time has changed")
            for spoken, key in booted
            if (place := spoken.places.get(key)) is not None
        ]

    async def _learn_interval(self, watch: _Watch, asker: Asker) -> None:
        for spoken in watch.spoken:
            if spoken.places:
                await spoken.learn_scrape(asker)
        learnt = [spoken.scrape for spoken in watch.spoken if spoken.scrape is not None]
        if learnt:
            self.interval = max(self._wanted_interval or 0.0, min(learnt))

    async def _ask_up(self, watch: _Watch, asker: Asker) -> None:
        """Which targets the server can scrape: asked first, so that its own silence is noticed first."""
        chosen = selector("up", (any_of(JOB_LABEL, watch.jobs), *self._match))
        by = (INSTANCE, JOB_LABEL, *NODE_LABELS)
        found = await asker.ask(grouped("max", by, chosen))
        is_up = (found.values[:, 0] > 0).tolist()
        watch.up = {_scraped(labels): up for labels, up in zip(found.labels, is_up, strict=True)}
        jobs_at = Counter(instance for instance, _ in watch.up)
        watch.down = {
            instance if jobs_at[instance] == 1 else f"{instance} ({job})": labels
            for labels, up in zip(found.labels, is_up, strict=True)
            if not up
            for instance, job in (_scraped(labels),)
        }

    def _facts(self, watch: _Watch, at: float) -> list[Item]:
        told = (fact for spoken in watch.spoken for fact in describe(spoken, at, watch.ahead))
        return [news for fact in told if (news := watch.facts.news(fact)) is not None]

    async def _ask_alerts(self, watch: _Watch, asker: Asker) -> list[Item]:
        found = await asker.ask(selector(ALERTS, (FIRING, *self._match)))
        return [
            event
            for at, present in _changes(found.values, asker.times + watch.ahead)
            for event in watch.alerts.update(
                [found.labels[row] for row in present], at, lambda labels: self._whose(watch, labels)
            )
        ]

    def _whose(self, watch: _Watch, labels: Labels) -> EntityRef | None:
        """The board or node that an alert names, where it is one that we know."""
        for spoken in watch.spoken:
            frame, words = spoken.frames.get(Kind.GPU), spoken.vocabulary.labels
            key = spoken.keys.gpu.of(labels)
            if frame is not None and any(key[:-1]) and key in frame.row_of:
                return frame.entities[frame.row_of[key]]
            named = watch.names.node(labels, words)
            for place in spoken.places.values():
                if named is not None and same_node(place.node, named.node):
                    return NodeRef(place.node)
        return None

    async def _ask_jobs(self, watch: _Watch, asker: Asker) -> list[tuple[float, JobFact]]:
        """What changed, and when."""
        changed: list[tuple[float, JobFact]] = []
        told = [await jobs(spoken, asker) for spoken in watch.spoken]
        held = [pair for one in told for pair in one.jobs]
        heard = [pair for one in told for pair in one.heard]
        began = await self._beginnings(watch, asker, held)
        rows = [present for _, present in (*held, *heard)]
        masks = np.array(rows, np.float64).reshape(len(rows), len(asker.times))
        masks[masks == 0] = np.nan
        for at, present in _changes(masks, asker.times + watch.ahead):
            holding = holdings(held[row][0] for row in present if row < len(held))
            boards = frozenset(heard[row - len(held)][0] for row in present if row >= len(held))
            changed += [(at, fact) for fact in watch.running.update(holding, at, began, boards)]
            began = {}  # what comes later begins when it comes, also what was there before
        return changed

    async def _ask_cluster(self, watch: _Watch, asker: Asker) -> list[Item]:
        """Pods, nodes and replicas as kube-state-metrics has them; what it does not say is its own failure."""
        items: list[Item] = []
        if watch.orchestrator is None:
            return items
        watch.troubles.pop(KUBERNETES, None)
        try:
            for at, survey in await watch.orchestrator.surveys(asker):
                watch.survey = survey
                items += watch.kubernetes.tell(survey, at + watch.ahead)
        except _GONE:
            raise
        except SourceError as error:
            watch.troubles[KUBERNETES] = f"cannot be asked: {error.problem}", error.remedy
        return items

    async def _beginnings(
        self, watch: _Watch, asker: Asker, held: Sequence[tuple[Job, object]]
    ) -> dict[str, float]:
        """Since when the first jobs that are seen have been running, by our clock."""
        if watch.has_looked_back or not held:
            return {}
        watch.has_looked_back = True
        times = grid(asker.start - JOBS_BACK_S, JOBS_STEP_S, int(JOBS_BACK_S / JOBS_STEP_S) + 1)
        past = Asker(self._server, times, asker.remarks)
        began: dict[str, float] = {}
        for spoken in watch.spoken:
            began |= await beginnings(spoken, past)
        return {job: at + watch.ahead for job, at in began.items()}

    # -- how it is doing

    def _how_it_is(self, watch: _Watch, remarks: Remarks, took: float) -> Target:
        """The server's own state after a round that it answered."""
        latency = median(remarks.took) if remarks.took else None
        if remarks.warnings:
            return self._partial(watch, remarks, latency)
        if not watch.spoken and watch.orchestrator is None:
            known = ", ".join(one.name for one in self._vocabularies)
            detail = f"has no metric that is known here ({known})"
            remedy = "does it scrape dcgm-exporter? A vocabulary of your own can teach coldaisle other names"
            return self._server_target(watch, TargetState.FAILING, detail, remedy, latency)
        newest = max(
            (place.told for one in watch.spoken for place in one.places.values() if place.told == place.told),
            default=None,
        )
        age = self._clock() - watch.ahead - newest if newest is not None else 0.0
        if age > max(60.0, 4 * self.interval):
            detail = f"its newest sample is {age:.0f} s old"
            return self._server_target(watch, TargetState.STALE, detail, "does it still scrape?", latency)
        skew = f"its clock is {abs(watch.ahead):.1f} s {'behind' if watch.ahead > 0 else 'ahead of'} ours"
        detail = skew if watch.ahead else ""
        if took > self.interval:
            slow = f"a round takes {took:.1f} s, it scrapes every {self.interval:g} s"
            return self._server_target(watch, TargetState.SLOW, slow, "", latency)
        return self._server_target(watch, TargetState.OK, detail, "", latency)

    def _partial(self, watch: _Watch, remarks: Remarks, latency: float | None = None) -> Target:
        first, *more = remarks.warnings
        also = f" (and {len(more)} more)" if more else ""
        detail = f"a partial answer: {first[:200]}{also}"
        remedy = "see what it could not reach; what is shown may lack nodes"
        return self._server_target(watch, TargetState.PARTIAL, detail, remedy, latency)

    def _how_it_was(self, watch: _Watch, remarks: Remarks, at: float) -> Target:
        """What its answers about the past were like; ``at``: from when on they tell of it."""
        if remarks.warnings:
            told = self._partial(watch, remarks)
        elif watch.troubles:
            name, (detail, remedy) = next(iter(watch.troubles.items()))
            told = self._server_target(watch, TargetState.PARTIAL, f"{name}: {detail}", remedy)
        else:
            told = self._server_target(watch, TargetState.OK, "")
        return replace(told, at=at)

    def _server_target(
        self,
        watch: _Watch,
        state: TargetState,
        detail: str,
        remedy: str = "",
        latency: float | None = None,
    ) -> Target:
        nodes = _in_order(node for one in watch.spoken for mine in one.nodes() for node in mine)
        flavour = watch.flavour
        what = f"{flavour.name} {flavour.version}".strip() if flavour else ""
        return Target(self._clock(), self._server.target, state, nodes, detail, remedy, latency, what)

    def _targets(self, watch: _Watch) -> Iterator[Target]:
        """A target for each job with its vocabulary, and for each that cannot be scraped."""
        now = self._clock()
        for spoken in watch.spoken:
            jobs: dict[str, list[tuple[Place, set[str]]]] = {}
            for place, mine in zip(spoken.places.values(), spoken.nodes(), strict=True):
                jobs.setdefault(place.job, []).append((place, mine))
            for job, places in jobs.items():
                yield self._job_target(watch, spoken, job, places, now)
        if watch.survey is not None:
            yield self._cluster_target(watch, watch.survey, now)
        known = {(at.instance, at.job): at for one in watch.spoken for at in one.places.values()}
        for name, labels in watch.down.items():
            at = known.get(_scraped(labels))
            node = at.node if at else self._node_of(watch, labels)
            detail = f"the server cannot scrape it (up is 0, job {labels.get(JOB_LABEL, '?')})"
            remedy = "does the exporter run there? The server's own page of targets has the reason"
            nodes = (node,) if node else ()
            yield Target(now, name, TargetState.FAILING, nodes, detail, remedy)

    def _cluster_target(self, watch: _Watch, survey: Survey, now: float) -> Target:
        trouble, remedy = watch.troubles.get(KUBERNETES, ("", ""))
        lacks, how = what_it_lacks(survey)
        detail = "; ".join(filter(None, (trouble, watch.kubernetes.summary, lacks)))
        state = TargetState.PARTIAL if trouble else TargetState.OK
        return Target(now, KUBERNETES, state, (), detail, remedy or how, what=KUBERNETES)

    def _node_of(self, watch: _Watch, labels: Labels) -> str | None:
        words = watch.spoken[0].vocabulary.labels if watch.spoken else None
        named = watch.names.node(labels, words) if words is not None else None
        return named.node if named else host_of(labels.get(INSTANCE, "")) or first_of(NODE_LABELS, labels)

    def _job_target(
        self,
        watch: _Watch,
        spoken: Spoken,
        job: str,
        places: Sequence[tuple[Place, set[str]]],
        now: float,
    ) -> Target:
        name = f"{job} ({spoken.vocabulary.name})" if job else spoken.vocabulary.name
        nodes = _in_order(node for _, mine in places for node in mine)
        trouble, remedy = watch.troubles.get(spoken.vocabulary.name, ("", ""))
        lacks, how = lacking(spoken.missing, spoken.vocabulary)
        limit = 2 * self._timing(watch, spoken).limit
        silent = [place.node for place, _ in places if not now - watch.ahead - place.seen_at < limit]
        detail = "; ".join(
            filter(
                None,
                (
                    trouble,
                    _listed("silent", silent),
                    _listed("no label of these names a node", sorted(spoken.unnamed)),
                    _listed("several hosts call themselves", watch.names.claimed),
                    lacks,
                ),
            )
        )
        if spoken.unnamed and not remedy:
            how = "add rewrite rules to this source: { match = 'regex', to = 'node' }"
        state = (
            TargetState.PARTIAL
            if trouble
            else TargetState.STALE
            if len(silent) == len(places)
            else TargetState.OK
        )
        return Target(now, name, state, nodes, detail, remedy or how, what=spoken.vocabulary.name)

    def _gone(self, targets: Iterable[Target]) -> list[Item]:
        """Targets that were told and are none any more: scraped again, or out of the server's configuration."""
        left = self._told.keys() - {target.name for target in targets}
        for name in left:
            del self._told[name]
        return [Target(self._clock(), name, TargetState.GONE) for name in sorted(left)]

    def _news(self, targets: Iterable[Target]) -> list[Item]:
        return [self._tell(target) for target in targets if self._is_news(target)]

    def _is_news(self, target: Target) -> bool:
        known = self._told.get(target.name)
        if known is None or target.at >= known.at + REPEAT_S:
            return True
        return replace(known, at=target.at, latency_s=target.latency_s) != target

    def _tell(self, target: Target) -> Target:
        self._told[target.name] = target
        return target


_GONE = (Unreachable, TimedOut, AccessDenied)
_WELL = (TargetState.OK, TargetState.PARTIAL)


def _changes(values: Values, at: Values) -> Iterator[tuple[float, list[int]]]:
    """(when, which rows are there), at the first instant and wherever it changes."""
    there = ~np.isnan(values)
    for instant, when in enumerate(at.tolist()):
        if instant == 0 or not np.array_equal(there[:, instant], there[:, instant - 1]):
            yield when, np.flatnonzero(there[:, instant]).tolist()


def _scraped(labels: Labels) -> tuple[str, str]:
    """A target by the labels that the server has given it: several jobs may have one ``instance``."""
    return labels.get(INSTANCE, "?"), labels.get(JOB_LABEL, "")


def _failures(done: Round) -> tuple[str, str]:
    question, error = next(iter(done.errors.items()))
    return (
        f"{len(done.errors)} of {done.asked} queries fail: {question.name}: {error.problem}",
        error.remedy,
    )


def _listed(what: str, found: Sequence[str]) -> str:
    if not found:
        return ""
    more = f" and {len(found) - SHOWN} more" if len(found) > SHOWN else ""
    return f"{what}: {', '.join(found[:SHOWN])}{more}"


def _in_order(nodes: Iterable[str]) -> tuple[str, ...]:
    return tuple(sorted(set(nodes), key=natural_key))


def _at(item: Item) -> float:
    """When it is told, in the order of the past; a fact of what stands before all that happens."""
    return item.at if isinstance(item, Batch | Event) else 0.0
