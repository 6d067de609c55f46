"""What the cursor stands on: in two lines under the map, and at length beside it. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from textwrap import wrap
from typing import TYPE_CHECKING

from coldaisle.sources.text import clip, plain
from coldaisle.sources.units import age, show
from coldaisle.tui.cells import CellMetric, cell_codes, ink, letter, values_of
from coldaisle.tui.picture import group_power
from coldaisle.tui.reading import (
    Reading,
    gpu_name,
    job_index,
    own_readings,
    read,
    served,
    server_of,
    status_word,
    throttle_words,
    why_silent,
)
from coldaisle.tui.widgets.header import Piece, fitted, show_mean
from coldaisle.tui.widgets.lines import Row, Run

if TYPE_CHECKING:
    from coldaisle.analyzers.snapshot import Snapshot
    from coldaisle.sources.cluster import Gpu, Job

VALUES = (
    ("gpu.sm_active", "SM"), ("gpu.tensor_active", "tensor"), ("gpu.dram_active", "DRAM"), ("gpu.util", "util"),
    ("gpu.temp", ""), ("gpu.sm_clock", ""),
)  # fmt: skip
"""What is told of a GPU besides the metric of the cells and its power and memory, and its name there."""
NODE_VALUES = (
    ("node.cpu_util", "CPU"), ("node.mem_ratio", "memory"), ("node.psi_io_full", "I/O stall"), ("node.net_rx", "net in"),
    ("node.net_tx", "net out"), ("node.power", "power"), ("node.inlet_temp", "inlet"),
)  # fmt: skip


def cursor_lines(snapshot: Snapshot, gpu: int, metric: CellMetric, now: float, width: int) -> list[Row]:
    """Who it is and whose, then what it does or why that is not known."""
    return [_who(snapshot, gpu, now, width), _what(snapshot, gpu, metric, now, width)]


def _who(snapshot: Snapshot, gpu: int, now: float, width: int) -> Row:
    board = snapshot.layout.gpus[gpu]
    pieces = [
        Piece(0, (Run("> ", "accent"), Run(plain(board.key, 40), "title"))),
        *_state(snapshot, gpu, now),
        *_findings(snapshot, gpu),
    ]
    job = job_of(snapshot, gpu)
    if job is not None:
        pieces += _job_pieces(job)
        pieces += _own_pieces(own_readings(snapshot, "job", job_index(snapshot, gpu)), 2)
        if job.limit_at is not None:
            pieces.append(Piece(4, (Run(f"{age(job.limit_at - now)} left", "dim"),)))
    elif len(snapshot.gpu_unnamed) and snapshot.gpu_unnamed[gpu]:
        whose = "jobs" if snapshot.layout.nodes[board.node].gres else "pods"
        pieces.append(Piece(1, (Run(f"{whose} here hold GPUs, not known which", "dim"),)))
    elif snapshot.jobs_known:
        pieces.append(Piece(1, (Run("no job", "free"),)))
    if (server := server_of(snapshot, gpu)) is not None:
        pieces.append(Piece(2, (Run(served(snapshot, server), "accent"),)))
    if board.model or board.mig_profile:
        pieces.append(Piece(5, (Run(model_name(board), "dim"),)))
    return fitted(pieces, width)


def _findings(snapshot: Snapshot, gpu: int) -> Iterator[Piece]:
    """What is wrong with it, the worst first by name; or what it waits for."""
    from coldaisle.analyzers.touching import touching
    from coldaisle.tui.cells import letter_of
    from coldaisle.tui.findings import long_name, severity_token

    found = touching(snapshot)
    hits = found.gpus.get(gpu, ())
    if not hits:
        return
    one = found.findings[hits[0].finding]
    name = long_name(one.detector)
    more = f" +{len(hits) - 1}" if len(hits) > 1 else ""
    if hits[0].is_victim:
        whose = plain(one.id.partition(":")[2], 24)
        yield Piece(1, (Run("w ", "waits"), Run(f"suffers from {name} {whose}{more} (f)", "waits")))
    else:
        token = severity_token(one.severity)
        yield Piece(1, (Run(f"{letter_of(one.detector)} {name}{more} (f)", token),))


def _job_pieces(job: Job) -> Iterator[Piece]:
    count = f"{len(job.gpus)} GPU{'s' * (len(job.gpus) != 1)}"
    if job.workload_key is not None:  # a Kubernetes workload: its title has its name
        yield Piece(1, (Run(f"job {plain(job.title, 48)}", "text"),))
        yield Piece(3, (Run(count, "dim"),))
        return
    yield Piece(1, (Run(f"job {plain(job.title, 20)} {plain(job.user, 16)}", "text"),))
    yield Piece(3, (Run(plain(job.name, 24), "text"), Run(f" {count}", "dim")))


def model_name(gpu: Gpu) -> str:
    """``H100 80GB HBM3``; a MIG instance with its profile."""
    name = plain(gpu.model or "", 40).removeprefix("NVIDIA ")
    return f"{name} {plain(gpu.mig_profile, 16)}".strip() if gpu.mig_profile else name


def job_of(snapshot: Snapshot, gpu: int) -> Job | None:
    """The job that holds a GPU, or the board of a MIG instance."""
    index = job_index(snapshot, gpu)
    return snapshot.jobs[index] if index >= 0 else None


def _state(snapshot: Snapshot, gpu: int, now: float) -> Iterator[Piece]:
    from coldaisle.analyzers.snapshot import Status

    node = snapshot.layout.gpus[gpu].node
    status = Status(int(snapshot.gpu_status[gpu]))
    silent = age(now - float(snapshot.node_seen[node]))
    from coldaisle.tui.cells import is_drained, scheduled

    is_told = status is Status.UNKNOWN and bool(scheduled(snapshot)[gpu])
    if status is Status.OK or is_told:
        if is_told:
            yield Piece(3, (Run("no readings", "dim"),))
        if is_drained(state := snapshot.layout.nodes[node].state):
            yield Piece(1, (Run(plain(state or "", 16), "drained"),))
        return
    if Status(int(snapshot.node_status[node])) is Status.LOST:
        yield Piece(0, (Run(f"node does not answer for {silent}", "bad"),))
        if why := why_silent(snapshot, node):
            yield Piece(1, (Run(why, "bad"),))
        return
    seen = float(snapshot.gpu_seen[gpu])
    word = {Status.LOST: "LOST", Status.STALE: "stale", Status.UNKNOWN: "no data yet"}[status]
    since = "" if math.isnan(seen) else f" {age(now - seen)}"
    yield Piece(0, (Run(word + since, "bad" if status is Status.LOST else status_word(status)[1]),))


def _what(snapshot: Snapshot, gpu: int, metric: CellMetric, now: float, width: int) -> Row:
    reading = read(snapshot, metric.key, gpu)
    value = float(values_of(snapshot, metric.key)[gpu])
    of_slices = " (mean of its slices)" if reading.missing and not math.isnan(value) else ""
    shown = f"{metric.label} {show(value, reading.unit)}{of_slices}"
    if math.isnan(value):
        shown = f"{metric.label} - ({reading.why or 'no value'})"
    pieces = [Piece(0, (Run("  "), Run(shown, "stale" if reading.stale else "title")))]
    pieces += [Piece(1, (Run(text, "bad"),)) for text in _held_back(snapshot, gpu)]
    pieces += [
        Piece(rank, row) for rank, row in ((2, _power(snapshot, gpu)), (4, _memory(snapshot, gpu))) if row
    ]
    pieces += _own_pieces((said for said in own_readings(snapshot, "gpu", gpu) if said.key != metric.key), 4)
    for rank, (key, name) in enumerate(VALUES, start=5):
        other = read(snapshot, key, gpu)
        if key != metric.key and not other.missing:
            pieces.append(Piece(rank, (Run(f"{name} ".lstrip(), "dim"), Run(other.text(), other.token))))
    if reading.source and not reading.missing:
        pieces.append(
            Piece(
                0 if reading.stale else 3,
                (Run(f"({reading.origin(now)})", "stale" if reading.stale else "dim"),),
            )
        )
    return fitted(pieces, width)


def _own_pieces(readings: Iterable[Reading], rank: int) -> list[Piece]:
    return [
        Piece(rank, (Run(f"{said.name} ", "dim"), Run(said.text(), said.token)))
        for said in readings
        if not said.missing
    ]


def _held_back(snapshot: Snapshot, gpu: int) -> list[str]:
    return [
        words for words, token in throttle_words(read(snapshot, "gpu.throttle", gpu).value) if token == "bad"
    ]


def _power(snapshot: Snapshot, gpu: int) -> Row:
    power, limit = read(snapshot, "gpu.power", gpu), read(snapshot, "gpu.power_limit", gpu)
    if power.missing:
        return ()
    of = "" if limit.missing else f" of {limit.text()}"
    return (Run(power.text(), power.token), Run(of, "dim"))


def _memory(snapshot: Snapshot, gpu: int) -> Row:
    used, total = read(snapshot, "gpu.mem_used", gpu), read(snapshot, "gpu.mem_total", gpu)
    if used.missing:
        return ()
    of = "" if total.missing else f" of {total.text()}"
    return (Run(used.text(), used.token), Run(of, "dim"))


def side_rows(
    snapshot: Snapshot, gpu: int, metric: CellMetric, now: float, width: int, rule: str
) -> list[Row]:
    """The cursor's node with its GPUs, and its rack."""
    layout = snapshot.layout
    node = layout.nodes[layout.gpus[gpu].node]
    rack = layout.racks[node.rack]
    rows = [section(plain(node.key, 24), width, rule), *_gpu_table(snapshot, gpu, metric)]
    rows += [(), *_node_rows(snapshot, layout.gpus[gpu].node)]
    rows += [
        (),
        section(f"rack {plain(rack.name, 24)}", width, rule),
        *_rack_rows(snapshot, node.rack, metric),
    ]
    return rows


def section(name: str, width: int, rule: str) -> Row:
    """A heading with a rule to the edge."""
    return (
        Run(f"{rule}{rule} ", "rule"),
        Run(name, "title"),
        Run(" " + rule * max(width - len(name) - 4, 0), "rule"),
    )


def _gpu_table(snapshot: Snapshot, at: int, metric: CellMetric) -> Iterator[Row]:
    codes = cell_codes(snapshot, metric)
    values = values_of(snapshot, metric.key)
    unit = read(snapshot, metric.key, at).unit
    yield (Run(f"  GPU      {clip(metric.label, 12):>12}   power  temp", "dim"),)
    for gpu in snapshot.layout.nodes[snapshot.layout.gpus[at].node].gpus:
        code = int(codes[gpu])
        power, temp = read(snapshot, "gpu.power", gpu), read(snapshot, "gpu.temp", gpu)
        slot = plain(gpu_name(snapshot.layout.gpus[gpu]), 6)
        yield (
            Run("> " if gpu == at else "  ", "accent"),
            Run(f"{slot:<6}  ", "text"),
            Run(letter(code), ink(code)),
            Run(f"{show(float(values[gpu]), unit):>12}", "text"),
            Run(f" {power.text():>7}", power.token),
            Run(f" {temp.text(ascii_only=True):>5}", temp.token),
        )


def _node_rows(snapshot: Snapshot, node: int) -> Iterator[Row]:
    word, token = status_word(int(snapshot.node_status[node]))
    facts = snapshot.layout.nodes[node]
    if snapshot.is_jobs_only:
        yield (Run("  state      ", "dim"), Run(plain(facts.state or "not told", 12), "text"))
    else:
        state = f", {plain(facts.state, 12)}" if facts.state else ""
        yield (Run("  state      ", "dim"), Run(word, token), Run(state, "text"))
    if facts.reason:
        yield (Run("  reason     ", "dim"), Run(plain(facts.reason, 60), "warn"))
    if facts.problem:
        yield (Run("  problem    ", "dim"), Run(plain(facts.problem, 60), "warn"))
    for key, name in NODE_VALUES:
        reading = read(snapshot, key, node)
        if not reading.missing:
            yield (Run(f"  {name:<10} ", "dim"), Run(reading.text(), reading.token))
    yield from _own_rows(own_readings(snapshot, "node", node))


def _own_rows(readings: Iterable[Reading]) -> Iterator[Row]:
    """What the site measures itself; a dash is told, too: somebody has asked for it."""
    for said in readings:
        yield (Run(f"  {clip(said.name, 24):<10} ", "dim"), Run(said.text(), said.token))


def _rack_rows(snapshot: Snapshot, rack: int, metric: CellMetric) -> Iterator[Row]:
    import numpy as np

    from coldaisle.analyzers.snapshot import Status

    place = snapshot.layout.racks[rack]
    boards = [g for g in place.gpus if snapshot.layout.gpus[g].parent < 0]
    status = snapshot.gpu_status[boards]
    answering = [g for g in boards if snapshot.gpu_status[g] == Status.OK]
    values = values_of(snapshot, metric.key)[answering]
    yield (
        Run("  nodes      ", "dim"),
        Run(f"{len(place.nodes)}"),
        Run("   GPUs ", "dim"),
        Run(str(len(status)) if snapshot.is_jobs_only else f"{len(answering)}/{len(status)}"),
    )
    if np.isfinite(values).any():
        yield (
            Run("  mean       ", "dim"),
            Run(show_mean(float(np.nanmean(values)), metric)),
            Run(f" {metric.label}", "dim"),
        )
    for power in group_power(snapshot, place.nodes, place.gpus, rack):
        yield (
            Run(f"  {power.words:<10} ", "dim"),
            Run(show(power.watts, "W")),
            Run(f" {power.note}".rstrip(), "dim"),
        )
    inlet = read(snapshot, "rack.inlet_temp", rack)
    if not inlet.missing:
        yield (Run("  inlet      ", "dim"), Run(inlet.text(), inlet.token))
    yield from _own_rows(own_readings(snapshot, "rack", rack))
    for number, words in enumerate(wrap(plain(place.place), 27)[:3]):
        yield (Run("             " if number else "  known by   ", "dim"), Run(words, "dim"))
