"""What was measured against what is calculated for the same work: two sides of one figure, with the disagreement named. Pure.

More than half as much again, or less than two thirds, is a finding (see SLOWER, FASTER): before anything is bought, one of the
two sides has to be put right. A figure within the calculated interval agrees whatever its ratio.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from enum import StrEnum

from coldaisle.analyzers.sizing.bounds import check_above_zero
from coldaisle.analyzers.sizing.quantity import Quantity, exact
from coldaisle.analyzers.sizing.serving_site import at_load, figure_of
from coldaisle.analyzers.sizing.sheet import Section, Sheet

SLOWER, FASTER = 1.5, 1 / 1.5
"""Calculated speed over measured speed beyond which it is a finding (guess)."""
SECTION = "measured against calculated"


class Verdict(StrEnum):
    """How the two sides stand to each other."""

    AGREE = "agree"
    UNSURE = "apart, within what either may be wrong by"
    SLOWER = "slower than calculated"
    FASTER = "faster than calculated"


@dataclass(frozen=True, slots=True)
class Check:
    """One figure from both sides. ``ratio``: time, or GPU-hours, that the work takes over what is calculated for it."""

    ratio: Quantity
    verdict: Verdict

    @property
    def is_finding(self) -> bool:
        """Whether it is so far off that one side is wrong."""
        return self.verdict in (Verdict.SLOWER, Verdict.FASTER)


def of_speeds(measured: float, calculated: Quantity) -> Check:
    """Of a rate (tokens/s, flop/s), measured and calculated in the same unit. Errors: SizingError for one not above zero."""
    check_above_zero("the measured rate", measured)
    ratio = Quantity(
        calculated.value / measured,
        calculated.low / measured,
        calculated.high / measured,
        "ratio",
        f"{calculated.value:.4g} calculated / {measured:.4g} measured",
        calculated.source,
    )
    return Check(ratio, _verdict(ratio, calculated.low <= measured <= calculated.high))


def of_amounts(measured: float, calculated: Quantity) -> Check:
    """The same of an amount that the work takes: GPU-hours, s."""
    check_above_zero("the measured amount", measured)
    ratio = Quantity(
        measured / calculated.value,
        measured / calculated.high,
        measured / calculated.low,
        "ratio",
        f"{measured:.4g} measured / {calculated.value:.4g} calculated",
        calculated.source,
    )
    return Check(ratio, _verdict(ratio, calculated.low <= measured <= calculated.high))


def _verdict(ratio: Quantity, within: bool) -> Verdict:
    if within:
        return Verdict.AGREE
    if ratio.value > SLOWER:
        return Verdict.SLOWER
    return Verdict.FASTER if ratio.value < FASTER else Verdict.UNSURE


def checked(sheet: Sheet, measured: float) -> Sheet:
    """A sheet held against measured tokens/s of all its GPUs: of training tokens trained on, of serving output at full load.

    Unchanged where nothing fits. Errors: SizingError for a rate not above zero.
    """
    check_above_zero("the measured rate", measured)
    trained = figure_of(sheet, "time", "tokens/s")
    calculated = trained or figure_of(sheet, "the knee", "throughput") or at_load(sheet, "throughput")
    if sheet.gpus is None or calculated is None:
        return sheet
    check = of_speeds(measured, calculated)
    section = Section(
        SECTION,
        (
            ("measured", exact(measured, "tokens/s", "told")),
            ("calculated", calculated),
            ("calculated / measured", check.ratio),
            *_reached(sheet, measured, calculated),
        ),
        f"{check.verdict}: {advice_of(check)}",
    )
    return replace(
        sheet,
        sections=(section, *sheet.sections),
        warnings=(*_words(check, sheet, measured), *sheet.warnings),
    )


def checked_gpus(sheet: Sheet, held: int) -> Sheet:
    """A serving sheet held against the GPUs that serve the same load now. Unchanged where nothing fits."""
    if sheet.gpus is None or held < 1:
        return sheet
    check = of_amounts(float(held), sheet.gpus)
    figures = (
        ("GPUs that serve it now", exact(float(held), "gpus", "measured")),
        ("GPUs calculated", sheet.gpus),
        ("measured / calculated", check.ratio),
    )
    section = Section(SECTION, figures, _HELD[check.verdict])
    return replace(sheet, sections=(section, *sheet.sections))


_HELD = {
    Verdict.AGREE: "the two sides agree",
    Verdict.UNSURE: "the two sides are apart, within what either may be wrong by",
    Verdict.SLOWER: "more GPUs hold it than it needs: peaks that were not seen, or replicas to give back",
    Verdict.FASTER: "fewer GPUs hold it than are calculated: its promises are not kept, or the description is of something else",
}


def _reached(sheet: Sheet, measured: float, calculated: Quantity) -> Iterable[tuple[str, Quantity]]:
    mfu = figure_of(sheet, "time", "MFU")
    if mfu is not None:
        share = mfu.value * measured / calculated.value
        words = f"{mfu.value:.3f} · {measured:.4g} / {calculated.value:.4g}"
        yield "MFU reached", exact(share, "ratio", words)


def _words(check: Check, sheet: Sheet, measured: float) -> tuple[str, ...]:
    if not check.is_finding:
        return ()
    calculated, mfu = check.ratio.value * measured, figure_of(sheet, "time", "MFU")
    reached = "" if mfu is None else f" (MFU {mfu.value / check.ratio.value:.0%} instead of {mfu.value:.0%})"
    return (
        f"{measured:,.0f} tokens/s were measured and {calculated:,.0f} are calculated{reached}: {advice_of(check)}",
    )


def advice_of(check: Check) -> str:
    """What to do about it."""
    return {
        Verdict.AGREE: "plans for this work may be built on these figures",
        Verdict.UNSURE: "size by what was measured",
        Verdict.SLOWER: "find out what holds it back before buying",
        Verdict.FASTER: "the description or the measurement is of something else: put it right before sizing by either",
    }[check.verdict]
