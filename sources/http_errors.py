"""What goes wrong over HTTP, in the words of our errors: for exporters and for Prometheus-compatible servers."""

from __future__ import annotations

import socket
import ssl
import zlib
from collections.abc import Callable
from typing import NamedTuple, TypeVar

import httpx

from coldaisle.sources.errors import Garbled, SourceError, Unreachable, Unusable

Failure = TypeVar("Failure", bound=BaseException)

TRUST = (
    "add the authority that signed it to the system's, or name its file: "
    'ca = "ca.pem" of the source in the configuration, or SSL_CERT_FILE=...'
)


class Problem(NamedTuple):
    """An error before its target is known."""

    error: type[SourceError]
    problem: str
    remedy: str

    def of(self, target: str) -> SourceError:
        """The error itself."""
        return self.error(target, self.problem, self.remedy)


def same_place(target: str, url: str, location: str, remedy: str) -> str:
    """Where a redirect leads, if that is the same server. Raises Unusable."""
    try:
        old, new = httpx.URL(url), httpx.URL(url).join(location)
    except httpx.InvalidURL:
        raise Unusable(target, "redirects to something that is no address") from None
    if (old.scheme, old.host, old.port) != (new.scheme, new.host, new.port):
        raise Unusable(
            target,
            f"redirects to another server ({new.scheme}://{new.host[:80]}), which is not followed",
            remedy,
        )
    return str(new)


def unpacker(target: str, encoding: str) -> Callable[[bytes, int], bytes]:
    """A function (chunk, most bytes wanted) -> page bytes; zlib.error where it is not packed so."""
    if encoding in ("", "identity"):
        return lambda chunk, most: chunk[:most]
    if encoding not in ("gzip", "x-gzip"):
        raise Garbled(target, f"the page is packed as {encoding[:40]!r}, which was not asked for")
    unpack = zlib.decompressobj(wbits=31)
    return lambda chunk, most: unpack.decompress(chunk, max(1, most))


def no_connection(error: BaseException, remedy: str) -> Problem:
    """Why there is none."""
    if tls := tls_problem(error):
        return tls
    if cause_of(error, socket.gaierror) is not None:
        return Problem(Unreachable, "its name is not known", "check the spelling, DNS, or /etc/hosts")
    said = "nothing listens there" if cause_of(error, ConnectionRefusedError) is not None else said_by(error)
    return Problem(Unreachable, f"no connection: {said}", remedy)


def tls_problem(error: BaseException) -> Problem | None:
    """Where the connection stands and TLS does not; None: it is something else."""
    cause = cause_of(error, ssl.SSLError)
    if isinstance(cause, ssl.SSLCertVerificationError):
        said = inert(cause.verify_message or "not valid")
        return Problem(Unusable, f"its certificate is not trusted: {said}", TRUST)
    if isinstance(cause, ssl.SSLError) and cause.reason in ("WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE"):
        return Problem(Unusable, "it does not speak TLS", "write http://host:port")
    if isinstance(cause, ssl.SSLError):
        said = inert(cause.reason or str(cause))
        return Problem(Unusable, f"no TLS connection: {said}", "see what TLS it speaks")
    return None


def cause_of(error: BaseException | None, kind: type[Failure]) -> Failure | None:
    """The first of this kind among an error and what led to it."""
    while error is not None and not isinstance(error, kind):
        error = error.__cause__ or error.__context__
    return error


def is_web_page(body: bytes) -> bool:
    """Whether it is HTML."""
    return body[:256].lstrip().lower().startswith((b"<!doctype html", b"<html"))


def said_by(error: BaseException) -> str:
    """An error's own words, in one inert line."""
    return inert(str(error)) or type(error).__name__


def inert(text: str) -> str:
    """At most 120 characters that can only be seen."""
    return text.encode("unicode_escape").decode("ascii")[:120]
