"""Memory of training, bytes a GPU, term by term. Pure.

States a parameter: bf16 weights 2, fp32 gradients 4, fp32 master weights and Adam 12: 18 (Megatron); ZeRO's papers keep gradients
in 2 bytes: 16. The fullest GPU is the first stage (all microbatches in flight, the embedding) or the last (logits, the head).
Sources: Megatron-LM ``theoretical_memory_usage.py``; ZeRO 1910.02054; Korthikanti 2205.05198; ml-engineering (logits, overheads).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache, lru_cache

from coldaisle.analyzers.sizing.assumptions import assumed
from coldaisle.analyzers.sizing.bounds import check_above_zero
from coldaisle.analyzers.sizing.catalogue import Model
from coldaisle.analyzers.sizing.flops import Method
from coldaisle.analyzers.sizing.layout import Layout, Sharding, stage_layers
from coldaisle.analyzers.sizing.quantity import Quantity, exact
from coldaisle.analyzers.sizing.sheet import SizingError
from coldaisle.analyzers.sizing.weights import expert_params
from coldaisle.sources.parts.catalogue import GIB

STATES: dict[str, tuple[int, int, int]] = {
    "bf16": (2, 4, 12),
    "fp8": (2, 4, 12),  # master copies and what is kept are those of bf16
    "fp4": (2, 4, 12),
    "fp16": (2, 2, 16),
    "fp32": (4, 4, 8),
    "tf32": (4, 4, 8),
}
"""Bytes of weights, gradients, optimizer by the dtype of the run."""
_MEGATRON = "Megatron-LM theoretical_memory_usage.py"
_SHARDED: dict[Sharding, tuple[bool, bool, bool]] = {
    "none": (False, False, False),
    "optimizer": (False, False, True),
    "gradients": (False, True, True),
    "parameters": (True, True, True),
}


def bytes_per_parameter(
    sharding: Sharding, data: int, dtype: str = "bf16", gradient_bytes: int | None = None
) -> Quantity:
    """Bytes of states a parameter of a rank: 18; ``6 + 12/dp``; ``2 + 16/dp``; ``18/dp``.

    ``gradient_bytes=2`` is the convention of ZeRO's papers: 16; ``4 + 12/dp``; ``2 + 14/dp``; ``16/dp``. Errors: SizingError.
    """
    check_above_zero("data parallelism", data)
    weights, gradients, optimizer = states_of(dtype)
    terms = (weights, gradient_bytes or gradients, optimizer)
    sizes = [size / data if split else size for size, split in zip(terms, _SHARDED[sharding], strict=True)]
    words = " + ".join(
        f"{size}/{data}" if split else str(size)
        for size, split in zip(terms, _SHARDED[sharding], strict=True)
    )
    return exact(sum(sizes), "bytes", f"{words} (weights, gradients, optimizer)", _MEGATRON)


def states_of(dtype: str) -> tuple[int, int, int]:
    """Bytes of weights, gradients and optimizer a parameter. Errors: SizingError for a dtype that nobody trains in."""
    try:
        return STATES[dtype]
    except KeyError:
        raise SizingError(f"nothing is trained in {dtype}; use {', '.join(STATES)}") from None


@dataclass(frozen=True, slots=True)
class Trained:
    """What a run keeps: all parameters, or frozen ones and adapters."""

    model: Model
    seq: int
    dtype: str = "bf16"
    method: Method = "full"
    adapters: float = 0.0
    """Parameters of LoRA."""

    @property
    def frozen_bytes(self) -> float:
        """A frozen parameter's; 0 where all are trained."""
        if self.method == "full":
            return 0.0
        return assumed("quantised.qlora_weight_bytes").value if self.method == "qlora" else 2.0


@dataclass(frozen=True, slots=True)
class Memory:
    """Bytes of one GPU, term by term; plain numbers, for a search over layouts."""

    weights: float
    gradients: float
    optimizer: float
    activations: float
    logits: float
    gathered: float
    """A layer and the next that ZeRO-3 gathers."""
    overhead: float
    stage: str
    """``first``, ``last`` or ``only``."""

    @property
    def total(self) -> float:
        """Bytes, fragmentation included."""
        return (self.states + self.activations + self.logits + self.gathered) * (
            1 + assumed("overhead.fragmentation").value
        ) + self.overhead

    @property
    def states(self) -> float:
        """Weights, gradients and optimizer."""
        return self.weights + self.gradients + self.optimizer


def least_bytes(run: Trained) -> float:
    """What all GPUs of a run keep together at least, each state once: no layout has less."""
    each = run.frozen_bytes if run.method != "full" else float(sum(states_of(run.dtype)))
    return 0.999 * each * run.model.params  # less a thousandth: layers and tables are rounded elsewhere


@lru_cache(maxsize=32_768)
def fullest(run: Trained, layout: Layout) -> Memory:
    """Memory of the GPU that holds most: of one layout the same on every part that is compared."""
    return max((_stage(run, layout, name) for name in _stages(layout)), key=lambda memory: memory.total)


def fullest_states(run: Trained, layout: Layout) -> float:
    """Bytes of weights, gradients and optimizer of that GPU."""
    return sum(_states(run, layout))


def _stages(layout: Layout) -> tuple[str, ...]:
    return ("only",) if layout.pipeline == 1 else ("first", "last")


def activation_bytes(model: Model, tokens: float, seq: float, layout: Layout, flash: bool = True) -> float:
    """Of one layer and microbatch on one rank, kept until its backward pass. ``tokens``: sequence over CP times microbatch.

    ``tokens h / t (18 + 4 ffn/h)``; with a gated MLP, shared KV heads and no dropout ``12 + 4 kv/a + 6 ffn/h``; attention scores
    ``5 a s/h`` unless a fused kernel or selective recompute spares them; all of it recomputed: ``2 tokens h``. Sequence
    parallelism goes with t > 1.
    """
    assert model.hidden is not None
    hidden = float(model.hidden)
    if layout.recompute == "full":
        return 2 * tokens * hidden
    ratio = mlp_width(model) / hidden
    scores = 0.0 if flash or layout.recompute == "selective" else 5 * (model.heads or 1) * seq / hidden
    if model.gated_ffn:  # models of today: few KV heads, no dropout
        kv = (model.kv_heads or 1) / (model.heads or 1) if not model.is_mla else 1.0
        each = 12 + 4 * kv + 6 * ratio
    else:
        each = 18 + 4 * ratio
    return tokens * hidden / layout.tensor * (each + scores)


def activations(
    model: Model,
    seq: int,
    microbatch: int,
    tensor: int = 1,
    *,
    sequence_parallel: bool = True,
    recompute: str = "selective",
    flash: bool = False,
) -> Quantity:
    """Bytes of activations of one layer, 16 bit.

    No recompute: ``s b h (34 + 5 a s/h)`` with an MLP of 4 h; with t: ``s b h (10 + 24/t + 5 a s/(h t))``, all over t with
    sequence parallelism; selective recompute or FlashAttention drop ``5 a s/h``; full: ``2 s b h``. Errors: SizingError.
    """
    for name, size in (("sequence", seq), ("microbatch", microbatch), ("tensor parallelism", tensor)):
        check_above_zero(name, size)
    if model.hidden is None or model.heads is None:
        raise SizingError(f"{model.name}: activations need hidden size and heads")
    whole = seq * microbatch * model.hidden
    if recompute == "full":
        return exact(2.0 * whole, "bytes", f"2·s·b·h = 2·{seq}·{microbatch}·{model.hidden}", _MEGATRON)
    ratio = mlp_width(model) / model.hidden
    mlp = 4 * ratio + (2 * ratio if model.gated_ffn else 0)
    scores = 0.0 if flash or recompute == "selective" else 5 * model.heads * seq / model.hidden
    inside = 8 + mlp + scores
    each = (10 + inside) / tensor if sequence_parallel else 10 + inside / tensor
    where = f"/{tensor}" if sequence_parallel else f", {inside:.4g} of it over {tensor}"
    factor = assumed("overhead.activations")
    return Quantity(
        whole * each,
        whole * each * factor.low,
        whole * each * factor.high,
        "bytes",
        f"s·b·h·(18 + 4·ffn/h + 5·a·s/h){where} = {seq}·{microbatch}·{model.hidden}·{each:.4g}",
        f"{_MEGATRON}; {factor.source}",
    )


@lru_cache(maxsize=256)
def mlp_width(model: Model) -> float:
    """Of all MLPs that a token meets."""
    assert model.hidden is not None
    width = model.ffn if model.ffn is not None else 4 * model.hidden
    if model.is_mixture and model.experts_active and model.params > DENSE_AT_MOST * model.active_params:
        return float(width * model.experts_active) if width < 2 * model.hidden else _met(model, width)
    return float(width)


DENSE_AT_MOST = 1.1


def _met(model: Model, width: int) -> float:
    """Of wide experts all that are active, where that can be: some tables tell the width of dense layers."""
    assert model.hidden is not None
    assert model.layers is not None
    told = float(width * (model.experts_active or 1))
    possible = model.active_params / (model.layers * model.hidden * (3 if model.gated_ffn else 2))
    return min(told, possible)


def logits_bytes(model: Model, seq: float, microbatch: int, tensor: int = 1) -> Quantity:
    """Of the last stage: 16-bit logits and their fp32 copy, ``(2 + 4) s b V / t``."""
    if model.vocab is None:
        raise SizingError(f"{model.name}: logits need the size of the vocabulary")
    return exact(
        6.0 * seq * microbatch * model.vocab / tensor,
        "bytes",
        f"(2+4)·s·b·V/t = 6·{seq:g}·{microbatch}·{model.vocab}/{tensor}",
        "ml-engineering: 15.7 GiB at 32k tokens and 128k words",
    )


def checkpoint_bytes(model: Model, dtype: str = "bf16") -> Quantity:
    """Of a full checkpoint: 16-bit weights, fp32 master weights and Adam, 14 bytes a parameter."""
    weights, _, optimizer = states_of(dtype)
    each = weights + optimizer
    return exact(
        model.params * each,
        "bytes",
        f"{each} · {model.params:.4g} parameters",
        "BLOOM-176B: 176e9·14 = 2,294.77 GiB",
    )


@cache
def overhead_bytes() -> Quantity:
    """A GPU's, that no tensor accounts for: CUDA context, communication buffers."""
    context, buffers = assumed("overhead.context_gib"), assumed("overhead.communication_gib")
    return Quantity(
        (context.value + buffers.value) * GIB,
        (context.low + buffers.low) * GIB,
        (context.high + buffers.high) * GIB,
        "bytes",
        f"context {context.value:g} GiB + communication {buffers.value:g} GiB",
        f"{context.source}; {buffers.source}",
    )


def interval_of(memory: Memory) -> Quantity:
    """The total with its interval: overheads, fragmentation and how much the activations of a real program differ."""
    fixed, factor = overhead_bytes(), assumed("overhead.activations")
    loose = assumed("overhead.fragmentation")
    kept = memory.states + memory.logits + memory.gathered
    low = (kept + memory.activations * factor.low) * (1 + loose.low) + fixed.low
    high = (kept + memory.activations * factor.high) * (1 + loose.high) + fixed.high
    return Quantity(
        memory.total, min(low, memory.total), max(high, memory.total), "bytes", "sum of the terms"
    )


def _stage(run: Trained, layout: Layout, stage: str) -> Memory:
    model, tensor = run.model, layout.tensor
    layers = stage_layers(model, layout.pipeline)
    tokens = run.seq / layout.context * layout.microbatch
    flight = 1.0 if stage == "last" else min(layout.pipeline, layout.microbatches)
    if layout.interleave > 1 and layout.pipeline > 1:
        flight *= 1 + (layout.pipeline - 1) / (layout.pipeline * layout.interleave)
    kept = activation_bytes(model, tokens, run.seq, layout) * layers * flight
    if layout.recompute == "full":
        whole = activation_bytes(model, tokens, run.seq, Layout(layout.tensor))
        again = layers if layout.recomputed_layers is None else min(layout.recomputed_layers, layers)
        kept = kept * again / layers + whole * (layers - again) * flight
        kept += whole  # one layer lives while it is computed again
    weights, gradients, optimizer = _states(run, layout)
    live = 0.0
    if layout.sharding == "parameters" and layout.shards > 1:
        routed = routed_params(model)
        live = 2 * 2 * (_block(model) - routed + routed / layout.expert) / (model.layers or 1) / tensor
    has_logits = stage != "first"
    return Memory(
        weights,
        gradients,
        optimizer,
        kept,
        logits_bytes(model, run.seq / layout.context, layout.microbatch, tensor).value if has_logits else 0.0,
        live,
        overhead_bytes().value,
        stage,
    )


def _states(run: Trained, layout: Layout) -> tuple[float, float, float]:
    """Weights, gradients, optimizer of a rank of the fullest stage: what all ranks hold, and its share of the experts."""
    one = layout
    return _divided(run, one.tensor, one.pipeline, one.shards, one.expert, one.sharding)


@lru_cache(maxsize=16_384)
def _divided(
    run: Trained, tensor: int, pipeline: int, shards: int, expert: int, sharding: Sharding
) -> tuple[float, float, float]:
    """The same, which microbatches and recomputing leave as it is: a search asks for each many times."""
    routed = routed_params(run.model) * stage_layers(run.model, pipeline) / (run.model.layers or 1)
    shared = max(_parameters(run.model, pipeline) - routed, 0.0)
    both = (
        _states_of(run, sharding, shared / tensor, shards),
        _states_of(run, sharding, routed / tensor / expert, shards // expert),
    )
    weights, gradients, optimizer = (one + other for one, other in zip(*both, strict=True))
    return weights, gradients, optimizer


def _states_of(run: Trained, sharding: Sharding, held: float, shards: int) -> tuple[float, float, float]:
    """Of ``held`` parameters on a rank, which so many ranks hold alike."""
    sizes: Iterable[float] = states_of(run.dtype)
    split = [shards if sharded else 1 for sharded in _SHARDED[sharding]]
    if run.method == "full":
        own = [held * size / over for size, over in zip(sizes, split, strict=True)]
        return own[0], own[1], own[2]
    adapters = run.adapters * held / run.model.params
    own = [adapters * size / over for size, over in zip(states_of("bf16"), split, strict=True)]
    return own[0] + held * run.frozen_bytes / split[0], own[1], own[2]


@lru_cache(maxsize=256)
def routed_params(model: Model) -> float:
    """Of all experts that tokens are sent to, which expert parallelism divides; 0 where they are not told."""
    return min(expert_params(model), _block(model))


def _block(model: Model) -> float:
    """Parameters of all layers: what embedding and head leave."""
    tables = 1 if model.tied_embedding else 2
    return max(model.params - tables * model.embedding_params, 0.1 * model.params)


def _parameters(model: Model, pipeline: int) -> float:
    """Parameters of a stage before tensor parallelism divides them."""
    assert model.layers is not None
    block = _block(model) * stage_layers(model, pipeline) / model.layers
    table = min(model.embedding_params, 0.45 * model.params)
    tables = 1.0 if pipeline > 1 or model.tied_embedding else 2.0
    return min(block + tables * table, model.params) if pipeline == 1 else block + table
