"""Kubernetes pods as jobs of their owners.

Two sources know half of it each: a GPU's labels name the pod that holds it, kube-state-metrics names the
pod's owner and its node. :class:`Workloads` keeps the pods and puts both together when somebody asks.
A pod whose owner nobody told stays a job of its own; GPUs nobody named are not made up.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from coldaisle.sources.source import JobFact, PodFact

MAX_PODS = 50_000
ENDED_POD_KEPT_S = 3600.0
_SERVICES = ("Deployment", "StatefulSet", "LeaderWorkerSet", "ReplicaSet", "Rollout")
"""Kinds of owners whose pods are replicas of one service."""


class Workloads:
    """The pods of a cluster, those that ended within the last hour included."""

    def __init__(self) -> None:
        self._pods: dict[tuple[str, str, str], PodFact] = {}
        """By namespace, name and uid."""
        self._newest: dict[tuple[str, str], PodFact] = {}
        self._asking: dict[tuple[str, str, str], PodFact] = {}
        """Those that ask for GPUs."""
        self._prune_at = 1000

    @property
    def is_empty(self) -> bool:
        """Whether no pod is known."""
        return not self._pods

    def take(self, fact: PodFact) -> bool:
        """A pod began, changed or ended. Whether another owner is known now than before, for a pod of this name."""
        key, named = (fact.namespace, fact.pod, fact.uid), (fact.namespace, fact.pod)
        if key not in self._pods and len(self._pods) >= self._prune_at:
            self._prune(fact.since if fact.until is None else fact.until)
            if len(self._pods) >= MAX_PODS:
                return False
        self._pods[key] = fact
        if fact.gpus:
            self._asking[key] = fact
        else:
            self._asking.pop(key, None)
        before = self._newest.get(named)
        if before is not None and before.uid != fact.uid and before.since > fact.since:
            return False
        self._newest[named] = fact
        return before is None or (before.owner_kind, before.owner) != (fact.owner_kind, fact.owner)

    def service_of(self, namespace: str | None, pod: str | None) -> str | None:
        """``<namespace>/<owner>`` of a server's pod, where the owner is one that keeps replicas."""
        fact = self._newest.get((namespace or "", pod or ""))
        if fact is None or fact.owner_kind not in _SERVICES:
            return None
        return f"{fact.namespace}/{fact.owner}"

    def holding(self, at: float) -> Iterator[PodFact]:
        """Pods that had GPUs of a node at an instant."""
        return (pod for pod in self._asking_at(at) if pod.node)

    def waiting(self, at: float) -> list[PodFact]:
        """Pods that waited for GPUs at an instant, the longest first."""
        return sorted(
            (pod for pod in self._asking_at(at) if not pod.node),
            key=lambda pod: (pod.since, pod.namespace, pod.pod),
        )

    def jobs(self, held: Iterable[JobFact], at: float, node_key: Callable[[str], str]) -> list[JobFact]:
        """Jobs at an instant. ``held``: those that held GPUs then; the ones of pods become their owners'.

        ``node_key`` gives the one name of a node, whatever a source calls it.
        """
        jobs: list[JobFact] = []
        groups: dict[str, _Group] = {}
        for job in held:
            owner = self._owner_of(job.id)
            if owner is None:
                jobs.append(job)
            else:
                groups.setdefault(_id(owner), _Group(owner)).claims.append(job)
        for pod in self.holding(at):
            groups.setdefault(_id(pod), _Group(pod)).pods.append(pod)
        return jobs + [group.job(key, node_key) for key, group in groups.items()]

    def _owner_of(self, job: str) -> PodFact | None:
        """The pod that a job's id names, if its owner is known: ``k8s:<namespace>/Pod/<pod>``."""
        if not job.startswith("k8s:"):
            return None
        namespace, _, rest = job.removeprefix("k8s:").partition("/")
        kind, _, pod = rest.partition("/")
        return self._newest.get((namespace, pod)) if kind == "Pod" else None

    def _asking_at(self, at: float) -> Iterator[PodFact]:
        return (
            pod for pod in self._asking.values() if pod.since <= at and (pod.until is None or at < pod.until)
        )

    def _prune(self, now: float) -> None:
        for key, pod in list(self._pods.items()):
            if pod.until is not None and pod.until < now - ENDED_POD_KEPT_S:
                del self._pods[key]
                self._asking.pop(key, None)
                if self._newest.get(key[:2]) is pod:
                    del self._newest[key[:2]]
        self._prune_at = min(MAX_PODS, 2 * len(self._pods) + 1000)


@dataclass(slots=True)
class _Group:
    """What is known of one owner's pods."""

    owner: PodFact
    """Any of its pods: they agree in their owner."""
    claims: list[JobFact] = field(default_factory=list)
    """Pods as the labels of GPUs name them."""
    pods: list[PodFact] = field(default_factory=list)
    """Those that ask for GPUs."""

    def job(self, key: str, node_key: Callable[[str], str]) -> JobFact:
        """All of it as one job."""
        nodes = [pod.node for pod in self.pods if pod.node]
        nodes += [node for claim in self.claims for node in claim.nodes]
        is_starting = bool(self.pods) and all(pod.phase == "Pending" for pod in self.pods)
        return JobFact(
            since=min(pod.since for pod in self.pods) if self.pods else min(c.since for c in self.claims),
            until=_end([*self.pods, *self.claims]),
            id=key,
            name=self.owner.owner,
            user="",
            nodes=tuple(dict.fromkeys(node_key(node) for node in nodes)),
            gpus=tuple(dict.fromkeys(gpu for claim in self.claims for gpu in claim.gpus)),
            account=self.owner.namespace,
            state="PENDING" if is_starting else "RUNNING",
        )


def _id(pod: PodFact) -> str:
    return f"k8s:{pod.namespace}/{pod.owner_kind}/{pod.owner}"


def _end(facts: Sequence[PodFact | JobFact]) -> float | None:
    """When the last of them ends; None: one of them has not."""
    ends = [fact.until for fact in facts]
    return None if None in ends else max(end for end in ends if end is not None)
