"""The palette: names found by a few characters, commands made from tabs, bindings, metrics and themes."""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace

import pytest
from lab.rest import until
from lab.services import Spec, make_services
from lab.snapshots import AT, FakeFeed, Faults, make_snapshot
from textual.command import CommandPalette, Hit
from textual.widgets import OptionList

from coldaisle.tui.app import ColdaisleApp
from coldaisle.tui.commands import MOST_PLACES, ColdaisleCommands, Place, closeness, nearest, places
from coldaisle.tui.screens.node import NodeScreen
from coldaisle.tui.screens.racks import RacksScreen
from coldaisle.tui.screens.serving import ServingScreen
from coldaisle.tui.widgets.table import Table

HOSTILE = "evil\x1b]52;c;aGk=\x07[red]x[/red]\u202e"


@pytest.mark.parametrize(
    ("wanted", "name", "rank"),
    [
        ("r07", "r07", 0),
        ("r07", "r07n02", 1),
        ("n02", "r07n02", 2),
        ("r7n2", "r07n02", 3),
        ("x", "r07n02", None),
    ],
)
def test_how_close_a_name_is(wanted: str, name: str, rank: int | None) -> None:
    assert closeness(wanted, name) == rank


def test_the_closest_come_first() -> None:
    names = ["r07n02/1", "xr07n02", "r07n02", "r17n02", "r0x7n02"]
    assert nearest("r07n02", names) == ["r07n02", "r07n02/1", "xr07n02", "r0x7n02"]


def test_nothing_typed_is_nothing_found() -> None:
    assert nearest("  ", ["a"]) == []


def test_thousands_of_names_are_searched_at_once_and_few_are_given() -> None:
    snapshot = make_snapshot(64, 16, 8, faults=Faults())
    known = places(snapshot)
    assert len(known) == 64 + 1024 + 8192 + 2 + len(snapshot.jobs), (
        "racks, nodes, boards, a server that is a service by itself, and jobs"
    )
    started = time.process_time()
    found = nearest("r", known)
    assert len(found) == MOST_PLACES
    assert nearest("r64n16/7", known)[0] == "r64n16/7"
    assert nearest("x" * 100_000, known) == []
    assert time.process_time() - started < 1.0  # 10 to 30 ms alone; the machine is shared


def test_places_are_racks_nodes_their_aliases_and_boards() -> None:
    snapshot = make_snapshot(1, 1, 2, mig=("r01n01/0",))
    node = replace(snapshot.layout.nodes[0], aliases=("gpu-a-1",))
    named = replace(snapshot, layout=replace(snapshot.layout, nodes=(node,)))
    assert {name: place.kind for name, place in places(named).items()} == {
        "r01": "rack",
        "r01n01": "node",
        "gpu-a-1": "node",
        "r01n01/0": "GPU",
        "r01n01/1": "GPU",
        "r01n01:8000": "replica",
        "127.0.0.1:8000": "service",
        "4700 train-moe kim": "job",
    }


def test_services_and_replicas_are_places_too() -> None:
    known = places(make_services())
    assert known["chat-70b"].kind == "service"
    assert known["r01n01:8002"] == Place("replica", "r01n01/r01n01:8002")
    clash = make_services((Spec("r01n01", 1),))
    assert places(clash)["r01n01"].kind == "node", "a node goes before a service"


@pytest.mark.parametrize("typed", ["service chat", "chat-70b", "replica r01n01:8002", "SERVICE code"])
async def test_a_service_or_replica_is_found_by_name(typed: str) -> None:
    app = ColdaisleApp(FakeFeed(make_services()), clock=lambda: AT)
    async with app.run_test(size=(80, 24)) as pilot:
        await pilot.pause()
        hits = await found(app, typed)
        kind = "replica" if typed.startswith("replica") else "service"
        assert str(hits[0].text).startswith(kind)
        hits[0].command()
        await pilot.pause()
        await pilot.pause()
        assert isinstance(app.screen, ServingScreen)
        key = app.screen.query_one(Table).key
        assert key is not None
        assert key.startswith("r " if kind == "replica" else "s ")
        assert typed.split()[-1].casefold() in key


async def test_a_hostile_service_is_inert_in_the_palette() -> None:
    app = ColdaisleApp(FakeFeed(make_services((Spec(HOSTILE, 1),))), clock=lambda: AT)
    async with app.run_test(size=(80, 24)) as pilot:
        await pilot.pause()
        shown = [str(hit.text) for hit in await found(app, "evil")]
        assert any("evil" in text for text in shown)
        assert all(text.isprintable() for text in shown)


async def found(app: ColdaisleApp, query: str) -> list[Hit]:
    async with asyncio.timeout(20):
        while app.snapshot is None:
            await asyncio.sleep(0.01)
    provider = ColdaisleCommands(app.screen)
    return sorted([hit async for hit in provider.search(query) if isinstance(hit, Hit)], reverse=True)


async def names(app: ColdaisleApp) -> list[str]:
    provider = ColdaisleCommands(app.screen)
    return [str(hit.text) async for hit in provider.discover()]


def offered(app: ColdaisleApp) -> list[str]:
    """What the open palette lists, best first; one empty text while it lists nothing."""
    if not isinstance(app.screen, CommandPalette):
        return [""]
    return [str(option.prompt) for option in app.screen.query_one(OptionList).options] or [""]


async def test_screens_keys_metrics_themes_and_quit() -> None:
    app = ColdaisleApp(FakeFeed(make_snapshot()), clock=lambda: AT)
    async with app.run_test(size=(80, 24)) as pilot:
        await pilot.pause()
        offered = await names(app)
        for name in (
            "Go to Racks",
            "Go to Nodes",
            "Go to Sources",
            "Zoom",
            "Filter",
            "Metric: SM active",
            "Quit",
        ):
            assert name in offered
        assert "Go to Sizing" in offered
        assert "Metric: HBM temperature" not in offered  # nobody delivers it
        assert sum(name.startswith("Theme: ") for name in offered) >= 1


async def test_a_metric_is_chosen_by_name() -> None:
    app = ColdaisleApp(FakeFeed(make_snapshot()), clock=lambda: AT)
    async with app.run_test(size=(80, 24)) as pilot:
        await pilot.pause()
        hit = next(hit for hit in await found(app, "temperature") if "temperature" in str(hit.text))
        hit.command()
        await pilot.pause()
        assert app.metric is not None
        assert app.metric.key == "gpu.temp"


@pytest.mark.parametrize(("typed", "place"), [("r07n03", "r07n03"), ("r11n02/3", "r11n02")])
async def test_a_node_or_gpu_is_opened_by_name(typed: str, place: str) -> None:
    app = ColdaisleApp(FakeFeed(make_snapshot()), clock=lambda: AT)
    async with app.run_test(size=(80, 24)) as pilot:
        await pilot.pause()
        await pilot.press("colon", *(key if key != "/" else "slash" for key in typed))
        await until(pilot, f"{typed} offered first", lambda: typed in offered(app)[:1][0])
        await pilot.press("down", "enter")
        await until(pilot, "a node", lambda: isinstance(app.screen, NodeScreen))
        assert isinstance(app.screen, NodeScreen)
        assert app.screen.node == place
        assert app.screen.gpu == (3 if "/" in typed else 0)


async def test_a_rack_is_shown_on_the_map() -> None:
    app = ColdaisleApp(FakeFeed(make_snapshot()), clock=lambda: AT)
    async with app.run_test(size=(80, 24)) as pilot:
        await pilot.press("4")  # before the first paint: the data comes all the same
        await pilot.pause()
        assert app.screen.query_one(Table)
        hit = next(hit for hit in await found(app, "r09") if str(hit.text) == "rack r09")
        hit.command()
        await pilot.pause()
        assert isinstance(app.screen, RacksScreen)
        assert app.screen.cursor == "r09n01/0"


async def test_hostile_names_are_inert() -> None:
    snapshot = make_snapshot(1, 1, 1)
    rack = replace(snapshot.layout.racks[0], name=HOSTILE)
    evil = replace(snapshot, layout=replace(snapshot.layout, racks=(rack,)))
    app = ColdaisleApp(FakeFeed(evil), clock=lambda: AT)
    async with app.run_test(size=(80, 24)) as pilot:
        await pilot.pause()
        hit = next(hit for hit in await found(app, "evil"))
        assert str(hit.text).isprintable()
        assert "[red]x[/red]" in str(hit.match_display)
        hit.command()
        await pilot.press("colon", *"evil")
        await until(pilot, "the name offered", lambda: any("[red]x[/red]" in name for name in offered(app)))


async def test_keys_are_named_as_people_write_them() -> None:
    app = ColdaisleApp(FakeFeed(make_snapshot()), clock=lambda: AT)
    async with app.run_test(size=(80, 24)) as pilot:
        await pilot.pause()
        helps = [str(hit.help) async for hit in ColdaisleCommands(app.screen).discover()]
        assert {"key !", "key Enter"} <= set(helps)
        assert not any("_" in text for text in helps if text.startswith("key "))
