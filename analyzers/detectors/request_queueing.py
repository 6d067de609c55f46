"""Request queueing: an inference server has more requests than it may run at once, and room in its KV cache.

Signals: requests wait, most of the time; and either the batch is as full as it may be (told, or seen as a ceiling that the
running requests do not leave), or the cache is far from full. What lacks is admission, not memory: that is
:mod:`.kv_cache_pressure`.

Loss: of the requests that come the share that is not served, where waits and finished requests are told; else of a request's time
the share in the queue, by latencies or by Little's law.
"""

from __future__ import annotations

from typing import NamedTuple

import msgspec
import numpy as np

from coldaisle.analyzers.detectors.kv_cache_pressure import batch_share, lost_share, queue_share
from coldaisle.analyzers.finding import (
    Candidate,
    Evidence,
    Rejected,
    Scope,
    Severity,
    Undecided,
    Verdict,
    Warming,
    severity_of,
)
from coldaisle.analyzers.window import Window, began, mean, median, present, quantile, share
from coldaisle.sources.source import Kind

LOOKBACK_S = 900.0
NAME = "request_queueing"


class Thresholds(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """See the TOML file."""

    window_s: float
    longer_s: float
    least: int
    waits: float
    batch_full: float
    roomy: float
    flat: float
    least_waiting: float
    least_queue: float
    queue_of_batch: float
    queue_share: float
    keep: float


def detect(window: Window, rules: Thresholds) -> Verdict:
    """One candidate a server."""
    if not window.size(Kind.SERVER):
        return Verdict()
    waiting = window.recent("serve.waiting", rules.window_s)
    if 0 < waiting.samples.max(initial=0) < rules.least:
        return Verdict(warming=Warming(NAME, float(waiting.samples.max()), rules.least))
    duty = share(waiting.values >= rules.least_waiting, present(waiting.values))
    usage = median(window.recent("serve.kv_usage", rules.window_s).values)
    running = window.recent("serve.running", rules.window_s).values
    level = median(running)
    spread = quantile(running, 0.9) - quantile(running, 0.1)
    told = batch_share(window, rules.window_s)
    ceiling = (told >= rules.batch_full) | (
        np.isnan(told) & (spread <= rules.flat * np.maximum(level, 1.0)) & (level >= 4)
    )
    pushed = np.nan_to_num(mean(window.recent("serve.preemptions", rules.window_s).values))
    queue = median(waiting.values)
    waits = (
        (duty >= rules.waits)
        & (pushed <= 0)
        & (queue >= np.fmax(rules.least_queue, rules.queue_of_batch * level))
    )
    limited = waits & ceiling & ~(usage >= 0.97)
    # Where nothing is at its limit a short queue is how requests come: it must go on.
    longer = window.recent("serve.waiting", rules.longer_s).values
    goes_on = share(longer >= rules.least_queue, present(longer)) >= rules.waits
    admission = waits & ~ceiling & (usage < rules.roomy) & goes_on
    in_queue, lost = queue_share(window, rules.window_s), lost_share(window, rules.window_s)
    found = np.flatnonzero((limited | admission) & (in_queue >= rules.keep))
    undecided = _undecided(window, np.flatnonzero(waits & np.isnan(usage) & ~ceiling).tolist())
    if not len(found):
        return Verdict(undecided=undecided)
    recent = window.recent("serve.waiting", LOOKBACK_S)
    since = began(recent.values >= rules.least_waiting, recent.times)
    made = tuple(
        _candidate(
            window,
            rules,
            server,
            Queue(
                float(queue[server]),
                float(level[server]),
                float(usage[server]),
                float(in_queue[server]),
                float(lost[server]),
                bool(limited[server]),
                bool(ceiling[server]),
                window.at - rules.window_s if np.isnan(since[server]) else float(since[server]),
                bool(since[server] <= recent.times[0] + recent.step),
            ),
        )
        for server in found.tolist()
    )
    return Verdict(made, undecided)


class Queue(NamedTuple):
    """What is seen of one server."""

    waiting: float
    running: float
    usage: float
    share: float
    """Of a request's time, in the queue, now."""
    lost: float
    is_limited: bool
    is_at_ceiling: bool
    since: float
    since_bound: bool


def _candidate(window: Window, rules: Thresholds, server: int, seen: Queue) -> Candidate:
    key, ttft = window.layout.servers[server].key, float(window.current("serve.ttft_p99")[server])
    ceiling = "at its ceiling" if seen.is_at_ceiling else "below its limit"
    evidence = (
        Evidence(
            "serve.waiting",
            key,
            seen.waiting,
            "1",
            f">= {rules.least_waiting:g} for {rules.waits:.0%} of the time",
        ),
        Evidence("serve.running", key, seen.running, "1", ceiling),
        Evidence("serve.kv_usage", key, seen.usage, "ratio", f"< {rules.roomy:g}"),
    )
    return Candidate(
        NAME,
        "limit" if seen.is_limited else "admission",
        Scope(servers=(key,)),
        max(severity_of(seen.lost), Severity.WARNING),
        seen.since,
        seen.lost,
        0.85,
        evidence,
        since_bound=seen.since_bound,
        is_open=seen.share >= rules.queue_share,
        rejected=(Rejected("kv_cache_pressure", f"no preemptions, cache {_percent(seen.usage)} full"),),
        words={
            "waiting": f"{seen.waiting:.0f}",
            "running": f"{seen.running:.0f}",
            "usage": _percent(seen.usage),
            "queue": _percent(seen.share),
            "ttft": "" if np.isnan(ttft) else f", TTFT p99 {ttft:.1f} s",
        },
    )  # fmt: skip


def _undecided(window: Window, servers: list[int]) -> tuple[Undecided, ...]:
    why = "requests wait; cannot tell a full KV cache from a full batch without serve.kv_usage or serve.max_running"
    return tuple(
        Undecided(NAME, Scope(servers=(window.layout.servers[server].key,)), why) for server in servers
    )


def _percent(value: float) -> str:
    return "?" if np.isnan(value) else f"{value:.0%}"
