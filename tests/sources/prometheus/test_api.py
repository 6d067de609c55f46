"""The client against real servers: the same questions to Prometheus and to VictoriaMetrics."""

import asyncio
import math
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import numpy as np
import pytest
from lab.front import Front, front, reply
from lab.pages import Pages, dcgm_page, served
from lab.prometheus import Scraped, Server, openmetrics, prometheus, victoria_metrics

from coldaisle.sources.errors import Unreachable, Unusable
from coldaisle.sources.prometheus.answers import Matrix
from coldaisle.sources.prometheus.api import Api, Limits
from coldaisle.sources.settings import PrometheusSettings

START = 1_700_000_040
"""A multiple of a minute."""
MINUTES = 3_000
UTIL = "DCGM_FI_DEV_GPU_UTIL"
SERIES = {
    f'Hostname="n01",gpu="{gpu}"': [
        (START + 60 * minute, (gpu * 1000 + minute) / 8) for minute in range(gpu * 100, MINUTES)
    ]
    for gpu in range(4)
}
ODD = {
    f'kind="{kind}"': [(START, value)]
    for kind, value in {
        "nan": "NaN",
        "inf": "+Inf",
        "minus": "-Inf",
        "tiny": "5e-324",
        "many": "1.5e+300",
    }.items()
}
HISTORY = openmetrics(UTIL, SERIES) + openmetrics("odd", ODD)


@asynccontextmanager
async def api_of(url: str, limits: Limits | None = None, **settings: object) -> AsyncIterator[Api]:
    api = Api(PrometheusSettings(url=url, **settings), limits)  # type: ignore[arg-type]
    try:
        yield api
    finally:
        await api.aclose()


@pytest.fixture(scope="module", params=[prometheus, victoria_metrics])
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with request.param(tmp_path_factory.mktemp("server"), history=HISTORY, prefix="/under/here") as started:
        yield started


@pytest.fixture(scope="module")
def flavour(server: Server) -> str:
    return "VictoriaMetrics" if "victoria" in str(server.folder) else "Prometheus"


async def test_the_flavour_is_found_out(server: Server, flavour: str) -> None:
    async with api_of(server.url) as api:
        found = await api.flavour()
    assert found.name == flavour
    assert found.version[:1].isdigit() or flavour == "VictoriaMetrics"  # Debian's does not say


async def test_an_instant_is_what_the_raw_api_says(server: Server) -> None:
    at = START + 60 * 500 + 7.25
    async with api_of(server.url) as api:
        found = await api.instant(f"{UTIL} + 0.1", at)
        assert (await api.instant("odd", at)).labels == []
    raw = {labels["gpu"]: value for labels, value in server.rows(f"{UTIL} + 0.1", at)}
    assert {labels["gpu"]: value for labels, value in zip(found.labels, found.values, strict=True)} == raw
    assert set(raw) == {"0", "1", "2", "3"}
    assert found.warnings == ()


async def test_numbers_that_json_does_not_know(server: Server, flavour: str) -> None:
    async with api_of(server.url) as api:
        found = await api.instant("odd", START)
    values = {labels["kind"]: value for labels, value in zip(found.labels, found.values, strict=True)}
    if flavour == "Prometheus":  # VictoriaMetrics keeps neither
        assert math.isnan(values.pop("nan"))
        assert values["tiny"] == 5e-324
    assert (values["inf"], values["minus"], values["many"]) == (math.inf, -math.inf, 1.5e300)


async def test_a_scalar(server: Server) -> None:
    async with api_of(server.url) as api:
        found = await api.instant("scalar(vector(2)) * 21", START)
    assert (found.labels, found.values.tolist()) == ([{}], [42.0])


def row_of(matrix: Matrix, gpu: str) -> list[float]:
    row = next(row for row, labels in enumerate(matrix.labels) if labels["gpu"] == gpu)
    return list(matrix.values[row].tolist())


@pytest.mark.parametrize("shift", [0.0, 13.5])
async def test_a_range_in_pieces_is_what_was_stored(
    server: Server, shift: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("coldaisle.sources.prometheus.pieces.PIECE_BYTES", 40_000)
    begin = START + shift
    async with api_of(server.url) as api:
        found = await api.range(UTIL, begin, START + 60 * (MINUTES - 1) + shift, 60.0)
    assert found.times.tolist() == [begin + 60 * minute for minute in range(MINUTES)]
    assert len(found.labels) == 4
    for gpu in range(4):
        expected = [math.nan] * (100 * gpu) + [value for _, value in SERIES[f'Hostname="n01",gpu="{gpu}"']]
        assert np.array_equal(row_of(found, str(gpu)), expected, equal_nan=True)


async def test_more_points_than_a_server_gives_at_once(server: Server) -> None:
    async with api_of(server.url) as api:
        found = await api.range(f'{UTIL}{{gpu="0"}}', START, START + 60 * (MINUTES - 1), 5.0)
    assert found.times.shape == (12 * (MINUTES - 1) + 1,)
    assert row_of(found, "0")[::12] == [value for _, value in SERIES['Hostname="n01",gpu="0"']]


async def test_a_piece_that_proves_too_large_is_halved(server: Server) -> None:
    async with api_of(server.url, Limits(piece_bytes=3_000)) as api:
        found = await api.range(UTIL, START + 18_000, START + 18_000 + 60 * 59, 60.0)
    assert not np.isnan(found.values).any()
    assert found.values.shape == (4, 60)


async def test_an_answer_larger_than_the_limit_is_refused(server: Server) -> None:
    async with api_of(server.url, Limits(answer_bytes=200)) as api:
        with pytest.raises(Exception, match="larger than") as caught:
            await api.instant(UTIL, START + 30_000)
    assert "match" in caught.value.remedy  # type: ignore[attr-defined]


async def test_names_and_labels(server: Server) -> None:
    end = START + 60 * MINUTES
    async with api_of(server.url) as api:
        assert (await api.names("__name__", ['{__name__=~"DCGM_.*"}'], START, end)).names == (UTIL,)
        assert (await api.names("gpu", [UTIL, "odd"], START, end)).names == ("0", "1", "2", "3")
        assert set((await api.labels([UTIL], START, end)).names) == {"__name__", "Hostname", "gpu"}
        assert (await api.names("gpu", ["nothing_here"], START, end)).names == ()


async def test_a_query_that_cannot_be(server: Server) -> None:
    async with api_of(server.url) as api:
        with pytest.raises(Unusable) as caught:
            await api.instant(f"{UTIL}{{", START)
        assert await api.instant("vector(1)", START)
    assert "query" in caught.value.problem
    assert caught.value.target == server.url.removeprefix("http://")


async def test_the_servers_time(server: Server) -> None:
    async with api_of(server.url) as api:
        assert abs(await api.server_time() - time.time()) < 5.0


async def test_a_range_without_instants(server: Server) -> None:
    async with api_of(server.url) as api:
        found = await api.range(UTIL, START + 60, START, 60.0)
        assert found.values.shape == (0, 0)
        only = await api.range(UTIL, START, START, 60.0)
    assert only.values.tolist() == [[0.0]]


async def test_a_server_that_dies_and_returns(tmp_path: Path) -> None:
    with prometheus(tmp_path, history=HISTORY) as server:
        async with api_of(server.url) as api:
            assert len((await api.instant(UTIL, START)).labels) == 1
            server.kill()
            with pytest.raises(Unreachable, match="nothing listens there"):
                await api.instant(UTIL, START)
            server.start()
            assert len((await api.instant(UTIL, START)).labels) == 1


async def test_what_is_scraped_now_is_seen_now_whatever_the_server_hides(tmp_path: Path) -> None:
    async with served(Pages(dcgm_page("n01"))) as pages:
        with victoria_metrics(tmp_path, [Scraped([pages.target])], latency_offset="30s") as server:
            async with api_of(server.url) as api:

                async def seen() -> int:
                    await asyncio.to_thread(server.show)
                    return len((await api.instant(UTIL, await api.server_time())).labels)

                async with asyncio.timeout(20):
                    while await seen() < 8:
                        await asyncio.sleep(0.1)


async def test_four_questions_at_a_time(tmp_path: Path) -> None:
    with prometheus(tmp_path, history=HISTORY) as server:
        async with (
            front(Front(upstream=server.port)) as between,
            api_of(between.url) as api,
        ):
            found = await asyncio.gather(*(api.instant(UTIL, START + 60 * turn) for turn in range(40)))
            assert [vector.values[0] for vector in found] == [turn / 8 for turn in range(40)]
            assert 2 <= between.most <= 4
            queries = [request for request in between.requests if request.path.endswith("/query")]
            assert {request.method for request in queries} == {"POST"}
            assert {request.asked("timeout") for request in queries[1:]} == {"15s"}
            assert len([request for request in between.requests if "buildinfo" in request.path]) == 1


async def test_the_first_error_of_a_range_ends_it() -> None:
    def answer(request: object) -> bytes | None:
        asked = request.asked("start")  # type: ignore[attr-defined]
        if not asked:
            return reply(200, '{"status":"success","data":{"resultType":"scalar","result":[1,"1"]}}')
        if float(asked) < START + 60:
            values = ",".join(f'[{START + 60 * turn},"1"]' for turn in range(10))
            series = ",".join(f'{{"metric":{{"n":"{n}"}},"values":[{values}]}}' for n in range(2_000))
            return reply(200, f'{{"status":"success","data":{{"resultType":"matrix","result":[{series}]}}}}')
        return reply(503, '{"status":"error","errorType":"unavailable","error":"draining"}')

    async with front(Front(answer=answer)) as server, api_of(server.url) as api:
        with pytest.raises(Unreachable, match="draining"):
            await api.range("x", START, START + 60 * 1000, 60.0)
        pieces = [one for one in server.requests if one.path.endswith("query_range")]
        assert 2 <= len(pieces) <= 6
