"""Findings that were set aside: kept with who, when and until, shared by all dashboards, whatever the disk does."""

from __future__ import annotations

import errno
import json
import math
import os
import stat
import threading
from dataclasses import replace
from pathlib import Path

import pytest
from lab.diagnoses import night_findings
from lab.snapshots import AT, make_snapshot

from coldaisle.analyzers.finding import Finding
from coldaisle.tui import acknowledged
from coldaisle.tui.acknowledged import Acknowledged


@pytest.fixture(scope="module")
def findings() -> tuple[Finding, ...]:
    return night_findings(make_snapshot())


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state" / "acknowledged.json"


def kept(path: Path, at: float = AT, who: str = "kim") -> Acknowledged:
    return Acknowledged(path, clock=lambda: at, who=who)


def test_it_is_kept_with_who_and_when(path: Path, findings: tuple[Finding, ...]) -> None:
    done, problem = kept(path).toggle(findings[0])
    assert (done, problem) == ("acknowledged by kim, until it ends or becomes worse", "")
    entry = kept(path).of(findings[0])
    assert entry is not None
    assert (entry.who, entry.at, entry.until) == ("kim", AT, None)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_it_can_be_taken_back(path: Path, findings: tuple[Finding, ...]) -> None:
    one = kept(path)
    one.toggle(findings[0])
    assert one.toggle(findings[0]) == ("no longer acknowledged", "")
    assert kept(path).of(findings[0]) is None


def test_a_snooze_gets_longer_and_ends(path: Path, findings: tuple[Finding, ...]) -> None:
    one = kept(path)
    spans = []
    for _ in acknowledged.SNOOZES:
        one.snooze(findings[0])
        entry = one.of(findings[0])
        assert entry is not None
        assert entry.until is not None
        spans.append(entry.until - AT)
    assert tuple(spans) == acknowledged.SNOOZES
    assert kept(path, AT + spans[-1] + 1).of(findings[0]) is None
    assert one.snooze(findings[0])[0] == "no longer snoozed"
    assert one.of(findings[0]) is None


def test_what_came_back_or_became_worse_is_not_set_aside(path: Path, findings: tuple[Finding, ...]) -> None:
    one = kept(path)
    one.toggle(findings[0])
    assert one.of(replace(findings[0], opened_at=AT + 60)) is None
    assert one.of(replace(findings[0], worsened_at=AT + 60)) is None
    assert one.of(replace(findings[0], worsened_at=AT - 60)) is not None


def test_it_stays_set_aside_when_it_is_grouped_under_another_name(
    path: Path, findings: tuple[Finding, ...]
) -> None:
    one = replace(findings[0], loss=replace(findings[0].loss, fraction=0.2))
    first, second = replace(one, id="a:n01"), replace(one, id="a:n02")
    rack = replace(one, id="a:r01", supersedes=("a:n01", "a:n02"))

    def regrouped(*seen: Finding, into: Finding = rack) -> bool:
        mine = kept(path)
        mine.follow([first, second])
        for each in seen:
            mine.toggle(each)
        mine.follow([into])
        told = mine.of(into) is not None
        assert told == (kept(path).of(into) is not None)
        path.unlink()
        return told

    assert regrouped(first, second)
    assert not regrouped(first)  # the other one nobody has seen
    worse = replace(rack, loss=replace(rack.loss, fraction=0.5))
    assert not regrouped(first, second, into=worse)
    more = replace(rack, scope=replace(rack.scope, nodes=(*rack.scope.nodes, "n99")))
    assert not regrouped(first, second, into=more)


def test_dashboards_that_write_at_once_lose_nothing(path: Path, findings: tuple[Finding, ...]) -> None:
    dashboards = [kept(path, who=f"user{number}") for number in range(len(findings))]
    threads = [
        threading.Thread(target=one.toggle, args=(finding,))
        for one, finding in zip(dashboards, findings, strict=True)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(kept(path).of(finding) is not None for finding in findings)


def test_a_full_disk_is_told_and_nothing_is_lost(
    path: Path, findings: tuple[Finding, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    one = kept(path)
    one.toggle(findings[0])
    with monkeypatch.context() as patch:

        def full(_: int) -> None:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        patch.setattr("coldaisle.tui.acknowledged.os.fsync", full)
        done, problem = one.toggle(findings[1])
        assert "acknowledged" in done
        assert "No space left" in problem
        assert one.of(findings[1]) is not None, "it counts here"
        assert [
            entry.name for entry in path.parent.iterdir() if entry.name.startswith(".acknowledged-")
        ] == []
    other = kept(path)
    assert other.of(findings[0]) is not None
    assert other.of(findings[1]) is None
    one.look()
    assert one.of(findings[1]) is not None, "it still counts here"
    one.toggle(findings[2])
    assert kept(path).of(findings[1]) is not None, "it went with the next that could be written"


def test_a_lock_that_is_held_is_not_waited_for_long(
    path: Path, findings: tuple[Finding, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(acknowledged, "LOCK_S", 0.05)
    holder, one = kept(path), kept(path)
    with holder._locked(0.0):
        assert "another dashboard" in one.toggle(findings[0])[1]
    assert one.toggle(findings[1])[1] == ""


def test_what_is_regrouped_meanwhile_goes_with_the_next_that_can_be_written(
    path: Path, findings: tuple[Finding, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(acknowledged, "LOCK_S", math.inf)  # who waited would wait for ever
    first, rack = findings[0], replace(findings[0], id="a:r01", supersedes=(findings[0].id,))
    holder, one = kept(path), kept(path)
    one.follow([first])
    one.toggle(first)
    with holder._locked(0.0):
        one.follow([rack])
    assert one.of(rack) is not None
    assert kept(path).of(rack) is None
    one.toggle(findings[1])
    assert kept(path).of(rack) is not None


@pytest.mark.parametrize(
    "text", ["{", "[]", '{"a": 1}', '{"a": {"who": 1, "at": 2, "until": null}}', "x" * 300_000]
)
def test_a_broken_file_counts_as_none_and_says_so(
    path: Path, findings: tuple[Finding, ...], text: str
) -> None:
    path.parent.mkdir()
    path.write_text(text)
    one = kept(path)
    assert "broken" in one.problem
    assert one.of(findings[0]) is None
    assert one.toggle(findings[0])[1] == ""
    assert json.loads(path.read_text()).keys() == {findings[0].id}


def test_what_others_wrote_is_seen(path: Path, findings: tuple[Finding, ...]) -> None:
    one, other = kept(path), kept(path, who="mlee")
    other.toggle(findings[0])
    assert one.of(findings[0]) is None
    one.look()
    entry = one.of(findings[0])
    assert entry is not None
    assert entry.who == "mlee"


def test_a_name_in_the_file_is_inert(path: Path, findings: tuple[Finding, ...]) -> None:
    path.parent.mkdir()
    path.write_text(json.dumps({findings[0].id: {"who": "evil\x1b[2J\n", "at": AT, "until": None}}))
    entry = kept(path).of(findings[0])
    assert entry is not None
    assert entry.who.isprintable()
