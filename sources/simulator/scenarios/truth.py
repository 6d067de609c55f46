"""The truth of a world: what each cause costs, against the same world without it, and from when it could be seen."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from coldaisle.sources.simulator.plan import Array, Bools
from coldaisle.sources.simulator.scenarios.labels import Label
from coldaisle.sources.simulator.scenarios.pieces import SLOTS, Piece
from coldaisle.sources.simulator.scenarios.world import Recorded, Stage

STEADY_S = 10
"""What shows for a share of so many seconds has begun to show."""
SHOWS = 0.1
FULL = 0.9
"""A KV cache that is this full has no room for the next prompt."""
WITHOUT_LOSS = frozenset({"telemetry_gap", "gpu_fault", "memory_exhaustion"})
"""Conditions that are not weak because nothing is lost yet."""
WEAK = 0.10
"""A cause that costs less than this may be missed."""


def label_of(
    stage: Stage, number: int, real: Recorded, healthy: Recorded, start: float, names: Names
) -> Label:
    """The label of a piece; ``start``: when the world begins."""
    piece = stage.pieces[number]
    scenario = piece.scenario
    end = min(piece.end, float(stage.seconds))
    evident = min(evident_at(stage, number, real), end)
    lost = loss_of(stage, number, real, healthy, evident, end) if scenario.condition else 0.0
    place = stage.places[number]
    gpus = [f"{names.nodes[g // SLOTS]}/{g % SLOTS}" for g in place.gpus.tolist()]
    roots = tuple(gpus[g] for g in piece.roots)
    first = int(place.gpus[0]) // SLOTS
    has_job = piece.program is not None
    held = set(place.held.tolist())
    victims = (gpus[g] for g in range(len(gpus)) if int(place.gpus[g]) in held and gpus[g] not in roots)
    costs = scenario.condition not in WITHOUT_LOSS
    weak = bool(scenario.condition) and costs and lost < WEAK if piece.weak is None else piece.weak
    return Label(
        scenario.name, scenario.condition, scenario.lookalike_of, start + min(piece.start, end), start + evident,
        start + over_at(stage, number, real, end), start + end, piece.evident_samples,
        gpus=roots,
        nodes=tuple(names.nodes[first + n] for n in piece.root_nodes),
        racks=(names.racks[number],) if piece.root_rack else (),
        servers=tuple(names.server_keys[s] for s in _servers(stage, number)),
        jobs=(job_id(number),) if has_job else (),
        victims=tuple(victims) if roots and has_job else (),
        loss=lost, variant=scenario.variant, is_weak=weak, needs=scenario.needs,
    )  # fmt: skip


class Names:
    """What nodes, racks and servers are called."""

    def __init__(self, stage: Stage) -> None:
        """Rack by rack: a piece has one of its own."""
        self.racks = tuple(f"r{number + 1:02}" for number in range(len(stage.pieces)))
        self.nodes = tuple(
            f"{rack}n{node + 1:02}"
            for rack, piece in zip(self.racks, stage.pieces, strict=True)
            for node in range(piece.nodes)
        )
        self.servers = tuple(self._server(stage, p, w) for p, w in stage.servers)
        self.server_keys = tuple(f"{name.partition(':')[0]}/{name}" for name in self.servers)

    def _server(self, stage: Stage, piece: int, which: int) -> str:
        return f"{self.nodes[int(stage.server_gpus(piece, which)[0]) // SLOTS]}:{8000 + which}"


def job_id(number: int) -> str:
    """Of the job of a piece."""
    return f"slurm:{4000 + number}"


def loss_of(
    stage: Stage, number: int, real: Recorded, healthy: Recorded, evident: float, end: float
) -> float:
    """Share of work lost while the cause shows, by progress; 0 where nothing works."""
    piece = stage.pieces[number]
    if piece.loss is not None:
        return piece.loss
    first, last = int(min(evident, end - 2)), int(end) - 1
    if piece.services:
        mine = _servers(stage, number)
        done, could = (float((r.tokens[last, mine] - r.tokens[first, mine]).sum()) for r in (real, healthy))
    else:
        done, could = (float(r.steps[last, number] - r.steps[first, number]) for r in (real, healthy))
    return float(np.clip(1 - done / could, 0.0, 1.0)) if could > 0 else 0.0


def evident_at(stage: Stage, number: int, real: Recorded) -> float:
    """Seconds at which it could be seen first; the end of the world, if it never shows."""
    piece = stage.pieces[number]
    if not piece.evident_by:
        return piece.start + piece.evident_after
    share = _steadily(stage, number, real)
    share[: int(piece.start)] = 0.0
    seen = np.flatnonzero(share >= SHOWS)
    return max(float(seen[0]), piece.start) if len(seen) else float(stage.seconds)


def over_at(stage: Stage, number: int, real: Recorded, end: float) -> float:
    """Seconds at which it shows no more, of a cause that ended at ``end``: a queue outlives the load that made it."""
    if stage.pieces[number].evident_by != "waiting":
        return end
    gone = np.flatnonzero(_steadily(stage, number, real)[int(end) :] < SHOWS)
    return end + float(gone[0]) if len(gone) else float(stage.seconds)


def _steadily(stage: Stage, number: int, real: Recorded) -> Array:
    """[second] share of the last seconds in which it showed."""
    shows = _shows(stage, number, stage.pieces[number], real)
    return np.convolve(shows, np.ones(STEADY_S) / STEADY_S, mode="full")[: len(shows)]


def _shows(stage: Stage, number: int, piece: Piece, real: Recorded) -> Bools:
    """[second]"""
    place = stage.places[number]
    gpus = place.gpus[list(piece.roots)] if piece.roots else place.held
    what = piece.evident_by
    if what in ("starved", "saving"):
        shown: Bools = real.node[what][:, int(place.gpus[0]) // SLOTS] > 0
    elif what == "pressed":
        kv, waiting = (real.server[key][:, _servers(stage, number)] for key in ("kv", "waiting"))
        shown = np.asarray(((kv >= FULL) & (waiting >= 1)).any(axis=1))
    elif what == "waiting":
        shown = real.server[what][:, _servers(stage, number)].max(axis=1) >= 1
    else:
        shown = real.gpu[what][:, gpus].max(axis=1) > 0
    return shown


def _servers(stage: Stage, number: int) -> list[int]:
    piece, mine = stage.pieces[number], stage.places[number].servers
    which: Sequence[int] = range(len(mine)) if piece.root_servers is None else piece.root_servers
    return [mine[w] for w in which]
