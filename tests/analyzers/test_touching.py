"""Which findings touch which entities, and how filters ask for it."""

from __future__ import annotations

from dataclasses import replace

import pytest
from lab.diagnoses import hostile, job_at, night, night_findings
from lab.services import make_services
from lab.snapshots import make_snapshot

from coldaisle.analyzers.fields import Entity
from coldaisle.analyzers.finding import Diagnosis, Scope
from coldaisle.analyzers.selection import Selection
from coldaisle.analyzers.snapshot import Snapshot
from coldaisle.analyzers.touching import NOTHING, Places, touching


@pytest.fixture(scope="module")
def dark() -> Snapshot:
    return night()


def detectors_at(snapshot: Snapshot, gpu: str) -> list[tuple[str, bool]]:
    found = touching(snapshot)
    hits = found.gpus.get(snapshot.layout.gpu_of[gpu], ())
    return [(found.findings[hit.finding].detector, hit.is_victim) for hit in hits]


def kept(snapshot: Snapshot, text: str, row: Entity) -> int:
    return int(Selection(text, row).mask(snapshot).sum())


def test_without_findings_nothing_is_touched() -> None:
    assert touching(make_snapshot()) is NOTHING


def test_roots_and_victims_are_told_apart(dark: Snapshot) -> None:
    assert detectors_at(dark, "r11n02/3") == [("gpu_fault", False)]
    assert detectors_at(dark, "r11n02/4") == [("gpu_fault", True)]
    assert detectors_at(dark, "r07n01/0") == [("thermal_throttling", False)]
    assert detectors_at(dark, "r07n01/5") == []


def test_it_is_made_once_a_diagnosis(dark: Snapshot) -> None:
    assert touching(dark) is touching(replace(dark, at=dark.at + 2))


def test_the_gpus_of_a_scope_are_the_narrowest_that_are_named() -> None:
    snapshot = make_services()
    places, server = Places(snapshot), snapshot.layout.servers[0]
    assert places.reach(Scope(servers=(server.key,))).gpus == server.gpus
    assert len(places.reach(Scope(nodes=("r01n01", "r01n02"))).gpus) == 16
    port = snapshot.layout.ports[0].key
    reach = places.reach(Scope(ports=(port,), nodes=("r01n01",)))
    assert (reach.gpus, reach.nodes) == ((), frozenset({0}))
    job = snapshot.jobs[0]
    assert places.reach(Scope(jobs=(job.id,))).gpus == job.gpus


def test_names_that_nobody_knows_are_left_out() -> None:
    found = touching(hostile())
    assert (found.reach[0].gpus, found.reach[0].nodes) == ((), frozenset())


@pytest.mark.parametrize(
    ("text", "row", "count"),
    [
        ("finding==thermal_throttling", Entity.GPU, 28),
        ('finding=="thermal_throttling:r07"', Entity.GPU, 28),
        ("severity==critical", Entity.NODE, 2),
        ("finding==idle_allocation", Entity.NODE, 1),
        ("missing(finding)", Entity.JOB, -1),
        ("r07", Entity.FINDING, 2),
        ("finding==gpu_fault | owner==fabric", Entity.FINDING, 2),
        ("urgency==now & cost>5", Entity.FINDING, 2),
        ("severity==info", Entity.FINDING, 1),
        ("loss>30%", Entity.FINDING, 3),
        ("thermal", Entity.FINDING, 1),
        ("checkpoint", Entity.FINDING, 1),
        ("node==r03n01", Entity.FINDING, 1),
        ("temp>200", Entity.FINDING, 0),
    ],
)
def test_filters_ask_for_findings(dark: Snapshot, text: str, row: Entity, count: int) -> None:
    assert kept(dark, text, row) == count if count >= 0 else kept(dark, text, row) > 0


def test_a_finding_is_found_by_whose_job_it_touches(dark: Snapshot) -> None:
    user = next(job.user for job in dark.jobs if job.id in job_at(dark, "r13n02/0"))
    mask = Selection(f"user=={user}", Entity.FINDING).mask(dark)
    ids = [one.id for one, yes in zip(dark.diagnosis.findings, mask, strict=False) if yes]
    assert "idle_allocation:r13n02" in ids


def test_jobs_that_wait_have_no_finding() -> None:
    from lab.jobs import night_of_jobs

    snapshot = night_of_jobs()
    snapshot = replace(snapshot, diagnosis=Diagnosis(snapshot.at, findings=night_findings(make_snapshot())))
    assert len(Selection("finding!=x", Entity.JOB).mask(snapshot)) == len(snapshot.jobs) + len(snapshot.queue)
