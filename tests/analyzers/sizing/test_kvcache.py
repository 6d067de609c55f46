"""What a server keeps of its requests, and what weights take: by kind of attention and format."""

from __future__ import annotations

from dataclasses import replace

import pytest

from coldaisle.analyzers.sizing.catalogue import Model, model_named, models, part_named
from coldaisle.analyzers.sizing.kvcache import (
    KV_BYTES,
    activation_bytes,
    key_values,
    kv_bytes_per_token,
    kv_tokens,
)
from coldaisle.analyzers.sizing.sheet import SizingError
from coldaisle.analyzers.sizing.weights import (
    FORMATS,
    attention_params,
    compute_dtype,
    expert_params,
    format_named,
    weight_bytes,
)

LLAMA = model_named("Llama-3.1-8B")
DEEPSEEK = model_named("DeepSeek-V3")
GPT_OSS = model_named("gpt-oss-120b")


@pytest.mark.parametrize("name", [model.name for model in models().values() if model.kv_bytes_per_token > 0])
def test_known_models_keep_what_is_published(name: str) -> None:
    model = models()[name]
    assert kv_bytes_per_token(model).value == model.kv_bytes_per_token


def test_grouped_heads_are_divided_and_then_copied() -> None:
    free = 10e9
    one, four, eight, sixteen = (
        kv_tokens(free, key_values(LLAMA, tensor=tensor)).value for tensor in (1, 4, 8, 16)
    )
    assert (four / one, eight / one) == (4, 8)
    assert sixteen == eight  # 8 KV heads: beyond it each GPU keeps a copy


def test_mla_is_not_divided() -> None:
    assert key_values(DEEPSEEK, tensor=8).shards == 1
    assert kv_tokens(10e9, key_values(DEEPSEEK, tensor=8)) == kv_tokens(10e9, key_values(DEEPSEEK))
    assert kv_bytes_per_token(DEEPSEEK).value == 61 * (512 + 64) * 2


def test_layers_with_a_window_keep_no_more_than_it() -> None:
    kept = key_values(GPT_OSS)
    full = 2 * 8 * 64 * 2
    assert kept.of_request(100) == 36 * full * 100
    assert kept.of_request(10_000) == 18 * full * 10_000 + 18 * full * 128
    assert kv_tokens(5e9, kept, 10_000).value > 1.9 * kv_tokens(5e9, kept).value


def test_a_state_is_paid_once_a_request() -> None:
    hybrid = replace(LLAMA, kv_layers=8, state_bytes=5e7)
    kept = key_values(hybrid)
    assert kept.of_request(1000) - kept.of_request(0) == 1000 * kv_bytes_per_token(LLAMA).value / 4
    assert kept.of_request(0) == 5e7


def test_formats_of_keys_and_values() -> None:
    whole = kv_bytes_per_token(LLAMA, "bf16").value
    assert kv_bytes_per_token(LLAMA, "fp8").value == whole / 2
    assert set(KV_BYTES) >= {"bf16", "fp8", "int8"}
    with pytest.raises(SizingError, match="fp9"):
        key_values(LLAMA, "fp9")


def test_what_the_shape_does_not_tell_is_refused_with_what_would() -> None:
    with pytest.raises(SizingError) as caught:
        key_values(Model("by its size", 7e9, 7e9))
    assert "layers" in caught.value.remedy
    with pytest.raises(SizingError) as caught:
        key_values(Model("by its size", 7e9, 7e9, layers=32))
    assert "kv-heads" in caught.value.remedy
    with pytest.raises(SizingError, match="there cannot be more"):
        key_values(replace(LLAMA, window_layers=99, window=128))


def test_no_memory_keeps_no_tokens() -> None:
    assert kv_tokens(-5e9, key_values(LLAMA)).value == 0


def test_a_step_takes_more_for_more_tokens_and_less_over_more_gpus() -> None:
    # vLLM's profile of this model, from 20,000 to 29,000 tokens (its issue 10517)
    grown = activation_bytes(LLAMA, 29_000).value - activation_bytes(LLAMA, 20_000).value
    assert grown / 9000 == pytest.approx(109.7e3, rel=0.02)
    assert activation_bytes(LLAMA, 8192, 4).value < activation_bytes(LLAMA, 8192).value


# --- weights ----------------------------------------------------------------------------------------------------------


def test_weights_by_format() -> None:
    whole = weight_bytes(LLAMA, "bf16")
    assert whole.is_exact
    assert whole.value == 2 * LLAMA.params
    assert weight_bytes(LLAMA, "fp32").value == 2 * whole.value
    assert 1.0 * LLAMA.params < weight_bytes(LLAMA, "fp8").value < 1.2 * LLAMA.params
    # 4 bit with a scale and a zero of 128, and the tables at 16 bit: 3 to 3.8 times less
    for dtype in ("int4", "fp4"):
        assert 2.5 < whole.value / weight_bytes(LLAMA, dtype).value < 3.8


def test_mxfp4_of_gpt_oss_is_what_was_measured() -> None:
    weights = weight_bytes(GPT_OSS, "mxfp4")
    for measured in (64.38, 65.97):
        assert weights.low <= measured * 2**30 <= weights.high
    assert weights.value > 0.53125 * GPT_OSS.params


def test_what_stays_at_16_bit_is_in_the_interval() -> None:
    weights = weight_bytes(model_named("405B"), "fp8")
    assert weights.low <= 57.752 * 8 * 2**30 <= weights.high


@pytest.mark.parametrize("dtype", FORMATS)
@pytest.mark.parametrize("name", models())
def test_every_model_in_every_format_is_ordered(name: str, dtype: str) -> None:
    weights = weight_bytes(models()[name], dtype)
    assert 0.5 * models()[name].params < weights.low <= weights.value <= weights.high


def test_names_of_formats() -> None:
    assert format_named("W4")[0] == "int4"
    assert format_named(" BFloat16 ")[0] == "bf16"
    with pytest.raises(SizingError) as caught:
        format_named("fp9\x1b[31m" * 100)
    assert "fp8" in caught.value.remedy


def test_a_part_without_a_format_computes_at_16_bit() -> None:
    assert compute_dtype("fp8", part_named("a100_sxm_80")) == "bf16"
    assert compute_dtype("fp8", part_named("h100_sxm")) == "fp8"
    assert compute_dtype("fp4", part_named("h100_sxm")) == "bf16"
    assert compute_dtype("fp4", part_named("b200_sxm")) == "fp4"
    assert compute_dtype("bf16", part_named("v100_sxm2_32")) == "fp16"


def test_experts_are_most_of_a_mixture() -> None:
    assert 0.9 < expert_params(DEEPSEEK) / DEEPSEEK.params < 1
    assert expert_params(LLAMA) == 0
    assert attention_params(DEEPSEEK) == pytest.approx(61 * 187e6, rel=0.02)
