"""The three lines at the top of every screen: can I trust it, is my fleet good, where am I."""

from __future__ import annotations

import math
import time
from collections.abc import Collection
from typing import TYPE_CHECKING, Any, NamedTuple

from textual.app import App
from textual.strip import Strip
from textual.timer import Timer
from textual.widget import Widget

from coldaisle.sources.text import plain
from coldaisle.sources.units import age, show
from coldaisle.tui.widgets.lines import Row, Run, cut, row_width
from coldaisle.tui.widgets.painted import painted

if TYPE_CHECKING:
    from coldaisle.analyzers.snapshot import Snapshot, SourceView, Travel
    from coldaisle.tui.cells import CellMetric, Tally


WIDE = 100
"""From this width on the names of the screens stand apart."""


class Tab(NamedTuple):
    """A screen in the line of screens."""

    key: str
    name: str


TABS = (
    Tab("1", "Racks"),
    Tab("2", "Triage"),
    Tab("3", "Jobs"),
    Tab("4", "Nodes"),
    Tab("5", "Serving"),
    Tab("6", "Sizing"),
    Tab("7", "Sources"),
)


class Piece(NamedTuple):
    """A part of a line; where the line is too narrow the highest rank goes first, rank 0 never."""

    rank: int
    row: Row


def fitted(pieces: list[Piece], width: int, gap: str = "  ") -> Row:
    """Pieces side by side in at most ``width`` cells."""
    kept = list(pieces)
    while _joined_width(kept, gap) > width and (last := max((piece.rank for piece in kept), default=0)):
        kept = [piece for piece in kept if piece.rank != last]
    runs: list[Run] = []
    for piece in kept:
        runs += [Run(gap), *piece.row] if runs else piece.row
    return cut(tuple(runs), width)


def _joined_width(pieces: list[Piece], gap: str) -> int:
    return sum(row_width(piece.row) for piece in pieces) + len(gap) * max(len(pieces) - 1, 0)


def trust_line(snapshot: Snapshot | None, name: str, now: float, width: int) -> Row:
    """Line 1: cluster, live or past, clock, age of the data, what answers of what is expected, sources."""
    at = now if snapshot is None or snapshot.live else snapshot.at
    cluster = Run(plain((snapshot.name if snapshot else "") or name or "coldaisle", 24), "title")
    local = time.localtime(at)
    zone = f" {local.tm_zone}" if local.tm_zone else ""
    clock = Piece(4, (Run(time.strftime("%H:%M:%S", local) + zone),))
    if snapshot is not None and not snapshot.live:
        clock = Piece(1, (Run(f"{age(now - at)} ago", "title"),))
    if snapshot is None:
        return fitted([Piece(0, (cluster,)), Piece(0, (Run("connecting", "accent"),)), clock], width)
    utc = time.strftime("(%H:%MZ)", time.gmtime(at)) if local.tm_gmtoff else ""
    seen = snapshot.coverage
    pieces = [
        Piece(0, (cluster,)),
        Piece(0, (_liveness(snapshot, now),)),
        clock,
        Piece(2, _data_age(snapshot, now)),
        Piece(5, _share(snapshot, seen.nodes, seen.nodes_expected, "nodes")),
        Piece(3, _share(snapshot, seen.gpus, seen.gpus_expected, "GPUs")),
    ]
    if beside := _live_beside(snapshot):
        pieces.insert(3, beside)
    whole = [*pieces, *_sources_beside(pieces, snapshot.sources, width)]
    zulu = [Piece(7, (Run(utc, "dim"),))] if utc else []
    return fitted([*whole[:3], *zulu, *whole[3:]], width)


def _live_beside(snapshot: Snapshot) -> Piece | None:
    """In the past: that live goes on, or what is not well there now."""
    if snapshot.live or snapshot.travel is None or not snapshot.travel.live:
        return None
    sick = [(name, state) for name, state in snapshot.travel.live if state not in ("ok", "connecting")]
    if not sick:
        return Piece(7, (Run("live goes on", "dim"),))
    return Piece(4, (Run(f"live: {plain(sick[0][0], 16)} {plain(sick[0][1])}", "warn"),))


def _sources_beside(pieces: list[Piece], sources: tuple[SourceView, ...], width: int) -> list[Piece]:
    """How the sources are, as fully as there is room for; what is not well matters more than how many nodes answer."""
    sick = tuple(source for source in sources if source.state != "ok")
    rank = 1 if sick else 6
    wordings = [(pieces, _sources(sources)), (pieces, _sources(sick))]
    wordings += [([piece for piece in pieces if piece.rank < least], _sources(sick)) for least in (5, 4)]
    for others, row in wordings:
        if row and _joined_width([*others, Piece(rank, row)], "  ") <= width:
            return [Piece(rank, row)]
    return [Piece(rank, row)] if (row := _sources_in_short(sources)) else []


def _liveness(snapshot: Snapshot, now: float) -> Run:
    """Whether this is now or the past; now does not read as fine while nothing answers."""
    if not snapshot.live:
        return Run(f" PAST {_past_instant(snapshot.at, now)} ", "past")
    if not math.isnan(data_age(snapshot, now)):
        return Run("LIVE", "live")
    broken = any(source.state not in ("ok", "connecting") for source in snapshot.sources)
    return (
        Run("LIVE silent", "bad") if broken or not math.isnan(_last_heard(snapshot)) else Run("LIVE", "warn")
    )


def _past_instant(at: float, now: float) -> str:
    """With its zone, and its date unless it is today's: it must not be taken for now."""
    from coldaisle.sources.instants import show_instant

    shown, zone = show_instant(at, now), time.localtime(at).tm_zone
    return shown if not zone or shown.endswith(zone) else f"{shown} {zone}"


def _last_heard(snapshot: Snapshot) -> float:
    """When the newest sample of any source came; NaN: none ever did."""
    return max(
        (source.last_at for source in snapshot.sources if source.last_at is not None), default=math.nan
    )


def _data_age(snapshot: Snapshot, now: float) -> Row:
    seconds = data_age(snapshot, now)
    if math.isnan(seconds):
        silence = (now if snapshot.live else snapshot.at) - _last_heard(snapshot)
        if math.isnan(silence):
            return (Run("no telemetry", "dim") if snapshot.is_jobs_only else Run("no data yet", "warn"),)
        return (Run(f"no data for {age(max(silence, 0.0))}", "bad"),)
    periods = [source.period or source.interval for source in snapshot.sources]
    old = seconds > 3 * max(periods, default=10.0) + 5
    return (Run("data ", "dim"), Run(age(seconds), "warn" if old else "text"))


def data_age(snapshot: Snapshot, now: float) -> float:
    """Seconds since the oldest sample among what is not marked stale or lost; NaN: there is none."""
    import numpy as np

    from coldaisle.analyzers.snapshot import Status

    for seen, status in (
        (snapshot.gpu_seen, snapshot.gpu_status),
        (snapshot.node_seen, snapshot.node_status),
    ):
        fresh = seen[(status == Status.OK) & np.isfinite(seen)]
        if len(fresh):
            return max(0.0, (now if snapshot.live else snapshot.at) - float(fresh.min()))
    return math.nan


def _share(snapshot: Snapshot, seen: int, expected: int, what: str) -> Row:
    """How many answer, of how many; only how many there are, where nobody is asked to measure anything."""
    if snapshot.is_jobs_only:
        return (Run(str(expected)), Run(f" {what}", "dim"))
    return (Run(f"{seen}/{expected}", "text" if seen >= expected else "warn"), Run(f" {what}", "dim"))


def _sources(sources: tuple[SourceView, ...]) -> Row:
    """``ssh+exporters ok  slurm failing``: the healthy ones together, each other one with how it is."""
    healthy = [plain(source.name, 16) for source in sources if source.state == "ok"]
    rest = [source for source in sources if source.state != "ok"]
    runs = [Run("+".join(healthy) + " ", "text"), Run("ok", "ok")] if healthy else []
    for source in rest:
        runs += [Run("  " if runs else ""), Run(f"{plain(source.name, 16)} "), Run(_fare(source), "warn")]
    return tuple(runs)


def _fare(source: SourceView) -> str:
    """How a source that is not well is: where some of its targets deliver, how many of all do."""
    return f"{source.targets_ok}/{len(source.targets)}" if source.state == "partial" else plain(source.state)


def _sources_in_short(sources: tuple[SourceView, ...]) -> Row:
    """``2 sources ok``, or only how those are that are not."""
    rest = sorted({source.state for source in sources if source.state != "ok"})
    if not rest:
        return (Run(f"{len(sources)} sources ", "dim"), Run("ok", "ok")) if sources else ()
    count = sum(source.state != "ok" for source in sources)
    return (Run(f"{count}/{len(sources)} sources ", "dim"), Run("+".join(rest), "warn"))


def travel_line(travel: Travel | None) -> Row:
    """In line 2: why an instant cannot be shown, or what is being read for it."""
    if travel is None:
        return ()
    if travel.problem:
        remedy = (Run(f"  -> {plain(travel.remedy)}", "accent"),) if travel.remedy else ()
        return (Run(plain(travel.problem), "bad"), *remedy)
    if travel.reading is None:
        return ()
    from coldaisle.sources.instants import show_span

    reading = travel.reading
    whose = f" from {', '.join(plain(name, 24) for name in reading.sources)}" if reading.sources else ""
    return (
        Run(f"reading {show_span(reading.start, reading.end)}{whose}", "accent"),
        Run(f"  {reading.share:.0%}", "accent"),
    )


def summary_line(tally: Tally | None, metric: CellMetric | None, width: int, *, known: bool = False) -> Row:
    """How many GPUs work, at what, and what they draw; ``known``: how many are allocated is told already."""
    if tally is None or metric is None:
        return (Run("the first readings are on their way", "dim"),)
    counts = [
        (0, tally.allocated, "allocated", "title") if tally.jobs_known and not known else None,
        (2, tally.free, "free", "free") if tally.jobs_known else None,
        (3, tally.unnamed, "not known whose", "dim") if tally.jobs_known else None,
        (3, tally.drained, "drained", "drained"),
        (3, tally.down, "down", "down"),
        (0, tally.lost, "lost", "bad"),
        (1, tally.stale, "stale", "stale"),
        (4, tally.unseen, "without data yet", "dim"),
    ]
    pieces = [
        Piece(rank, (Run(f"{count} {word}", token),))
        for rank, count, word, token in filter(None, counts)
        if count or word == "allocated"
    ]
    if not tally.jobs_known and not pieces and not tally.powered and math.isnan(tally.mean):
        return (Run("no GPU has a value", "dim"),)
    if not tally.jobs_known:
        pieces.append(Piece(6, (Run("no scheduler is read: which GPUs are held is not known", "dim"),)))
    if not math.isnan(tally.mean):
        whose = "of allocated" if tally.jobs_known else "of all GPUs"
        mean = f"{metric.label} {show_mean(tally.mean, metric)}"
        pieces.append(Piece(0, (Run(mean, "title"), Run(f" {whose}", "dim"))))
    if tally.powered:
        pieces.append(Piece(5, (Run(f"GPUs draw {show(tally.power, 'W')}", "text"),)))
    return fitted(pieces, width)


def fleet_line(
    snapshot: Snapshot | None,
    tally: Tally | None,
    metric: CellMetric | None,
    width: int,
    aside: Collection[str] = (),
) -> Row:
    """Line 2: the share of the allocated GPUs' work that is not lost, what is lost an hour and by what, findings by
    urgency, firing alerts that they explain; while nothing is diagnosed, how many GPUs work at what.

    ``aside``: ids of findings that somebody has in hand; they are counted apart.
    """
    if snapshot is None or not snapshot.diagnosis.at:
        return summary_line(tally, metric, width)
    from coldaisle.tui import findings as told

    diagnosis = snapshot.diagnosis
    others = [*_warming(told.warming_words(diagnosis), width)]
    if row := told.counts(diagnosis.findings, aside):
        others.append(Piece(0, row))
    explained, total = told.pages(diagnosis)
    if total:
        token = "text" if explained == total else "warn"
        others.append(
            Piece(2, (Run("pages ", "dim"), Run(f"{explained}/{total}", token), Run(" expl", "dim")))
        )
    for causes in (4, 3, 2, 1, 0):  # what else is told matters more than what it is lost by
        pieces = [*_useful(snapshot), *_losing(snapshot, causes), *others]
        if _joined_width(pieces, "  ") <= width:
            break
    if not pieces:
        return summary_line(tally, metric, width)
    beside = width - _joined_width(pieces, "  ") - 2
    rest = summary_line(tally, metric, beside, known=True) if beside >= 40 and tally is not None else ()
    return fitted([*pieces, *([Piece(9, rest)] if rest else [])], width)


def _useful(snapshot: Snapshot) -> list[Piece]:
    """``USEFUL 91% of 480 allocated``; while detectors warm up an upper bound."""
    useful = snapshot.diagnosis.usefulness
    if useful is None or math.isnan(useful.useful) or not useful.allocated:
        return []
    share = min(useful.useful, 0.99) if 0.99 < useful.useful < 1.0 else useful.useful
    name = "USEFUL at most " if snapshot.diagnosis.warming else "USEFUL "
    held = "allocated" if snapshot.jobs_known else "in use"
    row = (Run(name, "dim"), Run(f"{share * 100:.0f}%", "title"), Run(f" of {useful.allocated} {held}"))
    return [Piece(0, row)]


def _losing(snapshot: Snapshot, causes: int) -> list[Piece]:
    """``losing 42 GPU.h/h``, with as many of its ``causes`` as asked for: ``: 16 fault, 9.6 loader``."""
    useful = snapshot.diagnosis.usefulness
    if useful is None or not useful.lost > 0:
        return []
    from coldaisle.tui.findings import short_name, whole

    named = [
        f"{whole(value)} {short_name(name)}" for name, value in useful.by_cause[:causes] if value >= 0.05
    ]
    row = (Run("losing ", "dim"), Run(f"{whole(useful.lost)} GPU.h/h", "warn"))
    return [Piece(1, (*row, *([Run(f": {', '.join(named)}", "dim")] if named else [])))]


def _warming(words: list[str], width: int) -> list[Piece]:
    """Which detectors have not seen enough yet, the first by name."""
    if not words:
        return []
    most = 4 if width >= 2 * WIDE else 2 if width >= WIDE else 1
    more = f" +{len(words) - most}" if len(words) > most else ""
    return [Piece(0, (Run("warming up: ", "warn"), Run(f"{', '.join(words[:most])}{more}", "text")))]


def show_mean(value: float, metric: CellMetric) -> str:
    """A mean of a cell metric in its display unit; a ratio in whole per cent."""
    from coldaisle.sources.catalog import catalog

    unit = catalog()[metric.key].unit
    return f"{value * 100:.0f} %" if unit == "ratio" else show(value, unit)


def tab_line(current: str, note: Row, width: int) -> Row:
    """Line 3: the screens, and at the right what this one shows."""
    shape = "{0.key} {0.name}  " if width >= WIDE else "{0.key}{0.name} "
    tabs = tuple(Run(shape.format(tab), _tab_token(tab, current)) for tab in TABS)
    if (room := width - row_width(tabs) - row_width(note)) >= 0:
        return (*tabs, Run(" " * room), *note)
    short = tuple(Run(f"{tab.key}{tab.name} ", _tab_token(tab, current)) for tab in TABS)
    room = width - row_width(short) - row_width(note)
    return cut((*short, Run(" " * max(room, 0)), *note), width)


def _tab_token(tab: Tab, current: str) -> str:
    if tab.name == current:
        return "cursor"
    return "accent"


class TopLines(Widget):
    """Lines 1 to 3. The clock and the age of the data go on between snapshots."""

    DEFAULT_CSS = "TopLines { height: 3; width: 1fr; }"

    def __init__(self, tab: str = "") -> None:
        super().__init__()
        self.tab = tab
        self.note: Row = ()
        self._snapshot: Snapshot | None = None
        self._tally: Tally | None = None
        self._rows: tuple[Row, ...] = ((), (), ())
        self._timer: Timer | None = None

    def on_mount(self) -> None:
        self._timer = self.set_interval(1.0, self.tick)

    def show(self, snapshot: Snapshot) -> None:
        """Take a new snapshot."""
        from coldaisle.tui.cells import tally

        self._snapshot = snapshot
        metric = _metric(self.app)
        self._tally = tally(snapshot, metric) if metric else None
        self.tick()

    def set_note(self, note: Row) -> None:
        """What stands at the right end of line 3."""
        self.note = note
        self.tick()

    def tick(self) -> None:
        """Paint again what changed since the last time."""
        if self.screen.is_current and self._rows != (rows := self._lines()):
            self._rows = rows
            self.refresh()

    def render_line(self, y: int) -> Strip:
        self._rows = self._lines() if not self._rows[0] else self._rows
        return painted(self, self._rows[y] if y < 3 else (), self.size.width)

    def on_resize(self) -> None:
        self._rows = self._lines()
        self.refresh()

    def _lines(self) -> tuple[Row, ...]:
        width = self.size.width
        now: float = getattr(self.app, "now", time.time)()
        name: str = getattr(self.app, "cluster_name", "")
        return (
            trust_line(self._snapshot, name, now, width),
            self._second(width),
            tab_line(self.tab or getattr(self.screen, "TAB", ""), self.note, width),
        )

    def _second(self, width: int) -> Row:
        """How the fleet is; before it, or in its place, how a journey in time stands."""
        travel = self._snapshot.travel if self._snapshot else None
        aside: Collection[str] = getattr(self.app, "aside", ())
        summary = fleet_line(self._snapshot, self._tally, _metric(self.app), width, aside)
        said = travel_line(travel)
        if not said:
            return summary
        return cut(said if travel and travel.problem else (*said, Run("  "), *summary), width)


def _metric(app: App[Any]) -> CellMetric | None:
    """The metric that the app's cells show; None: not chosen yet."""
    return getattr(app, "metric", None)
