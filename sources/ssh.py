"""Hosts through the probe, over SSH: hundreds of them on one event loop, none in another's way.

::

    Logins ── connection ── HostLink ── Conversation (bytes) ── HostStream ──┐
    Logins ── connection ── HostLink ── Conversation (bytes) ── HostStream ──┴── FleetFeed ── items

The remote process lives as long as its connection: its standard input carries a heartbeat, and it
leaves at the end of that. Nothing is installed on the host. One without Python is read through its
nvidia-smi, over the same connection. Importing this module imports asyncssh:
do it where it is used.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import suppress
from enum import Enum, auto
from typing import TypeAlias

import asyncssh

from coldaisle.sources.bootstrap import NO_PYTHON, NO_PYTHON_STATUS, ProbeOptions, bootstrap_command
from coldaisle.sources.errors import AccessDenied, Garbled, SourceError, TimedOut, Unreachable, Unusable
from coldaisle.sources.fleet import Backoff, FleetFeed, Link, Tasks
from coldaisle.sources.frames import RECORD
from coldaisle.sources.hosts import HostStream, LineBuffer
from coldaisle.sources.local import describe
from coldaisle.sources.manners import backlog_after
from coldaisle.sources.settings import SshSettings
from coldaisle.sources.smi import (
    HELP_COMMAND,
    MAX_HELP,
    NO_NVIDIA_SMI_STATUS,
    SmiReader,
    fields_of,
    query_command,
)
from coldaisle.sources.source import Clock, Item, Rank
from coldaisle.sources.ssh_login import (
    REFUSAL,
    Ask,
    Destination,
    Logins,
    Patience,
    Secrets,
    collect_secrets,
    destination,
)
from coldaisle.sources.text import plain

__all__ = ["Ask", "Patience", "Secrets", "SshSource", "collect_secrets"]

log = logging.getLogger(__name__)

MAX_SCOUTS = 8
"""Hosts tried one after the other for a first verdict; then all are tried."""
GENTLEST = 16
"""Times the pause between two hosts when one host after the other refuses us."""
BEAT_S = 12.0
"""Between two heartbeats; a probe leaves after 30 s without one."""
MAX_STDERR = 8192
BURST_BYTES = 8_000_000
BYTES_PER_S = 2_000_000
"""A host that sends more than this on average does not run our probe."""

Boot: TypeAlias = Callable[[ProbeOptions], tuple[str, bytes]]
"""(command, payload) that start a probe in a login shell."""


class Verdict(Enum):
    """What a host's first answer means for the others."""

    WELCOME = auto()
    REFUSED = auto()
    """None of our keys is accepted: the next host would probably refuse them as well."""
    NOT_HERE = auto()
    """This host lets us in only under a condition (a job on it); others may."""
    UNDECIDED = auto()


class SshSource:
    """Hosts of a configuration, as one source. ``secrets`` are from :func:`collect_secrets`.

    Raises ConfigError for a host name that must not reach a shell or a resolver.
    """

    kind = "ssh"
    rank = Rank.PROBE

    def __init__(
        self,
        settings: SshSettings,
        *,
        clock: Clock = time.time,
        secrets: Secrets | None = None,
        patience: Patience | None = None,
        boot: Boot = bootstrap_command,
    ) -> None:
        self.name = settings.name
        self.interval = settings.interval
        self._settings = settings
        self._clock = clock
        self._secrets = secrets or Secrets()
        self._patience = patience or Patience(connect=settings.connect_timeout)
        self._boot = boot
        self._hosts = {to.host: to for to in map(destination, settings.hosts)}

    async def stream(self) -> AsyncGenerator[Item, None]:
        """Items of all hosts until closed; every connection and remote process ends with it."""
        feed = FleetFeed(list(self._hosts), self.interval, self._clock)
        logins = Logins(self._settings, self._patience, self._secrets)
        tasks = Tasks()
        gate = Gate()
        links = [
            HostLink(to, feed, logins, gate, self._patience, self._boot, self._clock)
            for to in self._hosts.values()
        ]
        tasks.start(admit(links, gate, tasks, self._patience), f"admission of {self.name}")
        try:
            while True:
                for item in await feed.next():
                    yield item
        finally:
            await tasks.end()
            await logins.close()


class Gate:
    """Lets the hosts in: one first, the rest when one of them has let us in."""

    def __init__(self) -> None:
        self._verdicts: dict[str, Verdict] = {}
        self._told = asyncio.Condition()

    @property
    def open(self) -> bool:
        """Whether some host has let us in."""
        return Verdict.WELCOME in self._verdicts.values()

    @property
    def refusals(self) -> int:
        """How many hosts accept none of our keys."""
        return sum(verdict is Verdict.REFUSED for verdict in self._verdicts.values())

    async def tell(self, host: str, verdict: Verdict) -> None:
        """What a host said of us."""
        async with self._told:
            self._verdicts[host] = verdict
            self._told.notify_all()

    async def verdict(self, host: str, seconds: float) -> Verdict:
        """What this host says within that time, or that another one has let us in."""
        await self._wait(lambda: self.open or host in self._verdicts, seconds)
        return Verdict.WELCOME if self.open else self._verdicts.get(host, Verdict.UNDECIDED)

    async def opened(self, seconds: float) -> bool:
        """Whether some host lets us in within that time."""
        await self._wait(lambda: self.open, seconds)
        return self.open

    async def _wait(self, until: Callable[[], bool], seconds: float) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds), self._told:
                await self._told.wait_for(until)


async def admit(links: Sequence[HostLink], gate: Gate, tasks: Tasks, patience: Patience) -> None:
    """Start the hosts: one first, the rest when one has let us in.

    While our keys are refused the others are tried one at a time, with pauses that grow: one host's list of
    keys may be wrong, but a site whose hosts all refuse us is not hammered. A host that lets us in only with
    a job says nothing of the others. Hosts that do not answer decide nothing, and delay the others by
    ``patience.scout`` each at most.
    """
    waiting = list(links)
    undecided = 0
    while waiting and not gate.open and (gate.refusals or undecided < MAX_SCOUTS):
        scout = waiting.pop(0)
        tasks.start(scout.run(), f"ssh {scout.to.host}")
        verdict = await gate.verdict(scout.to.host, patience.scout)
        undecided += verdict is Verdict.UNDECIDED
        if gate.refusals:
            if verdict is Verdict.REFUSED:
                _hold_back(waiting, scout)
            await gate.opened(patience.gentle * min(2.0 ** (gate.refusals - 1), GENTLEST))
    for link in waiting:
        tasks.start(link.run(), f"ssh {link.to.host}")


def _hold_back(waiting: Sequence[HostLink], scout: HostLink) -> None:
    for link in waiting:
        problem = f"not tried yet: {scout.to.host} refused us"
        link.link.failed(AccessDenied(link.to.host, problem, scout.remedy))
    scout.feed.changed()


class HostLink:
    """One host: connect, speak, and again."""

    def __init__(
        self,
        to: Destination,
        feed: FleetFeed,
        logins: Logins,
        gate: Gate,
        patience: Patience,
        boot: Boot = bootstrap_command,
        clock: Clock = time.time,
    ) -> None:
        self.to = to
        self.feed = feed
        self.link: Link = feed.links[to.host]
        self.remedy = ""
        self._stream = feed.stream_of(to.host)
        self._logins = logins
        self._patience = patience
        self._backoff = Backoff(patience.first_pause, patience.longest_pause)
        self._gate = gate
        self._boot = boot
        self._clock = clock

    async def run(self) -> None:
        """For ever; each failure is kept, shown and followed by a pause."""
        while True:
            started = time.monotonic()
            try:
                await self._once()
            except SourceError as error:
                await self._failed(error)
            except Exception as error:
                log.exception("ssh %s failed", self.to.host)
                await self._failed(Unusable(self.to.host, f"internal error: {error!r}", "see the log file"))
            if self._stream.samples and time.monotonic() - started > self._patience.steady:
                self._backoff.reset()
            await asyncio.sleep(self._pause())

    def _pause(self) -> float:
        if isinstance(self.link.error, AccessDenied):
            return self._patience.denied
        return self._backoff.pause()

    async def _failed(self, error: SourceError) -> None:
        log.info("ssh %s: %s", self.to.host, error.problem)
        self.remedy = error.remedy
        self.link.failed(error)
        self.feed.changed()
        verdict = Verdict.UNDECIDED
        if isinstance(error, AccessDenied):
            verdict = Verdict.NOT_HERE if REFUSAL.search(error.problem) else Verdict.REFUSED
        await self._gate.tell(self.to.host, verdict)

    async def _once(self) -> None:
        self.link.connecting("connecting")
        self.feed.changed()
        keepalive = max(1.0, 1.1 * self.feed.interval)
        async with self._logins.connection(self.to, keepalive) as connection:
            await self._gate.tell(self.to.host, Verdict.WELCOME)
            self.link.connecting("waiting for the login shell")
            self.feed.changed()
            conversation = ProbeConversation(self.to.host, self._stream, self._boot)
            conversation.command = self._logins.command(self.to)
            if not await self._speak(connection, conversation):
                await self._speak_to_nvidia_smi(connection)

    async def _speak_to_nvidia_smi(self, connection: asyncssh.SSHClientConnection) -> None:
        listing = FieldListing(self.to.host, self._stream)
        await self._speak(connection, listing)
        if listing.status == NO_NVIDIA_SMI_STATUS:
            problem = "it has neither Python 3.6 or later nor nvidia-smi"
            raise Unusable(self.to.host, problem, "install Python 3.6 or later there")
        await self._speak(connection, SmiConversation(self.to.host, self._stream, listing.text, self._clock))

    async def _speak(self, connection: asyncssh.SSHClientConnection, conversation: Conversation) -> bool:
        """Hold a conversation until it ends, which raises; False when the host cannot hold it."""
        self._stream.restart()
        command, payload = conversation.start(self.feed.interval, backlog_after(self._stream.quiet_s))
        try:
            channel, _ = await connection.create_session(
                lambda: conversation, command, encoding=None, request_pty=False, x11_forwarding=False
            )
        except (asyncssh.Error, OSError) as error:
            raise Unusable(self.to.host, f"no session: {plain(str(error), 200)}") from error
        try:
            if payload:
                channel.write(payload)
            return await self._listen(channel, conversation)
        finally:
            channel.abort()

    async def _listen(self, channel: asyncssh.SSHClientChannel[bytes], conversation: Conversation) -> bool:
        began = time.monotonic()
        while not conversation.ended.is_set():
            await conversation.wait(self._wait_s())
            self._notice(conversation)
            if conversation.broken:
                raise Garbled(self.to.host, conversation.broken, "see what its login shell runs for you")
            self._check_silence(began)
            if not conversation.ended.is_set() and conversation.heartbeat:
                with suppress(OSError):  # it may be closing
                    channel.write(b"\n")
        return conversation.verdict()

    def _wait_s(self) -> float:
        """Until the next heartbeat; sooner while the first line is awaited."""
        return BEAT_S if self._stream.samples else min(BEAT_S, max(self._patience.start / 4, 0.2))

    def _notice(self, conversation: Conversation) -> None:
        if self._stream.samples and not self.link.speaks:
            self.link.connected(conversation.describe())
            self.feed.changed()
            self.feed.heard()

    def _check_silence(self, began: float) -> None:
        stream, patience = self._stream, self._patience
        if stream.samples == 0 and time.monotonic() - began > patience.start:
            problem = f"its login shell has not started the probe within {patience.start:.0f} s"
            if stream.noise_text:
                problem += f"; it said: {plain(stream.noise_text.splitlines()[-1], 200)}"
            remedy = f"run: {self._logins.command(self.to)} true, and see what takes so long"
            raise TimedOut(self.to.host, problem, remedy)
        quiet = max(patience.silence, 5 * self.feed.interval)
        if stream.samples and stream.quiet_s > quiet:
            raise TimedOut(self.to.host, f"the probe has said nothing for {quiet:.0f} s")


class Conversation(asyncssh.SSHClientSession[bytes]):
    """One remote process: its bytes as they come, and how it ended."""

    heartbeat = True

    def __init__(self, host: str, stream: HostStream) -> None:
        self.host = host
        self.command = f"ssh {host}"
        """How a person reaches the host; for a remedy."""
        self.ended = asyncio.Event()
        self.broken = ""
        """Why nothing useful will come any more."""
        self.status: int | None = None
        self.stream = stream
        self._moved = asyncio.Event()
        self._buffer = LineBuffer()
        self._stderr = b""
        self._error: Exception | None = None
        self._bytes = 0
        self._began = time.monotonic()
        self._spoke = False

    def start(self, interval: float, backlog: float) -> tuple[str, bytes]:
        """(command for the login shell, what to write to it first)."""
        raise NotImplementedError

    def take(self, line: bytes) -> None:
        """One line of its output."""
        raise NotImplementedError

    def describe(self) -> str:
        """What answered."""
        raise NotImplementedError

    def data_received(self, data: bytes, datatype: asyncssh.DataType) -> None:
        """Output; standard error is kept for a message."""
        self._bytes += len(data)
        if self._bytes > BURST_BYTES + BYTES_PER_S * (time.monotonic() - self._began):
            self._break("it sends more than a probe ever would")
        elif datatype == asyncssh.EXTENDED_DATA_STDERR:
            self._stderr = (self._stderr + data)[-MAX_STDERR:]
        elif not self.broken:
            self._take_all(data)

    def _take_all(self, data: bytes) -> None:
        for line in self._buffer.feed(data):
            self.take(line)
        if self.stream.hopeless:
            self._break(self.stream.hopeless)
        elif self.stream.samples and not self._spoke:
            self._spoke = True
            self._moved.set()

    def _break(self, why: str) -> None:
        self.broken = self.broken or why
        self._moved.set()

    def exit_status_received(self, status: int) -> None:
        """How it ended."""
        self.status = status

    def connection_lost(self, exc: Exception | None) -> None:
        """The channel is gone, with its process or with the connection."""
        self._error = exc
        self.ended.set()
        self._moved.set()

    async def wait(self, seconds: float) -> None:
        """Until it ends, speaks for the first time or breaks; at most so long."""
        self._moved.clear()
        if self.ended.is_set() or self.broken:
            return
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._moved.wait()

    def verdict(self) -> bool:
        """Why it ended, raised; False: the host cannot hold such a conversation."""
        said = self._last_words()
        refusal = REFUSAL.search(said)
        if self._error is not None:
            raise _lost(self.host, self._error)
        if self.stream.samples == 0 and refusal is not None and "pam_slurm" in refusal[0].lower():
            raise AccessDenied(self.host, plain(refusal[0].strip(), 200))
        if self.stream.samples == 0 and self.cannot():
            return False
        remedy = "" if self.stream.samples else f"run: {self.command} python3 --version, and see what it says"
        raise Unusable(self.host, self.ending(), remedy)

    def cannot(self) -> bool:
        """Whether the host lacks what it takes."""
        return False

    def ending(self) -> str:
        """The end of the process, in a sentence."""
        status = "" if self.status is None else f" with status {self.status}"
        last = self._last_words().strip().splitlines()[-1:]
        return f"the remote process ended{status}" + (f": {plain(last[0], 200)}" if last else "")

    def _last_words(self) -> str:
        return self._stderr.decode("utf-8", "replace") or self.stream.noise_text


class ProbeConversation(Conversation):
    """With the probe, under the host's own Python."""

    def __init__(self, host: str, stream: HostStream, boot: Boot) -> None:
        super().__init__(host, stream)
        self._boot = boot

    def start(self, interval: float, backlog: float) -> tuple[str, bytes]:
        """The bootstrap's command, and the probe itself."""
        return self._boot(ProbeOptions(interval=interval, backlog=backlog))

    def take(self, line: bytes) -> None:
        """A line of the probe, or of the login shell before it."""
        self.stream.feed(line)

    def describe(self) -> str:
        """``probe 3.11 nvml 580.95``"""
        return describe(self.stream)

    def cannot(self) -> bool:
        """The bootstrap found no usable Python, and said so."""
        return self.status == NO_PYTHON_STATUS and NO_PYTHON in self.stream.noise_text


class FieldListing(Conversation):
    """With an nvidia-smi that lists its fields; ``text`` is what it printed."""

    heartbeat = False

    def __init__(self, host: str, stream: HostStream) -> None:
        super().__init__(host, stream)
        self.text = ""

    def start(self, interval: float, backlog: float) -> tuple[str, bytes]:
        """The command; nothing is written to it."""
        return HELP_COMMAND, b""

    def take(self, line: bytes) -> None:
        """A line of the list, or of the login shell before it."""
        self.text += line.decode("utf-8", "replace") + "\n"
        if len(self.text) > MAX_HELP:
            self._break("its nvidia-smi prints without end")

    def describe(self) -> str:
        """What answered."""
        return "nvidia-smi"

    def verdict(self) -> bool:
        """True: what it said is all there is; a lost connection is raised."""
        if self._error is not None:
            raise _lost(self.host, self._error)
        return True


class SmiConversation(Conversation):
    """With an nvidia-smi that prints its GPUs again and again; ``listing`` is what it says it can print."""

    def __init__(self, host: str, stream: HostStream, listing: str, clock: Clock) -> None:
        super().__init__(host, stream)
        self._listing = listing
        self._reader = SmiReader(fields_of(listing), clock)

    def start(self, interval: float, backlog: float) -> tuple[str, bytes]:
        """The query; only heartbeats are written to it."""
        return query_command(self._listing, interval), b""

    def take(self, line: bytes) -> None:
        """A line of nvidia-smi, or of the login shell before it."""
        ignored = self._reader.ignored
        for frame in self._reader.feed(line):
            self.stream.take(frame)
        if self._reader.ignored > ignored:
            self.stream.feed(line.replace(RECORD, b" "))

    def describe(self) -> str:
        """``nvidia-smi 590.48.01``"""
        return plain(f"nvidia-smi {self._reader.driver or ''}".strip(), 60)

    def verdict(self) -> bool:
        """Why it ended, raised."""
        if self._error is None and self._reader.problem:
            raise Unusable(self.host, plain(self._reader.problem, 200), self._reader.remedy)
        return super().verdict()


def _lost(host: str, error: Exception) -> SourceError:
    if "keepalive" in str(error):
        return TimedOut(
            host, "it vanished without a word: no answer to keepalive", "see whether the node is up"
        )
    return Unreachable(host, f"the connection ended: {plain(str(error), 200)}")
