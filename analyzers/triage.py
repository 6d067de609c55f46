"""What to stand by: candidates of all detectors folded over time, causes before consequences, one finding a cause.

::

    verdicts ─► tracks.py       which candidates stand: hysteresis, least evidence, flapping
             ─► arbitration.py  which of them are consequences of others
             ─► grouping.py     which have one cause: a node, a rack, a job
             ─► Diagnosis       with texts (wording.py), losses (losses.py), what changed and alerts (circumstances.py)

Only triage knows time. Everything it says follows from the windows it was shown, so that a past instant that is folded
again gives the same ids, beginnings and findings as the live one gave then.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import tzinfo
from typing import NamedTuple

from coldaisle.analyzers.arbitration import TABLE, Held, causes
from coldaisle.analyzers.circumstances import Alerts, changes, explained
from coldaisle.analyzers.finding import (
    NOWHERE,
    Candidate,
    Diagnosis,
    Evidence,
    Finding,
    JobClass,
    Rejected,
    Scope,
    Severity,
    Undecided,
    Urgency,
    Verdict,
    Warming,
)
from coldaisle.analyzers.grouping import Group, anchor_of, grouped
from coldaisle.analyzers.losses import Lost, lost_gpus, usefulness
from coldaisle.analyzers.reach import index_of, reach_of
from coldaisle.analyzers.tracks import Track, Tracks
from coldaisle.analyzers.window import POLLS, SHORTEST_S, Window
from coldaisle.analyzers.wording import commands, counted, filled, text_of, words_of

CLEARED_S = 3600.0
WORSE_BY = 0.10
"""A loss that grew by so much is news, as a higher severity is. Engineering choice."""
MOST_EVIDENCE = 12
URGENCIES = tuple(Urgency)
NEEDS_A_WINDOW = frozenset(
    {
        "checkpoint_stall",
        "data_loader_starvation",
        "interconnect_saturation",
        "straggler",
        "communication_stall",
        "power_capping",
    }
)
"""Conditions that are judged by a whole window, and whose detectors do not say themselves how far they are."""


@dataclass(slots=True)
class _Standing:
    """A finding from its opening to its end."""

    finding: Finding
    tracks: frozenset[object]
    group: tuple[str, str]
    worst: Severity
    worst_loss: float


class _Made(NamedTuple):
    """A finding as one look has it."""

    finding: Finding
    tracks: frozenset[object]
    """Keys of the tracks that it is made of, and of those that it explains."""
    group: Group
    lost: Lost


@dataclass(slots=True)
class Triage:
    """Folds what detectors say, look by look. ``zone`` is that of the times in ``changed``; None: this machine's."""

    zone: tzinfo | None = None
    classify: Callable[[Window], Mapping[str, JobClass]] | None = None
    _tracks: Tracks = field(default_factory=Tracks)
    _alerts: Alerts = field(default_factory=Alerts)
    _standing: dict[str, _Standing] = field(default_factory=dict)
    _cleared: list[Finding] = field(default_factory=list)
    _doubts: dict[tuple[str, Scope], int] = field(default_factory=dict)

    def fold(self, window: Window, verdicts: Mapping[str, Verdict]) -> Diagnosis:
        """What is known to be wrong at the window's instant, given all that was folded before."""
        open_tracks = self._tracks.follow(window, verdicts)
        held = [
            Held(
                _as_severe(track),
                reach_of(window, track.candidate.roots),
                track.since,
            )
            for track in open_tracks
        ]
        cause_of = causes(held, window.poll)
        for number, track in enumerate(open_tracks):
            track.cause = open_tracks[cause_of[number]].key if number in cause_of else None
        roots = [number for number in range(len(held)) if number not in cause_of]
        groups = grouped(window, [held[number] for number in roots], self._known_groups())
        groups = [
            group._replace(members=tuple(roots[member] for member in group.members)) for group in groups
        ]
        self._alerts.follow(window.snapshot.events, window.at)
        made = [self._made(window, group, held, open_tracks, cause_of) for group in groups]
        self._stand(window, made)
        findings = sorted((standing.finding for standing in self._standing.values()), key=_order)
        lost = {one.finding.id: one.lost for one in made}
        told = {alert for finding in findings for alert in explained(finding, self._alerts.firing)}
        return Diagnosis(
            at=window.at,
            findings=tuple(findings),
            cleared=self._recently_cleared(window.at),
            undecided=self._undecided(window, verdicts, findings),
            warming=_warming(window, verdicts),
            jobs=self.classify(window) if self.classify is not None else {},
            unexplained=tuple(
                dict.fromkeys(alert.shown for alert in self._alerts.firing if alert not in told)
            ),
            usefulness=usefulness(window, [(finding, lost.get(finding.id, {})) for finding in findings]),
        )

    def shift(self, seconds: float) -> None:
        """Our clock was set: what is known moves with it."""
        self._tracks.shift(seconds)
        for standing in self._standing.values():
            standing.finding = _shifted(standing.finding, seconds)
        self._cleared = [_shifted(finding, seconds) for finding in self._cleared]

    # --- one finding ------------------------------------------------------------------------------------------------

    def _known_groups(self) -> dict[str, set[tuple[str, str]]]:
        known: dict[str, set[tuple[str, str]]] = {}
        for standing in self._standing.values():
            known.setdefault(standing.finding.detector, set()).add(standing.group)
        return known

    def _made(
        self,
        window: Window,
        group: Group,
        held: Sequence[Held],
        tracks: Sequence[Track],
        cause_of: Mapping[int, int],
    ) -> _Made:
        members = sorted(group.members, key=lambda member: _weight(held[member]))
        lead = held[members[0]].candidate
        own = set(members)
        effects = [number for number, cause in cause_of.items() if cause in own]
        scope = _scope(window, [held[member] for member in members])
        lost, loss = lost_gpus(window, [held[member] for member in members])
        text = text_of(lead)
        words = words_of(window.snapshot, scope, group.step, group.anchor, loss, lead.words)
        first = min((tracks[member] for member in members), key=lambda track: track.since)
        symptoms = tuple(dict.fromkeys(held[effect].candidate.detector for effect in effects))
        opened = min(tracks[member].opened_at or window.at for member in members)
        finding = Finding(
            id=f"{lead.detector}:{group.anchor}",
            detector=lead.detector,
            variant=lead.variant,
            severity=max(held[member].candidate.severity for member in members),
            since=first.since,
            since_bound=first.since_bound,
            scope=scope,
            victims=_victims(window, scope, [held[member] for member in (*members, *effects)]),
            loss=loss,
            confidence=max(held[member].candidate.confidence for member in members),
            title=filled(text.title, words),
            cause=filled(text.cause, words),
            remedy=filled(text.remedy, words),
            urgency=text.urgency,
            urgency_why=filled(text.urgency_why, words),
            owner=text.owner,
            confirm=commands(text, words),
            changed=changes(window, scope, first.since, self.zone),
            evidence=_evidence([held[member] for member in members]),
            rejected=_rejected(
                window, [held[member] for member in members], [held[effect] for effect in effects]
            ),
            missing=tuple(dict.fromkeys(line for m in members for line in held[m].candidate.missing)),
            symptoms=symptoms,
            opened_at=opened,
            flaps=max(tracks[member].flaps for member in members),
        )
        alerts = explained(finding, self._alerts.firing)
        finding = replace(finding, explains=tuple(dict.fromkeys(alert.shown for alert in alerts)))
        mine = frozenset(tracks[number].key for number in (*members, *effects))
        return _Made(finding, mine, group, lost)

    # --- over time --------------------------------------------------------------------------------------------------

    def _stand(self, window: Window, made: Sequence[_Made]) -> None:
        """Findings that go on, that take the place of others, that are new; the others are over."""
        before, self._standing = self._standing, {}
        followed: set[str] = set()
        for finding, tracks, group, _ in made:
            old = before.get(finding.id)
            merged = [one for one in before.values() if one.finding.id != finding.id and one.tracks & tracks]
            merged = [one for one in merged if not _goes_on(one, made)]
            self._standing[finding.id] = _continued(window.at, finding, tracks, group, old, merged)
            followed |= {finding.id} | {one.finding.id for one in merged}
        for name, standing in before.items():
            if name not in followed and name not in self._standing:
                self._cleared.insert(0, replace(standing.finding, cleared_at=window.at))
        back = {
            name for name, standing in self._standing.items() if name not in before and standing.finding.flaps
        }
        self._cleared = [one for one in self._cleared if one.id not in back]

    def _recently_cleared(self, at: float) -> tuple[Finding, ...]:
        self._cleared = [one for one in self._cleared if at - (one.cleared_at or at) <= CLEARED_S]
        return tuple(self._cleared)

    def _undecided(
        self, window: Window, verdicts: Mapping[str, Verdict], findings: Sequence[Finding]
    ) -> tuple[Undecided, ...]:
        """Said twice running, and not of what a finding, or a cause of that condition, already tells of."""
        said = {
            (doubt.detector, doubt.scope): doubt
            for verdict in verdicts.values()
            for doubt in verdict.undecided
        }
        self._doubts = {key: self._doubts.get(key, 0) + 1 for key in said}
        explains: dict[str, set[str]] = {}
        for row in TABLE:
            explains.setdefault(row.consequence, {row.consequence}).add(row.cause)
        stood = [(finding.detector, _names(finding)) for finding in findings]
        return tuple(
            doubt
            for key, doubt in said.items()
            if self._doubts[key] >= 2
            and not any(
                detector in explains.get(doubt.detector, {doubt.detector})
                and names & _reached(window, doubt.scope)
                for detector, names in stood
            )
        )


def _warming(window: Window, verdicts: Mapping[str, Verdict]) -> tuple[Warming, ...]:
    """Detectors that have not seen enough yet: as they say themselves, else what all need that look for more than an event."""
    have, need = window.at - window.since, max(SHORTEST_S, POLLS * window.poll)
    told = {name: verdict.warming for name, verdict in verdicts.items()}
    if 0.0 <= have < need:
        told = {
            name: said or (Warming(name, have, need, "s") if name in NEEDS_A_WINDOW else None)
            for name, said in told.items()
        }
    return tuple(said for said in told.values() if said is not None)


def _shifted(finding: Finding, seconds: float) -> Finding:
    def moved(at: float | None) -> float | None:
        return None if at is None else at + seconds

    return replace(
        finding,
        since=finding.since + seconds,
        opened_at=finding.opened_at + seconds,
        worsened_at=moved(finding.worsened_at),
        cleared_at=moved(finding.cleared_at),
    )


def _goes_on(standing: _Standing, made: Iterable[_Made]) -> bool:
    """Whether a finding of before is still one by its own name."""
    return any(one.finding.id == standing.finding.id for one in made)


def _continued(
    at: float,
    finding: Finding,
    tracks: frozenset[object],
    group: Group,
    old: _Standing | None,
    merged: Sequence[_Standing],
) -> _Standing:
    """A finding with what it was before: its beginning, what it was called, when it got worse."""
    ancestors = [one.finding for one in merged if one.finding.detector == finding.detector]
    known = [old.finding, *ancestors] if old else ancestors
    first = min((*known, finding), key=lambda one: one.since)
    names = [name for one in known for name in one.supersedes] + [one.finding.id for one in merged]
    worst, worst_loss, worsened = finding.severity, finding.loss.fraction, None
    if old:
        is_worse = finding.severity > old.worst or finding.loss.fraction >= old.worst_loss + WORSE_BY
        worst = max(old.worst, finding.severity)
        worst_loss = max(old.worst_loss, finding.loss.fraction) if is_worse else old.worst_loss
        worsened = at if is_worse else old.finding.worsened_at
    told = replace(
        finding,
        since=first.since,
        since_bound=first.since_bound,
        opened_at=min([finding.opened_at, *(one.opened_at for one in known)]),
        supersedes=tuple(dict.fromkeys(name for name in names if name != finding.id)),
        worsened_at=worsened,
    )
    return _Standing(told, tracks, group.name, worst, worst_loss)


def _order(finding: Finding) -> tuple[int, float, str]:
    return URGENCIES.index(finding.urgency), -finding.loss.gpu_hours_per_hour, finding.id


def _as_severe(track: Track) -> Candidate:
    """The newest candidate of a track, as severe as it was within the last window."""
    one = track.candidate
    return one if one.severity is track.severity else replace(one, severity=track.severity)


def _weight(held: Held) -> tuple[float, ...]:
    """The most telling first."""
    one = held.candidate
    return (-one.severity, -one.is_open, -one.loss, -one.confidence)


# --- who ------------------------------------------------------------------------------------------------------------


def _scope(window: Window, members: Sequence[Held]) -> Scope:
    """The root entities in full, in the order of the layout: what candidates name, and what that stands in or runs there."""
    layout, index = window.layout, index_of(window)
    gpus = {gpu for one in members for gpu in one.reach.gpus}
    nodes = {node for one in members for node in one.reach.nodes}
    jobs = {job for one in members for job in one.reach.jobs}
    servers = {server for one in members for server in one.reach.servers}
    ports = {index.ports[key] for one in members for key in one.candidate.roots.ports if key in index.ports}
    racks = sorted({int(window.groups.node_rack[node]) for node in nodes})
    return Scope(
        racks=tuple(layout.racks[rack].name for rack in racks),
        nodes=tuple(layout.nodes[node].key for node in sorted(nodes)),
        gpus=tuple(layout.gpus[gpu].key for gpu in sorted(gpus)),
        jobs=tuple(window.jobs[job].id for job in sorted(jobs)),
        servers=tuple(layout.servers[server].key for server in sorted(servers)),
        ports=tuple(layout.ports[port].key for port in sorted(ports)),
    )


def _victims(window: Window, scope: Scope, members: Sequence[Held]) -> Scope:
    """The rest of the jobs that are touched, which wait for the cause: GPUs on its own nodes, whole nodes elsewhere.

    Replicas' peers are victims where the detector names them: they take over what a slow one cannot serve.
    """
    layout = window.layout
    told = [reach_of(window, one.candidate.victims) for one in members if one.candidate.victims != NOWHERE]
    own = {layout.gpu_of[key] for key in scope.gpus if key in layout.gpu_of}
    at = {layout.node_of[key] for key in scope.nodes if key in layout.node_of}
    jobs = {job for one in members for job in one.reach.jobs}
    gpus = {gpu for job in jobs for gpu in window.jobs[job].gpus} | {gpu for one in told for gpu in one.gpus}
    nodes = {layout.gpus[gpu].node for gpu in gpus - own} | {node for one in told for node in one.nodes}
    nodes |= {
        layout.node_of[name] for job in jobs for name in window.jobs[job].nodes if name in layout.node_of
    }
    beside = sorted(gpu for gpu in gpus - own if layout.gpus[gpu].node in at and own)
    servers = {server for one in told for server in one.servers}
    named = {window.jobs[job].id for one in told for job in one.jobs} | {window.jobs[job].id for job in jobs}
    return Scope(
        nodes=tuple(layout.nodes[node].key for node in sorted(nodes - at)),
        gpus=tuple(layout.gpus[gpu].key for gpu in beside),
        jobs=tuple(job.id for job in window.jobs if job.id in named and job.id not in scope.jobs),
        servers=tuple(
            layout.servers[server].key
            for server in sorted(servers)
            if layout.servers[server].key not in scope.servers
        ),
    )


def _names(finding: Finding) -> set[str]:
    return {name for scope in (finding.scope, finding.victims) for name in _all(scope)}


def _all(scope: Scope) -> tuple[str, ...]:
    return (*scope.gpus, *scope.nodes, *scope.jobs, *scope.servers, *scope.ports)


def _reached(window: Window, scope: Scope) -> set[str]:
    """The narrowest names of a doubt, and the jobs that run there."""
    narrow = scope.servers or scope.gpus or scope.ports or scope.jobs or scope.nodes
    return set(narrow) | {window.jobs[job].id for job in reach_of(window, scope).jobs}


# --- why ------------------------------------------------------------------------------------------------------------


def _evidence(members: Sequence[Held]) -> tuple[Evidence, ...]:
    """Of the most telling members first, bounded: 30 GPUs say one thing 30 times."""
    found = dict.fromkeys(line for one in members for line in one.candidate.evidence)
    return tuple(found)[:MOST_EVIDENCE]


def _rejected(window: Window, members: Sequence[Held], effects: Sequence[Held]) -> tuple[Rejected, ...]:
    """What detectors themselves rejected, and what is a symptom of this."""
    found = list(dict.fromkeys(line for one in members for line in one.candidate.rejected))
    by_detector: dict[str, list[Held]] = {}
    for effect in effects:
        by_detector.setdefault(effect.candidate.detector, []).append(effect)
    cause = anchor_of(window, members[0].candidate.roots)
    symptoms = [
        Rejected(detector, f"a symptom: {_who(window, theirs)} with {cause} as the cause")
        for detector, theirs in by_detector.items()
    ]
    return (*symptoms, *(line for line in found if line.detector not in by_detector))[:MOST_EVIDENCE]


def _who(window: Window, effects: Sequence[Held]) -> str:
    return counted(_scope(window, effects))
