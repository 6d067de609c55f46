"""What the Node screen says of a node's GPUs, as rows of runs: pure functions of a snapshot, a series answer and a size."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NamedTuple

from coldaisle.sources.text import fit, plain
from coldaisle.sources.units import NO_VALUE, show
from coldaisle.tui.reading import (
    board_of,
    edge,
    gpu_name,
    job_index,
    job_words,
    latest,
    own_readings,
    read,
    served,
    server_of,
    status_word,
    throttle_words,
)
from coldaisle.tui.widgets.chart import (
    ASCII,
    UNICODE,
    Ink,
    Mark,
    Paint,
    Scale,
    area,
    axis_width,
    extent,
    framed,
    grid,
    heat,
    held,
    nice,
    time_axis,
)
from coldaisle.tui.widgets.lines import BLANK, Row, Run, beside, cut, pad, row_width, wrap
from coldaisle.tui.widgets.table import Cell, Column, cells_row, place

if TYPE_CHECKING:
    from coldaisle.analyzers.snapshot import EventView, SeriesAnswer, Snapshot


class Metric(NamedTuple):
    """A metric that the GPU charts can show."""

    key: str
    name: str


LEAST_CHART = 56
"""Columns under which charts are not put beside each other."""
GPU_METRICS: tuple[Metric, ...] = (
    Metric("gpu.sm_active", "SM active"),
    Metric("gpu.tensor_active", "tensor active"),
    Metric("gpu.power", "power"),
    Metric("gpu.temp", "temperature"),
    Metric("gpu.mem_temp", "HBM temp"),
    Metric("gpu.sm_clock", "SM clock"),
    Metric("gpu.mem_used", "memory"),
    Metric("gpu.nvlink_rx", "NVLink rx"),
    Metric("gpu.nvlink_tx", "NVLink tx"),
    Metric("gpu.pcie_rx", "PCIe rx"),
    Metric("gpu.pcie_tx", "PCIe tx"),
    Metric("gpu.util", "utilisation"),
    Metric("gpu.dram_active", "DRAM active"),
)


XGMI_METRICS: tuple[Metric, ...] = (Metric("gpu.xgmi_rx", "xGMI rx"), Metric("gpu.xgmi_tx", "xGMI tx"))


def gpu_metrics(snapshot: Snapshot) -> tuple[Metric, ...]:
    """Everything that the charts can show here: the shipped metrics, AMD's links where there are any, the site's own."""
    from coldaisle.sources.catalog import own_metrics
    from coldaisle.sources.source import Kind

    links = (metric for metric in XGMI_METRICS if metric.key in snapshot.columns)
    own = (Metric(one.key, one.label) for one in own_metrics(Kind.GPU))
    return (*GPU_METRICS, *links, *own)


@dataclass(frozen=True, slots=True)
class View:
    """How much there is to draw on, and with what."""

    width: int
    height: int
    ink: Ink = UNICODE
    span: float = 900.0
    """Seconds that the charts cover."""

    @property
    def ascii_only(self) -> bool:
        """Whether the locale knows only ASCII."""
        return self.ink is ASCII

    def show(self, value: float, unit: str) -> str:
        """A value with its unit, or a dash."""
        return show(value, unit, ascii_only=self.ascii_only)


class Block(NamedTuple):
    """Rows, and those that belong to the cursor."""

    rows: list[Row]
    cursor: range = range(0)


def gpu_pane(
    snapshot: Snapshot,
    index: int,
    answer: SeriesAnswer | None,
    metric: Metric,
    view: View,
    cursor: int,
    *,
    strips: bool = False,
) -> Block:
    """All GPUs of a node over time: charts, strips or one line each, by the room there is.

    ``cursor`` is the place of the chosen GPU on the node; ``strips`` asks for GPU × time digits.
    """
    gpus = list(snapshot.layout.nodes[index].gpus)
    if not gpus:
        return Block(no_gpus(snapshot, index, view.width))
    series = series_of(answer, metric.key, [snapshot.layout.gpus[g].key for g in gpus])
    scale, marks = chart_scale(snapshot, metric.key, gpus, series)
    paint = chart_paint(snapshot, metric.key, gpus, scale)
    detail = gpu_detail(snapshot, gpus[min(cursor, len(gpus) - 1)], view)
    room = max(1, view.height - 1 - len(detail))
    layout = grid(len(gpus), view.width, room, least=LEAST_CHART, overhead=1)
    if strips or room < 2 * len(gpus) / max(1, layout.columns):
        block = _one_line_each(snapshot, gpus, metric, series, scale, paint, view, cursor, digits=strips)
    else:
        block = _charts(
            snapshot, gpus, metric, series, scale, marks, paint, view, cursor, layout.columns, layout.height
        )
    return Block([*block.rows, *detail], block.cursor)


def chart_width(width: int) -> int:
    """Columns of one GPU's chart, its axis included, in a pane of ``width``."""
    return grid(8, width, 8, least=LEAST_CHART).width


def gpu_detail(snapshot: Snapshot, gpu: int, view: View) -> list[Row]:
    """The chosen GPU in one to three lines, by the height there is."""
    lines = 1 if view.height < 26 else 3
    runs: list[Run] = []
    rows: list[Row] = []
    for run in _detail_runs(snapshot, gpu, view):
        if runs and row_width((*runs, run)) + 2 > view.width:
            rows.append(tuple(runs))
            runs = [Run("  ")]
        runs.extend((Run("  "), run) if runs else (run,))
    rows.append(tuple(runs))
    return [cut(row, view.width) for row in rows[:lines]]


def values_pane(snapshot: Snapshot, gpu: int, view: View) -> list[Row]:
    """Every metric of one GPU: value, age and source, or a dash and why; then what the board is."""
    from coldaisle.sources.catalog import catalog

    known = snapshot.layout.gpus[gpu]
    rows: list[Row] = [
        (Run(f"GPU {plain(known.key)}", "title"), Run(f"  {plain(known.model or 'model not known')}"))
    ]
    rows += [
        value_row(snapshot, key, gpu, view)
        for key in catalog()
        if key.startswith("gpu.") and key in snapshot.columns
    ]
    absent = [
        key.partition(".")[2] for key in catalog() if key.startswith("gpu.") and key not in snapshot.columns
    ]
    job = job_index(snapshot, gpu)
    if job >= 0 and (said := own_readings(snapshot, "job", job)):
        rows += [BLANK, (Run(f"Job {plain(snapshot.jobs[job].bare_id)}", "title"),)]
        rows += [value_row(snapshot, reading.key, job, view) for reading in said]
    if absent:
        rows += [BLANK, (Run("No source delivers:", "dim"),), *wrap(", ".join(absent), view.width, "dim")]
    return rows


def series_of(answer: SeriesAnswer | None, key: str, entities: Sequence[str]) -> list[list[float]]:
    """The series of some entities out of an answer; empty ones for what was not asked or not answered."""
    if answer is None or key not in answer.values:
        return [[] for _ in entities]
    row_of: Mapping[str, int] = {entity: row for row, entity in enumerate(answer.query.entities)}
    values = answer.values[key]
    return [held(values[row_of[entity]].tolist()) if entity in row_of else [] for entity in entities]


def chart_scale(
    snapshot: Snapshot, key: str, gpus: Sequence[int], series: Sequence[Sequence[float]]
) -> tuple[Scale, tuple[Mark, ...]]:
    """One scale for all GPUs of a node, by the unit, and the levels worth a line."""
    unit = read(snapshot, key, gpus[0]).unit
    top = max((value for values in series for value in values if not math.isnan(value)), default=0.0)
    if unit == "ratio":
        return Scale(0.0, max(1.0, top)), ()
    if key == "gpu.power":
        return _power_scale(snapshot, gpus, top)
    if unit == "C":
        return _heat_scale(snapshot, key, gpus, top)
    if unit == "MHz":
        return Scale(0.0, _hundreds(max(_highest(snapshot, "gpu.sm_clock_max", gpus), top))), ()
    if key == "gpu.mem_used":
        return Scale(0.0, max(_highest(snapshot, "gpu.mem_total", gpus), top, 1.0)), ()
    return Scale(0.0, nice(top)), ()


def chart_paint(snapshot: Snapshot, key: str, gpus: Sequence[int], scale: Scale) -> Paint:
    """The token of a value: its level on the scale, or ``bad`` at and above the slowdown temperature."""
    slowdown = _slowdown(snapshot, gpus) if key == "gpu.temp" else math.nan

    def paint(value: float) -> str:
        return "bad" if value >= slowdown else f"scale{round(scale.share(value) * 10)}"

    return paint


def problem_words(snapshot: Snapshot, gpu: int) -> list[tuple[str, str]]:
    """What is wrong with a GPU, or holds it back, the worst first: words and tokens."""
    status = int(snapshot.gpu_status[gpu])
    if status != 1:
        word, token = status_word(status)
        return [(f"{word} {latest(snapshot, float(snapshot.gpu_seen[gpu]))}", token)]
    found = [(words, "bad") for words in _memory_troubles(snapshot, gpu)]
    return [*found, *throttle_words(read(snapshot, "gpu.throttle", gpu).value)]


def no_gpus(snapshot: Snapshot, index: int, width: int) -> list[Row]:
    """In place of a node's GPUs: that there are none, and the node's problem."""
    problem = snapshot.layout.nodes[index].problem
    return [
        (Run("no GPU is known on this node", "dim"),),
        *(wrap(plain(problem), width, "bad") if problem else []),
    ]


def _charts(
    snapshot: Snapshot, gpus: Sequence[int], metric: Metric, series: Sequence[Sequence[float]], scale: Scale,
    marks: Sequence[Mark], paint: Paint, view: View, cursor: int, columns: int, height: int,
) -> Block:  # fmt: skip
    """A grid of charts, in reading order, with a time axis under the last row."""
    width = (view.width - 2 * (columns - 1)) // columns
    rows: list[Row] = []
    chosen = range(0)
    for start in range(0, len(gpus), columns):
        line: list[Row] = []
        for column, at in enumerate(range(start, min(start + columns, len(gpus)))):
            block = _chart(
                snapshot, gpus[at], metric, series[at], scale, marks, paint, view, width, height, at == cursor
            )
            line = block if column == 0 else beside(line, block, start_width(column, width))
        if start <= cursor < start + columns:
            chosen = range(len(rows), len(rows) + len(line))
        rows.extend(line)
    left = _axis_width(scale, height, metric, marks, view, snapshot, gpus)
    axis = (Run(" " * left), *time_axis(view.span, width - left - _range_width(height), now=edge(snapshot)))
    under: list[Row] = [axis]
    for column in range(1, min(columns, len(gpus))):
        under = beside(under, [axis], start_width(column, width))
    return Block([*rows, *under], chosen)


def start_width(column: int, width: int, gap: int = 2) -> int:
    """Cells that ``column`` charts and the gaps between them take."""
    return column * width + (column - 1) * gap


def _chart(
    snapshot: Snapshot, gpu: int, metric: Metric, values: Sequence[float], scale: Scale, marks: Sequence[Mark],
    paint: Paint, view: View, width: int, height: int, chosen: bool,
) -> list[Row]:  # fmt: skip
    """One GPU: a heading, then a strip of one row or a chart with an axis."""
    heading = pad(gpu_heading(snapshot, gpu, metric, width, view, chosen=chosen), width)
    unit = read(snapshot, metric.key, gpu).unit
    left = _axis_width(scale, height, metric, marks, view, snapshot, [gpu])
    room = max(4, width - left - _range_width(height))
    if values and math.isnan(extent(values).mean):
        return [heading, *_no_series(snapshot, gpu, metric, left, height)]
    drawn = area(values, room, height, scale, ink=view.ink, paint=paint, marks=marks)
    if height < 3:
        text = range_text(values, unit, view, read(snapshot, metric.key, gpu).value)
        span = Run(" " + fit(text, _RANGE - 1, right=True), "dim")
        return [
            heading,
            *((Run(" " * left), *row, span if at == 0 else Run("")) for at, row in enumerate(drawn)),
        ]
    framed_rows = framed(drawn, scale, lambda value: view.show(value, unit), ink=view.ink, marks=marks)
    return [heading, *framed_rows]


def _no_series(snapshot: Snapshot, gpu: int, metric: Metric, left: int, height: int) -> list[Row]:
    reading = read(snapshot, metric.key, gpu)
    why = reading.why if reading.missing else "no sample in this range"
    return [(Run(" " * left + f"{NO_VALUE} {why}", "dim"),), *[BLANK] * (height - 1)]


_RANGE = 18
"""Cells for ``min..max`` at the right of a strip."""


def _range_width(height: int) -> int:
    return _RANGE if height < 3 else 0


def _axis_width(
    scale: Scale,
    height: int,
    metric: Metric,
    marks: Sequence[Mark],
    view: View,
    snapshot: Snapshot,
    gpus: Sequence[int],
) -> int:
    if height < 3:
        return 2
    unit = read(snapshot, metric.key, gpus[0]).unit
    return axis_width(scale, height, lambda value: view.show(value, unit), marks)


def range_text(values: Sequence[float], unit: str, view: View, now: float = math.nan) -> str:
    """``71..99 %``; each with its unit where these differ. The value now is in it: the others are means of a while."""
    if math.isnan(extent(values).mean):
        return ""
    span = extent([*values, now])
    low, high = view.show(span.low, unit), view.show(span.high, unit)
    if low.partition(" ")[2] == high.partition(" ")[2]:
        return f"{low.partition(' ')[0]}..{high}"
    return f"{low}..{high}"


def _one_line_each(
    snapshot: Snapshot, gpus: Sequence[int], metric: Metric, series: Sequence[Sequence[float]], scale: Scale,
    paint: Paint, view: View, cursor: int, *, digits: bool,
) -> Block:  # fmt: skip
    """A strip and the values of each GPU in one line: for low terminals and for many GPUs."""
    label = max(len(gpu_name(snapshot.layout.gpus[g])) for g in gpus) + 1
    tail = min(56, max(12, view.width * 55 // 100))
    room = max(6, view.width - label - tail - 2)
    rows: list[Row] = []
    for at, gpu in enumerate(gpus):
        name = fit(gpu_name(snapshot.layout.gpus[gpu]), label)
        strip = _strip(series[at], room, scale, paint, view, digits=digits)
        values = gpu_heading(snapshot, gpu, metric, tail, view, chosen=False, named=False)
        rows.append((Run(name, "accent" if at == cursor else "text"), *pad(strip, room), Run("  "), *values))
    axis = (Run(" " * label), *time_axis(view.span, room, now=edge(snapshot)))
    return Block([*rows, axis], range(cursor, cursor + 1))


def _strip(
    values: Sequence[float], width: int, scale: Scale, paint: Paint, view: View, *, digits: bool
) -> Row:
    if digits:
        return heat(values, width, scale, ink=view.ink, paint=paint)
    return area(values, width, 1, scale, ink=view.ink, paint=paint)[0]


def gpu_heading(
    snapshot: Snapshot, gpu: int, metric: Metric, width: int, view: View, *, chosen: bool, named: bool = True
) -> Row:
    """A GPU's values now, as many as fit, in columns that line up from GPU to GPU."""
    field = _SAME_FIELD.get(metric.key, "")
    name = Column("name", "", _name_width(snapshot, gpu), keep=0)
    columns = [
        column
        for column in (name, *_HEADING)
        if (named or column.key != "name") and not (field and column.key == "now")
    ]
    placed = place([replace(column, keep=1) if column.key == field else column for column in columns], width)
    cells: dict[str, Cell] = {
        "name": Run(gpu_name(snapshot.layout.gpus[gpu]), "accent" if chosen else "title"),
        "now": _now(snapshot, metric, gpu, view),
        "power": _power(snapshot, gpu, view),
        "temp": _temperature(snapshot, gpu, view),
        "clock": reading_run(snapshot, "gpu.sm_clock", gpu, view),
        "memory": _memory(snapshot, gpu, view),
        "util": reading_run(snapshot, "gpu.util", gpu, view, "util "),
        "pcie": _pcie(snapshot, gpu),
        "nvlink": reading_run(snapshot, "gpu.nvlink_rx", gpu, view, "NVL "),
        "state": next((Run(words, token) for words, token in problem_words(snapshot, gpu)), Run("")),
    }
    return cells_row([cells[item.column.key] for item in placed], placed)


def _name_width(snapshot: Snapshot, gpu: int) -> int:
    """Cells for the names of the GPUs of a node, MIG instances included."""
    mates = snapshot.layout.nodes[snapshot.layout.gpus[gpu].node].gpus
    return max(2, *(len(gpu_name(snapshot.layout.gpus[mate])) for mate in mates))


_HEADING = (
    Column("now", "", 9, right=True, keep=1),
    Column("power", "", 9, right=True, keep=3),
    Column("temp", "", 6, right=True, keep=4),
    Column("clock", "", 8, right=True, keep=5),
    Column("memory", "", 12, right=True, keep=6),
    Column("util", "", 10, right=True, keep=7),
    Column("nvlink", "", 13, right=True, keep=8),
    Column("pcie", "", 8, right=True, keep=9),
    Column("state", "", 12, keep=2, grows=True),
)
_SAME_FIELD = {
    "gpu.power": "power",
    "gpu.temp": "temp",
    "gpu.sm_clock": "clock",
    "gpu.mem_used": "memory",
    "gpu.util": "util",
}
"""Metrics that the heading has a field of its own for: their value stands there alone."""


def reading_run(snapshot: Snapshot, key: str, index: int, view: View, prefix: str = "") -> Run:
    reading = read(snapshot, key, index)
    return Run(prefix + reading.text(ascii_only=view.ascii_only), reading.token)


def _now(snapshot: Snapshot, metric: Metric, gpu: int, view: View) -> Run:
    reading = read(snapshot, metric.key, gpu)
    return Run(
        reading.text(ascii_only=view.ascii_only), "title" if reading.token == "text" else reading.token
    )


def _power(snapshot: Snapshot, gpu: int, view: View) -> Run:
    power, limit = read(snapshot, "gpu.power", gpu), _limit(snapshot, gpu)
    if power.missing or math.isnan(limit):
        return Run(power.text(ascii_only=view.ascii_only), power.token)
    return Run(f"{power.value:.0f}/{limit:.0f} W", power.token)


def _limit(snapshot: Snapshot, gpu: int) -> float:
    limit = read(snapshot, "gpu.power_limit", gpu).value
    known = snapshot.layout.gpus[board_of(snapshot, gpu)].power_limit_w
    return known if math.isnan(limit) and known is not None else limit


def _temperature(snapshot: Snapshot, gpu: int, view: View) -> Run:
    reading, slowdown = read(snapshot, "gpu.temp", gpu), _slowdown(snapshot, [gpu])
    hot = not reading.missing and reading.value >= slowdown - 3
    return Run(reading.text(ascii_only=view.ascii_only), "bad" if hot and not reading.why else reading.token)


def _memory(snapshot: Snapshot, gpu: int, view: View) -> Run:
    used, total = read(snapshot, "gpu.mem_used", gpu), read(snapshot, "gpu.mem_total", gpu)
    if used.missing or total.missing:
        return Run(used.text(ascii_only=view.ascii_only), used.token)
    return Run(f"{used.value / 2**30:.0f}/{total.value / 2**30:.0f} GiB", used.token)


def _pcie(snapshot: Snapshot, gpu: int) -> Run:
    gen, width = read(snapshot, "gpu.pcie_gen", gpu), read(snapshot, "gpu.pcie_width", gpu)
    if gen.missing or width.missing:
        return Run(f"PCIe {NO_VALUE}", "dim")
    best = read(snapshot, "gpu.pcie_width_max", gpu).value
    narrow = width.value < best  # the generation drops at idle by design, lanes do not
    return Run(f"gen{gen.value:.0f} x{width.value:.0f}", "warn" if narrow else gen.token)


def _memory_troubles(snapshot: Snapshot, gpu: int) -> Iterator[str]:
    for key, words in (
        ("gpu.remap_failure", "row remap failed"),
        ("gpu.remap_pending", "row remap pending"),
        ("gpu.ecc_dbe", "uncorrected ECC"),
    ):
        value = read(snapshot, key, gpu).value
        if value > 0:
            yield words if key != "gpu.ecc_dbe" else f"{words} {value:.0f}"


_LOST = 3
"""analyzers.snapshot.Status.LOST"""


def _detail_runs(snapshot: Snapshot, gpu: int, view: View) -> Iterator[Run]:
    """The chosen GPU: who holds it, what else is measured, what is missing and why."""
    known = snapshot.layout.gpus[gpu]
    yield Run(f"> {plain(known.key)}", "accent")
    for words, token in problem_words(snapshot, gpu):
        yield Run(words, token)
    if (server := server_of(snapshot, gpu)) is not None:
        yield Run(served(snapshot, server), "accent")
    margin = _margin(snapshot, gpu)
    if not math.isnan(margin):
        yield Run(f"{margin:.0f} {'C' if view.ascii_only else '°C'} to slowdown")
    job = job_index(snapshot, gpu)
    if job >= 0:
        yield Run(f"job {job_words(snapshot.jobs[job])}")
        for said in own_readings(snapshot, "job", job):
            yield Run(f"{said.name} {said.text(ascii_only=view.ascii_only)}", said.token)
    for said in own_readings(snapshot, "gpu", gpu):
        yield Run(f"{said.name} {said.text(ascii_only=view.ascii_only)}", said.token)
    known_lost = int(snapshot.gpu_status[gpu]) == _LOST
    links = (("gpu.nvlink_rx", "NVLink rx"), ("gpu.nvlink_tx", "tx"))
    if not read(snapshot, "gpu.xgmi_rx", gpu).missing:
        links = (("gpu.xgmi_rx", "xGMI rx"), ("gpu.xgmi_tx", "tx"))
    for key, name in (("gpu.mem_temp", "HBM"), ("gpu.tensor_active", "tensor"), *links):
        reading = read(snapshot, key, gpu)
        if reading.missing and known_lost:
            continue  # one word says it for all of them
        why = f" ({reading.why})" if reading.missing else ""
        yield Run(f"{name} {reading.text(ascii_only=view.ascii_only)}{why}", reading.token)
    link = _pcie(snapshot, gpu)
    yield link if link.token == "dim" else Run(f"PCIe {link.text}", link.token)
    yield Run(f"ECC {_count(snapshot, 'gpu.ecc_sbe', gpu)}/{_count(snapshot, 'gpu.ecc_dbe', gpu)}")
    if known.mig_profile:
        yield Run(f"MIG {plain(known.mig_profile)}")
    yield from (Run(f"XID seen: {plain(event.detail)}", "bad") for event in _last_xid(snapshot, known.key))


def _last_xid(snapshot: Snapshot, key: str) -> list[EventView]:
    return [event for event in snapshot.events if event.entity == key and event.kind == "xid"][-1:]


def _count(snapshot: Snapshot, key: str, gpu: int) -> str:
    reading = read(snapshot, key, gpu)
    return NO_VALUE if reading.missing else f"{reading.value:.0f}"


def _margin(snapshot: Snapshot, gpu: int) -> float:
    margin = read(snapshot, "gpu.temp_margin", gpu).value
    return (
        _slowdown(snapshot, [gpu]) - read(snapshot, "gpu.temp", gpu).value if math.isnan(margin) else margin
    )


def _slowdown(snapshot: Snapshot, gpus: Sequence[int]) -> float:
    """The lowest slowdown temperature of some GPUs, measured or known of the part; NaN: nobody says."""
    found = [read(snapshot, "gpu.temp_slowdown", gpu).value for gpu in gpus]
    found += [
        value
        for gpu in gpus
        if (value := snapshot.layout.gpus[board_of(snapshot, gpu)].slowdown_c) is not None
    ]
    return min((value for value in found if not math.isnan(value)), default=math.nan)


def _power_scale(snapshot: Snapshot, gpus: Sequence[int], top: float) -> tuple[Scale, tuple[Mark, ...]]:
    limits = [limit for gpu in gpus if not math.isnan(limit := _limit(snapshot, gpu))]
    scale = Scale(0.0, _hundreds(max([top, *(limit * 1.05 for limit in limits)])))
    return scale, (Mark(min(limits), "limit"),) if limits else ()


def _heat_scale(
    snapshot: Snapshot, key: str, gpus: Sequence[int], top: float
) -> tuple[Scale, tuple[Mark, ...]]:
    if key == "gpu.mem_temp":
        levels = [read(snapshot, "gpu.mem_temp_max", gpu).value for gpu in gpus]
        level = min((value for value in levels if not math.isnan(value)), default=math.nan)
    else:
        level = _slowdown(snapshot, gpus)
    scale = Scale(20.0, max(100.0, top))
    return scale, () if math.isnan(level) else (Mark(level, "slowdown", "bad"),)


def _highest(snapshot: Snapshot, key: str, gpus: Sequence[int]) -> float:
    values = (read(snapshot, key, gpu).value for gpu in gpus)
    return max((value for value in values if not math.isnan(value)), default=0.0)


def _hundreds(value: float) -> float:
    return max(100.0, math.ceil(value / 100.0) * 100.0)


_HELP_FROM = 110
"""Columns from which every value has its line of help beside it."""


def value_row(snapshot: Snapshot, key: str, gpu: int, view: View) -> Row:
    """A metric of an entity: value, age and source, or a dash and why; where there is room, what it is."""
    from coldaisle.sources.catalog import catalog

    reading = read(snapshot, key, gpu)
    text = reading.text(ascii_only=view.ascii_only)
    if key == "gpu.throttle" and not reading.missing:
        text = ", ".join(words for words, _ in throttle_words(reading.value)) or "none"
    origin = reading.origin(snapshot.at)
    row: Row = (
        Run(fit(key.partition(".")[2], 21), "dim"),
        Run(fit(text, 12, right=len(text) <= 12) + "  ", reading.token),
        Run(origin, "dim"),
    )
    if view.width >= _HELP_FROM:
        row = (*pad(row, 76), Run(catalog()[key].help, "dim"))
    return cut(row, view.width)
