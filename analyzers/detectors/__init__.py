"""The conditions that coldaisle finds, one a module, each with its thresholds and texts in a TOML file beside it.

A detector is a pure function of a :class:`~coldaisle.analyzers.window.Window` and its thresholds, vectorised over the
cluster: only what it finds becomes an object. It touches no clock, source or screen.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from importlib import import_module
from typing import Any, NamedTuple, Protocol

from coldaisle.analyzers.finding import Verdict
from coldaisle.analyzers.rules import thresholds
from coldaisle.analyzers.window import Window
from coldaisle.sources.errors import ConfigError

DETECTORS: tuple[str, ...] = (
    "gpu_fault",
    "telemetry_gap",
    "thermal_throttling",
    "idle_allocation",
    "checkpoint_stall",
    "memory_exhaustion",
    "data_loader_starvation",
    "interconnect_degraded",
    "interconnect_saturation",
    "straggler",
    "communication_stall",
    "power_capping",
    "kv_cache_pressure",
    "request_queueing",
)
"""In the order in which causes explain consequences away."""


class Detector(Protocol):
    """A module of this package. ``Thresholds`` is a msgspec Struct, ``lookback`` what it needs of the past."""

    Thresholds: type[Any]
    LOOKBACK_S: float
    """Seconds before an instant that it looks at."""

    def detect(self, window: Window, rules: Any) -> Verdict:
        """What it finds."""


class Ready(NamedTuple):
    """A detector with its thresholds."""

    name: str
    module: Detector
    thresholds: Any


@cache
def _module(name: str) -> Any:
    return import_module(f"{__name__}.{name}")


def detectors(
    site: Mapping[str, Mapping[str, object]] | None = None, only: frozenset[str] | None = None
) -> tuple[Ready, ...]:
    """Those that are asked for, with the site's thresholds; ConfigError where these are wrong."""
    site = site or {}
    for name in site:
        if name not in DETECTORS:
            raise ConfigError(f"[detectors.{name}]: no such detector", f"there are {', '.join(DETECTORS)}")
    names = [name for name in DETECTORS if only is None or name in only]
    return tuple(
        Ready(name, _module(name), thresholds(name, _module(name).Thresholds, site.get(name)))
        for name in names
    )
