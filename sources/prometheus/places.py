"""Where below the configured address the API is, whether it takes POST, and what kind of server answers.

::

    http://prom:9090              Prometheus, Thanos, VictoriaMetrics
    http://mimir/prometheus       found from http://mimir
    http://vm/select/0/prometheus found from http://vm (a VictoriaMetrics cluster)
    http://grafana                its only Prometheus data source, through its proxy
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple, Protocol
from urllib.parse import quote

import msgspec
from msgspec import Struct

from coldaisle.sources.errors import AccessDenied, Garbled, SourceError, Unusable
from coldaisle.sources.http_errors import is_web_page
from coldaisle.sources.prometheus.answers import Flavour
from coldaisle.sources.prometheus.decoding import Refused, answered, evaluated, refusal
from coldaisle.sources.prometheus.problems import WHICH_ADDRESS, failed, refused
from coldaisle.sources.prometheus.wire import Parameters, Reply
from coldaisle.sources.text import plain

PREFIXES = ("", "/prometheus", "/select/0/prometheus")
PROXY = "/api/datasources/proxy"
COMPATIBLE = "Prometheus-compatible"
_SHOWN = 6
"""Data sources that an error lists."""
_PAGES = re.compile(
    r"/(?:graph|query|targets|alerts|rules|config|flags|status|service-discovery|classic|vmui|explore"
    r"|dashboards?|d/[^?]*|api/v1(?:/.*)?)/?$"
)
"""What people copy from a browser besides the address."""
_SICK = (429, 500, 502, 503, 504)
_DATA_SOURCE = re.compile(r"prometheus|victoriametrics-(?:metrics-)?datasource|mimir")
_VM_METRIC = re.compile(rb"^vm_[a-z_]+[{ ]", re.MULTILINE)
_VM_VERSION = re.compile(rb'^vm_app_version\{[^}\n]*?version="([^"\n]*)"', re.MULTILINE)
_VM_NUMBER = re.compile(r"v?(\d+\.\d+\.\d+)")


class Place(NamedTuple):
    """Where questions go."""

    api: str
    """The URL down to ``/api/v1``."""
    post: bool
    """Whether POST is taken."""


class Asker(Protocol):
    """One request, as :meth:`.wire.Wire.ask` makes it."""

    async def __call__(self, url: str, parameters: Parameters = (), *, post: bool = False) -> Reply:
        """Raises SourceError."""
        ...


class _BuildInfo(Struct):
    application: str = ""
    version: str = ""
    revision: str = ""
    go_version: str = msgspec.field(name="goVersion", default="")


class _DataSource(Struct):
    name: str = ""
    type: str = ""
    uid: str = ""
    id: int | None = None


class _FrontendSettings(Struct):
    datasources: dict[str, _DataSource] = {}


class _Health(Struct):
    database: str
    version: str = ""


def base_of(url: str) -> str:
    """The address without a slash at its end, and without the page that was copied with it."""
    return _PAGES.sub("", url.rstrip("/")).rstrip("/")


async def find_place(ask: Asker, url: str, target: str) -> Place:
    """The API of the server that was configured. Raises SourceError."""
    base = base_of(url)
    found: list[SourceError] = []
    for candidate in _candidates(url.rstrip("/"), base):
        place = await _tried(ask, candidate, target)
        if isinstance(place, Place):
            return place
        found.append(place)
        if isinstance(place, AccessDenied):
            break
    if PROXY not in base and await _is_grafana(ask, base, target):
        return await _behind_grafana(ask, base, target)
    first = found[0]
    if isinstance(first, AccessDenied | Garbled) or len(found) == 1:
        raise first
    tried = ", ".join(f"{prefix or ''}/api/v1" for prefix in PREFIXES)
    raise Unusable(target, f"has no Prometheus API (looked for {tried})", WHICH_ADDRESS)


def _candidates(written: str, base: str) -> Sequence[str]:
    """As it was written first: a site's prefix may be called like a page."""
    prefixes = ("",) if PROXY in base else PREFIXES
    return tuple(dict.fromkeys([written, *(base + prefix for prefix in prefixes)]))


async def _tried(ask: Asker, base: str, target: str) -> Place | SourceError:
    """The API if it is there, else why not. Raises SourceError where looking elsewhere is of no use."""
    api = f"{base}/api/v1"
    error: SourceError = Unusable(target, "")
    for post in (True, False):
        reply = await ask(f"{api}/query", [("query", "1")], post=post)
        if reply.status == 200:
            try:
                evaluated(reply.body, target)
            except (Garbled, Refused) as problem:
                error = problem if isinstance(problem, Garbled) else failed(target, problem)
            else:
                return Place(api, post)
        else:
            error = refused(target, reply.status, reply.body)
        if reply.status in _SICK or (reply.status == 422 and refusal(reply.body)):
            raise error  # it is there, and has its reasons
        if reply.status in (401, 404, 407):
            break
    return error


async def _is_grafana(ask: Asker, base: str, target: str) -> bool:
    reply = await ask(f"{base}/api/health")
    try:
        msgspec.json.decode(reply.body, type=_Health)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return False
    return reply.status == 200


async def _behind_grafana(ask: Asker, base: str, target: str) -> Place:
    several = [one for one in await _data_sources(ask, base, target) if _DATA_SOURCE.search(one.type)]
    by_hand = f"write url = {base}{PROXY}/uid/UID"
    if not several:
        raise Unusable(target, "is Grafana without a Prometheus data source that we may see", by_hand)
    if len(several) > 1:
        shown = ", ".join(f"{plain(one.name, 40)} (UID {plain(one.uid, 40)})" for one in several[:_SHOWN])
        more = f" and {len(several) - _SHOWN} more" if len(several) > _SHOWN else ""
        raise Unusable(target, f"is Grafana with several data sources: {shown}{more}", by_hand)
    one = several[0]
    ways = [f"/uid/{quote(one.uid, safe='')}"] + ([f"/{one.id}"] if one.id is not None else [])
    found: list[SourceError] = []
    for way in ways:
        place = await _tried(ask, base + PROXY + way, target)
        if isinstance(place, Place):
            return place
        found.append(place)
    raise found[0]


async def _data_sources(ask: Asker, base: str, target: str) -> Sequence[_DataSource]:
    """As an editor may list them, else as anybody who may look at dashboards is told."""
    reply = await ask(f"{base}/api/datasources")
    try:
        if reply.status == 200:
            return msgspec.json.decode(reply.body, type=list[_DataSource])
        reply = await ask(f"{base}/api/frontend/settings")
        if reply.status == 200:
            settings = msgspec.json.decode(reply.body, type=_FrontendSettings)
            return [
                msgspec.structs.replace(one, name=one.name or name)
                for name, one in settings.datasources.items()
            ]
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise Garbled(target, "is Grafana, but its list of data sources cannot be read") from None
    remedy = f"give the token of a service account (token_file), or write url = {base}{PROXY}/uid/UID"
    raise AccessDenied(target, f"is Grafana, and shows us nothing (HTTP {reply.status})", remedy)


async def find_flavour(ask: Asker, place: Place, target: str) -> Flavour:
    """What kind of server it is, as far as it says. Raises Unreachable, TimedOut."""
    reply = await _optional(ask, f"{place.api}/status/buildinfo")
    info = _build_info(reply, target)
    if "Mimir" in info.application or "Enterprise Metrics" in info.application:
        return Flavour("Mimir", _shown(info.version))
    if reply is not None and "x-server-hostname" in reply.headers:
        return Flavour("VictoriaMetrics", await _vm_version(ask, place) or "")
    if info.go_version and not info.application and info.version[:2] in ("1.", "2.", "3."):
        return Flavour("Prometheus", _shown(info.version))
    if await _is_thanos(ask, place, target):
        return Flavour("Thanos", _shown(info.version))
    version = await _vm_version(ask, place)
    if version is not None:
        return Flavour("VictoriaMetrics", version)
    return Flavour(COMPATIBLE, _shown(info.version))


async def _optional(ask: Asker, url: str) -> Reply | None:
    """What a proxy may keep from us, or the server not know."""
    try:
        reply = await ask(url)
    except (AccessDenied, Garbled, Unusable):
        return None
    return reply if reply.status == 200 and not is_web_page(reply.body) else None


def _build_info(reply: Reply | None, target: str) -> _BuildInfo:
    if reply is None:
        return _BuildInfo()
    try:
        return msgspec.json.decode(answered(reply.body, target), type=_BuildInfo)
    except (Garbled, Refused, msgspec.DecodeError):
        return _BuildInfo()


async def _is_thanos(ask: Asker, place: Place, target: str) -> bool:
    reply = await _optional(ask, f"{place.api}/stores")
    if reply is None:
        return False
    try:
        return answered(reply.body, target).lstrip()[:1] == b"{"
    except (Garbled, Refused):
        return False


async def _vm_version(ask: Asker, place: Place) -> str | None:
    """From its own metrics; None: it is no VictoriaMetrics, or hides them."""
    reply = await _optional(ask, place.api.removesuffix("/api/v1") + "/metrics")
    if reply is None or not _VM_METRIC.search(reply.body):
        return None
    found = _VM_VERSION.search(reply.body)  # Debian's has none
    said = found[1].decode("utf-8", "replace") if found else ""
    number = _VM_NUMBER.search(said)
    return number[1] if number else _shown(said)


def _shown(version: str) -> str:
    return plain(version, 40)
