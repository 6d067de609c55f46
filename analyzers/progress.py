"""How fast a team gets on, seen from outside: by what its GPUs do only while they compute, against its own past.

Tensor activity is zero while ranks wait for each other or for data; power above what a spinning collective draws says
the same, less sharply. The reference is the team's own best minutes.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from coldaisle.analyzers.features import idle_power, power_limit, usual_clock
from coldaisle.analyzers.teams import Teams, teams
from coldaisle.analyzers.window import Bools, Window, mean, quantile
from coldaisle.sources.cluster import Rows
from coldaisle.sources.source import Floats

SPIN_SHARE = 0.075
"""Power above context idle of a GPU that spins in a collective, of the room up to the limit (22 to 58 W of 580, measured)."""
LEAST_MINUTES = 4
"""Of its past, to hold anything against it."""
START_MINUTES = 2
"""Of a job's beginning that are no reference."""


class Progress(NamedTuple):
    """[team] each."""

    now: Floats
    """Work a second over the last minutes, in units of its own."""
    reference: Floats
    """The same in its best minutes; NaN: it has none yet."""

    @property
    def lost(self) -> Floats:
        """Of its work: 0..1; NaN: nothing to hold it against."""
        with np.errstate(invalid="ignore", divide="ignore"):
            lost: Floats = np.clip(1 - self.now / self.reference, 0.0, 1.0)
        return lost


def progress(window: Window, seconds: float = 120.0) -> Progress:
    """Of every team."""
    return window.cached(("progress", seconds), lambda: _progress(window, seconds))


def team_of(window: Window, gpu: int) -> int:
    """The team of a GPU; -1: none."""
    return int(teams(window).of[gpu])


def lost_by(window: Window, gpu: int) -> float:
    """Share of its own best pace that the team of a GPU has lost; NaN: not known."""
    team = team_of(window, gpu)
    return float(progress(window).lost[team]) if team >= 0 else float("nan")


def progress_without(window: Window, gpus: Rows, seconds: float) -> Progress:
    """The same of those of each team beside ``gpus``: a rank that is slow computes for longer in every step, not more."""
    others = np.ones(len(window.layout.gpus), dtype=np.bool_)
    others[gpus] = False
    return _progress(window, seconds, others)


def _progress(window: Window, seconds: float, counts: Bools | None = None) -> Progress:
    """``counts``: [gpu] whose work is looked at; None: everybody's."""
    team = teams(window)
    if not len(team):
        nothing = np.zeros(0, dtype=np.float32)
        return Progress(nothing, nothing)

    def of_teams(now: Floats, past: Floats) -> tuple[Floats, Floats]:
        if counts is not None:
            now, past = (np.where(counts, values, np.float32(np.nan)) for values in (now, past))
        return team.mean(now[None])[0], team.mean(past)

    now, past = of_teams(*_work(window, "gpu.power", seconds))
    if window.has("gpu.tensor_active"):
        sharp, sharp_past = of_teams(*_work(window, "gpu.tensor_active", seconds))
        # Not every program uses tensor cores.
        uses = np.fmax.reduce(np.nan_to_num(sharp_past), axis=0, initial=0.0) > 0.02
        now, past = np.where(uses, sharp, now), np.where(uses, sharp_past, past)
    past = since_start(window, team, past)
    reference = np.where((~np.isnan(past)).sum(axis=0) >= LEAST_MINUTES, quantile(past, 0.85), np.nan)
    return Progress(now.astype(np.float32), reference.astype(np.float32))


def _work(window: Window, key: str, seconds: float) -> tuple[Floats, Floats]:
    """[gpu] work over the last seconds, and [minute, gpu] in the minutes before."""
    now, past = mean(window.recent(key, seconds).values), window.minutes(key).mean
    if key != "gpu.power":
        return now, past
    idle, room = idle_power(window), np.maximum(power_limit(window) - idle_power(window), 1.0)
    now, past = (np.maximum((v - idle) / room - SPIN_SHARE, 0.0) for v in (now, past))
    return now, past


def since_start(window: Window, team: Teams, minutes: Floats) -> Floats:
    """[minute, team] without what lies before a job's third minute."""
    number = window.at // 60 - len(minutes) + np.arange(len(minutes))
    first = number[np.argmax(~np.isnan(minutes), axis=0)] if len(minutes) else np.zeros(len(team))
    # A job that was there when its boards were heard first may be days old.
    known = np.where(team.since // 60 > first, team.since // 60, np.nan)
    starts = np.nan_to_num(known, nan=-np.inf) + START_MINUTES
    return np.where(number[:, None] > starts[None, :], minutes, np.nan).astype(np.float32)


def _known_from(window: Window, team: int) -> float:
    """From when on a team's minutes are a reference."""
    start = float(teams(window).since[team]) + 60.0 * START_MINUTES
    return window.since if np.isnan(start) else max(window.since, start)


def slowed(window: Window, gpu: int, alone: float, is_slow: Bools, since: float) -> float:
    """Share of its team's work lost to boards that are slow for their clock.

    ``alone``: what a board loses by itself; ``is_slow``: [gpu] which boards are; ``since``: when it began. Where
    few of a team's boards are slow the others wait, and the team's pace tells how much that costs; where most are, all
    compute as much of the time as before, only slower.
    """
    team = team_of(window, gpu)
    if not window.has("gpu.tensor_active"):
        return alone  # power alone tells the pace too roughly for that
    lost = _lost_with_clocks(window, team, is_slow) if team >= 0 else float("nan")
    if np.isnan(lost) or is_slow[teams(window).members(team)].mean() > 0.5:
        return alone
    if since < _known_from(window, team) + 60.0 * LEAST_MINUTES:
        return alone  # its best pace is a slow one
    return float(min(lost, alone + 0.1))


def _lost_with_clocks(window: Window, team: int, is_slow: Bools) -> float:
    """Share of its best pace that a team has lost. Tensor activity is a share of cycles: of boards whose clock is slow each counts
    for as much as that is of their usual one."""
    members = teams(window).members(team)
    clock = (mean(window.recent("gpu.sm_clock", 120.0).values) / usual_clock(window))[members]
    counts = np.where(is_slow[members] & (clock < 1), clock, 1.0)
    active = mean(window.recent("gpu.tensor_active", 120.0).values)[members]
    told = ~np.isnan(active)
    kept = float((active * counts)[told].sum() / active[told].sum()) if active[told].sum() > 0 else 1.0
    return float(1 - (1 - progress(window).lost[team]) * kept)
