"""One value of a snapshot as people read it: shown, with its age and source, or a dash and the reason."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from coldaisle.sources.text import plain
from coldaisle.sources.units import NO_VALUE, age, show

if TYPE_CHECKING:
    from coldaisle.analyzers.finding import Finding
    from coldaisle.analyzers.snapshot import EventView, Snapshot
    from coldaisle.sources.cluster import Gpu, Job, Node

# sources.source and sources.catalog import numpy, which must not load before the first paint:
# the functions here import them when there is data.

ACTIVITY = frozenset(
    {
        "gpu.util", "gpu.mem_util", "gpu.gr_active", "gpu.sm_active", "gpu.sm_occupancy", "gpu.tensor_active",
        "gpu.fp64_active", "gpu.fp32_active", "gpu.fp16_active", "gpu.dram_active", "gpu.mem_used",
        "gpu.mem_free", "gpu.mem_total", "gpu.mem_reserved", "gpu.mem_ratio", "gpu.processes",
    }
)  # fmt: skip
"""What a MIG instance has of its own; the rest it shares with its board."""

THROTTLE: tuple[tuple[int, str, str], ...] = (
    (0x40, "HW thermal", "bad"),
    (0x20, "SW thermal", "bad"),
    (0x80, "power brake", "bad"),
    (0x08, "HW slowdown", "bad"),
    (0x200, "board limit", "warn"),
    (0x400, "reliability", "warn"),
    (0x04, "power cap", "warn"),
    (0x10, "sync boost", "text"),
    (0x02, "user clocks", "text"),
    (0x100, "display clocks", "text"),
    (0x01, "idle", "dim"),
)
"""NVML's clock-event bits, the worst first: bit, words, token (pynvml.py nvmlClocksEventReason*)."""


_BAD_EVENTS = frozenset({"xid", "oom", "link_down", "gpu_lost", "gpu_hung", "down", "fail"})
_CALM_EVENTS = frozenset({"job_start", "job_end", "alert_over", "gpu_back", "server_up", "inlet_fall"})


@dataclass(frozen=True, slots=True)
class Reading:
    """A value of one entity, or why there is none."""

    key: str
    unit: str
    value: float
    """Canonical unit; NaN: missing."""
    at: float
    """When it was sampled; NaN: never."""
    why: str
    """Why it is missing or old; empty when it is there and fresh."""
    source: str
    """The name of the source it comes from; empty: none."""

    @property
    def name(self) -> str:
        """The key without its entity, in words: ``step time``."""
        return self.key.partition(".")[2].replace("_", " ")

    @property
    def missing(self) -> bool:
        """Whether there is no value at all; a stale one is there."""
        return math.isnan(self.value)

    @property
    def stale(self) -> bool:
        """Whether the value is older than three periods of its source."""
        return bool(self.why) and not self.missing

    @property
    def token(self) -> str:
        """The palette's token for its text."""
        return "dim" if self.missing else "stale" if self.why else "text"

    def text(self, *, ascii_only: bool = False) -> str:
        """``612 W``; ``-`` when missing."""
        return show(self.value, self.unit, ascii_only=ascii_only)

    def number(self) -> str:
        """The value without its unit, where a column's title has it."""
        return NO_VALUE if self.missing else self.text().partition(" ")[0]

    def origin(self, now: float) -> str:
        """``ssh, 4 s ago``, ``stale for 43 s (ssh)`` or why it is missing."""
        if self.missing:
            return self.why
        old = "" if math.isnan(self.at) else age(now - self.at)
        if self.why:
            return f"{self.why}: {old} old ({self.source})"
        return f"{self.source}, {old} ago" if old else self.source


def read(snapshot: Snapshot, key: str, index: int) -> Reading:
    """The value of a metric for the entity at ``index`` of its kind's tuple in the layout.

    A MIG instance reads from its board what belongs to the whole board (power, temperature, clocks).
    """
    from coldaisle.sources.catalog import catalog
    from coldaisle.sources.source import MISSING_TEXT, Missing

    known = catalog().get(key)
    unit = known.unit if known else "1"
    column = snapshot.column(key)
    if key.startswith("gpu.") and key not in ACTIVITY:
        index = board_of(snapshot, index)
    never = _never_exposed(snapshot, key, index)
    if column is None or not 0 <= index < len(column.values):
        return Reading(key, unit, math.nan, math.nan, never or f"no source delivers {key}", "")
    value, reason = float(column.values[index]), Missing(int(column.reason[index]))
    if math.isnan(value) and reason in (Missing.PRESENT, Missing.STALE):
        reason = Missing.NOT_SAMPLED
    source = int(column.source[index])
    name = plain(snapshot.sources[source].name) if source < len(snapshot.sources) else ""
    why = never if never and math.isnan(value) else MISSING_TEXT[reason]
    return Reading(key, unit, value, float(column.at[index]), why, name)


def _never_exposed(snapshot: Snapshot, key: str, index: int) -> str:
    """``not exposed by TGI``, of a metric that an inference server's engine does not have; else empty."""
    servers = snapshot.layout.servers
    if not key.startswith("serve.") or not 0 <= index < len(servers) or key not in servers[index].absent:
        return ""
    return f"not exposed by {plain(servers[index].engine or 'this engine', 24)}"


def server_of(snapshot: Snapshot, gpu: int) -> int | None:
    """The inference server that runs on a GPU or its board: index into Layout.servers; None: none is known to."""
    board = board_of(snapshot, gpu)
    layout = snapshot.layout
    found = (at for at in layout.nodes[layout.gpus[gpu].node].servers if board in layout.servers[at].gpus)
    return next(found, None)


def own_readings(snapshot: Snapshot, kind: str, index: int) -> list[Reading]:
    """What the site itself measures of an entity, of what anybody delivers; ``index`` as in :func:`read`."""
    from coldaisle.sources.catalog import own_metrics
    from coldaisle.sources.source import Kind

    return [read(snapshot, one.key, index) for one in own_metrics(Kind(kind)) if one.key in snapshot.columns]


def job_index(snapshot: Snapshot, gpu: int) -> int:
    """Index into Snapshot.jobs of the job that holds a GPU, or the board of a MIG instance; -1: none known."""
    index = int(snapshot.gpu_job[gpu])
    if index < 0 and (parent := snapshot.layout.gpus[gpu].parent) >= 0:
        index = int(snapshot.gpu_job[parent])
    return index if index < len(snapshot.jobs) else -1


def board_of(snapshot: Snapshot, index: int) -> int:
    """The board that a GPU is, or is a MIG instance of."""
    gpus = snapshot.layout.gpus
    parent = gpus[index].parent if 0 <= index < len(gpus) else -1
    return parent if parent >= 0 else index


def throttle_words(bits: float) -> tuple[tuple[str, str], ...]:
    """Clock-event bits as (words, token), the worst first; empty for none and for a missing value."""
    if math.isnan(bits):
        return ()
    mask = int(bits)
    return tuple((words, token) for bit, words, token in THROTTLE if mask & bit)


def status_word(code: int) -> tuple[str, str]:
    """A node's or a GPU's Status as (word, token)."""
    return (
        (("unknown", "dim"), ("ok", "ok"), ("stale", "stale"), ("lost", "lost"))[code]
        if 0 <= code < 4
        else ("?", "dim")
    )


def why_silent(snapshot: Snapshot, index: int) -> str:
    """What a source says of a node that it cannot hear: a changed host key, a port nobody listens on; or ""."""
    from coldaisle.sources.source import TargetState

    node = snapshot.layout.nodes[index]
    names = {node.key, node.hostname, *node.aliases}
    unheard = (TargetState.FAILING, TargetState.DENIED, TargetState.SKIPPED)
    for source in snapshot.sources if snapshot.live else ():
        for target in source.targets:
            if target.state in unheard and target.detail and names.intersection(target.nodes):
                return plain(target.detail)
    return ""


def event_words(kind: str) -> str:
    """A kind of event as people say it: ``job started`` for ``job_start``."""
    from coldaisle.analyzers.happenings import kind_words

    return plain(kind_words(kind), 24)


def event_token(kind: str) -> str:
    """The palette's token for a kind of event: what is broken, what deserves a look, what is in the order of things."""
    return "bad" if kind in _BAD_EVENTS else "text" if kind in _CALM_EVENTS else "warn"


def entity_words(key: str) -> str:
    """The key of an entity as people say it: ``job 4711`` for ``slurm:4711``, ``team-a/llama`` of Kubernetes."""
    if key.startswith("slurm:"):
        return plain(f"job {key.removeprefix('slurm:')}")
    if key.startswith("k8s:"):
        namespace, _, rest = key.removeprefix("k8s:").partition("/")
        return plain(f"{namespace}/{rest.partition('/')[2] or rest}")
    node, _, part = key.partition("/")
    return plain(part if part.startswith(f"{node}:") else key)  # an endpoint has its node's name already


def whose(event: EventView) -> str:
    """Whom an event is of, as people say it; of a task of an array ``job 4700_3``."""
    return _called(event.entity, event.job)


def who_has_to_act(snapshot: Snapshot, finding: Finding) -> str:
    """``hardware; job owner kim (proj-moe)``: whose turn it is, and whose jobs it touches, three at most by name."""
    ids = {*finding.scope.jobs, *finding.victims.jobs}
    told = (
        plain(f"{job.user} ({job.account})" if job.account else job.user, 40)
        for job in snapshot.jobs
        if job.id in ids and job.user
    )
    owner, names = plain(finding.owner, 40), list(dict.fromkeys(told))
    if not names:
        return owner
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    owners = f"job owner{'s' * (len(names) > 1)} {', '.join(names[:3])}{more}"
    return owners if owner == "job owner" else f"{owner}; {owners}"


def is_same_day(at: float, now: float) -> bool:
    """Whether an instant is of the day of another, where this machine stands."""
    return time.localtime(at)[:3] == time.localtime(now)[:3]


def clock(at: float, now: float) -> str:
    """``03:12:41``, or ``28 Feb`` of another day, in eight cells."""
    return time.strftime("%H:%M:%S" if is_same_day(at, now) else "%d %b  ", time.localtime(at))


def who_was(snapshot: Snapshot, key: str) -> str:
    """A job that may be gone, by its id, as people say it: then as its last event has it."""
    there = (job for job in (*snapshot.jobs, *snapshot.queue) if job.id == key)
    told = (event.job for event in reversed(snapshot.events) if event.entity == key and event.job is not None)
    return _called(key, next(there, None) or next(told, None))


def _called(key: str, job: Job | None) -> str:
    return plain(f"job {job.display}") if job is not None and job.display else entity_words(key)


def job_words(job: Job) -> str:
    """A job's id, user and name; a Kubernetes workload's title says all of it: ``team-a/llama (PyTorchJob)``."""
    if job.workload_key is not None:
        return plain(job.title)
    return " ".join(filter(None, (plain(job.title), plain(job.user), plain(job.name))))


def jobs_on(snapshot: Snapshot, node: Node) -> list[Job]:
    """Jobs that hold GPUs of a node, then those that are there without anybody saying which GPUs they hold."""
    held = dict.fromkeys(int(snapshot.gpu_job[gpu]) for gpu in node.gpus)
    jobs = [snapshot.jobs[number] for number in held if number >= 0]
    return jobs + [job for job in snapshot.jobs if not job.gpus and node.key in job.nodes]


def gpu_name(gpu: Gpu) -> str:
    """The part of a GPU's key that tells it from its neighbours: ``5``, ``5:gi1``."""
    return gpu.key.rpartition("/")[2]


def edge(snapshot: Snapshot) -> str:
    """What stands under the right end of a chart: now, or the instant that is shown."""
    return "now" if snapshot.live else time.strftime("%H:%M:%S", time.localtime(snapshot.at))


def latest(snapshot: Snapshot, seen: float) -> str:
    """How long ago something was heard of, or that it never was."""
    return "never" if math.isnan(seen) else age(snapshot.at - seen)


def server_name(snapshot: Snapshot, server: int) -> str:
    """``n03:8000``: its node and port where the endpoint says no more than that, else the endpoint."""
    known = snapshot.layout.servers[server]
    node = snapshot.layout.nodes[known.node]
    host, _, port = known.name.rpartition(":")
    here = host in (node.key, node.hostname, "localhost", "") or host.startswith("127.")
    return plain(f"{node.key}:{port}" if here else known.name)


def served(snapshot: Snapshot, server: int) -> str:
    """An inference server in the words of the GPU that it runs on: ``serves chat-70b (n03:8000)``."""
    known = snapshot.layout.servers[server]
    name = known.service or known.model or known.engine or "requests"
    return f"serves {plain(name, 30)} ({server_name(snapshot, server)})"
