"""Telemetry gaps: nodes, or the GPU exporters of nodes, that stopped telling.

A node is silent when neither it nor its GPUs have told anything for several periods while others did. When most nodes
fall silent at once it is the monitoring: one finding, and no faults. That a single board vanishes is :mod:`.gpu_fault`'s, and
that one repeats itself while its job waits; where its job goes on it lives, and its feed alone stands still.
Nothing is known to be lost: the loss is 0, the severity a warning where work runs there that nobody sees.
"""

from __future__ import annotations

import msgspec
import numpy as np

from coldaisle.analyzers.detectors.gpu_fault import (
    WORKS,
    frozen,
    frozen_since,
    goes_on,
    stuck_exporters,
    xids,
)
from coldaisle.analyzers.finding import Candidate, Evidence, Scope, Severity, Verdict
from coldaisle.analyzers.snapshot import Times
from coldaisle.analyzers.window import Bools, Window
from coldaisle.sources.source import Kind
from coldaisle.sources.units import age as in_words

LOOKBACK_S = 900.0
NAME = "telemetry_gap"
DOWN = ("down", "drain", "fail", "maint", "powered", "powering", "reboot")
"""A node that its scheduler calls so is expected to be silent."""


SURE_S = 60.0
"""So long a silence over several periods needs no second look."""


class Thresholds(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """See the TOML file."""

    polls: float
    least_s: float
    share: float
    stuck_s: float
    stuck_polls: int
    stuck_board_s: float


def detect(window: Window, rules: Thresholds) -> Verdict:
    """One candidate a silent node, or one for all where most are silent."""
    nodes = len(window.layout.nodes)
    if not nodes:
        return Verdict()
    failed = {int(window.groups.gpu_node[gpu]) for gpu in xids(window, LOOKBACK_S)}
    verdict = _gaps(window, rules)
    names = {window.layout.nodes[node].key for node in failed}
    # Behind an XID it is the board that fell silent, or its exporter that hangs on it.
    return Verdict(
        tuple(
            one for one in verdict.candidates if len(one.roots.nodes) != 1 or one.roots.nodes[0] not in names
        )
    )


def _gaps(window: Window, rules: Thresholds) -> Verdict:
    limit = max(rules.polls * _period(window), rules.least_s)
    newest = _newest(window)
    known = np.isfinite(newest)
    silent: Bools = known & (window.at - newest > limit)
    if silent.sum() >= max(rules.share * known.sum(), 2):
        return Verdict((_outage(window, silent, newest, known),))
    stuck = _stuck(window, rules)
    gone = [
        _candidate(window, node, float(newest[node]), "node")
        for node in np.flatnonzero(silent).tolist()
        if not _is_down(window, node)
    ]
    boards = _stuck_boards(window, rules)
    exporters = _silent_exporters(window, np.where(silent, np.nan, newest), limit)
    found = [*gone, *(_candidate(window, node, at, "exporter") for node, at in exporters.items())]
    return Verdict(
        (
            *found,
            *(_candidate(window, node, at, "stuck") for node, at in stuck.items() if node not in exporters),
            *(_of_board(window, gpu, at) for gpu, at in boards.items()),
        )
    )


def _period(window: Window) -> float:
    """Of the slowest source that tells of nodes or GPUs."""
    periods = [window.history.poll(kind) or 0.0 for kind in (Kind.GPU, Kind.NODE)]
    return max(*periods, 1.0)


def _newest(window: Window) -> Times:
    """[node] when anything of it was heard last; NaN: never."""
    snapshot = window.snapshot
    newest = np.where(np.isnan(snapshot.node_seen), -np.inf, snapshot.node_seen)
    seen = np.where(np.isnan(snapshot.gpu_seen), -np.inf, snapshot.gpu_seen)
    np.maximum.at(newest, window.groups.gpu_node, seen)
    return np.where(np.isneginf(newest), np.nan, newest)


def _silent_exporters(window: Window, newest: Times, limit: float) -> dict[int, float]:
    """Nodes that go on while all of their GPUs are silent: by node, when these were heard last."""
    seen = window.snapshot.gpu_seen
    boards = window.groups.is_board
    latest = np.full(len(newest), -np.inf)
    np.maximum.at(latest, window.groups.gpu_node[boards], np.where(np.isnan(seen), -np.inf, seen)[boards])
    with np.errstate(invalid="ignore"):
        silent = (window.at - newest <= limit) & (window.at - latest > limit) & np.isfinite(latest)
    return {int(node): float(latest[node]) for node in np.flatnonzero(silent)}


def _stuck(window: Window, rules: Thresholds) -> dict[int, float]:
    """Nodes whose GPU exporter says the very same again and again: by node, since when."""
    mask = frozen(window, rules.stuck_s, rules.stuck_polls)
    if not mask.any():
        return {}
    nodes = np.flatnonzero(stuck_exporters(window, mask)).tolist()
    return {
        node: frozen_since(window, next(g for g in window.layout.nodes[node].gpus if mask[g]))
        for node in nodes
    }


def _stuck_boards(window: Window, rules: Thresholds) -> dict[int, float]:
    """Boards that say the very same again and again while their job goes on, among others that do not: by GPU, since when."""
    mask = frozen(window, rules.stuck_board_s, rules.stuck_polls)
    if not mask.any():
        return {}
    alone = mask & goes_on(window) & ~stuck_exporters(window, mask)[window.groups.gpu_node]
    return {gpu: frozen_since(window, gpu) for gpu in np.flatnonzero(alone).tolist()}


def _of_board(window: Window, gpu: int, at: float) -> Candidate:
    key, how = window.layout.gpus[gpu].key, window.at - at
    return Candidate(
        NAME, "board", Scope(gpus=(key,)), Severity.WARNING, at, 0.0, 0.8,
        (Evidence("gpu.power", key, how, "s", "the same again and again, and its job goes on"),),
        words={"how": in_words(how), "why": ""},
    )  # fmt: skip


def _is_down(window: Window, node: int) -> bool:
    flags = window.layout.nodes[node].flags or ((window.layout.nodes[node].state or "").lower(),)
    return any(flag.startswith(DOWN) for flag in flags)


def _candidate(window: Window, node: int, at: float, variant: str) -> Candidate:
    layout = window.layout
    key = layout.nodes[node].key
    held = any(window.gpu_job[gpu] >= 0 for gpu in layout.nodes[node].gpus) or _worked(window, node, at)
    silent_s = window.at - at
    metric = "node.cpu_util" if variant == "node" else "gpu.power"
    return Candidate(
        NAME,
        variant,
        Scope(nodes=(key,)),
        Severity.WARNING if held or not window.snapshot.jobs_known else Severity.INFO,
        at,
        0.0,
        0.9,
        (
            Evidence(
                metric, key, silent_s, "s", "the same again and again" if variant == "stuck" else "no sample"
            ),
        ),
        is_immediate=variant == "node" and silent_s >= SURE_S,
        words={"how": in_words(silent_s), "why": _why(window, key)},
    )


def _worked(window: Window, node: int, until: float) -> bool:
    """Whether its GPUs worked when they were heard last: where a label of their series names the job, it fell silent with them."""
    gpus = list(window.layout.nodes[node].gpus)
    if not gpus or not window.has("gpu.util"):
        return False
    recent, minutes = window.recent("gpu.util", LOOKBACK_S), window.minutes("gpu.util").mean
    number = int((until - window.at // 60 * 60) // 60) + len(minutes)
    before = recent.values[(recent.times > until - 60.0) & (recent.times <= until)][:, gpus]
    older = minutes[max(number - 1, 0) : max(number + 1, 0)][:, gpus]
    known = np.concatenate([before.ravel(), older.ravel()])
    return bool((known > WORKS).any())


def _why(window: Window, node: str) -> str:
    for source in window.snapshot.sources:
        for target in source.targets:
            if node in target.nodes and target.detail:
                return target.detail
    return "no source says why"


def _outage(window: Window, silent: Bools, newest: Times, known: Bools) -> Candidate:
    nodes = tuple(window.layout.nodes[node].key for node in np.flatnonzero(silent).tolist())
    at = float(np.nanmedian(newest[silent]))
    share = float(silent.sum() / max(known.sum(), 1))
    return Candidate(
        NAME,
        "cluster",
        Scope(nodes=nodes),
        Severity.WARNING,
        at,
        0.0,
        0.9,
        (Evidence("node.cpu_util", "cluster", share, "ratio", "silent at once"),),
        is_immediate=True,
        words={"how": in_words(window.at - at), "share": f"{share:.0%}"},
    )
