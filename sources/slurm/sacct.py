"""Accounting of weeks for an audit: what ``sacct --parsable2`` printed into a file, or prints now.

One command makes the file (:func:`command`); a file with other columns, in another order, with another separator between them
is read as well, as long as its first line names them. Lines of job steps give their job the memory that was touched.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from coldaisle.sources.errors import ConfigError
from coldaisle.sources.slurm import words
from coldaisle.sources.slurm.records import MAX_WORDS, SlurmJob

FIELDS = (
    "JobIDRaw", "JobID", "User", "Account", "Partition", "State", "Submit", "Eligible", "Start", "End",
    "TimelimitRaw", "NNodes", "NodeList", "AllocTRES", "ReqTRES", "TotalCPU", "TRESUsageInTot", "JobName",
)  # fmt: skip
"""The name is last: it alone may hold a separator."""
MAX_LINES = 20_000_000
MAX_LINE = 1_000_000
MAX_ACCOUNTED = 2_000_000
MAX_GPUS = 1_000_000
_SEPARATORS = ("|", "\x1f", "\t", ",", ";")
_ID = re.compile(r"([0-9]{1,12}(?:_(?:[0-9]{1,9}|\[[^\]]*\]))?(?:\+[0-9]{1,6})?)(?:\.(.+))?", re.ASCII)
_CPU = re.compile(r"(?:([0-9]{1,6})-)?(?:([0-9]{1,6}):)?([0-9]{1,6}):([0-9]{1,2})(?:\.([0-9]+))?", re.ASCII)


class Accounted(NamedTuple):
    """A job as accounting has it; a requeued one is there once a run. None: not told."""

    id: str
    """Raw, where it is told."""
    name: str
    user: str
    account: str
    partition: str
    state: str
    submitted: float | None
    eligible: float | None
    start: float | None
    end: float | None
    limit_s: float | None
    nodes: tuple[str, ...]
    gpus: int | None
    """Held; of one that never ran, asked for. None: accounting does not count GPUs, or it had none."""
    cpus: int | None
    memory_asked: int | None
    memory_used: int | None
    """High water of all its tasks together."""
    cpu_s: float | None


class Accounting(NamedTuple):
    """What was read."""

    jobs: list[Accounted]
    left_out: int = 0
    """Lines that are none of a job or step."""
    is_cut: bool = False
    """There was more than is kept."""


def command(start: str, end: str = "now", file: str = "sacct.txt") -> str:
    """What a person types to make the file; it is read-only, and asks slurmdbd alone."""
    return (
        f"SLURM_TIME_FORMAT=%s sacct --allusers --duplicates --parsable2 --starttime={start} --endtime={end} "
        f"--format={','.join(FIELDS)} > {file}"
    )


def options(start: str, end: str) -> list[str]:
    """The same for whoever runs it without a shell; times in seconds since the epoch by SLURM_TIME_FORMAT."""
    return [
        "sacct", "--allusers", "--duplicates", "--parsable2", "--local", f"--starttime={start}", f"--endtime={end}",
        f"--format={','.join(FIELDS)}",
    ]  # fmt: skip


def read_file(path: Path) -> Accounting:
    """Raises ConfigError for a file that is none, or none of sacct's."""
    try:
        with path.open("rb") as file:
            lines = (raw.decode("utf-8", "replace") for raw in _lines(file))
            return read(lines, str(path))
    except OSError as error:
        raise ConfigError(f"--sacct {path}: {error.strerror}", "check the path and its permissions") from None


def _lines(file: Iterable[bytes]) -> Iterator[bytes]:
    for number, line in enumerate(file):
        if number >= MAX_LINES:
            return
        yield line[:MAX_LINE]


def read(lines: Iterable[str], target: str) -> Accounting:
    """Jobs, each once a run. Raises ConfigError where the first line names no columns that can be read."""
    rows = iter(lines)
    first = next((line.rstrip("\r\n") for line in rows if line.strip()), None)
    if first is None:
        raise ConfigError(f"{target}: the file is empty", f"make it with: {command('now-28days')}")
    columns, separator, rest = _header(first, rows, target)
    jobs: list[Accounted] = []
    newest: dict[str, int] = {}
    left_out = 0
    is_cut = False
    for line in rest:
        cells = _cells(line.rstrip("\r\n"), separator, len(columns))
        cell = dict(zip(columns, cells, strict=False)) if len(cells) == len(columns) else {}
        match = _ID.fullmatch(cell.get("JobIDRaw", "") or cell.get("JobID", ""))
        if match is None or not cell.get("State"):
            left_out += bool(line.strip())
        elif match[2] is None:
            if len(jobs) >= MAX_ACCOUNTED:
                is_cut = True
                continue
            newest[match[1]] = len(jobs)
            jobs.append(_job(match[1], cell))
        elif match[1] in newest:
            at = newest[match[1]]
            jobs[at] = _with_step(jobs[at], cell)
    if left_out and not jobs:
        raise ConfigError(
            f"{target}: no line of {left_out} is a job that can be read",
            f"make it with: {command('now-28days')}",
        )
    return Accounting(jobs, left_out, is_cut)


def _cells(line: str, separator: str, count: int) -> list[str]:
    """Of a line. Commas stand in lists of nodes and resources, too: they separate where the others are in quotes."""
    if separator != ",":
        return line.split(separator, count - 1)
    try:
        return next(csv.reader([line]), [])
    except csv.Error:
        return []


def _header(first: str, rows: Iterator[str], target: str) -> tuple[list[str], str, Iterator[str]]:
    for separator in _SEPARATORS:
        names = [_canonical(name) for name in first.split(separator)]
        if "State" in names and ("JobIDRaw" in names or "JobID" in names):
            return names, separator, rows
    for separator in _SEPARATORS:
        cells = first.split(separator, len(FIELDS) - 1)
        if len(cells) == len(FIELDS) and _ID.fullmatch(cells[0]):
            return list(FIELDS), separator, _chained(first, rows)
    raise ConfigError(
        f"{target}: its first line names no columns of sacct (JobIDRaw, State, ...)",
        f"make it with: {command('now-28days')}",
    )


def _canonical(name: str) -> str:
    known = _KNOWN.get(name.strip().lower())
    return known or name.strip()


_KNOWN = {
    name.lower(): name for name in (*FIELDS, "AllocCPUS", "ReqCPUS", "NCPUS", "ReqMem", "MaxRSS", "Timelimit",
                                    "AllocGRES", "ReqGRES", "QOS", "ElapsedRaw")
}  # fmt: skip


def _chained(first: str, rows: Iterator[str]) -> Iterator[str]:
    yield first
    yield from rows


def _job(id_: str, cell: Mapping[str, str]) -> Accounted:
    state, is_waiting, _ = words.job_state([cell.get("State", "")])
    given, wanted = words.tres(cell.get("AllocTRES")), words.tres(cell.get("ReqTRES"))
    start, end = words.instant(cell.get("Start")), words.instant(cell.get("End"))
    minutes = cell.get("TimelimitRaw", "")
    limit = (
        float(minutes) * 60
        if minutes.isascii() and minutes.isdigit()
        else words.duration(cell.get("Timelimit"))
    )
    nodes = cell.get("NodeList", "")
    held, asked = words.gpus_of(given), words.gpus_of(wanted)
    if held is None and not given:
        held = words.asked(cell.get("AllocGRES")) or None
        asked = asked if asked is not None else words.asked(cell.get("ReqGRES")) or None
    never_ran = is_waiting or start is None
    cpus = given.get("cpu") or _number(cell.get("AllocCPUS") or cell.get("NCPUS")) or wanted.get("cpu")
    memory = given.get("mem") or wanted.get("mem") or words.size(cell.get("ReqMem", "").rstrip("nc"))
    return Accounted(
        id_,
        cell.get("JobName", "")[:MAX_WORDS],
        words.given(cell.get("User")) or "",
        words.given(cell.get("Account")) or "",
        words.given(cell.get("Partition")) or "",
        state,
        words.instant(cell.get("Submit")),
        words.instant(cell.get("Eligible")),
        start,
        # clocks that differ: it ended, after no time that could be told
        end if end is None or start is None else max(end, start),
        limit,
        () if nodes == "None assigned" else words.hosts(nodes),
        _possible(asked if never_ran and not held else held),
        None if cpus is None else int(cpus),
        None if memory is None else int(memory),
        _used(cell),
        cpu_seconds(cell.get("TotalCPU", "")),
    )


def _possible(gpus: int | None) -> int | None:
    """None for more than any cluster has: one such job would be all that a report shows."""
    return gpus if gpus is None or gpus <= MAX_GPUS else None


def _with_step(job: Accounted, cell: Mapping[str, str]) -> Accounted:
    used = _used(cell)
    return job if used is None else job._replace(memory_used=max(used, job.memory_used or 0))


def _used(cell: Mapping[str, str]) -> int | None:
    memory = words.tres(cell.get("TRESUsageInTot")).get("mem")
    # the largest task's alone where nothing better is told
    return int(memory) if memory else words.size(cell.get("MaxRSS"))


def _number(text: str | None) -> float | None:
    return float(text) if text and text.isascii() and text.isdigit() and len(text) < 10 else None


def cpu_seconds(text: str) -> float | None:
    """``1-02:03:04``, ``03:04.567`` → seconds; None for what is none, or nothing was gathered."""
    match = _CPU.fullmatch(text)
    if match is None:
        return None
    days, hours, minutes, seconds_, part = match.groups()
    total = int(days or 0) * 86400 + int(hours or 0) * 3600 + int(minutes) * 60 + int(seconds_)
    return (float(f"{total}.{part}") if part else float(total)) or None


def of_slurm(job: SlurmJob) -> Accounted:
    """What slurmrestd told of a past job; it does not tell memory and CPU time."""
    return Accounted(
        str(job.id), job.name, job.user, job.account or "", job.partition or "", job.state, job.submitted,
        job.eligible, None if job.is_waiting else job.start, job.end, job.limit_s, job.nodes,
        job.gpus or job.gpus_asked, job.cpus, job.memory, None, None,
    )  # fmt: skip
