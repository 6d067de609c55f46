"""What a deployment that serves sends over links and ports, and reads from storage when it starts. Pure; bytes, bytes/s, s.

Tensor parallelism stays within the links of a node: two all-reduces of ``2 h`` bytes a layer and token. Stages of a pipeline pass
``2 h`` bytes a token over ports. Were prefill and decode apart, keys and values of every prompt would cross a port too.
"""

from __future__ import annotations

import math

from coldaisle.analyzers.sizing.assumptions import assumed
from coldaisle.analyzers.sizing.cabling import cabling, fabric_of, figures_of
from coldaisle.analyzers.sizing.quantity import Quantity, exact
from coldaisle.analyzers.sizing.serving_layout import Candidate
from coldaisle.analyzers.sizing.serving_request import Request
from coldaisle.analyzers.sizing.sheet import Section
from coldaisle.analyzers.sizing.site import Machine, Site, machine
from coldaisle.analyzers.sizing.speed import constants, step_parts
from coldaisle.analyzers.sizing.weights import weight_bytes
from coldaisle.sources.parts import pcie_achievable
from coldaisle.sources.parts.catalogue import Part

Figures = list[tuple[str, Quantity]]
_DIRECT = "analyzers/sizing/serving_traffic.py"
_USUAL_PCIE = 5.0


def traffic_sections(request: Request, part: Part, best: Candidate, site: Site) -> tuple[Section, Section]:
    """Network, and storage."""
    built = machine(part, site)
    return _network(request, best, built), _storage(request, part, best, built, site)


def _network(request: Request, best: Candidate, built: Machine) -> Section:
    rates = _tokens_s(request, best)
    figures = [
        *_tensor(request, best, rates),
        *_stages(best, built, rates),
        *_handed_over(request, best, built),
    ]
    found = cabling(built, -(-best.gpus // built.node_gpus))
    if found is None:
        return Section(
            "network", tuple(figures), "one node: no ports between nodes carry anything but requests"
        )
    fabric = fabric_of(found.rate)
    kind = "" if fabric is None else f"; ports as of {fabric.kind}"
    return Section("network", (*figures, *figures_of(found)), found.note + kind)


def _tokens_s(request: Request, best: Candidate) -> float:
    """Tokens/s, read and written, that go through one replica at its point."""
    return best.throughput * (1 + request.isl / request.osl)


def _tensor(request: Request, best: Candidate, rate: float) -> Figures:
    """All-reduces inside a node."""
    ranks, replica = best.tensor, best.replica
    if ranks == 1 or best.point is None:
        return []
    each = 2 * replica.layers * 2 * (ranks - 1) / ranks * 2.0 * replica.hidden / best.stages
    step = step_parts(best.replica, best.point.running, best.load.context)
    taken = each * best.stages * best.point.running / replica.link
    words = f"2·{replica.layers} layers · 2({ranks}-1)/{ranks} · 2·{replica.hidden:,} B"
    return [
        ("tensor-parallel a token and GPU", exact(each, "bytes", words, _DIRECT)),
        ("tensor-parallel a GPU", _of_throughput(each * rate, f"{rate:.4g} tokens/s, prompts with them")),
        ("link of a GPU", exact(replica.link, "bytes/s", "one way, as collectives reach it", "sources/parts")),
        (
            "share of a decode step",
            exact(min(taken / step.seconds, 1.0), "ratio", f"{taken * 1e3:.3g} of {step.seconds * 1e3:.3g} ms, volume alone"),
        ),
    ]  # fmt: skip


def _stages(best: Candidate, built: Machine, rate: float) -> Figures:
    """Activations from stage to stage, over ports where a replica is larger than a node."""
    if best.stages == 1:
        return []
    each = 2.0 * best.replica.hidden
    port = built.port * built.port_efficiency
    crossing = each * rate / best.tensor
    return [
        ("pipeline a token and boundary", exact(each, "bytes", f"2·{best.replica.hidden:,} B", _DIRECT)),
        ("pipeline a GPU", _of_throughput(crossing, "over its port, to the next stage")),
        ("share of its port", _of_throughput(crossing / port, f"of {port:.3g} bytes/s", "ratio")),
    ]


def _handed_over(request: Request, best: Candidate, built: Machine) -> Figures:
    """Keys and values of a prompt, if one replica reads and another writes."""
    kept = best.kept.of_request(request.isl)
    port = built.port * built.port_efficiency
    ports = max(min(best.kept.shards, best.tensor), 1) * best.stages
    words = f"{request.isl:,.0f} tokens in; only where prefill and decode are apart"
    figures = [
        ("keys and values of a prompt", exact(kept, "bytes", words, best.kept.formula)),
        (
            "to hand a prompt over",
            Quantity(
                kept / (port * ports), kept / (built.port * ports), 2 * kept / (port * ports), "s",
                f"{kept:.4g} bytes / ({ports} ports · {port:.3g} bytes/s)", _DIRECT,
            ),
        ),
    ]  # fmt: skip
    per_s = best.throughput / request.osl * best.replicas * kept
    figures.append(
        ("handed over by all", _of_throughput(per_s, "requests/s of all replicas · keys and values"))
    )
    return figures


def _storage(request: Request, part: Part, best: Candidate, built: Machine, site: Site) -> Section:
    weights = weight_bytes(request.model, request.dtype)
    pcie = pcie_achievable(part.pcie_generation)
    lane = pcie_achievable(_USUAL_PCIE) if math.isnan(pcie) else pcie
    each = weights.value / (best.tensor * best.stages)
    figures: Figures = [
        ("weights of a replica", weights),
        (
            "least time to load",
            exact(each / lane, "s", f"{each:.4g} bytes a GPU / {lane:.3g} bytes/s of PCIe, from memory"),
        ),
        *_reading(weights, best.replicas, each / lane, site),
        (
            "kept on each node",
            exact(weights.value, "bytes", "local disk or memory: then storage is not read again", "guess"),
        ),
    ]
    note = "compiling, graphs and warming up come on top: minutes, measured at your site"
    return Section("storage", tuple(figures), note)


def _reading(weights: Quantity, replicas: int, least: float, site: Site) -> Figures:
    """Times of a storage that was told, else the bandwidth that a start needs."""
    if math.isnan(site.storage_read):
        start = assumed("serving.start_s", "s")
        one = Quantity(
            weights.value / start.value, weights.low / start.high, weights.high / start.low, "bytes/s",
            f"weights / {start.value:g} s", start.source,
        )  # fmt: skip
        return [
            ("read bandwidth to add a replica", one),
            ("read bandwidth to start all", one.scaled(replicas, formula=f"{replicas} replicas at once")),
        ]
    told = f"{site.storage_read:.3g} bytes/s told"
    return [
        ("read bandwidth", exact(site.storage_read, "bytes/s", "told")),
        ("to add a replica", _time(weights, site.storage_read, least, told)),
        ("to start all", _time(weights, site.storage_read / replicas, least, f"{replicas} replicas, {told}")),
    ]


def _time(weights: Quantity, rate: float, least: float, words: str) -> Quantity:
    low, value, high = (max(size / rate, least) for size in (weights.low, weights.value, weights.high))
    return Quantity(value, low, high, "s", f"{weights.value:.4g} bytes / {rate:.4g} bytes/s; {words}")


def _of_throughput(value: float, formula: str, unit: str = "bytes/s") -> Quantity:
    """With the interval that throughput has."""
    band = constants()["band.throughput"]
    return Quantity(value, value * band.low, value * band.high, unit, formula, band.source)
