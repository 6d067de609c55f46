"""Advice in the words of the screens: what to do, how much, what it saves, for which rack; or why there is none yet. Pure.

Its texts hold other people's names: everything that leaves here is inert.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Final, NamedTuple

from coldaisle.sources.text import cell_width, fit, plain
from coldaisle.sources.units import age
from coldaisle.tui.figures import interval, number
from coldaisle.tui.widgets.lines import Row, Run, cut, row_width, wrap

if TYPE_CHECKING:
    from coldaisle.analyzers.advice.advice import Advice, Counsel, Refused
    from coldaisle.analyzers.snapshot import Snapshot
    from coldaisle.sources.cluster import Job, Layout
    from coldaisle.tui.cells import Flags

LABEL: Final = "ADVICE  "
MOST_ACTION: Final = 200
GRADE_TOKENS: Final = {"A": "ok", "B": "ok", "C": "warn", "D": "dim"}
GRADES: Final = {
    "A": "as good as counted", "B": "well measured", "C": "estimated", "D": "a guess",
}  # fmt: skip
"""What a grade says of an advice."""
LEAST_S: Final = 1800.0
"""History from which on a GPU that does nothing counts as idle (rules.toml, run_s)."""
SIDE_MOST: Final = 3
"""Pieces of advice for the cluster beside the map; of a rack one less."""


def action_words(one: Advice) -> str:
    """What to do, in one line."""
    return plain(one.action, MOST_ACTION)


def rule_words(rule: str) -> str:
    """``idle GPUs`` of ``idle_gpus``."""
    words = plain(rule.replace("_", " "), 24)
    return words.replace("gpus", "GPUs").replace("gpu", "GPU").replace("mig", "MIG")


def span_words(seconds: float) -> str:
    """How long was looked: ``28 d``, ``45 min``, ``3 h``."""
    if seconds >= 2 * 86400:
        return f"{seconds / 86400:.0f} d"
    return f"{seconds / 3600:.3g} h" if seconds >= 5400 else f"{seconds / 60:.0f} min"


def coverage(counsel: Counsel) -> float | None:
    """Share of the samples of the window that were there; None: not told."""
    use = counsel.utilisations.cluster
    told = [one.coverage for one in (use.busy, use.active, use.allocated) if one.samples]
    return told[0] if told else None


def saved(one: Advice) -> float:
    """GPU-hours a week; 0: it cannot be told."""
    week = one.saving.gpu_hours_per_week
    return week.value if week is not None else 0.0


def saved_words(one: Advice) -> str:
    """``1,344`` GPU-hours a week, in few cells; a dash where it cannot be told."""
    week = one.saving.gpu_hours_per_week
    return "-" if week is None else number(week.value)


# --- why there is none -------------------------------------------------------------------------------


def waiting_words(snapshot: Snapshot) -> str:
    """Why nothing is advised, or how long it still takes: the line is never empty."""
    counsel = snapshot.counsel
    if not snapshot.live:
        return "none for a past instant: it is made from the last hour of what is live (t returns there)"
    if snapshot.is_jobs_only and not counsel.given:
        return "none: only a scheduler is read here, and nothing tells how busy GPUs are"
    if not counsel.at:
        return "nobody has looked yet: a whole minute of readings comes first"
    if counsel.span_s < LEAST_S:
        return f"after {span_words(LEAST_S)} of history: {span_words(counsel.span_s)} so far"
    looked = f"looked at {span_words(counsel.span_s)}"
    if counsel.refused:
        return f"none: {refusal_words(counsel.refused[0])} ({looked})"
    return f"nothing to reclaim or to change, as far as {span_words(counsel.span_s)} of history tell"


def refusal_words(one: Refused) -> str:
    """``idle GPUs: only 3 of the 5 jobs that it takes``"""
    return f"{rule_words(one.rule)}: {plain(one.why, 200)}"


# --- where it applies --------------------------------------------------------------------------------


class Touched(NamedTuple):
    """What a piece of advice is about, by the indices of Layout."""

    gpus: tuple[int, ...]
    racks: frozenset[int]


class Places:
    """What every piece of a counsel touches; made once a counsel, layout and set of jobs."""

    def __init__(self) -> None:
        self._made_of: tuple[object, ...] = ()
        self._of: Mapping[str, Touched] = {}

    def of(self, snapshot: Snapshot) -> Mapping[str, Touched]:
        """By the advice's id."""
        made_of = (snapshot.counsel, snapshot.layout, snapshot.jobs)
        if len(self._made_of) != 3 or any(a is not b for a, b in zip(self._made_of, made_of, strict=True)):
            self._made_of, self._of = made_of, touched(snapshot)
        return self._of


def touched(snapshot: Snapshot) -> dict[str, Touched]:
    """What each piece of advice touches, by its id: its GPUs, else those of its nodes, jobs or racks."""
    from coldaisle.analyzers.touching import Places as Known

    known, layout = Known(snapshot), snapshot.layout
    found = {}
    for one in snapshot.counsel.given:
        reach = known.reach(one.scope)
        gpus = reach.gpus or tuple(gpu for rack in sorted(reach.racks) for gpu in layout.racks[rack].gpus)
        racks = reach.racks | {layout.nodes[layout.gpus[gpu].node].rack for gpu in gpus}
        racks |= {layout.nodes[node].rack for node in reach.nodes}
        found[one.id] = Touched(gpus, frozenset(racks))
    return found


def flags_of(layout: Layout, gpus: Iterable[int]) -> Flags:
    """[gpu] those GPUs; a MIG board with its instances."""
    import numpy as np

    flags = np.zeros(len(layout.gpus), dtype=bool)
    flags[list(gpus)] = True
    if len(layout.boards) != len(flags):
        parents = np.array([gpu.parent for gpu in layout.gpus], dtype=np.intp)
        flags[parents[flags & (parents >= 0)]] = True
    return flags


def find(counsel: Counsel, key: str) -> Advice | None:
    """The advice of an id."""
    return next((one for one in counsel.given if one.id == key), None) if key else None


# --- on Racks ----------------------------------------------------------------------------------------


def line(snapshot: Snapshot, width: int, chosen: str = "") -> Row:
    """The one line that is always in sight: the chosen advice, else what saves most, as many as fit whole."""
    given = snapshot.counsel.given
    if not given:
        return cut((Run(LABEL, "title"), Run(waiting_words(snapshot), "dim")), width)
    if (one := find(snapshot.counsel, chosen)) is not None:
        place = f"{given.index(one) + 1}/{len(given)} "
        return cut((Run(LABEL, "title"), Run(place, "dim"), Run(action_words(one), "match")), width)
    runs = [Run(LABEL, "title"), Run(action_words(given[0]), "text")]
    more = f"  +{len(given) - 1} (a)" if len(given) > 1 else "  (a)"
    for at, one in enumerate(given[1:], 1):
        longer = [*runs, Run("; ", "dim"), Run(action_words(one), "text")]
        rest = f"  +{len(given) - at - 1} (a)" if len(given) > at + 1 else "  (a)"
        if row_width((*longer, Run(rest))) > width:
            break
        runs, more = longer, rest
    room = width - len(more)
    return (*cut(tuple(runs), room), Run(more, "dim")) if room > 20 else cut(tuple(runs), width)


def side_lines(
    snapshot: Snapshot, places: Mapping[str, Touched], rack: int, width: int, rule: str, *, selected: str = ""
) -> list[tuple[Row, str]]:
    """For a panel beside the map: the cursor's rack, then the cluster, each line with the id of its advice."""
    counsel, layout = snapshot.counsel, snapshot.layout
    rows: list[tuple[Row, str]] = []
    here = [one for one in counsel.given if rack in places[one.id].racks]
    if layout.racks:
        name = plain(layout.racks[rack].name, 12)
        rows.append((_heading(f"ADVICE for {name}", width, rule, "GPU.h/week" if counsel.given else ""), ""))
        rows += _told(here[: SIDE_MOST - 1], width, selected)
        if len(here) >= SIDE_MOST:
            rows.append(((Run(f"  +{len(here) - SIDE_MOST + 1} more (6)", "dim"),), ""))
        if not here:
            rows.append(((Run("  " + ("nothing to do here" if counsel.given else "none yet"), "dim"),), ""))
    rows.append(
        (_heading(f"ADVICE for {plain(snapshot.name, 16) or 'the cluster'}{_span(counsel)}", width, rule), "")
    )
    if not counsel.given:
        rows += [(row, "") for row in _indented(waiting_words(snapshot), width, "dim")[:4]]
        return rows
    rows += _told(counsel.given[:SIDE_MOST], width, selected)
    if len(counsel.given) > SIDE_MOST:
        rows.append(((Run(f"  +{len(counsel.given) - SIDE_MOST} more (6 Sizing)", "accent"),), ""))
    if counsel.refused:
        rows += [
            (row, "")
            for row in _indented(f"not sized: {refusal_words(counsel.refused[0])}", width, "dim")[:2]
        ]
    return rows


def _span(counsel: Counsel) -> str:
    """`` (28 d, cover 94 %)``"""
    if not counsel.at:
        return ""
    share = coverage(counsel)
    return (
        f" ({span_words(counsel.span_s)}{'' if share is None else f', cover {share:.0%}'.replace('%', ' %')})"
    )


def _told(given: Sequence[Advice], width: int, selected: str) -> list[tuple[Row, str]]:
    rows: list[tuple[Row, str]] = []
    for one in given:
        token = "match" if one.id == selected else "text"
        lines = _indented(action_words(one), width - 8, token)[:2]
        for at, row in enumerate(lines):
            tail = fit(saved_words(one), 7, right=True) if at == 0 else ""
            spare = width - row_width(row) - len(tail)
            rows.append(((*row, Run(" " * max(spare, 1)), Run(tail, "accent")), one.id))
    return [(cut(row, width), key) for row, key in rows]


def _indented(text: str, width: int, token: str) -> list[Row]:
    return [(Run("  "), *row) for row in wrap(text, max(width - 2, 12), token)]


def _heading(name: str, width: int, rule: str, tail: str = "") -> Row:
    tail = f" {tail}" if tail else ""
    spare = max(width - cell_width(name) - 1 - len(tail), 0)
    return cut((Run(f"{name} ", "title"), Run(rule * spare, "rule"), Run(tail, "dim")), width)


def who_words(snapshot: Snapshot, one: Advice) -> str:
    """Where it applies, in a few words: ``job 4655 rsun``, ``r07``, ``12 GPUs``, ``the cluster``."""
    scope = one.scope
    if scope.jobs:
        job = _job(snapshot, scope.jobs[0])
        more = f" +{len(scope.jobs) - 1}" if len(scope.jobs) > 1 else ""
        if job is None:
            return f"job {plain(scope.jobs[0].partition(':')[2] or scope.jobs[0], 24)}{more}"
        return plain(f"job {job.title}{more} {job.user}", 32)
    for keys in (scope.servers, scope.racks, scope.nodes, scope.gpus):
        if keys:
            return plain(keys[0], 24) + (f" +{len(keys) - 1}" if len(keys) > 1 else "")
    return "the cluster"


def _job(snapshot: Snapshot, key: str) -> Job | None:
    return next((job for job in (*snapshot.jobs, *snapshot.queue) if job.id == key), None)


def quantity_words(one: Advice) -> str:
    """``8 [6, 8] GPUs``"""
    return interval(one.quantity)


def saving_words(one: Advice) -> str:
    """What it would free: GPU-hours a week, power, money; empty where nothing can be told."""
    told = []
    if (week := one.saving.gpu_hours_per_week) is not None:
        told.append(f"{_bounds(week)} GPU.h a week")
    if (power := one.saving.power) is not None:
        told.append(interval(power))
    if (money := one.saving.money_per_week) is not None:
        told.append(f"${_bounds(money)} a week")
    return ", ".join(told)


def _bounds(quantity: object) -> str:
    from coldaisle.analyzers.sizing.quantity import Quantity

    assert isinstance(quantity, Quantity)
    bounds = number(quantity.low), number(quantity.high)
    whole = number(quantity.value)
    return whole if bounds == (whole, whole) else f"{whole} [{bounds[0]}, {bounds[1]}]"


def ago_words(snapshot: Snapshot) -> str:
    """``looked 20 s ago``"""
    return f"looked {age(max(snapshot.at - snapshot.counsel.at, 0.0))} ago" if snapshot.counsel.at else ""
