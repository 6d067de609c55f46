"""A cluster that says nothing: every screen tells why, and the first line does not call it well."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace

import pytest
from lab.snapshots import AT, FakeFeed, make_snapshot
from textual.pilot import Pilot

from coldaisle.analyzers.snapshot import Snapshot, SourceView
from coldaisle.sources.source import Target, TargetState
from coldaisle.tui.app import ColdaisleApp
from coldaisle.tui.widgets.empty import no_gpu, no_node
from coldaisle.tui.widgets.header import trust_line
from coldaisle.tui.widgets.lines import row_text, text_of


@pytest.fixture(autouse=True)
def _berlin(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TZ", "Europe/Berlin")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


def source(state: str, last_at: float | None = None, *targets: Target) -> SourceView:
    return SourceView("exporters", "exporters", state, "", "", 5.0, None, last_at, targets, 0, None, ())


def target(state: TargetState, name: str = "n01:9400") -> Target:
    return Target(AT, name, state, (), "there is no such page (HTTP 404)", "the path is usually /metrics")


WRONG = replace(make_snapshot(0), sources=(source("failing", None, target(TargetState.FAILING)),))
CPU_ONLY = make_snapshot(1, 2, 0, jobs_known=False)


def silent(snapshot: Snapshot) -> Snapshot:
    """The same after its only source died."""
    status = snapshot.gpu_status.copy(), snapshot.node_status.copy()
    for codes in status:
        codes[:] = 3
    dead = source("failing", snapshot.at - 15, target(TargetState.FAILING))
    return replace(snapshot, gpu_status=status[0], node_status=status[1], sources=(dead,))


@pytest.mark.parametrize("say", [no_gpu, no_node])
def test_what_fails_is_told_with_its_remedy(say: object) -> None:
    told = text_of(say(WRONG, 60))  # type: ignore[operator]
    assert "exporters failing" in told
    assert "HTTP 404" in told
    assert "-> the path is usually /metrics" in told
    assert "7 Sources" in told


def test_many_failing_targets_are_counted() -> None:
    targets = [target(TargetState.FAILING, f"n{at:03}:9400") for at in range(300)]
    told = no_gpu(replace(WRONG, sources=(source("failing", None, *targets),)), 60)
    assert "and 297 more targets" in text_of(told)
    assert len(told) < 20


def test_reasons_are_inert() -> None:
    hostile = replace(target(TargetState.DENIED), detail="\x1b[2Jno\r\n", remedy="[red]x\x07")
    told = text_of(no_node(replace(WRONG, sources=(source("denied", None, hostile),)), 60))
    assert "\x1b" not in told
    assert "\x07" not in told


def test_nodes_without_gpus_are_not_waited_for() -> None:
    assert text_of(no_gpu(CPU_ONLY, 80)) == "no source reports GPUs here; 4 shows the nodes"


def test_a_source_that_connects_is_waited_for() -> None:
    assert "on their way" in text_of(no_gpu(replace(WRONG, sources=(source("connecting"),)), 80))


async def shown(pilot: Pilot[None]) -> str:
    await pilot.pause()
    return "\n".join(strip.text for strip in pilot.app.screen._compositor.render_strips())


@pytest.mark.parametrize("key", ["1", "4"])
async def test_the_screens_say_it(key: str) -> None:
    app = ColdaisleApp(FakeFeed(WRONG), clock=lambda: AT)
    async with app.run_test(size=(80, 24)) as pilot:
        await pilot.pause()
        await pilot.press(key)
        text = await shown(pilot)
        assert "there is no such page (HTTP 404)" in text
        assert "exporters failing" in text.splitlines()[0]


@pytest.mark.parametrize("width", [60, 80, 120])
def test_line_1_names_what_fails_before_it_counts(width: int) -> None:
    line = row_text(trust_line(WRONG, "", AT, width))
    assert "LIVE silent" in line
    assert "no data yet" in line
    assert "failing" in line


def test_line_1_says_since_when_there_is_no_data() -> None:
    line = trust_line(silent(make_snapshot(1, 1, 8)), "", AT, 80)
    assert "no data for 15 s" in row_text(line)
    assert {run.token for run in line if "LIVE" in run.text} == {"bad"}


def test_utc_is_not_told_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "(02:12Z)" in row_text(trust_line(WRONG, "", AT, 120))
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    assert "Z)" not in row_text(trust_line(WRONG, "", AT, 120))
