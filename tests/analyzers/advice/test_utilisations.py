"""The four utilisations: each a share of the one before, never mixed, and None with its reason where it is not known."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from lab.month import H100_BYTES
from lab.usages import RESTS, WORKS, Work, counsel_of, having, series, usage_of

from coldaisle.analyzers.advice.utilisation import Measured, Use
from coldaisle.analyzers.usage import Usage

ALL = ("allocated", "busy", "active", "flops", "bandwidth")


def cluster(usage: Usage) -> Use:
    return counsel_of(usage).utilisations.cluster


def ratio(measured: Measured) -> float:
    assert measured.ratio is not None, measured.why
    assert 0 <= measured.ratio.low <= measured.ratio.value <= measured.ratio.high <= 1
    return measured.ratio.value


def test_each_is_a_share_of_the_one_before() -> None:
    # Half of 16 GPUs for 36 of 48 hours; a third of that time idle.
    usage = usage_of([*series(6), *(Work(24 + 4 * n, 4, reads=RESTS) for n in range(3))])
    use = cluster(usage)
    assert ratio(use.allocated) == pytest.approx(36 / 48 / 2)
    assert ratio(use.busy) == pytest.approx(0.98 * 24 / 36)
    assert ratio(use.active) == pytest.approx(0.85 / 0.98)
    assert ratio(use.bandwidth) == pytest.approx(0.4 / 0.98)
    # Clock: 1700 of 1980 MHz.
    assert ratio(use.flops) == pytest.approx(0.55 * 1700 / 1980 / 0.98, rel=0.01)
    assert use.gpu_hours is not None
    assert use.gpu_hours.value == pytest.approx(8 * 36)
    assert [getattr(use, name).coverage for name in ALL] == pytest.approx([1.0] * 5)


def test_what_nobody_measures_is_none_and_says_why() -> None:
    use = cluster(usage_of(series(6), keys=("gpu.util",)))
    assert ratio(use.busy) == pytest.approx(0.98)
    for name, key in (
        ("active", "gpu.sm_active"),
        ("flops", "gpu.tensor_active"),
        ("bandwidth", "gpu.dram_active"),
    ):
        assert getattr(use, name).ratio is None
        assert key in getattr(use, name).why


def test_without_jobs_only_what_is_of_busy_time_is_known() -> None:
    usage = replace(usage_of(series(6)), jobs_known=False, stays=())
    found = counsel_of(usage).utilisations
    assert found.cluster.allocated.ratio is None
    assert found.cluster.allocated.why == "jobs are not known"
    assert found.cluster.busy.ratio is None
    assert "what was allocated cannot be told" in found.cluster.busy.why
    assert found.cluster.gpu_hours is None
    assert not found.users
    assert ratio(found.cluster.active) == pytest.approx(0.85 / 0.98)


def test_jobs_whose_gpus_are_not_known_still_count_as_allocated() -> None:
    works = series(6, gpus=4, stay={"boards": None})
    found = counsel_of(usage_of(works)).utilisations
    assert ratio(found.cluster.allocated) == pytest.approx(4 * 24 / (16 * 48))
    # what a node's boards did says which of them worked for its jobs together, and nothing of one user's
    assert ratio(found.cluster.busy) == pytest.approx(0.98)
    (user,) = found.users
    assert user.gpu_hours is not None
    assert user.gpu_hours.value == pytest.approx(4 * 24)
    assert user.busy.ratio is None
    assert user.busy.why == "which GPUs jobs held is not known"


def test_a_part_that_is_not_known_has_no_peak() -> None:
    use = cluster(usage_of(series(6), part="Somebody's GPU"))
    assert use.flops.ratio is None
    assert use.flops.why == "the catalogue has no such part: its peak is not known"
    assert ratio(use.active) == pytest.approx(0.85 / 0.98)


def test_what_never_ran_has_no_shares_of_busy_time() -> None:
    use = cluster(usage_of(series(6, reads=RESTS)))
    assert ratio(use.busy) == 0
    assert use.active.ratio is None
    assert use.active.why == "no kernel ran on it"


def test_nothing_measured_at_all() -> None:
    use = cluster(replace(usage_of(series(6)), means={}))
    assert ratio(use.allocated) == pytest.approx(0.25)
    assert {getattr(use, name).why for name in ALL[1:]} == {"neither gpu.util nor gpu.gr_active is measured"}


def test_a_longer_average_never_gives_more_than_all() -> None:
    assert ratio(cluster(usage_of(series(6, reads=having(WORKS, gpu__util=0.5)))).active) == 1


def test_boards_of_several_parts_count_by_their_peaks() -> None:
    usage = usage_of([Work(0, 40), Work(0, 40, first=8, reads=having(WORKS, gpu__dram_active=0.8))])
    boards = tuple(
        replace(board, part="NVIDIA A100-SXM4-80GB")
        if number >= 8
        else replace(board, memory_bytes=H100_BYTES)
        for number, board in enumerate(usage.boards)
    )
    mixed = ratio(cluster(replace(usage, boards=boards)).bandwidth)
    # 3.35 and 2.04 TB/s.
    assert mixed == pytest.approx((0.4 * 3.35 + 0.8 * 2.04) / (3.35 + 2.04) / 0.98, rel=0.01)


def test_users_names_racks_and_partitions_add_up() -> None:
    works = [*series(6), *series(3, first=8, stay={"user": "kim", "name": "eval"})]
    found = counsel_of(usage_of(works)).utilisations
    assert [use.name for use in found.users] == ["rsun", "kim"]
    assert [use.name for use in found.names] == ["train", "eval"]
    hours = [use.gpu_hours.value for use in found.users if use.gpu_hours]
    assert sum(hours) == pytest.approx(8 * 36)
    assert [use.boards for use in found.users] == [8, 8]
    assert [use.name for use in found.racks] == ["r01"]
    assert [use.name for use in found.partitions] == ["gpu"]
    assert found.users[0].allocated.ratio is None


def test_gaps_lower_the_coverage_and_not_the_figure() -> None:
    usage = usage_of(series(6))
    usage.means["gpu.sm_active"][np.arange(len(usage.starts)) % 2 == 0] = np.nan
    use = cluster(usage)
    assert ratio(use.active) == pytest.approx(0.85 / 0.98)
    assert use.active.coverage == pytest.approx(0.5)
    assert use.busy.coverage == 1
