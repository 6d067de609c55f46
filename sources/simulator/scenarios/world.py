"""A world: episodes side by side, each with nodes, a job or a service of its own, simulated once and looked at in many ways."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np

from coldaisle.sources.simulator.plan import Array, Bools, Ints
from coldaisle.sources.simulator.scenarios.changes import Changes, Place, rest
from coldaisle.sources.simulator.scenarios.parts import Boards, Held, boards, settle, temperature
from coldaisle.sources.simulator.scenarios.pieces import SLOTS, Cause, Piece
from coldaisle.sources.simulator.scenarios.serving import Server, unbounded
from coldaisle.sources.simulator.scenarios.work import (
    ACHIEVABLE,
    DEFAULTS,
    Activity,
    Conditions,
    Crew,
    Phase,
    Program,
    conditions,
)
from coldaisle.sources.source import Floats

STEP_S = 0.25
SERVER_STEP_S = 1.0
IDLE, APP, POWER, HW, SW_HEAT, HW_HEAT, BRAKE = 0x1, 0x2, 0x4, 0x8, 0x20, 0x40, 0x80
"""Clock-event reasons, as NVML has them."""

GPU_KEYS = (
    "util", "sm", "tensor", "dram", "power", "clock", "temp", "mem_temp", "bits", "by_heat", "by_hw_heat", "by_power",
    "by_brake", "nvlink", "rail", "wait", "pcie_rx", "pcie_tx", "memory", "limit", "context",
)  # fmt: skip
_LAST = frozenset({"clock", "temp", "mem_temp", "bits", "memory", "limit", "context"})
"""Of a second its last instant; of everything else the mean."""
NODE_KEYS = ("loading", "starved", "loader", "saving", "write", "computing", "host_memory", "inlet")
SERVER_KEYS = (
    "kv", "running", "waiting", "preemptions", "gen", "prompt", "ttft50", "ttft99", "itl50", "itl99", "queue50", "queue99",
    "e2e99", "finished", "hit",
)  # fmt: skip


@dataclass(eq=False)
class Recorded:
    """A second a row."""

    gpu: dict[str, Floats] = field(default_factory=dict)
    node: dict[str, Floats] = field(default_factory=dict)
    server: dict[str, Floats] = field(default_factory=dict)
    steps: Array = field(default_factory=lambda: np.zeros((0, 0)))
    """[second, job]"""
    tokens: Array = field(default_factory=lambda: np.zeros((0, 0)))
    """[second, server] generated so far, without what was computed again"""


class Stage:
    """All pieces on one stage, ready to be played with or without their causes."""

    def __init__(self, pieces: Sequence[Piece], seed: int, seconds: int) -> None:
        self.pieces = tuple(pieces)
        self.seed = seed
        self.seconds = seconds
        sizes = [piece.nodes * SLOTS for piece in pieces]
        self.first = np.concatenate([[0], np.cumsum(sizes)]).astype(np.intp)
        self.gpus = int(self.first[-1])
        self.nodes = self.gpus // SLOTS
        self.piece_of = np.repeat(np.arange(len(sizes)), sizes)
        """[gpu]"""
        self.servers = [(n, w) for n, piece in enumerate(pieces) for w in range(len(piece.services))]
        self.places = [self._place(number) for number in range(len(pieces))]
        self.job_of = np.full(self.gpus, -1, dtype=np.intp)
        for place in self.places:
            self.job_of[place.held] = place.number

    def _place(self, number: int) -> Place:
        piece = self.pieces[number]
        every = np.arange(self.first[number], self.first[number + 1])
        used = piece.uses if piece.uses is not None else piece.job_gpus
        held = every if used is None else every[list(used)]
        servers = tuple(i for i, (n, _) in enumerate(self.servers) if n == number)
        return Place(number, every, held if piece.program is not None else every[:0], servers)

    def gpus_of(self, piece: int, where: Sequence[int] | None = None) -> Ints:
        """Numbers of a piece's GPUs in the world."""
        every = self.places[piece].gpus
        return every if where is None else every[list(where)]

    def server_gpus(self, piece: int, which: int) -> Ints:
        """GPUs that a server runs on."""
        of = self.pieces[piece]
        first = int(self.first[piece]) + of.server_first + which * of.server_gpus
        return np.arange(first, first + of.server_gpus)

    def per_gpu(self, name: str) -> Array:
        """[gpu] a number of its part."""
        each = np.array([float(getattr(piece.part, name)) for piece in self.pieces])
        found: Array = each[self.piece_of]
        return found

    def play(self, *, with_causes: bool = True) -> Recorded:
        """Simulate it; without its causes only the progress is kept."""
        draw = np.random.default_rng((self.seed, 1))
        b = boards(tuple(self.pieces[n].part for n in self.piece_of.tolist()), draw)
        c = conditions(len(self.pieces), self.gpus)
        crew = self._crew(draw)
        servers = [self._server(p, w, with_causes) for p, w in self.servers]
        others = rest(self.pieces, self.places, self.gpus, len(servers))
        for piece, which in self.servers:
            others.memory[self.server_gpus(piece, which)] = self.pieces[piece].memory
        changes = Changes(b, c, crew, others, servers, self._causes(with_causes))
        recorder = Recorder(self, keeps_all=with_causes)
        serves = np.concatenate([self.server_gpus(*of) for of in self.servers]) if servers else None
        sizes = [self.pieces[piece].server_gpus for piece, _ in self.servers]
        chatter = np.repeat(
            [self.pieces[p].server_nvlink * (self.pieces[p].server_gpus > 1) for p, _ in self.servers], sizes
        )
        for second in range(self.seconds):
            for server in servers:
                server.advance(second + 1.0, SERVER_STEP_S)
            for part in range(round(1 / STEP_S)):
                time = second + part * STEP_S
                changes.apply(time)
                act = crew.advance(time, STEP_S, c, b.clock / b.clock_max, b.spin_sm)
                if serves is not None:
                    _serve(act, servers, serves, sizes, chatter)
                held = settle(
                    b, STEP_S, act.kernel, act.spins, act.context, act.sm, act.tensor, act.dram, act.nvlink
                )
                if with_causes:
                    recorder.take(act, b, c, held, crew)
            recorder.second(second, crew, c, servers, changes)
        return recorder.recorded

    def _server(self, piece: int, which: int, with_causes: bool) -> Server:
        service = self.pieces[piece].services[which]
        if self.pieces[piece].is_demand and not with_causes:
            service = unbounded(service)
        return Server(service, np.random.default_rng((self.seed, 2, piece, which)))

    def _causes(self, with_causes: bool) -> list[tuple[Cause, Place]]:
        return [
            (cause, place)
            for piece, place in zip(self.pieces, self.places, strict=True)
            for cause in piece.causes
            if with_causes or piece.is_demand or not cause.is_cause
        ]

    def _crew(self, draw: np.random.Generator) -> Crew:
        programs = [piece.program or {} for piece in self.pieces]
        columns = {
            f.name: np.array([p.get(f.name, DEFAULTS[f.name]) for p in programs], dtype=float)
            for f in fields(Program)
        }
        role, role_sm, uses = np.ones(self.gpus), np.ones(self.gpus), np.zeros(self.gpus, dtype=np.bool_)
        for piece, place in zip(self.pieces, self.places, strict=True):
            if piece.role is not None:
                role[place.gpus] = piece.role
            if piece.role_sm is not None:
                role_sm[place.gpus] = piece.role_sm
            uses[place.gpus] = np.isin(place.gpus % SLOTS, piece.rails) & (piece.nodes > 1)
        pcie = np.where(self.per_gpu("pcie_gen") >= 5, 5.6e10, 2.6e10)
        crew = Crew(
            Program(**columns), self.job_of, role, role_sm, self.per_gpu("nvlink"), self.per_gpu("port"), pcie, uses, draw
        )  # fmt: skip
        crew.phase[[piece.program is None for piece in self.pieces]] = Phase.NONE
        return crew


def _serve(
    act: Activity, servers: Sequence[Server], gpus: Ints, sizes: Sequence[int], chatter: Array
) -> None:
    """Servers set what their boards do."""

    def each(values: Sequence[float]) -> Array:
        return np.repeat(values, sizes)

    busy = each([server.busy for server in servers])
    sm = each([server.sm for server in servers])
    act.kernel[gpus], act.context[gpus], act.sm[gpus] = busy, True, sm
    act.tensor[gpus] = each([server.tensor for server in servers])
    act.dram[gpus] = each([server.dram for server in servers])
    act.nvlink[gpus] = chatter * sm
    act.pcie_rx[gpus], act.pcie_tx[gpus] = 3e7 * busy + 1e6, 2e7 * busy + 1e6


class Recorder:
    """Keeps a row a second."""

    def __init__(self, stage: Stage, keeps_all: bool) -> None:
        self.stage = stage
        self.keeps_all = keeps_all
        seconds, pieces = stage.seconds, len(stage.pieces)
        self.recorded = Recorded()
        self.recorded.steps = np.zeros((seconds, pieces))
        self.recorded.tokens = np.zeros((seconds, len(stage.servers)))
        if keeps_all:
            made = self.recorded
            made.gpu = {key: np.zeros((seconds, stage.gpus), dtype=np.float32) for key in GPU_KEYS}
            made.node = {key: np.zeros((seconds, stage.nodes), dtype=np.float32) for key in NODE_KEYS}
            made.server = {
                key: np.zeros((seconds, len(stage.servers)), dtype=np.float32) for key in SERVER_KEYS
            }
        self._sums: dict[str, Any] = {}
        self._count = 0
        self._phases = np.zeros((4, pieces))
        self._rested = np.ones(stage.gpus, dtype=np.bool_)
        self._nodes = [piece.nodes for piece in stage.pieces]
        programs = [piece.program or {} for piece in stage.pieces]
        self._write = np.array([piece.host.write for piece in stage.pieces])
        self._alone = np.array([p.get("alone", 0.0) > 0 for p in programs])
        later = np.array([p.get("save_async", 0.0) for p in programs], dtype=float)
        pause = np.array([p.get("save_for", 0.0) for p in programs], dtype=float)
        self._later = np.divide(pause, later, out=np.zeros_like(pause), where=later > 0)
        self._is_later = later > 0
        first = np.zeros(stage.nodes, dtype=np.bool_)
        first[stage.first[:-1] // SLOTS] = True
        self._first_node = first

    def take(self, act: Activity, b: Boards, c: Conditions, held: Held, crew: Crew) -> None:
        """A step of the simulation."""
        busy = act.kernel > 0
        core = temperature(b)
        begins = busy & self._rested & ~act.spins
        self._rested = ~busy
        room = ACHIEVABLE * crew.rail_rate * np.maximum(c.rail, 1e-3)
        fill = np.minimum(act.rail / room, 1.0)
        values = {
            "util": act.kernel, "sm": act.sm, "tensor": act.tensor, "dram": act.dram, "power": b.power, "clock": b.clock,
            "temp": core, "mem_temp": core + b.mem_c, "bits": _bits(busy, begins, b, held), "by_heat": held.by_heat,
            "by_hw_heat": held.by_hw_heat, "by_power": held.by_power, "by_brake": b.brake & busy, "nvlink": act.nvlink,
            "rail": act.rail, "wait": act.talks * (0.3 * fill**6 + 0.7 * (1 - c.rail) * fill), "pcie_rx": act.pcie_rx,
            "pcie_tx": act.pcie_tx, "limit": b.limit, "context": act.context,
        }  # fmt: skip
        for key, value in values.items():
            if key in _LAST:
                self._sums[key] = value
            elif key in self._sums:
                self._sums[key] = self._sums[key] + value
            else:
                self._sums[key] = np.asarray(value, dtype=float)
        self._phases[0] += crew.loading
        self._phases[1] += crew.starved
        self._phases[2] += crew.phase == Phase.SAVE
        self._phases[3] += crew.phase == Phase.COMPUTE
        self._count += 1

    def second(
        self, second: int, crew: Crew, c: Conditions, servers: Sequence[Server], changes: Changes
    ) -> None:
        """A row."""
        self.recorded.steps[second] = crew.steps
        self.recorded.tokens[second] = [s.generated for s in servers]
        if self.keeps_all:
            self._row(second, crew, c, changes)
            for number, server in enumerate(servers):
                for key, value in _server_row(server).items():
                    self.recorded.server[key][second, number] = value
        for server in servers:
            server.forget(second)
        self._sums, self._count = {}, 0
        self._phases[:] = 0.0

    def _row(self, second: int, crew: Crew, c: Conditions, changes: Changes) -> None:
        gpu, node = self.recorded.gpu, self.recorded.node
        for key, total in self._sums.items():
            gpu[key][second] = total if key in _LAST else total / self._count
        gpu["memory"][second] = changes.rest.memory * gpu["context"][second]
        loading, starved, saving, computing = self._phases / self._count
        writes = self._write * np.where(self._is_later, self._later * (crew.background > 0), saving / c.saves)
        rows = {"loading": loading, "starved": starved, "saving": saving, "computing": computing, "loader": c.loader, "write": writes}  # fmt: skip
        for key, values in rows.items():
            node[key][second] = np.repeat(values, self._nodes)
        alone = np.repeat(self._alone, self._nodes) & ~self._first_node
        node["write"][second, alone] = 0.0
        node["host_memory"][second] = changes.rest.host_memory
        node["inlet"][second] = changes.boards.inlet[::SLOTS]


def _bits(busy: Bools, begins: Bools, b: Boards, held: Held) -> Ints:
    """Clock-event reasons of an instant; a load that sets in overshoots, which shows as the power cap for a moment."""
    bits: Ints = (
        np.where(busy, 0, IDLE) | (held.by_power | begins) * POWER | held.by_heat * SW_HEAT
        | held.by_hw_heat * (HW | HW_HEAT) | held.by_app * APP | (b.brake & busy) * (HW | BRAKE)
    )  # fmt: skip
    return bits


def _server_row(server: Server) -> dict[str, float]:
    def q(values: Sequence[tuple[float, float]], share: float) -> float:
        return float(np.quantile([value for _, value in values], share)) if values else np.nan

    return {
        "kv": server.usage, "running": len(server.context), "waiting": len(server.waiting), "preemptions": server.preemptions,
        "gen": server.generated, "prompt": server.prompted, "ttft50": q(server.ttft, 0.5), "ttft99": q(server.ttft, 0.99),
        "itl50": q(server.itl, 0.5), "itl99": q(server.itl, 0.99), "queue50": q(server.queued, 0.5),
        "queue99": q(server.queued, 0.99), "e2e99": q(server.e2e, 0.99), "finished": server.finished, "hit": server.hit_rate,
    }  # fmt: skip
