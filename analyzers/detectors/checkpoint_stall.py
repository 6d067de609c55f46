"""Checkpoint stall: a training job stands still while its state is written.

Two signals: all ranks fall to idle or waiting power together, and while they do, their nodes write (file systems, network
storage) or wait for I/O, far more than otherwise. Dips alone prove nothing: evaluations dip too. It is a finding when it
comes at regular intervals and costs, or when one save takes long. Loss is the work missing from the dips, of the time
between them; all of it while one long save goes on.
"""

from __future__ import annotations

from typing import NamedTuple

import msgspec
import numpy as np

from coldaisle.analyzers.features import READS, WRITES, idle_power, power_limit
from coldaisle.analyzers.finding import (
    Candidate,
    Evidence,
    Rejected,
    Severity,
    Undecided,
    Verdict,
    Workload,
    severity_of,
)
from coldaisle.analyzers.hints import workload_of
from coldaisle.analyzers.saves import BURST, BURST_BYTES, BURST_WAIT, SENT, WAITED, Series, saves
from coldaisle.analyzers.teams import Teams, teams
from coldaisle.analyzers.window import Bools, Recent, Window, quantile
from coldaisle.sources.source import Floats, Kind

NAME = "checkpoint_stall"
LOOKBACK_S = 3600.0
EDGE, EDGE_MEAN = 0.95, 0.98
"""Of what it does at work: a sample beside a dip that shows less has a part of it, and so has a minute's mean, which wavers less
(engineering choice)."""


class Thresholds(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """See the TOML file."""

    window_s: float
    start_s: float
    works: float
    dip: float
    dip_mean: float
    slow_poll_s: float
    ranks: float
    events: int
    cv: float
    share: float
    long_s: float
    critical_s: float
    keep: float


class Stall(NamedTuple):
    """One time of standing still."""

    start: float
    end: float
    cost_s: float
    """Work missing, in seconds at full speed."""
    is_saving: bool
    """Whether its nodes wrote meanwhile."""


class Past(NamedTuple):
    """A team over time, [time] each, the oldest first."""

    times: Series
    width: Series
    """Seconds that each stands for."""
    level: Series
    """Power above idle as a share of what it is while it works."""
    dips: Bools
    saves: Bools
    """Its nodes write or wait for I/O far more than usual."""
    wrote: float
    """Bytes a second and node in the highest burst; NaN: not known."""
    waited: float
    """Share of the time that a task waited for I/O, there."""


def detect(window: Window, rules: Thresholds) -> Verdict:
    """One candidate a job, or a node where no job is known."""
    team = teams(window)
    if not len(team) or not window.has("gpu.power"):
        return Verdict()
    candidates: list[Candidate] = []
    undecided: list[Undecided] = []
    for number in np.flatnonzero(_suspects(window, team, rules)).tolist():
        said = _judge(window, rules, number)
        if isinstance(said, Candidate):
            candidates.append(said)
        elif said is not None:
            undecided.append(said)
    return Verdict(tuple(candidates), tuple(undecided))


def _suspects(window: Window, team: Teams, rules: Thresholds) -> Bools:
    """[team] works, and nearly all its ranks stood still together for a moment within the hour, or do now.

    Cheap tests before dear ones: the lowest instants of minutes first, then samples.
    """
    minutes, now = window.minutes("gpu.power"), window.recent("gpu.power", 60.0)
    idle = idle_power(window)
    room = np.maximum(power_limit(window) - idle, 1.0)
    high = quantile(team.mean((np.concatenate([minutes.mean, now.values]) - idle) / room), 0.9)
    lowest = np.fmin(np.fmin.reduce(minutes.low, axis=0), np.fmin.reduce(now.values, axis=0))
    # A board of a team counts from where the team is; -1, of no team, reads the last one and goes nowhere.
    usual = np.append(np.where(high >= rules.works, high, -np.inf), -np.inf)[team.of]
    instant, partly = (idle + share * usual * room for share in (rules.dip, rules.dip_mean))
    suspects: Bools = team.mean((lowest <= partly).astype(np.float32)[None])[0] >= rules.ranks
    if not suspects.any():
        return suspects
    power = _power(window, rules)
    limit = partly if power.step >= rules.slow_poll_s else instant
    low = team.mean((power.values <= limit).astype(np.float32))
    together = low.max(axis=0)
    if not any(window.has(key) for key in (*WRITES, *WAITED)):
        # Nothing can be decided then, and only what costs is worth saying so.
        suspects &= (low >= 0.9 * rules.ranks).mean(axis=0) >= rules.share
    before = team.mean((minutes.mean[:-15] <= partly).astype(np.float32)).max(axis=0)
    found: Bools = suspects & (np.fmax(together, before) >= 0.9 * rules.ranks) & _wrote(window, team, rules)
    return found


def _judge(window: Window, rules: Thresholds, number: int) -> Candidate | Undecided | None:
    """Of a team that stood still at times: whether for its checkpoints, and what that costs."""
    team = teams(window)
    job = window.jobs[team.job[number]] if team.job[number] >= 0 else None
    if job and workload_of(window, job) in (Workload.INFERENCE, Workload.INTERACTIVE):
        return None
    past = _past(window, rules, number, job.since + rules.start_s if job else -np.inf)
    if len(past.times) < 8:
        return None
    stalls = _stalls(past, rules)
    saving = [one for one in stalls if one.is_saving]
    if not saving:
        return _undecided(window, rules, number, stalls)
    return _long(window, rules, number, past, saving) or _periodic(window, rules, number, past, saving)


# --- one team over time ---------------------------------------------------------------------------


def _wrote(window: Window, team: Teams, rules: Thresholds) -> Bools:
    """[team] a node of it may have written a checkpoint, or says nothing of what it writes."""
    bursts = np.full(window.size(Kind.NODE), np.nan, dtype=np.float32)
    for key in SENT:
        if window.has(key):
            bursts = np.fmax(bursts, np.fmax.reduce(window.recent(key, rules.window_s).values, axis=0))
            bursts = np.fmax(bursts, np.fmax.reduce(window.minutes(key).high, axis=0))
    may: Bools = ~(team.node_high(bursts) < BURST_BYTES / 5)
    return may


def _past(window: Window, rules: Thresholds, number: int, start: float) -> Past:
    """Whole minutes before the samples that are kept, then these."""
    team = teams(window)
    gpus, nodes = team.members(number), team.nodes_of(number)
    power = _power(window, rules)
    idle = idle_power(window)[gpus]
    room = np.maximum(power_limit(window)[gpus] - idle, 1.0)
    recent = (power.values[:, gpus] - idle) / room
    minutes = (_minutes(window)[:, gpus] - idle) / room
    minute_times = window.at // 60 * 60 - 60 * np.arange(len(minutes), 0, -1.0) + 30
    older = minute_times < power.times[0] - 30
    ranks = np.concatenate([minutes[older], recent])
    times = np.concatenate([minute_times[older], power.times])
    width = np.where(np.arange(len(times)) < older.sum(), 60.0, power.step)
    known = (~np.isnan(ranks)).any(axis=1) & (times >= start)
    ranks, times, width = ranks[known], times[known], width[known]
    full = quantile(ranks, 0.85)
    share = np.clip(ranks / np.maximum(full, 0.05), 0.0, 1.5)
    limit = np.where(width > rules.slow_poll_s, rules.dip_mean, rules.dip)
    level = np.nanmean(share, axis=1)
    is_low = np.where(np.isnan(share), np.nan, share < np.maximum(limit, 0.0)[:, None] + 0.1)
    dips = (level < limit) & (np.nanmean(is_low, axis=1) >= rules.ranks)
    written = saves(window, nodes, times, rules.window_s)
    return Past(times, width, level.astype(np.float64), dips, *written)


def _power(window: Window, rules: Thresholds) -> Recent:
    return window.recent(_power_key(window, rules), rules.window_s)


def _minutes(window: Window) -> Floats:
    """[minute, gpu] W: of the energy counter where there is one. Of a past instant's minutes only a sample each was read, and
    power says of it what a moment was like."""
    power = window.minutes("gpu.power").mean
    if not window.has("gpu.energy"):
        return power
    energy = window.minutes("gpu.energy").mean
    return np.where(np.isnan(energy), power, energy)


def _power_key(window: Window, rules: Thresholds) -> str:
    """Power; at slow polls the mean of the energy counter, which sees what lies between two samples."""
    exact = window.step("gpu.power") >= rules.slow_poll_s and window.has("gpu.energy")
    return "gpu.energy" if exact else "gpu.power"


def _at_work(past: Past, is_mean: Bools) -> Series:
    """[time] what such a sample shows of work without a dip: an instant is of one phase of a step, a minute's mean is of all, and
    may hold a part of a dip."""
    works = ~past.dips
    instant = past.level[works & ~is_mean]
    minute = past.level[works & is_mean]
    return np.where(
        is_mean,
        float(np.quantile(minute, 0.75)) if len(minute) else 1.0,
        float(instant.mean()) if len(instant) else 1.0,
    )


def _stalls(past: Past, rules: Thresholds) -> list[Stall]:
    """Dips that lie together."""
    stalls: list[Stall] = []
    if not past.dips.any():
        return stalls
    is_mean = past.width > rules.slow_poll_s
    fine = past.level[past.dips & past.saves & ~is_mean]
    floor = float(np.clip(np.median(fine), 0.0, 0.5)) if len(fine) else 0.05
    full = _at_work(past, is_mean)
    places = np.flatnonzero(past.dips)
    # A whole minute of work lies between two saves; an instant may be a sample that was lost, or another's.
    is_apart = (np.diff(past.times[places]) > 2.5 * past.width[places][1:]) | (
        is_mean[places][1:] & (np.diff(places) > 1)
    )
    for run in np.split(places, np.flatnonzero(is_apart) + 1):
        if len(run):
            first, last = int(run[0]), int(run[-1])
            around = np.arange(max(first - 1, 0), min(last + 2, len(past.times)))
            level, works = past.level[around], full[around]
            missing = np.clip((works - level) / np.maximum(works - floor, 0.1), 0.0, 1.0)
            edge = np.where(is_mean[around], EDGE_MEAN, EDGE)
            missing[((around < first) | (around > last)) & (level >= edge * works)] = 0.0
            cost = float((missing * past.width[around]).sum())
            saving = float(past.saves[run].mean()) >= 0.4
            stalls.append(
                Stall(
                    float(past.times[first] - past.width[first] / 2),
                    float(past.times[last] + past.width[last] / 2),
                    cost,
                    saving,
                )
            )
    return stalls


# --- what is said -----------------------------------------------------------------------------------


def _long(
    window: Window, rules: Thresholds, number: int, past: Past, saving: list[Stall]
) -> Candidate | None:
    """One save that takes minutes, while it goes on or has just ended."""
    last = saving[-1]
    lasts = last.end - last.start
    goes_on = window.at - last.end <= max(rules.long_s, 2.5 * float(past.width[-1]))
    # The first sample and the last may have been hit by little of it.
    at_least = lasts - float(past.width[-1])
    if at_least < rules.long_s or not goes_on or len(saving) >= rules.events:
        return None
    loss = 1.0  # nothing is computed while it lasts
    return _candidate(window, rules, number, past, "long", last, loss, last.start, lasts, 0.0, len(saving))


def _periodic(
    window: Window, rules: Thresholds, number: int, past: Past, saving: list[Stall]
) -> Candidate | None:
    """Saves at regular intervals that take a good part of the time."""
    starts = np.array([one.start for one in saving])
    if len(starts) < rules.events:
        return None
    between = np.diff(starts)
    period = float(np.median(between))
    whole = np.rint(between / period)  # one that no sample hit leaves a gap of two
    drift = between[whole >= 1] / whole[whole >= 1]
    if not len(drift) or drift.std() / drift.mean() > rules.cv or window.at - starts[-1] > 2.5 * period:
        return None
    costs = np.array([one.cost_s for one in saving])
    lasts = float(np.median(costs))  # a minute's mean tells how much was missing, not from when to when
    loss = float(np.clip(np.mean(costs) / drift.mean(), 0.0, 1.0))
    if loss < rules.share * rules.keep and lasts < rules.long_s:
        return None
    is_open = loss >= rules.share or lasts >= rules.long_s
    return _candidate(
        window, rules, number, past, "periodic", saving[-1], loss, float(starts[0]), lasts, period, len(saving), is_open
    )  # fmt: skip


def _undecided(window: Window, rules: Thresholds, number: int, stalls: list[Stall]) -> Undecided | None:
    """Long or regular dear dips of a job whose nodes tell nothing of storage."""
    team = teams(window)
    nodes = team.nodes_of(number)
    told = (*WRITES, *READS, *WAITED)
    if any(not np.isnan(window.current(key)[nodes]).all() for key in told if window.has(key)):
        return None
    late = [one for one in stalls if one.end > window.at - rules.window_s]
    cost = sum(one.cost_s for one in late)
    ongoing = (
        late and late[-1].end - late[-1].start >= rules.long_s and window.at - late[-1].end < rules.start_s
    )
    if not ongoing and (len(late) < rules.events or cost < rules.share * rules.window_s):
        return None
    where = f"no storage or host metrics for {window.layout.nodes[nodes[0]].key}"
    where += f" and {len(nodes) - 1} more" if len(nodes) > 1 else ""
    return Undecided(
        NAME, team.scope(window, number), f"cannot tell checkpoints from evaluation or waiting: {where}"
    )


def _candidate(
    window: Window,
    rules: Thresholds,
    number: int,
    past: Past,
    variant: str,
    last: Stall,
    loss: float,
    since: float,
    lasts: float,
    period: float,
    events: int,
    is_open: bool = True,
) -> Candidate:
    scope = teams(window).scope(window, number)
    anchor = (scope.jobs or scope.nodes)[0]
    inside = past.dips & (past.times >= last.start) & (past.times <= last.end)
    level = float(past.level[inside].mean()) if inside.any() else 0.0
    evidence = [
        Evidence("gpu.power", anchor, level, "ratio", f"<= {rules.dip} of the job's usual, on all ranks")
    ]
    if np.isfinite(past.wrote):
        evidence.append(
            Evidence("node.disk_write", scope.nodes[0], past.wrote, "B/s", f">= {BURST:.0f} x usual")
        )
    if np.isfinite(past.waited):
        evidence.append(
            Evidence("node.psi_io_some", scope.nodes[0], past.waited, "ratio", f">= {BURST_WAIT}")
        )
    severity = severity_of(loss)
    if variant == "long" and lasts < rules.critical_s:
        severity = Severity.WARNING
    return Candidate(
        NAME,
        variant,
        scope,
        severity,
        since,
        loss,
        0.9 if events >= rules.events else 0.75,
        tuple(evidence),
        since_bound=bool(period) and since - float(past.times[0]) < period,
        is_open=is_open,
        rejected=(
            Rejected("data_loader_starvation", "the nodes write, in long pauses"),
            Rejected("communication_stall", "the nodes write while the ranks wait"),
        ),
        words={
            "lasts": f"{lasts:.0f} s",
            "period": f"{period / 60:.0f} min",
            "events": str(events),
            "wrote": f"{past.wrote / 1e6:.0f} MB/s" if np.isfinite(past.wrote) else "an unknown rate",
        },
    )
