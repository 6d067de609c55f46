"""Thresholds of the advice rules: ``rules.toml`` beside this, with a site's own laid over it.

A site writes ``[advice.idle_gpus]`` and below it ``run_s = 3600.0``; ``[advice.common]`` holds what all rules share.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any, TypeVar

import msgspec

from coldaisle.sources.errors import ConfigError

Thresholds = TypeVar("Thresholds")
Site = Mapping[str, Mapping[str, object]]


class Common(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """See the TOML file."""

    least_jobs: int
    least_busy_s: float
    least_coverage: float
    snapshot_s: float
    margin: float
    seed: int
    resamples: int
    price_per_gpu_hour: float | None = None
    """$; None: no money is told of."""


@dataclass(frozen=True, slots=True)
class Settings:
    """What the rules go by."""

    common: Common
    rules: Mapping[str, Any]
    """By rule, each of the rule's own ``Thresholds``."""


def table(rule: str, type_: type[Thresholds], site: Site) -> Thresholds:
    """One table with the site's own; ConfigError names a setting that is none."""
    told = {**_file()[rule], **site.get(rule, {})}
    try:
        return msgspec.convert(told, type_)
    except msgspec.ValidationError as error:
        names = ", ".join(sorted(type_.__struct_fields__))  # type: ignore[attr-defined]
        raise ConfigError(f"[advice.{rule}]: {error}", f"what can be set: {names}") from None


@cache
def _file() -> Mapping[str, Mapping[str, Any]]:
    return tomllib.loads((files(__package__) / "rules.toml").read_text(encoding="utf-8"))
