"""GPUs that jobs hold and do not use: the whole of their life, or half an hour and more of it.

Running jobs get a line each, and their idle GPUs can be taken now; of those that have ended a line a user and name says with
how many GPUs the next ones would do. Source: the practice of Jobstats.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from coldaisle.analyzers.advice.advice import Advice, Grade, Ground, Refused, Saving
from coldaisle.analyzers.advice.idling import Thresholds
from coldaisle.analyzers.advice.pool import DAY, HOUR, WEEK, Bools, Index, Numbers, Pool, tally
from coldaisle.analyzers.advice.reclaiming import SOURCE, Waste, waste
from coldaisle.analyzers.advice.telling import between, counted, examples, lasting, named, title, who
from coldaisle.analyzers.finding import NOWHERE, Scope, Workload
from coldaisle.analyzers.hints import named as workload_named
from coldaisle.analyzers.sizing.quantity import Quantity, exact
from coldaisle.analyzers.usage import Stay

__all__ = ["Thresholds", "advise"]
NAME = "idle_gpus"


def advise(pool: Pool, rules: Thresholds) -> Iterator[Advice | Refused]:
    """A line a running job, and a line a user and name of those that have ended."""
    if not pool.usage.jobs_known:
        yield Refused(NAME, NOWHERE, "jobs are not known: whether a GPU was allocated cannot be told")
        return
    found = waste(pool, rules)
    if found is None:
        yield Refused(NAME, NOWHERE, "neither gpu.util nor gpu.gr_active is measured")
        return
    now = np.unique(found.run_stay[_is_now(pool, found)])
    groups = [] if pool.is_snapshot else _ended(pool, found, now, rules)
    lines = [*_running(pool, found, now), *(one for one in groups if isinstance(one, Advice))]
    lines.sort(key=_counted, reverse=True)
    yield from lines[: rules.most_lines]
    yield from _rest(pool, lines[rules.most_lines :], rules.most_lines)
    yield from (one for one in groups if isinstance(one, Refused))
    yield from _thin(pool, found)


def _counted(line: Advice) -> float:
    return line.saving.gpu_hours.value if line.saving.gpu_hours else 0.0


def _is_now(pool: Pool, found: Waste) -> Bools:
    """[run] whether it goes on at the end of the span, in a job that can be judged."""
    ends_now = found.runs.end == pool.bins
    return np.asarray(ends_now & (pool.is_running & found.enough)[found.run_stay])


def _running(pool: Pool, found: Waste, now: Index) -> Iterator[Advice]:
    goes_on = _is_now(pool, found)
    for number in now.tolist():
        runs = found.of_stay[number]
        yield _reclaim(pool, found, number, runs[goes_on[runs]])


def _reclaim(pool: Pool, found: Waste, number: int, chosen: Index) -> Advice:
    """GPUs of a running job that do nothing now."""
    job, runs = pool.stays[number], found.runs
    boards = [pool.usage.boards[b] for b in pool.holds.board[runs.hold[chosen]].tolist()]
    count, age = len(boards), pool.end - job.started_at
    lasts = min(float((runs.end[chosen] - runs.first[chosen]).min() * pool.usage.step), age)
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
        saving=_saving(
            pool, found.hours(np.array([number])), _power(pool, chosen, found), count, job.limit_s - age
        ),
        grade=Grade.C if pool.is_snapshot else Grade.A if lasts >= 2 * HOUR else Grade.B,
        grounds=(_ground(pool, found, chosen, [job]),),
        because=f"{_of(count, job)} ran no kernel for {_since(pool, lasts, age)}",
        would_change="a kernel on them; a longer look, if it pauses by design",
        but=_but(workload, pool, lasts),
    )


def _ended(pool: Pool, found: Waste, now: Index, rules: Thresholds) -> list[Advice | Refused]:
    """By user and name, of jobs that have ended and of what running ones wasted earlier."""
    ran = np.flatnonzero((pool.inside_s > 0) & (pool.gpu_s > 0))
    is_now = np.zeros(len(pool.stays), dtype=np.bool_)
    is_now[now] = True
    groups: dict[tuple[str, str], list[int]] = {}
    for number in ran.tolist():
        job = pool.stays[number]
        groups.setdefault((job.user, job.name), []).append(number)
    said: list[Advice | Refused] = []
    unsure = 0
    for members in groups.values():
        every = np.array(members, dtype=np.intp)
        wasted = every[(found.seconds > 0)[every] & found.enough[every] & ~is_now[every]]
        if not len(wasted):
            continue
        # Of a group that was measured by halves its hours are not known.
        judged = pool.gpu_s[every[found.enough[every]]].sum()
        if judged < pool.common.least_coverage * pool.gpu_s[every].sum():
            unsure += 1
        else:
            parts = [_ask_less(pool, found, alike, len(every)) for alike in _alike(pool, found, wasted)]
            said += [line for line in parts if _counted(line) >= rules.least_gpu_hours]
    if unsure:
        least = f"{pool.common.least_coverage:.0%}"
        why = f"{counted(unsure, 'group')} of a user and a name measured for less than {least} of their GPU-hours"
        said.append(Refused(NAME, NOWHERE, why))
    return said


def _alike(pool: Pool, found: Waste, members: Index) -> Iterator[Index]:
    """A group that is advised on as one. Jobs without a name have nothing in common but what they left idle: all GPUs, some, or stretches."""
    if pool.stays[members[0]].name:
        yield members
        return
    is_all = found.seconds[members] >= 0.95 * pool.gpu_s[members]
    some = tally(found.run_stay, found.runs.whole.astype(np.float64), len(pool.stays))[members] > 0
    for chosen in (is_all, some & ~is_all, ~some & ~is_all):
        if chosen.any():
            yield members[chosen]


def _ask_less(pool: Pool, found: Waste, members: Index, alike: int) -> Advice:
    jobs = [pool.stays[number] for number in members.tolist()]
    user, name = jobs[0].user, jobs[0].name
    held = np.array([job.gpu_count for job in jobs], dtype=np.float64)
    idle = found.seconds[members] / np.maximum(pool.inside_s[members], 1)
    middle, low, high = float(np.median(idle)), float(idle.min()), float(idle.max())
    chosen = np.concatenate([found.of_stay[number] for number in members.tolist()])
    unused = np.array(
        [found.runs.whole[found.of_stay[number]].sum() for number in members.tolist()], np.float64
    )
    hours = found.hours(members)
    workload = jobs[0].workload or workload_named(name) or ""
    few = len(jobs) < pool.common.least_jobs
    action, what = _request(jobs, held, idle, unused, hours.value)
    return Advice(
        id=f"{NAME}:{user}/{name or what}",
        rule=NAME,
        action=action,
        scope=Scope(jobs=tuple(job.id for job in jobs[:-201:-1])),
        quantity=between(
            low, middle, high, "gpus", "median over its jobs of idle GPU time / run time", SOURCE
        ),
        saving=_saving(pool, hours, _power(pool, chosen, found), middle, np.nan),
        grade=Grade.C if few else Grade.A if found.runs.whole[chosen].all() else Grade.B,
        grounds=(_ground(pool, found, chosen, jobs),),
        because=(
            f"{len(jobs)} of {counted(alike, 'job')} left {middle:.3g} of {float(np.median(held)):.3g} GPUs idle on average,"
            f" {_hours_of(hours.value)} of {pool.gpu_s[members].sum() / HOUR:,.0f}"
        ),
        would_change="fewer than five such jobs: more of them may look otherwise"
        if few
        else "how they are started",
        but=_but(workload, pool, np.inf),
    )


def _request(
    jobs: Sequence[Stay], held: Numbers, idle: Numbers, unused: Numbers, hours: float
) -> tuple[str, str]:
    """What to ask for the next time, and in a word; ``unused``: [job] GPUs that did nothing for its whole life."""
    of = f"{counted(len(jobs), 'job')} {title(jobs[0].user, jobs[0].name)}"
    if (idle >= 0.95 * held).all():
        return f"move {of} off GPUs: none was used in {_hours_of(hours)}", "(all)"
    size, spare = float(np.median(held)), float(unused.min())
    if (held == size).all() and spare >= 1:
        fewer = f"{size - spare:.0f} instead of {counted(size, 'GPU')}"
        return f"ask for {fewer} in {of}: {_hours_of(hours)} idle", "(some)"
    if unused.any():
        return f"ask for fewer GPUs in {of}: {_hours_of(hours)} idle", "(some)"
    stretches = f"let go of the GPUs of {of} while they do nothing: {_hours_of(hours)} idle in stretches"
    return stretches, "(stretches)"


def _hours_of(hours: float) -> str:
    return counted(hours, "GPU-hour") if hours >= 10 else f"{hours:.2g} GPU-hours"


def _rest(pool: Pool, lines: Sequence[Advice], most: int) -> Iterator[Advice]:
    """What is not worth a line each: a line a user, and one for all whom that leaves."""
    owner = {stay.id: stay.user for stay in pool.stays}
    of_user: dict[str, list[Advice]] = {}
    for line in lines:
        of_user.setdefault(owner[line.scope.jobs[0]], []).append(line)
    named_ = sorted(user for user in of_user if user)
    named_.sort(key=lambda user: -sum(map(_counted, of_user[user])))
    for user in named_[:most]:
        yield _sum(pool, of_user.pop(user), user)
    if others := [line for left in of_user.values() for line in left]:
        yield _sum(pool, others)


def _sum(pool: Pool, lines: Sequence[Advice], user: str = "") -> Advice:
    """Several lines in one, of a user or of several."""
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
    more = counted(len(lines), "more job or group", "more jobs and groups")
    return Advice(
        id=f"{NAME}:{user}/(more)" if user else f"{NAME}:others",
        rule=NAME,
        action=f"ask {named(user)} about {more} of theirs: {_hours_of(total.value)} idle"
        if user
        else f"look at {_hours_of(total.value)} that {more} left idle",
        scope=Scope(jobs=tuple(job for line in lines for job in line.scope.jobs)[:200]),
        quantity=exact(gpus, "gpus"),
        saving=_saving(pool, total, None, gpus, np.nan),
        grade=Grade.B,
        grounds=tuple(ground for line in lines[:3] for ground in line.grounds),
        because="each of them wasted less than those that have a line of their own",
        would_change="nothing: it is counted",
    )


def _thin(pool: Pool, found: Waste) -> Iterator[Refused]:
    """Jobs that were measured too little, or whose boards are not known."""
    ran = (pool.inside_s > 0) & (pool.gpu_s > 0)
    thin = int((ran & (pool.coverage < pool.common.least_coverage)).sum())
    if thin:
        least = f"{pool.common.least_coverage:.0%}"
        yield Refused(NAME, NOWHERE, f"{counted(thin, 'job')} measured for less than {least} of their time")
    if pool.homeless:
        yield Refused(NAME, NOWHERE, f"which GPUs {counted(pool.homeless, 'job')} held is not known")


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
