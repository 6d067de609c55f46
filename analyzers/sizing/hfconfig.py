"""A model by its config.json as Hugging Face has them: shape, kinds of layers, and parameters counted from the shapes.

Known are the decoders of ``hf_families.toml``; of another ``model_type`` what its keys tell is read as they read it, if they tell
enough. What they do not tell is refused by the name of the key that is missing, never guessed. Towers that see or hear and
heads that predict further tokens are not counted. Pure but for reading the one file.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from coldaisle.analyzers.sizing.catalogue import FROM_CONFIG, Model
from coldaisle.analyzers.sizing.hfformat import SIXTEEN_BIT, stored_format
from coldaisle.analyzers.sizing.hfkeys import MOST_LAYERS, NAME_CELLS, Family, Keys, family_of, read_keys
from coldaisle.analyzers.sizing.kvcache import KV_BYTES
from coldaisle.analyzers.sizing.sheet import SizingError
from coldaisle.sources.text import plain

_LAYERS = ("num_hidden_layers", "n_layer", "n_layers", "num_layers")
_HIDDEN = ("hidden_size", "n_embd", "d_model", "model_dim")
_HEADS = ("num_attention_heads", "n_head", "n_heads", "num_heads")
_KV_HEADS = ("num_key_value_heads", "num_kv_heads", "n_head_kv", "kv_n_heads", "multi_query_group_num")
_FFN = ("intermediate_size", "ffn_hidden_size", "n_inner", "ffn_dim")
_VOCAB = ("vocab_size", "padded_vocab_size")
_EXPERTS = ("num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts")
_ACTIVE = (
    "num_experts_per_tok",
    "experts_per_token",
    "num_experts_per_token",
    "moe_k",
    "moe_topk",
    "moe_top_k",
)
_EXPERT_FFN = ("moe_intermediate_size", "expert_hidden_dim")
_SHARED_FFN = (
    "shared_expert_intermediate_size",
    "moe_shared_expert_intermediate_size",
    "shared_intermediate_size",
)
_OWN_WIDTH = ("first_k_dense_replace", "mlp_only_layers", "decoder_sparse_step", "n_routed_experts")
"""Where they are, dense layers and experts differ in width."""
_GATED = ("silu", "swish", "swiglu", "geglu", "swigluoai")
"""Activations that only gated MLPs use."""
_STRANGE = (
    "block_configs",
    "hybrid_layer_pattern",
    "ssm_cfg",
    "mamba2_config",
    "global_head_dim",
    "num_global_key_value_heads",
    "altup_num_inputs",
    "hidden_size_per_layer_input",
    "num_kv_shared_layers",
    "attn_res_block_size",
    "mla_use_output_gate",
    "routed_expert_hidden_size",
    "zero_expert_num",
    "block_types",
    "cross_layer_sharing",
    "parallel_attn_mlp_res",
    "share_q_dim",
    "num_key_value_heads_per_layer",
)
"""Keys of layers that are built in ways that are not counted here."""
_KIMI = "linear_attn_config"
"""Where Kimi-Linear keeps what concerns its linear attention, and which layers those are."""
_SHAPE_INSTEAD = "give its shape instead: --params, --layers, --kv-layers of them that keep keys and values, --kv-heads, --head-dim"
_ENCODERS = ("bert", "roberta", "electra", "deberta", "mpnet", "gte", "nomic", "clip", "siglip")
"""Parts of the ``model_type`` of models that read a text at once, as embeddings and rerankers do, and write none."""
_STATEFUL = ("mamba", "ssm", "rwkv", "lru")
"""Beginnings of keys of layers that keep a state."""
_WHICH = ("layer_types", "layers_block_type", "attn_layer_indices", "attn_layer_period")
"""Keys that tell which layers those are."""
_MAMBA2_HEADS = ("mamba_num_heads", "mamba_n_heads", "n_mamba_heads", "num_heads")
_PATTERN = {"M": "mamba", "*": "full", "-": "mlp", "E": "experts"}
"""Of Nemotron-H: a letter a layer, and a layer is a mixer or an MLP."""
_MLPS = ("mlp", "experts")
_KINDS = {
    "full_attention": "full",
    "attention": "full",
    "sliding_attention": "window",
    "chunked_attention": "window",
    "linear_attention": "linear",
    "conv": "conv",
    "mamba": "mamba",
    "hybrid": "both",
    "moe": "experts",
    "mlp": "mlp",
}


def model_from_config(path: str | Path) -> Model:
    """The model of a config.json, or of a folder that has one; bytes of what it keeps for KV caches of 16 bit.

    Errors: SizingError where it cannot be read, is of no decoder, or does not tell what is needed; the key is named.
    """
    keys = read_keys(Path(path))
    return _model(keys, _name(keys, Path(path)))


@dataclass(frozen=True, slots=True)
class _Attention:
    """Of one layer that attends: parameters, and what it keeps of a token."""

    params: int
    heads: int | None
    kv_heads: int | None
    head_dim: int | None
    latent: int | None
    words: str
    index_bytes: float = 0.0
    """Of a token, for choosing whom to attend to; whatever the format of keys and values."""
    score_dim: float | None = None
    """Of MLA: a head's width before its latent."""


@dataclass(frozen=True, slots=True)
class _Mlp:
    """Of one layer: parameters that every token meets, and of all routed experts."""

    always: int
    routed: int


@dataclass(frozen=True, slots=True)
class _Mixture:
    experts: int
    active: int
    width: int


def _model(keys: Keys, name: str) -> Model:
    family = _family(keys)
    layers, hidden = keys.needed("how deep it is", *_LAYERS), keys.needed("how wide it is", *_HIDDEN)
    if layers > MOST_LAYERS:
        raise SizingError(f"{keys.where}: {layers:,} layers; at most {MOST_LAYERS:,} are sized")
    vocab = keys.needed("how many words it knows", *_VOCAB)
    kinds, window = _kinds(keys, family, layers)
    each = Counter(kinds)
    attending, mamba = each["full"] + each["window"] + each["both"], each["mamba"] + each["both"]
    attention = _attention(keys, family, hidden) if attending else _NO_ATTENTION
    mixture = _mixture(keys)
    mlps = _mlps(keys, family, hidden, mixture, kinds)
    tied = keys.flag("tie_word_embeddings", keys.flag("tie_embedding", family.tied))
    mixing = (
        _shared_blocks(keys, hidden, attention, each["both"])
        if family.shared_blocks
        else attention.params * (attending + each["cross"])
    )
    if each["linear"]:
        mixing += _linear(keys, family, hidden)[0] * each["linear"]
    if mamba:
        mixing += _mamba(keys, family, hidden)[0] * mamba
    if each["conv"]:
        mixing += _short_convolution(keys, hidden)[0] * each["conv"]
    norms = hidden * (2 if family.norm_bias else 1) * (family.norms * layers + (1 if family.norms else 0))
    tables = vocab * hidden * (1 if tied else 2) + (vocab if family.head_bias else 0)
    if family.positions:
        places = ("max_position_embeddings", "n_positions")
        tables += hidden * keys.needed("how many positions it has learned", *places)
    always = mixing + norms + tables + sum(mlp.always for mlp in mlps)
    routed = sum(mlp.routed for mlp in mlps)
    active = always + (routed * mixture.active / mixture.experts if mixture else 0)
    stored = stored_format(keys)
    return Model(
        name=name,
        params=float(always + routed),
        active_params=float(active),
        layers=layers,
        kv_layers=attending,
        hidden=hidden,
        heads=attention.heads,
        kv_heads=attention.kv_heads,
        head_dim=attention.head_dim,
        ffn=mixture.width if mixture else _dense_width(keys, family, hidden),
        vocab=vocab,
        attention=_words(attention, each, mixture, window),
        window_layers=each["window"],
        window=window,
        experts=mixture.experts if mixture else None,
        experts_active=mixture.active if mixture else None,
        gated_ffn=family.gated,
        tied_embedding=tied,
        latent_dim=attention.latent,
        index_bytes=attention.index_bytes,
        score_dim=attention.score_dim,
        state_bytes=_state(keys, family, hidden, each),
        stored=stored or SIXTEEN_BIT,
        status=FROM_CONFIG,
        note="; ".join(_notes(keys, family, stored)),
    )


def _notes(keys: Keys, family: Family, stored: str) -> Iterator[str]:
    if family.shared_blocks:
        yield "a token meets its shared blocks several times: it computes more than its parameters tell"
    if keys.outer:
        yield "a tower that sees or hears is not counted"
    if not stored:
        yield "quantised in a way that is not known here: sized as if its weights had 16 bit, unless a format is told"


def _name(keys: Keys, path: Path) -> str:
    """What its maker called it, else the name of its folder or file."""
    told = (keys.word("_name_or_path") or "").rstrip("/").rpartition("/")[2]
    folder = path.name if path.is_dir() else path.parent.name
    own = folder if path.is_dir() or path.name == "config.json" else path.stem
    return plain(told or own or path.resolve().parent.name or "config.json", NAME_CELLS) or "config.json"


def _family(keys: Keys) -> Family:
    """What is built beside what the keys say. Errors: SizingError for what is no decoder, or not told enough."""
    kind = plain(keys.word("model_type"), NAME_CELLS)
    if keys.flag("is_encoder_decoder", False):
        raise SizingError(f"{keys.where}: {kind or 'this'} has an encoder; decoders alone are sized")
    if any(name in kind for name in _ENCODERS):
        raise SizingError(
            f"{keys.where}: {kind} is an encoder: it writes no tokens and keeps no keys and values",
            "decoders alone are sized",
        )
    for strange in _STRANGE:
        if keys.has(strange):
            raise SizingError(
                f"{keys.where}: {kind or 'its'} layers are built in a way that is not known here ({strange})",
                _SHAPE_INSTEAD,
            )
    known = family_of(keys)
    if keys.has(_KIMI) and (known is None or known.delta != "kimi"):
        raise SizingError(
            f"{keys.where}: {kind or 'its'} layers are built in a way that is not known here ({_KIMI})",
            _SHAPE_INSTEAD,
        )
    if known is not None:
        return known
    state = next((name for name in keys.own if name.startswith(_STATEFUL) and keys.has(name)), None)
    if state and not keys.has(*_WHICH):
        raise SizingError(
            f"{keys.where}: {kind or 'it'} keeps a state ({state}), and it does not tell in which layers",
            _SHAPE_INSTEAD,
        )
    act = keys.word("hidden_act", "hidden_activation", "activation_function", "hidden_activation_fn")
    if act not in _GATED:
        raise SizingError(
            f"{keys.where}: model_type {kind or '(absent)'} is not known, and hidden_act "
            f"{plain(act, NAME_CELLS) or '(absent)'} does not tell how its MLPs are built",
            _SHAPE_INSTEAD,
        )
    if not any("tie_word_embeddings" in told for told in (keys.own, keys.outer)):
        raise keys.missing("whether head and embedding are one table", "tie_word_embeddings")
    return Family(gated=True, window="late" if "use_sliding_window" in keys.own else "all")


# --- kinds of layers --------------------------------------------------------------------------------------------------


def _kinds(keys: Keys, family: Family, layers: int) -> tuple[list[str], int | None]:
    """Of each layer what it is, and the window, in tokens.

    ``full``, ``window``, ``linear``, ``mamba``, ``both`` (attention and Mamba), ``conv`` (a short convolution), ``cross`` (to a
    picture, no keys of the text), and where an MLP is a layer of its own ``mlp`` or ``experts``.
    """
    kinds = _listed(keys, layers) or _by_rule(keys, family, layers)
    if "window" not in kinds:
        return kinds, None
    window = keys.count("sliding_window", "attention_chunk_size")
    if not window:
        raise keys.missing("how far layers with a window see", "sliding_window")
    return kinds, window


def _listed(keys: Keys, layers: int) -> list[str] | None:
    """As ``layer_types`` (or ``layers_block_type``) has them, or a pattern of letters."""
    if pattern := keys.word("hybrid_override_pattern"):
        return _lettered(keys, pattern, layers)
    for name in ("layer_types", "layers_block_type"):
        told = keys.words(name)
        if told is None:
            continue
        if len(told) != layers:
            raise _other_length(keys, name, len(told), layers)
        strange = next((kind for kind in told if kind not in _KINDS), None)
        if strange is not None:
            raise SizingError(
                f"{keys.where}: {name}: layers of {plain(strange, 40)} are not known here", _SHAPE_INSTEAD
            )
        return [_KINDS[kind] for kind in told]
    return None


def _lettered(keys: Keys, pattern: str, layers: int) -> list[str]:
    if len(pattern) != layers:
        raise _other_length(keys, "hybrid_override_pattern", len(pattern), layers)
    strange = next((letter for letter in pattern if letter not in _PATTERN), None)
    if strange is not None:
        raise SizingError(
            f"{keys.where}: hybrid_override_pattern: layers of {plain(strange, 4)} are not known here",
            _SHAPE_INSTEAD,
        )
    return [_PATTERN[letter] for letter in pattern]


def _by_rule(keys: Keys, family: Family, layers: int) -> list[str]:
    if family.delta == "kimi":
        return _parted(keys.inside(_KIMI), layers)
    if (attending := keys.counts("full_attn_idxs")) is not None:
        return ["full" if index in attending else "conv" for index in range(layers)]
    if (attending := keys.counts("attn_layer_indices")) is not None:
        return ["full" if index in attending else "mamba" for index in range(layers)]
    if period := keys.count("attn_layer_period"):
        offset = keys.count("attn_layer_offset") or 0
        return ["full" if index % period == offset else "mamba" for index in range(layers)]
    if period := keys.count("full_attention_interval"):
        return ["linear" if (index + 1) % period else "full" for index in range(layers)]
    if (told := keys.counts("attn_type_list")) is not None:
        if len(told) != layers:
            raise _other_length(keys, "attn_type_list", len(told), layers)
        return ["full" if kind else "linear" for kind in told]
    if family.shared_blocks:
        sharing = keys.counts("hybrid_layer_ids")
        if sharing is None:
            raise keys.missing("which layers attend", "layers_block_type", "hybrid_layer_ids")
        return ["both" if index in sharing else "mamba" for index in range(layers)]
    if family.layer:
        return [family.layer] * layers
    if (across := keys.counts("cross_attention_layers")) is not None:
        return ["cross" if index in across else "full" for index in range(layers)]
    return _windowed(keys, family, layers)


def _parted(keys: Keys, layers: int) -> list[str]:
    """Kimi-Linear: two lists of layers, the first of which is 1, that together are all of them."""
    attending, linear = keys.counts("full_attn_layers"), keys.counts("kda_layers")
    if attending is None or linear is None:
        raise keys.missing("which layers attend", "full_attn_layers" if attending is None else "kda_layers")
    if sorted((*attending, *linear)) != list(range(1, layers + 1)):
        raise SizingError(
            f"{keys.where}: full_attn_layers and kda_layers are not each of the {layers} layers once",
            "both lists together have to name every layer, from 1 on",
        )
    return ["full" if index in attending else "linear" for index in range(1, layers + 1)]


def _other_length(keys: Keys, name: str, told: int, layers: int) -> SizingError:
    return SizingError(
        f"{keys.where}: {name} has {told} layers, and there are {layers}", "both have to tell the same"
    )


def _windowed(keys: Keys, family: Family, layers: int) -> list[str]:
    """Layers with a window where no list tells."""
    rule = family.window
    if rule == "chunked":
        every = keys.count("no_rope_layer_interval") or layers + 1
        return ["window" if (index + 1) % every else "full" for index in range(layers)]
    if rule == "none" or not keys.count("sliding_window"):
        return ["full"] * layers
    if rule == "late":
        if not keys.flag("use_sliding_window", False):
            return ["full"] * layers
        first = min(keys.needed("from which layer on there is a window", "max_window_layers"), layers)
        return ["full"] * first + ["window"] * (layers - first)
    if rule == "alternate":
        return ["full" if index % 2 else "window" for index in range(layers)]
    if rule == "pattern":
        period = keys.needed(
            "how many layers have a window", "sliding_window_pattern", "_sliding_window_pattern"
        )
        return ["window" if (index + 1) % period else "full" for index in range(layers)]
    return ["window"] * layers


# --- attention --------------------------------------------------------------------------------------------------------


def _attention(keys: Keys, family: Family, hidden: int) -> _Attention:
    heads = keys.needed("how many heads it has", *_HEADS)
    if keys.count("kv_lora_rank"):
        return _latent(keys, hidden, heads)
    kv_heads = _kv_heads(keys, heads)
    head_dim = keys.count("head_dim", "attention_head_dim", "kv_channels") or _even(
        keys, hidden * (2 if family.shared_blocks else 1), heads
    )
    wide, narrow = heads * head_dim, kv_heads * head_dim
    params = hidden * (wide * (2 if family.output_gate else 1) + 2 * narrow) + wide * hidden
    all_biased = family.bias or keys.flag("bias", False) or keys.flag("attention_bias", family.attention_bias)
    if all_biased or family.qkv_bias:
        params += wide + 2 * narrow
    if all_biased:
        params += hidden
    if family.qk_norm:
        params += 2 * head_dim
    if family.qk_norm_wide:
        params += wide + narrow
    if family.sinks:
        params += heads
    words = "MHA" if kv_heads == heads else "MQA" if kv_heads == 1 else "GQA"
    return _Attention(params, heads, kv_heads, head_dim, None, words)


_INDEX_SCALE = 4.0
_NO_ATTENTION = _Attention(0, None, None, None, None, "no attention")


def _shared_blocks(keys: Keys, hidden: int, attention: _Attention, layers: int) -> int:
    """Zamba 2: blocks of attention and MLP that layers share, with adapters and a projection of each layer's own.

    They read the stream beside the embedding, twice as wide as the model.
    """
    what = "the blocks that its layers share"
    blocks, width = keys.needed(what, "num_mem_blocks"), keys.needed(what, *_FFN)
    wide = (attention.heads or 0) * (attention.head_dim or 0)
    shared = 3 * 2 * hidden * wide + wide * hidden + 3 * hidden * width + 3 * hidden
    own = hidden * hidden
    if keys.flag("use_shared_mlp_adapter", True):
        own += keys.needed(what, "adapter_rank") * (hidden + 2 * width)
    if keys.flag("use_shared_attention_adapter", False):
        own += keys.needed(what, "adapter_rank") * 3 * (2 * hidden + wide)
    return blocks * shared + layers * own


def _latent(keys: Keys, hidden: int, heads: int) -> _Attention:
    """MLA: keys and values are made of one latent a token, queries often of another."""
    rank, rope = keys.needed("its latent", "kv_lora_rank"), keys.needed("its latent", "qk_rope_head_dim")
    nope, value = keys.needed("its heads", "qk_nope_head_dim"), keys.needed("its heads", "v_head_dim")
    queries = heads * (nope + rope)
    if query := keys.count("q_lora_rank"):
        params = hidden * query + query + query * queries
    elif keys.count("q_lora_rank") is None and "q_lora_rank" not in keys.own:
        raise keys.missing("whether its queries have a latent", "q_lora_rank")
    else:
        params = hidden * queries
    params += hidden * (rank + rope) + rank + rank * heads * (nope + value) + heads * value * hidden
    index = keys.count("index_head_dim") or 0
    if index:  # DeepSeek-V3.2: a small head, its keys kept at 8 bit with a scale, chooses whom to attend to
        choosers = keys.needed("how it chooses tokens", "index_n_heads")
        params += (query or hidden) * choosers * index + hidden * (index + choosers) + 2 * index
    kept = index + _INDEX_SCALE if index else 0.0
    words, kept_dim = f"MLA: {rank} latent + {rope} rope", rank + rope
    return _Attention(params, heads, 1, kept_dim, kept_dim, words, kept, (nope + rope + value) / 2)


def _kv_heads(keys: Keys, heads: int) -> int:
    if keys.flag("multi_query", False) and not keys.flag("new_decoder_architecture", False):
        return 1  # Falcon 7B names as many KV heads as heads beside it
    return keys.count(*_KV_HEADS) or heads


def _even(keys: Keys, hidden: int, heads: int) -> int:
    if hidden % heads:
        raise keys.missing(f"the size of its heads ({hidden} over {heads} is no whole number)", "head_dim")
    return hidden // heads


# --- layers that keep a state -----------------------------------------------------------------------------------------


def _delta(keys: Keys, hidden: int) -> tuple[int, float]:
    """Gated delta net: parameters of a layer, and bytes that it keeps of a request."""
    key_heads = keys.needed("its linear attention", "linear_num_key_heads")
    value_heads = keys.needed("its linear attention", "linear_num_value_heads")
    key_dim = keys.needed("its linear attention", "linear_key_head_dim")
    value_dim = keys.needed("its linear attention", "linear_value_head_dim")
    taps = keys.needed("its linear attention", "linear_conv_kernel_dim")
    key, value = key_heads * key_dim, value_heads * value_dim
    mixed = 2 * key + value
    params = hidden * (2 * key + 2 * value + 2 * value_heads) + mixed * taps + value * hidden
    params += 2 * value_heads + value_dim
    return params, value_heads * key_dim * value_dim * _state_element(keys) + mixed * (taps - 1) * 2.0


def _kimi_delta(keys: Keys, hidden: int) -> tuple[int, float]:
    """Kimi delta attention: the same with a gate of each channel, made in two narrow steps, as is the one of the output."""
    what = "its linear attention"
    heads, size = keys.needed(what, "num_heads"), keys.needed(what, "head_dim")
    taps = keys.needed(what, "short_conv_kernel_size")
    wide = heads * size
    gates = 2 * (hidden * size + size * wide) + hidden * heads
    params = 4 * hidden * wide + 3 * wide * taps + gates + heads + wide + size
    return params, wide * size * KV_BYTES["fp32"] + 3 * wide * (taps - 1) * 2.0


def _short_convolution(keys: Keys, hidden: int) -> tuple[int, float]:
    """LFM2: a gated convolution over few tokens; parameters of a layer, and bytes that it keeps of a request."""
    taps = keys.needed("its convolutions", "conv_L_cache")
    biases = 5 * hidden if keys.flag("conv_bias", False) else 0
    return 4 * hidden * hidden + hidden * taps + biases, hidden * (taps - 1) * 2.0


def _linear(keys: Keys, family: Family, hidden: int) -> tuple[int, float]:
    """Attention without keys: parameters of a layer, and bytes that it keeps of a request."""
    if family.delta == "kimi":
        return _kimi_delta(keys.inside(_KIMI), hidden)
    if not family.lightning:
        return _delta(keys, hidden)
    heads = keys.needed("its linear attention", *_HEADS)
    size = keys.count("head_dim") or _even(keys, hidden, heads)
    wide = heads * size
    return hidden * 5 * wide + wide, wide * size * _state_element(keys)


def _mamba(keys: Keys, family: Family, hidden: int) -> tuple[int, float]:
    """Mamba: parameters of a layer, and bytes that it keeps of a request."""
    if keys.count(*_MAMBA2_HEADS):
        return _mamba2(keys, hidden)
    what = "its Mamba layers"
    told = None if family.mlp else keys.count("intermediate_size")
    inner = told or hidden * keys.needed(what, "mamba_expand", "expand")
    state = keys.needed(what, "mamba_d_state", "state_size")
    taps = keys.needed(what, "mamba_d_conv", "conv_kernel")
    rank = keys.count("mamba_dt_rank", "time_step_rank") or -(-hidden // 16)
    params = hidden * 2 * inner + inner * (taps + 1) + inner * (rank + 2 * state) + rank * inner + inner
    params += inner * state + inner + inner * hidden + rank + 2 * state
    return params, inner * state * _state_element(keys) + inner * (taps - 1) * 2.0


def _mamba2(keys: Keys, hidden: int) -> tuple[int, float]:
    """The same of Mamba 2, whose heads share states by groups."""
    what = "its Mamba layers"
    heads = keys.needed(what, *_MAMBA2_HEADS)
    size = keys.needed(what, "mamba_head_dim", "mamba_d_head", "mamba_headdim", "head_dim")
    state = keys.needed(what, "ssm_state_size", "mamba_d_state", "state_size")
    taps = keys.needed(what, "conv_kernel", "mamba_d_conv")
    groups = keys.count("n_groups", "mamba_n_groups", "mamba_ngroups") or 1
    inner = heads * size
    mixed = inner + 2 * groups * state
    params = hidden * (inner + mixed + heads) + mixed * (taps + 1) + 3 * heads + inner + inner * hidden
    return params, inner * state * _state_element(keys) + mixed * (taps - 1) * 2.0


def _state_element(keys: Keys) -> float:
    """Bytes of an element of a state: it sums over all tokens, so that engines keep it at 32 bit unless told otherwise."""
    told = {"bfloat16": "bf16", "float16": "fp16"}.get(keys.word("mamba_ssm_dtype"), "fp32")
    return KV_BYTES[told]


def _state(keys: Keys, family: Family, hidden: int, each: Counter[str]) -> float:
    states = 0.0
    if each["linear"]:
        states += each["linear"] * _linear(keys, family, hidden)[1]
    if mamba := each["mamba"] + each["both"]:
        states += mamba * _mamba(keys, family, hidden)[1]
    if each["conv"]:
        states += each["conv"] * _short_convolution(keys, hidden)[1]
    return states


# --- MLPs -------------------------------------------------------------------------------------------------------------


def _mixture(keys: Keys) -> _Mixture | None:
    experts = keys.count(*_EXPERTS)
    if not experts or experts == 1:
        return None
    active = keys.needed("how many experts a token meets", *_ACTIVE)
    if active > experts:
        raise SizingError(
            f"{keys.where}: {active} of {experts} experts a token; it meets no more than there are"
        )
    width = keys.count(*_EXPERT_FFN)
    if width is None and any(name in keys.own or name in keys.defaults for name in _OWN_WIDTH):
        raise keys.missing("how wide its experts are", *_EXPERT_FFN)
    return _Mixture(experts, active, width or keys.needed("how wide its experts are", *_FFN))


def _mlps(
    keys: Keys, family: Family, hidden: int, mixture: _Mixture | None, kinds: Sequence[str]
) -> list[_Mlp]:
    """Of all layers that have one: each, unless it is a layer of its own."""
    if not family.mlp:
        return []
    if any(kind in _MLPS for kind in kinds):
        return [_mlp(keys, family, hidden, mixture, kind == "experts") for kind in kinds if kind in _MLPS]
    return [_mlp(keys, family, hidden, mixture, sparse) for sparse in _sparse(keys, len(kinds), mixture)]


def _sparse(keys: Keys, layers: int, mixture: _Mixture | None) -> Sequence[bool]:
    """Of each layer whether its MLP is a mixture."""
    if mixture is None:
        return [False] * layers
    dense_first = keys.count("first_k_dense_replace", "moe_layer_start_index", "num_dense_layers") or 0
    every = keys.count("moe_layer_freq", "interleave_moe_layer_step", "moe_layer_interval") or 1
    step = keys.count("decoder_sparse_step")
    period, offset = keys.count("expert_layer_period"), keys.count("expert_layer_offset") or 0
    never = set(keys.counts("mlp_only_layers") or ())

    def has_experts(index: int) -> bool:
        if period:
            return index % period == offset
        if step is not None:
            return step > 0 and (index + 1) % step == 0 and index not in never
        if "interleave_moe_layer_step" in keys.own or "interleave_moe_layer_step" in keys.defaults:
            return (index + 1) % every == 0
        return index >= dense_first and index % every == 0

    return [has_experts(index) for index in range(layers)]


def _mlp(keys: Keys, family: Family, hidden: int, mixture: _Mixture | None, sparse: bool) -> _Mlp:
    if mixture is None or not sparse:
        width = keys.count("intermediate_size_mlp", "shared_intermediate_size") or _dense_width(
            keys, family, hidden
        )
        biased = family.bias or keys.flag("bias", False) or keys.flag("mlp_bias", False)
        return _Mlp(_matrices(family, hidden, width, biased), 0)
    narrow = keys.count("moe_latent_size")  # Nemotron-3: experts see a projection of the stream
    routed = mixture.experts * _matrices(family, narrow or hidden, mixture.width, family.expert_bias)
    router = hidden * mixture.experts + (mixture.experts if family.router_bias else 0)
    router += 2 * hidden * narrow if narrow else 0
    shared = (
        keys.count("n_shared_experts", "num_shared_experts", "num_shared_expert", "moe_num_shared_experts")
        or family.shared_experts
    )
    beside = keys.count(*_SHARED_FFN) or shared * mixture.width
    always = (
        router + _matrices(family, hidden, beside, False) + (hidden if family.shared_gate and beside else 0)
    )
    return _Mlp(always, routed)


def _matrices(family: Family, hidden: int, width: int, biased: bool) -> int:
    """Of an MLP so wide: up and down, and a gate."""
    count = 3 if family.gated else 2
    biases = (count - 1) * width + hidden if biased else 0
    return count * hidden * width + biases


def _dense_width(keys: Keys, family: Family, hidden: int) -> int:
    if family.auto_ffn:
        return _adjusted(keys)
    found = keys.count(*_FFN)
    if not found and family.layer == "mamba":
        return hidden * keys.needed("how wide its layers are", "expand")
    if not found and family.ffn_factor:
        return family.ffn_factor * hidden
    return found or keys.needed("how wide its MLPs are", *_FFN)


def _adjusted(keys: Keys) -> int:
    """LFM2: two thirds of what is told, rounded up, unless that is switched off."""
    width = keys.needed("how wide its MLPs are", "block_ff_dim", "intermediate_size")
    if not keys.flag("block_auto_adjust_ff_dim", True):
        return width
    multiple = keys.needed("how wide its MLPs are", "block_multiple_of")
    return -(-int(2 * width / 3 * keys.ratio("block_ffn_dim_multiplier", 1.0)) // multiple) * multiple


def _words(attention: _Attention, each: Counter[str], mixture: _Mixture | None, window: int | None) -> str:
    words = attention.words + (" MoE" if mixture and attention.latent is None else "")
    attending = each["full"] + each["window"] + each["both"]
    if each["window"]:
        words += f", {each['window']} of {attending} layers sliding {window}"
    others = each["linear"] + each["mamba"] + each["conv"]
    words += f", {each['both']} of them beside a state" if each["both"] else ""
    return words + (f", {others} more layers keep a state" if others else "")
