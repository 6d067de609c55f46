"""The event log: newest first, that of what the cursor stood on before all else, up to the instant that is shown."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace

import pytest
from lab.jobs import hostile, night_of_jobs, screen_of
from lab.snapshots import AT, FakeFeed, make_snapshot
from textual.pilot import Pilot

from coldaisle.analyzers.snapshot import EventView, Snapshot
from coldaisle.tui.app import ColdaisleApp
from coldaisle.tui.screens.events import EventsScreen
from coldaisle.tui.screens.job import JobScreen
from coldaisle.tui.screens.node import NodeScreen
from coldaisle.tui.widgets.lines import Lines
from coldaisle.tui.widgets.table import Table


@pytest.fixture(autouse=True)
def berlin(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with monkeypatch.context() as patch:
        patch.setenv("TZ", "Europe/Berlin")
        time.tzset()
        yield
    time.tzset()


@pytest.fixture(scope="module")
def night() -> Snapshot:
    return night_of_jobs()


def lines(pilot: Pilot[None]) -> list[str]:
    table = pilot.app.screen.query_one(Table)
    return [line for y in range(table.size.height) if (line := table.render_line(y).text.rstrip())]


def status(pilot: Pilot[None]) -> str:
    return pilot.app.screen.query_one("#status", Lines).render_line(0).text.rstrip()


async def log_of(pilot: Pilot[None], *before: str) -> EventsScreen:
    await pilot.pause()
    await pilot.press(*before, "e")
    await pilot.pause()
    screen = pilot.app.screen
    assert isinstance(screen, EventsScreen)
    return screen


def app_of(snapshot: Snapshot) -> ColdaisleApp:
    return ColdaisleApp(FakeFeed(snapshot), name="atlas", clock=lambda: AT)


async def test_what_concerns_the_cursor_comes_first_and_is_marked(night: Snapshot) -> None:
    async with app_of(night).run_test(size=(120, 34)) as pilot:
        await log_of(pilot)  # the cursor stands on r01n01/0, which job 4690_3 holds
        said = lines(pilot)
        assert "of r01n01/0" in said[1]
        near = said[2 : next(at for at, line in enumerate(said) if "of the others" in line)]
        assert all(line.startswith(">") for line in near)
        assert [line.split()[-1] for line in near] != []
        assert any("job started" in line for line in near), "its job's"
        assert any("580.95.05" in line for line in near), "its node's"
        rest = said[len(near) + 3 :]
        assert any("drain" in line for line in rest)
        assert any("XID" in line for line in rest)
        assert not any(line.startswith(">") for line in rest)


async def test_newest_first_with_its_age(night: Snapshot) -> None:
    async with app_of(night).run_test(size=(120, 34)) as pilot:
        screen = await log_of(pilot, "7")  # Sources has nothing under its cursor
        said = lines(pilot)
        assert "of " not in said[1][:30]
        ages = [screen._events[key].at for key in screen.query_one(Table).keys]
        assert ages == sorted(ages, reverse=True)
        assert "30 s" in said[1]
        assert "28 Feb" in said[-1], "not of today: with its date"
        assert f"{len(night.events)} events" in status(pilot)


@pytest.mark.parametrize(
    ("typed", "count"),
    [
        ("xid", 2),
        ("drain", 1),
        ("kim", 2),
        ("requeued", 1),
        ('"driver 570"', 1),
        ("no-such", 0),
        ("kind==drain", 1),
        ("4690_3", 1),
        ("user==kim & kind==job_start", 1),
        ("age>24h", 1),
        ("detail~=bad.DIMM", 1),
    ],
)
async def test_the_filter(night: Snapshot, typed: str, count: int) -> None:
    async with app_of(night).run_test(size=(120, 34)) as pilot:
        screen = await log_of(pilot)
        await pilot.press("slash", *typed, "enter")
        await pilot.pause()
        assert len(screen._events) == count
        assert f"{count} of {len(night.events)} events" in status(pilot)
        await pilot.press("escape")
        assert len(screen._events) == len(night.events)


async def test_enter_opens_what_it_happened_to(night: Snapshot) -> None:
    app = app_of(night)
    async with app.run_test(size=(120, 34)) as pilot:
        screen = await log_of(pilot, "7")
        await pilot.press("enter")
        await pilot.pause()
        found = screen_of(app, NodeScreen)
        assert (found.node, found.gpu) == ("r01n01", 2)
        await pilot.press("escape")
        table = screen.query_one(Table)
        table.select(next(key for key, event in screen._events.items() if event.kind == "job_start"))
        await pilot.press("enter")
        await pilot.pause()
        screen_of(app, JobScreen)
        await pilot.press("escape")
        table.select(next(key for key, event in screen._events.items() if event.kind == "job_end"))
        await pilot.press("enter")
        assert app.screen is screen, "that job has no screen any more"


async def test_what_is_new_stands_on_top_and_the_cursor_stays(night: Snapshot) -> None:
    feed = FakeFeed(night)
    app = ColdaisleApp(feed, clock=lambda: AT)
    async with app.run_test(size=(120, 34)) as pilot:
        screen = await log_of(pilot, "7")
        await pilot.press("j", "j")
        held = screen.query_one(Table).key
        new = EventView(AT - 1, "r05n01", "reboot", "up again")
        feed.send(replace(night, events=(*night.events, new)))
        await pilot.pause()
        assert "rebooted" in lines(pilot)[1]
        assert screen.query_one(Table).key == held


async def test_events_told_twice_are_two_rows(night: Snapshot) -> None:
    twice = replace(night, events=(night.events[-1], night.events[-1]))
    async with app_of(twice).run_test(size=(120, 34)) as pilot:
        screen = await log_of(pilot, "7")
        assert len(screen.query_one(Table).keys) == 2


async def test_in_the_past_only_what_had_happened(night: Snapshot) -> None:
    then = replace(night, at=AT - 2000.0, live=False)
    app = ColdaisleApp(FakeFeed(then), clock=lambda: AT)
    async with app.run_test(size=(120, 34)) as pilot:
        screen = await log_of(pilot, "7")
        assert screen._events
        assert all(event.at <= then.at + 1 for event in screen._events.values())
        assert "up to the instant" in status(pilot)


async def test_nothing_yet_and_escape_back() -> None:
    quiet = replace(make_snapshot(2, 2, 8), events=())
    app = app_of(quiet)
    async with app.run_test(size=(80, 24)) as pilot:
        screen = await log_of(pilot)
        assert "nothing has happened yet" in lines(pilot)[1]
        await pilot.press("enter", "e")
        await pilot.pause()
        assert app.screen is not screen


@pytest.mark.parametrize("size", [(60, 20), (80, 24), (200, 50)])
async def test_hostile_texts(size: tuple[int, int]) -> None:
    async with app_of(hostile()).run_test(size=size) as pilot:
        await log_of(pilot)
        assert all(line.isprintable() for line in lines(pilot))
        await pilot.press("down", "down", "enter", "end", "home", "escape")
