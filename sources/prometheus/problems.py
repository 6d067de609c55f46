"""What a server, or what stands before it, does not do for us: as errors with a remedy."""

from __future__ import annotations

import re

import httpx

from coldaisle.sources.errors import (
    AccessDenied,
    Garbled,
    SourceError,
    TimedOut,
    Unreachable,
    Unusable,
)
from coldaisle.sources.http_errors import Problem, cause_of, no_connection, said_by, tls_problem
from coldaisle.sources.prometheus.decoding import Refused, refusal
from coldaisle.sources.text import plain

MAX_SAID = 200
"""Characters of a server's own words."""
SIGN_IN = "give what it asks for: token_file (a bearer token), or user and password_file"
OUR_CERTIFICATE = "it asks for a certificate: give cert and key"
CLOSED = "look at the server's log; if it speaks TLS, write https://, if it asks for a certificate, give cert and key"
WHICH_ADDRESS = "the url is the address of the server, with its path prefix if it has one"
_TOO_MUCH = re.compile(r"(?i)too many|exceed")
"""How servers say that a query touches more than they allow."""


class TooLarge(Garbled):
    """The answer is, or would be, more than we or the server take in one; a shorter range may not be."""


def too_large(target: str, limit: int) -> TooLarge:
    """Our own limit."""
    return TooLarge(
        target,
        f"the answer is larger than {limit / 1e6:.0f} MB, or has no end",
        "narrow what is asked with match",
    )


def refused(target: str, status: int, body: bytes) -> SourceError:
    """An answer with another status than 200."""
    told = refusal(body)
    said = f": {plain(told.text, MAX_SAID)}" if told and told.text else ""
    if status in (401, 403):
        return AccessDenied(target, f"refuses us (HTTP {status}){said}", SIGN_IN)
    if status == 407:
        return AccessDenied(target, "the proxy on the way refuses us (HTTP 407)", "see HTTPS_PROXY")
    if told is not None and (known := _of_kind(target, told, status)):
        return known
    return _of_status(target, status, said)


def failed(target: str, told: Refused) -> SourceError:
    """A body that says "error" with status 200."""
    return _of_kind(target, told, 200) or Unusable(target, f"cannot answer: {plain(told.text, MAX_SAID)}")


def _of_kind(target: str, told: Refused, status: int) -> SourceError | None:
    """By Prometheus's ``errorType``."""
    said = plain(told.text, MAX_SAID)
    if _TOO_MUCH.search(told.text) and status in (200, 400, 422):
        return TooLarge(target, f"finds the query too large: {said}", "narrow what is asked with match")
    match told.kind:
        case "timeout":
            return TimedOut(target, f"gave up on the query: {said}", "it is overloaded, or timeout is short")
        case "canceled":
            return TimedOut(target, f"was made to end the query: {said}", "look at the server's log")
        case "bad_data" | "400" if status in (200, 400):
            return Unusable(target, f"does not take the query: {said}", "see match and vocabulary")
        case "execution" | "422":
            return Unusable(
                target, f"cannot evaluate the query: {said}", "see vocabulary, or the server's log"
            )
    return None


def _of_status(target: str, status: int, said: str) -> SourceError:
    where = f"(HTTP {status}){said}"
    match status:
        case 400:
            remedy = "if it speaks TLS, write https://; " + WHICH_ADDRESS
            return Unusable(target, f"does not take our question {where}", remedy)
        case 404:
            return Unusable(target, f"has no Prometheus API there {where}", WHICH_ADDRESS)
        case 405 | 501:
            return Unusable(
                target, f"takes neither POST nor GET {where}", "let the proxy before it pass them"
            )
        case 413 | 414 | 431:
            return Unusable(target, f"finds our question too long {where}", "let its proxy pass POST")
        case 429:
            return Unusable(
                target, f"is asked too much {where}", "a longer interval, or a higher limit there"
            )
        case 502:
            return Unreachable(
                target, f"the proxy does not reach the server {where}", "is the server running?"
            )
        case 503:
            return Unreachable(target, f"is not ready, or overloaded {where}", "look at the server's log")
        case 504:
            return TimedOut(target, f"the proxy waited too long for the server {where}", "is it overloaded?")
    return Unusable(target, f"answered HTTP {status}{said}", "look at the server's log")


def transport_problem(target: str, error: Exception, seconds: float) -> SourceError:
    """httpx's errors in our tree."""
    if tls := tls_problem(error):
        if "CERTIFICATE_REQUIRED" in tls.problem or "HANDSHAKE_FAILURE" in tls.problem:
            return AccessDenied(target, tls.problem, OUR_CERTIFICATE)
        return tls._replace(remedy=_tls_remedy(tls)).of(target)
    if isinstance(error, httpx.ProxyError):
        return Unreachable(
            target, f"the proxy on the way refuses: {said_by(error)}", "see HTTPS_PROXY, NO_PROXY"
        )
    if isinstance(error, httpx.ConnectError):
        return no_connection(error, "is the server running, and the port open?").of(target)
    if isinstance(error, httpx.TimeoutException):
        return silent(target, seconds)
    if cause_of(error, ConnectionResetError) or "without sending a response" in str(error):
        return Unreachable(target, "closed the connection without an answer", CLOSED)
    if isinstance(error, httpx.RemoteProtocolError):
        return broken_off(target, error)
    return Unreachable(target, f"the connection broke: {said_by(error)}", "look at the server's log")


def silent(target: str, seconds: float) -> TimedOut:
    """Nothing, or not all, within the time."""
    remedy = "it hangs, is overloaded, or sends too slowly; timeout = ... gives it longer"
    return TimedOut(target, f"no whole answer within {seconds:g} s", remedy)


def broken_off(target: str, error: Exception) -> SourceError:
    """It ended in the middle of an answer, or says what is no HTTP."""
    if "incomplete" in str(error) or "without sending complete" in str(error):
        return Garbled(target, "the answer breaks off in its middle", "look at the server's log")
    return Garbled(target, f"broke the HTTP protocol: {said_by(error)}", WHICH_ADDRESS)


def _tls_remedy(tls: Problem) -> str:
    if "EOF" in tls.problem:
        return CLOSED
    return tls.remedy.replace("http://host:port", "the url as http://...")
