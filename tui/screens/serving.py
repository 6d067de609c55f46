"""The Serving screen: inference services as rows, opened into their replicas; nothing moves by itself."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType

from coldaisle.sources.units import age
from coldaisle.tui.glyphs import UNICODE, Glyphs
from coldaisle.tui.screens import serving_rows as rows
from coldaisle.tui.screens.filtered import FilteredScreen
from coldaisle.tui.screens.series import SeriesScreen, bins, period_of
from coldaisle.tui.screens.serving_rows import COLUMNS, REPLICA, SERVICE, SORTS, Serving, Trends
from coldaisle.tui.widgets.header import TopLines
from coldaisle.tui.widgets.lines import Lines, Row, Run, cut
from coldaisle.tui.widgets.table import Cell, Placed, Table

if TYPE_CHECKING:
    from coldaisle.analyzers.serving import Grouping
    from coldaisle.analyzers.snapshot import SeriesQuery, Snapshot

ASK_EVERY_S = 6.0
"""The past of many replicas changes slowly, and costs more than a snapshot."""
POINTS = 60


class Groupings:
    """The services of a layout, made again only when the layout changed."""

    def __init__(self) -> None:
        self._held: Grouping | None = None

    def of(self, snapshot: Snapshot) -> Grouping:
        """The grouping of a snapshot's layout."""
        from coldaisle.analyzers.serving import group

        if self._held is None or self._held.layout is not snapshot.layout:
            self._held = group(snapshot.layout)
        return self._held


class ServingScreen(FilteredScreen, SeriesScreen):
    """All services, and the replicas of those that are opened."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("space", "fold", "Replicas"),
        Binding("v", "charts", "Charts"),
        Binding("s", "sort", "Sort"),
        Binding("slash", "filter", "Filter", key_display="/"),
        Binding("r", "racks", "On Racks"),
        Binding("n", "node", "Its node", show=False),
        Binding("plus,equals_sign", "fold_all(True)", "Open all", show=False),
        Binding("minus", "fold_all(False)", "Close all", show=False),
        Binding("escape", "back", "Back"),
    ]
    TAB = "Serving"
    ROWS, COUNTED = "serve", "replicas"
    FILTER_HINT = "chat, r07, stale, engine==vllm, kv>90 | ttft>2s, waiting>0; Tab completes"

    def __init__(self, at: str = "") -> None:
        """``at``: the key of a service or of a server that the cursor shall stand on."""
        super().__init__()
        self.sort = SORTS[0]
        self.opened: set[str] = set()
        """Keys of services whose replicas are in sight."""
        self._wanted = at
        self._groupings = Groupings()
        self._trends = Trends()
        self._order: list[str] = []
        self._ordered_for: tuple[int, str] | None = None
        self._ordered_at = 0.0
        self._asked_at: float | None = None
        self._view: Serving | None = None

    def body(self) -> ComposeResult:
        yield Table(COLUMNS, id="services")
        yield Lines(id="status")

    @property
    def glyphs(self) -> Glyphs:
        """The characters of this terminal."""
        return getattr(self.app, "glyphs", UNICODE)

    def redraw(self, snapshot: Snapshot) -> None:
        """Rows in the order that was chosen; values of what is in sight."""
        view = self._view = self._seen(snapshot)
        self._keep_order(view)
        keys = self._visible(view)

        def cells_of(key: str, placed: Sequence[Placed]) -> Sequence[Cell]:
            opened = key.removeprefix(SERVICE) in self.opened
            return rows.row_cells(view, key, placed, self.glyphs, opened=opened)

        table = self.query_one(Table)
        known = bool(snapshot.layout.servers)
        empty = "no service matches the filter" if known else rows.no_server(snapshot, table.size.width - 1)
        table.set_columns(rows.columns(diagnosed=bool(snapshot.diagnosis.at)))
        table.show(keys, cells_of, sorted_by=self.sort.column, empty=empty)
        self._stand_where_wanted(view)
        self.query_one(TopLines).set_note((Run("worst replica's percentiles", "dim"),) if known else ())
        self.query_one("#status", Lines).show([self._status(view)])
        if self._asked_at is None or abs(snapshot.at - self._asked_at) >= ASK_EVERY_S:
            self._asked_at = snapshot.at
            self.ask()

    def question(self, snapshot: Snapshot) -> SeriesQuery | None:
        """The past of the replicas that matter most now."""
        from coldaisle.analyzers.snapshot import SeriesQuery

        view = (
            self._view if self._view is not None and self._view.snapshot is snapshot else self._seen(snapshot)
        )
        wanted = rows.pressing(view)
        if not wanted.entities:
            self._trends = Trends()
            return None
        span = bins(snapshot.at, rows.TREND_S, POINTS, period_of(snapshot, wanted.keys[0]))
        return SeriesQuery(wanted.keys, wanted.entities, span.start, span.end, span.points)

    def answered(self, snapshot: Snapshot) -> None:
        """Show what the past says."""
        self._trends = rows.trends_of(self._seen(snapshot), self._answer)
        self.again()

    def action_sort(self) -> None:
        """The next order, as the values are now."""
        self.sort = SORTS[(SORTS.index(self.sort) + 1) % len(SORTS)]
        self._ordered_for = None
        self.again()
        self.query_one(Table).action_edge(0)

    def action_fold(self) -> None:
        """Show or hide the replicas of the service under the cursor."""
        service = self._service()
        if service is None:
            return
        if service in self.opened:
            self.opened.remove(service)
            self.again()
            self.query_one(Table).select(SERVICE + service)
        else:
            self.opened.add(service)
            self.again()

    def action_fold_all(self, opened: bool) -> None:
        """Show or hide all replicas."""
        service = self._service()
        known = self._view.grouping.by_key if self._view is not None else ()
        self.opened = set(known) if opened else set()
        self.again()
        if service is not None and not opened:
            self.query_one(Table).select(SERVICE + service)

    def action_charts(self) -> None:
        """The service or the replica under the cursor over time."""
        from coldaisle.tui.screens.service import ServiceScreen

        key = self.query_one(Table).key
        if key is not None:
            server = key.removeprefix(REPLICA) if key.startswith(REPLICA) else ""
            self.app.push_screen(ServiceScreen(self._service() or "", server))

    def action_racks(self) -> None:
        """The GPUs of the row on the map."""
        if self._view is not None and (server := self._server()) is not None:
            show_on_racks(self, self._view.snapshot, server)

    def action_node(self) -> None:
        """The node of the row."""
        if self._view is not None and (server := self._server()) is not None:
            open_node(self, self._view.snapshot, server)

    def under_cursor(self) -> str:
        """The replica under the cursor, or the first one of the service."""
        server = self._server()
        return "" if server is None or self._view is None else self._view.snapshot.layout.servers[server].key

    def stand_on(self, key: str) -> None:
        """Put the cursor on a service or a server; a server's service is opened."""
        self._wanted = key
        self.again()

    @on(Table.Opened)
    def _opened_row(self, event: Table.Opened) -> None:
        """One level deeper: a service's replicas, then its charts; a replica's charts."""
        service = event.key.removeprefix(SERVICE)
        if event.key.startswith(SERVICE) and service not in self.opened:
            self.action_fold()
        else:
            self.action_charts()

    def _seen(self, snapshot: Snapshot) -> Serving:
        settings = getattr(self.app, "serving", None)
        return rows.serving(snapshot, self._groupings.of(snapshot), settings, self._trends)

    def _keep_order(self, view: Serving) -> None:
        """Sort only when the order was chosen or servers came or went: rows keep their place while values change."""
        wanted = (view.snapshot.layout.version, self.sort.column)
        if self._ordered_for != wanted:
            self._order = rows.order(view, self.sort)
            self._ordered_for, self._ordered_at = wanted, view.snapshot.at

    def _visible(self, view: Serving) -> list[str]:
        wanted = self.kept(view.snapshot)
        if wanted is not None:
            self.tell_kept(int(wanted.sum()), len(wanted))
        return rows.visible(self._order, view, self.opened, wanted)

    def _stand_where_wanted(self, view: Serving) -> None:
        """Once what was asked for is known, go there."""
        if not self._wanted:
            return
        wanted, grouping, table = self._wanted, view.grouping, self.query_one(Table)
        if wanted in grouping.by_key:
            self._wanted = ""
            table.select(SERVICE + wanted)
        elif (server := grouping.servers.get(wanted)) is not None:
            self._wanted = ""
            self.opened.add(grouping.service_of(server).key)
            self.again()
            table.select(REPLICA + wanted)

    def _service(self) -> str | None:
        """The key of the service under the cursor, or of the replica's."""
        key = self.query_one(Table).key
        if key is None or self._view is None:
            return None
        if key.startswith(SERVICE):
            return key.removeprefix(SERVICE)
        grouping = self._view.grouping
        server = grouping.servers.get(key.removeprefix(REPLICA))
        return None if server is None else grouping.service_of(server).key

    def _server(self) -> int | None:
        """The replica under the cursor, or the first one of the service."""
        key = self.query_one(Table).key
        if key is None or self._view is None:
            return None
        grouping = self._view.grouping
        if key.startswith(REPLICA):
            return grouping.servers.get(key.removeprefix(REPLICA))
        number = grouping.by_key.get(key.removeprefix(SERVICE))
        return None if number is None else grouping.services[number].servers[0]

    def _status(self, view: Serving) -> Row:
        ready, known = int(view.found.ready.sum()), len(view.found.ready)
        known_columns = rows.columns(diagnosed=bool(view.snapshot.diagnosis.at))
        hidden = len(known_columns) - len(self.query_one(Table).placed)
        services = len(view.grouping.services)
        if not known:
            return ()
        runs = [
            Run(f"{services} service{'s' * (services != 1)}, "),
            Run(f"{ready}/{known} replicas ready", "text" if ready == known else "warn"),
            Run(f"  by {self.sort.name} (s)", "dim"),
        ]
        if self.sort.column != "name":
            runs.append(Run(f", as it was {age(view.snapshot.at - self._ordered_at)} ago", "dim"))
        if filtered := self.filter_runs():
            runs += [Run("  "), *filtered]
        if hidden:
            runs.append(Run(f"  {hidden} columns need a wider terminal", "dim"))
        return cut(tuple(runs), self.query_one("#status", Lines).room.width)


def show_on_racks(screen: SeriesScreen, snapshot: Snapshot, server: int, gpu: int | None = None) -> None:
    """Go to the map, onto a GPU, else the first one of a server; of its node, where its GPUs are not known."""
    from coldaisle.tui.app import ColdaisleApp
    from coldaisle.tui.screens.racks import RacksScreen

    app, known = screen.app, snapshot.layout.servers[server]
    assert isinstance(app, ColdaisleApp)
    gpus = (gpu,) if gpu is not None else known.gpus or tuple(snapshot.layout.nodes[known.node].gpus)
    if not gpus:
        app.say("no GPU is known on its node")
        return
    app.action_go("Racks")
    if isinstance(app.screen, RacksScreen):
        app.screen.point_at(snapshot.layout.gpus[gpus[0]].key)


def open_node(screen: SeriesScreen, snapshot: Snapshot, server: int, gpu: int | None = None) -> None:
    """The node of a server, with one of its GPUs chosen: the one given, else its first."""
    from coldaisle.tui.screens.node import NodeScreen

    known = snapshot.layout.servers[server]
    chosen = gpu if gpu is not None else next(iter(known.gpus), None)
    at = known.node if chosen is None else snapshot.layout.gpus[chosen].node
    node = snapshot.layout.nodes[at]
    screen.app.push_screen(NodeScreen(node.key, 0 if chosen is None else chosen - node.gpus.start))
