"""Whose events concern what: an entity, its parts, what it stands in, and the jobs on it."""

from __future__ import annotations

import pytest
from lab.jobs import night_of_jobs

from coldaisle.analyzers.happenings import NOBODY, kin_of, newest_first
from coldaisle.analyzers.snapshot import EventView, Snapshot


@pytest.fixture(scope="module")
def night() -> Snapshot:
    return night_of_jobs()


def concerned(snapshot: Snapshot, entity: str, *others: str) -> list[str]:
    kin = kin_of(snapshot, entity)
    return [other for other in others if kin.concerns(EventView(0.0, other, "xid", ""))]


def test_a_gpu_with_its_instances_node_rack_and_job(night: Snapshot) -> None:
    job = night.jobs[int(night.gpu_job[night.layout.gpu_of["r01n01/2"]])].id
    others = (
        "r01n01/2",
        "r01n01/2:gi1",
        "r01n01",
        "r01",
        job,
        "r01n01/20",
        "r01n01/3",
        "r01n02",
        "r02",
        "slurm:1",
        "",
    )
    assert concerned(night, "r01n01/2", *others) == ["r01n01/2", "r01n01/2:gi1", "r01n01", "r01", job]


def test_a_node_with_all_that_is_on_it(night: Snapshot) -> None:
    others = ("r01n01", "r01n01/5", "r01n01/mlx5_0/1", "r01", "r01n010/1", "r01n02", "r02")
    assert concerned(night, "r01n01", *others) == list(others[:4])


def test_a_rack_with_its_nodes(night: Snapshot) -> None:
    assert concerned(night, "r01", "r01", "r01n04/7", "r01n02", "r02n01") == ["r01", "r01n04/7", "r01n02"]


def test_a_job_with_its_nodes(night: Snapshot) -> None:
    job = night.jobs[5]
    assert concerned(night, job.id, job.id, job.nodes[0], f"{job.nodes[0]}/1", "slurm:9", "r16n04/1") == [
        job.id, job.nodes[0], f"{job.nodes[0]}/1",
    ]  # fmt: skip


def test_a_job_that_waits_and_one_that_is_gone(night: Snapshot) -> None:
    waits = night.queue[0].id
    assert concerned(night, waits, waits, "r01n01") == [waits]
    assert concerned(night, "slurm:1", "slurm:1", "r01n01") == ["slurm:1"]


def test_nothing_concerns_nobody(night: Snapshot) -> None:
    assert concerned(night, "", "", "r01n01") == []
    assert not NOBODY.concerns(EventView(0.0, "", "alert", ""))


def test_newest_first_and_of_one_instant_the_last_told() -> None:
    events = [EventView(1.0, "a", "x", "1"), EventView(2.0, "b", "x", "2"), EventView(2.0, "c", "x", "3")]
    assert [event.detail for event in newest_first(events)] == ["3", "2", "1"]
