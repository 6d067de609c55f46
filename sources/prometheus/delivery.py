"""From what answers say to what is told: batches of what is new, and what happened between two instants. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np

from coldaisle.sources.prometheus.answers import Values
from coldaisle.sources.prometheus.tables import Age, Codes, Frame, Mask, Raw, Sheet
from coldaisle.sources.source import Batch, Event, GpuRef, Kind, Missing
from coldaisle.sources.translation import UP


class Scraped(NamedTuple):
    """How the targets of a vocabulary are."""

    ages: Codes
    """[target, instant] of Age"""
    up: Mask
    """[target]: whether the server can scrape it, at the last instant; neither this nor ``down``: not known."""
    down: Mask

    def of(self, frame: Frame) -> Scraped:
        """The same by entity; one of no target is always new."""
        nowhere = np.full((1, self.ages.shape[1]), Age.NEW, np.uint8)
        return Scraped(
            np.concatenate([self.ages, nowhere])[frame.places],
            np.append(self.up, False)[frame.places],
            np.append(self.down, False)[frame.places],
        )


def batches(
    frame: Frame, sheet: Sheet, scraped: Scraped, at: Values, *, is_whole: bool
) -> Iterator[Batch | Event]:
    """What is new at each instant, ``at`` by our clock, and the boards that were lost.

    ``is_whole``: every query was answered, so that a board without a series is not there. ``sheet`` is
    changed; the frame remembers what was told.
    """
    mine = scraped.of(frame)
    for instant, when in enumerate(at.tolist()):
        age, seen = mine.ages[:, instant], sheet.seen[instant]
        values, reasons = sheet.values[instant], sheet.reasons[instant]
        is_last = instant == len(at) - 1
        reasons[age == Age.OLD] = Missing.STALE
        reasons[age == Age.GONE] = Missing.UNREACHABLE
        if is_whole:
            yield from _losses(frame, seen, (age <= Age.TOLD) | (mine.up & is_last), when)
        frame.lost &= ~seen
        frame.ever |= seen
        reasons[frame.lost] = Missing.LOST
        if frame.reasons is not None:  # no new sample is no statement: the last reasons stand
            same = (age == Age.TOLD) & ~frame.lost
            reasons[same] = frame.reasons[same]
        is_new = age == Age.NEW
        values[~is_new] = np.nan
        frame.remember(values)
        if frame.kind is Kind.SERVER and is_last:  # that a server does not answer is a sample of its own
            values[mine.down, frame.metrics.index(UP)] = 0.0
            reasons[mine.down, frame.metrics.index(UP)] = Missing.PRESENT
            is_new = is_new | mine.down
        is_same = frame.reasons is not None and np.array_equal(frame.reasons, reasons)
        if frame.reasons is None or not is_same:
            frame.reasons = reasons
        if frame.entities and frame.metrics and (is_new.any() or not is_same):
            yield Batch(
                when, frame.kind, frame.entities, frame.metrics, values.astype(np.float32), frame.reasons
            )


def _losses(frame: Frame, seen: Mask, answers: Mask, when: float) -> Iterator[Event]:
    """Whole boards that were there and are not, though their target answers."""
    if frame.kind is not Kind.GPU:
        return
    whole = np.array([isinstance(ref, GpuRef) and ref.mig is None for ref in frame.entities], np.bool_)
    lost = answers & whole & frame.ever & ~seen
    for row in np.flatnonzero(lost & ~frame.lost).tolist():
        detail = "the server has no series of it any more, its exporter answers"
        yield Event(when, frame.entities[row], "gpu_lost", detail)
    frame.lost = lost


def events(frame: Frame, raw: Iterable[Raw], scraped: Scraped, at: Values) -> Iterator[Event]:
    """Codes that became another one than 0, counters that rose. The first sight is no event."""
    mine = scraped.of(frame)
    for rule, values in raw:
        before = frame.known.get(rule.key, np.full(len(frame.entities), np.nan)).copy()
        for instant, when in enumerate(at.tolist()):
            now = values[:, instant]
            valid = ~np.isnan(now) & (mine.ages[:, instant] == Age.NEW)
            with np.errstate(invalid="ignore"):
                rises = (now != 0) & (now != before) if rule.sticky else now > before
            for row in np.flatnonzero(valid & ~np.isnan(before) & rises).tolist():
                change = f"{now[row] - before[row]:.0f} more"
                detail = f"{rule.event} {now[row]:.0f}" if rule.sticky else change
                yield Event(when, frame.entities[row], rule.event, detail)
            before[valid] = now[valid]
        frame.known[rule.key] = before
