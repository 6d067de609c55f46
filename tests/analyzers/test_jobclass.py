"""What jobs do, and what their speed depends on."""

from __future__ import annotations

import numpy as np
import pytest
from lab.teamwork import World, calm_hosts, working

from coldaisle.analyzers.finding import Bound, Workload
from coldaisle.analyzers.jobclass import classify

NAMELESS = {"name": "run-7"}


def profiled(sm: float, tensor: float, dram: float, **over: float) -> World:
    world = working(World(nodes=2, span=900.0, job_fact=NAMELESS))
    return world.set(gpu__sm_active=sm, gpu__tensor_active=tensor, gpu__dram_active=dram, **over)


@pytest.mark.parametrize(
    ("world", "bound"),
    [
        (profiled(0.88, 0.58, 0.37), Bound.COMPUTE),  # T3
        (profiled(0.85, 0.12, 0.82, gpu__power=520.0), Bound.MEMORY),
        (profiled(0.24, 0.04, 0.15, gpu__util=0.69, gpu__power=250.0), Bound.LATENCY),  # I4
        (profiled(0.64, 0.19, 0.32), Bound.MIXED),  # T2
        (
            profiled(0.165, 0.0, 0.01, gpu__util=1.0, gpu__power=150.0, gpu__mem_util=0.01),
            Bound.COMMUNICATION,
        ),
        # Links at what they can reach; beside dense compute they are well overlapped.
        (profiled(0.36, 0.115, 0.2, gpu__nvlink_bandwidth=7.2e11, gpu__power=420.0), Bound.COMMUNICATION),
        (profiled(0.88, 0.58, 0.37, gpu__nvlink_bandwidth=7.2e11), Bound.COMPUTE),
    ],
)
def test_bound_by_what_the_gpus_do(world: World, bound: Bound) -> None:
    assert classify(world.window())["slurm:4711"].bound is bound


def test_hosts_that_wait_bound_a_job() -> None:
    world = calm_hosts(working(World(span=900.0))).set(gpu__util=0.5, node__psi_cpu_some=0.6)
    assert classify(world.window())["slurm:4711"].bound is Bound.HOST


def test_workload_by_name_then_by_telemetry() -> None:
    for name, workload in (
        ("train-7b", Workload.TRAINING),
        ("vllm-chat", Workload.INFERENCE),
        ("jupyter", Workload.INTERACTIVE),
    ):
        world = working(World(span=900.0, job_fact={"name": name}))
        assert classify(world.window())["slurm:4711"].workload is workload
    shown = profiled(0.88, 0.58, 0.37)
    assert classify(shown.window())["slurm:4711"].workload is Workload.TRAINING
    quiet = working(World(gpus=1, span=900.0, job_fact=NAMELESS)).set(gpu__util=0.4, gpu__power=200.0)
    del quiet.values["gpu.nvlink_bandwidth"]
    assert classify(quiet.window())["slurm:4711"].workload is Workload.UNKNOWN


def test_a_server_on_its_gpus_makes_it_inference() -> None:
    world = working(World(span=900.0, server=True, job_fact=NAMELESS)).set(serve__running=3.0)
    assert classify(world.window())["slurm:4711"].workload is Workload.INFERENCE


def test_idle_and_unheard_of() -> None:
    world = working(World(span=900.0)).set(gpu__util=0.0, gpu__power=118.0)
    assert classify(world.window())["slurm:4711"].workload is Workload.IDLE
    glimpsed = working(World(span=900.0)).set(gpu__util=0.0, gpu__gr_active=0.45, gpu__power=130.0)
    assert classify(glimpsed.window())["slurm:4711"].workload is not Workload.IDLE
    nothing = World(span=900.0).set(gpu__util=np.nan)
    assert classify(nothing.window())["slurm:4711"].bound is Bound.UNKNOWN
    assert classify(World(job=None, span=60.0).set(gpu__util=1.0).window()) == {}
