"""The Racks screen under keys, mouse, filters and odd sizes; and its pictures."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest
from lab.snapshots import AT, FakeFeed, Faults, make_snapshot
from textual.pilot import Pilot

from coldaisle.analyzers.snapshot import EventView, Snapshot
from coldaisle.tui.app import ColdaisleApp
from coldaisle.tui.screens.racks import RacksScreen, Room, room_of
from coldaisle.tui.tiles import Zoom
from coldaisle.tui.widgets.footer import KeyLine
from coldaisle.tui.widgets.header import TopLines
from coldaisle.tui.widgets.lines import row_text
from coldaisle.tui.widgets.painted import Rows


@pytest.fixture(autouse=True)
def berlin(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with monkeypatch.context() as patch:
        patch.setenv("TZ", "Europe/Berlin")
        time.tzset()
        yield
    time.tzset()


def app_of(*snapshots: Snapshot, **options: object) -> ColdaisleApp:
    options = {"name": "atlas", "clock": lambda: AT, "no_colour": False, **options}
    return ColdaisleApp(FakeFeed(*snapshots), **options)  # type: ignore[arg-type]


def racks(pilot: Pilot[None]) -> RacksScreen:
    assert isinstance(pilot.app.screen, RacksScreen)
    return pilot.app.screen


def lines(pilot: Pilot[None]) -> list[str]:
    """The screen as text."""
    return [strip.text.rstrip() for strip in pilot.app.screen._compositor.render_strips()]


def text(pilot: Pilot[None]) -> str:
    return "\n".join(lines(pilot))


def rows(pilot: Pilot[None], name: str) -> str:
    return "\n".join(row_text(row) for row in racks(pilot).query_one(name, Rows).rows)


class TestFirstPaint:
    async def test_without_data_it_says_so(self) -> None:
        async with app_of().run_test(size=(80, 24)) as pilot:
            await pilot.pause()
            assert lines(pilot)[0].startswith("atlas  connecting  03:12:41 CET")
            assert "on their way" in lines(pilot)[1]
            assert "1Racks" in lines(pilot)[2]

    async def test_every_key_is_harmless_without_data(self) -> None:
        keys = [
            "m",
            "M",
            "z",
            "g",
            "exclamation_mark",
            "enter",
            "up",
            "l",
            "pagedown",
            "home",
            "end",
            "escape",
        ]
        async with app_of().run_test(size=(80, 24)) as pilot:
            await pilot.pause()
            await pilot.press(*keys)
            assert lines(pilot)[0].startswith("atlas  connecting")

    async def test_an_empty_cluster_is_empty(self) -> None:
        async with app_of(make_snapshot(0)).run_test(size=(80, 24)) as pilot:
            await pilot.pause()
            await pilot.press("m", "z", "g", "exclamation_mark", "enter", "down")
            assert "no GPU is known yet" in text(pilot)


class TestLinesAtTheTop:
    async def test_trust_and_summary(self) -> None:
        async with app_of(make_snapshot()).run_test(size=(80, 24)) as pilot:
            await pilot.pause()
            assert (
                lines(pilot)[0] == "atlas  LIVE  03:12:41 CET  data 4 s  64/64 nodes  511/512 GPUs  ssh 63/64"
            )
            assert lines(pilot)[1].startswith(
                "448 allocated  56 free  8 drained  1 lost  8 stale  SM active 8"
            )
            assert lines(pilot)[2].endswith("by rack  SM active")

    async def test_wide_lines_say_more(self) -> None:
        async with app_of(make_snapshot()).run_test(size=(120, 34)) as pilot:
            await pilot.pause()
            assert "(02:12Z)" in lines(pilot)[0]
            assert "exporters ok  ssh 63/64" in lines(pilot)[0]
            assert "GPUs draw" in lines(pilot)[1]

    async def test_the_age_goes_on_without_the_feed(self) -> None:
        now = [AT]
        async with app_of(make_snapshot(), clock=lambda: now[0]).run_test(size=(80, 24)) as pilot:
            await pilot.pause()
            now[0] += 71
            racks(pilot).query_one(TopLines).tick()
            await pilot.pause()
            assert "data 1m15s" in lines(pilot)[0]

    async def test_the_past_is_not_called_live(self) -> None:
        async with app_of(make_snapshot(live=False)).run_test(size=(80, 24)) as pilot:
            await pilot.pause()
            assert "LIVE" not in lines(pilot)[0]
            assert " PAST 03:12:41 CET " in lines(pilot)[0]

    async def test_without_a_scheduler_nothing_is_called_allocated(self) -> None:
        async with app_of(make_snapshot(jobs_known=False)).run_test(size=(120, 34)) as pilot:
            await pilot.pause()
            assert "allocated" not in lines(pilot)[1]
            assert "of all GPUs" in lines(pilot)[1]
            assert "free" not in rows(pilot, "#legend")


class TestCursor:
    async def test_keys_walk_the_map(self) -> None:
        async with app_of(make_snapshot()).run_test(size=(80, 24)) as pilot:
            await pilot.pause()
            walks = {
                "right": "r01n01/1",
                "j": "r01n02/1",
                "h": "r01n02/0",
                "k": "r01n01/0",
                "end": "r16n04/7",
                "home": "r01n01/0",
            }
            for key, where in walks.items():
                await pilot.press(key)
                assert racks(pilot).cursor == where
            await pilot.press("up", "left")
            assert racks(pilot).cursor == "r01n01/0"

    async def test_it_says_whose_the_gpu_is(self) -> None:
        async with app_of(make_snapshot()).run_test(size=(80, 24)) as pilot:
            await pilot.pause()
            assert rows(pilot, "#cursor").startswith("> r01n01/0  job 4700 kim  train-moe")
            assert "(ssh, 1 s ago)" in rows(pilot, "#cursor")

    async def test_it_says_why_there_is_no_value(self) -> None:
        async with app_of(make_snapshot(), metric="mem_temp").run_test(size=(80, 24)) as pilot:
            await pilot.pause()
            assert "HBM temperature - (not supported by this part or driver)" in rows(pilot, "#cursor")

    async def test_it_tells_a_silent_node_from_a_lost_gpu(self) -> None:
        snapshot = make_snapshot(2, 2, 4, faults=Faults(lost=("r02n02/1",), gone=("r01n01",)))
        async with app_of(snapshot).run_test(size=(80, 24)) as pilot:
            await pilot.pause()
            assert "node does not answer for 10m00s" in rows(pilot, "#cursor")
            await pilot.press("exclamation_mark")
            assert "r02n02/1  LOST" in rows(pilot, "#cursor")

    async def test_a_stale_value_shows_its_age(self) -> None:
        snapshot = make_snapshot(2, 2, 4, faults=Faults(stale=("r01n01",)))
        async with app_of(snapshot).run_test(size=(80, 24)) as pilot:
            await pilot.pause()
            assert "stale 43 s" in rows(pilot, "#cursor")
            assert "stale: 43 s old (ssh)" in rows(pilot, "#cursor")

    async def test_it_stays_where_it_is_when_data_come(self) -> None:
        app = app_of(make_snapshot())
        async with app.run_test(size=(80, 24)) as pilot:
            await pilot.pause()
            await pilot.press("j", "j", "l")
            assert isinstance(app.feed, FakeFeed)
            app.feed.send(make_snapshot(17, seed=2, version=2))
            await pilot.pause()
            assert racks(pilot).cursor == "r01n03/1"

    async def test_it_survives_that_its_gpu_goes(self) -> None:
        app = app_of(make_snapshot())
        async with app.run_test(size=(80, 24)) as pilot:
            await pilot.pause()
            await pilot.press("end")
            assert isinstance(app.feed, FakeFeed)
            app.feed.send(make_snapshot(2, version=2))
            await pilot.pause()
            assert racks(pilot).cursor == "r01n01/0"

    async def test_a_click_moves_it(self) -> None:
        async with app_of(make_snapshot()).run_test(size=(80, 24)) as pilot:
            await pilot.pause()
            await pilot.click("Heatmap", offset=(12, 2))
            assert racks(pilot).cursor == "r02n02/2"


class TestKeys:
    async def test_next_worst_goes_through_them(self) -> None:
        async with app_of(make_snapshot()).run_test(size=(80, 24)) as pilot:
            await pilot.pause()
            await pilot.press("exclamation_mark")
            assert racks(pilot).cursor == "r11n02/3"
            assert "worst first: lost" in lines(pilot)[-1]
            await pilot.press("exclamation_mark")
            assert racks(pilot).cursor == "r14n03/0"
            assert "stale" in lines(pilot)[-1]

    async def test_metric_forward_and_back(self) -> None:
        async with app_of(make_snapshot()).run_test(size=(80, 24)) as pilot:
            await pilot.pause()
            await pilot.press("m")
            assert "tensor active" in lines(pilot)[2]
            assert "0-9 tensor active tenths" in rows(pilot, "#legend")
            await pilot.press("M", "M")
            assert "held back by heat" in lines(pilot)[2]

    async def test_zoom_goes_round(self) -> None:
        async with app_of(make_snapshot()).run_test(size=(80, 24)) as pilot:
            await pilot.pause()
            seen = []
            for _ in range(5):
                await pilot.press("z")
                seen.append(racks(pilot).zoom)
            assert seen == [Zoom.TILES, Zoom.DENSE, Zoom.HALVES, Zoom.GROUPS, None]

    async def test_slices_are_a_zoom_where_there_are_any(self) -> None:
        async with app_of(make_snapshot(2, 2, 4, mig=("r01n01/0",))).run_test(size=(80, 24)) as pilot:
            await pilot.pause()
            await pilot.press("z")
            assert racks(pilot).zoom is Zoom.SLICES
            await pilot.press("right")
            assert racks(pilot).cursor == "r01n01/0:gi2"
            await pilot.press("z")
            assert "r01n01/0" in rows(pilot, "#cursor")

    async def test_groups_go_round(self) -> None:
        async with app_of(make_snapshot()).run_test(size=(120, 34)) as pilot:
            await pilot.pause()
            await pilot.press("g")
            assert "by node" in lines(pilot)[2]
            await pilot.press("g")
            assert "by job" in lines(pilot)[2]
            await pilot.press("g")
            assert "by model" in lines(pilot)[2]
            await pilot.press("g")
            assert "by partition" in lines(pilot)[2]
            await pilot.press("g")
            assert "by user" in lines(pilot)[2], "nobody tells of leaf switches"
            assert any(line.startswith("kim") for line in lines(pilot)), text(pilot)
            await pilot.press("g", "g")
            assert "by rack" in lines(pilot)[2]

    async def test_without_jobs_it_is_put_together_by_what_is_known(self) -> None:
        async with app_of(make_snapshot(jobs_known=False)).run_test(size=(120, 34)) as pilot:
            await pilot.pause()
            await pilot.press("g", "g")
            assert "by model" in lines(pilot)[2]
            await pilot.press("g")
            assert "by rack" in lines(pilot)[2]

    async def test_what_does_not_fit_is_said(self) -> None:
        async with app_of(make_snapshot(128, 8, 8)).run_test(size=(80, 24)) as pilot:
            await pilot.pause()
            await pilot.press("z")
            assert "out of view" in rows(pilot, "#legend")
            await pilot.press("end")
            assert racks(pilot).cursor == "r128n08/7"
            assert any("r128" in line for line in lines(pilot)[3:-3])

    async def test_enter_opens_the_node_and_escape_comes_back(self) -> None:
        async with app_of(make_snapshot()).run_test(size=(80, 24)) as pilot:
            await pilot.pause()
            await pilot.press("j", "enter")
            await pilot.pause()
            assert type(pilot.app.screen).__name__ == "NodeScreen"
            assert "r01n02" in text(pilot)
            await pilot.press("escape")
            await pilot.pause()
            assert racks(pilot).cursor == "r01n02/0"

    async def test_the_last_line_is_made_from_the_bindings(self) -> None:
        async with app_of(make_snapshot()).run_test(size=(80, 24)) as pilot:
            await pilot.pause()
            assert (
                lines(pilot)[-1]
                == "Enter open  ! worst  a advice  m metric  g group  / filter  t time  ? help"
            )


class TestFilter:
    async def typed(self, pilot: Pilot[None], words: str) -> None:
        await pilot.press("slash")
        await pilot.press(
            *[
                {
                    "[": "left_square_bracket",
                    "]": "right_square_bracket",
                    "*": "asterisk",
                    "-": "minus",
                    " ": "space",
                }.get(c, c)
                for c in words
            ]
        )
        await pilot.pause()

    @pytest.mark.parametrize(
        ("words", "count"),
        [
            ("r07", 32),
            ("r07n02", 8),
            ("*n03", 128),
            ("r[01-04]n02", 32),
            ("nowhere", 0),
            ("r01 r02", 64),
            ("atlas", 512),
        ],
    )
    async def test_words_patterns_and_node_sets(self, words: str, count: int) -> None:
        async with app_of(make_snapshot()).run_test(size=(80, 24)) as pilot:
            await self.typed(pilot, words)
            assert f": {count} of 512" in lines(pilot)[2]

    async def test_what_does_not_match_is_faded_and_stays_in_place(self) -> None:
        async with app_of(make_snapshot()).run_test(size=(80, 24)) as pilot:
            await pilot.pause()
            before = lines(pilot)[3:14]
            await self.typed(pilot, "r07")
            assert lines(pilot)[3:14] == before

    async def test_a_broken_node_set_is_explained(self) -> None:
        async with app_of(make_snapshot()).run_test(size=(120, 34)) as pilot:
            await self.typed(pilot, "r[01-")
            assert "filter: " in lines(pilot)[2]

    async def test_enter_keeps_and_escape_drops_it(self) -> None:
        async with app_of(make_snapshot()).run_test(size=(80, 24)) as pilot:
            await self.typed(pilot, "r07")
            assert "Esc" in lines(pilot)[-1]
            await pilot.press("enter", "j")
            assert racks(pilot).cursor == "r01n02/0"
            assert racks(pilot).filter == "r07"
            await pilot.press("escape")
            assert racks(pilot).filter == ""
            assert "of 512" not in lines(pilot)[2]


class TestSizes:
    @pytest.mark.parametrize("size", [(20, 5), (39, 24), (80, 9), (1, 1)])
    async def test_too_small_is_said(self, size: tuple[int, int]) -> None:
        async with app_of(make_snapshot()).run_test(size=(80, 24)) as pilot:
            await pilot.resize_terminal(*size)
            await pilot.pause()
            if size[0] >= 20:
                assert "too small" in text(pilot)
            await pilot.resize_terminal(80, 24)
            await pilot.pause()
            assert lines(pilot)[4].startswith("8888")

    @pytest.mark.parametrize("size", [(40, 10), (60, 20), (79, 23), (119, 34), (250, 70)])
    @pytest.mark.parametrize("racks_nodes_gpus", [(16, 4, 8), (1, 1, 1), (40, 18, 4), (128, 8, 8)])
    async def test_every_size_holds_together(
        self, size: tuple[int, int], racks_nodes_gpus: tuple[int, int, int]
    ) -> None:
        async with app_of(make_snapshot(*racks_nodes_gpus)).run_test(size=size) as pilot:
            await pilot.press("z", "j", "z", "l", "z", "end", "z", "home", "z")
            assert len(lines(pilot)) == size[1]
            assert lines(pilot)[0].startswith("atlas  LIVE")
            assert lines(pilot)[-1]

    def test_room_is_shared_out(self) -> None:
        assert room_of(80, 24, side=True) == Room(80, 16, 1, 2, 0)
        assert room_of(120, 34, side=True) == Room(79, 26, 1, 2, 40)
        assert room_of(60, 12, side=True) == Room(60, 6, 0, 1, 0)


async def test_by_node_every_name_is_whole() -> None:
    snapshot = make_snapshot()
    async with app_of(snapshot).run_test(size=(80, 24)) as pilot:
        await pilot.pause()
        await pilot.press("g")
        await pilot.pause()
        for node in snapshot.layout.nodes:
            assert node.key in text(pilot)


async def test_a_message_ends_with_the_next_key() -> None:
    async with app_of(make_snapshot()).run_test(size=(80, 24)) as pilot:
        await pilot.pause()
        await pilot.press("g")
        await pilot.pause()
        assert lines(pilot)[-1].strip() == "grouped by node"
        await pilot.press("right")
        await pilot.pause()
        assert "Enter open" in lines(pilot)[-1]


async def test_without_colours_a_filter_is_seen() -> None:
    async with app_of(make_snapshot(), no_colour=True).run_test(size=(80, 24)) as pilot:
        await pilot.pause()
        assert "rack power, inlet" in rows(pilot, "#legend")
        await pilot.press("slash", *"r02", "enter")
        await pilot.pause()
        assert ": outside the filter" in rows(pilot, "#legend")
        assert sum(line.count("::::::::") for line in lines(pilot)) >= 8


async def test_hostile_names_are_inert_everywhere() -> None:
    evil = "\x1b]52;c;ZXZpbA==\x07[red]\x1b[31m‮"
    base = make_snapshot(3, 2, 4, name=evil, rack_names=(evil, "r\n2", "日本"))
    events = (EventView(AT, evil, evil, evil),)
    snapshot = Snapshot(**{**{key: getattr(base, key) for key in Snapshot.__slots__}, "events": events})
    async with app_of(snapshot).run_test(size=(120, 34)) as pilot:
        await pilot.press("j", "exclamation_mark", "g", "g", "g")
        shown = text(pilot)
        assert not {"\x1b", "\x07", "‮"} & set(shown)
        assert len(lines(pilot)) == 34
        assert racks(pilot).query_one(KeyLine)


PICTURES = {"80x24": (80, 24), "120x34": (120, 34), "200x50": (200, 50)}


@pytest.mark.parametrize("size", PICTURES)
def test_picture(snap_compare: object, size: str) -> None:
    assert callable(snap_compare)
    assert snap_compare(app_of(make_snapshot()), terminal_size=PICTURES[size], press=["exclamation_mark"])


def test_picture_of_8192(snap_compare: object) -> None:
    assert callable(snap_compare)
    assert snap_compare(app_of(make_snapshot(128, 8, 8)), terminal_size=(200, 50))


@pytest.mark.parametrize("theme", ["light", "colourblind"])
def test_picture_of_theme(snap_compare: object, theme: str) -> None:
    assert callable(snap_compare)
    assert snap_compare(app_of(make_snapshot(), theme_name=theme), terminal_size=(80, 24), press=["m"])


def test_picture_without_colour_or_utf8(snap_compare: object) -> None:
    assert callable(snap_compare)
    app = app_of(make_snapshot(), no_colour=True, ascii_only=True)
    assert snap_compare(app, terminal_size=(80, 24), press=["exclamation_mark"])
