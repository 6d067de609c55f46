"""What the demo sends to the terminal, and how old its picture is where the link is slow."""

from __future__ import annotations

import re
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "tests"), str(ROOT)]

from lab.terminal import Pty, clean_environment  # noqa: E402

from benchmarks.row import Row  # noqa: E402

DEMO = (str(Path(sys.executable).parent / "coldaisle"), "demo")
LARGE = (*DEMO, "--racks", "128", "--nodes", "8")
SECONDS = 12.0
TICK_S = 2.0


def bytes_a_second(argv: tuple[str, ...], size: tuple[int, int], gpus: int) -> float:
    """On the average, after the start."""
    with Pty(argv, size, draws=False, environ=clean_environment(TZ="UTC")) as terminal:
        terminal.wait_for_bytes(f"/{gpus}".encode(), 90.0)  # seen of expected: one may be lost just now
        time.sleep(4.0)
        before, begin = terminal.taken, time.monotonic()
        time.sleep(SECONDS)
        return (terminal.taken - before) / (time.monotonic() - begin)


def lag(argv: tuple[str, ...], size: tuple[int, int], rate: float, *, answers: bool) -> float:
    """The most that the clock on the screen was behind, in seconds."""
    environ = clean_environment(TZ="UTC")
    with Pty(argv, size, rate, answers, environ) as terminal:
        terminal.wait_for(r"\d\d:\d\d:\d\d.*data", 60.0)
        time.sleep(4.0)
        end = time.monotonic() + SECONDS
        worst = 0.0
        while time.monotonic() < end:
            shown = terminal.wait_for(r"(\d\d):(\d\d):(\d\d) UTC")
            worst = max(worst, behind(shown))
            time.sleep(0.1)
        return worst


def behind(shown: re.Match[str]) -> float:
    """Seconds since the instant that a clock shows."""
    now = datetime.now(UTC)
    hour, minute, second = map(int, shown.groups())
    age = now - now.replace(hour=hour, minute=minute, second=second, microsecond=0)
    return age.total_seconds() if age >= timedelta(0) else age.total_seconds() + 86_400


def measure() -> list[Row]:
    """The rows of the bench table."""
    rows = [
        Row(f"bytes to the terminal, {name}", bytes_a_second(argv, size, gpus) / 1e3, "kB/s", 50.0, "lower")
        for name, argv, size, gpus in (
            ("demo at 80x24", DEMO, (80, 24), 512),
            ("demo at 200x50", DEMO, (200, 50), 512),
            ("8,192 GPUs at 200x50", LARGE, (200, 50), 8192),
        )
    ]
    for rate, size, answers in (
        (100_000, (200, 50), True),
        (100_000, (200, 50), False),
        (20_000, (80, 24), False),
    ):
        what = f"{rate // 1000} kB/s, {size[0]}x{size[1]}, {'answering' if answers else 'mute'}: picture behind by"
        rows.append(Row(what, lag(DEMO, size, rate, answers=answers) / TICK_S, "ticks", 2.0, "lower"))
    return rows


if __name__ == "__main__":
    for row in measure():
        print(row)
