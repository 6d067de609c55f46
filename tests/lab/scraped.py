"""Exporters' pages served over real HTTP, scraped, and taken up by a monitor whose clock stands: one snapshot."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping, Sequence

from lab.pages import Pages, served

from coldaisle.analyzers.monitor import Monitor, MonitorSettings
from coldaisle.analyzers.snapshot import Snapshot
from coldaisle.sources.collector import SteadyClock
from coldaisle.sources.exporters import ExporterSource
from coldaisle.sources.racks import RackRules, table_from
from coldaisle.sources.source import Batch, Item, Kind, Target, TargetState
from coldaisle.sources.vocabularies import Vocabulary


class StoppedClock(SteadyClock):
    """It is always the same time."""

    def __init__(self, now: float) -> None:
        self._now = now
        super().__init__(lambda: now, lambda: now)

    def __call__(self) -> float:
        return self._now


async def scraped(
    pages: Mapping[str, bytes],
    at: float,
    *,
    racks: Mapping[str, tuple[str, ...]] | None = None,
    vocabularies: Sequence[Vocabulary] | None = None,
) -> Snapshot:
    """What a monitor shows of these pages, by the host that each is asked for (a page may know better)."""
    async with contextlib.AsyncExitStack() as stack:
        servers = {host: await stack.enter_async_context(served(Pages(body))) for host, body in pages.items()}
        targets = [f"http://{server.target}/any?target={host}" for host, server in servers.items()]
        clock = StoppedClock(at)
        source = ExporterSource(targets, interval=0.5, vocabularies=vocabularies, clock=clock)
        rules = RackRules(table_from(racks or {}, "configuration"))
        monitor = Monitor([source], MonitorSettings("atlas", racks=rules), clock)
        for item in await _first_round(source, len(pages)):
            monitor.collector.take(monitor.collector.supervised[0], item)
        return monitor.snapshot()


async def _first_round(source: ExporterSource, targets: int) -> list[Item]:
    """Everything until all targets have answered, and one batch of each kind after that."""
    items: list[Item] = []
    answered: set[str] = set()
    kinds: set[Kind] = set()
    stream = source.stream()
    async with asyncio.timeout(30), contextlib.aclosing(stream):
        async for item in stream:
            assert not (isinstance(item, Target) and item.state is TargetState.FAILING), item
            if isinstance(item, Batch) and len(answered) == targets:
                if item.kind in kinds:
                    break
                kinds.add(item.kind)
            items.append(item)
            if isinstance(item, Target) and item.state in (TargetState.OK, TargetState.SLOW):
                answered.add(item.name)
    return items
