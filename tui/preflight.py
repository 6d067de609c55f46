"""What must be asked before the screen opens: nothing can be typed into it later."""

from __future__ import annotations

import asyncio
import getpass
import os
import sys
from typing import TYPE_CHECKING

import click

from coldaisle.sources.errors import ConfigError
from coldaisle.sources.settings import SlurmSettings, SourceSettings, SshSettings
from coldaisle.sources.text import plain
from coldaisle.tui.capabilities import capabilities

if TYPE_CHECKING:
    from coldaisle.sources.config import Settings
    from coldaisle.sources.ssh_login import Secrets

PATIENCE_S = 6.0
"""The longest that the screen waits for a host to ask something; a question, once asked, has all the time it needs."""


def ask_first(settings: Settings, *, confirmed: bool) -> dict[str, Secrets]:
    """Ask for leave to log in to many hosts, and for pass phrases and passwords; these by source.

    Without a terminal nothing is asked: ConfigError where leave is needed.
    """
    sources = [source for source in map(_login_of, settings.sources) if source is not None]
    if not sources:
        return {}
    from coldaisle.sources.manners import needs_confirmation

    hosts = [host for source in sources for host in source.hosts]
    if needs_confirmation(hosts) and not confirmed:
        _confirm(len(set(hosts)))
    if not sys.stdin.isatty():
        return {}
    return {source.name: asyncio.run(_secrets(source)) for source in sources}


def _login_of(source: SourceSettings) -> SshSettings | None:
    """How a source logs in, if it does."""
    if isinstance(source, SlurmSettings) and source.via.startswith("ssh:"):
        return source.login()
    return source if isinstance(source, SshSettings) else None


def _confirm(count: int) -> None:
    if not sys.stdin.isatty():
        raise ConfigError(f"this logs in to {count} hosts, and nobody is here to be asked", "--yes allows it")
    click.confirm(f"coldaisle will log in to {count} hosts. Go on?", abort=True, err=True)


async def _secrets(source: SshSettings) -> Secrets:
    from coldaisle.sources.ssh import Secrets, collect_secrets

    has_asked = False

    async def ask(prompt: str) -> str | None:
        nonlocal has_asked
        has_asked = True
        # it blocks the loop: in a thread, Ctrl+C would wait for the Enter key
        return (
            getpass.getpass(f"{plain(prompt, 200, ascii_only=not capabilities(os.environ).utf8).rstrip()} ")
            or None
        )

    collecting = asyncio.create_task(collect_secrets(source, ask))
    await asyncio.wait({collecting}, timeout=PATIENCE_S)
    if not collecting.done() and not has_asked:
        collecting.cancel()
        await asyncio.wait({collecting})
        return Secrets()
    return await collecting
