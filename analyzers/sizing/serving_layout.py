"""Layouts of a replica that serves: memory of its fullest GPU, requests that it holds, and how many replicas a load needs. Pure.

Replicas pay the weights each, tensor parallelism pays all-reduces; where one node is too small, a replica goes through several
in stages. A rate gets headroom so that arrivals, which come in bunches, seldom wait; users are taken to ask again at once.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

from coldaisle.analyzers.sizing.catalogue import Model
from coldaisle.analyzers.sizing.kvcache import KeyValues, activation_bytes, key_values
from coldaisle.analyzers.sizing.quantity import Quantity, exact
from coldaisle.analyzers.sizing.queueing import max_utilisation
from coldaisle.analyzers.sizing.serving_request import Request, settled
from coldaisle.analyzers.sizing.sheet import SizingError
from coldaisle.analyzers.sizing.speed import (
    Load,
    Point,
    Replica,
    at_concurrency,
    constants,
    replica_of,
    saturated,
)
from coldaisle.analyzers.sizing.weights import weight_bytes
from coldaisle.sources.parts.catalogue import GIB, Part

CARDS = 8
"""Cards without links of their own that a server holds."""
MOST_STAGES = 32
WAIT = 0.05
"""Mean wait of arrivals, in times that a request takes, that a rate is sized for where no other goal says."""


@dataclass(frozen=True, slots=True)
class Room:
    """Memory of one GPU of a replica, bytes."""

    total: Quantity
    usable: Quantity
    weights: Quantity
    activations: Quantity
    beside: Quantity
    left: Quantity
    """For keys and values; below zero where the rest is too much already."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """One way to lay out a replica, and how it would do."""

    tensor: int
    stages: int
    room: Room
    kept: KeyValues
    replica: Replica
    load: Load
    """Of one stage's share: slots over stages."""
    point: Point | None
    """Where the goals are met; None: nowhere."""
    replicas: int
    utilisation: float

    def holds(self, tokens: float) -> bool:
        """Whether one request of so many tokens has room."""
        return self.kept.of_request(tokens) / self.kept.shards / self.stages <= self.room.left.value

    @property
    def gpus(self) -> int:
        return self.tensor * self.stages * self.replicas

    @property
    def throughput(self) -> float:
        """Output tokens/s of one replica at its point."""
        return self.point.throughput * self.stages if self.point else 0.0

    @property
    def slots(self) -> float:
        """Requests that one replica runs at once."""
        return self.load.slots * self.stages


# --- memory -----------------------------------------------------------------------------------------------------------


def room_of(request: Request, part: Part, tensor: int, stages: int = 1) -> Room:
    """Memory of the fullest GPU."""
    ranks = tensor * stages
    total = exact(
        part.memory_bytes,
        "bytes",
        "as the driver reports it" if part.memory_is_reported else "as sold",
        ";".join(part.sources),
    )
    usable = total.scaled(
        request.memory_share,
        formula=f"{request.memory_share:g} of it, the engine's share",
        source=constants()["memory.share"].source,
    )
    weights = weight_bytes(request.model, request.dtype)
    each = weights.scaled(1 / ranks, formula=f"({weights.formula}) / {ranks} GPUs")
    acts = activation_bytes(request.model, request.step_tokens, tensor)
    beside = _sum_gib(("memory.beside_gib", "memory.ranks_gib") if ranks > 1 else ("memory.beside_gib",))
    left = Quantity(
        usable.value - each.value - acts.value - beside.value,
        usable.low - each.high - acts.high - beside.high,
        usable.high - each.low - acts.low - beside.low,
        "bytes",
        "usable - weights - activations - beside",
        acts.source,
    )
    if not math.isnan(request.kv_memory):
        left = exact(request.kv_memory, "bytes", "told", "the request")
    return Room(total, usable, each, acts, beside, left)


def _sum_gib(keys: tuple[str, ...]) -> Quantity:
    known = [constants()[key] for key in keys]
    return Quantity(
        sum(one.value for one in known) * GIB,
        sum(one.low for one in known) * GIB,
        sum(one.high for one in known) * GIB,
        "bytes",
        " + ".join(f"{one.value:g} GiB" for one in known),
        "; ".join(one.source for one in known),
    )


def slots_of(request: Request, part: Part, tensor: int, stages: int = 1) -> Quantity:
    """Requests that a replica runs at once when each may grow to its full length; at most what the engine allows."""
    request = settled(request, part)
    kept = key_values(request.model, request.kv_dtype, tensor)
    return slots_in(request, room_of(request, part, tensor, stages), kept, stages)


def slots_in(request: Request, room: Room, kept: KeyValues, stages: int) -> Quantity:
    each = kept.of_request(request.length) / kept.shards / stages
    if not each > 0:
        return exact(request.max_running, "requests", "nothing is kept of tokens; the engine's limit")
    low, value, high = (max(left, 0.0) / each for left in (room.left.low, room.left.value, room.left.high))
    most = request.max_running
    words = f"{max(room.left.value, 0) / GIB:.2f} GiB a GPU / {each:,.0f} bytes of a request of {request.length:,.0f} tokens"
    words += f", at most {most:,.0f}" if value > most else ""
    return Quantity(
        min(value, most),
        min(low, most),
        min(high, most),
        "requests",
        words,
        "every running request may reach its full length",
    )


def replica_with(request: Request, part: Part, tensor: int) -> Replica:
    """A replica over so many GPUs of a node."""
    request = settled(request, part)
    return replica_of(
        request.model, part, tensor, request.dtype, key_values(request.model, request.kv_dtype, tensor)
    )


# --- layouts ----------------------------------------------------------------------------------------------------------


def tensor_sizes(model: Model, part: Part) -> list[int]:
    """Over how many GPUs of a node a layer may be divided: powers of two that divide its heads, within the links."""
    most = part.scaleup_gpus if part.scaleup_gpus > 1 else CARDS
    sizes = [2**power for power in range(10) if 2**power <= most]
    return [size for size in sizes if model.heads is None or model.heads % size == 0]


def layouts(request: Request, part: Part) -> Iterator[tuple[int, int]]:
    """Tensor sizes and stages that are worth a look, the smallest first."""
    sizes = _tensor_asked(request, part)
    if request.pipeline is not None:
        yield from ((size, request.pipeline) for size in sizes)
        return
    yield from ((size, 1) for size in sizes)
    need = weight_bytes(request.model, request.dtype).value
    if not any(room_of(request, part, size).left.value > 0 for size in sizes):
        largest = sizes[-1]
        first = max(2, math.floor(need / (part.memory_bytes * largest)))
        layers = request.model.layers or MOST_STAGES
        yield from ((largest, stages) for stages in range(first, min(first + 4, layers, MOST_STAGES) + 1))


def _tensor_asked(request: Request, part: Part) -> list[int]:
    if request.tensor is None:
        return tensor_sizes(request.model, part)
    heads, tensor = request.model.heads, request.tensor
    if heads is not None and heads % tensor:
        fitting = ", ".join(map(str, tensor_sizes(request.model, part)))
        raise SizingError(
            f"{heads} heads do not divide over {tensor} GPUs", f"tensor parallelism of {fitting} would do"
        )
    most = part.scaleup_gpus if part.scaleup_gpus > 1 else CARDS
    if tensor > most:
        raise SizingError(
            f"tensor parallelism of {tensor} does not fit the {most} GPUs that {part.product} joins in a node",
            f"at most {most}; --pp for more nodes",
        )
    return [tensor]


def candidate(request: Request, part: Part, tensor: int, stages: int) -> Candidate:
    kept = key_values(request.model, request.kv_dtype, tensor)
    room = room_of(request, part, tensor, stages)
    replica = replica_of(request.model, part, tensor, request.dtype, kept)
    load = Load(request.isl, request.osl, slots_in(request, room, kept, stages).value / stages)
    bare = Candidate(tensor, stages, room, kept, replica, load, None, 1, 1.0)
    if room.left.value <= 0 or not bare.holds(request.longest):
        return replace(bare, replicas=0)
    point = highest_point(request, replica, load)
    if point is None:
        return replace(bare, replicas=0)
    placed = replace(bare, point=point)
    replicas, utilisation = _replicas(request, placed)
    placed = replace(placed, replicas=replicas, utilisation=utilisation)
    return replace(placed, point=_loaded(request, placed))


def highest_point(request: Request, replica: Replica, load: Load) -> Point | None:
    """The highest concurrency with which the goals are met."""
    if (request.replicas is not None and request.has_load) or _meets(
        request, full := saturated(replica, load)
    ):
        return saturated(replica, load)
    if not _meets(request, at_concurrency(replica, load, min(1.0, load.slots))):
        return None
    low, high = min(1.0, load.slots), full.concurrency
    for _ in range(40):
        middle = (low + high) / 2
        if _meets(request, at_concurrency(replica, load, middle)):
            low = middle
        else:
            high = middle
    return at_concurrency(replica, load, low)


def _meets(request: Request, point: Point) -> bool:
    return not (point.ttft > request.ttft or point.itl > request.itl)


def _replicas(request: Request, one: Candidate) -> tuple[int, float]:
    """How many the load needs, and the highest utilisation that their waits allow."""
    assert one.point is not None
    places = one.point.concurrency * one.stages
    if request.replicas is not None:
        return request.replicas, 1.0
    if not math.isnan(request.users):
        return max(1, math.ceil(request.users * (1 + request.margin) / places - 1e-9)), 1.0
    if math.isnan(request.rate):
        return 1, 1.0
    load = request.rate * (1 + request.margin) * request.osl / one.throughput
    wait = wait_allowed(request, one.point)
    return _replicas_for(load, places, wait)


def _replicas_for(load: float, places: float, wait: float) -> tuple[int, float]:
    """The fewest for so many busy ones with so short a wait, each of so many places; and how busy they may be."""

    def allowed(count: int) -> float:
        pool = min(max(1, int(places * count)), MOST_PLACES)
        return max_utilisation(pool, wait).value

    low, high = 0, max(1, math.ceil(load - 1e-9))
    while high * allowed(high) < load - 1e-9:
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if middle * allowed(middle) >= load - 1e-9 else (middle, high)
    return high, allowed(high)


MOST_PLACES = 10_000
"""Of a pool, for its waits: from there on nobody waits until 998 of 1,000 are taken."""


def wait_allowed(request: Request, point: Point) -> float:
    """In times that a request takes: what the goal for the first token leaves, at most a usual one."""
    if math.isnan(request.ttft):
        return WAIT
    life = point.ttft + request.osl * point.itl
    return min(WAIT, max((request.ttft - point.ttft) / life, 0.2 * request.ttft / life))


def _loaded(request: Request, one: Candidate) -> Point:
    """What a replica sees of the load that is asked for; its highest point where none is."""
    assert one.point is not None
    if not math.isnan(request.users):
        return at_concurrency(one.replica, one.load, request.users / one.replicas / one.stages)
    return one.point
