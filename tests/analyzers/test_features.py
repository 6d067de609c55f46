"""When something began, of lines that hold more than one episode."""

from __future__ import annotations

import numpy as np
import pytest

from coldaisle.analyzers.features import Line, fell, shifted

END = 84 * 60.0


def line(*levels: tuple[float, float], step: float = 5.0, noise: float = 0.02, seed: int = 1) -> Line:
    """Whole minutes and then a quarter of an hour of samples; ``levels``: (from which minute on, level)."""
    fine = np.arange(END - 900.0, END, step) + step
    times = np.concatenate([np.arange(END - 3600.0, END - 900.0, 60.0) + 30.0, fine])
    starts, values = (np.array(column) for column in zip(*levels, strict=True))
    told = values[np.searchsorted(starts * 60.0, times, side="right") - 1]
    return Line(times, told + noise * np.random.default_rng(seed).standard_normal(len(times)))


@pytest.mark.parametrize("step", [5.0, 15.0, 30.0])
def test_of_two_episodes_it_is_the_one_that_lasts(step: float) -> None:
    one = line((0, 1.0), (40, 0.45), (56, 1.0), (70, 0.76), step=step)
    since, is_bound, earlier = fell(one, 0.12)
    assert since == pytest.approx(70 * 60.0, abs=60.0)
    assert not is_bound
    assert earlier == pytest.approx(56 * 60.0, abs=90.0)
    if step == 30.0:
        assert shifted(one, 0.12)[0] < 45 * 60.0  # where the hour changed most


def test_one_that_gets_worse_and_better_again_but_not_well_is_one() -> None:
    since, is_bound, _ = fell(line((0, 1.0), (45, 0.5), (58, 0.65), (75, 0.55)), 0.12)
    assert since == pytest.approx(45 * 60.0, abs=60.0)
    assert not is_bound


def test_what_has_only_just_begun() -> None:
    since, is_bound, _ = fell(line((0, 1.0), (83, 0.6)), 0.12)
    assert since == pytest.approx(83 * 60.0, abs=10.0)
    assert not is_bound


def test_what_has_come_back_has_not_fallen() -> None:
    assert fell(line((0, 1.0), (40, 0.5), (60, 1.0)), 0.12).since == pytest.approx(60 * 60.0, abs=60.0)


@pytest.mark.parametrize("level", [0.4, 1.0])
def test_what_has_been_so_all_along_may_be_older(level: float) -> None:
    since, is_bound, _ = fell(line((0, level)), 0.12)
    assert is_bound
    assert since == pytest.approx(END - 3570.0)


def test_saves_are_no_beginnings() -> None:
    """Half a minute without work every four minutes, and a lower pace for ten minutes."""
    one = line((0, 1.0), (74, 0.7))
    values = np.where(one.times % 240.0 < 30.0, 0.0, one.values)
    assert fell(Line(one.times, values), 0.12).since == pytest.approx(74 * 60.0, abs=125.0)


def test_glimpses_of_a_rhythm_hold_no_beginning_of_their_own() -> None:
    """Every sample is 0 or 1: a few that are alike by chance are no stretch."""
    missed = []
    for seed in range(20):
        draw = np.random.default_rng(seed)
        one = line((0, 0.95), (72, 0.5), step=15.0, noise=0.0)
        glimpsed = (draw.random(len(one.times)) < one.values).astype(float)
        values = np.where(one.times > END - 900.0, glimpsed, one.values)
        missed.append(abs(fell(Line(one.times, values), 0.12).since - 72 * 60.0))
    assert np.median(missed) <= 60.0
    assert np.quantile(missed, 0.85) <= 180.0


def test_too_little_to_tell() -> None:
    few = Line(np.array([10.0, 20.0]), np.array([1.0, 0.2]))
    assert fell(few, 0.1) == (10.0, True, 10.0)
    assert fell(few, 0.1, start=30.0) == (30.0, True, 30.0)
