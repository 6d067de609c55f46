"""What a server of language models keeps in memory: weights, keys and values, and what is left for them. Pure; bytes and tokens.

Keys and values of a token: ``2 · L · H_kv · head · bytes`` (MHA, GQA); ``L · (latent + rope) · bytes`` (MLA, one copy on every
GPU); of layers with a window only the last ``window`` tokens; layers with a state keep so much a request, however long it is.
Sources: vLLM's log lines (its issues 10517, 21348, 9802, 16570), DeepSeek-V2 (MLA), Hugging Face configurations.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from coldaisle.analyzers.sizing.catalogue import Model
from coldaisle.analyzers.sizing.quantity import Quantity, exact
from coldaisle.analyzers.sizing.sheet import SizingError
from coldaisle.sources.parts.catalogue import GIB

KV_BYTES = {"fp32": 4.0, "bf16": 2.0, "fp16": 2.0, "fp8": 1.0, "int8": 1.0, "fp4": 0.5625}
"""Of one element of keys or values; what a format's scales take is in it."""
_ENGINE = "vLLM log lines: issues 10517, 21348, 9802, 16570"
_LAYOUT = "2·L·H_kv·head_dim: Hugging Face configurations; MLA: DeepSeek-V2"


@dataclass(frozen=True, slots=True)
class KeyValues:
    """What one request keeps, in bytes over all GPUs of a replica that hold a part of it.

    ``everywhere``: for each token, in layers that see all of them. ``windowed``: for each of the last ``window`` tokens.
    ``state``: a request, however long. ``copies``: over so many GPUs each keeps ``1/shards`` of it.
    """

    everywhere: float
    windowed: float
    window: int
    state: float
    shards: int
    """Over so many GPUs it is divided; the others of the replica hold copies."""
    formula: str

    def of_request(self, tokens: float) -> float:
        """Bytes of a request of so many tokens."""
        return self.everywhere * tokens + self.windowed * min(tokens, self.window) + self.state

    def of_token(self, tokens: float) -> float:
        """Bytes a token of such a request, on the mean."""
        return self.of_request(tokens) / tokens

    @property
    def charged_in_full(self) -> float:
        """Bytes a token where the engine gives layers with a window as much as the others."""
        return self.everywhere + self.windowed


def key_values(model: Model, dtype: str = "bf16", tensor: int = 1) -> KeyValues:
    """What a request of a model keeps. Errors: SizingError where the shape does not tell, or the format is not known."""
    each = element_bytes(dtype)
    layers, a_layer, words = _of_a_layer(model)
    if model.window_layers > layers:
        raise SizingError(
            f"{model.name}: {model.window_layers} layers with a window of {layers} that keep keys and values; "
            "there cannot be more"
        )
    index = layers * model.index_bytes
    if index:
        words += f"; and {layers} · {model.index_bytes:g} B of an index"
    shards = 1 if model.is_mla else min(tensor, model.kv_heads or tensor)
    window = model.window or 0
    windowed = model.window_layers if window else 0
    return KeyValues(
        everywhere=(layers - windowed) * a_layer * each + index,
        windowed=windowed * a_layer * each,
        window=window,
        state=model.state_bytes,
        shards=shards,
        formula=f"{words} · {each:g} B",
    )


def kv_bytes_per_token(model: Model, dtype: str = "bf16") -> Quantity:
    """Over all layers and GPUs, every layer charged in full, as engines reserve and tables print it; bytes."""
    kept = key_values(model, dtype)
    return exact(kept.charged_in_full, "bytes", kept.formula, _LAYOUT)


def element_bytes(dtype: str) -> float:
    """Of one key or value. Errors: SizingError for a format that no engine keeps them in."""
    try:
        return KV_BYTES[dtype]
    except KeyError:
        raise SizingError(
            f"no engine keeps keys and values as {dtype}", f"there are {', '.join(KV_BYTES)}"
        ) from None


def kv_tokens(free_bytes_per_gpu: float, kept: KeyValues, length: float | None = None) -> Quantity:
    """Tokens that fit into so much of each GPU of a replica; each GPU holds ``1/shards`` of a token.

    With ``length`` layers with a window and states count as such requests need them, else every layer in full.
    """
    each = (kept.of_token(length) if length else kept.charged_in_full) / kept.shards
    if not each > 0:
        raise SizingError(
            "a model that keeps nothing of its tokens has no such limit", "name its KV heads and head size"
        )
    free = max(free_bytes_per_gpu, 0.0)
    words = f"{free / GIB:.2f} GiB / {each:,.0f} bytes a token and GPU"
    return Quantity(free / each, 0.98 * free / each, free / each, "tokens", words, _ENGINE)


def activation_bytes(model: Model, batched_tokens: float, tensor: int = 1) -> Quantity:
    """The most that one step's tensors take on a GPU: gate, up and their product, and three copies of the stream, at 16 bit.

    In a mixture a token is besides copied for each expert that it meets, on every GPU.
    vLLM's profile of Llama-3.1-8B grows by 109.7 kB a token (20,000 to 29,000); this says 110.6.
    """
    hidden = model.hidden or hidden_of(model)
    width = _step_width(model, hidden)
    copies = 3 + ((model.experts_active or 1) if model.experts else 0)
    each = 2.0 * (3.0 * width / tensor + copies * hidden)
    value = each * batched_tokens
    words = f"2·(3·{width:,.0f}/{tensor} + {copies}·{hidden:,}) bytes · {batched_tokens:,.0f} tokens a step"
    return Quantity(value, 0.9 * value, 1.4 * value, "bytes", words, _ENGINE)


def _step_width(model: Model, hidden: int) -> float:
    """Of the MLP that a token passes: in a mixture the experts that it meets."""
    width = float(model.ffn or 4 * hidden)
    return width * (model.experts_active or 1) if model.experts else width


def hidden_of(model: Model) -> int:
    """From parameters and layers, where nobody told: a layer has about 12 squares of it."""
    return round(math.sqrt(model.active_params / (12 * (model.layers or 32))))


def _of_a_layer(model: Model) -> tuple[int, float, str]:
    """Layers that keep anything, elements that each keeps of a token, and the words for both."""
    layers = model.kv_layers if model.kv_layers is not None else model.layers
    if layers is None:
        raise SizingError(
            f"{model.name}: how many layers keep keys and values is not known",
            "give --layers, or --kv-layers",
        )
    if layers == 0:
        return 0, 0.0, "no layer keeps keys and values"
    if model.latent_dim is not None:
        return layers, float(model.latent_dim), f"{layers} layers · {model.latent_dim} latent"
    if model.kv_heads and model.head_dim:
        words = f"2 · {layers} layers · {model.kv_heads} KV heads · {model.head_dim}"
        return layers, 2.0 * model.kv_heads * model.head_dim, words
    if not math.isnan(model.kv_bytes_per_token) and layers:
        each = model.kv_bytes_per_token / layers / 2.0
        return layers, each, f"{layers} layers · {each:g} as published"
    raise SizingError(
        f"{model.name}: what its attention keeps of a token is not known",
        "give --kv-heads and --head-dim, or a config.json",
    )
