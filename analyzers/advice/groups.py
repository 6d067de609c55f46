"""Jobs that belong together because one user starts them under one name: what is sized from them holds for the next one."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from coldaisle.analyzers.advice.advice import Ground, Refused
from coldaisle.analyzers.advice.pool import HOUR, Index, Numbers, Pool
from coldaisle.analyzers.advice.telling import counted, examples, title
from coldaisle.analyzers.finding import NOWHERE, Scope, Workload
from coldaisle.analyzers.hints import named as workload_named
from coldaisle.analyzers.usage import Stay

_FINETUNING = ("finetune", "fine-tune", "finetuning", "sft", "lora", "qlora", "dpo", "grpo", "rlhf")


@dataclass(frozen=True, slots=True, eq=False)
class Group:
    """One user's jobs of one name."""

    user: str
    name: str
    members: Index
    """Indices into the pool's stays, of those that ran within the span."""
    workload: str
    """training, finetuning, inference, interactive, or empty: not known."""

    @property
    def key(self) -> str:
        """``rsun/train``"""
        return f"{self.user}/{self.name}"

    def stays(self, pool: Pool) -> list[Stay]:
        """Its jobs."""
        return [pool.stays[number] for number in self.members.tolist()]

    def scope(self, pool: Pool) -> Scope:
        """Its jobs, the newest first."""
        return Scope(jobs=tuple(pool.stays[number].id for number in self.members[::-1][:200].tolist()))

    def title(self) -> str:
        """``'train' (rsun)``"""
        return title(self.user, self.name)


def workload_of(stay: Stay) -> str:
    """What a job does: as it was told of, or by its name; empty: not known. Fine-tuning is apart from training."""
    said = _said(stay.name[:400], stay.partition[:400])
    if said != "finetuning" and stay.workload and stay.workload != Workload.UNKNOWN:
        return stay.workload
    return said


@lru_cache(maxsize=20_000)
def _said(name: str, partition: str) -> str:
    if any(word in name.lower() for word in _FINETUNING):
        return "finetuning"
    found = workload_named(name) or workload_named(partition)
    return "" if found is None else str(found)


def groups(pool: Pool) -> tuple[Group, ...]:
    """All of them, by user and name. Left out: jobs without a name (what they have in common is not known) or without a GPU."""

    def make() -> tuple[Group, ...]:
        found: dict[tuple[str, str], list[int]] = {}
        for number in np.flatnonzero(pool.gpu_s > 0).tolist():
            stay = pool.stays[number]
            if stay.name:
                found.setdefault((stay.user, stay.name), []).append(number)
        return tuple(
            Group(user, name, np.array(members, dtype=np.intp), _workload(pool, members))
            for (user, name), members in found.items()
        )

    return pool.cached("groups", make)


def _workload(pool: Pool, members: list[int]) -> str:
    """What most of them do."""
    told = [workload_of(pool.stays[number]) for number in members[-50:]]
    return max(dict.fromkeys(told), key=told.count)


def sized(pool: Pool, rule: str, measured: bool = True) -> Iterator[Group | Refused]:
    """Groups from which something may be sized, and in one line how many are too thin. ``measured``: by their GPUs' readings."""
    common = pool.common
    if pool.is_snapshot:
        yield Refused(rule, NOWHERE, f"a look of {pool.usage.span_s / 60:.0f} min sizes nothing")
        return
    if not pool.usage.jobs_known:
        yield Refused(rule, NOWHERE, "jobs are not known")
        return
    busy = busy_s(pool) if measured else None
    if measured and busy is None:
        yield Refused(rule, NOWHERE, "neither gpu.util nor gpu.gr_active is measured")
        return
    few = idle = thin = 0
    for group in groups(pool):
        members = group.members
        if len(members) < common.least_jobs:
            few += 1
        elif busy is None:
            yield group
        elif not float(np.nan_to_num(pool.coverage[members]).mean()) >= common.least_coverage:
            thin += 1
        elif busy[members].sum() < common.least_busy_s:
            idle += 1
        else:
            yield group
    unnamed = sum(not pool.stays[number].name for number in np.flatnonzero(pool.gpu_s > 0).tolist())
    reasons = [
        (few, f"of fewer than {common.least_jobs} jobs"),
        (thin, f"measured for less than {common.least_coverage:.0%} of their time"),
        (idle, f"busy for less than {common.least_busy_s / HOUR:.0f} h"),
    ]
    told = [f"{counted(number, 'group')} of a user and a name {why}" for number, why in reasons if number]
    if unnamed:
        told.append(f"{counted(unnamed, 'job')} without a name, by which jobs are compared")
    if told:
        yield Refused(rule, NOWHERE, "; ".join(told))


def busy_s(pool: Pool) -> Numbers | None:
    """[stay] seconds of its GPUs with a kernel, each counted; None: not measured."""
    busy = pool.busy
    if busy is None:
        return None
    return pool.cached("busy seconds", lambda: pool.by_stay(pool.sums(busy)) * pool.usage.step)


def mean_of(pool: Pool, key: str) -> Numbers | None:
    """[stay] mean of a metric over its GPUs; NaN: not measured of it; None: of nobody."""
    values = pool.metric(key)
    if values is None:
        return None

    def make() -> Numbers:
        total, count = pool.by_stay(pool.sums(values)), pool.by_stay(pool.sums(~np.isnan(values)))
        means: Numbers = np.where(count > 0, total / np.maximum(count, 1), np.nan)
        return means

    return pool.cached(("mean", key), make)


def ground(pool: Pool, group: Group, metric: str) -> Ground:
    """What is known of a group's jobs by a metric."""
    coverage = pool.coverage[group.members]
    known = coverage[~np.isnan(coverage)]
    is_told = metric.startswith(("slurm.", "jobs."))
    cells = pool.by_stay(pool.holds.bins.astype(np.float64))[group.members].sum()
    share = 1.0 if is_told else float(known.mean()) if len(known) else 0.0
    return Ground(
        metric,
        pool.usage.span_s,
        len(group.members) if is_told else int(cells * share),
        share,
        examples(group.stays(pool)),
    )
