"""Slurm's own commands, wherever they are run: what is asked, by which of them, and what a failure means."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple, Protocol

from coldaisle.sources.errors import SourceError, Unusable
from coldaisle.sources.slurm import json_answers, partitions, text_answers
from coldaisle.sources.slurm.accounting import FIELDS, SEPARATOR, read_sacct
from coldaisle.sources.slurm.problems import problem_said
from coldaisle.sources.slurm.records import Diagnosis, Jobs, Nodes, Partitions, SlurmJob, Topology
from coldaisle.sources.slurm.sacct import Accounting, options, read
from coldaisle.sources.slurm.topology import read_conf
from coldaisle.sources.text import plain

MAX_ANSWER = 400_000_000
"""Bytes; 20,000 jobs of a release that tells of every core have 100 MB."""
MAX_SMALL = 16_000_000
LIKES_IT_OTHERWISE = (
    "SQUEUE_FORMAT", "SQUEUE_FORMAT2", "SQUEUE_STATES", "SQUEUE_PARTITION", "SQUEUE_USERS", "SQUEUE_SORT",
    "SQUEUE_ACCOUNT", "SQUEUE_CLUSTERS", "SINFO_FORMAT", "SINFO_PARTITION", "SINFO_SORT", "SACCT_FORMAT",
    "SCONTROL_FUTURE", "SLURM_CLUSTERS", "SLURM_BITSTR_LEN", "SLURM_JSON", "SLURM_YAML",
)  # fmt: skip
"""A user's settings that would change what the commands print."""
SETTINGS = {"LC_ALL": "C", "SLURM_TIME_FORMAT": "%s"}
_PARSERS = ((23, 11, 40), (24, 5, 41), (24, 11, 42), (25, 5, 43), (25, 11, 44))
"""(year, month, the newest JSON parser that this release and we know)"""
_NO_JSON = re.compile(
    r"(?i)unrecognized option|unknown option|invalid option|serializer|json|plugin|data_parser|usage:"
)


class Output(NamedTuple):
    """What a command printed and how it ended."""

    status: int
    out: bytes
    err: bytes


class Runner(Protocol):
    """Who runs a command, without a shell that reads its words."""

    target: str

    async def run(self, command: Sequence[str], *, seconds: float, most: int) -> Output:
        """With SETTINGS, and without what LIKES_IT_OTHERWISE. Raises SourceError."""
        ...

    async def aclose(self) -> None:
        """End what was kept open."""
        ...


class Release(NamedTuple):
    """``slurm 22.05.8``"""

    year: int
    month: int
    text: str

    @property
    def has_json(self) -> bool:
        return (self.year, self.month) >= (21, 8)

    @property
    def has_json_of_nodes(self) -> bool:
        """Of scontrol; before that, of sinfo."""
        return (self.year, self.month) >= (23, 2)

    @property
    def json(self) -> str:
        """The option: pinned to a shape where there are several."""
        known = [parser for year, month, parser in _PARSERS if (year, month) <= (self.year, self.month)]
        return f"--json=v0.0.{known[-1]}" if known else "--json"


class Commands:
    """A door (see :class:`~coldaisle.sources.slurm.door.Door`)."""

    def __init__(self, runner: Runner, timeout: float) -> None:
        self.target = runner.target
        self.what = "Slurm's commands"
        self._runner = runner
        self._seconds = timeout
        self._release: Release | None = None
        self._is_text = False
        """JSON was tried in vain."""
        self._is_pinned = True

    async def jobs(self) -> Jobs | None:
        """By squeue where it speaks JSON, else by scontrol: one request."""
        release = await self._known()
        if release.has_json and not self._is_text:
            out = await self._json(["squeue", "--all", "--local", "--states=all"])
            if out is not None:
                self.what = f"Slurm {release.text}, JSON"
                return await json_answers.read_jobs(out, self.target)
        self.what = f"Slurm {release.text}, text"
        out = await self._ask(["scontrol", "--all", "--local", "-o", "-d", "show", "job"], MAX_ANSWER)
        return text_answers.read_jobs(_whole_lines(out, b"JobId=", b"No jobs in the system", self.target))

    async def nodes(self) -> Nodes:
        """Two requests: the partitions, too."""
        release = await self._known()
        if release.has_json and not self._is_text:
            command = (
                ["scontrol", "--all", "show", "nodes"] if release.has_json_of_nodes else ["sinfo", "--all"]
            )
            out = await self._json(command)
            if out is not None:
                return await json_answers.read_nodes(out, self.target)
        out = await self._ask(["scontrol", "--all", "-o", "-d", "show", "node"], MAX_ANSWER)
        return text_answers.read_nodes(
            _whole_lines(out, b"NodeName=", b"No nodes in the system", self.target)
        )

    async def partitions(self) -> Partitions:
        """By scontrol: one request. sinfo would tell no more, but for which of their nodes are alike."""
        release = await self._known()
        if release.has_json_of_nodes and not self._is_text:
            out = await self._json(["scontrol", "--all", "show", "partitions"])
            if out is not None:
                return partitions.read_json(out, self.target)
        out = await self._ask(["scontrol", "--all", "-o", "show", "partition"], MAX_SMALL)
        return partitions.read_text(
            _whole_lines(out, b"PartitionName=", b"No partitions in the system", self.target)
        )

    async def diagnosis(self) -> Diagnosis:
        """By sdiag; a user who may not ask it is told nothing."""
        return text_answers.read_diagnosis(await self._ask(["sdiag"], MAX_SMALL))

    async def topology(self) -> Topology | None:
        """By scontrol; a cluster without a topology has none."""
        try:
            out = await self._ask(["scontrol", "show", "topology"], MAX_SMALL)
        except Unusable:
            return None
        topology = read_conf(out.decode("utf-8", "replace"), "scontrol show topology")
        return topology if topology.switches else None

    async def past(self, start: float, end: float) -> list[SlurmJob]:
        """By sacct, which asks slurmdbd."""
        command = ["sacct", "--allusers", "--allocations", "--duplicates", "--noheader", "--parsable2"]
        command += [f"--delimiter={SEPARATOR}", f"--format={','.join(FIELDS)}", "--local"]
        command += [f"--starttime={_written(start)}", f"--endtime={_written(end)}"]
        return read_sacct(await self._ask(command, MAX_ANSWER))

    async def accounting(self, start: float, end: float) -> Accounting:
        """By sacct, job steps included: what was touched of memory, and CPU time, too."""
        out = await self._ask(options(_written(start), _written(end)), MAX_ANSWER)
        return read(out.decode("utf-8", "replace").split("\n"), self.target)

    async def aclose(self) -> None:
        """End what was kept open."""
        await self._runner.aclose()

    async def _known(self) -> Release:
        if self._release is None:
            self._release = release_of(await self._ask(["squeue", "--version"], MAX_SMALL), self.target)
        return self._release

    async def _json(self, command: Sequence[str]) -> bytes | None:
        """A command's JSON; None: it has none after all."""
        release = await self._known()
        if release.json != "--json" and self._is_pinned:
            done = await self._run([*command, release.json], MAX_ANSWER)
            if done.status == 0 and b"{" in done.out:
                return done.out
            self._is_pinned = False
        done = await self._run([*command, "--json"], MAX_ANSWER)
        if b"{" in done.out and (done.status == 0 or json_answers.problems_of(done.out)):
            return done.out
        if done.status == 0 or _NO_JSON.search(done.err.decode("utf-8", "replace")):
            self._is_text = True
            return None
        raise self._failed(command, done)

    async def _ask(self, command: Sequence[str], most: int) -> bytes:
        done = await self._run(command, most)
        if done.status != 0:
            raise self._failed(command, done)
        return done.out

    async def _run(self, command: Sequence[str], most: int) -> Output:
        return await self._runner.run(command, seconds=self._seconds, most=most)

    def _failed(self, command: Sequence[str], done: Output) -> SourceError:
        said = (done.err.strip() or done.out.strip())[-2000:].decode("utf-8", "replace")
        if done.status == 127 or re.search(r"(?i)command not found|no such file", said):
            return no_command(self.target, command[0])
        last = plain(said.splitlines()[-1], 200) if said else f"it ended with status {done.status}"
        return problem_said(self.target, f"{command[0]}: {said or last}"[-600:])


def no_command(target: str, name: str) -> Unusable:
    """It is not there."""
    remedy = 'install Slurm\'s client commands there, or name a login node: via = "ssh:login1"'
    return Unusable(target, f"there is no command {name}", remedy)


def release_of(said: bytes, target: str) -> Release:
    """From ``slurm 22.05.8``, also ``slurm-wlm 22.05.8``, behind whatever was printed before."""
    found = re.search(rb"slurm\S*\s+(\d{2})\.(\d{1,2})(?:\.\d+\S*)?", said)
    if found is None:
        text = plain(said[:200], 100)
        raise Unusable(
            target, f"its squeue is not Slurm's: it calls itself {text!r}", "see: squeue --version"
        )
    text = found[0].split()[-1].decode("ascii", "replace")
    return Release(int(found[1]), int(found[2]), text)


def _whole_lines(out: bytes, start: bytes, nothing: bytes, target: str) -> bytes:
    """Raises Garbled where the output is none, or stops in the middle of a line."""
    from coldaisle.sources.errors import Garbled

    if nothing in out[-10_000:] or not out.strip():
        return b""
    if start not in out:
        raise Garbled(
            target, f"that is no answer of Slurm's: {plain(out[:200], 80)!r}", "ask it by hand and see"
        )
    if not out.endswith(b"\n"):
        raise Garbled(target, "half an answer: it stops in the middle of a line", "ask it by hand and see")
    return out


def _written(at: float) -> str:
    """A time as sacct reads it; ``uts`` is known to all releases since 20.02."""
    return f"uts{int(at)}"
