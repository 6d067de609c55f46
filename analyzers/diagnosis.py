"""From windows to what is wrong: runs the detectors over one instant after another and lets triage fold what they say."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from coldaisle.analyzers.detectors import Ready
from coldaisle.analyzers.finding import Verdict
from coldaisle.analyzers.snapshot import Snapshot
from coldaisle.analyzers.view import View
from coldaisle.analyzers.window import EMPTY_GROUPS, Minutes, Window, groups_of
from coldaisle.sources.cluster import EMPTY
from coldaisle.sources.source import Kind

log = logging.getLogger(__name__)


class Windows:
    """Makes the windows of one view: what follows from the layout, and whole minutes, are kept between them."""

    def __init__(self, view: View) -> None:
        self._view = view
        self._layout = EMPTY
        self._groups = EMPTY_GROUPS
        self._minutes: dict[str, tuple[int, Minutes]] = {}

    def at(self, snapshot: Snapshot) -> Window:
        """The window that ends with a snapshot of the view."""
        if snapshot.layout is not self._layout:
            self._layout, self._groups = snapshot.layout, groups_of(snapshot.layout)
            self._minutes.clear()
        history = self._view.history
        return Window(
            history=history,
            snapshot=snapshot,
            groups=self._groups,
            poll=history.poll(Kind.GPU) or history.poll(Kind.SERVER) or history.poll(Kind.NODE) or 5.0,
            since=history.reach,
            kept_minutes=self._minutes,
            job_rows=self._view.job_rows(snapshot.jobs),
        )


def look(window: Window, detectors: Sequence[Ready]) -> dict[str, Verdict]:
    """What each detector says; one that fails says nothing and is logged: it must not silence the others."""
    verdicts = {}
    for ready in detectors:
        try:
            verdicts[ready.name] = ready.module.detect(window, ready.thresholds)
        except Exception:  # supervision
            log.exception("detector %s failed", ready.name)
            verdicts[ready.name] = Verdict(failed=True)
    return verdicts
