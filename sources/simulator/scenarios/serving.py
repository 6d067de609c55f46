"""Inference servers request by request: admission, prefill, a token an iteration, preemption when the KV cache is full."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import numpy as np

from coldaisle.sources.simulator.plan import Array, Bools

LATENCIES_S = 30.0
"""Percentiles are of what happened in so many seconds."""
PREFILL_SHARE = 0.7
"""Of the time, prefill takes no more than this while requests decode (chunked prefill)."""


@dataclass(frozen=True, slots=True)
class Service:
    """What a server is, and what is asked of it."""

    kv_tokens: float
    """Capacity of the KV cache."""
    max_running: int
    arrivals: float
    """Requests per second."""
    prompt: float
    answer: float
    """Mean tokens."""
    burst: float = 1.0
    """Coefficient of variation of the gaps between arrivals."""
    clients: int = 0
    """So many clients ask their next question when they have an answer; 0: arrivals do not wait for answers."""
    patience: float = 180.0
    """Seconds after which a request that still waits is given up."""
    base: float = 0.02
    """Seconds of an iteration that moves only weights."""
    per_token: float = 2.2e-8
    """Seconds an iteration takes longer for each token in the cache: it is read from HBM."""
    prefill: float = 9000.0
    """Prompt tokens computed per second."""
    prefix: float = 0.3
    """Share of prompt tokens that are in the prefix cache."""
    spread: float = 1.3
    """Shape of the gamma distribution of lengths; large: all alike."""
    keeps_prefixes: bool = False
    """Whether the engine counts cached prefixes as usage: then it is always nearly full, and healthy."""


def unbounded(service: Service) -> Service:
    """The same demand with room for all of it."""
    return replace(
        service,
        kv_tokens=20 * service.kv_tokens,
        max_running=4096,
        prefill=8 * service.prefill,
        per_token=service.per_token / 4,
    )


class Request(NamedTuple):
    """One that waits."""

    arrived: float
    context: float
    """Tokens to prefill: its prompt, or all that it had when it was pushed out."""
    rest: float
    """Tokens still to generate."""
    is_new: bool


Latencies = deque[tuple[float, float]]


def _none() -> Array:
    return np.zeros(0)


@dataclass(slots=True, eq=False)
class Server:
    """One engine in motion."""

    service: Service
    draw: np.random.Generator
    context: Array = field(default_factory=_none)
    """[running] tokens of each request in the batch"""
    todo: Array = field(default_factory=_none)
    """[running] of these, not yet computed"""
    rest: Array = field(default_factory=_none)
    """[running] tokens still to generate"""
    arrived: Array = field(default_factory=_none)
    silent: Bools = field(default_factory=lambda: np.zeros(0, dtype=np.bool_))
    """[running] whether its first token is still to come"""
    waiting: deque[Request] = field(default_factory=deque)
    next_arrival: float = 0.0
    arrivals: float = 1.0
    """Factor, changed by causes."""
    length: float = 1.0
    """Factor of prompt and answer, changed by causes."""
    generated: float = 0.0
    prompted: float = 0.0
    recomputed: float = 0.0
    preemptions: float = 0.0
    finished: float = 0.0
    ttft: Latencies = field(default_factory=deque)
    itl: Latencies = field(default_factory=deque)
    queued: Latencies = field(default_factory=deque)
    e2e: Latencies = field(default_factory=deque)
    busy: float = 0.0
    """Share of the time in which something runs."""
    sm: float = 0.0
    tensor: float = 0.0
    dram: float = 0.0

    def advance(self, time: float, seconds: float) -> None:
        """One step: arrivals, admission, prefill, tokens, endings."""
        self._arrive(time, seconds)
        self._admit(time)
        share = self._prefill(seconds)
        running = len(self.context)
        s = self.service
        iteration = (s.base + s.per_token * float(self.context.sum())) / max(1 - share, 0.3)
        if running:
            self._decode(time, seconds / iteration, iteration)
            self._make_room()
        self.busy = 1.0 if running else 0.0
        self.sm = self.busy * min(0.25 + 0.004 * running + 0.55 * share, 0.95)
        self.tensor = self.busy * min(0.03 + 0.0006 * running + 0.6 * share, 0.7)
        self.dram = self.busy * (1 - share) * min(0.45 + 0.35 * self.usage, 0.85)

    def forget(self, time: float) -> None:
        """Latencies of long ago."""
        for known in (self.ttft, self.itl, self.queued, self.e2e):
            while known and known[0][0] < time - LATENCIES_S:
                known.popleft()

    def _arrive(self, time: float, seconds: float) -> None:
        s = self.service
        if s.clients:
            asking = round(s.clients * self.arrivals) - len(self.waiting) - len(self.context)
            for _ in range(min(max(asking, 0), 4 if time < 120 else 64)):
                self._ask(time)
            return
        rate = s.arrivals * self.arrivals
        if rate <= 0:
            self.next_arrival = time
        while self.next_arrival <= time and rate > 0:
            shape = 1 / s.burst**2
            gap = float(self.draw.gamma(shape, 1 / (rate * shape)))
            self.next_arrival = max(self.next_arrival, time - seconds) + gap
            self._ask(time)
        while self.waiting and time - self.waiting[-1].arrived > s.patience:
            self.waiting.pop()
        while self.waiting and time - self.waiting[0].arrived > s.patience and self.waiting[0].is_new:
            self.waiting.popleft()

    def _ask(self, time: float) -> None:
        s = self.service
        prompt = max(float(self.draw.gamma(s.spread, s.prompt * self.length / s.spread)), 8.0)
        answer = max(float(self.draw.gamma(s.spread, s.answer * self.length / s.spread)), 2.0)
        self.waiting.append(
            Request(time, min(prompt, 0.5 * s.kv_tokens), min(answer, 0.4 * s.kv_tokens), True)
        )

    def _admit(self, time: float) -> None:
        s = self.service
        used, behind = float(self.context.sum()), float(self.todo.sum())
        new: list[Request] = []
        while self.waiting and len(self.context) + len(new) < s.max_running and behind < 0.5 * s.prefill:
            first = self.waiting[0]
            if used + first.context > 0.99 * s.kv_tokens:
                break
            new.append(self.waiting.popleft())
            used, behind = used + first.context, behind + first.context * (1 - s.prefix)
            if first.is_new:
                self.queued.append((time, time - first.arrived))
        if new:
            self.context = np.append(self.context, [r.context for r in new])
            self.todo = np.append(self.todo, [r.context * (1 - s.prefix) for r in new])
            self.rest = np.append(self.rest, [r.rest for r in new])
            self.arrived = np.append(self.arrived, [r.arrived for r in new])
            self.silent = np.append(self.silent, [r.is_new for r in new])

    def _prefill(self, seconds: float) -> float:
        """Compute prompts, the oldest first; the share of the time that it takes."""
        if not len(self.todo):
            return 0.0
        budget = self.service.prefill * seconds * PREFILL_SHARE
        before = np.cumsum(self.todo) - self.todo
        done = np.clip(budget - before, 0.0, self.todo)
        self.todo = self.todo - done
        self.prompted += float(done.sum())
        return float(done.sum()) / (self.service.prefill * seconds)

    def _decode(self, time: float, tokens: float, iteration: float) -> None:
        ready = self.todo <= 0
        for arrived in self.arrived[self.silent & ready]:
            self.ttft.append((time, time - float(arrived) + iteration))
        self.silent = self.silent & ~ready
        if ready.any():
            self.itl.append((time, iteration))
        made = np.where(ready, np.minimum(self.rest, tokens), 0.0)
        self.generated += float(made.sum())
        self.context, self.rest = self.context + made, self.rest - made
        ended = self.rest <= 0
        self.e2e.extend((time, time - float(arrived)) for arrived in self.arrived[ended])
        self.finished += int(ended.sum())
        self._keep(~ended)

    def _make_room(self) -> None:
        """The youngest are pushed out, and computed again later."""
        while len(self.context) > 1 and self.context.sum() > self.service.kv_tokens:
            last = len(self.context) - 1
            context, rest = float(self.context[last]), max(float(self.rest[last]), 2.0)
            self.waiting.appendleft(
                Request(float(self.arrived[last]), context, rest, bool(self.silent[last]))
            )
            self.recomputed += context
            self.preemptions += 1
            self._keep(np.arange(last + 1) < last)

    def _keep(self, which: Bools) -> None:
        self.context, self.todo, self.rest = self.context[which], self.todo[which], self.rest[which]
        self.arrived, self.silent = self.arrived[which], self.silent[which]

    @property
    def usage(self) -> float:
        """Of the KV cache, as the engine shows it."""
        used = min(float(self.context.sum()) / self.service.kv_tokens, 1.0)
        return max(used, 0.93 + 0.05 * used) if self.service.keeps_prefixes else used

    @property
    def hit_rate(self) -> float:
        """Of the prefix cache: it shrinks when requests need the room."""
        used = min(float(self.context.sum()) / self.service.kv_tokens, 1.0)
        return self.service.prefix * (1 - 0.7 * max(used - 0.8, 0.0) / 0.2)
