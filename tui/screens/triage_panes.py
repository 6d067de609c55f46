"""What the Triage screen says of one finding, in the order in which people act; and the same as plain text. Pure."""

from __future__ import annotations

import math
import re
import shlex
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

from coldaisle.sources.text import ELLIPSIS, cell_width, clip, fit, plain
from coldaisle.sources.units import age, show
from coldaisle.tui.clipboard import is_safe
from coldaisle.tui.evidence import Rule, held_words, rule_of, rule_words, value_words
from coldaisle.tui.findings import (
    job_of,
    long_name,
    loss_words,
    severity_token,
    steps,
    title_words,
    where_words,
)
from coldaisle.tui.reading import who_has_to_act
from coldaisle.tui.tiles import tail
from coldaisle.tui.widgets.chart import (
    ASCII,
    Ink,
    Mark,
    Scale,
    area,
    extent,
    framed,
    held,
    nice,
    time_axis,
)
from coldaisle.tui.widgets.lines import Row, Run, cut, merged, row_width, text_of, wrap

if TYPE_CHECKING:
    from coldaisle.analyzers.finding import Confirm, Evidence, Finding
    from coldaisle.analyzers.snapshot import SeriesAnswer, SeriesQuery, Snapshot
    from coldaisle.tui.acknowledged import Entry
    from coldaisle.tui.screens.triage_rows import Item

SPAN_S = 1800.0
"""What the charts of the evidence cover."""
MOST_CHARTS, MOST_PEERS = 6, 16
LABEL = 10
"""Cells of a label with its blank."""
TALL_AT = 64
"""From this width on charts are taller than a line."""
LEAST_STRIP = 8


class Trace(NamedTuple):
    """A line of evidence over time."""

    name: str
    """Inert."""
    metric: str
    entities: tuple[str, ...]
    """Keys; the mean of several is drawn."""
    evidence: Evidence | None
    """None: peers, to compare with."""


class Detail(NamedTuple):
    """What the detail is made of."""

    snapshot: Snapshot
    item: Item
    answers: Mapping[str, SeriesAnswer]
    """By kind."""
    ink: Ink
    rule: str
    width: int
    tall: int
    """How many pieces of evidence get charts taller than a line."""
    drawn: bool = True
    """Whether there are charts at all."""


def _entity(key: str) -> str:
    """Whom a piece of evidence is of, without what its name says twice: ``4711``, ``n03:8000``."""
    node, _, part = key.removeprefix("slurm:").partition("/")
    return plain(part if part.startswith(f"{node}:") else key.removeprefix("slurm:"), 40)


def metric_words(key: str) -> str:
    """``thermal violation``"""
    from coldaisle.sources.catalog import catalog

    known = catalog().get(key)
    return known.label if known is not None else plain(key.partition(".")[2].replace("_", " ") or key, 24)


# --- evidence over time --------------------------------------------------------------------------------


def traces(snapshot: Snapshot, finding: Finding) -> list[Trace]:
    """The evidence that can be drawn, each metric's peers behind the first line of it."""
    found: list[Trace] = []
    compared: set[str] = set()
    drawable = any(_members(snapshot, one) for one in finding.evidence)
    for one in finding.evidence if drawable else _usual(snapshot, finding):
        members = _members(snapshot, one)
        if not members or len(found) >= MOST_CHARTS:
            continue
        name = _entity(one.entity)
        found.append(Trace(name, one.metric, members, one))
        if one.metric not in compared and (peers := _peers(snapshot, finding, one)):
            compared.add(one.metric)
            found.append(Trace(peers[0], one.metric, tuple(peers[1][:MOST_PEERS]), None))
    return found


def _usual(snapshot: Snapshot, finding: Finding) -> list[Evidence]:
    """Where the evidence is an event alone: what its first GPU does, to hold against its peers."""
    from coldaisle.analyzers.finding import Evidence
    from coldaisle.sources.catalog import catalog

    gpu = next((key for key in finding.scope.gpus if key in snapshot.layout.gpu_of), None)
    activity = next((key for key in ("gpu.sm_active", "gpu.util") if key in snapshot.columns), "gpu.util")
    keys = ("gpu.power", activity) if gpu is not None else ()
    return [Evidence(key, gpu or "", math.nan, catalog()[key].unit, "") for key in keys]


def _members(snapshot: Snapshot, evidence: Evidence) -> tuple[str, ...]:
    """The entities whose mean stands for the evidence: itself, or the GPUs of the node or job that it is of."""
    from coldaisle.sources.catalog import catalog

    layout, key = snapshot.layout, evidence.metric
    if key not in catalog() or key not in snapshot.columns:
        return ()
    kind, entity = key.partition(".")[0], evidence.entity
    if kind == "gpu":
        if entity in layout.gpu_of:
            return (entity,)
        if entity in layout.node_of:
            return tuple(layout.gpus[gpu].key for gpu in layout.nodes[layout.node_of[entity]].gpus)[
                :MOST_PEERS
            ]
        job = job_of(snapshot, entity)
        return tuple(layout.gpus[gpu].key for gpu in job.gpus[:MOST_PEERS]) if job is not None else ()
    if kind == "node":
        return (entity,) if entity in layout.node_of else ()
    parts = {"port": layout.ports, "disk": layout.disks, "serve": layout.servers}.get(kind)
    if parts is not None:
        return (entity,) if any(part.key == entity for part in parts) else ()
    if kind == "rack":
        return (entity,) if any(rack.name == entity for rack in layout.racks) else ()
    return (entity,) if kind == "job" and any(job.id == entity for job in snapshot.jobs) else ()


def _peers(snapshot: Snapshot, finding: Finding, evidence: Evidence) -> tuple[str, list[str]] | None:
    """Whom the root of a finding is held against: the rest of its job, else of its node; of a node the others of its rack."""
    layout, roots = snapshot.layout, set(finding.scope.gpus) | set(finding.scope.ports)
    gpu = layout.gpu_of.get(evidence.entity)
    if gpu is not None:
        number = int(snapshot.gpu_job[gpu])
        mates = snapshot.jobs[number].gpus if number >= 0 else tuple(layout.nodes[layout.gpus[gpu].node].gpus)
        keys = [layout.gpus[mate].key for mate in mates if layout.gpus[mate].parent < 0]
        keys = [key for key in keys if key not in roots and key != evidence.entity]
        return (f"{len(keys)} peers", keys) if keys else None
    if (port := next((part for part in layout.ports if part.key == evidence.entity), None)) is not None:
        keys = [layout.ports[at].key for at in layout.nodes[port.node].ports]
        keys = [key for key in keys if key not in roots and key != port.key and _alike(key, port.key)]
        return (f"{len(keys)} other rails", keys) if keys else None
    node = layout.node_of.get(evidence.entity)
    if node is None or not evidence.metric.startswith("node."):
        return None
    keys = [layout.nodes[at].key for at in layout.racks[layout.nodes[node].rack].nodes]
    keys = [key for key in keys if key not in finding.scope.nodes and key != evidence.entity]
    return (f"{len(keys)} of its rack", keys) if keys else None


def _alike(one: str, other: str) -> bool:
    """Whether two ports are of one kind: ``mlx5_0/1`` and ``mlx5_3/1``."""
    names = [re.sub(r"\d", "", key.partition("/")[2]) for key in (one, other)]
    return names[0] == names[1]


def questions(snapshot: Snapshot, found: Sequence[Trace], columns: int) -> list[SeriesQuery]:
    """What has to be asked for the traces: one question a kind of entity."""
    from coldaisle.analyzers.snapshot import SeriesQuery
    from coldaisle.tui.screens.series import bins, period_of

    asked = []
    for kind in dict.fromkeys(trace.metric.partition(".")[0] for trace in found):
        own = [trace for trace in found if trace.metric.startswith(f"{kind}.")]
        keys = tuple(dict.fromkeys(trace.metric for trace in own))
        entities = tuple(dict.fromkeys(key for trace in own for key in trace.entities))
        span = bins(snapshot.at, SPAN_S, columns, period_of(snapshot, keys[0]))
        asked.append(SeriesQuery(keys, entities, span.start, span.end, span.points))
    return asked


def series_of(trace: Trace, answers: Mapping[str, SeriesAnswer]) -> tuple[list[float], float, float]:
    """The values of a trace, the mean of its entities, and the span that they cover; empty: not answered yet."""
    answer = answers.get(trace.metric.partition(".")[0])
    if answer is None or trace.metric not in answer.values:
        return [], 0.0, 0.0
    row_of = {entity: row for row, entity in enumerate(answer.query.entities)}
    rows = [row_of[entity] for entity in trace.entities if entity in row_of]
    values = answer.values[trace.metric]
    lines = [values[row].tolist() for row in rows]
    means = [_mean(column) for column in zip(*lines, strict=True)]
    return held(means), answer.query.start, answer.query.end


def _mean(values: Sequence[float]) -> float:
    there = [value for value in values if not math.isnan(value)]
    return sum(there) / len(there) if there else math.nan


def evidence_rows(detail: Detail, finding: Finding) -> list[Row]:
    """Every piece of evidence; what can be drawn over time with its rule and the instant it began."""
    found = traces(detail.snapshot, finding) if detail.drawn else []
    drawn = {(trace.evidence.metric, trace.evidence.entity) for trace in found if trace.evidence is not None}
    names = [trace.name for trace in found] + [_entity(one.entity) for one in finding.evidence]
    most = 12 if detail.width < TALL_AT else 18
    name = min(max((cell_width(one) for one in names), default=0), most)
    metrics = [*(one.metric for one in finding.evidence), *(trace.metric for trace in found)]
    label = min(
        max((cell_width(metric_words(one)) for one in metrics), default=0),
        12 if detail.width < TALL_AT else 18,
    )
    rows = [
        _told(one, name, label, detail.width)
        for one in finding.evidence
        if (one.metric, one.entity) not in drawn
    ]
    beside = max(
        (row_width(_beside(trace, series_of(trace, detail.answers)[0])) for trace in found), default=0
    )
    beside = min(beside, max(26, detail.width // 3))  # one for all, so that they are on one scale of time
    tall = 0
    for at, trace in enumerate(found):
        peers = found[at + 1] if at + 1 < len(found) and found[at + 1].evidence is None else None
        tall += trace.evidence is not None
        if tall > detail.tall:
            rows.append(_strip(detail, finding, trace, name, label, beside))
        elif trace.evidence is not None:
            rows += _tall(detail, finding, trace, peers)
    if not rows:
        rows.append((Run("none is told", "dim"),))
    elif found and detail.tall >= tall:
        room = max(detail.width - _TALL_FRAME, LEAST_STRIP)
        edge = "now" if detail.snapshot.live else time.strftime("%H:%M", time.localtime(detail.snapshot.at))
        rows.append((Run(" " * _TALL_FRAME), *time_axis(SPAN_S, room, now=edge)))
    return [cut(row, detail.width) for row in rows]


_TALL_FRAME = 10
"""Cells at the left of a tall chart."""
TALL = 3


def _told(one: Evidence, name: int, label: int, width: int) -> Row:
    who = fit(tail(_entity(one.entity), name, ELLIPSIS), name)
    what = fit(metric_words(one.metric), label)
    return (
        Run(f"{who} ", "text"), Run(f"{what}  ", "dim"), Run(value_words(one), "title"), Run(f"  {held_words(one)}", "dim"),
    )  # fmt: skip


def _beside(trace: Trace, values: Sequence[float]) -> Row:
    """What stands behind a strip: its values, and what they are held against."""
    one = trace.evidence
    said = f"  {rule_words(one)}" if one is not None else ""
    return (Run(f" {_now_words(trace, values)}", "dim" if one is None else "title"), Run(said, "dim"))


def _strip(detail: Detail, finding: Finding, trace: Trace, name: int, label: int, beside: int) -> Row:
    """A trace in one line: who, what, over time, its values, its rule."""
    values, start, end = series_of(trace, detail.answers)
    token = "dim" if trace.evidence is None else "text"
    who = Run(fit(tail(trace.name, name, ELLIPSIS), name) + " ", token)
    what = Run(fit(metric_words(trace.metric), label) + " ", "dim")
    room = detail.width - name - label - 2 - beside
    told = _beside(trace, values)
    if room < LEAST_STRIP:
        return (who, what, *told)
    return (who, what, *_chart(detail, finding, trace, values, (start, end), room, 1)[0], *told)


def _tall(detail: Detail, finding: Finding, trace: Trace, peers: Trace | None) -> list[Row]:
    """A trace with its axis and its rule, its peers in a line below."""
    values, start, end = series_of(trace, detail.answers)
    one = trace.evidence
    assert one is not None
    head = [
        Run(f"{trace.name} ", "text"), Run(f"{metric_words(trace.metric)}  ", "dim"),
        Run(_now_words(trace, values), "title"), Run(f"  {rule_words(one)}", "dim"),
    ]  # fmt: skip
    scale, marks = _scale(trace, values, rule_of(one))
    unit, room = _unit(trace.metric), max(detail.width - _TALL_FRAME, LEAST_STRIP)
    chart = _chart(detail, finding, trace, values, (start, end), room, TALL)
    rows = framed(chart, scale, lambda value: show(value, unit), ink=detail.ink, marks=marks)
    rows = [_aligned(row, _TALL_FRAME) for row in rows]
    if peers is not None:
        others, start, end = series_of(peers, detail.answers)
        head.append(Run(f"   {peers.name} {_now_words(peers, others)}", "dim"))
        below = _chart(detail, finding, peers, others, (start, end), room, 1)[0]
        rows.append((Run(fit("peers", _TALL_FRAME - 1) + " ", "dim"), *below))
    return [tuple(head), *rows]


def _aligned(row: Row, frame: int) -> Row:
    """A framed row whose axis ends at a column."""
    axis, *rest = row
    text = fit(axis.text, frame, right=True) if cell_width(axis.text) <= frame else axis.text[-frame:]
    return (Run(text, axis.token), *rest)


def _unit(metric: str) -> str:
    from coldaisle.sources.catalog import catalog

    return catalog()[metric].unit


def _now_words(trace: Trace, values: Sequence[float]) -> str:
    """``598 W -> 148 W``: from when the chart begins to its newest sample; ``-> no data`` where none comes any more."""
    unit, span = _unit(trace.metric), extent(values)
    if math.isnan(span.last):
        return value_words(trace.evidence) if trace.evidence is not None else "no data"
    first = show(_mean(values[: max(len(values) // 4, 1)]), unit)
    last = "no data" if len(values) > 3 and all(map(math.isnan, values[-2:])) else show(span.last, unit)
    return (
        last
        if first == last or math.isnan(_mean(values[: max(len(values) // 4, 1)]))
        else f"{first} -> {last}"
    )


def _scale(trace: Trace, values: Sequence[float], rule: Rule | None) -> tuple[Scale, tuple[Mark, ...]]:
    unit, top = _unit(trace.metric), extent(values).high
    top = 0.0 if math.isnan(top) else top
    if rule is not None:
        top = max(top, rule.value)
    marks = (Mark(rule.value, "rule"),) if rule is not None else ()
    if unit == "ratio":
        small = top <= 0.2
        return Scale(0.0, nice(top) if small and top > 0 else max(1.0, top)), marks
    if unit == "C":
        low = min((value for value in values if not math.isnan(value)), default=0.0)
        return Scale(
            math.floor(min(low, rule.value if rule else low) / 10) * 10, math.ceil((top + 1) / 10) * 10
        ), marks
    return Scale(0.0, nice(top)), marks


def _chart(
    detail: Detail, finding: Finding, trace: Trace, values: Sequence[float], span: tuple[float, float], width: int,
    height: int,
) -> list[Row]:  # fmt: skip
    """An area with its rule, and ``|`` where the finding began."""
    first = trace.evidence or next((one for one in finding.evidence if one.metric == trace.metric), None)
    rule = rule_of(first) if first is not None else None
    if not values:
        waits = fit("reading ...", width)
        return [(Run(waits, "dim"),), *[(Run(" " * width),)] * (height - 1)]
    scale, marks = _scale(trace, values, rule)
    is_root = trace.evidence is not None

    def paint(value: float) -> str:
        if rule is not None and rule.sign[:1] in "<>" and rule.sign:
            return "warn" if rule.is_met(value) else "accent"
        return "accent" if is_root else "dim"

    rows = area(values, width, height, scale, ink=detail.ink, paint=paint, marks=marks)
    start, end = span
    if end > start and start <= finding.since <= end:
        at = min(int((finding.since - start) / (end - start) * width), width - 1)
        rows = [_struck(row, at, detail.ink.axis) for row in rows]
    return rows


def _struck(row: Row, at: int, sign: str) -> Row:
    """A row of single-cell characters with one replaced."""
    runs: list[Run] = []
    x = 0
    for run in row:
        inside = at - x
        if 0 <= inside < len(run.text):
            runs += [
                Run(run.text[:inside], run.token), Run(sign, "title"), Run(run.text[inside + 1 :], run.token),
            ]  # fmt: skip
        else:
            runs.append(run)
        x += len(run.text)
    return merged(runs)


# --- the detail ------------------------------------------------------------------------------------------


def detail_rows(detail: Detail) -> list[Row]:
    """Everything about the row under the cursor."""
    one = detail.item.finding
    if one is None:
        return _other_rows(detail)
    rows = [_heading(detail, one), *_state_rows(detail, one)]
    for label, text, token in act(detail.snapshot, one):
        rows += labelled(label, text, detail.width, token)
    rows.append(_section("evidence, 30 min, | = since" if detail.drawn else "evidence", detail))
    rows += evidence_rows(detail, one)
    for label, text, token in weighed(detail.snapshot, one):
        rows += labelled(label, text, detail.width, token)
    commands = confirm_lines(one)
    if commands or one.confirm:
        keys = " (y copies, p prints to the scrollback)" if detail.drawn else ""
        rows.append(_section(f"confirm{keys}", detail))
        rows += [row for line in commands for row in _command(line, detail.width)]
        if len(commands) < len(one.confirm):
            rows += wrap("a command is left out: a name in it is not safe to paste", detail.width, "warn")
    return rows


def _other_rows(detail: Detail) -> list[Row]:
    """Of an alert, of what cannot be told."""
    item = detail.item
    if item.doubt is not None:
        named = item.doubt.scope
        keys = (*named.jobs, *named.servers, *named.nodes, *named.gpus, *named.ports)
        where = ", ".join(plain(key.removeprefix("slurm:"), 40) for key in keys[:6])
        more = f" and {len(keys) - 6} more" if len(keys) > 6 else ""
        return [
            _section(f"cannot be told: {long_name(item.doubt.detector)}", detail),
            *labelled("WHY", item.text, detail.width, "text"),
            *labelled("WHERE", where + more or "the cluster", detail.width, "text"),
        ]
    fires = [
        event for event in detail.snapshot.events
        if event.kind == "alert" and item.text.startswith(plain(event.detail, 200).partition(" ")[0].rstrip(":"))
    ]  # fmt: skip
    rows = [_section(f"alert: {item.text}", detail)]
    rows += labelled(
        "WHY HERE", "it fires, and no finding explains it: look at it by itself", detail.width, "warn"
    )
    for event in fires[-5:]:
        when = time.strftime("%H:%M:%S", time.localtime(event.at))
        rows += labelled(
            "FIRES",
            f"since {when}  {plain(event.entity, 40)}  {plain(event.detail, 200)}",
            detail.width,
            "text",
        )
    return rows


def _heading(detail: Detail, one: Finding) -> Row:
    """``── 1  GPU lost (XID 79) ─────── since 03:09:12 (3m29s) ── conf 0.95``"""
    now, width = detail.snapshot.at, detail.width
    end = one.cleared_at if one.cleared_at is not None else now
    before = "before " if one.since_bound else ""
    pattern = "%H:%M:%S" if now - one.since < 12 * 3600 else "%d %b %H:%M"
    when = time.strftime(pattern, time.localtime(one.since))
    since = f" since {before}{when} ({age(max(end - one.since, 0.0))}) "
    sure = f" conf {one.confidence:.2f}"
    number = f"{detail.item.number}  " if detail.item.number else ""
    room = width - cell_width(since) - 3 - cell_width(number)
    with_sure = room - cell_width(sure) - 2 >= 20
    room -= cell_width(sure) + 2 if with_sure else 0
    title = clip(title_words(one), max(room - 1, 8))
    fill = max(room - cell_width(title) - 1, 0)
    rule = detail.rule
    ends = [Run(rule * 2, "rule"), Run(sure, "dim")] if with_sure else []
    return cut(
        (
            Run(f"{rule * 2} ", "rule"), Run(number, "title"), Run(f"{title} ", severity_token(one.severity)),
            Run(rule * fill, "rule"), Run(since, "text"), *ends,
        ),
        width,
    )  # fmt: skip


def _section(name: str, detail: Detail) -> Row:
    text = clip(name, max(detail.width - 6, 4))
    rest = max(detail.width - cell_width(text) - 4, 0)
    return (Run(f"{detail.rule * 2} ", "rule"), Run(text, "title"), Run(f" {detail.rule * rest}", "rule"))


def _state_rows(detail: Detail, one: Finding) -> list[Row]:
    """That it is over, or that somebody has it in hand."""
    entry: Entry | None = detail.item.entry
    rows: list[Row] = []
    if one.cleared_at is not None:
        when = time.strftime("%H:%M:%S", time.localtime(one.cleared_at))
        rows += labelled(
            "CLEARED",
            f"at {when}, {age(max(detail.snapshot.at - one.cleared_at, 0.0))} ago",
            detail.width,
            "ok",
        )
    if entry is not None:
        at = time.strftime("%d %b %H:%M", time.localtime(entry.at))
        if entry.until is None:
            told = f"acknowledged by {entry.who}, {at}, until it ends or becomes worse (a takes it back)"
        else:
            until = time.strftime("%d %b %H:%M", time.localtime(entry.until))
            told = f"snoozed by {entry.who}, {at}, until {until} (z: longer)"
        rows += labelled("ASIDE", told, detail.width, "accent")
    return rows


Told = tuple[str, str, str]
"""A label, its text (inert), a token."""


def act(snapshot: Snapshot, one: Finding) -> Iterator[Told]:
    """Why now, what to do, who, where, what changed: what a person needs first."""
    why = "; ".join(filter(None, (plain(one.cause).rstrip("."), plain(one.urgency_why).rstrip("."))))
    urgency = plain(str(one.urgency), 6).upper()
    yield f"WHY {urgency}", why, "bad" if one.urgency == "now" else "text"
    do = steps(one.remedy)
    yield (
        "DO",
        "   ".join(f"{at} {step}" for at, step in enumerate(do, 1)) if len(do) > 1 else "".join(do),
        "title",
    )
    yield "WHO", _who(snapshot, one), "text"
    yield "WHERE", _where(snapshot, one), "text"
    changed = "   ".join(plain(line, 120) for line in one.changed)
    yield (
        "CHANGED",
        changed or "nothing that is known, in the quarter of an hour before",
        "text" if changed else "dim",
    )
    if story := _story(one):
        yield "STORY", story, "dim"


def weighed(snapshot: Snapshot, one: Finding) -> Iterator[Told]:
    """What was rejected and why, what is missing; what is like it now, what was there before."""
    if one.rejected:
        yield (
            "NOT",
            "   ".join(f"{long_name(each.detector)}: {plain(each.why, 120)}" for each in one.rejected),
            "text",
        )
    if one.missing:
        yield "MISSING", "   ".join(plain(each, 120) for each in one.missing), "text"
    diagnosis = snapshot.diagnosis
    alike = [each for each in diagnosis.findings if each.detector == one.detector and each.id != one.id]
    if alike:
        yield "ALIKE NOW", ", ".join(where_words(snapshot, each) for each in alike[:6]), "text"
    own = {*one.scope.gpus, *one.scope.servers, *one.scope.ports} or {*one.scope.nodes, *one.scope.jobs}
    before = [
        each for each in diagnosis.cleared
        if each.id != one.id and own & {*each.scope.gpus, *each.scope.servers, *each.scope.ports, *each.scope.nodes, *each.scope.jobs}
    ]  # fmt: skip
    if before:
        told = (f"{title_words(each)} (cleared {_at(each.cleared_at)})" for each in before[:3])
        yield "BEFORE", ", ".join(told), "text"


def _at(at: float | None) -> str:
    return time.strftime("%H:%M", time.localtime(at or 0.0))


def _who(snapshot: Snapshot, one: Finding) -> str:
    """Whose turn it is, whose jobs suffer, and which alerts it explains."""
    told = who_has_to_act(snapshot, one)
    if one.explains:
        names = [plain(alert, 40) for alert in one.explains]
        more = f" and {len(names) - 4} more" if len(names) > 4 else ""
        told += f"      explains {len(names)} alert{'s' * (len(names) != 1)}: {', '.join(names[:4])}{more}"
    return told


def _where(snapshot: Snapshot, one: Finding) -> str:
    """The roots, folded, whose they are, who waits, and what it costs."""
    from coldaisle.sources.nodesets import fold

    scope, victims = one.scope, one.victims
    parts = []
    nodes = plain(fold(scope.nodes)) if scope.nodes else ""
    if len(scope.gpus) == 1:
        parts.append(plain(scope.gpus[0], 60))
    elif scope.gpus:
        parts.append(f"{len(scope.gpus)} GPUs of {nodes}" if nodes else f"{len(scope.gpus)} GPUs")
    elif scope.ports:
        parts.append(", ".join(plain(port, 40) for port in scope.ports[:3]))
    elif nodes:
        parts.append(nodes)
    if scope.servers:
        parts.append(
            ", ".join(_entity(server) for server in scope.servers[:3])
            + (" ..." if len(scope.servers) > 3 else "")
        )
    jobs = [job for job in snapshot.jobs if job.id in scope.jobs]
    if jobs:
        names = ", ".join(plain(f"{job.title} {job.name}".strip(), 40) for job in jobs[:3])
        parts.append(f"job {names}" + (f" and {len(jobs) - 3} more" if len(jobs) > 3 else ""))
    if victims.gpus:
        parts.append(f"{len(victims.gpus)} more GPUs wait")
    parts = parts or [where_words(snapshot, one)]
    share = "" if math.isnan(one.loss.fraction) else f"{one.loss.fraction * 100:.0f} % of the work lost, "
    return "; ".join(parts) + f"   ({share}{loss_words(one.loss.gpu_hours_per_hour)} GPU.h/h)"


def _story(one: Finding) -> str:
    """How it has lived: worse, coming back, another name, what it explains away."""
    parts = []
    if one.worsened_at is not None:
        parts.append(f"worse since {_at(one.worsened_at)}")
    if one.flaps:
        parts.append(f"came back {one.flaps} time{'s' * (one.flaps != 1)}")
    if one.symptoms:
        parts.append("explains away " + ", ".join(long_name(each) for each in one.symptoms))
    if one.supersedes:
        parts.append("was " + ", ".join(plain(each, 60) for each in one.supersedes[:3]))
    return "; ".join(parts)


def labelled(label: str, text: str, width: int, token: str = "text") -> list[Row]:
    """A label, and its text hanging beside it."""
    first, *rest = wrap(text.strip() or "-", max(width - LABEL, 12), token)
    return [(Run(fit(label, LABEL), "accent"), *first), *((Run(" " * LABEL), *row) for row in rest)]


class Command(NamedTuple):
    """A command that can be copied."""

    letter: str
    where: str
    """``user@login``, ``root@r11n02``, ``drained r11n02``; inert."""
    text: str
    """Safe to paste: one printable line."""


def confirm_lines(one: Finding) -> list[Command]:
    """The commands, each with the right it needs and where; one that is not safe to paste is left out."""
    texts = [(confirm, shlex.join(confirm.argv)) for confirm in one.confirm]
    safe = [(confirm, text) for confirm, text in texts if is_safe(text)]
    return [
        Command(chr(ord("a") + at), _right(confirm), text) for at, (confirm, text) in enumerate(safe[:26])
    ]


def _right(confirm: Confirm) -> str:
    where, needs = plain(confirm.on, 40), plain(confirm.needs, 12)
    return f"drained {where}" if needs == "drained" else f"{needs}@{where}"


def _command(line: Command, width: int) -> list[Row]:
    head = (Run(f"{line.letter} ", "key"), Run(f"{line.where}  ", "dim"))
    room = width - row_width(head)
    if cell_width(line.text) <= room:
        return [(*head, Run(line.text))]
    return [head, *((Run("  "), *row) for row in wrap(line.text, max(width - 2, 10)))]


# --- as plain text --------------------------------------------------------------------------------------------


def printed(snapshot: Snapshot, item: Item, width: int) -> str:
    """One row as plain lines, for the scrollback: its evidence in numbers, without charts."""
    rows = detail_rows(Detail(snapshot, item, {}, ASCII, "-", width, tall=0, drawn=False))
    return text_of(rows) + "\n"


def markdown(snapshot: Snapshot, one: Finding) -> str:
    """One finding as Markdown, for a ticket."""
    at = time.strftime("%Y-%m-%d %H:%M:%S %Z", time.localtime(snapshot.at))
    since = time.strftime("%Y-%m-%d %H:%M:%S %Z", time.localtime(one.since))
    lines = [
        f"# {inert_markdown(title_words(one))}", "",
        f"`{_code(one.id)}` on {inert_markdown(plain(snapshot.name) or 'the cluster')}, as of {at}: {one.severity.name.lower()}, "
        f"since {'before ' if one.since_bound else ''}{since}, confidence {one.confidence:.2f}.", "",
    ]  # fmt: skip
    if one.cleared_at is not None:
        lines += [f"**Cleared** {time.strftime('%Y-%m-%d %H:%M:%S %Z', time.localtime(one.cleared_at))}.", ""]
    lines += [
        f"- **{label.capitalize()}**: {inert_markdown(text)}" for label, text, _ in act(snapshot, one) if text
    ]
    lines += ["", "## Evidence", "", "| entity | metric | value | held against |", "|---|---|---|---|"]
    lines += [
        f"| {inert_markdown(plain(each.entity, 80))} | {inert_markdown(plain(each.metric, 60))} | {inert_markdown(value_words(each))} | {inert_markdown(held_words(each))} |"
        for each in one.evidence
    ]
    told = list(weighed(snapshot, one))
    if told:
        lines += [
            "",
            "## Weighed",
            "",
            *(f"- **{label.capitalize()}**: {inert_markdown(text)}" for label, text, _ in told),
        ]
    if commands := confirm_lines(one):
        lines += ["", "## Confirm", ""]
        for command in commands:
            lines += [f"{inert_markdown(command.where)}:", "", "```sh", command.text, "```", ""]
    return "\n".join(lines).rstrip() + "\n"


def inert_markdown(text: str) -> str:
    """Inert text in which Markdown and HTML see no markup."""
    return re.sub(r"([\\`*_{}\[\]<>|#~&])", r"\\\1", text)


def _code(text: str) -> str:
    return plain(text, 200).replace("`", "'")
