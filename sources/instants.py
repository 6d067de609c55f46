"""Instants as people type and read them: ``03:12``, ``yesterday 03:12 UTC``, ``2026-03-01T03:12:00Z``, ``2h ago``; and as programs write
them: seconds since the epoch, with or without ``@``.

Pure: now and the zone are given. ``zone`` is a tzinfo, or None for the zone of this machine.

A time without a date is the last such time. Where clocks are set back a time comes twice: the later one is
meant unless the zone is written (``02:30 CEST``); where they are set forward some times do not exist.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta, timezone, tzinfo
from typing import NamedTuple

from coldaisle.sources.units import age, parse

ACCEPTED = (
    "03:12, yesterday 03:12, 2026-03-01 03:12, 2026-03-01T03:12:00Z, 03:12 UTC, 2h ago, -90m or @1772334720"
)
LONGEST = 64
"""Characters of an instant that are looked at."""

_TIME = re.compile(
    r"(?:(?P<day>today|yesterday|[0-9]{4}-[0-9]{1,2}-[0-9]{1,2})(?:\s+|[Tt](?=[0-9])))?"
    r"(?P<hour>[0-9]{1,2}):(?P<minute>[0-9]{2})(?::(?P<second>[0-9]{2})(?P<part>[.,][0-9]{1,9})?)?"
    r"(?:\s*(?P<zone>[Zz]|[+-][0-9]{2}(?::?[0-9]{2})?)|\s+(?P<name>[A-Za-z][A-Za-z0-9_+/-]{0,31}))?",
    re.ASCII | re.IGNORECASE,
)
_AGO = re.compile(r"-\s*(?P<minus>[0-9].*)|(?P<ago>[0-9].*?)\s*ago", re.ASCII | re.IGNORECASE)
_EPOCH = re.compile(r"@?(?P<seconds>[0-9]{9,11}(?:\.[0-9]{1,9})?)", re.ASCII)
_OFFSET = re.compile(r"([+-])([0-9]{2}):?([0-9]{2})?", re.ASCII)
_UTC_NAMES = frozenset({"z", "utc", "gmt"})


class Instant(NamedTuple):
    """Seconds since the epoch, and what there was to decide."""

    at: float
    note: str = ""
    """That the time came twice, or not at all on the last day; empty: nothing to say."""


class _Read(NamedTuple):
    """What was typed, before it is known which day is meant."""

    day: str
    hour: int
    minute: int
    second: float
    zone: tzinfo | None
    name: str
    """An abbreviation of the local zone (``CEST``) that tells two equal times apart; empty: none."""


def parse_instant(text: str, now: float, zone: tzinfo | None = None) -> Instant:
    """The instant that a person means; ValueError says what is wrong, or what is accepted."""
    words = text.strip()
    if not words or len(words) > LONGEST:
        raise ValueError(
            f"{_quoted(words)} is no instant: write {ACCEPTED}" if words else f"write {ACCEPTED}"
        )
    try:
        found = _ago(words, now) or _epoch(words) or _clock_time(words, now, zone)
    except (OverflowError, OSError):
        raise ValueError(f"{_quoted(words)} is beyond what clocks can tell") from None
    if found.at > now:
        raise ValueError(
            f"{_quoted(words)} is still to come, in {age(found.at - now)}: only the past can be shown"
        )
    if found.at < 0:
        raise ValueError(f"{_quoted(words)} is before 1970: nothing was measured then")
    return found


def show_instant(at: float, now: float, zone: tzinfo | None = None) -> str:
    """``03:12:41``, with the date unless it is today's, and the zone where the time came twice; parses to ``at``."""
    when, today = _local(at, zone), _local(now, zone).date()
    shown = f"{when:%H:%M:%S}" if when.date() == today else f"{when:%Y-%m-%d %H:%M:%S}"
    twice = _stamp(when, zone, 0) < _stamp(when, zone, 1)
    return f"{shown} {_zone_name(at, zone)}" if twice else shown


def show_span(start: float, end: float, zone: tzinfo | None = None) -> str:
    """``03:02-03:17``: from when to when, in minutes."""
    return f"{_local(start, zone):%H:%M}-{_local(end, zone):%H:%M}"


def _ago(words: str, now: float) -> Instant | None:
    match = _AGO.fullmatch(words)
    if match is None:
        return None
    return Instant(now - parse((match["minus"] or match["ago"]).strip(), "s"))


def _epoch(words: str) -> Instant | None:
    match = _EPOCH.fullmatch(words)
    return None if match is None else Instant(float(match["seconds"]))


def _clock_time(words: str, now: float, zone: tzinfo | None) -> Instant:
    match = _TIME.fullmatch(words)
    if match is None:
        raise ValueError(f"{_quoted(words)} is no instant: write {ACCEPTED}")
    read = _read(match, words)
    there = read.zone or zone
    today = _local(now, there).date()
    if not read.day:
        return _last(read, today, now, there)
    if read.day in ("today", "yesterday"):
        return _only(read, today - timedelta(days=read.day == "yesterday"), now, there)
    year, month, day = (int(part) for part in read.day.split("-"))
    try:
        found = date(year, month, day)
    except ValueError:
        raise ValueError(f"there is no {read.day}") from None
    return _only(read, found, now, there)


def _read(match: re.Match[str], words: str) -> _Read:
    hour, minute = int(match["hour"]), int(match["minute"])
    second = float((match["second"] or "0") + (match["part"] or "").replace(",", "."))
    if hour > 23 or minute > 59 or second >= 60:
        raise ValueError(f"{_quoted(words)}: a day has 24 hours of 60 minutes")
    name = match["name"] or ""
    zone = _fixed_zone(match["zone"] or name, words) if match["zone"] or name.lower() in _UTC_NAMES else None
    return _Read((match["day"] or "").lower(), hour, minute, second, zone, "" if zone else name)


def _fixed_zone(text: str, words: str) -> tzinfo:
    match = _OFFSET.fullmatch(text)
    if match is None:
        return UTC
    offset = timedelta(hours=int(match[2]), minutes=int(match[3] or 0))
    if offset >= timedelta(hours=24) or int(match[3] or 0) > 59:
        raise ValueError(f"{_quoted(words)}: there is no zone {text}")
    return timezone(-offset if match[1] == "-" else offset)


def _last(read: _Read, today: date, now: float, zone: tzinfo | None) -> Instant:
    """The last such time: today's, or that of an earlier day where today's is to come or never was."""
    skipped = ""
    for back in range(3):
        day = today - timedelta(days=back)
        times = [time for time in _times(read, day, zone) if time <= now]
        if times:
            return Instant(times[-1], skipped or _twice(read, day, times[-1], zone))
        if not any(_times(read, day, zone)) and not skipped:
            skipped = f"{day} had no {_clock(read)}: the clocks were set forward; this is the day before"
    raise ValueError(_no_such_name(read, zone, now))


def _only(read: _Read, day: date, now: float, zone: tzinfo | None) -> Instant:
    """The time on that day and no other."""
    times = list(_times(read, day, zone))
    if not times:
        if read.name and list(_times(read._replace(name=""), day, zone)):
            raise ValueError(_no_such_name(read, zone, now))
        raise ValueError(
            f"{day} has no {_clock(read)}: the clocks were set forward over it; write the zone, as in UTC"
        )
    known = [time for time in times if time <= now] or times
    return Instant(known[-1], _twice(read, day, known[-1], zone))


def _times(read: _Read, day: date, zone: tzinfo | None) -> Iterator[float]:
    """When a day's clock shows the time: once, twice (the earlier first) or never; of a named zone only its own."""
    whole = int(read.second)
    when = datetime(day.year, day.month, day.day, read.hour, read.minute, whole)
    first, second = _stamp(when, zone, 0), _stamp(when, zone, 1)
    for at in (first, second) if first < second else (first,) if first == second else ():
        if not read.name or _zone_name(at, zone).lower() == read.name.lower():
            yield at + read.second - whole


def _twice(read: _Read, day: date, at: float, zone: tzinfo | None) -> str:
    if read.name or len(list(_times(read, day, zone))) < 2:
        return ""
    return f"{day} had {_clock(read)} twice: this is the one in {_zone_name(at, zone)}"


def _no_such_name(read: _Read, zone: tzinfo | None, now: float) -> str:
    here = _zone_name(now, zone)
    return f"{read.name} is not the zone here ({here}): write UTC, +01:00, or leave it out"


def _clock(read: _Read) -> str:
    return f"{read.hour:02}:{read.minute:02}"


def _local(at: float, zone: tzinfo | None) -> datetime:
    return datetime.fromtimestamp(math.floor(at), zone)


def _stamp(when: datetime, zone: tzinfo | None, fold: int) -> float:
    return when.replace(tzinfo=zone, fold=fold).timestamp()


def _zone_name(at: float, zone: tzinfo | None) -> str:
    local = _local(at, zone)
    return (local if zone is not None else local.astimezone()).tzname() or ""


def _quoted(text: str) -> str:
    return repr(text if len(text) <= 30 else text[:29] + "…")
