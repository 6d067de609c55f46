"""The README's picture: the demo itself, seeded, as Textual draws it. ``python -m benchmarks.screenshot FILE``."""

from __future__ import annotations

import asyncio
import re
import sys
from pathlib import Path

from coldaisle.sources.config import Settings
from coldaisle.sources.configured import sources_from
from coldaisle.tui.app import ColdaisleApp
from coldaisle.tui.dashboard import monitor_settings
from coldaisle.tui.feed import MonitorFeed

SIZE = (120, 34)
SEED = 3
SETTLED_S = 6.0
"""After the first data: charts and rates have a few samples."""


async def picture() -> str:
    """The Racks screen of the demo as an SVG."""
    simulator = {"kind": "simulator", "seed": SEED}
    settings = Settings(name="demo").with_sources([simulator])
    feed = MonitorFeed(lambda clock: sources_from(settings, clock), lambda: monitor_settings(settings))
    app = ColdaisleApp(feed, name="demo")
    async with app.run_test(size=SIZE) as pilot:
        async with asyncio.timeout(120.0):
            while app.snapshot is None or not app.snapshot.coverage.gpus:  # noqa: ASYNC110
                await asyncio.sleep(0.1)
        await pilot.pause(SETTLED_S)
        return without_fonts(app.export_screenshot(title="coldaisle demo"))


def without_fonts(svg: str) -> str:
    """The picture without fonts from elsewhere: whoever looks at it fetches nothing."""
    return re.sub(r"@font-face \{.*?\}\s*", "", svg, flags=re.DOTALL).replace("Fira Code", "monospace")


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(asyncio.run(picture()), encoding="utf-8")
