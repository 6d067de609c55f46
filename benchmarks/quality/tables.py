"""What was scored, as Markdown."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from statistics import fmean, median

from benchmarks.quality.healthy import Healthy
from benchmarks.quality.scoring import Tally
from coldaisle.analyzers.detectors import DETECTORS

Settings = Mapping[str, Mapping[str, Tally]]

TARGETS = {
    "fault": ("gpu_fault",),
    "thermal, power, KV": ("thermal_throttling", "power_capping", "kv_cache_pressure"),
    "starvation, straggler": ("data_loader_starvation", "straggler"),
}


def by_condition(settings: Settings, setting: str) -> str:
    """Each condition, at one setting."""
    lines = [
        f"### By condition, {setting}\n",
        "| condition | labels | precision | recall | F1 | abstained | first among look-alikes | found after (median, p95) | loss error |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    tallies = settings.get(setting, {})
    for name in DETECTORS:
        tally = tallies.get(name, Tally())
        labels = tally.right + tally.missed + tally.abstained
        delays = (
            f"{_quantile(tally.delays, 0.5):.0f} s, {_quantile(tally.delays, 0.95):.0f} s"
            if tally.delays
            else "-"
        )
        error = f"{100 * median(tally.errors):.1f} pt" if tally.errors else "-"
        lines.append(
            f"| `{name}` | {labels} | {_share(tally.precision)} | {_share(tally.recall)} | {_share(tally.f1)} "
            f"| {tally.abstained}+{tally.excused} | {tally.top}/{tally.ranked} | {delays} | {error} |"
        )
    return "\n".join(lines) + "\n"


def by_setting(settings: Settings) -> str:
    """The means over conditions, a setting a line."""
    lines = [
        "### By setting, means over conditions\n",
        "| seen at | precision | worst | recall | worst | first among look-alikes | abstained (excused) | loss error, median |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for setting, tallies in settings.items():
        precision = {
            name: tally.precision for name, tally in tallies.items() if not math.isnan(tally.precision)
        }
        recall = {name: tally.recall for name, tally in tallies.items() if not math.isnan(tally.recall)}
        top, ranked = sum(t.top for t in tallies.values()), sum(t.ranked for t in tallies.values())
        errors = [error for tally in tallies.values() for error in tally.errors]
        lines.append(
            f"| {setting} | {_mean(precision)} | {_worst(precision)} | {_mean(recall)} | {_worst(recall)} "
            f"| {_share(top / ranked if ranked else math.nan)} "
            f"| {sum(t.abstained for t in tallies.values())} ({sum(t.excused for t in tallies.values())}) "
            f"| {100 * median(errors) if errors else math.nan:.1f} pt |"
        )
    return "\n".join(lines) + "\n"


def summary(settings: Settings) -> str:
    """Time to detect against its targets, all settings with full fields together."""
    lines = [
        "### Found after enough evidence could exist\n",
        "| conditions | seen at | median | p95 | in polls, p95 |",
        "|---|---|---|---|---|",
    ]
    for name, conditions in TARGETS.items():
        for setting, tallies in settings.items():
            delays = [d for c in conditions if c in tallies for d in tallies[c].delays]
            polls = [d for c in conditions if c in tallies for d in tallies[c].delays_polls]
            if delays and "," not in setting:
                lines.append(
                    f"| {name} | {setting} | {_quantile(delays, 0.5):.0f} s | {_quantile(delays, 0.95):.0f} s "
                    f"| {_quantile(polls, 0.95):.1f} |"
                )
    return "\n".join(lines) + "\n"


def healthy_table(runs: Iterable[Healthy]) -> str:
    """False findings on healthy GPUs."""
    known = list(runs)
    hours = sum(run.gpu_hours for run in known)
    false = [key for run in known for key in run.false]
    infos, bursts = (sum(getattr(run, name) for run in known) for name in ("infos", "bursts"))
    rate = 1000 * len(false) / hours if hours else math.nan
    listed = "".join(f"\n- `{key}`" for key in sorted(false)[:40])
    return (
        f"### Healthy GPUs\n\n{hours:,.0f} GPU-hours: {len(false)} findings that are warnings or worse, "
        f"{rate:.3f} per 1,000 GPU-hours (wanted: 0.04); {infos} for information; "
        f"{bursts} warnings of caches that bursts of requests did fill.\n{listed}\n"
    )


def _share(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.3f}"


def _mean(values: Mapping[str, float]) -> str:
    return _share(fmean(values.values())) if values else "-"


def _worst(values: Mapping[str, float]) -> str:
    if not values:
        return "-"
    name = min(values, key=lambda one: values[one])
    return f"{values[name]:.3f} `{name}`"


def _quantile(values: list[float], q: float) -> float:
    return sorted(values)[min(round(q * (len(values) - 1)), len(values) - 1)] if values else math.nan
