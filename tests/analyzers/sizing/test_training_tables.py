"""The calculator held to published measurements of training: the folder of tables that COLDAISLE_TABLES names."""

from __future__ import annotations

import csv
import os
import re
from collections.abc import Iterator
from pathlib import Path
from statistics import median

import pytest
from lab import benches  # first: it makes the next import possible

from benchmarks import training_constants as training
from coldaisle.analyzers.sizing.catalogue import Model, fabric_named, model_named, node_named
from coldaisle.analyzers.sizing.collectives import Network, bus_bandwidth, collective_seconds, collective_time
from coldaisle.analyzers.sizing.flops import hfu, mfu, training_flops
from coldaisle.analyzers.sizing.layout import Layout
from coldaisle.analyzers.sizing.memory import (
    Trained,
    activations,
    bytes_per_parameter,
    fullest,
    interval_of,
)
from coldaisle.analyzers.sizing.power import node_power
from coldaisle.analyzers.sizing.quantity import Quantity
from coldaisle.analyzers.sizing.resilience import HOUR, mtbf
from coldaisle.analyzers.sizing.search import Candidate, Wish, best
from coldaisle.analyzers.sizing.sheet import Sheet
from coldaisle.analyzers.sizing.site import Site, machine
from coldaisle.analyzers.sizing.step import paces, step_of
from coldaisle.analyzers.sizing.training import plan_finetuning, plan_training
from coldaisle.sources.parts.catalogue import GIB, MIB, parts

TABLES = Path(os.environ.get("COLDAISLE_TABLES", "/nonexistent"))
pytestmark = pytest.mark.skipif(not TABLES.is_dir(), reason="no published tables (COLDAISLE_TABLES)")

_GPUS = {"h100_80gb": "h100_sxm", "a100_80gb": "a100_sxm_80", "a100_40gb": "a100_sxm_40"}
_RUN_GPUS = {
    "A100-80GB": "a100_sxm_80",
    "H100-80GB": "h100_sxm",
    "H800": "h800_sxm",
    "V100": "v100_sxm2_32",
    "A100-80GB / A100": "a100_sxm_80",
}
_SIZES = {"KiB": 2.0**10, "MiB": MIB, "GiB": GIB}


def rows(name: str) -> list[dict[str, str]]:
    path = TABLES / f"reference_{name}.csv"
    if not path.exists():
        return []
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def throughput() -> Iterator[tuple[dict[str, str], Model, float, str]]:
    for row in rows("training_throughput"):
        params = float(row["n_params"])
        model = Model(row["model"], params, params, layers=int(row["n_layers"]), hidden=int(row["d_model"]))
        dtype = "fp8" if "fp8" in row["precision"] else "bf16"
        yield row, model, parts()[_GPUS[row["gpu"]]].peak(dtype), dtype


def figure(sheet: Sheet, section: str, name: str) -> Quantity:
    return dict(next(each for each in sheet.sections if each.name == section).figures)[name]


def test_mfu_of_every_row_is_what_its_rate_means() -> None:
    found = list(throughput())
    assert found
    for row, model, peak, _ in found:
        rate, seq = float(row["tokens_per_s_gpu"]), int(row["seq"])
        assert mfu(rate, model, seq, peak).value * 100 == pytest.approx(float(row["mfu_pct"]), rel=0.005), (
            row["id"]
        )


def test_hfu_counts_what_is_recomputed() -> None:
    for row, model, peak, _ in throughput():
        again = "full" if row["act_checkpointing"] == "True" else "none"
        value = hfu(float(row["tokens_per_s_gpu"]), model, int(row["seq"]), peak, again).value  # type: ignore[arg-type]
        assert value * 100 == pytest.approx(float(row["hfu_pct"]), rel=0.005), row["id"]


def test_work_of_whole_runs() -> None:
    told = [row for row in rows("training_runs") if row["published_flops"] and "OPT" not in row["model"]]
    for row in told:
        params = float(row["n_params_active"])
        work = training_flops(Model(row["model"], params, params), float(row["tokens"]))
        assert work.value == pytest.approx(float(row["published_flops"]), rel=0.01), row["id"]


def test_gpu_hours_of_whole_runs_lie_in_the_interval() -> None:
    """What model cards count, of a likely number of GPUs: in nine rows of ten."""
    held, missed = 0, []
    for row in rows("training_runs"):
        part = parts()[next(p for name, p in _RUN_GPUS.items() if row["gpu"].startswith(name))]
        params, hours = float(row["n_params_active"]), float(row["gpu_hours"])
        model = (
            model_named("deepseek-v3") if "DeepSeek" in row["model"] else Model(row["model"], params, params)
        )
        sheet = plan_training(model, float(row["tokens"]), part, gpus=2048 if hours > 1e6 else 512)
        assert sheet.fits, row["id"]
        hour = figure(sheet, "time", "GPU-hours as model cards count")
        if hour.low <= hours <= hour.high:
            held += 1
        else:
            missed.append((row["id"], hours, hour))
    assert held >= 0.9 * (held + len(missed)), missed


def test_time_of_the_published_layouts() -> None:
    """Rows of FSDP as they were run: the median error, and how often the interval holds."""
    ratios, inside = [], 0
    for row, model, _, dtype in throughput():
        shaped = Model(
            model.name, model.params, model.params, layers=model.layers, hidden=model.hidden,
            heads=(model.hidden or 0) // 128, kv_heads=(model.hidden or 0) // 128, ffn=4 * (model.hidden or 0),
            vocab=50_368, gated_ffn=False, tied_embedding=True,
        )  # fmt: skip
        run, built = Trained(shaped, int(row["seq"]), dtype), machine(parts()[_GPUS[row["gpu"]]], Site())
        layout = Layout(
            data=int(row["gpus"]),
            microbatch=int(row["micro_batch"]),
            microbatches=int(row["grad_accum"]),
            sharding="parameters" if row["sharding"] == "FULL_SHARD" else "gradients",
            recompute="full" if row["act_checkpointing"] == "True" else "none",
        )
        times = [step_of(run, built, layout, pace).total for pace in paces(run, built.part, layout)]
        tokens = layout.batch * run.seq / int(row["gpus"])
        told = tokens / float(row["tokens_per_s_gpu"])
        ratios.append(times[0] / told)
        inside += times[1] <= told <= times[2]
    assert median(abs(ratio - 1) for ratio in ratios) <= 0.15
    assert 0.9 <= median(ratios) <= 1.1
    assert inside >= 0.75 * len(ratios)


def test_sizes_that_a_fit_has_not_seen() -> None:
    """With each model size left out of the fit: what analyzers/README.md states."""
    assert benches
    groups = training.left_out(training.rows(TABLES), lambda row: row.size)
    pairs = [pair for found in groups.values() for pair in found]
    assert median(abs(ratio - 1) for _, ratio in pairs) <= 0.10
    assert sum(training.inside(row, ratio) for row, ratio in pairs) >= 0.8 * len(pairs)


def test_published_throughput_of_other_programs() -> None:
    """Megatron's and NeMo's own layouts (fp8) are reached within the interval of the best layout."""
    told = {"mg9": "llama-3-8b", "mg10": "llama-3-70b", "mg11": "llama-3.1-405b"}
    for row in rows("training_other"):
        if row["id"] not in told:
            continue
        seq, gpus = int(row["seq"]), int(row["gpus"])
        sheet = plan_training(
            model_named(told[row["id"]]), 1e12, parts()["h100_sxm"], gpus=gpus, seq=seq,
            batch_tokens=float(row["gbs"]) * seq, dtype="fp8",
        )  # fmt: skip
        rate = figure(sheet, "time", "tokens/s a GPU")
        assert rate.low <= float(row["tokens_per_s_gpu"]) <= rate.high, row["id"]


def test_published_fine_tuning() -> None:
    """NeMo on H100 in fp8: 13B whole on 16, adapters of 70B on 8."""
    told = {
        row["id"]: float(row["tokens_per_s_gpu"])
        for row in rows("training_other")
        if row["id"] in ("nf1", "nf5")
    }
    small = Model(
        "Llama-2-13B",
        13.02e9,
        13.02e9,
        layers=40,
        hidden=5120,
        heads=40,
        kv_heads=40,
        ffn=13_824,
        vocab=32_000,
    )
    h100, batch = parts()["h100_sxm"], 32 * 4096.0
    sheets = {
        "nf1": plan_finetuning(small, 1e8, h100, method="full", gpus=16, batch_tokens=batch, dtype="fp8"),
        "nf5": plan_finetuning(
            model_named("llama-2-70b"), 1e8, h100, gpus=8, batch_tokens=batch, dtype="fp8"
        ),
    }
    for name, rate in told.items():
        own = figure(sheets[name], "time", "tokens/s a GPU")
        assert own.low <= rate <= own.high, (name, own)


def _bloom(params: float, pipeline: int) -> Model:
    """Of BLOOM's size class: 14,336 wide, 112 heads, 250,880 words."""
    hidden, vocab = 14_336, 250_880
    layers = max(round((params - vocab * hidden) / (12 * hidden**2) / pipeline), 1) * pipeline
    return Model(
        "BLOOM", params, params, layers=layers, hidden=hidden, heads=112, kv_heads=112, ffn=4 * hidden,
        vocab=vocab, gated_ffn=False, tied_embedding=True,
    )  # fmt: skip


def test_memory_of_blooms_layouts() -> None:
    """Measured GB a GPU of runs with 8 to 24 data-parallel ranks and PP 2 to 12."""
    errors, inside = [], 0
    for row in rows("training_other"):
        shape = re.fullmatch(r"DP(\d+) TP(\d+) PP(\d+) MBS(\d+)", row["parallelism"])
        told = re.search(r"(\d+)GB per GPU", row["note"])
        if shape is None or told is None:
            continue
        data, tensor, pipeline, microbatch = map(int, shape.groups())
        layout = Layout(
            tensor,
            pipeline,
            data,
            1,
            microbatch,
            max(int(row["gbs"]) // (data * microbatch), 1),
            "optimizer",
            "full",
        )
        memory = fullest(Trained(_bloom(float(row["n_params"]), pipeline), 2048), layout)
        total = interval_of(memory)
        errors.append(abs(total.value / 1e9 / float(told[1]) - 1))
        inside += total.low <= float(told[1]) * 1e9 <= total.high
    assert median(errors) <= 0.12
    assert sum(error <= 0.25 for error in errors) >= 0.85 * len(errors)


def test_bytes_of_memory_tables() -> None:
    told = {row["id"]: row["value"] for row in rows("memory")}
    assert float(told["mm0"]) == bytes_per_parameter("none", 8).value
    assert told["mm1"] == "6+12/dp"
    assert bytes_per_parameter("optimizer", 8).value == 6 + 12 / 8
    assert [bytes_per_parameter(kind, 4, "fp16").value for kind in ("none", "optimizer")] == [20, 4 + 16 / 4]
    assert [bytes_per_parameter(kind, 4, "fp32").value for kind in ("none", "optimizer")] == [16, 8 + 8 / 4]
    copies = float(told["mm15"]) * 2
    own = activations(model_named("llama-3.1-8b"), 4096, 1, recompute="none", flash=True)
    hidden = 4096 * 4096
    assert own.low <= copies * hidden <= own.high * 1.02


def test_all_reduces_of_a_gibibyte_and_more() -> None:
    for row in rows("collectives"):
        payload = _payload(row["payload"])
        busbw = float(row["busbw_gbs"]) * 1e9
        if row["op"] != "all_reduce" or payload < GIB or "SHARP" in row["system"]:
            continue
        network, per_node = _network(row)
        seconds = collective_seconds("all_reduce", payload, int(row["ranks"]), per_node, network)
        own = bus_bandwidth("all_reduce", payload, int(row["ranks"]), seconds)
        assert own == pytest.approx(busbw, rel=0.15), row["id"]


def test_four_nodes_of_eight() -> None:
    """Milliseconds that ml-engineering measured for 1, 4 and 16 GiB on 4 x 8 B200: 5.7, 22.1, 87.2."""
    network = Network(900e9, 0.94, 8, 50e9, 0.74)
    for gib, told in ((1, 5.7e-3), (4, 22.1e-3), (16, 87.2e-3)):
        own = collective_time("all_reduce", gib * GIB, 32, 8, network)
        assert own.value == pytest.approx(told, rel=0.15)
        assert own.low <= told <= own.high


def _payload(text: str) -> float:
    size, unit = re.fullmatch(r"([\d.]+)\s*(\w+)", text).groups()  # type: ignore[union-attr]
    return float(size) * _SIZES[unit]


def _network(row: dict[str, str]) -> tuple[Network, int]:
    generation = re.search(r"NVLink(\d)", row["system"])
    link = fabric_named(f"nvlink{generation[1]}" if generation else "nvlink5")
    port, efficiency = (50e9, 0.74) if "EFA" in row["system"] else (50e9, 0.85)
    per_node = int(row["ranks"]) // int(row["nodes"])
    return Network(link.rate, link.efficiency, 8, port, efficiency, link.reduce_efficiency), per_node


def test_power_of_nodes() -> None:
    told = {row["id"]: row for row in rows("power")}
    h100 = node_power(parts()["h100_sxm"], 8, node_named("dgx_h100"))
    bare = node_power(parts()["h100_sxm"], 8)
    assert h100.nameplate.value == float(told["pw0"]["value"])
    for power in (h100, bare):
        assert 0.85 <= power.peak.value / float(told["pw2"]["value"]) <= 1.10
        assert 0.85 <= power.busy.value / (float(told["pw3"]["value"]) / 100 * 10_200) <= 1.10
    rack = node_power(parts()["gb300"], 72, node_named("gb300_nvl72"))
    assert 0.85 <= rack.peak.value / float(told["pw8"]["value"]) <= 1.10


def test_failures_of_llama_3_1() -> None:
    """419 interruptions in 54 days on 16,384 GPUs."""
    assert mtbf(16_384).value / HOUR == pytest.approx(54 * 24 / 419, rel=0.01)
    told = {row["id"]: row for row in rows("reliability")}
    least, most = (float(each) for each in told["rl8"]["value"].split("/"))
    assert mtbf(16_384).low / HOUR <= least
    assert most < mtbf(1_024).value / HOUR


def test_effective_time_of_llama_3_1() -> None:
    """More than 90 % were effective."""
    sheet = plan_training(
        model_named("llama-3.1-405b"), 15.6e12, parts()["h100_sxm"], gpus=16_384, batch_tokens=16_777_216
    )
    share = figure(sheet, "time", "goodput")
    assert share.low <= 0.90 <= share.high


def test_llama_3_1_in_its_own_layout() -> None:
    """TP 8, PP 16, DP 128 reached 40 % MFU: within the interval of the utilisation."""
    sheet = plan_training(
        model_named("llama-3.1-405b"), 15.6e12, parts()["h100_sxm"], gpus=16_384, batch_tokens=16_777_216,
        tensor=8, pipeline=16, data=128,
    )  # fmt: skip
    share = figure(sheet, "time", "MFU")
    assert 0.8 * share.low <= 0.404 <= share.high * 1.1


def test_a_layout_is_found_for_what_was_trained() -> None:
    for row in rows("training_other"):
        if row["id"] in ("mg9", "mg10", "mg11"):
            model = model_named(
                {"mg9": "llama-3-8b", "mg10": "llama-3-70b", "mg11": "llama-3.1-405b"}[row["id"]]
            )
            run = Trained(model, int(row["seq"]), "fp8")
            found = best(run, machine(parts()["h100_sxm"], Site()), Wish(int(row["gbs"])), int(row["gpus"]))
            assert isinstance(found, Candidate)
