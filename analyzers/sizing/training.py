"""How many of a part train or fine-tune a model, in which layout, how long, and what they ask of network, storage and power. Pure.

The layout is the quickest of those that fit into memory. With a number of GPUs the answer is a time, with a deadline a number of
GPUs, with neither the smallest number that holds the model. What fits nowhere is an answer too: a sheet without ``gpus``.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace

from coldaisle.analyzers.sizing.bounds import check_above_zero, check_fields
from coldaisle.analyzers.sizing.catalogue import Model
from coldaisle.analyzers.sizing.flops import Method, Recompute, shaped
from coldaisle.analyzers.sizing.layout import Layout, Sharding, expert_sizes
from coldaisle.analyzers.sizing.memory import Trained, checkpoint_bytes, states_of
from coldaisle.analyzers.sizing.outcome import DAY, Outcome, outcome_of
from coldaisle.analyzers.sizing.power import node_power
from coldaisle.analyzers.sizing.quantity import Binding, Quantity, exact, largest
from coldaisle.analyzers.sizing.rules import training_verdicts
from coldaisle.analyzers.sizing.search import (
    FILL,
    MOST_GPUS,
    SIZES,
    Candidate,
    Spread,
    Tight,
    Wish,
    best,
    check_wish,
    counts,
    fewest,
    least_batch,
    of_counts,
)
from coldaisle.analyzers.sizing.sheet import Section, Sheet, SizingError
from coldaisle.analyzers.sizing.site import Machine, Site, machine
from coldaisle.analyzers.sizing.step import peak_of, usual_dtype
from coldaisle.analyzers.sizing.training_sections import sections_of
from coldaisle.sources.parts.catalogue import GIB, Part
from coldaisle.sources.units import show

MOST_TOKENS = 1e18
MOST_SEQUENCE = 16_777_216
_MEBI = 2.0**20
_BATCHES = ((3e9, _MEBI), (30e9, 4 * _MEBI), (200e9, 8 * _MEBI), (math.inf, 16 * _MEBI))
"""Tokens a step that are usual up to a number of parameters (Llama 2: 4M; Llama 3.1 405B: 16M)."""
_FINE_BATCH = 131_072
"""Of fine-tuning: 32 sequences of 4,096."""
_VERBS: dict[Method, str] = {"full": "Fine-tuning", "lora": "LoRA of", "qlora": "QLoRA of"}
_SCALING = (1, 2, 4, 8, 16)
_NARROW = 1024
"""Columns of an expert's products below which tensor cores are not filled (guess)."""
_LORA_SHARE = 0.003
"""Of the parameters, where the shape does not tell."""


@dataclass(frozen=True, slots=True)
class _Request:
    """All that a plan is made from."""

    run: Trained
    tokens: float
    verb: str
    machine: Machine
    site: Site
    wish: Wish
    gpus: int | None
    deadline_s: float | None
    warnings: tuple[str, ...]

    @property
    def title(self) -> str:
        """What is asked, in words."""
        return f"{self.verb} {self.run.model.name} on {self.tokens:.3g} tokens in {self.run.dtype}, {self.machine.part.product}"


@dataclass(frozen=True, slots=True)
class _Found:
    """A number of GPUs with its layout, and why so many."""

    gpus: int
    candidate: Candidate
    binding: Binding


@dataclass(frozen=True, slots=True)
class _None:
    """Nothing does; what binds, in a line."""

    answer: str
    binding: Binding


def plan_training(
    model: Model,
    tokens: float,
    part: Part,
    *,
    gpus: int | None = None,
    deadline_s: float | None = None,
    seq: int = 8192,
    batch_tokens: float | None = None,
    dtype: str | None = None,
    tensor: int | None = None,
    pipeline: int | None = None,
    data: int | None = None,
    context: int | None = None,
    expert: int | None = None,
    microbatch: int | None = None,
    sharding: Sharding | None = None,
    recompute: Recompute | None = None,
    site: Site | None = None,
) -> Sheet:
    """Training from the beginning, on ``tokens`` tokens in sequences of ``seq``.

    ``gpus``, ``deadline_s`` (seconds), or neither; ``batch_tokens``: tokens a step, None: what is usual for the size;
    ``dtype``: what products compute in (bf16, fp16, fp8, ...), None: bf16 where the part has it; ``tensor``, ``pipeline``, ``data``,
    ``context``, ``expert``: degrees of parallelism, ``microbatch``: sequences, ``sharding`` over data-parallel ranks (none, optimizer,
    gradients, parameters), ``recompute`` (none, selective, full): None leaves them to the search. Errors: SizingError for what
    means nothing: sizes not above zero, layouts that contradict themselves, a dtype the part has not.
    """
    known, notes = shaped(model)
    spread = Spread(
        tensor=tensor, pipeline=pipeline, data=data, context=context, expert=expert, microbatch=microbatch,
        sharding=sharding, recompute=recompute,
    )  # fmt: skip
    wish = _wish(seq, batch_tokens, _usual_batch(known), spread)
    run = Trained(known, seq, dtype or usual_dtype(part))
    return _planned("Training", run, tokens, part, site or Site(), wish, gpus, deadline_s, notes)


def plan_finetuning(
    model: Model,
    tokens: float,
    part: Part,
    *,
    method: Method = "lora",
    rank: int = 16,
    gpus: int | None = None,
    deadline_s: float | None = None,
    seq: int = 4096,
    batch_tokens: float | None = None,
    dtype: str | None = None,
    tensor: int | None = None,
    pipeline: int | None = None,
    data: int | None = None,
    context: int | None = None,
    expert: int | None = None,
    microbatch: int | None = None,
    sharding: Sharding | None = None,
    recompute: Recompute | None = None,
    site: Site | None = None,
) -> Sheet:
    """Fine-tuning on ``tokens`` tokens (of all epochs together): ``full``, ``lora``, or ``qlora`` (4-bit frozen weights).

    ``rank``: of the adapters, which sit on all products of attention and MLP. The rest as in ``plan_training``.
    """
    if method not in ("full", "lora", "qlora"):
        raise SizingError(f"there is no method {method}; use full, lora or qlora")
    check_above_zero("rank", rank)
    known, notes = shaped(model)
    if rank > (known.hidden or math.inf):
        raise SizingError(
            f"adapters of rank {rank:,} are wider than {known.name} ({known.hidden:,})",
            "usual are 8 to 256; --method full trains all weights",
        )
    adapters = 0.0 if method == "full" else lora_parameters(known, rank).value
    spread = Spread(
        tensor=tensor, pipeline=pipeline, data=data, context=context, expert=expert, microbatch=microbatch,
        sharding=sharding, recompute=recompute,
    )  # fmt: skip
    wish = _wish(seq, batch_tokens, _FINE_BATCH, spread)
    run = Trained(known, seq, dtype or usual_dtype(part), method, adapters)
    return _planned(_VERBS[method], run, tokens, part, site or Site(), wish, gpus, deadline_s, notes)


def lora_parameters(model: Model, rank: int) -> Quantity:
    """Of adapters on all products: ``r (in + out)`` each, of attention and of one MLP a layer (experts stay as they are)."""
    check_above_zero("rank", rank)
    if model.layers is None or model.hidden is None or model.ffn is None or model.heads is None:
        return exact(_LORA_SHARE * model.params * rank / 16, "parameters", "0.3 % at rank 16", "guess")
    hidden = model.hidden
    queries = model.heads * (model.head_dim or hidden // model.heads)
    keys = (model.kv_heads or model.heads) * (model.head_dim or hidden // model.heads)
    attention = 2 * (hidden + queries) + 2 * (hidden + keys)
    mlp = 0 if model.experts else (3 if model.gated_ffn else 2) * (hidden + model.ffn)
    each = float(rank * (attention + mlp))
    return exact(
        model.layers * each, "parameters", f"L·r·Σ(in+out) = {model.layers}·{each:.4g}", "LoRA 2106.09685"
    )


def _planned(
    verb: str,
    run: Trained,
    tokens: float,
    part: Part,
    site: Site,
    wish: Wish,
    gpus: int | None,
    deadline_s: float | None,
    notes: tuple[str, ...],
) -> Sheet:
    check_above_zero("tokens", tokens)
    if tokens < 1:
        raise SizingError(f"{tokens:g} tokens; a run has at least one")
    if tokens > MOST_TOKENS:
        raise SizingError(f"{tokens:g} tokens are more than there is text; at most {MOST_TOKENS:g} are sized")
    if deadline_s is not None:
        check_above_zero("deadline", deadline_s)
    if gpus is not None and (gpus != int(gpus) or gpus > MOST_GPUS):
        raise SizingError(f"{gpus:,} GPUs; a whole number of at most {MOST_GPUS:,} is sized")
    states_of(run.dtype)
    peak_of(part, run.dtype)
    built = machine(part, site)
    check_wish(run, built, wish, gpus)
    request = _Request(
        run,
        tokens,
        verb,
        built,
        site,
        wish,
        gpus,
        deadline_s,
        (*notes, *_mixture_notes(run.model), *_site_notes(built)),
    )
    found = _choose(request)
    return _without(request, found) if isinstance(found, _None) else _sheet(request, found)


# --- which number of GPUs ---------------------------------------------------------------------------------------------


def _choose(request: _Request) -> _Found | _None:
    if request.gpus is not None:
        return _given(request, request.gpus)
    most = _most(request)
    sizes = list(of_counts(request.wish, counts(request.machine, most)))
    smallest = fewest(request.run, request.machine, request.wish, sizes)
    if smallest is None:
        return _nowhere(request, most)
    memory = ("memory", exact(smallest[0], "gpus", "the fewest whose memory holds a layout"))
    if request.deadline_s is None:
        return _Found(*smallest, largest([memory]))
    return _in_time(request, memory, [size for size in sizes if size >= smallest[0]])


def _given(request: _Request, gpus: int) -> _Found | _None:
    limit = _most(request)
    if gpus > limit:
        return _None(
            _power_words(request, gpus, limit), largest([("power", exact(limit, "gpus", "name plates"))])
        )
    candidate = best(request.run, request.machine, request.wish, gpus)
    if isinstance(candidate, Candidate):
        return _Found(gpus, candidate, largest([("request", exact(gpus, "gpus", "told"))]))
    return _tight(request, gpus, candidate)


def _tight(request: _Request, gpus: int, tight: Tight) -> _None:
    """So many hold no layout: why, and how many would."""
    if tight.memory is None:
        return _no_layout(request, gpus)
    free = replace(request.wish, data=None)
    larger = of_counts(free, counts(request.machine, _most(request), gpus + 1))
    smallest = fewest(request.run, request.machine, free, larger)
    would = f"; {smallest[0]:,} would do" if smallest else "; no larger number does either"
    room = request.machine.part.memory_bytes
    shape = tight.layout.words() if tight.layout else ""
    needed = exact(tight.memory.total, "bytes", f"fullest GPU of {shape}")
    return _None(
        f"{request.run.model.name} does not fit on {gpus:,} {request.machine.part.product}: the fullest GPU would need "
        f"{needed.value / GIB:,.1f} GiB of {room * FILL / GIB:,.1f} that may be filled{would}. What binds: memory",
        largest([("memory", needed), ("capacity", exact(room, "bytes", "of a GPU"))]),
    )


def _no_layout(request: _Request, gpus: int) -> _None:
    """So many share no batch, or their number divides into no degrees."""
    batch = least_batch(request.run, request.machine, request.wish, gpus)
    if batch is None:
        return _None(
            f"{gpus:,} GPUs divide into no degrees that go with {request.run.model.name}; take whole nodes. What binds: layout",
            largest([("layout", exact(gpus, "gpus", "told"))]),
        )
    return _None(
        f"{gpus:,} GPUs are too many for a batch of {request.wish.batch:,} sequences: it has to be {batch:,} at least, or "
        "GPUs fewer. What binds: batch",
        largest([("batch", exact(batch, "sequences", "one for each data-parallel rank"))]),
    )


def _nowhere(request: _Request, most: int) -> _None:
    largest_size = max(of_counts(request.wish, counts(request.machine, most)), default=0)
    if most < MOST_GPUS:
        free = fewest(
            request.run, request.machine, request.wish, of_counts(request.wish, counts(request.machine))
        )
        if free is not None:
            return _None(
                _power_words(request, free[0], most), largest([("power", exact(most, "gpus", "name plates"))])
            )
    if largest_size:
        tight = best(request.run, request.machine, request.wish, largest_size)
        if isinstance(tight, Tight):
            return _tight(request, largest_size, tight)
    return _None(
        "no number of GPUs goes with the layout that was asked for. What binds: layout",
        largest([("layout", exact(largest_size, "gpus"))]),
    )


def _in_time(request: _Request, memory: tuple[str, Quantity], sizes: list[int]) -> _Found | _None:
    """The fewest whose run ends before the deadline."""
    assert request.deadline_s is not None
    before, quickest = sizes[0], math.inf
    at = before
    for gpus in sizes:
        candidate = _in(request, gpus)
        seconds = _seconds(request, candidate) if candidate else math.inf
        if candidate and seconds <= request.deadline_s:
            gpus, candidate = _finer(request, before, gpus, candidate)
            return _Found(
                gpus, candidate, largest([memory, ("time", exact(gpus, "gpus", "for the deadline"))])
            )
        if seconds < quickest:
            quickest, at = seconds, gpus
        before = gpus
    limit = "power" if _most(request) < MOST_GPUS else "time"
    return _None(
        f"no number of GPUs up to {before:,} ends within {show(request.deadline_s, 's')}: {at:,} take "
        f"{show(quickest, 's')}, for a step's {request.wish.batch:,} sequences go over no more. What binds: {limit}",
        largest([(limit, exact(quickest, "s", f"the quickest, with {at:,} GPUs"))]),
    )


def _finer(request: _Request, before: int, gpus: int, candidate: Candidate) -> tuple[int, Candidate]:
    """Whole nodes between two counts of the coarse list."""
    node = request.machine.node_gpus
    step = max((gpus - before) // 12 // node, 1) * node
    for size in of_counts(request.wish, range(before + step, gpus, step)):
        found = _in(request, size)
        if found and _seconds(request, found) <= (request.deadline_s or 0):
            return size, found
    return gpus, candidate


def _in(request: _Request, gpus: int) -> Candidate | None:
    found = best(request.run, request.machine, request.wish, gpus)
    return found if isinstance(found, Candidate) else None


def _seconds(request: _Request, candidate: Candidate) -> float:
    return _outcome(request, candidate).wall.value


def _outcome(request: _Request, candidate: Candidate) -> Outcome:
    return outcome_of(request.run, request.tokens, request.machine, request.site, candidate)


def _most(request: _Request) -> int:
    """GPUs that the power that was told feeds, by name plate."""
    limit = request.site.power_limit_w
    if math.isnan(limit):
        return MOST_GPUS
    node = request.machine
    plate = node_power(node.part, node.node_gpus, node.node).nameplate.value
    whole = int(limit // plate) * node.node_gpus
    if whole < 1:
        raise SizingError(
            f"{limit / 1e3:g} kW feed no node of {plate / 1e3:g} kW; raise the power limit to that at least"
        )
    return min(whole, MOST_GPUS)


def _power_words(request: _Request, needed: int, limit: int) -> str:
    return (
        f"{needed:,} GPUs are needed and {request.site.power_limit_w / 1e3:g} kW feed {limit:,} by name plate. "
        "What binds: power"
    )


# --- the sheet --------------------------------------------------------------------------------------------------------


def _sheet(request: _Request, found: _Found) -> Sheet:
    outcome = _outcome(request, found.candidate)
    layout = found.candidate.layout
    late = request.deadline_s is not None and outcome.wall.value > request.deadline_s
    answer = (
        f"{found.gpus:,} {request.machine.part.product}, {layout.words()}: {_days(outcome.wall)}"
        f", MFU {outcome.mfu.value:.0%} of {request.run.dtype} peak{', after the deadline' if late else ''}. What binds: {found.binding.name}"
    )
    return Sheet(
        request.title,
        answer,
        _gpus(request, found, outcome),
        found.binding,
        (*sections_of(outcome, request.site), _scaling(request, found.gpus)),
        training_verdicts(outcome),
        (*request.warnings, *_warnings(request, outcome)),
        request.machine.part.id,
    )


def _without(request: _Request, none: _None) -> Sheet:
    states = checkpoint_bytes(request.run.model, request.run.dtype)
    section = Section(
        "what it needs",
        (
            ("parameters", exact(request.run.model.params, "parameters")),
            ("full checkpoint", states),
            ("memory of a GPU", exact(request.machine.part.memory_bytes, "bytes")),
            *((f"needed: {name}", term) for name, term in none.binding.terms),
        ),
    )
    return Sheet(
        request.title,
        none.answer,
        None,
        none.binding,
        (section,),
        (),
        request.warnings,
        request.machine.part.id,
    )


def _gpus(request: _Request, found: _Found, outcome: Outcome) -> Quantity:
    """Their number; with a deadline as many more or fewer as the time may differ."""
    count = float(found.gpus)
    if request.gpus is not None:
        return exact(count, "gpus", "told")
    if found.binding.name == "time":
        wall = outcome.wall
        return Quantity(
            count,
            max(math.floor(count * wall.low / wall.value), 1.0),
            math.ceil(count * wall.high / wall.value),
            "gpus",
            "the fewest that end before the deadline",
        )
    most = outcome.memory.high / request.machine.part.memory_bytes
    return Quantity(
        count, count, math.ceil(count * max(most, 1.0)), "gpus", "the fewest whose memory holds a layout"
    )


def _scaling(request: _Request, gpus: int) -> Section:
    """What more of them would bring."""
    limit = _most(request)
    rows: list[tuple[str, Quantity]] = []
    free = replace(request.wish, data=None)
    for factor in _SCALING:
        size = gpus * factor
        if size > limit:
            break
        candidate = best(request.run, request.machine, free if factor > 1 else request.wish, size)
        if isinstance(candidate, Candidate):
            wall = _outcome(request, candidate).wall
            if rows and wall.value >= rows[-1][1].value:
                break
            rows.append((f"{size:,} GPUs", wall.explained(candidate.layout.words())))
    return Section(
        "scaling",
        tuple(rows),
        "wall clock by number of GPUs, each in its own layout, as far as more of them are quicker",
    )


def _warnings(request: _Request, outcome: Outcome) -> Iterator[str]:
    part = request.machine.part
    if outcome.memory.high > part.memory_bytes:
        yield (
            f"memory may not suffice: up to {outcome.memory.high / GIB:.0f} of {part.memory_bytes / GIB:.0f} GiB; "
            "more recompute or more GPUs make it sure"
        )
    if outcome.goodput.low < 0.5:
        yield "failures may take more than half of the time: checkpoint faster, or keep spares at hand"
    if request.deadline_s is not None and outcome.wall.value > request.deadline_s:
        yield (
            f"{outcome.wall.value / DAY:.3g} days are more than the deadline of {request.deadline_s / DAY:.3g}"
        )
    if request.deadline_s is not None and outcome.wall.value <= request.deadline_s < outcome.wall.high:
        yield f"the deadline is met in the likely case; at worst it takes {outcome.wall.high / DAY:.3g} days"
    width = (request.run.model.ffn or 0) // outcome.layout.tensor
    if request.run.model.experts and outcome.layout.tensor > 1 and width < _NARROW:
        yield (
            f"experts of {width} columns a GPU: their products are slower than is said here; --tp 1 --ep keeps them whole"
        )
    if not part.memory_is_reported:
        yield "the memory of the part is as sold; drivers report some less"


def _mixture_notes(model: Model) -> tuple[str, ...]:
    if not model.is_mixture:
        return ()
    if expert_sizes(model, 2) == [1] and not model.experts:
        return (
            "how many experts the mixture has is not told: expert parallelism and its all-to-all are not considered; tell --experts "
            "and --experts-active",
        )
    return (
        "of a mixture of experts all parameters are stored and the active ones computed; experts are taken to be chosen evenly",
    )


def _site_notes(built: Machine) -> tuple[str, ...]:
    if built.node is not None:
        return ()
    return (
        f"no node of this part is known: {built.node_gpus} a node with {built.port / 1e9:g} GB/s each are assumed",
    )


def _days(wall: Quantity) -> str:
    unit, size = ("days", DAY) if wall.value >= DAY else ("hours", 3600.0)
    return f"{wall.value / size:.3g} {unit} [{wall.low / size:.3g}, {wall.high / size:.3g}]"


# --- what is asked ----------------------------------------------------------------------------------------------------


def _wish(seq: int, batch_tokens: float | None, usual: float, spread: Spread) -> Wish:
    check_above_zero("sequence", seq)
    if seq > MOST_SEQUENCE or seq != int(seq):
        raise SizingError(
            f"a sequence of {seq:,} tokens; a whole number of at most {MOST_SEQUENCE:,} is sized"
        )
    check_fields(spread, SIZES)
    if batch_tokens is not None:
        check_above_zero("batch", batch_tokens)
        if batch_tokens < seq:
            raise SizingError(f"a batch of {batch_tokens:g} tokens is less than one sequence of {seq:,}")
    least = 1 if batch_tokens else (spread.data or 1) * (spread.microbatch or 1)
    batch = max(round((batch_tokens or usual) / seq), 1, least)
    return Wish(batch, batch_tokens is not None, **asdict(spread))


def _usual_batch(model: Model) -> float:
    return next(tokens for params, tokens in _BATCHES if model.active_params <= params)


__all__ = ["FILL", "Layout", "lora_parameters", "plan_finetuning", "plan_training"]
