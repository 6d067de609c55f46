"""Which cause explains which consequence: a hot GPU makes its peers wait, and their waiting is no finding of its own.

The table is data. A cause explains a consequence where both touch the same GPU, node, job, server or service, where it began
no later, and where it can cost as much as the consequence does: what is stronger than its cause stays a finding.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from enum import StrEnum
from typing import NamedTuple

from coldaisle.analyzers.finding import Candidate
from coldaisle.analyzers.reach import Reach


class Shared(StrEnum):
    """What a cause and its consequence have in common."""

    GPU = "GPU"
    NODE = "node"
    JOB = "job"
    """Where no job is known: the node."""
    SERVER = "server"
    SERVICE = "service"


class Explains(NamedTuple):
    """A line of the table."""

    cause: str
    consequence: str
    shared: Shared
    is_bound: bool = True
    """Whether the consequence can cost no more than its cause: what costs more has another cause as well."""


MORE, TWICE = 0.2, 2.0
"""Engineering choice: a consequence that costs 20 points more than its cause, and twice as much, is not explained by it.
Estimates of one loss from two sides differ by about half of that."""
LATER_S = 300.0
"""Engineering choice: a cause is seen within five minutes of its consequence."""


def _rows(cause: str, shared: Shared, *consequences: str, is_bound: bool = True) -> tuple[Explains, ...]:
    return tuple(Explains(cause, one, shared, is_bound) for one in consequences)


TABLE: tuple[Explains, ...] = (
    # A board that failed: its readings may be frozen, its job hangs, is restarted, or idles behind it.
    *_rows("gpu_fault", Shared.GPU, "telemetry_gap", "thermal_throttling", "power_capping", "idle_allocation",
           "interconnect_degraded", "memory_exhaustion", "data_loader_starvation", "straggler", is_bound=False),
    *_rows("gpu_fault", Shared.JOB, "communication_stall", "straggler", "checkpoint_stall", "idle_allocation",
           "data_loader_starvation", "interconnect_saturation", is_bound=False),
    *_rows("gpu_fault", Shared.SERVICE, "kv_cache_pressure", "request_queueing", is_bound=False),
    # What is not heard, or heard frozen, proves nothing.
    *_rows("telemetry_gap", Shared.GPU, "thermal_throttling", "power_capping", "idle_allocation", "straggler",
           "communication_stall", "data_loader_starvation", "memory_exhaustion", "interconnect_saturation", is_bound=False),
    *_rows("telemetry_gap", Shared.SERVER, "kv_cache_pressure", "request_queueing", is_bound=False),
    *_rows("thermal_throttling", Shared.GPU, "power_capping", "straggler"),
    *_rows("thermal_throttling", Shared.JOB, "straggler", "communication_stall", "interconnect_saturation"),
    *_rows("thermal_throttling", Shared.SERVICE, "kv_cache_pressure", "request_queueing"),
    *_rows("idle_allocation", Shared.GPU, "straggler", "communication_stall", "data_loader_starvation", is_bound=False),
    *_rows("checkpoint_stall", Shared.JOB, "data_loader_starvation", "communication_stall", "straggler",
           "interconnect_saturation"),
    *_rows("memory_exhaustion", Shared.NODE, "data_loader_starvation"),
    *_rows("memory_exhaustion", Shared.JOB, "straggler", "communication_stall"),
    *_rows("memory_exhaustion", Shared.SERVER, "request_queueing"),
    *_rows("data_loader_starvation", Shared.JOB, "straggler", "communication_stall"),
    *_rows("interconnect_degraded", Shared.JOB, "interconnect_saturation", "straggler", "communication_stall",
           is_bound=False),
    *_rows("interconnect_degraded", Shared.SERVER, "request_queueing"),
    *_rows("interconnect_saturation", Shared.JOB, "straggler", "communication_stall"),
    *_rows("power_capping", Shared.GPU, "straggler"),
    *_rows("power_capping", Shared.JOB, "straggler", "communication_stall"),
    *_rows("power_capping", Shared.SERVICE, "kv_cache_pressure", "request_queueing"),
    *_rows("straggler", Shared.JOB, "communication_stall"),
    *_rows("kv_cache_pressure", Shared.SERVICE, "request_queueing", is_bound=False),
)  # fmt: skip
"""In the order in which causes are believed (DETECTION 0.8): of several the first explains."""


class Held(NamedTuple):
    """A candidate that triage holds open, with what it touches."""

    candidate: Candidate
    reach: Reach
    since: float


def causes(held: Sequence[Held], table: Sequence[Explains] = TABLE) -> dict[int, int]:
    """Consequence -> its cause, both as numbers in ``held``; a cause that is itself explained hands on to its own."""
    by_place = _by_place(held, table)
    found = {
        number: cause
        for number, one in enumerate(held)
        if (cause := _cause(number, one, held, table, by_place)) is not None
    }
    return {number: _root(cause, found) for number, cause in found.items()}


_Places = dict[tuple[str, Shared, int | str], int]


def _by_place(held: Sequence[Held], table: Sequence[Explains]) -> _Places:
    """The costliest candidate of each detector at each place."""
    places: _Places = {}
    wanted: dict[str, set[Shared]] = {}
    for row in table:
        wanted.setdefault(row.cause, set()).add(row.shared)
    for number, one in enumerate(held):
        detector = one.candidate.detector
        for shared in wanted.get(detector, ()):
            for place in _places(one.reach, shared):
                key = (detector, shared, place)
                if key not in places or held[places[key]].candidate.loss < one.candidate.loss:
                    places[key] = number
    return places


def _places(reach: Reach, shared: Shared) -> Iterable[int | str]:
    match shared:
        case Shared.GPU:
            return reach.gpus
        case Shared.NODE:
            return reach.nodes
        case Shared.JOB:
            return reach.jobs or (f"node {node}" for node in reach.nodes)
        case Shared.SERVER:
            return reach.servers
        case Shared.SERVICE:
            return reach.services


def _cause(
    number: int, one: Held, held: Sequence[Held], table: Sequence[Explains], by_place: _Places
) -> int | None:
    for row in table:
        if row.consequence != one.candidate.detector:
            continue
        for cause in _at(one.reach, row, by_place):
            if cause != number and _can_explain(held[cause], one, row):
                return cause
    return None


def _at(reach: Reach, row: Explains, by_place: _Places) -> Iterator[int]:
    """Causes at the consequence's places; on GPUs only where they are on at least half of them."""
    found = [
        by_place[key]
        for place in _places(reach, row.shared)
        if (key := (row.cause, row.shared, place)) in by_place
    ]
    if row.shared is Shared.GPU and 2 * len(found) < len(reach.gpus):
        return
    yield from dict.fromkeys(found)


def _can_explain(cause: Held, consequence: Held, row: Explains) -> bool:
    if cause.since > consequence.since + LATER_S and not cause.candidate.since_bound:
        return False
    if not row.is_bound:
        return True
    most = max(cause.candidate.loss + MORE, TWICE * cause.candidate.loss)
    return consequence.candidate.loss <= most


def _root(cause: int, found: dict[int, int]) -> int:
    seen = {cause}
    while cause in found and found[cause] not in seen:
        cause = found[cause]
        seen.add(cause)
    return cause
