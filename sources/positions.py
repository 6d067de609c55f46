"""Where in a TOML file a setting stands: tomllib gives values without positions.

The file is known to be valid TOML when this reads it, so a scanner of headers and keys is enough.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator, Mapping
from typing import TypeAlias

Path: TypeAlias = tuple[str | int, ...]
"""``("source", 1, "hosts")``"""

_TOKEN = re.compile(
    r'"""(?:\\.|[^\\])*?"{3,5}|\'\'\'.*?\'{3,5}|"(?:\\.|[^"\\\n])*"|\'[^\'\n]*\'|#[^\n]*|[\[\]{}]|\n|[^"\'#\[\]{}\n]+',
    re.DOTALL,
)
_KEY = re.compile(
    r"""\s*((?:"(?:\\.|[^"\\])*"|'[^']*'|[A-Za-z0-9_-]+)(?:\s*\.\s*(?:"(?:\\.|[^"\\])*"|'[^']*'|[A-Za-z0-9_-]+))*)\s*="""
)
_HEADER = re.compile(r"\s*\[(\[)?\s*(.*?)\s*\]")


def line_of(text: str, path: Path) -> int | None:
    """The line (from 1) of a setting, or of the nearest table that encloses it; None for the whole file."""
    found = lines(text)
    for length in range(len(path), 0, -1):
        if (line := found.get(path[:length])) is not None:
            return line
    return None


def lines(text: str) -> Mapping[Path, int]:
    """Every table and key of a valid TOML file, with its line; arrays of tables are numbered from 0."""
    found: dict[Path, int] = {}
    counts: dict[Path, int] = {}
    table: Path = ()
    for line, statement in _statements(text):
        if header := _HEADER.match(statement):
            table = _table(_names(header[2]), bool(header[1]), counts)
            found.setdefault(table, line)
        elif key := _KEY.match(statement):
            path = table
            for name in _names(key[1]):
                path = (*path, name)
                found.setdefault(path, line)
    return found


def _table(names: tuple[str, ...], is_item: bool, counts: dict[Path, int]) -> Path:
    """The numbered path of a header: ``[[source]]`` the second time -> ("source", 1)."""
    path: Path = ()
    for place, name in enumerate(names):
        path = (*path, name)
        if is_item and place == len(names) - 1:
            counts[path] = counts.get(path, -1) + 1
        if path in counts:
            path = (*path, counts[path])
    return path


def _names(key: str) -> tuple[str, ...]:
    """The parts of a dotted, perhaps quoted key."""
    names: list[str] = []
    value: object = tomllib.loads(f"{key} = 0")
    while isinstance(value, dict):
        name, value = next(iter(value.items()))
        names.append(name)
    return tuple(names)


def _statements(text: str) -> Iterator[tuple[int, str]]:
    """Headers and key-value pairs, however many lines each takes, with the line of their first word."""
    line, start, depth = 1, 1, 0
    parts: list[str] = []
    for token in _TOKEN.findall(text.replace("\r\n", "\n") + "\n"):
        if token == "\n" and depth == 0:
            if statement := "".join(parts).strip():
                yield start, statement
            parts, start = [], line + 1
        elif not token.startswith("#"):
            depth += (token in "[{") - (token in "]}")
            parts.append(token)
        line += token.count("\n")
