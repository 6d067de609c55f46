"""What 256 exporters every 2 s cost us, servers in a process of their own; against bare httpx transports."""

from __future__ import annotations

import asyncio
import contextlib
import multiprocessing
import ssl
import statistics
import sys
import time
from itertools import pairwise
from multiprocessing.connection import Connection
from pathlib import Path

import httpx

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "tests"), str(ROOT)]

from lab.pages import serve_many  # noqa: E402

from benchmarks.row import Row  # noqa: E402
from coldaisle.sources.exporters import ExporterSource  # noqa: E402
from coldaisle.sources.source import Batch  # noqa: E402

TARGETS = 256
INTERVAL = 2.0
TICKS = 9
WARM_UP = 4


def _serve(count: int, pipe: Connection) -> None:
    asyncio.run(serve_many(count, pipe.send))


async def ours(ports: list[int]) -> tuple[float, int]:
    """CPU seconds per second, the median over ticks, first sweeps left out; how many GPUs the last batch held."""
    source = ExporterSource([f"127.0.0.1:{port}" for port in ports], interval=INTERVAL)
    gpus, marks = 0, []
    async with contextlib.aclosing(source.stream()) as items:
        async for item in items:
            if not isinstance(item, Batch):
                continue
            gpus = int((item.values[:, 0] == item.values[:, 0]).sum())
            marks.append((time.process_time(), time.monotonic()))
            if len(marks) > WARM_UP + TICKS:
                steps = pairwise(marks[WARM_UP:])
                return statistics.median((b[0] - a[0]) / (b[1] - a[1]) for a, b in steps), gpus
    raise RuntimeError("the source ended")


async def bare(ports: list[int]) -> float:
    """CPU seconds per second of the same requests without reading what they bring."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    transports = [httpx.AsyncHTTPTransport(verify=context) for _ in ports]

    async def one(transport: httpx.AsyncHTTPTransport, port: int, phase: float) -> None:
        await asyncio.sleep(phase * INTERVAL)
        for _ in range(TICKS + 1):
            started = asyncio.get_running_loop().time()
            response = await transport.handle_async_request(
                httpx.Request("GET", f"http://127.0.0.1:{port}/metrics")
            )
            async for _ in response.stream:  # type: ignore[union-attr]
                pass
            await response.aclose()
            await asyncio.sleep(max(0.0, started + INTERVAL - asyncio.get_running_loop().time()))

    async with asyncio.TaskGroup() as tasks:
        for place, (transport, port) in enumerate(zip(transports, ports, strict=True)):
            tasks.create_task(one(transport, port, place / len(ports)))
        await asyncio.sleep(INTERVAL)
        cpu, wall = time.process_time(), time.monotonic()
        await asyncio.sleep(TICKS * INTERVAL)
        share = (time.process_time() - cpu) / (time.monotonic() - wall)
    await asyncio.gather(*(transport.aclose() for transport in transports))
    return share


def measure() -> list[Row]:
    """The rows of the bench table."""
    mine, theirs = multiprocessing.Pipe()
    server = multiprocessing.get_context("spawn").Process(target=_serve, args=(TARGETS, theirs), daemon=True)
    server.start()
    try:
        ports: list[int] = mine.recv()
        share, gpus = asyncio.run(ours(ports))
        least = asyncio.run(bare(ports))
    finally:
        server.terminate()
        server.join()
    return [
        Row(
            f"{TARGETS} exporters every {INTERVAL:g} s ({gpus} GPUs)",
            share * 100,
            "% of a core",
            15.0,
            "lower",
        ),
        Row("  the same pages by bare httpx transports, unread", least * 100, "% of a core", None, "lower"),
        Row("  ours against bare httpx", share / least, "x", None, "lower"),
    ]


if __name__ == "__main__":
    for row in measure():
        print(row)
