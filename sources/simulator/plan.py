"""What the simulated cluster is made of: racks, nodes, boards, links, and the spread between boards.

Everything here is drawn once from the seed and never changes with time. GPUs are numbered node by node,
slot by slot, so that arrays over GPUs reshape to [node, slot]; port ``i`` of a node is the rail of slot ``i``.
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from coldaisle.sources.source import DiskRef, GpuRef, NodeRef, PortRef, RackRef

Array = NDArray[np.float64]
Ints = NDArray[np.intp]
Bools = NDArray[np.bool_]

MIB = 2.0**20


class Part(NamedTuple):
    """A board as its data sheet has it. Units: bytes, W, MHz, Celsius, bytes/s one way."""

    model: str
    memory: float
    power: float
    power_min: float
    idle: float
    """Draw without a CUDA context."""
    context: float
    """Draw with a context and no kernel."""
    clock: float
    clock_idle: float
    mem_clock: float
    slowdown: float
    shutdown: float
    mem_max: float
    links: int
    nvlink: float
    pcie_gen: int
    hbm: float
    flops: float
    """Dense 16-bit, per second."""
    port: float
    """The node's InfiniBand ports, bytes/s."""


Rows = dict[str, dict[str, Any]]


@cache
def models() -> dict[str, Rows]:
    """The tables of ``models.toml``."""
    text = (files(__package__) / "models.toml").read_text(encoding="utf-8")
    return tomllib.loads(text)


def _part(model: str, row: dict[str, Any]) -> Part:
    return Part(**{"model": model, **row, "memory": row["memory"] * MIB})


PARTS: tuple[Part, ...] = tuple(_part(model, row) for model, row in models()["parts"].items())
_PATTERN = (0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 2, 2, 3, 3)
"""Part of each of sixteen racks; a larger cluster stretches it, a smaller one takes its beginning."""

_PCI_BUSES = (0x1B, 0x43, 0x52, 0x61, 0x9D, 0xC3, 0xD1, 0xDF)
_HOT_SLOTS = (0, 3, 4, 6)
_COOL_SLOTS = (1, 5, 7)
R_FAST = 0.028
"""Celsius per watt of the fast pole, for a 700 W board in air (measured); scales with 700 W / board power."""


class NodeSpec(NamedTuple):
    """The host part of a node; constant for the cluster."""

    cpus: int = 224
    memory: float = 2.0**41
    driver: str = "580.95.05"
    kernel: str = "5.14.0-570.el9.x86_64"
    base_power: float = 1150.0
    cpu_power: float = 700.0


@dataclass(frozen=True, slots=True, eq=False)
class Plan:
    """The cluster, as arrays over racks, nodes and GPUs. ``nodes`` x ``slots`` = number of GPUs."""

    seed: int
    racks: tuple[str, ...]
    nodes: tuple[str, ...]
    slots: int
    spec: NodeSpec
    rack_of: Ints
    """[node]"""
    part_of: Ints
    """[node], into :data:`PARTS`."""
    node_refs: tuple[NodeRef, ...]
    rack_refs: tuple[RackRef, ...]
    gpu_refs: tuple[GpuRef, ...]
    port_refs: tuple[PortRef, ...]
    disk_refs: tuple[DiskRef, ...]
    pci: tuple[str, ...]
    """PCI addresses of a node's GPUs, in slot order."""
    node_of: Ints
    """[gpu]"""
    columns: dict[str, Array]
    """[gpu] of each number of :class:`Part`."""
    gain: Array
    """[gpu] spread of power between boards of one model."""
    r_fast: Array
    r_slow: Array
    """[gpu] Celsius per watt of the two poles."""
    tau: Array
    """[gpu] seconds of the slow pole."""
    r_mem: Array
    """[gpu] Celsius per watt by which HBM is hotter than the core."""
    inlet: Array
    """[rack] air at the inlet, Celsius."""
    spin_sm: Array
    """[gpu] SM activity while it waits in a collective."""
    spin_power: Array
    """[gpu] watts above context idle while it does."""
    phase: Array
    """[gpu] 0..1, for slow drifts."""
    ecc: Array
    """[gpu] corrected errors a day."""
    booted_at: Array
    """[node]"""

    @property
    def gpus(self) -> int:
        return len(self.gpu_refs)


def _name(prefix: str, index: int, count: int) -> str:
    return f"{prefix}{index + 1:0{max(2, len(str(count)))}d}"


def pci_addresses(count: int) -> tuple[str, ...]:
    """Plausible bus addresses in PCI order."""
    buses = _PCI_BUSES[:count] if count <= len(_PCI_BUSES) else tuple(range(0x10, 0x10 + count))
    return tuple(f"{bus // 256:04x}:{bus % 256:02x}:00.0" for bus in buses)


def _uuid(draw: np.random.Generator) -> str:
    text = draw.bytes(16).hex()
    return f"GPU-{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


def _slow_resistance(draw: np.random.Generator, nodes: int, slots: int) -> Array:
    """Positional: the boards behind others get warmer air (measured .016-.05 C/W at 700 W)."""
    low, high = np.full(slots, 0.024), np.full(slots, 0.034)
    for slot in range(slots):
        if slot % 8 in _HOT_SLOTS:
            low[slot], high[slot] = 0.036, 0.045
        elif slot % 8 in _COOL_SLOTS:
            low[slot], high[slot] = 0.016, 0.025
    return draw.uniform(low, high, (nodes, slots)).ravel()


def build(racks: int, nodes_per_rack: int, gpus_per_node: int, seed: int) -> Plan:
    """The cluster of a seed. Sizes from 1 x 1 x 1."""
    if min(racks, nodes_per_rack, gpus_per_node) < 1:
        raise ValueError("a cluster has at least one rack, one node and one GPU")
    draw = np.random.default_rng((seed, 0))
    rack_names = tuple(_name("r", r, racks) for r in range(racks))
    nodes = tuple(
        f"{rack}{_name('n', n, nodes_per_rack)}" for rack in rack_names for n in range(nodes_per_rack)
    )
    rack_of = np.repeat(np.arange(racks), nodes_per_rack)
    stretched = np.arange(racks) * 16 // racks if racks > 16 else np.arange(racks)
    part_of = np.asarray(_PATTERN, dtype=np.intp)[stretched][rack_of]
    pci = pci_addresses(gpus_per_node)
    node_of = np.repeat(np.arange(len(nodes)), gpus_per_node)
    numbers = {
        field: np.array([float(part[i]) for part in PARTS])[part_of][node_of]
        for i, field in enumerate(Part._fields)
        if field != "model"
    }
    count = len(node_of)
    scale = 700.0 / numbers["power"]
    return Plan(
        seed=seed,
        racks=rack_names,
        nodes=nodes,
        slots=gpus_per_node,
        spec=NodeSpec(),
        rack_of=rack_of,
        part_of=part_of,
        node_refs=tuple(NodeRef(node) for node in nodes),
        rack_refs=tuple(RackRef(rack) for rack in rack_names),
        gpu_refs=tuple(
            GpuRef(node, _uuid(draw), pci[slot], slot, slot)
            for node in nodes
            for slot in range(gpus_per_node)
        ),
        port_refs=tuple(PortRef(node, f"mlx5_{i}/1") for node in nodes for i in range(gpus_per_node)),
        disk_refs=tuple(DiskRef(node, disk) for node in nodes for disk in ("nvme0n1", "nvme1n1")),
        pci=pci,
        node_of=node_of,
        columns=numbers,
        gain=1 + 0.015 * draw.standard_normal(count).clip(-2, 2),
        r_fast=R_FAST * scale,
        r_slow=_slow_resistance(draw, len(nodes), gpus_per_node) * scale,
        tau=draw.uniform(35, 55, count),
        r_mem=draw.uniform(0.018, 0.022, count) * scale,
        inlet=draw.uniform(22.0, 25.5, racks),
        spin_sm=draw.uniform(0.14, 0.20, count),
        spin_power=draw.uniform(22, 58, count) / scale,
        phase=draw.random(count),
        ecc=np.where(draw.random(count) < 0.06, draw.uniform(0.5, 9, count), 0.0),
        booted_at=1.75e9 + np.floor(draw.uniform(0, 40, len(nodes))) * 86_400.0,
    )
