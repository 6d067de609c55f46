"""Boards that are read less often than they are asked: the pace is learnt, and what is judged are the readings."""

from __future__ import annotations

import numpy as np
import pytest
from lab.telemetry import Cells, dense, found, gpus, idle, job, window_of

from coldaisle.analyzers.readings import seconds_between
from coldaisle.analyzers.window import Window

GPUS = gpus("n01", "n02")
JOB = (job("1", GPUS),)


def repeated(cells: Cells, times: int) -> Cells:
    """An exporter that reads its boards every so many samples, and says that again in between."""
    return {key: values[np.arange(len(values)) // times * times] for key, values in cells.items()}


def seen(cells: Cells, step: float = 5.0) -> Window:
    return window_of(gpus=GPUS, jobs=JOB, metrics=cells, step=step)


@pytest.mark.parametrize(("step", "times"), [(5.0, 6), (15.0, 2), (1.0, 30), (10.0, 3)])
def test_the_pace_of_reading_is_learnt(step: float, times: int) -> None:
    window = seen(repeated(dense(len(GPUS)), times), step)
    assert window.reading == pytest.approx(30.0, rel=0.05)
    assert window.step("gpu.power") == window.reading == window.poll
    recent = window.recent("gpu.power")
    assert (recent.step, len(recent.times)) == (window.reading, 8)
    assert len(np.unique(recent.values[:, 0])) >= 7


@pytest.mark.parametrize("step", [1.0, 5.0, 15.0, 30.0])
def test_where_each_sample_is_a_reading_nothing_changes(step: float) -> None:
    window = seen(dense(len(GPUS)), step)
    assert (window.reading, window.step("gpu.power")) == (0.0, step)


def test_boards_at_rest_tell_nothing() -> None:
    cells = idle(dense(len(GPUS)), range(len(GPUS)))
    assert seconds_between(seen(cells)) is None


def test_one_frozen_feed_among_others_is_no_pace() -> None:
    cells = dense(len(GPUS))
    for values in cells.values():
        values[-60:, 3] = values[-60, 3]
    assert seen(cells).reading == 0.0


def test_values_that_repeat_by_chance_are_no_pace() -> None:
    cells = {key: dense(len(GPUS))[key] for key in ("gpu.util", "gpu.power")}
    draw = np.random.default_rng(4)
    cells["gpu.power"] = np.rint(610 + draw.normal(0, 0.6, cells["gpu.power"].shape))
    cells["gpu.util"][:] = 1.0
    assert seen(cells).reading == 0.0


def test_counters_that_move_only_when_they_are_read_are_rated_over_a_reading() -> None:
    """Heat is found though five of six samples say that it held nobody back."""
    cells = repeated(dense(len(GPUS)), 6)
    cells["gpu.sm_clock"][-60:, 3], cells["gpu.temp"][-60:, 3], cells["gpu.power"][-60:, 3] = (
        1410.0,
        87.0,
        480.0,
    )
    cells["gpu.power"][-60:, 3] += np.repeat(np.arange(10.0), 6)
    every = np.arange(len(cells["gpu.power"])) % 6 == 4
    cells["gpu.thermal_violation"][-60:, 3] = np.where(every[-60:], 6 * 0.5, 0.0)
    window = seen(cells)
    assert window.recent("gpu.thermal_violation").values[-4:, 3] == pytest.approx(0.5, abs=0.01)
    (candidate,) = found("thermal_throttling", window)
    assert candidate.roots.gpus == ("n01/3",)
