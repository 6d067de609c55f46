"""Accelerators and fabrics as data: what the sheets say, what was measured of them, and from where.

The figures stand in ``accelerators.csv``, ``fabrics.csv`` and ``sources.csv`` beside this. Rates are dense, link rates one
way. An empty cell is a figure that is not known: NaN here, never 0. ``remembered`` names the cells that nobody has read again.
"""

from __future__ import annotations

import csv
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files
from types import MappingProxyType

NAN = math.nan
TERA = 1e12
GIGA = 1e9
MIB = 2.0**20
GIB = 2.0**30
DTYPES = ("fp32", "tf32", "fp16", "bf16", "fp8", "fp4", "int8")
"""Of a part's rates; int8 counts operations."""
_NEAR = 0.10
"""Of its memory a board reports so much less or more than its catalogue row: ECC, and GB that are GiB."""
_VENDORS = frozenset({"nvidia", "amd", "intel", "google", "aws", "tesla", "instinct", "geforce", "radeon"})
_MAX_NAME = 200


@dataclass(frozen=True, slots=True)
class Part:
    """A board as one can buy it. Flop/s, bytes, bytes/s, W, MHz and °C; NaN: not known.

    ``flops`` and ``measured_flops`` (the best matrix product that anybody measured) are by dtype and lack those that the part
    does not have. ``scaleup_gpus``: how many reach each other at ``scaleup`` bytes/s one way in a usual node; 1: none does.
    """

    id: str
    vendor: str
    product: str
    form: str
    flops: Mapping[str, float] = field(hash=False)
    measured_flops: Mapping[str, float] = field(hash=False)
    memory_bytes: float
    """As the driver reports it; where that is not known, what is sold, taken as GiB."""
    memory_is_reported: bool
    memory_kind: str
    bandwidth: float
    scaleup_kind: str
    scaleup: float
    scaleup_gpus: int
    pcie_generation: float
    power_w: float
    sm_clock_mhz: float
    """The highest."""
    slowdown_c: float
    device_names: tuple[str, ...]
    pattern: str
    sources: tuple[str, ...]
    """Keys of ``source_of``."""
    remembered: tuple[str, ...]
    notes: str

    def peak(self, dtype: str) -> float:
        """Dense flop/s; NaN: the part has no such format, or nobody says."""
        return self.flops.get(dtype, NAN)

    def matmul_share(self, dtype: str = "bf16") -> float:
        """Of the dense peak what the best matrix product reached; NaN: not measured."""
        return self.measured_flops.get(dtype, NAN) / self.peak(dtype)


@dataclass(frozen=True, slots=True)
class Fabric:
    """A network port or a link. ``rate``: bytes/s one way; ``efficiency``: the share of it that collectives reach."""

    id: str
    kind: str
    rate: float
    efficiency: float
    reduce_efficiency: float
    """Of an all-reduce, which some switches do themselves."""
    basis: str
    sources: tuple[str, ...]
    status: str

    @property
    def is_network(self) -> bool:
        """Between nodes, not within one."""
        return not self.id.startswith(("nvlink", "xgmi", "pcie"))


def rows(package: str, name: str) -> list[dict[str, str]]:
    """Rows of a table that lies in a package, by column; empty cells are empty texts."""
    text = (files(package) / name).read_text(encoding="utf-8")
    return list(csv.DictReader(text.splitlines()))


def number(cell: str) -> float:
    """NaN for an empty cell."""
    return float(cell) if cell.strip() else NAN


@cache
def parts() -> Mapping[str, Part]:
    """All accelerators, by id, in the order of the table."""
    return MappingProxyType({row["id"]: _part(row) for row in rows(__package__, "accelerators.csv")})


@cache
def fabrics() -> Mapping[str, Fabric]:
    """All fabrics, by id."""
    return MappingProxyType(
        {
            row["id"]: Fabric(
                row["id"],
                row["kind"],
                number(row["gbs_per_dir"]) * GIGA,
                number(row["planning_efficiency"]),
                number(row["all_reduce_efficiency"] or row["planning_efficiency"]),
                row["efficiency_basis"],
                _words(row["sources"]),
                row["status"],
            )
            for row in rows(__package__, "fabrics.csv")
        }
    )


@cache
def sources() -> Mapping[str, str]:
    """What the keys of sources stand for, with whether it was read or remembered."""
    return MappingProxyType(
        {row["key"]: f"{row['what']} ({row['status']})" for row in rows(__package__, "sources.csv")}
    )


def source_of(key: str) -> str:
    """What a key of sources stands for; the key itself where it is a reference already. ``VLLM(name)`` is of ``VLLM``."""
    return sources().get(key.partition("(")[0], key)


def find_part(name: str, memory_bytes: float = NAN) -> Part | None:
    """The part that a device name, a product or an id means; None: not known, or it may be several (``candidates``)."""
    found = candidates(name, memory_bytes)
    return found[0] if len(found) == 1 else None


@cache
def candidates(name: str, memory_bytes: float = NAN) -> tuple[Part, ...]:
    """The parts that a name may mean, in the order of the table; the first step that finds any decides.

    Exactly an id, a product or a device name; the pattern of device names; all words in the product. Of several the ones
    whose memory is within a tenth of ``memory_bytes`` remain (NaN: not told).
    """
    wanted = _plain(name[:_MAX_NAME])
    if not wanted:
        return ()
    for step in (_is_called, _matches, _is_among):
        found = tuple(part for part in parts().values() if step(part, wanted))
        if found:
            near = tuple(
                part for part in found if abs(part.memory_bytes / memory_bytes - 1) <= _NEAR
            )  # never true of NaN
            return near or found
    return ()


def sheet_power(device_name: str) -> float:
    """Watts of the default limit; NaN: not a board that is known."""
    part = sheet(device_name)
    return NAN if part is None else part.power_w


def sheet_clock(device_name: str) -> float:
    """MHz of the highest SM clock; NaN: not a board that is known."""
    part = sheet(device_name)
    return NAN if part is None else part.sm_clock_mhz


@cache
def sheet(device_name: str) -> Part | None:
    """The part that comes nearest to a device name, for a figure of its data sheet where no source tells it.

    Of several the first; a board of a known family (``A800`` with words nobody knows) is taken for one of it.
    """
    words = set(_plain(device_name[:_MAX_NAME]).split())
    found = candidates(device_name) or tuple(part for part in parts().values() if words & _families(part))
    return found[0] if found else None


def _families(part: Part) -> set[str]:
    """The first word of letters and digits of each of its names: ``h100``."""
    named = (re.search(r"\b[a-z]+\d+[a-z]*\b", _plain(name)) for name in (part.product, *part.device_names))
    return {name[0] for name in named if name}


def _is_called(part: Part, wanted: str) -> bool:
    return wanted in {_plain(text) for text in (part.id, part.product, *part.device_names)}


def _matches(part: Part, wanted: str) -> bool:
    return _pattern(part.pattern).search(wanted) is not None


def _is_among(part: Part, wanted: str) -> bool:
    """Whether all words are words of the product or the id; words without digits may be short: ``sxm`` of ``SXM5``."""
    own = {*_plain(part.product).split(), *_plain(part.id).split()}
    words = [word for word in wanted.split() if word not in _VENDORS]
    return bool(words) and all(
        word in own or (word.isalpha() and any(each.startswith(word) for each in own)) for word in words
    )


def _plain(text: str) -> str:
    """Labels and drivers write hyphens, underscores or blanks."""
    return " ".join(re.sub(r"[-_\s]+", " ", text).casefold().split())


@cache
def _pattern(text: str) -> re.Pattern[str]:
    return re.compile(text.replace("-", " "), re.IGNORECASE)


def _words(cell: str, separator: str = ";") -> tuple[str, ...]:
    return tuple(word.strip() for word in cell.split(separator) if word.strip())


def _rates(row: Mapping[str, str], names: Mapping[str, str]) -> Mapping[str, float]:
    known = {dtype: number(row[column]) * TERA for dtype, column in names.items()}
    return MappingProxyType({dtype: rate for dtype, rate in known.items() if not math.isnan(rate)})


def _part(row: Mapping[str, str]) -> Part:
    reported = number(row["mem_mib_reported"]) * MIB
    sold = number(row["mem_gb_marketed"]) * GIB
    peaks = {dtype: f"{dtype}_{'tops' if dtype == 'int8' else 'tflops'}" for dtype in DTYPES}
    measured = {dtype: f"measured_max_matmul_{dtype}_tflops" for dtype in ("bf16", "fp8")}
    return Part(
        id=row["id"],
        vendor=row["vendor"],
        product=row["product"],
        form=row["form"],
        flops=_rates(row, peaks),
        measured_flops=_rates(row, measured),
        memory_bytes=sold if math.isnan(reported) else reported,
        memory_is_reported=not math.isnan(reported),
        memory_kind=row["mem_type"],
        bandwidth=number(row["mem_bw_gbs"]) * GIGA,
        scaleup_kind=row["scaleup_kind"],
        scaleup=number(row["scaleup_gbs_per_dir"]) * GIGA,
        scaleup_gpus=int(row["scaleup_gpus"] or 1),
        pcie_generation=number(row["pcie_gen"]),
        power_w=number(row["tdp_w"]),
        sm_clock_mhz=number(row["sm_clock_max_mhz"]),
        slowdown_c=number(row["temp_slowdown_c"]),
        device_names=_words(row["device_name_examples"]),
        pattern=row["device_name_regex"],
        sources=_words(row["sources"]),
        remembered=_words(row["remembered_fields"], ","),
        notes=row["notes"],
    )
