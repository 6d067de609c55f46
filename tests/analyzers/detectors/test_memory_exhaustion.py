"""Memory exhaustion: of boards and of hosts; being full alone is no sign."""

from __future__ import annotations

import numpy as np
import pytest
from lab.telemetry import AT, Cells, dense, found, gpus, idle, job, window_of, xid

from coldaisle.analyzers.finding import Candidate, Severity
from coldaisle.sources.source import Event, NodeRef

GPUS = gpus("n01")
NODES = ("n01",)


def said(cells: Cells, **more: object) -> tuple[Candidate, ...]:
    told = {"gpus": GPUS, "nodes": NODES, "jobs": (job("1", GPUS),), "metrics": cells, **more}
    return found("memory_exhaustion", window_of(**told))  # type: ignore[arg-type]


def one(candidates: tuple[Candidate, ...]) -> Candidate:
    (candidate,) = candidates
    return candidate


def growing(to: float, over: int = 240, by: float = 0.25, polls: int = 400) -> Cells:
    cells = dense(len(GPUS), polls)
    cells["gpu.mem_ratio"][:, 3] = to - by
    cells["gpu.mem_ratio"][-over:, 3] = np.linspace(to - by, to, over)
    return cells


@pytest.mark.parametrize("step", [1.0, 5.0, 15.0, 30.0])
def test_memory_that_grows_towards_its_brim(step: float) -> None:
    over = int(1200 / step)
    candidate = one(said(growing(0.93, over, polls=max(400, over)), step=step))
    assert (candidate.variant, candidate.severity) == ("growing", Severity.WARNING)
    assert candidate.roots.gpus == ("n01/3",)


def test_memory_that_has_grown_to_its_brim() -> None:
    assert one(said(growing(0.99))).variant == "device"


def test_a_process_that_ended_of_it() -> None:
    cells = growing(0.99, 200)
    cells["gpu.mem_ratio"][-2:, 3] = 0.0
    candidate = one(said(cells, events=[xid("n01/3", 31, AT - 8.0)]))
    assert (candidate.variant, candidate.severity, candidate.loss) == ("device", Severity.CRITICAL, 1.0)
    assert candidate.is_immediate


def test_what_a_board_held_before_its_job_was_another_programs() -> None:
    cells = growing(0.99, 200)
    cells["gpu.mem_ratio"][-12:, 3] = 0.3
    ended = [xid("n01/3", 31, AT - 66.0)]
    assert one(said(cells, events=ended)).roots.gpus == ("n01/3",)
    assert said(cells, events=ended, jobs=(job("2", GPUS, since=AT - 62.0),)) == ()
    assert said(growing(0.99, 60), jobs=(job("2", GPUS, since=AT - 400.0),)) != ()


# --- boards that are just full --------------------------------------------------------------------------


@pytest.mark.parametrize("level", [0.75, 0.92, 0.97, 0.995])
def test_memory_taken_at_the_start_and_kept(level: float) -> None:
    cells = dense(len(GPUS))
    cells["gpu.mem_ratio"][:] = level
    assert said(cells) == ()


def test_an_engine_that_starts_takes_it_at_once() -> None:
    cells = dense(len(GPUS))
    cells["gpu.mem_ratio"][:] = 0.01
    cells["gpu.mem_ratio"][-60:] = 0.2
    cells["gpu.mem_ratio"][-50:] = 0.93
    assert said(cells) == ()


def test_memory_that_goes_up_and_down() -> None:
    """As on GWDG's ggpu149: between 92 and 99 % for days, batch by batch."""
    cells = dense(len(GPUS))
    cells["gpu.mem_ratio"][:] = np.random.default_rng(4).uniform(0.92, 0.99, cells["gpu.mem_ratio"].shape)
    assert said(cells) == ()


def test_a_growth_that_ended() -> None:
    cells = growing(0.96, 120)
    cells["gpu.mem_ratio"][:, 3] = np.concatenate([cells["gpu.mem_ratio"][80:, 3], np.full(80, 0.96)])
    assert said(cells) == ()


def test_an_xid_on_a_board_with_room_is_the_programs() -> None:
    assert said(dense(len(GPUS)), events=[xid("n01/3", 31)]) == ()


# --- hosts ----------------------------------------------------------------------------------------------


def host(ratio: float, psi: float, kills: float = 0.0) -> Cells:
    shape = (200, 1)
    return {
        **dense(len(GPUS), 200),
        "node.mem_ratio": np.full(shape, ratio), "node.psi_mem_full": np.full(shape, psi), "node.oom_kills": np.full(shape, kills),
    }  # fmt: skip


def test_a_host_whose_tasks_wait_for_memory() -> None:
    candidate = one(said(host(0.97, 0.3)))
    assert (candidate.variant, candidate.roots.nodes, candidate.severity) == (
        "host",
        ("n01",),
        Severity.WARNING,
    )


def test_a_host_that_killed_the_job() -> None:
    cells = idle(host(0.6, 0.0), range(len(GPUS)), slice(-3, None))
    candidate = one(
        said(cells, events=[Event(AT - 20, NodeRef("n01"), "oom", "Killed process 4711 (python)")])
    )
    assert (candidate.severity, candidate.since, candidate.is_immediate) == (Severity.CRITICAL, AT - 20, True)


def test_a_kill_before_all_jobs_of_a_host_began_is_none_of_theirs() -> None:
    kill = [Event(AT - 300, NodeRef("n01"), "oom", "Killed process 4711 (python)")]
    later = job("2", GPUS[:4], since=AT - 200.0)
    assert said(host(0.6, 0.0), events=kill, jobs=(later, job("3", GPUS[4:], since=AT - 100.0))) == ()
    assert said(host(0.6, 0.0), events=kill, jobs=(later,)) != (), "whose boards are free now"
    assert said(host(0.6, 0.0), events=kill, jobs=(later, job("3", GPUS[4:]))) != ()


def test_a_kill_beside_a_job_that_goes_on() -> None:
    kill = Event(AT - 20, NodeRef("n01"), "oom", "Killed process 99 (rsync)")
    candidate = one(said(host(0.6, 0.0), events=[kill]))
    assert (candidate.severity, candidate.loss, candidate.is_immediate) == (Severity.WARNING, 0.0, True)


def test_a_kill_that_only_the_counter_tells_of() -> None:
    cells = host(0.9, 0.05)
    cells["node.oom_kills"][-10, 0] = 0.2
    candidate = one(said(cells))
    assert candidate.evidence[0].metric == "event.oom"
    assert candidate.since == pytest.approx(AT - 45.0, abs=5.0)


def test_a_host_that_is_full_of_cache_or_of_shared_memory() -> None:
    assert said(host(0.97, 0.0)) == ()
    assert said(host(0.5, 0.3)) == ()
