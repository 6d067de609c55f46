"""A figure that says how well it is known, and where it comes from."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace


@dataclass(frozen=True, slots=True)
class Quantity:
    """A figure, the interval that it lies in four times of five, and how it was made.

    ``unit`` is canonical: ``flop``, ``flop/s``, ``bytes``, ``bytes/s``, ``s``, ``W``, ``tokens``, ``tokens/s``, ``gpus``,
    ``nodes``, ``ratio``, ``$``. ``low <= value <= high``; exact where they are equal. ``formula`` is what one would write on
    paper, with its numbers; ``source`` says where formula and constants are from. Errors: ValueError for NaN or a value
    outside of its interval.
    """

    value: float
    low: float
    high: float
    unit: str
    formula: str = ""
    source: str = ""

    def __post_init__(self) -> None:
        if not self.low <= self.value <= self.high:
            raise ValueError(f"{self.value} {self.unit} is not within [{self.low}, {self.high}]")

    @property
    def is_exact(self) -> bool:
        """Whether nothing about it is estimated."""
        return self.low == self.high

    def scaled(self, factor: float, unit: str | None = None, formula: str = "", source: str = "") -> Quantity:
        """So many times this; ``factor`` > 0 and exact."""
        return Quantity(
            self.value * factor,
            self.low * factor,
            self.high * factor,
            unit or self.unit,
            formula or self.formula,
            source or self.source,
        )

    def explained(self, formula: str, source: str = "") -> Quantity:
        """The same, made in this way."""
        return replace(self, formula=formula, source=source or self.source)


def exact(value: float, unit: str, formula: str = "", source: str = "") -> Quantity:
    """A figure without doubt."""
    return Quantity(value, value, value, unit, formula, source)


def about(value: float, low: float, high: float, unit: str, formula: str = "", source: str = "") -> Quantity:
    """A figure within factors of its value: ``about(100, 0.6, 1.7, "tokens/s")`` lies in [60, 170]."""
    return Quantity(value, value * low, value * high, unit, formula, source)


@dataclass(frozen=True, slots=True)
class Binding:
    """Which of several demands decides: ``name`` of the term, and what each asks for."""

    name: str
    terms: tuple[tuple[str, Quantity], ...]

    @property
    def quantity(self) -> Quantity:
        """What the deciding term asks for."""
        return dict(self.terms)[self.name]


def largest(terms: Iterable[tuple[str, Quantity]]) -> Binding:
    """The term that asks for most: ``largest([("memory", gpus_m), ("compute", gpus_c)])``."""
    known = tuple(terms)
    return Binding(max(known, key=lambda term: term[1].value)[0], known)


def whole(quantity: Quantity) -> Quantity:
    """Rounded up: parts come in whole numbers."""
    return replace(
        quantity,
        value=float(math.ceil(quantity.value)),
        low=float(math.ceil(quantity.low)),
        high=float(math.ceil(quantity.high)),
    )
