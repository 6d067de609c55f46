"""Where a run is to take place: node, network, storage, power. What is not told comes from the catalogue."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cache

from coldaisle.analyzers.sizing.assumptions import assumed
from coldaisle.analyzers.sizing.bounds import check_fields
from coldaisle.analyzers.sizing.catalogue import NodeType, nodes_of
from coldaisle.analyzers.sizing.collectives import Network
from coldaisle.analyzers.sizing.power import Prices
from coldaisle.analyzers.sizing.quantity import Quantity, exact
from coldaisle.analyzers.sizing.sheet import SizingError
from coldaisle.sources.parts import pcie_achievable
from coldaisle.sources.parts.catalogue import NAN, Fabric, Part, fabrics

USUAL_NODE = 8
_PORT_OF_A_CARD = 12.5e9
"""Bytes/s a GPU where no node is known: a 100 Gb/s port each."""
_PORT_OF_A_BOARD = 50e9
_OF_TODAY = 350e12
"""Dense bf16 flop/s."""
_PORT_EFFICIENCY = 0.85
_PCIE_WIDTH = 8
"""GPUs that reach each other over PCIe in one node."""


_SIZES = (
    "network",
    "network_efficiency",
    "storage_write",
    "storage_read",
    "write_s",
    "restart_s",
    "gpu_hours_per_failure",
    "power_limit_w",
    "rack_w",
    "pue",
    "bytes_per_token",
)


@dataclass(frozen=True, slots=True)
class Site:
    """What people tell of a place. NaN and None: not told, then the catalogue's or the usual.

    ``network``: bytes/s one way of one GPU's share of the ports; ``storage_write`` and ``storage_read``: bytes/s of all storage;
    ``write_s``: seconds a checkpoint may stop the run where storage is not told; ``restart_s``: from a failure until work goes on;
    ``gpu_hours_per_failure``: measured at this place; ``power_limit_w``: for all nodes, by name plate; ``rack_w``: of one rack.
    """

    node: NodeType | None = None
    network: float = NAN
    network_efficiency: float = NAN
    storage_write: float = NAN
    storage_read: float = NAN
    write_s: float = 30.0
    restart_s: float = NAN
    gpu_hours_per_failure: float = NAN
    power_limit_w: float = NAN
    rack_w: float = NAN
    pue: float = NAN
    bytes_per_token: float = 4.0
    prices: Prices | None = None

    def __post_init__(self) -> None:
        check_fields(self, _SIZES, nan_is_unknown=True)
        if self.network_efficiency > 1:
            raise SizingError(
                f"network efficiency is {self.network_efficiency:g}; it is a ratio of at most 1"
            )
        if self.pue < 1:
            raise SizingError(f"PUE is {self.pue:g}; it is 1 or more")

    def node_of(self, part: Part) -> NodeType | None:
        """The node that was told, else the first that is sold with the part. Errors: SizingError for another part's node."""
        if self.node is None:
            known = nodes_of(part)
            return known[0] if known else None
        if self.node.part != part.id:
            raise SizingError(f"{self.node.system} holds {self.node.part}, not {part.id}")
        return self.node

    def failures(self) -> Quantity:
        """GPU-hours an interruption."""
        if math.isnan(self.gpu_hours_per_failure):
            return assumed("failures.gpu_hours", "GPU-h")
        return exact(self.gpu_hours_per_failure, "GPU-h", "told")

    def restart(self) -> Quantity:
        """Seconds from a failure until work goes on."""
        return (
            assumed("failures.restart_s", "s")
            if math.isnan(self.restart_s)
            else exact(self.restart_s, "s", "told")
        )

    def overhead(self) -> Quantity:
        """PUE."""
        return assumed("power.pue") if math.isnan(self.pue) else exact(self.pue, "ratio", "told")


@dataclass(frozen=True, slots=True)
class Machine:
    """A part in its nodes: what layouts are for."""

    part: Part
    node: NodeType | None
    node_gpus: int
    port: float
    port_efficiency: float

    @property
    def domain(self) -> int:
        """GPUs that tensor parallelism may span: those on links, or on one node's PCIe."""
        return max(self.part.scaleup_gpus, min(self.node_gpus, _PCIE_WIDTH))

    def network(self, ranks: int) -> Network:
        """What a collective of so many ranks of a node runs over."""
        links, efficiency, reduce = _links(self.part, min(ranks, self.node_gpus))
        return Network(links, efficiency, self.node_gpus, self.port, self.port_efficiency, reduce)


def machine(part: Part, site: Site) -> Machine:
    """A part as it stands in its nodes."""
    node = site.node_of(part)
    port, efficiency = site.network, site.network_efficiency
    if math.isnan(port):
        port = node.network_per_gpu if node is not None and node.network > 0 else _usual_port(part)
    if math.isnan(efficiency):
        efficiency = 0.74 if node is not None and "EFA" in node.nics else _PORT_EFFICIENCY
    return Machine(part, node, node.gpus if node else USUAL_NODE, port, efficiency)


def _usual_port(part: Part) -> float:
    """400 Gb/s beside each board of a server of today, else 100."""
    fast = part.scaleup_gpus >= USUAL_NODE and part.peak("bf16") > _OF_TODAY
    return _PORT_OF_A_BOARD if fast else _PORT_OF_A_CARD


@cache
def _links(part: Part, ranks: int) -> tuple[float, float, float]:
    """Bytes/s of the links that so many ranks share, their efficiency, and that of an all-reduce."""
    joined = part.scaleup_gpus
    if joined < 2 or ranks > joined or math.isnan(part.scaleup):
        pcie = pcie_achievable(part.pcie_generation)
        return (_PORT_OF_A_CARD if math.isnan(pcie) else pcie), 1.0, 1.0
    rate = part.scaleup
    if "full mesh" in part.scaleup_kind and ranks < joined:
        rate *= max(ranks - 1, 1) / (joined - 1)  # each pair has one link, and a few ranks use few of them
    fabric = _fabric(part)
    return (rate, 0.8, 0.8) if fabric is None else (rate, fabric.efficiency, fabric.reduce_efficiency)


def _fabric(part: Part) -> Fabric | None:
    kind = part.scaleup_kind.casefold()
    for fabric in fabrics().values():
        if not fabric.is_network and kind.startswith(fabric.id):
            switched = part.scaleup_gpus >= USUAL_NODE
            return fabric if switched else _unswitched(fabric)
    return None


def _unswitched(fabric: Fabric) -> Fabric:
    """Bridges do not reduce."""
    return replace(fabric, reduce_efficiency=fabric.efficiency)
