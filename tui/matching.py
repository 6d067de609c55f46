"""A screen's filter: what was typed, what it keeps of a snapshot, what is wrong with it. Errors never end a screen."""

from __future__ import annotations

from typing import TYPE_CHECKING

from coldaisle.sources.errors import FilterError

if TYPE_CHECKING:
    from coldaisle.analyzers.fields import Entity
    from coldaisle.analyzers.selection import Selection
    from coldaisle.analyzers.snapshot import Snapshot
    from coldaisle.tui.cells import Flags

# The language (analyzers.selection) imports numpy: it is loaded when there is something to filter.


class Matching:
    """The filter of one screen. While what is typed is not a filter, the last one that was stays in force."""

    def __init__(self, row: str) -> None:
        """``row``: what its rows are, a value of fields.Entity."""
        self.row = row
        self.text = ""
        self.error: FilterError | None = None
        self._selection: Selection | None = None

    def set(self, text: str) -> None:
        """Take what was typed; ``error`` says what is wrong with it."""
        self.text, self.error = text, None
        if not text.strip():
            self._selection = None
            return
        from coldaisle.analyzers.fields import Entity
        from coldaisle.analyzers.selection import Selection

        try:
            self._selection = Selection(text, Entity(self.row))
        except FilterError as error:
            self.error = error

    def drop(self) -> None:
        """Keep everything again."""
        self.set("")

    def mask(self, snapshot: Snapshot) -> Flags | None:
        """[row] what is kept; None: everything, there is no filter."""
        return None if self._selection is None else self._selection.mask(snapshot)

    @property
    def entity(self) -> Entity:
        """What its rows are."""
        from coldaisle.analyzers.fields import Entity

        return Entity(self.row)
