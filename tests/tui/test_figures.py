"""Figures of sizing as people read them."""

from __future__ import annotations

import math

import pytest

from coldaisle.analyzers.sizing.quantity import Quantity, exact
from coldaisle.tui.figures import interval, number, shown


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (0.0, "0"), (0.4, "0.4"), (12.0, "12"), (12.53, "12.5"), (1204.0, "1,204"), (3.14e6, "3.14 M"), (1.27e23, "127 Z"),
        (1e-5, "1.0e-05"), (math.nan, "-"),
    ],
)  # fmt: skip
def test_numbers_have_three_digits(value: float, words: str) -> None:
    assert number(value) == words


@pytest.mark.parametrize(
    ("value", "unit", "words"),
    [
        (1.0, "gpus", "1 GPU"), (8.0, "gpus", "8 GPUs"), (2300.0, "W", "2.30 kW"), (80 * 2.0**30, "bytes", "80.0 GiB"),
        (0.31, "ratio", "31 %"), (120.0, "$", "$120"), (math.nan, "gpus", "-"), (3.0, "furlongs", "3 furlongs"),
    ],
)  # fmt: skip
def test_units_are_those_that_people_read(value: float, unit: str, words: str) -> None:
    assert shown(value, unit) == words


@pytest.mark.parametrize(
    ("quantity", "words"),
    [
        (exact(16.0, "gpus"), "16 GPUs"),
        (Quantity(16.0, 12.0, 20.0, "gpus"), "16 [12, 20] GPUs"),
        (Quantity(1.0, 1.0, 2.0, "gpus"), "1 [1, 2] GPU"),
        (Quantity(0.031, 0.026, 0.034, "ratio"), "3.1 [2.6, 3.4] %"),
        (Quantity(900.0, 800.0, 1100.0, "W"), "900 W [800 W, 1.10 kW]"),
        (Quantity(120.0, 100.0, 150.0, "$"), "$120 [$100, $150]"),
    ],
)
def test_what_is_estimated_shows_its_interval(quantity: Quantity, words: str) -> None:
    assert interval(quantity) == words
