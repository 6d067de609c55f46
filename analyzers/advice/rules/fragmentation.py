"""GPUs that are free while jobs wait, and that none of these can use: too few on a node, or no cores or memory left beside them.

Looked at once an hour. A job of more GPUs than a node has takes whole nodes.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

import msgspec
import numpy as np

from coldaisle.analyzers.advice.advice import Advice, Grade, Refused, Saving
from coldaisle.analyzers.advice.intervals import Span, bootstrap
from coldaisle.analyzers.advice.load import Load, loads, submitted, waits_for_hardware
from coldaisle.analyzers.advice.places import of_jobs, place, thin_load, without_load
from coldaisle.analyzers.advice.pool import DAY, HOUR, WEEK, Bools, Index, Numbers, Pool
from coldaisle.analyzers.advice.rules.out_of_service import is_out
from coldaisle.analyzers.advice.telling import counted
from coldaisle.analyzers.finding import NOWHERE, Scope

NAME = "fragmentation"
MOST_INSTANTS = 2000


class Thresholds(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """See the TOML file."""

    least_days: float
    least_share: float
    least_gpus: float


class Found(NamedTuple):
    """[instant] GPUs each; all 0 while nobody waits."""

    free: Numbers
    fragmented: Numbers
    stranded: Numbers
    """Enough of them on a node, but not of its cores or memory."""
    waits: Bools
    nodes: tuple[str, ...]
    """Of stranded GPUs."""


def advise(pool: Pool, rules: Thresholds) -> Iterator[Advice | Refused]:
    """A line a partition for either."""
    if refused := without_load(pool, NAME, rules.least_days):
        yield refused
        return
    if not len(pool.holds):
        yield Refused(NAME, NOWHERE, "which GPUs jobs held is not known, so which were free is not")
        return
    for load in loads(pool):
        if refused := thin_load(pool, NAME, load):
            yield refused
            continue
        found = _found(pool, load)
        least = max(rules.least_share * load.installed, rules.least_gpus)
        if (mean := _mean(pool, found.fragmented)).value >= least:
            yield _fragmented(pool, load, found, mean)
        if (mean := _mean(pool, found.stranded)).value >= least:
            yield _stranded(pool, load, found, mean)


def _fragmented(pool: Pool, load: Load, found: Found, mean: Span) -> Advice:
    return Advice(
        id=f"{NAME}:{load.partition}",
        rule=NAME,
        action=f"pack small jobs of {place(load.partition)} onto fewer nodes: {counted(mean.value, 'GPU')} free in pieces",
        scope=NOWHERE,
        quantity=mean.quantity(
            "gpus", "free GPUs on nodes with fewer than any waiting job takes, over all time"
        ),
        saving=Saving(mean.scaled(WEEK / HOUR).quantity("gpu_hours")),
        grade=Grade.B,
        grounds=(of_jobs(pool, load, "slurm.pending"),),
        because=_because(found, found.fragmented, "lay on nodes with fewer than any of them takes"),
        would_change="jobs that may run on fewer GPUs, or across nodes",
        but="what is left free for large jobs looks like this while these wait for the last node",
    )


def _stranded(pool: Pool, load: Load, found: Found, mean: Span) -> Advice:
    return Advice(
        id=f"{NAME}:stranded:{load.partition}",
        rule=NAME,
        action=f"limit cores and memory a GPU in {place(load.partition)}: {counted(mean.value, 'GPU')} free without them",
        scope=Scope(nodes=found.nodes[:200]),
        quantity=mean.quantity(
            "gpus", "free GPUs on nodes without the cores or memory that waiting jobs ask for"
        ),
        saving=Saving(mean.scaled(WEEK / HOUR).quantity("gpu_hours")),
        grade=Grade.B,
        grounds=(of_jobs(pool, load, "slurm.cores"),),
        because=_because(found, found.stranded, "had no cores or memory left beside them"),
        would_change="what jobs ask for in cores and memory a GPU",
        but="",
    )


def _because(found: Found, values: Numbers, why: str) -> str:
    share = float(found.waits.mean())
    waiting = float(values[found.waits].mean())
    free = float(found.free[found.waits].mean())
    return (
        f"jobs waited {share:.0%} of the time; of {free:,.1f} GPUs that were free then {waiting:,.1f} {why}"
    )


def _mean(pool: Pool, values: Numbers) -> Span:
    """Over all instants, by days drawn anew."""
    if not len(values):
        return Span(0.0, 0.0, 0.0)
    days = np.array_split(values, max(round(pool.usage.span_s / DAY), 1))
    sums = np.array([float(day.sum()) for day in days])
    sizes = np.array([len(day) for day in days], dtype=np.float64)

    def mean(chosen: Index) -> float:
        return float(sums[chosen].sum() / max(sizes[chosen].sum(), 1))

    low, high = bootstrap(len(days), mean, pool.common.resamples, pool.common.seed)
    value = float(values.mean())
    return Span(min(low, value), value, max(high, value))


def _found(pool: Pool, load: Load) -> Found:
    every = max(round(HOUR / pool.usage.step), math.ceil(pool.bins / MOST_INSTANTS), 1)
    bins = np.arange(every // 2, pool.bins, every)
    at = np.asarray(pool.start + (bins + 0.5) * pool.usage.step, dtype=np.float64)
    out = {host.key for host in pool.usage.hosts if is_out(host.state)}
    hosts = {host.key: number for number, host in enumerate(pool.usage.hosts)}
    names = [pool.usage.boards[board].node for board in load.boards.tolist()]
    nodes = tuple(dict.fromkeys(name for name in names if name not in out))
    number = {name: index for index, name in enumerate(nodes)}
    free = np.zeros((len(nodes), len(at)))
    size = np.zeros(len(nodes))
    for board, name in zip(load.boards.tolist(), names, strict=True):
        if name in number:
            free[number[name]] += ~pool.held[board, bins]
            size[number[name]] += 1
    each = float(size.max(initial=1.0))
    rows = [hosts.get(name, -1) for name in nodes]
    cores, memory = _left(pool, rows, at)
    need, cpus, ram, waits = _least(pool, load, at, each)
    some = free > 0
    fits = some & (free >= need)
    lacking = fits & ((cores < cpus) | (memory < ram))
    fragmented: Numbers = np.where(some & ~fits & waits, free, 0).sum(axis=0)
    stranded: Numbers = np.where(lacking & waits, free, 0).sum(axis=0)
    often = np.argsort(-(lacking & waits).sum(axis=1), kind="stable")
    told = tuple(nodes[index] for index in often.tolist() if (lacking & waits)[index].any())
    return Found(np.where(waits, free.sum(axis=0), 0), fragmented, stranded, waits, told)


def _least(pool: Pool, load: Load, at: Numbers, each: float) -> tuple[Numbers, Numbers, Numbers, Bools]:
    """[instant] the fewest GPUs, cores and bytes that a waiting job takes of a node (0: not told), and whether any waits."""
    need, cpus, ram = (np.full(len(at), np.inf) for _ in range(3))
    asked, started = submitted(pool), pool.started
    for member in load.members.tolist():
        stay = pool.stays[member]
        until = pool.ended[member] if math.isnan(started[member]) else started[member]
        if stay.gpu_count < 1 or not until > asked[member] or not waits_for_hardware(stay):
            continue
        low, high = np.searchsorted(at, (asked[member], until))
        share = min(each / stay.gpu_count, 1.0)
        for values, wanted in (
            (need, stay.gpu_count * share),
            (cpus, (stay.cores or 0) * share),
            (ram, np.nan_to_num(stay.memory_asked_bytes) * share),
        ):
            values[low:high] = np.minimum(values[low:high], wanted)
    return need, cpus, ram, np.isfinite(need)


def _left(pool: Pool, hosts: list[int], at: Numbers) -> tuple[Numbers, Numbers]:
    """([node, instant] cores, bytes) that no job was given; infinite where it is not known."""
    place_ = {host: row for row, host in enumerate(hosts) if host >= 0}
    told = [pool.usage.hosts[host] if host >= 0 else None for host in hosts]
    size = [(math.inf if one is None or not one.cores else float(one.cores)) for one in told]
    room = [(math.inf if one is None or math.isnan(one.memory_bytes) else one.memory_bytes) for one in told]
    cores = np.repeat(np.array(size, dtype=np.float64)[:, None], len(at), axis=1)
    memory = np.repeat(np.array(room, dtype=np.float64)[:, None], len(at), axis=1)
    for member in np.flatnonzero(pool.inside_s > 0).tolist():
        stay = pool.stays[member]
        low, high = np.searchsorted(at, (pool.started[member], pool.ended[member]))
        for host in stay.hosts:
            if host in place_ and high > low:
                row = place_[host]
                cores[row, low:high] -= (stay.cores or 0) / len(stay.hosts)
                memory[row, low:high] -= np.nan_to_num(stay.memory_asked_bytes) / len(stay.hosts)
    return cores, memory
