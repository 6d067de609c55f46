"""Text to the terminal's normal screen, where its own scrollback and selection work."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from textual.app import SuspendNotSupported

from coldaisle.tui.glyphs import ascii_of

if TYPE_CHECKING:
    from textual.app import App


def show(app: App[Any], text: str) -> str:
    """Print inert lines; what became of it, in words."""
    if getattr(app, "ascii_only", False):
        text = "\n".join(ascii_of(line) for line in text.split("\n"))
    try:
        with app.suspend():
            if sys.__stdout__ is not None:
                sys.__stdout__.write(text)
                sys.__stdout__.flush()
    except SuspendNotSupported:
        return "this terminal has no screen to print to"
    return "printed to the normal screen: it stands there when you leave, or press Ctrl+Z"
