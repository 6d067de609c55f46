"""How far a comparison over many parts is: on standard error, and only where somebody sits at it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from coldaisle.sources.text import plain
from coldaisle.tui.progress import Progress

if TYPE_CHECKING:
    from coldaisle.analyzers.sizing.sheet import Sheet

QUIET_S = 0.7
"""Answers that are quicker come without."""

Count = Callable[[str, "Callable[[], Sheet]"], "Sheet"]


@contextmanager
def counting(whole: int) -> Iterator[Count]:
    """Call what it gives with the name of each part and its plan; the line is gone when it ends."""
    progress, began, done = Progress(), time.monotonic(), 0

    def count(name: str, plan: Callable[[], Sheet]) -> Sheet:
        nonlocal done
        if whole > 1 and time.monotonic() - began > QUIET_S:
            progress.say(f"{done} of {whole} parts: {plain(name, 40)}")
        done += 1
        return plan()

    try:
        yield count
    finally:
        progress.end()
