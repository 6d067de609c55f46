"""The narrowest common cause: GPUs of a node, nodes of a rack, ports of a leaf switch, replicas of a service, jobs of a user.

An entity stands for its parts when at least half of those that are exposed have the condition, and at least two.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from coldaisle.analyzers.arbitration import Placed
from coldaisle.analyzers.snapshot import Snapshot, Status

SHARE = 0.5
"""Of the exposed parts, from which the whole is named."""
JOBS_OF_USER = 3
FABRIC = frozenset({"interconnect_degraded", "interconnect_saturation"})
"""Conditions that a leaf switch can cause."""


@dataclass(frozen=True, slots=True)
class Group:
    """Candidates of one detector with one cause."""

    detector: str
    anchor: str
    """What is named: ``r07``, ``r11n02/3``, ``4711``, ``chat-70b``."""
    members: tuple[Placed, ...]

    @property
    def id(self) -> str:
        """The finding's."""
        return f"{self.detector}:{self.anchor}"


class Places:
    """What is exposed where in a snapshot."""

    def __init__(self, snapshot: Snapshot) -> None:
        layout = snapshot.layout
        self.snapshot = snapshot
        self.rack_of = {node.key: layout.racks[node.rack].name for node in layout.nodes}
        self.leaf_of = {node.key: node.leaf for node in layout.nodes}
        self.job_of = {job.id: job for job in snapshot.jobs}
        held = snapshot.gpu_job >= 0
        serving = {gpu for server in layout.servers for gpu in server.gpus}
        known = bool(held.any() or serving)
        self.exposed: Counter[str] = Counter()
        """GPUs that could have a condition, by node and by rack."""
        for number in layout.boards.tolist():
            if not known or held[number] or number in serving:
                node = layout.nodes[layout.gpus[number].node].key
                self.exposed[node] += 1
                self.exposed[f"rack {self.rack_of[node]}"] += 1
        self.nodes: Counter[str] = Counter(self.rack_of.values())
        self.replicas: Counter[str] = Counter(server.service or server.key for server in layout.servers)
        self.heard = int((snapshot.node_status == Status.OK).sum())


def groups(standing: Sequence[Placed], places: Places) -> list[Group]:
    """Every candidate in exactly one group."""
    by_detector: dict[str, list[Placed]] = defaultdict(list)
    for one in standing:
        by_detector[one.candidate.detector].append(one)
    return [
        group for detector, members in by_detector.items() for group in _grouped(detector, members, places)
    ]


def _grouped(detector: str, members: Sequence[Placed], places: Places) -> list[Group]:
    found: list[Group] = []
    rest = list(members)
    for gather in (_by_shared, _by_rack, _by_leaf, _by_node, _by_service, _by_job, _by_user):
        made, rest = gather(detector, rest, places)
        found += made
    return found + [Group(detector, anchor_of(one), (one,)) for one in rest]


def anchor_of(one: Placed) -> str:
    """The name of a candidate that stands alone."""
    roots = one.candidate.roots
    for keys in (
        roots.ports,
        roots.gpus if len(roots.gpus) == 1 else (),
        roots.servers,
        roots.jobs,
        roots.nodes,
        roots.gpus,
        roots.racks,
    ):
        if keys:
            return bare(keys[0])
    return "cluster"


def bare(key: str) -> str:
    """``4711`` of ``slurm:4711``; everything else as it is."""
    return key.removeprefix("slurm:")


Gathered = tuple[list[Group], list[Placed]]


def _split(detector: str, members: Iterable[Placed], whole_of: Mapping[int, str]) -> Gathered:
    """Those with a whole that stands for them, together; and the rest."""
    made: dict[str, list[Placed]] = defaultdict(list)
    rest = []
    for one in members:
        whole = whole_of.get(id(one))
        if whole is None:
            rest.append(one)
        else:
            made[whole].append(one)
    return [Group(detector, name, tuple(some)) for name, some in made.items()], rest


def _by_shared(detector: str, members: Sequence[Placed], places: Places) -> Gathered:
    """A cause that the detector names: a file system, a driver, a model."""
    jobs: dict[str, set[str]] = defaultdict(set)
    for one in members:
        if one.candidate.group:
            jobs[one.candidate.group] |= one.jobs or one.nodes
    common = {name for name, some in jobs.items() if len(some) >= 2}
    return _split(
        detector, members, {id(o): o.candidate.group for o in members if o.candidate.group in common}
    )


def _at_node(one: Placed) -> str | None:
    """The only node of a candidate that is of GPUs, ports or a node; None: it is of something else."""
    roots = one.candidate.roots
    of_hardware = roots.gpus or roots.ports or roots.nodes
    return next(iter(one.nodes)) if of_hardware and not roots.servers and len(one.nodes) == 1 else None


def _weights(members: Sequence[Placed]) -> dict[str, set[str]]:
    """By node: the GPUs, ports (or the node itself) that have the condition."""
    found: dict[str, set[str]] = defaultdict(set)
    for one in members:
        node = _at_node(one)
        if node is not None:
            roots = one.candidate.roots
            found[node] |= set(roots.gpus or roots.ports or roots.nodes)
    return found


def _is_whole(node: str, parts: set[str], places: Places) -> bool:
    if parts == {node}:
        return True
    return len(parts) >= 2 and len(parts) >= SHARE * places.exposed[node]


def _by_rack(detector: str, members: Sequence[Placed], places: Places) -> Gathered:
    by_node = _weights(members)
    count: Counter[str] = Counter()
    nodes: Counter[str] = Counter()
    for node, parts in by_node.items():
        rack = places.rack_of.get(node)
        if rack is not None:
            nodes[rack] += 1
            count[rack] += places.exposed[node] if parts == {node} else len(parts)
    racks = {
        rack for rack in count
        if nodes[rack] >= 2 and count[rack] >= SHARE * max(places.exposed[f"rack {rack}"], 1)
    }  # fmt: skip
    if len(racks) >= 3 and len(racks) >= SHARE * len(places.nodes):
        return _split(detector, members, {id(o): "cluster" for o in members if _at_node(o) is not None})
    whole: dict[int, str] = {}
    for one in members:
        node = _at_node(one) or ""
        if places.rack_of.get(node) in racks:
            whole[id(one)] = places.rack_of[node]
    return _split(detector, members, whole)


def _by_leaf(detector: str, members: Sequence[Placed], places: Places) -> Gathered:
    if detector not in FABRIC:
        return [], list(members)
    nodes: dict[str, set[str]] = defaultdict(set)
    for one in members:
        node = _at_node(one)
        leaf = places.leaf_of.get(node or "")
        if node is not None and leaf:
            nodes[leaf].add(node)
    total: Counter[str | None] = Counter(places.leaf_of.values())
    leaves = {leaf for leaf, some in nodes.items() if len(some) >= 2 and len(some) >= SHARE * total[leaf]}
    name_of = {id(one): places.leaf_of.get(_at_node(one) or "") or "" for one in members}
    return _split(detector, members, {key: name for key, name in name_of.items() if name in leaves})


def _by_node(detector: str, members: Sequence[Placed], places: Places) -> Gathered:
    whole = {node for node, parts in _weights(members).items() if _is_whole(node, parts, places)}
    return _split(
        detector, members, {id(o): node for o in members if (node := _at_node(o)) in whole and node}
    )


def _by_service(detector: str, members: Sequence[Placed], places: Places) -> Gathered:
    replicas: dict[str, set[str]] = defaultdict(set)
    for one in members:
        for service in one.services if one.candidate.roots.servers else ():
            replicas[service] |= set(one.candidate.roots.servers)
    common = {
        name
        for name, some in replicas.items()
        if len(some) >= 2 and len(some) >= SHARE * places.replicas[name]
    }
    whole = {id(o): name for o in members for name in sorted(o.services) if name in common}
    return _split(detector, members, whole)


def _by_job(detector: str, members: Sequence[Placed], places: Places) -> Gathered:
    """GPUs all over a job, in no node or rack in particular; and everything that is of the same job."""
    parts: dict[str, set[str]] = defaultdict(set)
    for one in members:
        roots = one.candidate.roots
        if len(one.jobs) == 1:
            parts[next(iter(one.jobs))] |= set(roots.gpus) or {anchor_of(one)}
    common = set()
    for key, some in parts.items():
        job = places.job_of.get(key)
        if job is not None and len(some) >= 2 and len(some) >= SHARE * max(len(job.gpus), 1):
            common.add(key)
    whole = {
        id(o): bare(next(iter(o.jobs))) for o in members if len(o.jobs) == 1 and next(iter(o.jobs)) in common
    }
    return _split(detector, members, whole)


def _by_user(detector: str, members: Sequence[Placed], places: Places) -> Gathered:
    """Several jobs of one user with the same trouble of the same kind: it is in how they are run."""
    jobs: dict[tuple[str, str], list[Placed]] = defaultdict(list)
    for one in members:
        if one.candidate.roots.jobs and len(one.jobs) == 1:
            job = places.job_of.get(next(iter(one.jobs)))
            if job is not None and job.user:
                jobs[job.user, one.candidate.variant].append(one)
    whole = {id(o): user for (user, _), some in jobs.items() if len(some) >= JOBS_OF_USER for o in some}
    return _split(detector, members, whole)
