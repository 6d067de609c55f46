"""Triage: what the detectors say, folded over time into findings that an on-call engineer can trust.

A tick at a time: candidates become standing ones (hysteresis), consequences are explained away (:mod:`.arbitration`), what
has a common cause is put together (:mod:`.grouping`) and told (:mod:`.wording`). A finding keeps its id and its ``since``
while it lasts, however its numbers move; one that comes back within minutes is the same one. Triage is the only part of
the diagnosis with a memory.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from coldaisle.analyzers.arbitration import Placed, arbitrate
from coldaisle.analyzers.detectors import DETECTORS
from coldaisle.analyzers.finding import (
    Candidate,
    Diagnosis,
    Evidence,
    Finding,
    JobClass,
    Loss,
    Rejected,
    Scope,
    Undecided,
    Urgency,
    Usefulness,
    Verdict,
    Warming,
)
from coldaisle.analyzers.grouping import Group, Places, groups
from coldaisle.analyzers.snapshot import EventView, Snapshot
from coldaisle.analyzers.window import Window
from coldaisle.analyzers.wording import change, confirmations, filled, text_of, words_of
from coldaisle.sources.text import natural_key

HOLD_WINDOWS = 2.0
"""A finding ends when its condition has not been seen for so many windows of 60 s or 8 polls."""
WINDOW_S, WINDOW_POLLS = 60.0, 8
DWELL_S = 60.0
"""It stands at least so long."""
FLAP_S = 600.0
"""Back within so long it is the same finding, and is held longer next time."""
CLEARED_S = 3600.0
JOB_START_S = 120.0
"""How a job performs in its first minutes says nothing."""
CHANGED_BEFORE_S, CHANGED_AFTER_S = 900.0, 60.0
MOST_EVIDENCE, MOST_CHANGES, MOST_REJECTED = 8, 6, 6
PERFORMANCE = frozenset(
    {
        "data_loader_starvation",
        "interconnect_saturation",
        "communication_stall",
        "checkpoint_stall",
        "straggler",
    }
)
LOCK_STEP = frozenset(
    {"gpu_fault", "thermal_throttling", "power_capping", "straggler", "interconnect_degraded", "communication_stall",
     "memory_exhaustion"}
)  # fmt: skip
"""Conditions of a part of a job that make the rest of it wait."""
_URGENCIES = {Urgency.NOW: 0, Urgency.TODAY: 1, Urgency.LATER: 2}
_RANK = {name: number for number, name in enumerate(DETECTORS)}


@dataclass(slots=True)
class _Track:
    """A candidate over time."""

    candidate: Candidate
    opened: float | None
    """None: it has not been strong enough yet."""
    seen: float
    since: float


@dataclass(slots=True)
class _Life:
    """A finding over time."""

    finding: Finding
    tracks: set[tuple[str, str]] = field(default_factory=set)
    """Keys of the candidates that it is made of."""


class Triage:
    """The findings of one view. Not safe for several threads."""

    def __init__(self) -> None:
        self._tracks: dict[tuple[str, str], _Track] = {}
        self._lives: dict[str, _Life] = {}
        self._cleared: dict[str, Finding] = {}
        self._flaps: dict[str, int] = {}

    def fold(
        self, window: Window, verdicts: Mapping[str, Verdict], classes: Mapping[str, JobClass] | None = None
    ) -> Diagnosis:
        """Take in what the detectors say of the next instant."""
        snapshot = window.snapshot
        failed = {name for name, verdict in verdicts.items() if verdict.failed}
        self._take(window, [c for verdict in verdicts.values() for c in verdict.candidates], failed)
        standing = [_placed(t.candidate, snapshot) for t in self._tracks.values() if t.opened is not None]
        arbitrated = arbitrate(standing)
        places = Places(snapshot)
        told = _Told(window, places, arbitrated.symptoms)
        self._live(told, groups(arbitrated.standing, places), window.at)
        findings = tuple(sorted((life.finding for life in self._lives.values()), key=_order))
        explained, unexplained = _alerts(snapshot, findings)
        findings = tuple(
            replace(one, explains=explained[one.id]) if one.id in explained else one for one in findings
        )
        return Diagnosis(
            at=window.at,
            findings=findings,
            cleared=tuple(sorted(self._cleared.values(), key=lambda one: -(one.cleared_at or 0.0))),
            undecided=_undecided(verdicts, findings),
            warming=_warming(verdicts),
            jobs=dict(classes or {}),
            unexplained=unexplained,
            usefulness=usefulness(snapshot, findings),
        )

    def shift(self, seconds: float) -> None:
        """Our clock was set: what is known moves with it."""
        for track in self._tracks.values():
            track.seen += seconds
            track.since += seconds
            track.opened = None if track.opened is None else track.opened + seconds
        for life in self._lives.values():
            one = life.finding
            life.finding = replace(one, since=one.since + seconds, opened_at=one.opened_at + seconds)

    # --- candidates ----------------------------------------------------------------------------------

    def _take(self, window: Window, candidates: Sequence[Candidate], failed: set[str]) -> None:
        at, started = window.at, {job.id: job.since for job in window.jobs}
        for candidate in candidates:
            if candidate.detector in PERFORMANCE and _is_new(candidate, started, at):
                continue
            key = _key(candidate)
            track = self._tracks.get(key)
            since = min(candidate.since, at)
            if track is None:
                opened = at if candidate.is_open else None
                self._tracks[key] = _Track(candidate, opened, at, since)
                continue
            track.candidate, track.seen, track.since = candidate, at, min(track.since, since)
            if track.opened is None and candidate.is_open:
                track.opened = at
        hold = HOLD_WINDOWS * max(WINDOW_S, WINDOW_POLLS * window.poll)
        for key, track in list(self._tracks.items()):
            if track.candidate.detector in failed:
                track.seen = at
            elif track.opened is None:
                if track.seen < at:
                    del self._tracks[key]
            elif (
                track.seen < at
                and at - track.seen >= self._held(key, track, hold)
                and at - track.opened >= DWELL_S
            ):
                del self._tracks[key]

    def _held(self, key: tuple[str, str], track: _Track, hold: float) -> float:
        """For how long a candidate that is not seen any more still stands."""
        flaps = max(
            (self._flaps.get(i, 0) for i, life in self._lives.items() if key in life.tracks), default=0
        )
        return (DWELL_S if track.candidate.is_immediate else hold) * (1 + min(flaps, 4))

    # --- findings ------------------------------------------------------------------------------------

    def _live(self, told: _Told, found: Sequence[Group], at: float) -> None:
        """Open, keep, regroup and clear."""
        before = self._lives
        self._lives = {}
        for group in self._settled(found, before):
            tracks = {_key(member.candidate) for member in group.members}
            since = min(self._tracks[key].since for key in tracks)
            old = before.get(group.id)
            elders = [
                life for key, life in before.items()
                if key != group.id and life.finding.detector == group.detector and life.tracks <= tracks
            ]  # fmt: skip
            finding = told.finding(group, since)
            finding = self._carried(finding, old, elders, at)
            self._lives[finding.id] = _Life(finding, tracks)
        superseded = {i for life in self._lives.values() for i in life.finding.supersedes}
        for key, life in before.items():
            if key not in self._lives and key not in superseded:
                self._cleared[key] = replace(life.finding, cleared_at=at)
        for key, one in list(self._cleared.items()):
            if key in self._lives or at - (one.cleared_at or 0.0) > CLEARED_S:
                del self._cleared[key]

    def _settled(self, found: Sequence[Group], before: Mapping[str, _Life]) -> list[Group]:
        """Groups whose whole was named before keep its name while most of it still has the condition."""
        kept: list[Group] = []
        by_detector: dict[str, list[Group]] = defaultdict(list)
        for group in found:
            by_detector[group.detector].append(group)
        for detector, some in by_detector.items():
            names = {group.anchor for group in some}
            for life in before.values():
                one = life.finding
                anchor = one.id.partition(":")[2]
                if one.detector != detector or anchor in names or len(life.tracks) < 2:
                    continue
                inside = [g for g in some if all(_key(m.candidate) in life.tracks for m in g.members)]
                members = [m for g in inside for m in g.members]
                if len(members) >= 2 and 2 * len(members) >= len(life.tracks):
                    some = [g for g in some if g not in inside] + [Group(detector, anchor, tuple(members))]
            kept += some
        return kept

    def _carried(self, finding: Finding, old: _Life | None, elders: Sequence[_Life], at: float) -> Finding:
        """The finding with its past: since when, what it was called, how often it came back."""
        if old is not None:
            was = old.finding
            worse = at if finding.severity > was.severity else was.worsened_at
            finding = replace(
                finding, since=min(finding.since, was.since), opened_at=was.opened_at, worsened_at=worse,
                since_bound=was.since_bound if was.since <= finding.since else finding.since_bound,
                flaps=was.flaps, supersedes=was.supersedes,
            )  # fmt: skip
        elif (gone := self._cleared.get(finding.id)) is not None and at - (gone.cleared_at or 0.0) <= FLAP_S:
            self._flaps[finding.id] = self._flaps.get(finding.id, 0) + 1
            finding = replace(
                finding,
                since=gone.since,
                opened_at=gone.opened_at,
                flaps=gone.flaps + 1,
                supersedes=gone.supersedes,
            )
        else:
            finding = replace(finding, opened_at=at)
        for life in elders:
            was = life.finding
            names = tuple(dict.fromkeys((*finding.supersedes, *was.supersedes, was.id)))
            finding = replace(
                finding, since=min(finding.since, was.since), opened_at=min(finding.opened_at, was.opened_at),
                supersedes=tuple(name for name in names if name != finding.id)[-20:],
            )  # fmt: skip
        return finding


def _key(candidate: Candidate) -> tuple[str, str]:
    roots = candidate.roots
    parts = roots.ports or roots.servers or (roots.jobs if not roots.gpus or len(roots.gpus) > 1 else ())
    return candidate.detector, " ".join(parts or roots.gpus or roots.nodes or roots.racks or ("cluster",))


def _is_new(candidate: Candidate, started: Mapping[str, float], at: float) -> bool:
    jobs = [started[job] for job in candidate.roots.jobs if job in started]
    return bool(jobs) and all(at - since < JOB_START_S for since in jobs)


def _placed(candidate: Candidate, snapshot: Snapshot) -> Placed:
    """With what it touches: jobs of its GPUs, services of its servers."""
    layout, roots = snapshot.layout, candidate.roots
    gpus = {gpu for gpu in roots.gpus if gpu in layout.gpu_of}
    nodes = set(roots.nodes) | {gpu.partition("/")[0] for gpu in roots.gpus}
    nodes |= {port.partition("/")[0] for port in roots.ports}
    jobs, services = set(roots.jobs), set()
    for gpu in gpus:
        number = int(snapshot.gpu_job[layout.gpu_of[gpu]])
        if number >= 0:
            jobs.add(snapshot.jobs[number].id)
    if not gpus and not jobs and not roots.servers:
        jobs |= {job.id for job in snapshot.jobs if nodes & set(job.nodes)}
        gpus = {
            layout.gpus[g].key
            for node in nodes
            if node in layout.node_of
            for g in layout.nodes[layout.node_of[node]].gpus
        }
    for server in layout.servers:
        if server.key in roots.servers:
            services.add(server.service or server.key)
            nodes.add(layout.nodes[server.node].key)
    return Placed(candidate, frozenset(gpus), frozenset(nodes), frozenset(jobs), frozenset(services))


class _Told:
    """Makes findings of the groups of one instant."""

    def __init__(self, window: Window, places: Places, symptoms: Mapping[int, tuple[str, ...]]) -> None:
        self.window = window
        self.snapshot = window.snapshot
        self.places = places
        self.symptoms = symptoms

    def finding(self, group: Group, since: float) -> Finding:
        """What is told of a group."""
        members = sorted((m.candidate for m in group.members), key=lambda c: (-c.severity, -c.loss, c.since))
        worst = members[0]
        scope = self._scope(group)
        loss = self._loss(group, scope)
        text = text_of(group.detector, worst.variant)
        words = words_of(self.snapshot, scope, loss.fraction, worst.words)
        symptoms = tuple(dict.fromkeys(s for c in members for s in self.symptoms.get(id(c), ())))
        return Finding(
            id=group.id,
            detector=group.detector,
            variant=worst.variant,
            severity=worst.severity,
            since=since,
            since_bound=min(members, key=lambda c: c.since).since_bound,
            scope=scope,
            victims=self._victims(group, scope, members),
            loss=loss,
            confidence=max(c.confidence for c in members),
            title=filled(text.title, words),
            cause=filled(text.cause, words),
            remedy=filled(text.remedy, words),
            urgency=text.urgency,
            urgency_why=filled(text.urgency_why, words),
            owner=text.owner,
            confirm=confirmations(text, scope, words),
            changed=self._changed(scope, since),
            evidence=_evidence(members),
            rejected=_rejected(members, symptoms),
            missing=tuple(dict.fromkeys(m for c in members for m in c.missing)),
            symptoms=symptoms,
        )

    def _scope(self, group: Group) -> Scope:
        """The root entities in full, with the nodes, racks and jobs that they belong to."""
        roots = [m.candidate.roots for m in group.members]
        gpus = {key for r in roots for key in r.gpus}
        nodes = {node for m in group.members for node in m.nodes}
        racks = {self.places.rack_of[node] for node in nodes if node in self.places.rack_of}
        return Scope(
            racks=_sorted(racks | {key for r in roots for key in r.racks}),
            nodes=_sorted(nodes),
            gpus=_sorted(gpus),
            jobs=_sorted({job for m in group.members for job in m.jobs}),
            servers=_sorted({key for r in roots for key in r.servers}),
            ports=_sorted({key for r in roots for key in r.ports}),
        )

    def _victims(self, group: Group, scope: Scope, members: Sequence[Candidate]) -> Scope:
        """Who suffers without being the cause: the rest of the jobs that run in lock-step."""
        layout = self.snapshot.layout
        gpus = {key for c in members for key in c.victims.gpus}
        if group.detector in LOCK_STEP:
            for job_id in scope.jobs:
                job = self.places.job_of.get(job_id)
                if job is not None:
                    gpus |= {layout.gpus[number].key for number in job.gpus}
        gpus -= set(scope.gpus)
        nodes = {gpu.partition("/")[0] for gpu in gpus} | {key for c in members for key in c.victims.nodes}
        return Scope(
            nodes=_sorted(nodes - set(scope.nodes)),
            gpus=_sorted(gpus),
            jobs=_sorted({key for c in members for key in c.victims.jobs} - set(scope.jobs)),
            servers=_sorted({key for c in members for key in c.victims.servers} - set(scope.servers)),
        )

    def _loss(self, group: Group, scope: Scope) -> Loss:
        """Each job's loss is the largest that any part of it has; GPUs without a job count for themselves."""
        of_job: dict[str, float] = defaultdict(float)
        alone = 0.0
        share_alone = 0.0
        sizes = {
            job: float(max(len(self.places.job_of[job].gpus), 1))
            for job in scope.jobs
            if job in self.places.job_of
        }
        for member in group.members:
            loss = min(max(member.candidate.loss, 0.0), 1.0)
            if math.isnan(loss):
                continue
            jobs = [job for job in member.jobs if job in sizes]
            for job in jobs:
                of_job[job] = max(of_job[job], loss)
            if not jobs:
                weight = float(self._gpus_of(member))
                alone += weight
                share_alone += weight * loss
        total = sum(sizes[job] for job in of_job) + alone
        lost = sum(sizes[job] * loss for job, loss in of_job.items()) + share_alone
        if not total:
            return Loss(max((m.candidate.loss for m in group.members), default=0.0), 0.0)
        return Loss(lost / total, lost)

    def _gpus_of(self, member: Placed) -> int:
        servers = set(member.candidate.roots.servers)
        if servers:
            return sum(len(s.gpus) or 1 for s in self.snapshot.layout.servers if s.key in servers)
        return len(member.gpus)

    def _changed(self, scope: Scope, since: float) -> tuple[str, ...]:
        """What happened to it, its parts and what it stands in, just before."""
        whole = {*scope.racks, *scope.nodes, *scope.gpus, *scope.jobs, *scope.servers, *scope.ports}
        near = [
            event for event in self.snapshot.events
            if since - CHANGED_BEFORE_S <= event.at <= since + CHANGED_AFTER_S
            and not event.kind.startswith("alert")
            and (event.entity in whole or event.entity.partition("/")[0] in scope.nodes)
        ]  # fmt: skip
        return tuple(change(event) for event in near[-MOST_CHANGES:])


def _sorted(keys: Iterable[str]) -> tuple[str, ...]:
    return tuple(sorted(keys, key=natural_key))


def _evidence(members: Sequence[Candidate]) -> tuple[Evidence, ...]:
    """Of the worst first, each metric of each entity once."""
    found = {(e.metric, e.entity): e for c in reversed(members) for e in reversed(c.evidence)}
    return tuple(reversed(list(found.values())))[:MOST_EVIDENCE]


def _rejected(members: Sequence[Candidate], symptoms: Sequence[str]) -> tuple[Rejected, ...]:
    found = {one.detector: one for c in reversed(members) for one in c.rejected}
    for name in symptoms:
        found[name] = Rejected(name, "its signs follow from this")
    return tuple(found.values())[:MOST_REJECTED]


def _order(finding: Finding) -> tuple[float, float, float, str]:
    return (
        _URGENCIES[finding.urgency] - 0.5 * (finding.severity == 2),
        -finding.severity,
        -finding.loss.gpu_hours_per_hour,
        finding.id,
    )


def _undecided(verdicts: Mapping[str, Verdict], findings: Sequence[Finding]) -> tuple[Undecided, ...]:
    """What cannot be told, except of what a finding of another kind explains already."""
    touched = {key for one in findings for key in (*one.scope.jobs, *one.scope.gpus, *one.scope.nodes)}
    every = [one for verdict in verdicts.values() for one in verdict.undecided]
    return tuple(o for o in every if not {*o.scope.jobs, *o.scope.gpus, *o.scope.nodes} & touched)


def _warming(verdicts: Mapping[str, Verdict]) -> tuple[Warming, ...]:
    return tuple(v.warming for v in verdicts.values() if v.warming is not None)


# --- alerts, and what it all costs ----------------------------------------------------------------


def firing(events: Iterable[EventView]) -> list[EventView]:
    """Alerts that began and are not over."""
    found: dict[tuple[str, str], EventView] = {}
    for event in events:
        if event.kind == "alert":
            found[event.entity, event.detail] = event
        elif event.kind == "alert_over":
            found.pop((event.entity, event.detail), None)
    return list(found.values())


def alert_name(event: EventView) -> str:
    """``GpuTempHigh r07n01``"""
    return " ".join(filter(None, (event.detail.partition(" ")[0].rstrip(":"), event.entity)))


def _alerts(
    snapshot: Snapshot, findings: Sequence[Finding]
) -> tuple[dict[str, tuple[str, ...]], tuple[str, ...]]:
    """Which finding explains which alerts, and those that none does."""
    explained: dict[str, list[str]] = defaultdict(list)
    unexplained = []
    touched = [(one.id, _all_keys(one.scope) | _all_keys(one.victims)) for one in findings]
    for event in firing(snapshot.events):
        node = event.entity.partition("/")[0]
        cause = next(
            (i for i, keys in touched if event.entity in keys or (event.entity and node in keys)), None
        )
        if cause is None:
            unexplained.append(alert_name(event))
        else:
            explained[cause].append(alert_name(event))
    return {key: tuple(dict.fromkeys(names)) for key, names in explained.items()}, tuple(
        dict.fromkeys(unexplained)
    )


def _all_keys(scope: Scope) -> frozenset[str]:
    return frozenset((*scope.racks, *scope.nodes, *scope.gpus, *scope.jobs, *scope.servers, *scope.ports))


def usefulness(snapshot: Snapshot, findings: Sequence[Finding]) -> Usefulness:
    """Useful GPU-hours of those allocated. What several findings take from one job is never more than all of it."""
    layout = snapshot.layout
    serving = {gpu for server in layout.servers for gpu in server.gpus}
    held = [n for n in layout.boards.tolist() if snapshot.gpu_job[n] >= 0 or n in serving]
    if not held:
        return Usefulness(
            0, math.nan, sum(one.loss.gpu_hours_per_hour for one in findings), _causes(findings)
        )
    lost = min(sum(one.loss.gpu_hours_per_hour for one in findings), float(len(held)))
    kept: dict[int, float] = {}
    size = {job.id: number for number, job in enumerate(snapshot.jobs)}
    free = 0.0
    for one in findings:
        jobs = [size[job] for job in one.scope.jobs if job in size]
        for job in jobs:
            kept[job] = kept.get(job, 1.0) * (1 - one.loss.fraction)
        if not jobs:
            free += one.loss.gpu_hours_per_hour
    lost = min(
        sum((1 - k) * len(snapshot.jobs[job].gpus) for job, k in kept.items()) + free, float(len(held))
    )
    return Usefulness(len(held), 1 - lost / len(held), lost, _causes(findings))


def _causes(findings: Iterable[Finding]) -> tuple[tuple[str, float], ...]:
    by_cause: dict[str, float] = defaultdict(float)
    for one in findings:
        by_cause[one.detector] += one.loss.gpu_hours_per_hour
    return tuple(sorted(((n, v) for n, v in by_cause.items() if v > 0), key=lambda pair: (-pair[1], pair[0])))
