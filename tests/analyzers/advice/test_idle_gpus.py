"""GPUs that jobs hold and do not use."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from lab.usages import RESTS, WORKS, Work, counsel_of, given, having, refused, series, usage_of

from coldaisle.analyzers.advice.advice import Grade

RULE = "idle_gpus"
HALF = {key: [WORKS[key]] * 4 + [RESTS[key]] * 4 for key in WORKS}


def test_a_running_job_that_does_nothing_is_reclaimed() -> None:
    usage = usage_of([Work(0, 48, reads=RESTS, stay={"name": "debug"})])
    (advice,) = given(usage, RULE)
    assert advice.action == "reclaim 8 idle GPUs of job 100 (rsun)"
    assert advice.id == "idle_gpus:slurm:100"
    assert advice.grade is Grade.A
    assert advice.scope.gpus == tuple(f"r01n01/{slot}" for slot in range(8))
    assert advice.scope.racks == ("r01",)
    assert advice.quantity.value == 8
    assert advice.saving.gpu_hours is not None
    assert advice.saving.gpu_hours.value == pytest.approx(8 * 48)
    assert advice.saving.gpu_hours_per_week is not None
    assert advice.saving.gpu_hours_per_week.value == pytest.approx(8 * 168)
    assert advice.saving.power is not None
    assert advice.saving.power.value == pytest.approx(8 * 90)
    assert advice.saving.money_per_week is None
    assert advice.grounds[0].coverage == 1
    assert "of the 2 d that it runs" in advice.because


def test_money_is_told_of_where_a_price_was_given() -> None:
    usage = usage_of([Work(0, 48, reads=RESTS)])
    (advice,) = given(usage, RULE, {"common": {"price_per_gpu_hour": 2.0}})
    assert advice.saving.money_per_week is not None
    assert advice.saving.money_per_week.value == pytest.approx(2 * 8 * 168)


def test_of_half_used_jobs_that_have_ended_the_next_ask_for_less() -> None:
    (advice,) = given(usage_of(series(10, reads=HALF)), RULE)
    assert advice.action == "ask for 4 instead of 8 GPUs in 10 jobs 'train' (rsun): 160 GPU-hours idle"
    assert advice.quantity.value == 4
    assert advice.grade is Grade.A
    assert advice.scope.jobs[0] == "slurm:109"


def test_gpus_that_all_pause_are_not_too_many() -> None:
    """Half of the time all eight do nothing: fewer of them would do the work no better."""
    usage = usage_of(series(10))
    for stay in usage.stays:
        middle, last = (
            round((at - usage.starts[0]) / usage.step)
            for at in ((stay.started_at + stay.ended_at) / 2, stay.ended_at)
        )
        for key, value in RESTS.items():
            usage.means[key][middle:last, list(stay.boards or ())] = value
    (advice,) = given(usage, RULE)
    assert advice.action.startswith("let go of the GPUs of 10 jobs 'train' (rsun) while they do nothing")


def test_few_jobs_are_told_of_as_few() -> None:
    (advice,) = given(usage_of(series(2, reads=RESTS)), RULE)
    assert advice.action == "move 2 jobs 'train' (rsun) off GPUs: none was used in 64 GPU-hours"
    assert advice.grade is Grade.C


@pytest.mark.parametrize(
    "works",
    [
        pytest.param(series(10), id="all work"),
        pytest.param(series(10, reads=having(WORKS, gpu__util=0.03)), id="little is not nothing"),
        pytest.param(series(10, reads=having(RESTS, gpu__sm_active=0.2)), id="warps without util"),
        pytest.param([Work(47.8, 0.2, reads=RESTS)], id="just started"),
        pytest.param([Work(10, 0.1, reads=RESTS)], id="over at once"),
    ],
)
def test_look_alikes_are_left_alone(works: list[Work]) -> None:
    counsel = counsel_of(usage_of(works))
    assert not [one for one in counsel.given if one.rule == RULE]
    assert counsel.reclaimable is not None
    assert counsel.reclaimable.value == 0


def test_checkpoints_and_staging_are_no_waste() -> None:
    usage = usage_of([Work(0, 48), Work(1, 46, first=8)])
    util, active = usage.means["gpu.util"], usage.means["gpu.sm_active"]
    for values in (util, active):
        values[40:44, :8] = 0.0  # 20 minutes of writing
        values[12:20, 8:] = 0.0  # 40 minutes of reading before the first kernel
    assert not given(usage, RULE)


def test_an_hour_within_a_life_is_counted() -> None:
    usage = usage_of([Work(0, 40)])
    for key in ("gpu.util", "gpu.sm_active"):
        usage.means[key][100:112, :8] = 0.0
    (advice,) = given(usage, RULE)
    assert advice.saving.gpu_hours is not None
    assert advice.saving.gpu_hours.low <= 8 <= advice.saving.gpu_hours.high
    assert advice.grade is not Grade.A


def test_a_server_that_waits_is_scaled_down_and_a_notebook_has_its_excuse() -> None:
    usage = usage_of(
        [
            Work(0, 48, reads=RESTS, stay={"name": "vllm-chat"}),
            Work(0, 48, reads=RESTS, first=8, stay={"name": "jupyter"}),
        ]
    )
    server, notebook = sorted(given(usage, RULE), key=lambda one: one.id)
    assert server.action == "scale down 8 idle GPUs of job 100 (rsun)"
    assert "spare" in server.but
    assert "smaller slice" in notebook.but


def test_what_was_hardly_measured_is_no_advice_but_has_bounds() -> None:
    usage = usage_of([Work(0, 48, reads=RESTS)])
    usage.means["gpu.util"][np.arange(len(usage.starts)) % 5 < 3] = np.nan
    assert not given(usage, RULE)
    assert [one.why for one in refused(usage, RULE)] == ["1 job measured for less than 80% of their time"]
    found = counsel_of(usage).reclaimable
    assert found is not None
    assert (found.value, found.high) == pytest.approx((8 * 48, 8 * 48))
    assert found.low == pytest.approx(0.4 * 8 * 48, rel=0.01)


def test_of_next_to_nothing_not_even_bounds_are_told() -> None:
    usage = usage_of([Work(0, 48, reads=RESTS)])
    usage.means["gpu.util"][30:] = np.nan
    assert counsel_of(usage).reclaimable is None


def test_samples_that_lack_within_bins_count_as_missing() -> None:
    usage = usage_of(series(10, reads=RESTS))
    thin = counsel_of(replace(usage, coverage=np.full_like(usage.means["gpu.util"], 0.4))).reclaimable
    assert thin is not None
    assert (thin.low, thin.value) == pytest.approx((0.4 * 320, 320), rel=1e-3)
    full = counsel_of(replace(usage, coverage=np.full_like(usage.means["gpu.util"], 0.9)))
    assert full.reclaimable is not None
    assert full.utilisations.cluster.busy.coverage == pytest.approx(0.9, rel=1e-3)


def test_what_was_not_judged_widens_what_is_reclaimable() -> None:
    usage = usage_of([Work(0, 48, reads=RESTS), Work(0, 4, first=8)])
    usage.means["gpu.util"][:, 8:] = np.nan
    found = counsel_of(usage).reclaimable
    assert found is not None
    assert [found.value, found.high] == pytest.approx([384, 384 + 32])


def test_without_jobs_or_readings_it_says_so() -> None:
    usage = usage_of([Work(0, 48, reads=RESTS)])
    (why,) = refused(replace(usage, jobs_known=False, stays=()), RULE)
    assert "jobs are not known" in why.why
    (why,) = refused(replace(usage, means={"gpu.power": usage.means["gpu.power"]}), RULE)
    assert "neither gpu.util nor gpu.gr_active" in why.why


def test_jobs_of_which_nobody_knows_the_gpus_are_counted_as_such() -> None:
    usage = usage_of([Work(0, 48, gpus=4, reads=RESTS, stay={"boards": None})])
    assert [one.why for one in refused(usage, RULE)] == ["which GPUs 1 job held is not known"]
    whole = usage_of([Work(0, 48, reads=RESTS, stay={"boards": None})])
    assert given(whole, RULE), "a job that has all GPUs of its node has these"


def test_jobs_without_gpus_are_nothing_to_it() -> None:
    usage = usage_of([Work(0, 40, gpus=0)])
    assert not refused(usage, RULE)
    assert not given(usage, RULE)


def test_names_are_made_inert() -> None:
    evil = "\x1b[31mx\n" + "y" * 200
    usage = usage_of(series(6, reads=RESTS, stay={"name": evil, "user": ""}))
    (advice,) = given(usage, RULE)
    assert advice.action.isprintable()
    assert len(advice.action) < 120
    (advice,) = given(usage_of(series(6, reads=RESTS, stay={"name": ""})), RULE)
    assert "6 jobs without a name (rsun)" in advice.action


def test_many_lines_are_summed_up() -> None:
    users = ["rsun"] * 8 + ["ann"] * 6 + [""] * 2
    works = [Work(0, 48, 1, n, RESTS, {"name": f"n{n}", "user": user}) for n, user in enumerate(users)]
    lines = given(usage_of(works), RULE, {"idle_gpus": {"most_lines": 5}})
    rest = {one.id: one for one in lines if one.id.endswith(("(more)", ":others"))}
    assert len(lines) == 5 + len(rest)
    hours = {id_: one.saving.gpu_hours.value / 48 for id_, one in rest.items() if one.saving.gpu_hours}
    assert sum(hours.values()) == pytest.approx(11)
    assert set(hours) <= {"idle_gpus:rsun/(more)", "idle_gpus:ann/(more)", "idle_gpus:others"}
    assert "idle_gpus:ann/(more)" in hours
    assert "more jobs and groups of theirs" in rest["idle_gpus:ann/(more)"].action


def test_jobs_without_a_name_are_told_apart_by_what_they_left_idle() -> None:
    unnamed = {"name": "", "user": ""}
    works = [
        *series(6, reads=RESTS, stay=unnamed, gpus=4),
        *series(6, reads=HALF, stay=unnamed, first=8),
    ]
    idle, half = sorted(given(usage_of(works), RULE), key=lambda one: one.id)
    assert (idle.id, half.id) == ("idle_gpus:/(all)", "idle_gpus:/(some)")
    assert idle.action == "move 6 jobs without a name off GPUs: none was used in 96 GPU-hours"
    assert half.action == "ask for 4 instead of 8 GPUs in 6 jobs without a name: 96 GPU-hours idle"


def test_a_look_of_minutes_tells_gross_waste_with_binomial_bounds() -> None:
    works = [Work(-2, 10, 4, 0, RESTS), Work(-2, 10, 4, 4), Work(-0.1, 10, 4, 8, RESTS)]
    usage = usage_of(works, hours=1 / 6, step=60)
    counsel = counsel_of(usage)
    assert [one.action for one in counsel.given] == ["reclaim 4 idle GPUs of job 100 (rsun)"]
    assert counsel.given[0].grade is Grade.C
    assert counsel.reclaimable is not None
    # 4 of 12 GPUs: Clopper-Pearson at 80 % is 0.153 to 0.564.
    share = [x / 2.0 for x in (counsel.reclaimable.low, counsel.reclaimable.value, counsel.reclaimable.high)]
    assert share == pytest.approx([0.1535, 1 / 3, 0.5590], abs=0.01)


def test_a_short_pause_beside_a_gap_is_none_that_lasts() -> None:
    """Ten minutes of every four hours, each with a gap of three hours after it: nobody saw half an hour of rest."""
    usage = usage_of([Work(0, 48)])
    at = np.arange(len(usage.starts)) % 48
    for key in ("gpu.util", "gpu.sm_active"):
        usage.means[key][at < 2, :8] = 0.0
        usage.means[key][(at >= 2) & (at < 38), :8] = np.nan
    found = counsel_of(usage).reclaimable
    assert found is not None
    assert found.low == found.value == 0
    assert found.high > 200


def test_through_gaps_labels_go_on_and_free_boards_do_not() -> None:
    """Half of the time one job holds eight GPUs and leaves half of them idle, then they are free; two hours of three are dark."""
    usage = usage_of([Work(0, 24, reads=HALF, stay={"submitted_at": np.nan})], nodes=1)
    dark = np.arange(len(usage.starts)) % 36 >= 12
    for values in usage.means.values():
        values[dark] = np.nan
    counsel = counsel_of(usage)
    held, found = counsel.utilisations.cluster.gpu_hours, counsel.reclaimable
    allocated = counsel.utilisations.cluster.allocated.ratio
    assert held is not None
    assert found is not None
    assert allocated is not None
    assert allocated.value == pytest.approx(0.5, rel=0.02)
    assert held.value == pytest.approx(8 * 24, rel=0.02)
    assert found.value == pytest.approx(4 * 24, rel=0.03)
