"""Bearer tokens: from a file, an environment variable or a command, never from the command line or the file of settings."""

from __future__ import annotations

import logging
import os
import shlex
import stat
import subprocess
from pathlib import Path

from coldaisle.sources.errors import ConfigError
from coldaisle.sources.settings import ExporterSettings

log = logging.getLogger(__name__)

COMMAND_S = 10.0
"""The longest that a token's command may take."""
MAX_TOKEN = 16_384


def token_of(source: ExporterSettings) -> str:
    """The token as it is now; empty where none is configured. ConfigError never holds any of it.

    May block for COMMAND_S: call it in a thread.
    """
    if source.token_file:
        return _clean(_from_file(Path(source.token_file)), f"token_file {source.token_file}")
    if source.token_env:
        return _clean(os.environ.get(source.token_env, ""), f"token_env {source.token_env}")
    if source.token_command:
        return _clean(_from_command(source.token_command), "token_command")
    return ""


def _from_file(path: Path) -> str:
    try:
        with path.open(encoding="utf-8") as file:
            if stat.S_IMODE(os.fstat(file.fileno()).st_mode) & 0o077:
                log.warning("%s can be read by others: chmod 600 it", path)
            return file.read(MAX_TOKEN + 1)
    except OSError as error:
        raise ConfigError(
            f"token_file {path}: {error.strerror}", "check the path and its permissions"
        ) from None
    except UnicodeDecodeError:
        raise ConfigError(
            f"token_file {path}: not text", "the file holds the token and nothing else"
        ) from None


def _from_command(command: str | tuple[str, ...]) -> str:
    try:
        words = shlex.split(command) if isinstance(command, str) else list(command)
        done = subprocess.run(
            words, capture_output=True, stdin=subprocess.DEVNULL, timeout=COMMAND_S, check=False
        )
    except subprocess.TimeoutExpired:
        raise ConfigError(
            f"token_command took longer than {COMMAND_S:.0f} s", "it must not ask anything"
        ) from None
    except (OSError, ValueError, IndexError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise ConfigError(f"token_command cannot be run: {reason}", "it is run without a shell") from None
    if done.returncode != 0:
        raise ConfigError(f"token_command ended with status {done.returncode}", "try it by hand") from None
    return done.stdout[: MAX_TOKEN + 1].decode("utf-8", "replace")


def _clean(text: str, where: str) -> str:
    token = text.strip()
    if not token:
        raise ConfigError(f"{where}: no token there", "it must hold the token and nothing else")
    if len(token) > MAX_TOKEN or not token.isascii() or not token.isprintable() or " " in token:
        raise ConfigError(
            f"{where}: that is no token", "it must hold the token and nothing else, on one line"
        )
    return token
