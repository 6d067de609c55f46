"""Captured answers of releases from 21.08 to 25.11: the same job and the same node read the same in each."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from lab.slurm_samples import SAMPLES, VERSIONS, sample

from coldaisle.sources.errors import AccessDenied, SourceError, Unusable
from coldaisle.sources.slurm import accounting, json_answers, text_answers
from coldaisle.sources.slurm.records import Board, SlurmJob, SlurmNode
from coldaisle.sources.source import Gres

pytestmark = pytest.mark.skipif(not SAMPLES.is_dir(), reason="no captured samples (COLDAISLE_SAMPLES)")

MIXED = "24.11/v0.0.42"
"""Of another cluster: its nodes have GPUs of two types."""
ALL = sorted(SAMPLES.glob("json-*/*.json"))


async def job(version: str, kind: str) -> SlurmJob:
    (found,) = (await json_answers.read_jobs(sample(version, kind), "sample")).jobs
    return found


async def node(version: str, kind: str) -> SlurmNode:
    (found,) = (await json_answers.read_nodes(sample(version, kind), "sample")).nodes
    return found


@pytest.mark.parametrize("version", VERSIONS)
async def test_a_job_on_two_nodes(version: str) -> None:
    """sbatch --time 1 --gpus 8 on two nodes with four each."""
    one = await job(version, "slurm-job-gpus-multi-nodes")
    first, second = one.nodes
    assert (one.state, one.is_holding, one.is_waiting) == ("RUNNING", True, False)
    numbers = {0: [0, 1, 2, 3]} if version != MIXED else {0: [0, 1], 1: [2, 3, 4, 5]}
    assert one.boards == tuple(
        Board(name, tuple(some)) for name in (first, second) for some in numbers.values()
    )
    gpus = 2 * sum(map(len, numbers.values()))
    assert (one.gpus, one.gpus_asked, one.nodes_asked, one.cpus, one.tasks) == (gpus, gpus, 2, 2, 1)
    assert (one.memory, one.limit_s, one.qos, one.name) == (2**30, 60.0, "normal", "wrap")
    assert one.start is not None
    assert one.end == one.start + 60.0
    assert one.submitted is not None
    assert one.eligible == one.submitted <= one.start
    assert (one.reason, one.dependency, one.shares, one.restarts) == (None, None, None, 0)
    assert one.display == str(one.id)
    # asked for one CPU and half a GiB, given as much on each node
    assert (one.cpus_asked, one.memory_asked) == (1, 2**29)
    assert one.partition == ("ia" if version == MIXED else "gpu")
    assert all(text and text.isalpha() for text in (one.user, one.account))


@pytest.mark.parametrize("version", VERSIONS)
async def test_a_job_on_one_node(version: str) -> None:
    one = await job(version, "slurm-job-gpus-running")
    assert one.state == "RUNNING"
    assert len(one.nodes) == 1
    assert one.gpus == sum(len(board.numbers) for board in one.boards) > 0
    assert {board.node for board in one.boards} == set(one.nodes)


@pytest.mark.parametrize("version", VERSIONS)
async def test_a_job_that_waits(version: str) -> None:
    one = await job(version, "slurm-job-gpus-pending")
    assert (one.state, one.is_waiting, one.is_holding, one.reason) == ("PENDING", True, False, "BeginTime")
    assert one.gpus == one.gpus_asked
    assert one.gpus in (4, 6)
    assert (one.nodes, one.boards, one.cpus, one.memory) == ((), (), 1, 512 * 2**20)
    assert one.submitted is not None
    assert one.start == one.eligible == one.submitted + 3600.0
    bare = await job(version, "slurm-job-pending")
    assert (bare.state, bare.reason, bare.gpus, bare.gpus_asked) == ("PENDING", "BeginTime", 0, 0)


@pytest.mark.parametrize("version", VERSIONS)
async def test_nodes(version: str) -> None:
    down, drained = await node(version, "slurm-node-down"), await node(version, "slurm-node-drain")
    assert (down.state, down.flags, down.reason, down.reason_by) == ("down", ("down",), "CPU dead", "root")
    assert (drained.state, drained.flags, drained.reason) == ("drain", ("idle", "drain"), "ECC memory error")
    assert down.reason_at is not None
    assert down.gres == drained.gres == ()
    full = await node(version, "slurm-node-with-gpus-model-allocated")
    assert full.gpus_used == sum(one.number for one in full.gres) > 0
    assert {one.name for one in full.gres} == {"gpu"}
    assert (full.cpus, full.memory, full.partitions != ()) == (32, 512 * 2**30, True)
    assert full.booted is not None
    assert (full.hostname, full.address) == (full.name, full.name)
    assert (full.system or "").startswith("Linux 6.")
    assert full.cpus_used in (0, 1)
    assert full.memory_used in (0, 2**29)
    assert (full.reason, full.reason_by, full.reason_at) == ("", None, None)
    assert [one.type for one in full.gres] == (["h100", "h200"] if version == MIXED else ["h100"])
    assert sum(one.number for one in full.gres) == (6 if version == MIXED else 4)


@pytest.mark.parametrize("version", [one for one in VERSIONS if one.startswith("25")])
async def test_a_node_with_one_gpu_given_away(version: str) -> None:
    one = await node(version, "slurm-node-with-gpus-model-mixed")
    assert (one.state, one.gres, one.gpus_used, one.cpus_used) == ("mix", (Gres("gpu", "h100", 4),), 1, 1)


@pytest.mark.parametrize("version", VERSIONS)
def test_accounting(version: str) -> None:
    (over,) = accounting.read_accounting(sample(version, "slurmdb-job-gpus-completed"), "sample")
    assert len(over.nodes) >= 1
    assert over.start is not None
    if version != "25.11/v0.0.42":  # that one was captured before its end
        assert over.state == "COMPLETED"
        assert over.end is not None
        assert over.start < over.end
    (runs,) = accounting.read_accounting(sample(version, "slurmdb-job-running"), "sample")
    assert (runs.state, runs.is_holding, runs.end) == ("RUNNING", True, None)


@pytest.mark.parametrize("file", ALL, ids=lambda file: f"{file.parent.name}/{file.stem}")
async def test_every_answer_is_read_whole(file: Path) -> None:
    body = file.read_bytes()
    name = file.stem
    if "jwt" in name:
        # 24.05 and older do not say what is wrong: slurmrestd's door knows (see test_slurm_real.test_tokens)
        with pytest.raises((AccessDenied, Unusable), match=r"uthentication|Unspecified"):
            await json_answers.read_jobs(body, "rest")
    elif "slurmdb" in name:
        assert accounting.read_accounting(body, "rest")
    elif re.search(r"diag", name):
        assert json_answers.read_diagnosis(body, "rest").rpcs
    elif re.search(r"slurm-node|scontrol_node|sinfo|telegraf-node", name):
        nodes = await json_answers.read_nodes(body, "rest")
        assert nodes.nodes
        assert nodes.left_out == 0
        assert all(one.name and one.state != "unknown" and one.cpus for one in nodes.nodes)
    elif re.search(r"job|queue", name):
        jobs = await json_answers.read_jobs(body, "rest")
        assert jobs.jobs
        assert jobs.left_out == 0
        assert all(one.id and one.state != "UNKNOWN" for one in jobs.jobs)
        assert all(one.nodes for one in jobs.jobs if one.is_holding)
    else:
        assert re.search(r"license|partition|ping|qos|reservation|prometheus", name), "nobody reads it"


async def test_the_oldest() -> None:
    old = {
        one.id: one
        for one in (
            await json_answers.read_jobs((SAMPLES / "json-21.08/rivos-squeue_out.json").read_bytes(), "")
        ).jobs
    }
    runs, waits = old[26515966], old[58948420]
    assert (runs.nodes, runs.cpus, runs.memory, runs.start) == (("cs75",), 1, 64000 * 2**20, 1684114921.0)
    assert (waits.display, waits.tasks, waits.reason, waits.start) == (
        "58948420_[1-10]",
        10,
        "Dependency",
        None,
    )
    newer = (await json_answers.read_jobs((SAMPLES / "json-22.05/telegraf-jobs.json").read_bytes(), "")).jobs
    assert [(one.nodes, one.limit_s) for one in newer[:1]] == [(("naboo222",), 3600 * 60.0)]


def test_text_of_nodes() -> None:
    text = SAMPLES / "text"
    nodes = {
        one.name: one
        for name in ("", "_no_gresused", "_untracked_gres")
        for one in text_answers.read_nodes((text / f"zabbix-scontrol_show_node{name}.txt").read_bytes()).nodes
    }
    assert {name: one.state for name, one in nodes.items() if name[:2] in ("n0", "g0")} == {
        "n001": "mix", "n002": "alloc", "n003": "idle", "n004": "down", "n005": "drain", "n006": "drain",
        "g001": "mix", "g002": "idle",
    }  # fmt: skip
    assert (nodes["n004"].reason, nodes["n004"].reason_by) == ("Not responding", "slurm")
    assert nodes["n005"].reason == "hardware maintenance scheduled"
    assert (nodes["g001"].gres, nodes["g001"].gpus_used) == ((Gres("gpu", "a100", 4),), 3)
    assert nodes["aklppg32"].gpus_used is None
    assert nodes["gpu03"].gres == (Gres("gpu", "a100", 2), Gres("gpu", "v100", 2), Gres("mps", "", 200))
    diagnosis = text_answers.read_diagnosis((text / "zabbix-sdiag.txt").read_bytes())
    assert (diagnosis.threads, diagnosis.agents, diagnosis.at) == (8, 12, 1714910401.0)
    assert diagnosis.rpcs["REQUEST_JOB_INFO"] == 8021


async def test_half_of_any_answer_is_an_error_or_less() -> None:
    for kind in ("slurm-jobs", "slurm-job-gpus-multi-nodes"):
        body = sample("25.11/v0.0.44", kind)
        for share in range(1, 40):
            with pytest.raises(SourceError):
                await json_answers.read_jobs(body[: len(body) * share // 40], "sample")
