"""Figures of sizing and advice as people read them: ``16 [12, 20] GPUs``, ``2.3 kW``, ``$120``. Pure."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

from coldaisle.sources.units import NO_VALUE, show

if TYPE_CHECKING:
    from coldaisle.analyzers.sizing.quantity import Quantity

SHOWN_AS: Final = {"bytes": "B", "bytes/s": "B/s", "ratio": "ratio", "s": "s", "W": "W", "J": "J"}
"""Canonical units of sizing that the catalogue of metrics has, too."""
COUNTED: Final = {
    "gpus": "GPU", "nodes": "node", "racks": "rack", "cores": "core", "jobs": "job", "replicas": "replica",
    "requests": "request", "stages": "stage", "steps": "step", "sequences": "sequence", "failures": "failure",
}  # fmt: skip
NAMED: Final = {
    "gpu_hours": "GPU.h", "gpu_hours/week": "GPU.h/week", "gpu_hours_per_week": "GPU.h/week", "tokens": "tok",
    "tokens/s": "tok/s", "tokens/J": "tok/J", "requests/s": "requests/s",
    "cores/gpu": "cores/GPU", "$/week": "$/week", "GPU-h": "GPU-h", "1": "",
}  # fmt: skip
JOINED: Final = {"flop": " FLOP", "flop/s": "FLOP/s", "parameters": " parameters"}
_DAY = 86_400.0
_PREFIXES: Final = ((1e24, "Y"), (1e21, "Z"), (1e18, "E"), (1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"))


def shown(value: float, unit: str) -> str:
    """A value in a canonical unit of sizing with its unit; ``-`` for NaN. Foreign units stand as they are."""
    if math.isnan(value):
        return NO_VALUE
    if unit == "s" and value >= _DAY:
        return f"{number(value / _DAY)} d"
    if unit in SHOWN_AS:
        return show(value, SHOWN_AS[unit])
    if unit.startswith("$") and unit not in NAMED:
        return f"${_money(value)}{unit.removeprefix('$')}"
    if unit in JOINED:
        return f"{_joined(value, unit)}{JOINED[unit]}"
    if unit in COUNTED:
        return f"{number(value)} {COUNTED[unit]}{'' if value == 1 else 's'}"
    return f"{number(value)} {NAMED.get(unit, unit)}".rstrip()


def _joined(value: float, unit: str) -> str:
    """``3.65e25`` FLOP of a run; ``989 T`` of a GPU's; ``70.6B`` parameters, as people write each."""
    if unit == "flop":
        return f"{value:.3g}".replace("e+", "e")
    if unit == "flop/s":
        size = next(
            ((step, letter) for step, letter in ((1e15, "P"), (1e12, "T"), (1e9, "G")) if value >= 10 * step),
            (1e12, "T"),
        )
        return f"{number(value / size[0])} {size[1]}"
    letter = next(
        ((step, name) for step, name in ((1e12, "T"), (1e9, "B"), (1e6, "M")) if value >= step), None
    )
    return f"{value:,.0f}" if letter is None else f"{value / letter[0]:.3g}{letter[1]}"


def _money(value: float) -> str:
    """Cents where they count."""
    return f"{value:.2f}" if 0.1 <= value < 1000 and value != int(value) else number(value)


def number(value: float) -> str:
    """``0.4``, ``12``, ``12.5``, ``1,204``, ``3.1 M``: three digits, whole numbers whole."""
    if math.isnan(value):
        return NO_VALUE
    size = abs(value)
    for step, prefix in _PREFIXES:
        if size >= step * 0.9995:
            return f"{value / step:.3g} {prefix}" if size < step * 1e4 else f"{value:.2e}"
    if size >= 99.95:
        return f"{value:,.0f}"
    if value == int(value):
        return str(int(value))
    return f"{value:.3g}" if size >= 1e-3 else f"{value:.1e}"


def interval(quantity: Quantity) -> str:
    """``16 [12, 20] GPUs``, ``3.1 % [2.6 %, 3.4 %]``; without brackets where nothing about it is estimated."""
    whole = shown(quantity.value, quantity.unit)
    low, high = (shown(value, quantity.unit) for value in (quantity.low, quantity.high))
    if quantity.is_exact or low == high == whole:
        return whole
    head, _, unit = whole.rpartition(" ")
    tail = f" {unit}"
    if head and low.endswith(tail) and high.endswith(tail):
        return f"{head} [{low.removesuffix(tail)}, {high.removesuffix(tail)}]{tail}"
    if quantity.unit in COUNTED and head:
        bounds = (number(value) for value in (quantity.low, quantity.high))
        return f"{head} [{', '.join(bounds)}] {unit}"
    return f"{whole} [{low}, {high}]"
