"""Measures that several detectors share, each made once a window: how busy a GPU is, at what power, at which clock.

References are learnt from the window's own past minutes and from peers, never from a data sheet where it can be helped.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from coldaisle.analyzers.teams import Teams, serving, teams
from coldaisle.analyzers.window import POLLS, Bools, Recent, Window, mean, present, quantile
from coldaisle.sources.parts.catalogue import sheet_power
from coldaisle.sources.source import Floats, Kind

CONTEXT_SHARE = 0.17
"""Of the power limit, drawn by an idle board with a CUDA context, where it was never seen idle (H100: 120 of 700 W, measured)."""


def power_limit(window: Window) -> Floats:
    """[gpu] watts: the limit in force; where it is not exported, the data sheet's or the highest power seen. NaN: not known."""

    def make() -> Floats:
        limit = window.current("gpu.power_limit")
        facts = np.array(
            [gpu.power_limit_w or sheet_power(gpu.model or "") for gpu in window.layout.gpus],
            dtype=np.float32,
        )
        return _fill(limit, _fill(facts, _highest_power(window)))

    return window.cached("power_limit", make)


def _fill(values: Floats, other: Floats) -> Floats:
    """``other`` where there is no value."""
    return np.where(np.isnan(values), other, values)


def _highest_power(window: Window) -> Floats:
    """[gpu] the highest minute of the last hour among the GPUs of the same model: less than the limit, if anything."""
    own = np.fmax(
        np.fmax.reduce(window.minutes("gpu.power").high, axis=0, initial=np.nan),
        np.fmax.reduce(window.recent("gpu.power").values, axis=0, initial=np.nan),
    )
    highest = np.full(len(window.groups.models), np.nan, dtype=np.float32)
    np.fmax.at(highest, window.groups.gpu_model, own)
    found: Floats = highest[window.groups.gpu_model]
    return found


def idle_power(window: Window) -> Floats:
    """[gpu] watts of the board with a context and no kernel: learnt while utilisation was 0, else a share of the limit."""

    def make() -> Floats:
        learnt = _learnt_idle(window)
        return np.where(np.isnan(learnt), CONTEXT_SHARE * power_limit(window), learnt)

    return window.cached("idle_power", make)


def _learnt_idle(window: Window) -> Floats:
    """[gpu] watts in its minutes without a kernel; NaN: it was never seen so."""

    def make() -> Floats:
        power, util = window.minutes("gpu.power"), window.minutes("gpu.util")
        rests = util.high <= 0.01
        if window.has("gpu.gr_active"):  # averaged where utilisation is only glimpsed
            rests &= ~(window.minutes("gpu.gr_active").high > 0.01)
        return quantile(np.where(rests, power.mean, np.nan), 0.5)

    return window.cached("learnt_idle", make)


def intensity(window: Window, seconds: float = 120.0, step: float | None = None) -> Recent:
    """(power - idle) / (limit - idle), [time, gpu], about 0..1."""

    def make() -> Recent:
        power = window.recent("gpu.power", seconds, step=step)
        idle = idle_power(window)
        values = (power.values - idle) / np.maximum(power_limit(window) - idle, 1.0)
        return power._replace(values=values.astype(np.float32))

    return window.cached(("intensity", seconds, step), make)


def reference_clock(window: Window) -> Floats:
    """[gpu] MHz of healthy work: the 90th percentile of the last hour's busy minutes, of the GPU or of its peers.

    Peers are the GPUs of the same model in the same job, then all of the same model: a GPU that has been slow for
    an hour must not be its own reference. NaN: nothing to hold it against.
    """

    def make() -> Floats:
        clock, util = window.minutes("gpu.sm_clock"), window.minutes("gpu.util")
        busy = np.where(util.mean >= 0.5, clock.high, np.nan)
        own = quantile(busy, 0.9)
        peers = _peer_quantile(own, window)
        return np.fmax(own, peers)

    return window.cached("reference_clock", make)


def usual_clock(window: Window) -> Floats:
    """[gpu] MHz that it ran at on average in its best busy minutes, or its peers did: dense work keeps to watts, below the highest
    clock. NaN: nothing to hold it against."""

    def make() -> Floats:
        clock, util = window.minutes("gpu.sm_clock"), window.minutes("gpu.util")
        own = quantile(np.where(util.mean >= 0.5, clock.mean, np.nan), 0.85)
        return np.fmax(own, _peer_quantile(own, window))

    return window.cached("usual_clock", make)


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
        return (window.gpu_job >= 0) | serving(window)

    return window.cached("allocated", make)


# --- what GPUs do, sample by sample, and what their hosts do meanwhile ----------------------------

QUIET, SPINNING = 0.05, 0.95
"""Utilisation at most, and at least."""
QUIET_INTENSITY, SPIN_INTENSITY = 0.08, 0.17
"""A context without kernels; NCCL's waiting kernels draw 22 to 58 W above it (H100, measured: 4 to 10 % of the range)."""
GUESSED_INTENSITY, SPIN_OF_USUAL = 0.35, 0.6
"""Where a board's idle power was never seen, only guessed (boards with GDDR draw up to 40 % of their limit idle with a context):
waiting kernels draw no more than that, and than so much of what the board usually draws at work; tensor cores and memory must
be known to stand still."""
SPIN_TENSOR, SPIN_DRAM, SPIN_MEMORY = 0.02, 0.03, 0.10
"""Tensor cores, memory interface and memory controller are all but idle while kernels only wait (measured: .005, .015)."""


class Activity(NamedTuple):
    """What GPUs did, [time, gpu] each, on one time axis."""

    times: NDArray[np.float64]
    step: float
    busy: Floats
    """Share of the time with a kernel, by the best signal there is. NaN: not known."""
    intensity: Floats
    quiet: Bools
    """No kernel."""
    spin: Bools
    """Kernels that only wait for a peer: busy at little more than idle power."""
    have: Bools


def activity(window: Window, seconds: float = 120.0) -> Activity:
    """Of the last ``max(seconds, 8 polls)``."""

    def make() -> Activity:
        step = max(
            window.step("gpu.util" if window.has("gpu.util") else "gpu.gr_active"), window.step("gpu.power")
        )
        strong = intensity(window, seconds, step)
        busy = _on(window, "gpu.util", seconds, strong)
        if window.has("gpu.gr_active"):
            busy = _fill(busy, _on(window, "gpu.gr_active", seconds, strong))
        level = strong.values
        have = ~np.isnan(busy)
        return Activity(
            strong.times,
            step,
            busy,
            level,
            (busy <= QUIET) & ~(level > QUIET_INTENSITY + 0.1),
            (busy >= SPINNING) & _draws_little(window, seconds, strong) & _is_still(window, seconds, strong),
            have,
        )

    return window.cached(("activity", seconds), make)


def averaged_busy(window: Window, seconds: float = 120.0) -> Floats:
    """[gpu] share of the time with a kernel over the whole window: by the engine's own average, where there is none by glimpses,
    which may all fall into the gaps of a rhythm."""
    glimpsed = mean(activity(window, seconds).busy)
    if not window.has("gpu.gr_active"):
        return glimpsed
    return _fill(mean(window.recent("gpu.gr_active", seconds).values), glimpsed)


def _draws_little(window: Window, seconds: float, strong: Recent) -> Bools:
    """[time, gpu] power little above idle; where that is a guess, far below what the board draws at work."""
    little: Bools = strong.values <= SPIN_INTENSITY
    if not (window.has("gpu.tensor_active") and window.has("gpu.dram_active")):
        return little
    guessed = np.isnan(_learnt_idle(window))
    minutes, util = window.minutes("gpu.power").mean, window.minutes("gpu.util").mean
    usual = quantile(np.where(util >= 0.5, minutes, np.nan), 0.85)
    if not (guessed & present(usual)).any():
        return little
    power = _on(window, "gpu.power", seconds, strong)
    return little | (guessed & (strong.values <= GUESSED_INTENSITY) & (power <= SPIN_OF_USUAL * usual))


def _is_still(window: Window, seconds: float, on: Recent) -> Bools:
    """[time, gpu] neither tensor cores nor memory work, where either is measured."""
    still = np.ones(on.values.shape, dtype=np.bool_)
    for key, most in (
        ("gpu.tensor_active", SPIN_TENSOR),
        ("gpu.dram_active", SPIN_DRAM),
        ("gpu.mem_util", SPIN_MEMORY),
    ):
        if window.has(key):
            still &= ~(_on(window, key, seconds, on) > most)
    return still


def _on(window: Window, key: str, seconds: float, on: Recent) -> Floats:
    return aligned(window.recent(key, seconds, step=on.step), on.times, on.step)


def aligned(samples: Recent, times: NDArray[np.float64], step: float) -> Floats:
    """Samples on another time axis of the same kind: the nearest within a step. [time, entity], NaN: none."""
    if (
        samples.step == step
        and len(samples.times) == len(times)
        and abs(samples.times[-1] - times[-1]) < step / 2
    ):
        return samples.values
    last = len(samples.times) - 1
    place = last + np.rint((times - samples.times[-1]) / samples.step).astype(np.intp)
    picked: Floats = samples.values[np.clip(place, 0, last)].copy()
    picked[(place < 0) | (place > last)] = np.nan
    return picked


def synchrony(window: Window, seconds: float = 120.0) -> Floats:
    """[team] how far its GPUs move in step: the mean correlation of any two of them, 0..1. NaN: one GPU, or nothing moves.

    From variances alone: that of the mean of n is (1 + (n - 1) r) / n of the mean one.
    """

    def make() -> Floats:
        team = teams(window)
        values = activity(window, seconds).busy
        level = activity(window, seconds).intensity
        return np.fmax(_synchrony(team, values), _synchrony(team, level))

    return window.cached(("synchrony", seconds), make)


def hourly_synchrony(window: Window) -> Floats:
    """[team] the same by the minutes of the last hour: GPUs whose pace changes together are in step, though a rhythm that is quicker
    than the polls shows none of it in samples."""

    def make() -> Floats:
        key = "gpu.gr_active" if window.has("gpu.gr_active") else "gpu.util"
        return _synchrony(teams(window), window.minutes(key).mean)

    return window.cached("hourly_synchrony", make)


def variance(values: Floats) -> Floats:
    """[entity] over time; NaN where there is no sample."""
    found: Floats = np.maximum(mean(values * values) - mean(values) ** 2, 0.0)
    return found


def _synchrony(team: Teams, values: Floats) -> Floats:
    together, apart = variance(team.mean(values)), team.mean(variance(values)[None])[0]
    size = np.maximum(team.size, 2)
    found = (together / np.where(apart > 1e-5, apart, np.nan) * size - 1) / (size - 1)
    return np.where(team.size > 1, np.clip(found, 0, 1), np.nan).astype(np.float32)


READS = ("node.disk_read", "node.nfs_read", "node.lustre_read", "node.gpfs_read")
WRITES = ("node.disk_write", "node.nfs_write", "node.lustre_write", "node.gpfs_write")
FABRIC = ("port.rx", "port.tx")
HOST = (
    "node.cpu_util",
    "node.psi_cpu_some",
    "node.psi_io_some",
    "node.cpu_iowait",
    "node.load1",
    *READS,
    *WRITES,
)


def storage(window: Window, keys: tuple[str, ...], seconds: float, step: float) -> Recent | None:
    """Bytes a second of all file systems together, [time, node]; None: nobody measures any."""

    def make() -> Recent | None:
        parts = [window.recent(key, seconds, step=step) for key in keys if window.has(key)]
        if not parts:
            return None
        values = np.stack([aligned(part, parts[0].times, step) for part in parts])
        total = np.where(np.isnan(values).all(axis=0), np.nan, np.nansum(values, axis=0)).astype(np.float32)
        return parts[0]._replace(values=total)

    return window.cached(("storage", keys, seconds, step), make)


def fabric(window: Window, seconds: float = 120.0, polls: int = POLLS) -> Floats:
    """[node] bytes a second over all its ports, both directions, the mean of the window. NaN: not measured."""

    def make() -> Floats:
        nodes = len(window.layout.nodes)
        total = np.full(nodes, np.nan)
        for key in FABRIC:
            if window.has(key):
                rate = mean(window.recent(key, seconds, polls).values)
                known = ~np.isnan(rate)
                place = window.groups.port_node[known]
                total[np.unique(place)] = np.nan_to_num(total[np.unique(place)])
                np.add.at(total, place, rate[known])
        return total.astype(np.float32)

    return window.cached(("fabric", seconds, polls), make)


def nvlink(window: Window, seconds: float = 120.0, polls: int = POLLS) -> Floats:
    """[gpu] bytes a second over NVLink, both directions, the mean of the window. NaN: not measured."""

    def make() -> Floats:
        total = np.full(len(window.layout.gpus), np.nan, dtype=np.float32)
        if window.has("gpu.nvlink_tx"):
            total = mean(window.recent("gpu.nvlink_tx", seconds, polls).values)
            if window.has("gpu.nvlink_rx"):
                total = total + mean(window.recent("gpu.nvlink_rx", seconds, polls).values)
        if window.has("gpu.nvlink_bandwidth"):
            total = _fill(total, mean(window.recent("gpu.nvlink_bandwidth", seconds, polls).values))
        return total

    return window.cached(("nvlink", seconds, polls), make)


class Hosts(NamedTuple):
    """The hosts of each team over a window, [team] each, mean over time and nodes; NaN: not measured."""

    cpu: Floats
    waits_cpu: Floats
    """Share of the time some task waited for a CPU: of the worst node."""
    waits_io: Floats
    """The same for I/O: pressure, where there is none the time idle for I/O; of the worst node."""
    reads: Floats
    writes: Floats
    """Bytes a second a node."""

    @property
    def known(self) -> Bools:
        """Whether anything is known of them."""
        known: Bools = ~(np.isnan(self.cpu) & np.isnan(self.waits_cpu) & np.isnan(self.waits_io))
        return known


def hosts(window: Window, seconds: float = 120.0) -> Hosts:
    """What the hosts of the teams did."""

    def make() -> Hosts:
        team = teams(window)

        def over(key: str) -> Floats:
            return mean(window.recent(key, seconds).values)

        def moved(keys: tuple[str, ...]) -> Floats:
            step = max((window.step(key) for key in keys if window.has(key)), default=window.poll)
            found = storage(window, keys, seconds, step)
            return team.node_mean(mean(found.values) if found else np.full(window.size(Kind.NODE), np.nan))

        return Hosts(
            team.node_mean(over("node.cpu_util")),
            team.node_high(over("node.psi_cpu_some")),
            np.fmax(team.node_high(over("node.psi_io_some")), team.node_high(over("node.cpu_iowait"))),
            moved(READS),
            moved(WRITES),
        )

    return window.cached(("hosts", seconds), make)


# --- when it began --------------------------------------------------------------------------------


class Line(NamedTuple):
    """One number over time, oldest first: whole minutes, then samples where these are kept."""

    times: NDArray[np.float64]
    values: NDArray[np.float64]


def line(window: Window, key: str, gpus: NDArray[np.intp], seconds: float = 900.0) -> Line:
    """The mean of some GPUs (or nodes) over the last hour; where nothing is known, one point without a value at its end."""
    recent, minutes = window.recent(key, seconds), window.minutes(key).mean
    end = window.at // 60 * 60
    times = end - 60 * np.arange(len(minutes), 0, -1.0) + 30
    older = times < recent.times[0] - 30
    values = np.concatenate([mean(minutes[older][:, gpus].T), mean(recent.values[:, gpus].T)])
    times = np.concatenate([times[older], recent.times])
    known = ~np.isnan(values)
    if not known.any():
        return Line(np.array([window.at]), np.array([np.nan]))
    return Line(times[known], values[known].astype(np.float64))


def shifted(one: Line, least: float, start: float = -np.inf) -> tuple[float, bool]:
    """When the mean of a line last changed by at least ``least``, and whether it may have been earlier.

    The split into before and after that leaves the least spread; a line without such a step has been so all along.
    """
    keep = one.times >= start
    times, values = one.times[keep], one.values[keep]
    if len(values) < 4:
        return (float(times[0]) if len(times) else start), True
    count = np.arange(1, len(values))
    before = np.cumsum(values)[:-1] / count
    after = (values.sum() - np.cumsum(values)[:-1]) / (len(values) - count)
    gain = count * (len(values) - count) * (before - after) ** 2
    best = int(np.argmax(gain))
    if abs(before[best] - after[best]) < least:
        return float(times[0]), True
    return float(times[best + 1]), False


class Fall(NamedTuple):
    """When a line came down to what it is."""

    since: float
    is_bound: bool
    """It has been so all along, as far as is known."""
    earlier: float
    """From then until ``since`` it was as it was just before."""


SHORTEST_STRETCH_S, STRETCH_SAMPLES, STRETCH_Z = 90.0, 4, 4.0
"""A stretch is so long, of so many samples, and as many standard errors apart from its neighbours: a pause or a save is none.
Engineering choice."""


def fell(one: Line, least: float, start: float = -np.inf) -> Fall:
    """When the mean of a line last fell, by at least ``least``, and has not come back since.

    An hour may hold several episodes, of which the largest need not be the one that lasts: the line is cut into stretches, and
    those at its end belong together that are nearer to its last level than to its best one.
    """
    keep = one.times >= start
    times, values = one.times[keep], one.values[keep]
    if len(values) < STRETCH_SAMPLES:
        first = float(times[0]) if len(times) else start
        return Fall(first, True, first)
    cuts = [0, *_cuts(times, values, least, SHORTEST_STRETCH_S)]
    levels = [float(part.mean()) for part in np.split(values, cuts[1:])]
    if max(levels) - levels[-1] >= least:
        middle = (max(levels) + levels[-1]) / 2
        good = max(number for number, level in enumerate(levels) if level >= middle)
        earlier, since = float(times[cuts[good]]), float(times[cuts[good + 1]])
        nearer = shifted(one, least, earlier)[
            0
        ]  # what is too short for a stretch of its own is part of one of them
        return Fall(nearer if abs(nearer - since) <= SHORTEST_STRETCH_S else since, False, earlier)
    # It is at its best, but for what it has only just come to.
    last = cuts[-1]
    new = _cuts(times[last:], values[last:], least, 0.0)
    cut = last + (new[-1] if new else 0)
    if new and values[last:cut].mean() > values[cut:].mean():
        return Fall(float(times[cut]), False, float(times[last]))
    since, is_bound = shifted(Line(times[last:], values[last:]), least)
    has_fallen = not is_bound and values[last:][times[last:] < since].mean() > values[times >= since].mean()
    first = float(times[last])
    return Fall(since, False, first) if has_fallen else Fall(first, last == 0, first)


def _cuts(
    times: NDArray[np.float64], values: NDArray[np.float64], least: float, shortest: float
) -> list[int]:
    """Where stretches begin whose means differ: the split that leaves the least spread, and so on within both parts."""
    size = len(values)
    if size < 2 * STRETCH_SAMPLES:
        return []
    count = np.arange(1, size)
    total = np.cumsum(values)
    before, after = total[:-1] / count, (total[-1] - total[:-1]) / (size - count)
    is_long = (count >= STRETCH_SAMPLES) & (size - count >= STRETCH_SAMPLES)
    is_long &= (times[1:] - times[0] >= shortest) & (times[-1] - times[:-1] >= shortest)
    if not is_long.any():
        return []
    cut = int(np.argmax(np.where(is_long, count * (size - count) * (before - after) ** 2, -1.0))) + 1
    left, right = values[:cut], values[cut:]
    # Together, for by chance a few glimpses are all alike.
    spread = np.sqrt((left.var() * cut + right.var() * (size - cut)) / size)
    error = float(spread * np.sqrt(1 / cut + 1 / (size - cut)))
    if abs(left.mean() - right.mean()) < max(least, STRETCH_Z * error):
        return []
    return [
        *_cuts(times[:cut], left, least, shortest),
        cut,
        *(cut + further for further in _cuts(times[cut:], right, least, shortest)),
    ]
