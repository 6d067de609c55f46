"""Waiting: Erlang C and what it allows, against textbook figures."""

from __future__ import annotations

import math

import pytest

from coldaisle.analyzers.sizing.queueing import (
    erlang_c,
    max_utilisation,
    mean_wait,
    pool_of,
    servers_needed,
    square_root_staffing,
)
from coldaisle.analyzers.sizing.sheet import SizingError


def by_definition(servers: int, load: float) -> float:
    """Erlang C as a sum, for a few servers."""
    last = load**servers / math.factorial(servers) / (1 - load / servers)
    return last / (sum(load**k / math.factorial(k) for k in range(servers)) + last)


@pytest.mark.parametrize("servers", [1, 2, 8, 20])
@pytest.mark.parametrize("utilisation", [0.1, 0.5, 0.85, 0.99])
def test_erlang_c_is_its_definition(servers: int, utilisation: float) -> None:
    assert erlang_c(servers, utilisation) == pytest.approx(by_definition(servers, servers * utilisation))


def test_one_server_waits_as_long_as_it_is_busy() -> None:
    assert erlang_c(1, 0.85) == pytest.approx(0.85)
    assert mean_wait(1, 0.85) == pytest.approx(5.67, abs=0.005)


@pytest.mark.parametrize(("servers", "wait"), [(8, 0.48), (32, 0.06), (128, 0.0)])
def test_the_wait_at_85_percent_depends_on_the_pool(servers: int, wait: float) -> None:
    assert mean_wait(servers, 0.85) == pytest.approx(wait, abs=0.006)


@pytest.mark.parametrize(
    ("servers", "short", "long"), [(8, 0.61, 0.85), (16, 0.75, 0.92), (64, 0.90, 0.98), (256, 0.96, 0.99)]
)
def test_highest_utilisation_by_pool_and_wait(servers: int, short: float, long: float) -> None:
    assert max_utilisation(servers, 0.05).value == pytest.approx(short, abs=0.008)
    assert max_utilisation(servers, 0.5).value == pytest.approx(long, abs=0.008)


def test_irregular_lengths_and_gangs_wait_longer() -> None:
    assert mean_wait(8, 0.8, 1, 9) == pytest.approx(5 * mean_wait(8, 0.8))
    assert mean_wait(64, 0.8, gang=8) == mean_wait(8, 0.8)
    assert max_utilisation(64, 0.5, service_scv=20).value < max_utilisation(64, 0.5).value


def test_servers_needed_are_the_fewest() -> None:
    for load in (0.3, 1.0, 7.2, 100.0, 5000.0):
        count = int(servers_needed(load, 0.1).value)
        assert mean_wait(count, load / count) <= 0.1
        assert count == 1 or load >= count - 1 or mean_wait(count - 1, load / (count - 1)) > 0.1


def test_gangs_get_whole_multiples() -> None:
    assert servers_needed(30.0, 0.5, gang=8).value % 8 == 0


def test_a_full_pool_waits_for_ever() -> None:
    assert erlang_c(4, 1.0) == erlang_c(4, 3.0) == 1.0
    assert mean_wait(4, 1.0) == math.inf
    assert erlang_c(4, 0.0) == 0.0


def test_a_large_pool_takes_no_time_and_overflows_nothing() -> None:
    assert 0 <= erlang_c(1_000_000, 0.999) < 0.5
    assert max_utilisation(1_000_000, 0.05).value > 0.998


def test_square_root_staffing() -> None:
    assert square_root_staffing(100, 1).value == 110


@pytest.mark.parametrize(
    "call",
    [
        lambda: erlang_c(0, 0.5),
        lambda: erlang_c(4, -0.1),
        lambda: erlang_c(4, math.nan),
        lambda: mean_wait(4, 0.5, arrival_scv=-1),
        lambda: max_utilisation(4, 0.0),
        lambda: servers_needed(0.0, 0.1),
        lambda: servers_needed(1.0, -1.0),
        lambda: pool_of(4, 5),
        lambda: pool_of(math.inf, 1),
        lambda: square_root_staffing(0),
    ],
)
def test_what_means_nothing_is_refused(call: object) -> None:
    with pytest.raises(SizingError):
        call()  # type: ignore[operator]
