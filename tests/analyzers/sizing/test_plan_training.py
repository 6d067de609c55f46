"""Plans of training and fine-tuning, as people ask for them."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coldaisle.analyzers.sizing.catalogue import Model, model_named, models, part_named
from coldaisle.analyzers.sizing.cited import all_cited
from coldaisle.analyzers.sizing.power import Prices
from coldaisle.analyzers.sizing.quantity import Quantity
from coldaisle.analyzers.sizing.sheet import Sheet, SizingError
from coldaisle.analyzers.sizing.site import Site
from coldaisle.analyzers.sizing.training import lora_parameters, plan_finetuning, plan_training
from coldaisle.sources.parts.catalogue import parts

DAY = 86_400.0
H100 = part_named("h100")
SMALL, LARGE = model_named("llama-3.1-8b"), model_named("llama-3.1-405b")


def figure(sheet: Sheet, section: str, name: str) -> Quantity:
    return dict(next(each for each in sheet.sections if each.name == section).figures)[name]


def gpus(sheet: Sheet) -> float:
    assert sheet.gpus is not None, sheet.answer
    return sheet.gpus.value


def test_with_a_number_of_gpus_the_answer_is_a_time() -> None:
    sheet = plan_training(SMALL, 15e12, H100, gpus=1024)
    assert gpus(sheet) == 1024
    wall = figure(sheet, "time", "wall clock")
    assert 15 * DAY < wall.value < 40 * DAY
    assert wall.low < wall.value < wall.high
    assert "1,024 H100" in sheet.answer
    assert sheet.binding is not None
    assert sheet.binding.name == "request"


def test_with_a_deadline_the_answer_is_a_number_of_gpus() -> None:
    sheet = plan_training(SMALL, 15e12, H100, deadline_s=30 * DAY)
    assert figure(sheet, "time", "wall clock").value <= 30 * DAY
    assert sheet.gpus is not None
    assert sheet.gpus.value % 8 == 0
    assert sheet.gpus.low < sheet.gpus.value < sheet.gpus.high
    assert sheet.binding is not None
    assert sheet.binding.name == "time"
    fewer = plan_training(SMALL, 15e12, H100, gpus=int(sheet.gpus.value * 0.85) // 8 * 8)
    assert figure(fewer, "time", "wall clock").value > 30 * DAY


def test_with_neither_the_smallest_that_holds_it_and_what_more_would_bring() -> None:
    sheet = plan_training(SMALL, 1e12, H100)
    assert gpus(sheet) <= 8
    scaling = next(section for section in sheet.sections if section.name == "scaling")
    times = [wall.value for _, wall in scaling.figures]
    assert len(times) >= 4
    assert times == sorted(times, reverse=True)


def test_sections_are_in_the_order_in_which_one_sizes() -> None:
    sheet = plan_training(SMALL, 1e12, H100, gpus=64, site=Site(prices=Prices("2026-11-01", gpu_hour=2.35)))
    assert [section.name for section in sheet.sections] == [
        "work", "memory of the fullest GPU", "layout", "step time", "time", "network", "storage and checkpoints",
        "failures and goodput", "power and racks", "cost", "scaling",
    ]  # fmt: skip
    for section in sheet.sections:
        names = [name for name, _ in section.figures]
        assert len(names) == len(set(names)), section.name
    assert figure(sheet, "cost", "the run").unit == "$"


def test_the_memory_map_adds_up() -> None:
    sheet = plan_training(LARGE, 1e12, H100, gpus=1024)
    section = next(each for each in sheet.sections if each.name == "memory of the fullest GPU")
    figures = dict(section.figures)
    total, room = figures.pop("total"), figures.pop("of a GPU")
    assert sum(each.value for each in figures.values()) == pytest.approx(total.value)
    assert total.value <= room.value


def test_what_does_not_fit_says_what_binds_and_what_would_do() -> None:
    sheet = plan_training(LARGE, 1e12, H100, gpus=8)
    assert sheet.gpus is None
    assert "does not fit on 8 H100" in sheet.answer
    assert "would do" in sheet.answer
    assert sheet.answer.endswith("What binds: memory")
    would = int(sheet.answer.split("; ")[1].split(" would")[0].replace(",", ""))
    assert plan_training(LARGE, 1e12, H100, gpus=would).fits


def test_a_batch_that_so_many_cannot_share() -> None:
    sheet = plan_training(SMALL, 1e12, H100, gpus=4096, batch_tokens=8 * 8192)
    assert not sheet.fits
    assert "it has to be 16 at least" in sheet.answer
    assert sheet.answer.endswith("What binds: batch")
    assert plan_training(SMALL, 1e12, H100, gpus=4096, batch_tokens=16 * 8192).fits


def test_a_deadline_that_so_many_miss_is_said_in_the_answer() -> None:
    sheet = plan_training(SMALL, 15e12, H100, gpus=64, deadline_s=DAY)
    assert "after the deadline" in sheet.answer
    assert any("deadline" in warning for warning in sheet.warnings)


def test_a_place_of_ruin_is_still_answered() -> None:
    """Storage of a byte a second, failures each minute: next to nothing gets done, and that is said."""
    sheet = plan_training(
        SMALL, 1e12, H100, gpus=64, site=Site(storage_write=1.0, restart_s=1e9, gpu_hours_per_failure=1e-3)
    )
    assert figure(sheet, "time", "goodput").value == pytest.approx(0.02)
    assert any("failures" in warning for warning in sheet.warnings)


def test_a_model_that_fits_nowhere() -> None:
    sheet = plan_training(Model("vast", 1e15, 1e15), 1e12, H100)
    assert not sheet.fits
    assert "no larger number does either" in sheet.answer


def test_a_deadline_that_nothing_meets() -> None:
    sheet = plan_training(LARGE, 15e12, H100, deadline_s=3600)
    assert not sheet.fits
    assert "What binds: time" in sheet.answer


def test_power_can_bind_before_the_number_of_gpus() -> None:
    sheet = plan_training(LARGE, 1e12, H100, site=Site(power_limit_w=50e3))
    assert not sheet.fits
    assert sheet.answer.endswith("What binds: power")
    given_too_many = plan_training(SMALL, 1e12, H100, gpus=64, site=Site(power_limit_w=50e3))
    assert given_too_many.answer.endswith("What binds: power")
    with pytest.raises(SizingError, match="feed no node"):
        plan_training(SMALL, 1e12, H100, site=Site(power_limit_w=5e3))


@pytest.mark.parametrize(
    ("told", "words"),
    [
        ({"tokens": 0}, "tokens is 0"),
        ({"tokens": -1e12}, "above zero"),
        ({"tokens": math.nan}, "above zero"),
        ({"tokens": math.inf}, "above zero"),
        ({"tokens": 1e30}, "more than there is text"),
        ({"gpus": 0}, "GPUs is 0"),
        ({"gpus": -8}, "above zero"),
        ({"gpus": 10**9}, "a whole number of at most"),
        ({"deadline_s": 0.0}, "deadline is 0"),
        ({"seq": 0}, "sequence is 0"),
        ({"seq": 10**12}, "a whole number of at most"),
        ({"batch_tokens": -1.0}, "batch is -1"),
        ({"batch_tokens": 100.0}, "less than one sequence"),
        ({"microbatch": 0}, "microbatch is 0"),
        ({"tensor": -1}, "above zero"),
        ({"tensor": 2.5}, "whole number"),
        ({"tensor": 16}, "wider than the 8 GPUs"),
        ({"tensor": 3}, "do not divide over TP 3"),
        ({"pipeline": 5}, "do not divide over PP 5"),
        ({"pipeline": 33}, "more stages"),
        ({"gpus": 64, "tensor": 8, "pipeline": 4, "data": 3}, "96 GPUs, not 64"),
        ({"gpus": 60, "tensor": 8}, "not 60"),
        ({"context": 3}, "does not divide over CP 3"),
        ({"data": 64, "batch_tokens": 8192.0 * 8}, "does not go over DP 64"),
        ({"dtype": "fp4"}, "has no fp4; it computes in"),
        ({"dtype": "made up"}, "nothing is trained in made up"),
        ({"sharding": "made up"}, "there is no sharding"),
        ({"recompute": "made up"}, "there is no recompute"),
    ],
)
def test_requests_that_mean_nothing_say_what_would_do(told: dict[str, float], words: str) -> None:
    with pytest.raises(SizingError, match=words):
        plan_training(SMALL, told.pop("tokens", 1e12), H100, **told)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "told",
    [
        {"network": 0.0}, {"storage_write": -1.0}, {"restart_s": math.inf}, {"pue": 0.5}, {"network_efficiency": 2.0},
        {"power_limit_w": 0.0},
    ],
)  # fmt: skip
def test_a_site_that_means_nothing_is_refused(told: dict[str, float]) -> None:
    with pytest.raises(SizingError):
        Site(**told)  # type: ignore[arg-type]


def test_what_was_told_of_the_layout_is_kept() -> None:
    sheet = plan_training(
        LARGE, 1e12, H100, gpus=1024, tensor=8, pipeline=8, context=2, batch_tokens=512 * 8192
    )
    for name, size in (("tensor", 8), ("pipeline", 8), ("context", 2), ("data", 8)):
        assert figure(sheet, "layout", f"{name} parallelism").value == size


@settings(deadline=None, max_examples=40)
@given(st.floats(1e6, 1e16), st.floats(1e6, 1e16), st.sampled_from([8, 64, 512]))
def test_more_tokens_never_take_less_time(some: float, more: float, count: int) -> None:
    low, high = (
        figure(plan_training(SMALL, tokens, H100, gpus=count), "time", "wall clock").value
        for tokens in sorted((some, more))
    )
    assert low <= high


@settings(deadline=None, max_examples=30)
@given(st.integers(3, 9), st.sampled_from(["h100_sxm", "a100_sxm_80", "mi300x", "b200_sxm"]))
def test_twice_the_gpus_never_take_longer(power: int, part: str) -> None:
    few, many = (
        figure(plan_training(SMALL, 1e12, parts()[part], gpus=count), "time", "wall clock").value
        for count in (2**power, 2 ** (power + 1))
    )
    assert many < few


@settings(deadline=None, max_examples=40)
@given(st.floats(1e6, 1e13), st.sampled_from(sorted(parts())), st.sampled_from([None, 1, 7, 8, 96, 1024]))
def test_any_size_on_any_part_is_an_answer(params: float, part: str, count: int | None) -> None:
    sheet = plan_training(Model("any", params, params), 1e11, parts()[part], gpus=count)
    assert sheet.answer
    assert sheet.part == part
    assert sheet.fits or "What binds" in sheet.answer


@pytest.mark.parametrize("name", sorted(models()))
def test_every_model_of_the_catalogue_is_sized(name: str) -> None:
    sheet = plan_training(models()[name], 1e12, part_named("b200"), deadline_s=90 * DAY)
    assert sheet.answer
    for method in ("full", "lora", "qlora"):
        assert plan_finetuning(models()[name], 1e8, part_named("b200"), method=method).fits, method


def test_methods_of_fine_tuning_need_less_and_less() -> None:
    model = model_named("llama-3.1-70b")
    full, lora, qlora = (
        plan_finetuning(model, 1e8, H100, method=method) for method in ("full", "lora", "qlora")
    )
    assert gpus(full) > gpus(lora) >= gpus(qlora)
    assert gpus(full) >= 16, "18 bytes a parameter are 1.27 TB"


def test_lora_is_half_as_quick_again() -> None:
    """NeMo: 1.44 to 1.47 times the tokens/s of full fine-tuning, where both fit alike."""
    rates = [
        figure(
            plan_finetuning(SMALL, 1e8, H100, method=method, gpus=8, recompute="none"), "time", "tokens/s"
        ).value
        for method in ("full", "lora")
    ]
    assert 1.3 <= rates[1] / rates[0] <= 1.6


def test_adapters_of_rank_16() -> None:
    """Llama-3.1-8B at rank 16 on all products: 41.9 M parameters."""
    assert lora_parameters(SMALL, 16).value == pytest.approx(41.9e6, rel=0.01)
    with pytest.raises(SizingError, match="rank is 0"):
        plan_finetuning(SMALL, 1e8, H100, rank=0)
    with pytest.raises(SizingError, match="no method"):
        plan_finetuning(SMALL, 1e8, H100, method="magic")  # type: ignore[arg-type]


def test_often_quoted_rules_come_with_their_numbers() -> None:
    sheet = plan_training(model_named("gpt-3"), 300e9, part_named("a100_sxm_80"), gpus=1024, seq=2048)
    said = {each.claim: each.verdict for each in sheet.verdicts}
    claimed = next(verdict for claim, verdict in said.items() if "2e23" in claim)
    assert "wrong by 186 times" in claimed
    assert "1.05e+21" in claimed
    assert "191B tokens" in claimed
    assert any("3,637 petaflop-days" in verdict for verdict in said.values())
    assert any(claim.startswith("real work reaches 60 to 80 %") for claim in said)


def test_figures_that_are_quoted_have_a_source() -> None:
    assert all(each.source and each.what and each.unit for each in all_cited().values())


def test_storage_that_is_told_sets_the_pace_of_checkpoints() -> None:
    slow = plan_training(LARGE, 1e12, H100, gpus=1024, site=Site(storage_write=10e9))
    fast = plan_training(LARGE, 1e12, H100, gpus=1024, site=Site(storage_write=500e9))
    name = ("storage and checkpoints", "checkpoint interval")
    assert figure(slow, *name).value > figure(fast, *name).value
    assert figure(slow, "time", "goodput").value < figure(fast, "time", "goodput").value
    assert figure(slow, "storage and checkpoints", "checkpoint").value == 14 * LARGE.params
