"""Services: who belongs together, what is summed, what is told of the worst replica, and how promises are kept."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from lab.cost import cpu_seconds
from lab.services import KV_KEYS, NAN, NIGHT, PROMISES, Spec, make_services

from coldaisle.analyzers.serving import (
    ERROR_SHARE,
    IMBALANCE,
    KV_MEAN,
    PREFIX_HIT,
    TOKENS_PER_JOULE,
    Totals,
    Verdict,
    excursion,
    folded,
    group,
    limits_of,
    replica_verdicts,
    strain,
    time_to_full,
    totals,
    verdicts,
)
from coldaisle.analyzers.snapshot import Snapshot
from coldaisle.sources.settings import ServingSettings, SloSettings
from coldaisle.sources.source import Missing


def counted(snapshot: Snapshot) -> Totals:
    return totals(snapshot, group(snapshot.layout))


def of(snapshot: Snapshot, key: str, service: int = 0) -> float:
    return counted(snapshot).figure(key, service).value


# who belongs together


def test_replicas_of_one_deployment_are_a_service() -> None:
    grouping = group(make_services().layout)
    assert [(service.name, len(service.servers)) for service in grouping.services] == [
        ("chat-70b", 7),
        ("code-32b", 4),
        ("staging", 2),
        ("summarise", 3),
    ]
    assert grouping.services[1].model == "code-32b-instruct"
    assert all(grouping.of_server[server] == 1 for server in grouping.services[1].servers)


def test_without_a_deployment_the_model_is_the_service_and_without_both_the_server() -> None:
    snapshot = make_services((Spec("m", 3, deployed=False), Spec("n", 2)))
    servers = tuple(
        replace(server, model=None, service=None) if at > 2 else server
        for at, server in enumerate(snapshot.layout.servers)
    )
    services = group(replace(snapshot.layout, servers=servers)).services
    assert [len(service.servers) for service in services] == [3, 1, 1]
    assert services[0].name == "m"
    assert services[1].name == servers[3].name


def test_one_deployment_of_two_models_is_two_services_with_two_names() -> None:
    snapshot = make_services((Spec("chat", 2, model="a"), Spec("chat", 2, model="b")))
    assert [service.name for service in group(snapshot.layout).services] == ["chat a", "chat b"]


def test_no_server_at_all() -> None:
    found = counted(make_services(()))
    assert found.grouping.services == ()
    assert len(found.ready) == 0


@given(
    st.lists(
        st.tuples(st.sampled_from([None, "", "a", "b"]), st.sampled_from([None, "", "x", "y"])), max_size=12
    )
)
def test_every_server_belongs_to_one_service(names: list[tuple[str | None, str | None]]) -> None:
    snapshot = make_services((Spec("s", len(names), gpus=1),))
    servers = tuple(
        replace(server, service=service, model=model)
        for server, (service, model) in zip(snapshot.layout.servers, names, strict=True)
    )
    grouping = group(replace(snapshot.layout, servers=servers))
    assert sorted(s for service in grouping.services for s in service.servers) == list(range(len(names)))
    assert len({service.key for service in grouping.services}) == len(grouping.services)


# sums, means and the worst


def test_silent_replicas_are_counted_and_take_part_in_no_sum() -> None:
    found = counted(make_services())
    assert found.ready_count[0] == 5
    assert found.expected[0] == 8
    running = found.figure("serve.running", 0)
    assert running.value == 52 + 48 + 134 + 61 + 44
    assert running.told == 5


def test_a_server_that_says_that_it_is_down_is_not_ready() -> None:
    snapshot = make_services((Spec("a", 3, values={"serve.up": (1, 0, 1), "serve.running": (10, NAN, 20)}),))
    found = counted(snapshot)
    assert found.ready.tolist() == [True, False, True]
    assert found.figure("serve.running", 0) == (30.0, 2, -1)


def test_nobody_ready_is_missing_and_not_zero() -> None:
    found = counted(make_services((Spec("a", 2, stale=(0,), lost=(1,)),)))
    assert found.ready_count[0] == 0
    assert all(math.isnan(found.values[key][0]) for key in found.values)


def test_the_worst_replica_is_named() -> None:
    figure = counted(make_services()).figure("serve.ttft_p99", 0)
    assert figure.value == pytest.approx(6.2)
    assert figure.worst == 2
    assert figure.told == 5


def test_unequal_replicas_are_weighed_by_their_capacity() -> None:
    spec = Spec("a", 2, values={"serve.kv_usage": (0.2, 0.8), "serve.kv_capacity": (3000, 1000)})
    snapshot = make_services((spec,))
    assert of(snapshot, KV_MEAN) == pytest.approx(0.35)
    assert of(snapshot, "serve.kv_usage") == pytest.approx(0.8)
    assert of(snapshot, "serve.kv_capacity") == 4000
    unknown = make_services((replace(spec, values={**spec.values, "serve.kv_capacity": (3000, NAN)}),))
    assert of(unknown, KV_MEAN) == pytest.approx(0.5)


def test_the_prefix_hit_rate_is_weighed_by_what_was_asked() -> None:
    spec = Spec("a", 2, values={"serve.prefix_hit": (0.1, 0.9), "serve.prompt_tokens": (900, 100)})
    assert of(make_services((spec,)), PREFIX_HIT) == pytest.approx(0.18)


def test_tgi_tells_nothing_of_its_cache() -> None:
    found = counted(make_services())
    assert found.grouping.services[3].name == "summarise"
    assert all(math.isnan(found.figure(key, 3).value) for key in KV_KEYS)
    assert found.figure("serve.running", 3).value == 156
    assert found.figure(IMBALANCE, 3).value == pytest.approx(1.0)


def test_without_traffic_there_is_no_error_share_and_no_imbalance() -> None:
    found = counted(make_services())
    assert found.grouping.services[2].name == "staging"
    assert found.figure("serve.requests", 2).value == 0
    assert math.isnan(found.figure(ERROR_SHARE, 2).value)
    assert math.isnan(found.figure(IMBALANCE, 2).value)
    assert found.figure(TOKENS_PER_JOULE, 2).value == 0
    assert math.isnan(found.figure("serve.ttft_p99", 2).value)


def test_imbalance_is_the_busiest_over_the_mean() -> None:
    spec = Spec("a", 4, values={"serve.kv_usage": (0.1, 0.1, 0.1, 0.5)})
    assert of(make_services((spec,)), IMBALANCE) == pytest.approx(0.5 / 0.2)


def test_errors_are_a_share_of_what_ended() -> None:
    spec = Spec("a", 2, values={"serve.errors": (1, 0), "serve.requests": (9, 10)})
    assert of(make_services((spec,)), ERROR_SHARE) == pytest.approx(1 / 20)
    half = Spec("a", 2, values={"serve.errors": (1, NAN), "serve.requests": (9, 10)})
    found = counted(make_services((half,)))
    assert found.figure(ERROR_SHARE, 0).value == pytest.approx(0.1)
    assert found.figure(ERROR_SHARE, 0).told == 1


# energy


def test_tokens_a_joule_are_over_the_power_of_its_own_gpus() -> None:
    snapshot = make_services((Spec("a", 2),))
    watts = snapshot.columns["gpu.power"].values[:4].astype(float).sum()
    assert of(snapshot, TOKENS_PER_JOULE) == pytest.approx(2700 / watts, rel=1e-5)


def test_a_replica_with_a_gpu_that_does_not_tell_its_power_has_no_tokens_a_joule() -> None:
    snapshot = make_services((Spec("a", 2),))
    power = snapshot.columns["gpu.power"]
    power.values[1], power.reason[1] = np.nan, Missing.LOST
    found = counted(snapshot)
    assert math.isnan(found.replicas[TOKENS_PER_JOULE][0])
    assert found.figure(TOKENS_PER_JOULE, 0).told == 1
    assert found.figure(TOKENS_PER_JOULE, 0).value == pytest.approx(1350 / power.values[2:4].sum(), rel=1e-5)


def test_stale_power_is_no_power() -> None:
    snapshot = make_services((Spec("a", 1),))
    snapshot.columns["gpu.power"].reason[0] = Missing.STALE
    assert math.isnan(of(snapshot, TOKENS_PER_JOULE))


def test_servers_without_known_gpus_or_on_shared_ones_have_no_tokens_a_joule() -> None:
    assert math.isnan(of(make_services((Spec("a", 2, gpus=0),)), TOKENS_PER_JOULE))
    snapshot = make_services((Spec("a", 2), Spec("b", 1)))
    servers = tuple(replace(s, gpus=(0, 1)) if at == 2 else s for at, s in enumerate(snapshot.layout.servers))
    found = counted(replace(snapshot, layout=replace(snapshot.layout, servers=servers)))
    assert np.isnan(found.replicas[TOKENS_PER_JOULE]).tolist() == [True, False, True]


# promises


def test_promises_of_a_service_are_over_the_defaults() -> None:
    grouping = group(make_services().layout)
    settings = ServingSettings(
        ttft_p99=5.0,
        errors=0.01,
        slo={"chat-70b": SloSettings(ttft_p99=2.0), "code-32b-instruct": SloSettings(ttft_p99="none")},
    )
    limits = limits_of(grouping, settings)
    np.testing.assert_array_equal(limits["ttft_p99"], [2.0, NAN, 5.0, 5.0])
    np.testing.assert_array_equal(limits["errors"], [0.01] * 4)
    assert set(limits) == {"ttft_p99", "errors"}


def test_a_broken_promise_names_the_replica_and_by_how_much() -> None:
    snapshot = make_services()
    found = counted(snapshot)
    limits = limits_of(found.grouping, PROMISES)
    ttft, itl, errors = verdicts(found, limits, 0)
    assert ttft.broken
    assert ttft.worst == 2
    assert ttft.strain == pytest.approx(3.1)
    assert not itl.broken
    assert itl.known
    assert errors.name == "errors"
    assert not errors.broken
    assert strain(found, limits)[0] == pytest.approx(3.1)
    (mine, _, own_errors) = replica_verdicts(snapshot, found, limits, 2)
    assert mine.broken
    assert own_errors.value == pytest.approx(0.011 / 1.511)
    assert not any(verdict.known for verdict in replica_verdicts(snapshot, found, limits, 4)), "it is stale"


def test_what_is_not_known_is_neither_kept_nor_broken() -> None:
    found = counted(make_services())
    limits = limits_of(found.grouping, ServingSettings(ttft_p99=1.0))
    (verdict,) = verdicts(found, limits, 2)
    assert not verdict.known
    assert not verdict.broken
    assert math.isnan(strain(found, limits)[2])


def test_an_objective_of_no_errors_at_all() -> None:
    assert not Verdict("errors", 0.0, 0.0).broken
    assert Verdict("errors", 0.0, 0.0).strain == 0
    assert Verdict("errors", 0.0, 0.01).broken
    assert Verdict("errors", 0.0, 0.01).strain == math.inf


# over time

TIMES = np.arange(0.0, 900.0, 15.0)


def test_how_long_a_promise_is_broken_by_now() -> None:
    series = np.where(TIMES >= 600, 3.0, 1.0)
    kept = excursion(TIMES, series, 2.0)
    assert kept.share == pytest.approx(1 / 3)
    assert kept.since == 600
    assert not kept.since_bound


def test_an_excursion_that_is_over_and_one_older_than_the_window() -> None:
    over = excursion(TIMES, np.where(TIMES < 300, 3.0, 1.0), 2.0)
    assert over.since is None
    assert over.share == pytest.approx(1 / 3)
    whole = excursion(TIMES, np.full(60, 3.0), 2.0)
    assert (whole.since, whole.since_bound, whole.share) == (0.0, True, 1.0)


def test_gaps_say_nothing_of_a_promise() -> None:
    series = np.where(TIMES >= 600, 3.0, 1.0)
    series[::2] = NAN
    assert excursion(TIMES, series, 2.0).share == pytest.approx(1 / 3)
    assert math.isnan(excursion(TIMES, np.full(60, NAN), 2.0).share)


def test_a_cache_that_fills_evenly() -> None:
    usage = np.array(
        [0.5 + 0.0004 * TIMES, np.full(60, 0.7), 0.9 - 0.0004 * TIMES, 0.2 + 0.0002 * TIMES], dtype=np.float32
    )
    found = time_to_full(TIMES, usage)
    assert found[0] == pytest.approx((1 - 0.5 - 0.0004 * TIMES[-1]) / 0.0004, rel=0.01)
    assert np.isnan(found[1:]).all(), "level, falling, and too empty to matter"


def test_noise_is_no_trend_and_a_full_cache_is_full() -> None:
    noise = 0.7 + 0.05 * np.random.default_rng(3).standard_normal(60)
    usage = np.array([noise, np.full(60, 1.0), np.full(60, NAN)], dtype=np.float32)
    found = time_to_full(TIMES, usage)
    assert math.isnan(found[0])
    assert found[1] == 0
    assert math.isnan(found[2])


def test_too_few_points_are_no_trend() -> None:
    usage = np.full((1, 60), NAN, dtype=np.float32)
    usage[0, -3:] = (0.7, 0.75, 0.8)
    assert math.isnan(time_to_full(TIMES, usage)[0])
    assert time_to_full(np.zeros(0), np.zeros((1, 0), dtype=np.float32)).shape == (1,)


def test_series_of_replicas_are_summed_or_the_worst_is_taken() -> None:
    rows = np.array([[1, 2, NAN, 4], [10, NAN, NAN, 40]], dtype=np.float32)
    values = {"serve.running": rows, "serve.ttft_p99": rows}
    assert folded(values, "serve.running", [0, 1]).tolist()[:2] == [11, 12], (
        "a sample stands for one more point"
    )
    assert folded(values, "serve.ttft_p99", [0, 1]).tolist() == [10, 10, 2, 40]
    assert np.isnan(folded(values, "serve.kv_usage", [0, 1])).all()
    gone = np.array([[NAN, NAN, 3, 4]], dtype=np.float32)
    np.testing.assert_array_equal(folded({"serve.running": gone}, "serve.running", [0]), [NAN, NAN, 3, 4])


def test_the_share_of_errors_over_time() -> None:
    values = {
        "serve.errors": np.array([[0, 1, 0]], dtype=np.float32),
        "serve.requests": np.array([[9, 9, 0]], dtype=np.float32),
    }
    np.testing.assert_allclose(folded(values, ERROR_SHARE, [0]), [0, 0.1, NAN])


def test_thousands_of_replicas_take_no_time() -> None:
    snapshot = make_services((Spec("chat", 4000, gpus=1, expected=4096),), racks=64, nodes=8)
    grouping = group(snapshot.layout)
    found = totals(snapshot, grouping)
    assert cpu_seconds(lambda: totals(snapshot, grouping)) < 0.5  # 8 ms alone; the machine is shared
    assert found.ready_count[0] == 4000
    assert found.figure("serve.running", 0).value == 4000 * 52


def test_services_by_night_are_what_they_were_said_to_be() -> None:
    found = counted(make_services(NIGHT))
    assert found.ready_count.tolist() == [5, 4, 2, 3]
