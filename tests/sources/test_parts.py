"""What links reach, as data."""

from __future__ import annotations

import math

import pytest

from coldaisle.sources.parts import nvlink_achievable, pcie_achievable, pcie_generation, port_efficiency


@pytest.mark.parametrize(
    ("model", "low", "high"),
    [
        ("NVIDIA H100 80GB HBM3", 360e9, 370e9),  # 367.61 GB/s measured
        ("NVIDIA H200", 360e9, 370e9),
        ("NVIDIA H20", 360e9, 370e9),
        ("NVIDIA H100 PCIe", 235e9, 245e9),
        ("NVIDIA A100-SXM4-80GB", 230e9, 240e9),  # 234.89 GB/s measured
        ("NVIDIA GB200", 840e9, 850e9),  # 845.67 GB/s measured
        ("AMD Instinct MI300X OAM", 350e9, 360e9),
    ],
)
def test_nvlink_by_the_longest_word_of_a_model(model: str, low: float, high: float) -> None:
    assert low <= nvlink_achievable(model) <= high


@pytest.mark.parametrize("model", [None, "", "NVIDIA L40S", "Tesla T4", "made up"])
def test_a_board_without_nvlink_has_no_ceiling(model: str | None) -> None:
    assert math.isnan(nvlink_achievable(model))


def test_pcie_scales_with_its_lanes() -> None:
    assert 55e9 <= pcie_achievable(5.0) <= 58e9
    assert pcie_achievable(5.0, 8.0) == pcie_achievable(5.0) / 2
    assert pcie_achievable(5.0, math.nan) == pcie_achievable(5.0)
    assert math.isnan(pcie_achievable(math.nan))
    assert math.isnan(pcie_achievable(9.0))


def test_the_generation_of_a_board_where_nobody_exports_it() -> None:
    assert pcie_generation("NVIDIA H200") == 5
    assert pcie_generation("NVIDIA A100-SXM4-80GB") == 4
    assert pcie_generation("NVIDIA B300 SXM6 AC") == 6
    assert pcie_generation("NVIDIA L40S") == 4
    assert math.isnan(pcie_generation("made up"))


def test_a_port_reaches_most_of_its_rate() -> None:
    assert 0.7 < port_efficiency(roce=True) < port_efficiency() < 1
