"""Candidates of one condition put together by what they have in common: 30 GPUs of a rack that throttle are one finding.

Each condition has a ladder of common causes, the widest first. A step takes those that it holds together, judged by their
share of what was *exposed* (all GPUs for a fault, those at work for heat), and leaves the others to the next.
What was together stays together until clearly less of it is affected, so that nothing is regrouped from tick to tick.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from coldaisle.analyzers.arbitration import Held
from coldaisle.analyzers.finding import Scope
from coldaisle.analyzers.reach import service_of
from coldaisle.analyzers.snapshot import Status
from coldaisle.analyzers.window import Bools, Window
from coldaisle.sources.cluster import Node

ENTER, LEAVE = 0.5, 0.3
"""Shares of the exposed from which a common cause is seen, and below which it is given up. Engineering choice."""
FEWEST_GPUS, FEWEST_NODES, FEWEST_OF_RACK = 3, 2, 4
"""So many affected GPUs make a node's finding; so many nodes, with so many GPUs together, a rack's. Engineering choice."""
FEWEST_WIDESPREAD, AT_ONCE_S = 3, 600.0
"""So many nodes of a rack that are affected within so many seconds have a cause in common. Engineering choice."""
ELSEWHERE = 0.1
"""A model or driver is the cause only where others have at most this share. Engineering choice."""
BUSY = 0.3
"""Utilisation from which a GPU is exposed to what befalls work."""
USER_JOBS = 3

ROOM = "room"

Key = TypeVar("Key")


class Group(NamedTuple):
    """Members with one cause."""

    step: str
    """``gpu``, ``node``, ``rack``, ``room``, ``leaf``, ``group``, ``model``, ``driver``, ``job``, ``user``, ``service``,
    or ``alone``."""
    anchor: str
    """What is called its cause: ``r07``, ``r11n02/3``, ``4711``."""
    members: tuple[int, ...]
    """Indices of what was given."""

    @property
    def name(self) -> tuple[str, str]:
        return self.step, self.anchor


Ladder = tuple[str, ...]

LADDERS: Mapping[str, Ladder] = {
    "gpu_fault": ("rack", "node", "driver"),
    "telemetry_gap": ("room", "rack", "node"),
    "thermal_throttling": ("room", "rack", "node"),
    "power_capping": ("room", "rack", "node", "model", "driver", "job"),
    "idle_allocation": ("job", "user"),
    "checkpoint_stall": ("group", "job"),
    "memory_exhaustion": ("job", "node", "user"),
    "data_loader_starvation": ("group", "job", "user"),
    "interconnect_degraded": ("leaf", "node", "driver"),
    "interconnect_saturation": ("leaf", "group", "job"),
    "straggler": ("node", "job"),
    "communication_stall": ("leaf", "job"),
    "kv_cache_pressure": ("group", "service"),
    "request_queueing": ("group", "service"),
}
"""The widest step first. Cooling loops and power feeds would stand between rack and room: no source tells of them yet."""
APART = frozenset({"gpu_fault", "interconnect_degraded", "memory_exhaustion"})
"""Conditions whose variants have causes of their own."""
AT_WORK = frozenset(
    {"thermal_throttling", "power_capping", "straggler", "interconnect_saturation", "communication_stall"}
)
"""Conditions that only befall GPUs at work."""


class Crowd:
    """The candidates of one condition, and what was exposed to it."""

    def __init__(
        self, window: Window, detector: str, held: Sequence[Held], known: Collection[tuple[str, str]]
    ) -> None:
        """``known``: (step, anchor) of the groups of the last look."""
        self.window = window
        self.held = held
        self.known = known
        self.exposed = _exposed(window, detector, held)

    def groups(self, ladder: Ladder) -> list[Group]:
        """Each candidate in exactly one."""
        rest = list(range(len(self.held)))
        found: list[Group] = []
        for step in ladder:
            if len(rest) > 1 or step in ("job", "service", "node"):
                for group in STEPS[step](self, rest):
                    found.append(group)
                    taken = set(group.members)
                    rest = [member for member in rest if member not in taken]
        return found + [
            Group("alone", anchor_of(self.window, self.held[one].candidate.roots), (one,)) for one in rest
        ]

    def threshold(self, step: str, anchor: str) -> float:
        return LEAVE if (step, anchor) in self.known else ENTER

    def by_place(self, rest: Iterable[int], place_of: NDArray[np.intp]) -> dict[int, list[int]]:
        """Members by the one place in which all of their nodes lie; ``place_of``: by node."""
        found: dict[int, list[int]] = {}
        for member in rest:
            places = {int(place_of[node]) for node in self.held[member].reach.nodes}
            if len(places) == 1 and (place := places.pop()) >= 0:
                found.setdefault(place, []).append(member)
        return found

    def gpus(self, members: Iterable[int]) -> set[int]:
        """Affected GPUs; of a node's or port's candidate all of the node."""
        layout = self.window.layout
        found: set[int] = set()
        for member in members:
            reach = self.held[member].reach
            found |= reach.gpus or {gpu for node in reach.nodes for gpu in layout.nodes[node].gpus}
        return found

    def nodes(self, members: Iterable[int]) -> set[int]:
        return {node for member in members for node in self.held[member].reach.nodes}

    def share(self, members: Iterable[int], exposed: NDArray[np.intp]) -> float:
        """Of these exposed GPUs, how many are affected."""
        affected = self.gpus(members)
        return len(affected.intersection(exposed.tolist())) / max(len(exposed), 1)


def _exposed(window: Window, detector: str, held: Sequence[Held]) -> Bools:
    """[gpu]"""
    boards = window.groups.is_board.copy()
    if detector in AT_WORK:
        util = window.current("gpu.util")
        boards &= (window.snapshot.gpu_status == Status.OK) & ((util >= BUSY) | np.isnan(util))
    for one in held:
        boards[list(one.reach.gpus)] = True
    return boards


def _nodes(crowd: Crowd, rest: Sequence[int]) -> Iterator[Group]:
    layout = crowd.window.layout
    for number, members in crowd.by_place(rest, np.arange(len(layout.nodes))).items():
        node = layout.nodes[number]
        roots = [crowd.held[one].candidate.roots for one in members]
        is_whole = any(not one.gpus and not one.ports for one in roots)
        if is_whole or _is_most_of(crowd, node, members, roots):
            yield Group("node", node.key, tuple(members))


def _is_most_of(crowd: Crowd, node: Node, members: Sequence[int], roots: Sequence[Scope]) -> bool:
    """Whether most of a node's exposed GPUs, or of its ports, are affected."""
    enough = crowd.threshold("node", node.key)
    ports = {port for one in roots for port in one.ports}
    if ports:
        return len(ports) > 1 and len(ports) / max(len(node.ports), 1) >= enough
    here = np.flatnonzero(crowd.exposed[node.gpus.start : node.gpus.stop]) + node.gpus.start
    fewest = min(FEWEST_GPUS, max(len(node.gpus), 2))
    return len(crowd.gpus(members)) >= fewest and crowd.share(members, here) >= enough


def _racks(crowd: Crowd, rest: Sequence[int]) -> Iterator[Group]:
    layout = crowd.window.layout
    for rack, members in crowd.by_place(rest, crowd.window.groups.node_rack).items():
        one = layout.racks[rack]
        if not one.place.startswith("no rack known") and _is_widespread(
            crowd, members, np.asarray(one.nodes), "rack", one.name
        ):
            yield Group("rack", one.name, tuple(members))


def _is_widespread(
    crowd: Crowd, members: Sequence[int], nodes: NDArray[np.intp], step: str, anchor: str
) -> bool:
    """Whether enough of what is exposed on these nodes is affected, or most of the nodes at one time.

    Air that is too warm is felt first by the GPUs that sit hottest in each node.
    """
    affected, hit = crowd.gpus(members), crowd.nodes(members)
    if len(hit) < FEWEST_NODES or (crowd.window.layout.gpus and len(affected) < FEWEST_OF_RACK):
        return False
    here = np.flatnonzero(crowd.exposed & np.isin(crowd.window.groups.gpu_node, nodes))
    enough = crowd.threshold(step, anchor)
    if crowd.share(members, here) >= enough:
        return True
    exposed_nodes = len(np.unique(crowd.window.groups.gpu_node[here]))
    began = [crowd.held[member].since for member in members]
    is_at_once = max(began) - min(began) <= AT_ONCE_S or (step, anchor) in crowd.known
    return len(hit) >= FEWEST_WIDESPREAD and len(hit) / max(exposed_nodes, 1) >= enough and is_at_once


def _room(crowd: Crowd, rest: Sequence[int]) -> Iterator[Group]:
    """Several racks, and at least half of those in which anything is exposed, each as a whole."""
    groups = crowd.window.groups
    exposed = {int(rack) for rack in groups.gpu_rack[crowd.exposed]}
    hit = {}
    for rack, members in crowd.by_place(rest, groups.node_rack).items():
        here = np.flatnonzero(crowd.exposed & (groups.gpu_rack == rack))
        if crowd.share(members, here) >= crowd.threshold(ROOM, ROOM):
            hit[rack] = members
    if len(hit) >= 2 and len(hit) / max(len(exposed), 1) >= crowd.threshold(ROOM, ROOM):
        members = [member for members in hit.values() for member in members]
        if len(crowd.gpus(members)) >= FEWEST_OF_RACK:
            yield Group(ROOM, ROOM, tuple(members))


def _leaves(crowd: Crowd, rest: Sequence[int]) -> Iterator[Group]:
    groups = crowd.window.groups
    for leaf, members in crowd.by_place(rest, groups.node_leaf).items():
        nodes = np.flatnonzero(groups.node_leaf == leaf)
        share = len(crowd.nodes(members)) / max(len(nodes), 1)
        name = groups.leaves[leaf]
        is_known = len(groups.leaves) > 1 or ("leaf", name) in crowd.known
        if is_known and len(crowd.nodes(members)) > FEWEST_NODES and share >= crowd.threshold("leaf", name):
            yield Group("leaf", name, tuple(members))


def _same_group(crowd: Crowd, rest: Sequence[int]) -> Iterator[Group]:
    """What the detector itself says is shared: a file system."""
    for name, members in _gathered(rest, lambda member: crowd.held[member].candidate.group).items():
        if name and len(members) > 1:
            yield Group("group", name, tuple(members))


def _jobs(crowd: Crowd, rest: Sequence[int]) -> Iterator[Group]:
    window = crowd.window

    def job_of(member: int) -> int:
        jobs = crowd.held[member].reach.jobs
        return next(iter(jobs)) if len(jobs) == 1 else -1

    for number, members in _gathered(rest, job_of).items():
        if number < 0:
            continue
        job = window.jobs[number]
        roots = [crowd.held[member].candidate.roots for member in members]
        is_told = any(one.jobs and len(one.gpus) != 1 for one in roots)
        share = len(crowd.gpus(members)) / max(len(job.gpus), 1)
        anchor = job_anchor(job.id)
        if is_told or (len(members) > 1 and share >= crowd.threshold("job", anchor)):
            yield Group("job", anchor, tuple(members))


def _users(crowd: Crowd, rest: Sequence[int]) -> Iterator[Group]:
    """Several jobs of one user, hardly any of others."""
    jobs = crowd.window.jobs
    affected = {job for member in rest for job in crowd.held[member].reach.jobs}
    of_user = Counter(job.user for job in jobs)
    hit = Counter(jobs[job].user for job in affected)
    for user, count in hit.items():
        others = (len(affected) - count) / max(len(jobs) - of_user[user], 1)
        is_theirs = count / of_user[user] >= crowd.threshold("user", user) and others <= ELSEWHERE
        members = [m for m in rest if {jobs[job].user for job in crowd.held[m].reach.jobs} == {user}]
        if user and count >= USER_JOBS and is_theirs and len(members) > 1:
            yield Group("user", f"user-{user}", tuple(members))


def _services(crowd: Crowd, rest: Sequence[int]) -> Iterator[Group]:
    window = crowd.window

    def service(member: int) -> str:
        services = crowd.held[member].reach.services
        return next(iter(services)) if len(services) == 1 else ""

    replicas = Counter(service_of(window, server) for server in range(len(window.layout.servers)))
    for name, members in _gathered(rest, service).items():
        hit = {server for member in members for server in crowd.held[member].reach.servers}
        if not name or replicas[name] < 2 or len(hit) < 2:
            continue
        if len(hit) / replicas[name] >= crowd.threshold("service", name):
            yield Group("service", name, tuple(members))


def _models(crowd: Crowd, rest: Sequence[int]) -> Iterator[Group]:
    groups = crowd.window.groups
    yield from _by_attribute(crowd, rest, "model", groups.gpu_model, groups.models)


def _drivers(crowd: Crowd, rest: Sequence[int]) -> Iterator[Group]:
    layout = crowd.window.layout
    versions = [node.driver or "" for node in layout.nodes]
    names = tuple(dict.fromkeys(versions))
    number = {name: index for index, name in enumerate(names)}
    of_node = np.array([number[version] for version in versions], dtype=np.intp)
    yield from _by_attribute(crowd, rest, "driver", of_node[crowd.window.groups.gpu_node], names)


def _by_attribute(
    crowd: Crowd, rest: Sequence[int], step: str, value_of: NDArray[np.intp], names: Sequence[str]
) -> Iterator[Group]:
    """GPUs of one kind, on several nodes, where GPUs of other kinds are spared."""
    for value, members in _gathered(rest, lambda member: _common(crowd.gpus([member]), value_of)).items():
        if value < 0 or not names[value]:
            continue
        mine = np.flatnonzero(crowd.exposed & (value_of == value))
        others = np.flatnonzero(crowd.exposed & (value_of != value))
        anchor = f"{step}-{names[value]}"
        spared = len(others) > 0 and crowd.share(rest, others) <= ELSEWHERE
        enough = len(crowd.nodes(members)) > FEWEST_NODES
        if enough and spared and crowd.share(members, mine) >= crowd.threshold(step, anchor):
            yield Group(step, anchor, tuple(members))


def _common(gpus: Iterable[int], value_of: NDArray[np.intp]) -> int:
    values = {int(value_of[gpu]) for gpu in gpus}
    return values.pop() if len(values) == 1 else -1


def _gathered(rest: Iterable[int], key: Callable[[int], Key]) -> dict[Key, list[int]]:
    found: dict[Key, list[int]] = {}
    for member in rest:
        found.setdefault(key(member), []).append(member)
    return found


STEPS: Mapping[str, Callable[[Crowd, Sequence[int]], Iterator[Group]]] = {
    "room": _room,
    "rack": _racks,
    "node": _nodes,
    "leaf": _leaves,
    "group": _same_group,
    "job": _jobs,
    "user": _users,
    "service": _services,
    "model": _models,
    "driver": _drivers,
}


def grouped(
    window: Window, held: Sequence[Held], known: Mapping[str, Collection[tuple[str, str]]]
) -> list[Group]:
    """All candidates by condition and common cause; ``known``: by detector, the groups of the last look."""
    kinds: dict[tuple[str, str], list[int]] = {}
    for number, one in enumerate(held):
        detector = one.candidate.detector
        kinds.setdefault((detector, one.candidate.variant if detector in APART else ""), []).append(number)
    found: list[Group] = []
    for (detector, _), numbers in kinds.items():
        crowd = Crowd(window, detector, [held[number] for number in numbers], known.get(detector, ()))
        found += [
            group._replace(members=tuple(numbers[member] for member in group.members))
            for group in crowd.groups(LADDERS.get(detector, ()))
        ]
    return _merged(found, held)


def _merged(groups: Iterable[Group], held: Sequence[Held]) -> list[Group]:
    """Groups of one detector with one anchor are one finding."""
    found: dict[tuple[str, str], Group] = {}
    for group in groups:
        key = (held[group.members[0]].candidate.detector, group.anchor)
        known = found.get(key)
        found[key] = group if known is None else known._replace(members=known.members + group.members)
    return list(found.values())


def anchor_of(window: Window, roots: Scope) -> str:
    """What a single candidate is called by: the narrowest thing that it names."""
    if roots.servers:
        servers = {server.key: server.name for server in window.layout.servers if server.key in roots.servers}
        return servers.get(roots.servers[0], roots.servers[0])
    if roots.jobs and len(roots.gpus) != 1:
        return job_anchor(roots.jobs[0])
    for names in (roots.gpus, roots.ports, roots.nodes, roots.racks):
        if len(names) == 1:
            return names[0]
    return next(
        (names[0] for names in (roots.racks, roots.nodes, roots.gpus, roots.ports) if names), "cluster"
    )


def job_anchor(job: str) -> str:
    """``4711`` of ``slurm:4711``; of others the whole id."""
    return job.removeprefix("slurm:")
