"""Models by their config.json: minimal ones of our own, with the shapes and figures that their makers publish."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from coldaisle.analyzers.sizing.catalogue import Model, model_named, part_named
from coldaisle.analyzers.sizing.hfconfig import model_from_config
from coldaisle.analyzers.sizing.hfkeys import MOST_BYTES, families
from coldaisle.analyzers.sizing.kvcache import key_values, kv_bytes_per_token
from coldaisle.analyzers.sizing.serving_request import Request
from coldaisle.analyzers.sizing.sheet import SizingError
from coldaisle.analyzers.sizing.tasks import Place, Service

Config = dict[str, Any]


def shape(kind: str, layers: int, hidden: int, heads: int, ffn: int, vocab: int, **more: Any) -> Config:
    return {
        "model_type": kind,
        "num_hidden_layers": layers,
        "hidden_size": hidden,
        "num_attention_heads": heads,
        "intermediate_size": ffn,
        "vocab_size": vocab,
        **more,
    }


LLAMA_8B = shape("llama", 32, 4096, 32, 14336, 128256, num_key_value_heads=8, tie_word_embeddings=False)
MLA: Config = {"kv_lora_rank": 512, "qk_nope_head_dim": 128, "qk_rope_head_dim": 64, "v_head_dim": 128}
CONFIGS: dict[str, Config] = {
    "Llama-2-7B": shape("llama", 32, 4096, 32, 11008, 32000),
    "Llama-2-70B": shape("llama", 80, 8192, 64, 28672, 32000, num_key_value_heads=8),
    "Llama-3.x-8B": LLAMA_8B,
    "Llama-3.x-70B": shape("llama", 80, 8192, 64, 28672, 128256, num_key_value_heads=8),
    "Llama-3.1-405B": shape("llama", 126, 16384, 128, 53248, 128256, num_key_value_heads=8),
    "Qwen3-14B": shape("qwen3", 40, 5120, 40, 17408, 151936, num_key_value_heads=8, head_dim=128),
    "Qwen3-235B-A22B": shape(
        "qwen3_moe", 94, 4096, 64, 12288, 151936, num_key_value_heads=4, head_dim=128,
        num_experts=128, num_experts_per_tok=8, moe_intermediate_size=1536, mlp_only_layers=[],
    ),
    "gpt-oss-120b": shape(
        "gpt_oss", 36, 2880, 64, 2880, 201088, num_key_value_heads=8, head_dim=64,
        num_local_experts=128, experts_per_token=4, sliding_window=128,
    ),
    "DeepSeek-V3/R1": shape(
        "deepseek_v3", 61, 7168, 128, 18432, 129280, q_lora_rank=1536, **MLA,
        n_routed_experts=256, n_shared_experts=1, num_experts_per_tok=8, moe_intermediate_size=2048,
        first_k_dense_replace=3,
    ),
    "Mixtral-8x7B": shape(
        "mixtral", 32, 4096, 32, 14336, 32000, num_key_value_heads=8, sliding_window=None,
        num_local_experts=8, num_experts_per_tok=2,
    ),
    "GPT-3 175B": {
        "model_type": "gpt2", "n_layer": 96, "n_embd": 12288, "n_head": 96, "vocab_size": 50257, "n_positions": 2048,
    },
}  # fmt: skip
GEMMA3_27B = {
    "model_type": "gemma3",
    "text_config": {
        "model_type": "gemma3_text", "num_hidden_layers": 62, "hidden_size": 5376, "intermediate_size": 21504,
        "num_attention_heads": 32, "num_key_value_heads": 16, "head_dim": 128, "sliding_window": 1024,
    },
}  # fmt: skip
QWEN3_NEXT = shape(
    "qwen3_next", 48, 2048, 16, 5120, 151936, num_key_value_heads=2, head_dim=256, num_experts=512, num_experts_per_tok=10,
    moe_intermediate_size=512, shared_expert_intermediate_size=512, linear_num_key_heads=16, linear_num_value_heads=32,
    linear_key_head_dim=128, linear_value_head_dim=128,
)  # fmt: skip
JAMBA = shape("jamba", 32, 4096, 32, 14336, 65536, mamba_dt_rank=256)
PUBLISHED = [
    (GEMMA3_27B, 27.01, 27.01),
    (shape("gemma2", 42, 3584, 16, 14336, 256000, num_key_value_heads=8), 9.24, 9.24),
    (shape("mistral", 32, 4096, 32, 14336, 32000), 7.24, 7.24),
    (shape("qwen2", 28, 3584, 28, 18944, 152064, num_key_value_heads=4), 7.62, 7.62),
    (shape("qwen2", 24, 896, 14, 4864, 151936, num_key_value_heads=2, tie_word_embeddings=True), 0.494, 0.494),
    (shape("phi", 32, 2560, 32, 10240, 51200), 2.78, 2.78),
    (shape("phi3", 32, 3072, 32, 8192, 32064), 3.82, 3.82),
    (shape("gpt_neox", 44, 6144, 64, 24576, 50432), 20.55, 20.55),
    (shape("falcon", 60, 8192, 128, 32768, 65024, num_kv_heads=8, new_decoder_architecture=True), 41.3, 41.3),
    (QWEN3_NEXT, 79.67, 3.87),
    (JAMBA, 51.57, 12.11),
    (
        shape(
            "deepseek_v2", 27, 2048, 16, 10944, 102400, q_lora_rank=None, **MLA, n_routed_experts=64,
            n_shared_experts=2, num_experts_per_tok=6, moe_intermediate_size=1408, first_k_dense_replace=1,
        ),
        15.71, 2.66,
    ),
    (
        shape(
            "llama4_text", 48, 5120, 40, 8192, 202048, num_key_value_heads=8, head_dim=128,
            intermediate_size_mlp=16384, num_local_experts=16,
        ),
        107.77, 17.17,
    ),
]  # fmt: skip


def read(folder: Path, config: Config) -> Model:
    file = folder / "config.json"
    file.write_text(json.dumps(config), encoding="utf-8")
    return model_from_config(file)


@pytest.mark.parametrize("name", CONFIGS)
def test_known_models_have_their_parameters_and_keep_what_the_catalogue_says(
    tmp_path: Path, name: str
) -> None:
    model, known = read(tmp_path, CONFIGS[name]), model_named(name)
    table = known.embedding_params if name.startswith("gpt-oss") else 0.0  # its makers leave one out
    assert model.params == pytest.approx(known.params, rel=0.01)
    assert model.active_params - table == pytest.approx(known.active_params, rel=0.02)
    assert kv_bytes_per_token(model).value == known.kv_bytes_per_token
    assert (model.window_layers, model.window) == (known.window_layers, known.window)
    assert (model.kv_layers, model.latent_dim) == (known.kv_layers, known.latent_dim)
    assert (model.experts, model.experts_active) == (known.experts, known.experts_active)
    assert model.gated_ffn == known.gated_ffn


@pytest.mark.parametrize(
    ("config", "total", "active"), PUBLISHED, ids=[row[0]["model_type"] for row in PUBLISHED]
)
def test_published_parameters(tmp_path: Path, config: Config, total: float, active: float) -> None:
    model = read(tmp_path, config)
    assert model.params / 1e9 == pytest.approx(total, rel=0.005)
    assert model.active_params / 1e9 == pytest.approx(active, rel=0.01)


def test_local_layers_are_counted(tmp_path: Path) -> None:
    assert read(tmp_path, GEMMA3_27B).window_layers == 52
    assert read(tmp_path, PUBLISHED[1][0]).window_layers == 21
    mistral = read(tmp_path, PUBLISHED[2][0])
    assert (mistral.window_layers, mistral.window) == (32, 4096)
    assert read(tmp_path, {**PUBLISHED[2][0], "sliding_window": None}).window is None
    assert (
        read(tmp_path, {**PUBLISHED[3][0], "sliding_window": 4096, "use_sliding_window": False}).window
        is None
    )


def test_a_list_of_layers_goes_before_the_rule_of_a_family(tmp_path: Path) -> None:
    kinds = ["sliding_attention", "full_attention"] * 16
    model = read(tmp_path, {**LLAMA_8B, "layer_types": kinds, "sliding_window": 512})
    assert (model.window_layers, model.window) == (16, 512)


def test_hybrids_keep_a_state_however_long_a_request_is(tmp_path: Path) -> None:
    model = read(tmp_path, QWEN3_NEXT)
    assert (model.layers, model.kv_layers) == (48, 12)
    kept = key_values(model)
    assert kept.everywhere == 12 * 2 * 2 * 256 * 2
    # 36 layers of 32 heads of 128 by 128 at 32 bit, and three tokens before a convolution over 8,192
    assert kept.state == 36 * (32 * 128 * 128 * 4 + 3 * 8192 * 2)
    jamba = read(tmp_path, JAMBA)
    assert jamba.kv_layers == 4
    assert jamba.state_bytes == 28 * (8192 * 16 * 4 + 3 * 8192 * 2)


def test_falcon_with_one_head_for_all(tmp_path: Path) -> None:
    model = read(
        tmp_path,
        {"model_type": "falcon", "num_hidden_layers": 32, "hidden_size": 4544, "num_attention_heads": 71,
         "num_kv_heads": 71, "multi_query": True, "vocab_size": 65024},
    )  # fmt: skip
    assert model.kv_heads == 1
    assert model.params / 1e9 == pytest.approx(6.92, rel=0.005)


def test_what_is_not_known_is_read_where_its_keys_tell_enough(tmp_path: Path) -> None:
    told = {**LLAMA_8B, "model_type": "made_up", "hidden_act": "silu"}
    assert read(tmp_path, told).params == read(tmp_path, LLAMA_8B).params


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({}, "model_type"),
        ({"model_type": "made_up"}, "made_up is not known"),
        ({**LLAMA_8B, "model_type": "made_up", "hidden_act": "gelu"}, "does not tell how its MLPs"),
        (
            {key: value for key, value in LLAMA_8B.items() if key != "tie_word_embeddings"}
            | {"model_type": "made_up", "hidden_act": "silu"},
            "tie_word_embeddings",
        ),
        ({**LLAMA_8B, "hidden_size": None}, "no hidden_size"),
        ({**LLAMA_8B, "hidden_size": 0}, "hidden_size is 0"),
        ({**LLAMA_8B, "hidden_size": -1}, "hidden_size"),
        ({**LLAMA_8B, "hidden_size": "4096"}, "hidden_size"),
        ({**LLAMA_8B, "hidden_size": 10**12}, "hidden_size"),
        ({**LLAMA_8B, "hidden_size": True}, "hidden_size"),
        ({**LLAMA_8B, "hidden_size": 4095}, "head_dim"),
        ({**LLAMA_8B, "num_key_value_heads": 5}, "32 heads do not divide over 5"),
        ({**LLAMA_8B, "num_hidden_layers": 10**8}, "at most 10,000"),
        ({**LLAMA_8B, "intermediate_size": [1, 2]}, "intermediate_size"),
        ({**LLAMA_8B, "layer_types": ["full_attention"]}, "layer_types has 1 layers"),
        ({**LLAMA_8B, "layer_types": ["\x1b[31m"] * 32}, "not known here"),
        ({**LLAMA_8B, "layer_types": ["sliding_attention"] * 32}, "sliding_window"),
        ({**LLAMA_8B, "is_encoder_decoder": True}, "encoder"),
        ({**LLAMA_8B, "hybrid_override_pattern": "M-M*"}, "hybrid_override_pattern has 4 layers"),
        ({**LLAMA_8B, "hybrid_override_pattern": "MX" * 16}, "layers of X are not known"),
        ({**LLAMA_8B, "linear_attn_config": {"num_heads": 32}}, "linear_attn_config"),
        ({**LLAMA_8B, "attn_type_list": [1]}, "attn_type_list has 1 layers"),
        ({**LLAMA_8B, "num_key_value_heads": [8, 4]}, "differs from layer to layer"),
        ({**LLAMA_8B, "model_type": "xlm-roberta"}, "is an encoder"),
        ({**CONFIGS["Mixtral-8x7B"], "num_experts_per_tok": 9}, "9 of 8 experts"),
        ({**CONFIGS["Qwen3-235B-A22B"], "moe_intermediate_size": None}, "moe_intermediate_size"),
        ({**CONFIGS["DeepSeek-V3/R1"], "v_head_dim": None}, "v_head_dim"),
        ({**QWEN3_NEXT, "linear_num_key_heads": None}, "linear_num_key_heads"),
    ],
)  # fmt: skip
def test_what_cannot_be_told_is_refused_by_its_key(tmp_path: Path, config: Config, words: str) -> None:
    with pytest.raises(SizingError) as caught:
        read(tmp_path, config)
    assert words in str(caught.value)
    assert "\x1b" not in str(caught.value)


NEMOTRON_H_8B: Config = {
    "model_type": "nemotron_h", "hidden_size": 4096, "intermediate_size": 21504, "num_hidden_layers": 52,
    "hybrid_override_pattern": "M-M-M-M*-M-M-M-M-M*-M-M-M-M-M*-M-M-M-M-M*-M-M-M-M-M-", "num_attention_heads": 32,
    "num_key_value_heads": 8, "attention_head_dim": 128, "mamba_num_heads": 128, "mamba_head_dim": 64, "ssm_state_size": 128,
    "n_groups": 8, "conv_kernel": 4, "vocab_size": 131072, "tie_word_embeddings": False,
}  # fmt: skip
BAMBA_9B: Config = {
    "model_type": "bamba", "hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32, "attn_layer_indices": [9, 18, 27],
    "num_attention_heads": 32, "num_key_value_heads": 8, "mamba_n_heads": 128, "mamba_d_head": 64, "mamba_d_state": 256,
    "mamba_n_groups": 1, "mamba_d_conv": 4, "mamba_expand": 2, "vocab_size": 128256, "tie_word_embeddings": False,
}  # fmt: skip
GRANITE_4_H_TINY: Config = {
    "model_type": "granitemoehybrid", "hidden_size": 1536, "intermediate_size": 512, "shared_intermediate_size": 1024,
    "num_hidden_layers": 40, "layer_types": (["mamba"] * 5 + ["attention"] + ["mamba"] * 4) * 4, "num_attention_heads": 12,
    "num_key_value_heads": 4, "num_local_experts": 64, "num_experts_per_tok": 6, "mamba_n_heads": 48, "mamba_d_head": 64,
    "mamba_d_state": 128, "mamba_n_groups": 1, "mamba_d_conv": 4, "mamba_expand": 2, "vocab_size": 100352,
    "tie_word_embeddings": True,
}  # fmt: skip


@pytest.mark.parametrize(
    ("config", "params", "active", "attending", "state"),
    [
        pytest.param(NEMOTRON_H_8B, 8.10e9, 8.10e9, 4, 24 * (128 * 64 * 128 * 4 + 10240 * 3 * 2), id="Nemotron-H-8B"),
        pytest.param(BAMBA_9B, 9.78e9, 9.78e9, 3, 29 * (128 * 64 * 256 * 4 + 8704 * 3 * 2), id="Bamba-9B"),
        pytest.param(GRANITE_4_H_TINY, 6.94e9, 1.47e9, 4, 36 * (48 * 64 * 128 * 4 + 3328 * 3 * 2), id="Granite-4.0-H-Tiny"),
    ],
)  # fmt: skip
def test_hybrids_of_mamba_2(
    tmp_path: Path, config: Config, params: float, active: float, attending: int, state: float
) -> None:
    """Parameters as published; the active ones of Granite with its embedding and its shared expert."""
    model = read(tmp_path, config)
    assert model.params == pytest.approx(params, rel=0.005)
    assert model.active_params == pytest.approx(active, rel=0.02)
    assert model.kv_layers == attending
    assert model.state_bytes == state


MAMBA_2 = {"mamba_d_conv": 4, "mamba_n_groups": 1}
ZAMBA: Config = {
    "mamba_d_conv": 4, "mamba_headdim": 64, "num_key_value_heads": 32, "adapter_rank": 128, "use_shared_mlp_adapter": True,
}  # fmt: skip
KIMI_ATTENDS = [4, 8, 12, 16, 20, 24, 27]
KIMI_LINEAR: Config = shape(
    "kimi_linear", 27, 2304, 32, 9216, 163840, num_key_value_heads=32, head_dim=72, q_lora_rank=None, **MLA, num_experts=256,
    num_experts_per_token=8, moe_intermediate_size=1024, num_shared_experts=1, first_k_dense_replace=1, tie_word_embeddings=False,
    linear_attn_config={"head_dim": 128, "num_heads": 32, "short_conv_kernel_size": 4, "full_attn_layers": KIMI_ATTENDS,
                        "kda_layers": [layer for layer in range(1, 28) if layer not in KIMI_ATTENDS]},
)  # fmt: skip
LFM2: Config = {
    "model_type": "lfm2", "hidden_size": 2048, "num_attention_heads": 32, "num_hidden_layers": 16, "num_key_value_heads": 8,
    "block_auto_adjust_ff_dim": True, "block_ff_dim": 12288, "block_ffn_dim_multiplier": 1.0, "block_multiple_of": 256,
    "conv_L_cache": 3, "conv_bias": False, "vocab_size": 65536, "intermediate_size": 12288, "tie_embedding": True,
    "layer_types": ["full_attention" if index in (2, 5, 8, 10, 12, 14) else "conv" for index in range(16)],
}  # fmt: skip
LLAVA: Config = {
    "model_type": "llava", "tie_word_embeddings": False,
    "text_config": {"model_type": "llama", "max_position_embeddings": 4096, "vocab_size": 32064},
    "vision_config": {"hidden_size": 1024, "num_hidden_layers": 24, "intermediate_size": 4096, "vocab_size": 32000},
}  # fmt: skip
KINDS = [
    (KIMI_LINEAR, 49.12, 3.5, 7 * 576 * 2, 20 * (32 * 128 * 128 * 4 + 3 * 4096 * 3 * 2)),
    (LFM2, 1.17, 1.17, 6 * 2 * 8 * 64 * 2, 10 * 2048 * 2 * 2),
    (
        {"model_type": "lfm2_moe", "hidden_size": 2048, "intermediate_size": 7168, "moe_intermediate_size": 1792,
         "num_attention_heads": 32, "num_dense_layers": 2, "num_experts": 32, "num_experts_per_tok": 4, "num_hidden_layers": 24,
         "num_key_value_heads": 8, "use_expert_bias": True, "vocab_size": 65536, "conv_L_cache": 3,
         "layer_types": ["full_attention" if index in (2, 6, 10, 14, 18, 21) else "conv" for index in range(24)]},
        8.34, 1.55, 6 * 2 * 8 * 64 * 2, 18 * 2048 * 2 * 2,
    ),
    (LLAVA, 6.74, 6.74, 524288, 0),
    (
        {"model_type": "llava_next", "text_config": {"model_type": "mistral", "num_key_value_heads": 8, "vocab_size": 32064}},
        7.24, 7.24, 131072, 0,
    ),
    (
        shape("falcon_h1", 44, 3072, 12, 12288, 130048, **MAMBA_2, num_key_value_heads=2, head_dim=128, mamba_d_head=128,
              mamba_n_heads=24, mamba_d_ssm=3072, mamba_d_state=256, tie_word_embeddings=False),
        7.59, 7.59, 44 * 1024, 44 * (3072 * 256 * 4 + (3072 + 512) * 3 * 2),
    ),
    (
        shape("zamba2", 81, 3584, 32, 14336, 32000, **ZAMBA, attention_head_dim=224, kv_channels=112, mamba_d_state=64,
              mamba_ngroups=2, n_mamba_heads=112, num_mem_blocks=2, hybrid_layer_ids=[6],
              layers_block_type=["hybrid" if index % 6 == 5 and index < 78 else "mamba" for index in range(81)]),
        7.36, 7.36, 13 * 2 * 32 * 224 * 2, 81 * (7168 * 64 * 4 + (7168 + 256) * 3 * 2),
    ),
    (
        shape("nemotron_h", 52, 2688, 32, 1856, 131072, num_key_value_heads=2, head_dim=128, n_routed_experts=128,
              hybrid_override_pattern="MEMEM*EMEMEM*EMEMEM*EMEMEM*EMEMEM*EMEMEMEM*EMEMEMEME", n_shared_experts=1,
              num_experts_per_tok=6, moe_intermediate_size=1856, moe_shared_expert_intermediate_size=3712, mamba_head_dim=64,
              mamba_num_heads=64, n_groups=8, conv_kernel=4, ssm_state_size=128),
        31.58, 3.58, 6 * 2 * 2 * 128 * 2, 23 * (4096 * 128 * 4 + (4096 + 2048) * 3 * 2),
    ),
    (
        {"model_type": "mamba2", "hidden_size": 4096, "num_hidden_layers": 64, "num_heads": 128, "head_dim": 64, "n_groups": 8,
         "state_size": 128, "expand": 2, "conv_kernel": 4, "vocab_size": 32768, "tie_word_embeddings": False},
        7.29, 7.29, 0, 64 * (8192 * 128 * 4 + (8192 + 2048) * 3 * 2),
    ),
    (
        {"model_type": "falcon_mamba", "hidden_size": 4096, "intermediate_size": 8192, "num_hidden_layers": 64, "expand": 16,
         "state_size": 16, "conv_kernel": 4, "time_step_rank": 256, "vocab_size": 65024, "tie_word_embeddings": False},
        7.27, 7.27, 0, 64 * (8192 * 16 * 4 + 8192 * 3 * 2),
    ),
    (
        shape("minimax_m1", 80, 6144, 64, 9216, 200064, num_key_value_heads=8, head_dim=128, attn_type_list=([0] * 7 + [1]) * 10,
              num_local_experts=32, num_experts_per_tok=2, tie_word_embeddings=False),
        456, 45.9 * 1.05, 10 * 2 * 8 * 128 * 2, 70 * 64 * 128 * 128 * 4,
    ),
    (
        shape("deepseek_v32", 61, 7168, 128, 18432, 129280, q_lora_rank=1536, **MLA, n_routed_experts=256, n_shared_experts=1,
              num_experts_per_tok=8, moe_intermediate_size=2048, first_k_dense_replace=3, hidden_act="silu",
              tie_word_embeddings=False, index_head_dim=128, index_n_heads=64),
        671.9, 38.4, 61 * (576 * 2 + 132), 0,
    ),
    (
        shape("mllama_text_model", 100, 8192, 64, 28672, 128256, num_key_value_heads=8, hidden_act="silu",
              cross_attention_layers=list(range(3, 100, 5)), tie_word_embeddings=False),
        87.67, 87.67, 80 * 2 * 8 * 128 * 2, 0,
    ),
    (
        {"model_type": "dbrx", "d_model": 6144, "n_heads": 48, "n_layers": 40, "vocab_size": 100352,
         "attn_config": {"kv_n_heads": 8}, "ffn_config": {"ffn_hidden_size": 10752, "moe_num_experts": 16, "moe_top_k": 4}},
        131.6, 36.5, 163840, 0,
    ),
    (
        shape("hunyuan_v1_moe", 32, 4096, 32, 3072, 128167, num_key_value_heads=8, head_dim=128, num_experts=64,
              moe_topk=[8] * 32, moe_intermediate_size=[3072] * 32, num_shared_expert=[1] * 32, tie_word_embeddings=True),
        80.4, 12.75, 131072, 0,
    ),
]  # fmt: skip


@pytest.mark.parametrize(
    ("config", "params", "active", "kept", "state"), KINDS, ids=[row[0]["model_type"] for row in KINDS]
)
def test_models_of_other_layers(
    tmp_path: Path, config: Config, params: float, active: float, kept: float, state: float
) -> None:
    """Parameters as their makers publish them; bytes of a token and of a request, exactly."""
    model = read(tmp_path, config)
    assert model.params / 1e9 == pytest.approx(params, rel=0.01)
    assert model.active_params / 1e9 == pytest.approx(active, rel=0.02)
    assert key_values(model).charged_in_full == kept
    assert model.state_bytes == state


def test_what_a_model_that_sees_leaves_out_is_its_language_models_own(tmp_path: Path) -> None:
    """And never where the language model stands alone: a shape that is not told is not guessed."""
    assert read(tmp_path, LLAVA).layers == 32
    with pytest.raises(SizingError, match="no num_hidden_layers"):
        read(tmp_path, LLAVA["text_config"])


def test_layers_of_lfm2_are_told_one_way_or_the_other(tmp_path: Path) -> None:
    told = {**LFM2, "layer_types": None, "full_attn_idxs": [2, 5, 8, 10, 12, 14]}
    assert read(tmp_path, told) == read(tmp_path, LFM2)


@pytest.mark.parametrize(
    ("told", "words"),
    [
        ({"kda_layers": [1, 2, 3]}, "which layers attend"),
        ({"kda_layers": [1, 2], "full_attn_layers": [3]}, "not each of the 27 layers once"),
        ({"kda_layers": [0, 1], "full_attn_layers": [-1]}, "full_attn_layers"),
        ([1], "no JSON object"),
        ({**KIMI_LINEAR["linear_attn_config"], "num_heads": None}, "its linear attention"),
    ],
)
def test_layers_of_kimi_linear_are_each_of_one_kind(tmp_path: Path, told: Any, words: str) -> None:
    with pytest.raises(SizingError, match=words):
        read(tmp_path, {**KIMI_LINEAR, "linear_attn_config": told})


def test_zambas_layers_that_attend_are_told_one_way_or_the_other(tmp_path: Path) -> None:
    listed = next(row[0] for row in KINDS if row[0]["model_type"] == "zamba2")
    attending = [i for i, kind in enumerate(listed["layers_block_type"]) if kind == "hybrid"]
    counted = {**listed, "layers_block_type": None, "hybrid_layer_ids": attending}
    assert read(tmp_path, counted) == read(tmp_path, listed)
    with pytest.raises(SizingError, match="which layers attend"):
        read(tmp_path, {**counted, "hybrid_layer_ids": None})


@pytest.mark.parametrize(
    ("kind", "key", "value"),
    [
        ("arctic", "parallel_attn_mlp_res", True),
        ("step3_text", "share_q_dim", 2048),
        ("deci", "num_key_value_heads_per_layer", [8, 4]),
        ("phi4flash", "mamba_d_state", 16),
        ("siglip_text_model", "projection_size", 512),
    ],
)
def test_what_would_be_counted_wrong_is_refused(tmp_path: Path, kind: str, key: str, value: object) -> None:
    """Of types that are not known, but have the keys of plain decoders too."""
    plain = shape(kind, 32, 4096, 32, 14336, 32000, hidden_act="silu", tie_word_embeddings=False)
    with pytest.raises(SizingError, match=r"not known here|does not tell in which layers|is an encoder"):
        read(tmp_path, {**plain, key: value})


def test_what_keeps_no_keys_is_served_without(tmp_path: Path) -> None:
    (config,) = (row[0] for row in KINDS if row[0]["model_type"] == "mamba2")
    sheet = Service(Request(read(tmp_path, config), 1000, 200), None).plan(part_named("h100_sxm"), Place())
    (kept,) = (one for one in sheet.sections if one.name == "keys and values")
    figures = dict(kept.figures)
    assert figures["a request"].value == 64 * (8192 * 128 * 4 + (8192 + 2048) * 3 * 2)
    assert not any("not known" in words for words in sheet.warnings)


@pytest.mark.parametrize(
    ("told", "stored"),
    [
        (None, "bf16"),
        ({"quant_method": "fp8", "weight_block_size": [128, 128]}, "fp8"),
        ({"quant_method": "mxfp4"}, "mxfp4"),
        ({"quant_method": "awq", "bits": 4, "group_size": 128}, "int4"),
        ({"quant_method": "gptq", "bits": 8}, "int8"),
        ({"quant_method": "bitsandbytes", "load_in_4bit": True}, "int4"),
        ({"quant_method": "modelopt", "quant_algo": "NVFP4"}, "fp4"),
        ({"quant_method": "compressed-tensors", "config_groups": {"group_0": {"weights": {"num_bits": 8, "type": "float"}}}}, "fp8"),
        ({"quant_method": "compressed-tensors", "config_groups": {"group_0": {"weights": {"num_bits": 4, "type": "int"}}}}, "int4"),
    ],
)  # fmt: skip
def test_a_checkpoint_says_in_which_format_it_is_stored(tmp_path: Path, told: Any, stored: str) -> None:
    assert read(tmp_path, {**LLAMA_8B, "quantization_config": told}).stored == stored


@pytest.mark.parametrize(
    "told",
    [{"quant_method": "aqlm", "bits": 2}, {"config_groups": {"a": 3}, "bits": "4"}, {"bits": [4]}, {"x": 1}],
)
def test_a_format_that_is_not_known_is_said(tmp_path: Path, told: Any) -> None:
    model = read(tmp_path, {**LLAMA_8B, "quantization_config": told})
    assert model.stored == "bf16"
    assert "not known here" in model.note


@pytest.mark.parametrize(
    "content", [b"", b"[]", b"nothing", b"\xff\xfe", b"[" * 100_000, b'{"text_config": ' * 50_000]
)
def test_what_is_no_object_is_refused(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "config.json"
    file.write_bytes(content)
    with pytest.raises(SizingError) as caught:
        model_from_config(file)
    assert caught.value.remedy


def test_what_is_no_file_is_refused(tmp_path: Path) -> None:
    pipe, large = tmp_path / "pipe", tmp_path / "model.safetensors"
    os.mkfifo(pipe)
    with large.open("wb") as file:
        file.truncate(MOST_BYTES + 1)
    for path, words in (
        (tmp_path / "absent.json", "cannot be read"),
        (tmp_path, "cannot be read"),
        (pipe, "not a file"),
        (large, "at most"),
        (Path("a\0b"), "cannot be read"),
    ):
        with pytest.raises(SizingError, match=words) as caught:
            model_from_config(path)
        assert caught.value.remedy


def test_a_model_is_called_as_its_maker_or_its_folder_calls_it(tmp_path: Path) -> None:
    folder = tmp_path / "Meta-Llama-3-8B"
    folder.mkdir()
    assert read(folder, LLAMA_8B).name == "Meta-Llama-3-8B"
    assert model_from_config(folder).name == "Meta-Llama-3-8B"
    assert read(folder, {**LLAMA_8B, "_name_or_path": "meta-llama/Llama\x1b[31m"}).name.isprintable()


def test_every_family_says_which_layers_have_a_window() -> None:
    assert {family.window for family in families().values()} == {
        "none", "all", "alternate", "pattern", "late", "chunked",
    }  # fmt: skip
