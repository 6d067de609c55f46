"""The Jobs screen: what runs and what waits, as rows by the thousand, with sums; nothing moves by itself."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.screen import Screen

from coldaisle.sources.units import age
from coldaisle.tui import cells
from coldaisle.tui.choices import Choices
from coldaisle.tui.screens import job_rows as rows
from coldaisle.tui.screens.filtered import FilteredScreen
from coldaisle.tui.screens.job_rows import GROUPINGS, HEAD, JOB, SORTS, Jobs, Roll, Watch
from coldaisle.tui.widgets.header import Piece, TopLines, fitted
from coldaisle.tui.widgets.lines import Lines, Row, Run
from coldaisle.tui.widgets.table import Cell, Column, Placed, Table

if TYPE_CHECKING:
    from coldaisle.analyzers.jobs import Group
    from coldaisle.analyzers.snapshot import Snapshot
    from coldaisle.sources.cluster import Job

NAME = "jobs"
"""Under which its columns are kept."""


class JobsScreen(FilteredScreen):
    """All jobs: groups with their sums, opened into the jobs themselves."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("space", "fold", "Open/close"),
        Binding("s", "sort", "Sort"),
        Binding("g", "group", "Group"),
        Binding("slash", "filter", "Filter", key_display="/"),
        Binding("r", "racks", "On Racks"),
        Binding("c", "columns", "Columns"),
        Binding("plus,equals_sign", "fold_all(True)", "Open all", show=False),
        Binding("minus", "fold_all(False)", "Close all", show=False),
        Binding("escape", "back", "Back"),
    ]
    TAB = "Jobs"
    ROWS, COUNTED = "job", "jobs"
    FILTER_HINT = "kim, state==pending, user==alice & util<30, left<30m, gpus>=16; Tab completes, Up recalls"

    def __init__(self, at: str = "", choices: Choices | None = None) -> None:
        """``at``: the id of a job that the cursor shall stand on."""
        super().__init__()
        self.sort = SORTS[0]
        self.grouping = GROUPINGS[0]
        self.folded: dict[str, bool] = {}
        """Groups that were opened or closed by hand: whether closed."""
        self.choices = choices or Choices()
        self._wanted = at
        self._watch = Watch()
        self._view: Jobs | None = None
        self._order: list[int] = []
        self._ordered_for: tuple[object, ...] = ()
        self._ordered_at = 0.0
        self._ordered_ids: list[str] = []
        self._shown_for: tuple[object, ...] = ()
        self._groups: tuple[Group, ...] = ()
        self._shown = 0
        self._has_begun = False
        self._has_told = False

    def body(self) -> ComposeResult:
        yield Table(rows.columns("", 80, None), id="jobs")
        yield Lines(id="status")

    def redraw(self, snapshot: Snapshot) -> None:
        """Rows in the order that was chosen; values of what is in sight."""
        view = self._view = self._seen(snapshot)
        self._keep_order(view)
        self._keep_groups(view)
        table = self.query_one(Table)
        table.set_columns(self._columns(view, table.size.width))
        named = {HEAD + one.name: one for one in self._groups}

        def cells_of(key: str, placed: Sequence[Placed]) -> Sequence[Cell]:
            if (one := named.get(key)) is not None:
                return rows.head_cells(view, one, placed, opened=self._is_open(one.name))
            return rows.job_cells(view, key.removeprefix(JOB), placed)

        empty: str | list[Row] = "no job matches the filter"
        if not view.roll.place:
            empty = rows.no_jobs(snapshot, table.size.width - 1)
        keys = rows.keys_of(view.roll, self._groups, self._is_open)
        table.show(keys, cells_of, sorted_by=self.sort.column, empty=empty)
        if not self._has_begun and len(keys) > 1 and table.size.height > 2:
            self._has_begun = True
            table.action_move(1)  # onto the first job
        self._stand_where_wanted(view.roll)
        self.query_one(TopLines).set_note(self._note(view))
        self.query_one("#status", Lines).show([self._status(view)])
        if self.choices.problem and not self._has_told:
            self._has_told = True
            self._say(self.choices.problem)

    def under_cursor(self) -> str:
        """The id of the job under the cursor."""
        key = self.query_one(Table).key or ""
        return key.removeprefix(JOB) if key.startswith(JOB) else ""

    def action_sort(self) -> None:
        """The next order, as the values are now."""
        self.sort = SORTS[(SORTS.index(self.sort) + 1) % len(SORTS)]
        self._ordered_for = ()
        self.again()
        self.query_one(Table).action_edge(0)

    def action_group(self) -> None:
        """The next way to put jobs together."""
        self.grouping = GROUPINGS[(GROUPINGS.index(self.grouping) + 1) % len(GROUPINGS)]
        self.folded = {}
        self.again()
        self.query_one(Table).action_edge(0)

    def action_columns(self) -> None:
        """Choose the columns."""
        from coldaisle.tui.screens.columns import ColumnsScreen

        empty = () if self._view is None else rows.empty_columns(self._view)
        chosen = self.choices.columns(NAME)
        self.app.push_screen(ColumnsScreen(rows.known_columns(), chosen, "job", self._choose, empty))

    def action_fold(self) -> None:
        """Open or close the group under the cursor, or that of the job."""
        one = self._group_here()
        if one is not None:
            self.folded[one.name] = self._is_open(one.name)
            self.again()
            self.query_one(Table).select(HEAD + one.name)

    def action_fold_all(self, opened: bool) -> None:
        """Open or close all groups."""
        one = self._group_here()
        self.folded = {group.name: not opened for group in self._groups}
        self.again()
        if one is not None and not opened:
            self.query_one(Table).select(HEAD + one.name)

    def action_racks(self) -> None:
        """Light up the job on the map."""
        job = self._view.roll.job(self.under_cursor()) if self._view is not None else None
        if job is not None:
            show_on_racks(self, job)

    def stand_on(self, job: str) -> None:
        """Put the cursor on a job, by its id; its group is opened."""
        self._wanted = job
        self.again()

    @on(Table.Opened)
    def _opened(self, event: Table.Opened) -> None:
        """A group's jobs, or a job."""
        from coldaisle.tui.screens.job import JobScreen

        if event.key.startswith(HEAD):
            self.action_fold()
        else:
            self.app.push_screen(JobScreen(event.key.removeprefix(JOB)))

    def _choose(self, keys: Sequence[str] | None) -> None:
        problem = self.choices.choose(NAME, keys)
        self.again()
        if problem:
            self._say(problem)

    def _say(self, text: str) -> None:
        say = getattr(self.app, "say", None)
        if say is not None:
            say(text)

    def _seen(self, snapshot: Snapshot) -> Jobs:
        metric: cells.CellMetric | None = getattr(self.app, "metric", None)
        return rows.jobs_seen(snapshot, self._watch.roll(snapshot), metric or cells.default_metric(snapshot))

    def _keep_order(self, view: Jobs) -> None:
        """Sort when the order was chosen; when jobs came or went only by what does not move: rows keep their place."""
        roll, live = view.roll, view.snapshot.live
        wanted = (roll, self.sort.column, live)
        if self._ordered_for == wanted:
            return
        if self._ordered_for[1:] == wanted[1:] and self.sort.moves:
            self._order = rows.kept_order(self._ordered_ids, roll)
        else:
            self._order, self._ordered_at = rows.order(view, self.sort), view.snapshot.at
        self._ordered_for = wanted
        self._ordered_ids = [roll.at(at).id for at in self._order]

    def _keep_groups(self, view: Jobs) -> None:
        """Put jobs together anew when the order, the grouping or what the filter keeps is another one."""
        roll, kept = view.roll, self.kept(view.snapshot)
        places = tuple(self._order) if kept is None else tuple(at for at in self._order if kept[at])
        wanted = (self._ordered_for, self._ordered_at, places, self.grouping)
        if kept is not None:
            self.tell_kept(len(places), len(self._order))
        if self._shown_for == wanted:
            return
        self._shown_for, self._shown = wanted, len(places)
        self._groups = rows.sections(roll, places, self.grouping)

    def _is_open(self, group: str) -> bool:
        """Those that run and those that wait are shown; sums are opened by hand, or by a filter."""
        return not self.folded.get(group, bool(self.grouping) and not self.filter.strip())

    def _group_here(self) -> Group | None:
        """The group under the cursor, or that of the job."""
        key = self.query_one(Table).key
        if key is None or self._view is None:
            return None
        if key.startswith(HEAD):
            return next((one for one in self._groups if HEAD + one.name == key), None)
        return self._group_of(self._view.roll, key.removeprefix(JOB))

    def _group_of(self, roll: Roll, job: str) -> Group | None:
        at = roll.place.get(job)
        if at is None:
            return None
        runs = len(roll.jobs)
        return next(
            (one for one in self._groups if (at in one.running if at < runs else at - runs in one.waiting)),
            None,
        )

    def _stand_where_wanted(self, roll: Roll) -> None:
        """Once the job that was asked for is known, go there."""
        if not self._wanted or self._wanted not in roll.place:
            return
        wanted, self._wanted = self._wanted, ""
        one = self._group_of(roll, wanted)
        if one is not None:
            self.folded[one.name] = False
            self.again()
            self.query_one(Table).select(JOB + wanted)

    def _note(self, view: Jobs) -> Row:
        """At the right end of line 3: how jobs are put together, and what the cells and the column of activity show."""
        if not view.roll.place:
            return ()
        active = cells.metric_of(view.seen.metric).label
        by = f"by {self.grouping}  " if self.grouping else ""
        if view.seen.metric not in view.snapshot.columns:
            return (Run(by.rstrip(), "accent"),)
        return (
            Run(by, "accent"),
            Run(f"{active}" if view.metric.label == active else f"GPUs: {view.metric.label}", "title"),
        )

    def _status(self, view: Jobs) -> Row:
        table, roll = self.query_one(Table), view.roll
        if not roll.place:
            return ()
        pieces = rows.load_pieces(roll.load, view.snapshot.at)
        if filtered := self.filter_runs(40):
            shown = Run(f"{self._shown} of {len(roll.place)} jobs", "accent")
            pieces = [Piece(0, (shown,)), Piece(0, tuple(filtered))]
        moved = f", as it was {self._ordered_when(view.snapshot)}" if self.sort.moves else ""
        pieces.append(Piece(2, (Run(f"by {self.sort.name} (s){moved}", "dim"),)))
        hidden = len(self._columns(view, 0)) - len(table.placed)
        if hidden:
            pieces.append(Piece(5, (Run(f"{hidden} columns need a wider terminal, c chooses", "dim"),)))
        return fitted(pieces, self.query_one("#status", Lines).room.width)

    def _columns(self, view: Jobs, width: int) -> tuple[Column, ...]:
        return rows.columns(view.seen.metric, width, self.choices.columns(NAME), rows.empty_columns(view))

    def _ordered_when(self, snapshot: Snapshot) -> str:
        if snapshot.live:
            return f"{age(snapshot.at - self._ordered_at)} ago"
        return time.strftime("at %H:%M:%S", time.localtime(self._ordered_at))


def show_on_racks(screen: Screen[None], job: Job) -> None:
    """Go to the map, where only the GPUs of a job keep their colours."""
    from coldaisle.tui.app import ColdaisleApp
    from coldaisle.tui.screens.racks import RacksScreen

    app = screen.app
    assert isinstance(app, ColdaisleApp)
    if not job.gpus:
        app.say("it waits: it holds no GPU yet" if job.is_waiting else "no source says which GPUs it holds")
        return
    app.action_go("Racks")
    if isinstance(app.screen, RacksScreen):
        app.screen.light(job.id)


def open_job(screen: Screen[None], snapshot: Snapshot, gpu: int) -> None:
    """The job that holds a GPU; where there is none, that is said."""
    from coldaisle.tui.app import ColdaisleApp
    from coldaisle.tui.reading import job_index
    from coldaisle.tui.screens.job import JobScreen

    app = screen.app
    assert isinstance(app, ColdaisleApp)
    if (number := job_index(snapshot, gpu)) >= 0:
        app.push_screen(JobScreen(snapshot.jobs[number].id))
    elif not snapshot.jobs_known:
        app.say("no source says whose GPUs these are (3 Jobs tells how)")
    elif len(snapshot.gpu_unnamed) and snapshot.gpu_unnamed[gpu]:
        app.say("pods hold GPUs here, it is not known which")
    else:
        app.say("no job holds this GPU")
