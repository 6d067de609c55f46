"""Which host keys are trusted, and where that is written: known_hosts files, read line by line.

A line that cannot be read is left out instead of spoiling the file. Names are looked up as OpenSSH
does: by the host name (or HostKeyAlias) and port, not by the address behind it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import asyncssh

SYSTEM_FILES = ("/etc/ssh/ssh_known_hosts", "/etc/ssh/ssh_known_hosts2")
USER_FILES = ("~/.ssh/known_hosts", "~/.ssh/known_hosts2")
MAX_BYTES = 50_000_000
DEFAULT_PORT = 22
ALGORITHMS = (
    "ssh-ed25519",
    "ecdsa-sha2-nistp256",
    "ecdsa-sha2-nistp384",
    "ecdsa-sha2-nistp521",
    "rsa-sha2-512",
    "rsa-sha2-256",
)
CERTIFICATE = "-cert-v01@openssh.com"


class Line(NamedTuple):
    """One usable line of a known_hosts file."""

    file: Path
    number: int
    text: str

    def matches(self, host: str, port: int) -> bool:
        """Whether it speaks of this host."""
        return any(asyncssh.SSHKnownHosts(self.text).match(host, "", _port(port)))

    @property
    def key_type(self) -> str:
        """``ssh-ed25519``, ..."""
        words = self.text.split()
        return words[2] if words[0].startswith("@") else words[1]

    @property
    def marker(self) -> str:
        """``@revoked``, ``@cert-authority`` or empty."""
        first = self.text.split(None, 1)[0]
        return first if first.startswith("@") else ""


class KnownHosts:
    """Several known_hosts files as one."""

    def __init__(self, lines: Sequence[Line]) -> None:
        self._lines: list[Line] = []
        self._all = asyncssh.SSHKnownHosts()
        for line in lines:
            try:
                self._all.load(line.text)
            except ValueError:
                continue
            self._lines.append(line)

    def __call__(self, host: str, _addr: str, port: int | None) -> Sequence[Sequence[asyncssh.SSHKey]]:
        """(trusted, trusted authorities, revoked) keys of a host; what asyncssh asks for."""
        trusted, authorities, revoked, *_ = self._all.match(host, "", port)
        return trusted, authorities, revoked

    def algorithms(self, host: str, port: int) -> list[str]:
        """What to ask a server's key to be: a known kind first, then any, to tell a changed key from a bad link.

        Asked for known kinds only, a server that has none of them hangs up without showing its key.
        """
        trusted, authorities, _ = self(host, "", _port(port))
        known = [algorithm.decode() for key in trusted for algorithm in key.sig_algorithms]
        certified = [name + CERTIFICATE for name in ALGORITHMS] if authorities else []
        return list(dict.fromkeys([*certified, *known, *ALGORITHMS]))

    def lines_of(self, host: str, port: int) -> list[Line]:
        """The lines that speak of a host; those without a port count when none names it."""
        exact = [line for line in self._lines if line.matches(host, port)]
        return exact or [line for line in self._lines if line.matches(host, DEFAULT_PORT)]


def read_known_hosts(files: Iterable[Path]) -> KnownHosts:
    """The files that are there, in order; read again only when one of them has changed."""
    return _read(tuple(_stamp(file) for file in files))


def _stamp(file: Path) -> tuple[Path, int, int]:
    try:
        status = file.stat()
    except OSError:
        return file, 0, 0
    return file, status.st_mtime_ns, status.st_size


@lru_cache(maxsize=16)
def _read(stamps: tuple[tuple[Path, int, int], ...]) -> KnownHosts:
    return KnownHosts([line for file, _, size in stamps if 0 < size <= MAX_BYTES for line in _lines(file)])


def _lines(file: Path) -> list[Line]:
    try:
        texts = file.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return []
    return [
        Line(file, number, text.strip())
        for number, text in enumerate(texts, 1)
        if len(text.split()) > 2 and not text.lstrip().startswith("#")
    ]


def _port(port: int) -> int | None:
    return None if port == DEFAULT_PORT else port


def lookup_name(host: str, port: int) -> str:
    """As known_hosts and ``ssh-keygen -R`` write it: ``host``, or ``[host]:2222``."""
    return host if port == DEFAULT_PORT else f"[{host}]:{port}"
