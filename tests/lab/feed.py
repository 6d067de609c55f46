"""A running source, read item by item."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from typing import Generic, TypeVar

from coldaisle.sources.exporters import ExporterSource
from coldaisle.sources.source import Batch, Event, Item, Kind, Missing, Source, Target, TargetState

Read = TypeVar("Read", bound=Source)


class Feed(Generic[Read]):
    """A source's items, read until something is seen."""

    def __init__(self, source: Read) -> None:
        self.source = source
        self.items: list[Item] = []
        self._stream = source.stream()

    async def until(self, seen: Callable[[Item], bool], seconds: float = 20.0) -> Item:
        """The next item that is meant."""
        async with asyncio.timeout(seconds):
            async for item in self._stream:
                self.items.append(item)
                if seen(item):
                    return item
        raise AssertionError("the source ended")

    async def target(self, name: str, *states: TargetState) -> Target:
        found = await self.until(
            lambda item: isinstance(item, Target) and item.name == name and item.state in states
        )
        assert isinstance(found, Target)
        return found

    async def batch(
        self,
        kind: Kind = Kind.GPU,
        where: Callable[[Batch], bool] = lambda _: True,
        seconds: float = 20.0,
    ) -> Batch:
        found = await self.until(
            lambda item: isinstance(item, Batch) and item.kind is kind and where(item), seconds
        )
        assert isinstance(found, Batch)
        return found

    async def event(self, kind: str) -> Event:
        found = await self.until(lambda item: isinstance(item, Event) and item.kind == kind)
        assert isinstance(found, Event)
        return found

    async def close(self) -> None:
        await self._stream.aclose()


@contextlib.asynccontextmanager
async def fed(*targets: str, **options: object) -> AsyncIterator[Feed[ExporterSource]]:
    """A running source; nothing it started is left when the block ends."""
    before = asyncio.all_tasks()
    source = ExporterSource(targets, **{"interval": 0.2, "timeout": 1.0, **options})  # type: ignore[arg-type]
    feed = Feed(source)
    try:
        yield feed
    finally:
        await feed.close()
    assert {task.get_name() for task in asyncio.all_tasks() - before if "scrape" in task.get_name()} == set()


def at(batch: Batch, entity: int, key: str) -> float:
    return float(batch.values[entity, batch.metrics.index(key)])


def why(batch: Batch, entity: int, key: str) -> Missing:
    assert batch.reasons is not None
    return Missing(int(batch.reasons[entity, batch.metrics.index(key)]))
