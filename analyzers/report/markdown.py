"""An audit as Markdown, for tickets and wikis. Other people's text is inert in it, and no markup."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from coldaisle.analyzers.report import text, words

MOST = 25
_MARKUP = re.compile(r"([\\`*_{}\[\]()#+!|~-])")
_ENTITIES = str.maketrans({"&": "&amp;", "<": "&lt;", ">": "&gt;", "@": "&#64;"})
"""A backslash before a tag is not heeded everywhere; an address would become a link."""


def as_markdown(made: Mapping[str, Any]) -> str:
    """Of an audit as :mod:`.document` has it."""
    return "\n".join(_lines(made)) + "\n"


def escaped(told: object, width: int = 80) -> str:
    """Foreign text that is shown as it is: no link, no HTML, no cell of a table."""
    text_ = _MARKUP.sub(r"\\\1", words.name(told, width)).translate(_ENTITIES)
    return text_.replace("://", ":&#47;&#47;")


def _lines(made: Mapping[str, Any]) -> Iterator[str]:
    yield f"# Audit of {escaped(made['cluster'])}"
    yield ""
    yield f"{words.span(made)}. {made['gpus']} GPUs on {made['nodes']} nodes."
    yield ""
    for title, answer in words.points(made):
        yield f"**{title}** {escaped(answer, 900)}"
        yield ""
    yield from _utilisations(made)
    yield from _advice(made)
    if "drift" in made:
        yield "## Since the baseline"
        yield ""
        yield from [f"- {escaped(text.drifted(one), 200)}" for one in made["drift"]] or [
            "Nothing has drifted."
        ]
        yield ""
    yield from _groups(made)
    yield from _hours(made)
    yield from _findings(made)
    yield from _method(made)


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    yield f"| {' | '.join(head)} |"
    yield f"|{'---|' * len(head)}"
    for row in rows[:MOST]:
        yield f"| {' | '.join(row)} |"
    if len(rows) > MOST:
        yield f"| and {len(rows) - MOST} more{' |' * len(head)}"
    yield ""


def _utilisations(made: Mapping[str, Any]) -> Iterator[str]:
    use = made["utilisations"]["cluster"]
    yield "## The utilisations"
    yield ""
    rows = [
        (title, words.figure(use[key]) if use[key]["value"] is not None else "-", words.of_what(key, use[key]) if use[key]["value"] is not None else escaped(use[key]["why"], 200))
        for key, title, _ in words.KINDS
    ]  # fmt: skip
    yield from _table(("", "80 % interval", "of what"), rows)


def _advice(made: Mapping[str, Any]) -> Iterator[str]:
    yield "## What to do"
    yield ""
    rows = [
        (
            f"**{escaped(one['action'], 200)}** {escaped(one['because'], 300)}",
            words.saved(one["saving"]),
            one["confidence"],
        )
        for one in made["advice"]
    ]
    yield from _table(("Advice", "Saves", "Sure"), rows) if rows else ["No advice.", ""]
    for rules, why in list(words.refusals(made))[:MOST]:
        yield f"- no advice on {rules}: {escaped(why, 200)}"
    yield ""


def _groups(made: Mapping[str, Any]) -> Iterator[str]:
    for title, key in (
        ("Racks", "racks"),
        ("Partitions", "partitions"),
        ("Users", "users"),
        ("Job names", "job_names"),
    ):
        rows = [
            (
                escaped(use["name"]),
                str(use["gpus"] or "-"),
                words.count(use["gpu_hours"]["value"]) if use["gpu_hours"] else "-",
                *(words.percent(use[kind]["value"]) for kind, _, _ in words.KINDS),
            )
            for use in made["utilisations"][key]
        ]
        if rows:
            yield f"## {title}"
            yield ""
            yield from _table(("", "GPUs", "GPU-hours", *(name for _, name, _ in words.KINDS)), rows)


def _hours(made: Mapping[str, Any]) -> Iterator[str]:
    for title, key in (("Final states", "state"), ("Partitions by accounting", "partition")):
        rows = [
            (
                escaped(one["name"]), words.count(one["jobs"]), words.count(one["gpu_hours"]),
                words.count(one["failed_gpu_hours"]), words.duration(one["wait_p50_s"]), words.duration(one["wait_p90_s"]),
            )
            for one in made["jobs_by"][key]
        ]  # fmt: skip
        if rows:
            yield f"## {title}"
            yield ""
            yield from _table(
                ("", "Jobs", "GPU-hours", "not completed", "half waited at most", "9 of 10 at most"), rows
            )


def _findings(made: Mapping[str, Any]) -> Iterator[str]:
    yield "## Findings that recurred"
    yield ""
    rows = [
        (
            f"{escaped(one['kind'])}: {escaped(one['name'])}", str(one["days"]),
            escaped(words.recurred(one)), escaped(", ".join(one["where"])),
        )
        for one in made["findings"]
    ]  # fmt: skip
    yield from (
        _table(("What", "Days", "How much", "Where most"), rows)
        if rows
        else ["None of what was looked at.", ""]
    )
    yield from [f"- not looked at: {escaped(one, 300)}" for one in made["not_looked_at"]]
    yield ""


def _method(made: Mapping[str, Any]) -> Iterator[str]:
    method = made["method"]
    yield "## Method and coverage"
    yield ""
    sources = ", ".join(escaped(one) for one in method["sources"]) or "none"
    yield f"Sources: {sources}. {method['queries']} queries, bins of {words.duration(made['span']['step_s'])}."
    yield ""
    share = made["coverage"]["by_metric"]
    rows = [
        (f"`{key}`", escaped(told), words.percent(share.get(key))) for key, told in method["found"].items()
    ]
    if rows:
        yield from _table(("Metric", "Read from", "Bins that have it"), rows)
    yield from [
        f"- missing: {escaped(key)}: {escaped(remedy, 200)}" for key, remedy in method["lacking"].items()
    ]
    yield from [f"- {escaped(one, 300)}" for one in method["remarks"]]
