"""Its presence puts this folder on the path: tests import ``lab.snapshots``, never ``tests.lab.snapshots``."""

from __future__ import annotations

import signal

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # Below a shell's ``&`` Ctrl-C is ignored, and programs that tests start would inherit that.
    signal.signal(signal.SIGINT, signal.default_int_handler)
