"""How the probe gets onto a host: a fixed shell command, and a payload for its standard input.

Nothing is installed there. The command finds a Python, which reads the payload (``probe.py`` and
pynvml's source, compressed) from its standard input and runs it; what follows on that input is a
heartbeat, any byte at least every ``patience`` seconds. At its end, or without it, the probe leaves.
"""

from __future__ import annotations

import sys
import zlib
from dataclasses import asdict, dataclass
from functools import cache
from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

from coldaisle.sources.errors import ColdaisleError

NO_PYTHON = "coldaisle: no usable python"
"""The line (on standard output) of a host without Python 3.6 or later; the exit status is then 127."""
NO_PYTHON_STATUS = 127

_LOADER = "import sys,zlib;b=sys.stdin.buffer;exec(zlib.decompress(b.read(int(b.readline()))))"
"""Holds no quote, dollar, backslash or exclamation mark: it passes through sh, csh and fish unharmed."""

_CHECK = "import sys,zlib,ctypes,json;sys.exit(sys.version_info<(3,6))"

_SHELL = (
    "for p in python3 /usr/bin/python3 /usr/libexec/platform-python; do "
    f'if "$p" -I -S -c "{_CHECK}" </dev/null >/dev/null 2>&1; then '
    f'exec "$p" -I -S -u -c "{_LOADER}" coldaisle-probe; fi; done; '
    f'echo "{NO_PYTHON}"; exit {NO_PYTHON_STATUS}'
)

_STAGE_2 = "exec(compile(BOOT['probe'],'coldaisle-probe','exec'),{'__name__':'__main__','BOOT':BOOT})"


@dataclass(frozen=True, slots=True)
class ProbeOptions:
    """What a probe is told; seconds. The defaults are those of a probe that is told nothing."""

    interval: float = 2.0
    patience: float = 30.0
    """Silence on its input after which it leaves."""
    backlog: float = 0.0
    """How far back it reads the kernel log at its start; the time since the last one, when coming again."""
    retry: float = 30.0
    """Between two tries to start NVML, and between two looks at a lost GPU."""


class Bootstrap(NamedTuple):
    """``command`` for the remote login shell (or, as a list, a child process), ``payload`` for its input."""

    command: str
    payload: bytes


def bootstrap_command(options: ProbeOptions | None = None) -> Bootstrap:
    """The command for any login shell, and what to write to it first.

    A host without a usable Python prints :data:`NO_PYTHON` and ends with status 127.
    """
    return Bootstrap(f"exec /bin/sh -c '{_SHELL}'", payload(options or ProbeOptions()))


def local_command() -> list[str]:
    """The same for a child process under our own Python; its input takes the same payload."""
    return [sys.executable, "-I", "-S", "-u", "-c", _LOADER, "coldaisle-probe"]


@cache
def payload(options: ProbeOptions) -> bytes:
    """Probe, pynvml and options as one length-prefixed block of bytes (about 65 kB); the same for every host."""
    boot = {"probe": _probe_source(), "pynvml": _pynvml_source(), "options": asdict(options)}
    packed = zlib.compress(f"BOOT={boot!r}\n{_STAGE_2}".encode(), 9)
    return b"%d\n%s" % (len(packed), packed)


def _probe_source() -> str:
    return (files(__package__) / "probe.py").read_text(encoding="utf-8")


def _pynvml_source() -> str:
    spec = find_spec("pynvml")
    if spec is None or spec.origin is None:
        raise ColdaisleError("pynvml is not installed", "pip install nvidia-ml-py")
    return Path(spec.origin).read_text(encoding="utf-8")
