"""From windows to what is wrong: runs the detectors over one instant after another and lets triage fold what they say.

The cluster is looked at when it was sampled, not when it is painted: at most once a poll, and at least once a minute,
so that what falls silent is noticed.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import tzinfo

import numpy as np

from coldaisle.analyzers.detectors import Ready
from coldaisle.analyzers.finding import NO_DIAGNOSIS, Diagnosis, JobClass, Verdict
from coldaisle.analyzers.jobclass import classify
from coldaisle.analyzers.past import Replay
from coldaisle.analyzers.readings import seconds_between
from coldaisle.analyzers.snapshot import Snapshot
from coldaisle.analyzers.triage import Triage
from coldaisle.analyzers.view import View
from coldaisle.analyzers.window import EMPTY_GROUPS, Minutes, Window, groups_of
from coldaisle.sources.cluster import EMPTY
from coldaisle.sources.source import Kind

log = logging.getLogger(__name__)

SLOWEST_LOOK_S = 60.0
"""The cluster is looked at so often also where nothing new comes."""
USUAL_POLL_S = 5.0
RECENT_LOOKS = 24
"""Of the newest instants of a span, none of which is left out: three windows of eight polls."""
READING_S = 60.0
"""So often the pace at which boards are read is learnt anew."""
EARLY = 0.75
"""Of a poll: samples that come so early are the next poll's."""


class Windows:
    """Makes the windows of one view: what follows from the layout, and whole minutes, are kept between them."""

    def __init__(self, view: View) -> None:
        self._view = view
        self._layout = EMPTY
        self._groups = EMPTY_GROUPS
        self._minutes: dict[str, tuple[int, Minutes]] = {}
        self._reading = 0.0
        self._reading_of = -1.0

    @property
    def poll(self) -> float:
        """Seconds between two looks at the cluster."""
        history = self._view.history
        return history.poll(Kind.GPU) or history.poll(Kind.SERVER) or history.poll(Kind.NODE) or USUAL_POLL_S

    def forget(self) -> None:
        """The minutes that were kept: more of the past has become known."""
        self._minutes.clear()

    def at(self, snapshot: Snapshot) -> Window:
        """The window that ends with a snapshot of the view."""
        if snapshot.layout is not self._layout:
            self._layout, self._groups = snapshot.layout, groups_of(snapshot.layout)
            self._minutes.clear()
        history = self._view.history
        window = Window(
            history=history,
            snapshot=snapshot,
            groups=self._groups,
            poll=self.poll,
            since=history.reach,
            kept_minutes=self._minutes,
            job_rows=self._view.job_rows(snapshot.jobs),
        )
        if (minute := snapshot.at // READING_S) != self._reading_of:
            self._reading_of = minute
            self._reading = known if (known := seconds_between(window)) is not None else self._reading
        if self._reading:
            return replace(window, reading=self._reading, poll=max(window.poll, self._reading))
        return window


def look(window: Window, detectors: Sequence[Ready]) -> dict[str, Verdict]:
    """What each detector says; one that fails says nothing and is logged: it must not silence the others."""
    return {ready.name: verdict_of(ready, window) for ready in detectors}


def verdict_of(ready: Ready, window: Window) -> Verdict:
    """What one detector says; see :func:`look`."""
    try:
        # Readings are other people's: a limit of 0 W gives an infinite share, and comparisons with NaN are False, as is meant.
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            return ready.module.detect(window, ready.thresholds)
    except Exception:  # supervision
        log.exception("detector %s failed", ready.name)
        return Verdict(failed=True)


class Diagnoser:
    """The diagnosis of one view, look by look. Lives where the view does: on the monitor's loop."""

    def __init__(self, view: View, detectors: Sequence[Ready], zone: tzinfo | None = None) -> None:
        """``zone``: of the times that findings tell of; None: this machine's."""
        self.view = view
        self.triage = Triage(zone, classes_of)
        self.newest: Diagnosis = NO_DIAGNOSIS
        self.look_s = 0.0
        """Wall time of the last look."""
        self.detectors = tuple(detectors)
        self._windows = Windows(view)
        self._looked_at = float("-inf")
        self._sampled_at = float("-inf")

    @property
    def poll(self) -> float:
        """Seconds between two looks, as learnt."""
        return self._windows.poll

    def is_due(self, now: float) -> bool:
        """Whether the cluster was sampled since the last look, a poll ago, or that was long ago."""
        if now < self._looked_at or now - self._looked_at >= SLOWEST_LOOK_S:
            return True
        is_early = now - self._looked_at < EARLY * self.poll
        return not is_early and self._newest_sample() > self._sampled_at

    def tick(self, snapshot: Snapshot) -> Diagnosis:
        """Look at once, and fold what is seen."""
        began = time.perf_counter()
        window = self._begin(snapshot)
        return self._end(window, look(window, self.detectors), time.perf_counter() - began)

    async def look(self, snapshot: Snapshot) -> Diagnosis:
        """The same, giving way to others between detectors."""
        spent, verdicts = 0.0, {}
        began = time.perf_counter()
        window = self._begin(snapshot)
        for ready in self.detectors:
            spent += time.perf_counter() - began
            await asyncio.sleep(0)
            began = time.perf_counter()
            verdicts[ready.name] = verdict_of(ready, window)
        spent += time.perf_counter() - began
        return self._end(window, verdicts, spent)

    def go_on_from(self, other: Diagnoser) -> None:
        """Take over what another has folded: of the same cluster, up to a moment ago."""
        self.triage, self.newest = other.triage, other.newest
        self._windows.forget()

    def shift(self, seconds: float) -> None:
        """Our clock was set: the past moves with it."""
        self.triage.shift(seconds)
        self.newest = replace(self.newest, at=self.newest.at + seconds) if self.newest.at else self.newest
        self._looked_at += seconds
        self._sampled_at += seconds

    def _begin(self, snapshot: Snapshot) -> Window:
        self._looked_at, self._sampled_at = snapshot.at, self._newest_sample()
        return self._windows.at(snapshot)

    def _end(self, window: Window, verdicts: Mapping[str, Verdict], spent: float) -> Diagnosis:
        began = time.perf_counter()
        self.newest = self.triage.fold(window, verdicts)
        self.look_s = spent + time.perf_counter() - began
        return self.newest

    def _newest_sample(self) -> float:
        history = self.view.history
        times = (history.newest(supervised.number) for supervised in self.view.collector.supervised)
        return max((at for at in times if at is not None), default=float("-inf"))


def classes_of(window: Window) -> Mapping[str, JobClass]:
    """What each job does; a mistake there silences nothing else."""
    try:
        return classify(window)
    except Exception:  # supervision
        log.exception("jobs could not be classified")
        return {}


async def fold_over(
    replay: Replay,
    diagnoser: Diagnoser,
    whole: Sequence[float],
    *,
    most: float = math.inf,
    seen: Callable[[Diagnosis], None] | None = None,
) -> None:
    """Look at a span's instants, one after another, in slices; ``replay`` tells the collector of the diagnoser's view.

    Where the looks, times the GPUs looked at, are more than ``most``, older ones are left out: by size, not by time, so that
    the same is found every time. ``seen`` is told each diagnosis.
    """
    stride = 1
    for number, at in enumerate(whole):
        if number % stride and number < len(whole) - RECENT_LOOKS:
            continue
        await replay.go(at)
        snapshot = diagnoser.view.snapshot(at, None, live=False)
        diagnosis = await diagnoser.look(snapshot)
        stride = max(1, round(len(snapshot.layout.gpus) * len(whole) / most))
        if seen is not None:
            seen(diagnosis)


def instants(start: float, end: float, step: float) -> list[float]:
    """From ``start`` to ``end``, a step apart, the last one at the end."""
    count = int((end - start) / step + 1e-6)
    return [end - step * number for number in range(count, -1, -1)]
