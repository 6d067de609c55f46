"""Quantiles of histograms, against the rules of Prometheus written down plainly."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from lab.histograms import INF, cumulative, histograms, plain

from coldaisle.sources.histograms import edge, quantiles


def one(q: float, buckets: dict[float, float]) -> float:
    edges = sorted(buckets)
    return float(quantiles(np.array([edges]), np.array([[buckets[e] for e in edges]]), np.array([q]))[0])


@given(st.lists(histograms, min_size=1, max_size=5), st.sampled_from([0.01, 0.5, 0.9, 0.95, 0.99]))
def test_many_at_once_are_what_each_is_alone(
    drawn: list[tuple[list[tuple[float, int]], int]], q: float
) -> None:
    made = [cumulative(buckets, above) for buckets, above in drawn]
    width = max(map(len, made))
    edges = np.full((len(made), width), INF)
    counts = np.zeros((len(made), width))
    for row, buckets in enumerate(made):
        edges[row, : len(buckets)] = sorted(buckets)
        counts[row, : len(buckets)] = [buckets[top] for top in sorted(buckets)]
    found = quantiles(edges, counts, np.full(len(made), q))
    assert found == pytest.approx([plain(q, buckets) for buckets in made], nan_ok=True)


@pytest.mark.parametrize(
    ("buckets", "q", "value"),
    [
        ({1.0: 50, 2.0: 100, INF: 100}, 0.5, 1.0),
        ({1.0: 50, 2.0: 100, INF: 100}, 0.75, 1.5),
        ({1.0: 50, 2.0: 60, INF: 100}, 0.99, 2.0),  # above the last finite edge nothing is known but that
        ({0.0: 10, 1.0: 10, INF: 10}, 0.5, 0.0),
        ({1.0: 0, 2.0: 0, INF: 0}, 0.5, math.nan),
        ({1.0: 5, 2.0: 5}, 0.5, math.nan),
        ({INF: 5}, 0.5, math.nan),
        ({1.0: 7, 2.0: 5, INF: 10}, 0.6, 6 / 7),  # a bucket that lags behind the one before it
    ],
)
def test_the_corners(buckets: dict[float, float], q: float, value: float) -> None:
    assert one(q, buckets) == pytest.approx(value, nan_ok=True)
    assert plain(q, buckets) == pytest.approx(value, nan_ok=True)


def test_edges_are_numbers() -> None:
    assert edge("1") == edge("1.0") == 1.0
    assert edge("+Inf") == edge("Inf") == INF
    assert [edge(text) for text in ("", "one", "NaN", "1_0")] == [None] * 4
