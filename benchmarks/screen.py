"""One repaint of 8,192 GPUs on the Racks screen at 200x50: from a snapshot to the terminal's bytes."""

from __future__ import annotations

import asyncio
import sys
import time
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from rich.console import RenderableType
from textual._compositor import CompositorUpdate
from textual.screen import Screen

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "tests"), str(ROOT)]

from lab.snapshots import FakeFeed  # noqa: E402

from benchmarks.row import Row  # noqa: E402
from coldaisle.analyzers.monitor import Monitor, MonitorSettings  # noqa: E402
from coldaisle.analyzers.snapshot import Snapshot  # noqa: E402
from coldaisle.sources.catalog import kind_of  # noqa: E402
from coldaisle.sources.collector import SteadyClock  # noqa: E402
from coldaisle.sources.simulator.source import SimulatorSource  # noqa: E402
from coldaisle.sources.source import Batch, Kind  # noqa: E402
from coldaisle.tui.app import ColdaisleApp  # noqa: E402

SIZE = (200, 50)
INTERVAL = 2.0
TICKS = 12
STARTED = 1_772_330_400.0


class Counted(ColdaisleApp):
    """The app, rendering to bytes that are counted instead of sent."""

    sent = 0
    frames = 0

    def _display(self, screen: Screen[Any], renderable: RenderableType | None) -> None:
        super()._display(screen, renderable)
        if isinstance(renderable, CompositorUpdate):
            self.sent += len(renderable.render_segments(self.console).encode())
            self.frames += 1


async def snapshots() -> list[Snapshot]:
    """The demo's data at that size, a tick apart."""
    source = SimulatorSource(128, 8, 8, seed=1, interval=INTERVAL)
    now = STARTED

    clock = SteadyClock(wall=lambda: STARTED, steady=lambda: now - STARTED)
    monitor = Monitor([source], MonitorSettings(name="demo"), clock)
    found = []
    async for item in source.read(STARTED, STARTED + TICKS * INTERVAL, INTERVAL):
        if isinstance(item, Batch) and item.at > now:
            found.append(monitor.snapshot())
            now = item.at
        monitor.collector.take(monitor.collector.supervised[0], item)
    return found


def shifted(snapshot: Snapshot, turns: int) -> Snapshot:
    """The same cluster with every GPU's values given to another: near everything changes, to what is as likely."""
    columns = {
        key: replace(column, values=np.roll(column.values, 131 * turns))
        if kind_of(key) is Kind.GPU
        else column
        for key, column in snapshot.columns.items()
    }
    return replace(snapshot, columns=columns)


async def repaint(app: Counted, feed: FakeFeed, snapshot: Snapshot) -> tuple[float, int]:
    """CPU seconds and bytes from a snapshot to its frame."""
    sent, begin = app.sent, time.process_time()
    frames = app.frames
    feed.send(snapshot)
    async with asyncio.timeout(10.0):
        while app.frames == frames:  # noqa: ASYNC110 (Textual paints by its own timer)
            await asyncio.sleep(0.01)
    cost = time.process_time() - begin
    return cost, app.sent - sent


async def costs() -> tuple[list[tuple[float, int]], list[tuple[float, int]]]:
    """Repaints from tick to tick, and with every value changed."""
    one = await snapshots()
    feed = FakeFeed(one[0])
    app = Counted(feed, clock=lambda: STARTED)
    async with app.run_test(size=SIZE) as pilot:
        await pilot.pause(0.5)
        for snapshot in one[1:3]:
            await repaint(app, feed, snapshot)
        ticks = [await repaint(app, feed, snapshot) for snapshot in one[3:]]
        swaps = [await repaint(app, feed, shifted(one[-1], turn + 1)) for turn in range(TICKS)]
    return ticks, swaps


def measure() -> list[Row]:
    """The rows of the bench table."""
    ticks, swaps = asyncio.run(costs())
    return [
        Row("repaint of 8,192 GPUs at 200x50, a tick of the demo", median(c for c, _ in ticks) * 1e3, "ms CPU", 20.0, "lower"),
        Row("  its bytes", median(b for _, b in ticks) / 1e3, "kB", 130.0, "lower"),
        Row("  when every GPU changes", median(c for c, _ in swaps) * 1e3, "ms CPU", None, "lower"),
        Row("  its bytes", max(b for _, b in swaps) / 1e3, "kB", 130.0, "lower"),
    ]  # fmt: skip


if __name__ == "__main__":
    for row in measure():
        print(row)
