"""Memory that runs out, and boards that are held for nothing."""

from __future__ import annotations

import math
from dataclasses import replace

from coldaisle.sources.simulator.plan import Part
from coldaisle.sources.simulator.scenarios.episodes.registry import (
    Draw,
    any_gpu,
    begin,
    killed,
    scenario,
    train,
)
from coldaisle.sources.simulator.scenarios.labels import Scenario
from coldaisle.sources.simulator.scenarios.pieces import SLOTS, Cause, Piece, Told
from coldaisle.sources.simulator.scenarios.work import Phase

MEMORY, IDLE = "memory_exhaustion", "idle_allocation"
SHOWS_S = 900.0
"""By definition a board is idle when it has been so for a quarter of an hour."""


@scenario(
    "oom", "device memory grows until a process dies", MEMORY, ("gpu_fault", "communication_stall"), "device"
)
def _oom(s: Scenario, part: Part, draw: Draw) -> Piece:
    gpu, at = (any_gpu(draw, s.nodes),), begin(draw)
    grows = float(draw.uniform(200, 400))
    dies = at + grows + float(draw.uniform(20, 60))
    more = Cause("memory", 0.997, gpu, at, ramp=grows)
    gone = Cause("absent", 1.0, gpu, dies)
    made = replace(train(s, part, draw), memory=float(draw.uniform(0.6, 0.8)))
    return replace(
        made, roots=gpu, start=at, evident_after=0.85 * grows, loss=math.nan, causes=(more, gone),
        told=(Told(dies, "xid", gpu[0], "Xid 31, pid=4242, name=python3, MMU Fault"),),
    )  # fmt: skip


@scenario("host_oom", "a node's memory grows until the kernel kills", MEMORY, ("communication_stall",), "host", needs=("host",))  # fmt: skip
def _host(s: Scenario, part: Part, draw: Draw) -> Piece:
    node, at = tuple(range(SLOTS)), begin(draw)
    grows = float(draw.uniform(200, 420))
    dies = at + grows + float(draw.uniform(10, 40))
    more = Cause("host_memory", 0.99, node, at, dies + 5, ramp=grows)
    return replace(
        train(s, part, draw), root_nodes=(0,), start=at, evident_after=0.9 * grows, loss=math.nan,
        causes=(more, Cause("absent", 1.0, (2,), dies)), told=(Told(dies, "oom", 0, "1 more"),),
    )  # fmt: skip


@scenario("preallocator", "nearly all memory by design, from the start", like=(MEMORY,))
def _prealloc(s: Scenario, part: Part, draw: Draw) -> Piece:
    return replace(train(s, part, draw), memory=float(draw.uniform(0.9, 0.975)))


@scenario("host_cache", "much host memory in use, and steady", like=(MEMORY,))
def _steady(s: Scenario, part: Part, draw: Draw) -> Piece:
    full = Cause("host_memory", float(draw.uniform(0.75, 0.88)), None, 0.0, is_cause=False)
    return replace(train(s, part, draw), causes=(full,))


@scenario("idle_never_started", "a job that has its boards and never touched them", IDLE, ("gpu_fault", "telemetry_gap"), "unused", minutes=45)  # fmt: skip
def _never(s: Scenario, part: Part, draw: Draw) -> Piece:
    nothing = Cause("phase", float(Phase.NONE), None, 0.0)
    return replace(train(s, part, draw), job_started=0.0, evident_after=SHOWS_S, loss=1.0, causes=(nothing,))


@scenario("idle_after_start", "a job that ended its work and kept its boards", IDLE, ("data_loader_starvation", "communication_stall"), "loaded", minutes=45)  # fmt: skip
def _after(s: Scenario, part: Part, draw: Draw) -> Piece:
    at = float(draw.uniform(180, 300))
    over = Cause("phase", float(Phase.IDLE), None, at)
    return replace(train(s, part, draw), start=at, evident_after=SHOWS_S, loss=1.0, causes=(over,))


@scenario("idle_some", "a job that uses some of its boards", IDLE, ("straggler", "gpu_fault"), "some", minutes=45, nodes=1)  # fmt: skip
def _some(s: Scenario, part: Part, draw: Draw) -> Piece:
    used = int(draw.choice((2, 4, 6)))  # one alone may be meant so: nobody can tell
    idle = tuple(range(used, SLOTS))
    return replace(train(s, part, draw, "sft", 1), uses=tuple(range(used)), evident_after=SHOWS_S, loss=1 - used / SLOTS, roots=idle)  # fmt: skip


@scenario(
    "between_cells", "an interactive job, idle for minutes between cells", like=(IDLE,), minutes=45, nodes=1
)
def _cells(s: Scenario, part: Part, draw: Draw) -> Piece:
    made = train(
        s,
        part,
        draw,
        "sft",
        rest_every=float(draw.uniform(20, 60)),
        rest_for=float(draw.uniform(240, 540)),
        comm=0.0,
    )
    return replace(
        made,
        job_gpus=(0,),
        name="interactive-jupyter",
        workload="interactive",
        memory=0.25,
        job_started=-1800.0,
    )


@scenario("short_idle", "a job that ends soon after its work", like=(IDLE, "communication_stall"))
def _short(s: Scenario, part: Part, draw: Draw) -> Piece:
    at = begin(draw)
    idle = Cause("phase", float(Phase.IDLE), None, at, is_cause=False)
    made = replace(train(s, part, draw), causes=(idle,))
    return killed(made, at + float(draw.uniform(60, 150)), "COMPLETED")
