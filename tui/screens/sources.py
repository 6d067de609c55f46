"""The Sources screen: what every source delivers, what it does not and why, and what coldaisle itself takes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType

from coldaisle.tui.screens import source_panes as panes
from coldaisle.tui.screens.filtered import FilteredScreen
from coldaisle.tui.widgets.lines import Lines, Row, Run, cut
from coldaisle.tui.widgets.table import Cell, Placed, Table

if TYPE_CHECKING:
    from coldaisle.analyzers.snapshot import Snapshot, SourceView
    from coldaisle.sources.source import Target

PANES = ("Targets", "Metrics", "Names")
MOST_SOURCES = 6
"""Rows of the table of sources; more scroll."""


class SourcesScreen(FilteredScreen):
    """Sources above; targets, metrics or names of nodes below."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("tab", "pane(1)", "Next pane"),
        Binding("shift+tab", "pane(-1)", "Previous pane", show=False),
        Binding("slash", "filter", "Filter", key_display="/"),
        Binding("up,k", "step(-1)", "Up", show=False),
        Binding("down,j", "step(1)", "Down", show=False),
        Binding("pageup", "page(-1)", "Page up", show=False),
        Binding("pagedown", "page(1)", "Page down", show=False),
        Binding("home", "edge(0)", "First", show=False),
        Binding("end", "edge(1)", "Last", show=False),
        Binding("escape", "back", "Back"),
    ]
    TAB = "Sources"
    ROWS, COUNTED = "target", "targets"
    FILTER_HINT = "r07, state!=ok, why~=timeout, latency>1s; Tab completes, Up recalls"
    DEFAULT_CSS = """
    SourcesScreen #cost, SourcesScreen #tabs { height: 1; }
    SourcesScreen #detail { height: 2; }
    SourcesScreen #pane { display: none; }
    """

    def __init__(self) -> None:
        super().__init__()
        self.pane = 0

    def body(self) -> ComposeResult:
        yield Table(panes.SOURCE_COLUMNS, empty="no source is configured", id="sources")
        yield Lines(id="cost")
        yield Lines(id="tabs")
        yield Table(panes.TARGET_COLUMNS, empty="this source has no target", id="targets")
        yield Lines(id="pane")
        yield Lines(id="detail")

    def redraw(self, snapshot: Snapshot) -> None:
        """Fill the tables from a snapshot; only the pane in sight."""
        by_name = {source.name: source for source in snapshot.sources}
        sources = self.query_one("#sources", Table)
        sources.styles.height = 1 + min(MOST_SOURCES, max(1, len(by_name)))

        def cells_of(key: str, placed: Sequence[Placed]) -> Sequence[Cell]:
            cells = panes.source_cells(snapshot, by_name[key])
            return [cells[item.column.key] for item in placed]

        sources.show(list(by_name), cells_of)
        self.query_one("#cost", Lines).show([panes.cost_row(snapshot, self._width)])
        self.query_one("#tabs", Lines).show([self._tabs()])
        source = by_name.get(sources.key or "")
        if self.pane == 0:
            self._show_targets(snapshot, source)
        else:
            fill = panes.metric_pane if self.pane == 1 else panes.name_pane
            rows = fill(snapshot, self._width - 1)  # a cell for the scrollbar
            self.query_one("#pane", Lines).show(rows)
        self._show_detail(snapshot, source)

    def action_pane(self, by: int) -> None:
        """Show targets, metrics or names."""
        self.pane = (self.pane + by) % len(PANES)
        self.query_one("#targets").display = self.pane == 0
        self.query_one("#pane").display = self.pane != 0
        self.query_one("#pane", Lines).scroll_to(y=0, animate=False, force=True)
        self.set_focus(self.query_one("#sources", Table) if self.pane == 0 else None)
        self.call_after_refresh(self.again)

    async def action_filter(self) -> None:
        """Targets are what can be filtered."""
        if self.pane != 0:
            self.action_pane(-self.pane)
        await super().action_filter()

    def action_back(self) -> None:
        """Drop the filter; from the targets to the sources; else leave."""
        if not (self.filter or self.is_filtering) and self.query_one("#targets").has_focus:
            self.query_one("#sources", Table).focus()
        else:
            super().action_back()

    def action_step(self, by: int) -> None:
        """Scroll the pane."""
        self.query_one("#pane", Lines).scroll_relative(y=by, animate=False, force=True)

    def action_page(self, by: int) -> None:
        """Scroll the pane by a screenful."""
        pane = self.query_one("#pane", Lines)
        pane.scroll_relative(y=by * max(1, pane.room.height - 1), animate=False, force=True)

    def action_edge(self, last: int) -> None:
        """Scroll the pane to its beginning or end."""
        pane = self.query_one("#pane", Lines)
        pane.scroll_to(y=len(pane.rows) if last else 0, animate=False, force=True)

    def on_descendant_focus(self) -> None:
        self.again()

    @on(Table.Opened, "#sources")
    def _expand(self) -> None:
        if self.pane == 0:
            self.query_one("#targets", Table).focus()

    @on(Table.Moved)
    def _moved(self) -> None:
        self.again()

    @property
    def _width(self) -> int:
        return max(20, self.query_one("#cost", Lines).room.width)

    def _show_targets(self, snapshot: Snapshot, source: SourceView | None) -> None:
        kept = self._kept_targets(snapshot, source)
        targets = {target.name: target for target in panes.target_order(kept)}

        def cells_of(key: str, placed: Sequence[Placed]) -> Sequence[Cell]:
            cells = panes.target_cells(targets[key])
            return [cells[item.column.key] for item in placed]

        empty = "no target matches the filter" if source and source.targets else "this source has no target"
        self.query_one("#targets", Table).show(list(targets), cells_of, empty=empty)

    def _kept_targets(self, snapshot: Snapshot, source: SourceView | None) -> Sequence[Target]:
        """The source's targets that the filter keeps."""
        if source is None or (wanted := self.kept(snapshot)) is None:
            return source.targets if source else ()
        first = sum(len(other.targets) for other in snapshot.sources[: snapshot.sources.index(source)])
        found = [target for at, target in enumerate(source.targets) if wanted[first + at]]
        self.tell_kept(len(found), len(source.targets))
        return found

    def _show_detail(self, snapshot: Snapshot, source: SourceView | None) -> None:
        """Why and what to do: for the target under the cursor, else for the source."""
        targets = self.query_one("#targets", Table)
        rows: list[Row] = []
        if self.pane == 0 and targets.has_focus:
            rows = panes.target_detail(snapshot, _target(source, targets.key), self._width)
        elif source is not None:
            rows = panes.source_detail(snapshot, source, self._width)
        detail = self.query_one("#detail", Lines)
        detail.styles.height = max(2, len(rows))
        detail.show(rows)

    def _tabs(self) -> Row:
        runs: list[Run] = []
        for at, name in enumerate(PANES):
            runs += [Run(name, "title" if at == self.pane else "dim"), Run("  ")]
        hint = "Enter: into the targets, failing first" if self.pane == 0 else "Tab: next"
        filtered = self.filter_runs() if self.pane == 0 else []
        return cut((*runs, *(filtered or [Run(hint, "dim")])), self._width)


def _target(source: SourceView | None, name: str | None) -> Target | None:
    if source is None:
        return None
    return next((target for target in source.targets if target.name == name), None)
