"""What a person chose on a screen and wants to find again: kept under the state directory, readable by its owner alone."""

from __future__ import annotations

import json
import logging
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path

MAX_BYTES = 64_000
"""Of the file that are read."""
MOST_NAMES, LONGEST_NAME = 200, 64
"""Columns that a choice may hold, and characters of each."""

log = logging.getLogger(__name__)


def default_path() -> Path:
    """``$XDG_STATE_HOME/coldaisle/columns.json``: the columns of each screen, in the order of the screen."""
    from platformdirs import user_state_path

    return user_state_path("coldaisle") / "columns.json"


class Choices:
    """The columns that were chosen, by screen. A file that is broken counts as none, and says so once."""

    def __init__(self, path: Path | None = None) -> None:
        self._path = path or default_path()
        self.problem = ""
        """What is wrong with the file; empty: nothing, or there is none."""
        self._columns = self._read()

    def columns(self, screen: str) -> frozenset[str] | None:
        """What was chosen for a screen; None: nothing yet, whatever has anything is shown."""
        return self._columns.get(screen)

    def choose(self, screen: str, columns: Sequence[str] | None) -> str:
        """Keep a choice (None: none any more); what hinders that, or an empty text."""
        known = {**self._read(), **self._columns}  # another dashboard may have written meanwhile
        known.pop(screen, None)
        if columns is not None:
            known[screen] = frozenset(columns)
        self._columns = known
        try:
            self._write()
        except OSError as error:
            log.info("the columns are not kept: %s", error)
            return f"the columns are not kept: {error.strerror or error}"
        return ""

    def _read(self) -> dict[str, frozenset[str]]:
        try:
            with self._path.open("rb") as file:
                text = file.read(MAX_BYTES + 1)
        except FileNotFoundError:
            return {}
        except OSError as error:
            self.problem = f"{self._path.name} cannot be read ({error.strerror}): all columns are shown"
            return {}
        found = _parsed(text)
        if found is None:
            self.problem = f"{self._path.name} is broken and is ignored: all columns are shown"
            log.warning("%s is no list of columns by screen; it is ignored", self._path)
        return found or {}

    def _write(self) -> None:
        """Whole or not at all: two dashboards may write at once."""
        self._path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        handle, name = tempfile.mkstemp(prefix=".columns-", dir=self._path.parent)  # 0600
        try:
            with os.fdopen(handle, "w", encoding="utf-8") as file:
                json.dump({screen: sorted(names) for screen, names in self._columns.items()}, file, indent=1)
            os.replace(name, self._path)
        except OSError:
            Path(name).unlink(missing_ok=True)
            raise


def _parsed(text: bytes) -> dict[str, frozenset[str]] | None:
    """The file's columns by screen; None: it is something else."""
    if len(text) > MAX_BYTES:
        return None
    try:
        raw = json.loads(text)
    except (ValueError, RecursionError):
        return None
    if not isinstance(raw, dict) or not all(_is_choice(names) for names in raw.values()):
        return None
    return {screen: frozenset(names) for screen, names in raw.items()}


def _is_choice(names: object) -> bool:
    return (
        isinstance(names, list)
        and len(names) <= MOST_NAMES
        and all(isinstance(name, str) and len(name) <= LONGEST_NAME for name in names)
    )
