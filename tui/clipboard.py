"""Text to where people paste from: the terminal's clipboard (OSC 52), and the buffer of the tmux around us.

A terminal does not say whether it took what OSC 52 offers, and many are told not to. tmux by default ignores the
sequence of a program inside it; its own command does not.
"""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from textual.app import App

TMUX_S = 2.0
MOST = 4000
"""Characters that are copied at most: longer sequences are dropped by terminals."""


def is_safe(text: str) -> bool:
    """Whether it can be pasted into a shell without doing anything by itself: one printable line."""
    return bool(text) and text.isascii() and text.isprintable() and len(text) <= MOST


async def copy(app: App[Any], text: str) -> str:
    """Copy one safe line; where to, in words."""
    assert is_safe(text)
    app.copy_to_clipboard(text)
    if os.environ.get("TMUX") and await _to_tmux(text):
        return "to tmux's buffer (prefix ]) and by OSC 52"
    return "by OSC 52, if the terminal lets it"


async def _to_tmux(text: str) -> bool:
    """Whether tmux took it; -w passes it on to the terminal outside (tmux 3.2)."""
    for options in (("-w",), ()):
        if await _load_buffer(text, options):
            return True
    return False


async def _load_buffer(text: str, options: tuple[str, ...]) -> bool:
    try:
        process = await asyncio.create_subprocess_exec(
            "tmux", "load-buffer", *options, "-",
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL,
        )  # fmt: skip
    except OSError:
        return False
    try:
        await asyncio.wait_for(process.communicate(text.encode()), TMUX_S)
    except TimeoutError:
        process.kill()
        await process.wait()
        return False
    return process.returncode == 0
