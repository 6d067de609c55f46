"""Help is made from the bindings and from the tables that draw the cells, never from a list of its own."""

from __future__ import annotations

from typing import ClassVar

import pytest
from lab.snapshots import AT, FakeFeed, make_snapshot
from textual.binding import Binding
from textual.screen import Screen

from coldaisle.tui.app import ColdaisleApp
from coldaisle.tui.cells import MARKS, METRICS
from coldaisle.tui.screens.columns import ColumnsScreen
from coldaisle.tui.screens.events import EventsScreen
from coldaisle.tui.screens.help import (
    HelpScreen,
    bindings_of,
    entry,
    key_rows,
    keys_of,
    legend_rows,
    screen_classes,
)
from coldaisle.tui.screens.job import JobScreen
from coldaisle.tui.screens.jobs import JobsScreen
from coldaisle.tui.screens.node import NodeScreen
from coldaisle.tui.screens.nodes import NodesScreen
from coldaisle.tui.screens.racks import RacksScreen
from coldaisle.tui.screens.service import ServiceScreen
from coldaisle.tui.screens.serving import ServingScreen
from coldaisle.tui.screens.sources import SourcesScreen
from coldaisle.tui.widgets.lines import Lines, row_width, text_of


class Parent(Screen[None]):
    BINDINGS: ClassVar = [Binding("x", "one", "Old words"), Binding("slash,f", "two", "Find")]


class Child(Parent):
    BINDINGS: ClassVar = [Binding("x", "three", "New words"), Binding("ctrl+p,pageup", "four", "Palette")]


Parent.__module__ = Child.__module__ = "coldaisle.test"


def test_the_most_special_class_has_the_key() -> None:
    said = {key.keys: key.does for key in keys_of([Child])}
    assert said == {"x": "New words", "Ctrl+P PgUp": "Palette", "/ f": "Find"}


def test_only_our_own_keys_are_explained() -> None:
    assert not list(bindings_of(Screen))


@pytest.mark.parametrize(
    "screen",
    [
        RacksScreen,
        JobsScreen,
        JobScreen,
        EventsScreen,
        ColumnsScreen,
        NodesScreen,
        NodeScreen,
        ServingScreen,
        ServiceScreen,
        SourcesScreen,
        ColdaisleApp,
    ],
)
def test_every_binding_is_explained(screen: type) -> None:
    said = {key for entry in keys_of([screen]) for key in entry.keys.split()}
    for binding in bindings_of(screen):
        assert said, binding
        assert binding.description, f"{binding.key} of {screen.__name__} does not say what it does"


@pytest.mark.parametrize(
    "screen",
    [
        RacksScreen,
        JobsScreen,
        JobScreen,
        EventsScreen,
        ColumnsScreen,
        NodesScreen,
        NodeScreen,
        ServingScreen,
        ServiceScreen,
        SourcesScreen,
        HelpScreen,
    ],
)
def test_every_binding_has_its_action(screen: type) -> None:
    for binding in bindings_of(screen):
        assert hasattr(screen, f"action_{binding.action.partition('(')[0]}"), binding


def test_the_legend_holds_every_letter_and_metric() -> None:
    said = " ".join(text_of(legend_rows(80)).split())
    assert all(f"{mark.letter} {mark.meaning}" in said for mark in MARKS)
    assert all(metric.label in said for metric in METRICS)


@pytest.mark.parametrize("width", [20, 60, 80, 200])
def test_rows_fit(width: int) -> None:
    rows = [*legend_rows(width), *entry("a GPU is lost", "Enter, then Events " * 9, 22, width)]
    if width >= 60:
        assert all(row_width(row) <= width for row in rows)
    assert all(row_width(row) <= max(width, 38) for row in key_rows(keys_of([NodeScreen]), width))


def text(screen: HelpScreen) -> str:
    view = screen.query_one(Lines)
    return text_of(view.rows)


@pytest.mark.parametrize(
    ("key", "screen"), [("1", "Racks"), ("4", "Nodes"), ("5", "Serving"), ("7", "Sources")]
)
@pytest.mark.parametrize("size", [(80, 24), (60, 20), (120, 34)])
async def test_help_on_every_screen(key: str, screen: str, size: tuple[int, int]) -> None:
    app = ColdaisleApp(FakeFeed(make_snapshot()), clock=lambda: AT)
    async with app.run_test(size=size) as pilot:
        await pilot.press(key)
        await pilot.pause()
        about = app.screen
        await pilot.press("question_mark")
        await pilot.pause()
        assert isinstance(app.screen, HelpScreen)
        said = text(app.screen)
        assert f"Keys on {screen}" in said
        for words in keys_of(screen_classes(about)):
            assert words.does in said
        assert "Keys everywhere" in said
        assert "What to trust" in said
        assert all(row_width(row) <= size[0] for row in app.screen.query_one(Lines).rows)
        await pilot.press("escape")
        assert app.screen is about


async def test_help_scrolls_to_its_end() -> None:
    app = ColdaisleApp(FakeFeed(make_snapshot()), clock=lambda: AT)
    async with app.run_test(size=(60, 20)) as pilot:
        await pilot.press("question_mark")
        await pilot.pause()
        view = app.screen.query_one(Lines)
        await pilot.press("end")
        await pilot.pause()
        assert view.scroll_y + view.size.height >= len(view.rows)
        await pilot.press("home", "j", "j", "k")
        await pilot.pause()
        assert view.scroll_y == 1
        for size in ((20, 5), (1, 1), (80, 24)):
            await pilot.resize_terminal(*size)
            await pilot.pause()
        await pilot.press("question_mark")
        assert isinstance(app.screen, RacksScreen)


async def test_help_before_the_first_snapshot() -> None:
    app = ColdaisleApp(FakeFeed(), clock=lambda: AT)
    async with app.run_test(size=(80, 24)) as pilot:
        await pilot.press("question_mark")
        await pilot.pause()
        assert isinstance(app.screen, HelpScreen)
        assert "Keys everywhere" in text(app.screen)
