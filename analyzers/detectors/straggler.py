"""Stragglers: one rank, or one node, is slower than the others of its team, and all wait for it.

The sign is inverted: who waits in a collective is busy, the slow rank is the one with gaps (its host or its copies are late),
with a lower clock, or the only one that goes on computing while the others spend more of their time waiting. Two signals: that a few GPUs, or those of one node, differ so from the others of their team, and that the
team has lost of its own pace. What differs by design since the start (pipeline stages, experts) has lost nothing.

Loss: what those that wait lost of their own best pace; where that is not known, what the slow rank lacks.
"""

from __future__ import annotations

from typing import NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from coldaisle.analyzers.features import (
    activity,
    aligned,
    fell,
    idle_power,
    intensity,
    line,
    variance,
)
from coldaisle.analyzers.finding import (
    Candidate,
    Evidence,
    Rejected,
    Scope,
    Undecided,
    Verdict,
    Workload,
    severity_of,
)
from coldaisle.analyzers.hints import workload_of
from coldaisle.analyzers.progress import progress, progress_without
from coldaisle.analyzers.saves import share_of_saves
from coldaisle.analyzers.teams import Teams, teams
from coldaisle.analyzers.window import Bools, Recent, Window, mean, median, quantile, share
from coldaisle.sources.source import Floats

LOOKBACK_S = 3600.0
STEADY_WINDOWS = 4
NAME = "straggler"


class Thresholds(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """See the TOML file."""

    window_s: float
    polls: int
    least: int
    gap: float
    few: float
    lost: float
    z: float
    slow_clock: float
    steady: float
    busy: float
    keep: float
    blind: float
    stalled: float
    alive: float
    halves: float
    more: float
    more_power: float
    z_power: float
    alike: float
    presumed_s: float
    saves: float
    capped: float


class Slow(NamedTuple):
    """The GPUs that the others of a team wait for."""

    gpus: NDArray[np.intp]
    variant: str
    lack: float
    """What they lack: of the others' clock, or of their time with a kernel. "late": what the others do less than they."""


def detect(window: Window, rules: Thresholds) -> Verdict:
    """One candidate a team."""
    team = teams(window)
    if not len(team) or not window.has("gpu.power"):
        return Verdict()
    seconds = max(rules.window_s, rules.polls * window.poll)
    busy = _busy(window, seconds)
    clock = median(window.recent("gpu.sm_clock", seconds).values)
    lost = progress(window, seconds).lost
    seen = activity(window, 60.0)
    spins = team.mean(share(seen.spin, seen.have)[None])[0]  # nobody computes: that is a stall
    worth = (team.size >= rules.least) & (team.high(busy[None])[0] >= rules.busy) & ~(spins >= rules.stalled)
    worth &= ~(lost < rules.keep * rules.lost)
    if seconds > rules.presumed_s:
        worth &= team.job >= 0  # in so long a time a node's GPUs are given to somebody else
    made, undecided = [], []
    for number in np.flatnonzero(worth).tolist():
        job = window.jobs[team.job[number]] if team.job[number] >= 0 else None
        if job and workload_of(window, job) in (Workload.INFERENCE, Workload.INTERACTIVE):
            continue  # its GPUs need not do the same
        members, pace = team.members(number), float(lost[number])
        slow = _slow(window, rules, members, clock, busy, seconds, pace, is_job=job is not None)
        if slow is None:
            continue
        why = _doubt(window, rules, slow, seconds, pace)
        if why:
            undecided.append(Undecided(NAME, team.scope(window, number), why))
        else:
            made.append(_candidate(window, rules, team, number, slow, pace))
    return Verdict(tuple(made), tuple(undecided))


def _slow(
    window: Window,
    rules: Thresholds,
    members: NDArray[np.intp],
    clock: Floats,
    busy: Floats,
    seconds: float,
    lost: float,
    *,
    is_job: bool,
) -> Slow | None:
    """Whom the others of a team wait for, that nothing else explains; None: nobody."""
    slow = _by_clock(rules, members, clock, busy) or _by_gaps(window, rules, members, busy, seconds)
    if slow is None or not _persists(window, rules, slow, seconds, members):
        slow = _by_work(window, rules, members, busy, seconds, lost)
        # GPUs that only share a node may do anything beside each other.
        together = is_job or _were_alike(window, rules, members)
        if slow is not None and (not together or _is_faster(slow.gpus, members, clock)):
            return None
    if (
        slow is None
        or _saves(window, rules, members, seconds)
        or _is_capped(window, rules, slow.gpus, members, clock, seconds)
    ):
        return None
    return slow


def _doubt(window: Window, rules: Thresholds, slow: Slow, seconds: float, lost: float) -> str:
    """What cannot be told for want of a signal; empty: nothing is in doubt."""
    if slow.variant == "late" and not window.has("gpu.sm_active"):
        # A kernel that waits draws watts too, and a step's phases differ by more than that.
        return "one rank draws more than its peers, and more so than before; cannot tell who is late from who waits without gpu.sm_active"
    if slow.variant == "clock" and not _is_plain(window, rules, slow, seconds):
        return "one rank's clock is lower and wavers; cannot tell a power cap or heat without gpu.power_limit or gpu.throttle"
    if np.isnan(lost) and slow.lack < rules.blind:
        return "one rank differs from the others; cannot tell a straggler from an uneven split before the job's own pace is known"
    return ""


def _busy(window: Window, seconds: float) -> Floats:
    """[gpu] share of the time with a kernel: the engine's own average where it is measured, else by glimpses."""
    glimpsed = mean(activity(window, seconds).busy)
    if not window.has("gpu.gr_active"):
        return glimpsed
    averaged = mean(window.recent("gpu.gr_active", seconds).values)
    return np.where(np.isnan(averaged), glimpsed, averaged).astype(np.float32)


def _by_clock(rules: Thresholds, members: NDArray[np.intp], clock: Floats, busy: Floats) -> Slow | None:
    """The few with a lower clock. The slow rank is the one that never waits: the clock of who rests says nothing, of a peer neither."""
    values = np.where(busy[members] >= rules.busy, clock[members], np.nan)
    middle = float(median(values[:, None])[0])
    lacks = 1 - values / middle
    # All wait for the slowest: who lacks far less waits as well, at whatever clock.
    low = (values <= rules.slow_clock * middle) & (lacks >= 0.5 * np.fmax.reduce(lacks))
    if not low.any() or low.sum() > max(rules.few * len(members), 1):
        return None
    return Slow(members[low], "clock", float(1 - np.median(values[low]) / middle))


def _by_gaps(
    window: Window, rules: Thresholds, members: NDArray[np.intp], busy: Floats, seconds: float
) -> Slow | None:
    """The few with gaps among others that are always busy; or the node whose GPUs have them."""
    values = busy[members]
    known = ~np.isnan(values)
    members, values = members[known], values[known]
    if len(members) < rules.least:
        return None
    middle = float(np.median(np.sort(values)[len(values) // 2 :]))  # of the busier half
    samples = max(seconds / max(window.step("gpu.util"), 0.5), 1.0)
    noise = max(0.015, float(np.sqrt(max(middle * (1 - middle), 0.01) / samples)))
    low = (middle - values >= rules.gap) & (middle - values >= rules.z * noise)
    # Who never runs a kernel is not slow: it does not come.
    if middle < rules.busy or not low.any() or float(values[low].max()) < rules.alive:
        return None
    if low.sum() <= max(rules.few * len(members), 1):
        return Slow(members[low], "unknown", float(middle - values[low].mean()))
    of_node = _one_node(window, members, low)
    return None if of_node is None else Slow(of_node, "host", float(middle - values[low].mean()))


def _one_node(window: Window, members: NDArray[np.intp], slow: Bools) -> NDArray[np.intp] | None:
    """The GPUs of the one node of several on which all the slow ones are, and nearly all are slow; None: there is none."""
    node = window.groups.gpu_node[members]
    slow_nodes = np.unique(node[slow])
    if len(slow_nodes) != 1 or len(np.unique(node)) < 2:
        return None
    of_node = node == slow_nodes[0]
    return members[of_node] if slow.sum() >= 0.75 * of_node.sum() else None


def _by_work(
    window: Window, rules: Thresholds, members: NDArray[np.intp], busy: Floats, seconds: float, lost: float
) -> Slow | None:
    """The few that go on computing while the others spend more of their time waiting for them in a kernel.

    Who computes more than its peers by design does so since the start: what counts is that the difference has grown, while
    the team lost of its pace.
    """
    if not lost >= rules.keep * rules.lost or len(members) < rules.least:
        return None
    if not quantile(busy[members, None], 0.25)[0] >= rules.busy:  # who has gone does not wait in a kernel
        return None
    is_measured = window.has("gpu.sm_active")
    key = "gpu.sm_active" if is_measured else "gpu.power"
    least, z = (rules.more, rules.z) if is_measured else (rules.more_power, rules.z_power)
    # Watts are of an instant: of a step's phases some are met, so twice as many.
    recent = window.recent(key, seconds) if is_measured else intensity(window, 2 * seconds)
    values = recent.values[:, members][~_stalls(window, rules, members, recent, seconds)]
    past = _leads(window.minutes(key).mean[:, members] - _at_rest(window, key, members))
    usual, half = quantile(past, 0.15), len(values) // 2
    if half < 3 or not np.isfinite(usual).any():
        return None
    level = mean(values)
    noise = np.sqrt(variance(values) / len(values)) / max(float(np.median(level[~np.isnan(level)])), 0.01)
    first, last = (_leads(mean(part)[None])[0] - usual for part in (values[:half], values[half:]))
    grown = np.fmin(first, last)
    # All along, not in a stall that has just ended.
    ahead: Bools = (grown >= np.fmax(least, z * noise)) & (grown >= 0.5 * np.fmax(first, last))
    if not ahead.any():
        return None
    lead = float(np.median(grown[ahead]))
    if ahead.sum() <= max(rules.few * len(members), 1):
        return Slow(members[ahead], "late", lead)
    of_node = _one_node(window, members, ahead)
    return None if of_node is None else Slow(of_node, "late", lead)


def _saves(window: Window, rules: Thresholds, members: NDArray[np.intp], seconds: float) -> bool:
    """Whether the job's state is written meanwhile: what that costs, and who does it alone, is checkpoint_stall's."""
    return share_of_saves(window, np.unique(window.groups.gpu_node[members]), seconds) >= rules.saves


def _were_alike(window: Window, rules: Thresholds, members: NDArray[np.intp]) -> bool:
    """Whether they drew about as much as each other before, as the ranks of one program do."""
    usual = median(window.minutes("gpu.power").mean)[members]
    return bool(np.ptp(usual) <= rules.alike * np.median(usual))


def _is_faster(gpus: NDArray[np.intp], members: NDArray[np.intp], clock: Floats) -> bool:
    """Whether they run at a higher clock than the others: then these are the slow ones, and their watts prove nothing."""
    own, others = (median(clock[some, None])[0] for some in (gpus, np.setdiff1d(members, gpus)))
    return bool(own > 1.1 * others)


def _stalls(
    window: Window, rules: Thresholds, members: NDArray[np.intp], on: Recent, seconds: float
) -> Bools:
    """[time] whether most of a team spins: then nobody computes but who does not come."""
    seen = activity(window, 2 * seconds)
    spins = np.where(seen.have, seen.spin, np.nan)[:, members].astype(np.float32)
    shares = Recent(seen.times, mean(spins.T)[:, None], seen.step)
    stalls: Bools = aligned(shares, on.times, max(on.step, seen.step))[:, 0] >= rules.stalled
    return stalls


def _leads(levels: Floats) -> Floats:
    """[time, member] level of each, of that of the lower quarter: of those that wait. NaN: nobody does anything."""
    low = quantile(levels.T, 0.25)[:, None]
    least = 0.05 * np.fmax.reduce(levels, axis=None, initial=0.0)
    leads: Floats = np.where(low > least, levels / np.where(low > least, low, 1.0), np.nan).astype(np.float32)
    return leads


def _at_rest(window: Window, key: str, members: NDArray[np.intp]) -> Floats | float:
    """[member] what a board shows that does nothing: watts; 0 of its activity."""
    return idle_power(window)[members] if key == "gpu.power" else 0.0


def _persists(
    window: Window, rules: Thresholds, slow: Slow, seconds: float, members: NDArray[np.intp]
) -> bool:
    """Whether it is slow all along: in both halves of the window; and with gaps in every step, not a long pause now and then."""
    key = (
        "gpu.sm_clock"
        if slow.variant == "clock"
        else "gpu.gr_active"
        if window.has("gpu.gr_active")
        else "gpu.util"
    )
    values = window.recent(key, seconds).values
    own = mean(values[:, slow.gpus].T)
    others = median(values[:, np.setdiff1d(members, slow.gpus)].T)
    lacks = 1 - own / np.where(others > 0, others, np.nan) if slow.variant == "clock" else others - own
    half = len(lacks) // 2
    if min(np.isfinite(part).sum() for part in (lacks[:half], lacks[half:])) < 2:
        return False
    # What has begun within the window lacks less in the first half of it.
    least = rules.halves * min(slow.lack, np.nanmean(lacks))
    if min(np.nanmean(lacks[:half]), np.nanmean(lacks[half:])) < least:
        return False
    if slow.variant == "clock":
        return True
    late = np.nan_to_num(lacks) > rules.gap / 2
    begins = late & ~np.concatenate([[False], late[:-1]])
    if begins.sum() >= 3:  # glimpses: at least so many gaps apart
        return True
    # An average shows a gap of every step in every sample, and kernels beside it: without those it is a pause.
    is_average = key == "gpu.gr_active"
    return is_average and bool(late.mean() >= 0.5 and np.median(own[late]) >= rules.alive)


def _is_capped(
    window: Window,
    rules: Thresholds,
    gpus: NDArray[np.intp],
    members: NDArray[np.intp],
    clock: Floats,
    seconds: float,
) -> bool:
    """Whether a clock below the others' is that of boards at their power limit: power_capping's, also before it has opened.

    A board that is slow for another reason draws less for it. Of a step's phases some draw less at the limit too.
    """
    others = median(clock[np.setdiff1d(members, gpus), None])[0]
    watts = quantile(window.recent("gpu.power", seconds).values[:, gpus], 0.75)
    is_at_limit = watts >= rules.capped * window.current("gpu.power_limit")[gpus]
    return bool(np.all(is_at_limit & (clock[gpus] <= rules.slow_clock * others)))


def _is_plain(window: Window, rules: Thresholds, slow: Slow, seconds: float) -> bool:
    """Whether neither heat nor a power cap can be behind a low clock: told so, or else by a clock that stands still.

    A governor that keeps to a temperature or to watts steps up and down; a clock that was locked, or a board that is stuck in
    a low state, does not.
    """
    if any(np.isnan(window.current(key)[slow.gpus]).all() for key in ("gpu.power_limit", "gpu.throttle")):
        clocks = window.recent("gpu.sm_clock", STEADY_WINDOWS * seconds).values[:, slow.gpus]
        now = median(window.recent("gpu.sm_clock", seconds).values[:, slow.gpus])
        clocks = np.where(np.abs(clocks / now - 1) <= 0.1, clocks, np.nan)
        spread = (quantile(clocks, 0.95) - quantile(clocks, 0.05)) / now
        return bool(np.nanmedian(spread) <= rules.steady)
    return True


def _cpu(window: Window) -> Floats:
    return mean(window.recent("node.cpu_util", 120.0).values)


def _sign(window: Window, variant: str) -> tuple[str, str]:
    """The metric by which they differ from the others, and how."""
    if variant == "clock":
        return "gpu.sm_clock", "below its peers' clock"
    if variant == "late":
        key = "gpu.sm_active" if window.has("gpu.sm_active") else "gpu.power"
        return key, "more than its peers, who wait for it, and more so than before"
    return "gpu.util", "less of the time with a kernel than its peers"


def _began(
    window: Window, team: Teams, number: int, others: NDArray[np.intp], lost: float
) -> tuple[float, bool]:
    """When the team lost of its pace: by its tensor cores, where it uses them; else when the others began to draw less."""
    if window.has("gpu.tensor_active") and not np.isnan(lost):
        pace = line(window, "gpu.tensor_active", team.members(number))
        best = float(np.quantile(pace.values, 0.85))
        if best > 0.02:
            return fell(pace, 0.5 * lost * best)[:2]
    least = 0.04 * float(np.nanmedian(mean(window.recent("gpu.power", 120.0).values)[others]))
    return fell(line(window, "gpu.power", others), least)[:2]


def _candidate(
    window: Window, rules: Thresholds, team: Teams, number: int, slow: Slow, lost: float
) -> Candidate:
    others = np.setdiff1d(team.members(number), slow.gpus)
    nodes, peers = (np.unique(window.groups.gpu_node[gpus]) for gpus in (slow.gpus, others))
    loss = _loss(window, rules, number, slow, lost)
    begun, bound = _began(window, team, number, others, lost)
    keys = tuple(window.layout.gpus[gpu].key for gpu in slow.gpus.tolist())
    scope = team.scope(window, number)
    cpu = _cpu(window)
    metric, what = _sign(window, slow.variant)
    evidence = [
        Evidence(metric, keys[0], slow.lack, "ratio", what),
        Evidence(
            "gpu.power",
            scope.jobs[0] if scope.jobs else keys[0],
            loss,
            "ratio",
            f"of the team's pace lost, >= {rules.lost:g}",
        ),
    ]
    if slow.variant == "host" and not np.isnan(cpu[nodes]).all():
        evidence.append(
            Evidence(
                "node.cpu_util",
                window.layout.nodes[int(nodes[0])].key,
                float(cpu[nodes[0]]),
                "ratio",
                "its peers' hosts are less busy",
            )
        )
    return Candidate(
        NAME,
        slow.variant,
        Scope(gpus=keys, jobs=scope.jobs),
        severity_of(loss),
        begun,
        loss,
        0.85 if not np.isnan(lost) else 0.65,
        tuple(evidence),
        since_bound=bound,
        is_open=not lost < rules.lost,
        victims=Scope(gpus=tuple(window.layout.gpus[gpu].key for gpu in others.tolist())),
        rejected=(Rejected("communication_stall", "the others compute in between"),),
        words={
            "lack": f"{slow.lack:.0%}",
            "lost": f"{loss:.0%}",
            "clock": f"{1 - slow.lack:.0%}",
            "cpu": _percent(float(cpu[nodes].mean())),
            "cpu_peers": _percent(float(np.median(cpu[peers])) if len(peers) else float("nan")),
        },
    )  # fmt: skip


def _loss(window: Window, rules: Thresholds, number: int, slow: Slow, lost: float) -> float:
    """Of the team's work: what those that wait have lost of their own best pace; where that is not known, what the slow rank lacks."""
    if np.isnan(lost):
        return slow.lack
    waiting = progress_without(window, slow.gpus, max(rules.window_s, rules.polls * window.poll))
    of_others = float(waiting.lost[number])
    return lost if np.isnan(of_others) else of_others


def _percent(value: float) -> str:
    return "?" if np.isnan(value) else f"{value:.0%}"
