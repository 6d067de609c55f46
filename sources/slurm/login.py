"""Runs Slurm's commands on a login node, over one SSH connection. Importing this module imports asyncssh."""

from __future__ import annotations

import asyncio
import contextlib
import shlex
from collections.abc import Sequence
from contextlib import AsyncExitStack

import asyncssh

from coldaisle.sources.errors import Garbled, Unreachable
from coldaisle.sources.settings import SlurmSettings
from coldaisle.sources.slurm.commands import LIKES_IT_OTHERWISE, SETTINGS, Output
from coldaisle.sources.slurm.local import MAX_STDERR, too_slow
from coldaisle.sources.ssh_login import Logins, Patience, Secrets, destination
from coldaisle.sources.text import plain

KEEPALIVE_S = 15.0


class LoginRunner:
    """A runner (see commands.Runner). Raises ConfigError for a name that is none."""

    def __init__(self, settings: SlurmSettings, secrets: Secrets | None = None) -> None:
        self._ssh = settings.login()
        self._to = destination(self._ssh.hosts[0])
        self.target = self._to.host
        self._secrets = secrets
        self._open: AsyncExitStack | None = None
        self._connection: asyncssh.SSHClientConnection | None = None

    async def run(self, command: Sequence[str], *, seconds: float, most: int) -> Output:
        """Raises SourceError: of the login, of the connection, or because it takes too long or says too much."""
        connection = await self._connected()
        line = shlex.join(remote_words(command))
        try:
            async with asyncio.timeout(seconds):
                process = await connection.create_process(line, encoding=None, stdin=asyncssh.DEVNULL)
                try:
                    return await self._output(process, command[0], most)
                finally:
                    process.channel.abort()
        except TimeoutError:
            raise too_slow(self.target, command[0], seconds) from None
        except (asyncssh.Error, OSError) as error:
            await self.aclose()
            raise Unreachable(self.target, f"the connection broke: {plain(str(error), 200)}") from error

    async def aclose(self) -> None:
        """Hang up."""
        stack, self._open, self._connection = self._open, None, None
        if stack is not None:
            with contextlib.suppress(OSError, asyncssh.Error):
                await stack.aclose()

    async def _connected(self) -> asyncssh.SSHClientConnection:
        if self._connection is not None and not self._connection.is_closed():
            return self._connection
        await self.aclose()
        stack = AsyncExitStack()
        logins = Logins(self._ssh, Patience(connect=self._ssh.connect_timeout), self._secrets)
        stack.push_async_callback(logins.close)
        try:
            self._connection = await stack.enter_async_context(logins.connection(self._to, KEEPALIVE_S))
        except BaseException:
            await stack.aclose()
            raise
        self._open = stack
        return self._connection

    async def _output(self, process: asyncssh.SSHClientProcess[bytes], name: str, most: int) -> Output:
        out, err = await asyncio.gather(self._all(process.stdout, name, most), _last(process.stderr))
        done = await process.wait()
        if done.exit_status is None or done.exit_status < 0:
            raise Unreachable(
                self.target, f"{name} was cut off", "see whether the login node lets commands run"
            )
        return Output(done.exit_status, out, err)

    async def _all(self, stream: asyncssh.SSHReader[bytes], name: str, most: int) -> bytes:
        chunks = []
        size = 0
        while chunk := await stream.read(1 << 20):
            size += len(chunk)
            if size > most:
                raise Garbled(
                    self.target, f"{name} prints more than {most // 1_000_000} MB", "see what it prints"
                )
            chunks.append(chunk)
        return b"".join(chunks)


def remote_words(command: Sequence[str]) -> list[str]:
    """For a login shell of any kind: no assignment, no pipe."""
    without = [word for name in LIKES_IT_OTHERWISE for word in ("-u", name)]
    return ["env", *without, *(f"{name}={value}" for name, value in SETTINGS.items()), *command]


async def _last(stream: asyncssh.SSHReader[bytes]) -> bytes:
    kept = b""
    while chunk := await stream.read(4096):
        kept = (kept + chunk)[-MAX_STDERR:]
    return kept
