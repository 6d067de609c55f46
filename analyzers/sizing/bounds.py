"""Sizes that mean something: finite, and above zero."""

from __future__ import annotations

import math
from collections.abc import Iterable

from coldaisle.sources.errors import SizingError


def check_above_zero(name: str, value: float) -> None:
    """Errors: SizingError for what is not a finite size above zero."""
    if not 0 < value < math.inf:
        raise SizingError(f"{name} is {value:g}; it has to be above zero")


def check_fields(
    of: object, fields: Iterable[str], prefix: str = "", *, nan_is_unknown: bool = False
) -> None:
    """The same of the fields of a value that are known: None is not, nor is NaN where that is how it says so."""
    for field in fields:
        size = getattr(of, field)
        if size is None or (nan_is_unknown and math.isnan(size)):
            continue
        check_above_zero(f"{prefix}{field.replace('_', ' ')}", size)
