"""What the Job screen says, as rows of runs: pure functions of the jobs, a series answer and a size."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

from coldaisle.analyzers.partitions import hindrance, partitions_of, summary
from coldaisle.sources.text import ELLIPSIS, clip, fit, plain
from coldaisle.sources.units import NO_VALUE, age, show
from coldaisle.tui import cells
from coldaisle.tui.reading import edge, own_readings, read, server_name
from coldaisle.tui.screens.gpu_panes import Block, Metric, View, gpu_metrics, series_of, value_row
from coldaisle.tui.screens.job_rows import Jobs, folded, hours, ratio, watts, why_waiting
from coldaisle.tui.screens.link_panes import boards_of, links_tail, rail_tail, rail_words, summed, unit_of
from coldaisle.tui.screens.node_panes import event_row, host_metrics
from coldaisle.tui.tiles import tail
from coldaisle.tui.widgets.chart import Scale, heat, nice, spread, time_axis
from coldaisle.tui.widgets.lines import BLANK, Row, Run, cut, pad
from coldaisle.tui.widgets.table import Cell, Column, cells_row, place

if TYPE_CHECKING:
    from coldaisle.analyzers.snapshot import SeriesAnswer, Snapshot
    from coldaisle.sources.cluster import Job

GPUS, HOSTS, LINKS, FACTS, EVENTS = "GPUs", "Hosts", "Links", "Facts", "Events"
OF_RUNNING = (GPUS, HOSTS, LINKS, FACTS, EVENTS)
OF_WAITING = (FACTS, EVENTS)
STRIPS = (GPUS, HOSTS, LINKS)
"""Panes of one line an entity, with time from left to right."""
LINK_METRICS: tuple[Metric, ...] = (
    Metric("port.tx", "net sent"),
    Metric("port.rx", "net recv"),
    Metric("port.xmit_wait", "xmit wait"),
    Metric("gpu.nvlink_tx", "NVLink tx"),
    Metric("gpu.nvlink_rx", "NVLink rx"),
    Metric("gpu.nvlink_bandwidth", "NVLink"),
    Metric("gpu.pcie_tx", "PCIe tx"),
    Metric("gpu.pcie_rx", "PCIe rx"),
)
NAMES = 16
"""Cells that the name of an entity takes at most."""
LEAST_STRIP = 20


class Line(NamedTuple):
    """An entity that has a line of its own."""

    name: str
    """Inert."""
    key: str
    place: int
    """Index in its kind's tuple of the layout."""
    is_rail: bool = False
    """A port that stands below its node, for what is wrong with it."""


def lines_of(snapshot: Snapshot, job: Job, pane: str) -> list[Line]:
    """The entities of a pane, in the order of the job's GPUs, else of its nodes."""
    layout = snapshot.layout
    if pane == GPUS:
        return [Line(plain(layout.gpus[gpu].key), layout.gpus[gpu].key, gpu) for gpu in job.gpus]
    nodes = job_nodes(snapshot, job)
    if pane == HOSTS:
        return [Line(plain(layout.nodes[node].key), layout.nodes[node].key, node) for node in nodes]
    return [line for node in nodes for line in _links_of(snapshot, node)]


def _links_of(snapshot: Snapshot, node: int) -> Iterator[Line]:
    """A line for all links of a node, below it those of its rails that are not sound."""
    from coldaisle.analyzers.links import compared

    layout, known = snapshot.layout, snapshot.layout.nodes[node]
    yield Line(plain(known.key), known.key, node)
    for port in known.ports:
        if compared(snapshot).unsound[port]:
            yield Line(f"  {plain(layout.ports[port].name)}", layout.ports[port].key, port, is_rail=True)


def node_of(snapshot: Snapshot, pane: str, line: Line) -> int:
    """The node that a line is of, or is on."""
    if pane == GPUS:
        return snapshot.layout.gpus[line.place].node
    return snapshot.layout.ports[line.place].node if line.is_rail else line.place


def series_keys(snapshot: Snapshot, metric: Metric, found: Sequence[Line]) -> tuple[str, ...]:
    """The entities whose series make the strips of some lines: of a node's links all of them."""
    return tuple(dict.fromkeys(key for line in found for key in _parts(snapshot, metric, line)))


def _parts(snapshot: Snapshot, metric: Metric, line: Line) -> list[str]:
    from coldaisle.analyzers.links import rails_of

    layout, kind = snapshot.layout, metric.key.partition(".")[0]
    if line.is_rail:
        return []
    if kind == "port":
        return [layout.ports[port].key for port in rails_of(snapshot, layout.nodes[line.place].ports)]
    if kind == "gpu" and line.key in layout.node_of:
        return [layout.gpus[gpu].key for gpu in boards_of(snapshot, line.place)]
    return [line.key]


def job_nodes(snapshot: Snapshot, job: Job) -> list[int]:
    """Indices of a job's nodes: those that its scheduler names, and those of its GPUs."""
    layout = snapshot.layout
    named = (layout.node_of[name] for name in job.nodes if name in layout.node_of)
    return list(dict.fromkeys([*named, *(layout.gpus[gpu].node for gpu in job.gpus)]))


def metrics_of(snapshot: Snapshot, pane: str) -> tuple[Metric, ...]:
    """What the strips of a pane can show: what anybody delivers."""
    known = {GPUS: gpu_metrics(snapshot), HOSTS: host_metrics(), LINKS: LINK_METRICS}[pane]
    return tuple(metric for metric in known if metric.key in snapshot.columns) or known[:1]


def in_sight(count: int, cursor: int, height: int) -> range:
    """Lines that fit, the cursor's among them; a job may have thousands."""
    room = max(1, height)
    first = min(max(0, cursor - room // 2), max(0, count - room))
    return range(first, min(count, first + room))


def title(jobs: Jobs, job: Job, number: int, width: int) -> Row:
    """Whose it is, how big, how long."""
    now = jobs.snapshot.at
    runs = [Run(f"job {plain(job.title)}", "title")]
    if job.workload_key is None:
        runs.append(Run(f" {plain(job.name)}"))
    if job.user:
        runs.append(Run(f"  {plain(job.user)}", "accent"))
    if job.account:
        runs.append(Run(f" ({plain(job.account)})", "dim"))
    if number < 0:
        runs.append(Run(f"  waits for {age(now - job.since)} {plain(why_waiting(job))}", "warn"))
        return cut(tuple(runs), width)
    if job.state != "RUNNING":
        runs.append(Run(f"  {plain(job.state.lower(), 16)}", "warn"))
    runs.append(Run(f"  {_count(jobs, number)}"))
    runs.append(Run(f"  runs {age(now - job.since)}", "dim"))
    left = float(jobs.seen.left[number])
    if not math.isnan(left):
        runs.append(
            Run(", over its limit" if left <= 0 else f", {age(left)} left", "warn" if left < 600 else "dim")
        )
    runs.append(Run(f"  on {plain(folded(job.nodes)) or 'nodes not told'}"))
    return cut(tuple(runs), width)


def use_line(jobs: Jobs, job: Job, number: int, width: int) -> Row:
    """What its GPUs do now, in a line, or what it asks for; the diagnosis will say what binds it and what is lost."""
    if number < 0:
        planned = (
            f"  planned to start {instant(job.expected_at, jobs.snapshot.at)}" if job.expected_at else ""
        )
        return cut((Run(f"asks for {_asked(job)}"), Run(planned, "dim")), width)
    seen = jobs.seen
    known, told = float(jobs.roll.held.known[number]), float(seen.told[number])
    label = cells.metric_of(seen.metric).label
    runs = [Run(f"{label} ", "dim"), ratio(float(seen.active[number]), told, known)._replace(token="title")]
    if not math.isnan(float(seen.lowest[number])):
        runs.append(Run(f" ({seen.lowest[number] * 100:.0f}..{seen.highest[number] * 100:.0f})", "dim"))
    if told < known:
        runs.append(Run(f"  {told:.0f} of {known:.0f} GPUs tell", "warn"))
    runs += [Run("  memory up to ", "dim"), ratio(float(seen.memory[number]), 1, 1)]
    runs += [Run("  draws ", "dim"), watts(float(seen.power[number]), float(seen.powered[number]) >= known)]
    runs += [Run("  GPU-hours ", "dim"), hours(float(seen.hours[number]))]
    for said in own_readings(jobs.snapshot, "job", number):
        runs += [Run(f"  {said.name} ", "dim"), Run(said.text(), said.token)]
    return cut(tuple(runs), width)


def _count(jobs: Jobs, number: int) -> str:
    size = float(jobs.roll.held.size[number])
    return "GPUs not told" if math.isnan(size) else f"{size:.0f} GPU{'s' * (size != 1)}"


def _asked(job: Job) -> str:
    gpus = job.gpu_count if job.gpu_count is not None else job.gpus_asked
    parts = [f"{gpus} GPUs" if gpus is not None else "GPUs not told"]
    if job.nodes_asked:
        parts.append(f"{job.nodes_asked} node{'s' * (job.nodes_asked != 1)}")
    return " on ".join(parts)


def strip_pane(
    jobs: Jobs, job: Job, pane: str, metric: Metric, answer: SeriesAnswer | None, view: View, cursor: int
) -> Block:
    """A line an entity: its name, a metric over time as tenths, its values now."""
    snapshot, found = jobs.snapshot, lines_of(jobs.snapshot, job, pane)
    if not found:
        return Block([(Run(_nothing(snapshot, job, pane), "dim"),)])
    shown = in_sight(len(found), cursor, view.height - 2)
    series = [summed(series_of(answer, metric.key, _parts(snapshot, metric, found[at]))) for at in shown]
    scale = _scale(metric.key, snapshot, found, series)
    name = min(NAMES, max(len(found[at].name) for at in shown)) + 1
    placed = place(_tails(pane, metric), _tail_room(view.width, name))
    room = max(8, view.width - name - 2 - sum(item.width + 1 for item in placed))
    heads = cells_row([Run(item.column.title, "dim") for item in placed], placed)
    axis = pad(time_axis(view.span, room, now=edge(snapshot)), room)
    began = _began_at(job, answer, room)
    rows: list[Row] = [(Run(" " * name), *axis, Run("  "), *heads)]
    for at, values in zip(shown, series, strict=True):
        line, token = found[at], "accent" if at == cursor else "text"
        if line.is_rail:
            strip: Row = cut(rail_words(snapshot, line.place, view), room)
        else:
            strip = _strip(values, room, scale, began, view)
        of = _tail if pane != LINKS else rail_tail if line.is_rail else links_tail
        now = cells_row([of(snapshot, metric, line.place, item.column.key, view) for item in placed], placed)
        rows.append(
            (Run(fit(tail(line.name, name - 1, ELLIPSIS), name), token), *pad(strip, room), Run("  "), *now)
        )
    unit = unit_of(metric.key)
    below = f"0-9: tenths of {view.show(scale.high, unit)}, one scale for all; {view.ink.gap} no sample"
    if began is not None:
        below += f"; {view.ink.axis} the job started"
    if len(shown) < len(found):
        below += f"; {shown.start + 1} to {shown.stop} of {len(found)} in sight"
    rows.append((Run(below, "dim"),))
    return Block(
        [cut(row, view.width) for row in rows], range(cursor - shown.start + 1, cursor - shown.start + 2)
    )


def _began_at(job: Job, answer: SeriesAnswer | None, room: int) -> int | None:
    """The column of a strip in which the job started: what stands before it is not of this job. None: it ran all the time."""
    if answer is None or answer.query.start >= job.since:
        return None
    asked = answer.query
    return min(int((job.since - asked.start) / (asked.end - asked.start) * room), room - 1)


def _strip(values: Sequence[float], room: int, scale: Scale, began: int | None, view: View) -> Row:
    def drawn(part: Sequence[float]) -> Row:
        paint = lambda value: f"scale{round(scale.share(value) * 10)}"  # noqa: E731
        return heat(part, len(part), scale, ink=view.ink, paint=paint)

    columns = spread(values, room)
    if began is None:
        return drawn(columns)
    return (*drawn(columns[:began]), Run(view.ink.axis, "accent"), *drawn(columns[began + 1 :]))


def strip_columns(pane: str, width: int) -> int:
    """About how many columns of time the strips of a pane have."""
    placed = place(_TAILS[pane], _tail_room(width, NAMES))
    return max(8, width - NAMES - 3 - sum(item.width + 1 for item in placed))


def _tails(pane: str, metric: Metric) -> tuple[Column, ...]:
    """The values beside the strips: what they show, then everything else."""
    first, *rest = _TAILS[pane]
    title = clip(metric.name, first.width)
    return (replace(first, title=title), *(column for column in rest if column.key != metric.key))


def _tail_room(width: int, name: int) -> int:
    """What the values beside a strip may take: the strip has half of the width at least."""
    return max(9, (width - name) // 2 - 2) if width >= 2 * LEAST_STRIP else 9


_TAILS: dict[str, tuple[Column, ...]] = {
    GPUS: (
        Column("now", "now", 9, right=True, keep=0),
        Column("gpu.power", "power", 6, right=True, keep=2),
        Column("gpu.temp", "temp", 6, right=True, keep=3),
        Column("gpu.mem_ratio", "mem", 5, right=True, keep=1),
        Column("gpu.sm_clock", "clock", 8, right=True, keep=4),
        Column("gpu.nvlink_tx", "NVLink", 9, right=True, keep=5),
    ),
    HOSTS: (
        Column("now", "now", 9, right=True, keep=0),
        Column("node.cpu_util", "CPU", 5, right=True, keep=1),
        Column("node.psi_io_full", "I/O stall", 9, right=True, keep=2),
        Column("node.nfs_read", "NFS read", 9, right=True, keep=3),
        Column("node.disk_read", "disk read", 9, right=True, keep=4),
        Column("node.disk_write", "write", 9, right=True, keep=5),
        Column("node.mem_ratio", "mem", 5, right=True, keep=6),
    ),
    LINKS: (
        Column("now", "now", 9, right=True, keep=0),
        Column("reach", "of reachable", 14, right=True, keep=1),
        Column("errors", "errors", 8, right=True, keep=3),
        Column("nvlink", "NVLink", 6, right=True, keep=2),
        Column("pcie", "PCIe", 5, right=True, keep=4),
        Column("wait", "xmit wait", 9, right=True, keep=6),
        Column("rails", "rails up", 8, right=True, keep=5),
    ),
}


def _tail(snapshot: Snapshot, metric: Metric, index: int, key: str, view: View) -> Cell:
    reading = read(snapshot, metric.key if key == "now" else key, index)
    token = "title" if key == "now" and reading.token == "text" else reading.token
    return Run(reading.text(ascii_only=view.ascii_only), token)


def _scale(key: str, snapshot: Snapshot, found: Sequence[Line], series: Sequence[Sequence[float]]) -> Scale:
    """One scale for all lines of a pane: what lags behind the others stands out."""
    top = max((value for values in series for value in values if not math.isnan(value)), default=0.0)
    unit = unit_of(key)
    if unit == "ratio" and (not key.startswith("node.psi") and key != "node.cpu_iowait"):
        return Scale(0.0, max(1.0, top))
    if unit == "C":
        return Scale(0.0, 100.0)
    if key == "gpu.power":
        limits = [read(snapshot, "gpu.power_limit", line.place).value for line in found[:64]]
        return Scale(0.0, max([nice(top), *(value for value in limits if not math.isnan(value))]))
    return Scale(0.0, nice(top))


def _nothing(snapshot: Snapshot, job: Job, pane: str) -> str:
    if pane == GPUS:
        return "no source says which GPUs it holds"
    return "none of its nodes is known here"


def fact_pane(jobs: Jobs, job: Job, number: int, view: View) -> list[Row]:
    """What the scheduler knows of a job, the servers that run in it, and what it says of itself."""
    snapshot = jobs.snapshot
    rows = [
        cut((Run(fit(name, 15), "dim"), Run(plain(text), token)), view.width)
        for name, text, token in _facts(jobs, job, number)
    ]
    servers = _servers(snapshot, job)
    if servers:
        rows += [BLANK, (Run("Servers", "title"),), *(cut(row, view.width) for row in servers)]
    said = own_readings(snapshot, "job", number) if number >= 0 else []
    if said:
        rows += [BLANK, (Run("What it says of itself", "title"),)]
        rows += [value_row(snapshot, reading.key, number, view) for reading in said]
    return rows


def _facts(jobs: Jobs, job: Job, number: int) -> Iterator[tuple[str, str, str]]:
    now = jobs.snapshot.at
    yield "id", job.title if job.title == job.bare_id else f"{job.title}  ({job.bare_id})", "text"
    yield "name", job.name or NO_VALUE, "text"
    yield "user", job.user or "not told", "text"
    yield "account", job.account or NO_VALUE, "text"
    yield "partition", f"{_partition(jobs.snapshot, job)}{f'  QOS {job.qos}' if job.qos else ''}", "text"
    reason = f"  ({job.reason})" if job.reason and job.reason != "None" else ""
    yield "state", f"{job.state}{reason}", "warn" if job.is_waiting else "text"
    if said := hindrance(jobs.snapshot, job):
        yield "hindered", said, "warn"
    if job.dependency:
        yield "depends on", job.dependency, "text"
    for name, at in (("submitted", job.submitted_at), ("eligible", job.eligible_at)):
        if at is not None:
            yield name, instant(at, now), "text"
    if not job.is_waiting:
        yield "started", instant(job.since, now), "text"
        yield "time limit", instant(job.limit_at, now) if job.limit_at is not None else NO_VALUE, "text"
    elif job.expected_at is not None:
        yield "planned start", instant(job.expected_at, now), "text"
    if job.workload:
        yield "kind of work", job.workload, "text"
    yield from _sizes(jobs, job, number)
    if job.restarts:
        yield "started again", f"{job.restarts} times", "warn"
    if job.tasks > 1:
        yield "tasks", f"{job.tasks} of an array that wait together", "text"


def _partition(snapshot: Snapshot, job: Job) -> str:
    """Its name with what sets it apart: ``late (limit 1 d)``."""
    said = "; ".join(filter(None, map(summary, partitions_of(snapshot, job))))
    return f"{job.partition or NO_VALUE}{f' ({said})' if said else ''}"


def _sizes(jobs: Jobs, job: Job, number: int) -> Iterator[tuple[str, str, str]]:
    """What it has, and where that differs, what it asked for."""
    known = len(job.gpus)
    count = job.gpu_count if job.gpu_count is not None else known or None
    gpus = NO_VALUE if count is None else str(count)
    if number >= 0 and count and not known:
        gpus += "  (no source says which)"
    elif number >= 0 and count is not None and known != count:
        gpus += f"  ({known} of them are seen here)"
    if job.gpus_known_by:
        gpus += f"  known by: {job.gpus_known_by}"
    yield "GPUs", gpus + _asked_for(job.gpus_asked, count), "text"
    if job.shares:
        yield "GPU shares", str(job.shares), "text"
    yield (
        "nodes",
        folded(job.nodes) or (f"{job.nodes_asked} asked for" if job.nodes_asked else NO_VALUE),
        "text",
    )
    yield (
        "CPUs",
        (NO_VALUE if job.cpus is None else str(job.cpus)) + _asked_for(job.cpus_asked, job.cpus),
        "text",
    )
    memory, asked = job.memory_bytes, job.memory_asked_bytes
    other = f"  (asked for {show(float(asked), 'B')})" if asked is not None and asked != memory else ""
    yield "host memory", (NO_VALUE if memory is None else show(float(memory), "B")) + other, "text"


def _asked_for(asked: int | None, given: int | None) -> str:
    return f"  (asked for {asked})" if asked is not None and asked != given else ""


def instant(at: float, now: float) -> str:
    """``03:12:41, 9h11 ago``; with the date unless it is today's."""
    from coldaisle.sources.instants import show_instant

    return (
        f"{show_instant(at, now)}  ({age(now - at)} ago)"
        if at <= now
        else f"{show_instant(at, now)}  (in {age(at - now)})"
    )


def _servers(snapshot: Snapshot, job: Job) -> list[Row]:
    held = frozenset(job.gpus)
    rows: list[Row] = []
    for at, server in enumerate(snapshot.layout.servers):
        if not held.intersection(server.gpus):
            continue
        runs = [
            Run(f"{plain(server_name(snapshot, at), 24)}  "),
            Run(plain(server.service or server.model or ""), "accent"),
        ]
        for key, name in (
            ("serve.running", "running"),
            ("serve.waiting", "waiting"),
            ("serve.kv_usage", "KV"),
        ):
            reading = read(snapshot, key, at)
            runs += [Run(f"  {name} ", "dim"), Run(reading.text(), reading.token)]
        rows.append(tuple(runs))
    return rows


def event_pane(snapshot: Snapshot, job: Job, view: View) -> list[Row]:
    """What happened to the job, its nodes and what is on them while it was there, newest first."""
    from coldaisle.analyzers.happenings import kin_of, newest_first

    kin, start = kin_of(snapshot, job.id), (job.submitted_at if job.submitted_at is not None else job.since)
    near = [
        event
        for event in snapshot.events
        if kin.concerns(event) and (event.at >= start - 60 or event.entity == job.id)
    ]
    if not near:
        return [(Run("no event of it, its nodes or their GPUs since it was submitted", "dim"),)]
    return [cut(event_row(event, snapshot.at), view.width) for event in newest_first(near)]
