"""What serving sends and reads, and the ports and switches that a number of nodes takes."""

from __future__ import annotations

import pytest

from coldaisle.analyzers.sizing.cabling import cabling
from coldaisle.analyzers.sizing.catalogue import model_named, node_named, part_named
from coldaisle.analyzers.sizing.plan_serving import Request, plan_serving
from coldaisle.analyzers.sizing.quantity import Quantity
from coldaisle.analyzers.sizing.sheet import Sheet
from coldaisle.analyzers.sizing.site import Site, machine
from coldaisle.analyzers.sizing.training import plan_training

H100 = part_named("h100_sxm")
LLAMA = model_named("llama-3.1-70b")


def section(sheet: Sheet, name: str) -> dict[str, Quantity]:
    (found,) = (one for one in sheet.sections if one.name == name)
    return dict(found.figures)


def serve(site: Site | None = None, **more: float) -> Sheet:
    return plan_serving(Request(LLAMA, 2000, 300, **more), H100, site)  # type: ignore[arg-type]


# -- switches


@pytest.mark.parametrize(
    ("nodes", "leaves", "uplinks", "spines"),
    [(2, 1, 0, 0), (8, 1, 0, 0), (9, 8, 72, 2), (32, 8, 256, 4), (33, 16, 264, 5), (128, 32, 1024, 16)],
)
def test_rails_share_leaves_of_sixty_four_ports(nodes: int, leaves: int, uplinks: int, spines: int) -> None:
    found = cabling(machine(H100, Site()), nodes)
    assert found is not None
    assert found.rails == 8
    assert (found.leaves.value, found.uplinks.value, found.spines.value) == (leaves, uplinks, spines)
    assert found.leaves.low <= leaves <= found.leaves.high


def test_one_node_needs_no_switch() -> None:
    assert cabling(machine(H100, Site()), 1) is None


def test_a_node_of_a_cloud_has_its_own_rails_and_somebody_elses_switches() -> None:
    found = cabling(machine(H100, Site(node=node_named("aws_p5"))), 16)
    assert found is not None
    assert (found.rails, found.rate) == (32, 100e9 / 8)
    assert "the provider's" in found.note


def test_what_two_tiers_do_not_join_is_said() -> None:
    found = cabling(machine(H100, Site()), 1000)
    assert found is not None
    assert "a third tier" in found.note


def test_training_tells_rails_switches_and_how_thin_uplinks_may_be() -> None:
    figures = section(plan_training(LLAMA, 1e12, H100, gpus=512), "network")
    assert figures["ports of all nodes"].value == 512
    assert figures["leaf switches"].value == 16
    assert figures["oversubscription that hides all"].value >= 1
    alone = section(plan_training(model_named("llama-3.1-8b"), 1e12, H100, gpus=8), "network")
    assert "leaf switches" not in alone


# -- serving


def test_all_reduces_of_a_token_are_two_a_layer() -> None:
    figures = section(serve(tensor=8), "network")
    assert figures["tensor-parallel a token and GPU"].value == pytest.approx(2 * 80 * 2 * 7 / 8 * 2 * 8192)
    assert 0 < figures["share of a decode step"].value < 1
    assert figures["tensor-parallel a GPU"].value < figures["link of a GPU"].value


def test_one_gpu_sends_nothing_to_itself() -> None:
    sheet = plan_serving(Request(model_named("llama-3.1-8b"), 2000, 300), H100)
    assert "tensor-parallel a token and GPU" not in section(sheet, "network")


def test_a_prompt_that_is_handed_over_crosses_the_ports() -> None:
    figures = section(serve(tensor=8), "network")
    assert figures["keys and values of a prompt"].value == pytest.approx(2000 * 327_680)
    seconds = figures["to hand a prompt over"]
    assert seconds.value == pytest.approx(2000 * 327_680 / (8 * 50e9 * 0.85))


def test_stages_pass_tokens_over_ports() -> None:
    sheet = plan_serving(Request(model_named("llama-3.1-405b"), 2000, 300, pipeline=2, tensor=8), H100)
    figures = section(sheet, "network")
    assert figures["pipeline a token and boundary"].value == 2 * 16384
    assert figures["rails a node"].value == 8


def test_weights_are_read_when_a_replica_starts() -> None:
    free = section(serve(tensor=8, replicas=2), "storage")
    assert free["weights of a replica"].value == pytest.approx(2 * 70.6e9)
    assert free["read bandwidth to start all"].value == 2 * free["read bandwidth to add a replica"].value
    told = section(serve(Site(storage_read=10e9), tensor=8, replicas=2), "storage")
    assert told["to add a replica"].value == pytest.approx(14.12, rel=1e-3)
    assert told["to start all"].value == pytest.approx(28.24, rel=1e-3)
    fast = section(serve(Site(storage_read=1e15), tensor=8), "storage")
    assert fast["to add a replica"].value == fast["least time to load"].value
