"""From usage to counsel: every rule looks at the same pool; the most saved comes first."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator
from functools import cache
from importlib import import_module
from typing import Any, Protocol, TypeVar

import numpy as np

from coldaisle.analyzers.advice.advice import Advice, Counsel, Refused
from coldaisle.analyzers.advice.measuring import utilisations
from coldaisle.analyzers.advice.pool import Pool
from coldaisle.analyzers.advice.reclaiming import reclaimable
from coldaisle.analyzers.advice.settings import Common, Settings, Site, table
from coldaisle.analyzers.advice.utilisation import NOT_KNOWN
from coldaisle.analyzers.usage import Usage
from coldaisle.sources.errors import ConfigError

log = logging.getLogger(__name__)
Made = TypeVar("Made")

RULES: tuple[str, ...] = (
    "idle_gpus",
    "gpus_by_memory",
    "sharing",
    "cores",
    "ram",
    "time_limit",
    "scaling",
    "precision",
    "offered_load",
    "reclaim_nodes",
    "out_of_service",
    "fragmentation",
    "growth",
    "rack_power",
    "thermal",
    "purchase",
    "described",
)
"""Modules of ``rules``."""


class Rule(Protocol):
    """A module of ``rules``. ``Thresholds`` is a msgspec Struct."""

    Thresholds: type[Any]

    def advise(self, pool: Pool, rules: Any) -> Iterable[Advice | Refused]:
        """What it advises, and what it cannot for want of data."""


@cache
def _module(name: str) -> Any:
    return import_module(f"coldaisle.analyzers.advice.rules.{name}")


def settings(site: Site | None = None) -> Settings:
    """The thresholds of all rules with the site's own; ConfigError where these are wrong."""
    site = site or {}
    for name in site:
        if name not in (*RULES, "common"):
            known = ", ".join(("common", *RULES))
            raise ConfigError(f"[advice.{name}]: no such rule", f"there are {known}")
    rules = {name: table(name, _module(name).Thresholds, site) for name in RULES}
    return Settings(table("common", Common, site), rules)


def advise(usage: Usage, settings: Settings) -> Counsel:
    """All that can be advised from a usage, what was refused, and the four utilisations. A rule that fails says nothing."""
    *_, counsel = steps(usage, settings)
    return counsel


def steps(usage: Usage, settings: Settings) -> Iterator[Counsel]:
    """The same in small steps, for whoever must give way to others between them; the last one is whole."""
    pool = Pool(usage, settings.common)
    said: list[Advice | Refused] = []
    yield Counsel()
    for name in RULES:
        said += _said(name, pool, settings)
        yield Counsel()
    yield Counsel(
        tuple(sorted((one for one in said if isinstance(one, Advice)), key=_rank)),
        tuple(one for one in said if isinstance(one, Refused)),
        at=pool.end,
        span_s=usage.span_s,
        reclaimable=_or_else(None, reclaimable, pool, settings.rules["idle_gpus"]),
        utilisations=_or_else(NOT_KNOWN, utilisations, pool),
    )


def _or_else(nothing: Made, measure: Callable[..., Made], *of: Any) -> Made:
    try:
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            return measure(*of)
    except Exception:  # supervision
        log.exception("%s failed", measure.__name__)
        return nothing


def _said(name: str, pool: Pool, settings: Settings) -> Iterator[Advice | Refused]:
    try:
        # Readings are other people's: comparisons with NaN are False, as is meant.
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            yield from _module(name).advise(pool, settings.rules[name])
    except Exception:  # supervision
        log.exception("advice rule %s failed", name)


def _rank(advice: Advice) -> tuple[float, str]:
    saved = advice.saving.gpu_hours_per_week
    return (-(saved.value if saved else 0.0), advice.id)
