"""Units as people read and type them; canonical units (:data:`UNITS`) inside.

=========  =============================================  =======================================
unit       shown                                          accepted (a bare number is in the first)
=========  =============================================  =======================================
ratio      ``85 %``                                       ``5`` or ``5%`` (both 5 per cent)
s          ``120 ms``, ``4.0 s``, ``3m29s``, ``2h10``     ``2s 500ms 15m 1h30m 2d``
B          ``70.1 GiB`` (powers of 1024)                  ``B kB GB KiB GiB ...``
B/s        ``12.5 GB/s`` (powers of 1000)                 the same with ``/s``, and ``Gbit/s``
W, J       ``712 W``, ``35.1 kW``                         ``700W 2kW``; ``5kJ 1kWh``
others     ``71 °C``, ``1980 MHz``, ``12 /s``             the unit, or nothing; ``k M G`` for counts
=========  =============================================  =======================================
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping

NO_VALUE = "-"
"""A missing value, never 0."""
SHOW_WIDTH = 11
"""Cells that :func:`show` keeps to for any value in the catalog's ranges."""

_STEPS: Mapping[str, tuple[tuple[float, str], ...]] = {
    "B": tuple((1024.0**n, f"{prefix}B") for n, prefix in enumerate(("", "Ki", "Mi", "Gi", "Ti", "Pi"))),
    "B/s": tuple((1000.0**n, f"{prefix}B/s") for n, prefix in enumerate(("", "k", "M", "G", "T", "P"))),
    "W": ((1.0, "W"), (1e3, "kW"), (1e6, "MW")),
    "J": ((1.0, "J"), (1e3, "kJ"), (1e6, "MJ"), (1e9, "GJ"), (1e12, "TJ")),
    "/s": ((1.0, "/s"), (1e3, "k/s"), (1e6, "M/s"), (1e9, "G/s"), (1e12, "T/s")),
    "1": ((1.0, ""), (1e3, "k"), (1e6, "M"), (1e9, "G"), (1e12, "T"), (1e15, "P")),
    "tokens": ((1.0, "tok"), (1e3, "ktok"), (1e6, "Mtok"), (1e9, "Gtok"), (1e12, "Ttok")),
    "tokens/s": ((1.0, "tok/s"), (1e3, "ktok/s"), (1e6, "Mtok/s"), (1e9, "Gtok/s"), (1e12, "Ttok/s")),
    "C": ((1.0, "°C"),),
    "MHz": ((1.0, "MHz"),),
    "V": ((1.0, "V"),),
    "A": ((1.0, "A"),),
    "rpm": ((1.0, "rpm"),),
}

_NUMBER = r"([+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]{1,3})?)"
_QUANTITY = rf"(?a)\s*{_NUMBER}\s*([^0-9\s.+-][^\s]*)?\s*"
_MASK = r"(?a)\s*(?:0x[0-9a-fA-F]{1,16}|0|[1-9][0-9]{0,18})\s*"
_DURATION_PART = r"(?ai)([0-9]+(?:\.[0-9]*)?)\s*([a-zµμ]*)"

_SECONDS: Mapping[str, float] = {
    "ns": 1e-9, "us": 1e-6, "µs": 1e-6, "μs": 1e-6, "ms": 1e-3,
    "s": 1, "sec": 1, "m": 60, "min": 60, "h": 3600, "hour": 3600, "hours": 3600,
    "d": 86400, "day": 86400, "days": 86400, "w": 604800,
}  # fmt: skip
_SMALLER = {"w": "d", "d": "h", "h": "m", "m": "s"}
"""``2h10`` means 2 h 10 m, as ages are shown."""


def _multiples(base: str, prefixes: Mapping[str, float]) -> dict[str, float]:
    return {prefix + base: factor for prefix, factor in prefixes.items()}


_DECIMAL = {"": 1.0, "k": 1e3, "K": 1e3, "M": 1e6, "G": 1e9, "T": 1e12, "P": 1e15}
_BINARY = {"Ki": 1024.0, "Mi": 1024.0**2, "Gi": 1024.0**3, "Ti": 1024.0**4, "Pi": 1024.0**5}
_BYTES = (
    _multiples("B", _DECIMAL) | _multiples("B", _BINARY) | _multiples("", _BINARY) | _multiples("", _DECIMAL)
)
_BITS = {"": 0.125, "k": 125.0, "K": 125.0, "M": 125e3, "G": 125e6, "T": 125e9}
_COUNT = _multiples("", _DECIMAL)

_FACTORS: Mapping[str, Mapping[str, float]] = {
    "ratio": {"": 0.01, "%": 0.01},
    "B": _BYTES,
    "B/s": _BYTES
    | {f"{size}/s": factor for size, factor in _BYTES.items() if size}
    | _multiples("bit/s", _BITS)
    | _multiples("bps", _BITS)
    | _multiples("b/s", _BITS),
    "W": {"": 1.0, "mW": 1e-3, "W": 1.0, "kW": 1e3, "MW": 1e6},
    "J": {
        "": 1.0,
        "mJ": 1e-3,
        "J": 1.0,
        "kJ": 1e3,
        "MJ": 1e6,
        "GJ": 1e9,
        "Wh": 3600.0,
        "kWh": 3.6e6,
        "MWh": 3.6e9,
    },
    "C": {"": 1.0, "C": 1.0, "°C": 1.0},
    "MHz": {"": 1.0, "Hz": 1e-6, "kHz": 1e-3, "MHz": 1.0, "GHz": 1e3},
    "/s": _COUNT | {f"{prefix}/s": factor for prefix, factor in _COUNT.items()},
    "1": _COUNT,
    "tokens": _COUNT | _multiples("tok", _COUNT) | _multiples("tokens", _COUNT),
    "tokens/s": _COUNT | _multiples("tok/s", _COUNT) | _multiples("tokens/s", _COUNT),
    "V": {"": 1.0, "mV": 1e-3, "V": 1.0},
    "A": {"": 1.0, "mA": 1e-3, "A": 1.0},
    "rpm": _COUNT | {"rpm": 1.0},
    "state": {"": 1.0},
}

_ACCEPTED: Mapping[str, str] = {
    "ratio": "per cent: write 5 or 5%",
    "s": "a duration: write 500ms, 2s, 15m, 1h30m or 2d",
    "B": "a size: write 70GiB (powers of 1024), 80GB (powers of 1000) or a number of bytes",
    "B/s": "a rate: write 50kB/s, 12.5GB/s, 400Gbit/s or a number of bytes a second",
    "W": "a power: write 700W or 2kW",
    "J": "an energy: write 500J, 20kJ or 1.5kWh",
    "C": "a temperature: write 85 or 85C",
    "MHz": "a frequency: write 1980MHz or 1.98GHz",
    "/s": "a rate: write 12 or 12/s",
    "1": "a number: write 12, 1.5 or 20k",
    "tokens": "a number of tokens: write 4096 or 128k",
    "tokens/s": "a token rate: write 900 or 1.2k",
    "V": "a voltage: write 230V",
    "A": "a current: write 16A",
    "rpm": "a fan speed: write 9000",
    "bits": "a bit mask: write 72 or 0x48",
    "state": "a state: write its number",
}
UNITS = tuple(_ACCEPTED)
"""Every canonical unit."""


def show(value: float, unit: str, *, ascii_only: bool = False) -> str:
    """A value in its canonical unit as people read it, in at most SHOW_WIDTH cells; ``-`` for NaN."""
    if math.isnan(value):
        return NO_VALUE
    if math.isinf(value):
        return "inf" if value > 0 else "-inf"
    return _finite(value, unit, ascii_only=ascii_only)


def parse(text: str, unit: str) -> float:
    """What a person typed, in the canonical ``unit``; ValueError says what is accepted."""
    if unit == "s":
        return _duration(text)
    if unit == "bits":
        return _mask(text)
    match = re.fullmatch(_QUANTITY, text) if len(text) <= 64 else None
    factor = _FACTORS[unit].get(match[2] or "") if match else None
    if match is None or factor is None:
        raise _refused(text, unit)
    value = float(match[1]) * factor
    if not math.isfinite(value):
        raise _refused(text, unit)
    return value


def age(seconds: float) -> str:
    """How long ago, in at most 6 cells: ``4 s``, ``3m29s``, ``2h10``, ``2 d``; ``-`` for NaN."""
    if math.isnan(seconds):
        return NO_VALUE
    whole = int(min(max(seconds, 0.0), 999 * 86400.0))
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60}m{whole % 60:02}s"
    if whole < 86400:
        return f"{whole // 3600}h{whole % 3600 // 60:02}"
    return f"{whole // 86400} d"


def _finite(value: float, unit: str, *, ascii_only: bool) -> str:
    if unit == "ratio":
        return f"{_digits(value * 100, 2)} %"
    if unit == "s":
        return _time(value, ascii_only=ascii_only)
    if unit == "bits":
        return f"{int(value):#x}"
    if unit == "state":
        return f"{value:.0f}"
    return _scaled(value, unit, ascii_only=ascii_only)


def _scaled(value: float, unit: str, *, ascii_only: bool) -> str:
    steps = _STEPS[unit]
    size = abs(value)
    at = 0
    # 999.6 k would be written 1000 k: the next step takes over where rounding would
    while at + 1 < len(steps) and size >= steps[at + 1][0] * 0.9995:
        at += 1
    factor, name = steps[at]
    if ascii_only:
        name = name.replace("°", "")
    whole = unit in ("B", "C", "rpm", "MHz") or (unit == "1" and value == int(value))
    number = f"{value:.0f}" if at == 0 and whole and size < 1e6 else _digits(value / factor, 3)
    return f"{number} {name}".rstrip()


def _digits(value: float, significant: int) -> str:
    """About so many significant digits, never fewer than the whole part: ``0.04``, ``1.50``, ``12.3``, ``712``."""
    if value == 0:
        return "0"
    size = abs(value)
    if size >= 1e6:
        return f"{value:.0e}"
    whole = 1 if size < 9.995 else 2 if size < 99.95 else significant
    return f"{value:.{max(significant - whole, 0)}f}"


def _time(seconds: float, *, ascii_only: bool) -> str:
    size = abs(seconds)
    if size >= 99.95:
        return ("-" if seconds < 0 else "") + age(size)
    if size >= 0.9995 or size == 0:
        return f"{_digits(seconds, 2)} s"
    if size >= 0.0009995:
        return f"{_digits(seconds * 1e3, 3)} ms"
    return f"{_digits(seconds * 1e6, 3)} {'us' if ascii_only else 'µs'}"


def _duration(text: str) -> float:
    if len(text) > 64 or not text.strip() or re.sub(_DURATION_PART, "", text).strip():
        raise _refused(text, "s")
    total, larger = 0.0, ""
    for number, suffix in re.findall(_DURATION_PART, text):
        name = suffix or _SMALLER.get(larger, "" if larger else "s")
        if name not in _SECONDS or (larger and _SECONDS[name] >= _SECONDS[larger]):
            raise _refused(text, "s")
        total += float(number) * _SECONDS[name]
        larger = name
    return total


def _mask(text: str) -> float:
    if not re.fullmatch(_MASK, text):
        raise _refused(text, "bits")
    return float(int(text, 0))


def _refused(text: str, unit: str) -> ValueError:
    shown = repr(text if len(text) <= 40 else text[:39] + "…")
    return ValueError(f"{shown} is not {_ACCEPTED[unit]}")
