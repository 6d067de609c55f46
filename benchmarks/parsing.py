"""What reading /metrics costs: against prometheus_client's parser, and for 1,024 dcgm-exporter pages."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))

from lab.pages import dcgm_page

from coldaisle.sources.exposition import Reader

if __package__ in (None, ""):
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from benchmarks.row import Row

PAGES = 1024


def reference(body: bytes) -> int:
    """prometheus_client's parser, every sample taken."""
    return sum(len(family.samples) for family in text_string_to_metric_families(body.decode()))


def cost(*works: Callable[[], object]) -> list[float]:
    """CPU seconds of one call of each; the best of nine rounds, taken in turn so that noise meets all alike."""
    best = [float("inf")] * len(works)
    for _ in range(9):
        for place, work in enumerate(works):
            start = time.process_time()
            work()
            best[place] = min(best[place], time.process_time() - start)
    return best


def measure() -> list[Row]:
    """The rows of the bench table."""
    turns = [dcgm_page("n01", seed=seed) for seed in range(16)]
    reader = Reader("n01")
    samples = len(reader.read(turns[0]).values)
    seen, theirs, first = cost(
        lambda: [reader.read(body) for body in turns],
        lambda: [reference(body) for body in turns[:4]],
        lambda: [Reader("n01").read(body) for body in turns[:4]],
    )
    seen, theirs, first = seen / len(turns), theirs / 4, first / 4
    readers = [Reader(f"n{place:04d}") for place in range(PAGES)]
    bodies = [
        (dcgm_page(reader_name, seed=1), dcgm_page(reader_name, seed=2))
        for reader_name in (f"n{i:04d}" for i in range(PAGES))
    ]
    start = time.process_time()
    for one, (body, _) in zip(readers, bodies, strict=True):
        one.read(body)
    learning = time.process_time() - start
    (sweep,) = cost(lambda: [one.read(body) for one, (_, body) in zip(readers, bodies, strict=True)])
    return [
        Row(
            f"/metrics seen before ({samples} samples) against prometheus_client",
            theirs / seen,
            "x",
            100.0,
            "higher",
        ),
        Row(
            "/metrics seen for the first time against prometheus_client", theirs / first, "x", None, "higher"
        ),
        Row(f"{PAGES} dcgm-exporter pages, seen before", sweep, "s CPU", 1.0, "lower"),
        Row(f"{PAGES} dcgm-exporter pages, the first time", learning, "s CPU", None, "lower"),
    ]


if __name__ == "__main__":
    for row in measure():
        print(row)
