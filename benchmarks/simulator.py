"""What the simulated cluster costs: filling a demo's past, and a tick of a large cluster."""

from __future__ import annotations

import asyncio
import time

from benchmarks.row import Row
from coldaisle.sources.simulator.source import SimulatorSource

NOW = 1_795_318_000.0


async def spent(source: SimulatorSource, seconds: float, step: float) -> float:
    """Seconds of CPU to read that much of the past, warm-up and facts included."""
    began = time.process_time()
    async for _ in source.read(NOW - seconds, NOW, step):
        pass
    return time.process_time() - began


def measure() -> list[Row]:
    """The rows of this bench."""
    demo = asyncio.run(spent(SimulatorSource(16, 4, 8), 900, 5))
    large = SimulatorSource(128, 8, 8)
    start = asyncio.run(spent(large, 2, 2))
    ticks = asyncio.run(spent(large, 42, 2)) - start
    return [
        Row("simulator: 15 minutes of 512 GPUs at 5 s", demo, "s CPU", 1.0, "lower"),
        Row("simulator: 8,192 GPUs, start", start, "s CPU", None, "lower"),
        Row("simulator: 8,192 GPUs, a tick", ticks / 20 * 1e3, "ms CPU", 60.0, "lower"),
    ]


if __name__ == "__main__":
    for row in measure():
        print(row)
