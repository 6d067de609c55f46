"""What this machine can see by itself, where nothing was configured."""

from __future__ import annotations

import ctypes
import os
import shutil
import socket
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

CONNECT_S = 0.2
"""The longest that a look at one port takes."""
EXPORTER_PORTS = ((9400, "dcgm-exporter"), (9100, "node_exporter"))
_DRIVER_FILES = ("proc/driver/nvidia/version", "dev/nvidiactl", "dev/nvidia0")
_SLURM_FILES = ("etc/slurm/slurm.conf", "etc/slurm-llnl/slurm.conf", "run/slurm/conf/slurm.conf")
"""The last: fetched from slurmctld (configless)."""
_LIBRARY = "libnvidia-ml.so.1"


class Detected(NamedTuple):
    """What was found, as sources and in words."""

    sources: tuple[dict[str, Any], ...]
    """As they would be written in the configuration."""
    notes: tuple[str, ...]
    """One line for each thing that was looked for."""


def detect(
    root: Path = Path("/"),
    ports: Sequence[tuple[int, str]] = EXPORTER_PORTS,
    environment: Mapping[str, str] = os.environ,
) -> Detected:
    """Looks for an NVIDIA driver, exporters and Slurm's commands on this machine; takes at most CONNECT_S a port."""
    driver, slurm = nvidia_driver(root), slurm_client(root, environment)
    targets = [f"127.0.0.1:{port}" for port, _ in ports if answers("127.0.0.1", port)]
    sources: list[dict[str, Any]] = []
    if driver:
        sources.append({"kind": "local"})
    if targets:
        sources.append({"kind": "exporters", "targets": targets})
    if slurm:
        sources.append({"kind": "slurm"})
    notes = [f"NVIDIA driver: {driver or 'none found'}"]
    for port, what in ports:
        found = "answers" if f"127.0.0.1:{port}" in targets else "nothing there"
        notes.append(f"{what} on 127.0.0.1:{port}: {found}")
    notes.append(f"Slurm: {slurm or 'no squeue with a configuration'}")
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


def slurm_client(root: Path, environment: Mapping[str, str]) -> str:
    """Where the configuration of Slurm's commands is; empty: they cannot be used here."""
    if shutil.which("squeue", path=environment.get("PATH")) is None:
        return ""
    given = environment.get("SLURM_CONF")
    places = [Path(given)] if given else [root / place for place in _SLURM_FILES]
    return next((str(place) for place in places if place.exists()), "")


def answers(host: str, port: int) -> bool:
    """Whether somebody accepts a connection there, now."""
    try:
        with socket.create_connection((host, port), timeout=CONNECT_S):
            return True
    except OSError:
        return False
