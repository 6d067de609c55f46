"""KV-cache pressure: an inference server lacks room for the requests it has.

Preemptions (vLLM) or retractions (SGLang) that go on are definitive. Without them: a full cache *and* waiting requests *and*
a batch that has room. A full cache alone is good utilisation (prefixes that are kept), and so is no sign.

Loss: of the requests that come, the share that is not served (:func:`unserved_share`), or of all tokens those that are computed
again, whichever is more. Where waits or requests are not told, a request's time in the queue stands for the former.
"""

from __future__ import annotations

import msgspec
import numpy as np

from coldaisle.analyzers.finding import (
    Candidate,
    Evidence,
    Rejected,
    Scope,
    Severity,
    Verdict,
    Warming,
    severity_of,
)
from coldaisle.analyzers.snapshot import Times
from coldaisle.analyzers.window import Bools, Window, began, mean, median, present, share
from coldaisle.sources.source import Floats, Kind
from coldaisle.sources.units import age as in_words

LOOKBACK_S = 900.0
NAME = "kv_cache_pressure"


class Thresholds(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """See the TOML file."""

    window_s: float
    least: int
    preempted: float
    preempted_share: float
    pushes: int
    queue_of_batch: float
    straight: float
    rise: float
    full: float
    nearly: float
    ahead_s: float
    batch_full: float
    keep: float


def detect(window: Window, rules: Thresholds) -> Verdict:
    """One candidate a server."""
    if not window.size(Kind.SERVER):
        return Verdict()
    usage = window.recent("serve.kv_usage", rules.window_s)
    waiting = window.recent("serve.waiting", rules.window_s)
    samples = int(max(usage.samples.max(initial=0), waiting.samples.max(initial=0)))
    if 0 < samples < rules.least:
        return Verdict(warming=Warming(NAME, samples, rules.least))
    pushed = mean(window.recent("serve.preemptions", rules.window_s).values)
    finished = mean(window.recent("serve.requests", rules.window_s).values)
    level = median(usage.values)
    queued = share(waiting.values > 0, present(waiting.values))
    # So few are read within moments.
    batch = median(window.recent("serve.running", rules.window_s).values)
    delays = median(waiting.values) >= np.fmax(1.0, rules.queue_of_batch * np.nan_to_num(batch))
    room = ~(batch_share(window, rules.window_s) >= rules.batch_full)
    # One a minute, or one in a hundred requests where fewer than that finish.
    limit = np.fmax(rules.preempted, np.nan_to_num(rules.preempted_share * finished))
    # Not one burst: it goes on.
    goes_on = (window.recent("serve.preemptions", rules.window_s).values > 0).sum(axis=0) >= rules.pushes
    preempting = np.where(goes_on, pushed / limit, 0.0)
    full = (level >= rules.full) & (queued >= 0.7) & delays & room
    left = _left(window.recent("serve.kv_usage", 3 * rules.window_s).values, usage.step, rules)
    filling = (level >= rules.nearly) & (left <= rules.ahead_s) & room & ~full
    found = np.flatnonzero((preempting >= rules.keep) | full | filling)
    if not len(found):
        return Verdict()
    since = _since(window, rules)
    made = []
    for server in found.tolist():
        variant = "preempting" if preempting[server] >= rules.keep else "full" if full[server] else "filling"
        made.append(
            _candidate(
                window, rules, server, variant, float(preempting[server]), level, pushed, left, since, delays
            )
        )
    return Verdict(tuple(made))


def batch_share(window: Window, seconds: float) -> Floats:
    """[server] requests in the batch, of those that it may hold; NaN: nobody says how many that is."""
    running = median(window.recent("serve.running", seconds).values)
    most = window.current("serve.max_running")
    with np.errstate(divide="ignore", invalid="ignore"):
        filled: Floats = np.where(most > 0, running / most, np.nan).astype(np.float32)
    return filled


def queue_share(window: Window, seconds: float) -> Floats:
    """[server] of a request's time the share that it waits for admission; NaN: not told."""
    waits = median(window.recent("serve.queue_p50", seconds).values)
    whole = median(window.recent("serve.e2e_p50", seconds).values)
    whole = np.where(np.isnan(whole), median(window.recent("serve.e2e_p99", seconds).values), whole)
    with np.errstate(divide="ignore", invalid="ignore"):
        told = np.clip(waits / whole, 0.0, 0.95)
    queue = median(window.recent("serve.waiting", seconds).values)
    running = median(window.recent("serve.running", seconds).values)
    # By Little's law, where latencies are not told.
    little = queue / np.maximum(queue + running, 1e-6)
    queued: Floats = np.where(np.isnan(told), little, told).astype(np.float32)
    return queued


def unserved_share(window: Window, seconds: float) -> Floats:
    """[server] of the requests that come the share that is not served: they make the queue longer, or are given up. NaN: not told.

    A queue that is served in order holds who came while the one that is admitted now waited: with Q in the queue and a wait of W
    requests come at Q / W a second, whether the queue grows or clients lose patience; the rest is what is finished. A queue that is
    only passed through costs time, and no work.
    """
    queue = median(window.recent("serve.waiting", seconds).values)
    waits = median(window.recent("serve.queue_p50", seconds).values)
    served = mean(window.recent("serve.requests", seconds).values)
    with np.errstate(divide="ignore", invalid="ignore"):
        unserved = np.where((queue >= 1) & (waits > 0), 1 - served * waits / queue, np.nan)
    share: Floats = np.clip(unserved, 0.0, 1.0).astype(np.float32)
    return share


def lost_share(window: Window, seconds: float) -> Floats:
    """[server] of its work: what is not served, where that is told; else a request's time in the queue."""
    unserved = unserved_share(window, seconds)
    lost: Floats = np.where(np.isnan(unserved), queue_share(window, seconds), unserved)
    return lost


def _left(values: Floats, step: float, rules: Thresholds) -> Floats:
    """[server] seconds until the cache is full, of those that fill along a line; inf: it does not.

    The last sample must lie near the line, too: what has settled is not filling any more.
    """
    have = present(values)
    times = step * np.arange(len(values), dtype=np.float32)[:, None]
    with np.errstate(divide="ignore", invalid="ignore"):
        x = np.where(have, times, np.nan) - mean(np.where(have, times, np.nan).astype(np.float32))
        y = values - mean(values)
        xx, xy, yy = (mean((one * other).astype(np.float32)) for one, other in ((x, x), (x, y), (y, y)))
        slope, fit = xy / xx, xy * xy / (xx * yy)
        late = mean(values[-max(len(values) // 3, 2) :])
        earlier = mean(values[-2 * max(len(values) // 3, 2) : -max(len(values) // 3, 2)])
        grows = (slope > 0) & (fit >= rules.straight) & (late - earlier >= rules.rise)
        left: Floats = np.where(grows, (1 - late) / slope, np.inf).astype(np.float32)
    return left


def _since(window: Window, rules: Thresholds) -> Times:
    usage = window.recent("serve.kv_usage", 900.0)
    pushed = window.recent("serve.preemptions", 900.0, step=usage.step)
    full = usage.values >= rules.nearly
    return (
        began(full, usage.times)
        if pushed.values.shape != full.shape
        else began(full | (pushed.values > 0), usage.times)
    )


def _candidate(
    window: Window, rules: Thresholds, server: int, variant: str, preempting: float, level: Floats, pushed: Floats,
    left: Floats, since: Times, delays: Bools,
) -> Candidate:  # fmt: skip
    key = window.layout.servers[server].key
    waiting = float(window.current("serve.waiting")[server])
    begun = float(since[server]) if not np.isnan(since[server]) else window.at - rules.window_s
    loss = _loss(window, rules, server, float(pushed[server])) if variant != "filling" else 0.0
    ttft = float(window.current("serve.ttft_p99")[server])
    evidence = [Evidence("serve.kv_usage", key, float(level[server]), "ratio", f">= {rules.full:g}")]
    if variant == "preempting":
        evidence.insert(
            0, Evidence("serve.preemptions", key, float(pushed[server]), "/s", f">= {rules.preempted:g}")
        )
    evidence.append(
        Evidence("serve.waiting", key, waiting, "1", "> 0" if variant != "filling" else "for information")
    )
    return Candidate(
        NAME,
        variant,
        Scope(servers=(key,)),
        _severity(loss, bool(delays[server])),
        begun,
        loss,
        0.95 if variant == "preempting" else 0.8,
        tuple(evidence),
        since_bound=begun <= window.at - 890.0,
        is_open=variant != "preempting" or preempting >= 1,
        rejected=(
            Rejected(
                "request_queueing",
                f"the batch is {_percent(batch_share(window, rules.window_s)[server])} full",
            ),
        ),
        words={
            "rate": f"{60 * float(pushed[server]):.1f}",
            "waiting": "?" if np.isnan(waiting) else f"{waiting:.0f}",
            "usage": _percent(level[server]),
            "left": in_words(float(left[server])) if np.isfinite(left[server]) else "?",
            "ttft": "" if np.isnan(ttft) else f", TTFT p99 {ttft:.1f} s",
        },
    )


def _severity(loss: float, delays: bool) -> Severity:
    """Requests that wait will cost more soon; where now and then one is pushed out, or a cache fills, and nobody waits, little
    is lost."""
    return max(severity_of(loss), Severity.WARNING if delays else Severity.INFO)


def _loss(window: Window, rules: Thresholds, server: int, pushed: float) -> float:
    unserved = float(lost_share(window, rules.window_s)[server])
    prompt, made = (
        float(mean(window.recent(key, rules.window_s).values)[server])
        for key in ("serve.prompt_tokens", "serve.gen_tokens")
    )
    tokens = made + (0.0 if np.isnan(prompt) else prompt)
    running = max(float(window.current("serve.running")[server]), 1.0)
    used = float(window.current("serve.kv_usage")[server]) * float(
        window.current("serve.kv_capacity")[server]
    )
    again = pushed * used / running  # tokens a second that are computed a second time
    recomputed = again / (again + tokens) if tokens > 0 and again > 0 else 0.0
    return float(np.clip(np.nanmax([unserved, recomputed, 0.0]), 0.0, 1.0))


def _percent(value: float) -> str:
    return "?" if np.isnan(value) else f"{value:.0%}"
