"""The way to Slurm: what every one of them can be asked."""

from __future__ import annotations

from typing import Protocol

from coldaisle.sources.slurm.records import Diagnosis, Jobs, Nodes, Partitions, SlurmJob, Topology


class Door(Protocol):
    """Its commands here, its commands on a login node, or slurmrestd. Every question may raise SourceError."""

    target: str
    """Who is asked, in words without secrets: ``login1``, ``http://rest:6820``."""
    what: str
    """Who answers, once that is known: ``Slurm 22.05.8, squeue --json``."""

    async def jobs(self) -> Jobs | None:
        """All jobs; None: nothing has changed since they were asked for last."""
        ...

    async def nodes(self) -> Nodes:
        """All nodes."""
        ...

    async def partitions(self) -> Partitions:
        """All partitions, hidden ones too."""
        ...

    async def diagnosis(self) -> Diagnosis:
        """How slurmctld is doing."""
        ...

    async def topology(self) -> Topology | None:
        """The fabric; None: cannot be asked for this way."""
        ...

    async def past(self, start: float, end: float) -> list[SlurmJob]:
        """Jobs that ran, or waited, between two instants of Slurm's clock; without which GPUs they had."""
        ...

    async def aclose(self) -> None:
        """End connections; the next question makes new ones."""
        ...
