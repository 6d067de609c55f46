"""What a command that prints is waiting for."""

from __future__ import annotations

import shutil
import sys

from coldaisle.sources.text import plain


class Progress:
    """What is being waited for, on one line of a terminal's stderr."""

    def __init__(self) -> None:
        self._shown = ""
        self._is_on = sys.stderr.isatty()

    def say(self, words: str) -> None:
        """Instead of what stands there."""
        if self._is_on and words != self._shown:
            self._shown = words
            sys.stderr.write(
                f"\r\x1b[K{plain(words, shutil.get_terminal_size().columns - 1, ascii_only=True)}"
            )
            sys.stderr.flush()

    def end(self) -> None:
        """Leave the line empty."""
        if self._shown:
            sys.stderr.write("\r\x1b[K")
            sys.stderr.flush()
