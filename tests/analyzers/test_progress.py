"""What a team loses to boards that are slow for their clock: the others wait, and a share of slower cycles is less work."""

from __future__ import annotations

import numpy as np
import pytest
from lab.telemetry import AT, dense, gpus, job, window_of

from coldaisle.analyzers.progress import progress, progress_without, slowed

GPUS = gpus("n01", "n02")
JOB = (job("1", GPUS),)


def test_capped_boards_are_as_active_as_ever_and_do_less() -> None:
    """Half of a job at four fifths of its clock: these compute all the time, the others a fifth less of it."""
    cells = dense(len(GPUS))
    cells["gpu.sm_clock"][-60:, 8:] *= 0.8
    cells["gpu.tensor_active"][-60:, :8] *= 0.8
    window = window_of(gpus=GPUS, jobs=JOB, metrics=cells)
    is_slow = np.arange(len(GPUS)) >= 8
    assert slowed(window, 8, 0.2, is_slow, AT - 300.0) == pytest.approx(0.2, abs=0.02)


def test_one_slow_board_costs_what_the_others_wait() -> None:
    cells = dense(len(GPUS))
    cells["gpu.sm_clock"][-60:, 3] *= 0.8
    cells["gpu.tensor_active"][-60:, np.arange(len(GPUS)) != 3] *= 0.8
    window = window_of(gpus=GPUS, jobs=JOB, metrics=cells)
    assert slowed(window, 3, 0.2, np.arange(len(GPUS)) == 3, AT - 300.0) == pytest.approx(0.2, abs=0.02)


def test_who_is_slow_computes_for_longer_and_says_nothing_of_the_pace() -> None:
    """One of eight takes half as long again for its part of a step: the others wait for a third of it."""
    eight = gpus("n01")
    cells = dense(len(eight))
    cells["gpu.tensor_active"][-60:, :7] /= 1.5
    window = window_of(gpus=eight, jobs=(job("1", eight),), metrics=cells)
    assert progress(window).lost[0] == pytest.approx(0.29, abs=0.02)
    assert progress_without(window, np.array([7]), 120.0).lost[0] == pytest.approx(1 / 3, abs=0.02)
    assert np.isnan(progress_without(window, np.arange(8), 120.0).lost[0])
