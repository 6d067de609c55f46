"""The constants of training, fitted to published rows: with all of them, and with each model size, sequence and part left out.

``COLDAISLE_TABLES=FOLDER python -m benchmarks.training_constants`` prints how well the efficiency of ``assumptions.toml`` says the
time of rows that its fit has not seen. Five constants, by a pattern search in their logarithms; everything else of a step (layout,
recompute, collectives) is as the calculator has it. Whole runs and other programs are in no fit.
"""

from __future__ import annotations

import csv
import math
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from benchmarks.serving_constants import searched, tables
from coldaisle.analyzers.sizing.assumptions import assumed
from coldaisle.analyzers.sizing.catalogue import Model, model_named
from coldaisle.analyzers.sizing.layout import Layout
from coldaisle.analyzers.sizing.memory import Trained
from coldaisle.analyzers.sizing.serving_site import figure_of
from coldaisle.analyzers.sizing.site import Machine, Site, machine
from coldaisle.analyzers.sizing.step import Pace, paces, step_of
from coldaisle.analyzers.sizing.training import plan_training
from coldaisle.sources.parts.catalogue import parts

PARTS = {"h100_80gb": "h100_sxm", "a100_80gb": "a100_sxm_80", "a100_40gb": "a100_sxm_40"}
NAMES = ("a100", "h100", "fp8", "half", "half_fp8")
"""``compute.*`` and ``width.*`` of assumptions.toml."""
BEGIN = (0.7, 0.7, 0.7, 500.0, 1500.0)
"""What anybody would guess: a fit begins there, not at the constants that are to be judged."""


@dataclass(frozen=True, slots=True)
class Row:
    """A published measurement of FSDP, as it was laid out. ``rate``: tokens/s a GPU."""

    id: str
    size: str
    part: str
    seq: int
    dtype: str
    run: Trained
    machine: Machine
    layout: Layout
    rate: float
    matmul: float
    """Best product, of the dense peak."""

    @property
    def family(self) -> str:
        """Whose constant it takes."""
        return "fp8" if self.dtype == "fp8" else self.part.partition("_")[0]

    @property
    def pace(self) -> Pace:
        """The likely one."""
        return paces(self.run, self.machine.part, self.layout)[0]


def rows(folder: Path) -> list[Row]:
    """Of llm-foundry's table."""
    with (folder / "reference_training_throughput.csv").open(encoding="utf-8", newline="") as file:
        return [_row(cells) for cells in csv.DictReader(file)]


def _row(cells: Mapping[str, str]) -> Row:
    params, hidden = float(cells["n_params"]), int(cells["d_model"])
    model = Model(
        cells["model"], params, params, layers=int(cells["n_layers"]), hidden=hidden, heads=hidden // 128,
        kv_heads=hidden // 128, ffn=4 * hidden, vocab=50_368, gated_ffn=False, tied_embedding=True,
    )  # fmt: skip
    dtype = "fp8" if "fp8" in cells["precision"] else "bf16"
    layout = Layout(
        data=int(cells["gpus"]),
        microbatch=int(cells["micro_batch"]),
        microbatches=int(cells["grad_accum"]),
        sharding="parameters" if cells["sharding"] == "FULL_SHARD" else "gradients",
        recompute="full" if cells["act_checkpointing"] == "True" else "none",
    )
    part = parts()[PARTS[cells["gpu"]]]
    share = part.matmul_share(dtype)
    best = assumed(f"matmul.{dtype}").value if math.isnan(share) else share
    return Row(
        cells["id"], cells["model"], cells["gpu"], int(cells["seq"]), dtype, Trained(model, int(cells["seq"]), dtype),
        machine(part, Site()), layout, float(cells["tokens_per_s_gpu"]), best,
    )  # fmt: skip


def predicted(row: Row, values: Sequence[float]) -> float:
    """Tokens/s a GPU that the constants say."""
    given = dict(zip(NAMES, values, strict=True))
    hidden, half = row.run.model.hidden or 1, given["half_fp8" if row.dtype == "fp8" else "half"]
    efficiency = row.matmul * given[row.family] * hidden / (hidden + half)
    step = step_of(row.run, row.machine, row.layout, replace(row.pace, efficiency=efficiency))
    return row.layout.batch * row.run.seq / row.layout.gpus / step.total


def fit(known: Sequence[Row]) -> list[float]:
    """The constants of the least error on these rows; one that no row tells of takes the mean of its kind."""
    begin = [math.log(value) for value in BEGIN]

    def loss(logs: Sequence[float]) -> float:
        values = [math.exp(one) for one in logs]
        errors = [abs(math.log(predicted(row, values) / row.rate)) for row in known]
        return sum(errors) / len(errors) + 0.002 * sum(
            (one - old) ** 2 for one, old in zip(logs, begin, strict=True)
        )

    values = [math.exp(one) for one in searched(loss, begin)]
    seen = {row.family for row in known}
    told = [value for name, value in zip(NAMES, values, strict=True) if name in seen]
    spare = statistics.mean(told)
    return [
        spare if name in ("a100", "h100", "fp8") and name not in seen else value
        for name, value in zip(NAMES, values, strict=True)
    ]


def shipped() -> list[float]:
    """The constants of assumptions.toml."""
    return [assumed(f"{'width' if name.startswith('half') else 'compute'}.{name}").value for name in NAMES]


def left_out(known: Sequence[Row], key: Callable[[Row], object]) -> dict[object, list[tuple[Row, float]]]:
    """Of each group, rows with what constants of the other groups alone say over what was measured."""
    found = {}
    for group in sorted({key(row) for row in known}, key=str):
        values = fit([row for row in known if key(row) != group])
        found[group] = [(row, predicted(row, values) / row.rate) for row in known if key(row) == group]
    return found


def inside(row: Row, ratio: float) -> bool:
    """Whether what was measured lies in the interval that the calculator states, laid around such a figure."""
    likely, fast, slow = (
        step_of(row.run, row.machine, row.layout, pace).total
        for pace in paces(row.run, row.machine.part, row.layout)
    )
    return likely / slow <= 1 / ratio <= likely / fast


def told(name: str, found: Iterable[tuple[Row, float]]) -> str:
    """A line of the table."""
    pairs = list(found)
    ratios = sorted(ratio for _, ratio in pairs)
    error = statistics.median(abs(one - 1) for one in ratios)
    tail = max(len(ratios) // 10, 0)
    held = sum(inside(row, ratio) for row, ratio in pairs) / len(pairs)
    return (
        f"{name:30} n {len(ratios):3}  median error {error:6.1%}  predicted/measured {ratios[tail]:.2f} to "
        f"{ratios[-1 - tail]:.2f} (p10, p90)  in the interval {held:4.0%}"
    )


WHOLE = {"mg9": "llama-3-8b", "mg10": "llama-3-70b", "mg11": "llama-3.1-405b"}
"""Megatron-Core in fp8, by its own layouts: in no fit."""


def other_programs(folder: Path) -> list[str]:
    """What is said of rows of other programs, by the quickest layout."""
    with (folder / "reference_training_other.csv").open(encoding="utf-8", newline="") as file:
        known = {cells["id"]: cells for cells in csv.DictReader(file)}
    lines = []
    for id_, name in WHOLE.items():
        seq, gpus = int(known[id_]["seq"]), int(known[id_]["gpus"])
        sheet = plan_training(
            model_named(name), 1e12, parts()["h100_sxm"], gpus=gpus, seq=seq, batch_tokens=float(known[id_]["gbs"]) * seq,
            dtype="fp8",
        )  # fmt: skip
        rate = figure_of(sheet, "time", "tokens/s a GPU")
        if rate is not None:
            ratio = rate.value / float(known[id_]["tokens_per_s_gpu"])
            lines.append(f"{id_:5} {name} on {gpus} H100, fp8, Megatron-Core: predicted/measured {ratio:.2f}")
    return lines


GROUPS: Mapping[str, Callable[[Row], object]] = {
    "model size": lambda row: row.size,
    "sequence": lambda row: row.seq,
    "part and dtype": lambda row: f"{row.part} {row.dtype}",
    "family": lambda row: row.family,
}


def main() -> None:
    """Print the constants, and how good they are on rows that they have not seen."""
    known = rows(tables())
    print("shipped", dict(zip(NAMES, shipped(), strict=True)))
    print("fitted ", {n: float(f"{v:.3g}") for n, v in zip(NAMES, fit(known), strict=True)})
    print(told("all rows, shipped constants", [(row, predicted(row, shipped()) / row.rate) for row in known]))
    for name, key in GROUPS.items():
        groups = left_out(known, key)
        for group, found in groups.items():
            print(told(f"left out: {name} {group}", found))
        print(told(f"ALL, each {name} left out", [pair for found in groups.values() for pair in found]))
    print("\n".join(other_programs(tables())))


if __name__ == "__main__":
    main()
