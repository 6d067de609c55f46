"""Facts of a usage by hand: hours by state, waits, offered load, weeks, moved boards, and what is not known."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from lab.backfill import accounting
from lab.month import DAY, START, month

from coldaisle.analyzers.advice.counsel import advise, settings
from coldaisle.analyzers.audit.facts import facts_of
from coldaisle.analyzers.audit.joining import joined, pods_of
from coldaisle.analyzers.usage import Board, Stay, Usage
from coldaisle.sources.prometheus.aggregates import Gathered, Held, Incident, Seen, Span
from coldaisle.sources.slurm.sacct import Accounted, read

HOUR = 3600.0
NAN = math.nan
SPAN = Span(START, 300.0, 288)


def stay(
    id_: str,
    state: str,
    wait: float,
    begin: float,
    end: float,
    gpus: int,
    boards: Sequence[int] | None = None,
) -> Stay:
    """Hours after START."""
    at = [START + hours * HOUR for hours in (begin - wait, begin, end)]
    return Stay(f"slurm:{id_}", "train", "ann", "ml", "gpu", at[0], at[1], at[2], state, gpus, boards=None if boards is None else tuple(boards))  # fmt: skip


def usage(stays: Sequence[Stay], util: float = 1.0, boards: int = 8) -> Usage:
    return Usage(
        starts=SPAN.starts,
        step=SPAN.step,
        boards=tuple(Board(f"r01n01/{n}", "r01n01", "r01", "NVIDIA H100 80GB HBM3") for n in range(boards)),
        hosts=(),
        means={"gpu.util": np.full((288, boards), util, np.float32)},
        stays=tuple(stays),
        jobs_known=True,
    )


def test_hours_by_final_state_and_by_whom() -> None:
    facts = facts_of(
        usage(
            [
                stay("1", "COMPLETED", 1, 2, 4, 8),
                stay("2", "FAILED", 3, 4, 5, 4),
                stay("3", "PREEMPTED", 0, 6, 8, 1),
            ]
        )
    )
    assert {one.name: (one.jobs, one.gpu_hours) for one in facts.by_state} == {
        "COMPLETED": (1, 16.0), "FAILED": (1, 4.0), "PREEMPTED": (1, 2.0),
    }  # fmt: skip
    (ann,) = facts.by_user
    assert (ann.gpu_hours, ann.failed_gpu_hours, ann.wait_p50_s) == (22.0, 6.0, HOUR)
    assert facts.installed_gpu_hours == 8 * 24


def test_only_what_lies_within_the_span_counts() -> None:
    facts = facts_of(usage([stay("1", "RUNNING", 0, -10, 5, 2), stay("2", "COMPLETED", 0, 20, 30, 2)]))
    assert sum(one.gpu_hours for one in facts.by_state) == pytest.approx(2 * 5 + 2 * 4)


def test_offered_load_is_what_runs_and_what_waits() -> None:
    facts = facts_of(usage([stay("1", "COMPLETED", 0, 0, 12, 8), stay("2", "COMPLETED", 12, 12, 24, 8)]))
    assert facts.load is not None
    assert (facts.load.most, facts.load.p50, facts.load.installed) == (16.0, 12.0, 8)
    assert facts.load.little == pytest.approx(1.0, abs=0.01)
    assert not facts.load.knows_reasons


def test_without_jobs_nothing_is_said_of_load_and_without_readings_nothing_of_boards() -> None:
    known = usage([])
    facts = facts_of(Usage(known.starts, known.step, known.boards, (), known.means))
    assert facts.load is None
    nothing = facts_of(
        Usage(known.starts, known.step, (), (), {}, stays=(stay("1", "FAILED", 0, 0, 1, 8),), jobs_known=True)
    )
    assert math.isnan(nothing.coverage)
    assert nothing.by_state[0].gpu_hours == 8.0
    assert nothing.spreads == ()
    assert any("gpu_fault" in one for one in nothing.not_looked_at)


def test_a_week_by_its_hours_and_what_was_held_unused() -> None:
    told = usage([stay("1", "COMPLETED", 0, 0, 24, 4, range(4))])
    values = told.means["gpu.util"]
    values[:144] = 0.0
    values[:, 5] = np.nan
    facts = facts_of(told)
    (week,) = facts.weeks
    assert sum(value == 0.0 for value in week.values) == 12
    assert sum(math.isnan(value) for value in week.values) == 168 - 24
    (waste,) = facts.waste
    assert (waste.gpu_hours, waste.unused_gpu_hours) == (96.0, 48.0)
    assert facts.by_metric["gpu.util"] == pytest.approx(7 / 8)


def test_findings_that_recur_are_counted_by_day() -> None:
    codes = [Incident("xid", "79", "r01n01", "3", START + DAY * day, 1.0) for day in (1, 2)]
    (found,) = facts_of(usage([]), codes, ("ALERTS", "DCGM_FI_DEV_XID_ERRORS")).recurring
    assert (found.name, found.days, found.where) == ("79", 2, ("r01n01/3",))
    # one a GPU and day is counted: how many there were is not known
    assert (found.amount, found.low) == (2.0, 2.0)
    assert math.isnan(found.high)


def test_what_gaps_hide_of_a_finding_is_in_its_interval() -> None:
    whole = usage([])
    limited = np.full((len(whole.starts), 8), 0.25, np.float32)
    told = replace(whole, means={**whole.means, "gpu.thermal_violation": limited})
    (found,) = facts_of(told).recurring
    hours = len(whole.starts) * whole.step / HOUR * 8
    assert found.low == found.amount == pytest.approx(hours / 4)
    assert found.high == pytest.approx(found.amount)
    dark = limited.copy()
    dark[::2] = np.nan
    (found,) = facts_of(replace(told, means={**whole.means, "gpu.thermal_violation": dark})).recurring
    assert found.low == pytest.approx(hours / 8, rel=0.05)
    assert found.high == pytest.approx(hours / 4, rel=0.05)


# -- joining


def test_accounting_comes_back_as_it_went() -> None:
    told = month(nodes=4, days=3.0).usage
    jobs = read(accounting(told).split("\n"), "sacct.txt").jobs
    span = Span(START, 3600.0, 72)
    made = joined(span, None, jobs).usage
    assert made.jobs_known
    assert made.boards == ()
    assert [one.id for one in made.stays] == sorted(
        (one.id for one in told.stays), key=[one.id for one in made.stays].index
    )
    hours = sum(one.gpu_hours for one in facts_of(made).by_state)
    assert hours == pytest.approx(sum(one.gpu_hours for one in facts_of(told).by_state), rel=0.001)


def gathered(held: Sequence[Held], boards: int = 2) -> Gathered:
    told = Gathered(SPAN)
    told.boards = [Seen("n01", str(slot), (f"GPU-{slot}",), "H100", "", 0, 287) for slot in range(boards)]
    told.hosts = ["n01"]
    told.means = {"gpu.util": np.ones((288, boards), np.float32)}
    told.coverage = np.ones((288, boards), np.float32)
    told.held, told.jobs_known = list(held), bool(held)
    return told


def accounted(id_: str, gpus: int, begin: float, end: float | None, state: str = "COMPLETED") -> Accounted:
    start = START + begin * HOUR
    return Accounted(id_, "", "", "", "", state, start - 60, None, start, None if end is None else START + end * HOUR, None,
                     ("n01.example.org",), gpus, 8, None, None, None)  # fmt: skip


def test_a_job_on_an_instance_of_a_divided_gpu_holds_its_share() -> None:
    span = Span(START, 3600.0, 24)
    boards = [Seen("r01n01", "0", ("GPU-0",), "", "", 0, 23)]
    both = [held(job, 0, 0, 24)._replace(share=0.5) for job in ("1", "2")]
    gathered = Gathered(
        span,
        boards=boards,
        hosts=["r01n01"],
        held=both,
        jobs_known=True,
        means={"gpu.util": np.full((24, 1), 0.5, np.float32)},
        coverage=np.ones((24, 1), np.float32),
    )
    made = joined(span, gathered, None)
    assert [(one.gpu_count, one.gpus_held) for one in made.usage.stays] == [(1, 0.5), (1, 0.5)]
    assert made.remarks[0].startswith("1 GPUs are divided (MIG)")
    counsel = advise(made.usage, settings())
    assert counsel.utilisations.cluster.gpu_hours is not None
    assert counsel.utilisations.cluster.gpu_hours.value == pytest.approx(24)
    # both may have been idle in turn
    assert counsel.reclaimable is not None
    assert counsel.reclaimable.value == 0
    assert counsel.reclaimable.high == pytest.approx(24)


def held(job: str, board: int, begin: float, end: float, *, is_open: bool = False) -> Held:
    return Held(f"slurm:{job}", "", "", "", board, START + begin * HOUR, START + end * HOUR, is_open)


def test_accounting_says_when_and_labels_say_which() -> None:
    made = joined(SPAN, gathered([held("7", 1, 1.1, 3.9)]), [accounted("7", 1, 1.0, 4.0)]).usage
    (one,) = made.stays
    assert (one.boards, one.started_at, one.ended_at) == ((1,), START + HOUR, START + 4 * HOUR)
    assert one.hosts == (0,)


def test_labels_alone_tell_of_jobs_without_names() -> None:
    made = joined(
        SPAN, gathered([held("7", 0, 1, 4), held("7", 1, 1, 4), held("8", 0, 5, 24, is_open=True)]), None
    ).usage
    seven, eight = made.stays
    assert (seven.gpu_count, seven.boards, seven.user, seven.name) == (2, (0, 1), "", "")
    assert math.isnan(eight.ended_at)
    assert math.isnan(eight.submitted_at)


def test_a_label_on_more_boards_than_accounting_knows_is_not_believed() -> None:
    made = joined(SPAN, gathered([held("7", 0, 1, 4), held("7", 1, 1, 4)]), [accounted("7", 1, 1.0, 4.0)])
    assert made.usage.stays[0].boards is None
    assert "another number of GPUs" in made.remarks[0]


def test_a_requeued_job_has_the_boards_of_each_run() -> None:
    runs = [held("7", 0, 1, 3), held("7", 1, 10, 12)]
    made = joined(
        SPAN, gathered(runs), [accounted("7", 1, 1.0, 3.0, "NODE_FAIL"), accounted("7", 1, 10.0, 12.0)]
    ).usage
    assert [one.boards for one in made.stays] == [(0,), (1,)]


def test_accounting_that_counts_no_gpus_says_how_it_would() -> None:
    made = joined(SPAN, gathered([]), [accounted("7", 0, 1.0, 3.0)])
    assert made.usage.stays == ()
    assert "AccountingStorageTRES" in made.remarks[0]


def test_jobs_that_labels_alone_show_still_held_their_gpus() -> None:
    made = joined(SPAN, gathered([held("7", 0, 1, 4), held("8", 1, 2, 6)]), [accounted("7", 1, 1.0, 4.0)])
    assert [(one.id, one.boards, one.state) for one in made.usage.stays] == [
        ("slurm:7", (0,), "COMPLETED"),
        ("slurm:8", (1,), ""),
    ]
    assert "1 jobs that labels show are not in the accounting" in made.remarks[0]


def test_labels_count_the_gpus_that_accounting_does_not() -> None:
    made = joined(SPAN, gathered([held("7", 0, 1, 4), held("7", 1, 1, 4)]), [accounted("7", 0, 1.0, 4.0)])
    assert [(one.gpu_count, one.boards) for one in made.usage.stays] == [(2, (0, 1))]
    assert "AccountingStorageTRES" in made.remarks[0]


def test_boards_that_came_late_count_as_installed_from_then_on() -> None:
    told = gathered([held("7", 1, 12, 24, is_open=True)])
    told.boards[1] = told.boards[1]._replace(first=144, was_elsewhere=True)
    told.means["gpu.util"][:144, 1] = NAN
    told.coverage[:144, 1] = 0
    made = joined(SPAN, told, None)
    facts = facts_of(made.usage)
    assert facts.installed_gpu_hours == 36
    assert facts.coverage == 1.0
    assert "from their first sample to their last" in made.remarks[0]
    assert "1 GPUs changed hosts" in made.remarks[1]
    allocated = advise(made.usage, settings()).utilisations.cluster.allocated.ratio
    assert allocated is not None
    assert allocated.value == pytest.approx(1 / 3, abs=0.01)


@pytest.mark.parametrize(
    ("pod", "name"),
    [
        ("train-7c9f8d6b5c-x2x4z", "train"),
        ("vllm-chat-5d8c9b7f6-bqk7t", "vllm-chat"),
        ("sweep-q8w9x", "sweep"),
        ("nccl-worker-12", "nccl"),
        ("db-0", "db"),
        ("train-large", "train-large"),
        ("notebook-alice", "notebook-alice"),
        ("llama-3", "llama"),
        ("x", "x"),
        ("-12345", "-12345"),
    ],
)
def test_pods_without_an_owner_belong_together_by_what_their_names_begin_with(pod: str, name: str) -> None:
    assert pods_of(pod) == name


def test_what_runs_in_the_dark_is_not_told_as_none() -> None:
    """By labels alone: eight GPUs, four of them always held, and nothing heard of any for two thirds of the time."""
    made = month(nodes=1, days=3.0).usage
    stay = replace(
        made.stays[0],
        submitted_at=math.nan,
        started_at=START,
        ended_at=math.nan,
        gpu_count=4,
        boards=(0, 1, 2, 3),
    )
    told = replace(made, stays=(stay,), means={"gpu.util": np.full((len(made.starts), 8), 0.9, np.float32)})
    dark = np.arange(len(made.starts)) % 36 >= 12
    told.means["gpu.util"][dark] = np.nan
    # what labels do not show at a dark instant
    gone = replace(told, stays=tuple(
        replace(stay, id=f"slurm:{n}", started_at=at, ended_at=at + 12 * made.step) for n, at in enumerate(made.starts[::36])
    ))  # fmt: skip
    load = facts_of(gone).load
    assert load is not None
    assert (load.p50, load.p95, load.most) == (4.0, 4.0, 4.0)
    assert all(running == 4.0 for _, running, _ in load.by_day)
