"""Parts as data: what a link reaches. The figures stand in TOML files beside this, with their sources."""

from __future__ import annotations

import tomllib
from functools import cache
from importlib.resources import files
from typing import Any

NAN = float("nan")
LANES = 16.0


@cache
def _links() -> dict[str, Any]:
    text = (files(__package__) / "links.toml").read_text(encoding="utf-8")
    return tomllib.loads(text)


@cache
def _generations() -> dict[str, float]:
    """By a word of the model."""
    told = _links()["generation"]
    return {word: float(generation) for generation, words in told.items() for word in words}


@cache
def nvlink_achievable(model: str | None) -> float:
    """Bytes/s one way that collectives reach over a board's NVLinks (xGMI); NaN: the board is not known."""
    rows = _links()["nvlink"]
    word = _longest(tuple(rows), model)
    return NAN if word is None else float(rows[word]["rate"] * rows[word]["efficiency"])


@cache
def pcie_generation(model: str | None) -> float:
    """The generation that a board is built for; NaN: the board is not known."""
    word = _longest(tuple(_generations()), model)
    return NAN if word is None else _generations()[word]


def pcie_achievable(generation: float, lanes: float = LANES) -> float:
    """Bytes/s one way that copies reach; NaN: the generation is not known. Lanes that are not known are 16."""
    row = _links()["pcie"].get(f"{generation:.0f}") if generation == generation else None
    if row is None:
        return NAN
    return float(row["rate"] * row["efficiency"] * (lanes / LANES if lanes == lanes else 1.0))


def port_efficiency(roce: bool = False) -> float:
    """Of a network port's rate what collectives reach."""
    return float(_links()["port"]["roce" if roce else "infiniband"]["efficiency"])


def _longest(words: tuple[str, ...], model: str | None) -> str | None:
    """``H200`` rather than ``H20`` of an H200."""
    return max((word for word in words if word.casefold() in (model or "").casefold()), key=len, default=None)
