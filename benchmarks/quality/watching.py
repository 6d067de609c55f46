"""Lets the program watch a made or recorded cluster, and keeps what it found, tick by tick."""

from __future__ import annotations

import math
from collections.abc import AsyncGenerator, Iterable
from dataclasses import dataclass, field

from coldaisle.analyzers.detectors import detectors
from coldaisle.analyzers.diagnosis import Diagnoser
from coldaisle.analyzers.finding import Finding, Severity, Undecided
from coldaisle.analyzers.view import View
from coldaisle.sources.collector import Collector, SteadyClock
from coldaisle.sources.history import History
from coldaisle.sources.racks import RackRules
from coldaisle.sources.registry import Registry
from coldaisle.sources.source import Batch, Item, Rank

TICK_S = 2.0
"""The screen's interval: as late a look may be after the samples that make it due."""


class Told:
    """A source whose items somebody else hands over."""

    name = "told"
    kind = "told"
    rank = Rank.PROMETHEUS

    def __init__(self, interval: float) -> None:
        """Seconds between two samples."""
        self.interval = interval

    async def stream(self) -> AsyncGenerator[Item, None]:
        return
        yield


@dataclass(slots=True)
class Seen:
    """One finding over its life, as somebody watching would have seen it."""

    finding: Finding
    """As it was last."""
    first: float
    """The tick that showed it first."""
    last: float
    worst: Severity
    first_loud: float | None = None
    """The tick that showed it first as a warning or worse."""
    losses: list[tuple[float, float]] = field(default_factory=list)
    """(when, what it said is lost), a tick each."""
    ranks: list[int] = field(default_factory=list)
    """Its place in the list, a tick each."""


@dataclass(slots=True)
class Watched:
    """What came of watching."""

    seen: dict[str, Seen] = field(default_factory=dict)
    """By finding id; one that was cleared and came back is one entry."""
    undecided: dict[tuple[str, str], tuple[float, Undecided]] = field(default_factory=dict)
    """By (detector, scope), when first."""
    gpu_hours: float = 0.0
    ticks: int = 0


def watch(items: Iterable[Item], poll: float, only: frozenset[str] | None = None) -> Watched:
    """Fold the whole diagnosis over items in time order; ``only``: of these detectors.

    As in the program it is looked at what a poll brought when the screen is next due, and once a poll where nothing comes.
    """
    clock = _Clock()
    source = Told(poll)
    collector = Collector([source], History(), Registry({}), clock)
    view = View(collector, "quality", RackRules())
    diagnoser = Diagnoser(view, detectors(only=only))
    supervised = collector.supervised[0]
    watched = Watched()
    due = math.inf
    for item in items:
        if isinstance(item, Batch):
            while item.at > due:
                clock.now = due
                _tick(watched, view, diagnoser, due, poll)
                due += poll
            due = item.at + min(TICK_S, 0.4 * poll)
        collector.take(supervised, item)
    if due < math.inf:
        clock.now = due
        _tick(watched, view, diagnoser, due, poll)
    return watched


class _Clock(SteadyClock):
    """Stands where it is put."""

    def __init__(self) -> None:
        self.now = 0.0
        super().__init__(lambda: self.now, lambda: self.now)

    def __call__(self) -> float:
        return self.now


def _tick(watched: Watched, view: View, diagnoser: Diagnoser, at: float, poll: float) -> None:
    snapshot = view.snapshot(at, None)
    diagnosis = diagnoser.tick(snapshot)
    watched.ticks += 1
    watched.gpu_hours += len(snapshot.layout.boards) * poll / 3600
    for rank, finding in enumerate(diagnosis.findings):
        seen = watched.seen.get(finding.id)
        if seen is None:
            seen = watched.seen[finding.id] = Seen(finding, at, at, finding.severity)
        seen.finding, seen.last = finding, at
        seen.worst = max(seen.worst, finding.severity)
        seen.losses.append((at, finding.loss.fraction))
        seen.ranks.append(rank)
        if finding.severity >= Severity.WARNING and seen.first_loud is None:
            seen.first_loud = at
    for undecided in diagnosis.undecided:
        key = (undecided.detector, repr(undecided.scope))
        watched.undecided.setdefault(key, (at, undecided))
