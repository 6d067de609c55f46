"""Idle allocation: GPUs are held, and nothing runs on them.

Two signals: no kernel (utilisation, SM activity) and the power of an idle board, minute after minute. Who holds a GPU is
known of jobs and servers; where nobody says, memory in use tells that somebody does. Loss is exact: idle GPUs of those held.
"""

from __future__ import annotations

from typing import NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from coldaisle.analyzers.features import hosts, idle_power, power_limit
from coldaisle.analyzers.finding import Candidate, Evidence, Scope, Severity, Verdict, Warming, Workload
from coldaisle.analyzers.hints import workload_of
from coldaisle.analyzers.teams import serving, teams
from coldaisle.analyzers.window import MINUTES, Bools, Window, mean
from coldaisle.sources.source import Kind

NAME = "idle_allocation"
LOOKBACK_S = 3600.0


class Thresholds(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """See the TOML file."""

    notice_s: float
    warning_s: float
    critical_s: float
    util: float
    sm_active: float
    intensity: float
    known: float
    context_bytes: float
    interactive_s: float
    staging_s: float
    staging_cpu: float
    staging_bytes: float
    works: float


class Idle(NamedTuple):
    """[gpu] each."""

    since: NDArray[np.float64]
    """NaN: it is not idle."""
    worked: Bools
    """Whether it did something before, as far as the window reaches."""
    bound: Bools
    """Whether it may have been idle for longer than is known."""


def detect(window: Window, rules: Thresholds) -> Verdict:
    """One candidate a job, a server, or a node where no jobs are known."""
    idle = _idle(window, rules)
    lasting = window.heard(Kind.GPU) & (window.at - idle.since >= rules.notice_s)
    if not lasting.any():
        seen = window.at - window.since
        is_warm = seen >= rules.notice_s or not len(lasting)
        return Verdict(warming=None if is_warm else Warming(NAME, max(seen, 0.0), rules.notice_s, "s"))
    found = [*_teams(window, rules, idle, lasting), *_servers(window, rules, idle, lasting)]
    return Verdict(tuple(one for one in found if one is not None))


def _idle(window: Window, rules: Thresholds) -> Idle:
    """The minutes at the end in which a GPU did nothing, and the newest samples."""
    known, quiet = _without_kernel(window, rules)
    if window.has("gpu.sm_active"):
        quiet &= ~(window.minutes("gpu.sm_active").mean > rules.sm_active)
    floor = idle_power(window)
    most = floor + rules.intensity * (power_limit(window) - floor)
    quiet &= ~(window.minutes("gpu.power").mean > most)
    busy = known & ~quiet
    worked: Bools = np.asarray(busy.any(axis=0))
    last = np.where(worked, MINUTES - 1 - np.argmax(busy[::-1], axis=0), -1)
    first = np.where(known.any(axis=0), np.argmax(known, axis=0), MINUTES)
    start = np.maximum(last + 1, first)
    count = np.maximum(MINUTES - start, 1)
    inside = np.arange(MINUTES)[:, None] >= start
    is_told = (known & inside).sum(axis=0) >= rules.known * count
    end = window.at // 60 * 60
    since = end - 60.0 * (MINUTES - start)
    is_idle = is_told & (start < MINUTES) & ~_runs_now(window, rules) & ~window.groups.has_instances
    return Idle(np.where(is_idle, since, np.nan), worked, ~worked)


def _without_kernel(window: Window, rules: Thresholds) -> tuple[Bools, Bools]:
    """[minute, gpu] whether anything is known, and whether no kernel ran by all that is: utilisation is glimpsed, and misses what
    the engine's own average over the time between two samples shows."""
    known = np.zeros((MINUTES, len(window.layout.gpus)), dtype=np.bool_)
    quiet = np.ones_like(known)
    for key in _kernels(window):
        seen = window.minutes(key)
        known |= ~np.isnan(seen.mean)
        quiet &= ~((seen.high > rules.util) & (seen.mean > rules.util / 10))
    return known, quiet


def _runs_now(window: Window, rules: Thresholds) -> Bools:
    """[gpu] the newest samples show a kernel."""
    runs = np.zeros(len(window.layout.gpus), dtype=np.bool_)
    for key in _kernels(window):
        runs |= (window.recent(key, 60.0, polls=2).values > rules.util).any(axis=0)
    return runs


def _kernels(window: Window) -> tuple[str, ...]:
    """What tells how much of the time a kernel runs."""
    return tuple(key for key in ("gpu.gr_active", "gpu.util") if window.has(key))


def _teams(window: Window, rules: Thresholds, idle: Idle, lasting: Bools) -> list[Candidate | None]:
    team = teams(window)
    mine = lasting & ~serving(window)
    return [
        _job(window, rules, idle, mine, number)
        if team.job[number] >= 0
        else _node(window, rules, idle, mine, number)
        for number in np.unique(team.of[mine & (team.of >= 0)]).tolist()
    ]


def _job(window: Window, rules: Thresholds, idle: Idle, lasting: Bools, team: int) -> Candidate | None:
    """A job of which all GPUs, or some, do nothing."""
    every = teams(window)
    job = window.jobs[every.job[team]]
    members = every.members(team)
    gpus = members[lasting[members]]
    since = max(float(idle.since[gpus].max()), job.since)
    lasts, age = window.at - since, window.at - job.since
    workload = workload_of(window, job)
    is_all = len(gpus) == len(members)
    worked = bool(idle.worked[gpus].any()) and since > job.since
    if lasts < rules.notice_s or (workload is Workload.INTERACTIVE and age < rules.interactive_s):
        return None
    if not worked and age < rules.staging_s and _is_staging(window, rules, team):
        return None
    bound = bool(idle.bound[gpus].any()) and job.since < since - 60
    severity = _severity(rules, age if bound and lasts >= rules.warning_s else lasts)
    if not is_all:
        if not _works(window, rules, members[~lasting[members]]):
            return None
        is_design = len(members) >= 4 and len(members) - len(gpus) == 1
        severity = Severity.INFO if is_design else min(severity, Severity.WARNING)
    if workload is Workload.INFERENCE:
        severity = Severity.INFO
    variant = "partial" if not is_all else "serving" if workload is Workload.INFERENCE else None
    return _candidate(
        window, rules, gpus, variant, Scope(
            nodes=_nodes(window, gpus), gpus=tuple(window.layout.gpus[gpu].key for gpu in gpus), jobs=(job.id,)
        ), severity, since, len(gpus) / len(members), bound, worked,
    )  # fmt: skip


def _node(window: Window, rules: Thresholds, idle: Idle, lasting: Bools, team: int) -> Candidate | None:
    """GPUs of a node of which nobody knows the job: memory in use says that somebody holds them."""
    members = teams(window).members(team)
    held = lasting & _has_context(window, rules)
    gpus = members[held[members]]
    if not len(gpus):
        return None
    since = float(idle.since[gpus].max())
    severity = min(_severity(rules, window.at - since), Severity.WARNING)
    scope = Scope(nodes=_nodes(window, gpus), gpus=tuple(window.layout.gpus[gpu].key for gpu in gpus))
    bound, worked = bool(idle.bound[gpus].any()), bool(idle.worked[gpus].any())
    return _candidate(window, rules, gpus, "loaded", scope, severity, since, 1.0, bound, worked)


def _servers(window: Window, rules: Thresholds, idle: Idle, lasting: Bools) -> list[Candidate | None]:
    """Servers that nobody asks anything."""
    asked = np.zeros(len(window.layout.servers), dtype=np.bool_)
    for key in ("serve.running", "serve.waiting", "serve.requests", "serve.gen_tokens"):
        if window.has(key):
            asked |= (window.recent(key, rules.notice_s).values > 0).any(axis=0)
    found: list[Candidate | None] = []
    for number, server in enumerate(window.layout.servers):
        gpus = np.array(server.gpus, dtype=np.intp)
        if len(gpus) and lasting[gpus].all() and not asked[number]:
            scope = Scope(
                nodes=_nodes(window, gpus), gpus=tuple(window.layout.gpus[gpu].key for gpu in gpus),
                servers=(server.key,),
            )  # fmt: skip
            since = float(idle.since[gpus].max())
            found.append(
                _candidate(
                    window, rules, gpus, "serving", scope, Severity.INFO, since, 1.0,
                    bool(idle.bound[gpus].any()), bool(idle.worked[gpus].any()),
                )
            )  # fmt: skip
    return found


def _is_staging(window: Window, rules: Thresholds, team: int) -> bool:
    """Whether the hosts of a job that has not begun to compute prepare something."""
    host = hosts(window)
    moved = np.nan_to_num(host.reads[team]) + np.nan_to_num(host.writes[team])
    return bool(host.cpu[team] >= rules.staging_cpu or moved >= rules.staging_bytes)


def _works(window: Window, rules: Thresholds, gpus: NDArray[np.intp]) -> bool:
    """Whether some of them do something."""
    return any(
        bool((mean(window.recent(key, 120.0).values[:, gpus]) >= rules.works).any())
        for key in _kernels(window)
    )


def _has_context(window: Window, rules: Thresholds) -> Bools:
    """[gpu] a process holds memory there."""
    context: Bools = (window.current("gpu.mem_used") >= rules.context_bytes) | (
        window.current("gpu.processes") >= 1
    )
    return context


def _severity(rules: Thresholds, lasts: float) -> Severity:
    if lasts >= rules.critical_s:
        return Severity.CRITICAL
    return Severity.WARNING if lasts >= rules.warning_s else Severity.INFO


def _nodes(window: Window, gpus: NDArray[np.intp]) -> tuple[str, ...]:
    return tuple(window.layout.nodes[node].key for node in np.unique(window.groups.gpu_node[gpus]).tolist())


def _candidate(
    window: Window,
    rules: Thresholds,
    gpus: NDArray[np.intp],
    variant: str | None,
    scope: Scope,
    severity: Severity,
    since: float,
    loss: float,
    bound: bool,
    worked: bool,
) -> Candidate:
    is_loaded = bool(_has_context(window, rules)[gpus].any())
    anchor = (scope.servers or scope.jobs or scope.nodes)[0]
    minutes = (window.at - since) / 60
    power = (
        float(np.nanmean(mean(window.recent("gpu.power").values[:, gpus])))
        if window.has("gpu.power")
        else np.nan
    )
    evidence = [Evidence("gpu.util", anchor, 0.0, "ratio", f"<= {rules.util} for {minutes:.0f} min")]
    if np.isfinite(power):
        evidence.append(Evidence("gpu.power", anchor, power, "W", "idle power"))
    used = float(np.nanmax(window.current("gpu.mem_used")[gpus], initial=0))
    if used:
        evidence.append(
            Evidence("gpu.mem_used", anchor, used, "B", "held by a process" if is_loaded else "no process")
        )
    return Candidate(
        NAME,
        variant or ("loaded" if is_loaded else "unused"),
        scope,
        severity,
        since,
        loss,
        0.95 if scope.jobs or scope.servers else 0.8,
        tuple(evidence),
        since_bound=bound,
        missing=() if np.isfinite(power) else ("gpu.power: not exported",),
        words={
            "lasts": f"{'at least ' if bound else ''}{minutes:.0f} min",
            "idle": str(len(gpus)),
            "before": ", after it had worked" if worked else "",
            "held": f"{used / 1e9:.0f} GB",
        },
    )
