"""Watches a cluster as the dashboard does: sources, monitor, snapshots; and waits for what should be seen."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

from coldaisle.analyzers.monitor import Monitor, MonitorSettings
from coldaisle.analyzers.snapshot import Snapshot
from coldaisle.sources.cluster import Job
from coldaisle.sources.collector import SteadyClock
from coldaisle.sources.source import Source


@dataclass(slots=True)
class Watched:
    """The cluster as it is seen."""

    monitor: Monitor
    news: asyncio.Event
    snapshot: Snapshot | None = None

    @property
    def now(self) -> Snapshot:
        """The last picture."""
        assert self.snapshot is not None
        return self.snapshot

    def job(self, number: str) -> Job | None:
        """A job that runs or waits."""
        jobs = (*self.now.jobs, *self.now.queue)
        return next((job for job in jobs if job.bare_id == number), None)

    def gpus_of(self, number: str) -> dict[str, list[int]]:
        """Node → slots of the GPUs that a job holds, as the cells show them."""
        held: dict[str, list[int]] = {}
        for index, owner in enumerate(self.now.gpu_job):
            if owner >= 0 and self.now.jobs[owner].bare_id == number:
                gpu = self.now.layout.gpus[index]
                held.setdefault(self.now.layout.nodes[gpu.node].key, []).append(gpu.slot)
        return held

    async def until(self, what: str, test: Callable[[Watched], bool], seconds: float = 30.0) -> Snapshot:
        """The first picture for which it holds; AssertionError after ``seconds``."""
        try:
            async with asyncio.timeout(seconds):
                while self.snapshot is None or not test(self):
                    self.news.clear()
                    await self.news.wait()
        except TimeoutError:
            said = "\n".join(map(str, self.snapshot.sources)) if self.snapshot else "no picture"
            raise AssertionError(f"not within {seconds:g} s: {what}\n{said}") from None
        return self.now


@asynccontextmanager
async def watching(*sources: Source, interval: float = 0.2) -> AsyncIterator[Watched]:
    """Run them in the background; what they started ends with the block."""
    watched = Watched(Monitor(sources, MonitorSettings(interval=interval), SteadyClock()), asyncio.Event())

    def publish(snapshot: Snapshot) -> None:
        watched.snapshot = snapshot
        watched.news.set()

    task = asyncio.create_task(watched.monitor.run(publish))
    try:
        yield watched
        if task.done():
            task.result()
    finally:
        task.cancel()
        await asyncio.wait({task}, timeout=15.0)
        assert task.done(), "the monitor did not end"
