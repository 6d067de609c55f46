"""Slow ranks that neither a clock nor a gap betrays: they compute on while the others wait."""

from __future__ import annotations

import numpy as np
import pytest
from lab.telemetry import AT, STEP, Cells, dense, found, gpus, jitter, job, window_of

GPUS = gpus("n01", "n02")
POLLS = 240
SLOW, BEGUN = 5, 120
WORKS, WAITS = 0.88, 0.17
"""SM activity of a board that computes, and of one that waits in a collective."""


def team(
    slow: tuple[int, ...],
    more: float,
    *,
    begun: int = BEGUN,
    from_the_start: bool = False,
    is_told: bool = True,
) -> Cells:
    """A job in lock-step in which some need so much longer for their share, and all others wait for them in a kernel."""
    share = np.ones((POLLS, len(GPUS)))
    share[0 if from_the_start else begun :, :] = 1 / more
    share[:, slow] = 1.0
    activity = WORKS * share + WAITS * (1 - share)
    cells = dense(len(GPUS), POLLS)
    cells["gpu.util"] = np.full_like(activity, 1.0)
    cells["gpu.gr_active"] = np.full_like(activity, 0.99)
    cells["gpu.power"] = (120 + 600 * (activity - 0.05)) * jitter(activity.shape)
    pace = np.where(np.arange(POLLS) >= begun, 1 / more, 1.0)[:, None]
    cells["gpu.tensor_active"] = (
        0.45 * (1 / more if from_the_start else pace) * jitter(activity.shape, seed=2)
    )
    cells.pop("gpu.sm_active", None)
    if is_told:
        cells["gpu.sm_active"] = activity * jitter(activity.shape, seed=3)
    return cells


@pytest.mark.parametrize("is_told", [True, False])
@pytest.mark.parametrize("more", [1.25, 1.6])
def test_who_computes_on_while_the_others_wait_is_the_slow_one(more: float, is_told: bool) -> None:
    cells = team((SLOW,), more, is_told=is_told)
    (candidate,) = found("straggler", window_of(gpus=GPUS, jobs=(job("1", GPUS),), metrics=cells))
    assert (candidate.variant, candidate.roots.gpus) == ("late", (GPUS[SLOW],))
    assert candidate.loss == pytest.approx(1 - 1 / more, abs=0.05)


def test_a_node_of_slow_ranks() -> None:
    cells = team(tuple(range(8, 16)), 1.5)
    (candidate,) = found("straggler", window_of(gpus=GPUS, jobs=(job("1", GPUS),), metrics=cells))
    assert (candidate.variant, candidate.roots.gpus) == ("late", GPUS[8:])


def test_who_has_had_more_to_do_all_along_is_no_straggler() -> None:
    cells = team((SLOW,), 1.5, from_the_start=True)
    assert not found("straggler", window_of(gpus=GPUS, jobs=(job("1", GPUS),), metrics=cells))


def test_a_job_that_was_there_when_its_boards_were_heard_first_is_not_young() -> None:
    cells = team((SLOW,), 1.5, begun=60)
    first = job("1", GPUS, since=AT - (POLLS - 1) * STEP)
    (candidate,) = found("straggler", window_of(gpus=GPUS, jobs=(first,), metrics=cells))
    assert candidate.loss == pytest.approx(1 / 3, abs=0.05)


def test_gpus_of_one_node_are_ranks_of_one_job_only_if_they_were_alike() -> None:
    cells = team((SLOW,), 1.5)
    (candidate,) = found("straggler", window_of(gpus=GPUS, metrics=cells))
    assert candidate.roots.gpus == (GPUS[SLOW],)
    unlike = {key: values.copy() for key, values in cells.items()}
    unlike["gpu.power"][:, :8] *= np.linspace(0.5, 1.0, 8)
    assert not found("straggler", window_of(gpus=GPUS, metrics=unlike))


def test_polls_of_ten_minutes_tell_nothing_of_gpus_that_share_a_node() -> None:
    assert not found("straggler", window_of(gpus=GPUS, metrics=team((SLOW,), 1.5), step=600.0))


@pytest.mark.parametrize("is_capped", [True, False])
def test_a_low_clock_at_the_power_limit_is_no_straggler(is_capped: bool) -> None:
    cells = team((SLOW,), 1.3)
    slow = (np.arange(len(GPUS)) == SLOW) & (np.arange(POLLS) >= BEGUN)[:, None]
    cells["gpu.sm_clock"] = np.where(slow, 1305.0, 1905.0)
    cells["gpu.throttle"] = np.zeros_like(slow, dtype=float)
    cells["gpu.power_limit"] = np.where(np.arange(len(GPUS)) == SLOW, 400.0, 700.0) * np.ones((POLLS, 1))
    cells["gpu.power"] = np.where(slow, 390.0 if is_capped else 300.0, cells["gpu.power"])
    candidates = found("straggler", window_of(gpus=GPUS, jobs=(job("1", GPUS),), metrics=cells))
    assert [(one.variant, one.roots.gpus) for one in candidates] == (
        [] if is_capped else [("clock", (GPUS[SLOW],))]
    )
