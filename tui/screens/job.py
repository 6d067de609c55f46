"""The Job screen: a job's GPUs, hosts and links over time, what its scheduler knows, and what happened to it."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType

from coldaisle.tui import cells
from coldaisle.tui.reading import who_was
from coldaisle.tui.screens import job_panes as panes
from coldaisle.tui.screens.gpu_panes import Block, Metric, View
from coldaisle.tui.screens.job_panes import EVENTS, FACTS, GPUS, HOSTS, LINKS, OF_RUNNING, OF_WAITING, STRIPS
from coldaisle.tui.screens.job_rows import Jobs, Watch, jobs_seen
from coldaisle.tui.screens.node_panes import event_row
from coldaisle.tui.screens.series import SPANS, SeriesScreen, bins, period_of
from coldaisle.tui.widgets.chart import span_name
from coldaisle.tui.widgets.lines import Lines, Row, Run, cut

if TYPE_CHECKING:
    from coldaisle.analyzers.snapshot import SeriesQuery, Snapshot
    from coldaisle.sources.cluster import Job

PANES_OF = {"metric": STRIPS, "span": STRIPS, "open": STRIPS}
"""Where an action that is not for every pane does something."""


class JobScreen(SeriesScreen):
    """A job by its id, while it runs or waits."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("tab", "pane(1)", "Next pane"),
        Binding("shift+tab", "pane(-1)", "Previous pane", show=False),
        Binding("enter", "open", "Its node"),
        Binding("m", "metric(1)", "Metric"),
        Binding("M", "metric(-1)", "Previous metric", show=False),
        Binding("minus", "span(-1)", "Shorter", key_display="-"),
        Binding("plus,equals_sign", "span(1)", "Longer", key_display="+"),
        Binding("r", "racks", "On Racks"),
        Binding("up,k", "step(-1)", "Up", show=False),
        Binding("down,j", "step(1)", "Down", show=False),
        Binding("left,h", "next(-1)", "Previous job", show=False),
        Binding("right,l", "next(1)", "Next job", show=False),
        Binding("pageup", "page(-1)", "Page up", show=False),
        Binding("pagedown", "page(1)", "Page down", show=False),
        Binding("home", "edge(0)", "First", show=False),
        Binding("end", "edge(1)", "Last", show=False),
        Binding("escape", "back", "Back"),
    ]
    TAB = "Jobs"
    DEFAULT_CSS = "JobScreen #title { height: 3; }"

    def __init__(self, job: str) -> None:
        """``job`` is its id: ``slurm:4711``."""
        super().__init__()
        self.job = job
        self.pane = ""
        """The one that is shown; empty: the first."""
        self.span = SPANS[1]
        self.cursor = 0
        """Place of the chosen GPU, node or port."""
        self._metrics: dict[str, str] = {}
        """The key of the metric that was chosen, by pane."""
        self._watch = Watch()
        self._view_of: Jobs | None = None
        """Of the last snapshot."""
        self._is_drawn_by_answer = False

    def body(self) -> ComposeResult:
        yield Lines(id="title")
        yield Lines(id="pane")

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
                self._tabs(snapshot, job),
            ]
        )
        if not self._is_drawn_by_answer:
            self._fill(view, job, number)
        self.ask()

    def show(self, snapshot: Snapshot) -> None:
        """A new snapshot; strips are drawn once, with the series that are asked for now."""
        before = self.snapshot
        if before is not None and (before.live != snapshot.live or abs(before.at - snapshot.at) > self.span):
            self._answer = None  # it is of another time
        self._is_drawn_by_answer = bool(self._answer and not self._asking and self.question(snapshot))
        super().show(snapshot)
        self._is_drawn_by_answer = False

    def question(self, snapshot: Snapshot) -> SeriesQuery | None:
        """What the strips in sight want to know over time."""
        from coldaisle.analyzers.snapshot import SeriesQuery

        _, job, _ = self._seen(snapshot)
        pane = self._pane(job)
        if job is None or pane not in STRIPS:
            return None
        found, room = panes.lines_of(snapshot, job, pane), self.query_one("#pane", Lines).room
        shown = panes.in_sight(len(found), self._place(len(found)), room.height - 2)
        metric = self._metric(snapshot, pane)
        if not shown:
            return None
        columns = panes.strip_columns(pane, room.width)
        span = bins(snapshot.at, self.span, columns, period_of(snapshot, metric.key))
        return SeriesQuery(
            (metric.key,), tuple(found[at].key for at in shown), span.start, span.end, span.points
        )

    def answered(self, snapshot: Snapshot) -> None:
        """Draw the strips."""
        view, job, number = self._seen(snapshot)
        if job is not None:
            self._fill(view, job, number)

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool:
        """Whether a key does anything on the pane in sight: those that do not are not offered."""
        if action not in PANES_OF or self.snapshot is None:
            return True
        return self._pane(self._seen(self.snapshot)[1]) in PANES_OF[action]

    def action_pane(self, by: int) -> None:
        """Show the next or the previous pane."""
        if self.snapshot is None:
            return
        job = self._seen(self.snapshot)[1]
        known = self._panes(job)
        self.pane = known[(known.index(self._pane(job)) + by) % len(known)]
        self.cursor, self._answer = 0, None
        self.query_one("#pane", Lines).scroll_to(y=0, animate=False, force=True)
        self.refresh_bindings()
        self.again()

    def action_metric(self, by: int) -> None:
        """Show another metric over time."""
        if self.snapshot is None or (pane := self._pane(self._seen(self.snapshot)[1])) not in STRIPS:
            return
        known = panes.metrics_of(self.snapshot, pane)
        at = known.index(self._metric(self.snapshot, pane))
        self._metrics[pane] = known[(at + by) % len(known)].key
        self._answer = None
        self.again()

    def action_span(self, by: int) -> None:
        """Let the strips cover a longer or a shorter time."""
        self.span = SPANS[min(max(SPANS.index(self.span) + by, 0), len(SPANS) - 1)]
        self._answer = None
        self.again()

    def action_open(self) -> None:
        """The node of the chosen GPU, host or port."""
        from coldaisle.tui.screens.node import NodeScreen

        if self.snapshot is None:
            return
        _, job, _ = self._seen(self.snapshot)
        pane, layout = self._pane(job), self.snapshot.layout
        if job is None or pane not in STRIPS or not (found := panes.lines_of(self.snapshot, job, pane)):
            return
        index = found[self._place(len(found))].place
        at = {
            GPUS: lambda: layout.gpus[index].node,
            HOSTS: lambda: index,
            LINKS: lambda: layout.ports[index].node,
        }[pane]()
        node = layout.nodes[at]
        self.app.push_screen(NodeScreen(node.key, index - node.gpus.start if pane == GPUS else 0))

    def action_racks(self) -> None:
        """Light up the job on the map."""
        from coldaisle.tui.screens.jobs import show_on_racks

        job = self._seen(self.snapshot)[1] if self.snapshot is not None else None
        if job is not None:
            show_on_racks(self, job)

    def action_step(self, by: int) -> None:
        """Choose another line, or scroll."""
        if self._length():
            self._go(self.cursor + by)
        else:
            self.query_one("#pane", Lines).scroll_relative(y=by, animate=False, force=True)

    def action_page(self, by: int) -> None:
        """Move by a screenful."""
        pane = self.query_one("#pane", Lines)
        lines = max(1, pane.room.height - 3)
        if self._length():
            self._go(self.cursor + by * lines)
        else:
            pane.scroll_relative(y=by * lines, animate=False, force=True)

    def action_edge(self, last: int) -> None:
        """To the beginning or the end."""
        pane = self.query_one("#pane", Lines)
        if length := self._length():
            self._go(length - 1 if last else 0)
        else:
            pane.scroll_to(y=len(pane.rows) if last else 0, animate=False, force=True)

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

    def _panes(self, job: Job | None) -> tuple[str, ...]:
        return OF_WAITING if job is not None and job.is_waiting else OF_RUNNING

    def _pane(self, job: Job | None) -> str:
        known = self._panes(job)
        return self.pane if self.pane in known else known[0]

    def _metric(self, snapshot: Snapshot, pane: str) -> Metric:
        """The chosen one of a pane, else the first that is there."""
        known = panes.metrics_of(snapshot, pane)
        return next((metric for metric in known if metric.key == self._metrics.get(pane)), known[0])

    def _fill(self, view: Jobs, job: Job, number: int) -> None:
        pane, block = self.query_one("#pane", Lines), self._block(view, job, number)
        pane.show(block.rows, block.cursor.start if block.cursor else None)

    def _block(self, view: Jobs, job: Job, number: int) -> Block:
        room, snapshot = self.query_one("#pane", Lines).room, view.snapshot
        sight = View(max(20, room.width), max(1, room.height), self.ink, self.span)
        pane = self._pane(job)
        if pane == FACTS:
            return Block(panes.fact_pane(view, job, number, sight))
        if pane == EVENTS:
            return Block(panes.event_pane(snapshot, job, sight))
        place = self._place(len(panes.lines_of(snapshot, job, pane)))
        return panes.strip_pane(view, job, pane, self._metric(snapshot, pane), self._answer, sight, place)

    def _tabs(self, snapshot: Snapshot, job: Job) -> Row:
        pane, runs = self._pane(job), list[Run]()
        for name in self._panes(job):
            runs += [Run(name, "title" if name == pane else "dim"), Run(" ")]
        if pane in STRIPS:
            runs.append(Run(f" {self._metric(snapshot, pane).name} (m)", "accent"))
            runs.append(Run(f" {span_name(self.span)} (+/-)", "accent"))
        return cut(tuple(runs), self.query_one("#title", Lines).room.width)

    def _place(self, length: int) -> int:
        """The cursor, on something that is there."""
        return min(self.cursor, max(0, length - 1))

    def _length(self) -> int:
        """Lines that the cursor can stand on."""
        if self.snapshot is None:
            return 0
        _, job, _ = self._seen(self.snapshot)
        pane = self._pane(job)
        return len(panes.lines_of(self.snapshot, job, pane)) if job is not None and pane in STRIPS else 0

    def _go(self, place: int) -> None:
        self.cursor = min(max(place, 0), max(0, self._length() - 1))
        self.again()
