"""The pace of a source of many hosts: one tick an interval for all, and the state of each target.

Transports (:mod:`.local`, :mod:`.ssh`) feed lines into the streams and say how each connection is
doing; :meth:`FleetFeed.next` gives what the source's stream yields.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass, replace
from typing import Any

from coldaisle.sources.errors import AccessDenied, SourceError
from coldaisle.sources.hosts import Fleet, HostStream
from coldaisle.sources.source import Clock, Item, NodeFact, Target, TargetState

TOLD_EVERY_S = 60.0
"""A target's state is told again after so long, also unchanged."""
STALE_INTERVALS = 3.0
LOST_INTERVALS = 5.0
"""Without a connection and a reading for so long, a host's cells are unreachable."""
FIRST_TICK_S = 0.25
"""Between the very first sample and the first tick; the hosts beside it mostly answer within it."""
MAX_WAITING = 100_000
"""Facts and events that wait for the reader; the oldest go first."""


@dataclass(slots=True)
class Link:
    """How the connection to one host is doing, as its transport says; ``None`` as ``error``: no trouble."""

    state: TargetState = TargetState.CONNECTING
    """CONNECTING, OK (connected), FAILING or DENIED."""
    detail: str = ""
    error: SourceError | None = None
    what: str = ""

    @property
    def speaks(self) -> bool:
        """Whether a probe answers over it now."""
        return self.error is None and self.state is TargetState.OK

    def connecting(self, detail: str = "") -> None:
        """On the way; an earlier error stays in sight until it works."""
        if self.error is None:
            self.state, self.detail = TargetState.CONNECTING, detail

    def connected(self, what: str = "") -> None:
        """A probe speaks."""
        self.state, self.detail, self.error, self.what = TargetState.OK, "", None, what

    def failed(self, error: SourceError) -> None:
        """It does not work, and why."""
        self.state = TargetState.DENIED if isinstance(error, AccessDenied) else TargetState.FAILING
        self.error, self.detail = error, ""


class FleetFeed:
    """Items of many hosts, paced: facts, events and states at once, samples once an interval."""

    def __init__(self, nodes: Sequence[str], interval: float, clock: Clock) -> None:
        self.interval = interval
        self.fleet = Fleet(nodes, clock, self._tell, interval)
        self.links = {node: Link() for node in self.fleet.streams}
        self._clock = clock
        self._waiting: list[Item] = [NodeFact(clock(), node) for node in self.links]
        self._told: dict[str, Target] = {}
        self._wake = asyncio.Event()
        self._tick_at: float | None = None
        self._look_at = 0.0

    def stream_of(self, node: str) -> HostStream:
        """Where the lines of a host go."""
        return self.fleet.streams[node]

    def heard(self) -> None:
        """Something came: the first sample of all sets the pace."""
        if self._tick_at is None and any(stream.samples for stream in self.fleet.streams.values()):
            self._tick_at = time.monotonic() + min(FIRST_TICK_S, self.interval)
            self._wake.set()

    def changed(self) -> None:
        """A link's state changed: look at once."""
        self._look_at = 0.0
        self._wake.set()

    async def next(self) -> list[Item]:
        """Wait for something to say; never longer than an interval."""
        while True:
            items = self._due()
            if items:
                return items
            self._wake.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._rest()):
                    await self._wake.wait()

    def _tell(self, item: Item) -> None:
        if len(self._waiting) >= MAX_WAITING:
            del self._waiting[: MAX_WAITING // 2]
        self._waiting.append(item)

    def _rest(self) -> float:
        now = time.monotonic()
        times = [self._look_at] if self._tick_at is None else [self._look_at, self._tick_at]
        return max(0.0, min(times) - now)

    def _due(self) -> list[Item]:
        now, at = time.monotonic(), self._clock()
        items: list[Item] = []
        if now >= self._look_at or (self._tick_at is not None and now >= self._tick_at):
            self._look_at = now + self.interval
            items += self._targets(at)
        # facts come before the samples of the entities that they name
        items, self._waiting = self._waiting + items, []
        if self._tick_at is not None and now >= self._tick_at:
            behind = (now - self._tick_at) // self.interval
            self._tick_at += (behind + 1) * self.interval
            items += self.fleet.tick(at)
        return items

    def _targets(self, at: float) -> list[Target]:
        fresh: list[Target] = []
        for node, link in self.links.items():
            stream = self.fleet.streams[node]
            target = judge(node, link, stream, at, self.interval)
            stream.lost = is_lost(link, stream, at, self.interval)
            before = self._told.get(node)
            if (
                before is None
                or at - before.at >= TOLD_EVERY_S
                or replace(target, at=0.0, latency_s=None) != replace(before, at=0.0, latency_s=None)
            ):
                self._told[node] = target
                fresh.append(target)
        return fresh


def judge(node: str, link: Link, stream: HostStream, at: float, interval: float) -> Target:
    """The state of one host: its connection's, and while that stands, its readings'."""
    if link.error is not None:
        return Target(at, node, link.state, (node,), link.error.problem, link.error.remedy, what=link.what)
    if link.state is not TargetState.OK or stream.heard_at is None:
        return Target(at, node, TargetState.CONNECTING, (node,), link.detail, what=link.what)
    state, detail = _freshness(stream, at, interval)
    problem = (stream.hello.problem, stream.hello.remedy) if stream.hello else ("", "")
    detail, remedy = (detail, "") if detail else problem
    return Target(at, node, state, (node,), detail, remedy, stream.latency_s, link.what)


def _freshness(stream: HostStream, at: float, interval: float) -> tuple[TargetState, str]:
    age = at - (stream.heard_at or 0.0)
    if age > STALE_INTERVALS * interval:
        return TargetState.STALE, f"no reading since {time.strftime('%H:%M:%S', time.localtime(at - age))}"
    if stream.latency_s is not None and stream.latency_s > max(interval, 1.0):
        return TargetState.SLOW, f"a reading takes longer than {max(interval, 1.0):g} s"
    return TargetState.OK, ""


def is_lost(link: Link, stream: HostStream, at: float, interval: float) -> bool:
    """Whether a host's cells are unreachable: no connection, and no reading for a while."""
    old = stream.heard_at is None or at - stream.heard_at > LOST_INTERVALS * interval
    return old and link.error is not None


@dataclass(slots=True)
class Backoff:
    """Pauses that double, with jitter, so that hundreds of hosts do not come back at one instant."""

    first: float = 1.0
    longest: float = 60.0
    failures: int = 0

    def pause(self) -> float:
        """Seconds until the next try."""
        whole: float = min(self.first * 2.0 ** min(self.failures, 30), self.longest)
        self.failures += 1
        return whole * random.uniform(0.5, 1.0)

    def reset(self) -> None:
        """It worked for a while."""
        self.failures = 0


class Tasks:
    """Tasks that end with their owner."""

    def __init__(self) -> None:
        self._running: set[asyncio.Task[None]] = set()

    def start(self, work: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
        """Run it until it ends or :meth:`end` is called."""
        task = asyncio.get_running_loop().create_task(work, name=name)
        self._running.add(task)
        task.add_done_callback(self._running.discard)
        return task

    async def end(self, seconds: float = 5.0) -> None:
        """Cancel all and wait for them, but not for ever."""
        running = list(self._running)
        for task in running:
            task.cancel()
        if running:
            await asyncio.wait(running, timeout=seconds)
