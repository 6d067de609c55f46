"""How many of a part serve a model: the sheet with its layout, memory, latency by concurrency, and what binds. Pure.

The fewest GPUs win, then the shortest time between tokens.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace

from coldaisle.analyzers.sizing.catalogue import FROM_CONFIG
from coldaisle.analyzers.sizing.kvcache import kv_bytes_per_token
from coldaisle.analyzers.sizing.quantity import Binding, Quantity, about, exact
from coldaisle.analyzers.sizing.serving_experts import expert_section
from coldaisle.analyzers.sizing.serving_layout import (
    Candidate,
    Room,
    candidate,
    highest_point,
    layouts,
    replica_with,
    room_of,
    slots_in,
    slots_of,
    tensor_sizes,
    wait_allowed,
)
from coldaisle.analyzers.sizing.serving_request import NAN, Request, settled
from coldaisle.analyzers.sizing.serving_rules import serving_verdicts
from coldaisle.analyzers.sizing.serving_traffic import traffic_sections
from coldaisle.analyzers.sizing.sheet import Section, Sheet
from coldaisle.analyzers.sizing.site import Site
from coldaisle.analyzers.sizing.speed import (
    SOURCE,
    Point,
    at_concurrency,
    constants,
    prefill_seconds,
    saturated,
    step_parts,
)
from coldaisle.analyzers.sizing.weights import compute_dtype, format_named
from coldaisle.sources.parts.catalogue import GIB, Part

__all__ = [
    "Candidate",
    "Request",
    "Room",
    "plan_serving",
    "replica_with",
    "room_of",
    "slots_of",
    "tensor_sizes",
]

MOST_OF_ALL = 10**9
"""GPUs of an answer; no maker has made so many."""
_TABLE_STEPS = (1, 2, 5, 10, 25, 50, 100, 150, 200, 250, 500, 1000, 2000)


def plan_serving(request: Request, part: Part, site: Site | None = None) -> Sheet:
    """The fewest of a part that serve a request, in a place. What fits nowhere is a sheet without GPUs.

    Errors: SizingError for nonsense.
    """
    compute_dtype(request.dtype, part)
    asked, request = request, settled(request, part)
    tried = [candidate(request, part, tensor, stages) for tensor, stages in layouts(request, part)]
    fitting = [one for one in tried if one.replicas]
    title = f"{request.model.name} in {format_named(request.dtype)[0]} on {part.product}"
    if not fitting:
        return _nowhere(request, part, title, tried)
    best = min(fitting, key=lambda one: (one.gpus, one.point.itl if one.point else 0.0))
    if best.gpus > MOST_OF_ALL:
        return _too_many(request, part, title, best)
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
            *expert_section(request, part, best, site or Site()),
            *traffic_sections(request, part, best, site or Site()),
            *_tried_section(fitting),
        ),
        verdicts=serving_verdicts(request, part, best),
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
        point = highest_point(request, best.replica, best.load)
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
            ("KV cache", _not_below_zero(room.left)),
        ),
    )


def _not_below_zero(left: Quantity) -> Quantity:
    """No memory is less than none."""
    return replace(left, value=max(left.value, 0.0), low=max(left.low, 0.0), high=max(left.high, 0.0))


def _kv_section(request: Request, best: Candidate) -> Section:
    kept, ranks = best.kept, best.kept.shards * best.stages
    room, length = best.room.left, request.length
    figures = [
        ("a token", kv_bytes_per_token(request.model, request.kv_dtype)),
        ("a request", exact(kept.of_request(length), "bytes", f"{length:,.0f} tokens", kept.formula)),
    ]
    if each := kept.of_token(length) / ranks:
        words = f"{room.value / GIB:.2f} GiB a GPU / {each:,.0f} bytes a token and GPU"
        low, value, high = (max(left, 0.0) / each for left in (room.low, room.value, room.high))
        figures.append(("tokens a replica", Quantity(value, low, high, "tokens", words, kept.formula)))
    if kept.windowed:
        full = kept.charged_in_full / ranks
        words = "where the engine gives layers with a window as much as the others"
        figures.append(
            ("tokens a replica, all layers in full", exact(max(room.value, 0) / full, "tokens", words))
        )
    figures += [
        ("requests at once, full length", slots_in(request, best.room, kept, best.stages)),
        ("requests at once, on the mean", _mean_slots(request, best)),
    ]
    return Section("keys and values", tuple(figures))


def _mean_slots(request: Request, best: Candidate) -> Quantity:
    each = best.kept.of_request(request.isl + request.osl / 2) / best.kept.shards / best.stages
    count = min(max(best.room.left.value, 0.0) / each, request.max_running) if each else request.max_running
    return exact(count, "requests", "isl + osl/2 tokens each: some will be put off again", "Little's law")


def _load_section(request: Request, best: Candidate) -> Section:
    assert best.point is not None
    every = best.throughput * best.replicas
    figures = [*_speeds(request, best, best.point, every), *_asked(request, best, best.point, every)]
    return Section("at the load" if request.has_load else "of one replica, full", tuple(figures))


def _speeds(request: Request, best: Candidate, point: Point, every: float) -> Iterator[tuple[str, Quantity]]:
    """What the deployment does; ``every``: output tokens/s of all replicas."""
    running = point.concurrency * best.stages
    yield (
        "requests at once a replica",
        exact(running, "requests", "users of a replica, or the most that its goals allow"),
    )
    yield "TTFT", _banded(point.ttft, "itl", "s", _ttft_words(best, point))
    yield "ITL", _banded(point.itl, "itl", "s", _itl_words(request, best, point))
    words = f"{best.replicas} · {running:.4g} requests / time between tokens, with prefills"
    yield "throughput", _banded(every, "throughput", "tokens/s", words)
    yield (
        "throughput a GPU",
        _banded(every / best.gpus, "throughput", "tokens/s", "of output, over all GPUs"),
    )


def _asked(request: Request, best: Candidate, point: Point, every: float) -> Iterator[tuple[str, Quantity]]:
    """The rate that is asked for, and how full it makes them; nothing where none is."""
    if math.isnan(request.rate):
        return
    rate = request.rate * request.osl
    yield "asked for", exact(rate, "tokens/s", f"{request.rate:g} requests/s · {request.osl:g} tokens")
    yield "with margin", exact(rate * (1 + request.margin), "tokens/s", f"{request.margin:.0%} once")
    yield (
        "highest utilisation",
        exact(
            best.utilisation,
            "ratio",
            f"a mean wait of {wait_allowed(request, point):.3g} of a request's time",
            "Erlang C with Allen-Cunneen, Ca² = Cs² = 1",
        ),
    )
    yield "utilisation", exact(min(rate / every, 1.0), "ratio", "asked for / throughput")


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
                slots_in(request, best.room, best.kept, best.stages),
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
    name = _name_of_binding(request, part, best, tried, terms)
    if name == "latency goal":
        terms[name] = exact(float(best.gpus), "gpus", "as many as the goals need")
    if request.replicas is not None or request.tensor is not None or request.pipeline is not None:
        terms["layout asked for"] = exact(float(best.gpus), "gpus", "as many as it has")
    return Binding(name, tuple(terms.items()))


def _name_of_binding(
    request: Request, part: Part, best: Candidate, tried: list[Candidate], terms: dict[str, Quantity]
) -> str:
    if request.replicas is not None:
        return "layout asked for"
    if request.has_goal:
        free = replace(request, ttft=NAN, itl=NAN)
        without = (candidate(free, part, one.tensor, one.stages) for one in tried)
        if min(one.gpus for one in without if one.replicas) < best.gpus:
            return "latency goal"
    if best.gpus <= min(one.tensor * one.stages for one in tried if one.holds(request.longest)):
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
    takes = {"weights": room.weights, "activations": room.activations, "engine": room.beside}
    if sum(one.value for one in takes.values()) >= room.usable.value:
        name = max(takes, key=lambda one: takes[one].value)
        terms = [*takes.items(), ("usable memory", room.usable)]
        beside = (
            ""
            if room.weights.value >= room.usable.value
            else (
                f", a step's activations {room.activations.value / GIB:.1f} and the engine itself {room.beside.value / GIB:.1f}"
            )
        )
        answer = f"does not fit: weights take {room.weights.value / GIB:,.1f} GiB a GPU over {where}{beside}, and {room.usable.value / GIB:.1f} GiB are usable"
    elif not any(one.holds(request.longest) for one in tried):
        name = "KV cache"
        need = roomiest.kept.of_request(request.longest) / roomiest.kept.shards / roomiest.stages
        terms += [("KV cache", exact(need, "bytes", "of one request, a GPU")), ("left for it", room.left)]
        answer = f"does not fit: one request of {request.longest:,.0f} tokens needs {need / GIB:.1f} GiB a GPU over {where}, and {max(room.left.value, 0) / GIB:.1f} GiB are left beside the weights"
    else:
        return _too_slow(request, part, title, [one for one in tried if one.holds(request.longest)])
    return Sheet(
        title,
        answer,
        None,
        Binding(name, tuple(terms)),
        (_memory_section(roomiest),),
        serving_verdicts(request, part),
        (),
        part.id,
    )


def _too_many(request: Request, part: Part, title: str, best: Candidate) -> Sheet:
    """A load beyond all clusters."""
    terms = (
        (
            "load",
            exact(float(best.gpus), "gpus", f"{best.replicas:,} replicas of {best.tensor * best.stages}"),
        ),
        ("most", exact(float(MOST_OF_ALL), "gpus", "more than there are")),
    )
    answer = f"{best.gpus:,} {part.product} would be needed, more than there are. What binds: load"
    return Sheet(
        title,
        answer,
        None,
        Binding("load", terms),
        (_memory_section(best),),
        serving_verdicts(request, part),
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
        serving_verdicts(request, part),
        (),
        part.id,
    )


# --- words -----------------------------------------------------------------------------------------------------------


def _warnings(asked: Request, request: Request, part: Part, best: Candidate) -> Iterator[str]:
    assert best.point is not None
    if asked.kv_dtype == "auto" and request.kv_dtype == "fp8":
        yield (
            "keys and values are taken at 8 bit, as TensorRT-LLM keeps them with such weights; "
            "vLLM keeps 16 bit unless told: name the KV format if so, half as many requests fit"
        )
    yield from _memory_warnings(request, best)
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
    if request.kv_dtype == "fp8" and math.isnan(part.peak("fp8")):
        yield f"{part.product} has no fp8: keys and values are stored so, and computed with at 16 bit"
    if format_named(request.dtype)[0] not in ("bf16", "fp16", "fp32") and compute_dtype(
        request.dtype, part
    ) in ("bf16", "fp16"):
        yield f"{part.product} computes {request.dtype} weights at 16 bit: less to read, not faster products"
    if request.model.is_mixture:
        kept = "divides each expert" if best.tensor > 1 else "has all experts on each GPU"
        yield f"no row of the fit is a mixture of experts: take the speeds with more care; the layout {kept}; its table says whether expert parallelism does better"


def _memory_warnings(request: Request, best: Candidate) -> Iterator[str]:
    kept, model, left = best.kept, request.model, best.room.left
    if left.low <= 0:
        yield "memory may not suffice: at worst nothing is left for keys and values; a shorter --max-model-len, or more GPUs, make it sure"
    if model.kv_layers != model.layers and not model.state_bytes and model.status != FROM_CONFIG:
        yield "what its layers without keys and values keep of a request is not told, and counted as nothing: a config.json tells it"
    if kept.shards < best.tensor and not model.is_mla and kept.charged_in_full:
        yield f"{model.kv_heads} KV heads over {best.tensor} GPUs: they are copied, so that memory for them does not grow"
