"""Every detector on telemetry that is broken: no exception, and nothing invented."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from functools import cache

import numpy as np
import pytest
from lab.telemetry import AT, gpus, jitter, job, said_of, window_of, xid
from numpy.typing import NDArray

from coldaisle.analyzers.detectors import Ready, detectors
from coldaisle.analyzers.diagnosis import look
from coldaisle.analyzers.finding import Severity
from coldaisle.analyzers.rules import rules
from coldaisle.analyzers.window import Window
from coldaisle.sources.catalog import catalog, kind_of
from coldaisle.sources.source import Event, Kind, Missing, NodeRef

GPUS = gpus("n01", "n02")
PORTS = tuple(f"{node}/mlx5_{port}/1" for node in ("n01", "n02") for port in range(8))
SERVERS = ("n03:8000",)
KINDS = (Kind.GPU, Kind.NODE, Kind.PORT, Kind.SERVER)
KEYS = tuple(key for key in catalog() if kind_of(key) in KINDS)
POLLS = 200

HEALTHY: Mapping[str, float] = {
    "gpu.util": 0.98, "gpu.mem_util": 0.5, "gpu.gr_active": 0.97, "gpu.sm_active": 0.85, "gpu.sm_occupancy": 0.4,
    "gpu.tensor_active": 0.5, "gpu.dram_active": 0.4, "gpu.power": 610.0, "gpu.energy": 610.0, "gpu.power_limit": 700.0,
    "gpu.power_max": 700.0, "gpu.temp": 62.0, "gpu.mem_temp": 76.0, "gpu.temp_slowdown": 87.0, "gpu.mem_temp_max": 95.0,
    "gpu.sm_clock": 1755.0, "gpu.mem_clock": 2619.0, "gpu.throttle": 0.0, "gpu.mem_ratio": 0.85, "gpu.nvlink_tx": 5e10,
    "gpu.nvlink_rx": 5e10, "gpu.pcie_tx": 2e9, "gpu.pcie_rx": 4e9, "node.cpu_util": 0.3, "node.mem_ratio": 0.4,
    "node.load1": 60.0, "port.tx": 1.5e10, "port.rx": 1.5e10, "port.rate": 5e10,
}  # fmt: skip
"""A dense job on two nodes."""
QUIET = tuple(
    key for key in KEYS
    if key.partition(".")[0] in ("gpu", "node", "port") and any(word in key for word in ("ecc", "violation", "remap", "retired", "oom", "err", "psi", "wait"))
)  # fmt: skip
"""What is 0 where all is well."""


def healthy(**other: object) -> dict[str, object]:
    rows = {Kind.GPU: len(GPUS), Kind.NODE: 2, Kind.PORT: len(PORTS)}
    made: dict[str, object] = {key: np.zeros((POLLS, rows[kind_of(key)])) for key in QUIET}
    for number, (key, value) in enumerate(HEALTHY.items()):
        if key in catalog():
            jittered = value * jitter((POLLS, rows[kind_of(key)]), 0.004, number)
            made[key] = np.minimum(jittered, 1.0) if catalog()[key].unit == "ratio" else jittered
    for key in (
        "gpu.power_limit",
        "gpu.power_max",
        "gpu.temp_slowdown",
        "gpu.mem_temp_max",
        "gpu.throttle",
        "port.rate",
    ):
        made[key] = np.full((POLLS, rows[kind_of(key)]), HEALTHY[key])
    return {**made, **other}


def of_two_nodes(metrics: Mapping[str, object], **more: object) -> Window:
    told = {
        "gpus": GPUS,
        "nodes": ("n01", "n02"),
        "ports": PORTS,
        "jobs": [job("1", GPUS)],
        "polls": POLLS,
        **more,
    }
    return window_of(metrics=metrics, **told)  # type: ignore[arg-type]


@cache
def everything(value: float) -> Window:
    return window_of(
        gpus=GPUS, nodes=("n01", "n02", "n03"), ports=PORTS, servers=SERVERS, polls=30, jobs=[job("1", GPUS)],
        metrics=dict.fromkeys(KEYS, np.float32(value)),
    )  # fmt: skip


def all_blank() -> Window:
    """Everybody answers, and every value but one is missing."""
    cells = np.full((POLLS, len(GPUS)), np.nan)
    metrics: dict[str, object] = {key: cells for key in KEYS if kind_of(key) is Kind.GPU}
    return of_two_nodes({**metrics, "gpu.mem_total": np.full((POLLS, len(GPUS)), 8.5e10)})


def nothing_at_all() -> Window:
    return window_of(metrics={})


def no_sample_yet() -> Window:
    return window_of(gpus=GPUS, nodes=("n01", "n02"), jobs=[job("1", GPUS)], metrics={})


def one_sample() -> Window:
    return of_two_nodes({key: np.asarray(array)[-1:] for key, array in healthy().items()}, polls=1)


def one_gpu_one_sample() -> Window:
    return window_of(gpus=("n01/0",), metrics={"gpu.util": 1.0, "gpu.power": 500.0}, with_facts=False)


def constant() -> Window:
    """A board that idles really does not move: whole degrees, whole watts of a coarse sensor."""
    idle = {
        "gpu.util": 0.0,
        "gpu.power": 71.0,
        "gpu.temp": 31.0,
        "gpu.sm_clock": 345.0,
        "gpu.throttle": 1.0,
        "gpu.mem_ratio": 0.0,
    }
    return window_of(gpus=GPUS, polls=POLLS, metrics=idle)


def counters_reset() -> Window:
    """Counts fall back to 0 in the middle: the driver was loaded again."""
    reset = np.where(np.arange(POLLS) < POLLS // 2, 7.0, 0.0)[:, None] * np.ones((1, len(GPUS)))
    return of_two_nodes(healthy(**{"gpu.ecc_dbe": reset, "gpu.remapped_uncorrectable": reset, "gpu.ecc_sbe": reset, "gpu.xid_last": np.where(reset > 0, 79.0, 0.0)}))  # fmt: skip


def clock_jumps() -> Window:
    """The newest samples are of five minutes ago, and events of the future."""
    return of_two_nodes(healthy(), late=8.0, events=[xid("n01/0", 79, AT + 600.0)])


def gaps() -> Window:
    """One sample in ten is missing, and thirty seconds of all."""
    draw = np.random.default_rng(3)
    made = {}
    for key, array in healthy().items():
        holes = np.array(array)
        holes[draw.random(holes.shape) < 0.1] = np.nan
        holes[-20:-14] = np.nan
        made[key] = holes
    return of_two_nodes(made)


def job_changes_its_gpus() -> Window:
    """The job ran on the first node until a minute ago, and now it runs on the second."""
    util = np.ones((POLLS, len(GPUS))) * 0.98
    util[-12:, :8] = 0.0
    util[:-12, 8:] = 0.0
    power = np.where(util > 0, 610.0, 75.0) * jitter(util.shape, 0.005)
    jobs = [job("1", GPUS[:8], until=AT - 60.0), job("1", GPUS[8:], since=AT - 60.0)]
    return of_two_nodes(healthy(**{"gpu.util": util, "gpu.power": power}), jobs=jobs)


def two_jobs_on_a_gpu() -> Window:
    return of_two_nodes(healthy(), jobs=[job("1", GPUS), job("2", GPUS[:4])])


def strange_events() -> Window:
    hostile = ["XID", "XID : :", "XID 99999999999", "\x1b[31mXID", "", "Xid (PCI:0000:10:00.0): ٣٤, x"]
    events = [Event(AT - 5, None, "xid", text) for text in hostile]
    events += [Event(AT - 5, NodeRef("n01"), "xid", text) for text in hostile]
    return of_two_nodes(healthy(), events=events)


WORLDS: tuple[Callable[[], Window], ...] = (
    nothing_at_all, no_sample_yet, all_blank, one_sample, one_gpu_one_sample, constant, counters_reset, clock_jumps, gaps,
    job_changes_its_gpus, two_jobs_on_a_gpu, strange_events,
)  # fmt: skip


@cache
def made(world: Callable[[], Window]) -> Window:
    return world()


@pytest.mark.parametrize("ready", detectors(), ids=lambda ready: ready.name)
@pytest.mark.parametrize("world", WORLDS, ids=lambda world: world.__name__)
def test_nothing_is_invented(world: Callable[[], Window], ready: Ready) -> None:
    said = said_of(ready, made(world))
    assert [one for one in said.candidates if one.severity >= Severity.WARNING] == []


@pytest.mark.parametrize("ready", detectors(), ids=lambda ready: ready.name)
@pytest.mark.parametrize("value", [0.0, 1.0, 50.0, 1e9, -1.0, float("inf"), float("nan")])
def test_every_metric_there_is_at_one_absurd_value(value: float, ready: Ready) -> None:
    said = said_of(ready, everything(value))
    for one in said.candidates:
        assert 0.0 <= one.loss <= 1.0
        assert 0.0 <= one.confidence <= 1.0
        assert one.since <= AT
        assert np.isfinite(one.since)


@pytest.mark.parametrize("ready", detectors(), ids=lambda ready: ready.name)
@pytest.mark.parametrize("seed", range(24))
def test_noise(seed: int, ready: Ready) -> None:
    """Random numbers within each metric's range, random holes, random steps: whatever is said is said in order."""
    said = said_of(ready, noise(seed))
    for one in said.candidates:
        assert 0.0 <= one.loss <= 1.0, one
        assert -np.inf < one.since <= AT, one
        assert one.variant in rules(ready.name).text, one


@cache
def noise(seed: int) -> Window:
    draw = np.random.default_rng(seed)
    chosen = draw.choice(KEYS, size=int(draw.integers(1, len(KEYS))), replace=False).tolist()
    rows = {Kind.GPU: len(GPUS), Kind.NODE: 3, Kind.PORT: len(PORTS), Kind.SERVER: 1}
    polls = int(draw.choice([1, 2, 3, 7, 40, 200]))
    metrics = {key: _noise(draw, key, (polls, rows[kind_of(key)])) for key in chosen}
    return window_of(
        gpus=GPUS, nodes=("n01", "n02", "n03"), ports=PORTS, servers=SERVERS, metrics=metrics, step=float(draw.choice([1, 5, 30, 60])),
        jobs=[job("1", GPUS[:12]), job("2", GPUS[8:])][: int(draw.integers(0, 3))], with_facts=bool(draw.integers(0, 2)),
    )  # fmt: skip


def _noise(draw: np.random.Generator, key: str, shape: tuple[int, int]) -> NDArray[np.float64]:
    metric = catalog()[key]
    values = draw.uniform(max(metric.low, 0.0), min(metric.high, 1e5), shape)
    if draw.random() < 0.3:
        values = np.rint(values)
    values[draw.random(shape) < draw.choice([0.0, 0.1, 0.9])] = np.nan
    return values


def test_nobody_fails_behind_our_back(caplog: pytest.LogCaptureFixture) -> None:
    """The supervision that keeps a detector's failure from the others hides none here."""
    with caplog.at_level(logging.ERROR):
        for world in WORLDS:
            assert not any(said.failed for said in look(made(world), detectors()).values()), world.__name__
    assert caplog.records == []


def test_lost_is_said_by_no_blank() -> None:
    """That a value is blank is no sign of a lost board; only its source can say that."""
    window = all_blank()
    column = window.latest("gpu.power")
    assert column is not None
    assert set(column.reason.tolist()) == {Missing.BLANK}
