"""Small clusters whose GPUs work together, as arrays over time: what a window shows of them, by the program's own way.

Samples go through ``Collector.take``, the window comes of ``View`` and ``Windows``.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from coldaisle.analyzers.detectors import detectors
from coldaisle.analyzers.diagnosis import Windows
from coldaisle.analyzers.finding import Candidate, Verdict
from coldaisle.analyzers.monitor import Monitor, MonitorSettings
from coldaisle.analyzers.view import View
from coldaisle.analyzers.window import Window
from coldaisle.sources.catalog import kind_of
from coldaisle.sources.collector import SteadyClock
from coldaisle.sources.racks import RackRules
from coldaisle.sources.source import (
    Batch,
    EntityRef,
    GpuFact,
    GpuRef,
    Item,
    JobFact,
    Kind,
    NodeFact,
    NodeRef,
    PortRef,
    Rank,
    ServerFact,
    ServerRef,
)

NOW = 1772331180.0
"""A whole minute."""
MODEL = "NVIDIA H100 80GB HBM3"
Array = NDArray[np.floating]


class Told:
    """A source whose items are handed over by the test."""

    name, kind, rank = "told", "told", Rank.EXPORTER

    def __init__(self, interval: float) -> None:
        """`interval` in seconds."""
        self.interval = interval

    async def stream(self) -> AsyncGenerator[Item, None]:
        return
        yield


class Stopped(SteadyClock):
    """It is always the same time."""

    def __init__(self, now: float) -> None:
        """`now` in seconds since the epoch."""
        self._now = now
        super().__init__(lambda: now, lambda: now)

    def __call__(self) -> float:
        return self._now


@dataclass
class World:
    """Nodes of GPUs over a span that ends at NOW. Values: [time], [time, entity] or one number, in canonical units."""

    nodes: int = 1
    gpus: int = 8
    step: float = 5.0
    span: float = 3600.0
    values: dict[str, Array | float] = field(default_factory=dict)
    job: str | None = "slurm:4711"
    """The job that holds all GPUs; None: nobody knows of jobs."""
    job_fact: Mapping[str, object] = field(default_factory=dict)
    jobs: Sequence[JobFact] = ()
    server: bool = False
    drops: float = 0.0
    """Share of values that never arrived."""
    end: float = NOW
    model: str = MODEL

    @property
    def times(self) -> NDArray[np.float64]:
        """Seconds since the epoch of the samples."""
        return self.end - self.step * np.arange(round(self.span / self.step), -1, -1.0)

    @property
    def ago(self) -> NDArray[np.float64]:
        """Seconds before the end."""
        return self.end - self.times

    def refs(self, kind: Kind) -> tuple[EntityRef, ...]:
        """The entities, in reading order."""
        nodes = [f"n{number:02}" for number in range(self.nodes)]
        match kind:
            case Kind.GPU:
                return tuple(self.gpu(number) for number in range(self.nodes * self.gpus))
            case Kind.NODE:
                return tuple(NodeRef(node) for node in nodes)
            case Kind.PORT:
                return tuple(PortRef(node, "mlx5_0/1") for node in nodes)
            case _:
                return (ServerRef("n00", ":8000"),)

    def gpu(self, number: int) -> GpuRef:
        """One of them."""
        node, slot = divmod(number, self.gpus)
        return GpuRef(f"n{node:02}", f"GPU-{node}-{slot}", f"0000:{0x10 + slot:02x}:00.0", slot, slot)

    def set(self, **values: Array | float) -> World:
        """Metrics, with ``__`` for the dot: ``gpu__util=...``."""
        self.values |= {key.replace("__", "."): value for key, value in values.items()}
        return self

    def items(self) -> Iterator[Item]:
        """All that its source tells."""
        for ref in self.refs(Kind.GPU):
            assert isinstance(ref, GpuRef)
            yield GpuFact(0.0, ref, model=self.model)
        for ref in self.refs(Kind.NODE):
            yield NodeFact(0.0, ref[0], cpus=128)
        if self.job:
            gpus = tuple(self.gpu(number) for number in range(self.nodes * self.gpus))
            names = tuple(ref[0] for ref in self.refs(Kind.NODE))
            fact = {"since": self.end - 7 * 3600, "name": "train", "user": "ada", **self.job_fact}
            yield JobFact(until=None, id=self.job, nodes=names, gpus=gpus, **fact)  # type: ignore[arg-type]
        yield from self.jobs
        if self.server:
            gpus = tuple(self.gpu(number) for number in range(self.gpus))
            yield ServerFact(0.0, ServerRef("n00", ":8000"), engine="vLLM", model="m", gpus=gpus)
        yield from self.batches()

    def batches(self) -> Iterator[Batch]:
        """Samples, instant by instant."""
        draw = np.random.default_rng(3)
        tables = []
        for kind in (Kind.GPU, Kind.NODE, Kind.PORT, Kind.SERVER):
            keys = tuple(key for key in self.values if kind_of(key) is kind)
            refs = self.refs(kind)
            if keys:
                shaped = [_shaped(self.values[key], len(self.times), len(refs)) for key in keys]
                table = np.stack(shaped, axis=2).astype(np.float32)
                table[draw.random(table.shape) < self.drops] = np.nan
                tables.append((kind, refs, keys, table))
        for row, at in enumerate(self.times):
            for kind, refs, keys, table in tables:
                yield Batch(float(at), kind, refs, keys, table[row])

    def window(self) -> Window:
        """At its end."""
        monitor = Monitor([Told(self.step)], MonitorSettings(), Stopped(self.end))
        for item in self.items():
            monitor.collector.take(monitor.collector.supervised[0], item)
        view = View(monitor.collector, "atlas", RackRules())
        return Windows(view).at(view.snapshot(self.end, None))

    def verdict(self, name: str, window: Window | None = None) -> Verdict:
        """What one detector says of its end."""
        (ready,) = detectors(only=frozenset({name}))
        verdict: Verdict = ready.module.detect(window or self.window(), ready.thresholds)
        return verdict

    def found(self, name: str) -> list[Candidate]:
        """Its candidates that open a finding."""
        return [one for one in self.verdict(name).candidates if one.is_open]


def _shaped(values: Array | float, times: int, entities: int) -> Array:
    array = np.asarray(values, dtype=np.float64)
    if array.ndim == 1 and len(array) == times:
        array = array[:, None]
    return np.broadcast_to(array, (times, entities)).copy()


def noise(world: World, size: float, seed: int = 1) -> Array:
    """[time, gpu]"""
    return np.random.default_rng(seed).normal(0, size, (len(world.times), world.nodes * world.gpus))


def working(world: World, power: float = 560.0) -> World:
    """GPUs that train at full speed, with dcgm-exporter's default fields."""
    return world.set(
        gpu__util=np.clip(0.995 + noise(world, 0.004), 0, 1),
        gpu__power=power + noise(world, 12.0, 2),
        gpu__mem_util=0.4 + noise(world, 0.03, 4),
        gpu__sm_clock=1755.0 + noise(world, 4.0, 3),
        gpu__temp=62.0,
        gpu__mem_used=6e10,
        gpu__nvlink_bandwidth=1.2e11 + noise(world, 5e9, 5),
    )


def calm_hosts(world: World) -> World:
    """node_exporter's view of hosts with little to do."""
    return world.set(
        node__cpu_util=0.12, node__psi_cpu_some=0.01, node__psi_io_some=0.005, node__cpu_iowait=0.002,
        node__disk_read=4e6, node__disk_write=2e6, node__nfs_read=3e6, node__nfs_write=1e5,
    )  # fmt: skip
