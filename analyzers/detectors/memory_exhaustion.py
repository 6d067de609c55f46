"""Memory exhaustion: a board's memory that grows to its brim, a host whose memory ends.

Being full is no sign: inference engines and XLA take nearly all at the start and keep it. Signals are growth together with
fullness, and what follows: an XID of the program (31, 13) or an out-of-memory event on a board that was full; on a host
processes killed, or memory pressure together with little that is left.

What a board held before its job began was another program's. Loss: all of the job once it was killed, else 0: soon it will be.
"""

from __future__ import annotations

import re

import msgspec
import numpy as np
from numpy.typing import NDArray

from coldaisle.analyzers.detectors.gpu_fault import xids
from coldaisle.analyzers.features import activity
from coldaisle.analyzers.finding import Candidate, Evidence, Scope, Severity, Verdict
from coldaisle.analyzers.window import Recent, Window, mean, present, share
from coldaisle.sources.source import Floats
from coldaisle.sources.units import age as in_words

LOOKBACK_S = 3600.0
NAME = "memory_exhaustion"
OF_MEMORY = frozenset({31, 13})
_OOM = re.compile(r"out of memory|oom", re.IGNORECASE)


class Thresholds(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """See the TOML file."""

    full: float
    nearly: float
    grown: float
    minutes: int
    ahead_s: float
    host_full: float
    host_psi: float
    events_s: float


def detect(window: Window, rules: Thresholds) -> Verdict:
    """Candidates of boards and of nodes."""
    return Verdict((*_boards(window, rules), *_hosts(window, rules)))


def _boards(window: Window, rules: Thresholds) -> list[Candidate]:
    if not window.has("gpu.mem_ratio"):
        return []
    recent = window.recent("gpu.mem_ratio", 60.0 * rules.minutes)
    held = window.held_since
    values = _of_the_holder(recent, held)
    highest = _highest(values)
    now = _last(values)
    low = np.fmin.reduce(values, axis=0)
    grown = highest - low
    slope = _slope(window, values, recent.step)
    with np.errstate(divide="ignore", invalid="ignore"):
        left = np.where(slope > 0, (1 - now) / slope, np.inf)
    killed = {
        gpu: next(x for x in some if x.code in OF_MEMORY and x.at >= held[gpu])
        for gpu, some in xids(window, rules.events_s).items()
        if any(x.code in OF_MEMORY and x.at >= held[gpu] for x in some)
    }
    made = []
    board = window.groups.is_board & ~window.groups.has_instances
    growing = board & (grown >= rules.grown) & (present(values).sum(axis=0) >= 4)
    for gpu in np.flatnonzero(growing & (highest >= rules.nearly)).tolist():
        brim = float(highest[gpu]) >= rules.full
        steady = _is_steady(values[:, gpu])
        if gpu in killed and brim:
            made.append(
                _board(
                    window,
                    gpu,
                    "device",
                    Severity.CRITICAL,
                    1.0,
                    killed[gpu].at,
                    highest,
                    grown,
                    left,
                    recent.step * len(values),
                    f"its process was ended (XID {killed[gpu].code})",
                )
            )
        elif steady and (brim or left[gpu] <= rules.ahead_s) and now[gpu] >= rules.nearly:
            since = float(recent.times[int(np.nanargmin(values[:, gpu]))])
            variant = "device" if float(now[gpu]) >= 0.985 else "growing"
            made.append(
                _board(
                    window,
                    gpu,
                    variant,
                    Severity.WARNING,
                    0.0,
                    since,
                    highest,
                    grown,
                    left,
                    recent.step * len(values),
                    "and goes on growing",
                )
            )
    return made


def _of_the_holder(recent: Recent, held: NDArray[np.float64]) -> Floats:
    """[time, gpu] without what is from before the job that holds it."""
    young = np.flatnonzero(held > recent.times[0]) if len(recent.times) else ()
    if not len(young):
        return recent.values
    values = recent.values.copy()
    values[:, young] = np.where(recent.times[:, None] < held[young], np.float32(np.nan), values[:, young])
    return values


def _is_steady(values: Floats) -> bool:
    """Whether it grew by and by and still does, not in one leap and not up and down: programs take their memory at the start,
    and give some back."""
    have = values[present(values)]
    if len(have) < 4:
        return False
    steps = np.diff(have)
    total = float(have[-1] - have[0])
    falls = -float(steps[steps < 0].sum())
    goes_on = float(have[-1]) > float(have[len(have) // 2])
    by_and_by = float(steps.max()) <= 0.5 * total and float((steps > 1e-4).mean()) >= 0.3
    return total > 0 and goes_on and by_and_by and falls <= 0.25 * total


def _slope(window: Window, values: Floats, step: float) -> Floats:
    """[gpu] share of the board a second, over the second half."""
    half = values[len(values) // 2 :]
    first, last = _first(half), _last(half)
    return (last - first) / max(step * (len(half) - 1), step)


def _first(values: Floats) -> Floats:
    return _last(values[::-1])


def _last(values: Floats) -> Floats:
    have = present(values)
    row = len(values) - 1 - np.argmax(have[::-1], axis=0)
    picked: Floats = values[row, np.arange(values.shape[1])]
    return picked


def _highest(values: Floats) -> Floats:
    highest: Floats = np.fmax.reduce(values, axis=0)
    return highest


def _board(
    window: Window, gpu: int, variant: str, severity: Severity, loss: float, since: float, highest: Floats, grown: Floats,
    left: Floats, span: float, what: str,
) -> Candidate:  # fmt: skip
    key = window.layout.gpus[gpu].key
    return Candidate(
        NAME, variant, Scope(gpus=(key,)), severity, since, loss, 0.85 if loss else 0.7,
        (
            Evidence("gpu.mem_ratio", key, float(highest[gpu]), "ratio", "near 1"),
            Evidence("gpu.mem_ratio", key, float(grown[gpu]), "ratio", f"grown in {in_words(span)}"),
        ),
        is_immediate=bool(loss),
        words={"used": f"{highest[gpu]:.0%}", "grown": f"{grown[gpu]:.0%}", "span": in_words(span), "what": what,
               "left": in_words(min(float(left[gpu]), 86_400.0)) if np.isfinite(left[gpu]) else "?"},
    )  # fmt: skip


def _hosts(window: Window, rules: Thresholds) -> list[Candidate]:
    nodes = range(len(window.layout.nodes))
    ratio = mean(window.recent("node.mem_ratio").values)
    waits = mean(window.recent("node.psi_mem_full").values)
    killed = {node: at for node, at in _kills(window, rules).items() if at >= _held_since(window, node)}
    tight = (ratio >= rules.host_full) & (waits >= rules.host_psi)
    return [
        _host(window, rules, node, float(ratio[node]), float(waits[node]), killed.get(node))
        for node in nodes
        if node in killed or tight[node]
    ]


def _held_since(window: Window, node: int) -> float:
    """When the first of the jobs on a node began; -inf where a board of it is free: whose end that was, it may have been."""
    return min(window.held_since[list(window.layout.nodes[node].gpus)].tolist(), default=-np.inf)


def _kills(window: Window, rules: Thresholds) -> dict[int, float]:
    """By node: when the kernel first killed a process for memory lately, by its log or by its counter."""
    first: dict[int, float] = {}
    if window.has("node.oom_kills"):
        recent = window.recent("node.oom_kills", rules.events_s)
        some = recent.values > 0
        first = {
            int(node): float(recent.times[int(np.argmax(some[:, node]))])
            for node in np.flatnonzero(some.any(axis=0))
        }
    for event in window.events(rules.events_s):
        node = window.layout.node_of.get(event.entity.partition("/")[0])
        if event.kind == "oom" and node is not None:
            first[node] = min(first.get(node, event.at), event.at)
    return first


def _host(
    window: Window, rules: Thresholds, node: int, ratio: float, waits: float, killed: float | None
) -> Candidate:
    key = window.layout.nodes[node].key
    used = Evidence("node.mem_ratio", key, ratio, "ratio", f">= {rules.host_full:g}")
    words = {"used": "an unknown share" if np.isnan(ratio) else f"{ratio:.0%}"}
    if killed is None:
        why = Evidence("node.psi_mem_full", key, waits, "ratio", f">= {rules.host_psi:g}")
        words["what"] = f"tasks wait for memory {waits:.0%} of the time"
        return Candidate(
            NAME, "host", Scope(nodes=(key,)), Severity.WARNING, window.at - 60.0, min(waits, 1.0), 0.85, (used, why),
            since_bound=True, words=words,
        )  # fmt: skip
    words["what"] = "the kernel has killed processes"
    # What was killed need not have been the job: its boards tell.
    goes_on = _works(window, node)
    return Candidate(
        NAME, "host", Scope(nodes=(key,)), Severity.WARNING if goes_on else Severity.CRITICAL, killed, 0.0 if goes_on else 1.0,
        0.85, (Evidence("event.oom", key, 1.0, "1", "reported"), used), is_immediate=True, words=words,
    )  # fmt: skip


def _works(window: Window, node: int) -> bool:
    """Whether the boards of a node go on computing: neither at rest nor waiting for one that is gone."""
    boards = list(window.layout.nodes[node].gpus)
    seen = activity(window, 30.0)
    waits = share((seen.spin | seen.quiet)[-4:], seen.have[-4:])[boards]
    return bool((waits < 0.5).any())
