"""The map: every GPU a character, all racks in one widget that draws a line at a time.

A snapshot becomes rows of codes (bytes) and labels. Only rows that differ from what is on the screen are
painted again, whole; in a row, equal neighbours are one run, and runs are Segments made once.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import TYPE_CHECKING, ClassVar, NamedTuple

from rich.segment import Segment
from textual import events
from textual.filter import ANSIToTruecolor, LineFilter
from textual.geometry import Region
from textual.message import Message
from textual.strip import Strip
from textual.widget import Widget

from coldaisle.sources.text import cell_width, clip, fit
from coldaisle.tui.cells import (
    FADED,
    LEVEL_0,
    LOST,
    MARK_0,
    STALE,
    CellMetric,
    cell_codes,
    group_code,
    letter,
    token,
    values_of,
)
from coldaisle.tui.glyphs import Glyphs
from coldaisle.tui.theme import Palette, palette
from coldaisle.tui.tiles import Group, Line, Plan, Zoom, frame, tail

if TYPE_CHECKING:
    from coldaisle.analyzers.snapshot import Snapshot
    from coldaisle.sources.source import Codes, Floats
    from coldaisle.tui.cells import Flags


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
    """Index into Layout.gpus."""


def map_rows(snapshot: Snapshot, view: MapView, glyphs: Glyphs) -> tuple[list[MapRow], frozenset[int]]:
    """All lines of the map, also those out of view, and the codes in use."""
    plan = view.plan
    codes = cell_codes(snapshot, view.metric)
    values = values_of(snapshot, view.metric.key)
    cells = _group_cells(view, codes, values) if plan.zoom is Zoom.GROUPS else codes[plan.gpu]
    if view.matched is not None:
        cells = cells + (~_matched_cells(view) * FADED).astype(cells.dtype)
    picture = frame(plan, cells)
    labels: dict[int, list[Label]] = {}
    titles = _titles(view, codes, values) if plan.labels else []
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
    """``!`` something in it is lost, ``*`` something is stale, else blank."""
    faded: bool


def _titles(view: MapView, codes: Codes, values: Floats) -> list[Title]:
    """Of each group: the mean over the cells that show a value, and the worst that is the matter."""
    import numpy as np

    gpus = np.array([g for group in view.groups for row in group.rows for g in row], dtype=np.intp)
    sizes = [sum(map(len, group.rows)) for group in view.groups]
    group = np.repeat(np.arange(len(view.groups)), sizes)
    shown = (codes[gpus] >= LEVEL_0) & (codes[gpus] < MARK_0) & np.isfinite(values[gpus])
    count = np.bincount(group[shown], minlength=len(sizes))
    total = np.bincount(group[shown], weights=values[gpus][shown], minlength=len(sizes))
    lost = np.bincount(group[codes[gpus] == LOST], minlength=len(sizes))
    old = np.bincount(group[codes[gpus] == STALE], minlength=len(sizes))
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
    value = short(title.mean, view.metric)
    room = line.width - len(value) - 1
    name = tail(view.groups[line.group].name, max(room, 1), glyphs.ellipsis)
    gap = line.width - cell_width(name) - 1 - len(value)
    if title.faded:
        return [Label(line.x, clip(name + title.mark + " " * gap + value, line.width), "rule")]
    words = [Label(line.x, name, "text")]
    words.append(Label(line.x + cell_width(name), title.mark, "bad" if title.mark == "!" else "warn"))
    if gap >= 0:
        words.append(Label(line.x + cell_width(name) + 1 + gap, value, "title"))
    return words


def short(value: float, metric: CellMetric) -> str:
    """A mean in at most 4 cells: ``85%``, ``71C``, ``1.8k``."""
    if math.isnan(value):
        return "-"
    if metric.high == 1.0:
        return f"{value * 100:.0f}%"
    if metric.high == 100.0:
        return f"{value:.0f}C"
    return f"{value / 1e9:.0f}G" if metric.high > 1e6 else f"{value:.0f}"


def _foot(snapshot: Snapshot, view: MapView, line: Line) -> list[Label]:
    """``35kW 25C``: the power of the group's nodes, if all of them tell, and the warmest inlet."""
    nodes = sorted({snapshot.layout.gpus[row[0]].node for row in view.groups[line.group].rows})
    power, inlet = (_node_values(snapshot, key, nodes) for key in ("node.power", "node.inlet_temp"))
    words = []
    if power and not any(map(math.isnan, power)):
        words.append(f"{sum(power) / 1000:.0f}kW")
    if warm := [value for value in inlet if not math.isnan(value)]:
        words.append(f"{max(warm):.0f}C")
    return [Label(line.x, fit(" ".join(words), line.width), "dim")]


def _node_values(snapshot: Snapshot, key: str, nodes: Sequence[int]) -> list[float]:
    column = snapshot.column(key)
    return [] if column is None else [float(column.values[node]) for node in nodes]


def _spot(view: MapView, cells: Codes) -> Spot | None:
    """The cursor's place on the map."""
    import numpy as np

    plan = view.plan
    if view.cursor is None:
        return None
    cell = plan.cell_of(view.cursor)
    if cell is None:
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
        self._runs: dict[tuple[int, int], Segment] = {}

    def run(self, code: int, length: int) -> Segment:
        """Equal cells side by side; a code over 255 is two halves, the upper one in the high byte."""
        if (segment := self._runs.get((code, length))) is None:
            segment = self._runs[code, length] = self._made(code, length)
        return segment

    def label(self, label: Label) -> Segment:
        """A label."""
        return Segment(label.text, self.colours.style(label.token))

    def _made(self, code: int, length: int) -> Segment:
        if code > 255:
            upper, lower = code >> 8 & 0xFF, code & 0xFF
            if not lower:  # half a cell: nothing below
                return Segment(
                    self.glyphs.upper_half * length, self.colours.half(token(upper), "cell.nodata")
                )
            return Segment(self.glyphs.upper_half * length, self.colours.half(token(upper), token(lower)))
        return Segment(letter(code) * length, self.colours.style(token(code)) if code else None)


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


class Heatmap(Widget):
    """Shows rows of the map; scrolls by whole lines so that the cursor's stays in view."""

    DEFAULT_CSS = "Heatmap { width: 1fr; height: auto; }"
    ALLOW_SELECT: ClassVar[bool] = False

    class Pointed(Message):
        """Somebody clicked on a place of the map."""

        def __init__(self, x: int, y: int, *, twice: bool) -> None:
            super().__init__()
            self.x, self.y, self.twice = x, y, twice

    def __init__(self) -> None:
        super().__init__()
        self.rows: list[MapRow] = []
        self.top = 0
        self._ink: Ink | None = None

    def show(self, rows: list[MapRow], follow: int | None, height: int) -> None:
        """Replace the rows; those on the screen that differ are painted again.

        Args:
            follow: a line to bring into view; None: leave the view where it is.
            height: lines of the widget, as they will be after the next layout.
        """
        old, old_top = self.rows, self.top
        self.rows = rows
        self.top = self._scrolled(follow, height)
        if self.top != old_top or len(old) != len(rows) or height != self.size.height:
            self.refresh()
            return
        view = range(self.top, min(self.top + height, len(rows)))
        changed = [at - self.top for at in view if old[at] != rows[at]]
        if changed:
            self.refresh(*(Region(0, y, self.size.width, 1) for y in changed))

    def render_line(self, y: int) -> Strip:
        width = self.size.width
        at = self.top + y
        if at >= len(self.rows) or len(self.rows[at].codes) > width:
            return Strip.blank(width)
        segments = list(segments_of(self.rows[at], self.ink))
        segments.append(Segment(" " * (width - len(self.rows[at].codes))))
        return Strip([segment for segment in segments if segment.text], width)

    def get_line_filters(self) -> Sequence[LineFilter]:
        """Without the conversion of numbered colours to 24 bits: it doubles the bytes and half the cost."""
        return [each for each in super().get_line_filters() if not isinstance(each, ANSIToTruecolor)]

    @property
    def ink(self) -> Ink:
        """Segments in the colours of the moment."""
        colours: Palette = getattr(self.app, "palette", None) or palette("dark")
        signs: Glyphs = getattr(self.app, "glyphs")  # noqa: B009 - the app is only known as one of ours
        if self._ink is None or self._ink.colours is not colours or self._ink.glyphs is not signs:
            self._ink = Ink(colours, signs)
        return self._ink

    def on_click(self, event: events.Click) -> None:
        self.post_message(self.Pointed(event.x, event.y + self.top, twice=event.chain == 2))

    def on_mouse_scroll_down(self) -> None:
        self._scroll_by(3)

    def on_mouse_scroll_up(self) -> None:
        self._scroll_by(-3)

    def _scroll_by(self, lines: int) -> None:
        self.top = min(max(self.top + lines, 0), max(len(self.rows) - self.size.height, 0))
        self.refresh()

    def _scrolled(self, follow: int | None, height: int) -> int:
        """The first line in view: as before, moved as little as needed."""
        top = min(self.top, max(len(self.rows) - height, 0))
        return top if follow is None else min(max(top, follow - height + 1), follow)
