"""``coldaisle doctor``: what it says of sources that answer, half answer, or do not."""

import asyncio
import json
import socket
import threading
import time
from collections.abc import AsyncGenerator, Iterator, Sequence
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from lab.pages import amd_page

from coldaisle.sources.config import Settings, load
from coldaisle.sources.errors import ConfigError, SourceError
from coldaisle.sources.settings import ExporterSettings, SimulatorSettings
from coldaisle.sources.source import (
    Batch,
    EntityRef,
    GpuRef,
    Item,
    Kind,
    Missing,
    NodeFact,
    NodeRef,
    Rank,
    Target,
    TargetState,
)
from coldaisle.tui import doctor
from coldaisle.tui.doctor import as_object, examine_and_print, hurried, narrowed, needs, report, verdict
from coldaisle.tui.examination import ROUNDS, Examined, examine

NODE_KEYS = ("node.cpu_util", "node.psi_io_full", "node.mem_ratio", "node.net_rx", "node.disk_util")
GPU_KEYS = tuple(need.keys[0] for need in needs() if need.kind is Kind.GPU)


def batch(
    at: float,
    kind: Kind,
    entities: Sequence[EntityRef],
    keys: Sequence[str],
    without: Sequence[str] = (),
    why: int = 0,
) -> Batch:
    """A batch with 1.0 everywhere but in the columns ``without``."""
    values = np.ones((len(entities), len(keys)), np.float32)
    reasons = np.zeros(values.shape, np.uint8)
    for key in without:
        values[:, keys.index(key)] = np.nan
        reasons[:, keys.index(key)] = why
    return Batch(at, kind, tuple(entities), tuple(keys), values, reasons)


class Scripted:
    """A source that says what it is told to, then waits, or fails."""

    rank = Rank.PROBE
    interval = 0.01

    def __init__(
        self, items: Sequence[Item], *, name: str = "ssh", kind: str = "ssh", error: Exception | None = None
    ) -> None:
        self.name = name
        self.kind = kind
        self.items = items
        self.error = error
        self.closed = False

    async def stream(self) -> AsyncGenerator[Item, None]:
        try:
            for item in self.items:
                yield item
            if self.error:
                raise self.error
            await self.wait()
        finally:
            self.closed = True

    async def wait(self) -> None:
        await asyncio.sleep(3600)


class Stuck(Scripted):
    """A source whose name server is silent, and which cannot be closed."""

    def __init__(self, items: Sequence[Item], released: threading.Event) -> None:
        super().__init__(items)
        self.released = released

    async def wait(self) -> None:
        try:
            await asyncio.to_thread(self.released.wait, 60)
        finally:
            await asyncio.sleep(60)


def target(name: str, state: TargetState = TargetState.OK, **more: str) -> Target:
    return Target(0.0, name, state, (name,), what=more.pop("what", "probe 1"), latency_s=0.01, **more)


def node_rounds(node: str = "n1", rounds: int = 3) -> list[Item]:
    return [batch(float(at), Kind.NODE, [NodeRef(node)], NODE_KEYS) for at in range(rounds)]


def gpu_rounds(
    node: str = "n1", without: Sequence[str] = (), why: Missing = Missing.NOT_EXPORTED
) -> list[Item]:
    gpus = [GpuRef(node, f"GPU-{number}") for number in range(2)]
    return [batch(float(at), Kind.GPU, gpus, GPU_KEYS, without, why) for at in range(3)]


def both(*, without: Sequence[str] = (), why: Missing = Missing.NOT_EXPORTED) -> list[Item]:
    """Node and GPUs in turn, as real sources give them."""
    return [
        item
        for pair in zip(node_rounds(), gpu_rounds(without=without, why=why), strict=True)
        for item in pair
    ]


def ask(*sources: Scripted, seconds: float = 30.0) -> list[Examined]:
    return asyncio.run(examine(sources, seconds, lambda _, __: None))


def text_of(examined: list[Examined]) -> str:
    return "\n".join(report(examined, verdict(examined), 0.01))


def test_all_there() -> None:
    source = Scripted([target("n1"), *both()])
    examined = ask(source, seconds=60)  # ends by itself once everything was heard three times
    text = text_of(examined)
    assert verdict(examined) == doctor.ALL_THERE
    assert "ssh  ok: 1 of 1 targets answer, 2 GPUs, 1 node\n" in text
    assert "ok: n1  probe 1" in text
    assert "verdict: all there" in text
    assert source.closed


def test_a_missing_metric_has_its_reason() -> None:
    examined = ask(Scripted([target("n1"), *both(without=["gpu.mem_temp"], why=Missing.NOT_PERMITTED)]))
    assert verdict(examined) == doctor.SOMETHING_MISSING
    assert "memory temperature   gpu.mem_temp                not permitted for our user" in text_of(examined)
    assert "nobody gives GPU memory temperature" in text_of(examined)


def test_what_the_hardware_has_not_is_no_fault() -> None:
    examined = ask(Scripted([target("n1"), *both(without=["gpu.mem_temp"], why=Missing.NOT_SUPPORTED)]))
    assert "not supported by this part or driver" in text_of(examined)
    assert verdict(examined) == doctor.ALL_THERE


def test_what_another_source_gives_is_not_missing() -> None:
    poor = Scripted([target("n1"), *gpu_rounds(without=["gpu.mem_temp"])], name="exporters", kind="exporters")
    rich = Scripted([target("n1"), *both()])
    examined = ask(poor, rich)
    assert verdict(examined) == doctor.ALL_THERE
    assert "exporters and ssh: n1" in text_of(examined)


def test_a_target_that_is_silent_is_named_with_its_remedy() -> None:
    dead = target("n2", TargetState.FAILING, detail="no route to host", remedy="is it up?")
    examined = ask(Scripted([target("n1"), dead, *both()]))
    text = text_of(examined)
    assert verdict(examined) == doctor.SOMETHING_MISSING
    assert "failing: n2  no route to host\n    -> is it up?" in text
    assert "1 target does not answer" in text


def test_many_silent_targets_are_counted() -> None:
    dead = [target(f"n{number}", TargetState.DENIED) for number in range(50)]
    text = text_of(ask(Scripted([target("n99"), *dead, *node_rounds()])))
    assert "denied: n0" in text
    assert "and 30 more that do not answer" in text


def test_a_source_that_says_nothing() -> None:
    source = Scripted([])
    examined = ask(source, seconds=0.2)
    assert verdict(examined) == doctor.SOURCE_FAILS
    assert "nothing came within 200 ms" in text_of(examined)
    assert source.closed


def test_the_time_bounds_resolving_and_closing() -> None:
    released = threading.Event()
    begun = time.monotonic()
    try:
        examined = ask(Stuck([target("n1", TargetState.CONNECTING)], released), seconds=0.2)
    finally:
        released.set()
    assert time.monotonic() - begun < 10
    assert "connecting: n1  no answer within 200 ms" in text_of(examined)


def test_a_sample_too_few_is_not_a_lack() -> None:
    once = batch(0.0, Kind.NODE, [NodeRef("n1")], NODE_KEYS, ["node.cpu_util"], Missing.NOT_SAMPLED)
    text = text_of(ask(Scripted([target("n1"), once]), seconds=0.2))
    assert "too short to say whether anybody gives node CPU: give --for more" in text
    assert "nobody gives" not in text
    often = [replace(once, at=float(at)) for at in range(ROUNDS)]
    assert "verdict: nobody gives node CPU" in text_of(ask(Scripted([target("n1"), *often])))


def test_samples_are_close_enough_for_the_time_given() -> None:
    settings = Settings().with_sources([{"kind": "exporters", "targets": ["n1:9100"]}, {"kind": "local"}])
    exporters, local = hurried(settings, 6.0).sources
    assert exporters == ExporterSettings(targets=("n1:9100",), interval=1.5, timeout=5.0)
    assert local.interval == 1.5
    assert hurried(settings, 60.0) == settings
    assert {source.interval for source in hurried(settings, 0.5).sources} == {1.0}


def test_several_sources_do_not_deliver() -> None:
    examined = ask(Scripted([]), Scripted([], name="pages", kind="exporters"), seconds=0.1)
    text = text_of(examined)
    assert "verdict: ssh, pages do not deliver" in text
    assert "pages (exporters)  FAILS" in text


def test_it_waits_for_every_target_that_was_configured() -> None:
    quick = target("n2", TargetState.FAILING)
    source = Scripted([quick, target("n1"), *both()])
    examined = asyncio.run(examine([source], 30.0, lambda _, __: None, {"ssh": 2}))
    assert len(examined[0].answering) == 1
    assert examined[0].found("gpu.power") == 2


@pytest.mark.parametrize(
    ("source", "said"),
    [
        (
            Scripted([], error=SourceError("login1", "refused", "try again")),
            "login1: refused\n    -> try again",
        ),
        (Scripted([], error=ZeroDivisionError("x")), "a mistake of ours: ZeroDivisionError"),
        (
            Scripted([target("n1", TargetState.DENIED, detail="permission denied")]),
            "denied: n1  permission denied",
        ),
    ],
)
def test_a_source_that_does_not_deliver(source: Scripted, said: str) -> None:
    examined = ask(source)
    assert verdict(examined) == doctor.SOURCE_FAILS
    assert said in text_of(examined)
    assert "ssh does not deliver" in text_of(examined)
    assert source.closed


def test_one_failing_source_leaves_the_others_alone() -> None:
    good = Scripted([target("n1"), *both()], name="good")
    examined = ask(Scripted([], error=RuntimeError("bang"), name="bad"), good)
    assert examined[1].found("gpu.power") == 2
    assert verdict(examined) == doctor.SOURCE_FAILS


def test_clocks_and_hidden_gpus_are_told() -> None:
    facts = [
        NodeFact(0.0, "n1", clock_offset_s=12.0, gpu_pci=("0000:01:00.0", "0000:02:00.0"), gpus_visible=1),
        NodeFact(0.0, "n1", problem="driver not loaded"),
    ]
    text = text_of(ask(Scripted([target("n1"), *facts, *node_rounds()])))
    assert "clock of n1: 12.0 s from ours" in text or "clock of n1: 12 s from ours" in text
    assert "n1: 1 of 2 GPUs visible to you" in text
    assert "n1: driver not loaded" in text


def test_foreign_text_is_inert() -> None:
    evil = target("n1\x1b[31m", TargetState.FAILING, detail="\x1b]52;c;eA==\x07 \u202edeneid", remedy="a\nb")
    text = text_of(ask(Scripted([evil, *node_rounds("n\x1b[0m2")])))
    assert text.isascii()
    assert all(char.isprintable() or char == "\n" for char in text)


def test_json_says_the_same() -> None:
    examined = ask(Scripted([target("n1"), *both(without=["gpu.mem_temp"])]))
    told = json.loads(json.dumps(as_object(examined, verdict(examined)), allow_nan=False))
    assert (told["schema"], told["status"]) == ("coldaisle.doctor/1", 1)
    source = told["sources"][0]
    assert source["entities"] == {"gpu": 2, "node": 1}
    assert source["metrics"]["gpu.power"] == 2
    assert source["missing"] == [
        {"need": "memory temperature", "metric": "gpu.mem_temp", "why": "not exported"}
    ]
    assert told["nodes"] == {"n1": ["ssh"]}


def test_what_was_examined_is_not_written_out_by_the_way() -> None:
    """asyncio.run formats its task's result as it ends: a million cells took it many seconds."""
    examined = ask(Scripted([target("n1"), *both()]))
    assert len(repr(examined)) < 200


def test_progress_is_told_while_it_lasts() -> None:
    told: list[int] = []

    def progress(examined: Sequence[Examined], _: float) -> None:
        told.append(len(examined))

    asyncio.run(examine([Scripted([])], 0.1, progress))
    assert len(told) >= 2


def test_every_need_is_in_the_catalog() -> None:
    from coldaisle.sources.catalog import catalog

    for need in needs():
        assert need.keys
        assert all(catalog()[key].kind is need.kind for key in need.keys)


PAGE = """\
DCGM_FI_DEV_GPU_UTIL{gpu="0",UUID="GPU-1",device="nvidia0",modelName="NVIDIA H100",Hostname="n1",pci_bus_id="00000000:1B:00.0"} 42
DCGM_FI_DEV_POWER_USAGE{gpu="0",UUID="GPU-1",device="nvidia0",modelName="NVIDIA H100",Hostname="n1",pci_bus_id="00000000:1B:00.0"} 612.5
DCGM_FI_DEV_GPU_TEMP{gpu="0",UUID="GPU-1",device="nvidia0",modelName="NVIDIA H100",Hostname="n1",pci_bus_id="00000000:1B:00.0"} 71
"""


class Exporter(BaseHTTPRequestHandler):
    """Half a dcgm-exporter: its page lacks most of what one wants. At /amd AMD's."""

    served = 0

    def do_GET(self) -> None:
        type(self).served += 1
        page = amd_page("a01", 2).decode() if self.path == "/amd" else PAGE
        body = page.replace("612.5", f"{612.5 + type(self).served}").encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def exporter() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Exporter) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        yield f"127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@pytest.fixture
def closed_target() -> str:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return f"127.0.0.1:{server.getsockname()[1]}"


def test_a_poor_exporter_is_told_which_lines_to_add(
    exporter: str, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = Settings().with_sources([{"kind": "exporters", "targets": [exporter], "interval": 0.2}])
    status = examine_and_print(settings, 10.0, as_json=False, write_to=None, force=False)
    text = capsys.readouterr().out
    assert status == doctor.SOMETHING_MISSING
    assert f"ok: {exporter}  dcgm-exporter" in text
    assert "utilisation          gpu.util" in text
    assert "add to dcgm-exporter's CSV file (its option -f)" in text
    assert "DCGM_FI_DEV_MEMORY_TEMP" in text


def test_amds_exporter_is_told_which_fields_to_add(exporter: str, capsys: pytest.CaptureFixture[str]) -> None:
    raw = [{"kind": "exporters", "targets": [f"http://{exporter}/amd"], "interval": 0.2}]
    assert examine_and_print(Settings().with_sources(raw), 10.0) == doctor.SOMETHING_MISSING
    text = capsys.readouterr().out
    assert f"ok: {exporter}/amd  AMD device-metrics-exporter" in text
    assert "utilisation          gpu.util" in text
    assert "power limit          gpu.power_limit             not exported" in text
    added = text.partition(
        "-> add to GPUConfig.Fields of the exporter's config.json, and restart the exporter:"
    )[2]
    assert [line.strip() for line in added.splitlines()[1:3]] == [
        "GPU_PROF_TENSOR_ACTIVE_PERCENT (with ProfilerMetrics.all = true)",
        "GPU_XGMI_LINK_TX",
    ]
    assert "csv" not in text.lower()


def test_what_answered_is_written(
    exporter: str, closed_target: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sources = [
        {"kind": "exporters", "targets": [exporter, closed_target], "interval": 0.2},
        {"kind": "exporters", "targets": [closed_target], "name": "dead", "interval": 0.2},
    ]
    path = tmp_path / "config.toml"
    status = examine_and_print(
        Settings().with_sources(sources), 5.0, as_json=True, write_to=path, force=False
    )
    out, err = capsys.readouterr()
    assert status == doctor.SOURCE_FAILS
    assert json.loads(out)["sources"][1]["targets"][0]["state"] == "failing"
    assert str(path) in err
    assert load(path).sources == (ExporterSettings(targets=(exporter,), interval=0.2),)
    with pytest.raises(ConfigError, match="a configuration already"):
        examine_and_print(Settings().with_sources(sources[:1]), 5.0, as_json=True, write_to=path, force=False)


def test_nothing_is_written_when_nothing_answered(
    closed_target: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = Settings().with_sources([{"kind": "exporters", "targets": [closed_target], "interval": 0.2}])
    assert examine_and_print(settings, 3.0, write_to=tmp_path / "c.toml") == doctor.SOURCE_FAILS
    assert "nothing is written" in capsys.readouterr().err
    assert not (tmp_path / "c.toml").exists()


def test_the_simulator_has_it_all(capsys: pytest.CaptureFixture[str]) -> None:
    settings = Settings(sources=(SimulatorSettings(racks=1, interval=0.2),))
    status = examine_and_print(settings, 10.0, as_json=False, write_to=None, force=False)
    assert status in (doctor.ALL_THERE, doctor.SOMETHING_MISSING)  # a simulated node may be down just now
    assert "of 4 targets answer" in capsys.readouterr().out
    assert narrowed(settings, ask(Scripted([target("n1"), *node_rounds()]))) == settings
