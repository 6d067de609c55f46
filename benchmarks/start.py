"""How long people wait: ``--version`` against Python's own start, the first paint against an empty app's."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "tests"), str(ROOT)]

from lab.terminal import Pty, wait_for  # noqa: E402

from benchmarks.row import Row  # noqa: E402

RUNS = 11
COMMAND = str(Path(sys.executable).parent / "coldaisle")
EMPTY_APP = "from textual.app import App; App().run()"


def paired(runs: int, first: Callable[[], float], second: Callable[[], float]) -> tuple[float, float, float]:
    """Medians of both, and of the second over the first in the same moment."""
    first(), second()  # what is read from disk once is not measured
    pairs = [(first(), second()) for _ in range(runs)]
    return (
        median(one for one, _ in pairs),
        median(two for _, two in pairs),
        median(two / one for one, two in pairs),
    )


def run_time(argv: Sequence[str]) -> float:
    """Seconds from start to end."""
    begin = time.perf_counter()
    subprocess.run(argv, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - begin


def first_paint(argv: Sequence[str]) -> float:
    """Seconds from the start to the first whole frame: a full screen begins at its first cell."""
    begin = time.perf_counter()
    with Pty(argv) as terminal:
        wait_for("the first paint", lambda: terminal.first_paint, 30.0, pause=0.002)
        return (terminal.first_paint or 0.0) - begin


def measure() -> list[Row]:
    """The rows of the bench table."""
    python, version, _ = paired(
        RUNS, lambda: run_time([sys.executable, "-c", "pass"]), lambda: run_time([COMMAND, "--version"])
    )
    empty, demo, ratio = paired(
        RUNS, lambda: first_paint([sys.executable, "-c", EMPTY_APP]), lambda: first_paint([COMMAND, "demo"])
    )
    return [
        Row("coldaisle --version, over Python's own start", (version - python) * 1e3, "ms", 50.0, "lower"),
        Row("  Python's own start", python * 1e3, "ms", None, "lower"),
        Row("first paint of the demo, against an empty Textual app's", ratio, "x", 1.3, "lower"),
        Row("  first paint of the demo", demo * 1e3, "ms", None, "lower"),
        Row("  first paint of an empty Textual app", empty * 1e3, "ms", None, "lower"),
    ]


if __name__ == "__main__":
    for row in measure():
        print(row)
