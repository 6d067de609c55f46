"""Links against what they can reach, one direction: NVLink and PCIe of a board, the rails of a node.

Ceilings are what collectives and copies achieve (``sources/parts/links.toml``), not data sheets.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from coldaisle.analyzers.snapshot import Snapshot
from coldaisle.analyzers.window import by_group, peer_median
from coldaisle.sources.cluster import Layout, Rows
from coldaisle.sources.parts import nvlink_achievable, pcie_achievable, pcie_generation, port_efficiency
from coldaisle.sources.source import Floats, Missing

ERRORS = (
    "symbol_errors", "integrity_errors", "overrun_errors", "rcv_errors", "rcv_remote_errors", "xmit_discards",
    "constraint_errors", "out_of_sequence", "sequence_errors", "ack_timeouts", "icrc_errors", "buffer_drops", "errors", "drops",
)  # fmt: skip
"""Of a port, a second each."""
NVLINK_ERRORS = ("nvlink_crc", "nvlink_replay", "nvlink_recovery", "nvlink_errors")
ACTIVE = 4
WAITS, WAITS_ABOVE = 1e6, 10.0
"""Ticks a second, and times what its siblings wait, from which a port that cannot send is worth a word."""
RDMA = "/"
"""RDMA ports have a number behind their device's name: ``mlx5_0/1``."""
ALIKE = 0.99
FEW = 1
"""Ports of a node that may be degraded at once, where no other node is like it."""


def nvlink_ceilings(snapshot: Snapshot) -> Floats:
    """[gpu] bytes/s; NaN: the board is not known."""
    return np.array([nvlink_achievable(gpu.model) for gpu in snapshot.layout.gpus], dtype=np.float32)


def pcie_ceilings(snapshot: Snapshot) -> Floats:
    """[gpu] bytes/s of the best that the board and its slot can do, by what is exported, else by the board's model."""
    told, lanes = _newest(snapshot, "gpu.pcie_gen_max"), _newest(snapshot, "gpu.pcie_width_max")
    built_for = np.array([pcie_generation(gpu.model) for gpu in snapshot.layout.gpus], dtype=np.float32)
    best = np.where(np.isnan(told), built_for, told)
    # Few kinds, and NaN is none: as whole numbers.
    kinds, which = np.unique(np.nan_to_num(best) * 1000 + np.nan_to_num(lanes), return_inverse=True)
    rates = [pcie_achievable(*(one or float("nan") for one in divmod(kind, 1000))) for kind in kinds.tolist()]
    ceilings: Floats = np.array(rates, dtype=np.float32)[which]
    return ceilings


def port_ceilings(snapshot: Snapshot, rates: Floats) -> Floats:
    """[port] bytes/s, of links that run at these rates."""
    roce = np.nan_to_num(_newest(snapshot, "port.roce")) > 0
    share = np.where(roce, np.float32(port_efficiency(roce=True)), np.float32(port_efficiency()))
    ceilings: Floats = rates * share
    return ceilings


def expected_rates(snapshot: Snapshot) -> Floats:
    """[port] bytes/s that a link should run at by its siblings, at least its own rate; NaN: nobody tells it.

    Siblings are the other rails of its node and the port of its name on nodes like its own: where a node carries slower
    ports for storage or management, all nodes like it do, and these are not degraded.
    """
    rate, layout = _newest(snapshot, "port.rate"), snapshot.layout
    group, role = port_groups(layout), port_roles(layout)
    beside = np.where(_members(rate, group) >= 3, peer_median(rate, group), np.float32(np.nan))
    alike = np.where(_members(rate, role) >= 4, peer_median(rate, role), np.float32(np.nan))
    # Without nodes alike: few slow ports of a node are degraded, several are of another kind.
    slower = by_group((rate < ALIKE * beside).astype(np.float32), group, 2 * len(layout.nodes))[group]
    beside = np.where(np.isnan(alike) & (slower * _members(rate, group) > FEW), np.float32(np.nan), beside)
    expected: Floats = np.fmax(rate, np.fmin(beside, alike))
    return np.where(np.isnan(rate), np.float32(np.nan), expected)


class Ports(NamedTuple):
    """All ports of a snapshot held against their siblings, [port] each."""

    expected: Floats
    """See :func:`expected_rates`."""
    usual_wait: Floats
    """What its siblings on the node wait to send, ticks a second; NaN: it has none."""
    unsound: NDArray[np.bool_]
    """It is not up, slower than it should be, errs or waits far more than they do. Traffic is no sign: rails that a job
    does not use by design are idle, not lame."""


@lru_cache(maxsize=1)
def compared(snapshot: Snapshot) -> Ports:
    """The ports of a snapshot beside each other."""
    expected, state = expected_rates(snapshot), _newest(snapshot, "port.state")
    unsound = (_newest(snapshot, "port.rate") < ALIKE * expected) | (~np.isnan(state) & (state != ACTIVE))
    for name in ERRORS:
        if f"port.{name}" in snapshot.columns:
            unsound |= _newest(snapshot, f"port.{name}") > 0
    waits = _newest(snapshot, "port.xmit_wait")
    usual = peer_median(waits, port_groups(snapshot.layout))
    unsound |= (waits >= WAITS) & (waits >= WAITS_ABOVE * usual)
    return Ports(expected, usual, unsound)


@lru_cache(maxsize=2)
def port_groups(layout: Layout) -> Rows:
    """[port] equal for the ports of one node that are rails (RDMA), and for its others."""
    return np.array([2 * port.node + (RDMA in port.name) for port in layout.ports], dtype=np.intp)


@lru_cache(maxsize=2)
def port_roles(layout: Layout) -> Rows:
    """[port] equal for ports of one name on nodes with as many boards of one model."""
    known: dict[tuple[str, str, int], int] = {}
    kinds = [
        (layout.gpus[node.gpus.start].model or "" if node.gpus else "", len(node.gpus))
        for node in layout.nodes
    ]
    roles = [known.setdefault((port.name, *kinds[port.node]), len(known)) for port in layout.ports]
    return np.array(roles, dtype=np.intp)


def _members(values: Floats, group: Rows) -> Rows:
    """[entity] how many of its group have a value."""
    counted = np.bincount(group[~np.isnan(values)], minlength=int(group.max(initial=-1)) + 1)
    return counted[group]


def rails_of(snapshot: Snapshot, ports: range) -> list[int]:
    """The RDMA ports among some; all of them where none is."""
    rails = [port for port in ports if RDMA in snapshot.layout.ports[port].name]
    return rails or list(ports)


def _newest(snapshot: Snapshot, key: str) -> Floats:
    """[entity] what is not stale; NaN: none."""
    column = snapshot.column(key)
    if column is None:
        size = len(snapshot.layout.gpus) if key.startswith("gpu.") else len(snapshot.layout.ports)
        return np.full(size, np.nan, dtype=np.float32)
    return np.where(column.reason == Missing.PRESENT, column.values, np.float32(np.nan))
