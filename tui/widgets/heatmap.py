"""The map: every GPU a character, all racks in one widget that draws a line at a time.

Only rows that differ from what is on the screen are painted again, whole; in a row, equal neighbours are
one run, and runs are Segments made once.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar

from rich.segment import Segment
from textual import events
from textual.filter import ANSIToTruecolor, LineFilter
from textual.geometry import Region
from textual.message import Message
from textual.strip import Strip
from textual.widget import Widget

from coldaisle.tui.glyphs import UNICODE, Glyphs
from coldaisle.tui.theme import DEFAULT, Palette, palette

if TYPE_CHECKING:
    from coldaisle.tui.picture import Ink, MapRow


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
            return Strip.blank(width, self.rich_style)
        from coldaisle.tui.picture import segments_of

        segments = list(segments_of(self.rows[at], self.ink))
        if (rest := width - len(self.rows[at].codes)) > 0:
            segments.append(Segment(" " * rest, self.ink.ground))
        return Strip(segments, width)

    def get_line_filters(self) -> Sequence[LineFilter]:
        """Without the conversion of numbered colours to 24 bits: it doubles the bytes and half the cost."""
        return [each for each in super().get_line_filters() if not isinstance(each, ANSIToTruecolor)]

    @property
    def ink(self) -> Ink:
        """Segments in the colours of the moment."""
        from coldaisle.tui.picture import Ink

        colours: Palette = getattr(self.app, "palette", None) or palette(DEFAULT)
        signs: Glyphs = getattr(self.app, "glyphs", UNICODE)
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
