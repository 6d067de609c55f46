"""What the screens of the running app have in common: the lines at the top, the keys at the bottom, a snapshot."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from textual.app import ComposeResult
from textual.screen import Screen

from coldaisle.tui.widgets.footer import KeyLine
from coldaisle.tui.widgets.header import TopLines

if TYPE_CHECKING:
    from coldaisle.analyzers.snapshot import Snapshot
    from coldaisle.tui.widgets.chart import Ink


class LiveScreen(Screen[None]):
    """Shows the newest snapshot while it is in sight; hidden it does nothing."""

    TAB: ClassVar[str] = ""
    """The name in the line of screens that this one belongs to."""

    snapshot: Snapshot | None = None
    """The last one that was shown."""

    def compose(self) -> ComposeResult:
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
            self.redraw(snapshot)

    def redraw(self, snapshot: Snapshot) -> None:
        """Fill the body from a snapshot; called with every new one, and when the size or the choice changes."""

    def again(self) -> None:
        """Draw once more what is known, after a key or a resize."""
        if self.snapshot is not None and self.is_mounted:
            self.redraw(self.snapshot)

    def on_screen_resume(self) -> None:
        newest: Snapshot | None = getattr(self.app, "snapshot", None)
        if newest is not None:
            self.show(newest)

    def on_resize(self) -> None:
        self.call_after_refresh(self.again)

    def action_back(self) -> None:
        """Leave, to where this screen was opened from."""
        if len(self.app.screen_stack) > 1:
            self.dismiss()

    @property
    def ink(self) -> Ink:
        """The characters for charts: ASCII where the locale or the user wants it."""
        from coldaisle.tui.widgets.chart import ASCII, UNICODE

        return ASCII if getattr(self.app, "ascii_only", False) else UNICODE
