"""The event log: what happened to anything, newest first; to what the cursor stood on before all else."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType

from coldaisle.sources.text import ELLIPSIS, plain
from coldaisle.sources.units import age
from coldaisle.tui.reading import event_token, event_words, is_same_day, who_was, whose
from coldaisle.tui.screens.filtered import FilteredScreen
from coldaisle.tui.screens.live import LiveScreen
from coldaisle.tui.tiles import tail
from coldaisle.tui.widgets.header import Piece, TopLines, fitted
from coldaisle.tui.widgets.lines import Lines, Row, Run, cut, row_text, wrap
from coldaisle.tui.widgets.table import Cell, Column, Placed, Table

if TYPE_CHECKING:
    from coldaisle.analyzers.happenings import Kin
    from coldaisle.analyzers.snapshot import EventView, Snapshot

COLUMNS = (
    Column("mark", "", 1, keep=0),
    Column("at", "when", 8, keep=1),
    Column("ago", "ago", 6, right=True, keep=4),
    Column("whose", "whose", 16, keep=2),
    Column("kind", "what", 14, keep=3),
    Column("detail", "detail", 20, keep=5, grows=True),
)
HERE, REST = "here", "rest"
"""Keys of the two headings."""
DETAIL_ROWS, MOST_DETAIL = 2, 1000
"""Rows in which the whole of an event is told, and characters of it."""
DATED = 14
"""Cells of a time with its date."""


class EventsScreen(FilteredScreen):
    """Job starts and ends, node states, drains, reboots, drivers, XIDs, alerts: one list."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("slash", "filter", "Filter", key_display="/"),
        Binding("escape,e", "back", "Back"),
    ]
    ROWS, COUNTED = "event", "events"
    DEFAULT_CSS = f"EventsScreen #detail {{ height: {DETAIL_ROWS}; }}"
    FILTER_HINT = "kim, xid, kind==drain, rack==r07, detail~=fell & age<1h; Tab completes, Up recalls"

    def __init__(self, about: str = "") -> None:
        """``about``: the key of what the cursor stood on; empty: nothing in particular."""
        super().__init__()
        self.about = about
        self._events: dict[str, EventView] = {}
        """By the key of its row."""
        self._made_of: tuple[object, ...] = ()
        self._mask = b""
        self._keys: list[str] = []
        self._near = 0
        self._moved = False

    def body(self) -> ComposeResult:
        yield Table(COLUMNS, id="events")
        yield Lines(id="detail")
        yield Lines(id="status")

    def redraw(self, snapshot: Snapshot) -> None:
        """What is new stands on top; the cursor stays on what it stands on."""
        self._arrange(snapshot)
        table = self.query_one(Table)
        dated = any(not is_same_day(event.at, snapshot.at) for event in self._events.values())
        table.set_columns([_dated(column) if dated and column.key == "at" else column for column in COLUMNS])

        def cells_of(key: str, placed: Sequence[Placed]) -> Sequence[Cell]:
            return self._cells(snapshot, key, placed)

        before = table.key
        table.show(self._keys, cells_of, empty=self._empty(snapshot))
        if not self._moved or (before in (HERE, REST)):
            self._start(table)
        self.query_one(TopLines).set_note((Run("events, newest first", "title"),))
        self.query_one("#detail", Lines).show(self._detail())
        self.query_one("#status", Lines).show([self._status(snapshot)])

    def under_cursor(self) -> str:
        """What the event under the cursor is of."""
        event = self._events.get(self.query_one(Table).key or "")
        return event.entity if event is not None else ""

    @on(Table.Moved)
    def _stepped(self) -> None:
        self._moved = True
        self.query_one("#detail", Lines).show(self._detail())

    @on(Table.Opened)
    def _opened(self, event: Table.Opened) -> None:
        """The node, the GPU or the job that it happened to."""
        found = self._events.get(event.key)
        if found is not None and self.snapshot is not None:
            open_entity(self, self.snapshot, found.entity)

    def _start(self, table: Table) -> None:
        """The cursor on the newest that concerns what was asked about, else on the newest of all."""
        first = next((key for key in self._keys if key not in (HERE, REST)), None)
        if first is not None and table.key != first and not self._moved:
            table.select(first)
            self._moved = False

    def _arrange(self, snapshot: Snapshot) -> None:
        """The rows anew when there are other events, or other words to filter by."""
        from coldaisle.analyzers.happenings import kin_of, newest_first

        kept = self.kept(snapshot)
        # a filter may ask how long ago it was, or of the GPUs: what it keeps can be another in every snapshot
        mask = b"" if kept is None else kept.tobytes()
        made_of = (snapshot.events, snapshot.layout, snapshot.jobs, snapshot.queue)
        if mask != self._mask or not _same(made_of, self._made_of):
            self._mask, self._made_of = mask, made_of
            kin = kin_of(snapshot, self.about)
            told = [event for at, event in enumerate(snapshot.events) if kept is None or kept[at]]
            wanted = newest_first(event for event in told if event.at <= snapshot.at + 1.0)
            self._events, self._keys = _rows(wanted, kin)
            self._near = sum(kin.concerns(event) for event in wanted)
        if kept is not None:
            self.tell_kept(len(self._events), len(snapshot.events))

    def _cells(self, snapshot: Snapshot, key: str, placed: Sequence[Placed]) -> Sequence[Cell]:
        event = self._events.get(key)
        if event is None:
            about = who_was(snapshot, self.about) if key == HERE else ""
            return _heading(about, self._near, len(self._events) - self._near, placed)
        made: dict[str, Cell] = {
            "mark": Run(">" if key.startswith(HERE) else " ", "match"),
            "at": Run(_when(event.at, snapshot.at)),
            "ago": Run(age(snapshot.at - event.at), "dim"),
            "whose": Run(tail(whose(event) or "the cluster", 16, ELLIPSIS)),
            "kind": Run(event_words(event.kind), event_token(event.kind)),
            "detail": Run(plain(event.detail), "text"),
        }
        return [made[item.column.key] for item in placed]

    def _empty(self, snapshot: Snapshot) -> str:
        if self.filter.strip():
            return "no event matches the filter"
        return (
            "nothing has happened yet, as far as is known"
            if snapshot.live
            else "nothing is known of that instant"
        )

    def _status(self, snapshot: Snapshot) -> Row:
        total, shown = len(snapshot.events), len(self._events)
        pieces = [Piece(0, (Run(f"{shown} of {_counted(total)}" if shown != total else _counted(total)),))]
        if snapshot.events:
            pieces.append(Piece(2, (Run(f"since {_when(snapshot.events[0].at, snapshot.at)}", "dim"),)))
        if filtered := self.filter_runs(40):
            pieces.append(Piece(0, tuple(filtered)))
        if not snapshot.live:
            pieces.append(Piece(1, (Run("up to the instant that is shown", "dim"),)))
        return fitted(pieces, self.query_one("#status", Lines).room.width)

    def _detail(self) -> list[Row]:
        """All that is told of the event under the cursor: its row may be too short for that."""
        event = self._events.get(self.query_one(Table).key or "")
        if event is None:
            return []
        width = max(20, self.query_one("#detail", Lines).room.width)
        rows = wrap(f"{whose(event) or 'the cluster'}: {plain(event.detail[:MOST_DETAIL])}", width)
        return (
            rows
            if len(rows) <= DETAIL_ROWS
            else [
                *rows[: DETAIL_ROWS - 1],
                cut((Run(" ".join(row_text(row) for row in rows[DETAIL_ROWS - 1 :])),), width),
            ]
        )


def _same(before: Sequence[object], now: Sequence[object]) -> bool:
    return len(before) == len(now) and all(a is b for a, b in zip(before, now, strict=True))


def _rows(events: Sequence[EventView], kin: Kin) -> tuple[dict[str, EventView], list[str]]:
    """Events by the key of their row, and the rows: what concerns ``kin`` first, under a heading."""
    near: dict[str, EventView] = {}
    rest: dict[str, EventView] = {}
    for event in events:
        side, group = (HERE, near) if kin.concerns(event) else (REST, rest)
        key = f"{side} {event.at!r} {event.entity} {event.kind} {event.detail}"
        while key in group:  # told twice
            key += "'"
        group[key] = event
    keys = [HERE, *near, REST, *rest] if near else list(rest)
    return {**near, **rest}, keys


def _heading(about: str, near: int, rest: int, placed: Sequence[Placed]) -> list[Cell]:
    """A row between events; it stands across the columns that are wide enough."""
    text = f"of {about}" if about else "of the others"
    made = {"whose": Run(text, "title"), "kind": Run(_counted(near if about else rest), "dim")}
    return [made.get(item.column.key, Run("")) for item in placed]


def _counted(events: int) -> str:
    return f"{events} event{'s' * (events != 1)}"


def _when(at: float, now: float) -> str:
    """``03:12:41``, with the date unless it is of the same day."""
    return time.strftime("%H:%M:%S" if is_same_day(at, now) else "%d %b %H:%M:%S", time.localtime(at))


def _dated(column: Column) -> Column:
    from dataclasses import replace

    return replace(column, width=DATED + 1)


def open_entity(screen: LiveScreen, snapshot: Snapshot, entity: str) -> None:
    """The screen of what something happened to: a job, a node, a GPU or what is on a node."""
    from coldaisle.tui.screens.job import JobScreen
    from coldaisle.tui.screens.node import NodeScreen

    layout = snapshot.layout
    if any(job.id == entity for job in (*snapshot.jobs, *snapshot.queue)):
        screen.app.push_screen(JobScreen(entity))
        return
    gpu = layout.gpu_of.get(entity)
    index = layout.gpus[gpu].node if gpu is not None else layout.node_of.get(entity)
    if index is None:
        parts = (*layout.ports, *layout.disks, *layout.servers)
        index = next((part.node for part in parts if part.key == entity), None)
    if index is None:
        if (say := getattr(screen.app, "say", None)) is not None:
            say(f"{who_was(snapshot, entity) or 'the cluster'} has no screen of its own now")
        return
    node = layout.nodes[index]
    screen.app.push_screen(NodeScreen(node.key, 0 if gpu is None else gpu - node.gpus.start))
