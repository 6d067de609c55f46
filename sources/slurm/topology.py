"""The fabric as Slurm's configuration has it, and what of it says where nodes stand. Pure.

Three ways to write one thing: ``topology.conf`` (and ``scontrol show topology``, which prints the same words),
``topology.yaml`` (25.05), and the word ``topology`` of a node (v0.0.43). A block (an NVL72) is a rack; a leaf switch
is one only if the site wires so, which only the site knows: ``[racks] from = "slurm"`` says it.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from coldaisle.sources.racks import looks_like_racks
from coldaisle.sources.slurm import words
from coldaisle.sources.slurm.records import MAX_NODES, SlurmNode, Topology

MAX_TEXT = 16_000_000
MAX_LEVELS = 8
_CONF_LINE = re.compile(r"^\s*(SwitchName|BlockName|RingName)=(\S+)(.*)$", re.IGNORECASE)
_CONF_VALUE = re.compile(r"\b(Nodes|Switches)=(\S+)", re.IGNORECASE)
_YAML_LINE = re.compile(r"""^\s*(?:-\s*)?["']?([A-Za-z_]+)["']?\s*:\s*(.*?)\s*$""")
_RACK_IN_FEATURE = re.compile(r"(?:.*[^a-z])?(?P<rack>(?:rack|cab)[-_]?\d+)(?:[a-z].*)?", re.IGNORECASE)
_LEAF_FEATURE = re.compile(r"(?:.*[^a-z])?(?:ib|leaf|sw|switch|roce|tor)[-_]?\w*\d", re.IGNORECASE)


class _Branch(NamedTuple):
    nodes: tuple[str, ...]
    children: tuple[str, ...]


def read_conf(text: str, source: str = "topology.conf") -> Topology:
    """``SwitchName=leaf1 Nodes=n[1-4]``, ``SwitchName=spine Switches=leaf[1-2]``, ``BlockName=b1 Nodes=...``."""
    branches: dict[str, _Branch] = {}
    kind = "tree"
    for line in text[:MAX_TEXT].replace("\\\n", " ").split("\n"):
        found = _CONF_LINE.match(line.partition("#")[0])
        if found is None:
            continue
        kind = {"blockname": "block", "ringname": "ring"}.get(found[1].lower(), kind)
        values = {key.lower(): value for key, value in _CONF_VALUE.findall(found[3])}
        below = words.hosts(values.get("switches"))
        branches[found[2]] = _Branch(() if below else words.hosts(values.get("nodes")), below)
    return _topology(branches, source, kind)


def read_yaml(text: str) -> Topology:
    """The first topology of the file that is its cluster's default, else its first with switches or blocks.

    Only what this file can hold is understood: names with values, one to a line.
    """
    best: tuple[bool, dict[str, _Branch], str] | None = None
    for is_default, branches, kind in _yaml_topologies(text[:MAX_TEXT]):
        if branches and (best is None or (is_default and not best[0])):
            best = (is_default, branches, kind)
    return _topology(best[1], "topology.yaml", best[2]) if best else Topology({}, "topology.yaml")


def _yaml_topologies(text: str) -> Iterable[tuple[bool, dict[str, _Branch], str]]:
    branches: dict[str, _Branch] = {}
    is_default, kind, name = False, "tree", ""
    for line in text.split("\n"):
        found = _YAML_LINE.match(re.sub(r"(^|\s)#.*", "", line))
        if found is None:
            continue
        key, value = found[1].lower(), found[2].strip("\"'")
        if key == "topology":
            yield is_default, branches, kind
            branches, is_default, kind, name = {}, False, "tree", ""
        elif key == "cluster_default":
            is_default = value.lower() in ("true", "yes", "on")
        elif key in ("switch", "block", "ring") and value:
            kind, name = {"switch": "tree"}.get(key, key), value
            branches[name] = _Branch((), ())
        elif key == "children" and name:
            branches[name] = branches[name]._replace(children=words.hosts(value))
        elif key == "nodes" and name:
            branches[name] = branches[name]._replace(nodes=words.hosts(value))
    yield is_default, branches, kind


def from_nodes(nodes: Iterable[SlurmNode]) -> Topology:
    """From what the nodes' own words say: ``default:spine:leaf1,blocks:b1``; the first that names one counts."""
    switches = {}
    for node in nodes:
        for one in (node.topology or "").split(","):
            levels = [level for level in one.split(":")[1:] if level]
            if levels:
                switches[node.name] = tuple(reversed(levels[-MAX_LEVELS:]))
                break
    return Topology(switches, "scontrol show node")


def _topology(branches: Mapping[str, _Branch], source: str, kind: str) -> Topology:
    above = {child: name for name, branch in branches.items() for child in branch.children}
    switches: dict[str, tuple[str, ...]] = {}
    for name, branch in branches.items():
        if branch.nodes:
            path = _path(name, above)
            for node in branch.nodes:
                if len(switches) < MAX_NODES or node in switches:
                    switches.setdefault(node, path)
    return Topology(switches, source, kind)


def _path(leaf: str, above: Mapping[str, str]) -> tuple[str, ...]:
    """From the leaf upwards; a circle in the file ends it."""
    path = [leaf]
    while (upper := above.get(path[-1])) is not None and upper not in path and len(path) < MAX_LEVELS:
        path.append(upper)
    return tuple(path)


# --- where nodes stand ----------------------------------------------------------------------------


def racks_from(nodes: Sequence[SlurmNode], topology: Topology) -> dict[str, tuple[str, str]]:
    """Node → (rack, how that is known): from features that name racks, else the leaf switches or blocks."""
    if topology.kind == "block" and topology.switches:
        return {node: (path[0], topology.source) for node, path in topology.switches.items()}
    by_feature = _by_feature(nodes)
    if by_feature:
        return {node: (rack, "Slurm features") for node, rack in by_feature.items()}
    return {node: (path[0], topology.source) for node, path in topology.switches.items()}


def _by_feature(nodes: Sequence[SlurmNode]) -> dict[str, str]:
    """The rack in each node's features, where four nodes in five have one and they look like racks."""
    found = {}
    for node in nodes:
        for feature in node.features:
            match = _RACK_IN_FEATURE.fullmatch(feature[:64])
            if match:
                found[node.name] = match["rack"]
                break
    is_usual = len(found) >= 0.8 * len(nodes)
    return found if is_usual and looks_like_racks(found.values()) else {}


def leaves_from_features(nodes: Sequence[SlurmNode]) -> Topology:
    """Leaf switches by features such as ``ib-i1l1s01``: of those that a node has, the rarer names the leaf."""
    named = {
        node.name: [feature for feature in node.features if _LEAF_FEATURE.fullmatch(feature[:64])]
        for node in nodes
    }
    shared = Counter(feature for features in named.values() for feature in features)
    switches = {
        name: tuple(sorted(features, key=lambda feature: shared[feature]))
        for name, features in named.items()
        if features
    }
    is_usual = len(switches) >= 0.8 * len(nodes) and len({path[0] for path in switches.values()}) > 1
    return Topology(switches if is_usual else {}, "Slurm features")
