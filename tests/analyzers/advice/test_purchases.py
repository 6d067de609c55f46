"""What is advised to buy for the work of a month: by what binds it, by kinds of work apart, and when nothing is."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pytest
from lab.month import COMPUTE, HEALTHY, LATENCY, MEMORY, WASTEFUL, Doing, JobKind, Month, month
from lab.usages import counsel_of, given, refused

from coldaisle.analyzers.advice.advice import Advice, Grade
from coldaisle.analyzers.advice.candidates import Option, ratio, speedup
from coldaisle.analyzers.advice.settings import Site
from coldaisle.analyzers.usage import Usage
from coldaisle.sources.parts.catalogue import parts

SMALL = {"nodes": 8, "days": 14, "step": 600}


def of(kinds: tuple[JobKind, ...], **what: object) -> Month:
    return month(kinds, **{**SMALL, **what})  # type: ignore[arg-type]


def alone(doing: Doing, name: str = "rl-train", gpus: tuple[int, ...] = (8,)) -> Usage:
    """A month of one kind of job."""
    return of((JobKind(name, ("ann", "bea"), gpus, 5.0, doing, 1.0),)).usage


def only(usage: Usage, site: Site | None = None) -> Advice:
    (found,) = given(usage, "purchase", site)
    return found


def why(usage: Usage) -> str:
    assert not given(usage, "purchase")
    return "; ".join(one.why for one in refused(usage, "purchase"))


def option(advice: Advice, part: str) -> Option:
    return next(one for one in advice.options if one.part == part)


# -- by what binds


@pytest.mark.parametrize("seed", [1, 2])
def test_a_majority_bound_by_memory_is_advised_bandwidth(seed: int) -> None:
    made = month(WASTEFUL, nodes=32, days=14, step=600, seed=seed)
    found = next(one for one in given(made.usage, "purchase") if one.id == "purchase:training:h100_sxm")
    assert re.match(r"reclaim [\d.]+ idle GPUs first, then buy memory bandwidth for training: ", found.action)
    assert "B200" in found.action
    assert "H200" in found.action
    assert found.grade is Grade.B
    zero, *parts_ = found.options
    assert (zero.part, zero.name) == ("", "reclaim")
    assert "reclaim" in zero.note
    assert [one.part for one in parts_] == sorted(
        (one.part for one in parts_),
        key=lambda part: option(found, part).power.value,  # type: ignore[union-attr]
    )
    h200, b200 = option(found, "h200_sxm"), option(found, "b200_sxm")
    assert h200.speedup is not None
    assert b200.speedup is not None
    assert 1.2 < h200.speedup.value < 1.43
    assert 2.0 < b200.speedup.value < 2.4
    assert h200.gpus.value == pytest.approx(zero.gpus.value / h200.speedup.value, rel=0.05)
    assert h200.gpus.low <= h200.gpus.value <= h200.gpus.high
    assert h200.binding == "throughput"


def test_where_nothing_is_short_reclaiming_stands_first_and_parts_are_for_a_replacement() -> None:
    made = month(WASTEFUL, nodes=32, days=14, step=600, load=0.4)
    found = next(one for one in given(made.usage, "purchase") if one.id == "purchase:training:h100_sxm")
    assert re.match(
        r"reclaim [\d.]+ idle GPUs and buy nothing for training: nothing is short then", found.action
    )
    assert "new hardware will not help; for a replacement go by memory bandwidth: " in found.action
    assert "nothing is short" in found.but
    assert found.options[0].name == "reclaim"


def test_the_share_is_what_was_planted() -> None:
    kinds = tuple(kind for kind in WASTEFUL if kind.name in ("pretrain-13b", "gnn-train", "recsys-train"))
    made = of(kinds, nodes=16)
    busy = made.planted.busy_gpu_hours
    share = busy["memory"] / (busy["memory"] + busy["compute"])
    told = only(made.usage).because
    assert float(told.split("binds ")[1].split("%")[0]) == pytest.approx(100 * share, abs=3)


def test_work_bound_by_compute_is_advised_flops_and_no_part_that_has_as_many() -> None:
    found = only(alone(COMPUTE))
    assert found.action.startswith("buy flop/s for training")
    assert [one.part for one in found.options] == ["", *sorted(("b200_sxm", "b300_sxm"), key=lambda p: option(found, p).power.value)]  # type: ignore[union-attr]  # fmt: skip
    assert "Pflop/s" in found.because


def test_what_nothing_binds_gets_no_faster_by_new_hardware() -> None:
    usage = alone(LATENCY)
    assert float(np.median(usage.means["gpu.util"][usage.means["gpu.util"] > 0.5])) > 0.8, (
        "as if it were full"
    )
    found = only(usage)
    assert found.action == "buy nothing for training on H100 SXM5 80GB: new hardware will not help"
    assert found.quantity.value == 0
    assert [one.name for one in found.options] == ["reclaim"]


def test_where_no_resource_binds_most_of_the_time_nothing_is_bought() -> None:
    kinds = tuple(
        JobKind(f"{name}-train", ("ann",), (8,), 5.0, doing, 1 / 3)
        for name, doing in (("a", COMPUTE), ("b", MEMORY), ("c", LATENCY))
    )
    found = only(of(kinds).usage)
    assert found.action.startswith("buy nothing")
    assert found.because.startswith("no resource binds most of its time")


def test_links_come_before_gpus() -> None:
    usage = alone(LATENCY)
    busy = usage.means["gpu.util"] > 0.5
    links = np.where(busy, 2.5e11, 0).astype(np.float32)
    found = only(replace(usage, means={**usage.means, "gpu.nvlink_tx": links}))
    assert found.action == "buy a faster fabric for training on H100 SXM5 80GB before GPUs"
    quiet = only(replace(usage, means={**usage.means, "gpu.nvlink_tx": links * np.float32(0.01)}))
    assert "new hardware will not help" in quiet.action
    assert "links are not measured" in only(usage).but, "small kernels and small messages look alike"


@pytest.mark.parametrize(
    ("key", "level", "what"),
    [("node.cpu_iowait", 0.5, "faster storage or loading"), ("node.cpu_util", 0.97, "more cores a GPU")],
)
def test_what_starves_gpus_comes_before_them(key: str, level: float, what: str) -> None:
    usage = alone(COMPUTE._replace(util=0.3, tensor=0.1, sm=0.25, dram=0.1))
    host = np.full((len(usage.starts), len(usage.hosts)), level, dtype=np.float32)
    starved = replace(usage, host_means={**usage.host_means, key: host})
    assert only(starved).action == f"buy {what} for training on H100 SXM5 80GB before GPUs"
    assert "new hardware will not help" in only(usage).action, "idle alone says nothing of storage"
    busy = alone(COMPUTE)
    full = replace(busy, host_means={**busy.host_means, key: host})
    assert only(full).action.startswith("buy flop/s"), "nor does a busy host where GPUs are busy"


# -- kinds of work


def test_kinds_of_work_are_sized_apart() -> None:
    kinds = (
        JobKind("pretrain-13b", ("ann",), (8,), 6.0, COMPUTE, 0.3),
        JobKind("sft-8b", ("bea",), (4,), 3.0, COMPUTE, 0.3),
        JobKind("vllm-chat", ("carl",), (1, 2), 9.0, MEMORY, 0.4),
        JobKind("jupyter", ("ida",), (1,), 4.0, COMPUTE, 0.1),
    )
    usage = of(kinds).usage
    found = {one.id.split(":")[1]: one for one in given(usage, "purchase")}
    assert set(found) == {"training", "finetuning", "inference"}
    assert found["training"].action.startswith("buy flop/s for training")
    assert found["finetuning"].action.startswith("buy flop/s for fine-tuning")
    assert found["inference"].action.startswith("buy memory bandwidth for inference")
    assert found["training"].options[0].gpus.formula.startswith("p95 ")
    assert found["inference"].options[0].gpus.formula.startswith("p99 "), "requests do not queue for hours"
    assert any("people wait for it" in one.why for one in refused(usage, "purchase"))
    jobs = {name: set(one.scope.jobs) for name, one in found.items()}
    assert not jobs["training"] & jobs["finetuning"]


def test_work_of_unknown_kind_is_a_guess() -> None:
    found = only(alone(MEMORY, name="x17"))
    assert found.grade is Grade.D
    assert "what these jobs do" in found.would_change
    nameless = alone(MEMORY)
    nameless = replace(nameless, stays=tuple(replace(stay, name="") for stay in nameless.stays))
    assert only(nameless).grade is Grade.D


# -- what a site says


def test_prices_decide_where_all_have_one() -> None:
    usage = alone(MEMORY)
    prices = {"h200_sxm": 1.0, "b200_sxm": 40_000.0, "b300_sxm": 50_000.0}
    found = only(usage, {"purchase": {"prices": prices}})
    assert [one.part for one in found.options] == ["", "h200_sxm", "b200_sxm", "b300_sxm"]
    money = option(found, "b200_sxm").money
    assert money is not None
    assert money.value == 40_000 * option(found, "b200_sxm").gpus.value
    some = only(usage, {"purchase": {"prices": {"h200_sxm": 1.0}}})
    assert some.options[1].part != "h200_sxm", "no price is no price of 0"


def test_parts_that_draw_too_much_come_last() -> None:
    usage = alone(MEMORY)
    free = only(usage).options[1]
    assert free.power is not None
    found = only(usage, {"purchase": {"power_w": free.power.value - 1}})
    assert all(one.note.startswith("takes ") for one in found.options[1:])


def test_other_makers_are_looked_at_where_a_site_says_so() -> None:
    usage = alone(MEMORY)
    assert not [one for one in only(usage).options if one.part.startswith("mi")]
    site: Site = {"purchase": {"other_vendors": True}}
    assert [one for one in only(usage, site).options if one.part.startswith("mi")]


def test_boards_without_links_are_no_option_for_jobs_that_span_them() -> None:
    site: Site = {"purchase": {"candidates": ["rtx_pro_6000_server", "h100_sxm"]}}
    wide = of((JobKind("a-train", ("ann",), (8,), 5.0, MEMORY, 1.0),), model="NVIDIA A100-SXM4-80GB").usage
    assert {one.part for one in only(wide, site).options} == {"", "h100_sxm"}


# -- too little


@pytest.mark.parametrize(
    ("what", "told"),
    [
        ({"days": 5}, "5 d of the 7 d"),
        ({"gaps": 0.6}, "measured for 40% of its time"),
        ({"outages": 0.6}, "of its time, it takes 80%"),
        ({"days": 600 / 86400, "step": 60}, "sizes nothing"),
        ({"model": "Foo 9000"}, "memory bandwidth binds 9"),
        ({"model": ""}, "the part is not in the catalogue"),
    ],
)
def test_thin_data_is_refused_by_name(what: dict[str, object], told: str) -> None:
    assert told in why(of((JobKind("a-train", ("ann",), (8,), 5.0, MEMORY, 1.0),), **what).usage)


def test_what_is_missing_is_named() -> None:
    usage = alone(MEMORY)
    assert "jobs are not known" in why(replace(usage, stays=(), jobs_known=False))
    bare = {key: values for key, values in usage.means.items() if key not in ("gpu.dram_active",)}
    assert "gpu.dram_active not measured" in why(replace(usage, means=bare))
    lost = tuple(replace(stay, boards=None, hosts=()) for stay in usage.stays)
    assert "which GPUs jobs held is not known" in why(replace(usage, stays=lost))
    assert "no job held a GPU" in why(replace(usage, stays=()))
    few = tuple(stay for stay in usage.stays if stay.started_at > usage.starts[0])[:4]
    assert "4 of the 5 jobs" in why(replace(usage, stays=few))


def test_a_small_kind_is_counted_not_sized() -> None:
    kinds = (*HEALTHY, JobKind("vllm", ("zoe",), (1,), 4.0, MEMORY, 0.01))
    usage = of(kinds, nodes=16).usage
    assert "inference" not in {one.id.split(":")[1] for one in given(usage, "purchase")}
    assert any("kind of work" in one.why for one in refused(usage, "purchase"))


def test_nothing_is_bought_where_nothing_is_short() -> None:
    kinds = (JobKind("a-train", ("ann",), (8,), 5.0, MEMORY, 1.0),)
    assert only(of(kinds, load=0.2).usage).but.startswith("nothing is short")
    assert only(of(kinds, load=1.2).usage).but.startswith("reclaim idle GPUs first")


def test_every_rule_agrees_with_whole_counsel() -> None:
    counsel = counsel_of(of(WASTEFUL).usage)
    assert all(len(one.action) <= 130 for one in counsel.given if one.rule == "purchase")


# -- speed-ups, as published


@pytest.mark.parametrize(
    ("resource", "old", "new", "told"),
    [
        ("memory bandwidth", "h100_sxm", "h200_sxm", 1.43),
        ("memory bandwidth", "h100_sxm", "b200_sxm", 2.3),
        ("memory bandwidth", "a100_sxm_80", "h100_sxm", 1.64),
        ("compute", "a100_sxm_80", "h100_sxm", 2.93),
        ("compute", "a100_sxm_80", "b200_sxm", 6.43),
    ],
)
def test_ratios_of_parts(resource: str, old: str, new: str, told: float) -> None:
    catalogue = parts()
    assert ratio(resource, catalogue[old], catalogue[new], 0.1).value == pytest.approx(told, rel=0.01)
    alone_ = speedup({resource: 1.0}, catalogue[old], catalogue[new], 0.0)
    assert alone_.value == pytest.approx(told, rel=0.01)
    half = speedup({resource: 0.5}, catalogue[old], catalogue[new], 0.0)
    assert half.low == pytest.approx(1 / (0.5 + 0.5 / told), rel=0.01)
    assert half.high == pytest.approx(told, rel=0.01)


def test_a_format_that_the_old_part_lacks_is_not_credited() -> None:
    catalogue = parts()
    v100, h100 = catalogue["v100_sxm2_32"], catalogue["h100_sxm"]
    assert ratio("compute", v100, h100, 0.1).value == pytest.approx(
        h100.peak("fp16") / v100.peak("fp16"), rel=0.01
    )


def test_memory_that_nobody_measured_is_not_told_as_none() -> None:
    usage = month(nodes=4, days=8).usage
    bare = replace(usage, means={k: v for k, v in usage.means.items() if k != "gpu.mem_used"}, peaks={})
    lines = given(bare, "purchase")
    assert lines
    assert not any("TB held" in one.because for one in lines)
    told = [one for one in lines if one.options[1:]]
    assert all("device memory in use is not measured" in one.but for one in told)
