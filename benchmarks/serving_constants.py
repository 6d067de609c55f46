"""The constants of serving, fitted to published tables: with all rows, with each model and each part left out.

``COLDAISLE_TABLES=FOLDER python -m benchmarks.serving_constants`` prints what ``analyzers/sizing/serving.toml`` states: what was
fitted is judged on rows that it has not seen. Four constants, by a pattern search in their logarithms.
"""

from __future__ import annotations

import csv
import math
import os
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from coldaisle.analyzers.sizing.catalogue import model_named, part_named
from coldaisle.analyzers.sizing.plan_serving import Request, replica_with, slots_of
from coldaisle.analyzers.sizing.speed import Load, Replica, fitted, itl_seconds, saturated

PARTS = {
    "B200": "b200_sxm", "GB200": "gb200", "H200": "h200_sxm", "H100": "h100_sxm", "H100 80GB": "h100_sxm",
    "RTX PRO 6000": "rtx_pro_6000_server",
}  # fmt: skip
NAMES = ("bandwidth", "fp8", "fp4", "layer_s")
_NIM_WEIGHT = 0.01


@dataclass(frozen=True, slots=True)
class Row:
    """A published measurement, and the replica that it was taken from. ``itl``: s; 0 where only throughput is told."""

    id: str
    model: str
    part: str
    dtype: str
    replica: Replica
    load: Load
    throughput: float
    itl: float = 0.0
    concurrency: float = 0.0


def tables() -> Path:
    """The folder of the published tables."""
    return Path(os.environ["COLDAISLE_TABLES"])


def throughput_rows(folder: Path) -> list[Row]:
    """Of TensorRT-LLM's tables."""
    with (folder / "reference_inference_throughput.csv").open(encoding="utf-8", newline="") as file:
        return [_row(cells, float(cells["output_tokens_per_s_total"])) for cells in csv.DictReader(file)]


def latency_rows(folder: Path) -> list[Row]:
    """Of NIM's tables, those whose part is told."""
    with (folder / "reference_inference_latency.csv").open(encoding="utf-8", newline="") as file:
        return [
            replace(
                _row(cells, float(cells["output_tokens_per_s"])),
                itl=float(cells["itl_ms"]) / 1e3,
                concurrency=float(cells["concurrency"]),
            )
            for cells in csv.DictReader(file)
            if cells["gpu"] in PARTS
        ]


def _row(cells: dict[str, str], throughput: float) -> Row:
    model = model_named(cells["model"].split(" (")[0].removesuffix("-Instruct"))
    part = part_named(PARTS[cells["gpu"]])
    request = Request(
        model, float(cells["isl"]), float(cells["osl"]), dtype=cells["precision"], kv_dtype="fp8"
    )
    replica = replica_with(request, part, int(cells["tp"]))
    load = Load(request.isl, request.osl, slots_of(request, part, int(cells["tp"])).value)
    return Row(cells["id"], cells["model"], cells["gpu"], cells["precision"], replica, load, throughput)


def with_constants(row: Row, values: Sequence[float]) -> Replica:
    """The row's replica with other constants."""
    given = dict(zip(NAMES, values, strict=True))
    engine = row.replica.engine
    share = engine.compute / fitted(f"compute.{row.dtype}")
    other = replace(
        engine, bandwidth=given["bandwidth"], compute=given[row.dtype] * share, layer_s=given["layer_s"]
    )
    return row.replica.with_engine(other)


def predicted(row: Row, values: Sequence[float]) -> float:
    """Tokens/s that the constants say."""
    return saturated(with_constants(row, values), row.load).throughput


def start() -> list[float]:
    """Constants to begin at: what anybody would guess."""
    return [0.8, 0.5, 0.35, 60e-6]


def fit(rows: Sequence[Row], latencies: Sequence[Row] = ()) -> list[float]:
    """The constants of the least error on these rows: of throughput, and of NIM's time between tokens."""
    before = [math.log(value) for value in start()]

    def loss(logs: Sequence[float]) -> float:
        values = [math.exp(one) for one in logs]
        errors = [math.pow(abs(math.log(predicted(row, values) / row.throughput)), 1.5) for row in rows]
        total = sum(errors) / len(errors)
        for row in latencies:
            itl = itl_seconds(with_constants(row, values), row.load, min(row.concurrency, row.load.slots))
            total += _NIM_WEIGHT * (abs(math.log(itl / row.itl)) / 0.05) ** 4 / len(latencies)
        return total + 0.005 * sum((one - old) ** 2 for one, old in zip(logs, before, strict=True)) / len(
            logs
        )

    return [math.exp(one) for one in searched(loss, before)]


def searched(loss: Callable[[Sequence[float]], float], begin: Sequence[float]) -> list[float]:
    """A pattern search: one constant at a time, ever smaller steps."""
    best, least, step = list(begin), loss(begin), 0.2
    while step > 0.002:
        improved = False
        for place in range(len(best)):
            for change in (step, -step):
                tried = [*best[:place], best[place] + change, *best[place + 1 :]]
                if (error := loss(tried)) < least:
                    best, least, improved = tried, error, True
        step = step if improved else step / 2
    return best


def ratios(rows: Sequence[Row], values: Sequence[float]) -> list[float]:
    """Predicted over measured."""
    return [predicted(row, values) / row.throughput for row in rows]


def left_out(
    rows: Sequence[Row], latencies: Sequence[Row], key: Callable[[Row], str]
) -> dict[str, list[float]]:
    """Predicted over measured of each group, with constants of the other groups alone."""
    found = {}
    for group in sorted({key(row) for row in rows}):
        others = fit(
            [row for row in rows if key(row) != group],
            [row for row in latencies if not key(row).startswith(group)],
        )
        found[group] = ratios([row for row in rows if key(row) == group], others)
    return found


def _told(name: str, found: Sequence[float]) -> str:
    error = statistics.median(abs(one - 1) for one in found)
    return f"{name:28} n {len(found):3}  median error {error:6.1%}  predicted/measured {min(found):.2f} to {max(found):.2f}"


def main() -> None:
    """Print the constants, and how good they are on rows that they have not seen."""
    rows, latencies = throughput_rows(tables()), latency_rows(tables())
    values = fit(rows, latencies)
    print({name: float(f"{value:.3g}") for name, value in zip(NAMES, values, strict=True)})
    print(_told("all rows, in sample", ratios(rows, values)))
    for key in (lambda row: row.model.partition("-Instruct")[0], lambda row: row.part):
        for group, found in left_out(rows, latencies, key).items():
            print(_told(f"left out: {group}", found))
    for row in latencies:
        itl = itl_seconds(with_constants(row, values), row.load, min(row.concurrency, row.load.slots))
        print(f"{row.id:10} ITL {itl * 1e3:6.1f} ms, measured {row.itl * 1e3:6.1f}")


if __name__ == "__main__":
    main()
