"""Jobs and nodes as Slurm might tell them: what a test does not name is plain."""

from __future__ import annotations

from typing import Any

from coldaisle.sources.slurm.records import Board, Nodes, SlurmJob, SlurmNode
from coldaisle.sources.slurm.telling import Teller
from coldaisle.sources.source import Gres

AT = 1_800_000_000.0


def job(number: int = 7, **said: Any) -> SlurmJob:
    plain: dict[str, Any] = dict.fromkeys(SlurmJob._fields)
    plain |= {
        "id": number, "display": str(number), "name": "train", "user": "kim", "partition": "gpu", "state": "RUNNING",
        "is_waiting": False, "is_holding": True, "submitted": AT - 100, "start": AT - 60, "end": AT + 3600, "limit_s": 3660.0,
        "nodes": ("n1",), "boards": (Board("n1", (0, 1)),), "gpus": 2, "gpus_asked": 2, "tasks": 1,
    }  # fmt: skip
    return SlurmJob(**(plain | said))


def waiting(number: int = 8, **said: Any) -> SlurmJob:
    plain = {
        "state": "PENDING",
        "is_waiting": True,
        "is_holding": False,
        "reason": "Priority",
        "start": None,
        "end": None,
    }
    return job(number, **{**plain, "nodes": (), "boards": (), **said})


def node(name: str = "n1", **said: Any) -> SlurmNode:
    plain: dict[str, Any] = dict.fromkeys(SlurmNode._fields)
    plain |= {
        "name": name, "hostname": name, "state": "mix", "flags": ("mixed",), "reason": "", "gres": (Gres("gpu", "h100", 4),),
        "features": (), "partitions": ("gpu",), "cpus": 64, "booted": AT - 9999,
    }  # fmt: skip
    return SlurmNode(**(plain | said))


def told(*nodes: SlurmNode, **options: Any) -> Teller:
    teller = Teller(**options)
    teller.take_nodes(Nodes(list(nodes)), AT)
    return teller
