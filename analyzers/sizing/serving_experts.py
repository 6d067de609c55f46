"""Expert parallelism of a deployment that serves a mixture: what each degree keeps, sends and takes. Pure.

Experts are divided over the ranks; everything else, and attention with the keys and values of its own requests, is on each of them
(data-parallel attention). In a step each token goes to its experts and back: ``2 · topk · h · 2`` bytes a layer,
``(e-1)/e`` of it to others. The degree with the highest throughput a GPU is held against the layout found by tensor parallelism.
"""

from __future__ import annotations

from dataclasses import replace

from coldaisle.analyzers.sizing.assumptions import assumed
from coldaisle.analyzers.sizing.collectives import collective_seconds
from coldaisle.analyzers.sizing.kvcache import activation_bytes, key_values
from coldaisle.analyzers.sizing.layout import expert_sizes
from coldaisle.analyzers.sizing.quantity import Quantity, about, exact
from coldaisle.analyzers.sizing.serving_layout import Candidate, highest_point
from coldaisle.analyzers.sizing.serving_request import Request
from coldaisle.analyzers.sizing.sheet import Section
from coldaisle.analyzers.sizing.site import Machine, Site, machine
from coldaisle.analyzers.sizing.speed import SOURCE, Load, Spread, constants, replica_of
from coldaisle.analyzers.sizing.weights import expert_params, weight_bytes
from coldaisle.sources.parts.catalogue import Part

NAME = "expert parallelism"
COMPARED = "expert parallelism against the layout"
MOST = 64
"""Ranks that are looked at."""
_SPEED = "throughput a GPU"
_PROBE = 1e9
_SOURCE = "analyzers/sizing/serving_experts.py"


def expert_section(request: Request, part: Part, best: Candidate, site: Site) -> tuple[Section, ...]:
    """A row a degree that divides the experts; nothing for a dense model. Where experts are not told, it says so."""
    model = request.model
    if not model.is_mixture:
        return ()
    if not model.experts or not model.experts_active:
        return (
            Section(
                NAME,
                (),
                "not considered: how many experts the model has is not told (--experts, --experts-active)",
            ),
        )
    built, fewest = machine(part, site), 0
    figures: list[tuple[str, Quantity]] = []
    speeds: dict[int, Quantity] = {}
    for size in expert_sizes(model, MOST):
        rows, fits = _row(request, part, best, built, size)
        figures += [(f"EP {size}: {label}", one) for label, one in rows]
        fewest = fewest or (size if fits else 0)
        if point := dict(rows).get(_SPEED):
            speeds[size] = point
    found = (
        f"EP {fewest} is the fewest whose memory holds experts and a request; memory binds it"
        if fewest
        else f"memory binds: not even EP {expert_sizes(model, MOST)[-1]} holds experts and a request"
    )
    compared = _compared(request, best, fewest, speeds)
    table = Section(NAME, tuple(figures), f"{found}; {compared.note}", is_table=True)
    return (table, replace(compared, note=""))


def _compared(request: Request, best: Candidate, fewest: int, speeds: dict[int, Quantity]) -> Section:
    """The degree that serves most a GPU, against the layout that was found; the note says which of them it is."""
    figures: list[tuple[str, Quantity]] = []
    if fewest:
        figures.append(("fewest GPUs that hold it", exact(float(fewest), "gpus", "the lowest degree")))
    if not speeds:
        note = "no degree of it meets what was asked; the layout above stands"
        return Section(COMPARED, tuple(figures), note)
    size = max(speeds, key=lambda one: speeds[one].value)
    full = highest_point(request, best.replica, best.load)
    here = full.throughput / best.tensor if full else 0.0
    there = speeds[size].value
    note = f"EP {size} serves most, {there:,.0f} tok/s a GPU where the layout above serves {here:,.0f}"
    note += (
        ": the layout above is the best" if there <= here else f": the best for a load of {size} GPUs or more"
    )
    band = constants()["band.throughput"]
    words = "the layout above with as many requests as it holds and its goals allow"
    figures += [
        ("degree that serves most", exact(float(size), "gpus", "of those whose memory holds it")),
        (_SPEED, speeds[size]),
        ("throughput a GPU of the layout", about(here, band.low, band.high, "tokens/s", words, SOURCE)),
    ]
    if here:
        figures.append(("over the layout's", exact(there / here, "ratio", "throughput a GPU")))
    return Section(COMPARED, tuple(figures), note)


def _row(
    request: Request, part: Part, best: Candidate, built: Machine, ranks: int
) -> tuple[list[tuple[str, Quantity]], bool]:
    model, room = request.model, best.room
    weights = weight_bytes(model, request.dtype)
    share = expert_params(model) / model.params
    own = weights.scaled(
        1 - share + share / ranks, formula=f"what is no expert + {share:.0%} of all / {ranks}"
    )
    acts = activation_bytes(model, request.step_tokens).value
    left = room.usable.value - own.value - acts - room.beside.value
    each = key_values(model, request.kv_dtype).of_request(request.length)
    count = min(max(left, 0.0) / each, request.max_running) if each > 0 else request.max_running
    size, seconds = _sent(request, built, count, ranks)
    speed = _speed(request, part, built, count, ranks)
    return [
        ("weights", own),
        ("left for KV", exact(max(left, 0.0), "bytes", "usable - weights - activations - beside")),
        ("at once a GPU", exact(count, "requests", "each at full length, its keys and values on one GPU")),
        *speed,
        (
            "all-to-all",
            exact(size, "bytes", "a step and GPU: L·2·topk·h·2 B a request, (e-1)/e of it", _SOURCE),
        ),
        ("time", seconds),
    ], count >= 1


def _speed(
    request: Request, part: Part, built: Machine, count: float, ranks: int
) -> list[tuple[str, Quantity]]:
    """At the highest concurrency that the goals allow; nothing where no request fits, or none is fast enough."""
    if count < 1:
        return []
    alone = replica_of(request.model, part, 1, request.dtype, key_values(request.model, request.kv_dtype))
    each, fixed, exposed = 0.0, 0.0, assumed("exposed.expert").value
    if ranks > 1:
        each = _exchange_seconds(request, built, _PROBE, ranks) / _PROBE
        fixed = assumed("serving.expert_hop_s", "s").value
    replica = replace(alone, spread=Spread(ranks, exposed * fixed, exposed * each))
    point = highest_point(request, replica, Load(request.isl, request.osl, count))
    if point is None:
        return []
    band, gaps = constants()["band.throughput"], constants()["band.itl"]
    even = assumed("serving.expert_balance") if ranks > 1 else exact(1.0, "ratio")
    words = f"{point.concurrency:.4g} requests a GPU, each with its own keys and values; experts over {ranks}"
    words += f", {even.value:g} for the busiest of them" if ranks > 1 else ""
    source = "; ".join(filter(None, (SOURCE, even.source)))
    return [
        ("ITL", about(point.itl / even.value, gaps.low, gaps.high, "s", words, source)),
        (_SPEED, about(point.throughput * even.value, band.low, band.high, "tokens/s", words, source)),
    ]


def _exchange_seconds(request: Request, built: Machine, payload: float, ranks: int) -> float:
    """Of one all-to-all of so many bytes, each token counted once for each of its experts.

    A token crosses to another node once, where links hand it to all of its experts there (DeepEP; DeepSeek-V3 2412.19437,
    3.2.2): to ``k (1 - (1-1/k)^topk)`` of k nodes, as if each expert stood anywhere.
    """
    nodes, met = -(-ranks // built.node_gpus), request.model.experts_active or 1
    network = built.network(min(ranks, built.node_gpus))
    inside = collective_seconds(
        "all_to_all", payload, min(ranks, built.node_gpus), built.node_gpus, network, ramp=False
    )
    if nodes == 1:
        return inside
    once = nodes * (1.0 - (1.0 - 1.0 / nodes) ** met) / met
    between = (nodes - 1) / nodes * payload * once / network.port_rate
    return max(inside, between)


def _sent(request: Request, built: Machine, count: float, ranks: int) -> tuple[float, Quantity]:
    """Bytes a GPU sends in a decode step, and seconds of it that nothing hides."""
    model = request.model
    hidden, layers = model.hidden or 0, model.layers or 0
    payload = 2.0 * (model.experts_active or 1) * hidden * count
    if ranks == 1 or count <= 0:
        return 0.0, exact(0.0, "s")
    each = _exchange_seconds(request, built, payload, ranks)
    hop = assumed("serving.expert_hop_s", "s")
    exposed = assumed("exposed.expert")
    whole = 2 * layers * (each + hop.value)
    seconds = Quantity(
        whole * exposed.value, 2 * layers * (each + hop.low) * exposed.low, 2 * layers * (each + hop.high) * exposed.high,
        "s", f"2·{layers} all-to-alls of {payload:.3g} bytes · {exposed.value:g} exposed", f"{exposed.source}; {hop.source}",
    )  # fmt: skip
    return 2 * layers * (ranks - 1) / ranks * payload, seconds
