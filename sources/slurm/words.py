"""Slurm's small languages: GRES and TRES strings, node states, numbers, times. Pure.

What cannot be read is None or left out, never 0.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from typing import NamedTuple

from coldaisle.sources.nodesets import expand
from coldaisle.sources.source import Gres

MAX_INDEX = 1024
"""Boards, instances or shares of a node that are told apart."""
_NOTHING = ("", "(null)", "N/A", "n/a", "n/s", "None", "NONE", "Unknown", "UNKNOWN", "NULL")
_MIB = 1024 * 1024
_SIZE = re.compile(r"([0-9]{1,15}(?:\.[0-9]+)?)([KMGTP]?)(?:i?B)?", re.ASCII)
_POWERS = {"K": 1024, "M": _MIB, "": _MIB, "G": 1024 * _MIB, "T": _MIB * _MIB, "P": 1024 * _MIB * _MIB}
_TRES = re.compile(r"(?:^|,)([A-Za-z_/]+(?::[^=,:]+)*)=([0-9][0-9.]*[KMGTP]?)", re.ASCII)
_ASKED = re.compile(
    r"(?:^|,)\s*(?:gres[:/])?(?P<name>[A-Za-z_][\w.-]*)(?:[:/](?P<type>(?![0-9]+(?:[,(=]|$))[\w.+-]+))?(?:[:=](?P<number>[0-9]{1,9}))?",
    re.ASCII,
)
_DURATION = re.compile(
    r"(?:([0-9]{1,9})-)?([0-9]{1,9})(?::([0-9]{1,2}))?(?::([0-9]{1,2}))?(?:\.[0-9]+)?", re.ASCII
)


class Held(NamedTuple):
    """GRES of one name and type that a job has on a node, or that all jobs have there."""

    name: str
    type: str
    number: int
    indices: tuple[int, ...] | None
    """Slurm's numbers of them; of shares, of the boards they are of. None: it does not say."""


def parts(text: str) -> Iterator[str]:
    """Between commas that stand outside brackets of any kind."""
    depth = start = 0
    for at, char in enumerate(text):
        if char in "([":
            depth += 1
        elif char in ")]":
            depth = max(0, depth - 1)
        elif char == "," and not depth:
            yield text[start:at]
            start = at + 1
    if start < len(text):
        yield text[start:]


@lru_cache(maxsize=4096)
def configured_gres(text: str | None) -> tuple[Gres, ...]:
    """``gpu:h100:8(S:0-1),tmp:1860G`` → what a node has. Nothing for what has no plain count."""
    if not is_given(text):
        return ()
    found = (_named(part) for part in parts(text or ""))
    return tuple(Gres(name, type_, number) for name, type_, number in filter(None, found))


@lru_cache(maxsize=16_384)
def held_gres(text: str | None) -> tuple[Held, ...]:
    """``gpu:h100:2(IDX:0-1),shard:l40:3(1/8,2/8)`` → what is given away; of 0 nothing."""
    if not is_given(text):
        return ()
    found = []
    for part in parts(text or ""):
        named = _named(part)
        if named is not None and named[2]:
            found.append(Held(*named, _indices(part)))
    return tuple(found)


def _named(part: str) -> tuple[str, str, int] | None:
    """``gpu:h100:8(...)`` → name, type, number."""
    bare = part.partition("(")[0].strip().removeprefix("gres/").removeprefix("gres:")
    name, *rest = bare.split(":")
    if not name:
        return None
    if not rest:
        return name, "", 1
    number = _amount(rest[-1])
    if number is None:
        return None
    return name, ":".join(rest[:-1]), number


def _amount(text: str) -> int | None:
    """``8``, ``1K``; a size (``1860G``) is a number like any other."""
    match = re.fullmatch(r"([0-9]{1,12})([KMGT]?)", text, re.ASCII)
    return (
        int(match[1]) * {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}[match[2]]
        if match
        else None
    )


def _indices(part: str) -> tuple[int, ...] | None:
    """``(IDX:0-1,5)``; of shares in newer releases ``(2/8,0/8)``: how many of each board's."""
    inside = part.partition("(")[2].rpartition(")")[0]
    if inside.startswith("IDX:"):
        return ranges(inside[4:])
    shares = re.findall(r"([0-9]+)/[0-9]+", inside)
    if shares and "/" in inside:
        return tuple(board for board, used in enumerate(shares[:MAX_INDEX]) if int(used))
    return None


def ranges(text: str) -> tuple[int, ...] | None:
    """``0-1,5`` → (0, 1, 5); None where it is none, or names more than there can be."""
    numbers: list[int] = []
    for part in text.split(","):
        first, _, last = part.partition("-")
        if not (first.isascii() and first.isdigit() and (not last or (last.isascii() and last.isdigit()))):
            return None
        low, high = int(first[:9]), int((last or first)[:9])
        if high >= MAX_INDEX or high < low:
            return None
        numbers.extend(range(low, high + 1))
    return tuple(numbers)


@lru_cache(maxsize=16_384)
def tres(text: str | None) -> dict[str, float]:
    """``cpu=48,mem=240G,gres/gpu=8,gres/gpu:h100=8`` → numbers; ``mem`` in bytes. Do not change it: it is remembered."""
    found: dict[str, float] = {}
    if not is_given(text):
        return found
    for name, value in _TRES.findall(text or ""):
        number = size(value) if name == "mem" else _plain(value)
        if number is not None:
            found[name] = number
    return found


def gpus_of(counts: dict[str, float]) -> int | None:
    """Of a TRES string's numbers: the untyped count, else the sum of typed ones; None: it does not count GPUs."""
    if "gres/gpu" in counts:
        return int(counts["gres/gpu"])
    typed = [number for name, number in counts.items() if name.startswith("gres/gpu:")]
    return int(sum(typed)) if typed else None


@lru_cache(maxsize=16_384)
def asked(text: str | None, name: str = "gpu") -> int:
    """``gres/gpu:h100:4``, ``gres:gpu:2``, ``gpu``: how many of it a job asks for, per whatever the field says."""
    if not is_given(text):
        return 0
    return sum(int(one["number"] or 1) for one in _ASKED.finditer(text or "") if one["name"] == name)


def size(text: str | None) -> int | None:
    """``62.50G`` → bytes; a bare number counts MiB, as Slurm does."""
    match = _SIZE.fullmatch(text or "")
    return int(float(match[1]) * _POWERS[match[2]]) if match else None


def _plain(text: str) -> float | None:
    match = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)([KMGTP]?)", text)
    return (
        float(match[1]) * {"": 1.0, "K": 1e3, "M": 1e6, "G": 1e9, "T": 1e12, "P": 1e15}[match[2]]
        if match
        else None
    )


def is_given(text: str | None) -> bool:
    """Whether it is more than one of Slurm's many words for nothing."""
    return text is not None and text not in _NOTHING


def given(text: str | None) -> str | None:
    """The text, or None for one of Slurm's words for nothing."""
    return text if is_given(text) else None


def instant(text: str | None) -> float | None:
    """``1795680556``, or ``2026-11-26T08:09:16`` (in the local zone of whoever wrote it) → seconds since the epoch."""
    if not is_given(text):
        return None
    assert text is not None
    if text.isascii() and text.isdigit():
        return moment(int(text[:12]))
    import time

    try:
        return moment(time.mktime(time.strptime(text[:19], "%Y-%m-%dT%H:%M:%S")))
    except (ValueError, OverflowError):
        return None


def moment(number: float | None) -> float | None:
    """A time as Slurm's numbers give it: 0 and what lies beyond all calendars are none."""
    if number is None or not math.isfinite(number) or not 0 < number < 4_000_000_000:
        return None
    return float(number)


def duration(text: str | None) -> float | None:
    """``2-00:00:00``, ``1:30:00``, ``30:00`` or minutes alone → seconds; None for UNLIMITED and the like."""
    match = _DURATION.fullmatch(text or "")
    if match is None:
        return None
    days, *rest = match.groups()
    numbers = [int(part) for part in rest if part is not None]
    if days is not None:
        hours, minutes, seconds = (*numbers, 0, 0)[:3]
        return float(int(days) * 86400 + hours * 3600 + minutes * 60 + seconds)
    if len(numbers) == 1:
        return numbers[0] * 60.0
    hours, minutes, seconds = numbers if len(numbers) == 3 else (0, *numbers)
    return float(hours * 3600 + minutes * 60 + seconds)


@lru_cache(maxsize=16_384)
def hosts(text: str | None) -> tuple[str, ...]:
    """The names of a hostlist; none for what is none, or stands for more than the nodes a cluster can have."""
    if not is_given(text):
        return ()
    try:
        return expand(text or "")
    except ValueError:
        return ()


def tasks(text: str | None) -> int:
    """``2-9%2`` → 8 tasks of an array that wait together; 1 where it is no such thing, or is cut off (``...``)."""
    if not is_given(text):
        return 1
    total = 0
    for part in (text or "").partition("%")[0].split(","):
        match = re.fullmatch(r"([0-9]{1,9})(?:-([0-9]{1,9})(?::([0-9]{1,9}))?)?", part.strip(), re.ASCII)
        if match:
            total += max(0, int(match[2] or match[1]) - int(match[1])) // max(1, int(match[3] or 1)) + 1
    return max(1, min(total, 10_000_000))


# --- states ---------------------------------------------------------------------------------------

_BASES = {
    "idle": "idle",
    "mixed": "mix",
    "allocated": "alloc",
    "down": "down",
    "error": "down",
    "future": "future",
}
_FIRST = (
    ("down", ("down", "error")),
    ("drain", ("drain", "drained", "draining")),
    ("fail", ("fail", "failing")),
    ("maint", ("maintenance", "maint")),
    ("inval", ("invalid_reg", "invalid", "inval")),
    ("reboot", ("reboot_issued", "reboot_requested", "reboot")),
    ("off", ("powered_down", "powering_down", "power_down", "poweroff", "powerdown", "power_drain")),
    ("boot", ("powering_up", "powered_up_again", "power_up", "powerup")),
)
"""What matters most of a node's words, and the word for it."""
_SUFFIXES = {
    "*": "not_responding", "~": "powered_down", "#": "powering_up", "%": "powering_down", "$": "maintenance",
    "@": "reboot_issued", "^": "reboot_requested", "!": "power_down", "-": "planned",
}  # fmt: skip
_WAITS = ("PENDING", "REQUEUED", "REQUEUE_HOLD", "REQUEUE_FED", "SPECIAL_EXIT", "RESV_DEL_HOLD")
_RUNS = ("RUNNING", "SUSPENDED", "COMPLETING", "CONFIGURING", "RESIZING", "SIGNALING", "STAGE_OUT", "STOPPED")
PENDING, COMPLETING = "PENDING", "COMPLETING"


def node_state(words: Iterable[str]) -> tuple[str, tuple[str, ...]]:
    """(the one word that says most, all of them in lower case) of a node: base state and flags in any order."""
    flags = tuple(dict.fromkeys(word.strip().lower() for word in words if word.strip()))
    for word, causes in _FIRST:
        if any(flag in causes for flag in flags):
            return word, flags
    base = next((_BASES[flag] for flag in flags if flag in _BASES), "")
    if base == "idle" and "completing" in flags:
        return "comp", flags
    if base == "idle" and "reserved" in flags:
        return "resv", flags
    return base or (flags[0] if flags else "unknown"), flags


def node_words(text: str) -> list[str]:
    """``IDLE+DRAIN+NOT_RESPONDING`` of scontrol, ``mixed*`` of sinfo → words."""
    words = []
    for part in text.split("+"):
        bare = part.rstrip("".join(_SUFFIXES))
        words += [bare, *(_SUFFIXES[char] for char in part[len(bare) :])]
    return words


def job_state(words: Sequence[str]) -> tuple[str, bool, bool]:
    """(the word that says most, whether it waits, whether it holds its nodes) of a job's states and flags."""
    upper = [word.strip().upper().partition(" ")[0] for word in words] or ["UNKNOWN"]
    if any(word in _WAITS for word in upper):
        return PENDING, True, False
    running = [word for word in _RUNS if word in upper]
    if running:
        # what hinders it says more than that it runs
        return (next((word for word in running if word != "RUNNING"), running[0])), False, True
    return upper[0], False, False
