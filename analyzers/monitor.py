"""The composition root: sources in, immutable snapshots out, live or (travel.py) of a past instant.

Used by the dashboard and by every command without a screen. :class:`Monitor` lives on one event
loop; :class:`MonitorThread` gives it a thread of its own, so that nothing here can hold up a screen.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from datetime import tzinfo
from pathlib import Path

from coldaisle.analyzers.advice.counsel import settings as advice_settings
from coldaisle.analyzers.advice.live import Counsellor
from coldaisle.analyzers.catchup import CatchUp
from coldaisle.analyzers.detectors import detectors
from coldaisle.analyzers.diagnosis import Diagnoser
from coldaisle.analyzers.snapshot import Cost, SeriesAnswer, SeriesQuery, Snapshot, Travel
from coldaisle.analyzers.travel import Traveller
from coldaisle.analyzers.view import View
from coldaisle.sources.collector import Collector, SteadyClock
from coldaisle.sources.errors import ColdaisleError
from coldaisle.sources.history import History, Limits
from coldaisle.sources.racks import RackRules
from coldaisle.sources.registry import Registry
from coldaisle.sources.source import Clock, Source

log = logging.getLogger(__name__)

EAGER_S = 5.0
"""So long after the start, a snapshot is made as soon as samples come in."""
EAGER_STEP_S = 0.25
LOOK_S = 0.05
"""Between two looks whether a past instant is there."""

Publish = Callable[[Snapshot], None]
Build = Callable[[Clock], Sequence[Source]]


@dataclass(frozen=True, slots=True)
class MonitorSettings:
    """What the monitor is told by configuration."""

    name: str = ""
    interval: float = 2.0
    """Seconds between snapshots."""
    racks: RackRules = field(default_factory=RackRules)
    aliases: Mapping[str, str] = field(default_factory=dict)
    """Other name → node key."""
    limits: Limits = field(default_factory=Limits)
    detectors: Mapping[str, Mapping[str, object]] = field(default_factory=dict)
    """The site's own thresholds, by detector."""
    advice: Mapping[str, Mapping[str, object]] = field(default_factory=dict)
    """The same of the rules of advice."""
    zone: tzinfo | None = None
    """Of the times in findings' texts; None: this machine's."""


class Monitor:
    """Runs the collector, makes a snapshot a tick and looks, once a poll, at what is wrong. ConfigError for wrong thresholds."""

    def __init__(self, sources: Sequence[Source], settings: MonitorSettings, clock: SteadyClock) -> None:
        self.sources = sources
        self.settings = settings
        self.clock = clock
        self.detectors = detectors(settings.detectors)
        self.collector = self.new_collector(settings.limits)
        self.history, self.registry = self.collector.history, self.collector.registry
        self.view = self.new_view(self.collector)
        self.diagnoser = Diagnoser(self.view, self.detectors, settings.zone)
        self.counsellor = Counsellor(self.view, advice_settings(settings.advice))
        self.catch_up = CatchUp(sources, self.new_collector, self.new_view, self.diagnoser)
        self.collector.on_past = self.catch_up.take
        self.traveller = Traveller(
            sources, self.new_collector, self.new_view, clock, lambda: self._publish_shown(), self.detectors
        )
        self._tick_s = 0.0
        self._meter = _Meter()
        self._newest: Snapshot | None = None
        self._published: tuple[Snapshot | None, Travel | None] = (None, None)
        self._publish: Publish = _nobody

    async def run(self, publish: Publish) -> None:
        """Collect and publish until cancelled."""
        self._publish = publish
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self.collector.run(), name="collector")
                group.create_task(self.catch_up.run(), name="catching up")
                group.create_task(self._tick(), name="tick")
        finally:
            self._publish = _nobody
            self.traveller.stop()

    def snapshot(self) -> Snapshot:
        """The cluster as known now."""
        cost = self._meter.read(self._tick_s, self.history.bytes, self.diagnoser.look_s)
        picture = self.view.snapshot(self.clock(), cost)
        return replace(picture, diagnosis=self.diagnoser.newest, counsel=self.counsellor.newest)

    def read(self, query: SeriesQuery) -> SeriesAnswer:
        """Metrics over time, up to the instant that is shown. An entity that is not known is a row of NaN."""
        return self.traveller.read(query) or self.view.read(query)

    def travel(self, at: float | None) -> None:
        """Show a past instant, or again what is live, which goes on meanwhile. On the monitor's loop only."""
        self.traveller.go(at, at_once=self._newest is None)

    async def look_back(self, at: float, seconds: float) -> Snapshot:
        """The picture of a past instant, for whoever runs nothing live. Raises ColdaisleError: why there is none."""
        self.traveller.go(at)
        until = time.monotonic() + seconds
        try:
            while True:
                if (said := self.traveller.travel(None)) is not None and said.problem:
                    raise ColdaisleError(said.problem, said.remedy)
                if self.traveller.picture is not None:
                    return self.traveller.picture
                if time.monotonic() > until:
                    raise ColdaisleError(
                        f"no source has told of then within {seconds:.0f} s", "give it more time"
                    )
                await asyncio.sleep(LOOK_S)
        finally:
            self.traveller.stop()

    def shown(self) -> Snapshot | None:
        """The past picture while somebody travels, else the newest live one; None: there is nothing yet."""
        travel = self.traveller.travel(self._newest)
        shown = self.traveller.picture or self._newest
        return shown if shown is None or shown.travel == travel else replace(shown, travel=travel)

    def _publish_shown(self) -> None:
        """Publish what is shown, if that is another thing than the last time."""
        shown = self.shown()
        base = self.traveller.picture or self._newest
        said = (base, shown.travel if shown else None)
        if shown is not None and said != self._published:
            self._published = said
            self._publish(shown)

    async def _tick(self) -> None:
        """A snapshot every interval, on a schedule that does not drift and never catches up in bursts."""
        started = due = time.monotonic()
        await asyncio.sleep(0)  # the sources have begun
        while True:
            begun = time.monotonic()
            if begun - started < EAGER_S and any(s.filling for s in self.collector.supervised):
                # A picture of the past alone would show every node as silent.
                await asyncio.sleep(EAGER_STEP_S / 5)
                continue
            if jump := self.collector.follow_clock():
                self.diagnoser.shift(jump)
            self._newest = await self._counselled(await self._diagnosed(self.snapshot()))
            self._tick_s = time.monotonic() - begun
            self._publish_shown()
            if time.monotonic() - started < EAGER_S:
                await self._wait_for_samples()
                continue
            due = max(due + self.settings.interval, time.monotonic() + 0.1)
            await asyncio.sleep(due - time.monotonic())

    async def _diagnosed(self, snapshot: Snapshot) -> Snapshot:
        """A snapshot with what is wrong: looked at anew where there is something new to see."""
        if not self.diagnoser.is_due(snapshot.at):
            return snapshot
        return replace(snapshot, diagnosis=await self.diagnoser.look(snapshot))

    async def _counselled(self, snapshot: Snapshot) -> Snapshot:
        """A snapshot with what to do about the cluster: made anew once a minute."""
        if not self.counsellor.is_due(snapshot.at):
            return snapshot
        return replace(snapshot, counsel=await self.counsellor.look(snapshot))

    async def _wait_for_samples(self) -> None:
        self.collector.arrived.clear()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(min(1.0, self.settings.interval)):
                await self.collector.arrived.wait()
        await asyncio.sleep(EAGER_STEP_S)

    def new_collector(self, limits: Limits) -> Collector:
        """An empty one over the same sources."""
        return Collector(self.sources, History(limits), Registry(self.settings.aliases), self.clock)

    def new_view(self, collector: Collector) -> View:
        """The view of one."""
        return View(collector, self.settings.name, self.settings.racks)


class MonitorThread:
    """A monitor in a thread with its own event loop."""

    def __init__(
        self,
        build: Build,
        settings: MonitorSettings,
        publish: Publish,
        failed: Callable[[BaseException], None],
    ) -> None:
        """``publish`` and ``failed`` are called from the thread."""
        self._build = build
        self._settings = settings
        self._publish = publish
        self._failed = failed
        self._thread = threading.Thread(target=self._run, name="monitor", daemon=True)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._main: asyncio.Task[None] | None = None
        self._monitor: Monitor | None = None
        self._stopped = False
        self._first: float | None = None

    def start(self) -> None:
        """Begin; the first snapshot follows at once, empty or not."""
        self._thread.start()

    def query(self, query: SeriesQuery) -> Future[SeriesAnswer]:
        """Ask for metrics over time; the answer is computed in the thread. Cancelled if the monitor is not running."""
        answer: Future[SeriesAnswer] = Future()
        loop, monitor = self._loop, self._monitor
        if loop is None or monitor is None or loop.is_closed():
            answer.cancel()
            return answer
        with contextlib.suppress(RuntimeError):
            loop.call_soon_threadsafe(_answer, answer, monitor, query)
            return answer
        answer.cancel()
        return answer

    def travel(self, at: float | None) -> None:
        """Show a past instant, None: live again. What comes of it is published; before the start it is remembered."""
        self._first = at
        loop, monitor = self._loop, self._monitor
        if loop is not None and monitor is not None:
            with contextlib.suppress(RuntimeError):
                loop.call_soon_threadsafe(monitor.travel, at)

    def stop(self, timeout: float = 2.0) -> bool:
        """End it; True if it ended in time. What it started is cancelled, never waited for without bound."""
        self._stopped = True
        loop, main = self._loop, self._main
        if loop is not None and main is not None:
            with contextlib.suppress(RuntimeError):
                loop.call_soon_threadsafe(main.cancel)
        if self._thread.is_alive():
            self._thread.join(timeout)
        return not self._thread.is_alive()

    def _run(self) -> None:
        try:
            with asyncio.Runner() as runner:
                self._loop = runner.get_loop()
                runner.run(self._watch())
        except asyncio.CancelledError:
            pass
        except BaseException as error:
            log.exception("the monitor ended")
            self._failed(error)

    async def _watch(self) -> None:
        self._main = asyncio.current_task()
        if self._stopped:
            return
        clock = SteadyClock()
        self._monitor = monitor = Monitor(self._build(clock), self._settings, clock)
        if self._first is not None:
            asyncio.get_running_loop().call_soon(monitor.travel, self._first)
        await monitor.run(self._publish)


def _nobody(_: Snapshot) -> None:
    """Nobody listens."""


class _Meter:
    """What our own process takes."""

    def __init__(self) -> None:
        self._cpu = time.process_time()
        self._wall = time.monotonic()
        self._share = 0.0

    def read(self, tick_s: float, history_bytes: int, look_s: float) -> Cost:
        cpu, wall = time.process_time(), time.monotonic()
        if wall - self._wall > 0.5:
            share = (cpu - self._cpu) / (wall - self._wall)
            self._share += 0.3 * (share - self._share) if self._share else share
            self._cpu, self._wall = cpu, wall
        return Cost(self._share, _resident_bytes(), tick_s, history_bytes, look_s)


def _resident_bytes() -> int:
    try:
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    except (OSError, ValueError, IndexError):
        return 0
    return pages * os.sysconf("SC_PAGE_SIZE")


def _answer(answer: Future[SeriesAnswer], monitor: Monitor, query: SeriesQuery) -> None:
    if not answer.set_running_or_notify_cancel():
        return
    try:
        answer.set_result(monitor.read(query))
    except Exception as error:
        log.exception("a query failed")
        answer.set_exception(error)
