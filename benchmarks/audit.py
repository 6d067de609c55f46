"""What an audit of a month costs its client: ``coldaisle audit`` as a process, with all reports, against a server that makes up a month.

The server is a process of its own: what it spends on making answers is not counted, as Prometheus' own work is not.
"""

from __future__ import annotations

import asyncio
import json
import multiprocessing
import os
import re
import subprocess
import sys
import tempfile
import time
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "tests"), str(ROOT)]

from lab.front import Front, Request, front, reply  # noqa: E402

from benchmarks.row import Row  # noqa: E402

DAYS, GPUS, STEP = 30, 256, 300
END = 1_769_904_000
JOB_S = 6 * 3600
"""A job a node and shift."""
METRICS: dict[str, tuple[float, float, int]] = {
    "DCGM_FI_DEV_GPU_UTIL": (0, 100, 6),
    "DCGM_FI_PROF_SM_ACTIVE": (0, 1, 9),
    "DCGM_FI_PROF_PIPE_TENSOR_ACTIVE": (0, 0.4, 9),
    "DCGM_FI_PROF_DRAM_ACTIVE": (0, 0.9, 9),
    "DCGM_FI_DEV_POWER_USAGE": (70, 700, 6),
    "DCGM_FI_DEV_FB_USED": (0, 81_000, 6),
}
LABELS = ("Hostname", "UUID", "gpu", "hpc_job", "instance", "job", "modelName")
BUDGET_S, BUDGET_BYTES = 20.0, 400e6


def respond(request: Request) -> bytes:
    """As a server with that month in it."""
    if request.path.endswith("/label/__name__/values"):
        return _data(list(METRICS))
    if request.path.endswith("/labels"):
        return _data(list(LABELS))
    if request.path.endswith("/query"):
        if request.asked("query") == "time()":
            return _data({"resultType": "scalar", "result": [END, str(END)]})
        return _data({"resultType": "vector", "result": []})
    if request.path.endswith("/query_range"):
        return reply(
            200, _range(request.asked("query"), *(float(request.asked(k)) for k in ("start", "end", "step")))
        )
    return reply(404, "")


def _data(data: object) -> bytes:
    return reply(200, json.dumps({"status": "success", "data": data}))


def _range(query: str, start: float, end: float, step: float) -> str:
    """Series with the labels that the query keeps."""
    name = re.search(r"DCGM_\w+", query)
    times = np.arange(start, end + step / 2, step)
    times = times[(times > END - DAYS * 86400) & (times <= END)]
    if name is None or "XID" in query or not len(times):
        return '{"status":"success","data":{"resultType":"matrix","result":[]}}'
    if query.startswith("count("):
        return _matrix([_series("{}", times, [str(GPUS)] * len(times))])
    by = re.search(r"by \(([^)]*)\)", query)
    kept = [label.strip() for label in by[1].split(",")] if by else []
    series = []
    for gpu in range(8 if "topk" in query else GPUS):
        values = _values(name[0], query, gpu, times)
        if "hpc_job" in kept:
            shifts = (times - 1) // JOB_S
            for shift in np.unique(shifts):
                mine = np.flatnonzero(shifts == shift)
                job = f"{int(shift)}{gpu // 8:02d}"
                series.append(_series(_labels(gpu, kept, job), times[mine], [values[at] for at in mine]))
        else:
            series.append(_series(_labels(gpu, kept), times, values))
    return _matrix(series)


def _values(
    name: str, query: str, gpu: int, times: np.ndarray[tuple[int], np.dtype[np.float64]]
) -> list[str]:
    if "timestamp(" in query:
        return [f"{at // 30 * 30:.0f}" for at in times.tolist()]
    if "count_over_time" in query:
        return ["10"] * len(times)
    low, high, decimals = METRICS[name]
    chance = np.random.default_rng(int(times[0]) + gpu)
    return [f"{value:.{decimals}f}" for value in chance.uniform(low, high, len(times)).tolist()]


def _labels(gpu: int, kept: list[str], job: str = "") -> str:
    node = f"r{gpu // 32 + 1:02d}n{gpu // 8 % 4 + 1:02d}"
    known = {
        "Hostname": node, "UUID": f"GPU-{gpu:08x}-0000-0000-0000-000000000000", "gpu": str(gpu % 8), "hpc_job": job,
        "instance": f"{node}:9400", "job": "dcgm", "modelName": "NVIDIA H100 80GB HBM3",
    }  # fmt: skip
    return json.dumps({label: known[label] for label in kept if label in known})


def _series(labels: str, times: np.ndarray[tuple[int], np.dtype[np.float64]], values: list[str]) -> str:
    told = ",".join([f'[{at:.0f},"{value}"]' for at, value in zip(times.tolist(), values, strict=True)])
    return f'{{"metric":{labels},"values":[{told}]}}'


def _matrix(series: list[str]) -> str:
    return f'{{"status":"success","data":{{"resultType":"matrix","result":[{",".join(series)}]}}}}'


def _serve(pipe: Connection) -> None:
    async def serve() -> None:
        async with front(Front(answer=respond)) as server:
            pipe.send(server.url)
            await asyncio.Event().wait()

    asyncio.run(serve())


def audited(url: str, folder: Path) -> tuple[float, float, float]:
    """CPU seconds, bytes at most, seconds of the whole command."""
    until = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(END))
    command = [
        sys.executable,
        "-c",
        "from coldaisle.tui.start import main; main()",
        "audit",
        "--last",
        f"{DAYS}d",
    ]
    command += ["--until", until, "--prometheus", url, "--step", f"{STEP}s"]
    for ending in ("html", "md", "json", "csv"):
        command += ["-o", str(folder / f"report.{ending}")]
    environment = {**os.environ, "XDG_STATE_HOME": str(folder), "XDG_CONFIG_HOME": str(folder)}
    began = time.monotonic()
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stdin=subprocess.DEVNULL)
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0, f"coldaisle audit ended with {process.returncode}"
    told = json.loads((folder / "report.json").read_text())
    assert told["gpus"] == GPUS
    return used.ru_utime + used.ru_stime, used.ru_maxrss * 1024.0, time.monotonic() - began


def measure() -> list[Row]:
    """The rows of the bench table."""
    mine, other = multiprocessing.Pipe()
    server = multiprocessing.get_context("spawn").Process(target=_serve, args=(other,), daemon=True)
    server.start()
    try:
        with tempfile.TemporaryDirectory() as folder:
            spent, most, _ = audited(mine.recv(), Path(folder))
    finally:
        server.terminate()
        server.join()
    what = f"audit of {DAYS} days x {GPUS} GPUs x {len(METRICS)} metrics, four reports"
    return [
        Row(what, spent, "s CPU", BUDGET_S, "lower"),
        Row("  its memory at most", most / 1e6, "MB", BUDGET_BYTES / 1e6, "lower"),
    ]


if __name__ == "__main__":
    for row in measure():
        print(row)
