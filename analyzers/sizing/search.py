"""Which layout: of those that fit into memory the quickest, and of counts of GPUs the smallest that does. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import TypeVar

from coldaisle.analyzers.sizing.bounds import check_above_zero
from coldaisle.analyzers.sizing.flops import Recompute
from coldaisle.analyzers.sizing.layout import (
    SHARDINGS,
    Layout,
    Sharding,
    check_context,
    check_expert,
    check_pipeline,
    check_tensor,
    expert_sizes,
    pipeline_sizes,
    stage_layers,
    tensor_sizes,
)
from coldaisle.analyzers.sizing.memory import Memory, Trained, fullest, fullest_states, least_bytes
from coldaisle.analyzers.sizing.sheet import SizingError
from coldaisle.analyzers.sizing.site import Machine
from coldaisle.analyzers.sizing.step import Pace, Step, paces, step_of

T = TypeVar("T")
FILL = 0.95
"""Of a GPU's memory: what a plan may fill."""
_SPARE = 0.80
"""What it fills before it recomputes less."""
MOST_GPUS = 131_072
_MICROBATCHES = (1, 2, 4, 8)
_RECOMPUTES: tuple[Recompute, ...] = ("selective", "full")
_EXPERTS = (1, 4, 8, 16, 64)
"""Degrees of expert parallelism that are tried."""
_GROWS = 2
_LONG = 32_768
"""Tokens of a sequence from which context parallelism is tried."""
_GROWTH = (1, 1.25, 1.5, 1.75)
"""Counts of nodes between one power of two and the next."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Spread:
    """What of a layout is told; None: whatever is best."""

    tensor: int | None = None
    pipeline: int | None = None
    data: int | None = None
    context: int | None = None
    expert: int | None = None
    microbatch: int | None = None
    sharding: Sharding | None = None
    recompute: Recompute | None = None


SIZES = ("tensor", "pipeline", "data", "context", "expert", "microbatch")
"""Of a spread, those that are counts."""


@dataclass(frozen=True, slots=True)
class Wish(Spread):
    """The same with a batch: sequences a step."""

    batch: int
    batch_is_told: bool = True


@dataclass(frozen=True, slots=True)
class Candidate:
    """A layout with what it needs and how long its step takes."""

    layout: Layout
    memory: Memory
    step: Step

    @property
    def rate(self) -> float:
        """Sequences/s."""
        return self.layout.batch / self.step.total


@dataclass(frozen=True, slots=True)
class Tight:
    """Nothing fits: the layout that comes nearest, if there is any."""

    layout: Layout | None
    memory: Memory | None


def check_wish(run: Trained, machine: Machine, wish: Wish, gpus: int | None) -> None:
    """Errors: SizingError for what contradicts itself, the model or the machine."""
    for name in ("batch", *SIZES):
        if (size := getattr(wish, name)) is not None:
            check_above_zero(name, size)
            if size != int(size):
                raise SizingError(f"{name} is {size:g}; it has to be a whole number")
    if gpus is not None:
        check_above_zero("GPUs", gpus)
    if wish.tensor is not None:
        check_tensor(run.model, wish.tensor, machine.domain)
    if wish.pipeline is not None:
        check_pipeline(run.model, wish.pipeline)
    check_context(wish.context or 1, run.seq)
    check_expert(run.model, wish.expert or 1)
    if wish.sharding is not None and wish.sharding not in SHARDINGS:
        raise SizingError(f"there is no sharding {wish.sharding}; use {', '.join(SHARDINGS)}")
    if wish.recompute not in (None, "none", "selective", "full"):
        raise SizingError(f"there is no recompute {wish.recompute}; use none, selective or full")
    _check_product(wish, gpus)


def _check_product(wish: Wish, gpus: int | None) -> None:
    """Whether the degrees go together, and with the number of GPUs."""
    if wish.expert is not None:
        ranks = (wish.data or 0) * (wish.context or 1)
        if ranks % wish.expert:
            raise SizingError(
                f"EP {wish.expert} takes its ranks from DP and CP, and {ranks} of them do not divide into such groups"
            )
    told = [size for size in (wish.tensor, wish.pipeline, wish.data, wish.context) if size is not None]
    product = math.prod(told)
    all_told = wish.tensor is not None and wish.pipeline is not None and wish.data is not None
    if gpus is not None and all_told and product != gpus:
        raise SizingError(
            f"TP, PP, CP and DP that were asked for make {product} GPUs, not {gpus}; "
            "their product has to be the number of GPUs"
        )
    if gpus is not None and gpus % product:
        raise SizingError(
            f"TP, PP, CP and DP that were asked for make {product} GPUs, not {gpus}, which is no multiple of that"
        )
    if wish.data and wish.batch_is_told and wish.data * (wish.microbatch or 1) > wish.batch:
        raise SizingError(
            f"a batch of {wish.batch} sequences does not go over DP {wish.data} with microbatches of {wish.microbatch or 1}"
        )


def best(run: Trained, machine: Machine, wish: Wish, gpus: int) -> Candidate | Tight:
    """The quickest layout of so many GPUs that fits; else the one that comes nearest."""
    room = machine.part.memory_bytes * FILL
    found: Candidate | None = None
    near: tuple[float, Layout, Memory] | None = None
    for layout in layouts(run, machine, wish, gpus):
        if near is not None and fullest_states(run, layout) > max(room, near[0]):
            continue  # with activations it would neither fit nor come nearer
        memory = fullest(run, layout)
        if layout.recompute == "full" and wish.recompute is None and memory.total <= room:
            layout, memory = _sparing(run, layout, memory, room / FILL * _SPARE)
        if memory.total > room:
            if near is None or memory.total < near[0]:
                near = (memory.total, layout, memory)
            continue
        step = step_of(run, machine, layout, _likely(run, machine, layout))
        candidate = Candidate(layout, memory, step)
        if found is None or candidate.rate > found.rate * 1.0001:
            found = candidate
    if found is not None:
        return found
    return Tight(None, None) if near is None else Tight(near[1], near[2])


def _sparing(run: Trained, layout: Layout, memory: Memory, room: float) -> tuple[Layout, Memory]:
    """The same with only as many layers recomputed as memory asks for."""
    layers = stage_layers(run.model, layout.pipeline)
    fewest = replace(layout, recomputed_layers=0)
    most = fullest(run, fewest).total
    if most <= room:
        return fewest, fullest(run, fewest)
    spared = int(layers * (room - memory.total) / (most - memory.total))
    if spared < 1:
        return layout, memory
    fewer = replace(layout, recomputed_layers=layers - spared)
    kept = fullest(run, fewer)
    return (fewer, kept) if kept.total <= room else (layout, memory)


def layouts(run: Trained, machine: Machine, wish: Wish, gpus: int) -> Iterator[Layout]:
    """All that the model, the machine, the batch and the wish allow, the plain ones first."""
    for tensor, pipeline, context in _splits(run, machine, wish, gpus):
        data, rest = divmod(gpus, tensor * pipeline * context)
        if rest or data < 1 or (wish.data is not None and data != wish.data):
            continue
        batch = _batch_of(wish, data)
        for microbatch in _chosen(wish.microbatch, _MICROBATCHES):
            if data * microbatch > batch:
                continue
            shape = Layout(tensor, pipeline, data, context, microbatch, -(-batch // (data * microbatch)))
            experts = _experts(run, wish, shape)
            for sharding in _shardings(wish, shape):
                for recompute in _chosen(wish.recompute, _RECOMPUTES):
                    for expert in experts:
                        plain = replace(shape, sharding=sharding, recompute=recompute, expert=expert)
                        yield from _interleaved(run, plain)


def _experts(run: Trained, wish: Wish, shape: Layout) -> list[int]:
    if wish.expert is not None:
        return [wish.expert] if shape.shards % wish.expert == 0 else []
    return [size for size in expert_sizes(run.model, shape.shards) if size in _EXPERTS]


def _interleaved(run: Trained, layout: Layout) -> Iterator[Layout]:
    """With one chunk of layers a stage, and with more where microbatches go evenly over stages."""
    yield layout
    layers = stage_layers(run.model, layout.pipeline)
    if layout.pipeline > 1 and layout.microbatches % layout.pipeline == 0:
        yield from (replace(layout, interleave=chunks) for chunks in (2, 4, 8) if layers % chunks == 0)


def counts(machine: Machine, most: int = MOST_GPUS, least: int = 1) -> Iterator[int]:
    """Numbers of GPUs that are worth a look: parts of a node, then whole nodes, four steps a doubling."""
    sizes, size = {machine.node_gpus}, 1
    while size < machine.node_gpus:
        sizes.add(size)
        size *= 2
    doubling = 1
    while doubling * machine.node_gpus <= MOST_GPUS:
        sizes |= {int(doubling * factor) * machine.node_gpus for factor in _GROWTH}
        doubling *= 2
    return iter(sorted(each for each in sizes if least <= each <= most))


def fewest(run: Trained, machine: Machine, wish: Wish, sizes: Iterable[int]) -> tuple[int, Candidate] | None:
    """The first count for which anything fits."""
    least = least_bytes(run) / (machine.part.memory_bytes * FILL)
    for gpus in sizes:
        if gpus < least:
            continue  # however they are divided
        found = best(run, machine, wish, gpus)
        if isinstance(found, Candidate):
            return gpus, found
    return None


def least_batch(run: Trained, machine: Machine, wish: Wish, gpus: int) -> int | None:
    """Sequences that so many GPUs need at least, one for each data-parallel rank; None: they divide into no layout."""
    ranks = (
        gpus // (tensor * pipeline * context)
        for tensor, pipeline, context in _splits(run, machine, wish, gpus)
    )
    fits = [data for data in ranks if wish.data in (None, data)]
    return min(fits) * (wish.microbatch or 1) if fits else None


def of_counts(wish: Wish, sizes: Iterable[int]) -> Iterator[int]:
    """Those that a wish's own degrees divide."""
    told = math.prod(size or 1 for size in (wish.tensor, wish.pipeline, wish.data, wish.context))
    sizes = list(sizes)
    multiples = {told} if told <= (sizes[-1] if sizes else 0) else set()
    return iter(sorted({size for size in sizes if size % told == 0} | multiples))


def _likely(run: Trained, machine: Machine, layout: Layout) -> Pace:
    return paces(run, machine.part, layout)[0]


def _splits(run: Trained, machine: Machine, wish: Wish, gpus: int) -> Iterator[tuple[int, int, int]]:
    for tensor in _chosen(wish.tensor, tensor_sizes(run.model, min(machine.domain, gpus))):
        for pipeline in _chosen(wish.pipeline, pipeline_sizes(run.model, gpus)):
            for context in _chosen(wish.context, _contexts(run, gpus)):
                if gpus % (tensor * pipeline * context) == 0:
                    yield tensor, pipeline, context


def _contexts(run: Trained, gpus: int) -> list[int]:
    if run.seq < _LONG:
        return [1]
    return [size for size in (1, 2, 4, 8, 16, 32) if size <= gpus and run.seq % size == 0]


def _batch_of(wish: Wish, data: int) -> int:
    """A batch that nobody told grows until each rank has a sequence, twofold at most."""
    return wish.batch if wish.batch_is_told else max(wish.batch, min(data, _GROWS * wish.batch))


def _shardings(wish: Wish, layout: Layout) -> tuple[Sharding, ...]:
    if wish.sharding is not None:
        return (wish.sharding,)
    if layout.shards == 1:
        return ("none",)
    return ("optimizer", "parameters") if layout.pipeline == 1 else ("optimizer",)


def _chosen(told: T | None, usual: Iterable[T]) -> Iterable[T]:
    return usual if told is None else (told,)
