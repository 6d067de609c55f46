"""What a Slurm source's settings may say, beyond their types: pure, and light enough for the start."""

from __future__ import annotations

from collections.abc import Iterator
from urllib.parse import SplitResult, urlsplit

from coldaisle.sources.prometheus.configuration import Mistake
from coldaisle.sources.settings import SlurmSettings
from coldaisle.sources.text import is_loopback, valid_host_name

_WAYS = (
    'write via = "local", "ssh:login1", "https://rest.example.org:6820", or the path of slurmrestd\'s socket'
)
_TOKENS = ("token_file", "token_env", "token_command")
_OF_SSH = ("identity", "jump", "ssh_config", "known_hosts")


def mistakes(source: SlurmSettings) -> Iterator[Mistake]:
    """Everything that is wrong with these settings."""
    is_ssh = source.via.startswith("ssh:")
    is_rest = source.via.startswith(("/", "http://", "https://"))
    tokens = [key for key in (*_TOKENS, "user") if getattr(source, key)]
    if len(set(tokens) - {"user"}) > 1:
        yield Mistake(tokens[1], f"{tokens[0]} and {tokens[1]}: one token is enough", "keep one of them")
    if is_ssh:
        yield from _in_login(source.via.removeprefix("ssh:"))
    elif is_rest:
        yield from _in_address(source)
    elif source.via != "local":
        yield Mistake("via", f"via: {source.via!r:.80} is no way to Slurm", _WAYS)
    if not is_rest and tokens:
        yield Mistake(tokens[0], f"{tokens[0]}: only slurmrestd takes a token", "remove it")
    if source.user and not (source.user.isascii() and source.user.isprintable() and " " not in source.user):
        yield Mistake("user", "user: such a name cannot be sent", "write the name of the token's owner")
    for key in _OF_SSH:
        if getattr(source, key) and not is_ssh:
            yield Mistake(key, f"{key}: there is no login without SSH", 'write via = "ssh:login1"')
    if source.ca and not source.via.startswith("https:"):
        yield Mistake("ca", "ca: without TLS no certificate is shown", "write via as https://...")


def _in_login(written: str) -> Iterator[Mistake]:
    """``[user@]host[:port]``"""
    host = written.rpartition("@")[2]
    bare, _, port = host.rpartition(":") if host.count(":") == 1 else (host, "", "")
    user = written.rpartition("@")[0]
    is_user = not user or (user[0].isalnum() and all(char.isalnum() or char in "_.@\\+-$" for char in user))
    if not valid_host_name(bare.strip("[]")) or not is_user or (port and not port.isdigit()):
        yield Mistake("via", f"via: {written!r:.80} is not a host name", "write ssh:[user@]host[:port]")


def _in_address(source: SlurmSettings) -> Iterator[Mistake]:
    if source.via.startswith("/"):
        return
    parts, host = _split(source.via)
    if parts.username is not None or parts.password is not None:
        remedy = "a secret does not stand in this file: use token_file, token_env or token_command"
        yield Mistake("via", f"via: the URL of {host} holds a user or password", remedy)
    elif not valid_host_name(host):
        yield Mistake("via", f"via: {source.via!r:.80} is not the address of a server", _WAYS)
    elif parts.path.strip("/") or parts.query or parts.fragment:
        bare = f"{parts.scheme}://{parts.netloc}"
        yield Mistake("via", "via: the address of a page, not of a server", f"write {bare!r:.120}")
    elif parts.scheme == "http" and not (is_loopback(host) or source.insecure):
        remedy = "write via as https://..., or allow it with insecure = true"
        yield Mistake("via", f"via: the token would travel to {host} in the clear", remedy)


def _split(url: str) -> tuple[SplitResult, str]:
    """The URL in parts, and its host; an empty host: it is none."""
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError:
        return urlsplit(""), ""
    return parts, parts.hostname or ""
