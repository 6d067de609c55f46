"""What one hour of 8,192 GPUs with 24 metrics every 5 s takes, in a process with everything loaded."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from benchmarks.row import Row

ROOT = Path(__file__).resolve().parent.parent
HOUR, INTERVAL = 3600.0, 5.0
STARTED = 1_772_330_000.0


def fill() -> int:
    """An hour through the collector, a snapshot now and then; the most memory that was resident, in bytes."""
    import coldaisle.sources.exporters
    import coldaisle.sources.ssh
    import coldaisle.tui.app  # noqa: F401
    from benchmarks.cluster import Made
    from coldaisle.analyzers.monitor import Monitor, MonitorSettings
    from coldaisle.sources.collector import SteadyClock

    source = Made(INTERVAL)
    monitor = Monitor([source], MonitorSettings(), SteadyClock())
    shown = []
    for tick, batch in enumerate(source.batches(STARTED, int(HOUR / INTERVAL))):
        monitor.collector.take(monitor.collector.supervised[0], batch)
        if tick % 60 == 0:
            shown = [monitor.snapshot(), *shown[:1]]  # the screen holds one while the next is made
    status = Path("/proc/self/status").read_text(encoding="ascii")
    peak = next(line for line in status.splitlines() if line.startswith("VmHWM"))
    return int(peak.split()[1]) * 1024


def measure() -> list[Row]:
    """The rows of the bench table."""
    code = "from benchmarks.memory import fill; print(fill())"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    return [
        Row("memory, 8,192 GPUs x 24 metrics, one hour at 5 s", int(done.stdout) / 1e6, "MB", 500.0, "lower")
    ]


if __name__ == "__main__":
    for row in measure():
        print(row)
