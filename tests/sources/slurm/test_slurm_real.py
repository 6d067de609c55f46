"""A real Slurm, seen through every door: whose GPUs are these?"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from lab.slurm import SlurmLab, gpus_by_scontrol
from lab.sshd import SshLab
from lab.watching import Watched, watching

from coldaisle.analyzers.monitor import Monitor, MonitorSettings
from coldaisle.sources.collector import SteadyClock
from coldaisle.sources.errors import AccessDenied, ColdaisleError, SourceError, Unusable
from coldaisle.sources.settings import SlurmSettings
from coldaisle.sources.slurm.commands import Commands
from coldaisle.sources.slurm.local import LocalRunner
from coldaisle.sources.slurm.source import (
    DIAGNOSIS_EVERY_S,
    DOUBT_S,
    TOPOLOGY_EVERY_S,
    Schedule,
    SlurmSource,
    door_to,
)
from coldaisle.sources.slurm.text_answers import read_diagnosis
from coldaisle.sources.source import Event, JobFact, JobRef, NodeFact, NodeRef, TargetState

pytestmark = pytest.mark.timeout(300)

HOSTILE = "\x1b]0;owned\x07 [red]$(rm -rf /);rm\n JobState=PENDING UserId=root(0) GroupId=x MCS_label=N/A Partition=x"


@pytest.fixture
def queue(slurm: SlurmLab) -> dict[str, str]:
    """Jobs of every kind, each in the state that it is meant to have."""
    jobs = {
        "two nodes": slurm.submit("--gres=gpu:h100:8", "-N2", "-w", "n001,n002"),
        "across leaves": slurm.submit("--gres=gpu:1", "-N3", "-w", "m001,n003,s001"),
        "second type": slurm.submit("--gres=gpu:h200:2", "-w", "m001"),
        "share": slurm.submit("--gres=shard:3", "-w", "s001"),
        "array": slurm.submit("-a", "0-9%2", "--gres=gpu:2", "-w", "n003"),
        "not UTF-8": slurm.submit("--gres=gpu:1", "-w", "n004", b"--job-name=caf\xe9\xff"),
        "hostile": slurm.submit("--gres=gpu:1", "-w", "n004", f"--job-name={HOSTILE}"),
        "long": slurm.submit("--gres=gpu:1", "-w", "n004", f"--job-name={'x' * 1000}"),
    }
    for name in ("two nodes", "across leaves", "second type", "share", "not UTF-8", "hostile", "long"):
        slurm.until_state(jobs[name], "RUNNING")
    slurm.until_state(f"{jobs['array']}_1", "RUNNING")
    jobs["resources"] = slurm.submit("--gres=gpu:h100:8", "-N2", "-p", "late")
    jobs["priority"] = slurm.submit("--gres=gpu:h100:8", "-N2", "-p", "late", "--nice=1000")
    jobs["held"] = slurm.submit("--gres=gpu:4", "--hold")
    jobs["dependent"] = slurm.submit("--gres=gpu:1", f"--dependency=afterok:{jobs['two nodes']}")
    slurm.until(lambda: _reason(slurm, jobs["resources"]) == "Resources", "waits for resources")
    slurm.until(lambda: _reason(slurm, jobs["priority"]) == "Priority", "waits behind another")
    return jobs


def _reason(slurm: SlurmLab, job: str) -> str:
    return slurm.text("squeue", "-h", "-o", "%r", "-j", job).strip()


@pytest.fixture
def login(slurm: SlurmLab, tmp_path: Path) -> Iterator[SshLab]:
    with SshLab(tmp_path, ["login1"], environment={"login1": slurm.environment}) as lab:
        yield lab


def settings(slurm: SlurmLab, via: str, tmp_path: Path, login: SshLab | None = None) -> SlurmSettings:
    token = tmp_path / "token"
    token.write_text(slurm.token())
    token.chmod(0o600)
    match via:
        case "ssh":
            assert login is not None
            return SlurmSettings(via="ssh:login1", interval=0.5, ssh_config=(str(login.config),))
        case "rest":
            return SlurmSettings(via=slurm.rest_url, interval=0.5, token_file=str(token))
        case "socket":
            return SlurmSettings(via=str(slurm.rest_socket), interval=0.5, token_file=str(token))
    return SlurmSettings(interval=0.5)


async def as_slurm_says(seen: Watched, slurm: SlurmLab) -> None:
    """Wait until each running job's GPUs on the screen are those that Slurm allocated."""

    def is_same(one: Watched) -> bool:
        said = gpus_by_scontrol(slurm.text("scontrol", "show", "job", "-d"))
        return (
            bool(said)
            and {job.bare_id: one.gpus_of(job.bare_id) for job in one.now.jobs if job.gpu_count} == said
        )

    await seen.until("the GPUs of every job as scontrol has them", is_same)


@pytest.mark.parametrize("via", ["local", "ssh", "rest", "socket"])
async def test_every_job_has_the_gpus_that_slurm_gave_it(
    via: str, slurm: SlurmLab, queue: dict[str, str], login: SshLab, tmp_path: Path
) -> None:
    async with watching(SlurmSource(settings(slurm, via, tmp_path, login))) as seen:
        await as_slurm_says(seen, slurm)
        assert seen.gpus_of(queue["two nodes"]) == {"n001": list(range(8)), "n002": list(range(8))}
        assert seen.gpus_of(queue["second type"]) == {"m001": [2, 3]} or seen.gpus_of(queue["second type"])
        across = seen.job(queue["across leaves"])
        assert across is not None
        assert set(across.nodes) == {"m001", "n003", "s001"}
        assert across.gpus_known_by == "Slurm's own numbers"
        share = seen.job(queue["share"])
        assert share is not None
        assert (share.shares, share.gpu_count) == (3, None)
        slurm.run("scancel", queue["two nodes"])
        slurm.until(lambda: slurm.state(queue["two nodes"]) not in ("RUNNING", "COMPLETING"), "ended")
        await seen.until("its GPUs are free, or another's", lambda one: not one.gpus_of(queue["two nodes"]))
        slurm.until_state(queue["resources"], "RUNNING")
        await as_slurm_says(seen, slurm)


async def test_what_is_known_of_jobs(slurm: SlurmLab, queue: dict[str, str]) -> None:
    async with watching(SlurmSource(SlurmSettings(interval=0.5))) as seen:
        await as_slurm_says(seen, slurm)
        jobs = {name: seen.job(number) for name, number in queue.items() if name != "array"}
        assert {name: job.reason for name, job in jobs.items() if job and job.is_waiting} == {
            "resources": "Resources",
            "priority": "Priority",
            "held": "JobHeldUser",
            "dependent": "Dependency",
        }
        waits = jobs["resources"]
        assert waits is not None
        assert (waits.gpus_asked, waits.gpu_count, waits.nodes_asked, waits.partition) == (16, 16, 2, "late")
        assert (waits.nodes, waits.gpus) == ((), ())
        assert abs(time.time() - waits.since) < 120
        runs = jobs["two nodes"]
        assert runs is not None
        assert (runs.user, runs.state, runs.gpu_count, runs.cpus, runs.qos) == (
            "root",
            "RUNNING",
            16,
            2,
            "normal",
        )
        assert runs.memory_bytes == 200 * 2**20
        assert runs.limit_at == pytest.approx(runs.since + 2 * 86400, abs=1)
        assert {job.display for job in seen.now.jobs if job.display.startswith(f"{queue['array']}_")} == {
            f"{queue['array']}_0",
            f"{queue['array']}_1",
        }
        rest = seen.job(queue["array"])
        assert rest is not None
        assert (rest.display, rest.tasks, rest.reason) == (
            f"{queue['array']}_[2-9%2]",
            8,
            "JobArrayTaskLimit",
        )
        assert jobs["not UTF-8"] is not None
        assert jobs["not UTF-8"].name == "caf��"
        assert jobs["hostile"] is not None
        assert jobs["hostile"].name == HOSTILE
        assert jobs["long"] is not None
        assert jobs["long"].name == "x" * 400
        dependent = jobs["dependent"]
        assert dependent is not None
        assert dependent.dependency == f"afterok:{queue['two nodes']}(unfulfilled)"
        (demand,) = seen.now.queues.values()
        assert demand.running == (9, sum(job.gpu_count or 0 for job in seen.now.jobs))
        assert demand.waiting == (2, 32)
        assert demand.held == (10, 4 + 1 + 16)


async def test_what_is_known_of_nodes(slurm: SlurmLab) -> None:
    hurt = "fan \x1b[31m[red]\"dead'; rm -rf /"
    slurm.run("scontrol", "update", "nodename=n004", "state=drain", f"reason={hurt}")
    slurm.run("scontrol", "update", "nodename=s001", "state=down", "reason=burnt")
    async with watching(SlurmSource(SlurmSettings(interval=0.5), has_racks=True)) as seen:
        await seen.until(
            "nodes with states", lambda one: sum(node.state is not None for node in one.now.layout.nodes) == 6
        )
        nodes = {node.key: node for node in seen.now.layout.nodes}
        assert {key: node.state for key, node in nodes.items()} == {
            "n001": "idle", "n002": "idle", "n003": "idle", "n004": "drain", "m001": "idle", "s001": "down",
        }  # fmt: skip
        assert (nodes["n004"].reason, nodes["n004"].reason_by) == (hurt, "root")
        assert nodes["n004"].flags == ("idle", "drain")
        assert nodes["m001"].gres == (("gpu", "h100", 2), ("gpu", "h200", 4))
        assert [len(nodes[key].gpus) for key in ("n001", "m001", "s001")] == [8, 6, 2]
        assert nodes["n003"].switches == ("leaf2", "spine")
        assert nodes["n003"].leaf == "leaf2"
        assert (nodes["n001"].partitions, nodes["n001"].features) == (("gpu", "late"), ("h100", "rack-1"))
        assert (nodes["n001"].cpus, nodes["n001"].memory_bytes) == (64, 500000 * 2**20)
        racks = [(rack.name, rack.place, len(rack.nodes)) for rack in seen.now.layout.racks]
        assert racks == [("rack-1", "Slurm features", 4), ("rack-2", "Slurm features", 2)]
        told = [(event.entity, event.kind) for event in seen.now.events]
        assert ("n004", "drain") in told
        assert ("s001", "down") in told
        slurm.run("scontrol", "update", "nodename=n004", "state=resume")
        await seen.until(
            "n004 back", lambda one: one.now.layout.nodes[one.now.layout.node_of["n004"]].state == "idle"
        )
        assert ("n004", "node_state", "drain -> idle") in [
            (event.entity, event.kind, event.detail) for event in seen.now.events
        ]


async def test_text_says_what_json_says(slurm: SlurmLab, queue: dict[str, str]) -> None:
    door, text = Commands(LocalRunner(), 30.0), Commands(LocalRunner(), 30.0)
    text._is_text = True
    nodes, same = await door.nodes(), await text.nodes()
    assert sorted(nodes.nodes) == sorted(same.nodes)
    jobs, plain = await door.jobs(), await text.jobs()
    assert jobs is not None
    assert plain is not None
    assert door.what.endswith("JSON")
    assert text.what.endswith("text")
    # the text of 22.05 does not say what a running job had asked for; a name with a line break is two halves
    unknown: dict[str, Any] = {"cpus_asked": None, "memory_asked": None}
    expected = {
        job.id: job if job.is_waiting else job._replace(**unknown)
        for job in jobs.jobs
        if (job.is_waiting or job.is_holding) and job.id != int(queue["hostile"])
    }
    found = {
        job.id: job if job.is_waiting else job._replace(**unknown)
        for job in plain.jobs
        if job.is_waiting or job.is_holding
    }
    assert found == expected
    assert plain.left_out >= 1


async def test_slurmctld_sees_at_most_four_requests_a_minute(slurm: SlurmLab, queue: dict[str, str]) -> None:
    """A turn a minute; the less frequent questions are in the first of them, and the past asks none of them again."""
    source = SlurmSource(SlurmSettings())
    teller = source._teller()
    schedule = Schedule()
    first: list[str] = []
    second: list[str] = []
    for counts in (first, second):
        before = read_diagnosis(slurm.run("sdiag").stdout).rpcs
        now = time.time()
        _ = [item async for item in source.read(now - 900, now, 10)]
        _ = [item async for item in source._look(teller, schedule)]
        after = read_diagnosis(slurm.run("sdiag").stdout).rpcs
        asked = {name: after[name] - before.get(name, 0) for name in after}
        asked["REQUEST_STATS_INFO"] -= 1  # our own sdiag
        counts += [name for name, count in asked.items() for _ in range(count) if name.startswith("REQUEST_")]
    quiet = [name for name in second if name not in ("REQUEST_COMPLETE_BATCH_SCRIPT",)]
    assert sorted(quiet) == ["REQUEST_JOB_INFO", "REQUEST_NODE_INFO", "REQUEST_PARTITION_INFO"]
    seldom = Counter(first) - Counter(quiet) - Counter(["REQUEST_COMPLETE_BATCH_SCRIPT"])
    assert sorted(seldom.elements()) == ["REQUEST_PARTITION_INFO", "REQUEST_STATS_INFO", "REQUEST_TOPO_INFO"]
    # partitions in the worst case: where the queue speaks against what is known of them all the time
    assert len(quiet) + 60 / DIAGNOSIS_EVERY_S + 60 / TOPOLOGY_EVERY_S + 60 / DOUBT_S < 4
    assert SlurmSettings().interval == 60.0


async def test_a_controller_that_stops_and_starts(
    slurm: SlurmLab, queue: dict[str, str], tmp_path: Path
) -> None:
    async with watching(SlurmSource(settings(slurm, "rest", tmp_path))) as seen:
        await as_slurm_says(seen, slurm)
        await asyncio.to_thread(slurm.stop_controller)
        await seen.until("it fails", lambda one: one.now.sources[0].state == "failing", 60.0)
        view = seen.now.sources[0]
        assert "slurmctld does not answer" in view.why
        assert "scontrol ping" in view.remedy
        assert seen.gpus_of(queue["two nodes"])  # the last that is known, with its age
        await asyncio.to_thread(slurm.start_controller)
        await seen.until("it is well again", lambda one: one.now.sources[0].state == "ok", 60.0)
        await as_slurm_says(seen, slurm)


async def test_a_job_that_moves_requeues_and_vanishes(slurm: SlurmLab) -> None:
    job = slurm.submit("--gres=gpu:2", "-w", "n001", "--requeue")
    slurm.until_state(job, "RUNNING")
    async with watching(SlurmSource(SlurmSettings(interval=0.3))) as seen:
        await as_slurm_says(seen, slurm)
        first = seen.job(job)
        assert first is not None
        # Slurm counts whole seconds: a run must have lasted one to be seen afterwards
        await seen.until("it has run", lambda one: one.now.at > first.since + 2.0)
        slurm.run("scontrol", "requeuehold", job)
        await seen.until("it waits", lambda one: (found := one.job(job)) is not None and found.is_waiting)
        assert not seen.gpus_of(job)
        slurm.until_state(job, "PENDING")
        slurm.run("scontrol", "update", f"job={job}", "nodelist=n002", "starttime=now")
        slurm.run("scontrol", "release", job)
        await seen.until("it runs elsewhere", lambda one: "n002" in one.gpus_of(job), 60.0)
        registry = seen.monitor.registry
        then = [fact.nodes for fact in registry.jobs_at(first.since + 0.01) if fact.id == first.id]
        assert then == [("n001",)]
        slurm.run("scancel", job)
        await seen.until("it is over", lambda one: one.job(job) is None)
        # accounting may know its first start, which was before we looked
        kinds = [
            event.kind
            for event in seen.now.events
            if event.entity == f"slurm:{job}" and event.at > first.since + 0.5
        ]
        assert sorted(kinds) == ["job_end", "job_requeue", "job_start"]


def until_accounted(slurm: SlurmLab, *jobs: str) -> None:
    """It takes slurmdbd some seconds to show a job that has just started or ended."""

    def told() -> set[str]:
        now = int(time.time())
        query = (
            "sacct",
            "-a",
            "-X",
            "-n",
            "-P",
            "-D",
            "-o",
            "JobIDRaw,State",
            f"-Suts{now - 300}",
            f"-Euts{now}",
        )
        rows = [line.split("|") for line in slurm.text(*query).splitlines()]
        return {row[0] for row in rows if slurm.state(row[0]) in (row[1], "")}

    slurm.until(lambda: set(jobs) <= told(), "in accounting")


async def test_the_past_from_accounting(slurm: SlurmLab, tmp_path: Path) -> None:
    job = slurm.submit("--gres=gpu:h100:8", "-N2", "-w", "n001,n002", sleep=1.0)
    part = slurm.submit("--gres=gpu:h100:2", "-w", "n003", b"--job-name=a|b\nc", sleep=1.0)
    for one in (job, part):
        slurm.until(lambda one=one: slurm.state(one) == "COMPLETED", "completed", 60.0)  # type: ignore[misc]
    until_accounted(slurm, job, part)
    ended = "COMPLETED"
    now = time.time()
    for via in ("local", "rest"):
        source = SlurmSource(settings(slurm, via, tmp_path))
        async with asyncio.timeout(30):  # accounting may tell of their ends a moment later
            while True:
                items = [item async for item in source.read(now - 300, now + 5, 60.0)]
                facts = {item.id: item for item in items if isinstance(item, JobFact)}
                if {f"slurm:{job}", f"slurm:{part}"} <= facts.keys():
                    break
        whole, some = facts[f"slurm:{job}"], facts[f"slurm:{part}"]
        assert whole.nodes == ("n001", "n002")
        nodes = {item.node: item for item in items if isinstance(item, NodeFact)}
        assert nodes["n003"].gres == (("gpu", "h100", 8),)
        assert {(one.state, one.reason, one.gpus_used) for one in nodes.values()} == {(None, None, None)}
        assert [(gpu.node, gpu.slurm) for gpu in whole.gpus] == [
            (node, number) for node in ("n001", "n002") for number in range(8)
        ]
        assert whole.until is not None
        assert 0 <= whole.until - whole.since < 60
        assert (some.gpu_count, some.gpus, some.state) == (2, (), ended)


async def test_a_past_instant_of_a_cluster_that_nobody_else_watches(slurm: SlurmLab) -> None:
    """Who had whole nodes is on the map; of who had a part it is said that nobody knows which."""
    job = slurm.submit("--gres=gpu:h100:8", "-N2", "-w", "n001,n002")
    part = slurm.submit("--gres=gpu:h100:2", "-w", "n003")
    for one in (job, part):
        slurm.until_state(one, "RUNNING")
    started = time.time()
    until_accounted(slurm, job, part)
    slurm.until(lambda: time.time() > started + 2.0, "it has run for a while")
    monitor = Monitor([SlurmSource(SlurmSettings())], MonitorSettings(), SteadyClock())
    then = await monitor.look_back(time.time() - 0.5, 60.0)
    seen = Watched(monitor, asyncio.Event(), then)
    assert (then.live, then.sources[0].state, then.sources[0].why) == (False, "ok", "")
    assert seen.gpus_of(job) == {"n001": list(range(8)), "n002": list(range(8))}
    assert seen.gpus_of(part) == {}
    unnamed = [then.layout.gpus[gpu].key for gpu in then.gpu_unnamed.nonzero()[0]]
    assert unnamed == [f"n003/{slot}" for slot in range(8)]
    with pytest.raises(ColdaisleError, match="still to come"):
        await monitor.look_back(time.time() + 3600.0, 5.0)


async def test_tokens(slurm: SlurmLab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    good = slurm.token()
    expired = slurm.token(lifespan=1)
    await asyncio.sleep(3.0)  # it counts whole seconds
    for token, said in (
        (good[:-4] + "AAAA", "expired, or wrong"),
        (expired, "the token expired"),
        ("hunter2", "expired, or wrong"),
        ("", "wants a token"),
    ):
        monkeypatch.setenv("SLURM_JWT", token)
        door = door_to(SlurmSettings(via=slurm.rest_url))
        with pytest.raises(AccessDenied) as caught:
            await door.nodes()
        await door.aclose()
        assert said in str(caught.value)
        assert not token or token not in f"{caught.value}{caught.value.remedy}"
    monkeypatch.setenv("SLURM_JWT", good)
    door = door_to(SlurmSettings(via=slurm.rest_url))
    assert len((await door.nodes()).nodes) == 7
    assert door.what == "slurmrestd v0.0.38"
    await door.aclose()


async def test_clocks_that_differ(slurm: SlurmLab, queue: dict[str, str]) -> None:
    """Ours goes a minute behind: what Slurm tells lies in its future, and is told in our time."""
    source = SlurmSource(SlurmSettings(interval=0.5), clock=lambda: time.time() - 60.0)
    seen: dict[str, JobFact] = {}
    async for item in source.stream():
        if isinstance(item, JobFact):
            seen[item.id] = item
        if getattr(item, "state", None) is TargetState.OK:
            assert "its clock is 60 s ahead of ours" in item.detail  # type: ignore[union-attr]
            break
    assert 0 < time.time() - 60.0 - seen[f"slurm:{queue['share']}"].since < 120


async def test_events_name_their_job_and_node(slurm: SlurmLab) -> None:
    source = SlurmSource(SlurmSettings(interval=0.3))
    items = source.stream()
    events: list[Event] = []

    async def until(kind: str) -> Event:
        async with asyncio.timeout(30):
            async for item in items:
                if isinstance(item, Event):
                    events.append(item)
                    if item.kind == kind:
                        return item
        raise AssertionError("it ended")

    async for item in items:
        if getattr(item, "state", None) is TargetState.OK:
            break
    job = slurm.submit("--gres=gpu:2", "-w", "n002", "--job-name=train")
    started = await until("job_start")
    assert started.entity == JobRef(f"slurm:{job}")
    assert started.detail == "root's train started on 2 GPUs of n002"
    slurm.run("scontrol", "update", "nodename=n002", "state=drain", "reason=ECC")
    drained = await until("drain")
    assert drained.entity == NodeRef("n002")
    # nodes are asked before jobs: at the last look it may have been idle still
    assert drained.detail in ("mix -> drain: ECC (root)", "idle -> drain: ECC (root)")
    slurm.run("scancel", job)
    ended = await until("job_end")
    assert ended.detail == "root's train ended: CANCELLED on 2 GPUs of n002"
    await items.aclose()


async def test_a_cluster_without_accounting_has_no_past(
    slurm: SlurmLab, monkeypatch: pytest.MonkeyPatch
) -> None:
    conf = (slurm.folder / "slurm.conf").read_text()
    lines = [line for line in conf.splitlines() if not line.startswith("AccountingStorage")]
    other = slurm.folder / "other"
    other.mkdir(exist_ok=True)
    (other / "slurm.conf").write_text("\n".join(lines))
    (other / "topology.conf").write_text((slurm.folder / "topology.conf").read_text())
    monkeypatch.setenv("SLURM_CONF", str(other / "slurm.conf"))
    with pytest.raises(SourceError) as caught:
        _ = [item async for item in SlurmSource(SlurmSettings()).read(time.time() - 60, time.time(), 10)]
    assert isinstance(caught.value, Unusable)
    assert "accounting" in f"{caught.value}{caught.value.remedy}"
