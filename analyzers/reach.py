"""What a candidate touches: its entities, and the jobs and servers that run on them, as numbers of the layout."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from coldaisle.analyzers.finding import Scope
from coldaisle.analyzers.window import Window

Numbers = frozenset[int]
NONE: Numbers = frozenset()


@dataclass(frozen=True, slots=True)
class Reach:
    """Indices into the layout, of jobs into ``window.jobs``. What is no longer there is left out."""

    gpus: Numbers = NONE
    nodes: Numbers = NONE
    jobs: Numbers = NONE
    servers: Numbers = NONE
    services: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Index:
    """Who is called how, and who runs where, at one instant."""

    jobs: dict[str, int]
    servers: dict[str, int]
    ports: dict[str, int]
    racks: dict[str, int]
    gpu_jobs: dict[int, list[int]] = field(default_factory=dict)
    """Jobs by GPU: several may share one."""
    node_jobs: dict[int, list[int]] = field(default_factory=dict)
    """Jobs by node, by their GPUs or by what the scheduler says."""
    vague: Numbers = NONE
    """Jobs of which it is not known which GPUs they hold."""
    gpu_servers: dict[int, list[int]] = field(default_factory=dict)
    node_servers: dict[int, list[int]] = field(default_factory=dict)


def index_of(window: Window) -> Index:
    """Made once a window, and only where there is something to look up."""
    return window.cached("reach index", lambda: _index(window))


def _index(window: Window) -> Index:
    layout = window.layout
    index = Index(
        {job.id: number for number, job in enumerate(window.jobs)},
        {server.key: number for number, server in enumerate(layout.servers)},
        {port.key: number for number, port in enumerate(layout.ports)},
        {rack.name: number for number, rack in enumerate(layout.racks)},
        vague=frozenset(number for number, job in enumerate(window.jobs) if not job.gpus),
    )
    for number, job in enumerate(window.jobs):
        nodes = {layout.gpus[gpu].node for gpu in job.gpus}
        nodes |= {layout.node_of[name] for name in job.nodes if name in layout.node_of}
        for gpu in job.gpus:
            index.gpu_jobs.setdefault(gpu, []).append(number)
        for node in nodes:
            index.node_jobs.setdefault(node, []).append(number)
    for number, server in enumerate(layout.servers):
        index.node_servers.setdefault(server.node, []).append(number)
        for gpu in server.gpus:
            index.gpu_servers.setdefault(gpu, []).append(number)
    return index


def reach_of(window: Window, scope: Scope) -> Reach:
    """What ``scope`` names, and what runs there: on its GPUs, or on its nodes where no GPU is named."""
    layout, index = window.layout, index_of(window)
    gpus = {layout.gpu_of[key] for key in scope.gpus if key in layout.gpu_of}
    servers = {index.servers[key] for key in scope.servers if key in index.servers}
    nodes = {layout.node_of[key] for key in scope.nodes if key in layout.node_of}
    nodes |= {layout.ports[index.ports[key]].node for key in scope.ports if key in index.ports}
    for name in scope.racks:
        if name in index.racks:
            nodes |= set(layout.racks[index.racks[name]].nodes)
    is_of_nodes = bool(nodes) and not gpus and not servers
    nodes |= {layout.servers[server].node for server in servers} | {layout.gpus[gpu].node for gpu in gpus}
    jobs = {index.jobs[name] for name in scope.jobs if name in index.jobs}
    if not scope.jobs:
        jobs |= _held(gpus, index.gpu_jobs)
        jobs |= _held(nodes, index.node_jobs) if is_of_nodes else _held(nodes, index.node_jobs) & index.vague
    if not scope.servers and not scope.jobs:
        servers |= _held(gpus, index.gpu_servers) | (
            _held(nodes, index.node_servers) if is_of_nodes else set()
        )
    services = frozenset(service_of(window, server) for server in servers)
    return Reach(frozenset(gpus), frozenset(nodes), frozenset(jobs), frozenset(servers), services)


def _held(places: Iterable[int], holders: dict[int, list[int]]) -> set[int]:
    return {holder for place in places for holder in holders.get(place, ())}


def service_of(window: Window, server: int) -> str:
    """The deployment a server is a replica of; servers of one model are one where nobody names it."""
    one = window.layout.servers[server]
    return one.service or one.model or one.name
