"""What a large cluster's answers cost: 20,000 jobs on 5,000 nodes, parsed, told and joined; in the JSON of two releases, and as text."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

if __package__ in (None, ""):
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from benchmarks.row import Row
from coldaisle.analyzers.monitor import Monitor, MonitorSettings
from coldaisle.sources.collector import SteadyClock
from coldaisle.sources.nodesets import fold
from coldaisle.sources.settings import SlurmSettings
from coldaisle.sources.slurm import json_answers
from coldaisle.sources.slurm.records import Jobs, Nodes
from coldaisle.sources.slurm.source import SlurmSource
from coldaisle.sources.slurm.telling import Teller

JOBS, NODES, GPUS = 20_000, 5_000, 8
RUNNING = 8_000
START = 1_760_000_000


def sin(number: int) -> dict[str, object]:
    """A number as v0.0.40 and later write it."""
    return {"set": True, "infinite": False, "number": number}


def node(place: int) -> dict[str, Any]:
    """A node of eight GPUs, all of them given away."""
    name = f"r{place // 16:03d}n{place % 16:02d}"
    return {
        "architecture": "x86_64", "boards": 1, "boot_time": sin(START), "cores": 48, "cpus": 96, "name": name,
        "address": name, "hostname": name, "state": ["MIXED"], "operating_system": "Linux 5.14.0 #1 SMP",
        "features": ["h100", f"rack{place // 16}"], "active_features": ["h100", f"rack{place // 16}"],
        "gres": "gpu:h100:8(S:0-1)", "gres_used": "gpu:h100:8(IDX:0-7)", "gres_drained": "N/A", "partitions": ["gpu"],
        "real_memory": 2_000_000, "alloc_memory": 800_000, "alloc_cpus": 64, "reason": "", "version": "25.11.0",
        "reason_changed_at": sin(0), "tres": "cpu=96,mem=2000000M,billing=96,gres/gpu=8", "weight": 1,
        "tres_used": "cpu=64,mem=800000M,gres/gpu=8,gres/gpu:h100=8", "topology": "", "comment": "",
    }  # fmt: skip


def job(number: int, nodes: list[str]) -> dict[str, Any]:
    """One that runs on these nodes with all their GPUs; without nodes, one that waits. Padded to what Slurm writes."""
    is_running = bool(nodes)
    core = [{"index": place, "status": ["ALLOCATED"]} for place in range(24)]
    sockets = [{"index": socket, "cores": core} for socket in range(2)]
    allocation = [
        {"index": place, "name": name, "cpus": {"count": 96, "used": 0}, "memory": {"used": 0, "allocated": 1}, "sockets": sockets}
        for place, name in enumerate(nodes)
    ]  # fmt: skip
    total = GPUS * max(1, len(nodes))
    return {
        "account": f"proj{number % 97}", "accrue_time": sin(START), "admin_comment": "", "array_job_id": sin(0),
        "array_task_id": {"set": False, "infinite": False, "number": 0}, "array_task_string": "", "batch_flag": True,
        "cluster": "atlas", "command": f"/home/user{number % 211}/run/train-{number}.sh", "dependency": "",
        "eligible_time": sin(START + number), "end_time": sin(START + number + 86_400), "features": "", "flags": ["ACCRUE"],
        "gres_detail": ["gpu:h100:8(IDX:0-7)"] * len(nodes), "het_job_id": sin(0), "het_job_offset": sin(0),
        "job_id": 1_000_000 + number, "job_state": ["RUNNING" if is_running else "PENDING"], "name": f"train-{number % 1000}",
        "nodes": fold(nodes) if nodes else "", "cpus": sin(96 * max(1, len(nodes))), "node_count": sin(max(1, len(nodes))),
        "partition": "gpu", "qos": "normal", "restart_cnt": 0, "start_time": sin(START + number if is_running else 0),
        "state_reason": "None" if is_running else "Priority", "state_description": "", "submit_time": sin(START + number),
        "tasks": sin(1), "time_limit": sin(1440), "tres_req_str": f"cpu=96,mem=1G,node=1,billing=96,gres/gpu={total}",
        "tres_alloc_str": f"cpu=96,mem=1G,node={len(nodes)},billing=96,gres/gpu={total},gres/gpu:h100={total}" if nodes else "",
        "tres_per_node": "gres/gpu:8", "user_id": number % 211, "user_name": f"user{number % 211}", "wckey": "",
        "standard_output": "/home/x/slurm-%j.out" * 4, "current_working_directory": "/home/x" * 8, "submit_line": "sbatch run.sh",
        "job_resources": {"select_type": ["CORE"], "nodes": {"count": len(nodes), "list": "", "allocation": allocation}} if nodes else None,
    }  # fmt: skip


def answers() -> tuple[bytes, bytes]:
    """(jobs, nodes) as slurmrestd and squeue --json=v0.0.44 give them, indented as these do."""
    nodes = [node(place) for place in range(NODES)]
    names = [one["name"] for one in nodes]
    each, jobs, used = [1] * (RUNNING - 100) + [16] * 100, [], 0
    for number, count in enumerate(each):
        held = [names[(used + place) % NODES] for place in range(count)] if used + count <= NODES else []
        used += count
        jobs.append(job(number, held))
    jobs += [job(number, []) for number in range(RUNNING, JOBS)]
    meta = {"slurm": {"version": {"major": "25", "micro": "0", "minor": "11"}, "release": "25.11.0"}}
    return (
        json.dumps({"jobs": jobs, "last_update": sin(START), "meta": meta, "errors": []}, indent=1).encode(),
        json.dumps({"nodes": nodes, "meta": meta, "errors": []}, indent=1).encode(),
    )


def cpu(work: Callable[[], Any]) -> tuple[float, Any]:
    """(CPU seconds of one call, what it gave)"""
    began = time.process_time()
    found = work()
    return time.process_time() - began, found


def measure() -> list[Row]:
    """The rows of the bench table."""
    body, nodes_body = answers()
    monitor = Monitor([SlurmSource(SlurmSettings())], MonitorSettings(), SteadyClock())
    teller = Teller()
    at = monitor.clock()
    (one,) = monitor.collector.supervised

    def parse() -> tuple[Nodes, Jobs]:
        async def both() -> tuple[Nodes, Jobs]:
            return await json_answers.read_nodes(nodes_body, "x"), await json_answers.read_jobs(body, "x")

        return asyncio.run(both())

    def join(said: tuple[Nodes, Jobs]) -> None:
        for item in (*teller.take_nodes(said[0], at), *teller.take_jobs(said[1], at)):
            monitor.collector.take(one, item)

    parsing, said = cpu(parse)
    joining, _ = cpu(lambda: join(said))
    first, snapshot = cpu(monitor.snapshot)
    again, _ = cpu(monitor.snapshot)
    monitor.registry.jobs_version += 1
    changed, _ = cpu(monitor.snapshot)
    reparsing, said = cpu(parse)
    rejoining, _ = cpu(lambda: join(said))
    assert len(snapshot.jobs) + len(snapshot.queue) == JOBS
    size = (len(body) + len(nodes_body)) / 1e6
    return [
        Row(f"{JOBS:,} jobs, {NODES:,} nodes ({size:.0f} MB JSON): parsed and joined, first", parsing + joining, "s CPU", 1.5, "lower"),
        Row("  the same a minute later, nothing changed", reparsing + rejoining, "s CPU", 1.5, "lower"),
        Row("  of it parsing", reparsing, "s CPU", None, "lower"),
        Row("  the first snapshot with them", first, "s CPU", None, "lower"),
        Row("  the next snapshot", again, "s CPU", None, "lower"),
        Row("  a snapshot after a few jobs changed", changed, "s CPU", 0.25, "lower"),
    ]  # fmt: skip


if __name__ == "__main__":
    for row in measure():
        print(row)
