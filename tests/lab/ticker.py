"""A paced app that repaints its whole screen several times a second.

Every line shows the time of the data, so that a terminal's picture tells its own age.
"""

from __future__ import annotations

import sys
import time

from rich.segment import Segment
from rich.style import Style
from textual import events
from textual.app import ComposeResult
from textual.strip import Strip
from textual.widget import Widget

from coldaisle.tui.terminal import PacedApp

RUN = 4  # equal cells beside each other, as in a map of racks
STYLES = [Style.parse(f"color({16 + n}) on color({232 + n % 20})") for n in range(200)]


class Noise(Widget):
    """Cells that all change, dear in bytes."""

    can_focus = True
    DEFAULT_CSS = "Noise { width: 1fr; height: 1fr; }"
    keys = ""

    def on_mount(self) -> None:
        """Start to change."""
        self.set_interval(0.2, self.refresh)

    def on_key(self, event: events.Key) -> None:
        """Show what is typed."""
        self.keys += event.character or f"<{event.key}>"
        self.refresh()

    def render_line(self, y: int) -> Strip:
        """The time, the keys and coloured noise."""
        now = time.time()
        head = f"at {now:.2f} keys [{self.keys[-20:]}] "
        seed = int(now * 5) + y
        runs = range(0, self.size.width - len(head), RUN)
        return Strip([Segment(head), *(Segment("#" * RUN, STYLES[(seed * 7 + x * 13) % 200]) for x in runs)])


class Ticker(PacedApp[None]):
    """Noise over the whole screen."""

    ENABLE_COMMAND_PALETTE = False
    BINDINGS = [("ctrl+c", "quit", ""), ("ctrl+z", "suspend_process", "")]  # noqa: RUF012

    def compose(self) -> ComposeResult:
        """One widget."""
        yield Noise()


if __name__ == "__main__":
    app = Ticker()
    app.run()
    if "quiet" not in sys.argv:
        print(f"ended with {app.return_code}")
    sys.exit(app.return_code or 0)
