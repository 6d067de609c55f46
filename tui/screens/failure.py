"""What is shown when nothing more will come: the reason, and what can be done; never a traceback."""

from __future__ import annotations

from typing import ClassVar

from rich.text import Text
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.screen import ModalScreen
from textual.widgets import Static

from coldaisle.sources.errors import ColdaisleError
from coldaisle.sources.text import plain


def account_of(error: BaseException) -> tuple[str, str]:
    """An error as (what is wrong, what to do), inert."""
    if isinstance(error, ColdaisleError):
        return plain(str(error)), plain(error.remedy)
    what = plain(str(error)) or "no further word"
    return f"{type(error).__name__}: {what}", "this should not happen; the log file has the details"


class FailureScreen(ModalScreen[None]):
    """A panel over the last data."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "dismiss", "Look at the last data"),
        Binding("enter", "dismiss", "Close", show=False),
    ]
    DEFAULT_CSS = """
    FailureScreen { align: center middle; }
    FailureScreen Static { width: 90%; max-width: 90; height: auto; padding: 1 2; border: solid $error; background: $surface; }
    """

    def __init__(self, error: BaseException) -> None:
        super().__init__()
        self.error = error

    def compose(self) -> ComposeResult:
        problem, remedy = account_of(self.error)
        lines = ["The measuring has stopped; what you see is no longer live.", "", problem]
        lines += [remedy] if remedy else []
        yield Static(Text("\n".join([*lines, "", "Esc: look at the last data    q: quit"])), markup=False)
