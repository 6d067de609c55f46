"""Where the API is, whether POST is taken, and what kind of server it is: found out, not asked."""

import json
from collections.abc import Callable, Iterator

import pytest
from lab.front import Front, Request, front, reply, vector
from lab.prometheus import Server, prometheus

from coldaisle.sources.errors import AccessDenied, SourceError, Unusable
from coldaisle.sources.prometheus.answers import Flavour
from coldaisle.sources.prometheus.api import Api
from coldaisle.sources.prometheus.places import base_of
from coldaisle.sources.settings import PrometheusSettings

ONE = vector('{"metric":{},"value":[1,"1"]}')
PROXY = "/api/datasources/proxy"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with prometheus(tmp_path_factory.mktemp("server")) as started:
        yield started


async def flavour_of(url: str) -> Flavour:
    api = Api(PrometheusSettings(url=url))
    try:
        return await api.flavour()
    finally:
        await api.aclose()


async def refusal(kind: type[SourceError], url: str) -> SourceError:
    with pytest.raises(kind) as caught:
        await flavour_of(url)
    assert caught.value.remedy
    return caught.value


@pytest.mark.parametrize("prefix", ["", "/prometheus", "/select/0/prometheus", "/monitoring/prom"])
@pytest.mark.parametrize("page", ["", "/", "/graph", "/api/v1/query"])
async def test_the_api_is_found_below_the_address(server: Server, prefix: str, page: str) -> None:
    async with front(Front(upstream=server.port, prefix=prefix)) as proxy:
        assert (await flavour_of(proxy.url + page)).name == "Prometheus"


@pytest.mark.parametrize("prefix", ["/prometheus", "/select/0/prometheus"])
async def test_the_usual_prefixes_need_not_be_given(server: Server, prefix: str) -> None:
    async with front(Front(upstream=server.port, prefix=prefix)) as proxy:
        assert (await flavour_of(proxy.url.removesuffix(prefix))).name == "Prometheus"


@pytest.mark.parametrize("status", [403, 405, 501])
async def test_where_post_is_refused_get_is_asked_for_good(server: Server, status: int) -> None:
    async with front(Front(upstream=server.port, refuse_post=status)) as proxy:
        api = Api(PrometheusSettings(url=proxy.url))
        for _ in range(3):
            assert (await api.instant("vector(7)", 1e9)).values[0] == 7.0
        await api.aclose()
        assert [one.method for one in proxy.requests].count("POST") == 1


async def test_post_may_be_refused_later(server: Server) -> None:
    async with front(Front(upstream=server.port)) as proxy:
        api = Api(PrometheusSettings(url=proxy.url))
        await api.instant("vector(7)", 1e9)
        proxy.refuse_post = 405
        proxy.requests.clear()
        for _ in range(3):
            assert (await api.instant("vector(7)", 1e9)).values[0] == 7.0
        assert [one.method for one in proxy.requests].count("POST") == 1
        await api.aclose()


async def test_an_address_without_an_api(server: Server) -> None:
    async with front(Front(upstream=server.port, prefix="/deep/down")) as proxy:
        error = await refusal(Unusable, f"http://127.0.0.1:{proxy.port}")
    assert "no Prometheus API" in error.problem
    assert "/select/0/prometheus" in error.problem


@pytest.mark.parametrize(
    ("url", "base"),
    [
        ("http://prom:9090/", "http://prom:9090"),
        ("https://h/prometheus/graph", "https://h/prometheus"),
        ("https://h/api/v1", "https://h"),
        ("https://h/select/0/vmui/", "https://h/select/0"),
        ("https://grafana/d/abc/gpus", "https://grafana"),
        ("https://h/api/datasources/proxy/uid/abc", "https://h/api/datasources/proxy/uid/abc"),
        ("https://h/d-prom", "https://h/d-prom"),
    ],
)
def test_pages_that_are_copied_with_the_address(url: str, base: str) -> None:
    assert base_of(url) == base


# ---- flavours that have no Debian package


def answers(**bodies: tuple[int, object]) -> Callable[[Request], bytes]:
    """A server that answers queries, and these paths (``status_buildinfo``)."""

    def answer(request: Request) -> bytes:
        name = request.path.removeprefix("/api/v1/").strip("/").replace("/", "_")
        if name in bodies:
            status, body = bodies[name]
            return reply(status, body if isinstance(body, str) else json.dumps(body))
        return reply(200, ONE) if name == "query" else reply(404)

    return answer


def success(data: object) -> tuple[int, object]:
    return 200, {"status": "success", "data": data}


GO = {"goVersion": "go1.22", "revision": "abc"}


@pytest.mark.parametrize(
    ("answer", "flavour"),
    [
        (answers(status_buildinfo=success({"version": "3.5.0", **GO})), Flavour("Prometheus", "3.5.0")),
        (
            answers(status_buildinfo=success({"application": "Grafana Mimir", "version": "2.14.1", **GO})),
            Flavour("Mimir", "2.14.1"),
        ),
        (
            answers(status_buildinfo=success({"version": "0.37.2", **GO}), stores=success({"sidecar": []})),
            Flavour("Thanos", "0.37.2"),
        ),
        (
            answers(
                status_buildinfo=success({"version": "2.24.0"}),
                metrics=(200, 'vm_app_version{version="victoria-metrics-20250101-tags-v1.108.1-0-g1"} 1\n'),
            ),
            Flavour("VictoriaMetrics", "1.108.1"),
        ),
        (answers(), Flavour("Prometheus-compatible")),
        (answers(status_buildinfo=(403, "no")), Flavour("Prometheus-compatible")),
        (answers(status_buildinfo=(200, "<html>sign in")), Flavour("Prometheus-compatible")),
        (
            answers(status_buildinfo=success({"application": "Other", "version": "\x1b[31m9"})),
            Flavour("Prometheus-compatible", "�9"),
        ),
    ],
)
async def test_flavours(answer: Callable[[Request], bytes], flavour: Flavour) -> None:
    async with front(Front(answer=answer)) as server:
        assert await flavour_of(server.url) == flavour


async def test_only_thanos_is_told_about_partial_answers() -> None:
    thanos = answers(status_buildinfo=success({"version": "0.37.2", **GO}), stores=success({}))
    other = answers(status_buildinfo=success({"version": "2.42.0", **GO}))
    for answer, told in ((thanos, "true"), (other, "")):
        async with front(Front(answer=answer)) as server:
            api = Api(PrometheusSettings(url=server.url))
            await api.instant("up", 1e9)
            assert server.requests[-1].asked("partial_response") == told
            assert server.requests[-1].asked("nocache") == ""
            await api.aclose()


# ---- Grafana


def grafana(
    server: Server, sources: list[dict[str, object]], *, lists: int = 200, settings: int = 200
) -> Front:
    """Grafana before a real Prometheus, with these data sources."""
    one = Front(upstream=server.port)

    def answer(request: Request) -> bytes | None:
        match request.path:
            case "/api/health":
                return reply(200, '{"commit":"abc","database":"ok","version":"11.2.0"}')
            case "/api/datasources":
                return reply(lists, json.dumps(sources) if lists == 200 else '{"message":"no"}')
            case "/api/frontend/settings":
                named = {str(source["name"]): source for source in sources}
                return reply(settings, json.dumps({"datasources": named}))
        for source in sources:
            prefix = f"{PROXY}/uid/{source['uid']}"
            if request.path.startswith(f"{prefix}/"):
                one.prefix = prefix  # what is forwarded is cut by it
                return None
        return reply(404, '{"message":"Not found"}')

    one.answer = answer
    return one


PROM = {"id": 1, "uid": "abc", "name": "Prometheus", "type": "prometheus"}
LOKI = {"id": 2, "uid": "xyz", "name": "Loki", "type": "loki"}


@pytest.mark.parametrize(("lists", "settings"), [(200, 500), (403, 200)])
async def test_grafanas_only_prometheus_is_found(server: Server, lists: int, settings: int) -> None:
    async with front(grafana(server, [PROM, LOKI], lists=lists, settings=settings)) as proxy:
        assert (await flavour_of(f"http://127.0.0.1:{proxy.port}/d/xyz/gpus")).name == "Prometheus"


async def test_the_address_of_a_data_source_works_as_it_is(server: Server) -> None:
    other = {**PROM, "uid": "def", "name": "Other"}
    async with front(grafana(server, [PROM, other])) as proxy:
        assert (await flavour_of(f"http://127.0.0.1:{proxy.port}{PROXY}/uid/def")).name == "Prometheus"


async def test_several_data_sources_are_named(server: Server) -> None:
    other = {**PROM, "uid": "def", "name": "Oth\x1b[31mer", "type": "grafana-amazonprometheus-datasource"}
    async with front(grafana(server, [PROM, other, LOKI])) as proxy:
        error = await refusal(Unusable, proxy.url)
        assert "Prometheus (UID abc), Oth�er (UID def)" in error.problem
        assert error.remedy == f"write url = {proxy.url}{PROXY}/uid/UID"


async def test_a_grafana_that_has_none_or_shows_none(server: Server) -> None:
    async with front(grafana(server, [LOKI])) as proxy:
        assert "without a Prometheus data source" in (await refusal(Unusable, proxy.url)).problem
    async with front(grafana(server, [PROM], lists=401, settings=401)) as proxy:
        error = await refusal(AccessDenied, proxy.url)
        assert "is Grafana" in error.problem
        assert "service account" in error.remedy
