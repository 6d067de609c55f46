"""The table of budgets: ``python -m benchmarks [NAME ...]``, one NAME a module of this folder.

Fails only when a measurement crashes: what is missed on a busy machine is for people to judge.
"""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Sequence
from importlib import import_module

from benchmarks.row import Row

NAMES = (
    "start", "screen", "bytes", "parsing", "exporter_fanout", "prometheus_live", "prometheus_range", "slurm", "ssh", "tick",
    "memory", "simulator", "filter", "advice", "audit",
)  # fmt: skip


def main(names: Sequence[str]) -> int:
    """Measure and print; the exit status."""
    unknown = set(names) - set(NAMES)
    if unknown:
        print(f"no such row: {', '.join(sorted(unknown))}; there are {', '.join(NAMES)}", file=sys.stderr)
        return 2
    print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}, Python {sys.version.split()[0]}")
    results = [measured(name) for name in names or NAMES]
    judged = [row for rows in results for row in rows or () if row.budget is not None]
    print(f"{sum(row.is_met for row in judged)} of {len(judged)} budgets met")
    return 1 if None in results else 0


def measured(name: str) -> Sequence[Row] | None:
    """The rows of one module, printed; None if it crashed, which ends no other measurement."""
    print(f"-- {name}", flush=True)
    try:
        rows: Sequence[Row] = import_module(f"benchmarks.{name}").measure()
    except Exception:  # noqa: BLE001  (supervision)
        traceback.print_exc()
        return None
    for row in rows:
        print(row, flush=True)
    return rows


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
