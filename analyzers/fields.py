"""What can be asked of a GPU, a node, a job, a server, a source's target: fields, by the names that people type.

A field is a fact, listed here (a line each), or a metric of the catalogue by its short name (``util``). A fact's name
means the row's own, else that of its GPU, node, job, server or rack, in this order: ``state`` is the job's on a row of
jobs, the node's on a row of GPUs. A metric's name means the same everywhere: the GPU's where GPUs have it, so that
``power>300`` finds the same on every screen; ``node.power`` is the node's.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from enum import StrEnum
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from coldaisle.analyzers.advice.advice import Advice, Refused
from coldaisle.analyzers.finding import Finding
from coldaisle.analyzers.happenings import holder_then, kind_words
from coldaisle.analyzers.partitions import demand_of, hindrance
from coldaisle.analyzers.snapshot import EventView, Snapshot, Status
from coldaisle.analyzers.touching import touching
from coldaisle.sources.catalog import catalog
from coldaisle.sources.cluster import Gpu, Job, Node, Rack, Server
from coldaisle.sources.source import Codes, Partition, Target


class Entity(StrEnum):
    """What a row can be; the value is what stands before the dot of a full name."""

    GPU = "gpu"
    NODE = "node"
    JOB = "job"
    SERVER = "serve"
    RACK = "rack"
    TARGET = "target"
    EVENT = "event"
    PARTITION = "partition"
    FINDING = "finding"
    ADVICE = "advice"


TEXT = "text"
"""Stands where a number's unit would."""

Spellings: TypeAlias = tuple[str, ...]
"""A text as it is shown, then what else it may be called."""
Value: TypeAlias = str | Spellings | float | None


@dataclass(frozen=True, slots=True, eq=False)
class Texts:
    """A column of texts, [entity] each."""

    codes: NDArray[np.intp]
    """Index into ``values``; -1: not known."""
    values: tuple[Spellings, ...]


Column: TypeAlias = Texts | NDArray[np.float32] | NDArray[np.float64]
"""[entity]; of numbers NaN: not known."""


@dataclass(frozen=True, slots=True)
class Fact:
    """A field that is no metric."""

    name: str
    unit: str
    """A unit of the catalogue, or TEXT."""
    help: str
    of: Callable[[Any, Any], Value] | None = None
    """Of an entity and the layout (of a job or partition: and the snapshot); None: not known. Texts may be foreign."""
    is_name: bool = False
    """Compared as names are: node sets, too."""
    column: Callable[[Snapshot], Column] | None = None
    """In place of ``of``: all entities at once, of what is new in every snapshot."""


def _steps(state: str | None, flags: tuple[str, ...] = ()) -> Value:
    """A scheduler's state with its flags: ``IDLE+DRAIN`` is ``drain``, too; Slurm's marks behind a word do not count."""
    if not state:
        return None
    parts = (part.strip("*~#$@!%^- ") for part in state.split("+"))
    return (state, *filter(None, parts), *flags)


def _ids(job: Job) -> tuple[str, ...]:
    """``4700_3``, by which it is shown, its number in the scheduler, and its array's (or whole job's) ``4700``."""
    return (job.title, job.bare_id, job.display.replace("+", "_").partition("_")[0])


def _of_its_job(of: Callable[[Job], Value]) -> Callable[[EventView, Snapshot], Value]:
    """Of the job an event happened to; of a GPU's event: of the one that held the GPU then, as far as it still does."""

    def value(event: EventView, snapshot: Snapshot) -> Value:
        job = event.job if event.job is not None else holder_then(snapshot, event)
        return None if job is None else of(job)

    return value


def _utc(at: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(at))


def _list(texts: tuple[str, ...]) -> Value:
    """Several texts as one, and each by itself."""
    return (",".join(texts), *texts) if texts else None


def _yes(flag: bool | None) -> str | None:
    return None if flag is None else "yes" if flag else "no"


def _span(start: float | None, end: float | None) -> float | None:
    return None if start is None or end is None else max(end - start, 0.0)


def _grade(one: Advice | Refused, _: Snapshot) -> Value:
    return str(one.grade) if isinstance(one, Advice) else None


def _saved(one: Advice | Refused, _: Snapshot) -> Value:
    week = one.saving.gpu_hours_per_week if isinstance(one, Advice) else None
    return None if week is None else week.value


def _action(one: Advice | Refused, _: Snapshot) -> Value:
    return one.action if isinstance(one, Advice) else one.why


_STATUS: tuple[Spellings, ...] = tuple((status.name.lower(),) for status in Status)


def _status(codes: Codes) -> Texts:
    return Texts(codes.astype(np.intp), _STATUS)


def _age(snapshot: Snapshot, seen: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.maximum(snapshot.at - seen, 0.0)


def _uptime(snapshot: Snapshot) -> NDArray[np.float64]:
    booted = [np.nan if node.booted_at is None else node.booted_at for node in snapshot.layout.nodes]
    return _age(snapshot, np.array(booted, dtype=np.float64))


def _sources(snapshot: Snapshot, entity: Entity) -> Texts:
    """Who delivers at least one metric of each entity."""
    told = np.zeros(len(things(snapshot, entity)), dtype=np.uint64)
    for key, column in snapshot.columns.items():
        if key.startswith(f"{entity}.") and len(column.source) == len(told):
            known = (column.source < 63) & ~np.isnan(column.values)
            told |= np.where(known, np.uint64(1) << column.source.astype(np.uint64), np.uint64(0))
    sets, codes = np.unique(told, return_inverse=True)
    spelled = []
    for bits in sets.tolist():
        names = [source.name for number, source in enumerate(snapshot.sources) if bits >> number & 1]
        spelled.append(("+".join(names), *names))
    return Texts(np.where(told == 0, -1, codes).astype(np.intp), tuple(spelled))


def _findings(snapshot: Snapshot, kind: str, size: int) -> Texts:
    """What is wrong with each entity: the detectors of the findings that touch it, the worst first, and their ids."""
    found = touching(snapshot)
    spelled: dict[Spellings, int] = {}
    codes = np.full(size, -1, dtype=np.intp)
    for at, hits in getattr(found, kind).items():
        touched = [found.findings[hit.finding] for hit in hits]
        words = dict.fromkeys([*(one.detector for one in touched), *(one.id for one in touched)])
        codes[at] = spelled.setdefault(tuple(words), len(spelled))
    return Texts(codes, tuple(spelled))


def _severities(snapshot: Snapshot, kind: str, size: int) -> Texts:
    """The worst severity of the findings that touch each entity."""
    found = touching(snapshot)
    codes = np.full(size, -1, dtype=np.intp)
    for at, hits in getattr(found, kind).items():
        codes[at] = max(found.findings[hit.finding].severity for hit in hits)
    return Texts(codes, (("info",), ("warning",), ("critical",)))


def _diagnosed(kind: str, size: Callable[[Snapshot], int]) -> tuple[Fact, ...]:
    return (
        Fact(
            "finding", TEXT, "what is wrong with it: thermal_throttling",
            column=lambda s: _findings(s, kind, size(s)),
        ),
        Fact(
            "severity", TEXT, "the worst of its findings: info, warning, critical",
            column=lambda s: _severities(s, kind, size(s)),
        ),
    )  # fmt: skip


_GPU: tuple[Fact, ...] = (
    Fact("gpu", TEXT, "node and slot: n03/5", lambda gpu, _: gpu.key),
    Fact("slot", "1", "its place in the node", lambda gpu, _: gpu.slot),
    Fact("model", TEXT, "NVIDIA H100 80GB HBM3", lambda gpu, _: gpu.model),
    Fact("uuid", TEXT, "GPU-...", lambda gpu, _: gpu.uuid),
    Fact("pci", TEXT, "PCI address", lambda gpu, _: gpu.pci),
    Fact("serial", TEXT, "serial number", lambda gpu, _: gpu.serial),
    Fact("mig", TEXT, "MIG profile of an instance: 3g.40gb", lambda gpu, _: gpu.mig_profile),
    Fact("status", TEXT, "ok, stale, lost, unknown", column=lambda s: _status(s.gpu_status)),
    Fact("age", "s", "since it was last heard of", column=lambda s: _age(s, s.gpu_seen)),
    Fact("source", TEXT, "which sources tell of it", column=lambda s: _sources(s, Entity.GPU)),
    *_diagnosed("gpus", lambda s: len(s.layout.gpus)),
)
_NODE: tuple[Fact, ...] = (
    Fact(
        "node", TEXT, "its name", lambda node, _: (node.key, node.hostname or "", *node.aliases), is_name=True
    ),
    Fact(
        "state",
        TEXT,
        "the scheduler's: idle, alloc, drain, down",
        lambda node, _: _steps(node.state, node.flags),
    ),
    Fact("reason", TEXT, "why it is drained or down", lambda node, _: node.reason),
    Fact("partitions", TEXT, "Slurm partitions it is in", lambda node, _: _list(node.partitions)),
    Fact("features", TEXT, "Slurm features", lambda node, _: _list(node.features)),
    Fact("leaf", TEXT, "leaf switch", lambda node, _: node.leaf),
    Fact("gpus_used", "1", "GPUs that the scheduler gave away", lambda node, _: node.gpus_used),
    Fact("problem", TEXT, "what is wrong with it", lambda node, _: node.problem),
    Fact("driver", TEXT, "GPU driver", lambda node, _: node.driver),
    Fact("kernel", TEXT, "kernel release", lambda node, _: node.kernel),
    Fact(
        "gpus", "1", "boards that are known", lambda n, layout: sum(layout.gpus[g].parent < 0 for g in n.gpus)
    ),
    Fact("gpus_expected", "1", "boards that there should be", lambda node, _: node.gpus_expected),
    Fact("clock_offset", "s", "its clock from ours", lambda node, _: node.clock_offset_s),
    Fact("status", TEXT, "ok, stale, lost, unknown", column=lambda s: _status(s.node_status)),
    Fact("age", "s", "since it was last heard of", column=lambda s: _age(s, s.node_seen)),
    Fact("uptime", "s", "since it booted", column=_uptime),
    Fact("source", TEXT, "which sources tell of it", column=lambda s: _sources(s, Entity.NODE)),
    *_diagnosed("nodes", lambda s: len(s.layout.nodes)),
)
_JOB: tuple[Fact, ...] = (
    Fact("job", TEXT, "its id; of a task also its array's", lambda job, _: _ids(job)),
    Fact("jobname", TEXT, "its name", lambda job, _: job.name),
    Fact("user", TEXT, "whose it is", lambda job, _: job.user),
    Fact("account", TEXT, "who pays", lambda job, _: job.account),
    Fact("partition", TEXT, "Slurm partition", lambda job, _: job.partition),
    Fact("state", TEXT, "running, ...", lambda job, _: _steps(job.state)),
    Fact("workload", TEXT, "training, inference, ...", lambda job, _: job.workload),
    Fact("gpus", "1", "GPUs it holds, or waits for", lambda job, _: job.gpu_count or len(job.gpus)),
    Fact("nodes", "1", "nodes it is on", lambda job, _: len(job.nodes) or job.nodes_asked),
    Fact("runtime", "s", "since it began", lambda job, s: None if job.is_waiting else _span(job.since, s.at)),
    Fact("left", "s", "till its limit", lambda job, s: None if job.is_waiting else _span(s.at, job.limit_at)),
    Fact(
        "wait",
        "s",
        "so long it waits already",
        lambda job, s: _span(job.since, s.at) if job.is_waiting else None,
    ),
    Fact("starts", "s", "till its planned start", lambda job, s: _span(s.at, job.expected_at)),
    Fact("reason", TEXT, "why it waits: Resources, Priority", lambda job, _: job.reason),
    Fact("hindrance", TEXT, "what its partition has against its start", lambda job, s: hindrance(s, job)),
    Fact("qos", TEXT, "quality of service", lambda job, _: job.qos),
    Fact("dependency", TEXT, "what it waits for", lambda job, _: job.dependency),
    Fact("ncpus", "1", "CPUs given to it", lambda job, _: job.cpus),
    Fact("memory", "B", "memory given to it", lambda job, _: job.memory_bytes),
    Fact("restarts", "1", "times it was started anew", lambda job, _: job.restarts),
    *_diagnosed("jobs", lambda s: len(s.jobs) + len(s.queue)),
)
_SERVER: tuple[Fact, ...] = (
    Fact("server", TEXT, "node and port: n03/8000", lambda server, _: server.key),
    Fact("service", TEXT, "the deployment it is a replica of", lambda server, _: server.service),
    Fact("model", TEXT, "what it serves", lambda server, _: server.model),
    Fact("engine", TEXT, "vLLM, SGLang, ...", lambda server, _: server.engine),
    Fact("version", TEXT, "of the engine", lambda server, _: server.version),
    Fact("pod", TEXT, "Kubernetes pod", lambda server, _: server.pod),
    Fact("namespace", TEXT, "Kubernetes namespace", lambda server, _: server.namespace),
    Fact("gpus", "1", "GPUs it is known to run on", lambda server, _: len(server.gpus) or None),
    Fact("status", TEXT, "ok, stale, lost, unknown", column=lambda s: _status(s.server_status)),
    Fact("age", "s", "since it was last heard of", column=lambda s: _age(s, s.server_seen)),
    *_diagnosed("servers", lambda s: len(s.layout.servers)),
)
_RACK: tuple[Fact, ...] = (Fact("rack", TEXT, "its name", lambda rack, _: rack.name, is_name=True),)
_PARTITION: tuple[Fact, ...] = (
    Fact("partition", TEXT, "its name", lambda one, _: one.name),
    Fact("state", TEXT, "up, down, drain, inactive", lambda one, _: one.state),
    Fact("default", TEXT, "yes: jobs that name none go there", lambda one, _: _yes(one.is_default)),
    Fact(
        "limit", "s", "the longest that a job may run; none: as long as it likes", lambda one, _: one.limit_s
    ),
    Fact("default_limit", "s", "of a job that names none", lambda one, _: one.default_s),
    Fact("nodes", "1", "nodes in it", lambda one, _: one.nodes),
    Fact("gpus", "1", "GPUs in it", lambda one, _: one.gpus),
    Fact("ncpus", "1", "CPUs in it", lambda one, _: one.cpus),
    Fact("memory", "B", "memory of its nodes", lambda one, _: one.memory),
    Fact("running", "1", "jobs that run", lambda one, s: demand_of(s, one)[0].jobs),
    Fact("gpus_running", "1", "GPUs that these hold", lambda one, s: demand_of(s, one)[0].gpus),
    Fact("waiting", "1", "jobs that wait for hardware alone", lambda one, s: demand_of(s, one)[1].jobs),
    Fact("gpus_waiting", "1", "GPUs that these ask for", lambda one, s: demand_of(s, one)[1].gpus),
    Fact("most_nodes", "1", "nodes that a job may have", lambda one, _: one.most_nodes),
    Fact("tier", "1", "jobs of a higher tier start first", lambda one, _: one.tier),
    Fact("accounts", TEXT, "who alone may use it", lambda one, _: _list(one.accounts)),
    Fact("denied", TEXT, "accounts that may not use it", lambda one, _: _list(one.accounts_denied)),
)
_TARGET: tuple[Fact, ...] = (
    Fact("target", TEXT, "host, or host:port", lambda target, _: target.name),
    Fact("state", TEXT, "ok, slow, stale, failing, denied, connecting", lambda target, _: str(target.state)),
    Fact("what", TEXT, "what answered", lambda target, _: target.what),
    Fact("why", TEXT, "why it does not deliver", lambda target, _: target.detail),
    Fact("nodes", "1", "nodes it speaks for", lambda target, _: len(target.nodes)),
    Fact("latency", "s", "how long it takes to answer", lambda target, _: target.latency_s),
)

_EVENT: tuple[Fact, ...] = (
    Fact("time", TEXT, "when, in UTC: 2026-03-01T03:12:00Z", lambda event, _: _utc(event.at)),
    Fact("age", "s", "since it happened", lambda event, s: max(s.at - event.at, 0.0)),
    Fact(
        "kind",
        TEXT,
        "xid, drain, job_start, alert, ...",
        lambda event, _: (event.kind, kind_words(event.kind)),
    ),
    Fact(
        "entity",
        TEXT,
        "what it happened to: n03/5, r07, slurm:4711",
        lambda event, _: (event.entity, *(_ids(event.job) if event.job else ())),
    ),
    Fact("detail", TEXT, "what is told of it", lambda event, _: event.detail),
    *(
        Fact(name, TEXT, f"of the job that it happened to: {what}", _of_its_job(of))
        for name, what, of in (
            ("job", "its id", _ids),
            ("jobname", "its name", lambda job: job.name),
            ("user", "whose it is", lambda job: job.user),
            ("account", "who pays", lambda job: job.account),
            ("partition", "Slurm partition", lambda job: job.partition),
        )
    ),
)

_FINDING: tuple[Fact, ...] = (
    Fact("finding", TEXT, "what it is: thermal_throttling", lambda one, _: (one.detector, one.id)),
    Fact("severity", TEXT, "info, warning, critical", lambda one, _: one.severity.name.lower()),
    Fact("urgency", TEXT, "now, today, later", lambda one, _: str(one.urgency)),
    Fact("owner", TEXT, "hardware, facility, fabric, storage, serving, job owner", lambda one, _: one.owner),
    Fact("title", TEXT, "what is told of it", lambda one, _: one.title),
    Fact("loss", "ratio", "of the work of what it touches", lambda one, _: one.loss.fraction),
    Fact("cost", "1", "GPU-hours an hour", lambda one, _: one.loss.gpu_hours_per_hour),
    Fact("confidence", "ratio", "how sure it is", lambda one, _: one.confidence),
    Fact("age", "s", "since it began", lambda one, s: max(s.at - one.since, 0.0)),
)

_ADVICE: tuple[Fact, ...] = (
    Fact("advice", TEXT, "its rule: idle_gpus", lambda one, _: one.rule),
    Fact("grade", TEXT, "A, B, C, D: how much it can be trusted", _grade),
    Fact("saved", "1", "GPU-hours a week", _saved),
    Fact("action", TEXT, "what to do; of what was not advised: why", _action),
)
"""Of what was advised, then of what was refused."""

FACTS: Mapping[Entity, tuple[Fact, ...]] = {
    Entity.GPU: _GPU, Entity.NODE: _NODE, Entity.JOB: _JOB, Entity.SERVER: _SERVER, Entity.RACK: _RACK,
    Entity.TARGET: _TARGET, Entity.EVENT: _EVENT, Entity.PARTITION: _PARTITION,
    Entity.FINDING: _FINDING, Entity.ADVICE: _ADVICE,
}  # fmt: skip

ALIASES: Mapping[str, tuple[str, ...]] = {
    # several: which one the value's unit says
    "mem": ("mem_used", "mem_ratio"),
    "gpu.mem": ("gpu.mem_used", "gpu.mem_ratio"),
    "node.mem": ("node.mem_used", "node.mem_ratio"),
    "power": ("power", "power_ratio"),
    "gpu.power": ("gpu.power", "gpu.power_ratio"),
    "sm": ("sm_active",),
    "tensor": ("tensor_active",),
    "dram": ("dram_active",),
    "hbm": ("mem_temp",),
    "clock": ("sm_clock",),
    "cpu": ("cpu_util",),
    "kv": ("kv_usage", "kv_used"),
    "ttft": ("ttft_p99",),
    "itl": ("itl_p99",),
    "e2e": ("e2e_p99",),
    "host": ("node",),
    "hostname": ("node",),
    "name": ("jobname",),
    "what": ("kind",),
    "whose": ("entity",),
    "ago": ("age",),
    "heard": ("age",),
}
"""Other names; a percentile without its number is the 99th."""

_ORDER = (Entity.GPU, Entity.NODE, Entity.JOB, Entity.SERVER, Entity.RACK)
_ALONE = (Entity.TARGET, Entity.PARTITION)
"""Rows that have nothing but their own fields."""
_WORDS: Mapping[Entity, str] = {Entity.SERVER: "server", Entity.GPU: "GPU"}


class Field(NamedTuple):
    """A field of an entity, found by its name."""

    entity: Entity
    name: str
    unit: str
    help: str
    fact: Fact | None
    """None: a metric."""

    @property
    def key(self) -> str:
        """Its full name, and a metric's key in the catalogue."""
        return f"{self.entity}.{self.name}"

    @property
    def is_text(self) -> bool:
        """Whether it is a text; else it is a number."""
        return self.unit == TEXT

    @property
    def is_name(self) -> bool:
        """Whether it is compared as names are: node sets, too."""
        return self.fact is not None and self.fact.is_name


def order(row: Entity) -> tuple[Entity, ...]:
    """Whose fields a row of this entity has, its own first."""
    return (row,) if row in _ALONE else (row, *(other for other in _ORDER if other is not row))


def fields_of(entity: Entity) -> Iterator[Field]:
    """An entity's own fields: facts, then metrics in the catalogue's order."""
    facts = FACTS[entity]
    for fact in facts:
        yield Field(entity, fact.name, fact.unit, fact.help, fact)
    names = {fact.name for fact in facts}
    for metric in catalog().values():
        if metric.key.startswith(f"{entity}.") and metric.name not in names:
            yield Field(entity, metric.name, metric.unit, metric.help, None)


def find(name: str, row: Entity) -> tuple[Field, ...]:
    """The fields that a name may mean on a row, the likeliest first; empty: there is none."""
    name = name.casefold()
    if name.startswith("server."):
        name = "serve." + name.removeprefix("server.")
    meant = ALIASES.get(name, (name,)) if row not in _ALONE else (name,)
    found = tuple(field for one in meant if (field := _find(one, row)) is not None)
    return found or tuple(filter(None, [_find(name, row)]))


def _find(name: str, row: Entity) -> Field | None:
    owner, dot, rest = name.partition(".")
    short = rest if dot else name
    for entity in order(row):
        if not dot or owner == entity:
            for fact in FACTS[entity]:
                if fact.name == short:
                    return Field(entity, short, fact.unit, fact.help, fact)
    for entity in _ORDER if row not in _ALONE else ():
        metric = catalog().get(f"{entity}.{short}") if not dot or owner == entity else None
        if metric is not None:
            return Field(entity, short, metric.unit, metric.help, None)
    return None


def names(row: Entity) -> list[str]:
    """Every short name that means something on a row: its own first, then aliases, then the others'."""
    own, *others = order(row)
    found = dict.fromkeys(field.name for field in fields_of(own))
    if row not in _ALONE:
        found.update(dict.fromkeys(alias for alias in ALIASES if "." not in alias and find(alias, row)))
    for entity in others:
        found.update(dict.fromkeys(field.name for field in fields_of(entity)))
    return list(found)


def nearest(name: str, row: Entity) -> str:
    """The field that was probably meant; empty: none is near."""
    wanted, known = name.casefold(), names(row)
    if "." in wanted:
        known = [field.key for entity in order(row) for field in fields_of(entity)]
    close = get_close_matches(wanted, known, 1, 0.6)
    return close[0] if close else next((one for one in known if wanted in one and len(wanted) > 2), "")


def title(row: Entity) -> str:
    """What a row is called."""
    return _WORDS.get(row, str(row))


Things: TypeAlias = (
    Sequence[Gpu]
    | Sequence[Node]
    | Sequence[Job]
    | Sequence[Server]
    | Sequence[Rack]
    | Sequence[Target]
    | Sequence[EventView]
    | Sequence[Partition]
    | Sequence[Finding]
    | Sequence[Advice | Refused]
)


def things(snapshot: Snapshot, entity: Entity) -> Things:
    """All entities of a kind, in the order of its columns; jobs that wait stand behind those that run."""
    layout = snapshot.layout
    match entity:
        case Entity.GPU:
            return layout.gpus
        case Entity.NODE:
            return layout.nodes
        case Entity.JOB:
            return (*snapshot.jobs, *snapshot.queue)
        case Entity.SERVER:
            return layout.servers
        case Entity.RACK:
            return layout.racks
        case Entity.EVENT:
            return snapshot.events
        case Entity.FINDING:
            return (*snapshot.diagnosis.findings, *snapshot.diagnosis.cleared)
        case Entity.ADVICE:
            said: tuple[Advice | Refused, ...] = (*snapshot.counsel.given, *snapshot.counsel.refused)
            return said
        case Entity.TARGET:
            return [target for source in snapshot.sources for target in source.targets]
        case Entity.PARTITION:
            return snapshot.partitions
