"""Making foreign text inert, and measuring it in terminal cells.

Host names, job names, labels, commands and login banners are other people's text. What leaves
:func:`plain` holds no control character, no escape sequence, no bidirectional or zero-width mark, at
most two combining marks in a row, and only characters whose width terminals agree on. Markup needs no
escape: it is only ever shown as a literal Text or Segment.
"""

from __future__ import annotations

import re
import unicodedata
from functools import lru_cache
from typing import TypeAlias

MAX_TEXT = 4096
"""Characters of foreign text that are looked at; the rest is cut before any other work."""
REPLACEMENT = "\ufffd"
"""Stands for what is not shown; ``?`` where only ASCII is."""
ELLIPSIS = "…"
ASCII_ELLIPSIS = "~"

NaturalKey: TypeAlias = tuple[tuple[str | tuple[int, str], ...], str]

_ESCAPES = re.compile(
    r"(?:\x1b\[|\x9b)[0-?]*[ -/]*[@-~]"  # CSI
    r"|(?:\x1b[\]PX^_]|[\x9d\x90\x98\x9e\x9f])[^\x07\x1b\x9c]*(?:\x07|\x1b\\|\x9c)"  # OSC, DCS, SOS, PM, APC
    r"|\x1b[ -/]*[0-~]"  # two and three character escapes
)
_DIGITS = re.compile(r"([0-9]+)")
_HOST = re.compile(r"(?!-)[A-Za-z0-9_-]{1,63}(?:\.(?!-)[A-Za-z0-9_-]{1,63})*\.?", re.ASCII)
_ADDRESS = re.compile(r"[0-9a-fA-F:.]{2,45}")
"""What an IP address can be made of; so few names are, that the real check can wait."""
_MAX_MARKS = 2
_ODD_WIDTH = re.compile(
    r"[\u00ad\u0600-\u0605\u06dd\u070f\u0890-\u0891\u08e2\u115f-\u11ff\u3164\ua8fa-\ua8ff\ud7b0-\ud7ff\uffa0"
    r"\ufe00-\ufe0f\U000e0100-\U000e01ef\U0001f1e6-\U0001f1ff\U0001f3fb-\U0001f3ff"
    r"\u2630-\u2637\u268a-\u268f\u4dc0-\u4dff\U0001d300-\U0001d376]"
)
"""Jamo, variation selectors, flags, skin tones, prefix signs, hexagrams: their width depends on the neighbour,
the terminal, or the version of Unicode."""


def plain(text: str | bytes, width: int | None = None, *, ascii_only: bool = False) -> str:
    """Foreign text as one inert line, cut to ``width`` cells where given.

    White space of every kind becomes one space a character; a whole escape sequence, and every other
    character that could act instead of being seen, becomes one replacement character.
    """
    text = decode(text) if isinstance(text, bytes) else text
    if not (text.isascii() and text.isprintable() and len(text) <= MAX_TEXT):
        text = _ascii(_inert(text)) if ascii_only else _inert(text)
    return text if width is None else clip(text, width, ASCII_ELLIPSIS if ascii_only else ELLIPSIS)


def decode(raw: bytes) -> str:
    """Bytes of unknown origin as text: UTF-8, with replacement characters where it is not."""
    return raw[: 4 * MAX_TEXT].decode("utf-8", "replace")


def cell_width(text: str) -> int:
    """Terminal cells that inert text takes: 2 for wide and full-width characters, 0 for combining marks."""
    if text.isascii():
        return len(text)
    return sum(map(_width, text))


def clip(text: str, width: int, ellipsis: str = ELLIPSIS) -> str:
    """Inert text cut to at most ``width`` cells; a cut is shown by the ellipsis."""
    if width <= 0:
        return ""
    if cell_width(text) <= width:
        return text
    kept, room = [], width - 1
    for char in text:
        cells = _width(char)
        if cells > room:
            break
        kept.append(char)
        room -= cells
    return "".join(kept) + ellipsis


def fit(text: str, width: int, ellipsis: str = ELLIPSIS, *, right: bool = False) -> str:
    """Inert text in exactly ``width`` cells: cut, or padded at its end (``right``: at its start)."""
    text = clip(text, width, ellipsis)
    pad = " " * (width - cell_width(text))
    return pad + text if right else text + pad


def valid_host_name(name: str) -> bool:
    """Whether ``name`` may be given to a resolver, an SSH client or a URL: a DNS-like name or an IP address.

    Refused: a leading ``-`` (an option to whoever reads it as one), spaces, ``/``, ``@``, control characters.
    """
    return len(name) <= 253 and (_HOST.fullmatch(name) is not None or is_address(name))


def is_address(name: str) -> bool:
    """Whether it is an IPv4 or IPv6 address, without a zone."""
    if not _ADDRESS.fullmatch(name):
        return False
    import ipaddress

    try:
        return bool(ipaddress.ip_address(name))
    except ValueError:
        return False


def is_loopback(host: str) -> bool:
    """Whether it is this machine itself: nobody else can listen on the way."""
    if host == "localhost":
        return True
    name = host.strip("[]")
    if not _ADDRESS.fullmatch(name):
        return False
    import ipaddress

    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


def natural_key(text: str) -> NaturalKey:
    """A sort key that counts: ``n2`` before ``n10``; equal numbers (``n1``, ``n01``) keep a fixed order."""
    parts = _DIGITS.split(text)
    # digit runs as (length, digits) rather than int: int() refuses more than 4300 digits
    return tuple(_number(part) if place % 2 else part for place, part in enumerate(parts)), text


def _number(digits: str) -> tuple[int, str]:
    significant = digits.lstrip("0")
    return len(significant), significant


def _inert(text: str) -> str:
    cut = len(text) > MAX_TEXT
    text = unicodedata.normalize("NFC", _ESCAPES.sub(REPLACEMENT, text[:MAX_TEXT]))
    kept: list[str] = []
    marks = _MAX_MARKS  # a mark without a letter before it is a flood of one
    for char in text:
        shown = _shown(char)
        marks = marks + 1 if shown == "" else 0
        if marks == 0:
            kept.append(shown)
        elif marks <= _MAX_MARKS:
            kept.append(char)
    return "".join(kept) + (ELLIPSIS if cut else "")


@lru_cache(maxsize=4096)
def _shown(char: str) -> str:
    """The character that stands for this one; empty for a combining mark, which its reader counts."""
    category = unicodedata.category(char)
    if category in ("Zs", "Zl", "Zp") or char in "\t\n\v\f\r\x85":
        return " "
    if category[0] == "C" or category == "Mc" or _ODD_WIDTH.match(char):
        return REPLACEMENT
    return "" if category in ("Mn", "Me") else char


@lru_cache(maxsize=4096)
def _width(char: str) -> int:
    if unicodedata.category(char) in ("Mn", "Me"):
        return 0
    return 2 if unicodedata.east_asian_width(char) in ("W", "F") else 1


def _ascii(text: str) -> str:
    """``é`` as ``e`` where a letter hides in it, else one ``?`` a character."""
    letters = []
    for char in text:
        bare = unicodedata.normalize("NFKD", char)[0]
        letters.append(bare if bare.isascii() and bare.isprintable() else "?")
    return "".join(letters)
