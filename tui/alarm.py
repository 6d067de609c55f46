"""When the bell rings: once for every finding that is new and critical."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from coldaisle.analyzers.finding import Diagnosis, Finding

SETTLE_S = 120.0
"""So long after the first diagnosis what began before the dashboard did is no news: it is on the screen as it opens."""


class Alarm:
    """Which critical findings are news.

    A finding rings once, by its id: not again when it flaps or comes back. One that gets worse rings when it becomes critical.
    What was there at the start does not ring, nor what was acknowledged or snoozed.
    """

    def __init__(self, started_at: float) -> None:
        self._started_at = started_at
        self._first_at: float | None = None
        self._told: set[str] = set()

    def fresh(self, diagnosis: Diagnosis, is_set_aside: Callable[[Finding], bool]) -> list[Finding]:
        """The critical findings that are new in a diagnosis, worst first."""
        from coldaisle.analyzers.finding import Severity

        if self._first_at is None:
            self._first_at = diagnosis.at
        settling = diagnosis.at - self._first_at < SETTLE_S
        found = []
        for one in diagnosis.findings:
            if one.severity is not Severity.CRITICAL or one.id in self._told:
                continue
            self._told.add(one.id)
            known = not self._told.isdisjoint(one.supersedes)
            if not known and not (settling and one.since < self._started_at) and not is_set_aside(one):
                found.append(one)
        return found
