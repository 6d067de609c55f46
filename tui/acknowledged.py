"""What somebody has seen and set aside: findings that were acknowledged or snoozed, kept under the state directory.

By the finding's id, with who did it, when, and until when. The file is shared by all dashboards of a user: it is read,
changed and replaced whole under a lock. What cannot be written counts for this dashboard alone, and that is said.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import getpass
import logging
import math
import os
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

from coldaisle.sources.text import plain

if TYPE_CHECKING:
    from coldaisle.analyzers.finding import Finding

MAX_BYTES: Final = 256_000
"""Of the file that are read."""
MOST: Final = 1000
KEPT_S: Final = 30 * 86400.0
"""Entries that are kept, and for how long."""
LOCK_S: Final = 1.0
"""The longest that another dashboard is waited for, when a key was pressed."""
SNOOZES: Final = (3600.0, 4 * 3600.0, 24 * 3600.0)
"""How long ``z`` snoozes, one after the other; then no longer."""

log = logging.getLogger(__name__)


class Entry(NamedTuple):
    """One finding set aside."""

    who: str
    at: float
    until: float | None
    """None: until it ends or becomes worse."""

    def holds(self, finding: Finding, now: float) -> bool:
        """Whether it still counts: not for what began anew or became worse since, nor when a snooze is over."""
        if finding.opened_at > self.at or (finding.worsened_at or 0.0) > self.at:
            return False
        return self.until is None or now < self.until


def default_path() -> Path:
    """``$XDG_STATE_HOME/coldaisle/acknowledged.json``"""
    from platformdirs import user_state_path

    return user_state_path("coldaisle") / "acknowledged.json"


def user_name() -> str:
    """Who sits here, as the system knows."""
    try:
        return plain(getpass.getuser(), 32)
    except (OSError, KeyError):  # a user without an entry
        return f"uid {os.getuid()}"


class Acknowledged:
    """Findings that were set aside."""

    def __init__(
        self, path: Path | None = None, clock: Callable[[], float] = time.time, who: str | None = None
    ) -> None:
        self._path = path or default_path()
        self._clock = clock
        self._who = who or user_name()
        self.problem = ""
        """What is wrong with the file; empty: nothing, or there is none."""
        self._unsaved: dict[str, Entry | None] = {}
        """Changes that could not be written; they count here, and go with the next that can."""
        self._open: dict[str, Finding] = {}
        """The findings of the last look, by their ids."""
        self._entries = self._read()

    def of(self, finding: Finding) -> Entry | None:
        """How a finding was set aside; None: it was not, or that no longer counts."""
        entry = self._entries.get(finding.id)
        return entry if entry is not None and entry.holds(finding, self._clock()) else None

    def look(self) -> None:
        """Read what other dashboards have kept meanwhile."""
        self._entries = _changed(self._read(), self._unsaved)

    def follow(self, findings: Iterable[Finding]) -> None:
        """Keep aside what goes by another name since the last look: all that it took the place of was, and it is no worse.

        A file that another dashboard holds just now is not waited for: what changed goes with the next that can be written.
        """
        before, self._open = self._open, {one.id: one for one in findings}
        if not self._entries:
            return
        for one in self._open.values():
            old = [before[name] for name in one.supersedes if name in before]
            if one.id in before or not old or _is_worse(one, old):
                continue
            entries = [self.of(each) for each in old]
            if all(entries) and self.of(one) is None:
                first = min(filter(None, entries), key=lambda entry: entry.until or math.inf)
                self._put(one.id, first, waiting=False)

    def toggle(self, finding: Finding) -> tuple[str, str]:
        """Acknowledge, or take that back; what was done, and what hinders that it is kept (empty: nothing)."""
        entry = self.of(finding)
        if entry is not None and entry.until is None:
            return "no longer acknowledged", self._put(finding.id, None)
        entry = Entry(self._who, self._clock(), None)
        return f"acknowledged by {self._who}, until it ends or becomes worse", self._put(finding.id, entry)

    def snooze(self, finding: Finding) -> tuple[str, str]:
        """Set aside for an hour, again: for longer, then no more; as :meth:`toggle`."""
        entry, now = self.of(finding), self._clock()
        span = entry.until - entry.at if entry is not None and entry.until is not None else 0.0
        longer = next((one for one in SNOOZES if one > span + 1.0), None)
        if longer is None:
            return "no longer snoozed", self._put(finding.id, None)
        until = now + longer
        words = time.strftime("%H:%M" if longer < 86400 else "%a %H:%M", time.localtime(until))
        return f"snoozed until {words} (z again: longer)", self._put(finding.id, Entry(self._who, now, until))

    def _put(self, key: str, entry: Entry | None, *, waiting: bool = True) -> str:
        """Change one entry; what hinders that it is kept."""
        self._unsaved[key] = entry
        try:
            with self._locked(LOCK_S if waiting else 0.0):
                changed = _kept(_changed(self._read(), self._unsaved), self._clock())
                self._write(changed)
        except OSError as error:
            log.info("what was set aside is not kept: %s", error)
            self._entries = _changed(self._entries, self._unsaved)
            return f"not kept on disk: {error.strerror or error}"
        self._entries, self._unsaved = changed, {}
        return ""

    @contextlib.contextmanager
    def _locked(self, wait_s: float) -> Iterator[None]:
        """Alone with the file. A file system that knows no locks is written without: the file is replaced whole anyway."""
        self._path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        handle = os.open(
            self._path.with_name(f".{self._path.name}.lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600
        )
        try:
            until = time.monotonic() + wait_s
            while True:
                try:
                    fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except OSError as error:
                    if error.errno not in (errno.EWOULDBLOCK, errno.EACCES):
                        break
                    if time.monotonic() > until:
                        raise OSError(error.errno, "another dashboard holds the file") from None
                    time.sleep(0.02)
            yield
        finally:
            os.close(handle)

    def _read(self) -> dict[str, Entry]:
        try:
            with self._path.open("rb") as file:
                text = file.read(MAX_BYTES + 1)
        except FileNotFoundError:
            return {}
        except OSError as error:
            self.problem = (
                f"{self._path.name} cannot be read ({error.strerror}): nothing counts as acknowledged"
            )
            return {}
        found = _parsed(text)
        if found is None:
            self.problem = f"{self._path.name} is broken and is ignored: nothing counts as acknowledged"
            log.warning("%s is no list of findings; it is ignored", self._path)
            return {}
        self.problem = ""
        return found

    def _write(self, entries: Mapping[str, Entry]) -> None:
        """Whole or not at all, and on the disk before it counts."""
        import json

        told = {key: {"who": one.who, "at": one.at, "until": one.until} for key, one in entries.items()}
        handle, name = tempfile.mkstemp(prefix=".acknowledged-", dir=self._path.parent)  # 0600
        try:
            with os.fdopen(handle, "w", encoding="utf-8") as file:
                json.dump(told, file, indent=1)
                file.flush()
                os.fsync(file.fileno())
            os.replace(name, self._path)
        except OSError:
            Path(name).unlink(missing_ok=True)
            raise


def _is_worse(finding: Finding, old: Sequence[Finding]) -> bool:
    """Or more than was seen: it has entities that none of the others had."""
    from coldaisle.analyzers.triage import WORSE_BY

    if not _roots(finding) <= set().union(*map(_roots, old)):
        return True
    severity, loss = max(one.severity for one in old), max(one.loss.fraction for one in old)
    return finding.severity > severity or finding.loss.fraction >= loss + WORSE_BY


def _roots(finding: Finding) -> set[str]:
    return {*finding.scope.gpus, *finding.scope.nodes, *finding.scope.servers}


def _changed(entries: Mapping[str, Entry], changes: Mapping[str, Entry | None]) -> dict[str, Entry]:
    both = {**entries, **changes}
    return {key: one for key, one in both.items() if one is not None}


def _kept(entries: Mapping[str, Entry], now: float) -> dict[str, Entry]:
    """The newest, without what is long past."""
    fresh = {key: one for key, one in entries.items() if now - max(one.at, one.until or 0.0) < KEPT_S}
    newest = sorted(fresh, key=lambda key: fresh[key].at)[-MOST:]
    return {key: fresh[key] for key in newest}


def _parsed(text: bytes) -> dict[str, Entry] | None:
    """The file's entries; None: it is something else."""
    import json

    if len(text) > MAX_BYTES:
        return None
    try:
        raw = json.loads(text)
    except (ValueError, RecursionError):
        return None
    if not isinstance(raw, dict):
        return None
    found = {key: _entry(value) for key, value in raw.items()}
    return None if any(one is None for one in found.values()) else {k: v for k, v in found.items() if v}


def _entry(raw: object) -> Entry | None:
    if not isinstance(raw, dict):
        return None
    who, at, until = raw.get("who"), raw.get("at"), raw.get("until")
    if (
        not isinstance(who, str)
        or not isinstance(at, int | float)
        or not isinstance(until, int | float | None)
    ):
        return None
    return Entry(plain(who, 32), float(at), None if until is None else float(until))
