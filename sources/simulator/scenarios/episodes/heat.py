"""Heat and power: what slows clocks."""

from __future__ import annotations

from dataclasses import replace

from coldaisle.sources.simulator.plan import Part
from coldaisle.sources.simulator.scenarios.episodes.registry import (
    Draw,
    any_gpu,
    begin,
    heavy,
    scenario,
    train,
    widely,
)
from coldaisle.sources.simulator.scenarios.labels import Scenario
from coldaisle.sources.simulator.scenarios.pieces import SLOTS, Cause, Feed, Piece

HEAT, POWER = "thermal_throttling", "power_capping"
NODE = tuple(range(SLOTS))


@scenario(
    "thermal_gpu",
    "the paste of one board has dried",
    HEAT,
    ("straggler", POWER, "communication_stall"),
    "core",
)
def _one(s: Scenario, part: Part, draw: Draw) -> Piece:
    gpu, at = (any_gpu(draw, s.nodes),), begin(draw)
    heat = Cause("overheat", widely(draw, 4, 100), gpu, at, ramp=float(draw.uniform(20, 200)))
    return replace(heavy(s, part, draw), roots=gpu, start=at, evident_by="by_heat", causes=(heat,))


@scenario(
    "thermal_node", "a fan of one node has stopped", HEAT, ("straggler", POWER, "communication_stall"), "node"
)
def _node(s: Scenario, part: Part, draw: Draw) -> Piece:
    at = begin(draw)
    heat = Cause("overheat", widely(draw, 5, 70), NODE, at, ramp=60)
    return replace(
        heavy(s, part, draw), roots=NODE, root_nodes=(0,), start=at, evident_by="by_heat", causes=(heat,),
        feeds=(Feed("fan", at, where=NODE),),
    )  # fmt: skip


@scenario("thermal_room", "the cooling of a rack fails", HEAT, (POWER, "straggler"), "room", nodes=4)
def _room(s: Scenario, part: Part, draw: Draw) -> Piece:
    at = begin(draw)
    air = Cause("hottest", -widely(draw, 8, 32), None, at, ramp=float(draw.uniform(90, 240)))
    every = tuple(range(4 * SLOTS))
    return replace(
        heavy(s, part, draw), roots=every, root_nodes=(0, 1, 2, 3), root_rack=True, start=at, evident_by="by_heat", causes=(air,)
    )  # fmt: skip


@scenario("thermal_hbm", "HBM overheats under a cool core", HEAT, ("straggler", POWER), "hbm")
def _hbm(s: Scenario, part: Part, draw: Draw) -> Piece:
    gpu, at = (any_gpu(draw, s.nodes),), begin(draw)
    heat = Cause("hbm_overheat", widely(draw, 12, 160), gpu, at, ramp=60)
    return replace(heavy(s, part, draw), roots=gpu, start=at, evident_by="by_heat", causes=(heat,))


def _capped(s: Scenario, part: Part, draw: Draw, where: tuple[int, ...], low: float, high: float) -> Piece:
    """A limit below the board's own, from some instant on or since before anybody looked."""
    at = begin(draw) if draw.random() < 0.6 else 0.0
    cap = Cause("limit", float(draw.uniform(low, high)), where, at)
    return replace(heavy(s, part, draw), roots=where, start=at, evident_after=2, causes=(cap,))


@scenario("operator_cap", "the operator lowered the limits of a job's nodes", POWER, (HEAT, "straggler"), "operator", needs=("default",))  # fmt: skip
def _cap(s: Scenario, part: Part, draw: Draw) -> Piece:
    return replace(_capped(s, part, draw, tuple(range(2 * SLOTS)), 0.4, 0.85), root_nodes=(0, 1))


@scenario("unequal_limits", "one board of a job has a lower limit", POWER, ("straggler", HEAT), "unequal", needs=("default",))  # fmt: skip
def _unequal(s: Scenario, part: Part, draw: Draw) -> Piece:
    return _capped(s, part, draw, (any_gpu(draw, s.nodes),), 0.4, 0.8)


@scenario(
    "power_brake", "the power supply pulls the brake", POWER, (HEAT, "straggler"), "brake", needs=("default",)
)
def _brake(s: Scenario, part: Part, draw: Draw) -> Piece:
    at = begin(draw)
    return replace(
        heavy(s, part, draw), roots=NODE, root_nodes=(0,), start=at, evident_by="by_brake", causes=(Cause("brake", 1.0, NODE, at),)
    )  # fmt: skip


@scenario("idle_cap", "a low limit under a load that does not reach it", like=(POWER,))
def _unfelt(s: Scenario, part: Part, draw: Draw) -> Piece:
    made = train(s, part, draw, "gnn")
    return replace(made, causes=(Cause("limit", float(draw.uniform(0.8, 0.9)), None, 0.0, is_cause=False),))
