"""A piece of advice, with what it rests on."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from coldaisle.analyzers.advice.candidates import Option
from coldaisle.analyzers.advice.utilisation import NOT_KNOWN, Utilisations
from coldaisle.analyzers.finding import Scope
from coldaisle.analyzers.sizing.quantity import Quantity


class Grade(StrEnum):
    """How much it can be trusted: A is as good as counted, D is a guess that names what would settle it."""

    A = "A"
    B = "B"
    C = "C"
    D = "D"


@dataclass(frozen=True, slots=True)
class Ground:
    """What a piece of advice was measured by."""

    metric: str
    """A catalog key, or ``slurm.elapsed``, ``slurm.pending`` ..."""
    window_s: float
    samples: int
    coverage: float
    """Share of the samples that should have been there."""
    examples: tuple[str, ...] = ()
    """Jobs or GPUs that show it."""


@dataclass(frozen=True, slots=True)
class Saving:
    """What it would free; None where it cannot be told."""

    gpu_hours_per_week: Quantity | None = None
    power: Quantity | None = None
    """W."""
    money_per_week: Quantity | None = None
    """Only where a price was given."""
    gpu_hours: Quantity | None = None
    """Within the span that was looked at, as counted."""


@dataclass(frozen=True, slots=True)
class Advice:
    """One thing to do. Texts are plain; names in them are other people's."""

    id: str
    """``idle_gpus:slurm:4711``: rule and anchor, the same from one look to the next."""
    rule: str
    action: str
    """In one line, as on Racks: ``reclaim 8 idle GPUs of job 4655 (rsun)``."""
    scope: Scope
    quantity: Quantity
    saving: Saving
    grade: Grade
    grounds: tuple[Ground, ...]
    because: str
    """One sentence with the numbers."""
    would_change: str
    """What, if it were known or different, would change it."""
    but: str = ""
    """When not to follow it."""
    options: tuple[Option, ...] = ()
    """Of a purchase: what does the same work, buying nothing first."""


@dataclass(frozen=True, slots=True)
class Refused:
    """Advice that was not given."""

    rule: str
    scope: Scope
    why: str
    """What is missing: ``only 3 of the 5 jobs that it takes``."""


@dataclass(frozen=True, slots=True)
class Counsel:
    """All advice of one look, most saved first, and what was refused."""

    given: tuple[Advice, ...] = ()
    refused: tuple[Refused, ...] = ()
    at: float = 0.0
    """Epoch seconds of the end of what was looked at; 0: nothing was yet."""
    span_s: float = 0.0
    """How far back was looked."""
    reclaimable: Quantity | None = None
    """GPU-hours within the span that could have been somebody else's, none counted twice; None: jobs or readings lack."""
    utilisations: Utilisations = NOT_KNOWN


NO_COUNSEL = Counsel()
"""Nobody has looked yet."""
