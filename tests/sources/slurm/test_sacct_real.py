"""The command for accounting, asked of a real slurmdbd."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from lab.slurm import SlurmLab

from coldaisle.sources.slurm.commands import Commands
from coldaisle.sources.slurm.local import LocalRunner
from coldaisle.sources.slurm.sacct import command, read_file

pytestmark = pytest.mark.timeout(300)


async def test_what_slurmdbd_has_by_the_command_and_by_the_source(slurm: SlurmLab, tmp_path: Path) -> None:
    began = time.time()
    done = slurm.submit("--gres=gpu:h100:2", "--job-name==cmd|calc", sleep=1)
    runs = slurm.submit("--gres=gpu:h100:8", "-w", "n002")
    slurm.until_state(runs, "RUNNING")
    waits = slurm.submit("--gres=gpu:h100:8", "-w", "n002")
    slurm.until_state(done, "COMPLETED", 60.0)
    file = tmp_path / "sacct.txt"
    typed = command(f"uts{int(began) - 5}", file=str(file))

    def is_told() -> bool:
        shell = ["sh", "-c", typed]
        subprocess.run(
            shell, env={**os.environ, **slurm.environment}, check=True, timeout=60, stdin=subprocess.DEVNULL
        )
        states = {job.id: job.state for job in read_file(file).jobs}
        return [states.get(job) for job in (done, runs, waits)] == ["COMPLETED", "RUNNING", "PENDING"]

    slurm.until(is_told, "accounting of all three", 60.0)
    jobs = {job.id: job for job in read_file(file).jobs}
    assert (jobs[done].gpus, jobs[runs].gpus, jobs[waits].gpus) == (2, 8, 8)
    assert jobs[done].name == "=cmd|calc"
    assert (jobs[runs].nodes, jobs[runs].partition, jobs[runs].user) == (("n002",), "gpu", "root")
    assert jobs[waits].start is None
    assert abs((jobs[runs].start or 0) - began) < 60
    told = await Commands(LocalRunner(), 60.0).accounting(began - 5, time.time() + 60)
    assert {job.id: job._replace(end=None) for job in told.jobs if job.id in jobs} == {
        id_: job._replace(end=None) for id_, job in jobs.items()
    }


def test_an_audit_of_a_real_slurm(slurm: SlurmLab, tmp_path: Path) -> None:
    runs = slurm.submit("--gres=gpu:h100:8", "-w", "n001", "--job-name=<b>=1+1")
    slurm.until_state(runs, "RUNNING")
    path = tmp_path / "report.json"
    program = [sys.executable, "-c", "from coldaisle.tui.start import main; main()", "audit", "--last", "1d"]

    def is_told() -> bool:
        subprocess.run(
            [*program, "--slurm", "local", "--step", "5m", "-o", str(path)],
            env={**os.environ, **slurm.environment, "XDG_STATE_HOME": str(tmp_path), "XDG_CONFIG_HOME": str(tmp_path)},
            check=True, timeout=100, stdin=subprocess.DEVNULL, capture_output=True,
        )  # fmt: skip
        states = {one["name"] for one in json.loads(path.read_text())["jobs_by"]["state"]}
        return "RUNNING" in states

    slurm.until(is_told, "a running job in the audit", 100.0)
    told = json.loads(path.read_text())
    assert told["gpus"] == 0
    assert told["nodes"] == 6
    assert told["jobs_by"]["user"][0]["name"] == "root"
    assert told["utilisations"]["cluster"]["busy"]["value"] is None
    assert told["method"]["sources"] == ["Slurm this machine"]
