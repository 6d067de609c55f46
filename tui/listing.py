"""``coldaisle list``: the rows of the screens as text, CSV or JSON, for pipes and screen readers."""

from __future__ import annotations

import asyncio
import contextlib
import csv
import io
import json
import math
import shutil
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import numpy as np

from coldaisle.analyzers.fields import TEXT, Entity, Field, Texts, fields_of, find, nearest, order, title
from coldaisle.analyzers.monitor import Monitor
from coldaisle.analyzers.selection import Selection
from coldaisle.analyzers.snapshot import LIVE_ONLY, TOLD_NOTHING, Snapshot, SourceView
from coldaisle.analyzers.tables import Index, Tables
from coldaisle.sources.collector import SteadyClock
from coldaisle.sources.configured import NO_SECRETS, sources_from
from coldaisle.sources.errors import ColdaisleError
from coldaisle.sources.nodesets import fold
from coldaisle.sources.source import Missing, TargetState
from coldaisle.sources.text import cell_width, clip, fit, natural_key, plain
from coldaisle.sources.units import NO_VALUE, show
from coldaisle.tui.dashboard import monitor_settings
from coldaisle.tui.doctor import expected_targets
from coldaisle.tui.examination import Abandoning

if TYPE_CHECKING:
    from coldaisle.sources.config import Settings
    from coldaisle.sources.ssh_login import Secrets

SCHEMA = "coldaisle.list/1"
LISTED, NOBODY = 0, 3
"""Exit statuses: rows, be they none; no source answered."""
PATIENCE_S = 15.0
"""For every source to answer, where nobody says how long."""
PATIENCE_PAST_S = 60.0
"""For a past instant to be told."""
_OF_LIST = {"t returns to live": "leave --at out for now", "give it more time": "give --for more"}
"""What helps here, for what helps on the screen."""
SECOND_S = 5.0
"""After that, for a value that needs a second sample."""

KINDS: Mapping[str, Entity] = {
    "gpus": Entity.GPU, "nodes": Entity.NODE, "jobs": Entity.JOB, "servers": Entity.SERVER,
    "partitions": Entity.PARTITION, "events": Entity.EVENT,
}  # fmt: skip
COLUMNS: Mapping[Entity, str] = {
    Entity.GPU: "gpu,model,status,job,user,util,sm_active,mem_used,power,temp",
    Entity.NODE: "node,rack,state,status,gpus,cpu_util,node.mem_ratio,util,power,age,problem",
    Entity.JOB: "job,jobname,user,account,partition,state,gpus,node,runtime,left,util,power,reason",
    Entity.PARTITION: "partition,state,default,limit,nodes,gpus,running,gpus_running,waiting,gpus_waiting,tier,accounts",
    Entity.EVENT: "time,entity,job,kind,detail",
    Entity.SERVER: "server,service,model,engine,status,running,waiting,kv_usage,ttft_p50,ttft_p99,gen_tokens",
}
"""What is listed where nobody chooses."""

Cell: TypeAlias = str | float | None


class Column(NamedTuple):
    """A column, by the name that was asked for."""

    name: str
    field: Field


class Request(NamedTuple):
    """What is asked for, checked."""

    what: str
    row: Entity
    columns: tuple[Column, ...]
    selection: Selection
    sort: Column | None
    descending: bool


class Heading(NamedTuple):
    """A column's name and unit."""

    name: str
    unit: str

    @property
    def is_text(self) -> bool:
        """Whether its cells are texts; else they are numbers."""
        return self.unit == TEXT


class Listing(NamedTuple):
    """The rows that are kept."""

    snapshot: Snapshot
    columns: tuple[Heading, ...]
    rows: list[tuple[Cell, ...]]
    total: int


def request_of(what: str, where: str, columns: str, sort: str) -> Request:
    """The request in these words; FilterError or ColdaisleError says what is wrong with them."""
    row = KINDS[what]
    names = [name.strip() for name in (columns or COLUMNS[row]).split(",") if name.strip()]
    chosen = tuple(_column(name, row, "--columns") for name in names)
    by = sort.removeprefix("-").strip()
    return Request(
        what,
        row,
        chosen,
        Selection(where, row),
        _column(by, row, "--sort") if by else None,
        sort.startswith("-"),
    )


def print_listing(
    settings: Settings,
    request: Request,
    seconds: float | None,
    secrets: Mapping[str, Secrets] = NO_SECRETS,
    *,
    at: float | None = None,
    form: str = "text",
    ascii_only: bool = False,
) -> int:
    """The whole command; its exit status. ``form``: text, csv or json. ``seconds``: gather so long; None: till all answered.

    ``at``: rows of a past instant; ColdaisleError: why there are none.
    """
    if at is None:
        snapshot = asyncio.run(gather(settings, request, seconds, secrets))
    else:
        snapshot = asyncio.run(look_back(settings, request, at, seconds, secrets))
    return print_rows(
        listed(snapshot, request), request.what, request.selection.text, form=form, ascii_only=ascii_only
    )


def print_rows(listing: Listing, what: str, where: str, *, form: str, ascii_only: bool) -> int:
    """Rows on stdout, what sources complain of on stderr; the exit status."""
    snapshot = listing.snapshot
    nobody = not any(has_answered(source) for source in snapshot.sources)
    for line in complaints(snapshot.sources):
        sys.stderr.write(f"coldaisle: {plain(line, ascii_only=True)}\n")
    if form == "json":
        sys.stdout.write(json.dumps(object_of(listing, what, where), indent=1, allow_nan=False) + "\n")
    elif not nobody:
        lines = csv_text(listing) if form == "csv" else _lines(listing, ascii_only=ascii_only)
        sys.stdout.writelines(lines)
    if sys.stderr.isatty() and not nobody:
        sys.stderr.write(f"{len(listing.rows)} of {listing.total} {what}\n")
    return NOBODY if nobody else LISTED


def column_help(what: str) -> Iterator[str]:
    """Every column that can be asked for: its name, its unit in JSON and CSV, what it is."""
    row = KINDS[what]
    for entity in order(row):
        yield f"# of {'the row itself' if entity is row else f'its {title(entity)}s'}"
        for field in fields_of(entity):
            short = find(field.name, row)
            name = field.name if short and short[0].key == field.key else field.key
            yield f"{name:<24}{field.unit:<10}{field.help}"


async def gather(
    settings: Settings, request: Request, seconds: float | None, secrets: Mapping[str, Secrets]
) -> Snapshot:
    """The cluster when every source has answered, after PATIENCE_S at the latest; or after so many ``seconds``."""
    asyncio.get_running_loop().set_default_executor(Abandoning())
    sources = sources_from(settings, time.time, secrets)
    monitor = Monitor(sources, monitor_settings(settings), SteadyClock())
    expected = expected_targets(settings)
    seen: asyncio.Queue[Snapshot] = asyncio.Queue()
    watching = asyncio.create_task(monitor.run(seen.put_nowait))
    keys = [column.field.key for column in request.columns] + [f.key for f in request.selection.fields]
    begun, answered_at = time.monotonic(), math.inf
    newest = monitor.snapshot()
    try:
        while (now := time.monotonic()) < begun + (PATIENCE_S if seconds is None else seconds):
            if watching.done():
                watching.result()
            with contextlib.suppress(TimeoutError):
                newest = await asyncio.wait_for(seen.get(), 0.1)
            if seconds is not None:
                continue
            if all(is_settled(source, expected.get(source.name, 0)) for source in newest.sources):
                answered_at = min(answered_at, now)
            if now >= answered_at and (now > answered_at + SECOND_S or not awaited(newest, keys)):
                break
        return monitor.snapshot()
    finally:
        watching.cancel()
        await asyncio.wait({watching}, timeout=1.0)


async def look_back(
    settings: Settings, request: Request, at: float, seconds: float | None, secrets: Mapping[str, Secrets]
) -> Snapshot:
    """The cluster as it was, from the sources that remember. Raises ColdaisleError."""
    if request.row is Entity.PARTITION:
        raise ColdaisleError("--at: partitions are known of now alone", "list jobs, nodes or gpus of then")
    asyncio.get_running_loop().set_default_executor(Abandoning())
    monitor = Monitor(sources_from(settings, time.time, secrets), monitor_settings(settings), SteadyClock())
    try:
        return await monitor.look_back(at, PATIENCE_PAST_S if seconds is None else seconds)
    except ColdaisleError as error:
        raise ColdaisleError(f"--at: {error}", _OF_LIST.get(error.remedy, error.remedy)) from None


def is_settled(source: SourceView, expected: int) -> bool:
    """Whether a source has answered once: every target with data, or with a reason why there are none."""
    if source.state == "connecting" or any(t.state is TargetState.CONNECTING for t in source.targets):
        return False
    return len(source.targets) >= expected or not source.targets


def awaited(snapshot: Snapshot, keys: Sequence[str]) -> bool:
    """Whether one of these metrics has no value yet that its next sample may bring."""
    found = (snapshot.column(key) for key in keys)
    return any(
        bool(((column.reason == Missing.NOT_SAMPLED) & (column.source < len(snapshot.sources))).any())
        for column in found
        if column
    )


def listed(snapshot: Snapshot, request: Request) -> Listing:
    """The rows that the request keeps, in its order."""
    tables = Tables()
    tables.take(snapshot)
    mask = request.selection.mask(snapshot)
    rows = np.flatnonzero(mask).tolist()
    if request.sort is not None:
        rows = sorted_rows(
            rows, _cells(tables, request.row, request.sort.field), descending=request.descending
        )
    columns = [_cells(tables, request.row, column.field) for column in request.columns]
    headings = tuple(Heading(column.name, column.field.unit) for column in request.columns)
    return Listing(snapshot, headings, [tuple(cells[row] for cells in columns) for row in rows], len(mask))


def as_object(listing: Listing, request: Request) -> dict[str, Any]:
    """For programs: canonical units, null for what is missing or stale."""
    return object_of(listing, request.what, request.selection.text)


def object_of(listing: Listing, what: str, where: str) -> dict[str, Any]:
    """The same of rows of any kind."""
    at = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(listing.snapshot.at))
    return {
        "schema": SCHEMA,
        "at": at,
        "cluster": listing.snapshot.name or None,
        "what": what,
        "where": where or None,
        "total": listing.total,
        "units": {column.name: column.unit for column in listing.columns},
        "sources": [
            {"name": one.name, "kind": one.kind, "state": one.state, "error": one.why or None}
            for one in listing.snapshot.sources
        ],
        "rows": [
            {column.name: cell for column, cell in zip(listing.columns, row, strict=True)}
            for row in listing.rows
        ],
    }


def csv_text(listing: Listing) -> Iterator[str]:
    """A header, then a line a row: canonical units, nothing for what is missing; foreign text inert."""
    page = io.StringIO()
    writer = csv.writer(page, lineterminator="\n")
    writer.writerow(column.name for column in listing.columns)
    for row in listing.rows:
        writer.writerow(
            "" if cell is None else plain(cell) if isinstance(cell, str) else _number(cell) for cell in row
        )
    yield page.getvalue()


def text_lines(listing: Listing, *, ascii_only: bool = False) -> list[str]:
    """Aligned columns, values with their units, a dash for what is missing; nothing is cut."""
    columns = listing.columns
    table = [
        [column.name for column in columns],
        *(
            [_shown(cell, column.unit, ascii_only) for cell, column in zip(row, columns, strict=True)]
            for row in listing.rows
        ),
    ]
    widths = [max(map(cell_width, cells)) for cells in zip(*table, strict=True)]
    right = [not column.is_text for column in columns]
    return [
        "  ".join(
            fit(cell, width, right=side) for cell, width, side in zip(row, widths, right, strict=True)
        ).rstrip()
        for row in table
    ]


def _lines(listing: Listing, *, ascii_only: bool) -> Iterator[str]:
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
    for line in text_lines(listing, ascii_only=ascii_only):
        yield (line if width is None else clip(line, width, "~" if ascii_only else "…")) + "\n"


def _column(name: str, row: Entity, option: str) -> Column:
    if found := find(name, row):
        return Column(name, found[0])
    near = nearest(name, row)
    remedy = f"did you mean {near}? " if near else ""
    raise ColdaisleError(
        f"{option}: no column {name[:60]!r} of a {title(row)}", f"{remedy}--columns help lists them"
    )


# --- cells ------------------------------------------------------------------------------------------


def _cells(tables: Tables, row: Entity, field: Field) -> list[Cell]:
    """[row] of a field: its own, or of all that belongs to it: texts together, of numbers the mean."""
    linked = tables.linked(row)
    column = tables.column(field)
    index = linked.of.get(field.entity)
    if index is not None:
        return _texts(column, index) if isinstance(column, Texts) else _numbers(column, index)
    scope = tables.scope(row)
    index = scope.of.get(field.entity)
    if index is None:
        return [None] * linked.size
    there = index >= 0
    if row is Entity.NODE and field.entity is Entity.GPU:
        boards = np.zeros(tables.size(Entity.GPU), dtype=np.bool_)
        boards[tables.snapshot.layout.boards] = True
        there &= boards[np.maximum(index, 0)] if len(boards) else False
    owner, index = scope.owner[there], index[there]
    if isinstance(column, Texts):
        return _together(column, owner, index, linked.size, as_set=field.is_name)
    values = column[index].astype(np.float64)
    known = np.isfinite(values)
    count = np.bincount(owner[known], minlength=linked.size)
    total = np.bincount(owner[known], weights=values[known], minlength=linked.size)
    with np.errstate(invalid="ignore"):
        mean = np.where(count > 0, total / np.maximum(count, 1), np.nan)
    return _numbers(mean.astype(np.float32), np.arange(linked.size))


def _texts(column: Texts, index: Index) -> list[Cell]:
    if not len(column.codes):
        return [None] * len(index)
    codes = np.where(index < 0, -1, column.codes[np.maximum(index, 0)])
    return [None if code < 0 else column.values[code][0] for code in codes.tolist()]


def _numbers(column: np.ndarray[Any, Any], index: Index) -> list[Cell]:
    if not len(column):
        return [None] * len(index)
    values = np.where(index < 0, np.nan, column[np.maximum(index, 0)].astype(np.float64))
    return [float(f"{value:.7g}") if math.isfinite(value) else None for value in values.tolist()]


def _together(column: Texts, owner: Index, index: Index, size: int, *, as_set: bool) -> list[Cell]:
    """Each text once; names as a node set."""
    found: list[dict[str, None]] = [{} for _ in range(size)]
    for row, code in zip(owner.tolist(), column.codes[index].tolist(), strict=True):
        if code >= 0:
            found[row][column.values[code][0]] = None
    return [(fold(texts) if as_set else ",".join(texts)) if texts else None for texts in found]


def sorted_rows(rows: list[int], cells: Sequence[Cell], *, descending: bool) -> list[int]:
    """By value, texts as people count; what has none last, whichever way."""
    known = [row for row in rows if cells[row] is not None]
    # a column holds texts or numbers, never both
    known.sort(key=lambda row: _key(cells[row]), reverse=descending)
    return known + [row for row in rows if cells[row] is None]


def _key(cell: Cell) -> Any:
    return natural_key(cell.casefold()) if isinstance(cell, str) else cell


def _shown(cell: Cell, unit: str, ascii_only: bool) -> str:
    if cell is None:
        return NO_VALUE
    if isinstance(cell, str) or unit == TEXT:
        return plain(str(cell), ascii_only=ascii_only) or NO_VALUE
    return show(cell, unit, ascii_only=ascii_only)


def _number(cell: float) -> str:
    return f"{cell:.0f}" if cell == int(cell) and abs(cell) < 1e15 else repr(cell)


def has_answered(source: SourceView) -> bool:
    return (
        source.last_at is not None or source.targets_ok > 0 or source.state in (TargetState.OK, TOLD_NOTHING)
    )


def complaints(sources: Sequence[SourceView]) -> Iterator[str]:
    for source in sources:
        if source.state == "connecting":
            doing = next(
                (one for one in source.targets if one.state is TargetState.CONNECTING and one.remedy), None
            )
            yield f"{source.name}: no answer yet" + (f": {doing.detail} -> {doing.remedy}" if doing else "")
        elif source.state not in ("ok", "slow"):
            remedy = f" -> {source.remedy}" if source.remedy and source.state != LIVE_ONLY else ""
            yield f"{source.name}: {source.state}: {source.why or 'no reason is given'}{remedy}"
