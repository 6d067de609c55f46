"""Inference replicas as a fluid: arrivals, a queue, a batch, KV cache tokens, preemption by recomputing.

Continuous batching: one token a request and iteration; an iteration lasts as long as it takes to read the
weights and the KV cache once, and prefill takes its share of the time.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from coldaisle.sources.simulator.physics import unit
from coldaisle.sources.simulator.plan import Array, Bools, Ints, Plan
from coldaisle.sources.simulator.workloads import SERVICES, Replica

_MAX_RUNNING = 256.0
_PATIENCE_S = 90.0
"""Clients give up after this long in the queue: it bounds the queue under overload."""
_BANDWIDTH_SHARE = 0.62
"""Achieved share of the memory bandwidth in decode."""
_FLOPS_SHARE = 0.42
CLUMP_S = 10.0
"""Requests come in clumps: their number varies from one such stretch to the next (Poisson)."""
_STEP_S = 2.0
"""Longest step of the fluid; requests take tens of seconds."""
PREFIX_HIT = 0.42
"""Prompt tokens found in the prefix cache while it has room."""
_FLOOR_S = 0.006
"""Launch and scheduling cost of one iteration."""


@dataclass(frozen=True, slots=True, eq=False)
class Fleet:
    """Constants of all replicas, as arrays [replica]."""

    node: Ints
    gpus: Array
    weights: Array
    kv_token: Array
    bandwidth: Array
    """Bytes/s over the replica's boards, achieved."""
    capacity: Array
    """Tokens of KV cache."""
    prefill: Array
    """Prompt tokens a second that the boards can compute."""
    prompt: Array
    answer: Array
    arrivals: Array
    """Requests a second at the usual load."""
    memory: Array
    """Share of a board's memory that is taken, weights and cache."""
    phase: Array


def build_fleet(plan: Plan, replicas: tuple[Replica, ...]) -> Fleet:
    """The constants; the load is set from what a replica can hold."""
    first = np.array([replica.gpus[0] for replica in replicas], dtype=np.intp)
    gpus = np.array([float(len(replica.gpus)) for replica in replicas])
    service = [SERVICES[replica.service] for replica in replicas]
    weights = np.minimum(np.array([s.weights for s in service]), 0.7 * plan.columns["memory"][first] * gpus)
    kv_token = np.array([s.kv_token for s in service])
    bandwidth = plan.columns["hbm"][first] * gpus * _BANDWIDTH_SHARE
    capacity = np.floor((0.92 * plan.columns["memory"][first] * gpus - weights) / kv_token / 16) * 16
    prompt, answer = np.array([s.prompt for s in service]), np.array([s.answer for s in service])
    flops = plan.columns["flops"][first] * gpus * _FLOPS_SHARE
    prefill = flops / (2 * np.array([s.params for s in service])) / (1 - PREFIX_HIT)
    load = np.array([s.load for s in service])
    running = np.minimum(capacity / (prompt + answer / 2), _MAX_RUNNING * 0.9) * load
    iteration = _FLOOR_S + (weights + running * (prompt + answer / 2) * kv_token) / bandwidth
    by_decode = running / (answer * iteration)
    arrivals = np.minimum(by_decode * prefill / (prefill + by_decode * prompt), 0.4 * prefill / prompt)
    phase = np.random.default_rng((plan.seed, 5)).random(len(replicas))
    node = np.array([replica.node for replica in replicas], dtype=np.intp)
    memory = np.full(len(replicas), 0.92)
    return Fleet(
        node, gpus, weights, kv_token, bandwidth, capacity, prefill, prompt, answer, arrivals, memory, phase
    )


@dataclass(slots=True, eq=False)
class Queues:
    """What changes: requests and tokens, [replica]."""

    running: Array
    waiting: Array
    tokens: Array

    def drop(self, down: Bools) -> None:
        """What is in a server that starts again is lost."""
        for held in (self.running, self.waiting, self.tokens):
            held[down] = 0.0


@dataclass(frozen=True, slots=True, eq=False)
class Served:
    """One interval of the fleet, [replica]; rates are means over it."""

    kv: Array
    running: Array
    waiting: Array
    preempted: Array
    prompt_rate: Array
    token_rate: Array
    finished: Array
    abandoned: Array
    iteration: Array
    queue_s: Array
    """Seconds that a request waits before its prefill."""
    prefill_share: Array
    decode_read: Array
    """Share of the peak memory bandwidth that decode draws."""


def start(fleet: Fleet) -> Queues:
    """An empty fleet; it fills within a few request times."""
    zero = np.zeros(len(fleet.gpus))
    return Queues(zero, zero.copy(), zero.copy())


def arrival_rate(fleet: Fleet, time: float, factor: Array) -> Array:
    """Requests a second: a slow tide, a quick one, and what a fault adds."""
    tide = np.sin(2 * np.pi * (time / 1130 + fleet.phase))
    quick = np.sin(2 * np.pi * (time / 97 + 7 * fleet.phase))
    return fleet.arrivals * (1 + 0.22 * tide + 0.10 * quick) * factor


def serve(fleet: Fleet, queues: Queues, time: float, seconds: float, factor: Array, noise: Array) -> Served:
    """Advances the queues to ``time`` in small steps and returns the interval's means.

    ``factor`` [replica] multiplies the arrivals; ``noise`` [replica] is standard normal, one draw for each
    :data:`CLUMP_S` seconds, so that arrivals do not depend on how finely time is cut.
    """
    steps = max(1, int(np.ceil(seconds / _STEP_S)))
    h = seconds / steps
    usual = arrival_rate(fleet, time, factor)
    rate = np.maximum(usual + noise * np.sqrt(usual / CLUMP_S), 0.0)
    sums = np.zeros((5, len(rate)))
    iteration = prefill_share = np.zeros(len(rate))
    for _ in range(steps):
        moved, iteration, prefill_share = _advance(fleet, queues, rate, h)
        sums += moved
    admitted, generated, finished, preempted, left = sums / seconds
    mean_iteration = np.maximum(iteration, 1e-4)
    decode = np.where(
        queues.running > 0.5,
        (fleet.weights + queues.tokens * fleet.kv_token) / mean_iteration / fleet.bandwidth,
        0.0,
    )
    return Served(
        kv=unit(queues.tokens / fleet.capacity),
        running=queues.running.copy(),
        waiting=queues.waiting.copy(),
        preempted=preempted,
        prompt_rate=admitted * fleet.prompt,
        token_rate=generated,
        finished=finished,
        abandoned=left,
        iteration=mean_iteration,
        queue_s=queues.waiting / np.maximum(admitted, 0.02),
        prefill_share=prefill_share,
        decode_read=np.clip(decode * _BANDWIDTH_SHARE, 0.0, 0.9),
    )


def _squeeze(fleet: Fleet) -> Array:
    """Preemptions per admission into a full cache.

    An admission leaves, on average, half a prompt of room; until the next request finishes, the batch grows by
    ``answer`` tokens. Each preemption frees a whole context, which lasts for the growth of several.
    """
    context = fleet.prompt + fleet.answer / 2
    return np.minimum(fleet.answer / fleet.prompt, 1.0) / (1 + context / fleet.answer)


def _advance(fleet: Fleet, queues: Queues, rate: Array, h: float) -> tuple[Array, Array, Array]:
    """One small step; (admitted, generated, finished, preempted, abandoned), iteration time, prefill share."""
    waiting = queues.waiting + rate * h
    room = np.maximum(0.99 * fleet.capacity - queues.tokens, 0.0) / fleet.prompt
    admitted = np.minimum(np.minimum(waiting, room), np.maximum(_MAX_RUNNING - queues.running, 0.0))
    admitted = np.minimum(admitted, 0.9 * fleet.prefill * h / fleet.prompt)
    prefill_share = admitted * fleet.prompt / (fleet.prefill * h)
    running = queues.running + admitted
    tokens = queues.tokens + admitted * fleet.prompt
    iteration = (_FLOOR_S + (fleet.weights + tokens * fleet.kv_token) / fleet.bandwidth) / (1 - prefill_share)
    finished = np.minimum(running * h / iteration / fleet.answer, running)
    generated = finished * fleet.answer
    mean = fleet.prompt + fleet.answer / 2
    full = (room < waiting) & (room <= admitted)
    preempted = np.minimum(np.where(full, admitted * _squeeze(fleet), 0.0), running - finished)
    running = running - finished - preempted
    tokens = tokens + generated - finished * (fleet.prompt + fleet.answer) - preempted * mean
    tokens = np.clip(
        tokens, running * fleet.prompt, np.minimum(running * (fleet.prompt + fleet.answer), fleet.capacity)
    )
    waiting = waiting - admitted + preempted
    kept = np.minimum(waiting, np.maximum(rate * _PATIENCE_S, 1.0))
    queues.running, queues.tokens, queues.waiting = running, tokens, kept
    return np.stack([admitted, generated, finished, preempted, waiting - kept]), iteration, prefill_share
