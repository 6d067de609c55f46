"""The line that takes a filter."""

from __future__ import annotations

from typing import ClassVar

from textual.binding import Binding, BindingType
from textual.widgets import Input


class FilterBox(Input):
    """One line without a frame; the screen it is on reads it as it is typed."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("enter", "submit", "Keep the filter"),
        Binding("escape", "screen.back", "Drop it"),
    ]
    DEFAULT_CSS = "FilterBox { height: 1; border: none; padding: 0; background: $panel; }"

    def __init__(self, value: str, hint: str) -> None:
        super().__init__(value, placeholder=hint, compact=True)
