"""The map: where cells stand, what its lines say, and that only lines that differ are painted."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lab.snapshots import AT, FakeFeed, Faults, make_snapshot, with_values
from textual.geometry import Region

from coldaisle.analyzers.snapshot import Column, Snapshot
from coldaisle.tui.app import ColdaisleApp
from coldaisle.tui.cells import CellMetric, metric_of
from coldaisle.tui.glyphs import ASCII, UNICODE, Glyphs
from coldaisle.tui.picture import Ink, MapRow, MapView, map_rows, segments_of, short
from coldaisle.tui.theme import palette
from coldaisle.tui.tiles import Group, Plan, Zoom, groups_of, plan_map, tail
from coldaisle.tui.widgets.heatmap import Heatmap

SM = metric_of("gpu.sm_active")
INK = Ink(palette("dark"), UNICODE)


def plan_for(snapshot: Snapshot, width: int, height: int, zoom: Zoom | None = None, by: str = "rack") -> Plan:
    groups = groups_of(snapshot, by, slices=zoom is Zoom.SLICES)
    return plan_map(groups, width, height, zoom, foot=False, halves=True)


def drawn(
    snapshot: Snapshot, width: int = 78, height: int = 10, zoom: Zoom | None = None, *, by: str = "rack",
    metric: CellMetric = SM, cursor: int | None = None, glyphs: Glyphs = UNICODE, foot: bool = False,
) -> list[str]:  # fmt: skip
    """The map as text."""
    groups = groups_of(snapshot, by, slices=zoom is Zoom.SLICES)
    plan = plan_map(groups, width, height, zoom, foot=foot, halves=True)
    rows, _ = map_rows(snapshot, MapView(groups, plan, metric, None, cursor), glyphs)
    return [text_of(row).rstrip() for row in rows]


def text_of(row: MapRow) -> str:
    return "".join(segment.text for segment in segments_of(row, INK))


class TestZoom:
    def test_512_gpus_fit_80x24_with_titles(self) -> None:
        plan = plan_for(make_snapshot(), 80, 16)
        assert (plan.zoom, plan.height) == (Zoom.TILES, 11)

    def test_titles_stay_as_long_as_they_fit(self) -> None:
        assert plan_for(make_snapshot(), 80, 10).zoom is Zoom.TILES
        assert plan_for(make_snapshot(), 60, 13).zoom is Zoom.DENSE

    def test_8192_gpus_fit_200x50_without_titles(self) -> None:
        plan = plan_for(make_snapshot(128, 8, 8), 200, 43)
        assert plan.zoom is Zoom.DENSE
        assert plan.height <= 43
        assert len(set(zip(plan.x.tolist(), plan.y.tolist(), strict=True))) == 8192

    def test_then_half_blocks(self) -> None:
        plan = plan_for(make_snapshot(128, 8, 8), 200, 24)
        assert plan.zoom is Zoom.HALVES
        assert len(plan.gpu) == 8192

    def test_then_a_cell_a_rack(self) -> None:
        plan = plan_for(make_snapshot(128, 8, 8), 80, 13)
        assert (plan.zoom, len(plan.gpu)) == (Zoom.GROUPS, 128)

    def test_by_hand_it_may_be_too_high(self) -> None:
        assert plan_for(make_snapshot(128, 8, 8), 80, 13, Zoom.TILES).height > 13

    def test_half_blocks_need_a_terminal_that_has_them(self) -> None:
        groups = groups_of(make_snapshot(128, 8, 8), "rack")
        assert plan_map(groups, 200, 24, None, foot=False, halves=False).zoom is Zoom.GROUPS

    def test_nothing_at_all(self) -> None:
        plan = plan_for(make_snapshot(0), 80, 13)
        assert (plan.height, len(plan.gpu)) == (0, 0)

    @settings(max_examples=40, deadline=None)
    @given(
        racks=st.integers(0, 20), nodes=st.integers(1, 6), gpus=st.integers(1, 20),
        width=st.integers(8, 120), height=st.integers(1, 40), zoom=st.sampled_from([None, *Zoom]),
        by=st.sampled_from(["rack", "node", "job", "model"]),
    )  # fmt: skip
    def test_every_gpu_has_a_place_of_its_own(
        self, racks: int, nodes: int, gpus: int, width: int, height: int, zoom: Zoom | None, by: str
    ) -> None:
        snapshot = make_snapshot(racks, nodes, gpus)
        plan = plan_for(snapshot, width, height, zoom, by)
        places = set(zip(plan.x.tolist(), plan.y.tolist(), strict=True))
        assert len(places) == len(plan.gpu)
        assert all(0 <= x < width and 0 <= y < plan.height * plan.halves for x, y in places)
        if plan.zoom is not Zoom.GROUPS:
            assert sorted(plan.gpu.tolist()) == list(range(len(snapshot.layout.gpus)))
        labels = {(line.x, line.y) for line in plan.labels}
        assert not {(x, y) for x, y in places if plan.zoom is not Zoom.GROUPS} & labels


class TestPicture:
    def test_a_tile_is_a_title_over_a_row_a_node(self) -> None:
        snapshot = with_values(
            make_snapshot(1, 2, 4), "gpu.sm_active", {f"r01n01/{n}": 0.1 * n + 0.05 for n in range(4)}
        )
        snapshot = with_values(snapshot, "gpu.sm_active", {f"r01n02/{n}": 0.95 for n in range(4)})
        assert drawn(snapshot) == ["r01  57%", "0123", "9999"]

    def test_a_lost_gpu_marks_its_rack(self) -> None:
        lines = drawn(make_snapshot(1, 1, 4, faults=Faults(lost=("r01n01/2",))))
        assert lines[0].startswith("r01!")
        assert lines[1][2] == "X"

    def test_a_stale_node_marks_its_rack(self) -> None:
        lines = drawn(make_snapshot(1, 2, 4, faults=Faults(stale=("r01n02",))))
        assert lines[0].startswith("r01*")
        assert lines[2] == "????"

    def test_long_rack_names_keep_their_end(self) -> None:
        lines = drawn(make_snapshot(2, 1, 4, rack_names=("datahall-west-row-17", "datahall-west-row-18")))
        assert "row-17" in lines[0]
        assert "row-18" in lines[0]

    def test_hostile_rack_names_are_inert(self) -> None:
        names = ("\x1b]52;c;aGk=\x07[red]r1", "‮evil", "日本語ラック")
        lines = drawn(make_snapshot(3, 1, 8, rack_names=names), width=78)
        assert "\x1b" not in "".join(lines)
        assert "‮" not in "".join(lines)

    def test_the_cursor_has_a_marker_behind_its_row(self) -> None:
        lines = drawn(make_snapshot(2, 2, 4), cursor=5, glyphs=ASCII)
        assert lines[2][4] == "<"
        assert "<" not in "".join(lines[:2])

    def test_slices_take_the_place_of_their_board(self) -> None:
        snapshot = with_values(
            make_snapshot(1, 1, 2, mig=("r01n01/0",)), "gpu.sm_active",
            {"r01n01/0:gi1": 0.25, "r01n01/0:gi2": 0.65, "r01n01/1": 0.85},
        )  # fmt: skip
        assert drawn(snapshot)[1] == "48"
        assert drawn(snapshot, zoom=Zoom.SLICES)[1] == "268"

    def test_the_foot_has_power_and_inlet(self) -> None:
        snapshot = with_values(make_snapshot(1, 2, 8), "node.power", {"r01n01": 6400.0, "r01n02": 6600.0})
        snapshot = with_values(snapshot, "node.inlet_temp", {"r01n01": 24.0, "r01n02": 27.0})
        assert drawn(snapshot, foot=True)[3] == "13kW 27C"

    def test_a_rack_that_is_not_told_in_full_has_the_power_of_its_gpus_and_says_so(self) -> None:
        told = make_snapshot(1, 2, 8)
        assert re.fullmatch(r"\d+kW \d+C *", drawn(told, foot=True)[3])
        snapshot = with_values(told, "node.power", {"r01n01": float("nan")})
        watts = float(snapshot.columns["gpu.power"].values.sum())
        assert drawn(snapshot, foot=True)[3].strip() == f"GPU {watts / 1000:.0f}kW"
        lost = with_values(snapshot, "gpu.power", {"r01n01/3": float("nan")})
        assert drawn(lost, foot=True)[3].startswith("GPU>")
        unknown = with_values(
            lost, "gpu.power", dict.fromkeys((gpu.key for gpu in lost.layout.gpus), float("nan"))
        )
        assert "kW" not in drawn(unknown, foot=True)[3]

    def test_what_the_racks_pdu_measures_is_believed_first(self) -> None:
        snapshot = make_snapshot(1, 2, 8)
        column = Column(
            np.array([36_400.0], np.float32),
            np.array([snapshot.at]),
            np.zeros(1, np.uint8),
            np.zeros(1, np.uint8),
        )
        snapshot = replace(snapshot, columns={**snapshot.columns, "rack.power": column})
        assert drawn(snapshot, foot=True)[3].startswith("36kW ")

    @pytest.mark.parametrize("by", ["rack", "node", "job", "model"])
    def test_every_grouping_shows_every_gpu(self, by: str) -> None:
        lines = drawn(make_snapshot(2, 2, 4, jobs_known=by == "job"), by=by, zoom=Zoom.DENSE)
        assert sum(len(line.replace(" ", "")) for line in lines) == 16

    def test_half_blocks_hold_two_gpus(self) -> None:
        assert drawn(make_snapshot(1, 4, 4), zoom=Zoom.HALVES) == ["▀▀▀▀", "▀▀▀▀"]

    def test_equal_neighbours_are_one_run(self) -> None:
        values = {f"r01n01/{n}": 0.8 for n in range(8)}
        snapshot = with_values(make_snapshot(1, 1, 8), "gpu.sm_active", values)
        groups = groups_of(snapshot, "rack")
        plan = plan_map(groups, 8, 3, Zoom.DENSE, foot=False, halves=True)
        rows, _ = map_rows(snapshot, MapView(groups, plan, SM, None, None), UNICODE)
        assert [segment.text for segment in segments_of(rows[0], INK)] == ["88888888"]


@pytest.mark.parametrize(
    ("key", "value", "shown"),
    [
        ("gpu.sm_active", 0.854, "85%"),
        ("gpu.temp", 71.2, "71C"),
        ("gpu.nvlink_tx", 212e9, "212G"),
        ("gpu.sm_clock", 1755.0, "1755"),
        ("gpu.sm_active", float("nan"), "-"),
    ],
)
def test_means_are_short(key: str, value: float, shown: str) -> None:
    assert short(value, metric_of(key)) == shown


@pytest.mark.parametrize(
    ("name", "width", "shown"), [("rack-17", 7, "rack-17"), ("rack-17", 4, "…-17"), ("rack-17", 1, "…")]
)
def test_names_are_cut_at_their_front(name: str, width: int, shown: str) -> None:
    assert tail(name, width, "…") == shown


class TestNeighbours:
    def test_the_grid_is_walked_as_it_looks(self) -> None:
        plan = plan_for(make_snapshot(4, 2, 4), 40, 8)
        across = plan.cell_of(3)
        assert across is not None
        assert plan.gpu[plan.neighbour(across, 1, 0)] == 8  # the next tile's first
        assert plan.gpu[plan.neighbour(0, 0, 1)] == 4
        assert plan.gpu[plan.neighbour(0, -1, 0)] == 0

    def test_a_click_on_a_title_means_its_first_gpu(self) -> None:
        plan = plan_for(make_snapshot(4, 2, 4), 40, 8)
        assert plan.cell_at(11, 0) == 8
        assert plan.cell_at(9, 1) is None


def test_a_group_wider_than_the_map_goes_on_below() -> None:
    groups = (Group("wide", (tuple(range(30)), tuple(range(30, 60)))),)
    plan = plan_map(groups, 20, 10, Zoom.DENSE, foot=False, halves=True)
    assert plan.height == 4
    assert plan.x.max() < 20


class TestWidget:
    @staticmethod
    def app(*snapshots: Snapshot) -> ColdaisleApp:
        return ColdaisleApp(FakeFeed(*snapshots), name="atlas", clock=lambda: AT, no_colour=False)

    async def test_only_lines_that_differ_are_painted(self) -> None:
        snapshot = make_snapshot()
        async with self.app(snapshot).run_test(size=(80, 24)) as pilot:
            await pilot.pause()
            heat = pilot.app.screen.query_one(Heatmap)
            painted: list[Region] = []
            refresh = heat.refresh

            def noting(*regions: Region, **rest: bool) -> Heatmap:
                painted.extend(regions)
                return refresh(*regions, **rest)

            heat.refresh = noting  # type: ignore[method-assign]
            feed = pilot.app.feed  # type: ignore[attr-defined]
            feed.send(snapshot)
            await pilot.pause()
            assert painted == []
            feed.send(with_values(snapshot, "gpu.sm_active", {"r01n02/3": 0.01}))
            await pilot.pause()
            assert {region.y for region in painted} == {0, 2}  # the rack's mean, and the node
            assert {region.width for region in painted} == {80}

    async def test_8192_cells_are_few_bytes(self) -> None:
        first, second = make_snapshot(128, 8, 8, seed=1), make_snapshot(128, 8, 8, seed=2)
        async with self.app(first).run_test(size=(200, 50)) as pilot:
            await pilot.pause()
            heat = pilot.app.screen.query_one(Heatmap)
            sizes = []
            for snapshot in (second, first) * 3:
                pilot.app.screen.show(snapshot)  # type: ignore[attr-defined]
                heat._styles_cache.clear()
                strips = heat.render_lines(Region(0, 0, *heat.size))
                sizes.append(sum(len(strip.render(pilot.app.console)) for strip in strips))
            assert max(sizes) <= 130_000

    async def test_the_colours_stay_numbers(self) -> None:
        async with self.app(make_snapshot()).run_test(size=(80, 24)) as pilot:
            await pilot.pause()
            heat = pilot.app.screen.query_one(Heatmap)
            line = heat.render_lines(Region(0, 1, 80, 1))[0]
            grounds = {
                segment.style.bgcolor.type.name for segment in line if segment.style and segment.style.bgcolor
            }
            assert grounds == {"EIGHT_BIT"}


def test_rows_are_compared_by_what_they_show() -> None:
    groups = groups_of(snapshot := make_snapshot(2, 2, 4), "rack")
    plan = plan_map(groups, 40, 8, None, foot=False, halves=True)
    view = MapView(groups, plan, SM, None, None)
    first, codes = map_rows(snapshot, view, UNICODE)
    assert first == map_rows(make_snapshot(2, 2, 4), view, UNICODE)[0]
    faded = MapView(groups, plan, SM, np.zeros(16, dtype=bool), None)
    assert map_rows(snapshot, faded, UNICODE)[0] != first
    assert codes
