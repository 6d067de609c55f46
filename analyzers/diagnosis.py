"""From windows to what is wrong: runs the detectors over one instant after another and lets triage fold what they say."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Mapping, Sequence
from importlib import import_module
from importlib.util import find_spec

from coldaisle.analyzers.detectors import Ready
from coldaisle.analyzers.finding import NO_DIAGNOSIS, Diagnosis, JobClass, Verdict
from coldaisle.analyzers.snapshot import Snapshot
from coldaisle.analyzers.triage import Triage
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
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", RuntimeWarning)  # means of nothing are NaN, and meant so
                verdicts[ready.name] = ready.module.detect(window, ready.thresholds)
        except Exception:  # supervision
            log.exception("detector %s failed", ready.name)
            verdicts[ready.name] = Verdict(failed=True)
    return verdicts


class Diagnoser:
    """The diagnosis of one view, folded over its instants."""

    def __init__(self, view: View, detectors: Sequence[Ready]) -> None:
        self._windows = Windows(view)
        self._detectors = detectors
        self._triage = Triage()
        self.last = NO_DIAGNOSIS

    def tick(self, snapshot: Snapshot) -> Diagnosis:
        """What is wrong at the instant of a snapshot, which is no earlier than the last one."""
        window = self._windows.at(snapshot)
        self.last = self._triage.fold(window, look(window, self._detectors), _classes(window))
        return self.last

    def is_due(self, at: float, poll: float) -> bool:
        """Whether enough has come in since the last look for another one."""
        return at - self.last.at >= min(max(poll, 1.0), 60.0) * 0.9

    def shift(self, seconds: float) -> None:
        """Our clock was set."""
        self._triage.shift(seconds)


def _classes(window: Window) -> Mapping[str, JobClass]:
    if find_spec("coldaisle.analyzers.jobclass") is None:
        return {}
    try:
        found: Mapping[str, JobClass] = import_module("coldaisle.analyzers.jobclass").classify(window)
    except Exception:  # supervision
        log.exception("jobs could not be classified")
        return {}
    return found
