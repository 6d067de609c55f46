"""Power, racks, energy and cost. Pure; W, s, joules as kWh where people pay for them, $ of a stated day.

Circuits are for the name plate, energy is what work draws. A node draws about 1.5 times its GPUs' limits at most (8.4 of 5.6 kW
measured), heavy work three quarters of the name plate. Sources: Latif et al. 2025 (arXiv 2412.08602), arXiv 2506.14551.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from coldaisle.analyzers.sizing.assumptions import assumed
from coldaisle.analyzers.sizing.bounds import check_above_zero
from coldaisle.analyzers.sizing.catalogue import NodeType
from coldaisle.analyzers.sizing.quantity import Binding, Quantity, about, exact, largest, whole
from coldaisle.analyzers.sizing.sheet import SizingError
from coldaisle.sources.parts.catalogue import Part

HOURS_A_YEAR = 8766.0
_KWH = 3.6e6
_LATIF = "Latif et al. 2025 (arXiv 2412.08602)"


@dataclass(frozen=True, slots=True)
class NodePower:
    """W of one node: what circuits are laid for, the most that work draws, the mean of heavy work, at rest."""

    nameplate: Quantity
    peak: Quantity
    busy: Quantity
    idle: Quantity


def node_power(part: Part, gpus: int, node: NodeType | None = None) -> NodePower:
    """Of a node with so many of a part. Errors: SizingError where neither the part's nor the node's power is known."""
    check_above_zero("GPUs a node", gpus)
    boards = part.power_w * gpus
    plate = _nameplate(boards, node)
    peak, busy, idle = assumed("power.peak_over_gpus"), assumed("power.busy"), assumed("power.idle")
    if math.isnan(boards):
        most = plate.scaled(busy.high, formula=f"{busy.high:g} of the name plate", source=busy.source)
    else:
        most = Quantity(
            min(boards * peak.value, plate.value),
            min(boards * peak.low, plate.value),
            max(min(boards * peak.high, plate.high), min(boards * peak.value, plate.value)),
            "W",
            f"{peak.value:g} · {gpus} · {part.power_w:g} W, at most the name plate",
            peak.source,
        )
    if node is not None and not math.isnan(node.measured_power_w) and "MaxQ" not in node.measured_basis:
        most = about(
            node.measured_power_w, 0.95, 1.05, "W", f"measured: {node.measured_basis}", ";".join(node.sources)
        )
    return NodePower(
        plate,
        most,
        _at_most(_share(plate, busy, "of the name plate under heavy work"), most),
        _share(plate, idle, "of the name plate at rest"),
    )


def _at_most(mean: Quantity, most: Quantity) -> Quantity:
    """A mean is no higher than what is drawn at most: GPUs are a smaller part of the name plate in some nodes."""
    if mean.value <= most.value:
        return mean
    low = min(mean.low, most.value)
    return Quantity(
        most.value, low, max(most.high, most.value), "W", f"{mean.formula}, at most the highest", mean.source
    )


def _nameplate(boards: float, node: NodeType | None) -> Quantity:
    if node is not None and not math.isnan(node.power_w):
        return exact(node.power_w, "W", f"name plate of {node.system}", ";".join(node.sources))
    if math.isnan(boards):
        raise SizingError("nobody publishes the power of this part; name a node whose name plate is known")
    factor = assumed("power.nameplate_over_gpus")
    return Quantity(
        boards * factor.value,
        boards * factor.low,
        boards * factor.high,
        "W",
        f"{factor.value:g} · {boards:g} W of GPUs",
        factor.source,
    )


def _share(plate: Quantity, share: Quantity, words: str) -> Quantity:
    return Quantity(
        plate.value * share.value,
        plate.low * share.low,
        plate.high * share.high,
        "W",
        f"{share.value:g} {words}",
        share.source,
    )


def racks(
    nodes: float,
    node_w: float,
    rack_w: float,
    rack_units: float = math.nan,
    units_a_rack: float = 42.0,
    ports: float = math.nan,
    ports_a_rack: float = math.nan,
) -> Binding:
    """Racks, and what decides: power by name plate, height, or ports. Errors: SizingError for a rack that holds no node."""
    for name, size in (("nodes", nodes), ("node power", node_w), ("rack power", rack_w)):
        check_above_zero(name, size)
    by_power = math.floor(rack_w / node_w)
    if by_power < 1:
        raise SizingError(
            f"a rack of {rack_w / 1e3:g} kW holds no node of {node_w / 1e3:g} kW; it needs a rack of {math.ceil(node_w / 1e3)} kW"
        )
    terms = [("power", exact(nodes / by_power, "racks", f"{by_power} nodes of {node_w:g} W in {rack_w:g} W"))]
    if rack_units > 0:
        by_height = max(math.floor(units_a_rack / rack_units), 1)
        terms.append(
            (
                "height",
                exact(
                    nodes / by_height, "racks", f"{by_height} nodes of {rack_units:g} U in {units_a_rack:g} U"
                ),
            )
        )
    if ports > 0 and ports_a_rack > 0:
        terms.append(
            (
                "ports",
                exact(
                    nodes * ports / ports_a_rack, "racks", f"{ports:g} ports a node, {ports_a_rack:g} a rack"
                ),
            )
        )
    return largest((name, whole(term)) for name, term in terms)


def energy_kwh(power: Quantity, seconds: Quantity, pue: Quantity) -> Quantity:
    """kWh at the meter: power over time, with cooling and conversion."""
    return Quantity(
        power.value * seconds.value * pue.value / _KWH,
        power.low * seconds.low * pue.low / _KWH,
        power.high * seconds.high * pue.high / _KWH,
        "kWh",
        f"P·t·PUE = {power.value:.4g} W · {seconds.value:.4g} s · {pue.value:g}",
        f"{power.source}; {pue.source}",
    )


def joules_per_token(watts: float, tokens_s: float) -> Quantity:
    """J a token: 8 H200 at 6,153 W and 25,262 tokens/s are 0.244."""
    check_above_zero("power", watts)
    check_above_zero("tokens/s", tokens_s)
    return exact(watts / tokens_s, "J/token", f"{watts:g} W / {tokens_s:g} tokens/s")


@dataclass(frozen=True, slots=True)
class Prices:
    """What things cost on a day; the catalogue has no prices, as they drift by the month. NaN: not told.

    Either ``gpu_hour`` ($ rented) or ``gpu_capital`` ($ a GPU with its share of node and network) over ``years`` at ``interest``.
    ``utilisation``: of the hours that are paid, those in which GPUs work. Errors: SizingError without a day, or for nonsense.
    """

    as_of: str
    """The day, ``2026-11-01``."""
    gpu_hour: float = math.nan
    energy_kwh: float = math.nan
    gpu_capital: float = math.nan
    years: float = 4.0
    interest: float = 0.08
    upkeep: float = 0.0
    """$ a GPU and year beside energy: people, space, contracts."""
    availability: float = 0.97
    utilisation: float = 0.7

    def __post_init__(self) -> None:
        if not self.as_of.strip():
            raise SizingError("a price needs its day (as_of), for prices drift by the month")
        for name in ("gpu_hour", "energy_kwh", "gpu_capital"):
            if not math.isnan(price := getattr(self, name)):
                check_above_zero(name.replace("_", " "), price)
        check_above_zero("years", self.years)
        for name in ("availability", "utilisation"):
            if not 0 < getattr(self, name) <= 1:
                raise SizingError(f"{name} is {getattr(self, name):g}; it is a ratio above 0 and at most 1")
        if self.interest < 0 or self.upkeep < 0:
            raise SizingError("interest and upkeep are not below zero")


def recovery(rate: float, years: float) -> float:
    """Capital recovery factor: what of a sum is paid each year, interest and principal."""
    check_above_zero("years", years)
    return 1 / years if rate == 0 else rate / (1 - (1 + rate) ** -years)


def gpu_hour_cost(prices: Prices, gpu_watts: float, pue: float) -> Quantity | None:
    """$ a GPU-hour that is used; None where no price was told.

    ``(capital · CRF(r, y) + upkeep) / (8766 · availability · utilisation) + kW · PUE · $/kWh``; rented: ``rent / utilisation``.
    """
    if not math.isnan(prices.gpu_hour):
        return exact(
            prices.gpu_hour / prices.utilisation,
            "$/GPU-h",
            f"{prices.gpu_hour:g} $/h / {prices.utilisation:g} used",
            f"told, of {prices.as_of}",
        )
    if math.isnan(prices.gpu_capital):
        return None
    crf = recovery(prices.interest, prices.years)
    fixed = (prices.gpu_capital * crf + prices.upkeep) / (
        HOURS_A_YEAR * prices.availability * prices.utilisation
    )
    energy = 0.0 if math.isnan(prices.energy_kwh) else gpu_watts / 1e3 * pue * prices.energy_kwh
    return exact(
        fixed + energy,
        "$/GPU-h",
        f"({prices.gpu_capital:g}·{crf:.4f} + {prices.upkeep:g})/(8766·{prices.availability:g}·{prices.utilisation:g}) + "
        f"{gpu_watts / 1e3:.3g} kW·{pue:g}·{prices.energy_kwh:g}",
        f"told, of {prices.as_of}",
    )
