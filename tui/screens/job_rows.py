"""The rows of the Jobs screen: what runs, what waits, and sums over both. Pure but for what :class:`Watch` remembers."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

from coldaisle.sources.text import cell_width, clip, natural_key, plain
from coldaisle.sources.units import NO_VALUE, age, show
from coldaisle.tui import cells
from coldaisle.tui.findings import mark_of
from coldaisle.tui.reading import read
from coldaisle.tui.widgets.header import Piece
from coldaisle.tui.widgets.lines import BLANK, Row, Run, merged, wrap
from coldaisle.tui.widgets.table import Cell, Column, Placed

if TYPE_CHECKING:
    from coldaisle.analyzers.jobs import Figures, Group, Held, Load, Numbers
    from coldaisle.analyzers.snapshot import Snapshot
    from coldaisle.sources.cluster import Job
    from coldaisle.sources.source import Codes, Floats

# analyzers.jobs imports numpy: the functions here import it when there is data.

HEAD, JOB = "h:", "j:"
"""What the key of a row begins with: a group's head, or a job."""
RUNNING, PENDING = "running", "pending"
GROUPINGS = ("", "user", "account", "partition")
"""What jobs are put together by; empty: those that run, then those that wait."""
NARROW_JOB, WIDE_JOB, WIDE_AT = 20, 34, 110
WIDE_NODES, WIDEST_NODES, WIDEST_AT = 18, 24, 180

_LEADING = re.compile("[0-9]{1,15}")
_COLUMNS: tuple[tuple[Column, str], ...] = (
    (Column("job", "job", NARROW_JOB, keep=0), "id and name"),
    (Column("user", "user", 8, keep=2), "user"),
    (Column("account", "account", 10, keep=10), "account, or namespace"),
    (Column("partition", "partition", 11, keep=11), "partition"),
    (Column("qos", "QOS", 8, keep=13), "quality of service"),
    (Column("gpus", "GPUs", 4, right=True, keep=1), "GPUs it has, or asks for"),
    (Column("nodes", "nodes (reason)", 15, keep=3), "nodes; of one that waits, why"),
    (Column("for", "for", 6, right=True, keep=7), "how long it runs, or waits"),
    (Column("left", "left", 6, right=True, keep=5), "until its time limit"),
    (Column("starts", "starts", 6, right=True, keep=15), "when it is planned to start"),
    (Column("active", "active", 6, right=True, keep=4), "activity, the mean over its GPUs"),
    (Column("spread", "min..max", 8, right=True, keep=9), "lowest and highest of its GPUs"),
    (Column("memory", "mem max", 7, right=True, keep=8), "memory of its fullest GPU"),
    (Column("power", "power", 8, right=True, keep=12), "what its GPUs draw"),
    (Column("finding", "finding", 13, keep=4), "the worst finding that touches it"),
    (Column("bound", "bound by", 9, keep=9), "what its speed depends on"),
    (Column("cells", "each GPU", 9, keep=6, grows=True), "a cell a GPU, as on Racks"),
    (Column("hours", "GPU.h", 7, right=True, keep=14), "GPU-hours so far"),
    (Column("cpus", "CPUs", 5, right=True, keep=16), "CPUs it has, or asks for"),
    (Column("ram", "host mem", 8, right=True, keep=17), "host memory it has, or asks for"),
    (Column("restarts", "again", 5, right=True, keep=18), "how often it was started again"),
)  # fmt: skip
ACTIVE_TITLES = {"gpu.sm_active": "SM act", "gpu.power_ratio": "of lim", "gpu.util": "util"}
"""What stands over the column ``active``: never "useful", which nobody measures yet."""


def known_columns() -> tuple[tuple[Column, str], ...]:
    """All columns with what they say, the site's own metrics of jobs among them."""
    from coldaisle.sources.catalog import own_metrics
    from coldaisle.sources.source import Kind

    own = (
        (Column(one.key, one.label, max(9, min(len(one.label), 14)), right=True, keep=30 + at), one.help)
        for at, one in enumerate(own_metrics(Kind.JOB))
    )
    return (*_COLUMNS, *own)


def columns(
    metric: str, width: int, chosen: Collection[str] | None, empty: Collection[str] = ()
) -> tuple[Column, ...]:
    """The columns to show at a width; ``metric``: the key of what stands in for the useful share.

    ``empty``: those without any value, shown only where they were chosen.
    """
    from dataclasses import replace

    found = []
    for column, _ in known_columns():
        if column.key in empty if chosen is None else column.key not in (*chosen, "job"):
            continue
        if column.key == "job":
            column = replace(column, width=WIDE_JOB if width >= WIDE_AT else NARROW_JOB)
        elif column.key == "nodes" and width >= WIDE_AT:
            column = replace(column, width=WIDEST_NODES if width >= WIDEST_AT else WIDE_NODES)
        elif column.key == "active":
            column = replace(column, title=ACTIVE_TITLES.get(metric, "active"))
        found.append(column)
    return tuple(found)


class Sort(NamedTuple):
    """An order of the jobs of a group."""

    column: str
    name: str
    moves: bool = False
    """Whether it changes while nobody starts or ends: such an order is only taken anew by hand."""


SORTS = (
    Sort("gpus", "GPUs, most first"),
    Sort("for", "age, oldest first"),
    Sort("left", "time left, least first"),
    Sort("active", "activity, lowest first", moves=True),
    Sort("memory", "memory, fullest first", moves=True),
    Sort("power", "power, highest first", moves=True),
    Sort("user", "user"),
    Sort("job", "id"),
)


@dataclass(frozen=True, slots=True, eq=False)
class Roll:
    """Who is there: what does not change until a job starts, ends or begins to wait."""

    held: Held
    waiting: tuple[Job, ...]
    load: Load
    place: Mapping[str, int]
    """By job id: index into ``held.jobs``, or behind these into ``waiting``."""
    empty: frozenset[str] = frozenset()
    """Columns of which no job tells anything; see :func:`empty_columns`."""

    @property
    def jobs(self) -> tuple[Job, ...]:
        """Those that run."""
        return self.held.jobs

    def job(self, key: str) -> Job | None:
        """A job by its id."""
        at = self.place.get(key)
        return None if at is None else self.at(at)

    def at(self, place: int) -> Job:
        """A job by its place."""
        return self.jobs[place] if place < len(self.jobs) else self.waiting[place - len(self.jobs)]


class Watch:
    """Makes the roll of a snapshot; the same object while nobody came or went."""

    def __init__(self) -> None:
        self._made_of: tuple[object, ...] = ()
        self._roll: Roll | None = None

    def roll(self, snapshot: Snapshot) -> Roll:
        """Who is there."""
        from coldaisle.analyzers.jobs import held_by, load_of

        made_of = (snapshot.layout, snapshot.jobs, snapshot.queue, dict(snapshot.queues))
        if self._roll is None or not _same(self._made_of, made_of):
            held, waiting = held_by(snapshot.layout, snapshot.jobs), snapshot.queue
            place = {job.id: at for at, job in enumerate((*held.jobs, *waiting))}
            self._roll = Roll(
                held, waiting, load_of(snapshot, held, waiting), place, _empty(held.jobs, waiting)
            )
            self._made_of = made_of
        return self._roll


_MAY_BE_EMPTY: Mapping[str, Callable[[Job], object]] = {
    "user": lambda job: job.user,
    "account": lambda job: job.account,
    "partition": lambda job: job.partition,
    "qos": lambda job: job.qos,
    "left": lambda job: job.limit_at,
    "starts": lambda job: job.expected_at,
    "cpus": lambda job: job.cpus,
    "ram": lambda job: job.memory_bytes,
    "restarts": lambda job: job.restarts,
    "cells": lambda job: job.gpus,
}
"""Columns that a scheduler may say nothing of."""


def empty_columns(jobs: Jobs) -> frozenset[str]:
    """Columns in which no job has anything: none of them tells it, or nobody delivers the metric."""
    needs = {
        "active": jobs.seen.metric,
        "spread": jobs.seen.metric,
        "memory": "gpu.mem_ratio",
        "power": "gpu.power",
        **{column.key: column.key for column, _ in known_columns() if column.key.startswith("job.")},
    }
    unmeasured = (key for key, metric in needs.items() if metric not in jobs.snapshot.columns)
    diagnosis = jobs.snapshot.diagnosis
    untold = [*([] if diagnosis.at else ["finding"]), *([] if diagnosis.jobs else ["bound"])]
    return jobs.roll.empty.union(unmeasured, untold)


def _empty(*jobs: Sequence[Job]) -> frozenset[str]:
    everybody = [job for some in jobs for job in some]
    if not everybody:
        return frozenset()
    return frozenset(key for key, of in _MAY_BE_EMPTY.items() if not any(map(of, everybody)))


def _same(before: tuple[object, ...], now: tuple[object, ...]) -> bool:
    return (
        len(before) == len(now)
        and all(a is b for a, b in zip(before[:3], now[:3], strict=True))
        and before[3:] == now[3:]
    )


@dataclass(frozen=True, slots=True, eq=False)
class Jobs:
    """Everything that the rows are drawn from."""

    snapshot: Snapshot
    roll: Roll
    seen: Figures
    metric: cells.CellMetric
    """Of the cells of GPUs."""
    codes: Codes
    """[gpu]"""


def jobs_seen(snapshot: Snapshot, roll: Roll, metric: cells.CellMetric) -> Jobs:
    """The jobs of a snapshot; ``metric`` is what its cells show."""
    from coldaisle.analyzers.jobs import figures

    def values_of(key: str) -> Floats:
        return cells.values_of(snapshot, key)

    active = cells.default_metric(snapshot).key
    seen = figures(snapshot, roll.held, active, values_of)
    return Jobs(snapshot, roll, seen, metric, cells.cell_codes(snapshot, metric))


def weights(jobs: Jobs, sort: Sort) -> Numbers | None:
    """[place] what jobs are sorted by, the first being the lowest; NaN: last; None: by text."""
    import numpy as np

    roll, seen = jobs.roll, jobs.seen
    queue = roll.waiting
    running: Numbers
    if sort.column in ("user", "job"):
        return None
    waiting = np.array([job.since for job in queue], dtype=np.float64)
    if sort.column == "gpus":
        from coldaisle.analyzers.jobs import gpus_of

        running, waiting = -roll.held.size, -np.array([*map(gpus_of, queue)], dtype=np.float64)
    elif sort.column == "for":
        running = -seen.elapsed
    elif sort.column == "left":
        running = seen.left
        planned = (job.expected_at for job in queue)
        waiting = np.array([np.nan if at is None else at for at in planned], dtype=np.float64)
    else:
        running = {"active": seen.active, "memory": -seen.memory, "power": -seen.power}[sort.column]
    return np.concatenate([running, waiting])


def order(jobs: Jobs, sort: Sort) -> list[int]:
    """Places of all jobs in an order: those that run, then those that wait; without a value last."""
    import numpy as np

    runs, everything = len(jobs.roll.jobs), len(jobs.roll.jobs) + len(jobs.roll.waiting)
    found = weights(jobs, sort)
    if found is not None:
        first = np.argsort(found[:runs], kind="stable").tolist()
        return [*first, *(np.argsort(found[runs:], kind="stable") + runs).tolist()]
    if sort.column == "user":
        names = [jobs.roll.at(at).user for at in range(everything)]
        return sorted(range(everything), key=lambda at: (at >= runs, names[at]))
    keys = [_id_key(jobs.roll.at(at).title) for at in range(everything)]
    return [
        *sorted(range(runs), key=keys.__getitem__),
        *sorted(range(runs, everything), key=keys.__getitem__),
    ]


def _id_key(title: str) -> tuple[float, tuple[object, ...]]:
    """A sort key that counts: bare numbers, which nearly all ids are, with the tasks of arrays behind them; then names."""
    number = _LEADING.match(title)
    rest = () if number is not None and number[0] == title else natural_key(title)
    return (float(number[0]) if number is not None else math.inf), rest


def kept_order(before: Sequence[str], roll: Roll) -> list[int]:
    """Places in the order that was shown before; who is new comes behind the others that run, or wait."""
    known = {at: number for number, key in enumerate(before) if (at := roll.place.get(key)) is not None}
    runs, everything = len(roll.jobs), len(roll.jobs) + len(roll.waiting)
    return sorted(range(everything), key=lambda at: (at >= runs, known.get(at, everything), at))


def sections(roll: Roll, places: Iterable[int], by: str) -> tuple[Group, ...]:
    """The groups of the jobs at some places: by a key of analyzers.jobs.KEYS, else those that run and those that wait."""
    from coldaisle.analyzers.jobs import group, groups

    runs = len(roll.jobs)
    places = list(places)
    running, waiting = [at for at in places if at < runs], [at - runs for at in places if at >= runs]
    if by:
        return groups(roll.held, roll.waiting, by, running, waiting)
    found = [group(RUNNING, roll.held, roll.waiting, running, ())] if running else []
    return (*found, *([group(PENDING, roll.held, roll.waiting, (), waiting)] if waiting else []))


def keys_of(roll: Roll, found: Sequence[Group], opened: Callable[[str], bool]) -> list[str]:
    """The rows' keys: each group's head, and its jobs where it is opened."""
    keys: list[str] = []
    for one in found:
        keys.append(HEAD + one.name)
        if opened(one.name):
            keys += [JOB + roll.jobs[number].id for number in one.running]
            keys += [JOB + roll.waiting[number].id for number in one.waiting]
    return keys


# --- cells -----------------------------------------------------------------------------------------


def job_cells(jobs: Jobs, key: str, placed: Sequence[Placed]) -> list[Cell]:
    """The cells of a job by its id, for the columns that are shown."""
    at = jobs.roll.place[key]
    job = jobs.roll.at(at)
    runs = at < len(jobs.roll.jobs)
    return [_cell(jobs, job, at if runs else -1, item) for item in placed]


def _cell(jobs: Jobs, job: Job, number: int, placed: Placed) -> Cell:
    """``number``: index into Snapshot.jobs; -1: it waits."""
    key = placed.column.key
    if key in _OF_ALL:
        return _OF_ALL[key](jobs, job)
    if key in _OF_QUEUE and number < 0:
        return _OF_QUEUE[key](jobs, job)
    if number < 0:
        return Run("")
    if key == "cells":
        return gpu_cells(jobs, job, placed.width)
    if key in _OF_RUNNING:
        return _OF_RUNNING[key](jobs, number)
    if key.startswith("job."):
        reading = read(jobs.snapshot, key, number)
        return Run(reading.text(), reading.token)
    return Run("")


def _name(jobs: Jobs, job: Job) -> Row:
    """``  4711 train-moe``; a Kubernetes workload's title has its name; a state that is not the usual one stands first."""
    usual = job.is_waiting or job.state == "RUNNING"
    state = () if usual else (Run(f"{plain(job.state.lower(), 10)} ", "warn"),)
    if job.workload_key is not None:
        return (Run("  "), *state, Run(plain(job.title), "text"))
    times = f" x{job.tasks}" if job.tasks > 1 else ""
    return (Run("  "), *state, Run(f"{plain(job.title)} ", "text"), Run(plain(job.name) + times, "dim"))


def _gpus(jobs: Jobs, job: Job) -> Run:
    from coldaisle.analyzers.jobs import gpus_of

    number = gpus_of(job)
    if not math.isnan(number):
        return Run(f"{number:.0f}")
    return Run(f"~{job.shares}" if job.shares else NO_VALUE, "text" if job.shares else "dim")


def _nodes(jobs: Jobs, job: Job) -> Run:
    if job.is_waiting:
        return Run(plain(why_waiting(job)), "accent" if _is_offered(job) else "warn")
    return Run(plain(folded(job.nodes)) if job.nodes else NO_VALUE, "text" if job.nodes else "dim")


def _is_offered(job: Job) -> bool:
    from coldaisle.analyzers.jobs import is_offered

    return is_offered(job)


def why_waiting(job: Job) -> str:
    """``(Resources)``; ``(Dependency) afterok:4711``."""
    after = f" {job.dependency}" if job.dependency and job.dependency != "(null)" else ""
    return f"({(job.reason or 'reason not told').strip('()')}){after}"


@lru_cache(maxsize=4096)
def folded(nodes: tuple[str, ...]) -> str:
    """Nodes as Slurm writes them: ``r07n[01-04]``."""
    from coldaisle.sources.nodesets import fold

    return fold(nodes)


def _waits(jobs: Jobs, job: Job) -> Run:
    return Run(age(jobs.snapshot.at - job.since), "text" if job.is_waiting else "dim")


def _starts(jobs: Jobs, job: Job) -> Run:
    if job.expected_at is None:
        return Run(NO_VALUE, "dim")
    ahead = job.expected_at - jobs.snapshot.at
    return Run(age(ahead) if ahead > 0 else "due", "text")


def _left(jobs: Jobs, number: int) -> Run:
    left = float(jobs.seen.left[number])
    if math.isnan(left):
        return Run(NO_VALUE, "dim")
    return Run("over" if left <= 0 else age(left), "warn" if left < 600 else "text")


def ratio(value: float, told: float, known: float) -> Run:
    """A share in whole per cent; faded where not all GPUs tell."""
    if math.isnan(value):
        return Run(NO_VALUE, "dim")
    return Run(f"{value * 100:.0f} %", "text" if told >= known else "stale")


def _active(jobs: Jobs, number: int) -> Run:
    seen = jobs.seen
    return ratio(float(seen.active[number]), float(seen.told[number]), float(jobs.roll.held.known[number]))


def _spread(jobs: Jobs, number: int) -> Run:
    low, high = float(jobs.seen.lowest[number]), float(jobs.seen.highest[number])
    if math.isnan(low):
        return Run(NO_VALUE, "dim")
    wide = high - low > SPREAD_WORTH
    return Run(f"{low * 100:.0f}..{high * 100:.0f}", "warn" if wide else "dim")


SPREAD_WORTH = 0.25
"""GPUs of one job that differ by more than this are marked."""
FULL = 0.95
"""Memory above this share is marked."""


def _memory(jobs: Jobs, number: int) -> Run:
    value = float(jobs.seen.memory[number])
    if math.isnan(value):
        return Run(NO_VALUE, "dim")
    return Run(f"{value * 100:.0f} %", "warn" if value >= FULL else "text")


def watts(value: float, whole: bool) -> Run:
    """A sum of powers; ``>`` where some do not tell."""
    if math.isnan(value):
        return Run(NO_VALUE, "dim")
    return Run(("" if whole else ">") + show(value, "W"))


def _power(jobs: Jobs, number: int) -> Run:
    whole = float(jobs.seen.powered[number]) >= float(jobs.roll.held.known[number])
    return watts(float(jobs.seen.power[number]), whole)


def _hours(jobs: Jobs, number: int) -> Run:
    return hours(float(jobs.seen.hours[number]))


def hours(value: float) -> Run:
    """GPU-hours."""
    if math.isnan(value):
        return Run(NO_VALUE, "dim")
    return Run(f"{value:.1f}" if value < 99.95 else show(value, "1"))


def gpu_cells(jobs: Jobs, job: Job, width: int) -> Row:
    """Its GPUs as Racks draws them, a character each; where there is no room, several share one: ``99X8 x4``."""
    import numpy as np

    if not job.gpus:
        return (Run("not told which" if width >= 14 else NO_VALUE, "dim"),)
    gpus = np.array(job.gpus, dtype=np.intp)
    if len(gpus) <= width:
        return merged(Run(cells.letter(code), cells.token(code)) for code in jobs.codes[gpus].tolist())
    count = len(gpus)
    each = next((n for n in range(2, count) if -(-count // n) + len(f" x{n}") <= width), count)
    values = cells.values_of(jobs.snapshot, jobs.metric.key)
    parts = [gpus[start : start + each] for start in range(0, len(gpus), each)]
    drawn = [cells.group_code(jobs.codes[part], values[part], jobs.metric) for part in parts]
    return (*merged(Run(cells.letter(code), cells.token(code)) for code in drawn), Run(f" x{each}", "dim"))


def _text(value: str | None) -> Run:
    return Run(plain(value), "text") if value else Run(NO_VALUE, "dim")


_OF_ALL: dict[str, Callable[[Jobs, Job], Cell]] = {
    "job": _name,
    "user": lambda jobs, job: _text(job.user),
    "account": lambda jobs, job: _text(job.account),
    "partition": lambda jobs, job: _text(job.partition),
    "qos": lambda jobs, job: _text(job.qos),
    "gpus": _gpus,
    "nodes": _nodes,
    "for": _waits,
    "cpus": lambda jobs, job: _text(str(job.cpus) if job.cpus is not None else None),
    "ram": lambda jobs, job: _text(show(float(job.memory_bytes), "B") if job.memory_bytes is not None else None),
    "restarts": lambda jobs, job: Run(str(job.restarts), "warn") if job.restarts else Run(""),
}  # fmt: skip
_OF_QUEUE: dict[str, Callable[[Jobs, Job], Cell]] = {"starts": _starts}


def _bound(jobs: Jobs, number: int) -> Run:
    found = jobs.snapshot.diagnosis.jobs.get(jobs.roll.jobs[number].id)
    if found is None or found.bound == "unknown":
        return Run(NO_VALUE, "dim")
    return Run("memory" if found.bound == "memory bandwidth" else plain(str(found.bound), 13))


_OF_RUNNING: dict[str, Callable[[Jobs, int], Cell]] = {
    "finding": lambda jobs, number: mark_of(jobs.snapshot, "jobs", number), "bound": _bound,
    "left": _left, "active": _active, "spread": _spread, "memory": _memory, "power": _power, "hours": _hours,
}  # fmt: skip


def head_cells(jobs: Jobs, one: Group, placed: Sequence[Placed], *, opened: bool) -> list[Cell]:
    """The cells of a group's head: its sums."""
    from coldaisle.analyzers.jobs import use_of

    use = use_of(one, jobs.seen)
    whole = not one.unsized
    running = f"{'' if whole else '>'}{one.gpus}"
    pending = not one.running
    name = plain(one.name) or "not told"
    is_section = one.name in (RUNNING, PENDING)
    waits = sum(jobs.roll.waiting[number].tasks for number in one.waiting)  # as the line below counts them
    count = len(one.running) + waits if is_section else len(one.running)
    counts = f" {count}{'' if is_section else ' run'}" if count else ""
    made: dict[str, Cell] = {
        "job": (Run("- " if opened else "+ ", "accent"), Run(name, "title"), Run(counts, "dim")),
        "gpus": Run(str(one.pending) if one.name == PENDING and pending else running, "title"),
        "nodes": _asks(one, waits, next((item.width for item in placed if item.column.key == "nodes"), 0))
        if one.waiting
        else Run(""),
        "active": Run("") if pending else ratio(use.active, 1, 1),
        "memory": Run("") if pending else ratio(use.memory, 1, 1),
        "power": Run("") if pending else watts(use.power, True),
        "hours": Run("") if pending else hours(use.hours),
    }  # fmt: skip
    return [made.get(item.column.key, Run("")) for item in placed]


def _asks(one: Group, waits: int, width: int) -> Run:
    """How much waits, for how many GPUs where no column has it, and how many of these wait for something else than hardware."""
    held = one.pending - one.offered
    asked = f"{waits} wait for {one.pending}" if one.name != PENDING else ""
    if held <= 0:
        return Run(asked, "accent")
    whole = f"{asked} ({held} held)".strip()
    return Run(whole if len(whole) <= width else asked, "warn")


def load_pieces(load: Load, now: float) -> list[Piece]:
    """What runs, what waits for hardware, what is held, and when the next one starts."""
    pieces = [Piece(0, (Run(f"{load.running.jobs} run on {load.running.gpus} GPUs"),))]
    if load.waiting.jobs:
        pieces.append(Piece(1, (Run(f"{load.waiting.jobs} wait for {load.waiting.gpus}", "accent"),)))
    if load.held.jobs:
        pieces.append(Piece(1, (Run(f"{load.held.jobs} held ({load.held.gpus})", "warn"),)))
    if load.waiting.jobs and load.next_start_at is not None and load.next_start_at > now:
        pieces.append(Piece(4, (Run(f"next starts in {age(load.next_start_at - now)}", "dim"),)))
    return pieces


HOW: tuple[tuple[str, str], ...] = (
    ("Slurm", "coldaisle --slurm on a login node: squeue, scontrol and sinfo are read, or slurmrestd; the whole queue comes with it"),
    ("Kubernetes", "coldaisle --exporter kube-state-metrics:8080: pods with GPUs become the jobs of their owners"),
    ("dcgm-exporter", "its labels hpc_job (--hpc-job-mapping-dir, which a Slurm prolog fills) or pod say who holds which GPU; no queue"),
    ("AMD", "device-metrics-exporter's job_id, job_user and job_partition labels say the same"),
)  # fmt: skip


def no_jobs(snapshot: Snapshot, width: int) -> list[Row]:
    """In place of the table: that there is no job now, or how to get to know of jobs."""
    if snapshot.jobs_known or snapshot.queues:
        return [(Run("no job runs or waits" if snapshot.live else "no job is known of that instant", "dim"),)]
    rows: list[Row] = [(Run("no source says whose GPUs these are", "warn"),), BLANK]
    column = max(cell_width(name) for name, _ in HOW) + 2
    for name, text in HOW:
        first, *rest = wrap(text, max(20, width - column))
        rows += [(Run(f"{name:<{column}}", "accent"), *first), *((Run(" " * column), *row) for row in rest)]
    return [
        *rows,
        BLANK,
        *wrap("coldaisle doctor tries what is configured and says what is missing.", width, "dim"),
    ]


def short_title(job: Job, width: int = 24) -> str:
    """A job's id and name in a note."""
    return clip(plain(job.title if job.workload_key else f"{job.title} {job.name}"), width)
