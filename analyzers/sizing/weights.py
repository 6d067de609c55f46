"""Weights by format: what is quantised, what stays at 16 bit, and what scales take. Pure; bytes.

Embedding and head stay at 16 bit as a rule, attention often, a router always: bytes a parameter times parameters is too low.
Llama-3.1-405B-FP8 takes 22 % more than N bytes, gpt-oss-120b 11 to 14 % more than 0.531 N. The index of a checkpoint tells.
"""

from __future__ import annotations

from dataclasses import dataclass

from coldaisle.analyzers.sizing.catalogue import Model
from coldaisle.analyzers.sizing.quantity import Quantity, exact
from coldaisle.analyzers.sizing.sheet import SizingError
from coldaisle.sources.parts.catalogue import Part

_SIXTEEN = 2.0


@dataclass(frozen=True, slots=True)
class Format:
    """How weights are stored. ``bytes_each`` with its scales; ``computes``: formats of a part that can use it, best first."""

    bytes_each: float
    computes: tuple[str, ...]
    keeps_attention: bool = False
    """Whether only MLPs or experts are in it as a rule."""
    padded: float = 1.0
    """What engines make of it in memory."""
    words: str = ""


FORMATS: dict[str, Format] = {
    "fp32": Format(4.0, ("fp32",)),
    "bf16": Format(2.0, ("bf16", "fp16")),
    "fp16": Format(2.0, ("fp16", "bf16")),
    "fp8": Format(1.0, ("fp8", "bf16", "fp16"), words="fp8"),
    "int8": Format(1.0, ("int8", "bf16", "fp16"), words="int8"),
    "fp4": Format(0.5 + 1 / 16, ("fp4", "bf16", "fp16"), words="4 bit and a scale byte of 16 (NVFP4)"),
    "mxfp4": Format(
        0.5 + 1 / 32, ("fp4", "bf16", "fp16"), True, 1.04, "4 bit and a scale byte of 32 (MXFP4)"
    ),
    "int4": Format(0.5 + 4 / 128, ("bf16", "fp16"), words="4 bit, a scale and a zero of 128 (AWQ, GPTQ)"),
}
"""By what ``--dtype`` names; ``w4`` means ``int4``."""
ALIASES = {"w4": "int4", "int4-awq": "int4", "awq": "int4", "gptq": "int4", "w4a16": "int4", "nvfp4": "fp4", "half": "fp16", "bfloat16": "bf16", "float16": "fp16", "float32": "fp32", "w8a8": "int8", "float8": "fp8"}  # fmt: skip


def format_named(name: str) -> tuple[str, Format]:
    """The format of a name. Errors: SizingError, with those that there are."""
    key = ALIASES.get(name.strip().casefold(), name.strip().casefold())
    if key not in FORMATS:
        raise SizingError(f"there is no weight format {name[:40]}", f"there are {', '.join(FORMATS)}")
    return key, FORMATS[key]


def weight_bytes(model: Model, dtype: str = "bf16") -> Quantity:
    """Of all weights, over all GPUs. Low: every product quantised; high: attention is not."""
    name, stored = format_named(dtype)
    if stored.bytes_each >= _SIXTEEN:
        return exact(
            model.params * stored.bytes_each,
            "bytes",
            f"{model.params:.4g} parameters · {stored.bytes_each:g} B ({name})",
        )
    tables = table_params(model)
    attention = min(attention_params(model), model.params - tables)
    least = (model.params - tables) * stored.bytes_each + tables * _SIXTEEN
    most = least + attention * (_SIXTEEN - stored.bytes_each)
    value = (most if stored.keeps_attention else least) * stored.padded
    kept = tables + (attention if stored.keeps_attention else 0.0)
    return Quantity(
        value,
        min(least, value),
        max(most * 1.03, value * 1.08),
        "bytes",
        f"{model.params - kept:.4g} · {stored.bytes_each:.4g} B ({stored.words or name}) + {kept:.3g} · 2 B at 16 bit"
        + (f", padded by {stored.padded - 1:.0%}" if stored.padded > 1 else ""),
        "Llama-3.1-405B-FP8 (vLLM issue 6746), gpt-oss-120b (33155): what stays at 16 bit",
    )


def table_params(model: Model) -> float:
    """Of embedding and head together; 0 where the vocabulary is not known."""
    if not (model.vocab and model.hidden):
        return 0.0
    return model.embedding_params * (1 if model.tied_embedding else 2)


def attention_params(model: Model) -> float:
    """Of the projections of attention; a fifth of a dense model where the shape is not known."""
    if not (model.layers and model.hidden and model.heads and model.head_dim):
        return 0.2 * model.active_params
    if model.is_mla:
        # the latent's own projections: about as in DeepSeek-V3, 187 million a layer of 7,168
        return model.layers * 3.64 * model.hidden**2
    kv_heads = model.kv_heads or model.heads
    return 2.0 * model.layers * model.hidden * model.head_dim * (model.heads + kv_heads)


def expert_params(model: Model) -> float:
    """Of all routed experts, from what is active of the whole; 0 in a dense model."""
    if not (model.is_mixture and model.experts and model.experts_active):
        return 0.0
    met = model.experts_active / model.experts
    return min((model.params - model.active_params) / (1.0 - met), model.params) if met < 1 else 0.0


def compute_dtype(dtype: str, part: Part) -> str:
    """The format that a part computes such weights in: ``bf16`` for fp8 on an A100. Errors: SizingError where it has none."""
    _, stored = format_named(dtype)
    for name in stored.computes:
        if part.peak(name) > 0:
            return name
    raise SizingError(
        f"{part.product} has no rate in the catalogue for {' or '.join(stored.computes)}",
        "choose another part, or another --dtype",
    )
