"""When nodes write far more than usual."""

from __future__ import annotations

import numpy as np
from lab.teamwork import World, calm_hosts, working

from coldaisle.analyzers.saves import saves, share_of_saves

NODES = np.arange(2)


def test_a_burst_of_one_node_is_a_save_now_and_half_an_hour_ago() -> None:
    world = calm_hosts(working(World(nodes=2, span=2400.0)))
    bursts = (world.ago < 40) | ((world.ago >= 1800) & (world.ago < 1980))
    writes = np.full((len(world.times), 2), 1e5)
    writes[bursts, 1] = 6e8
    window = world.set(node__nfs_write=writes).window()
    ago = np.array([1890.0, 1200.0, 600.0, 300.0, 20.0, 5.0])
    seen = saves(window, NODES, world.end - ago)
    assert seen.goes_on[[0, -1, -2]].all()
    assert not seen.goes_on[2]
    assert seen.wrote == np.float32(6e8)
    assert not saves(window, NODES[:1], world.end - ago).goes_on.any()


def test_waiting_for_io_counts_where_nobody_says_what_is_written() -> None:
    world = working(World(nodes=2, span=1200.0))
    world.set(node__psi_io_some=np.where(world.ago < 60, 0.5, 0.005))
    assert saves(world.window(), NODES, world.times).goes_on[-5:].all()
    world.set(node__nfs_write=1e5)
    assert not saves(world.window(), NODES, world.times).goes_on.any()


def test_where_nothing_is_told_nothing_is_saved() -> None:
    world = working(World(nodes=2, span=1200.0))
    seen = saves(world.window(), NODES, world.times)
    assert not seen.goes_on.any()
    assert np.isnan(seen.wrote)
    assert np.isnan(seen.waited)


def test_the_share_is_of_the_newest_sample_at_least() -> None:
    """At polls of a minute the newest sample may be older than the span that is asked for."""
    world = working(World(nodes=2, span=3600.0, step=60.0))
    world.set(node__nfs_write=np.where(world.ago < 200, 6e8, 1e5))
    assert share_of_saves(world.window(), NODES, 10.0) == 1.0
    assert share_of_saves(world.window(), NODES, 600.0) == 0.5
