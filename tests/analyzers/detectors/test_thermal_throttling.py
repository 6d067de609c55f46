"""Thermal throttling: by counters, by bits, by neither; of core, HBM and hardware; and what only looks like it."""

from __future__ import annotations

import numpy as np
import pytest
from lab.telemetry import AT, STEP, Cells, dense, found, gpus, idle, job, verdict, window_of

from coldaisle.analyzers.finding import Candidate, Severity

GPUS = gpus("n01", "n02")
JOB = (job("1", GPUS),)
HOT = 3
SINCE = 48
"""Polls: four minutes."""


def said(cells: Cells, **more: object) -> tuple[Candidate, ...]:
    told = {"gpus": GPUS, "jobs": JOB, "metrics": cells, **more}
    return found("thermal_throttling", window_of(**told))  # type: ignore[arg-type]


def heat(
    cells: Cells, gpu: int = HOT, polls: int = SINCE, clock: float = 1410.0, temp: float = 87.0
) -> Cells:
    """A board slows itself: it is hot, its clock falls, and its power with it; its peers wait for it."""
    others = [
        number for number in range(cells["gpu.util"].shape[1]) if cells["gpu.sm_clock"][-1, number] > 1800
    ]
    for key in ("gpu.tensor_active", "gpu.sm_active", "gpu.power", "gpu.energy"):
        if key in cells:
            cells[key][-polls:, others] *= 0.8
    for key, value in {
        "gpu.sm_clock": clock,
        "gpu.temp": temp,
        "gpu.power": 480.0,
        "gpu.energy": 480.0,
        "gpu.util": 1.0,
    }.items():
        cells[key][-polls:, gpu] = value
    cells["gpu.sm_clock"][-polls:, gpu] += 15 * np.random.default_rng(1).integers(-2, 3, polls)
    return cells


def one(candidates: tuple[Candidate, ...]) -> Candidate:
    (candidate,) = candidates
    return candidate


@pytest.mark.parametrize("step", [1.0, 5.0, 15.0, 30.0])
def test_by_the_counters(step: float) -> None:
    cells = heat(dense(len(GPUS)))
    cells["gpu.thermal_violation"][-SINCE:, HOT] = 0.3
    candidate = one(said(cells, step=step))
    assert candidate.roots.gpus == ("n01/3",)
    assert candidate.variant == "core"
    assert candidate.severity >= Severity.WARNING
    assert candidate.is_open
    assert 0.05 < candidate.loss < 0.4  # the clock is at 74 %
    assert candidate.since == pytest.approx(AT - (SINCE - 1) * step, abs=3 * step)
    assert not candidate.since_bound
    assert {e.metric for e in candidate.evidence} >= {"gpu.thermal_violation", "gpu.sm_clock"}


def test_by_the_bits_where_there_are_no_counters() -> None:
    cells = heat(dense(len(GPUS)))
    del cells["gpu.thermal_violation"]
    cells["gpu.throttle"][-SINCE::3, HOT] = 0x20
    assert one(said(cells)).variant == "core"


def test_by_neither_with_default_fields() -> None:
    candidate = one(said(heat(dense(len(GPUS), fields="default"))))
    assert (candidate.variant, candidate.roots.gpus) == ("core", ("n01/3",))
    assert candidate.confidence < 0.9


def test_hbm_under_a_cool_core() -> None:
    """As on GWDG's ggpu129: core 78 C, HBM 94 C."""
    cells = heat(dense(len(GPUS), fields="default"), temp=76.0)
    cells["gpu.mem_temp"][-SINCE:, HOT] = 95.0
    assert one(said(cells)).variant == "hbm"


def test_the_hardware_slowdown_is_critical() -> None:
    cells = heat(dense(len(GPUS)), clock=990.0)
    cells["gpu.thermal_violation"][-SINCE:, HOT] = 0.8
    cells["gpu.throttle"][-SINCE:, HOT] = 0x48
    candidate = one(said(cells))
    assert (candidate.variant, candidate.severity) == ("hardware", Severity.CRITICAL)


def test_hot_for_longer_than_is_known_without_peers() -> None:
    """No healthy clock was ever seen: the model's highest one is what is left."""
    cells = heat(dense(1, fields="default"), gpu=0, polls=400)
    candidate = one(said(cells, gpus=("n01/0",), jobs=()))
    assert candidate.since_bound


def test_a_whole_node() -> None:
    cells = dense(len(GPUS))
    for gpu in range(8):
        heat(cells, gpu)
        cells["gpu.thermal_violation"][-SINCE:, gpu] = 0.3
    assert {c.roots.gpus[0] for c in said(cells)} == set(GPUS[:8])


def test_one_sample_in_ten_is_missing() -> None:
    cells = heat(dense(len(GPUS)))
    cells["gpu.thermal_violation"][-SINCE:, HOT] = 0.3
    draw = np.random.default_rng(5)
    for values in cells.values():
        values[draw.random(values.shape) < 0.1] = np.nan
    candidate = one(said(cells))
    assert candidate.since == pytest.approx(AT - (SINCE - 1) * STEP, abs=4 * STEP)


def dense_at_its_limit(polls: int, fields: str) -> Cells:
    """Boards whose power keeps the clock below what it reaches between two steps, as it has for as long as they work."""
    cells = dense(len(GPUS), polls, fields=fields)
    cells["gpu.sm_clock"][:] = 1800.0
    cells["gpu.sm_clock"][::12] = 1980.0
    cells["gpu.power"] *= 1.12
    return cells


@pytest.mark.parametrize("minutes", [5, 12, 25, 40])
@pytest.mark.parametrize("fields", ["full", "default"])
def test_it_began_with_the_heat_not_with_the_clock_that_power_had_lowered(fields: str, minutes: int) -> None:
    polls = minutes * 4
    cells = heat(dense_at_its_limit(4 * 60, fields), polls=polls)
    if fields == "full":
        cells["gpu.thermal_violation"][-polls:, HOT] = 0.3
        cells["gpu.temp"][:, HOT] = 84.0  # it was hot before, and was not held back
    candidate = one(said(cells, step=15.0))
    assert candidate.since == pytest.approx(AT - polls * 15.0, abs=75.0)
    assert not candidate.since_bound


def test_what_comes_and_goes_began_when_it_first_came() -> None:
    cells = heat(dense(len(GPUS)), polls=120)
    cells["gpu.thermal_violation"][-120::4, HOT] = 0.2
    assert one(said(cells)).since == pytest.approx(AT - 120 * STEP, abs=30.0)


def test_it_is_not_older_than_what_is_known_of_the_board() -> None:
    cells = heat(dense(len(GPUS), 4 * 60), polls=4 * 60, clock=1410.0)
    cells["gpu.thermal_violation"][:, HOT] = 0.3
    for values in cells.values():
        values[:120, HOT] = np.nan  # its exporter came half an hour ago
    candidate = one(said(cells, step=15.0))
    assert candidate.since == pytest.approx(AT - 1800.0, abs=75.0)
    assert candidate.since_bound


@pytest.mark.parametrize("step", [5.0, 30.0])
@pytest.mark.parametrize("fields", ["full", "default"])
def test_who_has_been_cool_for_minutes_is_well(fields: str, step: float) -> None:
    def well(ago_s: float, **signs: float) -> bool:
        cells = dense(len(GPUS), fields=fields)
        for key, value in signs.items():
            cells[f"gpu.{key}"][: -max(int(ago_s / step), 1), HOT] = value
        told = verdict("thermal_throttling", window_of(gpus=GPUS, jobs=JOB, metrics=cells, step=step)).well
        assert told is not None
        assert told[np.arange(len(GPUS)) != HOT].all()
        return bool(told[HOT])

    assert well(300.0, temp=87.0, sm_clock=1410.0)
    assert not well(100.0, temp=87.0)
    assert not well(100.0, mem_temp=96.0)
    if fields == "full":
        assert not well(100.0, thermal_violation=0.3)


def test_of_what_nobody_measures_the_heat_it_is_not_said_to_be_well() -> None:
    cells = dense(len(GPUS))
    del cells["gpu.temp"]
    told = verdict("thermal_throttling", window_of(gpus=GPUS, jobs=JOB, metrics=cells)).well
    assert told is not None
    assert not told.any()


# --- what only looks like it ----------------------------------------------------------------------------


def test_a_dense_job_is_silent() -> None:
    assert said(dense(len(GPUS))) == ()


@pytest.mark.parametrize("fields", ["full", "default"])
def test_hot_but_fine(fields: str) -> None:
    cells = dense(len(GPUS), fields=fields)
    cells["gpu.temp"][:, HOT] = 84.0
    assert said(cells) == ()


@pytest.mark.parametrize("fields", ["full", "default"])
def test_locked_application_clocks(fields: str) -> None:
    cells = dense(len(GPUS), fields=fields)
    cells["gpu.sm_clock"][-SINCE:, :] = 1410.0
    cells["gpu.power"][-SINCE:, :] = 430.0
    if fields == "full":
        cells["gpu.throttle"][-SINCE:, :] = 0x2
    assert said(cells) == ()


@pytest.mark.parametrize("fields", ["full", "default"])
def test_a_board_at_its_power_limit(fields: str) -> None:
    cells = dense(len(GPUS), fields=fields)
    cells["gpu.sm_clock"][-SINCE:, HOT] = 1620.0
    cells["gpu.power"][-SINCE:, HOT] = 698.0
    if fields == "full":
        cells["gpu.throttle"][-SINCE:, HOT] = 0x4
        cells["gpu.power_violation"][-SINCE:, HOT] = 0.9
    assert said(cells) == ()


def test_a_bit_seen_once() -> None:
    cells = dense(len(GPUS))
    del cells["gpu.thermal_violation"]
    cells["gpu.throttle"][-2, HOT] = 0x20
    assert said(cells) == ()


def test_a_hot_board_that_goes_to_rest() -> None:
    cells = idle(dense(len(GPUS)), range(len(GPUS)), slice(-6, None))
    cells["gpu.sm_clock"][-6:] = 345.0
    cells["gpu.temp"][:, HOT] = 84.0
    cells["gpu.throttle"][-6:, HOT] = 0x20
    assert said(cells) == ()


def test_the_first_polls_say_what_they_wait_for() -> None:
    cells = {key: values[-2:] for key, values in heat(dense(len(GPUS))).items()}
    warming = verdict("thermal_throttling", window_of(gpus=GPUS, jobs=JOB, metrics=cells)).warming
    assert warming is not None
    assert (warming.have, warming.need) == (2.0, 4)


def test_by_cool_boards_that_draw_as_much_where_power_is_at_its_limit() -> None:
    """Neither counters nor bits: the limit holds all of the job's boards alike, the hot one is slower for the same watts."""
    cells = dense(len(GPUS), fields="default")
    cells["gpu.power"][:] = 694.0 + np.random.default_rng(3).normal(0, 2.0, cells["gpu.power"].shape)
    cells["gpu.sm_clock"][:] = 1740.0
    calm = {key: values.copy() for key, values in cells.items()}
    cells["gpu.sm_clock"][-SINCE:, HOT] = 1500.0
    assert not said(cells)  # cool: a board that needs more watts than others
    for key, value in (("gpu.temp", 86.0), ("gpu.mem_temp", 97.0)):
        cells[key][-SINCE:, HOT] = value
    assert one(said(cells)).roots.gpus == ("n01/3",)
    calm["gpu.temp"][:, HOT] = 86.0
    assert not said(calm)  # hot and as fast as the others
