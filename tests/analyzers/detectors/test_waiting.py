"""Who waits for whom: hangs and stragglers in simulated episodes, and what only looks like them."""

from __future__ import annotations

import lab.benches  # noqa: F401  (benchmarks can be imported then)
import numpy as np
import pytest
from lab.teamwork import World, calm_hosts, working

from benchmarks.quality import watching  # isort: skip
from coldaisle.sources.simulator.scenarios import Observed, world


@pytest.mark.parametrize(
    ("scenario", "detector"),
    [("hung", "communication_stall"), ("deadlock", "communication_stall"), ("straggler_cpu", "straggler"),
     ("tp_pp", ""), ("moe", ""), ("long_compile", "")],
)  # fmt: skip
def test_who_is_waited_for(scenario: str, detector: str) -> None:
    made = world([scenario], 101, parts=("H100",), minutes=14)
    seen = watching.watch(made.items(Observed(poll=5.0)), 5.0).seen
    waits = {one.finding.detector for one in seen.values() if one.first_loud is not None}
    assert waits & {"communication_stall", "straggler"} == ({detector} if detector else set())


@pytest.mark.parametrize("saves", [True, False])
def test_a_rank_that_saves_alone_is_no_rank_that_does_not_come(saves: bool) -> None:
    world = calm_hosts(working(World(nodes=2, span=2400.0)))
    late = (world.ago < 90)[:, None] & np.ones((1, 16), dtype=np.bool_)
    alone = late & (np.arange(16) == 0)
    util, power = (np.asarray(world.values[key]) for key in ("gpu.util", "gpu.power"))
    world.set(
        gpu__util=np.where(alone, 0.0, np.where(late, 1.0, util)),
        gpu__power=np.where(alone, 122.0, np.where(late, 155.0, power)),
        gpu__mem_util=np.where(late, 0.01, 0.4),
        gpu__nvlink_bandwidth=np.where(late, 0.0, 1.2e11),
    )
    if saves:
        world.set(node__nfs_write=np.where((world.ago < 90)[:, None] & (np.arange(2) == 0), 7e8, 1e5))
    found = world.found("communication_stall")
    assert [one.roots.gpus for one in found] == ([] if saves else [("n00/0",)])
    assert not (saves and world.found("straggler"))


@pytest.mark.parametrize(("name", "is_team"), [("train", True), ("vllm", False), ("jupyter", False)])
def test_only_the_ranks_of_a_training_job_wait_for_the_slowest(name: str, is_team: bool) -> None:
    world = calm_hosts(working(World(span=2400.0, job_fact={"name": name})))
    late = (world.ago < 600)[:, None]
    gap = late & (np.arange(8) == 3) & (np.arange(len(world.times)) % 3 == 0)[:, None]
    util, power = (np.asarray(world.values[key]) for key in ("gpu.util", "gpu.power"))
    world.set(gpu__util=np.where(gap, 0.0, util), gpu__power=np.where(late, power - 90.0, power))
    assert [one.roots.gpus for one in world.found("straggler")] == ([("n00/3",)] if is_team else [])


@pytest.mark.parametrize("hangs", [True, False])
def test_a_hang_on_boards_that_draw_a_third_of_their_limit_idle(hangs: bool) -> None:
    """GDDR boards: 55 of 150 W in a spin, no NVLink. One that always draws so little works as it always did."""
    world = calm_hosts(working(World(nodes=2, span=2400.0, model="NVIDIA A10")))
    late = (world.ago < 300)[:, None] & np.ones((1, 16), dtype=np.bool_)
    draw = np.random.default_rng(2).normal(0, 1.0, late.shape)
    world.values.pop("gpu.nvlink_bandwidth", None)
    world.set(
        gpu__util=1.0,
        gpu__power_limit=150.0,
        gpu__power=np.where(late, 54.0, 148.0 if hangs else 54.0) + draw,
        gpu__mem_util=np.where(late, 0.01, 0.4),
        gpu__tensor_active=np.where(late, 0.0, 0.4),
        gpu__dram_active=np.where(late, 0.01, 0.4),
    )
    assert [one.variant for one in world.found("communication_stall")] == (["hung"] if hangs else [])


def _late_rank(lasts: float, *, holds: bool, rank: int = 0) -> World:
    """A rank runs no kernel, all others wait for it, and nobody tells of the hosts."""
    made = working(World(nodes=2, span=2400.0))
    late = (made.ago < lasts)[:, None] & np.ones((1, 16), dtype=np.bool_)
    alone = late & (np.arange(16) == rank)
    util, power = (np.asarray(made.values[key]) for key in ("gpu.util", "gpu.power"))
    made.set(
        gpu__util=np.where(alone, 0.0, np.where(late, 1.0, util)),
        gpu__power=np.where(alone, 122.0, np.where(late, 155.0, power)),
        gpu__mem_util=np.where(late, 0.01, 0.4),
        gpu__mem_used=np.where(alone & (not holds), 5e8, 6e10),
        gpu__nvlink_bandwidth=np.where(late, 0.0, 1.2e11),
    )
    return made


@pytest.mark.parametrize(
    ("lasts", "holds", "rank", "is_decided"),
    [
        (90.0, True, 0, False),
        (300.0, True, 0, False),
        (700.0, True, 0, True),
        (90.0, False, 0, True),
        (90.0, True, 11, False),
        (300.0, True, 11, True),
    ],
)
def test_without_host_metrics_a_save_by_one_rank_is_told_from_one_that_does_not_come_by_time_memory_and_rank(
    lasts: float, holds: bool, rank: int, is_decided: bool
) -> None:
    verdict = _late_rank(lasts, holds=holds, rank=rank).verdict("communication_stall")
    key = f"n0{rank // 8}/{rank % 8}"
    assert [one.roots.gpus for one in verdict.candidates] == ([(key,)] if is_decided else [])
    assert [one.scope.jobs for one in verdict.undecided] == ([] if is_decided else [("slurm:4711",)])
    assert all("node.disk_write" in one.why for one in verdict.undecided)
