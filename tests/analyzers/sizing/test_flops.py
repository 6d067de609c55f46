"""Work of training, and what of a peak a rate means."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coldaisle.analyzers.sizing.catalogue import Model, model_named
from coldaisle.analyzers.sizing.flops import (
    attention_elements,
    flops_per_token,
    hfu,
    mfu,
    recompute_factor,
    shaped,
    training_flops,
)
from coldaisle.analyzers.sizing.sheet import SizingError

GPT3 = model_named("gpt-3")


def test_gpt3_took_3640_petaflop_days() -> None:
    work = training_flops(GPT3, 300e9)
    assert work.value / (1e15 * 86_400) == pytest.approx(3640, rel=0.01)
    assert work.is_exact
    assert "6·N" in work.formula


def test_attention_is_a_small_share_of_a_wide_model() -> None:
    """1.4 % causal and 2.8 % full of GPT-3's work at 2,048 tokens."""
    plain, causal, full = (flops_per_token(GPT3, 2048, kind) for kind in ("none", "causal", "full"))
    assert causal / plain - 1 == pytest.approx(0.0138, abs=5e-4)
    assert full - plain == pytest.approx(2 * (causal - plain))


def test_lora_spares_the_gradients_of_frozen_weights() -> None:
    assert training_flops(GPT3, 1e9, method="lora").value * 6 == pytest.approx(
        training_flops(GPT3, 1e9).value * 4
    )


def test_a_mixture_computes_its_active_parameters() -> None:
    model = model_named("deepseek-v3")
    assert training_flops(model, 1.0).value == 6 * 37e9


def test_latent_attention_computes_with_whole_heads() -> None:
    """DeepSeek-V3 (2505.09343, table 4): 272.8G tokens a day on 2,048 H800 are 432 TFLOP/s a GPU with full attention, 385 causal."""
    model = model_named("deepseek-v3")
    each = 272.80e9 / 86_400 / 2048
    assert each * flops_per_token(model, 4096, "full") == pytest.approx(432e12, rel=0.02)
    assert each * flops_per_token(model, 4096, "causal") == pytest.approx(385e12, rel=0.02)


def test_layers_attend_as_far_as_they_see() -> None:
    plain = Model("mine", 1e9, 1e9, layers=24, hidden=2048)
    whole = attention_elements(plain, 8192)
    assert whole == 24 * 2048 * 8192
    windowed = replace(plain, window_layers=20, window=1024)
    assert attention_elements(windowed, 8192) == 2048 * (4 * 8192 + 20 * 1024 * (2 - 1 / 8))
    assert attention_elements(windowed, 1024) == attention_elements(plain, 1024)
    assert attention_elements(replace(plain, kv_layers=6), 8192) == whole / 4
    assert attention_elements(replace(plain, kv_layers=0), 8192) == 0
    assert attention_elements(replace(plain, heads=16, head_dim=256), 8192) == 2 * whole


def test_full_recompute_is_four_thirds() -> None:
    assert recompute_factor("full").value == pytest.approx(8 / 6)
    assert hfu(100, GPT3, 2048, 312e12, "full").value == pytest.approx(
        mfu(100, GPT3, 2048, 312e12).value * 4 / 3
    )


@pytest.mark.parametrize("size", [0, -1, math.nan, math.inf])
def test_sizes_that_mean_nothing_are_refused(size: float) -> None:
    with pytest.raises(SizingError, match="above zero"):
        training_flops(GPT3, size)
    with pytest.raises(SizingError, match="above zero"):
        mfu(size, GPT3, 2048, 312e12)


def test_attention_needs_a_shape() -> None:
    with pytest.raises(SizingError, match="needs layers and hidden size"):
        training_flops(Model("mine", 7e9, 7e9), 1e9, 2048, "full")


@given(st.floats(1e7, 1e13))
def test_any_size_gets_a_usual_shape(params: float) -> None:
    model, notes = shaped(Model("mine", params, params))
    assert model.layers is not None
    assert model.hidden is not None
    assert notes
    assert 0.2 <= 12 * model.layers * model.hidden**2 / params <= 5
    assert shaped(model) == (model, ())


@given(st.floats(1, 1e15), st.floats(1, 1e15), st.integers(1, 1_000_000))
def test_more_tokens_are_never_less_work(some: float, more: float, seq: int) -> None:
    low, high = sorted((some, more))
    assert training_flops(GPT3, low, seq, "causal").value <= training_flops(GPT3, high, seq, "causal").value
