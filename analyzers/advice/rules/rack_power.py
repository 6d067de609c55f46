"""Power that racks never draw, and how many nodes more it would carry; racks that draw more than they may.

p99 of a rack's sum, not the sum of p99: boards do not peak together. Where nodes' power is not measured it is taken as a
multiple of their GPUs'.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

import msgspec
import numpy as np

from coldaisle.analyzers.advice.advice import Advice, Grade, Ground, Refused, Saving
from coldaisle.analyzers.advice.intervals import Span, effective, quantile
from coldaisle.analyzers.advice.places import short
from coldaisle.analyzers.advice.pool import Bools, Index, Numbers, Pool
from coldaisle.analyzers.advice.telling import between, counted, named
from coldaisle.analyzers.finding import NOWHERE, Scope

NAME = "rack_power"


class Thresholds(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """See the TOML file."""

    least_days: float
    q: float
    node_factor: float
    node_factor_low: float
    node_factor_high: float
    limit_w: float | None = None
    limits_w: dict[str, float] = {}


class Rack(NamedTuple):
    """One rack; W."""

    name: str
    top: Span
    """Quantile over time of the sum."""
    apart: float
    """Sum of the quantiles of its nodes."""
    node: float
    """The quantile of its hungriest node."""
    limit: float
    """NaN: not told."""
    nodes: tuple[str, ...]
    coverage: float


def advise(pool: Pool, rules: Thresholds) -> Iterator[Advice | Refused]:
    """A line for all racks with room, and one for each that draws too much."""
    if refused := short(pool, NAME, rules.least_days):
        yield refused
        return
    is_whole = _is_of_nodes(pool)
    if not is_whole and pool.metric("gpu.power") is None:
        yield Refused(NAME, NOWHERE, "neither node.power nor gpu.power is measured")
        return
    racks = list(_racks(pool, rules, is_whole))
    known = [rack for rack in racks if rack.coverage >= pool.common.least_coverage]
    if len(known) < len(racks):
        least = f"{pool.common.least_coverage:.0%}"
        yield Refused(
            NAME,
            NOWHERE,
            f"{counted(len(racks) - len(known), 'rack')} measured for less than {least} of the time",
        )
    limited = [rack for rack in known if not math.isnan(rack.limit)]
    if known and not limited:
        yield _without_limit(known, rules)
    for rack in limited:
        if rack.top.value > rack.limit:
            yield _over(pool, rules, rack, is_whole)
    if roomy := [rack for rack in limited if _fitting(rack, rack.top.high) >= 1]:
        yield _roomy(pool, rules, roomy, is_whole)


def _without_limit(racks: list[Rack], rules: Thresholds) -> Refused:
    total = sum(rack.top.value for rack in racks)
    told = f"p{rules.q * 100:.0f} of {counted(len(racks), 'rack')} is {total / 1e3:,.0f} kW together"
    return Refused(
        NAME, NOWHERE, f"{told}, diversity {_diversity(racks):.2f}; what they may draw is not told (limit_w)"
    )


def _diversity(racks: list[Rack]) -> float:
    apart = sum(rack.apart for rack in racks)
    return sum(rack.top.value for rack in racks) / apart if apart > 0 else math.nan


def _fitting(rack: Rack, top: float) -> int:
    return max(math.floor((rack.limit - top) / rack.node), 0) if rack.node > 0 else 0


def _over(pool: Pool, rules: Thresholds, rack: Rack, is_whole: bool) -> Advice:
    return Advice(
        id=f"{NAME}:{rack.name}",
        rule=NAME,
        action=f"cap or move {(rack.top.value - rack.limit) / 1e3:,.1f} kW of rack {named(rack.name)}",
        scope=Scope(racks=(rack.name,), nodes=rack.nodes),
        quantity=between(
            max(rack.top.low - rack.limit, 0.0), rack.top.value - rack.limit, rack.top.high - rack.limit, "W"
        ),
        saving=Saving(),
        grade=Grade.B if is_whole else Grade.C,
        grounds=(_ground(pool, [rack], is_whole),),
        because=f"p{rules.q * 100:.0f} of its sum is {rack.top.value / 1e3:,.1f} kW, it may draw {rack.limit / 1e3:,.1f} kW",
        would_change="power measured at the rack"
        if is_whole
        else "power of whole nodes: here it is 1.5 times their GPUs'",
    )


def _roomy(pool: Pool, rules: Thresholds, racks: list[Rack], is_whole: bool) -> Advice:
    left = [sum(rack.limit - getattr(rack.top, side) for rack in racks) for side in ("high", "value", "low")]
    low, fit, high = (
        sum(_fitting(rack, getattr(rack.top, side)) for rack in racks) for side in ("high", "value", "low")
    )
    return Advice(
        id=NAME,
        rule=NAME,
        action=f"put {counted(low, 'more node')} into {counted(len(racks), 'rack')}: {left[1] / 1e3:,.0f} kW are never drawn",
        scope=Scope(racks=tuple(rack.name for rack in racks)),
        quantity=between(
            low, low, max(high, fit, low), "nodes", "(limit - p99 of the sum) / p99 of a node, whole, by rack"
        ),
        saving=Saving(power=between(left[0], left[1], left[2], "W", "limit - p99 of the rack's sum")),
        grade=Grade.B if is_whole else Grade.C,
        grounds=(_ground(pool, racks, is_whole),),
        because=(
            f"p{rules.q * 100:.0f} of the racks' sums is {sum(rack.top.value for rack in racks) / 1e3:,.0f} of"
            f" {sum(rack.limit for rack in racks) / 1e3:,.0f} kW; diversity {_diversity(racks):.2f}"
        ),
        would_change="cooling, space and ports of these racks"
        if is_whole
        else "power of whole nodes: here it is 1.5 times their GPUs'",
        but="circuits are provisioned for what could be drawn: fill this room under a power cap alone",
    )


def _ground(pool: Pool, racks: list[Rack], is_whole: bool) -> Ground:
    coverage = min(rack.coverage for rack in racks)
    nodes = sum(len(rack.nodes) for rack in racks)
    samples = int(pool.bins * nodes * coverage)
    return Ground("node.power" if is_whole else "gpu.power", pool.usage.span_s, samples, coverage)


def _racks(pool: Pool, rules: Thresholds, is_whole: bool) -> Iterator[Rack]:
    of_node = _of_nodes(pool, is_whole)
    racks: dict[str, list[str]] = {}
    for host in pool.usage.hosts:
        if host.rack and host.key in of_node:
            racks.setdefault(host.rack, []).append(host.key)
    factors = Span(1.0, 1.0, 1.0)
    if not is_whole:
        factors = Span(rules.node_factor_low, rules.node_factor, rules.node_factor_high)
    for name, nodes in racks.items():
        rows = np.stack([of_node[node] for node in nodes])
        known: Bools = np.asarray(~np.isnan(rows).any(axis=0))
        total: Numbers = np.where(known, rows.sum(axis=0), np.nan)
        top = quantile(total, rules.q, effective(total))
        tops = [quantile(row, rules.q).value * factors.value for row in rows]
        yield Rack(
            name,
            Span(top.low * factors.low, top.value * factors.value, top.high * factors.high),
            sum(tops),
            max(tops),
            rules.limits_w.get(name, math.nan if rules.limit_w is None else rules.limit_w),
            tuple(nodes),
            float(known.mean()) if len(known) else 0.0,
        )


def _is_of_nodes(pool: Pool) -> bool:
    """Whether the power of whole nodes is measured."""
    values = pool.usage.host_means.get("node.power")
    shape = (pool.bins, len(pool.usage.hosts))
    return values is not None and values.shape == shape and not bool(np.isnan(values).all())


def _of_nodes(pool: Pool, is_whole: bool) -> dict[str, Numbers]:
    """By node, [bin] W of it, or of its GPUs: those not measured at the moment draw what the others do."""
    if is_whole:
        values = pool.usage.host_means["node.power"].T.astype(np.float64)
        return {host.key: values[number] for number, host in enumerate(pool.usage.hosts)}
    power = pool.metric("gpu.power")
    assert power is not None
    boards: dict[str, list[int]] = {}
    for number, board in enumerate(pool.usage.boards):
        boards.setdefault(board.node, []).append(number)
    return {node: _sum(power, np.array(members, dtype=np.intp)) for node, members in boards.items()}


def _sum(power: np.ndarray[tuple[int, ...], np.dtype[np.float32]], members: Index) -> Numbers:
    rows = power[members].astype(np.float64)
    known = (~np.isnan(rows)).sum(axis=0)
    total: Numbers = np.nansum(rows, axis=0) * len(members) / np.maximum(known, 1)
    return np.where(known >= 0.75 * len(members), total, np.nan)
