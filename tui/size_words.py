"""What people type after the options of ``coldaisle size``, in canonical units: ``15T``, ``30d``, ``400Gbit/s``, ``h100_sxm=2.35``."""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING, Any

import click
from click.shell_completion import CompletionItem

from coldaisle.sources.units import parse

if TYPE_CHECKING:
    from coldaisle.sources.parts.catalogue import Part

_BILLIONS = re.compile(r"(?<=[0-9.])\s*[bB]$")
_TRILLIONS = re.compile(r"(?<=[0-9.])\s*t$")
_GROUPS = re.compile(r"(?<=[0-9])[,_](?=[0-9]{3}(?![0-9]))")
MOST_SHOWN = 40
MOST = 1e30
"""Of any measure."""
MOST_WHOLE = 10**15
"""Of what is counted."""


class Measure(click.ParamType):  # type: ignore[type-arg]
    """A measure in a unit of the catalogue of metrics: above zero, or with ``or_zero`` that too."""

    def __init__(self, unit: str, name: str, *, or_zero: bool = False) -> None:
        self.unit = unit
        self.name = name
        self.or_zero = or_zero

    def convert(self, value: Any, param: click.Parameter | None, context: click.Context | None) -> float:
        if not isinstance(value, str):
            return float(value)
        try:
            found = parse(self._spelt(value.strip()), self.unit)
        except ValueError as error:
            self.fail(str(error), param, context)
        if not found > 0 and not (self.or_zero and found == 0):
            least = "zero or above" if self.or_zero else "above zero"
            self.fail(f"{value.strip()[:MOST_SHOWN]}; it has to be {least}", param, context)
        if found > MOST:
            self.fail(f"{value.strip()[:MOST_SHOWN]} is more than anything has", param, context)
        return found

    def _spelt(self, text: str) -> str:
        return text


class Count(Measure):
    """How many: ``70B`` and ``15T`` too, as models and their tokens are counted, and ``16,384``."""

    def __init__(self, unit: str = "1", name: str = "number", *, or_zero: bool = False) -> None:
        super().__init__(unit, name, or_zero=or_zero)

    def _spelt(self, text: str) -> str:
        return _TRILLIONS.sub("T", _BILLIONS.sub("G", _GROUPS.sub("", text)))


class Whole(Count):
    """How many, in whole numbers."""

    def convert(self, value: Any, param: click.Parameter | None, context: click.Context | None) -> int:
        found = super().convert(value, param, context)
        if found != int(found):
            self.fail(f"{found:g}; it has to be a whole number", param, context)
        if found > MOST_WHOLE:
            self.fail(f"{found:g} is more than anything has", param, context)
        return int(found)


class Share(click.ParamType):  # type: ignore[type-arg]
    """A ratio: ``0.9`` or ``90%``; ``most``: the highest, 1 as a rule."""

    name = "ratio"

    def __init__(self, most: float = 1.0, least: float = 0.0) -> None:
        self.most = most
        self.least = least

    def convert(self, value: Any, param: click.Parameter | None, context: click.Context | None) -> float:
        if not isinstance(value, str):
            return float(value)
        text, shown = value.strip(), value.strip()[:MOST_SHOWN]
        try:
            found = float(text.removesuffix("%")) / (100 if text.endswith("%") else 1)
        except ValueError:
            self.fail(f"{shown!r} is not a ratio: write 0.9 or 90%", param, context)
        if not self.least <= found <= self.most or not math.isfinite(found):
            self.fail(
                f"{shown} is not from {self.least:g} to {self.most:g}; 0.9 and 90% are the same",
                param,
                context,
            )
        return found


class Money(click.ParamType):  # type: ignore[type-arg]
    """``h100_sxm=2.35``, of one part; ``2.35`` alone, of all. A pair: what part, and how much."""

    name = "[part=]$"

    def convert(
        self, value: Any, param: click.Parameter | None, context: click.Context | None
    ) -> tuple[str, float]:
        if isinstance(value, tuple):
            return value
        part, _, text = value.rpartition("=")
        try:
            found = float(_GROUPS.sub("", text.strip().lstrip("$")))
        except ValueError:
            found = math.nan
        if not 0 < found < math.inf:
            self.fail(f"{value[:MOST_SHOWN]!r} is not a price: write 2.35, or h100_sxm=2.35", param, context)
        return part.strip(), found


class Day(click.ParamType):  # type: ignore[type-arg]
    """A day as ``2026-11-01``."""

    name = "day"

    def convert(self, value: Any, param: click.Parameter | None, context: click.Context | None) -> str:
        from datetime import date, timedelta

        try:
            day = date.fromisoformat(str(value).strip())
        except ValueError:
            self.fail(f"{str(value)[:MOST_SHOWN]!r} is not a day: write 2026-11-01", param, context)
        # a day ahead of us: it may be one already elsewhere
        if day > date.today() + timedelta(days=1):
            self.fail(
                f"{day.isoformat()} is still to come: write the day on which the price was seen",
                param,
                context,
            )
        return day.isoformat()


SHARDINGS = {
    "none": "none", "zero1": "optimizer", "zero2": "gradients", "zero3": "parameters", "fsdp": "parameters",
    "optimizer": "optimizer", "gradients": "gradients", "parameters": "parameters",
}  # fmt: skip
"""What people call them, and what they are here."""


def split_names(texts: tuple[str, ...]) -> list[str]:
    """Names that are repeated, or stand side by side with commas."""
    return [name.strip() for text in texts for name in text.split(",") if name.strip()]


def parts_named(texts: tuple[str, ...], default: tuple[str, ...]) -> list[Part]:
    """The parts of these names, each once; ``all``: the whole catalogue. Errors: SizingError for a name that is none."""
    from coldaisle.analyzers.sizing.catalogue import part_named
    from coldaisle.sources.parts.catalogue import parts

    names = split_names(texts) or list(default)
    if "all" in names:
        return list(parts().values())
    return list({part.id: part for part in map(part_named, names)}.values())


# --- completion -------------------------------------------------------------------------------------------------------


def complete_model(_: click.Context, __: click.Parameter, begun: str) -> list[CompletionItem]:
    """Models of the catalogue, and files."""
    from coldaisle.analyzers.sizing.catalogue import models

    found = [CompletionItem(name) for name in models() if name.casefold().startswith(begun.casefold())]
    return found or [CompletionItem(begun, type="file")]


def complete_part(_: click.Context, __: click.Parameter, begun: str) -> list[CompletionItem]:
    """Parts of the catalogue, behind those that are named already."""
    from coldaisle.sources.parts.catalogue import parts

    before, comma, last = begun.rpartition(",")
    return [
        CompletionItem(f"{before}{comma}{part.id}", help=part.product)
        for part in parts().values()
        if part.id.startswith(last)
    ]


def complete_node(_: click.Context, __: click.Parameter, begun: str) -> list[CompletionItem]:
    """Nodes of the catalogue."""
    from coldaisle.analyzers.sizing.catalogue import nodes

    return [CompletionItem(one.id, help=one.system) for one in nodes().values() if one.id.startswith(begun)]


def complete_format(_: click.Context, __: click.Parameter, begun: str) -> list[CompletionItem]:
    """Formats of weights."""
    from coldaisle.analyzers.sizing.weights import FORMATS

    return [CompletionItem(name) for name in FORMATS if name.startswith(begun)]
