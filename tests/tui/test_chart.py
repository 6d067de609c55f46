"""Charts of cells: gaps stay gaps, zero is not nothing, thresholds show, everything keeps its width."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coldaisle.sources.text import cell_width
from coldaisle.sources.units import show
from coldaisle.tui.widgets.chart import (
    ASCII,
    UNICODE,
    Extent,
    Ink,
    Mark,
    Scale,
    area,
    axis_width,
    extent,
    framed,
    grid,
    heat,
    held,
    nice,
    span_name,
    spread,
    tenth,
    time_axis,
)
from coldaisle.tui.widgets.lines import Row, row_text, row_width

NAN = math.nan
RATIO = Scale(0.0, 1.0)

values = st.lists(st.one_of(st.just(NAN), st.floats(-10, 2000)), max_size=60)


def text(rows: list[Row]) -> list[str]:
    return [row_text(row) for row in rows]


def test_a_strip_in_eighths() -> None:
    assert text(area([0.125, 0.5, 1.0], 3, 1, RATIO)) == ["▁▄█"]


def test_two_rows_hold_sixteen_steps() -> None:
    assert text(area([0.25, 0.75, 1.0], 3, 2, RATIO)) == [" ▄█", "▄██"]


def test_ascii_has_three_steps_a_row() -> None:
    assert text(area([0.3, 0.66, 1.0], 3, 1, RATIO, ink=ASCII)) == [".:#"]


def test_a_gap_is_blank_and_a_zero_is_not() -> None:
    assert text(area([0.5, NAN, 0.0, 0.5], 4, 1, RATIO)) == ["▄ ▁▄"]


def test_extent_leaves_gaps_out() -> None:
    assert extent([NAN, 1.0, 3.0, NAN]) == Extent(1.0, 2.0, 3.0, 3.0)


def test_a_threshold_shows_where_no_area_is() -> None:
    rows = area([0.2, 1.0], 2, 4, RATIO, marks=[Mark(0.8, "limit")])
    assert text(rows) == ["┄█", " █", " █", "▆█"]
    assert rows[0][0].token == "warn"


def test_a_threshold_outside_the_scale_is_not_drawn() -> None:
    assert text(area([0.1], 1, 4, RATIO, marks=[Mark(7.0, "limit")]))[0] == " "


def test_values_beyond_the_scale_stay_inside() -> None:
    assert text(area([5.0, -5.0], 2, 1, RATIO)) == ["█▁"]


def test_colour_follows_the_value() -> None:
    row = area([0.1, 0.9], 2, 1, RATIO, paint=lambda value: "bad" if value > 0.5 else "ok")[0]
    assert [run.token for run in row] == ["ok", "bad"]


def test_equal_neighbours_are_one_run() -> None:
    assert len(area([0.5] * 40, 40, 1, RATIO)[0]) == 1


def test_heat_strip_writes_tenths_and_dashes() -> None:
    row = heat([0.0, 0.55, 1.0, NAN], 4, RATIO, paint=lambda value: f"scale{round(value * 10)}")
    assert row_text(row) == "059-"
    assert row[-1].token == "dim"


@pytest.mark.parametrize(("value", "digit"), [(0.0, "0"), (0.09, "0"), (0.1, "1"), (0.99, "9"), (1.0, "9")])
def test_a_digit_is_the_tenth(value: float, digit: str) -> None:
    assert tenth(value, RATIO) == digit


def test_fewer_points_are_held_and_more_are_averaged() -> None:
    assert spread([1.0, 2.0], 4) == [1.0, 1.0, 2.0, 2.0]
    assert spread([1.0, 3.0, NAN, 5.0], 2) == [2.0, 5.0]
    assert all(math.isnan(value) for value in spread([NAN, NAN], 1))


def test_no_points_are_a_gap() -> None:
    assert len(spread([], 3)) == 3
    assert text(area([], 3, 1, RATIO)) == ["   "]


def test_bins_finer_than_the_samples_are_no_gaps() -> None:
    sparse = [1.0, NAN, NAN, 2.0, NAN, NAN, 3.0, NAN, 4.0]
    assert held(sparse) == [1.0, 1.0, 1.0, 2.0, 2.0, 2.0, 3.0, 3.0, 4.0]


def test_a_missing_sample_is_a_gap_at_any_period() -> None:
    assert math.isnan(held([1.0, 2.0, NAN, 3.0, 4.0])[2])
    slow = [1.0, NAN, 2.0, NAN, 3.0, NAN, NAN, NAN, 5.0, NAN, 6.0, NAN, 7.0]
    assert [math.isnan(value) for value in held(slow)].count(True) == 3


def test_a_silence_at_the_end_stays_one() -> None:
    assert math.isnan(held([1.0, NAN, 2.0, NAN, NAN])[-1])
    assert held([]) == []


@pytest.mark.parametrize(
    ("value", "top"), [(0.0, 1.0), (0.11, 0.2), (0.2, 0.2), (3.0, 5.0), (7e9, 1e10), (NAN, 1.0)]
)
def test_tops_of_scales_are_round(value: float, top: float) -> None:
    assert nice(value) == pytest.approx(top)


def test_axis_names_top_bottom_and_threshold_in_display_units() -> None:
    scale, marks = Scale(0.0, 800.0), [Mark(650.0, "limit")]
    rows = framed(area([350.0], 1, 8, scale, marks=marks), scale, lambda value: show(value, "W"), marks=marks)
    assert [row_text(row)[:6] for row in rows] == ["800 W│", "650 W│", *["     │"] * 5, "  0 W│"]
    assert axis_width(scale, 8, lambda value: show(value, "W"), marks) == 6


def test_time_axis_ends_now() -> None:
    line = row_text(time_axis(900.0, 60))
    assert line.startswith("-15m")
    assert line.endswith("now")
    assert "-10m" in line
    assert "-5m" in line
    assert len(line) == 60


@pytest.mark.parametrize("width", range(0, 200, 7))
def test_time_axis_keeps_its_width(width: int) -> None:
    assert row_width(time_axis(3600.0, width)) == width


@pytest.mark.parametrize(
    ("seconds", "name"), [(300.0, "5m"), (900.0, "15m"), (3600.0, "1h"), (86400.0 * 3, "3d")]
)
def test_spans_have_names(seconds: float, name: str) -> None:
    assert span_name(seconds) == name


def test_small_multiples_by_width() -> None:
    assert grid(8, 78, 16, least=56, overhead=1)[:2] == (1, 8)
    assert grid(8, 118, 26, least=56, overhead=1)[:2] == (2, 4)
    assert grid(8, 250, 40, least=56, overhead=1)[:2] == (4, 2)
    assert grid(0, 80, 10).columns == 0


@given(values, st.integers(1, 50), st.integers(1, 6), st.sampled_from([UNICODE, ASCII]))
def test_a_chart_is_exactly_its_size(series: list[float], width: int, height: int, ink: Ink) -> None:
    rows = area(series, width, height, Scale(0.0, 800.0), ink=ink, marks=[Mark(700.0, "limit")])
    assert len(rows) == height
    assert {row_width(row) for row in rows} == {width}


@given(values.filter(lambda series: len(series) > 0))
def test_what_is_missing_is_what_is_blank(series: list[float]) -> None:
    (row,) = area(series, len(series), 1, Scale(0.0, 800.0))
    assert [char == " " for char in row_text(row)] == [math.isnan(value) for value in series]


def test_ascii_ink_is_ascii() -> None:
    assert all(
        cell_width(part) == len(part.encode()) for part in (ASCII.ramp, ASCII.rule, ASCII.axis, ASCII.gap)
    )
