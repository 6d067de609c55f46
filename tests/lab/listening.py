"""Listens to a source in a test: what it said, and waiting for what it should say."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field

from coldaisle.sources.source import (
    Batch,
    Event,
    GpuFact,
    Item,
    Kind,
    Missing,
    NodeFact,
    Source,
    Target,
    TargetState,
)


@dataclass(slots=True)
class Heard:
    """Everything a source has said so far."""

    targets: dict[str, Target] = field(default_factory=dict)
    history: list[Target] = field(default_factory=list)
    batches: list[Batch] = field(default_factory=list)
    nodes: dict[str, NodeFact] = field(default_factory=dict)
    gpus: list[GpuFact] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)
    news: asyncio.Event = field(default_factory=asyncio.Event)

    def take(self, item: Item) -> None:
        match item:
            case Target():
                self.targets[item.name] = item
                self.history.append(item)
            case Batch():
                self.batches.append(item)
            case NodeFact():
                self.nodes[item.node] = item
            case GpuFact():
                self.gpus.append(item)
            case Event():
                self.events.append(item)
        self.news.set()

    def state(self, name: str) -> TargetState:
        return self.targets[name].state

    def value(self, node: str, metric: str) -> float | None:
        """The newest value of a node's metric, or of its first GPU's; None: never seen or NaN in the last batch."""
        kind = Kind(metric.partition(".")[0])
        for batch in reversed(self.batches):
            if batch.kind is kind and metric in batch.metrics:
                column = batch.metrics.index(metric)
                for row, entity in enumerate(batch.entities):
                    if entity[0] == node:
                        value = float(batch.values[row, column])
                        return None if value != value else value
        return None

    def reason(self, node: str, metric: str) -> Missing | None:
        """Why the last batch has no value of it."""
        kind = Kind(metric.partition(".")[0])
        batch = next(batch for batch in reversed(self.batches) if batch.kind is kind)
        row = next((row for row, entity in enumerate(batch.entities) if entity[0] == node), None)
        if row is None or batch.reasons is None:
            return None
        return Missing(batch.reasons[row, batch.metrics.index(metric)])

    def samples(self, node: str) -> int:
        """Batches with at least one value of the node."""
        return sum(
            any(e[0] == node and not (b.values[r] != b.values[r]).all() for r, e in enumerate(b.entities))
            for b in self.batches
            if b.kind is Kind.NODE
        )

    async def until(self, what: str, test: Callable[[], bool], seconds: float = 20.0) -> None:
        """Wait until it holds; AssertionError after ``seconds``, with the targets' last words."""
        try:
            async with asyncio.timeout(seconds):
                while not test():
                    self.news.clear()
                    await self.news.wait()
        except TimeoutError:
            said = "\n".join(map(str, self.targets.values()))
            raise AssertionError(f"not within {seconds:g} s: {what}\n{said}") from None

    async def until_state(self, name: str, state: TargetState, seconds: float = 20.0) -> Target:
        """Wait for a target's state."""
        await self.until(
            f"{name} {state}", lambda: name in self.targets and self.state(name) is state, seconds
        )
        return self.targets[name]


@asynccontextmanager
async def listening(source: Source) -> AsyncIterator[Heard]:
    """Run a source in the background; its failure fails the test."""
    heard = Heard()

    async def listen() -> None:
        async with aclosing(source.stream()) as items:
            async for item in items:
                heard.take(item)

    task = asyncio.create_task(listen())
    try:
        yield heard
        if task.done():
            task.result()
    finally:
        task.cancel()
        await asyncio.wait({task}, timeout=15.0)
        assert task.done(), "the source did not end"
