"""The app: which screen is in sight, what the feed brings to it, how it looks, and how it ends."""

from __future__ import annotations

import asyncio
import math
import os
import time
from collections.abc import Callable, Sequence
from importlib import import_module
from typing import TYPE_CHECKING, Any, ClassVar

from rich.console import RenderableType
from rich.segment import Segment
from textual import events
from textual.binding import Binding, BindingType
from textual.color import Color
from textual.command import CommandPalette
from textual.filter import LineFilter
from textual.message import Message
from textual.screen import Screen

from coldaisle.tui import theme
from coldaisle.tui.glyphs import Glyphs, ascii_of, glyphs
from coldaisle.tui.screens.live import LiveScreen
from coldaisle.tui.screens.racks import RacksScreen
from coldaisle.tui.terminal import PacedApp
from coldaisle.tui.widgets.footer import KeyLine
from coldaisle.tui.widgets.header import TABS

if TYPE_CHECKING:
    from textual.command import Provider

    from coldaisle.analyzers.snapshot import Snapshot
    from coldaisle.sources.instants import Instant
    from coldaisle.sources.settings import ServingSettings
    from coldaisle.tui.acknowledged import Acknowledged
    from coldaisle.tui.alarm import Alarm
    from coldaisle.tui.cells import CellMetric
    from coldaisle.tui.feed import Feed
    from coldaisle.tui.findings import Stand, Standing
    from coldaisle.tui.focus import Focus

STEP_S, JUMP_S = 10.0, 600.0
"""How far [ ] and { } go in time. A step is what a past is read in."""
STEPS, JUMPS = Binding.Group("Step"), Binding.Group("10 min")
SETTLE_S = 10.0
"""Rates and profiling need a second sample: so long the default metric may still become a better one."""
SCREENS = {
    "Triage": ("coldaisle.tui.screens.triage", "TriageScreen"),
    "Jobs": ("coldaisle.tui.screens.jobs", "JobsScreen"),
    "Nodes": ("coldaisle.tui.screens.nodes", "NodesScreen"),
    "Serving": ("coldaisle.tui.screens.serving", "ServingScreen"),
    "Sizing": ("coldaisle.tui.screens.sizing", "SizingScreen"),
    "Sources": ("coldaisle.tui.screens.sources", "SourcesScreen"),
}
"""Loaded when they are first opened; Racks is there from the start."""


class AsciiFilter(LineFilter):
    """Everything in ASCII, Textual's own scrollbars, ellipses and icons too."""

    def apply(self, segments: list[Segment], background: Color) -> list[Segment]:
        """Segments in as many cells."""
        return [
            segment if segment.text.isascii() else Segment(ascii_of(segment.text), segment.style)
            for segment in segments
        ]


class SnapshotArrived(Message):
    """The feed has a new picture; an older one that waits is dropped."""

    def __init__(self, snapshot: Snapshot) -> None:
        super().__init__()
        self.snapshot = snapshot

    def can_replace(self, message: Message) -> bool:
        return isinstance(message, SnapshotArrived)


class FeedFailed(Message):
    """The feed is gone and will bring nothing more."""

    def __init__(self, error: BaseException) -> None:
        super().__init__()
        self.error = error


def _commands() -> type[Provider]:
    """Loaded when the palette is opened."""
    from coldaisle.tui.commands import ColdaisleCommands

    return ColdaisleCommands


class ColdaisleApp(PacedApp[None]):
    """The dashboard. Its first paint needs no data; the feed begins after it."""

    TITLE = "coldaisle"
    COMMAND_PALETTE_BINDING = "ctrl+p"
    COMMANDS: ClassVar[set[type[Provider] | Callable[[], type[Provider]]]] = {_commands}
    CSS = """
    Screen { background: $background; color: $foreground; }
    .option-list--option-highlighted:nocolor { text-style: reverse; }
    .-ascii-only CommandPalette #--input { border: none; }
    CommandPalette SearchIcon { display: none; }
    .-ascii-only CommandPalette OptionList { border: none; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        *(Binding(tab.key, f"go('{tab.name}')", tab.name, show=False) for tab in TABS),
        Binding("question_mark", "help", "Help", key_display="?"),
        Binding("colon", "command_palette", "Commands", show=False, key_display=":"),
        Binding("e", "events", "Events", show=False),
        Binding("t", "ask_instant", "Time"),
        Binding("t", "live", "Live"),
        Binding("left_square_bracket", "step(-1)", "A step back", key_display="[", group=STEPS),
        Binding("right_square_bracket", "step(1)", "A step on", key_display="]", group=STEPS),
        Binding("left_curly_bracket", "jump(-1)", "10 minutes back", key_display="{", group=JUMPS),
        Binding("right_curly_bracket", "jump(1)", "10 minutes on", key_display="}", group=JUMPS),
        Binding("T", "next_theme", "Theme", show=False),
        Binding("q", "quit", "Quit", show=False),
        Binding("ctrl+c", "quit", "Quit at once", show=False, priority=True),
        Binding("ctrl+z", "suspend_process", "Suspend", show=False, priority=True),
    ]

    def __init__(
        self,
        feed: Feed,
        *,
        name: str = "",
        theme_name: str = "",
        metric: str = "",
        ascii_only: bool = False,
        clock: Callable[[], float] = time.time,
        no_colour: bool | None = None,
        serving: ServingSettings | None = None,
        at: Instant | None = None,
        focus: str = "",
        bell: bool = True,
    ) -> None:
        """Prepare; nothing is started.

        Args:
            name: of the cluster, until the feed says it.
            theme_name: one of theme.NAMES; empty: dark, or without colours where NO_COLOR is set.
            metric: a key of cells.METRICS that cells show first; empty: what says most, of what there is.
            no_colour: None: as NO_COLOR says.
            serving: what inference services promise; None: nothing.
            at: the past instant to begin with; None: live.
            focus: a host, GPU, job, server, service or finding to open as soon as it is known; empty: none.
            bell: whether a new critical finding rings.
        """
        mono = "NO_COLOR" in os.environ if no_colour is None else no_colour
        super().__init__(ansi_color=True if mono else None)
        self.feed = feed
        self.cluster_name = name
        self.ascii_only = ascii_only
        self.set_class(ascii_only, "-ascii-only")
        self.now = clock
        self.serving = serving
        self.snapshot: Snapshot | None = None
        self.instant = at.at if at else None
        """The past instant that was asked for last; None: live."""
        self.metric: CellMetric | None = None
        self._said_first = at.note if at else ""
        self._focus_name, self._rings = focus, bell
        self._focus: Focus | None = None
        self._alarm: Alarm | None = None
        self._standing: Standing | None = None
        self._acknowledged: Acknowledged | None = None
        self._wanted_metric = metric
        self._metric_settles_at: float | None = None
        self._has_painted = False
        chosen = theme.palette(theme.NO_COLOUR if mono else theme_name or theme.DEFAULT)
        self.register_theme(theme.textual_theme(chosen))
        self._begin_in(chosen)

    @property
    def palette(self) -> theme.Palette:
        """The colours of the moment."""
        return theme.palette(self.theme if self.theme in theme.NAMES else theme.DEFAULT)

    @property
    def glyphs(self) -> Glyphs:
        """The characters of this terminal."""
        return glyphs(ascii_only=self.ascii_only)

    @property
    def standing(self) -> Standing:
        """In which order findings stand, the same on every screen."""
        if self._standing is None:
            from coldaisle.tui.findings import Standing

            self._standing = Standing()
        return self._standing

    @property
    def acknowledged(self) -> Acknowledged:
        """Which findings were set aside; read from the disk when it is first asked for."""
        if self._acknowledged is None:
            from coldaisle.tui.acknowledged import Acknowledged

            self._acknowledged = Acknowledged(clock=self.now)
        return self._acknowledged

    @property
    def aside(self) -> frozenset[str]:
        """Ids of the findings that somebody has in hand; in the past nobody has."""
        if self.snapshot is None or not self.snapshot.live:
            return frozenset()
        open_ones = self.snapshot.diagnosis.findings
        return frozenset(one.id for one in open_ones if self.acknowledged.of(one) is not None)

    @property
    def stands(self) -> tuple[Stand, ...]:
        """The findings of the moment in their places, those that somebody has in hand last."""
        aside = self.aside
        rows = [row._replace(is_aside=row.finding.id in aside) for row in self.standing.rows]
        return tuple(sorted(rows, key=lambda row: row.is_aside))

    def get_line_filters(self) -> Sequence[LineFilter]:
        """Textual's, and where only ASCII is shown, the one that all text passes last."""
        found = super().get_line_filters()
        return [*found, AsciiFilter()] if self.ascii_only else found

    def get_default_screen(self) -> Screen[None]:
        return RacksScreen()

    def on_mount(self) -> None:
        self.theme_changed_signal.subscribe(self, lambda _: self._repaint())

    async def on_unmount(self) -> None:
        await asyncio.to_thread(self.feed.stop)

    async def on_event(self, event: events.Event) -> None:
        """A key ends what the last one had to say."""
        if isinstance(event, events.Key) and not event.is_forwarded and self.screen_stack:
            for line in self.screen.query(KeyLine):
                line.hush()
            self._focus = None  # whoever presses a key has another wish by now
            if self.instant is None and self.snapshot is not None and self.snapshot.travel is not None:
                self.feed.travel(None)  # it was refused, and that has been read
        await super().on_event(event)

    def on_snapshot_arrived(self, message: SnapshotArrived) -> None:
        self.snapshot = message.snapshot
        self._take_travel(message.snapshot)
        self._choose_metric(message.snapshot)
        self._take_findings(message.snapshot)
        if isinstance(self.screen, LiveScreen):
            self.screen.show(message.snapshot)
        if self._focus is not None:
            self._focus.look(self, message.snapshot)

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """t asks for an instant, and in the past returns to live."""
        if action in ("ask_instant", "live"):
            return (action == "live") is (self.instant is not None)
        return super().check_action(action, parameters)

    def go_to(self, at: float | None) -> None:
        """Let every screen show a past instant; None: what is live."""
        self.instant = at
        self.feed.travel(at)
        self.screen.refresh_bindings()

    def on_feed_failed(self, message: FeedFailed) -> None:
        from coldaisle.tui.screens.failure import FailureScreen

        self.push_screen(FailureScreen(message.error))

    def set_metric(self, metric: CellMetric) -> None:
        """Let all cells show another metric."""
        self.metric, self._wanted_metric = metric, metric.key

    def say(self, text: str) -> None:
        """A word in the last line of the screen in sight."""
        for line in self.screen.query(KeyLine):
            line.say(text)

    def action_go(self, name: str) -> None:
        """Open one of the screens; what was opened on top of the old one is closed."""
        if type(self.screen).__name__ == SCREENS.get(name, ("", RacksScreen.__name__))[1]:
            return
        while len(self.screen_stack) > 1:
            self.pop_screen()
        if name in SCREENS:
            module, screen = SCREENS[name]
            self.push_screen(getattr(import_module(module), screen)())

    async def action_ask_instant(self) -> None:
        """Ask for an instant in the last line."""
        from coldaisle.sources.instants import show_instant
        from coldaisle.tui.widgets.timeprompt import TimePrompt

        def go(found: Instant) -> None:
            self.go_to(found.at)
            if found.note:
                self.say(found.note)

        now = self.now()
        if isinstance(self.screen, LiveScreen) and not self.screen.query(TimePrompt):
            await self.screen.open_prompt(TimePrompt(show_instant(self.instant or now, now), go))

    def action_live(self) -> None:
        """Return to live."""
        if self.instant is not None:
            self.go_to(None)
            self.say("live again")

    def action_step(self, by: int) -> None:
        """A step back or on, to where a sample lies."""
        if self.instant is None:
            self.action_shift(by * STEP_S)
        else:
            # the header shows whole seconds: what is less than half of one from a sample is at it
            place, near = self.instant / STEP_S, 0.5 / STEP_S
            whole = math.ceil(place - near) if by < 0 else math.floor(place + near)
            self._move_to((whole + by) * STEP_S)

    def action_jump(self, by: int) -> None:
        """Ten minutes back or on."""
        self.action_shift(by * JUMP_S)

    def action_shift(self, seconds: float) -> None:
        """So many seconds back or on; from live to a whole step."""
        if self.instant is not None:
            self._move_to(self.instant + seconds)
        else:
            self._move_to(math.floor((self.now() + seconds) / STEP_S) * STEP_S)

    def action_command_palette(self) -> None:
        """Commands, and places by name."""
        if not isinstance(self.screen, CommandPalette):
            words = "Search for commands, racks, nodes, GPUs, jobs, services"
            self.push_screen(CommandPalette(placeholder=words, id="--command-palette"))

    def action_events(self) -> None:
        """What happened, that of what the cursor stands on first."""
        from coldaisle.tui.screens.events import EventsScreen

        screen = self.screen
        if isinstance(screen, LiveScreen) and not isinstance(screen, EventsScreen):
            self.push_screen(EventsScreen(screen.under_cursor()))

    def action_help(self) -> None:
        """The keys of this screen, and what the letters mean."""
        from coldaisle.tui.screens.help import HelpScreen

        if not isinstance(self.screen, HelpScreen):
            self.push_screen(HelpScreen())

    def action_next_theme(self) -> None:
        """The next palette."""
        if self.palette.is_mono:
            self.say("without colours there are no palettes")
            return
        names = [name for name in theme.NAMES if name != theme.NO_COLOUR]
        self.theme = names[(names.index(self.theme) + 1) % len(names)]
        self.say(f"theme: {self.palette.title}")

    def _move_to(self, at: float) -> None:
        if at < self.now():
            self.go_to(at)
        else:
            self.say("this is now" if self.instant is None else "later than that is now: t returns to live")

    def _take_findings(self, snapshot: Snapshot) -> None:
        """Give findings their places, and ring for a new critical one."""
        if snapshot.diagnosis.at or self._standing is not None:
            self.standing.take(snapshot.diagnosis, live=snapshot.live)
        if not snapshot.live or not snapshot.diagnosis.at:
            return
        self.acknowledged.follow(snapshot.diagnosis.findings)
        if not self._rings:
            return
        if self._alarm is None:
            from coldaisle.tui.alarm import Alarm

            self._alarm = Alarm(self.now())
        fresh = self._alarm.fresh(snapshot.diagnosis, lambda one: self.acknowledged.of(one) is not None)
        if fresh:
            from coldaisle.tui.findings import title_words, where_words

            self.bell()
            more = f" (+{len(fresh) - 1} more)" if len(fresh) > 1 else ""
            self.say(f"NEW, critical: {title_words(fresh[0])}, {where_words(snapshot, fresh[0])}{more}")

    def _take_travel(self, snapshot: Snapshot) -> None:
        """Where a journey was refused, this is still live."""
        travel = snapshot.travel
        if snapshot.live and travel is not None and travel.problem and travel.wanted == self.instant:
            self.instant = None
            self.screen.refresh_bindings()

    def _begin_in(self, chosen: theme.Palette) -> None:
        """Take a theme before anything is styled; setting ``theme`` would style everything twice."""
        self.set_reactive(ColdaisleApp.theme, chosen.name)
        self.stylesheet.set_variables(self.get_css_variables())
        self.set_class(chosen.dark, "-dark-mode")
        self.set_class(not chosen.dark, "-light-mode")

    def _offer_themes(self) -> None:
        """Our palettes, and only ours: the others know nothing of levels and letters."""
        mono = self.theme == theme.NO_COLOUR
        for name in theme.NAMES:
            if (name == theme.NO_COLOUR) is mono:
                self.register_theme(theme.textual_theme(theme.palette(name)))
        for name in set(self.available_themes) - set(theme.NAMES):
            self.unregister_theme(name)

    def _display(self, screen: Screen[Any], renderable: RenderableType | None) -> None:
        """Begin with the data after the first paint, whichever screen it is of: a key may have come before it."""
        super()._display(screen, renderable)
        if renderable is not None and not self._has_painted:
            self._has_painted = True
            self.call_later(self._start_feed)

    def _start_feed(self) -> None:
        if self.instant is not None:
            self.feed.travel(self.instant)
        if self._said_first:
            self.say(self._said_first)
        if self._focus_name:
            from coldaisle.tui.focus import Focus

            self._focus = Focus(self._focus_name, self.now())
        self.feed.start(
            lambda snapshot: self._post(SnapshotArrived(snapshot)),
            lambda error: self._post(FeedFailed(error)),
        )
        self._offer_themes()

    def _post(self, message: Message) -> None:
        """From any thread; after the end there is nobody to tell."""
        if self.is_running:
            self.post_message(message)

    def _choose_metric(self, snapshot: Snapshot) -> None:
        """Keep the metric while it has values; after the first seconds nothing switches under a reader's eyes."""
        from coldaisle.tui.cells import default_metric, has_values, metric_of

        if self._wanted_metric:
            self.metric = metric_of(self._wanted_metric)
            return
        if self._metric_settles_at is None and snapshot.columns:
            self._metric_settles_at = self.now() + SETTLE_S
        settled = self._metric_settles_at is not None and self.now() > self._metric_settles_at
        if self.metric is None or not settled or not has_values(snapshot, self.metric.key):
            self.metric = default_metric(snapshot)

    def _repaint(self) -> None:
        for widget in self.screen.query("*"):
            widget.refresh()
