"""The Sizing screen: how the cluster is used, what to do about it, and what a workload would need."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Container

from coldaisle.sources.text import fit, plain
from coldaisle.tui import clipboard
from coldaisle.tui.advice import action_words, ago_words, span_words, waiting_words
from coldaisle.tui.calculator import (
    MOST_TYPED,
    SERVE,
    Answer,
    Field,
    Form,
    command_of,
    fields_of,
    problem_of,
    what_of,
)
from coldaisle.tui.glyphs import ascii_of
from coldaisle.tui.screens import sizing_panes as panes
from coldaisle.tui.screens.filtered import FilteredScreen
from coldaisle.tui.screens.sizing_panes import GIVEN, SORTS, Item, Seen
from coldaisle.tui.widgets.header import TopLines
from coldaisle.tui.widgets.lines import BLANK, Lines, Row, Run, cut, wrap
from coldaisle.tui.widgets.table import Cell, Placed, Table

if TYPE_CHECKING:
    from coldaisle.analyzers.snapshot import Snapshot
    from coldaisle.sources.settings import ServingSettings
    from coldaisle.tui.app import ColdaisleApp

log = logging.getLogger(__name__)

WIDE_AT = (120, 30)
"""From these columns and lines on the detail stands beside the list."""
ADVICE, CALCULATOR = "Advice", "Calculator"
PANES = (ADVICE, CALCULATOR)
ONLY_ON = {
    "open": ADVICE, "sort": ADVICE, "filter": ADVICE, "turn": CALCULATOR, "edit": CALCULATOR, "fill": CALCULATOR,
    "step": CALCULATOR, "edge": CALCULATOR,
}  # fmt: skip
"""Actions that do something on one pane alone."""
FORM_WIDTH = 46


class AdviceTable(Table, inherit_bindings=False):
    """The list. PgUp, PgDn and Enter belong to the screen."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("up,k", "move(-1)", "Previous", show=False),
        Binding("down,j", "move(1)", "Next", show=False),
        Binding("home", "edge(0)", "First", show=False),
        Binding("end", "edge(1)", "Last", show=False),
    ]


class SizingScreen(FilteredScreen):
    """Utilisations above; advice with its detail, or the calculator, below."""

    TAB = "Sizing"
    ROWS, COUNTED = "advice", "pieces of advice"
    FILTER_HINT = "r07, kim, advice==idle_gpus, grade==A, saved>100; Tab completes, Up recalls"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("enter", "open", "On Racks"),
        Binding("enter", "edit", "Change"),
        Binding("tab", "pane(1)", "Calculator, advice"),
        Binding("shift+tab", "pane(-1)", "The other pane", show=False),
        Binding("left,h", "turn(-1)", "Previous choice", show=False),
        Binding("right,l", "turn(1)", "Next choice", key_display="h/l"),
        Binding("m", "fill", "Measured"),
        Binding("s", "sort", "Sort"),
        Binding("slash", "filter", "Filter", key_display="/"),
        Binding("y", "copy", "Copy"),
        Binding("x", "export", "Export"),
        Binding("up,k", "step(-1)", "Up", show=False),
        Binding("down,j", "step(1)", "Down", show=False),
        Binding("home", "edge(0)", "First", show=False),
        Binding("end", "edge(1)", "Last", show=False),
        Binding("pageup", "scroll(-1)", "Detail up", show=False),
        Binding("pagedown,space", "scroll(1)", "Detail down", show=False),
        Binding("escape", "back", "Back"),
    ]
    DEFAULT_CSS = """
    SizingScreen #use { height: 7; }
    SizingScreen #tabs { height: 1; }
    SizingScreen #panes { height: 1fr; layout: vertical; }
    SizingScreen #list { height: 6; }
    SizingScreen #form { height: 10; display: none; }
    SizingScreen #detail { height: 1fr; }
    SizingScreen.wide #panes { layout: horizontal; }
    SizingScreen.wide #list { height: 1fr; }
    SizingScreen.wide #form { height: 1fr; width: 46; }
    SizingScreen.wide #detail { margin-left: 1; }
    SizingScreen.calculator #list { display: none; }
    SizingScreen.calculator #form { display: block; }
    """

    def __init__(self, at: str = "") -> None:
        """``at``: the id of advice that the cursor shall stand on."""
        super().__init__()
        self.pane = ADVICE
        self.sort = SORTS[0]
        self.form = Form()
        self.answer: Answer | None = None
        self.field = 0
        """Place of the chosen field of the form."""
        self._wanted = at
        self._items: dict[str, Item] = {}
        self._seen = Seen(None, None)
        self._measures = False
        self._filled = -1
        """Which of the measured workloads is filled in; -1: none was yet."""

    def body(self) -> ComposeResult:
        yield Lines(id="use")
        yield Lines(id="tabs")
        with Container(id="panes"):
            yield AdviceTable(panes.COLUMNS, id="list")
            yield Lines(id="form")
            yield Lines(id="detail")

    def on_mount(self) -> None:
        self.query_one(AdviceTable).focus()

    def unfiltered_focus(self) -> None:
        """The list; the calculator's keys are the screen's."""
        self.set_focus(self.query_one(AdviceTable) if self.pane == ADVICE else None)

    def on_resize(self) -> None:
        width, height = self.size
        is_wide = width >= WIDE_AT[0] and height >= WIDE_AT[1]
        self.set_class(is_wide, "wide")
        self.query_one("#use", Lines).styles.height = self._use_lines()
        table = self.query_one(AdviceTable)
        table.styles.width = min(width * 11 // 20, 110) if is_wide else "1fr"
        table.styles.height = "1fr" if is_wide else min(max(height // 4, 4), 12)
        form = self.query_one("#form", Lines)
        form.styles.width = FORM_WIDTH + 20 if is_wide and width >= 160 else FORM_WIDTH if is_wide else "1fr"
        form.styles.height = "1fr" if is_wide else len(SERVE) + 1 if height >= 24 else max(height // 3, 3)
        super().on_resize()

    def redraw(self, snapshot: Snapshot) -> None:
        """Everything in sight, from a snapshot."""
        self.look()
        use = self.query_one("#use", Lines)
        use.show(panes.use_rows(snapshot, self._seen, max(use.room.width, 20), self._use_lines()))
        self.query_one("#tabs", Lines).show([self._tabs(snapshot)])
        self.query_one(TopLines).set_note(self._note(snapshot))
        if self.pane == ADVICE:
            self._show_list(snapshot)
            self._show_detail(snapshot)
        else:
            self._fill_once(snapshot)
            self._show_form()

    def stand_on(self, key: str) -> None:
        """Put the cursor on a piece of advice, by its id."""
        self._wanted = key
        if self.is_mounted:
            self._show_pane(ADVICE)
            self.again()

    # --- what is measured now ----------------------------------------------------------------------

    def look(self) -> None:
        """Measure the four utilisations of this snapshot, off the screen's thread; the last snapshot wins."""
        if not self._measures:
            self._measures = True
            self.run_worker(self._measure(), group="utilisations", exit_on_error=False)

    async def _measure(self) -> None:
        from coldaisle.analyzers.advice.instant import utilisations_now, waiting

        try:
            snapshot = self.snapshot
            while snapshot is not None and self.is_current:
                use = await asyncio.to_thread(utilisations_now, snapshot)
                self._seen = Seen(use.cluster, waiting(snapshot))
                if not self.is_mounted:
                    return
                lines = self.query_one("#use", Lines)
                lines.show(panes.use_rows(snapshot, self._seen, max(lines.room.width, 20), self._use_lines()))
                snapshot = None if self.snapshot is snapshot else self.snapshot
        except Exception:  # supervision: a figure that cannot be had must not end the screen
            log.exception("utilisations could not be measured")
        finally:
            self._measures = False

    # --- keys --------------------------------------------------------------------------------------

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool:
        """Whether a key does anything on the pane in sight."""
        return ONLY_ON.get(action, self.pane) == self.pane

    def action_pane(self, by: int) -> None:
        """Advice, or the calculator."""
        self._show_pane(PANES[(PANES.index(self.pane) + by) % len(PANES)])
        self.again()

    async def action_filter(self) -> None:
        """Advice is what can be filtered."""
        if self.pane != ADVICE:
            self.action_pane(1)
        await super().action_filter()

    def action_open(self) -> None:
        """Light up the GPUs of the advice on the map."""
        from coldaisle.tui.screens.racks import RacksScreen

        item, home = self._item(), self._home
        if item is None or item.given is None or home is None:
            self._say("this is of no place on the map")
            return
        home.action_go("Racks")
        if isinstance(home.screen, RacksScreen):
            home.screen.light_advice(item.given.id)

    def action_sort(self) -> None:
        """By what is saved, by grade, by rule, by where."""
        self.sort = SORTS[(SORTS.index(self.sort) + 1) % len(SORTS)]
        self._say(f"sorted by {'what is saved' if self.sort == SORTS[0] else self.sort}")
        self.again()

    def action_scroll(self, by: int) -> None:
        """Scroll the detail, or the answer, by a screenful."""
        detail = self.query_one("#detail", Lines)
        detail.scroll_relative(y=by * max(1, detail.room.height - 1), animate=False, force=True)

    def action_step(self, by: int) -> None:
        """Choose another field."""
        self.field = min(max(self.field + by, 0), len(fields_of(self.form)) - 1)
        self.again()

    def action_edge(self, last: int) -> None:
        """To the first or the last field."""
        self.field = len(fields_of(self.form)) - 1 if last else 0
        self.again()

    def action_turn(self, by: int) -> None:
        """The next choice of the field; what has none is typed."""
        from coldaisle.tui.calculator import turned

        form = turned(self.form, self._field.key, by)
        if form is self.form:
            self._say(f"{self._field.label} is typed: Enter")
        else:
            self._take(form)

    async def action_edit(self) -> None:
        """Type the field's value."""
        from coldaisle.tui.widgets.askprompt import AskPrompt

        one = self._field
        if self.query(AskPrompt):
            return
        await self.open_prompt(
            AskPrompt(
                one.label,
                self.form.texts[one.key],
                one.help,
                lambda text: problem_of(one, text),
                lambda text: self._take(self.form.put(one.key, text)),
                MOST_TYPED,
            )
        )

    def action_fill(self) -> None:
        """Fill in what is measured; again: the next service."""
        from coldaisle.tui.calculator import measured

        if self.snapshot is None:
            return
        forms = measured(self.snapshot, self._promises)
        if not forms:
            self._say("no service tells its load: nothing can be filled in")
            return
        self._filled = (self._filled + 1) % len(forms)
        self._take(forms[self._filled])
        self._say(f"{self._filled + 1} of {len(forms)}: {forms[self._filled].title}")

    async def action_copy(self) -> None:
        """Copy the line of the advice, or the command that gives the calculator's answer in a shell."""
        item = self._item()
        if self.pane == CALCULATOR:
            text = command_of(self.form)
        else:
            text = action_words(item.given) if item is not None and item.given is not None else ""
        text = ascii_of(plain(text, 400))
        if not clipboard.is_safe(text):
            self._say("there is nothing to copy here")
            return
        where = await clipboard.copy(self.app, text)
        self._say(f"copied {where}: {text}")

    def action_export(self) -> None:
        """Write all advice, or the calculator's answer, as Markdown."""
        from coldaisle.tui.screens.triage import export

        if self.snapshot is None:
            return
        if self.pane == ADVICE:
            text, name = panes.markdown(self.snapshot, self._seen), "advice"
        elif self.answer is not None and self.answer.sheet is not None:
            text, name = panes.sheet_markdown(self.answer.sheet), "sizing"
        else:
            self._say("there is no answer to export")
            return
        try:
            path = export(text, name, self.snapshot.at)
        except OSError as error:
            self._say(f"not exported: {error.strerror or error}")
            return
        self._say(f"written to {plain(str(path))}")

    @on(Table.Moved)
    def _moved(self) -> None:
        self.query_one("#detail", Lines).scroll_to(y=0, animate=False, force=True)
        if self.snapshot is not None:
            self._show_detail(self.snapshot)

    @on(Table.Opened)
    def _opened(self) -> None:
        self.action_open()

    # --- drawing -----------------------------------------------------------------------------------

    @property
    def _home(self) -> ColdaisleApp | None:
        from coldaisle.tui.app import ColdaisleApp

        return self.app if isinstance(self.app, ColdaisleApp) else None

    @property
    def _promises(self) -> ServingSettings | None:
        return None if self._home is None else self._home.serving

    @property
    def _field(self) -> Field:
        known = fields_of(self.form)
        return known[min(self.field, len(known) - 1)]

    def _say(self, text: str) -> None:
        if (home := self._home) is not None:
            home.say(text)

    def _use_lines(self) -> int:
        """Lines for the utilisations: all of them, or two where there is little room, or the calculator needs it."""
        width, height = self.size
        return 7 if width >= 60 and height >= (20 if self.pane == ADVICE else 30) else 2

    def _item(self) -> Item | None:
        return self._items.get(self.query_one(AdviceTable).key or "")

    def _show_pane(self, pane: str) -> None:
        self.pane = pane
        self.set_class(pane == CALCULATOR, "calculator")
        self.query_one("#use", Lines).styles.height = self._use_lines()
        self.query_one("#detail", Lines).scroll_to(y=0, animate=False, force=True)
        self.unfiltered_focus()
        self.refresh_bindings()
        self.call_after_refresh(self.again)

    def _show_list(self, snapshot: Snapshot) -> None:
        table = self.query_one(AdviceTable)
        mask = self.kept(snapshot)
        counsel = snapshot.counsel
        if mask is not None:
            self.tell_kept(int(mask[: len(counsel.given)].sum()), len(counsel.given))
        kept = None if mask is None else [bool(each) for each in mask]
        self._items = {item.key: item for item in panes.items(counsel, kept, self.sort, snapshot)}

        def cells_of(key: str, placed: Sequence[Placed]) -> Sequence[Cell]:
            return panes.cells(snapshot, self._items[key], placed)

        empty = "no advice matches the filter" if self.filter.strip() else "no advice yet"
        table.show(list(self._items), cells_of, sorted_by=_SORTED.get(self.sort), empty=empty)
        if self._wanted and GIVEN + self._wanted in self._items:
            table.select(GIVEN + self._wanted)
            table.reveal()
            self._wanted = ""

    def _show_detail(self, snapshot: Snapshot) -> None:
        lines = self.query_one("#detail", Lines)
        lines.show(panes.detail_rows(snapshot, self._item(), max(lines.room.width - 1, 20)))

    def _tabs(self, snapshot: Snapshot) -> Row:
        runs: list[Run] = []
        for name in PANES:
            runs += [Run(name, "title" if name == self.pane else "dim"), Run("  ")]
        if self.pane == ADVICE and (filtered := self.filter_runs(40)):
            runs += filtered
        elif self.pane == ADVICE:
            runs.append(Run(f"by {'what is saved' if self.sort == SORTS[0] else self.sort} (s)   ", "accent"))
            runs.append(Run(self._looked(snapshot), "dim"))
        else:
            title = (
                self.form.title if what_of(self.form) == "serve" else "nothing of a run to come is measured"
            )
            runs.append(Run(plain(title, 80), "accent"))
        return cut(tuple(runs), max(self.size.width, 20))

    def _looked(self, snapshot: Snapshot) -> str:
        if not snapshot.counsel.at:
            return waiting_words(snapshot)
        return f"from {span_words(snapshot.counsel.span_s)}, {ago_words(snapshot)}"

    def _note(self, snapshot: Snapshot) -> Row:
        counsel = snapshot.counsel
        if not counsel.given:
            return (Run("no advice", "dim"),)
        runs = [Run(f"{len(counsel.given)} to do", "title")]
        if counsel.refused:
            runs.append(Run(f"  {len(counsel.refused)} not sized", "dim"))
        return tuple(runs)

    # --- the calculator ----------------------------------------------------------------------------

    def _fill_once(self, snapshot: Snapshot) -> None:
        """What is measured, the first time that the calculator is seen."""
        if self._filled < 0 and self.answer is None:
            from coldaisle.tui.calculator import measured

            forms = measured(snapshot, self._promises)
            self._filled = 0 if forms else -1
            self.answer = Answer(self.form)
            self._take(forms[0] if forms else self.form)

    def _take(self, form: Form) -> None:
        """Ask another thing; the answer to what was asked before is not waited for."""
        self.form = form
        self.field = min(self.field, len(fields_of(form)) - 1)
        self.run_worker(self._compute(form), group="calculator", exclusive=True, exit_on_error=False)
        if self.is_mounted and self.pane == CALCULATOR:
            self._show_form()
            if self.snapshot is not None:
                self.query_one("#tabs", Lines).show([self._tabs(self.snapshot)])

    async def _compute(self, form: Form) -> None:
        from coldaisle.tui.calculator import answer

        found = await asyncio.to_thread(answer, form)
        if self.is_mounted and form is self.form:
            self.answer = found
            if self.pane == CALCULATOR:
                self._show_form()

    def _show_form(self) -> None:
        lines = self.query_one("#form", Lines)
        width = max(lines.room.width - 1, 20)
        rows = [_field_row(one, self.form, width) for one in fields_of(self.form)]
        lines.show(rows, self.field)
        lines.reveal(self.field)
        detail = self.query_one("#detail", Lines)
        detail.show(self._answer_rows(max(detail.room.width - 1, 20)))

    def _answer_rows(self, width: int) -> list[Row]:
        found = self.answer
        if found is None or found.form is not self.form:
            return [(Run("computing", "dim"),)]
        if found.sheet is not None:
            return panes.sheet_rows(found.sheet, width)
        rows = wrap(found.problem or "computing", width, "bad" if found.problem else "dim")
        return [*rows, *([BLANK, *wrap(f"-> {found.remedy}", width, "accent")] if found.remedy else [])]


_SORTED = {"saved": "saved", "grade": "grade", "rule": "action", "where": "where"}
"""Column of a sort."""


def _field_row(one: Field, form: Form, width: int) -> Row:
    """``requests/s   12.4      measured now``"""
    origin = plain(form.origins[one.key], 80)
    return cut(
        (
            Run(f"{fit(one.label, 12)} ", "dim"),
            Run(fit(plain(form.texts[one.key], 24), 18), "title"),
            Run(f" {origin}", "dim"),
        ),
        width,
    )
