"""Travelling in time on the screens: keys, prompt, header, messages."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest
from lab.snapshots import AT, FakeFeed, make_snapshot
from textual.widgets import Input

from coldaisle.analyzers.snapshot import LIVE_ONLY, TOLD_NOTHING, Reading, Snapshot, Travel
from coldaisle.sources.instants import Instant
from coldaisle.tui.app import ColdaisleApp
from coldaisle.tui.screens.nodes import NodesScreen
from coldaisle.tui.screens.racks import RacksScreen
from coldaisle.tui.widgets.header import travel_line, trust_line
from coldaisle.tui.widgets.lines import Row, row_width
from coldaisle.tui.widgets.timeprompt import TimePrompt, meaning

NOW = AT + 7980.0
"""2h13 after the pictures."""


@pytest.fixture(autouse=True)
def berlin(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with monkeypatch.context() as patch:
        patch.setenv("TZ", "Europe/Berlin")
        time.tzset()
        yield
    time.tzset()


def live_snapshot() -> Snapshot:
    return replace(make_snapshot(4, 2, 8), at=NOW)


def past_snapshot(**changes: object) -> Snapshot:
    travel = Travel(AT, live=(("prometheus", "ok"),))
    return replace(make_snapshot(4, 2, 8), live=False, cost=None, **{"travel": travel, **changes})  # type: ignore[arg-type]


def app_of(*snapshots: Snapshot, at: Instant | None = None, ascii_only: bool = False) -> ColdaisleApp:
    return ColdaisleApp(
        FakeFeed(*snapshots), name="atlas", clock=lambda: NOW, no_colour=False, at=at, ascii_only=ascii_only
    )


def travels(app: ColdaisleApp) -> list[float | None]:
    assert isinstance(app.feed, FakeFeed)
    return app.feed.travels


def send(app: ColdaisleApp, snapshot: Snapshot) -> None:
    assert isinstance(app.feed, FakeFeed)
    app.feed.send(snapshot)


def lines(app: ColdaisleApp) -> list[str]:
    return [strip.text for strip in app.screen._compositor.render_strips()]


async def until(app: ColdaisleApp, wanted: Callable[[list[str]], object]) -> list[str]:
    """The lines, once something holds of them."""
    async with asyncio.timeout(20):
        while app.snapshot is None or not wanted(lines(app)):
            await asyncio.sleep(0.02)
    return lines(app)


async def shown(app: ColdaisleApp) -> list[str]:
    """The lines, once there is a picture."""
    return await until(app, lambda found: "PAST" in found[0] or "LIVE" in found[0])


def text_of(row: Row) -> str:
    return "".join(run.text for run in row)


class TestKeys:
    @pytest.mark.parametrize(
        ("key", "expected"),
        [("left_square_bracket", -10.0), ("left_curly_bracket", -600.0)],
    )
    async def test_from_live_they_go_back(self, key: str, expected: float) -> None:
        app = app_of(live_snapshot())
        async with app.run_test(size=(80, 24)) as pilot:
            await shown(app)
            await pilot.press(key)
            (at,) = travels(app)
            assert at is not None
            assert at % 10 == 0
            assert NOW + expected - 10 < at <= NOW + expected

    @pytest.mark.parametrize("key", ["right_square_bracket", "right_curly_bracket"])
    async def test_from_live_there_is_no_later(self, key: str) -> None:
        app = app_of(live_snapshot())
        async with app.run_test(size=(80, 24)) as pilot:
            await shown(app)
            await pilot.press(key)
            await pilot.pause()
            assert travels(app) == []
            assert lines(app)[-1].startswith("this is now")

    async def test_steps_add_up_before_anything_is_shown(self) -> None:
        app = app_of(live_snapshot())
        async with app.run_test(size=(80, 24)) as pilot:
            await shown(app)
            await pilot.press(
                "left_square_bracket", "left_square_bracket", "left_curly_bracket", "right_square_bracket"
            )
            first = travels(app)[0]
            assert first is not None
            assert travels(app) == [first, first - 10, first - 610, first - 600]

    async def test_from_between_samples_a_step_goes_to_one(self) -> None:
        app = app_of(past_snapshot(), at=Instant(1_000_003.0))
        async with app.run_test(size=(80, 24)) as pilot:
            await shown(app)
            await pilot.press("left_square_bracket")
            await pilot.press("right_square_bracket", "right_square_bracket")
            assert travels(app) == [1_000_003.0, 1_000_000.0, 1_000_010.0, 1_000_020.0]

    async def test_a_step_that_nobody_would_see_is_none(self) -> None:
        app = app_of(past_snapshot(), at=Instant(1_000_000.3))
        async with app.run_test(size=(80, 24)) as pilot:
            await shown(app)
            await pilot.press("left_square_bracket")
            assert travels(app) == [1_000_000.3, 999_990.0]

    async def test_beyond_now_is_only_live(self) -> None:
        app = app_of(past_snapshot(), at=Instant(NOW - 5))
        async with app.run_test(size=(80, 24)) as pilot:
            await shown(app)
            await pilot.press("right_curly_bracket")
            await pilot.pause()
            assert travels(app) == [NOW - 5]
            assert "t returns to live" in lines(app)[-1]

    @pytest.mark.parametrize("way", [[], ["4"], ["7"], ["enter"], ["question_mark"]], ids=str)
    async def test_on_every_screen_only_t_returns_to_live(self, way: list[str]) -> None:
        app = app_of(past_snapshot(), at=Instant(AT))
        async with app.run_test(size=(80, 24)) as pilot:
            await shown(app)
            await pilot.press(*way)
            await pilot.pause()
            assert " PAST " in lines(app)[0]
            assert lines(app)[-1].startswith("t live  [ ] step  { } 10 min")
            await pilot.press("left_square_bracket")
            assert travels(app)[-1] == AT - 1
            await pilot.press("escape")
            assert app.instant == AT - 1
            assert None not in travels(app)
            await pilot.press("t")
            assert travels(app)[-1] is None
            send(app, live_snapshot())
            await pilot.pause()
            assert "LIVE" in lines(app)[0]
            assert lines(app)[-1].startswith("live again")

    async def test_the_footer_of_live_offers_t(self) -> None:
        app = app_of(live_snapshot())
        async with app.run_test(size=(80, 24)):
            await shown(app)
            assert "t time" in lines(app)[-1]
            assert "? help" in lines(app)[-1]

    async def test_the_palette_travels(self) -> None:
        app = app_of(live_snapshot())
        async with app.run_test(size=(80, 24)) as pilot:
            await shown(app)
            await pilot.press("colon", *"hour back")
            await until(app, lambda found: any("Time: an hour back" in line for line in found))
            await pilot.press("enter")
            await until(app, lambda _: travels(app))
            (at,) = travels(app)
            assert at is not None
            assert NOW - 3610 < at <= NOW - 3600
            await pilot.press("colon", *"go to an instant")
            await until(app, lambda found: any("Time: go to an instant" in line for line in found))
            await pilot.press("enter")
            await until(app, lambda found: found[-1].startswith("go to "))


class TestPrompt:
    async def test_it_asks_says_what_is_meant_and_goes(self) -> None:
        app = app_of(live_snapshot())
        async with app.run_test(size=(80, 24)) as pilot:
            await shown(app)
            await pilot.press("t")
            await pilot.pause()
            assert lines(app)[-1].startswith(time.strftime("go to %H:%M:%S ", time.localtime(NOW)))
            assert "0 s ago" in lines(app)[-1]
            await pilot.press(*"2h ago")
            await pilot.pause()
            assert "2h00 ago" in lines(app)[-1]
            assert "CET" in lines(app)[-1]
            await pilot.press("enter")
            await pilot.pause()
            assert travels(app) == [NOW - 7200]
            assert not app.screen.query(TimePrompt)

    async def test_a_mistake_is_said_as_one_types_and_nothing_goes(self) -> None:
        app = app_of(live_snapshot())
        async with app.run_test(size=(120, 34)) as pilot:
            await shown(app)
            await pilot.press("t", *"soon")
            await pilot.pause()
            assert "'soon' is no instant: write 03:12" in lines(app)[-1]
            await pilot.press("enter")
            await pilot.pause()
            assert travels(app) == []
            assert app.screen.query(TimePrompt)

    async def test_escape_cancels_and_the_focus_is_where_it_was(self) -> None:
        app = app_of(live_snapshot())
        async with app.run_test(size=(80, 24)) as pilot:
            await shown(app)
            await pilot.press("4")
            await pilot.pause()
            focused = app.focused
            assert focused is not None
            await pilot.press("t", "1")
            assert isinstance(app.focused, Input)
            await pilot.press("escape")
            await pilot.pause()
            assert isinstance(app.screen, NodesScreen)
            assert app.focused is focused
            assert app.screen.filter == ""
            assert travels(app) == []

    async def test_what_is_typed_is_no_filter(self) -> None:
        app = app_of(live_snapshot())
        async with app.run_test(size=(80, 24)) as pilot:
            await shown(app)
            await pilot.press("t", *"03:12")
            await pilot.pause()
            assert isinstance(app.screen, RacksScreen)
            assert app.screen.filter == ""

    async def test_in_the_past_the_palette_asks_with_the_instant_that_is_shown(self) -> None:
        app = app_of(past_snapshot(), at=Instant(AT))
        async with app.run_test(size=(80, 24)) as pilot:
            await shown(app)
            await app.action_ask_instant()
            await pilot.pause()
            box = app.screen.query_one(TimePrompt).query_one(Input)
            await pilot.press("enter")
            await pilot.pause()
            assert travels(app) == [AT, AT], box.value

    def test_the_meaning_names_the_clocks_that_were_changed(self) -> None:
        assert "CET" in text_of(meaning("2025-10-26 02:30", NOW + 4e8))
        assert "twice" in text_of(meaning("2025-10-26 02:30", NOW + 4e8))
        assert text_of(meaning("", NOW)).startswith("03:12, yesterday")


class TestHeader:
    def test_the_past_cannot_be_taken_for_live(self) -> None:
        line = trust_line(past_snapshot(), "", NOW, 80)
        (mark,) = [run for run in line if run.token == "past"]
        assert mark.text == time.strftime(" PAST %H:%M:%S CET ", time.localtime(AT))
        assert "2h13 ago" in text_of(line)
        assert "LIVE" not in text_of(line)

    def test_another_day_is_named(self) -> None:
        line = text_of(trust_line(past_snapshot(), "", NOW + 86400 * 3, 120))
        assert time.strftime("PAST %Y-%m-%d %H:%M:%S CET", time.localtime(AT)) in line
        assert "3 d ago" in line

    def test_the_age_of_the_data_is_that_of_then(self) -> None:
        assert "data 2 s" in text_of(
            trust_line(past_snapshot(at=AT + 2.0), "", NOW, 120)
        ) or "data" in text_of(trust_line(past_snapshot(), "", NOW, 120))

    def test_live_goes_on_beside_it(self) -> None:
        assert "live goes on" in text_of(trust_line(past_snapshot(), "", NOW, 200))
        travel = Travel(AT, live=(("ssh", "ok"), ("prometheus", "failing")))
        assert "live: prometheus failing" in text_of(trust_line(past_snapshot(travel=travel), "", NOW, 200))

    @pytest.mark.parametrize("width", [20, 40, 60, 80, 200])
    def test_any_width_keeps_the_mark(self, width: int) -> None:
        line = trust_line(past_snapshot(), "", NOW + 86400, width)
        assert row_width(line) <= width
        assert "PAST" in text_of(line)

    def test_what_is_read_is_said(self) -> None:
        reading = Reading(AT - 900, AT, ("prometheus",), 0.4)
        said = text_of(travel_line(Travel(AT, reading)))
        edges = [time.strftime("%H:%M", time.localtime(at)) for at in (AT - 900, AT)]
        assert said == f"reading {'-'.join(edges)} from prometheus  40%"

    def test_a_problem_has_its_remedy_and_is_inert(self) -> None:
        said = text_of(travel_line(Travel(AT, problem="no \x1b[31mpast", remedy="add one")))
        assert said.endswith("  -> add one")
        assert "\x1b" not in said


class TestMessages:
    async def test_a_refused_journey_is_said_until_the_next_key_and_live_stays(self) -> None:
        app = app_of(at=Instant(AT))
        async with app.run_test(size=(120, 34)) as pilot:
            await pilot.pause()
            problem = Travel(AT, problem="no source here has a past (ssh): live only", remedy="add one")
            send(app, replace(live_snapshot(), travel=problem))
            await pilot.pause()
            assert "no source here has a past" in lines(app)[1]
            assert "LIVE" in lines(app)[0]
            assert app.instant is None
            assert "t time" in lines(app)[-1]
            await pilot.press("down")
            assert travels(app) == [AT, None]

    async def test_where_nothing_is_known_the_screens_say_so(self) -> None:
        source = replace(
            past_snapshot().sources[0],
            name="prometheus",
            state=TOLD_NOTHING,
            why="it has nothing of that time",
        )
        other = replace(source, name="ssh", state=LIVE_ONLY, why="it remembers nothing")
        empty = past_snapshot(
            **{
                name: getattr(make_snapshot(0, 0, 0), name)
                for name in (
                    "layout",
                    "columns",
                    "gpu_status",
                    "gpu_seen",
                    "node_status",
                    "node_seen",
                    "jobs",
                    "gpu_job",
                )
            },
            sources=(source, other),
        )
        app = app_of(empty, at=Instant(AT))
        async with app.run_test(size=(100, 30)) as pilot:
            await shown(app)
            for key in ("1", "4"):
                await pilot.press(key)
                await pilot.pause()
                text = "\n".join(lines(app))
                assert "of that instant; t returns to live" in text
                assert "it has nothing of that time" in text
                assert "ssh live only" in text
            await pilot.press("7")
            await pilot.pause()
            assert "live only" in "\n".join(lines(app))

    async def test_a_node_that_was_not_there_then(self) -> None:
        app = app_of(live_snapshot())
        async with app.run_test(size=(80, 24)) as pilot:
            await shown(app)
            await pilot.press("enter")
            await pilot.pause()
            assert "now" in lines(app)[-3]
            send(app, replace(make_snapshot(1, 1, 2, rack_names=("x01",)), live=False, travel=Travel(AT)))
            await pilot.pause()
            assert "is not known at that instant" in "\n".join(lines(app))

    async def test_what_a_time_meant_is_said_at_the_start(self) -> None:
        app = app_of(past_snapshot(), at=Instant(AT, "2025-10-26 had 02:30 twice: this is the one in CET"))
        async with app.run_test(size=(80, 24)):
            await shown(app)
            assert "had 02:30 twice" in lines(app)[-1]

    @pytest.mark.parametrize("way", [[], ["4"], ["7"], ["enter"], ["question_mark"]], ids=str)
    async def test_ascii_alone_reaches_an_ascii_terminal(self, way: list[str]) -> None:
        app = app_of(past_snapshot(), at=Instant(AT), ascii_only=True)
        async with app.run_test(size=(100, 30)) as pilot:
            await shown(app)
            await pilot.press(*way)
            await pilot.pause()
            assert "".join(lines(app)).isascii()
            assert "PAST" in lines(app)[0]

    async def test_charts_end_at_the_instant(self) -> None:
        app = app_of(past_snapshot(), at=Instant(AT))
        async with app.run_test(size=(80, 24)) as pilot:
            await shown(app)
            await pilot.press("enter")
            edge = time.strftime("%H:%M:%S", time.localtime(AT))
            await until(app, lambda found: any(line.rstrip().endswith(edge) for line in found[3:]))
            assert isinstance(app.feed, FakeFeed)
            assert all(query.end <= AT + 60 for query in app.feed.queries)


SIZES = {"80x24": (80, 24), "200x50": (200, 50)}


@pytest.mark.parametrize("size", SIZES)
def test_picture_of_the_past(snap_compare: object, size: str) -> None:
    assert callable(snap_compare)
    reading = Travel(AT, Reading(AT - 900, AT + 300, ("prometheus",), 0.4), live=(("prometheus", "ok"),))
    app = app_of(replace(make_snapshot(), live=False, cost=None, travel=reading), at=Instant(AT))
    assert snap_compare(app, terminal_size=SIZES[size], press=("wait:200",))


def test_picture_of_the_past_of_another_day_without_colour_or_utf8(snap_compare: object) -> None:
    assert callable(snap_compare)
    snapshot = replace(
        make_snapshot(), live=False, cost=None, travel=Travel(AT, live=(("prometheus", "failing"),))
    )
    app = ColdaisleApp(
        FakeFeed(snapshot),
        name="atlas",
        clock=lambda: NOW + 86400,
        no_colour=True,
        ascii_only=True,
        at=Instant(AT),
    )
    assert snap_compare(app, terminal_size=(120, 34), press=("wait:200",))


def test_picture_of_the_prompt(snap_compare: object) -> None:
    assert callable(snap_compare)
    assert snap_compare(app_of(live_snapshot()), terminal_size=(80, 24), press=("t", *"2h ago", "wait:200"))


def test_picture_of_a_node_then(snap_compare: object) -> None:
    assert callable(snap_compare)
    app = app_of(replace(make_snapshot(), live=False, travel=Travel(AT)), at=Instant(AT))
    assert snap_compare(app, terminal_size=(80, 24), press=("enter", "wait:200"))
