"""Real Prometheus and VictoriaMetrics servers on loopback: scraping, or on history made beforehand.

::

    with prometheus(tmp_path, [Scraped([pages.target])]) as server:         # scrapes every second
        await server.until("up == 1")
    with prometheus(tmp_path, history=openmetrics("DCGM_FI_DEV_GPU_UTIL", {...})) as server: ...
    with victoria_metrics(tmp_path, history=...) as server: ...             # the same, another flavour

Both end with the block, also when the tests are killed: each asks the kernel to be killed with its
parent, so start them from a thread that lives as long as they do.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import subprocess
import time
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from lab.sshd import free_port
from services import require

START_S = 30.0
ATTEMPTS = 3
"""A free port may be taken by somebody else before the server listens on it."""
DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))

Rows = list[tuple[dict[str, str], float]]


class Scraped(NamedTuple):
    """One job of the scrape configuration."""

    targets: Sequence[str]
    """``host:port``."""
    job: str = "dcgm"
    labels: Mapping[str, str] = {}
    """Given to every series, as a site's file_sd or relabelling would."""
    relabel: Sequence[Mapping[str, object]] = ()
    """``relabel_configs``, as Prometheus reads them."""
    honor_labels: bool = False
    path: str = "/metrics"

    def config(self) -> dict[str, object]:
        """As Prometheus reads it."""
        return {
            "job_name": self.job,
            "metrics_path": self.path,
            "honor_labels": self.honor_labels,
            "static_configs": [{"targets": list(self.targets), "labels": dict(self.labels)}],
            "relabel_configs": list(self.relabel),
        }


class Rule(NamedTuple):
    """An alerting rule."""

    alert: str
    expr: str
    labels: Mapping[str, str] = {}
    annotations: Mapping[str, str] = {}
    pending: str = "0s"
    """How long it has to hold before it fires."""

    def config(self) -> dict[str, object]:
        """As Prometheus reads it."""
        return {
            "alert": self.alert,
            "expr": self.expr,
            "for": self.pending,
            "labels": dict(self.labels),
            "annotations": dict(self.annotations),
        }


@dataclass(slots=True)
class Server:
    """One that runs. ``url`` is what a user would configure, with a path prefix where it has one."""

    command: Callable[[int], Sequence[str]]
    folder: Path
    ready: str
    prefix: str = ""
    flush: str = ""
    """The path that makes it show what it has just taken; empty: it does so at once."""
    port: int = 0
    process: subprocess.Popen[bytes] | None = field(default=None, repr=False)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}{self.prefix}"

    def get(self, path: str, **parameters: object) -> Any:
        """The raw API: the JSON of a GET below ``url``. OSError where it refuses."""
        query = urllib.parse.urlencode(parameters)
        with DIRECT.open(f"{self.url}{path}?{query}", timeout=20.0) as answer:
            return json.load(answer)

    def rows(self, query: str, at: float | None = None) -> Rows:
        """An instant query by the raw API: (labels, value) of each series."""
        parameters: dict[str, object] = {"query": query}
        if at is not None:
            parameters["time"] = repr(at)
        result = self.get("/api/v1/query", **parameters)["data"]["result"]
        return [(one["metric"], float(one["value"][1])) for one in result]

    async def until(self, query: str, count: int = 1, seconds: float = 30.0) -> Rows:
        """Wait until ``query`` gives at least ``count`` series; AssertionError after ``seconds``."""
        deadline = time.monotonic() + seconds
        while True:
            await asyncio.to_thread(self.show)
            rows = await asyncio.to_thread(self.rows, query)
            if len(rows) >= count:
                return rows
            if time.monotonic() > deadline:
                raise AssertionError(f"not {count} series within {seconds:g} s, but {len(rows)}: {query}")
            await asyncio.sleep(0.1)

    def show(self) -> None:
        """Let it show everything that it has taken."""
        if self.flush:
            DIRECT.open(f"{self.url}{self.flush}", timeout=60.0).close()

    def start(self) -> None:
        """Start it, or start it again at the same port, and wait until it is ready."""
        for attempt in range(ATTEMPTS):
            self.port = self.port or free_port()
            with (self.folder / "log").open("ab") as log:
                self.process = subprocess.Popen(
                    ["setpriv", "--pdeathsig", "KILL", *self.command(self.port)],
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    cwd=self.folder,
                )
            if self._becomes_ready():
                return
            self.kill()
            if attempt + 1 < ATTEMPTS:
                self.port = 0
        raise AssertionError(f"{self.command(0)[0]}: {(self.folder / 'log').read_text()[-4000:]}")

    def kill(self) -> None:
        """End it at once; what it has not yet written is lost."""
        process, self.process = self.process, None
        if process is not None:
            process.kill()
            process.wait(10.0)

    def _becomes_ready(self) -> bool:
        deadline = time.monotonic() + START_S
        assert self.process is not None
        while self.process.poll() is None and time.monotonic() < deadline:
            with (
                contextlib.suppress(OSError),
                DIRECT.open(f"{self.url}{self.ready}", timeout=2.0) as answer,
            ):
                return bool(answer.status == 200)
            time.sleep(0.03)
        return False


@contextlib.contextmanager
def prometheus(
    folder: Path,
    scraped: Iterable[Scraped] = (),
    *,
    interval: str = "1s",
    rules: Iterable[Rule] = (),
    external: Mapping[str, str] = {},
    history: str | Sequence[str] = (),
    prefix: str = "",
    flags: Sequence[str] = (),
) -> Iterator[Server]:
    """Debian's prometheus, ready. ``history``: OpenMetrics texts with timestamps, without their end mark.

    ``prefix`` (``/prom``) is the path under which it serves everything, ``external`` its external labels.
    """
    require("prometheus", "promtool", "setpriv")
    own = folder / "prometheus"
    data = own / "data"
    data.mkdir(parents=True)
    for number, text in enumerate([history] if isinstance(history, str) else history):
        _make_blocks(own / f"{number}.om", text, data)
    config = _config(scraped, interval, own, rules)
    config["global"]["external_labels"] = dict(external)
    (own / "prometheus.yml").write_text(json.dumps(config))

    def command(port: int) -> Sequence[str]:
        return (
            require("prometheus"),
            "--config.file=prometheus.yml",
            f"--storage.tsdb.path={data}",
            "--storage.tsdb.retention.time=100y",
            f"--web.listen-address=127.0.0.1:{port}",
            f"--web.external-url=http://127.0.0.1:{port}{prefix}",
            *flags,
        )

    with _running(Server(command, own, "/-/ready", prefix)) as server:
        yield server


@contextlib.contextmanager
def victoria_metrics(
    folder: Path,
    scraped: Iterable[Scraped] = (),
    *,
    interval: str = "1s",
    history: str | Sequence[str] = (),
    prefix: str = "",
    latency_offset: str = "0s",
    flags: Sequence[str] = (),
) -> Iterator[Server]:
    """Debian's victoria-metrics, ready, with ``history`` (as for :func:`prometheus`) to be seen.

    ``latency_offset`` is how long it hides what is new; its own default is 30 s.
    """
    require("victoria-metrics", "setpriv")
    own = folder / "victoria-metrics"
    own.mkdir(parents=True)
    (own / "scrape.yml").write_text(json.dumps(_config(scraped, interval, own)))

    def command(port: int) -> Sequence[str]:
        return (
            require("victoria-metrics"),
            f"-httpListenAddr=127.0.0.1:{port}",
            f"-storageDataPath={own / 'data'}",
            "-retentionPeriod=100y",
            "-promscrape.config=scrape.yml",
            f"-search.latencyOffset={latency_offset}",
            "-memory.allowedBytes=256MB",
            *([f"-http.pathPrefix={prefix}"] if prefix else []),
            *flags,
        )

    with _running(Server(command, own, "/health", prefix, "/internal/force_flush")) as server:
        for text in [history] if isinstance(history, str) else history:
            _import(server, text)
        yield server


@contextlib.contextmanager
def _running(server: Server) -> Iterator[Server]:
    try:
        server.start()
        yield server
    finally:
        server.kill()


def openmetrics(name: str, series: Mapping[str, Iterable[tuple[float, object]]], type_: str = "gauge") -> str:
    """History of one metric: the inside of the braces (``gpu="0",Hostname="n01"``) -> (seconds, value)."""
    family = name.removesuffix("_total") if type_ == "counter" else name
    lines = [f"# TYPE {family} {type_}"]
    lines += [
        f"{name}{{{labels}}} {value} {at!r}" for labels, samples in series.items() for at, value in samples
    ]
    return "\n".join(lines) + "\n"


def _config(
    scraped: Iterable[Scraped], interval: str, folder: Path, rules: Iterable[Rule] = ()
) -> dict[str, Any]:
    """JSON is YAML, too."""
    times: dict[str, object] = {"scrape_interval": interval}
    config: dict[str, Any] = {"global": times, "scrape_configs": [one.config() for one in scraped]}
    alerts = [rule.config() for rule in rules]
    if alerts:
        times["evaluation_interval"] = interval
        (folder / "rules.yml").write_text(json.dumps({"groups": [{"name": "lab", "rules": alerts}]}))
        config["rule_files"] = [str(folder / "rules.yml")]
    return config


def _make_blocks(file: Path, text: str, data: Path) -> None:
    """promtool reads the whole text again for every block: long blocks make it fast."""
    file.write_text(text.rstrip("\n") + "\n# EOF\n")
    made = subprocess.run(
        [
            *(require("promtool"), "tsdb", "create-blocks-from", "openmetrics"),
            *("--max-block-duration=162h", str(file), str(data)),
        ],
        capture_output=True,
        stdin=subprocess.DEVNULL,
        check=False,
    )
    assert made.returncode == 0, made.stderr.decode()[-4000:]


def _import(server: Server, text: str) -> None:
    """OpenMetrics counts seconds, the text format that VictoriaMetrics imports milliseconds."""
    lines = [line.rsplit(" ", 1) for line in text.splitlines() if line and not line.startswith("#")]
    body = "".join(f"{sample} {round(float(at) * 1000)}\n" for sample, at in lines)
    url = f"{server.url}/api/v1/import/prometheus"
    DIRECT.open(urllib.request.Request(url, body.encode(), method="POST"), timeout=60.0).close()
    server.show()
