"""Every metric that coldaisle knows: key, unit, entity, valid range, display unit, help.

The data is ``catalog.toml``; a test holds it to the schema. A site's own metrics join it when its
configuration is read, before anything is measured.
"""

from __future__ import annotations

import threading
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

from coldaisle.sources.entries import Entry
from coldaisle.sources.errors import ConfigError
from coldaisle.sources.source import Kind


@dataclass(frozen=True, slots=True)
class Metric:
    """One metric; samples outside [low, high] are blanks, not values."""

    key: str
    """``gpu.power``"""
    kind: Kind
    unit: str
    """Canonical unit, one of units.UNITS."""
    low: float
    high: float
    help: str
    is_own: bool = False
    """Declared by the site."""

    @property
    def name(self) -> str:
        """The key without its entity: ``power``."""
        return self.key.partition(".")[2]

    @property
    def label(self) -> str:
        """The name in words: ``step time``."""
        return self.name.replace("_", " ")

    @property
    def is_rate(self) -> bool:
        """Whether its samples are means over the sample's interval."""
        return self.unit in ("/s", "B/s", "tokens/s") or self.key.endswith("_violation")


class _Declared:
    """A site's own metrics. The mapping is replaced as a whole, so that other threads read it without a lock."""

    lock = threading.Lock()
    everything: Mapping[str, Metric] | None = None


def catalog() -> Mapping[str, Metric]:
    """All metrics by key: the shipped ones in the file's order, then the site's own."""
    return _Declared.everything or _shipped()


def declare(entries: Mapping[str, Entry]) -> None:
    """Let a site's own metrics join the catalog; each must have passed entries.entry_problems.

    Said again in the same words it changes nothing. Raises ConfigError when it was declared otherwise.
    """
    own = {key: _declared(key, entry) for key, entry in entries.items()}
    with _Declared.lock:
        known = catalog()
        for key, metric in own.items():
            if known.get(key, metric) != metric:
                problem = f"{key}: two declarations that differ"
                raise ConfigError(problem, "declare it once, or in the same words everywhere")
        if not own.keys() <= known.keys():
            _Declared.everything = {**known, **own}


def forget_declared() -> None:
    """Only the shipped metrics again."""
    with _Declared.lock:
        _Declared.everything = None


def own_metrics(kind: Kind) -> tuple[Metric, ...]:
    """What the site has declared for a kind of entity."""
    return tuple(one for one in catalog().values() if one.is_own and one.kind is kind)


def kind_of(key: str) -> Kind:
    """The entity kind of a metric's key, known or a site's own: ``gpu.power`` -> Kind.GPU."""
    return Kind(key.partition(".")[0])


def _declared(key: str, entry: Entry) -> Metric:
    low, high = entry.bounds
    return Metric(key, kind_of(key), entry.unit, low, high, entry.help, is_own=True)


@cache
def _shipped() -> Mapping[str, Metric]:
    text = (files(__package__) / "catalog.toml").read_text(encoding="utf-8")
    metrics: dict[str, Metric] = {}
    for table, rows in tomllib.loads(text).items():
        kind = Kind(table)
        for name, row in rows.items():
            low, high = row["range"]
            key = f"{table}.{name}"
            metrics[key] = Metric(key, kind, row["unit"], float(low), float(high), row["help"])
    return metrics
