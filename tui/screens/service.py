"""The Service screen: an inference service, or one replica of it, over time; its replicas, GPUs, values and facts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType

from coldaisle.sources.text import plain
from coldaisle.tui.screens import service_panes as panes
from coldaisle.tui.screens.gpu_panes import LEAST_CHART, Block, View
from coldaisle.tui.screens.series import SPANS, SeriesScreen, bins, period_of
from coldaisle.tui.screens.service_panes import REPLICA_METRICS, Subject
from coldaisle.tui.screens.serving import Groupings, open_node, show_on_racks
from coldaisle.tui.screens.serving_rows import Serving, serving
from coldaisle.tui.widgets.chart import span_name
from coldaisle.tui.widgets.lines import Lines, Row, Run, cut

if TYPE_CHECKING:
    from coldaisle.analyzers.serving import Excursion
    from coldaisle.analyzers.snapshot import SeriesAnswer, SeriesQuery, Snapshot

CHARTS, REPLICAS, GPUS, VALUES, FACTS = "Charts", "Replicas", "GPUs", "Values", "Facts"
OF_SERVICE = (CHARTS, REPLICAS, GPUS, VALUES, FACTS)
OF_REPLICA = (CHARTS, GPUS, VALUES, FACTS)
PANES_OF = {"metric": (REPLICAS,), "span": (CHARTS, REPLICAS), "open": (REPLICAS, GPUS)}
"""Where an action that is not for every pane does something."""
MANY = 64
"""Replicas from which the charts are asked for less often: each costs the monitor time."""
ASK_MANY_EVERY_S = 10.0


class ServiceScreen(SeriesScreen):
    """A service, or a replica, by its key; see analyzers.serving.Service and Layout.servers."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("tab", "pane(1)", "Next pane"),
        Binding("shift+tab", "pane(-1)", "Previous pane", show=False),
        Binding("enter", "open", "Open"),
        Binding("m", "metric(1)", "Metric"),
        Binding("M", "metric(-1)", "Previous metric", show=False),
        Binding("minus", "span(-1)", "Shorter", key_display="-"),
        Binding("plus,equals_sign", "span(1)", "Longer", key_display="+"),
        Binding("r", "racks", "On Racks"),
        Binding("n", "node", "Its node"),
        Binding("up,k", "step(-1)", "Up", show=False),
        Binding("down,j", "step(1)", "Down", show=False),
        Binding("left,h", "next(-1)", "Previous service or replica", show=False),
        Binding("right,l", "next(1)", "Next service or replica", show=False),
        Binding("pageup", "page(-1)", "Page up", show=False),
        Binding("pagedown", "page(1)", "Page down", show=False),
        Binding("home", "edge(0)", "First", show=False),
        Binding("end", "edge(1)", "Last", show=False),
        Binding("escape", "back", "Back"),
    ]
    TAB = "Serving"
    DEFAULT_CSS = "ServiceScreen #title { height: 3; }"

    def __init__(self, service: str, server: str = "") -> None:
        """``service`` is a service's key; with ``server``, a server's, the screen is about that replica."""
        super().__init__()
        self.service = service
        self.server = server
        self.pane = CHARTS
        self.span = SPANS[1]
        self.metric = REPLICA_METRICS[0]
        self.cursor = 0
        """Place of the chosen replica or GPU."""
        self._groupings = Groupings()
        self._kept: Mapping[str, Excursion] = {}
        self._asked_at: float | None = None

    def body(self) -> ComposeResult:
        yield Lines(id="title")
        yield Lines(id="pane")

    @property
    def panes(self) -> tuple[str, ...]:
        """What can be shown here."""
        return OF_REPLICA if self.server else OF_SERVICE

    def redraw(self, snapshot: Snapshot) -> None:
        """Fill title and pane, and ask for the pane's series."""
        view, subject = self._seen(snapshot)
        title, pane = self.query_one("#title", Lines), self.query_one("#pane", Lines)
        if subject is None:
            gone = "the replica is not known any more" if self.server else "the service is not known any more"
            title.show([(Run(plain(gone), "warn"),), (), self._tabs()])
            pane.show([])
            return
        self._draw_title(view, subject)
        self._fill(view, subject)
        if self._is_due(snapshot, len(subject.servers(view))):
            self._asked_at = snapshot.at
            self.ask()

    def question(self, snapshot: Snapshot) -> SeriesQuery | None:
        """What the pane in sight wants to know over time."""
        from coldaisle.analyzers.snapshot import SeriesQuery

        view, subject = self._seen(snapshot)
        if subject is None:
            return None
        room, servers = self.query_one("#pane", Lines).room, snapshot.layout.servers
        if self.pane == CHARTS:
            keys, wanted = panes.chart_keys(view), list(subject.servers(view))
        elif self.pane == REPLICAS:
            keys = (self.metric.key,)
            wanted = panes.replicas_in_sight(view, subject, self._place(view, subject), room.height)
        else:
            return None
        if not keys or not wanted:
            return None
        width = room.width // (2 if room.width >= 2 * LEAST_CHART + 2 and self.pane == CHARTS else 1)
        span = bins(snapshot.at, self.span, max(10, width - 20), period_of(snapshot, keys[0]))
        entities = tuple(servers[server].key for server in wanted)
        return SeriesQuery(keys, entities, span.start, span.end, span.points)

    def answered(self, snapshot: Snapshot) -> None:
        """Draw the pane with its series."""
        view, subject = self._seen(snapshot)
        if subject is None:
            return
        if self.pane == CHARTS and self._answer is not None:
            self._kept = panes.excursions(view, subject, self._answer)
            self._draw_title(view, subject)
        self._fill(view, subject)

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool:
        """Whether a key does anything on the pane in sight: those that do not are not offered."""
        return self.pane in PANES_OF.get(action, self.panes)

    def action_pane(self, by: int) -> None:
        """Show the next or the previous pane."""
        self.pane = self.panes[(self.panes.index(self.pane) + by) % len(self.panes)]
        self._forget_answer()
        self.query_one("#pane", Lines).scroll_to(y=0, animate=False, force=True)
        self.refresh_bindings()
        self.again()

    def action_open(self) -> None:
        """The replica, or the node of the GPU, under the cursor."""
        if self.snapshot is None:
            return
        view, subject = self._seen(self.snapshot)
        if subject is None:
            return
        at = self._place(view, subject)
        if self.pane == REPLICAS:
            server = subject.servers(view)[at]
            self.app.push_screen(ServiceScreen(self.service, self.snapshot.layout.servers[server].key))
        elif found := panes.gpus_of(view, subject):
            gpu, server = found[at]
            open_node(self, self.snapshot, server, gpu)

    def action_metric(self, by: int) -> None:
        """Show another metric of the replicas."""
        self.metric = REPLICA_METRICS[(REPLICA_METRICS.index(self.metric) + by) % len(REPLICA_METRICS)]
        self._forget_answer()
        self.again()

    def action_span(self, by: int) -> None:
        """Let the charts cover a longer or a shorter time."""
        self.span = SPANS[min(max(SPANS.index(self.span) + by, 0), len(SPANS) - 1)]
        self._kept = {}
        self._forget_answer()
        self.again()

    def under_cursor(self) -> str:
        """The chosen GPU or replica."""
        chosen = self._chosen()
        if chosen is None or self.snapshot is None:
            return ""
        server, gpu = chosen
        layout = self.snapshot.layout
        return layout.gpus[gpu].key if gpu is not None else layout.servers[server].key

    def action_racks(self) -> None:
        """The GPUs on the map."""
        chosen = self._chosen()
        if chosen is not None and self.snapshot is not None:
            show_on_racks(self, self.snapshot, *chosen)

    def action_node(self) -> None:
        """The node of the chosen replica or GPU."""
        chosen = self._chosen()
        if chosen is not None and self.snapshot is not None:
            open_node(self, self.snapshot, *chosen)

    def action_step(self, by: int) -> None:
        """Choose another replica or GPU, or scroll."""
        if self.pane in PANES_OF["open"]:
            self._go(self.cursor + by)
        else:
            self.query_one("#pane", Lines).scroll_relative(y=by, animate=False, force=True)

    def action_page(self, by: int) -> None:
        """Move by a screenful."""
        pane = self.query_one("#pane", Lines)
        lines = max(1, pane.room.height - 2)
        if self.pane in PANES_OF["open"]:
            self._go(self.cursor + by * lines)
        else:
            pane.scroll_relative(y=by * lines, animate=False, force=True)

    def action_edge(self, last: int) -> None:
        """To the beginning or the end."""
        pane = self.query_one("#pane", Lines)
        if self.pane in PANES_OF["open"]:
            self._go(self._length() - 1 if last else 0)
        else:
            pane.scroll_to(y=len(pane.rows) if last else 0, animate=False, force=True)

    def action_next(self, by: int) -> None:
        """The next service; of a replica the next one of its service."""
        if self.snapshot is None:
            return
        view, subject = self._seen(self.snapshot)
        if subject is None:
            return
        grouping = view.grouping
        if subject.server is not None:
            mates = grouping.services[subject.service].servers
            server = mates[(mates.index(subject.server) + by) % len(mates)]
            self.server = self.snapshot.layout.servers[server].key
        else:
            self.service = grouping.services[(subject.service + by) % len(grouping.services)].key
        self.cursor, self._kept = 0, {}
        self._forget_answer()
        self.again()

    def _seen(self, snapshot: Snapshot) -> tuple[Serving, Subject | None]:
        """The services of a snapshot, and the one that this screen is about; None: it is not there."""
        grouping = self._groupings.of(snapshot)
        view = serving(snapshot, grouping, getattr(self.app, "serving", None))
        if not self.server:
            number = grouping.by_key.get(self.service)
            return view, None if number is None else Subject(number)
        server = grouping.servers.get(self.server)
        return view, None if server is None else Subject(int(grouping.of_server[server]), server)

    def _is_due(self, snapshot: Snapshot, replicas: int) -> bool:
        """Whether it is time to ask again: always, but for the charts of many replicas."""
        if self.pane != CHARTS or replicas < MANY or self._asked_at is None or self._answer is None:
            return True
        return abs(snapshot.at - self._asked_at) >= ASK_MANY_EVERY_S

    def _forget_answer(self) -> None:
        self._answer = None
        self._asked_at = None

    def _draw_title(self, view: Serving, subject: Subject) -> None:
        title = self.query_one("#title", Lines)
        promised = panes.verdicts_of(view, subject)
        width = title.room.width
        promises = panes.promise_line(promised, self._kept, view, subject, width)
        title.show([panes.title(view, subject, width), promises, self._tabs()])

    def _fill(self, view: Serving, subject: Subject) -> None:
        pane, block = self.query_one("#pane", Lines), self._block(view, subject)
        pane.show(block.rows, block.cursor.start if block.cursor else None)

    def _block(self, view: Serving, subject: Subject) -> Block:
        room = self.query_one("#pane", Lines).room
        sight = View(max(20, room.width), max(1, room.height), self.ink, self.span)
        answer: SeriesAnswer | None = self._answer
        if self.pane == CHARTS:
            return Block(panes.chart_pane(view, subject, answer, sight))
        if self.pane == REPLICAS:
            return panes.replica_pane(view, subject, answer, self.metric, sight, self._place(view, subject))
        if self.pane == GPUS:
            return panes.gpu_pane(view, subject, sight, self._place(view, subject))
        pane = panes.values_pane if self.pane == VALUES else panes.fact_pane
        return Block(pane(view, subject, sight))

    def _tabs(self) -> Row:
        runs: list[Run] = []
        for name in self.panes:
            runs += [Run(name, "title" if name == self.pane else "dim"), Run(" ")]
        if self.pane == REPLICAS:
            runs.append(Run(f" {self.metric.name} (m)", "accent"))
        if self.pane in PANES_OF["span"]:
            runs.append(Run(f" {span_name(self.span)} (+/-)", "accent"))
        return cut(tuple(runs), self.query_one("#title", Lines).room.width)

    def _place(self, view: Serving, subject: Subject) -> int:
        """The cursor, on something that is there."""
        whole = panes.gpus_of(view, subject) if self.pane == GPUS else subject.servers(view)
        return min(self.cursor, max(0, len(whole) - 1))

    def _length(self) -> int:
        if self.snapshot is None:
            return 0
        view, subject = self._seen(self.snapshot)
        if subject is None:
            return 0
        return len(panes.gpus_of(view, subject) if self.pane == GPUS else subject.servers(view))

    def _go(self, place: int) -> None:
        self.cursor = min(max(place, 0), max(0, self._length() - 1))
        self.again()

    def _chosen(self) -> tuple[int, int | None] | None:
        """(server, GPU) under the cursor; the first replica where the pane has no cursor."""
        if self.snapshot is None:
            return None
        view, subject = self._seen(self.snapshot)
        if subject is None:
            return None
        at = self._place(view, subject)
        if self.pane == GPUS and (found := panes.gpus_of(view, subject)):
            gpu, server = found[at]
            return server, gpu
        return subject.servers(view)[at if self.pane == REPLICAS else 0], None
