"""False findings on clusters where nothing is wrong: the demo's physics without its faults, by the ten thousand GPU-hours."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import NamedTuple

from benchmarks.quality.watching import watch
from coldaisle.analyzers.finding import Severity
from coldaisle.sources.simulator.source import SimulatorSource
from coldaisle.sources.source import Item

START = 1_795_318_000.0
HOURS, POLL_S = 5.0, 30.0
RACKS, NODES, GPUS = 32, 8, 8


class Healthy(NamedTuple):
    """What was found where there was nothing to find."""

    gpu_hours: float
    false: tuple[str, ...]
    """Ids of findings that are warnings or worse."""
    infos: int


def healthy_hours(seed: int) -> Healthy:
    """One cluster of 2,048 GPUs for some hours."""
    watched = watch(_items(seed), POLL_S)
    loud = tuple(key for key, seen in watched.seen.items() if seen.worst >= Severity.WARNING)
    return Healthy(watched.gpu_hours, loud, len(watched.seen) - len(loud))


def _items(seed: int) -> Iterator[Item]:
    source = SimulatorSource(RACKS, NODES, GPUS, seed=4000 + seed, interval=POLL_S, lanes=(), drops=0.01)
    reading = source.read(START, START + HOURS * 3600, POLL_S)
    with asyncio.Runner() as runner:
        while True:
            try:
                yield runner.run(anext(reading))
            except StopAsyncIteration:
                return
