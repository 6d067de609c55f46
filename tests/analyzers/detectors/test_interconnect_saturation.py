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
