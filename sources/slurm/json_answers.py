"""Slurm's JSON of every release, from 21.08 (v0.0.37) to 25.11 (v0.0.44), as records.

A number is plain, null, or ``{"set", "infinite", "number"}``; a state is a text with flags beside it, or a list.
An answer of 20,000 jobs has 100 MB, most of it which core of which node is whose: that is passed over unread,
and the rest is decoded a piece at a time, for a decoder holds up every thread.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator, Sequence
from typing import Any

import msgspec
from msgspec import Raw, Struct

from coldaisle.sources.errors import Garbled
from coldaisle.sources.registry import is_mig_type
from coldaisle.sources.slurm import words
from coldaisle.sources.slurm.records import (
    MAX_JOBS,
    MAX_NODES,
    MAX_WORDS,
    Board,
    Diagnosis,
    Jobs,
    Nodes,
    SlurmJob,
    SlurmNode,
)

PIECE_BYTES = 1_000_000
_MIB = 1024 * 1024
_UNSET = (0xFFFFFFFE, 0xFFFFFFFF, 0xFFFE, 0xFFFF, 0xFFFFFFFFFFFFFFFE, 0xFFFFFFFFFFFFFFFF)
"""NO_VAL and INFINITE of 16, 32 and 64 bits, where a release lets them through."""
_NO_MEMORY = 1 << 63


class Problem(Struct):
    """One entry of ``errors``."""

    error: str | None = None
    description: str | None = None
    error_number: int | None = None
    errno: int | None = None
    """What older ones call it."""
    source: str | None = None

    @property
    def number(self) -> int | None:
        return self.errno if self.error_number is None else self.error_number

    def __str__(self) -> str:
        said = [text for text in (self.description, self.error) if text]
        return ": ".join(dict.fromkeys(said)) or f"error {self.number}"


class _Answer(Struct):
    """What surrounds a list."""

    errors: list[Problem] | None = None
    last_update: Any = None
    meta: Any = None
    statistics: Any = None


class _Resources(Struct):
    nodes: Raw = Raw()
    allocated_nodes: Raw = Raw()


class _Named(Struct):
    name: str | None = None
    nodename: str | None = None


class _Allocation(Struct):
    allocation: list[_Named] | None = None


class _Job(Struct):
    job_id: int
    account: str | None = None
    array_job_id: Any = None
    array_task_id: Any = None
    array_task_string: str | None = None
    cpus: Any = None
    dependency: str | None = None
    eligible_time: Any = None
    end_time: Any = None
    gres_detail: list[str] | None = None
    het_job_id: Any = None
    het_job_offset: Any = None
    job_resources: _Resources | None = None
    job_state: Any = None
    memory_per_node: Any = None
    name: str | None = None
    node_count: Any = None
    nodes: str | None = None
    partition: str | None = None
    qos: str | None = None
    restart_cnt: Any = None
    start_time: Any = None
    state_description: str | None = None
    state_reason: str | None = None
    submit_time: Any = None
    tasks: Any = None
    time_limit: Any = None
    tres_alloc_str: str | None = None
    tres_per_job: str | None = None
    tres_per_node: str | None = None
    tres_per_task: str | None = None
    tres_req_str: str | None = None
    user_id: Any = None
    user_name: str | None = None


class _Node(Struct):
    name: str
    hostname: str | None = None
    address: str | None = None
    state: Any = None
    state_flags: list[str] | None = None
    reason: str | None = None
    reason_set_by_user: str | None = None
    reason_changed_at: Any = None
    gres: str | None = None
    gres_used: str | None = None
    cpus: Any = None
    alloc_cpus: Any = None
    real_memory: Any = None
    alloc_memory: Any = None
    features: Any = None
    active_features: Any = None
    partitions: list[str] | None = None
    boot_time: Any = None
    operating_system: str | None = None
    topology: str | None = None
    tres_used: str | None = None


_JOB = msgspec.json.Decoder(_Job)
_JOBS = msgspec.json.Decoder(list[_Job])
_NODES = msgspec.json.Decoder(list[_Node])
_HEAD = msgspec.json.Decoder(_Answer)
_ALLOCATION = msgspec.json.Decoder(_Allocation)
_NAMES = msgspec.json.Decoder(list[_Named])


async def read_jobs(body: bytes, target: str) -> Jobs:
    """The jobs of ``squeue --json`` or slurmrestd. Raises Garbled where it is half an answer or something else."""
    jobs: list[SlurmJob] = []
    lost = 0
    answer = _Answer()
    for piece in _pieces(as_text(body), b"jobs", target):
        if isinstance(piece, _Answer):
            answer = _joined(answer, piece)
            continue
        rows, bad = _decoded(_JOBS, piece)
        kept = rows[: MAX_JOBS - len(jobs)]
        jobs += map(_job, kept)
        lost += bad + len(rows) - len(kept)
        await asyncio.sleep(0)
    refuse(answer.errors, target, bool(jobs))
    return Jobs(jobs, words.moment(number(answer.last_update)), lost)


async def read_nodes(body: bytes, target: str) -> Nodes:
    """The nodes of ``sinfo --json`` (to 22.05), ``scontrol show nodes --json`` or slurmrestd. Raises Garbled."""
    nodes: list[SlurmNode] = []
    lost = 0
    answer = _Answer()
    for piece in _pieces(as_text(body), b"nodes", target):
        if isinstance(piece, _Answer):
            answer = _joined(answer, piece)
            continue
        rows, bad = _decoded(_NODES, piece)
        kept = rows[: MAX_NODES - len(nodes)]
        nodes += map(_node, kept)
        lost += bad + len(rows) - len(kept)
        await asyncio.sleep(0)
    refuse(answer.errors, target, bool(nodes))
    return Nodes(nodes, lost)


def read_diagnosis(body: bytes, target: str) -> Diagnosis:
    """Of ``/diag``. Raises Garbled."""
    try:
        answer = _HEAD.decode(as_text(body))
    except msgspec.MsgspecError as error:
        raise _garbled(target, str(error)) from None
    refuse(answer.errors, target, answer.statistics is not None)
    said = answer.statistics if isinstance(answer.statistics, dict) else {}
    rpcs = said.get("rpcs_by_message_type")
    counts = {}
    for one in rpcs[:1000] if isinstance(rpcs, list) else ():
        count = number(one.get("count")) if isinstance(one, dict) else None
        if count is not None:
            counts[str(one.get("message_type"))[:64]] = int(count)
    threads, agents = number(said.get("server_thread_count")), number(said.get("agent_queue_size"))
    return Diagnosis(
        words.moment(number(said.get("req_time"))),
        None if threads is None else int(threads),
        None if agents is None else int(agents),
        counts,
    )


def problems_of(body: bytes) -> list[Problem]:
    """What an answer says is wrong; nothing where it is no JSON."""
    try:
        return _HEAD.decode(as_text(body)).errors or []
    except msgspec.MsgspecError:
        return []


def refuse(errors: Sequence[Problem] | None, target: str, has_some: bool) -> None:
    """Raises what slurmctld says is wrong, where that is all it says."""
    if errors and not has_some:
        from coldaisle.sources.slurm.problems import problem_said

        raise problem_said(target, "; ".join(map(str, errors[:3])))


def number(value: Any) -> float | None:
    """Of a plain number or ``{"set", "infinite", "number"}``; None: unset, unlimited, or something else."""
    if isinstance(value, dict):
        if value.get("infinite") or value.get("set") is False:
            return None
        value = value.get("number")
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return None if value in _UNSET else float(value)


# --- pieces ---------------------------------------------------------------------------------------


def as_text(body: bytes) -> bytes:
    """Names may have been written in any encoding; JSON must be UTF-8. What a command warns of before it, is cut off."""
    start = body.find(b"{")
    if start > 0:
        line = re.search(rb"^[ \t]*\{", body, re.MULTILINE)
        body = body[line.start() if line else start :]
    try:
        body.decode("utf-8")
    except UnicodeDecodeError:
        return body.decode("utf-8", "replace").encode("utf-8")
    return body


def _pieces(body: bytes, key: bytes, target: str) -> Iterator[bytes | _Answer]:
    """An answer's list as lists of about PIECE_BYTES, and what stands before and behind it.

    Between two elements stands ``},{"first key":``. No text can hold that: its quotes would be escaped.
    """
    opened = re.search(rb'"%b"\s*:\s*\[' % key, body)
    first = re.compile(rb'\s*\{\s*"(\w+)"\s*:').match(body, opened.end()) if opened else None
    if opened is None or first is None:
        yield _head(body, target)
        return
    boundary = re.compile(rb'\}\s*,\s*\{\s*"%b"\s*:' % first[1])
    start, sought = opened.end(), opened.end()
    while sought + PIECE_BYTES < len(body):
        found = boundary.search(body, sought + PIECE_BYTES)
        if found is None:
            break
        yield b"[" + body[start : found.start() + 1] + b"]"
        sought = found.end()
        start = body.index(b"{", found.start() + 1)
    yield _head(body[: opened.end()] + b"]}", target)
    yield from _tail(body, start, key, target)


def _tail(body: bytes, start: int, key: bytes, target: str) -> Iterator[bytes | _Answer]:
    """The last elements, and what stands behind the list."""
    document = b'{"%b":[' % key + body[start:]
    try:
        rows: Raw = msgspec.json.decode(document, type=_RAW_OF[key]).rows
    except msgspec.MsgspecError as error:
        raise _garbled(target, str(error)) from None
    yield bytes(rows)
    yield _head(document, target)


class _RawJobs(Struct):
    rows: Raw = msgspec.field(name="jobs")


class _RawNodes(Struct):
    rows: Raw = msgspec.field(name="nodes")


_RAW_OF: dict[bytes, Any] = {b"jobs": _RawJobs, b"nodes": _RawNodes}


def _head(body: bytes, target: str) -> _Answer:
    try:
        return _HEAD.decode(body)
    except msgspec.MsgspecError as error:
        raise _garbled(target, str(error)) from None


def _joined(one: _Answer, other: _Answer) -> _Answer:
    return _Answer(
        [*(one.errors or []), *(other.errors or [])],
        other.last_update or one.last_update,
        other.meta or one.meta,
        other.statistics or one.statistics,
    )


def _decoded(decoder: msgspec.json.Decoder[Any], piece: bytes) -> tuple[list[Any], int]:
    """(elements, how many could not be read): one odd job does not hide the others."""
    try:
        return decoder.decode(piece), 0
    except msgspec.MsgspecError:
        pass
    try:
        raws = msgspec.json.decode(piece, type=list[Raw])
    except msgspec.MsgspecError:
        return [], 1
    one = msgspec.json.Decoder(_Job if decoder is _JOBS else _Node)
    rows, bad = [], 0
    for raw in raws:
        try:
            rows.append(one.decode(raw))
        except msgspec.MsgspecError:
            bad += 1
    return rows, bad


def _garbled(target: str, why: str) -> Garbled:
    return Garbled(target, f"half an answer, or none that can be read: {why[:120]}", "ask it by hand and see")


# --- jobs -----------------------------------------------------------------------------------------


def _job(one: _Job) -> SlurmJob:
    state, is_waiting, is_holding = words.job_state(_texts(one.job_state))
    names = words.hosts(one.nodes) if is_holding or not is_waiting else ()
    counts, wanted = words.tres(one.tres_alloc_str), words.tres(one.tres_req_str)
    nodes_asked = _whole(one.node_count)
    boards, gpus, shares = _boards(one, names) if is_holding else ((), None, None)
    asked = words.gpus_of(wanted)
    if asked is None:
        asked = _asked(one, nodes_asked)
    if not is_waiting and gpus is None:
        gpus = words.gpus_of(counts)
    limit = number(one.time_limit)
    cpus = _whole(one.cpus)
    return SlurmJob(
        one.job_id,
        _display(one),
        (one.name or "")[:MAX_WORDS],
        one.user_name or (str(one.user_id) if isinstance(one.user_id, int) else ""),
        words.given(one.account),
        words.given(one.partition),
        words.given(one.qos),
        state,
        is_waiting,
        is_holding,
        _reason(one),
        words.moment(number(one.submit_time)),
        words.moment(number(one.eligible_time)),
        words.moment(number(one.start_time)),
        words.moment(number(one.end_time)),
        None if limit is None else limit * 60.0,
        names,
        boards,
        asked if is_waiting else gpus,
        shares if is_holding else None,
        cpus if is_waiting or "cpu" not in counts else int(counts["cpu"]),
        _memory(one, wanted, nodes_asked) if is_waiting else _bytes(counts, "mem"),
        asked,
        int(wanted["cpu"]) if "cpu" in wanted else None,
        _memory(one, wanted, nodes_asked),
        nodes_asked,
        words.given(one.dependency),
        words.tasks(one.array_task_string) if is_waiting else 1,
        _whole(one.restart_cnt),
    )


def _display(one: _Job) -> str:
    array, het = _whole(one.array_job_id), _whole(one.het_job_id)
    task = _whole(one.array_task_id)
    if array and task is not None:
        return f"{array}_{task}"
    if array and words.is_given(one.array_task_string):
        return f"{array}_[{(one.array_task_string or '')[:40]}]"
    if het:
        return f"{het}+{_whole(one.het_job_offset) or 0}"
    return str(one.job_id)


def _reason(one: _Job) -> str | None:
    said = words.given(one.state_description) or words.given(one.state_reason)
    return said[:MAX_WORDS] if said else None


def _boards(one: _Job, names: tuple[str, ...]) -> tuple[tuple[Board, ...], int | None, int | None]:
    """(boards by node, GPUs, shares). ``gres_detail`` follows the nodes in the controller's order, which is not that of names."""
    details = one.gres_detail or ()
    if not details:
        return (), None, None
    order = _order(one.job_resources) or names
    if len(order) != len(details):
        order = ()
    boards, gpus, shares = [], 0, 0
    for place, detail in enumerate(details[:MAX_NODES]):
        for held in words.held_gres(detail):
            is_share = held.name in ("shard", "mps")
            if not is_share and held.name != "gpu":
                continue
            gpus, shares = (gpus, shares + held.number) if is_share else (gpus + held.number, shares)
            if held.indices and order:
                boards.append(Board(order[place], held.indices, is_mig_type(held.type)))
    return tuple(boards), gpus if gpus or not shares else None, shares or None


def _order(resources: _Resources | None) -> tuple[str, ...]:
    """Names of a job's nodes in the controller's order; empty: not told."""
    if resources is None:
        return ()
    try:
        if bytes(resources.nodes).startswith(b"{"):
            listed = _ALLOCATION.decode(resources.nodes).allocation or []
        elif bytes(resources.allocated_nodes).startswith(b"["):
            listed = _NAMES.decode(resources.allocated_nodes)
        else:
            return ()
    except msgspec.MsgspecError:
        return ()
    names = tuple(node.name or node.nodename or "" for node in listed)
    return names if all(names) else ()


def _asked(one: _Job, nodes: int | None) -> int | None:
    """GPUs that a job asks for, from whichever option it was asked by; 0: none. None: that depends."""
    if total := words.asked(one.tres_per_job):
        return total
    if per_node := words.asked(one.tres_per_node):
        return per_node * nodes if nodes else None
    if per_task := words.asked(one.tres_per_task):
        tasks = _whole(one.tasks)
        return per_task * tasks if tasks else None
    return 0


def _memory(one: _Job, wanted: dict[str, float], nodes: int | None) -> int | None:
    found = _bytes(wanted, "mem")
    per_node = number(one.memory_per_node)
    if found is None and per_node and per_node < _NO_MEMORY and nodes:
        return int(per_node) * nodes * _MIB
    return found


def _bytes(counts: dict[str, float], name: str) -> int | None:
    return int(counts[name]) if name in counts else None


def _whole(value: Any) -> int | None:
    found = number(value)
    return None if found is None else int(found)


def _texts(value: Any) -> list[str]:
    if isinstance(value, str):
        return [value]
    return [text for text in value if isinstance(text, str)] if isinstance(value, list) else []


# --- nodes ----------------------------------------------------------------------------------------


def _node(one: _Node) -> SlurmNode:
    state, flags = words.node_state([*_texts(one.state), *(one.state_flags or [])])
    memory, used = number(one.real_memory), number(one.alloc_memory)
    return SlurmNode(
        one.name,
        words.given(one.hostname),
        words.given(one.address),
        state,
        flags,
        (words.given(one.reason) or "")[:MAX_WORDS],
        words.given(one.reason_set_by_user),
        words.moment(number(one.reason_changed_at)),
        words.configured_gres(one.gres),
        gpus_given_away(one.gres_used, one.tres_used),
        _whole(one.cpus),
        _whole(one.alloc_cpus),
        None if memory is None else int(memory) * _MIB,
        None if used is None else int(used) * _MIB,
        _features(one.active_features) or _features(one.features),
        tuple(one.partitions or ())[:100],
        words.moment(number(one.boot_time)),
        words.given(one.operating_system),
        words.given(one.topology),
    )


def gpus_given_away(gres_used: str | None, tres_used: str | None) -> int | None:
    """By the GRES themselves; else by TRES, which counts GPUs only where the site wants that. None: not told."""
    if words.is_given(gres_used):
        return sum(held.number for held in words.held_gres(gres_used) if held.name == "gpu")
    return words.gpus_of(words.tres(tres_used))


def _features(value: Any) -> tuple[str, ...]:
    texts = value.split(",") if isinstance(value, str) else _texts(value)
    return tuple(text.strip()[:100] for text in texts[:100] if words.is_given(text.strip()))
