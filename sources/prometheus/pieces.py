"""A range cut into pieces, so that no answer is large and none has too many points."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

MAX_POINTS = 10_000
"""Of one answer; Prometheus refuses more than 11,000 a series."""
PIECE_BYTES = 2_000_000
"""What one answer should have: decoding 20 MB holds up every thread for 180 ms."""
FIRST_POINTS = 10
"""Of the first piece, which shows how many series there are."""
POINT_BYTES = 24
"""One sample in JSON, before it is known better."""


class Piece(NamedTuple):
    """Instants ``first`` up to but not including ``last`` of a range."""

    first: int
    last: int

    @property
    def points(self) -> int:
        """How many instants."""
        return self.last - self.first

    def halves(self) -> tuple[Piece, Piece]:
        """The same in two; of at least two points."""
        middle = (self.first + self.last) // 2
        return Piece(self.first, middle), Piece(middle, self.last)


def first_piece(points: int) -> Piece:
    """What to ask first of a range of so many points."""
    # few more than a first piece are not worth a second question
    return Piece(0, points if points <= 2 * FIRST_POINTS else FIRST_POINTS)


def pieces(first: int, last: int, series: int, label_bytes: int) -> Iterator[Piece]:
    """The rest, when ``series`` are known and their labels take so many bytes in each answer.

    Labels come with every piece: where they are much, a piece holds at least as many bytes of samples.
    """
    room = max(PIECE_BYTES - label_bytes, label_bytes, PIECE_BYTES // 4)
    points = min(MAX_POINTS, max(1, room // (POINT_BYTES * max(1, series))))
    # all alike, so that none is a remainder of few points
    count = math.ceil((last - first) / points)
    for number in range(count):
        yield Piece(first + number * (last - first) // count, first + (number + 1) * (last - first) // count)
