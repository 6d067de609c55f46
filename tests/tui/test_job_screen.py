"""A job's own screen: strips of its GPUs, hosts and links, its facts, its events."""

from __future__ import annotations

from dataclasses import replace

import pytest
from lab.jobs import hostile, night_of_jobs, screen_of
from lab.services import NIGHT, with_services
from lab.snapshots import AT, FakeFeed
from textual.pilot import Pilot

from coldaisle.analyzers.snapshot import Snapshot
from coldaisle.tui.app import ColdaisleApp
from coldaisle.tui.screens.job import JobScreen
from coldaisle.tui.screens.job_panes import OF_RUNNING, OF_WAITING, in_sight
from coldaisle.tui.screens.node import NodeScreen
from coldaisle.tui.screens.racks import RacksScreen
from coldaisle.tui.widgets.lines import Lines, text_of


@pytest.fixture(scope="module")
def night() -> Snapshot:
    return night_of_jobs()


def text(pilot: Pilot[None]) -> str:
    screen = pilot.app.screen
    return text_of([*screen.query_one("#title", Lines).rows, *screen.query_one("#pane", Lines).rows])


async def on_job(pilot: Pilot[None], job: str) -> JobScreen:
    await pilot.pause()
    screen = JobScreen(job)
    pilot.app.push_screen(screen)
    await pilot.pause()
    return screen


def app_of(snapshot: Snapshot) -> ColdaisleApp:
    return ColdaisleApp(FakeFeed(snapshot), name="atlas", clock=lambda: AT)


@pytest.mark.parametrize(
    ("count", "cursor", "height"), [(0, 0, 5), (3, 0, 5), (100, 0, 10), (100, 99, 10), (100, 50, 1)]
)
def test_the_cursor_is_in_sight(count: int, cursor: int, height: int) -> None:
    shown = in_sight(count, cursor, height)
    assert len(shown) == min(count, height)
    assert not count or cursor in shown


@pytest.mark.parametrize("size", [(80, 24), (120, 34), (200, 50), (60, 20)])
async def test_a_strip_a_gpu(night: Snapshot, size: tuple[int, int]) -> None:
    job = night.jobs[5]
    async with app_of(night).run_test(size=size) as pilot:
        await on_job(pilot, job.id)
        said = text(pilot)
        assert "job 4705 chat-70b" in said
        assert f"{len(job.gpus)} GPUs" in said
        first = next(
            line for line in said.splitlines() if line.startswith(night.layout.gpus[job.gpus[0]].key)
        )
        assert sum(char.isdigit() for char in first) > 20
        assert "one scale for all" in said


async def test_only_what_is_in_sight_is_asked_for(night: Snapshot) -> None:
    feed = FakeFeed(replace(night, jobs=(replace(night.jobs[0], gpus=tuple(range(512))), *night.jobs[1:])))
    app = ColdaisleApp(feed, clock=lambda: AT)
    async with app.run_test(size=(80, 24)) as pilot:
        await on_job(pilot, night.jobs[0].id)
        assert len(feed.queries[-1].entities) < 24
        await pilot.press("end")
        await pilot.pause()
        assert feed.queries[-1].entities[-1] == night.layout.gpus[511].key
        assert "of 512 in sight" in text(pilot)


async def test_enter_leads_to_the_node_and_escape_back(night: Snapshot) -> None:
    app = app_of(night)
    async with app.run_test(size=(80, 24)) as pilot:
        screen = await on_job(pilot, night.jobs[5].id)
        await pilot.press("j", "j", "enter")
        await pilot.pause()
        found = screen_of(app, NodeScreen)
        assert (found.node, found.gpu) == (night.jobs[5].nodes[0], 2)
        await pilot.press("escape", "tab", "end", "enter")
        await pilot.pause()
        found = screen_of(app, NodeScreen)
        assert found.node == night.jobs[5].nodes[-1]
        await pilot.press("escape")
        assert app.screen is screen


async def test_panes_metrics_and_spans(night: Snapshot) -> None:
    async with app_of(night).run_test(size=(120, 34)) as pilot:
        screen = await on_job(pilot, night.jobs[5].id)
        for word in ("memory up to", "CPU (m)", "sent (m)", "time limit", "Events"):
            assert word in text(pilot), screen.pane
            await pilot.press("tab")
            await pilot.pause()
        await pilot.press("m")
        assert "SM active (m)" not in text(pilot)
        await pilot.press("M", "plus")
        await pilot.pause()
        assert "SM active (m) 1h" in text(pilot)


async def test_what_slurm_knows(night: Snapshot) -> None:
    async with app_of(night).run_test(size=(120, 34)) as pilot:
        await on_job(pilot, night.jobs[0].id)
        await pilot.press("tab", "tab", "tab")
        said = text(pilot)
        for words in ("4690_3  (4700)", "gpu  QOS high", "1.00 TiB", "96"):
            assert words in said
        await pilot.press("tab")
        assert "started on 8 GPUs of r01n01" in text(pilot)


async def test_one_that_waits_says_why(night: Snapshot) -> None:
    async with app_of(night).run_test(size=(120, 34)) as pilot:
        screen = await on_job(pilot, night.queue[3].id)
        said = text(pilot)
        assert "(Dependency) afterok:4711" in said
        assert "asks for 32 GPUs on 4 nodes" in said
        assert screen.panes == OF_WAITING
        await pilot.press("m", "plus", "enter", "r", "tab", "tab")
        assert pilot.app.screen is screen


async def test_its_servers_are_named() -> None:
    served = with_services(night_of_jobs(), NIGHT)
    with_gpus = next(server for server in served.layout.servers if server.gpus)
    job = replace(served.jobs[0], gpus=with_gpus.gpus)
    async with app_of(replace(served, jobs=(job,))).run_test(size=(120, 34)) as pilot:
        await on_job(pilot, job.id)
        await pilot.press("tab", "tab", "tab")
        assert "Servers" in text(pilot)


async def test_the_next_job(night: Snapshot) -> None:
    async with app_of(night).run_test(size=(80, 24)) as pilot:
        screen = await on_job(pilot, night.jobs[5].id)
        await pilot.press("l")
        assert screen.job == night.jobs[6].id
        await pilot.press("h", "h")
        assert screen.job == night.jobs[4].id


async def test_one_that_ended_is_gone_and_its_last_events_stay(night: Snapshot) -> None:
    async with app_of(night).run_test(size=(120, 34)) as pilot:
        screen = await on_job(pilot, "slurm:4650")
        assert "neither runs nor waits any more" in text(pilot)
        assert "COMPLETED" in text(pilot)
        await pilot.press("tab", "m", "plus", "j", "end", "enter", "r", "l")
        assert pilot.app.screen is screen


async def test_light_from_here(night: Snapshot) -> None:
    app = app_of(night)
    async with app.run_test(size=(80, 24)) as pilot:
        await on_job(pilot, night.jobs[5].id)
        await pilot.press("r")
        await pilot.pause()
        found = screen_of(app, RacksScreen)
        assert found.lit == night.jobs[5].id


async def test_hostile_texts_and_missing_gpus() -> None:
    evil = hostile()
    blind = replace(evil, jobs=(replace(evil.jobs[0], gpus=(), gpu_count=8), *evil.jobs[1:]))
    for snapshot in (evil, blind):
        for job in (snapshot.jobs[0].id, snapshot.queue[0].id):
            async with app_of(snapshot).run_test(size=(120, 34)) as pilot:
                await on_job(pilot, job)
                for _ in OF_RUNNING:
                    assert all(line.isprintable() for line in text(pilot).splitlines())
                    await pilot.press("tab")
                    await pilot.pause()
