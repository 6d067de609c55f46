"""The Triage screen: every finding, worst first, and of the one under the cursor why now, what to do, who, and the evidence."""

from __future__ import annotations

import asyncio
import os
import re
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Container

from coldaisle.sources.text import clip, plain
from coldaisle.tui import clipboard, scrollback
from coldaisle.tui.findings import Standing, nothing_found, title_words, warming_words
from coldaisle.tui.glyphs import UNICODE, Glyphs
from coldaisle.tui.screens import triage_panes as panes
from coldaisle.tui.screens import triage_rows as rows
from coldaisle.tui.screens.filtered import FilteredScreen
from coldaisle.tui.screens.series import SeriesScreen
from coldaisle.tui.screens.triage_panes import Detail
from coldaisle.tui.screens.triage_rows import FINDING, NARROW, WIDE, Item
from coldaisle.tui.widgets.header import TopLines
from coldaisle.tui.widgets.lines import Lines, Row, Run, cut
from coldaisle.tui.widgets.table import Cell, Placed, Table

if TYPE_CHECKING:
    from coldaisle.analyzers.snapshot import SeriesAnswer, SeriesQuery, Snapshot
    from coldaisle.tui.app import ColdaisleApp

WIDE_AT = (120, 30)
"""From these columns and lines on the detail stands beside the list."""
PRINTED_WIDTH = 100
ASK_EVERY_S = 10.0
"""A bin of the charts is a minute."""


class FindingTable(Table, inherit_bindings=False):
    """The list. PgUp, PgDn and Enter belong to the screen."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("up,k", "move(-1)", "Previous", show=False),
        Binding("down,j", "move(1)", "Next", key_display="j"),
        Binding("home", "edge(0)", "First", show=False),
        Binding("end", "edge(1)", "Last", show=False),
    ]


class TriageScreen(FilteredScreen, SeriesScreen):
    """Findings with their detail."""

    TAB = "Triage"
    ROWS, COUNTED, FILTER_BEFORE = "finding", "findings", "KeyLine"
    FILTER_HINT = (
        "r07, thermal, kim, urgency==now, owner==facility, cost>5, severity==critical; Tab completes"
    )
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("enter", "open", "On Racks"),
        Binding("a", "acknowledge", "Ack"),
        Binding("z", "snooze", "Snooze"),
        Binding("y", "copy", "Copy"),
        Binding("p", "print", "Print"),
        Binding("x", "export", "Export"),
        Binding("slash", "filter", "Filter", key_display="/"),
        Binding("J", "job", "Its job", show=False),
        Binding("n", "node", "Its node", show=False),
        Binding("exclamation_mark", "worst", "The worst", show=False),
        Binding("pageup", "scroll(-1)", "Detail up", show=False),
        Binding("pagedown,space", "scroll(1)", "Detail down", show=False),
        Binding("escape", "back", "Back"),
    ]
    DEFAULT_CSS = """
    TriageScreen #panes { height: 1fr; layout: vertical; }
    TriageScreen #list { height: 6; }
    TriageScreen #detail { height: 1fr; }
    TriageScreen.wide #panes { layout: horizontal; }
    TriageScreen.wide #list { height: 1fr; }
    TriageScreen.wide #detail { margin-left: 1; }
    """

    def __init__(self, at: str = "") -> None:
        """``at``: the id of a finding that the cursor shall stand on."""
        super().__init__()
        self._wanted = at
        self._items: dict[str, Item] = {}
        self._own_standing = Standing()
        self._answers: dict[str, SeriesAnswer] = {}
        self._answered_for = ""
        self._asked_at = 0.0
        self._asked_for = ""
        self._before = ""
        self._copied = ("", -1)
        """The finding of which a command was copied last, and which."""
        self._has_told = False
        self._tall_for: tuple[str, int, int] = ("", 0, 0)
        self._tall_charts = 0

    def body(self) -> ComposeResult:
        with Container(id="panes"):
            yield FindingTable(NARROW, id="list")
            yield Lines(id="detail")

    def on_mount(self) -> None:
        if (home := self._home) is not None:
            home.acknowledged.look()
        self.query_one(FindingTable).focus()

    def unfiltered_focus(self) -> None:
        """The list."""
        self.query_one(FindingTable).focus()

    @property
    def glyphs(self) -> Glyphs:
        """The characters of this terminal."""
        return getattr(self.app, "glyphs", UNICODE)

    def on_resize(self) -> None:
        width, height = self.size
        is_wide = width >= WIDE_AT[0] and height >= WIDE_AT[1]
        self.set_class(is_wide, "wide")
        table = self.query_one(FindingTable)
        table.set_columns(WIDE if is_wide else NARROW)
        # never by the number of findings: nothing jumps
        table.styles.width = min(max(width * 2 // 5, 46), 76) if is_wide else "1fr"
        table.styles.height = "1fr" if is_wide else min(max(height // 4, 4), 14)
        super().on_resize()

    def redraw(self, snapshot: Snapshot) -> None:
        """The list, and the detail of the row under the cursor."""
        table = self.query_one(FindingTable)
        found = self._found(snapshot)
        shown = rows.with_headings(found) if self.has_class("wide") else found
        self._items = {item.key: item for item in shown}

        def cells_of(key: str, placed: Sequence[Placed]) -> Sequence[Cell]:
            return rows.cells(snapshot, self._items[key], placed)

        empty = (
            "no finding matches the filter" if self.filter.strip() else [nothing_found(snapshot.diagnosis)]
        )
        table.show([item.key for item in shown], cells_of, empty=empty)
        self._stand_where_wanted(table)
        self._skip_heading(table, 1)
        self.query_one(TopLines).set_note(self._note(snapshot))
        self._draw_detail(snapshot)
        key = table.key or ""
        if key != self._asked_for or abs(snapshot.at - self._asked_at) >= ASK_EVERY_S:
            self._asked_for, self._asked_at = key, snapshot.at
            self.ask()
        self._tell_problem()

    def under_cursor(self) -> str:
        """What the finding under the cursor names, else the first of what it is about."""
        from coldaisle.analyzers.touching import Places
        from coldaisle.tui.findings import anchor_of

        item = self._item()
        if item is None or item.finding is None or self.snapshot is None:
            return ""
        one, layout = item.finding, self.snapshot.layout
        anchor, places = anchor_of(one), Places(self.snapshot)
        if (
            anchor in layout.gpu_of
            or anchor in layout.node_of
            or anchor in places.racks
            or anchor in places.servers
        ):
            return anchor
        if (job := f"slurm:{anchor}") in places.jobs or (job := anchor) in places.jobs:
            return job
        scope = one.scope
        return next(iter((*scope.gpus, *scope.nodes, *scope.racks, *scope.jobs, *scope.servers)), "")

    def stand_on(self, finding: str) -> None:
        """Put the cursor on a finding, by its id."""
        self._wanted = finding
        self.again()

    # --- series ------------------------------------------------------------------------------------

    async def _fetch(self) -> None:
        """Ask what the evidence of the finding under the cursor needs, a question a kind of entity."""
        try:
            while self.is_current and self.snapshot is not None:
                self._stale_question = False
                key, snapshot = self.query_one(FindingTable).key or "", self.snapshot
                answers = {}
                for query in self._questions(snapshot):
                    if (answer := await self._answered(query)) is not None:
                        answers[query.keys[0].partition(".")[0]] = answer
                await asyncio.sleep(0)  # a question that needs no answer must not hold the screen
                if not self.is_mounted:
                    return
                if key == (self.query_one(FindingTable).key or ""):
                    self._answers, self._answered_for = answers, key
                    self._draw_detail(self.snapshot)
                else:
                    self._stale_question = True
                if not self._stale_question:
                    return
        finally:
            self._asking = False

    def _questions(self, snapshot: Snapshot) -> list[SeriesQuery]:
        item = self._item()
        if item is None or item.finding is None:
            return []
        columns = max(self.query_one("#detail", Lines).room.width - 30, 10)
        return panes.questions(snapshot, panes.traces(snapshot, item.finding), columns)

    # --- keys --------------------------------------------------------------------------------------

    def action_open(self) -> None:
        """Show the finding on the map."""
        from coldaisle.tui.screens.racks import RacksScreen

        item, home = self._item(), self._home
        if item is None or item.finding is None or home is None:
            self._say("this is of no place on the map")
            return
        home.action_go("Racks")
        if isinstance(home.screen, RacksScreen):
            home.screen.show_finding(item.finding)

    def action_acknowledge(self) -> None:
        """Somebody has it in hand; again: nobody has."""
        self._set_aside(snoozed=False)

    def action_snooze(self) -> None:
        """Not for the next hour; again: for longer, then no more."""
        self._set_aside(snoozed=True)

    async def action_copy(self) -> None:
        """Copy the first command; again: the next."""
        item = self._item()
        commands = panes.confirm_lines(item.finding) if item is not None and item.finding is not None else []
        if item is None or not commands:
            self._say("there is no command to copy here")
            return
        last, number = self._copied
        number = (number + 1) % len(commands) if last == item.key else 0
        self._copied = (item.key, number)
        command = commands[number]
        where = await clipboard.copy(self.app, command.text)
        more = f"; y again: {commands[(number + 1) % len(commands)].letter}" if len(commands) > 1 else ""
        self._say(f"{command.letter} copied {where}{more}: {command.text}")

    def action_print(self) -> None:
        """Print the finding to the normal screen's scrollback."""
        item = self._item()
        if item is None or self.snapshot is None:
            self._say("there is nothing to print")
            return
        width = min(max(self.size.width, 40), PRINTED_WIDTH)
        text = panes.printed(self.snapshot, item, width)
        stamp = time.strftime("%Y-%m-%d %H:%M:%S %Z", time.localtime(self.snapshot.at))
        head = f"coldaisle  {plain(self.snapshot.name)}  {stamp}\n"
        self._say(scrollback.show(self.app, head + text))

    def action_export(self) -> None:
        """Write the finding as Markdown."""
        item = self._item()
        if item is None or item.finding is None or self.snapshot is None:
            self._say("there is no finding here to export")
            return
        text = panes.markdown(self.snapshot, item.finding)
        try:
            path = export(text, item.finding.id, self.snapshot.at)
        except OSError as error:
            self._say(f"not exported: {error.strerror or error}")
            return
        self._say(f"written to {plain(str(path))}")

    def action_job(self) -> None:
        """Open the first job that it touches."""
        from coldaisle.tui.screens.job import JobScreen

        item = self._item()
        jobs = (*item.finding.scope.jobs, *item.finding.victims.jobs) if item and item.finding else ()
        if jobs:
            self.app.push_screen(JobScreen(jobs[0]))
        else:
            self._say("it touches no job, as far as is known")

    def action_node(self) -> None:
        """Open the node of its first GPU."""
        from coldaisle.tui.findings import first_gpu
        from coldaisle.tui.screens.node import NodeScreen

        item = self._item()
        gpu = first_gpu(self.snapshot, item.finding) if item and item.finding and self.snapshot else None
        if gpu is None or self.snapshot is None:
            self._say("no node of it is known")
            return
        layout = self.snapshot.layout
        node = layout.nodes[layout.gpus[gpu].node]
        self.app.push_screen(NodeScreen(node.key, gpu - node.gpus.start))

    def action_worst(self) -> None:
        """Sort anew, and to the first."""
        if self._home is not None and self.snapshot is not None:
            self._home.standing.sort()
            self._home.standing.take(self.snapshot.diagnosis, live=self.snapshot.live)
        self.again()
        self.query_one(FindingTable).action_edge(0)

    def action_scroll(self, by: int) -> None:
        """Scroll the detail by a screenful."""
        detail = self.query_one("#detail", Lines)
        detail.scroll_relative(y=by * max(1, detail.room.height - 1), animate=False, force=True)

    @on(Table.Moved)
    def _moved(self, event: Table.Moved) -> None:
        table = self.query_one(FindingTable)
        keys = table.keys
        down = self._before not in keys or keys.index(event.key) >= keys.index(self._before)
        if self._skip_heading(table, 1 if down else -1):
            return
        self._before = event.key
        self.query_one("#detail", Lines).scroll_to(y=0, animate=False, force=True)
        if self.snapshot is not None:
            self._draw_detail(self.snapshot)
            self._asked_for, self._asked_at = event.key, self.snapshot.at
            self.ask()

    # --- drawing -----------------------------------------------------------------------------------

    @property
    def _home(self) -> ColdaisleApp | None:
        from coldaisle.tui.app import ColdaisleApp

        return self.app if isinstance(self.app, ColdaisleApp) else None

    def _found(self, snapshot: Snapshot) -> list[Item]:
        """The rows, as the filter and what was set aside have them."""
        home = self._home
        standing = home.standing.rows if home is not None else self._own_standing.take(snapshot.diagnosis)
        mask, everything = self.kept(snapshot), (*snapshot.diagnosis.findings, *snapshot.diagnosis.cleared)
        kept = None if mask is None else {one.id for one, yes in zip(everything, mask, strict=True) if yes}
        if kept is not None:
            self.tell_kept(len(kept), len(everything))
        live = snapshot.live and home is not None
        return rows.items(
            snapshot,
            standing,
            lambda one: home.acknowledged.of(one) if live and home is not None else None,
            lambda one: kept is None or one.id in kept,
        )

    def _item(self) -> Item | None:
        item = self._items.get(self.query_one(FindingTable).key or "")
        return None if item is None or item.is_head else item

    def _skip_heading(self, table: Table, by: int) -> bool:
        """Off a heading, onto the next row in a direction; whether there was one to leave."""
        item = self._items.get(table.key or "")
        if item is None or not item.is_head:
            return False
        keys = table.keys
        at = keys.index(item.key)
        ahead = [*keys[at:], *reversed(keys[:at])] if by > 0 else [*reversed(keys[: at + 1]), *keys[at:]]
        target = next((key for key in ahead if not self._items[key].is_head), None)
        if target is None:
            return False
        table.select(target)
        return True

    def _stand_where_wanted(self, table: Table) -> None:
        """Once the finding that was asked for is there, go there."""
        if not self._wanted:
            return
        wanted = FINDING + self._wanted
        known = next((key for key, item in self._items.items() if item.finding is not None and self._wanted in item.finding.supersedes), None)  # fmt: skip
        key = wanted if wanted in self._items else known
        if key is not None:
            self._wanted = ""
            table.select(key)
            table.reveal()

    def _draw_detail(self, snapshot: Snapshot) -> None:
        lines, item = self.query_one("#detail", Lines), self._item()
        width = max(lines.room.width, 20)
        if item is None:
            lines.show(self._without_rows(snapshot, width))
            return
        answers = self._answers if self._answered_for == item.key else {}
        detail = Detail(snapshot, item, answers, self.ink, self.glyphs.rule, width, 0)
        lines.show(panes.detail_rows(detail._replace(tall=self._tall(detail, lines.room.height))))

    def _tall(self, detail: Detail, height: int) -> int:
        """How many charts may be tall so that the commands are still in sight; it stays while the row does."""
        place = (detail.item.key, detail.width, height)
        if self._tall_for != place:
            self._tall_for, self._tall_charts = place, 0
            if detail.width >= panes.TALL_AT and height >= 20 and detail.item.finding is not None:
                most = len(detail.item.finding.evidence)
                fits = (
                    n for n in range(most, 0, -1) if len(panes.detail_rows(detail._replace(tall=n))) <= height
                )
                self._tall_charts = next(fits, 0)
        return self._tall_charts

    def _without_rows(self, snapshot: Snapshot, width: int) -> list[Row]:
        """What has been looked for, and what is still warming up."""
        from coldaisle.tui.widgets.lines import wrap

        diagnosis = snapshot.diagnosis
        found: list[Row] = []
        for words in warming_words(diagnosis):
            found += wrap(f"warming up: {words}", width, "dim")
        if diagnosis.at and not diagnosis.warming and not self.filter.strip():
            found += wrap("every detector has seen enough of the past to tell", width, "dim")
        return found

    def _note(self, snapshot: Snapshot) -> Row:
        """At the right end of line 3: how many there are, alerts that nobody explains, what is warming up."""
        if filtered := self.filter_runs(24):
            return tuple(filtered)
        diagnosis = snapshot.diagnosis
        if not diagnosis.at:
            return (Run("not diagnosed yet", "dim"),)
        aside = self._home.aside if self._home is not None else frozenset()
        runs = [Run(f"{len(diagnosis.findings) - len(aside)} open", "title")]
        if aside:
            runs.append(Run(f"  {len(aside)} ack", "dim"))
        if diagnosis.unexplained:
            runs.append(Run(f"  {len(diagnosis.unexplained)} alerts not expl", "warn"))
        if warming := warming_words(diagnosis):
            runs.append(Run(f"  {len(warming)} warming up", "warn"))
        return cut(tuple(runs), max(self.size.width // 2, 20))

    def _set_aside(self, *, snoozed: bool) -> None:
        item, home = self._item(), self._home
        if item is None or item.finding is None or home is None or self.snapshot is None:
            self._say("only findings can be set aside")
            return
        if not self.snapshot.live or item.finding.cleared_at is not None:
            self._say(
                "it is over"
                if item.finding.cleared_at is not None
                else "in the past there is nothing to set aside"
            )
            return
        kept = home.acknowledged
        done, problem = kept.snooze(item.finding) if snoozed else kept.toggle(item.finding)
        self.again()
        self.query_one(FindingTable).reveal()
        told = f"{clip(title_words(item.finding), 32)}: {done}"
        self._say(f"{problem}; {told}" if problem else told)

    def _tell_problem(self) -> None:
        home = self._home
        if home is not None and not self._has_told and home.acknowledged.problem:
            self._has_told = True
            self._say(home.acknowledged.problem)

    def _say(self, text: str) -> None:
        if (home := self._home) is not None:
            home.say(text)


def export(text: str, finding: str, at: float) -> Path:
    """Write a finding's Markdown: into the current directory, else under the state directory; a file that is there stays.

    Readable by its owner alone: it names users and jobs.
    """
    from platformdirs import user_state_path

    name = re.sub(r"[^A-Za-z0-9._-]+", "-", finding)[:80].strip("-.") or "finding"
    stem = f"{time.strftime('%Y%m%d-%H%M%S', time.localtime(at))}-{name}"
    problem: OSError | None = None
    for folder in (Path.cwd(), user_state_path("coldaisle") / "findings"):
        try:
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            return _written(folder, stem, text)
        except OSError as error:
            problem = problem or error
    assert problem is not None
    raise problem


def _written(folder: Path, stem: str, text: str) -> Path:
    for number in range(1, 100):
        path = folder / (f"{stem}.md" if number == 1 else f"{stem}-{number}.md")
        try:
            handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        except FileExistsError:
            continue
        try:
            with os.fdopen(handle, "w", encoding="utf-8") as file:
                file.write(text)
        except OSError:
            path.unlink(missing_ok=True)
            raise
        return path
    raise FileExistsError(17, f"{stem}.md is there a hundred times")
