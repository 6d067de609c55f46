"""How fast a job gets on, seen from outside: by what its GPUs do only while they compute, against its own past.

Tensor activity is zero while ranks wait for each other or for data; power above what a spinning collective draws says
the same, less sharply. The reference is the job's own best minutes.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from coldaisle.analyzers.features import idle_power, power_limit
from coldaisle.analyzers.window import Bools, Window, by_group, mean, quantile
from coldaisle.sources.source import Floats

SPIN_SHARE = 0.075
"""Power above context idle of a GPU that spins in a collective, of the room up to the limit (22 to 58 W of 580, measured)."""
START_MINUTES = 2
"""Of a job's beginning that are no reference."""


class Progress(NamedTuple):
    """[job] each."""

    now: Floats
    """Work a second over the last minutes, in units of its own."""
    reference: Floats
    """The same in its best minutes; NaN: it has none yet."""

    @property
    def lost(self) -> Floats:
        """Of its work: 0..1; NaN: nothing to hold it against."""
        with np.errstate(invalid="ignore", divide="ignore"):
            lost: Floats = np.clip(1 - self.now / self.reference, 0.0, 1.0)
        return lost


def progress(window: Window, seconds: float = 120.0) -> Progress:
    """Of every job."""
    return window.cached(("progress", seconds), lambda: _progress(window, seconds))


def _progress(window: Window, seconds: float) -> Progress:
    jobs = len(window.jobs)
    if not jobs:
        nothing = np.zeros(0, dtype=np.float32)
        return Progress(nothing, nothing)
    key = "gpu.tensor_active" if _tells(window) else "gpu.power"
    now, past = mean(window.recent(key, seconds).values), window.minutes(key).mean
    if key == "gpu.power":
        idle, room = idle_power(window), np.maximum(power_limit(window) - idle_power(window), 1.0)
        now, past = (np.maximum((v - idle) / room - SPIN_SHARE, 0.0) for v in (now, past))
    of_job = by_group(now, window.gpu_job, jobs)
    minutes = np.stack([by_group(row, window.gpu_job, jobs) for row in past]) if len(past) else past
    minutes = _since_start(window, minutes)
    return Progress(of_job, quantile(minutes, 0.85))


def _tells(window: Window) -> bool:
    """Whether tensor activity is there and not idle everywhere: not every program uses tensor cores."""
    if not window.has("gpu.tensor_active"):
        return False
    return bool((mean(window.recent("gpu.tensor_active", 120.0).values) > 0.02).any())


def _since_start(window: Window, minutes: Floats) -> Floats:
    """[minute, job] without what lies before a job's third minute."""
    end = window.at // 60
    starts = np.array([job.since // 60 + START_MINUTES for job in window.jobs])
    number = end - len(minutes) + np.arange(len(minutes))
    return np.where(number[:, None] > starts[None, :], minutes, np.nan).astype(np.float32)


def slowed(window: Window, gpu: int, alone: float, is_slow: Bools) -> float:
    """Share of its job's work lost to boards that are slow for their clock.

    ``alone``: what a board loses by itself; ``is_slow``: [gpu] which boards are. Where few of a job's boards are slow the others
    wait, and the job's pace tells how much that costs; where most are, all compute as much of the time as before, only slower.
    """
    number = int(window.gpu_job[gpu])
    if number < 0:
        return alone
    held = window.gpu_job == number
    lost = float(progress(window).lost[number])
    if np.isnan(lost) or is_slow[held].mean() > 0.5:
        return alone
    return float(min(lost, alone + 0.1))
