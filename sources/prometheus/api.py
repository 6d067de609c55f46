"""The client of Prometheus-compatible servers: Prometheus 2 and 3, VictoriaMetrics, Thanos, Mimir, and Grafana before them.

It finds out by itself where below the address the API is, whether POST is taken and what flavour
answers. No answer is larger than the limits, none takes longer than the time limit, and no more than
four questions are asked at a time.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeVar
from urllib.parse import quote, urlsplit

import httpx
import numpy as np

from coldaisle.sources.errors import AccessDenied, SourceError, Unreachable, Unusable
from coldaisle.sources.prometheus import decoding
from coldaisle.sources.prometheus.access import Access
from coldaisle.sources.prometheus.answers import Flavour, Listed, Matrix, Values, Vector
from coldaisle.sources.prometheus.decoding import MAX_CELLS, Columns, Data, Refused, Said
from coldaisle.sources.prometheus.pieces import PIECE_BYTES, Piece, first_piece, pieces
from coldaisle.sources.prometheus.places import Place, find_flavour, find_place
from coldaisle.sources.prometheus.problems import TooLarge, failed, refused, silent
from coldaisle.sources.prometheus.wire import Parameters, Reply, Wire
from coldaisle.sources.settings import PrometheusSettings

GRACE_S = 1.0
"""The server is told the time limit, too: its own words about it are given this long to arrive."""
SMALL_BYTES = 1_000_000
"""Of what is asked to get to know a server."""

Answer = TypeVar("Answer")


@dataclass(frozen=True, slots=True)
class Limits:
    """How much is asked and taken."""

    answer_bytes: int = 32_000_000
    """Of one answer, unpacked."""
    piece_bytes: int = 4 * PIECE_BYTES
    """Of a piece of a range; a larger one is halved while it can be."""
    in_flight: int = 4
    """Questions at a time."""


class _Server(NamedTuple):
    """What was found out."""

    place: Place
    flavour: Flavour


@dataclass(slots=True)
class _Asked:
    """A range that is being asked for."""

    query: str
    step: float
    times: Values
    columns: Columns
    said: dict[str, None] = field(default_factory=dict)


class Api:
    """A :class:`.answers.Querier` for the server that ``settings`` name. Raises ConfigError.

    Every method raises SourceError (and ConfigError, where a secret cannot be read); after a failure it may
    be asked again at once. It belongs to the event loop that first asks.
    """

    def __init__(self, settings: PrometheusSettings, limits: Limits | None = None) -> None:
        self._settings = settings
        self._limits = limits or Limits()
        self._target = target_of(settings.url)
        self._access = Access(settings)
        self._wire = Wire(settings, self._access, self._limits.in_flight)
        self._lane = asyncio.Semaphore(self._limits.in_flight)
        self._server: _Server | None = None
        self._search: asyncio.Task[_Server] | None = None

    @property
    def target(self) -> str:
        """The server's address as errors name it."""
        return self._target

    async def aclose(self) -> None:
        """End the connections."""
        if self._search is not None:
            self._search.cancel()
        await self._wire.aclose()

    async def flavour(self) -> Flavour:
        """What kind of server answers."""
        return (await self._renewing(self._found)).flavour

    async def server_time(self) -> float:
        """Seconds since the epoch by the server's clock, now."""
        data, _ = await self._evaluated([("query", "time()")])
        _, values = decoding.joined(decoding.points(data, self._target))
        if len(values) != 1 or not math.isfinite(values[0]):
            raise Unusable(self._target, "does not tell its time")
        return float(values[0])

    async def instant(self, query: str, at: float) -> Vector:
        """See :class:`.answers.Querier`."""
        parameters = [("query", query), ("time", _seconds(at))]
        data, said = await self._evaluated(parameters)
        parts = []
        for part in decoding.points(data, self._target):
            parts.append(part)
            await asyncio.sleep(0)  # others have their turn between the slices of a large answer
        labels, values = decoding.joined(parts)
        return Vector(labels, values, said)

    async def range(self, query: str, start: float, end: float, step: float) -> Matrix:
        """See :class:`.answers.Querier`; instants and step are taken to the millisecond.

        A server that aligns instants to multiples of the step (Thanos does) has its samples moved by less
        than half a step: start at a multiple where that matters.
        """
        start, step = round(start, 3), max(round(step, 3), 0.001)
        count = max(0, math.floor((end - start) / step + 1e-6) + 1)
        if count > MAX_CELLS:
            raise Unusable(self._target, f"cannot be asked for {count:,} instants", "choose a longer step")
        times = start + np.arange(count, dtype=np.float64) * step
        asked = _Asked(query, step, times, Columns(times, step, self._target))
        if count:
            first = first_piece(count)
            await self._take(asked, first)
            series = len(asked.columns.labels)
            rest = pieces(first.last, count, series, _label_bytes(asked.columns))
            await _all([self._take(asked, piece) for piece in rest])
        return Matrix(
            asked.columns.labels, times, asked.columns.values, tuple(asked.said)[: decoding.MAX_WARNINGS]
        )

    async def names(self, label: str, matches: Sequence[str], start: float, end: float) -> Listed:
        """See :class:`.answers.Querier`."""
        # Prometheus takes no POST here
        return await self._listed(f"label/{quote(label, safe='')}/values", matches, start, end, post=False)

    async def labels(self, matches: Sequence[str], start: float, end: float) -> Listed:
        """See :class:`.answers.Querier`."""
        return await self._listed("labels", matches, start, end, post=True)

    async def _take(self, asked: _Asked, piece: Piece) -> None:
        """A piece of a range, in halves where it proves too large."""
        can_be_halved = piece.points > 1
        try:
            await self._take_whole(
                asked, piece, self._limits.piece_bytes if can_be_halved else self._limits.answer_bytes
            )
        except TooLarge:
            if not can_be_halved:
                raise
            for half in piece.halves():
                await self._take(asked, half)

    async def _take_whole(self, asked: _Asked, piece: Piece, most: int) -> None:
        parameters = [
            ("query", asked.query),
            ("start", _seconds(asked.times[piece.first])),
            ("end", _seconds(asked.times[piece.last - 1])),
            ("step", _seconds(asked.step)),
        ]
        body = await self._answer("query_range", parameters, most)
        slices, said = self._read(decoding.ranged, body)
        asked.said |= dict.fromkeys(map(self._access.hide, said))
        for _ in asked.columns.add(slices, piece.first, piece.last):
            await asyncio.sleep(0)

    async def _listed(
        self, path: str, matches: Sequence[str], start: float, end: float, *, post: bool
    ) -> Listed:
        parameters = [("match[]", match) for match in matches]
        parameters += [("start", _seconds(start)), ("end", _seconds(end))]
        body = await self._body(path, parameters, self._limits.answer_bytes, post=post)
        names, said = self._read(decoding.listed, body)
        return Listed(names, tuple(map(self._access.hide, said)))

    async def _evaluated(self, parameters: Parameters) -> tuple[Data, Said]:
        body = await self._answer("query", parameters, self._limits.answer_bytes)
        data, said = self._read(decoding.evaluated, body)
        return data, tuple(map(self._access.hide, said))

    async def _answer(self, path: str, parameters: Parameters, most: int) -> bytes:
        """To a query."""
        flavour = await self.flavour()
        extra = [*_EXTRA.get(flavour.name, ()), ("timeout", f"{self._settings.timeout:g}s")]
        return await self._body(path, [*parameters, *extra], most)

    def _read(self, decode: Callable[[bytes, str], Answer], body: bytes) -> Answer:
        try:
            return decode(body, self._target)
        except Refused as told:
            raise self._without_secrets(failed(self._target, told)) from None

    async def _body(self, path: str, parameters: Parameters, most: int, *, post: bool = True) -> bytes:
        """The body of a good answer. Raises SourceError."""
        return await self._renewing(lambda: self._asked(path, parameters, most, post=post))

    async def _renewing(self, work: Callable[[], Awaitable[Answer]]) -> Answer:
        """Once more after a refusal: a token may have been renewed on disk."""
        try:
            return await work()
        except AccessDenied:
            if not self._access.has_credentials:
                raise
            self._access.forget()
            return await work()

    async def _asked(self, path: str, parameters: Parameters, most: int, *, post: bool) -> bytes:
        server = await self._found()
        place = server.place
        reply = await self._ask(f"{place.api}/{path}", parameters, post=post and place.post, most=most)
        if reply.status in (405, 501) and post and place.post:
            self._server = server._replace(place=place._replace(post=False))
            reply = await self._ask(f"{place.api}/{path}", parameters, most=most)
        if reply.status == 404:
            self._server = None  # another one may stand there now
        if reply.status != 200:
            raise self._without_secrets(refused(self._target, reply.status, reply.body))
        return reply.body

    async def _found(self) -> _Server:
        """Where the API is and what it is, found out once for all who ask meanwhile. Raises SourceError."""
        if self._server is None:
            if self._search is None or self._search.done():
                self._search = asyncio.create_task(self._find())
            self._server = await asyncio.shield(self._search)
        return self._server

    async def _find(self) -> _Server:
        try:
            place = await find_place(self._ask, self._settings.url, self._target)
            return _Server(place, await find_flavour(self._ask, place, self._target))
        except SourceError as error:
            raise self._without_secrets(error) from error.__cause__

    async def _ask(
        self, url: str, parameters: Parameters = (), *, post: bool = False, most: int = SMALL_BYTES
    ) -> Reply:
        async with self._lane:
            try:
                return await self._within_time(url, parameters, post=post, most=most)
            except Unreachable as error:
                # A kept connection may be closed by the server just as we write on it.
                if not isinstance(error.__cause__, _CLOSED):
                    raise
                return await self._within_time(url, parameters, post=post, most=most)

    async def _within_time(self, url: str, parameters: Parameters, *, post: bool, most: int) -> Reply:
        try:
            async with asyncio.timeout(self._settings.timeout + GRACE_S):
                reply = await self._wire.ask(url, parameters, target=self._target, most=most, post=post)
        except TimeoutError:
            raise silent(self._target, self._settings.timeout) from None
        if b'"success"' in reply.body[:_HEAD_BYTES]:
            return reply
        # before anything of it is cut short for an error: half a secret is one, too
        said = self._access.hide(reply.body.decode("utf-8", "replace"))
        return reply._replace(body=said.encode())

    def _without_secrets(self, error: SourceError) -> SourceError:
        """The error without a secret that the server has repeated."""
        hidden = self._access.hide(error.problem)
        return error if hidden == error.problem else type(error)(error.target, hidden, error.remedy)


_CLOSED = (httpx.RemoteProtocolError, httpx.ReadError, httpx.WriteError)
_HEAD_BYTES = 200
"""Of an answer, where its status stands."""
_EXTRA: Mapping[str, Parameters] = {
    "Thanos": (("dedup", "true"), ("partial_response", "true")),
    # else it moves instants to multiples of the step, and hides the last 30 s
    "VictoriaMetrics": (("nocache", "1"),),
}
"""What a flavour must be told besides."""


async def _all(works: Sequence[Coroutine[Any, Any, None]]) -> None:
    """All of them; the first error ends the others, and is raised."""
    try:
        async with asyncio.TaskGroup() as group:
            for work in works:
                group.create_task(work)
    except BaseExceptionGroup as errors:
        first = errors.exceptions[0]
        raise first from first.__cause__


def target_of(url: str) -> str:
    """``host:port`` and the path prefix, as errors and people name a server."""
    parts = urlsplit(url)
    return f"{parts.netloc.rpartition('@')[2]}{parts.path.rstrip('/')}"


def _label_bytes(columns: Columns) -> int:
    """What the labels of all series take in an answer, about."""
    few = columns.labels[:100]
    each = sum(len(str(dict(labels))) + 30 for labels in few) / max(1, len(few))
    return round(each * len(columns.labels))


def _seconds(value: float) -> str:
    return f"{value:.3f}"
