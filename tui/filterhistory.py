"""Filters that were typed before: kept under the state directory, readable by their owner alone."""

from __future__ import annotations

import logging
import os
import tempfile
from pathlib import Path

KEPT = 200
"""Filters that are kept."""
MAX_BYTES = 256_000
"""Of the file that are read."""

log = logging.getLogger(__name__)


def default_path() -> Path:
    """``$XDG_STATE_HOME/coldaisle/filters``: a filter a line, the newest last."""
    from platformdirs import user_state_path

    return user_state_path("coldaisle") / "filters"


class FilterHistory:
    """What was typed, and where one stands in it."""

    def __init__(self, path: Path | None = None) -> None:
        self._path = path or default_path()
        self._filters = _read(self._path)
        self._at = len(self._filters)
        self._typed = ""
        """What was being typed before the first step back."""

    def older(self, typed: str) -> str:
        """The filter before; at the oldest ``typed`` stays."""
        if self._at == len(self._filters):
            self._typed = typed
        if self._at == 0:
            return typed
        self._at -= 1
        return self._filters[self._at]

    def newer(self, typed: str) -> str:
        """The filter after; after the newest comes what was being typed."""
        if self._at >= len(self._filters):
            return typed
        self._at += 1
        return self._typed if self._at == len(self._filters) else self._filters[self._at]

    def add(self, text: str) -> None:
        """Remember a filter as the newest. What cannot be written is forgotten at the end."""
        text = text.strip()
        if not text or not text.isprintable():
            return
        known = _read(self._path) or self._filters  # another dashboard may have written meanwhile
        self._filters = [*(one for one in known if one != text), text][-KEPT:]
        self._at = len(self._filters)
        try:
            _write(self._path, self._filters)
        except OSError as error:
            log.info("the filters are not kept: %s", error)


def _read(path: Path) -> list[str]:
    try:
        with path.open("rb") as file:
            text = file.read(MAX_BYTES).decode("utf-8", "replace")
    except OSError:
        return []
    return [line for line in text.splitlines() if line.strip() and line.isprintable()][-KEPT:]


def _write(path: Path, filters: list[str]) -> None:
    """Whole or not at all: two dashboards may write at once."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    handle, name = tempfile.mkstemp(prefix=".filters-", dir=path.parent)  # 0600
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.writelines(f"{line}\n" for line in filters)
        os.replace(name, path)
    except OSError:
        Path(name).unlink(missing_ok=True)
        raise
