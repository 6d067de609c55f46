"""Scenarios: every condition that coldaisle finds and everything that only looks like one, simulated with the truth beside it.

Physics first: what is simulated follows measured fits and how such systems work, never a detector's thresholds.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from coldaisle.sources.simulator.scenarios.episodes import SCENARIOS, piece
from coldaisle.sources.simulator.scenarios.labels import Label, Observed, Scenario
from coldaisle.sources.simulator.scenarios.observing import View
from coldaisle.sources.simulator.scenarios.parts import part_named
from coldaisle.sources.simulator.scenarios.truth import Names, label_of
from coldaisle.sources.simulator.scenarios.world import Stage
from coldaisle.sources.source import Item

__all__ = ["SCENARIOS", "Label", "Observed", "Scenario", "World", "world"]

START = 1_800_000_000.0


class World:
    """Episodes side by side, simulated once."""

    def __init__(self, stage: Stage, start: float) -> None:
        self.start = start
        self.end = start + stage.seconds
        self._stage = stage
        self._names = Names(stage)
        self._recorded = stage.play()
        healthy = stage.play(with_causes=False)
        self.labels = tuple(
            label_of(stage, number, self._recorded, healthy, start, self._names)
            for number in range(len(stage.pieces))
        )

    def items(self, observed: Observed, seed: int = 0) -> Iterator[Item]:
        """What sources would tell of it, in time order."""
        return View(self._stage, self._recorded, self.start, self._names, observed, seed).items()


def world(
    scenarios: Sequence[str],
    seed: int,
    *,
    parts: Sequence[str] = ("H100",),
    minutes: float | None = None,
    start: float = START,
) -> World:
    """One cluster with an episode for each name, on nodes of its own; ``parts``: boards to draw from.

    It lasts as long as the longest scenario needs, or ``minutes``. KeyError names what is no scenario.
    """
    draw = np.random.default_rng((seed, 0))
    pieces = [piece(name, part_named(str(draw.choice(list(parts or ("H100",))))), draw) for name in scenarios]
    lasts = minutes or max(SCENARIOS[name].minutes for name in scenarios)
    return World(Stage(pieces, seed, int(lasts * 60)), start)
