"""Whose events concern what: an entity, its parts, what it stands in, and the jobs on it."""

from __future__ import annotations

from dataclasses import replace

import pytest
from lab.jobs import night_of_jobs

from coldaisle.analyzers.fields import Entity
from coldaisle.analyzers.happenings import NOBODY, kin_of, kind_words, newest_first
from coldaisle.analyzers.selection import Selection
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


class TestFilter:
    def found(self, snapshot: Snapshot, text: str) -> list[tuple[str, str]]:
        mask = Selection(text, Entity.EVENT).mask(snapshot)
        return [(event.entity, event.kind) for event, yes in zip(snapshot.events, mask, strict=True) if yes]

    def test_a_job_that_has_ended_is_found_by_its_array_user_and_nodes(self, night: Snapshot) -> None:
        ended = ("slurm:4650", "job_end")
        for text in (
            "job==4600_2", "job==4600", "job==4650", "user==kim & kind==job_end", "partition==gpu & kind==job_end",
            "node==r01n01 & kind==job_end", "kind==job_end & rack==r01", "4600_2", "eval", 'what=="job ended"',
        ):  # fmt: skip
            assert self.found(night, text) == [ended], text

    def test_of_a_node_also_what_is_on_it_and_the_jobs_there(self, night: Snapshot) -> None:
        found = self.found(night, "host==r01n01")
        assert {kind for _, kind in found} >= {"driver", "xid", "job_start", "job_end", "reboot"}
        assert all(entity.startswith(("r01n01", "slurm:")) for entity, _ in found), (
            "nothing of the other nodes of its rack"
        )

    def test_of_a_rack_its_own_and_those_of_its_nodes(self, night: Snapshot) -> None:
        hot = next(event.entity for event in night.events if event.kind == "throttle")
        assert (hot, "throttle") in self.found(night, f"rack=={hot}")
        assert (hot, "throttle") in self.found(night, hot)
        assert not [entity for entity, _ in self.found(night, f"rack=={hot}") if entity.startswith("r01n")]

    def test_a_gpu_had_the_job_that_holds_it_since_before(self, night: Snapshot) -> None:
        xid = next(event for event in night.events if event.detail.startswith("XID 31"))
        number = int(night.gpu_job[night.layout.gpu_of[xid.entity]])
        user = night.jobs[number].user
        assert (xid.entity, "xid") in self.found(night, f"user=={user} & kind==xid")
        late = replace(night.jobs[number], since=xid.at + 1)
        other = replace(night, jobs=(*night.jobs[:number], late, *night.jobs[number + 1 :]))
        assert (xid.entity, "xid") not in self.found(other, f"user=={user} & kind==xid")

    def test_missing_is_not_unequal(self, night: Snapshot) -> None:
        nobody = replace(night, events=(EventView(night.at - 5, "", "alert", "Watchdog"),))
        assert self.found(nobody, "user!=kim") == []
        assert self.found(nobody, "missing(user) & missing(node) & age<10") == [("", "alert")]
        assert self.found(replace(night, events=()), "xid") == []


def test_kinds_as_people_say_them() -> None:
    assert (kind_words("job_start"), kind_words("fan_stuck")) == ("job started", "fan stuck")
