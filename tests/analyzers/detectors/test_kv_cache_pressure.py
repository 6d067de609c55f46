"""KV-cache pressure: what proves it, what announces it, and full caches that are healthy."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from lab.telemetry import AT, found, verdict, window_of
from numpy.typing import NDArray

from coldaisle.analyzers.finding import Candidate, Severity

NAME = "kv_cache_pressure"
POLLS = 60
SERVERS = ("n01:8000", "n01:8001", "n02:8000", "n02:8001")


def of(value: float, normal: float, since: int = 0) -> NDArray[np.float64]:
    """[time, server] the first server unlike its replicas, from a poll on."""
    values = np.full((POLLS, len(SERVERS)), normal)
    values[since:, 0] = value
    return values


def seen(metrics: dict[str, Any], poll: float = 5.0) -> tuple[Candidate, ...]:
    usual = {
        "serve.kv_usage": of(0.5, 0.5), "serve.waiting": of(0.0, 0.0), "serve.running": of(60.0, 60.0),
        "serve.max_running": of(256.0, 256.0), "serve.preemptions": of(0.0, 0.0), "serve.requests": of(4.0, 4.0),
        "serve.gen_tokens": of(2000.0, 2000.0),
    }  # fmt: skip
    return found(NAME, window_of(servers=SERVERS, metrics={**usual, **metrics}, step=poll))


def test_servers_with_room_are_silent() -> None:
    assert not seen({})


@pytest.mark.parametrize("poll", [1.0, 5.0, 15.0, 30.0])
def test_preemptions_that_go_on(poll: float) -> None:
    (one,) = seen(
        {
            "serve.preemptions": of(0.4, 0.0, 40), "serve.kv_usage": of(0.99, 0.5, 38), "serve.waiting": of(21.3, 0.0, 40),
            "serve.queue_p50": of(4.0, 0.01), "serve.e2e_p50": of(16.0, 12.0),
        },
        poll,
    )  # fmt: skip
    assert (one.variant, one.roots.servers) == ("preempting", (f"n01/{SERVERS[0]}",))
    assert one.is_open
    # who is admitted came 4 s ago, and 21.3 have come since: 5.3 a second, of which 4 are served
    assert one.loss == pytest.approx(0.25, abs=0.02)
    assert one.severity is Severity.WARNING
    assert one.since == pytest.approx(AT - 21 * poll, abs=2.1 * poll)
    assert len({evidence.metric for evidence in one.evidence}) >= 2


def test_one_burst_of_preemptions_is_none() -> None:
    burst = of(0.0, 0.0)
    burst[-4, 0] = 2.0
    assert not seen({"serve.preemptions": burst, "serve.kv_usage": of(0.9, 0.5)})


def test_preemptions_that_delay_nobody_are_worth_knowing() -> None:
    (one,) = seen({"serve.preemptions": of(0.06, 0.0), "serve.kv_usage": of(0.96, 0.5)})
    assert one.severity is Severity.INFO


def test_a_full_cache_and_requests_that_wait_while_the_batch_has_room() -> None:
    (one,) = seen({"serve.kv_usage": of(0.98, 0.5), "serve.waiting": of(30.0, 0.0)})
    assert (one.variant, one.severity) == (
        "full",
        Severity.CRITICAL,
    )  # a third of the requests, by Little's law
    assert one.rejected[0].detector == "request_queueing"


def test_a_full_cache_where_nobody_waits_is_healthy() -> None:
    noise = np.clip(0.97 + 0.02 * np.random.default_rng(1).standard_normal((POLLS, len(SERVERS))), 0, 1)
    assert not seen({"serve.kv_usage": noise})


def test_a_full_batch_is_no_matter_of_the_cache() -> None:
    assert not seen(
        {"serve.kv_usage": of(0.97, 0.5), "serve.waiting": of(30.0, 0.0), "serve.running": of(256.0, 60.0)}
    )


def test_a_cache_that_fills() -> None:
    usage = of(0.5, 0.5)
    usage[-36:, 0] = np.linspace(0.6, 0.93, 36)
    (one,) = seen({"serve.kv_usage": usage})
    assert (one.variant, one.severity) == ("filling", Severity.INFO)
    assert one.words["left"] not in ("", "?")
    (waits,) = seen({"serve.kv_usage": usage, "serve.waiting": of(12.0, 0.0)})
    assert waits.severity is Severity.WARNING


def test_a_cache_that_has_filled_or_fluctuates_does_not_fill() -> None:
    settled = of(0.88, 0.5)
    settled[:40, 0] = np.linspace(0.5, 0.88, 40)
    rng = np.random.default_rng(2)
    for usage in (settled, np.clip(0.85 + 0.03 * rng.standard_normal(settled.shape), 0, 1)):
        assert not seen({"serve.kv_usage": usage})


def test_preemptions_alone_prove_it_where_usage_is_not_told() -> None:
    metrics = {
        "serve.preemptions": of(0.5, 0.0),
        "serve.waiting": of(40.0, 0.0),
        "serve.running": of(60.0, 60.0),
    }
    (one,) = found(NAME, window_of(servers=SERVERS, metrics=metrics))
    assert one.variant == "preempting"


def test_too_few_samples_warm_up() -> None:
    metrics = {"serve.kv_usage": of(0.99, 0.5)[-2:], "serve.waiting": of(9.0, 0.0)[-2:]}
    said = verdict(NAME, window_of(servers=SERVERS, metrics=metrics))
    assert not said.candidates
    assert said.warming is not None
    assert said.warming.have == 2
