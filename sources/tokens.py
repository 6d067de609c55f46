"""Tokens and passwords: from a file, an environment variable or a command, never from the command line or the file of settings."""

from __future__ import annotations

import logging
import os
import shlex
import stat
import subprocess
from pathlib import Path

from coldaisle.sources.errors import ConfigError
from coldaisle.sources.settings import ExporterSettings, PrometheusSettings, SlurmSettings

log = logging.getLogger(__name__)

COMMAND_S = 10.0
"""The longest that a token's command may take."""
MAX_TOKEN = 16_384


def token_of(source: ExporterSettings | PrometheusSettings | SlurmSettings) -> str:
    """The token as it is now; empty where none is configured. ConfigError never holds any of it.

    May block for COMMAND_S: call it in a thread.
    """
    text, where = _configured(source, "token")
    return _clean(text, where) if where else ""


def password_of(source: PrometheusSettings) -> str:
    """The password of basic authentication, as :func:`token_of` gives a token."""
    text, where = _configured(source, "password")
    return _one_line(text, where) if where else ""


def _configured(source: ExporterSettings | PrometheusSettings | SlurmSettings, what: str) -> tuple[str, str]:
    """(the text as it was found, which setting said where); two empty texts: none does."""
    if file := getattr(source, f"{what}_file"):
        return _from_file(Path(file), what), f"{what}_file {file}"
    if variable := getattr(source, f"{what}_env"):
        return os.environ.get(variable, ""), f"{what}_env {variable}"
    if command := getattr(source, f"{what}_command"):
        return _from_command(command, what), f"{what}_command"
    return "", ""


def _from_file(path: Path, what: str) -> str:
    try:
        with path.open(encoding="utf-8") as file:
            if stat.S_IMODE(os.fstat(file.fileno()).st_mode) & 0o077:
                log.warning("%s can be read by others: chmod 600 it", path)
            return file.read(MAX_TOKEN + 1)
    except OSError as error:
        raise ConfigError(
            f"{what}_file {path}: {error.strerror}", "check the path and its permissions"
        ) from None
    except UnicodeDecodeError:
        raise ConfigError(
            f"{what}_file {path}: not text", f"the file holds the {what} and nothing else"
        ) from None


def _from_command(command: str | tuple[str, ...], what: str) -> str:
    try:
        words = shlex.split(command) if isinstance(command, str) else list(command)
        done = subprocess.run(
            words, capture_output=True, stdin=subprocess.DEVNULL, timeout=COMMAND_S, check=False
        )
    except subprocess.TimeoutExpired:
        raise ConfigError(
            f"{what}_command took longer than {COMMAND_S:.0f} s", "it must not ask anything"
        ) from None
    except (OSError, ValueError, IndexError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise ConfigError(f"{what}_command cannot be run: {reason}", "it is run without a shell") from None
    if done.returncode != 0:
        raise ConfigError(f"{what}_command ended with status {done.returncode}", "try it by hand") from None
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


def _one_line(text: str, where: str) -> str:
    """A password may hold more than a token: spaces, other letters."""
    password = text.removesuffix("\n").removesuffix("\r")
    if not password:
        raise ConfigError(f"{where}: no password there", "it must hold the password and nothing else")
    if len(password) > MAX_TOKEN or not password.isprintable():
        raise ConfigError(f"{where}: that is no password", "it must hold the password alone, on one line")
    return password
