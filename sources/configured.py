"""From settings to sources. Each kind is imported when it is wanted: together they are heavy."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

from coldaisle.sources.settings import (
    ExporterSettings,
    LocalSettings,
    PrometheusSettings,
    SimulatorSettings,
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
    return [source_from(source, clock, secrets) for source in settings.sources]


def source_from(source: SourceSettings, clock: Clock, secrets: Mapping[str, Secrets] = NO_SECRETS) -> Source:
    """One source, not yet started."""
    match source:
        case SimulatorSettings():
            return _simulator(source, clock)
        case ExporterSettings():
            return _exporters(source, clock)
        case LocalSettings():
            return _local(source, clock)
        case SshSettings():
            return _ssh(source, clock, secrets.get(source.name))
        case PrometheusSettings():
            return _prometheus(source, clock)


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


def _exporters(source: ExporterSettings, clock: Clock) -> Source:
    from coldaisle.sources.exporters import ExporterSource
    from coldaisle.sources.tokens import token_of
    from coldaisle.sources.vocabularies import load_vocabulary, shipped

    has_token = bool(source.token_file or source.token_env or source.token_command)
    # a site's own words come first: they may say more about an exporter that we know
    own = [load_vocabulary(Path(file)) for file in source.vocabulary]
    return ExporterSource(
        source.targets,
        name=source.name,
        interval=source.interval,
        timeout=source.timeout,
        token=partial(token_of, source) if has_token else None,
        insecure=source.insecure,
        vocabularies=[*own, *shipped()] if own else None,
        clock=clock,
    )


def _prometheus(source: PrometheusSettings, clock: Clock) -> Source:
    from coldaisle.sources.prometheus.api import Api
    from coldaisle.sources.prometheus.source import PrometheusSource
    from coldaisle.sources.vocabularies import load_vocabulary, shipped

    own = [load_vocabulary(Path(file)) for file in source.vocabulary]
    return PrometheusSource(
        Api(source),
        name=source.name,
        interval=source.interval,
        match=source.match,
        rewrite=source.rewrite,
        vocabularies=[*own, *shipped()] if own else None,
        clock=clock,
    )
