"""How often boards are read. An exporter that reads them every 30 s and is asked every 5 s says the same six times, and so does
a server that scrapes it: samples come at the pace of the asking, what they tell changes at the pace of the reading.

Only boards at work tell, for nothing of theirs stands still; of those few are looked at, and a pace is one only where the same
number of samples lies between any two changes: a feed that stands still for a while, or watts that repeat by chance, are none.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from coldaisle.analyzers.window import Window, mean, present

SEEN_S = 300.0
KEYS = ("gpu.power", "gpu.temp", "gpu.sm_clock", "gpu.util", "gpu.mem_util")
"""Instants, as boards say them: one of them changes from reading to reading in a board at work."""
WORKS = 0.3
"""Utilisation of a board at work."""
BOARDS = 32
"""Looked at, over all of the cluster."""
CHANGES = 4
"""At least, of each."""
LEAST = 1.4
"""Samples a reading, from which on it counts."""
LONGEST_S = 120.0
EVEN = 0.6
"""So many samples may lie more or fewer between two changes, and so large a share of them must keep to it."""


def seconds_between(window: Window) -> float | None:
    """Seconds between two readings of the cluster's boards; 0: each sample is a reading; None: there is nothing to tell it by."""
    if not (window.has("gpu.power") and window.has("gpu.util")):
        return None
    step = window.step("gpu.power")
    changed, have = _changes(window, _at_work(window), step)
    ratios = []
    for board in range(changed.shape[1]):
        places = np.flatnonzero(changed[:, board])
        if have[:, board].sum() >= 2 * CHANGES and len(places) > CHANGES:
            gaps = np.diff(places)
            each = float(gaps.mean())
            ratios.append(each if (np.abs(gaps - each) <= EVEN).mean() >= EVEN else 1.0)
    if not ratios:
        return None
    every = float(np.median(ratios))
    return round(every, 1) * step if every >= LEAST and every * step <= LONGEST_S else 0.0


def _at_work(window: Window) -> NDArray[np.intp]:
    busy = np.flatnonzero(mean(window.recent("gpu.util", SEEN_S).values) >= WORKS)
    return busy[:: max(len(busy) // BOARDS, 1)][:BOARDS]


def _changes(
    window: Window, boards: NDArray[np.intp], step: float
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """[time, board] what differs from the sample before, and where both are there."""
    changed = have = np.zeros((1, len(boards)), dtype=np.bool_)
    for key in KEYS:
        if window.has(key) and window.step(key) == step:
            values = window.recent(key, SEEN_S).values[:, boards]
            both = present(values[1:]) & present(values[:-1])
            changed, have = changed | (both & (values[1:] != values[:-1])), have | both
    return changed, have
