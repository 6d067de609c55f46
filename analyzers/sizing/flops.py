"""Work of training in FLOPs, and what of a part's peak a rate means. Pure.

N parameters (``active_params`` of a mixture: the ones that a token meets), D tokens, L layers, d what all heads are wide (the hidden
size as a rule), s sequence. ``C = D * (6 N + 12 L d s)``: 2 for a product forward, 4 backward; the attention term for full attention
as MFU tables count it, half of it for what causal kernels do. Layers that look at no other token have none, those with a window w
see ``w (2 - w/s)`` of it. Sources: llm-foundry, benchmarking README (formula); Kaplan 2001.08361; PaLM 2204.02311 appendix B
(heads times their size); DeepSeek 2505.09343 table 4 (MLA: 280 GFLOP a token with full attention, 250 with causal).
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Literal

from coldaisle.analyzers.sizing.assumptions import assumed
from coldaisle.analyzers.sizing.bounds import check_above_zero
from coldaisle.analyzers.sizing.catalogue import FROM_CONFIG, Model
from coldaisle.analyzers.sizing.quantity import Quantity, exact
from coldaisle.analyzers.sizing.sheet import SizingError

Attention = Literal["none", "causal", "full"]
Recompute = Literal["none", "selective", "full"]
Method = Literal["full", "lora", "qlora"]

PER_PARAMETER: dict[Method, int] = {"full": 6, "lora": 4, "qlora": 4}
"""FLOPs a token and parameter: frozen weights get no gradient of their own."""
_ATTENTION: dict[Attention, int] = {"none": 0, "causal": 6, "full": 12}
_SOURCE = "llm-foundry benchmarking README; Kaplan 2001.08361"
_HFU = "Korthikanti 2205.05198; bigscience math README (8ND)"


def flops_per_token(model: Model, seq: int, attention: Attention = "full", method: Method = "full") -> float:
    """Of training, forward and backward, without what is recomputed.

    Errors: SizingError where attention is asked for and layers or hidden size are not known.
    """
    check_above_zero("sequence", seq)
    products = PER_PARAMETER[method] * model.active_params
    if attention == "none":
        return products
    if model.layers is None or model.hidden is None:
        raise SizingError(
            f"{model.name}: attention needs layers and hidden size; tell them, or count 6 N alone"
        )
    return products + _ATTENTION[attention] * attention_elements(model, seq)


def attention_elements(model: Model, seq: float) -> float:
    """``L·d·s``, over the layers that attend, of a token of a sequence; 0 where none does."""
    layers, window = model.attending_layers or 0, model.window
    windowed = min(model.window_layers, layers) if window and window < seq else 0
    near = window * (2 - window / seq) if window else 0.0
    seen = (layers - windowed) * seq + windowed * near
    return model.attention_width * seen if seen else 0.0


def training_flops(
    model: Model, tokens: float, seq: int = 2048, attention: Attention = "none", method: Method = "full"
) -> Quantity:
    """Of a run, flop: ``6 N D`` and what attention adds. Nothing that is recomputed."""
    check_above_zero("tokens", tokens)
    each = flops_per_token(model, seq, attention, method)
    term = f" + {_ATTENTION[attention]}·L·d·s" if attention != "none" else ""
    formula = (
        f"D·({PER_PARAMETER[method]}·N{term}) = {tokens:.4g} · {each:.4g} (N = {model.active_params:.4g})"
    )
    return exact(tokens * each, "flop", formula, _SOURCE)


def recompute_factor(recompute: Recompute) -> Quantity:
    """Hardware FLOPs over model FLOPs: a whole second forward pass is 8 N instead of 6 N."""
    if recompute == "full":
        return exact(4 / 3, "ratio", "8ND / 6ND", _HFU)
    if recompute == "selective":
        return assumed("recompute.selective")
    return exact(1.0, "ratio", "nothing is recomputed")


def mfu(tokens_s_gpu: float, model: Model, seq: int, peak: float, attention: Attention = "full") -> Quantity:
    """Model FLOPs utilisation, ratio of ``peak`` (dense flop/s of the dtype that the run computes in)."""
    check_above_zero("tokens/s a GPU", tokens_s_gpu)
    check_above_zero("peak", peak)
    each = flops_per_token(model, seq, attention)
    return exact(
        tokens_s_gpu * each / peak,
        "ratio",
        f"tokens/s/GPU · FLOPs a token / peak = {tokens_s_gpu:.4g} · {each:.4g} / {peak:.4g}",
        _SOURCE,
    )


def hfu(
    tokens_s_gpu: float,
    model: Model,
    seq: int,
    peak: float,
    recompute: Recompute,
    attention: Attention = "full",
) -> Quantity:
    """Hardware FLOPs utilisation: what is recomputed counts too."""
    own, factor = mfu(tokens_s_gpu, model, seq, peak, attention), recompute_factor(recompute)
    return Quantity(
        own.value * factor.value,
        own.low * factor.low,
        own.high * factor.high,
        "ratio",
        f"MFU · {factor.value:.3f} ({recompute} recompute)",
        _HFU,
    )


def shaped(model: Model) -> tuple[Model, tuple[str, ...]]:
    """The model with what is not known of its shape taken as usual, and the words that say so.

    Usual: ``N = 12 L d²`` with d = 128 L, heads of 128, 8 KV heads, an MLP of 3.5 d, 128,256 tokens (as Llama 3 has them).
    """
    layers, hidden = model.layers, model.hidden
    if layers is None and hidden is None:
        hidden = _width((128 * model.params / 12) ** (1 / 3))
    if hidden is None and layers is not None:
        hidden = _width(math.sqrt(model.params / (12 * layers)))
    if layers is None and hidden is not None:
        layers = _near(model.params / (12 * hidden**2), 2)
    assert layers is not None
    assert hidden is not None
    heads = model.heads or max(hidden // 128, 1)
    fill: dict[str, int] = {
        "layers": layers,
        "hidden": hidden,
        "heads": heads,
        "kv_heads": model.kv_heads or (8 if heads % 8 == 0 else heads),
        "head_dim": model.head_dim or max(hidden // heads, 1),
        "ffn": model.ffn or int(3.5 * hidden),
        "vocab": model.vocab or 128_256,
    }
    notes = (f"{model.name}: {model.note}",) if model.note and model.status == FROM_CONFIG else ()
    unknown = [name for name in fill if getattr(model, name) is None]
    if model.kv_layers == 0:
        unknown = [name for name in unknown if "head" not in name]  # nothing attends: they mean nothing
    if not unknown:
        return replace(model, **fill), notes  # type: ignore[arg-type]
    told = ", ".join(f"{name.replace('_', ' ')} {fill[name]:,}" for name in unknown)
    words = f"of {model.name} the shape is not known; taken as usual: {told}"
    return replace(model, **fill), (*notes, words)  # type: ignore[arg-type]


def _width(hidden: float) -> int:
    return _near(hidden, 1024 if hidden > 3072 else 128)


def _near(size: float, step: int) -> int:
    return max(round(size / step), 1) * step
