"""Holds what was found against what was so.

A finding counts for a label when it is of the label's condition, stands while the label's cause acts (or shortly after),
and touches its entities. What counts as found is what a pager would get: a warning or worse, and anything at all where the
label's true loss is below a tenth. Every warning that touches no label of its condition is false, also when it is a true
condition's symptom: that is the matched negative. "Cannot tell" is an abstention, counted apart, and excused only where a
signal that the label needs was taken away.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from statistics import median

from benchmarks.quality.watching import Seen, Watched
from coldaisle.analyzers.finding import Finding, Scope
from coldaisle.sources.simulator.scenarios import Label

GRACE_S = 120.0
"""A finding that opens so soon after a cause has ended is about that cause."""
GRACE_POLLS = 8
QUIET_LOSS = 0.10
"""Under it a finding of any severity is right, and none at all is no mistake (Label.is_weak)."""


@dataclass(slots=True)
class Tally:
    """Counts of one condition."""

    right: int = 0
    missed: int = 0
    abstained: int = 0
    excused: int = 0
    """Abstained where a signal that is needed was taken away."""
    false: int = 0
    top: int = 0
    """Labels with look-alikes whose first finding was the right one."""
    ranked: int = 0
    delays: list[float] = field(default_factory=list)
    """Seconds beyond the instant at which its effect began to show."""
    delays_polls: list[float] = field(default_factory=list)
    errors: list[float] = field(default_factory=list)
    """|loss said - true loss|"""
    mistakes: list[str] = field(default_factory=list)

    def add(self, other: Tally) -> None:
        """Of another world or seed."""
        for name in ("right", "missed", "abstained", "excused", "false", "top", "ranked"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.delays += other.delays
        self.delays_polls += other.delays_polls
        self.errors += other.errors
        self.mistakes += other.mistakes

    @property
    def precision(self) -> float:
        """NaN: nothing was found."""
        return _ratio(self.right, self.right + self.false)

    @property
    def recall(self) -> float:
        """NaN: there was nothing to find."""
        return _ratio(self.right, self.right + self.missed + self.abstained)

    @property
    def f1(self) -> float:
        """The harmonic mean of the two."""
        return _ratio(2 * self.right, 2 * self.right + self.false + self.missed + self.abstained)


def score(
    watched: Watched, labels: Sequence[Label], poll: float, missing: Collection[str]
) -> dict[str, Tally]:
    """By condition. ``missing``: groups of signals that were taken away (``profiling``, ``host``)."""
    tallies: dict[str, Tally] = defaultdict(Tally)
    positives = [label for label in labels if label.condition]
    grace = max(GRACE_S, GRACE_POLLS * poll)
    used: set[str] = set()
    for label in positives:
        about = [(key, seen) for key, seen in watched.seen.items() if _is_about(seen, label, grace)]
        used.update(key for key, _ in about)
        if not label.is_weak:
            _score_label(
                tallies[label.condition], label, [seen for _, seen in about], watched, poll, missing, grace
            )
    for key, seen in watched.seen.items():
        if key not in used and seen.first_loud is not None:
            tally = tallies[seen.finding.detector]
            tally.false += 1
            tally.mistakes.append(f"FALSE {key} {_scenarios(seen, labels)}: {seen.finding.title}")
    return tallies


def _score_label(
    tally: Tally,
    label: Label,
    about: Sequence[Seen],
    watched: Watched,
    poll: float,
    missing: Collection[str],
    grace: float,
) -> None:
    loud = [seen for seen in about if seen.first_loud is not None or label.loss < QUIET_LOSS]
    if loud:
        tally.right += 1
        delay = max(min(seen.first for seen in loud) - label.told_at(poll), 0.0)
        tally.delays.append(delay)
        tally.delays_polls.append(delay / poll)
        said = max(loud, key=lambda seen: seen.last - seen.first)
        # of the second half of the time in which the cause acts: what it says afterwards is not what that cost
        losses = [loss for at, loss in said.losses if at <= label.acts_until]
        if losses and not math.isnan(label.loss):
            tally.errors.append(abs(median(losses[len(losses) // 2 :]) - label.loss))
    elif _abstained(watched, label, grace):
        if set(label.needs) & set(missing):
            tally.excused += 1
        else:
            tally.abstained += 1
            tally.mistakes.append(f"ABSTAINED {label.scenario} {label.variant}")
    else:
        if set(label.needs) & set(missing):
            tally.excused += 1
        else:
            tally.missed += 1
            tally.mistakes.append(
                f"MISSED {label.scenario} {label.variant} {label.jobs or label.gpus[:1] or label.servers}"
            )
    if label.lookalike_of and (loud or not set(label.needs) & set(missing)):
        touching = [
            seen
            for seen in watched.seen.values()
            if _overlaps(seen, label, grace) and _touches(seen.finding, label)
        ]
        if touching:
            tally.ranked += 1
            best = min(touching, key=lambda seen: (-seen.worst, median(seen.ranks), seen.first))
            tally.top += best.finding.detector == label.condition


def _is_about(seen: Seen, label: Label, grace: float) -> bool:
    return (
        seen.finding.detector == label.condition
        and _overlaps(seen, label, grace)
        and _touches(seen.finding, label)
    )


def _overlaps(seen: Seen, label: Label, grace: float) -> bool:
    return seen.first <= label.end + grace and seen.last >= label.start


def _touches(finding: Finding, label: Label) -> bool:
    """Whether a finding's scope holds anything of what a label is about."""
    return bool(_entities(finding.scope) & _label_entities(label))


def _entities(scope: Scope) -> set[str]:
    return {
        *scope.gpus,
        *scope.nodes,
        *scope.jobs,
        *scope.servers,
        *scope.racks,
        *(p.rpartition("/")[0] for p in scope.ports),
    }


def _label_entities(label: Label) -> set[str]:
    of_gpus = {gpu.partition("/")[0] for gpu in label.gpus}
    return {*label.gpus, *label.nodes, *label.jobs, *label.servers, *label.racks, *of_gpus}


def _abstained(watched: Watched, label: Label, grace: float) -> bool:
    return any(
        undecided.detector == label.condition
        and at <= label.end + grace
        and _entities(undecided.scope) & _label_entities(label)
        for at, undecided in watched.undecided.values()
    )


def _scenarios(seen: Seen, labels: Iterable[Label]) -> str:
    """In which scenarios a finding was made, for whoever mends the detectors."""
    names = {
        label.scenario
        for label in labels
        if _entities(seen.finding.scope) & {*_label_entities(label), *label.victims}
    }
    return f"in {', '.join(sorted(names)) or 'nothing labelled'}"


def _ratio(part: float, whole: float) -> float:
    return part / whole if whole else math.nan
