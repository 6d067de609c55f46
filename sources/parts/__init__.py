"""Parts as data: what a link reaches. The figures stand in TOML files beside this, with their sources."""

from __future__ import annotations

import tomllib
from functools import cache
from importlib.resources import files
from typing import Any

NAN = float("nan")


@cache
def _links() -> dict[str, dict[str, dict[str, float]]]:
    text = (files(__package__) / "links.toml").read_text(encoding="utf-8")
    tables: dict[str, Any] = tomllib.loads(text)
    return tables


def nvlink_achievable(model: str | None) -> float:
    """Bytes/s one way that collectives reach over a board's NVLinks (xGMI); NaN: the board is not known."""
    row = next((row for word, row in _links()["nvlink"].items() if word in (model or "")), None)
    return NAN if row is None else row["rate"] * row["efficiency"]


def pcie_achievable(generation: float, lanes: float = 16.0) -> float:
    """Bytes/s one way that copies reach; NaN: the generation is not known."""
    row = _links()["pcie"].get(f"{generation:.0f}") if generation == generation else None
    return NAN if row is None else row["rate"] * row["efficiency"] * (lanes / 16.0 if lanes == lanes else 1.0)


def port_efficiency(roce: bool = False) -> float:
    """Of a network port's rate what collectives reach."""
    return _links()["port"]["roce" if roce else "infiniband"]["efficiency"]
