"""Rules of thumb that people quote at purchases, and what is true of them for the run at hand. Pure.

Each is said where it comes up, with its numbers.
"""

from __future__ import annotations

from collections.abc import Iterator

from coldaisle.analyzers.sizing.catalogue import Model, nodes
from coldaisle.analyzers.sizing.cited import cited
from coldaisle.analyzers.sizing.flops import attention_elements, flops_per_token, training_flops
from coldaisle.analyzers.sizing.memory import checkpoint_bytes
from coldaisle.analyzers.sizing.outcome import Outcome
from coldaisle.analyzers.sizing.place_rules import place_verdicts
from coldaisle.analyzers.sizing.resilience import write_bandwidth
from coldaisle.analyzers.sizing.sheet import Verdict
from coldaisle.sources.parts.catalogue import GIB, parts

PETAFLOP_DAY = 1e15 * 86_400
_GPT3_HIDDEN = 12_288


def training_verdicts(outcome: Outcome) -> tuple[Verdict, ...]:
    """Those that concern a training run."""
    return tuple(_verdicts(outcome))


def _verdicts(outcome: Outcome) -> Iterator[Verdict]:
    model, seq = outcome.run.model, outcome.run.seq
    yield attention_rule(model, seq)
    if model.hidden == _GPT3_HIDDEN:
        yield gpt3_rule(model)
        yield petaflop_days(model)
    yield _utilisation(outcome)
    yield weights_rule(model)
    yield _quadratic()
    if outcome.layout.shards > 1:
        yield Verdict(
            "gradient synchronisation makes all-to-all traffic",
            "wrong word: data parallelism reduces (all-reduce, or reduce-scatter and all-gather); all-to-all is of expert parallelism",
        )
        yield _linear(outcome)
        yield data_parallel_rule(outcome)
    if outcome.run.method == "full":
        yield checkpoint_rule(model)
        yield checkpoint_speed(model)
    if outcome.nodes > 1:
        yield Verdict(
            "above 8 GPUs it is a networking problem",
            f"too strong: 7B on 8 to 512 H100 goes from {cited('scaling.7b_at_8')} to {cited('scaling.7b_at_512')} % MFU "
            "(llm-foundry); here "
            f"{outcome.step.exposed / outcome.step.total:.0%} of a step is exposed communication",
        )
    if outcome.machine.part.id.startswith(("h100", "h200")) and outcome.machine.node_gpus == 8:
        yield node_rule()
    yield from _of_part(outcome)
    yield from place_verdicts(outcome.machine)
    yield Verdict(
        "15 to 25 % safety, 70 to 85 % utilisation, 2 to 5 times growth",
        "stacked they multiply: 1.15/0.85·2 = 2.7 to 1.25/0.70·5 = 8.9 times the measured peak; here no margin is hidden in any figure",
    )


def attention_rule(model: Model, seq: int) -> Verdict:
    """``4 s² d`` a sample."""
    assert model.hidden is not None
    assert model.layers is not None
    rule = 4.0 * seq**2 * model.hidden
    whole = flops_per_token(model, seq, "full") * seq
    return Verdict(
        "attention takes 4·s²·d FLOPs a sample",
        f"right for scores and values of one layer, forward, not causal: {rule:.3g} here; a sequence through all {model.layers} "
        f"layers, trained, takes {whole:.3g} FLOPs, of which attention is {12.0 * attention_elements(model, seq) * seq / whole:.1%}",
    )


def gpt3_rule(model: Model) -> Verdict:
    """2e23 for a billion tokens."""
    honest = training_flops(model, 1e9).value
    with_attention = training_flops(model, 1e9, 2048, "full").value - honest
    return Verdict(
        "1B tokens at s = 2048 and d = 12288 take about 2e23 FLOPs",
        f"wrong by {2e23 / (honest + with_attention):.0f} times: 6·N·D = {honest:.3g}, attention {with_attention:.2g} more; 2e23 are "
        f"about {2e23 / honest:.0f}B tokens of this model; its own formula 4·s²·d gives {1e9 / 2048 * 4 * 2048**2 * 12288:.2g} for one layer",
    )


def petaflop_days(model: Model) -> Verdict:
    """GPT-3 in 3,640 petaflop/s-days."""
    work = training_flops(model, 300e9).value
    return Verdict(
        f"GPT-3 took {cited('gpt3.petaflop_days')} petaflop-days",
        f"right: 6·{model.params:.4g}·300e9 = {work:.4g} FLOPs = {work / PETAFLOP_DAY:,.0f} petaflop-days",
    )


def weights_rule(model: Model) -> Verdict:
    """100B parameters in 400 GB."""
    sizes = ", ".join(f"{name} {model.params * each / 1e9:,.0f}" for name, each in _WEIGHTS)
    return Verdict(
        "a model of 100B needs over 400 GB for its weights",
        f"in fp32 only; this one in GB: {sizes}; its training state is the large number: "
        f"{16 * model.params / 1e9:,.0f} to {18 * model.params / 1e9:,.0f} before activations",
    )


_WEIGHTS = (("fp32", 4.0), ("bf16", 2.0), ("fp8", 1.0), ("4 bit", 0.55))


def checkpoint_rule(model: Model) -> Verdict:
    """Checkpoints of gigabytes."""
    return Verdict(
        "checkpoints are gigabytes to hundreds of gigabytes",
        f"low: 14 bytes a parameter are {checkpoint_bytes(model).value / 1e12:.3g} TB here, of which weights {2 * model.params / 1e9:,.0f} GB; "
        f"BLOOM-176B wrote {cited('bloom.checkpoint_tb')} TB",
    )


def checkpoint_speed(model: Model) -> Verdict:
    """A whole state within a step."""
    state = checkpoint_bytes(model).value
    honest = write_bandwidth(state, 1800.0, 0.01).value
    return Verdict(
        "storage has to write the whole state in a fraction of a step",
        f"too strict: in a second that is {state / 1e12:.3g} TB/s; 1 % of half an hour needs {honest / 1e9:,.0f} GB/s",
    )


def node_rule() -> Verdict:
    """A node of H100 at 10 kW."""
    node, share = nodes()["dgx_h100"], cited("node.busy_share")
    return Verdict(
        "a node of 8 H100 draws 10 kW",
        f"that is the name plate, {node.power_w / 1e3:.1f} kW: at most {node.measured_power_w / 1e3:.1f} kW were measured in training "
        f"({node.measured_power_w / node.power_w:.0%}), heavy work means {share} %; lay circuits for the first, buy energy for the last",
    )


def data_parallel_rule(outcome: Outcome) -> Verdict:
    """100B over 64 GPUs at hundreds of Gb/s."""
    quoted = 2 * 63 / 64 * 2 * 100e9
    step, layout = outcome.step, outcome.layout
    here = step.data_bytes * 8 / step.total / 1e9
    return Verdict(
        "100B over 64 GPUs synchronise at hundreds of Gb/s",
        f"the order is right for pure data parallelism: 2·63/64·200 GB = {quoted / 1e9:.0f} GB a GPU and step, {quoted * 8 / 1e10:.0f} Gb/s "
        "at 10 s a step; but so large a model is not held by one GPU, and TP 8 makes it an eighth. "
        f"Here {layout.words()} send {step.data_bytes / 1e9:,.3g} GB a GPU and step, {here:,.3g} Gb/s",
    )


def _utilisation(outcome: Outcome) -> Verdict:
    return Verdict(
        "real work reaches 60 to 80 % of peak FLOPS",
        f"wrong for training: of {cited('mfu.rows')} published rows {cited('mfu.above_60')} reach 60 % MFU and "
        f"{cited('mfu.35_to_55')} lie from 35 to 55; {outcome.mfu.value:.0%} here. 60 to 80 % is what a bare matrix product gets "
        f"({_products()})",
    )


def _products() -> str:
    """Best matrix products of some parts, of their peak."""
    named = (("A100", "a100_sxm_80"), ("H100", "h100_sxm"), ("B200", "b200_sxm"), ("MI300X", "mi300x"))
    return ", ".join(f"{name} {parts()[part].matmul_share():.0%}" for name, part in named)


def _of_part(outcome: Outcome) -> Iterator[Verdict]:
    """What is said of boards and their nodes."""
    part, node = outcome.machine.part, outcome.machine.node
    fp32, bf16, fp8 = (part.peak(dtype) for dtype in ("fp32", "bf16", "fp8"))
    if fp32 > 0 and bf16 > 0:
        faster = f", fp8 {fp8 / bf16:.1f} times of that" if fp8 > 0 else ", no fp8"
        yield Verdict(
            "mixed precision is 2 to 4 times faster",
            f"loose: bf16 has {bf16 / fp32:.1f} times the fp32 rate of this part{faster}",
        )
    if not (16 <= part.memory_bytes / GIB <= 80 and part.bandwidth < 2e12):
        yield Verdict(
            "GPUs have 16 to 80 GB of HBM and over 1 TB/s",
            f"dated: this part has {part.memory_bytes / GIB:.0f} GiB and {part.bandwidth / 1e12:.2g} TB/s; others up to 288 and 8",
        )
    if node is not None and node.memory_bytes > 0:
        held = part.memory_bytes * node.gpus
        yield Verdict(
            "a server needs 512 GB of RAM or more",
            f"a ratio, not a constant: once to twice its HBM, {held / GIB:,.0f} to {2 * held / GIB:,.0f} GiB; {node.system} has "
            f"{node.memory_bytes / GIB:,.0f}",
        )


def _quadratic() -> Verdict:
    return Verdict(
        "memory is quadratic in the sequence",
        "only without FlashAttention (the 5·a·s/h term); with it memory is linear and only FLOPs stay quadratic",
    )


def _linear(outcome: Outcome) -> Verdict:
    return Verdict(
        "data parallelism scales linearly",
        f"nearly: GPT-3 on 96 to 4,608 H100 drops from {cited('scaling.gpt3_at_96')} to {cited('scaling.gpt3_at_4608')} % MFU "
        "(Megatron); here "
        f"{outcome.step.data:.3g} of {outcome.step.total:.3g} s a step wait for gradients or weights",
    )
