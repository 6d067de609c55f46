"""Questions at an instant, or on a grid of instants, in one form; with what was said beside the answers."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from coldaisle.sources.prometheus.answers import Labels, Listed, Querier, Values


class Series(NamedTuple):
    """An answer on a grid."""

    labels: Sequence[Labels]
    values: Values
    """[series, instant]"""


@dataclass(slots=True)
class Remarks:
    """What answers were like since somebody last looked."""

    warnings: dict[str, None] = field(default_factory=dict)
    took: list[float] = field(default_factory=list)
    """Seconds of each query."""

    def warn(self, warnings: Iterable[str]) -> None:
        """Keep what says that an answer is not whole."""
        self.warnings |= dict.fromkeys(text for text in warnings if not _is_advice(text))


@dataclass(frozen=True, slots=True)
class Asker:
    """Asks a server at ``times`` (by its clock, evenly spaced). Raises SourceError."""

    querier: Querier
    times: Values
    remarks: Remarks

    @property
    def start(self) -> float:
        return float(self.times[0])

    @property
    def end(self) -> float:
        return float(self.times[-1])

    async def ask(self, promql: str) -> Series:
        """The answer at all times."""
        begun = time.monotonic()
        if len(self.times) == 1:
            vector = await self.querier.instant(promql, self.start)
            labels, values, warnings = vector.labels, vector.values[:, None], vector.warnings
        else:
            step = float(self.times[1] - self.times[0])
            matrix = await self.querier.range(promql, self.start, self.end + step / 2, step)
            labels, values, warnings = matrix.labels, matrix.values, matrix.warnings
        self.remarks.took.append(time.monotonic() - begun)
        self.remarks.warn(warnings)
        return Series(labels, values.reshape(len(labels), len(self.times)))

    async def names(self, label: str, match: str) -> frozenset[str]:
        """Values of a label among these series; ``__name__``: metric names."""
        return self._heard(await self.querier.names(label, [match], self.start, self.end))

    async def labels(self, match: str) -> frozenset[str]:
        """Label names of these series."""
        return self._heard(await self.querier.labels([match], self.start, self.end))

    def _heard(self, listed: Listed) -> frozenset[str]:
        self.remarks.warn(listed.warnings)
        return frozenset(listed.names)

    def coarser(self, most: int) -> Asker:
        """The same span at no more than ``most`` instants."""
        if len(self.times) <= most:
            return self
        if most == 1:
            return Asker(self.querier, self.times[-1:], self.remarks)
        step = (self.end - self.start) / (most - 1)
        return Asker(self.querier, grid(self.start, step, most), self.remarks)


def grid(start: float, step: float, count: int) -> Values:
    """``count`` instants that a server can be asked for: whole milliseconds apart, from the one at ``start`` or before it."""
    return math.floor(start * 1000 + 1e-3) / 1000 + np.arange(count, dtype=np.float64) * max(
        round(step, 3), 0.001
    )


def _is_advice(warning: str) -> bool:
    """``PromQL info: metric might not be a counter``: about the question, not about the answer's completeness."""
    return warning.startswith("PromQL info")
