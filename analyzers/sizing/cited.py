"""Published figures that answers quote, each with its source: ``cited.csv`` beside this."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from types import MappingProxyType

from coldaisle.sources.parts.catalogue import rows


@dataclass(frozen=True, slots=True)
class Cited:
    """A figure that somebody published, in the unit in which it is quoted."""

    value: float
    unit: str
    what: str
    source: str

    def __str__(self) -> str:
        return f"{self.value:,.4g}"


def cited(key: str) -> Cited:
    """The figure of a key. Errors: KeyError."""
    return all_cited()[key]


@cache
def all_cited() -> Mapping[str, Cited]:
    """All of them, by key."""
    return MappingProxyType(
        {
            row["key"]: Cited(float(row["value"]), row["unit"], row["what"], row["source"])
            for row in rows(__package__, "cited.csv")
        }
    )
