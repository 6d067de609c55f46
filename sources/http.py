"""One kept HTTP connection to one server: httpcore's, without the pool and the objects that httpx puts around it.

For a page of 45 kB every 2 s from each of 256 servers those cost as much as the requests themselves.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterable, Iterable, Mapping
from typing import Any, NamedTuple

import httpcore
import httpx

TRANSPORT_ERRORS = (
    httpcore.NetworkError,
    httpcore.TimeoutException,
    httpcore.ProtocolError,
    httpcore.ConnectionNotAvailable,
)


class Question(NamedTuple):
    """A request, made once and asked again and again."""

    url: str
    request: httpcore.Request


class Answer(NamedTuple):
    """What came back; its body has yet to be read, and :meth:`aclose` to be called."""

    status: int
    headers: Mapping[str, str]
    """By lower-case name."""
    response: httpcore.Response

    @property
    def body(self) -> AsyncIterable[bytes]:
        """As it comes, packed as it is."""
        stream = self.response.stream
        assert isinstance(stream, AsyncIterable)
        return stream

    async def aclose(self) -> None:
        """Keep the connection if the body was read, else end it."""
        await self.response.aclose()


def question(url: str, headers: Mapping[str, str]) -> Question:
    """GET ``url``."""
    made = httpx.Request("GET", url, headers=headers)
    target = httpcore.URL(
        scheme=made.url.raw_scheme, host=made.url.raw_host, port=made.url.port, target=made.url.raw_path
    )
    return Question(url, httpcore.Request("GET", target, headers=made.headers.raw))


class Connection:
    """To the server of ``url``; made when it is needed, and again when it has ended."""

    def __init__(self, url: str, tls: ssl.SSLContext | None) -> None:
        self._origin = question(url, {}).request.url.origin
        self._tls = tls
        self._open: httpcore.AsyncHTTPConnection | None = None

    async def ask(self, wanted: Question) -> Answer:
        """Raises one of TRANSPORT_ERRORS."""
        if self._open is None or self._open.is_closed():
            plain = PlainBackend() if self._origin.scheme == b"http" else None
            self._open = httpcore.AsyncHTTPConnection(
                self._origin, ssl_context=self._tls, network_backend=plain
            )
        try:
            response = await self._open.handle_async_request(wanted.request)
        except BaseException:
            await self.aclose()
            raise
        headers = {
            name.decode("latin-1").lower(): value.decode("latin-1") for name, value in response.headers
        }
        return Answer(response.status, headers, response)

    async def aclose(self) -> None:
        """End it."""
        ended, self._open = self._open, None
        if ended is not None:
            await ended.aclose()


class PlainBackend(httpcore.AsyncNetworkBackend):
    """Connections without TLS on asyncio's own streams: anyio's cancel scopes cost a tenth of a scrape.

    Timeouts are the caller's.
    """

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        """Raises ConnectError."""
        try:
            return PlainStream(*await asyncio.open_connection(host, port, happy_eyeballs_delay=0.25))
        except (OSError, UnicodeError) as error:
            raise httpcore.ConnectError(str(error)) from error


class PlainStream(httpcore.AsyncNetworkStream):
    """One of its connections."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        """Empty at the end. Raises ReadError."""
        try:
            return await self._reader.read(max_bytes)
        except OSError as error:
            raise httpcore.ReadError(str(error)) from error

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:
        """Raises WriteError."""
        if not buffer:
            return
        try:
            self._writer.write(buffer)
            await self._writer.drain()
        except OSError as error:
            raise httpcore.WriteError(str(error)) from error

    async def aclose(self) -> None:
        """At once: nothing that we still had to say matters."""
        self._writer.transport.abort()
        await asyncio.sleep(0)

    def get_extra_info(self, info: str) -> Any:
        """What httpcore asks: there is no TLS."""
        return None
