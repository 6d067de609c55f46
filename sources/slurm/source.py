"""Slurm as a source: jobs and nodes every minute, fabric and partitions every half hour, less while slurmctld is busy.

Only questions about everything, never one about a job: at most four requests a minute reach slurmctld in the
default setting (jobs one, nodes two, and now and then sdiag, the topology and the partitions); at the start, once,
all six of them.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncGenerator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from coldaisle.sources.errors import AccessDenied, ConfigError, SourceError, Unusable
from coldaisle.sources.settings import SlurmSettings
from coldaisle.sources.slurm.commands import Commands
from coldaisle.sources.slurm.door import Door
from coldaisle.sources.slurm.local import LocalRunner
from coldaisle.sources.slurm.records import Diagnosis, Nodes, Topology
from coldaisle.sources.slurm.telling import FAITHFUL_S, Teller, happened_to, in_order
from coldaisle.sources.slurm.topology import MAX_TEXT, read_conf, read_yaml
from coldaisle.sources.source import Clock, Item, Rank, Target, TargetState

if TYPE_CHECKING:
    from coldaisle.sources.ssh_login import Secrets

log = logging.getLogger(__name__)

DIAGNOSIS_EVERY_S = 300.0
TOPOLOGY_EVERY_S = 1800.0
PARTITIONS_EVERY_S = 1800.0
DOUBT_S = 300.0
"""So old must be what is known of partitions to be asked for again, where the queue speaks against it."""
BUSY_THREADS = 100
"""Of the 256 requests that slurmctld works on at a time."""
SLOW_S = 10.0
"""So long may jobs or nodes take before we ask less often."""
SLOWEST = 8
"""Times the interval, while it is busy."""
DENIED_PAUSE_S = 600.0
CONTROLLER = "slurmctld"
_PATIENCE = "run: scontrol ping; give it time: that slurmctld is down shows after 10 s, that it hangs after the timeout"
"""Slurm's commands and slurmrestd themselves try for about 10 s."""


class SlurmSource:
    """A cluster of a configuration. Raises ConfigError for an address that is none, or unsafe."""

    kind = "slurm"
    rank = Rank.SCHEDULER
    has_no_samples = True

    def __init__(
        self,
        settings: SlurmSettings,
        *,
        clock: Clock = time.time,
        has_racks: bool = False,
        door: Door | None = None,
        secrets: Secrets | None = None,
    ) -> None:
        """``has_racks``: whether it says where nodes stand."""
        self.name = settings.name
        self.interval = settings.interval
        self.slowness = 1
        """Times the interval that is waited, because slurmctld is busy."""
        self._settings = settings
        self._clock = clock
        self._has_racks = has_racks
        self._given = door
        self._secrets = secrets
        self._door = door or door_to(settings, secrets)
        self._is_busy = False
        self._left_out = 0
        self._unplaced = 0
        self._known: Glimpse | None = None
        """What was told last, for a past to lean on: it is not asked for again."""
        self._ahead: Glimpse | None = None
        """What a past has asked for just before the first turn, and spares it."""

    async def stream(self) -> AsyncGenerator[Item, None]:
        """Facts and events until closed; what it has opened ends with it."""
        teller = self._teller()
        schedule = Schedule()
        try:
            yield self._target(TargetState.CONNECTING, "asking slurmctld", _PATIENCE)
            while True:
                began = time.monotonic()
                try:
                    async for item in self._look(teller, schedule):
                        yield item
                    yield self._fine(teller, time.monotonic() - began)
                    pause = self.interval * self.slowness
                except (SourceError, ConfigError) as error:
                    log.info("slurm %s: %s", self.name, error)
                    yield self._failed(error)
                    schedule.forget()
                    pause = DENIED_PAUSE_S if isinstance(error, AccessDenied) else self.interval
                    pause = max(pause, self.interval)
                await asyncio.sleep(max(0.0, pause - (time.monotonic() - began)))
        finally:
            await self._door.aclose()

    async def read(self, start: float, end: float, step: float) -> AsyncGenerator[Item, None]:
        """Jobs that accounting knows between two instants with their starts and ends, oldest first; before them their nodes.

        Raises SourceError where there is no accounting.
        """
        teller = self._teller()
        door = self._given or door_to(self._settings, self._secrets)
        try:
            known = self._known
            if known is None:
                said, began = Diagnosis(None, None, None, {}), self._clock()
                with suppress(Unusable):
                    said = await door.diagnosis()
                offset = _offset(said, began, self._clock())
                self._known = self._ahead = known = Glimpse(await door.nodes(), said, offset)
            teller.offset_s = offset = known.offset_s
            teller.take_nodes(known.nodes, self._clock())
            jobs = teller.past(await door.past(start + offset, end + offset), start, end)
            for fact in teller.nodes_then(jobs, start):
                yield fact
            for item in in_order(jobs, happened_to(jobs, start, end)):
                yield item
        finally:
            if self._given is None:
                await door.aclose()

    def _teller(self) -> Teller:
        settings = self._settings
        topology = read_topology_file(Path(settings.topology)) if settings.topology else None
        return Teller(all_nodes=settings.all_nodes, has_racks=self._has_racks, topology=topology)

    async def _look(self, teller: Teller, schedule: Schedule) -> AsyncGenerator[Item, None]:
        """One turn: what is due, nodes before the jobs that stand on them."""
        now = time.monotonic()
        door = self._door
        ahead, self._ahead = self._ahead, None
        if schedule.diagnosis_at <= now:
            await self._diagnose(teller, ahead)
            schedule.diagnosis_at = now + DIAGNOSIS_EVERY_S
        if schedule.topology_at <= now and not self._settings.topology:
            topology = await door.topology()
            if topology is not None:
                teller.take_topology(topology)
            schedule.topology_at = now + TOPOLOGY_EVERY_S
        began = time.monotonic()
        nodes = ahead.nodes if ahead is not None else await door.nodes()
        self._known = Glimpse(nodes, None, teller.offset_s)
        for item in teller.take_nodes(nodes, self._clock()):
            yield item
        jobs = await door.jobs()
        if jobs is not None:
            for item in teller.take_jobs(jobs, self._clock()):
                yield item
            self._left_out = jobs.left_out + nodes.left_out
            self._unplaced = sum(job.state == "RUNNING" and not job.nodes for job in jobs.jobs)
            if teller.doubts_partitions(jobs):
                schedule.partitions_at = min(schedule.partitions_at, schedule.partitions_asked + DOUBT_S)
        if schedule.partitions_at <= now:
            schedule.partitions_asked, schedule.partitions_at = now, now + PARTITIONS_EVERY_S
            for item in await self._partitions(teller):
                yield item
        self._adapt(self._is_busy or time.monotonic() - began > SLOW_S)

    async def _partitions(self, teller: Teller) -> list[Item]:
        """Whoever may not ask for them, goes without."""
        try:
            return teller.take_partitions(await self._door.partitions(), self._clock())
        except Unusable as error:
            log.info("slurm %s: partitions: %s", self.name, error)
            return []

    async def _diagnose(self, teller: Teller, ahead: Glimpse | None) -> None:
        """How busy it is, and what its clock says. Whoever may not ask goes without."""
        try:
            if ahead is not None and ahead.diagnosis is not None:
                said, teller.offset_s = ahead.diagnosis, ahead.offset_s
            else:
                began = self._clock()
                said = await self._door.diagnosis()
                teller.offset_s = _offset(said, began, self._clock())
            self._is_busy = said.threads is not None and said.threads >= BUSY_THREADS
        except Unusable as error:
            log.info("slurm %s: sdiag: %s", self.name, error)

    def _adapt(self, is_busy: bool) -> None:
        self.slowness = min(SLOWEST, self.slowness * 2) if is_busy else max(1, self.slowness // 2)

    # --- how it does ------------------------------------------------------------------------------

    def _fine(self, teller: Teller, took_s: float) -> Target:
        said = []
        if abs(teller.offset_s) > FAITHFUL_S:
            side = "ahead of" if teller.offset_s > 0 else "behind"
            said.append(f"its clock is {abs(teller.offset_s):.0f} s {side} ours")
        if self._left_out:
            said.append(f"{self._left_out} jobs or nodes left out: not readable, or too many")
        if self._unplaced:
            said.append(
                f"running jobs without nodes: {self._unplaced}; their node lists cannot be read, or name too many"
            )
        if self.slowness > 1:
            said.append(f"slurmctld is busy: asked every {self.interval * self.slowness:.0f} s")
        state = TargetState.SLOW if self.slowness > 1 else TargetState.OK
        return self._target(state, "; ".join(said), latency_s=took_s)

    def _failed(self, error: SourceError | ConfigError) -> Target:
        state = TargetState.DENIED if isinstance(error, AccessDenied) else TargetState.FAILING
        return self._target(state, f"{error}", error.remedy)

    def _target(
        self, state: TargetState, detail: str, remedy: str = "", latency_s: float | None = None
    ) -> Target:
        return Target(
            self._clock(),
            CONTROLLER,
            state,
            (),
            detail,
            remedy,
            latency_s,
            f"{self._door.what} by {self._door.target}",
        )


class Glimpse(NamedTuple):
    """What was told at one time."""

    nodes: Nodes
    diagnosis: Diagnosis | None
    offset_s: float
    """slurmctld's clock minus ours."""


class Schedule:
    """When what is asked less often is due; by the monotonic clock."""

    def __init__(self) -> None:
        self.forget()

    def forget(self) -> None:
        """Everything is due: slurmctld may be another one now."""
        self.diagnosis_at = self.topology_at = self.partitions_at = self.partitions_asked = float("-inf")


def door_to(settings: SlurmSettings, secrets: Secrets | None = None) -> Door:
    """By ``via``; ``secrets`` were typed for a login node. Raises ConfigError."""
    via = settings.via
    if via == "local":
        return Commands(LocalRunner(), settings.timeout)
    if via.startswith("ssh:"):
        from coldaisle.sources.slurm.login import LoginRunner

        return Commands(LoginRunner(settings, secrets), settings.timeout)
    from coldaisle.sources.slurm.rest import Rest

    return Rest(settings)


def _offset(said: Diagnosis, began: float, ended: float) -> float:
    """slurmctld's clock minus ours; 0 within what the time of asking leaves open. It counts whole seconds."""
    offset = 0.0 if said.at is None else said.at + 0.5 - (began + ended) / 2
    return offset if abs(offset) > (ended - began) / 2 + 0.5 else 0.0


def read_topology_file(path: Path) -> Topology:
    """A topology.conf or topology.yaml of the site's. Raises ConfigError."""
    try:
        with path.open("rb") as file:
            text = file.read(MAX_TEXT).decode("utf-8", "replace")
    except OSError as error:
        raise ConfigError(
            f"topology {path}: {error.strerror}", "check the path and its permissions"
        ) from None
    topology = read_yaml(text) if path.suffix in (".yaml", ".yml") else read_conf(text, path.name)
    if not topology.switches:
        raise ConfigError(
            f"topology {path}: no switch and no block with nodes in it",
            "it is Slurm's topology.conf or topology.yaml",
        )
    return topology
