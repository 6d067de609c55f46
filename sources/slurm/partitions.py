"""Partitions as Slurm's JSON of every release and ``scontrol -o show partition`` have them, as records. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import msgspec
from msgspec import Raw, Struct

from coldaisle.sources.errors import Garbled
from coldaisle.sources.slurm import words
from coldaisle.sources.slurm.json_answers import Problem, as_text, number, refuse
from coldaisle.sources.slurm.records import MAX_PARTITIONS, MAX_WORDS, Partitions
from coldaisle.sources.source import Partition

MAX_ACCOUNTS = 200
_PAIR = re.compile(r"(?:^| )([A-Za-z]\w*)=(\S*)")
_EVERYBODY = ("ALL", "all")


class _Answer(Struct):
    partitions: list[Raw] | None = None
    errors: list[Problem] | None = None


class _Partition(Struct):
    """v0.0.36 to 38 in plain fields, since v0.0.39 in groups."""

    name: str
    flags: list[str] | None = None
    state: Any = None
    max_time_limit: Any = None
    default_time_limit: Any = None
    maximum_nodes_per_job: Any = None
    total_nodes: Any = None
    total_cpus: Any = None
    allowed_accounts: str | None = None
    denied_accounts: str | None = None
    priority_tier: Any = None
    tres: Any = None
    nodes: Any = None
    cpus: Any = None
    accounts: Any = None
    defaults: Any = None
    maximums: Any = None
    priority: Any = None
    partition: Any = None


_ANSWER = msgspec.json.Decoder(_Answer)
_ONE = msgspec.json.Decoder(_Partition)


def read_json(body: bytes, target: str) -> Partitions:
    """Of ``scontrol show partitions --json`` (23.02) or slurmrestd. Raises Garbled; one that is odd is left out."""
    try:
        answer = _ANSWER.decode(as_text(body))
    except msgspec.MsgspecError as error:
        raise Garbled(
            target, f"half an answer, or none that can be read: {str(error)[:120]}", "ask it by hand and see"
        ) from None
    refuse(answer.errors, target, bool(answer.partitions))
    told = answer.partitions or []
    found = []
    for raw in told[:MAX_PARTITIONS]:
        try:
            found.append(_from_json(_ONE.decode(raw)))
        except msgspec.MsgspecError:
            continue
    return Partitions(found, len(told) - len(found))


def read_text(body: bytes) -> Partitions:
    """The lines of ``scontrol -o show partition``."""
    lines = [
        line for line in body.decode("utf-8", "replace").split("\n") if line.startswith("PartitionName=")
    ]
    found = [_from_text(dict(_PAIR.findall(line))) for line in lines[:MAX_PARTITIONS]]
    return Partitions(found, len(lines) - len(found))


def _from_json(one: _Partition) -> Partition:
    nodes, cpus, accounts, tres = (_group(part) for part in (one.nodes, one.cpus, one.accounts, one.tres))
    most, usual = _group(one.maximums), _group(one.defaults)
    state = _group(one.partition).get("state", one.state)
    counts = words.tres(_text(one.tres) or _text(tres.get("configured")))
    return Partition(
        name=one.name[:MAX_WORDS],
        state=_state(" ".join(map(str, state)) if isinstance(state, list) else str(state or "")),
        is_default=None if one.flags is None else "default" in map(str.lower, one.flags),
        limit_s=_minutes(most.get("time", one.max_time_limit)),
        default_s=_minutes(usual.get("time", one.default_time_limit)) or None,
        most_nodes=_count(most.get("nodes", one.maximum_nodes_per_job)) or None,
        nodes=_count(nodes.get("total", one.total_nodes)),
        cpus=_count(cpus.get("total", one.total_cpus)),
        gpus=words.gpus_of(counts),
        memory=int(counts["mem"]) if "mem" in counts else None,
        accounts=_accounts(_text(accounts.get("allowed")) or one.allowed_accounts),
        accounts_denied=_accounts(_text(accounts.get("deny")) or one.denied_accounts),
        tier=_count(_group(one.priority).get("tier", one.priority_tier)),
    )


def _from_text(value: Mapping[str, str]) -> Partition:
    counts = words.tres(value.get("TRES"))
    return Partition(
        name=value.get("PartitionName", "")[:MAX_WORDS],
        state=_state(value.get("State", "")),
        is_default={"YES": True, "NO": False}.get(value.get("Default", "")),
        limit_s=words.duration(value.get("MaxTime")),
        default_s=words.duration(value.get("DefaultTime")),
        most_nodes=_digits(value.get("MaxNodes")),
        nodes=_digits(value.get("TotalNodes")),
        cpus=_digits(value.get("TotalCPUs")),
        gpus=words.gpus_of(counts),
        memory=int(counts["mem"]) if "mem" in counts else None,
        accounts=_accounts(value.get("AllowAccounts")),
        accounts_denied=_accounts(value.get("DenyAccounts")),
        tier=_digits(value.get("PriorityTier")),
    )


def _state(text: str) -> str:
    """``UP``, ``DOWN+...``: the first word, in lower case."""
    return re.split(r"[^A-Za-z_]", text.strip(), maxsplit=1)[0].lower()[:MAX_WORDS] or "unknown"


def _minutes(value: Any) -> float | None:
    """Of a limit in minutes; unlimited, or -1: None."""
    found = number(value)
    return None if found is None or found < 0 else found * 60.0


def _count(value: Any) -> int | None:
    found = number(value)
    return None if found is None or found < 0 else int(found)


def _digits(text: str | None) -> int | None:
    return int(text) if text and text.isascii() and text.isdigit() and len(text) < 12 else None


def _accounts(text: str | None) -> tuple[str, ...]:
    if text in _EVERYBODY or not words.is_given(text):
        return ()
    return tuple(part[:MAX_WORDS] for part in (text or "").split(",")[:MAX_ACCOUNTS])


def _group(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) else None
