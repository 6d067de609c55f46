"""When nodes write far more than usual: then a job's state is saved, and its ranks stand still for that, not for data or a peer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from coldaisle.analyzers.features import WRITES
from coldaisle.analyzers.window import Bools, Window
from coldaisle.sources.source import Floats

Series = NDArray[np.float64]
SENT = (*WRITES, "node.net_tx")
"""A save may leave over the network without a mount that counts it."""
WAITED = ("node.psi_io_some", "node.cpu_iowait")
BURST = 3.0
"""Times the usual writes (engineering choice)."""
BURST_BYTES = 3e7
"""Bytes a second and node that a burst of writes has at least (engineering choice)."""
BURST_WAIT = 0.10
"""Share of the time waiting for I/O, where nobody says what is written."""


class Saves(NamedTuple):
    """Of a job's nodes, over the times that were asked for."""

    goes_on: Bools
    """[time] they write, or wait for I/O, far more than usual; a sample to both sides belongs to it: rates cover a step."""
    wrote: float
    """Bytes a second and node in the highest burst; NaN: not known."""
    waited: float
    """Share of the time that a task waited for I/O, there."""


def saves(window: Window, nodes: NDArray[np.intp], times: Series, seconds: float = 900.0) -> Saves:
    """Of these nodes at these times: samples of the last seconds, whole minutes before them."""
    written, waited = (highest(window, keys, nodes, times, seconds) for keys in (SENT, WAITED))
    # Waiting for I/O alone may be for reads: it counts where nobody says what is written.
    values, least = (waited, BURST_WAIT) if np.isnan(written).all() else (written, BURST_BYTES)
    found = np.zeros(len(times), dtype=np.bool_)
    if not np.isnan(values).all():
        found = values >= max(BURST * float(np.nanquantile(values, 0.4)), least)
    wide = found.copy()
    wide[1:] |= found[:-1]
    wide[:-1] |= found[1:]
    return Saves(wide, *(float(np.fmax.reduce(one, initial=np.nan)) for one in (written, waited)))


def share_of_saves(window: Window, nodes: NDArray[np.intp], seconds: float) -> float:
    """Of the last seconds, at least of the newest sample, the share in which these nodes wrote so."""
    recent = window.recent("gpu.power", 900.0)
    goes_on = saves(window, nodes, recent.times).goes_on
    return float(goes_on[-max(round(seconds / recent.step), 1) :].mean())


def is_told(window: Window, nodes: NDArray[np.intp]) -> bool:
    """Whether anything is known of what one of these nodes writes, or how long it waits for I/O."""
    keys = (key for key in (*SENT, *WAITED) if window.has(key))
    return any(bool((~np.isnan(window.current(key)[nodes])).any()) for key in keys)


def highest(
    window: Window, keys: Sequence[str], nodes: NDArray[np.intp], times: Series, seconds: float
) -> Series:
    """[time] of the metric and the node where it is most; NaN: not known."""
    found = np.full(len(times), np.nan)
    for key in keys:
        if window.has(key):
            found = np.fmax(found, _at(window, key, nodes, times, seconds))
    return found


def _at(window: Window, key: str, nodes: NDArray[np.intp], times: Series, seconds: float) -> Series:
    recent, minutes = window.recent(key, seconds), window.minutes(key).mean
    sample = len(recent.times) - 1 + np.rint((times - recent.times[-1]) / recent.step).astype(np.intp)
    minute = (times // 60 - window.at // 60).astype(np.intp) + len(minutes)
    return np.where(sample >= 0, _taken(recent.values[:, nodes], sample), _taken(minutes[:, nodes], minute))


def _taken(values: Floats, place: NDArray[np.intp]) -> Series:
    """[place] the highest of a row; NaN beyond the rows."""
    rows = np.fmax.reduce(values, axis=1, initial=np.nan).astype(np.float64)
    inside = (place >= 0) & (place < len(rows))
    taken: Series = np.where(inside, rows[np.clip(place, 0, len(rows) - 1)], np.nan)
    return taken
