"""``coldaisle audit`` as a person uses it: the real program on a real Prometheus, reports in a real browser."""

from __future__ import annotations

import csv
import json
import os
import re
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from lab.backfill import accounting, samples
from lab.month import DAY, HEALTHY, START, Month, month
from lab.program import PROGRAM, program
from lab.prometheus import prometheus
from services import require

from coldaisle.sources.errors import ColdaisleError
from coldaisle.sources.slurm.sacct import command
from coldaisle.tui.audit import MOST_CELLS, _reports, request_of, step_for

WEEK = 7.0


@dataclass(frozen=True)
class Site:
    """A Prometheus with a past, and what is true of it."""

    url: str
    month: Month
    sacct: Path
    days: float
    home: Path

    def run(
        self, *arguments: str, status: int = 0, environment: Mapping[str, str] = {}
    ) -> subprocess.CompletedProcess[str]:
        until = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(START + self.days * DAY))
        words = ["audit", "--last", f"{self.days:g}d", "--until", until, *arguments]
        done = run(self.home, *words, environment=environment)
        assert done.returncode == status, done.stderr
        return done

    def json(self, folder: Path, *arguments: str) -> dict[str, Any]:
        path = folder / "report.json"
        self.run("--prometheus", self.url, *arguments, "-o", str(path))
        told: dict[str, Any] = json.loads(path.read_text())
        return told


def run(home: Path, *arguments: str, environment: Mapping[str, str] = {}) -> subprocess.CompletedProcess[str]:
    return program(*arguments, tmp_path=home, **{"TZ": "UTC", **environment})


def site_of(folder: Path, made: Month, days: float, **how: Any) -> Iterator[Site]:
    file = folder / "sacct.txt"
    file.write_text(accounting(made.usage))
    with prometheus(folder, history=list(samples(made.usage, **how))) as server:
        yield Site(server.url, made, file, days, folder)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A week of 64 GPUs."""
    yield from site_of(tmp_path_factory.mktemp("site"), month(nodes=8, days=WEEK), WEEK)


@pytest.fixture(scope="module")
def gaps(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A week of which three fifths of the samples are missing."""
    yield from site_of(tmp_path_factory.mktemp("gaps"), month(nodes=4, days=WEEK, gaps=0.6), WEEK)


def reclaimable(told: Mapping[str, Any]) -> float:
    return float(told["gpu_hours"]["reclaimable"]["value"])


def test_the_plan_says_what_there_is_and_asks_no_more(site: Site, tmp_path: Path) -> None:
    said = site.run("--plan", "--prometheus", site.url).stdout
    assert "64 GPUs" in said
    assert re.search(r"found\s+gpu.util\s+DCGM_FI_DEV_GPU_UTIL", said)
    assert "missing  gpu.sm_clock           DCGM_FI_DEV_SM_CLOCK, gauge" in said
    assert "samples every 300 s" in said
    assert "jobs by labels: yes" in said
    assert re.search(r"asks about [\d,]+ queries", said)
    assert "SLURM_TIME_FORMAT=%s sacct --allusers" in said
    assert "Allocated" not in said
    both = site.run("--plan", "--prometheus", site.url, "-o", str(tmp_path / "r.json")).stdout
    assert both.index("asks about") < both.index("Allocated")


def test_help_has_the_command_for_accounting(tmp_path: Path) -> None:
    assert command("now-28days") in run(tmp_path, "audit", "--help").stdout


@pytest.mark.parametrize("has_accounting", [True, False])
def test_planted_waste_is_recovered(site: Site, tmp_path: Path, has_accounting: bool) -> None:
    told = site.json(tmp_path, *(["--sacct", str(site.sacct)] if has_accounting else []))
    assert (told["gpus"], told["nodes"]) == (64, 8)
    assert reclaimable(told) == pytest.approx(site.month.planted.reclaimable_gpu_hours, rel=0.05)
    use = told["utilisations"]["cluster"]
    assert 0.5 < use["allocated"]["value"] < 1
    assert use["achieved_bandwidth"]["value"] > 2 * use["achieved_flops"]["value"]
    assert {one["name"] for one in told["utilisations"]["racks"]} == {"r01", "r02"}
    assert told["coverage"]["overall"] == pytest.approx(1.0, abs=0.01)
    if has_accounting:
        assert "hugo" in {one["name"] for one in told["utilisations"]["users"]}
        assert told["jobs_by"]["partition"][0]["wait_p90_s"] is not None


def test_three_fifths_of_the_samples_missing(gaps: Site, tmp_path: Path) -> None:
    told = gaps.json(tmp_path, "--sacct", str(gaps.sacct))
    assert told["coverage"]["overall"] == pytest.approx(0.4, abs=0.03)
    one, planted = told["gpu_hours"]["reclaimable"], gaps.month.planted.reclaimable_gpu_hours
    assert told["gpu_hours"]["reclaimable_why"] is None
    assert one["low"] < planted < one["high"]
    assert one["value"] == pytest.approx(planted, rel=0.15)
    busy = told["utilisations"]["cluster"]["busy"]
    assert busy["low"] < busy["value"] < busy["high"]
    assert "How much was seen? 4" in gaps.run("--prometheus", gaps.url, "--sacct", str(gaps.sacct)).stdout


def test_every_form_of_report(site: Site, tmp_path: Path) -> None:
    files = [tmp_path / f"report.{ending}" for ending in ("html", "md", "json", "csv")]
    outputs = [word for file in files for word in ("-o", str(file))]
    done = site.run("--prometheus", site.url, "--sacct", str(site.sacct), *outputs)
    assert "Allocated" in done.stdout
    assert done.stderr.count("wrote") == 4
    html, markdown, made, table = (file.read_text() for file in files)
    hours = f"{reclaimable(json.loads(made)):,.0f} GPU-hours"
    assert hours in html
    assert hours.replace("-", "\\-") in markdown
    assert any(row["figure"] == "reclaimable GPU-hours" for row in csv.DictReader(table.splitlines()))
    assert not [file for file in tmp_path.iterdir() if file.name.startswith(".")]


def test_the_page_in_a_real_browser(site: Site, tmp_path: Path) -> None:
    """It is drawn, at a page's width and a phone's, asks nobody, and prints."""
    browser = require("chromium")
    page = tmp_path / "report.html"
    site.run("--prometheus", site.url, "--sacct", str(site.sacct), "-o", str(page))
    common = [browser, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", f"--user-data-dir={tmp_path / 'profile'}"]  # fmt: skip

    def look(*options: str) -> str:
        done = subprocess.run(
            [*common, *options, page.as_uri()], capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=100, check=False
        )  # fmt: skip
        assert done.returncode == 0, done.stderr[-2000:]
        return done.stdout

    dom = look("--dump-dom")
    assert dom.count("<svg") == page.read_text().count("<svg")
    assert "What can be reclaimed for nothing?" in dom
    look("--window-size=1100,1600", f"--screenshot={tmp_path / 'wide.png'}")
    look("--window-size=420,1600", f"--screenshot={tmp_path / 'narrow.png'}")
    look(f"--print-to-pdf={tmp_path / 'page.pdf'}")
    assert (tmp_path / "wide.png").stat().st_size > 50_000
    assert (tmp_path / "narrow.png").stat().st_size > 20_000
    assert (tmp_path / "page.pdf").read_bytes().startswith(b"%PDF")


def test_accounting_alone(site: Site, tmp_path: Path) -> None:
    path = tmp_path / "report.json"
    done = run(tmp_path, "audit", "--last", "7d", "--sacct", str(site.sacct), "-o", str(path))
    assert done.returncode == 0, done.stderr
    told = json.loads(path.read_text())
    assert told["gpus"] == 0
    assert told["utilisations"]["cluster"]["busy"]["value"] is None
    states = {one["name"]: one["gpu_hours"] for one in told["jobs_by"]["state"]}
    assert states["COMPLETED"] > 0
    assert "GPU-hours by how jobs ended" in done.stdout


def test_accounting_of_another_time_is_no_audit(site: Site, tmp_path: Path) -> None:
    done = run(tmp_path, "audit", "--until", "2020-01-01T00:00:00Z", "--sacct", str(site.sacct))
    assert done.returncode == 3
    assert "ran or waited within the span" in done.stderr


def test_a_baseline_with_accounting_and_an_audit_without_drift_not_apart(site: Site, tmp_path: Path) -> None:
    """Who waited is known of one alone: that is no change."""
    earlier, now = tmp_path / "earlier.json", tmp_path / "now.json"
    site.run("--prometheus", site.url, "--sacct", str(site.sacct), "-o", str(earlier))
    site.run("--prometheus", site.url, "--baseline", str(earlier), "-o", str(now))
    told = json.loads(now.read_text())
    assert told["offered_load"]["waiting_p95_gpus"] is None
    assert not [one for one in told["drift"] if "offered" in one["what"] or "waiting" in one["what"]]


def test_pseudonyms_and_a_baseline(site: Site, tmp_path: Path) -> None:
    files = [tmp_path / f"report.{ending}" for ending in ("html", "md", "json", "csv")]
    outputs = [word for file in files for word in ("-o", str(file))]
    source = ["--prometheus", site.url, "--sacct", str(site.sacct), "--pseudonyms"]
    first = site.run(*source, *outputs).stdout
    for body in (first, *(file.read_text() for file in files)):
        for name in ("hugo", "protein-fold", "r01n01", "jupyter", site.url.removeprefix("http://")):
            assert name not in body
    again = tmp_path / "again.json"
    assert "Nothing has drifted" in site.run(*source, "--baseline", str(files[2]), "-o", str(again)).stdout
    old = json.loads(files[2].read_text())
    assert [one["name"] for one in json.loads(again.read_text())["utilisations"]["users"]] == [
        one["name"] for one in old["utilisations"]["users"]
    ]


def test_the_demo_for_a_while_refuses_to_size(tmp_path: Path) -> None:
    path = tmp_path / "report.json"
    done = run(tmp_path, "audit", "--demo", "--for", "3s", "-o", str(path))
    assert done.returncode == 0, done.stderr
    told = json.loads(path.read_text())
    assert told["gpus"] == 512
    assert told["refused"]
    assert "gathered live" in told["method"]["remarks"][0]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--last", "1s"], "--last: between"),
        (["--last", "x"], "--last"),
        (["--step", "9d"], "--step"),
        (["-o", "report.pdf"], "what form is that"),
        (["-o", "nowhere/report.json"], "no such folder"),
        (["--baseline", "none.json"], "--baseline none.json"),
        (["--sacct", "none.txt"], "--sacct none.txt"),
        (["--until", "2999-01-01 00:00"], "still to come"),
        (["--prometheus", "http://127.0.0.1:9"], "127.0.0.1:9"),
    ],
)
def test_what_cannot_be_is_said_in_a_line(arguments: Sequence[str], said: str, tmp_path: Path) -> None:
    done = run(tmp_path, "audit", *arguments, *([] if "--prometheus" in arguments else ["--demo"]))
    assert done.returncode == 3
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    assert len(done.stderr.splitlines()) <= 3


def test_a_server_without_gpus_says_so(tmp_path: Path) -> None:
    with prometheus(tmp_path) as server:
        done = run(tmp_path, "audit", "--prometheus", server.url)
    assert done.returncode == 3
    assert "no metric of a GPU" in done.stderr


def test_ctrl_c_leaves_cleanly(site: Site, tmp_path: Path) -> None:
    given = {**os.environ, "XDG_STATE_HOME": str(tmp_path), "XDG_CONFIG_HOME": str(tmp_path)}
    words = [*PROGRAM, "audit", "--demo", "--for", "60s", "-o", str(tmp_path / "r.html")]
    program = subprocess.Popen(words, env=given, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)  # fmt: skip
    deadline = time.monotonic() + 30
    log = tmp_path / "coldaisle" / "coldaisle.log"
    while not log.exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    program.send_signal(signal.SIGINT)
    _, error = program.communicate(timeout=20)
    assert program.returncode == 130
    assert "Traceback" not in error
    assert not list(tmp_path.glob("*r.html*"))


@pytest.mark.parametrize(
    ("days", "boards", "scrape", "step"),
    [
        (7, 256, 30, 300),
        (30, 256, 30, 300),
        (30, 8192, 30, 7200),
        (365, 256, 60, 3600),
        (0.2, 64, 15, 60),
        (7, 64, 600, 600),
    ],
)
def test_bins_are_as_fine_as_size_and_samples_allow(
    days: float, boards: int, scrape: float, step: float
) -> None:
    chosen = step_for(days * DAY, boards, scrape)
    assert chosen <= step
    assert days * DAY / chosen * boards <= MOST_CELLS
    assert chosen >= scrape


def test_a_request_is_checked_before_anybody_is_asked(tmp_path: Path) -> None:
    given: dict[str, Any] = {"plan": False, "sacct": None, "gather_s": None, "outputs": (), "pseudonyms": False, "baseline": None}  # fmt: skip
    assert request_of(7 * DAY, None, None, **given).last_s == 7 * DAY
    with pytest.raises(ColdaisleError, match="--step"):
        request_of(7 * DAY, None, 1.0, **given)


@pytest.mark.timeout(600)
def test_a_month_of_256_gpus(tmp_path: Path) -> None:
    """The whole of it, sampled every quarter of an hour to keep the test short."""
    made = month(nodes=32, days=30.0, step=900.0)
    for site in site_of(tmp_path, made, 30.0):
        told = site.json(tmp_path, "--sacct", str(site.sacct))
        assert told["gpus"] == 256
        assert reclaimable(told) == pytest.approx(made.planted.reclaimable_gpu_hours, rel=0.05)
        assert told["span"]["step_s"] == 900.0


def test_a_healthy_week_has_little_to_reclaim(tmp_path: Path) -> None:
    made = month(HEALTHY, nodes=4, days=4.0)
    for site in site_of(tmp_path, made, 4.0):
        told = site.json(tmp_path, "--sacct", str(site.sacct))
        assert reclaimable(told) < 0.01 * told["gpu_hours"]["allocated"]["value"]


def test_a_report_that_fails_costs_none_of_the_others(tmp_path: Path) -> None:
    gone, kept = tmp_path / "gone" / "a.json", tmp_path / "b.json"
    written, failed = _reports([gone, kept], {"schema": "coldaisle.audit/1"})
    assert written == [kept]
    assert kept.exists()
    assert failed is not None
    assert str(gone) in str(failed)
