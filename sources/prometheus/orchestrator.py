"""What kube-state-metrics says of a cluster, asked of a server: pods that hold GPUs, their owners, nodes, racks."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from coldaisle.sources.kubernetes import LABELS_REMEDY, SERIES, Asked, Survey
from coldaisle.sources.prometheus.asking import Asker
from coldaisle.sources.prometheus.queries import grouped, selector

NAMES = frozenset(one.name for one in SERIES)
REQUESTS = "kube_pod_container_resource_requests"
WITH_GPUS = 'resource=~"(nvidia|amd).*"'
SPAN_S = 60.0
"""On a grid, a cluster is looked at no more often."""
_CLASHING = ("namespace", "pod", "node", "container")
"""What a scrape without honor_labels calls ``exported_*``."""


@dataclass(frozen=True, slots=True)
class Orchestrator:
    """What of kube-state-metrics a server has."""

    names: frozenset[str]
    labels: frozenset[str]
    match: tuple[str, ...] = ()

    def ask(self, asked: Asked) -> str:
        """The PromQL of one metric."""
        by = [form for label in asked.labels for form in self._forms(label) if form in self.labels]
        matchers = (asked.only, *self.match) if asked.only else self.match
        series = selector(asked.name, matchers)
        if "pod" in asked.labels and asked.name != REQUESTS and REQUESTS in self.names:
            # of tens of thousands of pods only those that ask for GPUs
            pods = [label for label in self._forms("namespace") + self._forms("pod") if label in self.labels]
            series += f" and on ({', '.join(pods)}) {selector(REQUESTS, (WITH_GPUS, *self.match))}"
        return f"{grouped('max', by, series)}{' != 0' if asked.is_flag else ''}"

    async def surveys(self, asker: Asker) -> Iterator[tuple[float, Survey]]:
        """(when, what is said then), by the server's clock, no closer than SPAN_S. Raises SourceError."""
        span = asker.end - asker.start
        coarse = asker.coarser(max(1, int(span / SPAN_S)))
        found = [(asked, await coarse.ask(self.ask(asked))) for asked in SERIES if asked.name in self.names]
        surveys = [Survey() for _ in coarse.times]
        for asked, series in found:
            for labels, values in zip(series.labels, series.values.tolist(), strict=True):
                for survey, value in zip(surveys, values, strict=True):
                    survey.take(asked.name, labels, value)
        return zip(coarse.times.tolist(), surveys, strict=True)

    def _forms(self, label: str) -> tuple[str, ...]:
        return (f"exported_{label}", label) if label in _CLASHING else (label,)


def what_it_lacks(survey: Survey) -> tuple[str, str]:
    """What people should know of its words, and what would make them say more."""
    said = []
    if survey.left_out:
        said.append(f"{survey.left_out} series left out: too many, or not names of Kubernetes")
    if not survey.has_racks:
        said.append("no node label tells of racks")
    return "; ".join(said), "" if survey.has_racks else LABELS_REMEDY
