"""Exporters' /metrics pages, scraped over HTTP: dcgm-exporter, node_exporter, whatever a vocabulary knows.

Every target has a connection of its own (a shared client costs seconds of CPU a sweep), a phase of its
own within the interval, and bounds on bytes and time: an endless, dripping or silent page costs its own
target and nobody else. What answered is recognised by its page. Once per interval all targets'
values leave as one Batch per kind of entity.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
import ssl
import time
import zlib
from collections import deque
from collections.abc import AsyncGenerator, Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import httpcore
import httpx
import numpy as np
from numpy.typing import NDArray

from coldaisle.sources.errors import (
    AccessDenied,
    ConfigError,
    Garbled,
    SourceError,
    TimedOut,
    Unreachable,
    Unusable,
)
from coldaisle.sources.exposition import Limits, Page, Reader
from coldaisle.sources.facts import FactBook, JobBook, Told, holdings, server_fact
from coldaisle.sources.http import TRANSPORT_ERRORS, Answer, Connection, Question, question
from coldaisle.sources.http_errors import (
    is_web_page,
    no_connection,
    said_by,
    same_place,
    unpacker,
)
from coldaisle.sources.kube_state import MAX_PAGE_BYTES, ClusterPage, is_cluster_page
from coldaisle.sources.kubernetes import LABELS_REMEDY, Survey, Teller
from coldaisle.sources.nodesets import expand_url
from coldaisle.sources.source import (
    Batch,
    Clock,
    EntityRef,
    Event,
    GpuFact,
    GpuRef,
    Item,
    Kind,
    Missing,
    NodeFact,
    NodeRef,
    Rank,
    ServerFact,
    Target,
    TargetState,
)
from coldaisle.sources.text import is_loopback
from coldaisle.sources.translation import (
    UP,
    Translation,
    Values,
    is_blank,
    rates_between,
    translate_all,
)
from coldaisle.sources.trust import trusting
from coldaisle.sources.units import show
from coldaisle.sources.vocabularies import Vocabulary, lacking, shipped, spoken

log = logging.getLogger(__name__)

ACCEPT = "text/plain;version=0.0.4;q=1,application/openmetrics-text;version=1.0.0;q=0.8,*/*;q=0.1"
"""Text first: it is the simplest to parse. No escaping parameter: exporters then write plain names."""
HOLD_S = 60.0
"""A page that is byte for byte the last one is no new sample (dcgm-exporter renews its own every 30 s):
its rates stand for as long, then they are what they are."""
QUANTILES_S = 30.0
"""Percentiles cover this much time or a little more, once there is so much: an interval of a few seconds holds too
few requests, and its 99th percentile would be the one slowest of them."""
GROUPS = 8
"""Groups of targets within an interval. Waking up for each target alone doubles the cost of a scrape: measured
with bare transports, 256 targets every 2 s take 18 % of a core one by one and 8 % in 8 groups."""
FACTS_S = 30.0
"""Facts of a page of the same shape are looked at this often: comparing them costs more than the numbers."""
REPEAT_S = 55.0
"""A target's state is told again after this, changed or not."""
CLUSTER_S = 30.0
"""A page of a whole cluster is asked for no more often: it costs its server more than a node's page does."""
CLUSTER_TIMEOUT_S = 30.0
"""A whole page of it may take so long, once it has begun: 10,000 pods are 60 MB."""
DENIED_S = 600.0
BACKOFF_S = 30.0
REDIRECTS = 3
PAGE_ITSELF = "give the address of the page itself"
NOT_METRICS = "check port and path: the page is usually /metrics; a proxy's login page looks so, too"
MAX_GONE = 64
"""Boards of one target that are remembered as gone."""


_HOST_NAME = re.compile(r"(?!-)[A-Za-z0-9._-]{1,253}")


class Address(NamedTuple):
    """Where a page is."""

    name: str
    """``host:port``, shown and unique; a page elsewhere than at /metrics with its path."""
    url: str
    host: str
    """Whose page it is, where the page does not say: of ``?target=n01-bmc`` the target's, not the exporter's."""

    @property
    def endpoint(self) -> str:
        """``host:port``"""
        return self.name.partition("/")[0]


def address(text: str) -> Address:
    """``n01:9400``, ``[::1]:9100`` or ``https://n01:9400/metrics``. Raises ConfigError."""
    remedy = "write host:port, or http://host:port/metrics"
    full = text.strip() if "://" in text else f"http://{text.strip()}"
    try:
        url = httpx.URL(full)
    except httpx.InvalidURL:
        raise ConfigError(f"not the address of an exporter: {text[:80]!r}", remedy) from None
    if url.scheme not in ("http", "https") or not url.host or url.host.startswith("-"):
        raise ConfigError(f"not the address of an exporter: {text[:80]!r}", remedy)
    if url.userinfo:
        raise ConfigError("a password in an exporter's address", "use a token file instead")
    if url.port is None and "://" not in text:
        raise ConfigError(
            f"the port is missing: {text[:80]!r}", "dcgm-exporter listens on 9400, node_exporter on 9100"
        )
    if url.path in ("", "/"):
        url = url.copy_with(path="/metrics")
    host = f"[{url.host}]" if ":" in url.host else url.host
    name = f"{host}:{url.port or (443 if url.scheme == 'https' else 80)}"
    if url.path != "/metrics":
        name += url.path
    asked = url.params.get("target", "")
    if not _HOST_NAME.fullmatch(asked):
        return Address(name, str(url), url.host)
    module = url.params.get("module", "")
    return Address(f"{name}?target={asked}{f'&module={module[:40]}' if module else ''}", str(url), asked)


def addresses(texts: Iterable[str]) -> tuple[Address, ...]:
    """Targets as configured, node sets unfolded: ``r[01-16]n[01-04]:9400``. Raises ConfigError."""
    found: dict[str, Address] = {}
    for text in texts:
        try:
            names = (text,) if "[" not in text or "://[" in text or text.startswith("[") else expand_url(text)
        except ValueError as error:
            raise ConfigError(f"{text[:80]}: {error}", "write n[01-16]:9400") from None
        found.update((one.name, one) for one in map(address, names))
    return tuple(found.values())


@dataclass(slots=True, eq=False)
class _Heard:
    """What a page says in one of the vocabularies that it speaks."""

    translation: Translation
    tables: dict[Kind, tuple[Values, NDArray[np.uint8]]] = field(default_factory=dict)
    codes: Values | None = None
    """Values whose change is an event, as last looked at: mostly nothing has changed."""


@dataclass(slots=True, eq=False)
class _Watched:
    """A target and what is known of it."""

    address: Address
    reader: Reader
    connection: Connection
    body: bytes = b""
    page: Page | None = None
    heard: tuple[_Heard, ...] = ()
    """By vocabulary; where two speak of one cell, the first counts. Empty: no page yet."""
    rates: Values | None = None
    read_at: float = 0.0
    """When the page last changed, monotonic."""
    seconds: float = float("nan")
    """What the rates cover."""
    earlier: deque[tuple[float, Page]] = field(default_factory=deque)
    """Pages of the last QUANTILES_S and when they were read, monotonic; empty: no percentiles there."""
    is_fresh: bool = False
    failures: int = 0
    error: SourceError | None = None
    latency: float | None = None
    remark: str = ""
    booted_at: float | None = None
    clock_offset: float | None = None
    facts_at: float = float("-inf")
    """When its facts were last looked at, monotonic."""
    question: Question | None = None
    """Made once: building one costs as much as reading a page."""
    seen: dict[tuple[EntityRef, str], float] = field(default_factory=dict)
    """Values of cells whose change is an event."""
    gone: tuple[GpuRef, ...] = ()
    """Boards that were on an earlier page and are on no later one: an exporter leaves out what it cannot read."""
    told: Target | None = None
    deadline: asyncio.Timeout | None = None
    """Of the visit that goes on."""
    survey: Survey | None = None
    """What it says of a Kubernetes cluster, if it is kube-state-metrics and not the page of a node."""

    @property
    def translations(self) -> tuple[Translation, ...]:
        """Its page in the words of each vocabulary."""
        return tuple(each.translation for each in self.heard)

    @property
    def node(self) -> str:
        """Whose page it is."""
        return self.heard[0].translation.node if self.heard else self.address.host


class ExporterSource:
    """Scrapes exporters. ``targets`` as :func:`addresses` reads them. Raises ConfigError.

    ``token`` gives the bearer token (it may read a file or run a command; it is called off the event
    loop, and again after a refusal). It is never sent over plain http, except to loopback or with
    ``insecure``. ``timeout`` bounds a whole scrape, ``cluster_interval`` is the least time between two of a
    page that speaks of a whole cluster; in seconds.
    """

    kind = "exporters"
    rank = Rank.EXPORTER

    def __init__(
        self,
        targets: Sequence[str],
        *,
        name: str = "exporters",
        interval: float = 5.0,
        timeout: float | None = None,
        token: Callable[[], str] | None = None,
        insecure: bool = False,
        tls: ssl.SSLContext | None = None,
        compress: bool = False,
        concurrency: int = 256,
        vocabularies: Sequence[Vocabulary] | None = None,
        limits: Limits | None = None,
        cluster_interval: float = CLUSTER_S,
        clock: Clock = time.time,
    ) -> None:
        self.name = name
        self.interval = interval
        self._addresses = addresses(targets)
        if not self._addresses:
            raise ConfigError("no exporter to scrape", "give targets such as n[01-16]:9400")
        if token is not None and not insecure:
            _refuse_clear_text(self._addresses)
        self._timeout = timeout if timeout is not None else timeout_for(interval)
        self._token = token
        self._bearer: str | None = None
        self._tls = tls
        self._compress = compress
        self._vocabularies = tuple(vocabularies) if vocabularies is not None else shipped()
        self._wanted = frozenset().union(*(one.wanted() for one in self._vocabularies))
        self._limits = limits or Limits()
        self._clock = clock
        self._lane = asyncio.Semaphore(concurrency)
        self._slow_lane = asyncio.Semaphore(max(8, concurrency // 8))
        self._watched: list[_Watched] = []
        self._outbox: list[Item] = []
        self._facts = FactBook()
        self._jobs = JobBook()
        self._kubernetes = Teller()
        self._cluster_interval = cluster_interval
        self._composer = _Composer()

    async def stream(self) -> AsyncGenerator[Item, None]:
        """Batches once per interval; facts, events and target states as they come."""
        self._watched = self._open()
        tasks = [
            asyncio.create_task(
                self._watch(one, _phase(place, len(self._watched))), name=f"scrape {one.address.name}"
            )
            for place, one in enumerate(self._watched)
        ]
        try:
            for one in self._watched:
                yield self._target(one, TargetState.CONNECTING, "")
            loop = asyncio.get_running_loop()
            due = loop.time() + self._first_due()
            while True:
                await asyncio.sleep(max(0.0, due - loop.time()))
                for item in self._due():
                    yield item
                due += self.interval * max(1, np.ceil((loop.time() - due) / self.interval))
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await asyncio.gather(*(one.connection.aclose() for one in self._watched), return_exceptions=True)

    def _first_due(self) -> float:
        """Seconds from the start to the first batch."""
        return min(0.5, self.interval / 2)

    def missing(self) -> dict[str, tuple[str, ...]]:
        """Target -> catalog keys that an exporter of its kind can export and this page lacks."""
        return {
            one.address.name: tuple(key for made in one.translations for key in made.missing)
            for one in self._watched
            if one.heard
        }

    # -- one target

    def _open(self) -> list[_Watched]:
        tls = self._tls
        if tls is None and any(one.url.startswith("https:") for one in self._addresses):
            tls = trusting(None)
        return [
            _Watched(
                one,
                Reader(one.name, wanted=self._wanted.__contains__, limits=self._limits),
                Connection(one.url, tls),
            )
            for one in self._addresses
        ]

    async def _watch(self, one: _Watched, phase: float) -> None:
        """Scrape one target for ever: at once, then in its place within each interval."""
        loop = asyncio.get_running_loop()
        # Visits lie between two batches, none close to one: each batch then holds one sample of each target.
        due = loop.time() + self._first_due() + (0.05 + 0.7 * phase - 1.0) * self.interval
        await asyncio.sleep(phase * 0.6 * self._first_due())
        while True:
            try:
                await self._visit(one)
            except Exception:
                # The boundary between targets: a mistake of ours in one must not end the others.
                log.exception("scraping %s", one.address.name)
                self._fail(one, Unusable(one.address.name, "an error of coldaisle's own, see its log"))
            pause = self._pause(one)
            due += self.interval * max(1, np.ceil((loop.time() + pause - due) / self.interval))
            await asyncio.sleep(max(0.0, due - loop.time()))

    def _pause(self, one: _Watched) -> float:
        """Seconds a failing target is left alone beyond the interval."""
        if isinstance(one.error, AccessDenied):
            return DENIED_S
        if one.survey is not None and not one.failures:
            return max(0.0, self._cluster_interval - self.interval)
        return min(BACKOFF_S, self.interval * (2 ** min(one.failures, 8) - 1)) if one.failures > 1 else 0.0

    async def _visit(self, one: _Watched) -> None:
        lane = self._slow_lane if one.failures else self._lane
        async with lane:
            started = asyncio.get_running_loop().time()
            try:
                async with asyncio.timeout(self._timeout) as one.deadline:
                    body, openmetrics, at = await self._scrape(one)
                self._take(one, body, openmetrics, at)
            except TimeoutError:
                self._fail(one, _silent(one.address.name, self._timeout))
            except SourceError as error:
                self._fail(one, error)
            else:
                one.latency = asyncio.get_running_loop().time() - started
                one.failures, one.error = 0, None
                self._tell(one)

    async def _scrape(self, one: _Watched) -> tuple[bytes | Survey, bool | None, float]:
        """The page, or what a cluster's came to; whether it says it is OpenMetrics, and when its answer began (monotonic)."""
        try:
            return await self._answer(one, one.address.url)
        except AccessDenied:
            if self._token is None or self._bearer is None:
                raise
            self._bearer = None  # it may have been renewed on disk
            return await self._answer(one, one.address.url)

    async def _answer(self, one: _Watched, url: str) -> tuple[bytes | Survey, bool | None, float]:
        if one.question is None or (self._token is not None and self._bearer is None):
            one.question = self._question(url, await self._credentials())
        wanted = one.question
        for _ in range(REDIRECTS):
            answer = await self._ask(one, wanted)
            try:
                at = asyncio.get_running_loop().time()
                if answer.status in (301, 302, 303, 307, 308):
                    url = same_place(
                        one.address.name, wanted.url, answer.headers.get("location", ""), PAGE_ITSELF
                    )
                    wanted = self._question(url, await self._credentials())
                    continue
                _check_status(one.address, answer.status)
                kind = answer.headers.get("content-type", "")
                return await self._body(one, answer), "openmetrics" in kind or None, at
            finally:
                with contextlib.suppress(*TRANSPORT_ERRORS):
                    await answer.aclose()
        raise Unusable(one.address.name, "redirects in circles", PAGE_ITSELF)

    async def _credentials(self) -> dict[str, str]:
        if self._token is None:
            return {}
        if self._bearer is None:
            self._bearer = (await asyncio.to_thread(self._token)).strip()
        return {"Authorization": f"Bearer {self._bearer}"}

    def _question(self, url: str, credentials: dict[str, str]) -> Question:
        encoding = "gzip" if self._compress else "identity"
        headers = {"Accept": ACCEPT, "Accept-Encoding": encoding, "User-Agent": "coldaisle", **credentials}
        return question(url, headers)

    async def _ask(self, one: _Watched, wanted: Question) -> Answer:
        try:
            try:
                return await one.connection.ask(wanted)
            except (httpcore.RemoteProtocolError, httpcore.ReadError, httpcore.WriteError):
                if one.page is None and one.survey is None:
                    raise
                # A kept connection may be closed by the server just as we write on it.
                return await one.connection.ask(wanted)
        except TRANSPORT_ERRORS as error:
            raise _translated(one.address, error, self._timeout) from error

    async def _body(self, one: _Watched, answer: Answer) -> bytes | Survey:
        """The page, unpacked, refused as soon as it is larger than the limit; of a cluster's what it says."""
        limit = self._limits.page_bytes
        unpack = unpacker(one.address.name, answer.headers.get("content-encoding", ""))
        chunks: list[bytes] = []
        cluster: ClusterPage | None = None
        size = 0
        try:
            async for chunk in answer.body:
                part = unpack(chunk, (MAX_PAGE_BYTES if cluster else limit - size) + 1)
                if not size and is_cluster_page(part):
                    cluster = self._open_cluster(one)
                size += len(part)
                if cluster is not None:
                    cluster.feed(part)
                    continue
                if size > limit:
                    raise Garbled(
                        one.address.name,
                        f"the page is larger than {show(limit, 'B')}, or has no end",
                        "is this an exporter?",
                    )
                chunks.append(part)
        except TRANSPORT_ERRORS as error:
            raise _translated(one.address, error, self._timeout) from error
        except zlib.error:
            raise Garbled(one.address.name, "the page is not packed as it says (gzip)") from None
        return b"".join(chunks) if cluster is None else cluster.end()

    def _open_cluster(self, one: _Watched) -> ClusterPage:
        """A page of a cluster has begun: it is given the time that it needs."""
        if one.deadline is not None:
            now = asyncio.get_running_loop().time()
            one.deadline.reschedule(now + max(self._timeout, CLUSTER_TIMEOUT_S))
        return ClusterPage(one.address.name)

    # -- what a page says

    def _take(self, one: _Watched, body: bytes | Survey, openmetrics: bool | None, at: float) -> None:
        """Read a page and evaluate it. Raises Garbled, Unusable."""
        if isinstance(body, Survey):
            self._take_survey(one, body)
            return
        one.survey = None
        if body == one.body and _is_held(one) and at - one.read_at < HOLD_S:
            one.is_fresh = True
            return
        if is_web_page(body):
            raise Garbled(one.address.name, "answers a web page (HTML), not metrics", NOT_METRICS)
        page = one.reader.read(body, openmetrics=openmetrics)
        heard = self._heard(one, page)
        before = _aligned(one.page, page)
        seconds = at - one.read_at
        one.rates = (
            rates_between(before, page.values, seconds) if one.page else np.full(len(page.values), np.nan)
        )
        buckets = [each.translation.buckets for each in heard if len(each.translation.buckets)]
        increases = _increases(one, page, np.concatenate(buckets), at) if buckets else None
        for each in heard:
            each.tables = each.translation.evaluate(page.values, one.rates, increases)
        one.seconds = seconds if one.page else float("nan")
        one.body, one.page, one.read_at, one.is_fresh = body, page, at, True
        now = self._clock()
        if heard is not one.heard:
            self._outbox += _vanished(one, heard, now)
            one.heard = heard
            self._composer.is_stale = True
            one.facts_at = float("-inf")
        for each in heard:
            self._outbox += _events(one, each, page, now)
        if at - one.facts_at > FACTS_S:
            one.facts_at = at
            self._note(one, page, now)

    def _take_survey(self, one: _Watched, survey: Survey) -> None:
        """A cluster's page: with what its other shards, and the scheduler, last said."""
        one.survey = survey
        whole = Survey()
        for other in self._watched:
            if other.survey is not None:
                whole.absorb(other.survey)
        self._outbox += self._kubernetes.tell(whole, self._clock())

    def _heard(self, one: _Watched, page: Page) -> tuple[_Heard, ...]:
        if one.heard and one.page is not None and one.page.shape is page.shape:
            return one.heard
        words = spoken(page.shape.names, self._vocabularies)
        if not words:
            raise _unknown(one.address.name, page)
        one.remark = ""
        endpoint = one.address.endpoint
        made = translate_all(page.shape, words, one.address.host, endpoint=endpoint)
        rival = next(filter(None, (self._rival(one, each) for each in made)), None)
        if rival is not None:
            one.remark = (
                f"calls itself {made[0].node}, as {rival.address.name} does; shown as {one.address.host}"
            )
            made = translate_all(page.shape, words, one.address.host, endpoint=endpoint, ignore_names=True)
            made = tuple(replace(each, hostname=None) for each in made)
        return tuple(map(_Heard, made))

    def _rival(self, one: _Watched, made: Translation) -> _Watched | None:
        """Another host that has the same name already, and is not the same machine."""
        uuids = {board.gpu.uuid for board in made.boards if board.gpu.uuid}
        if made.node not in made.nodes:
            return None
        for other in self._watched:
            if other is one or other.node != made.node or other.address.host == one.address.host:
                continue
            theirs = next((each for each in other.translations if each.vocabulary is made.vocabulary), None)
            if theirs is not None and not uuids & {board.gpu.uuid for board in theirs.boards}:
                return other
        return None

    def _note(self, one: _Watched, page: Page, now: float) -> None:
        """What a page says of the node and its boards."""
        for made in one.translations:
            if made.booted_at is not None:
                booted = float(page.values[made.booted_at])
                if one.booted_at is not None and booted > one.booted_at + 60:
                    self._outbox.append(Event(now, NodeRef(made.node), "reboot", f"booted at {booted:.0f}"))
                one.booted_at = booted
            if made.clock is not None:
                offset = float(page.values[made.clock]) - now
                # The page's stamp is older than our reading of it: only a change of seconds is news.
                if one.clock_offset is None or abs(offset - one.clock_offset) > 2.0:
                    one.clock_offset = round(offset, 1)
        told = (fact for each in one.heard for fact in _facts(one, each, now))
        self._outbox += (news for news in map(self._facts.news, told) if news is not None)

    # -- how a target is doing

    def _fail(self, one: _Watched, error: SourceError) -> None:
        one.failures += 1
        one.error = error
        one.is_fresh = False
        one.body = b""
        one.facts_at = float("-inf")  # it may come back as another one
        self._tell(one)

    def _tell(self, one: _Watched) -> None:
        if one.error is not None:
            state = TargetState.DENIED if isinstance(one.error, AccessDenied) else TargetState.FAILING
            target = self._target(one, state, one.error.problem, one.error.remedy)
        else:
            interval = self._cluster_interval if one.survey else self.interval
            is_slow = one.latency is not None and one.latency > interval / 2
            target = self._target(one, TargetState.SLOW if is_slow else TargetState.OK, *self._lacks(one))
        known = one.told
        if (
            known is not None
            and replace(known, at=target.at, latency_s=target.latency_s) == target
            and target.at < known.at + REPEAT_S
        ):
            return
        one.told = target
        self._outbox.append(target)

    def _target(self, one: _Watched, state: TargetState, detail: str, remedy: str = "") -> Target:
        made = one.translations
        return Target(
            at=self._clock(),
            name=one.address.name,
            state=state,
            nodes=tuple(dict.fromkeys(node for each in made for node in each.nodes)),
            detail=detail,
            remedy=remedy,
            latency_s=one.latency,
            what=", ".join(dict.fromkeys(each.vocabulary.name for each in made))
            or ("kube-state-metrics" if one.survey else ""),
        )

    def _lacks(self, one: _Watched) -> tuple[str, str]:
        """What the page could have and has not, and how to get it."""
        if one.survey is not None:
            return self._lacks_of_cluster(one.survey)
        details, remedies = [one.remark], []
        for made in one.translations:
            if made.left_out:
                what = "GPUs" if made.vocabulary.server is None else "GPUs or models"
                details.append(f"{made.left_out} {what} left out: too many for one node")
            if made.unnamed:
                details.append(f"{made.unnamed} nodes, racks or jobs left out: too many for one page")
            lacks, remedy = lacking(made.missing, made.vocabulary)
            details.append(lacks)
            remedies.append(remedy)
        return "; ".join(filter(None, details)), "; ".join(filter(None, remedies))

    def _lacks_of_cluster(self, survey: Survey) -> tuple[str, str]:
        said = [self._kubernetes.summary]
        if survey.left_out:
            said.append(f"{survey.left_out} series left out: too many, or not names of Kubernetes")
        if not survey.has_racks:
            said.append("no node label tells of racks")
        return "; ".join(said), "" if survey.has_racks else LABELS_REMEDY

    # -- once per interval

    def _due(self) -> list[Item]:
        """Everything that has come together since the last call."""
        now = self._clock()
        items, self._outbox = self._outbox, []
        if self._composer.is_stale:
            made = (made for one in self._watched for made in one.translations)
            items += self._jobs.update(holdings(job for each in made for job in each.jobs), now)
        items += self._composer.compose(self._watched, now)
        for one in self._watched:
            one.is_fresh = False
        return items


def timeout_for(interval: float) -> float:
    """Seconds for a whole page where nobody says."""
    return min(10.0, max(2.0, interval))


def _phase(place: int, count: int) -> float:
    """Where in the interval a target's turn is, 0..1; a group shares one."""
    return place * GROUPS // count / GROUPS


class _Part(NamedTuple):
    """Where one target's table goes in the batch of its kind."""

    one: _Watched
    heard: _Heard
    rows: NDArray[np.intp]
    columns: NDArray[np.intp]
    is_shared: bool
    """Whether another target, or vocabulary, has some of these entities too; then it only fills holes."""


@dataclass(slots=True, eq=False)
class _Layout:
    entities: tuple[EntityRef, ...]
    metrics: tuple[str, ...]
    parts: list[_Part]
    gone: NDArray[np.intp]
    """Rows of boards that no page has any more."""
    reasons: NDArray[np.uint8] | None = None


class _Composer:
    """Puts the targets' tables together, one batch per kind."""

    def __init__(self) -> None:
        self.is_stale = True
        self._layouts: dict[Kind, _Layout] = {}

    def compose(self, watched: Sequence[_Watched], at: float) -> list[Batch]:
        """The batches of this moment; a kind without anything new has none."""
        if self.is_stale:
            self._layouts = _laid_out(watched, self._layouts)
            self.is_stale = False
        return [batch for kind, layout in self._layouts.items() if (batch := _composed(kind, layout, at))]


def _composed(kind: Kind, layout: _Layout, at: float) -> Batch | None:
    shape = (len(layout.entities), len(layout.metrics))
    values = np.full(shape, np.nan, np.float32)
    reasons = np.full(shape, Missing.NOT_EXPORTED, np.uint8)
    seconds = np.full(shape[0], np.nan, np.float32)
    for part in layout.parts:
        _place(part, kind, values, reasons, seconds)
    reasons[layout.gone] = Missing.LOST
    if layout.reasons is not None and np.array_equal(layout.reasons, reasons):
        reasons = layout.reasons
    is_news = reasons is not layout.reasons or any(_has_news(part.one, kind) for part in layout.parts)
    layout.reasons = reasons
    return Batch(at, kind, layout.entities, layout.metrics, values, reasons, seconds) if is_news else None


def _place(
    part: _Part,
    kind: Kind,
    values: NDArray[np.float32],
    reasons: NDArray[np.uint8],
    seconds: NDArray[np.float32],
) -> None:
    one, where = part.one, np.ix_(part.rows, part.columns)
    theirs, why = part.heard.tables[kind]
    if one.failures:
        why = np.full_like(why, Missing.UNREACHABLE)
    if not one.is_fresh:  # no new sample is no statement: the last reasons stand
        theirs = np.full_like(theirs, np.nan)
    if part.is_shared:
        have = ~np.isnan(values[where])
        theirs = np.where(have, values[where], theirs)
        why = np.where(have, np.uint8(Missing.PRESENT), why)
    values[where] = theirs
    reasons[where] = why
    if one.is_fresh:
        seconds[part.rows] = one.seconds
    elif one.failures and not part.is_shared:
        reasons[part.rows] = Missing.UNREACHABLE
    if kind is Kind.SERVER and _is_down(one):
        up = part.columns[_up(part.heard)]
        values[part.rows, up], reasons[part.rows, up] = 0.0, Missing.PRESENT


def _has_news(one: _Watched, kind: Kind) -> bool:
    """That a server does not answer is a sample of ``serve.up``, time after time."""
    return one.is_fresh or (kind is Kind.SERVER and _is_down(one))


def _is_down(one: _Watched) -> bool:
    """Whether a page that was there does not come any more; one that is refused to us says nothing of its server."""
    return bool(one.failures) and not isinstance(one.error, AccessDenied)


def _up(heard: _Heard) -> int:
    """The place of ``serve.up`` among the columns of a server's page."""
    return heard.translation.tables[Kind.SERVER].shown_metrics.index(UP)


def _laid_out(watched: Sequence[_Watched], known: dict[Kind, _Layout]) -> dict[Kind, _Layout]:
    """Rows and columns for all targets' tables; tuples that did not change stay the same objects."""
    layouts: dict[Kind, _Layout] = {}
    for kind in Kind:
        rows: dict[object, int] = {}
        entities: list[EntityRef] = []
        columns: dict[str, int] = {}
        parts: list[_Part] = []
        for target, heard in ((one, heard) for one in watched for heard in one.heard):
            table = heard.translation.tables.get(kind)
            if table is None:
                continue
            places = []
            is_shared = False
            for entity in table.entities:
                place = rows.setdefault(_same(entity), len(entities))
                is_shared = is_shared or place < len(entities)
                if place == len(entities):
                    entities.append(entity)
                places.append(place)
            wide = [columns.setdefault(key, len(columns)) for key in table.shown_metrics]
            parts.append(_Part(target, heard, np.array(places, np.intp), np.array(wide, np.intp), is_shared))
        before = known.get(kind)
        if not parts and before is not None:  # its columns stay, for what is said of those that are gone
            columns = {key: place for place, key in enumerate(before.metrics)}
        present = len(entities)
        for ref in (ref for one in watched for ref in one.gone if kind is Kind.GPU):
            if rows.setdefault(_same(ref), len(entities)) == len(entities):
                entities.append(ref)
        if entities and columns:
            gone = np.arange(present, len(entities), dtype=np.intp)
            layouts[kind] = _kept(_Layout(tuple(entities), tuple(columns), parts, gone), before)
    return layouts


def _kept(new: _Layout, old: _Layout | None) -> _Layout:
    if old is not None and old.entities == new.entities:
        new.entities = old.entities
    if old is not None and old.metrics == new.metrics:
        new.metrics = old.metrics
    return new


def _same(entity: EntityRef) -> object:
    """What two targets must agree on to speak of the same thing."""
    return (entity.uuid, entity.mig) if isinstance(entity, GpuRef) and entity.uuid else entity


def _aligned(before: Page | None, page: Page) -> Values:
    """The earlier page's values in this page's order, NaN for series it had not."""
    if before is None:
        return np.full(len(page.values), np.nan)
    if before.shape is page.shape:
        return before.values
    known = dict(zip(before.shape.series, before.values.tolist(), strict=True))
    return np.array([known.get(series, np.nan) for series in page.shape.series], np.float64)


def _is_held(one: _Watched) -> bool:
    """Whether a page that stays the same may be an old one, kept by its exporter; an inference server's speaks of now."""
    return bool(one.heard) and all(made.vocabulary.server is None for made in one.translations)


def _increases(one: _Watched, page: Page, buckets: NDArray[np.intp], at: float) -> Values:
    """What every series rose by in the last QUANTILES_S or a little more, as far as pages reach back.

    NaN for a series that was not there then. A counter that goes back (its server was started anew) ends the memory:
    buckets of before and after do not add up to a histogram.
    """
    if one.earlier:
        last = _aligned(one.earlier[-1][1], page)
        if (page.values < last)[buckets].any():
            one.earlier.clear()
    while len(one.earlier) > 1 and one.earlier[1][0] <= at - QUANTILES_S:
        one.earlier.popleft()
    before = _aligned(one.earlier[0][1] if one.earlier else None, page)
    one.earlier.append((at, page))
    return page.values - before


def _vanished(one: _Watched, heard: Iterable[_Heard], now: float) -> list[Event]:
    """Keep the boards that a page of another shape has no more, and tell of those that are gone since the last one.

    Another board at the same address takes the place of the one before it.
    """
    before, current = _boards(one.heard), _boards(heard)
    places = {ref.pci for ref in current.values()} - {None}
    earlier = {_same(ref): ref for ref in one.gone} | before
    gone = {key: ref for key, ref in earlier.items() if key not in current and ref.pci not in places}
    one.gone = tuple(gone.values())[-MAX_GONE:]
    detail = f"{one.address.name} does not export it any more"
    return [Event(now, ref, "gpu_lost", detail) for key, ref in gone.items() if key in before]


def _boards(heard: Iterable[_Heard]) -> dict[object, GpuRef]:
    boards = (board.gpu for each in heard for board in each.translation.boards)
    return {_same(gpu): gpu for gpu in boards if gpu.mig is None}


def _events(one: _Watched, heard: _Heard, page: Page, now: float) -> list[Event]:
    """Sticky codes that became another one than 0, counters that rose. The first sight of a cell is no event."""
    translation = heard.translation
    if not translation.events:
        return []
    values = page.values[translation.event_sources]
    if heard.codes is not None and np.array_equal(heard.codes, values):
        return []
    heard.codes = values
    blank = is_blank(values, translation.vocabulary)
    found: list[Event] = []
    for place, (kind, row, _, rule) in enumerate(translation.events):
        if blank[place]:
            continue
        value = float(values[place])
        cell = (translation.tables[kind].entities[row], rule.key)
        before = one.seen.get(cell)
        one.seen[cell] = value
        if before is None or value == before or (value == 0 if rule.sticky else value < before):
            continue
        labels = dict(page.shape.series[int(translation.event_sources[place])].labels)
        detail = (
            f"{rule.event} {value:.0f} {labels.get('err_msg', '')}".strip()
            if rule.sticky
            else f"{value - before:.0f} more"
        )
        found.append(Event(now, cell[0], rule.event, detail[:200]))
    return found


def _facts(one: _Watched, heard: _Heard, now: float) -> Iterable[Told]:
    translation = heard.translation
    whole = [board.gpu for board in translation.boards if board.gpu.mig is None]
    node = _row(heard, Kind.NODE, NodeRef(translation.node))
    if translation.node in translation.nodes:
        yield NodeFact(
            at=now,
            node=translation.node,
            hostname=translation.hostname,
            cpus=_whole(node.get("node.cpus")),
            memory_bytes=_whole(node.get("node.mem_total")),
            kernel=translation.kernel,
            driver=translation.driver,
            booted_at=one.booted_at,
            # A server sees the boards it was given, not the node's.
            gpus_visible=len(whole) if whole and translation.vocabulary.server is None else None,
            clock_offset_s=one.clock_offset,
        )
    for board in translation.boards:
        row = _row(heard, Kind.GPU, board.gpu)
        yield GpuFact(
            at=now,
            gpu=board.gpu,
            model=board.model,
            memory_bytes=_whole(row.get("gpu.mem_total")),
            power_limit_w=row.get("gpu.power_limit"),
            power_max_w=row.get("gpu.power_max"),
            slowdown_c=row.get("gpu.temp_slowdown"),
            mig_profile=board.mig_profile,
            mig_enabled=True if board.gpu.mig else None,
            serial=board.serial,
        )

    yield from _server_facts(translation, tuple(whole), now)


def _server_facts(translation: Translation, boards: tuple[GpuRef, ...], now: float) -> Iterable[ServerFact]:
    engine = translation.vocabulary.server
    if engine is None:
        return
    for hosted in translation.servers:
        yield server_fact(hosted, engine, boards, now)


def _row(heard: _Heard, kind: Kind, entity: EntityRef) -> dict[str, float]:
    """One entity's values that are there."""
    table = heard.translation.tables.get(kind)
    row = table.places.get(entity) if table else None
    if table is None or row is None or kind not in heard.tables:
        return {}
    values = heard.tables[kind][0][row].tolist()
    return {key: value for key, value in zip(table.shown_metrics, values, strict=True) if value == value}


def _whole(value: float | None) -> int | None:
    return None if value is None else round(value)


# ---- HTTP


def _refuse_clear_text(targets: Iterable[Address]) -> None:
    for one in targets:
        if one.url.startswith("http:") and not is_loopback(one.host):
            raise ConfigError(
                f"the token would go to {one.name} in clear text", "use https://, or set insecure = true"
            )


def _check_status(one: Address, status: int) -> None:
    if status in (401, 403):
        raise AccessDenied(one.name, f"the exporter refuses us (HTTP {status})", "configure a token for it")
    if status == 404:
        raise Unusable(one.name, "there is no such page (HTTP 404)", "the path is usually /metrics")
    if status == 400 and one.url.startswith("http:"):
        remedy = f"if it speaks TLS, write {one.url.replace('http:', 'https:', 1)}"
        raise Unusable(one.name, "does not take our question (HTTP 400)", remedy)
    if status != 200:
        raise Unusable(one.name, f"answered HTTP {status}", "look at the exporter's log")


def _translated(one: Address, error: Exception, seconds: float) -> SourceError:
    """httpcore's errors in our tree."""
    if isinstance(error, httpcore.ConnectError):
        return no_connection(error, "is the exporter running, and the port open?").of(one.name)
    if isinstance(error, httpcore.TimeoutException):
        return _silent(one.name, seconds)
    if isinstance(error, httpcore.RemoteProtocolError):
        return Garbled(one.name, f"broke the HTTP protocol: {said_by(error)}", "is this an exporter's port?")
    return Unreachable(one.name, f"the connection broke: {said_by(error)}", "look at the exporter's log")


def _silent(target: str, seconds: float) -> TimedOut:
    return TimedOut(target, f"no whole page within {seconds:g} s", "the exporter hangs, or sends too slowly")


def _unknown(target: str, page: Page) -> Unusable:
    some = sorted(page.shape.names)
    shown = ", ".join(some[:5]).encode("unicode_escape").decode("ascii")[:200] or "nothing"
    more = f" and {len(some) - 5} more" if len(some) > 5 else ""
    return Unusable(
        target,
        f"answers, but no vocabulary knows what it exports: {shown}{more}",
        "a vocabulary of your own can teach coldaisle what these mean",
    )
