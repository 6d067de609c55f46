"""Links against what they can reach: a node's ports, NVLinks and PCIe links, and what a job's links come to.

Shares are of what collectives and copies achieve one way (``sources/parts/links.toml``), not of the data sheet: a link at
100 % is full. Pure functions of a snapshot, a series answer and a size.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

from coldaisle.sources.parts import nvlink_achievable, pcie_achievable, pcie_generation, port_efficiency
from coldaisle.sources.text import fit, plain
from coldaisle.sources.units import NO_VALUE
from coldaisle.tui.glyphs import glyphs
from coldaisle.tui.reading import Reading, edge, gpu_name, read
from coldaisle.tui.screens.gpu_panes import Metric, View, reading_run, series_of
from coldaisle.tui.widgets.chart import Paint, Scale, area, nice, time_axis
from coldaisle.tui.widgets.lines import BLANK, Row, Run, cut, pad, wrap
from coldaisle.tui.widgets.table import Cell, Column, cells_row, place

if TYPE_CHECKING:
    from coldaisle.analyzers.snapshot import SeriesAnswer, Snapshot

LINK_METRICS: tuple[Metric, ...] = (Metric("port.tx", "tx"), Metric("port.rx", "rx"))
PORT_STATES = {1: ("down", "bad"), 2: ("init", "warn"), 3: ("armed", "warn"), 4: ("up", "ok")}
PORT_PHYS = {2: "polling", 3: "disabled", 6: "error recovery"}
BUSY = 0.3
"""Utilisation from which a PCIe link's generation counts: it rests at idle."""
WIDE = 110
"""Cells from which there is room for a rate beside its share."""


LoadOf: TypeAlias = "Callable[[Snapshot, int, str], Load]"


class Load(NamedTuple):
    """What a link carries one way, and what it can reach."""

    reading: Reading
    ceiling: float
    """Bytes/s; NaN: not known."""

    @property
    def share(self) -> float:
        """Of the ceiling; NaN: not known."""
        return self.reading.value / self.ceiling if self.ceiling > 0 else math.nan


# --- one link ------------------------------------------------------------------------------------


def port_load(snapshot: Snapshot, port: int, way: str) -> Load:
    """``way``: tx or rx; of the rate that the port runs at now."""
    roce = read(snapshot, "port.roce", port).value == 1
    rate = read(snapshot, "port.rate", port).value
    return Load(read(snapshot, f"port.{way}", port), rate * port_efficiency(roce=roce))


def nvlink_load(snapshot: Snapshot, gpu: int, way: str) -> Load:
    """All NVLinks of a board; half of both directions where only their sum is told."""
    return Load(
        _one_way(snapshot, "gpu.nvlink", gpu, way), nvlink_achievable(snapshot.layout.gpus[gpu].model)
    )


def pcie_load(snapshot: Snapshot, gpu: int, way: str) -> Load:
    """Of what the board's link can do at its best: under load it goes there."""
    told = read(snapshot, "gpu.pcie_gen_max", gpu).value
    generation = pcie_generation(snapshot.layout.gpus[gpu].model) if math.isnan(told) else told
    lanes = read(snapshot, "gpu.pcie_width_max", gpu).value
    return Load(_one_way(snapshot, "gpu.pcie", gpu, way), pcie_achievable(generation, lanes))


def _one_way(snapshot: Snapshot, link: str, gpu: int, way: str) -> Reading:
    reading = read(snapshot, f"{link}_{way}", gpu)
    if not reading.missing:
        return reading
    both = read(snapshot, f"{link}_bandwidth", gpu)
    return reading if both.missing else replace(both, value=both.value / 2)


def load_cell(load: Load, width: int, view: View) -> Row:
    """``10.4 GB/s ███░░░  31 %``; where it is narrow without the rate, where no ceiling is known the rate alone."""
    reading, share = load.reading, load.share
    rate = reading.text(ascii_only=view.ascii_only)
    if reading.missing or math.isnan(share):
        return (Run(rate, reading.token),)
    runs: list[Run] = []
    room = width - 6
    if room >= 16:
        runs.append(Run(f"{fit(rate, 10, right=True)} ", reading.token))
        room -= 11
    return (*runs, *gauge(share, room, view), Run(f" {share * 100:3.0f} %", reading.token))


def gauge(share: float, width: int, view: View) -> Row:
    """A bar of a share 0..1 in a trough: something is seen of whatever is not 0."""
    ink = glyphs(ascii_only=view.ascii_only)
    level = min(max(share, 0.0), 1.0)
    filled = 0 if level < 0.005 else max(1, round(level * width))
    return (Run(ink.bar * filled, f"scale{round(level * 10)}"), Run(ink.trough * (width - filled), "rule"))


def port_kind(snapshot: Snapshot, port: int) -> str:
    """``IB``, ``RoCE`` or ``Eth``: RDMA ports have a number behind their device's name."""
    if "/" not in snapshot.layout.ports[port].name:
        return "Eth"
    return "RoCE" if read(snapshot, "port.roce", port).value == 1 else "IB"


def gigabits(rate: float) -> str:
    """``400 Gb/s``"""
    return NO_VALUE if math.isnan(rate) else f"{rate * 8 / 1e9:.0f} Gb/s"


def port_errors(snapshot: Snapshot, port: int) -> float:
    """Errors a second of every kind; NaN: no source counts any."""
    from coldaisle.analyzers.links import ERRORS

    return _sum(read(snapshot, f"port.{name}", port).value for name in ERRORS)


def _sum(values: Iterator[float]) -> float:
    known = [value for value in values if not math.isnan(value)]
    return sum(known) if known else math.nan


# --- what is wrong with them ---------------------------------------------------------------------


def port_troubles(snapshot: Snapshot, ports: Sequence[int]) -> dict[int, list[tuple[str, str]]]:
    """What sets ports apart from sound ones and from their siblings, of those that are: words and token."""
    from coldaisle.analyzers.links import compared

    found = compared(snapshot)
    return {
        port: list(_port_words(snapshot, port, float(found.expected[port]), float(found.usual_wait[port])))
        for port in ports
        if found.unsound[port]
    }


def _port_words(
    snapshot: Snapshot, port: int, expected: float, usual_wait: float
) -> Iterator[tuple[str, str]]:
    from coldaisle.analyzers.links import ACTIVE, ALIKE, ERRORS, WAITS, WAITS_ABOVE

    state, phys = read(snapshot, "port.state", port).value, read(snapshot, "port.phys_state", port).value
    if not math.isnan(state) and int(state) != ACTIVE:
        yield PORT_STATES.get(int(state), (f"state {state:.0f}", "warn"))
        if int(phys) in PORT_PHYS if not math.isnan(phys) else False:
            yield PORT_PHYS[int(phys)], "warn"
    rate = read(snapshot, "port.rate", port).value
    if rate < ALIKE * expected:
        yield f"runs at {rate * 8 / 1e9:.0f} of {gigabits(expected)}", "bad"
    for name in ERRORS:
        reading = read(snapshot, f"port.{name}", port)
        if reading.value > 0:
            yield f"{name.replace('_', ' ')} {reading.text()}", "bad"
    waits = read(snapshot, "port.xmit_wait", port).value
    if waits >= WAITS and waits >= WAITS_ABOVE * usual_wait:
        times = f"{waits / usual_wait:.0f} times as long as" if usual_wait > 0 else "unlike"
        yield f"waits to send, {times} its siblings", "warn"


def board_troubles(snapshot: Snapshot, gpus: Sequence[int]) -> dict[int, list[tuple[str, str]]]:
    """The same of NVLink and PCIe of boards."""
    links = sorted(
        value for gpu in gpus if not math.isnan(value := read(snapshot, "gpu.nvlink_links", gpu).value)
    )
    usual = links[len(links) // 2] if links else math.nan
    found: dict[int, list[tuple[str, str]]] = {}
    for gpu in gpus:
        if said := list(_board_words(snapshot, gpu, usual)):
            found[gpu] = said
    return found


def _board_words(snapshot: Snapshot, gpu: int, usual: float) -> Iterator[tuple[str, str]]:
    up = read(snapshot, "gpu.nvlink_links", gpu).value
    if up < usual:
        yield f"{up:.0f} NVLinks up, its siblings {usual:.0f}", "bad"
    from coldaisle.analyzers.links import NVLINK_ERRORS

    for name in (*NVLINK_ERRORS, "pcie_replay"):
        reading = read(snapshot, f"gpu.{name}", gpu)
        if reading.value > 0:
            words = name.removeprefix("nvlink_").replace("_", " ")
            yield f"{'' if name == 'pcie_replay' else 'NVLink '}{words} {reading.text()}", "bad"
    for key, word in (("pcie_width", "x"), ("pcie_gen", "gen")):
        now, best = read(snapshot, f"gpu.{key}", gpu).value, read(snapshot, f"gpu.{key}_max", gpu).value
        is_resting = key == "pcie_gen" and not read(snapshot, "gpu.util", gpu).value >= BUSY
        if now < best and not is_resting:
            yield f"PCIe at {word}{now:.0f} of {word}{best:.0f}", "bad"


# --- the Links pane of a node --------------------------------------------------------------------


def links_pane(snapshot: Snapshot, index: int, answer: SeriesAnswer | None, view: View) -> list[Row]:
    """A line a port and a board, each against what it can reach, what is wrong with them, and traffic over time."""
    node = snapshot.layout.nodes[index]
    boards = [gpu for gpu in node.gpus if snapshot.layout.gpus[gpu].parent < 0]
    troubles = list(_trouble_rows(snapshot, node.ports, boards, view))
    rows = [*troubles, *_port_rows(snapshot, node.ports, view), *_board_rows(snapshot, boards, view), BLANK]
    if not troubles:
        rows.append((Run("no error is counted on any link, none is slower than its siblings", "dim"),))
    rows += wrap(_ceiling_words(snapshot, node.ports, boards, view), view.width, "dim")
    if node.ports:
        rows += [BLANK, *_strip_rows(snapshot, node.ports, answer, view)]
    return [cut(row, view.width) for row in rows]


def _traffic_width(view: View) -> int:
    return min(28 + (view.width - WIDE) // 3, 48) if view.width >= WIDE else 11


def _port_rows(snapshot: Snapshot, ports: range, view: View) -> Iterator[Row]:
    if not ports:
        yield (Run("no network port is known on this node", "dim"),)
        return
    wide = _traffic_width(view)
    columns = (
        Column("name", "port", 13, keep=0),
        Column("kind", "kind", 4, keep=8),
        Column("state", "state", 5, keep=1),
        Column("rate", "rate", 8, right=True, keep=4),
        Column("tx", "sent", wide, right=True, keep=2),
        Column("rx", "received", wide, right=True, keep=3),
        Column("errors", "errors", 8, right=True, keep=5),
        Column("wait", "xmit wait", 9, right=True, keep=6),
        Column("downed", "downs", 5, right=True, keep=7),
    )
    placed = place(columns, view.width)
    yield cells_row([Run(item.column.title, "dim") for item in placed], placed)
    troubles = port_troubles(snapshot, ports)
    for port in ports:
        cells = _port_cells(snapshot, port, wide, view)
        if words := troubles.get(port):
            cells["name"] = Run(plain(snapshot.layout.ports[port].name), words[0][1])
        yield cells_row([cells[item.column.key] for item in placed], placed)


def _port_cells(snapshot: Snapshot, port: int, wide: int, view: View) -> dict[str, Cell]:
    rate = read(snapshot, "port.rate", port)
    return {
        "name": Run(plain(snapshot.layout.ports[port].name)),
        "kind": Run(port_kind(snapshot, port), "dim"),
        "state": _port_state(snapshot, port),
        "rate": Run(gigabits(rate.value), rate.token),
        "tx": load_cell(port_load(snapshot, port, "tx"), wide, view),
        "rx": load_cell(port_load(snapshot, port, "rx"), wide, view),
        "errors": error_cell(port_errors(snapshot, port), view),
        "wait": reading_run(snapshot, "port.xmit_wait", port, view),
        "downed": reading_run(snapshot, "port.link_downed", port, view),
    }


def _port_state(snapshot: Snapshot, port: int) -> Run:
    state = read(snapshot, "port.state", port)
    if state.missing:
        return Run(NO_VALUE, "dim")
    word, token = PORT_STATES.get(int(state.value), (f"{state.value:.0f}", "warn"))
    return Run(word, "stale" if state.stale else token)


def error_cell(errors: float, view: View) -> Run:
    """Errors a second of every kind; a dash if no source counts any."""
    return Run(view.show(errors, "/s"), "dim" if math.isnan(errors) else "bad" if errors > 0 else "text")


def _board_rows(snapshot: Snapshot, boards: Sequence[int], view: View) -> Iterator[Row]:
    """NVLink and PCIe of each board, beside each other; nothing where neither is measured."""
    keys = [
        f"gpu.{link}_{what}" for link in ("nvlink", "pcie") for what in ("tx", "bandwidth", "links", "gen")
    ]
    if not any(key in snapshot.columns for key in keys) or not boards:
        return
    from coldaisle.analyzers.links import NVLINK_ERRORS

    wide = min((view.width - 62) // 4, 40) if view.width >= 150 else 10
    columns = (
        Column("gpu", "GPU", 4, keep=0),
        Column("links", "up", 3, right=True, keep=6),
        Column("nvlink_tx", "NVLink sent", max(wide, 11), right=True, keep=1),
        Column("nvlink_rx", "received", wide, right=True, keep=2),
        Column("nvlink_errors", "errors", 7, right=True, keep=5),
        Column("pcie", "PCIe", 7, right=True, keep=7),
        Column("pcie_tx", "sent", wide, right=True, keep=3),
        Column("pcie_rx", "received", wide, right=True, keep=4),
        Column("replays", "replays", 8, right=True, keep=8),
    )
    placed = place(columns, view.width)
    yield BLANK
    yield cells_row([Run(item.column.title, "dim") for item in placed], placed)
    for gpu in boards:
        errors = _sum(read(snapshot, f"gpu.{name}", gpu).value for name in NVLINK_ERRORS)
        cells: dict[str, Cell] = {
            "gpu": Run(gpu_name(snapshot.layout.gpus[gpu])),
            "links": reading_run(snapshot, "gpu.nvlink_links", gpu, view),
            "nvlink_errors": error_cell(errors, view),
            "pcie": _pcie_link(snapshot, gpu),
            "replays": error_cell(read(snapshot, "gpu.pcie_replay", gpu).value, view),
        }
        for way in ("tx", "rx"):
            cells[f"nvlink_{way}"] = load_cell(
                nvlink_load(snapshot, gpu, way), max(wide, 11) if way == "tx" else wide, view
            )
            cells[f"pcie_{way}"] = load_cell(pcie_load(snapshot, gpu, way), wide, view)
        yield cells_row([cells[item.column.key] for item in placed], placed)


def _pcie_link(snapshot: Snapshot, gpu: int) -> Run:
    generation, lanes = read(snapshot, "gpu.pcie_gen", gpu), read(snapshot, "gpu.pcie_width", gpu)
    if generation.missing or lanes.missing:
        return Run(NO_VALUE, "dim")
    return Run(f"g{generation.value:.0f} x{lanes.value:.0f}", generation.token)


def _trouble_rows(
    snapshot: Snapshot, ports: Sequence[int], boards: Sequence[int], view: View
) -> Iterator[Row]:
    """What is wrong, by link; a state that is normal needs no line."""
    layout = snapshot.layout
    said = [
        *((plain(layout.ports[port].name), words) for port, words in port_troubles(snapshot, ports).items()),
        *(
            (f"GPU {gpu_name(layout.gpus[gpu])}", words)
            for gpu, words in board_troubles(snapshot, boards).items()
        ),
    ]
    for name, words in said:
        token = "bad" if any(token == "bad" for _, token in words) else "warn"
        yield from wrap(f"{name}: {', '.join(word for word, _ in words)}", view.width, token)
    if said:
        yield BLANK


def _ceiling_words(snapshot: Snapshot, ports: range, boards: Sequence[int], view: View) -> str:
    """``100 %: NVLink 369 GB/s, PCIe 55 GB/s one way; ports 85 % of their rate``"""
    nvlink, pcie = (
        next(
            (load.ceiling for gpu in boards if not math.isnan((load := of(snapshot, gpu, "tx")).ceiling)),
            math.nan,
        )
        for of in (nvlink_load, pcie_load)
    )
    kinds = {port_kind(snapshot, port) == "IB" for port in ports}
    said = [
        f"{name} {view.show(value, 'B/s')}"
        for name, value in (("NVLink", nvlink), ("PCIe", pcie))
        if value > 0
    ]
    said += [
        f"{'IB' if ib else 'Ethernet'} {port_efficiency(roce=not ib) * 100:.0f} % of a port's rate"
        for ib in sorted(kinds)
    ]
    return (
        f"100 % is what can be reached one way: {', '.join(said)}"
        if said
        else "what these links can reach is not known"
    )


def _strip_rows(snapshot: Snapshot, ports: range, answer: SeriesAnswer | None, view: View) -> Iterator[Row]:
    """Sent and received over time, beside each other, a line a port."""
    scale, name = _strip_scale(snapshot, ports, answer), 11
    half = max(10, (view.width - name - 10) // 2)
    for port in ports:
        part = snapshot.layout.ports[port]
        runs: list[Run] = [Run(fit(plain(part.name), name), "dim")]
        for metric in LINK_METRICS:
            values = series_of(answer, metric.key, [part.key])[0]
            strip = area(values, half, 1, scale, ink=view.ink, paint=_level_paint(scale))[0]
            runs += [Run(f" {metric.name} ", "dim"), *pad(strip, half)]
        yield tuple(runs)
    axis = time_axis(view.span, half, now=edge(snapshot))
    yield (Run(" " * (name + 4)), *pad(axis, half), Run("    "), *axis)
    yield (Run(f"strips: 0 to {view.show(scale.high, 'B/s')}, one scale for all ports", "dim"),)


def _strip_scale(snapshot: Snapshot, ports: range, answer: SeriesAnswer | None) -> Scale:
    """One scale for all ports of a node: rails that lag behind the others stand out."""
    keys = [snapshot.layout.ports[port].key for port in ports]
    series = [values for metric in LINK_METRICS for values in series_of(answer, metric.key, keys)]
    return Scale(
        0.0, nice(max((value for values in series for value in values if not math.isnan(value)), default=1e9))
    )


def _level_paint(scale: Scale) -> Paint:
    return lambda value: f"scale{round(scale.share(value) * 10)}"


# --- the links of a job, a line a node -----------------------------------------------------------


def boards_of(snapshot: Snapshot, node: int) -> list[int]:
    """The GPUs of a node that are whole boards."""
    return [gpu for gpu in snapshot.layout.nodes[node].gpus if snapshot.layout.gpus[gpu].parent < 0]


def unit_of(key: str) -> str:
    """Of a metric."""
    from coldaisle.sources.catalog import catalog

    known = catalog().get(key)
    return known.unit if known else "1"


def summed(series: Sequence[Sequence[float]]) -> list[float]:
    """The sum of some series, bin by bin; one that has no sample there counts as the others, unless most have none."""
    if len(series) == 1:
        return list(series[0])
    length = min((len(one) for one in series), default=0)
    return [_total([one[at] for one in series]) for at in range(length)]


def _total(values: Sequence[float]) -> float:
    known = [value for value in values if not math.isnan(value)]
    return sum(known) / len(known) * len(values) if known and 2 * len(known) >= len(values) else math.nan


def links_tail(snapshot: Snapshot, metric: Metric, node: int, key: str, view: View) -> Cell:
    """A value beside the strip of a node: all its rails, its NVLinks, its PCIe links."""
    from coldaisle.analyzers.links import rails_of

    rails = rails_of(snapshot, snapshot.layout.nodes[node].ports)
    if key == "now":
        of = rails if metric.key.startswith("port.") else boards_of(snapshot, node)
        total = _total([read(snapshot, metric.key, one).value for one in of])
        return Run(view.show(total, unit_of(metric.key)), "dim" if math.isnan(total) else "title")
    if key == "reach":
        share = _node_share(snapshot, metric, node, rails)
        return (
            (Run(NO_VALUE, "dim"),)
            if math.isnan(share)
            else (*gauge(share, 8, view), Run(f" {share * 100:3.0f} %"))
        )
    if key == "errors":
        return error_cell(_sum(port_errors(snapshot, port) for port in rails), view)
    if key == "wait":
        total = _sum(read(snapshot, "port.xmit_wait", port).value for port in rails)
        return Run(view.show(total, "/s"), "dim" if math.isnan(total) else "text")
    if key == "rails":
        return _rails_up(snapshot, rails)
    of_boards = nvlink_load if key == "nvlink" else pcie_load
    share = _boards_share(snapshot, node, of_boards, ("tx", "rx"))
    return Run(
        NO_VALUE if math.isnan(share) else f"{share * 100:.0f} %", "dim" if math.isnan(share) else "text"
    )


def _node_share(snapshot: Snapshot, metric: Metric, node: int, rails: Sequence[int]) -> float:
    """Of what can be reached: the mean over the links that carry anything; rails may rest by design."""
    link, _, way = metric.key.partition(".")[2].rpartition("_")
    if metric.key.startswith("port."):
        way = metric.key.removeprefix("port.") if metric.key in ("port.tx", "port.rx") else "tx"
        return _mean_of_used([port_load(snapshot, port, way).share for port in rails])
    ways = (way,) if way in ("tx", "rx") else ("tx",)
    return _boards_share(snapshot, node, nvlink_load if link == "nvlink" else pcie_load, ways)


def _boards_share(snapshot: Snapshot, node: int, of: LoadOf, ways: Sequence[str]) -> float:
    boards = boards_of(snapshot, node)
    shares = [_mean_of_used([of(snapshot, gpu, way).share for gpu in boards]) for way in ways]
    return max((share for share in shares if not math.isnan(share)), default=math.nan)


def _mean_of_used(shares: Sequence[float]) -> float:
    known = [share for share in shares if not math.isnan(share)]
    if not known:
        return math.nan
    used = [share for share in known if share >= max(known) / 2]
    return sum(used) / len(used)


def _rails_up(snapshot: Snapshot, rails: Sequence[int]) -> Run:
    states = [state for port in rails if not (state := read(snapshot, "port.state", port)).missing]
    if not states:
        return Run(NO_VALUE, "dim")
    up = sum(PORT_STATES.get(int(state.value), ("", ""))[0] == "up" for state in states)
    return Run(f"{up}", "text") if up == len(states) else Run(f"{up} of {len(states)}", "bad")


def rail_tail(snapshot: Snapshot, metric: Metric, port: int, key: str, view: View) -> Cell:
    """The same of one rail that is not sound."""
    way = "rx" if metric.key == "port.rx" else "tx"
    if key == "now":
        return reading_run(snapshot, metric.key if metric.key.startswith("port.") else "port.tx", port, view)
    if key == "reach":
        share = port_load(snapshot, port, way).share
        return (
            (Run(NO_VALUE, "dim"),)
            if math.isnan(share)
            else (*gauge(share, 8, view), Run(f" {share * 100:3.0f} %"))
        )
    if key == "errors":
        return error_cell(port_errors(snapshot, port), view)
    if key == "wait":
        return reading_run(snapshot, "port.xmit_wait", port, view)
    return Run("")


def rail_words(snapshot: Snapshot, port: int, view: View) -> Row:
    """What is wrong with a rail, and what its siblings carry: ``runs at 100 of 400 Gb/s; siblings 16.2 GB/s``."""
    from coldaisle.analyzers.links import rails_of

    said = port_troubles(snapshot, (port,)).get(port, [])
    rails = rails_of(snapshot, snapshot.layout.nodes[snapshot.layout.ports[port].node].ports)
    sent = sorted(
        value
        for rail in rails
        if rail != port and not math.isnan(value := read(snapshot, "port.tx", rail).value)
    )
    token = "bad" if any(token == "bad" for _, token in said) else "warn"
    beside = f"; a sibling sends {view.show(sent[len(sent) // 2], 'B/s')}" if sent else ""
    return (Run(", ".join(words for words, _ in said), token), Run(beside, "dim"))
