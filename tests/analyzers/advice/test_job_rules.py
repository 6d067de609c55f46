"""What jobs of one user and name should ask for: each rule finds its case, and leaves what looks like it alone."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from lab.month import H100_BYTES
from lab.usages import GB, HOUR, WORKS, Work, counsel_of, given, having, refused, series, usage_of

from coldaisle.analyzers.advice.advice import Advice, Grade
from coldaisle.analyzers.advice.counsel import settings
from coldaisle.analyzers.advice.settings import Site
from coldaisle.analyzers.usage import Usage
from coldaisle.sources.errors import ConfigError

SIZED = ("gpus_by_memory", "sharing", "cores", "ram", "time_limit", "scaling", "precision")
UNLIKE = {"gpu__util": [0.9, 0.5, 0.5, 0.5], "gpu__mem_used": [30 * GB, 18 * GB, 18 * GB, 18 * GB]}
SMALL = having(WORKS, gpu__util=0.7, gpu__sm_active=0.08, gpu__tensor_active=0.02, gpu__mem_used=5 * GB)


def only(usage: Usage, rule: str) -> Advice:
    (advice,) = given(usage, rule)
    assert advice.quantity.low <= advice.quantity.value <= advice.quantity.high
    return advice


# -- the number of GPUs by memory


def test_ranks_that_would_fit_on_fewer_gpus() -> None:
    advice = only(usage_of(series(8, gpus=4, reads=having(WORKS, **UNLIKE))), "gpus_by_memory")
    # ceil(84 GB x 1.1 / 85.5 GB)
    assert advice.action == "run 'train' (rsun) on 2 GPUs instead of 4: its memory fits"
    assert advice.saving.gpu_hours_per_week is not None
    assert advice.saving.gpu_hours_per_week.value == pytest.approx(8 * 4 * 4 * 168 / 48 / 2)


@pytest.mark.parametrize(
    "reads",
    [
        pytest.param(WORKS, id="data-parallel"),
        pytest.param(
            having(WORKS, gpu__mem_used=[30 * GB] * 4, gpu__util=[0.9] * 4), id="alike and half empty"
        ),
        pytest.param(having(WORKS, gpu__util=[0.9, 0.5, 0.5, 0.5], gpu__mem_used=70 * GB), id="full"),
        pytest.param(having(WORKS, **UNLIKE | {"gpu__util": [0.9, 0.0, 0.0, 0.0]}), id="idle, not spread"),
    ],
)
def test_ranks_that_need_their_gpus(reads: dict[str, float]) -> None:
    assert not given(usage_of(series(8, gpus=4, reads=reads)), "gpus_by_memory")


def test_memory_that_is_taken_beforehand_tells_nothing() -> None:
    taken = having(WORKS, gpu__util=[0.9, 0.5, 0.5, 0.5], gpu__mem_used=0.9 * H100_BYTES)
    usage = usage_of(series(8, gpus=4, reads=taken))
    assert not given(usage, "gpus_by_memory")
    (why,) = refused(usage, "gpus_by_memory")
    assert "took their memory beforehand" in why.why
    server = series(8, gpus=4, reads=having(WORKS, **UNLIKE), stay={"name": "vllm-chat"})
    assert "beforehand" in refused(usage_of(server), "gpus_by_memory")[0].why


# -- slices


def test_small_jobs_fit_on_slices() -> None:
    advice = only(usage_of(series(8, gpus=1, reads=SMALL)), "sharing")
    assert advice.action == "run 'train' (rsun) on slices (1g): 7 fit on a GPU"


@pytest.mark.parametrize(
    ("reads", "gpus"),
    [
        pytest.param(WORKS, 1, id="full"),
        pytest.param(having(SMALL, gpu__mem_used=70 * GB), 1, id="memory"),
        pytest.param(having(SMALL, gpu__util=0.01), 1, id="idle is another advice"),
        pytest.param(SMALL, 2, id="slices cannot span"),
    ],
)
def test_jobs_that_need_whole_gpus(reads: dict[str, float], gpus: int) -> None:
    assert not given(usage_of(series(8, gpus=gpus, reads=reads)), "sharing")


def test_parts_without_slices_are_not_cut() -> None:
    usage = usage_of(series(8, gpus=1, reads=SMALL), part="NVIDIA L40S", memory=48e9)
    assert not given(usage, "sharing")


def test_utilisation_alone_says_nothing_of_slices() -> None:
    usage = usage_of(series(8, gpus=1, reads=SMALL), keys=("gpu.util", "gpu.mem_used"))
    assert refused(usage, "sharing")[0].why.startswith("gpu.sm_active is not measured")


# -- cores


def cpu(share: float, cores: int = 12, gpus: int = 8, hours: float = 4.0) -> dict[str, object]:
    return {"cores": cores * gpus, "cpu_s": share * cores * gpus * hours * HOUR}


def test_gpus_that_wait_for_their_hosts_get_more_cores() -> None:
    advice = only(usage_of(series(8, reads=having(WORKS, gpu__util=0.475), stay=cpu(0.97, 6))), "cores")
    assert advice.action == "give 'train' (rsun) 12 instead of 6 cores a GPU"
    assert advice.saving.gpu_hours_per_week is not None
    assert advice.saving.gpu_hours_per_week.low == 0


def test_cores_that_nobody_uses_are_given_back() -> None:
    advice = only(usage_of(series(8, stay=cpu(0.10, 24))), "cores")
    assert advice.action == "ask for 4 instead of 24 cores a GPU in 'train' (rsun)"


def test_cores_of_whole_nodes_are_read_from_the_nodes() -> None:
    usage = usage_of(series(8, stay={"cpu_s": np.nan, "cores": 192}))
    busy = {"node.cpu_util": np.full((len(usage.starts), 2), 0.1, dtype=np.float32)}
    advice = only(replace(usage, host_means=busy), "cores")
    assert advice.quantity.value < 12


@pytest.mark.parametrize(
    ("util", "share", "cores"),
    [
        pytest.param(0.98, 0.97, 6, id="busy in spite of full cores"),
        pytest.param(0.4, 0.5, 6, id="slow, but not for want of cores"),
        pytest.param(0.98, 0.5, 24, id="half used"),
        pytest.param(0.98, 0.05, 2, id="few anyway"),
        pytest.param(0.98, np.nan, 24, id="nobody counted"),
    ],
)
def test_cores_that_are_right(util: float, share: float, cores: int) -> None:
    reads = having(WORKS, gpu__util=util)
    assert not given(usage_of(series(8, reads=reads, stay=cpu(share, cores))), "cores")


# -- host memory


def memory(asked: float, used: float, state: str = "COMPLETED") -> dict[str, object]:
    return {"memory_asked_bytes": asked * GB, "memory_used_bytes": used * GB, "state": state}


def test_memory_that_nobody_touches_is_given_back() -> None:
    advice = only(usage_of(series(8, stay=memory(1600, 320))), "ram")
    assert advice.action == "ask for 45 instead of 186 GiB of host memory a GPU in 'train' (rsun)"


def test_jobs_that_run_out_of_memory_need_more() -> None:
    works = [*series(8, stay=memory(800, 700)), *series(2, first=8, stay=memory(800, 800, "OUT_OF_MEMORY"))]
    advice = only(usage_of(works), "ram")
    assert "20% ran out of it" in advice.action
    assert advice.quantity.value == pytest.approx(120 * GB)


@pytest.mark.parametrize("stay", [memory(800, 600), memory(24, 4), memory(np.nan, 4), memory(800, np.nan)])
def test_memory_that_is_right_small_or_not_known(stay: dict[str, object]) -> None:
    assert not given(usage_of(series(8, stay=stay)), "ram")


# -- time limits


def test_a_limit_far_above_is_lowered() -> None:
    advice = only(usage_of(series(10, stay={"limit_s": 48 * HOUR})), "time_limit")
    assert advice.action == "lower the time limit of 'train' (rsun) from 2 d to 4.8 h"
    assert advice.grade is Grade.B


def test_a_limit_that_cuts_jobs_off_is_raised() -> None:
    works = [
        *series(8, stay={"limit_s": 4 * HOUR}),
        *series(3, first=8, stay={"limit_s": 4 * HOUR, "state": "TIMEOUT"}),
    ]
    advice = only(usage_of(works), "time_limit")
    assert advice.action.startswith("raise the time limit of 'train' (rsun) above 4 h: 27% ran into it")
    assert advice.quantity.value == pytest.approx(4.8 * HOUR)


@pytest.mark.parametrize(
    "works",
    [
        pytest.param(series(10), id="fits"),
        pytest.param(series(10, stay={"limit_s": np.nan}), id="none known"),
        pytest.param(series(10, stay={"limit_s": 48 * HOUR, "state": "FAILED"}), id="failures tell nothing"),
    ],
)
def test_limits_that_are_right(works: list[Work]) -> None:
    assert not given(usage_of(works), "time_limit")


def test_whom_a_lower_limit_would_cut_off_is_told() -> None:
    stay = {"limit_s": 20 * HOUR}
    advice = only(usage_of([*series(24, 1.0, stay=stay), Work(24, 19, stay=stay)]), "time_limit")
    assert advice.but.startswith("1 of these 25 jobs took longer, and would be cut off")
    assert advice.grade is Grade.B


# -- scaling


def runs(times: dict[int, float], each: int = 3, **stay: object) -> list[Work]:
    """Jobs of several sizes, one after another."""
    found, at = [], 0.0
    for gpus, hours in times.items():
        for _ in range(each):
            found.append(Work(at, hours, gpus, stay=stay))
            at += hours
    return found


def test_more_gpus_than_it_gains_from() -> None:
    # s = 0.2: the third GPU brings 3 / 1.4 - 2 / 1.2 = 0.48.
    times = {n: 4.0 * (1 + 0.2 * (n - 1)) / n for n in (1, 2, 4, 8)}
    advice = only(usage_of(runs(times)), "scaling")
    assert advice.action.startswith("run 'train' (rsun) with 2 GPUs")
    assert advice.grade is Grade.D
    assert "a measured throughput" in advice.would_change


def test_a_measured_throughput_is_believed_more() -> None:
    works = [
        Work(n * 2.0, 2.0, gpus, stay={"throughput": gpus / (1 + 0.2 * (gpus - 1))})
        for n, gpus in enumerate((1, 2, 4, 8) * 3)
    ]
    assert only(usage_of(works), "scaling").grade is Grade.B


@pytest.mark.parametrize(
    "works",
    [
        pytest.param(runs({n: 8.0 / n for n in (1, 2, 4, 8)}), id="scales"),
        pytest.param(runs({2: 4.0, 8: 3.0}), id="two sizes fit anything"),
        pytest.param(
            runs(dict.fromkeys((1, 2, 4, 8), 4.0), 1) + runs({1: 1.0, 8: 9.0}), id="not the same work"
        ),
        pytest.param(runs(dict.fromkeys((1, 2, 4, 8), 3.0), name="vllm-chat"), id="serves"),
    ],
)
def test_scaling_that_is_right_or_not_known(works: list[Work]) -> None:
    assert not given(usage_of(works), "scaling")


# -- precision


def test_work_without_tensor_cores_gets_a_hint() -> None:
    advice = only(usage_of(series(8, reads=having(WORKS, gpu__tensor_active=0.01))), "precision")
    assert advice.action == "try bf16 or TF32 in 'train' (rsun): its SMs work without tensor cores"
    assert advice.grade is Grade.D
    assert advice.saving.gpu_hours_per_week is None


@pytest.mark.parametrize(
    ("reads", "part"),
    [
        pytest.param(WORKS, "NVIDIA H100 80GB HBM3", id="uses them"),
        pytest.param(having(WORKS, gpu__tensor_active=0.01, gpu__dram_active=0.8), "NVIDIA H100 80GB HBM3", id="memory binds"),
        pytest.param(having(WORKS, gpu__tensor_active=0.01, gpu__sm_active=0.2), "NVIDIA H100 80GB HBM3", id="SMs idle"),
        pytest.param(having(WORKS, gpu__tensor_active=0.01), "Somebody's GPU", id="unknown part"),
    ],
)  # fmt: skip
def test_no_hint(reads: dict[str, float], part: str) -> None:
    assert not given(usage_of(series(8, reads=reads), part=part), "precision")


# -- too little of anything


@pytest.mark.parametrize("rule", SIZED)
def test_thin_data_is_refused_with_what_is_missing(rule: str) -> None:
    few = refused(usage_of(series(3)), rule)
    assert "1 group of a user and a name of fewer than 5 jobs" in few[0].why
    short = refused(usage_of([Work(-2, 4)], hours=1 / 6, step=60), rule)
    assert short[0].why == "a look of 10 min sizes nothing"
    unnamed = refused(usage_of(series(8, stay={"name": ""})), rule)
    assert "8 jobs without a name" in unnamed[0].why
    unknown = refused(replace(usage_of(series(8)), jobs_known=False), rule)
    assert unknown[0].why == "jobs are not known"


@pytest.mark.parametrize("rule", ["gpus_by_memory", "sharing", "cores", "precision"])
def test_gaps_are_refused(rule: str) -> None:
    usage = usage_of(series(8))
    for values in usage.means.values():
        values[np.arange(len(usage.starts)) % 5 < 3] = np.nan
    assert (
        "1 group of a user and a name measured for less than 80% of their time" in refused(usage, rule)[0].why
    )


def test_jobs_of_two_users_are_not_mixed() -> None:
    works = [*series(4, stay={"limit_s": 48 * HOUR}), *series(4, first=8, stay={"user": "kim"})]
    assert "2 groups" in refused(usage_of(works), "time_limit")[0].why


def test_a_site_sets_thresholds_of_its_own() -> None:
    works = series(3, stay={"limit_s": 48 * HOUR})
    assert given(usage_of(works), "time_limit", {"common": {"least_jobs": 3}})
    assert not given(
        usage_of(works), "time_limit", {"common": {"least_jobs": 3}, "time_limit": {"times": 20.0}}
    )


@pytest.mark.parametrize(
    ("site", "told", "remedy"),
    [
        ({"idle": {"run_s": 3600.0}}, "[advice.idle]: no such rule", "common, idle_gpus"),
        ({"idle_gpus": {"runs": 3600.0}}, "runs", "run_s"),
        ({"common": {"margin": "much"}}, "$.margin", "least_coverage"),
    ],
)
def test_a_wrong_setting_is_told_with_those_there_are(site: Site, told: str, remedy: str) -> None:
    with pytest.raises(ConfigError) as caught:
        settings(site)
    assert told in caught.value.problem
    assert remedy in caught.value.remedy


def test_what_is_healthy_is_left_alone() -> None:
    counsel = counsel_of(usage_of(series(10)))
    assert not {*SIZED, "idle_gpus"} & {one.rule for one in counsel.given}
    assert not {*SIZED, "idle_gpus"} & {one.rule for one in counsel.refused}
