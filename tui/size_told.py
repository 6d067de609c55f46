"""What ``coldaisle size`` has to tell, and as one object for programs: canonical units, null for what is not known."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any, NamedTuple

from coldaisle.analyzers.sizing.catalogue import Model
from coldaisle.analyzers.sizing.comparison import Merit, Option
from coldaisle.analyzers.sizing.power import Prices
from coldaisle.analyzers.sizing.quantity import Binding, Quantity
from coldaisle.analyzers.sizing.sheet import Section, Sheet
from coldaisle.analyzers.sizing.tasks import Place, Run, Service, Task, is_told
from coldaisle.sources.parts.catalogue import source_of

SCHEMA = "coldaisle.size/1"


class Told(NamedTuple):
    """A task with what every part answers, in the order in which they were named; those that do it, the best first."""

    kind: str
    task: Task
    place: Place
    options: tuple[Option, ...]
    fitting: tuple[Option, ...]
    merit: Merit
    measured: float | None = None
    """Tokens/s that was told, held against what is calculated."""

    @property
    def best(self) -> Option | None:
        """None: no part does it."""
        return self.fitting[0] if self.fitting else None


def as_object(told: Told) -> dict[str, Any]:
    """One object: the request, then every part in the order in which it was named."""
    return {
        "schema": SCHEMA,
        "kind": told.kind,
        "request": _request(told),
        "best": told.best.part.id if told.best else None,
        "best_by": told.merit if told.best else None,
        "fits": told.best is not None,
        "parts": [_option(one) for one in told.options],
    }


def model_object(model: Model) -> dict[str, Any]:
    """All that is known of a model; sizes are counts, ``kv_bytes_per_token`` and ``state_bytes`` bytes."""
    return {key: _plain(value) for key, value in asdict(model).items()}


def quantity_object(one: Quantity) -> dict[str, Any]:
    """A figure with its interval, and how it was made."""
    return {
        "value": _plain(one.value),
        "low": _plain(one.low),
        "high": _plain(one.high),
        "unit": one.unit,
        "formula": one.formula,
        "source": source_words(one.source),
    }


def source_words(source: str) -> str:
    """Keys of sources in words: ``MLE;MLN`` are two of them."""
    return "; ".join(source_of(key.strip()) for key in source.split(";") if key.strip())


def _request(told: Told) -> dict[str, Any]:
    task, place = told.task, told.place
    own = _run(task) if isinstance(task, Run) else _service(task)
    site = {
        key: _plain(value) for key, value in asdict(place.site).items() if key != "prices" and is_told(value)
    }
    if place.site.node is not None:
        site["node"] = place.site.node.id
    return {
        "model": model_object(task.model),
        "parts": [one.part.id for one in told.options],
        "gpus": task.gpus,
        **({} if told.measured is None else {"measured_tokens_s": told.measured}),
        **own,
        "site": site,
        "prices": {part or "*": _prices(prices) for part, prices in place.prices.items()},
    }  # fmt: skip


def _run(task: Run) -> dict[str, Any]:
    told = {
        "tokens": task.tokens, "deadline_s": task.deadline_s, "seq": task.seq, "batch_tokens": task.batch_tokens,
        "dtype": task.dtype, "layout": asdict(task.spread),
    }  # fmt: skip
    return told if task.method is None else {**told, "method": task.method, "rank": task.rank}


def _service(task: Service) -> dict[str, Any]:
    told = asdict(task.request)
    del told["model"]
    layout = {key: told.pop(key) for key in ("tensor", "pipeline", "replicas")}
    renamed = {"rate": "requests_s", "ttft": "ttft_s", "itl": "itl_s", "kv_memory": "kv_memory_bytes"}
    return {**{renamed.get(key, key): _plain(value) for key, value in told.items()}, "layout": layout}


def _prices(prices: Prices) -> dict[str, Any]:
    return {key: _plain(value) for key, value in asdict(prices).items()}


def _option(one: Option) -> dict[str, Any]:
    head = {"part": one.part.id, "product": one.part.product, "fits": one.fits}
    if one.sheet is None:
        nothing: dict[str, Any] = {"sections": {}, "verdicts": [], "warnings": []}
        return {
            **head, "answer": None, "gpus": None, "binding": None, "error": one.problem, "remedy": one.remedy or None,
            **nothing,
        }  # fmt: skip
    return {**head, **_sheet(one.sheet)}


def _sheet(sheet: Sheet) -> dict[str, Any]:
    return {
        "title": sheet.title,
        "answer": sheet.answer,
        "gpus": quantity_object(sheet.gpus) if sheet.gpus else None,
        "binding": _binding(sheet.binding) if sheet.binding else None,
        "error": None,
        "remedy": None,
        "sections": {section.name: _section(section) for section in sheet.sections},
        "verdicts": [{"claim": one.claim, "verdict": one.verdict} for one in sheet.verdicts],
        "warnings": list(sheet.warnings),
    }


def _binding(binding: Binding) -> dict[str, Any]:
    return {"name": binding.name, "terms": {name: quantity_object(term) for name, term in binding.terms}}


def _section(section: Section) -> dict[str, Any]:
    figures = {label: quantity_object(figure) for label, figure in section.figures}
    return {"note": section.note or None, "figures": figures}


def _plain(value: Any) -> Any:
    """Null for what is not known: neither NaN nor infinity are JSON."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, Mapping):
        return {key: _plain(each) for key, each in value.items()}
    return value
