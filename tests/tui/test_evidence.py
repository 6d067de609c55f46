"""A piece of evidence in words: values and rules in the units that people read."""

from __future__ import annotations

import math

import pytest

from coldaisle.analyzers.finding import Evidence
from coldaisle.tui.evidence import held_words, rule_words, value_words


@pytest.mark.parametrize(
    ("metric", "value", "unit", "rule", "said"),
    [
        ("gpu.thermal_violation", 0.31, "ratio", ">= 0.02", "31 % (>= 2.0 %)"),
        ("serve.kv_usage", 0.93, "ratio", ">= 0.95", "93 % (>= 95 %, not now)"),
        ("serve.waiting", 0.0, "1", "> 0", "0 (> 0, not now)"),
        ("gpu.util", 0.0, "ratio", "<= 0.05 for 61 min", "0 % (<= 5.0 % for 61 min)"),
        ("gpu.util", 0.3, "ratio", "<= 0.86 of 0.79", "30 % (<= 0.86 of 0.79)"),
        ("gpu.sm_active", 0.81, "ratio", "peers 0.16", "81 % (peers 16 %)"),
        ("gpu.power", math.nan, "W", "<= 90", "- (<= 90.0 W)"),
        ("event.xid", 79.0, "1", "reported", "79 (reported)"),
    ],
)
def test_a_value_and_what_it_is_held_against(
    metric: str, value: float, unit: str, rule: str, said: str
) -> None:
    one = Evidence(metric, "r07n01/0", value, unit, rule)
    assert f"{value_words(one)} ({held_words(one)})" == said


def test_a_rule_is_inert() -> None:
    assert "\x1b" not in rule_words(Evidence("gpu.util", "x", 0.1, "ratio", "\x1b[31m> 0"))
