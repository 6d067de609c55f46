"""``coldaisle check`` as cron, pagers and people use it: its contract, its exit statuses, the real program on real servers."""

from __future__ import annotations

import json
import random
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from lab.program import complaints, program
from lab.prometheus import openmetrics, prometheus
from lab.snapshots import AT, Faults, make_snapshot
from test_imports import loaded_after

from coldaisle.analyzers.detectors import DETECTORS
from coldaisle.analyzers.finding import (
    NO_DIAGNOSIS,
    Bound,
    Confirm,
    Diagnosis,
    Evidence,
    Finding,
    JobClass,
    Loss,
    Rejected,
    Scope,
    Severity,
    Undecided,
    Urgency,
    Usefulness,
    Warming,
    Workload,
)
from coldaisle.analyzers.snapshot import Coverage, Snapshot
from coldaisle.sources.errors import ColdaisleError, FilterError
from coldaisle.tui.check import Request, as_object, outcome_of, request_of, selections, text_lines

QUIET = make_snapshot(faults=Faults())
HEAT = Finding(
    id="thermal_throttling:r07",
    detector="thermal_throttling",
    variant="core",
    severity=Severity.WARNING,
    since=AT - 491.0,
    since_bound=False,
    scope=Scope(
        racks=("r07",), nodes=("r07n01", "r07n02"), gpus=("r07n01/0", "r07n01/1"), jobs=("slurm:4711",)
    ),
    victims=Scope(nodes=("r08n01",)),
    loss=Loss(0.18, 5.8),
    confidence=0.9,
    title="thermal throttling, 30 GPUs",
    cause="the GPUs slow themselves",
    remedy="check the coolant",
    urgency=Urgency.NOW,
    urgency_why="it lasts",
    owner="facility",
    confirm=(Confirm(("nvidia-smi", "-q", "-d", "PERFORMANCE"), "r07n01", "user"),),
    changed=("03:03 r07 inlet 27 -> 31 C",),
    explains=("GpuTempHigh r07n01",),
    evidence=(Evidence("gpu.thermal_violation", "r07n01/0", 0.31, "ratio", ">= 0.02"),),
    rejected=(Rejected("power_capping", "power at 61 % of the limit"),),
    missing=("gpu.mem_temp: not exported",),
)
FAULT = replace(
    HEAT, id="gpu_fault:r11n02/3", detector="gpu_fault", severity=Severity.CRITICAL, title="GPU lost (XID 79)",
    scope=Scope(racks=("r11",), nodes=("r11n02",), gpus=("r11n02/3",)), victims=Scope(),
)  # fmt: skip
NOTE = replace(FAULT, id="power_capping:r14", detector="power_capping", severity=Severity.INFO)


def diagnosed(*findings: Finding, **more: Any) -> Snapshot:
    return replace(QUIET, diagnosis=Diagnosis(AT, findings=findings, **more))


# --- the contract ---------------------------------------------------------------------------------------------------

SHAPE = {
    "schema": str, "at": str, "window_s": float, "sources": list, "coverage": dict, "unexplained_alerts": list,
    "jobs": list, "findings": list, "undecided": list,
}  # fmt: skip
FINDING = {
    "id": "thermal_throttling:r07", "detector": "thermal_throttling", "severity": "warning",
    "since": "2026-03-01T02:04:30Z", "since_bound": False,
    "scope": {
        "racks": ["r07"], "nodes": ["r07n01", "r07n02"], "gpus": [["r07n01", 0], ["r07n01", 1]], "jobs": ["4711"],
        "servers": [],
    },
    "victims": {"racks": [], "nodes": ["r08n01"], "gpus": [], "jobs": [], "servers": []},
    "loss": {"fraction": 0.18, "gpu_hours_per_hour": 5.8}, "confidence": 0.9,
    "title": "thermal throttling, 30 GPUs", "cause": "the GPUs slow themselves", "remedy": "check the coolant",
    "urgency": "now", "owner": "facility",
    "confirm": [{"cmd": "nvidia-smi -q -d PERFORMANCE", "on": "r07n01", "needs": "user"}],
    "changed": ["03:03 r07 inlet 27 -> 31 C"], "explains": ["GpuTempHigh r07n01"],
    "evidence": [
        {"metric": "gpu.thermal_violation", "entity": "r07n01/0", "value": 0.31, "unit": "ratio", "rule": ">= 0.02"}
    ],
    "rejected": [{"detector": "power_capping", "why": "power at 61 % of the limit"}],
    "missing": ["gpu.mem_temp: not exported"],
}  # fmt: skip


def test_the_object_is_the_one_that_was_promised() -> None:
    snapshot = diagnosed(
        HEAT,
        undecided=(Undecided("data_loader_starvation", Scope(jobs=("slurm:4802",)), "no host metrics"),),
        unexplained=("DiskFull st01",),
        jobs={QUIET.jobs[0].id: JobClass(Workload.TRAINING, Bound.COMPUTE)},
        warming=(Warming("straggler", 3, 8),),
    )
    told = as_object(outcome_of(snapshot, Request(), 900.0))
    assert json.loads(json.dumps(told, allow_nan=False)) == told
    assert {key: type(told[key]) for key in SHAPE} == SHAPE
    assert (told["schema"], told["at"]) == ("coldaisle.check/1", "2026-03-01T02:12:41Z")
    assert told["coverage"] == {"nodes": [64, 64], "gpus": [512, 512]}
    assert told["sources"][0].keys() == {"name", "kind", "state", "error"}
    first = QUIET.jobs[0]
    assert told["jobs"][0] == {
        "id": first.bare_id,
        "workload": "training",
        "bound": "compute",
        "gpus": len(first.gpus),
    }
    assert told["jobs"][1]["workload"] == told["jobs"][1]["bound"] == "unknown"
    (finding,) = told["findings"]
    assert {key: finding[key] for key in FINDING} == FINDING
    assert finding["supersedes"] == []
    assert told["undecided"] == [
        {"detector": "data_loader_starvation", "scope": {"jobs": ["4802"]}, "why": "no host metrics"}
    ]
    assert told["unexplained_alerts"] == ["DiskFull st01"]
    assert told["warming"] == [{"detector": "straggler", "have": 3, "need": 8, "unit": "polls"}]


def test_what_is_not_known_is_null() -> None:
    vague = replace(
        HEAT, loss=Loss(float("nan"), float("inf")), evidence=(replace(HEAT.evidence[0], value=float("nan")),)
    )
    (told,) = as_object(outcome_of(diagnosed(vague), Request(), 900.0))["findings"]
    assert told["loss"] == {"fraction": None, "gpu_hours_per_hour": None}
    assert told["evidence"][0]["value"] is None


def test_a_mig_instance_is_told_by_its_boards_position() -> None:
    part = replace(HEAT, scope=Scope(gpus=("r07n01/0:gi1", "r07n01/0:gi2")))
    (told,) = as_object(outcome_of(diagnosed(part), Request(), 900.0))["findings"]
    assert told["scope"]["gpus"] == [["r07n01", 0]]


# --- the exit status ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("findings", "fail_on", "status"),
    [
        ((), "warning", 0),
        ((NOTE,), "warning", 0),
        ((NOTE, HEAT), "warning", 1),
        ((HEAT, FAULT), "warning", 2),
        ((HEAT,), "critical", 0),
        ((FAULT,), "critical", 2),
        ((FAULT,), "never", 0),
    ],
)
def test_the_exit_status_says_how_bad_it_is(findings: tuple[Finding, ...], fail_on: str, status: int) -> None:
    assert outcome_of(diagnosed(*findings), Request(fail_on=fail_on), 900.0).status == status


def test_without_anybody_who_answers_it_cannot_be_told() -> None:
    silent = replace(
        QUIET,
        sources=tuple(replace(s, last_at=None, targets_ok=0, state="connecting") for s in QUIET.sources),
    )
    assert outcome_of(silent, Request(fail_on="never"), 900.0).status == 3
    lines = list(text_lines(outcome_of(silent, Request(), 900.0)))
    assert "UNKNOWN: no source answered" in lines[0]


def test_little_heard_and_nothing_found_is_no_all_clear() -> None:
    deaf = replace(QUIET, coverage=Coverage(20, 64, 160, 512))
    assert outcome_of(deaf, Request(), 900.0).status == 3
    found = replace(deaf, diagnosis=Diagnosis(AT, findings=(HEAT,)))
    assert outcome_of(found, Request(), 900.0).status == 1


# --- what is asked for ----------------------------------------------------------------------------------------------


def test_only_some_detectors_and_only_what_a_filter_touches() -> None:
    snapshot = diagnosed(HEAT, FAULT, NOTE)
    only = outcome_of(snapshot, Request(only=frozenset({"gpu_fault"})), 900.0)
    assert [one.id for one in only.diagnosis.findings] == ["gpu_fault:r11n02/3"]
    where = outcome_of(snapshot, Request(where=selections("r07")), 900.0)
    assert [one.id for one in where.diagnosis.findings] == ["thermal_throttling:r07"]
    user = QUIET.jobs[11].user
    assert outcome_of(snapshot, Request(where=selections(f"user=={user}")), 900.0).status in (0, 1, 2)
    assert outcome_of(snapshot, Request(where=selections("r16")), 900.0).status == 0


def test_mistakes_in_what_is_asked_for() -> None:
    with pytest.raises(ColdaisleError, match="no detector 'heat'"):
        request_of(None, 900.0, None, "heat", "", "warning")
    with pytest.raises(ColdaisleError, match="--window"):
        request_of(None, 5.0, None, "", "", "warning")
    with pytest.raises(FilterError):
        request_of(None, 900.0, None, "", "utl<5", "warning")
    request = request_of(None, 900.0, None, " gpu_fault, straggler ", "", "never")
    assert request.only == frozenset({"gpu_fault", "straggler"})
    assert request.only <= set(DETECTORS)


# --- for people -----------------------------------------------------------------------------------------------------


def test_what_was_not_asked_for_is_counted_beside_nothing_found() -> None:
    outcome = outcome_of(diagnosed(HEAT, FAULT), Request(only=frozenset({"straggler"})), 900.0)
    assert "no findings of what was asked for (2 more in all)" in next(text_lines(outcome))


def test_what_was_not_diagnosed_is_unknown_not_fine() -> None:
    outcome = outcome_of(replace(QUIET, diagnosis=NO_DIAGNOSIS), Request(), 900.0)
    assert outcome.status == 3
    assert "UNKNOWN: nothing is diagnosed" in next(text_lines(outcome))


def test_the_text_shows_rules_in_the_units_of_values_and_whose_jobs_suffer() -> None:
    job = QUIET.jobs[0]
    mine = replace(
        HEAT, scope=replace(HEAT.scope, jobs=(job.id,)), supersedes=("thermal_throttling:r07n01/0",)
    )
    text = "\n".join(text_lines(outcome_of(diagnosed(mine), Request(), 900.0)))
    assert "r07n01/0 gpu.thermal_violation 31 % (>= 2.0 %)" in text
    assert f"who:      facility; job owner {job.user}" in text
    assert "was:      thermal_throttling:r07n01/0" in text


def test_the_text_says_the_worst_first_with_why_do_and_confirm() -> None:
    useful = Usefulness(480, 0.91, 42.0, (("gpu_fault", 16.0),))
    outcome = outcome_of(
        diagnosed(HEAT, FAULT, usefulness=useful, unexplained=("DiskFull st01",)), Request(), 900.0
    )
    text = "\n".join(text_lines(outcome, 80))
    assert all(len(line) <= 80 for line in text.splitlines() if "confirm:" not in line)
    assert text.startswith("atlas: 1 critical, 1 warning at 2026-03-01T02:12:41Z")
    assert "91% of 480 GPUs" in text
    order = [
        text.index(words) for words in ("1. CRITICAL GPU lost", "2. WARNING thermal throttling", "ALERTS")
    ]
    assert order == sorted(order)
    for words in (
        "why:      the GPUs slow",
        "do:       now, because it lasts: check the coolant",
        "who:      facility",
    ):
        assert words in text
    assert "confirm:  nvidia-smi -q -d PERFORMANCE   (on r07n01, as user)" in text
    assert "(8m11s ago)" in " ".join(text.split())


# --- the real program -----------------------------------------------------------------------------------------------


def test_the_demo_is_checked_live_and_nothing_else_is_on_stdout(tmp_path: Path) -> None:
    done = program("check", "--demo", "--json", tmp_path=tmp_path)
    told = json.loads(done.stdout)
    assert complaints(done.stderr) == []
    assert told["coverage"]["gpus"][1] == 512
    worst = max((("info", "warning", "critical").index(f["severity"]) for f in told["findings"]), default=0)
    assert done.returncode == worst


def test_the_demo_of_an_hour_ago_twice_is_the_same(tmp_path: Path) -> None:
    at = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() - 3600))
    first, second = (program("check", "--demo", "--json", "--at", at, tmp_path=tmp_path) for _ in range(2))
    assert first.stdout == second.stdout
    assert json.loads(first.stdout)["at"] == at


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["check", "--demo", "--only", "heat"], "no detector 'heat'"),
        (["check", "--demo", "--where", "utl<5"], "did you mean util?"),
        (["check", "--demo", "--at", "tomorrow"], "is no instant"),
        (["check", "--demo", "--at", "1h ago", "--for", "2m"], "--for gathers live"),
        (["check", "--demo", "--window", "soon"], "is not a duration"),
        (["check", "--demo", "--fail-on", "info"], "is not one of"),
        (["check", "--demo", "--local"], "--demo is a cluster of its own"),
        (["check", "--exporter", "127.0.0.1:1", "--at", "1h ago"], "no source here has a past"),
        (["check", "nonsense"], "unexpected extra argument"),
    ],
)
def test_bad_usage_is_3_with_a_remedy(arguments: list[str], said: str, tmp_path: Path) -> None:
    done = program(*arguments, tmp_path=tmp_path)
    assert done.returncode == 3
    assert done.stdout == ""
    assert done.stderr.startswith("coldaisle: ")
    assert said in done.stderr


def test_nobody_answers(tmp_path: Path) -> None:
    done = program("check", "--exporter", "127.0.0.1:1", "--json", tmp_path=tmp_path)
    assert done.returncode == 3
    assert json.loads(done.stdout)["findings"] == []
    assert "127.0.0.1:1" in done.stderr


def test_thresholds_of_the_site_count_and_unknown_ones_are_told(tmp_path: Path) -> None:
    config = tmp_path / "c.toml"
    config.write_text(
        '[[source]]\nkind = "simulator"\nracks = 1\n[detectors.thermal_throttling]\nduti = 0.2\n'
    )
    done = program("check", "--config", str(config), tmp_path=tmp_path)
    assert (done.returncode, done.stdout) == (3, "")
    assert "[detectors.thermal_throttling]" in done.stderr
    assert "duty" in done.stderr
    config.write_text('[[source]]\nkind = "simulator"\nracks = 1\n[detectors.heat]\nduty = 0.2\n')
    assert "no such detector" in program("check", "--config", str(config), tmp_path=tmp_path).stderr


def test_check_works_without_the_screen() -> None:
    loaded = loaded_after("import coldaisle.tui.check, coldaisle.tui.finding_list")
    assert not loaded & {"textual", "rich", "pandas"}


# --- a real Prometheus ----------------------------------------------------------------------------------------------

THEN = 1_772_331_120.0
"""2026-03-01T02:12:00Z"""
FIELDS = (
    "SM_CLOCK", "MEM_CLOCK", "GPU_TEMP", "MEMORY_TEMP", "POWER_USAGE", "GPU_UTIL", "MEM_COPY_UTIL", "FB_USED", "FB_FREE",
    "XID_ERRORS",
)  # fmt: skip
"""Of dcgm-exporter's default set; no clock events, no violation counters, no profiling."""


def history(step: float, hot_s: float = 420.0, nodes: int = 2) -> str:
    """5,400 s of eight H100 a node, scraped every ``step`` seconds; r01n02's GPU 3 gets hot."""
    rng = random.Random(1)
    data: dict[str, dict[str, list[tuple[float, object]]]] = {name: {} for name in FIELDS}
    up = {}
    for node in range(1, nodes + 1):
        host, offset = f"r01n{node:02d}", rng.random() * step
        times = [THEN - 5400 + offset + step * number for number in range(int(5460 / step))]
        up[f'instance="{host}:9400",job="dcgm"'] = [(at, 1) for at in times]
        for gpu in range(8):
            labels = (
                f'gpu="{gpu}",UUID="GPU-{node:04d}-{gpu}",modelName="NVIDIA H100 80GB HBM3",Hostname="{host}",'
                f'pci_bus_id="00000000:{0x10 + 8 * gpu:02X}:00.0",instance="{host}:9400",job="dcgm"'
            )
            for at in times:
                is_hot = (node, gpu) == (2, 3) and at > THEN - hot_s
                for name, value in zip(FIELDS, _values(rng, is_hot), strict=True):
                    data[name].setdefault(labels, []).append((round(at, 3), value))
    texts = [openmetrics(f"DCGM_FI_DEV_{name}", series) for name, series in data.items()]
    return "".join([*texts, openmetrics("up", up)])


def _values(rng: random.Random, is_hot: bool) -> tuple[float, ...]:
    heat = 25 if is_hot else 0
    clock = 1300 + 15 * rng.randrange(5) if is_hot else 1980
    power = round(rng.gauss(430 if is_hot else 640, 8), 3)
    temp, memory = 62 + rng.randrange(4) + heat, 75 + rng.randrange(3) + heat
    return clock, 2619, temp, memory, power, 96 + rng.randrange(4), 40 + rng.randrange(5), 61000, 20000, 0


@pytest.mark.parametrize("step", [5.0, 15.0, 30.0])
def test_heat_is_found_in_what_dcgm_exporter_tells_by_default(step: float, tmp_path: Path) -> None:
    with prometheus(tmp_path, history=history(step)) as server:
        done = program(
            *(
                "check",
                "--json",
                "--at",
                "2026-03-01T02:12:00Z",
                "--window",
                "15m",
                "--prometheus",
                server.url,
            ),
            tmp_path=tmp_path,
        )
        earlier = program(
            *(
                "check",
                "--json",
                "--at",
                "2026-03-01T02:04:30Z",
                "--window",
                "15m",
                "--prometheus",
                server.url,
            ),
            tmp_path=tmp_path,
        )
    told = json.loads(done.stdout)
    assert (told["at"], told["window_s"]) == ("2026-03-01T02:12:00Z", 900.0)
    assert told["coverage"] == {"nodes": [2, 2], "gpus": [16, 16]}
    (finding,) = told["findings"]
    assert finding["id"] == "thermal_throttling:r01n02/3"
    assert finding["scope"]["gpus"] == [["r01n02", 3]]
    assert finding["severity"] in ("warning", "critical")
    assert 0.2 <= finding["loss"]["fraction"] <= 0.4
    assert "2026-03-01T02:04:50Z" <= finding["since"] <= "2026-03-01T02:06:00Z"
    assert done.returncode in (1, 2)
    assert json.loads(earlier.stdout)["findings"] == []
    assert earlier.returncode == 0
