"""Which columns a table shows: a list to tick, over the screen it belongs to."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.color import Color
from textual.screen import ModalScreen

from coldaisle.tui.widgets.lines import Row, Run
from coldaisle.tui.widgets.table import Cell, Column, Placed, Table

MARK = Column("mark", "", 4, keep=0)
NAME = Column("name", "Space ticks, a as at first, Esc back", 24, keep=1, grows=True)


class ColumnsScreen(ModalScreen[None]):
    """Space ticks a column; what is ticked is told at once, and Enter or Esc goes back."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("space", "tick", "Show or hide"),
        Binding("a", "reset", "As at first"),
        Binding("escape,c,q", "back", "Back"),
    ]
    DEFAULT_CSS = """
    ColumnsScreen { align: right top; }
    ColumnsScreen Table { width: 44; height: 1fr; margin: 3 0 2 0; background: $panel; }
    """

    def __init__(
        self,
        columns: Sequence[tuple[Column, str]],
        shown: Collection[str] | None,
        fixed: str,
        chosen: Callable[[Sequence[str] | None], None],
        empty: Collection[str] = (),
    ) -> None:
        """``columns`` with what they say.

        Args:
            shown: what was chosen; None: nothing was, those are shown that have anything.
            fixed: cannot be hidden.
            chosen: is told the keys, or None: nothing is chosen any more.
            empty: columns that have nothing now.
        """
        super().__init__()
        self._names = {column.key: name for column, name in columns}
        self._empty = empty
        self._at_first = {key for key in self._names if key not in empty}
        self._shown = set(self._at_first) if shown is None else {key for key in self._names if key in shown}
        self._fixed = fixed
        self._chosen = chosen

    def compose(self) -> ComposeResult:
        yield Table((MARK, NAME), id="columns")

    def on_mount(self) -> None:
        self.styles.background = Color(
            0, 0, 0, 0.0
        )  # the app gives every screen a ground; what is chosen is seen at once
        self.query_one(Table).focus()
        self._draw()

    def action_tick(self) -> None:
        """Show or hide the column under the cursor."""
        key = self.query_one(Table).key
        if key is None or key == self._fixed:
            return
        self._shown ^= {key}
        self._tell()

    def action_reset(self) -> None:
        """Show those that have anything, now and later."""
        self._shown = set(self._at_first)
        self._tell()

    def action_back(self) -> None:
        """To the table."""
        self.dismiss()

    def on_table_opened(self) -> None:
        """Enter is done, as Esc is: what was ticked counts already."""
        self.dismiss()

    def _tell(self) -> None:
        is_as_at_first = self._shown == self._at_first
        self._chosen(None if is_as_at_first else [key for key in self._names if key in self._shown])
        self._draw()

    def _draw(self) -> None:
        self.refresh()
        self.query_one(Table).show(list(self._names), self._cells)

    def _cells(self, key: str, placed: Sequence[Placed]) -> Sequence[Cell]:
        mark: Row = (Run(" [", "dim"), Run("x" if key in self._shown else " ", "accent"), Run("]", "dim"))
        name: Row = (Run(self._names[key]),)
        if key in self._empty:
            name = (Run("empty: ", "dim"), Run(self._names[key], "dim"))
        cells: dict[str, Cell] = {"mark": mark, "name": name}
        return [cells[item.column.key] for item in placed]
