"""Rows of tokens as what Textual paints."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.segment import Segment
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
