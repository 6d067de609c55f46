"""Every metric that coldaisle knows: key, unit, entity, valid range, display unit, help.

The data is ``catalog.toml``; a test holds it to the schema.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

from coldaisle.sources.source import Kind

UNITS = (
    "ratio",
    "W",
    "J",
    "C",
    "MHz",
    "B",
    "B/s",
    "s",
    "/s",
    "1",
    "tokens",
    "tokens/s",
    "V",
    "A",
    "rpm",
    "bits",
    "state",
)


@dataclass(frozen=True, slots=True)
class Metric:
    """One metric; samples outside [low, high] are blanks, not values."""

    key: str
    """``gpu.power``"""
    kind: Kind
    unit: str
    """Canonical unit, one of :data:`UNITS`."""
    low: float
    high: float
    help: str

    @property
    def name(self) -> str:
        """The key without its entity: ``power``."""
        return self.key.partition(".")[2]

    @property
    def is_rate(self) -> bool:
        """Whether its samples are means over the sample's interval."""
        return self.unit in ("/s", "B/s", "tokens/s") or self.key.endswith("_violation")


@cache
def catalog() -> Mapping[str, Metric]:
    """All metrics by key, in the file's order."""
    text = (files(__package__) / "catalog.toml").read_text(encoding="utf-8")
    metrics: dict[str, Metric] = {}
    for table, rows in tomllib.loads(text).items():
        kind = Kind(table)
        for name, row in rows.items():
            low, high = row["range"]
            key = f"{table}.{name}"
            metrics[key] = Metric(key, kind, row["unit"], float(low), float(high), row["help"])
    return metrics


def kind_of(key: str) -> Kind:
    """The entity kind of a metric's key, known or a site's own: ``gpu.power`` -> Kind.GPU."""
    return Kind(key.partition(".")[0])
