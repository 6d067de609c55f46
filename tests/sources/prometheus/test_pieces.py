"""A range cut into pieces."""

from hypothesis import given
from hypothesis import strategies as st

from coldaisle.sources.prometheus.pieces import (
    FIRST_POINTS,
    MAX_POINTS,
    PIECE_BYTES,
    POINT_BYTES,
    Piece,
    first_piece,
    pieces,
)


@given(st.integers(1, 100_000), st.integers(0, 20_000), st.integers(0, 300))
def test_pieces_cover_the_range_once_and_keep_to_their_bounds(points: int, series: int, labels: int) -> None:
    first = first_piece(points)
    rest = list(pieces(first.last, points, series, series * labels))
    assert [instant for piece in [first, *rest] for instant in (piece.first, piece.last)][1:-1] == [
        edge for piece in rest for edge in (piece.first, piece.first)
    ]
    assert [first, *rest][-1].last == points
    assert all(0 < piece.points <= MAX_POINTS for piece in [first, *rest])
    room = max(PIECE_BYTES, 2 * series * labels)
    assert all(piece.points == 1 or piece.points * series * POINT_BYTES <= room for piece in rest)


def test_a_short_range_is_one_question() -> None:
    assert first_piece(15) == Piece(0, 15)
    assert list(pieces(15, 15, 8, 800)) == []
    assert first_piece(1440).points == FIRST_POINTS


def test_a_day_of_a_thousand_gpus() -> None:
    cut = list(pieces(10, 1440, 1024, 1024 * 60))
    assert 15 <= len(cut) <= 25
    assert max(piece.points for piece in cut) - min(piece.points for piece in cut) <= 1


def test_halves() -> None:
    assert Piece(3, 8).halves() == (Piece(3, 5), Piece(5, 8))
