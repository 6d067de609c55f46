"""``coldaisle list findings``: a row a finding, for pipes and screen readers; ``coldaisle check`` tells the whole of each."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, NamedTuple

from coldaisle.analyzers.fields import TEXT
from coldaisle.analyzers.finding import Finding
from coldaisle.analyzers.snapshot import Snapshot
from coldaisle.sources.configured import NO_SECRETS
from coldaisle.sources.errors import ColdaisleError
from coldaisle.sources.nodesets import fold
from coldaisle.tui.check import Outcome, bare, by_badness, diagnosed
from coldaisle.tui.check import Request as Asked
from coldaisle.tui.check import request_of as asked_of
from coldaisle.tui.listing import Cell, Heading, Listing, print_rows, sorted_rows

if TYPE_CHECKING:
    from coldaisle.sources.config import Settings
    from coldaisle.sources.ssh_login import Secrets

WHAT = "findings"


class Column(NamedTuple):
    """What can be told of a finding in a cell."""

    name: str
    unit: str
    help: str
    of: Callable[[Finding, Snapshot], Cell]


COLUMNS: Mapping[str, Column] = {
    column.name: column
    for column in (
        Column("id", TEXT, "thermal_throttling:r07", lambda one, _: one.id),
        Column("detector", TEXT, "the condition", lambda one, _: one.detector),
        Column("severity", TEXT, "critical, warning, info", lambda one, _: one.severity.name.lower()),
        Column("urgency", TEXT, "now, today, later", lambda one, _: str(one.urgency)),
        Column("age", "s", "since it began, as far as samples show", lambda one, now: now.at - one.since),
        Column("loss", "ratio", "of the work of what it touches", lambda one, _: one.loss.fraction),
        Column("lost", "1", "GPU-hours an hour", lambda one, _: float(f"{one.loss.gpu_hours_per_hour:.7g}")),
        Column("confidence", "ratio", "how sure it is", lambda one, _: one.confidence),
        Column("owner", TEXT, "who has to act", lambda one, _: one.owner),
        Column("rack", TEXT, "racks", lambda one, _: ",".join(one.scope.racks) or None),
        Column(
            "node", TEXT, "nodes, folded", lambda one, _: fold(one.scope.nodes) if one.scope.nodes else None
        ),
        Column("gpus", "1", "how many GPUs", lambda one, _: float(len(one.scope.gpus))),
        Column("job", TEXT, "jobs", lambda one, _: ",".join(map(bare, one.scope.jobs)) or None),
        Column("server", TEXT, "inference servers", lambda one, _: ",".join(one.scope.servers) or None),
        Column("title", TEXT, "what it is", lambda one, _: one.title),
        Column("cause", TEXT, "why", lambda one, _: one.cause),
        Column("remedy", TEXT, "what to do", lambda one, _: one.remedy),
    )
}
SHOWN = "severity,urgency,id,age,lost,loss,owner,title"


class Request(NamedTuple):
    """What is asked for, checked."""

    asked: Asked
    where: str
    columns: tuple[Column, ...]
    sort: Column | None
    descending: bool


def request_of(where: str, columns: str, sort: str, seconds: float | None) -> Request:
    """The request in these words; FilterError or ColdaisleError says what is wrong with them."""
    chosen = tuple(_column(name, "--columns") for name in (columns or SHOWN).split(",") if name.strip())
    by = sort.removeprefix("-").strip()
    return Request(
        asked_of(None, 900.0, seconds, "", where, "never"),
        where,
        chosen,
        _column(by, "--sort") if by else None,
        sort.startswith("-"),
    )


def column_help() -> Iterator[str]:
    """Every column that can be asked for."""
    return (f"{one.name:<24}{one.unit:<10}{one.help}" for one in COLUMNS.values())


def print_findings(
    settings: Settings,
    request: Request,
    secrets: Mapping[str, Secrets] = NO_SECRETS,
    *,
    form: str = "text",
    ascii_only: bool = False,
) -> int:
    """The whole command; its exit status."""
    outcome = asyncio.run(diagnosed(settings, request.asked, secrets, lambda _: None))
    return print_rows(listed(outcome, request), WHAT, request.where, form=form, ascii_only=ascii_only)


def listed(outcome: Outcome, request: Request) -> Listing:
    """The rows, worst first or as asked."""
    findings, snapshot = by_badness(outcome.diagnosis.findings), outcome.snapshot
    rows = list(range(len(findings)))
    if request.sort is not None:
        cells = [request.sort.of(one, snapshot) for one in findings]
        rows = sorted_rows(rows, cells, descending=request.descending)
    return Listing(
        snapshot,
        tuple(Heading(column.name, column.unit) for column in request.columns),
        [tuple(column.of(findings[row], snapshot) for column in request.columns) for row in rows],
        len(snapshot.diagnosis.findings),
    )


def _column(name: str, option: str) -> Column:
    found = COLUMNS.get(name.strip())
    if found is None:
        raise ColdaisleError(
            f"{option}: no column {name.strip()[:60]!r} of a finding", "--columns help lists them"
        )
    return found
