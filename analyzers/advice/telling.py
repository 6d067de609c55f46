"""Words and figures that several rules tell in the same way. Names in sentences are made inert and short."""

from __future__ import annotations

from collections.abc import Iterable

from coldaisle.analyzers.sizing.quantity import Quantity
from coldaisle.analyzers.usage import Stay
from coldaisle.sources.text import plain

NAME = 40
"""Cells of a name in a sentence."""
EXAMPLES = 5


def named(text: str) -> str:
    """A name as it may stand in a sentence."""
    return plain(text, NAME) or "(no name)"


def bare(id_: str) -> str:
    """``4711`` of ``slurm:4711``"""
    return plain(id_.partition(":")[2] or id_, NAME)


def who(stay: Stay) -> str:
    """``job 4655 (rsun)``"""
    return f"job {bare(stay.id)} ({named(stay.user)})" if stay.user else f"job {bare(stay.id)}"


def title(user: str, name: str) -> str:
    """``'train' (rsun)``, ``'train'``, ``without a name (rsun)``"""
    of = repr(named(name)) if name else "without a name"
    return f"{of} ({named(user)})" if user else of


def counted(number: float, one: str, many: str = "") -> str:
    """``1 GPU``, ``8 GPUs``"""
    return f"{number:,.0f} {one if round(number) == 1 else many or one + 's'}"


def lasting(seconds: float) -> str:
    """``35 min``, ``7.5 h``, ``12 d``"""
    if seconds < 2 * 3600:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.3g} h" if seconds < 2 * 86400 else f"{seconds / 86400:.3g} d"


def between(
    low: float, value: float, high: float, unit: str, formula: str = "", source: str = ""
) -> Quantity:
    """A figure with its bounds put in order around it."""
    return Quantity(value, min(low, value), max(high, value), unit, formula, source)


def examples(stays: Iterable[Stay]) -> tuple[str, ...]:
    """Ids of a few jobs."""
    return tuple(stay.id for stay, _ in zip(stays, range(EXAMPLES), strict=False))
