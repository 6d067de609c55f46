"""Which node a series speaks of, where all there is are addresses, pods' names and what a site has written over them. Pure."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from coldaisle.sources.racks import short_name
from coldaisle.sources.settings import Rewrite
from coldaisle.sources.text import is_address
from coldaisle.sources.translation import first_of, host_name
from coldaisle.sources.vocabularies import Labels

NODE_LABELS = ("node", "kubernetes_node", "nodename", "exported_node")
"""What sites and Kubernetes' service discovery call the node of a target."""
RACK_LABELS = ("rack", "rack_id", "rack_name", "rackname")
POD_LABELS = ("pod", "kubernetes_pod_name", "pod_name")
JOB_SAFE = "bcdfghjklmnpqrstvwxz2456789"
_POD = re.compile(rf".*-[{JOB_SAFE}]{{5}}")
"""Kubernetes ends a pod's name with five of these letters; they cannot form words."""
_EXPORTER = re.compile(r"dcgm|exporter|gpu-operator|nvidia|metrics", re.IGNORECASE)
_PORT = re.compile(r"(.*[^:]|\[.*\]):\d{1,5}")
MAX_NAME = 253


class Named(NamedTuple):
    """A node's name, and how it is known."""

    node: str
    how: str


@dataclass(frozen=True, slots=True)
class Names:
    """Turns labels into nodes. ``hosts``: address or name of a target -> what the node there calls itself."""

    rewrite: Sequence[Rewrite] = ()
    hosts: Mapping[str, str] = field(default_factory=dict)
    claimed: tuple[str, ...] = ()
    """Names that several hosts give themselves; none of them is believed."""

    def node(self, labels: Mapping[str, str], words: Labels) -> Named | None:
        """The node that a series with these labels speaks of.

        In this order: the site's rewrite rules, a label that names the node, the exporter's own word
        unless it is its pod's name, what the node at this address calls itself, the address.
        """
        host = host_of(labels.get("instance", ""))
        own = first_of(words.node, labels)
        label = first_of(NODE_LABELS, labels)
        for name in (host, label, own, self.hosts.get(host)):
            if name and (made := self._rewritten(name)):
                return Named(made, "rewrite rule")
        if believed := host_name(label):
            return Named(believed, "label")
        if own and not is_pod_name(own, labels) and (believed := host_name(own)):
            return Named(believed, "exporter")
        if host in self.hosts:
            return Named(self.hosts[host], "node_uname_info")
        return Named(host, "instance") if valid(host) else None

    def _rewritten(self, name: str) -> str | None:
        for rule in self.rewrite:
            match = re.fullmatch(rule.match, name[:MAX_NAME])
            if match is not None:
                return host_name(match.expand(rule.to))
        return None


def names(rewrite: Sequence[Rewrite], told: Iterable[tuple[Mapping[str, str], str]]) -> Names:
    """From what nodes call themselves: (labels of the target, its own name)."""
    hosts: dict[str, str] = {}
    for labels, own in told:
        host = host_of(labels.get("instance", ""))
        if host and host_name(own) and not is_pod_name(own, labels):
            hosts.setdefault(host, own)
    counts = Counter(hosts.values())
    claimed = tuple(name for name, count in counts.items() if count > 1)
    return Names(rewrite, {host: own for host, own in hosts.items() if counts[own] == 1}, claimed)


def host_of(instance: str) -> str:
    """``10.0.3.7`` of ``10.0.3.7:9400`` or of ``http://10.0.3.7:9400/metrics``."""
    text = instance.partition("://")[2].partition("/")[0] if "://" in instance else instance
    match = _PORT.fullmatch(text)
    return (match[1] if match else text).strip("[]")


def valid(host: str) -> bool:
    """Whether this can be a node's name or address."""
    return bool(host) and (is_address(host) or host_name(host) is not None)


def is_pod_name(name: str, labels: Mapping[str, str]) -> bool:
    """Whether an exporter calls itself by its pod: it runs in one that does not share the host's name."""
    if any(labels.get(label) == name for label in POD_LABELS):
        return True
    return bool(_POD.fullmatch(name) and _EXPORTER.search(name))


def is_exporters_own(pod: str, labels: Mapping[str, str], words: Labels) -> bool:
    """Whether a pod in the labels is the exporter's, not one that holds the GPU."""
    return pod == first_of(words.node, labels) or is_pod_name(pod, {})


def rack_of(labels: Mapping[str, str]) -> tuple[str, str] | None:
    """(rack, label) where a site's labels say it."""
    for label in RACK_LABELS:
        if value := labels.get(label):
            return value[:64], label
    return None


def same_node(one: str, other: str) -> bool:
    """Whether two names are a node's short and full one."""
    return one == other or short_name(one).lower() == short_name(other).lower()
