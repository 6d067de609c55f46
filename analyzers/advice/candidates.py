"""How much faster a part would be for work that is bound as it is, and how many of it the same work takes.

``S = 1 / sum(share x old / new)`` over what binds: memory bandwidth by the sheet, compute by dense flop/s
x the best matrix product measured, links by their rate. A format that the old part does not compute in is not credited.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from coldaisle.analyzers.advice.intervals import Span, staffed
from coldaisle.analyzers.sizing.quantity import Binding, Quantity, largest, whole
from coldaisle.sources.parts.catalogue import Part

SCALING = ("memory bandwidth", "compute", "communication")
"""Of attribution's resources what a faster part speeds up."""
MANY = 200.0
"""Servers at which waits no longer decide how full they may be."""
SOURCE = "parts catalogue: data sheets, best matrix products measured"


@dataclass(frozen=True, slots=True)
class Option:
    """One way to do the same work. The first is always to buy nothing."""

    part: str
    """Id of the catalogue; empty: buy nothing."""
    name: str
    gpus: Quantity
    """What the same work takes."""
    speedup: Quantity | None = None
    """Against today's part."""
    binding: str = ""
    """The term that decides the count: ``throughput``, ``memory``."""
    power: Quantity | None = None
    """W of their default limits."""
    money: Quantity | None = None
    """$; None: no price was given."""
    note: str = ""


@dataclass(frozen=True, slots=True)
class Fullness:
    """How full a pool may be."""

    gang: float
    """GPUs a job, on average."""
    wait: float
    """Mean wait in run times that jobs may have."""
    most: float
    today: float
    """Of today's pool: a new one need not be emptier."""

    def at(self, load: float) -> float:
        """Busy share at which jobs wait no longer than that (Erlang C)."""
        servers = max(load / max(self.gang, 1.0), 0.05)
        by_wait = 1.0 if servers >= MANY else servers / staffed(servers, self.wait)
        return min(max(by_wait, self.today), self.most)


def ratio(resource: str, old: Part, new: Part, doubt: float) -> Span:
    """How much more of a resource the new part has; 1 where it is not known that it has more."""
    if resource == "memory bandwidth":
        return _around(new.bandwidth / old.bandwidth, doubt)
    if resource == "communication":
        return _around(new.scaleup / old.scaleup, doubt)
    dtype = "bf16" if not math.isnan(old.peak("bf16")) else "fp16"
    dense = new.peak(dtype) / old.peak(dtype)
    measured = new.matmul_share(dtype) / old.matmul_share(dtype)
    if math.isnan(measured):
        return _around(dense, 2 * doubt)
    return _around(dense * measured, doubt)


def _around(value: float, doubt: float) -> Span:
    if not (math.isfinite(value) and value > 0):
        return Span(1.0, 1.0, 1.0)
    return Span(value, value, value) if value == 1 else Span(value / (1 + doubt), value, value * (1 + doubt))


def speedup(shares: Mapping[str, float], old: Part, new: Part, doubt: float) -> Quantity:
    """Of work whose time is bound so; what nothing binds does not get faster at the low end, and as the rest at the high one."""
    ratios = {resource: ratio(resource, old, new, doubt) for resource in SCALING}
    main = ratios[max(SCALING, key=lambda resource: shares.get(resource, 0.0))]
    rest = max(1.0 - sum(shares.get(resource, 0.0) for resource in SCALING), 0.0)

    def total(side: int, of_rest: float) -> float:
        return 1 / (sum(shares.get(r, 0.0) / ratios[r][side] for r in SCALING) + rest / of_rest)

    slow, fast = total(1, 1.0), total(1, max(main.value, 1.0))
    value = math.sqrt(slow * fast)
    low, high = total(0, 1.0), total(2, max(main.high, 1.0))
    return Quantity(
        value,
        min(low, value),
        max(high, value),
        "ratio",
        "1 / ("
        + " + ".join(f"{shares.get(r, 0.0):.2f} / {ratios[r].value:.2f}" for r in SCALING)
        + f" + {rest:.2f})",
        SOURCE,
    )


def count(busy: Span, memory: Span, faster: Quantity, new: Part, full: Fullness, room: float) -> Binding:
    """GPUs of the new part for ``busy`` of the old ones (at a quantile over time) and for ``memory`` bytes.

    ``room``: the share of its memory that is used.
    """
    load = busy.value / faster.value
    share = full.at(load)
    throughput = Quantity(
        load / share,
        min(busy.low / faster.high / share, load / share),
        max(busy.high / faster.low / share, load / share),
        "gpus",
        f"{busy.value:,.1f} busy GPUs / {faster.value:.2f} / {share:.2f}",
    )
    held = memory.scaled(1 / (new.memory_bytes * room))
    capacity = held.quantity("gpus", f"{memory.value:.4g} bytes / ({new.memory_bytes:.4g} x {room:g})")
    return largest((("throughput", whole(throughput)), ("memory", whole(capacity))))


def within(
    counted: Binding, faster: Quantity, new: Part, today: str, price: float | None, power_w: float | None
) -> Option:
    """As an option with its power and money."""
    gpus = counted.quantity
    power = None if math.isnan(new.power_w) else gpus.scaled(new.power_w, "W", "GPUs x default limit")
    over = power is not None and power_w is not None and power.value > power_w
    return Option(
        new.id,
        new.product,
        gpus,
        faster,
        counted.name,
        power,
        None if price is None else gpus.scaled(price, "$", "GPUs x price", "configuration"),
        f"takes {power.value / 1e3:,.0f} of {power_w / 1e3:,.0f} kW"
        if over and power and power_w
        else f"for {today}",
    )
