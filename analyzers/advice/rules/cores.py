"""Cores a GPU, in both directions: GPUs that wait for hosts, and hosts whose cores nobody uses.

Starved: GPUs busy below 60 % while the job's cores are used above 90 % -> cores x (target / busy). Released: cores used below
25 % at p95. Sources: Princeton's jobstats (CPU below 65 % is noted).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import msgspec
import numpy as np

from coldaisle.analyzers.advice.advice import Advice, Grade, Refused, Saving
from coldaisle.analyzers.advice.framing import SERVED, Said, of_group, over_groups
from coldaisle.analyzers.advice.groups import Group, mean_of
from coldaisle.analyzers.advice.intervals import Span, quantile
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
    yield from over_groups(pool, NAME, lambda group: _cores(pool, rules, group), but_not=SERVED)


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


class _Use(NamedTuple):
    """Of a group: cores a GPU, the share of them that is used, and how busy its GPUs are."""

    jobs: int
    a_gpu: float
    usual: float
    top: Span
    busy: float
    held: float
    """GPU-hours a week."""


def _cores(pool: Pool, rules: Thresholds, group: Group) -> Advice | None:
    use = _use(pool, group)
    said = None if use is None else _starved(rules, group, use) or _spare(rules, group, use)
    if said is None:
        return None
    return of_group(pool, NAME, group, said, "slurm.cpu_time", pool.busy_metric)


_BETTER = "CPU use by process and over time, instead of means of jobs"


def _use(pool: Pool, group: Group) -> _Use | None:
    """None: of too few jobs anything is known."""
    stays = group.stays(pool)
    gpus = np.array([stay.gpu_count or np.nan for stay in stays], dtype=np.float64)
    cores = np.array([stay.cores or np.nan for stay in stays], dtype=np.float64) / gpus
    share = used_share(pool)[group.members]
    busy = mean_of(pool, pool.busy_metric)
    known = np.isfinite(share) & np.isfinite(cores)
    if busy is None or known.sum() < pool.common.least_jobs:
        return None
    return _Use(
        int(known.sum()),
        float(np.median(cores[known])),
        float(np.median(share[known])),
        quantile(share[known], 0.95),
        float(np.nanmedian(busy[group.members])),
        float(pool.gpu_s[group.members].sum()) / HOUR / pool.weeks,
    )


def _starved(rules: Thresholds, group: Group, use: _Use) -> Said | None:
    """GPUs that wait for their hosts."""
    if not (0.05 < use.busy < rules.starved_busy and use.usual > rules.starved_cpu):
        return None
    need, gained = use.a_gpu * rules.target_busy / use.busy, use.held * (1 - use.busy / rules.target_busy)
    words, source = "cores a GPU x target busy / busy", "guess: loading scales with cores"
    return Said(
        f"give {group.title()} {need:.0f} instead of {use.a_gpu:.0f} cores a GPU",
        between(use.a_gpu, need, 2 * need, "cores", words, source),
        Grade.C,
        f"GPUs are busy {use.busy:.0%} while {use.usual:.0%} of {use.a_gpu:.0f} cores a GPU are used",
        _BETTER,
        "where loading waits for storage, cores do not help: look at I/O wait first",
        Saving(between(0.0, gained, gained, "gpu_hours", "GPU time that waits for its hosts")),
    )


def _spare(rules: Thresholds, group: Group, use: _Use) -> Said | None:
    """Cores that nobody uses."""
    if not (use.top.high < rules.spare_cpu and use.a_gpu > rules.least_a_gpu):
        return None
    need = max(np.ceil(use.a_gpu * use.top.value * rules.headroom), rules.least_a_gpu)
    if need > 0.7 * use.a_gpu:
        return None
    low = max(use.a_gpu * use.top.low, rules.least_a_gpu)
    high = min(max(use.a_gpu * use.top.high * rules.headroom + 1, need), use.a_gpu)
    words = f"cores a GPU x p95 of use x {rules.headroom}"
    return Said(
        f"ask for {need:.0f} instead of {use.a_gpu:.0f} cores a GPU in {group.title()}",
        between(low, need, high, "cores", words, "order statistics over jobs"),
        Grade.B,
        f"{use.jobs} jobs used {use.usual:.0%} of their cores (p95 {use.top.value:.0%}), GPUs busy {use.busy:.0%}",
        _BETTER,
        "means over whole jobs hide a start that needs all of them",
    )
