"""From sources to snapshots."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time

import numpy as np
import pytest
from lab.scripted import ScriptedSource, gpu_batch, node_batch

from coldaisle.analyzers.monitor import Monitor, MonitorSettings, MonitorThread
from coldaisle.analyzers.snapshot import SeriesQuery, Snapshot, Status
from coldaisle.sources.collector import SteadyClock
from coldaisle.sources.source import (
    Batch,
    GpuRef,
    JobFact,
    JobRef,
    Kind,
    Missing,
    NodeFact,
    RackRef,
    ServerRef,
    Target,
    TargetState,
)

AT = 1_700_000_000.0


class StoppedClock(SteadyClock):
    """A clock that a test moves by hand."""

    def __init__(self, now: float) -> None:
        self.now = now
        super().__init__(lambda: self.now, lambda: self.now)

    def __call__(self) -> float:
        return self.now


def monitor(*items, sources=1):
    clock = StoppedClock(AT)
    made = Monitor(
        [ScriptedSource(f"s{n}", [], interval=2.0) for n in range(sources)], MonitorSettings("atlas"), clock
    )
    for item in items:
        made.collector.take(made.collector.supervised[0], item)
    return made, clock


def test_an_empty_cluster_is_a_snapshot_too() -> None:
    made, _ = monitor()
    snapshot = made.snapshot()
    assert snapshot.layout.racks == ()
    assert snapshot.coverage.nodes_expected == 0
    assert snapshot.column("gpu.power") is None


def test_columns_are_in_reading_order() -> None:
    made, _ = monitor(gpu_batch(AT, "n2", [30, 40]), gpu_batch(AT, "n1", [10, 20]))
    snapshot = made.snapshot()
    assert [gpu.key for gpu in snapshot.layout.gpus] == ["n1/0", "n1/1", "n2/0", "n2/1"]
    assert snapshot.columns["gpu.power"].values.tolist() == [10, 20, 30, 40]


def test_a_silent_gpu_turns_stale_then_lost_and_comes_back() -> None:
    made, clock = monitor(gpu_batch(AT, "n1", [10, 20]))
    seen = []
    for step in range(1, 40):
        clock.now = AT + 2 * step
        power = [10, 20] if step > 35 else [10, np.nan]
        made.collector.take(made.collector.supervised[0], gpu_batch(clock.now, "n1", power))
        seen.append(int(made.snapshot().gpu_status[1]))
    order = [Status.OK, Status.STALE, Status.LOST, Status.OK]
    assert [s for n, s in enumerate(seen) if n == 0 or seen[n - 1] != s] == order


def test_a_gpu_that_its_source_calls_lost_is_lost_at_once() -> None:
    batch = gpu_batch(AT, "n1", [10, np.nan])
    reasons = np.array([[Missing.PRESENT], [Missing.LOST]], dtype=np.uint8)
    made, _ = monitor(Batch(AT, Kind.GPU, batch.entities, batch.metrics, batch.values, reasons))
    snapshot = made.snapshot()
    assert snapshot.gpu_status.tolist() == [Status.OK, Status.LOST]
    assert snapshot.columns["gpu.power"].reason.tolist() == [Missing.PRESENT, Missing.LOST]
    assert snapshot.coverage.gpus == 1
    assert snapshot.coverage.gpus_expected == 2


def test_jobs_point_at_their_gpus() -> None:
    made, _ = monitor(
        gpu_batch(AT, "n1", [10, 20]),
        JobFact(AT - 60, None, "slurm:7", "train", "kim", ("n1",), (GpuRef("n1", "GPU-n1-1"),)),
    )
    snapshot = made.snapshot()
    assert snapshot.gpu_job.tolist() == [-1, 0]
    assert snapshot.jobs[0].gpus == (1,)
    assert snapshot.jobs[0].bare_id == "7"


def test_coverage_counts_what_is_expected() -> None:
    made, clock = monitor(
        gpu_batch(AT, "n1", [10]),
        NodeFact(AT, "n1", gpu_pci=("0000:10:00.0", "0000:11:00.0")),
        Target(AT, "n1", TargetState.OK, ("n1",)),
        Target(AT, "n9", TargetState.FAILING, detail="refused"),
    )
    coverage = made.snapshot().coverage
    assert (coverage.nodes, coverage.nodes_expected) == (1, 2)
    assert (coverage.gpus, coverage.gpus_expected) == (1, 2)
    clock.now += 60
    assert made.snapshot().coverage.nodes == 0


def test_the_silent_exporters_of_a_host_are_one_node() -> None:
    made, _ = monitor(
        gpu_batch(AT, "n1", [10]),
        Target(AT, "n1:9400", TargetState.OK, ("n1",), what="dcgm-exporter"),
        *(
            Target(AT, name, TargetState.FAILING, detail="refused")
            for name in ("n1:9100", "n9:9100", "n9:9400/metrics")
        ),
    )
    coverage = made.snapshot().coverage
    assert (coverage.nodes, coverage.nodes_expected) == (1, 2)


def test_series_come_by_key_and_strangers_are_missing() -> None:
    made, _ = monitor(*(gpu_batch(AT + 2 * n, "n1", [n, 2 * n]) for n in range(5)))
    answer = made.read(SeriesQuery(("gpu.power",), ("n1/1", "n1/0", "nobody/3"), AT, AT + 10, 5))
    assert answer.values["gpu.power"][0].tolist() == [0, 2, 4, 6, 8]
    assert answer.values["gpu.power"][1].tolist() == [0, 1, 2, 3, 4]
    assert np.isnan(answer.values["gpu.power"][2]).all()
    assert answer.times[0] == AT + 1


def test_a_snapshot_does_not_change_after_it_was_made() -> None:
    made, clock = monitor(gpu_batch(AT, "n1", [10, 20]))
    first = made.snapshot()
    clock.now += 2
    made.collector.take(made.collector.supervised[0], gpu_batch(clock.now, "n1", [99, 99]))
    made.snapshot()
    assert first.columns["gpu.power"].values.tolist() == [10, 20]


def test_the_layout_is_the_same_object_while_nothing_moves() -> None:
    made, clock = monitor(gpu_batch(AT, "n1", [10, 20]))
    first = made.snapshot().layout
    clock.now += 2
    made.collector.take(made.collector.supervised[0], gpu_batch(clock.now, "n1", [99, 99]))
    assert made.snapshot().layout is first


async def test_it_publishes_while_a_source_is_silent() -> None:
    made = Monitor([ScriptedSource("mute", [])], MonitorSettings(interval=0.1), SteadyClock())
    published: list[Snapshot] = []
    task = asyncio.create_task(made.run(published.append))
    try:
        async with asyncio.timeout(10):
            while len(published) < 2:
                await asyncio.sleep(0.01)
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


def test_the_thread_answers_queries_and_ends() -> None:
    arrived = threading.Event()
    failures: list[BaseException] = []

    def publish(snapshot):
        if snapshot.layout.nodes:
            arrived.set()

    now = time.time()
    source = ScriptedSource("s", [node_batch(now, ["n1"], [3.0])])
    thread = MonitorThread(lambda clock: [source], MonitorSettings(interval=0.1), publish, failures.append)
    thread.start()
    assert arrived.wait(10)
    answer = thread.query(SeriesQuery(("node.load1",), ("n1",), now - 1, now + 1, 1)).result(10)
    assert answer.values["node.load1"][0, 0] == 3
    assert thread.stop(5)
    assert source.ended == 1
    assert not failures
    assert thread.query(SeriesQuery(("node.load1",), ("n1",), 0, 1, 1)).cancelled()


def test_a_failure_to_build_reaches_whoever_started_it() -> None:
    failures: list[BaseException] = []
    ended = threading.Event()

    def build(clock):
        raise RuntimeError("no sources")

    def failed(error):
        failures.append(error)
        ended.set()

    thread = MonitorThread(build, MonitorSettings(), lambda snapshot: None, failed)
    thread.start()
    assert ended.wait(10)
    assert isinstance(failures[0], RuntimeError)
    assert thread.stop(5)


@pytest.mark.parametrize("interval", [0.1])
def test_stop_before_anything_happened(interval: float) -> None:
    thread = MonitorThread(
        lambda clock: [], MonitorSettings(interval=interval), lambda snapshot: None, lambda error: None
    )
    thread.start()
    assert thread.stop(5)


def test_who_still_tells_the_past_is_not_lost() -> None:
    made, clock = monitor(gpu_batch(AT, "n1", [10, 20]))
    clock.now += 600
    made.collector.supervised[0].filling = True
    assert made.snapshot().gpu_status.tolist() == [Status.UNKNOWN, Status.UNKNOWN]
    made.collector.supervised[0].filling = False
    assert made.snapshot().gpu_status.tolist() == [Status.LOST, Status.LOST]


def server_batch(at: float, up: float) -> Batch:
    values = np.array([[up, 12.0 if up else np.nan]], dtype=np.float32)
    entity = (ServerRef("10.244.1.7", "10.244.1.7:8000"),)
    return Batch(at, Kind.SERVER, entity, ("serve.up", "serve.running"), values)


def test_a_node_that_only_a_server_knows_is_heard_through_it_until_it_is_down() -> None:
    made, clock = monitor(server_batch(AT, 1))
    first = made.snapshot()
    assert [(node.key, len(node.servers)) for node in first.layout.nodes] == [("10.244.1.7", 1)]
    assert (first.server_status.tolist(), first.node_status.tolist()) == ([Status.OK], [Status.OK])
    for step in (1, 2):
        clock.now = AT + 2 * step
        made.collector.take(made.collector.supervised[0], server_batch(clock.now, 0))
    down = made.snapshot()
    assert (down.server_status.tolist(), down.node_status.tolist()) == ([Status.LOST], [Status.LOST])
    assert down.columns["serve.up"].values.tolist() == [0]


def test_a_jobs_metrics_are_in_the_order_of_the_jobs_and_have_a_past() -> None:
    refs = (JobRef("slurm:9"), JobRef("slurm:4711"))
    values = np.array([[3.0], [0.8]], dtype=np.float32)
    made, _ = monitor(
        gpu_batch(AT, "n1", [10, 20]),
        JobFact(AT - 60, None, "slurm:4711", "train", "kim", ("n1",), (GpuRef("n1", index=0),)),
        JobFact(AT - 30, None, "slurm:4712", "eval", "kim", ("n1",), (GpuRef("n1", index=1),)),
        Batch(AT, Kind.JOB, refs, ("job.step_time",), values),
    )
    snapshot = made.snapshot()
    assert [job.bare_id for job in snapshot.jobs] == ["4711", "4712"]
    column = snapshot.columns["job.step_time"]
    assert column.values[0] == pytest.approx(0.8)
    assert np.isnan(column.values[1]), "job 4712 says nothing of itself; job 9 holds no GPU that is known"
    answer = made.read(SeriesQuery(("job.step_time",), ("slurm:4711", "slurm:4712"), AT - 5, AT + 5, 1))
    assert answer.values["job.step_time"][:, 0].tolist() == [
        pytest.approx(0.8),
        pytest.approx(np.nan, nan_ok=True),
    ]


def test_a_racks_metrics_have_a_past() -> None:
    made, _ = monitor(
        gpu_batch(AT, "n1", [10]),
        NodeFact(AT, "n1", rack="r07", place="test"),
        Batch(AT, Kind.RACK, (RackRef("r07"),), ("rack.power",), np.array([[31e3]], dtype=np.float32)),
    )
    assert made.snapshot().columns["rack.power"].values.tolist() == [31e3]
    answer = made.read(SeriesQuery(("rack.power",), ("r07",), AT - 5, AT + 5, 1))
    assert answer.values["rack.power"].tolist() == [[31e3]]
