"""False findings on clusters where nothing is wrong: the demo's physics without its faults, by the ten thousand GPU-hours."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Iterator
from typing import NamedTuple

from benchmarks.quality.watching import Seen, watch
from coldaisle.analyzers.finding import Severity
from coldaisle.sources.simulator.source import SimulatorSource
from coldaisle.sources.source import Batch, Item

START = 1_795_318_000.0
HOURS, POLL_S = 5.0, 30.0
RACKS, NODES, GPUS = 32, 8, 8
PUSHES_S, PUSHED = 300.0, 1 / 60
"""Before a finding of a full cache its server did push requests out, at least once a minute: then a burst was too much for it."""


class Healthy(NamedTuple):
    """What was found where there was nothing to find."""

    gpu_hours: float
    false: tuple[str, ...]
    """Ids of findings that are warnings or worse."""
    infos: int
    bursts: int = 0
    """Warnings of a full KV cache that was full: arrivals are random, and the physics pushed requests out."""


Pushes = dict[str, list[float]]
"""By server: when it pushed requests out."""


def healthy_hours(seed: int) -> Healthy:
    """One cluster of 2,048 GPUs for some hours."""
    pushes: Pushes = defaultdict(list)
    watched = watch(_noting(_items(seed), pushes), POLL_S)
    loud = {key: seen for key, seen in watched.seen.items() if seen.worst >= Severity.WARNING}
    false = tuple(key for key, seen in loud.items() if not _was_full(seen, pushes))
    return Healthy(watched.gpu_hours, false, len(watched.seen) - len(loud), len(loud) - len(false))


def _noting(items: Iterator[Item], pushes: Pushes) -> Iterator[Item]:
    """The same items; keeps who pushed requests out."""
    for item in items:
        if isinstance(item, Batch) and "serve.preemptions" in item.metrics:
            rates = item.values[:, item.metrics.index("serve.preemptions")]
            for server, rate in zip(item.entities, rates.tolist(), strict=True):
                if rate >= PUSHED:
                    pushes["/".join(server)].append(item.at)
        yield item


def _was_full(seen: Seen, pushes: Pushes) -> bool:
    if seen.finding.detector != "kv_cache_pressure" or seen.first_loud is None:
        return False
    since = seen.first_loud - PUSHES_S
    return any(since <= at <= seen.last for server in seen.finding.scope.servers for at in pushes[server])


def _items(seed: int) -> Iterator[Item]:
    source = SimulatorSource(RACKS, NODES, GPUS, seed=4000 + seed, interval=POLL_S, lanes=(), drops=0.01)
    reading = source.read(START, START + HOURS * 3600, POLL_S)
    with asyncio.Runner() as runner:
        while True:
            try:
                yield runner.run(anext(reading))
            except StopAsyncIteration:
                return
