"""The Serving screen: services and their replicas in an order that stays, promises and trends, and ways to and from it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import TypeVar

import pytest
from lab.cost import cpu_seconds
from lab.services import NAN, NIGHT, PROMISES, ServiceFeed, Spec, make_services, series_towards
from lab.snapshots import AT, FakeFeed, Faults, make_snapshot
from textual.pilot import Pilot
from textual.screen import Screen

from coldaisle.analyzers.fields import Entity
from coldaisle.analyzers.selection import Selection
from coldaisle.analyzers.serving import group
from coldaisle.analyzers.snapshot import SeriesQuery, Snapshot
from coldaisle.sources.settings import ServingSettings
from coldaisle.sources.source import Missing
from coldaisle.tui.app import ColdaisleApp
from coldaisle.tui.reading import read, served, server_of
from coldaisle.tui.screens import serving_rows as rows
from coldaisle.tui.screens.node import NodeScreen
from coldaisle.tui.screens.racks import RacksScreen
from coldaisle.tui.screens.service import ServiceScreen
from coldaisle.tui.screens.serving import ServingScreen
from coldaisle.tui.screens.serving_rows import COLUMNS, REPLICA, SERVICE, SORTS, Serving
from coldaisle.tui.widgets.lines import Lines, Row, Run, row_text, row_width, text_of
from coldaisle.tui.widgets.table import Table

HOSTILE = "evil\x1b[2J\x1b]52;c;aGk=\x07[red]x[/red]\u202e\r\n"


@pytest.fixture(scope="module")
def night() -> Snapshot:
    return make_services()


def view_of(snapshot: Snapshot, promises: ServingSettings | None = PROMISES) -> Serving:
    return rows.serving(snapshot, group(snapshot.layout), promises)


def with_past(snapshot: Snapshot) -> Serving:
    view = view_of(snapshot)
    wanted = rows.pressing(view)
    query = SeriesQuery(wanted.keys, wanted.entities, snapshot.at - 900, snapshot.at, 60)
    return replace(view, trends=rows.trends_of(view, series_towards(snapshot, query)))


def said(cell: Row | Run) -> str:
    return cell.text if isinstance(cell, Run) else row_text(cell)


def service_cell(view: Serving, number: int, column: str) -> str:
    return said(rows.service_cells(view, number, [column])[0])


def replica_cell(view: Serving, server: int, column: str) -> str:
    return said(rows.replica_cells(view, server, [column])[0])


def names(view: Serving, keys: list[str]) -> list[str]:
    """Rows by the names they show."""
    servers = view.grouping.servers
    return [
        view.grouping.services[view.grouping.by_key[key.removeprefix(SERVICE)]].name
        if key.startswith(SERVICE)
        else f"  {replica_cell(view, servers[key.removeprefix(REPLICA)], 'name').strip()}"
        for key in keys
    ]


# cells


def test_ready_of_expected(night: Snapshot) -> None:
    view = view_of(night)
    assert [service_cell(view, number, "ready") for number in range(4)] == ["5/8", "4/4", "2", "3"]
    missing = view_of(make_services((Spec("a", 3, stale=(1,)),)))
    assert service_cell(missing, 0, "ready") == "2/3", (
        "nobody says how many there should be: of those ever heard of"
    )


def test_sums_and_the_worst(night: Snapshot) -> None:
    view = view_of(night)
    assert service_cell(view, 0, "running") == "339"
    assert service_cell(view, 0, "waiting") == "41"
    assert service_cell(view, 0, "ttft_p99") == "6.2 s"
    assert service_cell(view, 0, "tokens") == "7.10k"
    assert service_cell(view, 0, "preemptions") == "3.12"
    assert "97%" in service_cell(view, 0, "kv")


def test_what_an_engine_does_not_expose_is_a_dash_with_its_reason(night: Snapshot) -> None:
    view = view_of(night)
    assert service_cell(view, 3, "kv") == "-"
    assert service_cell(view, 3, "preemptions") == "-"
    server = view.grouping.services[3].servers[0]
    assert replica_cell(view, server, "kv") == "-"
    assert read(night, "serve.kv_usage", server).why == "not exposed by TGI"
    bare = replace(night, columns={})
    assert read(bare, "serve.kv_usage", server).why == "not exposed by TGI"
    assert read(bare, "serve.running", server).why == "no source delivers serve.running"


def test_a_sum_over_some_replicas_says_so() -> None:
    view = view_of(make_services((Spec("a", 2, values={"serve.running": (10, NAN)}),)))
    assert service_cell(view, 0, "running") == ">10"


def test_stale_lost_and_down_replicas_look_so(night: Snapshot) -> None:
    view = view_of(night)
    states = [rows.state_of(view, server) for server in range(7)]
    assert states[4] == ("stale", "stale")
    assert states[5] == ("lost", "lost")
    assert states[6] == ("ready", "ok")
    (faded,) = rows.replica_cells(view, 4, ["running"])
    assert faded == Run("50", "stale")
    down = view_of(make_services((Spec("a", 1, values={"serve.up": 0.0}),)))
    assert rows.state_of(down, 0) == ("down", "bad")
    assert service_cell(down, 0, "ready") == "0/1"


def test_a_broken_promise_says_by_how_much_and_since_when(night: Snapshot) -> None:
    view = with_past(night)
    (cell,) = rows.service_cells(view, 0, ["slo"])
    assert said(cell).startswith("! TTFT x3.1")
    assert "6.2 s of 2.0 s" in said(cell)
    since = service_cell(view, 0, "outside")
    assert since.endswith("s")
    assert "m" in since
    assert service_cell(view, 1, "slo") == "+ met"
    assert service_cell(view, 1, "outside") == ""
    assert service_cell(view, 2, "slo") == "idle"
    assert replica_cell(view, 2, "slo").startswith("! TTFT x3.1")
    assert replica_cell(view, 0, "slo") == "+ met"
    assert replica_cell(view, 4, "slo") == "? unknown"


def test_without_promises_none_is_kept_or_broken(night: Snapshot) -> None:
    assert service_cell(view_of(night, None), 0, "slo") == "none set"
    some = view_of(night, ServingSettings(ttft_p99=5.0, e2e_p95=100.0))
    assert service_cell(some, 0, "slo").startswith("! TTFT x1.2")


def test_the_time_until_a_cache_is_full_comes_from_its_trend() -> None:
    snapshot = make_services((Spec("a", 2, values={"serve.kv_usage": (0.8, 0.3)}),))
    view = view_of(snapshot)
    wanted = rows.pressing(view)
    assert wanted.entities == (snapshot.layout.servers[0].key,), "the past of empty caches is not asked for"
    query = SeriesQuery(wanted.keys, wanted.entities, snapshot.at - 900, snapshot.at, 60)
    answer = series_towards(snapshot, query)
    rising = 0.8 - 0.001 * (snapshot.at - answer.times)
    answer.values["serve.kv_usage"][0] = rising
    seen = replace(view, trends=rows.trends_of(view, answer))
    assert service_cell(seen, 0, "kv").endswith("  3m")
    assert replica_cell(seen, 0, "kv").endswith("  3m")
    assert replica_cell(seen, 1, "kv").endswith("30%")


def test_only_so_many_pasts_are_asked_for() -> None:
    spec = Spec("a", 1000, gpus=1, values={"serve.kv_usage": 0.9, "serve.ttft_p99": 9.0})
    view = view_of(make_services((spec,), racks=32), ServingSettings(ttft_p99=1.0))
    assert len(rows.pressing(view).entities) == rows.MOST_ASKED
    assert rows.pressing(view).keys == ("serve.kv_usage",), (
        "a service that is too large is not asked for in part"
    )


def test_every_cell_fits_its_column(night: Snapshot) -> None:
    view = with_past(night)
    for column in COLUMNS:
        if column.grows or column.key in ("name", "model", "engine"):
            continue
        for number in range(4):
            assert len(service_cell(view, number, column.key)) <= column.width, column.key
        for server in range(len(night.layout.servers)):
            assert len(replica_cell(view, server, column.key)) <= column.width, column.key


@pytest.mark.parametrize(
    ("value", "words"), [(0, "0"), (104, "104"), (9999, "9999"), (12_300, "12k"), (2e6, "2.00M")]
)
def test_counts_are_short(value: float, words: str) -> None:
    assert rows.count(value) == words


@pytest.mark.parametrize(
    ("value", "words"), [(0.0841, "84 ms"), (1.08, "1.1 s"), (750.0, "12m30s"), (NAN, "-")]
)
def test_latencies_are_short(value: float, words: str) -> None:
    assert rows.short_time(value) == words


def test_a_servers_name_says_its_node_once() -> None:
    snapshot = make_services((Spec("a", 3),))
    ends = ("127.0.0.1:8000", "localhost:8001", "10.0.3.7:8002")
    servers = tuple(
        replace(server, name=name) for server, name in zip(snapshot.layout.servers, ends, strict=True)
    )
    moved = replace(snapshot, layout=replace(snapshot.layout, servers=servers))
    found = [replica_cell(view_of(moved), server, "name").strip() for server in range(3)]
    assert found == ["r01n01:8000", "r01n01:8001", "10.0.3.7:8002"]


def test_slots_of_a_server() -> None:
    snapshot = make_services((Spec("a", 1, gpus=4), Spec("b", 1, gpus=0)))
    assert rows.slots_of(snapshot, 0) == "0-3"
    assert rows.slots_of(snapshot, 1) == "-"
    servers = (replace(snapshot.layout.servers[0], gpus=(0, 3, 8, 9)), snapshot.layout.servers[1])
    assert rows.slots_of(replace(snapshot, layout=replace(snapshot.layout, servers=servers)), 0) == "0,3 +2"


def test_foreign_text_is_inert(night: Snapshot) -> None:
    servers = tuple(
        replace(s, name=HOSTILE, engine=HOSTILE, model=HOSTILE, service=HOSTILE, version=HOSTILE, pod=HOSTILE)
        for s in night.layout.servers
    )
    node = replace(night.layout.nodes[0], key=HOSTILE)
    layout = replace(night.layout, servers=servers, nodes=(node, *night.layout.nodes[1:]))
    evil = replace(night, layout=layout)
    view = view_of(evil)
    columns = [column.key for column in COLUMNS]
    for cell in (*rows.service_cells(view, 0, columns), *rows.replica_cells(view, 0, columns)):
        assert said(cell).isprintable() or not said(cell)
    assert served(evil, 0).isprintable()


# order and filter


@pytest.mark.parametrize("by", SORTS, ids=[sort.column for sort in SORTS])
def test_every_order_holds_every_row_once_and_replicas_with_their_service(
    night: Snapshot, by: rows.Sort
) -> None:
    view = view_of(night)
    keys = rows.order(view, by)
    assert len(keys) == len(set(keys)) == 4 + 16
    service = ""
    for key in keys:
        if key.startswith(SERVICE):
            service = key.removeprefix(SERVICE)
        else:
            server = view.grouping.servers[key.removeprefix(REPLICA)]
            assert view.grouping.service_of(server).key == service


def test_the_worst_come_first_and_what_has_no_value_last(night: Snapshot) -> None:
    view = view_of(night)
    by = {sort.column: sort for sort in SORTS}
    assert names(view, rows.order(view, by["slo"]))[:2] == ["chat-70b", "  r01n01:8002"]
    assert names(view, rows.order(view, by["kv"]))[:2] == ["chat-70b", "  r01n01:8002"]
    services = [name for name in names(view, rows.order(view, by["kv"])) if not name.startswith(" ")]
    assert services[-1] == "summarise", "its engine does not tell"
    assert names(view, rows.order(view, by["ready"]))[0] == "chat-70b"


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("", ["chat-70b", "code-32b", "staging", "summarise"]),
        ("code", ["code-32b"]),
        ("instruct", ["code-32b"]),
        ("stale", ["chat-70b", "  r01n02:8000"]),
        ("r01n02", ["chat-70b", "  r01n02:8000", "  r01n02:8001", "  r01n02:8002", "code-32b", "  r01n02:8003"]),
        ("r[01]n03", ["code-32b", "  r01n03:8000", "  r01n03:8001", "  r01n03:8002", "staging"]),
        ("tgi", ["summarise"]),
        ("ttft>5s", ["chat-70b", "  r01n01:8002"]),
        ("engine==vllm & waiting==0 & running>60", ["chat-70b", "  r01n01:8003"]),
        ("nothing-of-the-kind", []),
    ],
)  # fmt: skip
def test_the_filter_finds_services_and_replicas(night: Snapshot, text: str, found: list[str]) -> None:
    view = view_of(night)
    wanted = Selection(text, Entity.SERVER).mask(night) if text else None
    shown = names(view, rows.visible(rows.order(view, SORTS[0]), view, set(), wanted))
    assert shown == found


# on the screen


Shown = TypeVar("Shown", bound=Screen[None])


def shown(pilot: Pilot[None], kind: type[Shown]) -> Shown:
    """The screen in sight, which is of a kind."""
    screen = pilot.app.screen
    assert isinstance(screen, kind)
    return screen


@asynccontextmanager
async def opened(
    snapshot: Snapshot, size: tuple[int, int] = (80, 24), promises: ServingSettings | None = PROMISES
) -> AsyncIterator[tuple[Pilot[None], ServingScreen, ServiceFeed]]:
    feed = ServiceFeed(snapshot)
    app = ColdaisleApp(feed, clock=lambda: AT, serving=promises)
    async with app.run_test(size=size) as pilot:
        await pilot.pause()
        await pilot.press("5")
        await pilot.pause()
        screen = app.screen
        assert isinstance(screen, ServingScreen)
        yield pilot, screen, feed


def lines(screen: ServingScreen) -> list[str]:
    table = screen.query_one(Table)
    return [table.render_line(y).text.rstrip() for y in range(table.size.height)]


def status(screen: ServingScreen) -> str:
    return screen.query_one("#status", Lines).render_line(0).text.rstrip()


@pytest.mark.parametrize("size", [(80, 24), (120, 34), (200, 50), (60, 20)])
async def test_a_row_a_service_opened_into_its_replicas(night: Snapshot, size: tuple[int, int]) -> None:
    async with opened(night, size) as (pilot, screen, _):
        assert [line[2:12].strip() for line in lines(screen)[1:5]] == [
            "chat-70b",
            "code-32b",
            "staging",
            "summarise",
        ]
        assert "TTFT x3.1" in lines(screen)[1]
        assert "14/16 replicas ready" in status(screen)
        await pilot.press("enter")
        await pilot.pause()
        assert lines(screen)[1].startswith("- chat-70b")
        assert lines(screen)[2].startswith("  r01n01:8000")
        assert all(row_width((Run(line),)) <= size[0] for line in lines(screen))
        await pilot.press("j", "j", "space")
        assert lines(screen)[1].startswith("+ chat-70b"), (
            "space closes the service that the replica belongs to"
        )
        assert screen.query_one(Table).key == screen.query_one(Table).keys[0]


async def test_the_width_shows_the_columns_that_matter_most(night: Snapshot) -> None:
    async with opened(night, (80, 24)) as (pilot, screen, _):
        for title in ("service", "ready", "wait", "KV", "TTFT99", "SLO"):
            assert title in lines(screen)[0]
        await pilot.resize_terminal(200, 50)
        await pilot.pause()
        assert len(screen.query_one(Table).placed) == len(COLUMNS)


async def test_enter_goes_deeper_and_escape_comes_back(night: Snapshot) -> None:
    async with opened(night) as (pilot, screen, _):
        await pilot.press("enter", "enter")
        await pilot.pause()
        detail = shown(pilot, ServiceScreen)
        assert not detail.server
        await pilot.press("escape", "j", "j", "j", "enter")
        await pilot.pause()
        detail = shown(pilot, ServiceScreen)
        assert detail.server == night.layout.servers[2].key
        await pilot.press("escape")
        assert pilot.app.screen is screen
        await pilot.press("escape")
        shown(pilot, RacksScreen)


async def test_from_a_replica_to_the_racks_and_to_its_node(night: Snapshot) -> None:
    async with opened(night) as (pilot, _, _feed):
        await pilot.press("enter", "j", "j", "j", "n")
        await pilot.pause()
        node = shown(pilot, NodeScreen)
        assert (node.node, node.gpu) == ("r01n01", 4)
        await pilot.press("escape", "r")
        await pilot.pause()
        assert shown(pilot, RacksScreen).cursor == "r01n01/4"


async def test_rows_keep_their_place_while_values_change(night: Snapshot) -> None:
    async with opened(night) as (pilot, screen, feed):
        await pilot.press(*"sss")  # by waiting
        await pilot.pause()
        before = screen.query_one(Table).keys
        column = night.columns["serve.waiting"]
        values = column.values.copy()
        values[-1] = 4000
        feed.send(
            replace(
                night,
                at=night.at + 2,
                columns={**night.columns, "serve.waiting": replace(column, values=values)},
            )
        )
        await pilot.pause()
        assert screen.query_one(Table).keys == before
        assert "as it was" in status(screen)
        assert "4000" in "\n".join(lines(screen))


async def test_the_past_is_asked_for_now_and_then(night: Snapshot) -> None:
    async with opened(night) as (pilot, screen, feed):
        assert len(feed.queries) == 1
        assert set(feed.queries[0].keys) == {"serve.kv_usage", "serve.ttft_p99"}
        assert len(feed.queries[0].entities) == 7, "all of the service that breaks a promise"
        feed.send(replace(night, at=night.at + 2))
        await pilot.pause()
        assert len(feed.queries) == 1
        feed.send(replace(night, at=night.at + 8))
        await pilot.pause()
        assert len(feed.queries) == 2
        assert screen.query_one(Table).keys


async def test_the_filter_is_typed_and_dropped(night: Snapshot) -> None:
    async with opened(night) as (pilot, screen, _):
        await pilot.press("slash", *"code", "enter")
        await pilot.pause()
        assert len(screen.query_one(Table).keys) == 1
        await pilot.press("escape")
        assert len(screen.query_one(Table).keys) == 4
        await pilot.press("slash", *"r[1", "enter")
        assert "filter:" in status(screen)
        assert len(screen.query_one(Table).keys) == 4


async def test_all_are_opened_and_closed(night: Snapshot) -> None:
    async with opened(night) as (pilot, screen, _):
        await pilot.press("plus")
        assert len(screen.query_one(Table).keys) == 20
        await pilot.press("end", "minus")
        await pilot.pause()
        assert len(screen.query_one(Table).keys) == 4
        assert screen.query_one(Table).key == screen.query_one(Table).keys[3]


async def test_without_servers_it_is_said_who_could_tell_of_them() -> None:
    async with opened(make_services(())) as (_, screen, _feed):
        text = "\n".join(lines(screen))
        assert "no inference server is known" in text
        assert "coldaisle --exporter 'serve[1-4]:8000'" in text
        assert "coldaisle --prometheus" in text
        assert "--enable-metrics" in text


async def test_servers_that_come_later_appear(night: Snapshot) -> None:
    async with opened(make_services(())) as (pilot, screen, feed):
        feed.send(replace(night, layout=replace(night.layout, version=9)))
        await pilot.pause()
        assert lines(screen)[1].startswith("+ chat-70b")


async def test_thousands_of_replicas_without_delay() -> None:
    big = make_services((Spec("chat", 4000, gpus=1), Spec("code", 96, gpus=1)), racks=64, nodes=8)
    async with opened(big, (200, 50)) as (pilot, screen, _):
        await pilot.press("plus", "end")
        await pilot.pause()
        assert len(screen.query_one(Table).keys) == 4098
        assert cpu_seconds(lambda: screen.show(big)) < 1.0  # 60 ms alone; the machine is shared


async def test_a_tiny_terminal(night: Snapshot) -> None:
    async with opened(night) as (pilot, screen, _):
        for size in ((20, 5), (1, 1), (200, 50), (80, 24)):
            await pilot.resize_terminal(*size)
            await pilot.press("s", "end", "home")
            await pilot.pause()
        assert pilot.app.screen is screen


# ways from other screens


def test_a_gpu_knows_the_server_that_runs_on_it(night: Snapshot) -> None:
    assert server_of(night, 5) == 2
    assert served(night, 2) == "serves chat-70b (r01n01:8002)"
    assert server_of(night, len(night.layout.gpus) - 1) is None
    mig = make_snapshot(1, 1, 2, mig=("r01n01/0",), faults=Faults())
    servers = (replace(mig.layout.servers[0], gpus=(0,), model="m"),)
    split = replace(mig, layout=replace(mig.layout, servers=servers))
    assert server_of(split, mig.layout.gpu_of["r01n01/0:gi1"]) == 0


async def test_racks_and_node_say_whom_a_gpu_serves(night: Snapshot) -> None:
    app = ColdaisleApp(FakeFeed(night), clock=lambda: AT)
    async with app.run_test(size=(120, 34)) as pilot:
        await pilot.pause()
        assert isinstance(app.screen, RacksScreen)
        app.screen.point_at("r01n01/4")
        await pilot.pause()
        shown = "\n".join(widget.render_line(0).text for widget in app.screen.query("#cursor"))
        assert "serves chat-70b (r01n01:8002)" in shown
        await pilot.press("enter")
        await pilot.pause()
        assert "serves chat-70b (r01n01:8002)" in text_of(app.screen.query_one("#pane", Lines).rows)


def test_the_reasons_of_the_lab_are_as_they_should_be() -> None:
    snapshot = make_services(NIGHT)
    assert (snapshot.columns["serve.kv_usage"].reason[-3:] == Missing.BLANK).all()
