"""Frames of hosts become items; what cannot be used is counted and harms nobody."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from coldaisle.sources.hosts import (
    MAX_ENTITIES,
    MAX_GARBLED,
    MAX_NOISE,
    Fleet,
    HostClock,
    HostStream,
    LineBuffer,
)
from coldaisle.sources.source import (
    Batch,
    Event,
    GpuFact,
    GpuRef,
    Item,
    Kind,
    Missing,
    NodeFact,
    NodeRef,
    PortRef,
    ProcessFact,
)


class Clock:
    """Our clock, set by hand."""

    def __init__(self, now: float = 1000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


def line(**frame: Any) -> bytes:
    return b"\x1e" + json.dumps(frame).encode()


def hello(t: float = 1000.0, **more: Any) -> bytes:
    return line(k="hello", t=t, probe=1, python="3.11.2", hostname="h", **more)


def schema(number: int = 1, gpus: int = 2, **more: Any) -> bytes:
    frame: dict[str, Any] = {
        "gpus": [{"index": i, "uuid": f"GPU-{i}", "pci": f"0000:0{i + 1}:00.0"} for i in range(gpus)],
        "gpu_metrics": ["gpu.util", "gpu.power"],
        "node_metrics": ["node.load1", "node.disk_read"],
        "ports": ["eth0"],
        "port_metrics": ["port.rx"],
        "disks": [],
        "disk_metrics": [],
    }
    return line(k="schema", id=number, **(frame | more))


def sample(t: float = 1000.0, **more: Any) -> bytes:
    frame = {
        "schema": 1,
        "dt": 2.0,
        "gpu": [[0.5, 300], [0.25, None]],
        "node": [1.5, 100.0],
        "port": [[7]],
        "took": 0.01,
    }
    return line(k="sample", t=t, **(frame | more))


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def told() -> list[Item]:
    return []


@pytest.fixture
def fleet(clock: Clock, told: list[Item]) -> Fleet:
    return Fleet(["n1", "n2"], clock, told.append, interval=2.0)


def batch_of(fleet: Fleet, kind: Kind, at: float = 1000.0) -> Batch:
    return next(batch for batch in fleet.tick(at) if batch.kind is kind)


def feed(stream: HostStream, *lines: bytes) -> None:
    for each in lines:
        stream.feed(each)


def of(kind: type[Any], told: list[Item]) -> list[Any]:
    return [item for item in told if isinstance(item, kind)]


def test_a_tick_is_one_batch_per_kind_for_all_hosts(fleet: Fleet) -> None:
    for stream in fleet.streams.values():
        feed(stream, hello(), schema(), sample())
    batches = fleet.tick(1001.0)
    assert [batch.kind for batch in batches] == [Kind.NODE, Kind.GPU, Kind.PORT]
    gpu = batches[1]
    assert gpu.at == 1001.0
    assert gpu.entities == tuple(
        GpuRef(node, f"GPU-{i}", f"0000:0{i + 1}:00.0", None, i) for node in ("n1", "n2") for i in (0, 1)
    )
    assert gpu.metrics == ("gpu.util", "gpu.power")
    assert gpu.values.dtype == np.float32
    np.testing.assert_array_equal(gpu.values[:2], [[0.5, 300.0], [0.25, np.nan]])
    np.testing.assert_array_equal(gpu.intervals, [2.0] * 4)


def test_a_late_host_is_nan_and_the_others_do_not_wait(fleet: Fleet) -> None:
    one, two = fleet.streams.values()
    feed(one, hello(), schema(), sample())
    feed(two, hello(), schema(), sample())
    first = batch_of(fleet, Kind.NODE)
    feed(one, sample(node=[2.5, 0.0]))
    second = batch_of(fleet, Kind.NODE)
    assert second.values[0].tolist() == [2.5, 0.0]
    assert np.isnan(second.values[1]).all()
    feed(two, sample(node=[3.5, 0.0]))
    third = batch_of(fleet, Kind.NODE)
    assert third.values[1, 0] == 3.5
    assert np.isnan(third.values[0]).all()
    assert first.entities is second.entities is third.entities
    assert first.metrics is third.metrics


def test_entities_stay_the_same_object_through_a_reconnect(fleet: Fleet) -> None:
    stream = fleet.streams["n1"]
    feed(stream, hello(), schema(), sample())
    before = batch_of(fleet, Kind.GPU)
    stream.restart()
    feed(stream, hello(), schema(number=7), sample(schema=7))
    after = batch_of(fleet, Kind.GPU)
    assert after.entities is before.entities
    assert after.values[0, 0] == 0.5


def test_the_union_of_metrics_is_in_the_catalogues_order(fleet: Fleet) -> None:
    one, two = fleet.streams.values()
    feed(one, schema(node_metrics=["node.load1", "node.cpu_util"]), sample(node=[9.0, 0.5]))
    feed(two, schema(node_metrics=["node.mem_total"]), sample(node=[1e9]))
    batch = batch_of(fleet, Kind.NODE)
    assert batch.metrics == ("node.cpu_util", "node.load1", "node.mem_total")
    np.testing.assert_array_equal(batch.values[0], [0.5, 9.0, np.nan])
    assert batch.reasons is not None
    assert batch.reasons[0, 2] == Missing.NOT_SUPPORTED
    assert batch.reasons[1, :2].tolist() == [Missing.NOT_SUPPORTED] * 2


def test_two_samples_in_a_tick_keep_the_integral(fleet: Fleet) -> None:
    stream = fleet.streams["n1"]
    feed(stream, schema(), sample(dt=2.0, node=[1.0, 100.0]), sample(dt=3.0, node=[2.0, 200.0]))
    batch = batch_of(fleet, Kind.NODE)
    assert batch.values[0].tolist() == [2.0, 160.0]  # the newest load; the rate's mean
    assert batch.intervals is not None
    assert batch.intervals[0] == 5.0


def test_a_gpu_that_was_away_has_rates_over_a_time_of_its_own(fleet: Fleet) -> None:
    feed(fleet.streams["n1"], schema(), sample(gpu_dt=[None, 30.0]))
    batch = batch_of(fleet, Kind.GPU)
    assert batch.intervals is not None
    assert batch.intervals.tolist() == [2.0, 30.0]
    feed(fleet.streams["n1"], sample(gpu_dt=[2.0]))
    assert fleet.streams["n1"].garbled == 1, "not as many as there are GPUs"


def test_reasons_are_kept_until_told_anew_and_stay_one_object(fleet: Fleet) -> None:
    stream = fleet.streams["n1"]
    feed(stream, schema(), sample(gpu_why=[[0, 0], [0, 4]]))
    first = batch_of(fleet, Kind.GPU)
    feed(stream, sample())
    second = batch_of(fleet, Kind.GPU)
    assert first.reasons is not None
    assert first.reasons.tolist() == [[0, 0], [0, Missing.NOT_PERMITTED]]
    assert second.reasons is first.reasons
    feed(stream, sample(gpu_why=[[0, 0], [0, 6]]))
    third = batch_of(fleet, Kind.GPU)
    assert third.reasons is not None
    assert third.reasons[1, 1] == Missing.LOST


def test_a_present_value_is_never_called_missing(fleet: Fleet) -> None:
    stream = fleet.streams["n1"]
    feed(stream, schema(), sample(gpu_why=[[6, 6], [6, 6]]))
    batch = batch_of(fleet, Kind.GPU)
    assert batch.reasons is not None
    assert batch.reasons.tolist() == [[0, 0], [0, Missing.LOST]]


@pytest.mark.parametrize("value", [-0.1, 1.1, 1e300, -1e300])
def test_what_the_catalogue_rules_out_is_a_blank(fleet: Fleet, value: float) -> None:
    feed(fleet.streams["n1"], schema(), sample(gpu=[[value, 300], [0.5, 300]]))
    batch = batch_of(fleet, Kind.GPU)
    assert np.isnan(batch.values[0, 0])
    assert batch.values[1, 0] == 0.5
    assert batch.reasons is not None
    assert batch.reasons[0, 0] == Missing.BLANK


def test_a_lost_host_is_unreachable_and_keeps_its_entities(fleet: Fleet) -> None:
    stream = fleet.streams["n1"]
    feed(stream, schema(), sample())
    before = batch_of(fleet, Kind.GPU)
    stream.lost = True
    after = batch_of(fleet, Kind.GPU)
    assert after.entities is before.entities
    assert np.isnan(after.values).all()
    assert after.reasons is not None
    assert (after.reasons == Missing.UNREACHABLE).all()


def test_metrics_that_nobody_knows_are_left_out(fleet: Fleet) -> None:
    keys = ["node.invented", "node.load1", "gpu.util", "node.load1"]
    feed(fleet.streams["n1"], schema(node_metrics=keys), sample(node=[1, 2, 3, 4]))
    batch = batch_of(fleet, Kind.NODE)
    assert batch.metrics == ("node.load1",)
    assert batch.values.tolist() == [[2.0]]


@pytest.mark.parametrize(
    "broken",
    [
        sample(gpu=[[0.5, 300]]),
        sample(gpu=[[0.5, 300], [0.5]]),
        sample(gpu=[[0.5, 300], [0.5, 1, 2]]),
        sample(node=[1.0]),
        sample(schema=99),
        sample(port=[]),
        sample(disk=[[1.0]]),
        sample(gpu_why=[[0, 0], [0, 300]]),
        sample(gpu_why=[[0]]),
        sample(node=["x", 1]),
        b'\x1e{"k":"sample","t":1,',
        b"\x1e\xff\xfe\x00",
        b"\x1e" + b"[" * 50_000,
        b'\x1e{"k":"surprise"}',
        b"\x1enull",
    ],
)
def test_a_line_that_cannot_be_used_is_counted_and_the_next_is_taken(fleet: Fleet, broken: bytes) -> None:
    stream = fleet.streams["n1"]
    feed(stream, schema(), broken)
    assert stream.garbled == 1
    assert stream.samples == 0
    feed(stream, sample())
    assert batch_of(fleet, Kind.NODE).values[0, 0] == 1.5


def test_a_host_cannot_have_more_than_we_can_bear(fleet: Fleet) -> None:
    stream = fleet.streams["n1"]
    feed(stream, schema(ports=[f"p{i}" for i in range(MAX_ENTITIES + 1)]))
    assert stream.garbled == 1
    assert fleet.tick(1000.0) == []


def test_banners_around_and_inside_lines_are_counted(fleet: Fleet) -> None:
    stream = fleet.streams["n1"]
    feed(stream, b"Welcome to n1", b"", b"module: not found" + hello(), schema(), b"noise", sample())
    assert stream.hello is not None
    assert stream.samples == 1
    assert stream.garbled == 0
    assert stream.noise_text == "noise"
    assert stream.noise == len(b"Welcome to n1\n" + b"\n" + b"module: not found\n" + b"noise\n")


def test_only_garbage_is_hopeless(clock: Clock, told: list[Item]) -> None:
    endless = HostStream("n1", clock, told.append)
    while endless.noise <= MAX_NOISE:
        assert endless.hopeless == ""
        endless.feed(b"y" * 60_000)
    assert "without end" in endless.hopeless
    foreign = HostStream("n1", clock, told.append)
    feed(foreign, hello(), *[b"\x1e?"] * (MAX_GARBLED + 1))
    assert "protocol" in foreign.hopeless


def test_who_it_is_becomes_facts(fleet: Fleet, told: list[Item], clock: Clock) -> None:
    clock.now = 1000.0
    feed(
        fleet.streams["n1"],
        hello(t=1060.0, booted_at=560.0, cpus=96, gpu_pci=["00000000:1B:00.0", "junk", "0000:9a:00.0"]),
        schema(gpus=1),
    )
    node = of(NodeFact, told)[-1]
    assert node == NodeFact(
        at=1000.0,
        node="n1",
        hostname="h",
        cpus=96,
        booted_at=500.0,
        gpu_pci=("0000:1b:00.0", "0000:9a:00.0"),
        gpus_visible=1,
        clock_offset_s=60.0,
        problem="",
    )
    assert [fact.gpu.uuid for fact in of(GpuFact, told)] == ["GPU-0"]


def test_processes_and_events_name_their_gpu_and_our_time(fleet: Fleet, told: list[Item]) -> None:
    stream = fleet.streams["n1"]
    feed(stream, hello(t=1060.0), schema())
    procs = [{"gpu": 1, "pid": 7, "user": "ada", "command": "x" * 9999}, {"gpu": 9, "pid": 8}]
    feed(stream, line(k="processes", t=1059.0, processes=procs))
    feed(stream, line(k="event", t=1050.0, kind="xid", detail="79", gpu=0))
    feed(stream, line(k="event", t=9999.0, kind="oom", detail="killed", gpu=None))
    (fact,) = of(ProcessFact, told)
    assert [(process.gpu.uuid, process.pid) for process in fact.processes] == [("GPU-1", 7)]
    assert len(fact.processes[0].command) < 1000
    xid, oom = of(Event, told)
    assert (xid.at, xid.kind, xid.entity.uuid) == (990.0, "xid", "GPU-0")
    assert (oom.at, oom.entity) == (1000.0, NodeRef("n1"))  # never in our future


def test_a_kernel_log_read_twice_tells_an_event_once(fleet: Fleet, told: list[Item]) -> None:
    stream = fleet.streams["n1"]
    xid = line(k="event", t=990.0, kind="xid", detail="79", gpu=0)
    feed(stream, hello(), schema(), xid)
    stream.restart()
    feed(stream, hello(), schema(), xid, line(k="event", t=995.0, kind="xid", detail="79", gpu=0))
    assert [event.at for event in of(Event, told)] == [990.0, 995.0]


def test_a_reboot_is_an_event(fleet: Fleet, told: list[Item], clock: Clock) -> None:
    stream = fleet.streams["n1"]
    feed(stream, hello(t=1000.0, booted_at=0.0), schema())
    clock.now = 1300.0
    stream.restart()
    feed(stream, hello(t=1300.0, booted_at=1200.0), schema())
    (event,) = of(Event, told)
    assert (event.kind, event.at, event.detail) == ("reboot", 1200.0, "it started 100 s ago")


def test_a_port_keeps_its_foreign_name_but_not_its_length(fleet: Fleet) -> None:
    feed(fleet.streams["n1"], schema(ports=["\x1b]52;c;" + "e" * 9999]), sample())
    (port,) = batch_of(fleet, Kind.PORT).entities
    assert isinstance(port, PortRef)
    assert len(port.port) == 512


class TestHostClock:
    """The offset of a host's clock, from samples with delays."""

    def test_the_least_delayed_sample_tells_the_offset(self) -> None:
        clock = HostClock()
        for delay in (0.3, 0.1, 0.02, 0.5):
            assert clock.learn(1060.0, 1000.0 + delay) == 0.0
        assert clock.offset == pytest.approx(59.98)

    def test_a_jump_ahead_shows_at_once(self) -> None:
        clock = HostClock()
        clock.learn(1000.0, 1000.0)
        assert clock.learn(4602.0, 1002.0) == 3600.0
        assert clock.offset == 3600.0

    def test_a_jump_back_shows_when_it_stays(self) -> None:
        clock = HostClock()
        clock.learn(1000.0, 1000.0)
        assert [clock.learn(902.0 + i, 1002.0 + i) for i in range(3)] == [0.0, 0.0, -100.0]
        assert clock.offset == -100.0

    def test_what_was_held_up_and_comes_at_once_is_no_jump(self) -> None:
        clock = HostClock()
        clock.learn(1000.0, 1000.0)
        assert [clock.learn(1000.0 + n, 1010.0 + n / 1000) for n in range(1, 10)] == [0.0] * 9
        assert clock.learn(1011.0, 1011.0) == 0.0
        assert clock.offset == 0.0

    def test_a_long_delay_is_not_a_jump(self) -> None:
        clock = HostClock()
        clock.learn(1000.0, 1000.0)
        assert clock.learn(1002.0, 1030.0) == 0.0
        assert clock.learn(1032.0, 1032.1) == 0.0
        assert clock.offset == 0.0

    def test_it_is_an_event_and_a_fact(self, fleet: Fleet, told: list[Item], clock: Clock) -> None:
        feed(fleet.streams["n1"], hello(t=1000.0), schema(), sample(t=1000.0))
        clock.now = 1002.0
        fleet.streams["n1"].feed(sample(t=4602.0))
        (event,) = of(Event, told)
        assert (event.kind, event.detail) == ("clock_jump", "the node's clock jumped by +3600.0 s")
        assert of(NodeFact, told)[-1].clock_offset_s == 3600.0


class TestLineBuffer:
    """Bytes in pieces are lines again."""

    @given(st.lists(st.binary(max_size=30)), st.integers(1, 7))
    def test_pieces_do_not_matter(self, texts: list[bytes], size: int) -> None:
        whole = b"\n".join(texts) + b"\n"
        buffer = LineBuffer()
        lines = [out for i in range(0, len(whole), size) for out in buffer.feed(whole[i : i + size])]
        assert lines == whole.split(b"\n")[:-1]

    def test_an_endless_line_costs_nothing_and_the_next_is_read(self) -> None:
        buffer = LineBuffer(limit=100)
        for _ in range(1000):
            assert list(buffer.feed(b"x" * 64)) == []
            assert len(buffer._rest) <= 164
        assert list(buffer.feed(b"x\nnext\n")) == [b"next"]
        assert buffer.dropped == 64_001

    def test_a_line_of_the_limit_is_kept(self) -> None:
        assert list(LineBuffer(limit=3).feed(b"abc\nabcd\nab\n")) == [b"abc", b"ab"]


@given(st.binary(max_size=200))
def test_no_bytes_raise(data: bytes) -> None:
    told: list[Item] = []
    stream = HostStream("n1", Clock(), told.append)
    for text in (data, b"\x1e" + data, b"\x1e{" + data):
        for each in LineBuffer().feed(text + b"\n"):
            stream.feed(each)
    assert stream.samples == 0


@given(st.recursive(st.none() | st.booleans() | st.floats() | st.text(max_size=5), st.lists, max_leaves=9))
def test_no_frame_raises(value: Any) -> None:
    told: list[Item] = []
    stream = HostStream("n1", Clock(), told.append)
    feed(stream, hello(), schema())
    for key in ("t", "dt", "gpu", "node", "port", "disk", "gpu_why", "took", "schema"):
        feed(stream, sample(**{key: value}))
    assert all(math.isfinite(latency) for latency in [stream.latency_s or 0.0])
