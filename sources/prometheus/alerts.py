"""Firing alerts as events: when one begins and when it is over, and whose it is. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from coldaisle.sources.prometheus.answers import Labels
from coldaisle.sources.source import EntityRef, Event

FIRING = 'alertstate="firing"'
ALERTS = "ALERTS"
MAX_ALERTS = 5000
MAX_DETAIL = 200
_ITS_OWN = frozenset({"__name__", "alertname", "alertstate", "severity"})
_OF_THE_ENTITY = frozenset(
    {"instance", "job", "Hostname", "hostname", "node", "nodename", "kubernetes_node", "exported_node", "UUID",
     "uuid", "gpu_uuid", "gpu", "device", "pci_bus_id", "modelName", "model_name", "DCGM_FI_DRIVER_VERSION"}
)  # fmt: skip
_OF_THE_SERVER = frozenset(
    {"prometheus", "prometheus_replica", "replica", "monitor", "cluster", "endpoint", "service", "container"}
)

Whose = Callable[[Labels], EntityRef | None]
Known = frozenset[tuple[str, str]]


@dataclass(slots=True)
class AlertBook:
    """Alerts that fire, as told."""

    firing: dict[Known, tuple[EntityRef | None, str]] = field(default_factory=dict)

    def update(self, alerts: Iterable[Labels], at: float, whose: Whose) -> Iterator[Event]:
        """What began and what is over, given all that fire at ``at``."""
        current: set[Known] = set()
        for labels in alerts:
            known = frozenset(labels.items())
            current.add(known)
            if known not in self.firing and len(self.firing) < MAX_ALERTS:
                entity = whose(labels)
                self.firing[known] = entity, detail_of(labels, named=entity is not None)
                yield Event(at, entity, "alert", self.firing[known][1])
        for known in self.firing.keys() - current:
            entity, detail = self.firing.pop(known)
            yield Event(at, entity, "alert_over", detail)


def detail_of(labels: Mapping[str, str], *, named: bool) -> str:
    """``GpuTooHot critical: zone=a``; what names the entity is left out where that is known."""
    skipped = _ITS_OWN | _OF_THE_SERVER | (_OF_THE_ENTITY if named else frozenset())
    rest = " ".join(f"{key}={value}" for key, value in sorted(labels.items()) if key not in skipped)
    head = " ".join(filter(None, (labels.get("alertname", "?"), labels.get("severity"))))
    return (f"{head}: {rest}" if rest else head)[:MAX_DETAIL]
