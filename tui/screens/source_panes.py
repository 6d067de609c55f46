"""What the Sources screen says, as rows of runs: pure functions of a snapshot."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

from coldaisle.sources.text import cell_width, plain
from coldaisle.sources.units import NO_VALUE, age, show
from coldaisle.tui.widgets.lines import BLANK, Row, Run, cut, wrap
from coldaisle.tui.widgets.table import Cell, Column

if TYPE_CHECKING:
    from coldaisle.analyzers.snapshot import Snapshot, SourceView
    from coldaisle.sources.source import Target

STATE_TOKENS: Mapping[str, str] = {
    "ok": "ok",
    "partial": "warn",
    "slow": "warn",
    "stale": "stale",
    "failing": "bad",
    "denied": "warn",
    "connecting": "dim",
    "skipped": "dim",
}
_WORST_FIRST = ("failing", "denied", "stale", "partial", "slow", "connecting", "skipped", "ok")
MOST_LINES = 5
"""Of one sentence under the tables."""
CLOCK_LIMIT_S = 1.0
"""A node's clock that is further off than this is named."""

SOURCE_COLUMNS = (
    Column("name", "source", 14, keep=0),
    Column("state", "state", 10, keep=1),
    Column("targets", "targets", 9, right=True, keep=2),
    Column("age", "data", 6, right=True, keep=3),
    Column("interval", "every", 6, right=True, keep=4),
    Column("period", "learnt", 6, right=True, keep=6),
    Column("latency", "latency", 8, right=True, keep=5),
    Column("metrics", "metrics", 7, right=True, keep=7),
    Column("restarts", "restarts", 8, right=True, keep=9),
    Column("why", "why", 8, keep=8, grows=True),
)
TARGET_COLUMNS = (
    Column("state", "state", 10, keep=0),
    Column("name", "target", 22, keep=1),
    Column("latency", "latency", 8, right=True, keep=3),
    Column("what", "what answered", 24, keep=4),
    Column("nodes", "nodes", 14, keep=5),
    Column("detail", "why", 12, keep=2, grows=True),
)


class Supply(NamedTuple):
    """Where one metric comes from, and why it is not everywhere."""

    key: str
    entities: int
    present: int
    by_source: tuple[tuple[str, int], ...]
    missing: tuple[tuple[str, int], ...]
    """Reason in words, how many; the most frequent first."""


def source_cells(snapshot: Snapshot, source: SourceView) -> dict[str, Cell]:
    """A source's row, by column."""
    token = STATE_TOKENS.get(source.state, "text")
    return {
        "name": Run(plain(source.name)),
        "state": Run(plain(source.state), token),
        "targets": Run(
            f"{source.targets_ok}/{len(source.targets)}",
            "text" if source.targets_ok == len(source.targets) else "warn",
        ),
        "age": Run(NO_VALUE if source.last_at is None else age(snapshot.at - source.last_at)),
        "interval": Run(show(source.interval, "s")),
        "period": Run(NO_VALUE if source.period is None else show(source.period, "s")),
        "latency": Run(NO_VALUE if source.latency_s is None else show(source.latency_s, "s")),
        "metrics": Run(str(len(source.metrics))),
        "restarts": Run(str(source.restarts), "warn" if source.restarts else "text"),
        "why": Run(_source_why(snapshot, source), token if source.why else "dim"),
    }


def source_detail(snapshot: Snapshot, source: SourceView, width: int) -> list[Row]:
    """On the chosen source: kind, why it is not well and what to do; how its targets fare."""
    counts = Counter(str(target.state) for target in source.targets)
    states = "  ".join(f"{counts[state]} {state}" for state in _WORST_FIRST if counts[state])
    why = plain(source.why) or ("everything answers" if source.state == "ok" else "no reason is given")
    retry = (
        "" if source.retry_at is None else f"  tried again in {age(max(0.0, source.retry_at - snapshot.at))}"
    )
    remedy = f"  -> {plain(source.remedy)}" if source.remedy else ""
    head = (
        Run(plain(source.name), "accent"),
        Run(f" ({plain(source.kind)}): {why}{retry}"),
        Run(remedy, "accent"),
    )
    return [*_whole(head, width), cut((Run("targets: ", "dim"), Run(states or "none")), width)]


def target_order(targets: Sequence[Target]) -> list[Target]:
    """Failing targets first, each group in the source's own order."""
    rank = {state: place for place, state in enumerate(_WORST_FIRST)}
    return sorted(targets, key=lambda target: rank.get(str(target.state), len(rank)))


def target_cells(target: Target) -> dict[str, Cell]:
    """A target's row, by column."""
    return {
        "state": Run(str(target.state), STATE_TOKENS.get(str(target.state), "text")),
        "name": Run(plain(target.name)),
        "latency": Run(NO_VALUE if target.latency_s is None else show(target.latency_s, "s")),
        "what": Run(plain(target.what) or NO_VALUE, "text" if target.what else "dim"),
        "nodes": Run(_names(target.nodes)),
        "detail": Run(plain(target.detail)),
    }


def target_detail(snapshot: Snapshot, target: Target | None, width: int) -> list[Row]:
    """On the chosen target: why, and what to do; two lines, or as many as that takes."""
    if target is None:
        return [(Run("this source has no target", "dim"),), BLANK]
    told = f"  said {age(snapshot.at - target.at)} ago"
    head = (
        Run(plain(target.name), "accent"),
        Run(f"  {plain(target.detail) or 'answers'}"),
        Run(told, "dim"),
    )
    return [
        *_whole(head, width),
        *_whole((Run(f"-> {plain(target.remedy)}" if target.remedy else "", "accent"),), width),
    ]


def _whole(row: Row, width: int) -> list[Row]:
    """A row, broken where it is too long to be seen whole: a remedy is to be copied."""
    text = "".join(run.text for run in row)
    if cell_width(text) <= width:
        return [row]
    return wrap(text, width, row[0].token if len(row) == 1 else "text")[:MOST_LINES]


def supplies(snapshot: Snapshot) -> list[Supply]:
    """Every metric that somebody delivers, in the catalogue's order."""
    from coldaisle.sources.catalog import catalog

    known = [key for key in catalog() if key in snapshot.columns]
    own = sorted(key for key in snapshot.columns if key not in catalog())
    return [_supply(snapshot, key) for key in (*known, *own)]


def metric_pane(snapshot: Snapshot, width: int) -> list[Row]:
    """Which metric comes from where, which is missing and why: what is missing first."""
    from coldaisle.sources.catalog import catalog

    found = [item for item in supplies(snapshot) if item.entities]
    rows: list[Row] = []
    groups = (
        ("missing everywhere", [item for item in found if not item.present]),
        ("missing in part", [item for item in found if 0 < item.present < item.entities]),
        ("complete", [item for item in found if item.present == item.entities]),
    )
    for name, items in groups:
        if items:
            rows += [(Run(f"{name} ({len(items)})", "title"),), *_alike(items, width), BLANK]
    absent = [key for key in catalog() if key not in snapshot.columns]
    rows.append((Run(f"delivered by no source ({len(absent)})", "title"),))
    for kind in dict.fromkeys(key.partition(".")[0] for key in absent):
        names = ", ".join(key.partition(".")[2] for key in absent if key.startswith(f"{kind}."))
        rows += wrap(f"  {kind}: {names}", width, "dim")
    return rows


def name_pane(snapshot: Snapshot, width: int) -> list[Row]:
    """Which names were found to be one node, which conflict, which are missing or unmatched; whose clock is off."""
    seen = snapshot.coverage
    if snapshot.is_jobs_only:
        said = f"{seen.nodes_expected} with {seen.gpus_expected} GPUs in Slurm; nobody measures anything"
    else:
        said = f"{seen.nodes} of {seen.nodes_expected} heard"
    rows: list[Row] = [_section("nodes", said)]
    if heard := _heard(snapshot):
        rows += wrap(f"  matched: {heard}", width, "ok")
    unheard = "known, not measured" if snapshot.is_jobs_only else "never heard"
    rows += _name_rows(unheard, _unheard(snapshot), width, "dim" if snapshot.is_jobs_only else "warn")
    rows += _name_rows("silent now" if snapshot.live else "silent then", _silent(snapshot), width, "stale")
    rows += _name_rows("matched to no node", _unmatched(snapshot), width, "warn")
    conflicts = [join for join in snapshot.joins if join.conflict]
    joins = [join for join in snapshot.joins if not join.conflict]
    rows += [BLANK, _section("conflicts", f"{len(conflicts)}, left alone: two names claim one thing")]
    rows += [
        cut((Run(f"  {plain(join.name)} and {plain(join.joined)}: {plain(join.how)}", "bad"),), width)
        for join in conflicts
    ]
    rows += [BLANK, _section("joins", f"{len(joins)} names found to be another name of a node")]
    rows += [cut(_join_row(snapshot, join.at, join.name, join.joined, join.how), width) for join in joins]
    rows += [BLANK, _section("clocks", f"further off than {CLOCK_LIMIT_S:.0f} s")]
    rows += [cut(row, width) for row in _clock_rows(snapshot)] or [(Run("  none", "dim"),)]
    rows += [BLANK, _section("racks", "how places are known")]
    places = Counter(plain(rack.place) for rack in snapshot.layout.racks)
    return rows + [cut((Run(f"  {count} {place}"),), width) for place, count in places.most_common()]


def cost_row(snapshot: Snapshot, width: int) -> Row:
    """What coldaisle itself takes, in a line."""
    cost = snapshot.cost
    if cost is None and not snapshot.live:
        return (Run("as it was then; own cost and targets of now: t returns to live", "dim"),)
    if cost is None:
        return (Run("own cost: not yet measured", "dim"),)
    text = (
        f"own cost: {show(cost.cpu, 'ratio')} of a core, {show(float(cost.rss_bytes), 'B')}, "
        f"history {show(float(cost.history_bytes), 'B')}, tick {show(cost.tick_s, 's')}"
    )
    return cut((Run(text, "dim"),), width)


def _source_why(snapshot: Snapshot, source: SourceView) -> str:
    if source.why:
        return plain(source.why)
    last = source.last_at
    return "no sample yet" if last is None else ""


def _names(names: Sequence[str]) -> str:
    """The names of a target's nodes; of many, the first and how many more."""
    shown = " ".join(plain(name) for name in names[:2])
    return shown + (f" +{len(names) - 2}" if len(names) > 2 else "")


def _supply(snapshot: Snapshot, key: str) -> Supply:
    import numpy as np

    from coldaisle.sources.source import MISSING_TEXT, Missing

    column = snapshot.columns[key]
    there = ~np.isnan(column.values)
    sources = np.bincount(column.source[there], minlength=256)
    reasons = np.bincount(column.reason[~there], minlength=len(Missing))
    by_source = [
        (plain(source.name), int(sources[at]))
        for at, source in enumerate(snapshot.sources[:255])
        if sources[at]
    ]
    missing = [
        (MISSING_TEXT[Missing(at)] or "no reason given", int(reasons[at]))
        for at in np.argsort(-reasons)
        if reasons[at]
    ]
    return Supply(key, len(column.values), int(there.sum()), tuple(by_source), tuple(missing))


def _alike(items: Sequence[Supply], width: int) -> Iterator[Row]:
    """Metrics with one and the same supply under one line that says it."""
    groups: dict[Supply, list[str]] = {}
    for item in items:
        kind, _, name = item.key.partition(".")
        groups.setdefault(item._replace(key=kind), []).append(plain(name))
    for supply, names in groups.items():
        yield cut(_supply_row(supply), width)
        yield from wrap(f"    {', '.join(names)}", width)


def _supply_row(item: Supply) -> Row:
    sources = ", ".join(f"{name} {count}" for name, count in item.by_source)
    missing = ", ".join(f"{why}: {count}" for why, count in item.missing)
    whole = item.present == item.entities
    return (
        Run(f"  {item.key} {item.present} of {item.entities}", "ok" if whole else "warn"),
        Run(f"  from {sources}" if sources else "", "dim"),
        Run(f"  {missing}" if missing else "", "warn"),
    )


def _section(name: str, text: str) -> Row:
    return (Run(name, "title"), Run(f"  {text}", "dim"))


def _name_rows(what: str, names: Sequence[str], width: int, token: str) -> Iterator[Row]:
    """A count and the names, as many as two lines hold; what is left out is said."""
    if not names:
        return
    shown, room = [], 2 * width - len(what) - 24
    for name in names:
        room -= len(name) + 1
        if room < 0:
            break
        shown.append(name)
    left = len(names) - len(shown)
    more = f" and {left} more" if left else ""
    yield from wrap(f"  {what} ({len(names)}): {' '.join(shown)}{more}", width, token)


def _heard(snapshot: Snapshot) -> str:
    """The nodes that are heard now, folded as Slurm writes them."""
    from coldaisle.sources.nodesets import fold

    nodes = zip(snapshot.layout.nodes, snapshot.node_status, strict=True)
    return plain(fold(node.key for node, status in nodes if status == 1))


def _unheard(snapshot: Snapshot) -> list[str]:
    return [
        plain(node.key)
        for node, status in zip(snapshot.layout.nodes, snapshot.node_status, strict=True)
        if status == 0
    ]


def _silent(snapshot: Snapshot) -> list[str]:
    return [
        plain(node.key)
        for node, status in zip(snapshot.layout.nodes, snapshot.node_status, strict=True)
        if status >= 2
    ]


def _unmatched(snapshot: Snapshot) -> list[str]:
    """Names that targets speak for and that no node answers to."""
    known = set(snapshot.layout.node_of)
    for node in snapshot.layout.nodes:
        known.update((*node.aliases, node.hostname or ""))
    names = (name for source in snapshot.sources for target in source.targets for name in target.nodes)
    return [plain(name) for name in dict.fromkeys(names) if name not in known]


def _join_row(snapshot: Snapshot, at: float, name: str, joined: str, how: str) -> Row:
    return (
        Run(f"  {plain(name)} is {plain(joined)}"),
        Run(f"  by {plain(how)}, {age(snapshot.at - at)} ago", "dim"),
    )


def _clock_rows(snapshot: Snapshot) -> list[Row]:
    return [
        (
            Run(
                f"  {plain(node.key)} {abs(node.clock_offset_s):.1f} s {'ahead' if node.clock_offset_s > 0 else 'behind'}",
                "warn",
            ),
        )
        for node in snapshot.layout.nodes
        if node.clock_offset_s is not None and abs(node.clock_offset_s) > CLOCK_LIMIT_S
    ]
