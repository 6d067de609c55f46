"""What the screens of the running app have in common: the lines at the top, the keys at the bottom, a snapshot."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from textual.app import ComposeResult
from textual.geometry import Size
from textual.screen import Screen
from textual.widget import Widget

from coldaisle.tui.widgets.footer import KeyLine
from coldaisle.tui.widgets.header import TopLines
from coldaisle.tui.widgets.lines import Run
from coldaisle.tui.widgets.painted import Rows

if TYPE_CHECKING:
    from coldaisle.analyzers.snapshot import Snapshot
    from coldaisle.tui.widgets.chart import Ink


LEAST = (40, 10)
"""Columns and lines under which nothing useful can be shown."""


class LiveScreen(Screen[None]):
    """Shows the newest snapshot while it is in sight; hidden it does nothing."""

    TAB: ClassVar[str] = ""
    """The name in the line of screens that this one belongs to."""

    DEFAULT_CSS = """
    LiveScreen #small { display: none; height: 1fr; }
    LiveScreen.small > * { display: none; }
    LiveScreen.small > #small { display: block; }
    """

    snapshot: Snapshot | None = None
    """The last one that was shown."""

    _focused_before: Widget | None = None
    _focused_before_prompt: Widget | None = None

    def compose(self) -> ComposeResult:
        yield Rows(id="small")
        yield TopLines()
        yield from self.body()
        yield KeyLine()

    def body(self) -> ComposeResult:
        """What stands between the top lines and the keys."""
        yield from ()

    def show(self, snapshot: Snapshot) -> None:
        """A new snapshot, while this screen is the one in sight."""
        self.snapshot = snapshot
        if self.is_mounted:
            self.query_one(TopLines).show(snapshot)
            self.again()

    def redraw(self, snapshot: Snapshot) -> None:
        """Fill the body from a snapshot; called with every new one, and when the size or the choice changes."""

    def again(self) -> None:
        """Draw once more what is known, after a key or a resize."""
        if self.snapshot is not None and self.is_mounted and not self.has_class("small"):
            self.redraw(self.snapshot)

    def on_screen_resume(self) -> None:
        newest: Snapshot | None = getattr(self.app, "snapshot", None)
        if newest is not None:
            self.show(newest)

    def on_resize(self) -> None:
        width, height = self.size
        too_small = width < LEAST[0] or height < LEAST[1]
        if too_small and self.focused is not None:
            self._focused_before = self.focused  # what is hidden loses the focus
        self.set_class(too_small, "small")
        if too_small:
            words = f"{width}x{height}: too small", f"{LEAST[0]}x{LEAST[1]} is the least"
            self.query_one("#small", Rows).show([(Run(line, "warn"),) for line in words])
        elif self._focused_before is not None:
            self.call_after_refresh(self.set_focus, self._focused_before)
            self._focused_before = None
        self.call_after_refresh(self.again)

    def _screen_resized(self, size: Size) -> None:
        """Lay out for the size of now: a screen is told its own size again, and two sizes on the way would chase each other."""
        super()._screen_resized(self.app.size)

    async def open_prompt(self, prompt: Widget) -> None:
        """Let a prompt stand in place of the keys; what had the focus before has it again when it is gone."""
        self._focused_before_prompt = self.focused
        await self.mount(prompt)

    def on_descendant_blur(self) -> None:
        if self.focused is None and (before := self._focused_before_prompt) is not None:
            self._focused_before_prompt = None
            self.call_after_refresh(self.set_focus, before)

    def under_cursor(self) -> str:
        """The key of what the cursor stands on (a GPU's, node's, server's, a job's id); empty: nothing of its own."""
        return ""

    def action_back(self) -> None:
        """Leave, to where this screen was opened from."""
        if len(self.app.screen_stack) > 1:
            self.dismiss()

    @property
    def ink(self) -> Ink:
        """The characters for charts: ASCII where the locale or the user wants it."""
        from coldaisle.tui.widgets.chart import ASCII, UNICODE

        return ASCII if getattr(self.app, "ascii_only", False) else UNICODE
