"""A table for thousands of live rows: only what is in sight is ever built.

The screen gives the rows' keys in order and a function that makes the cells of one; the table keeps
the cursor on its key while rows come, go and change places, and repaints only rows that differ.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar, NamedTuple, TypeAlias

from rich.segment import Segment
from textual.binding import Binding, BindingType
from textual.events import Click
from textual.geometry import Region, Size
from textual.message import Message
from textual.scroll_view import ScrollView
from textual.strip import Strip

from coldaisle.tui.widgets.lines import Row, Run, pad, row_width

Cell: TypeAlias = Row | Run
CellsOf: TypeAlias = Callable[[str, Sequence["Placed"]], Sequence[Cell]]
"""The cells of a row, in the order of the columns that are shown."""


@dataclass(frozen=True, slots=True)
class Column:
    """A column, and what it is worth when there is not room for all."""

    key: str
    title: str
    width: int
    right: bool = False
    keep: int = 0
    """The lowest stay longest."""
    grows: bool = False
    """Takes what room is left over."""


class Placed(NamedTuple):
    """A column that is shown, and how wide."""

    column: Column
    width: int


def place(columns: Sequence[Column], width: int, gap: int = 1) -> tuple[Placed, ...]:
    """The columns that fit, in their order; a growing one takes the rest."""
    room = width
    kept: set[str] = set()
    for column in sorted(columns, key=lambda column: column.keep):
        need = column.width + (gap if kept else 0)
        if need > room and kept:
            break
        room -= need
        kept.add(column.key)
    grows = next((column.key for column in columns if column.grows and column.key in kept), None)
    return tuple(
        Placed(column, max(1, column.width + (max(room, 0) if column.key == grows else 0)))
        for column in columns
        if column.key in kept
    )


def cells_row(cells: Sequence[Cell], placed: Sequence[Placed], gap: int = 1) -> Row:
    """Cells as one row, each cut or padded to its column."""
    runs: list[Run] = []
    for cell, (column, width) in zip(cells, placed, strict=True):
        row: Row = (cell,) if isinstance(cell, Run) else cell
        if runs:
            runs.append(Run(" " * gap))
        if column.right and (spare := width - row_width(row)) > 0:
            row = (Run(" " * spare), *row)
        runs.extend(pad(row, width))
    return tuple(runs)


class Table(ScrollView, can_focus=True, inherit_bindings=False):
    """Rows by key under a header that stays; the cursor follows its key."""

    DEFAULT_CSS = """
    Table { width: 1fr; height: 1fr; scrollbar-size: 1 1; scrollbar-size-horizontal: 0; overflow-x: hidden; }
    """

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("up,k", "move(-1)", "Up", show=False),
        Binding("down,j", "move(1)", "Down", show=False),
        Binding("pageup", "page(-1)", "Page up", show=False),
        Binding("pagedown", "page(1)", "Page down", show=False),
        Binding("home", "edge(0)", "First", show=False),
        Binding("end", "edge(1)", "Last", show=False),
        Binding("enter", "open", "Open"),
    ]

    class Opened(Message):
        """Enter or a click on the cursor's row."""

        def __init__(self, table: Table, key: str) -> None:
            super().__init__()
            self.table = table
            self.key = key

        @property
        def control(self) -> Table:
            """The table it happened in."""
            return self.table

    class Moved(Message):
        """The cursor stands on another row."""

        def __init__(self, table: Table, key: str) -> None:
            super().__init__()
            self.table = table
            self.key = key

        @property
        def control(self) -> Table:
            """The table it happened in."""
            return self.table

    def __init__(
        self, columns: Sequence[Column], *, empty: str = "nothing to show", id: str | None = None
    ) -> None:
        super().__init__(id=id)
        self._columns = tuple(columns)
        self._empty: tuple[Row, ...] = ((Run(empty, "dim"),),)
        self._keys: tuple[str, ...] = ()
        self._cells_of: CellsOf = lambda key, placed: [Run("") for _ in placed]
        self._at = 0
        self._sorted: str | None = None
        self._drawn: dict[int, Row] = {}
        """What is on the screen now, by index; never more than a screenful."""

    @property
    def key(self) -> str | None:
        """The key under the cursor."""
        return self._keys[self._at] if self._keys else None

    @property
    def keys(self) -> tuple[str, ...]:
        """All rows' keys in their order."""
        return self._keys

    @property
    def placed(self) -> tuple[Placed, ...]:
        """The columns there is room for."""
        return place(self._columns, max(1, self.scrollable_content_region.width))

    def show(
        self,
        keys: Sequence[str],
        cells_of: CellsOf,
        *,
        sorted_by: str | None = None,
        empty: str | Sequence[Row] | None = None,
    ) -> None:
        """New content; the cursor stays on its key, or else on its place.

        Args:
            empty: what stands there while there are no rows; None: as before.
        """
        cursor, resized = self.key, len(keys) != len(self._keys)
        moved = tuple(keys) != self._keys
        self._keys, self._cells_of = tuple(keys), cells_of
        if empty is not None:
            self._empty = ((Run(empty, "dim"),),) if isinstance(empty, str) else tuple(empty)
        if moved:
            self._at = (
                self._keys.index(cursor) if cursor in self._keys else min(self._at, max(0, len(keys) - 1))
            )
        if resized or sorted_by != self._sorted:
            self._sorted = sorted_by
            self._measure()
            self.refresh()
            return
        self._repaint_changed()

    def set_columns(self, columns: Sequence[Column]) -> None:
        """Other columns from now on; nothing happens where they are the same."""
        if self._columns != tuple(columns):
            self._columns = tuple(columns)
            self._drawn.clear()
            self.refresh()

    def select(self, key: str) -> None:
        """Put the cursor on a key, if it is there."""
        if key in self._keys:
            self._go(self._keys.index(key))

    def reveal(self) -> None:
        """Bring the cursor's row into view, where it has moved with its key."""
        self._reveal()

    def render_line(self, y: int) -> Strip:
        """The header, or one row."""
        from coldaisle.tui.theme import style_of  # the palette belongs to the running app

        width, index = self.scrollable_content_region.width, y - 1 + round(self.scroll_y)
        row = self._header() if y == 0 else self._row(index)
        if y > 0:
            self._drawn[index] = row
        base = self.rich_style
        mark = "cursor" if self.has_focus else "title"
        over = style_of(self.app, mark) if y > 0 and index == self._at and self._keys else None
        segments = []
        for run in pad(row, width):
            style = style_of(self.app, run.token)
            segments.append(Segment(run.text, style if over is None else style + over))
        return Strip(segments, width).apply_style(base)

    def action_move(self, by: int) -> None:
        """Move the cursor by rows."""
        self._go(self._at + by)

    def action_page(self, by: int) -> None:
        """Move the cursor by screenfuls."""
        self._go(self._at + by * max(1, self._body_height - 1))

    def action_edge(self, last: int) -> None:
        """Move the cursor to the first or the last row."""
        self._go(len(self._keys) - 1 if last else 0)

    def action_open(self) -> None:
        """Open what the cursor stands on."""
        if self.key is not None:
            self.post_message(self.Opened(self, self.key))

    def on_focus(self) -> None:
        self.refresh()

    def on_blur(self) -> None:
        self.refresh()

    def on_click(self, event: Click) -> None:
        index = event.y - 1 + round(self.scroll_y)
        if event.y < 1 or not 0 <= index < len(self._keys):
            return
        if index == self._at:
            self.action_open()
        else:
            self._go(index)

    def on_resize(self) -> None:
        self._drawn.clear()
        self._measure()
        self._reveal()

    @property
    def _body_height(self) -> int:
        return max(1, self.scrollable_content_region.height - 1)

    def _measure(self) -> None:
        self._drawn.clear()
        self.virtual_size = Size(self.scrollable_content_region.width, len(self._keys) + 1)

    def _header(self) -> Row:
        names = []
        for column, _ in self.placed:
            token = "title" if column.key == self._sorted else "dim"
            names.append(Run(column.title, token))
        return cells_row(names, self.placed)

    def _row(self, index: int) -> Row:
        if index >= len(self._keys):
            return self._empty[index] if not self._keys and index < len(self._empty) else ()
        placed = self.placed
        return cells_row(self._cells_of(self._keys[index], placed), placed)

    def _repaint_changed(self) -> None:
        top, width = round(self.scroll_y), self.scrollable_content_region.width
        shown = range(top, top + self._body_height)
        self._drawn = {index: row for index, row in self._drawn.items() if index in shown}
        changed = [index for index, row in self._drawn.items() if self._row(index) != row]
        if changed:
            self.refresh(*(Region(0, index - top + 1, width, 1) for index in changed))

    def _go(self, index: int) -> None:
        index = min(max(index, 0), max(0, len(self._keys) - 1))
        if index == self._at or not self._keys:
            return
        before, self._at = self._at, index
        top, width = round(self.scroll_y), self.scrollable_content_region.width
        rows = [at - top + 1 for at in (before, index) if 0 <= at - top < self._body_height]
        self.refresh(*(Region(0, row, width, 1) for row in rows))
        self._reveal()
        self.post_message(self.Moved(self, self._keys[index]))

    def _reveal(self) -> None:
        top = round(self.scroll_y)
        if self._at < top:
            self.scroll_to(y=self._at, animate=False, force=True)
        elif self._at >= top + self._body_height:
            self.scroll_to(y=self._at - self._body_height + 1, animate=False, force=True)
