"""The Nodes screen: a row a node, in an order that stays, filtered by names, state, job and user."""

from __future__ import annotations

from dataclasses import replace

import pytest
from lab.cost import cpu_seconds
from lab.snapshots import AT, FakeFeed, Faults, make_snapshot, with_values
from textual.pilot import Pilot

from coldaisle.analyzers.snapshot import Snapshot
from coldaisle.tui.app import ColdaisleApp
from coldaisle.tui.matching import Matching
from coldaisle.tui.screens.node import NodeScreen
from coldaisle.tui.screens.nodes import SORTS, NodesScreen, node_cells, order, power_of
from coldaisle.tui.widgets.lines import Lines, Run
from coldaisle.tui.widgets.table import Table

HOSTILE = "evil\x1b[2J\x1b]52;c;aGk=\x07[red]x[/red]\u202e\r\n"


@pytest.fixture(scope="module")
def night() -> Snapshot:
    return make_snapshot()


def sort(column: str) -> object:
    return next(sort for sort in SORTS if sort.column == column)


def cell(snapshot: Snapshot, node: str, column: str) -> Run:
    (found,) = node_cells(snapshot, snapshot.layout.node_of[node], [column], ())
    assert isinstance(found, Run)
    return found


def wanted(snapshot: Snapshot, text: str) -> list[str]:
    matching = Matching("node")
    matching.set(text)
    mask = matching.mask(snapshot)
    assert mask is not None
    return [node.key for node, yes in zip(snapshot.layout.nodes, mask, strict=True) if yes]


def test_by_place_is_the_order_of_the_racks(night: Snapshot) -> None:
    assert order(night, SORTS[0]) == [node.key for node in night.layout.nodes]


def test_worst_state_first(night: Snapshot) -> None:
    assert order(night, sort("state"))[0] == "r14n03"  # type: ignore[arg-type]


@pytest.mark.parametrize("by", SORTS, ids=[sort.column for sort in SORTS])
def test_every_order_holds_every_node_once(night: Snapshot, by: object) -> None:
    assert sorted(order(night, by)) == sorted(node.key for node in night.layout.nodes)  # type: ignore[arg-type]


def test_what_has_no_value_comes_last(night: Snapshot) -> None:
    gone = with_values(night, "node.cpu_util", {"r05n01": float("nan")})
    assert order(gone, sort("cpu"))[-1] == "r05n01"  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("r07", ["r07n01", "r07n02", "r07n03", "r07n04"]),
        ("r07n02", ["r07n02"]),
        ("r[01-03]n02", ["r01n02", "r02n02", "r03n02"]),
        ("r01n01 r16n04", ["r01n01", "r16n04"]),
        ("drain", ["r02n04"]),
        ("stale", ["r14n03"]),
        ("nothing-of-the-kind", []),
    ],
)
def test_filter_by_names_and_states(night: Snapshot, text: str, names: list[str]) -> None:
    assert wanted(night, text) == names


def test_filter_by_job_and_user(night: Snapshot) -> None:
    job = night.jobs[3]
    assert set(job.nodes) <= set(wanted(night, job.bare_id))
    assert set(job.nodes) <= set(wanted(night, job.user.upper()))


def test_a_missing_value_is_a_dash(night: Snapshot) -> None:
    bare = replace(night, columns={})
    assert {
        cell(bare, "r01n01", column).text for column in ("cpu", "memory", "psi", "gpu_power", "power", "net")
    } == {"-"}


def test_a_sum_over_some_boards_says_so(night: Snapshot) -> None:
    assert power_of(night, night.layout.node_of["r11n02"])[1] is False
    assert cell(night, "r11n02", "gpu_power").text.startswith(">")
    assert not cell(night, "r11n03", "gpu_power").text.startswith(">")


def test_problems_in_words() -> None:
    snapshot = make_snapshot(2, 2, 8, faults=Faults(lost=("r01n01/3",), gone=("r01n02",), never=("r02n01",)))
    assert cell(snapshot, "r01n01", "problem").text == "GPU 3 lost"
    assert cell(snapshot, "r01n02", "problem").text == "no answer, silent for 10m00s", "as its target says"
    assert cell(snapshot, "r02n01", "problem").text == "no answer, never heard of"
    assert cell(snapshot, "r02n02", "problem").text == ""


def test_foreign_text_is_inert(night: Snapshot) -> None:
    node = replace(night.layout.nodes[0], key=HOSTILE, problem=HOSTILE, state=HOSTILE)
    rack = replace(night.layout.racks[0], name=HOSTILE)
    layout = replace(
        night.layout, nodes=(node, *night.layout.nodes[1:]), racks=(rack, *night.layout.racks[1:])
    )
    evil = replace(night, layout=layout)
    for column in ("node", "rack", "state", "problem"):
        (found,) = node_cells(evil, 0, [column], ())
        assert isinstance(found, Run)
        assert found.text.isprintable()
        assert "[red]x[/red]" in found.text


# on the screen


async def opened(pilot: Pilot[None]) -> NodesScreen:
    await pilot.pause()
    await pilot.press("4")
    await pilot.pause()
    screen = pilot.app.screen
    assert isinstance(screen, NodesScreen)
    return screen


def lines(screen: NodesScreen) -> list[str]:
    table = screen.query_one(Table)
    return [table.render_line(y).text.rstrip() for y in range(table.size.height)]


def status(screen: NodesScreen) -> str:
    return screen.query_one("#status", Lines).render_line(0).text.rstrip()


@pytest.mark.parametrize("size", [(80, 24), (120, 34), (200, 50), (60, 20)])
async def test_a_row_a_node_with_its_gpus(night: Snapshot, size: tuple[int, int]) -> None:
    app = ColdaisleApp(FakeFeed(night), clock=lambda: AT)
    async with app.run_test(size=size) as pilot:
        screen = await opened(pilot)
        assert lines(screen)[1].startswith("r01n01")
        assert sum(char.isdigit() for char in lines(screen)[1].split()[3 if size[0] >= 120 else 2]) == 8
        assert "64 of 64 nodes" in status(screen)


async def test_enter_opens_the_node_and_escape_comes_back(night: Snapshot) -> None:
    app = ColdaisleApp(FakeFeed(night), clock=lambda: AT)
    async with app.run_test(size=(80, 24)) as pilot:
        screen = await opened(pilot)
        await pilot.press("j", "j", "enter")
        await pilot.pause()
        assert isinstance(app.screen, NodeScreen)
        assert app.screen.node == "r01n03"
        await pilot.press("escape")
        assert app.screen_stack[-1] is screen


async def test_rows_keep_their_place_while_values_change(night: Snapshot) -> None:
    feed = FakeFeed(night)
    app = ColdaisleApp(feed, clock=lambda: AT)
    async with app.run_test(size=(80, 24)) as pilot:
        screen = await opened(pilot)
        await pilot.press("s", "s", "s")  # by CPU
        await pilot.pause()
        before = screen.query_one(Table).keys
        feed.send(with_values(night, "node.cpu_util", {before[-1]: 1.0, before[0]: 0.01}))
        await pilot.pause()
        assert screen.query_one(Table).keys == before
        assert "as it was" in status(screen)


async def test_the_filter_is_typed_and_dropped(night: Snapshot) -> None:
    app = ColdaisleApp(FakeFeed(night), clock=lambda: AT)
    async with app.run_test(size=(100, 24)) as pilot:
        screen = await opened(pilot)
        await pilot.press("slash", *"r07n0", "enter")
        await pilot.pause()
        assert screen.query_one(Table).keys == ("r07n01", "r07n02", "r07n03", "r07n04")
        assert "4 of 64 nodes" in status(screen)
        await pilot.press("escape")
        assert len(screen.query_one(Table).keys) == 64
        await pilot.press("slash", *"r[1", "enter")
        assert "filter:" in status(screen)
        assert len(screen.query_one(Table).keys) == 64
        await pilot.press("escape", "escape")
        assert app.screen is not screen


async def test_a_thousand_nodes_without_delay() -> None:
    big = make_snapshot(64, 16, 8, faults=Faults())
    feed = FakeFeed(big)
    app = ColdaisleApp(feed, clock=lambda: AT)
    async with app.run_test(size=(120, 34)) as pilot:
        screen = await opened(pilot)
        await pilot.press("end")
        assert screen.query_one(Table).key == "r64n16"
        assert cpu_seconds(lambda: screen.show(big)) < 0.5  # 20 to 40 ms alone; the machine is shared


async def test_a_tiny_terminal(night: Snapshot) -> None:
    app = ColdaisleApp(FakeFeed(night), clock=lambda: AT)
    async with app.run_test(size=(80, 24)) as pilot:
        screen = await opened(pilot)
        for size in ((20, 5), (1, 1), (200, 50), (80, 24)):
            await pilot.resize_terminal(*size)
            await pilot.press("s", "end", "home")
            await pilot.pause()
        assert app.screen is screen
