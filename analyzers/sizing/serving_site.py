"""What a deployment that serves asks of its place: nodes, power, racks, energy a token, cost. Pure; W, bytes, s, $ of a stated day.

Training's run ends and is reckoned by its length; serving goes on, so that its energy and cost are by the hour and the token.
"""

from __future__ import annotations

import math
from dataclasses import replace

from coldaisle.analyzers.sizing.power import NodePower, gpu_hour_cost, node_power, racks
from coldaisle.analyzers.sizing.quantity import Quantity, exact, largest
from coldaisle.analyzers.sizing.sheet import Section, Sheet, SizingError
from coldaisle.analyzers.sizing.site import Machine, Site, machine
from coldaisle.analyzers.sizing.training_sections import RACK_W
from coldaisle.sources.parts.catalogue import Part

AT_LOAD = "at the load"
FULL = "of one replica, full"
"""Sections of a serving sheet that tell its throughput: with a load, and without one."""
_HOUR = 3600.0
_DAY_HOURS = 24.0


def with_site(sheet: Sheet, part: Part, site: Site) -> Sheet:
    """A serving sheet with sections of power and racks, and cost; without GPUs where the power that was told is too little.

    Errors: SizingError for another part's node, or a rack that holds no node.
    """
    if sheet.gpus is None:
        return sheet
    built = machine(part, site)
    gpus = int(sheet.gpus.value)
    nodes = -(-gpus // built.node_gpus)
    each = min(built.node_gpus, gpus)
    try:
        node = node_power(part, each, built.node if each == built.node_gpus else None)
    except SizingError:
        nothing = Section("power and racks", (), "nobody publishes the power of this part")
        return replace(sheet, sections=(*sheet.sections, nothing))
    if nodes * node.nameplate.value > site.power_limit_w:
        return _unfed(sheet, part, site, nodes, each, node)
    made = (_power(sheet, site, built, nodes, node), *_cost(sheet, site, gpus, node.busy.value / each))
    return replace(sheet, sections=(*sheet.sections, *made))


def figure_of(sheet: Sheet, section: str, label: str) -> Quantity | None:
    """One figure; None: it is not there."""
    found = (dict(one.figures).get(label) for one in sheet.sections if one.name == section)
    return next((figure for figure in found if figure is not None), None)


def at_load(sheet: Sheet, label: str) -> Quantity | None:
    """A figure at the load that was asked for; without one of a replica that is full."""
    return figure_of(sheet, AT_LOAD, label) or figure_of(sheet, FULL, label)


def throughput(sheet: Sheet | None) -> float:
    """Output tokens/s that a deployment can; NaN: not one that serves."""
    figure = at_load(sheet, "throughput") if sheet else None
    return figure.value if figure else math.nan


def tokens_s(sheet: Sheet) -> Quantity | None:
    """Output tokens/s that are paid for: those that were asked for, else all that it can."""
    return figure_of(sheet, AT_LOAD, "asked for") or at_load(sheet, "throughput")


def _unfed(sheet: Sheet, part: Part, site: Site, nodes: int, each: int, node: NodePower) -> Sheet:
    assert sheet.gpus is not None
    fed = int(site.power_limit_w // node.nameplate.value) * each
    needed = node.nameplate.scaled(nodes, formula=f"{nodes} nodes of {node.nameplate.value:g} W")
    answer = (
        f"{sheet.gpus.value:,.0f} {part.product} are needed and {site.power_limit_w / 1e3:g} kW feed {fed:,} by name plate; "
        f"{needed.value / 1e3:.3g} kW would do. What binds: power"
    )
    terms = (("power", needed), ("power limit", exact(site.power_limit_w, "W", "told")))
    return replace(sheet, answer=answer, gpus=None, binding=largest(terms))


def _power(sheet: Sheet, site: Site, built: Machine, nodes: int, node: NodePower) -> Section:
    plate, busy = node.nameplate.scaled(nodes), node.busy.scaled(nodes)
    pue = site.overhead()
    heat = _times(busy, pue, "W", f"IT · PUE {pue.value:g}")
    rack_w = max(RACK_W, node.nameplate.value) if math.isnan(site.rack_w) else site.rack_w
    height = built.node.rack_units if built.node else math.nan
    standing = racks(nodes, node.nameplate.value, rack_w, height)
    figures = [
        ("nodes", exact(nodes, "nodes", f"of {built.node_gpus} GPUs at most")),
        ("node, name plate", node.nameplate),
        ("node, at most under work", node.peak),
        ("node, mean of heavy work", node.busy),
        ("all nodes, name plate", plate.explained(f"{nodes} nodes; circuits are for this")),
        ("all nodes, mean of heavy work", busy.explained(f"{nodes} nodes")),
        ("heat with cooling and conversion", heat),
        ("energy a day", heat.scaled(_DAY_HOURS / 1e3, "kWh", f"{heat.value / 1e3:.4g} kW · 24 h")),
        ("power of a rack", exact(rack_w, "W", "taken" if math.isnan(site.rack_w) else "told")),
        ("racks", standing.quantity.explained(f"{standing.quantity.formula}; {standing.name} binds")),
    ]
    rate = tokens_s(sheet)
    if rate is not None:
        words = f"{heat.value:.4g} W / {rate.value:.4g} tokens/s"
        figures.append(("energy an output token", _over(heat, rate, "J/token", words)))
    return Section("power and racks", tuple(figures))


def _cost(sheet: Sheet, site: Site, gpus: int, gpu_w: float) -> tuple[Section, ...]:
    prices = site.prices
    if prices is None:
        note = "no price was told; prices drift by the month, so they are inputs with their day"
        return (Section("cost", (), note),)
    each = gpu_hour_cost(prices, gpu_w, site.overhead().value)
    if each is None:
        return (Section("cost", (), f"of {prices.as_of} energy alone was told, and no price of a GPU"),)
    hour = each.scaled(gpus, "$/h", f"{gpus:,} GPUs · {each.value:.4g} $")
    figures = [("a used GPU-hour", each), ("an hour", hour)]
    figures.append(("30 days", hour.scaled(30 * _DAY_HOURS, "$", f"{hour.value:.4g} $/h · 720 h")))
    rate = tokens_s(sheet)
    if rate is not None:
        made = _over(hour, rate, "$", f"{hour.value:.4g} $/h / ({rate.value:.4g} tokens/s · 3600) · 1e6")
        figures.append(("a million output tokens", made.scaled(1e6 / _HOUR)))
    return (Section("cost", tuple(figures), f"prices as told, of {prices.as_of}"),)


def _times(one: Quantity, other: Quantity, unit: str, formula: str) -> Quantity:
    return Quantity(
        one.value * other.value, one.low * other.low, one.high * other.high, unit, formula, other.source
    )


def _over(one: Quantity, other: Quantity, unit: str, formula: str) -> Quantity:
    return Quantity(
        one.value / other.value, one.low / other.high, one.high / other.low, unit, formula, one.source
    )
