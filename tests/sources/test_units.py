"""Units as people read and type them."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coldaisle.sources.catalog import Metric, catalog
from coldaisle.sources.units import SHOW_WIDTH, UNITS, age, parse, show

NAN = float("nan")


@pytest.mark.parametrize(
    ("value", "unit", "shown"),
    [
        (0.85, "ratio", "85 %"),
        (0.054, "ratio", "5.4 %"),
        (1.0, "ratio", "100 %"),
        (0.0, "ratio", "0 %"),
        (712.4, "W", "712 W"),
        (999.9, "W", "1.00 kW"),
        (35_100.0, "W", "35.1 kW"),
        (75e9, "B", "69.8 GiB"),
        (512.0, "B", "512 B"),
        (12.5e9, "B/s", "12.5 GB/s"),
        (71.0, "C", "71 °C"),
        (-12.4, "C", "-12 °C"),
        (1980.0, "MHz", "1980 MHz"),
        (0.12, "s", "120 ms"),
        (0.0000031, "s", "3.10 µs"),
        (4.0, "s", "4.0 s"),
        (209.0, "s", "3m29s"),
        (7800.0, "s", "2h10"),
        (12.0, "/s", "12.0 /s"),
        (3.0, "1", "3"),
        (12_345.0, "1", "12.3 k"),
        (1200.0, "tokens/s", "1.20 ktok/s"),
        (72.0, "bits", "0x48"),
        (2.0, "state", "2"),
        (230.0, "V", "230 V"),
        (math.inf, "W", "inf"),
    ],
)
def test_values_as_people_read_them(value: float, unit: str, shown: str) -> None:
    assert show(value, unit) == shown


@pytest.mark.parametrize("unit", UNITS)
def test_a_missing_value_is_a_dash(unit: str) -> None:
    assert show(NAN, unit) == "-"


def test_ascii_has_no_degree_sign() -> None:
    assert show(71.0, "C", ascii_only=True) == "71 C"
    assert show(3e-6, "s", ascii_only=True) == "3.00 us"


@given(
    st.sampled_from(sorted(catalog().values(), key=lambda metric: metric.key)),
    st.floats(0, 1),
    st.floats(-12, 15),
)
def test_every_value_of_the_catalog_fits_its_place(metric: Metric, share: float, power: float) -> None:
    for value in (metric.low + share * (metric.high - metric.low), 10.0**power):
        if metric.low <= value <= metric.high:
            shown = show(value, metric.unit)
            assert len(shown) <= SHOW_WIDTH
            assert shown != "-"


@given(st.floats(allow_nan=False), st.sampled_from(UNITS))
def test_no_value_breaks_it(value: float, unit: str) -> None:
    assert show(value, unit)


@given(st.sampled_from(UNITS), st.floats(0, 9e3))
def test_what_is_shown_can_be_typed(unit: str, value: float) -> None:
    shown = show(value, unit)
    if not shown.endswith(" d"):  # whole days: an age, rounded on purpose
        assert parse(shown, unit) == pytest.approx(
            value, rel=0.06, abs=1.0 if unit in ("C", "MHz", "B", "rpm", "bits", "state") else 6e-3
        )


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("2s", 2), ("2", 2), ("500ms", 0.5), ("15m", 900), ("2h", 7200), ("1d", 86400), ("1h30m", 5400),
        ("2h10", 7800), ("3m29s", 209), (" 1.5 h ", 5400), ("4 s", 4), ("250 µs", 0.00025),
    ],
)  # fmt: skip
def test_durations(text: str, seconds: float) -> None:
    assert parse(text, "s") == pytest.approx(seconds)


@pytest.mark.parametrize(
    ("text", "unit", "value"),
    [
        ("70GiB", "B", 70 * 2**30),
        ("80GB", "B", 80e9),
        ("1.5TB", "B", 1.5e12),
        ("1024", "B", 1024),
        ("50kB/s", "B/s", 50e3),
        ("400 Gbit/s", "B/s", 50e9),
        ("700W", "W", 700),
        ("2 kW", "W", 2000),
        ("5", "ratio", 0.05),
        ("5%", "ratio", 0.05),
        ("85 °C", "C", 85),
        ("1.98GHz", "MHz", 1980),
        ("128k", "tokens", 128e3),
        ("0x48", "bits", 72),
    ],
)
def test_values_as_people_type_them(text: str, unit: str, value: float) -> None:
    assert parse(text, unit) == pytest.approx(value)


@pytest.mark.parametrize("unit", UNITS)
@pytest.mark.parametrize(
    "text", ["", "x", "5 parsecs", "nan", "inf", "--2", "1e999", "٣", "9" * 70, "\x1b[31m", "2 2x"]
)
def test_what_is_refused_says_what_is_accepted(unit: str, text: str) -> None:
    with pytest.raises(ValueError, match=r"is not (an?|per cent)") as refused:
        parse(text, unit)
    assert "\x1b" not in str(refused.value)


@pytest.mark.parametrize("text", ["1m2h", "1s2", "m", "-1s", "1" * 60 + "!", "1 2"])
def test_durations_that_are_none(text: str) -> None:
    with pytest.raises(ValueError, match="write 500ms, 2s, 15m"):
        parse(text, "s")


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (0.4, "0 s"),
        (4, "4 s"),
        (59.9, "59 s"),
        (209, "3m29s"),
        (7800, "2h10"),
        (86400 * 2, "2 d"),
        (-5, "0 s"),
        (NAN, "-"),
        (1e30, "999 d"),
    ],
)
def test_ages(seconds: float, shown: str) -> None:
    assert age(seconds) == shown


@given(st.floats(allow_nan=False))
def test_an_age_fits_six_cells(seconds: float) -> None:
    assert len(age(seconds)) <= 6
