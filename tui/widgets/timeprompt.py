"""The line that takes an instant, in place of the keys: what is typed, and beside it what it means."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import datetime
from typing import ClassVar

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal
from textual.widgets import Input

from coldaisle.sources.instants import ACCEPTED, Instant, parse_instant
from coldaisle.sources.units import age
from coldaisle.tui.widgets.lines import Row, Run
from coldaisle.tui.widgets.painted import Rows

LABEL = "go to "


def meaning(text: str, now: float) -> Row:
    """What was typed, in full: day, date, time, zone and how long ago that is; or why it is no instant."""
    if not text.strip():
        return (Run(ACCEPTED, "dim"),)
    try:
        found = parse_instant(text, now)
    except ValueError as error:
        return (Run(str(error), "bad"),)
    when = datetime.fromtimestamp(found.at).astimezone()
    note = (Run(f"  {found.note}", "warn"),) if found.note else ()
    return (Run(f"{when:%a %Y-%m-%d %H:%M:%S %Z}", "title"), Run(f"  {age(now - found.at)} ago"), *note)


class TimePrompt(Horizontal):
    """Asks for an instant; ``go`` is called with it."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape", "cancel", "Cancel")]
    DEFAULT_CSS = """
    TimePrompt { dock: bottom; height: 1; width: 1fr; background: $panel; }
    TimePrompt #time-label { width: 6; background: $panel; }
    TimePrompt #time-meaning { width: 1fr; margin-left: 1; background: $panel; }
    TimePrompt Input { height: 1; width: 28; border: none; padding: 0; background: $panel; }
    """

    def __init__(self, value: str, go: Callable[[Instant], object]) -> None:
        """``value`` is what stands there at first, selected: typing replaces it."""
        super().__init__()
        self._value = value
        self._go = go

    def compose(self) -> ComposeResult:
        yield Rows(id="time-label")
        yield Input(self._value, compact=True, select_on_focus=True)
        yield Rows(id="time-meaning")

    def on_mount(self) -> None:
        self.query_one("#time-label", Rows).show([(Run(LABEL, "key"),)])
        self.query_one(Input).focus()

    @on(Input.Changed)
    def _typed(self, event: Input.Changed) -> None:
        event.stop()
        self.query_one("#time-meaning", Rows).show([meaning(event.value, self._now())])

    @on(Input.Submitted)
    def _entered(self, event: Input.Submitted) -> None:
        event.stop()
        try:
            found = parse_instant(event.value, self._now())
        except ValueError:
            return  # it stands beside it
        self.remove()
        self._go(found)

    def action_cancel(self) -> None:
        """Stay where one is."""
        self.remove()

    def _now(self) -> float:
        now: float = getattr(self.app, "now", time.time)()
        return now
