"""The four utilisations of one instant, and what waits."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from lab.snapshots import AT, Faults, make_snapshot

from coldaisle.analyzers.advice.instant import Waiting, utilisations_now, waiting
from coldaisle.sources.cluster import Job
from coldaisle.sources.source import Missing


def job(reason: str, gpus: int, tasks: int = 1) -> Job:
    return Job(
        "slurm:9", "w", "kim", AT, (), (), state="PENDING", gpus_asked=gpus, reason=reason, tasks=tasks
    )


def test_what_waits_for_gpus_is_short_and_what_is_held_is_not() -> None:
    queue = (
        job("Resources", 8),
        job("Priority", 4, tasks=3),
        job("Dependency", 64),
        job("QOSMaxGRESPerUser", 64),
    )
    assert waiting(replace(make_snapshot(racks=1, faults=Faults()), queue=queue)) == Waiting(4, 20)


def test_it_is_what_the_snapshot_shows() -> None:
    snapshot = make_snapshot(racks=2, faults=Faults())
    use = utilisations_now(snapshot).cluster
    held = snapshot.gpu_job >= 0
    assert use.allocated.ratio is not None
    assert use.allocated.ratio.value == pytest.approx(held.mean())
    assert use.busy.ratio is not None
    assert use.busy.ratio.value == pytest.approx(
        float(snapshot.columns["gpu.util"].values[held].mean()), rel=1e-4
    )


def test_what_is_stale_counts_as_not_measured() -> None:
    snapshot = make_snapshot(racks=2, faults=Faults())
    column = snapshot.columns["gpu.util"]
    old = replace(column, reason=np.full_like(column.reason, Missing.STALE))
    use = utilisations_now(replace(snapshot, columns={**snapshot.columns, "gpu.util": old})).cluster
    assert use.busy.ratio is None or use.busy.metric != "gpu.util"


def test_without_jobs_allocation_is_not_known() -> None:
    use = utilisations_now(make_snapshot(racks=2, faults=Faults(), jobs_known=False)).cluster
    assert use.allocated.ratio is None
    assert use.allocated.why


def test_a_cluster_without_gpus_is_none() -> None:
    use = utilisations_now(make_snapshot(racks=0, faults=Faults())).cluster
    assert use.busy.ratio is None
