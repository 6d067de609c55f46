"""Saturated links: full, and compute waits; full under full compute, and bursts, are healthy."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from lab.telemetry import AT, H100, found, gpus, jitter, job, window_of
from numpy.typing import NDArray

from coldaisle.analyzers.finding import Candidate

NAME = "interconnect_saturation"
NODES = ("n01", "n02")
GPUS = gpus(*NODES)
PORTS = tuple(f"{node}/mlx5_{rail}/1" for node in NODES for rail in range(8))
POLLS, TURN = 360, 300
"""Half an hour at 5 s; what is wrong begins five minutes before its end."""
JOB = job("4711", GPUS)


def turns(before: float, after: float, noise: float = 0.02) -> NDArray[np.float64]:
    """[time, gpu or port] one level, then another."""
    values = np.full((POLLS, len(GPUS)), before)
    values[TURN:] = after
    return values * jitter(values.shape, noise)


def seen(metrics: dict[str, Any], **more: Any) -> tuple[Candidate, ...]:
    usual = {
        "gpu.util": np.full((POLLS, 16), 0.99), "gpu.power": turns(620.0, 620.0), "gpu.tensor_active": turns(0.45, 0.45),
        "gpu.nvlink_tx": turns(4e10, 4e10), "gpu.pcie_rx": turns(3e9, 3e9), "gpu.pcie_tx": turns(1e9, 1e9),
        "port.tx": turns(9e9, 9e9), "port.rx": turns(9e9, 9e9), "port.rate": np.full((POLLS, 16), 5e10),
    }  # fmt: skip
    told = {"gpus": GPUS, "ports": PORTS, "jobs": [JOB], **more}
    return found(NAME, window_of(metrics={**usual, **metrics}, **told))


WAITS = {"gpu.tensor_active": turns(0.45, 0.25), "gpu.power": turns(620.0, 430.0)}


def test_a_job_that_computes_is_silent() -> None:
    assert not seen({})


@pytest.mark.parametrize(
    ("variant", "metrics"),
    [
        ("nvlink", {"gpu.nvlink_tx": turns(1.2e11, 3.3e11)}),
        ("network", {"port.tx": turns(1.2e10, 3.9e10), "port.rx": turns(1.2e10, 3.9e10)}),
        ("pcie", {"gpu.pcie_rx": turns(8e9, 5.1e10)}),
    ],
)
def test_a_full_link_and_compute_that_waits(variant: str, metrics: dict[str, Any]) -> None:
    (one,) = seen({**WAITS, **metrics})
    assert (one.variant, one.roots.jobs) == (variant, ("slurm:4711",))
    assert one.is_open
    assert one.loss == pytest.approx(1 - 0.25 / 0.45, abs=0.06)
    assert one.since == pytest.approx(AT - (POLLS - TURN) * 5.0, abs=120)
    assert len({evidence.metric for evidence in one.evidence}) >= 2


def test_a_sum_of_both_ways_without_profiling() -> None:
    """What dcgm-exporter's default fields have: NVLink's total, power and utilisation."""
    metrics = {
        "gpu.util": np.full((POLLS, 16), 0.99),
        "gpu.power": turns(620.0, 380.0),
        "gpu.nvlink_bandwidth": turns(2e11, 6.6e11),
    }
    (one,) = found(NAME, window_of(gpus=GPUS, metrics=metrics, jobs=[JOB]))
    assert one.variant == "nvlink"


def test_pcie_by_the_board_where_its_generation_is_not_exported() -> None:
    assert seen({**WAITS, "gpu.pcie_rx": turns(8e9, 5.1e10)}, model=H100)
    assert not seen({**WAITS, "gpu.pcie_rx": turns(8e9, 5.1e10)}, model="made up")


def test_a_full_link_under_full_compute_is_good_overlap() -> None:
    assert not seen({"gpu.nvlink_tx": turns(1e11, 3.3e11)})


def test_bursts_are_no_saturation() -> None:
    """Gradients of data-parallel training: a third of the time at the top."""
    burst = np.where(np.arange(POLLS)[:, None] % 6 < 2, 4e10, 2e9) * jitter((POLLS, 16), 0.02)
    assert not seen({**WAITS, "port.tx": burst, "port.rx": burst})


def test_tensor_parallel_decoding_is_silent() -> None:
    decode = {
        "gpu.tensor_active": turns(0.06, 0.06),
        "gpu.power": turns(380.0, 380.0),
        "gpu.nvlink_tx": turns(5e10, 5e10),
    }
    assert not seen(decode)


def test_a_slow_job_whose_links_carry_little_is_another_matter() -> None:
    assert not seen(WAITS)


def test_a_lame_rail_that_is_full_is_degraded_and_no_saturation() -> None:
    rate = np.full((POLLS, 16), 5e10)
    rate[TURN:, 3] = 1.25e10
    sent = turns(1.5e10, 1.0e10)
    assert not seen({**WAITS, "port.rate": rate, "port.tx": sent, "port.rx": sent})


def test_bursts_unseen_are_said() -> None:
    metrics = {
        "gpu.util": np.full((POLLS, 16), 0.99), "gpu.power": turns(620.0, 430.0), "gpu.tensor_active": turns(0.45, 0.25),
        "gpu.nvlink_tx": turns(1.2e11, 3.3e11),
    }  # fmt: skip
    (one,) = found(
        NAME, window_of(gpus=GPUS, metrics=metrics, jobs=[job("1", GPUS, since=AT - 86400)], step=30.0)
    )
    assert "bursts unseen at this poll" in one.words["share"]


def test_it_began_when_the_pace_was_lost_where_the_link_was_as_full_before() -> None:
    """What degrades a link later explains it: a rail that was busy all along cost nothing until then."""
    (one,) = seen({**WAITS, "port.tx": turns(2.9e10, 3.9e10), "port.rx": turns(2.9e10, 3.9e10)})
    assert one.since == pytest.approx(AT - (POLLS - TURN) * 5.0, abs=90)


# --- full since the job began: its past is its own, and holds no better pace -----------------------

BEGAN = AT - (POLLS - 120) * 5.0
"""Twenty minutes ago; before, another job had these boards."""
YOUNG = job("4712", GPUS, since=BEGAN)
WAITING = {"gpu.sm_active": 0.36, "gpu.tensor_active": 0.115, "gpu.power": 420.0}
"""A quarter of a step computes (SMs .9, tensor .45), the rest exchanges (SMs .165)."""


def since_began(before: float, after: float) -> NDArray[np.float64]:
    values = np.full((POLLS, len(GPUS)), before)
    values[120:] = after
    return values * jitter(values.shape, 0.02)


def of_young(full: dict[str, tuple[float, float]], **waiting: float) -> tuple[Candidate, ...]:
    """What two jobs did one after the other: links (before, after), the second waiting for them."""
    metrics = {key: since_began(*rates) for key, rates in full.items()}
    usual = {"gpu.sm_active": 0.88, "gpu.tensor_active": 0.45, "gpu.power": 620.0}
    metrics |= {key: since_began(usual[key], value) for key, value in {**WAITING, **waiting}.items()}
    return seen(metrics, jobs=[YOUNG])


@pytest.mark.parametrize(
    ("variant", "full"),
    [
        ("nvlink", {"gpu.nvlink_tx": (4e10, 3.65e11)}),
        ("network", {"port.tx": (9e9, 4.55e10), "port.rx": (9e9, 4.55e10)}),
        ("pcie", {"gpu.pcie_rx": (3e9, 5.1e10)}),
        ("pcie", {"gpu.pcie_tx": (1e9, 5.1e10)}),  # the other way: activations that go to the host
        ("nvlink", {"gpu.nvlink_tx": (3.65e11, 3.65e11)}),  # the job before filled them, too
    ],
)
def test_a_link_that_is_full_since_the_job_began(variant: str, full: dict[str, tuple[float, float]]) -> None:
    """The job before was quicker: that is nothing of this one's pace, nor is its traffic this one's past."""
    (one,) = of_young(full)
    assert (one.variant, one.roots.jobs, one.is_open) == (variant, ("slurm:4712",), True)
    assert one.since == pytest.approx(BEGAN, abs=1)
    assert not one.since_bound
    assert one.loss == pytest.approx(0.6 if variant == "pcie" else 0.735, abs=0.02)  # copies take no SMs
    assert one.confidence < 0.8
    assert one.evidence[1].metric == "gpu.sm_active"
    assert one.evidence[1].value == pytest.approx(0.36, abs=0.01)
    assert "no better pace of its own is known; by its SM activity" in one.words["lost"]


def test_two_rails_of_eight_that_are_full_since_the_job_began() -> None:
    """Rails that a job does not use are no part of its past either."""
    used = np.arange(len(PORTS)) % 8 < 2
    rail = {key: since_began(9e9, 4.55e10) * used for key in ("port.tx", "port.rx")}
    waiting = {key: since_began(0.45, value) for key, value in WAITING.items()}
    (one,) = seen({**waiting, **rail}, jobs=[YOUNG])
    assert (one.variant, one.words["rate"]) == ("network", "45.5 GB/s")


def test_loss_without_sm_activity_and_without_profiling() -> None:
    full = since_began(4e10, 3.65e11)
    tensor = {"gpu.tensor_active": since_began(0.45, 0.1), "gpu.power": since_began(620.0, 420.0)}
    (one,) = seen({**tensor, "gpu.nvlink_tx": full}, jobs=[YOUNG])
    assert one.loss == pytest.approx(0.75, abs=0.02)
    assert "by its tensor activity" in one.words["lost"]
    power = {
        "gpu.power": since_began(620.0, 260.0),
        "gpu.nvlink_bandwidth": 2 * full,
        "gpu.util": np.full((POLLS, 16), 0.99),
    }
    (one,) = found(NAME, window_of(gpus=GPUS, metrics=power, jobs=[YOUNG]))
    assert "by its power" in one.words["lost"]


def test_a_full_link_under_full_compute_since_the_job_began_is_good_overlap() -> None:
    assert not of_young(
        {"gpu.nvlink_tx": (4e10, 3.65e11)},
        **{"gpu.tensor_active": 0.4, "gpu.power": 600.0, "gpu.sm_active": 0.9},
    )


def test_half_full_links_since_the_job_began_are_silent() -> None:
    """Tensor-parallel decoding: no tensor activity to speak of, and links far from full."""
    assert not of_young({"gpu.nvlink_tx": (4e10, 2.0e11)}, **{"gpu.tensor_active": 0.06})


def test_a_job_that_was_there_before_all_samples_may_have_been_saturated_for_longer() -> None:
    full = np.full((POLLS, 16), 3.65e11)
    waiting = {key: np.full((POLLS, 16), value) for key, value in WAITING.items()}
    (one,) = seen({**waiting, "gpu.nvlink_tx": full * jitter(full.shape, 0.01)})
    assert one.since_bound
