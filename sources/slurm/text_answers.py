"""What Slurm's commands print where they have no JSON: ``scontrol -o -d show job`` and ``node``, ``sdiag``, as records.

One line a job or a node, ``Key=Value`` between spaces; but values may hold spaces, too, and a job's name is
anybody's text. So a job is read around its name: what stands before it is fixed, what stands behind it is looked for from the end.
"""

from __future__ import annotations

import re

from coldaisle.sources.registry import is_mig_type
from coldaisle.sources.slurm import words
from coldaisle.sources.slurm.json_answers import gpus_given_away
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

_MIB = 1024 * 1024
_JOB = re.compile(
    r"JobId=(?P<id>[0-9]{1,12})(?: ArrayJobId=(?P<array>[0-9]+))?(?: ArrayTaskId=(?P<task>\S+))?(?: ArrayTaskThrottle=\S+)?"
    r"(?: HetJobId=(?P<het>[0-9]+))?(?: HetJobOffset=(?P<offset>[0-9]+))?(?: HetJobIdSet=\S+)?"
    r" JobName=(?P<name>.*) UserId=(?P<user>\S*?)\([0-9]+\) GroupId=\S* MCS_label=",
)
_TIMES = ("SubmitTime", "EligibleTime", "StartTime", "EndTime")
_DETAIL = re.compile(r" Nodes=(\S+) CPU_IDs=\S* Mem=\S* GRES=(\S*)")
_REASON = re.compile(r"(?P<text>.*?)(?: \[(?P<by>[^@\]\s]*)@(?P<at>[^\]]*)\])?", re.DOTALL)
_RPC = re.compile(r"^\s+([A-Z][A-Z0-9_]{2,63})\s+\(\s*\d+\) count:(\d+)", re.MULTILINE)


def read_jobs(body: bytes) -> Jobs:
    """The lines of ``scontrol -o -d show job``. A line that is none is counted; of two of one number the first is kept."""
    jobs: dict[int, SlurmJob] = {}
    lost = 0
    for line in body.decode("utf-8", "replace").split("\n"):
        if not line.startswith("JobId="):
            continue
        job = _job(line) if len(jobs) < MAX_JOBS else None
        if job is None or job.id in jobs:
            lost += 1
        else:
            jobs[job.id] = job
    return Jobs(list(jobs.values()), None, lost)


def read_nodes(body: bytes) -> Nodes:
    """The lines of ``scontrol -o -d show node``."""
    nodes: list[SlurmNode] = []
    lost = 0
    for line in body.decode("utf-8", "replace").split("\n"):
        if line.startswith("NodeName="):
            node = _node(line) if len(nodes) < MAX_NODES else None
            lost += node is None
            nodes += [node] if node is not None else []
    return Nodes(nodes, lost)


def read_diagnosis(body: bytes) -> Diagnosis:
    """Of ``sdiag``."""
    text = body[:1_000_000].decode("utf-8", "replace")
    clock = re.search(r"^sdiag output at .*\((\d{1,12})\)", text, re.MULTILINE)
    rest = text.partition("Remote Procedure Call statistics by message type")[2]
    by_kind = rest.partition("Remote Procedure Call statistics by user")[0]
    return Diagnosis(
        words.moment(float(clock[1])) if clock else None,
        _count(text, "Server thread count"),
        _count(text, "Agent queue size"),
        {name: int(count) for name, count in _RPC.findall(by_kind)},
    )


def _count(text: str, name: str) -> int | None:
    found = re.search(rf"^{name}:\s+(\d{{1,9}})", text, re.MULTILINE)
    return int(found[1]) if found else None


def _value(text: str, key: str) -> str | None:
    """Up to the next space; None: it is not there, or is a word for nothing."""
    at = text.find(f" {key}=")
    if at < 0:
        return None
    start = at + len(key) + 2
    end = text.find(" ", start)
    return words.given(text[start : end if end >= 0 else len(text)])


def _job(line: str) -> SlurmJob | None:
    # the name ends before the last " UserId=" that stands before the first path, which is anybody's text again
    found = _JOB.match(line.partition(" Command=")[0]) or _JOB.match(line)
    if found is None or " Partition=" not in line[found.end() :]:
        return None  # half of one whose name holds a line break
    text = line[found.end() - 1 :]
    state, is_waiting, is_holding = words.job_state([_value(text, "JobState") or ""])
    submitted, eligible, start, end = (words.instant(_value(text, key)) for key in _TIMES)
    names = words.hosts(_value(text, "NodeList")) if not is_waiting else ()
    given = words.tres(_value(text, "AllocTRES") or _value(text, "TRES"))
    wanted = words.tres(_value(text, "ReqTRES") or (_value(text, "TRES") if is_waiting else None))
    boards, gpus, shares = _boards(text) if is_holding else ((), None, None)
    nodes_asked = _whole((_value(text, "NumNodes") or "").partition("-")[0])
    asked = words.gpus_of(wanted)
    if asked is None:
        asked = _asked(text, nodes_asked)
    reason = _value(text, "Reason")
    return SlurmJob(
        int(found["id"]),
        _display(found),
        found["name"][:MAX_WORDS],
        found["user"],
        _value(text, "Account"),
        _value(text, "Partition"),
        _value(text, "QOS"),
        state,
        is_waiting,
        is_holding,
        reason[:MAX_WORDS] if reason else None,
        submitted,
        eligible,
        start,
        end,
        words.duration(_value(text, "TimeLimit")),
        names,
        boards,
        asked if is_waiting else gpus if gpus is not None else words.gpus_of(given),
        shares,
        _whole(_value(text, "NumCPUs")),
        int(given["mem"]) if "mem" in given else None,
        asked,
        int(wanted["cpu"]) if "cpu" in wanted else None,
        int(wanted["mem"]) if "mem" in wanted else None,
        nodes_asked,
        _value(text, "Dependency"),
        words.tasks(found["task"]) if is_waiting else 1,
        _whole(_value(text, "Restarts")),
    )


def _display(found: re.Match[str]) -> str:
    if found["array"] and found["task"] and found["task"] != str(0xFFFFFFFE):
        task = found["task"]
        return f"{found['array']}_{task}" if task.isdigit() else f"{found['array']}_[{task[:40]}]"
    if found["het"]:
        return f"{found['het']}+{found['offset'] or 0}"
    return found["id"]


def _boards(text: str) -> tuple[tuple[Board, ...], int | None, int | None]:
    """(boards by node, GPUs, shares) of the lines that ``-d`` adds."""
    boards, gpus, shares, told = [], 0, 0, False
    for nodes, gres in _DETAIL.findall(text):
        names = words.hosts(nodes)
        for held in words.held_gres(gres):
            is_share = held.name in ("shard", "mps")
            if not is_share and held.name != "gpu":
                continue
            told = True
            number = held.number * len(names)
            gpus, shares = (gpus, shares + number) if is_share else (gpus + number, shares)
            if held.indices:
                boards += [Board(name, held.indices, is_mig_type(held.type)) for name in names]
    return tuple(boards), gpus if told and (gpus or not shares) else None, shares or None


def _asked(text: str, nodes: int | None) -> int | None:
    if total := words.asked(_value(text, "TresPerJob")):
        return total
    if per_node := words.asked(_value(text, "TresPerNode")):
        return per_node * nodes if nodes else None
    if per_task := words.asked(_value(text, "TresPerTask")):
        tasks = _whole(_value(text, "NumTasks"))
        return per_task * tasks if tasks else None
    return 0


def _whole(text: str | None) -> int | None:
    return int(text) if text and text.isascii() and text.isdigit() and len(text) < 15 else None


def _node(line: str) -> SlurmNode | None:
    text = f" {line}"
    name = _value(text, "NodeName")
    if name is None:
        return None
    state, flags = words.node_state(words.node_words(_value(text, "State") or ""))
    reason = _REASON.fullmatch(text.partition(" Reason=")[2].strip())
    system = re.search(r" OS=(.*?)(?= +[A-Z]\w*=)", text)
    memory, used = _whole(_value(text, "RealMemory")), _whole(_value(text, "AllocMem"))
    return SlurmNode(
        name,
        _value(text, "NodeHostName"),
        _value(text, "NodeAddr"),
        state,
        flags,
        reason["text"][:MAX_WORDS] if reason else "",
        words.given(reason["by"]) if reason else None,
        words.instant(reason["at"]) if reason else None,
        words.configured_gres(_value(text, "Gres")),
        gpus_given_away(_value(text, "GresUsed"), _value(text, "AllocTRES")),
        _whole(_value(text, "CPUTot")),
        _whole(_value(text, "CPUAlloc")),
        None if memory is None else memory * _MIB,
        None if used is None else used * _MIB,
        _list(_value(text, "ActiveFeatures") or _value(text, "AvailableFeatures")),
        _list(_value(text, "Partitions")),
        words.instant(_value(text, "BootTime")),
        system[1] if system else None,
        _value(text, "Topology"),
    )


def _list(text: str | None) -> tuple[str, ...]:
    return tuple(part[:100] for part in text.split(",")[:100]) if text else ()
