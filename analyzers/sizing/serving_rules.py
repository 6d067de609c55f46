"""Rules of thumb that people quote when they buy for serving, and what is true of them for the request at hand. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from coldaisle.analyzers.sizing.place_rules import place_verdicts
from coldaisle.analyzers.sizing.queueing import max_utilisation, mean_wait
from coldaisle.analyzers.sizing.serving_layout import MOST_PLACES, WAIT, Candidate
from coldaisle.analyzers.sizing.serving_request import Request
from coldaisle.analyzers.sizing.sheet import Verdict
from coldaisle.analyzers.sizing.site import Site, machine
from coldaisle.analyzers.sizing.speed import at_concurrency, prefill_seconds, saturated, step_parts
from coldaisle.analyzers.sizing.weights import format_named, weight_bytes
from coldaisle.sources.parts.catalogue import GIB, Part

_FORMATS = ("fp32", "bf16", "fp8", "int4")
_OFTEN = 0.85
"""The utilisation that is most often named."""


def serving_verdicts(request: Request, part: Part, best: Candidate | None = None) -> tuple[Verdict, ...]:
    """Those that concern serving; with a layout also those on its load and its batches."""
    return tuple(_verdicts(request, part, best))


def _verdicts(request: Request, part: Part, best: Candidate | None) -> Iterator[Verdict]:
    yield _weights(request)
    yield _precision(request)
    yield _memory(part)
    yield from place_verdicts(machine(part, Site()))
    if best is None or best.point is None:
        return
    yield _one_number(best)
    yield _batching(best)
    if request.has_load:
        yield _target(best)
        yield Verdict(
            "15 to 25 % safety, 70 to 85 % utilisation, 2 to 5 times growth",
            "stacked they multiply: 1.15/0.85·2 = 2.7 to 1.25/0.70·5 = 8.9 times the measured peak; here the margin is "
            f"{request.margin:.0%}, once, and growth is none of it",
        )


def _weights(request: Request) -> Verdict:
    sizes = ", ".join(f"{name} {weight_bytes(request.model, name).value / 1e9:,.0f}" for name in _FORMATS)
    return Verdict(
        "a model of 100B needs over 400 GB for its weights",
        f"in fp32 only: bf16 takes 200 GB, fp8 100, 4 bit 53 to 56; this one in GB: {sizes}",
    )


def _precision(request: Request) -> Verdict:
    name, _ = format_named(request.dtype)
    weights, params = weight_bytes(request.model, request.dtype).value, request.model.params
    return Verdict(
        "lower precision (FP8, INT4) halves the footprint",
        "FP8 halves and INT4 quarters weights of 16 bit, less scales and what stays at 16 bit: "
        f"{name} takes {weights / params:.3g} bytes a parameter here; keys and values have a format of their own ({request.kv_dtype})",
    )


def _memory(part: Part) -> Verdict:
    return Verdict(
        "GPUs have 16 to 80 GB of HBM and over 1 TB/s",
        f"dated: 80 to 288 GB at 2 to 8 TB/s; {part.product} has {part.memory_bytes / GIB:.0f} GiB at {part.bandwidth / 1e12:.2f} TB/s",
    )


def _one_number(best: Candidate) -> Verdict:
    assert best.point is not None
    step = step_parts(best.replica, best.point.running, best.load.context)
    prefill = prefill_seconds(best.replica, best.load.isl)
    return Verdict(
        "70 % utilisation may mean 100 % where compute binds and 40 % where memory does",
        "right as a thought, wrong as a metric: nvidia-smi's figure says that a kernel was resident, near 100 % for both; "
        f"here a decode step reads for {step.memory * 1e3:.3g} ms and multiplies for {step.compute * 1e3:.3g}, and a prompt "
        f"multiplies for {prefill * 1e3:.3g}: watch DRAM active for the first, tensor active for the last",
    )


def _batching(best: Candidate) -> Verdict:
    alone = at_concurrency(best.replica, best.load, min(1.0, best.load.slots)).throughput
    times = saturated(best.replica, best.load).throughput / alone
    return Verdict(
        "continuous batching serves 3 to 10 times as much",
        f"plausible against batches that wait for their longest answer; here {best.slots:,.0f} at once serve {times:,.0f} times "
        "what one after the other does, and the knee is where the memory for keys and values ends",
    )


def _target(best: Candidate) -> Verdict:
    assert best.point is not None
    places = min(max(1, int(best.point.concurrency * best.stages * best.replicas)), MOST_PLACES)
    waits = ", ".join(f"{mean_wait(count, _OFTEN):.2g} with {count}" for count in (1, 8, 32))
    return Verdict(
        "aim at 70 to 85 % utilisation",
        f"no one number is right: the mean wait at 85 %, in service times, is {waits}; the {places:,} places here may be "
        f"{max_utilisation(places, WAIT).value:.1%} busy for a wait of {WAIT:g}",
    )
