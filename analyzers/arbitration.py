"""Which cause explains which consequence: a hot GPU makes its peers wait, and their waiting is no finding of its own.

The table is data. A cause explains a consequence where both touch the same GPU, node, job, server or service, where it began
no later, and where it can cost as much as the consequence does: what is stronger than its cause stays a finding.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
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
    variants: frozenset[str] = frozenset()
    """Of the consequence, only these; empty: all."""
    least: float = 0.0
    """The cause costs at least so much."""
    is_common: bool = False
    """Only where more have the cause than have nothing but the consequence."""


MORE = 0.25
"""Engineering choice: a consequence that costs 25 points more than its cause is not explained by it. Estimates of one loss from
two sides differ by about half of that."""
STOPPED = 0.9
"""Of a job's work: it stands still."""
LATER_S, LATER_POLLS = 300.0, 20
"""Engineering choice: a cause is seen within five minutes of its consequence, or so many polls where these are rare."""


def _rows(cause: str, shared: Shared, *consequences: str, is_bound: bool = True) -> tuple[Explains, ...]:
    return tuple(Explains(cause, one, shared, is_bound) for one in consequences)


TABLE: tuple[Explains, ...] = (
    # A process that ran out of memory leaves an XID behind that blames nobody's board.
    *(Explains("memory_exhaustion", "gpu_fault", shared, False, frozenset({"application"})) for shared in (Shared.GPU, Shared.JOB)),
    # Where a whole node, or its exporter, fell silent, its boards are not lost.
    Explains("telemetry_gap", "gpu_fault", Shared.NODE, False, frozenset({"lost", "missing", "frozen"})),
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
    # A board has one clock: that it is slow needs no second cause, whatever the wait of the others seems to cost.
    *(Explains(one, "straggler", Shared.GPU, False, frozenset({"clock"})) for one in ("thermal_throttling", "power_capping")),
    *_rows("thermal_throttling", Shared.GPU, "power_capping", "straggler"),
    *_rows("thermal_throttling", Shared.JOB, "straggler", "communication_stall", "interconnect_saturation"),
    *_rows("thermal_throttling", Shared.SERVICE, "kv_cache_pressure", "request_queueing"),
    # Who does not come to a collective runs nothing, and its job hangs: that is more than idleness.
    *_rows("communication_stall", Shared.JOB, "idle_allocation", is_bound=False),
    *_rows("idle_allocation", Shared.GPU, "straggler", "data_loader_starvation", is_bound=False),
    *_rows("checkpoint_stall", Shared.JOB, "data_loader_starvation", "communication_stall", "straggler",
           "interconnect_saturation"),
    *_rows("memory_exhaustion", Shared.NODE, "data_loader_starvation"),
    *_rows("memory_exhaustion", Shared.JOB, "straggler", "communication_stall"),
    *_rows("memory_exhaustion", Shared.SERVER, "request_queueing"),
    *_rows("data_loader_starvation", Shared.JOB, "straggler", "communication_stall"),
    *_rows("interconnect_degraded", Shared.JOB, "interconnect_saturation", "straggler", "communication_stall",
           is_bound=False),
    *_rows("interconnect_degraded", Shared.SERVER, "request_queueing"),
    *_rows("interconnect_saturation", Shared.JOB, "straggler", "communication_stall", "data_loader_starvation"),
    *_rows("power_capping", Shared.GPU, "straggler"),
    *_rows("power_capping", Shared.JOB, "straggler", "communication_stall"),
    *_rows("power_capping", Shared.SERVICE, "kv_cache_pressure", "request_queueing"),
    # A job that stands still has no slow rank, and moves no bytes.
    *(
        Explains("communication_stall", one, Shared.JOB, False, least=STOPPED)
        for one in ("straggler", "interconnect_saturation")
    ),
    *_rows("straggler", Shared.JOB, "communication_stall"),
    *_rows("kv_cache_pressure", Shared.SERVER, "request_queueing", is_bound=False),
    # A replica has a batch and a cache of its own: that another one lacks cache explains its queue only where most do.
    Explains("kv_cache_pressure", "request_queueing", Shared.SERVICE, False, is_common=True),
)  # fmt: skip
"""In the order in which causes are believed (faults before heat, heat before waiting): of several the first explains."""


class Held(NamedTuple):
    """A candidate that triage holds open, with what it touches."""

    candidate: Candidate
    reach: Reach
    since: float


def causes(held: Sequence[Held], poll: float, table: Sequence[Explains] = TABLE) -> dict[int, int]:
    """Consequence -> its cause, both as numbers in ``held``; ``poll`` is the seconds between samples.

    Line by line: what is explained by then explains nothing more, and what it had explained goes to its own cause.
    """
    found: dict[int, int] = {}
    later = max(LATER_S, LATER_POLLS * poll)
    of_detector: dict[str, list[int]] = {}
    for number, one in enumerate(held):
        of_detector.setdefault(one.candidate.detector, []).append(number)
    for row in table:
        effects = [number for number in of_detector.get(row.consequence, ()) if number not in found]
        if not effects or row.cause not in of_detector:
            continue
        standing = [number for number in of_detector[row.cause] if number not in found]
        places = _costliest(held, standing, row.shared)
        if row.is_common:
            with_cause, without = (_counts(held, some, row.shared) for some in (standing, effects))
            places = {place: number for place, number in places.items() if with_cause[place] > without[place]}
        for effect in effects:
            cause = _cause(effect, held, row, places, later)
            if cause is not None:
                found[effect] = cause
    return {number: _root(cause, found) for number, cause in found.items()}


def _costliest(held: Sequence[Held], causes: Iterable[int], shared: Shared) -> dict[int | str, int]:
    """The costliest of the causes at each place."""
    places: dict[int | str, int] = {}
    for number in causes:
        for place in _places(held[number].reach, shared):
            known = places.get(place)
            if known is None or held[known].candidate.loss < held[number].candidate.loss:
                places[place] = number
    return places


def _counts(held: Sequence[Held], numbers: Iterable[int], shared: Shared) -> Counter[int | str]:
    """How many there are at each place."""
    return Counter(place for number in numbers for place in _places(held[number].reach, shared))


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
    effect: int, held: Sequence[Held], row: Explains, places: Mapping[int | str, int], later: float
) -> int | None:
    """Of the causes where the consequence is, one that can explain it; of GPUs they must be on at least half."""
    one = held[effect]
    if row.variants and one.candidate.variant not in row.variants:
        return None
    found = [places[place] for place in _places(one.reach, row.shared) if place in places]
    if row.shared is Shared.GPU and 2 * len(found) < len(one.reach.gpus):
        return None
    able = (
        cause
        for cause in dict.fromkeys(found)
        if cause != effect and _can_explain(held[cause], one, row, later)
    )
    return next(able, None)


def _can_explain(cause: Held, consequence: Held, row: Explains, later: float) -> bool:
    if cause.candidate.loss < row.least:
        return False
    if cause.since > consequence.since + later and not cause.candidate.since_bound:
        return False
    if not row.is_bound:
        return True
    return consequence.candidate.loss <= cause.candidate.loss + MORE


def _root(cause: int, found: Mapping[int, int]) -> int:
    while cause in found:
        cause = found[cause]
    return cause
