"""What boards were told of within the hour and still stands in their counters and gauges: nobody has reset them since.

An exporter's gauge of the last XID, and the counter of uncorrectable errors, go on saying what happened until the driver is
loaded anew. That it *happened* within the hour is known where the minutes hold another value before; what has stood there for
as long as anybody looks may be of last week.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from coldaisle.analyzers.window import Window, present
from coldaisle.sources.source import Floats

AWAY = 2
"""Whole minutes of silence: the board, or its driver, was started anew."""


class Standing(NamedTuple):
    """A value that has stood since it became what it is."""

    gpu: int
    value: float
    before: float
    since: float


def standing(window: Window, key: str) -> tuple[Standing, ...]:
    """Boards whose value rose to what it is within the last hour, or changed to it, and that were never silent since."""
    if not window.has(key):
        return ()
    now, minutes = window.current(key), window.minutes(key)
    told = np.flatnonzero(now > 0)
    if not len(told) or not len(minutes.mean):
        return ()
    begins = window.at // 60 * 60 - 60.0 * np.arange(len(minutes.mean), 0, -1.0)
    heard = present(minutes.mean[:, told])
    other = heard & ((minutes.low[:, told] != now[told]) | (minutes.high[:, told] != now[told]))
    found = []
    for column, gpu in enumerate(told.tolist()):
        rows = np.flatnonzero(other[:, column])
        if len(rows) and not _was_away(window, gpu, begins >= begins[rows[-1]]):
            before = float(_last_other(minutes.mean[:, gpu], float(now[gpu])))
            found.append(Standing(gpu, float(now[gpu]), before, float(begins[rows[-1]] + 30.0)))
    return tuple(found)


def _was_away(window: Window, gpu: int, since: NDArray[np.bool_]) -> bool:
    silent = ~present(window.minutes("gpu.power").mean[since, gpu])
    return bool((silent[1:] & silent[:-1]).any()) if len(silent) >= AWAY else False


def _last_other(values: Floats, now: float) -> float:
    """The newest of the minutes that are wholly another value; NaN: none is, so how it was before is not known."""
    other = values[present(values) & (values != now) & (values == np.rint(values))]
    return float(other[-1]) if len(other) else float("nan")
