"""What a GPU's cell says: a digit and a level for its value, or the letter of what is the matter.

Pure: a snapshot in, small arrays out. numpy is imported by the functions, when there is data.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from coldaisle.analyzers.snapshot import Snapshot
    from coldaisle.analyzers.touching import Touching
    from coldaisle.sources.catalog import Metric
    from coldaisle.sources.cluster import Layout
    from coldaisle.sources.source import Codes, Floats

    Flags = NDArray[np.bool_]
    Indices = NDArray[np.intp]


class CellMetric(NamedTuple):
    """A metric that cells can show."""

    key: str
    label: str
    low: float
    """What is written 0, canonical unit."""
    high: float
    """What would be written 10."""
    quiet: float | None
    """A free GPU below this is simply free; None: its value is always worth showing."""
    extent: str
    """What the digits mean, for the legend."""


METRICS: Final = (
    CellMetric("gpu.sm_active", "SM active", 0.0, 1.0, 0.05, "tenths"),
    CellMetric("gpu.tensor_active", "tensor active", 0.0, 1.0, 0.05, "tenths"),
    CellMetric("gpu.dram_active", "DRAM active", 0.0, 1.0, 0.05, "tenths"),
    CellMetric("gpu.util", "util", 0.0, 1.0, 0.05, "tenths"),
    CellMetric("gpu.power_ratio", "power", 0.0, 1.0, 0.25, "tenths of the limit"),
    CellMetric("gpu.temp", "temperature", 0.0, 100.0, None, "tens of degrees C"),
    CellMetric("gpu.mem_temp", "HBM temperature", 0.0, 100.0, None, "tens of degrees C"),
    CellMetric("gpu.mem_ratio", "memory used", 0.0, 1.0, 0.05, "tenths"),
    CellMetric("gpu.nvlink_tx", "NVLink sent", 0.0, 500e9, 1e9, "in steps of 50 GB/s"),
    CellMetric("gpu.nvlink_rx", "NVLink received", 0.0, 500e9, 1e9, "in steps of 50 GB/s"),
    CellMetric("gpu.sm_clock", "SM clock", 0.0, 2500.0, None, "in steps of 250 MHz"),
    CellMetric("gpu.thermal_violation", "held back by heat", 0.0, 1.0, 0.05, "tenths of the time"),
)
SCALED: Final = {"gpu.power": "gpu.power_ratio", "gpu.mem_used": "gpu.mem_ratio"}
"""Metrics without a scale of their own, and the share of a limit that cells show of them."""
DEFAULTS: Final = ("gpu.sm_active", "gpu.power_ratio", "gpu.util")
"""The first of these that (nearly) every GPU has is shown at the start."""
NEARLY: Final = 0.9
"""Of the GPUs that have any of them: where one in ten has no SM activity (AMD, before Hopper), all are told alike."""


class Mark(NamedTuple):
    """A letter in place of the digit."""

    letter: str
    token: str
    """``cell.<token>`` of the palette."""
    meaning: str
    short: str = ""
    """The same where there is little room; empty: the meaning is short enough."""


MARKS: Final = (
    Mark("X", "lost", "lost, or faulty", "lost"),
    Mark("?", "stale", "stale"),
    Mark("-", "nodata", "no data"),
    Mark(".", "free", "free"),
    Mark("d", "drained", "drained"),
    Mark("#", "held", "allocated, without readings", "held"),
    Mark("D", "down", "down, says the scheduler", "down"),
    Mark("w", "waits", "waits on a peer", "waits"),
    Mark("G", "trouble", "telemetry gap", "gap"),
    Mark("T", "trouble", "thermal"),
    Mark("i", "trouble", "allocated, idle", "idle"),
    Mark("C", "trouble", "checkpoint stalls", "checkpoint"),
    Mark("M", "trouble", "memory full", "memory"),
    Mark("s", "trouble", "starves"),
    Mark("L", "trouble", "link degraded", "link"),
    Mark("N", "trouble", "network saturated", "network"),
    Mark("R", "trouble", "slow rank", "slow"),
    Mark("H", "trouble", "hangs, or waits in communication", "hangs"),
    Mark("P", "trouble", "power capped", "power"),
    Mark("K", "trouble", "KV cache full", "KV full"),
    Mark("Q", "trouble", "requests queue", "queue"),
)
"""What is told without a diagnosis, then what a finding says of the GPUs that it is about."""
LETTERS: Final = {
    "gpu_fault": "X", "telemetry_gap": "G", "thermal_throttling": "T", "idle_allocation": "i",
    "checkpoint_stall": "C", "memory_exhaustion": "M", "data_loader_starvation": "s",
    "interconnect_degraded": "L", "interconnect_saturation": "N", "straggler": "R", "communication_stall": "H",
    "power_capping": "P", "kv_cache_pressure": "K", "request_queueing": "Q",
}  # fmt: skip
"""By the detector of a finding: the letter of MARKS."""

BLANK: Final = 0
LEVEL_0: Final = 1
"""Codes LEVEL_0 .. LEVEL_0 + 10 are values."""
MARK_0: Final = 12
FADED: Final = 64
"""Added to a code: the filter does not match it."""
LOST, STALE, NO_DATA, FREE, DRAINED, HELD, DOWN, WAITS = range(MARK_0, MARK_0 + 8)
FULL_SHARE: Final = 0.995

THERMAL_BITS: Final = 0x20 | 0x40
POWER_BRAKE_BITS: Final = 0x08 | 0x80


CODE_OF: Final = {mark.letter: MARK_0 + at for at, mark in enumerate(MARKS)}


def letter_of(detector: str) -> str:
    """The letter of a detector's findings; ``!`` where it has none."""
    return LETTERS.get(detector, "!")


def letter(code: int) -> str:
    """The character of a code."""
    code = int(code) & ~FADED
    if code == BLANK:
        return " "
    return MARKS[code - MARK_0].letter if code >= MARK_0 else str(min(code - LEVEL_0, 9))


def token(code: int) -> str:
    """The palette's token of a code."""
    if code == BLANK:
        return "text"
    if code & FADED:
        return "cell.faded"
    return f"cell.{MARKS[code - MARK_0].token}" if code >= MARK_0 else f"cell{code - LEVEL_0}"


def ink(code: int) -> str:
    """The token of a code as a character on the ground, for tables and charts."""
    if code >= MARK_0:
        return MARKS[code - MARK_0].token
    return "text" if code == BLANK else f"scale{code - LEVEL_0}"


def cell_metrics() -> tuple[CellMetric, ...]:
    """Everything that cells can show: METRICS, and of the site's own what has a range, which is its scale."""
    from coldaisle.sources.catalog import own_metrics
    from coldaisle.sources.source import Kind

    own = (one for one in own_metrics(Kind.GPU) if math.isfinite(one.high - one.low))
    return (
        *METRICS,
        *(CellMetric(one.key, one.label, one.low, one.high, None, _extent(one)) for one in own),
    )


def _extent(metric: Metric) -> str:
    from coldaisle.sources.units import show

    if metric.unit == "ratio" and (metric.low, metric.high) == (0.0, 1.0):
        return "tenths"
    return f"in steps of {show((metric.high - metric.low) / 10, metric.unit)}"


def metric_of(key: str) -> CellMetric:
    """The metric of a key (``gpu.temp`` or ``temp``); the first of METRICS where cells cannot show it."""
    key = SCALED.get(key, key)
    return next(
        (metric for metric in cell_metrics() if key in (metric.key, metric.key.removeprefix("gpu."))),
        METRICS[0],
    )


def is_shown(key: str) -> bool:
    """Whether cells can show a metric; of the site's own that is not known before its vocabulary is read."""
    from coldaisle.sources.entries import shipped_keys

    keys = {metric.key for metric in METRICS} | SCALED.keys()
    return key in keys or key not in shipped_keys()


def has_values(snapshot: Snapshot, key: str) -> bool:
    """Whether anybody delivers a value of the metric."""
    import numpy as np

    column = snapshot.column(key)
    return column is not None and bool(np.isfinite(column.values).any())


def default_metric(snapshot: Snapshot) -> CellMetric:
    """What says most about use, of what is there for nearly all GPUs; else what most of them have."""
    import numpy as np

    boards = snapshot.layout.boards
    counts = {key: int(np.isfinite(values_of(snapshot, key)[boards]).sum()) for key in DEFAULTS}
    most = max(counts.values())
    return metric_of(next(key for key, count in counts.items() if count >= NEARLY * most))


def next_metric(snapshot: Snapshot, current: CellMetric, step: int) -> CellMetric:
    """The next metric that has values; the current one if no other has."""
    metrics = cell_metrics()
    at = next((at for at, metric in enumerate(metrics) if metric.key == current.key), 0)
    for offset in range(1, len(metrics)):
        metric = metrics[(at + step * offset) % len(metrics)]
        if has_values(snapshot, metric.key):
            return metric
    return current


def values_of(snapshot: Snapshot, key: str) -> Floats:
    """[gpu] of a metric; a board without one gets its instances' mean, an instance its board's value."""
    import numpy as np

    column = snapshot.column(key)
    size = len(snapshot.layout.gpus)
    if column is None or len(column.values) != size:
        return np.full(size, np.nan, dtype=np.float32)
    from coldaisle.analyzers.tables import shared

    return shared(snapshot.layout, column.values)


def levels(values: Floats, metric: CellMetric) -> Codes:
    """[gpu] 0..10; what has no value is 0."""
    import numpy as np

    share = (np.nan_to_num(values) - metric.low) / (metric.high - metric.low)
    level = np.clip(np.floor(share * 10 + 1e-4), 0, 9)
    return np.where(share >= FULL_SHARE, 10, level).astype(np.uint8)


def cell_codes(snapshot: Snapshot, metric: CellMetric) -> Codes:
    """[gpu] the code of each cell: the letter of the worst finding about it, else what it reads."""
    return with_findings(snapshot, value_codes(snapshot, metric))


def with_findings(snapshot: Snapshot, codes: Codes) -> Codes:
    """[gpu] the codes with the letters of findings; that a GPU is lost, stale or down says more than they do.

    What is only worth knowing (severity info) leaves the digit; who waits for another GPU is told by ``w``.
    """
    import numpy as np

    from coldaisle.analyzers.touching import touching

    found = touching(snapshot)
    if not found.gpus:
        return codes
    if _Letters.of is not found:
        _Letters.codes, _Letters.of = _letters(found, len(codes)), found
    letters = _Letters.codes
    return np.where((letters > 0) & ~np.isin(codes, SAYS_MORE), letters, codes)


class _Letters:
    """Those of the last diagnosis: with 8,192 GPUs in findings they cost more than all the rest of a map."""

    of: Touching | None = None
    codes: Codes


def _letters(found: Touching, size: int) -> Codes:
    """[gpu] the code of the worst finding that says something of it; 0: none does."""
    import numpy as np

    from coldaisle.analyzers.finding import Severity

    worth = [finding.severity > Severity.INFO for finding in found.findings]
    own = [CODE_OF.get(letter_of(finding.detector), 0) for finding in found.findings]
    codes = np.zeros(size, dtype=np.uint8)
    for gpu, hits in found.gpus.items():
        told = next((hit for hit in hits if worth[hit.finding]), None)
        if told is not None:
            codes[gpu] = WAITS if told.is_victim else own[told.finding]
    return codes


SAYS_MORE: Final = (LOST, STALE, DOWN)


def urgent(snapshot: Snapshot) -> Codes:
    """[gpu] 2: a finding about it, or about its node or a part of that, needs somebody now; 1: today; 0: neither."""
    import numpy as np

    from coldaisle.analyzers.finding import Severity, Urgency
    from coldaisle.analyzers.touching import touching

    found = touching(snapshot)
    marks = np.zeros(len(snapshot.layout.gpus), dtype=np.uint8)
    weight = {Urgency.NOW: 2, Urgency.TODAY: 1}
    for finding, reach in zip(found.findings, found.reach, strict=True):
        if finding.severity == Severity.INFO or finding.urgency not in weight:
            continue
        gpus = reach.gpus or [gpu for node in reach.nodes for gpu in snapshot.layout.nodes[node].gpus]
        marks[list(gpus)] = np.maximum(marks[list(gpus)], weight[finding.urgency])
    return marks


def value_codes(snapshot: Snapshot, metric: CellMetric) -> Codes:
    """[gpu] what each cell reads; what hides a value wins over it, the worst first."""
    import numpy as np

    from coldaisle.analyzers.snapshot import Status

    values = values_of(snapshot, metric.key)
    missing = np.isnan(values)
    codes = (levels(values, metric) + LEVEL_0).astype(np.uint8)
    idle = _idle(snapshot)
    if snapshot.jobs_known and metric.quiet is not None:
        codes[idle & (missing | (values < metric.quiet))] = FREE
        missing = missing & ~idle
    codes[missing] = NO_DATA
    codes[idle & drained(snapshot)] = DRAINED
    codes[idle & down(snapshot)] = DOWN
    codes[stale(snapshot, metric.key)] = STALE
    unseen = snapshot.gpu_status == Status.UNKNOWN
    codes[unseen] = NO_DATA
    if unseen.any():
        codes = np.where(unseen & scheduled(snapshot), _by_scheduler(snapshot, idle), codes)
    codes[snapshot.gpu_status == Status.LOST] = LOST
    return codes


def _by_scheduler(snapshot: Snapshot, idle: Flags) -> Codes:
    """[gpu] what is known of GPUs that nobody reads: allocated, free, drained or down."""
    import numpy as np

    codes = np.where(idle, FREE, HELD).astype(np.uint8)
    if len(snapshot.gpu_unnamed) and snapshot.gpu_unnamed.any():
        # all of a node's are held, or some, and it is not known which
        full = [
            bool(node.gpus_used) and (node.gpus_used or 0) >= len(node.gpus) for node in snapshot.layout.nodes
        ]
        codes[snapshot.gpu_unnamed & ~_of_nodes(snapshot, full)] = NO_DATA
    codes[idle & drained(snapshot)] = DRAINED
    codes[down(snapshot)] = DOWN
    return codes


def scheduled(snapshot: Snapshot) -> Flags:
    """[gpu] whether a scheduler counts its node's GPUs, and says who has them; a node that it has no more has none."""
    import numpy as np

    layout = snapshot.layout
    flags = np.array([bool(node.gres) for node in layout.nodes], dtype=bool)
    if not flags.any():
        return np.zeros(len(layout.gpus), dtype=bool)
    return flags[node_index(layout)]


def stale(snapshot: Snapshot, key: str) -> Flags:
    """[gpu] whether its readings, or its last reading of this metric, are too old to be believed."""
    import numpy as np

    from coldaisle.analyzers.snapshot import Status
    from coldaisle.sources.source import Missing

    old = np.asarray(snapshot.gpu_status == Status.STALE)
    column = snapshot.column(key)
    if column is not None and len(column.reason) == len(old):
        old = old | (column.reason == Missing.STALE)
    return old


def node_index(layout: Layout) -> Indices:
    """[gpu] the node it is in."""
    import numpy as np

    return np.array([gpu.node for gpu in layout.gpus], dtype=np.intp)


def is_drained(state: str | None) -> bool:
    """Whether the scheduler gives the node no new work: drain, draining, down, with or without flags."""
    return bool(state) and str(state).lower().startswith(("drain", "down", "fail", "maint"))


def drained(snapshot: Snapshot) -> Flags:
    """[gpu] whether its node gets no new work."""

    return _of_nodes(snapshot, [is_drained(node.state) for node in snapshot.layout.nodes])


def down(snapshot: Snapshot) -> Flags:
    """[gpu] whether the scheduler takes its node for down."""
    return _of_nodes(snapshot, [(node.state or "").startswith("down") for node in snapshot.layout.nodes])


def _of_nodes(snapshot: Snapshot, flags: list[bool]) -> Flags:
    """[gpu] of what is so of nodes."""
    import numpy as np

    layout = snapshot.layout
    if not any(flags):
        return np.zeros(len(layout.gpus), dtype=bool)
    return np.array(flags, dtype=bool)[node_index(layout)]


def group_code(codes: Codes, values: Floats, metric: CellMetric) -> int:
    """One code for a rack: its worst letter that means trouble, else its mean value, else what its cells say."""
    import numpy as np

    there = set(codes.tolist())
    worst: Sequence[int] = (LOST, *range(WAITS + 1, MARK_0 + len(MARKS)), WAITS, STALE)
    if (found := next((mark for mark in worst if mark in there), None)) is not None:
        return found
    shown = (codes >= LEVEL_0) & (codes < MARK_0)
    if shown.any():
        return int(levels(np.nanmean(values[shown], keepdims=True).astype(np.float32), metric)[0]) + LEVEL_0
    return int(max(there, default=BLANK))


@dataclass(frozen=True, slots=True)
class Tally:
    """How the GPUs of a cluster are doing, in one line."""

    allocated: int
    free: int
    unnamed: int
    """Held or free: on their nodes more are held than anybody names."""
    drained: int
    down: int
    """Of nodes that the scheduler takes for down."""
    lost: int
    stale: int
    unseen: int
    mean: float
    """Of the metric, over allocated GPUs (over all, where jobs are not known); canonical unit; NaN: no value."""
    power: float
    """W, of all boards that tell."""
    powered: int
    """How many boards tell."""
    jobs_known: bool


def tally(snapshot: Snapshot, metric: CellMetric) -> Tally:
    """Counts boards, never MIG instances; each board once, under the first of lost, stale, unseen, allocated, down, drained, free."""
    import numpy as np

    from coldaisle.analyzers.snapshot import Status

    boards = snapshot.layout.boards
    status, held = snapshot.gpu_status[boards], _held(snapshot)[boards]
    off, out = down(snapshot)[boards], drained(snapshot)[boards]
    answering = status == Status.OK
    told = (status == Status.UNKNOWN) & scheduled(snapshot)[boards]
    values = values_of(snapshot, metric.key)[boards]
    counted = answering & np.isfinite(values) & (held if snapshot.jobs_known else True)
    power = values_of(snapshot, "gpu.power")[boards][answering]
    return Tally(
        allocated=int(held.sum()),
        free=int(((answering | told) & ~held & ~out & _idle(snapshot)[boards]).sum())
        if snapshot.jobs_known
        else 0,
        unnamed=int((answering | told)[~held & ~out & ~_idle(snapshot)[boards]].sum()),
        drained=int((~held & out & ~off).sum()),
        down=int((~held & off).sum()),
        lost=int((status == Status.LOST).sum()),
        stale=int((status == Status.STALE).sum()),
        unseen=int(((status == Status.UNKNOWN) & ~told).sum()),
        mean=float(values[counted].mean()) if counted.any() else math.nan,
        power=float(np.nansum(power)),
        powered=int(np.isfinite(power).sum()),
        jobs_known=snapshot.jobs_known,
    )


def _idle(snapshot: Snapshot) -> Flags:
    """[gpu] whether no job holds it, as far as is known, and none may."""
    idle = snapshot.gpu_job < 0
    return idle & ~snapshot.gpu_unnamed if len(snapshot.gpu_unnamed) else idle


def _held(snapshot: Snapshot) -> Flags:
    """[gpu] whether a job holds it, or one of its MIG instances."""
    import numpy as np

    held = np.asarray(snapshot.gpu_job >= 0)
    if len(snapshot.layout.boards) != len(held):
        held = held.copy()
        for index in np.flatnonzero(held):
            if (parent := snapshot.layout.gpus[index].parent) >= 0:
                held[parent] = True
    return held


class Trouble(NamedTuple):
    """A GPU that deserves a look."""

    gpu: int
    why: str


def troubles(snapshot: Snapshot, metric: CellMetric) -> list[Trouble]:
    """Boards that deserve a look, the worst kind first, each kind in reading order.

    Lost while its node answers; node silent; no data yet; driver asks for a reset or a remap failed;
    stale; slowed by heat; slowed by a power brake; no value of the metric. Where nothing of this is
    found: allocated boards by the metric, the lowest first.
    """
    import numpy as np

    boards = snapshot.layout.boards
    found: list[Trouble] = []
    told = np.zeros(len(snapshot.layout.gpus), dtype=bool)
    for why, flags in _kinds(snapshot, metric):
        fresh = boards[flags[boards] & ~told[boards]]
        told[fresh] = True
        found += [Trouble(int(gpu), why) for gpu in fresh]
    return found or _lowest(snapshot, metric)


def _kinds(snapshot: Snapshot, metric: CellMetric) -> list[tuple[str, Flags]]:
    import numpy as np

    from coldaisle.analyzers.snapshot import Status

    silent = (snapshot.node_status == Status.LOST)[node_index(snapshot.layout)]
    status = snapshot.gpu_status
    bits = np.nan_to_num(values_of(snapshot, "gpu.throttle")).astype(np.int64)
    answering = status == Status.OK
    values = values_of(snapshot, metric.key)
    return [
        ("lost", (status == Status.LOST) & ~silent),
        ("node does not answer", (status == Status.LOST) & silent),
        ("no data yet", (status == Status.UNKNOWN) & ~scheduled(snapshot)),
        ("row remap failed", values_of(snapshot, "gpu.remap_failure") > 0),
        ("driver asks for a reset", values_of(snapshot, "gpu.recovery_action") > 0),
        ("stale", stale(snapshot, metric.key)),
        ("slowed by heat", answering & (bits & THERMAL_BITS > 0)),
        ("slowed by a power brake", answering & (bits & POWER_BRAKE_BITS > 0)),
        (f"no {metric.label}", answering & np.isnan(values) & _held(snapshot)),
    ]


def _lowest(snapshot: Snapshot, metric: CellMetric) -> list[Trouble]:
    import numpy as np

    boards = snapshot.layout.boards
    values = values_of(snapshot, metric.key)
    held = _held(snapshot) if snapshot.jobs_known else np.ones(len(values), dtype=bool)
    usable = boards[held[boards] & np.isfinite(values[boards])]
    ordered = usable[np.argsort(values[usable], kind="stable")]
    return [Trouble(int(gpu), f"lowest {metric.label}") for gpu in ordered]
