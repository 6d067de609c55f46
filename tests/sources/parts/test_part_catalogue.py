"""Accelerators and fabrics as data: their figures, their names, and what is not known."""

from __future__ import annotations

import math

import pytest

from coldaisle.sources.parts.catalogue import (
    GIB,
    MIB,
    candidates,
    fabrics,
    find_part,
    parts,
    sheet_clock,
    sheet_power,
    source_of,
    sources,
)


def test_every_figure_has_a_source_that_is_known() -> None:
    for part in parts().values():
        assert part.sources, part.id
        for key in part.sources:
            known = source_of(key)
            assert known != key or " " in key or "#" in key or key.endswith(")"), f"{part.id}: {key}"
    assert all("read" in text or "remembered" in text for text in sources().values())


def test_figures_are_above_zero_or_not_known() -> None:
    for part in parts().values():
        for figure in (
            *part.flops.values(),
            *part.measured_flops.values(),
            part.memory_bytes,
            part.bandwidth,
            part.scaleup,
            part.power_w,
            part.sm_clock_mhz,
        ):
            assert math.isnan(figure) or figure > 0, part.id
        assert part.scaleup_gpus >= 1
        assert part.peak("bf16") > 0 or part.id.startswith(("v100", "t4"))


def test_what_is_missing_is_not_zero() -> None:
    v100 = parts()["v100_sxm2_16"]
    assert math.isnan(v100.peak("bf16"))
    assert math.isnan(v100.matmul_share())
    assert math.isnan(parts()["tpu_v4"].power_w)


@pytest.mark.parametrize(
    ("name", "part"),
    [
        ("h100_sxm", "h100_sxm"),
        ("NVIDIA H100 80GB HBM3", "h100_sxm"),
        ("NVIDIA-H100-80GB-HBM3", "h100_sxm"),  # a label of a node
        ("NVIDIA H100 80GB HBM3 MIG 1g.10gb", "h100_sxm"),
        ("NVIDIA A100-SXM4-40GB", "a100_sxm_40"),
        ("NVIDIA A100-PCIE-40GB", "a100_pcie_40"),
        ("NVIDIA A100 80GB PCIe", "a100_pcie_80"),
        ("NVIDIA H200", "h200_sxm"),
        ("NVIDIA H200 NVL", "h200_nvl"),
        ("NVIDIA GB200", "gb200"),
        ("NVIDIA B200", "b200_sxm"),
        ("NVIDIA A10", "a10"),
        ("NVIDIA A10G", "a10g"),
        ("NVIDIA L40", "l40"),
        ("NVIDIA L40S", "l40s"),
        ("AMD Instinct MI300X OAM", "mi300x"),
        ("h100 sxm", "h100_sxm"),
    ],
)
def test_a_device_name_is_a_part(name: str, part: str) -> None:
    found = find_part(name)
    assert found is not None
    assert found.id == part


def test_memory_splits_what_a_name_does_not() -> None:
    assert [part.id for part in candidates("A100 SXM4")] == ["a100_sxm_40", "a100_sxm_80"]
    found = find_part("A100 SXM4", 81251 * MIB)
    assert found is not None
    assert found.id == "a100_sxm_80"
    assert find_part("A100 SXM4") is None


@pytest.mark.parametrize("name", ["", "made up", "NVIDIA", "\x1b[31m", "x" * 100_000])
def test_a_name_that_nobody_knows_is_unknown(name: str) -> None:
    assert candidates(name) == ()
    assert math.isnan(sheet_power(name))


@pytest.mark.parametrize(
    ("name", "watts", "mhz"),
    [
        ("NVIDIA H100 80GB HBM3", 700, 1980),
        ("NVIDIA H100", 700, 1980),  # as a scheduler says it
        ("NVIDIA H100 PCIe", 350, 1755),
        ("NVIDIA A800 80GB PCIe", 400, 1410),
        ("NVIDIA A100-SXM4-80GB", 400, 1410),
        ("Tesla T4", 70, math.nan),
    ],
)
def test_a_sheet_is_found_for_what_comes_near(name: str, watts: float, mhz: float) -> None:
    assert sheet_power(name) == watts
    assert sheet_clock(name) == pytest.approx(mhz, nan_ok=True)


def test_memory_is_what_the_driver_reports_where_that_is_known() -> None:
    assert parts()["h100_sxm"].memory_bytes == 81559 * MIB
    assert not parts()["mi355x"].memory_is_reported
    assert parts()["mi355x"].memory_bytes == 288 * GIB


def test_fabrics_have_a_rate_and_what_is_reached_of_it() -> None:
    ndr = fabrics()["ib_ndr"]
    assert ndr.rate == 50e9
    assert ndr.is_network
    assert not fabrics()["nvlink4"].is_network
    assert all(0 < fabric.efficiency <= 1 for fabric in fabrics().values())
