"""Who holds GPUs, as labels beside their series say it: Slurm's jobs, Kubernetes' pods."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NamedTuple

import msgspec
import numpy as np

from coldaisle.sources.prometheus.asking import Asker, Series
from coldaisle.sources.prometheus.identity import is_exporters_own
from coldaisle.sources.prometheus.queries import grouped
from coldaisle.sources.prometheus.spoken import Spoken
from coldaisle.sources.prometheus.tables import NOWHERE, Mask, keys_of
from coldaisle.sources.source import GpuRef, Kind
from coldaisle.sources.translation import Job, jobs_of
from coldaisle.sources.vocabularies import Labels


class _Way(NamedTuple):
    """A label that names jobs."""

    label: str
    more: tuple[str, ...]
    """Labels that say more of them."""
    words: Labels
    """The vocabulary's, with this way alone."""


class Held(NamedTuple):
    """Who holds which GPU, and which GPUs are heard, each with when ([instant])."""

    jobs: list[tuple[Job, Mask]]
    heard: list[tuple[GpuRef, Mask]]
    """With a job's label or without one."""


async def jobs(spoken: Spoken, asker: Asker) -> Held:
    """Jobs with a GPU that they hold. Raises SourceError."""
    frame = spoken.frames.get(Kind.GPU)
    found = Held([], [])
    if frame is None:
        return found
    places = list(spoken.places.values())
    for way in _ways(spoken):
        for answer in await _ask(spoken, asker, way, spoken.keys.gpu.labels, ""):
            keys = keys_of(spoken.keys.gpu, answer.labels)
            for key, labels, values in zip(keys, answer.labels, answer.values, strict=True):
                row = frame.row_of.get(key)
                gpu = frame.entities[row] if row is not None else None
                if row is None or not isinstance(gpu, GpuRef):
                    continue
                place = int(frame.places[row])
                target = places[place].labels if place != NOWHERE else {}
                mask = ~np.isnan(values)
                found.heard.append((gpu, mask))
                for job in jobs_of(labels, way.words, gpu):
                    if not _is_exporters(spoken, job, target):
                        found.jobs.append((job, mask))
    return found


async def beginnings(spoken: Spoken, far: Asker, near: Asker) -> dict[str, float]:
    """Job -> since when it has been there without a gap, as far as ``far`` looks back. Raises SourceError.

    ``near`` looks at the last of that time more closely: it says when between two instants of ``far`` a job came. Gaps that
    only it sees are too short to be counted.
    """
    began = await _beginnings(spoken, far)
    step = float(far.times[1] - far.times[0])
    for job, at in (await _beginnings(spoken, near)).items():
        seen = began.setdefault(job, at)
        if seen - step < at <= seen and at > near.start:
            began[job] = at
    return began


async def _beginnings(spoken: Spoken, asker: Asker) -> dict[str, float]:
    """Job -> the instant after the last one at which it was not there."""
    began: dict[str, float] = {}
    if Kind.GPU not in spoken.frames:
        return began
    for way in _ways(spoken):
        for answer in await _ask(spoken, asker, way, (), f'{way.label}!=""'):
            for labels, values in zip(answer.labels, answer.values, strict=True):
                holes = np.flatnonzero(np.isnan(values))
                first = int(holes[-1]) + 1 if len(holes) else 0
                if first < len(values):
                    at = float(asker.times[first])
                    for job in jobs_of(labels, way.words, GpuRef("")):
                        began[job.id] = min(at, began.get(job.id, at))
    return began


async def _ask(spoken: Spoken, asker: Asker, way: _Way, by: tuple[str, ...], wanted: str) -> list[Series]:
    matchers = (wanted,) if wanted else ()
    queries = [
        grouped("max", (*by, way.label, *way.more), spoken.wording.selector(anchor, *matchers))
        for anchor in spoken.anchors
    ]
    return [await asker.ask(query) for query in queries]


def _ways(spoken: Spoken) -> Iterator[_Way]:
    words = job_words(spoken)
    for label in words.job:
        yield _Way(
            label, (*words.user, *words.partition), msgspec.structs.replace(words, job=(label,), pod=())
        )
    for label in words.pod:
        yield _Way(label, words.namespace, msgspec.structs.replace(words, job=(), pod=(label,)))


def job_words(spoken: Spoken) -> Labels:
    """The labels of jobs that the server has; beside ``exported_pod``, ``pod`` is the exporter's own."""
    words = spoken.vocabulary.labels
    chosen: dict[str, tuple[str, ...]] = {}
    for role in ("job", "pod", "namespace", "user", "partition"):
        labels = tuple(label for label in getattr(words, role) if label in spoken.labels)
        chosen[role] = tuple(label for label in labels if label.startswith("exported_")) or labels
    return msgspec.structs.replace(words, **chosen)


def _is_exporters(spoken: Spoken, job: Job, target: Mapping[str, str]) -> bool:
    return job.id.startswith("k8s:") and is_exporters_own(job.name, target, spoken.vocabulary.labels)
