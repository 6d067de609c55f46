"""Degraded links: each sign of one, and what only looks like it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from lab.telemetry import AT, H100, found, gpus, jitter, job, window_of
from numpy.typing import NDArray

from coldaisle.analyzers.finding import Candidate, Severity

NAME = "interconnect_degraded"
NODES = ("n01", "n02", "n03", "n04", "n05")
GPUS = gpus(*NODES)
PORTS = tuple(f"{node}/mlx5_{rail}/1" for node in NODES for rail in range(8))
POLLS = 180
LAME = 11
RATE = 5e10


def flat(value: float, noise: float = 0.0, count: int = len(PORTS)) -> NDArray[np.float64]:
    return value * jitter((POLLS, count), noise)


def only(value: float, normal: float = 0.0, since: int = 0, port: int = LAME) -> NDArray[np.float64]:
    """[time, port] one port unlike the others, from a poll on."""
    values = flat(normal)
    values[since:, port] = value
    return values


def of_job(metrics: dict[str, Any], polls: float = 5.0, **more: Any) -> tuple[Candidate, ...]:
    """A job on five nodes of eight boards and eight rails."""
    usual = {
        "gpu.util": flat(0.99, 0.003), "gpu.power": flat(620.0, 0.01),
        "port.tx": flat(1.5e10, 0.02), "port.rx": flat(1.5e10, 0.02), "port.rate": flat(RATE), "port.state": flat(4.0),
    }  # fmt: skip
    told: dict[str, Any] = {"gpus": GPUS, "ports": PORTS, "jobs": [job("4711", GPUS)], "step": polls, **more}
    return found(NAME, window_of(metrics={**usual, **metrics}, **told))


def test_healthy_links_are_silent() -> None:
    assert not of_job({"port.symbol_errors": flat(0.0), "port.xmit_wait": flat(2e5, 0.2)})


@pytest.mark.parametrize("poll", [1.0, 5.0, 30.0])
def test_a_rail_below_its_rate(poll: float) -> None:
    (one,) = of_job({"port.rate": only(RATE / 4, RATE, since=120)}, poll)
    assert (one.variant, one.roots.ports, one.severity) == ("rate", (PORTS[LAME],), Severity.WARNING)
    assert one.words["now"] == "100 Gb/s"
    assert one.words["normal"] == "400 Gb/s"
    assert abs(one.since - (AT - 59 * poll)) <= poll or one.since_bound
    assert one.is_immediate


def test_a_lame_rail_of_a_node_of_one_rail_is_told_by_other_nodes() -> None:
    ports = tuple(f"{node}/mlx5_0/1" for node in NODES)
    rate = np.full((POLLS, 5), RATE)
    rate[:, 2] = RATE / 2
    metrics = {"port.rate": rate, "port.tx": np.full((POLLS, 5), 1e10), "gpu.util": np.full((POLLS, 5), 0.99)}
    (one,) = found(NAME, window_of(gpus=gpus(*NODES, each=1), ports=ports, metrics=metrics))
    assert one.roots.ports == (ports[2],)


def test_a_slower_port_of_every_node_is_another_kind() -> None:
    rate = flat(RATE)
    rate[:, 7::8] = RATE / 4
    assert not of_job({"port.rate": rate})


def test_idle_rails_by_design_are_silent() -> None:
    sent = flat(0.0)
    sent[:, 0::8] = sent[:, 1::8] = 2e10
    assert not of_job({"port.tx": sent, "port.rx": sent, "port.symbol_errors": flat(0.0)})


def test_rails_that_nobody_plugged_in_are_silent() -> None:
    state = flat(4.0)
    state[:, 6::8] = 1.0
    assert not of_job({"port.state": state})


def test_a_rail_that_went_down() -> None:
    (one,) = of_job({"port.state": only(1.0, 4.0, since=150)})
    assert one.variant == "down"
    assert one.since == pytest.approx(AT - 29 * 5.0, abs=5)


def test_errors_on_one_cable() -> None:
    errors = only(6.0, 0.0, since=120) * np.random.default_rng(3).poisson(1.0, (POLLS, len(PORTS)))
    (one,) = of_job({"port.symbol_errors": errors, "port.rcv_errors": flat(0.0)})
    assert (one.variant, one.roots.ports) == ("errors", (PORTS[LAME],))
    assert one.evidence[0].metric == "port.symbol_errors"
    assert one.since == pytest.approx(AT - 59 * 5.0, abs=60)
    assert len({evidence.metric for evidence in one.evidence}) >= 2


def test_an_error_now_and_then_is_noise() -> None:
    errors = flat(0.0)
    errors[30, LAME] = errors[110, 4] = 0.2  # one in five seconds
    assert not of_job({"port.symbol_errors": errors})


def test_out_of_sequence_on_roce() -> None:
    (one,) = of_job({"port.out_of_sequence": only(400.0, 1.0), "port.roce": flat(1.0)})
    assert one.variant == "errors"
    assert one.evidence[0].metric == "port.out_of_sequence"


def test_a_port_that_cannot_send() -> None:
    (one,) = of_job({"port.xmit_wait": only(1e8, 1e5, since=100) * jitter((POLLS, len(PORTS)), 0.2)})
    assert (one.variant, one.roots.ports) == ("congested", (PORTS[LAME],))
    # Ticks are of the vendor's length: no share of the time can be said.
    assert one.words["how"] == "counts 106 M ticks a second in which it cannot send"
    assert one.words["beside"].startswith("its siblings ")
    assert one.evidence[0].value == pytest.approx(1e8, rel=0.2)
    assert one.since == pytest.approx(AT - 79 * 5.0, abs=60)


def test_ports_that_all_wait_more_than_they_used_to() -> None:
    """Congestion of the fabric: held against their own past, for their siblings wait as much."""
    waits = flat(1e5, 0.2)
    waits[120:] *= 1e4
    (one,) = of_job({"port.xmit_wait": waits})
    assert (one.variant, len(one.roots.ports)) == ("congested", len(PORTS))
    assert one.words["how"].endswith("G ticks a second in which it cannot send")
    assert one.words["beside"].startswith("before ")
    assert one.evidence[0].rule.startswith("before ")


def test_a_port_told_to_slow_down() -> None:
    (one,) = of_job({"port.cnp_handled": only(5e3, 20.0), "port.roce": flat(1.0)})
    assert one.variant == "congested"
    assert one.words["how"] == "is told to slow down 5000 times a second"


def test_waits_that_all_rails_share_are_no_one_rails() -> None:
    assert not of_job({"port.xmit_wait": flat(3e7, 0.2)})


def test_a_flap_is_dated_by_its_counter() -> None:
    (one,) = of_job({"port.link_downed": only(3.0, 2.0, since=160)})
    assert (one.variant, one.severity) == ("flap", Severity.WARNING)
    assert one.since == pytest.approx(AT - 19 * 5.0, abs=1)


def test_old_flaps_and_a_reset_are_none() -> None:
    reset = flat(7.0)
    reset[100:, LAME] = 0.0
    assert not of_job({"port.link_downed": reset})


def test_loss_is_what_the_job_lost_of_its_pace() -> None:
    """Two thirds of its pace since 10 minutes; the hour before in whole minutes."""
    polls = 660
    power = np.full((polls, len(GPUS)), 620.0)
    power[540:] = 120.0 + 500.0 * 0.68
    rate = np.full((polls, len(PORTS)), RATE)
    rate[540:, LAME] = RATE / 4
    metrics = {
        "gpu.power": power * jitter(power.shape, 0.01), "gpu.util": np.full(power.shape, 0.99), "port.rate": rate,
        "port.tx": np.full(rate.shape, 1e10),
    }  # fmt: skip
    (one,) = found(
        NAME, window_of(gpus=GPUS, ports=PORTS, jobs=[job("4711", GPUS)], metrics=metrics, step=5.0)
    )
    assert one.loss == pytest.approx(0.33, abs=0.08)
    assert one.severity is Severity.CRITICAL or one.loss < 0.3


def test_without_a_past_a_full_lame_rail_costs_what_its_rate_lacks() -> None:
    full = only(RATE / 4 * 0.8, RATE / 4 * 0.8)
    full[:-20] = np.nan
    power = flat(620.0)
    power[:-20] = np.nan
    (one,) = of_job(
        {"port.rate": only(RATE / 4, RATE), "port.tx": full, "port.rx": full, "gpu.power": power},
        jobs=[job("1", GPUS, since=AT - 100)],
    )
    assert 0.5 <= one.loss <= 0.75
    assert one.confidence < 0.85


# --- boards ---------------------------------------------------------------------------------------


def of_boards(metrics: dict[str, Any], util: float = 0.99, model: str = H100) -> tuple[Candidate, ...]:
    usual = {"gpu.util": np.full((30, 8), util), "gpu.power": np.full((30, 8), 600.0)}
    return found(NAME, window_of(gpus=gpus("n01"), metrics={**usual, **metrics}, model=model))


def board(value: float, normal: float, which: int = 3) -> NDArray[np.float64]:
    values = np.full((30, 8), normal)
    values[:, which] = value
    return values


@pytest.mark.parametrize(
    ("key", "value", "normal", "words"),
    [("gpu.pcie_width", 8.0, 16.0, "8 lanes"), ("gpu.pcie_gen", 3.0, 5.0, "gen 3")],
)
def test_a_pcie_link_below_what_it_can_under_load(key: str, value: float, normal: float, words: str) -> None:
    for more in ({f"{key}_max": np.full((30, 8), normal)}, {}):  # told, or by its siblings
        (one,) = of_boards({key: board(value, normal), **more})
        assert (one.variant, one.roots.gpus) == ("pcie", ("n01/3",))
        assert one.words["now"] == words


@pytest.mark.parametrize(("step", "polls"), [(5.0, 12), (30.0, 3)])
def test_a_pcie_link_is_judged_by_its_newest_readings_at_work(step: float, polls: int) -> None:
    def said(low: int) -> tuple[Candidate, ...]:
        lanes = np.full((30, 8), 16.0)
        lanes[-low:, 3] = 4.0
        usual = {"gpu.util": np.full((30, 8), 0.99), "gpu.power": np.full((30, 8), 600.0)}
        return found(NAME, window_of(gpus=gpus("n01"), metrics={**usual, "gpu.pcie_width": lanes}, step=step))

    assert not said(polls - 1)
    assert [one.roots.gpus for one in said(polls)] == [("n01/3",)]


def test_a_pcie_link_that_rests_is_not_degraded() -> None:
    metrics = {"gpu.pcie_gen": np.full((30, 8), 1.0), "gpu.pcie_gen_max": np.full((30, 8), 5.0)}
    assert not of_boards(metrics, util=0.0)
    assert not of_boards({**metrics, "gpu.pcie_gen": board(5.0, 1.0)}, util=0.0)


def test_boards_that_are_all_alike_are_built_so() -> None:
    assert not of_boards({"gpu.pcie_gen": np.full((30, 8), 4.0), "gpu.pcie_gen_max": np.full((30, 8), 5.0)})


def test_replays() -> None:
    (one,) = of_boards({"gpu.pcie_replay": board(3.0, 0.0)})
    assert one.words["now"] == "3 replays/s"
    assert not of_boards({"gpu.pcie_replay": board(0.01, 0.0)})


def test_inactive_nvlinks() -> None:
    (one,) = of_boards({"gpu.nvlink_links": board(16.0, 18.0)})
    assert (one.variant, one.words["now"], one.words["normal"]) == ("nvlink", "16 links up", "18")
    assert not of_boards({"gpu.nvlink_links": np.full((30, 8), 12.0)})


@pytest.mark.parametrize(
    "key", ["gpu.nvlink_crc", "gpu.nvlink_replay", "gpu.nvlink_recovery", "gpu.nvlink_errors"]
)
def test_nvlink_errors(key: str) -> None:
    (one,) = of_boards({key: board(500.0, 0.0)})
    assert one.variant == "nvlink"
    assert not of_boards({key: board(0.001, 0.0)})


def test_gaps_and_drops_change_nothing() -> None:
    rng = np.random.default_rng(5)
    rate = only(RATE / 4, RATE)
    rate[rng.random(rate.shape) < 0.1] = np.nan
    rate[-1, LAME] = RATE / 4
    (one,) = of_job({"port.rate": rate})
    assert one.roots.ports == (PORTS[LAME],)
