"""Sheets of serving: what holds of every answer, what is refused, and what fits nowhere."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coldaisle.analyzers.sizing.catalogue import Model, dense, model_named, models, part_named
from coldaisle.analyzers.sizing.plan_serving import Request, plan_serving, replica_with, slots_of
from coldaisle.analyzers.sizing.quantity import Quantity
from coldaisle.analyzers.sizing.serving_request import settled
from coldaisle.analyzers.sizing.sheet import Sheet, SizingError
from coldaisle.analyzers.sizing.speed import (
    Load,
    Replica,
    at_concurrency,
    knee_batch,
    prefill_seconds,
    saturated,
    speculative_speedup,
    step_seconds,
)
from coldaisle.sources.parts.catalogue import parts

LLAMA = model_named("Llama-3.1-8B")
H100 = part_named("h100_sxm")
NAN = math.nan


def figures(sheet: Sheet) -> dict[str, Quantity]:
    return {
        f"{section.name}: {name}": figure for section in sheet.sections for name, figure in section.figures
    }


def gpus(sheet: Sheet) -> float:
    assert sheet.gpus is not None
    return sheet.gpus.value


def serve(
    model: str | Model = LLAMA, part: str = "h100_sxm", isl: float = 1000, osl: float = 500, **more: Any
) -> Sheet:
    named = model_named(model) if isinstance(model, str) else model
    return plan_serving(Request(named, isl, osl, **more), part_named(part))


def asking(request: Request, more: dict[str, Any]) -> Request:
    return replace(request, **more)


# --- what holds of every answer ---------------------------------------------------------------------------------------

requests = st.builds(
    lambda model, isl, osl, dtype: Request(model, float(isl), float(osl), dtype=dtype),
    st.sampled_from([model for model in models().values() if model.kv_heads or model.kv_bytes_per_token > 0]),
    st.integers(1, 100_000),
    st.integers(1, 20_000),
    st.sampled_from(["bf16", "fp8", "int4"]),
)
boards = st.sampled_from(["h100_sxm", "h200_sxm", "b200_sxm", "mi300x", "a100_sxm_80", "l40s", "gb200"]).map(
    part_named
)


@settings(max_examples=40, deadline=None)
@given(requests, boards, st.floats(0.01, 1e4), st.floats(1.0, 10.0))
def test_more_load_never_needs_fewer(request: Request, part: Any, load: float, times: float) -> None:
    for name in ("rate", "users"):
        less, more = (plan_serving(asking(request, {name: count}), part) for count in (load, load * times))
        assert less.fits == more.fits
        if less.fits:
            assert gpus(less) <= gpus(more)


@settings(max_examples=40, deadline=None)
@given(requests, boards, st.floats(0.05, 20.0), st.floats(0.001, 1.0))
def test_goals_never_need_fewer_and_are_kept(request: Request, part: Any, ttft: float, itl: float) -> None:
    free = plan_serving(replace(request, rate=5.0), part)
    bound = plan_serving(replace(request, rate=5.0, ttft=ttft, itl=itl), part)
    if bound.fits:
        assert gpus(free) <= gpus(bound)
        found = figures(bound)
        assert found["at the load: TTFT"].value <= ttft * 1.001
        assert found["at the load: ITL"].value <= itl * 1.001


@settings(max_examples=60, deadline=None)
@given(requests, boards, st.sampled_from([{}, {"rate": 3.0}, {"users": 40.0}]))
def test_every_sheet_is_whole(request: Request, part: Any, load: dict[str, Any]) -> None:
    sheet = plan_serving(asking(request, load), part)
    assert sheet.binding is not None
    assert sheet.binding.name in dict(sheet.binding.terms)
    assert sheet.part == part.id
    for section in sheet.sections:
        names = [name for name, _ in section.figures]
        assert len(names) == len(set(names))
    for name, figure in figures(sheet).items():
        assert math.isfinite(figure.value), name
        assert name == "memory of a GPU: KV cache" or figure.value >= 0, name
    if sheet.fits:
        found = figures(sheet)
        size = found["layout: tensor parallel"].value * found["layout: pipeline stages"].value
        assert gpus(sheet) == size * found["layout: replicas"].value
    else:
        assert "does not fit" in sheet.answer


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 4000), st.integers(1, 4000), st.sampled_from([1, 2, 4, 8]))
def test_time_and_throughput_grow_with_concurrency(isl: int, osl: int, tensor: int) -> None:
    request = Request(LLAMA, isl, osl)
    replica, load = replica_with(request, H100, tensor), Load(isl, osl, slots_of(request, H100, tensor).value)
    points = [at_concurrency(replica, load, load.slots * share) for share in (0.1, 0.5, 1.0, 2.0, 5.0)]
    for fewer, more in pairwise(points):
        assert fewer.itl <= more.itl * (1 + 1e-9)
        assert fewer.ttft <= more.ttft * (1 + 1e-9)
        assert fewer.throughput <= more.throughput * (1 + 1e-9)
    assert points[-1].throughput == pytest.approx(saturated(replica, load).throughput)
    # Little's law, beyond the knee
    last = points[-1]
    assert last.throughput * (last.ttft + (osl - 1) * last.itl) / osl == pytest.approx(
        last.concurrency, rel=0.02
    )


def test_every_part_serves_a_small_model_or_says_why_not() -> None:
    for part in parts().values():
        for dtype in ("bf16", "fp8", "int4", "fp4"):
            assert plan_serving(Request(LLAMA, 1000, 500, dtype=dtype, users=50), part).fits, (part.id, dtype)


# --- layouts ----------------------------------------------------------------------------------------------------------


def test_a_model_that_one_gpu_is_too_small_for_is_divided() -> None:
    found = figures(serve("Llama-3.3-70B", users=10))
    assert found["layout: tensor parallel"].value >= 2
    two_nodes = figures(serve("405b"))
    assert (two_nodes["layout: tensor parallel"].value, two_nodes["layout: pipeline stages"].value) == (8, 2)
    assert gpus(serve("405b", dtype="fp8")) == 8


def test_one_large_replica_holds_more_than_two_small_ones() -> None:
    request = Request(model_named("Llama-3.3-70B"), 4000, 1000)
    assert slots_of(request, H100, 8).value > 2 * slots_of(request, H100, 4).value


def test_mla_holds_no_more_over_more_gpus_than_its_weights_leave() -> None:
    sheet = serve("DeepSeek-V3", "h200_sxm", dtype="fp8", users=100)
    assert any("tensor parallelism adds no room" in words for words in sheet.warnings)


def test_windows_let_more_requests_in() -> None:
    gemma = replace(LLAMA, window_layers=28, window=1024)
    assert (
        slots_of(Request(gemma, 30_000, 1000), H100, 1).value
        > 4 * slots_of(Request(LLAMA, 30_000, 1000), H100, 1).value
    )


def test_fewer_bits_serve_more() -> None:
    rates = [
        figures(serve(model_named("Llama-3.3-70B"), dtype=dtype, tensor=4))["the knee: throughput"].value
        for dtype in ("bf16", "fp8")
    ]
    assert rates[1] > 1.3 * rates[0]


def test_four_bits_are_no_faster_where_compute_binds() -> None:
    four, sixteen = (
        prefill_seconds(_replica(dtype), 5000) for dtype in ("int4", "bf16")
    )  # fmt: skip
    assert four == pytest.approx(sixteen, rel=0.01)
    assert step_seconds(_replica("int4"), 1, 1000) < step_seconds(_replica("bf16"), 1, 1000)


def _replica(dtype: str) -> Replica:
    return replica_with(Request(LLAMA, 1000, 500, dtype=dtype), part_named("a100_sxm_80"), 1)


def test_the_format_of_keys_and_values_follows_the_weights_unless_told() -> None:
    for dtype, part, kept in (
        ("bf16", "h100_sxm", "bf16"), ("fp8", "h100_sxm", "fp8"), ("fp8", "a100_sxm_80", "bf16"), ("int4", "h100_sxm", "bf16"),
    ):  # fmt: skip
        assert settled(Request(LLAMA, 10, 10, dtype=dtype), part_named(part)).kv_dtype == kept
    assert settled(Request(LLAMA, 10, 10, dtype="fp8", kv_dtype="bf16"), H100).kv_dtype == "bf16"
    assert any("8 bit" in words for words in serve(dtype="fp8").warnings)
    assert not any("8 bit" in words for words in serve(dtype="fp8", kv_dtype="fp8").warnings)


# --- what binds -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("ask", "name"),
    [
        ({"model": "405b"}, "weights"),
        ({"users": 5000.0}, "KV cache"),
        ({"rate": 100.0, "isl": 4000, "osl": 10}, "compute"),
        ({"rate": 20.0, "ttft": 0.02}, "latency goal"),
        ({"rate": 20.0, "ttft": 0.3, "itl": 0.004}, "latency goal"),
        ({"replicas": 3}, "layout asked for"),
        ({"tensor": 4}, "layout asked for"),
    ],
)
def test_the_term_that_decides_is_named(ask: dict[str, Any], name: str) -> None:
    sheet = serve(**ask)
    assert sheet.binding is not None
    assert sheet.binding.name == name


def test_what_fits_nowhere_says_what_binds_and_by_how_much() -> None:
    sheet = serve(
        dense("huge", 1e15, layers=100, hidden=16384, heads=128, kv_heads=8, head_dim=128, ffn=53248)
    )
    assert not sheet.fits
    assert sheet.binding is not None
    assert sheet.binding.name == "weights"
    assert sheet.answer.startswith("does not fit: weights take")


def test_a_request_that_no_replica_holds_says_so() -> None:
    sheet = serve("Llama-3.3-70B", isl=2e7, osl=1000)
    assert not sheet.fits
    assert sheet.binding is not None
    assert sheet.binding.name == "KV cache"
    assert "20,001,000 tokens" in sheet.answer


def test_a_goal_that_nothing_reaches_says_which_and_what_is_reached() -> None:
    sheet = serve(rate=1.0, itl=1e-5)
    assert not sheet.fits
    assert sheet.binding is not None
    assert sheet.binding.name == "ITL"
    assert "not 0.01" in sheet.answer


def test_more_users_than_places_are_past_the_knee() -> None:
    sheet = serve(users=5000, replicas=1)
    assert any("past the knee" in words for words in sheet.warnings)
    found = figures(sheet)
    assert found["at the load: TTFT"].value > 10 * found["the knee: TTFT"].value
    assert found["at the load: throughput"].value == pytest.approx(
        found["the knee: throughput"].value, rel=0.01
    )


def test_more_load_than_asked_replicas_serve_is_said() -> None:
    assert any("grows without end" in words for words in serve(rate=1e6, replicas=1).warnings)


def test_headroom_comes_from_the_pool_and_the_wait() -> None:
    few, many = (figures(serve("405b", rate=rate, dtype="fp8", isl=20_000)) for rate in (0.1, 100.0))
    assert few["at the load: highest utilisation"].value < many["at the load: highest utilisation"].value <= 1


def test_the_margin_is_taken_once() -> None:
    none, half = (gpus(serve(rate=2000.0, margin=margin)) for margin in (0.0, 0.5))
    assert half / none == pytest.approx(1.5, rel=0.05)


# --- what means nothing -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "ask",
    [
        {"isl": 0}, {"isl": -5}, {"isl": NAN}, {"isl": math.inf}, {"isl": 0.5}, {"osl": 0}, {"osl": 0.5},
        {"rate": 0.0}, {"rate": -1.0}, {"rate": math.inf}, {"users": 0.0}, {"users": -1.0}, {"rate": 1.0, "users": 1.0},
        {"ttft": 0.0}, {"itl": -1.0}, {"tensor": 0}, {"tensor": -2}, {"tensor": 3}, {"tensor": 16}, {"pipeline": 0},
        {"pipeline": 33}, {"replicas": 0}, {"replicas": 1.5}, {"dtype": "fp9"}, {"dtype": ""}, {"kv_dtype": "fp9"},
        {"memory_share": 0.0}, {"memory_share": 1.5}, {"margin": -0.1}, {"margin": 11.0}, {"isl": 1e9},
        {"max_model_len": 100.0}, {"batched_tokens": 0.0}, {"max_running": 0.0}, {"kv_memory": 0.0},
    ],
    ids=str,
)  # fmt: skip
def test_what_means_nothing_is_refused_in_words(ask: dict[str, Any]) -> None:
    with pytest.raises(SizingError) as caught:
        serve(**ask)
    assert str(caught.value)


def test_a_model_by_its_size_alone_asks_for_what_is_missing() -> None:
    with pytest.raises(SizingError) as caught:
        serve(dense("by its size", 7e9))
    assert "config.json" in caught.value.remedy or "layers" in caught.value.remedy


# --- more -------------------------------------------------------------------------------------------------------------


def test_the_batch_from_which_on_products_take_longer() -> None:
    assert knee_batch(H100, "bf16", 2.0).value == pytest.approx(295, rel=0.01)
    assert knee_batch(H100, "fp8", 1.0).value == pytest.approx(295, rel=0.01)


def test_speculation_gains_by_what_is_accepted() -> None:
    assert speculative_speedup(0.8, 4, 0.05).value == pytest.approx((1 - 0.8**5) / (0.2 * 1.2))
    assert speculative_speedup(0.0, 4, 0.1).value < 1
    for accepted, drafted, cost in (
        (1.0, 4, 0.1),
        (-0.1, 4, 0.1),
        (0.5, 0, 0.1),
        (0.5, 4, -1.0),
        (NAN, 4, 0.1),
    ):
        with pytest.raises(SizingError):
            speculative_speedup(accepted, drafted, cost)


def test_rules_of_thumb_come_with_the_numbers_at_hand() -> None:
    said = {
        verdict.claim: verdict.verdict for verdict in serve("Llama-3.3-70B", dtype="fp8", rate=5.0).verdicts
    }
    assert "fp32 282, bf16 141, fp8 73" in said["a model of 100B needs over 400 GB for its weights"]
    assert "1.03 bytes a parameter" in said["lower precision (FP8, INT4) halves the footprint"]
    assert "80 GiB" in said["GPUs have 16 to 80 GB of HBM and over 1 TB/s"]
    assert "5.7 with 1, 0.48 with 8, 0.059 with 32" in said["aim at 70 to 85 % utilisation"]
    assert any("continuous batching" in claim for claim in said)
    assert any("70 % utilisation may mean" in claim for claim in said)
    assert len(serve("405b", "l4", pipeline=1).verdicts) >= 3


def test_memory_that_may_not_suffice_is_said_and_never_negative() -> None:
    model = dense("tight", 6.95e9, layers=32, kv_layers=32, hidden=4544, heads=71, kv_heads=1, head_dim=64, ffn=18176, vocab=65024)  # fmt: skip
    sheet = plan_serving(Request(model, 2000, 300, users=5.0), parts()["v100_sxm2_16"])
    memory = next(section for section in sheet.sections if section.name == "memory of a GPU")
    left = dict(memory.figures)["KV cache"]
    assert left.low == 0
    assert any("memory may not suffice" in one for one in sheet.warnings)
