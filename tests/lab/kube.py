"""A generated kube-state-metrics page, written as kube-state-metrics writes it: family by family, HELP and TYPE first."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

PHASES = ("Pending", "Succeeded", "Failed", "Unknown", "Running")


@dataclass(frozen=True)
class KubePod:
    """A pod. ``resource`` is spelt as kube-state-metrics does."""

    namespace: str
    name: str
    node: str = ""
    owner: tuple[str, str] = ("", "")
    gpus: int = 0
    phase: str = "Running"
    started: float = 1_700_000_000.0
    uid: str = ""
    resource: str = "nvidia_com_gpu"
    labels: dict[str, str] = field(default_factory=dict)
    waiting: str = ""

    @property
    def base(self) -> dict[str, str]:
        uid = self.uid or f"{self.namespace}-{self.name}-uid"
        return {"namespace": self.namespace, "pod": self.name, "uid": uid}


@dataclass(frozen=True)
class KubeNode:
    """A node with its labels as kube-state-metrics writes them."""

    name: str
    gpus: int = 8
    labels: dict[str, str] = field(default_factory=dict)
    is_cordoned: bool = False
    is_ready: bool = True
    capacity: dict[str, int] = field(default_factory=dict)


@dataclass
class Cluster:
    """What the page tells."""

    pods: list[KubePod] = field(default_factory=list)
    nodes: list[KubeNode] = field(default_factory=list)
    owners: list[tuple[str, str, str, str, str]] = field(default_factory=list)
    """(namespace, kind, name, owner's kind, owner's name) of ReplicaSets and Jobs."""
    deployments: list[tuple[str, str, int, int]] = field(default_factory=list)
    """(namespace, name, expected, ready)."""
    statefulsets: list[tuple[str, str, int, int]] = field(default_factory=list)

    def page(self) -> bytes:
        """The whole page."""
        families: dict[str, list[str]] = {}
        for name, labels, value in self._samples():
            families.setdefault(name, []).append(_line(name, labels, value))
        return "".join(
            f"# HELP {name} [STABLE] Of a test.\n# TYPE {name} gauge\n{''.join(lines)}"
            for name, lines in sorted(families.items())
        ).encode()

    def _samples(self) -> Iterator[tuple[str, dict[str, str], object]]:
        yield "kube_configmap_info", {"namespace": "kube-system", "configmap": "coredns"}, 1
        for node in self.nodes:
            yield from _node_samples(node)
        for pod in self.pods:
            yield from _pod_samples(pod)
        for namespace, kind, name, owner_kind, owner in self.owners:
            label = {"ReplicaSet": "replicaset", "Job": "job_name"}[kind]
            labels = {"namespace": namespace, label: name, "owner_kind": owner_kind, "owner_name": owner}
            yield f"kube_{kind.lower()}_owner", {**labels, "owner_is_controller": "true"}, 1
        for namespace, name, expected, ready in self.deployments:
            labels = {"namespace": namespace, "deployment": name}
            yield "kube_deployment_spec_replicas", labels, expected
            yield "kube_deployment_status_replicas_ready", labels, ready
        for namespace, name, expected, ready in self.statefulsets:
            labels = {"namespace": namespace, "statefulset": name}
            yield "kube_statefulset_replicas", labels, expected
            yield "kube_statefulset_status_replicas_ready", labels, ready


def _pod_samples(pod: KubePod) -> Iterable[tuple[str, dict[str, str], object]]:
    base = pod.base
    kind, owner = pod.owner
    info = {"host_ip": "10.0.0.1", "pod_ip": "10.1.0.1", "node": pod.node}
    yield "kube_pod_info", {**base, **info, "created_by_kind": kind, "created_by_name": owner}, 1
    is_controller = "true" if kind else ""
    yield (
        "kube_pod_owner",
        {**base, "owner_kind": kind, "owner_name": owner, "owner_is_controller": is_controller},
        1,
    )
    yield "kube_pod_created", base, f"{pod.started - 5:.10e}"
    if pod.node:
        yield "kube_pod_start_time", base, f"{pod.started:.10e}"
    for phase in PHASES:
        yield "kube_pod_status_phase", {**base, "phase": phase}, int(phase == pod.phase)
    yield "kube_pod_labels", {**base, **pod.labels}, 1
    if pod.waiting:
        yield "kube_pod_status_unschedulable", base, 1
    requests = {"cpu": 8, "memory": 6.4e10} | ({pod.resource: pod.gpus} if pod.gpus else {})
    for resource, count in requests.items():
        labels = {**base, "container": "main", "node": pod.node, "resource": resource, "unit": "integer"}
        yield "kube_pod_container_resource_requests", labels, count


def _node_samples(node: KubeNode) -> Iterable[tuple[str, dict[str, str], object]]:
    base = {"node": node.name}
    yield "kube_node_info", {**base, "kernel_version": "6.8.0", "internal_ip": "10.0.0.1"}, 1
    yield "kube_node_labels", {**base, **node.labels}, 1
    yield "kube_node_spec_unschedulable", base, int(node.is_cordoned)
    for status in ("true", "false", "unknown"):
        value = int((status == "true") == node.is_ready and status != "unknown")
        yield "kube_node_status_condition", {**base, "condition": "Ready", "status": status}, value
        labels = {**base, "condition": "DiskPressure", "status": status}
        yield "kube_node_status_condition", labels, int(status == "false")
    room = node.capacity or ({"nvidia_com_gpu": node.gpus} if node.gpus else {})
    for resource, count in ({"cpu": 192} | room).items():
        for family in ("capacity", "allocatable"):
            yield f"kube_node_status_{family}", {**base, "resource": resource, "unit": "integer"}, count


def _line(name: str, labels: dict[str, str], value: object) -> str:
    block = ",".join(f'{key}="{_escaped(text)}"' for key, text in labels.items())
    return f"{name}{{{block}}} {value}\n"


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
