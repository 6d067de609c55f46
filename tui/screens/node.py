"""The Node screen: a node's GPUs over time, its host, links, processes, events and facts."""

from __future__ import annotations

import asyncio
import logging
import math
from concurrent.futures import Future
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Protocol, cast

from textual.app import ComposeResult
from textual.binding import Binding, BindingType

from coldaisle.sources.text import plain
from coldaisle.tui.reading import read
from coldaisle.tui.screens import gpu_panes
from coldaisle.tui.screens import node_panes as panes
from coldaisle.tui.screens.live import LiveScreen
from coldaisle.tui.widgets.chart import span_name
from coldaisle.tui.widgets.lines import Lines, Row, Run, cut

if TYPE_CHECKING:
    from coldaisle.analyzers.snapshot import SeriesAnswer, SeriesQuery, Snapshot

log = logging.getLogger(__name__)

SPANS = (300.0, 900.0, 3600.0)
"""Ranges that the charts can cover: what the history keeps."""
PANES = ("GPUs", "Values", "Host", "Links", "Processes", "Events", "Facts")
PANES_OF = {"metric": (0,), "digits": (0,), "values": (0,), "span": (0, 2, 3)}
"""Where an action that is not for every pane does something."""
BINS = (1, 2, 3, 4, 5, 6, 10, 12, 15, 20, 30, 60, 120, 180, 300, 600)
FULL_S = 900.0
"""Older than this the history holds one-minute means."""
ANSWER_LIMIT_S = 10.0


class Feed(Protocol):
    """What this screen asks of the app's feed."""

    def query(self, q: SeriesQuery) -> Future[SeriesAnswer]:
        """A series over time, answered off the screen's thread."""
        ...


@dataclass(frozen=True, slots=True)
class Bins:
    """Equal bins that end now, on round instants: what was drawn once does not change when time goes on."""

    start: float
    end: float
    points: int


def bins(now: float, span: float, columns: int, period: float) -> Bins:
    """The finest bins that fill ``columns``, hold a sample each and are not finer than the history."""
    least = max(span / max(1, columns), 1.5 * period, 60.0 if span > FULL_S else 0.0)
    width = next((float(size) for size in BINS if size >= least), math.ceil(least / 600.0) * 600.0)
    # a bin that has just begun holds no sample yet: it would blink as a gap
    end = math.ceil((now - 1.5 * period) / width) * width
    points = max(1, math.ceil(span / width))
    return Bins(end - points * width, end, points)


class NodeScreen(LiveScreen):
    """One node, opened with a GPU of it chosen."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("tab", "pane(1)", "Next pane"),
        Binding("shift+tab", "pane(-1)", "Previous pane", show=False),
        Binding("m", "metric(1)", "Metric"),
        Binding("M", "metric(-1)", "Previous metric", show=False),
        Binding("minus", "span(-1)", "Shorter", key_display="-"),
        Binding("plus,equals_sign", "span(1)", "Longer", key_display="+"),
        Binding("v", "digits", "Charts/digits"),
        Binding("enter", "values", "Values of the GPU"),
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
        self._answer: SeriesAnswer | None = None
        self._asking = False
        self._stale_question = False
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
            title.show([(Run(f"{plain(self.node)} is not known any more", "warn"),), self._tabs(snapshot)])
            pane.show([])
            return
        title.show([panes.title(snapshot, index, title.room.width), self._tabs(snapshot)])
        if not self._is_drawn_by_answer:
            self._fill(snapshot, index)
        self._ask()

    def show(self, snapshot: Snapshot) -> None:
        """A new snapshot; a pane of charts is drawn once, with the series that are asked for now."""
        self._is_drawn_by_answer = bool(self._answer and not self._asking and self.question(snapshot))
        super().show(snapshot)
        self._is_drawn_by_answer = False

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
        span = bins(snapshot.at, self.span, self._columns(), self._period(snapshot, keys[0], index))
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
            return tuple(m.key for m in panes.LINK_METRICS), tuple(
                layout.ports[port].key for port in node.ports
            )
        return (), ()

    def _period(self, snapshot: Snapshot, key: str, index: int) -> float:
        """Seconds between samples of a metric, from its current source; 0: not known."""
        column = snapshot.column(key)
        if column is None or not len(column.source):
            return 0.0
        periods = {int(source) for source in column.source if source < len(snapshot.sources)}
        found = [snapshot.sources[source] for source in periods]
        return max((source.period or source.interval for source in found), default=0.0)

    def _block(self, snapshot: Snapshot, index: int) -> gpu_panes.Block:
        room = self.query_one("#pane", Lines).room
        view = gpu_panes.View(max(20, room.width), max(1, room.height), self.ink, self.span)
        answer = self._answer
        if self.pane == 0:
            metric = gpu_panes.gpu_metrics(snapshot)[self._metric_at(snapshot)]
            return gpu_panes.gpu_pane(snapshot, index, answer, metric, view, self.gpu, strips=self.digits)
        if self.pane == 1:
            gpus = snapshot.layout.nodes[index].gpus
            rows = gpu_panes.values_pane(snapshot, gpus[min(self.gpu, len(gpus) - 1)], view) if gpus else []
            return gpu_panes.Block(rows)
        if self.pane == 2:
            return gpu_panes.Block(panes.host_pane(snapshot, index, answer, view))
        if self.pane == 3:
            return gpu_panes.Block(panes.links_pane(snapshot, index, answer, view))
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

    def _ask(self) -> None:
        """Ask for the series in sight; while an answer is awaited, only remember that it must be asked again."""
        if self._asking:
            self._stale_question = True
            return
        self._asking = True
        self.run_worker(self._fetch(), group="series", exit_on_error=False)

    async def _fetch(self) -> None:
        try:
            while self.is_current and self.snapshot is not None:
                self._stale_question = False
                query = self.question(self.snapshot)
                if query is not None:
                    self._take(await self._answered(query))
                if not self._stale_question:
                    return
        finally:
            self._asking = False

    async def _answered(self, query: SeriesQuery) -> SeriesAnswer | None:
        feed = cast(Feed, getattr(self.app, "feed"))  # noqa: B009
        try:
            return await asyncio.wait_for(asyncio.wrap_future(feed.query(query)), ANSWER_LIMIT_S)
        except Exception:  # supervision: a chart that cannot be had must not end the screen
            log.exception("no series for %s", query.keys)
            return None

    def _take(self, answer: SeriesAnswer | None) -> None:
        """Draw an answer, if it is still what is asked for; without one, what is known."""
        if self.snapshot is None or not self.is_mounted:
            return
        if answer is not None:
            now = self.question(self.snapshot)
            if now is None or (now.keys, now.entities) != (answer.query.keys, answer.query.entities):
                self._stale_question = True
                return
            self._answer = answer
        index = self._index(self.snapshot)
        if index is not None:
            self.query_one("#pane", Lines).show(self._block(self.snapshot, index).rows)
