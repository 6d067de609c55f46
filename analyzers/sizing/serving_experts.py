"""Expert parallelism of a deployment that serves a mixture: what each degree keeps, sends and takes. Pure.

Experts are divided over the ranks; everything else, and attention with the keys and values of its own requests, is on each of them
(data-parallel attention). In a step each token goes to its experts and back: ``2 · topk · h · 2`` bytes a layer,
``(e-1)/e`` of it to others. Layouts are searched by tensor parallelism alone: this stands beside them.
"""

from __future__ import annotations

from coldaisle.analyzers.sizing.assumptions import assumed
from coldaisle.analyzers.sizing.collectives import collective_seconds
from coldaisle.analyzers.sizing.kvcache import activation_bytes, key_values
from coldaisle.analyzers.sizing.layout import expert_sizes
from coldaisle.analyzers.sizing.quantity import Quantity, exact
from coldaisle.analyzers.sizing.serving_layout import Candidate
from coldaisle.analyzers.sizing.serving_request import Request
from coldaisle.analyzers.sizing.sheet import Section
from coldaisle.analyzers.sizing.site import Machine, Site, machine
from coldaisle.analyzers.sizing.weights import expert_params, weight_bytes
from coldaisle.sources.parts.catalogue import Part

NAME = "expert parallelism"
MOST = 64
"""Ranks that are looked at."""
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
    built, figures, fewest = machine(part, site), [], 0
    for size in expert_sizes(model, MOST):
        rows, fits = _row(request, part, best, built, size)
        figures += [(f"EP {size}: {label}", one) for label, one in rows]
        fewest = fewest or (size if fits else 0)
    found = (
        f"EP {fewest} is the fewest whose memory holds experts and a request; memory binds it"
        if fewest
        else f"memory binds: not even EP {expert_sizes(model, MOST)[-1]} holds experts and a request"
    )
    return (
        Section(
            NAME,
            tuple(figures),
            f"{found}; not searched, the layout above divides each expert",
            is_table=True,
        ),
    )


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
    return [
        ("weights", own),
        ("left for KV", exact(max(left, 0.0), "bytes", "usable - weights - activations - beside")),
        ("at once a GPU", exact(count, "requests", "each at full length, its keys and values on one GPU")),
        (
            "all-to-all",
            exact(size, "bytes", "a step and GPU: L·2·topk·h·2 B a request, (e-1)/e of it", _SOURCE),
        ),
        ("time", seconds),
    ], count >= 1


def _sent(request: Request, built: Machine, count: float, ranks: int) -> tuple[float, Quantity]:
    """Bytes a GPU sends in a decode step, and seconds of it that nothing hides."""
    model = request.model
    hidden, layers = model.hidden or 0, model.layers or 0
    payload = 2.0 * (model.experts_active or 1) * hidden * count
    if ranks == 1 or count <= 0:
        return 0.0, exact(0.0, "s")
    network = built.network(min(ranks, built.node_gpus))
    each = collective_seconds("all_to_all", payload, ranks, built.node_gpus, network, ramp=False)
    hop = assumed("serving.expert_hop_s", "s")
    exposed = assumed("exposed.expert")
    whole = 2 * layers * (each + hop.value)
    seconds = Quantity(
        whole * exposed.value, 2 * layers * (each + hop.low) * exposed.low, 2 * layers * (each + hop.high) * exposed.high,
        "s", f"2·{layers} all-to-alls of {payload:.3g} bytes · {exposed.value:g} exposed", f"{exposed.source}; {hop.source}",
    )  # fmt: skip
    return 2 * layers * (ranks - 1) / ranks * payload, seconds
