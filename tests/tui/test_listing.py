"""``coldaisle list`` as pipes use it: the real program on the simulated cluster, and its rows from made-up snapshots."""

from __future__ import annotations

import csv
import io
import json
import os
import subprocess
import sys
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from lab.program import PROGRAM, complaints, program
from lab.snapshots import AT, Faults, make_snapshot, with_values
from test_imports import loaded_after

from coldaisle.analyzers.snapshot import Snapshot
from coldaisle.sources.errors import ColdaisleError, FilterError
from coldaisle.sources.source import Missing
from coldaisle.tui.listing import (
    COLUMNS,
    KINDS,
    as_object,
    awaited,
    column_help,
    csv_text,
    is_settled,
    listed,
    request_of,
    text_lines,
)

NIGHT = make_snapshot()
EVIL = 'evil\x1b]52;c;aGk=\x07"[red]",\u202e\r\n日本=1'


def asked(what: str, where: str = "", columns: str = "", sort: str = "", snapshot: Snapshot = NIGHT) -> Any:
    request = request_of(what, where, columns, sort)
    return request, listed(snapshot, request)


def rows(*arguments: str, tmp_path: Path, **environ: str) -> subprocess.CompletedProcess[str]:
    return program("list", *arguments, tmp_path=tmp_path, **environ)


# --- rows -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("what", KINDS)
def test_every_kind_has_its_columns_and_rows(what: str) -> None:
    request, listing = asked(what)
    assert [column.name for column in listing.columns] == COLUMNS[KINDS[what]].split(",")
    counts = {
        "gpus": 512,
        "nodes": 64,
        "jobs": 27,
        "servers": 1,
        "events": len(NIGHT.events),
        "partitions": 0,
    }
    assert len(listing.rows) == listing.total == counts[what]
    lines = text_lines(listing)
    assert len(lines) == listing.total + 1
    found = as_object(listing, request)
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    assert found["schema"] == "coldaisle.list/1"
    assert found["at"] == "2026-03-01T02:12:41Z"


def test_values_are_canonical_for_programs_and_in_units_for_people() -> None:
    request, listing = asked("gpus", "node==r01n01 & slot<2", "gpu,util,mem,left,user")
    (row, _) = as_object(listing, request)["rows"]
    assert row["gpu"] == "r01n01/0"
    assert 0.9 < row["util"] <= 1.0
    assert row["mem"] > 2**33
    assert row["left"] == 33060.0
    assert as_object(listing, request)["units"] == {
        "gpu": "text", "util": "ratio", "mem": "B", "left": "s", "user": "text",
    }  # fmt: skip
    line = text_lines(listing)[1].split()
    assert line[0] == "r01n01/0"
    assert line[-2:] == ["9h11", "kim"]
    assert "GiB" in line


def test_what_is_missing_is_a_dash_a_null_and_nothing() -> None:
    request, listing = asked("gpus", "status==lost | status==stale", "gpu,power,status")
    assert len(listing.rows) == 9
    assert all(row["power"] is None for row in as_object(listing, request)["rows"])
    assert text_lines(listing)[1].split() == ["r11n02/3", "-", "lost"]
    assert "".join(csv_text(listing)).splitlines()[:2] == ["gpu,power,status", "r11n02/3,,lost"]


def test_order_is_as_people_count_and_what_has_no_value_comes_last() -> None:
    for sort in ("power", "-power"):
        _, listing = asked("gpus", "", "gpu,power", sort)
        values = [row[1] for row in listing.rows]
        known = [value for value in values if value is not None]
        assert known == sorted(known, reverse=sort.startswith("-"))
        assert values[len(known) :] == [None] * 9
    _, listing = asked("nodes", "r01", "node", "-node")
    assert [row[0] for row in listing.rows] == ["r01n04", "r01n03", "r01n02", "r01n01"]


def test_what_a_row_has_several_of() -> None:
    _, listing = asked("jobs", "", "job,node,gpus,power,rack")
    job = NIGHT.jobs[1]
    row = listing.rows[1]
    power = NIGHT.columns["gpu.power"].values[list(job.gpus)]
    assert row[0] == job.bare_id
    assert row[1] == "r01n[02-03]"
    assert row[2] == len(job.gpus)
    assert row[3] == pytest.approx(float(power.mean()), rel=1e-4)
    assert row[4] == "r01"
    _, listing = asked("nodes", "node==r01n02", "node,user,job,util,gpus,node.power")
    assert listing.rows[0][1:3] == ("mlee", "4701")
    mig = make_snapshot(1, 1, 2, mig=("r01n01/0",), faults=Faults())
    _, listing = asked("nodes", "", "gpus,power", snapshot=mig)
    assert listing.rows[0][1] == pytest.approx(
        float(mig.columns["gpu.power"].values[[0, 3]].mean()), rel=1e-4
    )


def test_foreign_text_is_inert_or_exact() -> None:
    job = replace(NIGHT.jobs[0], name=EVIL, user=EVIL)
    hostile = replace(NIGHT, jobs=(job, *NIGHT.jobs[1:]))
    request, listing = asked("jobs", "", "job,jobname,user", snapshot=hostile)
    lines = text_lines(listing)
    assert len(lines) == len(NIGHT.jobs) + 1
    assert all(line.isprintable() for line in lines)
    page = "".join(csv_text(listing))
    assert "\x1b" not in page
    rows = list(csv.reader(io.StringIO(page)))
    assert {len(row) for row in rows} == {3}
    assert '"[red]",' in rows[1][1]
    text = json.dumps(as_object(listing, request))
    assert text.isascii()
    assert json.loads(text)["rows"][0]["jobname"] == EVIL
    assert all(line.isascii() for line in text_lines(listing, ascii_only=True))


def test_an_empty_cluster_has_a_header_and_no_rows() -> None:
    for what in KINDS:
        request, listing = asked(what, snapshot=make_snapshot(0))
        assert len(text_lines(listing)) == 1
        assert as_object(listing, request)["rows"] == []


def test_mistakes_say_what_would_be_right() -> None:
    with pytest.raises(FilterError):
        request_of("gpus", "utl<5", "", "")
    with pytest.raises(ColdaisleError, match="--columns: no column 'gpuu'") as raised:
        request_of("gpus", "", "gpu,gpuu", "")
    assert "did you mean gpu?" in raised.value.remedy
    with pytest.raises(ColdaisleError, match="--sort: no column 'x'"):
        request_of("gpus", "", "", "-x")


@pytest.mark.parametrize("what", KINDS)
def test_every_column_of_the_help_can_be_listed(what: str) -> None:
    names = [line.split()[0] for line in column_help(what) if not line.startswith("#")]
    assert len(names) == len(set(names)) > (10 if what == "partitions" else 100)
    _, listing = asked(what, "", ",".join(names))
    assert len(listing.columns) == len(names)


def test_a_source_has_answered_when_all_its_targets_have() -> None:
    ssh = NIGHT.sources[0]
    assert is_settled(ssh, 64)
    assert not is_settled(ssh, 65)
    assert not is_settled(replace(ssh, state="connecting"), 64)
    assert is_settled(replace(ssh, targets=(), state="failing", why="x"), 64)


def test_a_rate_is_awaited_where_its_source_has_begun() -> None:
    rate = with_values(NIGHT, "gpu.nvlink_tx", {"r01n01/0": float("nan")}, Missing.NOT_SAMPLED)
    assert awaited(rate, ["gpu.nvlink_tx"])
    assert not awaited(rate, ["gpu.power", "gpu.fp64_active", "gpu.model"])


# --- the program ------------------------------------------------------------------------------------


def test_json_goes_through_a_pipe(tmp_path: Path) -> None:
    shell = f"{' '.join(map(repr, PROGRAM))} list gpus --demo --json --where 'slot==0' | {sys.executable} -m json.tool"
    environ = {**os.environ, "XDG_STATE_HOME": str(tmp_path), "XDG_CONFIG_HOME": str(tmp_path)}
    done = subprocess.run(
        ["bash", "-o", "pipefail", "-c", shell],
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
        env=environ,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["schema"] == "coldaisle.list/1"
    assert len(found["rows"]) == 64
    assert found["total"] == 512
    assert [(one["name"], one["kind"]) for one in found["sources"]] == [("simulator", "simulator")]
    assert found["sources"][0]["state"] in ("ok", "partial")  # a simulated node may be silent just now
    assert any(row["util"] is not None for row in found["rows"])


def test_whoever_reads_may_leave(tmp_path: Path) -> None:
    shell = f"{' '.join(map(repr, PROGRAM))} list gpus --demo --columns gpu,uuid,model,pci,driver,kernel | head -1; echo ${{PIPESTATUS[0]}}"
    environ = {**os.environ, "XDG_STATE_HOME": str(tmp_path), "XDG_CONFIG_HOME": str(tmp_path)}
    done = subprocess.run(
        ["bash", "-c", shell], capture_output=True, text=True, timeout=90, check=False, env=environ
    )
    assert done.stdout.startswith("gpu")
    assert done.stdout.splitlines()[-1] in ("0", "141")
    assert complaints(done.stderr) == []


@pytest.mark.parametrize("what", ["gpus", "nodes", "jobs", "servers"])
def test_rows_of_a_past_instant(what: str, tmp_path: Path) -> None:
    done = rows(what, "--demo", "--at", "2h ago", "--json", tmp_path=tmp_path)
    assert (done.returncode, complaints(done.stderr)) == (0, [])
    found = json.loads(done.stdout)
    then = datetime.fromisoformat(found["at"])
    assert abs((datetime.now(UTC) - then).total_seconds() - 7200) < 120
    assert len(found["rows"]) == found["total"] > 0
    if what == "gpus":
        assert sum(row["util"] is not None for row in found["rows"]) > 400
    if what == "jobs":
        assert all(row["state"] == "PENDING" or row["runtime"] >= 0 for row in found["rows"])


def test_rows_that_nobody_is_are_no_failure(tmp_path: Path) -> None:
    done = rows("nodes", "--demo", "--where", "node==nowhere", tmp_path=tmp_path)
    assert (done.returncode, complaints(done.stderr)) == (0, [])
    assert done.stdout.split()[0] == "node"
    assert len(done.stdout.splitlines()) == 1


def test_nobody_answers(tmp_path: Path) -> None:
    done = rows("gpus", "--exporter", "127.0.0.1:1", tmp_path=tmp_path)
    assert done.returncode == 3
    assert done.stdout == ""
    assert "exporters: failing: 127.0.0.1:1" in done.stderr
    assert "Traceback" not in done.stderr
    done = rows("gpus", "--exporter", "127.0.0.1:1", "--json", tmp_path=tmp_path)
    assert done.returncode == 3
    assert json.loads(done.stdout)["rows"] == []


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["gpus", "--where", "r07 & utl<5", "--demo"], "  r07 & utl<5\n        ^^^\n  did you mean util?"),
        (["gpus", "--demo", "--where", "power>3\x1b[31mGiB"], "is not a power"),
        (["gpus", "--demo", "--columns", "nothing-such"], "no column 'nothing-such' of a GPU"),
        (["gpus", "--demo", "--for", "soon"], "is not a duration"),
        (["findings", "--demo", "--columns", "watts"], "no column 'watts' of a finding"),
        (["gpus", "--demo", "--at", "soon"], "'soon' is no instant: write 03:12"),
        (["partitions", "--demo", "--at", "2h ago"], "partitions are known of now alone"),
        (
            ["jobs", "--exporter", "127.0.0.1:1", "--at", "2h ago"],
            "--at: no source here has a past (exporters)",
        ),
        (["gpus", "--demo", "--local"], "--demo is a cluster of its own"),
        (["racks"], "is not one of"),
        ([], "Missing argument"),
    ],
)
def test_bad_usage_is_3_with_a_remedy(arguments: list[str], said: str, tmp_path: Path) -> None:
    done = rows(*arguments, tmp_path=tmp_path)
    assert done.returncode == 3
    assert done.stdout == ""
    assert done.stderr.startswith("coldaisle: ")
    assert said in done.stderr
    assert "\x1b" not in done.stderr


@pytest.mark.parametrize("locale", ["C", "C.UTF-8"])
def test_only_ascii_where_that_is_read(locale: str, tmp_path: Path) -> None:
    done = rows(
        "gpus",
        "--demo",
        "--where",
        "slot==0 & r01",
        "--columns",
        "gpu,temp",
        tmp_path=tmp_path,
        LC_ALL=locale,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.isascii() == (locale == "C")


def test_columns_are_listed_without_asking_anybody(tmp_path: Path) -> None:
    done = rows("jobs", "--columns", "help", tmp_path=tmp_path)
    assert done.returncode == 0
    assert done.stdout.startswith("# of the row itself\njob ")
    assert "limit" in done.stdout


def test_the_screen_is_not_loaded() -> None:
    loaded = loaded_after("import coldaisle.tui.listing")
    assert not loaded & {"textual", "pandas"}
    assert AT
