"""What a layout comes to over a whole run: step, wall clock, goodput, utilisation, with their intervals. Pure."""

from __future__ import annotations

import math
from dataclasses import dataclass

from coldaisle.analyzers.sizing.assumptions import assumed
from coldaisle.analyzers.sizing.flops import flops_per_token, hfu, mfu
from coldaisle.analyzers.sizing.layout import Layout
from coldaisle.analyzers.sizing.memory import Trained, checkpoint_bytes, interval_of
from coldaisle.analyzers.sizing.quantity import Quantity, exact
from coldaisle.analyzers.sizing.resilience import goodput, mtbf, young
from coldaisle.analyzers.sizing.search import Candidate
from coldaisle.analyzers.sizing.site import Machine, Site
from coldaisle.analyzers.sizing.step import Step, paces, peak_of, recomputed, step_of

DAY = 86_400.0
_STEP = "compute/(1 - bubble) + exposed collectives + optimizer"


@dataclass(frozen=True, slots=True)
class Outcome:
    """A run in its layout. Seconds, ratios, bytes; ``wall``: with failures and checkpoints."""

    run: Trained
    tokens: float
    machine: Machine
    candidate: Candidate
    memory: Quantity
    step_s: Quantity
    busy: Quantity
    """Seconds at full speed."""
    wall: Quantity
    goodput: Quantity
    mtbf: Quantity
    checkpoint: Quantity
    write_s: Quantity
    """Seconds that a checkpoint stops the run."""
    interval_s: Quantity
    restart: Quantity
    tokens_s: Quantity
    mfu: Quantity
    hfu: Quantity

    @property
    def layout(self) -> Layout:
        """How it is spread."""
        return self.candidate.layout

    @property
    def gpus(self) -> int:
        """All that work; spares are counted apart."""
        return self.layout.gpus

    @property
    def step(self) -> Step:
        """The likely step, part by part."""
        return self.candidate.step

    @property
    def nodes(self) -> int:
        """Whole nodes."""
        return -(-self.gpus // self.machine.node_gpus)

    def gpu_hours(self) -> Quantity:
        """Of the run alone."""
        return self.wall.scaled(
            self.gpus / 3600,
            "GPU-h",
            f"{self.gpus:,} GPUs · {self.wall.value / 3600:.4g} h",
            self.wall.source,
        )

    def project_hours(self) -> Quantity:
        """Of the run with ablations, restarts and what else model cards count."""
        own, factor = self.gpu_hours(), assumed("project.hours")
        return Quantity(
            own.value * factor.value,
            own.value * factor.low,
            own.value * factor.high,
            "GPU-h",
            f"{own.value:,.0f} GPU-h of the run · {factor.value:g}",
            factor.source,
        )


def outcome_of(run: Trained, tokens: float, machine: Machine, site: Site, candidate: Candidate) -> Outcome:
    """A layout's run over ``tokens`` tokens."""
    layout = candidate.layout
    step_s = _step_seconds(run, machine, candidate)
    batch = layout.batch * run.seq
    busy = step_s.scaled(
        tokens / batch, "s", f"{tokens:.4g} tokens / {batch:,} a step · {step_s.value:.4g} s", "step time"
    )
    between, restart = mtbf(layout.gpus, site.failures()), site.restart()
    state = _state_bytes(run)
    write = _write_seconds(state, site)
    interval = young(write.value, between.value)
    share = goodput(write.value, interval.value, between, restart)
    rate = _inverse(step_s, batch, "tokens/s", f"{batch:,} tokens / {step_s.value:.4g} s")
    return Outcome(
        run,
        tokens,
        machine,
        candidate,
        interval_of(candidate.memory),
        step_s,
        busy,
        _divided(busy, share),
        share,
        between,
        state,
        write,
        interval,
        restart,
        rate,
        _utilisation(run, machine, layout, rate),
        _utilisation(run, machine, layout, rate, recomputed(layout, run)),
    )


def _step_seconds(run: Trained, machine: Machine, candidate: Candidate) -> Quantity:
    _, fast, slow = paces(run, machine.part, candidate.layout)
    totals = [step_of(run, machine, candidate.layout, pace).total for pace in (fast, slow)]
    likely = candidate.step.total
    return Quantity(
        likely,
        min(totals[0], likely),
        max(totals[1], likely),
        "s",
        _STEP,
        "analyzers/sizing/step.py; assumptions.toml",
    )


def _state_bytes(run: Trained) -> Quantity:
    if run.method == "full":
        return checkpoint_bytes(run.model, run.dtype)
    return exact(14 * run.adapters, "bytes", f"14 · {run.adapters:.4g} parameters of adapters")


def _write_seconds(state: Quantity, site: Site) -> Quantity:
    if math.isnan(site.storage_write):
        return exact(site.write_s, "s", "taken; storage is sized for it", "guess")
    return exact(
        max(state.value / site.storage_write, 1e-3),
        "s",
        f"{state.value:.4g} bytes / {site.storage_write:.4g} bytes/s",
    )


def _divided(seconds: Quantity, share: Quantity) -> Quantity:
    return Quantity(
        seconds.value / share.value,
        seconds.low / share.high,
        seconds.high / share.low,
        "s",
        f"{seconds.value:.4g} s at full speed / goodput {share.value:.3f}",
        share.source,
    )


def _inverse(seconds: Quantity, size: float, unit: str, formula: str) -> Quantity:
    return Quantity(size / seconds.value, size / seconds.high, size / seconds.low, unit, formula)


def _utilisation(
    run: Trained, machine: Machine, layout: Layout, rate: Quantity, factor: float | None = None
) -> Quantity:
    """MFU, or HFU with the factor of what is recomputed. Of LoRA, whose products are 4 of 6, what they do."""
    peak = peak_of(machine.part, run.dtype)
    each = rate.scaled(1 / layout.gpus)
    own = 1.0 if run.method == "full" else _adapter_share(run)
    likely, low, high = (
        mfu(tokens_s, run.model, run.seq, peak).value * own * (factor or 1.0)
        for tokens_s in (each.value, each.low, each.high)
    )
    told = mfu(each.value, run.model, run.seq, peak)
    words = told.formula if factor is None else f"{told.formula}, {factor:.3f} with what is recomputed"
    source = told.source if factor is None else hfu(each.value, run.model, run.seq, peak, "full").source
    return Quantity(likely, low, high, "ratio", f"{words} ({run.dtype} peak)", source)


def _adapter_share(run: Trained) -> float:
    own = flops_per_token(run.model, run.seq, "full", run.method)
    return own / flops_per_token(run.model, run.seq, "full")
