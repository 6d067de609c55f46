"""A metric that a site declares for itself: what may be said of it, without the weight of the catalog.

Read before the first paint, therefore without numpy: the shipped keys come from ``catalog.toml`` as data.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from functools import cache

import msgspec

from coldaisle.sources.units import UNITS

JOB = "job"
"""The one kind of entity that the shipped catalog has no metric of."""
_NAME = re.compile(r"[a-z][a-z0-9_]{0,39}")


class Entry(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``[catalog."job.step_time"]`` of a vocabulary, or what ``[[metric]]`` says of its key."""

    unit: str
    """Canonical, one of units.UNITS."""
    range: tuple[float, float] | None = None
    """Valid values, and the scale of cells; None: 0..1 for a ratio, else every number."""
    help: str = ""

    @property
    def bounds(self) -> tuple[float, float]:
        """Lowest and highest valid value."""
        return self.range or ((0.0, 1.0) if self.unit == "ratio" else (-math.inf, math.inf))


def entry_problems(key: str, entry: Entry) -> Iterator[str]:
    """What is wrong with a declaration, in sentences; nothing: it may be declared."""
    kind, _, name = key.partition(".")
    if kind not in kinds():
        yield f"no such entity; one of {', '.join(kinds())}"
    elif not _NAME.fullmatch(name):
        yield f"its name is {kind}. and up to 40 small letters, digits and _, a letter first"
    if key in shipped_keys():
        yield "the shipped catalog has it, and it cannot be declared again"
    if entry.unit not in UNITS:
        yield f"no such unit {entry.unit!r:.20}; one of {', '.join(UNITS)}"
    if entry.range and not -math.inf < entry.range[0] < entry.range[1] < math.inf:
        yield "range is [lowest, highest], two numbers; leave it out where every number is valid"
    if len(entry.help) > 200:
        yield "help is one line of at most 200 characters"


@cache
def shipped_keys() -> frozenset[str]:
    """Every key of ``catalog.toml``."""
    import tomllib
    from importlib.resources import files

    text = (files(__package__) / "catalog.toml").read_text(encoding="utf-8")
    return frozenset(f"{table}.{name}" for table, rows in tomllib.loads(text).items() for name in rows)


@cache
def kinds() -> tuple[str, ...]:
    """The entities that a metric can belong to, as source.Kind has them."""
    return (*sorted({key.partition(".")[0] for key in shipped_keys()}), JOB)
