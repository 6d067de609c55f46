"""The filter of the map: words that name hosts or racks, with wildcards, or as a node set."""

from __future__ import annotations

import re
from fnmatch import translate
from typing import TYPE_CHECKING

from coldaisle.sources.nodesets import expand

if TYPE_CHECKING:
    from coldaisle.sources.cluster import Layout
    from coldaisle.tui.cells import Flags


def matched(layout: Layout, text: str) -> Flags:
    """[gpu] whether its node or rack is meant by any word of ``text``; ValueError says what is wrong with it.

    A word is a part of a name (``r07``), a pattern (``*n03``) or a node set (``r[01-04]n02``). A word
    that is the whole name of a rack means that rack alone, not ``r010`` for ``r01``.
    """
    import numpy as np

    nodes = np.zeros(len(layout.nodes), dtype=bool)
    for word in text.split()[:32]:
        nodes |= np.array(_nodes(layout, word.casefold()), dtype=bool)
    return np.asarray(nodes[np.array([gpu.node for gpu in layout.gpus], dtype=np.intp)], dtype=bool)


def _nodes(layout: Layout, word: str) -> list[bool]:
    if "[" in word:
        named = frozenset(expand(word))
        return [any(name in named for name in names) for names in _names(layout)]
    if "*" in word or "?" in word:
        pattern = re.compile(translate(re.sub(r"\*+", "*", word[:200])))
        return [any(pattern.fullmatch(name) for name in names) for names in _names(layout)]
    racks = [rack.name.casefold() == word for rack in layout.racks]
    if any(racks):
        return [racks[node.rack] for node in layout.nodes]
    return [any(word in name for name in names) for names in _names(layout)]


def _names(layout: Layout) -> list[tuple[str, ...]]:
    """Of each node every name it goes by, its rack's among them, in lower case."""
    return [
        tuple(
            name.casefold()
            for name in (node.key, layout.racks[node.rack].name, node.hostname or "", *node.aliases)
            if name
        )
        for node in layout.nodes
    ]
