"""What the Service screen says, as rows of runs: pure functions of a view, a series answer and a size."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from coldaisle.sources.text import fit, plain
from coldaisle.sources.units import NO_VALUE, SHOW_WIDTH, show
from coldaisle.tui.reading import edge, latest, read, server_name, status_word
from coldaisle.tui.screens.gpu_panes import LEAST_CHART, Block, View, problem_words, range_text, value_row
from coldaisle.tui.screens.serving_rows import (
    Serving,
    is_idle,
    objective_name,
    ready_run,
    since_words,
    slots_of,
    state_of,
    times_over,
    unit_of,
)
from coldaisle.tui.widgets.chart import (
    Mark,
    Paint,
    Scale,
    area,
    axis_width,
    extent,
    framed,
    grid,
    nice,
    time_axis,
)
from coldaisle.tui.widgets.lines import BLANK, Row, Run, beside, cut, pad, row_width, wrap
from coldaisle.tui.widgets.table import Cell, Column, cells_row, place

if TYPE_CHECKING:
    from coldaisle.analyzers.serving import Excursion, Verdict
    from coldaisle.analyzers.snapshot import SeriesAnswer, Snapshot
    from coldaisle.sources.cluster import Server

# analyzers.serving imports numpy, which must not load before the first paint: functions import it.


class Chart(NamedTuple):
    """Something over time."""

    key: str
    """A catalog key, or ERROR_SHARE of analyzers.serving."""
    name: str
    objective: str = ""
    """The promise that is drawn in, as in the configuration."""


CHARTS = (
    Chart("serve.kv_usage", "KV cache"),
    Chart("serve.running", "running"),
    Chart("serve.waiting", "waiting"),
    Chart("serve.ttft_p50", "TTFT p50", "ttft_p50"),
    Chart("serve.ttft_p99", "TTFT p99", "ttft_p99"),
    Chart("serve.itl_p99", "ITL p99", "itl_p99"),
    Chart("serve.gen_tokens", "generated"),
    Chart("serve.preemptions", "preemptions"),
    Chart("error_share", "errors", "errors"),
    Chart("serve.e2e_p95", "E2E p95", "e2e_p95"),
)
"""In the order of their worth: a low terminal shows the first ones."""
REPLICA_METRICS = tuple(chart for chart in CHARTS if chart.key != "error_share")
_RANGE = 18
"""Cells for ``min..max`` at the right of a strip."""


@dataclass(frozen=True, slots=True)
class Subject:
    """What the screen is about: a service, or one replica of it."""

    service: int
    """Index into Grouping.services."""
    server: int | None = None

    def servers(self, view: Serving) -> tuple[int, ...]:
        """The replicas that it consists of."""
        return view.grouping.services[self.service].servers if self.server is None else (self.server,)


def verdicts_of(view: Serving, subject: Subject) -> tuple[Verdict, ...]:
    """How the subject keeps the promises of its service."""
    from coldaisle.analyzers.serving import replica_verdicts, verdicts

    if subject.server is None:
        return verdicts(view.found, view.limits, subject.service)
    return replica_verdicts(view.snapshot, view.found, view.limits, subject.server)


def title(view: Serving, subject: Subject, width: int) -> Row:
    """Name, state, what serves it where."""
    snapshot, service = view.snapshot, view.grouping.services[subject.service]
    name = Run(plain(service.name), "title")
    if subject.server is None:
        ready = ready_run(view, subject.service)
        servers = [snapshot.layout.servers[server] for server in service.servers]
        nodes = len({server.node for server in servers})
        runs = [name, Run("  "), ready, Run(" replicas ready", ready.token)]
        runs += [
            Run(f"  on {nodes} node{'s' * (nodes != 1)}", "dim"),
            *_what(servers, service.model, service.name),
        ]
        return cut(tuple(runs), width)
    known = snapshot.layout.servers[subject.server]
    word, token = state_of(view, subject.server)
    seen = snapshot.server_seen
    heard = latest(snapshot, float(seen[subject.server]) if subject.server < len(seen) else math.nan)
    runs = [
        Run(server_name(snapshot, subject.server), "title"),
        Run(f"  {word}, heard {heard}" + ("" if heard == "never" else " ago"), token),
        Run("  replica of ", "dim"),
        name,
        *_what([known], service.model, service.name),
    ]
    return cut(tuple(runs), width)


def promise_line(
    verdicts: Sequence[Verdict],
    kept: Mapping[str, Excursion],
    view: Serving,
    subject: Subject,
    width: int,
) -> Row:
    """Every promise: kept or broken, by how much, since when, and how much of the time in sight."""
    if not verdicts:
        name = view.grouping.services[subject.service].name
        return cut(
            (
                Run("no SLO is set: ", "dim"),
                Run(f"[serving.slo.{plain(name)!r}] in the configuration", "dim"),
            ),
            width,
        )
    runs: list[Run] = [Run("SLO", "dim")]
    for verdict in sorted(verdicts, key=lambda verdict: not verdict.broken):
        runs += [Run("  "), *_promise(verdict, kept.get(verdict.name), view.snapshot.at)]
    if (
        not any(verdict.known for verdict in verdicts)
        and subject.server is None
        and is_idle(view, subject.service)
    ):
        runs.append(Run("  (idle)", "dim"))
    return cut(tuple(runs), width)


def _promise(verdict: Verdict, kept: Excursion | None, now: float) -> Iterator[Run]:
    """``! TTFT p99 7.2 s > 2.0 s x3.6 for 4m10s (67 % out)``"""
    unit, name = unit_of(verdict.name), objective_name(verdict.name)
    limit, value = show(verdict.limit, unit), show(verdict.value, unit)
    if not verdict.known:
        yield Run(f"? {name} of {limit} not known", "dim")
    elif verdict.broken:
        since = since_words(kept, now)
        yield Run(f"! {name} {value} > {limit} {times_over(verdict)}{' for ' * bool(since)}{since}", "bad")
    else:
        yield Run(f"+ {name} {value} of {limit}", "ok")
    if kept is not None and kept.share > 0:
        yield Run(f" ({show(kept.share, 'ratio')} out)", "warn")


# over time


def chart_keys(view: Serving) -> tuple[str, ...]:
    """Catalog keys that the charts and the promises need."""
    from coldaisle.analyzers.serving import keys_for

    keys = {key: None for chart in CHARTS for key in _keys(chart.key)}
    keys |= {key: None for name in view.limits for key in keys_for(name)}
    return tuple(key for key in keys if key in view.snapshot.columns)


def chart_pane(view: Serving, subject: Subject, answer: SeriesAnswer | None, sight: View) -> list[Row]:
    """What matters over time: as many charts as fit, and a time axis under them."""
    columns = max(1, min(2, (sight.width + 2) // (LEAST_CHART + 2)))
    charts = CHARTS[: max(1, min(len(CHARTS), (sight.height - 1) // 2 * columns))]
    layout = grid(len(charts), sight.width, max(1, sight.height - 1), least=LEAST_CHART, overhead=1)
    columns = min(columns, layout.columns)
    width = (sight.width - 2 * (columns - 1)) // columns
    height = max(1, (sight.height - 1) // -(-len(charts) // columns) - 1)
    limits = {verdict.name: verdict.limit for verdict in verdicts_of(view, subject)}
    left = 2 if height < 3 else _AXIS
    rows: list[Row] = []
    for start in range(0, len(charts), columns):
        line: list[Row] = []
        for at, chart in enumerate(charts[start : start + columns]):
            values = series(view, subject, chart.key, answer)
            block = _chart(
                view,
                subject,
                chart,
                values,
                limits.get(chart.objective, math.nan),
                sight,
                width,
                height,
                left,
            )
            line = block if at == 0 else beside(line, block, width)
        rows += line
    axis: Row = (
        Run(" " * left),
        *time_axis(sight.span, width - left - (_RANGE if height < 3 else 0), now=edge(view.snapshot)),
    )
    under: list[Row] = [axis] if columns == 1 else beside([axis], [axis], width)
    return [*rows, *under]


_AXIS = SHOW_WIDTH + 1
"""Cells of a value axis: the widest label, so that charts above each other line up."""
CUT_AT = (1.25, 2.0, 3.0)
"""Tops of a chart with an objective, in its limits: beyond the last one it is cut, so that the line stays in sight."""


def series(view: Serving, subject: Subject, key: str, answer: SeriesAnswer | None) -> list[float]:
    """A series of the subject; empty: not answered yet."""
    from coldaisle.analyzers.serving import folded

    if answer is None or not any(part in answer.values for part in _keys(key)):
        return []
    row_of = {entity: row for row, entity in enumerate(answer.query.entities)}
    servers = view.snapshot.layout.servers
    rows = [row_of[servers[s].key] for s in subject.servers(view) if servers[s].key in row_of]
    values: list[float] = folded(answer.values, key, rows).tolist()
    return values


def excursions(view: Serving, subject: Subject, answer: SeriesAnswer) -> Mapping[str, Excursion]:
    """How the subject kept its promises over the time that was answered."""
    import numpy as np

    from coldaisle.analyzers.serving import excursion, folded, measure

    row_of = {entity: row for row, entity in enumerate(answer.query.entities)}
    servers = view.snapshot.layout.servers
    rows = [row_of[servers[s].key] for s in subject.servers(view) if servers[s].key in row_of]
    return {
        name: excursion(
            answer.times,
            np.asarray(folded(answer.values, measure(name), rows)),
            float(column[subject.service]),
        )
        for name, column in view.limits.items()
        if not math.isnan(column[subject.service])
    }


def _keys(key: str) -> tuple[str, ...]:
    return ("serve.errors", "serve.requests") if key == "error_share" else (key,)


def _unit(key: str) -> str:
    from coldaisle.sources.catalog import catalog

    return "ratio" if key == "error_share" else catalog()[key].unit


def _chart(
    view: Serving, subject: Subject, chart: Chart, values: Sequence[float], limit: float, sight: View, width: int, height: int,
    left: int,
) -> list[Row]:  # fmt: skip
    """A heading with the value now, then a strip of one row or a chart with an axis."""
    unit = _unit(chart.key)
    heading = pad(_heading(view, subject, chart, values, limit, sight), width)
    if math.isnan(extent(values).mean) if values else _never(view, subject, chart.key):
        why = why_missing(view, subject, chart.key) or "no sample in this range"
        return [heading, cut((Run(" " * left + f"{NO_VALUE} {why}", "dim"),), width), *[BLANK] * (height - 1)]
    scale, marks = _scale(values, unit, limit)
    room = max(4, width - left - (_RANGE if height < 3 else 0))
    drawn = area(values, room, height, scale, ink=sight.ink, paint=_paint(scale, limit), marks=marks)
    if height < 3:
        span = Run(" " + fit(range_text(values, unit, sight), _RANGE - 1, right=True), "dim")
        return [
            heading,
            *((Run(" " * left), *row, span if at == 0 else Run("")) for at, row in enumerate(drawn)),
        ]
    is_cut = extent(values).high > scale.high

    def label(value: float) -> str:
        return (">" if is_cut and value == scale.high else "") + sight.show(value, unit)

    rows = framed(drawn, scale, label, ink=sight.ink, marks=marks)
    taken = axis_width(scale, height, label, marks)
    return [heading, *((Run(" " * max(0, left - taken)), *row) for row in rows)]


def _heading(
    view: Serving, subject: Subject, chart: Chart, values: Sequence[float], limit: float, sight: View
) -> Row:
    """Name, value now, objective, and whose value it is."""
    now, token, note = value_now(view, subject, chart.key)
    unit = _unit(chart.key)
    runs = [
        Run(fit(chart.name, 12), "title"),
        Run(fit(sight.show(now, unit), SHOW_WIDTH + 1), "bad" if now > limit else token),
    ]
    if not math.isnan(limit):
        there = [value for value in values if not math.isnan(value)]
        out = sum(value > limit for value in there)
        words = f"{show(out / len(there), 'ratio')} out, max {sight.show(max(there), unit)}" if out else ""
        runs.append(Run(f"SLO {sight.show(limit, unit)}{', ' * bool(out)}{words}  ", "warn" if out else "ok"))
    return (*runs, Run(note, "dim"))


def value_now(view: Serving, subject: Subject, key: str) -> tuple[float, str, str]:
    """A value of the subject, its token, and of whom it is."""
    from coldaisle.analyzers.serving import SUMS

    if subject.server is not None:
        if key in view.found.replicas:
            value = float(view.found.replicas[key][subject.server])
            return value, "dim" if math.isnan(value) else "text", ""
        reading = read(view.snapshot, key, subject.server)
        fresh = view.found.ready[subject.server]
        return reading.value, reading.token if fresh or reading.missing else "stale", ""
    figure = view.found.figure(key, subject.service)
    if math.isnan(figure.value):
        return math.nan, "dim", ""
    ready = int(view.found.ready_count[subject.service])
    if figure.worst >= 0:
        return figure.value, "text", f"worst {server_name(view.snapshot, figure.worst)}" if ready > 1 else ""
    told = (
        f"of {figure.told} of {ready}" if figure.told < ready else "sum" if key in SUMS and ready > 1 else ""
    )
    return figure.value, "text", told


def why_missing(view: Serving, subject: Subject, key: str) -> str:
    """Why nobody tells a metric: as the engine does not have it, or as the first replica that is ready says."""
    servers = subject.servers(view)
    if not any(view.found.ready[server] for server in servers):
        return (
            "no replica is ready"
            if subject.server is None
            else f"the server is {state_of(view, subject.server)[0]}"
        )
    if key == "error_share":
        return "no request ended" if is_idle(view, subject.service) else "requests or errors are not told"
    ready = [server for server in servers if view.found.ready[server]]
    reasons = dict.fromkeys(read(view.snapshot, key, server).why for server in ready)
    first = next(iter(reasons), "")
    return "no request to measure" if first == "the source says: no value" else first


def _never(view: Serving, subject: Subject, key: str) -> bool:
    """Whether waiting for an answer is useless: no replica has the metric."""
    return all(part not in view.snapshot.columns for part in _keys(key)) or all(
        key in view.snapshot.layout.servers[server].absent for server in subject.servers(view)
    )


def _scale(values: Sequence[float], unit: str, limit: float) -> tuple[Scale, tuple[Mark, ...]]:
    top = max((value for value in values if not math.isnan(value)), default=0.0)
    if not math.isnan(limit) and limit > 0:
        high = next((times * limit for times in CUT_AT if top <= times * limit), CUT_AT[-1] * limit)
        return Scale(0.0, high), (Mark(limit, "SLO"),)
    return Scale(0.0, 1.0 if unit == "ratio" else nice(top)), ()


def _paint(scale: Scale, limit: float) -> Paint:
    return lambda value: "bad" if value > limit else f"scale{round(scale.share(value) * 10)}"


# replicas


def window(count: int, cursor: int, height: int) -> range:
    """The part of a long list that is in sight, the cursor in it."""
    height = max(1, min(height, count))
    start = min(max(0, cursor - height // 2), max(0, count - height))
    return range(start, start + height)


def replicas_in_sight(view: Serving, subject: Subject, cursor: int, height: int) -> list[int]:
    """The replicas whose series are drawn."""
    servers = subject.servers(view)
    return [servers[at] for at in window(len(servers), cursor, height - 2)]


def replica_pane(
    view: Serving, subject: Subject, answer: SeriesAnswer | None, chart: Chart, sight: View, cursor: int
) -> Block:
    """A metric of each replica over time, on one scale: who differs stands out."""
    shown = replicas_in_sight(view, subject, cursor, sight.height)
    one = {server: series(view, Subject(subject.service, server), chart.key, answer) for server in shown}
    limit = next((v.limit for v in verdicts_of(view, subject) if v.name == chart.objective), math.nan)
    unit = _unit(chart.key)
    scale, _ = _scale([value for values in one.values() for value in values], unit, limit)
    label = min(24, max((row_width((Run(server_name(view.snapshot, s)),)) for s in shown), default=4) + 1)
    room = max(6, sight.width - label - 22)
    rows: list[Row] = []
    for server in shown:
        now, token, _ = value_now(view, Subject(subject.service, server), chart.key)
        word, colour = state_of(view, server)
        strip = area(one[server], room, 1, scale, ink=sight.ink, paint=_paint(scale, limit))[0]
        rows.append(
            (
                Run(fit(server_name(view.snapshot, server), label), colour if word != "ready" else "text"),
                *pad(strip, room),
                Run(" " + fit(sight.show(now, unit), 11, right=True), "bad" if now > limit else token),
                Run("  " + fit(word, 8), colour),
            )
        )
    rows.append((Run(" " * label), *time_axis(sight.span, room, now=edge(view.snapshot))))
    total = len(subject.servers(view))
    more = f"{total} replicas, " if total > len(shown) else ""
    rows.append(
        cut(
            (Run(f"{more}strips: 0 to {sight.show(scale.high, unit)}; Enter opens a replica", "dim"),),
            sight.width,
        )
    )
    at = (
        next((at for at, server in enumerate(shown) if server == subject.servers(view)[cursor]), 0)
        if shown
        else 0
    )
    return Block(rows, range(at, at + 1))


# GPUs

GPU_COLUMNS = (
    Column("gpu", "GPU", 11, keep=0),
    Column("state", "state", 10, keep=1),
    Column("sm", "SM", 6, right=True, keep=2),
    Column("dram", "DRAM", 6, right=True, keep=6),
    Column("power", "power", 8, right=True, keep=3),
    Column("temp", "temp", 6, right=True, keep=4),
    Column("memory", "memory", 9, right=True, keep=5),
    Column("server", "server", 14, keep=7, grows=True),
)


def gpus_of(view: Serving, subject: Subject) -> list[tuple[int, int]]:
    """(GPU, server) of the subject, in reading order."""
    return sorted(
        {
            (gpu, server)
            for server in subject.servers(view)
            for gpu in view.snapshot.layout.servers[server].gpus
        }
    )


def gpu_pane(view: Serving, subject: Subject, sight: View, cursor: int) -> Block:
    """The boards that the subject runs on."""
    found = gpus_of(view, subject)
    if not found:
        words = (
            "which GPUs it runs on is not known. It takes a process list of its node (the probe: ssh or local), or the "
            "pod labels of dcgm-exporter. n opens its node."
        )
        return Block(wrap(words, sight.width, "dim"))
    placed = place(GPU_COLUMNS, sight.width)
    rows: list[Row] = [cells_row([Run(item.column.title, "dim") for item in placed], placed)]
    shown = window(len(found), cursor, sight.height - 2)
    for at in shown:
        gpu, server = found[at]
        cells = _gpu_cells(view.snapshot, gpu, server)
        rows.append(cells_row([cells[item.column.key] for item in placed], placed))
    rows.append((Run(f"{len(found)} GPUs; Enter opens the node, r shows it on Racks", "dim"),))
    here = 1 + cursor - shown.start
    return Block([cut(row, sight.width) for row in rows], range(here, here + 1))


def _gpu_cells(snapshot: Snapshot, gpu: int, server: int) -> dict[str, Cell]:
    trouble = next(iter(problem_words(snapshot, gpu)), status_word(int(snapshot.gpu_status[gpu])))
    cells: dict[str, Cell] = {
        "gpu": Run(plain(snapshot.layout.gpus[gpu].key)),
        "state": Run(*trouble),
        "server": Run(server_name(snapshot, server), "dim"),
    }
    metrics = {
        "sm": "gpu.sm_active",
        "dram": "gpu.dram_active",
        "power": "gpu.power",
        "temp": "gpu.temp",
        "memory": "gpu.mem_used",
    }
    for name, key in metrics.items():
        reading = read(snapshot, key, gpu)
        cells[name] = Run(reading.text(), reading.token)
    return cells


# values and facts


def values_pane(view: Serving, subject: Subject, sight: View) -> list[Row]:
    """Every metric of a replica with age and source; of a service the sums, and the worst replica's where none can be had."""
    from coldaisle.sources.catalog import catalog

    keys = [key for key in catalog() if key.startswith("serve.")]
    if subject.server is not None:
        known = view.snapshot.layout.servers[subject.server]
        there = [key for key in keys if key in view.snapshot.columns or key in known.absent]
        rows = [value_row(view.snapshot, key, subject.server, sight) for key in there]
    else:
        there = [key for key in keys if key in view.snapshot.columns and key in view.found.values]
        rows = [_service_value(view, subject, key, sight) for key in (*there, *_COMPUTED)]
    absent = [key.partition(".")[2] for key in keys if key not in (*there, *view.snapshot.columns)]
    if absent:
        rows += [BLANK, (Run("No source delivers:", "dim"),), *wrap(", ".join(absent), sight.width, "dim")]
    return rows


_COMPUTED = {
    "kv_mean": ("KV mean", "ratio", "of the capacity of all replicas"),
    "tokens_per_joule": ("tokens a joule", "1", "generated, over the power of the GPUs"),
    "error_share": ("errors", "ratio", "of the requests that ended"),
    "imbalance": ("imbalance", "1", "the busiest replica over the mean"),
}


def _service_value(view: Serving, subject: Subject, key: str, sight: View) -> Row:
    from coldaisle.analyzers.serving import SUMS
    from coldaisle.sources.catalog import catalog

    name, unit, help_text = _COMPUTED.get(key) or (key.partition(".")[2], _unit(key), catalog()[key].help)
    figure, ready = view.found.figure(key, subject.service), int(view.found.ready_count[subject.service])
    if math.isnan(figure.value):
        how = _why(view, subject, key) if key in _COMPUTED else why_missing(view, subject, key)
    elif figure.worst >= 0:
        how = f"worst of {figure.told}: {server_name(view.snapshot, figure.worst)}"
    else:
        how = f"{'sum' if key in SUMS else 'mean'} of {figure.told}" + (
            f" of {ready}" if figure.told < ready else ""
        )
        how = f"of {figure.told} of {ready}" if key in _COMPUTED else how
    row: Row = (
        Run(fit(name, 17), "dim"),
        Run(
            fit(sight.show(figure.value, unit), 12, right=True) + "  ",
            "dim" if math.isnan(figure.value) else "text",
        ),
        Run(fit(how, 34), "dim"),
    )
    return cut((*row, Run(help_text, "dim")) if sight.width >= 100 else row, sight.width)


def _why(view: Serving, subject: Subject, key: str) -> str:
    """Why what is computed cannot be."""
    if key != "tokens_per_joule":
        return "too little to do" if is_idle(view, subject.service) or key == "imbalance" else "not told"
    servers = [view.snapshot.layout.servers[server] for server in subject.servers(view)]
    if not any(server.gpus for server in servers):
        return "its GPUs are not known"
    if any(view.grouping.shared[server] for server in subject.servers(view)):
        return "it shares GPUs with other servers"
    return "the power of its GPUs, or tokens, missing"


def fact_pane(view: Serving, subject: Subject, sight: View) -> list[Row]:
    """What is known of it that does not change from tick to tick."""
    rows: list[Row] = []
    for name, text, token in _facts(view, subject):
        first, *rest = wrap(
            plain(text) or NO_VALUE, max(10, sight.width - 18), token if plain(text) else "dim"
        )
        rows.append((Run(fit(plain(name), 17) + " ", "dim"), *first))
        rows += [(Run(" " * 18), *row) for row in rest]
    return [cut(row, sight.width) for row in rows]


def _facts(view: Serving, subject: Subject) -> Iterator[tuple[str, str, str]]:
    snapshot, service = view.snapshot, view.grouping.services[subject.service]
    servers = [snapshot.layout.servers[server] for server in subject.servers(view)]
    if subject.server is not None:
        node = snapshot.layout.nodes[servers[0].node]
        slots = slots_of(snapshot, subject.server)
        yield "endpoint", servers[0].name, "text"
        yield "node", f"{node.key}, rack {snapshot.layout.racks[node.rack].name}", "text"
        yield (
            "GPUs",
            f"slots {slots}" if servers[0].gpus else "not known",
            "text" if servers[0].gpus else "dim",
        )
    else:
        yield "replicas", _replica_words(view, subject.service), "text"
        nodes = dict.fromkeys(snapshot.layout.nodes[server.node].key for server in servers)
        yield "nodes", " ".join(nodes), "text"
        boards = len(gpus_of(view, subject))
        yield "GPUs", str(boards) if boards else "not known", "text" if boards else "dim"
    yield "model", service.model or "not told", "text" if service.model else "dim"
    yield "deployment", service.deployment or "none known: servers of one model are a service", "text"
    yield "engine", _listed(server.engine for server in servers), "text"
    yield "version", _listed(server.version for server in servers), "text"
    for name, texts in (("pod", [s.pod for s in servers]), ("namespace", [s.namespace for s in servers])):
        if any(texts):
            yield name, _listed(iter(texts), 3), "text"
    yield "KV capacity", _capacity(view, subject), "text"
    for verdict in verdicts_of(view, subject):
        unit = unit_of(verdict.name)
        yield "SLO", f"{objective_name(verdict.name)} at most {show(verdict.limit, unit)}", "text"
    absent = dict.fromkeys(
        key.partition(".")[2].replace("_", " ") for server in servers for key in server.absent
    )
    engine = _listed(server.engine for server in servers if server.absent)
    if absent:
        yield f"not by {engine}", ", ".join(absent), "dim"


def _replica_words(view: Serving, number: int) -> str:
    service, snapshot = view.grouping.services[number], view.snapshot
    ready, known = int(view.found.ready_count[number]), len(service.servers)
    fact = snapshot.replicas.get(service.deployment or service.model or "")
    expected = view.found.expected[number]
    wanted = "no source says how many there should be" if math.isnan(expected) else f"{expected:.0f} expected"
    told = "" if fact is None or fact.ready is None else f"; the orchestrator says {fact.ready} ready"
    return f"{ready} ready of {known} ever heard of, {wanted}{told}"


def _capacity(view: Serving, subject: Subject) -> str:
    value, _, _ = value_now(view, subject, "serve.kv_capacity")
    if math.isnan(value):
        return f"{NO_VALUE} {why_missing(view, subject, 'serve.kv_capacity')}"
    used, _, _ = value_now(view, subject, "serve.kv_used")
    return show(value, "tokens") + ("" if math.isnan(used) else f", {show(used, 'tokens')} in use")


def _listed(texts: Iterator[str | None], most: int = 6) -> str:
    found = list(dict.fromkeys(text for text in texts if text))
    rest = f" and {len(found) - most} more" if len(found) > most else ""
    return (", ".join(found[:most]) + rest) if found else NO_VALUE


def _what(servers: Sequence[Server], model: str | None, name: str) -> Iterator[Run]:
    """Engine with version, and the model where it is not the name already."""
    engines = {f"{server.engine or ''} {server.version or ''}".strip() for server in servers} - {""}
    if engines:
        yield Run(f"  {plain(engines.pop()) if len(engines) == 1 else 'several engines'}")
    if model and model != name:
        yield Run(f"  {plain(model)}", "dim")
