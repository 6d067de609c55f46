"""Times of collectives over a hierarchy: links inside a node, ports between nodes. Pure.

Volume a GPU: all-reduce ``2 (n-1)/n S``; reduce-scatter, all-gather and all-to-all half of that. A collective over nodes is as
slow as the slower of its two levels: ``max(2 (g-1)/g S / B_links, 2 (k-1)/k (S/g) / B_port)`` with g ranks a node on k nodes;
in an all-to-all each rank sends its own: ``(k-1)/k S`` goes over its port.
Checked against nccl-tests of ml-engineering's network README (8x A100, H200, B200, 4 x 8 B200).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from coldaisle.analyzers.sizing.bounds import check_above_zero
from coldaisle.analyzers.sizing.quantity import Quantity, about

Collective = Literal["all_reduce", "reduce_scatter", "all_gather", "all_to_all"]
_PASSES: dict[Collective, float] = {
    "all_reduce": 2.0,
    "reduce_scatter": 1.0,
    "all_gather": 1.0,
    "all_to_all": 1.0,
}
_INTERVAL = (0.85, 1.15)
_LAUNCH = 45e-6
"""Seconds until links carry anything: 32 KiB over 8 GPUs take 40 microseconds."""
_RAMP, _RAMP_FROM = 25e-6, 8 * 2.0**20
"""Seconds more for each doubling of the bytes from there: A100, H200 and B200 alike from 1 MiB to 4 GiB."""
_LEVEL = 130e-6
"""Seconds for each doubling of the nodes."""
_SOURCE = "nccl-tests' definition of bus bandwidth; plateau and latency: ml-engineering network README"


@dataclass(frozen=True, slots=True)
class Network:
    """What collectives run over. Bytes/s one way, before efficiency; ``node_gpus``: how many the links join.

    ``reduce_efficiency``: of an all-reduce, which some switches do themselves (NVLink SHARP); None: as everything else.
    """

    links: float
    link_efficiency: float
    node_gpus: int
    port: float
    """Of one GPU's share of the network."""
    port_efficiency: float
    reduce_efficiency: float | None = None

    @property
    def reduce_rate(self) -> float:
        """Bytes/s that an all-reduce reaches inside a node."""
        return self.links * (self.reduce_efficiency or self.link_efficiency)

    @property
    def link_rate(self) -> float:
        """Bytes/s that collectives reach inside a node."""
        return self.links * self.link_efficiency

    @property
    def port_rate(self) -> float:
        """Bytes/s a GPU that collectives reach between nodes."""
        return self.port * self.port_efficiency


def collective_seconds(
    op: Collective, payload: float, ranks: int, per_node: int, network: Network, ramp: bool = True
) -> float:
    """Seconds of one collective of ``payload`` bytes a rank (of the whole, for gathers), ``per_node`` ranks on each node.

    ``ramp``: small payloads do not reach the plateau.
    """
    if ranks <= 1 or payload <= 0:
        return 0.0
    per_node = max(min(per_node, ranks), 1)
    nodes = -(-ranks // per_node)
    passes = _PASSES[op]
    links = network.reduce_rate if op == "all_reduce" else network.link_rate
    inside = passes * (per_node - 1) / per_node * payload / links if per_node > 1 else 0.0
    crossing = (
        payload if op == "all_to_all" else payload / per_node
    )  # what ranks of a node have in common crosses once
    between = passes * (nodes - 1) / nodes * crossing / network.port_rate if nodes > 1 else 0.0
    if not ramp:
        return max(inside, between)
    late = _LAUNCH + _RAMP * math.log2(1 + payload / _RAMP_FROM) + _LEVEL * math.log2(nodes)
    return max(inside, between) + late


def collective_time(op: Collective, payload: float, ranks: int, per_node: int, network: Network) -> Quantity:
    """The same with its interval (of large payloads; below 1 GiB it is wider than that), s.

    Errors: SizingError for a size that is not above zero.
    """
    check_above_zero("payload", payload)
    check_above_zero("ranks", ranks)
    seconds = collective_seconds(op, payload, ranks, per_node, network)
    nodes = -(-ranks // max(min(per_node, ranks), 1))
    return about(
        seconds,
        *_INTERVAL,
        "s",
        f"max of {per_node} ranks over links at {network.link_rate:.3g} B/s and {nodes} nodes over ports at "
        f"{network.port_rate:.3g} B/s, {payload:.3g} bytes",
        _SOURCE,
    )


def bus_bandwidth(op: Collective, payload: float, ranks: int, seconds: float) -> float:
    """Bytes/s as nccl-tests print them: what each rank's link carried."""
    return _PASSES[op] * (ranks - 1) / ranks * payload / seconds
