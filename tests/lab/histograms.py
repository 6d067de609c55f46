"""Histograms as Prometheus has them: drawn, and their quantiles by its rules written down plainly."""

from __future__ import annotations

import math

from hypothesis import strategies as st

INF = math.inf


def plain(q: float, buckets: dict[float, float]) -> float:
    """histogram_quantile of one histogram: ``buckets`` by upper edge, cumulative."""
    edges = sorted(buckets)
    counts = [max(buckets[one] for one in edges[: place + 1]) for place in range(len(edges))]
    if len(edges) < 2 or edges[-1] != INF or counts[-1] == 0:
        return math.nan
    rank = q * counts[-1]
    place = next(place for place, count in enumerate(counts) if count >= rank)
    if place == len(edges) - 1:
        return edges[-2]
    if place == 0 and edges[0] <= 0:
        return edges[0]
    start, before = (edges[place - 1], counts[place - 1]) if place else (0.0, 0.0)
    return start + (edges[place] - start) * (rank - before) / (counts[place] - before)


histograms = st.lists(
    st.tuples(st.floats(-5, 1000, width=32), st.integers(0, 1000)),
    min_size=1,
    max_size=12,
    unique_by=lambda b: b[0],
).flatmap(lambda buckets: st.tuples(st.just(buckets), st.integers(0, 1000)))


def cumulative(buckets: list[tuple[float, int]], above: int) -> dict[float, float]:
    total, made = 0.0, {}
    for top, count in sorted(buckets):
        total += count
        made[top] = total
    return made | {INF: total + above}
