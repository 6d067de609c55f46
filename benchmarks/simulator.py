"""What the simulated cluster costs: filling a demo's past, and a tick of a large cluster."""

from __future__ import annotations

import asyncio
import time
from statistics import median

from benchmarks.row import Row
from coldaisle.sources.simulator.source import SimulatorSource
from coldaisle.sources.source import Batch, Kind

NOW = 1_795_318_000.0


async def spent(source: SimulatorSource, seconds: float, step: float) -> float:
    """Seconds of CPU to read that much of the past, warm-up and facts included."""
    began = time.process_time()
    async for _ in source.read(NOW - seconds, NOW, step):
        pass
    return time.process_time() - began


async def each_tick(source: SimulatorSource, ticks: int) -> list[float]:
    """Seconds of CPU of each tick of a run, its start left out."""
    costs: list[float] = []
    began = time.process_time()
    async for item in source.read(NOW, NOW + 2.0 * ticks, 2):
        if isinstance(item, Batch) and item.kind is Kind.RACK:
            costs.append(time.process_time() - began)
            began = time.process_time()
    return costs[1:]


def measure() -> list[Row]:
    """The rows of this bench."""
    demo = asyncio.run(spent(SimulatorSource(16, 4, 8), 900, 5))
    large = SimulatorSource(128, 8, 8)
    start = asyncio.run(spent(large, 2, 2))
    tick = median(asyncio.run(each_tick(large, 21)))
    return [
        Row("simulator: 15 minutes of 512 GPUs at 5 s", demo, "s CPU", 1.0, "lower"),
        Row("simulator: 8,192 GPUs, start", start, "s CPU", None, "lower"),
        Row("simulator: 8,192 GPUs, a tick", tick * 1e3, "ms CPU", 60.0, "lower"),
    ]


if __name__ == "__main__":
    for row in measure():
        print(row)
