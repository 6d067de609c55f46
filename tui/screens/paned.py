"""Screens of one thing in several panes: a title with tabs, and a pane whose lines are chosen or scrolled."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType

from coldaisle.tui.screens.gpu_panes import Block, View
from coldaisle.tui.screens.series import SPANS, SeriesScreen
from coldaisle.tui.widgets.chart import span_name
from coldaisle.tui.widgets.lines import Lines, Row, Run, cut


class PanedScreen(SeriesScreen):
    """A thing that is shown in panes, of which one is in sight.

    What follows says what a pane is of; the rest is the same for everything: keys, tabs, the cursor, the range of time.
    """

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("tab", "pane(1)", "Next pane"),
        Binding("shift+tab", "pane(-1)", "Previous pane", show=False),
        Binding("enter", "open", "Open"),
        Binding("m", "metric(1)", "Metric"),
        Binding("M", "metric(-1)", "Previous metric", show=False),
        Binding("minus", "span(-1)", "Shorter", key_display="-"),
        Binding("plus,equals_sign", "span(1)", "Longer", key_display="+"),
        Binding("r", "racks", "On Racks"),
        Binding("up,k", "step(-1)", "Up", show=False),
        Binding("down,j", "step(1)", "Down", show=False),
        Binding("pageup", "page(-1)", "Page up", show=False),
        Binding("pagedown", "page(1)", "Page down", show=False),
        Binding("home", "edge(0)", "First", show=False),
        Binding("end", "edge(1)", "Last", show=False),
    ]
    DEFAULT_CSS = "PanedScreen #title { height: 3; }"
    PANES_OF: ClassVar[Mapping[str, Sequence[str]]] = {}
    """Where an action that is not for every pane does something."""
    AROUND: ClassVar[int] = 3
    """Lines of a pane that its cursor cannot stand on."""

    def __init__(self) -> None:
        super().__init__()
        self.pane = ""
        """The one that was chosen; see :meth:`pane_here`."""
        self.span = SPANS[1]
        self.cursor = 0
        """Place of the chosen line."""

    def body(self) -> ComposeResult:
        yield Lines(id="title")
        yield Lines(id="pane")

    # --- what it is about ---------------------------------------------------------------------------

    @property
    def panes(self) -> tuple[str, ...]:
        """What can be shown now."""
        raise NotImplementedError

    def length(self) -> int:
        """Lines that the cursor can stand on; 0: the pane scrolls."""
        return 0

    def metric_name(self) -> str:
        """The metric that ``m`` changes."""
        return ""

    # --- what is the same for everything ------------------------------------------------------------

    @property
    def pane_here(self) -> str:
        """The pane in sight: the chosen one, else the first."""
        known = self.panes
        return self.pane if self.pane in known else known[0]

    def forget_answer(self) -> None:
        """What was asked for is of something else: it is not drawn any more."""
        self._answer = None

    def has(self, action: str) -> bool:
        """Whether an action does something on the pane in sight."""
        return action not in self.PANES_OF or self.pane_here in self.PANES_OF[action]

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool:
        """Whether a key does anything on the pane in sight: those that do not are not offered."""
        return self.has(action)

    def action_pane(self, by: int) -> None:
        """Show the next or the previous pane."""
        known = self.panes
        self.pane = known[(known.index(self.pane_here) + by) % len(known)]
        self.cursor = 0
        self.forget_answer()
        self.query_one("#pane", Lines).scroll_to(y=0, animate=False, force=True)
        self.refresh_bindings()
        self.again()

    def action_span(self, by: int) -> None:
        """Let the charts cover a longer or a shorter time."""
        self.span = SPANS[min(max(SPANS.index(self.span) + by, 0), len(SPANS) - 1)]
        self.forget_answer()
        self.again()

    def action_step(self, by: int) -> None:
        """Choose another line, or scroll."""
        if self.length():
            self._go(self.cursor + by)
        else:
            self.query_one("#pane", Lines).scroll_relative(y=by, animate=False, force=True)

    def action_page(self, by: int) -> None:
        """Move by a screenful."""
        pane = self.query_one("#pane", Lines)
        lines = max(1, pane.room.height - self.AROUND)
        if self.length():
            self._go(self.place(self.length()) + by * lines)
        else:
            pane.scroll_relative(y=by * lines, animate=False, force=True)

    def action_edge(self, last: int) -> None:
        """To the beginning or the end."""
        pane = self.query_one("#pane", Lines)
        if length := self.length():
            self._go(length - 1 if last else 0)
        else:
            pane.scroll_to(y=len(pane.rows) if last else 0, animate=False, force=True)

    def place(self, length: int) -> int:
        """The cursor, on one of so many lines."""
        return min(self.cursor, max(0, length - 1))

    def sight(self) -> View:
        """The room that the pane has."""
        room = self.query_one("#pane", Lines).room
        return View(max(20, room.width), max(1, room.height), self.ink, self.span)

    def fill(self, block: Block) -> None:
        """Show the pane; its cursor stays in sight."""
        self.query_one("#pane", Lines).show(block.rows, block.cursor.start if block.cursor else None)

    def tabs(self) -> Row:
        """The line of panes, with the metric and the range of time where they matter."""
        here = self.pane_here
        runs: list[Run] = []
        for name in self.panes:
            runs += [Run(name, "title" if name == here else "dim"), Run(" ")]
        if self.has("metric"):
            runs.append(Run(f" {self.metric_name()} (m)", "accent"))
        if self.has("span"):
            runs.append(Run(f" {span_name(self.span)} (+/-)", "accent"))
        return cut(tuple(runs), self.query_one("#title", Lines).room.width)

    def _go(self, place: int) -> None:
        self.cursor = min(max(place, 0), max(0, self.length() - 1))
        self.again()
