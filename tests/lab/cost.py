"""What work costs, on a machine that is busy with something else."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable


def cpu_seconds(work: Callable[[], object], tries: int = 3) -> float:
    """CPU of the cheapest of some tries; collecting what all earlier tests left behind is not counted."""
    costs = []
    gc.disable()
    try:
        for _ in range(tries):
            began = time.process_time()
            work()
            costs.append(time.process_time() - began)
    finally:
        gc.enable()
    return min(costs)
