"""Slurm's small languages."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coldaisle.sources.slurm import words
from coldaisle.sources.slurm.json_answers import read_jobs as read_json_jobs
from coldaisle.sources.slurm.records import Board
from coldaisle.sources.slurm.text_answers import read_jobs as read_text_jobs
from coldaisle.sources.slurm.words import Held
from coldaisle.sources.source import Gres


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("gpu:h100:8(S:0-1)", [Gres("gpu", "h100", 8)]),
        ("gpu:h100:2,gpu:h200:4", [Gres("gpu", "h100", 2), Gres("gpu", "h200", 4)]),
        ("gpu:p100:2(S:0-1),tmp:1860G", [Gres("gpu", "p100", 2), Gres("tmp", "", 1860 << 30)]),
        ("gpu:4", [Gres("gpu", "", 4)]),
        ("gpu:a100_1g.10gb:7(S:0,1)", [Gres("gpu", "a100_1g.10gb", 7)]),
        ("shard:l40:16", [Gres("shard", "l40", 16)]),
        ("(null)", []),
        ("N/A", []),
        ("", []),
        (None, []),
        ("gpu:h100:lots", []),
    ],
)
def test_what_a_node_has(text: str | None, found: list[Gres]) -> None:
    assert list(words.configured_gres(text)) == found


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("gpu:h100:3(IDX:0-1,5)", [Held("gpu", "h100", 3, (0, 1, 5))]),
        ("gpu:h100:0(IDX:N/A),gpu:h200:0(IDX:N/A)", []),
        ("gpu:h100:2(IDX:0-1),gpu:h200:0(IDX:)", [Held("gpu", "h100", 2, (0, 1))]),
        (
            "gpu:h100:1(IDX:0),gpu:h200:2(IDX:2,4)",
            [Held("gpu", "h100", 1, (0,)), Held("gpu", "h200", 2, (2, 4))],
        ),
        ("shard:3(IDX:1)", [Held("shard", "", 3, (1,))]),
        ("shard:l40:9(3/8,0/8,6/8)", [Held("shard", "l40", 9, (0, 2))]),
        ("shard:l40:3(1/8,2/8)", [Held("shard", "l40", 3, (0, 1))]),
        ("gpu:h100:1(IDX:3),shard:2(IDX:0)", [Held("gpu", "h100", 1, (3,)), Held("shard", "", 2, (0,))]),
        ("mps:100(IDX:0)", [Held("mps", "", 100, (0,))]),
        ("gpu:a100_1g.5gb:2(IDX:3,5)", [Held("gpu", "a100_1g.5gb", 2, (3, 5))]),
        ("gpu:1g.10gb+me:1(IDX:2)", [Held("gpu", "1g.10gb+me", 1, (2,))]),
        ("gpu:p100:1(S:0-1),tmp:0", [Held("gpu", "p100", 1, None)]),
        ("gpu:h100:4", [Held("gpu", "h100", 4, None)]),
        ("gpu:h100:4(IDX:0-99999999)", [Held("gpu", "h100", 4, None)]),
        ("gpu:h100:4(IDX:5-1)", [Held("gpu", "h100", 4, None)]),
        ("gpu(IDX:3)", [Held("gpu", "", 1, (3,))]),
    ],
)
def test_what_is_given_away(text: str, found: list[Held]) -> None:
    assert list(words.held_gres(text)) == found


def test_tres() -> None:
    counts = words.tres("cpu=48,mem=240G,node=1,billing=48,gres/gpu=8,gres/gpu:h100=8,gres/gpu:h200=0")
    assert counts["mem"] == 240 * 2**30
    assert words.gpus_of(counts) == 8
    assert words.gpus_of(words.tres("cpu=1,gres/gpu:a=1,gres/gpu:b=2")) == 3
    assert words.gpus_of(words.tres("cpu=1,mem=512M")) is None
    assert words.tres("mem=62.50G")["mem"] == 62.5 * 2**30


@pytest.mark.parametrize(
    ("text", "gpus"),
    [
        ("gres/gpu:8", 8), ("gres:gpu:h100:8", 8), ("gres/gpu:h100=4", 4), ("gres/gpu", 1), ("gpu:2", 2),
        ("gres/gpu:h100", 1), ("cpu:4,gres/gpu:2", 2), ("gres/gpfs:ess:1", 0), ("gres/gpu:a:1,gres/gpu:b:2", 3),
        ("gres/gpu:nvidia_a100_80gb_pcie_1g.10gb:2", 2), ("gres:gpu:1g.10gb+me:3", 3), ("gres/shard:3", 0),
        ("N/A", 0), ("", 0), (None, 0),
    ],
)  # fmt: skip
def test_what_is_asked_for(text: str | None, gpus: int) -> None:
    assert words.asked(text) == gpus


@pytest.mark.parametrize(
    ("text", "state", "flags"),
    [
        ("IDLE", "idle", ("idle",)),
        ("IDLE+DRAIN", "drain", ("idle", "drain")),
        ("MIXED+DRAIN+NOT_RESPONDING", "drain", ("mixed", "drain", "not_responding")),
        ("DOWN*", "down", ("down", "not_responding")),
        ("DOWN+DRAIN", "down", ("down", "drain")),
        ("allocated", "alloc", ("allocated",)),
        ("idle~", "off", ("idle", "powered_down")),
        ("idle$", "maint", ("idle", "maintenance")),
        ("IDLE+COMPLETING", "comp", ("idle", "completing")),
        ("MIXED+COMPLETING", "mix", ("mixed", "completing")),
        ("IDLE+PLANNED", "idle", ("idle", "planned")),
        ("IDLE+REBOOT_ISSUED", "reboot", ("idle", "reboot_issued")),
        ("IDLE+INVALID_REG", "inval", ("idle", "invalid_reg")),
        ("", "unknown", ()),
    ],
)
def test_node_states(text: str, state: str, flags: tuple[str, ...]) -> None:
    assert words.node_state(words.node_words(text)) == (state, flags)


@pytest.mark.parametrize(
    ("said", "state", "waits", "holds"),
    [
        (["RUNNING"], "RUNNING", False, True),
        (["RUNNING", "COMPLETING"], "COMPLETING", False, True),
        (["COMPLETED", "COMPLETING"], "COMPLETING", False, True),
        (["RUNNING", "CONFIGURING"], "CONFIGURING", False, True),
        (["SUSPENDED"], "SUSPENDED", False, True),
        (["PENDING", "REQUEUE_HOLD"], "PENDING", True, False),
        (["REQUEUED"], "PENDING", True, False),
        (["CANCELLED by 1000"], "CANCELLED", False, False),
        (["OUT_OF_MEMORY"], "OUT_OF_MEMORY", False, False),
        ([], "UNKNOWN", False, False),
    ],
)
def test_job_states(said: list[str], state: str, waits: bool, holds: bool) -> None:
    assert words.job_state(said) == (state, waits, holds)


def test_times_and_numbers() -> None:
    assert words.duration("2-00:00:00") == 172800.0
    assert words.duration("1:30:00") == 5400.0
    assert words.duration("30:00") == 1800.0
    assert words.duration("90") == 5400.0
    assert words.duration("UNLIMITED") is None
    assert words.instant("1795680556") == 1795680556.0
    assert words.instant("Unknown") is words.instant("N/A") is words.instant("99999999999999") is None
    assert words.moment(0) is words.moment(2**64 - 2) is words.moment(float("nan")) is None
    assert (words.tasks("2-9%2"), words.tasks("1,3,5-9:2"), words.tasks(""), words.tasks("0-...")) == (
        8,
        5,
        1,
        1,
    )
    assert words.tasks("0-999999999") == 10_000_000
    assert words.hosts("n[001-003]") == ("n001", "n002", "n003")
    assert words.hosts("n[1-1000000]") == words.hosts("@evil") == words.hosts("n[1-") == ()


@given(st.text(max_size=200))
def test_no_text_breaks_them(text: str) -> None:
    for read in (
        words.configured_gres, words.held_gres, words.tres, words.asked, words.size, words.instant, words.duration,
        words.hosts, words.tasks, words.node_words,
    ):  # fmt: skip
        read(text)
    words.node_state(words.node_words(text))
    words.job_state([text])


@given(st.lists(st.integers(0, 63), min_size=1, max_size=16, unique=True).map(sorted))
def test_indices_are_read_as_they_are_folded(numbers: list[int]) -> None:
    from ClusterShell.NodeSet import RangeSet

    assert words.ranges(str(RangeSet.fromlist(map(str, numbers)))) == tuple(numbers)


MIG = "gpu:a100_1g.5gb:2(IDX:3,5)"
BOTH = "gpu:h100:1(IDX:3),shard:h100:2(IDX:0)"


@pytest.mark.parametrize(
    ("gres", "boards", "gpus", "shares"),
    [
        (MIG, (Board("n1", (3, 5), is_mig=True),), 2, None),
        ("gpu:1g.10gb+me:1(IDX:2)", (Board("n1", (2,), is_mig=True),), 1, None),
        ("shard:l40:3(1/8,2/8)", (Board("n1", (0, 1)),), None, 3),
        ("mps:50(IDX:1)", (Board("n1", (1,)),), None, 50),
        (BOTH, (Board("n1", (3,)), Board("n1", (0,))), 1, 2),
        ("gpu:h100:1(IDX:0),gpu:h200:2(IDX:2,4)", (Board("n1", (0,)), Board("n1", (2, 4))), 3, None),
        ("gpu:h100:8", (), 8, None),
        ("tmp:1860G,gpu:p100:1(IDX:1)", (Board("n1", (1,)),), 1, None),
    ],
)
async def test_instances_and_shares_of_a_job(
    gres: str, boards: tuple[Board, ...], gpus: int | None, shares: int | None
) -> None:
    """The same from JSON's ``gres_detail`` and from the text of ``scontrol -d show job``."""
    row = {"job_id": 7, "job_state": ["RUNNING"], "nodes": "n1", "gres_detail": [gres]}
    (said,) = (await read_json_jobs(json.dumps({"jobs": [row]}).encode(), "squeue")).jobs
    line = (
        "JobId=7 JobName=train UserId=kim(1) GroupId=kim(1) MCS_label=N/A JobState=RUNNING Partition=gpu NodeList=n1"
        f"   Nodes=n1 CPU_IDs=0-7 Mem=1 GRES={gres} Command=x\n"
    )
    (same,) = read_text_jobs(line.encode()).jobs
    for one in (said, same):
        assert (one.boards, one.gpus, one.shares) == (boards, gpus, shares)
