"""The characters that the screen is drawn with, and their stand-ins where only ASCII is shown."""

from __future__ import annotations

from dataclasses import dataclass
from unicodedata import normalize

from coldaisle.sources.text import cell_width

_STAND_INS = {
    "…": "~", "°": " ", "µ": "u", "→": ">", "–": "-", "×": "x", "•": "*", "█": "#",
    **dict.fromkeys("─━═╌╍", "-"), **dict.fromkeys("│┃║▌▎▏▊▉▐▕", "|"), **dict.fromkeys("▁▂▃▄▅▆▇▔▀", " "),
}  # fmt: skip
"""The eighths of a block are the ends of Textual's scrollbars: what they stand on is coloured, or reversed."""


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
    cursor="<",
    ellipsis="~",
    degree="",
    up="^",
    down="v",
    arrow="->",
)


def ascii_of(text: str) -> str:
    """Inert text in as many cells, of ASCII alone: the last resort, where nobody chose a better stand-in."""
    return text if text.isascii() else "".join(map(_ascii, text))


def _ascii(char: str) -> str:
    if char in _STAND_INS:
        return _STAND_INS[char]
    letter = normalize("NFKD", char)[0]
    return letter if letter.isascii() and cell_width(char) == 1 else "?" * cell_width(char)


def glyphs(*, ascii_only: bool) -> Glyphs:
    """The set for a terminal."""
    return ASCII if ascii_only else UNICODE
