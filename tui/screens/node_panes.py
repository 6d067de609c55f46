"""What the Node screen says, as rows of runs: pure functions of a snapshot, a series answer and a size."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NamedTuple

from coldaisle.sources.text import fit, plain
from coldaisle.sources.units import NO_VALUE, age, show
from coldaisle.tui.reading import board_of, gpu_name, latest, read, status_word, throttle_words
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
    nice,
    time_axis,
)
from coldaisle.tui.widgets.lines import BLANK, Row, Run, beside, cut, pad, row_width, wrap
from coldaisle.tui.widgets.table import Cell, Column, cells_row, place

if TYPE_CHECKING:
    from coldaisle.analyzers.snapshot import EventView, SeriesAnswer, Snapshot
    from coldaisle.sources.cluster import Node
    from coldaisle.sources.source import Process


class Metric(NamedTuple):
    """A metric that the GPU charts can show."""

    key: str
    name: str


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
HOST_METRICS: tuple[Metric, ...] = (
    Metric("node.cpu_util", "CPU"),
    Metric("node.cpu_iowait", "iowait"),
    Metric("node.load1", "load 1 min"),
    Metric("node.mem_ratio", "memory"),
    Metric("node.psi_cpu_some", "PSI cpu some"),
    Metric("node.psi_io_full", "PSI io full"),
    Metric("node.psi_mem_full", "PSI mem full"),
    Metric("node.disk_read", "disks read"),
    Metric("node.disk_write", "disks write"),
    Metric("node.nfs_read", "NFS read"),
    Metric("node.nfs_write", "NFS write"),
    Metric("node.net_rx", "net rx"),
    Metric("node.net_tx", "net tx"),
    Metric("node.power", "node power"),
    Metric("node.inlet_temp", "inlet"),
)
LINK_METRICS: tuple[Metric, ...] = (Metric("port.tx", "tx"), Metric("port.rx", "rx"))
PORT_ERRORS = (
    "symbol_errors", "integrity_errors", "overrun_errors", "rcv_errors", "rcv_remote_errors", "xmit_discards",
    "constraint_errors", "out_of_sequence", "icrc_errors", "errors", "drops",
)  # fmt: skip
PORT_STATES = {1: ("down", "bad"), 2: ("init", "warn"), 3: ("armed", "warn"), 4: ("up", "ok")}
PORT_PHYS = {2: "polling", 3: "disabled", 6: "error recovery"}


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


def title(snapshot: Snapshot, index: int, width: int) -> Row:
    """The node's name, place, state, board and job, as much as fits."""
    node = snapshot.layout.nodes[index]
    rack = snapshot.layout.racks[node.rack]
    word, token = status_word(int(snapshot.node_status[index]))
    heard = latest(snapshot, float(snapshot.node_seen[index]))
    runs = [
        Run(plain(node.key), "title"),
        Run(f"  rack {plain(rack.name)}", "dim"),
        Run("  "),
        Run(f"{word}, heard {heard}" + ("" if heard == "never" else " ago"), token),
        *_scheduler_state(node),
        *_board_words(snapshot, node),
        *_job_words(snapshot, node),
    ]
    return cut(tuple(runs), width)


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
        return Block(
            [(Run("no GPU is known on this node", "dim"),), *_why_no_gpus(snapshot, index, view.width)]
        )
    series = series_of(answer, metric.key, [snapshot.layout.gpus[g].key for g in gpus])
    scale, marks = chart_scale(snapshot, metric.key, gpus, series)
    paint = chart_paint(snapshot, metric.key, gpus, scale)
    detail = gpu_detail(snapshot, gpus[min(cursor, len(gpus) - 1)], view)
    room = max(1, view.height - 1 - len(detail))
    layout = grid(len(gpus), view.width, room, least=56, overhead=1)
    if strips or room < 2 * len(gpus) / max(1, layout.columns):
        block = _one_line_each(snapshot, gpus, metric, series, scale, paint, view, cursor, digits=strips)
    else:
        block = _charts(
            snapshot, gpus, metric, series, scale, marks, paint, view, cursor, layout.columns, layout.height
        )
    return Block([*block.rows, *detail], block.cursor)


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
        _value_row(snapshot, key, gpu, view)
        for key in catalog()
        if key.startswith("gpu.") and key in snapshot.columns
    ]
    absent = [
        key.partition(".")[2] for key in catalog() if key.startswith("gpu.") and key not in snapshot.columns
    ]
    if absent:
        rows += [BLANK, (Run("No source delivers:", "dim"),), *wrap(", ".join(absent), view.width, "dim")]
    return rows


def host_pane(snapshot: Snapshot, index: int, answer: SeriesAnswer | None, view: View) -> list[Row]:
    """CPU, memory, pressure, disks, NFS, network and power of the host, each over time with its value now."""
    rows = [_host_row(snapshot, index, metric, answer, view) for metric in HOST_METRICS]
    rows.append(
        (Run(" " * _HOST_NAME), *time_axis(view.span, max(10, view.width - _HOST_NAME - _HOST_VALUE)))
    )
    rows += [_nfs_row(snapshot, index, view)]
    return [*rows, BLANK, *_disk_rows(snapshot, index, view)]


def links_pane(snapshot: Snapshot, index: int, answer: SeriesAnswer | None, view: View) -> list[Row]:
    """Every port: kind, state, rate, traffic as a share of the rate, errors and waiting, and traffic over time."""
    ports = snapshot.layout.nodes[index].ports
    if not ports:
        return [(Run("no network port is known on this node", "dim"),)]
    placed = place(_PORT_COLUMNS, view.width)
    rows: list[Row] = [cells_row([Run(item.column.title, "dim") for item in placed], placed)]
    for port in ports:
        cells = _port_cells(snapshot, port, view)
        rows.append(cells_row([cells[item.column.key] for item in placed], placed))
        rows.extend(_port_strips(snapshot, port, answer, view))
    half = max(10, (view.width - 12) // 2)
    rows.append(
        (Run("     "), *pad(time_axis(view.span, half), half), Run("     "), *time_axis(view.span, half))
    )
    return [*rows, BLANK, *_port_troubles(snapshot, ports, view)]


def process_pane(snapshot: Snapshot, index: int, view: View) -> list[Row]:
    """The processes on the node's GPUs."""
    node = snapshot.layout.nodes[index]
    found = snapshot.processes.get(node.key)
    if found is None:
        return [
            (Run("no source lists the processes of this node: it takes the probe (ssh or local)", "dim"),)
        ]
    if not found:
        return [(Run("no process is on this node's GPUs, as far as our user may see", "dim"),)]
    placed = place(_PROCESS_COLUMNS, view.width)
    rows: list[Row] = [cells_row([Run(item.column.title, "dim") for item in placed], placed)]
    for slot, process in sorted(
        ((process_gpu(snapshot, node, item), item) for item in found),
        key=lambda pair: (pair[0] or "~", pair[1].pid),
    ):
        cells = _process_cells(slot, process, view)
        rows.append(cells_row([cells[item.column.key] for item in placed], placed))
    return rows


def event_pane(snapshot: Snapshot, index: int, view: View) -> list[Row]:
    """What happened on this node, its GPUs, its ports and its rack, newest first."""
    node = snapshot.layout.nodes[index]
    rack = snapshot.layout.racks[node.rack].name
    near = [
        event
        for event in snapshot.events
        if event.entity in (node.key, rack) or event.entity.startswith(node.key + "/")
    ]
    if not near:
        return [(Run("no event of this node among the last 500 of the cluster", "dim"),)]
    return [
        cut(
            (
                Run(time.strftime("%H:%M:%S", time.localtime(event.at))),
                Run(f"  {fit(age(snapshot.at - event.at), 6)} ago  ", "dim"),
                Run(fit(plain(event.entity), 16) + " "),
                Run(fit(plain(event.kind), 14) + " ", _EVENT_TOKENS.get(event.kind, "text")),
                Run(plain(event.detail)),
            ),
            view.width,
        )
        for event in reversed(near)
    ]


def fact_pane(snapshot: Snapshot, index: int, view: View) -> list[Row]:
    """What is known of the node that does not change from tick to tick, and how it is known."""
    rows = [
        cut((Run(fit(name, 16), "dim"), Run(plain(text), token)), view.width)
        for name, text, token in _facts(snapshot, index)
    ]
    rows += [BLANK, (Run("GPUs", "dim"),)]
    return rows + [cut(_board_fact(snapshot, gpu), view.width) for gpu in snapshot.layout.nodes[index].gpus]


def series_of(answer: SeriesAnswer | None, key: str, entities: Sequence[str]) -> list[list[float]]:
    """The series of some entities out of an answer; empty ones for what was not asked or not answered."""
    if answer is None or key not in answer.values:
        return [[] for _ in entities]
    row_of: Mapping[str, int] = {entity: row for row, entity in enumerate(answer.query.entities)}
    values = answer.values[key]
    return [
        [float(value) for value in values[row_of[entity]]] if entity in row_of else [] for entity in entities
    ]


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


def process_gpu(snapshot: Snapshot, node: Node, process: Process) -> str | None:
    """The slot of the GPU that a process is on: joined by UUID, PCI address or minor, else by index; None: not known."""
    ref = process.gpu
    gpus = [snapshot.layout.gpus[g] for g in node.gpus]
    for field in ("uuid", "pci", "minor", "index"):
        wanted = getattr(ref, field)
        if wanted is None:
            continue
        for gpu in gpus:
            if getattr(gpu, field) == wanted and gpu.mig == ref.mig:
                return gpu_name(gpu)
    return None


def _scheduler_state(node: Node) -> Iterator[Run]:
    if node.state and node.state not in ("alloc", "idle", "mix", "mixed", "allocated"):
        yield Run(f"  {plain(node.state)}", "drained")
    if node.problem:
        yield Run(f"  {plain(node.problem)}", "bad")


def _board_words(snapshot: Snapshot, node: Node) -> Iterator[Run]:
    boards = [snapshot.layout.gpus[g] for g in node.gpus if snapshot.layout.gpus[g].parent < 0]
    model = next((plain(gpu.model) for gpu in boards if gpu.model), "")
    seen = node.gpus_visible if node.gpus_visible is not None else len(boards)
    expected = node.gpus_expected if node.gpus_expected is not None else len(boards)
    if seen < expected:
        yield Run(f"  {seen} of {expected} GPUs visible to you {model}".rstrip(), "warn")
    else:
        yield Run(f"  {len(boards)} GPUs {model}".rstrip())


def _job_words(snapshot: Snapshot, node: Node) -> Iterator[Run]:
    held = dict.fromkeys(int(snapshot.gpu_job[g]) for g in node.gpus if snapshot.gpu_job[g] >= 0)
    jobs = [snapshot.jobs[at] for at in held]
    for job in jobs[:1]:
        yield Run(f"  job {plain(job.bare_id)} {plain(job.user)} {plain(job.name)}")
    if len(jobs) > 1:
        yield Run(f" +{len(jobs) - 1} more", "dim")


def _why_no_gpus(snapshot: Snapshot, index: int, width: int) -> list[Row]:
    problem = snapshot.layout.nodes[index].problem
    return wrap(plain(problem), width, "bad") if problem else []


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
    axis = (Run(" " * left), *time_axis(view.span, width - left - _range_width(height)))
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
        span = Run(" " + fit(_range_text(values, unit, view), _RANGE - 1, right=True), "dim")
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


def _range_text(values: Sequence[float], unit: str, view: View) -> str:
    """``71..99 %``; each with its unit where these differ."""
    span = extent(values)
    low, high = view.show(span.low, unit), view.show(span.high, unit)
    if math.isnan(span.mean):
        return ""
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
    axis = (Run(" " * label), *time_axis(view.span, room))
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
        "clock": _reading(snapshot, "gpu.sm_clock", gpu, view),
        "memory": _memory(snapshot, gpu, view),
        "util": _reading(snapshot, "gpu.util", gpu, view, "util "),
        "pcie": _pcie(snapshot, gpu),
        "nvlink": _reading(snapshot, "gpu.nvlink_rx", gpu, view, "NVL "),
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


def _reading(snapshot: Snapshot, key: str, index: int, view: View, prefix: str = "") -> Run:
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
        return Run(NO_VALUE, "dim")
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


def _detail_runs(snapshot: Snapshot, gpu: int, view: View) -> Iterator[Run]:
    """The chosen GPU: who holds it, what else is measured, what is missing and why."""
    known = snapshot.layout.gpus[gpu]
    yield Run(f"> {plain(known.key)}", "accent")
    for words, token in problem_words(snapshot, gpu):
        yield Run(words, token)
    margin = _margin(snapshot, gpu)
    if not math.isnan(margin):
        yield Run(f"{margin:.0f} {'C' if view.ascii_only else '°C'} to slowdown")
    job = int(snapshot.gpu_job[board_of(snapshot, gpu)])
    if job >= 0:
        held = snapshot.jobs[job]
        yield Run(f"job {plain(held.bare_id)} {plain(held.user)} {plain(held.name)}")
    for key, name in (
        ("gpu.mem_temp", "HBM"),
        ("gpu.tensor_active", "tensor"),
        ("gpu.nvlink_rx", "NVLink rx"),
        ("gpu.nvlink_tx", "tx"),
    ):
        reading = read(snapshot, key, gpu)
        yield Run(
            f"{name} {reading.text(ascii_only=view.ascii_only)}"
            + (f" ({reading.why})" if reading.missing else ""),
            reading.token,
        )
    yield Run(f"PCIe {_pcie(snapshot, gpu).text}")
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


def _value_row(snapshot: Snapshot, key: str, gpu: int, view: View) -> Row:
    from coldaisle.sources.catalog import catalog

    reading = read(snapshot, key, gpu)
    text = reading.text(ascii_only=view.ascii_only)
    if key == "gpu.throttle" and not reading.missing:
        text = ", ".join(words for words, _ in throttle_words(reading.value)) or "none"
    row = (
        Run(fit(key.partition(".")[2], 21), "dim"),
        Run(fit(text, 12, right=len(text) <= 12) + "  ", reading.token),
        Run(fit(reading.origin(snapshot.at), 38) + "  ", "dim"),
        Run(catalog()[key].help, "dim"),
    )
    return cut(row, view.width)


_HOST_NAME = 13
_HOST_VALUE = 33


def _host_row(snapshot: Snapshot, index: int, metric: Metric, answer: SeriesAnswer | None, view: View) -> Row:
    reading = read(snapshot, metric.key, index)
    values = series_of(answer, metric.key, [snapshot.layout.nodes[index].key])[0]
    room = max(10, view.width - _HOST_NAME - _HOST_VALUE)
    scale = _host_scale(snapshot, index, reading.unit, metric.key, values)
    strip = area(
        values, room, 1, scale, ink=view.ink, paint=lambda value: f"scale{round(scale.share(value) * 10)}"
    )[0]
    if reading.missing and math.isnan(extent(values).mean):
        return cut(
            (Run(fit(metric.name, _HOST_NAME), "dim"), Run(f"{NO_VALUE} {reading.why}", "dim")), view.width
        )
    spread_text = _range_text(values, reading.unit, view)
    now = Run(" " + fit(reading.text(ascii_only=view.ascii_only), 11, right=True), reading.token)
    return (
        Run(fit(metric.name, _HOST_NAME), "dim"),
        *pad(strip, room),
        now,
        Run("  " + fit(spread_text, _HOST_VALUE - 14), "dim"),
    )


def _host_scale(snapshot: Snapshot, index: int, unit: str, key: str, values: Sequence[float]) -> Scale:
    top = max((value for value in values if not math.isnan(value)), default=0.0)
    if unit == "ratio":
        return Scale(0.0, max(1.0, top))
    if key == "node.load1":
        return Scale(0.0, max(float(snapshot.layout.nodes[index].cpus or 0), nice(top)))
    if unit == "C":
        return Scale(10.0, max(50.0, top))
    return Scale(0.0, nice(top))


def _nfs_row(snapshot: Snapshot, index: int, view: View) -> Row:
    runs = [Run(fit("NFS", _HOST_NAME), "dim")]
    for key, name in (
        ("node.nfs_ops", "ops"),
        ("node.nfs_rtt", "rtt"),
        ("node.nfs_exec", "exec"),
        ("node.nfs_retrans", "retrans"),
    ):
        runs.append(Run(f"{name} "))
        runs.append(_reading(snapshot, key, index, view))
        runs.append(Run("  "))
    return cut(tuple(runs), view.width)


def _disk_rows(snapshot: Snapshot, index: int, view: View) -> list[Row]:
    disks = snapshot.layout.nodes[index].disks
    if not disks:
        return [(Run("no disk is known on this node", "dim"),)]
    placed = place(_DISK_COLUMNS, view.width)
    rows: list[Row] = [cells_row([Run(item.column.title, "dim") for item in placed], placed)]
    for disk in disks:
        cells: dict[str, Cell] = {
            key: _reading(snapshot, f"disk.{key}", disk, view)
            for key in ("util", "read", "write", "read_time", "write_time", "queue")
        }
        cells["name"] = Run(plain(snapshot.layout.disks[disk].name))
        rows.append(cells_row([cells[item.column.key] for item in placed], placed))
    return rows


_DISK_COLUMNS = (
    Column("name", "disk", 12, keep=0),
    Column("util", "busy", 6, right=True, keep=1),
    Column("read", "read", 11, right=True, keep=2),
    Column("write", "write", 11, right=True, keep=3),
    Column("read_time", "a read", 9, right=True, keep=4),
    Column("write_time", "a write", 9, right=True, keep=5),
    Column("queue", "queue", 6, right=True, keep=6),
)
_PORT_COLUMNS = (
    Column("name", "port", 13, keep=0),
    Column("kind", "kind", 4, keep=5),
    Column("state", "state", 6, keep=1),
    Column("rate", "rate", 9, right=True, keep=4),
    Column("tx", "tx", 16, right=True, keep=2),
    Column("rx", "rx", 16, right=True, keep=3),
    Column("wait", "xmit wait", 9, right=True, keep=7),
    Column("errors", "errors", 8, right=True, keep=6),
    Column("downed", "downs", 6, right=True, keep=8),
)
_PROCESS_COLUMNS = (
    Column("gpu", "GPU", 6, keep=0),
    Column("pid", "PID", 8, right=True, keep=1),
    Column("user", "user", 12, keep=2),
    Column("memory", "memory", 9, right=True, keep=4),
    Column("sm", "SM", 5, right=True, keep=5),
    Column("command", "command", 12, keep=3, grows=True),
)
_EVENT_TOKENS = {
    "xid": "bad",
    "gpu_lost": "bad",
    "oom": "bad",
    "link_down": "bad",
    "reboot": "warn",
    "gpu_replaced": "warn",
}


def _port_cells(snapshot: Snapshot, port: int, view: View) -> dict[str, Cell]:
    part = snapshot.layout.ports[port]
    rate = read(snapshot, "port.rate", port)
    return {
        "name": Run(plain(part.name)),
        "kind": Run(port_kind(snapshot, port), "dim"),
        "state": _port_state(snapshot, port),
        "rate": Run(_gigabits(rate.value), rate.token),
        "tx": _traffic(snapshot, "port.tx", port, rate.value, view),
        "rx": _traffic(snapshot, "port.rx", port, rate.value, view),
        "wait": _reading(snapshot, "port.xmit_wait", port, view),
        "errors": _errors(snapshot, port, view),
        "downed": _reading(snapshot, "port.link_downed", port, view),
    }


def port_kind(snapshot: Snapshot, port: int) -> str:
    """``IB``, ``RoCE`` or ``Eth``: RDMA ports have a number behind their device's name."""
    if "/" not in snapshot.layout.ports[port].name:
        return "Eth"
    return "RoCE" if read(snapshot, "port.roce", port).value == 1 else "IB"


def _port_state(snapshot: Snapshot, port: int) -> Run:
    state = read(snapshot, "port.state", port)
    if state.missing:
        return Run(NO_VALUE, "dim")
    word, token = PORT_STATES.get(int(state.value), (f"{state.value:.0f}", "warn"))
    return Run(word, "stale" if state.stale else token)


def _gigabits(rate: float) -> str:
    return NO_VALUE if math.isnan(rate) else f"{rate * 8 / 1e9:.0f} Gb/s"


def _traffic(snapshot: Snapshot, key: str, port: int, rate: float, view: View) -> Run:
    reading = read(snapshot, key, port)
    text = reading.text(ascii_only=view.ascii_only)
    if not reading.missing and rate > 0:
        text += f" {reading.value / rate * 100:3.0f} %"
    return Run(text, reading.token)


def _errors(snapshot: Snapshot, port: int, view: View) -> Run:
    """All error rates of a port added; a dash if no source counts any."""
    values = [
        value for name in PORT_ERRORS if not math.isnan(value := read(snapshot, f"port.{name}", port).value)
    ]
    if not values:
        return Run(NO_VALUE, "dim")
    return Run(view.show(sum(values), "/s"), "bad" if sum(values) > 0 else "text")


def _port_strips(snapshot: Snapshot, port: int, answer: SeriesAnswer | None, view: View) -> list[Row]:
    """Sent and received over time, beside each other, as a share of the link's rate."""
    key, half = snapshot.layout.ports[port].key, max(10, (view.width - 12) // 2)
    rate = read(snapshot, "port.rate", port).value
    runs: list[Run] = []
    for metric in LINK_METRICS:
        values = series_of(answer, metric.key, [key])[0]
        top = max((value for value in values if not math.isnan(value)), default=0.0)
        scale = Scale(0.0, max(rate, top) if rate > 0 else nice(top))
        strip = area(values, half, 1, scale, ink=view.ink, paint=_level_paint(scale))[0]
        runs += [Run(f"  {metric.name} ", "dim"), *pad(strip, half)]
    return [tuple(runs)]


def _level_paint(scale: Scale) -> Paint:
    return lambda value: f"scale{round(scale.share(value) * 10)}"


def _port_troubles(snapshot: Snapshot, ports: range, view: View) -> list[Row]:
    """Every error counter that is not zero, by name; what the physical state says of a port that is down."""
    rows: list[Row] = []
    for port in ports:
        name = plain(snapshot.layout.ports[port].name)
        for error in PORT_ERRORS:
            reading = read(snapshot, f"port.{error}", port)
            if reading.value > 0:
                rows.append(
                    (
                        Run(
                            f"{name}: {error.replace('_', ' ')} {reading.text(ascii_only=view.ascii_only)}",
                            "bad",
                        ),
                    )
                )
        phys = read(snapshot, "port.phys_state", port).value
        if not math.isnan(phys) and int(phys) in PORT_PHYS:
            rows.append((Run(f"{name}: {PORT_PHYS[int(phys)]}", "warn"),))
    return rows or [(Run("no error is counted on any port", "dim"),)]


def _process_cells(slot: str | None, process: Process, view: View) -> dict[str, Cell]:
    return {
        "gpu": Run(slot if slot is not None else "?"),
        "pid": Run(str(process.pid)),
        "user": Run(plain(process.user) if process.user else NO_VALUE),
        "memory": Run(
            NO_VALUE if process.memory_bytes is None else view.show(float(process.memory_bytes), "B")
        ),
        "sm": Run(NO_VALUE if process.sm is None else view.show(process.sm, "ratio")),
        "command": Run(
            plain(process.command) if process.command else f"{NO_VALUE} not permitted for our user"
        ),
    }


def _facts(snapshot: Snapshot, index: int) -> Iterator[tuple[str, str, str]]:
    node = snapshot.layout.nodes[index]
    rack = snapshot.layout.racks[node.rack]
    yield "rack", f"{rack.name}  (known from: {rack.place})", "text"
    yield "host name", node.hostname or NO_VALUE, "text"
    yield "also known as", ", ".join(node.aliases) or "no other name", "text"
    yield "scheduler says", node.state or "no scheduler is read", "text"
    yield "problem", node.problem or "none known", "bad" if node.problem else "text"
    yield "driver", node.driver or NO_VALUE, "text"
    yield "kernel", node.kernel or NO_VALUE, "text"
    yield "up for", _uptime(snapshot.at, node.booted_at), "text"
    yield "CPUs", str(node.cpus) if node.cpus else NO_VALUE, "text"
    yield "memory", show(float(node.memory_bytes), "B") if node.memory_bytes else NO_VALUE, "text"
    yield "GPUs", _gpu_count(snapshot, node), "text"
    yield "clock", _clock(node.clock_offset_s), "warn" if abs(node.clock_offset_s or 0.0) > 1 else "text"


def _uptime(now: float, booted: float | None) -> str:
    return NO_VALUE if booted is None else age(now - booted)


def _gpu_count(snapshot: Snapshot, node: Node) -> str:
    boards = sum(1 for g in node.gpus if snapshot.layout.gpus[g].parent < 0)
    expected = node.gpus_expected if node.gpus_expected is not None else boards
    if node.gpus_visible is not None and node.gpus_visible < expected:
        return f"{node.gpus_visible} of {expected} visible to you (a job's cgroup hides the others)"
    return f"{boards} of {expected}"


def _clock(offset: float | None) -> str:
    if offset is None:
        return NO_VALUE
    return f"{abs(offset):.2f} s {'ahead of' if offset > 0 else 'behind'} ours"


def _board_fact(snapshot: Snapshot, gpu: int) -> Row:
    known = snapshot.layout.gpus[gpu]
    parts = [known.model, known.uuid, known.pci, known.mig_profile, known.serial and f"serial {known.serial}"]
    parts += [known.fabric and f"fabric {known.fabric}", "MIG on" if known.mig_enabled else None]
    text = "  ".join(plain(part) for part in parts if part)
    return (Run(fit(gpu_name(known), 7), "dim"), Run(text or "nothing is known of it"))
