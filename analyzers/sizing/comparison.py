"""One request over several parts: what each answers, and which is the best of them. Pure."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from coldaisle.analyzers.sizing.quantity import Quantity
from coldaisle.analyzers.sizing.serving_site import figure_of, throughput
from coldaisle.analyzers.sizing.sheet import Sheet, SizingError
from coldaisle.sources.parts.catalogue import Part

Merit = Literal["cost", "time", "throughput", "gpus"]
COMMON = ("l40s", "a100_sxm_80", "h100_sxm", "h200_sxm", "b200_sxm", "mi300x")
"""Parts that are compared where none is named: what is bought most."""


@dataclass(frozen=True, slots=True)
class Option:
    """A part with its answer; without ``sheet`` the request means nothing for it, and ``problem`` says why."""

    part: Part
    sheet: Sheet | None
    problem: str = ""
    remedy: str = ""

    @property
    def fits(self) -> bool:
        """Whether there is any way to do it with this part."""
        return self.sheet is not None and self.sheet.fits

    def figure(self, section: str, label: str) -> Quantity | None:
        """One figure of its sheet; None: not there."""
        return None if self.sheet is None else figure_of(self.sheet, section, label)


def compared(plan: Callable[[Part], Sheet], parts: Iterable[Part]) -> tuple[Option, ...]:
    """What a plan answers for each. Errors: SizingError where the request means nothing for any of them."""
    options, problems = [], []
    for part in parts:
        try:
            options.append(Option(part, plan(part)))
        except SizingError as error:
            problems.append(error)
            options.append(Option(part, None, str(error), error.remedy))
    if problems and len(problems) == len(options):
        raise problems[0]
    return tuple(options)


def merit_of(options: Sequence[Option], *, number_matters: bool) -> Merit:
    """What decides: cost where every part that fits has a price, else the number of GPUs where that is what was asked for, else
    time or throughput a GPU."""
    fitting = [one for one in options if one.fits]
    if fitting and all(not math.isnan(_cost(one)) for one in fitting):
        return "cost"
    if number_matters:
        return "gpus"
    return "time" if any(one.figure("time", "wall clock") for one in fitting) else "throughput"


def ranked(options: Sequence[Option], merit: Merit) -> tuple[Option, ...]:
    """Those that fit, the best first; of equals in their order."""
    return tuple(sorted((one for one in options if one.fits), key=_KEYS[merit]))


def _cost(option: Option) -> float:
    """$ of the run, $/h of a deployment; NaN: no price."""
    figure = option.figure("cost", "the run") or option.figure("cost", "an hour")
    return figure.value if figure else math.nan


def _time(option: Option) -> float:
    figure = option.figure("time", "wall clock")
    return figure.value if figure else math.inf


def _slowness(option: Option) -> float:
    many = option.sheet.gpus.value if option.sheet and option.sheet.gpus else math.nan
    return -throughput(option.sheet) / many


def _gpus(option: Option) -> tuple[float, float]:
    """Their number, then energy: of the run, or of a token."""
    energy = option.figure("power and racks", "energy") or option.figure(
        "power and racks", "energy an output token"
    )
    many = option.sheet.gpus.value if option.sheet and option.sheet.gpus else math.inf
    return many, energy.value if energy else math.inf


_KEYS: dict[Merit, Callable[[Option], Any]] = {
    "cost": _cost, "time": _time, "throughput": _slowness, "gpus": _gpus,
}  # fmt: skip
