"""Charts as inline SVG: no script, no font and no picture from elsewhere; colours are the page's variables.

Numbers and our own words alone stand in them: nothing of other people's text.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from coldaisle.analyzers.report.words import KINDS, count, of_what, percent, value_of

DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
LEVELS = 8
"""Steps of the heat map: classes h0 to h7."""


def heat_map(values: Sequence[float | None], key: str) -> str:
    """A week, a row a day, a column an hour; [168], Monday 0:00 first."""
    known = [value for value in values if value is not None]
    # from 0 on: a week that hardly changes looks as if it hardly changed
    low, high = 0.0, max([*known, 0.0])
    cells = []
    for at, value in enumerate(values):
        x, y = 34 + at % 24 * 22, 16 + at // 24 * 20
        if value is None:
            cells.append(f'<rect x="{x}" y="{y}" width="21" height="19" class="none"/>')
            continue
        level = min(int((value - low) / ((high - low) or 1.0) * LEVELS), LEVELS - 1)
        told = f"{DAYS[at // 24]} {at % 24}:00: {value_of(key, value) if key else count(value)}"
        cells.append(
            f'<rect x="{x}" y="{y}" width="21" height="19" class="h{level}"><title>{told}</title></rect>'
        )
    days = [f'<text x="28" y="{30 + at * 20}" text-anchor="end">{day}</text>' for at, day in enumerate(DAYS)]
    hours = [
        f'<text x="{45 + hour * 22}" y="11" text-anchor="middle">{hour}</text>' for hour in range(0, 24, 3)
    ]
    ends = [value_of(key, one) if key else count(one) for one in (low, high)]
    scale = [
        f'<rect x="{84 + 14 * at}" y="162" width="14" height="9" class="h{at}"/>' for at in range(LEVELS)
    ]
    legend = f'<text x="78" y="171" text-anchor="end">{ends[0]}</text><text x="202" y="171">{ends[1]}</text>'
    return _svg(
        566, 178, [*days, *hours, *cells, *scale, legend], f"by hour of the week: {ends[0]} to {ends[1]}"
    )


def histogram(one: Mapping[str, Any]) -> str:
    """A distribution, as the document has it."""
    edges, shares = one["edges"], one["shares"]
    most = max([*shares, 1e-9])
    width = 300 / max(len(shares), 1)
    bars = [
        f'<rect x="{4 + at * width:.1f}" y="{8 + 84 * (1 - share / most):.1f}" width="{max(width - 1.5, 1):.1f}" '
        f'height="{84 * share / most:.1f}" class="bar"><title>{value_of(one["metric"], edges[at])} to '
        f"{value_of(one['metric'], edges[at + 1])}: {percent(share, 1)} of GPU time</title></rect>"
        for at, share in enumerate(shares)
    ]
    axis = [
        '<line x1="4" y1="92.5" x2="304" y2="92.5" class="axis"/>',
        f'<text x="4" y="106">{value_of(one["metric"], edges[0])}</text>',
        f'<text x="304" y="106" text-anchor="end">{value_of(one["metric"], edges[-1])}</text>',
        f'<text x="154" y="106" text-anchor="middle" class="dim">tallest {percent(most)}</text>',
    ]
    return _svg(308, 110, [*bars, *axis], "distribution over GPU time")


def utilisations(use: Mapping[str, Any]) -> str:
    """A bar each with its interval; what is not known is empty."""
    parts = []
    for row, (key, title, _) in enumerate(KINDS):
        one, y = use[key], 6 + row * 44
        parts.append(f'<text x="0" y="{y + 11}" class="strong">{title}</text>')
        parts.append(f'<rect x="170" y="{y}" width="440" height="16" class="track"/>')
        if one["value"] is None:
            parts.append(f'<text x="178" y="{y + 12}" class="dim">not known</text>')
            continue
        x, low, high = (170 + 440 * min(max(one[name], 0.0), 1.0) for name in ("value", "low", "high"))
        parts.append(f'<rect x="170" y="{y}" width="{x - 170:.1f}" height="16" class="bar"/>')
        if high - low > 1:
            parts.append(
                f'<path d="M{low:.1f} {y + 8}H{high:.1f}M{low:.1f} {y + 4}v8M{high:.1f} {y + 4}v8" class="whisker"/>'
            )
        parts.append(f'<text x="620" y="{y + 13}" class="strong">{percent(one["value"])}</text>')
        parts.append(f'<text x="170" y="{y + 29}" class="dim">{of_what(key, one)}</text>')
    return _svg(676, 44 * len(KINDS), parts, "the utilisations")


def load(one: Mapping[str, Any]) -> str:
    """What ran and what waited, day by day, against what is installed."""
    days = one["by_day"]
    installed = one["installed_gpus"] or 0
    most = max([day["running"] + (day["waiting"] or 0) for day in days] + [installed, 1.0]) * 1.05
    if len(days) < 2:
        return ""
    step = 600 / (len(days) - 1)

    def line(values: Sequence[float]) -> str:
        return " ".join(
            f"{40 + at * step:.1f},{150 - 140 * value / most:.1f}" for at, value in enumerate(values)
        )

    running = [day["running"] for day in days]
    asked = [day["running"] + (day["waiting"] or 0) for day in days]
    base = f"{40 + 600:.1f},150 40,150"
    parts = [
        f'<polygon points="{line(asked)} {base}" class="waiting"/>',
        f'<polygon points="{line(running)} {base}" class="area"/>',
        '<line x1="40" y1="150.5" x2="640" y2="150.5" class="axis"/>',
        f'<text x="34" y="154" text-anchor="end">0</text><text x="34" y="18" text-anchor="end">{count(round(most))}</text>',
        f'<text x="40" y="166">{str(days[0]["day"])[:10]}</text>',
        f'<text x="640" y="166" text-anchor="end">{str(days[-1]["day"])[:10]}</text>',
    ]
    if installed:
        y = 150 - 140 * installed / most
        parts.append(f'<line x1="40" y1="{y:.1f}" x2="640" y2="{y:.1f}" class="limit"/>')
        parts.append(
            f'<text x="640" y="{y - 4:.1f}" text-anchor="end" class="dim">installed {count(installed)}</text>'
        )
    return _svg(648, 172, parts, "GPUs asked for by day")


def coverage(days: Sequence[Mapping[str, Any]]) -> str:
    """A bar a day."""
    width = 600 / max(len(days), 1)
    bars = [
        f'<rect x="{4 + at * width:.1f}" y="{4 + 40 * (1 - day["coverage"]):.1f}" width="{max(width - 1, 0.5):.1f}" '
        f'height="{40 * day["coverage"]:.1f}" class="bar"><title>{str(day["day"])[:10]}: {percent(day["coverage"])}</title></rect>'
        for at, day in enumerate(days)
    ]
    axis = '<line x1="4" y1="44.5" x2="604" y2="44.5" class="axis"/>'
    return _svg(608, 48, [*bars, axis], "coverage by day")


def gauge(value: float | None) -> str:
    """A small bar for a table's cell."""
    if value is None:
        return ""
    wide = 60 * min(max(value, 0.0), 1.0)
    parts = [
        '<rect width="60" height="8" class="track"/>',
        f'<rect width="{wide:.1f}" height="8" class="bar"/>',
    ]
    return f'<svg viewBox="0 0 60 8" width="60" height="8" aria-hidden="true">{"".join(parts)}</svg>'


def _svg(width: int, height: int, parts: Sequence[str] | Iterator[str], label: str) -> str:
    return (
        f'<svg viewBox="0 0 {width} {height}" style="max-width:{width}px" role="img" aria-label="{label}">'
        f"{''.join(parts)}</svg>"
    )
