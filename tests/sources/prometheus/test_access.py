"""Sign-in, TLS, tenants and proxies: a real Prometheus behind a reverse proxy."""

import ssl
from collections.abc import Iterator
from pathlib import Path

import pytest
from lab.front import Front, Papers, Request, front, reply, vector
from lab.prometheus import Server, prometheus
from lab.sshd import free_port

from coldaisle.sources.errors import AccessDenied, ConfigError, SourceError, Unreachable, Unusable
from coldaisle.sources.prometheus.api import Api
from coldaisle.sources.settings import FromEnvironment, PrometheusSettings
from coldaisle.sources.trust import trusting

SECRET = "hunter2"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with prometheus(tmp_path_factory.mktemp("server")) as started:
        yield started


@pytest.fixture(scope="module")
def papers(tmp_path_factory: pytest.TempPathFactory) -> Papers:
    return Papers(tmp_path_factory.mktemp("papers"))


@pytest.fixture(autouse=True)
def no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)


async def seven(**settings: object) -> float:
    """What the server says that seven is."""
    api = Api(PrometheusSettings(**settings))  # type: ignore[arg-type]
    try:
        return float((await api.instant("vector(7)", 1_700_000_000.0)).values[0])
    finally:
        await api.aclose()


async def refusal(kind: type[SourceError], **settings: object) -> SourceError:
    """The error that it gets; no secret is in it."""
    with pytest.raises(kind) as caught:
        await seven(**settings)
    error = caught.value
    assert SECRET not in f"{error!r} {error} {error.remedy}"
    assert error.remedy
    return error


async def test_a_token_from_a_file_is_read_again_when_it_is_refused(
    server: Server, papers: Papers, tmp_path: Path
) -> None:
    file = tmp_path / "token"
    file.write_text(f"{SECRET}-old\n")
    file.chmod(0o600)
    behind = Front(upstream=server.port, bearer=f"{SECRET}-old", prefix="/prom", tls=papers.server())
    async with front(behind) as proxy:
        settings = PrometheusSettings(url=proxy.url, ca=papers["ca.pem"], token_file=str(file))
        api = Api(settings)
        assert (await api.instant("vector(7)", 1e9)).values[0] == 7.0
        proxy.bearer = f"{SECRET}-new"
        with pytest.raises(AccessDenied, match="HTTP 401"):
            await api.instant("vector(7)", 1e9)
        file.write_text(f"{SECRET}-new\n")
        assert (await api.instant("vector(7)", 1e9)).values[0] == 7.0
        assert SECRET not in repr(api)
        await api.aclose()


async def test_a_token_from_a_command_and_from_the_environment(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PROM_TOKEN", SECRET)
    async with front(Front(upstream=server.port, bearer=SECRET)) as proxy:
        assert await seven(url=proxy.url, token_command=("echo", SECRET)) == 7.0
        assert await seven(url=proxy.url, token_env="PROM_TOKEN") == 7.0
        assert "who are you" not in str(await refusal(AccessDenied, url=proxy.url))
        await refusal(AccessDenied, url=proxy.url, token_command=("echo", f"{SECRET}-other"))


async def test_user_and_password(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PROM_PASSWORD", SECRET)
    async with front(Front(upstream=server.port, basic=f"kim:{SECRET}", prefix="/a/b")) as proxy:
        assert await seven(url=proxy.url, user="kim", password_env="PROM_PASSWORD") == 7.0
        await refusal(AccessDenied, url=proxy.url, user="eve", password_env="PROM_PASSWORD")


async def test_a_wrong_token_is_not_tried_at_many_doors(server: Server) -> None:
    async with front(Front(upstream=server.port, bearer=SECRET)) as proxy:
        await refusal(AccessDenied, url=proxy.url, token_command=("echo", "wrong"))
        assert len([one for one in proxy.requests if one.headers.get("authorization")]) <= 4


async def test_an_authority_of_the_site(server: Server, papers: Papers) -> None:
    async with front(Front(upstream=server.port, tls=papers.server())) as proxy:
        assert await seven(url=proxy.url, ca=papers["ca.pem"]) == 7.0
        error = await refusal(Unusable, url=proxy.url)
        assert "certificate is not trusted" in error.problem
        assert "ca =" in error.remedy


async def test_a_certificate_of_ours(server: Server, papers: Papers) -> None:
    ours = {"ca": papers["ca.pem"], "cert": papers["client.pem"], "key": papers["client.key"]}
    strict = papers.server(wants_client=True)
    for version in (ssl.TLSVersion.TLSv1_3, ssl.TLSVersion.TLSv1_2):
        strict.maximum_version = version
        async with front(Front(upstream=server.port, tls=strict)) as proxy:
            assert await seven(url=proxy.url, **ours) == 7.0
            # the reason may be lost when the connection is reset
            error = await refusal(SourceError, url=proxy.url, ca=papers["ca.pem"])
            assert "cert and key" in error.remedy


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        ({"ca": "client.key"}, "ca .*: not a certificate"),
        ({"cert": "client.pem", "key": "server.key"}, "cert .*: not a certificate, or a key"),
        ({"cert": "client.pem", "key": "none.key"}, "cert .*: No such file"),
        ({"cert": "client.pem", "key": "locked.key"}, "its key is encrypted"),
    ],
)
async def test_files_that_are_no_certificates(papers: Papers, given: dict[str, str], problem: str) -> None:
    papers._run(["openssl", "ec", "-in", "client.key", "-aes128", "-passout", "pass:x", "-out", "locked.key"])
    files = {key: papers[name] for key, name in given.items()}
    with pytest.raises(ConfigError, match=problem) as caught:
        await seven(url="https://127.0.0.1:1", **files)
    assert "PEM" in caught.value.remedy


async def test_tls_where_there_is_none_and_none_where_it_is(server: Server, papers: Papers) -> None:
    error = await refusal(Unusable, url=f"https://127.0.0.1:{server.port}")
    assert "does not speak TLS" in error.problem
    async with front(Front(upstream=server.port, tls=papers.server())) as proxy:
        await refusal(SourceError, url=proxy.url.replace("https", "http"))


async def test_tenants_and_other_headers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PROM_KEY", SECRET)

    def answer(request: Request) -> bytes:
        right = (request.headers.get("x-scope-orgid"), request.headers.get("x-api-key")) == ("a|b", SECRET)
        return reply(200, vector('{"metric":{},"value":[1,"7"]}')) if right else reply(401)

    headers = {"X-Scope-OrgID": "a|b", "X-Api-Key": FromEnvironment("PROM_KEY")}
    async with front(Front(answer=answer)) as proxy:
        assert await seven(url=proxy.url, headers=headers) == 7.0
        monkeypatch.delenv("PROM_KEY")
        with pytest.raises(ConfigError, match="PROM_KEY is not set"):
            await seven(url=proxy.url, headers=headers)


@pytest.mark.parametrize("lead", [0, 180, 182, 184])
async def test_a_server_that_repeats_our_secret_is_not_repeated(
    lead: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PROM_TOKEN", SECRET)

    def answer(request: Request) -> bytes:
        said = f"no: {'x' * lead} {request.headers['authorization']}"
        return reply(422, f'{{"status":"error","errorType":"execution","error":"{said}"}}')

    async with front(Front(answer=answer)) as proxy:
        error = await refusal(SourceError, url=proxy.url, token_env="PROM_TOKEN")
    assert SECRET[:4] not in error.problem


@pytest.mark.parametrize(
    "secret",
    [
        {"token_env": "PROM_TOKEN"},
        {"user": "kim", "password_env": "PROM_TOKEN"},
        {"headers": {"X-Api-Key": FromEnvironment("PROM_TOKEN")}},
    ],
)
def test_secrets_never_travel_in_the_clear(secret: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match="clear text"):
        Api(PrometheusSettings(url="http://prom.example.org:9090", **secret))  # type: ignore[arg-type]
    Api(PrometheusSettings(url="http://prom.example.org", insecure=True, **secret))  # type: ignore[arg-type]
    Api(PrometheusSettings(url="http://prom.example.org", headers={"X-Scope-OrgID": "atlas"}))


async def test_a_redirect_elsewhere_takes_no_secret_with_it(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PROM_TOKEN", SECRET)
    async with front(Front(upstream=server.port)) as elsewhere:
        away = reply(302, extra=f"Location: {elsewhere.url}/api/v1/query\r\n")
        async with front(Front(answer=lambda _: away)) as proxy:
            error = await refusal(Unusable, url=proxy.url, token_env="PROM_TOKEN")
        assert "redirects to another server" in error.problem
        assert elsewhere.requests == []


async def test_a_redirect_within_the_server_is_followed(server: Server) -> None:
    def answer(request: Request) -> bytes | None:
        if request.path.startswith("/new/"):
            return reply(200, vector('{"metric":{},"value":[1,"7"]}'))
        return reply(308, extra=f"Location: /new{request.target}\r\n")

    async with front(Front(answer=answer)) as proxy:
        assert await seven(url=proxy.url) == 7.0
    async with front(Front(answer=lambda one: reply(302, extra=f"Location: {one.target}\r\n"))) as proxy:
        assert "circles" in (await refusal(Unusable, url=proxy.url)).problem


async def test_an_http_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    def answer(request: Request) -> bytes:
        assert request.target.startswith("http://prom.invalid:9090/api/v1/")
        return reply(200, vector('{"metric":{},"value":[1,"7"]}'))

    async with front(Front(answer=answer)) as proxy:
        # what a proxy is asked has no path of its own: the front's check of the prefix is passed
        proxy.prefix = ""
        assert await seven(url="http://prom.invalid:9090", proxy=proxy.url) == 7.0
        monkeypatch.setenv("HTTP_PROXY", proxy.url)
        assert await seven(url="http://prom.invalid:9090") == 7.0


async def test_this_machine_is_not_behind_the_environments_proxy(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", f"http://127.0.0.1:{free_port()}")
    assert await seven(url=server.url) == 7.0


async def test_a_proxy_that_refuses(papers: Papers, monkeypatch: pytest.MonkeyPatch) -> None:
    async with front(Front(answer=lambda _: reply(403))) as proxy:
        monkeypatch.setenv("HTTPS_PROXY", f"http://kim:{SECRET}@127.0.0.1:{proxy.port}")
        error = await refusal(Unreachable, url="https://prom.invalid")
    assert "proxy" in error.problem
    monkeypatch.setenv("HTTPS_PROXY", "socks5://127.0.0.1:1")
    with pytest.raises(ConfigError, match="proxy that the environment names"):
        await seven(url="https://prom.invalid")


def test_the_systems_authorities_are_trusted_by_default() -> None:
    assert trusting(None).verify_mode is ssl.CERT_REQUIRED
