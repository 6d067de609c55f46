"""A source that says what a test tells it to say: the seam's own double, no hardware involved."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence

import numpy as np

from coldaisle.sources.source import Batch, GpuRef, Item, Kind, NodeRef, Rank

Script = Sequence[Item | float | Exception] | Callable[[], AsyncGenerator[Item, None]]


class ScriptedSource:
    """Yields the items of its script; a number waits so many seconds, an exception is raised. Then it stays silent."""

    kind = "scripted"

    def __init__(self, name: str, script: Script, *, rank: Rank = Rank.PROBE, interval: float = 0.05) -> None:
        self.name = name
        self.rank = rank
        self.interval = interval
        self.started = 0
        self.ended = 0
        self._script = script

    async def stream(self) -> AsyncGenerator[Item, None]:
        self.started += 1
        try:
            if callable(self._script):
                async for item in self._script():
                    yield item
                return
            for step in self._script:
                if isinstance(step, Exception):
                    raise step
                if isinstance(step, float):
                    await asyncio.sleep(step)
                else:
                    yield step
            await asyncio.Event().wait()
        finally:
            self.ended += 1


def gpu_batch(at: float, node: str, power: Sequence[float], *, metric: str = "gpu.power") -> Batch:
    """One metric of a node's GPUs."""
    refs = tuple(
        GpuRef(node, f"GPU-{node}-{n}", f"0000:{0x10 + n:02x}:00.0", n, n) for n in range(len(power))
    )
    return Batch(at, Kind.GPU, refs, (metric,), np.array(power, dtype=np.float32)[:, None])


def node_batch(at: float, nodes: Sequence[str], load: Sequence[float]) -> Batch:
    """Load of some nodes."""
    return Batch(
        at, Kind.NODE, tuple(map(NodeRef, nodes)), ("node.load1",), np.array(load, dtype=np.float32)[:, None]
    )
