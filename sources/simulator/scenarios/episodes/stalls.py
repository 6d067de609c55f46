"""Ranks that others wait for: hangs, latecomers, stragglers."""

from __future__ import annotations

from dataclasses import replace

from coldaisle.sources.simulator.plan import Part
from coldaisle.sources.simulator.scenarios.episodes.registry import (
    Draw,
    adapted,
    any_gpu,
    begin,
    heavy,
    scenario,
    train,
    widely,
)
from coldaisle.sources.simulator.scenarios.labels import Scenario
from coldaisle.sources.simulator.scenarios.pieces import SLOTS, Cause, Feed, Piece
from coldaisle.sources.simulator.scenarios.work import Phase

STALL, SLOW = "communication_stall", "straggler"
NODE = tuple(range(SLOTS))


@scenario(
    "hung",
    "one rank is gone, all others wait for ever",
    STALL,
    ("idle_allocation", SLOW, "gpu_fault"),
    "hung",
)
def _hung(s: Scenario, part: Part, draw: Draw) -> Piece:
    gpu, at = (any_gpu(draw, s.nodes),), begin(draw)
    return replace(
        train(s, part, draw), roots=gpu, start=at, evident_after=8, loss=1.0, causes=(Cause("absent", 1.0, gpu, at),)
    )  # fmt: skip


@scenario("deadlock", "all ranks wait in a collective that never ends", STALL, ("idle_allocation", "data_loader_starvation"), "hung")  # fmt: skip
def _deadlock(s: Scenario, part: Part, draw: Draw) -> Piece:
    at = begin(draw)
    return replace(
        train(s, part, draw), start=at, evident_after=8, loss=1.0, causes=(Cause("phase", float(Phase.HUNG), None, at),)
    )  # fmt: skip


@scenario("late_rank", "one rank does not come for minutes, and then it does", STALL, (SLOW, "data_loader_starvation", "checkpoint_stall"), "waiting")  # fmt: skip
def _late(s: Scenario, part: Part, draw: Draw) -> Piece:
    gpu, at = (any_gpu(draw, s.nodes),), begin(draw)
    end = at + float(draw.uniform(240, 500))
    return replace(
        train(s, part, draw), roots=gpu, start=at, evident_after=8, end=end, loss=1.0, causes=(Cause("late", 1.0, gpu, at, end),)
    )  # fmt: skip


@scenario("hang_after_finish", "one node has finished, the other waits for it in the last collective", STALL, ("idle_allocation",), "finished", minutes=25)  # fmt: skip
def _finish(s: Scenario, part: Part, draw: Draw) -> Piece:
    at = begin(draw)
    return replace(
        train(s, part, draw), roots=NODE, root_nodes=(0,), start=at, evident_after=8, loss=1.0, causes=(Cause("late", 1.0, NODE, at),)
    )  # fmt: skip


@scenario("long_compile", "ten minutes of compilation before the first step", like=(STALL, "idle_allocation"))
def _compile(s: Scenario, part: Part, draw: Draw) -> Piece:
    return replace(train(s, part, draw, starts_for=float(draw.uniform(420, 620))), job_started=0.0)


@scenario("straggler_clock", "one board is slower, for no reason that it tells", SLOW, (STALL, "thermal_throttling", "power_capping"), "clock")  # fmt: skip
def _clock(s: Scenario, part: Part, draw: Draw) -> Piece:
    gpu, at = (any_gpu(draw, s.nodes),), begin(draw)
    slow = Cause("lame_clock", float(draw.uniform(0.35, 0.75)), gpu, at)
    return replace(heavy(s, part, draw), roots=gpu, start=at, evident_after=3, causes=(slow,))


@scenario("straggler_cpu", "a neighbour takes the CPUs of one node", SLOW, (STALL, "data_loader_starvation"), "cpu", needs=("host",))  # fmt: skip
def _cpu(s: Scenario, part: Part, draw: Draw) -> Piece:
    at = begin(draw)
    slow = Cause("launch", float(draw.uniform(1.1, 2.5)), NODE, at)
    return replace(
        train(s, part, draw, "sft"), roots=NODE, root_nodes=(0,), start=at, evident_after=3, causes=(slow,),
        feeds=(Feed("cpu_busy", at, where=NODE),),
    )  # fmt: skip


@scenario("straggler_pcie", "one board's copies crawl, though its link looks whole", SLOW, (STALL, "interconnect_degraded", "data_loader_starvation"), "pcie")  # fmt: skip
def _pcie(s: Scenario, part: Part, draw: Draw) -> Piece:
    made = train(s, part, draw, "vit-ddp", compute=float(draw.uniform(1.0, 1.6)))
    assert made.program is not None
    usable = 5.6e10 if part.pcie_gen >= 5 else 2.6e10
    share = float(draw.uniform(0.15, 0.5))
    made = adapted(made, pcie=share * usable * made.program["compute"])
    gpu, at = (any_gpu(draw, s.nodes),), begin(draw)
    slow = Cause("pcie", share / widely(draw, 1.15, 4.0), gpu, at)
    return replace(made, roots=gpu, start=at, evident_after=3, causes=(slow,))
