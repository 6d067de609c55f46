"""Quantiles of histograms, against the rules of Prometheus written down plainly."""

from __future__ import annotations

import itertools
import json
import math
import random
import subprocess
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from lab.histograms import INF, cumulative, histograms, plain
from services import require

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


def test_prometheus_itself_agrees(tmp_path: Path) -> None:
    promtool = require("promtool")
    chance = random.Random(7)
    drawn = []
    for _ in range(40):
        tops = sorted(chance.sample(range(1, 400), chance.randint(1, 12)))
        counts = itertools.accumulate(chance.choice((0, 0, 3, 40)) for _ in range(len(tops) + 1))
        drawn.append(dict(zip((*(top / 40 for top in tops), INF), map(float, counts), strict=True)))
    series, checks = [], []
    for number, buckets in enumerate(drawn):
        for top, count in buckets.items():
            le = "+Inf" if top == INF else str(top)
            labels = f'h="{number}", le="{le}"'
            series.append({"series": f"x_bucket{{{labels}}}", "values": f"0+{count:.0f}x10"})
        for q in (0.5, 0.95, 0.99):
            value = one(q, buckets)
            if not math.isnan(value):
                found = f'histogram_quantile({q}, sum by (h, le) (rate(x_bucket{{h="{number}"}}[5m])))'
                checks.append(
                    {
                        "expr": f"abs({found} - {value!r}) < bool 1e-9",
                        "eval_time": "10m",
                        "exp_samples": [{"labels": f'{{h="{number}"}}', "value": 1}],
                    }
                )
    file = tmp_path / "test.yml"  # JSON is YAML
    tests = [{"interval": "1m", "input_series": series, "promql_expr_test": checks}]
    file.write_text(json.dumps({"evaluation_interval": "1m", "tests": tests}), encoding="utf-8")
    ran = subprocess.run([promtool, "test", "rules", str(file)], capture_output=True, text=True, timeout=60)
    assert len(checks) > 80
    assert ran.returncode == 0, ran.stdout + ran.stderr


def test_edges_are_numbers() -> None:
    assert edge("1") == edge("1.0") == 1.0
    assert edge("+Inf") == edge("Inf") == INF
    assert [edge(text) for text in ("", "one", "NaN", "1_0")] == [None] * 4
