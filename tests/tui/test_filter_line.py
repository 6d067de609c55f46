"""The line that takes a filter, on every screen that has one: mistakes, counts, completion, history, fast typing."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest
from lab.rest import until
from lab.snapshots import AT, FakeFeed, make_snapshot
from textual import events
from textual.keys import _character_to_key
from textual.pilot import Pilot

from coldaisle.tui.app import ColdaisleApp
from coldaisle.tui.filterhistory import KEPT, FilterHistory
from coldaisle.tui.screens.filtered import FilteredScreen
from coldaisle.tui.screens.nodes import NodesScreen
from coldaisle.tui.screens.sources import SourcesScreen
from coldaisle.tui.widgets.filterbox import FilterBox, FilterLine
from coldaisle.tui.widgets.lines import row_text
from coldaisle.tui.widgets.painted import Rows
from coldaisle.tui.widgets.table import Table


def app_of(**options: object) -> ColdaisleApp:
    return ColdaisleApp(FakeFeed(make_snapshot()), name="atlas", clock=lambda: AT, **options)  # type: ignore[arg-type]


def keys_of(text: str) -> list[str]:
    return [_character_to_key(char) for char in text]


def screen_of(pilot: Pilot[None]) -> FilteredScreen:
    screen = pilot.app.screen
    assert isinstance(screen, FilteredScreen)
    return screen


async def typed(pilot: Pilot[None], text: str) -> None:
    await pilot.pause()
    await pilot.press("slash", *keys_of(text))
    await pilot.pause()


def text(pilot: Pilot[None]) -> str:
    return "\n".join(strip.text.rstrip() for strip in pilot.app.screen._compositor.render_strips())


def said(pilot: Pilot[None], part: str) -> str:
    rows = pilot.app.screen.query_one(FilterBox).query_one(part, Rows)
    return " ".join(row_text(row).strip() for row in rows.rows) if rows.display else ""


def line(pilot: Pilot[None]) -> FilterLine:
    return pilot.app.screen.query_one(FilterLine)


@pytest.mark.parametrize("size", [(80, 24), (60, 20), (200, 50)])
async def test_the_line_says_how_much_it_keeps(size: tuple[int, int]) -> None:
    async with app_of().run_test(size=size) as pilot:
        await typed(pilot, "sm<50 & power>300")
        boards = make_snapshot().layout.boards
        kept = screen_of(pilot).kept(make_snapshot())
        assert kept is not None
        assert said(pilot, "#count") == f"{kept[boards].sum()} of 512 GPUs"
        assert "sm<50 & power>300" in text(pilot)


async def test_a_mistake_is_marked_and_explained_while_typing() -> None:
    async with app_of().run_test(size=(80, 24)) as pilot:
        await typed(pilot, "r07 & utl<5")
        assert line(pilot).mistake == (6, 9)
        assert said(pilot, "#said") == "no field 'utl' of a GPU: did you mean util?"
        assert said(pilot, "#count") == ""
        await pilot.press("enter")  # a mistake is not kept
        await pilot.pause()
        assert screen_of(pilot).is_filtering
        await pilot.press(*["left"] * 3, "i")
        await pilot.pause()
        assert line(pilot).value == "r07 & util<5"
        assert line(pilot).mistake is None
        assert said(pilot, "#said") == ""
        await pilot.press("escape")
        assert not screen_of(pilot).is_filtering
        assert screen_of(pilot).filter == ""


async def test_while_there_is_a_mistake_the_last_filter_stays() -> None:
    async with app_of().run_test(size=(80, 24)) as pilot:
        await typed(pilot, "r07")
        await pilot.press(*keys_of(" & "))
        await pilot.pause()
        kept = screen_of(pilot).kept(make_snapshot())
        assert kept is not None
        assert kept.sum() == 32


async def test_what_is_typed_in_one_go_arrives() -> None:
    async with app_of().run_test(size=(80, 24)) as pilot:
        await pilot.pause()
        for key, char in zip(["slash", *keys_of("m!z1 & user==kim")], "/m!z1 & user==kim", strict=True):
            pilot.app.post_message(events.Key(key, char))
        await until(pilot, "all keys", lambda: screen_of(pilot).filter == "m!z1 & user==kim")
        assert line(pilot).has_focus
        pilot.app.post_message(events.Key("ctrl+u", None))
        for char in "r07":
            pilot.app.post_message(events.Key(char, char))
        await pilot.pause()
        assert line(pilot).value in ("r07", "")  # a key that is bound goes round by the app


@pytest.mark.parametrize("key", ["4", "7"])
async def test_a_burst_over_two_screens_leaves_the_keys_alive(key: str) -> None:
    async with app_of().run_test(size=(80, 24)) as pilot:
        await pilot.pause()
        for sent, char in ((key, key), ("slash", "/"), ("r", "r"), ("0", "0")):
            pilot.app.post_message(events.Key(sent, char))
        await pilot.pause()
        await pilot.press("escape", "escape", "escape", "1")
        await pilot.pause()
        await pilot.press("escape", "question_mark")
        await pilot.pause()
        assert type(pilot.app.screen).__name__ == "HelpScreen"


async def test_tab_completes_fields_and_values() -> None:
    async with app_of().run_test(size=(80, 24)) as pilot:
        await typed(pilot, "us")
        await pilot.press("tab")
        await pilot.pause()
        assert line(pilot).value == "user"
        await pilot.press(*keys_of("=="), "tab")
        await pilot.pause()
        assert line(pilot).value == "user==kim"
        assert said(pilot, "#said") == "kim kpark mlee rsun"
        await pilot.press("tab")
        await pilot.pause()
        assert line(pilot).value == "user==kpark"
        await pilot.press("shift+tab", *keys_of(" & "))
        await pilot.pause()
        assert line(pilot).value == "user==kim & "
        assert "kpark" not in said(pilot, "#said")


async def test_up_recalls_what_was_kept(tmp_path: Path) -> None:
    async with app_of().run_test(size=(80, 24)) as pilot:
        for one in ("r07", "r08"):
            await typed(pilot, one)
            await pilot.press("enter", "escape")
        await typed(pilot, "x")
        await pilot.press("up")
        await pilot.pause()
        assert line(pilot).value == "r08"
        await pilot.press("up", "up")
        await pilot.pause()
        assert line(pilot).value == "r07"
        await pilot.press("down", "down")
        await pilot.pause()
        assert line(pilot).value == "x"


async def test_nodes_are_kept_for_one_of_their_gpus() -> None:
    async with app_of().run_test(size=(80, 24)) as pilot:
        await pilot.pause()
        await pilot.press("4")
        await typed(pilot, "thermal_violation>10%")
        screen = pilot.app.screen
        assert isinstance(screen, NodesScreen)
        assert screen.query_one(Table).keys == ("r07n01", "r07n02", "r07n04")
        assert said(pilot, "#count") == "3 of 64 nodes"
        await pilot.press("enter")
        await pilot.pause()
        assert screen.query_one(Table).has_focus
        assert "filter: thermal_violation>10% (Esc drops it)" in text(pilot)


async def test_targets_are_filtered_by_how_they_are() -> None:
    async with app_of().run_test(size=(80, 24)) as pilot:
        await pilot.pause()
        await pilot.press("7", "tab")  # to Metrics: only targets can be filtered
        await typed(pilot, "state!=ok")
        screen = pilot.app.screen
        assert isinstance(screen, SourcesScreen)
        assert screen.query_one("#targets", Table).keys == ("r14n03",)
        assert said(pilot, "#count") == "1 of 64 targets"
        await pilot.press("enter", "escape")
        await pilot.pause()
        assert pilot.app.screen is screen
        assert len(screen.query_one("#targets", Table).keys) == 64


async def test_a_mistake_is_seen_without_colour_or_utf8() -> None:
    async with app_of(no_colour=True, ascii_only=True).run_test(size=(80, 24)) as pilot:
        await typed(pilot, "utl<5")
        assert text(pilot).isascii()
        assert "did you mean util?" in text(pilot)
        strip = line(pilot).render_line(0)
        marked = "".join(segment.text for segment in strip if segment.style and segment.style.underline)
        assert marked == "utl"


class TestHistory:
    def test_it_is_private_bounded_and_without_doubles(self, tmp_path: Path) -> None:
        path = tmp_path / "state" / "filters"
        history = FilterHistory(path)
        for number in range(KEPT + 20):
            history.add(f"n{number}")
        history.add("n100")
        lines = path.read_text().splitlines()
        assert len(lines) == KEPT
        assert lines[-1] == "n100"
        assert lines.count("n100") == 1
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
        assert [one.name for one in path.parent.iterdir()] == ["filters"]

    def test_another_dashboard_writes_too(self, tmp_path: Path) -> None:
        one, other = FilterHistory(tmp_path / "f"), FilterHistory(tmp_path / "f")
        one.add("a")
        other.add("b")
        assert FilterHistory(tmp_path / "f").older("") == "b"
        assert (tmp_path / "f").read_text() == "a\nb\n"

    @pytest.mark.parametrize("content", [b"\xff\xfe\x00", b"a\x1b[31m\nr07\n", b"r07\n" * 300_000])
    def test_a_strange_file_does_no_harm(self, tmp_path: Path, content: bytes) -> None:
        (tmp_path / "f").write_bytes(content)
        assert FilterHistory(tmp_path / "f").older("") in ("", "r07", "\ufffd\ufffd\x00")

    def test_what_cannot_be_written_is_forgotten(self, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("")
        history = FilterHistory(tmp_path / "file" / "filters")
        history.add("r07")
        assert history.older("") == "r07"
