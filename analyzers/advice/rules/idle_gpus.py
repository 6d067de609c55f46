"""GPUs that jobs hold and do not use: the whole of their life, or half an hour and more of it.

Running jobs get a line each, and their idle GPUs can be taken now; of those that have ended a line a user and name says with
how many GPUs the next ones would do. Source: SIZING.md 6.1, after the practice of Jobstats.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from coldaisle.analyzers.advice.advice import Advice, Grade, Ground, Refused, Saving
from coldaisle.analyzers.advice.idling import Runs, Thresholds, idle_runs
from coldaisle.analyzers.advice.pool import DAY, HOUR, WEEK, Bools, Index, Numbers, Pool, tally
from coldaisle.analyzers.advice.telling import between, counted, examples, lasting, named, who
from coldaisle.analyzers.finding import NOWHERE, Scope, Workload
from coldaisle.analyzers.hints import named as workload_named
from coldaisle.analyzers.sizing.quantity import Quantity, exact
from coldaisle.analyzers.usage import Stay

__all__ = ["Thresholds", "advise", "reclaimable", "waste"]
NAME = "idle_gpus"
SOURCE = "counted: no kernel and no warp for the whole life, or for half an hour and more"


@dataclass(frozen=True, slots=True, eq=False)
class Waste:
    """GPU seconds that jobs held and did not use, [stay] each."""

    runs: Runs
    run_stay: Index
    """[run] whose."""
    seconds: Numbers
    low: Numbers
    """Of them measured, less a bin for each end."""
    high: Numbers
    enough: Bools
    """Whether so much of the job was measured that it can be judged."""


def waste(pool: Pool, rules: Thresholds) -> Waste | None:
    """What is idle; None: nothing tells whether boards were busy."""
    return pool.cached((NAME, "waste"), lambda: _waste(pool, rules))


def advise(pool: Pool, rules: Thresholds) -> Iterator[Advice | Refused]:
    """A line a running job, and a line a user and name of those that have ended."""
    if not pool.usage.jobs_known:
        yield Refused(NAME, NOWHERE, "jobs are not known: whether a GPU was allocated cannot be told")
        return
    found = waste(pool, rules)
    if found is None:
        yield Refused(NAME, NOWHERE, "neither gpu.util nor gpu.gr_active is measured")
        return
    lines = [*_running(pool, found), *_ended(pool, found)]
    least = rules.least_gpu_hours
    lines.sort(key=_counted, reverse=True)
    shown = [line for line in lines if _counted(line) >= least][: rules.most_lines]
    yield from shown
    if rest := [line for line in lines if line not in shown]:
        yield _sum(pool, rest)
    yield from _thin(pool, found)


def reclaimable(pool: Pool, rules: Thresholds) -> Quantity | None:
    """GPU-hours of the span that nobody used although somebody held them; None: it cannot be told."""
    found = waste(pool, rules) if pool.usage.jobs_known else None
    if found is None:
        return None
    return _hours(found, found.enough)


def _waste(pool: Pool, rules: Thresholds) -> Waste | None:
    runs = idle_runs(pool, rules)
    if runs is None:
        return None
    stay, step, size = pool.holds.stay[runs.hold], pool.usage.step, len(pool.stays)
    bins = (runs.end - runs.first).astype(np.float64)
    # Of a whole life to the second, else by bins.
    seconds = np.where(runs.whole, pool.inside_s[stay], bins * step)
    known = np.minimum(runs.known, bins) / np.maximum(bins, 1)
    edges = np.where(runs.whole, 0.0, step)
    return Waste(
        runs,
        stay,
        tally(stay, seconds, size),
        tally(stay, np.maximum(seconds * known - edges, 0), size),
        tally(stay, seconds + edges, size),
        np.asarray(pool.coverage >= pool.common.least_coverage),
    )


def _hours(found: Waste, chosen: Bools | Sequence[int]) -> Quantity:
    low, value, high = (float(x[chosen].sum()) / HOUR for x in (found.low, found.seconds, found.high))
    return between(low, value, high, "gpu_hours", "sum of the idle time of each GPU held", SOURCE)


def _counted(line: Advice) -> float:
    return line.saving.gpu_hours.value if line.saving.gpu_hours else 0.0


def _running(pool: Pool, found: Waste) -> Iterator[Advice]:
    now = (found.runs.end == pool.bins) & (pool.is_running & found.enough)[found.run_stay]
    for number in np.unique(found.run_stay[now]).tolist():
        yield _reclaim(pool, found, number, np.flatnonzero(now & (found.run_stay == number)))


def _reclaim(pool: Pool, found: Waste, number: int, chosen: Index) -> Advice:
    """GPUs of a running job that do nothing now."""
    job, runs = pool.stays[number], found.runs
    boards = [pool.usage.boards[b] for b in pool.holds.board[runs.hold[chosen]].tolist()]
    count, age = len(boards), pool.end - job.started_at
    lasts = float((runs.end[chosen] - runs.first[chosen]).min() * pool.usage.step)
    workload = job.workload or workload_named(job.name) or ""
    what = counted(count, "idle GPU")
    return Advice(
        id=f"{NAME}:{job.id}",
        rule=NAME,
        action=f"scale down {what} of {who(job)}"
        if workload == Workload.INFERENCE
        else f"reclaim {what} of {who(job)}",
        scope=Scope(
            racks=tuple(dict.fromkeys(board.rack for board in boards if board.rack)),
            nodes=tuple(dict.fromkeys(board.node for board in boards)),
            gpus=tuple(board.key for board in boards),
            jobs=(job.id,),
        ),
        quantity=exact(count, "gpus", "GPUs without a kernel", SOURCE),
        saving=_saving(pool, _hours(found, [number]), _power(pool, chosen, found), count, job.limit_s - age),
        grade=Grade.C if pool.is_snapshot else Grade.A if lasts >= 2 * HOUR else Grade.B,
        grounds=(_ground(pool, found, chosen, [job]),),
        because=f"{_of(count, job)} ran no kernel for {_since(pool, lasts, age)}",
        would_change="a kernel on them; a longer look, if it pauses by design",
        but=_but(workload, pool, lasts),
    )


def _ended(pool: Pool, found: Waste) -> Iterator[Advice]:
    """By user and name, of jobs that have ended and of what running ones wasted earlier."""
    current = np.zeros(len(pool.stays), dtype=np.bool_)
    now = (found.runs.end == pool.bins) & pool.is_running[found.run_stay]
    current[found.run_stay[now]] = True
    groups: dict[tuple[str, str], list[int]] = {}
    for number in np.flatnonzero((found.seconds > 0) & found.enough & ~current).tolist():
        job = pool.stays[number]
        groups.setdefault((job.user, job.name), []).append(number)
    alike: dict[tuple[str, str], int] = {}
    for number in np.flatnonzero(pool.inside_s > 0).tolist():
        job = pool.stays[number]
        alike[job.user, job.name] = alike.get((job.user, job.name), 0) + 1
    for (user, name), members in groups.items():
        yield _ask_less(pool, found, user, name, members, alike[user, name])


def _ask_less(pool: Pool, found: Waste, user: str, name: str, members: list[int], alike: int) -> Advice:
    jobs = [pool.stays[number] for number in members]
    held = np.array([job.gpu_count for job in jobs], dtype=np.float64)
    idle = found.seconds[members] / np.maximum(pool.inside_s[members], 1)
    middle, low, high = float(np.median(idle)), float(idle.min()), float(idle.max())
    chosen = np.flatnonzero(np.isin(found.run_stay, members))
    hours = _hours(found, members)
    workload = jobs[0].workload or workload_named(name) or ""
    is_all = bool((idle >= 0.95 * held).all())
    of = f"of {counted(len(jobs), 'job')} {named(name)!r} ({named(user)})"
    advice = f"{counted(hours.value, 'idle GPU-hour')} {of}"
    few = len(jobs) < pool.common.least_jobs
    return Advice(
        id=f"{NAME}:{user}/{name}",
        rule=NAME,
        action=f"end {advice}: no GPU was used" if is_all else f"ask for fewer GPUs: {advice}",
        scope=Scope(jobs=tuple(job.id for job in jobs[:200])),
        quantity=between(
            low, middle, high, "gpus", "median over its jobs of idle GPU time / run time", SOURCE
        ),
        saving=_saving(pool, hours, _power(pool, chosen, found), middle, np.nan),
        grade=Grade.C if few else Grade.A if found.runs.whole[chosen].all() else Grade.B,
        grounds=(_ground(pool, found, chosen, jobs),),
        because=(
            f"{len(jobs)} of {counted(alike, 'job')} left {middle:.3g} of {float(np.median(held)):.3g} GPUs idle,"
            f" {counted(hours.value, 'GPU-hour')} of {float(pool.gpu_s[members].sum()) / HOUR:,.0f}"
        ),
        would_change="fewer than five such jobs: more of them may look otherwise"
        if few
        else "how they are started",
        but=_but(workload, pool, np.inf),
    )


def _sum(pool: Pool, lines: Sequence[Advice]) -> Advice:
    """What is not worth a line each."""
    hours = [line.saving.gpu_hours for line in lines if line.saving.gpu_hours is not None]
    total = Quantity(
        sum(h.value for h in hours),
        sum(h.low for h in hours),
        sum(h.high for h in hours),
        "gpu_hours",
        "",
        SOURCE,
    )
    gpus = sum(line.quantity.value for line in lines)
    return Advice(
        id=f"{NAME}:others",
        rule=NAME,
        action=f"look at {counted(total.value, 'idle GPU-hour')} of many small jobs",
        scope=Scope(jobs=tuple(job for line in lines for job in line.scope.jobs)[:200]),
        quantity=exact(gpus, "gpus"),
        saving=_saving(pool, total, None, gpus, np.nan),
        grade=Grade.B,
        grounds=tuple(ground for line in lines[:3] for ground in line.grounds),
        because=f"{len(lines)} users, names or jobs each wasted too little for a line of its own",
        would_change="nothing: it is counted",
    )


def _thin(pool: Pool, found: Waste) -> Iterator[Refused]:
    """Jobs that were measured too little, or whose boards are not known."""
    ran = pool.inside_s > 0
    unknown = int((ran & np.isnan(pool.coverage)).sum())
    thin = int((ran & (pool.coverage < pool.common.least_coverage)).sum())
    if thin:
        least = f"{pool.common.least_coverage:.0%}"
        yield Refused(NAME, NOWHERE, f"{counted(thin, 'job')} measured for less than {least} of their time")
    if unknown:
        yield Refused(
            NAME, NOWHERE, f"which GPUs {counted(unknown, 'job')} held is not known, or a bin is longer"
        )


def _saving(pool: Pool, hours: Quantity, power: Quantity | None, gpus: float, left_s: float) -> Saving:
    """Over at least a day by what was counted; from less by what it comes to if it goes on, until a known time limit."""
    if pool.usage.span_s >= DAY:
        week = hours.scaled(1 / pool.weeks)
    else:
        rest = min(WEEK, max(left_s, 0.0)) if np.isfinite(left_s) else WEEK
        week = between(
            0.0,
            gpus * rest / HOUR,
            gpus * WEEK / HOUR,
            "gpu_hours",
            "GPUs x time that is left, if it goes on",
        )
    price = pool.common.price_per_gpu_hour
    money = (
        None if price is None else week.scaled(price, "$", "GPU-hours x price a GPU-hour", "configuration")
    )
    return Saving(week, power, money, hours)


def _power(pool: Pool, chosen: Index, found: Waste) -> Quantity | None:
    """What idle boards draw, on average over the span: what is saved where they are powered down."""
    power = pool.metric("gpu.power")
    if power is None or not len(chosen):
        return None
    holds, runs = pool.holds, found.runs
    total = bins = 0.0
    for run in chosen[:500].tolist():
        board = holds.board[runs.hold[run]]
        line = power[board, runs.first[run] : runs.end[run]]
        have = line[~np.isnan(line)]
        total, bins = total + float(have.sum()), bins + len(have)
    if not bins:
        return None
    mean = total / bins
    share = float((runs.end[chosen] - runs.first[chosen]).sum()) / max(pool.bins, 1)
    return between(0.0, mean * share, mean * share, "W", "mean power while idle x GPUs, over the whole span")


def _ground(pool: Pool, found: Waste, chosen: Index, jobs: Sequence[Stay]) -> Ground:
    runs = found.runs
    bins = float((runs.end[chosen] - runs.first[chosen]).sum())
    known = float(runs.known[chosen].sum())
    return Ground(
        pool.busy_metric,
        bins * pool.usage.step / max(len(chosen), 1),
        int(known),
        min(known / bins, 1.0) if bins else 0.0,
        examples(jobs),
    )


def _of(count: int, job: Stay) -> str:
    return (
        f"all {counted(count, 'GPU')}"
        if count >= job.gpu_count > 1
        else f"{count} of {counted(job.gpu_count, 'GPU')}"
    )


def _since(pool: Pool, lasts: float, age: float) -> str:
    if pool.is_snapshot:
        return f"the {lasting(lasts)} that were looked at; it runs for {lasting(age)}"
    more = " at least" if lasts >= pool.usage.span_s - pool.usage.step else ""
    return f"{lasting(lasts)}{more}, of the {lasting(age)} that it runs"


def _but(workload: str, pool: Pool, lasts: float) -> str:
    if workload == Workload.INTERACTIVE:
        return "somebody may sit before it: a smaller slice or a time limit does as well"
    if workload == Workload.INFERENCE:
        return "a server may be a spare that must answer at once"
    if lasts < HOUR:
        return "it may still stage data or compile: ask its owner first"
    return ""
