"""Links: full ones, lame ones, and those that only look so."""

from __future__ import annotations

from dataclasses import replace

from coldaisle.sources.simulator.plan import Part
from coldaisle.sources.simulator.scenarios.episodes.registry import (
    Draw,
    adapted,
    any_gpu,
    begin,
    heavy,
    scenario,
    train,
    widely,
)
from coldaisle.sources.simulator.scenarios.labels import Scenario
from coldaisle.sources.simulator.scenarios.pieces import Cause, Feed, Piece
from coldaisle.sources.simulator.scenarios.work import COPY

FULL, LAME = "interconnect_saturation", "interconnect_degraded"
STALL = "communication_stall"


def _busy(made: Piece, fabric: float = 0.0, nvlink: float = 0.0) -> Piece:
    """With an exchange that takes this share of a link's rate, over the time of computing."""
    assert made.program is not None
    compute, part = made.program["compute"], made.part
    over = {"fabric": fabric * part.port * compute} if fabric else {}
    over |= {"nvlink": nvlink * part.nvlink * compute} if nvlink else {}
    return adapted(made, **over)


def _filled(made: Piece, draw: Draw, least: float, most: float) -> Piece:
    """The exchange becomes larger: other parallelism, smaller batches."""
    at = begin(draw)
    more = Cause("traffic", float(draw.uniform(least, most)), None, at)
    return replace(made, start=at, evident_after=3, causes=(more,))


@scenario("ib_saturation", "the exchange fills InfiniBand", FULL, (STALL, "data_loader_starvation", LAME), "ib", nodes=4, needs=("host",))  # fmt: skip
def _ib(s: Scenario, part: Part, draw: Draw) -> Piece:
    made = train(s, part, draw, "llm-pretrain", 4, overlap=float(draw.uniform(0.3, 0.7)))
    return _filled(_busy(made, fabric=0.3), draw, 3, 10)


@scenario("roce_saturation", "the exchange fills RoCE", FULL, (STALL, LAME), "roce", nodes=4, needs=("host",))
def _roce(s: Scenario, part: Part, draw: Draw) -> Piece:
    made = train(s, part, draw, "llm-pretrain", 4, overlap=float(draw.uniform(0.3, 0.7)))
    return replace(_filled(_busy(made, fabric=0.3), draw, 3, 10), feeds=(Feed("roce", 0.0),))


@scenario("nvlink_saturation", "the exchange fills NVLink", FULL, (STALL,), "nvlink", nodes=1)
def _nvlink(s: Scenario, part: Part, draw: Draw) -> Piece:
    made = train(s, part, draw, "train-moe", 1, overlap=float(draw.uniform(0.3, 0.7)))
    return _filled(_busy(made, nvlink=0.3), draw, 3, 10)


@scenario("pcie_saturation", "weights are streamed from the host: PCIe is full", FULL, ("data_loader_starvation", STALL), "pcie", nodes=1, needs=("default",))  # fmt: skip
def _pcie_full(s: Scenario, part: Part, draw: Draw) -> Piece:
    made = train(s, part, draw, "sft", 1, compute=float(draw.uniform(1.0, 2.0)))
    assert made.program is not None
    rate = 0.9 * (5.6e10 if part.pcie_gen >= 5 else 2.6e10)
    made = adapted(made, pcie=float(draw.uniform(0.3, 0.8)) * rate * made.program["compute"])
    at = begin(draw)
    more = Cause("copies", float(draw.uniform(2.0, 6.0)), None, at)
    return replace(made, start=at, evident_after=3, causes=(more,))


@scenario("bursty_ddp", "short bursts, 30 % on average", like=(FULL,), nodes=4)
def _bursty(s: Scenario, part: Part, draw: Draw) -> Piece:
    made = train(s, part, draw, "llm-pretrain", 4, overlap=0.6)
    return _busy(made, fabric=0.3)


@scenario("tp_decode", "tensor-parallel decoding: NVLink in lock-step", like=(FULL, STALL), nodes=1)
def _tp(s: Scenario, part: Part, draw: Draw) -> Piece:
    from coldaisle.sources.simulator.scenarios.episodes.serving import asked

    service = asked(part, draw, float(draw.uniform(0.3, 0.6)), gpus=8)
    rate = float(draw.uniform(0.2, 0.5)) * part.nvlink
    return Piece(s, part, 1, services=(service,), server_gpus=8, server_nvlink=rate, memory=0.9)


@scenario("lame_rail", "one InfiniBand rail runs at a fraction of its rate", LAME, ("straggler", STALL), "rate", nodes=4, needs=("host",))  # fmt: skip
def _rail(s: Scenario, part: Part, draw: Draw) -> Piece:
    made = _busy(train(s, part, draw, "train-moe", 4, overlap=0.6), fabric=float(draw.uniform(0.2, 0.45)))
    gpu, at = (any_gpu(draw, 4),), begin(draw)
    left = float(draw.choice((0.125, 0.25, 0.5)))
    return replace(
        made, roots=gpu, start=at, evident_after=3, causes=(Cause("rail", left, gpu, at),),
        feeds=(Feed("port_rate", at, where=gpu, value=left),),
    )  # fmt: skip


@scenario("ib_errors", "a cable with errors", LAME, (STALL, "straggler"), "errors", nodes=4, needs=("host",))
def _errors(s: Scenario, part: Part, draw: Draw) -> Piece:
    made = _busy(train(s, part, draw, "train-moe", 4, overlap=0.6), fabric=float(draw.uniform(0.25, 0.45)))
    gpu, at = (any_gpu(draw, 4),), begin(draw)
    return replace(
        made, roots=gpu, start=at, evident_after=3, causes=(Cause("rail", float(draw.uniform(0.15, 0.6)), gpu, at),),
        feeds=(Feed("port_errors", at, where=gpu, value=float(draw.uniform(5, 400))),),
    )  # fmt: skip


@scenario("congestion", "other people's traffic on the same spines", LAME, (FULL, STALL), "congestion", nodes=4, needs=("host",))  # fmt: skip
def _congestion(s: Scenario, part: Part, draw: Draw) -> Piece:
    made = _busy(train(s, part, draw, "llm-pretrain", 4, overlap=0.6), fabric=float(draw.uniform(0.2, 0.4)))
    at = begin(draw)
    return replace(
        made, start=at, evident_after=3, causes=(Cause("rail", float(draw.uniform(0.15, 0.4)), None, at),)
    )


@scenario("idle_rails", "a job that uses two of eight rails", like=(LAME,))
def _idle_rails(s: Scenario, part: Part, draw: Draw) -> Piece:
    return replace(train(s, part, draw, "tp-pp-llm"), rails=(2, 6))


@scenario("pcie_degraded", "a board's PCIe link lost lanes or a generation", LAME, ("straggler", "data_loader_starvation"), "pcie", needs=("default",))  # fmt: skip
def _pcie(s: Scenario, part: Part, draw: Draw) -> Piece:
    made = train(s, part, draw, "vit-ddp", compute=float(draw.uniform(1.0, 1.6)))
    assert made.program is not None
    gpu, at = (any_gpu(draw, s.nodes),), begin(draw)
    if draw.random() < 0.5:
        lanes = float(draw.choice((4, 2)))
        left, feed = lanes / 16, Feed("pcie_width", at, where=gpu, value=lanes)
    else:
        lower = float(draw.choice((1, 2)))
        left, feed = 2.0 ** (lower - part.pcie_gen), Feed("pcie_gen", at, where=gpu, value=lower)
    usable = COPY * (5.6e10 if part.pcie_gen >= 5 else 2.6e10)
    copied = min(widely(draw, 1.1, 4.0) * left, 0.8) * usable * made.program["compute"]
    return _degraded(adapted(made, pcie=copied), gpu, at, left, feed)


def _degraded(made: Piece, gpu: tuple[int, ...], at: float, left: float, feed: Feed) -> Piece:
    return replace(
        made, roots=gpu, start=at, evident_after=3, causes=(Cause("pcie", left, gpu, at),), feeds=(feed,)
    )


@scenario("pcie_gen_idle", "links rest at a lower generation while idle", like=(LAME,), nodes=1)
def _gen(s: Scenario, part: Part, draw: Draw) -> Piece:
    return Piece(s, part, 1, feeds=(Feed("pcie_gen", 0.0, value=1.0),))


@scenario("nvlink_down", "links of a board went down", LAME, ("straggler", STALL), "nvlink", nodes=1, needs=("default",))  # fmt: skip
def _links(s: Scenario, part: Part, draw: Draw) -> Piece:
    made = _busy(train(s, part, draw, "train-moe", 1, overlap=0.6), nvlink=float(draw.uniform(0.25, 0.5)))
    gpu, at = (any_gpu(draw, 1),), begin(draw)
    left = float(draw.uniform(0.1, 0.5))
    up = float(max(round(part.links * left), 1))
    return replace(
        made, roots=gpu, start=at, evident_after=3, causes=(Cause("nvlink", left, gpu, at),),
        feeds=(Feed("nvlink_links", at, where=gpu, value=up), Feed("nvlink_crc", at, at + 90, gpu, 20.0)),
    )  # fmt: skip


@scenario("rail_noise", "a port with an error now and then", like=(LAME,), nodes=2)
def _noise(s: Scenario, part: Part, draw: Draw) -> Piece:
    at = begin(draw)
    gpu = (any_gpu(draw, s.nodes),)
    return replace(heavy(s, part, draw), feeds=(Feed("port_errors", at, at + 5, gpu, value=0.2),))
