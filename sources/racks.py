"""Where a node stands, and how that is known.

Tried in this order, node by node: the site's own table (CSV or configuration), its pattern, what a
source reports, what the names give away, and last a grouping that at least keeps neighbours together.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from coldaisle.sources.errors import ConfigError
from coldaisle.sources.nodesets import MAX_NODES, expand, fold
from coldaisle.sources.text import is_address, natural_key

LEARNT = "learnt from names"
GROUPED = "no rack known: grouped by name"
GROUP_SIZE = 8
"""Nodes of a group where no rack is known."""
MAX_TABLE_BYTES = 16_000_000
_MAX_NAME = 64
"""Characters of a node name that a pattern is tried on: a user's regular expression may be slow."""
_COLUMNS = ("host", "rack", "u", "pdu")
_HOST_WORDS = ("host", "node", "name", "hostname")


class Placement(NamedTuple):
    """A node's place."""

    rack: str
    how: str
    """``racks.csv``, ``pattern``, ``simulator``, LEARNT or GROUPED."""
    u: int | None = None
    """Rack unit, counted from below."""
    pdu: str | None = None


@dataclass(frozen=True, slots=True)
class RackRules:
    """What the site says about its racks."""

    table: Mapping[str, Placement] = field(default_factory=dict)
    """By node name, as written."""
    pattern: re.Pattern[str] | None = None
    """Searched in the short name; its group ``rack`` is the rack."""


class _Template(NamedTuple):
    """A way in which sites name nodes by rack."""

    pattern: re.Pattern[str]
    smallest: int
    """Nodes that an ordinary rack must have before the names are believed."""


_TEMPLATES = (
    # HPE Cray xname: cabinet, chassis, slot, board, node
    _Template(re.compile(r"(?P<rack>x\d+)c\d+s\d+b\d+n\d+", re.ASCII), 1),
    # SGI/HPE ICE: rack, IRU, node
    _Template(re.compile(r"(?P<rack>r\d+)i\d+n\d+", re.ASCII), 1),
    # rack02-node07, r02n07, atlas-r02-7, cab3c4
    _Template(
        re.compile(
            r"(?P<rack>(?:.*[^a-z])?(?:rack|cab|rk|r)[-_]?\d+)(?:[-_]?[a-z]+[-_]?|[-_])\d+",
            re.ASCII | re.IGNORECASE,
        ),
        1,
    ),
    # gpu-20-15, a01u12, sh02-01n45: the last number is the slot, what stands before it ends in a number
    _Template(re.compile(r"(?P<rack>.*[a-z].*\d)(?:[-_]?[a-z]+[-_]?|[-_])\d+", re.ASCII | re.IGNORECASE), 2),
)
_NUMBER = re.compile(r"[0-9]+")
_RACK_WORD = re.compile(r"(?:.*[^a-z])?(?:rack|cab|rk|r)[-_]?\d+[a-z]?", re.ASCII | re.IGNORECASE)
_NOT_A_RACK = re.compile(
    # GPU models (dgx-h100-01), cloud addresses (ip-10-0-3-17)
    r"(?:.*[^a-z])?(?:[abhlptv]|gb|gh|mi|rtx|mig)(?:4|10|16|20|30|40|100|200|210|250|300|325|350|355|800)[a-z]*"
    r"|ip-\d+-\d+-\d+",
    re.ASCII | re.IGNORECASE,
)


def place(
    nodes: Sequence[str],
    rules: RackRules = RackRules(),
    reported: Mapping[str, tuple[str, str]] | None = None,
) -> dict[str, Placement]:
    """A place for every node, in reading order: racks, then the nodes in each, both in natural order.

    ``reported`` has what sources say: node -> (rack, how they know it).
    """
    table = {short_name(name): placement for name, placement in rules.table.items()} | dict(rules.table)
    places: dict[str, Placement] = {}
    for node in nodes:
        placement = table.get(node) or table.get(short_name(node)) or _by_pattern(node, rules.pattern)
        if placement is None and reported and node in reported:
            placement = Placement(*reported[node])
        if placement is not None:
            places[node] = placement
    places |= learn([node for node in nodes if node not in places])
    places |= group([node for node in nodes if node not in places])
    order = sorted(places, key=lambda node: (natural_key(places[node].rack), natural_key(node)))
    return {node: places[node] for node in order}


def short_name(node: str) -> str:
    """A host name without its domain; an address stays whole."""
    return node if is_address(node) else node.partition(".")[0]


def learn(nodes: Iterable[str]) -> dict[str, Placement]:
    """Racks from the names alone, where these agree: two racks or more, alike in size, for most nodes."""
    names = {node: short_name(node) for node in nodes if not is_address(node)}
    for template in _TEMPLATES:
        racks = {node: rack for node, name in names.items() if (rack := _rack_in(name, template.pattern))}
        if len(racks) >= 0.8 * len(names) and _credible(racks.values(), template.smallest):
            return {node: Placement(rack, LEARNT) for node, rack in racks.items()}
    return {}


def looks_like_racks(values: Iterable[str]) -> bool:
    """Whether a label's values, one a node, name racks: named so (``rack-12``, ``r07``, ``cab3``), and alike in size."""
    values = list(values)
    return all(_RACK_WORD.fullmatch(value[:_MAX_NAME]) for value in values) and _credible(values, 1)


def group(nodes: Iterable[str]) -> dict[str, Placement]:
    """Neighbours together, where no rack is known: nodes of like names by eights, as ``n[001-008]``."""
    series: dict[str, list[str]] = defaultdict(list)
    for node in sorted(nodes, key=natural_key):
        series[_stem(node)].append(node)
    # ``login.a`` and ``login.b`` are alike and have no number
    numbered = [
        members for members in series.values() if len(members) > 1 and _NUMBER.search(short_name(members[0]))
    ]
    in_series = {node for members in numbered for node in members}
    chunks = _chunks([node for members in series.values() for node in members if node not in in_series])
    for members in numbered:
        chunks += _numbered_chunks(members)
    return {
        node: Placement(name, GROUPED) for chunk in chunks for name in [_group_name(chunk)] for node in chunk
    }


def compile_pattern(pattern: str, *, file: Path | None = None, line: int | None = None) -> re.Pattern[str]:
    """The site's pattern; ConfigError if it is none or has no group ``rack``."""
    remedy = r"write a regular expression with a group named rack, as in '(?P<rack>r\d+)n\d+'"
    try:
        compiled = re.compile(pattern)
    except (re.error, OverflowError, RecursionError) as error:
        raise ConfigError(
            f"the rack pattern is not a regular expression: {error}", remedy, file=file, line=line
        ) from None
    if "rack" not in compiled.groupindex:
        raise ConfigError("the rack pattern has no group named rack", remedy, file=file, line=line)
    return compiled


def read_table(path: Path) -> dict[str, Placement]:
    """A CSV file ``host,rack[,u,pdu]``, with or without a header; ``host`` may be a node set.

    Raises ConfigError with the line of the first mistake.
    """
    table: dict[str, Placement] = {}
    lines: dict[str, int] = {}
    columns: Mapping[str, int] = {name: place for place, name in enumerate(_COLUMNS)}
    first = True
    for line, row in _rows(path):
        if first and (header := _header(row)):
            columns = header
        else:
            hosts, placement = _read_row(row, columns, path, line)
            for host in hosts:
                if host in table and table[host].rack != placement.rack:
                    raise ConfigError(
                        f"{host} stands in rack {placement.rack}, and in {table[host].rack} on line {lines[host]}",
                        "keep one of them",
                        file=path,
                        line=line,
                    )
                table[host], lines[host] = placement, line
            if len(table) > MAX_NODES:
                raise ConfigError(
                    f"more than {MAX_NODES:,} nodes", "is this the table?", file=path, line=line
                )
        first = False
    return table


def table_from(racks: Mapping[str, Sequence[str]], how: str) -> dict[str, Placement]:
    """The same from a map of racks to their nodes."""
    return {node: Placement(rack, how) for rack, nodes in racks.items() for node in nodes}


def _rows(path: Path) -> list[tuple[int, list[str]]]:
    import csv

    try:
        with path.open("rb") as file:
            raw = file.read(MAX_TABLE_BYTES + 1)
        text = raw.decode("utf-8-sig")
    except OSError as error:
        raise ConfigError(
            f"cannot read the rack table: {error.strerror}", "check the path and its permissions", file=path
        ) from None
    except UnicodeDecodeError:
        raise ConfigError("the rack table is not UTF-8 text", "save it as UTF-8 CSV", file=path) from None
    if len(raw) > MAX_TABLE_BYTES:
        raise ConfigError(
            "the rack table is larger than 16 MB", "use node sets in the host column", file=path
        )
    reader = csv.reader(text.splitlines(), skipinitialspace=True)
    try:
        rows = [(reader.line_num, [cell.strip() for cell in row]) for row in reader]
    except csv.Error as error:
        raise ConfigError(
            f"not CSV: {error}", "write lines such as: r01n[01-04],r01", file=path, line=reader.line_num
        ) from None
    return [(line, row) for line, row in rows if any(row) and not row[0].startswith("#")]


def _header(row: Sequence[str]) -> dict[str, int] | None:
    names = ["host" if name.lower() in _HOST_WORDS else name.lower() for name in row]
    return (
        {name: names.index(name) for name in _COLUMNS if name in names}
        if {"host", "rack"} <= set(names)
        else None
    )


def _read_row(
    row: Sequence[str], columns: Mapping[str, int], path: Path, line: int
) -> tuple[tuple[str, ...], Placement]:
    cells = {name: row[place] for name, place in columns.items() if place < len(row) and row[place]}
    try:
        hosts = expand(cells.get("host", ""))
    except ValueError as error:
        remedy = 'write lines such as: r01n[01-04],r01 (quote a set that holds a comma: "n[1,3]",r01)'
        raise ConfigError(f"the host column: {error}", remedy, file=path, line=line) from None
    if "rack" not in cells:
        raise ConfigError(
            "no rack in this line", "write lines such as: r01n[01-04],r01", file=path, line=line
        )
    if not cells.get("u", "0").isdecimal():
        raise ConfigError(
            f"the u column is not a number: {cells['u'][:40]!r}",
            "write the rack unit, as in 12",
            file=path,
            line=line,
        )
    u = int(cells["u"][:6]) if "u" in cells else None
    return hosts, Placement(cells["rack"], path.name, u, cells.get("pdu"))


def _by_pattern(node: str, pattern: re.Pattern[str] | None) -> Placement | None:
    match = pattern.search(short_name(node)[:_MAX_NAME]) if pattern else None
    return Placement(match["rack"], "pattern") if match and match["rack"] else None


def _rack_in(name: str, pattern: re.Pattern[str]) -> str | None:
    match = pattern.fullmatch(name[:_MAX_NAME])
    return None if match is None or _NOT_A_RACK.fullmatch(match["rack"]) else match["rack"]


def _credible(racks: Iterable[str], smallest: int) -> bool:
    sizes: dict[str, int] = defaultdict(int)
    for rack in racks:
        sizes[rack] += 1
    if len(sizes) < 2:
        return False
    usual = sorted(sizes.values())[len(sizes) // 2]
    alike = sum(usual / 2 <= size <= 2 * usual for size in sizes.values())
    return usual >= smallest and alike >= 0.75 * len(sizes) and max(sizes.values()) <= 4 * usual


def _stem(node: str) -> str:
    """``gpu-n001.site`` -> ``gpu-n``; the whole name where it has no number."""
    name = short_name(node)
    found = list(_NUMBER.finditer(name))
    return f"{name[: found[-1].start()]}#{name[found[-1].end() :]}" if found else name


def _number(node: str) -> int:
    return int(_NUMBER.findall(short_name(node))[-1][-18:])


def _chunks(nodes: Sequence[str]) -> list[list[str]]:
    return [list(nodes[at : at + GROUP_SIZE]) for at in range(0, len(nodes), GROUP_SIZE)]


def _numbered_chunks(nodes: Sequence[str]) -> list[list[str]]:
    """Chunks that begin at 1, 9, 17, ...: a node that joins later moves no other; plain ones where numbers are sparse."""
    numbers = {node: _number(node) for node in nodes}
    first = min(1, *numbers.values())
    aligned: dict[int, list[str]] = defaultdict(list)
    for node, number in numbers.items():
        aligned[(number - first) // GROUP_SIZE].append(node)
    plain = _chunks(nodes)
    return list(aligned.values()) if len(aligned) <= max(1.5 * len(plain), len(plain) + 1) else plain


def _group_name(nodes: Sequence[str]) -> str:
    names = [short_name(node) for node in nodes]
    folded = fold(names if len(set(names)) == len(names) else nodes)
    return folded if len(folded) <= 40 else f"{nodes[0]}..{nodes[-1]}"
