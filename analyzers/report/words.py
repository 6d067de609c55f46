"""Figures of an audit as people read them, and the sentences of its first page. Works on the JSON object. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from coldaisle.sources.text import plain
from coldaisle.sources.units import show

NONE = "not known"
DASH = "-"
LONG = 160
KINDS = (
    ("allocated", "Allocated", "GPU time that jobs held, of what is installed"),
    ("busy", "Busy", "time with a kernel resident, of what was allocated"),
    ("active", "Active", "SMs with work, of busy time"),
    ("achieved_flops", "Achieved, compute", "of the flop/s that busy GPUs could do"),
    ("achieved_bandwidth", "Achieved, memory", "of the bytes/s that their memory could move"),
)
"""The four utilisations: key, title, of what. The last one has two sides."""
UNITS = {"gpu_hours": "GPU-hours", "gpus": "GPUs", "nodes": "nodes", "ratio": "%", "$": "$"}


class Point(NamedTuple):
    """A line of the first page: what is asked, and the answer."""

    title: str
    text: str


def percent(value: float | None, digits: int = 0) -> str:
    """``76 %``"""
    return DASH if value is None else f"{value * 100:.{digits}f} %"


def count(value: float | None) -> str:
    """``17,984``, ``3.4``"""
    if value is None:
        return DASH
    return f"{value:,.0f}" if abs(value) >= 10 or value == round(value) else f"{value:,.2g}"


def saved(saving: Mapping[str, Any]) -> str:
    """GPU-hours of the span, or of a week where that is what is known."""
    if saving["gpu_hours"]:
        return figure(saving["gpu_hours"])
    week = figure(saving["gpu_hours_per_week"])
    return week if week == DASH else f"{week} a week"


def figure(one: Mapping[str, Any] | None) -> str:
    """``17,984 GPU-hours``, with its interval where it has one: ``76 % [73-78]``."""
    if one is None or one.get("value") is None:
        return DASH
    unit = str(one["unit"])
    value, low, high = one["value"], one["low"], one["high"]
    is_exact = low == high
    if unit == "ratio":
        ends = [f"{one * 100:.0f}" for one in (low, high)]
        return percent(value) if ends[0] == ends[1] else f"{percent(value)} [{'-'.join(ends)}]"
    if unit in ("W", "s", "B", "B/s") or unit == "bytes":
        canonical = "B" if unit == "bytes" else unit
        told = show(value, canonical)
        return told if is_exact else f"{told} [{show(low, canonical)} to {show(high, canonical)}]"
    told = f"{count(value)} {UNITS.get(unit, unit)}".rstrip()
    return told if is_exact else f"{told} [{count(low)} to {count(high)}]"


def recurred(one: Mapping[str, Any]) -> str:
    """How much of a finding: ``31 GPU-hours [31 to 40]``, ``3 times at least``"""
    unit = UNITS.get(one["unit"], one["unit"])
    if one["high"] is None:
        return f"{count(one['amount'])} {unit} at least"
    return figure({"value": one["amount"], "low": one["low"], "high": one["high"], "unit": unit})


def duration(seconds: float | None) -> str:
    """``4 s``, ``3m29s``, ``2h10``"""
    return DASH if seconds is None else show(seconds, "s")


def value_of(key: str, value: float | None) -> str:
    """A metric's value in its unit."""
    from coldaisle.sources.catalog import catalog

    if value is None:
        return DASH
    known = catalog().get(key)
    return show(value, known.unit if known else "1")


def name(text: object, width: int = 60) -> str:
    """Other people's text, inert and short."""
    return plain(str(text), width) or "(no name)"


def sentence(text: object, width: int = 400) -> str:
    """Other people's or a rule's words, as a sentence among others."""
    told = plain(str(text), width).strip()
    return told and f"{told[0].upper()}{told[1:]}{'' if told.endswith(('.', '!', '?')) else '.'}"


def span(made: Mapping[str, Any]) -> str:
    """``2026-03-01 to 2026-03-29, 28 days``"""
    told = made["span"]
    days = told["days"]
    lasting = f"{days:.3g} days" if days >= 2 else show(told["seconds"], "s")
    return f"{str(told['start'])[:16].replace('T', ' ')} to {str(told['end'])[:16].replace('T', ' ')} UTC, {lasting}"


def points(made: Mapping[str, Any]) -> Iterator[Point]:
    """What a manager wants to know, in order; first how much was seen, where it is little."""
    if (told := seen(made)) is not None:
        yield Point(THIN, told)
    yield Point("How busy are the GPUs?", busy(made))
    yield Point("What can be reclaimed for nothing?", reclaim(made))
    yield Point("Is more needed?", demand(made))
    yield Point("What binds the work?", binding(made))


SHORT = " is short of "
"""In advice on the offered load of a partition that has too few GPUs."""
WIDE = 0.2
"""Of a figure: an interval wider than that is explained."""
THIN = "How much was seen?"
ENOUGH = 0.8
"""Of the samples: below, jobs are not judged one by one, and the first page says so."""


def seen(made: Mapping[str, Any]) -> str | None:
    """What gaps do to all that is told; None: there is little of them."""
    covered = made["coverage"]["overall"]
    if covered is None or covered >= ENOUGH:
        return None
    days = [one["coverage"] for one in made["coverage"]["by_day"]]
    dark = sum(one < 0.05 for one in days)
    nothing = f" (nothing on {dark} of {len(days)} days)" if dark else ""
    return (
        f"{percent(covered)} of the samples{nothing}. Figures are of what was seen; their intervals take gaps of more than half "
        "an hour for all idle to all at work, and what a job did in the dark is not advised on: no size rests on it."
    )


def busy(made: Mapping[str, Any]) -> str:
    """The four utilisations, for somebody who has never heard of them."""
    use = made["utilisations"]["cluster"]
    if all(use[key]["value"] is None for key, _, _ in KINDS):
        why = next((use[key]["why"] for key, _, _ in KINDS if use[key]["why"]), "nothing was measured")
        return f"Cannot be told: {why}."
    return " ".join([*_of_time(use), *_of_peaks(use)])


def _of_time(use: Mapping[str, Any]) -> Iterator[str]:
    """Of a hundred GPU-hours."""
    allocated, busy_ = use["allocated"]["value"], use["busy"]["value"]
    if allocated is None:
        yield f"How much of the time jobs held them is not known: {use['allocated']['why']}."
    elif busy_ is None:
        yield f"Of 100 GPU-hours installed jobs held {allocated * 100:.0f}."
    else:
        yield f"Of 100 GPU-hours installed jobs held {allocated * 100:.0f}, and in {allocated * busy_ * 100:.0f} of them the GPUs had work."


def _of_peaks(use: Mapping[str, Any]) -> Iterator[str]:
    """What GPUs with work did of what they could."""
    flops, bandwidth = use["achieved_flops"]["value"], use["achieved_bandwidth"]["value"]
    told = [
        f"{percent(value)} of {what}"
        for value, what in ((flops, "the arithmetic"), (bandwidth, "the memory traffic"))
        if value is not None
    ]
    if told:
        yield f"While they had, they did {' and '.join(told)} that they are built for."


def of_what(key: str, one: Mapping[str, Any]) -> str:
    """What a utilisation is a share of; where tensor cores stand in for SMs, that."""
    if key == "active" and one.get("metric") == "gpu.tensor_active":
        return "tensor cores with work, of busy time: SMs are not measured"
    return next(of for name, _, of in KINDS if name == key)


def reclaim(made: Mapping[str, Any]) -> str:
    """Option zero."""
    one = made["gpu_hours"]["reclaimable"]
    if one is None:
        return sentence(f"Cannot be told: {made['gpu_hours']['reclaimable_why']}")
    seconds = made["span"]["seconds"] or 1.0
    gpus = one["value"] * 3600 / seconds
    held = (made["gpu_hours"]["allocated"] or {}).get("value")
    share = f", {percent(one['value'] / held, 1)} of what jobs held" if held else ""
    if one["high"] < 0.5:
        return "Nothing that was measured: no job held GPUs for half an hour without using them."
    told = (
        f"{figure(one)} that jobs held without using them: as much as {gpus:,.1f} GPUs all the time{share}."
    )
    if one["high"] - one["low"] > WIDE * one["value"]:
        told += (
            f" At least {count(one['low'])} were seen idle; of the rest of the interval readings do not tell."
        )
    return told


def demand(made: Mapping[str, Any]) -> str:
    """Offered load against what is installed."""
    load = made["offered_load"]
    if load is None:
        return "Cannot be told without jobs: utilisation is cut off at what is installed. Slurm's accounting says who waited."
    text = f"jobs asked for {count(load['p50_gpus'])} GPUs half of the time and for {count(load['p95_gpus'])} or more 5 % of it"
    installed = load["installed_gpus"]
    advised = [one["action"] for one in made["advice"] if one["rule"] == "offered_load"]
    if advised:
        text = f"{'Yes' if any(SHORT in one for one in advised) else 'No'}: {text}"
    elif (short := _is_short(made)) is not None:
        text = f"{'Part of the time' if short else 'No'}: {text}"
    if installed:
        text += f"; {count(installed)} are installed"
    if unused := [use for use in made["utilisations"]["racks"] if use["allocated"]["value"] == 0]:
        gpus = sum(use["gpus"] for use in unused)
        text += f", of which no job ever held the {count(gpus)} in {name(', '.join(use['name'] for use in unused), LONG)}"
    waits = [one for one in made["jobs_by"]["partition"] if one["wait_p90_s"] is not None]
    if waits:
        text += (
            f". In the largest partition nine jobs of ten waited {duration(waits[0]['wait_p90_s'])} at most"
        )
    elif not any(one["wait_p50_s"] is not None for one in made["jobs_by"]["state"]):
        text += ". Who waited is not known without accounting, so this is what ran"
    return " ".join([sentence(text, 900), *(sentence(one, LONG) for one in advised[:2])])


def _is_short(made: Mapping[str, Any]) -> bool | None:
    """Whether jobs asked for more than is installed 5 % of the time; None: who waited is not known, so that is not."""
    load = made["offered_load"]
    if not load or not load["installed_gpus"] or load["waiting_p95_gpus"] is None:
        return None
    return bool(load["p95_gpus"] > load["installed_gpus"])


def binding(made: Mapping[str, Any]) -> str:
    """What advice says of parts; else what is known of it."""
    bought = [one for one in made["advice"] if one["rule"] in PURCHASES]
    if bought:
        told = [
            sentence(f"{name(one['action'], 2 * LONG)}: {one['because'].partition(';')[0]}")
            for one in sorted(bought, key=_size, reverse=True)[:3]
        ]
        last = "Reclaiming what is idle is option zero, before any purchase."
        return " ".join([*told, last])
    why = [one["why"] for one in made["refused"] if one["rule"] in PURCHASES]
    if why:
        return f"No part is advised: {name(why[0], 300)}."
    use = made["utilisations"]["cluster"]
    flops, bandwidth = use["achieved_flops"]["value"], use["achieved_bandwidth"]["value"]
    if flops is None or bandwidth is None:
        return "Cannot be told: it takes DCGM's profiling metrics (tensor and memory activity)."
    return f"Busy boards reach {percent(flops)} of their flop/s and {percent(bandwidth)} of their memory bandwidth."


def _size(one: Mapping[str, Any]) -> float:
    """GPUs that a purchase is for, of today's."""
    options = one.get("options") or [{}]
    return float((options[0].get("gpus") or {}).get("value") or 0.0)


def refusals(made: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """(rules, why) of advice that was not given, each reason once."""
    by_why: dict[str, dict[str, None]] = {}
    for one in made["refused"]:
        by_why.setdefault(one["why"], {})[one["rule"].replace("_", " ")] = None
    for why, rules in by_why.items():
        yield ", ".join(rules), why


PURCHASES = ("purchase", "purchases", "parts", "buy", "hardware")
"""Rules of advice that speak of new parts."""
