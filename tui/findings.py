"""Findings in the words of the screens: where, whose, since when, at what cost; in which order they stand. Pure.

A finding's texts may hold other people's names: everything that leaves here is inert.
"""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, NamedTuple

from coldaisle.sources.text import clip, fit, plain
from coldaisle.tui.reading import entity_words, server_name
from coldaisle.tui.widgets.lines import Row, Run, cut, wrap

if TYPE_CHECKING:
    from coldaisle.analyzers.finding import Diagnosis, Finding, Severity, Urgency
    from coldaisle.analyzers.snapshot import EventView, Snapshot
    from coldaisle.sources.cluster import Job

SHORT: Final[Mapping[str, str]] = {
    "gpu_fault": "fault", "telemetry_gap": "gap", "thermal_throttling": "heat", "idle_allocation": "idle",
    "checkpoint_stall": "checkpoint", "memory_exhaustion": "memory", "data_loader_starvation": "loader",
    "interconnect_degraded": "link", "interconnect_saturation": "network", "straggler": "straggler",
    "communication_stall": "hang", "power_capping": "power cap", "kv_cache_pressure": "KV", "request_queueing": "queue",
}  # fmt: skip
"""Detectors in a word."""
LONG: Final[Mapping[str, str]] = {
    "gpu_fault": "GPU fault", "kv_cache_pressure": "KV cache pressure",
    "data_loader_starvation": "data loader starvation",
}  # fmt: skip
URGENCY_TOKENS: Final = {"now": "bad", "today": "warn", "later": "text"}
CLEARED_STAYS_S = 60.0
"""A finding that clears stays in its place for so long, marked."""
JUMP_S = 300.0
"""Snapshots further apart than this are of another time: nothing keeps its place."""


def short_name(detector: str) -> str:
    """``heat`` of ``thermal_throttling``."""
    return SHORT.get(detector) or plain(detector.replace("_", " "), 16)


def long_name(detector: str) -> str:
    """``thermal throttling``"""
    return LONG.get(detector) or plain(detector.replace("_", " "), 32)


def urgency_word(urgency: Urgency) -> str:
    """``NOW``, ``today``, ``later``."""
    return "NOW" if urgency == "now" else plain(str(urgency), 5)


def severity_token(severity: Severity) -> str:
    """The palette's token."""
    return ("text", "warn", "bad")[int(severity)]


def loss_words(value: float) -> str:
    """GPU-hours an hour in at most 5 cells: ``16.0``, ``0.9``, ``1204``."""
    if math.isnan(value):
        return "-"
    return f"{value:.1f}" if value < 99.95 else f"{value:.0f}" if value < 99_999.5 else f"{value / 1000:.0f}k"


def whole(value: float) -> str:
    """GPU-hours in a header: ``42``, ``9.6``."""
    return f"{value:.1f}" if value < 9.95 else f"{value:.0f}"


def since_words(finding: Finding, now: float) -> str:
    """``03:09``, with the day unless it is today; ``<`` where it may have begun earlier."""
    mark = "<" if finding.since_bound else ""
    return mark + instant_words(finding.since, now)


def instant_words(at: float, now: float) -> str:
    """``03:09``; of another day ``Tue``, ``28 Feb``: never more than 6 cells."""
    local, today = time.localtime(at), time.localtime(now)
    if local[:3] == today[:3]:
        return time.strftime("%H:%M", local)
    return time.strftime("%a" if 0 <= now - at < 6 * 86400 else "%d %b", local)


def anchor_of(finding: Finding) -> str:
    """What a finding's id names: the narrowest common cause."""
    return finding.id.partition(":")[2]


def job_of(snapshot: Snapshot, name: str) -> Job | None:
    """A job that runs, by its id or by what people write."""
    return next((job for job in snapshot.jobs if name in (job.id, job.bare_id)), None)


def where_words(snapshot: Snapshot, finding: Finding) -> str:
    """``r07``, ``r11n02/3``, ``job 4711``, ``chat-70b``: the cause's place."""
    anchor, layout = anchor_of(finding), snapshot.layout
    if anchor in layout.gpu_of or anchor in layout.node_of or anchor in finding.scope.racks:
        return plain(anchor, 40)
    if any(anchor in (job, job.removeprefix("slurm:")) for job in finding.scope.jobs):
        job = job_of(snapshot, anchor)
        return f"job {plain(job.title, 40)}" if job is not None else _job_words(anchor)
    if anchor in finding.scope.servers:
        number = next((at for at, one in enumerate(layout.servers) if one.key == anchor), None)
        return entity_words(anchor) if number is None else server_name(snapshot, number)
    return entity_words(anchor) or "the cluster"


def _job_words(key: str) -> str:
    return entity_words(key) if ":" in key else plain(f"job {key}", 40)


def whose_words(snapshot: Snapshot, finding: Finding) -> str:
    """What stands behind the place: who waits, or whose job it is."""
    victims = len(finding.victims.gpus)
    anchor = anchor_of(finding)
    if victims:
        return f"+{victims} wait"
    if finding.scope.servers and anchor not in finding.scope.servers:
        total = sum(one.service == anchor or one.model == anchor for one in snapshot.layout.servers)
        return f"{len(finding.scope.servers)}/{total} repl" if total else ""
    job = next((job for job in snapshot.jobs if job.id in finding.scope.jobs), None)
    if job is None:
        return ""
    if anchor in (job.id, job.bare_id):
        return plain(job.user, 16)
    more = len(finding.scope.jobs) - 1
    return f"job {plain(job.title, 24)}" + (f" +{more}" if more else "")


def owner_words(finding: Finding) -> str:
    """Whose turn it is, in at most 9 cells."""
    return "owner" if finding.owner == "job owner" else plain(finding.owner, 9)


def title_words(finding: Finding) -> str:
    """Its title, inert."""
    return plain(finding.title, 200)


# --- counts ----------------------------------------------------------------------------------------


def counts(findings: Iterable[Finding], aside: Collection[str] = ()) -> Row:
    """``3 NOW 3 today``; what is for later is not worth a place in a header. ``aside``: ids that somebody has in hand."""
    open_ones = tuple(findings)
    found = Counter(str(one.urgency) for one in open_ones if one.id not in aside)
    in_hand = sum(one.id in aside for one in open_ones)
    runs: list[Run] = []
    for urgency, token in URGENCY_TOKENS.items():
        if found[urgency] and urgency != "later":
            word = "NOW" if urgency == "now" else urgency
            runs += [*([Run(" ")] if runs else []), Run(f"{found[urgency]} {word}", token)]
    if not runs and found["later"]:
        runs.append(Run(f"{found['later']} later", "text"))
    if in_hand:
        runs.append(Run(f"{' ' if runs else ''}{in_hand} ack", "dim"))
    return tuple(runs)


def pages(diagnosis: Diagnosis) -> tuple[int, int]:
    """Firing alerts: how many are explained, of how many."""
    explained = {alert for one in diagnosis.findings for alert in one.explains}
    return len(explained), len(explained | set(diagnosis.unexplained))


def warming_words(diagnosis: Diagnosis) -> list[str]:
    """``heat 3/8 polls``, a detector each, the one that needs longest last."""
    found = sorted(diagnosis.warming, key=lambda one: one.need - one.have if one.unit == "s" else 0.0)
    return [
        f"{short_name(one.detector)} {one.have // 1:.0f}/{one.need:.0f} {plain(one.unit, 6)}" for one in found
    ]


def steps(remedy: str) -> list[str]:
    """What to do, in order: the parts of a remedy between semicolons."""
    return [part.strip() for part in plain(remedy).split(";") if part.strip()]


def first_gpu(snapshot: Snapshot, finding: Finding) -> int | None:
    """The GPU that a map shows for a finding: its first, else the first of its nodes, else of who suffers."""
    from coldaisle.analyzers.touching import Places

    places, layout = Places(snapshot), snapshot.layout
    for scope in (finding.scope, finding.victims):
        reach = places.reach(scope)
        if reach.gpus:
            return reach.gpus[0]
        spans = [layout.nodes[node].gpus for node in sorted(reach.nodes)]
        spans += [layout.racks[rack].gpus for rack in sorted(reach.racks)]
        if found := next((span for span in spans if len(span)), None):
            return found.start
    return None


def led_to(stands: Sequence[Stand]) -> Callable[[EventView], int]:
    """The number of the finding that an event may have led to: of several the one that began next to it; 0: none."""
    from coldaisle.analyzers.circumstances import leading_to

    known = [(leading_to(one.finding.scope, one.finding.since), one) for one in stands if not one.is_cleared]

    def number(event: EventView) -> int:
        found = [one for is_one, one in known if is_one(event)]
        return min(found, key=lambda one: abs(one.finding.since - event.at)).number if found else 0

    return number


# --- the order on the screen -----------------------------------------------------------------------


class Stand(NamedTuple):
    """A finding in its place."""

    finding: Finding
    number: int
    """As it is called on every screen; 0: it has cleared."""
    is_aside: bool = False
    """Whether somebody has it in hand: it was acknowledged or snoozed."""

    @property
    def is_cleared(self) -> bool:
        """Whether it is over, and only shown so that it does not vanish under the cursor."""
        return self.finding.cleared_at is not None


@dataclass(slots=True)
class Standing:
    """In which order findings stand: by urgency, then by what they cost when they came. Rows keep their place.

    One for all screens, so that a finding has the same number on each.
    """

    rows: tuple[Stand, ...] = ()
    _order: list[str] = field(default_factory=list)
    _known: dict[str, Finding] = field(default_factory=dict)
    """The last that was seen of each id in ``_order``."""
    _at: float = 0.0

    def take(self, diagnosis: Diagnosis, *, live: bool = True) -> tuple[Stand, ...]:
        """The rows for a diagnosis."""
        if not live or abs(diagnosis.at - self._at) > JUMP_S:
            self.sort()
        self._at = diagnosis.at
        found = {one.id: one for one in diagnosis.findings}
        self._renamed(found)
        gone = {
            one.id: one for one in diagnosis.cleared
            if one.id in self._known and one.id not in found
            and diagnosis.at - (one.cleared_at or 0.0) <= CLEARED_STAYS_S
        }  # fmt: skip
        kept = [key for key in self._order if key in found or key in gone]
        self._order = _placed(kept, list(found.values()), {**gone, **found}, self._known)
        self._known = {key: found.get(key) or gone[key] for key in self._order}
        number, rows = 0, []
        for key in self._order:
            number += key in found
            rows.append(Stand(self._known[key], number if key in found else 0))
        self.rows = tuple(rows)
        return self.rows

    def sort(self) -> None:
        """Forget the places: the next rows stand as they weigh then."""
        self._order, self._known = [], {}

    def _renamed(self, found: Mapping[str, Finding]) -> None:
        """A finding that was regrouped takes the place of what it was before."""
        for one in found.values():
            if one.id in self._known:
                continue
            old = next((key for key in one.supersedes if key in self._known and key not in found), None)
            if old is not None:
                self._order[self._order.index(old)] = one.id
                self._known[one.id] = self._known.pop(old)


def _placed(
    kept: Sequence[str],
    found: Sequence[Finding],
    standing: Mapping[str, Finding],
    before: Mapping[str, Finding],
) -> list[str]:
    """The ids in order: known ones as they stood, unless their urgency changed; new ones where they weigh."""
    order = [key for key in kept if _rank(standing[key]) == _rank(before[key])]
    here = set(order)
    for one in found:
        if one.id in here:
            continue
        later = (
            at for at, key in enumerate(order)
            if (_rank(standing[key]), -standing[key].loss.gpu_hours_per_hour) > (_rank(one), -one.loss.gpu_hours_per_hour)
        )  # fmt: skip
        order.insert(next(later, len(order)), one.id)
    return order


def _rank(finding: Finding) -> int:
    return {"now": 0, "today": 1}.get(str(finding.urgency), 2)


def mark_of(snapshot: Snapshot, kind: str, index: int) -> Run:
    """The worst finding that touches an entity: its letter and its detector in a word; nothing where there is none.

    Args:
        kind: ``gpus``, ``nodes``, ``jobs`` or ``servers``.
        index: of the entity in Layout, or in Snapshot.jobs.
    """
    from coldaisle.analyzers.touching import touching
    from coldaisle.tui.cells import letter_of

    found = touching(snapshot)
    hits = getattr(found, kind).get(index, ())
    if not hits:
        return Run("")
    one = found.findings[hits[0].finding]
    more = f" +{len(hits) - 1}" if len(hits) > 1 else ""
    if hits[0].is_victim:
        return Run(f"w {short_name(one.detector)}{more}", "waits")
    return Run(f"{letter_of(one.detector)} {short_name(one.detector)}{more}", severity_token(one.severity))


# --- rows under and beside the map ------------------------------------------------------------------


def worst_first(
    snapshot: Snapshot, rows: Sequence[Stand], width: int, lines: int, rule: str, *, selected: str = "",
    changed: bool = True,
) -> list[tuple[Row, str]]:  # fmt: skip
    """A heading and the findings, a line each with its id; at the end how many more there are, and what changed.

    Args:
        lines: that may be taken, with the heading.
        selected: the id of the finding that Enter opens.
        changed: whether the last line tells what changed.
    """
    place, when = (34, 7) if width >= 100 else (18, 6)
    title = max(width - 9 - place - 1 - when - 1 - 7, 8)
    found = [] if lines == 1 else [(_table_head(width, 9 + title, rule), "")]
    room = lines - len(found)
    if not rows:
        return [*found, (cut(nothing_found(snapshot.diagnosis), width), "")][:lines]
    foot = lines > 1 and (changed or len(rows) > room)
    shown = rows[: max(room - foot, 0)]
    for row in shown:
        line = _line(snapshot, row, title, place, when, marked=row.finding.id == selected)
        found.append((cut(line, width), row.finding.id))
    if foot:
        found.append((_foot(snapshot, rows, len(rows) - len(shown), width, changed=changed), ""))
    return found


def _table_head(width: int, at: int, rule: str) -> Row:
    """``── worst first ──── scope ──── GPU.h/h``; ``at``: where the scopes begin."""
    cost = " GPU.h/h"
    first = f"{rule * 2} worst first ".ljust(at - 1, rule)[: at - 1]
    middle = f"{first} scope ".ljust(max(width - len(cost), 0), rule)[: max(width - len(cost), 0)]
    return cut((Run(middle + cost, "rule"),), width)


def _foot(snapshot: Snapshot, rows: Sequence[Stand], more: int, width: int, *, changed: bool) -> Row:
    """``+2 more   CHANGED 03:03 r07 inlet rises``"""
    runs = [Run(f"+{more} more (2)   ", "accent")] if more else []
    taken = sum(len(run.text) for run in runs) + 8
    if changed and (story := changes_of(snapshot, [row.finding for row in rows], width - taken)):
        runs += [Run("CHANGED ", "title"), Run(story, "text")]
    return tuple(runs)


def _line(snapshot: Snapshot, row: Stand, title: int, place: int, when: int, *, marked: bool) -> Row:
    one = row.finding
    where = "  ".join(filter(None, (where_words(snapshot, one), whose_words(snapshot, one))))
    number = f"{row.number:>2}" if row.number else " -"
    if row.is_cleared:
        words = f"{number} clear {fit(title_words(one), title - 1)} {fit(where, place)} {'over':>{when}}"
        return (Run(words, "dim"),)
    token = "dim" if row.is_aside else URGENCY_TOKENS.get(str(one.urgency), "text")
    text = "dim" if row.is_aside else "text"
    word = "ack" if row.is_aside else urgency_word(one.urgency)
    return (
        Run(f"{number} ", "cursor" if marked else "dim"),
        Run(f"{word:<6}", token),
        Run(
            fit(title_words(one), title - 1) + " ",
            "title" if one.urgency == "now" and not row.is_aside else text,
        ),
        Run(fit(where, place) + " ", text),
        Run(fit(since_words(one, snapshot.at), when, right=True) + " ", "dim"),
        Run(f"{loss_words(one.loss.gpu_hours_per_hour):>7}", token),
    )


def nothing_found(diagnosis: Diagnosis) -> Row:
    """Why the list is empty: nothing is wrong, or nothing could be found yet."""
    if not diagnosis.at:
        return (Run("the diagnosis has not begun", "dim"),)
    if diagnosis.warming:
        return (
            Run("nothing found yet; warming up: ", "warn"),
            Run(", ".join(warming_words(diagnosis)), "dim"),
        )
    return (Run("nothing is wrong, as far as is known", "ok"),)


def changes_of(snapshot: Snapshot, findings: Sequence[Finding], width: int) -> str:
    """What happened just before the findings, newest findings first, as much as fits: ``03:03 r07 inlet rises``."""
    newest = sorted((one for one in findings if one.cleared_at is None), key=lambda one: -one.since)
    told = list(dict.fromkeys(plain(text, 60) for one in newest for text in one.changed[-2:]))
    line = ""
    for text in told:
        longer = f"{line}   {text}" if line else text
        if len(longer) > width:
            break
        line = longer
    return line or (clip(told[0], max(width, 0)) if told else "")


def side_lines(
    snapshot: Snapshot, rows: Sequence[Stand], width: int, lines: int, rule: str, *, selected: str = ""
) -> list[tuple[Row, str]]:  # fmt: skip
    """For a panel beside the map: NOW, TODAY, LATER, ACKNOWLEDGED, two lines a finding (one, where there is little room), each with its
    id; then the alerts that nobody explains."""
    diagnosis = snapshot.diagnosis
    alerts = _alert_lines(diagnosis, width, rule)
    room = max(lines - len(alerts), 3)
    found: list[tuple[Row, str]] = []
    if not rows:
        text = "".join(run.text for run in nothing_found(diagnosis))
        token = nothing_found(diagnosis)[0].token
        found += [
            (_heading("FINDINGS", "", width, rule), ""),
            *((row, "") for row in wrap(text, width, token)),
        ]
    for each in (2, 1):
        told = _side_findings(snapshot, rows, width, rule, each, selected)
        if len(told) <= room:
            break
    if len(told) > room:
        left = len({key for _, key in told[room - 1 :] if key} - {key for _, key in told[: room - 1]})
        told = [*told[: room - 1], ((Run(f"+{left} more (2 Triage)", "accent"),), "")]
    return [*found, *told, *((row, "") for row in alerts)]


def _heading(name: str, tail: str, width: int, rule: str) -> Row:
    return (
        Run(f"{name} ", "title"),
        Run(rule * max(width - len(name) - 1 - (len(tail) + 1 if tail else 0), 0), "rule"),
        *([Run(f" {tail}", "dim")] if tail else []),
    )


def _side_findings(
    snapshot: Snapshot, rows: Sequence[Stand], width: int, rule: str, each: int, selected: str
) -> list[tuple[Row, str]]:
    found: list[tuple[Row, str]] = []
    last = None
    for row in rows:
        one, is_dim = row.finding, row.is_cleared or row.is_aside
        heading = "ACKNOWLEDGED" if row.is_aside else str(one.urgency).upper()
        if heading != last:
            tail = "GPU.h/h lost" if last is None else ""
            found.append((_heading(heading, tail, width, rule), ""))
            last = heading
        token = "dim" if is_dim else URGENCY_TOKENS.get(str(one.urgency), "text")
        number = f"{row.number:>2}" if row.number else " -"
        cost = "over" if row.is_cleared else loss_words(one.loss.gpu_hours_per_hour)
        found.append((
            (
                Run(number, "cursor" if one.id == selected else "dim"),
                Run(" " + fit(title_words(one), width - 9), "dim" if is_dim else "text"),
                Run(f"{cost:>6}", token),
            ),
            one.id,
        ))  # fmt: skip
        if each == 2:
            where = "  ".join(filter(None, (where_words(snapshot, one), whose_words(snapshot, one))))
            since = f"since {since_words(one, snapshot.at)}"
            found.append(((Run("   " + fit(where, width - 4 - len(since)) + " " + since, "dim"),), one.id))
    return found


def _alert_lines(diagnosis: Diagnosis, width: int, rule: str) -> list[Row]:
    explained, total = pages(diagnosis)
    if not total:
        return []
    tail = "NOT:" if diagnosis.unexplained else ""
    head = (
        Run(f"PAGES {total} firing, {explained} explained", "title"),
        Run(f"; {tail}" if tail else "", "warn"),
    )
    names = ", ".join(plain(name, 40) for name in diagnosis.unexplained)
    return [head, *([(Run("  " + clip(names, width - 2), "warn"),)] if names else [])]
