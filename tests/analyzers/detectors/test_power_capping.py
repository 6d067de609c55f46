"""Power capping: an operator's cap, unequal limits, the brake; a dense job at its limit is healthy."""

from __future__ import annotations

import numpy as np
import pytest
from lab.telemetry import AT, Cells, dense, found, gpus, idle, job, verdict, window_of

from coldaisle.analyzers.finding import Candidate, Severity

GPUS = gpus("n01", "n02")
JOB = (job("1", GPUS),)
SINCE = 60


def said(cells: Cells, **more: object) -> tuple[Candidate, ...]:
    told = {"gpus": GPUS, "jobs": JOB, "metrics": cells, **more}
    return found("power_capping", window_of(**told))  # type: ignore[arg-type]


def cap(
    cells: Cells, boards: slice, watts: float = 500.0, clock: float = 1605.0, polls: int = SINCE
) -> Cells:
    cells["gpu.power_limit"][-polls:, boards] = watts
    cells["gpu.power"][-polls:, boards] *= 0.99 * watts / 610.0
    cells["gpu.sm_clock"][-polls:, boards] = clock
    cells["gpu.throttle"][-polls:, boards] = 0x4
    cells["gpu.power_violation"][-polls:, boards] = 0.9
    return cells


def test_an_operators_cap() -> None:
    candidates = said(cap(dense(len(GPUS)), slice(None)))
    assert {c.variant for c in candidates} == {"operator"}
    assert {c.roots.gpus[0] for c in candidates} == set(GPUS)
    first = candidates[0]
    assert first.severity <= Severity.WARNING
    assert first.words["cap"] == "500 W"
    assert first.since == pytest.approx(AT - (SINCE - 1) * 5.0, abs=10.0)
    assert 0.03 < first.loss < 0.25


def test_unequal_limits_in_a_job() -> None:
    (candidate,) = said(cap(dense(len(GPUS)), slice(3, 4)))
    assert (candidate.variant, candidate.roots.gpus) == ("unequal", ("n01/3",))


def test_where_half_of_the_boards_are_capped_the_others_limit_is_told() -> None:
    (first, *others) = said(cap(dense(len(GPUS)), slice(0, 8)))
    assert (first.variant, first.words["default"], len(others)) == ("unequal", "700 W", 7)


def test_samples_a_minute_apart_tell_when_it_began() -> None:
    """As after a start: what was before the last minutes is known in minutes."""
    cells = cap(dense(len(GPUS)), slice(3, 4), polls=120)
    for key in cells:
        cells[key][[at for at in range(len(cells[key]) - 40) if at % 12]] = np.nan
    (candidate,) = said(cells)
    assert not candidate.since_bound
    assert candidate.since == pytest.approx(AT - 600.0, abs=61.0)


def test_the_power_brake_is_critical() -> None:
    cells = dense(len(GPUS))
    cells["gpu.throttle"][-SINCE:, :8] = 0x88
    cells["gpu.sm_clock"][-SINCE:, :8] = 990.0
    cells["gpu.power"][-SINCE:, :8] = 300.0
    candidates = said(cells)
    assert {c.roots.gpus[0] for c in candidates} == set(GPUS[:8])
    assert {(c.variant, c.severity) for c in candidates} == {("brake", Severity.CRITICAL)}
    assert candidates[0].since == pytest.approx(AT - (SINCE - 1) * 5.0, abs=10.0)


# --- what only looks like it ----------------------------------------------------------------------------


def test_dense_work_at_the_boards_own_limit() -> None:
    cells = dense(len(GPUS))
    cells["gpu.power"][:] = 697.0
    cells["gpu.sm_clock"][:] = 1650.0
    cells["gpu.throttle"][:] = 0x4
    cells["gpu.power_violation"][:] = 0.95
    assert said(cells) == ()


def test_the_bit_at_a_quarter_of_the_limit() -> None:
    """As in work with long gaps: each burst overshoots for a moment."""
    cells = dense(len(GPUS))
    cells["gpu.power"][:] = 186.0
    cells["gpu.util"][:] = 0.5
    cells["gpu.throttle"][::5] = 0x4
    assert said(cells) == ()


def test_a_cap_that_does_not_bind() -> None:
    cells = dense(len(GPUS))
    cells["gpu.power_limit"][-SINCE:] = 650.0
    cells["gpu.power"][:] = 420.0
    assert said(cells) == ()


def test_a_cap_on_boards_at_rest() -> None:
    cells = idle(dense(len(GPUS)), range(len(GPUS)))
    cells["gpu.power_limit"][:] = 500.0
    assert said(cells) == ()


def test_locked_clocks() -> None:
    cells = dense(len(GPUS))
    cells["gpu.sm_clock"][-SINCE:] = 1410.0
    cells["gpu.power"][-SINCE:] = 430.0
    cells["gpu.throttle"][-SINCE:] = 0x2
    assert said(cells) == ()


def test_heat_is_no_cap() -> None:
    cells = dense(len(GPUS))
    cells["gpu.sm_clock"][-SINCE:, 3] = 1410.0
    cells["gpu.power"][-SINCE:, 3] = 480.0
    cells["gpu.temp"][-SINCE:, 3] = 87.0
    cells["gpu.throttle"][-SINCE:, 3] = 0x20
    assert said(cells) == ()


def test_default_fields_tell_no_limit() -> None:
    assert said(dense(len(GPUS), fields="default")) == ()


def test_without_limits_and_reasons_a_clock_far_below_the_usual_is_not_decided() -> None:
    cells = cap(dense(len(GPUS)), slice(0, 4), watts=400.0, clock=1200.0)
    for key in ("gpu.power_limit", "gpu.power_max", "gpu.throttle", "gpu.power_violation"):
        cells.pop(key, None)
    told = verdict("power_capping", window_of(gpus=GPUS, jobs=JOB, metrics=cells))
    assert not told.candidates
    (undecided,) = told.undecided
    assert undecided.scope.gpus == GPUS[:4]
    assert "without gpu.power_limit or gpu.throttle" in undecided.why


def locked(clock: float, boards: slice = slice(None)) -> Cells:
    """Clocks that somebody locked, as dcgm-exporter's default fields have it."""
    cells = dense(len(GPUS), fields="default")
    cells["gpu.sm_clock"][-SINCE:, boards] = clock
    cells["gpu.power"][-SINCE:, boards] *= 0.8
    return cells


def test_clocks_that_stand_still_below_what_they_were_are_not_decided_without_reasons() -> None:
    told = verdict("power_capping", window_of(gpus=GPUS, jobs=JOB, metrics=locked(1710.0)))
    assert not told.candidates
    (undecided,) = told.undecided
    assert undecided.scope.gpus == GPUS
    assert "cannot tell locked clocks from a hardware slowdown without gpu.throttle" in undecided.why


def test_a_clock_as_ever_one_that_wavers_and_one_board_s_own_are_not_even_undecided() -> None:
    wavers = locked(1710.0)
    wavers["gpu.sm_clock"][-SINCE::2] += 30.0
    for cells in (locked(1905.0), wavers, locked(1710.0, slice(0, 1))):
        told = verdict("power_capping", window_of(gpus=GPUS, jobs=JOB, metrics=cells))
        assert (told.candidates, told.undecided) == ((), ())


def test_dense_work_at_its_watts_is_not_even_undecided() -> None:
    cells = dense(len(GPUS))
    for key in ("gpu.power_limit", "gpu.power_max", "gpu.throttle", "gpu.power_violation"):
        cells.pop(key, None)
    assert not verdict("power_capping", window_of(gpus=GPUS, jobs=JOB, metrics=cells)).undecided
