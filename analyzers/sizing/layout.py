"""How a training run is spread: tensor, pipeline, context and data parallelism, and what is kept where. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from coldaisle.analyzers.sizing.catalogue import Model
from coldaisle.analyzers.sizing.flops import Recompute
from coldaisle.analyzers.sizing.quantity import Quantity, exact
from coldaisle.analyzers.sizing.sheet import SizingError

Sharding = Literal["none", "optimizer", "gradients", "parameters"]
"""Over data-parallel ranks: nothing; ZeRO-1 or Megatron's distributed optimizer; ZeRO-2; ZeRO-3 or FSDP."""
SHARDINGS: tuple[Sharding, ...] = ("none", "optimizer", "gradients", "parameters")


@dataclass(frozen=True, slots=True)
class Layout:
    """``tensor * pipeline * context * data`` GPUs. ``microbatch``: sequences at once; ``microbatches``: of them a step and rank."""

    tensor: int = 1
    pipeline: int = 1
    data: int = 1
    context: int = 1
    microbatch: int = 1
    microbatches: int = 1
    sharding: Sharding = "optimizer"
    recompute: Recompute = "selective"
    interleave: int = 1
    """Stages a pipeline rank holds (virtual pipeline)."""
    recomputed_layers: int | None = None
    """Of a stage, with full recompute; None: all of them."""
    expert: int = 1
    """Ranks of ``shards`` that share the experts of a mixture; each is divided over tensor-parallel ranks as well."""

    @property
    def shards(self) -> int:
        """Ranks that states are sharded over: context-parallel ranks hold the same weights too."""
        return self.data * self.context

    @property
    def gpus(self) -> int:
        """All of them."""
        return self.tensor * self.pipeline * self.context * self.data

    @property
    def batch(self) -> int:
        """Sequences a step."""
        return self.microbatch * self.microbatches * self.data

    def words(self) -> str:
        """``TP 8 · PP 16 · DP 128``, as people write it."""
        parts = [f"TP {self.tensor}", f"PP {self.pipeline}"]
        if self.expert > 1:
            parts.append(f"EP {self.expert}")
        if self.context > 1:
            parts.append(f"CP {self.context}")
        return " · ".join([*parts, f"DP {self.data}"])


def bubble(pipeline: int, microbatches: int, interleave: int = 1) -> Quantity:
    """Share of a step that a stage waits for the others (1F1B), ratio: ``(p-1)/(v m + p - 1)``. Source: Megatron-LM 2104.04473."""
    if pipeline < 1 or microbatches < 1 or interleave < 1:
        raise SizingError("a pipeline needs at least one stage, one microbatch and one chunk a stage")
    return exact(
        bubble_share(pipeline, microbatches, interleave),
        "ratio",
        f"(p-1)/(v·m+p-1) = {pipeline - 1}/({interleave}·{microbatches}+{pipeline - 1})",
        "Megatron-LM 2104.04473",
    )


def bubble_share(pipeline: int, microbatches: int, interleave: int = 1) -> float:
    """The same, as a number."""
    return (pipeline - 1) / (interleave * microbatches + pipeline - 1)


def stage_layers(model: Model, pipeline: int) -> int:
    """Layers of the stage that holds most."""
    assert model.layers is not None
    return -(-model.layers // pipeline)


def splits_evenly(model: Model, pipeline: int) -> bool:
    """Whether layers divide over stages, alone or with embedding and head counted as layers (126 over 16, 70 over 12).

    An odd number of layers divides over 2, 4, 8 ... too, with up to 3 fewer on the last stage (61 over 16).
    """
    assert model.layers is not None
    short = -model.layers % pipeline
    is_power_of_two = pipeline & (pipeline - 1) == 0
    return short in (0, 2) or (is_power_of_two and model.layers % 2 == 1 and short <= 3)


def tensor_sizes(model: Model, domain: int) -> list[int]:
    """Degrees of tensor parallelism: powers of two within the links' reach that divide heads and hidden size."""
    sizes, size = [], 1
    while size <= domain:
        if _divides(model, size):
            sizes.append(size)
        size *= 2
    return sizes


def pipeline_sizes(model: Model, gpus: int) -> list[int]:
    """Degrees of pipeline parallelism, at most ``gpus``."""
    assert model.layers is not None
    return [
        size
        for size in range(1, min(model.layers, gpus, MOST_STAGES) + 1)
        if gpus % size == 0 and splits_evenly(model, size)
    ]


MOST_STAGES = 64


def check(model: Model, layout: Layout, domain: int, gpus: int | None = None, seq: int = 0) -> None:
    """Errors: SizingError for a layout that contradicts itself, the model, or the machine."""
    for name in ("tensor", "pipeline", "data", "context", "microbatch", "microbatches", "interleave"):
        size = getattr(layout, name)
        if size < 1:
            raise SizingError(f"{name} parallelism is {size}; it has to be 1 or more")
    if gpus is not None and layout.gpus != gpus:
        raise SizingError(
            f"{layout.words()} are {layout.gpus} GPUs, not {gpus}; their product has to be the number of GPUs"
        )
    check_tensor(model, layout.tensor, domain)
    check_pipeline(model, layout.pipeline)
    check_context(layout.context, seq)


def check_tensor(model: Model, tensor: int, domain: int) -> None:
    """Errors: SizingError for a degree that links or heads forbid."""
    if tensor > domain:
        raise SizingError(
            f"TP {tensor} is wider than the {domain} GPUs that share fast links; use at most {domain} and pipeline or shard the rest"
        )
    if not _divides(model, tensor):
        fits = ", ".join(map(str, tensor_sizes(model, domain)))
        raise SizingError(
            f"{model.heads} heads do not divide over TP {tensor}; {model.name} goes with TP {fits}"
        )


def check_pipeline(model: Model, pipeline: int) -> None:
    """Errors: SizingError for more stages than layers, or layers that do not divide."""
    assert model.layers is not None
    if pipeline > model.layers:
        raise SizingError(f"PP {pipeline} has more stages than {model.name} has layers ({model.layers})")
    if not splits_evenly(model, pipeline):
        near = [size for size in range(1, model.layers + 1) if splits_evenly(model, size)]
        raise SizingError(
            f"{model.layers} layers do not divide over PP {pipeline}; {model.name} goes with PP {', '.join(map(str, near[:12]))}"
        )


def expert_sizes(model: Model, shards: int) -> list[int]:
    """Degrees of expert parallelism: powers of two that divide the experts and the ranks that hold the same weights."""
    if not model.is_mixture or not model.experts:
        return [1]
    sizes = [2**power for power in range(11)]
    return [size for size in sizes if model.experts % size == 0 and shards % size == 0]


def check_expert(model: Model, expert: int) -> None:
    """Errors: SizingError for a model without experts, or ranks that do not divide them."""
    if expert > 1 and not model.experts:
        raise SizingError(
            f"EP {expert} needs experts, and {model.name} has none that are told; leave it out, or tell them"
        )
    if model.experts and model.experts % expert:
        fits = ", ".join(map(str, expert_sizes(model, 1024)))
        raise SizingError(
            f"{model.experts} experts do not divide over EP {expert}; {model.name} goes with EP {fits}"
        )


def check_context(context: int, seq: int) -> None:
    """Errors: SizingError where a sequence does not divide."""
    if seq and seq % context:
        raise SizingError(f"a sequence of {seq} tokens does not divide over CP {context}")


def _divides(model: Model, tensor: int) -> bool:
    """KV heads fewer than ranks are copied, which costs little; they have to divide or be divided."""
    heads, kv = model.heads or 1, model.kv_heads or model.heads or 1
    if heads % tensor or (model.hidden or tensor) % tensor:
        return False
    return model.is_mla or kv % tensor == 0 or tensor % kv == 0
