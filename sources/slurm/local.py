"""Runs Slurm's commands on this machine: no shell, bounded in time and bytes, and nothing is left behind."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import Sequence

from coldaisle.sources.errors import Garbled, TimedOut, Unusable
from coldaisle.sources.slurm.commands import LIKES_IT_OTHERWISE, SETTINGS, Output, no_command

MAX_STDERR = 65_536


class LocalRunner:
    """A runner (see commands.Runner)."""

    target = "this machine"

    async def run(self, command: Sequence[str], *, seconds: float, most: int) -> Output:
        """Raises Unusable, TimedOut, Garbled."""
        environment = {k: v for k, v in os.environ.items() if k not in LIKES_IT_OTHERWISE} | SETTINGS
        try:
            process = await asyncio.create_subprocess_exec(
                *command,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
                env=environment,
                start_new_session=True,
            )
        except FileNotFoundError:
            raise no_command(self.target, command[0]) from None
        except OSError as error:
            raise Unusable(self.target, f"{command[0]} cannot be run: {error.strerror}") from None
        try:
            async with asyncio.timeout(seconds):
                assert process.stdout is not None
                assert process.stderr is not None
                out, err = await asyncio.gather(
                    read_all(process.stdout, most, self.target, command[0]), _last(process.stderr)
                )
                return Output(await process.wait(), out, err)
        except TimeoutError:
            raise too_slow(self.target, command[0], seconds) from None
        finally:
            await _end(process)

    async def aclose(self) -> None:
        """Nothing is kept open."""


async def read_all(stream: asyncio.StreamReader, most: int, target: str, name: str) -> bytes:
    """Everything, if it is not more than ``most`` bytes. Raises Garbled."""
    chunks = []
    size = 0
    while chunk := await stream.read(1 << 20):
        size += len(chunk)
        if size > most:
            raise Garbled(target, f"{name} prints more than {most // 1_000_000} MB", "see what it prints")
        chunks.append(chunk)
    return b"".join(chunks)


def too_slow(target: str, name: str, seconds: float) -> TimedOut:
    """It did not end."""
    return TimedOut(
        target, f"{name} has not answered within {seconds:.0f} s", "slurmctld is busy, or hangs: see sdiag"
    )


async def _last(stream: asyncio.StreamReader) -> bytes:
    kept = b""
    while chunk := await stream.read(4096):
        kept = (kept + chunk)[-MAX_STDERR:]
    return kept


async def _end(process: asyncio.subprocess.Process) -> None:
    """It, and what it has started; also when nobody waits for it any more."""
    if process.returncode is None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    # its pipes first: asyncio waits for their end, too, and one that nobody reads has none
    transport = getattr(process, "_transport", None)
    if transport is not None:
        transport.close()
    await asyncio.shield(process.wait())
