"""Power limits of boards as their data sheets have them, for where no source says the limit in force.

dcgm-exporter's default fields have power but no limit. Names as NVML gives them; the first row whose words all occur
in a model's name holds.
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


@cache
def sheet_power(model: str) -> float | None:
    """Watts of the default limit; None: not a board that is known here."""
    name = model.lower().replace("-", " ")
    return next((watts for words, watts in _WATTS if all(word in name for word in words.split())), None)
