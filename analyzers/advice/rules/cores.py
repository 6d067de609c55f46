"""Cores a GPU, in both directions: GPUs that wait for hosts, and hosts whose cores nobody uses.

Starved: GPUs busy below 60 % while the job's cores are used above 90 % -> cores x (target / busy). Released: cores used below
25 % at p95. Sources: Princeton's jobstats (CPU below 65 % is noted).
"""

from __future__ import annotations

from collections.abc import Iterator

import msgspec
import numpy as np

from coldaisle.analyzers.advice.advice import Advice, Grade, Refused, Saving
from coldaisle.analyzers.advice.groups import Group, ground, mean_of, sized
from coldaisle.analyzers.advice.intervals import quantile
from coldaisle.analyzers.advice.pool import HOUR, Numbers, Pool
from coldaisle.analyzers.advice.telling import between

NAME = "cores"


class Thresholds(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """See the TOML file."""

    starved_busy: float
    starved_cpu: float
    target_busy: float
    spare_cpu: float
    headroom: float
    least_a_gpu: float


def advise(pool: Pool, rules: Thresholds) -> Iterator[Advice | Refused]:
    """A line a group that has too few cores, or far too many."""
    for group in sized(pool, NAME):
        if isinstance(group, Refused):
            yield group
        elif group.workload not in ("inference", "interactive") and (found := _cores(pool, rules, group)):
            yield found


def used_share(pool: Pool) -> Numbers:
    """[stay] share of its cores that it used: of accounting, else of its nodes where it had whole ones; NaN: not known."""

    def make() -> Numbers:
        out = np.full(len(pool.stays), np.nan)
        cpu = pool.usage.host_means.get("node.cpu_util")
        for number in np.flatnonzero(pool.inside_s > 0).tolist():
            stay = pool.stays[number]
            lasts = (pool.ended[number] - pool.started[number]) * (stay.cores or 0)
            if np.isfinite(stay.cpu_s) and lasts > 0:
                out[number] = min(stay.cpu_s / lasts, 1.0)
            elif cpu is not None and stay.cores and stay.hosts:
                out[number] = _of_hosts(pool, number, cpu)
        return out

    return pool.cached("cores used", make)


def _of_hosts(pool: Pool, number: int, cpu: np.ndarray[tuple[int, ...], np.dtype[np.float32]]) -> float:
    """Where a job has all GPUs of its nodes, what they use is its own."""
    stay = pool.stays[number]
    hosts = [host for host in stay.hosts if 0 <= host < len(pool.usage.hosts)]
    nodes = {pool.usage.hosts[host].key for host in hosts}
    boards = pool.boards_of[number]
    if boards is None or sum(board.node in nodes for board in pool.usage.boards) != len(boards):
        return float("nan")
    cores = sum(pool.usage.hosts[host].cores or 0 for host in hosts)
    inside = (pool.usage.starts >= pool.started[number]) & (pool.usage.starts < pool.ended[number])
    part = cpu[inside][:, hosts]
    if not cores or not part.size or np.isnan(part).all():
        return float("nan")
    return float(np.clip(np.nanmean(part) * cores / (stay.cores or cores), 0, 1))


def _cores(pool: Pool, rules: Thresholds, group: Group) -> Advice | None:
    stays = group.stays(pool)
    gpus = np.array([stay.gpu_count for stay in stays], dtype=np.float64)
    cores = np.array([stay.cores or np.nan for stay in stays], dtype=np.float64) / np.where(
        gpus > 0, gpus, np.nan
    )
    share = used_share(pool)[group.members]
    busy = mean_of(pool, pool.busy_metric)
    known = np.isfinite(share) & np.isfinite(cores)
    if busy is None or known.sum() < pool.common.least_jobs:
        return None
    a_gpu, works = float(np.median(cores[known])), float(np.nanmedian(busy[group.members]))
    top, usual = quantile(share[known], 0.95), float(np.median(share[known]))
    weeks = pool.weeks
    held = float(pool.gpu_s[group.members].sum()) / HOUR / weeks
    if works < rules.starved_busy and usual > rules.starved_cpu and works > 0.05:
        need = a_gpu * rules.target_busy / works
        action = f"give {group.title()} {need:.0f} instead of {a_gpu:.0f} cores a GPU"
        quantity = between(
            a_gpu,
            need,
            2 * need,
            "cores",
            "cores a GPU x target busy / busy",
            "guess: loading scales with cores",
        )
        gained = held * (1 - works / rules.target_busy)
        saving = Saving(between(0.0, gained, gained, "gpu_hours", "GPU time that waits for its hosts"))
        because = f"GPUs are busy {works:.0%} while {usual:.0%} of {a_gpu:.0f} cores a GPU are used"
        grade, but = Grade.C, "where loading waits for storage, cores do not help: look at I/O wait first"
    elif top.high < rules.spare_cpu and a_gpu > rules.least_a_gpu:
        need = max(np.ceil(a_gpu * top.value * rules.headroom), rules.least_a_gpu)
        if need > 0.7 * a_gpu:
            return None
        low = max(a_gpu * top.low, rules.least_a_gpu)
        high = min(max(a_gpu * top.high * rules.headroom + 1, need), a_gpu)
        action = f"ask for {need:.0f} instead of {a_gpu:.0f} cores a GPU in {group.title()}"
        quantity = between(
            low,
            need,
            high,
            "cores",
            f"cores a GPU x p95 of use x {rules.headroom}",
            "order statistics over jobs",
        )
        saving = Saving()
        because = f"{int(known.sum())} jobs used {usual:.0%} of their cores (p95 {top.value:.0%}), GPUs busy {works:.0%}"
        grade, but = Grade.B, "means over whole jobs hide a start that needs all of them"
    else:
        return None
    return Advice(
        id=f"{NAME}:{group.key}",
        rule=NAME,
        action=action,
        scope=group.scope(pool),
        quantity=quantity,
        saving=saving,
        grade=grade,
        grounds=(ground(pool, group, "slurm.cpu_time"), ground(pool, group, pool.busy_metric)),
        because=because,
        would_change="CPU use by process and over time, instead of means of jobs",
        but=but,
    )
