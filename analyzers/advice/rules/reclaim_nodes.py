"""Nodes that nobody needed for four weeks: to return, to merge or to power down."""

from __future__ import annotations

import math
from collections.abc import Iterator

import msgspec
import numpy as np

from coldaisle.analyzers.advice.advice import Advice, Grade, Refused, Saving
from coldaisle.analyzers.advice.load import Load, loads
from coldaisle.analyzers.advice.places import of_jobs, place, thin_load, without_load
from coldaisle.analyzers.advice.pool import HOUR, WEEK, Pool
from coldaisle.analyzers.advice.rules.out_of_service import share_out
from coldaisle.analyzers.advice.telling import between, counted
from coldaisle.analyzers.finding import Scope

NAME = "reclaim_nodes"


class Thresholds(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """See the TOML file."""

    least_days: float
    q: float
    headroom: float


def advise(pool: Pool, rules: Thresholds) -> Iterator[Advice | Refused]:
    """A line a partition that has whole nodes to spare."""
    if refused := without_load(pool, NAME, rules.least_days):
        yield refused
        return
    for load in loads(pool):
        if refused := thin_load(pool, NAME, load):
            yield refused
        elif found := _advice(pool, rules, load):
            yield found


def _advice(pool: Pool, rules: Thresholds, load: Load) -> Advice | None:
    top = load.quantile(rules.q)
    available = 1 - share_out(pool, load.boards)
    if not load.installed or not available > 0:
        return None
    nodes = list(dict.fromkeys(pool.usage.boards[board].node for board in load.boards.tolist()))
    each = load.installed / len(nodes)
    spare = [
        max(math.floor((load.installed - rules.headroom * level / available) / each), 0)
        for level in (top.high, top.value, top.low)
    ]
    low, value, high = spare
    if low < 1:
        return None
    chosen = _least_used(pool, load, nodes)[:low]
    hours = between(low * each, low * each, value * each, "gpus").scaled(WEEK / HOUR, "gpu_hours")
    power = _idle_power(pool, chosen)
    return Advice(
        id=f"{NAME}:{load.partition}",
        rule=NAME,
        action=f"return, merge or power down {counted(low, 'node')} of {place(load.partition)}",
        scope=Scope(nodes=tuple(chosen)),
        quantity=between(
            low,
            low,
            max(high, low),
            "nodes",
            f"installed - p{rules.q * 100:.0f} of running and waiting GPUs x {rules.headroom:g} / share in service",
        ),
        saving=Saving(
            hours,
            None if power is None else between(0.0, power, power, "W", "mean power of the least used nodes"),
        ),
        grade=Grade.B,
        grounds=(of_jobs(pool, load, "slurm.pending"),),
        because=(
            f"p{rules.q * 100:.0f} of what was asked for is at most {top.high:,.0f} of {load.installed:,} GPUs over"
            f" {pool.usage.span_s / 86400:.0f} days, {1 - available:.0%} out of service"
        ),
        would_change="a deadline or a new user that the last weeks did not see",
        but="where nodes are kept for a reservation, or for failures of others",
    )


def _least_used(pool: Pool, load: Load, nodes: list[str]) -> list[str]:
    """Nodes by how long jobs held their boards, the least first."""
    number = {node: place for place, node in enumerate(nodes)}
    held = np.zeros(len(nodes))
    of_board = pool.held.sum(axis=1)
    for board in load.boards.tolist():
        held[number[pool.usage.boards[board].node]] += of_board[board]
    return [nodes[place] for place in np.argsort(held, kind="stable").tolist()]


def _idle_power(pool: Pool, nodes: list[str]) -> float | None:
    """What the boards of these nodes drew while nobody held them; None: not measured."""
    power = pool.metric("gpu.power")
    chosen = [number for number, board in enumerate(pool.usage.boards) if board.node in set(nodes)]
    if power is None or not chosen:
        return None
    rows = np.where(pool.held[chosen], np.float32(np.nan), power[chosen])
    counts = (~np.isnan(rows)).sum(axis=1)
    means = np.nansum(rows, axis=1, dtype=np.float64) / np.maximum(counts, 1)
    return float(means.sum()) if counts.any() else None
