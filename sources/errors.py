"""Every error a person can meet, in one tree. None of them needs a traceback.

::

    ColdaisleError                  what is wrong, with what, and what to do
    ├── ConfigError                 a file, its line, the mistake, the remedy
    ├── FilterError                 a filter that somebody typed: which characters of it, and why
    ├── SizingError                 a request to the calculator that means nothing: a size of 0, heads that do not divide
    └── SourceError                 a target (host, URL) that does not deliver
        ├── Unreachable             no route, refused, reset, name not known
        ├── TimedOut                it took the connection, or the question, and went silent
        ├── AccessDenied            it answered: not you (a state, not a failure)
        ├── HostKeyUnknown          never seen this host's key
        ├── HostKeyChanged          the key differs from the one in known_hosts
        ├── Unusable                it answered, but nothing there can serve us (no python, no driver)
        └── Garbled                 it answered something that is not the protocol

The text of an error names the thing it concerns; ``remedy`` says what to do.
Texts may hold foreign names: they are made inert where they are shown.
"""

from __future__ import annotations

from pathlib import Path


class ColdaisleError(Exception):
    """The root. ``str(error)`` is one sentence; ``error.remedy`` is the next step, or empty."""

    def __init__(self, problem: str, remedy: str = "") -> None:
        super().__init__(problem)
        self.problem = problem
        self.remedy = remedy


class ConfigError(ColdaisleError):
    """A mistake in a configuration file (or in a flag, then ``file`` is None)."""

    def __init__(
        self, problem: str, remedy: str = "", *, file: Path | None = None, line: int | None = None
    ) -> None:
        super().__init__(problem, remedy)
        self.file = file
        self.line = line

    def __str__(self) -> str:
        place = str(self.file) if self.file else ""
        if self.file and self.line is not None:
            place = f"{self.file}:{self.line}"
        return f"{place}: {self.problem}" if place else self.problem


class FilterError(ColdaisleError):
    """A mistake in a filter: characters [start, stop) of what was typed; ``stop`` may be one past its end."""

    def __init__(self, problem: str, remedy: str = "", start: int = 0, stop: int = 0) -> None:
        super().__init__(problem, remedy)
        self.start = start
        self.stop = max(stop, start + 1)
        self.text = ""
        """All that was typed, where that is worth showing again."""


class SizingError(ColdaisleError):
    """A request that means nothing: a size of 0, 6 heads over 4 GPUs. What fits nowhere is an answer, not an error."""


class SourceError(ColdaisleError):
    """A target that does not deliver; ``target`` is a host, ``host:port`` or URL without secrets."""

    def __init__(self, target: str, problem: str, remedy: str = "") -> None:
        super().__init__(problem, remedy)
        self.target = target

    def __str__(self) -> str:
        return f"{self.target}: {self.problem}"


class Unreachable(SourceError):
    """No route, refused, reset, or the name is not known."""


class TimedOut(SourceError):
    """It took the connection or the question, and went silent."""


class AccessDenied(SourceError):
    """It answered: not you. A state, not a failure: not retried for ten minutes."""


class HostKeyUnknown(SourceError):
    """The host's key is in no known_hosts file."""


class HostKeyChanged(SourceError):
    """The host's key differs from the one in known_hosts: either reinstalled, or not that host."""


class Unusable(SourceError):
    """It answered, but nothing there can serve us: no Python, no nvidia-smi, not an exporter."""


class Garbled(SourceError):
    """It answered something that is not the protocol, or more of it than we accept."""
