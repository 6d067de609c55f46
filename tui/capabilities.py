"""What a terminal can show, as its environment tells: characters and colours.

Nothing heavy is imported here: the answer is needed before Textual is loaded, which reads
``TEXTUAL_COLOR_SYSTEM`` once at import.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import IntEnum
from typing import NamedTuple, TextIO


class Colours(IntEnum):
    """How many colours may be used."""

    NONE = 0
    SIXTEEN = 16
    XTERM = 256
    TRUE = 1 << 24

    @property
    def textual(self) -> str:
        """The name of this colour system in ``TEXTUAL_COLOR_SYSTEM``.

        Without colours the sixteen are named: Textual then draws greys, which they hold.
        """
        return {Colours.XTERM: "256", Colours.TRUE: "truecolor"}.get(self, "standard")


class Capabilities(NamedTuple):
    """What may be sent to the terminal."""

    utf8: bool
    """Whether characters outside ASCII are shown as themselves."""
    colours: Colours
    is_multiplexed: bool
    """Whether tmux or screen stands between: it answers status requests itself."""


_NO_COLOUR_TERMS = frozenset({"", "dumb", "unknown", "vt100", "vt102", "vt220", "vt320"})
_SIXTEEN_COLOUR_TERMS = frozenset({"linux", "xterm", "screen", "tmux", "rxvt", "ansi", "cygwin", "putty"})


def capabilities(environ: Mapping[str, str]) -> Capabilities:
    """What the terminal that `environ` describes can show."""
    term = environ.get("TERM", "")
    is_multiplexed = bool(environ.get("TMUX") or environ.get("STY")) or term.startswith(("screen", "tmux"))
    return Capabilities(_is_utf8(environ), _colours(environ, term, is_multiplexed), is_multiplexed)


def _is_utf8(environ: Mapping[str, str]) -> bool:
    """The character set of the locale, as setlocale(3) finds it: the first that is set decides."""
    names = (environ.get(key, "") for key in ("LC_ALL", "LC_CTYPE", "LANG"))
    locale = next((name for name in names if name), "C")
    charset = locale.partition(".")[2].partition("@")[0]
    return charset.lower().replace("-", "") == "utf8"


def _colours(environ: Mapping[str, str], term: str, is_multiplexed: bool) -> Colours:
    if "NO_COLOR" in environ or term in _NO_COLOUR_TERMS or term.endswith(("-m", "-mono")):
        return Colours.NONE
    if term.endswith(("-16color", "-8color", "-88color")):
        return Colours.SIXTEEN
    if is_multiplexed:
        # COLORTERM describes the terminal outside; tmux maps 24-bit colours to that terminal's
        # anyway, and a colour of 256 takes half the bytes.
        return Colours.XTERM if "256color" in term or environ.get("TMUX") else Colours.SIXTEEN
    if environ.get("COLORTERM", "").lower() in ("truecolor", "24bit") or term.endswith("-direct"):
        return Colours.TRUE
    return Colours.SIXTEEN if term in _SIXTEEN_COLOUR_TERMS else Colours.XTERM


def writes_utf8(environ: Mapping[str, str], stream: TextIO) -> bool:
    """Whether what is written to a stream is read as UTF-8: both its encoding and the locale say so."""
    return capabilities(environ).utf8 and (stream.encoding or "").lower().startswith("utf")
