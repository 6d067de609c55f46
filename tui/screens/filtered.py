"""Screens whose rows can be filtered: ``/`` opens the line, Enter keeps the filter, Esc drops it."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from textual import events

from coldaisle.sources.text import plain
from coldaisle.tui.matching import Matching
from coldaisle.tui.screens.live import LiveScreen
from coldaisle.tui.widgets.lines import Run

if TYPE_CHECKING:
    from coldaisle.analyzers.completion import Completion
    from coldaisle.analyzers.snapshot import Snapshot
    from coldaisle.tui.cells import Flags
    from coldaisle.tui.widgets.filterbox import FilterBox

# The line itself is loaded when it is opened: the first paint does without.

FILTER_KEY = "slash"


class FilteredScreen(LiveScreen):
    """A screen with a filter; it redraws with :meth:`kept`, and tells with :meth:`tell_kept` how much that is."""

    ROWS: ClassVar[str] = "gpu"
    """What a row is: a value of analyzers.fields.Entity."""
    COUNTED: ClassVar[str] = "GPUs"
    FILTER_HINT: ClassVar[str] = ""
    FILTER_BEFORE: ClassVar[str] = "KeyLine"
    """What the line stands above."""

    DEFAULT_CSS = "FilteredScreen #status { height: 1; }"

    def __init__(self) -> None:
        super().__init__()
        self.matching = Matching(self.ROWS)
        self._counted = ""

    def on_mount(self) -> None:
        self.unfiltered_focus()

    @property
    def filter(self) -> str:
        """What was typed; empty: everything is shown."""
        return self.matching.text

    @property
    def is_filtering(self) -> bool:
        """Whether the line that takes the filter is open."""
        return bool(self.query("FilterBox"))

    def set_filter(self, text: str) -> None:
        """Show only what matches; what is no filter changes nothing, and says why."""
        self.matching.set(text)
        self._counted = ""
        self.again()
        self._tell()

    def kept(self, snapshot: Snapshot) -> Flags | None:
        """[row] what is shown; None: everything."""
        return self.matching.mask(snapshot)

    def tell_kept(self, shown: int, total: int) -> None:
        """Say at the line how much the filter keeps."""
        self._counted = f"{shown} of {total} {self.COUNTED}" if self.filter.strip() else ""
        self._tell()

    def filter_runs(self, width: int | None = None) -> list[Run]:
        """The filter in a line of the screen: what is wrong with it, or what it is; nothing without one."""
        if self.matching.error is not None:
            return [Run(f"filter: {plain(str(self.matching.error))}", "bad")]
        if not self.filter.strip():
            return []
        return [Run(f"filter: {plain(self.filter, width)} (Esc drops it)", "match")]

    async def action_filter(self) -> None:
        """Open the line that takes the filter."""
        from coldaisle.tui.widgets.filterbox import FilterBox

        if not self.is_filtering:
            box = FilterBox(self.filter, self.FILTER_HINT, self._complete)
            await self.mount(box, before=self.FILTER_BEFORE)
            self._tell()
            self.set_focus(box.line)

    async def on_key(self, event: events.Key) -> None:
        """What is typed right behind the ``/`` belongs to the line, though it was sent before the line was there.

        The line is opened here, not by the binding: so the keys behind wait in this screen's queue until it stands.
        """
        if not self.is_filtering:
            if event.key == FILTER_KEY:
                _end(event)
                await self.action_filter()
            return
        from coldaisle.tui.widgets.filterbox import FilterLine

        if isinstance(line := self.focused, FilterLine) and not line.has_seen(event):
            _end(event)
            again = events.Key(event.key, event.character)
            again._set_forwarded()
            line.post_message(again)

    def action_back(self) -> None:
        """Drop the filter and close its line; else leave."""
        if self.is_filtering or self.filter:
            self.close_filter()
            self.set_filter("")
        else:
            super().action_back()

    def close_filter(self) -> None:
        """Take the line away; what had the focus before has it again."""
        self.query("FilterBox").remove()
        self.unfiltered_focus()

    def unfiltered_focus(self) -> None:
        """Where keys go when the line is gone, as at the start: to the first table, if there is one."""
        self.set_focus(next(iter(self.query("Table")), None))

    def on_filter_box_typed(self, event: FilterBox.Typed) -> None:
        self.set_filter(event.text)

    def on_filter_box_kept(self) -> None:
        self.close_filter()

    def _tell(self) -> None:
        if not self.is_filtering:
            return
        from coldaisle.tui.widgets.filterbox import FilterBox

        for box in self.query(FilterBox):
            if box.is_mounted:
                box.tell(self._counted, self.matching.error)

    def _complete(self, typed: str) -> Completion | None:
        if self.snapshot is None:
            return None
        from coldaisle.analyzers.completion import complete

        return complete(typed, self.matching.entity, self.snapshot)


def _end(event: events.Key) -> None:
    event.stop()
    event.prevent_default()
