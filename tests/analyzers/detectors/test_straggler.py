"""Slow ranks that neither a clock nor a gap betrays: they compute on while the others wait."""

from __future__ import annotations

import numpy as np
import pytest
from lab.telemetry import AT, STEP, Cells, dense, found, gpus, jitter, job, verdict, window_of

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


@pytest.mark.parametrize("more", [1.25, 1.6])
def test_who_computes_on_while_the_others_wait_is_the_slow_one(more: float) -> None:
    cells = team((SLOW,), more)
    (candidate,) = found("straggler", window_of(gpus=GPUS, jobs=(job("1", GPUS),), metrics=cells))
    assert (candidate.variant, candidate.roots.gpus) == ("late", (GPUS[SLOW],))
    assert candidate.loss == pytest.approx(1 - 1 / more, abs=0.05)


def test_watts_alone_do_not_tell_who_is_late_from_who_waits() -> None:
    cells = team((SLOW,), 1.6, is_told=False)
    said = verdict("straggler", window_of(gpus=GPUS, jobs=(job("1", GPUS),), metrics=cells))
    (doubt,) = said.undecided
    assert not said.candidates
    assert doubt.why.endswith("without gpu.sm_active")


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


def test_at_rare_polls_a_rank_with_gaps_is_seen_after_five_of_them() -> None:
    cells = dense(len(GPUS), POLLS)
    for key, least in (("gpu.gr_active", 0.7), ("gpu.util", 0.7), ("gpu.tensor_active", 0.35)):
        cells[key][-5:, SLOW] *= least
    cells["gpu.tensor_active"][-5:] *= 0.7
    window = window_of(gpus=GPUS, jobs=(job("1", GPUS),), metrics=cells, step=30.0)
    assert [one.roots.gpus for one in found("straggler", window)] == [(GPUS[SLOW],)]


def test_one_long_pause_is_no_straggler() -> None:
    cells = dense(len(GPUS), POLLS)
    cells["gpu.gr_active"][-6:-1, SLOW] = cells["gpu.util"][-6:-1, SLOW] = 0.02
    cells["gpu.tensor_active"][-6:-1] = 0.01
    assert not found("straggler", window_of(gpus=GPUS, jobs=(job("1", GPUS),), metrics=cells, step=30.0))


def test_all_wait_for_the_slowest_and_a_peer_whose_clock_is_a_little_lower_waits_too() -> None:
    cells = dense(len(GPUS), POLLS)
    cells["gpu.sm_clock"][BEGUN:, SLOW], cells["gpu.sm_clock"][BEGUN:, 2] = 765.0, 1605.0
    cells["gpu.tensor_active"][BEGUN:] *= 0.6
    cells["gpu.power"][BEGUN:] *= 0.7
    cells["gpu.throttle"], cells["gpu.power_limit"] = np.zeros((POLLS, 1)), np.full((POLLS, 1), 700.0)
    (candidate,) = found("straggler", window_of(gpus=GPUS, jobs=(job("1", GPUS),), metrics=cells))
    assert (candidate.variant, candidate.roots.gpus) == ("clock", (GPUS[SLOW],))
