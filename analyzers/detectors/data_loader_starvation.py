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
    activity,
    aligned,
    hosts,
    hourly_synchrony,
    line,
    shifted,
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
    host = hosts(window, rules.window_s)
    cause = _cause(host, number, rules)
    members = team.members(number)
    past = line(window, _busy_key(window), members)
    start = job.since + rules.start_s if job else -np.inf
    since, bound = shifted(past, rules.worse, start)
    before = past.values[(past.times < since) & (past.times >= start)]
    after = past.values[past.times >= since]
    reference = 1.0 if bound or not len(before) else min(float(before.mean()), 1.0)
    saving = saves(window, team.nodes_of(number), past.times).goes_on[past.times >= since]
    rest = _without_pauses(past.times[past.times >= since], after, saving, rules)
    busy = float(rest.mean()) if len(rest) >= 8 else float(gaps.busy[number])
    is_saves = len(rest) < len(after) and (len(rest) < 8 or busy > rules.busy * reference)
    if is_saves or _has_one_that_goes_on(window, rules, members, since):
        return None
    is_worse = not bound and reference - float(gaps.busy[number]) >= rules.worse
    if bound:
        reference = 1.0
    if cause is None:
        if not is_worse or gaps.busy[number] > rules.blind * reference:
            return None
        if not _is_certain(window, rules, past.values[past.times < since], after):
            return None
        if not (_trains(window, rules, number, workload, in_step) or trained(window, members, start, since)):
            return Undecided(
                NAME, team.scope(window, number),
                "GPUs pause without a kernel more than before; cannot tell starvation from fewer requests "
                + ("without host metrics" if not host.known[number] else "while hosts are calm"),
            )  # fmt: skip
        if _fills_pcie(window, rules, members):
            return None  # the copies themselves take the time: interconnect_saturation
        cause = Cause("host", "gpu.util", float(gaps.busy[number]), f"<= {rules.busy:.2f} of {reference:.2f}")
        if _copies(window, rules, members):
            cause = cause._replace(variant="offload")
    loss = float(np.clip(1 - busy / max(reference, 0.05), 0.0, 1.0))
    if loss < 1 - rules.keep:
        return None
    return _candidate(window, rules, gaps, number, cause, loss, since, bound, reference, in_step, is_worse)


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


def _candidate(
    window: Window,
    rules: Thresholds,
    gaps: Gaps,
    number: int,
    cause: Cause,
    loss: float,
    since: float,
    bound: bool,
    reference: float,
    in_step: float,
    is_worse: bool,
) -> Candidate:
    team = teams(window)
    scope = team.scope(window, number)
    anchor = (scope.jobs or scope.nodes)[0]
    work = activity(window, rules.window_s)
    mine = team.members(number)
    quiet = float(work.quiet[:, mine].sum() / max(work.have[:, mine].sum(), 1))
    busy = float(gaps.busy[number])
    evidence = [
        Evidence("gpu.util", anchor, busy, "ratio", f"<= {rules.busy:.2f} of {reference:.2f}"),
        Evidence("gpu.power", anchor, quiet, "ratio", "samples at idle power without a kernel"),
    ]
    if cause.metric != "gpu.util":
        evidence.append(Evidence(cause.metric, scope.nodes[0], cause.value, "ratio", cause.rule))
    host = hosts(window, rules.window_s)
    missing = () if host.known[number] else tuple(
        window.why_missing(key, int(team.nodes_of(number)[0])) for key in ("node.psi_cpu_some", "node.psi_io_some")
    )  # fmt: skip
    signs = 0.55 + 0.2 * (cause.variant in ("cpu", "io")) + 0.15 * is_worse + 0.1 * (in_step >= rules.sync)
    return Candidate(
        NAME,
        cause.variant,
        scope,
        severity_of(loss),
        since,
        loss,
        min(signs, 0.95),
        tuple(evidence),
        since_bound=bound,
        # Where the hosts show why, and it was better before, less is enough.
        is_open=busy <= rules.busy * reference
        or (is_worse and cause.variant in ("cpu", "io") and loss >= rules.worse),
        rejected=(
            Rejected("idle_allocation", f"busy {busy:.0%} of the time"),
            Rejected(
                "communication_stall",
                f"no kernel in the gaps on any rank: the busiest {gaps.busiest[number]:.0%}",
            ),
        ),
        missing=missing,
        words={
            "busy": f"{busy:.0%}",
            "before": f", {reference:.0%} before" if is_worse else "",
            "waits": f"{cause.value:.0%}",
            "reads": f"{float(np.nan_to_num(host.reads[number])) / 1e6:.0f} MB/s",
            "host_cpu": "not measured" if np.isnan(host.cpu[number]) else f"{host.cpu[number]:.0%}",
        },
        group="",
    )
