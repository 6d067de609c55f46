"""GPUs that are held without anybody naming them are not called free."""

from __future__ import annotations

from lab.slurm_records import AT, job, node

from coldaisle.analyzers.monitor import Monitor, MonitorSettings
from coldaisle.analyzers.snapshot import Snapshot
from coldaisle.sources.collector import SteadyClock
from coldaisle.sources.settings import SlurmSettings
from coldaisle.sources.slurm.records import Jobs, Nodes, SlurmJob, SlurmNode
from coldaisle.sources.slurm.source import SlurmSource
from coldaisle.sources.slurm.telling import Teller
from coldaisle.sources.source import Gres
from coldaisle.tui.cells import FREE, HELD, NO_DATA, cell_codes, default_metric, tally
from coldaisle.tui.widgets.cursor import cursor_lines


class StoppedClock(SteadyClock):
    def __init__(self) -> None:
        super().__init__(lambda: AT, lambda: AT)

    def __call__(self) -> float:
        return AT


def seen(nodes: list[SlurmNode], jobs: list[SlurmJob]) -> Snapshot:
    monitor = Monitor([SlurmSource(SlurmSettings())], MonitorSettings("atlas"), StoppedClock())
    teller = Teller()
    for item in [*teller.take_nodes(Nodes(nodes), AT), *teller.take_jobs(Jobs(jobs), AT)]:
        monitor.collector.take(monitor.collector.supervised[0], item)
    return monitor.snapshot()


def codes(snapshot: Snapshot) -> list[int]:
    return [int(code) for code in cell_codes(snapshot, default_metric(snapshot))]


def test_jobs_that_name_their_gpus_leave_the_others_free() -> None:
    snapshot = seen([node("n1", gpus_used=2)], [job()])
    assert codes(snapshot) == [HELD, HELD, FREE, FREE]
    assert not snapshot.gpu_unnamed.any()


def test_a_job_that_does_not_say_which() -> None:
    """A cluster without cons_tres, or a past from accounting."""
    snapshot = seen([node("n1"), node("n2")], [job(boards=())])
    assert codes(snapshot) == [NO_DATA] * 4 + [FREE] * 4
    counts = tally(snapshot, default_metric(snapshot))
    assert (counts.allocated, counts.free, counts.unnamed) == (0, 4, 4)
    line = cursor_lines(snapshot, 0, default_metric(snapshot), AT, 80)[0]
    assert "jobs here hold GPUs, not known which" in "".join(run.text for run in line)


def test_jobs_of_others_that_are_hidden() -> None:
    """PrivateData=jobs: the node says how many GPUs it has given away."""
    snapshot = seen([node("n1", gpus_used=3), node("n2", gpus_used=4), node("n3", gpus_used=0)], [job()])
    assert codes(snapshot) == [HELD, HELD, NO_DATA, NO_DATA, *[HELD] * 4, *[FREE] * 4]


def test_a_cluster_where_nothing_runs_is_free() -> None:
    snapshot = seen([node("n1", gpus_used=0)], [])
    assert snapshot.jobs_known
    assert codes(snapshot) == [FREE] * 4


def test_mig_instances_are_not_counted_as_boards() -> None:
    mig = node("n1", gres=(Gres("gpu", "a100_1g.5gb", 7),), gpus_used=7)
    assert not seen([mig], []).gpu_unnamed.any()
