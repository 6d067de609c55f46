"""The log: one rotated file under the state directory, redacted, never the terminal.

While the screen is on nothing may write to stderr; and a full disk, a read-only home or a lost NFS
mount must not disturb what is watched. So whatever goes wrong here is dropped.
"""

from __future__ import annotations

import contextlib
import logging
import re
import sys
import threading
from pathlib import Path
from types import TracebackType

MAX_BYTES = 1_000_000
KEPT = 3
"""Files that are kept beside the current one."""
MAX_RECORD = 20_000
"""Characters of one record that are written."""
HIDDEN = "[hidden]"

_SECRETS = (
    (r"(?s)-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(?:-----END [A-Z ]*PRIVATE KEY-----|$)", HIDDEN),
    (r"(?<=://)[^/\s@]{1,300}@", f"{HIDDEN}@"),
    (r"(?i)\b(bearer|basic|negotiate)\s+[A-Za-z0-9+/._~=-]{4,}", rf"\1 {HIDDEN}"),
    (r"\beyJ[A-Za-z0-9_-]{6,}\.[A-Za-z0-9_-]+\.?[A-Za-z0-9_-]*", HIDDEN),
    (
        r"(?i)((?:[a-z0-9]+[-_])*(?:password|passwd|passphrase|token|secret|api[-_]?key|credentials?|authorization)"
        r"[\"']?\s*[=:]\s*)(\"[^\"]*\"|'[^']*'|[^\s,;&)}\]]+)",
        rf"\1{HIDDEN}",
    ),
)
_CONTROL = r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2066-\u2069]"


def redact(text: str) -> str:
    """The text without what looks like a secret: credentials in URLs, tokens, passwords, private keys."""
    for pattern, shown in _SECRETS:
        text = re.sub(pattern, shown, text)
    return text


def default_log_path() -> Path:
    """``$XDG_STATE_HOME/coldaisle/coldaisle.log``."""
    from platformdirs import user_state_path

    return user_state_path("coldaisle") / "coldaisle.log"


def start_log(path: Path | None = None, level: int = logging.INFO) -> Path | None:
    """Send every log record, warning and unhandled error of a thread to the file; None if it cannot be written.

    Our own records from ``level`` on, other libraries' from WARNING on.
    """
    stop_log()
    handler, written = _handler(path or default_log_path())
    handler.setFormatter(_Redacting("%(asctime)s %(process)d %(levelname)s %(name)s: %(message)s"))
    root = logging.getLogger()
    root.addHandler(handler)
    root.setLevel(logging.WARNING)
    logging.getLogger("coldaisle").setLevel(level)
    logging.captureWarnings(True)
    threading.excepthook = _log_thread_error
    sys.unraisablehook = _log_unraisable
    return written


def stop_log() -> None:
    """Undo :func:`start_log`."""
    root = logging.getLogger()
    for handler in [handler for handler in root.handlers if isinstance(handler, _File | _Nowhere)]:
        root.removeHandler(handler)
        handler.close()
    logging.captureWarnings(False)
    threading.excepthook = threading.__excepthook__
    sys.unraisablehook = sys.__unraisablehook__


class _Redacting(logging.Formatter):
    """One record, without secrets and control characters; further lines are set in, so none can pose as a record."""

    def format(self, record: logging.LogRecord) -> str:
        text = redact(super().format(record)[:MAX_RECORD])
        return re.sub(_CONTROL, "\ufffd", text).replace("\n", "\n    ")


class _File(logging.Handler):
    """A rotated file that is opened with the first record, after the first paint; drops what it cannot write."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self._path = path
        self._to: logging.Handler | None = None

    def emit(self, record: logging.LogRecord) -> None:
        """Write one record. logging.handlers is slow to import."""
        if self._to is None:
            from logging.handlers import RotatingFileHandler

            try:
                self._to = RotatingFileHandler(
                    self._path,
                    maxBytes=MAX_BYTES,
                    backupCount=KEPT,
                    encoding="utf-8",
                    errors="backslashreplace",
                )
            except OSError:
                return
            self._to.setFormatter(self.formatter)
            self._to.handleError = lambda record: None  # type: ignore[method-assign]  # the default prints into the screen
        self._to.emit(record)

    def close(self) -> None:
        """Close the file, whatever the disk says."""
        if self._to is not None:
            with contextlib.suppress(OSError):  # flushing to a full disk
                self._to.close()
        super().close()


class _Nowhere(logging.NullHandler):
    """Stands in where no file can be written, so that the last resort (stderr) is not used."""


def _handler(path: Path) -> tuple[logging.Handler, Path | None]:
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        path.touch(mode=0o600)
        return _File(path), path
    except OSError:
        return _Nowhere(), None


def _log_thread_error(args: threading.ExceptHookArgs) -> None:
    if args.exc_type is SystemExit:
        return
    error = args.exc_value or args.exc_type()
    traceback: TracebackType | None = args.exc_traceback
    name = args.thread.name if args.thread else "?"
    logging.getLogger("coldaisle").error("thread %s ended", name, exc_info=(args.exc_type, error, traceback))


def _log_unraisable(args: sys.UnraisableHookArgs) -> None:
    error = args.exc_value or args.exc_type()
    logging.getLogger("coldaisle").error(
        "%s in %r",
        args.err_msg or "error ignored",
        args.object,
        exc_info=(args.exc_type, error, args.exc_traceback),
    )
