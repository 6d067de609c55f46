"""Supervision: no source can stop another, and each says how it is."""

from __future__ import annotations

import asyncio
import contextlib
import time

import pytest
from lab.scripted import ScriptedSource, gpu_batch, node_batch

from coldaisle.sources import collector as module
from coldaisle.sources.collector import Collector, SteadyClock, state_of
from coldaisle.sources.errors import Unreachable
from coldaisle.sources.history import History
from coldaisle.sources.registry import Registry
from coldaisle.sources.source import Event, NodeRef, Target, TargetState


@contextlib.asynccontextmanager
async def running(*sources):
    collector = Collector(sources, History(), Registry(), SteadyClock())
    task = asyncio.create_task(collector.run())
    try:
        yield collector
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def until(condition, within=5.0):
    async with asyncio.timeout(within):
        while not condition():
            await asyncio.sleep(0.01)


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch):
    monkeypatch.setattr(module, "FIRST_PAUSE_S", 0.05)


async def test_a_failing_source_is_started_again_and_harms_nobody() -> None:
    now = time.time()
    bad = ScriptedSource("bad", [Unreachable("h1", "connection refused", "start sshd")])
    worse = ScriptedSource("worse", [ValueError("a bug")])
    good = ScriptedSource("good", [node_batch(now, ["n1"], [1.0])])
    async with running(bad, worse, good) as collector:
        await until(lambda: bad.started >= 3 and worse.started >= 2 and collector.supervised[2].heard)
        states = [state_of(s, None, None, now) for s in collector.supervised]
    assert states[0] == (TargetState.FAILING, "h1: connection refused", "start sshd")
    assert "ValueError" in states[1][1]
    assert collector.history.newest(2) == now
    assert bad.ended == bad.started


async def test_cancelling_ends_every_stream() -> None:
    sources = [ScriptedSource(f"s{n}", []) for n in range(3)]
    async with running(*sources):
        await until(lambda: all(source.started for source in sources))
    assert [source.ended for source in sources] == [1, 1, 1]


async def test_a_recovered_source_is_ok_again() -> None:
    now = time.time()

    async def script():
        if source.started == 1:
            raise Unreachable("h1", "connection refused")
        yield node_batch(now, ["n1"], [1.0])
        yield node_batch(now + 1, ["n1"], [1.0])
        await asyncio.Event().wait()

    source = ScriptedSource("flaky", script)
    async with running(source) as collector:
        await until(lambda: collector.supervised[0].heard and not collector.supervised[0].error)
        supervised = collector.supervised[0]
        assert supervised.restarts == 1
        assert state_of(supervised, now, 2.0, now)[0] is TargetState.OK


async def test_a_source_with_a_past_gives_it_first() -> None:
    now = time.time()

    class Remembering(ScriptedSource):
        async def read(self, start, end, step):
            assert end - start == module.BACKFILL_S
            for ago in (30, 20, 10):
                yield node_batch(now - ago, ["n1"], [ago])

    async with running(Remembering("past", [node_batch(now, ["n1"], [0.0])])) as collector:
        await until(lambda: collector.history.newest(0) == now)
        series = collector.history.series("node.load1", [0], now - 35, now + 5, 4)
    assert series[0].tolist() == [30, 20, 10, 0]


async def test_two_sources_that_see_one_gpu_fill_one_row() -> None:
    now = time.time()
    probe = ScriptedSource("ssh", [gpu_batch(now, "n1", [100, 200])])
    page = ScriptedSource("exporters", [gpu_batch(now, "n1", [7, 8], metric="gpu.temp")])
    async with running(probe, page) as collector:
        await until(lambda: all(s.heard for s in collector.supervised))
        assert len(collector.registry.gpus) == 2
        assert collector.history.latest("gpu.temp", 2, now).source.tolist() == [1, 1]


def test_targets_make_the_state_of_a_source() -> None:
    supervised = module.Supervised(ScriptedSource("ssh", []), 0)
    supervised.heard = True

    def state(*states):
        supervised.targets = {f"h{n}": Target(0.0, f"h{n}", s, detail="why") for n, s in enumerate(states)}
        return state_of(supervised, 100.0, 2.0, 101.0)

    assert state(TargetState.OK, TargetState.OK)[0] == TargetState.OK
    assert state(TargetState.OK, TargetState.FAILING)[:2] == ("partial", "1 of 2: h1: why")
    assert state(TargetState.OK, TargetState.SLOW)[0] == TargetState.SLOW
    assert state(TargetState.FAILING, TargetState.FAILING)[0] == TargetState.FAILING
    assert state(TargetState.DENIED)[0] == TargetState.DENIED
    assert state_of(supervised, 10.0, 2.0, 101.0)[0] == TargetState.DENIED
    supervised.targets = {}
    assert state_of(supervised, 10.0, 2.0, 101.0)[0] == TargetState.STALE


def test_the_clock_follows_the_wall_only_when_it_was_set() -> None:
    wall, steady = [1000.0], [5.0]
    clock = SteadyClock(lambda: wall[0], lambda: steady[0])
    wall[0] += 10.4
    steady[0] += 10
    assert clock() == 1010
    assert clock.correct() == 0.0
    wall[0] -= 3600
    assert clock.correct() == pytest.approx(-3599.6)
    assert clock() == pytest.approx(wall[0])


def test_a_set_clock_takes_the_past_along() -> None:
    wall, steady = [1000.0], [0.0]
    clock = SteadyClock(lambda: wall[0], lambda: steady[0])
    collector = Collector([ScriptedSource("a", [])], History(), Registry(), clock)
    collector.take(collector.supervised[0], node_batch(1000.0, ["n1"], [1.0]))
    collector.take(collector.supervised[0], Event(1000.0, NodeRef("n1"), "oom", "python"))
    wall[0] += 3600
    collector.follow_clock()
    assert collector.history.newest(0) == 4600.0
    assert collector.registry.events[0][0] == 4600.0


def test_a_source_that_has_facts_alone_is_well_without_samples() -> None:
    """kube-state-metrics speaks of no node's numbers."""
    supervised = module.Supervised(ScriptedSource("kube", []), 0)
    supervised.targets["ksm"] = Target(0.0, "ksm", TargetState.OK, what="kube-state-metrics")
    assert state_of(supervised, None, None, 0.0)[0] is TargetState.OK
    supervised.targets["n1"] = Target(0.0, "n1", TargetState.OK, ("n1",), what="dcgm-exporter")
    assert state_of(supervised, None, None, 0.0)[0] is TargetState.CONNECTING
