"""Charts over time made of character cells: strips, areas, lines and heat strips.

Everything but :class:`Ink` is a pure function from numbers to rows of runs. A NaN is a gap: it stays
blank, is never joined and never drawn as 0; a value of 0 leaves a mark on the base line.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple, TypeAlias

from coldaisle.sources.text import cell_width, fit
from coldaisle.tui.widgets.lines import Row, Run, merged

Paint: TypeAlias = Callable[[float], str]
"""The palette's token for a value."""
Label: TypeAlias = Callable[[float], str]
"""A value as people read it, for the axis."""

NAN = math.nan


@dataclass(frozen=True, slots=True)
class Ink:
    """The characters that charts are drawn with."""

    ramp: str
    """From nothing to a full cell; its length less one is the number of steps in a cell."""
    rule: str
    """A threshold, where no area covers it."""
    axis: str
    gap: str
    """A sample that is missing, in a heat strip."""
    dots: bool
    """Whether Braille can be used."""


UNICODE = Ink(ramp=" ▁▂▃▄▅▆▇█", rule="┄", axis="│", gap="-", dots=True)
ASCII = Ink(ramp=" .:#", rule="-", axis="|", gap="-", dots=False)


class Scale(NamedTuple):
    """The values at the bottom and the top of a chart."""

    low: float
    high: float

    def share(self, value: float) -> float:
        """Where a value lies between bottom and top, 0..1, cut at both."""
        if self.high <= self.low:
            return 0.0
        return min(1.0, max(0.0, (value - self.low) / (self.high - self.low)))


class Mark(NamedTuple):
    """A level worth a line: a power limit, a slowdown temperature."""

    value: float
    name: str
    token: str = "warn"


class Extent(NamedTuple):
    """What a series spans; NaN where it holds no sample."""

    low: float
    mean: float
    high: float
    last: float
    """The newest sample that is there."""


class Grid(NamedTuple):
    """How small multiples are laid out."""

    columns: int
    rows: int
    width: int
    """Cells of one chart, without the gap to its neighbour."""
    height: int


def extent(values: Sequence[float]) -> Extent:
    """Lowest, mean, highest and newest of the samples that are there."""
    there = [value for value in values if not math.isnan(value)]
    if not there:
        return Extent(NAN, NAN, NAN, NAN)
    return Extent(min(there), sum(there) / len(there), max(there), there[-1])


def nice(value: float) -> float:
    """The next of 1, 2, 5 × 10ⁿ at or above a value: tops of scales that do not follow every sample."""
    if not value > 0 or math.isinf(value):
        return 1.0
    power = 10.0 ** math.floor(math.log10(value))
    # 1e-9: 0.2 / 0.1 is a little more than 2
    return next(step * power for step in (1.0, 2.0, 5.0, 10.0) if value <= step * power * (1 + 1e-9))


def spread(values: Sequence[float], columns: int) -> list[float]:
    """Points over a number of columns: fewer points are held, more are averaged; a gap stays a gap."""
    count = len(values)
    if columns <= 0:
        return []
    if count == 0:
        return [NAN] * columns
    if count <= columns:
        return [values[column * count // columns] for column in range(columns)]
    edges = [column * count // columns for column in range(columns + 1)]
    return [extent(values[start:end]).mean for start, end in pairwise(edges)]


def held(values: Sequence[float]) -> list[float]:
    """A series whose samples stand until the next one that is due: bins finer than the samples are no gaps.

    What is due is told by the distances of the samples around: where one is missing, the distance
    is at least twice the usual, and the gap stays.
    """
    there = [at for at, value in enumerate(values) if not math.isnan(value)]
    distances = [after - before for before, after in pairwise(there)]
    filled = list(values)
    for number, (before, after) in enumerate(pairwise(there)):
        around = distances[max(0, number - 3) : number] + distances[number + 1 : number + 4]
        if 1 < after - before < 2 * (sorted(around)[len(around) // 2] if around else 1):
            filled[before + 1 : after] = [values[before]] * (after - before - 1)
    return filled


def area(
    values: Sequence[float],
    width: int,
    height: int,
    scale: Scale,
    *,
    ink: Ink = UNICODE,
    paint: Paint = lambda _: "accent",
    marks: Sequence[Mark] = (),
) -> list[Row]:
    """A filled chart of ``height`` rows, top first; thresholds show where the area does not reach."""
    columns = spread(values, width)
    steps = len(ink.ramp) - 1
    tops = [_top(value, scale, steps * height) for value in columns]
    tokens = [paint(value) if top else "" for value, top in zip(columns, tops, strict=True)]
    rows: list[Row] = []
    for line in range(height):
        base = (height - 1 - line) * steps
        mark = _mark_in(marks, scale, line, height)
        empty, bare = (" ", "text") if mark is None else (ink.rule, mark.token)
        chars = [ink.ramp[min(top - base, steps)] if top > base else empty for top in tops]
        rows.append(
            _runs(chars, [token if top > base else bare for top, token in zip(tops, tokens, strict=True)])
        )
    return rows


def heat(values: Sequence[float], width: int, scale: Scale, *, ink: Ink = UNICODE, paint: Paint) -> Row:
    """A series as one row of digits (tenths of the scale), for a GPU × time strip; gaps are dashes."""
    return merged(
        Run(ink.gap, "dim") if math.isnan(value) else Run(tenth(value, scale), paint(value))
        for value in spread(values, width)
    )


def tenth(value: float, scale: Scale) -> str:
    """The digit that stands for a value on its scale: 0 to 9."""
    return str(min(9, int(scale.share(value) * 10)))


def framed(
    rows: Sequence[Row], scale: Scale, label: Label, *, ink: Ink = UNICODE, marks: Sequence[Mark] = ()
) -> list[Row]:
    """Rows with a value axis at their left: top, bottom, and every mark that has a row of its own."""
    height = len(rows)
    names = axis_labels(scale, height, label, marks)
    width = max((cell_width(name) for name in names.values()), default=0)
    return [
        (Run(fit(names.get(line, ""), width, right=True) + ink.axis, "dim"), *row)
        for line, row in enumerate(rows)
    ]


def axis_width(scale: Scale, height: int, label: Label, marks: Sequence[Mark] = ()) -> int:
    """Cells that :func:`framed` takes at the left."""
    return (
        max((cell_width(name) for name in axis_labels(scale, height, label, marks).values()), default=0) + 1
    )


def axis_labels(scale: Scale, height: int, label: Label, marks: Sequence[Mark] = ()) -> dict[int, str]:
    """What stands beside which row: marks first, then the top and the bottom where they are free."""
    names: dict[int, str] = {}
    for line in range(height):
        mark = _mark_in(marks, scale, line, height)
        if mark is not None:
            names[line] = label(mark.value)
    if height:
        names.setdefault(0, label(scale.high))
        names.setdefault(height - 1, label(scale.low))
    return names


def time_axis(span: float, width: int, *, now: str = "now") -> Row:
    """``-15m      -10m      -5m     now`` under a chart that ends now and covers ``span`` seconds."""
    line = [" "] * max(0, width)
    for share in _ticks(width):
        text = now if share == 0 else f"-{_span(span * share)}"
        at = round((1 - share) * width) - (len(text) if share == 0 else 0)
        place = range(at, at + len(text))
        if (
            at >= 0
            and place.stop <= width
            and all(line[cell] == " " for cell in range(max(0, at - 1), min(width, place.stop + 1)))
        ):
            line[at : at + len(text)] = text
    return (Run("".join(line), "dim"),)


def grid(charts: int, width: int, height: int, *, gap: int = 2, least: int = 36, overhead: int = 2) -> Grid:
    """The layout in which ``charts`` equal charts are tallest and still at least ``least`` cells wide."""
    if charts <= 0:
        return Grid(0, 0, width, height)
    fitting = [
        columns
        for columns in (1, 2, 4)
        if columns <= charts and (width - gap * (columns - 1)) // columns >= least
    ]
    columns = max(fitting, default=1)
    rows = -(-charts // columns)
    return Grid(columns, rows, (width - gap * (columns - 1)) // columns, max(1, height // rows - overhead))


def _top(value: float, scale: Scale, steps: int) -> int:
    """Filled steps of a column: at least one where there is a sample, none where there is a gap."""
    return 0 if math.isnan(value) else max(1, round(scale.share(value) * steps))


def _mark_in(marks: Sequence[Mark], scale: Scale, line: int, height: int) -> Mark | None:
    """The mark that falls into a row; none in a chart too low to hold a line."""
    if height < 3:
        return None
    for mark in marks:
        row = height - 1 - min(height - 1, int(scale.share(mark.value) * height))
        if scale.low <= mark.value <= scale.high and row == line:
            return mark
    return None


def _runs(chars: Sequence[str], tokens: Sequence[str]) -> Row:
    """Characters with a token each as runs; a chart has thousands of cells, so no object a cell."""
    edges = [0, *(at for at in range(1, len(tokens)) if tokens[at] != tokens[at - 1]), len(tokens)]
    return tuple(
        Run("".join(chars[start:end]), tokens[start]) for start, end in pairwise(edges) if end > start
    )


def _ticks(width: int) -> tuple[float, ...]:
    """Shares of the span that get a label, the ends first."""
    if width >= 60:
        return (0, 1, 2 / 3, 1 / 3)
    return (0, 1) if width >= 12 else (0,)


def _span(seconds: float) -> str:
    """``90s``, ``15m``, ``2h``, ``1h30``, ``7d``."""
    whole = round(seconds)
    if whole < 120:
        return f"{whole}s"
    if whole < 7200:
        return f"{whole // 60}m" + (f"{whole % 60:02}" if whole % 60 else "")
    if whole < 2 * 86400:
        return f"{whole // 3600}h" + (f"{whole % 3600 // 60:02}" if whole % 3600 >= 60 else "")
    return f"{whole // 86400}d"


def span_name(seconds: float) -> str:
    """A range of time as keys and titles name it: ``5m``, ``15m``, ``1h``."""
    return {3600: "1h"}.get(round(seconds)) or _span(seconds)
