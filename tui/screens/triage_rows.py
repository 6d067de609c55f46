"""The rows of the Triage screen: findings by urgency, those set aside, alerts that nobody explains, what has cleared. Pure."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple

from coldaisle.sources.text import plain
from coldaisle.sources.units import age
from coldaisle.tui.findings import (
    URGENCY_TOKENS,
    Stand,
    loss_words,
    owner_words,
    since_words,
    title_words,
    urgency_word,
    where_words,
)
from coldaisle.tui.widgets.lines import Run
from coldaisle.tui.widgets.table import Cell, Column, Placed

if TYPE_CHECKING:
    from coldaisle.analyzers.finding import Finding, Undecided
    from coldaisle.analyzers.snapshot import Snapshot
    from coldaisle.tui.acknowledged import Entry

NARROW = (
    Column("number", "", 2, right=True, keep=0),
    Column("urgency", "", 5, keep=1),
    Column("title", "finding", 24, keep=0, grows=True),
    Column("where", "where", 12, keep=3),
    Column("owner", "whose", 9, keep=5),
    Column("since", "since", 6, right=True, keep=4),
    Column("loss", "GPU.h/h", 7, right=True, keep=2),
)
WIDE = (
    Column("number", "", 2, right=True, keep=0),
    Column("title", "finding", 22, keep=0, grows=True),
    Column("where", "where", 11, keep=3),
    Column("owner", "whose", 9, keep=5),
    Column("since", "since", 6, right=True, keep=4),
    Column("loss", "GPU.h/h", 7, right=True, keep=2),
)
FINDING, ALERT, DOUBT, HEAD = "f:", "a:", "d:", "h:"
"""What the key of a row begins with."""
MOST_DOUBTS = 50


class Item(NamedTuple):
    """A row."""

    key: str
    section: str
    """``NOW``, ``today``, ``later``, ``ack``, ``alert``, ``doubt``, ``clear``."""
    text: str
    """Of a heading, an alert or a doubt; inert."""
    finding: Finding | None = None
    number: int = 0
    entry: Entry | None = None
    doubt: Undecided | None = None

    @property
    def is_head(self) -> bool:
        """Whether it is a heading."""
        return self.key.startswith(HEAD)


HEADINGS = {
    "NOW": "NOW", "today": "TODAY", "later": "LATER", "ack": "ACKNOWLEDGED, SNOOZED",
    "alert": "ALERTS NOT EXPLAINED", "doubt": "CANNOT BE TOLD", "clear": "CLEARED IN THE LAST HOUR",
}  # fmt: skip


def items(
    snapshot: Snapshot,
    standing: Sequence[Stand],
    aside: Callable[[Finding], Entry | None],
    kept: Callable[[Finding], bool],
) -> list[Item]:
    """All rows in their order, without headings."""
    diagnosis = snapshot.diagnosis
    rows: dict[str, list[Item]] = {name: [] for name in HEADINGS}
    shown = set()
    for stand in standing:
        one = stand.finding
        shown.add(one.id)
        if not kept(one):
            continue
        entry = None if stand.is_cleared else aside(one)
        section = "ack" if entry is not None else urgency_word(one.urgency)
        rows.setdefault(section, []).append(Item(FINDING + one.id, section, "", one, stand.number, entry))
    rows["alert"] = [
        Item(ALERT + name, "alert", plain(name, 200)) for name in dict.fromkeys(diagnosis.unexplained)
    ]
    doubts = dict.fromkeys(diagnosis.undecided[:MOST_DOUBTS])
    rows["doubt"] = [
        Item(f"{DOUBT}{number} {doubt.detector}", "doubt", plain(doubt.why, 300), doubt=doubt)
        for number, doubt in enumerate(doubts)
    ]
    rows["clear"] = [
        Item(FINDING + one.id, "clear", "", one)
        for one in diagnosis.cleared
        if one.id not in shown and kept(one)
    ]
    return [item for section in rows.values() for item in section]


def with_headings(found: Sequence[Item]) -> list[Item]:
    """The same, each section under its heading."""
    rows: list[Item] = []
    last = ""
    for item in found:
        if item.section != last:
            last = item.section
            rows.append(Item(HEAD + last, last, HEADINGS.get(last, last)))
        rows.append(item)
    return rows


def cells(snapshot: Snapshot, item: Item, placed: Sequence[Placed]) -> list[Cell]:
    """The cells of a row, for the columns that are shown."""
    made = _of_head(item) if item.is_head else _of_text(item) if item.finding is None else _of_finding(snapshot, item, item.finding)  # fmt: skip
    return [made.get(each.column.key, Run("")) for each in placed]


def _of_head(item: Item) -> dict[str, Cell]:
    return {"title": Run(item.text, "title")}


def _of_text(item: Item) -> dict[str, Cell]:
    from coldaisle.tui.findings import short_name

    if item.doubt is not None:
        return {
            "number": Run("?", "dim"),
            "urgency": Run("?", "dim"),
            "title": Run(f"{short_name(item.doubt.detector)}: {item.text}", "dim"),
        }
    name, _, where = item.text.partition(" ")
    return {
        "number": Run("a", "warn"),
        "urgency": Run("alert", "warn"),
        "title": Run(f"{name}: no finding explains it", "warn"),
        "where": Run(where, "text"),
    }


def _of_finding(snapshot: Snapshot, item: Item, one: Finding) -> dict[str, Cell]:
    is_over = one.cleared_at is not None
    token = "dim" if is_over or item.entry is not None else URGENCY_TOKENS.get(str(one.urgency), "text")
    text = "dim" if is_over or item.entry is not None else "text"
    word = "clear" if is_over else urgency_word(one.urgency)
    if item.entry is not None:
        word = "ack" if item.entry.until is None else "zzz"
    title = title_words(one)
    if item.entry is not None and item.entry.until is not None:
        title = f"{title} (till {_clock(item.entry.until)})"
    since = age(snapshot.at - one.cleared_at) if one.cleared_at is not None else since_words(one, snapshot.at)
    return {
        "number": Run(str(item.number) if item.number else "-", "dim"),
        "urgency": Run(word, token),
        "title": Run(title, text),
        "where": Run(where_words(snapshot, one), text),
        "owner": Run(owner_words(one), "dim"),
        "since": Run(f"{since}", "dim"),
        "loss": Run("over" if is_over else loss_words(one.loss.gpu_hours_per_hour), token),
    }


def _clock(at: float) -> str:
    import time

    return time.strftime("%H:%M", time.localtime(at))
