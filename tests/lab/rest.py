"""When an app under test has nothing more to do.

Textual's pilot believes an app idle when the process uses little CPU time; on a busy machine it also
uses little because others do. Here the queues and what a screen has still to paint are looked at.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from lab.snapshots import FakeFeed
from textual.app import App
from textual.pilot import Pilot

REST_S = 10.0
"""An app that never comes to rest (it animates) is left after this."""
LOOKS = 3
"""So often in a row: a message that is being handled is in no queue."""

_pause = Pilot.pause


async def pause(pilot: Pilot[Any], delay: float | None = None) -> None:
    """In place of Pilot.pause: without ``delay``, wait until the app is at rest and its feed's pictures are shown."""
    await _pause(pilot, delay)
    if delay is None:
        loop = asyncio.get_running_loop()
        end = loop.time() + REST_S
        rested = 0
        while rested < LOOKS and loop.time() < end:
            rested = rested + 1 if is_at_rest(pilot.app) else 0
            await asyncio.sleep(0.002)
            pilot.app.screen._on_timer_update()


async def until(pilot: Pilot[Any], what: str, test: Callable[[], object], seconds: float = 20.0) -> None:
    """Wait until ``test`` holds; fails after ``seconds``, saying ``what`` did not come."""
    loop = asyncio.get_running_loop()
    end = loop.time() + seconds
    while not test():
        assert loop.time() < end, f"not within {seconds:g} s: {what}"
        await pilot.pause(0.02)


def is_at_rest(app: App[Any]) -> bool:
    """Whether no message waits, and nothing is left to lay out, to paint or to call after it; or the app has ended."""
    if not app.is_running or app._exit:
        return True
    feed = getattr(app, "feed", None)
    if isinstance(feed, FakeFeed) and feed.is_ahead_of(getattr(app, "snapshot", None)):
        return False
    screen = app.screen
    pumps = [app, *app.screen_stack, *screen.walk_children(with_self=False)]
    busy = any(pump.message_queue_size for pump in pumps if pump.is_running)
    unpainted = screen._layout_required or screen._repaint_required or screen._dirty_widgets
    return not (busy or unpainted or screen._callbacks)
