"""What an audit says of a usage beside advice: hours by state and owner, waits, offered load, distributions, weeks, findings. Pure."""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from coldaisle.analyzers.usage import Floats, Stay, Usage
from coldaisle.sources.prometheus.aggregates import Incident
from coldaisle.sources.slurm.words import PENDING

Numbers = NDArray[np.float64]
HOUR, DAY = 3600.0, 86400.0
FAILED = (
    "FAILED",
    "TIMEOUT",
    "NODE_FAIL",
    "OUT_OF_MEMORY",
    "BOOT_FAIL",
    "DEADLINE",
    "PREEMPTED",
    "CANCELLED",
)
"""Final states of work that was, as a rule, not finished."""
HARDWARE = ("Resources", "Priority")
MOST_ROWS = 500
LITTLE_LOST = 0.95
"""Of the GPUs at an instant: with so many heard, jobs are counted as labels show them."""
BINS = 20
"""Of a distribution."""
MAPPED = ("gpu.util", "gpu.sm_active", "gpu.tensor_active", "gpu.dram_active", "gpu.power")
SPREAD = (
    "gpu.util",
    "gpu.gr_active",
    "gpu.sm_active",
    "gpu.tensor_active",
    "gpu.dram_active",
    "gpu.mem_used",
    "gpu.power",
    "gpu.sm_clock",
)
CAPPED = {
    "gpu.thermal_violation": ("thermal_throttling", 0.02),
    "gpu.power_violation": ("power_capping", 0.10),
}
"""Metric -> what it is a sign of, and the share of a bin from which on it counts."""
NOT_FOLDED = (
    "straggler", "communication_stall", "checkpoint_stall", "data_loader_starvation", "interconnect_degraded",
    "interconnect_saturation", "kv_cache_pressure", "request_queueing", "memory_exhaustion",
)  # fmt: skip


class Hours(NamedTuple):
    """Of a final state, user, account or partition. ``name`` may be other people's text."""

    name: str
    jobs: int
    gpu_hours: float
    """Within the span."""
    failed_gpu_hours: float
    """Of them, of jobs that did not complete."""
    wait_p50_s: float
    """From when it might have started to its start; NaN: not known."""
    wait_p90_s: float
    slowdown_p90: float
    """Bounded: (wait + run) / max(run, 10 min)."""


class Load(NamedTuple):
    """GPUs asked for, running and waiting together; [bin] and by hour of the week."""

    p50: float
    p95: float
    most: float
    running_p95: float
    waiting_p95: float
    """NaN: when jobs were submitted is not known, so what waited is not, and what was asked for is what ran."""
    installed: int
    """0: not known."""
    by_hour: tuple[float, ...]
    """[hour of the week] mean of what is asked for; NaN: nothing known."""
    by_day: tuple[tuple[float, float, float], ...]
    """(epoch of the day's start, mean running, mean waiting)"""
    knows_reasons: bool
    """Whether what waits for other things than hardware could be left out."""
    little: float
    """Waiting by Little's law over waiting as counted; NaN: nothing waited."""


class Spread(NamedTuple):
    """How a metric is distributed over GPU time held by jobs (over all of it, where they are not known)."""

    key: str
    edges: tuple[float, ...]
    shares: tuple[float, ...]
    percentiles: tuple[tuple[int, float], ...]
    coverage: float
    """Of the GPU time."""


class Week(NamedTuple):
    """Means by hour of the week, Monday 0:00 first; NaN: nothing was measured."""

    key: str
    values: tuple[float, ...]


class Recurring(NamedTuple):
    """What was found again and again."""

    kind: str
    name: str
    days: int
    """On which it was seen."""
    amount: float
    low: float
    high: float
    """With what readings do not tell of. NaN: it is not known how much more it may have been."""
    unit: str
    """``gpu_hours``, ``times`` or ``h``"""
    where: tuple[str, ...]
    """Nodes or GPUs, the worst first, a few."""
    first: float
    last: float


class Waste(NamedTuple):
    """GPU time that somebody held without a kernel, measured."""

    name: str
    gpu_hours: float
    """Held and measured."""
    unused_gpu_hours: float
    """Held times the share without a kernel."""
    idle_share: float


@dataclass(frozen=True, slots=True)
class Facts:
    """All of them. Empty or None: could not be known."""

    jobs: int
    installed_gpu_hours: float
    by_state: tuple[Hours, ...]
    by_user: tuple[Hours, ...]
    by_account: tuple[Hours, ...]
    by_partition: tuple[Hours, ...]
    load: Load | None
    spreads: tuple[Spread, ...]
    weeks: tuple[Week, ...]
    waste: tuple[Waste, ...]
    recurring: tuple[Recurring, ...]
    not_looked_at: tuple[str, ...]
    coverage: float
    """Of GPU time within the span; NaN: no GPU was measured."""
    by_day: tuple[tuple[float, float], ...]
    """(epoch, coverage)"""
    by_metric: Mapping[str, float]


def facts_of(usage: Usage, incidents: Sequence[Incident] = (), looked_at: Sequence[str] = ()) -> Facts:
    """The facts of a usage; ``looked_at``: of which incidents were asked for."""
    start = float(usage.starts[0]) if len(usage.starts) else 0.0
    inside = _inside(usage.stays, start, start + usage.span_s)
    held = _held(usage)
    covered = _coverage(usage)
    there = usage.installed
    installed = float(there.sum()) * usage.step / HOUR
    return Facts(
        jobs=int((inside > 0).sum()),
        installed_gpu_hours=installed,
        by_state=_hours(usage.stays, inside, lambda s: s.state or "unknown"),
        by_user=_hours(usage.stays, inside, lambda s: s.user or "(not known)"),
        by_account=_hours(usage.stays, inside, lambda s: s.account or "(not known)"),
        by_partition=_hours(usage.stays, inside, lambda s: s.partition or "(not known)"),
        load=_load(usage, start),
        spreads=tuple(_spread(usage, key, held) for key in SPREAD if _has(usage, key)),
        weeks=tuple(_week(usage, key) for key in MAPPED if _has(usage, key)),
        waste=_waste(usage),
        recurring=_recurring(usage, incidents),
        not_looked_at=_not_looked_at(usage, looked_at),
        coverage=float(covered[there].mean()) if there.any() and covered.size else math.nan,
        by_day=_days(usage, covered, there),
        by_metric={
            key: float((~np.isnan(values)).mean())
            for key, values in (*usage.means.items(), *usage.host_means.items())
            if values.size
        },
    )


def _has(usage: Usage, key: str) -> bool:
    values = usage.means.get(key)
    return values is not None and values.size > 0 and not np.isnan(values).all()


def _inside(stays: Sequence[Stay], start: float, end: float) -> Numbers:
    """[stay] GPU seconds within [start, end)."""
    if not stays:
        return np.zeros(0)
    began = np.array([s.started_at for s in stays])
    ended = np.array([s.ended_at for s in stays])
    seconds = np.minimum(np.where(np.isnan(ended), end, ended), end) - np.maximum(began, start)
    gpus: Numbers = np.maximum(np.nan_to_num(seconds), 0) * np.array([s.gpus_held for s in stays])
    return gpus


def _waits(stays: Sequence[Stay]) -> Numbers:
    waits = np.array([s.started_at - s.submitted_at for s in stays], dtype=np.float64)
    return np.where(waits >= 0, waits, np.nan)


def _percentile(values: Numbers, q: float) -> float:
    known = values[~np.isnan(values)]
    return float(np.percentile(known, q)) if len(known) else math.nan


def _hours(stays: Sequence[Stay], inside: Numbers, name: Callable[[Stay], str]) -> tuple[Hours, ...]:
    groups: dict[str, list[int]] = {}
    for at, stay in enumerate(stays):
        groups.setdefault(name(stay), []).append(at)
    waits = _waits(stays)
    runs = np.array([s.ended_at - s.started_at for s in stays], dtype=np.float64)
    slow = (waits + runs) / np.maximum(runs, 600.0)
    has_failed = np.array([s.state in FAILED for s in stays], dtype=np.bool_)
    found = []
    for key, members in groups.items():
        mine = np.array(members)
        found.append(
            Hours(
                key,
                len(members),
                float(inside[mine].sum() / HOUR),
                float(inside[mine][has_failed[mine]].sum() / HOUR),
                _percentile(waits[mine], 50),
                _percentile(waits[mine], 90),
                _percentile(slow[mine], 90),
            )
        )
    return tuple(sorted(found, key=lambda one: (-one.gpu_hours, one.name))[:MOST_ROWS])


# -- offered load


def _load(usage: Usage, start: float) -> Load | None:
    if not usage.jobs_known or not len(usage.starts):
        return None
    count, step = len(usage.starts), usage.step
    running, waiting = np.zeros(count + 1), np.zeros(count + 1)
    knows_reasons = any(s.reason for s in usage.stays if s.state == PENDING)
    waited = np.zeros(len(usage.stays))
    end = start + usage.span_s
    for at, stay in enumerate(usage.stays):
        began = stay.started_at
        ended = end if math.isnan(stay.ended_at) else stay.ended_at
        if began == began:
            _add(running, began, ended, stay.gpus_held, start, step)
        waits_for_hardware = stay.state != PENDING or not stay.reason or stay.reason in HARDWARE
        # one that was cancelled before it ran waited until then
        until = began if began == began else ended
        if stay.submitted_at == stay.submitted_at and waits_for_hardware and until > stay.submitted_at:
            _add(waiting, stay.submitted_at, until, stay.gpus_held, start, step)
            low, high = max(stay.submitted_at, start), min(until, end)
            waited[at] = max(high - low, 0.0) * stay.gpus_held
    now, queue = np.cumsum(running)[:-1], np.cumsum(waiting)[:-1]
    knows_waits = any(stay.submitted_at == stay.submitted_at for stay in usage.stays)
    now = now if knows_waits else _through_gaps(usage, now)
    asked = now + queue
    if np.isnan(asked).all():
        return None
    counted = float(queue.sum() * step)
    days = np.where(np.isnan(now), -1, _day_of(usage.starts))
    return Load(
        _percentile(asked, 50),
        _percentile(asked, 95),
        float(np.nanmax(asked)),
        _percentile(now, 95),
        float(np.percentile(queue, 95)) if knows_waits else math.nan,
        len(usage.boards),
        _by_hour(asked, usage.starts),
        tuple(
            (
                float(usage.starts[days == day][0]),
                float(now[days == day].mean()),
                float(queue[days == day].mean()),
            )
            for day in np.unique(days[days >= 0])
        ),
        knows_reasons,
        float(waited.sum()) / counted if counted else math.nan,
    )


def _through_gaps(usage: Usage, running: Numbers) -> Numbers:
    """[bin] of jobs that labels alone show, as many as by the GPUs that were heard; NaN: fewer than half of them were."""
    busy, held = usage.means.get("gpu.util", usage.means.get("gpu.gr_active")), _held(usage)
    if busy is None or held is None or busy.shape != held.shape:
        return running
    there = usage.installed | held
    heard = there & ~np.isnan(busy)
    seen, whole = heard.sum(axis=1), there.sum(axis=1)
    told = np.divide((held & heard).sum(axis=1) * whole, seen, out=np.full(len(seen), np.nan), where=seen > 0)
    return np.where(seen >= LITTLE_LOST * whole, running, np.where(seen >= 0.5 * whole, told, np.nan))


def _add(into: Numbers, low: float, high: float, gpus: float, start: float, step: float) -> None:
    """GPUs over the bins whose middles lie in [low, high)."""
    first, last = _between(low, high, start, step, len(into) - 1)
    into[first] += gpus
    into[last] -= gpus


def _between(low: float, high: float, start: float, step: float, size: int) -> tuple[int, int]:
    """[first, last) of the bins whose middles lie in [low, high); NaN for ``high``: it has no end."""
    first = min(max(math.ceil((low - start) / step - 0.5), 0), size)
    last = size if math.isnan(high) else min(max(math.ceil((high - start) / step - 0.5), 0), size)
    return first, last


def _bins(usage: Usage, stay: Stay) -> tuple[int, int]:
    """Those of a job that started."""
    return _between(stay.started_at, stay.ended_at, float(usage.starts[0]), usage.step, len(usage.starts))


# -- distributions and weeks


def _held(usage: Usage) -> NDArray[np.bool_] | None:
    """[bin, GPU] whether a job holds it; None: not known of any."""
    marks = np.zeros((len(usage.starts) + 1, len(usage.boards)), dtype=np.int32)
    placed = [stay for stay in usage.stays if stay.boards and not math.isnan(stay.started_at)]
    if not placed or not len(usage.starts):
        return None
    for stay in placed:
        first, last = _bins(usage, stay)
        # a stay names a board once
        marks[first, list(stay.boards or ())] += 1
        marks[last, list(stay.boards or ())] -= 1
    return np.asarray(np.cumsum(marks, axis=0)[:-1] > 0)


def _spread(usage: Usage, key: str, held: NDArray[np.bool_] | None) -> Spread:
    values = usage.means[key]
    chosen = values if held is None else np.where(held, values, np.float32(np.nan))
    known = chosen[~np.isnan(chosen)]
    if not len(known):
        known = values[~np.isnan(values)]
    expected = values.size if held is None else max(int(held.sum()), 1)
    top = (
        1.0
        if float(known.max()) <= 1.0 and key not in ("gpu.mem_used", "gpu.power", "gpu.sm_clock")
        else float(known.max()) or 1.0
    )
    counts, edges = np.histogram(known, BINS, (0.0, top))
    return Spread(
        key,
        tuple(edges.tolist()),
        tuple((counts / max(len(known), 1)).tolist()),
        tuple((q, float(np.percentile(known, q))) for q in (5, 25, 50, 75, 95)),
        min(len(known) / expected, 1.0),
    )


def _week(usage: Usage, key: str) -> Week:
    values = usage.means[key]
    counts = (~np.isnan(values)).sum(axis=1)
    sums = np.nansum(values, axis=1, dtype=np.float64)
    hours = _hour_of_week(usage.starts)
    total = np.bincount(hours, weights=sums, minlength=168)
    count = np.bincount(hours, weights=counts, minlength=168)
    means = np.divide(total, count, out=np.full(168, np.nan), where=count > 0)
    return Week(key, tuple(means.tolist()))


def _by_hour(values: Numbers, starts: Numbers) -> tuple[float, ...]:
    known = ~np.isnan(values)
    hours = _hour_of_week(starts)[known]
    total, count = np.bincount(hours, values[known], minlength=168), np.bincount(hours, minlength=168)
    return tuple(np.divide(total, count, out=np.full(168, np.nan), where=count > 0).tolist())


def _hour_of_week(starts: Numbers) -> NDArray[np.intp]:
    """Monday 0:00 first, by this machine's zone: a change of daylight saving time is followed hour by hour."""
    hours = {int(at // HOUR): 0 for at in starts.tolist()}
    for hour in hours:
        local = time.localtime(hour * HOUR)
        hours[hour] = local.tm_wday * 24 + local.tm_hour
    return np.array([hours[int(at // HOUR)] for at in starts.tolist()], dtype=np.intp)


def _day_of(starts: Numbers) -> NDArray[np.intp]:
    return np.asarray((starts - starts[0]) // DAY, dtype=np.intp)


# -- waste, findings, coverage


def _waste(usage: Usage) -> tuple[Waste, ...]:
    """By user, measured where it is known which GPUs they held."""
    busy = usage.means.get("gpu.util", usage.means.get("gpu.gr_active"))
    if busy is None or not busy.size:
        return ()
    known = ~np.isnan(busy)
    sums = np.vstack(
        [np.zeros((1, busy.shape[1])), np.cumsum(np.where(known, 1.0 - busy, 0.0), axis=0, dtype=np.float64)]
    )
    counts = np.vstack([np.zeros((1, busy.shape[1])), np.cumsum(known, axis=0, dtype=np.float64)])
    held: dict[str, list[float]] = {}
    for stay in usage.stays:
        if not stay.boards or math.isnan(stay.started_at):
            continue
        first, last = _bins(usage, stay)
        boards = list(stay.boards)
        mine = held.setdefault(stay.user or "(not known)", [0.0, 0.0, 0.0])
        mine[0] += float((sums[last, boards] - sums[first, boards]).sum())
        mine[1] += float((counts[last, boards] - counts[first, boards]).sum())
        mine[2] += max(last - first, 0) * len(boards)
    hours = usage.step / HOUR
    rows = [
        Waste(name, bins * hours, bins * hours * idle / measured, idle / measured)
        for name, (idle, measured, bins) in held.items()
        if measured > 0
    ]
    return tuple(sorted(rows, key=lambda one: -one.unused_gpu_hours)[:MOST_ROWS])


def _recurring(usage: Usage, incidents: Iterable[Incident]) -> tuple[Recurring, ...]:
    found = [*_limited(usage)]
    groups: dict[tuple[str, str], list[Incident]] = {}
    for one in incidents:
        groups.setdefault((one.kind, one.name), []).append(one)
    for (kind, name), several in groups.items():
        places = Counter(f"{one.node}/{one.slot}" for one in several if one.node)
        days = sorted({one.day for one in several})
        amount = sum(one.amount for one in several)
        # alerts are counted by the minute; of XIDs one a GPU and day, and how many more there were is not known
        off = math.nan if kind == "xid" else len(days) / 60
        found.append(
            Recurring(
                kind,
                name,
                len(days),
                amount,
                amount if kind == "xid" else max(amount - off, 0.0),
                amount + off,
                "times" if kind == "xid" else "h",
                tuple(place for place, _ in places.most_common(5)),
                days[0],
                days[-1],
            )
        )
    return tuple(sorted(found, key=lambda one: (-one.days, one.kind, one.name))[:MOST_ROWS])


def _limited(usage: Usage) -> Iterable[Recurring]:
    for key, (kind, least) in CAPPED.items():
        values = usage.means.get(key)
        if values is None or not values.size:
            continue
        over = np.nan_to_num(values) >= least
        if not over.any():
            continue
        amount = np.where(over, np.nan_to_num(values), 0.0).sum(axis=0) * usage.step / HOUR
        worst = np.argsort(-amount)[:5].tolist()
        days = np.unique(_day_of(usage.starts)[over.any(axis=1)])
        times = usage.starts[over.any(axis=1)]
        yield Recurring(
            kind, f"{key} >= {least:.0%} of the time", len(days), float(amount.sum()), float(amount.sum()),
            float(amount.sum()) + _unheard(usage, values, over), "gpu_hours",
            tuple(usage.boards[at].key for at in worst if amount[at] > 0), float(times[0]), float(times[-1]),
        )  # fmt: skip


def _unheard(usage: Usage, values: Floats, over: NDArray[np.bool_]) -> float:
    """GPU-hours that may be limited where nothing was read: by the share of nine days of ten, at most."""
    known = ~np.isnan(values)
    dark = float((usage.installed & ~known).sum()) * usage.step / HOUR
    days = _day_of(usage.starts)
    limited = np.bincount(days, np.where(over, np.nan_to_num(values), 0.0).sum(axis=1))
    heard = np.bincount(days, known.sum(axis=1))
    shares = limited[heard > 0] / heard[heard > 0]
    return dark * float(np.percentile(shares, 90)) if len(shares) else 0.0


def _not_looked_at(usage: Usage, looked_at: Sequence[str]) -> tuple[str, ...]:
    found = [
        f"{', '.join(NOT_FOLDED)}: these need samples that are closer together than bins of {usage.step:.0f} s"
    ]
    for key, (kind, _) in CAPPED.items():
        if key not in usage.means:
            found.append(f"{kind}: {key} is not measured")
    if "ALERTS" not in looked_at:
        found.append("alerts: no Prometheus was asked for ALERTS")
    if not any(name != "ALERTS" for name in looked_at):
        found.append("gpu_fault: XIDs are not exported (DCGM_FI_DEV_XID_ERRORS)")
    return tuple(found)


def _coverage(usage: Usage) -> Floats:
    if usage.coverage is not None and usage.coverage.size:
        return usage.coverage
    busy = usage.means.get("gpu.util", usage.means.get("gpu.gr_active"))
    if busy is None or not busy.size:
        return np.zeros((0, 0), np.float32)
    return (~np.isnan(busy)).astype(np.float32)


def _days(usage: Usage, covered: Floats, there: NDArray[np.bool_]) -> tuple[tuple[float, float], ...]:
    if not covered.size:
        return ()
    days = _day_of(usage.starts)
    shares = [(np.flatnonzero(days == day), day) for day in np.unique(days)]
    return tuple(
        (float(usage.starts[bins[0]]), float(covered[bins][there[bins]].mean()))
        for bins, _ in shares
        if there[bins].any()
    )
