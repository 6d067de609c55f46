"""Constants that no formula gives, each with its interval and its source: ``assumptions.toml`` beside this."""

from __future__ import annotations

import tomllib
from functools import cache
from importlib.resources import files
from typing import Any

from coldaisle.analyzers.sizing.quantity import Quantity


@cache
def assumed(key: str, unit: str = "ratio") -> Quantity:
    """The constant of a key: ``assumed("power.busy")``. Errors: KeyError."""
    table, _, name = key.partition(".")
    row = _table()[table][name]
    return Quantity(row["value"], row["low"], row["high"], unit, f"{key} = {row['value']:g}", row["source"])


@cache
def _table() -> dict[str, dict[str, dict[str, Any]]]:
    text = (files(__package__) / "assumptions.toml").read_text(encoding="utf-8")
    return tomllib.loads(text)
