"""A Prometheus as the only source: from the configuration to what the dashboard and ``doctor`` show."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import numpy as np
import pytest
from lab.pages import Pages, dcgm_page, node_page, served
from lab.prometheus import Scraped, Server, openmetrics, prometheus

from coldaisle.analyzers.monitor import Monitor, MonitorSettings
from coldaisle.analyzers.snapshot import Snapshot, Status
from coldaisle.sources.collector import SteadyClock
from coldaisle.sources.config import Settings, load
from coldaisle.sources.configured import sources_from
from coldaisle.tui.doctor import SOMETHING_MISSING, examine_and_print
from coldaisle.tui.screens.source_panes import name_pane

NODES = ("r01n01", "r01n02", "r02n01", "r02n02")


@contextlib.asynccontextmanager
async def cluster(folder: Path) -> AsyncIterator[Server]:
    """Four nodes, each with both exporters, and a target where nothing answers."""
    async with contextlib.AsyncExitStack() as stack:
        turn = iter(range(10**9))
        gpus, hosts = [], []
        for place, node in enumerate(NODES):
            host = f"127.0.33.{place + 1}"
            page = Pages(lambda node=node: dcgm_page(node, 2, next(turn)), host=host)  # type: ignore[misc]
            gpus.append((await stack.enter_async_context(served(page))).target)
            own = Pages(lambda node=node: node_page(node), host=host)  # type: ignore[misc]
            hosts.append((await stack.enter_async_context(served(own))).target)
        jobs = [Scraped([*gpus, "127.0.33.99:9"]), Scraped(hosts, job="node")]
        with prometheus(folder, jobs) as server:
            await server.until("count_over_time(node_load1[10s]) >= 3", 4)
            yield server


def settings_of(folder: Path, url: str) -> Settings:
    file = folder / "config.toml"
    file.write_text(f'name = "atlas"\n[[source]]\nkind = "prometheus"\nurl = "{url}"\n')
    return load(file)


async def shown(settings: Settings, enough: Callable[[Snapshot], bool]) -> Snapshot:
    """The first snapshot of which this is true."""
    clock = SteadyClock()
    monitor = Monitor(sources_from(settings, clock), MonitorSettings(interval=0.2), clock)
    found: asyncio.Future[Snapshot] = asyncio.get_running_loop().create_future()

    def publish(snapshot: Snapshot) -> None:
        if enough(snapshot) and not found.done():
            found.set_result(snapshot)

    task = asyncio.create_task(monitor.run(publish))
    try:
        return await asyncio.wait_for(found, 30)
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_the_dashboard_has_all_of_it(tmp_path: Path) -> None:
    async with cluster(tmp_path) as server:
        snapshot = await shown(
            settings_of(tmp_path, server.url),
            lambda s: len(s.layout.gpus) == 8 and bool(s.sources[0].targets) and s.sources[0].targets_ok > 2,
        )
    assert [node.key for node in snapshot.layout.nodes] == list(NODES)
    assert [rack.name for rack in snapshot.layout.racks] == ["r01", "r02"]
    assert (snapshot.node_status == Status.OK).all()
    assert not np.isnan(snapshot.columns["gpu.power"].values).any()
    assert snapshot.columns["node.cpu_util"].values == pytest.approx([0.2] * 4, abs=0.05)
    (source,) = snapshot.sources
    assert source.state == "partial"
    assert "cannot scrape it" in source.why
    # the target that never answered is a node that is expected, and named
    assert (snapshot.coverage.nodes, snapshot.coverage.nodes_expected) == (4, 5)
    pane = "\n".join("".join(run.text for run in row) for row in name_pane(snapshot, 120))
    assert "matched to no node (1): 127.0.33.99" in pane


async def test_a_start_shows_the_last_minutes_at_once(tmp_path: Path) -> None:
    async with cluster(tmp_path) as server:
        await server.until("count_over_time(node_load1[30s]) >= 8", 4)
        clock = SteadyClock()
        (source,) = sources_from(settings_of(tmp_path, server.url), clock)
        now = clock()
        past = [item async for item in source.read(now - 8, now, 1.0)]  # type: ignore[attr-defined]
        await source.stream().aclose()
    assert len({item.at for item in past if type(item).__name__ == "Batch"}) >= 6


async def test_a_past_instant_shows_what_the_server_says_of_it(tmp_path: Path) -> None:
    start = float(int(time.time()) - 7200)
    texts: dict[str, dict[str, list[tuple[float, object]]]] = {}
    for place, node in enumerate(NODES):
        for gpu in range(2):
            labels = (
                f'instance="{node}:9400",job="dcgm",UUID="GPU-{node}-{gpu}",Hostname="{node}",gpu="{gpu}"'
            )
            times = [start + 15 * n + place for n in range(240)]
            texts.setdefault("DCGM_FI_DEV_GPU_UTIL", {})[labels] = [
                (at, int(at * 7 + gpu) % 101) for at in times
            ]
            texts.setdefault("DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION", {})[labels] = [
                (at, 1e9 + 350_000 * (at - start) + 20_000 * (at % 47)) for at in times
            ]
    history = [openmetrics(name, series) for name, series in texts.items()]
    with prometheus(tmp_path, history=history) as server:
        settings, clock = settings_of(tmp_path, server.url), SteadyClock()
        monitor = Monitor(sources_from(settings, clock), MonitorSettings(interval=0.2), clock)
        snapshot = await past_of(monitor, start + 1801.25)
        keys = {f"GPU-{node}-{gpu}": f"{node}/{gpu}" for node in NODES for gpu in range(2)}
        for key, query, scale in (
            ("gpu.util", "DCGM_FI_DEV_GPU_UTIL", 0.01),
            ("gpu.energy", "rate(DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION[60s])", 0.001),
        ):
            column = snapshot.columns[key]
            for series, value in server.rows(query, snapshot.at):
                gpu = snapshot.layout.gpu_of[keys[series["UUID"]]]
                assert column.values[gpu] == np.float32(value * scale)
                assert snapshot.at - column.at[gpu] < 1e-3
    assert not snapshot.live
    assert snapshot.at == pytest.approx(start + 1801.25, abs=1e-3)
    assert len(snapshot.layout.gpus) == 8


async def past_of(monitor: Monitor, at: float) -> Snapshot:
    """What the dashboard shows of an instant, once it is there."""
    found: asyncio.Future[Snapshot] = asyncio.get_running_loop().create_future()

    def publish(snapshot: Snapshot) -> None:
        if not snapshot.live and "gpu.energy" in snapshot.columns and not found.done():
            found.set_result(snapshot)

    task = asyncio.create_task(monitor.run(publish))
    try:
        await asyncio.sleep(0)
        monitor.traveller.go(at)
        return await asyncio.wait_for(found, 30)
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_doctor_says_what_is_missing_and_how_to_get_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async with cluster(tmp_path) as server:
        settings = settings_of(tmp_path, server.url)
        status = await asyncio.to_thread(examine_and_print, settings, 20.0, as_json=True)
    said = json.loads(capsys.readouterr().out)
    assert status == SOMETHING_MISSING
    (source,) = said["sources"]
    assert set(said["nodes"]) == {*NODES, "127.0.33.99"}
    assert said["silent_nodes"] == ["127.0.33.99"]
    states = {target["name"]: target["state"] for target in source["targets"]}
    assert states.pop("127.0.33.99:9") == "failing"
    assert set(states) == {server.url.removeprefix("http://"), "dcgm (dcgm-exporter)", "node (node_exporter)"}
    assert set(states.values()) == {"ok"}
    assert any("DCGM_FI_DEV_ENFORCED_POWER_LIMIT" in line for line in source["counters"]["dcgm-exporter"])
