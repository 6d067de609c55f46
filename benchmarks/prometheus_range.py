"""What a day of a cluster costs as range queries; and against prometheus-api-client on the same answer.

The server is a process of its own: what it spends on making the answers is not counted.
"""

from __future__ import annotations

import asyncio
import json
import multiprocessing
import sys
import time
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "tests"), str(ROOT)]

from lab.front import Front, Request, front, reply  # noqa: E402

from benchmarks.parsing import cost  # noqa: E402
from benchmarks.row import Row  # noqa: E402
from coldaisle.sources.prometheus import decoding  # noqa: E402
from coldaisle.sources.prometheus.api import Api  # noqa: E402
from coldaisle.sources.prometheus.decoding import Columns  # noqa: E402
from coldaisle.sources.settings import PrometheusSettings  # noqa: E402

START, STEP, POINTS = 1_700_006_400, 60, 1440
GPUS = 1024
FEW_GPUS = 64
"""Of the answer that the other client reads, too: it would take minutes for all."""
METRICS: dict[str, tuple[float, float, int]] = {
    # low, high, decimals as exporters write them; 16: a mean or a rate
    "DCGM_FI_DEV_GPU_UTIL": (0, 100, 0),
    "DCGM_FI_DEV_GPU_TEMP": (30, 80, 0),
    "DCGM_FI_DEV_FB_USED": (0, 81_000, 0),
    "DCGM_FI_DEV_POWER_USAGE": (70, 700, 3),
    "DCGM_FI_PROF_SM_ACTIVE": (0, 1, 6),
    "DCGM_FI_PROF_PIPE_TENSOR_ACTIVE": (0, 1, 6),
    "DCGM_FI_PROF_DRAM_ACTIVE": (0, 1, 6),
    "rate": (0, 5e10, 6),
}


def answer(metric: str, gpus: int, first: int, last: int) -> str:
    """The JSON for these points of the day, labels cut down to what tells GPUs apart."""
    low, high, decimals = METRICS[metric]
    chance = np.random.default_rng(first)
    times = range(START + STEP * first, START + STEP * last, STEP)
    series = []
    for gpu in range(gpus):
        values = chance.uniform(low, high, last - first).tolist()
        samples = ",".join(
            [f'[{at},"{value:.{decimals}f}"]' for at, value in zip(times, values, strict=True)]
        )
        labels = f'{{"Hostname":"r{gpu // 32:02d}n{gpu // 8 % 4:02d}","gpu":"{gpu % 8}"}}'
        series.append(f'{{"metric":{labels},"values":[{samples}]}}')
    return f'{{"status":"success","data":{{"resultType":"matrix","result":[{",".join(series)}]}}}}'


def instant(series: int) -> bytes:
    """One value each of so many GPUs."""
    found = [
        f'{{"metric":{{"Hostname":"r{gpu // 32:03d}n{gpu // 8 % 4:02d}","gpu":"{gpu % 8}"}},'
        f'"value":[{START}.123,"{gpu / 8191:.6f}"]}}'
        for gpu in range(series)
    ]
    return f'{{"status":"success","data":{{"resultType":"vector","result":[{",".join(found)}]}}}}'.encode()


def respond(request: Request) -> bytes:
    """As a server with that day in it."""
    if not request.path.endswith("/query_range"):
        return reply(200, '{"status":"success","data":{"resultType":"scalar","result":[1,"1"]}}')
    first, last = ((float(request.asked(name)) - START) / STEP for name in ("start", "end"))
    return reply(200, answer(request.asked("query"), GPUS, round(first), round(last) + 1))


def _serve(pipe: Connection) -> None:
    async def serve() -> None:
        async with front(Front(answer=respond)) as server:
            pipe.send(server.url)
            await asyncio.Event().wait()

    asyncio.run(serve())


async def day(url: str) -> tuple[float, int, float]:
    """CPU seconds of all metrics, how many samples came, the longest that the event loop was held, in seconds."""
    api = Api(PrometheusSettings(url=url, timeout=120.0))
    await api.flavour()
    held = [0.0]

    async def watch() -> None:
        while True:
            before = time.perf_counter()
            await asyncio.sleep(0.001)
            held[0] = max(held[0], time.perf_counter() - before)

    watching = asyncio.create_task(watch())
    samples, start = 0, time.process_time()
    for metric in METRICS:
        found = await api.range(metric, START, START + STEP * (POINTS - 1), STEP)
        samples += int(np.isfinite(found.values).sum())
    spent = time.process_time() - start
    watching.cancel()
    await api.aclose()
    return spent, samples, held[0]


def ours(body: bytes) -> Columns:
    """An answer as columns."""
    columns = Columns(START + STEP * np.arange(POINTS, dtype=np.float64), STEP, "bench")
    slices, _ = decoding.ranged(body, "bench")
    for _ in columns.add(slices, 0, POINTS):
        pass
    return columns


def theirs(body: bytes) -> object:
    """The same as prometheus-api-client's frame."""
    from prometheus_api_client import MetricRangeDataFrame

    return MetricRangeDataFrame(json.loads(body)["data"]["result"])


def measure() -> list[Row]:
    """The rows of the bench table."""
    mine, other = multiprocessing.Pipe()
    server = multiprocessing.get_context("spawn").Process(target=_serve, args=(other,), daemon=True)
    server.start()
    try:
        spent, samples, held = asyncio.run(day(mine.recv()))
    finally:
        server.terminate()
        server.join()
    few = answer("DCGM_FI_PROF_SM_ACTIVE", FEW_GPUS, 0, POINTS).encode()
    now = instant(8 * GPUS)
    one, frame, vector = cost(
        lambda: ours(few),
        lambda: theirs(few),
        lambda: decoding.joined(decoding.points(decoding.evaluated(now, "bench")[0], "bench")),
    )
    what = f"a day of {GPUS:,} GPUs x {len(METRICS)} metrics, {samples / 1e6:.1f} M samples, as columns"
    return [
        Row(what, spent, "s CPU", 5.0, "lower"),
        Row("  the longest that it held the event loop", held * 1e3, "ms", None, "lower"),
        Row(
            f"against MetricRangeDataFrame, {FEW_GPUS} GPUs' day in one answer",
            frame / one,
            "x",
            20.0,
            "higher",
        ),
        Row(f"an instant of {8 * GPUS:,} series as columns", vector * 1e3, "ms CPU", 15.0, "lower"),
    ]


if __name__ == "__main__":
    for row in measure():
        print(row)
