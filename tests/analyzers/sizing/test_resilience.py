"""Failures, checkpoints, goodput; what a training set asks of storage and hosts."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coldaisle.analyzers.sizing.loading import (
    is_cached,
    loader_cores,
    sample_bandwidth,
    small_file_rate,
    token_bandwidth,
)
from coldaisle.analyzers.sizing.quantity import exact
from coldaisle.analyzers.sizing.resilience import (
    HOUR,
    availability_optimal,
    daly,
    goodput,
    mtbf,
    overhead,
    read_bandwidth,
    write_bandwidth,
    young,
)
from coldaisle.analyzers.sizing.sheet import SizingError


def test_a_minute_of_writing_at_three_hours_between_failures() -> None:
    """Published figures of Llama 3.1: 19.3 minutes, 10.4 % before restarts."""
    between = 3.09 * HOUR
    interval = young(60, between).value
    assert interval / 60 == pytest.approx(19.3, abs=0.1)
    assert overhead(60, interval, between, 0) == pytest.approx(0.104, abs=0.001)
    assert daly(60, between).value == pytest.approx(interval, rel=0.05)
    assert availability_optimal(60, between, 600).value > interval


def test_more_gpus_fail_more_often() -> None:
    assert mtbf(16_384).value / HOUR == pytest.approx(3.09, abs=0.01)
    assert mtbf(1).value > mtbf(2).value


def test_storage_for_one_percent_of_half_an_hour() -> None:
    """405B: 316 GB/s, where a second would take 5.7 TB/s."""
    state = 14 * 405.9e9
    assert write_bandwidth(state, 1800, 0.01).value / 1e9 == pytest.approx(316, abs=1)
    assert read_bandwidth(state, 60).value == state / 60


def test_where_failures_are_quicker_than_work_next_to_nothing_is_left() -> None:
    assert goodput(600, 600, exact(60, "s"), exact(600, "s")).value == pytest.approx(0.02)


@given(st.floats(1, 3600), st.floats(60, 1e7), st.floats(1, 36_000))
def test_goodput_is_a_ratio(write: float, between: float, restart: float) -> None:
    share = goodput(write, young(write, between).value, exact(between, "s"), exact(restart, "s"))
    assert 0 < share.low <= share.value <= share.high < 1


@given(st.floats(1, 3600), st.floats(3600, 1e7), st.floats(0.2, 5))
def test_no_interval_beats_youngs(write: float, between: float, factor: float) -> None:
    best = young(write, between).value
    assert overhead(write, best, between, 60) <= overhead(write, best * factor, between, 60) + 1e-12


def test_loading() -> None:
    """512 H100 at 10,000 tokens/s are 20 MB/s; 8 GPUs at 3,000 images/s are 2.6 GB/s."""
    assert token_bandwidth(512 * 10_000).value == pytest.approx(20e6, rel=0.03)
    assert sample_bandwidth(8 * 3000, 110e3).value == pytest.approx(2.64e9)
    assert loader_cores(24_000, 0.004).value == 96
    assert small_file_rate(24_000).value == 24_000
    assert is_cached(1e11, 2e12)
    assert not is_cached(1e13, 2e12)
    with pytest.raises(SizingError):
        token_bandwidth(0)
