"""Request queueing: full batches and admission that is too careful; queues that are none, and queues for want of cache."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from lab.telemetry import AT, found, jitter, verdict, window_of
from numpy.typing import NDArray

from coldaisle.analyzers.finding import Severity, Verdict

NAME = "request_queueing"
POLLS = 60
SERVERS = ("n01:8000", "n01:8001", "n02:8000")


def of(value: float, normal: float, since: int = 0) -> NDArray[np.float64]:
    values = np.full((POLLS, len(SERVERS)), normal)
    values[since:, 0] = value
    return values


def said(metrics: dict[str, Any], poll: float = 5.0, without: tuple[str, ...] = ()) -> Verdict:
    usual = {
        "serve.kv_usage": of(0.5, 0.5), "serve.waiting": of(0.0, 0.0), "serve.running": of(60.0, 60.0),
        "serve.max_running": of(64.0, 64.0), "serve.preemptions": of(0.0, 0.0),
    }  # fmt: skip
    told = {key: value for key, value in {**usual, **metrics}.items() if key not in without}
    return verdict(NAME, window_of(servers=SERVERS, metrics=told, step=poll))


def test_servers_that_nobody_waits_for_are_silent() -> None:
    assert said({}) == Verdict()


@pytest.mark.parametrize("poll", [1.0, 5.0, 30.0])
def test_a_full_batch(poll: float) -> None:
    (one,) = said({"serve.waiting": of(40.0, 0.0, 10), "serve.running": of(64.0, 40.0)}, poll).candidates
    assert (one.variant, one.roots.servers) == ("limit", (f"n01/{SERVERS[0]}",))
    assert one.loss == pytest.approx(40 / 104, abs=0.02)
    assert one.severity is Severity.CRITICAL
    assert one.since == pytest.approx(AT - min(49 * poll, 870.0), abs=poll)
    assert one.rejected[0].detector == "kv_cache_pressure"


def test_latencies_tell_the_share_better_than_the_queue() -> None:
    metrics = {
        "serve.waiting": of(40.0, 0.0),
        "serve.running": of(64.0, 40.0),
        "serve.queue_p50": of(2.0, 0.0),
        "serve.e2e_p50": of(10.0, 8.0),
    }
    (one,) = said(metrics).candidates
    assert one.loss == pytest.approx(0.2, abs=0.01)


def test_a_ceiling_that_nobody_told_is_seen() -> None:
    running = 58.0 * jitter((POLLS, len(SERVERS)), 0.01)
    (one,) = said(
        {"serve.waiting": of(40.0, 0.0), "serve.running": running}, without=("serve.max_running",)
    ).candidates
    assert one.variant == "limit"


def test_admission_that_is_too_careful() -> None:
    (one,) = said(
        {"serve.waiting": of(30.0, 0.0), "serve.running": of(20.0, 20.0), "serve.kv_usage": of(0.6, 0.5)}
    ).candidates
    assert one.variant == "admission"


def test_a_queue_for_want_of_cache_is_another_condition() -> None:
    waits = {"serve.waiting": of(40.0, 0.0), "serve.running": of(64.0, 40.0)}
    assert not said({**waits, "serve.preemptions": of(0.5, 0.0), "serve.kv_usage": of(0.99, 0.5)}).candidates
    assert not said({**waits, "serve.running": of(30.0, 40.0), "serve.kv_usage": of(0.98, 0.5)}).candidates


def test_a_few_that_wait_now_and_then_are_no_queue() -> None:
    waiting = of(0.0, 0.0)
    waiting[::3, 0] = 3.0
    assert not said({"serve.waiting": waiting, "serve.running": of(64.0, 40.0)}).candidates
    assert not said({"serve.waiting": of(2.0, 0.0), "serve.running": of(64.0, 40.0)}).candidates


def test_a_burst_that_is_over_is_none() -> None:
    waiting = of(0.0, 0.0)
    waiting[-20:-6, 0] = 80.0
    assert not said({"serve.waiting": waiting}).candidates


def test_neither_cache_nor_batch_is_told() -> None:
    """An engine such as TGI has no usage and no limit: a running count that varies says nothing."""
    running = 30.0 + 8.0 * np.random.default_rng(4).standard_normal((POLLS, len(SERVERS)))
    found = said(
        {"serve.waiting": of(40.0, 0.0), "serve.running": running},
        without=("serve.kv_usage", "serve.max_running", "serve.preemptions"),
    )
    assert not found.candidates
    (open_question,) = found.undecided
    assert open_question.scope.servers == (f"n01/{SERVERS[0]}",)
    assert "serve.kv_usage" in open_question.why


def test_both_detectors_never_claim_one_server() -> None:
    rng = np.random.default_rng(7)
    for _ in range(40):
        metrics = {
            "serve.kv_usage": rng.uniform(0, 1, (1, 3)).repeat(POLLS, 0), "serve.waiting": rng.integers(0, 60, (1, 3)).repeat(POLLS, 0),
            "serve.running": rng.integers(1, 64, (1, 3)).repeat(POLLS, 0), "serve.max_running": of(64.0, 64.0),
            "serve.preemptions": (rng.uniform(0, 1, (1, 3)) * rng.integers(0, 2, (1, 3))).repeat(POLLS, 0),
        }  # fmt: skip
        window = window_of(servers=SERVERS, metrics=metrics)
        servers = [one.roots.servers for name in (NAME, "kv_cache_pressure") for one in found(name, window)]
        assert len(servers) == len(set(servers))


def test_a_short_queue_beside_a_batch_with_room_is_how_requests_come() -> None:
    waiting = of(0.0, 0.0)
    waiting[-14:, 0] = 6.0
    assert not said({"serve.waiting": waiting, "serve.running": of(8.0, 8.0)}).candidates


def test_a_queue_that_is_only_passed_through_costs_time_and_no_work() -> None:
    def loss(waiting: float) -> float:
        usual = {
            "serve.waiting": of(waiting, 0.0),
            "serve.running": of(64.0, 20.0),
            "serve.max_running": of(64.0, 64.0),
        }
        times = {
            "serve.queue_p50": of(10.0, 0.0),
            "serve.e2e_p50": of(25.0, 15.0),
            "serve.requests": of(4.0, 1.0),
        }
        (one,) = said({**usual, **times}).candidates
        return one.loss

    assert loss(40.0) == pytest.approx(0.0, abs=0.01)
    assert loss(80.0) == pytest.approx(0.5, abs=0.01)
