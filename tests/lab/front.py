"""What stands before a Prometheus server, or in its place: a reverse proxy with TLS and sign-in, or a faulty server.

::

    async with front(Front(upstream=server.port, prefix="/metrics", bearer="hunter2", tls=papers.server())):
    async with front(Front(answer=lambda request: reply(503, '{"status":"error", ...}'))):
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import ssl
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple
from urllib.parse import parse_qsl, urlsplit

from lab.serving import serving
from services import require

Writer = asyncio.StreamWriter


class Request(NamedTuple):
    """What was asked."""

    method: str
    target: str
    headers: dict[str, str]
    """By lower-case name."""
    body: bytes

    @property
    def path(self) -> str:
        return urlsplit(self.target).path

    @property
    def parameters(self) -> list[tuple[str, str]]:
        """Of the URL, and of the form."""
        return parse_qsl(urlsplit(self.target).query) + parse_qsl(self.body.decode("latin-1"))

    def asked(self, name: str) -> str:
        """A parameter, or nothing."""
        return next((value for key, value in self.parameters if key == name), "")


Answer = Callable[[Request], "bytes | Callable[[Writer], Awaitable[None]] | None"]
"""A whole answer, or how it is written; None: what stands behind answers."""


def reply(status: int, body: str | bytes = b"", type_: str = "application/json", extra: str = "") -> bytes:
    """A whole answer."""
    content = body.encode() if isinstance(body, str) else body
    head = f"HTTP/1.1 {status} So\r\nContent-Type: {type_}\r\n{extra}Content-Length: {len(content)}\r\n\r\n"
    return head.encode() + content


def vector(*series: str, extra: str = "") -> str:
    """The JSON of an instant answer: ``{"a":"b"}`` and value as ``'{"metric":{},"value":[1,"2"]}'``."""
    result = ",".join(series)
    return f'{{"status":"success","data":{{"resultType":"vector","result":[{result}]}}{extra}}}'


def error(kind: str, text: str) -> str:
    """The JSON of an error."""
    return f'{{"status":"error","errorType":"{kind}","error":"{text}"}}'


@dataclass
class Front:
    """A server on loopback. What it is not told to check, it lets through."""

    upstream: int = 0
    """The port of the server behind; 0: there is none."""
    prefix: str = ""
    bearer: str = ""
    basic: str = ""
    """``user:password``."""
    refuse_post: int = 0
    """The status that a POST gets; 0: it is let through."""
    tls: ssl.SSLContext | None = None
    answer: Answer | None = None
    requests: list[Request] = field(default_factory=list)
    port: int = 0
    most: int = 0
    """Requests at a time, at most so far."""
    _now: int = 0

    @property
    def url(self) -> str:
        return f"{'https' if self.tls else 'http'}://127.0.0.1:{self.port}{self.prefix}"

    async def serve(self, reader: asyncio.StreamReader, writer: Writer) -> None:
        """One connection, kept alive."""
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError, ssl.SSLError):
            while True:
                request = await _request(reader)
                self.requests.append(request)
                self._now += 1
                self.most = max(self.most, self._now)
                try:
                    await self._respond(request, writer)
                finally:
                    self._now -= 1
        writer.close()

    async def _respond(self, request: Request, writer: Writer) -> None:
        answer = self._refusal(request) or (self.answer(request) if self.answer else None)
        if answer is None:
            answer = await self._forwarded(request) if self.upstream else reply(404, "nothing there")
        if isinstance(answer, bytes):
            writer.write(answer)
        else:
            await answer(writer)
        await writer.drain()

    def _refusal(self, request: Request) -> bytes | None:
        given = request.headers.get("authorization", "")
        wanted = f"Basic {base64.b64encode(self.basic.encode()).decode()}" if self.basic else ""
        wanted = f"Bearer {self.bearer}" if self.bearer else wanted
        if wanted and given != wanted:
            return reply(401, "<html>who are you?", "text/html", 'WWW-Authenticate: Bearer realm="prom"\r\n')
        if not request.path.startswith(f"{self.prefix}/"):
            return reply(404, "<html>nothing here", "text/html")
        if self.refuse_post and request.method == "POST":
            return reply(self.refuse_post, "<html>read only", "text/html")
        return None

    async def _forwarded(self, request: Request) -> bytes:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.upstream)
        target = request.target.removeprefix(self.prefix)
        kept = ("content-type", "accept-encoding", "x-scope-orgid")
        lines = [f"{name}: {request.headers[name]}" for name in kept if name in request.headers]
        head = [f"{request.method} {target} HTTP/1.1", f"Host: 127.0.0.1:{self.upstream}", *lines]
        head += [f"Content-Length: {len(request.body)}", "Connection: close", "", ""]
        writer.write("\r\n".join(head).encode() + request.body)
        answer = await reader.read()
        writer.close()
        status, _, rest = answer.partition(b"\r\n")
        return status + b"\r\n" + rest.replace(b"Connection: close\r\n", b"", 1)


async def _request(reader: asyncio.StreamReader) -> Request:
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    method, target, _ = head[0].split(" ", 2)
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in head[1:])}
    body = await reader.readexactly(int(headers.get("content-length", "0")))
    return Request(method, target, headers, body)


@contextlib.asynccontextmanager
async def front(one: Front) -> AsyncIterator[Front]:
    """The server for the length of a block; open connections end with it."""
    async with serving(one.serve, "127.0.0.1", one.port, one.tls) as one.port:
        yield one


@dataclass(frozen=True)
class Papers:
    """An authority of our own, with a certificate for the server at 127.0.0.1 and one for a client."""

    folder: Path

    def __post_init__(self) -> None:
        openssl = require("openssl")
        self.folder.mkdir(parents=True, exist_ok=True)
        new = [openssl, "req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2"]
        self._run([*new, "-x509", "-subj", "/CN=lab authority", "-keyout", "ca.key", "-out", "ca.pem"])
        signed = ["-x509", "-CA", "ca.pem", "-CAkey", "ca.key"]
        for name, alternative in (("server", "IP:127.0.0.1"), ("client", "DNS:client")):
            files = ["-keyout", f"{name}.key", "-out", f"{name}.pem"]
            own = [
                "-addext",
                "basicConstraints=critical,CA:FALSE",
                "-addext",
                f"subjectAltName={alternative}",
            ]
            self._run([*new, *signed, "-subj", f"/CN={name}", *own, *files])

    def __getitem__(self, name: str) -> str:
        """The path of one of its files: ``ca.pem``, ``client.pem``, ``client.key`` ..."""
        return str(self.folder / name)

    def server(self, *, wants_client: bool = False) -> ssl.SSLContext:
        """What the server speaks."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self["server.pem"], self["server.key"])
        if wants_client:
            context.load_verify_locations(self["ca.pem"])
            context.verify_mode = ssl.CERT_REQUIRED
        return context

    def _run(self, command: list[str]) -> None:
        done = subprocess.run(
            command, cwd=self.folder, capture_output=True, stdin=subprocess.DEVNULL, check=False
        )
        assert done.returncode == 0, done.stderr.decode()
