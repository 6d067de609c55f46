"""Time of a training step: compute over what pipelines leave, collectives that nothing hides, the optimizer. Pure.

``step = compute / (1 - bubble) + exposed + optimizer``. Compute counts full attention: that fits 133 rows of llm-foundry's table
from 512 to 65,536 tokens better than what causal kernels do, for they reach about half of a product's rate.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

from coldaisle.analyzers.sizing.assumptions import assumed
from coldaisle.analyzers.sizing.catalogue import Model
from coldaisle.analyzers.sizing.collectives import Collective, collective_seconds
from coldaisle.analyzers.sizing.flops import flops_per_token
from coldaisle.analyzers.sizing.layout import Layout, bubble_share, stage_layers
from coldaisle.analyzers.sizing.memory import Trained, routed_params
from coldaisle.analyzers.sizing.quantity import Quantity
from coldaisle.analyzers.sizing.sheet import SizingError
from coldaisle.analyzers.sizing.site import Machine
from coldaisle.sources.parts.catalogue import Part

_H100S = ("h100", "h200", "h800", "gh200", "h20")
_HBM_EFFICIENCY = 0.8
_OPTIMIZER_BYTES = 40.0
"""Read and written a parameter: gradient, master weight, two moments, and the new weight."""
_GRADIENT_BYTES = 2.0
_WEIGHT_BYTES = 2.0
_SCALE_FROM = 512
_HIDES = 0.6
"""Of compute, what weights can be gathered under: products and collectives slow each other down."""


@dataclass(frozen=True, slots=True)
class Pace:
    """Constants of a step, of which there are a likely set, a fast and a slow one. Ratios."""

    efficiency: float
    """Of the dense peak, before waits."""
    exposed: float
    """Of tensor-parallel collectives."""
    expert: float
    """The same of the all-to-all of experts."""
    doubling: float
    recompute: float


@dataclass(frozen=True, slots=True)
class Step:
    """Seconds of one step and bytes a GPU sends in it."""

    compute: float
    bubble: float
    tensor: float
    """Exposed, as the next two."""
    pipeline: float
    data: float
    optimizer: float
    tensor_bytes: float
    pipeline_bytes: float
    data_bytes: float
    data_seconds: float
    """With what compute hides of it."""
    expert: float = 0.0
    """Exposed all-to-all of expert parallelism."""
    expert_bytes: float = 0.0

    @property
    def exposed(self) -> float:
        """Of all collectives."""
        return self.tensor + self.pipeline + self.data + self.expert

    @property
    def total(self) -> float:
        """The step."""
        return self.compute + self.bubble + self.exposed + self.optimizer


def peak_of(part: Part, dtype: str) -> float:
    """Dense flop/s of a dtype. Errors: SizingError where the part has none, with those it has."""
    peak = part.peak(dtype)
    if math.isnan(peak):
        has = ", ".join(name for name in part.flops if name != "int8")
        raise SizingError(
            f"{part.product} has no {dtype}; it computes in {has or 'formats that nobody publishes'}"
        )
    return peak


def usual_dtype(part: Part) -> str:
    """bf16, or fp16 of a part that has none."""
    return "bf16" if part.peak("bf16") > 0 else "fp16"


@lru_cache(maxsize=4096)
def efficiency(part: Part, dtype: str, hidden: float) -> Quantity:
    """Of the dense peak what a step's products reach, ratio: best matrix product · what training reaches of it · width."""
    kind = dtype if dtype in ("fp8", "fp4") else "bf16"
    matmul = assumed("matmul.fp8" if kind != "bf16" else "matmul.bf16")
    share = part.matmul_share(kind)
    if not math.isnan(share):
        matmul = Quantity(
            share, share, share, "ratio", f"best product {share:.3f} of peak", "ml-engineering MAMF table"
        )
    reached = assumed(f"compute.{_family(part, kind)}")
    half = assumed("width.half" if kind == "bf16" else "width.half_fp8")
    width = hidden / (hidden + half.value)
    return Quantity(
        matmul.value * reached.value * width,
        min(matmul.value * reached.low, matmul.low * reached.value) * width,
        max(matmul.value * reached.high, matmul.high * reached.value) * width,
        "ratio",
        f"{matmul.value:.3f} · {reached.value:.2f} · d/(d+{half.value:g}) = {width:.2f}",
        f"{matmul.source}; {reached.source}",
    )


def paces(run: Trained, part: Part, layout: Layout) -> tuple[Pace, Pace, Pace]:
    """Likely, fast, slow."""
    reached = efficiency(part, run.dtype, _mean_width(run.model, layout))
    exposed, doubling, expert = (
        assumed("exposed.tensor"),
        assumed("scale.doubling"),
        assumed("exposed.expert"),
    )
    again = recomputed(layout, run)
    slower = assumed("quantised.qlora_time") if run.method == "qlora" else None
    likely, fast, slow = (1.0, 1.0, 1.0) if slower is None else (slower.value, slower.low, slower.high)
    if run.model.is_mixture:
        experts = assumed("mixture.least")
        reached = Quantity(
            reached.value * experts.value, reached.low * experts.low, reached.high * experts.high, "ratio"
        )
    return (
        Pace(reached.value, exposed.value, expert.value, doubling.value, again * likely),
        Pace(reached.high, exposed.low, expert.low, doubling.low, again * fast),
        Pace(reached.low, exposed.high, expert.high, doubling.high, again * slow),
    )


def _mean_width(model: Model, layout: Layout) -> float:
    """Geometric mean of both sides of a matrix of which tensor parallelism leaves a GPU one part of one side."""
    return float(model.hidden or 1) / math.sqrt(layout.tensor)


@lru_cache(maxsize=1024)
def unevenness(model: Model, pipeline: int) -> float:
    """Work of the fullest pipeline stage over the mean: whole layers, the last stage with the head and so fewer of them."""
    assert model.layers is not None
    if pipeline == 1:
        return 1.0
    layers, each = model.layers, stage_layers(model, pipeline)
    table = 0.0 if math.isnan(model.embedding_params) else model.embedding_params
    tables = table if model.tied_embedding else 2 * table
    head = table * layers / max(model.active_params - tables, table or 1.0)

    def fullest(others: int) -> float:
        return max(others, max(layers - (pipeline - 1) * others, 0) + head)

    most = min(fullest(others) for others in range(each, layers + 1))
    return most * pipeline / (layers + head)


def recomputed(layout: Layout, run: Trained) -> float:
    """Hardware FLOPs over model FLOPs. A second forward pass weighs more where weights have no gradients: 6/4."""
    if layout.recompute == "none":
        return 1.0
    if layout.recompute == "selective":
        return assumed("recompute.selective").value
    layers = stage_layers(run.model, layout.pipeline)
    share = 1.0 if layout.recomputed_layers is None else min(layout.recomputed_layers / layers, 1.0)
    light = assumed("recompute.selective").value
    return share * (4 / 3 if run.method == "full" else 6 / 4) + (1 - share) * light


def step_of(run: Trained, machine: Machine, layout: Layout, pace: Pace) -> Step:
    """The step of a layout."""
    compute = _compute(run, machine, layout, pace)
    tensor, tensor_bytes = _tensor(run, machine, layout)
    pipeline, pipeline_bytes = _pipeline(run, machine, layout, compute)
    data, data_bytes = _data(run, machine, layout)
    expert, expert_bytes = all_to_all(run, machine, layout)
    share = bubble_share(layout.pipeline, layout.microbatches, layout.interleave)
    busy = compute + tensor * pace.exposed + expert * pace.expert
    hidden = compute * (_HIDES if layout.sharding == "parameters" else 2 / 3 / layout.microbatches)
    return Step(
        compute,
        busy / (1 - share) - busy,
        tensor * pace.exposed,
        pipeline,
        max(data - hidden, 0.0),
        _optimizer(run, machine, layout),
        tensor_bytes,
        pipeline_bytes,
        data_bytes,
        data,
        expert * pace.expert,
        expert_bytes,
    )


def _family(part: Part, kind: str) -> str:
    if kind != "bf16":
        return "fp8"
    if part.id.startswith("a100"):
        return "a100"
    return "h100" if part.id.startswith(_H100S) else "other"


def _compute(run: Trained, machine: Machine, layout: Layout, pace: Pace) -> float:
    model = run.model
    assert model.layers is not None
    tokens = layout.batch * run.seq
    work = tokens * flops_per_token(model, run.seq, "full", run.method) * pace.recompute
    uneven = unevenness(model, layout.pipeline)
    many = 1 + pace.doubling * max(math.log2(layout.gpus / _SCALE_FROM), 0.0)
    return work / layout.gpus / (peak_of(machine.part, run.dtype) * pace.efficiency) * uneven * many


def _tensor(run: Trained, machine: Machine, layout: Layout) -> tuple[float, float]:
    """Seconds and bytes of 4 all-reduces a layer and microbatch (2 forward, 2 backward)."""
    if layout.tensor == 1:
        return 0.0, 0.0
    payload = 2.0 * run.seq / layout.context * layout.microbatch * (run.model.hidden or 1)
    count = 4 * stage_layers(run.model, layout.pipeline) * layout.microbatches
    network = machine.network(layout.tensor)
    each = collective_seconds("all_reduce", payload, layout.tensor, machine.node_gpus, network)
    return count * each, count * 2 * (layout.tensor - 1) / layout.tensor * payload


def all_to_all(run: Trained, machine: Machine, layout: Layout) -> tuple[float, float]:
    """Seconds, hidden or not, and bytes of expert parallelism: tokens to their experts and back, forward and backward.

    ``4 · topk · s·b·h · 2 / t`` bytes a layer and microbatch, ``(e-1)/e`` of it to others; experts are taken to be chosen evenly.
    """
    if layout.expert == 1:
        return 0.0, 0.0
    tokens = run.seq / layout.context * layout.microbatch / layout.tensor
    payload = 2.0 * (run.model.experts_active or 1) * tokens * (run.model.hidden or 1)
    count = 4 * stage_layers(run.model, layout.pipeline) * layout.microbatches
    per_node = max(machine.node_gpus // layout.tensor, 1)
    network = machine.network(min(per_node, layout.expert) * layout.tensor)
    each = collective_seconds("all_to_all", payload, layout.expert, per_node, network)
    return count * each, count * (layout.expert - 1) / layout.expert * payload


def _pipeline(run: Trained, machine: Machine, layout: Layout, compute: float) -> tuple[float, float]:
    """Seconds that nothing hides and bytes: a microbatch's activations over each boundary, there and back."""
    if layout.pipeline == 1:
        return 0.0, 0.0
    payload = 2.0 * run.seq / layout.context * layout.microbatch * (run.model.hidden or 1) / layout.tensor
    volume = 2 * payload * layout.microbatches * layout.interleave
    seconds = volume / (machine.port * machine.port_efficiency)
    return max(seconds - compute, 0.0), volume


def _data(run: Trained, machine: Machine, layout: Layout) -> tuple[float, float]:
    """Seconds and bytes of gradients once a step; ZeRO-3 gathers weights twice and scatters gradients once a microbatch.

    What all ranks hold goes over all of them; experts over those that hold the same ones.
    """
    trained, routed = held_parameters(run, layout), 0.0
    gathered, experts = run.model.params / (layout.tensor * layout.pipeline), 0.0
    if layout.expert > 1:
        experts = routed_params(run.model) / (layout.tensor * layout.pipeline)
        gathered -= experts
        routed = experts if run.method == "full" else 0.0
        trained -= routed
    shared = _gradients(run, machine, layout, trained, gathered, 1)
    own = _gradients(run, machine, layout, routed / layout.expert, experts / layout.expert, layout.expert)
    return shared[0] + own[0], shared[1] + own[1]


def _gradients(
    run: Trained, machine: Machine, layout: Layout, trained: float, gathered: float, apart: int
) -> tuple[float, float]:
    """The same of ``trained`` and ``gathered`` parameters that every ``apart``-th rank holds alike."""
    ranks = layout.shards // apart
    if ranks == 1 or gathered <= 0:
        return 0.0, 0.0
    per_node = max(machine.node_gpus // layout.tensor // apart, 1)
    network = machine.network(min(per_node, ranks) * layout.tensor)

    def seconds(op: Collective, payload: float) -> float:
        """In as many pieces as the stage has layers."""
        pieces = stage_layers(run.model, layout.pipeline)
        return pieces * collective_seconds(op, payload / pieces, ranks, per_node, network)

    share, gradients = (ranks - 1) / ranks, _GRADIENT_BYTES * trained
    if layout.sharding != "parameters":
        return seconds("all_reduce", gradients), 2 * share * gradients
    weights = _WEIGHT_BYTES * gathered
    each = 2 * seconds("all_gather", weights) + seconds("reduce_scatter", gradients)
    return layout.microbatches * each, layout.microbatches * share * (2 * weights + gradients)


def held_parameters(run: Trained, layout: Layout) -> float:
    """Trained parameters of one rank, before sharding."""
    trained = run.model.params if run.method == "full" else run.adapters
    return trained / (layout.tensor * layout.pipeline)


def _optimizer(run: Trained, machine: Machine, layout: Layout) -> float:
    held, routed = held_parameters(run, layout), 0.0
    if run.method == "full":
        routed = routed_params(run.model) / (layout.tensor * layout.pipeline)
    own = held - routed + routed / layout.expert
    if layout.sharding != "none":
        own = held / layout.shards
    bandwidth = machine.part.bandwidth if machine.part.bandwidth > 0 else math.inf
    return own * _OPTIMIZER_BYTES / (bandwidth * _HBM_EFFICIENCY)
