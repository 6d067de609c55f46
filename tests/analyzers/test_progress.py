"""The pace of a team: what tensor cores do in a share of cycles, at the clock that these have."""

from __future__ import annotations

import pytest
from lab.telemetry import dense, gpus, job, window_of

from coldaisle.analyzers.progress import progress

GPUS = gpus("n01", "n02")
JOB = (job("1", GPUS),)


def test_a_slower_clock_is_a_slower_pace_though_tensor_cores_are_as_active() -> None:
    cells = dense(len(GPUS))
    cells["gpu.sm_clock"][-60:] *= 0.7
    (lost,) = progress(window_of(gpus=GPUS, jobs=JOB, metrics=cells)).lost
    assert lost == pytest.approx(0.3, abs=0.02)


def test_without_clocks_tensor_activity_alone_tells() -> None:
    cells = dense(len(GPUS))
    del cells["gpu.sm_clock"]
    cells["gpu.tensor_active"][-60:] *= 0.6
    (lost,) = progress(window_of(gpus=GPUS, jobs=JOB, metrics=cells)).lost
    assert lost == pytest.approx(0.4, abs=0.02)
