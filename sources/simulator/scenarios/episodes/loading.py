"""Hosts and storage: loaders that do not keep up, checkpoints that cost and checkpoints that do not."""

from __future__ import annotations

from dataclasses import replace

from coldaisle.sources.simulator.plan import Part
from coldaisle.sources.simulator.scenarios.episodes.registry import (
    Draw,
    begin,
    heavy,
    scenario,
    train,
    widely,
)
from coldaisle.sources.simulator.scenarios.labels import Scenario
from coldaisle.sources.simulator.scenarios.pieces import Cause, Host, Piece
from coldaisle.sources.simulator.scenarios.work import Phase

STARVING = "data_loader_starvation"
SAVING = "checkpoint_stall"


def _starving(s: Scenario, part: Part, draw: Draw, host: Host) -> Piece:
    """A loader that was fast enough and becomes slower than the boards, by little or by much."""
    profile = str(draw.choice(("vit-ddp", "diffusion", "sft")))
    made = train(s, part, draw, profile, compute=float(draw.uniform(1.0, 2.2)))
    assert made.program is not None
    kept = float(draw.uniform(0.45, 0.85))
    step = made.program["compute"] + made.program["comm"] + made.program["host"]
    slower = widely(draw, 1.06, 4.0) / kept
    at = begin(draw)
    return replace(
        made, program=made.program | {"batch": kept * step}, host=host, start=at, evident_by="starved",
        causes=(Cause("loader", slower, None, at),),
    )  # fmt: skip


@scenario("starving_cpu", "too few CPUs decode the data", STARVING, ("idle_allocation", SAVING, "communication_stall"), "cpu", needs=("host",))  # fmt: skip
def _cpu(s: Scenario, part: Part, draw: Draw) -> Piece:
    cores = 0.9 if draw.random() < 0.5 else float(draw.uniform(0.08, 0.5))
    return _starving(s, part, draw, Host(0.06, "cpu", cores, float(draw.uniform(1.5, 4.0)), read=float(draw.uniform(5e7, 3e8))))  # fmt: skip


@scenario("starving_io", "the file system does not deliver", STARVING, (SAVING, "communication_stall"), "io", needs=("host",))  # fmt: skip
def _io(s: Scenario, part: Part, draw: Draw) -> Piece:
    ceiling = bool(draw.random() < 0.5)
    read = float(draw.uniform(0.6e9, 1.2e9)) if ceiling else float(draw.uniform(1e8, 5e8))
    return _starving(
        s, part, draw, Host(0.05, "io", crowd=float(draw.uniform(1, 3)), read=read, at_ceiling=ceiling)
    )


@scenario(
    "starving_host",
    "one Python thread cannot keep up",
    STARVING,
    ("communication_stall", "straggler"),
    "host",
)
def _host(s: Scenario, part: Part, draw: Draw) -> Piece:
    return _starving(s, part, draw, Host(0.05, "host", read=float(draw.uniform(2e7, 1e8))))


@scenario("cpu_offload", "the optimiser runs on the CPU in every step", STARVING, ("power_capping", "interconnect_saturation", "idle_allocation"), "host")  # fmt: skip
def _offload(s: Scenario, part: Part, draw: Draw) -> Piece:
    """As measured: a cycle of 3.5 s, the boards busy for about a quarter of it, PCIe bursts of some GB/s."""
    at = begin(draw)
    made = train(
        s,
        part,
        draw,
        "sft",
        compute=float(draw.uniform(0.9, 1.4)),
        pcie=float(draw.uniform(1e10, 2e10)),
        host=0.05,
    )
    return replace(made, host=Host(0.05, "host"), start=at, evident_after=5, causes=(Cause("host", float(draw.uniform(1.5, 2.8)), None, at),))  # fmt: skip


def _saving(s: Scenario, part: Part, draw: Draw, **over: float) -> Piece:
    made = heavy(s, part, draw, **over)
    return replace(made, host=replace(made.host, write=float(draw.uniform(1.5e9, 6e9))))


@scenario("checkpoint_dear", "checkpoints take a good part of the time", SAVING, (STARVING, "idle_allocation", "communication_stall"), "periodic", minutes=35, needs=("host",))  # fmt: skip
def _dear(s: Scenario, part: Part, draw: Draw) -> Piece:
    every = float(draw.uniform(200, 400))
    made = _saving(s, part, draw, save_every=every, save_for=float(draw.uniform(2, 5)))
    at = 120.0
    return replace(
        made, start=at, evident_by="saving", causes=(Cause("saves", float(draw.uniform(6, 25)), None, at),)
    )


@scenario("checkpoint_alone", "rank 0 writes the whole checkpoint, all others wait for it", SAVING, ("communication_stall", "straggler"), "rank 0", minutes=35, needs=("host",))  # fmt: skip
def _rank0(s: Scenario, part: Part, draw: Draw) -> Piece:
    every = float(draw.uniform(240, 400))
    made = _saving(s, part, draw, save_every=every, save_for=float(draw.uniform(3, 6)), alone=1.0)
    at = 120.0
    return replace(
        made, start=at, evident_by="saving", causes=(Cause("saves", float(draw.uniform(8, 20)), None, at),)
    )


@scenario("long_save", "one save that takes minutes", SAVING, ("communication_stall", "idle_allocation"), "long", needs=("host",))  # fmt: skip
def _long(s: Scenario, part: Part, draw: Draw) -> Piece:
    at = begin(draw)
    end = at + float(draw.uniform(180, 480))
    made = heavy(s, part, draw)
    saves = (Cause("phase", float(Phase.SAVE), None, at), Cause("phase", float(Phase.LOAD), None, end))
    slow = replace(made.host, write=widely(draw, 2e8, 3e9))
    return replace(made, host=slow, start=at, evident_after=2, end=end, loss=1.0, causes=saves)


@scenario("checkpoint_cheap", "a few seconds every few minutes", like=(SAVING, STARVING), minutes=30)
def _cheap(s: Scenario, part: Part, draw: Draw) -> Piece:
    return _saving(
        s, part, draw, save_every=float(draw.uniform(240, 400)), save_for=float(draw.uniform(2, 7))
    )


@scenario("checkpoint_async", "checkpoints are written in the background", like=(SAVING, "interconnect_saturation"), minutes=30)  # fmt: skip
def _async(s: Scenario, part: Part, draw: Draw) -> Piece:
    return _saving(s, part, draw, save_every=float(draw.uniform(200, 350)), save_for=15.0, save_async=float(draw.uniform(30, 90)))  # fmt: skip
