"""Pictures of the Jobs screen, a job's own, its light on Racks, and the event log."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace

import pytest
from lab.jobs import night_of_jobs
from lab.snapshots import AT, FakeFeed, make_snapshot

from coldaisle.analyzers.snapshot import Snapshot
from coldaisle.tui.app import ColdaisleApp

SIZES = {"80x24": (80, 24), "120x34": (120, 34), "200x50": (200, 50)}
TO_JOB = ("3", "wait:200", "enter", "wait:200")
SCREENS = {
    "jobs": ("3", "wait:200"),
    "job": TO_JOB,
    "events": ("e", "wait:200"),
    "light": (*TO_JOB, "r", "wait:200"),
}
PANES = {"hosts": 1, "links": 2, "facts": 3, "events": 4}


@pytest.fixture(autouse=True)
def berlin(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with monkeypatch.context() as patch:
        patch.setenv("TZ", "Europe/Berlin")
        time.tzset()
        yield
    time.tzset()


def app_of(snapshot: Snapshot | None = None, *, mono: bool = False) -> ColdaisleApp:
    feed = FakeFeed(night_of_jobs() if snapshot is None else snapshot)
    return ColdaisleApp(feed, name="atlas", clock=lambda: AT, no_colour=mono, ascii_only=mono)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("screen", SCREENS)
def test_picture(snap_compare: object, screen: str, size: str) -> None:
    assert callable(snap_compare)
    assert snap_compare(app_of(), terminal_size=SIZES[size], press=SCREENS[screen])


@pytest.mark.parametrize("screen", SCREENS)
def test_picture_without_colour_or_utf8(snap_compare: object, screen: str) -> None:
    assert callable(snap_compare)
    assert snap_compare(app_of(mono=True), terminal_size=(120, 34), press=SCREENS[screen])


@pytest.mark.parametrize("pane", PANES)
def test_picture_of_a_pane(snap_compare: object, pane: str) -> None:
    assert callable(snap_compare)
    press = (*TO_JOB, *["tab"] * PANES[pane], "wait:200")
    assert snap_compare(app_of(), terminal_size=(80, 24), press=press)


def test_picture_of_sums_by_user(snap_compare: object) -> None:
    assert callable(snap_compare)
    assert snap_compare(app_of(), terminal_size=(120, 34), press=("3", "wait:200", "g", "space", "wait:200"))


def test_picture_of_the_queue(snap_compare: object) -> None:
    assert callable(snap_compare)
    assert snap_compare(
        app_of(), terminal_size=(80, 24), press=("3", "wait:200", "space", "down", "down", "wait:200")
    )


def test_picture_of_a_job_that_waits(snap_compare: object) -> None:
    assert callable(snap_compare)
    press = ("3", "wait:200", "space", "down", "down", "enter", "wait:200")
    assert snap_compare(app_of(), terminal_size=(80, 24), press=press)


def test_picture_of_the_columns_to_choose(snap_compare: object) -> None:
    assert callable(snap_compare)
    assert snap_compare(
        app_of(), terminal_size=(80, 24), press=("3", "wait:200", "c", "down", "space", "wait:200")
    )


def test_picture_without_a_source_of_jobs(snap_compare: object) -> None:
    assert callable(snap_compare)
    bare = make_snapshot(jobs_known=False)
    assert snap_compare(app_of(replace(bare, jobs=())), terminal_size=(80, 24), press=("3", "wait:200"))
