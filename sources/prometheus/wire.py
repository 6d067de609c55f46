"""One question over HTTP and its answer, bounded in time and bytes."""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import httpx

from coldaisle.sources.errors import AccessDenied, Garbled, Unusable
from coldaisle.sources.http_errors import same_place, unpacker
from coldaisle.sources.prometheus.access import Access
from coldaisle.sources.prometheus.problems import OUR_CERTIFICATE, too_large, transport_problem
from coldaisle.sources.settings import PrometheusSettings
from coldaisle.sources.text import is_loopback

REDIRECTS = 3
REMEDY = "give the address that answers by itself; a login page needs a token"

Parameters = Sequence[tuple[str, str]]


class Reply(NamedTuple):
    """What came back, unpacked."""

    status: int
    headers: Mapping[str, str]
    """By lower-case name."""
    body: bytes


class Wire:
    """To one server; ``connections`` are kept at most."""

    def __init__(self, settings: PrometheusSettings, access: Access, connections: int) -> None:
        self._access = access
        self._seconds = settings.timeout
        self._limits = httpx.Limits(max_connections=connections, max_keepalive_connections=connections)
        self._client: httpx.AsyncClient | None = None
        self._making = asyncio.Lock()
        host = httpx.URL(settings.url).host
        # packing costs the server more than sending to itself
        self._encoding = "identity" if is_loopback(host) else "gzip"

    async def ask(
        self, url: str, parameters: Parameters, *, target: str, most: int, post: bool = False
    ) -> Reply:
        """GET or POST; redirects are followed within the server. Raises SourceError, ConfigError; TooLarge beyond ``most`` bytes.

        No longer than the time limit of a query, once it begins.
        """
        client = await self._connected()
        headers = {
            "Accept": "application/json",
            "Accept-Encoding": self._encoding,
            "User-Agent": "coldaisle",
            **await self._access.headers(),
        }
        try:
            for _ in range(REDIRECTS):
                request = (
                    client.build_request("POST", url, data=_form(parameters), headers=headers)
                    if post
                    else client.build_request("GET", url, params=list(parameters) or None, headers=headers)
                )
                response = await client.send(request, stream=True)
                try:
                    if not response.is_redirect:
                        return await _reply(response, target, most)
                    url = same_place(target, url, response.headers.get("location", ""), REMEDY)
                    parameters = parameters if post or "?" not in url else ()
                finally:
                    await response.aclose()
        except httpx.HTTPError as error:
            raise transport_problem(target, error, self._seconds) from error
        except (httpx.InvalidURL, UnicodeError):
            raise Unusable(target, "its address cannot be used", "check the url") from None
        raise Unusable(target, "redirects in circles", REMEDY)

    async def aclose(self) -> None:
        """End the connections; the next question makes new ones."""
        client, self._client = self._client, None
        if client is not None:
            await client.aclose()

    async def _connected(self) -> httpx.AsyncClient:
        async with self._making:
            if self._client is None:
                self._client = await asyncio.to_thread(self._access.client, self._limits)
            return self._client


def _form(parameters: Parameters) -> dict[str, list[str]]:
    form: dict[str, list[str]] = {}
    for name, value in parameters:
        form.setdefault(name, []).append(value)
    return form


async def _reply(response: httpx.Response, target: str, most: int) -> Reply:
    unpack = unpacker(target, response.headers.get("content-encoding", "").strip().lower())
    chunks: list[bytes] = []
    size = 0
    try:
        async for chunk in response.aiter_raw():
            part = unpack(chunk, most - size + 1)
            size += len(part)
            if size > most:
                raise too_large(target, most)
            chunks.append(part)
    except zlib.error:
        raise Garbled(target, "the answer is not packed as it says (gzip)", "look at its proxy") from None
    _want_certificate(response, target, chunks)
    return Reply(response.status_code, response.headers, b"".join(chunks))


def _want_certificate(response: httpx.Response, target: str, chunks: Sequence[bytes]) -> None:
    """nginx says it so, with HTML and status 400."""
    if response.status_code == 400 and any(b"SSL certificate" in chunk for chunk in chunks[:2]):
        raise AccessDenied(target, "wants a certificate of ours (HTTP 400)", OUR_CERTIFICATE)
