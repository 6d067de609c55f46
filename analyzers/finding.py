"""The words of diagnosis: what a detector says, and what triage makes of it.

A detector says a :class:`Verdict`: candidates, what it cannot decide and what is still warming up. Triage folds the
verdicts of all detectors over time into a :class:`Diagnosis` of :class:`Finding`\\ s. All are immutable.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntEnum, StrEnum

import numpy as np
from numpy.typing import NDArray


class Severity(IntEnum):
    """How bad it is."""

    INFO = 0
    """Worth knowing, nothing lost."""
    WARNING = 1
    """At least 10 % of a job's work is being lost, or soon will be."""
    CRITICAL = 2
    """Work has stopped or hardware is at risk: a fault, a hang, a lost GPU, 30 % of a job's or service's work."""


WARNING_LOSS, CRITICAL_LOSS = 0.10, 0.30


def severity_of(loss: float) -> Severity:
    """Of a condition that costs this share of a job's work and puts nothing else at risk."""
    if loss >= CRITICAL_LOSS:
        return Severity.CRITICAL
    return Severity.WARNING if loss >= WARNING_LOSS else Severity.INFO


class Urgency(StrEnum):
    """When somebody has to act."""

    NOW = "now"
    TODAY = "today"
    LATER = "later"


@dataclass(frozen=True, slots=True)
class Scope:
    """Entities by key, in full. GPUs as the layout has them (``r07n01/0``), jobs by id (``slurm:4711``)."""

    racks: tuple[str, ...] = ()
    nodes: tuple[str, ...] = ()
    gpus: tuple[str, ...] = ()
    jobs: tuple[str, ...] = ()
    servers: tuple[str, ...] = ()
    ports: tuple[str, ...] = ()


NOWHERE = Scope()


@dataclass(frozen=True, slots=True)
class Evidence:
    """One measured fact behind a finding; ``value`` in the canonical ``unit``."""

    metric: str
    """A catalog key, or ``event.xid``."""
    entity: str
    value: float
    unit: str
    rule: str
    """What it was held against: ``>= 0.02``, ``peers 0.81``."""


@dataclass(frozen=True, slots=True)
class Rejected:
    """Another explanation that was looked at."""

    detector: str
    why: str
    """In a few words: ``power at 61 % of the limit``."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """What a detector found at one entity at one instant, before triage."""

    detector: str
    """A finding id: ``thermal_throttling``."""
    variant: str
    """Which of the detector's texts tells of it: ``hbm``, ``cpu``; a table ``[text.<variant>]`` of its TOML file."""
    roots: Scope
    """The narrowest entities that cause it: one GPU, a node, a port, a server, or a job (with its nodes and GPUs)."""
    severity: Severity
    since: float
    """When it began, as far as the window shows."""
    loss: float
    """Share of the work of each job (or service) in ``roots``, or that runs on them, that is lost: 0..1."""
    confidence: float
    """0..1"""
    evidence: tuple[Evidence, ...]
    """At least two independent signals, except for an event that is evidence by itself (an XID)."""
    since_bound: bool = False
    """Whether it may have begun earlier than the window reaches."""
    is_open: bool = True
    """Whether it is strong enough to open a finding; False: enough to keep one open."""
    is_immediate: bool = False
    """Whether one observation is enough: an XID, a link that went down."""
    victims: Scope = NOWHERE
    """Who suffers without being the cause; triage adds the rest of the jobs that run in lock-step."""
    rejected: tuple[Rejected, ...] = ()
    missing: tuple[str, ...] = ()
    """``gpu.mem_temp: not exported``"""
    words: Mapping[str, str] = field(default_factory=dict)
    """For the placeholders of the text: ``{"share": "31 %"}``. Foreign text is made inert where it is shown."""
    group: str = ""
    """A cause that several candidates may share beyond where they stand: a file system, a model, a driver; ``nfs:/data``."""


@dataclass(frozen=True, slots=True)
class Undecided:
    """What a detector saw and cannot tell for want of a signal."""

    detector: str
    scope: Scope
    why: str
    """``cannot tell starvation from idle without gpu.sm_active``, ``no host metrics for r11n[01-02]``."""


@dataclass(frozen=True, slots=True)
class Warming:
    """A detector that has not seen enough yet."""

    detector: str
    have: float
    need: float
    unit: str = "polls"
    """``polls`` or ``s``"""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What one detector says of one window."""

    candidates: tuple[Candidate, ...] = ()
    undecided: tuple[Undecided, ...] = ()
    warming: Warming | None = None
    failed: bool = False
    """A mistake of ours: what was open stays as it was."""
    well: NDArray[np.bool_] | None = field(default=None, compare=False)
    """[gpu] measured to be free of it for long enough: what stood there is over. None: it does not tell."""


@dataclass(frozen=True, slots=True)
class Loss:
    """What a finding costs."""

    fraction: float
    """Of the work of the jobs it touches."""
    gpu_hours_per_hour: float


@dataclass(frozen=True, slots=True)
class Confirm:
    """A command that confirms a finding. coldaisle never runs it."""

    argv: tuple[str, ...]
    on: str
    """Node key, ``login`` or ``here``."""
    needs: str
    """``user``, ``root``, ``drained``"""


@dataclass(frozen=True, slots=True)
class Finding:
    """A condition that triage stands by, from when it was opened until it is cleared."""

    id: str
    """``thermal_throttling:r07``, the same from tick to tick and from process to process."""
    detector: str
    variant: str
    severity: Severity
    since: float
    since_bound: bool
    scope: Scope
    victims: Scope
    loss: Loss
    confidence: float
    title: str
    cause: str
    remedy: str
    urgency: Urgency
    urgency_why: str
    owner: str
    """``hardware``, ``facility``, ``fabric``, ``storage``, ``serving``, ``job owner``"""
    confirm: tuple[Confirm, ...] = ()
    changed: tuple[str, ...] = ()
    """What happened just before, a line each."""
    explains: tuple[str, ...] = ()
    """Firing alerts."""
    evidence: tuple[Evidence, ...] = ()
    rejected: tuple[Rejected, ...] = ()
    missing: tuple[str, ...] = ()
    symptoms: tuple[str, ...] = ()
    """Detectors whose candidates it explains away."""
    supersedes: tuple[str, ...] = ()
    """Ids that it was known by before it was regrouped."""
    opened_at: float = 0.0
    worsened_at: float | None = None
    cleared_at: float | None = None
    """None: it is open."""
    flaps: int = 0
    """How often it came back within minutes."""


class Workload(StrEnum):
    """What a job does."""

    TRAINING = "training"
    INFERENCE = "inference"
    INTERACTIVE = "interactive"
    IDLE = "idle"
    UNKNOWN = "unknown"


class Bound(StrEnum):
    """What a job's speed depends on."""

    COMPUTE = "compute"
    MEMORY = "memory bandwidth"
    COMMUNICATION = "communication"
    HOST = "host"
    LATENCY = "latency"
    MIXED = "mixed"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class JobClass:
    """Two properties of a job, and why."""

    workload: Workload = Workload.UNKNOWN
    bound: Bound = Bound.UNKNOWN
    why: str = ""


@dataclass(frozen=True, slots=True)
class Usefulness:
    """Is my fleet good? Useful GPU-hours of those allocated, and what costs most."""

    allocated: int
    """GPUs held by jobs and servers."""
    useful: float
    """Share of their work that is not lost: 0..1; NaN: nothing is allocated."""
    lost: float
    """GPU-hours an hour."""
    by_cause: tuple[tuple[str, float], ...] = ()
    """(detector, GPU-hours an hour), the costliest first."""


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """What is known to be wrong at an instant."""

    at: float
    findings: tuple[Finding, ...] = ()
    """Open ones: by urgency, then loss, then id."""
    cleared: tuple[Finding, ...] = ()
    """Within the last hour, newest first."""
    undecided: tuple[Undecided, ...] = ()
    warming: tuple[Warming, ...] = ()
    jobs: Mapping[str, JobClass] = field(default_factory=dict)
    """By job id."""
    unexplained: tuple[str, ...] = ()
    """Firing alerts that no finding explains."""
    usefulness: Usefulness | None = None


NO_DIAGNOSIS = Diagnosis(0.0)
