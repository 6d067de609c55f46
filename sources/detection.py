"""What this machine can see by itself, where nothing was configured."""

from __future__ import annotations

import ctypes
import socket
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

CONNECT_S = 0.2
"""The longest that a look at one port takes."""
EXPORTER_PORTS = ((9400, "dcgm-exporter"), (9100, "node_exporter"))
_DRIVER_FILES = ("proc/driver/nvidia/version", "dev/nvidiactl", "dev/nvidia0")
_LIBRARY = "libnvidia-ml.so.1"


class Detected(NamedTuple):
    """What was found, as sources and in words."""

    sources: tuple[dict[str, Any], ...]
    """As they would be written in the configuration."""
    notes: tuple[str, ...]
    """One line for each thing that was looked for."""


def detect(root: Path = Path("/"), ports: Sequence[tuple[int, str]] = EXPORTER_PORTS) -> Detected:
    """Looks for an NVIDIA driver and for exporters on this machine; takes at most CONNECT_S a port."""
    driver = nvidia_driver(root)
    targets = [f"127.0.0.1:{port}" for port, _ in ports if answers("127.0.0.1", port)]
    sources: list[dict[str, Any]] = []
    if driver:
        sources.append({"kind": "local"})
    if targets:
        sources.append({"kind": "exporters", "targets": targets})
    notes = [f"NVIDIA driver: {driver or 'none found'}"]
    for port, what in ports:
        found = "answers" if f"127.0.0.1:{port}" in targets else "nothing there"
        notes.append(f"{what} on 127.0.0.1:{port}: {found}")
    return Detected(tuple(sources), tuple(notes))


def nvidia_driver(root: Path = Path("/")) -> str:
    """By what a driver shows itself (a path, the library); empty: by nothing."""
    for name in _DRIVER_FILES:
        if (root / name).exists():
            return f"/{name}"
    try:
        ctypes.CDLL(_LIBRARY)
    except OSError:
        return ""
    return _LIBRARY


def answers(host: str, port: int) -> bool:
    """Whether somebody accepts a connection there, now."""
    try:
        with socket.create_connection((host, port), timeout=CONNECT_S):
            return True
    except OSError:
        return False
