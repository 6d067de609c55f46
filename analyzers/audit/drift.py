"""What an audit has that an earlier one had otherwise: figures whose difference is beyond what both leave open."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

LEAST_RATIO = 0.02
"""Two points of a utilisation; less is not worth a line, however sure (judgement)."""
LEAST_SHARE = 0.10
"""Of what it was before, of counts and hours (judgement)."""
PARTS = ("racks", "partitions", "users")
KINDS = ("allocated", "busy", "active", "achieved_flops", "achieved_bandwidth")
MOST = 200


class Drift(NamedTuple):
    """A figure that moved, with the interval of the difference."""

    what: str
    unit: str
    before: float
    now: float
    low: float
    high: float

    @property
    def change(self) -> float:
        return self.now - self.before


class _Figure(NamedTuple):
    value: float
    low: float
    high: float
    unit: str


def drifts(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[Drift]:
    """Of two audits as :func:`~coldaisle.analyzers.report.document.as_object` has them, the largest first."""
    old, new = dict(_figures(before)), dict(_figures(now))
    found = []
    for what, figure in new.items():
        earlier = old.get(what)
        if earlier is None:
            continue
        low, high = figure.low - earlier.high, figure.high - earlier.low
        change = abs(figure.value - earlier.value)
        least = LEAST_RATIO if figure.unit == "ratio" else LEAST_SHARE * abs(earlier.value)
        if (low > 0 or high < 0) and change >= least:
            found.append(Drift(what, figure.unit, earlier.value, figure.value, low, high))
    return sorted(found, key=_weight)[:MOST]


def _weight(one: Drift) -> tuple[bool, float]:
    """The cluster's before its parts'; ratios by points, the rest by share."""
    size = abs(one.change) if one.unit == "ratio" else abs(one.change) / max(abs(one.before), 1e-9)
    return (":" in one.what, -size)


def _figures(made: Mapping[str, Any]) -> Iterator[tuple[str, _Figure]]:
    """Comparable ones: shares, and hours a week, for spans may differ."""
    weeks = _number(_at(made, "span", "seconds"), 0.0) / (7 * 86400)
    for name, keys in (("GPUs", ("gpus",)), ("nodes", ("nodes",)), ("jobs a week", ("jobs",))):
        value = _number(_at(made, *keys))
        if value is not None:
            yield name, _exact(value / weeks if name.endswith("week") and weeks else value, "1")
    if weeks:
        for name in ("allocated", "reclaimable"):
            yield from _quantity(f"{name} GPU-hours a week", _at(made, "gpu_hours", name), 1 / weeks)
    yield from _of_parts(_at(made, "utilisations"))
    # where nobody knows who waited, what was asked for is what ran, and compares with nothing else
    knows_waits = _number(_at(made, "offered_load", "waiting_p95_gpus")) is not None
    for key, name in (
        ("p95_gpus", "offered load"),
        ("waiting_p95_gpus", "waiting"),
        ("running_p95_gpus", "running"),
    ):
        value = _number(_at(made, "offered_load", key))
        if value is not None and (knows_waits or name == "running"):
            yield f"{name}, 95 % of the time at most", _exact(value, "gpus")
    yield from _of_states(_at(made, "jobs_by", "state"))


def _of_parts(uses: Any) -> Iterator[tuple[str, _Figure]]:
    if isinstance(uses, Mapping):
        yield from _of_use("", uses.get("cluster"))
        for part in PARTS:
            for use in uses.get(part) or ():
                if isinstance(use, Mapping) and use.get("name"):
                    yield from _of_use(f"{part[:-1]}: {use['name']} ", use)


def _of_states(states: Any) -> Iterator[tuple[str, _Figure]]:
    several = [one for one in states or () if isinstance(one, Mapping)]
    hours = [(one.get("name"), _number(one.get("gpu_hours"), 0.0)) for one in several]
    total = sum(value or 0.0 for _, value in hours)
    for state, value in hours:
        if total and state:
            yield f"share of GPU-hours in {state}", _exact((value or 0.0) / total, "ratio")


def _of_use(name: str, use: Any) -> Iterator[tuple[str, _Figure]]:
    if isinstance(use, Mapping):
        for kind in KINDS:
            yield from _quantity(f"{name}{kind.replace('_', ' ')}", use.get(kind), 1.0)


def _quantity(name: str, one: Any, scale: float) -> Iterator[tuple[str, _Figure]]:
    if isinstance(one, Mapping):
        value, low, high = (_number(one.get(key)) for key in ("value", "low", "high"))
        if value is not None and low is not None and high is not None:
            yield name, _Figure(value * scale, low * scale, high * scale, str(one.get("unit", "")))


def _exact(value: float, unit: str) -> _Figure:
    return _Figure(value, value, value, unit)


def _at(made: Any, *keys: str) -> Any:
    for key in keys:
        made = made.get(key) if isinstance(made, Mapping) else None
    return made


def _number(value: Any, otherwise: float | None = None) -> Any:
    is_number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    return float(value) if is_number else otherwise
