"""Inference servers request by request: admission, prefill, a token an iteration, preemption when the KV cache is full."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from coldaisle.sources.simulator.plan import Array


@dataclass(slots=True)
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
    base: float = 0.02
    """Seconds of an iteration that moves only weights."""
    per_token: float = 2.2e-8
    """Seconds an iteration takes longer for each token in the cache: it is read from HBM."""
    prefill: float = 9000.0
    """Prompt tokens computed per second."""
    prefix: float = 0.3
    """Share of prompt tokens that are in the prefix cache; kept as long as there is room."""
    keeps_prefixes: bool = False
    """Whether the engine counts cached prefixes as usage: then it is always nearly full, and healthy."""


@dataclass(slots=True, eq=False)
class Server:
    """One engine in motion."""

    service: Service
    draw: np.random.Generator
    context: Array = field(default_factory=lambda: np.zeros(0))
    """[running] tokens of each request in the batch"""
    rest: Array = field(default_factory=lambda: np.zeros(0))
    """[running] tokens still to generate"""
    arrived: Array = field(default_factory=lambda: np.zeros(0))
    first: Array = field(default_factory=lambda: np.zeros(0))
    """[running] when the first token came; NaN: not yet"""
    waiting: list[tuple[float, float, float]] = field(default_factory=list)
    """(arrived, prompt or context to prefill, tokens to generate)"""
    next_arrival: float = 0.0
    backlog: float = 0.0
    """Prompt tokens to prefill."""
    arrivals: float = 1.0
    """Factor, changed by causes."""
    length: float = 1.0
    """Factor of prompt and answer, changed by causes."""
    generated: float = 0.0
    prompted: float = 0.0
    recomputed: float = 0.0
    preemptions: float = 0.0
    finished: float = 0.0
    ttft: list[float] = field(default_factory=list)
    itl: list[float] = field(default_factory=list)
    queued: list[float] = field(default_factory=list)
    e2e: list[float] = field(default_factory=list)
    sm: float = 0.0
    tensor: float = 0.0
    dram: float = 0.0

    def advance(self, time: float, seconds: float) -> None:
        """One step: arrivals, admission, tokens, endings."""
        s = self.service
        rate = s.arrivals * self.arrivals
        while self.next_arrival <= time and rate > 0:
            shape = 1 / s.burst**2
            self.next_arrival = max(self.next_arrival, time - seconds) + float(
                self.draw.gamma(shape, 1 / (rate * shape))
            )
            prompt = max(float(self.draw.gamma(1.5, s.prompt * self.length / 1.5)), 8.0)
            self.waiting.append(
                (time, prompt, max(float(self.draw.gamma(1.2, s.answer * self.length / 1.2)), 2.0))
            )
        if rate <= 0:
            self.next_arrival = time + seconds
        while self.waiting and len(self.context) < s.max_running:
            arrived, prompt, answer = self.waiting[0]
            if self.context.sum() + prompt > 0.995 * s.kv_tokens:
                break
            self.waiting.pop(0)
            self.context = np.append(self.context, prompt)
            self.rest = np.append(self.rest, answer)
            self.arrived = np.append(self.arrived, arrived)
            self.first = np.append(self.first, np.nan)
            self.backlog += prompt * (1 - s.prefix)
            self.queued.append(time - arrived)
        prefilled = min(self.backlog, s.prefill * seconds * 0.7)
        self.backlog -= prefilled
        self.prompted += prefilled
        share = prefilled / (s.prefill * seconds)
        running = len(self.context)
        iteration = (s.base + s.per_token * self.context.sum()) / max(1 - share, 0.3)
        tokens = seconds / iteration if running else 0.0
        started = self.backlog < s.prefill * 0.5
        if running:
            new = np.isnan(self.first) & started
            for arrived in self.arrived[new]:
                self.ttft.append(time - arrived + iteration)
            self.first[new] = time
            going = ~np.isnan(self.first)
            self.itl.append(iteration)
            self.generated += float(np.minimum(self.rest, tokens)[going].sum())
            self.context = self.context + np.where(going, tokens, 0.0)
            self.rest = self.rest - np.where(going, tokens, 0.0)
            ended = self.rest <= 0
            self.e2e += (time - self.arrived[ended]).tolist()
            self.finished += int(ended.sum())
            self._keep(~ended)
        while self.context.sum() > s.kv_tokens and len(self.context) > 1:
            last = len(self.context) - 1  # the youngest is pushed out and computed again
            self.waiting.insert(
                0, (float(self.arrived[last]), float(self.context[last]), max(float(self.rest[last]), 2.0))
            )
            self.recomputed += float(self.context[last])
            self.preemptions += 1
            self._keep(np.arange(last + 1) < last)
        busy = 1.0 if running else 0.0
        self.sm = busy * min(0.25 + 0.004 * running + 0.5 * share, 0.95)
        self.tensor = busy * min(0.03 + 0.0006 * running + 0.45 * share, 0.7)
        self.dram = busy * (1 - share) * min(0.45 + 0.35 * self.context.sum() / s.kv_tokens, 0.85)

    def _keep(self, which: np.ndarray) -> None:
        self.context, self.rest = self.context[which], self.rest[which]
        self.arrived, self.first = self.arrived[which], self.first[which]

    @property
    def usage(self) -> float:
        """Of the KV cache, as the engine shows it."""
        used = min(float(self.context.sum()) / self.service.kv_tokens, 1.0)
        if self.service.keeps_prefixes:
            return max(used, 0.93 + 0.05 * used)
        return used
