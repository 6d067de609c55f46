"""Memory of training: states, activations, logits, and the stage that holds most."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coldaisle.analyzers.sizing.catalogue import Model, model_named
from coldaisle.analyzers.sizing.layout import SHARDINGS, Layout, Sharding
from coldaisle.analyzers.sizing.memory import (
    Trained,
    activations,
    bytes_per_parameter,
    checkpoint_bytes,
    fullest,
    interval_of,
    logits_bytes,
)
from coldaisle.analyzers.sizing.sheet import SizingError
from coldaisle.sources.parts.catalogue import GIB

LLAMA = model_named("llama-3.1-70b")
PLAIN = Model(
    "plain", 2e9, 2e9, layers=24, hidden=2048, heads=16, kv_heads=16, ffn=8192, vocab=50_000, gated_ffn=False
)


@pytest.mark.parametrize(
    ("sharding", "gradient", "at_8"),
    [
        ("none", 4, 18), ("optimizer", 4, 6 + 12 / 8), ("gradients", 4, 2 + 16 / 8), ("parameters", 4, 18 / 8),
        ("none", 2, 16), ("optimizer", 2, 4 + 12 / 8), ("gradients", 2, 2 + 14 / 8), ("parameters", 2, 16 / 8),
    ],
)  # fmt: skip
def test_states_a_parameter(sharding: Sharding, gradient: int, at_8: float) -> None:
    """Megatron keeps gradients in fp32, ZeRO's papers in 16 bit."""
    assert bytes_per_parameter(sharding, 8, "bf16", gradient).value == pytest.approx(at_8)


def test_nobody_trains_in_int8() -> None:
    with pytest.raises(SizingError, match="nothing is trained in int8; use bf16"):
        bytes_per_parameter("none", 1, "int8")


def test_activations_of_korthikanti() -> None:
    """34 and 5as/h with an MLP of 4 h; tensor parallelism divides 24 of 34, sequence parallelism the rest too."""
    whole = 2048 * 1 * 2048
    scores = 5 * 16 * 2048 / 2048
    assert activations(PLAIN, 2048, 1, recompute="none").value == whole * (34 + scores)
    assert activations(PLAIN, 2048, 1).value == whole * 34
    assert activations(PLAIN, 2048, 1, 8, sequence_parallel=False).value == whole * (10 + 24 / 8)
    assert activations(PLAIN, 2048, 1, 8, recompute="none").value == whole * (34 + scores) / 8
    assert activations(PLAIN, 2048, 1, 8, recompute="full").value == 2 * whole


def test_logits_outweigh_checkpoints() -> None:
    """ml-engineering: 15.7 GiB at 32k tokens and 128k words, before the 16-bit copy."""
    own = logits_bytes(model_named("llama-3.1-8b"), 32_768, 1)
    assert own.value * 4 / 6 / GIB == pytest.approx(15.7, abs=0.1)


def test_a_checkpoint_of_bloom() -> None:
    assert checkpoint_bytes(Model("BLOOM", 176e9, 176e9)).value / GIB == pytest.approx(2294.77, abs=0.01)


def test_frozen_weights_are_kept_and_adapters_are_trained() -> None:
    whole = fullest(Trained(LLAMA, 4096), Layout(8, 1, 1))
    lora = fullest(Trained(LLAMA, 4096, method="lora", adapters=1e8), Layout(8, 1, 1))
    four_bit = fullest(Trained(LLAMA, 4096, method="qlora", adapters=1e8), Layout(8, 1, 1))
    assert whole.states * 8 == pytest.approx(18 * LLAMA.params, rel=0.01)
    assert lora.states * 8 == pytest.approx(2 * LLAMA.params + 18e8, rel=0.01)
    assert four_bit.states < lora.states / 3
    assert lora.activations == whole.activations, "adapters do not spare activations"


@given(
    st.sampled_from([1, 2, 4, 8]),
    st.sampled_from([1, 2, 4, 8, 16]),
    st.integers(1, 512),
    st.sampled_from([1, 2, 4]),
    st.sampled_from(SHARDINGS),
)
def test_more_gpus_never_hold_more_each(
    tensor: int, pipeline: int, data: int, microbatch: int, sharding: Sharding
) -> None:
    run = Trained(LLAMA, 8192)
    layout = Layout(tensor, pipeline, data, 1, microbatch, 64, sharding)
    here = fullest(run, layout)
    for name in ("tensor", "data"):
        wider = replace(layout, **{name: getattr(layout, name) * 2})
        live = 0.0 if name == "tensor" else fullest(run, wider).gathered - here.gathered
        assert fullest(run, wider).total <= here.total + 1.05 * live + 1
    own = interval_of(here)
    assert own.low <= own.value <= own.high


@given(st.integers(512, 131_072), st.integers(512, 131_072))
def test_longer_sequences_never_need_less(some: int, more: int) -> None:
    low, high = sorted((some, more))
    assert fullest(Trained(LLAMA, low), Layout(8)).total <= fullest(Trained(LLAMA, high), Layout(8)).total
