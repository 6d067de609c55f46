"""Request queueing: an inference server has more requests than it may run at once, and room in its KV cache.

Signals: requests wait, most of the time; and either the batch is as full as it may be (told, or seen as a ceiling that the
running requests do not leave), or the cache is far from full. What lacks is admission, not memory: that is
:mod:`.kv_cache_pressure`.

Loss: of a request's time the share in the queue, where latencies are told; else by Little's law.
"""

from __future__ import annotations

import msgspec
import numpy as np

from coldaisle.analyzers.detectors.kv_cache_pressure import batch_share, queue_share
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
    admission = waits & ~ceiling & (usage < rules.roomy)
    loss = queue_share(window, rules.window_s)
    found = np.flatnonzero((limited | admission) & (loss >= rules.keep))
    undecided = _undecided(window, np.flatnonzero(waits & np.isnan(usage) & ~ceiling).tolist())
    if not len(found):
        return Verdict(undecided=undecided)
    recent = window.recent("serve.waiting", 900.0)
    since = began(recent.values >= rules.least_waiting, recent.times)
    made = []
    for server in found.tolist():
        key = window.layout.servers[server].key
        begun = float(since[server]) if not np.isnan(since[server]) else window.at - rules.window_s
        variant = "limit" if limited[server] else "admission"
        queued, share_lost = float(median(waiting.values)[server]), float(loss[server])
        ttft = float(window.current("serve.ttft_p99")[server])
        evidence = (
            Evidence(
                "serve.waiting",
                key,
                queued,
                "1",
                f">= {rules.least_waiting:g} for {rules.waits:.0%} of the time",
            ),
            Evidence(
                "serve.running",
                key,
                float(level[server]),
                "1",
                "at its ceiling" if ceiling[server] else "below its limit",
            ),
            Evidence("serve.kv_usage", key, float(usage[server]), "ratio", f"< {rules.roomy:g}"),
        )
        made.append(
            Candidate(
                NAME, variant, Scope(servers=(key,)), max(severity_of(share_lost), Severity.WARNING), begun, share_lost, 0.85, evidence,
                is_open=share_lost >= rules.queue_share,
                since_bound=begun <= float(recent.times[0]) + recent.step,
                rejected=(Rejected("kv_cache_pressure", f"no preemptions, cache {_percent(usage[server])} full"),),
                words={"waiting": f"{queued:.0f}", "running": f"{level[server]:.0f}", "usage": _percent(usage[server]),
                       "queue": f"{share_lost:.0%}", "ttft": "" if np.isnan(ttft) else f", TTFT p99 {ttft:.1f} s"},
            )
        )  # fmt: skip
    return Verdict(tuple(made), undecided)


def _undecided(window: Window, servers: list[int]) -> tuple[Undecided, ...]:
    why = "requests wait; cannot tell a full KV cache from a full batch without serve.kv_usage or serve.max_running"
    return tuple(
        Undecided(NAME, Scope(servers=(window.layout.servers[server].key,)), why) for server in servers
    )


def _percent(value: float) -> str:
    return "?" if np.isnan(value) else f"{value:.0%}"
