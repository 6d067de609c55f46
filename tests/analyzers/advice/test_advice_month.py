"""A whole month with planted waste: what is told to reclaim is what was planted, and nothing where nothing was."""

from __future__ import annotations

import pytest
from lab.month import HEALTHY, WASTEFUL, month
from lab.usages import counsel_of

OF_JOBS = {"idle_gpus", "gpus_by_memory", "sharing", "cores", "ram", "time_limit", "scaling", "precision"}


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_planted_waste_is_found(seed: int) -> None:
    made = month(WASTEFUL, nodes=16, days=14, step=600, seed=seed)
    counsel = counsel_of(made.usage)
    planted = made.planted.reclaimable_gpu_hours
    assert counsel.reclaimable is not None
    assert counsel.reclaimable.value == pytest.approx(planted, rel=0.05)
    idle = [one for one in counsel.given if one.rule == "idle_gpus"]
    lines = [one.saving.gpu_hours.value for one in idle if one.saving.gpu_hours]
    assert sum(lines) == pytest.approx(planted, rel=0.05)
    names = {
        name for name in ("sweep", "protein-fold", "jupyter") for one in counsel.given if name in one.action
    }
    assert names == {"sweep", "protein-fold", "jupyter"}


def test_most_saved_comes_first() -> None:
    given = counsel_of(month(nodes=8, days=7, step=600).usage).given
    saved = [one.saving.gpu_hours_per_week.value for one in given if one.saving.gpu_hours_per_week]
    assert saved == sorted(saved, reverse=True)
    assert len({one.id for one in given}) == len(given)


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_a_healthy_month_asks_for_nothing(seed: int) -> None:
    counsel = counsel_of(month(HEALTHY, nodes=16, days=14, step=600, seed=seed).usage)
    assert not [one.action for one in counsel.given if one.rule in OF_JOBS]
    assert counsel.reclaimable is not None
    assert counsel.reclaimable.value == 0


@pytest.mark.parametrize("lost", [{"gaps": 0.6}, {"outages": 0.6}])
def test_a_month_of_which_more_lacks_than_is_there_is_refused(lost: dict[str, float]) -> None:
    counsel = counsel_of(month(nodes=8, days=14, step=600, **lost).usage)  # type: ignore[arg-type]
    assert not [one.action for one in counsel.given if one.rule in OF_JOBS]
    assert counsel.reclaimable is None
    assert any("measured for less than 80%" in one.why for one in counsel.refused if one.rule == "idle_gpus")
    assert counsel.utilisations.cluster.busy.coverage < 0.5


def test_few_gaps_change_nothing() -> None:
    made = month(nodes=8, days=14, step=600, gaps=0.1)
    found = counsel_of(made.usage).reclaimable
    assert found is not None
    assert found.value == pytest.approx(made.planted.reclaimable_gpu_hours, rel=0.05)
    assert found.low <= made.planted.reclaimable_gpu_hours <= found.high


def test_ten_minutes_size_nothing() -> None:
    made = month(nodes=8, days=600 / 86400, step=60)
    counsel = counsel_of(made.usage)
    assert {one.rule for one in counsel.given if one.rule in OF_JOBS} == {"idle_gpus"}
    assert OF_JOBS - {one.rule for one in counsel.refused} == {"idle_gpus"}
