"""Ports held against their siblings."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from lab.snapshots import PORTS, make_snapshot

from coldaisle.analyzers.links import compared, expected_rates, nvlink_ceilings, pcie_ceilings, rails_of
from coldaisle.analyzers.snapshot import Snapshot
from coldaisle.analyzers.window import peer_median


@pytest.fixture(scope="module")
def night() -> Snapshot:
    return make_snapshot()


def changed(snapshot: Snapshot, key: str, places: dict[int, float]) -> Snapshot:
    column = snapshot.columns[key]
    values = column.values.copy()
    for place, value in places.items():
        values[place] = value
    return replace(snapshot, columns={**snapshot.columns, key: replace(column, values=values)})


def test_a_sound_cluster_is_sound(night: Snapshot) -> None:
    assert not compared(night).unsound.any()


def test_a_slow_port_is_told_by_nodes_like_its_own(night: Snapshot) -> None:
    slow = changed(night, "port.rate", {0: 12.5e9})
    assert np.flatnonzero(compared(slow).unsound).tolist() == [0]
    assert expected_rates(slow)[0] == pytest.approx(50e9)


def test_a_slower_port_of_every_node_is_another_kind(night: Snapshot) -> None:
    second = dict.fromkeys(range(1, len(night.layout.ports), len(PORTS)), 12500000000.0)
    assert not compared(changed(night, "port.rate", second)).unsound.any()


def test_errors_state_and_waits(night: Snapshot) -> None:
    for key, value in (("port.symbol_errors", 2.0), ("port.state", 1.0), ("port.xmit_wait", 5e8)):
        assert np.flatnonzero(compared(changed(night, key, {3: value})).unsound).tolist() == [3], key


def test_idle_rails_are_sound(night: Snapshot) -> None:
    assert not compared(changed(night, "port.tx", {0: 0.0, 3: 0.0})).unsound.any()


def test_rails_are_rdma_ports_where_there_are_any(night: Snapshot) -> None:
    assert rails_of(night, range(3)) == [0, 1]
    assert rails_of(night, range(2, 3)) == [2]


def test_ceilings_of_boards(night: Snapshot) -> None:
    assert nvlink_ceilings(night)[0] == pytest.approx(369e9, rel=0.01)
    assert pcie_ceilings(night)[0] == pytest.approx(55.4e9, rel=0.01)  # by the model: nobody exports it


def test_no_port_at_all() -> None:
    empty = make_snapshot(1, 1, 1)
    bare = replace(empty, columns={})
    assert not compared(bare).unsound.any()


def test_the_median_of_the_others() -> None:
    values = np.array([1, 2, 9, np.nan, 5, 7], dtype=np.float32)
    group = np.array([0, 0, 0, 0, 1, -1])
    assert peer_median(values, group)[:3].tolist() == [5.5, 5.0, 1.5]
    assert np.isnan(peer_median(values, group)[3:]).all()
    assert len(peer_median(values[:0], group[:0])) == 0
