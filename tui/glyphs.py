"""The characters that the screen is drawn with, and their stand-ins where only ASCII is shown."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Glyphs:
    """One set of characters, each one cell wide."""

    utf8: bool
    rule: str
    """A horizontal line."""
    upright: str
    """A vertical line."""
    bar: str
    """A filled cell of a bar."""
    trough: str
    """An empty cell of a bar."""
    eighths: str
    """From an empty cell to a full one, growing upwards."""
    upper_half: str
    """The upper half of a cell; empty where a cell cannot be halved."""
    braille: bool
    cursor: str
    """Stands behind the row that the cursor is on."""
    ellipsis: str
    degree: str
    up: str
    down: str
    arrow: str


UNICODE = Glyphs(
    utf8=True,
    rule="─",
    upright="│",
    bar="█",
    trough="░",
    eighths=" ▁▂▃▄▅▆▇█",
    upper_half="▀",
    braille=True,
    cursor="◂",
    ellipsis="…",
    degree="°",
    up="↑",
    down="↓",
    arrow="→",
)
ASCII = Glyphs(
    utf8=False,
    rule="-",
    upright="|",
    bar="#",
    trough=".",
    eighths=" ._-=+*#@",
    upper_half="",
    braille=False,
    cursor="<",
    ellipsis="~",
    degree="",
    up="^",
    down="v",
    arrow="->",
)


def glyphs(*, ascii_only: bool) -> Glyphs:
    """The set for a terminal."""
    return ASCII if ascii_only else UNICODE
