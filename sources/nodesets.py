"""Node sets as Slurm and ClusterShell write them: ``r[01-16]n[01-04]``, read with a bound and folded back."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from itertools import product

MAX_NODES = 100_000
"""Names that one node set may stand for."""
MAX_LENGTH = 1_000_000
"""Characters of a written node set."""

_BRACKETS = re.compile(r"\[([^\[\]]*)\]")
_RANGE = re.compile(r"([0-9]{1,15})(?:-([0-9]{1,15})(?:/([1-9][0-9]{0,8}))?)?", re.ASCII)
_FOLDS = re.compile(r"[A-Za-z0-9_.:/-]{1,255}", re.ASCII)
"""Names without a character that means something in a node set."""
_OPERATORS = re.compile(r"[\s,!&^]+")


def expand(text: str) -> tuple[str, ...]:
    """The names a node set stands for, each once, in its own order; ValueError says what is wrong.

    The size is checked before anything is expanded: ``n[1-99999999]`` costs nothing. Groups
    (``@rack1``) are refused: ClusterShell would run the commands its own configuration names.
    """
    text = text.strip()
    if not text or len(text) > MAX_LENGTH or not text.isprintable():
        raise ValueError("a node set is text such as n[01-16] or a,b,c")
    if not any(char in text for char in "[]@!&^ "):
        return _plain_list(text)
    if "@" in text and any(part.startswith("@") for part in _OPERATORS.split(text)):
        raise ValueError("node groups (@name) are not read: write the nodes, n[01-16]")
    if (size := _size(text)) > MAX_NODES:
        raise ValueError(f"it stands for {_count(size)} nodes, more than {MAX_NODES:,}: write a smaller set")
    return _expanded(text)


def expand_url(text: str) -> tuple[str, ...]:
    """The same for an address: ``http://ipmi1:9290/ipmi?target=n[01-16]-bmc&module=x``, whose ``&`` is no operator."""
    parts = [expand(part) if "[" in part else (part,) for part in text.split("&")]
    if math.prod(map(len, parts)) > MAX_NODES:
        raise ValueError(f"it stands for more than {MAX_NODES:,} addresses: write smaller sets")
    return tuple(map("&".join, product(*parts)))


def expand_all(sets: Iterable[str], at_most: int = MAX_NODES) -> tuple[str, ...]:
    """Several node sets together, each name once; the bound is for all of them."""
    names: dict[str, None] = {}
    for text in sets:
        names.update(dict.fromkeys(expand(text)))
        if len(names) > at_most:
            raise ValueError(f"together they stand for more than {at_most:,} nodes")
    return tuple(names)


def fold(names: Iterable[str]) -> str:
    """Names as one node set: ``n001 n002 n003 x`` -> ``n[001-003],x``; odd names stand at its end as they are."""
    from ClusterShell.NodeSet import RESOLVER_NOGROUP, NodeSet

    names = list(names)
    folded = str(NodeSet.fromlist(filter(_FOLDS.fullmatch, names), resolver=RESOLVER_NOGROUP))
    return ",".join(filter(None, [folded, *(name for name in names if not _FOLDS.fullmatch(name))]))


def _plain_list(text: str) -> tuple[str, ...]:
    names = text.split(",")
    if "" in names:
        raise ValueError(f"a name is missing beside a comma in {text[:60]!r}")
    if len(names) > MAX_NODES:
        raise ValueError(f"it lists {_count(len(names))} nodes, more than {MAX_NODES:,}")
    return tuple(dict.fromkeys(names))


def _expanded(text: str) -> tuple[str, ...]:
    from ClusterShell.NodeSet import RESOLVER_NOGROUP, NodeSet, NodeSetException

    try:
        names = tuple(NodeSet(text, resolver=RESOLVER_NOGROUP))
    except NodeSetException as error:
        raise ValueError(f"not a node set: {error}") from None
    if not names:
        raise ValueError(f"the node set {text[:60]!r} holds no node")
    return names


def _size(text: str) -> int:
    """An upper bound of how many names it stands for; ValueError for a range that is none."""
    outside = _BRACKETS.sub(lambda match: f"[{_range_size(match[1])}]", text)
    total = 0
    for operand in _OPERATORS.split(outside):
        sizes = [int(size) for size in _BRACKETS.findall(operand)]
        if operand.count("[") != len(sizes) or operand.count("]") != len(sizes):
            raise ValueError(f"a bracket is missing in {text[:60]!r}")
        total += math.prod(sizes)
    return total


def _range_size(text: str) -> int:
    """How many numbers ``01-16,20`` stands for; whatever ClusterShell might read otherwise is refused here."""
    total = 0
    for part in text.split(","):
        match = _RANGE.fullmatch(part)
        if match is None or int(match[2] or match[1]) < int(match[1]):
            raise ValueError(f"{part[:40]!r} in brackets is not a range: write 01-16")
        total += (int(match[2] or match[1]) - int(match[1])) // int(match[3] or 1) + 1
    return total


def _count(size: int) -> str:
    return f"{size:,}" if size < 10**15 else "too many"
