"""Which GPUs an inference server runs on, by what is known of its node; pure.

An engine's page does not say. In this order: the server's own source; the node's GPU processes whose command line is
its engine's; the pod that dcgm-exporter names beside the GPUs; and, where nothing speaks against it, all GPUs of a node
with one server. Else it is unknown, and said so: a guess would give somebody else's watts to a model.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from functools import cache
from typing import NamedTuple

from coldaisle.sources.registry import Registry
from coldaisle.sources.source import GpuRef, JobFact, Kind, Process, ServerFact
from coldaisle.sources.text import is_loopback
from coldaisle.sources.vocabularies import matches, shipped

BY_SOURCE = "its source"
BY_PROCESS = "GPU processes"
BY_POD = "pod"
BY_NODE = "the only server of its node"
_PORT = re.compile(r"-port[= ](\d{1,5})(?!\S)", re.IGNORECASE)


class Placed(NamedTuple):
    """Where a server runs, and how that is known."""

    gpus: tuple[int, ...]
    """Rows of the registry, in order; empty with ``known_by``: on none."""
    known_by: str | None
    """None: nobody knows."""


NOWHERE = Placed((), None)


class _Server(NamedTuple):
    row: int
    endpoint: str
    """Of several models behind one port they are the same server."""
    fact: ServerFact


def place_servers(registry: Registry) -> Mapping[int, Placed]:
    """The GPUs of every server, by the server's row."""
    by_node: dict[int, list[_Server]] = {}
    for part in registry.parts[Kind.SERVER]:
        fact = registry.servers.get(part.row)
        if part.joined_to is None and fact is not None:
            by_node.setdefault(part.node, []).append(_Server(part.row, part.name.partition(" ")[0], fact))
    if not by_node:
        return {}
    pods = _pods(registry.jobs.values())
    return {
        server.row: _placed(registry, node, server, servers, pods)
        for node, servers in by_node.items()
        for server in servers
    }


def _placed(
    registry: Registry,
    node: int,
    server: _Server,
    servers: list[_Server],
    pods: Mapping[tuple[str, str], tuple[GpuRef, ...]],
) -> Placed:
    fact = server.fact
    if fact.gpus is not None:
        return Placed(tuple(registry.gpu_rows(fact.gpus)), BY_SOURCE)
    processes = registry.processes.get(node)
    running = processes.processes if processes is not None else ()
    others = [one for one in servers if one.fact.gpus != ()]
    mine = _rows(registry, (one.gpu for one in _own(server, others, running)))
    if mine:
        return Placed(mine, BY_PROCESS)
    elsewhere = _rows(registry, _behind_loopback(registry, node, server))
    if elsewhere:
        return Placed(elsewhere, BY_PROCESS)
    in_pod = _rows(registry, _of_pod(fact, pods))
    if in_pod:
        return Placed(in_pod, BY_POD)
    is_alone = len({one.endpoint for one in others}) == 1
    boards = tuple(row for row in registry.nodes[node].gpus if registry.gpus[row].joined_to is None)
    if is_alone and boards and (processes is None or any(one.command is None for one in running)):
        return Placed(boards, BY_NODE)
    return NOWHERE


def _own(server: _Server, servers: list[_Server], running: Iterable[Process]) -> list[Process]:
    """A node's GPU processes that are a server's; none where they may as well be another's.

    Those that name its port. A lone server of its engine has also those that name none, and if nothing names its port,
    all of them, as long as they name one port at most: a container's may be mapped to another. Of several servers each
    must be found, and no process left over: else ports are mapped, or told by an environment that nobody sees.
    """
    engine = server.fact.engine
    theirs = _of_engine(server.fact, running)
    nameless = [one for one, ports in theirs if not ports]
    named = {one for _, ports in theirs for one in ports}
    endpoints = {_port(one.endpoint) for one in servers if one.fact.engine == engine}
    mine = [one for one, ports in theirs if _port(server.endpoint) in ports]
    if len(endpoints) > 1:
        return mine if endpoints <= named and not nameless else []
    if mine:
        return mine + nameless
    return [one for one, _ in theirs] if len({ports for _, ports in theirs if ports}) <= 1 else nameless


def _of_engine(fact: ServerFact, running: Iterable[Process]) -> list[tuple[Process, frozenset[int]]]:
    """An engine's processes, and the ports that each names."""
    names = _processes(fact.engine) if fact.processes is None else fact.processes
    return [(one, ports) for one in running if (ports := _ports(names, one)) is not None]


def _behind_loopback(registry: Registry, node: int, server: _Server) -> list[GpuRef]:
    """A server asked at 127.0.0.1 is on this machine or behind a tunnel: on the one node whose processes name its port."""
    if not is_loopback(registry.nodes[node].key):
        return []
    port = _port(server.endpoint)
    found = [
        [process.gpu for process, ports in _of_engine(server.fact, fact.processes) if port in ports]
        for row, fact in registry.processes.items()
        if registry.nodes[row].joined_to is None
    ]
    found = [gpus for gpus in found if gpus]
    return found[0] if len(found) == 1 else []


def _port(endpoint: str) -> int | None:
    port = endpoint.rpartition(":")[2]
    return int(port) if port.isdecimal() else None


def _ports(names: tuple[str, ...], process: Process) -> frozenset[int] | None:
    """The ports that a process of an engine names; None: it is none of this engine's."""
    command = process.command or ""
    if not any(matches(regex, command) for regex in names):
        return None
    return frozenset((*process.ports, *map(int, _PORT.findall(command))))


@cache
def _processes(engine: str | None) -> tuple[str, ...]:
    """What is found in the command lines of an engine's processes."""
    found = [one.server.processes for one in shipped() if one.server and one.server.engine == engine]
    return found[0] if found else ()


def _pods(jobs: Iterable[JobFact]) -> dict[tuple[str, str], tuple[GpuRef, ...]]:
    """(namespace, pod) → GPUs, of the pods that hold some now."""
    pods: dict[tuple[str, str], tuple[GpuRef, ...]] = {}
    for job in jobs:
        kind, _, rest = job.id.partition(":")
        words = rest.split("/")
        if kind == "k8s" and len(words) == 3 and words[1] == "Pod" and job.until is None:
            pods[words[0], words[2]] = job.gpus
    return pods


def _of_pod(fact: ServerFact, pods: Mapping[tuple[str, str], tuple[GpuRef, ...]]) -> tuple[GpuRef, ...]:
    """The GPUs of a server's pod; one without a namespace is looked for in all, and must be the only one."""
    found = [
        gpus for (space, pod), gpus in pods.items() if pod == fact.pod and fact.namespace in (None, space)
    ]
    return found[0] if len(found) == 1 else ()


def _rows(registry: Registry, refs: Iterable[GpuRef]) -> tuple[int, ...]:
    return tuple(sorted(set(registry.gpu_rows(refs))))
