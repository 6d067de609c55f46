"""What an episode is made of, as data: nodes, a program or servers, what happens to them, and what becomes of their samples."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from coldaisle.sources.simulator.plan import Part
from coldaisle.sources.simulator.scenarios.labels import Scenario
from coldaisle.sources.simulator.scenarios.serving import Service

SLOTS = 8
"""GPUs of a node."""
CORPSE, STUCK, CONSTANT = 0.0, 1.0, 2.0
"""Values of a ``frozen`` feed: a dead board, whose energy series ends; an exporter that repeats its page, counters and all; a
board that really does not change."""


@dataclass(frozen=True, slots=True)
class Cause:
    """A change of one array from one instant until another; ``ramp`` seconds to get there."""

    what: str
    """A field of Boards or Conditions; or one of the words of changes.py (``phase``, ``overheat``, ``memory``, ...)."""
    value: float
    where: tuple[int, ...] | None = None
    """GPUs of the piece (servers for ``arrivals`` and ``length``); None: all of it."""
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
    """``frozen``, ``gone`` (the series end), ``node_gone``, ``port_errors``, ``port_rate``, ``roce``, ``cpu_busy``; or a metric
    of a GPU without its ``gpu.``, which gets ``value``, and rises by ``rise`` a second."""
    start: float
    end: float = np.inf
    where: tuple[int, ...] | None = None
    """GPUs of the piece; None: all."""
    value: float = 0.0
    rise: float = 0.0


@dataclass(frozen=True, slots=True)
class Host:
    """What a job does to its hosts."""

    cpu: float = 0.12
    """Share of the CPUs besides the loader's."""
    loader: str = ""
    """What the loader is made slow by: ``cpu``, ``io``, ``host``; empty: it is modest."""
    cores: float = 0.3
    """Share of the CPUs that the loader's cores are."""
    crowd: float = 2.0
    """Loader's processes for each of these cores."""
    read: float = 1.5e8
    """Bytes/s that a node's loader reads while it works without hindrance."""
    at_ceiling: bool = False
    """An I/O bound loader reads as much as the file system gives; else each read takes longer."""
    write: float = 4e9
    """Bytes/s that a node writes in an unhindered checkpoint."""


@dataclass(frozen=True, slots=True)
class Piece:
    """One episode as it is played. Seconds count from the beginning of the world."""

    scenario: Scenario
    part: Part
    nodes: int
    program: dict[str, float] | None = None
    """Fields of Program; None: no job."""
    job_gpus: tuple[int, ...] | None = None
    """GPUs of the piece that the job holds; None: all."""
    uses: tuple[int, ...] | None = None
    """GPUs on which it has processes; None: all that it holds."""
    role: tuple[float, ...] | None = None
    """[gpu] factor of compute"""
    role_sm: tuple[float, ...] | None = None
    """[gpu] factor of activities"""
    rails: tuple[int, ...] = tuple(range(SLOTS))
    """Slots whose rails the job uses."""
    memory: float = 0.8
    """Share of the boards' memory that is in use."""
    host: Host = Host()
    services: tuple[Service, ...] = ()
    server_gpus: int = 2
    """GPUs of each server."""
    server_first: int = 0
    """The first GPU that a server has."""
    server_nvlink: float = 4e10
    """Bytes/s that each GPU of a server sends when all its SMs are busy."""
    causes: tuple[Cause, ...] = ()
    told: tuple[Told, ...] = ()
    feeds: tuple[Feed, ...] = ()
    start: float = 0.0
    """When the cause begins."""
    evident_after: float = 0.0
    """How much later it could be seen at the earliest."""
    evident_by: str = ""
    """What tells when it can be seen first, where physics decides (see truth.py)."""
    evident_samples: int = 0
    """How many of its samples tell it from luck (Label.samples)."""
    end: float = np.inf
    roots: tuple[int, ...] = ()
    """GPUs of the piece that are the cause; empty: its job or service is."""
    root_nodes: tuple[int, ...] = ()
    root_rack: bool = False
    root_servers: tuple[int, ...] | None = None
    """None: all of them."""
    loss: float | None = None
    """Where progress does not tell it; NaN: there is nothing to tell."""
    weak: bool | None = None
    """None: what is lost tells."""
    name: str = "train"
    user: str = "kim"
    workload: str | None = None
    job_started: float = -3600.0
    job_ended: float | None = None
    end_reason: str = "CANCELLED"
    is_demand: bool = False
    """Its causes are what clients ask: the healthy world gets the same, with room for all of it."""
