"""What was said already: facts are told once and again when something of them changes, jobs when they begin and end."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Set
from dataclasses import dataclass, field, fields, replace
from typing import TypeAlias, TypeVar

from coldaisle.sources.source import GpuFact, GpuRef, JobFact, NodeFact, ServerFact
from coldaisle.sources.translation import Hosted, Job
from coldaisle.sources.vocabularies import Engine

Told: TypeAlias = NodeFact | GpuFact | ServerFact
"""What is said of a node, a board, a server."""
Holdings = Mapping[str, tuple[Job, tuple[GpuRef, ...]]]
"""Job -> what is said of it, and its GPUs."""
Known = TypeVar("Known", NodeFact, GpuFact, ServerFact)

UNHEARD_JOB_S = 1800.0
"""How long a job is believed to go on while none of its boards is heard: exporters and networks are back by then, mostly."""
_FIELDS = {kind: tuple(one.name for one in fields(kind)) for kind in (NodeFact, GpuFact, ServerFact)}


@dataclass(slots=True)
class FactBook:
    """Facts as told."""

    _told: dict[object, Told] = field(default_factory=dict)

    def news(self, fact: Told) -> Told | None:
        """The fact, with what only an earlier one knew; None: all of it was told already."""
        subject = _subject(fact)
        known = self._told.get(subject)
        if known is not None:
            if all(_adds_nothing(name, known, fact) for name in _FIELDS[type(fact)]):
                return None
            fact = _merged(known, fact)
        self._told[subject] = fact
        return fact


def _subject(fact: Told) -> object:
    """What a fact speaks of."""
    if isinstance(fact, NodeFact):
        return NodeFact, fact.node
    return (GpuFact, fact.gpu) if isinstance(fact, GpuFact) else (ServerFact, fact.server)


def _adds_nothing(name: str, known: Told, fact: Told) -> bool:
    new = getattr(fact, name)
    return new is None or name == "at" or new == getattr(known, name)


def _merged(old: Told, new: Told) -> Told:
    """The new fact, with what only the old one knew (another exporter of the same node said it)."""
    kept = {name: getattr(old, name) for name in _FIELDS[type(new)] if getattr(new, name) is None}
    return replace(new, **kept)


def server_fact(hosted: Hosted, engine: Engine, boards: tuple[GpuRef, ...], at: float) -> ServerFact:
    """What is known of an inference server; ``boards`` are those that its own page speaks of."""
    return ServerFact(
        at=at,
        server=hosted.server,
        engine=engine.engine,
        model=hosted.model,
        # No replica of its model: what it counts, the workers behind it count again.
        service=hosted.service or (None if engine.has_gpus else f"{hosted.model} front end"),
        version=hosted.version,
        gpus=boards or (None if engine.has_gpus else ()),
        pod=hosted.pod,
        namespace=hosted.namespace,
        absent=engine.absent,
        processes=engine.processes,
    )


@dataclass(slots=True)
class JobBook:
    """Jobs that labels name, as told."""

    _running: dict[str, JobFact] = field(default_factory=dict)
    _unheard: dict[str, float] = field(default_factory=dict)
    """Jobs whose boards have all fallen silent, and since when."""

    def update(
        self,
        held: Holdings,
        now: float,
        since: Mapping[str, float] | None = None,
        heard: Set[GpuRef] | None = None,
    ) -> list[JobFact]:
        """Facts of the jobs that began, changed or ended; ``held`` is all that holds GPUs at ``now``.

        ``since`` has when a job began, where that is known better than by its first sight; ``heard`` all GPUs that are heard at
        ``now``: one that fell silent has not been given back while its job goes on elsewhere, and a job of which no board is heard
        goes on for ``UNHEARD_JOB_S``; one that is heard by then without it says that it has ended.
        """
        changed: list[JobFact] = []
        taken = {gpu for _, gpus in held.values() for gpu in gpus} if heard is not None else set()
        for key, (job, gpus) in held.items():
            known = self._running.get(key)
            if known and heard is not None:
                gpus += tuple(gpu for gpu in known.gpus if gpu not in taken and gpu not in heard)
            began = known.since if known else min((since or {}).get(key, now), now)
            fact = JobFact(
                since=began,
                until=None,
                id=key,
                name=job.name,
                user=job.user,
                nodes=tuple(dict.fromkeys(gpu.node for gpu in gpus)),
                gpus=gpus,
                account=key.removeprefix("k8s:").partition("/")[0] if key.startswith("k8s:") else None,
                partition=job.partition,
            )
            if fact != known:
                self._running[key] = fact
                changed.append(fact)
        return changed + [
            replace(self._running.pop(key), until=until) for key, until in self._ended(held, now, heard)
        ]

    def _ended(self, held: Holdings, now: float, heard: Set[GpuRef] | None) -> list[tuple[str, float]]:
        """Jobs that are over, by their ids, and since when."""
        gone = self._running.keys() - held.keys()
        silent = {
            key for key in gone if heard is not None and heard.isdisjoint(self._running[key].gpus or ())
        }
        since = {key: self._unheard.get(key, now) for key in gone}
        self._unheard = {key: since[key] for key in silent if now - since[key] < UNHEARD_JOB_S}
        return [(key, since[key]) for key in sorted(gone - self._unheard.keys())]


def holdings(jobs: Iterable[Job]) -> dict[str, tuple[Job, tuple[GpuRef, ...]]]:
    """The GPUs of each job; a GPU that two series name counts once."""
    found: dict[str, tuple[Job, dict[object, GpuRef]]] = {}
    for job in jobs:
        same = (job.gpu.uuid, job.gpu.mig) if job.gpu.uuid else job.gpu
        found.setdefault(job.id, (job, {}))[1].setdefault(same, job.gpu)
    return {key: (job, tuple(gpus.values())) for key, (job, gpus) in found.items()}
