"""Travelling in time: what is shown of a past instant, and what is read for it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress

import numpy as np
import pytest
from lab.scripted import ScriptedSource, gpu_batch, node_batch

from coldaisle.analyzers.monitor import Monitor, MonitorSettings
from coldaisle.analyzers.past import Span, read_span
from coldaisle.analyzers.snapshot import LIVE_ONLY, TOLD_NOTHING, SeriesQuery, Snapshot, Status
from coldaisle.analyzers.travel import BEFORE_S, CHART_S, PICTURE_S, Traveller
from coldaisle.sources.collector import SteadyClock
from coldaisle.sources.errors import SourceError
from coldaisle.sources.simulator.source import SimulatorSource
from coldaisle.sources.source import Event, GpuRef, Item, JobFact, NodeRef, ProcessFact

NOW = 1_790_000_000.0
THEN = NOW - 7200.0


class Remembering(ScriptedSource):
    """A source whose past is a function of time: one node, one GPU of ``power(at)`` watts."""

    def __init__(
        self,
        name: str = "old",
        power: Callable[[float], float] = lambda at: at % 1000,
        *,
        since: float = 0.0,
        facts: tuple[Item, ...] = (),
    ) -> None:
        super().__init__(name, [gpu_batch(NOW, "n1", [1.0])], interval=10.0)
        self.power = power
        self.since = since
        self.facts = facts
        self.readings: list[tuple[float, float, float]] = []
        self.closed = 0
        self.gate: asyncio.Event | None = None
        """Readings wait for it."""
        self.error: SourceError | None = None

    async def read(self, start: float, end: float, step: float) -> AsyncGenerator[Item, None]:
        self.readings.append((start, end, step))
        try:
            if self.gate is not None:
                await self.gate.wait()
            if self.error is not None:
                raise self.error
            for fact in self.facts:
                yield fact
            at = start
            while at < end:
                if at >= self.since:
                    yield gpu_batch(at, "n1", [self.power(at)])
                at += step
        finally:
            self.closed += 1


class Published:
    """What a monitor published."""

    def __init__(self) -> None:
        self.snapshots: list[Snapshot] = []
        self._news = asyncio.Event()

    def __call__(self, snapshot: Snapshot) -> None:
        self.snapshots.append(snapshot)
        self._news.set()

    async def until(self, wanted: Callable[[Snapshot], object], seconds: float = 20.0) -> Snapshot:
        """The first snapshot, from the newest on, of which something holds."""
        async with asyncio.timeout(seconds):
            while not (self.snapshots and wanted(self.snapshots[-1])):
                self._news.clear()
                await self._news.wait()
        return self.snapshots[-1]


@asynccontextmanager
async def running(*sources: object) -> AsyncIterator[tuple[Monitor, Published]]:
    """A monitor at NOW, and what it publishes."""
    clock = SteadyClock(lambda: NOW, lambda: 0.0)
    monitor, published = Monitor(sources, MonitorSettings("atlas", interval=0.2), clock), Published()  # type: ignore[arg-type]
    task = asyncio.create_task(monitor.run(published))
    try:
        yield monitor, published
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


def is_settled(at: float) -> Callable[[Snapshot], bool]:
    """Whether an instant is shown and nothing is read any more."""
    return lambda s: not s.live and s.at == at and s.travel is not None and s.travel.reading is None


async def test_the_past_is_shown_as_it_was_and_live_goes_on() -> None:
    source = Remembering()
    async with running(source) as (monitor, published):
        live = await published.until(lambda s: s.live)
        assert live.travel is None
        monitor.travel(THEN)
        past = await published.until(lambda s: not s.live)
        assert past.at == THEN
        assert past.columns["gpu.power"].values.tolist() == [THEN % 1000]
        assert past.columns["gpu.power"].at.tolist() == [THEN]
        assert past.gpu_status.tolist() == [Status.OK]
        done = await published.until(is_settled(THEN))
        assert done.travel is not None
        assert done.travel.live == (("old", "ok"),)
        monitor.travel(None)
        assert (await published.until(lambda s: s.live)).travel is None


async def test_the_picture_is_read_first_then_the_quarter_then_the_hour() -> None:
    source = Remembering()
    async with running(source) as (monitor, published):
        await published.until(lambda s: s.live)
        source.readings.clear()
        monitor.travel(THEN)
        await published.until(is_settled(THEN))
        firsts = [round(THEN - start) for start, _, _ in source.readings if start < THEN]  # others are of now
        assert firsts == [PICTURE_S, BEFORE_S, CHART_S]
        assert [step for _, _, step in source.readings] == [10, 10, 60]
        assert all(end <= NOW for _, end, _ in source.readings)


async def test_steps_inside_what_is_there_read_nothing() -> None:
    source = Remembering()
    async with running(source) as (monitor, published):
        monitor.travel(THEN)
        await published.until(is_settled(THEN))
        count = len(source.readings)
        for at in (THEN - 10, THEN - 20, THEN - 300, THEN + 200, THEN):
            monitor.travel(at)
            shown = await published.until(is_settled(at))
            assert shown.columns["gpu.power"].values.tolist() == [at % 1000]
        assert len(source.readings) == count


async def test_the_last_request_wins() -> None:
    source = Remembering()
    source.gate = asyncio.Event()
    async with running(source) as (monitor, published):
        monitor.travel(THEN)
        await published.until(lambda s: s.travel and s.travel.reading)
        monitor.travel(THEN - 86400)
        source.gate.set()
        shown = await published.until(is_settled(THEN - 86400))
        assert shown.columns["gpu.power"].values.tolist() == [(THEN - 86400) % 1000]
        assert not any(not s.live and s.at == THEN and s.layout.nodes for s in published.snapshots)


async def test_what_is_read_is_said_with_its_source() -> None:
    source = Remembering()
    async with running(ScriptedSource("ssh", []), source) as (monitor, published):
        await published.until(lambda s: s.live)
        source.gate = asyncio.Event()
        monitor.travel(THEN)
        said = await published.until(lambda s: s.travel and s.travel.reading and s.travel.reading.sources)
        assert said.live
        assert said.travel is not None
        assert said.travel.wanted == THEN
        assert said.travel.reading is not None
        assert said.travel.reading.sources == ("old",)
        assert said.travel.reading.share == 0
        source.gate.set()
        past = await published.until(is_settled(THEN))
        assert [(view.name, view.state) for view in past.sources] == [("ssh", LIVE_ONLY), ("old", "ok")]


async def test_returning_drops_what_was_read_and_what_is_being_read() -> None:
    source = Remembering()
    async with running(source) as (monitor, published):
        await published.until(lambda s: s.live)
        monitor.travel(THEN)
        await published.until(is_settled(THEN))
        source.gate = asyncio.Event()
        begun = len(source.readings)
        monitor.travel(THEN - 86400)
        async with asyncio.timeout(10):
            while len(source.readings) == begun:
                await asyncio.sleep(0.01)
        monitor.travel(None)
        await published.until(lambda s: s.live)
        async with asyncio.timeout(10):
            while source.closed < len(source.readings):
                await asyncio.sleep(0.01)
        held = [value for value in vars(monitor.traveller).values() if isinstance(value, Span | Snapshot)]
        assert not held
        assert monitor.traveller.picture is None


async def test_charts_end_at_the_instant_and_reach_an_hour_back() -> None:
    async with running(Remembering(power=lambda at: 100.0)) as (monitor, published):
        monitor.travel(THEN)
        await published.until(is_settled(THEN))
        query = SeriesQuery(("gpu.power",), ("n1/0",), THEN - 3600, THEN + 300, 65)
        line = monitor.read(query).values["gpu.power"][0]
        assert np.isfinite(line[:60]).all()
        assert np.isnan(line[61:]).all()


async def test_a_gpu_that_was_silent_then_was_lost_then() -> None:
    source = Remembering(power=lambda at: np.nan if at > THEN - 400 else 500.0)
    async with running(source, Remembering("other")) as (monitor, published):
        source.facts = (
            Event(THEN - 400, NodeRef("n1"), "xid", "79"),
            Event(THEN + 50, NodeRef("n1"), "late", ""),
        )
        monitor.travel(THEN)
        past = await published.until(is_settled(THEN))
        assert [event.kind for event in past.events] == ["xid"]
    async with running(source) as (monitor, published):
        monitor.travel(THEN)
        past = await published.until(is_settled(THEN))
        assert past.gpu_status.tolist() == [Status.LOST]
        assert past.gpu_seen.tolist() == [THEN - 400]


async def test_jobs_are_those_of_the_instant() -> None:
    gpu = GpuRef("n1", "GPU-n1-0")
    facts = (
        JobFact(THEN - 5000, None, "slurm:1", "a", "kim", ("n1",), (gpu,)),
        JobFact(THEN - 5000, THEN - 60, "slurm:1", "a", "kim", ("n1",), (gpu,), state="COMPLETED"),
        JobFact(THEN - 50, THEN + 20, "slurm:2", "b", "kim", ("n1",), (gpu,)),
    )
    async with running(Remembering(facts=facts)) as (monitor, published):
        for at, ids in (
            (THEN, ["2"]),
            (THEN - 61, ["1"]),
            (THEN - 55, []),
            (THEN + 20, []),
            (THEN + 10, ["2"]),
        ):
            monitor.travel(at)
            past = await published.until(is_settled(at))
            assert [job.bare_id for job in past.jobs] == ids
            assert all(job.state == "RUNNING" for job in past.jobs)


async def test_what_is_only_known_of_now_is_not_shown_then() -> None:
    live = ScriptedSource("ssh", [node_batch(NOW, ["n9"], [1.0]), ProcessFact(NOW, "n9", ())])
    async with running(live, Remembering()) as (monitor, published):
        await published.until(lambda s: s.layout.nodes)
        monitor.travel(THEN)
        past = await published.until(is_settled(THEN))
        assert [node.key for node in past.layout.nodes] == ["n1"]
        assert past.processes == {}


async def test_before_its_memory_a_source_tells_nothing_and_nothing_is_shown() -> None:
    async with running(Remembering(since=NOW - 3600)) as (monitor, published):
        monitor.travel(THEN)
        past = await published.until(is_settled(THEN))
        assert past.layout.nodes == ()
        assert past.columns == {}
        assert [view.state for view in past.sources] == [TOLD_NOTHING]


async def test_a_source_that_fails_says_why_and_what_to_do() -> None:
    source = Remembering()
    async with running(source) as (monitor, published):
        source.error = SourceError("http://prom:9090", "401: the token is refused", "renew the token")
        monitor.travel(THEN)
        past = await published.until(is_settled(THEN))
        assert past.sources[0].state == "failing"
        assert "the token is refused" in past.sources[0].why
        assert past.sources[0].remedy == "renew the token"


async def test_without_a_past_it_is_said_at_once_and_live_stays() -> None:
    async with running(ScriptedSource("ssh", []), ScriptedSource("exporters", [])) as (monitor, published):
        monitor.travel(THEN)
        said = await published.until(lambda s: s.travel)
        assert said.live
        assert said.travel is not None
        assert said.travel.problem == "no source here has a past (ssh, exporters): live only"
        assert said.travel.remedy
        monitor.travel(None)
        await published.until(lambda s: s.travel is None)


async def test_the_future_is_refused_and_the_past_stays() -> None:
    async with running(Remembering()) as (monitor, published):
        monitor.travel(THEN)
        await published.until(is_settled(THEN))
        monitor.travel(NOW + 60)
        said = await published.until(lambda s: s.travel and s.travel.problem)
        assert said.at == THEN
        assert said.travel is not None
        assert "still to come" in said.travel.problem


async def test_asked_for_before_anything_is_live_the_past_is_all_that_is_shown() -> None:
    async with running(Remembering()) as (monitor, published):
        monitor.travel(THEN)
        await published.until(is_settled(THEN))
        assert not any(snapshot.live for snapshot in published.snapshots)
        assert {snapshot.at for snapshot in published.snapshots} == {THEN}


async def test_a_mistake_of_ours_is_logged_and_said(monkeypatch: pytest.MonkeyPatch) -> None:
    async def broken(*_: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(Traveller, "_tell", broken)
    async with running(Remembering()) as (monitor, published):
        monitor.travel(THEN)
        said = await published.until(lambda s: s.travel and s.travel.problem)
        assert said.travel is not None
        assert "ZeroDivisionError" in said.travel.problem


async def test_a_source_of_too_much_is_cut_short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("coldaisle.analyzers.past.MOST_BYTES", 100)
    span = Span(THEN - 900, THEN, 10.0, THEN)
    await read_span(span, {0: Remembering()})
    assert span.bytes < 300
    assert "more to tell" in span.failures[0].why
    assert span.share == 1


async def test_a_source_that_never_tells_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("coldaisle.analyzers.past.READ_LIMIT_S", 0.05)
    source = Remembering()
    source.gate = asyncio.Event()
    span = Span(THEN - 900, THEN, 10.0, THEN)
    await read_span(span, {0: source})
    assert "not told its past" in span.failures[0].why
    assert source.closed == 1


@pytest.mark.parametrize("ago", [7200.0, 90_000.0])
async def test_the_simulated_past_equals_what_was_live_then(ago: float) -> None:
    """The same seed at the same instant: shown live by one monitor then, looked back at by another now."""
    at = NOW - ago
    clock = SteadyClock(lambda: at, lambda: 0.0)
    source = SimulatorSource(4, 2, 4, seed=3, interval=10.0, clock=clock)
    then = Monitor([source], MonitorSettings("atlas"), clock)
    async for item in source.read(at - 900, at + 1, 10.0):
        then.collector.take(then.collector.supervised[0], item)
    live = then.snapshot()
    now = SimulatorSource(4, 2, 4, seed=3, interval=10.0, clock=lambda: NOW)
    async with running(now) as (monitor, published):
        monitor.travel(at)
        past = await published.until(is_settled(at), 60)
    assert [gpu.key for gpu in past.layout.gpus] == [gpu.key for gpu in live.layout.gpus]
    assert past.gpu_status.tolist() == live.gpu_status.tolist()
    assert past.node_status.tolist() == live.node_status.tolist()
    assert past.coverage == live.coverage
    assert past.jobs == live.jobs
    assert past.processes == live.processes
    assert past.events == live.events[-len(past.events) :]
    assert past.columns.keys() == live.columns.keys()
    for key, column in live.columns.items():
        np.testing.assert_allclose(past.columns[key].values, column.values, rtol=1e-3, atol=0.1, err_msg=key)
        np.testing.assert_array_equal(past.columns[key].at, column.at, err_msg=key)
        np.testing.assert_array_equal(past.columns[key].reason, column.reason, err_msg=key)
