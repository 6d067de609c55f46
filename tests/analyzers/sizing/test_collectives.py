"""Collectives over links and ports."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coldaisle.analyzers.sizing.collectives import Network, bus_bandwidth, collective_seconds, collective_time
from coldaisle.analyzers.sizing.sheet import SizingError

H100 = Network(450e9, 0.82, 8, 50e9, 0.85, 0.92)
GIB = 2.0**30


def test_volumes_of_collectives() -> None:
    """A plateau without latency: all-reduce twice what gathering takes."""
    flat = Network(100e9, 1.0, 8, 10e9, 1.0)
    assert collective_seconds("all_gather", 8e9, 8, 8, flat, ramp=False) == pytest.approx(7 / 8 * 0.08)
    assert collective_seconds("all_reduce", 8e9, 8, 8, flat, ramp=False) == pytest.approx(7 / 4 * 0.08)
    assert collective_seconds("all_reduce", 8e9, 1, 8, flat) == 0


def test_the_slower_of_two_levels_decides() -> None:
    """4 x 8 B200: the ports carry an eighth each, 5.4 ms for a GiB; payload over one port would say four times that."""
    b200 = Network(900e9, 0.94, 8, 50e9, 0.74)
    assert collective_seconds("all_reduce", GIB, 32, 8, b200, ramp=False) == pytest.approx(5.44e-3, rel=0.01)


def test_small_payloads_do_not_reach_the_plateau() -> None:
    small = collective_seconds("all_reduce", 2.0**20, 8, 8, H100)
    large = collective_seconds("all_reduce", 16 * GIB, 8, 8, H100)
    assert bus_bandwidth("all_reduce", 2.0**20, 8, small) < 0.2 * bus_bandwidth(
        "all_reduce", 16 * GIB, 8, large
    )


def test_sizes_that_mean_nothing_are_refused() -> None:
    for payload, ranks in ((0, 8), (-1, 8), (GIB, 0)):
        with pytest.raises(SizingError):
            collective_time("all_reduce", payload, ranks, 8, H100)


@given(st.floats(1, 1e12), st.floats(1, 1e12), st.integers(1, 4096), st.integers(1, 8))
def test_more_bytes_never_take_less_time(some: float, more: float, ranks: int, per_node: int) -> None:
    low, high = sorted((some, more))
    assert collective_seconds("all_reduce", low, ranks, per_node, H100) <= collective_seconds(
        "all_reduce", high, ranks, per_node, H100
    ) * (1 + 1e-9)
