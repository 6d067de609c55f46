"""A large cluster's samples without its physics: what the way from batch to snapshot is measured with."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterator

import numpy as np

from coldaisle.sources.catalog import catalog
from coldaisle.sources.source import Batch, GpuRef, Item, Kind, Rank

RACKS, NODES, GPUS, METRICS = 128, 8, 8, 24


class Made:
    """A source of 8,192 GPUs with 24 metrics; a batch a tick, as every source gives them."""

    name = "made"
    kind = "made"
    rank = Rank.PROBE

    def __init__(self, interval: float = 5.0) -> None:
        """`interval` in seconds."""
        self.interval = interval
        self.metrics = tuple(key for key in catalog() if key.startswith("gpu."))[:METRICS]
        self.gpus = tuple(
            GpuRef(
                f"r{rack:03}n{node}", f"GPU-{rack}-{node}-{slot}", f"0000:{0x10 + slot:02x}:00.0", slot, slot
            )
            for rack in range(RACKS)
            for node in range(NODES)
            for slot in range(GPUS)
        )

    def batches(self, start: float, count: int) -> Iterator[Batch]:
        """`count` batches from `start` on; every value changes, one in fifty is missing."""
        draw = np.random.default_rng(1)
        size = (len(self.gpus), len(self.metrics))
        for tick in range(count):
            values = draw.random(size, dtype=np.float32)
            values[draw.random(size, dtype=np.float32) < 0.02] = np.nan
            yield Batch(start + tick * self.interval, Kind.GPU, self.gpus, self.metrics, values)

    async def stream(self) -> AsyncGenerator[Item, None]:
        """Nothing: the measurement hands the batches over by itself."""
        return
        yield
