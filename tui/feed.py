"""Where the screen's snapshots come from: a monitor in its own thread, brought up after the first paint."""

from __future__ import annotations

import gc
import logging
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import TYPE_CHECKING, Protocol, TypeAlias

from coldaisle.sources.errors import ColdaisleError

if TYPE_CHECKING:
    from coldaisle.analyzers.monitor import MonitorSettings, MonitorThread
    from coldaisle.analyzers.snapshot import SeriesAnswer, SeriesQuery, Snapshot
    from coldaisle.sources.source import Clock, Source

Publish: TypeAlias = "Callable[[Snapshot], None]"
Failed: TypeAlias = Callable[[BaseException], None]

STOP_S = 2.0
"""The longest that leaving the dashboard waits for its sources."""

SWITCH_S = 0.001
"""After so long the monitor's thread gives way to the screen's. With Python's 5 ms a key that comes in the middle of a
refresh waits that often over: 60 ms at the 99th percentile with 8,192 GPUs from a Prometheus, 40 ms so."""

log = logging.getLogger(__name__)


class LongLived:
    """Takes what describes the cluster out of the garbage collector's sight, whenever the cluster has grown.

    A full collection holds every thread, 65 ms at 8,192 GPUs: a key pressed then is answered late. Once the
    picture of a larger cluster stands, one more collection clears up, and what is left is never looked through
    again; it is still freed when nothing refers to it any more.
    """

    SETTLES = 4
    """Pictures after which what was learnt from the first ones is all there."""

    def __init__(self) -> None:
        self._size = 0
        self._wait = 0

    def seen(self, snapshot: Snapshot) -> None:
        """A picture was given out."""
        layout = snapshot.layout
        size = len(layout.gpus) + len(layout.nodes)
        if size > self._size:
            self._size, self._wait = size, self.SETTLES
        elif self._wait:
            self._wait -= 1
            if not self._wait:
                gc.collect()
                gc.freeze()


class Feed(Protocol):
    """Gives out snapshots from a thread of its own, and answers questions about the past."""

    def start(self, publish: Publish, failed: Failed) -> None:
        """Begin; both functions are called from any thread, ``failed`` at most once, as the last."""
        ...

    def query(self, q: SeriesQuery) -> Future[SeriesAnswer]:
        """Metrics over time; the future fails when there is nothing to ask yet."""
        ...

    def travel(self, at: float | None) -> None:
        """Show a past instant (seconds since the epoch), None: live again. What comes of it is published."""
        ...

    def stop(self) -> None:
        """End within STOP_S; nothing is published afterwards."""
        ...


class MonitorFeed:
    """The feed of the real dashboard.

    Everything heavy (numpy, httpx, asyncssh) is imported in the thread that ``start`` begins; so both
    functions are called there, and must import what they need themselves.
    """

    def __init__(
        self,
        build_sources: Callable[[Clock], list[Source]],
        settings: Callable[[], MonitorSettings],
    ) -> None:
        self._build = build_sources
        self._settings = settings
        self._lock = threading.Lock()
        self._monitor: MonitorThread | None = None
        self._starter: threading.Thread | None = None
        self._stopped = False
        self._wanted: float | None = None

    def start(self, publish: Publish, failed: Failed) -> None:
        sys.setswitchinterval(SWITCH_S)
        self._starter = threading.Thread(
            target=self._bring_up, args=(publish, failed), name="feed-start", daemon=True
        )
        self._starter.start()

    def query(self, q: SeriesQuery) -> Future[SeriesAnswer]:
        if (monitor := self._monitor) is not None:
            return monitor.query(q)
        refused: Future[SeriesAnswer] = Future()
        refused.set_exception(ColdaisleError("nothing has been measured yet"))
        return refused

    def travel(self, at: float | None) -> None:
        with self._lock:
            self._wanted = at
            if self._monitor is not None:
                self._monitor.travel(at)

    def stop(self) -> None:
        until = time.monotonic() + STOP_S
        with self._lock:
            self._stopped = True
        if self._starter is not None:
            self._starter.join(STOP_S)
        if self._monitor is not None and not self._monitor.stop(max(until - time.monotonic(), 0.1)):
            log.warning("the monitor did not end within %.0f s; it ends with the process", STOP_S)

    def _bring_up(self, publish: Publish, failed: Failed) -> None:
        try:
            from coldaisle.analyzers.monitor import MonitorThread

            kept = LongLived()

            def give_out(snapshot: Snapshot) -> None:
                publish(snapshot)
                kept.seen(snapshot)

            monitor = MonitorThread(self._build, self._settings(), give_out, failed)
            with self._lock:
                if not self._stopped:
                    self._monitor = monitor
                    monitor.travel(self._wanted)
                    monitor.start()
        except Exception as error:  # supervision: whatever it is, the screen says so
            log.exception("the monitor could not be started")
            failed(error)
