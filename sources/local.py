"""This machine, through the probe as a child process; never in our own process.

An NVML call into a dead GPU blocks in the kernel and cannot be cancelled. A child can be left behind.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import socket
import time
from collections.abc import AsyncGenerator, Mapping, Sequence

from coldaisle.sources.bootstrap import ProbeOptions, local_command, payload
from coldaisle.sources.errors import Garbled, SourceError, TimedOut, Unusable
from coldaisle.sources.fleet import Backoff, FleetFeed, Link, Tasks
from coldaisle.sources.hosts import HostStream, LineBuffer
from coldaisle.sources.manners import backlog_after
from coldaisle.sources.settings import LocalSettings
from coldaisle.sources.source import Clock, Item, Rank
from coldaisle.sources.text import plain

log = logging.getLogger(__name__)

BEAT_S = 5.0
START_S = 20.0
SILENCE_S = 30.0
"""A child that says nothing for so long (and 5 intervals) is replaced."""
STEADY_S = 30.0
KILL_S = 2.0
"""A killed child that is still there then hangs in the kernel; nobody waits for it."""
MAX_STDERR = 8192


class LocalSource:
    """This machine's GPUs and host. ``command`` and ``environment`` are for tests."""

    kind = "local"
    rank = Rank.PROBE

    def __init__(
        self,
        settings: LocalSettings | None = None,
        *,
        clock: Clock = time.time,
        command: Sequence[str] | None = None,
        environment: Mapping[str, str] | None = None,
        node: str | None = None,
        backoff: Backoff | None = None,
    ) -> None:
        settings = settings or LocalSettings()
        self.name = settings.name
        self.interval = settings.interval
        self._clock = clock
        self._command = list(command) if command is not None else None
        self._environment = environment
        self._node = node or socket.gethostname().partition(".")[0] or "localhost"
        self._backoff = backoff or Backoff()

    async def stream(self) -> AsyncGenerator[Item, None]:
        """Items of this one node until closed; the child ends with it."""
        feed = FleetFeed([self._node], self.interval, self._clock)
        tasks = Tasks()
        tasks.start(self._supervise(feed), f"probe of {self.name}")
        try:
            while True:
                for item in await feed.next():
                    yield item
        finally:
            await tasks.end(KILL_S + 1.0)

    async def _supervise(self, feed: FleetFeed) -> None:
        """One child after the other."""
        link, stream = feed.links[self._node], feed.stream_of(self._node)
        while True:
            started = time.monotonic()
            try:
                await self._run_child(feed, link, stream)
            except SourceError as error:
                link.failed(error)
            except Exception as error:
                log.exception("the local probe's supervision failed")
                link.failed(Unusable(self._node, f"internal error: {error!r}", "see the log file"))
            feed.changed()
            if time.monotonic() - started > STEADY_S:
                self._backoff.reset()
            await asyncio.sleep(self._backoff.pause())

    async def _run_child(self, feed: FleetFeed, link: Link, stream: HostStream) -> None:
        link.connecting("the probe starts")
        stream.restart()
        try:
            child = await asyncio.create_subprocess_exec(
                *(self._command or local_command()),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
                env=None if self._environment is None else dict(self._environment),
                start_new_session=True,
            )
        except OSError as error:
            raise Unusable(self._node, f"the probe does not start: {error}") from error
        try:
            await _Conversation(self._node, self.interval, feed, link, stream).hold(child)
        finally:
            await end_child(child)


class _Conversation:
    """One child's life: its lines in, a heartbeat out, and why it ended."""

    def __init__(self, node: str, interval: float, feed: FleetFeed, link: Link, stream: HostStream) -> None:
        self._node = node
        self._interval = interval
        self._feed = feed
        self._link = link
        self._stream = stream
        self._stderr = b""
        self._backlog = backlog_after(stream.quiet_s)
        self._heard = time.monotonic()

    async def hold(self, child: asyncio.subprocess.Process) -> None:
        """Until the child ends or falls silent; always raises, with the reason."""
        assert child.stdin is not None
        assert child.stdout is not None
        assert child.stderr is not None
        tasks = Tasks()
        reading = tasks.start(self._read(child.stdout), "probe's output")
        errors = tasks.start(self._read_errors(child.stderr), "probe's errors")
        tasks.start(self._beat(child.stdin), "probe's heartbeat")
        try:
            while not reading.done():
                await asyncio.wait({reading}, timeout=1.0)
                self._check_silence()
            reading.result()
            await asyncio.wait({errors}, timeout=0.5)
        finally:
            await tasks.end(1.0)
        if self._stderr:
            lines = self._stderr.decode("utf-8", "replace").splitlines()
            log.warning("the probe ended; it printed:\n%s", "\n".join(plain(line, 300) for line in lines))
        raise Unusable(self._node, self._last_words(), "see the log file")

    def _check_silence(self) -> None:
        patience = START_S if not self._stream.samples else max(SILENCE_S, 5 * self._interval)
        if time.monotonic() - self._heard > patience:
            raise TimedOut(self._node, f"the probe has said nothing for {patience:.0f} s")

    def _last_words(self) -> str:
        lines = self._stderr.decode("utf-8", "replace").strip().splitlines()
        return f"the probe ended: {plain(lines[-1], 200)}" if lines else "the probe ended"

    async def _read(self, output: asyncio.StreamReader) -> None:
        buffer = LineBuffer()
        while data := await output.read(1 << 18):
            for line in buffer.feed(data):
                self._stream.feed(line)
            self._heard = time.monotonic()
            if self._stream.hopeless:
                raise Garbled(self._node, self._stream.hopeless)
            if self._stream.samples and not self._link.speaks:
                self._link.connected(describe(self._stream))
                self._feed.changed()
            self._feed.heard()

    async def _read_errors(self, errors: asyncio.StreamReader) -> None:
        while data := await errors.read(4096):
            self._stderr = (self._stderr + data)[-MAX_STDERR:]

    async def _beat(self, stdin: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            stdin.write(payload(ProbeOptions(interval=self._interval, backlog=self._backlog)))
            while True:
                await stdin.drain()
                await asyncio.sleep(BEAT_S)
                stdin.write(b"\n")


def describe(stream: HostStream) -> str:
    """``probe 3.11 nvml 580.95``: what answered."""
    hello = stream.hello
    if hello is None:
        return "probe"
    python = ".".join(hello.python.split(".")[:2])
    return plain(f"probe {python}" + (f" nvml {hello.nvml}" if hello.nvml else ""), 60)


async def end_child(child: asyncio.subprocess.Process) -> None:
    """Kill a child and its session; one that hangs in the kernel is left to it."""
    if child.returncode is None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(child.pid, signal.SIGKILL)
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(KILL_S):
            await child.wait()
    transport = getattr(child, "_transport", None)  # the only way to drop the pipes of a child that stays
    if transport is not None:
        transport.close()
