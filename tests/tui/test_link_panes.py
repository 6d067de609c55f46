"""Links on the screens of a node and of a job: each against what it can reach, the lame rail against its siblings."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from lab.jobs import night_of_jobs
from lab.snapshots import AT, PORTS, FakeFeed, make_snapshot
from textual.pilot import Pilot

from coldaisle.analyzers.snapshot import Snapshot
from coldaisle.tui.app import ColdaisleApp
from coldaisle.tui.screens import link_panes
from coldaisle.tui.screens.gpu_panes import View
from coldaisle.tui.screens.job import JobScreen
from coldaisle.tui.screens.node import NodeScreen
from coldaisle.tui.widgets.chart import ASCII
from coldaisle.tui.widgets.lines import Lines, row_text, row_width, text_of


@pytest.fixture(scope="module")
def night() -> Snapshot:
    return make_snapshot()


def lame(snapshot: Snapshot, port: int) -> Snapshot:
    """One rail at a quarter of its rate, with errors."""
    columns = dict(snapshot.columns)
    for key, value in (("port.rate", 12.5e9), ("port.symbol_errors", 12.0)):
        values = columns[key].values.copy()
        values[port] = value
        columns[key] = replace(columns[key], values=values)
    return replace(snapshot, columns=columns)


def without(snapshot: Snapshot, *prefixes: str) -> Snapshot:
    kept = {key: column for key, column in snapshot.columns.items() if not key.startswith(prefixes)}
    return replace(snapshot, columns=kept)


@pytest.mark.parametrize("width", [60, 80, 120, 200])
def test_ports_and_boards_against_what_they_reach(night: Snapshot, width: int) -> None:
    rows = link_panes.links_pane(night, 0, None, View(width, 30))
    said = text_of(rows)
    assert all(row_width(row) <= width for row in rows)
    assert "NVLink sent" in said
    assert "100 % is what can be reached" in said
    load = link_panes.port_load(night, 0, "tx")
    assert load.share == pytest.approx(load.reading.value / (50e9 * 0.85), rel=1e-4)
    assert f"{load.share * 100:3.0f} %" in said


def test_what_is_wrong_stands_first(night: Snapshot) -> None:
    rows = link_panes.links_pane(lame(night, 0), 0, None, View(80, 18))
    assert row_text(rows[0]).startswith("mlx5_0/1: runs at 100 of 400 Gb/s, symbol errors 12.0 /s")


def test_idle_rails_are_not_lame(night: Snapshot) -> None:
    column = night.columns["port.tx"]
    idle = replace(night, columns={**night.columns, "port.tx": replace(column, values=column.values * 0)})
    said = text_of(link_panes.links_pane(idle, 0, None, View(80, 18)))
    assert "no error is counted on any link" in said


def test_pcie_at_rest_is_not_degraded_and_under_load_it_is(night: Snapshot) -> None:
    columns = dict(night.columns)
    shape = columns["gpu.util"]
    for key, value in (("gpu.pcie_gen", 1.0), ("gpu.pcie_gen_max", 5.0)):
        columns[key] = replace(shape, values=shape.values * 0 + value)
    for util, seen in ((0.0, False), (0.9, True)):
        columns["gpu.util"] = replace(shape, values=shape.values * 0 + util)
        found = link_panes.board_troubles(replace(night, columns=columns), [0])
        assert bool(found) is seen
    assert found[0] == [("PCIe at gen1 of gen5", "bad")]


def test_only_a_sum_of_both_ways_is_halved(night: Snapshot) -> None:
    sent = night.columns["gpu.nvlink_tx"]
    summed = without(night, "gpu.nvlink")
    summed = replace(summed, columns={**summed.columns, "gpu.nvlink_bandwidth": sent})
    assert link_panes.nvlink_load(summed, 0, "rx").reading.value == pytest.approx(float(sent.values[0]) / 2)


def test_nothing_measured_is_a_dash_and_no_zero(night: Snapshot) -> None:
    bare = without(night, "gpu.nvlink", "gpu.pcie", "port.")
    said = text_of(link_panes.links_pane(bare, 0, None, View(80, 18)))
    assert " 0 %" not in said
    assert "NVLink sent" not in said
    unknown = link_panes.Load(link_panes.port_load(night, 0, "tx").reading, math.nan)
    assert "%" not in row_text(link_panes.load_cell(unknown, 11, View(80, 18)))


def test_a_bar_of_ascii(night: Snapshot) -> None:
    assert row_text(link_panes.gauge(0.5, 8, View(80, 18, ASCII))) == "####...."
    assert row_text(link_panes.gauge(0.001, 8, View(80, 18))) == "░" * 8
    assert row_text(link_panes.gauge(7.0, 4, View(80, 18))) == "████"


def test_a_sum_where_one_part_missed_a_sample() -> None:
    nan = math.nan
    found = link_panes.summed([[1, 1, nan], [1, nan, nan], [1, 1, 3]])
    assert found[:2] == [3, 3]
    assert math.isnan(found[2])
    assert link_panes.summed([]) == []


async def on_links(pilot: Pilot[None], job: str) -> str:
    await pilot.pause()
    screen = JobScreen(job)
    pilot.app.push_screen(screen)
    await pilot.pause()
    await pilot.press("tab", "tab")
    await pilot.pause()
    return text_of(screen.query_one("#pane", Lines).rows)


@pytest.mark.parametrize("size", [(80, 24), (200, 50)])
async def test_a_job_sums_by_node_and_shows_the_lame_rail(size: tuple[int, int]) -> None:
    night = night_of_jobs()
    job = next(job for job in night.jobs if len(job.nodes) > 1)
    port = night.layout.nodes[night.layout.node_of[job.nodes[1]]].ports.start
    snapshot = lame(night, port)
    async with ColdaisleApp(FakeFeed(snapshot), name="atlas", clock=lambda: AT).run_test(size=size) as pilot:
        said = await on_links(pilot, job.id)
        lines = [line.split() for line in said.splitlines()]
        assert [line[0] for line in lines if line and line[0] in job.nodes] == list(job.nodes)
        assert said.count(PORTS[0]) == 1
        assert "runs at 100 of 400" in said
        await pilot.press("down", "down", "enter")  # the first node, the second, its rail
        await pilot.pause()
        assert isinstance(pilot.app.screen, NodeScreen)
        assert pilot.app.screen.node == job.nodes[1]


async def test_a_job_without_ports_still_has_nvlink() -> None:
    night = without(night_of_jobs(), "port.")
    job = night.jobs[0]
    async with ColdaisleApp(FakeFeed(night), name="atlas", clock=lambda: AT).run_test(
        size=(120, 34)
    ) as pilot:
        said = await on_links(pilot, job.id)
        assert "NVLink tx" in said
        assert job.nodes[0] in said
