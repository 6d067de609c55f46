"""What a partition has against a job that waits, and how partitions are listed."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from lab.jobs import night_of_jobs

from coldaisle.analyzers.partitions import hindrance, partitions_of, summary
from coldaisle.analyzers.snapshot import Snapshot
from coldaisle.sources.cluster import Job
from coldaisle.sources.source import Demand, Partition
from coldaisle.tui.listing import listed, request_of


def partition(name: str, **said: Any) -> Partition:
    plain: dict[str, Any] = dict.fromkeys(Partition._fields)
    return Partition(**(plain | {"name": name, "state": "up", "accounts": (), "accounts_denied": ()} | said))


GPU = partition("gpu", is_default=True, nodes=60, gpus=480, tier=1)
LATE = partition(
    "late", state="down", is_default=False, limit_s=86400.0, gpus=16, accounts=("physics", "chem")
)


@pytest.fixture(scope="module")
def night() -> Snapshot:
    snapshot = night_of_jobs()
    queue = replace(
        snapshot.queues["slurm"], partitions=(("gpu", Demand(3, 24), Demand(2, 16)), ("gpu,late", Demand(0, 0), Demand(1, 8)))
    )  # fmt: skip
    return replace(snapshot, partitions=(GPU, LATE), queues={"slurm": queue})


def waits(night: Snapshot, **said: Any) -> Job:
    return replace(night.queue[1], account="physics", gpus_asked=8, nodes_asked=1, **said)


@pytest.mark.parametrize(
    ("state", "said"),
    [
        ("up", None),
        ("drain", None),
        ("down", "late is down: it starts no job"),
        ("inactive", "late is inactive"),
    ],
)
def test_a_partition_that_starts_nothing(night: Snapshot, state: str, said: str | None) -> None:
    changed = replace(night, partitions=(GPU, LATE._replace(state=state)))
    found = hindrance(changed, waits(night, partition="late"))
    assert found is None if said is None else said in (found or "")
    assert said is None or "scontrol update partition=late state=up" in (found or "")


@pytest.mark.parametrize(
    ("changes", "asks", "said"),
    [
        ({"accounts": ("chem",)}, {}, "does not let account physics in"),
        ({"accounts": (), "accounts_denied": ("physics",)}, {}, "does not let account physics in"),
        ({"gpus": 4}, {}, "asks for 8 GPUs, partition late has 4"),
        ({"most_nodes": 2}, {"nodes_asked": 3}, "asks for 3 nodes, partition late gives a job 2 at most"),
        ({}, {"reason": "PartitionTimeLimit"}, "more time than partition late allows, 1 d"),
        ({"gpus": None, "limit_s": None}, {"reason": "PartitionTimeLimit"}, None),
    ],
)
def test_what_it_does_not_let_in(
    night: Snapshot, changes: dict[str, Any], asks: dict[str, Any], said: str | None
) -> None:
    changed = replace(night, partitions=(LATE._replace(state="up", **changes),))
    found = hindrance(changed, replace(waits(night, partition="late"), **asks))
    assert found is None if said is None else said in (found or "")


def test_one_of_several_partitions_is_enough(night: Snapshot) -> None:
    assert hindrance(night, waits(night, partition="gpu,late")) is None
    assert hindrance(night, waits(night, partition="late,unknown")) is None
    assert hindrance(night, waits(night, partition=None)) is None
    assert hindrance(night, replace(night.jobs[0], partition="late")) is None
    both = replace(night, partitions=(GPU._replace(state="inactive"), LATE))
    found = hindrance(both, waits(night, partition="gpu,late")) or ""
    assert found.index("gpu is inactive") < found.index("late is down")
    assert [one.name for one in partitions_of(night, waits(night, partition="late,gpu"))] == ["late", "gpu"]


def test_no_foreign_name_stands_in_a_command(night: Snapshot) -> None:
    evil = "late;rm -rf"
    changed = replace(night, partitions=(LATE._replace(name=evil),))
    assert "scontrol" not in (hindrance(changed, waits(night, partition=evil)) or "scontrol")


def test_in_short() -> None:
    assert summary(LATE) == "down, limit 1 d"
    assert summary(GPU) == ""


def test_partitions_as_rows(night: Snapshot) -> None:
    listing = listed(night, request_of("partitions", "", "", ""))
    assert listing.rows == [
        ("gpu", "up", "yes", None, 60, 480, 3, 24, 2, 16, 1, None),
        ("late", "down", "no", 86400.0, None, 16, 0, 0, 0, 0, None, "physics,chem"),
    ]
    for where in ("state==down", "late", "accounts==chem", "limit<2d", "gpus<100"):
        assert [row[0] for row in listed(night, request_of("partitions", where, "", "")).rows] == ["late"]
    waiting = replace(night, queue=(waits(night, partition="late"),))
    (row,) = listed(waiting, request_of("jobs", "missing(runtime)", "job,hindrance", "")).rows
    assert "late is down" in str(row[1])
