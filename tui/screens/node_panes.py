"""What the Node screen says, as rows of runs: pure functions of a snapshot, a series answer and a size."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from coldaisle.analyzers.partitions import summary
from coldaisle.sources.text import fit, plain
from coldaisle.sources.units import NO_VALUE, age, show
from coldaisle.tui.reading import (
    clock,
    edge,
    event_token,
    event_words,
    gpu_name,
    job_words,
    jobs_on,
    latest,
    read,
    status_word,
    whose,
    why_silent,
)
from coldaisle.tui.screens.gpu_panes import Metric, View, range_text, reading_run, series_of
from coldaisle.tui.widgets.chart import (
    Scale,
    area,
    extent,
    nice,
    time_axis,
)
from coldaisle.tui.widgets.lines import BLANK, Row, Run, cut, pad, wrap
from coldaisle.tui.widgets.table import Cell, Column, cells_row, place

if TYPE_CHECKING:
    from coldaisle.analyzers.snapshot import EventView, SeriesAnswer, Snapshot
    from coldaisle.sources.cluster import Node
    from coldaisle.sources.source import Process


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


def host_metrics() -> tuple[Metric, ...]:
    """The same with the site's own."""
    from coldaisle.sources.catalog import own_metrics
    from coldaisle.sources.source import Kind

    return (*HOST_METRICS, *(Metric(one.key, one.label) for one in own_metrics(Kind.NODE)))


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
        Run("no telemetry", "dim")
        if snapshot.is_jobs_only
        else Run(f"{word}, heard {heard}" + ("" if heard == "never" else " ago"), token),
        *_scheduler_state(node),
        *_board_words(snapshot, node),
        *_job_words(snapshot, node),
    ]
    return cut(tuple(runs), width)


def host_pane(snapshot: Snapshot, index: int, answer: SeriesAnswer | None, view: View) -> list[Row]:
    """CPU, memory, pressure, disks, NFS, network and power of the host, each over time with its value now."""
    rows = [_host_row(snapshot, index, metric, answer, view) for metric in host_metrics()]
    rows.append(
        (
            Run(" " * _HOST_NAME),
            *time_axis(view.span, max(10, view.width - _HOST_NAME - _HOST_VALUE), now=edge(snapshot)),
        )
    )
    rows += [_nfs_row(snapshot, index, view)]
    return [*rows, BLANK, *_disk_rows(snapshot, index, view)]


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
    """What happened on this node, its GPUs, its ports, its rack and its jobs, newest first."""
    from coldaisle.analyzers.happenings import kin_of, newest_first

    kin = kin_of(snapshot, snapshot.layout.nodes[index].key)
    near = newest_first(event for event in snapshot.events if kin.concerns(event))
    if not near:
        return [(Run("no event of this node among the last of the cluster (e)", "dim"),)]
    return [cut(event_row(event, snapshot.at), view.width) for event in near]


def event_row(event: EventView, now: float) -> Row:
    """An event: when, whose, what."""
    return (
        Run(fit(clock(event.at, now), 8)),
        Run(f"  {fit(age(now - event.at) + ' ago', 10)}  ", "dim"),
        Run(fit(whose(event), 16) + " "),
        Run(fit(event_words(event.kind), 14) + " ", event_token(event.kind)),
        Run(plain(event.detail)),
    )


def fact_pane(snapshot: Snapshot, index: int, view: View) -> list[Row]:
    """What is known of the node that does not change from tick to tick, and how it is known."""
    facts = list(_facts(snapshot, index))
    rows = [
        row for name, text, token in facts for row in _named(fit(name, 16), plain(text), token, view.width)
    ]
    rows += [BLANK, (Run("GPUs", "dim"),)]
    return rows + [
        row for gpu in snapshot.layout.nodes[index].gpus for row in _board_fact(snapshot, gpu, view.width)
    ]


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
    model = next((plain(gpu.model).removeprefix("NVIDIA ") for gpu in boards if gpu.model), "")
    seen = node.gpus_visible if node.gpus_visible is not None else len(boards)
    expected = node.gpus_expected if node.gpus_expected is not None else len(boards)
    if seen < expected:
        yield Run(f"  {seen} of {expected} GPUs visible to you {model}".rstrip(), "warn")
    else:
        yield Run(f"  {len(boards)}x {model}" if model else f"  {len(boards)} GPUs")


def _job_words(snapshot: Snapshot, node: Node) -> Iterator[Run]:
    jobs = jobs_on(snapshot, node)
    for job in jobs[:1]:
        yield Run(f"  job {job_words(job)}")
    if len(jobs) > 1:
        yield Run(f" +{len(jobs) - 1} more", "dim")


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
    spread_text = range_text(values, reading.unit, view, reading.value)
    now = Run(" " + fit(reading.text(ascii_only=view.ascii_only), 11, right=True), reading.token)
    return (
        Run(fit(metric.name, _HOST_NAME), "dim"),
        *pad(strip, room),
        now,
        Run("  " + fit(spread_text, _HOST_VALUE - 14), "dim"),
    )


def _host_scale(snapshot: Snapshot, index: int, unit: str, key: str, values: Sequence[float]) -> Scale:
    top = max((value for value in values if not math.isnan(value)), default=0.0)
    if key in ("node.cpu_util", "node.mem_ratio"):
        return Scale(0.0, 1.0)
    if unit == "ratio":  # iowait and pressure matter long before they are all
        return Scale(0.0, max(0.2, nice(top)))
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
        runs.append(reading_run(snapshot, key, index, view))
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
            key: reading_run(snapshot, f"disk.{key}", disk, view)
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
_PROCESS_COLUMNS = (
    Column("gpu", "GPU", 6, keep=0),
    Column("pid", "PID", 8, right=True, keep=1),
    Column("user", "user", 12, keep=2),
    Column("memory", "memory", 9, right=True, keep=4),
    Column("sm", "SM", 5, right=True, keep=5),
    Column("command", "command", 12, keep=3, grows=True),
)


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
    yield from _scheduler_facts(snapshot, node)
    is_silent = snapshot.node_status[index] != 1
    problem = node.problem or (why_silent(snapshot, index) if is_silent else "")
    yield "problem", problem or "none known", "bad" if problem else "text"
    yield "driver", node.driver or NO_VALUE, "text"
    yield "kernel", node.kernel or NO_VALUE, "text"
    yield "up for", _uptime(snapshot.at, node.booted_at), "text"
    yield "CPUs", str(node.cpus) if node.cpus else NO_VALUE, "text"
    yield "memory", show(float(node.memory_bytes), "B") if node.memory_bytes else NO_VALUE, "text"
    yield "GPUs", _gpu_count(snapshot, node), "text"
    yield "clock", _clock(node.clock_offset_s), "warn" if abs(node.clock_offset_s or 0.0) > 1 else "text"


def _scheduler_facts(snapshot: Snapshot, node: Node) -> Iterator[tuple[str, str, str]]:
    """Its state with why and since when, what it gives away, where it belongs; other people's text."""
    flags = f"  ({', '.join(node.flags)})" if node.flags and node.flags != (node.state,) else ""
    yield "scheduler says", f"{node.state}{flags}" if node.state else "no scheduler is read", "text"
    if node.reason:
        by = f", {node.reason_by}" if node.reason_by else ""
        since = f", {age(snapshot.at - node.reason_at)} ago" if node.reason_at else ""
        yield "because", f"{node.reason}{by}{since}", "warn"
    if node.gres:
        said = ", ".join(f"{one.number} {' '.join(filter(None, (one.name, one.type)))}" for one in node.gres)
        yield "GRES", said, "text"
    given = [("GPUs", node.gpus_used), ("CPUs", node.cpus_used)]
    parts = [f"{count} {name}" for name, count in given if count is not None]
    if node.memory_used_bytes is not None:
        parts.append(f"{show(float(node.memory_used_bytes), 'B')} of memory")
    if parts:
        yield "allocated", ", ".join(parts), "text"
    if node.partitions:
        states = {one.name: f" ({said})" for one in snapshot.partitions if (said := summary(one))}
        yield "partitions", ", ".join(name + states.get(name, "") for name in node.partitions), "text"
    if node.features:
        yield "features", ", ".join(node.features), "text"
    if node.switches:
        yield "switches", " < ".join(node.switches), "text"


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
    if abs(offset) < 0.01:
        return "the same as ours"
    return f"{abs(offset):.2f} s {'ahead of' if offset > 0 else 'behind'} ours"


def _named(name: str, text: str, token: str, width: int) -> list[Row]:
    """A fact beside its name, in as many rows as it takes."""
    lines = wrap(text, width - len(name), token) or [()]
    return [(Run(name if row is lines[0] else " " * len(name), "dim"), *row) for row in lines]


def _board_fact(snapshot: Snapshot, gpu: int, width: int) -> list[Row]:
    known = snapshot.layout.gpus[gpu]
    parts = [known.model, known.uuid, known.pci, known.mig_profile, known.serial and f"serial {known.serial}"]
    parts += [known.fabric and f"fabric {known.fabric}", "MIG on" if known.mig_enabled else None]
    text = "  ".join(plain(part) for part in parts if part)
    return _named(fit(gpu_name(known), 7), text or "nothing is known of it", "text", width)
