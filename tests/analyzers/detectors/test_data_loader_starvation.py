"""GPUs that wait for their hosts, and what waits otherwise."""

from __future__ import annotations

import numpy as np
import pytest
from lab.teamwork import World, calm_hosts, noise, working
from numpy.typing import NDArray

NAME = "data_loader_starvation"


def starving(world: World, busy: float, since: float, cycle: float = 3.1) -> World:
    """All ranks pause together in every step; utilisation is the mean of the second before a sample."""
    calm_hosts(working(world))
    late = world.ago <= since
    work = (np.mod(world.times[:, None] - np.linspace(0, 1, 20), cycle) < busy * cycle).mean(axis=1)
    return put(world, np.where(late, work, 1.0))


def put(world: World, work: NDArray[np.float64]) -> World:
    world.values["gpu.util"] = np.clip(np.asarray(world.values["gpu.util"]) * work[:, None], 0, 1)
    world.values["gpu.power"] = 120 + (np.asarray(world.values["gpu.power"]) - 120) * work[:, None]
    return world


def two(step: float = 5.0, drops: float = 0.0, **over: object) -> World:
    return World(nodes=2, span=2400.0, step=step, drops=drops, **over)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("metric", "value", "variant"),
    [("node__psi_cpu_some", 0.6, "cpu"), ("node__psi_io_some", 0.5, "io"), ("node__cpu_util", 0.12, "host")],
)
@pytest.mark.parametrize(("step", "drops"), [(1.0, 0.0), (5.0, 0.1), (15.0, 0.0)])
def test_a_loader_that_became_too_slow(
    metric: str, value: float, variant: str, step: float, drops: float
) -> None:
    world = starving(two(step, drops), 0.55, 700.0).set(**{metric: value}, node__disk_read=3e8)
    (found,) = world.found(NAME)
    assert (found.variant, found.roots.jobs) == (variant, ("slurm:4711",))
    assert found.loss == pytest.approx(0.45, abs=0.08)
    assert found.since == pytest.approx(world.end - 700, abs=60)


def test_copies_over_pcie_are_not_the_loaders() -> None:
    world = starving(two(), 0.4, 700.0).set(gpu__pcie_rx=5e9)
    (found,) = world.found(NAME)
    assert found.variant == "offload"


def test_a_low_rate_from_the_start_with_calm_hosts_is_how_it_is() -> None:
    world = calm_hosts(working(two(job_fact={"name": "gnn"})))
    assert not put(world, np.full(len(world.times), 0.5)).verdict(NAME).candidates


def test_servers_and_sessions_are_left_alone() -> None:
    for name in ("vllm", "jupyter"):
        world = starving(two(job_fact={"name": name}), 0.5, 700.0).set(node__psi_cpu_some=0.5)
        assert not world.found(NAME)


def test_one_pause_is_not_starvation() -> None:
    world = calm_hosts(working(two()))
    assert not put(world, np.where(world.ago <= 45, 0.0, 1.0)).found(NAME)
    assert not put(world, np.where(world.ago <= 600, 0.0, 1.0)).found(NAME)


@pytest.mark.parametrize("lasts", [20.0, 25.0, 30.0, 35.0])
def test_a_pause_that_has_just_begun_is_none_either(lasts: float) -> None:
    world = calm_hosts(working(two())).set(gpu__pcie_rx=5e9)
    assert not put(world, np.where(world.ago <= lasts, 0.0, 1.0)).found(NAME)


def test_gaps_in_which_the_nodes_write_are_saves() -> None:
    world = calm_hosts(working(two()))
    saved = (world.ago <= 700) & (world.ago % 100 < 20)
    put(world, np.where(saved, 0.0, 1.0)).set(
        node__nfs_write=np.where(saved, 8e8, 1e5),
        node__psi_io_some=np.where(saved, 0.9, 0.005),
        node__nfs_read=6e8,
    )
    assert not world.found(NAME)


def test_ranks_that_spin_wait_for_another() -> None:
    world = starving(two(), 0.5, 700.0).set(node__psi_cpu_some=0.5)
    util = np.asarray(world.values["gpu.util"])
    util[:, 8:] = 1.0
    assert not world.found(NAME)


def test_fewer_requests_without_a_word_are_not_decided() -> None:
    world = starving(World(gpus=1, span=2400.0, job_fact={"name": "run-7"}), 0.5, 700.0)
    said = world.verdict(NAME)
    assert not said.candidates
    assert "cannot tell starvation from fewer requests" in said.undecided[0].why


def beaten(world: World, busy: float, since: float, *, tensor: float = 0.45) -> World:
    """Pauses in step with the polls: no glimpse falls on work, only averages over the time between two samples show it."""
    world = calm_hosts(working(world))
    work = np.where(world.ago <= since, busy, 0.97)[:, None] * (1 + noise(world, 0.01, 7))
    put(world, np.where(world.ago <= since, 0.0, 1.0))
    return world.set(gpu__gr_active=work, gpu__sm_active=0.87 * work, gpu__tensor_active=tensor * work)


def test_a_job_that_trained_before_and_whose_hosts_are_calm_is_host_bound() -> None:
    (found,) = beaten(two(job_fact={"name": "run-7"}), 0.45, 700.0).found(NAME)
    assert (found.variant, found.roots.jobs) == ("host", ("slurm:4711",))
    assert found.loss == pytest.approx(0.54, abs=0.05)
    assert found.words["host_cpu"] == "12%"


def test_a_job_that_may_have_decoded_before_is_not_decided() -> None:
    said = beaten(two(job_fact={"name": "run-7"}), 0.45, 700.0, tensor=0.13).verdict(NAME)
    assert not said.candidates
    assert "cannot tell starvation from fewer requests" in said.undecided[0].why


def test_what_hosts_do_is_not_said_where_nobody_measures_it() -> None:
    world = beaten(two(job_fact={"name": "run-7"}), 0.45, 700.0)
    world.values = {key: value for key, value in world.values.items() if not key.startswith("node.")}
    (found,) = world.found(NAME)
    assert found.words["host_cpu"] == "not measured"


def test_boards_of_a_node_without_a_job_that_slow_down_together_are_in_step() -> None:
    world = beaten(two(job=None), 0.45, 700.0).set(node__psi_io_some=0.5)
    assert {one.variant for one in world.found(NAME)} == {"io"}
    apart = np.asarray(world.values["gpu.gr_active"])
    for gpu in range(apart.shape[1]):  # each by itself, at times of its own
        apart[:, gpu] = np.where((world.times + 97 * gpu) % 811 < 400, 0.9, 0.5)
    assert not world.found(NAME)


def test_work_at_full_speed_is_silent() -> None:
    said = calm_hosts(working(two())).verdict(NAME)
    assert not said.candidates
    assert not said.undecided
