"""The last line of every screen: the keys that work here, made from the bindings; or what a key had to say."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

from textual.binding import Binding
from textual.screen import Screen
from textual.strip import Strip
from textual.timer import Timer
from textual.widget import Widget

from coldaisle.sources.text import plain
from coldaisle.tui.widgets.header import Piece, fitted
from coldaisle.tui.widgets.lines import Row, Run
from coldaisle.tui.widgets.painted import painted

SAID_S = 4.0
"""How long a message stays."""
KEY_NAMES = {
    "enter": "Enter", "escape": "Esc", "slash": "/", "question_mark": "?", "exclamation_mark": "!",
    "colon": ":", "left_square_bracket": "[", "right_square_bracket": "]", "space": "Space", "tab": "Tab",
}  # fmt: skip


class Key(NamedTuple):
    """A key and what it does."""

    key: str
    does: str


def key_name(binding: Binding) -> str:
    """A key as people write it."""
    return binding.key_display or KEY_NAMES.get(binding.key, binding.key)


def shown_keys(screen: Screen[Any]) -> list[Key]:
    """The bindings of a screen that are worth a place in its last line, in the order they were listed."""
    keys: dict[str, Key] = {}
    first: set[str] = set()
    for active in screen.active_bindings.values():
        binding = active.binding
        if not binding.show or not active.enabled or binding.system:
            continue
        name, does = binding.action, binding.description
        if binding.group is not None and binding.group.description:
            name = does = binding.group.description
        known = keys.get(name)
        if known is None:
            keys[name] = Key(key_name(binding), does)
        elif binding.group is not None:
            keys[name] = Key(f"{known.key} {key_name(binding)}", does)
        if binding.group is not None or binding.action == "live":
            first.add(name)
    if getattr(screen.app, "instant", None) is None:
        return list(keys.values())
    return [keys[name] for name in keys if name in first] + [keys[name] for name in keys if name not in first]


def key_line(keys: Iterable[Key], width: int) -> Row:
    """As many keys as fit, the first listed first; help always."""
    pieces = [
        Piece(
            0 if key.key == "?" else rank,
            (Run(key.key, "key"), Run(f" {key.does[:1].lower()}{key.does[1:]}", "dim")),
        )
        for rank, key in enumerate(keys, start=1)
    ]
    pieces.sort(key=lambda piece: piece.rank == 0)
    return fitted(pieces, width)


class KeyLine(Widget):
    """The keys of the screen it is on."""

    DEFAULT_CSS = "KeyLine { height: 1; width: 1fr; dock: bottom; }"

    def __init__(self) -> None:
        super().__init__()
        self._said: Row = ()
        self._silence: Timer | None = None

    def on_mount(self) -> None:
        self.screen.bindings_updated_signal.subscribe(self, lambda _: self.refresh())

    def say(self, text: str, token: str = "warn") -> None:
        """Show a message in place of the keys for a few seconds, or until the next key."""
        self._said = (Run(plain(text), token),)
        if self._silence is not None:
            self._silence.stop()
        self._silence = self.set_timer(SAID_S, self.hush)
        self.refresh()

    def render_line(self, y: int) -> Strip:
        width = self.size.width
        row = self._said or key_line(shown_keys(self.screen), width)
        return painted(self, row, width)

    def hush(self) -> None:
        """Show the keys again."""
        if self._said:
            self._said = ()
            self.refresh()
