"""What the characters of the map mean, and what changed: the lines under it. Pure."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from typing import TYPE_CHECKING

from coldaisle.sources.text import ELLIPSIS, cell_width, clip, fit, plain
from coldaisle.tui.cells import FADED, LEVEL_0, MARK_0, MARKS, CellMetric, Mark
from coldaisle.tui.picture import OUTSIDE
from coldaisle.tui.reading import clock, event_token, event_words, whose
from coldaisle.tui.tiles import Zoom, tail
from coldaisle.tui.widgets.header import Piece, fitted
from coldaisle.tui.widgets.lines import Row, Run, cut, row_width

if TYPE_CHECKING:
    from coldaisle.analyzers.snapshot import EventView

MOST_NAME, MOST_WORDS = 16, 14
"""Cells that the name of an entity and the kind of an event may take."""


def legend(
    codes: Collection[int],
    metric: CellMetric,
    zoom: Zoom,
    out_of_view: int,
    width: int,
    *,
    feet: bool = False,
    gpu_feet: bool = False,
    mono: bool = False,
    outside: str = "the filter",
) -> Row:
    """The digits, and only the letters that are in use.

    Args:
        feet: whether power and inlet stand under racks.
        gpu_feet: whether some of it is the power of GPUs alone.
        mono: whether what the filter hides has a sign of its own.
        outside: what the cells with that sign do not belong to.
    """
    bare = {code & ~FADED for code in codes}
    pieces = []
    if any(LEVEL_0 <= code < MARK_0 for code in bare):
        pieces.append(Piece(0, (Run("0-9 ", "title"), Run(f"{metric.label} {metric.extent}", "dim"))))
        if zoom is Zoom.HALVES:
            scale = tuple(Run(str(min(level, 9)), f"cell{level}") for level in range(11))
            pieces.append(Piece(1, (*scale, Run(" two GPUs a character", "dim"))))
    marks = [mark for at, mark in enumerate(MARKS) if MARK_0 + at in bare]
    pieces += _letters(marks, width - sum(row_width(piece.row) + 2 for piece in pieces))
    if mono and any(code & FADED for code in codes):
        pieces.append(Piece(1, (Run(OUTSIDE, "text"), Run(f" outside {outside}", "dim"))))
    if feet:
        pieces.append(Piece(30, (Run("kW C", "text"), Run(" rack power, inlet", "dim"))))
    if gpu_feet:
        pieces.append(Piece(30, (Run("GPU kW", "text"), Run(" of its GPUs alone", "dim"))))
    if out_of_view:
        pieces.append(Piece(0, (Run(f"{out_of_view} out of view (PgDn, z)", "warn"),)))
    return fitted(pieces, width)


def _letters(marks: Sequence[Mark], room: int) -> list[Piece]:
    """Letters with what they mean, in short where there is little room; what findings say stays longer than what is usual."""
    whole = sum(len(mark.meaning) + 4 for mark in marks) <= room
    found = []
    for at, mark in enumerate(marks):
        said = mark.meaning if whole else mark.short or mark.meaning
        rank = 2 if mark.letter in "X?" else 5 + at if mark.token in ("trouble", "waits") else 40
        found.append(Piece(rank, (Run(mark.letter, mark.token), Run(f" {said}", "dim"))))
    return found


def changes(
    events: Iterable[EventView], width: int, lines: int, now: float, led_to: Callable[[EventView], int]
) -> list[Row]:
    """The last events, oldest first, each with the number of the finding that it may have led to (0: none); text made inert."""
    newest = list(events)[-max(lines, 0) :] if lines > 0 else []
    names = [whose(event) for event in newest]
    words = [event_words(event.kind) for event in newest]
    name_width = min(max(map(cell_width, names), default=0), MOST_NAME)
    word_width = min(max(map(cell_width, words), default=0), MOST_WORDS)
    rows = []
    for event, name, word in zip(newest, names, words, strict=True):
        told: Row = (
            Run(fit(clock(event.at, now), 10), "dim"),
            Run(fit(tail(name, name_width, ELLIPSIS), name_width) + "  ", "text"),
            Run(fit(word, word_width) + "  ", event_token(event.kind)),
        )
        number = led_to(event)
        pointer: Row = (Run(f"  -> finding {number}", "accent"),) if number else ()
        room = max(width - row_width(told) - row_width(pointer), 0)
        rows.append(cut((*told, Run(clip(plain(event.detail), room), "text"), *pointer), width))
    return rows
