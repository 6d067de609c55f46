"""What a Prometheus-compatible server answers, as columns; and who can be asked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

Values = NDArray[np.float64]
Labels = Mapping[str, str]


@dataclass(frozen=True, slots=True, eq=False)
class Vector:
    """An instant vector: one value a series."""

    labels: Sequence[Labels]
    values: Values
    """[series]; NaN: the server says NaN. Infinities are kept."""
    warnings: tuple[str, ...] = ()
    """What the server says beside its answer (a partial answer); other people's text."""


@dataclass(frozen=True, slots=True, eq=False)
class Matrix:
    """A range of instants: one row a series on one grid of times."""

    labels: Sequence[Labels]
    times: Values
    """[instant] seconds since the epoch, ``start + n * step``, the last one included."""
    values: Values
    """[series, instant]; NaN: no sample there."""
    warnings: tuple[str, ...] = ()


class Listed(NamedTuple):
    """Names of metrics or labels, or values of a label."""

    names: tuple[str, ...]
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Flavour:
    """What kind of server answers."""

    name: str
    """``Prometheus``, ``VictoriaMetrics``, ``Thanos``, ``Mimir``; ``Prometheus-compatible`` where it does not say."""
    version: str = ""


class Querier(Protocol):
    """Who can be asked. Every method raises SourceError of :mod:`coldaisle.sources.errors`."""

    async def instant(self, query: str, at: float) -> Vector:
        """``query`` evaluated at ``at`` (seconds since the epoch, by the server's clock)."""
        ...

    async def range(self, query: str, start: float, end: float, step: float) -> Matrix:
        """``query`` at ``start``, ``start + step``, ... up to ``end``; asked in pieces where one answer would be too large."""
        ...

    async def names(self, label: str, matches: Sequence[str], start: float, end: float) -> Listed:
        """Values of ``label`` among the series that ``matches`` select within [start, end]; ``__name__``: metric names."""
        ...

    async def labels(self, matches: Sequence[str], start: float, end: float) -> Listed:
        """Label names of the series that ``matches`` select within [start, end]."""
        ...
