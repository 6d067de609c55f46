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
from coldaisle.sources.simulator.scenarios.world import Stage, label_of, losses
from coldaisle.sources.source import Item

__all__ = ["SCENARIOS", "Label", "Observed", "Scenario", "World", "world"]

START = 1_800_000_000.0


class World:
    """Episodes side by side, simulated once."""

    def __init__(self, stage: Stage, start: float) -> None:
        self.start = start
        self.end = start + stage.seconds
        self._stage = stage
        self._recorded = stage.play()
        healthy = stage.play(with_causes=False, only_progress=True)
        self._racks = tuple(f"r{number + 1:02}" for number in range(len(stage.pieces)))
        self._nodes = tuple(
            f"{rack}n{node + 1:02}"
            for rack, one in zip(self._racks, stage.pieces, strict=True)
            for node in range(one.nodes)
        )
        self._server_names = tuple(self._server_name(p, w) for p, w in stage.servers)
        keys = tuple(f"{name.partition(':')[0]}/{name}" for name in self._server_names)
        lost = losses(stage, self._recorded, healthy)
        self.labels = tuple(
            label_of(stage, number, lost[number], start, self._nodes, self._racks, keys)
            for number in range(len(stage.pieces))
        )

    def _server_name(self, piece_number: int, which: int) -> str:
        node = self._nodes[int(self._stage.server_gpus(piece_number, which)[0]) // 8]
        return f"{node}:{8000 + which}"

    def items(self, observed: Observed, seed: int = 0) -> Iterator[Item]:
        """What sources would tell of it, in time order."""
        return View(
            self._stage,
            self._recorded,
            self.start,
            self._nodes,
            self._racks,
            self._server_names,
            observed,
            seed,
        ).items()


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
