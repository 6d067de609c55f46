"""The past as accounting has it (sacct, ``/slurmdb/jobs``): which jobs ran where, and how many GPUs they had. Pure."""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec import Struct

from coldaisle.sources.errors import Garbled
from coldaisle.sources.slurm import words
from coldaisle.sources.slurm.json_answers import Problem, number, refuse
from coldaisle.sources.slurm.records import MAX_JOBS, MAX_WORDS, SlurmJob

SEPARATOR = "\x1f"
FIELDS = (
    "JobIDRaw", "JobID", "User", "Account", "Partition", "QOS", "State", "Submit", "Eligible", "Start", "End",
    "TimelimitRaw", "NodeList", "AllocTRES", "ReqTRES", "JobName",
)  # fmt: skip
"""The name is last: it alone may hold anything."""


def read_sacct(body: bytes) -> list[SlurmJob]:
    """Lines of ``sacct -n -P -X`` with FIELDS between SEPARATORs; what is no such line belongs to a name, and is left out."""
    jobs: list[SlurmJob] = []
    for line in body.decode("utf-8", "replace").split("\n"):
        cells = line.split(SEPARATOR, len(FIELDS) - 1)
        if len(cells) == len(FIELDS) and cells[0].isascii() and cells[0].isdigit() and len(jobs) < MAX_JOBS:
            jobs.append(_from_cells(dict(zip(FIELDS, cells, strict=True))))
    return jobs


def _from_cells(cell: dict[str, str]) -> SlurmJob:
    minutes = cell["TimelimitRaw"]
    return _past_job(
        id=int(cell["JobIDRaw"][:12]),
        display=cell["JobID"],
        name=cell["JobName"],
        user=cell["User"],
        account=cell["Account"],
        partition=cell["Partition"],
        qos=cell["QOS"],
        states=[cell["State"]],
        times=[words.instant(cell[key]) for key in ("Submit", "Eligible", "Start", "End")],
        limit_s=float(minutes) * 60 if minutes.isascii() and minutes.isdigit() else None,
        nodes=cell["NodeList"],
        given=words.tres(cell["AllocTRES"]),
        wanted=words.tres(cell["ReqTRES"]),
    )


def _past_job(
    *,
    id: int,
    display: str,
    name: str,
    user: str,
    account: str,
    partition: str,
    qos: str,
    states: list[str],
    times: list[float | None],
    limit_s: float | None,
    nodes: str,
    given: dict[str, float],
    wanted: dict[str, float],
) -> SlurmJob:
    state, is_waiting, is_holding = words.job_state(states)
    submitted, eligible, start, end = times
    asked = words.gpus_of(wanted)
    names = () if nodes == "None assigned" else words.hosts(nodes)
    return SlurmJob(
        id, display, name[:MAX_WORDS], user, words.given(account), words.given(partition), words.given(qos), state,
        is_waiting, is_holding, None, submitted, eligible, start, end, limit_s, names, (),
        asked if is_waiting else words.gpus_of(given), None, _int(given, "cpu"), _int(given, "mem"), asked,
        _int(wanted, "cpu"), _int(wanted, "mem"), _int(wanted, "node"), None, 1, None,
    )  # fmt: skip


def _int(counts: dict[str, float], name: str) -> int | None:
    return int(counts[name]) if name in counts else None


_NOTHING = "Nothing found"
"""What 22.05 calls an error: no job in that time."""


class _Tres(Struct):
    type: str | None = None
    name: str | None = None
    count: Any = None


class _TresSets(Struct):
    allocated: list[_Tres] | None = None
    requested: list[_Tres] | None = None


class _Past(Struct):
    job_id: int
    name: str | None = None
    user: str | None = None
    account: str | None = None
    association: Any = None
    array: Any = None
    het: Any = None
    partition: str | None = None
    qos: str | None = None
    nodes: str | None = None
    state: Any = None
    time: Any = None
    tres: _TresSets | None = None


class _Pasts(Struct):
    jobs: list[_Past] | None = None
    errors: list[Problem] | None = None


def read_accounting(body: bytes, target: str) -> list[SlurmJob]:
    """The jobs of slurmrestd's ``/slurmdb/.../jobs``, which is the JSON of sacct, too. Raises Garbled."""
    try:
        answer = msgspec.json.decode(body.decode("utf-8", "replace"), type=_Pasts)
    except msgspec.MsgspecError as error:
        raise Garbled(target, f"accounting gives half an answer: {str(error)[:120]}") from None
    if any(_NOTHING in str(problem) for problem in answer.errors or ()):
        return []
    refuse(answer.errors, target, bool(answer.jobs))
    return [_from_json(one) for one in (answer.jobs or [])[:MAX_JOBS]]


def _from_json(one: _Past) -> SlurmJob:
    time = one.time if isinstance(one.time, dict) else {}
    state = one.state.get("current") if isinstance(one.state, dict) else one.state
    array = one.array if isinstance(one.array, dict) else {}
    owner = one.association if isinstance(one.association, dict) else {}
    of, task = number(array.get("job_id")), number(array.get("task_id"))
    tres = one.tres or _TresSets()
    limit = number(time.get("limit"))
    return _past_job(
        id=one.job_id,
        display=f"{int(of)}_{int(task)}" if of and task is not None else str(one.job_id),
        name=one.name or "",
        user=one.user or str(owner.get("user") or ""),
        account=one.account or "",
        partition=one.partition or "",
        qos=one.qos or "",
        states=[state] if isinstance(state, str) else [text for text in state or [] if isinstance(text, str)],
        times=[words.moment(number(time.get(key))) for key in ("submission", "eligible", "start", "end")],
        limit_s=None if limit is None else limit * 60.0,
        nodes=one.nodes or "",
        given=_counts(tres.allocated),
        wanted=_counts(tres.requested),
    )


def _counts(entries: list[_Tres] | None) -> dict[str, float]:
    """As :func:`words.tres` gives them; ``mem`` counts MiB here."""
    found = {}
    for one in entries or ():
        count = number(one.count)
        if one.type and count is not None and count >= 0:
            name = f"{one.type}/{one.name}" if one.name else one.type
            found[name] = count * 1024 * 1024 if name == "mem" else count
    return found
