"""The help screen: the keys as the screens bind them, the legend of the cells, and where to look next."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, ClassVar, NamedTuple

from textual.app import ComposeResult
from textual.binding import Binding, BindingType

from coldaisle.sources.text import fit
from coldaisle.tui.cells import MARKS, cell_metrics
from coldaisle.tui.screens.live import LiveScreen
from coldaisle.tui.widgets.lines import BLANK, Lines, Row, Run, wrap

if TYPE_CHECKING:
    from textual.screen import Screen

    from coldaisle.analyzers.snapshot import Snapshot

OURS = "coldaisle."
"""Only keys that our own classes bind are explained."""

TRUST: tuple[str, ...] = (
    "A value is shown with the instant it was sampled. Older than three periods of its source it is stale: its cell "
    "turns to ?, its colour fades, and its age is shown. After a longer silence the node is lost.",
    "A dash means that there is no value. It never means 0. The line of the cursor, and the pane Values of the Node "
    "screen, say why: not supported by this part, not exported by this exporter, not permitted for our user, not yet "
    "sampled, the GPU is lost, or the node does not answer.",
    "Where two sources measure the same thing, the probe is believed before an exporter, and that before Prometheus. "
    "It changes only when the better one is stale.",
)
TIME: tuple[str, ...] = (
    "t asks for an instant (03:12, yesterday 03:12, 2026-03-01T03:12:00Z, 2h ago); every screen then shows what was "
    "so at that instant, under PAST in inverse. In the past only t returns to live; Esc only goes back.",
    "Only sources that remember have a past; the others are called live only. What is known of now alone "
    "(processes, jobs of a scheduler that is read live) is left out.",
)
NEXT: tuple[tuple[str, str], ...] = (
    (
        "what is wrong",
        "Racks lists it worst first; ! goes there, Enter opens it on Triage (2): why now, what to do, who, evidence, commands",
    ),
    (
        "is it this GPU",
        "f on Racks opens the finding that concerns it, its node, or whoever it waits for",
    ),
    (
        "nothing is listed",
        "Triage says which detectors are warming up, what cannot be told, and which alerts nobody explains",
    ),
    (
        "what to do about it all",
        "the line ADVICE on Racks; a chooses it and lights its GPUs, Enter opens it on Sizing (6) with its grounds",
    ),
    ("how many are needed", "Sizing, Tab: the calculator, filled in with the load that is measured"),
    ("what was it like then", "t and the instant; [ ] go 10 s, { } 10 minutes, on every screen"),
    (
        "a GPU looks idle",
        "Enter on it: GPUs over time; then Host (CPU, pressure, disks) and Links of its node",
    ),
    (
        "a GPU is slow",
        "Enter: its clock and what holds it back (SW thermal, HW thermal, power cap, power brake)",
    ),
    ("a GPU is lost", "Enter, then Events: the XID and when; Facts: which board stands in that slot"),
    (
        "a whole rack differs",
        "m changes the metric: temperature, power, clock; the rack's inlet is on each node's Host",
    ),
    (
        "a service is slow",
        "Serving: s until the SLO comes first, Enter for its replicas, Enter again for charts; r shows its GPUs on Racks",
    ),
    ("a number is missing", "Sources, pane Metrics: which metric comes from where, and why it is missing"),
    ("a node is missing", "Sources, pane Names: expected but never heard, silent, or matched to no node"),
    ("a source fails", "Sources, Enter on it: its targets, the failing ones first, each with its remedy"),
    (
        "a host by name",
        ": opens the palette; type a part of a host's, rack's, GPU's, job's or service's name",
    ),
)

FINDINGS: tuple[str, ...] = (
    "A rack's ! says that something in it needs somebody now, or is lost; * that something needs somebody today, or is stale. "
    "Findings keep their place and number while their values change; one that is over stays a minute, then it stands "
    "under what has cleared.",
    "USEFUL is the share of the allocated GPUs' work that no finding takes away; while detectors warm up it is an upper "
    "bound. pages 6/8 expl: six of eight firing alerts are explained by findings.",
    "a acknowledges a finding until it ends or becomes worse, z snoozes it for 1, 4, 24 hours; both are kept for all your "
    "dashboards. The bell rings once for a finding that is new and critical (--no-bell).",
)

ADVICE: tuple[str, ...] = (
    "Four utilisations are told apart: allocated of installed, busy (a kernel resident) of allocated, active (SMs with work) of "
    "busy, achieved FLOP/s and bytes/s of the peak while busy. A figure in brackets is the interval it lies in four times of five.",
    "Grades: A as good as counted, B well measured, C estimated, D a guess that names what would settle it. What is not sized "
    "says what it lacks; advice is made once a minute, from the last hour, of live pictures alone.",
)

FILTER: tuple[tuple[str, str], ...] = (
    (
        "r07 r08",
        "a part of a name: any of them; r0*, r[01-04]n02; elsewhere than on Racks also a job, a user, a state, what happened",
    ),
    (
        "util<5 & power>300",
        "< <= > >= == != with units as they are shown: mem>70GiB, mem>90%, left<30m, node.power>8kW",
    ),
    (
        "user==kim | state==drain",
        "texts, r0* and node sets; ~= and !~ take a regular expression: node~=n0[12]$",
    ),
    (
        "! ( ) and or not",
        "!(rack==r07) & temp>=80; what is missing or stale is neither; missing(power) finds it",
    ),
    (
        "of what",
        "a row with any GPU that matches is kept; status is the row's own, gpu.status that of its GPUs",
    ),
    (
        "findings",
        "finding==thermal_throttling, severity==critical on every screen; on Triage also urgency==now, owner==fabric, cost>5",
    ),
    (
        "advice",
        "on Sizing: advice==idle_gpus, grade==A, saved>100 (GPU-hours a week), and where it applies: r07, kim",
    ),
    ("while typing", "Tab completes fields and values, Up and Down bring back what was typed before"),
)


class Key(NamedTuple):
    """A key and what it does where help was asked for."""

    keys: str
    does: str


class HelpScreen(LiveScreen):
    """Explains the screen it was opened from."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("up,k", "scroll(-1)", "Up", show=False),
        Binding("down,j", "scroll(1)", "Down", show=False),
        Binding("pageup", "page(-1)", "Page up", key_display="PgUp"),
        Binding("pagedown,space", "page(1)", "Page down", key_display="PgDn"),
        Binding("home", "edge(0)", "First", show=False),
        Binding("end", "edge(1)", "Last", show=False),
        Binding("escape,question_mark", "back", "Back"),
    ]

    def __init__(self, about: Screen[object] | None = None) -> None:
        super().__init__()
        self.about = about

    def body(self) -> ComposeResult:
        yield Lines(id="help")

    def on_mount(self) -> None:
        if self.about is None and len(self.app.screen_stack) > 1:
            self.about = self.app.screen_stack[-2]
        self.again()

    def redraw(self, snapshot: Snapshot | None) -> None:
        """The whole text, for the width there is."""
        view = self.query_one("#help", Lines)
        view.show(self.rows(max(20, view.room.width)))

    def again(self) -> None:
        """Help needs no snapshot."""
        if self.is_mounted:
            self.redraw(self.snapshot)

    def rows(self, width: int) -> list[Row]:
        """Keys of the screen that help was asked for, keys everywhere, the legend, and where to look next."""
        here = keys_of(screen_classes(self.about)) if self.about is not None else []
        everywhere = keys_of([type(self.app)])
        rows = [*section(f"Keys on {title_of(self.about)}", key_rows(here, width))] if here else []
        rows += section("Keys everywhere", key_rows(everywhere, width))
        rows += section("Cells", legend_rows(width))
        rows += section("Findings", paragraphs(FINDINGS, width))
        rows += section("Advice", paragraphs(ADVICE, width))
        rows += section("Filter (/)", [row for pair in FILTER for row in entry(*pair, 26, width)])
        rows += section("Time", paragraphs(TIME, width))
        rows += section("What to trust", paragraphs(TRUST, width))
        return rows + section("Where to look next", [row for pair in NEXT for row in entry(*pair, 22, width)])

    def action_scroll(self, by: int) -> None:
        """Scroll by rows."""
        self.query_one("#help", Lines).scroll_relative(y=by, animate=False, force=True)

    def action_page(self, by: int) -> None:
        """Scroll by a screenful."""
        view = self.query_one("#help", Lines)
        view.scroll_relative(y=by * max(1, view.room.height - 1), animate=False, force=True)

    def action_edge(self, last: int) -> None:
        """Scroll to the beginning or the end."""
        view = self.query_one("#help", Lines)
        view.scroll_to(y=len(view.rows) if last else 0, animate=False, force=True)


def screen_classes(screen: Screen[object] | None) -> list[type]:
    """The classes whose keys work on a screen: the screen's own, then those of its widgets that take the focus."""
    if screen is None:
        return []
    widgets = [type(widget) for widget in screen.query("*") if widget.can_focus]
    return list(dict.fromkeys([type(screen), *widgets]))


def keys_of(classes: Iterable[type]) -> list[Key]:
    """Every key that our own classes bind, as Textual would dispatch it: the first to bind a key has it."""
    seen: set[str] = set()
    found: list[Key] = []
    for owner in classes:
        for binding in bindings_of(owner):
            keys = [key for key in binding.key.split(",") if key not in seen]
            if keys and binding.description:
                seen.update(keys)
                found.append(Key(" ".join(display(key, binding) for key in keys), binding.description))
    return found


def bindings_of(owner: type) -> Iterator[Binding]:
    """The bindings that a class and its own ancestors declare, the most special first."""
    for ancestor in owner.__mro__:
        if ancestor.__module__.startswith(OURS):
            for binding in ancestor.__dict__.get("BINDINGS", ()):
                yield binding if isinstance(binding, Binding) else Binding(*binding)


def display(key: str, binding: Binding) -> str:
    """A key as it stands on a keyboard: ``Ctrl+P``, ``PgUp``, ``/``."""
    if binding.key_display and "," not in binding.key:
        return binding.key_display
    prefix, _, last = key.rpartition("+")
    name = _NAMES.get(last, last if len(last) == 1 else last.replace("_", " ").capitalize())
    if prefix:
        return f"{prefix.capitalize()}+{name.upper() if len(name) == 1 else name}"
    return name


_NAMES = {
    "slash": "/",
    "colon": ":",
    "question_mark": "?",
    "exclamation_mark": "!",
    "plus": "+",
    "minus": "-",
    "equals_sign": "=",
    "left_curly_bracket": "{",
    "right_curly_bracket": "}",
    "left_square_bracket": "[",
    "right_square_bracket": "]",
    "pageup": "PgUp",
    "pagedown": "PgDn",
    "escape": "Esc",
}


def title_of(screen: Screen[object] | None) -> str:
    """What a screen is called: ``Nodes`` of NodesScreen."""
    return "" if screen is None else type(screen).__name__.removesuffix("Screen")


def section(name: str, rows: Sequence[Row]) -> list[Row]:
    """Rows under a heading, with a blank row behind."""
    return [(Run(name, "title"),), *rows, BLANK]


def key_rows(keys: Sequence[Key], width: int) -> list[Row]:
    """Keys in as many columns as fit."""
    column = 38
    columns = max(1, width // column)
    lines = -(-len(keys) // columns)
    rows: list[Row] = []
    for line in range(lines):
        runs: list[Run] = []
        for key in keys[line::lines]:
            runs += [Run(f" {fit(key.keys, 15)} ", "key"), Run(fit(key.does, column - 18))]
        rows.append(tuple(runs))
    return rows


def legend_rows(width: int) -> list[Row]:
    """What a cell's digit, letter and colour mean, from the tables that draw the cells."""
    scale = (Run(" "), *(Run(str(min(level, 9)), f"cell{level}") for level in range(11)))
    named = ", ".join(f"{metric.label} ({metric.extent})" for metric in cell_metrics())
    first, *rest = wrap(f"a value from low to high; on Racks m chooses of what: {named}", max(10, width - 15))
    rows: list[Row] = [(*scale, Run("  "), *first), *((Run(" " * 14), *row) for row in rest)]
    return rows + [
        (Run(" "), Run(mark.letter, f"cell.{mark.token}"), Run(f" {mark.meaning}")) for mark in MARKS
    ]


def paragraphs(texts: Sequence[str], width: int) -> list[Row]:
    """Texts, each wrapped, one after the other."""
    return [row for text in texts for row in wrap(text, width)]


def entry(name: str, text: str, column: int, width: int) -> list[Row]:
    """A term and its explanation, hanging."""
    first, *rest = wrap(text, max(10, width - column - 2))
    pad = " " * (column + 1)
    return [(Run(" " + fit(name, column), "accent"), *first), *((Run(pad), *row) for row in rest)]
