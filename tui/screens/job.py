"""The Job screen: a job's GPUs, hosts and links over time, what its scheduler knows, and what happened to it."""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, ClassVar

from textual.binding import Binding, BindingType

from coldaisle.tui import cells
from coldaisle.tui.reading import who_was
from coldaisle.tui.screens import job_panes as panes
from coldaisle.tui.screens.gpu_panes import Block, Metric
from coldaisle.tui.screens.job_panes import EVENTS, FACTS, GPUS, OF_RUNNING, OF_WAITING, STRIPS
from coldaisle.tui.screens.job_rows import Jobs, Watch, jobs_seen
from coldaisle.tui.screens.node_panes import event_row
from coldaisle.tui.screens.paned import PanedScreen
from coldaisle.tui.screens.series import bins, period_of
from coldaisle.tui.widgets.lines import Lines, Run, cut

if TYPE_CHECKING:
    from coldaisle.analyzers.snapshot import SeriesQuery, Snapshot
    from coldaisle.sources.cluster import Job


class JobScreen(PanedScreen):
    """A job by its id, while it runs or waits."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("enter", "open", "Its node"),
        Binding("left,h", "next(-1)", "Previous job", show=False),
        Binding("right,l", "next(1)", "Next job", show=False),
        Binding("escape", "back", "Back"),
    ]
    TAB = "Jobs"
    PANES_OF = MappingProxyType({"metric": STRIPS, "span": STRIPS, "open": STRIPS})

    def __init__(self, job: str) -> None:
        """``job`` is its id: ``slurm:4711``."""
        super().__init__()
        self.job = job
        self._metrics: dict[str, str] = {}
        """The key of the metric that was chosen, by pane."""
        self._watch = Watch()
        self._view_of: Jobs | None = None
        """Of the last snapshot."""
        self._is_drawn_by_answer = False

    def under_cursor(self) -> str:
        """The job: its events are those of its nodes and GPUs, too."""
        return self.job

    def redraw(self, snapshot: Snapshot) -> None:
        """Fill title and pane, and ask for the pane's series."""
        title, pane = self.query_one("#title", Lines), self.query_one("#pane", Lines)
        view, job, number = self._seen(snapshot)
        if job is None:
            when = (
                "neither runs nor waits any more" if snapshot.live else "did not run or wait at that instant"
            )
            title.show([(Run(f"{who_was(snapshot, self.job)} {when}", "warn"),), (), ()])
            gone = [event for event in snapshot.events if event.entity == self.job]
            room = pane.room.width
            pane.show([cut(event_row(event, snapshot.at), room) for event in reversed(gone)])
            return
        width = title.room.width
        title.show(
            [
                panes.title(view, job, number, width),
                panes.use_line(view, job, number, width),
                self.tabs(),
            ]
        )
        if not self._is_drawn_by_answer:
            self.fill(self._block(view, job, number))
        self.ask()

    def show(self, snapshot: Snapshot) -> None:
        """A new snapshot; strips are drawn once, with the series that are asked for now."""
        before = self.snapshot
        if before is not None and (before.live != snapshot.live or abs(before.at - snapshot.at) > self.span):
            self._answer = None  # it is of another time
        self.snapshot = snapshot
        self._is_drawn_by_answer = bool(self._answer and not self._asking and self.question(snapshot))
        super().show(snapshot)
        self._is_drawn_by_answer = False

    def question(self, snapshot: Snapshot) -> SeriesQuery | None:
        """What the strips in sight want to know over time."""
        from coldaisle.analyzers.snapshot import SeriesQuery

        _, job, _ = self._seen(snapshot)
        pane = self.pane_here
        if job is None or pane not in STRIPS:
            return None
        found, room = panes.lines_of(snapshot, job, pane), self.query_one("#pane", Lines).room
        shown = panes.in_sight(len(found), self.place(len(found)), room.height - 2)
        metric = self._metric(snapshot, pane)
        if not shown:
            return None
        columns = panes.strip_columns(pane, room.width)
        span = bins(snapshot.at, self.span, columns, period_of(snapshot, metric.key))
        return SeriesQuery(
            (metric.key,),
            panes.series_keys(snapshot, metric, [found[at] for at in shown]),
            span.start,
            span.end,
            span.points,
        )

    def answered(self, snapshot: Snapshot) -> None:
        """Draw the strips."""
        view, job, number = self._seen(snapshot)
        if job is not None:
            self.fill(self._block(view, job, number))

    @property
    def panes(self) -> tuple[str, ...]:
        """Of one that waits there is less to show."""
        job = None if self.snapshot is None else self._seen(self.snapshot)[1]
        return OF_WAITING if job is not None and job.is_waiting else OF_RUNNING

    def metric_name(self) -> str:
        """Of the strips."""
        return "" if self.snapshot is None else self._metric(self.snapshot, self.pane_here).name

    def length(self) -> int:
        """GPUs, nodes or ports."""
        pane = self.pane_here
        if self.snapshot is None or pane not in STRIPS:
            return 0
        job = self._seen(self.snapshot)[1]
        return 0 if job is None else len(panes.lines_of(self.snapshot, job, pane))

    def action_metric(self, by: int) -> None:
        """Show another metric over time."""
        pane = self.pane_here
        if self.snapshot is None or pane not in STRIPS:
            return
        known = panes.metrics_of(self.snapshot, pane)
        at = known.index(self._metric(self.snapshot, pane))
        self._metrics[pane] = known[(at + by) % len(known)].key
        self._answer = None
        self.again()

    def action_open(self) -> None:
        """The node of the chosen GPU, host or port."""
        from coldaisle.tui.screens.node import NodeScreen

        if self.snapshot is None:
            return
        _, job, _ = self._seen(self.snapshot)
        pane, layout = self.pane_here, self.snapshot.layout
        if job is None or pane not in STRIPS or not (found := panes.lines_of(self.snapshot, job, pane)):
            return
        line = found[self.place(len(found))]
        node = layout.nodes[panes.node_of(self.snapshot, pane, line)]
        self.app.push_screen(NodeScreen(node.key, line.place - node.gpus.start if pane == GPUS else 0))

    def action_racks(self) -> None:
        """Light up the job on the map."""
        from coldaisle.tui.screens.jobs import show_on_racks

        job = self._seen(self.snapshot)[1] if self.snapshot is not None else None
        if job is not None:
            show_on_racks(self, job)

    def action_next(self, by: int) -> None:
        """The next job in the order of their starts, those that wait behind them."""
        if self.snapshot is None:
            return
        roll = self._watch.roll(self.snapshot)
        at, length = roll.place.get(self.job), len(roll.jobs) + len(roll.waiting)
        if at is not None:
            self.job = roll.at((at + by) % length).id
            self.cursor, self._answer = 0, None
            self.refresh_bindings()
            self.again()

    def _seen(self, snapshot: Snapshot) -> tuple[Jobs, Job | None, int]:
        """The jobs of a snapshot, this one (None: it is not there), and its number among those that run; -1: it waits."""
        metric: cells.CellMetric | None = getattr(self.app, "metric", None)
        if self._view_of is None or self._view_of.snapshot is not snapshot:
            roll = self._watch.roll(snapshot)
            self._view_of = jobs_seen(snapshot, roll, metric or cells.default_metric(snapshot))
        roll = self._view_of.roll
        at = roll.place.get(self.job, -1)
        job = roll.at(at) if at >= 0 else None
        return self._view_of, job, at if at < len(roll.jobs) else -1

    def _metric(self, snapshot: Snapshot, pane: str) -> Metric:
        """The chosen one of a pane, else the first that is there."""
        known = panes.metrics_of(snapshot, pane)
        return next((metric for metric in known if metric.key == self._metrics.get(pane)), known[0])

    def _block(self, view: Jobs, job: Job, number: int) -> Block:
        sight, snapshot, pane = self.sight(), view.snapshot, self.pane_here
        if pane == FACTS:
            return Block(panes.fact_pane(view, job, number, sight))
        if pane == EVENTS:
            return Block(panes.event_pane(snapshot, job, sight))
        place = self.place(len(panes.lines_of(snapshot, job, pane)))
        return panes.strip_pane(view, job, pane, self._metric(snapshot, pane), self._answer, sight, place)
