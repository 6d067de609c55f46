"""Explaining away: a cause suppresses its consequences. What explains what is data, in the order of causes.

One hot GPU slows its whole job: its peers wait, and that is a symptom, not a second finding. A consequence that is
stronger than the cause can explain stays a finding of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from coldaisle.analyzers.finding import Candidate

GPU, JOB, NODE, SERVICE = "gpu", "job", "node", "service"
STRONGER_BY = 0.25
"""So much more of the work than its cause costs, and it is no mere consequence."""


class Explains(NamedTuple):
    """A cause, what follows from it, and what both must share."""

    cause: str
    consequence: str
    shared: str
    cause_variants: frozenset[str] = frozenset()
    """Only these; empty: all."""
    variants: frozenset[str] = frozenset()
    """Only these of the consequence; empty: all."""


def _of_job(cause: str, *consequences: str) -> tuple[Explains, ...]:
    return tuple(Explains(cause, consequence, JOB) for consequence in consequences)


RULES: tuple[Explains, ...] = (
    Explains("memory_exhaustion", "gpu_fault", GPU, variants=frozenset({"application"})),
    Explains("memory_exhaustion", "gpu_fault", JOB, variants=frozenset({"application"})),
    Explains("telemetry_gap", "gpu_fault", NODE, variants=frozenset({"lost", "missing", "frozen"})),
    Explains("gpu_fault", "telemetry_gap", GPU),
    Explains("gpu_fault", "thermal_throttling", GPU),
    Explains("gpu_fault", "power_capping", GPU),
    Explains("gpu_fault", "interconnect_degraded", GPU),
    *_of_job(
        "gpu_fault", "idle_allocation", "checkpoint_stall", "data_loader_starvation", "interconnect_saturation",
        "straggler", "communication_stall",
    ),
    Explains("thermal_throttling", "power_capping", GPU),
    *_of_job(
        "thermal_throttling", "data_loader_starvation", "interconnect_saturation", "straggler", "communication_stall",
    ),
    *_of_job("idle_allocation", "data_loader_starvation", "straggler", "communication_stall"),
    *_of_job("checkpoint_stall", "data_loader_starvation", "straggler", "communication_stall"),
    *_of_job("memory_exhaustion", "data_loader_starvation", "straggler", "communication_stall"),
    *_of_job("data_loader_starvation", "straggler", "communication_stall"),
    *_of_job("interconnect_degraded", "interconnect_saturation", "straggler", "communication_stall"),
    *_of_job("interconnect_saturation", "straggler", "communication_stall"),
    *_of_job("straggler", "communication_stall"),
    *_of_job("power_capping", "straggler", "communication_stall"),
    Explains("kv_cache_pressure", "request_queueing", SERVICE),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Placed:
    """A candidate with all that it touches, as keys."""

    candidate: Candidate
    gpus: frozenset[str]
    nodes: frozenset[str]
    jobs: frozenset[str]
    services: frozenset[str]

    def of(self, shared: str) -> frozenset[str]:
        """Its entities of a kind of relation."""
        return {GPU: self.gpus, NODE: self.nodes, JOB: self.jobs, SERVICE: self.services}[shared]


class Arbitrated(NamedTuple):
    """What stands, and what each of it explains away."""

    standing: list[Placed]
    symptoms: Mapping[int, tuple[str, ...]]
    """By ``id`` of a candidate that stands: detectors of its consequences."""


def arbitrate(placed: Sequence[Placed], rules: Iterable[Explains] = RULES) -> Arbitrated:
    """Causes first: a candidate that is explained away explains nothing itself."""
    away: dict[int, Placed] = {}
    symptoms: dict[int, dict[str, None]] = {}
    by_detector: dict[str, list[Placed]] = {}
    for one in placed:
        by_detector.setdefault(one.candidate.detector, []).append(one)
    for rule in rules:
        causes = [
            c for c in by_detector.get(rule.cause, ()) if id(c) not in away and _is(c, rule.cause_variants)
        ]
        found = _index(causes, rule.shared)
        for one in by_detector.get(rule.consequence, ()):
            if id(one) in away or not _is(one, rule.variants):
                continue
            cause = _cause_of(one, found, rule.shared)
            if cause is not None:
                away[id(one)] = cause
                symptoms.setdefault(id(cause.candidate), {})[rule.consequence] = None
    standing = [one for one in placed if id(one) not in away]
    return Arbitrated(standing, {key: tuple(names) for key, names in symptoms.items()})


def _is(one: Placed, variants: frozenset[str]) -> bool:
    return not variants or one.candidate.variant in variants


def _index(causes: Sequence[Placed], shared: str) -> dict[str, Placed]:
    """The strongest cause by each entity it touches."""
    found: dict[str, Placed] = {}
    for cause in causes:
        for key in cause.of(shared):
            if key not in found or found[key].candidate.loss < cause.candidate.loss:
                found[key] = cause
    return found


def _cause_of(one: Placed, found: Mapping[str, Placed], shared: str) -> Placed | None:
    explained: Callable[[Placed], bool] = lambda cause: (  # noqa: E731
        cause is not one and one.candidate.loss <= cause.candidate.loss + STRONGER_BY
    )
    return next(
        (found[key] for key in sorted(one.of(shared)) if key in found and explained(found[key])), None
    )
