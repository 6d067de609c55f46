"""Instants as people type them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from zoneinfo import ZoneInfo

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from coldaisle.sources.instants import parse_instant, show_instant, show_span

BERLIN = ZoneInfo("Europe/Berlin")
NOW = datetime(2026, 3, 1, 14, 30, 5, tzinfo=BERLIN).timestamp()


def at(*parts: int, zone: object = BERLIN, fold: int = 0) -> float:
    return datetime(*parts, tzinfo=zone, fold=fold).timestamp()  # type: ignore[arg-type, misc]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("03:12", at(2026, 3, 1, 3, 12)),
        (f"{at(2026, 2, 27, 3, 12):.0f}", at(2026, 2, 27, 3, 12)),
        (f"@{at(2026, 2, 27, 3, 12):.0f}.5", at(2026, 2, 27, 3, 12) + 0.5),
        ("3:12", at(2026, 3, 1, 3, 12)),
        (" 03:12:30 ", at(2026, 3, 1, 3, 12, 30)),
        ("14:30:05", NOW),
        ("14:30:06", at(2026, 2, 28, 14, 30, 6)),
        ("23:59", at(2026, 2, 28, 23, 59)),
        ("today 03:12", at(2026, 3, 1, 3, 12)),
        ("Yesterday 03:12", at(2026, 2, 28, 3, 12)),
        ("2026-02-27 03:12", at(2026, 2, 27, 3, 12)),
        ("2026-2-7 03:12:01", at(2026, 2, 7, 3, 12, 1)),
        ("2026-02-27T03:12:00Z", at(2026, 2, 27, 3, 12, zone=UTC)),
        ("2026-02-27t03:12:00.25z", at(2026, 2, 27, 3, 12, zone=UTC) + 0.25),
        ("2026-02-27T03:12:00+01:00", at(2026, 2, 27, 3, 12)),
        ("2026-02-27T03:12:00-0530", at(2026, 2, 27, 8, 42, zone=UTC)),
        ("03:12 UTC", at(2026, 3, 1, 3, 12, zone=UTC)),
        ("03:12Z", at(2026, 3, 1, 3, 12, zone=UTC)),
        ("13:31 UTC", at(2026, 2, 28, 13, 31, zone=UTC)),
        ("03:12 +05", at(2026, 2, 28, 22, 12, zone=UTC)),
        ("03:12:41 CET", at(2026, 3, 1, 3, 12, 41)),
        ("yesterday 23:30 UTC", at(2026, 2, 28, 23, 30, zone=UTC)),
        ("2h ago", NOW - 7200),
        ("90m ago", NOW - 5400),
        ("2h13 ago", NOW - 7980),
        ("2 h ago", NOW - 7200),
        ("-2h", NOW - 7200),
        ("- 1h30m", NOW - 5400),
        ("2d ago", NOW - 172800),
    ],
)
def test_what_is_accepted(text: str, expected: float) -> None:
    assert parse_instant(text, NOW, BERLIN).at == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "write 03:12"),
        ("   ", "write 03:12"),
        ("soon", "'soon' is no instant: write 03:12"),
        ("3", "no instant"),
        ("2026-03-01", "no instant"),
        ("yesterday", "no instant"),
        ("25:00", "24 hours"),
        ("03:60", "24 hours"),
        ("03:12:60", "24 hours"),
        ("2026-02-30 03:12", "there is no 2026-02-30"),
        ("2026-03-01 15:00", "still to come, in 29m55s"),
        ("today 15:00", "still to come"),
        ("9999-12-31 23:59", "still to come"),
        ("0001-01-01 00:00", "1970|beyond"),
        ("1969-12-31 12:00", "1970"),
        ("99999d ago", "1970"),
        ("2x ago", "is not a duration"),
        ("03:12 PST", "PST is not the zone here .CET."),
        ("2026-02-27 03:12 CEST", "CEST is not the zone here"),
        ("2026-02-27T03:12:00+99:00", "no zone"),
        ("03:12\x1b[31m", "no instant"),
        ("1" * 200, "no instant"),
    ],
)
def test_what_is_not(text: str, words: str) -> None:
    with pytest.raises(ValueError, match=words) as refused:
        parse_instant(text, NOW, BERLIN)
    assert "\x1b" not in str(refused.value)
    assert len(str(refused.value)) < 200


def test_a_time_that_came_twice_is_the_later_one_and_that_is_said() -> None:
    now = at(2025, 10, 26, 12, 0)
    found = parse_instant("02:30", now, BERLIN)
    assert found.at == at(2025, 10, 26, 2, 30, fold=1)
    assert found.note == "2025-10-26 had 02:30 twice: this is the one in CET"
    assert parse_instant("02:30 CEST", now, BERLIN) == (at(2025, 10, 26, 2, 30, fold=0), "")
    assert parse_instant("2025-10-26 02:30 CET", now, BERLIN) == (at(2025, 10, 26, 2, 30, fold=1), "")


def test_while_only_the_first_of_two_has_been_it_is_that_one() -> None:
    now = at(2025, 10, 26, 2, 45, fold=0)
    found = parse_instant("02:30", now, BERLIN)
    assert found.at == at(2025, 10, 26, 2, 30, fold=0)
    assert "CEST" in found.note


def test_a_time_that_never_was_is_refused_or_that_of_the_day_before() -> None:
    now = at(2026, 3, 29, 12, 0)
    with pytest.raises(ValueError, match="2026-03-29 has no 02:30: the clocks were set forward"):
        parse_instant("2026-03-29 02:30", now, BERLIN)
    found = parse_instant("02:30", now, BERLIN)
    assert found.at == at(2026, 3, 28, 2, 30)
    assert found.note == "2026-03-29 had no 02:30: the clocks were set forward; this is the day before"


def test_the_zone_of_this_machine_is_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    import time

    with monkeypatch.context() as patch:
        patch.setenv("TZ", "Asia/Kolkata")
        time.tzset()
        found = parse_instant("2026-02-27 03:12", NOW)
        shown = show_instant(found.at, NOW)
    time.tzset()
    assert found.at == at(2026, 2, 26, 21, 42, zone=UTC)
    assert shown == "2026-02-27 03:12:00"


def test_what_is_shown_names_the_day_unless_it_is_today() -> None:
    assert show_instant(NOW - 60, NOW, BERLIN) == "14:29:05"
    assert show_instant(NOW - 86400, NOW, BERLIN) == "2026-02-28 14:30:05"
    assert show_instant(at(2025, 10, 26, 2, 30, fold=1), NOW, BERLIN) == "2025-10-26 02:30:00 CET"
    assert show_span(NOW - 900, NOW, BERLIN) == "14:15-14:30"


ZONES = st.sampled_from(
    [
        BERLIN,
        UTC,
        ZoneInfo("America/New_York"),
        ZoneInfo("Australia/Lord_Howe"),
        ZoneInfo("Asia/Kathmandu"),
        timezone(timedelta(hours=-3)),
    ]
)
SECONDS = st.integers(min_value=86400 * 3, max_value=4_000_000_000)


@given(SECONDS, st.integers(min_value=0, max_value=400 * 86400), ZONES)
@example(int(at(2025, 10, 26, 2, 59, 59, fold=0)), 3600, BERLIN)
@example(int(at(2026, 3, 29, 1, 59, 59)), 1, BERLIN)
def test_what_is_shown_is_read_back(past: int, ago: int, zone: ZoneInfo) -> None:
    now = float(past + ago)
    assert parse_instant(show_instant(past, now, zone), now, zone).at == past


@given(SECONDS, st.integers(0, 23), st.integers(0, 59), ZONES)
def test_a_bare_time_is_the_last_such_time(now: int, hour: int, minute: int, zone: ZoneInfo) -> None:
    found = parse_instant(f"{hour:02}:{minute:02}", float(now), zone)
    local = datetime.fromtimestamp(found.at, zone)
    assert (local.hour, local.minute, local.second) == (hour, minute, 0)
    assert 0 <= now - found.at < 2 * 86400 + 7200


@given(st.text(max_size=80), SECONDS)
def test_nothing_but_a_value_error_comes_of_any_text(text: str, now: int) -> None:
    try:
        at = parse_instant(text, float(now), BERLIN).at
    except ValueError as refused:
        at, text = 0.0, str(refused)
    assert 0 <= at <= now
    assert text.isprintable() or at
