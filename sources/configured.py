"""From settings to sources. Each kind is imported when it is wanted: together they are heavy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from types import MappingProxyType
from typing import TYPE_CHECKING

from coldaisle.sources.settings import (
    ExporterSettings,
    LocalSettings,
    MetricSettings,
    PrometheusSettings,
    SimulatorSettings,
    SlurmSettings,
    SourceSettings,
    SshSettings,
)

if TYPE_CHECKING:
    from coldaisle.sources.config import Settings
    from coldaisle.sources.source import Clock, Source
    from coldaisle.sources.ssh_login import Secrets

NO_SECRETS: Mapping[str, Secrets] = MappingProxyType({})


def sources_from(
    settings: Settings, clock: Clock, secrets: Mapping[str, Secrets] = NO_SECRETS
) -> list[Source]:
    """All configured sources, not yet started; ``secrets`` by source, as they were typed. Raises ConfigError."""
    has_racks = settings.racks.from_ == "slurm"
    return [
        source_from(source, clock, secrets, settings.metrics, has_racks=has_racks)
        for source in settings.sources
    ]


def source_from(
    source: SourceSettings,
    clock: Clock,
    secrets: Mapping[str, Secrets] = NO_SECRETS,
    metrics: Sequence[MetricSettings] = (),
    *,
    has_racks: bool = False,
) -> Source:
    """One source, not yet started; ``metrics``: the site's own; ``has_racks``: whether a scheduler says where nodes stand."""
    match source:
        case SimulatorSettings():
            return _simulator(source, clock)
        case ExporterSettings():
            return _exporters(source, clock, metrics)
        case LocalSettings():
            return _local(source, clock)
        case SshSettings():
            return _ssh(source, clock, secrets.get(source.name))
        case PrometheusSettings():
            return _prometheus(source, clock, metrics)
        case SlurmSettings():
            return _slurm(source, clock, has_racks, secrets.get(source.name))


def _simulator(source: SimulatorSettings, clock: Clock) -> Source:
    from coldaisle.sources.simulator.source import SimulatorSource

    return SimulatorSource(
        source.racks,
        source.nodes,
        source.gpus,
        seed=source.seed,
        interval=source.interval,
        name=source.name,
        clock=clock,
    )


def _local(source: LocalSettings, clock: Clock) -> Source:
    from coldaisle.sources.local import LocalSource

    return LocalSource(source, clock=clock)


def _ssh(source: SshSettings, clock: Clock, secrets: Secrets | None) -> Source:
    from coldaisle.sources.ssh import SshSource

    return SshSource(source, clock=clock, secrets=secrets)


def _exporters(source: ExporterSettings, clock: Clock, metrics: Sequence[MetricSettings]) -> Source:
    from coldaisle.sources.exporters import ExporterSource
    from coldaisle.sources.tokens import token_of
    from coldaisle.sources.trust import trusting
    from coldaisle.sources.vocabularies import vocabularies_for

    has_token = bool(source.token_file or source.token_env or source.token_command)
    return ExporterSource(
        source.targets,
        name=source.name,
        interval=source.interval,
        timeout=source.timeout,
        token=partial(token_of, source) if has_token else None,
        insecure=source.insecure,
        tls=trusting(source.ca) if source.ca else None,
        vocabularies=vocabularies_for(source.vocabulary, metrics),
        clock=clock,
    )


def _prometheus(source: PrometheusSettings, clock: Clock, metrics: Sequence[MetricSettings]) -> Source:
    from coldaisle.sources.prometheus.api import Api
    from coldaisle.sources.prometheus.source import PrometheusSource
    from coldaisle.sources.vocabularies import vocabularies_for

    return PrometheusSource(
        Api(source),
        name=source.name,
        interval=source.interval,
        match=source.match,
        rewrite=source.rewrite,
        lookback=source.lookback,
        vocabularies=vocabularies_for(source.vocabulary, metrics),
        clock=clock,
    )


def _slurm(source: SlurmSettings, clock: Clock, has_racks: bool, secrets: Secrets | None) -> Source:
    from coldaisle.sources.slurm.source import SlurmSource

    return SlurmSource(source, clock=clock, has_racks=has_racks, secrets=secrets)
