"""Plans for a number of GPUs that was told: whether they do what is asked, and how many would. Pure.

A plan without a number finds one that does; with a number it tells what comes of it, and that may be too little.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace

from coldaisle.analyzers.sizing.plan_serving import Request, plan_serving, tensor_sizes
from coldaisle.analyzers.sizing.quantity import Binding, exact
from coldaisle.analyzers.sizing.serving_request import MOST_GPUS
from coldaisle.analyzers.sizing.serving_site import at_load, figure_of, throughput
from coldaisle.analyzers.sizing.sheet import Sheet, SizingError
from coldaisle.analyzers.sizing.site import Site
from coldaisle.sources.parts.catalogue import Part

_DAY = 86_400.0
_HOUR = 3600.0
_MOST_STAGES = 32


def in_time(sheet: Sheet, deadline_s: float | None, gpus: int | None) -> Sheet:
    """A run on so many GPUs; one that ends after the deadline is not what was asked for."""
    wall = figure_of(sheet, "time", "wall clock")
    if sheet.gpus is None or wall is None or deadline_s is None or gpus is None or wall.value <= deadline_s:
        return sheet
    answer = (
        f"{gpus:,} {sheet.part} take {_span(wall.value)} [{_span(wall.low)}, {_span(wall.high)}], and the deadline is "
        f"{_span(deadline_s)}; without a number of GPUs the answer is how many would do. What binds: time"
    )
    terms = (("time", wall), ("deadline", exact(deadline_s, "s", "told")))
    others = tuple(
        warning for warning in sheet.warnings if "the deadline" not in warning
    )  # the answer has said it
    return replace(sheet, answer=answer, gpus=None, binding=Binding("time", terms), warnings=others)


def _span(seconds: float) -> str:
    return f"{seconds / _DAY:.3g} d" if seconds >= _DAY else f"{seconds / _HOUR:.3g} h"


def plan_serving_on(request: Request, part: Part, gpus: int | None, site: Site | None = None) -> Sheet:
    """Serving on so many GPUs: the layout with the highest throughput; None: the fewest that do it.

    Errors: SizingError for layouts that contradict the number.
    """
    if gpus is None:
        sheet = plan_serving(request, part, site)
        return sheet if request.replicas is None else _enough(request, sheet, part)
    if gpus > MOST_GPUS:
        raise SizingError(f"{gpus:,} GPUs; at most {MOST_GPUS:,} are sized")
    found: Sheet | None = None
    for tensor, stages in _splits(request, part, gpus):
        told = replace(request, tensor=tensor, pipeline=stages, replicas=gpus // (tensor * stages))
        sheet = plan_serving(told, part, site)
        if found is None or (sheet.fits, throughput(sheet)) >= (found.fits, throughput(found)):
            found = sheet
        if stages > 1 and found.fits:
            break
    if found is None:
        raise SizingError(*_no_layout(request, part, gpus))
    return _enough(request, found, part)


def _splits(request: Request, part: Part, gpus: int) -> Iterator[tuple[int, int]]:
    """Tensor sizes and stages whose product divides the number; stages only as far as they are needed or told."""
    sizes = [request.tensor] if request.tensor else tensor_sizes(request.model, part)
    many = [request.pipeline] if request.pipeline else range(1, _MOST_STAGES + 1)
    for stages in many:
        for tensor in sizes if stages == 1 or request.pipeline else sizes[-1:]:
            replicas, rest = divmod(gpus, tensor * stages)
            if replicas and not rest and request.replicas in (None, replicas):
                yield tensor, stages


def _no_layout(request: Request, part: Part, gpus: int) -> tuple[str, str]:
    told = [("TP", request.tensor), ("PP", request.pipeline), ("replicas", request.replicas)]
    words = " · ".join(f"{name} {size}" for name, size in told if size is not None)
    if words:
        return f"{words} do not make {gpus:,} GPUs", "their product has to be the number of GPUs"
    sizes = ", ".join(map(str, tensor_sizes(request.model, part)))
    return f"{gpus:,} GPUs are no whole number of replicas of {sizes} {part.product}", "tell --tp and --pp"


def _enough(request: Request, sheet: Sheet, part: Part) -> Sheet:
    """The same where it serves what is asked with the goals; else without GPUs, and how many would do."""
    if sheet.gpus is None:
        free = plan_serving(replace(request, replicas=None), part)
        return (
            replace(sheet, answer=f"{sheet.answer}; {free.gpus.value:,.0f} would do") if free.gpus else sheet
        )
    lacking = list(_lacking(request, sheet))
    if not lacking:
        return sheet
    free = plan_serving(replace(request, replicas=None), part)
    would = f"; {free.gpus.value:,.0f} would do" if free.gpus else "; no number of them does"
    answer = f"{sheet.gpus.value:,.0f} {part.product} are too few: {'; '.join(words for _, words in lacking)}{would}"
    name = lacking[0][0]
    terms = sheet.binding.terms if sheet.binding else ()
    asked = (name, free.gpus or exact(sheet.gpus.value, "gpus", "told, and too few"))
    known = tuple(term for term in terms if term[0] != name)
    return replace(
        sheet, answer=f"{answer}. What binds: {name}", gpus=None, binding=Binding(name, (asked, *known))
    )


def _lacking(request: Request, sheet: Sheet) -> Iterator[tuple[str, str]]:
    can, asked = throughput(sheet), request.rate * request.osl
    if can < asked:
        yield "throughput", f"they serve {can / request.osl:.3g} requests/s at most, of {request.rate:g}"
    for label, goal in (("TTFT", request.ttft), ("ITL", request.itl)):
        figure = at_load(sheet, label)
        if figure is not None and not math.isnan(request.users) and figure.value > goal * 1.0001:
            yield label, f"{label} is {figure.value * 1e3:,.0f} ms, not {goal * 1e3:,.0f}"
