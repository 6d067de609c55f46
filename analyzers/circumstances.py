"""What stands around a finding: what changed just before it began, and which firing alerts tell of it."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, tzinfo
from typing import NamedTuple

import numpy as np

from coldaisle.analyzers.finding import Finding, Scope
from coldaisle.analyzers.grouping import job_anchor
from coldaisle.analyzers.happenings import KIND_WORDS
from coldaisle.analyzers.snapshot import EventView
from coldaisle.analyzers.window import Window
from coldaisle.sources.text import plain

BEFORE_S, AFTER_S = 600.0, 30.0
"""What happened so long before a finding began, or a moment after, may have to do with it. Engineering choice."""
MOST_CHANGES = 6
LONGEST = 160
NO_CHANGE = frozenset({"alert", "alert_over"})
INLET_RISE_C = 2.0
"""Engineering choice: less is the air conditioning's own swing."""


# --- what changed ---------------------------------------------------------------------------------------------------


def changes(window: Window, scope: Scope, since: float, zone: tzinfo | None) -> tuple[str, ...]:
    """A line each, ``03:03 r07 inlet 27 -> 31 C``, in the order of time."""
    led = leading_to(scope, since)
    found = [
        (
            event.at,
            f"{(event.job.title if event.job is not None else '') or job_anchor(event.entity)} {_kind(event)}: {event.detail}",
        )
        for event in window.events(window.at - since + BEFORE_S)
        if led(event)
    ]
    found += _warmer(window, scope, since)
    found.sort()
    return tuple(
        f"{_clock(at, zone)} {plain(line.strip(' :'), LONGEST)}" for at, line in found[-MOST_CHANGES:]
    )


def leading_to(scope: Scope, since: float) -> Callable[[EventView], bool]:
    """Whether an event happened at these places, or to the whole cluster, just before this instant or with it."""
    names = {*_names(scope), ""}
    parts = tuple(f"{node}/" for node in scope.nodes)
    return lambda event: (
        since - BEFORE_S < event.at <= since + AFTER_S
        and event.kind not in NO_CHANGE
        and (event.entity in names or event.entity.startswith(parts))
    )


def _kind(event: EventView) -> str:
    return KIND_WORDS.get(event.kind, event.kind.replace("_", " "))


def _clock(at: float, zone: tzinfo | None) -> str:
    return f"{datetime.fromtimestamp(at, zone):%H:%M}"


def _warmer(window: Window, scope: Scope, since: float) -> list[tuple[float, str]]:
    """Racks or nodes whose inlet rose before the finding began."""
    found = []
    for key, names, place in (
        ("rack.inlet_temp", [rack.name for rack in window.layout.racks], scope.racks),
        ("node.inlet_temp", [node.key for node in window.layout.nodes], scope.nodes),
    ):
        if not window.has(key) or not place:
            continue
        minutes = window.minutes(key).mean
        last = len(minutes) - 1 - int(max(window.at - since, 0) // 60)
        if last < 1:
            continue
        columns = [column for column, name in enumerate(names) if name in place]
        with np.errstate(all="ignore"):
            then = _mean(minutes[max(last - 10, 0) : max(last - 5, 1), columns])
            now = _mean(minutes[max(last - 1, 0) : last + 2, columns])
        if now - then >= INLET_RISE_C:
            found.append((since - 60, f"{place[0]} inlet {then:.0f} -> {now:.0f} C"))
            break
    return found


def _mean(values: np.ndarray) -> float:
    have = values[~np.isnan(values)]
    return float(have.mean()) if len(have) else float("nan")


# --- alerts ---------------------------------------------------------------------------------------------------------


class Alert(NamedTuple):
    """One that fires."""

    entity: str
    """Whose it is, by key; empty: of nobody that is known here."""
    detail: str
    """``GpuTooHot critical: zone=a``"""

    @property
    def name(self) -> str:
        return self.detail.partition(":")[0].split(" ")[0]

    @property
    def shown(self) -> str:
        """``GpuTempHigh r07n01``"""
        where = self.entity or self.detail.partition(": ")[2]
        return plain(f"{self.name} {where}".strip(), LONGEST)


@dataclass(slots=True)
class Alerts:
    """Those that fire, put together from what began and what is over."""

    firing: dict[Alert, float] = field(default_factory=dict)
    _seen: tuple[EventView, ...] = ()

    def follow(self, events: tuple[EventView, ...], at: float) -> None:
        """Take in events, oldest first; those that were seen before change nothing."""
        if events is self._seen:
            return
        for event in events:
            if event.at > at or event.kind not in ("alert", "alert_over"):
                continue
            alert = Alert(event.entity, event.detail)
            if event.kind == "alert":
                self.firing.setdefault(alert, event.at)
            else:
                self.firing.pop(alert, None)
        self._seen = events


TOPICS: Mapping[str, str] = {
    "gpu_fault": r"xid|ecc|remap|retired|fault|gpu.*(lost|down|fail|error|missing|unavail|health)|nvlink|fell",
    "telemetry_gap": r"down|absent|missing|unreachable|scrape|stale|notready|nodata|up$|heartbeat",
    "thermal_throttling": r"temp|therm|hot|heat|cool|throttl|slowdown|clock|fan|inlet|cdu",
    "power_capping": r"power|watt|psu|brake|throttl|clock|cap",
    "idle_allocation": r"idle|unused|util|waste|zombie",
    "checkpoint_stall": r"checkpoint|storage|nfs|lustre|gpfs|disk|(^|_)io|iowait|write",
    "memory_exhaustion": r"mem|oom|swap",
    "data_loader_starvation": r"util|cpu|load|iowait|starv|nfs|disk|(^|_)io|read",
    "interconnect_degraded": r"link|ib|infiniband|nvlink|port|rdma|roce|pcie|network|nic|symbol|crc|flap",
    "interconnect_saturation": r"link|ib|infiniband|nvlink|port|rdma|roce|pcie|network|nic|bandwidth|congest|xmit|pause",
    "straggler": r"slow|straggl|step|throughput|util",
    "communication_stall": r"nccl|hang|hung|stuck|stall|timeout|step|throughput|util|comm",
    "kv_cache_pressure": r"kv|cache|preempt|latency|ttft|slo|vllm|sglang",
    "request_queueing": r"queue|waiting|latency|ttft|slo|vllm|sglang|pending",
}
"""What the names of alerts about a condition contain. Names are the site's own; these are the usual words."""
_TOPICS = {detector: re.compile(words, re.IGNORECASE) for detector, words in TOPICS.items()}


def explained(finding: Finding, alerts: Iterable[Alert]) -> list[Alert]:
    """Alerts at the finding's places, or at its victims', whose name speaks of its condition or of one of its symptoms."""
    places = {*_names(finding.scope), *_names(finding.victims)}
    topics = [_TOPICS[name] for name in (finding.detector, *finding.symptoms) if name in _TOPICS]
    return [
        alert
        for alert in alerts
        if _is_at(alert.entity, places, finding.scope) and any(topic.search(alert.name) for topic in topics)
    ]


def _names(scope: Scope) -> tuple[str, ...]:
    return (*scope.racks, *scope.nodes, *scope.gpus, *scope.jobs, *scope.servers, *scope.ports)


def _is_at(entity: str, places: set[str], scope: Scope) -> bool:
    return bool(entity) and (entity in places or entity.startswith(tuple(f"{node}/" for node in scope.nodes)))
