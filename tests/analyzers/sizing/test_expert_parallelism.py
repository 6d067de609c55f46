"""Mixtures of experts: what expert parallelism does to memory, traffic and time, and which degrees there are."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from coldaisle.analyzers.sizing.catalogue import Model, model_named, part_named
from coldaisle.analyzers.sizing.collectives import Network, collective_seconds
from coldaisle.analyzers.sizing.layout import Layout, expert_sizes
from coldaisle.analyzers.sizing.memory import Trained, fullest, routed_params
from coldaisle.analyzers.sizing.plan_serving import Request, plan_serving
from coldaisle.analyzers.sizing.quantity import Quantity
from coldaisle.analyzers.sizing.sheet import Sheet, SizingError
from coldaisle.analyzers.sizing.site import Site, machine
from coldaisle.analyzers.sizing.step import all_to_all
from coldaisle.analyzers.sizing.training import plan_training
from coldaisle.analyzers.sizing.weights import weight_bytes

H100 = part_named("h100_sxm")
MIXTRAL = model_named("mixtral-8x7b")
DEEPSEEK = model_named("deepseek-v3")
DENSE = model_named("llama-3.1-8b")


def section(sheet: Sheet, name: str) -> dict[str, Quantity]:
    (found,) = (one for one in sheet.sections if one.name == name)
    return dict(found.figures)


def test_degrees_divide_experts_and_ranks() -> None:
    assert expert_sizes(MIXTRAL, 64) == [1, 2, 4, 8]
    assert expert_sizes(MIXTRAL, 12) == [1, 2, 4]
    assert expert_sizes(DENSE, 64) == [1]


def test_most_of_a_mixture_is_experts() -> None:
    assert routed_params(MIXTRAL) == pytest.approx(45.1e9, rel=0.01)
    assert routed_params(DENSE) == 0


@pytest.mark.parametrize("sharding", ["none", "optimizer"])
def test_experts_are_divided_over_their_ranks(sharding: str) -> None:
    plain = Layout(tensor=1, pipeline=1, data=64, sharding=sharding)  # type: ignore[arg-type]
    run = Trained(MIXTRAL, 4096)
    alone, shared = fullest(run, plain), fullest(run, replace(plain, expert=8))
    gone = routed_params(MIXTRAL) * 7 / 8
    assert alone.weights - shared.weights == pytest.approx(2 * gone)
    assert alone.gradients - shared.gradients == pytest.approx(4 * gone)
    # Sharded states are as large either way: fewer experts over fewer ranks.
    saved = 12 * gone if sharding == "none" else 0.0
    assert alone.optimizer - shared.optimizer == pytest.approx(saved, abs=1e4)


def test_each_token_goes_to_its_experts_and_back_twice() -> None:
    run, layout = Trained(MIXTRAL, 4096), Layout(data=8, expert=8, microbatches=3)
    seconds, sent = all_to_all(run, machine(H100, Site()), layout)
    assert sent == pytest.approx(4 * 3 * 32 * 7 / 8 * 2 * 2 * 4096 * 4096)
    assert seconds > sent / 450e9
    assert all_to_all(run, machine(H100, Site()), replace(layout, expert=1)) == (0.0, 0.0)


def test_an_all_to_all_over_nodes_sends_all_of_it_through_ports() -> None:
    network = Network(450e9, 0.8, 8, 50e9, 0.85)
    seconds = collective_seconds("all_to_all", 1e9, 16, 8, network, ramp=False)
    assert seconds == pytest.approx(0.5 * 1e9 / (50e9 * 0.85))


def test_a_degree_that_is_told_is_taken() -> None:
    sheet = plan_training(MIXTRAL, 1e12, H100, gpus=64, tensor=1, expert=8)
    assert section(sheet, "layout")["expert parallelism"].value == 8
    assert "EP 8" in sheet.answer
    assert section(sheet, "network")["all-to-all a step and GPU"].value > 0
    exposed = section(sheet, "step time")["exposed all-to-all"]
    assert exposed.low < exposed.value < exposed.high


def test_every_degree_is_told_with_its_memory_and_step() -> None:
    sheet = plan_training(MIXTRAL, 1e12, H100, gpus=64)
    figures = section(sheet, "expert parallelism")
    data = int(section(sheet, "layout")["data parallelism"].value)
    assert {label.partition(":")[0] for label in figures} == {
        f"EP {size}" for size in expert_sizes(MIXTRAL, data)
    }
    (found,) = (one for one in sheet.sections if one.name == "expert parallelism")
    assert "what binds it: " in found.note


def test_what_fits_no_other_way_takes_expert_parallelism() -> None:
    told = {"gpus": 256, "tensor": 1, "pipeline": 16, "sharding": "optimizer", "microbatch": 1}
    with_experts = plan_training(DEEPSEEK, 1e12, H100, **told)  # type: ignore[arg-type]
    assert with_experts.fits
    assert section(with_experts, "layout")["expert parallelism"].value > 1
    (found,) = (one for one in with_experts.sections if one.name == "expert parallelism")
    assert "what binds it: memory" in found.note
    assert not plan_training(DEEPSEEK, 1e12, H100, expert=1, **told).fits  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("model", "more", "words"),
    [
        (DENSE, {"expert": 8}, "has none that are told"),
        (MIXTRAL, {"expert": 3}, "8 experts do not divide over EP 3"),
        (MIXTRAL, {"expert": 8, "data": 4}, "EP 8 takes its ranks from DP and CP"),
        (MIXTRAL, {"expert": 0}, "expert"),
    ],
)
def test_contradictions_are_said(model: Model, more: dict[str, int], words: str) -> None:
    with pytest.raises(SizingError, match=words):
        plan_training(model, 1e12, H100, **more)  # type: ignore[arg-type]


def test_experts_that_are_not_told_are_not_passed_over_in_silence() -> None:
    model = Model("told", 100e9, 20e9, layers=48, hidden=6144, heads=48, kv_heads=8, head_dim=128)
    sheet = plan_training(model, 1e12, H100, gpus=256)
    assert any("not considered" in words for words in sheet.warnings)


# -- serving


def test_serving_tells_what_each_degree_keeps_sends_and_takes() -> None:
    sheet = plan_serving(Request(DEEPSEEK, 2000, 500, dtype="fp8"), part_named("h200_sxm"))
    figures = section(sheet, "expert parallelism")
    weights = weight_bytes(DEEPSEEK, "fp8").value
    assert figures["EP 16: weights"].value < figures["EP 8: weights"].value < weights
    # 37 of 671 billion are of one token; what is no expert is on every rank.
    assert figures["EP 64: weights"].value == pytest.approx(27e9, rel=0.15)
    at = figures["EP 16: at once a GPU"].value
    assert figures["EP 16: all-to-all"].value == pytest.approx(61 * 2 * 8 * 7168 * 2 * 15 / 16 * at, rel=0.01)
    seconds = figures["EP 16: time"]
    assert seconds.low < seconds.value < seconds.high
    (found,) = (one for one in sheet.sections if one.name == "expert parallelism")
    assert "EP 16 is the fewest" in found.note or "EP 8 is the fewest" in found.note


@pytest.mark.parametrize("users", [math.nan, 2000.0])
def test_the_degree_that_serves_most_is_held_against_the_layout(users: float) -> None:
    request = Request(DEEPSEEK, 1000, 500, dtype="fp8", users=users)
    sheet = plan_serving(request, part_named("h200_sxm"))
    figures = section(sheet, "expert parallelism")
    speeds = {label: one.value for label, one in figures.items() if label.endswith("throughput a GPU")}
    # Each GPU with its own requests keeps the latent once, where tensor parallelism keeps eight copies.
    most = max(speeds, key=lambda label: speeds[label])
    assert most == "EP 8: throughput a GPU"
    (found,) = (one for one in sheet.sections if one.name == "expert parallelism")
    assert "EP 8 serves most" in found.note
    assert "the best for a load of 8 GPUs or more" in found.note


def test_no_degree_is_best_where_none_keeps_the_goal() -> None:
    request = Request(MIXTRAL, 1000, 500, itl=0.006)
    sheet = plan_serving(request, part_named("h200_sxm"))
    (found,) = (one for one in sheet.sections if one.name == "expert parallelism")
    assert "no degree of it meets what was asked" in found.note


def test_a_dense_model_has_no_experts() -> None:
    assert "expert parallelism" not in {
        one.name for one in plan_serving(Request(DENSE, 2000, 500), H100).sections
    }


def test_a_token_crosses_to_a_node_once_however_many_of_its_experts_stand_there() -> None:
    """Of eight experts on two nodes, both hold some nearly always: one crossing, where each by itself would be four."""
    sheet = plan_serving(Request(DEEPSEEK, 2000, 300, dtype="fp8", users=500.0), part_named("h200_sxm"))
    found = section(sheet, "expert parallelism")
    exposed, hop, port = 0.6, 60e-6, 50e9 * 0.85
    one_way = found["EP 16: all-to-all"].value / (2 * 61) / (15 / 16)
    once = 2 * (1 - 0.5**8) / 8
    seconds = 2 * 61 * exposed * (one_way * once / 2 / port + hop)
    assert found["EP 16: time"].value == pytest.approx(seconds, rel=1e-6)
