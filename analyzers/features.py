"""Measures that several detectors share, each made once a window: how busy a GPU is, at what power, at which clock.

References are learnt from the window's own past minutes and from peers, never from a data sheet where it can be helped.
"""

from __future__ import annotations

import numpy as np

from coldaisle.analyzers.window import Bools, Recent, Window, quantile
from coldaisle.sources.source import Floats

CONTEXT_SHARE = 0.17
"""Of the power limit, drawn by an idle board with a CUDA context, where it was never seen idle (H100: 120 of 700 W, measured)."""
BARE_SHARE = 0.10
"""The same without a context (70 of 700 W)."""


def power_limit(window: Window) -> Floats:
    """[gpu] watts: the limit in force; where it is not exported, the data sheet's or the highest power seen. NaN: not known."""

    def make() -> Floats:
        limit = window.current("gpu.power_limit")
        facts = np.array([gpu.power_limit_w or np.nan for gpu in window.layout.gpus], dtype=np.float32)
        return np.where(np.isnan(limit), facts, limit)

    return window.cached("power_limit", make)


def idle_power(window: Window) -> Floats:
    """[gpu] watts of the board with a context and no kernel: learnt while utilisation was 0, else a share of the limit."""

    def make() -> Floats:
        power, util = window.minutes("gpu.power"), window.minutes("gpu.util")
        idle = np.where(util.high <= 0.01, power.mean, np.nan)
        learnt = quantile(idle, 0.5)
        usual = CONTEXT_SHARE * power_limit(window)
        return np.where(np.isnan(learnt), usual, learnt)

    return window.cached("idle_power", make)


def intensity(window: Window, seconds: float = 120.0, step: float | None = None) -> Recent:
    """(power - idle) / (limit - idle), [time, gpu], about 0..1."""

    def make() -> Recent:
        power = window.recent("gpu.power", seconds, step=step)
        idle = idle_power(window)
        values = (power.values - idle) / np.maximum(power_limit(window) - idle, 1.0)
        return power._replace(values=values.astype(np.float32))

    return window.cached(("intensity", seconds, step), make)


def reference_clock(window: Window) -> Floats:
    """[gpu] MHz of healthy work: what it or its peers ran at in the last hour's busy minutes, on average a minute.

    Means, not maxima: at the power limit the clock of dense work lies far below the highest, and that is healthy. Peers are
    the GPUs of the same model in the same job: a GPU that has been slow for an hour must not be its own reference.
    NaN: nothing to hold it against.
    """

    def make() -> Floats:
        clock, util = window.minutes("gpu.sm_clock"), window.minutes("gpu.util")
        busy = np.where(util.mean >= 0.7, clock.mean, np.nan)
        own = quantile(busy, 0.9)
        return np.fmax(own, _peer_quantile(own, window))

    return window.cached("reference_clock", make)


def _peer_quantile(own: Floats, window: Window) -> Floats:
    """[gpu] the median of the own references of the same model in the same job, where there are at least two of them."""
    out = np.full(len(own), np.nan, dtype=np.float32)
    group = window.groups.gpu_model * (len(window.jobs) + 1) + window.gpu_job + 1
    for one in np.unique(group[window.gpu_job >= 0]):
        members = np.flatnonzero(group == one)
        known = own[members][~np.isnan(own[members])]
        if len(known) >= 2:
            out[members] = np.median(known)
    return out


def allocated(window: Window) -> Bools:
    """[gpu] held by a job, or serving; where nobody says who holds what, every GPU with work on it."""

    def make() -> Bools:
        held = window.gpu_job >= 0
        for server in window.layout.servers:
            held[list(server.gpus)] = True
        return held

    return window.cached("allocated", make)
