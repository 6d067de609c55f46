"""CPU of watching many hosts over SSH: our source, beside a bare asyncssh stream of the same bytes.

``.venv/bin/python benchmarks/ssh_fanout.py [HOSTS] [SECONDS]`` starts real sshd servers on loopback
addresses and prints per cent of one core, of this process only: the median of windows of some seconds. The
remote side plays the same lines at the same pace, so that what is measured is receiving and nothing else.
"""

from __future__ import annotations

import asyncio
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import aclosing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))

import asyncssh
from lab.sshd import SshLab, names_of, wait_until

from coldaisle.sources.bootstrap import ProbeOptions
from coldaisle.sources.catalog import catalog
from coldaisle.sources.source import Batch, Kind, Target, TargetState
from coldaisle.sources.ssh import SshSource

INTERVAL_S = 2.0
RAMP_S = 120.0
"""For all logins; on two cores the servers need most of it."""
WINDOW_S = 4.0
GPUS = 8
PORTS = 10
DISKS = 4


@dataclass(slots=True)
class Meter:
    """CPU of this process, by windows."""

    marks: list[tuple[float, float]] = field(default_factory=list)

    def look(self) -> None:
        """Take a reading, unless the last one is too young."""
        now = time.monotonic()
        if not self.marks or now - self.marks[-1][0] >= WINDOW_S:
            self.marks.append((now, time.process_time()))

    @property
    def seconds(self) -> float:
        """So far."""
        return time.monotonic() - self.marks[0][0] if self.marks else 0.0

    @property
    def share(self) -> float:
        """Of one core: the median window."""
        pairs = zip(self.marks, self.marks[1:], strict=False)
        return statistics.median((later[1] - one[1]) / (later[0] - one[0]) for one, later in pairs)


@dataclass(frozen=True, slots=True)
class Cost:
    """What streaming cost this process."""

    hosts: int
    per_core: float
    """Share of one core while all hosts stream."""
    connect_s: float
    """CPU seconds until all did."""
    line_bytes: int
    gpus: int = 0
    """How many the last batch had values of."""


def frames() -> tuple[str, str]:
    """(hello and schema, one sample): a full host of eight GPUs, every metric of the catalogue's that a probe has."""
    keys = {kind: [key for key, metric in catalog().items() if metric.kind is kind] for kind in Kind}
    gpu, node = keys[Kind.GPU][:60], keys[Kind.NODE][:40]
    port, disk = keys[Kind.PORT][:20], keys[Kind.DISK]
    hello = {"k": "hello", "t": 0, "probe": 1, "python": "3.11.2", "hostname": "bench", "nvml": "580.95"}
    boards = [{"index": i, "uuid": f"GPU-{i:032x}", "pci": f"0000:{i + 16:02x}:00.0"} for i in range(GPUS)]
    schema = {
        "k": "schema",
        "id": 1,
        "gpus": boards,
        "gpu_metrics": gpu,
        "node_metrics": node,
        "ports": [f"mlx5_{i}/1" for i in range(PORTS)],
        "port_metrics": port,
        "disks": [f"nvme{i}n1" for i in range(DISKS)],
        "disk_metrics": disk,
    }
    sample = {
        "k": "sample",
        "t": 0,
        "schema": 1,
        "dt": INTERVAL_S,
        "took": 0.012,
        "gpu": [[0.731, 612.5, *[17.25] * (len(gpu) - 2)]] * GPUS,
        "node": [0.5] * len(node),
        "port": [[12345678.5] * len(port)] * PORTS,
        "disk": [[0.25] * len(disk)] * DISKS,
    }
    say = "".join(f"\x1e{json.dumps(frame, separators=(',', ':'))}\n" for frame in (hello, schema))
    return say, f"\x1e{json.dumps(sample, separators=(',', ':'))}\n"


COMMAND = 'exec cat "$COLDAISLE_LAB_FIFO"'
PLAYER = """
import os, sys, time
interval, fifos = float(sys.argv[1]), sys.argv[4:]
first, line = (open(name, "rb").read() for name in sys.argv[2:4])
pipes, due = {}, time.monotonic()
while True:
    for name in fifos:
        now = b'"t":%.3f,' % time.time()
        try:
            if name not in pipes:
                pipes[name] = os.open(name, os.O_WRONLY | os.O_NONBLOCK)
                os.write(pipes[name], first.replace(b'"t":0,', now))
            os.write(pipes[name], line.replace(b'"t":0,', now))
        except BlockingIOError:
            pass
        except BrokenPipeError:
            os.close(pipes.pop(name))
        except OSError:
            pass
        due += interval / len(fifos)
        time.sleep(max(0.0, due - time.monotonic()))
"""
"""Writes to whoever reads a FIFO: one process for all hosts, so that the machine is not busy with playing them."""


def make_fifos(folder: Path, names: Sequence[str]) -> dict[str, str]:
    """A FIFO for each host, and the lines that come out of it."""
    first, line = frames()
    (folder / "first").write_text(first)
    (folder / "line").write_text(line)
    fifos = {name: str(folder / f"{name}.fifo") for name in names}
    for fifo in fifos.values():
        os.mkfifo(fifo)
    return fifos


@contextmanager
def playing(folder: Path, fifos: Sequence[str]) -> Iterator[None]:
    """While a process plays all probes; its end is the end of every reader."""
    files = [str(folder / "first"), str(folder / "line")]
    player = subprocess.Popen([sys.executable, "-c", PLAYER, str(INTERVAL_S), *files, *fifos])
    try:
        yield
    finally:
        player.kill()
        player.wait()


async def measure_source(lab: SshLab, seconds: float, line: int) -> Cost:
    """Our source: all the way to batches."""

    def boot(options: ProbeOptions) -> tuple[str, bytes]:
        return COMMAND, b""

    source = SshSource(lab.settings(interval=INTERVAL_S), boot=boot)
    began = time.process_time()
    states: dict[str, TargetState] = {}
    meter, connect_s, gpus = Meter(), 0.0, 0
    async with asyncio.timeout(RAMP_S + seconds), aclosing(source.stream()) as items:
        async for item in items:
            if isinstance(item, Target):
                states[item.name] = item.state
            if not isinstance(item, Batch) or item.kind is not Kind.GPU:
                continue
            gpus = int((item.values[:, 0] == item.values[:, 0]).sum())
            if not meter.marks and list(states.values()).count(TargetState.OK) == len(lab.names):
                connect_s = time.process_time() - began
                meter.look()
            elif meter.marks:
                meter.look()
            if meter.seconds >= seconds:
                break
    return Cost(len(lab.names), meter.share, connect_s, line, gpus)


async def measure_bare(lab: SshLab, seconds: float, line: int) -> Cost:
    """asyncssh alone: every line is read and thrown away."""
    began = time.process_time()
    limit = asyncio.Semaphore(16)
    connections: list[asyncssh.SSHClientConnection] = []
    readers: list[asyncio.Task[None]] = []

    async def follow(name: str) -> None:
        async with limit:
            connection = await asyncssh.connect(name, config=[str(lab.config)], agent_path=None)
            connections.append(connection)
        process = await connection.create_process(COMMAND, encoding=None)
        await process.stdout.readline()

        async def read() -> None:
            while await process.stdout.readline():
                pass

        readers.append(asyncio.create_task(read()))

    async with asyncio.timeout(RAMP_S):
        await asyncio.gather(*(follow(name) for name in lab.names))
    connect_s, meter = time.process_time() - began, Meter()
    while meter.seconds < seconds:
        meter.look()
        await asyncio.sleep(WINDOW_S / 2)
    for reader in readers:
        reader.cancel()
    for connection in connections:
        connection.abort()
    await asyncio.gather(*readers, return_exceptions=True)
    return Cost(len(lab.names), meter.share, connect_s, line)


def measure(hosts: int = 256, seconds: float = 20.0) -> tuple[Cost, Cost]:
    """(our source, bare asyncssh), one after the other against the same servers."""

    def run(work: Callable[..., Awaitable[Cost]], lab: SshLab, line: int) -> Cost:
        async def main() -> Cost:
            return await work(lab, seconds, line)

        return asyncio.run(main())

    with tempfile.TemporaryDirectory(prefix="coldaisle-bench-") as name:
        folder, names = Path(name), names_of(hosts)
        fifos = make_fifos(folder, names)
        line = (folder / "line").stat().st_size
        # a home of its own: whose else's .bashrc would run 256 times
        environment = {
            name: {"COLDAISLE_LAB_FIFO": fifo, "HOME": str(folder)} for name, fifo in fifos.items()
        }
        with SshLab(folder / "lab", names, environment=environment, share=16) as lab:
            with playing(folder, list(fifos.values())):
                bare = run(measure_bare, lab, line)
            # a reader of the first run must not take the first lines of the second
            wait_until("the readers have ended", lambda: not any(map(lab.processes, names[::16])), 30.0)
            with playing(folder, list(fifos.values())):
                ours = run(measure_source, lab, line)
    return ours, bare


def main() -> None:
    """Print the table."""
    hosts = int(sys.argv[1]) if len(sys.argv) > 1 else 256
    seconds = float(sys.argv[2]) if len(sys.argv) > 2 else 20.0
    ours, bare = measure(hosts, seconds)
    load = os.getloadavg()[0]
    print(
        f"{hosts} hosts, a line of {ours.line_bytes} bytes each {INTERVAL_S:g} s, {seconds:g} s; load {load:.1f}"
    )
    print(f"  {ours.gpus} of {hosts * GPUS} GPUs in the last batch")
    print(f"  bare asyncssh  {bare.per_core:6.1%} of a core   connecting {bare.connect_s:5.1f} s of CPU")
    print(f"  coldaisle      {ours.per_core:6.1%} of a core   connecting {ours.connect_s:5.1f} s of CPU")
    print(f"  ratio          {ours.per_core / bare.per_core:6.2f}")


if __name__ == "__main__":
    main()
