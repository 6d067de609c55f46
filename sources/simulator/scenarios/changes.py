"""Causes in time: which array each of them changes, from when, how far."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from coldaisle.sources.simulator.plan import Array, Ints
from coldaisle.sources.simulator.scenarios.parts import Boards, cooling_for, hbm_for, inlet_for
from coldaisle.sources.simulator.scenarios.pieces import SLOTS, Cause, Piece
from coldaisle.sources.simulator.scenarios.serving import Server
from coldaisle.sources.simulator.scenarios.work import JOB_CONDITIONS, Conditions, Crew, Phase


@dataclass(frozen=True, slots=True, eq=False)
class Place:
    """Where a piece is in the world."""

    number: int
    gpus: Ints
    held: Ints
    """GPUs on which its job has processes."""
    servers: tuple[int, ...]


@dataclass(slots=True, eq=False)
class Rest:
    """What changes besides boards and jobs."""

    memory: Array
    """[gpu] share of its memory"""
    host_memory: Array
    """[node]"""
    arrivals: Array
    """[server] factors"""
    length: Array


def rest(pieces: Sequence[Piece], places: Sequence[Place], gpus: int, servers: int) -> Rest:
    """As it is in the beginning."""
    memory = np.zeros(gpus)
    for piece, place in zip(pieces, places, strict=True):
        if piece.program is not None:
            memory[place.held] = piece.memory
    return Rest(memory, np.full(gpus // SLOTS, 0.25), np.ones(servers), np.ones(servers))


@dataclass(slots=True, eq=False)
class _Change:
    cause: Cause
    array: NDArray[Any]
    index: Ints
    target: Array
    before: NDArray[Any] | None = None

    def apply(self, time: float) -> bool:
        """Whether nothing is left to do."""
        cause = self.cause
        if self.before is None:
            self.before = self.array[self.index].copy()
        if time >= cause.end:
            self.array[self.index] = self.before
            return True
        if cause.ramp > 0 and time < cause.start + cause.ramp:
            share = (time - cause.start) / cause.ramp
            self.array[self.index] = self.before + share * (self.target - self.before)
            return False
        self.array[self.index] = self.target
        return bool(np.isinf(cause.end))


@dataclass(slots=True, eq=False)
class Changes:
    """All causes of a world."""

    boards: Boards
    conditions: Conditions
    crew: Crew
    rest: Rest
    servers: Sequence[Server]
    waiting: list[tuple[Cause, Place]]
    _going: list[_Change] = field(default_factory=list)

    def apply(self, time: float) -> None:
        """What is due."""
        due = [pair for pair in self.waiting if time >= pair[0].start]
        if due:
            self.waiting = [pair for pair in self.waiting if time < pair[0].start]
            for cause, place in due:
                self._begin(cause, place)
        if self._going:
            self._going = [change for change in self._going if not change.apply(time)]
            for number, server in enumerate(self.servers):
                server.arrivals, server.length = self.rest.arrivals[number], self.rest.length[number]

    def _begin(self, cause: Cause, place: Place) -> None:
        if cause.what == "phase":
            self.crew.phase[place.number] = int(cause.value)
            self.crew.left[place.number] = 0.0 if cause.value == Phase.LOAD else np.inf
            return
        array, index = self._subject(cause, place)
        self._going.append(_Change(cause, array, index, self._target(cause, index)))

    def _subject(self, cause: Cause, place: Place) -> tuple[NDArray[Any], Ints]:
        gpus = place.gpus if cause.where is None else place.gpus[list(cause.where)]
        what = _MEANT.get(cause.what, cause.what)
        if what in JOB_CONDITIONS:
            return getattr(self.conditions, what), np.array([place.number])
        if what in ("arrivals", "length"):
            which = range(len(place.servers)) if cause.where is None else cause.where
            return getattr(self.rest, what), np.array([place.servers[w] for w in which])
        if what == "host_memory":
            return self.rest.host_memory, np.unique(gpus // SLOTS)
        if what == "memory":
            return self.rest.memory, gpus
        owner = self.boards if hasattr(self.boards, what) else self.conditions
        return getattr(owner, what), gpus

    def _target(self, cause: Cause, index: Ints) -> Array:
        b, value = self.boards, cause.value
        match cause.what:
            case "limit":
                target: Array = value * b.power_max[index]
            case "app_clock" | "lame_clock":
                target = np.round(value * b.clock_max[index] / 15) * 15
            case "overheat":
                target = cooling_for(b, value)[index]
            case "hbm_overheat":
                target = hbm_for(b, value)[index]
            case "hottest":
                target = np.full(len(index), inlet_for(b, index, value))
            case _:
                target = np.full(len(index), value)
        return target


_MEANT = {"overheat": "cooling", "hbm_overheat": "hbm", "hottest": "inlet"}
"""Causes whose strength is told by what comes of it."""
