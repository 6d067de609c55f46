"""The line that takes a filter: says what is wrong as it is typed, completes, and remembers."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, ClassVar

from rich.highlighter import Highlighter
from rich.text import Text
from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical
from textual.events import Key
from textual.message import Message
from textual.widgets import Input

from coldaisle.sources.text import plain
from coldaisle.tui.filterhistory import FilterHistory
from coldaisle.tui.theme import style_of
from coldaisle.tui.widgets.lines import Row, Run, row_width
from coldaisle.tui.widgets.painted import Rows

if TYPE_CHECKING:
    from coldaisle.analyzers.completion import Completion
    from coldaisle.sources.errors import FilterError

LONGEST = 1000
"""Characters that can be typed."""


class _Marker(Highlighter):
    """Underlines what is wrong: colour alone says nothing where there is none."""

    def __init__(self, line: FilterLine) -> None:
        self._line = line

    def highlight(self, text: Text) -> None:
        """Mark it in place."""
        if self._line.mistake is not None:
            text.stylize(style_of(self._line.app, "bad"), *self._line.mistake)
            text.stylize("underline", *self._line.mistake)


class FilterLine(Input):
    """The input itself; the keys of a filter are its own."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("enter", "submit", "Keep the filter"),
        Binding("escape", "screen.back", "Drop it"),
        Binding("tab", "complete(1)", "Complete"),
        Binding("shift+tab", "complete(-1)", "The one before", show=False),
        Binding("up", "recall(-1)", "Typed before", show=False),
        Binding("down", "recall(1)", "Typed after", show=False),
    ]
    DEFAULT_CSS = "FilterLine { height: 1; width: 1fr; border: none; padding: 0; background: $panel; }"

    def __init__(self, value: str, hint: str) -> None:
        super().__init__(
            value, placeholder=hint, compact=True, highlighter=_Marker(self), max_length=LONGEST,
            select_on_focus=False,
        )  # fmt: skip
        self.mistake: tuple[int, int] | None = None
        """Characters that are wrong."""
        self._came: deque[Key] = deque(maxlen=64)

    def on_key(self, event: Key) -> None:
        self._came.append(event)

    def has_seen(self, event: Key) -> bool:
        """Whether a key came here before it went on to the screen."""
        return any(one is event for one in self._came)

    def mark(self, mistake: tuple[int, int] | None) -> None:
        """Show what is wrong in the text itself."""
        if mistake != self.mistake:
            self.mistake = mistake
            self.refresh()

    def action_complete(self, step: int) -> None:
        """Put in the next way to go on."""
        self._box.complete(step)

    def action_recall(self, step: int) -> None:
        """Put in a filter that was typed before."""
        self._box.recall(step)

    @property
    def _box(self) -> FilterBox:
        return next(parent for parent in self.ancestors if isinstance(parent, FilterBox))


class FilterBox(Vertical):
    """The line, how much it keeps, and under it, when there is something to say, what is wrong or how to go on."""

    DEFAULT_CSS = """
    FilterBox { height: auto; width: 1fr; background: $panel; }
    FilterBox Horizontal { height: 1; }
    FilterBox #sign { width: 1; height: 1; }
    FilterBox #count { width: 0; height: 1; }
    FilterBox #said { height: 1; display: none; }
    """

    class Typed(Message):
        """The filter is another one."""

        def __init__(self, text: str) -> None:
            super().__init__()
            self.text = text

    class Kept(Message):
        """Enter: the filter stays, the line goes."""

    def __init__(
        self,
        value: str,
        hint: str,
        complete: Callable[[str], Completion | None] = lambda _: None,
        history: FilterHistory | None = None,
    ) -> None:
        """``complete`` is asked with what stands before the cursor."""
        super().__init__()
        self.line = FilterLine(value, hint)
        self._count, self._said = Rows(id="count"), Rows(id="said")
        self._ask = complete
        self._history = history or FilterHistory()
        self._error: FilterError | None = None
        self._options: Sequence[str] = ()
        self._chosen = -1
        self._begun, self._rest = "", ""
        """What stands before and after what is being completed."""
        self._ours = value
        """The last text that did not come from a key."""

    def compose(self) -> ComposeResult:
        with Horizontal():
            yield Rows(id="sign")
            yield self.line
            yield self._count
        yield self._said

    def on_mount(self) -> None:
        self.query_one("#sign", Rows).show([(Run("/", "key"),)])
        self.line.cursor_position = len(self.line.value)

    def tell(self, count: str, error: FilterError | None) -> None:
        """What became of the filter: how much it keeps (``37 of 512 GPUs``), or what is wrong with it."""
        self._error = error
        self.line.mark(None if error is None else (error.start, error.stop))
        row: Row = (Run(f" {count}", "match"),) if count and error is None else ()
        self._count.styles.width = row_width(row)
        self._count.show([row])
        self._say()

    def complete(self, step: int) -> None:
        """Go through the ways to go on; the first Tab asks for them."""
        if not self._options:
            typed = self.line.value[: self.line.cursor_position]
            found = self._ask(typed)
            if found is None or not found.options:
                return
            self._begun, self._rest = typed[: found.start], self.line.value[self.line.cursor_position :]
            self._options, self._chosen = found.options, -1 if step > 0 else 0
        self._chosen = (self._chosen + step) % len(self._options)
        option = self._options[self._chosen]
        self._put(self._begun + option + self._rest, len(self._begun + option))
        if len(self._options) == 1:
            self._options = ()
        self._say()

    def recall(self, step: int) -> None:
        """The filter before, or after, in what was typed."""
        typed = self.line.value
        text = self._history.older(typed) if step < 0 else self._history.newer(typed)
        self._options = ()
        self._put(text, len(text))

    def _put(self, text: str, cursor: int) -> None:
        self._ours = text
        self.line.value = text
        self.line.cursor_position = cursor

    def _say(self) -> None:
        row = self._option_row() if self._options else self._error_row()
        self._said.display = bool(row)
        self._said.show([row])

    def _error_row(self) -> Row:
        if self._error is None:
            return ()
        remedy = f": {self._error.remedy}" if self._error.remedy else ""
        return (Run(" " + plain(str(self._error)), "bad"), Run(plain(remedy), "text"))

    def _option_row(self) -> Row:
        """As many of the options as fit, the chosen one among them."""
        width, runs = max(self.size.width, 20), list[Run]()
        first = self._chosen
        while (
            first > 0
            and sum(len(one) + 1 for one in self._options[first - 1 : self._chosen + 1]) < width // 2
        ):
            first -= 1
        for number in range(first, len(self._options)):
            option = plain(self._options[number], 30)
            if row_width((*runs, Run(option))) + 1 > width:
                break
            runs += [Run(" "), Run(option, "cursor" if number == self._chosen else "dim")]
        return tuple(runs)

    @on(Input.Changed)
    def _changed(self, event: Input.Changed) -> None:
        event.stop()
        if event.value != self._ours:
            self._options = ()
        self._ours = event.value
        self.post_message(self.Typed(event.value))

    @on(Input.Submitted)
    def _submitted(self, event: Input.Submitted) -> None:
        """Keep it; a filter with a mistake stays open."""
        event.stop()
        self._options = ()
        if self._error is not None:
            self._say()
            return
        self._history.add(event.value)
        self.post_message(self.Kept())
