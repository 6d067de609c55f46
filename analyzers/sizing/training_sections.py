"""The figures of a training plan, as a sheet shows them: canonical units, each with its formula and source. Pure."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from coldaisle.analyzers.sizing.assumptions import assumed
from coldaisle.analyzers.sizing.cabling import cabling, figures_of
from coldaisle.analyzers.sizing.flops import training_flops
from coldaisle.analyzers.sizing.layout import bubble, expert_sizes
from coldaisle.analyzers.sizing.loading import token_bandwidth
from coldaisle.analyzers.sizing.memory import fullest, interval_of
from coldaisle.analyzers.sizing.outcome import Outcome
from coldaisle.analyzers.sizing.power import NodePower, energy_kwh, gpu_hour_cost, node_power, racks
from coldaisle.analyzers.sizing.quantity import Quantity, exact, whole
from coldaisle.analyzers.sizing.resilience import (
    availability_optimal,
    daly,
    overhead,
    read_bandwidth,
    write_bandwidth,
)
from coldaisle.analyzers.sizing.search import FILL
from coldaisle.analyzers.sizing.sheet import Section, SizingError
from coldaisle.analyzers.sizing.site import Site
from coldaisle.analyzers.sizing.step import efficiency, paces, peak_of, recomputed, step_of
from coldaisle.sources.parts.catalogue import GIB

RACK_W = 40_000.0
"""W of a rack where none is told; one node where that draws more."""
_HALF_HOUR = 1800.0
_ONE_PERCENT = 0.01
_DIRECT = "analyzers/sizing/step.py"


def sections_of(outcome: Outcome, site: Site) -> tuple[Section, ...]:
    """All sections, in the order in which one sizes: work, memory, layout, time, network, storage, failures, power, cost."""
    found = [
        _work(outcome),
        _memory(outcome),
        _layout(outcome),
        _step(outcome),
        *_experts(outcome),
        _time(outcome),
        _network(outcome),
        _storage(outcome, site),
        _failures(outcome),
    ]
    powered = _power(outcome, site)
    return (*found, *powered)


def _work(outcome: Outcome) -> Section:
    run = outcome.run
    plain = training_flops(run.model, outcome.tokens, run.seq, "none", run.method)
    full = training_flops(run.model, outcome.tokens, run.seq, "full", run.method)
    again = recomputed(outcome.layout, run)
    return Section(
        "work",
        (
            ("parameters", exact(run.model.params, "parameters", "", run.model.status)),
            ("active parameters", exact(run.model.active_params, "parameters", "", run.model.status)),
            ("tokens", exact(outcome.tokens, "tokens", "told")),
            ("FLOPs", plain),
            (
                "FLOPs with causal attention",
                training_flops(run.model, outcome.tokens, run.seq, "causal", run.method),
            ),
            ("FLOPs with full attention", full),
            (
                "hardware FLOPs",
                full.scaled(again, formula=f"{again:.3f} · {full.value:.4g}, with what is recomputed"),
            ),
            (
                "tokens a step",
                exact(
                    outcome.layout.batch * run.seq, "tokens", f"{outcome.layout.batch} sequences of {run.seq}"
                ),
            ),
            ("steps", exact(outcome.tokens / (outcome.layout.batch * run.seq), "steps")),
            *(
                (("adapter parameters", exact(run.adapters, "parameters", "LoRA on all products")),)
                if run.adapters
                else ()
            ),
        ),
    )


def _memory(outcome: Outcome) -> Section:
    memory, room = outcome.candidate.memory, outcome.machine.part.memory_bytes
    loose = assumed("overhead.fragmentation")
    shards = outcome.layout.shards
    tensors = memory.states + memory.activations + memory.logits + memory.gathered
    acts = assumed("overhead.activations")
    part = outcome.machine.part
    return Section(
        "memory of the fullest GPU",
        (
            ("weights", _bytes(memory.weights, f"{outcome.layout.sharding} sharded over {shards}")),
            ("gradients", _bytes(memory.gradients, f"{outcome.layout.sharding} sharded over {shards}")),
            ("optimizer", _bytes(memory.optimizer, f"fp32 master weights and Adam over {shards}")),
            (
                "activations",
                Quantity(
                    memory.activations,
                    memory.activations * acts.low,
                    memory.activations * acts.high,
                    "bytes",
                    f"{outcome.layout.recompute} recompute, {memory.stage} stage",
                    acts.source,
                ),
            ),
            ("logits", _bytes(memory.logits, "(2+4)·s·b·V/t")),
            ("gathered weights", _bytes(memory.gathered, "two layers of ZeRO-3")),
            (
                "fragmentation",
                Quantity(
                    tensors * loose.value,
                    tensors * loose.low,
                    tensors * loose.high,
                    "bytes",
                    loose.formula,
                    loose.source,
                ),
            ),
            ("context and communication", _bytes(memory.overhead, "CUDA context, NCCL, torch.distributed")),
            ("total", outcome.memory),
            (
                "of a GPU",
                exact(room, "bytes", "as the driver reports it" if part.memory_is_reported else "as sold"),
            ),
        ),
        f"the {memory.stage} stage",
    )


def _layout(outcome: Outcome) -> Section:
    layout = outcome.layout
    sizes = (
        ("tensor parallelism", layout.tensor, "1"),
        ("pipeline parallelism", layout.pipeline, "1"),
        ("context parallelism", layout.context, "1"),
        ("data parallelism", layout.data, "1"),
        *((("expert parallelism", layout.expert, "1"),) if outcome.run.model.experts else ()),
        ("chunks a stage", layout.interleave, "1"),
        ("microbatch", layout.microbatch, "sequences"),
        ("microbatches a step", layout.microbatches, "1"),
        ("batch", layout.batch, "sequences"),
    )
    again = "all" if layout.recomputed_layers is None else str(layout.recomputed_layers)
    recompute = (
        f"full recompute of {again} layers a stage"
        if layout.recompute == "full"
        else f"{layout.recompute} recompute"
    )
    return Section(
        "layout",
        (
            *((name, exact(size, unit)) for name, size, unit in sizes),
            ("GPUs a node", exact(outcome.machine.node_gpus, "gpus")),
            ("nodes", exact(outcome.nodes, "nodes")),
        ),
        f"{layout.words()}; states: {_SHARDED[layout.sharding]}; {recompute}",
    )


_SHARDED = {
    "none": "on every rank",
    "optimizer": "optimizer sharded (ZeRO-1, distributed optimizer)",
    "gradients": "optimizer and gradients sharded (ZeRO-2)",
    "parameters": "all sharded (ZeRO-3, FSDP)",
}


def _step(outcome: Outcome) -> Section:
    step, layout = outcome.step, outcome.layout
    part, run = outcome.machine.part, outcome.run
    reached = efficiency(part, run.dtype, float(run.model.hidden or 1))
    exposed = assumed("exposed.tensor")
    hides = f"max(0, {step.data_seconds:.3g} s - what compute hides)"
    return Section(
        "step time",
        (
            (
                "compute",
                Quantity(
                    step.compute,
                    step.compute * reached.value / reached.high,
                    step.compute * reached.value / reached.low,
                    "s",
                    "FLOPs / (GPUs · peak · efficiency)",
                    _DIRECT,
                ),
            ),
            ("efficiency of products", reached),
            (
                "peak of a GPU",
                exact(peak_of(part, run.dtype), "flop/s", f"dense {run.dtype}", ";".join(part.sources)),
            ),
            ("bubble", bubble(layout.pipeline, layout.microbatches, layout.interleave)),
            ("time in the bubble", exact(step.bubble, "s", "busy/(1 - bubble) - busy", _DIRECT)),
            (
                "exposed tensor-parallel",
                Quantity(
                    step.tensor,
                    step.tensor * exposed.low / exposed.value,
                    step.tensor * exposed.high / exposed.value,
                    "s",
                    f"{exposed.value:g} of 4 all-reduces a layer and microbatch",
                    exposed.source,
                ),
            ),
            *_exposed_experts(outcome),
            ("exposed pipeline", exact(step.pipeline, "s", "max(0, volume/port - compute)", _DIRECT)),
            ("exposed data-parallel", exact(step.data, "s", hides, _DIRECT)),
            ("optimizer", exact(step.optimizer, "s", "40 bytes a parameter through HBM", _DIRECT)),
            ("step", outcome.step_s),
        ),
    )


def _exposed_experts(outcome: Outcome) -> tuple[tuple[str, Quantity], ...]:
    if outcome.layout.expert == 1:
        return ()
    return (("exposed all-to-all", _exposed(outcome.step.expert)),)


def _exposed(seconds: float) -> Quantity:
    share = assumed("exposed.expert")
    return Quantity(
        seconds, seconds * share.low / share.value, seconds * share.high / share.value, "s",
        f"{share.value:g} of 4 all-to-alls a layer and microbatch", share.source,
    )  # fmt: skip


def _experts(outcome: Outcome) -> tuple[Section, ...]:
    """The layout with every degree of expert parallelism that divides experts and ranks; nothing for a dense model."""
    layout, run = outcome.layout, outcome.run
    sizes = expert_sizes(run.model, layout.shards)
    if not run.model.is_mixture or not run.model.experts:
        return ()
    figures: list[tuple[str, Quantity]] = []
    room = outcome.machine.part.memory_bytes * FILL
    quickest: tuple[float, int] = (math.inf, 0)
    for size in sizes:
        other = replace(layout, expert=size)
        memory = fullest(run, other)
        likely, fast, slow = (
            step_of(run, outcome.machine, other, pace) for pace in paces(run, outcome.machine.part, other)
        )
        fits = memory.total <= room
        quickest = min(quickest, (likely.total, size)) if fits else quickest
        seconds = Quantity(
            likely.total, min(fast.total, likely.total), max(slow.total, likely.total), "s", _DIRECT
        )
        figures += [
            (f"EP {size}: memory", interval_of(memory)),
            (f"EP {size}: all-to-all", _bytes(likely.expert_bytes, "a step and GPU: 4·topk·s·b·h·2/t a layer and microbatch")),
            (f"EP {size}: exposed", _exposed(likely.expert)),
            (f"EP {size}: step", seconds),
            (f"EP {size}: fits", exact(float(fits), "1", f"up to {room / GIB:.4g} GiB may be filled")),
        ]  # fmt: skip
    least = min(fullest(run, replace(layout, expert=size)).total for size in sizes)
    binds = "memory" if fullest(run, replace(layout, expert=1)).total > room >= least else "time"
    note = f"EP {layout.expert} is chosen, what binds it: {binds}; {run.model.experts} experts, each taken to be chosen evenly"
    return (Section("expert parallelism", tuple(figures), note, is_table=True),)


def _time(outcome: Outcome) -> Section:
    each = outcome.tokens_s.scaled(
        1 / outcome.gpus, "tokens/s", f"{outcome.tokens_s.value:.4g} / {outcome.gpus}"
    )
    return Section(
        "time",
        (
            ("tokens/s", outcome.tokens_s),
            ("tokens/s a GPU", each),
            ("MFU", outcome.mfu),
            ("HFU", outcome.hfu),
            ("at full speed", outcome.busy),
            ("goodput", outcome.goodput),
            ("wall clock", outcome.wall),
            ("GPU-hours of the run", outcome.gpu_hours()),
            ("GPU-hours as model cards count", outcome.project_hours()),
        ),
        f"MFU and HFU of the dense {outcome.run.dtype} peak; model cards count restarts, ablations and post-training too",
    )


def _network(outcome: Outcome) -> Section:
    """Volumes of a step, the ports that carry them, and the switches that join these."""
    step, built = outcome.step, outcome.machine
    found = cabling(built, outcome.nodes)
    switches = () if found is None else (_thinner(outcome), *figures_of(found))
    port = built.port * built.port_efficiency
    hidden = max(step.compute, 1e-12)
    return Section(
        "network",
        (
            (
                "tensor-parallel a step and GPU",
                _bytes(step.tensor_bytes, "4 all-reduces of 2·s·b·h a layer and microbatch"),
            ),
            *(
                (
                    (
                        "all-to-all a step and GPU",
                        _bytes(step.expert_bytes, "tokens to their experts and back"),
                    ),
                )
                if step.expert_bytes
                else ()
            ),
            ("pipeline a step and GPU", _bytes(step.pipeline_bytes, "2·s·b·h a boundary, there and back")),
            (
                "data-parallel a step and GPU",
                _bytes(step.data_bytes, "gradients once; ZeRO-3: weights twice a microbatch"),
            ),
            (
                "port of a GPU",
                exact(built.port, "bytes/s", "one way", built.node.system if built.node else "guess"),
            ),
            ("reached of it", exact(port, "bytes/s", f"· {built.port_efficiency:g}")),
            (
                "port that hides all",
                exact(
                    (step.data_bytes + step.pipeline_bytes) / hidden,
                    "bytes/s",
                    "data and pipeline volume / compute time",
                ),
            ),
            *switches,
        ),
        "one node: nothing crosses a port" if found is None else found.note,
    )


def _thinner(outcome: Outcome) -> tuple[str, Quantity]:
    """How much thinner than the ports uplinks may be before a step waits for them."""
    step, built = outcome.step, outcome.machine
    needed = (step.data_bytes + step.pipeline_bytes) / max(step.compute, 1e-12)
    reached = built.port * built.port_efficiency
    share = max(reached / needed, 1.0) if needed > 0 else math.inf
    most = min(share, 64.0)
    words = f"{reached:.3g} bytes/s reached / {needed:.3g} that hide all"
    return "oversubscription that hides all", Quantity(
        most, 1.0, most, "ratio", f"{words}; at most 64", _DIRECT
    )


def _storage(outcome: Outcome, site: Site) -> Section:
    write, between, restart = outcome.write_s.value, outcome.mtbf.value, outcome.restart.value
    state = outcome.checkpoint
    loader = token_bandwidth(outcome.tokens_s.value, site.bytes_per_token)
    figures = [
        ("checkpoint", state),
        ("weights alone", exact(2 * outcome.run.model.params, "bytes", "2 bytes a parameter")),
        ("a checkpoint stops the run for", outcome.write_s),
        ("checkpoint interval", outcome.interval_s),
        ("checkpoint interval, Daly", daly(write, between)),
        ("checkpoint interval, availability", availability_optimal(write, between, restart)),
        ("write bandwidth", exact(state.value / write, "bytes/s", f"{state.value:.4g} / {write:.4g} s")),
        ("write bandwidth for 1 % at 30 minutes", write_bandwidth(state.value, _HALF_HOUR, _ONE_PERCENT)),
        ("read bandwidth", _read(outcome, site)),
        ("data loader", loader),
    ]
    return Section(
        "storage and checkpoints", tuple(figures), "checkpoints that are written behind the run need less"
    )


def _read(outcome: Outcome, site: Site) -> Quantity:
    if not math.isnan(site.storage_read):
        return exact(site.storage_read, "bytes/s", "told")
    return read_bandwidth(outcome.checkpoint.value, outcome.restart.value / 2).explained(
        "state / half of a restart", "the other half starts and warms up"
    )


def _failures(outcome: Outcome) -> Section:
    wall, between, spares = outcome.wall, outcome.mtbf, assumed("failures.spares")
    lost = overhead(outcome.write_s.value, outcome.interval_s.value, between.value, outcome.restart.value)
    return Section(
        "failures and goodput",
        (
            ("time between failures", between),
            (
                "failures of the run",
                Quantity(
                    wall.value / between.value,
                    min(wall.low / between.high, wall.value / between.value),
                    max(wall.high / between.low, wall.value / between.value),
                    "failures",
                    f"{wall.value:.4g} s / {between.value:.4g} s",
                    between.source,
                ),
            ),
            ("restart", outcome.restart),
            ("overhead", exact(lost, "ratio", "C/T + T/2M + R/M", "Young 1974")),
            ("goodput", outcome.goodput),
            (
                "spare nodes",
                whole(
                    Quantity(
                        outcome.nodes * spares.value,
                        outcome.nodes * spares.low,
                        outcome.nodes * spares.high,
                        "nodes",
                        f"{spares.value:g} · {outcome.nodes} nodes",
                        spares.source,
                    )
                ),
            ),
        ),
    )


@dataclass(frozen=True, slots=True)
class _Drawn:
    """W of all nodes."""

    plate: Quantity
    peak: Quantity
    busy: Quantity


def _power(outcome: Outcome, site: Site) -> tuple[Section, ...]:
    """Power and racks, and cost; nothing where nobody publishes a power."""
    built = outcome.machine
    gpus = min(built.node_gpus, outcome.gpus)
    try:
        node = node_power(built.part, gpus, built.node if gpus == built.node_gpus else None)
    except SizingError:
        return (Section("power and racks", (), "nobody publishes the power of this part"),)
    drawn = _Drawn(*(each.scaled(outcome.nodes) for each in (node.nameplate, node.peak, node.busy)))
    energy = energy_kwh(drawn.busy, outcome.wall, site.overhead())
    height = built.node.rack_units if built.node else math.nan
    rack_w = max(RACK_W, node.nameplate.value) if math.isnan(site.rack_w) else site.rack_w
    standing = racks(outcome.nodes, node.nameplate.value, rack_w, height)
    tokens = energy.scaled(3.6e6 / outcome.tokens, "J/token", "energy / tokens")
    figures = (
        ("node, name plate", node.nameplate),
        ("node, at most under work", node.peak),
        ("node, mean of heavy work", node.busy),
        ("node, idle", node.idle),
        ("all nodes, name plate", drawn.plate.explained(f"{outcome.nodes} nodes; circuits are for this")),
        ("all nodes, mean of heavy work", drawn.busy.explained(f"{outcome.nodes} nodes")),
        ("heat with cooling and conversion", _facility(drawn.busy, site.overhead())),
        ("energy", energy),
        ("energy a token", tokens),
        ("power of a rack", exact(rack_w, "W", "told" if not math.isnan(site.rack_w) else "taken")),
        ("racks", standing.quantity.explained(f"{standing.quantity.formula}; {standing.name} binds")),
    )
    return Section("power and racks", figures), *_cost(outcome, site, node, energy)


def _facility(busy: Quantity, pue: Quantity) -> Quantity:
    return Quantity(
        busy.value * pue.value,
        busy.low * pue.low,
        busy.high * pue.high,
        "W",
        f"IT · PUE {pue.value:g}",
        pue.source,
    )


def _cost(outcome: Outcome, site: Site, node: NodePower, energy: Quantity) -> tuple[Section, ...]:
    prices = site.prices
    if prices is None:
        return (
            Section(
                "cost", (), "no price was told; prices drift by the month, so they are inputs with their day"
            ),
        )
    each = gpu_hour_cost(
        prices, node.busy.value / min(outcome.machine.node_gpus, outcome.gpus), site.overhead().value
    )
    figures: list[tuple[str, Quantity]] = []
    if each is not None:
        hours, project = outcome.gpu_hours(), outcome.project_hours()
        figures += [
            ("a used GPU-hour", each),
            (
                "the run",
                hours.scaled(each.value, "$", f"{hours.value:,.0f} GPU-h · {each.value:.4g} $", each.source),
            ),
            (
                "as model cards count",
                project.scaled(
                    each.value, "$", f"{project.value:,.0f} GPU-h · {each.value:.4g} $", each.source
                ),
            ),
            (
                "a million tokens",
                hours.scaled(
                    each.value / outcome.tokens * 1e6, "$", "cost of the run / tokens · 1e6", each.source
                ),
            ),
        ]
    if not math.isnan(prices.energy_kwh):
        figures.append(
            (
                "energy",
                energy.scaled(
                    prices.energy_kwh, "$", f"{energy.value:,.0f} kWh · {prices.energy_kwh:g} $/kWh"
                ),
            )
        )
    return (Section("cost", tuple(figures), f"prices as told, of {prices.as_of}"),)


def _bytes(size: float, formula: str) -> Quantity:
    return exact(size, "bytes", formula)
