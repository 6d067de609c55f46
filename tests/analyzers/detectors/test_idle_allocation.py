"""GPUs that are held and do nothing, and what looks like them."""

from __future__ import annotations

import numpy as np
import pytest
from lab.teamwork import World, calm_hosts, working

from coldaisle.analyzers.finding import Severity

NAME = "idle_allocation"


def idle(world: World, seconds: float, used: float = 6e10, gpus: slice = slice(None)) -> World:
    """The last seconds without a kernel."""
    late = world.ago <= seconds
    for key, value in (
        ("gpu.util", 0.0),
        ("gpu.power", 118.0),
        ("gpu.mem_util", 0.0),
        ("gpu.mem_used", used),
    ):
        values = np.broadcast_to(
            np.asarray(world.values[key]), (len(world.times), world.nodes * world.gpus)
        ).copy()
        values[late, gpus] = value
        world.values[key] = values
    return world


@pytest.mark.parametrize("step", [5.0, 30.0])
def test_a_job_that_stopped_working_is_noticed_then_warned_of(step: float) -> None:
    for seconds, severity in ((1000.0, Severity.INFO), (2000.0, Severity.WARNING)):
        (found,) = idle(working(World(step=step, drops=0.1)), seconds).found(NAME)
        assert (found.variant, found.severity, found.roots.jobs) == ("loaded", severity, ("slurm:4711",))
        assert found.loss == 1.0
        assert found.since == pytest.approx(World().end - seconds, abs=120)
        assert not found.since_bound


def test_ten_minutes_are_nothing() -> None:
    assert not idle(working(World()), 600.0).found(NAME)


def test_idle_since_long_ago_is_critical_by_the_age_of_the_job() -> None:
    (found,) = idle(working(World()), 3600.0, used=2e6).found(NAME)
    assert (found.variant, found.severity, found.since_bound) == ("unused", Severity.CRITICAL, True)


def test_some_of_a_jobs_gpus() -> None:
    (found,) = idle(working(World()), 3600.0, gpus=slice(6, 8)).found(NAME)
    assert (found.variant, found.severity, found.loss) == ("partial", Severity.WARNING, 0.25)
    assert found.roots.gpus == ("n00/6", "n00/7")


def test_one_of_eight_used_may_be_meant_so() -> None:
    (found,) = idle(working(World()), 3600.0, gpus=slice(1, 8)).found(NAME)
    assert found.severity is Severity.INFO


@pytest.mark.parametrize("name", ["interactive", "jupyter-lab", "sys/dashboard/ood"])
def test_a_session_of_an_hour_is_left_alone_and_one_of_a_night_is_not(name: str) -> None:
    world = World(job_fact={"name": name, "since": World().end - 3 * 3600})
    assert not idle(working(world), 3600.0).found(NAME)
    world = World(job_fact={"name": name, "since": World().end - 20 * 3600})
    assert idle(working(world), 3600.0).found(NAME)


def test_staging_at_the_start_is_left_alone() -> None:
    world = World(job_fact={"since": World().end - 1500})
    busy = calm_hosts(idle(working(world), 3600.0, used=2e6)).set(node__nfs_read=4e8)
    assert not busy.found(NAME)
    assert calm_hosts(idle(working(world), 3600.0, used=2e6)).found(NAME)


def test_a_server_without_requests_is_over_provisioned() -> None:
    world = idle(working(World(job=None, server=True)), 3600.0).set(serve__running=0.0, serve__waiting=0.0)
    (found,) = world.found(NAME)
    assert (found.variant, found.severity, found.roots.servers) == (
        "serving",
        Severity.INFO,
        ("n00/n00:8000",),
    )


def test_without_jobs_memory_tells_who_is_held() -> None:
    (found,) = idle(working(World(job=None)), 3600.0).found(NAME)
    assert (found.variant, found.severity) == ("loaded", Severity.WARNING)
    assert not idle(working(World(job=None)), 3600.0, used=2e6).found(NAME)


def test_work_at_a_low_rate_is_not_idle() -> None:
    world = working(World())
    assert not world.set(gpu__util=0.12, gpu__power=140.0).found(NAME)


def test_bursts_that_utilisation_never_glimpses_are_work() -> None:
    """Averages of the engine between two samples show what glimpses of a sixth of a second miss."""
    world = idle(working(World(gpus=1, step=30.0)), 3600.0)
    every_second = np.where(np.arange(len(world.times)) % 2, 0.15, 0.0)
    assert not world.set(gpu__gr_active=every_second).found(NAME)
    assert world.set(gpu__gr_active=0.0).found(NAME)


def test_without_utilisation_the_engine_tells() -> None:
    world = idle(working(World()), 3600.0).set(gpu__gr_active=0.0)
    del world.values["gpu.util"]
    assert world.found(NAME)
    assert not world.set(gpu__gr_active=np.nan).found(NAME)
