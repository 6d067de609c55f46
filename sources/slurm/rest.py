"""slurmrestd over HTTP, by TCP or by its Unix socket, in the newest version that both sides speak."""

from __future__ import annotations

import asyncio
import base64
import binascii
import os
import re
import ssl
import time
import zlib
from collections.abc import Mapping
from typing import NamedTuple
from urllib.parse import urlsplit

import httpx
import msgspec

from coldaisle.sources.errors import (
    AccessDenied,
    ConfigError,
    Garbled,
    SourceError,
    TimedOut,
    Unreachable,
    Unusable,
)
from coldaisle.sources.http_errors import cause_of, is_web_page, no_connection, said_by, unpacker
from coldaisle.sources.settings import SlurmSettings
from coldaisle.sources.slurm import json_answers, partitions
from coldaisle.sources.slurm.accounting import read_accounting
from coldaisle.sources.slurm.commands import MAX_ANSWER, MAX_SMALL
from coldaisle.sources.slurm.problems import TOKEN, problem_said
from coldaisle.sources.slurm.records import Diagnosis, Jobs, Nodes, Partitions, SlurmJob, Topology
from coldaisle.sources.text import is_loopback, plain
from coldaisle.sources.tokens import token_of

OLDEST, NEWEST = 36, 44
"""Versions that we can read."""
HAS_STATES = 41
"""From this version on there is ``jobs/state``: who is in which state, and no more."""
FULL_EVERY = 5
"""Times that a look at states alone may stand for all of it."""
JWT = "SLURM_JWT"
AT_ONCE_S = 3.0
"""slurmrestd tries for longer to reach a slurmctld that is not there."""
_UNSPECIFIED = -1
_NOTHING_NEW = (1900, 304)
"""SLURM_NO_CHANGE_IN_DATA, and HTTP's own word for it."""


class _Reply(NamedTuple):
    status: int
    body: bytes
    took_s: float


class _State(msgspec.Struct):
    job_id: int
    state: object = None


class _States(msgspec.Struct):
    jobs: list[_State] | None = None


class Rest:
    """A door (see :class:`~coldaisle.sources.slurm.door.Door`).

    Raises ConfigError where the token would travel in the clear.
    """

    def __init__(self, settings: SlurmSettings) -> None:
        self._settings = settings
        self._socket = settings.via if settings.via.startswith("/") else None
        self._url = "http://slurmrestd" if self._socket else settings.via.rstrip("/")
        self.target = self._socket or self._url
        self.what = "slurmrestd"
        host = urlsplit(self._url).hostname or ""
        is_near = self._socket is not None or is_loopback(host)
        if not (is_near or self._url.startswith("https:") or settings.insecure):
            raise ConfigError(
                f"the token would go to {host} in clear text", "use https://, or set insecure = true"
            )
        self._is_near = is_near
        self._client: httpx.AsyncClient | None = None
        self._headers: Mapping[str, str] | None = None
        self._version = 0
        self._updated: float | None = None
        self._states: object = None
        self._skipped = 0
        self._has_worked = False

    async def jobs(self) -> Jobs | None:
        """All of it, where something has changed."""
        version = await self._known()
        states = await self._seen_states() if version >= HAS_STATES else None
        if states is not None and states == self._states and self._skipped < FULL_EVERY:
            self._skipped += 1
            return None
        since = {"update_time": str(int(self._updated))} if self._updated else {}
        reply = await self._get(f"/slurm/v0.0.{version}/jobs", since, MAX_ANSWER)
        if reply is None:
            return None
        jobs = await json_answers.read_jobs(reply, self.target)
        self._updated, self._states, self._skipped = jobs.updated, states, 0
        return jobs

    async def nodes(self) -> Nodes:
        """All of them."""
        return await json_answers.read_nodes(await self._ask("nodes", MAX_ANSWER), self.target)

    async def partitions(self) -> Partitions:
        """All of them."""
        return partitions.read_json(await self._ask("partitions", MAX_SMALL), self.target)

    async def diagnosis(self) -> Diagnosis:
        """``/diag``"""
        return json_answers.read_diagnosis(await self._ask("diag", MAX_SMALL), self.target)

    async def topology(self) -> Topology | None:
        """It does not tell, but for a word of each node in newer versions."""
        return None

    async def past(self, start: float, end: float) -> list[SlurmJob]:
        """Of slurmdbd, through slurmrestd."""
        version = await self._known()
        asked = {"start_time": f"uts{int(start)}", "end_time": f"uts{int(end)}"}
        reply = await self._get(f"/slurmdb/v0.0.{version}/jobs", asked, MAX_ANSWER)
        return read_accounting(reply or b"{}", self.target)

    async def aclose(self) -> None:
        """End the connections."""
        client, self._client = self._client, None
        if client is not None:
            await client.aclose()

    # --- asking -----------------------------------------------------------------------------------

    async def _known(self) -> int:
        """The newest version that both sides speak."""
        if self._version:
            return self._version
        reply = await self._get("/openapi/v3", {}, MAX_SMALL) or b""
        spoken = {
            int(found)
            for found in re.findall(rb"/slurm/v0\.0\.(\d{1,3})\\?/jobs", reply.replace(b"\\/", b"/"))
        }
        both = [version for version in spoken if OLDEST <= version <= NEWEST]
        if not both:
            said = ", ".join(f"v0.0.{one}" for one in sorted(spoken)[:5]) or "none"
            remedy = f"coldaisle reads v0.0.{OLDEST} to v0.0.{NEWEST}"
            raise Unusable(self.target, f"no version of its interface is known here (it has {said})", remedy)
        self._version = max(both)
        self.what = f"slurmrestd v0.0.{self._version}"
        return self._version

    async def _seen_states(self) -> object:
        """Who is in which state: a tenth of a percent of the whole answer. None: it does not say."""
        try:
            body = await self._ask("jobs/state", MAX_ANSWER)
            answer = msgspec.json.decode(body, type=_States)
        except (Unusable, Garbled, msgspec.MsgspecError):
            return None
        return sorted((one.job_id, str(one.state)) for one in answer.jobs or ())

    async def _ask(self, what: str, most: int) -> bytes:
        version = await self._known()
        return await self._get(f"/slurm/v0.0.{version}/{what}", {}, most) or b"{}"

    async def _get(self, path: str, parameters: Mapping[str, str], most: int) -> bytes | None:
        """The body; None: nothing has changed. A refusal reads the token again, once."""
        had_token = self._headers is not None
        reply = await self._once(path, parameters, most)
        if had_token and _is_refusal(reply):
            self._headers = None
            reply = await self._once(path, parameters, most)
        return self._checked(reply, path)

    async def _once(self, path: str, parameters: Mapping[str, str], most: int) -> _Reply:
        if self._headers is None:
            self._headers = await asyncio.to_thread(self._read_headers)
        if self._client is None:
            self._client = await asyncio.to_thread(self._connect)
        began = time.monotonic()
        try:
            async with (
                asyncio.timeout(self._settings.timeout),
                self._client.stream(
                    "GET", f"{self._url}{path}", params=dict(parameters), headers=dict(self._headers)
                ) as response,
            ):
                body = await self._body(response, most)
                return _Reply(response.status_code, body, time.monotonic() - began)
        except TimeoutError:
            seconds = self._settings.timeout
            raise TimedOut(
                self.target, f"no answer within {seconds:.0f} s", "slurmctld is busy: see sdiag"
            ) from None
        except httpx.HTTPError as error:
            raise self._broken(error) from error

    async def _body(self, response: httpx.Response, most: int) -> bytes:
        unpack = unpacker(self.target, response.headers.get("content-encoding", "").strip().lower())
        chunks = []
        size = 0
        try:
            async for chunk in response.aiter_raw():
                part = unpack(chunk, most - size + 1)
                size += len(part)
                if size > most:
                    raise Garbled(self.target, f"more than {most // 1_000_000} MB", "see what answers there")
                chunks.append(part)
        except zlib.error:
            raise Garbled(
                self.target, "the answer is not packed as it says (gzip)", "look at its proxy"
            ) from None
        return b"".join(chunks)

    def _checked(self, reply: _Reply, path: str) -> bytes | None:
        problems = json_answers.problems_of(reply.body)
        if reply.status == 304 or any(one.number in _NOTHING_NEW for one in problems):
            return None
        if reply.status == 200 and not is_web_page(reply.body):
            self._has_worked = self._has_worked or "/slurm/" in path
            return reply.body
        if _is_refusal(reply):
            raise self._refused(reply, problems)
        if any("Nothing found" in str(one) for one in problems):
            return reply.body
        if reply.status == 500 and any(one.number == _UNSPECIFIED for one in problems):
            raise self._unspecified(reply, problems)
        if is_web_page(reply.body):
            raise Unusable(self.target, "a web page answers, not slurmrestd", "check the address")
        if reply.status == 404:
            raise Unusable(self.target, f"it has no {plain(path, 80)}", "see its /openapi/v3")
        said = "; ".join(map(str, problems[:3])) or plain(reply.body[:200], 120)
        raise problem_said(self.target, f"HTTP {reply.status}: {said}")

    def _unspecified(self, reply: _Reply, problems: list[json_answers.Problem]) -> SourceError:
        """What 22.05 says of a bad token, at once, and of a silent slurmctld, after some seconds of trying."""
        expired = expiry_of((self._headers or {}).get("X-SLURM-USER-TOKEN", ""))
        is_expired = expired is not None and expired < time.time()
        if is_expired or (not self._has_worked and reply.took_s < AT_ONCE_S):
            return self._refused(reply, problems)
        said = "; ".join(map(str, problems[:2]))
        remedy = "run: scontrol ping; if slurmctld answers there, get a new token"
        return Unreachable(self.target, f"slurmctld does not answer slurmrestd ({said})", remedy)

    def _refused(self, reply: _Reply, problems: list[json_answers.Problem]) -> SourceError:
        token = (self._headers or {}).get("X-SLURM-USER-TOKEN", "")
        if not token:
            remedy = f"set token_file, token_env or token_command, or export {JWT} (scontrol token)"
            return AccessDenied(self.target, f"it wants a token (HTTP {reply.status})", remedy)
        said = "; ".join(map(str, problems[:2])) or f"HTTP {reply.status}"
        expired = expiry_of(token)
        if expired is not None and expired < time.time():
            ago = time.time() - expired
            return AccessDenied(self.target, f"the token expired {_ago(ago)} ago ({said})", TOKEN)
        return AccessDenied(self.target, f"it does not take the token: expired, or wrong ({said})", TOKEN)

    def _broken(self, error: httpx.HTTPError) -> SourceError:
        if isinstance(error, httpx.ConnectError):
            if self._socket and cause_of(error, FileNotFoundError):
                return Unreachable(
                    self.target, "there is no such socket", "see that slurmrestd runs, and where"
                )
            if self._socket and cause_of(error, PermissionError):
                return AccessDenied(self.target, "its socket may not be opened by you", "see its permissions")
            return no_connection(error, "see that slurmrestd runs there").of(self.target)
        return Unreachable(
            self.target, f"the connection broke: {said_by(error)}", "slurmrestd may have ended"
        )

    def _read_headers(self) -> Mapping[str, str]:
        settings = self._settings
        is_configured = settings.token_file or settings.token_env or settings.token_command
        token = token_of(settings) if is_configured else os.environ.get(JWT, "").strip()
        headers = {"Accept": "application/json", "Accept-Encoding": "identity" if self._is_near else "gzip"}
        headers["User-Agent"] = "coldaisle"
        if not token:
            return headers
        if not (token.isascii() and token.isprintable()):
            raise ConfigError(
                f"{JWT}: that is no token", "export what scontrol token prints behind SLURM_JWT="
            )
        token = token.removeprefix(f"{JWT}=")
        headers["X-SLURM-USER-TOKEN"] = token
        user = settings.user or owner_of(token)
        if user:
            headers["X-SLURM-USER-NAME"] = user
        return headers

    def _connect(self) -> httpx.AsyncClient:
        limits = httpx.Limits(max_connections=1, max_keepalive_connections=1)
        transport = httpx.AsyncHTTPTransport(uds=self._socket, limits=limits) if self._socket else None
        verify: ssl.SSLContext | bool = False
        if self._url.startswith("https:"):
            try:
                verify = ssl.create_default_context(cafile=self._settings.ca)
            except (OSError, ssl.SSLError):
                raise ConfigError(
                    f"ca {self._settings.ca}: cannot be read", "it is a file in PEM format"
                ) from None
        return httpx.AsyncClient(
            verify=verify,
            transport=transport,
            limits=limits,
            timeout=None,
            follow_redirects=False,
            trust_env=not self._is_near,
        )


def _is_refusal(reply: _Reply) -> bool:
    """401 and 403; and what 22.05 makes of a bad token: 500 with a word of authentication."""
    if reply.status in (401, 403, 511):
        return True
    problems = " ".join(map(str, json_answers.problems_of(reply.body))) or reply.body[:500].decode(
        "utf-8", "replace"
    )
    return (
        reply.status >= 400
        and re.search(r"(?i)authenticat|auth.{0,12}(?:fail|error)|token", problems) is not None
    )


def _claims(token: str) -> Mapping[str, object]:
    """What a JWT says of itself; nothing where it is none. It is not checked: that is Slurm's business."""
    parts = token.split(".")
    if len(parts) != 3:
        return {}
    try:
        raw = base64.urlsafe_b64decode(parts[1][:8192] + "=" * (-len(parts[1]) % 4))
        found = msgspec.json.decode(raw)
    except (binascii.Error, ValueError, msgspec.MsgspecError):
        return {}
    return found if isinstance(found, dict) else {}


def owner_of(token: str) -> str:
    """Whose token it is; empty: it does not say, or says what no header can hold."""
    claims = _claims(token)
    name = claims.get("sun") or claims.get("username") or ""
    is_fine = isinstance(name, str) and name.isascii() and name.isprintable() and len(name) < 256
    return str(name) if is_fine else ""


def expiry_of(token: str) -> float | None:
    """When it ends to be valid."""
    at = _claims(token).get("exp")
    return float(at) if isinstance(at, int | float) and not isinstance(at, bool) else None


def _ago(seconds: float) -> str:
    return (
        f"{seconds:.0f} s"
        if seconds < 120
        else f"{seconds / 60:.0f} min"
        if seconds < 7200
        else f"{seconds / 3600:.0f} h"
    )
