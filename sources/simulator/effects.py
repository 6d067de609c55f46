"""What the faults of an instant do to the machinery: factors and offsets on its parameters, as arrays."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from coldaisle.sources.simulator.faults import Episode
from coldaisle.sources.simulator.plan import Array, Bools, Plan
from coldaisle.sources.simulator.workloads import Assignment

INLET_LAG_S = 45.0
"""The room's air answers a loss of cooling with this lag, both ways."""
RESTART_S = 25.0
"""A job that lost a GPU loads its last checkpoint for so long once the GPU is back."""


@dataclass(frozen=True, slots=True, eq=False)
class Effects:
    """Neutral where nothing is wrong."""

    inlet: Array
    """[rack] degrees above the usual."""
    cap: Array
    """[gpu] enforced limit over default limit."""
    cooling: Array
    """[gpu] factor of the slow thermal resistance."""
    lost: Bools
    """[gpu] off the bus."""
    link: Array
    """[gpu] share of its rail's rate that is left."""
    batch: Array
    """[job + 1] time to make a batch over a healthy step's time; 0: no bound."""
    io_bound: Bools
    """[job + 1] the batches wait for files, not for cores."""
    hung: Bools
    """[job + 1] a rank is gone, the others wait in a collective."""
    stopped: Bools
    """[job + 1] no kernels: processes alive, nothing to do."""
    arrivals: Array
    """[replica] factor."""
    down: Bools
    """[replica] its process starts again: no requests, no answers."""
    silent: Bools
    """[node] does not answer our questions; its work goes on."""


def effects(
    plan: Plan, assignment: Assignment, episodes: tuple[Episode, ...], replicas: int, time: float
) -> Effects:
    """The sum of all episodes at ``time``; an inlet's tail outlives its episode."""
    jobs = len(assignment.jobs) + 1
    total = Effects(
        inlet=np.zeros(len(plan.racks)),
        cap=np.ones(plan.gpus),
        cooling=np.ones(plan.gpus),
        lost=np.zeros(plan.gpus, dtype=np.bool_),
        link=np.ones(plan.gpus),
        batch=np.zeros(jobs),
        io_bound=np.zeros(jobs, dtype=np.bool_),
        hung=np.zeros(jobs, dtype=np.bool_),
        stopped=np.zeros(jobs, dtype=np.bool_),
        arrivals=np.ones(replicas),
        down=np.zeros(replicas, dtype=np.bool_),
        silent=np.zeros(len(plan.nodes), dtype=np.bool_),
    )
    for episode in episodes:
        if episode.fault == "inlet_rise":
            _warm(total, episode, time)
        elif episode.active(time):
            _apply(plan, total, episode, assignment)
        elif episode.fault == "gpu_lost" and episode.end <= time < episode.end + RESTART_S:
            _on_job(total.stopped, episode, assignment)
    return total


def _warm(total: Effects, episode: Episode, time: float) -> None:
    """First-order rise and fall; the aisle's neighbours breathe a part of it."""
    risen = 1 - np.exp(-max(min(time, episode.end) - episode.start, 0.0) / INLET_LAG_S)
    now = episode.strength * risen * np.exp(-max(time - episode.end, 0.0) / INLET_LAG_S)
    total.inlet[episode.rack] += now
    for neighbour in (episode.rack - 1, episode.rack + 1):
        if 0 <= neighbour < len(total.inlet):
            total.inlet[neighbour] += 0.12 * now


def _apply(plan: Plan, total: Effects, episode: Episode, assignment: Assignment) -> None:
    fault = episode.fault
    if fault == "power_cap":
        total.cap[plan.rack_of[plan.node_of] == episode.rack] = np.round(episode.strength * 20) / 20
    elif fault == "cooling_loss":
        total.cooling[episode.gpu] = episode.strength
    elif fault == "gpu_lost":
        total.lost[episode.gpu] = True
        holder = assignment.job_of[episode.gpu]
        total.hung[holder] = holder < len(assignment.jobs)
    elif fault == "lame_rail":
        total.link[episode.port] = 0.25 if episode.strength < 0.375 else 0.5
    elif fault == "kv_pressure":
        total.arrivals[episode.replica] = episode.strength
    elif fault == "server_down":
        total.down[episode.replica] = True
        total.arrivals[episode.replica] = 0.0
    elif fault == "node_silent":
        total.silent[episode.node] = True
    elif fault == "idle_allocation":
        _on_job(total.stopped, episode, assignment)
    elif fault == "loader_starvation" and episode.job in assignment.index:
        job = assignment.index[episode.job]
        total.batch[job] = episode.strength
        total.io_bound[job] = episode.variant == "io"


def _on_job(mask: Bools, episode: Episode, assignment: Assignment) -> None:
    if episode.job is not None and episode.job in assignment.index:
        mask[assignment.index[episode.job]] = True
