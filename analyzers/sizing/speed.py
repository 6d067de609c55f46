"""How fast a replica serves: prefill, decode steps, time to first token and between tokens, by concurrency. Pure; s, tokens/s.

A decode step reads the weights that its tokens meet and the keys and values of all that run, and multiplies:
``step = √(memory² + compute²) + all-reduces + L · launches``. A token waits besides for its share of others' prefills:
``ITL = step + (n-1)/osl · prefill``. Running = KV tokens / (isl + osl), throughput by Little's law, and beyond that number the
rest waits: throughput stays, time to first token explodes.
Constants: ``serving.toml``. Sources: NIM 1.8 performance tables, TensorRT-LLM v1.0 performance overview.
"""

from __future__ import annotations

import math
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache
from importlib.resources import files

from coldaisle.analyzers.sizing.catalogue import Model
from coldaisle.analyzers.sizing.flops import attention_elements
from coldaisle.analyzers.sizing.kvcache import KeyValues, hidden_of
from coldaisle.analyzers.sizing.quantity import Quantity, exact
from coldaisle.analyzers.sizing.sheet import SizingError
from coldaisle.analyzers.sizing.weights import (
    compute_dtype,
    expert_params,
    table_params,
    weight_bytes,
)
from coldaisle.sources.parts.catalogue import Part, fabrics

SOURCE = "roofline with constants fitted to TensorRT-LLM v1.0 and NIM 1.8 tables (serving.toml)"
_H100_MATMUL = 0.803
_CARD_LINK = "pcie5x16"


@cache
def constants() -> Mapping[str, Quantity]:
    """Of ``serving.toml``, by ``table.key``, each with its interval and source."""
    text = (files(__package__) / "serving.toml").read_text(encoding="utf-8")
    return {
        f"{table}.{key}": Quantity(
            row["value"], row["low"], row["high"], "ratio", f"{table}.{key}", row["source"]
        )
        for table, content in tomllib.loads(text).items()
        for key, row in content.items()
    }


def fitted(key: str) -> float:
    """The value of a constant."""
    return constants()[key].value


@dataclass(frozen=True, slots=True)
class Engine:
    """What of a part's rates a serving engine reaches, and what each step costs besides. Ratios and s."""

    bandwidth: float
    compute: float
    layer_s: float
    collective_s: float
    request_s: float
    alone: float
    behind: float

    @classmethod
    def usual(cls, part: Part, dtype: str, model: Model) -> Engine:
        """For products in ``dtype`` on a part."""
        compute = fitted(f"compute.{dtype}") * _matmul_ratio(part)
        if model.is_mixture:
            compute *= fitted("compute.mixture")
        return cls(
            fitted("engine.bandwidth"),
            compute,
            fitted("engine.layer_s"),
            fitted("engine.collective_s"),
            fitted("engine.request_s"),
            fitted("engine.alone"),
            fitted("engine.behind"),
        )


def _matmul_ratio(part: Part) -> float:
    """How much less of its peak a part reaches than an H100 does, by the best products that anybody measured; at most 1."""
    share = part.matmul_share("bf16")
    if math.isnan(share):
        return 1.0 if part.vendor == "NVIDIA" else 0.75
    return min(share / _H100_MATMUL, 1.0)


@dataclass(frozen=True, slots=True)
class Spread:
    """Experts over so many ranks, each with requests of its own; an all-to-all's exposed seconds: fixed, and a byte."""

    ranks: int
    fixed_s: float
    byte_s: float


@dataclass(frozen=True, slots=True)
class Replica:
    """One copy of a model over ``tensor`` GPUs, with what its speed depends on. Bytes, flop/s and bytes/s of one GPU."""

    model: Model
    tensor: int
    kept: KeyValues
    read_bytes: float
    """Of weights that every step reads: all but embeddings, in a mixture without the routed experts."""
    expert_bytes: float
    """Of all routed experts; a step reads those that its tokens meet."""
    peak: float
    bandwidth: float
    link: float
    engine: Engine
    layers: int
    hidden: int
    spread: Spread | None = None
    """Of experts over this GPU and others (then ``tensor`` is 1); None: each GPU of the replica has a part of every expert."""

    def with_engine(self, engine: Engine) -> Replica:
        """The same, with other constants."""
        return replace(self, engine=engine)


def replica_of(model: Model, part: Part, tensor: int, dtype: str, kept: KeyValues) -> Replica:
    """A replica of a model in a format on so many of a part. Errors: SizingError where the part's rates are not known."""
    computes = compute_dtype(dtype, part)
    if not part.bandwidth > 0:
        raise SizingError(
            f"the memory bandwidth of {part.product} is not in the catalogue", "choose another part"
        )
    weights = weight_bytes(model, dtype).value
    experts = weights * expert_params(model) / model.params
    return Replica(
        model=model,
        tensor=tensor,
        kept=kept,
        read_bytes=max(weights - experts - 2.0 * table_params(model) * 0.5, 0.0),
        expert_bytes=experts,
        peak=part.peak(computes),
        bandwidth=part.bandwidth,
        link=_link(part),
        engine=Engine.usual(part, computes, model),
        layers=model.layers or 32,
        hidden=model.hidden or hidden_of(model),
    )


def _link(part: Part) -> float:
    """Bytes/s one way that collectives reach between GPUs of a node."""
    known = fabrics()
    if part.scaleup_gpus > 1 and part.scaleup > 0:
        near = [fabric for fabric in known.values() if fabric.rate == part.scaleup]
        return part.scaleup * (near[0].efficiency if near else 0.8)
    cards = known.get(f"pcie{part.pcie_generation:.0f}x16") if part.pcie_generation > 0 else None
    card = cards or known[_CARD_LINK]
    return card.rate * card.efficiency


# --- one step ---------------------------------------------------------------------------------------------------------


def prefill_seconds(replica: Replica, tokens: float, alone: bool = False) -> float:
    """For the prompt of one request: ``2·N_a·P + 2·L·d·P²``, d what all heads are wide, and two all-reduces a layer.

    ``alone``: nothing else is batched, so that it reads the weights for itself; else they are read for the step anyhow.
    """
    model, engine = replica.model, replica.engine
    attention = 2.0 * _prompt_elements(replica, tokens) * tokens  # of 4 a pair the causal half
    flops = 2.0 * _multiplied(model) * tokens + attention
    seconds = flops / (replica.tensor * replica.peak * engine.compute) + _all_reduce(replica, tokens)
    if not alone:
        return seconds
    met = replica.read_bytes + _experts_read(replica, tokens)
    least = met / (replica.tensor * replica.bandwidth * engine.bandwidth)
    return max(seconds, least) * engine.alone


def step_seconds(replica: Replica, running: float, context: float) -> float:
    """A decode step of so many requests with so many tokens each."""
    return step_parts(replica, running, context).seconds


@dataclass(frozen=True, slots=True)
class Step:
    """What a decode step takes, s."""

    memory: float
    compute: float
    other: float

    @property
    def seconds(self) -> float:
        return math.hypot(self.memory, self.compute) + self.other


def step_parts(replica: Replica, running: float, context: float) -> Step:
    """A decode step and what takes the time in it."""
    model, engine = replica.model, replica.engine
    kept = running * replica.kept.of_request(context) / min(replica.kept.shards, replica.tensor)
    weights = (replica.read_bytes + _experts_read(replica, running)) / replica.tensor
    flops = running * (2.0 * _multiplied(model) + _decode_attention(replica, context))
    other = _all_reduce(replica, running) + engine.layer_s * replica.layers
    if replica.tensor > 1:
        other += 2.0 * replica.layers * engine.collective_s
    return Step(
        memory=(weights + kept) / (replica.bandwidth * engine.bandwidth),
        compute=flops / (replica.tensor * replica.peak * engine.compute),
        other=other,
    )


def _multiplied(model: Model) -> float:
    """Parameters that a token is multiplied with: the input embedding is looked up."""
    table = 0.0 if math.isnan(model.embedding_params) or model.tied_embedding else model.embedding_params
    return max(model.active_params - table, 0.5 * model.active_params)


def _prompt_elements(replica: Replica, tokens: float) -> float:
    if replica.model.layers and not math.isnan(replica.model.attention_width):
        return attention_elements(replica.model, tokens)
    return replica.layers * replica.hidden * tokens


def _decode_attention(replica: Replica, context: float) -> float:
    """FLOPs of one token with so many before it: scores and their sum, of MLA over its latent; a window hides what is beyond."""
    model = replica.model
    keeping = model.kv_layers if model.kv_layers is not None else replica.layers
    windowed = model.window_layers if model.window else 0
    seen = (keeping - windowed) * context + windowed * min(context, model.window or 0)
    width = (
        (model.heads or 1) * (model.latent_dim or 1)
        if model.is_mla
        else (model.heads or 0) * (model.head_dim or 0) or replica.hidden
    )
    return 4.0 * width * seen


def _met(model: Model, tokens: float) -> float:
    """The share of its experts that so many tokens meet, as if each chose at random."""
    if not (model.experts and model.experts_active):
        return 1.0
    return float(1.0 - (1.0 - model.experts_active / model.experts) ** max(tokens, 1.0))


def _experts_read(replica: Replica, tokens: float) -> float:
    """Bytes of experts that a step reads; where they are spread, those of this rank that the tokens of all ranks meet."""
    ranks = replica.spread.ranks if replica.spread else 1
    return replica.expert_bytes / ranks * _met(replica.model, tokens * ranks)


def _all_reduce(replica: Replica, tokens: float) -> float:
    """Two a layer, each of 2 bytes times hidden size and token: ``2(t-1)/t · S`` over the link; or as many all-to-alls."""
    ranks = replica.tensor
    if (spread := replica.spread) and spread.ranks > 1:
        size = 2.0 * replica.hidden * tokens * (replica.model.experts_active or 1)
        return 2.0 * replica.layers * (spread.fixed_s + size * spread.byte_s)
    if ranks == 1:
        return 0.0
    size = 2.0 * replica.hidden * tokens
    return 2.0 * replica.layers * 2.0 * (ranks - 1) / ranks * size / replica.link


# --- by concurrency ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Load:
    """Requests that a replica serves: tokens in and out of each, and how many run at once at most."""

    isl: float
    osl: float
    slots: float

    @property
    def context(self) -> float:
        """Tokens of a running request, on the mean."""
        return self.isl + self.osl / 2.0


@dataclass(frozen=True, slots=True)
class Point:
    """A replica at a concurrency, held by users that ask again at once."""

    concurrency: float
    running: float
    ttft: float
    itl: float
    throughput: float
    """Output tokens a second."""


def at_concurrency(replica: Replica, load: Load, concurrency: float) -> Point:
    """What that many users see. Above ``slots`` the rest waits: ``TTFT = c·osl/X - (osl-1)·ITL``."""
    running = min(concurrency, load.slots)
    itl = itl_seconds(replica, load, running)
    ttft = _served(replica, load, running, itl)
    if concurrency > load.slots:
        throughput = _capacity(replica, load, load.slots)
        waited = concurrency * load.osl / throughput - (load.osl - 1) * itl
        return Point(concurrency, running, max(waited, ttft), itl, throughput)
    life = ttft + (load.osl - 1) * itl
    return Point(concurrency, running, ttft, itl, running * load.osl / life)


def itl_seconds(replica: Replica, load: Load, running: float) -> float:
    """Between two tokens of a request while so many run: the step, and its share of the others' prefills."""
    prefills = max(running - 1.0, 0.0) / load.osl * prefill_seconds(replica, load.isl)
    return step_seconds(replica, running, load.context) + prefills


def saturated(replica: Replica, load: Load) -> Point:
    """At the knee: all that fit run, nobody waits for a place."""
    point = at_concurrency(replica, load, load.slots)
    return replace(point, throughput=_capacity(replica, load, load.slots))


def _capacity(replica: Replica, load: Load, running: float) -> float:
    """Output tokens/s while nothing idles: each of so many takes its prefill, which gives the first token, and shares the steps."""
    steps = (load.osl - 1.0) * step_seconds(replica, running, load.context)
    return running * load.osl / (running * prefill_seconds(replica, load.isl) + steps)


def _served(replica: Replica, load: Load, running: float, itl: float) -> float:
    """To the first token of a request that has a place: its prefill, and prompts before it."""
    alone = prefill_seconds(replica, load.isl, alone=True)
    each = prefill_seconds(replica, load.isl)
    rate = running / (load.osl * itl + alone)
    busy = min(rate * each, 0.97)
    others = (running - 1.0) / running if running > 1 else 0.0
    behind = replica.engine.behind * math.sqrt(busy / (1.0 - busy) * others)
    least = each * (1.0 + max(running - 1.0, 0.0) / load.osl)  # no more than all of them are served at once
    return max(replica.engine.request_s + alone * (1.0 + behind), least)


# --- more and better --------------------------------------------------------------------------------------------------


def knee_batch(part: Part, dtype: str, bytes_each: float) -> Quantity:
    """Requests in a step from which on products take longer than reading weights: ``F·bytes/(2·BW)``."""
    peak = part.peak(dtype)
    return exact(
        peak * bytes_each / (2.0 * part.bandwidth),
        "requests",
        f"{peak:.4g} flop/s · {bytes_each:g} B / (2 · {part.bandwidth:.4g} B/s)",
        "roofline, at the rates of the sheet, weights alone",
    )


def speculative_speedup(accepted: float, drafted: int, cost: float) -> Quantity:
    """Of decoding one request: ``(1-α^(k+1))/((1-α)(k·c+1))``. It vanishes where a step is bound by compute, at large batches.

    ``accepted``: the share of drafted tokens that are right; ``cost``: a draft's time over the model's.
    """
    if not 0 <= accepted < 1 or drafted < 1 or not cost >= 0:
        raise SizingError(
            f"speculative decoding with α={accepted:g}, k={drafted}, c={cost:g}: α is from 0 to below 1, k at least 1, c not below 0"
        )
    value = (1 - accepted ** (drafted + 1)) / ((1 - accepted) * (drafted * cost + 1))
    words = f"(1-{accepted:g}^{drafted + 1})/((1-{accepted:g})·({drafted}·{cost:g}+1))"
    return Quantity(value, min(1.0, value), value, "ratio", words, "Leviathan et al. 2023 (remembered)")
