"""How many of a part serve a model: memory, layouts, replicas, latency by concurrency, and what binds. Pure.

The fewest GPUs win, then the shortest time between tokens. Replicas pay the weights each, tensor parallelism pays all-reduces;
where one node is too small, a replica goes through several in stages. A request for a rate adds headroom so that arrivals,
which come in bunches, seldom wait; so many users are taken to ask again at once.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

from coldaisle.analyzers.sizing.catalogue import Model
from coldaisle.analyzers.sizing.kvcache import KeyValues, activation_bytes, key_values, kv_bytes_per_token
from coldaisle.analyzers.sizing.quantity import Binding, Quantity, about, exact
from coldaisle.analyzers.sizing.queueing import max_utilisation
from coldaisle.analyzers.sizing.sheet import Section, Sheet, SizingError, Verdict
from coldaisle.analyzers.sizing.speed import (
    SOURCE,
    Load,
    Point,
    Replica,
    at_concurrency,
    constants,
    prefill_seconds,
    replica_of,
    saturated,
    step_parts,
)
from coldaisle.analyzers.sizing.weights import compute_dtype, format_named, weight_bytes
from coldaisle.sources.parts.catalogue import GIB, Part

NAN = math.nan
CARDS = 8
"""Cards without links of their own that a server holds."""
MOST_STAGES = 32
MOST_TOKENS = 1e8
MOST_RUNNING = 2048
"""Requests that an engine runs at once by its own limit (TensorRT-LLM; vLLM has from 256 to 1,024)."""
WAIT = 0.05
"""Mean wait of arrivals, in times that a request takes, that a rate is sized for where no other goal says."""
_TABLE_STEPS = (1, 2, 5, 10, 25, 50, 100, 150, 200, 250, 500, 1000, 2000)


@dataclass(frozen=True, slots=True)
class Request:
    """What is to be served. Tokens, requests/s, s; NaN: not asked for.

    Either ``rate`` (requests/s that arrive) or ``users`` (that each wait for an answer, then ask again) or neither: then one
    replica. ``kv_memory``: bytes a GPU that the engine says are free for keys and values, instead of an estimate.
    Errors: SizingError for what means nothing.
    """

    model: Model
    isl: float
    osl: float
    rate: float = NAN
    users: float = NAN
    ttft: float = NAN
    itl: float = NAN
    dtype: str = "bf16"
    kv_dtype: str = "auto"
    """``auto``: 8 bit for weights of fp8 and fp4 on parts that compute fp8, as TensorRT-LLM has it, else 16."""
    tensor: int | None = None
    pipeline: int | None = None
    replicas: int | None = None
    memory_share: float = 0.9
    max_model_len: float = NAN
    batched_tokens: float = 8192.0
    max_running: float = MOST_RUNNING
    margin: float = 0.15
    """Added to the load once; 0.15 is 15 %."""
    kv_memory: float = NAN

    def __post_init__(self) -> None:
        for name, words in _ABOVE_ZERO.items():
            value = getattr(self, name)
            if value is None or (
                isinstance(value, float) and math.isnan(value) and name not in ("isl", "osl")
            ):
                continue
            if not 0 < value < math.inf:
                raise SizingError(f"{words} is {value:g}; it has to be above zero")
            if name in _FROM_ONE and value < 1:
                raise SizingError(f"{words} is {value:g}; it has to be at least 1")
            if isinstance(value, float) and name in ("tensor", "pipeline", "replicas"):
                raise SizingError(f"{words} is {value:g}; it has to be a whole number")
        layers = self.model.layers
        if self.pipeline is not None and layers is not None and self.pipeline > layers:
            raise SizingError(
                f"{self.pipeline:,} pipeline stages for {layers} layers; a stage has at least one of them",
                f"at most {layers} stages; replicas for more GPUs",
            )
        format_named(self.dtype)
        if not math.isnan(self.rate) and not math.isnan(self.users):
            raise SizingError(
                "requests/s and users both",
                "give one: users ask again once answered, a rate arrives by itself",
            )
        if self.isl + self.osl > MOST_TOKENS:
            raise SizingError(
                f"{self.isl + self.osl:,.0f} tokens a request; at most {MOST_TOKENS:,.0f} are sized"
            )
        if not math.isnan(self.max_model_len) and self.max_model_len < self.isl + self.osl:
            raise SizingError(
                f"requests of {self.isl + self.osl:,.0f} tokens do not fit a longest of {self.max_model_len:,.0f}",
                "raise --max-model-len, or make requests shorter",
            )
        if not 0 < self.memory_share <= 1:
            raise SizingError(f"a memory share of {self.memory_share:g}; it is a ratio above 0 and at most 1")
        if not 0 <= self.margin <= 10:
            raise SizingError(f"a margin of {self.margin:g}; it is a ratio from 0 (none) to 10")

    @property
    def length(self) -> float:
        """Tokens of a request at its end."""
        return self.isl + self.osl

    @property
    def step_tokens(self) -> float:
        """The most that one step takes in; a longest request that the engine accepts may need no more."""
        longest = self.length if math.isnan(self.max_model_len) else self.max_model_len
        return min(self.batched_tokens, max(longest, 2048.0))


_FROM_ONE = ("isl", "osl", "tensor", "pipeline", "replicas", "max_model_len", "batched_tokens", "max_running")
_ABOVE_ZERO = {
    "isl": "tokens in a request (isl)",
    "osl": "tokens out of a request (osl)",
    "rate": "requests/s",
    "users": "users",
    "ttft": "the goal for the time to first token",
    "itl": "the goal for the time between tokens",
    "tensor": "tensor parallelism",
    "pipeline": "pipeline stages",
    "replicas": "replicas",
    "max_model_len": "the longest request",
    "batched_tokens": "tokens a step",
    "max_running": "requests at once",
    "kv_memory": "memory for keys and values",
}


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


def settled(request: Request, part: Part) -> Request:
    """The request with the format of keys and values that ``auto`` means on a part."""
    if request.kv_dtype != "auto":
        return request
    small = format_named(request.dtype)[0] in _EIGHT_BIT_CACHE and part.peak("fp8") > 0
    return replace(request, kv_dtype="fp8" if small else "bf16")


_EIGHT_BIT_CACHE = ("fp8", "fp4")
"""Formats of weights whose published checkpoints and tables (TensorRT-LLM, NIM) come with keys and values of 8 bit."""


def slots_of(request: Request, part: Part, tensor: int, stages: int = 1) -> Quantity:
    """Requests that a replica runs at once when each may grow to its full length; at most what the engine allows."""
    request = settled(request, part)
    kept = key_values(request.model, request.kv_dtype, tensor)
    return _slots(request, room_of(request, part, tensor, stages), kept, stages)


def _slots(request: Request, room: Room, kept: KeyValues, stages: int) -> Quantity:
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


def _layouts(request: Request, part: Part) -> Iterator[tuple[int, int]]:
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
            f"at most {most}; --pipeline for more nodes",
        )
    return [tensor]


def _candidate(request: Request, part: Part, tensor: int, stages: int) -> Candidate:
    kept = key_values(request.model, request.kv_dtype, tensor)
    room = room_of(request, part, tensor, stages)
    replica = replica_of(request.model, part, tensor, request.dtype, kept)
    load = Load(request.isl, request.osl, _slots(request, room, kept, stages).value / stages)
    bare = Candidate(tensor, stages, room, kept, replica, load, None, 1, 1.0)
    if bare.slots < 1 or room.left.value <= 0:
        return replace(bare, replicas=0)
    point = _point(request, replica, load)
    if point is None:
        return replace(bare, replicas=0)
    placed = replace(bare, point=point)
    replicas, utilisation = _replicas(request, placed)
    placed = replace(placed, replicas=replicas, utilisation=utilisation)
    return replace(placed, point=_loaded(request, placed))


def _point(request: Request, replica: Replica, load: Load) -> Point | None:
    """The highest concurrency with which the goals are met."""
    if request.replicas is not None or _meets(request, full := saturated(replica, load)):
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
    wait = _wait_allowed(request, one.point)
    return _replicas_for(load, places, wait)


def _replicas_for(load: float, places: float, wait: float) -> tuple[int, float]:
    """The fewest for so many busy ones with so short a wait, each of so many places; and how busy they may be."""

    def allowed(count: int) -> float:
        pool = min(max(1, int(places * count)), _MOST_PLACES)
        return max_utilisation(pool, wait).value

    low, high = 0, max(1, math.ceil(load - 1e-9))
    while high * allowed(high) < load - 1e-9:
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if middle * allowed(middle) >= load - 1e-9 else (middle, high)
    return high, allowed(high)


_MOST_PLACES = 1_000_000
"""Of a pool, for its waits: beyond it nobody waits until it is full."""


def _wait_allowed(request: Request, point: Point) -> float:
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


# --- the answer -------------------------------------------------------------------------------------------------------


def plan_serving(request: Request, part: Part) -> Sheet:
    """The fewest of a part that serve a request. What fits nowhere is a sheet without GPUs. Errors: SizingError for nonsense."""
    compute_dtype(request.dtype, part)
    asked, request = request, settled(request, part)
    tried = [_candidate(request, part, tensor, stages) for tensor, stages in _layouts(request, part)]
    fitting = [one for one in tried if one.replicas]
    title = f"{request.model.name} in {format_named(request.dtype)[0]} on {part.product}"
    if not fitting:
        return _nowhere(request, part, title, tried)
    best = min(fitting, key=lambda one: (one.gpus, one.point.itl if one.point else 0.0))
    return Sheet(
        title=title,
        answer=_answer(request, part, best),
        gpus=_gpus(request, best),
        binding=_binding(request, part, best, tried),
        sections=(
            _layout_section(request, best),
            _memory_section(best),
            _kv_section(request, best),
            _load_section(request, best),
            _knee_section(request, best),
            _by_concurrency(request, best),
            *_tried_section(fitting),
        ),
        verdicts=_verdicts(request, part),
        warnings=tuple(_warnings(asked, request, part, best)),
        part=part.id,
    )


def _answer(request: Request, part: Part, best: Candidate) -> str:
    assert best.point is not None
    layout = f"{best.replicas} x TP{best.tensor}" + (f" PP{best.stages}" if best.stages > 1 else "")
    return f"{best.gpus} {part.product} ({layout})"


def _gpus(request: Request, best: Candidate) -> Quantity:
    """With the interval that throughput's makes of it, where a load decides."""
    size = best.tensor * best.stages
    words = f"{best.replicas} replicas of {size}"
    if request.replicas is not None or (math.isnan(request.rate) and math.isnan(request.users)):
        return exact(float(best.gpus), "gpus", words)
    need = _replicas_exact(request, best)
    if not math.isnan(request.rate):
        band = constants()["band.throughput"]
        return _whole_replicas(best, need, 1 / band.high, 1 / band.low, size, words)
    if need <= 1:
        return exact(float(best.gpus), "gpus", words)
    # users need places, and places hardly depend on speed
    return _whole_replicas(best, need, 0.9, 1.1, size, words)


def _whole_replicas(best: Candidate, need: float, low: float, high: float, size: int, words: str) -> Quantity:
    least = min(max(1, math.ceil(need * low - 1e-9)), best.replicas)
    most = max(math.ceil(need * high - 1e-9), best.replicas)
    return Quantity(float(best.gpus), float(least * size), float(most * size), "gpus", words, SOURCE)


def _replicas_exact(request: Request, best: Candidate) -> float:
    """Before rounding up."""
    assert best.point is not None
    if not math.isnan(request.users):
        point = _point(request, best.replica, best.load)
        assert point is not None
        return request.users * (1 + request.margin) / (point.concurrency * best.stages)
    return request.rate * (1 + request.margin) / (best.throughput / request.osl * best.utilisation)


def _banded(value: float, key: str, unit: str, formula: str) -> Quantity:
    band = constants()[f"band.{key}"]
    return about(value, band.low, band.high, unit, formula, f"{SOURCE}; band: {band.source}")


def _layout_section(request: Request, best: Candidate) -> Section:
    figures = [
        ("GPUs", exact(float(best.gpus), "gpus", f"{best.tensor} · {best.stages} · {best.replicas}")),
        ("tensor parallel", exact(float(best.tensor), "gpus", "GPUs that share each layer")),
        ("pipeline stages", exact(float(best.stages), "stages", "parts of the model one after the other")),
        ("replicas", exact(float(best.replicas), "replicas", "copies of the model")),
    ]
    return Section("layout", tuple(figures))


def _memory_section(best: Candidate) -> Section:
    room = best.room
    return Section(
        "memory of a GPU",
        (
            ("memory", room.total),
            ("usable", room.usable),
            ("weights", room.weights),
            ("activations", room.activations),
            ("beside", room.beside),
            ("KV cache", room.left),
        ),
    )


def _kv_section(request: Request, best: Candidate) -> Section:
    kept, ranks = best.kept, best.kept.shards * best.stages
    room, length = best.room.left, request.length
    each = kept.of_token(length) / ranks
    tokens = Quantity(
        max(room.value, 0.0) / each, max(room.low, 0.0) / each, room.high / each, "tokens",
        f"{room.value / GIB:.2f} GiB a GPU / {each:,.0f} bytes a token and GPU", kept.formula,
    )  # fmt: skip
    figures = [
        ("a token", kv_bytes_per_token(request.model, request.kv_dtype)),
        ("a request", exact(kept.of_request(length), "bytes", f"{length:,.0f} tokens", kept.formula)),
        ("tokens a replica", tokens),
        ("requests at once, full length", _slots(request, best.room, kept, best.stages)),
        ("requests at once, on the mean", _mean_slots(request, best)),
    ]
    if kept.windowed:
        full = kept.charged_in_full / ranks
        words = "where the engine gives layers with a window as much as the others"
        figures.insert(
            3, ("tokens a replica, all layers in full", exact(max(room.value, 0) / full, "tokens", words))
        )
    return Section("keys and values", tuple(figures))


def _mean_slots(request: Request, best: Candidate) -> Quantity:
    each = best.kept.of_request(request.isl + request.osl / 2) / best.kept.shards / best.stages
    count = min(max(best.room.left.value, 0.0) / each, request.max_running) if each else request.max_running
    return exact(count, "requests", "isl + osl/2 tokens each: some will be put off again", "Little's law")


def _load_section(request: Request, best: Candidate) -> Section:
    point = best.point
    assert point is not None
    every = best.throughput * best.replicas
    figures = [
        (
            "requests at once a replica",
            exact(
                point.concurrency * best.stages,
                "requests",
                "users of a replica, or the most that its goals allow",
            ),
        ),
        ("TTFT", _banded(point.ttft, "itl", "s", _ttft_words(best, point))),
        ("ITL", _banded(point.itl, "itl", "s", _itl_words(request, best, point))),
        (
            "throughput",
            _banded(
                every,
                "throughput",
                "tokens/s",
                f"{best.replicas} · {point.concurrency * best.stages:.4g} requests / time between tokens, with prefills",
            ),
        ),
        (
            "throughput a GPU",
            _banded(every / best.gpus, "throughput", "tokens/s", "of output, over all GPUs"),
        ),
    ]
    if not math.isnan(request.rate):
        figures += [
            (
                "asked for",
                exact(
                    request.rate * request.osl,
                    "tokens/s",
                    f"{request.rate:g} requests/s · {request.osl:g} tokens",
                ),
            ),
            (
                "with margin",
                exact(
                    request.rate * request.osl * (1 + request.margin),
                    "tokens/s",
                    f"{request.margin:.0%} once",
                ),
            ),
            (
                "highest utilisation",
                exact(
                    best.utilisation,
                    "ratio",
                    f"a mean wait of {_wait_allowed(request, point):.3g} of a request's time",
                    "Erlang C with Allen-Cunneen, Ca² = Cs² = 1",
                ),
            ),
            (
                "utilisation",
                exact(min(request.rate * request.osl / every, 1.0), "ratio", "asked for / throughput"),
            ),
        ]
    return Section("at the load" if _has_load(request) else "of one replica, full", tuple(figures))


def _has_load(request: Request) -> bool:
    return not (math.isnan(request.rate) and math.isnan(request.users))


def _itl_words(request: Request, best: Candidate, point: Point) -> str:
    parts = step_parts(best.replica, point.running, best.load.context)
    prefill = prefill_seconds(best.replica, request.isl)
    return (
        f"√({parts.memory * 1e3:.2f}² + {parts.compute * 1e3:.2f}²) + {parts.other * 1e3:.2f} ms a step (memory, compute, other) "
        f"+ ({point.running:.4g}-1)/{request.osl:g} · {prefill * 1e3:.1f} ms of prefill"
    )


def _ttft_words(best: Candidate, point: Point) -> str:
    if point.concurrency > best.load.slots:
        return "c·osl/X - (osl-1)·ITL: more users than places, the rest waits"
    alone = prefill_seconds(best.replica, best.load.isl, alone=True)
    return (
        f"{best.replica.engine.request_s * 1e3:g} ms + {alone * 1e3:.1f} ms of prefill, and prompts before it"
    )


def _knee_section(request: Request, best: Candidate) -> Section:
    """Where throughput goes flat and the time to first token explodes."""
    full = saturated(best.replica, best.load)
    beyond = at_concurrency(best.replica, best.load, 2 * best.load.slots)
    many = best.replicas * best.stages
    return Section(
        "the knee",
        (
            (
                "requests at once a replica",
                exact(best.slots, "requests", "all that its memory holds, each at full length"),
            ),
            (
                "throughput",
                _banded(full.throughput * many, "throughput", "tokens/s", "all replicas, all places taken"),
            ),
            ("TTFT", _banded(full.ttft, "itl", "s", _ttft_words(best, full))),
            ("ITL", _banded(full.itl, "itl", "s", _itl_words(request, best, full))),
            ("TTFT at twice as many", _banded(beyond.ttft, "itl", "s", _ttft_words(best, beyond))),
        ),
        "beyond it throughput stays as it is and requests wait for a place",
    )


def _by_concurrency(request: Request, best: Candidate) -> Section:
    figures: list[tuple[str, Quantity]] = []
    for count in _steps(best.slots, request.users / best.replicas):
        point = at_concurrency(best.replica, best.load, count / best.stages)
        name = f"{count:g} at once"
        figures += [
            (f"{name}: TTFT", _banded(point.ttft, "itl", "s", _ttft_words(best, point))),
            (f"{name}: ITL", _banded(point.itl, "itl", "s", _itl_words(request, best, point))),
            (
                f"{name}: throughput",
                _banded(point.throughput * best.stages, "throughput", "tokens/s", "of one replica"),
            ),
        ]
    return Section("one replica by concurrency", tuple(figures), is_table=True)


def _steps(slots: float, asked: float) -> list[float]:
    """Concurrencies worth a row: round ones up to the knee, the knee, one and three beyond it, and what is asked for."""
    below = [float(step) for step in _TABLE_STEPS if step < slots * 0.95]
    around = [float(math.floor(slots)), float(math.ceil(1.5 * slots)), float(math.ceil(3 * slots))]
    extra = [] if math.isnan(asked) else [round(asked, 1)]
    return sorted({one for one in (*below, *around, *extra) if one >= 1})


def _tried_section(fitting: list[Candidate]) -> tuple[Section, ...]:
    if len(fitting) < 2:
        return ()
    figures: list[tuple[str, Quantity]] = []
    for one in fitting:
        assert one.point is not None
        name = f"TP{one.tensor}" + (f" PP{one.stages}" if one.stages > 1 else "")
        figures += [
            (f"{name}: GPUs", exact(float(one.gpus), "gpus", f"{one.replicas} replicas")),
            (f"{name}: replicas", exact(float(one.replicas), "replicas")),
            (f"{name}: at once", exact(one.slots, "requests", "a replica, each at full length")),
            (f"{name}: ITL", _banded(one.point.itl, "itl", "s", "at the load")),
        ]
    return (Section("layouts", tuple(figures), "each replica pays the weights again", is_table=True),)


# --- what binds -------------------------------------------------------------------------------------------------------


def _binding(request: Request, part: Part, best: Candidate, tried: list[Candidate]) -> Binding:
    """What decides the number of GPUs; terms in GPUs."""
    assert best.point is not None
    size = best.tensor * best.stages
    tokens_s = best.throughput * best.replicas if math.isnan(request.rate) else request.rate * request.osl
    parts = step_parts(best.replica, best.point.running, best.load.context)
    prefill = prefill_seconds(best.replica, request.isl) / request.osl
    busy = tokens_s * size / best.stages
    running = best.point.running
    usable = best.room.usable.value
    places = tokens_s * (best.point.ttft / request.osl + best.point.itl)
    terms = {
        "weights": exact(
            best.room.weights.value * size / usable,
            "gpus",
            "weights / usable memory of a GPU: of one replica",
        ),
        "KV cache": exact(
            places * best.kept.of_request(request.length) / best.kept.shards * best.tensor / usable,
            "gpus",
            "what runs at once / usable memory of a GPU",
        ),
        "bandwidth": exact(busy * parts.memory / running, "gpus", "time to read weights, keys and values"),
        "compute": exact(
            busy * (parts.compute / running + prefill), "gpus", "time of products, most of them of prefill"
        ),
    }
    if _has_goal(request):
        terms["latency goal"] = exact(float(best.gpus), "gpus", "as many as the goals need")
    if request.replicas is not None or request.tensor is not None or request.pipeline is not None:
        terms["layout asked for"] = exact(float(best.gpus), "gpus", "as many as it has")
    return Binding(_name_of_binding(request, part, best, tried, terms), tuple(terms.items()))


def _has_goal(request: Request) -> bool:
    return not (math.isnan(request.ttft) and math.isnan(request.itl))


def _name_of_binding(
    request: Request, part: Part, best: Candidate, tried: list[Candidate], terms: dict[str, Quantity]
) -> str:
    if request.replicas is not None:
        return "layout asked for"
    if _has_goal(request):
        free = replace(request, ttft=NAN, itl=NAN)
        without = (_candidate(free, part, one.tensor, one.stages) for one in tried)
        if min(one.gpus for one in without if one.replicas) < best.gpus:
            return "latency goal"
    if best.gpus <= min(one.tensor * one.stages for one in tried if one.slots >= 1):
        smallest = request.tensor is None and request.pipeline is None
        return "weights" if smallest else "layout asked for"
    more = replace(best.load, slots=2 * best.load.slots)
    gain = saturated(best.replica, more).throughput / saturated(best.replica, best.load).throughput
    if gain > 1.15 or not math.isnan(request.users):
        return "KV cache"
    return max(("bandwidth", "compute"), key=lambda name: terms[name].value)


def _nowhere(request: Request, part: Part, title: str, tried: list[Candidate]) -> Sheet:
    """Nothing fits: what binds, and how far it is off."""
    roomiest = max(tried, key=lambda one: one.room.left.value)
    ranks = roomiest.tensor * roomiest.stages
    where = f"{ranks} {part.product}" if ranks > 1 else f"one {part.product}"
    room = roomiest.room
    terms = [("weights", room.weights), ("usable memory", room.usable)]
    if room.weights.value + room.activations.value + room.beside.value >= room.usable.value:
        name = "weights"
        answer = f"does not fit: weights take {room.weights.value / GIB:.1f} GiB a GPU over {where}, and {room.usable.value / GIB:.1f} GiB are usable"
    elif all(one.slots < 1 for one in tried):
        name = "KV cache"
        need = roomiest.kept.of_request(request.length) / roomiest.kept.shards / roomiest.stages
        terms += [("KV cache", exact(need, "bytes", "of one request, a GPU")), ("left for it", room.left)]
        answer = f"does not fit: one request of {request.length:,.0f} tokens needs {need / GIB:.1f} GiB a GPU over {where}, and {max(room.left.value, 0) / GIB:.1f} GiB are left beside the weights"
    else:
        return _too_slow(request, part, title, [one for one in tried if one.slots >= 1])
    return Sheet(
        title,
        answer,
        None,
        Binding(name, tuple(terms)),
        (_memory_section(roomiest),),
        _verdicts(request, part),
        (),
        part.id,
    )


def _too_slow(request: Request, part: Part, title: str, tried: list[Candidate]) -> Sheet:
    points = [(one, at_concurrency(one.replica, one.load, min(1.0, one.load.slots))) for one in tried]
    one, point = min(
        points,
        key=lambda pair: max(
            pair[1].ttft / request.ttft if request.ttft > 0 else 0,
            pair[1].itl / request.itl if request.itl > 0 else 0,
        ),
    )
    reached, missed = [], []
    for name, goal, value in (("TTFT", request.ttft, point.ttft), ("ITL", request.itl, point.itl)):
        if value > goal:
            missed.append(f"{name} {value * 1e3:.3g} ms, not {goal * 1e3:.3g}")
        reached.append((name, _banded(value, "itl", "s", "a request alone")))
    terms = (
        *reached,
        *(
            (f"{name} goal", exact(goal, "s", "asked for"))
            for name, goal in (("TTFT", request.ttft), ("ITL", request.itl))
            if not math.isnan(goal)
        ),
    )
    name = "TTFT" if point.ttft > request.ttft else "ITL"
    answer = f"is too slow on any number of them: a request alone has {' and '.join(missed)} (TP{one.tensor})"
    return Sheet(
        title,
        answer,
        None,
        Binding(name, terms),
        (_memory_section(one),),
        _verdicts(request, part),
        (),
        part.id,
    )


# --- words ------------------------------------------------------------------------------------------------------------


def _warnings(asked: Request, request: Request, part: Part, best: Candidate) -> Iterator[str]:
    assert best.point is not None
    if asked.kv_dtype == "auto" and request.kv_dtype == "fp8":
        yield (
            "keys and values are taken at 8 bit, as TensorRT-LLM keeps them with such weights; "
            "vLLM keeps 16 bit unless told: name the KV format if so, half as many requests fit"
        )
    if best.point.concurrency > best.load.slots:
        yield (
            f"past the knee: {best.point.concurrency * best.stages:.0f} users a replica, {best.slots:.0f} places; "
            f"throughput does not grow any more, the first token takes {best.point.ttft:.1f} s"
        )
    if not math.isnan(request.rate) and request.rate * request.osl > best.throughput * best.replicas:
        yield "the load is more than this can serve: its queue grows without end"
    if request.model.is_mla and best.tensor > 1:
        yield "MLA keeps one latent, on each GPU a copy: tensor parallelism adds no room for it; data-parallel attention does"
    if best.tensor > 1 and part.scaleup_gpus <= 1:
        yield "these cards have no links of their own: tensor parallelism goes over PCIe"
    if best.kept.shards < best.tensor and not request.model.is_mla:
        yield f"{request.model.kv_heads} KV heads over {best.tensor} GPUs: they are copied, so that memory for them does not grow"
    if request.kv_dtype == "fp8" and math.isnan(part.peak("fp8")):
        yield f"{part.product} has no fp8: keys and values are stored so, and computed with at 16 bit"
    if format_named(request.dtype)[0] not in ("bf16", "fp16", "fp32") and compute_dtype(
        request.dtype, part
    ) in ("bf16", "fp16"):
        yield f"{part.product} computes {request.dtype} weights at 16 bit: less to read, not faster products"
    if request.model.is_mixture:
        yield "no row of the fit is a mixture of experts: take the speeds with more care"


def _verdicts(request: Request, part: Part) -> tuple[Verdict, ...]:
    """Rules of thumb that come up when serving, with what is true of them here."""
    params = request.model.params
    weights = weight_bytes(request.model, request.dtype)
    per = weights.value / params
    said = [
        Verdict(
            "A 100B model needs over 400 GB for its weights",
            f"At fp32 only: bf16 takes 200 GB, fp8 100, 4 bit 53 to 56. Here {weights.value / 1e9:,.0f} GB, {per:.2f} bytes a parameter.",
        ),
        Verdict(
            "Lower precision (FP8, INT4) halves the footprint",
            "FP8 halves and INT4 quarters weights against 16 bit, but for scales and what stays at 16 bit; keys and values have a format of their own"
            f" (here {request.kv_dtype}).",
        ),
        Verdict(
            "GPU memory is 16 to 80 GB at over 1 TB/s",
            f"Dated: 80 to 288 GB at 2 to 8 TB/s; {part.product} has {part.memory_bytes / 1e9:.0f} GB at {part.bandwidth / 1e12:.2f} TB/s.",
        ),
        Verdict(
            "Continuous batching serves 3 to 10 times as much",
            "Plausible against static batches; counted here throughout, up to the knee.",
        ),
    ]
    if _has_load(request):
        said += [
            Verdict(
                "Aim at 70 to 85 % utilisation",
                "No one number is right: the mean wait at 85 % is 5.7 service times with 1 server, 0.48 with 8, 0.06 with 32. Here it follows from the places and the wait.",
            ),
            Verdict(
                "Add 15 to 25 % for safety and 2 to 5 times for growth",
                f"Stacked with a target utilisation they multiply to 2.7 to 8.9 times the peak. Here the margin is {request.margin:.0%}, once; growth is none of it.",
            ),
        ]
    return tuple(said)
