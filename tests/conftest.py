"""Its presence puts this folder on the path: tests import ``lab.snapshots``, never ``tests.lab.snapshots``."""

from __future__ import annotations

import os
import signal

from hypothesis import settings

# The same examples every time, so that a change passes or fails by what it changed. New ones are looked for
# with COLDAISLE_SEARCH=1.
settings.register_profile("repeatable", derandomize=True)
if not os.environ.get("COLDAISLE_SEARCH"):
    settings.load_profile("repeatable")

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # Below a shell's ``&`` Ctrl-C is ignored, and programs that tests start would inherit that.
    signal.signal(signal.SIGINT, signal.default_int_handler)
