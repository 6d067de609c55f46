"""The app: the feed's life, coalescing, failure, themes, and what loads before the first paint."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from typing import ClassVar

import pytest
from lab.snapshots import AT, FakeFeed, make_snapshot

from coldaisle.analyzers.snapshot import Snapshot
from coldaisle.sources.errors import ConfigError
from coldaisle.tui.app import ColdaisleApp, SnapshotArrived
from coldaisle.tui.feed import STOP_S, MonitorFeed
from coldaisle.tui.screens.failure import FailureScreen, account_of
from coldaisle.tui.screens.racks import RacksScreen

HEAVY = ("numpy", "pandas", "asyncssh", "httpx", "pynvml", "ClusterShell", "msgspec")


def app_of(*snapshots: Snapshot) -> ColdaisleApp:
    return ColdaisleApp(FakeFeed(*snapshots), name="atlas", clock=lambda: AT, no_colour=False)


def feed_of(app: ColdaisleApp) -> FakeFeed:
    assert isinstance(app.feed, FakeFeed)
    return app.feed


class TestFeed:
    async def test_it_begins_after_the_first_paint_and_ends_with_the_app(self) -> None:
        app = app_of()
        async with app.run_test(size=(80, 24)) as pilot:
            await pilot.pause()
            assert feed_of(app).started
            assert not feed_of(app).stopped
        assert feed_of(app).stopped

    async def test_a_key_before_the_first_paint_does_not_keep_it_from_beginning(self) -> None:
        app = app_of(make_snapshot(1, 1, 1))
        async with app.run_test(size=(80, 24)) as pilot:
            await pilot.press("4")
            async with asyncio.timeout(20):
                while app.snapshot is None:
                    await asyncio.sleep(0.01)

    async def test_snapshots_from_another_thread_arrive(self) -> None:
        app = app_of()
        async with app.run_test(size=(80, 24)) as pilot:
            await pilot.pause()
            snapshot = make_snapshot(2, 2, 4)
            sender = threading.Thread(target=feed_of(app).send, args=(snapshot,))
            sender.start()
            sender.join()
            await pilot.pause()
            assert app.snapshot is snapshot

    async def test_what_comes_after_the_end_is_dropped(self) -> None:
        app = app_of()
        async with app.run_test(size=(80, 24)) as pilot:
            await pilot.pause()
        feed_of(app).send(make_snapshot(1, 1, 1))
        assert app.snapshot is None

    def test_waiting_snapshots_are_replaced_by_newer_ones(self) -> None:
        message = SnapshotArrived(make_snapshot(1, 1, 1))
        assert message.can_replace(SnapshotArrived(make_snapshot(1, 1, 1)))

    async def test_a_hidden_screen_does_nothing_until_it_is_back(self) -> None:
        app = app_of(make_snapshot(2, 2, 4))
        async with app.run_test(size=(80, 24)) as pilot:
            await pilot.pause()
            racks = app.screen
            assert isinstance(racks, RacksScreen)
            await pilot.press("7")
            await pilot.pause()
            newer = make_snapshot(2, 2, 4, seed=2)
            feed_of(app).send(newer)
            await pilot.pause()
            assert racks.snapshot is not newer
            await pilot.press("1")
            await pilot.pause()
            assert racks.snapshot is newer


class TestFailure:
    async def test_a_panel_says_what_and_what_to_do(self) -> None:
        app = app_of(make_snapshot(2, 2, 4))
        async with app.run_test(size=(80, 24)) as pilot:
            await pilot.pause()
            feed_of(app).fail(
                ConfigError("no such rack file: \x1b[31mracks.csv", "write it, or drop [racks]")
            )
            await pilot.pause()
            assert isinstance(app.screen, FailureScreen)
            shown = "\n".join(strip.text for strip in app.screen._compositor.render_strips())
            assert "no such rack file" in shown
            assert "write it, or drop [racks]" in shown
            assert "\x1b" not in shown
            await pilot.press("escape")
            await pilot.pause()
            assert isinstance(app.screen, RacksScreen)

    def test_a_bug_is_named_as_one(self) -> None:
        problem, remedy = account_of(ZeroDivisionError("division by zero"))
        assert problem == "ZeroDivisionError: division by zero"
        assert "log" in remedy


class TestScreens:
    async def test_numbers_open_screens_and_close_what_was_on_top(self) -> None:
        app = app_of(make_snapshot(2, 2, 4))
        async with app.run_test(size=(80, 24)) as pilot:
            for key, name in (
                ("4", "NodesScreen"),
                ("7", "SourcesScreen"),
                ("1", "RacksScreen"),
                ("4", "NodesScreen"),
            ):
                await pilot.press(key)
                await pilot.pause()
                assert type(app.screen).__name__ == name
                assert len(app.screen_stack) <= 2

    async def test_help_opens_once(self) -> None:
        app = app_of(make_snapshot(2, 2, 4))
        async with app.run_test(size=(80, 24)) as pilot:
            await pilot.pause()
            await pilot.press("question_mark")
            await pilot.pause()
            assert len(app.screen_stack) == 2
            await pilot.press("escape")
            await pilot.pause()
            assert isinstance(app.screen, RacksScreen)

    @pytest.mark.parametrize("key", ["q", "ctrl+c"])
    async def test_quitting_is_one_key(self, key: str) -> None:
        app = app_of(make_snapshot(2, 2, 4))
        async with app.run_test(size=(80, 24)) as pilot:
            await pilot.press(key)
            await pilot.pause()
        assert app.return_code == 0


class TestThemes:
    async def test_only_ours_are_offered(self) -> None:
        app = app_of()
        async with app.run_test(size=(80, 24)) as pilot:
            await pilot.pause()
            assert set(app.available_themes) == {"dark", "light", "colourblind"}

    async def test_a_key_goes_through_them(self) -> None:
        app = app_of(make_snapshot(2, 2, 4))
        async with app.run_test(size=(80, 24)) as pilot:
            await pilot.pause()
            for name in ("light", "colourblind", "dark"):
                await pilot.press("T")
                await pilot.pause()
                assert app.palette.name == name

    async def test_without_colours_nothing_is_coloured_and_all_is_there(self) -> None:
        app = ColdaisleApp(FakeFeed(make_snapshot()), name="atlas", clock=lambda: AT, no_colour=True)
        app.no_color = True
        async with app.run_test(size=(80, 24)) as pilot:
            await pilot.pause()
            strips = app.screen._compositor.render_strips()
            text = "\n".join(strip.text for strip in strips)
            assert "988X8889" in text
            colours = {
                part.name
                for strip in strips
                for segment in strip
                if segment.style
                for part in (segment.style.color, segment.style.bgcolor)
                if part is not None and not part.is_default
            }
            assert colours == set()

    async def test_ascii_only_draws_ascii_only(self) -> None:
        app = ColdaisleApp(
            FakeFeed(make_snapshot()), name="atlas", clock=lambda: AT, no_colour=True, ascii_only=True
        )
        async with app.run_test(size=(120, 34)) as pilot:
            for keys in ([], ["z"], ["z"], ["z"], ["g"]):
                await pilot.press(*keys)
                text = "".join(strip.text for strip in app.screen._compositor.render_strips())
                assert text.isascii(), {char for char in text if not char.isascii()}


class TestMonitorFeed:
    def test_a_question_before_the_first_data_fails(self) -> None:
        from coldaisle.analyzers.snapshot import SeriesQuery

        feed = MonitorFeed(lambda clock: [], lambda: pytest.fail("not asked yet"))
        with pytest.raises(Exception, match="nothing has been measured"):
            feed.query(SeriesQuery(("gpu.util",), ("n/0",), 0.0, 1.0, 1)).result(timeout=1)

    def test_what_goes_wrong_at_the_start_is_told(self) -> None:
        told = threading.Event()
        errors: list[BaseException] = []

        def settings() -> object:
            raise ConfigError("bad")

        def failed(error: BaseException) -> None:
            errors.append(error)
            told.set()

        feed = MonitorFeed(lambda clock: [], settings)  # type: ignore[arg-type]
        feed.start(lambda snapshot: None, failed)
        assert told.wait(30)
        assert isinstance(errors[0], ConfigError)
        feed.stop()

    def test_it_runs_a_monitor_and_stops_in_time(self) -> None:
        from coldaisle.analyzers.monitor import MonitorSettings

        came = threading.Event()
        feed = MonitorFeed(lambda clock: [], lambda: MonitorSettings(name="empty", interval=0.1))
        feed.start(lambda snapshot: came.set(), lambda error: None)
        assert came.wait(30)
        begin = time.monotonic()
        feed.stop()
        assert time.monotonic() - begin < STOP_S + 0.5


def run_python(code: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True
    )
    return done.stdout.strip()


@pytest.mark.parametrize(
    "what", ["coldaisle.tui.app", "coldaisle.tui.feed", "coldaisle.tui.cells", "coldaisle.tui.picture"]
)
def test_nothing_heavy_is_imported_with(what: str) -> None:
    code = f"import sys, {what}; print([name for name in {HEAVY!r} if name in sys.modules])"
    assert run_python(code) == "[]"


def test_nothing_heavy_is_loaded_at_the_first_paint() -> None:
    code = f"""
import sys
from coldaisle.tui.app import ColdaisleApp
class Feed:
    def start(self, publish, failed):
        print([name for name in {HEAVY!r} if name in sys.modules], file=sys.__stdout__)
        app.exit()
    def stop(self): pass
app = ColdaisleApp(Feed())
app.run(headless=True, size=(80, 24))
"""
    assert run_python(code) == "[]"


def test_publishing_is_typed() -> None:
    publish: Callable[[Snapshot], None] = FakeFeed().send
    assert callable(publish)


class TestEveryScreen:
    WAYS: ClassVar = {
        "racks": [],
        "dense": ["z", "z"],
        "filter": ["slash", "r", "0"],
        "node": ["enter"],
        "values": ["enter", "tab"],
        "host": ["enter", "tab", "tab"],
        "links": ["enter", "tab", "tab", "tab"],
        "processes": ["enter", *["tab"] * 4],
        "events": ["enter", *["tab"] * 5],
        "facts": ["enter", *["tab"] * 6],
        "nodes": ["4"],
        "nodes filter": ["4", "slash"],
        "sources": ["7"],
        "metrics": ["7", "tab"],
        "names": ["7", "tab", "tab"],
        "help": ["question_mark"],
        "palette": ["colon", "r"],
    }

    @pytest.mark.parametrize("way", WAYS)
    async def test_ascii_alone_reaches_an_ascii_terminal(self, way: str) -> None:
        snapshot = make_snapshot()
        racks = (replace(snapshot.layout.racks[0], name="r\u00e4ck\u4e2d"), *snapshot.layout.racks[1:])
        foreign = replace(snapshot, layout=replace(snapshot.layout, racks=racks))
        app = ColdaisleApp(FakeFeed(foreign), name="b\u00f6se", clock=lambda: AT, ascii_only=True)
        async with app.run_test(size=(100, 30)) as pilot:
            await pilot.pause()
            await pilot.press(*self.WAYS[way])
            await pilot.pause(0.2)
            text = "".join(strip.text for strip in app.screen._compositor.render_strips())
            assert text.isascii(), {char for char in text if not char.isascii()}
            assert text.strip()

    @pytest.mark.parametrize("keys", [[], ["enter"], ["4"], ["7"]], ids=str)
    async def test_a_terminal_that_is_too_small_is_told_so(self, keys: list[str]) -> None:
        app = ColdaisleApp(FakeFeed(make_snapshot()), name="atlas", clock=lambda: AT)
        async with app.run_test(size=(80, 24)) as pilot:
            await pilot.pause()
            await pilot.press(*keys)
            await pilot.pause()
            focused = app.focused
            await pilot.resize_terminal(20, 5)
            await pilot.pause()
            shown = [strip.text.rstrip() for strip in app.screen._compositor.render_strips()]
            assert shown == ["20x5: too small", "40x10 is the least", "", "", ""]
            await pilot.resize_terminal(80, 24)
            await pilot.pause()
            await pilot.pause()
            assert app.focused is focused
            assert len(app.screen._compositor.render_strips()) == 24


def test_a_metric_that_cells_cannot_show_is_told_before_the_screen_opens(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from coldaisle.sources.config import Settings
    from coldaisle.sources.settings import Flags
    from coldaisle.tui.dashboard import make_app

    monkeypatch.setenv("TEXTUAL_COLOR_SYSTEM", "256")
    settings = Settings().with_sources([{"kind": "simulator"}])
    with pytest.raises(ConfigError, match=r"do not show gpu\.ecc_sbe") as caught:
        make_app(settings.with_flags(Flags(metric="gpu.ecc_sbe")))
    assert "gpu.temp" in caught.value.remedy
    app = make_app(settings.with_flags(Flags(metric="gpu.power")))
    app._choose_metric(make_snapshot(1, 1, 8))
    assert app.metric is not None
    assert app.metric.key == "gpu.power_ratio"
