"""Palettes: what each token of meaning looks like. The colours are data, in ``themes/*.toml``."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from rich._palettes import EIGHT_BIT_PALETTE
from rich.color import Color
from rich.style import Style
from textual.app import App
from textual.theme import Theme

from coldaisle import themes

LEVELS = 11
"""Steps of the scale, 0..10."""
NAMES = ("dark", "light", "colourblind", "mono")
DEFAULT = "dark"
NO_COLOUR = "mono"
TOKENS = frozenset(
    {
        "text", "dim", "rule", "accent", "title", "key", "ok", "warn", "bad", "info", "stale", "lost", "free",
        "drained", "held", "down", "nodata", "live", "past", "cursor", "match", "trouble", "waits",
    }
)  # fmt: skip
CELL_TOKENS = frozenset(
    {"lost", "stale", "nodata", "free", "drained", "held", "down", "faded", "trouble", "waits"}
)
OWN_COLOURED = (
    "ansi-background", "ansi-foreground", "border", "border-blurred", "block-cursor-foreground", "block-cursor-background",
    "block-hover-background", "input-cursor-background", "input-cursor-foreground", "input-selection-background",
    "input-selection-foreground", "screen-selection-background", "screen-selection-foreground", "scrollbar",
    "scrollbar-hover", "scrollbar-active", "scrollbar-background", "scrollbar-corner-color",
    "scrollbar-background-hover", "scrollbar-background-active",
)  # fmt: skip
"""Textual's own variables, which a theme without colours leaves to the terminal."""
BLACK, WHITE = "#000000", "#ffffff"


@dataclass(frozen=True, slots=True)
class Palette:
    """One theme, loaded."""

    name: str
    title: str
    dark: bool
    cells: tuple[str, ...]
    """Background of a heat cell by level; empty: the theme has no colours."""
    ink: tuple[str, ...]
    """Foreground of a chart by level."""
    ground: Mapping[str, str]
    tokens: Mapping[str, str]
    cell: Mapping[str, str]
    _styles: dict[str, Style] = field(default_factory=dict, repr=False, compare=False)

    @property
    def is_mono(self) -> bool:
        """Whether nothing is told by colour."""
        return not self.cells

    def style(self, token: str) -> Style:
        """The style of a token: ``warn``, ``scale7`` (ink of a level), ``cell7``, ``cell.stale`` (a heat cell)."""
        if (style := self._styles.get(token)) is None:
            style = self._styles[token] = _xterm(Style.parse(self._definition(token)))
        return style

    @property
    def ground_style(self) -> Style:
        """The background, for what is drawn without Textual's help; nothing where there are no colours."""
        return self.style("ground")

    def half(self, upper: str, lower: str) -> Style:
        """Two heat cells in one: the backgrounds of two cell tokens as ink and ground of an upper half block."""
        key = f"{upper}/{lower}"
        if (style := self._styles.get(key)) is None:
            above, below = self.style(upper).bgcolor, self.style(lower).bgcolor
            style = self._styles[key] = Style.from_color(above, below)
        return style

    def _definition(self, token: str) -> str:
        if token == "ground":
            return f"on {self.ground['background']}" if self.ground else ""
        if token.startswith("scale"):
            return self.ink[int(token[5:])] if self.ink else ""
        if token.startswith("cell."):
            return self.cell[token[5:]]
        if token.startswith("cell"):
            ground = self.cells[int(token[4:])] if self.cells else ""
            return f"{ink_on(ground)} on {ground}" if ground else ""
        return self.tokens.get(token, self.tokens["text"])


def ink_on(ground: str) -> str:
    """Black or white, whichever is read better on a ground (WCAG 2.2 contrast)."""
    light = luminance(ground)
    return BLACK if (light + 0.05) / 0.05 >= 1.05 / (light + 0.05) else WHITE


def luminance(colour: str) -> float:
    """Relative luminance of ``#rrggbb``, 0..1 (WCAG 2.2)."""
    parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    red, green, blue = (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


@cache
def palette(name: str) -> Palette:
    """A theme by its name; KeyError for one that does not exist."""
    if name not in NAMES:
        raise KeyError(name)
    # importlib.resources takes longer to import than a theme to read; this is before the first paint
    return parse((Path(themes.__path__[0]) / f"{name}.toml").read_text(encoding="utf-8"))


def parse(text: str) -> Palette:
    """A theme's TOML; ValueError says what is wrong with it."""
    raw = tomllib.loads(text)
    missing = {"name", "title", "dark", "cells", "ink", "ground", "tokens", "cell"} - raw.keys()
    missing |= TOKENS - raw.get("tokens", {}).keys()
    missing |= {f"cell.{name}" for name in CELL_TOKENS - raw.get("cell", {}).keys()}
    if missing:
        raise ValueError(f"theme lacks {', '.join(sorted(missing))}")
    if not {len(raw["cells"]), len(raw["ink"])} <= {0, LEVELS}:
        raise ValueError(f"theme {raw['name']}: a scale has {LEVELS} colours, or none")
    scales = {key: tuple(raw[key]) for key in ("cells", "ink")}
    return Palette(**{**raw, **scales})


def style_of(app: App[Any], token: str) -> Style:
    """The style of a token in the running app's palette."""
    current: Palette = getattr(app, "palette", None) or palette(DEFAULT)
    return current.style(token)


def textual_theme(source: Palette) -> Theme:
    """The same colours for Textual's own widgets."""
    if source.is_mono:
        own = "ansi_default"  # the terminal's own ink and ground
        return Theme(
            name=source.name,
            primary=own,
            secondary=own,
            accent=own,
            warning=own,
            error=own,
            success=own,
            foreground=own,
            background=own,
            surface=own,
            panel=own,
            boost=own,
            ansi=True,
            variables={
                **dict.fromkeys(OWN_COLOURED, own),
                "block-cursor-text-style": "reverse",
                "input-cursor-text-style": "reverse",
            },
        )
    ink = {token: definition.split()[-1] for token, definition in source.tokens.items()}
    return Theme(
        name=source.name,
        primary=ink["accent"],
        secondary=ink["info"],
        accent=ink["accent"],
        warning=ink["warn"],
        error=ink["bad"],
        success=ink["ok"],
        foreground=ink["text"],
        background=source.ground["background"],
        surface=source.ground["surface"],
        panel=source.ground["panel"],
        dark=source.dark,
    )


def _xterm(style: Style) -> Style:
    """The style with its colours as numbers of xterm's palette: half the bytes of 24 bits a colour."""
    colours = (style.color, style.bgcolor)
    ink, ground = (_numbered(colour) if colour else None for colour in colours)
    return style + Style.from_color(ink, ground) if any(colours) else style


def _numbered(colour: Color) -> Color:
    # Color.downgrade picks the wrong one of neighbouring greys
    number = _numbers().get(tuple(colour.triplet)) if colour.triplet else None
    return colour if number is None else Color.from_ansi(number)


@cache
def _numbers() -> dict[tuple[int, ...], int]:
    return {tuple(EIGHT_BIT_PALETTE[number]): number for number in range(255, 15, -1)}
