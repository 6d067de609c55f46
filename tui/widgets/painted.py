"""Rows of tokens as what Textual paints."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.segment import Segment
from textual.events import Click
from textual.geometry import Region
from textual.message import Message
from textual.strip import Strip
from textual.widget import Widget

from coldaisle.tui.theme import style_of
from coldaisle.tui.widgets.lines import pad

if TYPE_CHECKING:
    from coldaisle.tui.widgets.lines import Row


def painted(widget: Widget, row: Row, width: int) -> Strip:
    """A row in the palette of the widget's app, exactly ``width`` cells wide."""
    segments = [Segment(run.text, style_of(widget.app, run.token)) for run in pad(row, width)]
    return Strip(segments, width).apply_style(widget.rich_style)


class Rows(Widget):
    """Some rows that neither scroll nor take the focus; only those that differ are painted again."""

    DEFAULT_CSS = "Rows { width: 1fr; height: auto; }"

    class Pointed(Message):
        """Somebody clicked on a row."""

        def __init__(self, rows: Rows, line: int) -> None:
            super().__init__()
            self.rows, self.line = rows, line

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self.rows: tuple[Row, ...] = ()

    def show(self, rows: Sequence[Row]) -> None:
        """Replace the rows."""
        old, self.rows = self.rows, tuple(rows)
        lines = max(len(old), len(self.rows))
        changed = [y for y in range(lines) if old[y : y + 1] != self.rows[y : y + 1]]
        if changed and self.size:
            self.refresh(*(Region(0, y, self.size.width, 1) for y in changed))

    def on_click(self, event: Click) -> None:
        self.post_message(self.Pointed(self, event.y))

    def render_line(self, y: int) -> Strip:
        return painted(self, self.rows[y] if y < len(self.rows) else (), self.size.width)
