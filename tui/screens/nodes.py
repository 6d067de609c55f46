"""The Nodes screen: a row a node, for thousands of them; sorted and filtered, nothing moves by itself."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, ClassVar, NamedTuple

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType

from coldaisle.sources.text import plain
from coldaisle.sources.units import NO_VALUE, age, show
from coldaisle.tui import cells
from coldaisle.tui.findings import mark_of
from coldaisle.tui.reading import latest, read, status_word, why_silent
from coldaisle.tui.screens.filtered import FilteredScreen
from coldaisle.tui.widgets.empty import no_node
from coldaisle.tui.widgets.header import TopLines
from coldaisle.tui.widgets.lines import Lines, Row, Run, cut, merged
from coldaisle.tui.widgets.table import Cell, Column, Placed, Table

if TYPE_CHECKING:
    from coldaisle.analyzers.snapshot import Snapshot, Times
    from coldaisle.sources.cluster import Layout
    from coldaisle.sources.source import Codes

COLUMNS = (
    Column("node", "node", 11, keep=0),
    Column("rack", "rack", 7, keep=9),
    Column("state", "state", 8, keep=1),
    Column("gpus", "GPUs", 8, keep=2),
    Column("cpu", "CPU", 5, right=True, keep=5),
    Column("memory", "mem", 5, right=True, keep=6),
    Column("psi", "pressure", 10, right=True, keep=7),
    Column("gpu_power", "GPU power", 9, right=True, keep=8),
    Column("power", "power", 8, right=True, keep=11),
    Column("net", "net", 9, right=True, keep=10),
    Column("age", "heard", 6, right=True, keep=3),
    Column("problem", "problem", 14, keep=4, grows=True),
)


FINDING = Column("finding", "finding", 13, keep=3)
"""The worst that touches it; a column once there is a diagnosis."""


def columns(*, diagnosed: bool = False) -> tuple[Column, ...]:
    """The same with the site's own metrics of nodes, before what has no end, and with the finding behind the GPUs."""
    from coldaisle.sources.catalog import own_metrics
    from coldaisle.sources.source import Kind

    own = (
        Column(one.key, one.label, max(9, min(len(one.label), 14)), right=True, keep=len(COLUMNS) + at)
        for at, one in enumerate(own_metrics(Kind.NODE))
    )
    shown = (*COLUMNS[:-1], *own, COLUMNS[-1])
    if not diagnosed:
        return shown
    at = next(at for at, column in enumerate(shown) if column.key == "gpus") + 1
    return (*shown[:at], FINDING, *shown[at:])


PSI = (("node.psi_cpu_some", "cpu"), ("node.psi_io_full", "io"), ("node.psi_mem_full", "mem"))
PSI_WORTH = 0.10
"""Pressure above this share of time is marked."""


class Sort(NamedTuple):
    """An order of the nodes."""

    column: str
    name: str


SORTS = (
    Sort("node", "place"),
    Sort("state", "state, worst first"),
    Sort("gpus", "GPU activity, lowest first"),
    Sort("cpu", "CPU, highest first"),
    Sort("memory", "memory, highest first"),
    Sort("psi", "pressure, highest first"),
    Sort("gpu_power", "GPU power, highest first"),
    Sort("net", "network, highest first"),
    Sort("age", "longest silent first"),
)


def order(snapshot: Snapshot, sort: Sort) -> list[str]:
    """Node keys in an order; without a value last, equal ones by place."""
    nodes = snapshot.layout.nodes
    if sort.column == "node":
        return [node.key for node in nodes]
    import numpy as np

    return [nodes[index].key for index in np.argsort(_weights(snapshot, sort.column), kind="stable")]


def node_cells(snapshot: Snapshot, index: int, columns: Sequence[str], gpus: Row) -> list[Cell]:
    """A node's cells for some columns; ``gpus`` are its GPUs as Racks draws them."""
    makers: dict[str, Callable[[], Cell]] = {
        "node": lambda: Run(plain(snapshot.layout.nodes[index].key), "text"),
        "rack": lambda: Run(plain(snapshot.layout.racks[snapshot.layout.nodes[index].rack].name), "dim"),
        "state": lambda: _state(snapshot, index),
        "gpus": lambda: gpus,
        "finding": lambda: mark_of(snapshot, "nodes", index),
        "cpu": lambda: _number(snapshot, "node.cpu_util", index),
        "memory": lambda: _number(snapshot, "node.mem_ratio", index),
        "psi": lambda: _pressure(snapshot, index),
        "gpu_power": lambda: _gpu_power(snapshot, index),
        "power": lambda: _number(snapshot, "node.power", index),
        "net": lambda: _net(snapshot, index),
        "age": lambda: Run(
            latest(snapshot, float(snapshot.node_seen[index])),
            status_word(int(snapshot.node_status[index]))[1],
        ),
        "problem": lambda: _problem(snapshot, index),
    }
    return [
        _number(snapshot, column, index) if column.startswith("node.") else makers[column]()
        for column in columns
    ]


def gpu_cells(layout: Layout, index: int, codes: Codes) -> Row:
    """A node's boards, a character each, as Racks draws them."""
    boards = (gpu for gpu in layout.nodes[index].gpus if layout.gpus[gpu].parent < 0)
    return merged(Run(cells.letter(code), cells.token(code)) for code in (int(codes[gpu]) for gpu in boards))


class NodesScreen(FilteredScreen):
    """All nodes as a table."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("s", "sort", "Sort"),
        Binding("slash", "filter", "Filter", key_display="/"),
        Binding("escape", "back", "Back"),
    ]
    TAB = "Nodes"
    ROWS, COUNTED = "node", "nodes"
    FILTER_HINT = "r07, drain, kim, util<5, cpu>90 & node.power>8kW; Tab completes, Up recalls"

    def __init__(self) -> None:
        super().__init__()
        self.sort = SORTS[0]
        self._order: list[str] = []
        self._ordered_for: tuple[tuple[str, ...], str, bool] | None = None
        self._ordered_at = 0.0
        self._columns: tuple[Column, ...] = COLUMNS

    def body(self) -> ComposeResult:
        self._columns = columns()
        yield Table(self._columns, id="nodes")
        yield Lines(id="status")

    def redraw(self, snapshot: Snapshot) -> None:
        """Rows in the order that was chosen; values of what is in sight."""
        self._keep_order(snapshot)
        keys = self._filtered(snapshot)
        metric = self._cell_metric(snapshot)
        layout, codes = snapshot.layout, cells.cell_codes(snapshot, metric)
        self.query_one(TopLines).set_note((Run(f"GPUs: {metric.label}", "dim"),))

        def cells_of(key: str, placed: Sequence[Placed]) -> Sequence[Cell]:
            index = layout.node_of[key]
            drawn = gpu_cells(layout, index, codes)
            return node_cells(snapshot, index, [item.column.key for item in placed], drawn)

        table = self.query_one(Table)
        self._columns = columns(diagnosed=bool(snapshot.diagnosis.at))
        table.set_columns(self._columns)
        empty = "no node matches the filter" if layout.nodes else no_node(snapshot, table.size.width - 1)
        table.show(keys, cells_of, sorted_by=self.sort.column, empty=empty)
        self.query_one("#status", Lines).show([self._status(snapshot, len(keys))])

    def action_sort(self) -> None:
        """The next order, as the values are now."""
        self.sort = SORTS[(SORTS.index(self.sort) + 1) % len(SORTS)]
        self._ordered_for = None
        self.again()
        self.query_one(Table).action_edge(0)

    def under_cursor(self) -> str:
        """The node under the cursor."""
        return self.query_one(Table).key or ""

    @on(Table.Opened)
    def _opened(self, event: Table.Opened) -> None:
        from coldaisle.tui.screens.node import NodeScreen

        self.app.push_screen(NodeScreen(event.key))

    def _cell_metric(self, snapshot: Snapshot) -> cells.CellMetric:
        """The metric that Racks shows."""
        chosen: cells.CellMetric | None = getattr(self.app, "metric", None)
        return chosen or cells.default_metric(snapshot)

    def _keep_order(self, snapshot: Snapshot) -> None:
        """Sort only when the order was chosen or nodes came or went: rows keep their place while values change."""
        wanted = (tuple(node.key for node in snapshot.layout.nodes), self.sort.column, snapshot.live)
        if self._ordered_for != wanted:
            self._order = order(snapshot, self.sort)
            self._ordered_for, self._ordered_at = wanted, snapshot.at

    def _ordered_when(self, snapshot: Snapshot) -> str:
        if snapshot.live:
            return f"{age(snapshot.at - self._ordered_at)} ago"
        return time.strftime("at %H:%M:%S", time.localtime(self._ordered_at))

    def _filtered(self, snapshot: Snapshot) -> list[str]:
        wanted = self.kept(snapshot)
        if wanted is None:
            return self._order
        keys = [key for key in self._order if wanted[snapshot.layout.node_of[key]]]
        self.tell_kept(len(keys), len(self._order))
        return keys

    def _status(self, snapshot: Snapshot, shown: int) -> Row:
        total = len(snapshot.layout.nodes)
        hidden = len(self._columns) - len(self.query_one(Table).placed)
        runs = [
            Run(f"{shown} of {total} nodes", "text" if shown == total else "accent"),
            Run(f"  by {self.sort.name} (s)", "dim"),
        ]
        if self.sort.column != "node":
            runs.append(Run(f", as it was {self._ordered_when(snapshot)}", "dim"))
        if filtered := self.filter_runs():
            runs += [Run("  "), *filtered]
        if hidden:
            runs.append(Run(f"  {hidden} columns need a wider terminal", "dim"))
        return cut(tuple(runs), self.query_one("#status", Lines).room.width)


def _weights(snapshot: Snapshot, column: str) -> Times:
    """[node] what nodes are sorted by, the first being the lowest; NaN: last."""
    import numpy as np

    if column == "state":
        troubled = np.array([bool(node.problem) for node in snapshot.layout.nodes], dtype=np.float64)
        return -snapshot.node_status.astype(np.float64) - troubled * 0.5
    if column in ("gpus", "gpu_power"):
        return _activity(snapshot) if column == "gpus" else -_of_boards(snapshot, "gpu.power")[0]
    if column == "psi":
        worst = _of_nodes(snapshot, PSI[0][0])
        for other, _ in PSI[1:]:
            worst = np.fmax(worst, _of_nodes(snapshot, other))
        return -worst
    key = {"cpu": "node.cpu_util", "memory": "node.mem_ratio", "net": "node.net_rx"}.get(column)
    return snapshot.node_seen if key is None else -_of_nodes(snapshot, key)


def _activity(snapshot: Snapshot) -> Times:
    """[node] mean SM activity of its boards; of a node that has none the utilisation (AMD, before Hopper)."""
    import numpy as np

    found = np.full(len(snapshot.layout.nodes), np.nan)
    for key in ("gpu.sm_active", "gpu.util"):
        total, count = _of_boards(snapshot, key)
        hole = np.isnan(found)
        found[hole] = (total / np.maximum(count, 1.0))[hole]
    return found


def _of_nodes(snapshot: Snapshot, key: str) -> Times:
    """[node] of a metric; NaN where nobody delivers it."""
    import numpy as np

    column, size = snapshot.column(key), len(snapshot.layout.nodes)
    if column is None or len(column.values) != size:
        return np.full(size, np.nan)
    return column.values.astype(np.float64)


def _of_boards(snapshot: Snapshot, key: str) -> tuple[Times, Times]:
    """[node] sum over a node's boards, NaN where none tells, and how many of them do."""
    import numpy as np

    boards, size = snapshot.layout.boards, len(snapshot.layout.nodes)
    values = cells.values_of(snapshot, key)[boards]
    there = np.isfinite(values)
    node = cells.node_index(snapshot.layout)[boards][there]
    total = np.bincount(node, weights=values[there], minlength=size).astype(np.float64)
    count = np.bincount(node, minlength=size).astype(np.float64)
    total[count == 0] = np.nan
    return total, count


def power_of(snapshot: Snapshot, index: int) -> tuple[float, bool]:
    """Watts of a node's boards and whether all of them are counted; NaN: none is."""
    boards = [gpu for gpu in snapshot.layout.nodes[index].gpus if snapshot.layout.gpus[gpu].parent < 0]
    there = [value for gpu in boards if not math.isnan(value := read(snapshot, "gpu.power", gpu).value)]
    return (sum(there) if there else math.nan), len(there) == len(boards)


def _state(snapshot: Snapshot, index: int) -> Run:
    node = snapshot.layout.nodes[index]
    word, token = status_word(int(snapshot.node_status[index]))
    if node.state and (word == "ok" or (word == "unknown" and (node.gres or cells.is_drained(node.state)))):
        return Run(plain(node.state), "drained" if cells.is_drained(node.state) else "ok")
    return Run(word, token)


def _number(snapshot: Snapshot, key: str, index: int) -> Run:
    reading = read(snapshot, key, index)
    return Run(reading.text(), reading.token)


def _pressure(snapshot: Snapshot, index: int) -> Run:
    """The highest of the three pressures, and whose it is."""
    found = [
        (reading.value, name) for key, name in PSI if not (reading := read(snapshot, key, index)).missing
    ]
    if not found:
        return Run(NO_VALUE, "dim")
    value, name = max(found)
    return Run(
        f"{name} {show(value, 'ratio')}" if value else "none",
        "warn" if value >= PSI_WORTH else _token(snapshot, index),
    )


def _gpu_power(snapshot: Snapshot, index: int) -> Run:
    """The sum of its boards; ``>`` where some do not tell."""
    total, whole = power_of(snapshot, index)
    if math.isnan(total):
        return Run(NO_VALUE, "dim")
    return Run(("" if whole else ">") + show(total, "W"), _token(snapshot, index))


def _token(snapshot: Snapshot, index: int) -> str:
    """The token for what was computed of a node's values."""
    return "text" if snapshot.node_status[index] == 1 else "stale"


def _net(snapshot: Snapshot, index: int) -> Run:
    rx, tx = read(snapshot, "node.net_rx", index), read(snapshot, "node.net_tx", index)
    if rx.missing or tx.missing:
        return Run(NO_VALUE, "dim")
    return Run(show(rx.value + tx.value, "B/s"), rx.token)


def _problem(snapshot: Snapshot, index: int) -> Run:
    """What hinders the node or one of its GPUs, in a few words."""
    node = snapshot.layout.nodes[index]
    if node.problem:
        return Run(plain(node.problem), "bad")
    said = Run(plain(node.reason or ""), "drained" if cells.is_drained(node.state) else "text")
    if snapshot.is_jobs_only:
        return said if node.reason else Run("no telemetry", "dim")
    if snapshot.node_status[index] != 1:
        silent = latest(snapshot, float(snapshot.node_seen[index]))
        words = "never heard of" if silent == "never" else f"silent for {silent}"
        why = why_silent(snapshot, index)
        return Run(f"{why}, {words}" if why else words, _token(snapshot, index))
    lost = [gpu for gpu in node.gpus if snapshot.gpu_status[gpu] == 3]
    if lost:
        names = " ".join(str(snapshot.layout.gpus[gpu].slot) for gpu in lost)
        return Run(f"GPU {names} lost", "lost")
    offset = node.clock_offset_s
    if offset is not None and abs(offset) > 1:
        return Run(f"clock off {offset:+.1f} s", "warn")
    if node.gpus_visible is not None and node.gpus_visible < (node.gpus_expected or 0):
        return Run(f"{node.gpus_visible} of {node.gpus_expected} GPUs visible", "warn")
    return said
