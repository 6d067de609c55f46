"""One incident seen three ways: live after a start, looked back at, and travelled to. They must agree."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager, suppress

import numpy as np
import pytest
from lab.scripted import ScriptedSource

from coldaisle.analyzers.detectors import detectors
from coldaisle.analyzers.finding import NO_DIAGNOSIS, Finding
from coldaisle.analyzers.hindsight import Hindsight
from coldaisle.analyzers.monitor import Monitor, MonitorSettings
from coldaisle.analyzers.snapshot import Snapshot
from coldaisle.sources.collector import SteadyClock
from coldaisle.sources.errors import Unreachable
from coldaisle.sources.source import Batch, Event, GpuRef, Item, JobFact, Kind, NodeRef, Rank

NOW = 1_790_000_400.0
HOT_AT = NOW - 420.0
NODES, SLOTS = ("n1", "n2"), 4
GPUS = tuple(GpuRef(node, f"GPU-{node}-{slot}", None, slot, slot) for node in NODES for slot in range(SLOTS))
METRICS = (
    "gpu.util", "gpu.sm_clock", "gpu.power", "gpu.temp", "gpu.throttle", "gpu.power_limit", "gpu.mem_util",
)  # fmt: skip
HOT = GPUS.index(next(gpu for gpu in GPUS if gpu.node == "n1" and gpu.index == 2))


def batch(at: float, hot_at: float = HOT_AT) -> Batch:
    """Eight GPUs at work; n1/2 gets hot."""
    jitter = np.sin(at * (1 + np.arange(len(GPUS))))  # power is never twice the same in a GPU that lives
    values = np.column_stack(
        [
            np.full(len(GPUS), 0.98),
            np.full(len(GPUS), 1980.0),
            630.0 + 8 * jitter,
            64.0 + 2 * jitter,
            np.zeros(len(GPUS)),
            np.full(len(GPUS), 700.0),
            np.full(len(GPUS), 0.4),
        ]
    )
    if at >= hot_at:
        values[HOT, 1:5] = (1250.0 + 15 * jitter[HOT], 430.0 + 8 * jitter[HOT], 89.0, 0x20)
    return Batch(at, Kind.GPU, GPUS, METRICS, values.astype(np.float32))


class Heated(ScriptedSource):
    """Remembers the incident, sampled every ``interval`` seconds; live it tells of NOW."""

    def __init__(self, interval: float = 5.0, name: str = "lab", error: Exception | None = None) -> None:
        super().__init__(name, [batch(NOW)], interval=interval, rank=Rank.PROMETHEUS)
        self.error = error
        self.readings: list[tuple[float, float, float]] = []

    async def read(self, start: float, end: float, step: float) -> AsyncGenerator[Item, None]:
        self.readings.append((start, end, step))
        if self.error is not None:
            raise self.error
        yield JobFact(NOW - 86_400, None, "slurm:4711", "train", "kim", NODES, GPUS, workload="training")
        told = start <= HOT_AT - 60 < end
        if told:
            yield Event(HOT_AT - 60, NodeRef("n1"), "node_state", "fan 3 stopped")
        at = math.ceil(start / step) * step if step != self.interval else start
        while at < end:
            yield batch(at)
            at += step


def monitor_of(*sources: object) -> Monitor:
    clock = SteadyClock(lambda: NOW, lambda: 0.0)
    return Monitor(sources, MonitorSettings("lab", interval=0.2), clock)  # type: ignore[arg-type]


def hindsight(*sources: object) -> Hindsight:
    monitor = monitor_of(*sources)
    return Hindsight(monitor.sources, monitor.new_collector, monitor.new_view, monitor.detectors)


@asynccontextmanager
async def running(monitor: Monitor) -> AsyncIterator[asyncio.Queue[Snapshot]]:
    seen: asyncio.Queue[Snapshot] = asyncio.Queue()
    task = asyncio.create_task(monitor.run(seen.put_nowait))
    try:
        yield seen
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def the_finding(seen: asyncio.Queue[Snapshot], *, live: bool) -> Finding:
    """The first heat that is shown."""
    async with asyncio.timeout(30.0):
        while True:
            snapshot = await seen.get()
            if snapshot.live is live:
                for one in snapshot.diagnosis.findings:
                    if one.detector == "thermal_throttling":
                        return one


@pytest.mark.parametrize("interval", [5.0, 15.0, 30.0, 60.0])
async def test_looking_back_finds_it_at_the_pace_of_the_samples(interval: float) -> None:
    source = Heated(interval)
    picture = await hindsight(source).look(NOW, 900.0)
    (finding,) = picture.diagnosis.findings
    assert finding.id == "thermal_throttling:n1/2"
    assert abs(finding.since - HOT_AT) <= 2 * interval
    assert not finding.since_bound
    assert finding.scope.jobs == ("slurm:4711",)
    assert finding.victims.nodes == ("n2",)
    assert len(finding.victims.gpus) == 3
    assert [step for _, _, step in source.readings] == [60.0, interval]
    assert any("fan 3 stopped" in line for line in finding.changed)


async def test_before_it_began_nothing_is_found() -> None:
    picture = await hindsight(Heated()).look(HOT_AT - 5, 900.0)
    assert picture.diagnosis.findings == ()
    assert picture.diagnosis.at == HOT_AT - 5
    assert all(event.at <= HOT_AT - 5 for event in picture.events)


async def test_a_long_window_is_read_in_parts_that_fit_together(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = await hindsight(Heated()).look(NOW, 3600.0)
    monkeypatch.setattr("coldaisle.analyzers.hindsight.LONGEST_READ_S", 400.0)
    source = Heated()
    parts = await hindsight(source).look(NOW, 3600.0)
    assert len(source.readings) > 8
    assert [(one.id, one.since, one.opened_at) for one in parts.diagnosis.findings] == [
        (one.id, one.since, one.opened_at) for one in whole.diagnosis.findings
    ]
    assert [event.detail for event in parts.events].count("fan 3 stopped") == 1


async def test_a_source_that_cannot_tell_says_so() -> None:
    error = Unreachable("lab", "refused", "start it")
    picture = await hindsight(Heated(error=error), Heated(name="other")).look(NOW, 900.0)
    states = {source.name: (source.state, source.why) for source in picture.sources}
    assert states["lab"] == ("failing", "lab: refused")
    assert [one.id for one in picture.diagnosis.findings] == ["thermal_throttling:n1/2"]


class Slow(Heated):
    """Tells the hour before, and then a part of what it is asked for, too slowly."""

    async def read(self, start: float, end: float, step: float) -> AsyncGenerator[Item, None]:
        async for item in super().read(start, end, step):
            yield item
            if len(self.readings) > 1 and isinstance(item, Batch) and item.at > NOW - 600:
                await asyncio.sleep(60.0)


async def test_a_reading_that_is_cut_off_is_no_silence_of_the_nodes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("coldaisle.analyzers.past.READ_LIMIT_S", 1.0)
    picture = await hindsight(Slow()).look(NOW, 900.0)
    assert picture.diagnosis == NO_DIAGNOSIS
    (source,) = picture.sources
    assert (source.state, source.why) == ("failing", "it has not told its past within 1 s")


async def test_live_it_stands_within_seconds_of_the_start_since_it_began() -> None:
    source = Heated(10.0)
    monitor = monitor_of(source)
    async with running(monitor) as seen:
        finding = await the_finding(seen, live=True)
        async with asyncio.timeout(20.0):
            while not monitor.catch_up.is_over:
                await seen.get()
        looked_back = await hindsight(Heated(10.0)).look(NOW, 900.0)
        (then,) = looked_back.diagnosis.findings
        now = monitor.diagnoser.newest.findings[0]
        assert now.id == then.id
        assert now.loss.fraction == pytest.approx(then.loss.fraction, abs=0.03)
        assert abs(now.since - HOT_AT) <= 20.0
        assert now.opened_at < NOW - 200, "it was folded over what was told of the past"
        assert finding.id == now.id
        assert monitor.history.reach < NOW - 3500, "the hour before is in the history, too"


async def test_travelling_shows_it_as_it_was_then() -> None:
    monitor = monitor_of(Heated(10.0))
    async with running(monitor) as seen:
        await seen.get()
        monitor.travel(NOW - 60.0)
        finding = await the_finding(seen, live=False)
        assert finding.id == "thermal_throttling:n1/2"
        assert abs(finding.since - HOT_AT) <= 20.0
        monitor.travel(HOT_AT - 30.0)
        async with asyncio.timeout(20.0):
            while not ((picture := await seen.get()).at == HOT_AT - 30.0 and picture.diagnosis.at):
                pass
        assert picture.diagnosis.findings == ()


def test_what_is_read_covers_what_detectors_look_back_at() -> None:
    assert max(ready.module.LOOKBACK_S for ready in detectors()) <= 3600.0


class Young(Heated):
    """Remembers the last twenty minutes alone; how often it was sampled it knows when it has read some of them."""

    async def read(self, start: float, end: float, step: float) -> AsyncGenerator[Item, None]:
        first = NOW - 1200.0
        if end <= first:
            self.readings.append((start, end, step))
            return
        self.interval = 30.0
        async for item in super().read(max(start, first), end, step):
            yield item


async def test_the_pace_is_learnt_from_what_there_is_where_the_hour_before_is_not_remembered() -> None:
    source = Young(interval=15.0)
    snapshot = await hindsight(source).look(NOW, 900.0)
    assert {step for _, _, step in source.readings} == {60.0, 30.0}
    assert [finding.detector for finding in snapshot.diagnosis.findings] == ["thermal_throttling"]
