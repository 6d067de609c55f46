"""Palettes: whole, of xterm's colours, and legible however few colours there are."""

from __future__ import annotations

import pytest
from rich._palettes import EIGHT_BIT_PALETTE
from rich.color import Color, ColorSystem
from rich.style import Style

from coldaisle.tui.theme import (
    CELL_TOKENS,
    LEVELS,
    NAMES,
    TOKENS,
    Palette,
    ink_on,
    luminance,
    palette,
    parse,
    textual_theme,
)

COLOURED = [name for name in NAMES if name != "mono"]
XTERM = {tuple(EIGHT_BIT_PALETTE[number]) for number in range(16, 256)}
CELLS = [*(f"cell{level}" for level in range(LEVELS)), *(f"cell.{token}" for token in sorted(CELL_TOKENS))]


def hex_of(colour: Color | None, otherwise: str) -> str:
    return otherwise if colour is None or colour.is_default else colour.get_truecolor().hex


def contrast(one: str, other: str) -> float:
    """WCAG 2.2 contrast ratio, 1..21."""
    light, dark = sorted((luminance(one), luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def ratio(colours: Palette, token: str) -> float:
    style = colours.style(token)
    return contrast(hex_of(style.color, "#ffffff"), hex_of(style.bgcolor, colours.ground["background"]))


@pytest.mark.parametrize("name", COLOURED)
def test_every_colour_is_one_of_xterms_256(name: str) -> None:
    colours = palette(name)
    used = [*colours.cells, *colours.ink, *colours.ground.values()]
    for definition in (*colours.tokens.values(), *colours.cell.values()):
        style = Style.parse(definition)
        used += [part.get_truecolor().hex for part in (style.color, style.bgcolor) if part is not None]
    strange = [one for one in used if tuple(Color.parse(one).get_truecolor()) not in XTERM]
    assert strange == []


@pytest.mark.parametrize("name", COLOURED)
def test_styles_are_numbered_colours(name: str) -> None:
    style = palette(name).style("cell7")
    assert style.bgcolor is not None
    assert style.bgcolor.get_ansi_codes(foreground=False)[:2] == ("48", "5")


@pytest.mark.parametrize("name", COLOURED)
def test_the_scale_grows_evenly_in_lightness(name: str) -> None:
    light = [luminance(one) for one in palette(name).cells]
    grows = sorted(light, reverse=not palette(name).dark)
    assert len(set(palette(name).cells)) == LEVELS
    # grey, navy and blue are nearly as dark as each other: hue tells them, and no level falls back far
    assert all(abs(a - b) < 0.04 for a, b in zip(light, grows, strict=True))


@pytest.mark.parametrize("name", COLOURED)
@pytest.mark.parametrize("token", [token for token in CELLS if token != "cell.faded"])
def test_a_cell_can_be_read(name: str, token: str) -> None:
    assert ratio(palette(name), token) >= 3.5


@pytest.mark.parametrize("name", COLOURED)
@pytest.mark.parametrize("token", sorted(TOKENS - {"rule"}))
def test_text_can_be_read(name: str, token: str) -> None:
    assert ratio(palette(name), token) >= 4.5


@pytest.mark.parametrize("name", COLOURED)
@pytest.mark.parametrize("token", [*CELLS, "lost", "past", "cursor"])
def test_sixteen_colours_never_hide_a_character(name: str, token: str) -> None:
    style = palette(name).style(token)
    assert style.color is not None
    assert style.bgcolor is not None
    ink, ground = (part.downgrade(ColorSystem.STANDARD) for part in (style.color, style.bgcolor))
    assert ink.number != ground.number


def test_mono_names_no_colour() -> None:
    mono = palette("mono")
    for token in (*TOKENS, *CELLS, "scale3", "ground"):
        style = mono.style(token)
        assert (style.color, style.bgcolor) == (None, None)
    assert mono.style("cursor").reverse
    assert mono.is_mono


@pytest.mark.parametrize("name", NAMES)
def test_textual_gets_a_theme_of_the_same_name(name: str) -> None:
    assert textual_theme(palette(name)).name == name


@pytest.mark.parametrize(
    ("ground", "ink"), [("#000000", "#ffffff"), ("#ffff87", "#000000"), ("#0000af", "#ffffff")]
)
def test_ink_contrasts_with_its_ground(ground: str, ink: str) -> None:
    assert ink_on(ground) == ink


def test_an_unknown_name_is_refused() -> None:
    with pytest.raises(KeyError):
        palette("../secrets")


def test_an_unknown_token_is_text() -> None:
    assert palette("dark").style("no-such-token") == palette("dark").style("text")


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ('name = "x"', "theme lacks accent"),
        (
            'name = "x"\ntitle = "X"\ndark = true\ncells = ["#000000"]\nink = []\n[ground]\n[tokens]\n'
            + "".join(f'{token} = ""\n' for token in sorted(TOKENS))
            + "[cell]\n"
            + "".join(f'{token} = ""\n' for token in sorted(CELL_TOKENS)),
            "a scale has 11 colours",
        ),
    ],
)
def test_a_broken_theme_says_what_is_wrong(text: str, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        parse(text)
