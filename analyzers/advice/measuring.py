"""How the four utilisations are measured over a pool. Ratios of sums, never means of ratios.

Intervals are of ratio estimators over blocks (days, hours of less than three days) or over jobs: how far the figure would move
with other days, or other jobs, of the same kind. Source: Cochran, Sampling Techniques, 6.4 (linearised variance).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from coldaisle.analyzers.advice.gaps import Shares, dark_time, heard_share, opened, unheard, unseen
from coldaisle.analyzers.advice.idling import Thresholds as Idling
from coldaisle.analyzers.advice.placing import placed
from coldaisle.analyzers.advice.pool import DAY, HOUR, Bools, Index, Numbers, Pool, tally
from coldaisle.analyzers.advice.settings import table
from coldaisle.analyzers.advice.telling import between
from coldaisle.analyzers.advice.utilisation import Measured, Use, Utilisations
from coldaisle.analyzers.sizing.quantity import Quantity, exact
from coldaisle.analyzers.usage import Floats
from coldaisle.sources.parts.catalogue import Part, find_part

Z80 = 1.2816
"""Four times of five within so many deviations."""
MOST_GROUPS = 200
"""Users, or names, that are told of."""
FORMULAS = {
    "allocated": "GPU time held by jobs / GPU time installed",
    "busy": "time with a kernel resident / time held by jobs",
    "active": "SM-active (or tensor-active) time / time with a kernel resident",
    "flops": "tensor-active x dense peak x clock / highest clock, over dense peak x busy time",
    "bandwidth": "memory-active x bandwidth / bandwidth x busy time",
}


class Term(NamedTuple):
    """One utilisation of single boards in single bins: ``above`` / ``below`` is it, where it is known."""

    name: str
    metric: str
    above: Floats
    """[board, bin]; 0 where it is not known, in both: they are but summed up."""
    below: Floats
    known: Bools
    unseen: Shares | None = None
    """[board, bin] share of each cell that belongs to it and of which nothing is known; None: nowhere any."""


class Sums(NamedTuple):
    """A term summed up over the cells of each board and of each job, in any order of its groups."""

    metric: str
    of_boards: tuple[Numbers, ...]
    """Above and below as [board, block], then [board] each: samples that were there, cells expected, known, unseen."""
    of_stays: tuple[Numbers, ...]
    """[stay] each: above, below, samples that were there, cells known, unseen."""


class Blocks(NamedTuple):
    """The same of groups: [block, group] each."""

    above: Numbers
    below: Numbers
    known: Numbers
    expected: Numbers
    cells: Numbers
    """Of those that are known."""
    unseen: Numbers


def utilisations(pool: Pool) -> Utilisations:
    """Of the cluster and its parts."""
    boards = pool.usage.boards
    racks, partitions = _groups([b.rack for b in boards]), _groups([b.partition for b in boards])
    stays = pool.stays
    every = np.zeros(pool.size, dtype=np.intp)
    # sums over nodes and more can be told from a likely placing, users' cannot
    likely = placed(pool, table("idle_gpus", Idling, {})) or pool
    uses = {
        "cluster": _uses_of_boards(likely, ("",), every),
        "racks": _uses_of_boards(likely, *racks),
        "partitions": _uses_of_boards(likely, *partitions),
    }
    cluster = replace(uses["cluster"][0], gpu_hours=_gpu_hours(pool))
    if not uses["partitions"]:
        uses["partitions"] = _uses_of_stays(pool, *_groups([stay.partition for stay in stays]))
    return Utilisations(
        cluster,
        uses["racks"],
        uses["partitions"],
        _uses_of_stays(pool, *_groups([stay.user for stay in stays])),
        _uses_of_stays(pool, *_groups([stay.name for stay in stays])),
    )


def part_of(pool: Pool) -> tuple[Part | None, ...]:
    """[board] its catalogue part; None: not known."""

    def make() -> tuple[Part | None, ...]:
        named = {(b.part, b.memory_bytes) for b in pool.usage.boards}
        found = {key: find_part(*key) if key[0] else None for key in named}
        return tuple(found[b.part, b.memory_bytes] for b in pool.usage.boards)

    return pool.cached("parts", make)


def of_parts(pool: Pool, name: str) -> Numbers:
    """[board] a figure of its part: ``bandwidth``, ``sm_clock_mhz``, ``flops`` (dense bf16, else fp16)."""

    def figure(part: Part | None) -> float:
        if part is None:
            return math.nan
        if name != "flops":
            return float(getattr(part, name))
        dense = part.peak("bf16")
        return part.peak("fp16") if math.isnan(dense) else dense

    def make() -> Numbers:
        parts = {part.id if part else "": part for part in part_of(pool)}
        figures = {id_: figure(part) for id_, part in parts.items()}
        return np.array([figures[part.id if part else ""] for part in part_of(pool)], dtype=np.float64)

    return pool.cached(("figures", name), make)


def clock_share(pool: Pool) -> Floats | None:
    """[board, bin] SM clock of its highest; 1 where it is not measured."""
    clock = pool.metric("gpu.sm_clock")
    if clock is None:
        return None
    highest = of_parts(pool, "sm_clock_mhz").astype(np.float32)[:, None]
    share: Floats = np.nan_to_num(np.clip(clock / highest, 0, 1), nan=1.0)
    return share


def _groups(names: Sequence[str]) -> tuple[tuple[str, ...], Index]:
    """Names in the order of their first use, and [member] which; -1: without one."""
    known = tuple(dict.fromkeys(name for name in names if name))
    number = {name: place for place, name in enumerate(known)}
    return known, np.array([number.get(name, -1) for name in names], dtype=np.intp)


def _gpu_hours(pool: Pool) -> Quantity | None:
    if not pool.usage.jobs_known:
        return None
    held, dark = float(pool.gpu_s.sum()) / HOUR, dark_time(pool)
    if dark is not None and dark.any():
        more = float(dark.sum(dtype=np.float64)) * pool.usage.step / HOUR
        seen = float(pool.share_measured.sum(where=pool.held, dtype=np.float64)) * pool.usage.step / HOUR
        told = seen / max(heard_share(pool), 1e-9)
        formula = "GPUs x time that labels named a job; time without readings all free to all held"
        return between(held, min(max(told, held), held + more), held + more, "gpu_hours", formula)
    return exact(float(pool.gpu_s.sum()) / HOUR, "gpu_hours", "GPUs x run time within the span")


def _sums(pool: Pool) -> Mapping[str, Sums]:
    """By term. Sums alone are kept, for several groupings: the cells of a term take more memory than two metrics."""

    def make() -> Mapping[str, Sums]:
        return {
            term.name: Sums(term.metric, _by_board(pool, term), _by_stay(pool, term)) for term in _terms(pool)
        }

    return pool.cached("sums of terms", make)


def _terms(pool: Pool) -> Iterator[Term]:
    """What is measured, of time held by jobs where jobs are known, else of all time."""
    busy = pool.busy
    if busy is None:
        return
    inside = _inside(pool)
    nan = np.float32(np.nan)
    used = np.where(inside, busy, nan)
    if pool.usage.jobs_known and _boards_known(pool):
        known, holes = ~np.isnan(used), unheard(pool)
        holes = None if holes is None else holes * _might(pool)
        yield Term("busy", pool.busy_metric, np.where(known, used, 0), known.astype(np.float32), known, holes)
    active_by = next((k for k in ("gpu.sm_active", "gpu.tensor_active") if pool.metric(k) is not None), None)
    if active_by is not None:
        yield _of_busy(pool, "active", active_by, pool.metric(active_by), used)
    tensor, clock = pool.metric("gpu.tensor_active"), clock_share(pool)
    if tensor is not None:
        rate = tensor if clock is None else tensor * clock
        yield _of_busy(pool, "flops", "gpu.tensor_active", rate, used, of_parts(pool, "flops"))
    dram = pool.metric("gpu.dram_active")
    if dram is not None:
        yield _of_busy(pool, "bandwidth", "gpu.dram_active", dram, used, of_parts(pool, "bandwidth"))


def _inside(pool: Pool) -> Bools:
    """[board, bin] what is looked at: time held by jobs where that is known, else all that was installed."""
    if pool.usage.jobs_known and _boards_known(pool):
        return pool.held
    return pool.usage.installed.T


def _might(pool: Pool) -> Bools:
    """[board, bin] the same, and what may have been held while nobody heard of it."""

    def make() -> Bools:
        dark = dark_time(pool)
        return _inside(pool) if dark is None else _inside(pool) | (dark > 0)

    return pool.cached("might", make)


def _of_busy(
    pool: Pool, name: str, metric: str, rate: Floats | None, used: Floats, peak: Numbers | None = None
) -> Term:
    """A rate over busy time; what is measured beyond it (another averaging window) is cut."""
    assert rate is not None
    above = np.minimum(rate, used)  # NaN where either is
    known = ~np.isnan(above)
    holes = None if pool.busy is None else unseen(pool, ~(np.isnan(rate) | np.isnan(pool.busy)))
    if holes is not None:
        holes = holes * _might(pool)
    above, below = np.where(known, above, 0), np.where(known, used, 0)
    if peak is not None and not (peak == peak[0]).all():
        known &= (peak > 0)[:, None]
        holes = None if holes is None else holes * (peak > 0)[:, None]
        scale = np.where(peak > 0, peak / max(np.nanmax(peak, initial=0), 1), 0).astype(np.float32)[:, None]
        above, below = above * scale, below * scale
    elif peak is not None and not peak[0] > 0:
        return Term(name, metric, np.zeros_like(above), np.zeros_like(below), np.zeros_like(known))
    return Term(name, metric, above, below, known, holes)


def _boards_known(pool: Pool) -> bool:
    return len(pool.holds) > 0


def _uses_of_boards(pool: Pool, names: Sequence[str], group: Index) -> tuple[Use, ...]:
    """Of groups of boards: racks, or the whole."""
    if not len(names):
        return ()
    size = len(names)
    found = {
        name: (sums.metric, _over_blocks(sums.of_boards, group, size)) for name, sums in _sums(pool).items()
    }
    allocated = _allocated(pool, group, size)
    hours = (
        tally(group, pool.held.sum(axis=1) * pool.usage.step / HOUR, size) if pool.size else np.zeros(size)
    )
    boards = np.bincount(group[group >= 0], minlength=size)
    known = pool.usage.jobs_known and _boards_known(pool)
    return tuple(
        Use(
            name,
            int(boards[number]),
            exact(float(hours[number]), "gpu_hours") if known and not pool.homeless else None,
            allocated[number],
            **{key: _measured(pool, found, key, number) for key in ("busy", "active", "flops", "bandwidth")},
        )
        for number, name in enumerate(names)
    )


def _uses_of_stays(pool: Pool, names: Sequence[str], group: Index) -> tuple[Use, ...]:
    """Of groups of jobs: users, names; those with the most GPU-hours first."""
    if not len(names) or not pool.usage.jobs_known:
        return ()
    size = len(names)
    hours = tally(group, pool.gpu_s / HOUR, size)
    order = np.argsort(-hours, kind="stable")[:MOST_GROUPS]
    found = {
        name: (sums.metric, _over_stays(pool, sums.of_stays, group, size))
        for name, sums in _sums(pool).items()
    }
    none = Measured(why="a share of what is installed is a pool's, not a user's")
    boards = _boards_used(pool, group, size)
    return tuple(
        Use(
            names[number],
            int(boards[number]),
            exact(float(hours[number]), "gpu_hours", "GPUs x run time within the span"),
            none,
            **{key: _measured(pool, found, key, number) for key in ("busy", "active", "flops", "bandwidth")},
        )
        for number in order.tolist()
        if hours[number] > 0
    )


def _boards_used(pool: Pool, group: Index, size: int) -> Index:
    """[group] how many boards its jobs ever held."""
    holds = pool.holds
    owner = group[holds.stay]
    pairs = np.unique(owner[owner >= 0] * max(pool.size, 1) + holds.board[owner >= 0])
    return np.bincount(pairs // max(pool.size, 1), minlength=size)


def block_starts(pool: Pool) -> Index:
    """[block] first bin: days of three and more, hours of three and more, else sixths."""

    def make() -> Index:
        span = pool.usage.span_s
        length = DAY if span >= 3 * DAY else HOUR if span >= 3 * HOUR else span / 6
        bins = max(round(length / pool.usage.step), 1) if pool.usage.step > 0 else 1
        return np.arange(0, max(pool.bins, 1), bins, dtype=np.intp)

    return pool.cached("blocks", make)


def _by_board(pool: Pool, term: Term) -> tuple[Numbers, ...]:
    starts = block_starts(pool)
    sums = (np.add.reduceat(x, starts, axis=1).astype(np.float64) for x in (term.above, term.below))
    known = np.einsum("ij,ij->i", term.known, pool.share_measured)
    holes = np.zeros(pool.size) if term.unseen is None else term.unseen.sum(axis=1, dtype=np.float64)
    cells = (known, _might(pool).sum(axis=1), term.known.sum(axis=1), holes)
    return (*sums, *(one.astype(np.float64) for one in cells))


def _by_stay(pool: Pool, term: Term) -> tuple[Numbers, ...]:
    known = term.known * pool.share_measured
    nothing = np.zeros(len(pool.stays))
    return (
        *(pool.by_stay(pool.sums(one)) for one in (term.above, term.below, known, term.known)),
        nothing if term.unseen is None else pool.by_stay(pool.sums(term.unseen)),
    )


def _over_blocks(sums: Sequence[Numbers], group: Index, size: int) -> Blocks:
    """[block, group]"""
    above, below, *cells = sums
    columns = range(above.shape[1])
    known, expected, seen, holes = (tally(group, one, size)[None] for one in cells)
    return Blocks(
        np.stack([tally(group, above[:, column], size) for column in columns]),
        np.stack([tally(group, below[:, column], size) for column in columns]),
        known,
        expected,
        seen,
        holes,
    )


def _over_stays(pool: Pool, sums: Sequence[Numbers], group: Index, size: int) -> Blocks:
    """[1, group]; of ``above`` a second row, with the spread of its ratio over jobs."""
    above, below, known, cells, holes = sums
    expected = pool.by_stay(pool.holds.bins.astype(np.float64))
    total, whole = tally(group, above, size), tally(group, below, size)
    ratio = np.divide(total, whole, out=np.zeros(size), where=whole > 0)
    rest = above - np.where(group >= 0, ratio[group], 0) * below
    spread = tally(group, rest**2, size)
    count = np.maximum(tally(group, (below > 0).astype(np.float64), size), 1)
    spread *= np.where(count > 1, count / np.maximum(count - 1, 1), 0)
    return Blocks(
        np.stack([total, np.sqrt(spread)]),
        whole[None],
        *(tally(group, one, size)[None] for one in (known, expected, cells, holes)),
    )


def _allocated(pool: Pool, group: Index, size: int) -> list[Measured]:
    """[group] of what is installed; jobs whose boards are not known count in the whole pool alone."""
    usage = pool.usage
    if not usage.jobs_known or not pool.bins or not pool.size:
        why = "jobs are not known" if not usage.jobs_known else "no GPU is known"
        return [Measured(why=why)] * size
    unknown = pool.homeless
    if unknown and size > 1:
        why = f"which GPUs {unknown} jobs held is not known"
        return [Measured(why=why)] * size
    starts, dark = block_starts(pool), dark_time(pool)
    open_ = np.zeros(size) if dark is None else tally(group, dark.sum(axis=1, dtype=np.float64), size)
    whole = tally(group, (usage.installed.T | pool.held).sum(axis=1).astype(np.float64), size)
    lit = np.maximum(whole - open_, 0)
    held, there = pool.cached("held and installed in blocks", lambda: _in_blocks(pool, starts))
    boards = np.bincount(group[group >= 0], minlength=size)
    above = np.stack([tally(group, held[:, block], size) for block in range(len(starts))])
    below = np.stack([tally(group, there[:, block], size) for block in range(len(starts))])
    found = []
    for number in range(size):
        told_of = float(lit[number] / whole[number]) if whole[number] else 1.0
        ratio = _ratio(above[:, number], below[:, number], FORMULAS["allocated"])
        if ratio is not None:
            ratio = opened(ratio, float(lit[number]), float(open_[number]))
        if unknown and ratio is not None:
            told = float(min(pool.gpu_s.sum() / (whole.sum() * usage.step), 1.0))
            ratio = between(told, told, told, "ratio", "GPUs x run time of all jobs / GPU time installed")
        why = "nothing told of its GPUs" if ratio is None else ""
        found.append(Measured(ratio, int(boards[number]) * pool.bins, told_of, "jobs", why))
    return found


def _in_blocks(pool: Pool, starts: Index) -> tuple[Numbers, Numbers]:
    """[board, block] bins in which jobs held it, and in which it was there: what a job holds is.

    Where labels alone tell of jobs, of the bins with readings: between two of them a job goes on through a gap, a free board
    does not.
    """
    held, there = pool.held, pool.usage.installed.T | pool.held
    dark = dark_time(pool)
    if dark is not None and pool.is_snapshot:
        # a moment has no gaps that labels could bridge: who holds a silent board holds it
        there = there & ~(dark > 0)
    elif dark is not None:
        held, there = (np.where(x, pool.share_measured, 0) for x in (held, there))
    above, below = (np.add.reduceat(x, starts, axis=1, dtype=np.float64) for x in (held, there))
    return above, below


def _measured(pool: Pool, found: Mapping[str, tuple[str, Blocks]], key: str, number: int) -> Measured:
    if key not in found:
        return Measured(why=_why(pool, key))
    metric, blocks = found[key]
    above, below = blocks.above[:, number], blocks.below[:, number]
    known, expected = float(blocks.known[0, number]), float(blocks.expected[0, number])
    if len(above) == 2 and len(below) == 1:  # over jobs: sum and spread
        ratio = _from_spread(above[0], below[0], above[1], FORMULAS[key])
    else:
        ratio = _ratio(above, below, FORMULAS[key])
    share = min(known / expected, 1.0) if expected else 0.0
    if ratio is not None:
        ratio = _opened(ratio, blocks, number)
    if ratio is None:
        why = "nothing ran on it" if expected == 0 else f"{metric} was not measured while it was busy"
        if known and not below.sum():
            why = "no kernel ran on it"
        if not known and expected and key in ("flops", "bandwidth") and not (of_parts(pool, key) > 0).any():
            why = "the catalogue has no such part: its peak is not known"
        if (
            expected == 0
            and key != "busy"
            and pool.usage.jobs_known
            and pool.gpu_s.any()
            and not _boards_known(pool)
        ):
            why = "which GPUs jobs held is not known"
        return Measured(samples=int(known), coverage=share, metric=metric, why=why)
    return Measured(ratio, int(known), share, metric)


def _opened(ratio: Quantity, blocks: Blocks, number: int) -> Quantity:
    """With what gaps leave open; short ones lie between their neighbours, and count as what was measured does."""
    expected, cells, holes = (float(one[0, number]) for one in (blocks.expected, blocks.cells, blocks.unseen))
    whole = float(blocks.below[:, number].sum()) * max(expected - holes, cells) / max(cells, 1.0)
    return opened(ratio, whole, holes)


def _why(pool: Pool, key: str) -> str:
    if pool.busy is None:
        return "neither gpu.util nor gpu.gr_active is measured"
    if key == "busy":
        if not pool.usage.jobs_known:
            return "jobs are not known: what was allocated cannot be told"
        return "which GPUs jobs held is not known"
    needs = {"active": "gpu.sm_active", "flops": "gpu.tensor_active", "bandwidth": "gpu.dram_active"}
    return f"{needs[key]} is not measured (DCGM profiling metrics)"


def _ratio(above: Numbers, below: Numbers, formula: str) -> Quantity | None:
    """Of sums over blocks, with the interval of a ratio estimator."""
    use = below > 0
    count, total, whole = int(use.sum()), float(above.sum()), float(below.sum())
    if not whole > 0 or not math.isfinite(total / whole):
        return None
    rest = above[use] - total / whole * below[use]
    spread = math.sqrt(float((rest**2).sum()) * count / (count - 1)) if count > 1 else 0.0
    return _from_spread(total, whole, spread, formula)


def _from_spread(total: float, whole: float, spread: float, formula: str) -> Quantity | None:
    if not whole > 0 or not math.isfinite(total / whole) or not math.isfinite(spread):
        return None
    ratio = min(max(total / whole, 0.0), 1.0)
    off = Z80 * spread / whole
    return between(max(ratio - off, 0.0), ratio, min(ratio + off, 1.0), "ratio", formula)
