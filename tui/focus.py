"""``--focus``: from a name that stands in a page or a ticket to the screen of what it names."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from coldaisle.sources.text import plain
from coldaisle.tui.reading import entity_words

if TYPE_CHECKING:
    from coldaisle.analyzers.snapshot import Snapshot
    from coldaisle.sources.cluster import Layout
    from coldaisle.tui.app import ColdaisleApp

PATIENCE_S = 120.0
"""For so long a name may still come: sources connect, jobs start, detectors warm up."""
MOST_NAME = 200
FINDING, NODE, JOB, SERVICE = "finding", "node", "job", "service"


class Place(NamedTuple):
    """What a name means."""

    kind: str
    key: str
    slot: int = 0
    """Of a node: the GPU that is meant."""
    server: str = ""
    """Of a service: the replica that is meant."""


def resolve(snapshot: Snapshot, name: str) -> Place | None:
    """A finding by its id, a host by any of its names, a GPU, a job by its id, a server or a service; None: not there.

    Where two things have one name it is the first of these.
    """
    name = name.strip()
    diagnosis = snapshot.diagnosis
    for one in (*diagnosis.findings, *diagnosis.cleared):
        if name == one.id or name in one.supersedes:
            return Place(FINDING, one.id)
    return (
        _of_machines(snapshot.layout, name) or _of_jobs(snapshot, name) or _of_services(snapshot.layout, name)
    )


def _of_machines(layout: Layout, name: str) -> Place | None:
    if (gpu := layout.gpu_of.get(name)) is not None:
        node = layout.nodes[layout.gpus[gpu].node]
        return Place(NODE, node.key, gpu - node.gpus.start)
    wanted = name.casefold()
    for node in layout.nodes:
        if wanted in {each.casefold() for each in (node.key, node.hostname or "", *node.aliases)}:
            return Place(NODE, node.key)
    return None


def _of_jobs(snapshot: Snapshot, name: str) -> Place | None:
    jobs = (*snapshot.jobs, *snapshot.queue)
    found = next((job for job in jobs if name in (job.id, job.bare_id, job.title, job.display)), None)
    return None if found is None else Place(JOB, found.id)


def _of_services(layout: Layout, name: str) -> Place | None:
    if not layout.servers:
        return None
    from coldaisle.analyzers.serving import group

    grouping = group(layout)
    for number, server in enumerate(layout.servers):
        if name in (server.key, server.name, server.pod):
            return Place(SERVICE, grouping.service_of(number).key, server=server.key)
    found = next((one for one in grouping.services if name in (one.key, one.name)), None)
    return None if found is None else Place(SERVICE, found.key)


def open_place(app: ColdaisleApp, place: Place) -> None:
    """Show it on its screen."""
    if place.kind == FINDING:
        from coldaisle.tui.screens.triage import TriageScreen

        app.action_go("Triage")
        if isinstance(app.screen, TriageScreen):
            app.screen.stand_on(place.key)
    elif place.kind == NODE:
        from coldaisle.tui.screens.node import NodeScreen

        app.push_screen(NodeScreen(place.key, place.slot))
    elif place.kind == JOB:
        from coldaisle.tui.screens.job import JobScreen

        app.push_screen(JobScreen(place.key))
    else:
        from coldaisle.tui.screens.service import ServiceScreen

        app.push_screen(ServiceScreen(place.key, place.server))


class Focus:
    """Looks for a name in every picture until it is there, a key is pressed, or it has taken too long."""

    def __init__(self, name: str, now: float) -> None:
        self._name = name[:MOST_NAME]
        self._until = now + PATIENCE_S
        self._is_done = False
        self._said = ""

    def look(self, app: ColdaisleApp, snapshot: Snapshot) -> None:
        """Open what is meant, if it is there by now; else say how it stands."""
        if self._is_done:
            return
        place = resolve(snapshot, self._name)
        if place is not None:
            self._is_done = True
            open_place(app, place)
        elif app.now() > self._until:
            self._is_done = True
            app.say(f"{self._words()} is not there: nothing known has that name (: searches)")
        elif (waiting := self._why(snapshot)) != self._said:
            self._said = waiting
            app.say(f"{self._words()} is not there yet: {waiting}; any key ends the wait")

    def _words(self) -> str:
        return plain(
            entity_words(self._name) if self._name.startswith(("slurm:", "k8s:")) else self._name, 40
        )

    def _why(self, snapshot: Snapshot) -> str:
        from coldaisle.analyzers.detectors import DETECTORS

        if self._name.partition(":")[0] not in DETECTORS:
            connecting = any(source.state == "connecting" for source in snapshot.sources)
            return "sources are still connecting" if connecting else "it is opened when it comes"
        if not snapshot.diagnosis.at:
            return "nothing is diagnosed yet"
        return (
            "detectors are warming up"
            if snapshot.diagnosis.warming
            else "no such finding is open or was lately"
        )
