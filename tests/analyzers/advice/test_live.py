"""Counsel of the running program: from the hour that its history has, once a minute."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from dataclasses import replace

import numpy as np
import pytest
from lab.scripted import ScriptedSource

from coldaisle.analyzers.advice.advice import NO_COUNSEL, Counsel
from coldaisle.analyzers.advice.counsel import settings
from coldaisle.analyzers.advice.live import Counsellor, usage_of_history
from coldaisle.analyzers.monitor import Monitor, MonitorSettings
from coldaisle.analyzers.snapshot import Snapshot
from coldaisle.sources.collector import SteadyClock
from coldaisle.sources.source import Batch, GpuRef, JobFact, Kind

START = 1_700_000_040.0
"""A whole minute."""
POLL = 20.0
GPUS = tuple(
    GpuRef(node, f"GPU-{node}-{n}", f"0000:{0x10 + n:02x}:00.0", n, n)
    for node in ("n1", "n2")
    for n in range(4)
)


class World:
    """A monitor that was told of eight GPUs, of which the first node's do nothing; no time passes by itself."""

    def __init__(self) -> None:
        self.now = START
        self.monitor = Monitor(
            [ScriptedSource("s", [], interval=POLL)],
            MonitorSettings("atlas"),
            SteadyClock(lambda: self.now, lambda: self.now),
        )
        self.counsellor = Counsellor(self.monitor.view, settings())

    def take(self, item: Batch | JobFact) -> None:
        self.monitor.collector.take(self.monitor.collector.supervised[0], item)

    def runs(
        self, id_: str, node: int, since: float, until: float | None = None, name: str = "train"
    ) -> None:
        gpus = GPUS[4 * node : 4 * node + 4]
        self.take(JobFact(since, until, f"slurm:{id_}", name, "rsun", (gpus[0].node,), gpus, gpu_count=4))

    def passes(self, minutes: float, idle: float = 0.0) -> None:
        for _ in range(round(minutes * 60 / POLL)):
            values = np.array([[idle]] * 4 + [[0.9]] * 4, dtype=np.float32)
            self.take(Batch(self.now, Kind.GPU, GPUS, ("gpu.util",), values))
            self.now += POLL

    def snapshot(self) -> Snapshot:
        return self.monitor.snapshot()

    def look(self) -> Counsel:
        return asyncio.run(self.counsellor.look(self.snapshot()))


def test_an_idle_job_is_told_of_after_half_an_hour() -> None:
    world = World()
    world.runs("1", 0, START)
    world.runs("2", 1, START)
    assert world.look().given == ()
    world.passes(20)
    assert world.look().given == ()
    world.passes(15)
    (advice,) = world.look().given
    assert advice.action == "reclaim 4 idle GPUs of job 1 (rsun)"
    assert advice.scope.gpus == ("n1/0", "n1/1", "n1/2", "n1/3")
    assert world.counsellor.newest.span_s == pytest.approx(35 * 60, abs=60)
    busy = world.counsellor.newest.utilisations.cluster.busy.ratio
    assert busy is not None
    assert busy.value == pytest.approx(0.45, rel=0.02)


def test_it_ends_when_kernels_run_again() -> None:
    world = World()
    world.runs("1", 0, START)
    world.passes(40)
    assert world.look().given
    world.passes(5, idle=0.8)
    assert not [one for one in world.look().given if one.action.startswith("reclaim")]


def test_jobs_that_have_ended_are_remembered() -> None:
    world = World()
    world.runs("1", 0, START, START + 1200)
    world.passes(30)
    usage = usage_of_history(world.monitor.view, world.snapshot())
    (stay,) = usage.stays
    assert (stay.started_at, stay.ended_at) == (START, START + 1200)
    assert stay.boards == (0, 1, 2, 3)
    (advice,) = world.look().given
    assert advice.action == "move 1 job 'train' (rsun) off GPUs: none was used in 1.3 GPU-hours"
    world.passes(3)
    assert len(world.look().given) == 1, "nor are they forgotten, or counted twice, at the next look"


def test_what_is_kept_between_looks_is_what_is_read_anew() -> None:
    world = World()
    world.runs("1", 0, START)
    for minutes in (3, 1, 61, 2, 90):
        world.passes(minutes)
        world.look()
        snapshot = world.snapshot()
        kept = usage_of_history(world.monitor.view, snapshot, world.counsellor._book)
        anew = usage_of_history(world.monitor.view, snapshot)
        assert kept.starts.tolist() == anew.starts.tolist()
        assert kept.stays == anew.stays
        np.testing.assert_array_equal(kept.means["gpu.util"], anew.means["gpu.util"])
        assert len(kept.starts) <= 60


def test_samples_that_come_late_are_not_lost() -> None:
    world = World()
    world.runs("1", 0, START)
    world.passes(10)
    world.now += 70  # nothing was heard yet of the minute that is over
    world.look()
    late = np.full((8, 1), 0.9, dtype=np.float32)
    for at in (world.now - 70, world.now - 50, world.now - 30):
        world.take(Batch(at, Kind.GPU, GPUS, ("gpu.util",), late))
    world.passes(2)
    world.look()
    usage = usage_of_history(world.monitor.view, world.snapshot(), world.counsellor._book)
    assert not np.isnan(usage.means["gpu.util"]).any()


def test_it_is_due_once_a_minute() -> None:
    world = World()
    assert world.counsellor.is_due(world.now)
    world.look()
    assert not world.counsellor.is_due(world.now + 30)
    assert world.counsellor.is_due(world.now + 60)
    assert world.counsellor.is_due(world.now - 3600)


def test_a_mistake_keeps_the_old_counsel(caplog: pytest.LogCaptureFixture) -> None:
    world = World()
    world.runs("1", 0, START)
    world.passes(40)
    before = world.look()
    broken = replace(world.snapshot(), layout=None)  # type: ignore[arg-type]
    with caplog.at_level(logging.ERROR):
        assert asyncio.run(world.counsellor.look(broken)) is before
    assert "advice failed" in caplog.text


async def test_a_running_monitor_publishes_it() -> None:
    world = World()
    assert world.snapshot().counsel is NO_COUNSEL
    world.runs("1", 0, START)
    world.passes(40)
    published: list[Snapshot] = []
    task = asyncio.create_task(world.monitor.run(published.append))
    try:
        async with asyncio.timeout(20):
            while not any(snapshot.counsel.given for snapshot in published):
                await asyncio.sleep(0.01)
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
