"""What was said already: facts are told once and again when something of them changes, jobs when they begin and end."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any, TypeVar

from coldaisle.sources.source import GpuFact, GpuRef, JobFact, NodeFact
from coldaisle.sources.translation import Job

Known = TypeVar("Known", NodeFact, GpuFact)

_FIELDS = {kind: tuple(one.name for one in fields(kind)) for kind in (NodeFact, GpuFact)}

Holdings = Mapping[str, tuple[str, tuple[GpuRef, ...]]]
"""Job -> its name and its GPUs."""


@dataclass(slots=True)
class FactBook:
    """Facts of nodes and boards, as told."""

    _nodes: dict[str, NodeFact] = field(default_factory=dict)
    _gpus: dict[GpuRef, GpuFact] = field(default_factory=dict)

    def news(self, fact: NodeFact | GpuFact) -> NodeFact | GpuFact | None:
        """The fact, with what only an earlier one knew; None: all of it was told already."""
        if isinstance(fact, NodeFact):
            return _news(self._nodes, fact.node, fact)
        return _news(self._gpus, fact.gpu, fact)


def _news(told: dict[Any, Known], subject: object, fact: Known) -> Known | None:
    known = told.get(subject)
    if known is not None:
        if all(
            _adds_nothing(name, getattr(known, name), getattr(fact, name)) for name in _FIELDS[type(fact)]
        ):
            return None
        fact = _merged(known, fact)
    told[subject] = fact
    return fact


def _adds_nothing(name: str, known: object, new: object) -> bool:
    return new is None or new == known or name == "at"


def _merged(old: Known, new: Known) -> Known:
    """The new fact, with what only the old one knew (another exporter of the same node said it)."""
    kept = {name: getattr(old, name) for name in _FIELDS[type(new)] if getattr(new, name) is None}
    return replace(new, **kept)


@dataclass(slots=True)
class JobBook:
    """Jobs that labels name, as told."""

    _running: dict[str, JobFact] = field(default_factory=dict)

    def __contains__(self, job: str) -> bool:
        return job in self._running

    def update(self, held: Holdings, now: float, since: Mapping[str, float] | None = None) -> list[JobFact]:
        """Facts of the jobs that began, changed or ended; ``held`` is all that holds GPUs at ``now``.

        ``since`` has when a job began, where that is known better than by its first sight.
        """
        changed: list[JobFact] = []
        for key, (name, gpus) in held.items():
            known = self._running.get(key)
            began = known.since if known else min((since or {}).get(key, now), now)
            fact = JobFact(
                since=began,
                until=None,
                id=key,
                name=name,
                user="",
                nodes=tuple(dict.fromkeys(gpu.node for gpu in gpus)),
                gpus=gpus,
                account=key.removeprefix("k8s:").partition("/")[0] if key.startswith("k8s:") else None,
            )
            if fact != known:
                self._running[key] = fact
                changed.append(fact)
        ended = self._running.keys() - held.keys()
        return changed + [replace(self._running.pop(key), until=now) for key in sorted(ended)]


def holdings(jobs: Iterable[Job]) -> dict[str, tuple[str, tuple[GpuRef, ...]]]:
    """The GPUs of each job; a GPU that two series name counts once."""
    found: dict[str, tuple[str, dict[object, GpuRef]]] = {}
    for job in jobs:
        gpu = job.gpu
        same = (gpu.uuid, gpu.mig) if gpu.uuid else gpu
        found.setdefault(job.id, (job.name, {}))[1].setdefault(same, gpu)
    return {key: (name, tuple(gpus.values())) for key, (name, gpus) in found.items()}
