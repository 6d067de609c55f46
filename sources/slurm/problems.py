"""What Slurm says when it will not, or cannot: as errors with what to do."""

from __future__ import annotations

import re

from coldaisle.sources.errors import AccessDenied, SourceError, TimedOut, Unreachable, Unusable
from coldaisle.sources.text import plain

TOKEN = 'get a new one: scontrol token lifespan=..., and see that it is the token of "user"'
_UNREACHABLE = re.compile(
    r"(?i)unable to contact slurm controller|connect failure|failed while looking for|connection refused"
    r"|slurm_load_\w+ error|communications? (?:connection|shutdown)|unable to establish"
)
_DENIED = re.compile(
    r"(?i)authentication|auth_g|munge|credential|access.{0,10}denied|invalid user|permission denied|zero bytes were trans"
)
_SLOW = re.compile(r"(?i)timed? ?out|timeout")
_CONFIGURATION = re.compile(
    r"(?i)fatal: |could not establish a configuration source|unable to process configuration"
)


def problem_said(target: str, said: str) -> SourceError:
    """An error of slurmctld's or of a command's, by its text."""
    text = plain(" ".join(said.split()), 300)
    if _CONFIGURATION.search(said):
        return Unusable(target, text, "Slurm's commands do not work there: try squeue by hand (SLURM_CONF?)")
    if re.search(r"(?i)accounting storage is disabled|slurmdbd", said):
        return Unusable(target, text, "accounting needs slurmdbd; without it Slurm has no past to tell")
    if _DENIED.search(said):
        return AccessDenied(
            target, text, "see that munge runs there and that its clock and key are the controller's"
        )
    if _SLOW.search(said):
        return TimedOut(target, text, "slurmctld is busy, or hangs: see sdiag")
    if _UNREACHABLE.search(said):
        return Unreachable(
            target, f"slurmctld does not answer: {text}", "run: scontrol ping, and see that slurmctld runs"
        )
    return Unusable(target, text, "try the same by hand")
