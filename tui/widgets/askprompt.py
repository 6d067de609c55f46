"""The line that takes the value of one field, in place of the keys: its name, what is typed, what is wrong with it."""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal
from textual.widgets import Input

from coldaisle.sources.text import cell_width, plain
from coldaisle.tui.widgets.lines import Run
from coldaisle.tui.widgets.painted import Rows


class AskPrompt(Horizontal):
    """Asks for a value; ``go`` is called with it."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape", "cancel", "Cancel")]
    DEFAULT_CSS = """
    AskPrompt { dock: bottom; height: 1; width: 1fr; background: $panel; }
    AskPrompt #ask-label { height: 1; background: $panel; }
    AskPrompt #ask-said { width: 1fr; height: 1; margin-left: 1; background: $panel; }
    AskPrompt Input { height: 1; width: 28; border: none; padding: 0; background: $panel; }
    """

    def __init__(
        self,
        label: str,
        value: str,
        help: str,
        problem: Callable[[str], str],
        go: Callable[[str], object],
        most: int = 80,
    ) -> None:
        """``value`` stands there at first, selected; ``problem`` says what is wrong with a text, empty: nothing."""
        super().__init__()
        self._label, self._value, self._help = label, value, help
        self._problem, self._go, self._most = problem, go, most

    def compose(self) -> ComposeResult:
        yield Rows(id="ask-label")
        yield Input(self._value, compact=True, select_on_focus=True, max_length=self._most)
        yield Rows(id="ask-said")

    def on_mount(self) -> None:
        label = self.query_one("#ask-label", Rows)
        label.styles.width = cell_width(self._label) + 1
        label.show([(Run(self._label, "key"),)])
        self.query_one(Input).focus()

    @on(Input.Changed)
    def _typed(self, event: Input.Changed) -> None:
        event.stop()
        problem = self._problem(event.value)
        said = Run(plain(problem), "bad") if problem else Run(self._help, "dim")
        self.query_one("#ask-said", Rows).show([(said,)])

    @on(Input.Submitted)
    def _entered(self, event: Input.Submitted) -> None:
        event.stop()
        if self._problem(event.value):
            return  # it stands beside it
        self.remove()
        self._go(event.value.strip())

    def action_cancel(self) -> None:
        """Leave the field as it is."""
        self.remove()
