"""A probe of a few lines that speaks the wire format and reads nothing: for tests of what listens to it.

``python scripted_probe.py INTERVAL [GPUS]``: GPU power comes from the file named by COLDAISLE_LAB_POWER,
read again at each sample. It leaves at the end of its standard input, as the real one does.
"""

from __future__ import annotations

import json
import os
import shlex
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

from coldaisle.sources.bootstrap import ProbeOptions

GPU_METRICS = ["gpu.util", "gpu.power", "gpu.temp"]
NODE_METRICS = ["node.cpu_util", "node.load1"]


def boot(gpus: int = 2, before: str = "") -> Callable[[ProbeOptions], tuple[str, bytes]]:
    """What SshSource takes as ``boot``: starts this file instead of the probe."""

    def start(options: ProbeOptions) -> tuple[str, bytes]:
        command = shlex.join([sys.executable, "-u", __file__, str(options.interval), str(gpus)])
        return f"{before} exec {command}", b""

    return start


def _say(**frame: object) -> None:
    sys.stdout.write("\x1e" + json.dumps(frame) + "\n")
    sys.stdout.flush()


def _leave_with_input() -> None:
    while os.read(0, 65536):
        pass
    os._exit(0)


def _power() -> float:
    try:
        return float(Path(os.environ["COLDAISLE_LAB_POWER"]).read_text())
    except (KeyError, OSError, ValueError):
        return 300.0


def run(interval: float, gpus: int) -> None:
    """For ever."""
    threading.Thread(target=_leave_with_input, daemon=True).start()
    name = os.uname().nodename
    _say(k="hello", t=time.time(), probe=1, python="3.11.7", hostname=name, nvml="580.95", driver="580.95")
    boards = [
        {"index": i, "uuid": f"GPU-{name}-{i}", "pci": f"0000:{i + 16:02x}:00.0", "minor": i, "model": "H100"}
        for i in range(gpus)
    ]
    _say(
        k="schema",
        id=1,
        gpus=boards,
        gpu_metrics=GPU_METRICS,
        node_metrics=NODE_METRICS,
        ports=[],
        port_metrics=[],
        disks=[],
        disk_metrics=[],
    )
    last = None
    while True:
        now = time.time()
        rows = [[0.5, _power(), 50.0 + i] for i in range(gpus)]
        dt = None if last is None else now - last
        _say(k="sample", t=now, schema=1, dt=dt, gpu=rows, node=[0.25, 1.0], took=0.001)
        last = now
        time.sleep(interval)


if __name__ == "__main__":
    run(float(sys.argv[1]), int(sys.argv[2]))
