"""Inference: caches that are too small, queues, and servers that are only busy."""

from __future__ import annotations

import math
from dataclasses import replace

from coldaisle.sources.simulator.plan import Part
from coldaisle.sources.simulator.scenarios.episodes.registry import Draw, begin, scenario
from coldaisle.sources.simulator.scenarios.labels import Scenario
from coldaisle.sources.simulator.scenarios.pieces import Cause, Host, Piece
from coldaisle.sources.simulator.scenarios.serving import Service

CACHE, QUEUE = "kv_cache_pressure", "request_queueing"
BANDWIDTH = 0.62
"""Achieved share of memory bandwidth in decoding."""
FLOPS = 0.42


def service(part: Part, draw: Draw, gpus: int = 2, **over: float) -> Service:
    """A model that takes a third of its boards' memory; what is left is KV cache."""
    room = part.memory * gpus
    weights = float(draw.uniform(0.3, 0.6)) * room
    params = weights / 2
    token = params * 4.7e-6
    prompt, answer = float(draw.uniform(600, 2600)), float(draw.uniform(200, 900))
    made = Service(
        kv_tokens=(0.9 * room - weights) / token,
        max_running=256,
        arrivals=1.0,
        prompt=prompt,
        answer=answer,
        burst=float(draw.uniform(1, 2)),
        base=0.004 + weights / (part.hbm * gpus * BANDWIDTH),
        per_token=token / (part.hbm * gpus * BANDWIDTH),
        prefill=part.flops * gpus * FLOPS / (2 * params),
        prefix=float(draw.uniform(0.1, 0.5)),
    )
    return replace(made, **over)  # type: ignore[arg-type]


def met(s: Service) -> float:
    """Tokens of a request that is met in the batch: who is met there is there for long, so longer answers weigh more."""
    return s.prompt + s.answer / 2 * (1 + 1 / s.spread)


def held(s: Service, rate: float) -> float:
    """Tokens in the cache on average at a rate of requests, by Little's law; iterations grow with what is in the cache."""
    per_rate = rate * s.answer * met(s) / (1 - rate * s.prompt * (1 - s.prefix) / s.prefill)
    return per_rate * s.base / (1 - per_rate * s.per_token) if per_rate * s.per_token < 0.95 else math.inf


def asked(part: Part, draw: Draw, share: float, gpus: int = 2, **over: float) -> Service:
    """A server whose cache is filled to a share on average, as far as prefill and the batch allow."""
    s = service(part, draw, gpus, **over)
    most = min(share * s.kv_tokens, 0.7 * s.max_running * met(s))
    rate = 0.3 * s.prefill / (s.prompt * (1 - s.prefix))
    while held(s, rate) > most:
        rate *= 0.9
    return replace(s, arrivals=rate)


def small(s: Service, share: float) -> Service:
    """With so small a cache that what is asked fills this share of it."""
    return replace(s, kv_tokens=max(held(s, s.arrivals) / share, 8 * s.prompt), max_running=512)


def servers(s: Scenario, part: Part, services: tuple[Service, ...], **over: object) -> Piece:
    """A node of servers."""
    made = Piece(s, part, 1, services=services, memory=0.92, host=Host(cpu=0.06))
    return replace(made, **over)  # type: ignore[arg-type]


def _pressed(s: Scenario, part: Part, draw: Draw, at: float, cause: Cause, which: int) -> Piece:
    each = tuple(
        small(asked(part, draw, 0.3, burst=1.0, prompt=float(draw.uniform(300, 1500)), answer=float(draw.uniform(700, 1600))), float(draw.uniform(0.5, 0.65)))
        for _ in range(4)
    )  # fmt: skip
    return servers(
        s, part, each, start=at, evident_by="pressed", root_servers=(which,), is_demand=True, causes=(cause,)
    )  # fmt: skip


@scenario("kv_pressure", "more is asked than the cache holds: requests are pushed out", CACHE, (QUEUE,), "preempting", nodes=1)  # fmt: skip
def _kv(s: Scenario, part: Part, draw: Draw) -> Piece:
    at, which = begin(draw), int(draw.integers(4))
    what = str(draw.choice(("arrivals", "length")))
    return _pressed(s, part, draw, at, Cause(what, float(draw.uniform(1.8, 3.5)), (which,), at), which)


@scenario(
    "kv_ramp", "the cache fills slowly until it is full", CACHE, (QUEUE,), "filling", nodes=1, minutes=25
)
def _ramp(s: Scenario, part: Part, draw: Draw) -> Piece:
    at, which = begin(draw), int(draw.integers(4))
    more = Cause("arrivals", float(draw.uniform(2.2, 3.2)), (which,), at, ramp=float(draw.uniform(300, 600)))
    return _pressed(s, part, draw, at, more, which)


@scenario(
    "kv_stable", "the cache is nearly full all the time, and nobody waits", like=(CACHE, QUEUE), nodes=1
)
def _stable(s: Scenario, part: Part, draw: Draw) -> Piece:
    prompt, answer = float(draw.uniform(300, 900)), float(draw.uniform(900, 1600))
    made = service(part, draw, prompt=prompt, answer=answer, spread=4.0)
    # so few that their prompts are read while others decode
    read = 0.45 * made.prefill / (prompt * (1 - made.prefix)) * answer * made.base
    clients = min(int(draw.integers(90, 200)), int(read))
    filled = clients * met(made) / float(draw.uniform(0.84, 0.9))
    return servers(s, part, tuple(replace(made, clients=clients, kv_tokens=filled) for _ in range(4)))


@scenario("kv_full_healthy", "the cache is full of prefixes, nobody waits", like=(CACHE,), nodes=1)
def _prefixes(s: Scenario, part: Part, draw: Draw) -> Piece:
    return servers(s, part, tuple(asked(part, draw, 0.4, keeps_prefixes=1.0) for _ in range(4)))


@scenario(
    "seq_limited", "the batch is full of sequences, the cache is not", QUEUE, (CACHE,), "limit", nodes=1
)
def _limited(s: Scenario, part: Part, draw: Draw) -> Piece:
    made = asked(part, draw, 0.2, prompt=float(draw.uniform(300, 900)), answer=float(draw.uniform(200, 600)))
    made = replace(made, arrivals=0.6 * made.arrivals, burst=1.0)
    running = held(made, made.arrivals) / met(made)
    most = max(int(running / float(draw.uniform(0.5, 0.75))), 8)
    each = tuple(replace(made, max_running=most) for _ in range(4))
    at = begin(draw)
    more = Cause("arrivals", float(draw.uniform(1.7, 3.5)), None, at)
    return servers(s, part, each, start=at, evident_by="waiting", is_demand=True, causes=(more,))


@scenario(
    "arrival_burst", "long prompts come faster than they can be read", QUEUE, (CACHE,), "burst", nodes=1
)
def _burst(s: Scenario, part: Part, draw: Draw) -> Piece:
    made = asked(
        part,
        draw,
        0.2,
        prompt=float(draw.uniform(2500, 5000)),
        answer=float(draw.uniform(80, 200)),
        max_running=1024,
    )
    rate = 0.35 * made.prefill / (made.prompt * (1 - made.prefix))
    at = begin(draw)
    more = Cause("arrivals", float(draw.uniform(2.6, 5.0)), None, at, at + float(draw.uniform(240, 500)))
    roomy = max(made.kv_tokens, 60 * made.prompt)
    each = tuple(replace(made, arrivals=rate, kv_tokens=roomy) for _ in range(4))
    return servers(
        s, part, each, start=at, end=more.end, evident_by="waiting", is_demand=True, causes=(more,)
    )


@scenario("prefill_bound", "long prompts, short answers, nobody waits long", like=(QUEUE, CACHE), nodes=1)
def _prefill(s: Scenario, part: Part, draw: Draw) -> Piece:
    made = service(
        part,
        draw,
        prompt=float(draw.uniform(2500, 5000)),
        answer=float(draw.uniform(30, 90)),
        max_running=512,
    )
    rate = float(draw.uniform(0.3, 0.45)) * made.prefill / (made.prompt * (1 - made.prefix))
    return servers(s, part, tuple(replace(made, arrivals=rate, burst=1.0) for _ in range(4)))


@scenario("decode_bound", "a large batch decodes: slow tokens, nobody waits", like=(QUEUE, CACHE, "communication_stall"), nodes=1)  # fmt: skip
def _decode(s: Scenario, part: Part, draw: Draw) -> Piece:
    made = service(part, draw, prompt=float(draw.uniform(200, 600)), answer=float(draw.uniform(900, 1600)))
    clients = int(min(0.6 * made.kv_tokens / met(made), 200))
    return servers(s, part, tuple(replace(made, clients=clients) for _ in range(4)))


@scenario("low_rate_inference", "servers that are asked little", like=("data_loader_starvation", "idle_allocation", CACHE), nodes=1)  # fmt: skip
def _low(s: Scenario, part: Part, draw: Draw) -> Piece:
    return servers(
        s, part, tuple(service(part, draw, arrivals=float(draw.uniform(0.02, 0.4))) for _ in range(4))
    )


@scenario("zero_traffic", "servers that nobody asks", like=("idle_allocation", CACHE), minutes=45, nodes=1)
def _zero(s: Scenario, part: Part, draw: Draw) -> Piece:
    return servers(s, part, tuple(service(part, draw, arrivals=0.0) for _ in range(4)))
