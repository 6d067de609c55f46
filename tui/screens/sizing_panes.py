"""What the Sizing screen says, as rows of runs: the four utilisations, advice at length, what the calculator answers. Pure."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Final, NamedTuple

from coldaisle.sources.text import cell_width, fit, plain
from coldaisle.tui.advice import (
    GRADE_TOKENS,
    GRADES,
    action_words,
    quantity_words,
    rule_words,
    saved_words,
    saving_words,
    span_words,
    waiting_words,
    who_words,
)
from coldaisle.tui.figures import interval, number
from coldaisle.tui.widgets.lines import BLANK, Row, Run, cut, wrap
from coldaisle.tui.widgets.table import Cell, Column, Placed

if TYPE_CHECKING:
    from coldaisle.analyzers.advice.advice import Advice, Counsel, Ground, Refused
    from coldaisle.analyzers.advice.instant import Waiting
    from coldaisle.analyzers.advice.utilisation import Measured, Use
    from coldaisle.analyzers.sizing.sheet import Section, Sheet
    from coldaisle.analyzers.snapshot import Snapshot

COLUMNS: Final = (
    Column("number", "", 2, right=True, keep=0),
    Column("action", "advice", 40, keep=0, grows=True),
    Column("where", "where", 16, keep=5),
    Column("quantity", "how many", 21, keep=4),
    Column("saved", "GPU.h/wk", 8, right=True, keep=1),
    Column("grade", "", 1, keep=2),
)
GIVEN, REFUSED = "a:", "r:"
"""What the key of a row begins with."""
SORTS: Final = ("saved", "grade", "rule", "where")
MOST_REFUSED = 50
LABEL: Final = 9
ALL_THERE: Final = 0.995
"""Coverage from which on nothing lacks."""
FOUR: Final = (
    ("allocated", "allocated", "held by jobs, of installed"),
    ("busy", "busy", "with a kernel, of allocated"),
    ("active", "active", "SMs at work, of busy"),
    ("flops", "achieved FLOP/s", "of the peak, while busy"),
    ("bandwidth", "achieved bytes/s", "of the peak, while busy"),
)
"""The four utilisations (achieved is two): field of Use, name, what it is a share of."""


class Seen(NamedTuple):
    """The utilisations of now and of the window, and what waits."""

    now: Use | None
    """None: being made."""
    waiting: Waiting | None


# --- the four utilisations ---------------------------------------------------------------------------


def use_rows(snapshot: Snapshot, seen: Seen, width: int, lines: int) -> list[Row]:
    """The four utilisations, now and over the window, and what is reclaimable and short; in few lines as one sentence."""
    over = snapshot.counsel.utilisations.cluster
    last = reclaim_row(snapshot, seen, width)
    if lines < 7:
        return [_in_short(seen, over, width), last][: max(lines, 1)]
    window = span_words(snapshot.counsel.span_s) if snapshot.counsel.at else "window"
    head = f"{'':17}{'now':>6}  {f'last {window}':<15} of what"
    rows: list[Row] = [cut((Run(head, "dim"),), width)]
    rows += [_use_row(seen.now, over, each, width) for each in FOUR]
    return [*rows, last]


def _use_row(now: Use | None, over: Use, each: tuple[str, str, str], width: int) -> Row:
    field, name, what = each
    here: Measured | None = getattr(now, field) if now is not None else None
    there: Measured = getattr(over, field)
    value, token = _share(here)
    runs = [Run(fit(name, 17), "title"), Run(f"{value:>6}", token), Run("  ")]
    why = "" if here is None or here.ratio is not None else here.why
    if there.ratio is not None:
        runs.append(Run(fit(_bounded(there), 15), "text"))
        lacking = f", {there.coverage * 100:.0f} % there" if there.coverage < ALL_THERE else ""
        runs.append(Run(f" {what} ({_metric(there.metric)}{lacking})", "dim"))
    else:
        runs.append(Run(fit("-", 15), "dim"))
        told = plain(why or there.why, 80)
        known = f"{what} ({_metric(here.metric)})" if here is not None and here.ratio is not None else told
        runs.append(Run(f" {known}", "dim"))
    return cut(tuple(runs), width)


def _metric(key: str) -> str:
    return plain(key, 40) or "not told"


def _share(one: Measured | None) -> tuple[str, str]:
    if one is None:
        return "...", "dim"
    return ("-", "dim") if one.ratio is None else (f"{one.ratio.value * 100:.0f} %", "text")


def _bounded(one: Measured) -> str:
    """``84 % [83, 85]``"""
    ratio = one.ratio
    assert ratio is not None
    low, value, high = (f"{each * 100:.0f}" for each in (ratio.low, ratio.value, ratio.high))
    return f"{value} %" if low == value == high else f"{value} % [{low}, {high}]"


def _in_short(seen: Seen, over: Use, width: int) -> Row:
    runs: list[Run] = []
    for field, name, _ in FOUR:
        value, token = _share(getattr(seen.now if seen.now is not None else over, field))
        short = name.replace("achieved ", "")
        runs += [Run(f"{'  ' if runs else ''}{short} ", "dim"), Run(value, token)]
    return cut(tuple(runs), width)


def reclaim_row(snapshot: Snapshot, seen: Seen, width: int) -> Row:
    """``RECLAIMABLE 12.3 [11, 13] GPU.h of 430 held (2.9 %)   SHORT 24 GPUs: 3 jobs wait for them``"""
    counsel = snapshot.counsel
    runs = [Run("reclaimable ", "title")]
    held = counsel.utilisations.cluster.gpu_hours
    if counsel.reclaimable is None:
        why = "not looked at yet" if not counsel.at else "not known: jobs or readings lack"
        runs.append(Run(f"-  {why}", "dim"))
    else:
        runs.append(Run(interval(counsel.reclaimable), "warn" if counsel.reclaimable.value else "text"))
        if held is not None and held.value > 0:
            share = counsel.reclaimable.value / held.value
            runs.append(Run(f" of {number(held.value)} held ({share * 100:.2g} %)", "dim"))
    runs += [Run("   short ", "title"), *_short(snapshot, seen.waiting)]
    return cut(tuple(runs), width)


def _short(snapshot: Snapshot, waits: Waiting | None) -> list[Run]:
    if waits is None or not (snapshot.queue or snapshot.jobs_known):
        return [Run("-", "dim"), Run("" if waits is None else "  no scheduler is read", "dim")]
    if not waits.jobs:
        return [Run("nothing", "ok"), Run(": no job waits for GPUs", "dim")]
    jobs = "1 job waits" if waits.jobs == 1 else f"{waits.jobs:,} jobs wait"
    return [Run(f"{waits.gpus:,} GPUs", "warn"), Run(f": {jobs}", "dim")]


# --- the list ----------------------------------------------------------------------------------------


class Item(NamedTuple):
    """A row of the list."""

    key: str
    number: int
    given: Advice | None
    refused: Refused | None


def items(counsel: Counsel, kept: Sequence[bool] | None, sort: str, snapshot: Snapshot) -> list[Item]:
    """Advice, as asked for, then what was refused; ``kept``: of both in their order, None: all."""
    many = len(counsel.given)
    rows = [
        Item(GIVEN + one.id, at + 1, one, None)
        for at, one in enumerate(counsel.given)
        if kept is None or kept[at]
    ]
    by = {
        "grade": lambda item: str(item.given.grade),
        "rule": lambda item: item.given.rule,
        "where": lambda item: who_words(snapshot, item.given),
    }
    if sort in by:
        rows.sort(key=by[sort])
    seen: dict[str, Item] = {}
    for at, one in enumerate(counsel.refused):
        if kept is None or kept[many + at]:
            key = f"{REFUSED}{one.rule}:{one.why}:{who_words_of(one)}"
            seen.setdefault(key, Item(key, 0, None, one))
    return [*rows, *list(seen.values())[:MOST_REFUSED]]


def who_words_of(one: Refused) -> str:
    """Where something was refused, in a word; empty: everywhere."""
    scope = one.scope
    keys = scope.jobs or scope.servers or scope.racks or scope.nodes or scope.gpus
    more = f" +{len(keys) - 1}" if len(keys) > 1 else ""
    return plain(keys[0].removeprefix("slurm:"), 24) + more if keys else ""


def cells(snapshot: Snapshot, item: Item, placed: Sequence[Placed]) -> list[Cell]:
    """The cells of a row."""
    made = _of_given(snapshot, item, item.given) if item.given else _of_refused(item.refused)
    return [made.get(each.column.key, Run("")) for each in placed]


def _of_given(snapshot: Snapshot, item: Item, one: Advice) -> dict[str, Cell]:
    return {
        "number": Run(str(item.number), "dim"),
        "action": Run(action_words(one), "text"),
        "where": Run(who_words(snapshot, one), "dim"),
        "quantity": Run(quantity_words(one), "text"),
        "saved": Run(saved_words(one), "accent"),
        "grade": Run(str(one.grade), GRADE_TOKENS.get(str(one.grade), "text")),
    }


def _of_refused(one: Refused | None) -> dict[str, Cell]:
    if one is None:
        return {}
    return {
        "number": Run("-", "dim"),
        "action": Run(f"{rule_words(one.rule)}: {plain(one.why, 200)}", "dim"),
        "where": Run(who_words_of(one), "dim"),
        "saved": Run("-", "dim"),
    }


# --- the detail --------------------------------------------------------------------------------------


def detail_rows(snapshot: Snapshot, item: Item | None, width: int) -> list[Row]:
    """What was chosen, at length."""
    if item is None:
        return wrap(f"no advice: {waiting_words(snapshot)}", width, "dim")
    if item.refused is not None:
        return _refused_rows(item.refused, width)
    assert item.given is not None
    rows: list[Row] = []
    for label, text, token in told(snapshot, item.given):
        rows += labelled(label, text, width, token)
    return rows


def told(snapshot: Snapshot, one: Advice) -> Iterator[tuple[str, str, str]]:
    """An advice as labels with their texts, in the order in which people ask; inert."""
    yield "DO", action_words(one), "title"
    grade = str(one.grade)
    yield "HOW MANY", f"{quantity_words(one)}   grade {grade}: {GRADES.get(grade, '')}", "text"
    if saves := saving_words(one):
        yield "SAVES", saves, "accent"
    yield "BECAUSE", plain(one.because, 600), "text"
    for at, ground in enumerate(one.grounds):
        yield "GROUNDS" if at == 0 else "", ground_words(ground), "text"
    yield "CHANGE IF", plain(one.would_change, 600), "text"
    if one.but:
        yield "BUT", plain(one.but, 600), "warn"
    if where := where_words(snapshot, one):
        yield "WHERE", where, "dim"
    made = "; ".join(filter(None, (plain(one.quantity.formula, 300), plain(one.quantity.source, 300))))
    if made:
        yield "MADE BY", made, "dim"


def ground_words(one: Ground) -> str:
    """``gpu.util over 45 min, 360 samples, 94 % of them there: jobs 4655, 4711``"""
    words = f"{plain(one.metric, 40)} over {span_words(one.window_s)}, {one.samples:,} samples"
    words += f", cover {one.coverage * 100:.0f} %"
    shown = ", ".join(plain(name.removeprefix("slurm:"), 40) for name in one.examples[:5])
    return f"{words}: {shown}" if shown else words


def where_words(snapshot: Snapshot, one: Advice) -> str:
    """The whole scope, folded: jobs, nodes, how many GPUs."""
    scope, parts = one.scope, []
    if scope.jobs:
        names = ", ".join(plain(job.removeprefix("slurm:"), 40) for job in scope.jobs[:6])
        parts.append(f"{'job' if len(scope.jobs) == 1 else 'jobs'} {names}{_more(len(scope.jobs), 6)}")
    if scope.racks:
        names = ", ".join(plain(rack, 24) for rack in scope.racks[:6])
        parts.append(f"{'rack' if len(scope.racks) == 1 else 'racks'} {names}{_more(len(scope.racks), 6)}")
    if scope.nodes:
        parts.append(_folded(scope.nodes))
    if scope.servers:
        parts.append(", ".join(plain(name, 40) for name in scope.servers[:4]) + _more(len(scope.servers), 4))
    if scope.gpus:
        names = ", ".join(plain(gpu, 40) for gpu in scope.gpus[:4])
        parts.append(
            f"{len(scope.gpus)} GPU{'s' * (len(scope.gpus) != 1)}: {names}{_more(len(scope.gpus), 4)}"
        )
    return "; ".join(parts)


def _more(count: int, shown: int) -> str:
    return f" +{count - shown}" if count > shown else ""


def _folded(nodes: Sequence[str]) -> str:
    from coldaisle.sources.nodesets import fold

    try:
        return plain(fold(nodes), 120)
    except ValueError:
        return plain(", ".join(nodes[:4]), 120)


def _refused_rows(one: Refused, width: int) -> list[Row]:
    rows = labelled("NOT SIZED", rule_words(one.rule), width, "title")
    rows += labelled("BECAUSE", plain(one.why, 600), width)
    if where := who_words_of(one):
        rows += labelled("WHERE", where, width, "dim")
    return rows


def labelled(label: str, text: str, width: int, token: str = "text") -> list[Row]:
    """A label and a text that hangs beside it."""
    lines = wrap(text, max(width - LABEL - 1, 12), token) or [BLANK]
    head = Run(f"{label:<{LABEL}} ", "dim")
    return [(head if at == 0 else Run(" " * (LABEL + 1)), *row) for at, row in enumerate(lines)]


# --- as text -----------------------------------------------------------------------------------------


def markdown(snapshot: Snapshot, seen: Seen) -> str:
    """The whole counsel as Markdown: for whoever decides."""
    from coldaisle.tui.screens.triage_panes import inert_markdown as md

    counsel = snapshot.counsel
    at = time.strftime("%Y-%m-%d %H:%M:%S %Z", time.localtime(snapshot.at))
    lines = [
        f"# Sizing advice for {md(plain(snapshot.name) or 'the cluster')}", "",
        f"As of {at}, from the last {span_words(counsel.span_s) if counsel.at else '0 min'} of readings.", "",
        "| utilisation | now | over the window | of what | measured by |", "|---|---|---|---|---|",
    ]  # fmt: skip
    over = counsel.utilisations.cluster
    for field, name, what in FOUR:
        there: Measured = getattr(over, field)
        now = _share(getattr(seen.now, field))[0] if seen.now is not None else "-"
        window = _bounded(there) if there.ratio is not None else f"- ({there.why})"
        lines.append(f"| {name} | {md(now)} | {md(plain(window))} | {what} | {md(plain(there.metric))} |")
    lines += ["", md("".join(run.text for run in reclaim_row(snapshot, seen, 400)).strip()), ""]
    for place, one in enumerate(counsel.given, 1):
        lines += [f"## {place}. {md(action_words(one))}", ""]
        lines += [
            f"- **{label.capitalize() or 'And'}**: {md(text)}"
            for label, text, _ in told(snapshot, one)
            if label != "DO"
        ]
        lines.append("")
    if counsel.refused:
        lines += ["## Not sized", ""]
        lines += [
            f"- {md(rule_words(one.rule))}: {md(plain(one.why, 600))}"
            + (f" ({md(who_words_of(one))})" if who_words_of(one) else "")
            for one in counsel.refused
        ]
    if not counsel.given:
        lines += [md(f"No advice: {waiting_words(snapshot)}")]
    return "\n".join(lines).rstrip() + "\n"


def sheet_markdown(sheet: Sheet) -> str:
    """What the calculator answered as Markdown."""
    from coldaisle.tui.screens.triage_panes import inert_markdown as md

    lines = [f"# {md(plain(sheet.title))}", "", f"**{md(plain(sheet.answer, 600))}**", ""]
    for section in sheet.sections:
        lines += [f"## {md(plain(section.name))}", "", "| figure | value | formula |", "|---|---|---|"]
        lines += [
            f"| {md(plain(label))} | {md(interval(figure))} | {md(plain(figure.formula))} |"
            for label, figure in section.figures
        ]
        lines += ["", *([md(plain(section.note, 600)), ""] if section.note else [])]
    lines += [f"- Warning: {md(plain(warning, 600))}" for warning in sheet.warnings]
    lines += [f'- "{md(plain(one.claim, 300))}": {md(plain(one.verdict, 600))}' for one in sheet.verdicts]
    return "\n".join(lines).rstrip() + "\n"


# --- the calculator's answer -------------------------------------------------------------------------


def sheet_rows(sheet: Sheet, width: int) -> list[Row]:
    """An answer: the line, what binds, every figure with its interval, what to beware of."""
    rows = wrap(plain(sheet.answer, 600), width, "title" if sheet.fits else "bad")
    if sheet.binding is not None:
        rows += labelled("BINDS", _binding(sheet), width, "accent")
    for warning in sheet.warnings:
        rows += labelled("BEWARE", plain(warning, 600), width, "warn")
    for section in sheet.sections:
        rows += [BLANK, *_section(section, width)]
    for verdict in sheet.verdicts:
        rows += [BLANK, *labelled("CLAIM", plain(verdict.claim, 300), width, "dim")]
        rows += labelled("VERDICT", plain(verdict.verdict, 600), width)
    return rows


def _binding(sheet: Sheet) -> str:
    binding = sheet.binding
    assert binding is not None
    terms = ", ".join(f"{plain(name, 40)} {interval(asked)}" for name, asked in binding.terms)
    return f"{plain(binding.name, 60)}" + (f" ({terms})" if terms else "")


def _section(section: Section, width: int) -> list[Row]:
    rows: list[Row] = [(Run(plain(section.name, 80), "accent"),)]
    if getattr(section, "is_table", False):
        rows += _table(section, width)
    else:
        label = min(max((cell_width(plain(name, 60)) for name, _ in section.figures), default=0), width // 2)
        for name, figure in section.figures:
            rows.append(
                cut((Run(f" {fit(plain(name, 60), label)}  ", "dim"), Run(interval(figure), "text")), width)
            )
    if section.note:
        rows += wrap(f" {plain(section.note, 600)}", width, "dim")
    return rows


def _table(section: Section, width: int) -> list[Row]:
    """Figures whose labels are ``row: column``, as rows and columns."""
    lines: dict[str, dict[str, str]] = {}
    for label, figure in section.figures:
        name, _, column = plain(label, 80).partition(": ")
        lines.setdefault(name, {})[column] = interval(figure).split(" [")[0]
    columns = list(dict.fromkeys(column for cells_ in lines.values() for column in cells_))
    widths = [
        max(cell_width(column), *(cell_width(line.get(column, "-")) for line in lines.values()))
        for column in columns
    ]
    head = max(cell_width(name) for name in lines)
    rows: list[Row] = [
        (
            Run(" " * (head + 1)),
            *(Run(f"  {fit(c, w, right=True)}", "dim") for c, w in zip(columns, widths, strict=True)),
        )
    ]
    for name, line in lines.items():
        cells_row = (
            Run(f"  {fit(line.get(c, '-'), w, right=True)}") for c, w in zip(columns, widths, strict=True)
        )
        rows.append((Run(f" {fit(name, head)}", "dim"), *cells_row))
    return [cut(row, width) for row in rows]
