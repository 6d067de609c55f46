"""The Node screen: a node's GPUs over time, its host, links, processes, events and facts."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType

from coldaisle.sources.text import plain
from coldaisle.tui.reading import read
from coldaisle.tui.screens import gpu_panes, link_panes
from coldaisle.tui.screens import node_panes as panes
from coldaisle.tui.screens.series import SPANS, SeriesScreen, bins, period_of
from coldaisle.tui.widgets.chart import span_name
from coldaisle.tui.widgets.lines import Lines, Row, Run, cut

if TYPE_CHECKING:
    from coldaisle.analyzers.snapshot import SeriesQuery, Snapshot

PANES = ("GPUs", "Values", "Host", "Links", "Processes", "Events", "Facts")
PANES_OF = {"metric": (0,), "digits": (0,), "values": (0,), "gpu_job": (1,), "job": (0, 1), "span": (0, 2, 3)}
"""Where an action that is not for every pane does something."""


class NodeScreen(SeriesScreen):
    """One node, opened with a GPU of it chosen."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("tab", "pane(1)", "Next pane"),
        Binding("shift+tab", "pane(-1)", "Previous pane", show=False),
        Binding("m", "metric(1)", "Metric"),
        Binding("M", "metric(-1)", "Previous metric", show=False),
        Binding("J", "job", "Job"),
        Binding("minus", "span(-1)", "Shorter", key_display="-"),
        Binding("plus,equals_sign", "span(1)", "Longer", key_display="+"),
        Binding("v", "digits", "Charts/digits"),
        Binding("enter", "values", "Values of the GPU"),
        Binding("enter", "gpu_job", "Its job"),
        Binding("up,k", "step(-1)", "Up", show=False),
        Binding("down,j", "step(1)", "Down", show=False),
        Binding("left,h", "node(-1)", "Previous node", show=False),
        Binding("right,l", "node(1)", "Next node", show=False),
        Binding("pageup", "page(-1)", "Page up", show=False),
        Binding("pagedown", "page(1)", "Page down", show=False),
        Binding("home", "edge(0)", "First", show=False),
        Binding("end", "edge(1)", "Last", show=False),
        Binding("escape", "back", "Back"),
    ]
    TAB = "Nodes"

    def __init__(self, node: str, gpu: int = 0) -> None:
        """``node`` is a node's key, ``gpu`` the place of the chosen one among its GPUs and MIG instances."""
        super().__init__()
        self.node = node
        self.gpu = gpu
        self.pane = 0
        self.span = SPANS[1]
        self.metric: int | None = None
        """Place in gpu_panes.gpu_metrics; None: the first that has a value."""
        self.digits = False
        self._is_drawn_by_answer = False

    def body(self) -> ComposeResult:
        title = Lines(id="title")
        title.styles.height = 2
        yield title
        yield Lines(id="pane")

    def redraw(self, snapshot: Snapshot) -> None:
        """Fill title and pane, and ask for the pane's series."""
        index = self._index(snapshot)
        title, pane = self.query_one("#title", Lines), self.query_one("#pane", Lines)
        if index is None:
            when = "any more" if snapshot.live else "at that instant"
            title.show([(Run(f"{plain(self.node)} is not known {when}", "warn"),), self._tabs(snapshot)])
            pane.show([])
            return
        title.show([panes.title(snapshot, index, title.room.width), self._tabs(snapshot)])
        if not self._is_drawn_by_answer:
            self._fill(snapshot, index)
        self.ask()

    def show(self, snapshot: Snapshot) -> None:
        """A new snapshot; a pane of charts is drawn once, with the series that are asked for now."""
        before = self.snapshot
        if before is not None and (before.live != snapshot.live or abs(before.at - snapshot.at) > self.span):
            self._answer = None  # it is of another time
        self._is_drawn_by_answer = bool(self._answer and not self._asking and self.question(snapshot))
        super().show(snapshot)
        self._is_drawn_by_answer = False

    def answered(self, snapshot: Snapshot) -> None:
        """Draw the pane with its series; the cursor's rows stay where they are."""
        index = self._index(snapshot)
        if index is not None:
            self.query_one("#pane", Lines).show(self._block(snapshot, index).rows)

    def _fill(self, snapshot: Snapshot, index: int) -> None:
        pane, block = self.query_one("#pane", Lines), self._block(snapshot, index)
        pane.show(block.rows)
        if block.cursor:
            pane.reveal(block.cursor.stop - 1)
            pane.reveal(block.cursor.start)

    def action_pane(self, by: int) -> None:
        """Show the next or the previous pane."""
        self.pane = (self.pane + by) % len(PANES)
        self._answer = None
        self.query_one("#pane", Lines).scroll_to(y=0, animate=False, force=True)
        self.refresh_bindings()
        self.again()

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool:
        """Whether a key does anything on the pane in sight: those that do not are not offered."""
        return self.pane in PANES_OF.get(action, range(len(PANES)))

    def action_metric(self, by: int) -> None:
        """Show another metric in the GPU charts."""
        if self.snapshot is not None:
            self.metric = (self._metric_at(self.snapshot) + by) % len(gpu_panes.gpu_metrics(self.snapshot))
            self.again()

    def action_span(self, by: int) -> None:
        """Let the charts cover a longer or a shorter time."""
        self.span = SPANS[min(max(SPANS.index(self.span) + by, 0), len(SPANS) - 1)]
        self.again()

    def action_digits(self) -> None:
        """Switch between charts and GPU × time digits."""
        self.digits = not self.digits
        self.again()

    def action_values(self) -> None:
        """Every value of the chosen GPU."""
        if self.pane == 0:
            self.action_pane(1)

    def action_gpu_job(self) -> None:
        """The job of the chosen GPU: from Racks the third Enter."""
        self.action_job()

    def action_job(self) -> None:
        """The job that holds the chosen GPU."""
        from coldaisle.tui.screens.jobs import open_job

        if self.snapshot is None or (index := self._index(self.snapshot)) is None:
            return
        if gpus := self.snapshot.layout.nodes[index].gpus:
            open_job(self, self.snapshot, gpus[min(self.gpu, len(gpus) - 1)])

    def under_cursor(self) -> str:
        """The chosen GPU where the pane has one, else the node."""
        if self.snapshot is None or (index := self._index(self.snapshot)) is None:
            return self.node
        gpus = self.snapshot.layout.nodes[index].gpus
        if self.pane > 1 or not gpus:
            return self.node
        return self.snapshot.layout.gpus[gpus[min(self.gpu, len(gpus) - 1)]].key

    def action_step(self, by: int) -> None:
        """Choose another GPU, or scroll."""
        if self.pane < 2:
            self.gpu = min(max(self.gpu + by, 0), max(0, self._gpu_count() - 1))
            self.again()
        else:
            self.query_one("#pane", Lines).scroll_relative(y=by, animate=False, force=True)

    def action_page(self, by: int) -> None:
        """Scroll by a screenful."""
        pane = self.query_one("#pane", Lines)
        pane.scroll_relative(y=by * max(1, pane.room.height - 1), animate=False, force=True)

    def action_edge(self, last: int) -> None:
        """Scroll to the beginning or the end."""
        pane = self.query_one("#pane", Lines)
        pane.scroll_to(y=len(pane.rows) if last else 0, animate=False, force=True)

    def action_node(self, by: int) -> None:
        """Go to the neighbour in reading order; what was asked for this node is dropped."""
        if self.snapshot is None or (index := self._index(self.snapshot)) is None:
            return
        nodes = self.snapshot.layout.nodes
        self.node = nodes[(index + by) % len(nodes)].key
        self._answer = None
        self.again()

    def question(self, snapshot: Snapshot) -> SeriesQuery | None:
        """What the pane in sight wants to know over time."""
        from coldaisle.analyzers.snapshot import SeriesQuery

        index = self._index(snapshot)
        if index is None:
            return None
        keys, entities = self._wanted(snapshot, index)
        if not keys or not entities:
            return None
        span = bins(snapshot.at, self.span, self._columns(), period_of(snapshot, keys[0]))
        return SeriesQuery(keys, entities, span.start, span.end, span.points)

    def _columns(self) -> int:
        """About how many columns a chart of the pane in sight has."""
        width = self.query_one("#pane", Lines).room.width
        chart = gpu_panes.chart_width(width) - (20 if width < 2 * gpu_panes.LEAST_CHART + 2 else 8)
        return max(10, (chart, width, width - 46, width // 2)[min(self.pane, 3)])

    def _wanted(self, snapshot: Snapshot, index: int) -> tuple[tuple[str, ...], tuple[str, ...]]:
        layout, node = snapshot.layout, snapshot.layout.nodes[index]
        if self.pane == 0:
            key = gpu_panes.gpu_metrics(snapshot)[self._metric_at(snapshot)].key
            return (key,), tuple(layout.gpus[gpu].key for gpu in node.gpus)
        if self.pane == 2:
            return tuple(m.key for m in panes.host_metrics() if m.key in snapshot.columns), (node.key,)
        if self.pane == 3:
            return tuple(m.key for m in link_panes.LINK_METRICS), tuple(
                layout.ports[port].key for port in node.ports
            )
        return (), ()

    def _block(self, snapshot: Snapshot, index: int) -> gpu_panes.Block:
        room = self.query_one("#pane", Lines).room
        view = gpu_panes.View(max(20, room.width), max(1, room.height), self.ink, self.span)
        answer = self._answer
        if self.pane == 0:
            metric = gpu_panes.gpu_metrics(snapshot)[self._metric_at(snapshot)]
            return gpu_panes.gpu_pane(snapshot, index, answer, metric, view, self.gpu, strips=self.digits)
        if self.pane == 1:
            gpus = snapshot.layout.nodes[index].gpus
            if not gpus:
                return gpu_panes.Block(gpu_panes.no_gpus(snapshot, index, view.width))
            return gpu_panes.Block(gpu_panes.values_pane(snapshot, gpus[min(self.gpu, len(gpus) - 1)], view))
        if self.pane == 2:
            return gpu_panes.Block(panes.host_pane(snapshot, index, answer, view))
        if self.pane == 3:
            return gpu_panes.Block(link_panes.links_pane(snapshot, index, answer, view))
        plain_panes = (panes.process_pane, panes.event_pane, panes.fact_pane)
        return gpu_panes.Block(plain_panes[self.pane - 4](snapshot, index, view))

    def _tabs(self, snapshot: Snapshot) -> Row:
        runs: list[Run] = []
        for at, name in enumerate(PANES):
            runs.append(Run(name, "title" if at == self.pane else "dim"))
            runs.append(Run(" "))
        if self.pane == 0:
            runs.append(
                Run(f" {gpu_panes.gpu_metrics(snapshot)[self._metric_at(snapshot)].name} (m)", "accent")
            )
        if self.pane in (0, 2, 3):
            runs.append(Run(f" {span_name(self.span)} (+/-)", "accent"))
        return cut(tuple(runs), self.query_one("#title", Lines).room.width)

    def _metric_at(self, snapshot: Snapshot) -> int:
        """The chosen metric, else the first that anybody delivers for this node."""
        if self.metric is not None:
            return self.metric
        index = self._index(snapshot)
        gpus = snapshot.layout.nodes[index].gpus if index is not None else range(0)
        for at in (0, 2, 11):  # SM active, power, utilisation
            if any(not read(snapshot, gpu_panes.GPU_METRICS[at].key, gpu).missing for gpu in gpus):
                return at
        return 0

    def _index(self, snapshot: Snapshot) -> int | None:
        """Where the node is now; a late join may have given it another name."""
        found = snapshot.layout.node_of.get(self.node)
        if found is not None:
            return found
        for index, node in enumerate(snapshot.layout.nodes):
            if self.node in node.aliases:
                self.node = node.key
                return index
        return None

    def _gpu_count(self) -> int:
        if self.snapshot is None or (index := self._index(self.snapshot)) is None:
            return 0
        return len(self.snapshot.layout.nodes[index].gpus)
