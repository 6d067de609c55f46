"""The calculator held to published measurements of serving: the folder of tables that COLDAISLE_TABLES names.

What is fitted is judged on rows that it has not seen: constants are made again without the model whose rows they foretell.
"""

from __future__ import annotations

import csv
import math
import os
from collections.abc import Callable
from pathlib import Path
from statistics import median

import pytest
from lab import benches  # first: it makes the next import possible

from benchmarks.serving_constants import (
    NAMES,
    Row,
    fit,
    latency_rows,
    left_out,
    predicted,
    ratios,
    throughput_rows,
    with_constants,
)
from coldaisle.analyzers.sizing.catalogue import Model, model_named, part_named
from coldaisle.analyzers.sizing.kvcache import key_values, kv_bytes_per_token, kv_tokens
from coldaisle.analyzers.sizing.plan_serving import Request, plan_serving, room_of
from coldaisle.analyzers.sizing.quantity import Quantity
from coldaisle.analyzers.sizing.sheet import Sheet
from coldaisle.analyzers.sizing.speed import at_concurrency, constants, saturated
from coldaisle.analyzers.sizing.weights import weight_bytes
from coldaisle.sources.parts.catalogue import GIB

assert benches.ROOT.is_dir()

TABLES = Path(os.environ.get("COLDAISLE_TABLES", "/nonexistent"))
pytestmark = pytest.mark.skipif(not TABLES.is_dir(), reason="no published tables (COLDAISLE_TABLES)")

WEAK = {"kv8", "kv9", "kv10", "kv16", "kv19"}
"""Rows whose part or free memory nobody told, and one that nothing explains."""
LEAST_INSIDE, MOST_ERROR = 0.75, 0.25


def rows(name: str) -> list[dict[str, str]]:
    with (TABLES / f"reference_{name}.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def figure(sheet: Sheet, section: str, name: str) -> Quantity:
    return dict(next(each for each in sheet.sections if each.name == section).figures)[name]


def of_row(row: dict[str, str]) -> Model:
    """A model of the shape that a row tells; its size plays no part in what it keeps of a token."""
    kv_heads = int(row["n_kv_heads"])
    return Model(
        row["model"], 1e9, 1e9, layers=int(row["n_layers"]), kv_heads=kv_heads, head_dim=int(row["head_dim"])
    )


# --- keys and values --------------------------------------------------------------------------------------------------


def test_bytes_of_a_token() -> None:
    told = [row for row in rows("kv_cache") if row["n_layers"]]
    assert len(told) >= 9
    for row in told:
        assert kv_bytes_per_token(of_row(row), row["kv_dtype"]).value == float(
            row["kv_bytes_per_token_total"]
        ), row["id"]


def test_tokens_where_the_free_memory_is_known() -> None:
    known = [
        row for row in rows("kv_cache")
        if row["available_kv_gib_per_gpu"] and row["kv_tokens"] and row["id"] not in WEAK and "hybrid" not in row["model"]
    ]  # fmt: skip
    assert len(known) >= 5
    for row in known:
        kept = key_values(of_row(row), row["kv_dtype"], int(row["tp"]))
        tokens = kv_tokens(float(row["available_kv_gib_per_gpu"]) * GIB, kept).value
        assert tokens == pytest.approx(float(row["kv_tokens"]), rel=0.02), row["id"]


def test_tokens_where_only_the_part_is_known() -> None:
    row = next(row for row in rows("kv_cache") if row["id"] == "kv7")
    length = float(row["max_model_len"])
    request = Request(
        model_named("Llama-3.1-8B"), 1000, 1000, memory_share=float(row["gpu_mem_util"]),
        max_model_len=length, batched_tokens=length,
    )  # fmt: skip
    room = room_of(request, part_named("a100_sxm_80"), int(row["tp"]))
    kept = key_values(request.model, "bf16", int(row["tp"]))
    assert kv_tokens(room.left.value, kept).value == pytest.approx(float(row["kv_tokens"]), rel=0.05)
    assert (
        kv_tokens(room.left.low, kept).low <= float(row["kv_tokens"]) <= kv_tokens(room.left.high, kept).high
    )


@pytest.mark.parametrize(("row_id", "length"), [("kv1", 20_000), ("kv2", 29_000)])
def test_a_longer_longest_request_leaves_less_for_keys_and_values(row_id: str, length: int) -> None:
    row = next(row for row in rows("kv_cache") if row["id"] == row_id)
    request = Request(
        model_named("Llama-3.1-8B"), 1000, 1000, max_model_len=length, batched_tokens=float(length)
    )
    left = room_of(request, part_named("rtx_3090"), 1).left
    assert left.low <= float(row["available_kv_gib_per_gpu"]) * GIB <= left.high


def test_weights_of_checkpoints_that_are_quantised_in_part() -> None:
    told = {
        row["id"]: float(row["weights_gib_per_gpu"]) for row in rows("kv_cache") if row["weights_gib_per_gpu"]
    }
    for row_id, name, dtype, ranks in (
        ("kv1", "Llama-3.1-8B", "bf16", 1),
        ("kv13", "gpt-oss-120b", "mxfp4", 1),
        ("kv14", "Llama-3.1-405B", "fp8", 8),
    ):  # fmt: skip
        weights = weight_bytes(model_named(name), dtype)
        low, high = weights.low / GIB / ranks, weights.high / GIB / ranks
        assert low * 0.995 <= told[row_id] <= high * 1.005, row_id


# --- throughput -------------------------------------------------------------------------------------------------------


def by_model(row: Row) -> str:
    return row.model.partition("-Instruct")[0]


def by_part(row: Row) -> str:
    return row.part


@pytest.mark.parametrize("key", [by_model, by_part])
def test_throughput_of_rows_that_the_constants_have_not_seen(key: Callable[[Row], str]) -> None:
    band = constants()["band.throughput"]
    found = left_out(throughput_rows(TABLES), latency_rows(TABLES), key)
    measured = [1 / ratio for group in found.values() for ratio in group]
    assert len(found) >= 2
    assert len(measured) >= 70
    inside = sum(band.low <= ratio <= band.high for ratio in measured) / len(measured)
    assert inside >= LEAST_INSIDE
    assert median(abs(1 / ratio - 1) for ratio in measured) <= MOST_ERROR


def test_the_interval_is_no_wider_than_stated() -> None:
    band = constants()["band.throughput"]
    assert 0.6 <= band.low <= 1 <= band.high <= 1.7


def test_the_constants_are_what_the_fit_gives() -> None:
    values = dict(zip(NAMES, fit(throughput_rows(TABLES), latency_rows(TABLES)), strict=True))
    kept = constants()
    assert values["bandwidth"] == pytest.approx(kept["engine.bandwidth"].value, rel=0.02)
    assert values["layer_s"] == pytest.approx(kept["engine.layer_s"].value, rel=0.02)
    assert values["fp8"] == pytest.approx(kept["compute.fp8"].value, rel=0.02)
    assert values["fp4"] == pytest.approx(kept["compute.fp4"].value, rel=0.02)


def test_a_sheet_says_the_throughput_of_every_row_with_its_interval() -> None:
    inside = 0
    every = rows("inference_throughput")
    for row in every:
        request = Request(
            model_named(row["model"]), float(row["isl"]), float(row["osl"]), dtype=row["precision"], tensor=int(row["tp"])
        )  # fmt: skip
        sheet = plan_serving(
            request, part_named({"RTX PRO 6000": "rtx_pro_6000_server"}.get(row["gpu"], row["gpu"]))
        )
        said = figure(sheet, "the knee", "throughput")
        inside += said.low <= float(row["output_tokens_per_s_total"]) <= said.high
    assert inside / len(every) >= LEAST_INSIDE


MLPERF = {"H200-SXM": "h200_sxm", "H200-SXM Triton": "h200_sxm", "MI300X": "mi300x", "MI325X": "mi325x", "MI355X": "mi355x"}  # fmt: skip
TOKENS = (294.0, 294.0)
"""In and out, on the mean, of the questions that MLPerf asks Llama 2 70B (remembered)."""


def test_mlperf_that_no_constant_was_fitted_to() -> None:
    told = [
        row for row in rows("mlperf")
        if row["model"] == "llama2-70b-99" and row["scenario"] in ("Offline", "Server") and row["gpu"] in MLPERF
    ]  # fmt: skip
    assert len(told) >= 5
    for row in told:
        request = Request(model_named("Llama-2-70B"), *TOKENS, dtype=row["precision"][:3], tensor=1)
        said = figure(plan_serving(request, part_named(MLPERF[row["gpu"]])), "the knee", "throughput")
        assert said.low <= float(row["result"]) / float(row["n_gpu"]) <= said.high, row["id"]


# --- latency ----------------------------------------------------------------------------------------------------------


def nim() -> list[tuple[dict[str, str], Row]]:
    told = {row["id"]: row for row in rows("inference_latency")}
    return [(told[row.id], row) for row in latency_rows(TABLES)]


def test_latency_by_concurrency() -> None:
    found = nim()
    assert len(found) >= 7
    for told, row in found:
        point = at_concurrency(row.replica, row.load, row.concurrency)
        assert point.itl * 1e3 == pytest.approx(float(told["itl_ms"]), rel=0.10), row.id
        assert point.ttft * 1e3 == pytest.approx(float(told["ttft_ms"]), rel=0.10), row.id
        assert point.throughput == pytest.approx(float(told["output_tokens_per_s"]), rel=0.10), row.id


def test_the_knee_of_the_sweep_is_where_the_memory_for_keys_and_values_ends() -> None:
    sweep = [(told, row) for told, row in nim() if float(told["isl"]) == 5000]
    told, row = max(sweep, key=lambda pair: pair[1].concurrency)
    # Little's law: what runs at once, from what was measured far beyond the knee
    running = float(told["output_tokens_per_s"]) * float(told["itl_ms"]) / 1e3
    assert row.load.slots == pytest.approx(running, rel=0.05)
    request = Request(
        model_named("Llama-3.3-70B"), float(told["isl"]), float(told["osl"]), users=250, dtype="fp8", tensor=2, replicas=1
    )  # fmt: skip
    sheet = plan_serving(request, part_named("H100"))
    assert figure(sheet, "the knee", "requests at once a replica").value == pytest.approx(85.4, rel=0.03)
    beyond = at_concurrency(row.replica, row.load, 3 * row.load.slots)
    assert beyond.throughput == pytest.approx(saturated(row.replica, row.load).throughput, rel=0.01)
    assert beyond.ttft > 20 * saturated(row.replica, row.load).ttft
    assert any("past the knee" in words for words in sheet.warnings)


def test_constants_change_what_is_foretold() -> None:
    row = throughput_rows(TABLES)[0]
    usual = [0.82, 0.57, 0.39, 58e-6]
    slower = [value / 2 for value in usual[:3]] + [usual[3] * 2]
    assert predicted(row, slower) < predicted(row, usual)
    assert with_constants(row, usual).engine.bandwidth == 0.82
    assert all(math.isfinite(ratio) for ratio in ratios([row], usual))
