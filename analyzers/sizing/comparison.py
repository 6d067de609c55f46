"""One request over several parts: what each answers, and which is the best of them. Pure."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from coldaisle.analyzers.sizing.plan_serving import Request, plan_serving, tensor_sizes
from coldaisle.analyzers.sizing.quantity import Quantity
from coldaisle.analyzers.sizing.serving_site import AT_LOAD, FULL, tokens_s
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
        if self.sheet is None:
            return None
        found = (dict(one.figures).get(label) for one in self.sheet.sections if one.name == section)
        return next(found, None)


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


def merit_of(options: Sequence[Option], *, gpus_told: bool) -> Merit:
    """What decides: cost where every part that fits has a price, else time or throughput for so many GPUs, else their number."""
    fitting = [one for one in options if one.fits]
    if fitting and all(not math.isnan(_cost(one)) for one in fitting):
        return "cost"
    if not gpus_told:
        return "gpus"
    return "time" if any(one.figure("time", "wall clock") for one in fitting) else "throughput"


def best_of(options: Sequence[Option], merit: Merit) -> Option | None:
    """The best that fits; None: none does. Of equals the first."""
    fitting = [one for one in options if one.fits]
    return min(fitting, key=_KEYS[merit], default=None)


def _cost(option: Option) -> float:
    """$ of the run, $/h of a deployment; NaN: no price."""
    figure = option.figure("cost", "the run") or option.figure("cost", "an hour")
    return figure.value if figure else math.nan


def _time(option: Option) -> float:
    figure = option.figure("time", "wall clock")
    return figure.value if figure else math.inf


def _slowness(option: Option) -> float:
    return -throughput(option)


def _gpus(option: Option) -> float:
    return option.sheet.gpus.value if option.sheet and option.sheet.gpus else math.inf


_KEYS: dict[Merit, Callable[[Option], float]] = {
    "cost": _cost, "time": _time, "throughput": _slowness, "gpus": _gpus,
}  # fmt: skip


def throughput(option: Option) -> float:
    """Output tokens/s that a deployment can; NaN: not one that serves."""
    figure = option.figure(AT_LOAD, "throughput") or option.figure(FULL, "throughput")
    return figure.value if figure else math.nan


def plan_serving_on(request: Request, part: Part, gpus: int | None) -> Sheet:
    """Serving on so many GPUs: the layout with the highest throughput; None: the fewest that do it.

    Errors: SizingError for layouts that contradict the number.
    """
    if gpus is None:
        return plan_serving(request, part)
    sheets = []
    for tensor in [request.tensor] if request.tensor else tensor_sizes(request.model, part):
        size = tensor * (request.pipeline or 1)
        replicas = request.replicas or gpus // size
        if replicas and size * replicas == gpus:
            sheets.append(plan_serving(replace(request, tensor=tensor, replicas=replicas), part))
    if not sheets:
        raise SizingError(*_no_layout(request, part, gpus))
    fitting = [one for one in sheets if one.fits]
    if not fitting:
        return sheets[-1]
    return max(fitting, key=lambda one: _rate(one, part))


def _rate(sheet: Sheet, part: Part) -> float:
    full = throughput(Option(part, sheet))
    if not math.isnan(full):
        return full
    paid = tokens_s(sheet)
    return paid.value if paid else 0.0


def _no_layout(request: Request, part: Part, gpus: int) -> tuple[str, str]:
    told = [("TP", request.tensor), ("PP", request.pipeline), ("replicas", request.replicas)]
    words = " · ".join(f"{name} {size}" for name, size in told if size is not None)
    if words:
        return f"{words} do not make {gpus:,} GPUs", "their product has to be the number of GPUs"
    sizes = ", ".join(map(str, tensor_sizes(request.model, part)))
    return (
        f"{gpus:,} GPUs are no whole number of replicas of {sizes} {part.product}",
        "take another number, or --tp and --pp",
    )
