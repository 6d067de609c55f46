"""The dashboard on 8,192 GPUs whose samples cost nothing to make: run in a terminal by :mod:`benchmarks.tick`."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator

from coldaisle.sources.source import Item
from coldaisle.tui.app import ColdaisleApp
from coldaisle.tui.feed import MonitorFeed


def main() -> None:
    """Show it until it is left."""

    def build(_: object) -> list[object]:
        from benchmarks.cluster import Made

        class Live(Made):
            """A batch every interval, on time."""

            async def stream(self) -> AsyncGenerator[Item, None]:
                for batch in self.batches(time.time(), 10_000):
                    yield batch
                    await asyncio.sleep(max(0.0, batch.at + self.interval - time.time()))

        return [Live(2.0)]

    def settings() -> object:
        from coldaisle.analyzers.monitor import MonitorSettings

        return MonitorSettings(name="large")

    ColdaisleApp(MonitorFeed(build, settings)).run()  # type: ignore[arg-type]


if __name__ == "__main__":
    main()
