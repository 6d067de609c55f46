"""One line of the bench table."""

from __future__ import annotations

from typing import Literal, NamedTuple


class Row(NamedTuple):
    """A measured number beside what it may be."""

    name: str
    """What was measured, in a few words."""
    value: float
    unit: str
    """``x``, ``s``, ``ms``, ``%``, ``B`` ..."""
    budget: float | None
    """The limit; None: for information only."""
    better: Literal["lower", "higher"]

    @property
    def is_met(self) -> bool:
        """Whether the value is within its budget; true without one."""
        if self.budget is None:
            return True
        return self.value <= self.budget if self.better == "lower" else self.value >= self.budget

    def __str__(self) -> str:
        bound = (
            "" if self.budget is None else f"  ({'<=' if self.better == 'lower' else '>='} {self.budget:g})"
        )
        verdict = "" if self.budget is None else ("  ok" if self.is_met else "  MISSED")
        return f"{self.name:58} {self.value:10.3f} {self.unit}{bound}{verdict}"
