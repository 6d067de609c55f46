"""The Sources screen: who delivers what, what is missing and why, and what is not matched."""

from __future__ import annotations

from dataclasses import replace

import pytest
from lab.snapshots import AT, FakeFeed, Faults, make_snapshot
from textual.pilot import Pilot

from coldaisle.analyzers.snapshot import Join, Snapshot, SourceView
from coldaisle.sources.source import Missing, Target, TargetState
from coldaisle.tui.app import ColdaisleApp
from coldaisle.tui.screens import source_panes as panes
from coldaisle.tui.screens.sources import SourcesScreen
from coldaisle.tui.widgets.lines import Lines, Run, row_width, text_of
from coldaisle.tui.widgets.table import Table

HOSTILE = "no\x1b]52;c;aGk=\x07 answer [red]x[/red]\u202e\r\nnow"


@pytest.fixture(scope="module")
def night() -> Snapshot:
    return make_snapshot()


def failing(count: int) -> tuple[Target, ...]:
    ok = tuple(Target(AT, f"n{number:04d}", TargetState.OK, (f"n{number:04d}",)) for number in range(count))
    bad = Target(AT, "z9", TargetState.FAILING, ("z9",), HOSTILE, "try: ssh z9")
    denied = Target(AT, "y8", TargetState.DENIED, ("y8",), "no job of yours there", "wait for a job")
    return (*ok, bad, denied)


def with_targets(snapshot: Snapshot, targets: tuple[Target, ...]) -> Snapshot:
    first = replace(
        snapshot.sources[0], targets=targets, targets_ok=len(targets) - 2, state="slow", why=HOSTILE
    )
    return replace(snapshot, sources=(first, *snapshot.sources[1:]))


def test_every_metric_with_its_source_and_its_gaps(night: Snapshot) -> None:
    found = {item.key: item for item in panes.supplies(night)}
    assert found["gpu.power"].by_source == (("ssh", 511),)
    assert found["gpu.power"].missing == (("the GPU is lost", 1),)
    assert found["gpu.mem_temp"].present == 0
    assert found["node.cpu_util"].missing == ()


def test_metrics_say_how_many_are_missing_and_why() -> None:
    snapshot = make_snapshot(2, 2, 8, faults=Faults(absent={"gpu.sm_active": Missing.NOT_EXPORTED}))
    said = text_of(panes.metric_pane(snapshot, 100))
    assert "gpu 0 of 32  not exported: 32\n    sm_active" in said
    assert "delivered by no source" in said
    assert "nvlink_crc" in said


def test_a_metric_of_our_own_catalogue_is_never_forgotten(night: Snapshot) -> None:
    from coldaisle.sources.catalog import catalog

    said = text_of(panes.metric_pane(night, 200))
    assert all(key.partition(".")[2] in said for key in catalog())


def test_failing_targets_come_first() -> None:
    assert [target.name for target in panes.target_order(failing(3))] == [
        "z9",
        "y8",
        "n0000",
        "n0001",
        "n0002",
    ]


def test_a_long_remedy_is_seen_whole(night: Snapshot) -> None:
    remedy = "run: ssh-keygen -f /home/me/.ssh/known_hosts -R '[10.0.3.7]:22', then ssh -F /home/me/cfg r01n01 once"
    target = Target(AT, "r01n01", TargetState.FAILING, ("r01n01",), "its host key differs", remedy)
    why, *rows = panes.target_detail(night, target, 60)
    assert text_of([why]).startswith("r01n01  its host key differs")
    assert len(rows) > 1
    assert all(row_width(row) <= 60 for row in rows)
    assert " ".join(text_of([row]).strip() for row in rows) == f"-> {remedy}"


def test_names_that_are_missing_silent_or_unmatched() -> None:
    snapshot = make_snapshot(2, 2, 8, faults=Faults(never=("r01n02",), stale=("r02n01",)))
    said = text_of(panes.name_pane(with_targets(snapshot, failing(0)), 100))
    assert "matched: r01n01,r02n02" in said
    assert "never heard (1): r01n02" in said
    assert "silent now (2): r01n02 r02n01" in said or "silent now (1): r02n01" in said
    assert "matched to no node (2): z9 y8" in said


def test_many_names_are_cut_and_the_rest_is_counted() -> None:
    targets = tuple(Target(AT, f"host{n:04d}", TargetState.OK, (f"host{n:04d}",)) for n in range(1024))
    said = text_of(panes.name_pane(with_targets(make_snapshot(1, 1, 1), targets), 80))
    assert "matched to no node (1024): host0000" in said
    assert " more" in said
    assert len(said) < 3000


def test_joins_conflicts_and_clocks(night: Snapshot) -> None:
    nodes = (replace(night.layout.nodes[0], clock_offset_s=-3.5), *night.layout.nodes[1:])
    joins = (*night.joins, Join(AT, "gpu01", "r09n01", "two hosts claim GPU-7", conflict=True))
    said = text_of(
        panes.name_pane(replace(night, layout=replace(night.layout, nodes=nodes), joins=joins), 100)
    )
    assert "r01n01 3.5 s behind" in said
    assert "gpu01 and r09n01: two hosts claim GPU-7" in said
    assert "r01n01.cluster is r01n01  by GPU UUID" in said
    assert "16 pattern" in said


def test_own_cost_is_shown(night: Snapshot) -> None:
    assert (
        text_of([panes.cost_row(night, 100)])
        == "own cost: 6.1 % of a core, 181 MiB, history 48.0 MiB, tick 34.0 ms"
    )
    assert "not yet" in text_of([panes.cost_row(replace(night, cost=None), 100)])


def test_a_source_without_samples_has_dashes_not_zeros() -> None:
    bare = SourceView("prom", "prometheus", "connecting", "", "", 15.0, None, None, (), 0, None, ())
    cells = panes.source_cells(make_snapshot(1, 1, 1), bare)
    assert [cells[key] for key in ("age", "period", "latency")] == [Run("-")] * 3


@pytest.mark.parametrize("width", [20, 60, 80, 200])
def test_hostile_targets_are_inert(night: Snapshot, width: int) -> None:
    evil = with_targets(night, failing(2))
    source = evil.sources[0]
    target = panes.target_order(source.targets)[0]
    rows = [*panes.source_detail(evil, source, width), *panes.target_detail(evil, target, width)]
    rows += panes.name_pane(evil, width)
    rows += [(cell,) for cell in panes.target_cells(target).values() if isinstance(cell, Run)]
    assert all(run.text.isprintable() and "\u202e" not in run.text for row in rows for run in row)
    assert all(row_width(row) <= width for row in panes.source_detail(evil, source, width))


# on the screen


async def opened(pilot: Pilot[None]) -> SourcesScreen:
    await pilot.pause()
    await pilot.press("7")
    await pilot.pause()
    screen = pilot.app.screen
    assert isinstance(screen, SourcesScreen)
    return screen


def text(screen: SourcesScreen) -> str:
    lines = [
        widget.render_line(y).text
        for widget in screen.query(Lines)
        if widget.display
        for y in range(widget.size.height)
    ]
    tables = [
        table.render_line(y).text
        for table in screen.query(Table)
        if table.display
        for y in range(table.size.height)
    ]
    return "\n".join((*lines, *tables))


@pytest.mark.parametrize("size", [(80, 24), (120, 34), (60, 20)])
async def test_sources_targets_metrics_and_names(night: Snapshot, size: tuple[int, int]) -> None:
    app = ColdaisleApp(FakeFeed(with_targets(night, failing(1022))), clock=lambda: AT)
    async with app.run_test(size=size) as pilot:
        screen = await opened(pilot)
        assert "z9" in text(screen)  # failing first, without a key
        await pilot.press("enter")
        await pilot.pause()
        assert "-> try: ssh z9" in text(screen)
        await pilot.press("end")
        await pilot.pause()
        assert "n1021" in text(screen)
        await pilot.press("escape", "tab")
        await pilot.pause()
        assert "missing everywhere" in text(screen)
        await pilot.press("tab")
        await pilot.pause()
        assert "heard" in text(screen)
        await pilot.press("tab")
        await pilot.pause()
        assert "n1021" in text(screen)  # where it was left


async def test_a_tiny_terminal(night: Snapshot) -> None:
    app = ColdaisleApp(FakeFeed(with_targets(night, failing(10))), clock=lambda: AT)
    async with app.run_test(size=(80, 24)) as pilot:
        screen = await opened(pilot)
        for size in ((20, 5), (1, 1), (200, 50), (80, 24)):
            await pilot.resize_terminal(*size)
            await pilot.press("tab")
            await pilot.pause()
        assert app.screen is screen
