"""``coldaisle check``: one diagnosis as text or JSON, for cron, pagers, pipelines and screen readers."""

from __future__ import annotations

import asyncio
import contextlib
import json
import shlex
import shutil
import sys
import textwrap
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from coldaisle.analyzers.detectors import DETECTORS
from coldaisle.analyzers.fields import Entity
from coldaisle.analyzers.finding import Diagnosis, Finding, Scope, Severity, Undecided
from coldaisle.analyzers.hindsight import Hindsight
from coldaisle.analyzers.monitor import Monitor
from coldaisle.analyzers.past import those_with_a_past
from coldaisle.analyzers.selection import Selection
from coldaisle.analyzers.snapshot import Snapshot
from coldaisle.analyzers.window import POLLS, SHORTEST_S
from coldaisle.sources.collector import SteadyClock
from coldaisle.sources.configured import NO_SECRETS, sources_from
from coldaisle.sources.errors import ColdaisleError
from coldaisle.sources.nodesets import fold
from coldaisle.sources.text import plain
from coldaisle.sources.units import age
from coldaisle.tui.dashboard import monitor_settings
from coldaisle.tui.doctor import expected_targets
from coldaisle.tui.evidence import held_words, value_words
from coldaisle.tui.examination import Abandoning
from coldaisle.tui.listing import complaints, has_answered, is_settled
from coldaisle.tui.progress import Progress
from coldaisle.tui.reading import who_has_to_act

if TYPE_CHECKING:
    from coldaisle.sources.config import Settings
    from coldaisle.sources.source import Source
    from coldaisle.sources.ssh_login import Secrets

SCHEMA = "coldaisle.check/1"
FINE, WARNED, CRITICAL, UNKNOWN = 0, 1, 2, 3
"""Exit statuses, as monitoring plug-ins have them."""
WINDOW_S = 900.0
LONGEST_WINDOW_S = 6 * 3600.0
PATIENCE_S = 150.0
"""Without --for: the longest that is waited for sources to answer, and for the evidence that detectors need."""
NOBODY_S = 10.0
"""Where every source has said why it does not answer, no longer is waited."""
GRACE_S = 3.0
"""After the evidence is there: findings that need two looks."""
FLOOR = 0.5
"""Of the nodes and GPUs that should be heard: with less, silence proves nothing. Engineering choice."""
WIDTH = 100
SEVERITIES = {Severity.CRITICAL: "CRITICAL", Severity.WARNING: "WARNING", Severity.INFO: "INFO"}

FailOn = str
"""``warning``, ``critical`` or ``never``."""


class Request(NamedTuple):
    """What is asked for, checked."""

    at: float | None = None
    """The past instant; None: now."""
    window_s: float = WINDOW_S
    seconds: float | None = None
    """Live: gather so long; None: until there is enough evidence."""
    only: frozenset[str] | None = None
    """Detectors; None: all."""
    where: tuple[Selection, ...] = ()
    """The filter, for each kind of row that it can be asked of; empty: no filter."""
    fail_on: FailOn = "warning"


class Outcome(NamedTuple):
    """What was found."""

    snapshot: Snapshot
    diagnosis: Diagnosis
    """What of it was asked for."""
    window_s: float
    status: int


def request_of(
    at: float | None, window_s: float, seconds: float | None, only: str, where: str, fail_on: FailOn
) -> Request:
    """The request in these words; FilterError or ColdaisleError says what is wrong with them."""
    names = frozenset(name.strip() for name in only.split(",") if name.strip())
    for name in sorted(names):
        if name not in DETECTORS:
            raise ColdaisleError(f"--only: no detector {name[:60]!r}", f"there are {', '.join(DETECTORS)}")
    if not 60.0 <= window_s <= LONGEST_WINDOW_S:
        raise ColdaisleError("--window: between 1m and 6h", "write --window 15m")
    return Request(at, window_s, seconds, names or None, selections(where), fail_on)


def selections(where: str) -> tuple[Selection, ...]:
    """The filter for GPUs, nodes, jobs and servers; FilterError says what is wrong with it."""
    if not where.strip():
        return ()
    return tuple(Selection(where, row) for row in (Entity.GPU, Entity.NODE, Entity.JOB, Entity.SERVER))


def check_and_print(
    settings: Settings,
    request: Request,
    secrets: Mapping[str, Secrets] = NO_SECRETS,
    *,
    as_json: bool = False,
    ascii_only: bool = False,
) -> int:
    """The whole command; its exit status."""
    progress = Progress()
    outcome = asyncio.run(diagnosed(settings, request, secrets, progress.say))
    progress.end()
    for line in complaints(outcome.snapshot.sources):
        sys.stderr.write(f"coldaisle: {plain(line, ascii_only=True)}\n")
    if as_json:
        sys.stdout.write(json.dumps(as_object(outcome), indent=1, allow_nan=False) + "\n")
    else:
        width = min(shutil.get_terminal_size().columns, WIDTH) if sys.stdout.isatty() else WIDTH
        for line in text_lines(outcome, width):
            sys.stdout.write(plain(line, ascii_only=ascii_only) + "\n")
    return outcome.status


# --- finding out ----------------------------------------------------------------------------------------------------


async def diagnosed(
    settings: Settings, request: Request, secrets: Mapping[str, Secrets], say: Callable[[str], None]
) -> Outcome:
    """The diagnosis that is asked for, of now or of then."""
    asyncio.get_running_loop().set_default_executor(Abandoning())
    sources = sources_from(settings, time.time, secrets)
    told_of = replace(monitor_settings(settings), zone=UTC)  # as all instants that check tells
    monitor = Monitor(sources, told_of, SteadyClock())
    if request.at is None:
        snapshot, window_s = await _live(monitor, settings, request, say)
    else:
        snapshot, window_s = await _then(monitor, sources, request, say), request.window_s
    return outcome_of(snapshot, request, window_s)


async def _then(
    monitor: Monitor, sources: Sequence[Source], request: Request, say: Callable[[str], None]
) -> Snapshot:
    if not those_with_a_past(sources):
        names = ", ".join(source.name for source in sources)
        raise ColdaisleError(f"--at: no source here has a past ({names})", "a Prometheus server has one")
    assert request.at is not None
    hindsight = Hindsight(sources, monitor.new_collector, monitor.new_view, monitor.detectors, say, UTC)
    return await hindsight.look(request.at, request.window_s)


async def _live(
    monitor: Monitor, settings: Settings, request: Request, say: Callable[[str], None]
) -> tuple[Snapshot, float]:
    """The picture when there is enough evidence, or after the time that was given; and how far back it knows."""
    expected = expected_targets(settings)
    seen: asyncio.Queue[Snapshot] = asyncio.Queue()
    watching = asyncio.create_task(monitor.run(seen.put_nowait))
    begun, enough_at = time.monotonic(), float("inf")
    patience = PATIENCE_S if request.seconds is None else request.seconds
    newest = monitor.snapshot()
    try:
        while (now := time.monotonic()) < begun + patience:
            if watching.done():
                watching.result()
            with contextlib.suppress(TimeoutError):
                newest = await asyncio.wait_for(seen.get(), 0.1)
            lacks = _lacks(monitor, newest, expected)
            say(f"{lacks or 'gathering'} ({now - begun:.0f} s of {patience:.0f} s at most)")
            if request.seconds is None:
                if now > begun + NOBODY_S and _is_in_vain(newest, expected):
                    break
                enough_at = min(enough_at, now) if not lacks else float("inf")
                if now >= enough_at + GRACE_S:
                    break
        known = monitor.clock() - monitor.history.reach
        return newest, min(max(known, 0.0), WINDOW_S)
    finally:
        watching.cancel()
        await asyncio.wait({watching}, timeout=1.0)


def _is_in_vain(snapshot: Snapshot, expected: Mapping[str, int]) -> bool:
    """Whether no source answers, and each has said why."""
    return not any(
        has_answered(one) or not is_settled(one, expected.get(one.name, 0)) for one in snapshot.sources
    )


def _lacks(monitor: Monitor, snapshot: Snapshot, expected: Mapping[str, int]) -> str:
    """What there is still to wait for; empty: nothing."""
    waiting = [one.name for one in snapshot.sources if not is_settled(one, expected.get(one.name, 0))]
    if waiting:
        return f"waiting for {', '.join(waiting[:3])}"
    if not monitor.catch_up.is_over:
        return "looking back"
    poll = monitor.diagnoser.poll
    have, need = monitor.clock() - monitor.history.reach, max(SHORTEST_S, POLLS * poll)
    if not have >= need:
        return (
            f"evidence: {max(have, 0):.0f} of {need:.0f} s" if have > float("-inf") else "waiting for samples"
        )
    if warming := snapshot.diagnosis.warming:
        one = warming[0]
        return f"{one.detector}: {one.have // 1:.0f} of {one.need:.0f} {one.unit}"
    return "" if snapshot.diagnosis.at else "looking"


def outcome_of(snapshot: Snapshot, request: Request, window_s: float) -> Outcome:
    """What of a picture's diagnosis was asked for, and the status that says how bad it is."""
    diagnosis = narrowed(snapshot, request)
    return Outcome(snapshot, diagnosis, window_s, status_of(snapshot, diagnosis, request.fail_on))


def narrowed(snapshot: Snapshot, request: Request) -> Diagnosis:
    """The diagnosis without what was not asked for."""
    diagnosis = snapshot.diagnosis
    if request.only is not None:
        only = request.only
        diagnosis = replace(
            diagnosis,
            findings=tuple(one for one in diagnosis.findings if one.detector in only),
            cleared=tuple(one for one in diagnosis.cleared if one.detector in only),
            undecided=tuple(one for one in diagnosis.undecided if one.detector in only),
            warming=tuple(one for one in diagnosis.warming if one.detector in only),
        )
    if request.where:
        names = kept_names(snapshot, request.where)
        diagnosis = replace(
            diagnosis,
            findings=tuple(one for one in diagnosis.findings if _touches(one, names)),
            cleared=tuple(one for one in diagnosis.cleared if _touches(one, names)),
            undecided=tuple(one for one in diagnosis.undecided if _names(one.scope) & names),
        )
    return diagnosis


def kept_names(snapshot: Snapshot, where: Sequence[Selection]) -> set[str]:
    """Keys of the GPUs, nodes, jobs and servers that the filter keeps."""
    layout = snapshot.layout
    keys: dict[Entity, list[str]] = {
        Entity.GPU: [gpu.key for gpu in layout.gpus],
        Entity.NODE: [node.key for node in layout.nodes],
        Entity.JOB: [job.id for job in snapshot.jobs],
        Entity.SERVER: [server.key for server in layout.servers],
    }
    return {
        keys[one.row][row]
        for one in where
        for row in np.flatnonzero(one.mask(snapshot)).tolist()
        if row < len(keys[one.row])
    }


def _touches(finding: Finding, names: set[str]) -> bool:
    return bool(_names(finding.scope) & names)


def _names(scope: Scope) -> set[str]:
    """What it is about, by key; its nodes only where nothing narrower is named: others work there, too."""
    return {*(scope.gpus or scope.nodes), *scope.servers, *scope.jobs}


def status_of(snapshot: Snapshot, diagnosis: Diagnosis, fail_on: FailOn) -> int:
    """How bad it is, as plug-ins say it; 3: it could not be told."""
    worst = max((one.severity for one in diagnosis.findings), default=Severity.INFO)
    if not any(has_answered(source) for source in snapshot.sources) or not snapshot.diagnosis.at:
        return UNKNOWN
    if worst is Severity.INFO and not _is_covered(snapshot):
        return UNKNOWN
    if worst is Severity.CRITICAL and fail_on != "never":
        return CRITICAL
    return WARNED if worst is Severity.WARNING and fail_on == "warning" else FINE


def _is_covered(snapshot: Snapshot) -> bool:
    coverage = snapshot.coverage
    return (
        coverage.nodes_expected + coverage.gpus_expected > 0
        and coverage.nodes >= FLOOR * coverage.nodes_expected
        and coverage.gpus >= FLOOR * coverage.gpus_expected
    )


# --- for programs ---------------------------------------------------------------------------------------------------


def as_object(outcome: Outcome) -> dict[str, Any]:
    """For programs: canonical units, null for what is not known."""
    snapshot, diagnosis = outcome.snapshot, outcome.diagnosis
    coverage = snapshot.coverage
    return {
        "schema": SCHEMA,
        "at": stamp(snapshot.at),
        "window_s": round(outcome.window_s, 1),
        "sources": [
            {"name": one.name, "kind": one.kind, "state": one.state, "error": one.why or None}
            for one in snapshot.sources
        ],
        "coverage": {
            "nodes": [coverage.nodes, coverage.nodes_expected],
            "gpus": [coverage.gpus, coverage.gpus_expected],
        },
        "unexplained_alerts": list(diagnosis.unexplained),
        "jobs": _jobs(snapshot, diagnosis),
        "findings": [_finding(one) for one in by_badness(diagnosis.findings)],
        "undecided": [
            {"detector": one.detector, "scope": _told(one.scope), "why": one.why}
            for one in diagnosis.undecided
        ],
        "warming": [
            {"detector": one.detector, "have": one.have, "need": one.need, "unit": one.unit}
            for one in diagnosis.warming
        ],
    }


def by_badness(findings: Sequence[Finding]) -> list[Finding]:
    """Worst first; within a severity as triage has them."""
    return sorted(findings, key=lambda one: -one.severity)


def _jobs(snapshot: Snapshot, diagnosis: Diagnosis) -> list[dict[str, Any]]:
    found = []
    for job in snapshot.jobs:
        known = diagnosis.jobs.get(job.id)
        found.append(
            {
                "id": bare(job.id),
                "workload": str(known.workload) if known else "unknown",
                "bound": str(known.bound) if known else "unknown",
                "gpus": len(job.gpus) or job.gpu_count or 0,
            }
        )
    return found


def _finding(one: Finding) -> dict[str, Any]:
    return {
        "id": one.id,
        "detector": one.detector,
        "variant": one.variant,
        "severity": one.severity.name.lower(),
        "since": stamp(one.since),
        "since_bound": one.since_bound,
        "scope": _scope(one.scope),
        "victims": _scope(one.victims),
        "loss": {
            "fraction": _number(one.loss.fraction),
            "gpu_hours_per_hour": _number(one.loss.gpu_hours_per_hour),
        },
        "confidence": _number(one.confidence),
        "title": one.title,
        "cause": one.cause,
        "remedy": one.remedy,
        "urgency": str(one.urgency),
        "urgency_why": one.urgency_why,
        "owner": one.owner,
        "confirm": [{"cmd": shlex.join(c.argv), "on": c.on, "needs": c.needs} for c in one.confirm],
        "changed": list(one.changed),
        "explains": list(one.explains),
        "evidence": [
            {
                "metric": e.metric,
                "entity": e.entity,
                "value": _number(e.value),
                "unit": e.unit,
                "rule": e.rule,
            }
            for e in one.evidence
        ],
        "rejected": [{"detector": r.detector, "why": r.why} for r in one.rejected],
        "missing": list(one.missing),
        "supersedes": list(one.supersedes),
    }


def _scope(scope: Scope) -> dict[str, Any]:
    """As the contract has it: GPUs as [node, slot], jobs by their bare ids."""
    return {
        "racks": list(scope.racks),
        "nodes": list(scope.nodes),
        "gpus": [list(pair) for pair in dict.fromkeys(map(_position, scope.gpus))],
        "jobs": [bare(job) for job in scope.jobs],
        "servers": list(scope.servers),
        **({"ports": list(scope.ports)} if scope.ports else {}),
    }


def _told(scope: Scope) -> dict[str, Any]:
    return {kind: names for kind, names in _scope(scope).items() if names}


def _position(gpu: str) -> tuple[str, int]:
    """(node, slot); of a MIG instance its board's."""
    node, _, slot = gpu.rpartition("/")
    digits = slot.partition(":")[0]
    return node, int(digits) if digits.isdecimal() else -1


def bare(job: str) -> str:
    return job.removeprefix("slurm:")


def stamp(at: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(at))


def _number(value: float) -> float | None:
    return float(f"{value:.5g}") if np.isfinite(value) else None


# --- for people -----------------------------------------------------------------------------------------------------


def text_lines(outcome: Outcome, width: int = WIDTH) -> Iterator[str]:
    """For a person and a screen reader: how it is, then each finding, the worst first: why, do, confirm."""
    snapshot, diagnosis = outcome.snapshot, outcome.diagnosis
    findings = by_badness(diagnosis.findings)
    yield from _wrapped("", _headline(outcome, findings), width)
    for number, one in enumerate(findings, 1):
        yield ""
        yield from _told_finding(number, one, snapshot, width)
    if diagnosis.undecided:
        yield ""
        yield "UNDECIDED"
        for doubt in diagnosis.undecided:
            yield from _wrapped("  ", f"{doubt.detector}, {_where(doubt)}: {doubt.why}", width)
    if diagnosis.unexplained:
        yield ""
        yield from _wrapped("ALERTS that no finding explains: ", ", ".join(diagnosis.unexplained), width)
    if diagnosis.warming:
        yield ""
        told = (f"{one.detector} {one.have // 1:.0f}/{one.need:.0f} {one.unit}" for one in diagnosis.warming)
        yield from _wrapped("STILL WARMING UP: ", ", ".join(told), width)


def _headline(outcome: Outcome, findings: Sequence[Finding]) -> str:
    snapshot, coverage = outcome.snapshot, outcome.snapshot.coverage
    counts = [
        f"{count} {name.lower()}"
        for severity, name in SEVERITIES.items()
        if (count := sum(one.severity is severity for one in findings))
    ]
    what = ", ".join(counts) if counts else "no findings"
    if not counts and outcome.diagnosis.warming:
        what += ", as far as can be told: detectors are still warming up"
    if left_out := len(snapshot.diagnosis.findings) - len(findings):
        what += f" of what was asked for ({left_out} more in all)"
    if not any(has_answered(source) for source in snapshot.sources):
        what = "UNKNOWN: no source answered"
    elif not snapshot.diagnosis.at:
        what = "UNKNOWN: nothing is diagnosed, since a source did not tell all that was asked for"
    elif outcome.status == UNKNOWN:
        what = f"UNKNOWN: {what}, but too little is heard of the cluster"
    heard = f"{coverage.nodes} of {coverage.nodes_expected} nodes, {coverage.gpus} of {coverage.gpus_expected} GPUs heard"
    name = f"{snapshot.name}: " if snapshot.name else ""
    useful = outcome.diagnosis.usefulness
    good = ""
    if useful is not None and useful.allocated:
        good = f"; useful: {useful.useful:.0%} of {useful.allocated} GPUs in use, {useful.lost:.1f} GPU-hours an hour lost"
    return f"{name}{what} at {stamp(snapshot.at)} ({age(outcome.window_s)} looked at); {heard}{good}"


def _told_finding(number: int, one: Finding, snapshot: Snapshot, width: int) -> Iterator[str]:
    at = snapshot.at
    since = f"since {'before ' if one.since_bound else ''}{stamp(one.since)} ({_ago(at - one.since)})"
    yield from _wrapped(f"{number}. ", f"{SEVERITIES[one.severity]} {one.title} [{one.id}] {since}", width)
    yield from _wrapped("   where:    ", _places(one.scope), width)
    if victims := _places(one.victims):
        yield from _wrapped("   victims:  ", victims, width)
    loss = f"{one.loss.fraction:.0%} of the work there, {one.loss.gpu_hours_per_hour:.1f} GPU-hours an hour"
    yield from _wrapped("   loss:     ", f"{loss}; confidence {one.confidence:.0%}", width)
    yield from _wrapped("   why:      ", one.cause, width)
    yield from _wrapped("   do:       ", f"{one.urgency}, because {one.urgency_why}: {one.remedy}", width)
    yield from _wrapped("   who:      ", who_has_to_act(snapshot, one), width)
    for label, lines in (
        ("changed", one.changed),
        ("explains", one.explains),
        (
            "evidence",
            [f"{e.entity} {e.metric} {value_words(e)} ({held_words(e)})" for e in one.evidence],
        ),
        ("rejected", [f"{r.detector}: {r.why}" for r in one.rejected]),
        ("missing", one.missing),
        ("was", one.supersedes),
    ):
        for line in lines:
            yield from _wrapped(f"   {label + ':':<10}", line, width)
    for command in one.confirm:
        yield f"   confirm:  {shlex.join(command.argv)}   (on {command.on}, as {command.needs})"


def _where(doubt: Undecided) -> str:
    return _places(doubt.scope) or "the cluster"


def _places(scope: Scope) -> str:
    parts = []
    if scope.racks:
        parts.append(f"rack {fold(scope.racks)}" if len(scope.racks) == 1 else f"racks {fold(scope.racks)}")
    if scope.nodes:
        parts.append(f"node {scope.nodes[0]}" if len(scope.nodes) == 1 else f"nodes {fold(scope.nodes)}")
    if scope.gpus:
        shown = ", ".join(scope.gpus[:4])
        parts.append(f"GPU {shown}" if len(scope.gpus) <= 4 else f"{len(scope.gpus)} GPUs")
    if scope.ports:
        parts.append(f"port {', '.join(scope.ports[:4])}")
    if scope.servers:
        parts.append(f"server {', '.join(scope.servers[:4])}")
    if scope.jobs:
        parts.append(f"job {', '.join(bare(job) for job in scope.jobs[:6])}")
    return "; ".join(parts)


def _ago(seconds: float) -> str:
    return f"{age(max(seconds, 0.0))} ago"


def _wrapped(label: str, words: str, width: int) -> Iterator[str]:
    words = plain(words)
    yield from textwrap.wrap(
        words, max(width, 40), initial_indent=label, subsequent_indent=" " * len(label), break_long_words=False,
        break_on_hyphens=False,
    ) or [label]  # fmt: skip
