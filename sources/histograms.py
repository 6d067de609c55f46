"""Quantiles of classic Prometheus histograms, many at once.

A bucket ``le`` counts the observations up to its edge, so the counts of a histogram rise towards ``+Inf``. The
rules are those of Prometheus' histogram_quantile (promql/quantile.go, bucketQuantile).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


def quantiles(edges: Floats, counts: Floats, q: Floats) -> Floats:
    """The q-quantile of each histogram, linear within its bucket; NaN where nothing was observed.

    ``edges`` and ``counts``: [histogram, bucket], edges rising; shorter rows are filled up with ``inf`` and 0.
    ``q``: [histogram], 0..1. NaN too without an ``inf`` edge, or with it alone. A quantile in the ``inf`` bucket is the
    highest finite edge: all that is known is that it lies above.
    """
    rows = np.arange(len(edges))
    counts = np.maximum.accumulate(counts, axis=1)
    total = counts[:, -1]
    rank = q * total
    place = (counts >= rank[:, None]).argmax(axis=1)
    below = np.maximum(place - 1, 0)
    start = np.where(place > 0, edges[rows, below], 0.0)
    before = np.where(place > 0, counts[rows, below], 0.0)
    end = edges[rows, place]
    with np.errstate(invalid="ignore", divide="ignore"):
        inside = start + (end - start) * (rank - before) / (counts[rows, place] - before)
    found = np.where(np.isinf(end), start, inside)
    found = np.where((place == 0) & (end <= 0), end, found)
    usable = np.isfinite(edges[:, 0]) & np.isinf(edges[:, -1]) & (total > 0)
    return np.where(usable, found, np.nan)


def edge(le: str) -> float | None:
    """A bucket's upper edge from its label (``1`` and ``1.0`` are one edge); None: not a number."""
    try:
        found = float(le)
    except ValueError:
        return None
    return None if np.isnan(found) or "_" in le else found
