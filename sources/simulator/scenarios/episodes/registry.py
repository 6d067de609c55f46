"""Where episodes are registered, and what they have in common."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from coldaisle.sources.simulator.plan import Part, models
from coldaisle.sources.simulator.scenarios.labels import Scenario
from coldaisle.sources.simulator.scenarios.pieces import SLOTS, Cause, Host, Piece
from coldaisle.sources.simulator.scenarios.work import Phase

Draw = np.random.Generator
Maker = Callable[[Scenario, Part, Draw], Piece]
FOREVER = float("inf")
PROFILES = ("llm-pretrain", "train-moe", "tp-pp-llm", "sft", "vit-ddp", "diffusion")
FIRST_S, LAST_S = 300.0, 480.0
"""When causes begin: after some healthy minutes."""

SCENARIOS: dict[str, Scenario] = {}
_MAKERS: dict[str, Maker] = {}


def scenario(
    name: str, help: str, condition: str = "", like: tuple[str, ...] = (), variant: str = "", *, minutes: float = 20.0,
    nodes: int = 2, needs: tuple[str, ...] = (),
) -> Callable[[Maker], Maker]:  # fmt: skip
    """Register an episode."""

    def register(make: Maker) -> Maker:
        SCENARIOS[name] = Scenario(name, help, condition, like, variant, minutes, nodes, needs)
        _MAKERS[name] = make
        return make

    return register


def piece(name: str, part: Part, draw: Draw) -> Piece:
    """An episode with its numbers drawn. KeyError: no such scenario."""
    return _MAKERS[name](SCENARIOS[name], part, draw)


def program(draw: Draw, part: Part, profile: str = "", **over: float) -> dict[str, float]:
    """A training loop as measured programs run; steps of one to six seconds. ``over``: fields of Program."""
    row = models()["training"][profile or str(draw.choice(PROFILES))]
    step = float(np.clip(row["step"] * draw.uniform(0.8, 1.3), 1.0, 6.5))
    comm, host = row["comm"] * step, max(row["host"], 0.01) * step
    compute = max(step - comm - host, 0.3 * step)
    made = {
        "compute": compute, "host": host * 0.5, "comm": comm, "nvlink": row["nvlink"] * step * part.nvlink / 4.5e11,
        "fabric": row["fabric"] * step * part.port / 5e10, "pcie": row["pcie"] * step, "overlap": float(draw.uniform(0.7, 0.92)),
        "batch": compute * float(draw.uniform(0.2, 0.5)), "clock_share": row["clock"] * float(draw.uniform(0.75, 1.0)),
        "sm": row["sm"] * float(draw.uniform(0.92, 1.03)), "tensor": row["sm"] * row["tensor"] * float(draw.uniform(0.85, 1.1)),
        "dram": row["dram"], "save_every": FOREVER, "save_for": row["pause"] or 10.0,
    }  # fmt: skip
    made.update(over)
    return made


def train(
    s: Scenario, part: Part, draw: Draw, profile: str = "", nodes: int | None = None, **over: float
) -> Piece:
    """A training job on all GPUs of its nodes. ``over``: fields of Program."""
    host = Host(cpu=float(draw.uniform(0.04, 0.2)), read=float(draw.uniform(2e7, 2.5e8)))
    return Piece(
        s,
        part,
        nodes or s.nodes,
        program(draw, part, profile, **over),
        memory=float(draw.uniform(0.55, 0.9)),
        host=host,
    )


def heavy(s: Scenario, part: Part, draw: Draw, **over: float) -> Piece:
    """A dense job near the boards' power limit, which heat and caps are felt by."""
    return train(s, part, draw, "llm-pretrain", None, **over)


def adapted(made: Piece, **over: float) -> Piece:
    """A piece with fields of its program changed."""
    assert made.program is not None
    return replace(made, program=made.program | over)


def begin(draw: Draw) -> float:
    """When a cause begins."""
    return float(draw.uniform(FIRST_S, LAST_S))


def widely(draw: Draw, least: float, most: float) -> float:
    """A strength, as often in the lower octaves as in the upper ones."""
    return float(np.exp(draw.uniform(np.log(least), np.log(most))))


def any_gpu(draw: Draw, nodes: int) -> int:
    """One GPU of the piece."""
    return int(draw.integers(nodes * SLOTS))


def killed(made: Piece, at: float, reason: str, after: float = 3.0) -> Piece:
    """Its job dies: all processes end, and the scheduler knows it soon."""
    gone = Cause("phase", float(Phase.NONE), None, at)
    return replace(made, causes=(*made.causes, gone), job_ended=at + after, end_reason=reason)
