"""The configuration file: what it can say, and what every mistake in it is answered."""

import contextlib
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from coldaisle.sources import config, positions
from coldaisle.sources.config import Settings, load, load_default
from coldaisle.sources.errors import ConfigError
from coldaisle.sources.prometheus.configuration import matchers
from coldaisle.sources.racks import Placement
from coldaisle.sources.settings import (
    ExporterSettings,
    Flags,
    FromEnvironment,
    LocalSettings,
    PrometheusSettings,
    Rewrite,
    SimulatorSettings,
    SlurmSettings,
    SshSettings,
)
from coldaisle.sources.writing import render

FIXTURES = Path(__file__).parents[1] / "fixtures" / "config"

MISTAKES = [
    # file, line, problem, remedy
    ("syntax", 3, "not TOML: Invalid value (column 8)", "quotes"),
    ("unfinished", 2, "not TOML: Invalid value", "quotes"),
    ("duplicate_key", 2, "Cannot overwrite a value", "quotes"),
    ("unknown_top_level", 3, "no setting 'screens'", "did you mean screen?"),
    ("unknown_setting", 8, "no setting 'host' of a source of kind ssh", "did you mean hosts?"),
    ("unknown_in_table", 2, "no setting 'them' in [screen]", "did you mean theme?"),
    ("unknown_kind", 2, "no source has the kind 'exporter'", "did you mean exporters?"),
    ("no_kind", 2, "a source without a kind", "local, ssh, exporters, prometheus, slurm, simulator"),
    ("no_hosts", 1, "hosts is missing", 'add hosts = "r[01-16]n[01-04]"'),
    ("empty_hosts", 3, "nothing is listed", 'write "r[01-16]n[01-04]"'),
    ("bad_node_set", 3, "a bracket is missing in 'login[1-2'", 'write "r[01-16]n[01-04]"'),
    ("huge_node_set", 3, "99,999,999 nodes, more than 100,000", "write"),
    ("option_as_host", 3, "'-oProxyCommand=true' is not a host name", "[user@]host[:port]"),
    ("user_in_host", 3, "'kim@n1@gate' is not a host name", "[user@]host[:port]"),
    ("bad_jump", 4, "jump: '-oProxyCommand=true' cannot be used", "write a name"),
    ("bad_duration", 3, "interval: '2 parsecs' is not a duration", "write 500ms, 2s"),
    ("interval_too_short", 3, "interval: at least 200 ms", "give 200 ms or more"),
    ("port_as_text", 4, "port: expected a whole number, got text", "quotes"),
    ("port_out_of_range", 4, "port: at most 65535", "give 65535 or less"),
    ("no_identity", 4, "identity: no file 'keys/none'", "check the path"),
    ("host_as_number", 3, "hosts: expected text, got a whole number", "quotes"),
    ("target_without_port", 3, "'n1' is not host:port or a URL", "host:9400"),
    ("target_scheme", 3, "'ftp://n1:21/metrics' is not host:port or a URL", "https://"),
    ("password_in_target", 3, "the URL of n1 holds a user or password", "token_file"),
    ("token_in_file", 4, "no setting 'token'", "a secret does not stand in this file"),
    ("token_in_clear", 4, "the token would travel to 'n2:9400' in the clear", "https://"),
    ("two_tokens", 5, "token_env and token_command", "keep one"),
    ("two_names", 6, "two sources are called 'here'", "own name"),
    ("source_as_table", 1, "source must be written as [[source]]", "[[source]]"),
    ("bad_pattern", 3, "not a regular expression", "(?P<rack>"),
    ("pattern_without_rack", 2, "no group named rack", "(?P<rack>"),
    ("no_rack_table", 2, "file: no file 'none.csv'", "check the path"),
    ("bad_rack_map", 3, "r02: a bracket is missing", "write"),
    ("bad_alias", 2, "n01: expected a list of names", '["n1", "n2"]'),
    ("bad_metric", 2, "no GPU metric 'gpu.sm_activ'", "did you mean gpu.sm_active?"),
    ("bad_theme", 3, "theme: no theme 'drak'", "did you mean dark?"),
    ("shell_in_alias", 4, "aliases: '10.0.3.7;rm' is not a host name", "letters, digits"),
    ("space_in_new_name", 2, "rename: 'n 1' is not a host name", "letters, digits"),
    ("no_gpus", 3, "gpus: at least 1", "give 1 or more"),
    ("too_many_gpus", 3, "500 racks x 4 nodes x 16 GPUs are 2,000 nodes and 32,000 GPUs: at most", "fewer"),
    ("bad_bytes", 2, "bytes_per_second: 'fast' is not a rate", "50kB/s"),
    ("bad_memory", 3, "memory: at least 16.0 MiB", "or more"),
    ("mouse_as_text", 2, "mouse: expected true or false, got text", "quotes"),
    ("racks_as_text", 1, "racks must be a table", "[racks]"),
    ("too_many_racks", 3, "racks: at most 1000", "or less"),
    ("no_url", 1, "url is missing", 'add url = "http://prom:9090"'),
    ("url_of_nothing", 3, "url: 'ftp://prom/' is not the address of a server", "http://prom:9090"),
    ("url_of_a_page", 3, "url: the address of a page", "write 'https://prom.example.org/graph'"),
    ("password_in_url", 3, "the URL of prom holds a user or password", "user and password_file"),
    ("secret_in_clear", 3, "the token would travel to prom in the clear", "https://"),
    ("header_in_clear", 3, "the secret header would travel to prom in the clear", "insecure = true"),
    ("token_and_user", 4, "user and token_env", "keep one"),
    ("user_without_password", 4, "needs a password, too", "password_file"),
    ("password_without_user", 4, "password_env: whose password?", "add user"),
    ("two_passwords", 6, "one password is enough", "keep one"),
    ("password_in_file", 5, "no setting 'password'", "use password_file, password_env or password_command"),
    ("no_ca", 4, "ca: no file 'none.pem'", "check the path"),
    ("key_without_cert", 4, "key: whose certificate's?", "add cert"),
    ("cert_without_tls", 4, "cert: without TLS", "https://"),
    ("ca_without_tls", 4, "ca: without TLS", "https://"),
    ("secret_header", 4, "headers: Authorization holds a secret", "{ env = ... }"),
    ("bad_header", 4, "headers: 'X Scope' is no header's name", "X-Scope-OrgID"),
    ("header_of_ours", 4, "headers: Host is not yours to set", "remove it"),
    ("header_as_number", 4, "headers: expected text or a table, got a whole number", "quotes"),
    ("bad_proxy", 4, "proxy: 'socks5://gate:1080' is not a proxy", "http://proxy:3128"),
    ("password_in_proxy", 4, "proxy: its URL holds a user or password", "HTTPS_PROXY"),
    ("bad_matcher", 4, "match: 'cluster=atlas' is no label matcher", 'cluster="atlas"'),
    ("bad_rewrite", 4, "rewrite: 'ip-(.*' to", "write {"),
    ("no_such_group", 4, "invalid group reference 2", "write {"),
    ("rewrite_without_to", 4, "to is missing", "add to = ..."),
    ("lookback_too_long", 4, "lookback: at most 1h00", "or less"),
    ("bad_slo", 2, "ttft_p99: '2 parsecs' is not a duration", "write 500ms, 2s"),
    ("unknown_slo", 2, "no setting 'ttft_p90' in [serving]", "did you mean ttft_p99?"),
    ("unknown_slo_of_service", 3, "no setting 'itl_99' of the service 'chat-70b'", "did you mean itl_p99?"),
    ("slo_as_list", 3, "itl_p99: expected a number or text, got a list", "quotes"),
    ("slo_as_text", 2, "slo must hold a table for each service", '[serving.slo."chat-70b"]'),
    ("slo_without_service", 2, "'ttft_p99': the objectives of a service are a table", "[serving.slo."),
    ("slo_errors_as_number", 2, "errors: at most 50 %", "give 50 % or less"),
    ("slo_too_short", 2, "e2e_p95: at least 100", "or more"),
    ("no_way_to_slurm", 3, "via: 'login1' is no way to Slurm", "ssh:login1"),
    ("option_as_login", 3, "via: '-oProxyCommand=true' is not a host name", "ssh:[user@]host[:port]"),
    ("jwt_in_clear", 3, "the token would travel to rest.example.org in the clear", "insecure = true"),
    ("password_in_via", 3, "the URL of rest.example.org holds a user or password", "token_file"),
    ("via_of_a_page", 3, "via: the address of a page", "write 'https://rest.example.org:6820'"),
    ("token_of_commands", 3, "token_env: only slurmrestd takes a token", "remove it"),
    ("two_jwts", 5, "token_env and token_command: one token is enough", "keep one"),
    ("jump_to_nowhere", 4, "jump: there is no login without SSH", "ssh:login1"),
    ("no_topology", 3, "topology: no file 'none.conf'", "check the path"),
    ("slurm_too_often", 3, "interval: at least 5.0 s", "or more"),
    ("racks_from_nobody", 4, "no source of kind slurm is configured", "[[source]]"),
    ("racks_from_netbox", 4, "nobody is called 'netbox'", 'from = "slurm"'),
    ("thresholds_as_number", 2, "detectors must hold a table", "[detectors.thermal_throttling]"),
    ("threshold_of_no_detector", 2, "'duty': a detector's thresholds are a table", "[detectors."),
    ("advice_as_number", 2, "advice must hold a table", "[advice.idle_gpus]"),
    ("advice_of_no_rule", 2, "'run_s': a rule's thresholds are a table", "[advice."),
    ("name_as_number", 1, "name must be a text", 'name = "atlas"'),
]


@pytest.mark.parametrize(("name", "line", "problem", "remedy"), MISTAKES, ids=[row[0] for row in MISTAKES])
def test_every_mistake_has_its_line_and_a_remedy(name: str, line: int, problem: str, remedy: str) -> None:
    path = FIXTURES / f"{name}.toml"
    with pytest.raises(ConfigError) as caught:
        load(path)
    assert problem in caught.value.problem
    assert remedy in caught.value.remedy
    assert caught.value.remedy
    assert str(caught.value).startswith(f"{path}:{line}: ")
    assert "hunter2" not in str(caught.value) + caught.value.remedy


def test_what_a_slurm_source_can_say(tmp_path: Path) -> None:
    (tmp_path / "topology.yaml").write_text("")
    (tmp_path / "c.toml").write_text(
        '[[source]]\nkind = "slurm"\nvia = "ssh:kim@login1:2222"\ninterval = "2min"\njump = "gate"\n'
        'topology = "topology.yaml"\nall_nodes = true\n[racks]\nfrom = "slurm"\n'
    )
    settings = load(tmp_path / "c.toml")
    (source,) = settings.sources
    assert isinstance(source, SlurmSettings)
    assert (source.interval, source.topology) == (120.0, str(tmp_path / "topology.yaml"))
    assert source.login() == SshSettings(hosts=("kim@login1:2222",), name="slurm", jump="gate")
    assert settings.racks.from_ == "slurm"


def test_slurm_by_a_flag() -> None:
    flags = Flags(slurm=("local", "http://127.0.0.1:6820"), interval="2s", token_env="JWT", local=True)
    with pytest.raises(ConfigError, match="only slurmrestd takes a token"):
        Settings().with_flags(flags)
    settings = Settings().with_flags(Flags(slurm=("ssh:login1",), interval="2s", jump="gate"))
    assert settings.sources == (SlurmSettings(via="ssh:login1", jump="gate"),)
    with pytest.raises(ConfigError, match=r"--slurm: .*no way to Slurm"):
        Settings().with_flags(Flags(slurm=("login1",)))


def test_every_fixture_is_a_case() -> None:
    assert {path.stem for path in FIXTURES.glob("*.toml")} == {row[0] for row in MISTAKES} | {"good"}


def test_what_a_file_can_say() -> None:
    settings = load(FIXTURES / "good.toml")
    assert settings.name == "atlas"
    assert settings.sources == (
        SshSettings(
            hosts=("r01n01", "r01n02", "r02n01", "r02n02", "login1"),
            user="kim",
            jump="gate",
            identity=(str(FIXTURES / "id_test"),),
            connect_timeout=5.0,
        ),
        ExporterSettings(
            targets=(
                "r01n01:9400",
                "r01n02:9400",
                "r02n01:9400",
                "r02n02:9400",
                "https://serve1:8000/metrics",
                "https://serve2:8000/metrics",
                "[fe80::1]:9100",
            ),
            interval=10.0,
            token_env="TOKEN",
            insecure=True,
        ),
        LocalSettings(),
        SimulatorSettings(racks=2, seed=7),
    )
    assert settings.rack_rules().table["r01n02"] == Placement("east", "racks.csv")
    assert settings.rack_rules().table["login1"] == Placement("edge", "configuration")
    assert settings.rack_rules().pattern is not None
    assert settings.nodes.names() == {"gpu-a": "r01n01", "10.0.0.1": "r01n01", "old-name": "r01n02"}
    assert (settings.screen.metric, settings.screen.bytes_per_second, settings.screen.ascii) == (
        "gpu.power",
        100e3,
        True,
    )
    assert settings.screen.mouse is False
    assert settings.serving.of("chat-70b") == {"ttft_p99": 2.0, "itl_p99": 0.05, "errors": 0.01}
    assert settings.serving.of(None, "chat-70b") == settings.serving.of("chat-70b")
    assert settings.serving.of("embed-8b") == {"ttft_p99": 10.0}
    assert settings.serving.of("batch", "chat-70b") == {"errors": 0.01}
    assert (settings.history.minutes, settings.history.memory) == (30.0, 1e9)


PROMETHEUS = """
[[source]]
kind = "prometheus"
url = "https://grafana.example.org/api/datasources/proxy/uid/abc"
name = "atlas"
timeout = "30s"
user = "kim"
password_command = ["pass", "show", "prom"]
ca = "ca.pem"
cert = "client.pem"
key = "client.key"
headers = { X-Scope-OrgID = "a|b", X-Api-Key = { env = "PROM_KEY" } }
proxy = "http://proxy:3128"
match = 'cluster = "atlas", env=~"prod|test"'
rewrite = [{ match = 'ip-(\\d+)', to = "n$1" }, { match = '(?P<host>.*)-bmc', to = '\\g<host>' }]
lookback = "2m"
"""


def test_what_a_file_can_say_of_a_prometheus_server(tmp_path: Path) -> None:
    for name in ("ca.pem", "client.pem", "client.key"):
        (tmp_path / name).write_text("")
    (tmp_path / "c.toml").write_text(PROMETHEUS)
    settings = load(tmp_path / "c.toml")
    assert settings.sources == (
        PrometheusSettings(
            url="https://grafana.example.org/api/datasources/proxy/uid/abc",
            name="atlas",
            timeout=30.0,
            user="kim",
            password_command=("pass", "show", "prom"),
            ca=str(tmp_path / "ca.pem"),
            cert=str(tmp_path / "client.pem"),
            key=str(tmp_path / "client.key"),
            headers={"X-Scope-OrgID": "a|b", "X-Api-Key": FromEnvironment("PROM_KEY")},
            proxy="http://proxy:3128",
            match=('cluster="atlas"', 'env=~"prod|test"'),
            rewrite=(Rewrite(r"ip-(\d+)", r"n\g<1>"), Rewrite("(?P<host>.*)-bmc", r"\g<host>")),
            lookback=120.0,
        ),
    )
    (tmp_path / "again.toml").write_text(render(settings))
    assert load(tmp_path / "again.toml").sources == settings.sources
    hurried = settings.with_flags(Flags(timeout="5s")).sources
    assert hurried == (msgspec.structs.replace(settings.sources[0], timeout=5.0),)


def test_a_prometheus_server_is_a_flag() -> None:
    settings = load(FIXTURES / "good.toml").with_flags(
        Flags(prometheus=("prom:9090", "https://thanos"), interval="30s", timeout="5s", user="root")
    )
    assert settings.sources == (
        PrometheusSettings(url="http://prom:9090", interval=30.0, timeout=5.0),
        PrometheusSettings(url="https://thanos", name="prometheus-2", interval=30.0, timeout=5.0),
    )


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ('a="1"', ['a="1"']),
        ('a = "1" ,b!~"x,y\\"",', ['a="1"', 'b!~"x,y\\""']),
        ("", None),
        ('a="1" b="2"', None),
        ('{a="1"}', None),
        ('a="1', None),
        ("a='1'", None),
    ],
)
def test_label_matchers(text: str, found: list[str] | None) -> None:
    assert matchers(text) == found


def test_sources_of_one_kind_get_names_of_their_own(tmp_path: Path) -> None:
    (tmp_path / "c.toml").write_text(
        '[[source]]\nkind = "ssh"\nhosts = "a"\n[[source]]\nkind = "ssh"\nhosts = "b"\n'
    )
    assert [source.name for source in load(tmp_path / "c.toml").sources] == ["ssh", "ssh-2"]


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="No such file"):
        load(tmp_path / "none.toml")
    with pytest.raises(ConfigError, match="cannot read"):
        load(tmp_path)
    (tmp_path / "latin.toml").write_bytes(b'a = 1\nname = "\xe9"\n')
    with pytest.raises(ConfigError, match=r"latin.toml:2: not UTF-8"):
        load(tmp_path / "latin.toml")
    (tmp_path / "big.toml").write_bytes(b"#" * 2_000_000)
    with pytest.raises(ConfigError, match="larger than 1 MB"):
        load(tmp_path / "big.toml")
    (tmp_path / "deep.toml").write_text("a = " + "[" * 100_000)
    with pytest.raises(ConfigError):
        load(tmp_path / "deep.toml")


def test_no_file_is_no_mistake_unless_it_was_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(config, "default_path", lambda: tmp_path / "config.toml")
    assert load_default() == Settings()
    (tmp_path / "config.toml").write_text('name = "here"')
    assert load_default().name == "here"
    with pytest.raises(ConfigError, match="cannot read"):
        load_default(tmp_path / "other.toml")


def test_the_default_is_where_xdg_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    assert config.default_path() == tmp_path / "coldaisle" / "config.toml"


def test_source_flags_take_the_place_of_the_files_sources() -> None:
    settings = load(FIXTURES / "good.toml").with_flags(
        Flags(ssh=("n[1-2]",), local=True, interval="5s", user="root")
    )
    assert settings.sources == (
        LocalSettings(interval=5.0),
        SshSettings(hosts=("n1", "n2"), interval=5.0, user="root"),
    )
    assert settings.name == "atlas"


def test_other_flags_lie_over_the_file() -> None:
    settings = load(FIXTURES / "good.toml").with_flags(
        Flags(
            name="x",
            interval="1s",
            jump="other",
            theme="dark",
            bytes_per_second="20kB",
            ascii=False,
            memory="100MB",
        )
    )
    ssh = settings.sources[0]
    assert isinstance(ssh, SshSettings)
    assert (ssh.jump, ssh.interval, ssh.user) == ("other", 1.0, "kim")
    assert (settings.name, settings.screen.theme, settings.screen.ascii) == ("x", "dark", False)
    assert (settings.screen.bytes_per_second, settings.screen.metric) == (20e3, "gpu.power")
    assert settings.history.memory == 100e6


def test_flags_lie_over_settings_that_no_file_gave() -> None:
    settings = Settings(name="x", sources=(SimulatorSettings(racks=2),)).with_flags(Flags(interval="1s"))
    assert settings.sources == (SimulatorSettings(racks=2, interval=1.0),)
    assert settings.name == "x"


def test_paths_of_flags_are_relative_to_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "key").write_text("")
    (tmp_path / "r.csv").write_text("n1,r1\n")
    monkeypatch.chdir(tmp_path)
    settings = load(FIXTURES / "good.toml").with_flags(Flags(identity=("key",), file="r.csv"))
    ssh = settings.sources[0]
    assert isinstance(ssh, SshSettings)
    assert ssh.identity == (str(tmp_path / "key"),)
    assert settings.rack_rules().table["n1"] == Placement("r1", "r.csv")


@pytest.mark.parametrize(
    ("flags", "problem"),
    [
        (Flags(ssh=("n[1-99999999]",)), "--ssh: it stands for 99,999,999 nodes"),
        (Flags(ssh=("-x",)), "--ssh: '-x' is not a host name"),
        (Flags(exporter=("n1",)), "--exporter: 'n1' is not host:port"),
        (Flags(local=True, interval="soon"), "--interval: 'soon' is not a duration"),
        (Flags(pattern="("), "--rack-pattern: the rack pattern is not a regular expression"),
        (Flags(file="none.csv"), "--racks-file: no file"),
        (Flags(metric="gpu.heat"), "--metric: no GPU metric"),
        (Flags(ssh=("n1",), identity=("none",)), "--identity: no file"),
        (Flags(bytes_per_second="1"), "--bytes: at least 1.00 kB/s"),
        (Flags(local=True, interval="1ms"), "--interval: at least 200 ms"),
        (Flags(minutes=-5.0), "--history: at least 1 min"),
        (Flags(minutes=float("nan")), "--history: at least 1 min"),
        (Flags(memory="2TB"), "--memory: at most 1.00 TiB"),
        (Flags(theme="drak"), "--theme: no theme 'drak'"),
        (Flags(exporter=("http://kim:hunter2@n1/",)), "--exporter: the URL of n1 holds a user or password"),
        (Flags(exporter=("n1:1",), token_env="T"), "--exporter: the token would travel"),
        (Flags(prometheus=("gopher://prom",)), "--prometheus: 'gopher://prom' is not the address"),
        (Flags(prometheus=("https://kim:hunter2@prom",)), "--prometheus: the URL of prom holds a user or"),
        (Flags(prometheus=("prom:9090",), token_env="T"), "--prometheus: the token would travel"),
    ],
)
def test_mistakes_in_flags_name_the_flag(flags: Flags, problem: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Settings().with_flags(flags)
    assert problem in str(caught.value)
    assert caught.value.remedy
    assert not any(word in caught.value.remedy for word in ("[ ]", '["', " = ", "this file", "token_"))


def test_mistakes_in_detected_sources_are_config_errors() -> None:
    with pytest.raises(ConfigError, match="nodes and 64,000 GPUs"):
        Settings().with_sources([{"kind": "simulator", "racks": 1000, "nodes": 8, "gpus": 8}])


@pytest.mark.parametrize(
    ("written", "host"),
    [
        ("n1", "n1"),
        ("kim@n1", "n1"),
        ("n1:2222", "n1"),
        ("kim@n1:22", "n1"),
        ("fe80::1", "fe80::1"),
        ("[fe80::1]:22", "fe80::1"),
    ],
)
def test_hosts_as_ssh_takes_them(written: str, host: str) -> None:
    assert config.bare_host(written) == host
    if "[" not in written:
        assert Settings().with_flags(Flags(ssh=(written,))).sources == (SshSettings(hosts=(written,)),)


def test_nothing_given_changes_nothing() -> None:
    settings = load(FIXTURES / "good.toml")
    assert settings.with_flags(Flags()) == settings


TOML = """\
# a comment with [brackets] and = signs
name = "a # b"
[[source]]
hosts = [
  "a[1-2]",  # ]
  "b",
]
text = '''
[not.a.table]
key = 1
'''
"quoted key" . inner = { x = 1 }
[[source]]
[source.deep]
x = 1
[table."with.dot"]
y = [[1], [2]]
z = ""
"""


@pytest.mark.parametrize(
    ("path", "line"),
    [
        (("name",), 2),
        (("source", 0), 3),
        (("source", 0, "hosts"), 4),
        (("source", 0, "hosts", 1), 4),
        (("source", 0, "text"), 8),
        (("source", 0, "quoted key", "inner"), 12),
        (("source", 0, "quoted key", "inner", "x"), 12),
        (("source", 1), 13),
        (("source", 1, "none"), 13),
        (("source", 1, "deep", "x"), 15),
        (("table", "with.dot", "y"), 17),
        (("table", "with.dot", "z"), 18),
        (("table",), None),
        ((), None),
    ],
)
def test_lines_of_settings(path: positions.Path, line: int | None) -> None:
    assert positions.line_of(TOML, path) == line


@given(st.text("[]\"'=#\n\\ab.{}", max_size=60))
def test_any_text_can_be_asked(text: str) -> None:
    with contextlib.suppress(ValueError):  # not TOML: whoever asks has parsed it before
        positions.lines(text)
