"""What a refresh of 8,192 GPUs from a Prometheus costs its client, and how much is asked of the server.

The server is a process of its own that has made its answers beforehand.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import multiprocessing
import re
import statistics
import sys
import time
from functools import cache
from itertools import pairwise
from multiprocessing.connection import Connection
from pathlib import Path
from statistics import quantiles

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "tests"), str(ROOT)]

from lab.front import Front, Request, front, reply  # noqa: E402
from lab.pages import FIELDS, gpu_labels  # noqa: E402

from benchmarks.row import Row  # noqa: E402
from benchmarks.tick import key_to_paint  # noqa: E402
from coldaisle.sources.prometheus.api import Api  # noqa: E402
from coldaisle.sources.prometheus.source import PrometheusSource  # noqa: E402
from coldaisle.sources.settings import PrometheusSettings  # noqa: E402
from coldaisle.sources.source import Batch  # noqa: E402

NODES, GPUS = 1024, 8
NAMES = tuple(name for name, *_ in FIELDS[:2] + FIELDS[3:5] + FIELDS[7:9] + FIELDS[10:])[:16]
SCRAPE = 4.0
REFRESHES = 4
_BY = re.compile(r"by \(([^)]*)\)")


@cache
def series() -> list[dict[str, str]]:
    """All labels of every GPU, as a server has them."""
    found = []
    for node in range(NODES):
        name = f"r{node // 32 + 1:02d}n{node % 32 + 1:02d}"
        target = {"instance": f"{name}:9400", "job": "dcgm-exporter"}
        found += [gpu_labels(name, gpu) | target for gpu in range(GPUS)]
    return found


def chosen(matcher: str) -> list[dict[str, str]]:
    """Of one shard."""
    found = re.search(r'instance=~"([^"]*)"', matcher)
    wanted = set(found[1].replace("\\\\", "").split("|")) if found else None
    return [labels for labels in series() if wanted is None or labels["instance"] in wanted]


@cache
def vector(by: tuple[str, ...], name: str, value: str, matcher: str = "") -> str:
    """An answer, its times and stamps still to be filled in; ``name``: with the metric's name, as without ``by``."""
    seen: dict[str, int] = {}
    for place, labels in enumerate(chosen(matcher)):
        kept = {"__name__": name} | labels if name else {key: labels[key] for key in by if key in labels}
        seen.setdefault(json.dumps(kept, separators=(",", ":")), place)
    return ",".join(
        f'{{"metric":{labels},"value":[@,"{value or f"{(place * 7919 % 100000) / 1000:g}"}"]}}'
        for labels, place in seen.items()
    )


def respond(request: Request, pipe: Connection) -> bytes:
    """As a server that scrapes them every few seconds."""
    query = request.asked("query")
    if "/label/__name__/values" in request.path:
        return reply(200, json.dumps({"status": "success", "data": NAMES}))
    if "/label/job/values" in request.path:
        return reply(200, '{"status":"success","data":["dcgm-exporter"]}')
    if request.path.endswith("/labels"):
        return reply(200, json.dumps({"status": "success", "data": ["__name__", *series()[0]]}))
    if request.path.endswith("/query_range"):
        start, end, step = (float(request.asked(name)) for name in ("start", "end", "step"))
        times = [start + step * n for n in range(int((end - start) / step) + 1)]
        points = ",".join(f'[{at:.3f},"{at // SCRAPE * SCRAPE:.3f}"]' for at in times)
        one = f'{{"metric":{{"instance":"r01n01:9400"}},"values":[{points}]}}'
        return reply(200, f'{{"status":"success","data":{{"resultType":"matrix","result":[{one}]}}}}')
    at = float(request.asked("time") or time.time())
    if query == "time()":
        return reply(200, f'{{"status":"success","data":{{"resultType":"scalar","result":[1,"{at}"]}}}}')
    if not query or query.startswith("ALERTS"):
        return reply(200, '{"status":"success","data":{"resultType":"vector","result":[]}}')
    by = _BY.search(query)
    labels = tuple(by[1].split(", ")) if by else ()
    stamp = f"{at // SCRAPE * SCRAPE:.3f}" if "timestamp" in query else "1" if "(up" in query else ""
    matcher = query if "instance=~" in query and "(up" not in query else ""
    body = vector(labels, "", "#" if "timestamp" in query else stamp, matcher)
    body = body.replace("@", f"{at:.3f}").replace("#", stamp)
    whole = f'{{"status":"success","data":{{"resultType":"vector","result":[{body}]}}}}'
    pipe.send(len(whole))
    return reply(200, whole)


def _serve(pipe: Connection) -> None:
    async def serve() -> None:
        plain = sum(len(vector((), name, "")) + 13 * NODES * GPUS for name in NAMES)
        vector(("UUID",), "", "")
        async with front(Front(answer=lambda request: respond(request, pipe))) as server:
            pipe.send((server.url, plain))
            await asyncio.Event().wait()

    asyncio.run(serve())


async def refreshes(url: str) -> tuple[float, float, int]:
    """CPU seconds of a refresh (median), the longest that the event loop was held, how many cells came."""
    source = PrometheusSource(Api(PrometheusSettings(url=url, timeout=60.0)))
    marks: list[float] = []
    held = [0.0]

    async def watch() -> None:
        while True:
            before = time.perf_counter()
            await asyncio.sleep(0.001)
            held[0] = max(held[0], time.perf_counter() - before)

    cells = 0
    watching = None
    async with contextlib.aclosing(source.stream()) as items:
        async for item in items:
            if not isinstance(item, Batch):
                continue
            marks.append(time.process_time())
            cells = int((item.values == item.values).sum())
            watching = watching or asyncio.create_task(watch())
            if len(marks) > REFRESHES:
                break
    if watching is not None:
        watching.cancel()
    # the first one learns who is who, the second is the first of the usual ones
    return statistics.median(b - a for a, b in pairwise(marks)), held[0], cells


def _client(url: str, pipe: Connection) -> None:
    spent, held, cells = asyncio.run(refreshes(url))
    pipe.send((spent, held, cells, peak_bytes()))


def peak_bytes() -> int:
    """The most that this process had resident; ru_maxrss would count what its parent had when it was forked."""
    status = Path("/proc/self/status").read_text()
    return int(next(line for line in status.splitlines() if line.startswith("VmHWM")).split()[1]) * 1024


def measure() -> list[Row]:
    """The rows of the bench table."""
    spawn = multiprocessing.get_context("spawn")
    mine, theirs = multiprocessing.Pipe()
    server = spawn.Process(target=_serve, args=(theirs,), daemon=True)
    server.start()
    result, back = multiprocessing.Pipe()
    try:
        url, plain = mine.recv()
        client = spawn.Process(target=_client, args=(url, back), daemon=True)
        client.start()
        asked: list[int] = []
        while not result.poll(0.05):
            while mine.poll():
                size = mine.recv()
                asked.append(size)
        spent, held, cells, memory = result.recv()
        client.join()
        delays = key_to_paint([str(Path(sys.executable).parent / "coldaisle"), "--prometheus", url])
    finally:
        server.terminate()
        server.join()
    each = sum(asked) / (REFRESHES + 1)
    return [
        Row(
            f"refresh of {NODES * GPUS:,} GPUs x {len(NAMES)} metrics ({cells:,} cells)",
            spent,
            "s of CPU",
            1.5,
            "lower",
        ),
        Row("  the client's memory, at most", memory / 1e6, "MB", 300.0, "lower"),
        Row("  bytes asked a refresh, against the plain selector", each / plain, "x", 1 / 3, "lower"),
        Row("  longest that the event loop is held", held * 1000, "ms", None, "lower"),
        Row(
            "  a key to its paint meanwhile, 99th percentile",
            quantiles(delays, n=100)[98] * 1e3,
            "ms",
            50.0,
            "lower",
        ),
    ]


if __name__ == "__main__":
    for row in measure():
        print(row)
