"""Home: every GPU of the cluster a cell, what the cursor stands on, and what changed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical

from coldaisle.sources.text import clip, plain
from coldaisle.tui.glyphs import UNICODE, Glyphs
from coldaisle.tui.screens.filtered import FilteredScreen
from coldaisle.tui.widgets.header import TopLines
from coldaisle.tui.widgets.heatmap import Heatmap
from coldaisle.tui.widgets.lines import Row, Run, row_width
from coldaisle.tui.widgets.painted import Rows

if TYPE_CHECKING:
    from coldaisle.analyzers.advice.advice import Advice
    from coldaisle.analyzers.finding import Finding
    from coldaisle.analyzers.snapshot import Snapshot
    from coldaisle.sources.cluster import Job
    from coldaisle.tui.advice import Places as AdvicePlaces
    from coldaisle.tui.advice import Touched
    from coldaisle.tui.app import ColdaisleApp
    from coldaisle.tui.cells import CellMetric, Flags
    from coldaisle.tui.tiles import Group, Plan, Zoom

# What draws a snapshot (cells, tiles, picture, cursor, legend) is imported when there is one: the first
# paint does without.
GROUPINGS = ("rack", "node", "job", "model", "partition", "leaf", "user", "account")
BY_JOBS = frozenset({"job", "partition", "user", "account"})
"""Groupings that change with who holds what."""

SIDE_AT, SIDE = 120, 40
"""From this width on a panel of this width stands beside the map."""
FEET = ("rack.power", "node.power", "gpu.power", "node.inlet_temp", "rack.inlet_temp")
"""Of what a line under a rack tells."""
CHANGED = 4
"""Lines that the events would like, with their rule, before the map gets more room than it needs."""
ADVICE_FROM = 14
"""Lines of the terminal under which the line of advice yields to the map."""
WORST = 7
"""The same of the findings, where they stand under the map: a rule, five of them, and how many more there are."""


@dataclass(frozen=True, slots=True)
class Room:
    """How the lines and columns of the terminal are shared out."""

    width: int
    """Of the map."""
    map: int
    """Lines that the map may take."""
    advice: int
    cursor: int
    side: int


def room_of(width: int, height: int, *, side: bool) -> Room:
    """Top 3, legend 1, keys 1, advice 0 or 1, cursor 1 or 2; the rest is the map's and the events'."""
    cursor, advice = 2 if height >= 18 else 1, int(height >= ADVICE_FROM)
    beside = SIDE if side and width >= SIDE_AT else 0
    return Room(width - beside - bool(beside), max(height - 5 - advice - cursor, 1), advice, cursor, beside)


ADVISED = "advice:"
"""What a line's id begins with where it is of an advice, not of a finding."""


class RacksScreen(FilteredScreen):
    """The map of the cluster."""

    TAB = "Racks"
    AUTO_FOCUS = ""
    ROWS, COUNTED, FILTER_BEFORE = "gpu", "GPUs", "#advice"
    FILTER_HINT = "util<5 & power>300, user==kim, r07, r[01-04]n02; Tab completes, Up recalls"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("enter", "open", "Open"),
        Binding("exclamation_mark", "worst", "Worst"),
        Binding("f", "finding", "Its finding", show=False),
        Binding("a", "advice", "Advice"),
        Binding("m", "metric(1)", "Metric"),
        Binding("M", "metric(-1)", "Metric backwards", show=False),
        Binding("g", "group", "Group"),
        Binding("slash", "filter", "Filter"),
        Binding("z", "zoom", "Zoom", show=False),
        Binding("y", "copy", "Copy its name", show=False),
        Binding("p", "print", "Print", show=False),
        Binding("J", "job", "Its job", show=False),
        Binding("r", "light", "Light up its job", show=False),
        Binding("r", "dark", "All jobs again", show=False),
        Binding("escape", "back", "Back", show=False),
        Binding("left,h", "move(-1, 0)", "Left", show=False),
        Binding("right,l", "move(1, 0)", "Right", show=False),
        Binding("up,k", "move(0, -1)", "Up", show=False),
        Binding("down,j", "move(0, 1)", "Down", show=False),
        Binding("pageup", "move(0, -10)", "Ten lines up", show=False),
        Binding("pagedown", "move(0, 10)", "Ten lines down", show=False),
        Binding("home", "edge(0)", "First GPU", show=False),
        Binding("end", "edge(-1)", "Last GPU", show=False),
    ]
    DEFAULT_CSS = """
    RacksScreen #main { height: 1fr; }
    RacksScreen #left { width: 1fr; }
    RacksScreen #legend { height: 1; }
    RacksScreen #changed { height: 1fr; }
    RacksScreen #side { height: 1fr; display: none; margin-left: 1; }
    RacksScreen #advice { height: 1; }
    RacksScreen #advice.no-room { display: none; }
    RacksScreen #cursor { height: 2; }
    """

    def __init__(self) -> None:
        super().__init__()
        self.grouping = GROUPINGS[0]
        self.zoom: Zoom | None = None
        """None: the closest that fits."""
        self.cursor = ""
        """A GPU's key."""
        self._worst = ""
        """Where ``!`` went last: from there it goes on, from elsewhere it begins with the worst."""
        self.finding = ""
        """The id of the finding that ``!`` went to: Enter opens it until the cursor moves."""
        self.advice = ""
        """The same of the advice that ``a`` chose."""
        self._ids: dict[str, list[str]] = {}
        """By the id of a widget: which finding each of its lines is of."""
        self.lit = ""
        """The id of the job whose GPUs alone keep their colours; empty: none."""
        self.advised = ""
        """The same of a piece of advice; never both."""
        self._advice_places: AdvicePlaces | None = None
        self.plan: Plan | None = None
        self.groups: tuple[Group, ...] = ()
        self._planned: tuple[object, ...] = ()
        self._grouped: tuple[object, ...] = ()
        self._matched: Flags | None = None
        self._follow = True

    def body(self) -> ComposeResult:
        with Horizontal(id="main"):
            with Vertical(id="left"):
                yield Heatmap()
                yield Rows(id="legend")
                yield Rows(id="changed")
            yield Rows(id="side")
        yield Rows(id="advice")
        yield Rows(id="cursor")

    @property
    def home(self) -> ColdaisleApp:
        """The app, which holds the metric and the glyphs."""
        from coldaisle.tui.app import ColdaisleApp

        assert isinstance(self.app, ColdaisleApp)
        return self.app

    @property
    def metric(self) -> CellMetric:
        """What the cells show."""
        assert self.home.metric is not None
        return self.home.metric

    def on_resize(self) -> None:
        self._follow = True
        super().on_resize()

    def redraw(self, snapshot: Snapshot) -> None:
        """Everything on the screen, from a snapshot; each widget paints only what differs."""
        from coldaisle.tui.picture import MapView, feet_are_of_gpus, map_rows
        from coldaisle.tui.widgets.legend import legend

        if self.home.metric is None:
            return
        plan, room = self._planned_map(snapshot)
        gpu = self._cursor_index(snapshot)
        shown = min(plan.height, room.map)
        heat = self.query_one(Heatmap)
        heat.styles.height = shown
        heat.styles.width = room.width
        cell = None if gpu is None else self._cell(plan, gpu)
        matched, lit = self._match(snapshot), self._lit(snapshot)
        kept = matched if lit is None else lit if matched is None else matched & lit
        view = MapView(self.groups, plan, self.metric, kept, cell)
        rows, codes = map_rows(snapshot, view, self.glyphs)
        heat.show(rows, self._line_of(plan, gpu) if self._follow else None, shown)
        self._follow = False
        hidden = self._out_of_view(plan, heat.top, shown)
        feet, mono = any(line.is_foot for line in plan.labels), self.home.palette.is_mono
        gpu_feet = feet_are_of_gpus(rows)
        lit_words = self._lit_words(snapshot, room.width)
        words = legend(
            codes, self.metric, plan.zoom, hidden, room.width - row_width(lit_words), feet=feet, gpu_feet=gpu_feet,
            mono=mono, outside="the filter" if lit is None else "the advice" if self.advised else "the job",
        )  # fmt: skip
        self.query_one("#legend", Rows).show([(*lit_words, *words)])
        self._show_changes(snapshot, gpu, room, room.map - shown)
        self._show_advice(snapshot, room)
        self._show_cursor(snapshot, gpu, room)
        self.query_one(TopLines).set_note(self._note(snapshot, plan))

    @property
    def glyphs(self) -> Glyphs:
        """The characters of this terminal."""
        return getattr(self.app, "glyphs", UNICODE)

    def _planned_map(self, snapshot: Snapshot) -> tuple[Plan, Room]:
        """The plan, made again only when the cluster, the size or the choice changed."""
        width, height = self.size
        self._group(snapshot)
        halves = bool(self.glyphs.upper_half) and not self.home.palette.is_mono
        foot = self.grouping == "rack" and any(snapshot.column(key) for key in FEET)
        listed = bool(snapshot.diagnosis.at)
        planned = (self._grouped, width, height, self.zoom, halves, foot, listed)
        if self.plan is None or self._planned != planned:
            self._planned = planned
            self.plan = self._best(width, height, foot=foot, halves=halves, listed=listed)
            self._follow = True
        return self.plan, room_of(width, height, side=self.plan.width < width)

    def _best(self, width: int, height: int, *, foot: bool, halves: bool, listed: bool) -> Plan:
        """With the side panel and lines for findings and events where there is room; without them rather than without titles."""
        from coldaisle.tui.tiles import plan_map

        with_side, without = room_of(width, height, side=True), room_of(width, height, side=False)
        wanted = WORST if listed and not with_side.side else CHANGED
        tries = [
            plan_map(
                self.groups, with_side.width, with_side.map - wanted, self.zoom, foot=foot, halves=halves
            ),
            plan_map(self.groups, with_side.width, with_side.map, self.zoom, foot=False, halves=halves),
            plan_map(self.groups, without.width, without.map, self.zoom, foot=False, halves=halves),
        ]
        return min(tries, key=lambda plan: (plan.height > without.map, plan.zoom))

    def _group(self, snapshot: Snapshot) -> None:
        from coldaisle.tui.tiles import Zoom, groups_of

        slices = self.zoom is Zoom.SLICES
        by_jobs = self.grouping in BY_JOBS
        held = snapshot.gpu_job.tobytes() if by_jobs else b""
        jobs = tuple(job.id for job in snapshot.jobs) if by_jobs else ()
        grouped = (snapshot.layout, self.grouping, slices, held, jobs)
        if self._grouped != grouped:
            self._grouped = grouped
            self.groups = groups_of(snapshot, self.grouping, slices=slices)

    def _match(self, snapshot: Snapshot) -> Flags | None:
        """[gpu] what the filter keeps, a board also for its MIG instances; None: no filter."""
        self._matched = self.kept(snapshot)
        if self._matched is not None:
            from coldaisle.analyzers.selection import with_boards

            self._matched = with_boards(snapshot.layout, self._matched)
            boards = snapshot.layout.boards
            self.tell_kept(int(self._matched[boards].sum()), len(boards))
        return self._matched

    def _lit(self, snapshot: Snapshot) -> Flags | None:
        """[gpu] what the job, or the advice, that is lit up is about; a MIG board with its instances. None: nothing is lit."""
        from coldaisle.tui.advice import flags_of

        if (advice := self._lit_advice(snapshot)) is not None:
            return flags_of(snapshot.layout, self._touched(snapshot)[advice.id].gpus)
        job = self._lit_job(snapshot)
        return None if job is None else flags_of(snapshot.layout, job.gpus)

    def _lit_advice(self, snapshot: Snapshot) -> Advice | None:
        """The advice that is lit up; one that is given no more is so no more."""
        if not self.advised:
            return None
        from coldaisle.tui.advice import find

        one = find(snapshot.counsel, self.advised)
        if one is None:
            self.home.say("that is advised no more")
            self.advised = self.advice = ""
            self.refresh_bindings()
        return one

    def _touched(self, snapshot: Snapshot) -> Mapping[str, Touched]:
        """What each piece of advice is about."""
        if self._advice_places is None:
            from coldaisle.tui.advice import Places

            self._advice_places = Places()
        return self._advice_places.of(snapshot)

    def _lit_job(self, snapshot: Snapshot) -> Job | None:
        """The job that is lit up; one that has ended is so no more."""
        if not self.lit:
            return None
        job = next((job for job in snapshot.jobs if job.id == self.lit), None)
        if job is None and snapshot.live:
            from coldaisle.tui.reading import who_was

            self.home.say(f"{who_was(snapshot, self.lit)} runs no more")
            self.light("")
        return job

    def _lit_words(self, snapshot: Snapshot, width: int) -> Row:
        """In front of the legend: whose cells these are, and how that ends."""
        from coldaisle.tui.reading import job_words

        if self.advised:
            count = len(self._touched(snapshot)[self.advised].gpus)
            words = f"advice: {count} GPU{'s' * (count != 1)}" if count else "advice: no GPU of its own"
            return (Run(words, "match"), Run(" (Esc ends)  ", "dim"))
        job = self._lit_job(snapshot)
        if job is None:
            return ()
        words = f"job {job_words(job)}, {len(job.gpus)} GPU{'s' * (len(job.gpus) != 1)}"
        return (Run(clip(words, max(20, width // 2)), "match"), Run(" (r or Esc ends)  ", "dim"))

    def _cursor_index(self, snapshot: Snapshot) -> int | None:
        """The GPU under the cursor; the first one where it is gone."""
        plan = self.plan
        if plan is None or not len(plan.gpu):
            return None
        index = snapshot.layout.gpu_of.get(self.cursor)
        if index is None:
            index = int(plan.gpu[0])
            self.cursor = snapshot.layout.gpus[index].key
        return index

    def _cell(self, plan: Plan, gpu: int) -> int | None:
        """The cell of a GPU; else of its board, its first slice, or the group that stands for it."""
        from coldaisle.tui.tiles import Zoom

        if self.snapshot is None or (cell := plan.cell_of(gpu)) is not None:
            return cell if self.snapshot else None
        gpus = self.snapshot.layout.gpus
        slices = (
            other for other in self.snapshot.layout.nodes[gpus[gpu].node].gpus if gpus[other].parent == gpu
        )
        kin = {gpu, gpus[gpu].parent, next(slices, gpu)}
        if plan.zoom is Zoom.GROUPS:
            return next(
                (at for at, group in enumerate(self.groups) if any(kin & set(row) for row in group.rows)),
                None,
            )
        return next((cell for one in kin if (cell := plan.cell_of(one)) is not None), None)

    def _line_of(self, plan: Plan, gpu: int | None) -> int | None:
        cell = None if gpu is None else self._cell(plan, gpu)
        return None if cell is None else int(plan.y[cell]) // plan.halves

    def _out_of_view(self, plan: Plan, top: int, shown: int) -> int:
        """GPUs (racks, where a cell is a rack) that stand above or below the lines in view."""
        if plan.height <= shown:
            return 0
        line = plan.y // plan.halves
        return int(((line < top) | (line >= top + shown)).sum())

    def _show_changes(self, snapshot: Snapshot, gpu: int | None, room: Room, lines: int) -> None:
        """The last events; before them, where there is no map, why there is none."""
        from coldaisle.tui.findings import led_to
        from coldaisle.tui.widgets.cursor import section
        from coldaisle.tui.widgets.empty import no_gpu
        from coldaisle.tui.widgets.legend import changes

        rows: list[Row] = [*no_gpu(snapshot, room.width), ()] if gpu is None else []
        lines -= len(rows)
        ids = [""] * len(rows)
        if snapshot.diagnosis.at and not room.side and lines >= 1:
            told = self._worst_first(snapshot, room.width, lines)
            lines -= len(told)
            rows += [row for row, _ in told]
            ids += [key for _, key in told]
        self._ids["changed"] = ids
        if lines >= 2:
            rows.append(section("what changed", room.width, self.glyphs.rule))
            happened = changes(snapshot.events, room.width, lines - 1, snapshot.at, led_to(self.home.stands))
            rows += happened or [(Run("nothing so far", "dim"),)]
        self.query_one("#changed", Rows).show(rows)

    def _worst_first(self, snapshot: Snapshot, width: int, lines: int) -> list[tuple[Row, str]]:
        """The findings under the map: a line each where events have room below them, else as many as fit, and what changed."""
        from coldaisle.tui.findings import worst_first

        standing = self.home.stands
        need = 1 + max(len(standing), 1)
        roomy = lines >= need + 4
        return worst_first(
            snapshot, standing, width, need if roomy else lines, self.glyphs.rule,
            selected=self.finding, changed=not roomy,
        )  # fmt: skip

    def _show_advice(self, snapshot: Snapshot, room: Room) -> None:
        """The line that is always in sight."""
        from coldaisle.tui.advice import line

        row = self.query_one("#advice", Rows)
        row.set_class(not room.advice, "no-room")
        row.show([line(snapshot, self.size.width, self.advised)] if room.advice else [])

    def _show_cursor(self, snapshot: Snapshot, gpu: int | None, room: Room) -> None:
        from coldaisle.tui.widgets.cursor import cursor_lines, side_rows

        lines, side = self.query_one("#cursor", Rows), self.query_one("#side", Rows)
        lines.styles.height = room.cursor
        side.styles.width = room.side
        side.display = bool(room.side)
        if gpu is None:
            lines.show([])
            side.show([])
            return
        now = self.home.now() if snapshot.live else snapshot.at
        lines.show(cursor_lines(snapshot, gpu, self.metric, now, self.size.width))
        if room.side:
            advised = self._side_advice(snapshot, gpu, room.side)
            left = self.size.height - 4 - room.advice - room.cursor - len(advised)
            told = [*self._side_findings(snapshot, room.side, left), *advised]
            self._ids["side"] = [key for _, key in told]
            rest = side_rows(snapshot, gpu, self.metric, now, room.side, self.glyphs.rule)
            side.show([*(row for row, _ in told), *rest])

    def _side_advice(self, snapshot: Snapshot, gpu: int, width: int) -> list[tuple[Row, str]]:
        """Advice for the cursor's rack and for the cluster."""
        from coldaisle.tui.advice import side_lines

        rack = snapshot.layout.nodes[snapshot.layout.gpus[gpu].node].rack
        told = side_lines(
            snapshot, self._touched(snapshot), rack, width, self.glyphs.rule, selected=self.advised
        )
        return [*((row, key and ADVISED + key) for row, key in told), ((), "")]

    def _side_findings(self, snapshot: Snapshot, width: int, lines: int) -> list[tuple[Row, str]]:
        """The findings beside the map, by urgency; the cursor's node has what they leave."""
        from coldaisle.tui.findings import side_lines

        if not snapshot.diagnosis.at:
            return []
        rows = self.home.stands
        return [*side_lines(snapshot, rows, width, lines, self.glyphs.rule, selected=self.finding), ((), "")]

    def _note(self, snapshot: Snapshot, plan: Plan) -> Row:
        """At the right end of line 3: filter, grouping, zoom, metric."""
        from coldaisle.tui.tiles import ZOOM_NAMES, Zoom

        runs: list[Run] = []
        if self.matching.error is not None:
            runs.append(Run(f"filter: {plain(str(self.matching.error))}  ", "bad"))
        elif self._matched is not None:
            boards = snapshot.layout.boards
            count = int(self._matched[boards].sum())
            runs.append(Run(f"{plain(self.filter, 16)}: {count} of {len(boards)} GPUs  ", "match"))
        else:
            runs.append(Run(f"by {self.grouping}  ", "dim"))
        if plan.zoom is not Zoom.TILES:
            runs.append(Run(f"{ZOOM_NAMES[plan.zoom]}  ", "dim"))
        return (*runs, Run(self.metric.label, "title"))

    def action_move(self, dx: int, dy: int) -> None:
        """Move the cursor: a cell sideways, lines up or down."""
        if self.plan is None or self.snapshot is None or (gpu := self._cursor_index(self.snapshot)) is None:
            return
        cell = self._cell(self.plan, gpu)
        self._stand_on(0 if cell is None else self.plan.neighbour(cell, dx, dy))

    def action_edge(self, cell: int) -> None:
        """To the first or the last cell."""
        if self.plan is not None and len(self.plan.gpu):
            self._stand_on(cell)

    def _stand_on(self, cell: int) -> None:
        if self.plan is not None and self.snapshot is not None:
            self.point_at(self.snapshot.layout.gpus[int(self.plan.gpu[cell])].key)

    def point_at(self, gpu: str, finding: str = "", advice: str = "") -> None:
        """Put the cursor on a GPU, by its key, and bring it into view; ``finding``, ``advice``: what Enter opens there."""
        self.cursor, self.finding, self.advice = gpu, finding, advice
        self._follow = True
        self.again()

    def light(self, job: str) -> None:
        """Let only a job's GPUs keep their colours, by its id, and go to the first; empty: all of them again."""
        self.lit, self.advised, self.advice = job, "", ""
        self.refresh_bindings()
        if self.snapshot is None:
            return
        gpus = next((one.gpus for one in self.snapshot.jobs if job and one.id == job), ())
        here = self.snapshot.layout.gpu_of.get(self.cursor)
        if gpus and here not in gpus:
            self.point_at(self.snapshot.layout.gpus[gpus[0]].key)
        else:
            self.again()

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool:
        """r lights up a job, and ends that."""
        return action not in ("light", "dark") or (action == "dark") is bool(self.lit or self.advised)

    def action_light(self) -> None:
        """Light up the job of the GPU under the cursor."""
        from coldaisle.tui.reading import job_index

        if self.snapshot is None or (gpu := self._cursor_index(self.snapshot)) is None:
            return
        if (number := job_index(self.snapshot, gpu)) < 0:
            self.home.say("no job holds this GPU, as far as is known")
        else:
            self.light(self.snapshot.jobs[number].id)

    def action_dark(self) -> None:
        """All jobs again."""
        self.light("")

    def action_advice(self) -> None:
        """Choose the next advice, the one that saves most first: its GPUs alone keep their colours, Enter opens it."""
        if self.snapshot is None:
            return
        from coldaisle.tui.advice import action_words, waiting_words

        given = self.snapshot.counsel.given
        if not given:
            self.home.say(f"advice: {waiting_words(self.snapshot)}")
            return
        ids = [one.id for one in given]
        at = (ids.index(self.advised) + 1) % len(ids) if self.advised in ids else 0
        self.light_advice(ids[at])
        self.home.say(f"{at + 1} of {len(ids)}, most saved first: {action_words(given[at])} (Enter opens it)")

    def light_advice(self, key: str) -> None:
        """Let only the GPUs of a piece of advice keep their colours, by its id, and go to the first of them."""
        self.lit, self.advised = "", key
        self.refresh_bindings()
        if self.snapshot is None:
            return
        layout = self.snapshot.layout
        touched = self._touched(self.snapshot).get(key)
        gpus = () if touched is None else touched.gpus
        here = layout.gpu_of.get(self.cursor)
        self.point_at(layout.gpus[gpus[0]].key if gpus and here not in gpus else self.cursor, advice=key)

    def action_job(self) -> None:
        """Open the job that holds the GPU under the cursor."""
        if self.snapshot is not None and (gpu := self._cursor_index(self.snapshot)) is not None:
            from coldaisle.tui.screens.jobs import open_job

            open_job(self, self.snapshot, gpu)

    async def action_copy(self) -> None:
        """Copy what the cursor stands on: for a shell, a ticket, --focus."""
        from coldaisle.tui import clipboard

        if clipboard.is_safe(self.cursor):
            self.home.say(f"{self.cursor} copied {await clipboard.copy(self.app, self.cursor)}")
        else:
            self.home.say(
                "its name is not safe to paste" if self.cursor else "there is no GPU to copy the name of"
            )

    def action_print(self) -> None:
        """Print the screen to the normal one's scrollback, without colours: every state has its letter."""
        from coldaisle.tui import scrollback

        lines = (strip.text.rstrip() for strip in self._compositor.render_strips())
        self.home.say(scrollback.show(self.app, "\n".join(lines) + "\n"))

    def under_cursor(self) -> str:
        """The key of the GPU under the cursor."""
        return self.cursor

    def action_worst(self) -> None:
        """To the worst finding, again: to the next; without findings to the GPU that most deserves a look."""
        from coldaisle.tui.cells import troubles

        if self.snapshot is None or self.home.metric is None:
            return
        if any(not row.is_cleared for row in self.home.stands):
            self._next_finding(self.snapshot)
            return
        found = troubles(self.snapshot, self.metric)
        if not found:
            self.home.say("no GPU has a value to judge by")
            return
        places = [trouble.gpu for trouble in found]
        here = self.snapshot.layout.gpu_of.get(self.cursor)
        at = 0
        if here in places and self.cursor == self._worst:
            at = (places.index(here) + 1) % len(places)
        self._worst = self.snapshot.layout.gpus[places[at]].key
        self.point_at(self._worst)
        self.home.say(f"{at + 1} of {len(places)}, worst first: {found[at].why}")

    def _next_finding(self, snapshot: Snapshot) -> None:
        from coldaisle.tui.findings import first_gpu, title_words

        rows = [row for row in self.home.stands if not row.is_cleared]
        ids = [row.finding.id for row in rows]
        row = rows[(ids.index(self.finding) + 1) % len(rows) if self.finding in ids else 0]
        gpu = first_gpu(snapshot, row.finding)
        self.point_at(self.cursor if gpu is None else snapshot.layout.gpus[gpu].key, row.finding.id)
        self.home.say(
            f"{row.number} of {len(rows)}, worst first: {title_words(row.finding)} (Enter opens it)"
        )

    def show_finding(self, finding: Finding) -> None:
        """Put the cursor on the first GPU of a finding."""
        from coldaisle.tui.findings import first_gpu

        gpu = None if self.snapshot is None else first_gpu(self.snapshot, finding)
        if self.snapshot is not None and gpu is not None:
            self.point_at(self.snapshot.layout.gpus[gpu].key, finding.id)
        else:
            self.home.say("no GPU of it is known")

    def action_finding(self) -> None:
        """Open what is wrong with the GPU under the cursor."""
        from coldaisle.analyzers.touching import touching

        if self.snapshot is None or (gpu := self._cursor_index(self.snapshot)) is None:
            return
        found = touching(self.snapshot)
        node = self.snapshot.layout.gpus[gpu].node
        one = found.worst(found.gpus, gpu) or found.worst(found.nodes, node)
        if one is None:
            self.home.say("no finding concerns this GPU or its node")
        else:
            self._open_finding(one.id)

    def _open_finding(self, key: str) -> None:
        from coldaisle.tui.screens.triage import TriageScreen

        self.home.action_go("Triage")
        if isinstance(self.app.screen, TriageScreen):
            self.app.screen.stand_on(key)

    def _open_advice(self, key: str = "") -> None:
        """On Sizing, by its id; empty: whichever stands first there."""
        from coldaisle.tui.screens.sizing import SizingScreen

        self.home.action_go("Sizing")
        if key and isinstance(self.app.screen, SizingScreen):
            self.app.screen.stand_on(key)

    def action_metric(self, step: int) -> None:
        """Let the cells show the next metric that has values."""
        from coldaisle.tui.cells import next_metric

        if self.snapshot is None or self.home.metric is None:
            return
        metric = next_metric(self.snapshot, self.metric, step)
        if metric is self.metric:
            self.home.say("no other metric has values")
            return
        self.home.set_metric(metric)
        self.show(self.snapshot)

    def action_group(self) -> None:
        """The next way to put GPUs together."""
        possible = [by for by in GROUPINGS if self.snapshot is not None and _can_group(self.snapshot, by)]
        at = possible.index(self.grouping) if self.grouping in possible else -1
        self.grouping = possible[(at + 1) % len(possible)] if possible else GROUPINGS[0]
        self._follow = True
        self.home.say(f"grouped by {self.grouping}")
        self.again()

    def action_zoom(self) -> None:
        """The next zoom by hand; after the last one the closest that fits."""
        from coldaisle.tui.tiles import ZOOM_NAMES

        zooms = [None, *self._zooms()]
        self.zoom = zooms[(zooms.index(self.zoom) + 1) % len(zooms)] if self.zoom in zooms else None
        self._follow = True
        self.home.say(f"zoom: {'the closest that fits' if self.zoom is None else ZOOM_NAMES[self.zoom]}")
        self.again()

    def _zooms(self) -> list[Zoom]:
        """Those that can be told from each other here."""
        from coldaisle.tui.tiles import Zoom

        halves = bool(self.glyphs.upper_half) and not self.home.palette.is_mono
        layout = self.snapshot.layout if self.snapshot else None
        split = layout is not None and len(layout.boards) != len(layout.gpus)
        return [
            zoom
            for zoom in Zoom
            if (zoom is not Zoom.SLICES or split) and (zoom is not Zoom.HALVES or halves)
        ]

    def action_open(self) -> None:
        """Open the finding that ``!`` went to, or the advice that ``a`` chose, else the node under the cursor."""
        if self.snapshot is None or (gpu := self._cursor_index(self.snapshot)) is None:
            return
        if self.finding:
            self._open_finding(self.finding)
            return
        if self.advice:
            self._open_advice(self.advice)
            return
        from coldaisle.tui.screens.node import NodeScreen

        layout = self.snapshot.layout
        node = layout.nodes[layout.gpus[gpu].node]
        self.app.push_screen(NodeScreen(node.key, gpu - node.gpus.start))

    def action_back(self) -> None:
        """Drop the filter, then the light on a job or an advice; this is home, there is nowhere else to go back to."""
        if self.is_filtering or self.filter:
            super().action_back()
        elif self.lit or self.advised:
            self.action_dark()

    @on(Heatmap.Pointed)
    def _clicked(self, event: Heatmap.Pointed) -> None:
        if self.plan is None or (cell := self.plan.cell_at(event.x, event.y)) is None:
            return
        self._stand_on(cell)
        if event.twice:
            self.action_open()

    @on(Rows.Pointed)
    def _pointed(self, event: Rows.Pointed) -> None:
        """A line of a finding or an advice opens it; the line of advice chooses the next."""
        if event.rows.id == "advice":
            self.action_advice()
            return
        ids = self._ids.get(event.rows.id or "", [])
        if event.line < len(ids) and (key := ids[event.line]):
            if key.startswith(ADVISED):
                self._open_advice(key.removeprefix(ADVISED))
            else:
                self._open_finding(key)


def _can_group(snapshot: Snapshot, by: str) -> bool:
    """Whether anybody tells what GPUs would be put together by."""
    if by == "leaf":
        return any(node.leaf for node in snapshot.layout.nodes)
    if by == "partition":
        nodes = snapshot.layout.nodes
        return any(node.partitions for node in nodes) or any(job.partition for job in snapshot.jobs)
    if by == "account":
        return any(job.account for job in snapshot.jobs)
    return by not in ("job", "user") or snapshot.jobs_known
