"""A node seen by the probe, by dcgm-exporter and by node_exporter at once is one node, its boards are one board each."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from pathlib import Path

from lab.pages import Pages, dcgm_page, gpu_labels, served
from nvml.stub import StubHost
from services import require

from coldaisle.analyzers.monitor import Monitor, MonitorSettings
from coldaisle.analyzers.snapshot import Snapshot
from coldaisle.sources.bootstrap import local_command
from coldaisle.sources.collector import SteadyClock
from coldaisle.sources.exporters import ExporterSource
from coldaisle.sources.local import LocalSource
from coldaisle.sources.settings import LocalSettings

NODE_PAGE = (
    b'node_uname_info{nodename="n01",release="6.1"} 1\n'
    b"node_load1 77\n"
    b'node_infiniband_link_downed_total{device="mlx5_9",port="1"} 4\n'
)


def same_boards(folder: Path) -> StubHost:
    """Two boards that are those of the page, without the profiling that the page has."""
    host = StubHost(folder, gpus=2)
    for gpu in range(2):
        labels = gpu_labels("n01", gpu)
        host.gpu(gpu).put(uuid=labels["UUID"], pci=labels["pci_bus_id"], gpm_supported=0, power=432_000)
    return host


def sources_of(snapshot: Snapshot, key: str) -> set[str]:
    """Names of the sources that the values of a metric are from."""
    column = snapshot.columns[key]
    return {snapshot.sources[place].name for place in column.source.tolist() if place != 255}


async def test_probe_and_two_exporters_are_one_node_and_each_value_knows_its_source(tmp_path: Path) -> None:
    require("gcc")
    host = same_boards(tmp_path / "nvml")
    boards, machine = Pages(dcgm_page("n01", gpus=2)), Pages(NODE_PAGE)
    snapshots: list[Snapshot] = []
    news = asyncio.Event()

    def publish(snapshot: Snapshot) -> None:
        snapshots[:] = [snapshot]
        news.set()

    async def until(what: str, test: Callable[[Snapshot], bool], seconds: float = 40.0) -> Snapshot:
        try:
            async with asyncio.timeout(seconds):
                while not (snapshots and test(snapshots[0])):
                    news.clear()
                    await news.wait()
        except TimeoutError:
            raise AssertionError(f"not within {seconds:g} s: {what}\n{snapshots}") from None
        return snapshots[0]

    async with served(boards), served(machine):
        local = LocalSource(
            LocalSettings(interval=0.5),
            command=local_command(),
            environment={**os.environ, **host.environment()},
            node="here",  # as a login shell knows it; only the boards' UUIDs say that it is n01
        )
        exporters = ExporterSource([boards.target, machine.target], interval=0.5)
        monitor = Monitor([local, exporters], MonitorSettings("atlas", interval=0.5), SteadyClock())
        running = asyncio.create_task(monitor.run(publish))
        try:
            snapshot = await until(
                "both sources deliver",
                lambda s: (
                    {"gpu.power", "gpu.tensor_active", "node.load1", "port.link_downed"} <= s.columns.keys()
                    and len(s.layout.nodes) == 1
                    and sources_of(s, "gpu.power") == {"local"}
                ),
            )
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)

    assert len(snapshot.layout.gpus) == 2
    assert any(join.how == "GPU UUID" and not join.conflict for join in snapshot.joins)
    assert not [join for join in snapshot.joins if join.conflict]
    assert snapshot.columns["gpu.power"].values.tolist() == [432, 432]
    assert sources_of(snapshot, "gpu.tensor_active") == {"exporters"}
    assert sources_of(snapshot, "node.load1") == {"local"}
    assert snapshot.columns["node.load1"].values[0] != 77
    downed = snapshot.columns["port.link_downed"]
    (port,) = [row for row, value in enumerate(downed.values.tolist()) if value == 4]
    assert snapshot.sources[downed.source[port]].name == "exporters"
    assert snapshot.coverage.gpus == snapshot.coverage.gpus_expected == 2
