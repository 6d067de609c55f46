"""What a screen without entities says: why there is nothing, and what to do. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from coldaisle.sources.text import plain
from coldaisle.tui.widgets.lines import Row, Run, wrap

if TYPE_CHECKING:
    from coldaisle.analyzers.snapshot import Snapshot, SourceView
    from coldaisle.sources.source import Target

WAITING = frozenset({"connecting"})
MOST_TARGETS = 3
"""Of a source that fails; the Sources screen has them all."""
MOST_WORDS = 400
"""Characters of a reason that are shown."""


def no_gpu(snapshot: Snapshot, width: int) -> list[Row]:
    """In place of the map: what fails; where all is well, that these sources tell of no GPU."""
    failing = failures(snapshot, width)
    if failing:
        return [_nothing("no GPU is known", snapshot), *failing]
    if any(snapshot.node_status == 1):  # analyzers.snapshot imports numpy: not at the first paint
        return wrap("no source reports GPUs here; 4 shows the nodes", width, "dim")
    return _waiting("no GPU is known", snapshot, width)


def no_node(snapshot: Snapshot, width: int) -> list[Row]:
    """In place of the table of nodes."""
    failing = failures(snapshot, width)
    if failing:
        return [_nothing("no node is known", snapshot), *failing]
    return _waiting("no node is known", snapshot, width)


def failures(snapshot: Snapshot, width: int) -> list[Row]:
    """Each source that is not well, its failing targets with reason and remedy, and where there is more."""
    rows: list[Row] = []
    for source in snapshot.sources:
        if source.state != "ok" and source.state not in WAITING:
            rows += _failure(source, width)
    return [*rows, (), (Run("7", "key"), Run(" Sources has the rest", "dim"))] if rows else []


def _nothing(what: str, snapshot: Snapshot) -> Row:
    return (Run(f"{what} yet" if snapshot.live else f"{what} of that instant; t returns to live", "warn"),)


def _waiting(what: str, snapshot: Snapshot, width: int) -> list[Row]:
    if not snapshot.live:
        return wrap(f"{what} of that instant yet; the past is being read (t returns to live)", width, "dim")
    return wrap(f"{what} yet; the first readings are on their way (7 Sources)", width, "dim")


def _failure(source: SourceView, width: int) -> list[Row]:
    rows: list[Row] = [(), (Run(plain(source.name, 24), "title"), Run(f" {plain(source.state)}", "bad"))]
    sick = [target for target in source.targets if target.state not in ("ok", "connecting")]
    for target in sick[:MOST_TARGETS]:
        rows += _told(target, width)
    if len(sick) > MOST_TARGETS:
        rows.append((Run(f"  and {len(sick) - MOST_TARGETS} more targets", "dim"),))
    if not sick:
        rows += _reasons(source.why, source.remedy, width)
    return rows


def _told(target: Target, width: int) -> list[Row]:
    name = (Run(f"  {plain(target.name, 60)} ", "text"), Run(plain(str(target.state)), "warn"))
    return [name, *_reasons(target.detail, target.remedy, width)]


def _reasons(why: str, remedy: str, width: int) -> list[Row]:
    rows = wrap(f"    {plain(why)[:MOST_WORDS]}", width) if why else []
    return rows + (wrap(f"    -> {plain(remedy)[:MOST_WORDS]}", width, "accent") if remedy else [])
