"""The Service screen: a service or a replica over time, its replicas, GPUs, values and facts."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import TypeVar

import pytest
from lab.services import NAN, PROMISES, ServiceFeed, Spec, make_services, series_towards
from lab.snapshots import AT
from textual.pilot import Pilot
from textual.screen import Screen

from coldaisle.analyzers.serving import group
from coldaisle.analyzers.snapshot import SeriesAnswer, SeriesQuery, Snapshot
from coldaisle.tui.app import ColdaisleApp
from coldaisle.tui.screens import service_panes as panes
from coldaisle.tui.screens.gpu_panes import View
from coldaisle.tui.screens.node import NodeScreen
from coldaisle.tui.screens.racks import RacksScreen
from coldaisle.tui.screens.service import MANY, ServiceScreen
from coldaisle.tui.screens.service_panes import CHARTS, REPLICA_METRICS, Subject
from coldaisle.tui.screens.serving_rows import Serving, serving
from coldaisle.tui.widgets.chart import ASCII
from coldaisle.tui.widgets.footer import shown_keys
from coldaisle.tui.widgets.lines import Lines, Row, row_text, row_width, text_of

HOSTILE = "evil\x1b[31m\x1b]52;c;aGk=\x07[red]x[/red]\u202egnp\x9b2J\r\n"
CHAT, STAGING, TGI = Subject(0), Subject(2), Subject(3)


@pytest.fixture(scope="module")
def night() -> Snapshot:
    return make_services()


def view_of(snapshot: Snapshot) -> Serving:
    return serving(snapshot, group(snapshot.layout), PROMISES)


def answer(view: Serving, subject: Subject) -> SeriesAnswer:
    servers = tuple(view.snapshot.layout.servers[server].key for server in subject.servers(view))
    query = SeriesQuery(panes.chart_keys(view), servers, view.snapshot.at - 900, view.snapshot.at, 60)
    return series_towards(view.snapshot, query)


def charts(view: Serving, subject: Subject, width: int = 80, height: int = 17, **kwargs: object) -> list[Row]:
    sight = View(width, height, **kwargs)  # type: ignore[arg-type]
    return panes.chart_pane(view, subject, answer(view, subject), sight)


# charts


@pytest.mark.parametrize(("width", "height"), [(80, 17), (60, 13), (118, 27), (198, 43), (20, 3), (1, 1)])
def test_charts_fit_every_size(night: Snapshot, width: int, height: int) -> None:
    rows = charts(view_of(night), CHAT, width, height)
    if width >= 60:
        assert all(row_width(row) <= width for row in rows)
        assert len(rows) <= height
        assert "KV cache" in text_of(rows)
        assert "TTFT p99" in text_of(rows)


def test_a_large_terminal_shows_every_chart(night: Snapshot) -> None:
    said = text_of(charts(view_of(night), CHAT, 118, 27))
    assert all(chart.name in said for chart in CHARTS)


def test_the_objective_is_drawn_in_and_what_is_outside_is_marked(night: Snapshot) -> None:
    rows = charts(view_of(night), CHAT, 118, 43)
    ttft = next(at for at, row in enumerate(rows) if row_text(row).startswith("TTFT p99"))
    assert "SLO 2.0 s" in row_text(rows[ttft])
    assert "out, max 6.2 s" in row_text(rows[ttft])
    chart = rows[ttft + 1 : ttft + 8]
    assert any("┄" in run.text and run.token == "warn" for row in chart for run in row)
    assert any(run.token == "bad" for row in chart for run in row)
    assert any("2.0 s" in row_text(row) for row in chart)
    assert ">6.0 s" in row_text(chart[0]), "the chart is cut, and says so"


def test_a_chart_without_an_objective_has_no_line(night: Snapshot) -> None:
    rows = charts(view_of(night), TGI, 58, 60)
    ttft = next(at for at, row in enumerate(rows) if row_text(row).startswith("TTFT p99"))
    assert "SLO" not in row_text(rows[ttft])


def test_what_the_engine_does_not_expose_is_said(night: Snapshot) -> None:
    view = view_of(night)
    said = text_of(charts(view, TGI))
    assert said.count("not exposed by TGI") == 2
    before = text_of(panes.chart_pane(view, TGI, None, View(80, 17)))
    assert before.count("not exposed by TGI") == 2, "without waiting for an answer"


def test_without_traffic_it_is_said_that_there_is_none(night: Snapshot) -> None:
    assert "no request to measure" in text_of(charts(view_of(night), STAGING))


def test_a_service_whose_replicas_are_all_silent() -> None:
    view = view_of(make_services((Spec("a", 2, stale=(0,), lost=(1,)),)))
    assert panes.why_missing(view, Subject(0), "serve.running") == "no replica is ready"
    assert panes.why_missing(view, Subject(0, 1), "serve.running") == "the server is lost"
    assert "0/2 replicas ready" in row_text(panes.title(view, Subject(0), 80))


def test_ascii_only(night: Snapshot) -> None:
    said = text_of(charts(view_of(night), CHAT, 118, 27, ink=ASCII))
    assert not set(said) & set("▁▂▃▄▅▆▇█│┄")


# promises


def line(view: Serving, subject: Subject, width: int = 200) -> str:
    kept = panes.excursions(view, subject, answer(view, subject))
    verdicts = panes.verdicts_of(view, subject)
    return row_text(panes.promise_line(verdicts, kept, view, subject, width))


def test_promises_say_by_how_much_since_when_and_how_often(night: Snapshot) -> None:
    view = view_of(night)
    said = line(view, CHAT)
    assert said.startswith("SLO  ! TTFT p99 6.2 s > 2.0 s x3.1 for ")
    assert "% out)" in said
    assert "+ ITL p99 280 ms of 300 ms" in said
    assert "+ errors 0.1 % of 1.0 %" in said
    assert "! TTFT p99" in line(view, Subject(0, 2))
    assert "+ TTFT p99" in line(view, Subject(0, 0))
    assert "? TTFT p99 of 2.0 s not known" in line(view, Subject(0, 4))
    assert "(idle)" in line(view, STAGING)


def test_without_an_objective_it_is_said_where_one_is_written(night: Snapshot) -> None:
    bare = serving(night, group(night.layout), None)
    assert "no SLO is set: [serving.slo.'chat-70b']" in line(bare, CHAT)


# the other panes


def test_values_of_a_service_are_sums_or_the_worst(night: Snapshot) -> None:
    said = text_of(panes.values_pane(view_of(night), CHAT, View(120, 40)))
    assert "sum of 5" in said
    assert "worst of 5: r01n01:8002" in said
    assert "requests in the batch" in said
    assert "tokens a joule" in said
    assert "No source delivers:" in said


def test_values_of_a_replica_have_their_source_or_reason(night: Snapshot) -> None:
    view = view_of(night)
    said = text_of(panes.values_pane(view, Subject(3, view.grouping.services[3].servers[0]), View(120, 40)))
    assert "ssh, 1 s ago" in said
    assert "not exposed by TGI" in said


def test_facts(night: Snapshot) -> None:
    view = view_of(night)
    said = text_of(panes.fact_pane(view, CHAT, View(80, 20)))
    assert "5 ready of 7 ever heard of, 8 expected" in said
    assert "1.33 Mtok, 545 ktok in use" in said
    tgi = text_of(panes.fact_pane(view, TGI, View(80, 20)))
    assert "no source says how many" in tgi
    assert "not by TGI" in tgi
    assert "- not exposed by TGI" in tgi
    replica = text_of(panes.fact_pane(view, Subject(0, 2), View(80, 20)))
    assert "r01n01, rack r01" in replica
    assert "slots 4-5" in replica


def test_why_there_are_no_tokens_a_joule() -> None:
    unknown = view_of(make_services((Spec("a", 2, gpus=0),)))
    assert "its GPUs are not known" in text_of(panes.values_pane(unknown, Subject(0), View(120, 40)))
    assert "which GPUs it runs on is not known" in text_of(
        panes.gpu_pane(unknown, Subject(0), View(80, 20), 0).rows
    )


def test_long_lists_show_the_part_around_the_cursor() -> None:
    assert panes.window(100, 50, 10) == range(45, 55)
    assert panes.window(100, 99, 10) == range(90, 100)
    assert panes.window(3, 2, 10) == range(3)
    assert panes.window(0, 0, 10) == range(1) or not len(panes.window(0, 0, 10))
    view = view_of(make_services((Spec("a", 500, gpus=1),), racks=16))
    block = panes.replica_pane(view, Subject(0), None, REPLICA_METRICS[0], View(80, 17), 250)
    assert len(block.rows) <= 17
    assert "500 replicas" in text_of(block.rows)


def test_foreign_text_is_inert(night: Snapshot) -> None:
    servers = tuple(
        replace(s, name=HOSTILE, engine=HOSTILE, model=HOSTILE, service=HOSTILE, version=HOSTILE, pod=HOSTILE, namespace=HOSTILE)
        for s in night.layout.servers
    )  # fmt: skip
    view = view_of(replace(night, layout=replace(night.layout, servers=servers)))
    for subject in (Subject(0), Subject(0, 0)):
        rows = [
            panes.title(view, subject, 200),
            panes.promise_line(panes.verdicts_of(view, subject), {}, view, subject, 200),
            *charts(view, subject, 118, 27),
            *panes.values_pane(view, subject, View(120, 40)),
            *panes.fact_pane(view, subject, View(120, 40)),
            *panes.gpu_pane(view, subject, View(120, 20), 0).rows,
            *panes.replica_pane(view, subject, None, REPLICA_METRICS[0], View(120, 20), 0).rows,
        ]
        assert all(run.text.isprintable() for row in rows for run in row if run.text)


# on the screen


Shown = TypeVar("Shown", bound=Screen[None])


def shown(pilot: Pilot[None], kind: type[Shown]) -> Shown:
    """The screen in sight, which is of a kind."""
    screen = pilot.app.screen
    assert isinstance(screen, kind)
    return screen


@asynccontextmanager
async def opened(
    snapshot: Snapshot, server: int | None = None, size: tuple[int, int] = (80, 24)
) -> AsyncIterator[tuple[Pilot[None], ServiceScreen, ServiceFeed]]:
    feed = ServiceFeed(snapshot)
    app = ColdaisleApp(feed, clock=lambda: AT, serving=PROMISES)
    async with app.run_test(size=size) as pilot:
        await pilot.pause()
        key = "" if server is None else snapshot.layout.servers[server].key
        screen = ServiceScreen(group(snapshot.layout).services[0].key, key)
        await app.push_screen(screen)
        await pilot.pause()
        yield pilot, screen, feed


def screen_text(screen: ServiceScreen) -> str:
    return text_of([*screen.query_one("#title", Lines).rows, *screen.query_one("#pane", Lines).rows])


async def test_a_service_over_time(night: Snapshot) -> None:
    async with opened(night) as (_, screen, feed):
        said = screen_text(screen)
        assert "chat-70b  5/8 replicas ready" in said
        assert "! TTFT p99 6.2 s > 2.0 s x3.1 for" in said
        assert len(feed.queries[-1].entities) == 7
        assert "serve.ttft_p99" in feed.queries[-1].keys
        assert any(char in said for char in "▂▃▄▅▆▇")


async def test_every_pane_and_back(night: Snapshot) -> None:
    async with opened(night) as (pilot, screen, _):
        for words in (
            "preemptions",
            "strips: 0 to 100 %",
            "Enter opens the node",
            "worst of 5",
            "ever heard of",
        ):
            await pilot.pause()
            assert words in screen_text(screen), words
            await pilot.press("tab")
        await pilot.press("escape")
        assert screen not in pilot.app.screen_stack


async def test_from_replicas_to_one_of_them_and_to_its_neighbour(night: Snapshot) -> None:
    async with opened(night) as (pilot, _, _feed):
        await pilot.press("tab", "j", "j", "enter")
        await pilot.pause()
        replica = shown(pilot, ServiceScreen)
        assert replica.server == night.layout.servers[2].key
        assert "r01n01:8002  ready" in screen_text(replica)
        assert "Replicas" not in screen_text(replica)
        await pilot.press("l")
        assert replica.server == night.layout.servers[3].key
        await pilot.press("h", "h", "h", "h")
        assert replica.server == night.layout.servers[6].key


async def test_from_its_gpus_to_the_node_and_the_racks(night: Snapshot) -> None:
    async with opened(night) as (pilot, _, _feed):
        await pilot.press("tab", "tab", *"jjj", "enter")
        await pilot.pause()
        node = shown(pilot, NodeScreen)
        assert (node.node, node.gpu) == ("r01n01", 3)
        await pilot.press("escape", "r")
        await pilot.pause()
        assert shown(pilot, RacksScreen).cursor == "r01n01/3"


async def test_the_next_service_is_one_key_away(night: Snapshot) -> None:
    async with opened(night) as (pilot, screen, _):
        await pilot.press("l")
        await pilot.pause()
        assert "code-32b  4/4" in screen_text(screen)
        assert "+ TTFT p99" in screen_text(screen)


async def test_metric_and_range(night: Snapshot) -> None:
    async with opened(night) as (pilot, screen, feed):
        await pilot.press("tab", "m", "plus")
        await pilot.pause()
        assert feed.queries[-1].keys == ("serve.running",)
        assert feed.queries[-1].end - feed.queries[-1].start >= 3600
        assert "running (m) 1h (+/-)" in screen_text(screen)
        assert {"metric(1)", "open"} <= {
            binding.binding.action for binding in screen.active_bindings.values()
        }
        offered = " ".join(key.does for key in shown_keys(screen))
        assert "Metric" in offered
        await pilot.press("shift+tab")
        assert "Metric" not in " ".join(key.does for key in shown_keys(screen))


async def test_a_service_that_goes_away_is_told(night: Snapshot) -> None:
    async with opened(night) as (pilot, screen, feed):
        bare = make_services(())
        feed.send(replace(bare, layout=replace(bare.layout, version=77)))
        await pilot.pause()
        assert "not known any more" in screen_text(screen)
        await pilot.press("tab", "j", "enter", "r", "n", "l", "end")
        assert pilot.app.screen is screen


async def test_the_charts_of_many_replicas_are_asked_for_less_often() -> None:
    snapshot = make_services((Spec("a", MANY, gpus=1),))
    async with opened(snapshot) as (pilot, _, feed):
        asked = len(feed.queries)
        feed.send(replace(snapshot, at=snapshot.at + 2))
        await pilot.pause()
        assert len(feed.queries) == asked
        feed.send(replace(snapshot, at=snapshot.at + 11))
        await pilot.pause()
        assert len(feed.queries) == asked + 1


async def test_a_tiny_terminal(night: Snapshot) -> None:
    async with opened(night, server=2) as (pilot, screen, _):
        for size in ((20, 5), (1, 1), (200, 50), (80, 24)):
            await pilot.resize_terminal(*size)
            await pilot.press("tab", "end", "pagedown", "home")
            await pilot.pause()
        assert pilot.app.screen is screen


def test_a_missing_series_is_no_zero() -> None:
    view = view_of(make_services((Spec("a", 1, values={"serve.kv_usage": NAN}),)))
    assert all(
        math.isnan(value)
        for value in panes.series(view, Subject(0), "serve.kv_usage", answer(view, Subject(0)))
    )
