"""Triage: what stands of what detectors say, look by look, in a made-up cluster of 16 racks of 4 nodes of 8 GPUs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace

import numpy as np
import pytest
from lab.snapshots import AT, Faults, make_snapshot, with_values

from coldaisle.analyzers import wording
from coldaisle.analyzers.finding import (
    NOWHERE,
    Candidate,
    Diagnosis,
    Evidence,
    Finding,
    Scope,
    Severity,
    Undecided,
    Urgency,
    Verdict,
    Warming,
)
from coldaisle.analyzers.rules import Command, File, Text
from coldaisle.analyzers.snapshot import EventView, Snapshot
from coldaisle.analyzers.tracks import DWELL_S, FLAP_S
from coldaisle.analyzers.triage import Triage
from coldaisle.analyzers.window import Window, groups_of
from coldaisle.sources.cluster import Server
from coldaisle.sources.history import History

POLL = 5.0
LONG = 12
"""Looks in which everything opens that is told of in all of them."""
QUIET = replace(make_snapshot(faults=Faults()), events=())
GROUPS = groups_of(QUIET.layout)
JOB_AT = {QUIET.layout.gpus[gpu].key: job for job in QUIET.jobs for gpu in job.gpus}


@pytest.fixture(autouse=True)
def same_text_for_all(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is tested here is which text is filled with what, not what detectors have to say."""
    text = Text(
        title="{count} of {what}",
        cause="in {where}: {loss} lost, {nonsense}",
        remedy="look at {node}",
        owner="facility",
        urgency=Urgency.NOW,
        urgency_why="so",
        confirm=[
            Command(["nvidia-smi", "-i", "{index}"]),
            Command(["scontrol", "show", "job", "{job}"], on="login"),
        ],
    )
    monkeypatch.setattr(wording, "rules", lambda detector: File({}, {"any": text, "clock": text}))


def candidate(
    detector: str = "thermal_throttling",
    *,
    gpus: Iterable[str] = (),
    at: float = AT,
    loss: float = 0.2,
    is_open: bool = True,
    is_immediate: bool = False,
    severity: Severity = Severity.WARNING,
    since: float | None = None,
    variant: str = "any",
    group: str = "",
    victims: Scope = NOWHERE,
    **roots: tuple[str, ...],
) -> Candidate:
    return Candidate(
        detector,
        variant,
        Scope(gpus=tuple(gpus), **roots),
        severity,
        at - 60.0 if since is None else since,
        loss,
        0.8,
        (Evidence("gpu.sm_clock", next(iter(gpus), "x"), 0.8, "ratio", "<= 0.97"),),
        is_open=is_open,
        is_immediate=is_immediate,
        words={"what": "things"},
        group=group,
        victims=victims,
    )


def hot(*gpus: str, **more: object) -> list[Candidate]:
    return [candidate(gpus=(gpu,), **more) for gpu in gpus]  # type: ignore[arg-type]


class Folding:
    """A triage that is shown one look after another."""

    def __init__(self, snapshot: Snapshot = QUIET, poll: float = POLL) -> None:
        self.snapshot, self.poll = snapshot, poll
        self.triage = Triage()
        self.at = snapshot.at - poll
        self.last = Diagnosis(0.0)

    def see(
        self, *found: Candidate, looks: int = 1, failed: tuple[str, ...] = (), **more: Verdict
    ) -> Diagnosis:
        """These candidates in so many looks running."""
        for _ in range(looks):
            self.at += self.poll
            verdicts: dict[str, Verdict] = {}
            for one in found:
                known = verdicts.get(one.detector, Verdict())
                verdicts[one.detector] = replace(known, candidates=(*known.candidates, one))
            verdicts |= {name: Verdict(failed=True) for name in failed} | more
            snapshot = replace(self.snapshot, at=self.at)
            window = Window(History(), snapshot, groups_of(snapshot.layout), self.poll)
            self.last = self.triage.fold(window, verdicts)
        return self.last

    def ids(self) -> list[str]:
        return [finding.id for finding in self.last.findings]

    @property
    def one(self) -> Finding:
        (finding,) = self.last.findings
        return finding


@pytest.fixture
def folding() -> Folding:
    return Folding()


# --- over time ------------------------------------------------------------------------------------------------------


def test_one_look_proves_nothing_two_do(folding: Folding) -> None:
    folding.see(*hot("r07n01/0"))
    assert folding.ids() == []
    folding.see(*hot("r07n01/0"))
    assert folding.ids() == ["thermal_throttling:r07n01/0"]


def test_what_is_proof_by_itself_stands_at_once(folding: Folding) -> None:
    folding.see(candidate("gpu_fault", gpus=("r07n01/0",), is_immediate=True))
    assert folding.ids() == ["gpu_fault:r07n01/0"]


def test_a_weak_candidate_keeps_what_is_open_and_opens_nothing(folding: Folding) -> None:
    folding.see(*hot("r07n01/0", is_open=False), looks=20)
    assert folding.ids() == []
    folding.see(*hot("r07n01/0"), looks=2)
    folding.see(*hot("r07n01/0", is_open=False), looks=100)
    assert folding.ids() == ["thermal_throttling:r07n01/0"]


@pytest.mark.parametrize("poll", [1.0, 5.0, 30.0])
def test_it_is_over_two_windows_after_the_last_sign(poll: float) -> None:
    folding = Folding(poll=poll)
    folding.see(*hot("r07n01/0"), looks=2)
    window_s = max(60.0, 8 * poll)
    folding.see(looks=int(2 * window_s / poll) - 1)
    assert folding.ids() == ["thermal_throttling:r07n01/0"]
    folding.see()
    assert folding.ids() == []
    (cleared,) = folding.last.cleared
    assert cleared.cleared_at == folding.at


def test_it_is_over_where_its_detector_knows_that_all_is_well(folding: Folding) -> None:
    ill = folding.snapshot.layout.gpu_of["r07n01/0"]
    well = np.ones(len(folding.snapshot.layout.gpus), dtype=np.bool_)
    folding.see(*hot("r07n01/0"), looks=LONG)
    well[ill] = False
    folding.see(thermal_throttling=Verdict(well=well))
    assert folding.ids() == ["thermal_throttling:r07n01/0"]
    well[ill] = True
    folding.see(thermal_throttling=Verdict(well=well))
    assert folding.ids() == []
    folding.see(*hot("r07n01/0"), looks=LONG)
    folding.see(thermal_throttling=Verdict(well=well))
    assert folding.ids() == ["thermal_throttling:r07n01/0"], "it comes and goes"


def test_an_event_stays_as_long_as_it_is_told_of_and_a_minute(folding: Folding) -> None:
    xid = candidate("gpu_fault", gpus=("r07n01/0",), is_immediate=True)
    folding.see(xid)
    folding.see(looks=int(DWELL_S / POLL) - 1)
    assert folding.ids() == ["gpu_fault:r07n01/0"]
    folding.see()
    assert folding.ids() == []


def test_a_silence_is_over_with_the_first_word_and_later_where_it_comes_again(folding: Folding) -> None:
    silent = candidate("telemetry_gap", nodes=("r07n01",), is_immediate=True)
    folding.see(silent, looks=10)
    assert folding.ids() == ["telemetry_gap:r07n01"]
    folding.see()
    assert folding.ids() == []
    folding.see(silent)
    folding.see()
    assert folding.ids() == ["telemetry_gap:r07n01"]


def test_a_detector_that_fails_leaves_what_was_open_as_it_was(folding: Folding) -> None:
    folding.see(*hot("r07n01/0"), looks=2)
    folding.see(looks=100, failed=("thermal_throttling",))
    assert folding.ids() == ["thermal_throttling:r07n01/0"]


def test_what_comes_back_within_minutes_is_the_same_and_is_kept_longer(folding: Folding) -> None:
    folding.see(*hot("r07n01/0"), looks=2)
    opened = folding.one.opened_at
    folding.see(looks=24)
    assert folding.ids() == []
    assert folding.last.cleared
    folding.see(*hot("r07n01/0"), looks=2)
    assert (folding.one.flaps, folding.last.cleared) == (1, ())
    assert folding.one.opened_at > opened
    folding.see(looks=40)
    assert folding.ids() == ["thermal_throttling:r07n01/0"]


def test_what_comes_back_later_is_another(folding: Folding) -> None:
    folding.see(*hot("r07n01/0"), looks=2)
    folding.see(looks=int((FLAP_S + 200) / POLL))
    folding.see(*hot("r07n01/0"), looks=2)
    assert folding.one.flaps == 0
    assert len(folding.last.cleared) == 1


def test_since_never_moves_later_while_it_stands(folding: Folding) -> None:
    folding.see(*hot("r07n01/0", since=AT - 300), looks=2)
    folding.see(*hot("r07n01/0", since=AT - 20), looks=5)
    assert folding.one.since == AT - 300


def test_worse_is_told_and_not_every_wavering(folding: Folding) -> None:
    (before,) = folding.see(*hot("r07n01/0"), looks=2).findings
    assert before.worsened_at is None
    folding.see(*hot("r07n01/0", severity=Severity.CRITICAL, loss=0.4))
    worse = folding.at
    assert folding.one.worsened_at == worse
    for _ in range(3):
        folding.see(*hot("r07n01/0", loss=0.28))
        assert folding.one.severity is Severity.CRITICAL
        folding.see(*hot("r07n01/0", severity=Severity.CRITICAL, loss=0.4))
    assert folding.one.worsened_at == worse


def test_a_job_has_two_minutes_to_warm_up(folding: Folding) -> None:
    job = JOB_AT["r07n01/0"]
    folding.snapshot = replace(
        QUIET, jobs=tuple(replace(j, since=AT - 5) if j is job else j for j in QUIET.jobs)
    )
    folding.see(candidate("straggler", gpus=("r07n01/0",)), looks=10)
    assert folding.ids() == []
    folding.see(candidate("gpu_fault", gpus=("r07n01/1",), is_immediate=True))
    assert folding.ids() == ["gpu_fault:r07n01/1"]
    folding.see(candidate("straggler", gpus=("r07n02/0",)), looks=30)
    assert folding.ids() == ["straggler:r07n02/0"]


@pytest.mark.parametrize(("poll", "looks"), [(5.0, 10), (15.0, 4), (30.0, 2)])
def test_what_is_mostly_a_consequence_is_waited_for_in_whole_polls(poll: float, looks: int) -> None:
    folding = Folding(poll=poll)
    folding.see(candidate("straggler", gpus=("r07n01/0",)), looks=looks - 1)
    assert folding.ids() == []
    folding.see(candidate("straggler", gpus=("r07n01/0",)))
    assert folding.ids() == ["straggler:r07n01/0"]


def test_a_low_clock_has_one_cause_whatever_the_others_lose_by_it(folding: Folding) -> None:
    slow = candidate("straggler", gpus=("r07n01/0",), variant="clock", loss=0.6)
    folding.see(*hot("r07n01/0", loss=0.1), slow, looks=LONG)
    assert folding.ids() == ["thermal_throttling:r07n01/0"]


def test_what_is_still_warming_up_is_named(folding: Folding) -> None:
    warming = Warming("thermal_throttling", 3, 8)
    folding.see(thermal_throttling=Verdict(warming=warming))
    assert folding.last.warming == (warming,)


def test_what_is_judged_by_a_window_has_none_yet_in_the_first_minute(folding: Folding) -> None:
    window = Window(History(), QUIET, groups_of(QUIET.layout), POLL, since=QUIET.at - 20.0)
    verdicts = {"straggler": Verdict(), "gpu_fault": Verdict(), "power_capping": Verdict()}
    told = folding.triage.fold(window, verdicts).warming
    assert told == (Warming("straggler", 20.0, 60.0, "s"), Warming("power_capping", 20.0, 60.0, "s"))
    older = replace(window, since=QUIET.at - 60.0)
    assert folding.triage.fold(older, verdicts).warming == ()


def test_our_clock_was_set(folding: Folding) -> None:
    folding.see(*hot("r07n01/0", since=AT - 300), looks=2)
    folding.triage.shift(3600.0)
    folding.snapshot = replace(QUIET, at=AT + 3600)
    folding.at += 3600.0
    folding.see(*hot("r07n01/0", since=AT + 3300))
    assert folding.one.since == AT + 3300


# --- causes before consequences ---------------------------------------------------------------------------------------


def peers_of(gpu: str) -> list[str]:
    return [
        QUIET.layout.gpus[number].key for number in JOB_AT[gpu].gpus if QUIET.layout.gpus[number].key != gpu
    ]


def test_one_hot_gpu_and_its_waiting_peers_are_one_finding(folding: Folding) -> None:
    job = JOB_AT["r07n01/0"]
    stall = candidate(
        "communication_stall", jobs=(job.id,), gpus=peers_of("r07n01/0"), nodes=job.nodes, loss=0.25
    )
    slow = candidate("straggler", gpus=("r07n01/0",), loss=0.2)
    folding.see(*hot("r07n01/0"), stall, slow, looks=LONG)
    finding = folding.one
    assert finding.id == "thermal_throttling:r07n01/0"
    assert set(finding.symptoms) == {"communication_stall", "straggler"}
    assert {rejected.detector for rejected in finding.rejected} == {"communication_stall", "straggler"}
    assert set(finding.victims.nodes) | {"r07n01"} == set(job.nodes)
    assert len(finding.victims.gpus) == 7


def test_a_consequence_stronger_than_its_cause_stays(folding: Folding) -> None:
    job = JOB_AT["r07n01/0"]
    hang = candidate(
        "communication_stall", jobs=(job.id,), nodes=job.nodes, loss=1.0, severity=Severity.CRITICAL
    )
    folding.see(*hot("r07n01/0"), hang, looks=LONG)
    assert set(folding.ids()) == {"thermal_throttling:r07n01/0", f"communication_stall:{job.bare_id}"}


def test_what_is_mostly_a_consequence_has_to_hold_longer(folding: Folding) -> None:
    slow = candidate("straggler", gpus=("r07n01/0",))
    folding.see(slow, looks=6)
    assert folding.ids() == []
    folding.see(slow, looks=6)
    assert folding.ids() == ["straggler:r07n01/0"]


def test_a_job_that_stands_still_has_no_slow_rank(folding: Folding) -> None:
    job = JOB_AT["r07n01/0"]
    slow = candidate("straggler", gpus=("r07n01/0",), loss=0.7)
    hang = candidate("communication_stall", gpus=("r07n01/0",), jobs=(job.id,), loss=1.0)
    folding.see(slow, hang, looks=LONG)
    assert folding.ids() == ["communication_stall:r07n01/0"]
    folding.see(slow, replace(hang, loss=0.6), looks=LONG)
    assert folding.ids() == ["straggler:r07n01/0"]


def test_a_symptom_that_is_not_seen_any_more_is_over_with_its_cause(folding: Folding) -> None:
    job = JOB_AT["r07n01/0"]
    hang = candidate("communication_stall", gpus=("r07n01/0",), jobs=(job.id,), loss=1.0)
    folding.see(hang, candidate("straggler", gpus=("r07n01/0",), loss=0.7), looks=LONG)
    folding.see(candidate("straggler", gpus=("r07n01/0",), loss=0.7), looks=LONG)
    assert folding.ids() == ["communication_stall:r07n01/0"]
    folding.see(looks=LONG)
    assert folding.ids() == []


def test_a_fault_explains_whatever_its_job_suffers(folding: Folding) -> None:
    job = JOB_AT["r07n01/0"]
    fault = candidate("gpu_fault", gpus=("r07n01/0",), is_immediate=True, loss=0.1)
    hang = candidate("communication_stall", jobs=(job.id,), nodes=job.nodes, loss=1.0)
    folding.see(fault, hang, looks=2)
    assert folding.ids() == ["gpu_fault:r07n01/0"]


def test_what_began_long_before_is_no_consequence(folding: Folding) -> None:
    job = JOB_AT["r07n01/0"]
    starving = candidate("straggler", jobs=(job.id,), gpus=("r07n01/0",), since=AT - 3000)
    folding.see(*hot("r07n01/0", since=AT - 60), starving, looks=LONG)
    assert len(folding.ids()) == 2


def test_another_jobs_trouble_is_not_explained(folding: Folding) -> None:
    other = next(job for job in QUIET.jobs if job is not JOB_AT["r07n01/0"])
    stall = candidate("communication_stall", jobs=(other.id,), nodes=other.nodes, loss=0.2)
    folding.see(*hot("r07n01/0"), stall, looks=LONG)
    assert len(folding.ids()) == 2


def test_of_two_causes_that_could_explain_each_other_one_stands(folding: Folding) -> None:
    gap = candidate("telemetry_gap", nodes=("r07n01",), loss=0.0)
    lost = [candidate("gpu_fault", gpus=(f"r07n01/{slot}",), variant="lost") for slot in range(8)]
    folding.see(gap, *lost, looks=2)
    assert folding.ids() == ["telemetry_gap:r07n01"]
    assert folding.one.symptoms == ("gpu_fault",)


def test_a_finding_that_turns_out_a_symptom_is_superseded_not_cleared(folding: Folding) -> None:
    slow = candidate("straggler", gpus=("r07n01/0",), loss=0.2)
    folding.see(slow, looks=LONG)
    assert folding.ids() == ["straggler:r07n01/0"]
    folding.see(slow, *hot("r07n01/0"), looks=2)
    assert folding.one.supersedes == ("straggler:r07n01/0",)
    assert folding.last.cleared == ()


# --- one finding a cause --------------------------------------------------------------------------------------------


def rack(name: str, but: Iterable[str] = ()) -> list[str]:
    return [gpu.key for gpu in QUIET.layout.gpus if gpu.key.startswith(f"{name}n") and gpu.key not in but]


def test_30_of_32_gpus_of_a_rack_are_one_finding(folding: Folding) -> None:
    gpus = rack("r07", but=("r07n02/5", "r07n04/1"))
    folding.see(*hot(*gpus), looks=2)
    finding = folding.one
    assert finding.id == "thermal_throttling:r07"
    assert finding.scope.gpus == tuple(gpus)
    assert finding.scope.nodes == ("r07n01", "r07n02", "r07n03", "r07n04")
    assert finding.scope.racks == ("r07",)
    assert finding.title == "30 GPUs of things"
    assert "in r07:" in finding.cause


def test_two_unrelated_hot_gpus_are_two_findings(folding: Folding) -> None:
    folding.see(*hot("r07n01/0", "r07n03/4"), looks=2)
    assert folding.ids() == ["thermal_throttling:r07n01/0", "thermal_throttling:r07n03/4"]


def test_most_of_a_node_is_the_nodes(folding: Folding) -> None:
    folding.see(*hot(*[f"r07n01/{slot}" for slot in range(6)]), looks=2)
    assert folding.ids() == ["thermal_throttling:r07n01"]


def test_gpus_that_do_not_work_are_not_exposed(folding: Folding) -> None:
    """Ten of a rack's twelve busy GPUs: the others cannot be hot."""
    busy = [f"r07n{node:02d}/{slot}" for node in (1, 2, 3) for slot in range(4)]
    util = {key: 0.98 if key in busy else 0.0 for key in rack("r07")}
    folding.snapshot = with_values(QUIET, "gpu.util", util)
    folding.see(*hot(*busy[:10]), looks=2)
    assert folding.ids() == ["thermal_throttling:r07"]


def test_air_that_is_too_warm_is_felt_on_most_nodes_at_one_time(folding: Folding) -> None:
    gpus = [f"r07n{node:02d}/{slot}" for node in (1, 2, 4) for slot in (0, 4, 6)]
    folding.see(*hot(*gpus), looks=2)
    assert folding.ids() == ["thermal_throttling:r07"]


def test_racks_together_are_the_rooms(folding: Folding) -> None:
    small = Folding(replace(make_snapshot(4, 4, 8, faults=Faults()), events=()))
    small.see(*hot(*[gpu.key for gpu in small.snapshot.layout.gpus if gpu.key < "r04"]), looks=2)
    assert small.ids() == ["thermal_throttling:room"]


def test_a_regrouped_finding_keeps_its_beginning_and_says_what_it_was_called(folding: Folding) -> None:
    folding.see(*hot("r07n01/0", since=AT - 400), looks=2)
    folding.see(*hot("r07n01/0", since=AT - 400), *hot(*rack("r07", but=("r07n01/0",))), looks=2)
    finding = folding.one
    assert (finding.id, finding.since) == ("thermal_throttling:r07", AT - 400)
    assert finding.supersedes == ("thermal_throttling:r07n01/0",)
    assert folding.last.cleared == ()


def test_a_group_does_not_fall_apart_at_its_limit(folding: Folding) -> None:
    gpus = rack("r07")
    folding.see(*hot(*gpus), looks=2)
    folding.see(*hot(*gpus[:12]), looks=60)
    assert folding.ids() == ["thermal_throttling:r07"]
    folding.see(*hot(*gpus[:2]), looks=60)
    assert folding.ids() == ["thermal_throttling:r07n01/0", "thermal_throttling:r07n01/1"]


def test_ids_are_the_same_in_every_process(folding: Folding) -> None:
    gpus = rack("r07")
    folding.see(*hot(*gpus, "r01n01/3"), looks=2)
    other = Folding()
    other.see(*reversed(hot(*gpus, "r01n01/3")), looks=7)
    assert folding.ids() == other.ids()


def test_jobs_go_by_their_bare_ids_and_users_by_several(folding: Folding) -> None:
    mine = [job for job in QUIET.jobs if job.user == "kim"]
    idle = [candidate("idle_allocation", jobs=(job.id,), nodes=job.nodes) for job in mine]
    folding.see(idle[0], looks=2)
    assert folding.ids() == [f"idle_allocation:{mine[0].bare_id}"]


def test_jobs_that_wait_for_one_file_system_are_one_finding(folding: Folding) -> None:
    jobs = QUIET.jobs[:3]
    folding.see(
        *[candidate("checkpoint_stall", jobs=(job.id,), nodes=job.nodes, group="nfs:/data") for job in jobs],
        looks=2,
    )
    assert folding.ids() == ["checkpoint_stall:nfs:/data"]
    assert folding.one.scope.jobs == tuple(job.id for job in jobs)


def served() -> Snapshot:
    """Six replicas of chat-70b, two GPUs each, on rack r09 whose jobs are gone."""
    layout = QUIET.layout
    nodes = [n for n, node in enumerate(layout.nodes) if node.key.startswith("r09")]
    servers = tuple(
        Server(
            f"{layout.nodes[nodes[n % 4]].key}/s{n}:8000",
            nodes[n % 4],
            f"s{n}:8000",
            gpus=tuple(layout.nodes[nodes[n % 4]].gpus)[2 * (n // 4) : 2 * (n // 4) + 2],
            service="chat-70b",
        )
        for n in range(6)
    )
    jobs = tuple(job for job in QUIET.jobs if not any(node.startswith("r09") for node in job.nodes))
    gpu_job = np.full(len(layout.gpus), -1, dtype=np.int32)
    for number, job in enumerate(jobs):
        gpu_job[list(job.gpus)] = number
    return replace(QUIET, layout=replace(layout, servers=servers), jobs=jobs, gpu_job=gpu_job)


def test_most_replicas_are_the_services() -> None:
    folding = Folding(served())
    keys = [server.key for server in folding.snapshot.layout.servers]
    folding.see(*[candidate("kv_cache_pressure", servers=(key,), loss=0.3) for key in keys[:1]], looks=2)
    assert folding.ids() == ["kv_cache_pressure:s0:8000"]
    folding.see(
        *[candidate("kv_cache_pressure", servers=(key,), loss=0.3) for key in keys[:4]],
        *[candidate("request_queueing", servers=(key,), loss=0.6) for key in keys],
        looks=2,
    )
    assert folding.ids() == ["kv_cache_pressure:chat-70b"]
    assert folding.one.loss.gpu_hours_per_hour == pytest.approx(4 * 2 * 0.3)


def test_a_replica_that_lacks_cache_does_not_explain_the_queue_of_another() -> None:
    folding = Folding(served())
    keys = [server.key for server in folding.snapshot.layout.servers]
    folding.see(
        candidate("kv_cache_pressure", servers=(keys[0],), loss=0.5),
        candidate("request_queueing", servers=(keys[1],), loss=0.5),
        looks=4,
    )
    assert set(folding.ids()) == {"kv_cache_pressure:s0:8000", "request_queueing:s1:8000"}


def test_a_server_whose_gpus_nobody_knows_loses_a_share_and_no_hours() -> None:
    world = served()
    servers = tuple(replace(server, gpus=()) for server in world.layout.servers)
    folding = Folding(replace(world, layout=replace(world.layout, servers=servers)))
    folding.see(candidate("request_queueing", servers=(servers[0].key,), loss=0.6), looks=6)
    assert folding.one.loss.fraction == pytest.approx(0.6)
    assert folding.one.loss.gpu_hours_per_hour == 0.0


# --- what it costs --------------------------------------------------------------------------------------------------


def test_a_lock_step_jobs_loss_is_that_of_its_slowest_part(folding: Folding) -> None:
    job = JOB_AT["r07n01/0"]
    folding.see(*hot("r07n01/0", loss=0.2), *hot("r07n01/5", loss=0.3), looks=2)
    for finding, loss in zip(folding.last.findings, (0.3, 0.2), strict=True):
        assert finding.loss.fraction == pytest.approx(loss)
        assert finding.loss.gpu_hours_per_hour == pytest.approx(loss * len(job.gpus))
    useful = folding.last.usefulness
    assert useful is not None
    assert useful.lost == pytest.approx(0.3 * len(job.gpus))
    assert useful.allocated == sum(len(one.gpus) for one in QUIET.jobs)
    (cause,) = useful.by_cause
    assert cause[0] == "thermal_throttling"
    assert cause[1] == pytest.approx(0.3 * len(job.gpus))


def test_without_jobs_gpus_at_work_are_what_is_in_use() -> None:
    nobodys = replace(make_snapshot(4, 4, 8, faults=Faults(), jobs_known=False), events=())
    folding = Folding(with_values(nobodys, "gpu.util", {"r02n01/0": 0.9, "r02n01/1": 0.8}))
    folding.see(*hot("r02n01/0", loss=0.5), looks=2)
    assert folding.one.loss.gpu_hours_per_hour == pytest.approx(0.5)
    useful = folding.last.usefulness
    assert useful is not None
    assert (useful.allocated, useful.useful) == (2, 0.75)


def test_findings_come_by_urgency_then_cost(folding: Folding) -> None:
    folding.see(*hot("r07n01/0", loss=0.1), *hot("r01n01/3", loss=0.4), looks=2)
    losses = [finding.loss.gpu_hours_per_hour for finding in folding.last.findings]
    assert losses == sorted(losses, reverse=True)


# --- what is told ---------------------------------------------------------------------------------------------------


def test_names_are_inert_and_commands_take_only_plain_ones(folding: Folding) -> None:
    job = JOB_AT["r07n01/0"]
    evil = "4711\x1b]52;c;aGk=\x07; rm -rf /"
    folding.snapshot = replace(
        QUIET, jobs=tuple(replace(j, display=evil, user="a\nb\u202e") if j is job else j for j in QUIET.jobs)
    )
    folding.see(*hot("r07n01/0"), looks=2)
    finding = folding.one
    assert [c.argv for c in finding.confirm] == [("nvidia-smi", "-i", "0")]
    assert finding.confirm[0].on == "r07n01"
    assert all(text.isprintable() for text in (finding.title, finding.cause, finding.remedy))
    assert finding.cause.endswith("-"), "a word that nobody has is a dash"


def event(at: float, entity: str, kind: str, detail: str) -> EventView:
    return EventView(at, entity, kind, detail)


def test_what_changed_just_before(folding: Folding) -> None:
    events = (
        event(AT - 4000, "r07n01", "driver", "long ago"),
        event(AT - 400, "r07n01", "driver", "550 to 560"),
        event(AT - 300, "r07n01/4", "xid", "31"),
        event(AT - 200, "r08n01", "driver", "elsewhere"),
        event(AT - 100, "r07n01", "alert", "Hot"),
        event(AT - 10, "r07n01", "reboot", "after it began"),
    )
    folding.snapshot = replace(QUIET, events=events)
    folding.see(*hot("r07n01/0", since=AT - 120), looks=2)
    assert [line.split(" ", 1)[1] for line in folding.one.changed] == [
        "r07n01 new driver: 550 to 560",
        "r07n01/4 XID: 31",
    ]


def test_alerts_that_a_finding_explains_and_those_that_none_does(folding: Folding) -> None:
    events = (
        event(AT - 90, "r07n01", "alert", "GpuTempHigh critical"),
        event(AT - 80, "r07n01", "alert", "DiskFull warning: mountpoint=/data"),
        event(AT - 70, "", "alert", "DiskFull warning: instance=st01"),
        event(AT - 60, "r07n02", "alert", "GpuTempHigh critical"),
        event(AT - 50, "r07n02", "alert_over", "GpuTempHigh critical"),
    )
    folding.snapshot = replace(QUIET, events=events)
    folding.see(*hot("r07n01/0"), looks=2)
    assert folding.one.explains == ("GpuTempHigh r07n01",)
    assert folding.last.unexplained == ("DiskFull r07n01", "DiskFull instance=st01")


def test_doubts_are_told_when_they_last_and_nothing_explains_them(folding: Folding) -> None:
    other = next(job for job in QUIET.jobs if job is not JOB_AT["r07n01/0"])
    doubts = Verdict(
        undecided=(
            Undecided("straggler", Scope(jobs=(JOB_AT["r07n01/0"].id,)), "no clocks"),
            Undecided("data_loader_starvation", Scope(jobs=(other.id,)), "no host metrics"),
        )
    )
    first = folding.see(*hot("r07n01/0"), other=doubts)
    assert first.undecided == ()
    second = folding.see(*hot("r07n01/0"), other=doubts)
    assert [doubt.why for doubt in second.undecided] == ["no host metrics"]


# --- what is odd ----------------------------------------------------------------------------------------------------


def odd() -> Iterator[list[Candidate]]:
    yield hot("r99n01/0", "r07n01/99")
    yield [candidate("straggler", jobs=("slurm:1",), gpus=("r07n01/0",))]
    yield [candidate("gpu_fault", nodes=("nowhere",), loss=float("nan"))]
    yield [candidate("telemetry_gap")]
    yield [candidate("interconnect_degraded", ports=("r07n01/mlx5_0/1",))]
    yield hot("r07n01/0", since=AT + 1e6)
    yield hot("r07n01/0", "r07n01/0", loss=7.0)


@pytest.mark.parametrize("found", list(odd()))
def test_entities_that_are_not_there_break_nothing(found: list[Candidate], folding: Folding) -> None:
    folding.see(*found, looks=3)
    folding.see(looks=100)
    assert folding.ids() == []


def test_a_job_that_ended_has_no_findings(folding: Folding) -> None:
    job = JOB_AT["r07n01/0"]
    folding.see(candidate("communication_stall", jobs=(job.id,), nodes=job.nodes), looks=2)
    folding.snapshot = replace(QUIET, jobs=(), gpu_job=np.full_like(QUIET.gpu_job, -1))
    folding.see()
    assert folding.ids() == []


def test_what_a_job_brought_to_its_boards_is_over_when_others_hold_them(folding: Folding) -> None:
    job = JOB_AT["r07n01/0"]
    found = (candidate("memory_exhaustion", gpus=("r07n01/0",)), *hot("r07n01/0"))
    folding.see(*found, looks=2)
    jobs = tuple(replace(one, since=folding.at + 1.0) if one is job else one for one in QUIET.jobs)
    folding.snapshot = replace(QUIET, jobs=jobs)
    folding.see()
    assert folding.ids() == ["thermal_throttling:r07n01/0"]


def test_thousands_of_hot_gpus_are_folded_quickly() -> None:
    folding = Folding(replace(make_snapshot(32, 8, 8, faults=Faults()), events=()))
    gpus = [gpu.key for gpu in folding.snapshot.layout.gpus]
    folding.see(*hot(*gpus), *[candidate("straggler", gpus=(gpu,)) for gpu in gpus], looks=2)
    assert folding.ids() == ["thermal_throttling:room"]
