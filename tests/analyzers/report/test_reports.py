"""Reports of an audit: what stands in them, hostile text, pseudonyms, drift, and nothing asked of anybody."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from lab.month import START, month

from coldaisle.analyzers.advice.counsel import settings
from coldaisle.analyzers.advice.groups import workload_of
from coldaisle.analyzers.audit.audit import audited
from coldaisle.analyzers.audit.drift import drifts
from coldaisle.analyzers.audit.joining import Joined
from coldaisle.analyzers.audit.pseudonyms import Pseudonyms, key_from
from coldaisle.analyzers.report.document import SCHEMA, as_object, read_baseline, written
from coldaisle.analyzers.report.markdown import as_markdown
from coldaisle.analyzers.report.page import as_html
from coldaisle.analyzers.report.table import COLUMNS, as_csv, inert
from coldaisle.analyzers.report.text import summary
from coldaisle.analyzers.report.words import demand, points
from coldaisle.analyzers.usage import Usage
from coldaisle.sources.errors import ConfigError

HOSTILE = (
    "<script>alert(1)</script>", "=cmd|' /C calc'!A0", "@SUM(1)", "+1+1", "-2+3", "\t=1", "a|b\nc", "]]>&\"'",
    "\x1b]0;x\x07", "{{ 7*7 }}", "[x](javascript:alert(1))", "![x](http://evil/x.png)", "\u202eevil", "\uff1d1+1",
)  # fmt: skip


@cache
def usage() -> Usage:
    return month(nodes=4, days=3.0).usage


def made(told: Usage | None = None, **more: Any) -> dict[str, Any]:
    audit = audited(Joined(told or usage(), ()), settings(), cluster="atlas", made_at=START, sources=("Prometheus p:9090",), **more)  # fmt: skip
    return as_object(audit)


def everywhere(told: Mapping[str, Any]) -> str:
    return "\n".join([written(told), as_csv(told), as_markdown(told), as_html(told), *summary(told)])


def test_one_object_with_units_in_its_names_and_no_nan() -> None:
    told = json.loads(written(made()), parse_constant=pytest.fail)
    assert told["schema"] == SCHEMA
    assert (told["gpus"], told["nodes"], told["span"]["days"]) == (32, 4, 3.0)
    busy = told["utilisations"]["cluster"]["busy"]
    assert 0 < busy["low"] <= busy["value"] <= busy["high"] < 1
    assert told["gpu_hours"]["reclaimable"]["unit"] == "gpu_hours"
    assert len(told["hour_of_week"][0]["values"]) == 168
    assert all(
        {"action", "quantity", "saving", "confidence", "evidence", "would_change"} <= one.keys()
        for one in told["advice"]
    )


def test_the_page_needs_nothing_and_asks_nobody() -> None:
    page = as_html(made())
    assert "<script" not in page
    assert not re.search(r"""(src|href)\s*=|url\(|@import|https?://""", page)
    assert "default-src 'none'" in page
    assert "prefers-color-scheme: dark" in page
    for title in (
        "What to do",
        "Racks and partitions",
        "Offered load",
        "Findings that recurred",
        "Method and coverage",
    ):
        assert title in page
    assert page.count("<svg") == page.count("</svg>") > 10


def hostile() -> dict[str, Any]:
    stays = tuple(
        replace(
            one,
            name=HOSTILE[at % len(HOSTILE)],
            user=HOSTILE[at // 3 % len(HOSTILE)],
            partition=HOSTILE[at % 5],
        )
        for at, one in enumerate(usage().stays)
    )
    boards = tuple(replace(one, part="<img src=x onerror=alert(1)>", rack="=1+1") for one in usage().boards)
    return made(replace(usage(), stays=stays, boards=boards))


def test_hostile_names_are_text_on_the_page() -> None:
    page = as_html(hostile())
    assert "<script" not in page
    assert "<img" not in page
    assert "&lt;script&gt;" in page
    assert "{{ 7*7 }}" in page
    assert "\x1b" not in page
    assert "\u202e" not in page


def test_no_cell_is_a_formula() -> None:
    rows = list(csv.reader(io.StringIO(as_csv(hostile()), newline="")))
    assert tuple(rows[0]) == COLUMNS
    assert all(len(row) == len(COLUMNS) for row in rows)
    numbers = {COLUMNS.index(name) for name in ("value", "low", "high")}
    for row in rows[1:]:
        for at, cell in enumerate(row):
            if at in numbers:
                assert cell == "" or re.fullmatch(r"-?[0-9].*|True|False|[0-9-]+T.*Z", cell)
            else:
                assert not cell.lstrip().startswith(("=", "+", "-", "@", "\t", "|"))
                assert "\n" not in cell
    assert any("'=cmd" in cell for row in rows for cell in row)


@pytest.mark.parametrize("cell", ["=1", "+1", "-1", "@x", "\t=1", "\r=1", " =1", "\x1b[1m=1"])
def test_cells_that_begin_like_formulas(cell: str) -> None:
    told = str(inert(cell))
    assert not told.lstrip().startswith(("=", "+", "-", "@"))


def test_numbers_stay_numbers() -> None:
    assert (inert(-1.5), inert(3), inert(None)) == (-1.5, 3, "")


def test_hostile_names_are_no_markup_in_markdown() -> None:
    told = as_markdown(hostile())
    assert "<script" not in told
    assert "](javascript" not in told
    assert "![x](http" not in told


def test_pseudonyms_leave_no_name_anywhere_and_are_stable() -> None:
    people = ("wilhelmina", "zebediah")
    stays = tuple(
        replace(one, user=people[at % 2], account="secret-project", name="moonshot-train")
        for at, one in enumerate(usage().stays)
    )
    told = replace(usage(), stays=stays)
    words = Pseudonyms(b"k" * 32)
    body = everywhere(made(told, pseudonyms=words))
    nodes = [host.key for host in told.hosts]
    for name in (*people, "secret-project", "moonshot", *nodes, "r01", "p:9090", "atlas"):
        assert name not in body, name
    assert words.word("user", "wilhelmina") in body
    assert words.word("user", "wilhelmina") == Pseudonyms(b"k" * 32).word("user", "wilhelmina")
    assert words.word("user", "wilhelmina") != Pseudonyms(b"x" * 32).word("user", "wilhelmina")
    assert words.word("user", "a") != words.word("node", "a")
    plain, hidden = made(told), made(told, pseudonyms=words)
    assert plain["gpu_hours"] == hidden["gpu_hours"]


@pytest.mark.parametrize(
    ("name", "stays"),
    [
        ("gpu-long", True),
        ("A100", True),
        ("mi300x_2d", True),
        ("smithlab", False),
        ("gpu-smith", False),
        ("gpu\u00e9", False),
    ],
)
def test_partitions_that_name_nobody_keep_their_names(name: str, stays: bool) -> None:
    assert (Pseudonyms(b"k" * 32).partition(name) == name) is stays


def test_what_names_say_of_work_outlives_them() -> None:
    stays = tuple(replace(one, name="sft-moonshot", partition="smithlab") for one in usage().stays)
    hidden = Pseudonyms(b"k" * 32).usage(replace(usage(), stays=stays))
    assert {workload_of(one) for one in hidden.stays} == {"finetuning"}
    assert not any("smithlab" in one.partition for one in hidden.stays)


def test_the_first_page_is_read_without_knowing_the_trade() -> None:
    told = made()
    text = next(point.text for point in points(told) if point.title == "How busy are the GPUs?")
    use = told["utilisations"]["cluster"]
    busy = use["allocated"]["value"] * use["busy"]["value"]
    assert text.startswith(
        f"Of 100 GPU-hours installed jobs held {use['allocated']['value'] * 100:.0f}, and in {busy * 100:.0f}"
    )
    assert not any(word in text for word in ("kernel", "SM", "flop", "board", "["))


def test_the_key_of_pseudonyms_is_kept_and_is_nobody_elses(tmp_path: Path) -> None:
    path = tmp_path / "state" / "pseudonyms.key"
    assert key_from(path) == key_from(path)
    assert path.stat().st_mode & 0o077 == 0
    path.write_bytes(b"short")
    with pytest.raises(ConfigError, match="no key"):
        key_from(path)


def test_drift_is_named_with_its_interval_and_noise_is_not() -> None:
    before = made()
    assert drifts(before, before) == []
    means = {key: values.copy() for key, values in usage().means.items()}
    means["gpu.util"] *= 0.5
    found = {one.what: one for one in drifts(before, made(replace(usage(), means=means)))}
    busy = found["busy"]
    assert busy.low <= busy.change <= busy.high < 0
    assert "allocated" not in found
    told = as_object(
        audited(Joined(usage(), ()), settings(), cluster="atlas", made_at=START), list(found.values())
    )
    assert any(row["what"] == "busy" for row in told["drift"])
    assert "Since the baseline" in as_html(told)


@pytest.mark.parametrize("body", ["", "{", "[1]", '{"schema": "coldaisle.check/1"}', "[" * 100_000])
def test_a_baseline_that_is_none(body: str, tmp_path: Path) -> None:
    path = tmp_path / "old.json"
    path.write_text(body)
    with pytest.raises(ConfigError, match="not an audit"):
        read_baseline(path)
    with pytest.raises(ConfigError, match="No such file"):
        read_baseline(tmp_path / "none.json")


@pytest.mark.parametrize(
    "broken",
    [{}, {"utilisations": 3}, {"utilisations": {"cluster": [], "racks": [7]}}, {"span": None, "jobs": "x"}],
)
def test_a_baseline_with_holes_drifts_nowhere(broken: dict[str, Any]) -> None:
    assert isinstance(drifts({"schema": SCHEMA, **broken}, made()), list)


def test_jobs_without_names_and_a_usage_of_nothing() -> None:
    nameless = tuple(replace(one, name="", user="", account="", partition="") for one in usage().stays)
    assert everywhere(made(replace(usage(), stays=nameless)))
    empty = replace(usage(), boards=(), hosts=(), means={}, peaks={}, host_means={}, coverage=None, stays=())
    told = made(empty)
    assert told["gpu_hours"]["installed"] is None
    assert everywhere(told)


def test_a_month_of_accounting_alone() -> None:
    alone = replace(usage(), boards=(), means={}, peaks={}, host_means={}, coverage=None,
                    stays=tuple(replace(one, boards=None) for one in usage().stays))  # fmt: skip
    told = made(alone)
    assert told["utilisations"]["cluster"]["busy"]["value"] is None
    assert told["jobs_by"]["state"][0]["gpu_hours"] > 0
    assert told["offered_load"]["p95_gpus"] > 0
    assert told["gpu_hours"]["reclaimable"] is None
    assert everywhere(told)


@pytest.mark.parametrize(
    ("load", "begins"),
    [
        ({"p95_gpus": 40, "installed_gpus": 52, "waiting_p95_gpus": 3}, "No: jobs asked"),
        ({"p95_gpus": 60, "installed_gpus": 52, "waiting_p95_gpus": 20}, "Part of the time: jobs asked"),
        ({"p95_gpus": 40, "installed_gpus": 52, "waiting_p95_gpus": None}, "Jobs asked"),
    ],
)
def test_whether_more_is_needed_is_said_where_waits_are_known(load: dict[str, Any], begins: str) -> None:
    made = {
        "offered_load": {"p50_gpus": 30, **load},
        "utilisations": {"racks": []},
        "jobs_by": {"partition": [], "state": []},
        "advice": [],
    }
    assert demand(made).startswith(begins)


def test_whether_more_is_needed_is_said_as_the_advice_on_it_says() -> None:
    load = {"p50_gpus": 60, "p95_gpus": 80, "installed_gpus": 64, "waiting_p95_gpus": 20}
    made = {"offered_load": load, "utilisations": {"racks": []}, "jobs_by": {"partition": [], "state": []}}
    no, yes = (
        "buy no GPUs for gpu: 61 needed, 64 installed",
        "gpu is short of 9 GPUs: 73 needed, 64 installed",
    )
    said = [demand({**made, "advice": [{"rule": "offered_load", "action": one}]}) for one in (no, yes)]
    assert said[0].startswith("No: ")
    assert said[0].endswith("Buy no GPUs for gpu: 61 needed, 64 installed.")
    assert said[1].startswith("Yes: ")
