"""What a Kubernetes cluster says of itself: pods that ask for GPUs, their owners, replicas, nodes and racks.

Read from the series of kube-state-metrics (and of kube-scheduler's ``/metrics/resources``), wherever these
come from: a page, or a Prometheus-compatible server. :data:`SERIES` says which names and which of their
labels are read, and what else may be left out of a query; a :class:`Survey` takes the labelled values in
any order, several shards or servers into one by :meth:`Survey.absorb`; a :class:`Teller` turns surveys into
the facts that are news. Pure: no clock, no socket.

To ask a server: for each :class:`Asked`, ``max by (LABELS) (NAME{ONLY})``, with ``!= 0`` behind it where
``is_flag``. A server that scraped without ``honor_labels`` has ``exported_namespace``, ``exported_pod``,
``exported_node`` and ``exported_container`` for the real ones: ask for those too; they are believed first.

Only names that Kubernetes itself allows are taken. Nobody's owner is guessed from a pod's name: an owner
that no series tells of is where the chain ends (a ReplicaSet instead of its Deployment).
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import NamedTuple

from coldaisle.sources.racks import looks_like_racks
from coldaisle.sources.source import NodeFact, PodFact, ServiceFact

MAX_PODS = 50_000
MAX_OBJECTS = 100_000
"""Of each other kind."""
MAX_NODES = 10_000
MAX_SERVICES = 5_000
MAX_BOARDS = 16
"""Of a node. More are shares of boards that a device plugin hands out, or MIG instances."""
_LONGEST_CHAIN = 6

LEADER_WORKER_SET = "label_leaderworkerset_sigs_k8s_io_name"
GPU_COUNT = "label_nvidia_com_gpu_count"
GPU_REPLICAS = "label_nvidia_com_gpu_replicas"
MIG_STRATEGY = "label_nvidia_com_mig_strategy"
ZONE = "label_topology_kubernetes_io_zone"
CLIQUE = "label_nvidia_com_gpu_clique"
RACK_LABELS: Mapping[str, str] = MappingProxyType(
    {
        "label_topology_kubernetes_io_rack": "topology.kubernetes.io/rack",
        CLIQUE: "nvidia.com/gpu.clique",
        "label_network_topology_nvidia_com_accelerator": "network.topology.nvidia.com/accelerator",
        "label_network_topology_nvidia_com_leaf": "network.topology.nvidia.com/leaf",
        "label_network_topology_nvidia_com_tier_0": "network.topology.nvidia.com/tier-0",
        "label_network_topology_nvidia_com_block": "network.topology.nvidia.com/block",
        ZONE: "topology.kubernetes.io/zone",
    }
)
"""As kube-state-metrics writes a label → the label. The first that most GPU nodes have says where the racks are."""
LABELS_REMEDY = (
    "start kube-state-metrics with --metric-labels-allowlist="
    "nodes=[topology.kubernetes.io/rack,nvidia.com/gpu.clique,nvidia.com/gpu.count]"
    ",pods=[leaderworkerset.sigs.k8s.io/name]"
)

_POD = ("namespace", "pod", "uid")
_GPUS = 'resource=~"(nvidia|amd).*"'
_GPU_NEEDLES = ('"nvidia', '"amd')


class Asked(NamedTuple):
    """A metric that is read."""

    name: str
    labels: tuple[str, ...]
    """The only ones that are looked at."""
    only: str = ""
    """A matcher for a query: other series say nothing to us."""
    needles: tuple[str, ...] = ()
    """The same for a line of a page: it holds one of these."""
    is_flag: bool = False
    """A value of 0 says nothing."""


SERIES: tuple[Asked, ...] = (
    Asked("kube_pod_info", (*_POD, "node", "created_by_kind", "created_by_name")),
    Asked("kube_pod_owner", (*_POD, "owner_kind", "owner_name", "owner_is_controller")),
    Asked("kube_pod_status_phase", (*_POD, "phase"), is_flag=True),
    Asked("kube_pod_created", _POD),
    Asked("kube_pod_start_time", _POD),
    Asked("kube_pod_completion_time", _POD),
    Asked("kube_pod_status_reason", (*_POD, "reason"), is_flag=True),
    Asked("kube_pod_status_unschedulable", _POD, is_flag=True),
    Asked("kube_pod_container_status_waiting_reason", (*_POD, "container", "reason"), is_flag=True),
    Asked(
        "kube_pod_container_resource_requests",
        (*_POD, "container", "node", "resource"),
        _GPUS,
        _GPU_NEEDLES,
    ),
    Asked("kube_pod_resource_request", ("namespace", "pod", "node", "resource"), _GPUS, _GPU_NEEDLES),
    Asked(
        "kube_pod_labels", (*_POD, LEADER_WORKER_SET), f'{LEADER_WORKER_SET}!=""', (f"{LEADER_WORKER_SET}=",)
    ),
    Asked("kube_replicaset_owner", ("namespace", "replicaset", "owner_kind", "owner_name")),
    Asked("kube_job_owner", ("namespace", "job_name", "owner_kind", "owner_name")),
    Asked("kube_deployment_spec_replicas", ("namespace", "deployment")),
    Asked("kube_deployment_status_replicas_ready", ("namespace", "deployment")),
    Asked("kube_statefulset_replicas", ("namespace", "statefulset")),
    Asked("kube_statefulset_status_replicas_ready", ("namespace", "statefulset")),
    Asked("kube_node_spec_unschedulable", ("node",)),
    Asked(
        "kube_node_status_condition",
        ("node", "condition", "status"),
        'condition="Ready"',
        ('condition="Ready"',),
        is_flag=True,
    ),
    Asked("kube_node_status_capacity", ("node", "resource"), _GPUS, _GPU_NEEDLES),
    Asked("kube_node_status_allocatable", ("node", "resource"), _GPUS, _GPU_NEEDLES),
    Asked("kube_node_labels", ("node", GPU_COUNT, GPU_REPLICAS, MIG_STRATEGY, *RACK_LABELS)),
)
"""Everything that is read, and no more."""

_NAME = re.compile(r"[a-z0-9](?:[a-z0-9.:-]{0,251}[a-z0-9])?", re.ASCII)
"""An object's name (RFC 1123; a colon for names of system objects)."""
_KIND = re.compile(r"[A-Za-z][A-Za-z0-9]{0,62}", re.ASCII)
_RESOURCE = re.compile(r"nvidia_com_(?:gpu|mig)(?:_\w+)?|amd_com_\w+", re.ASCII)
_ODD = re.compile(r"[^A-Za-z0-9]", re.ASCII)
_BOARDS = ("nvidia_com_gpu", "amd_com_gpu")
_NOBODY = ("", "<none>")
_DAEMONS = ("DaemonSet", "Node")
_OVER = ("Succeeded", "Failed")
_NAN = math.nan

_PodKey = tuple[str, str, str]
_Object = tuple[str, str, str]
"""namespace, kind, name"""


@dataclass(slots=True)
class _Pod:
    node: str = ""
    phase: str = ""
    owner: tuple[str, str] = ("", "")
    is_controlled: bool = False
    """The owner is the one that controls it, not one of several."""
    workload: str = ""
    """The LeaderWorkerSet that its labels name."""
    created: float = _NAN
    started: float = _NAN
    ended: float = _NAN
    asked: dict[tuple[str, str], float] = field(default_factory=dict)
    """(container, resource) → how many."""
    granted: dict[str, float] = field(default_factory=dict)
    """Resource → how many, as the scheduler counts."""
    waiting: str = ""


@dataclass(slots=True)
class _Node:
    unschedulable: bool | None = None
    ready: bool | None = None
    capacity: dict[str, float] = field(default_factory=dict)
    allocatable: dict[str, float] = field(default_factory=dict)
    labels: dict[str, str] = field(default_factory=dict)


@dataclass(slots=True)
class _Replicas:
    expected: int | None = None
    ready: int | None = None


class Pod(NamedTuple):
    """A pod as its series describe it. Times in seconds since the epoch, NaN: not exported."""

    namespace: str
    name: str
    uid: str
    owner_kind: str
    owner: str
    node: str
    """Empty: it waits for one."""
    phase: str
    gpus: int | None
    created: float
    started: float
    ended: float
    waiting: str

    @property
    def is_over(self) -> bool:
        """Whether it has run to its end and holds nothing any more."""
        return self.phase in _OVER


class Survey:
    """What labelled series say of a cluster. Other series are passed over; those with impossible names are counted."""

    def __init__(self) -> None:
        self.left_out = 0
        """Series beyond the bounds, or of names that Kubernetes does not allow."""
        self._pods: dict[_PodKey, _Pod] = {}
        self._nodes: dict[str, _Node] = {}
        self._owners: dict[_Object, tuple[str, str]] = {}
        self._replicas: dict[_Object, _Replicas] = {}

    @property
    def is_empty(self) -> bool:
        """Whether nothing of what is read was there."""
        return not (self._pods or self._nodes or self._owners or self._replicas)

    def take(self, name: str, labels: Mapping[str, str], value: float) -> None:
        """One series with its value now."""
        take = _TAKES.get(name)
        if take is not None and value == value and not take(self, labels, value):
            self.left_out += 1

    def absorb(self, other: Survey) -> None:
        """All that ``other`` knows too: another shard's page, or the scheduler's. It keeps being its own."""
        for key, pod in other._pods.items():
            mine = self._pods.get(key)
            self._pods[key] = _joined_pods(mine, pod) if mine else pod
        for name, node in other._nodes.items():
            known = self._nodes.get(name)
            self._nodes[name] = _joined_nodes(known, node) if known else node
        self._owners |= other._owners
        self._replicas |= other._replicas
        self.left_out += other.left_out

    # --- what it comes to ----------------------------------------------------------------------

    def pods(self) -> list[Pod]:
        """Every pod once: of two of one name (an old one lingers in a server's answer) the younger."""
        best: dict[tuple[str, str], _PodKey] = {}
        for key, pod in self._pods.items():
            named = key[:2]
            if named not in best or _age_key(key, pod) > _age_key(best[named], self._pods[best[named]]):
                best[named] = key
        is_known = any(pod.asked or pod.granted for pod in self._pods.values())
        return [self._pod(key, is_known) for key in best.values()]

    def nodes(self, pods: Iterable[Pod]) -> list[Node]:
        """The nodes with GPUs. Others are no business of ours."""
        held: Counter[str] = Counter()
        is_known = False
        for pod in pods:
            if pod.gpus is not None:
                is_known = True
                if pod.node and not pod.is_over:
                    held[pod.node] += pod.gpus
        named = {name: node for name, node in self._nodes.items() if _has_gpus(node) or held[name]}
        racks = racks_from({name: node.labels for name, node in named.items()})
        return [
            Node(name, _state(node, held[name] if is_known else None), _boards(node), racks.get(name))
            for name, node in named.items()
        ]

    def replicas(self, namespace: str, kind: str, name: str) -> tuple[int | None, int | None]:
        """(ready, expected) of a Deployment, a StatefulSet, or a LeaderWorkerSet: its leaders are a StatefulSet."""
        kind = "StatefulSet" if kind == "LeaderWorkerSet" else kind
        known = self._replicas.get((namespace, kind, name))
        return (known.ready, known.expected) if known else (None, None)

    def has_node(self, name: str) -> bool:
        """Whether the cluster has a node of this name."""
        return name in self._nodes

    @property
    def has_racks(self) -> bool:
        """Whether any node has a label that can say where it stands."""
        return any(RACK_LABELS.keys() & node.labels.keys() for node in self._nodes.values())

    def _pod(self, key: _PodKey, is_known: bool) -> Pod:
        namespace, name, uid = key
        pod = self._pods[key]
        loose = self._pods.get((namespace, name, "")) if uid else None  # the scheduler's words have no uid
        granted = (loose.granted if loose else {}) or pod.granted
        gpus = sum(granted.values()) if granted else sum(pod.asked.values())
        kind, owner = self._owner(namespace, name, pod)
        return Pod(
            namespace,
            name,
            uid,
            kind,
            owner,
            pod.node or (loose.node if loose else ""),
            pod.phase,
            round(gpus) if is_known else None,
            pod.created,
            pod.started,
            pod.ended,
            pod.waiting,
        )

    def _owner(self, namespace: str, name: str, pod: _Pod) -> tuple[str, str]:
        """The top of the chain of owners, as far as series tell of it."""
        if pod.workload:
            return "LeaderWorkerSet", pod.workload
        kind, owner = pod.owner
        if not owner or kind == "Node":
            return ("Node" if kind == "Node" else "Pod"), (owner or name)
        for _ in range(_LONGEST_CHAIN):
            above = self._owners.get((namespace, kind, owner))
            if above is None:
                break
            kind, owner = above
        return kind, owner

    # --- series by series; False: left out ------------------------------------------------------

    def _pod_of(self, labels: Mapping[str, str]) -> _Pod | None:
        namespace, name = _label(labels, "namespace"), _label(labels, "pod")
        key = (namespace, name, labels.get("uid", "")[:64])
        pod = self._pods.get(key)
        if pod is None and _are_names(namespace, name) and len(self._pods) < MAX_PODS:
            pod = self._pods[key] = _Pod()
        return pod

    def _node_of(self, labels: Mapping[str, str]) -> _Node | None:
        name = _label(labels, "node")
        node = self._nodes.get(name)
        if node is None and _are_names(name) and len(self._nodes) < MAX_NODES:
            node = self._nodes[name] = _Node()
        return node

    def _take_pod_info(self, labels: Mapping[str, str], _: float) -> bool:
        pod = self._pod_of(labels)
        if pod is None or not self._stands_on(pod, labels):
            return False
        if not pod.is_controlled:
            pod.owner = _owner(labels, "created_by_kind", "created_by_name") or pod.owner
        return True

    def _take_pod_owner(self, labels: Mapping[str, str], _: float) -> bool:
        pod = self._pod_of(labels)
        owner = _owner(labels, "owner_kind", "owner_name")
        if pod is None or owner is None:
            return pod is not None and labels.get("owner_name", "") in _NOBODY
        is_controller = labels.get("owner_is_controller") == "true"
        if is_controller or not pod.is_controlled:
            pod.owner, pod.is_controlled = owner, is_controller
        return True

    def _take_phase(self, labels: Mapping[str, str], value: float) -> bool:
        pod = self._pod_of(labels)
        if pod is not None and value:
            pod.phase = labels.get("phase", "")[:16]
        return pod is not None

    def _take_created(self, labels: Mapping[str, str], value: float) -> bool:
        pod = self._pod_of(labels)
        if pod is not None:
            pod.created = value
        return pod is not None

    def _take_started(self, labels: Mapping[str, str], value: float) -> bool:
        pod = self._pod_of(labels)
        if pod is not None:
            pod.started = value
        return pod is not None

    def _take_ended(self, labels: Mapping[str, str], value: float) -> bool:
        pod = self._pod_of(labels)
        if pod is not None:
            pod.ended = value
        return pod is not None

    def _take_waiting(self, labels: Mapping[str, str], value: float) -> bool:
        pod = self._pod_of(labels)
        if pod is not None and value:
            pod.waiting = labels.get("reason", "")[:64] or pod.waiting
        return pod is not None

    def _take_unschedulable(self, labels: Mapping[str, str], value: float) -> bool:
        pod = self._pod_of(labels)
        if pod is not None and value:
            pod.waiting = pod.waiting or "Unschedulable"
        return pod is not None

    def _take_asked(self, labels: Mapping[str, str], value: float) -> bool:
        resource = _gpu_resource(labels)
        pod = self._pod_of(labels) if resource and _is_count(value) else None
        if pod is None or not self._stands_on(pod, labels):
            return not resource
        if len(pod.asked) < MAX_BOARDS * 4:
            pod.asked[_label(labels, "container"), resource] = value
        return True

    def _take_granted(self, labels: Mapping[str, str], value: float) -> bool:
        resource = _gpu_resource(labels)
        pod = self._pod_of(labels) if resource and _is_count(value) else None
        if pod is None or not self._stands_on(pod, labels):
            return not resource
        if len(pod.granted) < MAX_BOARDS:
            pod.granted[resource] = value
        return True

    def _take_pod_labels(self, labels: Mapping[str, str], _: float) -> bool:
        workload = labels.get(LEADER_WORKER_SET, "")
        if not workload:
            return True
        pod = self._pod_of(labels) if _are_names(workload) else None
        if pod is not None:
            pod.workload = workload
        return pod is not None

    def _stands_on(self, pod: _Pod, labels: Mapping[str, str]) -> bool:
        """Learn the pod's node, if there is one; False: it is no node's name."""
        node = _label(labels, "node")
        if node and not _are_names(node):
            return False
        pod.node = node or pod.node
        return True

    def _take_owner(self, kind: str, label: str, labels: Mapping[str, str]) -> bool:
        namespace, name = _label(labels, "namespace"), labels.get(label, "")
        owner = _owner(labels, "owner_kind", "owner_name")
        if owner is None:
            return labels.get("owner_name", "") in _NOBODY
        if not _are_names(namespace, name) or len(self._owners) >= MAX_OBJECTS:
            return False
        self._owners[namespace, kind, name] = owner
        return True

    def _take_replicas(self, kind: str, labels: Mapping[str, str], value: float, is_ready: bool) -> bool:
        key = (_label(labels, "namespace"), kind, labels.get(kind.lower(), ""))
        known = self._replicas.get(key)
        if known is None:
            if not _are_names(key[0], key[2]) or len(self._replicas) >= MAX_OBJECTS:
                return False
            known = self._replicas[key] = _Replicas()
        if not _is_count(value):
            return False
        if is_ready:
            known.ready = round(value)
        else:
            known.expected = round(value)
        return True

    def _take_unschedulable_node(self, labels: Mapping[str, str], value: float) -> bool:
        node = self._node_of(labels)
        if node is not None:
            node.unschedulable = bool(value)
        return node is not None

    def _take_condition(self, labels: Mapping[str, str], value: float) -> bool:
        if labels.get("condition") != "Ready" or not value:
            return True
        node = self._node_of(labels)
        if node is not None:
            node.ready = labels.get("status") == "true"
        return node is not None

    def _take_room(self, labels: Mapping[str, str], value: float, is_capacity: bool) -> bool:
        resource = _gpu_resource(labels)
        node = self._node_of(labels) if resource and _is_count(value) else None
        if node is None:
            return not resource
        room = node.capacity if is_capacity else node.allocatable
        if len(room) < 4 * MAX_BOARDS:
            room[resource] = value
        return True

    def _take_node_labels(self, labels: Mapping[str, str], _: float) -> bool:
        node = self._node_of(labels)
        if node is not None:
            node.labels = {name: labels[name][:128] for name in _NODE_LABELS if labels.get(name)}
        return node is not None


class Node(NamedTuple):
    """A node with GPUs, in the cluster's own words."""

    name: str
    state: str | None
    gpus: int | None
    """Boards it should have; None: its count is one of shares or instances, or not exported."""
    rack: tuple[str, str] | None
    """Its rack, and how that is known."""


class Teller:
    """Turns surveys into facts: each once, and again when something of it changes. Keeps what it has told."""

    def __init__(self) -> None:
        self.summary = ""
        """What the last survey came to, in a line for people."""
        self._pods: dict[tuple[str, str], PodFact] = {}
        self._nodes: dict[str, NodeFact] = {}
        self._services: dict[str, ServiceFact] = {}
        self._serving: set[tuple[str, str, str]] = set()
        """(namespace, kind, name) of workloads that have asked for GPUs: their replicas are worth telling."""

    def tell(self, survey: Survey, at: float) -> list[PodFact | NodeFact | ServiceFact]:
        """What is new since the last survey, pods that are gone included."""
        pods = survey.pods()
        news: list[PodFact | NodeFact | ServiceFact] = [*self._tell_pods(pods, at)]
        news += self._tell_nodes(survey, survey.nodes(pods), at)
        news += self._tell_services(survey, pods, at)
        self.summary = _summary(pods)
        return news

    def _tell_pods(self, pods: Iterable[Pod], at: float) -> Iterable[PodFact]:
        before, self._pods = self._pods, {}
        for pod in pods:
            known = before.get((pod.namespace, pod.name))
            if known is not None and known.uid != pod.uid:
                yield replace(known, until=at)
                known = None
            if pod.is_over:
                if known is not None:
                    yield replace(known, until=_time_or(pod.ended, at), phase=pod.phase)
                    del before[pod.namespace, pod.name]
                continue
            if pod.owner_kind in _DAEMONS and not pod.gpus:
                continue
            fact = _pod_fact(pod, known, at)
            self._pods[pod.namespace, pod.name] = fact
            if fact != known:
                yield fact
        for named in before.keys() - self._pods.keys():
            yield replace(before[named], until=at)

    def _tell_nodes(self, survey: Survey, nodes: Iterable[Node], at: float) -> Iterable[NodeFact]:
        for node in nodes:
            rack, place = node.rack or (None, None)
            fact = NodeFact(
                at, node.name, rack=rack, place=place, gpus_expected=node.gpus, state=node.state or ""
            )
            known = self._nodes.get(node.name)
            if known is None or replace(known, at=at) != fact:
                self._nodes[node.name] = fact
                yield fact
        for name in [name for name in self._nodes if not survey.has_node(name)]:
            del self._nodes[name]
            yield NodeFact(at, name, gpus_expected=0, state="removed")

    def _tell_services(self, survey: Survey, pods: Iterable[Pod], at: float) -> Iterable[ServiceFact]:
        for pod in pods:
            if pod.gpus and len(self._serving) < MAX_SERVICES:
                self._serving.add((pod.namespace, pod.owner_kind, pod.owner))
        for namespace, kind, name in sorted(self._serving):
            ready, expected = survey.replicas(namespace, kind, name)
            key = f"{namespace}/{name}"
            if ready is None and expected is None and key not in self._services:
                continue
            fact = ServiceFact(at, key, ready, expected)
            known = self._services.get(key)
            if known is None or (known.ready, known.expected) != (ready, expected):
                self._services[key] = fact
                yield fact


def racks_from(labels: Mapping[str, Mapping[str, str]]) -> dict[str, tuple[str, str]]:
    """Node → (rack, how it is known), by the first label that at least half of the nodes have.

    A zone counts only where its values look like racks: it mostly is a data centre. ``labels``: by node.
    """
    for written, label in RACK_LABELS.items():
        found = {node: values[written] for node, values in labels.items() if values.get(written)}
        if 2 * len(found) < len(labels) or not found:
            continue
        if written == ZONE and not looks_like_racks(found.values()):
            continue
        if written == CLIQUE:
            found = _short_cliques(found)
        return {node: (rack, f"label {label}") for node, rack in found.items()}
    return {}


def _short_cliques(cliques: Mapping[str, str]) -> dict[str, str]:
    """``7b968a6d-c8aa-45e1-9e07-e1e51be99c31.1`` → ``clique 7b968a6d.1``, where that tells them apart."""
    short = {}
    for whole in set(cliques.values()):
        cluster, _, number = whole.rpartition(".")
        short[whole] = f"clique {cluster[:8]}.{number}"
    if len(set(short.values())) < len(short):
        return dict(cliques)
    return {node: short[whole] for node, whole in cliques.items()}


def _state(node: _Node, held: int | None) -> str | None:
    """In the words of schedulers; ``held``: GPUs that its pods ask for, None: not known."""
    if node.ready is False:
        return "down"
    if node.unschedulable:
        return "drain"
    room = sum((node.allocatable or node.capacity).values())
    if held is None or not room:
        return None
    return "alloc" if held >= room else "mix" if held else "idle"


def _boards(node: _Node) -> int | None:
    """How many boards it should have. A device plugin may count shares or instances instead."""
    counted = node.labels.get(GPU_COUNT, "")
    if counted.isascii() and counted.isdecimal() and int(counted[:4]) <= 64:
        return int(counted[:4])
    is_split = any("_mig_" in resource and many for resource, many in node.capacity.items())
    is_shared = node.labels.get(GPU_REPLICAS, "1") not in ("0", "1")
    boards = [node.capacity[name] for name in _BOARDS if name in node.capacity]
    if not boards or is_split or is_shared or node.labels.get(MIG_STRATEGY) == "single":
        return None
    return round(sum(boards)) if sum(boards) <= MAX_BOARDS else None


def _has_gpus(node: _Node) -> bool:
    return any(node.capacity.values()) or node.labels.get(GPU_COUNT, "0") != "0"


def _pod_fact(pod: Pod, known: PodFact | None, at: float) -> PodFact:
    first = known.since if known is not None else at
    began = pod.started if pod.node else pod.created
    return PodFact(
        since=min(_time_or(began, _time_or(pod.created, first)), at),
        until=None,
        namespace=pod.namespace,
        pod=pod.name,
        owner_kind=pod.owner_kind,
        owner=pod.owner,
        uid=pod.uid,
        node=pod.node or None,
        phase=pod.phase,
        gpus=pod.gpus,
        waiting=pod.waiting if pod.phase != "Running" else "",
    )


def _summary(pods: Iterable[Pod]) -> str:
    alive = [pod for pod in pods if not pod.is_over]
    holding = [pod.gpus for pod in alive if pod.gpus and pod.node]
    waiting = [pod.gpus for pod in alive if pod.gpus and not pod.node]
    told = f"pods: {len(alive)}"
    if any(pod.gpus is not None for pod in alive):
        told += f", with GPUs: {len(holding)} ({sum(holding)} GPUs)"
    return f"{told}, waiting for GPUs: {len(waiting)} ({sum(waiting)} GPUs)" if waiting else told


def _time_or(value: float, other: float) -> float:
    return value if math.isfinite(value) and value > 0 else other


def _age_key(key: _PodKey, pod: _Pod) -> tuple[bool, float]:
    """The younger is greater; a record without a uid is nobody where another has one."""
    return bool(key[2]), _time_or(pod.created, _time_or(pod.started, 0.0))


def _label(labels: Mapping[str, str], name: str) -> str:
    return labels.get(f"exported_{name}") or labels.get(name, "")


def _are_names(*names: str) -> bool:
    return all(_NAME.fullmatch(name) for name in names)


def _owner(labels: Mapping[str, str], kind: str, name: str) -> tuple[str, str] | None:
    found = (labels.get(kind, ""), labels.get(name, ""))
    return found if _KIND.fullmatch(found[0]) and _are_names(found[1]) else None


def _gpu_resource(labels: Mapping[str, str]) -> str:
    """``nvidia_com_gpu`` of ``nvidia.com/gpu``; empty: no GPU."""
    resource = _ODD.sub("_", labels.get("resource", "")[:64])
    return resource if _RESOURCE.fullmatch(resource) else ""


def _is_count(value: float) -> bool:
    return 0 <= value <= 1_000_000


def _joined_pods(old: _Pod, new: _Pod) -> _Pod:
    return _Pod(
        node=new.node or old.node,
        phase=new.phase or old.phase,
        owner=new.owner if new.owner[1] and (new.is_controlled or not old.is_controlled) else old.owner,
        is_controlled=new.is_controlled or old.is_controlled,
        workload=new.workload or old.workload,
        created=_time_or(new.created, old.created),
        started=_time_or(new.started, old.started),
        ended=_time_or(new.ended, old.ended),
        asked=old.asked | new.asked,
        granted=old.granted | new.granted,
        waiting=new.waiting or old.waiting,
    )


def _joined_nodes(old: _Node, new: _Node) -> _Node:
    return _Node(
        unschedulable=old.unschedulable if new.unschedulable is None else new.unschedulable,
        ready=old.ready if new.ready is None else new.ready,
        capacity=old.capacity | new.capacity,
        allocatable=old.allocatable | new.allocatable,
        labels=old.labels | new.labels,
    )


_NODE_LABELS = (GPU_COUNT, GPU_REPLICAS, MIG_STRATEGY, *RACK_LABELS)
_Take = Callable[[Survey, Mapping[str, str], float], bool]
_TAKES: Mapping[str, _Take] = {
    "kube_pod_info": Survey._take_pod_info,
    "kube_pod_owner": Survey._take_pod_owner,
    "kube_pod_status_phase": Survey._take_phase,
    "kube_pod_created": Survey._take_created,
    "kube_pod_start_time": Survey._take_started,
    "kube_pod_completion_time": Survey._take_ended,
    "kube_pod_status_reason": Survey._take_waiting,
    "kube_pod_status_unschedulable": Survey._take_unschedulable,
    "kube_pod_container_status_waiting_reason": Survey._take_waiting,
    "kube_pod_container_resource_requests": Survey._take_asked,
    "kube_pod_resource_request": Survey._take_granted,
    "kube_pod_labels": Survey._take_pod_labels,
    "kube_replicaset_owner": lambda s, labels, _: s._take_owner("ReplicaSet", "replicaset", labels),
    "kube_job_owner": lambda s, labels, _: s._take_owner("Job", "job_name", labels),
    "kube_deployment_spec_replicas": lambda s, labels, v: s._take_replicas("Deployment", labels, v, False),
    "kube_deployment_status_replicas_ready": lambda s, labels, v: s._take_replicas("Deployment", labels, v, True),
    "kube_statefulset_replicas": lambda s, labels, v: s._take_replicas("StatefulSet", labels, v, False),
    "kube_statefulset_status_replicas_ready": lambda s, labels, v: s._take_replicas("StatefulSet", labels, v, True),
    "kube_node_spec_unschedulable": Survey._take_unschedulable_node,
    "kube_node_status_condition": Survey._take_condition,
    "kube_node_status_capacity": lambda s, labels, v: s._take_room(labels, v, True),
    "kube_node_status_allocatable": lambda s, labels, v: s._take_room(labels, v, False),
    "kube_node_labels": Survey._take_node_labels,
}  # fmt: skip
