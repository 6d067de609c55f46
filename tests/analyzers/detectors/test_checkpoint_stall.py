"""Saves that cost, and what dips like them."""

from __future__ import annotations

import numpy as np
import pytest
from lab.teamwork import World, calm_hosts, working
from numpy.typing import NDArray

from coldaisle.analyzers.finding import Severity

NAME = "checkpoint_stall"


def saving(world: World, every: float, lasts: float, *, writes: bool = True, dips: bool = True) -> World:
    """All ranks stand still at intervals while their nodes write."""
    calm_hosts(working(world))
    still = (world.ago % every) < lasts
    return put(world, still if dips else np.zeros_like(still), still if writes else np.zeros_like(still))


def put(world: World, still: NDArray[np.bool_], writes: NDArray[np.bool_]) -> World:
    world.values["gpu.power"] = np.where(still[:, None], 122.0, world.values["gpu.power"])
    world.values["gpu.util"] = np.where(still[:, None], 0.0, world.values["gpu.util"])
    world.values["node.nfs_write"] = np.where(writes, 9e8, 1e5)
    world.values["node.psi_io_some"] = np.where(writes, 0.4, 0.005)
    return world


def two(**over: float) -> World:
    return World(nodes=2, span=2400.0, **over)  # type: ignore[arg-type]


@pytest.mark.parametrize(("step", "drops"), [(5.0, 0.0), (5.0, 0.1), (15.0, 0.0)])
def test_dear_checkpoints(step: float, drops: float) -> None:
    (found,) = saving(two(step=step, drops=drops), 300.0, 60.0).found(NAME)
    assert (found.variant, found.severity, found.roots.jobs) == (
        "periodic",
        Severity.WARNING,
        ("slurm:4711",),
    )
    assert found.loss == pytest.approx(0.2, abs=0.05)
    assert len({one.metric for one in found.evidence}) >= 2


def test_one_that_takes_minutes() -> None:
    world = calm_hosts(working(two()))
    late = world.ago < 240
    (found,) = put(world, late, late).found(NAME)
    assert (found.variant, found.severity, found.loss) == ("long", Severity.CRITICAL, 1.0)
    assert found.since == pytest.approx(world.end - 240, abs=10)


def test_the_hour_before_a_past_instant_is_a_sample_a_minute() -> None:
    """A save of 20 s that a sample hit was no minute long: the energy counter tells how much of the minute was missing."""
    world = saving(two(), 300.0, 20.0)
    saved = (world.ago % 300 < 20)[:, None]
    minute_saved = (world.ago % 300 < 60)[:, None]
    old = (world.ago > 900)[:, None]
    power = np.array(world.values["gpu.power"])
    between = old & (world.ago % 60 >= world.step)[:, None]
    world.values["gpu.power"] = np.where(between, np.nan, power)
    full = power[~saved[:, 0]].mean()
    world.values["gpu.energy"] = np.where(
        between, np.nan, np.where(old & minute_saved, 122.0 / 3 + full * 2 / 3, np.where(saved, 122.0, full))
    )
    (found,) = world.found(NAME)
    assert found.loss == pytest.approx(20 / 300, abs=0.03)


def test_rank_0_writes_and_all_wait_in_the_collective() -> None:
    world = saving(two(), 300.0, 60.0)
    still = (world.ago % 300) < 60
    world.values["gpu.util"] = np.where(still[:, None], 1.0, 0.99)
    world.values["gpu.power"] = np.where(still[:, None], 155.0, world.values["gpu.power"])
    writes = np.full((len(world.times), 2), 1e5)
    writes[still, 0] = 6e8
    world.values["node.nfs_write"] = writes
    (found,) = world.found(NAME)
    assert found.loss == pytest.approx(0.2, abs=0.05)


def test_cheap_ones_and_those_in_the_background_are_silent() -> None:
    assert not saving(two(), 400.0, 10.0).found(NAME)
    assert not saving(two(), 300.0, 60.0, dips=False).found(NAME)


def test_dips_without_writes_prove_nothing() -> None:
    assert not saving(two(), 300.0, 60.0, writes=False).found(NAME)
    assert not saving(two(), 20.0, 5.0, writes=False).found(NAME)


def test_without_host_metrics_it_is_not_decided() -> None:
    world = saving(two(), 200.0, 40.0)
    world.values = {key: value for key, value in world.values.items() if key.startswith("gpu.")}
    said = world.verdict(NAME)
    assert not said.candidates
    assert "no storage or host metrics for n00" in said.undecided[0].why


def test_a_server_does_not_save() -> None:
    world = saving(World(nodes=2, span=2400.0, job_fact={"name": "vllm"}), 300.0, 60.0)
    assert not world.found(NAME)


def test_rare_polls_of_uneven_power_hide_no_long_save() -> None:
    """An instant every half minute says nothing of the half minute: what stands for it is the energy counter, also an hour ago."""
    world = calm_hosts(working(World(nodes=2, span=3600.0, step=30.0)))
    steps = np.random.default_rng(8).choice((160.0, 560.0), (len(world.times), 1))
    saved = (world.ago % 1500) < 30
    world.set(
        gpu__power=steps + np.zeros((1, 16)),
        gpu__energy=np.where(saved, 260.0, 410.0),
        node__nfs_write=np.where(saved, 9e8, 1e5),
    )
    assert not world.found(NAME)


def test_saves_two_minutes_apart_are_two_and_cost_what_is_missing_of_work_as_it_is() -> None:
    """The phases of a step draw unlike watts, of which a minute shows the mean; every save of 45 s lies alone among full minutes."""
    world = World(nodes=2, span=3600.0, job_fact={"since": World().end - 3400})
    calm_hosts(working(world))
    phases = np.where((world.times // world.step) % 2, 600.0, 480.0)[:, None]
    world.values["gpu.power"] = np.asarray(world.values["gpu.power"]) - 560.0 + phases
    still = world.ago % 180 < 45
    (found,) = put(world, still, still).found(NAME)
    assert found.variant == "periodic"
    assert found.loss == pytest.approx(0.25, abs=0.02)
    assert int(found.words["events"]) >= 17
