"""How we behave towards hosts that others use too; light, so that it can be asked before anything heavy is loaded."""

from __future__ import annotations

from collections.abc import Sequence

MANY_HOSTS = 64
"""More hosts than this are only logged in to when a person, or the configuration, has said so."""
FIRST_BACKLOG_S = 900.0
"""Of the kernel log at the first start: as long as the history is kept in full, so that the XID behind a dead
GPU is seen although it came before us, and yesterday's are not. A younger host has a shorter log."""
BACKLOGS_S = (0.0, 60.0, 600.0, 3600.0)
"""How far back a probe that comes again reads the kernel log; few values, because each makes a payload."""


def needs_confirmation(hosts: Sequence[str]) -> bool:
    """Whether so many logins should be confirmed by a person first."""
    return len(set(hosts)) > MANY_HOSTS


def backlog_after(quiet_s: float) -> float:
    """How much of a host's kernel log to read when nobody has listened to it for so long; infinite: never yet."""
    if quiet_s == float("inf"):
        return FIRST_BACKLOG_S
    return next((limit for limit in BACKLOGS_S if quiet_s <= limit), BACKLOGS_S[-1])
