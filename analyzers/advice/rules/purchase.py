"""Which part, how many, for the work that is done today: by what binds it.

Buying nothing is always the first option. Where storage, hosts or links bind, these come before GPUs; where nothing does, new
hardware will not help. Training, fine-tuning and inference are looked at apart, each by its own rules.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import NamedTuple

import msgspec
import numpy as np

from coldaisle.analyzers.advice.advice import Advice, Grade, Ground, Refused, Saving
from coldaisle.analyzers.advice.attribution import RESOURCES, Bounds, Work, is_sized, works
from coldaisle.analyzers.advice.candidates import SCALING, Fullness, Option, count, speedup, within
from coldaisle.analyzers.advice.idling import Thresholds as Idling
from coldaisle.analyzers.advice.intervals import Span, bootstrap, effective, quantile
from coldaisle.analyzers.advice.load import whole
from coldaisle.analyzers.advice.measuring import block_starts
from coldaisle.analyzers.advice.places import short
from coldaisle.analyzers.advice.pool import HOUR, Index, Numbers, Pool
from coldaisle.analyzers.advice.reclaiming import reclaimable
from coldaisle.analyzers.advice.rules.offered_load import asked
from coldaisle.analyzers.advice.settings import table
from coldaisle.analyzers.advice.telling import counted, examples, named
from coldaisle.analyzers.finding import NOWHERE, Scope
from coldaisle.analyzers.sizing.quantity import Quantity, exact
from coldaisle.sources.parts.catalogue import Part, parts

NAME = "purchase"
LEAST_IDLE = 0.05
"""GPUs on average: less is not worth a word."""
FIRST = {
    "I/O": "faster storage or loading",
    "host": "more cores a GPU",
    "communication": "a faster fabric",
}
"""What comes before GPUs."""


class Rules(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Of one kind of work."""

    q: float
    wait: float
    most: float
    memory_q: float
    memory_is_reserved: bool = False
    is_sized: bool = True


class Thresholds(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """See the TOML file."""

    least_days: float
    least_share: float
    dominates: float
    faster: float
    doubt: float
    memory_room: float
    most_options: int
    candidates: list[str]
    other_vendors: bool
    bounds: Bounds
    work: dict[str, Rules]
    prices: dict[str, float] = {}
    power_w: float | None = None


class Bound(NamedTuple):
    """What binds most of the time."""

    resource: str
    share: Span
    shares: Mapping[str, float]
    """Of the time of its jobs that is accounted for."""


def advise(pool: Pool, rules: Thresholds) -> Iterator[Advice | Refused]:
    """A line a kind of work and part."""
    if refused := short(pool, NAME, rules.least_days) or _unmeasured(pool):
        yield refused
        return
    found = works(pool, rules.bounds)
    if not pool.gpu_s.any():
        yield Refused(NAME, NOWHERE, "no job held a GPU within the span")
        return
    if not found:
        yield Refused(NAME, NOWHERE, "which GPUs jobs held is not known, so what they were bound by is not")
        return
    total, small = sum(float(work.held.sum()) for work in found), 0
    for work in found:
        if float(work.held.sum()) < rules.least_share * total:
            small += 1
        else:
            yield _judged(pool, rules, work)
    if small:
        yield Refused(
            NAME, NOWHERE, f"{counted(small, 'kind')} of work with below {rules.least_share:.0%} of GPU time"
        )


def _unmeasured(pool: Pool) -> Refused | None:
    if not pool.usage.jobs_known:
        return Refused(
            NAME,
            NOWHERE,
            "jobs are not known: training, fine-tuning and inference are sized apart, never mixed",
        )
    lacking = [key for key in ("gpu.tensor_active", "gpu.dram_active") if pool.metric(key) is None]
    if pool.busy is None:
        lacking.insert(0, "gpu.util")
    if not lacking:
        return None
    return Refused(
        NAME, NOWHERE, f"{' and '.join(lacking)} not measured: what binds cannot be told from utilisation"
    )


def _judged(pool: Pool, rules: Thresholds, work: Work) -> Advice | Refused:
    """Advice, or why not."""
    title, common = _title(work), pool.common
    own = rules.work.get(work.workload or "unknown")
    if own is None or not own.is_sized:
        return Refused(NAME, NOWHERE, f"{title}: people wait for it, so its throughput sizes nothing")
    if _told(pool, work) < common.least_jobs:
        return Refused(
            NAME, NOWHERE, f"{title}: {len(work.stays)} of the {common.least_jobs} jobs that it takes"
        )
    coverage = _coverage(pool, work)
    if not coverage >= common.least_coverage:
        return Refused(
            NAME,
            NOWHERE,
            f"{title}: measured for {coverage:.0%} of its time, it takes {common.least_coverage:.0%}",
        )
    if float(work.busy.sum()) * pool.usage.step < common.least_busy_s:
        return Refused(NAME, NOWHERE, f"{title}: busy for less than {common.least_busy_s / HOUR:.0f} h")
    bound = _bound(pool, work)
    if bound.resource in FIRST and bound.share.value >= rules.dominates:
        return _first(pool, work, bound, own)
    if bound.resource not in SCALING or bound.share.value < rules.dominates:
        return _nothing(pool, work, bound, own)
    if work.part is None or not is_sized(work.part):
        return Refused(
            NAME,
            NOWHERE,
            f"{title}: {bound.resource} binds {bound.share.value:.0%} of its time, but the part is not in the catalogue",
        )
    return _parts(pool, rules, work, bound, own, work.part)


def _told(pool: Pool, work: Work) -> float:
    """Jobs that tell of it; a service that runs for weeks tells as much as a job a day."""
    if work.workload != "inference":
        return float(len(work.stays))
    gpus = [max(pool.stays[number].gpu_count, 1) for number in work.stays.tolist()]
    days: Numbers = pool.gpu_s[work.stays] / np.array(gpus) / (24 * HOUR)
    return float(np.maximum(np.floor(days), 1.0).sum())


def _title(work: Work) -> str:
    kind = {"finetuning": "fine-tuning", "": "work of unknown kind"}.get(work.workload, work.workload)
    return f"{kind} on {_model(work)}"


def _model(work: Work) -> str:
    return work.part.product if work.part else named(work.model)


def _coverage(pool: Pool, work: Work) -> float:
    """Share of its GPU time that was measured, in bins and within them."""
    weights = pool.gpu_s[work.stays]
    of_jobs = np.nan_to_num(pool.coverage[work.stays])
    by_samples = float((of_jobs * weights).sum() / weights.sum()) if weights.sum() > 0 else 0.0
    return min(work.coverage, by_samples)


def _bound(pool: Pool, work: Work) -> Bound:
    total = work.total()
    whole_ = max(float(total.sum()), 1e-9)
    shares = {name: float(total[number]) / whole_ for number, name in enumerate(RESOURCES)}
    resource = max(shares, key=lambda name: shares[name])
    row = RESOURCES.index(resource)
    starts = block_starts(pool)
    blocks: Numbers = np.add.reduceat(work.bound, starts, axis=1)

    def share(chosen: Index) -> float:
        part = blocks[:, chosen].sum(axis=1)
        return float(part[row] / part.sum()) if part.sum() > 0 else math.nan

    low, high = bootstrap(len(starts), share, pool.common.resamples, pool.common.seed)
    value = shares[resource]
    return Bound(resource, Span(min(low, value), value, max(high, value)), shares)


def _nothing(pool: Pool, work: Work, bound: Bound, own: Rules) -> Advice:
    """New hardware will not help."""
    if bound.resource == "latency":
        why = f"nothing is near its limit in {bound.share.value:.0%} of its time: it is bound by latency"
    else:
        told = ", ".join(f"{name} {share:.0%}" for name, share in _ordered(bound)[:3])
        why = f"no resource binds most of its time: {told}"
    return _advice(
        pool,
        work,
        bound,
        action=f"buy nothing for {_title(work)}: new hardware will not help",
        quantity=exact(0.0, "gpus"),
        options=(_zero(pool, work, own),),
        because=why,
        would_change="larger batches, fewer small kernels, overlapping of work: then another resource binds",
        but="" if work.has_links else "links are not measured: work that waits for messages looks the same",
    )


def _first(pool: Pool, work: Work, bound: Bound, own: Rules) -> Advice:
    """Something else comes before GPUs."""
    what = {"I/O": "waits for I/O", "host": "waits for cores", "communication": "is spent on links"}[
        bound.resource
    ]
    return _advice(
        pool,
        work,
        bound,
        action=f"buy {FIRST[bound.resource]} for {_title(work)} before GPUs",
        quantity=exact(0.0, "gpus"),
        options=(_zero(pool, work, own),),
        because=f"{bound.share.value:.0%} of its accounted time {what}: faster GPUs would wait longer",
        would_change="a run with its data in memory"
        if bound.resource == "I/O"
        else "a layout with less traffic between GPUs"
        if bound.resource == "communication"
        else "a run with more cores a GPU",
        but="",
    )


def _parts(pool: Pool, rules: Thresholds, work: Work, bound: Bound, own: Rules, old: Part) -> Advice:
    zero = _zero(pool, work, own)
    options = _options(pool, rules, work, bound, own, old)
    if not options:
        return _advice(
            pool,
            work,
            bound,
            action=f"keep {old.product} for {_title(work).partition(' on ')[0]}: no candidate has more {bound.resource}",
            quantity=zero.gpus,
            options=(zero,),
            because=f"{bound.resource} binds {bound.share.value:.0%} of its time",
            would_change="other candidates ([advice.purchase] candidates)",
            but="",
        )
    best = options[0]
    told = _or(f"{one.gpus.value:,.0f} {_brief(one)}" for one in options[: rules.most_options])
    demand = _busy(work, own)
    kind = _title(work).partition(" on ")[0]
    what = "flop/s" if bound.resource == "compute" else bound.resource
    faster = best.speedup.value if best.speedup else 1.0
    return _advice(
        pool,
        work,
        bound,
        action=_action(
            pool, own, kind, what, f"{told} do the work of {zero.gpus.value:,.0f} {_short(old.product)}"
        ),
        quantity=best.gpus,
        options=(zero, *options),
        because=(
            f"{bound.resource} binds {bound.share.value:.0%} [{bound.share.low:.0%}, {bound.share.high:.0%}] of its time"
            f" on {old.product}; {_demand(work, own, bound)}; {_brief(best)} is {faster:.2g} times as fast for it,"
            f" and {best.binding} decides the count; option zero: {zero.note}"
        ),
        would_change=f"a run on the new part; p{own.q * 100:.0f} of {demand.value:,.0f} busy GPUs is what is sized for",
        but=_but(pool, own, work),
    )


def _action(pool: Pool, own: Rules, kind: str, what: str, told: str) -> str:
    """Option zero first; where nothing is short, parts are for a replacement alone."""
    freed = _idle(pool)
    idle = f"{freed:,.1f} idle GPUs" if freed >= LEAST_IDLE else ""
    if not _is_short(pool, own):
        first = f"reclaim {idle} and buy nothing" if idle else "buy nothing"
        then = " then" if idle else ""
        return f"{first} for {kind}: nothing is short{then}, new hardware will not help; for a replacement go by {what}: {told}"
    first = f"reclaim {idle} first, then buy" if idle else "buy"
    return f"{first} {what} for {kind}: {told}"


def _is_short(pool: Pool, own: Rules) -> bool:
    """Whether more is asked for than there is once what is idle is reclaimed, without a margin for growth."""
    load = whole(pool)
    return asked(pool, load, own.q).value - _idle(pool) > load.installed


def _brief(option: Option) -> str:
    """``B200`` of ``B200 SXM (HGX/DGX)``"""
    return _short(option.name)


def _short(product: str) -> str:
    """Up to the first word with a figure: the rest is form and memory. ``RTX PRO 6000``, ``H100``."""
    words = product.split()
    end = next((number for number, word in enumerate(words) if re.search(r"\d", word)), len(words) - 1)
    return " ".join(words[: end + 1])


def _options(
    pool: Pool, rules: Thresholds, work: Work, bound: Bound, own: Rules, old: Part
) -> tuple[Option, ...]:
    """Those that are faster, the best first: by money where all have a price, else by power."""
    busy, memory = _busy(work, own), _memory(work, own)
    widest, full = _widest(pool, work), _fullness(pool, work, own)
    found = []
    for id_ in rules.candidates:
        new = parts().get(id_)
        if new is None or new.id == old.id or not is_sized(new):
            continue
        if new.vendor != old.vendor and not rules.other_vendors:
            continue
        if new.scaleup_gpus < min(widest, old.scaleup_gpus):
            continue
        faster = speedup(bound.shares, old, new, rules.doubt)
        if faster.value < rules.faster:
            continue
        terms = count(busy, memory, faster, new, full, rules.memory_room)
        found.append(within(terms, faster, new, _title(work), rules.prices.get(id_), rules.power_w))
    fits = [one for one in found if not one.note.startswith("takes ")] or found
    by_money = all(one.money for one in fits)

    def cost(one: Option) -> float:
        figure = one.money if by_money else one.power
        return figure.value if figure else math.inf

    rest = [one for one in found if one not in fits]
    return (*sorted(fits, key=cost), *rest)


def _busy(work: Work, own: Rules) -> Span:
    series = work.summed(work.busy)
    return quantile(series, own.q, effective(series))


def _memory(work: Work, own: Rules) -> Span:
    series = work.summed(work.memory)
    found = quantile(series, own.memory_q, effective(series))
    # What an engine reserves is not what it needs.
    return found._replace(low=0.0) if own.memory_is_reserved else found


def _fullness(pool: Pool, work: Work, own: Rules) -> Fullness:
    gang = float(np.mean([max(pool.stays[number].gpu_count, 1) for number in work.stays.tolist()]))
    return Fullness(gang, own.wait, own.most, _today(pool, work, own))


def _today(pool: Pool, work: Work, own: Rules) -> float:
    """How full the boards of its model are with all work together: what else runs there leaves it no room."""
    mine = [number for number, board in enumerate(pool.usage.boards) if board.part == work.model]
    if pool.busy is None or not mine:
        return 0.0
    busy = pool.busy[mine]
    known = ~np.isnan(busy)
    seen = known.any(axis=0)
    if not seen.any():
        return 0.0
    shares = np.nansum(busy[:, seen], axis=0, dtype=np.float64) / known[:, seen].sum(axis=0)
    return float(np.quantile(shares, own.q))


def _widest(pool: Pool, work: Work) -> int:
    """The most GPUs of one node that one of its jobs has."""
    widest = 1
    for number in work.stays.tolist():
        stay = pool.stays[number]
        nodes = {pool.usage.boards[board].node for board in pool.boards_of[number] or ()}
        widest = max(widest, math.ceil(stay.gpu_count / max(len(nodes), 1)))
    return widest


def _zero(pool: Pool, work: Work, own: Rules) -> Option:
    """Buy nothing, reclaim what is idle: what the same work takes of today's part."""
    busy = _busy(work, own)
    full = _fullness(pool, work, own).at(busy.value)
    takes = busy.scaled(1 / full)
    takes = Span(*(float(math.ceil(one)) for one in takes))
    freed = _idle(pool)
    return Option(
        "",
        "reclaim",
        takes.quantity("gpus", f"p{own.q * 100:.0f} of busy GPUs / {full:.2f}"),
        exact(1.0, "ratio"),
        "throughput",
        None
        if work.part is None or math.isnan(work.part.power_w)
        else takes.scaled(work.part.power_w).quantity("W", "GPUs x default limit"),
        exact(0.0, "$"),
        f"buy nothing, reclaim {freed:,.1f} GPUs that all jobs together leave idle"
        if freed >= LEAST_IDLE
        else "buy nothing",
    )


def _idle(pool: Pool) -> float:
    """GPUs, on average over the span, that jobs held and did not use."""
    found = reclaimable(pool, table("idle_gpus", Idling, {}))
    return 0.0 if found is None else found.value * HOUR / max(pool.usage.span_s, 1.0)


def _demand(work: Work, own: Rules, bound: Bound) -> str:
    """In absolute units."""
    flops, rate, memory = (
        quantile(work.summed(values), own.q).value for values in (work.flops, work.bandwidth, work.memory)
    )
    told = f"p{own.q * 100:.0f} over time {rate / 1e12:,.3g} TB/s"
    if bound.resource == "compute":
        told = f"p{own.q * 100:.0f} over time {flops / 1e15:,.3g} Pflop/s"
    return f"{told}, {memory / 1e12:,.3g} TB held" if work.has_memory else told


def _but(pool: Pool, own: Rules, work: Work) -> str:
    told = _unless(pool, own)
    return told if work.has_memory else f"{told}; device memory in use is not measured, and may take more"


def _unless(pool: Pool, own: Rules) -> str:
    said = "reclaim idle GPUs first; each job must still fit the new boards' memory"
    installed = whole(pool).installed
    return said if _is_short(pool, own) else f"nothing is short: {installed:,} GPUs serve what is asked for"


def _or(words: Iterable[str]) -> str:
    """``a, b or c``"""
    *first, last = words
    return f"{', '.join(first)} or {last}" if first else last


def _ordered(bound: Bound) -> list[tuple[str, float]]:
    return sorted(bound.shares.items(), key=lambda pair: -pair[1])


def _advice(
    pool: Pool,
    work: Work,
    bound: Bound,
    *,
    action: str,
    quantity: Quantity,
    options: tuple[Option, ...],
    because: str,
    would_change: str,
    but: str,
) -> Advice:
    stays = [pool.stays[number] for number in work.stays[::-1].tolist()]
    sure = bound.share.low >= 0.5
    grade = Grade.D if not work.workload else Grade.B if sure else Grade.C
    keys = [pool.busy_metric, "gpu.tensor_active", "gpu.dram_active"]
    keys += ["gpu.nvlink_tx"] if work.has_links else []
    coverage = _coverage(pool, work)
    one = Ground("", pool.usage.span_s, int(work.known.sum()), coverage, examples(stays))
    return Advice(
        id=f"{NAME}:{work.workload or 'unknown'}:{work.part.id if work.part else work.model}",
        rule=NAME,
        action=action,
        scope=Scope(jobs=tuple(stay.id for stay in stays[:200])),
        quantity=quantity,
        saving=Saving(),
        grade=grade,
        grounds=tuple(replace(one, metric=key) for key in keys),
        because=because,
        would_change=would_change
        if work.workload
        else f"what these jobs do (their names do not say); {would_change}",
        but=but,
        options=options,
    )
