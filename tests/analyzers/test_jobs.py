"""Jobs as columns: what they hold and use, what the queue comes to, and sums."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from lab.cost import cpu_seconds
from lab.jobs import crowd, night_of_jobs, without_values
from lab.snapshots import AT, make_snapshot

from coldaisle.analyzers.jobs import (
    Figures,
    Held,
    figures,
    gpus_of,
    group,
    groups,
    held_by,
    is_offered,
    load_of,
    use_of,
)
from coldaisle.analyzers.snapshot import Snapshot
from coldaisle.tui import cells


def seen(snapshot: Snapshot, metric: str = "gpu.sm_active") -> tuple[Held, Figures]:
    held = held_by(snapshot.layout, snapshot.jobs)
    return held, figures(snapshot, held, metric, lambda key: cells.values_of(snapshot, key))


@pytest.fixture(scope="module")
def night() -> Snapshot:
    return night_of_jobs()


def test_a_job_is_the_mean_of_its_gpus_with_their_spread(night: Snapshot) -> None:
    _, found = seen(night)
    values = night.columns["gpu.sm_active"].values[list(night.jobs[5].gpus)]
    assert found.active[5] == pytest.approx(float(values.mean()))
    assert (found.lowest[5], found.highest[5]) == pytest.approx((float(values.min()), float(values.max())))
    fullest = night.columns["gpu.mem_ratio"].values[list(night.jobs[5].gpus)].max()
    assert found.memory[5] == pytest.approx(float(fullest))


def test_gpus_that_do_not_answer_take_no_part(night: Snapshot) -> None:
    held, found = seen(night)
    gpu = night.layout.gpu_of["r11n02/3"]
    at = int(night.gpu_job[gpu])
    assert found.told[at] == held.known[at] - 1
    assert found.powered[at] == held.known[at] - 1
    others = [other for other in night.jobs[at].gpus if other != gpu]
    assert found.active[at] == pytest.approx(float(night.columns["gpu.sm_active"].values[others].mean()))


def test_what_nobody_tells_stays_missing(night: Snapshot) -> None:
    _, found = seen(without_values(night, "gpu.sm_active", 4))
    for column in (found.active, found.lowest, found.highest):
        assert math.isnan(column[4])
    assert found.told[4] == 0
    assert not math.isnan(found.power[4])
    _, bare = seen(replace(night, columns={}))
    assert np.isnan([bare.active, bare.memory, bare.power]).all()


def test_time_left_and_gpu_hours(night: Snapshot) -> None:
    _, found = seen(night)
    job = night.jobs[5]
    assert found.left[5] == pytest.approx(33060.0)
    assert math.isnan(found.left[1]), "no limit"
    assert found.hours[5] == pytest.approx(len(job.gpus) * (AT - job.since) / 3600)


def test_gpus_are_counted_whether_or_not_they_are_known(night: Snapshot) -> None:
    job = night.jobs[5]
    assert gpus_of(job) == len(job.gpus)
    assert gpus_of(replace(job, gpus=(), gpu_count=16)) == 16
    assert math.isnan(gpus_of(replace(job, gpus=(), gpu_count=None)))
    unknown = replace(night, jobs=(replace(job, gpus=(), gpu_count=16),))
    held, found = seen(unknown)
    assert (held.size[0], held.known[0]) == (16, 0)
    assert math.isnan(found.active[0])
    assert math.isnan(found.power[0])
    assert found.hours[0] > 0


def test_a_mig_instance_counts_as_one_and_its_board_draws_for_others_too() -> None:
    snapshot = make_snapshot(1, 1, 2, mig=("r01n01/0",))
    instance = snapshot.layout.gpu_of["r01n01/0:gi1"]
    one = replace(snapshot, jobs=(replace(snapshot.jobs[0], gpus=(instance,)),))
    held, found = seen(one)
    assert held.size[0] == 1
    assert math.isnan(found.power[0]), "the board's power is not the job's"


def test_gpus_that_are_gone_are_nobodys(night: Snapshot) -> None:
    gone = replace(night, jobs=(replace(night.jobs[0], gpus=(10**6, -1, 0)),))
    held, _ = seen(gone)
    assert held.gpu.tolist() == [0]


def test_no_jobs_at_all(night: Snapshot) -> None:
    held, found = seen(replace(night, jobs=()))
    assert len(found.active) == 0
    assert groups(held, (), "user", (), ()) == ()


@pytest.mark.parametrize(
    ("reason", "offered"),
    [("Resources", True), ("Priority", True), ("(Priority)", True), ("Unschedulable", True),
     ("Dependency", False), ("QOSMaxGRESPerUser", False), ("", False), (None, False)],
)  # fmt: skip
def test_what_only_hardware_would_help(night: Snapshot, reason: str | None, offered: bool) -> None:
    assert is_offered(replace(night.queue[0], reason=reason)) is offered


def test_the_queue_and_pods_that_wait_are_one_queue(night: Snapshot) -> None:
    waiting = night.queue
    pod = waiting[-1]
    assert (pod.title, pod.reason, gpus_of(pod)) == ("team-a/llama-worker-0 (Pod)", "Unschedulable", 8)
    assert pod.is_waiting


def test_the_load_is_as_the_scheduler_says_with_pods_beside_it(night: Snapshot) -> None:
    held = held_by(night.layout, night.jobs)
    load = load_of(night, held, night.queue)
    fact = night.queues["slurm"]
    assert load.waiting == (fact.waiting.jobs + 1, fact.waiting.gpus + 8)
    assert load.held == fact.held
    assert load.next_start_at == fact.next_start_at


def test_without_a_schedulers_sum_jobs_are_counted(night: Snapshot) -> None:
    counted = replace(night, queues={}, queue=night.queue[:-1])
    load = load_of(counted, held_by(night.layout, night.jobs), counted.queue)
    offered = [job for job in counted.queue if is_offered(job)]
    assert load.running.jobs == len(night.jobs)
    assert load.waiting.jobs == sum(job.tasks for job in offered), "each task of an array is a job"
    assert load.waiting.gpus == sum((job.gpu_count or 0) * job.tasks for job in offered), "and asks for GPUs"


def test_what_waits_for_something_else_is_held_pods_too(night: Snapshot) -> None:
    pod = replace(night.queue[-1], reason="ImagePullBackOff")
    load = load_of(night, held_by(night.layout, night.jobs), (*night.queue[:-1], pod))
    fact = night.queues["slurm"]
    assert load.waiting == fact.waiting
    assert load.held == (fact.held.jobs + 1, fact.held.gpus + 8)


@pytest.mark.parametrize("by", ["user", "account", "partition"])
def test_sums_hold_every_job_once(night: Snapshot, by: str) -> None:
    held, found = seen(night)
    waiting = night.queue
    sums = groups(held, waiting, by, range(len(night.jobs)), range(len(waiting)))
    assert sorted(at for one in sums for at in one.running) == [*range(len(night.jobs))]
    assert sorted(at for one in sums for at in one.waiting) == [*range(len(waiting))]
    assert sum(one.gpus for one in sums) == sum(len(job.gpus) for job in night.jobs)
    assert [one.gpus for one in sums] == sorted((one.gpus for one in sums), reverse=True)
    assert sum(use_of(one, found).hours for one in sums if one.running) == pytest.approx(
        float(found.hours.sum())
    )


def test_a_sum_weighs_by_gpus_and_says_what_it_does_not_know(night: Snapshot) -> None:
    held, found = seen(without_values(night, "gpu.sm_active", 4))
    use = use_of(group("two", held, (), (4, 5), ()), found)
    assert use.active == pytest.approx(float(found.active[5])), "what is missing is not 0"
    jobs = (night.jobs[5], replace(night.jobs[6], gpus=(), gpu_count=None))
    some = held_by(night.layout, jobs)
    assert group("all", some, (), (0, 1), ())[3:5] == (len(jobs[0].gpus), 1)


def test_held_is_made_once_for_the_same_jobs(night: Snapshot) -> None:
    held = held_by(night.layout, night.jobs)
    assert held.fits(night)
    assert not held.fits(replace(night, jobs=night.jobs[:-1]))


def test_thousands_at_once() -> None:
    big = crowd()
    gpus = range(len(big.layout.gpus))
    jobs = [replace(big.jobs[0], id=f"slurm:{gpu}", gpus=(gpu,), nodes=("r01n01",)) for gpu in gpus]
    many = replace(big, jobs=tuple(jobs))
    held = held_by(many.layout, many.jobs)
    cost = cpu_seconds(lambda: figures(many, held, "gpu.sm_active", lambda key: cells.values_of(many, key)))
    assert cost < 0.5  # 10 to 20 ms alone; the machine is shared
