"""What the calculator answers: one line, and every figure behind it."""

from __future__ import annotations

from dataclasses import dataclass

from coldaisle.analyzers.sizing.quantity import Binding, Quantity
from coldaisle.sources.errors import SizingError

__all__ = ["Section", "Sheet", "SizingError", "Verdict"]


@dataclass(frozen=True, slots=True)
class Section:
    """Figures that belong together: ``memory of the fullest GPU``. Labels are unique in it."""

    name: str
    figures: tuple[tuple[str, Quantity], ...]
    note: str = ""


@dataclass(frozen=True, slots=True)
class Verdict:
    """A rule of thumb that people quote, and what is true of it here."""

    claim: str
    verdict: str


@dataclass(frozen=True, slots=True)
class Sheet:
    """An answer. ``answer`` is its one line; without ``gpus`` nothing fits, and ``answer`` says what binds."""

    title: str
    answer: str
    gpus: Quantity | None
    binding: Binding | None
    sections: tuple[Section, ...]
    verdicts: tuple[Verdict, ...] = ()
    warnings: tuple[str, ...] = ()
    part: str = ""
    """Catalogue id of the part that it is for."""

    @property
    def fits(self) -> bool:
        """Whether there is any way to do it."""
        return self.gpus is not None
