"""Chosen columns are found again; a file that is broken is ignored and told."""

from __future__ import annotations

import json
import stat
from pathlib import Path

import pytest

from coldaisle.tui.choices import MAX_BYTES, Choices, default_path


def test_what_was_chosen_is_found_again(tmp_path: Path) -> None:
    path = tmp_path / "state" / "columns.json"
    assert Choices(path).columns("jobs") is None
    assert Choices(path).choose("jobs", ["user", "gpus"]) == ""
    found = Choices(path)
    assert found.columns("jobs") == frozenset({"user", "gpus"})
    assert found.problem == ""
    assert found.choose("jobs", None) == ""
    assert Choices(path).columns("jobs") is None


def test_only_its_owner_may_read_it(tmp_path: Path) -> None:
    path = tmp_path / "columns.json"
    Choices(path).choose("jobs", ["user"])
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [one.name for one in tmp_path.iterdir()] == ["columns.json"]


def test_two_dashboards_keep_each_others_screens(tmp_path: Path) -> None:
    path = tmp_path / "columns.json"
    one, other = Choices(path), Choices(path)
    one.choose("jobs", ["user"])
    other.choose("nodes", ["cpu"])
    assert Choices(path).columns("jobs") == frozenset({"user"})
    assert Choices(path).columns("nodes") == frozenset({"cpu"})


@pytest.mark.parametrize(
    "text",
    ["", "nothing", "[1]", '{"jobs": 1}', '{"jobs": [1]}', '{"jobs": ["' + "x" * 65 + '"]}', "[" * 50_000,
     json.dumps({"jobs": ["x"] * 201}), '{"jobs": ["' + "x" * MAX_BYTES + '"]}', '\ufeff{"jobs": []'],
)  # fmt: skip
def test_a_broken_file_counts_as_none_and_says_so(tmp_path: Path, text: str) -> None:
    path = tmp_path / "columns.json"
    path.write_text(text, encoding="utf-8")
    found = Choices(path)
    assert found.columns("jobs") is None
    assert "columns.json is broken" in found.problem
    assert found.choose("jobs", ["user"]) == ""
    assert Choices(path).columns("jobs") == frozenset({"user"})


def test_bytes_that_are_no_text(tmp_path: Path) -> None:
    path = tmp_path / "columns.json"
    path.write_bytes(b"\xff\xfe\x00{")
    assert "broken" in Choices(path).problem


def test_what_cannot_be_read_or_kept_is_said(tmp_path: Path) -> None:
    path = tmp_path / "columns.json"
    path.mkdir()
    found = Choices(path)
    assert "cannot be read" in found.problem
    assert "not kept" in found.choose("jobs", ["user"])
    assert found.columns("jobs") == frozenset({"user"}), "for this time"


def test_the_place_is_the_state_directory(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    assert default_path() == tmp_path / "coldaisle" / "columns.json"
