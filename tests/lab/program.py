"""coldaisle as a program of its own: started as a user's shell starts it, with a home that is nobody's."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

PROGRAM = (sys.executable, "-c", "from coldaisle.tui.start import main; main()")


def program(*arguments: str, tmp_path: Path, **environ: str) -> subprocess.CompletedProcess[str]:
    """What ``coldaisle`` with these arguments printed, in ``tmp_path``; 2 minutes at most."""
    homes = {"XDG_STATE_HOME": str(tmp_path), "XDG_CONFIG_HOME": str(tmp_path)}
    return subprocess.run(
        [*PROGRAM, *arguments],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        env={**os.environ, **homes, **environ},
        cwd=tmp_path,
        stdin=subprocess.DEVNULL,
    )


def complaints(stderr: str) -> list[str]:
    """The lines of standard error, without those about the simulated cluster's own faults, which come and go."""
    return [line for line in stderr.splitlines() if "(simulated)" not in line]
