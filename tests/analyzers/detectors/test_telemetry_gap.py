"""Telemetry gaps: nodes, exporters and the monitoring that stop telling, or say the same for ever."""

from __future__ import annotations

import numpy as np
import pytest
from lab.telemetry import AT, Cells, dense, found, gpus, idle, job, window_of, xid

from coldaisle.analyzers.finding import Candidate, Severity
from coldaisle.sources.source import NodeFact

NODES = ("n01", "n02", "n03", "n04")
GPUS = gpus(*NODES)
POLLS = 120


def world(**of_nodes: float) -> Cells:
    cells = dense(len(GPUS), POLLS)
    cells["node.cpu_util"] = np.full((POLLS, len(NODES)), 0.3)
    return cells


def silence(cells: Cells, node: int, polls: int, *, host: bool = True) -> Cells:
    for key, values in cells.items():
        if key.startswith("gpu."):
            values[-polls:, 8 * node : 8 * node + 8] = np.nan
        elif host:
            values[-polls:, node] = np.nan
    return cells


def said(cells: Cells, **more: object) -> tuple[Candidate, ...]:
    told = {"gpus": GPUS, "nodes": NODES, "jobs": (job("1", GPUS),), "metrics": cells, **more}
    return found("telemetry_gap", window_of(**told))  # type: ignore[arg-type]


def one(candidates: tuple[Candidate, ...]) -> Candidate:
    (candidate,) = candidates
    return candidate


@pytest.mark.parametrize("step", [1.0, 5.0, 30.0])
def test_a_node_that_falls_silent(step: float) -> None:
    polls = max(8, int(40 / step))
    candidate = one(said(silence(world(), 1, polls), step=step))
    assert (candidate.variant, candidate.roots.nodes, candidate.severity) == (
        "node",
        ("n02",),
        Severity.WARNING,
    )
    assert candidate.since == AT - polls * step
    assert candidate.loss == 0.0


@pytest.mark.parametrize("host", [True, False])
def test_boards_that_worked_until_they_fell_silent_are_missed_though_the_label_of_their_job_went_with_them(
    host: bool,
) -> None:
    others = job("1", [key for key in GPUS if not key.startswith("n02/")])
    candidate = one(said(silence(world(), 1, 70, host=host), jobs=(others,)))
    assert (candidate.roots.nodes, candidate.severity) == (("n02",), Severity.WARNING)
    rested = idle(world(), range(8, 16))
    assert one(said(silence(rested, 1, 70, host=host), jobs=(others,))).severity == Severity.INFO


def test_an_exporter_that_falls_silent_while_its_node_goes_on() -> None:
    candidate = one(said(silence(world(), 1, 10, host=False)))
    assert (candidate.variant, candidate.roots.nodes) == ("exporter", ("n02",))


def test_an_exporter_that_says_the_same_for_ever() -> None:
    cells = world()
    for key, values in cells.items():
        if key.startswith("gpu."):
            values[-40:, 8:16] = values[-40, 8:16]
    candidate = one(said(cells))
    assert (candidate.variant, candidate.roots.nodes) == ("stuck", ("n02",))


def test_a_gap_of_the_whole_cluster_is_one_finding_and_no_fault() -> None:
    cells = world()
    for node in range(3):
        silence(cells, node, 20)
    candidate = one(said(cells))
    assert (candidate.variant, candidate.roots.nodes) == ("cluster", ("n01", "n02", "n03"))
    assert found("gpu_fault", window_of(gpus=GPUS, nodes=NODES, metrics=cells)) == ()


def test_everybody_is_silent() -> None:
    assert one(said(world(), late=90.0)).variant == "cluster"


# --- what is no gap ---------------------------------------------------------------------------------------


def test_all_tell() -> None:
    assert said(world()) == ()


def test_a_dropped_sample_or_two() -> None:
    assert said(silence(world(), 1, 2)) == ()


def test_an_exporter_that_is_started_anew() -> None:
    assert said(silence(world(), 1, 5)) == ()


def test_host_metrics_that_come_less_often() -> None:
    assert said(world(), step={"gpu": 5.0, "node": 30.0}) == ()


def test_host_metrics_alone_that_end() -> None:
    cells = world()
    cells["node.cpu_util"][-60:, 1] = np.nan
    assert said(cells) == ()


def test_one_board_that_vanishes_is_a_fault() -> None:
    cells = world()
    for key, values in cells.items():
        if key.startswith("gpu."):
            values[-20:, 8] = np.nan
    assert said(cells) == ()


def test_boards_at_rest_that_do_not_move() -> None:
    assert said(idle(world(), range(len(GPUS)))) == ()


def test_a_node_that_its_scheduler_calls_down() -> None:
    down = [NodeFact(AT - 600, "n02", state="down", flags=("down",))]
    assert said(silence(world(), 1, 60), facts=down) == ()


def test_an_exporter_that_hangs_on_a_dead_board() -> None:
    assert said(silence(world(), 1, 10, host=False), events=[xid("n02/3", 79, AT - 60.0)]) == ()


def stands(cells: Cells, gpu: int, polls: int) -> Cells:
    for values in cells.values():
        values[-polls:, gpu] = values[-polls, gpu]
    return cells


def test_the_feed_of_one_board_that_stands_still_while_its_job_goes_on() -> None:
    cells = dense(len(GPUS), POLLS)
    candidate = one(said(stands(cells, 3, 48)))
    assert (candidate.variant, candidate.roots.gpus, candidate.severity) == (
        "board",
        ("n01/3",),
        Severity.WARNING,
    )
    assert candidate.since == pytest.approx(AT - 47 * 5.0, abs=10)
    assert candidate.loss == 0.0
    assert found("gpu_fault", window_of(gpus=GPUS, jobs=(job("1", GPUS),), metrics=cells)) == ()


def test_a_feed_that_stands_for_some_polls_is_none() -> None:
    assert said(stands(dense(len(GPUS), POLLS), 3, 20)) == ()
