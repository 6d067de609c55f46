"""What people say of boards, racks, heat and synchronisation, where it comes up."""

from __future__ import annotations

import pytest

from coldaisle.analyzers.sizing.catalogue import model_named, part_named
from coldaisle.analyzers.sizing.place_rules import board_power_rule, rack_rule
from coldaisle.analyzers.sizing.plan_serving import Request, plan_serving
from coldaisle.analyzers.sizing.site import Site, machine
from coldaisle.analyzers.sizing.training import plan_training

LLAMA = model_named("llama-3.1-70b")


def test_a_synchronisation_is_told_as_quoted_and_as_it_is_here() -> None:
    said = {
        one.claim: one.verdict for one in plan_training(LLAMA, 1e12, part_named("h100_sxm"), gpus=64).verdicts
    }
    told = said["100B over 64 GPUs synchronise at hundreds of Gb/s"]
    assert "394 GB a GPU and step, 315 Gb/s" in told
    assert "Here TP" in told


@pytest.mark.parametrize("part", ["h100_sxm", "h200_sxm", "b200_sxm", "l40s"])
def test_both_kinds_of_sheets_tell_heat_and_racks(part: str) -> None:
    small = model_named("llama-3.1-8b")
    trained = plan_training(small, 1e12, part_named(part), gpus=16)
    served = plan_serving(Request(small, 2000, 300), part_named(part))
    for sheet in (trained, served):
        said = {one.claim: one.verdict for one in sheet.verdicts}
        assert "unsupported in general" in said["throttling costs 10 to 30 % within minutes"]
        assert "120 kW (GB200 NVL72 rack) and 135 kW" in said["a rack takes 30 to 70 kW"]
        assert any("H200" in claim for claim in said) == part.startswith("h200")


def test_a_rack_is_counted_in_nodes() -> None:
    dense = rack_rule(machine(part_named("gb200"), Site()))
    usual = rack_rule(machine(part_named("h100_sxm"), Site()))
    assert dense is not None
    assert usual is not None
    assert "2 to 6 such nodes" in usual.verdict
    assert "less than one such node" in dense.verdict


def test_the_board_of_an_h200() -> None:
    assert "right of the SXM board" in board_power_rule(part_named("h200_sxm")).verdict
    assert "not of this one" in board_power_rule(part_named("h200_nvl")).verdict
