"""The four utilisations of a pool, which are never mixed: allocated, busy, active, achieved.

========== ============================================== =================================================
allocated  GPU time held by jobs                          of what is installed
busy       time with a kernel resident                    of allocated time
active     SMs with a warp (tensor cores, else)           of busy time
achieved   flop/s, and bytes/s of device memory           of what the busy boards could do at the highest clock
========== ============================================== =================================================

Each is a share of the one before, so that all four together say what is made of what was bought.
"""

from __future__ import annotations

from dataclasses import dataclass

from coldaisle.analyzers.sizing.quantity import Quantity


@dataclass(frozen=True, slots=True)
class Measured:
    """One utilisation of one group. ``ratio`` is None where it cannot be known, and ``why`` says why."""

    ratio: Quantity | None = None
    samples: int = 0
    """Bins of single boards that it rests on."""
    coverage: float = 0.0
    """Of those that it should rest on."""
    metric: str = ""
    """What it was measured by."""
    why: str = ""


UNKNOWN = Measured(why="not measured yet")


@dataclass(frozen=True, slots=True)
class Use:
    """The four of one group: a rack, a user. ``name`` may be other people's text."""

    name: str
    boards: int
    """Installed in it, or used by it; 0: not known."""
    gpu_hours: Quantity | None = None
    """Allocated; None: jobs are not known."""
    allocated: Measured = UNKNOWN
    busy: Measured = UNKNOWN
    active: Measured = UNKNOWN
    flops: Measured = UNKNOWN
    """Achieved flop/s."""
    bandwidth: Measured = UNKNOWN
    """Achieved bytes/s of device memory."""


@dataclass(frozen=True, slots=True)
class Utilisations:
    """Of the cluster and of its parts; users and names with the most GPU-hours first."""

    cluster: Use
    racks: tuple[Use, ...] = ()
    partitions: tuple[Use, ...] = ()
    users: tuple[Use, ...] = ()
    names: tuple[Use, ...] = ()
    """By job name, of all users."""


NOT_KNOWN = Utilisations(Use("", 0))
