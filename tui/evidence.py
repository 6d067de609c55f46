"""A piece of evidence in words: its value and what it was held against, in the units that people read. Pure, without a screen.

Rules may hold other people's names: everything that leaves here is inert.
"""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING, NamedTuple

from coldaisle.sources.text import plain
from coldaisle.sources.units import show

if TYPE_CHECKING:
    from coldaisle.analyzers.finding import Evidence

MOST_LEVEL = 1e15
"""No metric gets there: what a rule says above it is no level."""
_RULE = re.compile(
    r"(>=|<=|>|<|peers|usual|limit|reference)?\s*([-+]?\d+(?:\.\d+)?(?:[eE][-+]?\d+)?)(?![\d.]|\s*%|\s+of\b)(.*)"
)


class Rule(NamedTuple):
    """What a value was held against, as far as it can be drawn."""

    sign: str
    """``>=``, ``<=``, ``>``, ``<``; another word, or empty: only a level."""
    value: float

    def is_met(self, value: float) -> bool:
        """Whether a value is on the side that speaks for the finding."""
        if value == self.value:
            return self.sign.endswith("=")
        return (self.sign.startswith(">") and value > self.value) or (
            self.sign.startswith("<") and value < self.value
        )


def rule_of(evidence: Evidence) -> Rule | None:
    """The level that a rule names in the metric's own unit; None: it names none."""
    from coldaisle.sources.catalog import catalog

    known = catalog().get(evidence.metric)
    found = _RULE.fullmatch(evidence.rule.strip()[:80])
    if known is None or found is None or known.unit != evidence.unit:
        return None
    value = float(found[2])
    if not found[1] and found[3].strip() not in ("", evidence.unit):
        return None  # "1 h before: 27" is a story, no level
    return Rule(found[1] or "", value) if abs(value) < MOST_LEVEL else None


def rule_words(evidence: Evidence) -> str:
    """``>= 2 %``: in the unit that people read."""
    rule = rule_of(evidence)
    if rule is None:
        return plain(evidence.rule, 40)
    rest = _RULE.fullmatch(evidence.rule.strip()[:80])
    behind = plain(rest[3], 30).rstrip() if rest is not None else ""
    behind = "" if behind.strip() in (evidence.unit, "C", "W", "MHz") else behind
    return f"{rule.sign} {show(rule.value, evidence.unit)}{behind}".strip()


def value_words(evidence: Evidence) -> str:
    """``31 %``; an event's number as it is."""
    if math.isnan(evidence.value):
        return "-"
    if evidence.metric.startswith("event."):
        return f"{evidence.value:.0f}"
    try:
        return show(evidence.value, evidence.unit)
    except (KeyError, ValueError):
        return f"{evidence.value:.4g} {plain(evidence.unit, 12)}".rstrip()


def held_words(evidence: Evidence) -> str:
    """``>= 2 %``; of a value that speaks no more for the finding (it goes on for a while) ``>= 2 %, not now``."""
    rule, words = rule_of(evidence), rule_words(evidence)
    is_past = rule is not None and rule.sign in ("<", "<=", ">", ">=") and not rule.is_met(evidence.value)
    return f"{words}, not now" if is_past and not math.isnan(evidence.value) else words
