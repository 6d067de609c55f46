"""Ports, rails, leaf switches and uplinks of a number of nodes: what a network of them is bought by. Pure; counts and bytes/s.

Rail-optimised and without oversubscription: the ports of one number on all nodes of a group share a leaf, each leaf has as many
uplinks as ports below, and spines join the leaves. So many ports that one switch holds need neither.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

from coldaisle.analyzers.sizing.assumptions import assumed
from coldaisle.analyzers.sizing.quantity import Quantity, exact
from coldaisle.analyzers.sizing.site import Machine
from coldaisle.sources.parts.catalogue import Fabric, fabrics

_CLOUDS = ("aws_", "gcp_", "azure_", "oci_")
"""Nodes that are let: their network is the provider's."""
_COUNT = re.compile(r"(\d+)\s*x\b", re.IGNORECASE)
_RULE = "two tiers without oversubscription: half of a leaf's ports go down"


@dataclass(frozen=True, slots=True)
class Cabling:
    """Of all nodes together; ``spines`` is 0 where no leaf has to reach another."""

    rails: int
    """Ports a node."""
    rate: float
    """Bytes/s one way of a port."""
    nodes: int
    leaves: Quantity
    uplinks: Quantity
    spines: Quantity
    note: str

    @property
    def ports(self) -> int:
        """Of all nodes."""
        return self.rails * self.nodes


def cabling(built: Machine, nodes: int) -> Cabling | None:
    """Of so many nodes; None: there is one, which talks to nobody."""
    if nodes < 2:
        return None
    rails, rate = _ports(built)
    radix = assumed("network.switch_ports", "ports")
    counted = [_tiers(rails, nodes, int(size)) for size in (radix.low, radix.value, radix.high)]

    def between(number: int, unit: str, formula: str) -> Quantity:
        few, usual, many = sorted(float(one[number]) for one in (counted[0], counted[1], counted[2]))
        value = float(counted[1][number])
        return Quantity(value, min(few, value), max(many, usual, value), unit, formula, radix.source)

    return Cabling(
        rails,
        rate,
        nodes,
        between(
            0, "switches", f"{rails} rails · ⌈{nodes} nodes / {radix.value / 2:g}⌉ of {radix.value:g} ports"
        ),
        between(1, "links", "as many as ports below: no oversubscription"),
        between(2, "switches", f"uplinks / {radix.value:g} ports"),
        _note(built, rails * nodes, int(radix.value)),
    )


def figures_of(found: Cabling) -> list[tuple[str, Quantity]]:
    """As a sheet has them."""
    return [
        ("rails a node", exact(found.rails, "ports", f"{found.rate * 8 / 1e9:g} Gb/s each")),
        ("ports of all nodes", exact(found.ports, "ports", f"{found.rails} · {found.nodes} nodes")),
        ("leaf switches", found.leaves),
        ("uplinks", found.uplinks),
        ("spine switches", found.spines),
    ]


def fabric_of(rate: float) -> Fabric | None:
    """The first network of the catalogue whose ports have this rate."""
    return next((one for one in fabrics().values() if one.is_network and one.rate == rate), None)


def _ports(built: Machine) -> tuple[int, float]:
    """How many a node has, and the rate of each: of the catalogue, else one beside each GPU."""
    node = built.node
    told = _COUNT.match(node.nics) if node is not None else None
    if node is None or told is None or not node.network > 0:
        return built.node_gpus, built.port
    rails = int(told[1])
    return rails, built.port * built.node_gpus / rails


def _tiers(rails: int, nodes: int, radix: int) -> tuple[int, int, int]:
    """Leaves, uplinks and spines of switches with so many ports."""
    ports = rails * nodes
    if ports <= radix:
        return 1, 0, 0
    leaves = rails * math.ceil(nodes / (radix // 2))
    return leaves, ports, math.ceil(ports / radix)


def _note(built: Machine, ports: int, radix: int) -> str:
    if built.node is not None and built.node.id.startswith(_CLOUDS):
        return f"{built.node.system} is let with its network: switches are the provider's"
    if ports > radix * radix // 2:
        return f"{ports:,} ports are more than two tiers of {radix} ports join: a third tier, or switches with more"
    return _RULE
