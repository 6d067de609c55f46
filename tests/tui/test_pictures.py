"""Pictures of the Node, Nodes, Sources and help screens at the sizes people have."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest
from lab.services import NIGHT, PROMISES, ServiceFeed, with_services
from lab.snapshots import AT, FakeFeed, make_snapshot

from coldaisle.tui.app import ColdaisleApp

SIZES = {"80x24": (80, 24), "120x34": (120, 34), "200x50": (200, 50)}
TO_NODE = ("exclamation_mark", "enter", "wait:200")
SCREENS = {"node": TO_NODE, "nodes": ("4", "wait:200"), "sources": ("7", "enter", "wait:200")}
SERVING = {
    "serving": ("5", "wait:200", "enter", "wait:200"),
    "service": ("5", "wait:200", "v", "wait:200"),
    "replica": ("5", "wait:200", "enter", "j", "j", "j", "enter", "wait:200"),
}
PANES = {"host": 2, "links": 3, "processes": 4, "facts": 6}


@pytest.fixture(autouse=True)
def berlin(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with monkeypatch.context() as patch:
        patch.setenv("TZ", "Europe/Berlin")
        time.tzset()
        yield
    time.tzset()


def app_of(*, no_colour: bool = False, ascii_only: bool = False) -> ColdaisleApp:
    feed = FakeFeed(make_snapshot())
    return ColdaisleApp(feed, name="atlas", clock=lambda: AT, no_colour=no_colour, ascii_only=ascii_only)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("screen", SCREENS)
def test_picture(snap_compare: object, screen: str, size: str) -> None:
    assert callable(snap_compare)
    assert snap_compare(app_of(), terminal_size=SIZES[size], press=SCREENS[screen])


def serving_app(*, no_colour: bool = False, ascii_only: bool = False) -> ColdaisleApp:
    return ColdaisleApp(
        ServiceFeed(with_services(make_snapshot(), NIGHT)),
        name="atlas",
        clock=lambda: AT,
        no_colour=no_colour,
        ascii_only=ascii_only,
        serving=PROMISES,
    )


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("screen", SERVING)
def test_picture_of_services(snap_compare: object, screen: str, size: str) -> None:
    assert callable(snap_compare)
    assert snap_compare(serving_app(), terminal_size=SIZES[size], press=SERVING[screen])


@pytest.mark.parametrize("screen", SERVING)
def test_picture_of_services_without_colour_or_utf8(snap_compare: object, screen: str) -> None:
    assert callable(snap_compare)
    app = serving_app(no_colour=True, ascii_only=True)
    assert snap_compare(app, terminal_size=(120, 34), press=SERVING[screen])


def test_picture_of_a_service_whose_engine_tells_less(snap_compare: object) -> None:
    assert callable(snap_compare)
    press = ("5", "wait:200", "j", "j", "j", "v", "wait:200")
    assert snap_compare(serving_app(), terminal_size=(80, 24), press=press)


@pytest.mark.parametrize(("pane", "tabs"), [("replicas", 1), ("gpus", 2), ("values", 3), ("facts", 4)])
def test_picture_of_a_service_pane(snap_compare: object, pane: str, tabs: int) -> None:
    assert callable(snap_compare)
    press = ("5", "wait:200", "v", *["tab"] * tabs, "wait:200")
    assert snap_compare(serving_app(), terminal_size=(80, 24), press=press)


def test_picture_of_no_services(snap_compare: object) -> None:
    assert callable(snap_compare)
    feed = FakeFeed(with_services(make_snapshot(), ()))
    app = ColdaisleApp(feed, name="atlas", clock=lambda: AT, no_colour=False)
    assert snap_compare(app, terminal_size=(80, 24), press=("5", "wait:200"))


@pytest.mark.parametrize("pane", PANES)
def test_picture_of_a_pane(snap_compare: object, pane: str) -> None:
    assert callable(snap_compare)
    press = ("enter", *["tab"] * PANES[pane], "wait:200")
    assert snap_compare(app_of(), terminal_size=(80, 24), press=press)


def test_picture_of_temperatures_without_colour_or_utf8(snap_compare: object) -> None:
    assert callable(snap_compare)
    app = app_of(no_colour=True, ascii_only=True)
    assert snap_compare(app, terminal_size=(120, 34), press=(*TO_NODE, "m", "m", "m", "wait:200"))


def test_picture_of_missing_metrics(snap_compare: object) -> None:
    assert callable(snap_compare)
    assert snap_compare(app_of(), terminal_size=(80, 24), press=("7", "tab", "wait:200"))


def test_picture_of_help(snap_compare: object) -> None:
    assert callable(snap_compare)
    assert snap_compare(app_of(), terminal_size=(80, 24), press=("4", "question_mark", "wait:200"))
