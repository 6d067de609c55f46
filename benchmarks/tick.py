"""A tick at 8,192 GPUs with 24 metrics off the screen's thread, diagnosis included, and how soon a key shows meanwhile."""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median, quantiles
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "tests"), str(ROOT)]

from lab.terminal import Pty, wait_for  # noqa: E402

from benchmarks.cluster import Made  # noqa: E402
from benchmarks.row import Row  # noqa: E402
from coldaisle.analyzers.detectors import detectors  # noqa: E402
from coldaisle.analyzers.diagnosis import Diagnoser  # noqa: E402
from coldaisle.analyzers.monitor import Monitor, MonitorSettings  # noqa: E402
from coldaisle.sources.collector import SteadyClock  # noqa: E402

TICKS = 144
"""Twelve minutes: the detectors' windows are full then."""
MEASURED = 12
KEYS = 150


class Cost(NamedTuple):
    """Seconds of CPU."""

    first: float
    """Of the first tick, which learns the entities."""
    merge: float
    """From a batch to a snapshot, the median of the last ticks."""
    diagnosis: float
    """All detectors and triage, likewise."""


def tick_cost() -> Cost:
    """Of a cluster of random values: nothing is like anything, and much looks wrong."""
    source = Made()
    monitor = Monitor([source], MonitorSettings(), SteadyClock())
    diagnoser = Diagnoser(monitor.view, detectors())
    costs: list[tuple[float, float]] = []
    for batch in source.batches(time.time() - TICKS * source.interval, TICKS):
        begin = time.thread_time()
        monitor.collector.take(monitor.collector.supervised[0], batch)
        snapshot = monitor.view.snapshot(batch.at, None)
        merged = time.thread_time()
        if len(costs) > TICKS - MEASURED or not costs:
            diagnoser.tick(snapshot)
        costs.append((merged - begin, time.thread_time() - merged))
    last = costs[1 - MEASURED :]
    return Cost(sum(costs[0]), median(cost for cost, _ in last), median(cost for _, cost in last))


def key_to_paint(argv: Sequence[str]) -> list[float]:
    """Seconds from a key to the bytes that answer it, while a dashboard of 8,192 GPUs goes on."""
    delays = []
    with Pty(argv, (200, 50), draws=False, directory=ROOT) as terminal:
        wait_for("the cluster", lambda: b"8192" in terminal.recent, 60.0)
        time.sleep(5.0)
        for turn in range(KEYS):
            terminal.recent = b""
            begin = time.perf_counter()
            terminal.send("\x1b[C" if turn % 20 < 10 else "\x1b[D")
            wait_for("the cursor's line", lambda: CURSOR.search(terminal.recent), 10.0, pause=0.001)
            delays.append(time.perf_counter() - begin)
            time.sleep(0.13)  # out of step with the ticks
    return delays


CURSOR = re.compile(rb"r\d+n\d+/\d")
"""The cursor's line names the GPU that it stands on."""


def measure() -> list[Row]:
    """The rows of the bench table."""
    cost = tick_cost()
    delays = key_to_paint([sys.executable, "-m", "benchmarks.large"])
    return [
        Row("a tick at 8,192 GPUs x 24 metrics (merge and diagnosis)", (cost.merge + cost.diagnosis) * 1e3, "ms CPU", 250.0, "lower"),
        Row("  of this the diagnosis", cost.diagnosis * 1e3, "ms CPU", 250.0, "lower"),
        Row("  the first, which learns the entities", cost.first * 1e3, "ms CPU", None, "lower"),
        Row("a key to its paint meanwhile, 99th percentile", quantiles(delays, n=100)[98] * 1e3, "ms", 50.0, "lower"),
        Row("  the median", median(delays) * 1e3, "ms", None, "lower"),
    ]  # fmt: skip


if __name__ == "__main__":
    for row in measure():
        print(row)
