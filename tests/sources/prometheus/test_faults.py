"""A server that misbehaves in every way there is: a clear error each, with bounded time and memory."""

import asyncio
import json
import resource
import ssl
import time
import zlib
from collections.abc import Awaitable, Callable

import httpx
import pytest
from lab.front import Front, Request, Writer, error, front, reply, vector

from coldaisle.sources.errors import AccessDenied, Garbled, SourceError, TimedOut, Unreachable, Unusable
from coldaisle.sources.prometheus.answers import Vector
from coldaisle.sources.prometheus.api import Api, Limits
from coldaisle.sources.prometheus.decoding import PARTIAL
from coldaisle.sources.prometheus.problems import OUR_CERTIFICATE, transport_problem
from coldaisle.sources.settings import PrometheusSettings

ONE = vector('{"metric":{},"value":[1,"1"]}')
Answer = bytes | Callable[[Writer], Awaitable[None]]


def good_until_asked(answer: Answer) -> Callable[[Request], Answer]:
    """A server that is found out like any other, and then answers ``up`` so."""

    def respond(request: Request) -> Answer:
        return answer if request.asked("query") == "up" else reply(200, ONE)

    return respond


async def asked(answer: Answer, limits: Limits | None = None, **settings: object) -> Vector:
    """What a server that answers so gives for ``up``; afterwards it must be asked again with success."""
    async with front(Front(answer=good_until_asked(answer))) as server:
        api = Api(PrometheusSettings(url=server.url, **settings), limits)  # type: ignore[arg-type]
        try:
            return await api.instant("up", 1e9)
        finally:
            assert (await api.instant("vector(1)", 1e9)).values.tolist() == [1.0]
            await api.aclose()


FAULTS = [
    (reply(400, error("bad_data", "parse error")), Unusable, "does not take the query: parse error", "vocab"),
    (reply(400, "what?", "text/plain"), Unusable, "our question (HTTP 400)", "https://"),
    (reply(401, "<html>", "text/html"), AccessDenied, "refuses us (HTTP 401)", "token_file"),
    (reply(403, '{"message":"no"}'), AccessDenied, "refuses us (HTTP 403)", "token_file"),
    (reply(401, error("", "no org id")), AccessDenied, "no org id", "token_file"),
    (reply(405), Unusable, "neither POST nor GET", "proxy"),
    (reply(414), Unusable, "too long (HTTP 414)", "POST"),
    (reply(422, error("execution", "many-to-many")), Unusable, "evaluate the query: many-to-many", "log"),
    (reply(422, error("execution", "would load too many samples")), Garbled, "too large: would", "match"),
    (reply(429, "slow down", "text/plain"), Unusable, "asked too much (HTTP 429)", "longer interval"),
    (reply(500, "oops", "text/plain"), Unusable, "HTTP 500", "log"),
    (reply(502, "<html>", "text/html"), Unreachable, "proxy does not reach", "running"),
    (reply(503, error("timeout", "query timed out")), TimedOut, "gave up on the query", "overloaded"),
    (reply(503, error("unavailable", "starting")), Unreachable, "starting", "log"),
    (reply(504), TimedOut, "the proxy waited too long", "overloaded"),
    (reply(200, error("execution", "x")), Unusable, "cannot evaluate", "vocabulary"),
    (reply(200, "<!DOCTYPE html><html>Sign in", "text/html"), Garbled, "web page", "address"),
    (reply(200, ONE[:-9]), Garbled, "breaks off", "address"),
    (reply(200, b"\x00\xff"), Garbled, "not the JSON", "address"),
    (reply(200), Garbled, "breaks off", "address"),
    (reply(200, ONE, extra="Content-Encoding: br\r\n"), Garbled, "packed as 'br'", ""),
    (reply(200, ONE, extra="Content-Encoding: gzip\r\n"), Garbled, "not packed as it says", "proxy"),
    (reply(302, extra="Location: http://[::\r\n"), Garbled, "Invalid URL", "address"),
    (reply(301, extra="Location: https://127.0.0.9/\r\n"), Unusable, "another server", "address"),
    (b"SSH-2.0-OpenSSH_9.2\r\n\r\n", Garbled, "broke the HTTP protocol", "address"),
    (b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\nConnection: close\r\n\r\n{", Garbled, "breaks off", "log"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("answer", "kind", "problem", "remedy"), FAULTS, ids=[f"{row[1].__name__}: {row[2]}" for row in FAULTS]
)
async def test_each_fault_is_told(answer: bytes, kind: type[SourceError], problem: str, remedy: str) -> None:
    async def closing(writer: Writer) -> None:
        writer.write(answer)
        writer.write_eof()

    is_whole = b"Content-Length" in answer and b"Connection: close" not in answer
    with pytest.raises(kind) as caught:
        await asked(answer if is_whole else closing)
    assert problem in caught.value.problem
    assert remedy in caught.value.remedy


async def test_404_means_that_another_server_may_stand_there_now() -> None:
    gone = [False]

    def answer(request: Request) -> bytes:
        return reply(404) if gone[0] else reply(200, ONE)

    async with front(Front(answer=answer)) as server:
        api = Api(PrometheusSettings(url=server.url))
        await api.instant("up", 1e9)
        gone[0] = True
        with pytest.raises(Unusable, match="no Prometheus API"):
            await api.instant("up", 1e9)
        gone[0] = False
        await api.instant("up", 1e9)
        assert len([one for one in server.requests if "buildinfo" in one.path]) == 2
        await api.aclose()


async def test_a_servers_words_are_inert_and_bounded() -> None:
    with pytest.raises(Unusable) as caught:
        await asked(reply(422, json.dumps({"status": "error", "errorType": "execution", "error": HOSTILE})))
    assert "\x1b" not in caught.value.problem
    assert len(caught.value.problem) < 300


HOSTILE = "\x1b]0;owned\x07" + "[red]x" * 10_000


async def test_partial_answers_say_so() -> None:
    body = vector('{"metric":{"a":"b"},"value":[1,"2"]}', extra=',"warnings":["store \\u001b[1mgone"]')
    found = await asked(reply(200, body))
    assert found.values.tolist() == [2.0]
    assert found.warnings == ("store �gone",)


async def test_victoria_metrics_has_its_own_word_for_partial() -> None:
    found = await asked(reply(200, ONE.replace('{"status"', '{"isPartial":true,"status"', 1)))
    assert found.warnings == (PARTIAL,)


async def test_a_question_may_be_given_up() -> None:
    async def silent(_: Writer) -> None:
        await asyncio.sleep(60)

    async with front(Front(answer=good_until_asked(silent))) as server:
        api = Api(PrometheusSettings(url=server.url))
        for _ in range(6):  # more than are asked at a time
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(api.instant("up", 1e9), 0.05)
        assert (await api.instant("vector(1)", 1e9)).values.tolist() == [1.0]
        await api.aclose()


async def test_a_slow_drip_ends_with_the_time_limit() -> None:
    async def drip(writer: Writer) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")
        while True:
            writer.write(b" ")
            await writer.drain()
            await asyncio.sleep(0.02)

    started = time.monotonic()
    with pytest.raises(TimedOut, match=r"no whole answer within 0.2 s"):
        await asked(drip, timeout=0.2)
    assert time.monotonic() - started < 15.0


async def test_a_silent_server_is_found_silent_once_for_all_who_ask() -> None:
    async def silent(_: Writer) -> None:
        await asyncio.sleep(60)

    async with front(Front(answer=lambda _: silent)) as server:
        api = Api(PrometheusSettings(url=server.url, timeout=0.2))
        found = await asyncio.gather(*(api.instant("up", 1e9) for _ in range(8)), return_exceptions=True)
        assert {type(one) for one in found} == {TimedOut}
        assert len(server.requests) == 1
        await api.aclose()


def endless(head: bytes, chunk: bytes) -> Callable[[Writer], Awaitable[None]]:
    async def write(writer: Writer) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n" + head)
        while True:
            writer.write(b"%x\r\n%s\r\n" % (len(chunk), chunk))
            await writer.drain()

    return write


async def test_an_endless_answer_is_ended_in_bounded_memory() -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(Garbled, match="larger than 32 MB, or has no end"):
        await asked(endless(b"\r\n", b'{"metric":{},"value":[1,"2"]},' * 4000))
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 150_000  # kB


async def test_an_answer_that_unpacks_to_much_is_ended_in_bounded_memory() -> None:
    pack = zlib.compressobj(1, wbits=31)
    packed = pack.compress(b" " * 300_000_000) + pack.flush()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(Garbled, match="larger than"):
        await asked(reply(200, packed, extra="Content-Encoding: gzip\r\n"))
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 150_000


async def test_a_server_that_closes_kept_connections() -> None:
    turns = [0]

    def answer(_: Request) -> Answer:
        async def closing(writer: Writer) -> None:
            turns[0] += 1
            writer.write(reply(200, ONE))
            await writer.drain()
            writer.close()

        return closing

    async with front(Front(answer=answer)) as server:
        api = Api(PrometheusSettings(url=server.url))
        for _ in range(5):
            assert (await api.instant("up", 1e9)).values.tolist() == [1.0]
        await api.aclose()


@pytest.mark.parametrize(
    ("url", "problem"),
    [
        ("http://127.0.0.1:1", "nothing listens there"),
        ("http://prom.invalid:9090", "its name is not known"),
    ],
)
async def test_nobody_there(url: str, problem: str) -> None:
    api = Api(PrometheusSettings(url=url))
    with pytest.raises(Unreachable, match=problem) as caught:
        await api.flavour()
    assert caught.value.remedy
    await api.aclose()


def test_a_server_that_wants_a_certificate_says_so() -> None:
    cause = ssl.SSLError(1, "[SSL: TLSV13_ALERT_CERTIFICATE_REQUIRED] tlsv13 alert certificate required")
    cause.reason = "TLSV13_ALERT_CERTIFICATE_REQUIRED"
    raised = httpx.ReadError("")
    raised.__cause__ = cause
    problem = transport_problem("prom:443", raised, 15.0)
    assert isinstance(problem, AccessDenied)
    assert problem.remedy == OUR_CERTIFICATE


async def test_nginx_asks_for_a_certificate_in_its_own_way() -> None:
    page = "<html><title>400 No required SSL certificate was sent</title>"
    with pytest.raises(AccessDenied) as caught:
        await asked(reply(400, page, "text/html"))
    assert caught.value.remedy == OUR_CERTIFICATE
