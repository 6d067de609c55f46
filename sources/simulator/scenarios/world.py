"""A world: episodes side by side, each with nodes, a job or a service of its own, simulated once and looked at in many ways."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields, replace

import numpy as np

from coldaisle.sources.simulator.plan import Array, Ints, Part
from coldaisle.sources.simulator.scenarios.labels import Label, Scenario
from coldaisle.sources.simulator.scenarios.parts import Boards, boards, settle, temperature
from coldaisle.sources.simulator.scenarios.serving import Server, Service
from coldaisle.sources.simulator.scenarios.work import Activity, Conditions, Crew, Phase, Program, conditions
from coldaisle.sources.source import Floats

STEP_S = 0.25
WITHOUT_LOSS = frozenset({"telemetry_gap", "gpu_fault", "memory_exhaustion"})
"""Conditions that are not weak because nothing is lost yet."""
SLOTS = 8
SERVER_STEP_S = 1.0


@dataclass(frozen=True, slots=True)
class Cause:
    """A change of one array from one instant until another; ``ramp`` seconds to get there."""

    what: str
    """A field of Boards or Conditions, or ``phase``, ``arrivals``, ``length``, ``memory``, ``host_memory``."""
    value: float
    where: tuple[int, ...] | None = None
    """GPUs of the piece; None: all of it."""
    start: float = 0.0
    end: float = np.inf
    ramp: float = 0.0
    is_cause: bool = True
    """False: it belongs to the healthy world, too."""


@dataclass(frozen=True, slots=True)
class Told:
    """An event of a piece: seconds, kind, GPU of the piece (None: its first node), detail."""

    at: float
    kind: str
    gpu: int | None
    detail: str


@dataclass(frozen=True, slots=True)
class Feed:
    """What becomes of the samples of some GPUs or of whole nodes of a piece."""

    what: str
    """``frozen``, ``gone``, ``node_gone``, ``exporter_gone``, ``xid`` (the sticky gauge), or a counter: ``ecc_dbe`` ..."""
    start: float
    end: float = np.inf
    where: tuple[int, ...] | None = None
    value: float = 0.0


@dataclass(frozen=True, slots=True)
class Piece:
    """One episode as it is played."""

    scenario: Scenario
    part: Part
    nodes: int
    program: dict[str, float] | None = None
    """Fields of Program; None: no job."""
    job_gpus: tuple[int, ...] | None = None
    """GPUs of the piece that the job holds; None: all."""
    role: tuple[float, ...] | None = None
    role_sm: tuple[float, ...] | None = None
    rails: tuple[int, ...] = tuple(range(SLOTS))
    """Slots whose rails the job uses."""
    memory: float = 0.8
    """Share of the boards' memory that is in use."""
    cpu: float = 0.12
    loader: str = ""
    """What the loader is made slow by: ``cpu``, ``io``, ``host``."""
    services: tuple[Service, ...] = ()
    server_gpus: int = 2
    causes: tuple[Cause, ...] = ()
    told: tuple[Told, ...] = ()
    feeds: tuple[Feed, ...] = ()
    start: float = 0.0
    """When the cause begins, seconds."""
    evident_after: float = 0.0
    """How much later it could be seen at the earliest."""
    end: float = np.inf
    roots: tuple[int, ...] = ()
    """GPUs of the piece that are the cause; empty: its job or service is."""
    root_nodes: tuple[int, ...] = ()
    root_rack: bool = False
    loss: float | None = None
    """Where progress does not tell it."""
    name: str = "train"
    user: str = "kim"
    workload: str | None = None
    job_started: float = -3600.0
    job_ended: float | None = None
    ethernet: bool = False
    write: float = 1.0
    """How much of a checkpoint is seen in this node's writes."""


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


GPU_KEYS = (
    "util", "sm", "tensor", "dram", "power", "clock", "temp", "mem_temp", "bits", "by_heat", "by_hw_heat", "by_power",
    "nvlink", "rail", "pcie_rx", "pcie_tx", "memory", "limit", "context",
)  # fmt: skip
_LAST = frozenset({"clock", "temp", "mem_temp", "bits", "memory", "limit", "context"})
"""Of a second its last instant; of everything else the mean."""
NODE_KEYS = ("loading", "saving", "computing", "host_memory")
SERVER_KEYS = (
    "kv", "running", "waiting", "preemptions", "gen", "prompt", "ttft50", "ttft99", "itl50", "itl99", "queue50", "queue99",
    "e2e99", "finished",
)  # fmt: skip


class Stage:
    """All pieces on one stage, ready to be played with or without their causes."""

    def __init__(self, pieces: Sequence[Piece], seed: int, seconds: int) -> None:
        self.pieces = pieces
        self.seed = seed
        self.seconds = seconds
        sizes = [piece.nodes * SLOTS for piece in pieces]
        self.first = np.concatenate([[0], np.cumsum(sizes)]).astype(np.intp)
        self.gpus = int(self.first[-1])
        self.first_node = self.first // SLOTS
        self.nodes = self.gpus // SLOTS
        self.job_of = self._jobs()
        self.servers = [
            (number, which) for number, piece in enumerate(pieces) for which in range(len(piece.services))
        ]

    def gpus_of(self, piece: int, where: Sequence[int] | None = None) -> Ints:
        """Numbers of a piece's GPUs in the world."""
        every = np.arange(self.first[piece], self.first[piece + 1])
        return every if where is None else every[list(where)]

    def server_gpus(self, piece: int, which: int) -> Ints:
        """GPUs that a server runs on."""
        size = self.pieces[piece].server_gpus
        return self.gpus_of(piece)[which * size : (which + 1) * size]

    def _jobs(self) -> Ints:
        """[gpu] its piece where that has a job that holds it; -1."""
        job_of = np.full(self.gpus, -1, dtype=np.intp)
        for number, piece in enumerate(self.pieces):
            if piece.program is not None:
                job_of[self.gpus_of(number, piece.job_gpus)] = number
        return job_of

    def play(self, *, with_causes: bool = True, only_progress: bool = False) -> Recorded:
        """Simulate it."""
        draw = np.random.default_rng((self.seed, 1))
        b = boards(tuple(piece.part for piece in self.pieces for _ in range(piece.nodes * SLOTS)), draw)
        c = conditions(len(self.pieces), self.gpus)
        crew = self._crew(b, draw)
        servers = [
            Server(self.pieces[p].services[w], np.random.default_rng((self.seed, 2, p, w)))
            for p, w in self.servers
        ]
        changes = _Changes(self, b, c, crew, servers, with_causes)
        recorder = _Recorder(self, only_progress)
        recorder.memory = changes.memory
        per_second = round(1 / STEP_S)
        for second in range(self.seconds):
            for server in servers:
                server.advance(second + 1.0, SERVER_STEP_S)
            for part in range(per_second):
                time = second + part * STEP_S
                changes.apply(time)
                act = crew.advance(time, STEP_S, c, b.clock / b.clock_max, b.spin_sm)
                self._serve(act, servers)
                act.kernel[c.dead] = 0.0
                held = settle(
                    b, STEP_S, act.kernel, act.spins, act.context, act.sm, act.tensor, act.dram, act.nvlink
                )
                if not only_progress:
                    recorder.take(act, b, held, crew)
            recorder.second(second, crew, servers, changes)
        return recorder.recorded

    def _serve(self, act: Activity, servers: Sequence[Server]) -> None:
        for (piece, which), server in zip(self.servers, servers, strict=True):
            gpus = self.server_gpus(piece, which)
            busy = server.sm > 0
            act.kernel[gpus] = 1.0 if busy else 0.0
            act.context[gpus] = True
            act.sm[gpus], act.tensor[gpus], act.dram[gpus] = server.sm, server.tensor, server.dram
            act.nvlink[gpus] = 4e10 * server.sm if len(gpus) > 1 else 0.0
            act.pcie_rx[gpus], act.pcie_tx[gpus] = 3e7 * busy + 1e6, 2e7 * busy + 1e6

    def _crew(self, b: Boards, draw: np.random.Generator) -> Crew:
        programs = [piece.program or {} for piece in self.pieces]
        defaults = {
            "compute": 1.0, "host": 0.02, "comm": 0.05, "nvlink": 0.0, "fabric": 0.0, "pcie": 1e8, "overlap": 0.8, "batch": 0.3,
            "clock_share": 0.8, "sm": 0.0, "tensor": 0.0, "dram": 0.0, "save_every": np.inf, "save_for": 20.0,
            "rest_every": np.inf, "rest_for": 0.0, "starts_for": -1.0, "ends_at": np.inf,
        }  # fmt: skip
        columns = {
            f.name: np.array([p.get(f.name, defaults[f.name]) for p in programs], dtype=float)
            for f in fields(Program)
        }
        role, role_sm, uses = np.ones(self.gpus), np.ones(self.gpus), np.zeros(self.gpus, dtype=np.bool_)
        for number, piece in enumerate(self.pieces):
            gpus = self.gpus_of(number)
            if piece.role is not None:
                role[gpus] = piece.role
            if piece.role_sm is not None:
                role_sm[gpus] = piece.role_sm
            uses[gpus] = np.isin(np.arange(len(gpus)) % SLOTS, piece.rails) & (piece.nodes > 1)

        def of(name: str) -> Array:
            return np.array([float(getattr(part, name)) for part in b.part])

        pcie = np.where(of("pcie_gen") >= 5, 5.6e10, 2.6e10)
        crew = Crew(
            Program(**columns), self.job_of, role, role_sm, of("nvlink"), of("port"), pcie, uses, draw
        )
        for number, piece in enumerate(self.pieces):
            if piece.program is None:
                crew.phase[number] = Phase.IDLE
        return crew


class _Changes:
    """Applies the causes in time."""

    def __init__(
        self, stage: Stage, b: Boards, c: Conditions, crew: Crew, servers: Sequence[Server], with_causes: bool
    ) -> None:
        self.memory = np.zeros(stage.gpus)
        self.host_memory = np.full(stage.nodes, 0.25)
        for number, piece in enumerate(stage.pieces):
            self.memory[stage.gpus_of(number, piece.job_gpus)] = (
                piece.memory if piece.program or piece.services else 0.0
            )
        self._todo: list[tuple[Cause, Callable[[float], None], Callable[[], float]]] = []
        for number, piece in enumerate(stage.pieces):
            for cause in piece.causes:
                if with_causes or not cause.is_cause:
                    self._todo.append((cause, *self._setter(stage, number, cause, b, c, crew, servers)))
        self._from: dict[int, float] = {}
        self._done: set[int] = set()

    def apply(self, time: float) -> None:
        """What is due."""
        for number, (cause, put, get) in enumerate(self._todo):
            if number in self._done or time < cause.start:
                continue
            if number not in self._from:
                self._from[number] = get()
            if time >= cause.end:
                put(self._from[number])
                self._done.add(number)
            elif cause.ramp > 0 and time < cause.start + cause.ramp:
                share = (time - cause.start) / cause.ramp
                put(self._from[number] + share * (cause.value - self._from[number]))
            else:
                put(cause.value)
                if np.isinf(cause.end):
                    self._done.add(number)

    def _setter(
        self,
        stage: Stage,
        number: int,
        cause: Cause,
        b: Boards,
        c: Conditions,
        crew: Crew,
        servers: Sequence[Server],
    ) -> tuple[Callable[[float], None], Callable[[], float]]:
        gpus = stage.gpus_of(number, cause.where)
        if cause.what in ("arrivals", "length"):
            mine = [
                s
                for (p, w), s in zip(stage.servers, servers, strict=True)
                if p == number and (cause.where is None or w in cause.where)
            ]
            return lambda v: [setattr(s, cause.what, v) for s in mine] and None, lambda: 1.0
        if cause.what == "phase":

            def enter(value: float) -> None:
                crew.phase[number] = int(value)
                crew.left[number] = np.inf

            return enter, lambda: float(Phase.LOAD)
        if cause.what == "ready":

            def again(value: float) -> None:
                crew.phase[number], crew.left[number] = Phase.LOAD, 0.0

            return again, lambda: 0.0
        if cause.what == "host_memory":
            nodes = np.unique(gpus // SLOTS)
            return lambda v: self.host_memory.__setitem__(nodes, v), lambda: float(self.host_memory[nodes[0]])
        if cause.what == "memory":
            return lambda v: self.memory.__setitem__(gpus, v), lambda: float(self.memory[gpus[0]])
        owner = b if hasattr(b, cause.what) else c
        array = getattr(owner, cause.what)
        index = (
            np.array([number])
            if owner is c
            and len(array) == len(stage.pieces)
            and cause.what in ("loader", "host", "traffic", "saves")
            else gpus
        )
        if cause.what == "limit":
            full = b.power_max[index].copy()
            return lambda v: array.__setitem__(index, v * full), lambda: 1.0
        if cause.what == "app_clock":
            full = b.clock_max[index].copy()
            return lambda v: array.__setitem__(index, v * full), lambda: np.inf
        return lambda v: array.__setitem__(index, v), lambda: float(array[index[0]])


class _Recorder:
    """Keeps a row a second."""

    def __init__(self, stage: Stage, only_progress: bool) -> None:
        self.stage = stage
        self.only_progress = only_progress
        self.memory = np.zeros(stage.gpus)
        seconds = stage.seconds
        self.recorded = Recorded()
        self.recorded.steps = np.zeros((seconds, len(stage.pieces)))
        self.recorded.tokens = np.zeros((seconds, len(stage.servers)))
        if not only_progress:
            self.recorded.gpu = {key: np.zeros((seconds, stage.gpus), dtype=np.float32) for key in GPU_KEYS}
            self.recorded.node = {
                key: np.zeros((seconds, stage.nodes), dtype=np.float32) for key in NODE_KEYS
            }
            self.recorded.server = {
                key: np.zeros((seconds, len(stage.servers)), dtype=np.float32) for key in SERVER_KEYS
            }
        self._sums: dict[str, Array] = {}
        self._count = 0
        self._phases = np.zeros((3, len(stage.pieces)))

    def take(self, act: Activity, b: Boards, held: object, crew: Crew) -> None:
        bits = (
            np.where(act.kernel > 0, 0, 0x1) | held.by_power * 0x4 | held.by_heat * 0x20 | held.by_hw_heat * 0x48  # type: ignore[attr-defined]
            | held.by_app * 0x2 | (b.brake & (act.kernel > 0)) * 0x88  # type: ignore[attr-defined]
        )  # fmt: skip
        core = temperature(b)
        now = {
            "util": act.kernel, "sm": act.sm, "tensor": act.tensor, "dram": act.dram, "power": b.power, "clock": b.clock,
            "temp": core, "mem_temp": core + b.mem_c, "bits": bits, "by_heat": held.by_heat, "by_hw_heat": held.by_hw_heat,  # type: ignore[attr-defined]
            "by_power": held.by_power, "nvlink": act.nvlink, "rail": act.rail, "pcie_rx": act.pcie_rx, "pcie_tx": act.pcie_tx,  # type: ignore[attr-defined]
            "limit": b.limit, "context": act.context,
        }  # fmt: skip
        for key, value in now.items():
            if key in _LAST:
                self._sums[key] = value
            elif key in self._sums:
                self._sums[key] = self._sums[key] + value
            else:
                self._sums[key] = np.asarray(value, dtype=float)
        self._phases[0] += crew.loading
        self._phases[1] += crew.phase == Phase.SAVE
        self._phases[2] += crew.phase == Phase.COMPUTE
        self._count += 1

    def second(self, second: int, crew: Crew, servers: Sequence[Server], changes: _Changes) -> None:
        """A row."""
        self.recorded.steps[second] = crew.steps
        self.recorded.tokens[second] = [s.generated for s in servers]
        if self.only_progress:
            for server in servers:
                _drain(server)
            return
        for key, total in self._sums.items():
            self.recorded.gpu[key][second] = total if key in _LAST else total / self._count
        self.recorded.gpu["memory"][second] = changes.memory
        repeat = [piece.nodes for piece in self.stage.pieces]
        for key, values in zip(("loading", "saving", "computing"), self._phases / self._count, strict=True):
            self.recorded.node[key][second] = np.repeat(values, repeat)
        self.recorded.node["host_memory"][second] = changes.host_memory
        for number, server in enumerate(servers):
            for key, value in _server_row(server).items():
                self.recorded.server[key][second, number] = value
            _drain(server)
        self._sums, self._count = {}, 0
        self._phases[:] = 0.0


def _server_row(server: Server) -> dict[str, float]:
    def q(values: Sequence[float], share: float) -> float:
        return float(np.quantile(values, share)) if len(values) else np.nan

    return {
        "kv": server.usage, "running": len(server.context), "waiting": len(server.waiting), "preemptions": server.preemptions,
        "gen": server.generated, "prompt": server.prompted, "ttft50": q(server.ttft, 0.5), "ttft99": q(server.ttft, 0.99),
        "itl50": q(server.itl, 0.5), "itl99": q(server.itl, 0.99), "queue50": q(server.queued, 0.5),
        "queue99": q(server.queued, 0.99), "e2e99": q(server.e2e, 0.99), "finished": server.finished,
    }  # fmt: skip


def _drain(server: Server) -> None:
    """Keep latencies of the last minutes only."""
    for name in ("ttft", "itl", "queued", "e2e"):
        values = getattr(server, name)
        if len(values) > 400:
            setattr(server, name, values[-200:])


def losses(stage: Stage, real: Recorded, healthy: Recorded) -> list[float]:
    """[piece] share of work lost while the cause acts, by progress against the same world without causes."""
    found = []
    for number, piece in enumerate(stage.pieces):
        if piece.loss is not None:
            found.append(piece.loss)
            continue
        if piece.program is None and not piece.services:
            found.append(0.0)
            continue
        first = int(min(piece.start + piece.evident_after, stage.seconds - 2))
        last = int(min(piece.end, stage.seconds)) - 1
        if piece.services:
            mine = [i for i, (p, _) in enumerate(stage.servers) if p == number]
            done, could = (
                float((r.tokens[last, mine] - r.tokens[first, mine]).sum()) for r in (real, healthy)
            )
        else:
            done, could = (float(r.steps[last, number] - r.steps[first, number]) for r in (real, healthy))
        found.append(float(np.clip(1 - done / could, 0.0, 1.0)) if could > 0 else 0.0)
    return found


def label_of(
    stage: Stage,
    number: int,
    loss: float,
    start: float,
    node_names: Sequence[str],
    rack_names: Sequence[str],
    server_keys: Sequence[str],
) -> Label:
    """The label of a piece; ``start``: when the world begins."""
    piece = stage.pieces[number]
    scenario = piece.scenario
    gpus = stage.gpus_of(number)
    names = [f"{node_names[g // SLOTS]}/{g % SLOTS}" for g in gpus.tolist()]
    held = range(len(gpus)) if piece.job_gpus is None else piece.job_gpus
    roots = tuple(names[g] for g in piece.roots)
    nodes = [node_names[n] for n in range(int(stage.first_node[number]), int(stage.first_node[number + 1]))]
    root_nodes = tuple(nodes[n] for n in piece.root_nodes)
    jobs = (f"slurm:{4000 + number}",) if piece.program is not None else ()
    servers = tuple(key for key, (p, _) in zip(server_keys, stage.servers, strict=True) if p == number)
    victims = (
        tuple(names[g] for g in held if names[g] not in roots) if roots and piece.program is not None else ()
    )
    end = min(piece.end, float(stage.seconds))
    return Label(
        scenario.name, scenario.condition, scenario.lookalike_of, start + piece.start,
        start + min(piece.start + piece.evident_after, end), start + end, roots, root_nodes,
        (rack_names[number],) if piece.root_rack else (), servers, jobs, victims, loss, scenario.variant,
        is_weak=bool(scenario.condition) and loss < 0.10 and scenario.condition not in WITHOUT_LOSS, needs=scenario.needs,
    )  # fmt: skip


def settled(piece: Piece, seconds: float) -> Piece:
    """A piece with its causes' end bounded by the world's."""
    return replace(copy.copy(piece), end=min(piece.end, seconds))
