"""Candidates over time: when one opens, how long it is kept, and when it is over.

One look proves nothing, unless what it saw is proof by itself (an XID). A candidate that is open in two looks running opens;
a weaker one keeps it; it closes when nothing was seen of it for two windows, and not before it stood for a minute; a silence
closes at the first word. One that comes back within ten minutes is the same again, and is kept longer each time.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace

from coldaisle.analyzers.finding import Candidate, Severity, Verdict
from coldaisle.analyzers.grouping import APART
from coldaisle.analyzers.reach import reach_of
from coldaisle.analyzers.window import POLLS, SHORTEST_S, Window

LOOKS_TO_OPEN = 2
PATIENCE_S: Mapping[str, float] = {
    "straggler": 45.0, "communication_stall": 15.0, "interconnect_saturation": 30.0, "request_queueing": 15.0,
}  # fmt: skip
"""What is mostly a consequence has to hold longer, so that its cause has been seen before. Engineering choice."""
DWELL_S = 60.0
WINDOWS_TO_CLOSE = 2
FLAP_S = 600.0
MOST_FLAPS = 3
"""Comings and goings after which it is kept no longer than it is then."""
YOUNG_JOB_S = 120.0
"""So long after its start a job loads, compiles and warms up."""
AT_ANY_AGE = frozenset(
    {
        "gpu_fault",
        "telemetry_gap",
        "memory_exhaustion",
        "interconnect_degraded",
        "kv_cache_pressure",
        "request_queueing",
    }
)
"""Conditions that a young job does not excuse."""
OVER_AT_ONCE = frozenset({"telemetry_gap"})
"""Conditions that are over with the first look that does not see them: who tells again is not silent."""
OF_THE_WORK = frozenset(
    {"memory_exhaustion", "data_loader_starvation", "checkpoint_stall", "idle_allocation"}
)
"""Conditions that a job brings to its boards, and that end with it."""
FORGET_S = 3600.0

Key = tuple[str, str, tuple[str, ...]]


@dataclass(slots=True)
class Track:
    """One candidate, by detector and roots, from look to look."""

    key: Key
    candidate: Candidate
    """The newest."""
    since: float
    """The earliest beginning that was told of while it stood."""
    since_bound: bool
    seen_at: float
    looks: int = 0
    """In which it was open, running."""
    strong_at: float = 0.0
    """When the first of them was."""
    opened_at: float | None = None
    """None: it is not open."""
    closed_at: float | None = None
    flaps: int = 0
    cause: Key | None = None
    """The track that explains it, as of the last look; what is not seen any more is over with its cause."""
    severity: Severity = Severity.INFO
    """The worst of the last window: what wavers about a limit does not waver on the screen."""
    severe_at: float = 0.0

    @property
    def is_open(self) -> bool:
        return self.opened_at is not None


@dataclass(slots=True)
class Tracks:
    """All of them."""

    by_key: dict[Key, Track] = field(default_factory=dict)

    def follow(self, window: Window, verdicts: Mapping[str, Verdict]) -> list[Track]:
        """Take in what was said in one look; those that are open then."""
        at, span = window.at, max(SHORTEST_S, POLLS * window.poll)
        for candidate in _strongest(_admitted(window, verdicts)).values():
            self._see(candidate, window, span)
        failed = {name for name, verdict in verdicts.items() if verdict.failed}
        for track in list(self.by_key.values()):
            if track.key[0] in failed:
                track.seen_at = at
            elif track.seen_at < at:
                track.looks = 0
                self._miss(track, window, span)
        for track in self.by_key.values():
            if track.is_open and track.seen_at < at and self._is_over(track.cause):
                track.opened_at, track.closed_at, track.cause = None, None, None
        return [track for track in self.by_key.values() if track.is_open]

    def shift(self, seconds: float) -> None:
        """Our clock was set: what is known moves with it."""
        for track in self.by_key.values():
            track.since += seconds
            track.seen_at += seconds
            track.severe_at += seconds
            track.strong_at += seconds
            track.opened_at = None if track.opened_at is None else track.opened_at + seconds
            track.closed_at = None if track.closed_at is None else track.closed_at + seconds

    def _see(self, candidate: Candidate, window: Window, span: float) -> None:
        key, at = key_of(candidate), window.at
        track = self.by_key.get(key)
        if track is None:
            if not candidate.is_open:
                return
            track = self.by_key[key] = Track(
                key,
                candidate,
                candidate.since,
                candidate.since_bound,
                at,
                severity=candidate.severity,
                severe_at=at,
            )
        track.candidate, track.seen_at = candidate, at
        track.looks = track.looks + 1 if candidate.is_open else 0
        if track.looks == 1:
            track.strong_at = at
        if candidate.severity >= track.severity or at - track.severe_at > span:
            track.severity, track.severe_at = candidate.severity, at
        if track.is_open:
            if candidate.since < track.since:
                track.since, track.since_bound = candidate.since, candidate.since_bound
            return
        track.since, track.since_bound = candidate.since, candidate.since_bound
        if _has_held(track, window) or (candidate.is_open and candidate.is_immediate):
            came_back = track.closed_at is not None and at - track.closed_at <= FLAP_S
            track.flaps = track.flaps + 1 if came_back else 0
            track.opened_at, track.closed_at = at, None
            track.severity, track.severe_at = candidate.severity, at

    def _is_over(self, cause: Key | None) -> bool:
        return cause is not None and (cause not in self.by_key or not self.by_key[cause].is_open)

    def _miss(self, track: Track, window: Window, span: float) -> None:
        at = window.at
        if not track.is_open:
            if at - max(track.closed_at or track.seen_at, track.seen_at) > FORGET_S:
                del self.by_key[track.key]
            return
        assert track.opened_at is not None
        wait = DWELL_S if track.candidate.is_immediate else WINDOWS_TO_CLOSE * span
        wait *= 1 + min(track.flaps, MOST_FLAPS)
        if _is_gone(track, window) or (track.key[0] in OVER_AT_ONCE and not track.flaps):
            wait = 0.0
        if at - track.seen_at >= wait and at - track.opened_at >= min(DWELL_S, wait):
            track.opened_at, track.closed_at = None, at


def _has_held(track: Track, window: Window) -> bool:
    """Whether it was open for as long as it takes: in whole polls, the nearest, for nothing new is seen between two of them."""
    held = window.at - track.strong_at + 0.5 * window.poll
    return track.looks >= LOOKS_TO_OPEN and held >= PATIENCE_S.get(track.key[0], 0.0)


def key_of(candidate: Candidate) -> Key:
    """The same for as long as it is the same thing at the same place."""
    roots = candidate.roots
    # of a job's candidate the job, of a server's the server: its nodes and GPUs may change
    job = roots.jobs if len(roots.gpus) != 1 else ()
    names = roots.servers or job or roots.gpus or roots.ports or roots.nodes or roots.racks
    return candidate.detector, candidate.variant if candidate.detector in APART else "", names


def _admitted(window: Window, verdicts: Mapping[str, Verdict]) -> Iterator[Candidate]:
    has_young = any(window.at - job.since <= YOUNG_JOB_S for job in window.jobs)
    for verdict in verdicts.values():
        for candidate in verdict.candidates:
            is_excused = has_young and candidate.detector not in AT_ANY_AGE and not candidate.is_immediate
            if not (is_excused and _is_young(window, candidate)):
                yield candidate


def _is_young(window: Window, candidate: Candidate) -> bool:
    """Whether all the jobs that it touches have only just begun."""
    jobs = reach_of(window, candidate.roots).jobs
    return bool(jobs) and all(window.at - window.jobs[job].since <= YOUNG_JOB_S for job in jobs)


def _strongest(candidates: Iterable[Candidate]) -> dict[Key, Candidate]:
    """One for each thing: the most severe of those that a detector says of it, with the evidence of all."""
    found: dict[Key, Candidate] = {}
    for one in candidates:
        key = key_of(one)
        known = found.get(key)
        if known is None:
            found[key] = one
            continue
        first, second = sorted((known, one), key=lambda c: (-c.is_open, -c.severity, -c.loss))
        found[key] = replace(first, evidence=tuple(dict.fromkeys(first.evidence + second.evidence)))
    return found


def _is_gone(track: Track, window: Window) -> bool:
    """Whether the job that it is about has ended; where boards alone are told of: whether all of them have new ones."""
    roots = track.candidate.roots
    if roots.jobs:
        return not any(job.id in roots.jobs for job in window.jobs)
    if track.key[0] not in OF_THE_WORK:
        return False
    boards = [window.layout.gpu_of[key] for key in roots.gpus if key in window.layout.gpu_of]
    return bool(boards) and bool((window.held_since[boards] > track.seen_at).all())
