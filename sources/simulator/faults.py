"""What goes wrong, where, from when until when: a schedule drawn from the seed, and the ground truth.

Each lane holds one kind of fault; it cuts time into cycles and puts one episode into each, at a target
that exists then. What an episode *does* is physics (:mod:`.simulation`), not a list of symptoms.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from coldaisle.sources.simulator.plan import Plan
from coldaisle.sources.simulator.workloads import JobRun, Work, Workload


class Lane(NamedTuple):
    """How often a kind of fault comes, how long it stays, how strong it is."""

    fault: str
    cycle: float
    shortest: float
    longest: float
    """Seconds."""
    weakest: float
    strongest: float
    """What the number means is said at :class:`Episode`."""


LANES: tuple[Lane, ...] = (
    Lane("inlet_rise", 1260, 270, 480, 17.0, 26.0),
    Lane("gpu_lost", 1500, 240, 420, 1.0, 1.0),
    Lane("loader_starvation", 1080, 300, 600, 1.6, 3.0),
    Lane("idle_allocation", 7200, 3600, 5400, 1.0, 1.0),
    Lane("kv_pressure", 900, 240, 420, 1.6, 2.6),
    Lane("lame_rail", 3600, 1200, 2400, 0.25, 0.5),
    Lane("node_silent", 1320, 60, 180, 1.0, 1.0),
    Lane("power_cap", 2400, 900, 1500, 0.62, 0.8),
    Lane("cooling_loss", 1800, 600, 1200, 1.5, 2.1),
    Lane("server_down", 1140, 70, 160, 1.0, 1.0),
)
_RACKS_PER_LANE = 16
"""One lane of each kind per so many racks."""


@dataclass(frozen=True, slots=True)
class Episode:
    """One fault: the label of the ground truth.

    ``strength`` is, by fault: inlet_rise, degrees Celsius; loader_starvation, time to make a batch over
    time to use it; kv_pressure, factor of the arrivals; lame_rail, share of the link rate that is left;
    power_cap, share of the default limit; cooling_loss, factor of the slow thermal resistance; else 1.
    """

    fault: str
    start: float
    end: float
    strength: float
    rack: int = -1
    node: int = -1
    gpu: int = -1
    port: int = -1
    replica: int = -1
    job: tuple[int, int] | None = None
    """(slot, number) of the job that suffers, see JobRun.key."""
    variant: str = ""
    """loader_starvation: ``cpu`` or ``io``."""

    def active(self, time: float) -> bool:
        return self.start <= time < self.end


class Schedule:
    """The episodes of a plan and its workload; a pure function of the seed and time."""

    def __init__(self, plan: Plan, workload: Workload, lanes: tuple[Lane, ...] = LANES) -> None:
        self._plan = plan
        self._workload = workload
        copies = max(1, round(len(plan.racks) / _RACKS_PER_LANE))
        self._lanes = tuple(lane for lane in lanes for _ in range(copies))
        draw = np.random.default_rng((plan.seed, 3))
        self._offsets = draw.random(len(self._lanes))
        self._known: dict[tuple[int, int], Episode | None] = {}

    def between(self, start: float, end: float) -> tuple[Episode, ...]:
        """Episodes that touch [start, end), oldest first."""
        found = [
            episode for episode in self._candidates(start, end) if episode.start < end and episode.end > start
        ]
        return tuple(sorted(found, key=lambda episode: (episode.start, episode.fault)))

    def _candidates(self, start: float, end: float) -> Iterator[Episode]:
        for number, lane in enumerate(self._lanes):
            first = int(start / lane.cycle - self._offsets[number]) - 1
            last = int(end / lane.cycle - self._offsets[number])
            for cycle in range(first, last + 1):
                episode = self._episode(number, cycle)
                if episode is not None:
                    yield episode

    def _episode(self, number: int, cycle: int) -> Episode | None:
        key = (number, cycle)
        if key not in self._known:
            if len(self._known) > 64 * len(self._lanes):
                self._known.clear()
            self._known[key] = self._draw(number, cycle)
        return self._known[key]

    def _draw(self, number: int, cycle: int) -> Episode | None:
        lane = self._lanes[number]
        draw = np.random.default_rng((self._plan.seed, 4, number, cycle % 2**31))
        length = float(draw.uniform(lane.shortest, lane.longest))
        place = (cycle + float(self._offsets[number])) * lane.cycle
        start = round(place + float(draw.random()) * (lane.cycle - length) * 0.5, 1)
        episode = Episode(
            lane.fault, start, round(start + length, 1), float(draw.uniform(lane.weakest, lane.strongest))
        )
        return self._aimed(episode, draw)

    def _aimed(self, episode: Episode, draw: np.random.Generator) -> Episode | None:
        """The episode with its target, or None where the cluster has none."""
        fault = episode.fault
        if fault in ("inlet_rise", "power_cap"):
            return replace(episode, rack=self._loaded_rack(episode.start, draw))
        if fault == "node_silent":
            return replace(episode, node=int(draw.integers(len(self._plan.nodes))))
        if fault == "kv_pressure":
            busy = [i for i, r in enumerate(self._workload.replicas) if r.service in (0, 1)]
            return replace(episode, replica=int(draw.choice(busy))) if busy else None
        if fault == "server_down":
            replicas = len(self._workload.replicas)
            return replace(episode, replica=int(draw.integers(replicas))) if replicas else None
        return self._on_job(episode, draw)

    def _loaded_rack(self, time: float, draw: np.random.Generator) -> int:
        """A rack, the likelier the more heat it makes."""
        heat = np.full(len(self._plan.racks), 0.1)
        for job in self._workload.at(time):
            np.add.at(heat, self._plan.rack_of[list(job.nodes)], _load(job) / len(job.nodes))
        heat **= 2
        return int(draw.choice(len(heat), p=heat / heat.sum()))

    def _on_job(self, episode: Episode, draw: np.random.Generator) -> Episode | None:
        jobs = [job for job in self._workload.at(episode.start) if _fits(episode, job)]
        if not jobs:
            return None
        lasting = [job for job in jobs if job.until >= episode.end and job.since + 120 < episode.start]
        choice = lasting or jobs
        load = np.array([_load(job) for job in choice])
        job = choice[int(draw.choice(len(choice), p=load / load.sum()))]
        return _at_job(episode, job, self._plan.slots, draw)


def _load(job: JobRun) -> float:
    """How much a job strains its part of the room: boards and how busy they are."""
    return len(job.gpus) * (0.05 + job.profile.sm) ** 2


def _fits(episode: Episode, job: JobRun) -> bool:
    """Whether a job can meet this fault."""
    if job.profile.work is not Work.TRAIN:
        return False
    if episode.fault == "lame_rail":
        return len(job.nodes) > 1
    if episode.fault == "idle_allocation":
        return len(job.nodes) <= 2
    return True


def _at_job(episode: Episode, job: JobRun, slots: int, draw: np.random.Generator) -> Episode:
    gpu = int(draw.choice(job.gpus))
    if episode.fault == "loader_starvation":
        return replace(episode, job=job.key, variant="cpu" if draw.random() < 0.65 else "io")
    if episode.fault == "idle_allocation":
        return replace(episode, job=job.key)
    if episode.fault == "lame_rail":
        return replace(episode, job=job.key, node=gpu // slots, port=gpu)
    return replace(episode, job=job.key, node=gpu // slots, gpu=gpu)
