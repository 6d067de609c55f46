"""Thresholds and texts of the detectors: a TOML file beside each, so that a site changes numbers without a fork.

``[thresholds]`` becomes a typed struct of the detector; ``[text.<variant>]`` says what is told to people. A site
overrides thresholds in its configuration: ``[detectors.thermal_throttling]`` with ``duty = 0.2``.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from typing import Any, TypeVar

import msgspec

from coldaisle.analyzers.finding import Urgency
from coldaisle.sources.errors import ConfigError

Thresholds = TypeVar("Thresholds")


class Command(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A command that confirms a finding; placeholders in its words as in the text."""

    argv: list[str]
    on: str = "{node}"
    """``{node}``, ``login`` or ``here``."""
    needs: str = "user"


class Text(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What is told of one variant of a finding. Placeholders: ``{gpus}``, ``{gpu}``, ``{index}``, ``{nodes}``, ``{node}``,
    ``{job}``, ``{user}``, ``{server}``, ``{count}``, ``{where}``, ``{loss}``, and the candidate's own words."""

    title: str
    cause: str
    remedy: str
    owner: str
    urgency: Urgency
    urgency_why: str
    confirm: list[Command] = []


class File(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A detector's TOML file."""

    thresholds: dict[str, Any]
    text: dict[str, Text]


@cache
def rules(detector: str) -> File:
    """What stands beside a detector."""
    text = (files("coldaisle.analyzers.detectors") / f"{detector}.toml").read_text(encoding="utf-8")
    return msgspec.convert(tomllib.loads(text), File)


def thresholds(
    detector: str, type_: type[Thresholds], site: Mapping[str, object] | None = None
) -> Thresholds:
    """A detector's thresholds with the site's own; ConfigError names a setting that is none."""
    told = {**rules(detector).thresholds, **(site or {})}
    try:
        return msgspec.convert(told, type_)
    except msgspec.ValidationError as error:
        names = ", ".join(sorted(rules(detector).thresholds))
        raise ConfigError(f"[detectors.{detector}]: {error}", f"what can be set: {names}") from None
