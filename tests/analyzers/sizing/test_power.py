"""Power, racks, energy and cost."""

from __future__ import annotations

import math

import pytest

from coldaisle.analyzers.sizing.catalogue import node_named, nodes
from coldaisle.analyzers.sizing.power import (
    Prices,
    energy_kwh,
    gpu_hour_cost,
    joules_per_token,
    node_power,
    racks,
    recovery,
)
from coldaisle.analyzers.sizing.quantity import exact
from coldaisle.analyzers.sizing.sheet import SizingError
from coldaisle.sources.parts.catalogue import parts


def test_a_node_of_eight_h100() -> None:
    """Name plate 10.2 kW, at most 8.4 kW measured, heavy work three quarters of the first."""
    told = node_power(parts()["h100_sxm"], 8, node_named("dgx_h100"))
    bare = node_power(parts()["h100_sxm"], 8)
    assert told.nameplate.value == 10_200
    assert told.peak.value == 8_400
    assert bare.peak.value == pytest.approx(8_400)
    assert bare.nameplate.value == pytest.approx(10_200, rel=0.01)
    assert told.idle.high < told.busy.low < told.busy.value < told.peak.value < told.nameplate.value


def test_a_part_whose_power_nobody_publishes() -> None:
    with pytest.raises(SizingError, match="name a node"):
        node_power(parts()["tpu_v4"], 4)


def test_power_height_and_ports_bind_racks() -> None:
    assert racks(10, 10_200, 40_000, 8).name == "power"
    assert racks(10, 10_200, 40_000, 8).quantity.value == 4
    assert racks(10, 1_000, 40_000, 8).name == "height"
    assert racks(10, 1_000, 40_000, 1, ports=8, ports_a_rack=16).name == "ports"
    with pytest.raises(SizingError, match="needs a rack of 11 kW"):
        racks(10, 10_200, 8_000)


def test_energy_and_energy_a_token() -> None:
    assert energy_kwh(exact(1000, "W"), exact(3600, "s"), exact(1.3, "ratio")).value == pytest.approx(1.3)
    assert joules_per_token(6153, 25_262).value == pytest.approx(0.244, abs=0.001)


def test_a_gpu_hour_is_paid_by_hours_that_are_used() -> None:
    rented = gpu_hour_cost(Prices("2026-11-01", gpu_hour=2.0, utilisation=0.5), 1000, 1.3)
    assert rented is not None
    assert rented.value == 4.0
    assert "2026-11-01" in rented.source
    bought = gpu_hour_cost(
        Prices("2026-11-01", gpu_capital=40_000, energy_kwh=0.1, years=4, interest=0.0, availability=1.0, utilisation=1.0),
        1000,
        1.3,
    )  # fmt: skip
    assert bought is not None
    assert bought.value == pytest.approx(10_000 / 8766 + 0.13)
    assert gpu_hour_cost(Prices("2026-11-01"), 1000, 1.3) is None
    assert recovery(0.08, 4) == pytest.approx(0.3019, abs=1e-4)


@pytest.mark.parametrize(
    "told",
    [
        {"as_of": ""}, {"gpu_hour": 0.0}, {"gpu_hour": -1.0}, {"utilisation": 0.0}, {"utilisation": 1.5},
        {"interest": -0.1}, {"years": 0.0}, {"gpu_capital": math.inf},
    ],
)  # fmt: skip
def test_prices_that_mean_nothing_are_refused(told: dict[str, object]) -> None:
    with pytest.raises(SizingError):
        Prices(**{"as_of": "2026-11-01", **told})  # type: ignore[arg-type]


@pytest.mark.parametrize("id_", sorted(nodes()))
def test_a_node_draws_no_more_on_the_mean_than_at_most(id_: str) -> None:
    node = nodes()[id_]
    made = node_power(parts()[node.part], node.gpus, node)
    assert made.idle.value < made.busy.value <= made.peak.value <= made.nameplate.high * 1.001
