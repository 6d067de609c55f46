"""What a Prometheus source's settings may say, beyond their types: pure, and light enough for the start."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple
from urllib.parse import SplitResult, urlsplit

from coldaisle.sources.settings import PrometheusSettings
from coldaisle.sources.text import is_loopback, valid_host_name

MAX_EXPRESSION = 500
"""Characters of a regular expression; it runs on names."""
MATCHER = re.compile(r'\s*([A-Za-z_][A-Za-z0-9_]*)\s*(=~|!~|!=|=)\s*("(?:[^"\\\n]|\\.)*")\s*')
"""One label matcher as PromQL has it."""
_MATCHERS = re.compile(rf"{MATCHER.pattern}(?:,{MATCHER.pattern})*,?\s*")
_HEADER = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,100}")
_OURS = (
    "accept", "accept-encoding", "connection", "content-encoding", "content-length", "content-type", "host",
    "te", "transfer-encoding", "upgrade",
)  # fmt: skip
"""Headers that the protocol needs as they are."""
_SECRET_HEADER = re.compile(r"(?i)authorization|cookie|token|secret|password|api-?key")


class Mistake(NamedTuple):
    """One setting that cannot be."""

    setting: str
    problem: str
    remedy: str


def mistakes(source: PrometheusSettings) -> Iterator[Mistake]:
    """Everything that is wrong with these settings."""
    yield from _in_url(source)
    yield from _in_secrets(source)
    yield from _in_certificates(source)
    yield from _in_headers(source)
    yield from _in_proxy(source.proxy)
    yield from _in_matchers(source.match)
    for one in source.rewrite:
        yield from _in_rewrite(one.match, one.to)


def matchers(text: str) -> list[str] | None:
    """``a="1", b=~"2"`` as two matchers without spaces around their parts; None: it is something else."""
    if not _MATCHERS.fullmatch(text):
        return None
    return ["".join(one.groups()) for one in MATCHER.finditer(text)]


def group_references(text: str) -> str:
    """``$1`` and ``${1}``, as relabelling rules have them, as Python has them: ``\\\\g<1>``."""
    return re.sub(r"\$(?:(\d+)|\{(\w+)\})", lambda found: rf"\g<{found[1] or found[2]}>", text)


def _split(url: str) -> tuple[SplitResult, str]:
    """The URL in parts, and its host; an empty host: it is none."""
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError:
        return urlsplit(""), ""
    return parts, parts.hostname or ""


def _in_url(source: PrometheusSettings) -> Iterable[Mistake]:
    parts, host = _split(source.url)
    if parts.username is not None or parts.password is not None:
        remedy = "a secret does not stand in this file: use user and password_file, or token_file"
        yield Mistake("url", f"url: the URL of {host} holds a user or password", remedy)
    elif parts.scheme not in ("http", "https") or not valid_host_name(host):
        remedy = 'write "http://prom:9090" or "https://metrics.example.org/prometheus"'
        yield Mistake("url", f"url: {source.url!r:.80} is not the address of a server", remedy)
    elif parts.query or parts.fragment:
        bare = parts._replace(query="", fragment="").geturl()
        yield Mistake("url", "url: the address of a page, not of a server", f"write {bare!r:.120}")


def _in_secrets(source: PrometheusSettings) -> Iterable[Mistake]:
    tokens = [key for key in ("token_file", "token_env", "token_command") if getattr(source, key)]
    passwords = [key for key in ("password_file", "password_env", "password_command") if getattr(source, key)]
    for ways, what in ((tokens, "token"), (passwords, "password")):
        if len(ways) > 1:
            yield Mistake(ways[1], f"{ways[0]} and {ways[1]}: one {what} is enough", "keep one of them")
    if tokens and source.user:
        yield Mistake("user", f"user and {tokens[0]}: a server takes one or the other", "keep one of them")
    if source.user and not passwords:
        remedy = "add password_file, password_env or password_command"
        yield Mistake("user", "user: basic authentication needs a password, too", remedy)
    if passwords and not source.user:
        yield Mistake(passwords[0], f"{passwords[0]}: whose password?", 'add user = "..."')
    if source.user and (":" in source.user or not source.user.isprintable()):
        yield Mistake("user", "user: such a name cannot be sent", "write it without colons")
    parts, host = _split(source.url)
    if source.has_secrets and parts.scheme != "https" and not is_loopback(host) and not source.insecure:
        remedy = "write the url as https://..., or allow it with insecure = true"
        what = "token" if tokens else "password" if passwords else "secret header"
        yield Mistake("url", f"url: the {what} would travel to {host} in the clear", remedy)


def _in_certificates(source: PrometheusSettings) -> Iterable[Mistake]:
    if source.key and not source.cert:
        yield Mistake("key", "key: whose certificate's?", 'add cert = "client.pem"')
    for setting in ("ca", "cert"):
        if getattr(source, setting) and not source.url.startswith("https:"):
            yield Mistake(
                setting, f"{setting}: without TLS no certificate is shown", "write the url as https://..."
            )


def _in_headers(source: PrometheusSettings) -> Iterable[Mistake]:
    for name, value in source.headers.items():
        if not _HEADER.fullmatch(name):
            yield Mistake("headers", f"headers: {name!r:.60} is no header's name", 'write "X-Scope-OrgID"')
        elif name.lower() in _OURS:
            yield Mistake("headers", f"headers: {name} is not yours to set", "remove it")
        elif not isinstance(value, str):
            if not value.env:
                yield Mistake("headers", f"headers: {name}: no variable's name", '{ env = "NAME" }')
        elif _SECRET_HEADER.search(name):
            remedy = f"a secret does not stand in this file: write {{ env = ... }} for {name}"
            yield Mistake("headers", f"headers: {name} holds a secret", remedy)
        elif not (value.isascii() and value.isprintable() and len(value) <= 4096):
            yield Mistake("headers", f"headers: {name}: such a value cannot be sent", "write plain ASCII")


def _in_proxy(proxy: str | None) -> Iterable[Mistake]:
    if proxy is None:
        return
    parts, host = _split(proxy)
    if parts.username is not None or parts.password is not None:
        remedy = "a secret does not stand in this file: give the proxy in HTTPS_PROXY"
        yield Mistake("proxy", "proxy: its URL holds a user or password", remedy)
    elif parts.scheme not in ("http", "https") or not valid_host_name(host):
        yield Mistake("proxy", f"proxy: {proxy!r:.80} is not a proxy", 'write "http://proxy:3128"')


def _in_matchers(texts: Iterable[str]) -> Iterable[Mistake]:
    for text in texts:
        if matchers(text) is None:
            remedy = "write them as PromQL has them: 'cluster=\"atlas\"'"
            yield Mistake("match", f"match: {text!r:.80} is no label matcher", remedy)


def _in_rewrite(match: str, to: str) -> Iterable[Mistake]:
    if len(match) > MAX_EXPRESSION:
        yield Mistake("rewrite", f"rewrite: longer than {MAX_EXPRESSION} characters", "write it shorter")
        return
    try:
        re.compile(match).sub(to, "")
    except (re.error, IndexError) as error:
        remedy = r"""write { match = 'ip-(\d+)', to = 'n\1' }"""
        yield Mistake("rewrite", f"rewrite: {match!r:.60} to {to!r:.60}: {error}", remedy)


def prepared(setting: str, value: Any) -> Any:
    """What may be written in several ways, in one; what cannot be read is left for :func:`mistakes`."""
    if setting == "url" and isinstance(value, str) and value and "://" not in value:
        return f"http://{value}"
    if setting == "match":
        texts = [value] if isinstance(value, str) else value
        if isinstance(texts, list) and all(isinstance(text, str) for text in texts):
            return [one for text in texts for one in matchers(text) or [text]]
    if setting == "rewrite" and isinstance(value, list):
        return [_rewrite(one) for one in value]
    return value


def _rewrite(one: Any) -> Any:
    if isinstance(one, dict) and isinstance(one.get("to"), str):
        return one | {"to": group_references(one["to"])}
    return one
