"""Power limits and clocks of boards as their data sheets have them, for where no source tells them.

dcgm-exporter's default fields have power and clock but no limits. Names as NVML gives them; the first row whose words all
occur in a model's name holds.
"""

from __future__ import annotations

from functools import cache

_WATTS: tuple[tuple[str, float], ...] = (
    ("gb300", 1400.0),
    ("gb200", 1200.0),
    ("gh200", 900.0),
    ("b300", 1400.0),
    ("b200", 1000.0),
    ("b100", 700.0),
    ("h200 nvl", 600.0),
    ("h200", 700.0),
    ("h800 pcie", 350.0),
    ("h800", 700.0),
    ("h100 nvl", 400.0),
    ("h100 pcie", 350.0),
    ("h100", 700.0),
    ("h20", 500.0),
    ("a100 pcie 80gb", 300.0),
    ("a100 pcie", 250.0),
    ("a100", 400.0),
    ("a800", 400.0),
    ("l40s", 350.0),
    ("l40", 300.0),
    ("l4", 72.0),
    ("a40", 300.0),
    ("a30", 165.0),
    ("a10", 150.0),
    ("v100 pcie", 250.0),
    ("v100", 300.0),
    ("t4", 70.0),
    ("rtx 6000 ada", 300.0),
    ("mi355", 1400.0),
    ("mi325", 1000.0),
    ("mi300", 750.0),
    ("mi250", 500.0),
)


_TOP_MHZ: tuple[tuple[str, float], ...] = (
    ("b200", 1965.0),
    ("gh200", 1980.0),
    ("h200", 1980.0),
    ("h100 pcie", 1755.0),
    ("h100 nvl", 1785.0),
    ("h100", 1980.0),
    ("a100", 1410.0),
    ("a800", 1410.0),
    ("l40s", 2520.0),
    ("l4", 2040.0),
    ("a40", 1740.0),
    ("a30", 1440.0),
    ("v100 pcie", 1380.0),
    ("v100", 1530.0),
)


@cache
def sheet_power(model: str) -> float | None:
    """Watts of the default limit; None: not a board that is known here."""
    return _of(model, _WATTS)


@cache
def sheet_clock(model: str) -> float | None:
    """MHz of the highest SM clock; None: not a board that is known here."""
    return _of(model, _TOP_MHZ)


def _of(model: str, rows: tuple[tuple[str, float], ...]) -> float | None:
    name = model.lower().replace("-", " ")
    return next((value for words, value in rows if all(word in name for word in words.split())), None)
