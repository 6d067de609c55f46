"""An audit as CSV: one long table, a figure a line, for spreadsheets.

Other people's text stands in cells: one that a spreadsheet would take for a formula is made inert by an apostrophe before it.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Mapping
from typing import Any

from coldaisle.sources.text import plain

COLUMNS = ("section", "name", "figure", "value", "low", "high", "unit", "note")
FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "|", "%", "\uff1d", "\uff0b", "\uff0d", "\uff20")
"""What makes a cell a formula, or a command, in one spreadsheet or another; the last four are the first four in full width."""
LONGEST = 500

Row = tuple[object, ...]


def as_csv(made: Mapping[str, Any]) -> str:
    """Of an audit as :mod:`.document` has it."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\r\n")
    writer.writerow(COLUMNS)
    writer.writerows([inert(cell) for cell in row] for row in rows(made))
    return out.getvalue()


def inert(cell: object) -> object:
    """A text that no spreadsheet runs; numbers stay numbers."""
    if cell is None:
        return ""
    if not isinstance(cell, str):
        return cell
    # a tab or a line's end before it would hide the sign: looked at before they are made visible
    text = plain(cell, LONGEST)
    is_formula = cell.startswith(FORMULA) or text.lstrip().startswith(FORMULA)
    return f"'{text}" if is_formula else text


def rows(made: Mapping[str, Any]) -> Iterator[Row]:
    """All figures; each with its section and whose it is."""
    span = made["span"]
    yield "span", "", "start", span["start"], None, None, "", ""
    yield "span", "", "end", span["end"], None, None, "", ""
    yield "span", "", "days", span["days"], None, None, "d", ""
    for name in ("gpus", "nodes", "jobs"):
        yield "cluster", made["cluster"], name, made[name], None, None, "1", ""
    yield "cluster", made["cluster"], "installed", made["gpu_hours"]["installed"], None, None, "gpu_hours", ""
    for name in ("allocated", "reclaimable"):
        yield _figure("cluster", made["cluster"], f"{name} GPU-hours", made["gpu_hours"][name])
    uses = made["utilisations"]
    yield from _use("cluster", uses["cluster"])
    for part in ("racks", "partitions", "users", "job_names"):
        for use in uses[part]:
            yield from _use(part, use)
    yield from _jobs(made)
    yield from _spreads(made)
    yield from _advice(made)
    yield from _found(made)
    for one in made["coverage"]["by_day"]:
        yield "coverage", one["day"], "coverage", one["coverage"], None, None, "ratio", ""
    for key, share in made["coverage"]["by_metric"].items():
        yield "coverage", key, "coverage", share, None, None, "ratio", ""


def _advice(made: Mapping[str, Any]) -> Iterator[Row]:
    for one in made["advice"]:
        yield _figure(f"advice:{one['rule']}", one["id"], "quantity", one["quantity"], one["action"])
        for kind, saved in one["saving"].items():
            if saved is not None:
                yield _figure(f"advice:{one['rule']}", one["id"], f"saving {kind}", saved, one["action"])
    for one in made["refused"]:
        yield (
            f"refused:{one['rule']}",
            ", ".join(one["scope"]["jobs"][:5]),
            "",
            None,
            None,
            None,
            "",
            one["why"],
        )


def _found(made: Mapping[str, Any]) -> Iterator[Row]:
    for one in made["findings"]:
        where = ", ".join(one["where"])
        yield "findings", one["kind"], one["name"], one["amount"], one["low"], one["high"], one["unit"], where
    for one in made.get("drift", ()):
        change = one["change"]
        note = f"was {one['before']:.6g}, is {one['now']:.6g}"
        yield "drift", "", one["what"], change["value"], change["low"], change["high"], one["unit"], note


def _figure(section: str, name: str, figure: str, one: Mapping[str, Any] | None, note: str = "") -> Row:
    if one is None:
        return section, name, figure, None, None, None, "", note
    return section, name, figure, one["value"], one["low"], one["high"], one["unit"], note


def _use(section: str, use: Mapping[str, Any]) -> Iterator[Row]:
    yield _figure(section, use["name"], "GPU-hours", use["gpu_hours"])
    for kind in ("allocated", "busy", "active", "achieved_flops", "achieved_bandwidth"):
        yield _figure(section, use["name"], kind, use[kind], use[kind]["why"])


def _jobs(made: Mapping[str, Any]) -> Iterator[Row]:
    units = {"jobs": "1", "slowdown_p90": "1", "wait_p50_s": "s", "wait_p90_s": "s"}
    for kind, several in made["jobs_by"].items():
        for one in several:
            for figure, value in one.items():
                if figure != "name":
                    yield (
                        f"jobs by {kind}",
                        one["name"],
                        figure,
                        value,
                        None,
                        None,
                        units.get(figure, "gpu_hours"),
                        "",
                    )
    load = made["offered_load"]
    if load is not None:
        for figure in ("p50_gpus", "p95_gpus", "max_gpus", "running_p95_gpus", "waiting_p95_gpus"):
            yield "offered load", "", figure, load[figure], None, None, "gpus", ""
        for hour, value in enumerate(load["by_hour_of_week"]):
            yield "offered load by hour of week", str(hour), "mean", value, None, None, "gpus", ""
    for one in made["waste"]:
        yield "waste", one["name"], "unused GPU-hours", one["unused_gpu_hours"], None, None, "gpu_hours", ""


def _spreads(made: Mapping[str, Any]) -> Iterator[Row]:
    for one in made["distributions"]:
        for name, value in one["percentiles"].items():
            yield "distribution", one["metric"], name, value, None, None, "", ""
    for one in made["hour_of_week"]:
        for hour, value in enumerate(one["values"]):
            yield "hour of week", one["metric"], str(hour), value, None, None, "", ""
