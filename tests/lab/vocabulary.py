"""A page as metrics, by the vocabularies that are shipped: what tests of vocabularies ask."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from coldaisle.sources.exposition import parse
from coldaisle.sources.source import EntityRef, GpuRef, Kind, Missing
from coldaisle.sources.translation import Translation, rates_between, translate_all
from coldaisle.sources.vocabularies import Vocabulary, shipped, spoken

Cells = dict[tuple[EntityRef, str], float]


def translations(
    body: bytes, host: str = "host", vocabularies: Sequence[Vocabulary] = ()
) -> tuple[Translation, ...]:
    """The page in every vocabulary that it speaks."""
    shape = parse(body).shape
    return translate_all(shape, spoken(shape.names, vocabularies or shipped()), host)


def cells(
    body: bytes,
    host: str = "host",
    *,
    before: bytes | None = None,
    seconds: float = 10.0,
    vocabularies: Sequence[Vocabulary] = (),
) -> Cells:
    """(entity, metric) -> value, of what has one; where two vocabularies give a cell, the first counts."""
    found, _ = _evaluated(body, host, before, seconds, vocabularies)
    return found


def reasons(body: bytes, host: str = "host") -> dict[tuple[EntityRef, str], Missing]:
    """(entity, metric) -> why it has no value."""
    return _evaluated(body, host, None, 10.0, ())[1]


def _evaluated(
    body: bytes, host: str, before: bytes | None, seconds: float, vocabularies: Sequence[Vocabulary]
) -> tuple[Cells, dict[tuple[EntityRef, str], Missing]]:
    page = parse(body)
    earlier = parse(before).values if before else np.full(len(page.values), np.nan)
    rates = rates_between(earlier, page.values, seconds)
    found: Cells = {}
    why: dict[tuple[EntityRef, str], Missing] = {}
    for made in translations(body, host, vocabularies):
        for kind, (values, codes) in made.evaluate(page.values, rates).items():
            table = made.tables[kind]
            for row, entity in enumerate(table.entities):
                for column, key in enumerate(table.shown_metrics):
                    if values[row, column] == values[row, column]:
                        found.setdefault((entity, key), float(values[row, column]))
                    else:
                        why.setdefault((entity, key), Missing(int(codes[row, column])))
    return found, why


def gpu(found: Cells, index: int = 0) -> dict[str, float]:
    """Everything of one GPU of a page."""
    refs = list(dict.fromkeys(entity for entity, _ in found if isinstance(entity, GpuRef)))
    return {key: value for (entity, key), value in found.items() if entity == refs[index]}


def of(found: Cells, kind: Kind) -> dict[str, float]:
    """Everything of the only entity of a kind."""
    wanted = {key: value for (_, key), value in found.items() if key.startswith(f"{kind}.")}
    assert len({entity for entity, key in found if key.startswith(f"{kind}.")}) <= 1
    return wanted


def samples(folder: str) -> Path:
    """A folder of third-party pages; skips where there are none."""
    root = os.environ.get("COLDAISLE_SAMPLES")
    if not root:
        pytest.skip("COLDAISLE_SAMPLES is not set")
    return Path(root) / "prom" / folder
