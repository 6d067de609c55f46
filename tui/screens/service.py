"""The Service screen: an inference service, or one replica of it, over time; its replicas, GPUs, values and facts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, ClassVar

from textual.binding import Binding, BindingType

from coldaisle.sources.text import plain
from coldaisle.tui.screens import service_panes as panes
from coldaisle.tui.screens.gpu_panes import LEAST_CHART, Block
from coldaisle.tui.screens.paned import PanedScreen
from coldaisle.tui.screens.series import bins, period_of
from coldaisle.tui.screens.service_panes import REPLICA_METRICS, Subject
from coldaisle.tui.screens.serving import Groupings, open_node, show_on_racks
from coldaisle.tui.screens.serving_rows import Serving, serving
from coldaisle.tui.widgets.lines import Lines, Run

if TYPE_CHECKING:
    from coldaisle.analyzers.serving import Excursion
    from coldaisle.analyzers.snapshot import SeriesAnswer, SeriesQuery, Snapshot

CHARTS, REPLICAS, GPUS, VALUES, FACTS = "Charts", "Replicas", "GPUs", "Values", "Facts"
OF_SERVICE = (CHARTS, REPLICAS, GPUS, VALUES, FACTS)
OF_REPLICA = (CHARTS, GPUS, VALUES, FACTS)
CURSOR_ON = (REPLICAS, GPUS)
MANY = 64
"""Replicas from which the charts are asked for less often: each costs the monitor time."""
ASK_MANY_EVERY_S = 10.0


class ServiceScreen(PanedScreen):
    """A service, or a replica, by its key; see analyzers.serving.Service and Layout.servers."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("n", "node", "Its node"),
        Binding("left,h", "next(-1)", "Previous service or replica", show=False),
        Binding("right,l", "next(1)", "Next service or replica", show=False),
        Binding("escape", "back", "Back"),
    ]
    TAB = "Serving"
    PANES_OF = MappingProxyType({"metric": (REPLICAS,), "span": (CHARTS, REPLICAS), "open": CURSOR_ON})
    AROUND = 2

    def __init__(self, service: str, server: str = "") -> None:
        """``service`` is a service's key; with ``server``, a server's, the screen is about that replica."""
        super().__init__()
        self.service = service
        self.server = server
        self.metric = REPLICA_METRICS[0]
        self._groupings = Groupings()
        self._kept: Mapping[str, Excursion] = {}
        self._asked_at: float | None = None

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
            title.show([(Run(plain(gone), "warn"),), (), self.tabs()])
            pane.show([])
            return
        self._draw_title(view, subject)
        self.fill(self._block(view, subject))
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
        if self.pane_here == CHARTS:
            keys, wanted = panes.chart_keys(view), list(subject.servers(view))
        elif self.pane_here == REPLICAS:
            keys = (self.metric.key,)
            wanted = panes.replicas_in_sight(view, subject, self._place(view, subject), room.height)
        else:
            return None
        if not keys or not wanted:
            return None
        width = room.width // (2 if room.width >= 2 * LEAST_CHART + 2 and self.pane_here == CHARTS else 1)
        span = bins(snapshot.at, self.span, max(10, width - 20), period_of(snapshot, keys[0]))
        entities = tuple(servers[server].key for server in wanted)
        return SeriesQuery(keys, entities, span.start, span.end, span.points)

    def answered(self, snapshot: Snapshot) -> None:
        """Draw the pane with its series."""
        view, subject = self._seen(snapshot)
        if subject is None:
            return
        if self.pane_here == CHARTS and self._answer is not None:
            self._kept = panes.excursions(view, subject, self._answer)
            self._draw_title(view, subject)
        self.fill(self._block(view, subject))

    def action_open(self) -> None:
        """The replica, or the node of the GPU, under the cursor."""
        if self.snapshot is None:
            return
        view, subject = self._seen(self.snapshot)
        if subject is None:
            return
        at = self._place(view, subject)
        if self.pane_here == REPLICAS:
            server = subject.servers(view)[at]
            self.app.push_screen(ServiceScreen(self.service, self.snapshot.layout.servers[server].key))
        elif found := panes.gpus_of(view, subject):
            gpu, server = found[at]
            open_node(self, self.snapshot, server, gpu)

    def metric_name(self) -> str:
        """Of the replicas."""
        return self.metric.name

    def length(self) -> int:
        """Replicas or GPUs."""
        if self.snapshot is None or self.pane_here not in CURSOR_ON:
            return 0
        view, subject = self._seen(self.snapshot)
        return 0 if subject is None else len(self._lines(view, subject))

    def forget_answer(self) -> None:
        """Ask anew, even where that is not done at every tick."""
        super().forget_answer()
        self._asked_at = None

    def action_span(self, by: int) -> None:
        """Let the charts, and the judgement of promises, cover a longer or a shorter time."""
        self._kept = {}
        super().action_span(by)

    def action_metric(self, by: int) -> None:
        """Show another metric of the replicas."""
        self.metric = REPLICA_METRICS[(REPLICA_METRICS.index(self.metric) + by) % len(REPLICA_METRICS)]
        self.forget_answer()
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
        self.forget_answer()
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
        if self.pane_here != CHARTS or replicas < MANY or self._asked_at is None or self._answer is None:
            return True
        return abs(snapshot.at - self._asked_at) >= ASK_MANY_EVERY_S

    def _draw_title(self, view: Serving, subject: Subject) -> None:
        title = self.query_one("#title", Lines)
        promised = panes.verdicts_of(view, subject)
        width = title.room.width
        promises = panes.promise_line(promised, self._kept, view, subject, width)
        title.show([panes.title(view, subject, width), promises, self.tabs()])

    def _block(self, view: Serving, subject: Subject) -> Block:
        sight = self.sight()
        answer: SeriesAnswer | None = self._answer
        if self.pane_here == CHARTS:
            return Block(panes.chart_pane(view, subject, answer, sight))
        if self.pane_here == REPLICAS:
            return panes.replica_pane(view, subject, answer, self.metric, sight, self._place(view, subject))
        if self.pane_here == GPUS:
            return panes.gpu_pane(view, subject, sight, self._place(view, subject))
        pane = panes.values_pane if self.pane_here == VALUES else panes.fact_pane
        return Block(pane(view, subject, sight))

    def _lines(self, view: Serving, subject: Subject) -> Sequence[object]:
        return panes.gpus_of(view, subject) if self.pane_here == GPUS else subject.servers(view)

    def _place(self, view: Serving, subject: Subject) -> int:
        """The cursor, on something that is there."""
        return self.place(len(self._lines(view, subject)))

    def _chosen(self) -> tuple[int, int | None] | None:
        """(server, GPU) under the cursor; the first replica where the pane has no cursor."""
        if self.snapshot is None:
            return None
        view, subject = self._seen(self.snapshot)
        if subject is None:
            return None
        at = self._place(view, subject)
        if self.pane_here == GPUS and (found := panes.gpus_of(view, subject)):
            gpu, server = found[at]
            return server, gpu
        return subject.servers(view)[at if self.pane_here == REPLICAS else 0], None
