"""Rows of text runs, and a scrolling view that repaints only the rows that changed.

A run carries a token of the palette (``ok``, ``dim``, ``scale7``), never a colour; its text is inert
already (:mod:`coldaisle.sources.text`) and reaches the terminal as a Segment, never as markup.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Sequence
from typing import NamedTuple, TypeAlias

from rich.segment import Segment
from rich.style import Style
from textual.geometry import Region, Size
from textual.scroll_view import ScrollView
from textual.strip import Strip

from coldaisle.sources.text import cell_width, clip


class Run(NamedTuple):
    """A piece of a row in one token of the palette."""

    text: str
    token: str = "text"


Row: TypeAlias = tuple[Run, ...]

BLANK: Row = ()


def row_width(row: Row) -> int:
    """Terminal cells that a row takes."""
    return sum(cell_width(run.text) for run in row)


def row_text(row: Row) -> str:
    """A row without its tokens."""
    return "".join(run.text for run in row)


def text_of(rows: Iterable[Row]) -> str:
    """Rows as plain lines, for tests and for copying."""
    return "\n".join(row_text(row).rstrip() for row in rows)


def pad(row: Row, width: int) -> Row:
    """A row in exactly ``width`` cells: cut with an ellipsis, or filled with blanks."""
    if row_width(row) > width:
        row = cut(row, width)
    room = width - row_width(row)  # a wide character that did not fit leaves a cell
    return (*row, Run(" " * room)) if room else row


def cut(row: Row, width: int) -> Row:
    """A row in at most ``width`` cells; the run that does not fit is cut."""
    kept: list[Run] = []
    for run in row:
        cells = cell_width(run.text)
        if cells >= width:
            kept.append(Run(clip(run.text, width) if cells > width else run.text, run.token))
            break
        kept.append(run)
        width -= cells
    return tuple(kept)


def beside(left: Sequence[Row], right: Sequence[Row], width: int, gap: int = 2) -> list[Row]:
    """Two blocks of rows next to each other, the left one ``width`` cells wide."""
    height = max(len(left), len(right))
    rows: list[Row] = []
    for at in range(height):
        first = left[at] if at < len(left) else BLANK
        second = right[at] if at < len(right) else BLANK
        rows.append((*pad(first, width), Run(" " * gap), *second))
    return rows


FILLER = "\ue000"
"""Stands behind a wide character for its second cell while text is broken; inert text holds none."""


def wrap(text: str, width: int, token: str = "text") -> list[Row]:
    """Inert text broken at blanks into rows; what is wider than a row is broken anywhere. Of blanks alone: one empty row."""
    indent = " " * (len(text) - len(text.lstrip()))
    measured = text if text.isascii() else "".join(sign + FILLER * (cell_width(sign) - 1) for sign in text)
    room = width - (FILLER in measured)  # a row may end between the two cells of a sign
    lines = textwrap.wrap(measured, max(10, room), subsequent_indent=indent, break_on_hyphens=False)
    return [(Run(line.replace(FILLER, ""), token),) for line in lines or [""]]


def merged(runs: Iterable[Run]) -> Row:
    """Neighbouring runs of one token joined: fewer bytes to the terminal."""
    joined: list[Run] = []
    for run in runs:
        if joined and joined[-1].token == run.token:
            joined[-1] = Run(joined[-1].text + run.text, run.token)
        elif run.text:
            joined.append(run)
    return tuple(joined)


class Lines(ScrollView, can_focus=False, inherit_bindings=False):
    """Shows rows, scrolls them, and marks one as the cursor's where asked to.

    The screen that owns it builds the rows; this widget knows nothing of what they mean.
    """

    DEFAULT_CSS = """
    Lines { width: 1fr; height: 1fr; scrollbar-size: 1 1; scrollbar-size-horizontal: 0; overflow-x: hidden; }
    """

    def __init__(self, *, id: str | None = None, classes: str | None = None) -> None:
        super().__init__(id=id, classes=classes)
        self._rows: tuple[Row, ...] = ()
        self._cursor: int | None = None

    @property
    def rows(self) -> tuple[Row, ...]:
        """What is shown now."""
        return self._rows

    @property
    def room(self) -> Size:
        """Cells that rows may take without scrolling sideways."""
        return self.scrollable_content_region.size

    def show(self, rows: Sequence[Row], cursor: int | None = None) -> None:
        """Replace the rows; only those that differ are painted again."""
        old, self._rows = self._rows, tuple(rows)
        changed = {at for at, (a, b) in enumerate(zip(old, self._rows, strict=False)) if a != b}
        changed |= {at for at in (self._cursor, cursor) if at is not None and self._cursor != cursor}
        self._cursor = cursor
        if len(old) != len(self._rows):
            self.virtual_size = Size(self.room.width, len(self._rows))
            self.refresh()
            return
        self._repaint(changed)

    def reveal(self, row: int) -> None:
        """Scroll as little as needed to see a row."""
        top, height = round(self.scroll_y), max(1, self.room.height)
        if row < top:
            self.scroll_to(y=row, animate=False, force=True)
        elif row >= top + height:
            self.scroll_to(y=row - height + 1, animate=False, force=True)

    def render_line(self, y: int) -> Strip:
        """One row of the view, in the palette of the moment."""
        from coldaisle.tui.theme import style_of  # the palette belongs to the running app

        width = self.room.width
        at = y + round(self.scroll_y)
        base = self.rich_style
        if at >= len(self._rows):
            return Strip.blank(width, base)
        here = style_of(self.app, "cursor") if at == self._cursor else None
        segments = [
            Segment(run.text, _over(style_of(self.app, run.token), here))
            for run in pad(self._rows[at], width)
        ]
        return Strip(segments, width).apply_style(base)

    def on_resize(self) -> None:
        self.virtual_size = Size(self.room.width, len(self._rows))

    def _repaint(self, changed: set[int]) -> None:
        top, size = round(self.scroll_y), self.room
        regions = [
            Region(0, at - top, size.width, 1) for at in sorted(changed) if 0 <= at - top < size.height
        ]
        if regions:
            self.refresh(*regions)


def _over(style: Style, cursor: Style | None) -> Style:
    return style if cursor is None else style + cursor
