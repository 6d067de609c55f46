"""Advice at 8,192 GPUs: a look of the running program at its hour, and a month that is looked at as a whole."""

from __future__ import annotations

import asyncio
import sys
import time
from dataclasses import replace
from pathlib import Path
from statistics import median

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "tests"), str(ROOT)]

from lab.month import month  # noqa: E402

from benchmarks.cluster import Made  # noqa: E402
from benchmarks.row import Row  # noqa: E402
from coldaisle.analyzers.advice.counsel import advise, settings  # noqa: E402
from coldaisle.analyzers.advice.live import Counsellor  # noqa: E402
from coldaisle.analyzers.monitor import Monitor, MonitorSettings  # noqa: E402
from coldaisle.sources.collector import SteadyClock  # noqa: E402
from coldaisle.sources.source import JobFact  # noqa: E402

POLL_S, MINUTES, LOOKS = 20.0, 61, 10
GPUS_A_JOB = 8
IDLE_EVERY = 20
"""Of as many jobs one does nothing."""


def looks() -> tuple[float, list[float], int]:
    """CPU seconds of the first look, of those that follow a minute apart, and the lines that the last one gave."""
    source = Made(POLL_S)
    monitor = Monitor([source], MonitorSettings(), SteadyClock())
    counsellor = Counsellor(monitor.view, settings())
    idle = [n for n in range(len(source.gpus)) if n // GPUS_A_JOB % IDLE_EVERY == 0]
    count = round((MINUTES + LOOKS) * 60 / POLL_S)
    start = time.time() // 60 * 60 - count * POLL_S
    feed = monitor.collector.supervised[0]
    for job in jobs(source, start):
        monitor.collector.take(feed, job)
    costs: list[float] = []
    for batch in source.batches(start, count):
        for key in ("gpu.util", "gpu.sm_active"):
            if key in batch.metrics:
                batch.values[idle, batch.metrics.index(key)] = 0.0
        monitor.collector.take(feed, batch)
        if batch.at - start >= (MINUTES - 1) * 60 and counsellor.is_due(batch.at):
            snapshot = replace(monitor.view.snapshot(batch.at, None), jobs_known=True)
            asyncio.run(counsellor.look(snapshot))
            costs.append(counsellor.look_s)
    return costs[0], costs[1:], len(counsellor.newest.given)


def jobs(source: Made, start: float) -> list[JobFact]:
    """All GPUs are held, eight a job; half as many jobs have ended."""
    found = []
    for number in range(0, len(source.gpus), GPUS_A_JOB):
        gpus = source.gpus[number : number + GPUS_A_JOB]
        name, user = f"train-{number % 17}", f"user{number % 101}"
        is_second = number // GPUS_A_JOB % 2 == 1
        since = start + 1200 if is_second else start - 3600
        found.append(JobFact(since, None, f"slurm:{number}", name, user, (gpus[0].node,), gpus))
        if is_second:
            found.append(
                JobFact(start - 3600, since, f"slurm:{number + 1}", name, user, (gpus[0].node,), gpus)
            )
    return found


def measure() -> list[Row]:
    """The rows of the bench table."""
    first, later, given = looks()
    made = month(nodes=128, step=900.0)
    begun = time.thread_time()
    found = advise(made.usage, settings())
    whole = time.thread_time() - begun
    planted = made.planted.reclaimable_gpu_hours
    said = found.reclaimable.value if found.reclaimable else 0.0
    return [
        Row("a look for advice at 8,192 GPUs, 60 minutes", median(later) * 1e3, "ms CPU", 50.0, "lower"),
        Row("  the slowest of them", max(later) * 1e3, "ms", None, "lower"),
        Row("  the first, which reads the whole hour", first * 1e3, "ms", None, "lower"),
        Row("  lines that it gave", float(given), "lines", None, "higher"),
        Row("advice of 1,024 GPUs over 28 days, bins of 15 min", whole, "s CPU", None, "lower"),
        Row("  error of the reclaimable GPU-hours", abs(said / planted - 1) * 100, "%", 5.0, "lower"),
    ]
