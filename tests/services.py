"""Real services that tests need: skipped with a reason where one is not installed, or failed where that is forbidden."""

from __future__ import annotations

import os
import shutil
from typing import NoReturn

import pytest

PLACES = "/usr/local/sbin:/usr/sbin:/sbin:/usr/local/bin:/usr/bin:/bin"
"""Looked in as well as PATH: an ordinary user's PATH often lacks the folders of servers."""
PACKAGES = {
    "sshd": "openssh-server",
    "ssh": "openssh-client",
    "ssh-keygen": "openssh-client",
    "ssh-agent": "openssh-client",
    "tmux": "tmux",
    "gcc": "gcc",
    "setpriv": "util-linux",
    "prometheus-node-exporter": "prometheus-node-exporter",
    "prometheus": "prometheus",
    "promtool": "prometheus",
    "victoria-metrics": "victoria-metrics",
    "slurmctld": "slurmctld",
    "slurmd": "slurmd",
    "slurmdbd": "slurmdbd",
    "slurmrestd": "slurmrestd",
    "scontrol": "slurm-client",
    "squeue": "slurm-client",
    "munged": "munge",
    "mariadbd": "mariadb-server",
    "mariadb-install-db": "mariadb-server",
    "unshare": "util-linux",
    "chromium": "chromium",
}


def find(name: str) -> str | None:
    """The path of a program, or None."""
    return shutil.which(name, path=f"{os.environ.get('PATH', '')}:{PLACES}")


def require(*names: str) -> str:
    """The path of the first program; without all of them the test is skipped, or fails if that is forbidden.

    COLDAISLE_REQUIRE_SERVICES=1 forbids it.
    """
    for name in names:
        if find(name) is None:
            missing(f"{name} is not installed (package {PACKAGES.get(name, name)})")
    found = find(names[0])
    assert found is not None
    return found


def missing(why: str) -> NoReturn:
    """Skip the test, or fail it where that is forbidden."""
    if os.environ.get("COLDAISLE_REQUIRE_SERVICES") == "1":
        pytest.fail(why, pytrace=False)
    pytest.skip(why)
