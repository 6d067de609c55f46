"""The summary of an audit for a terminal, and its plan."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Mapping
from typing import Any

from coldaisle.analyzers.report import words

MOST = 8
WIDTH = 100


def summary(made: Mapping[str, Any], width: int = WIDTH) -> Iterator[str]:
    """Lines; names in them are inert already, but for what the terminal cannot show."""
    yield f"{words.name(made['cluster'])}: {words.span(made)}"
    gpus = f"{made['gpus']} GPUs on {made['nodes']} nodes" if made["gpus"] else "no GPU was measured"
    jobs = "jobs are not known" if made["jobs"] is None else f"{made['jobs']:,} jobs"
    covered = made["coverage"]["overall"]
    yield f"{gpus}, {jobs}" + (
        "" if covered is None else f", {words.percent(covered)} of the samples were there"
    )
    yield ""
    use = made["utilisations"]["cluster"]
    for key, title, _ in words.KINDS:
        one = use[key]
        of = words.of_what(key, one)
        told = words.figure(one) if one["value"] is not None else f"{words.DASH} ({one['why']})"
        yield from _wrapped(
            f"  {title:<18}{told:<16}  {of if one['value'] is not None else ''}".rstrip(), width, 20
        )
    yield ""
    for title, text in words.points(made):
        if title != "How busy are the GPUs?":
            yield from _wrapped(f"{title} {text}", width, 2)
    yield from _by_state(made)
    yield from _advice(made, width)
    yield from _drift(made, width)
    yield from _remarks(made, width)


def _remarks(made: Mapping[str, Any], width: int) -> Iterator[str]:
    told = made["method"]["remarks"]
    if told:
        yield ""
        yield "Remarks"
    for one in told[:MOST]:
        yield from _wrapped(f"  {words.name(one, 300)}", width, 4)


def _by_state(made: Mapping[str, Any]) -> Iterator[str]:
    states = [one for one in made["jobs_by"]["state"] if one["gpu_hours"] > 0]
    total = sum(one["gpu_hours"] for one in states)
    if total and {one["name"] for one in states} != {"unknown"}:
        yield ""
        yield "GPU-hours by how jobs ended"
        for one in states[:MOST]:
            share = words.percent(one["gpu_hours"] / total)
            yield f"  {words.name(one['name'], 20):<20}{words.count(one['gpu_hours']):>10}  {share:>5}  {one['jobs']:,} jobs"


def _advice(made: Mapping[str, Any], width: int) -> Iterator[str]:
    given = made["advice"]
    if given:
        yield ""
        yield "Advice, most saved first"
    for one in given[:MOST]:
        saved = words.saved(one["saving"])
        tail = f" ({saved}, {one['confidence']})" if saved != words.DASH else f" ({one['confidence']})"
        yield from _wrapped(f"  {words.name(one['action'], 200)}{tail}", width, 4)
    if len(given) > MOST:
        yield f"  ... and {len(given) - MOST} more: write a report with -o report.html"
    for rules, why in list(words.refusals(made))[:MOST]:
        yield from _wrapped(f"  no advice on {rules}: {words.name(why, 200)}", width, 4)


def _drift(made: Mapping[str, Any], width: int) -> Iterator[str]:
    if "drift" not in made:
        return
    yield ""
    yield (
        "Since the baseline"
        if made["drift"]
        else "Nothing has drifted since the baseline beyond what both leave open"
    )
    for one in made["drift"][:MOST]:
        yield from _wrapped(f"  {drifted(one)}", width, 4)


def drifted(one: Mapping[str, Any]) -> str:
    """``busy: 81 % -> 62 % (-19 points [-22 to -16])``"""
    change, unit = one["change"], one["unit"]
    if unit == "ratio":
        low, value, high = (change[key] * 100 for key in ("low", "value", "high"))
        return (
            f"{words.name(one['what'])}: {words.percent(one['before'])} -> {words.percent(one['now'])} "
            f"({value:+.0f} points [{low:+.0f} to {high:+.0f}])"
        )
    named = {"gpus": " GPUs", "gpu_hours": " GPU-hours"}.get(unit, "")
    return f"{words.name(one['what'])}: {words.count(one['before'])} -> {words.count(one['now'])}{named}"


def _wrapped(text: str, width: int, indent: int) -> Iterator[str]:
    yield from textwrap.wrap(
        text, width, subsequent_indent=" " * indent, drop_whitespace=True, break_on_hyphens=False
    ) or [""]
