"""The command palette: screens, metrics, themes, the keys of the screen in sight, and any host, rack, GPU, job, inference service
or replica by name."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import TYPE_CHECKING, NamedTuple, cast

from textual.command import DiscoveryHit, Hit, Hits, Provider
from textual.content import Content

from coldaisle.sources.text import plain
from coldaisle.tui import cells, theme
from coldaisle.tui.reading import server_name
from coldaisle.tui.screens.job import JobScreen
from coldaisle.tui.screens.live import LiveScreen
from coldaisle.tui.screens.node import NodeScreen
from coldaisle.tui.screens.racks import RacksScreen
from coldaisle.tui.screens.serving import ServingScreen
from coldaisle.tui.widgets.footer import key_name
from coldaisle.tui.widgets.header import TABS

if TYPE_CHECKING:
    from coldaisle.analyzers.snapshot import Snapshot
    from coldaisle.sources.cluster import Job, Layout
    from coldaisle.tui.app import ColdaisleApp

MOST_PLACES = 30
"""Names that are offered for what was typed; more than fit on a screen help nobody."""
SHIFTS = (
    ("10 minutes back", -600.0, "key {"),
    ("10 minutes on", 600.0, "key }"),
    ("an hour back", -3600.0, "from the instant that is shown"),
    ("an hour on", 3600.0, "from the instant that is shown"),
    ("a day back", -86400.0, "from the instant that is shown"),
    ("a day on", 86400.0, "from the instant that is shown"),
)
MOVES = frozenset({"back", "move", "step", "edge", "page", "scroll"})
"""Actions that nobody looks for by name."""
MOST_TYPED = 64
"""Characters of what was typed that are looked at."""


class Command(NamedTuple):
    """Something the palette can do."""

    name: str
    help: str
    run: Callable[[], object]


KINDS = ("rack", "node", "GPU", "job", "service", "replica")
"""Of places; typed before a name (``service chat``) they leave the others out."""


class Place(NamedTuple):
    """A rack, node, GPU, job, service or replica that can be gone to."""

    kind: str
    key: str


def nearest(typed: str, names: Iterable[str], most: int = MOST_PLACES) -> list[str]:
    """Names that hold the typed characters in order, the closest first.

    Equal, then beginning so, then containing it, then with other characters between; shorter before longer.
    """
    wanted = "".join(typed.casefold()[:MOST_TYPED].split())
    if not wanted:
        return []
    found: list[tuple[int, int, str]] = []
    for name in names:
        rank = closeness(wanted, name.casefold())
        if rank is not None:
            found.append((rank, len(name), name))
    return [name for _, _, name in sorted(found)[:most]]


def closeness(wanted: str, name: str) -> int | None:
    """0 equal, 1 at its beginning, 2 inside, 3 in order with others between; None: not all of it is there."""
    at = name.find(wanted)
    if at >= 0:
        return 0 if name == wanted else 1 if at == 0 else 2
    rest = iter(name)
    return 3 if all(char in rest for char in wanted) else None


def places(snapshot: Snapshot) -> dict[str, Place]:
    """Every rack, node, board, job, inference service and replica by the name that is typed for it.

    A job by its id, name and user. Where names clash the larger one has it, a node before a service.
    """
    from coldaisle.analyzers.serving import group

    layout = snapshot.layout
    found = {_job_name(job): Place("job", job.id) for job in (*snapshot.queue, *snapshot.jobs)}
    found |= {
        server_name(snapshot, at): Place("replica", server.key) for at, server in enumerate(layout.servers)
    }
    found.update((service.name, Place("service", service.key)) for service in group(layout).services)
    found.update(_machines(layout))
    return found


def _job_name(job: Job) -> str:
    """``4711 train-moe kim``; a Kubernetes workload's title says all of it."""
    return job.title if job.workload_key else " ".join(filter(None, (job.title, job.name, job.user)))


def _machines(layout: Layout) -> dict[str, Place]:
    found = {gpu.key: Place("GPU", gpu.key) for gpu in layout.gpus if gpu.parent < 0}
    for node in layout.nodes:
        found.update(dict.fromkeys(node.aliases, Place("node", node.key)))
    found.update((node.key, Place("node", node.key)) for node in layout.nodes)
    found.update(
        (rack.name, Place("rack", rack.name)) for rack in layout.racks if rack.name not in layout.node_of
    )
    return found


class ColdaisleCommands(Provider):
    """All commands of the palette."""

    async def discover(self) -> Hits:
        for command in self._commands():
            yield DiscoveryHit(Content(command.name), command.run, command.name, command.help)

    async def search(self, query: str) -> Hits:
        matcher = self.matcher(query)
        for command in self._commands():
            score = matcher.match(command.name)
            if score > 0:
                yield Hit(score, matcher.highlight(command.name), command.run, command.name, command.help)
        if self._app.snapshot is not None:
            for hit in self._places(query, self._app.snapshot):
                yield hit

    def _places(self, query: str, snapshot: Snapshot) -> Iterator[Hit]:
        """Places by name. Their order is ours, so their scores only fall."""
        known = places(snapshot)
        kind, _, rest = query.strip().casefold().partition(" ")
        if rest and kind in {kind.casefold() for kind in KINDS}:
            query = rest
            known = {name: place for name, place in known.items() if place.kind.casefold() == kind}
        found = nearest(query, known)
        for rank, name in enumerate(found):
            place = known[name]
            alias = place.kind == "node" and name != place.key
            shown = f"{place.kind} {plain(name)}" + (f" ({plain(place.key)})" if alias else "")
            score = 0.9 - rank / (len(found) + 1) * 0.8
            yield Hit(score, Content(shown), partial(self._open, place), shown)

    def _commands(self) -> Iterator[Command]:
        yield from self._screens()
        yield from self._instants()
        yield from self._keys()
        yield from self._metrics()
        yield from self._themes()
        yield Command("Quit", "leave coldaisle", partial(self._run, "quit"))

    def _screens(self) -> Iterator[Command]:
        for tab in TABS:
            yield Command(f"Go to {tab.name}", f"key {tab.key}", partial(self._app.action_go, tab.name))
        yield Command("Go to the events", "key e", self._app.action_events)

    def _instants(self) -> Iterator[Command]:
        app = self._app
        yield Command("Time: go to an instant", "key t from live", app.action_ask_instant)
        if app.instant is not None:
            yield Command("Time: return to live", "key t", app.action_live)
        for words, seconds, key in SHIFTS:
            yield Command(f"Time: {words}", key, partial(app.action_shift, seconds))

    def _keys(self) -> Iterator[Command]:
        """What the screen's own keys do, from its bindings."""
        for active in list(self.screen.active_bindings.values()):
            binding = active.binding
            ours = type(active.node).__module__.startswith("coldaisle.") and active.node is not self.app
            told = binding.description and binding.action.partition("(")[0] not in MOVES
            if ours and active.enabled and told:
                run = partial(self.app.run_action, binding.action, active.node)
                yield Command(f"{binding.description}", f"key {key_name(binding)}", run)

    def _metrics(self) -> Iterator[Command]:
        snapshot = self._app.snapshot
        for metric in cells.cell_metrics():
            if snapshot is not None and cells.has_values(snapshot, metric.key):
                yield Command(
                    f"Metric: {metric.label}", f"cells show {metric.extent}", partial(self._choose, metric)
                )

    def _themes(self) -> Iterator[Command]:
        for name in self.app.available_themes:
            if name in theme.NAMES:
                title = theme.palette(name).title
                yield Command(f"Theme: {title}", "colours", partial(setattr, self.app, "theme", name))

    def _choose(self, metric: cells.CellMetric) -> None:
        self._app.set_metric(metric)
        if isinstance(self.screen, LiveScreen) and self._app.snapshot is not None:
            self.screen.show(self._app.snapshot)

    def _open(self, place: Place) -> None:
        """Show a place: a rack on the map, a service or a replica in the table, a job, a node or a GPU on its screen."""
        snapshot = self._app.snapshot
        if snapshot is None:
            return
        layout = snapshot.layout
        if place.kind == "job":
            self.app.push_screen(JobScreen(place.key))
            return
        if place.kind in ("service", "replica"):
            self._app.action_go("Serving")
            if isinstance(self.app.screen, ServingScreen):
                self.app.screen.stand_on(place.key)
            return
        if place.kind == "rack":
            rack = next((rack for rack in layout.racks if rack.name == place.key), None)
            self._app.action_go("Racks")
            if rack is not None and len(rack.gpus) and isinstance(self.app.screen, RacksScreen):
                self.app.screen.point_at(layout.gpus[rack.gpus.start].key)
            return
        gpu = layout.gpu_of.get(place.key)
        index = layout.node_of.get(place.key) if gpu is None else layout.gpus[gpu].node
        if index is not None:
            node = layout.nodes[index]
            self.app.push_screen(NodeScreen(node.key, 0 if gpu is None else gpu - node.gpus.start))

    async def _run(self, action: str) -> None:
        await self.app.run_action(action)

    @property
    def _app(self) -> ColdaisleApp:
        return cast("ColdaisleApp", self.app)
