"""AMD beside NVIDIA, BMCs, and a site's own metrics: from pages over real HTTP to what stands on the screen."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Iterator

import numpy as np
import pytest
from lab.pages import amd_page, dcgm_page, gpu_labels, ipmi_page, line, one_gpu
from lab.scraped import scraped
from lab.snapshots import AT, FakeFeed

from coldaisle.analyzers.snapshot import Snapshot, Status
from coldaisle.sources.catalog import forget_declared
from coldaisle.sources.settings import MetricSettings
from coldaisle.sources.vocabularies import vocabularies_for
from coldaisle.tui.app import ColdaisleApp
from coldaisle.tui.cells import default_metric, metric_of, next_metric
from coldaisle.tui.picture import group_power
from coldaisle.tui.reading import read
from coldaisle.tui.screens.gpu_panes import View, gpu_detail, gpu_metrics, values_pane
from coldaisle.tui.screens.node import NodeScreen
from coldaisle.tui.screens.node_panes import host_metrics, host_pane
from coldaisle.tui.screens.nodes import SORTS, NodesScreen, columns, node_cells, order
from coldaisle.tui.widgets.cursor import cursor_lines, side_rows
from coldaisle.tui.widgets.lines import Row

RACKS = {"r01": ("a01", "a02"), "r02": ("n01", "n02")}


@pytest.fixture(autouse=True)
def only_shipped() -> Iterator[None]:
    yield
    forget_declared()


@pytest.fixture
def berlin(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with monkeypatch.context() as patch:
        patch.setenv("TZ", "Europe/Berlin")
        time.tzset()
        yield
    time.tzset()


def text(rows: list[Row]) -> str:
    return "\n".join("".join(run.text for run in row) for row in rows)


def profiled(node: str) -> bytes:
    """A dcgm-exporter with the profiling fields that are off by default."""
    more = "".join(
        line(name, gpu_labels(node, gpu), value)
        for gpu in range(8)
        for name, value in (("DCGM_FI_PROF_SM_ACTIVE", 0.8), ("DCGM_FI_DEV_ENFORCED_POWER_LIMIT", 700))
    )
    return dcgm_page(node) + more.encode()


async def mixed() -> Snapshot:
    """Two nodes of MI300X beside two of H100, the AMD ones with a BMC."""
    pages = {
        "a01": amd_page("a01") + ipmi_page(7000, 24),
        "a02": amd_page("a02", prefix="amd_", upper=True) + ipmi_page(8000, 26),
        "n01": profiled("n01"),
        "n02": profiled("n02"),
    }
    return await scraped(pages, AT, racks=RACKS)


async def test_amd_cells_stand_and_sort_beside_nvidias() -> None:
    snapshot = await mixed()
    layout = snapshot.layout
    assert [rack.name for rack in layout.racks] == ["r01", "r02"]
    assert [len(node.gpus) for node in layout.nodes] == [8, 8, 8, 8]
    assert {gpu.model for gpu in layout.gpus} == {"AMD Instinct MI300X", "NVIDIA H100 80GB HBM3"}
    assert (snapshot.gpu_status == Status.OK).all()
    for key in ("gpu.util", "gpu.power", "gpu.temp", "gpu.mem_temp", "gpu.mem_ratio", "gpu.sm_clock"):
        assert np.isfinite(snapshot.columns[key].values).all(), key
    assert default_metric(snapshot).key == "gpu.util", "the first metric that all of them have"
    sm = read(snapshot, "gpu.sm_active", 0)
    assert (sm.missing, sm.why) == (True, "not exported")
    busiest = order(snapshot, next(sort for sort in SORTS if sort.column == "gpus"))
    assert set(busiest) == {"a01", "a02", "n01", "n02"}
    assert busiest[-1] in ("n01", "n02"), "80 % of the SMs against half of the time on average"
    (target,) = (one for one in snapshot.sources[0].targets if one.nodes == ("a01",))
    assert target.what == "AMD device-metrics-exporter, ipmi_exporter"
    assert "GPUConfig.Fields of the exporter's config.json: GPU_PROF_SM_ACTIVE" in target.remedy


async def test_a_racks_power_is_its_bmcs_or_says_gpus() -> None:
    snapshot = await mixed()
    layout = snapshot.layout
    power = {
        rack.name: group_power(snapshot, rack.nodes, rack.gpus, at) for at, rack in enumerate(layout.racks)
    }
    assert (power["r01"][0].short, power["r01"][0].watts) == ("15kW", 15000)
    assert power["r02"][0].short.startswith("GPU ")
    side = text(side_rows(snapshot, 0, metric_of("gpu.util"), AT, 40, "-"))
    assert "power      15.0 kW its nodes" in side
    assert "GPUs draw" in side


@pytest.mark.usefixtures("berlin")
def test_picture_of_amd_beside_nvidia(snap_compare: object) -> None:
    assert callable(snap_compare)
    snapshot = asyncio.run(mixed())
    app = ColdaisleApp(FakeFeed(snapshot), name="atlas", clock=lambda: AT)
    assert snap_compare(app, terminal_size=(120, 34), press=["wait:200"])


OWN = (
    MetricSettings(key="job.step_time", names=("train_step_seconds",), unit="s", job="slurm_job_id"),
    MetricSettings(key="gpu.mfu", names=("mfu",), unit="ratio", gpu="uuid"),
    MetricSettings(key="gpu.coolant", names=("coolant",), unit="C", range=(20, 70), gpu="uuid"),
    MetricSettings(key="node.chilled_water", names=("water",), unit="C"),
    MetricSettings(key="rack.leak", names=("leak",), unit="state", rack="rack"),
)


async def own() -> Snapshot:
    uuid = gpu_labels("n01", 0)["UUID"]
    page = (
        one_gpu(
            {"DCGM_FI_DEV_GPU_TEMP": 61, "DCGM_FI_DEV_GPU_UTIL": 90},
            {**gpu_labels("n01", 0), "hpc_job": "4711"},
        )
        + b'train_step_seconds{slurm_job_id="4711"} 0.812\ntrain_step_seconds{slurm_job_id="9"} 3\n'
        + f'mfu{{uuid="{uuid}"}} 0.41\ncoolant{{uuid="{uuid}"}} 45\n'.encode()
        + b'water 31.5\nleak{rack="r02"} 1\n'
    )
    words = vocabularies_for([], OWN)
    return await scraped({"n01": page}, AT, racks=RACKS, vocabularies=words)


async def test_a_sites_own_metrics_stand_where_their_entity_does() -> None:
    snapshot = await own()
    assert [job.id for job in snapshot.jobs] == ["slurm:4711"]
    assert snapshot.columns["job.step_time"].values.tolist() == [pytest.approx(0.812)], (
        "of the jobs that are known"
    )
    view = View(120, 40)
    assert "step time 812 ms" in text(cursor_lines(snapshot, 0, metric_of("gpu.util"), AT, 120))
    side = text(side_rows(snapshot, 0, metric_of("gpu.util"), AT, 40, "-"))
    assert re.search(r"chilled water +32 °C", side)
    assert re.search(r"leak +1", side)
    detail = text(gpu_detail(snapshot, 0, view))
    assert "step time 812 ms" in detail
    assert "mfu 41 %" in detail
    values = text(values_pane(snapshot, 0, view))
    assert re.search(r"mfu +41 %", values)
    assert re.search(r"Job 4711\n+step_time +812 ms", values)
    assert [metric.name for metric in gpu_metrics(snapshot)[-2:]] == ["mfu", "coolant"]
    assert host_metrics()[-1] == ("node.chilled_water", "chilled water")
    assert re.search(r"chilled water.* 32 °C", text(host_pane(snapshot, 0, None, view)))
    assert [column.title for column in columns()][-2:] == ["chilled water", "problem"]
    (cell,) = node_cells(snapshot, 0, ["node.chilled_water"], ())
    assert getattr(cell, "text") == "32 °C"  # noqa: B009


async def test_cells_show_a_sites_own_metric_on_the_scale_of_its_range() -> None:
    snapshot = await own()
    shown, metric = [], metric_of("gpu.util")
    while metric.key not in shown:
        shown.append(metric.key)
        metric = next_metric(snapshot, metric, 1)
    assert {"gpu.mfu", "gpu.coolant"} <= set(shown)
    coolant = metric_of("coolant")
    assert (coolant.low, coolant.high, coolant.extent) == (20, 70, "in steps of 5 °C")


async def test_its_charts_ask_for_it() -> None:
    feed = FakeFeed(await own())
    app = ColdaisleApp(feed, name="atlas", clock=lambda: AT)
    async with app.run_test(size=(120, 34)) as pilot:
        await pilot.pause()
        app.push_screen(NodeScreen("n01"))
        await pilot.pause()
        await pilot.press("m", "m", "m")
        await pilot.pause()
        assert {"gpu.mfu", "gpu.coolant"} <= {key for query in feed.queries for key in query.keys}
        await pilot.press("tab", "tab")
        await pilot.pause()
        assert "node.chilled_water" in feed.queries[-1].keys
        await pilot.press("escape", "4")
        await pilot.pause()
        assert isinstance(app.screen, NodesScreen)
