"""Data-loader starvation: GPUs of a training job wait, again and again, for their hosts to bring the next batch.

Two signals: gaps without a kernel on every rank (one rank's gaps with its peers spinning are a straggler's), and either a
host that shows why (CPU, I/O) or a job that did better before. A steady low rate with calm hosts is how some programs and
servers are, and is left alone. Loss is 1 - busy / busy before; where nothing better was seen, 1 - busy, an upper bound.
"""

from __future__ import annotations

from typing import NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from coldaisle.analyzers.features import (
    Activity,
    Hosts,
    Line,
    activity,
    aligned,
    fell,
    hosts,
    hourly_synchrony,
    line,
    synchrony,
)
from coldaisle.analyzers.finding import (
    Candidate,
    Evidence,
    Rejected,
    Undecided,
    Verdict,
    Workload,
    severity_of,
)
from coldaisle.analyzers.hints import workload_of
from coldaisle.analyzers.jobclass import trained
from coldaisle.analyzers.saves import saves
from coldaisle.analyzers.teams import Teams, teams
from coldaisle.analyzers.window import Bools, Window, mean, quantile
from coldaisle.sources.parts import pcie_achievable
from coldaisle.sources.source import Floats

NAME = "data_loader_starvation"
LOOKBACK_S = 3600.0


class Thresholds(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """See the TOML file."""

    window_s: float
    start_s: float
    busy: float
    keep: float
    least: float
    busiest: float
    worse: float
    sync: float
    long_low: float
    long_high: float
    pause_s: float
    intensity: float
    cpu: float
    psi_cpu: float
    psi_io: float
    pcie: float
    pcie_full: float
    blind: float
    z: float


class Gaps(NamedTuple):
    """[team] each, over the window."""

    busy: Floats
    busiest: Floats
    """Of its ranks: one that never pauses spins for the others."""
    spread: Floats
    """Between its busy and its quiet samples."""
    is_scattered: Bools
    """Neither one long pause nor one long stretch of work."""


class Cause(NamedTuple):
    """What the hosts show."""

    variant: str
    metric: str
    value: float
    rule: str


class Change(NamedTuple):
    """When a team became less busy."""

    past: Line
    since: float
    bound: bool
    """Whether it may have begun earlier."""
    earlier: float
    """From then until ``since`` it was as it was just before."""
    reference: float
    """How busy it was before; 1: that is not known."""


class Starved(NamedTuple):
    """What is seen of a team whose hosts are late."""

    cause: Cause
    loss: float
    change: Change
    busy: float
    busiest: float
    """Of its ranks."""
    in_step: float
    is_worse: bool
    """Than before."""


def detect(window: Window, rules: Thresholds) -> Verdict:
    """One candidate a job, or a node where no job is known."""
    team, work = teams(window), activity(window, rules.window_s)
    if not len(team) or not work.have.any():
        return Verdict()
    gaps = _gaps(window, team, work, rules)
    old_enough = ~(window.at - team.since < rules.start_s)
    enough = team.mean(work.have.sum(axis=0)[None].astype(np.float32))[0] >= 5
    suspect = (
        enough & old_enough & (gaps.busy <= rules.keep) & (gaps.busy >= rules.least)
        & (gaps.busiest <= rules.busiest) & gaps.is_scattered
    )  # fmt: skip
    candidates: list[Candidate] = []
    undecided: list[Undecided] = []
    for number in np.flatnonzero(suspect).tolist():
        said = _judge(window, rules, gaps, number)
        if isinstance(said, Candidate):
            candidates.append(said)
        elif said is not None:
            undecided.append(said)
    return Verdict(tuple(candidates), tuple(undecided))


def _gaps(window: Window, team: Teams, work: Activity, rules: Thresholds) -> Gaps:
    together = team.mean(work.busy)
    long = len(together)
    key = _busy_key(window)
    # An engine's own average is worth many glimpses: ranks in step are glimpsed as one.
    measured = window.recent(key, rules.window_s, step=work.step)
    averaged = mean(team.mean(window.recent(key, rules.window_s).values))
    # Glimpses of a rhythm may all fall into its gaps where polls are rare; what was measured in between tells a pause.
    between = team.mean(aligned(measured, work.times, work.step)) if key == "gpu.gr_active" else together
    low, high = (together <= 0.15) & ~(between > 0.25), (together >= 0.95) & ~(between < 0.9)
    return Gaps(
        np.where(np.isnan(averaged), mean(together), averaged).astype(np.float32),
        team.high(mean(work.busy)[None])[0],
        quantile(together, 0.9) - quantile(together, 0.1),
        (_longest(low) <= max(3, rules.long_low * long)) & (_longest(high) <= rules.long_high * long),
    )


def _longest(mask: Bools) -> NDArray[np.intp]:
    """[team] the most samples in a row."""
    run = np.zeros(mask.shape[1], dtype=np.intp)
    best = run.copy()
    for row in mask:
        run = np.where(row, run + 1, 0)
        best = np.maximum(best, run)
    return best


def _judge(window: Window, rules: Thresholds, gaps: Gaps, number: int) -> Candidate | Undecided | None:
    """Of a team with gaps: whether its host is why."""
    team = teams(window)
    job = window.jobs[team.job[number]] if team.job[number] >= 0 else None
    workload = workload_of(window, job) if job else None
    if workload in (Workload.INFERENCE, Workload.INTERACTIVE):
        return None
    in_step = float(np.nan_to_num(synchrony(window, rules.window_s)[number]))
    if job is None and not max(in_step, float(np.nan_to_num(hourly_synchrony(window)[number]))) >= rules.sync:
        return None
    now = float(gaps.busy[number])
    start = job.since + rules.start_s if job else -np.inf
    change = _change(window, rules, number, start)
    busy = _busy_between_saves(window, rules, number, change, now)
    if busy is None or _has_one_that_goes_on(window, rules, team.members(number), change.since):
        return None
    is_worse = not change.bound and change.reference - now >= rules.worse
    cause: Cause | Undecided | None = _cause(hosts(window, rules.window_s), number, rules)
    if cause is None and is_worse and now <= rules.blind * change.reference:
        trains = _trains(window, rules, number, workload, in_step)
        trains = trains or trained(window, team.members(number), start, change.since)
        cause = _unseen(window, rules, number, change, now, trains)
    if not isinstance(cause, Cause):
        return cause
    loss = float(np.clip(1 - busy / max(change.reference, 0.05), 0.0, 1.0))
    if loss < 1 - rules.keep:
        return None
    busiest = float(gaps.busiest[number])
    return _candidate(window, rules, number, Starved(cause, loss, change, now, busiest, in_step, is_worse))


def _change(window: Window, rules: Thresholds, number: int, start: float) -> Change:
    """Since when a team is less busy; ``start``: what lies before is no measure."""
    past = line(window, _busy_key(window), teams(window).members(number))
    since, bound, earlier = fell(past, rules.worse, start)
    before = past.values[(past.times < since) & (past.times >= earlier)]
    reference = 1.0 if bound or not len(before) else min(float(before.mean()), 1.0)
    return Change(past, since, bound, earlier, reference)


def _busy_between_saves(
    window: Window, rules: Thresholds, number: int, change: Change, now: float
) -> float | None:
    """How busy a team is apart from saves and evaluations; None: it is these that it pauses for."""
    past, late = change.past, change.past.times >= change.since
    saving = saves(window, teams(window).nodes_of(number), past.times).goes_on[late]
    rest = _without_pauses(past.times[late], past.values[late], saving, rules)
    busy = float(rest.mean()) if len(rest) >= 8 else now
    has_paused = len(rest) < late.sum()
    return None if has_paused and (len(rest) < 8 or busy > rules.busy * change.reference) else busy


def _unseen(
    window: Window, rules: Thresholds, number: int, change: Change, now: float, trains: bool
) -> Cause | Undecided | None:
    """What no host shows: that it did better before is all there is, so it must be certain, and a job that trains."""
    team, past = teams(window), change.past
    before = past.values[(past.times < change.since) & (past.times >= change.earlier)]
    if not _is_certain(window, rules, before, past.values[past.times >= change.since]):
        return None
    if not trains:
        is_told = hosts(window, rules.window_s).known[number]
        return Undecided(
            NAME, team.scope(window, number),
            "GPUs pause without a kernel more than before; cannot tell starvation from fewer requests "
            + ("while hosts are calm" if is_told else "without host metrics"),
        )  # fmt: skip
    members = team.members(number)
    if _fills_pcie(window, rules, members):
        return None  # the copies themselves take the time: interconnect_saturation
    variant = "offload" if _copies(window, rules, members) else "host"
    return Cause(variant, "gpu.util", now, f"<= {rules.busy:.2f} of {change.reference:.2f}")


def _cause(host: Hosts, number: int, rules: Thresholds) -> Cause | None:
    """What keeps the hosts busy, by how far it is beyond its threshold."""
    waits, io, cpu = (float(values[number]) for values in (host.waits_cpu, host.waits_io, host.cpu))
    reads, writes = (float(np.nan_to_num(values[number])) for values in (host.reads, host.writes))
    found = []
    if waits >= rules.psi_cpu:
        found.append((waits / rules.psi_cpu, Cause("cpu", "node.psi_cpu_some", waits, f">= {rules.psi_cpu}")))
    if cpu >= rules.cpu:
        found.append((cpu / rules.cpu, Cause("cpu", "node.cpu_util", cpu, f">= {rules.cpu}")))
    if io >= rules.psi_io and writes <= 2 * reads + 1e6:
        found.append((io / rules.psi_io, Cause("io", "node.psi_io_some", io, f">= {rules.psi_io}")))
    return max(found, key=lambda one: one[0])[1] if found else None


def _has_one_that_goes_on(window: Window, rules: Thresholds, members: NDArray[np.intp], since: float) -> bool:
    """Whether a rank has not paused since it began: it spins for those that have gone."""
    work = activity(window, rules.window_s)
    late = work.busy[work.times >= since][:, members]
    return len(late) >= 6 and bool(np.fmax.reduce(mean(late), initial=0.0) > rules.busiest)


def _without_pauses(
    times: NDArray[np.float64], busy: NDArray[np.float64], saving: Bools, rules: Thresholds
) -> NDArray[np.float64]:
    """Without saves and the stretches in which nothing ran for long, an evaluation: gaps between batches are short."""
    still = np.concatenate([[False], busy <= 0.05, [False]])
    edges = np.flatnonzero(still[1:] != still[:-1])
    keep = ~saving
    for first, end in edges.reshape(-1, 2).tolist():
        if times[end - 1] - times[first] >= rules.pause_s and end - first >= 6:
            keep[max(first - 1, 0) : end + 1] = False
    return busy[keep]


def _is_certain(
    window: Window, rules: Thresholds, before: NDArray[np.float64], after: NDArray[np.float64]
) -> bool:
    """Whether a job is busy less than before beyond what so few glimpses would show by chance, and in many gaps, not one."""
    if len(before) < 4 or len(after) < 6:
        return False
    noise = np.sqrt(before.var() / len(before) + after.var() / len(after))
    low = after < before.mean() - 0.5 * (before.mean() - after.mean())
    gaps = int((low & ~np.concatenate([[False], low[:-1]])).sum())
    # Averages show a gap in every sample, and never one alone: that is a pause.
    steadily = low.mean() >= 0.6 and float(np.median(after[low])) > 0.1
    return bool(before.mean() - after.mean() >= rules.z * noise and (steadily or gaps >= 3))


def _trains(
    window: Window, rules: Thresholds, number: int, workload: Workload | None, in_step: float
) -> bool:
    """Whether it is known to train, or shows it: ranks in step that work hard between the gaps."""
    if workload is Workload.TRAINING:
        return True
    team = teams(window)
    hard = quantile(team.mean(activity(window, rules.window_s).intensity), 0.9)[number]
    return bool(team.size[number] > 1 and in_step >= rules.sync and hard >= rules.intensity)


def _copies(window: Window, rules: Thresholds, members: NDArray[np.intp]) -> bool:
    """Whether much is copied between host and GPU: weights or optimiser states live in host memory."""
    for key in ("gpu.pcie_rx", "gpu.pcie_tx", "gpu.pcie_bandwidth"):
        if window.has(key):
            rate = mean(window.recent(key, rules.window_s).values[:, members])
            if float(np.nan_to_num(rate).mean()) >= rules.pcie:
                return True
    return False


def _fills_pcie(window: Window, rules: Thresholds, members: NDArray[np.intp]) -> bool:
    """Whether the links to the hosts are busy most of the time."""
    generation, lanes = (
        window.current(key)[members].tolist() for key in ("gpu.pcie_gen_max", "gpu.pcie_width_max")
    )
    ceiling = np.array([pcie_achievable(g, n) for g, n in zip(generation, lanes, strict=True)])
    rates = [
        mean(window.recent(key, rules.window_s / 2).values[:, members])
        for key in ("gpu.pcie_rx", "gpu.pcie_tx")
        if window.has(key)
    ]
    return any(bool((rate >= rules.pcie_full * ceiling).mean() >= 0.5) for rate in rates)


def _busy_key(window: Window) -> str:
    return "gpu.gr_active" if window.has("gpu.gr_active") else "gpu.util"


def _candidate(window: Window, rules: Thresholds, number: int, seen: Starved) -> Candidate:
    host = hosts(window, rules.window_s)
    return Candidate(
        NAME,
        seen.cause.variant,
        teams(window).scope(window, number),
        severity_of(seen.loss),
        seen.change.since,
        seen.loss,
        _confidence(rules, seen),
        _evidence(window, rules, number, seen),
        since_bound=seen.change.bound,
        is_open=_is_open(rules, seen),
        rejected=_rejected(seen),
        missing=() if host.known[number] else _missing(window, number),
        words=_words(host, number, seen),
    )


def _confidence(rules: Thresholds, seen: Starved) -> float:
    """More where the hosts show why, where it was better before, and in step."""
    signs = 0.2 * _is_shown(seen) + 0.15 * seen.is_worse + 0.1 * (seen.in_step >= rules.sync)
    return min(0.55 + signs, 0.95)


def _is_shown(seen: Starved) -> bool:
    """Whether the hosts show why."""
    return seen.cause.variant in ("cpu", "io")


def _is_open(rules: Thresholds, seen: Starved) -> bool:
    """Where the hosts show why, and it was better before, less is enough."""
    is_plain = seen.is_worse and _is_shown(seen) and seen.loss >= rules.worse
    return seen.busy <= rules.busy * seen.change.reference or is_plain


def _evidence(window: Window, rules: Thresholds, number: int, seen: Starved) -> tuple[Evidence, ...]:
    """How little it does, that it rests meanwhile, and what its hosts show."""
    team, work = teams(window), activity(window, rules.window_s)
    scope, mine = team.scope(window, number), team.members(number)
    anchor = (scope.jobs or scope.nodes)[0]
    quiet = float(work.quiet[:, mine].sum() / max(work.have[:, mine].sum(), 1))
    evidence = (
        Evidence(
            "gpu.util", anchor, seen.busy, "ratio", f"<= {rules.busy:.2f} of {seen.change.reference:.2f}"
        ),
        Evidence("gpu.power", anchor, quiet, "ratio", "samples at idle power without a kernel"),
    )
    cause = seen.cause
    if cause.metric == "gpu.util":
        return evidence
    return (*evidence, Evidence(cause.metric, scope.nodes[0], cause.value, "ratio", cause.rule))


def _rejected(seen: Starved) -> tuple[Rejected, ...]:
    return (
        Rejected("idle_allocation", f"busy {seen.busy:.0%} of the time"),
        Rejected("communication_stall", f"no kernel in the gaps on any rank: the busiest {seen.busiest:.0%}"),
    )


def _missing(window: Window, number: int) -> tuple[str, ...]:
    """What the hosts would have told."""
    node = int(teams(window).nodes_of(number)[0])
    return tuple(window.why_missing(key, node) for key in ("node.psi_cpu_some", "node.psi_io_some"))


def _words(host: Hosts, number: int, seen: Starved) -> dict[str, str]:
    """For the text's placeholders."""
    return {
        "busy": f"{seen.busy:.0%}",
        "before": f", {seen.change.reference:.0%} before" if seen.is_worse else "",
        "waits": f"{seen.cause.value:.0%}",
        "reads": f"{float(np.nan_to_num(host.reads[number])) / 1e6:.0f} MB/s",
        "host_cpu": "not measured" if np.isnan(host.cpu[number]) else f"{host.cpu[number]:.0%}",
    }
