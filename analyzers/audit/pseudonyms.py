"""Names of people, accounts, jobs and machines, replaced: the same name always by the same word, which tells nothing of it."""

from __future__ import annotations

import base64
import hashlib
import hmac
import os
import re
import secrets
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from coldaisle.analyzers.advice.groups import workload_of
from coldaisle.analyzers.usage import Usage
from coldaisle.sources.errors import ConfigError

PLAIN = frozenset(
    {
        "all", "batch", "big", "compute", "cpu", "cpus", "debug", "default", "dev", "exclusive", "express", "general",
        "gpu", "gpus", "high", "highmem", "himem", "infer", "inference", "interactive", "jupyter", "large", "long",
        "low", "main", "medium", "mem", "mig", "multi", "node", "nodes", "normal", "notebook", "part", "partition",
        "preempt", "preemptible", "prio", "priority", "prod", "public", "queue", "serve", "serving", "shared", "short",
        "single", "small", "standard", "test", "train", "training",
    }
)  # fmt: skip
"""Words of partitions that name nobody."""
_FIGURES = re.compile(r"(?:a|b|gb|gh|h|k|l|m|mi|p|rtx|t|v)\d{1,4}[a-z]{0,2}|\d+[a-z]?", re.ASCII)
"""Models of boards, times, numbers."""
KEY_BYTES = 32
LETTERS = 8


class Pseudonyms:
    """Words for names, by a key: without it nobody can try names until one fits."""

    def __init__(self, key: bytes) -> None:
        self._key = key

    def word(self, kind: str, name: str) -> str:
        """``user-k3f9a2xq``; empty for an empty name."""
        if not name:
            return ""
        digest = hmac.new(self._key, f"{kind}\0{name}".encode("utf-8", "replace"), hashlib.sha256).digest()
        return f"{kind}-{base64.b32encode(digest).decode()[:LETTERS].lower()}"

    def job_id(self, id_: str) -> str:
        """A number stays: it names nobody. What holds a namespace and a pod does not."""
        kind, _, rest = id_.partition(":")
        return id_ if kind == "slurm" and rest[:1].isdigit() else self.word("job", id_)

    def partition(self, name: str) -> str:
        """``gpu-long`` and ``a100`` name nobody, and stay; ``smithlab`` does not."""
        words = re.split(r"[^a-z0-9]+", name.lower())
        is_plain = all(word in PLAIN or _FIGURES.fullmatch(word) for word in words if word)
        return name if is_plain and name.isascii() else self.word("partition", name)

    def usage(self, usage: Usage) -> Usage:
        """The same usage, without a name in it. Models of boards keep theirs, as do partitions that name nobody."""
        node, rack = self._of("node"), self._of("rack")
        return replace(
            usage,
            boards=tuple(
                replace(
                    board,
                    key=f"{node(board.node)}/{board.key.rpartition('/')[2]}",
                    node=node(board.node),
                    rack=rack(board.rack),
                    partition=self.partition(board.partition),
                )
                for board in usage.boards
            ),
            hosts=tuple(replace(host, key=node(host.key), rack=rack(host.rack)) for host in usage.hosts),
            stays=tuple(
                replace(
                    stay,
                    id=self.job_id(stay.id),
                    name=self.word("job", stay.name),
                    user=self.word("user", stay.user),
                    account=self.word("account", stay.account),
                    partition=self.partition(stay.partition),
                    # what names say of the work is not in their pseudonyms
                    workload=workload_of(stay),
                )
                for stay in usage.stays
            ),
            source="",
        )

    def _of(self, kind: str) -> Callable[[str], str]:
        return lambda name: self.word(kind, name)


def key_from(path: Path) -> bytes:
    """The key of this user's pseudonyms; made when there is none. Raises ConfigError."""
    try:
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
                file.write(secrets.token_bytes(KEY_BYTES))
        key = path.read_bytes()
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}", "--pseudonyms keeps its key there") from None
    if len(key) < KEY_BYTES:
        raise ConfigError(f"{path}: no key of pseudonyms", "remove the file: a new one is made")
    return key
