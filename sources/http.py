"""One kept HTTP connection to one server: httpcore's, without the pool and the objects that httpx puts around it.

For a page of 45 kB every 2 s from each of 256 servers those cost as much as the requests themselves.
"""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterable, Mapping
from typing import NamedTuple

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
            self._open = httpcore.AsyncHTTPConnection(self._origin, ssl_context=self._tls)
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
