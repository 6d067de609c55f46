"""How a filter that is being typed can go on: fields, then what the field holds now."""

from __future__ import annotations

import re
from typing import NamedTuple

from coldaisle.analyzers.fields import Entity, find, names
from coldaisle.analyzers.selection import values
from coldaisle.analyzers.snapshot import Snapshot
from coldaisle.sources.text import natural_key

MOST = 50
"""Ways to go on that are offered."""

_VALUE = re.compile(r"([A-Za-z_][A-Za-z0-9_.]*)\s*(==|!=|=)\s*(\"(?:[^\"\\]|\\.)*|[^\s&|()<>=\"']*)$")
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.]*$")
_BEGINS = re.compile(r"(?:^|[\s&|(!])$(?<![<>=~])(?<![<>=~]\s)")
"""After this a field may begin; after a comparison a value does."""
_BARE = re.compile(r"[A-Za-z0-9_.:/@+-]+")


class Completion(NamedTuple):
    """Ways to go on from a place in a filter."""

    start: int
    """Where what they replace begins."""
    options: tuple[str, ...]


def complete(typed: str, row: Entity, snapshot: Snapshot) -> Completion:
    """What may stand in place of the end of ``typed``; the likeliest first."""
    if (found := _VALUE.search(typed)) is not None:
        return Completion(found.start(3), _values(found[1], found[3].lstrip('"'), row, snapshot))
    found = _NAME.search(typed)
    start = found.start() if found else len(typed)
    if not _BEGINS.search(typed[:start]):
        return Completion(len(typed), ())
    return Completion(start, _fields(typed[start:], row, snapshot))


def _fields(begun: str, row: Entity, snapshot: Snapshot) -> tuple[str, ...]:
    """Fields that begin so, then those that hold it; only metrics that somebody delivers."""
    wanted = begun.casefold()
    known = [name for name in names(row) if wanted in name and _is_there(name, row, snapshot)]
    # the shorter the likelier; of everything the order is the fields' own
    known.sort(key=lambda name: (not name.startswith(wanted), len(name)) if wanted else ())
    return tuple(known[:MOST])


def _is_there(name: str, row: Entity, snapshot: Snapshot) -> bool:
    return any(field.fact is not None or field.key in snapshot.columns for field in find(name, row))


def _values(name: str, begun: str, row: Entity, snapshot: Snapshot) -> tuple[str, ...]:
    fields = find(name, row)
    if not fields or not fields[0].is_text:
        return ()
    wanted = begun.casefold()
    known = [text for text in values(fields[0], snapshot) if wanted in text.casefold() and text.isprintable()]
    known.sort(key=lambda text: (not text.casefold().startswith(wanted), natural_key(text)))
    return tuple(text if _BARE.fullmatch(text) and text != "-" else _quoted(text) for text in known[:MOST])


def _quoted(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
