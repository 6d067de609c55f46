"""The picture of a cluster: a snapshot becomes rows of codes and labels, rows become runs of characters. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby
from typing import TYPE_CHECKING, NamedTuple

from rich.segment import Segment
from rich.style import Style

from coldaisle.sources.text import cell_width, clip, fit
from coldaisle.tui.cells import (
    BLANK,
    FADED,
    LEVEL_0,
    LOST,
    MARK_0,
    METRICS,
    STALE,
    CellMetric,
    group_code,
    letter,
    token,
    urgent,
    value_codes,
    values_of,
    with_findings,
)
from coldaisle.tui.glyphs import Glyphs, ascii_of
from coldaisle.tui.theme import Palette
from coldaisle.tui.tiles import NAME, VALUE, Group, Line, Plan, Zoom, frame, tail

if TYPE_CHECKING:
    from coldaisle.analyzers.snapshot import Snapshot
    from coldaisle.sources.source import Codes, Floats
    from coldaisle.tui.cells import Flags


OUTSIDE = ":"
"""A cell that the filter does not let through, where no colour can say so."""


class Label(NamedTuple):
    """Text that lies over a row of cells."""

    x: int
    text: str
    token: str


class MapRow(NamedTuple):
    """A line of the map; equal rows look equal."""

    codes: bytes
    lower: bytes
    """The lower halves; empty where a character is one cell."""
    labels: tuple[Label, ...]
    """By x, none over another."""


class Spot(NamedTuple):
    """Where the cursor stands."""

    x: int
    y: int
    code: int
    behind: int
    """Column behind its tile's row, for the marker; -1: no room."""


class MapView(NamedTuple):
    """What the map shows of a snapshot."""

    groups: Sequence[Group]
    plan: Plan
    metric: CellMetric
    matched: Flags | None
    """[gpu] what the filter lets through; None: no filter."""
    cursor: int | None
    """The cell that the cursor is on."""


def map_rows(snapshot: Snapshot, view: MapView, glyphs: Glyphs) -> tuple[list[MapRow], frozenset[int]]:
    """All lines of the map, also those out of view, and the codes in use."""
    plan = view.plan
    read = value_codes(snapshot, view.metric)
    codes = with_findings(snapshot, read)
    values = values_of(snapshot, view.metric.key)
    cells = _group_cells(view, codes, values) if plan.zoom is Zoom.GROUPS else codes[plan.gpu]
    if view.matched is not None:
        cells = cells + (~_matched_cells(view) * FADED).astype(cells.dtype)
    picture = frame(plan, cells)
    labels: dict[int, list[Label]] = {}
    titles = _titles(view, read, values, urgent(snapshot)) if plan.labels else []
    for line in plan.labels:
        words = (
            _foot(snapshot, view, line) if line.is_foot else _title(view, titles[line.group], line, glyphs)
        )
        labels.setdefault(line.y, []).extend(words)
    _point(labels, _spot(view, cells), plan, glyphs)
    rows = [
        MapRow(upper.tobytes(), lower.tobytes() if plan.halves == 2 else b"", tuple(labels.get(y, ())))
        for y, (upper, lower) in enumerate(
            zip(picture[:: plan.halves], picture[plan.halves - 1 :: plan.halves], strict=True)
        )
    ]
    return rows, frozenset(map(int, set(cells.tolist())))


def _group_cells(view: MapView, codes: Codes, values: Floats) -> Codes:
    import numpy as np

    members = [np.array([g for row in group.rows for g in row], dtype=np.intp) for group in view.groups]
    return np.array([group_code(codes[gpus], values[gpus], view.metric) for gpus in members], dtype=np.uint8)


def _matched_cells(view: MapView) -> Flags:
    import numpy as np

    assert view.matched is not None
    if view.plan.zoom is not Zoom.GROUPS:
        return np.asarray(view.matched[view.plan.gpu])
    matched = view.matched
    return np.array([any(matched[g] for row in group.rows for g in row) for group in view.groups], dtype=bool)


class Title(NamedTuple):
    """What a group's title says."""

    mean: float
    mark: str
    """``!`` something in it is lost or needs somebody now, ``*`` something is stale or needs somebody today, else blank."""
    faded: bool


def _titles(view: MapView, codes: Codes, values: Floats, urgency: Codes) -> list[Title]:
    """Of each group: the mean over the GPUs that have a value, and the worst that is the matter.

    Args:
        codes: [gpu] what they read, without the letters of findings.
        urgency: [gpu] see cells.urgent.
    """
    import numpy as np

    gpus = np.array([g for group in view.groups for row in group.rows for g in row], dtype=np.intp)
    sizes = [sum(map(len, group.rows)) for group in view.groups]
    group = np.repeat(np.arange(len(view.groups)), sizes)
    shown = (codes[gpus] >= LEVEL_0) & (codes[gpus] < MARK_0) & np.isfinite(values[gpus])
    count = np.bincount(group[shown], minlength=len(sizes))
    total = np.bincount(group[shown], weights=values[gpus][shown], minlength=len(sizes))
    lost = np.bincount(group[(codes[gpus] == LOST) | (urgency[gpus] == 2)], minlength=len(sizes))
    old = np.bincount(group[(codes[gpus] == STALE) | (urgency[gpus] == 1)], minlength=len(sizes))
    seen = (
        np.ones(len(sizes))
        if view.matched is None
        else np.bincount(group[view.matched[gpus]], minlength=len(sizes))
    )
    return [
        Title(
            float(total[g] / count[g]) if count[g] else math.nan,
            "!" if lost[g] else "*" if old[g] else " ",
            not seen[g],
        )
        for g in range(len(sizes))
    ]


def _title(view: MapView, title: Title, line: Line, glyphs: Glyphs) -> list[Label]:
    value, whole = short(title.mean, view.metric), view.groups[line.group].name
    if line.width - VALUE < min(cell_width(whole), NAME):
        value = ""  # the cells tell it; nothing else tells whose they are
    name = tail(whole, max(line.width - len(value) - 1, 1), glyphs.ellipsis)
    gap = line.width - cell_width(name) - 1 - len(value)
    if title.faded:
        return [Label(line.x, clip(name + title.mark + " " * gap + value, line.width), "rule")]
    words = [Label(line.x, name, "text")]
    words.append(Label(line.x + cell_width(name), title.mark, "bad" if title.mark == "!" else "warn"))
    if gap >= 0 and value:
        words.append(Label(line.x + cell_width(name) + 1 + gap, value, "title"))
    return words


def short(value: float, metric: CellMetric) -> str:
    """A mean in at most 4 cells: ``85%``, ``71C``, ``1.8k``."""
    if math.isnan(value):
        return "-"
    if metric not in METRICS:  # the site's own, of any unit
        power = min(max(int(math.log10(abs(value) or 1.0)) // 3, 0), 5)
        return f"{value / 1000**power:.3g}"[:3].rstrip(".") + ("", "k", "M", "G", "T", "P")[power]
    if metric.high == 1.0:
        return f"{value * 100:.0f}%"
    if metric.high == 100.0:
        return f"{value:.0f}C"
    return f"{value / 1e9:.0f}G" if metric.high > 1e6 else f"{value:.0f}"


class Power(NamedTuple):
    """What a group of nodes draws, and who says so."""

    watts: float
    words: str
    """``power``, or ``GPUs draw``: then nobody measures the rest."""
    note: str
    short: str
    """``35kW``; ``GPU 28kW`` of GPUs alone, ``GPU>28kW`` where some do not tell."""


def group_power(snapshot: Snapshot, nodes: Iterable[int], gpus: Iterable[int], rack: int = -1) -> list[Power]:
    """The power of a group, what is most of it first: of the rack as its PDU measures it, of all its nodes, of its GPUs.

    Nodes of which one does not tell are no sum. Args: ``rack``, if the group is one, its index.
    """
    found = []
    whole = _values(snapshot, "rack.power", [rack] if rack >= 0 else [])
    if whole and not math.isnan(whole[0]):
        found.append(Power(whole[0], "power", "the rack", _kilowatts(whole[0])))
    power = _values(snapshot, "node.power", nodes)
    if power and not any(map(math.isnan, power)):
        total = sum(power)
        found.append(Power(total, "nodes draw" if found else "power", "its nodes", _kilowatts(total)))
    drawn = _values(snapshot, "gpu.power", gpus)
    if there := [value for value in drawn if not math.isnan(value)]:
        total = sum(there)
        sign, note = (" ", "") if len(there) == len(drawn) else (">", f"{len(there)} of {len(drawn)} tell")
        found.append(Power(total, "GPUs draw", note, f"GPU{sign}{_kilowatts(total)}"))
    return found


def _kilowatts(watts: float) -> str:
    return f"{watts / 1000:.0f}kW" if watts >= 999.5 else f"{watts:.0f}W"


def _foot(snapshot: Snapshot, view: MapView, line: Line) -> list[Label]:
    """``35kW 25C``: what the rack, its nodes or else its GPUs draw, and the warmest inlet, if it has room."""
    layout, rows = snapshot.layout, view.groups[line.group].rows
    nodes = sorted({layout.gpus[row[0]].node for row in rows})
    boards = {gpu if (parent := layout.gpus[gpu].parent) < 0 else parent for row in rows for gpu in row}
    rack = layout.nodes[nodes[0]].rack
    words = [power.short for power in group_power(snapshot, nodes, sorted(boards), rack)[:1]]
    inlet = _values(snapshot, "node.inlet_temp", nodes) + _values(snapshot, "rack.inlet_temp", [rack])
    if warm := [value for value in inlet if not math.isnan(value)]:
        words.append(f"{max(warm):.0f}C")
    text = " ".join(words)
    if cell_width(text) > line.width:
        text = words[0]
    return [Label(line.x, fit(text, line.width), "dim")]


def feet_are_of_gpus(rows: Iterable[MapRow]) -> bool:
    """Whether any rack's power is that of its GPUs alone."""
    return any(label.token == "dim" and "GPU" in label.text for row in rows for label in row.labels)


def _values(snapshot: Snapshot, key: str, entities: Iterable[int]) -> list[float]:
    column = snapshot.column(key)
    return [] if column is None else [float(column.values[entity]) for entity in entities]


def _spot(view: MapView, cells: Codes) -> Spot | None:
    """The cursor's place on the map."""
    import numpy as np

    plan = view.plan
    if (cell := view.cursor) is None:
        return None
    line = plan.y[cell] // plan.halves
    in_row = (plan.y // plan.halves == line) & (plan.group == plan.group[cell])
    behind = int(plan.x[in_row].max()) + 1
    taken = behind >= plan.width or bool(((plan.y // plan.halves == line) & (plan.x == behind)).any())
    assert isinstance(plan.x, np.ndarray)
    return Spot(int(plan.x[cell]), int(line), int(cells[cell]), -1 if taken else behind)


def _point(labels: dict[int, list[Label]], spot: Spot | None, plan: Plan, glyphs: Glyphs) -> None:
    """Lay the cursor, and a marker behind its row, over the map."""
    if spot is None:
        return
    row = labels.setdefault(spot.y, [])
    row.append(Label(spot.x, letter(spot.code), "cursor"))
    if spot.behind >= 0 and plan.zoom is not Zoom.GROUPS:
        row.append(Label(spot.behind, glyphs.cursor, "title"))
    row.sort()


class Ink:
    """Segments of one palette, each made once."""

    def __init__(self, colours: Palette, glyphs: Glyphs) -> None:
        self.colours = colours
        self.glyphs = glyphs
        self.ground = colours.ground_style
        self._runs: dict[tuple[int, int], Segment] = {}
        self._words: dict[str, Style] = {}

    def run(self, code: int, length: int) -> Segment:
        """Equal cells side by side; a code over 255 is two halves, the upper one in the high byte."""
        if (segment := self._runs.get((code, length))) is None:
            segment = self._runs[code, length] = self._made(code, length)
        return segment

    def label(self, label: Label) -> Segment:
        """A label."""
        if (style := self._words.get(label.token)) is None:
            style = self._words[label.token] = self.ground + self.colours.style(label.token)
        return Segment(label.text if self.glyphs.utf8 else ascii_of(label.text), style)

    def _made(self, code: int, length: int) -> Segment:
        if code > 255:
            halves = (token(code >> 8), token(code & 0xFF) if code & 0xFF else "ground")
            return Segment(self.glyphs.upper_half * length, self.colours.half(*halves))
        sign = OUTSIDE if code & FADED and self.colours.is_mono else letter(code)
        return Segment(
            sign * length,
            self.ground if code == BLANK else self.ground + self.colours.style(token(code)),
        )


def segments_of(row: MapRow, ink: Ink) -> Iterator[Segment]:
    """A line of the map as runs."""
    codes: Sequence[int] = row.codes
    if row.lower:
        codes = [
            upper << 8 | lower if upper else lower for upper, lower in zip(row.codes, row.lower, strict=True)
        ]
    at = 0
    for label in row.labels:
        yield from _runs(codes[at : label.x], ink)
        yield ink.label(label)
        at = label.x + cell_width(label.text)
    yield from _runs(codes[at:], ink)


def _runs(codes: Sequence[int], ink: Ink) -> Iterator[Segment]:
    for code, same in groupby(codes):
        yield ink.run(code, sum(1 for _ in same))
