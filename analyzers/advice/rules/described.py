"""Work that a site describes, held against what telemetry says of it: calculated and measured demand, and where they disagree.

A description names jobs and what they train: ``[[advice.described.jobs]]``. With ``tokens`` of a job the two sides are GPU-hours
a job; without, the share of peak that tensor cores were active for, against the HFU that is calculated. Of servers the two sides
are the GPUs that they hold and those that the load which is described takes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from fnmatch import fnmatchcase
from functools import lru_cache
from typing import Literal, NamedTuple

import msgspec
import numpy as np

from coldaisle.analyzers.advice.advice import Advice, Grade, Ground, Refused, Saving
from coldaisle.analyzers.advice.intervals import quantile
from coldaisle.analyzers.advice.load import level
from coldaisle.analyzers.advice.measuring import clock_share, part_of
from coldaisle.analyzers.advice.pool import HOUR, Index, Pool
from coldaisle.analyzers.advice.telling import examples, named
from coldaisle.analyzers.finding import NOWHERE, Scope
from coldaisle.analyzers.sizing.catalogue import Model, dense, model_named
from coldaisle.analyzers.sizing.checked import Check, Verdict, of_amounts, of_speeds
from coldaisle.analyzers.sizing.plan_serving import plan_serving
from coldaisle.analyzers.sizing.serving_request import Request
from coldaisle.analyzers.sizing.serving_site import figure_of
from coldaisle.analyzers.sizing.sheet import Sheet
from coldaisle.analyzers.sizing.training import plan_finetuning, plan_training
from coldaisle.analyzers.usage import Usage
from coldaisle.sources.errors import SizingError
from coldaisle.sources.parts.catalogue import Part, parts

NAME = "described"


class Description(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Jobs by name (and user), with what they train: a model of the catalogue, or its parameters."""

    name: str
    """A pattern: ``pretrain-13b*``"""
    model: str = ""
    user: str = ""
    params: float | None = None
    method: Literal["train", "full", "lora", "qlora", "serve"] = "train"
    seq: int | None = None
    tokens: float | None = None
    """Of one job, from start to end."""
    batch_tokens: float | None = None
    dtype: str | None = None
    input_tokens: float | None = None
    """Of a request to a server, as the next three: its load is held against the GPUs that serve it."""
    output_tokens: float | None = None
    requests_s: float | None = None
    ttft: float | None = None
    """s that the first token may take."""
    itl: float | None = None
    """s between tokens."""

    def __post_init__(self) -> None:
        """Errors: ValueError for a size that is not above zero, and for keys that this method does not read."""
        for key in ("params", *_OF_RUNS, *_OF_SERVERS):
            if (size := getattr(self, key)) is not None and not 0 < size < math.inf:
                raise ValueError(
                    f"{key} is {size:g}; it has to be above zero, or left out where it is not known"
                )
        serves = self.method == "serve"
        for key in _OF_RUNS if serves else _OF_SERVERS:
            if getattr(self, key) is not None:
                kind, remedy = ("runs", "another method") if serves else ("servers", 'method = "serve"')
                raise ValueError(
                    f"{key} is of {kind}, and method is {self.method}: leave it out, or write {remedy}"
                )
        if self.model and self.params is not None:
            raise ValueError("model and params both; leave one out")


_OF_RUNS = ("seq", "tokens", "batch_tokens")
_OF_SERVERS = ("input_tokens", "output_tokens", "requests_s", "ttft", "itl")
_SEQ = 8192
"""Tokens of a sequence where nobody tells."""


class Thresholds(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """See the TOML file."""

    least_jobs: int
    jobs: list[Description] = []


class _Case(NamedTuple):
    """The jobs of one description that had the same part and as many GPUs."""

    one: Description
    members: Index
    part: str
    gpus: int


class _Told(NamedTuple):
    """Both sides of a figure."""

    check: Check
    words: str
    metric: str


MOST_NAMES = 20
"""Of one pattern, that get a line each once they are replaced."""
_ANY = 1e12
"""Tokens of a run of which only the speed is asked."""


def advise(pool: Pool, rules: Thresholds) -> Iterator[Advice | Refused]:
    """A line a description."""
    if not rules.jobs:
        yield Refused(
            NAME,
            NOWHERE,
            "no work is described ([[advice.described.jobs]]): calculated demand stays unchecked",
        )
        return
    if not pool.usage.jobs_known:
        yield Refused(NAME, NOWHERE, "jobs are not known")
        return
    for number, one in enumerate(rules.jobs):
        yield _served(pool, number, one) if one.method == "serve" else _checked(pool, rules, number, one)


def _checked(pool: Pool, rules: Thresholds, number: int, one: Description) -> Advice | Refused:
    case = _case(pool, one)
    if case is None:
        return Refused(
            NAME,
            NOWHERE,
            f"no job named {named(one.name)} ran {'' if one.tokens is None else 'to its end '}on a part of the catalogue",
        )
    if len(case.members) < rules.least_jobs:
        few = f"{len(case.members)} of the {rules.least_jobs} jobs named {named(one.name)} that it takes"
        return Refused(NAME, NOWHERE, few)
    try:
        sheet = _plan(one, case.part, case.gpus)
    except SizingError as error:
        return Refused(NAME, NOWHERE, f"{named(one.name)}: {error}")
    told = _by_activity(pool, case, sheet) if one.tokens is None else _by_hours(pool, case, sheet)
    if told is None:
        why = "gpu.tensor_active of its GPUs is not measured, and how many tokens a job has is not told"
        return Refused(NAME, NOWHERE, f"{named(one.name)}: {why if sheet.gpus else sheet.answer}")
    return _advice(pool, number, case, sheet, *told)


def _served(pool: Pool, number: int, one: Description) -> Advice | Refused:
    """Servers: the GPUs that their load takes as it is calculated, against those that they hold."""
    case = _case(pool, one)
    if case is None:
        return Refused(NAME, NOWHERE, f"no server named {named(one.name)} ran on a part of the catalogue")
    if pool.is_snapshot or float(pool.inside_s[case.members].sum()) < pool.common.least_busy_s:
        return Refused(NAME, NOWHERE, f"servers named {named(one.name)} were seen for less than an hour")
    if None in (one.input_tokens, one.output_tokens, one.requests_s):
        why = "its load is not described: input_tokens, output_tokens and requests_s"
        return Refused(NAME, NOWHERE, f"{named(one.name)}: {why}")
    try:
        sheet = _plan_server(one, case.part)
    except SizingError as error:
        return Refused(NAME, NOWHERE, f"{named(one.name)}: {error}")
    if sheet.gpus is None:
        return Refused(NAME, NOWHERE, f"{named(one.name)}: {sheet.answer}")
    held = _held_at_once(pool, case.members)
    words = f"{held:,.0f} GPUs serve it at the median of the time, {sheet.gpus.value:,.0f} calculated for its load"
    check = of_amounts(held, sheet.gpus)
    title, times = named(one.name), f"{check.ratio.value:.2g} times"
    action = {
        Verdict.SLOWER: f"take replicas of {title} away, or find the load that they are for: they hold {times} the GPUs that are calculated",
        Verdict.FASTER: f"check the promises of {title}: its servers hold {times} the GPUs that are calculated",
    }.get(
        check.verdict,
        f"plan {title} by its description: its servers hold {times} the GPUs that are calculated",
    )
    return _advice(pool, number, case, sheet, check, words, "slurm.elapsed", action)


def _held_at_once(pool: Pool, members: Index) -> float:
    """GPUs that some jobs held together, at the median of the bins in which any of them ran."""
    at = pool.usage.starts + pool.usage.step / 2
    gpus = np.array([max(pool.stays[member].gpu_count, 0) for member in members.tolist()], dtype=np.float64)
    together = level(at, pool.started[members], pool.ended[members], gpus)
    return float(np.median(together[together > 0])) if (together > 0).any() else float(gpus.max(initial=1.0))


@lru_cache(maxsize=64)
def _plan_server(one: Description, part_id: str) -> Sheet:
    """What is calculated for the load of servers. Errors: SizingError."""
    nothing, model = float("nan"), _model(one)
    request = Request(
        model,
        one.input_tokens or nothing,
        one.output_tokens or nothing,
        rate=one.requests_s or nothing,
        ttft=one.ttft or nothing,
        itl=one.itl or nothing,
        dtype=one.dtype or model.stored,
    )
    return plan_serving(request, parts()[part_id])


def _case(pool: Pool, one: Description) -> _Case | None:
    """Of a description the jobs with the most GPU time that share part and number of GPUs."""
    boards_are: tuple[Part | None, ...] = part_of(pool)
    found: dict[tuple[str, int], list[int]] = {}
    for number in np.flatnonzero(pool.gpu_s > 0).tolist():
        stay, boards = pool.stays[number], pool.boards_of[number]
        if not boards or not _is_meant(one, stay.name, stay.user):
            continue
        if one.tokens is not None and stay.state != "COMPLETED":
            continue  # of its tokens some share, which nobody tells
        kinds = {None if part is None else part.id for part in (boards_are[board] for board in boards)}
        if len(kinds) == 1 and (kind := kinds.pop()) is not None:
            # replicas count together, whatever the size of each
            size = 0 if one.method == "serve" else stay.gpu_count
            found.setdefault((kind, size), []).append(number)
    if not found:
        return None
    (part, gpus), members = max(found.items(), key=lambda item: float(pool.gpu_s[item[1]].sum()))
    return _Case(one, np.array(members, dtype=np.intp), part, gpus)


def _is_meant(one: Description, name: str, user: str) -> bool:
    return fnmatchcase(name, one.name) and one.user in ("", user)


def renamed(rules: Thresholds, usage: Usage, word: Callable[[str, str], str]) -> Thresholds:
    """The same for a usage whose names are replaced by ``word(kind, name)``: of each pattern the names that it means."""
    known = sorted({(stay.name, stay.user) for stay in usage.stays})
    jobs = []
    for one in rules.jobs:
        names = sorted({name for name, user in known if _is_meant(one, name, user)})[:MOST_NAMES]
        user = word("user", one.user)
        jobs += [
            msgspec.structs.replace(one, name=word("job", name), user=user) for name in names or [one.name]
        ]
    return msgspec.structs.replace(rules, jobs=jobs)


def _model(one: Description) -> Model:
    if not one.model and one.params is None:
        raise SizingError("neither a model nor parameters are told", 'write model = "llama-3.1-8b"')
    return model_named(one.model) if one.model else dense(f"{one.params:.4g} parameters", one.params or 0.0)


@lru_cache(maxsize=64)
def _plan(one: Description, part_id: str, gpus: int) -> Sheet:
    """What is calculated for one of its jobs: the same at every look. Errors: SizingError."""
    part, model = parts()[part_id], _model(one)
    assert one.method != "serve"
    if one.method == "train":
        return plan_training(
            model, one.tokens or _ANY, part, gpus=gpus, seq=one.seq or _SEQ, batch_tokens=one.batch_tokens, dtype=one.dtype
        )  # fmt: skip
    return plan_finetuning(
        model, one.tokens or _ANY, part, method=one.method, gpus=gpus, seq=one.seq or _SEQ, batch_tokens=one.batch_tokens,
        dtype=one.dtype,
    )  # fmt: skip


def _by_hours(pool: Pool, case: _Case, sheet: Sheet) -> _Told | None:
    """GPU-hours of whole jobs."""
    calculated = figure_of(sheet, "time", "GPU-hours of the run")
    if calculated is None:
        return None
    hours = (pool.ended - pool.started)[case.members] * case.gpus / HOUR
    measured = quantile(hours, 0.5)
    words = f"{measured.value:,.4g} GPU-hours a job at the median, {calculated.value:,.4g} calculated"
    return _Told(of_amounts(measured.value, calculated), words, "slurm.elapsed")


def _by_activity(pool: Pool, case: _Case, sheet: Sheet) -> _Told | None:
    """Of the peak, what tensor cores did and what the plan has them do, recomputed products with it."""
    calculated, tensor = figure_of(sheet, "time", "HFU"), pool.metric("gpu.tensor_active")
    if calculated is None or tensor is None:
        return None
    clock = clock_share(pool)
    work = tensor if clock is None else tensor * clock
    known = pool.by_stay(pool.sums(~np.isnan(work)))[case.members]
    shares = pool.by_stay(pool.sums(work))[case.members][known > 0] / known[known > 0]
    measured = quantile(shares, 0.5).value
    if not measured > 0:
        return None
    words = f"tensor cores reach {measured:.0%} of their peak at the median of jobs, {calculated.value:.0%} calculated"
    return _Told(of_speeds(measured, calculated), words, "gpu.tensor_active")


_SERVED = {Verdict.SLOWER: "more GPUs than calculated", Verdict.FASTER: "fewer GPUs than calculated"}


def _advice(
    pool: Pool,
    number: int,
    case: _Case,
    sheet: Sheet,
    check: Check,
    words: str,
    metric: str,
    action: str = "",
) -> Advice:
    title, times = named(case.one.name), f"{check.ratio.value:.2g} times"
    action = action or {
        Verdict.SLOWER: f"find out what holds {title} back before buying: it takes {times} what is calculated",
        Verdict.FASTER: f"correct the description of {title}: it takes {times} what is calculated",
    }.get(check.verdict, f"plan {title} by its description: it takes {times} what is calculated")
    size = f" with {case.gpus:,} GPUs" if case.gpus else ""
    verdict = str(check.verdict) if case.gpus else _SERVED.get(check.verdict, str(check.verdict))
    stays = [pool.stays[member] for member in case.members[::-1].tolist()]
    sure = (
        not check.ratio.low <= 1 <= check.ratio.high if check.is_finding else check.verdict is Verdict.AGREE
    )
    covered = 1.0 if metric.startswith("slurm.") else float(np.nan_to_num(pool.coverage[case.members]).mean())
    return Advice(
        id=f"{NAME}:{number}",
        rule=NAME,
        action=action,
        scope=Scope(jobs=tuple(stay.id for stay in stays[:200])),
        quantity=check.ratio,
        saving=Saving(),
        grade=Grade.B if sure and covered >= pool.common.least_coverage else Grade.C,
        grounds=(Ground(metric, pool.usage.span_s, len(stays), covered, examples(stays)),),
        because=f"{words}, of {sheet.title}{size}: {verdict}",
        would_change="tokens/s that the jobs themselves print; what the description leaves to what is usual",
        but=""
        if check.verdict is not Verdict.SLOWER
        else "validation, checkpoints and restarts are time of a job as well"
        if case.gpus
        else "spares that must answer at once, and peaks above the load that is described",
    )
