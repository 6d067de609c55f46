"""What the Serving screen says, as cells and row keys: pure functions of a snapshot and of what a history told."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from coldaisle.sources.text import plain
from coldaisle.sources.units import NO_VALUE, age, show
from coldaisle.tui.findings import mark_of
from coldaisle.tui.glyphs import UNICODE, Glyphs
from coldaisle.tui.reading import read, server_name, status_word
from coldaisle.tui.widgets.empty import failures
from coldaisle.tui.widgets.lines import BLANK, Row, Run, cut, row_width, wrap
from coldaisle.tui.widgets.table import Cell, Column, Placed

if TYPE_CHECKING:
    from coldaisle.analyzers.serving import Excursion, Grouping, Service, Totals, Verdict
    from coldaisle.analyzers.snapshot import SeriesAnswer, Snapshot, Times
    from coldaisle.sources.settings import ServingSettings
    from coldaisle.tui.cells import Flags

# analyzers.serving imports numpy, which must not load before the first paint: functions import it.

COLUMNS = (
    Column("name", "service", 14, keep=0),
    Column("ready", "ready", 7, keep=2),
    Column("running", "run", 5, right=True, keep=6),
    Column("waiting", "wait", 4, right=True, keep=4),
    Column("kv", "KV    full in", 13, keep=3),
    Column("preemptions", "pre/min", 7, right=True, keep=10),
    Column("ttft_p50", "TTFT50", 6, right=True, keep=14),
    Column("ttft_p99", "TTFT99", 6, right=True, keep=5),
    Column("itl_p99", "ITL99", 6, right=True, keep=8),
    Column("e2e_p95", "E2E95", 6, right=True, keep=17),
    Column("tokens", "tok/s", 5, right=True, keep=7),
    Column("prompts", "prompt", 6, right=True, keep=21),
    Column("tokens_per_joule", "tok/J", 5, right=True, keep=12),
    Column("requests", "req/s", 5, right=True, keep=15),
    Column("errors", "errors", 6, right=True, keep=11),
    Column("imbalance", "imbal", 5, right=True, keep=13),
    Column("prefix_hit", "prefix", 6, right=True, keep=16),
    Column("kv_tokens", "KV tokens", 13, right=True, keep=20),
    Column("gpus", "GPUs", 8, keep=19),
    Column("engine", "engine", 8, keep=18),
    Column("model", "model", 14, keep=22),
    Column("outside", "outside", 7, right=True, keep=9),
    Column("slo", "SLO", 11, keep=1, grows=True),
)
FINDING = Column("finding", "finding", 12, keep=2)
"""The worst that touches it; a column once there is a diagnosis."""


def columns(*, diagnosed: bool) -> tuple[Column, ...]:
    """The columns, with the finding behind how many are ready."""
    return (*COLUMNS[:2], FINDING, *COLUMNS[2:]) if diagnosed else COLUMNS


SERVICE, REPLICA = "s ", "r "
"""What a row's key begins with; the key of a service or of a server follows."""
KV_BAR = 5
FULL_SOON_S = 120.0
"""A cache that is full so soon is marked (our choice)."""
PREEMPTIONS_WORTH = 1 / 60
"""Preemptions a second that mean pressure: one a minute (our choice)."""
UNEVEN = 2.0
ERRORS_WORTH = 0.01
LATENCIES = ("ttft_p50", "ttft_p99", "itl_p99", "e2e_p95")
TREND_S, TREND_FOR_FULL_S = 900.0, 300.0
"""How far back objectives are looked at here, and how far a trend of the KV cache."""
MOST_ASKED = 256
"""Replicas whose past is asked for here; the most pressing ones."""


class Sort(NamedTuple):
    """An order of services, and of replicas within each."""

    column: str
    name: str


SORTS = (
    Sort("name", "name"),
    Sort("slo", "SLO, worst first"),
    Sort("kv", "KV cache, fullest first"),
    Sort("waiting", "waiting, most first"),
    Sort("ttft_p99", "TTFT p99, longest first"),
    Sort("tokens", "tokens/s, most first"),
    Sort("errors", "errors, most first"),
    Sort("imbalance", "imbalance, worst first"),
    Sort("ready", "missing replicas first"),
)


@dataclass(frozen=True, slots=True, eq=False)
class Trends:
    """What the history told."""

    full: Mapping[str, float] = field(default_factory=dict)
    """By server key: seconds until its KV cache is full."""
    outside: Mapping[tuple[str, str], Excursion] = field(default_factory=dict)
    """By service key and objective: how it was kept."""


@dataclass(frozen=True, slots=True, eq=False)
class Serving:
    """Everything the cells are made of."""

    snapshot: Snapshot
    found: Totals
    limits: Mapping[str, Times]
    trends: Trends = field(default_factory=Trends)

    @property
    def grouping(self) -> Grouping:
        """Who belongs to which service."""
        return self.found.grouping


def serving(
    snapshot: Snapshot, grouping: Grouping, settings: ServingSettings | None, trends: Trends | None = None
) -> Serving:
    """A snapshot's services, with their objectives."""
    from coldaisle.analyzers.serving import limits_of, totals

    limits = limits_of(grouping, settings) if settings is not None else {}
    return Serving(snapshot, totals(snapshot, grouping), limits, trends or Trends())


# rows


def order(view: Serving, sort: Sort) -> list[str]:
    """Keys of all rows: services in an order, each followed by its replicas; without a value last, equal ones by name."""
    import numpy as np

    grouping = view.grouping
    services = range(len(grouping.services))
    by_service: Sequence[int] = services
    place = {server: server for server in range(len(grouping.of_server))}
    if sort.column != "name":
        by_service = np.argsort(-_service_weights(view, sort.column), kind="stable").tolist()
        ranked = np.argsort(-_replica_weights(view, sort.column), kind="stable").tolist()
        place = {server: at for at, server in enumerate(ranked)}
    keys = []
    for number in by_service:
        service = grouping.services[number]
        keys.append(SERVICE + service.key)
        servers = sorted(service.servers, key=place.__getitem__)
        keys += [REPLICA + grouping.layout.servers[server].key for server in servers]
    return keys


def visible(keys: Sequence[str], view: Serving, opened: set[str], wanted: Flags | None) -> list[str]:
    """The rows in sight: all services, the replicas of those that are opened.

    Args:
        wanted: [server] what a filter keeps: services with one of these, and of a service that is not kept whole
            these replicas. None: no filter.
    """
    grouping = view.grouping
    shown: list[str] = []
    service, some, whole = "", True, True
    for key in keys:
        if key.startswith(SERVICE):
            service = key.removeprefix(SERVICE)
            servers = grouping.services[grouping.by_key[service]].servers
            kept = 0 if wanted is None else sum(bool(wanted[server]) for server in servers)
            whole = wanted is None or kept == len(servers)
            some = whole or kept > 0
            if some:
                shown.append(key)
        elif whole:
            if service in opened:
                shown.append(key)
        elif some and wanted is not None and wanted[grouping.servers[key.removeprefix(REPLICA)]]:
            shown.append(key)
    return shown


def row_cells(
    view: Serving, key: str, placed: Sequence[Placed], glyphs: Glyphs = UNICODE, *, opened: bool
) -> list[Cell]:
    """The cells of a row, each as long as its column has room for whole words."""
    cells = _row_cells(view, key, [item.column.key for item in placed], glyphs, opened=opened)
    return [
        that_fit(cell, item.width) if item.column.grows and not isinstance(cell, Run) else cell
        for cell, item in zip(cells, placed, strict=True)
    ]


def _row_cells(
    view: Serving, key: str, columns: Sequence[str], glyphs: Glyphs, *, opened: bool
) -> list[Cell]:
    if key.startswith(SERVICE):
        return service_cells(
            view, view.grouping.by_key[key.removeprefix(SERVICE)], columns, glyphs, opened=opened
        )
    return replica_cells(view, view.grouping.servers[key.removeprefix(REPLICA)], columns, glyphs)


# a service


def service_cells(
    view: Serving, number: int, columns: Sequence[str], glyphs: Glyphs = UNICODE, *, opened: bool = False
) -> list[Cell]:
    """A service's cells for some columns."""
    from coldaisle.analyzers import serving as sums

    service = view.grouping.services[number]
    makers: dict[str, Callable[[], Cell]] = {
        "name": lambda: (Run("- " if opened else "+ ", "dim"), Run(plain(service.name), "title")),
        "ready": lambda: ready_run(view, number),
        "finding": lambda: _service_finding(view, service),
        "running": lambda: _sum(view, "serve.running", number, count),
        "waiting": lambda: _sum(view, "serve.waiting", number, count),
        "kv": lambda: _service_kv(view, number, glyphs),
        "preemptions": lambda: preemptions_run(view.found.figure("serve.preemptions", number).value),
        "tokens": lambda: _sum(view, "serve.gen_tokens", number, brief),
        "prompts": lambda: _sum(view, "serve.prompt_tokens", number, brief),
        "tokens_per_joule": lambda: value_run(view.found.figure(sums.TOKENS_PER_JOULE, number).value, "1"),
        "requests": lambda: _sum(view, "serve.requests", number, brief),
        "errors": lambda: errors_run(
            view.found.figure(sums.ERROR_SHARE, number).value, view.found.figure("serve.errors", number).value
        ),
        "imbalance": lambda: imbalance_run(view.found.figure(sums.IMBALANCE, number).value),
        "prefix_hit": lambda: value_run(view.found.figure(sums.PREFIX_HIT, number).value, "ratio"),
        "kv_tokens": lambda: kv_tokens_run(
            view.found.figure("serve.kv_used", number).value,
            view.found.figure("serve.kv_capacity", number).value,
        ),
        "gpus": lambda: _gpu_count(view, service),
        "engine": lambda: Run(_same(view.snapshot.layout.servers[s].engine for s in service.servers)),
        "model": lambda: Run(
            plain(service.model) if service.model else NO_VALUE, "text" if service.model else "dim"
        ),
        "outside": lambda: _outside(view, number),
        "slo": lambda: slo_row(sums.verdicts(view.found, view.limits, number), idle=is_idle(view, number)),
    }
    latency = {name: view.found.figure(f"serve.{name}", number).value for name in LATENCIES}
    return [
        latency_run(latency[column], _limit(view, column, number)) if column in latency else makers[column]()
        for column in columns
    ]


def ready_run(view: Serving, number: int) -> Run:
    """``19/20``: ready of expected; where nobody says how many there should be, of those ever heard of."""
    ready, known = int(view.found.ready_count[number]), len(view.grouping.services[number].servers)
    expected = view.found.expected[number]
    whole = known if math.isnan(expected) else int(expected)
    if math.isnan(expected) and ready == known:
        return Run(str(ready), "ok")
    return Run(f"{ready}/{whole}", "ok" if ready >= whole else "warn" if ready else "bad")


def _service_kv(view: Serving, number: int, glyphs: Glyphs) -> Row:
    """The fullest replica, and the time until the first one is full."""
    ready = [server for server in view.grouping.services[number].servers if view.found.ready[server]]
    keys = [view.snapshot.layout.servers[server].key for server in ready]
    ahead = [view.trends.full[key] for key in keys if key in view.trends.full]
    figure = view.found.figure("serve.kv_usage", number)
    waits = view.found.figure("serve.waiting", number).value > 0
    return kv_row(figure.value, min(ahead, default=math.nan), glyphs, waits=waits)


def _sum(view: Serving, key: str, number: int, words: Callable[[float], str]) -> Run:
    """A sum; ``>`` where replicas that are ready do not tell."""
    figure = view.found.figure(key, number)
    if math.isnan(figure.value):
        return Run(NO_VALUE, "dim")
    partly = figure.told < view.found.ready_count[number]
    return Run((">" if partly else "") + words(figure.value))


def _service_finding(view: Serving, service: Service) -> Run:
    """The worst finding of any of its replicas."""
    from coldaisle.analyzers.touching import touching

    hits = touching(view.snapshot).servers
    touched = [server for server in service.servers if server in hits]
    if not touched:
        return Run("")
    return mark_of(view.snapshot, "servers", min(touched, key=lambda server: hits[server][0].finding))


def _gpu_count(view: Serving, service: Service) -> Run:
    gpus = {gpu for server in service.servers for gpu in view.snapshot.layout.servers[server].gpus}
    return Run(f"{len(gpus)}") if gpus else Run(NO_VALUE, "dim")


def _same(texts: object) -> str:
    """The one text that all have; ``mixed``; a dash where nobody has any."""
    found = {plain(text) for text in texts if text}  # type: ignore[attr-defined]
    return found.pop() if len(found) == 1 else "mixed" if found else NO_VALUE


# a replica


def replica_cells(view: Serving, server: int, columns: Sequence[str], glyphs: Glyphs = UNICODE) -> list[Cell]:
    """One server's cells for some columns."""
    from coldaisle.analyzers import serving as sums

    snapshot = view.snapshot
    known = snapshot.layout.servers[server]
    number = int(view.grouping.of_server[server])
    computed = {
        key: float(view.found.replicas[key][server]) for key in (sums.TOKENS_PER_JOULE, sums.ERROR_SHARE)
    }
    makers: dict[str, Callable[[], Cell]] = {
        "name": lambda: (Run("  "), Run(server_name(snapshot, server), state_of(view, server)[1])),
        "ready": lambda: Run(*state_of(view, server)),
        "finding": lambda: mark_of(snapshot, "servers", server),
        "running": lambda: _replica(view, "serve.running", server, count),
        "waiting": lambda: _replica(view, "serve.waiting", server, count),
        "kv": lambda: _replica_kv(view, server, glyphs),
        "preemptions": lambda: _replica(view, "serve.preemptions", server, preemptions_run),
        "tokens": lambda: _replica(view, "serve.gen_tokens", server, brief),
        "prompts": lambda: _replica(view, "serve.prompt_tokens", server, brief),
        "tokens_per_joule": lambda: value_run(computed[sums.TOKENS_PER_JOULE], "1"),
        "requests": lambda: _replica(view, "serve.requests", server, brief),
        "errors": lambda: errors_run(computed[sums.ERROR_SHARE], _fresh(view, "serve.errors", server)),
        "imbalance": lambda: Run(""),
        "prefix_hit": lambda: _replica(view, "serve.prefix_hit", server, lambda value: show(value, "ratio")),
        "kv_tokens": lambda: kv_tokens_run(
            _fresh(view, "serve.kv_used", server), _fresh(view, "serve.kv_capacity", server)
        ),
        "gpus": lambda: Run(slots_of(snapshot, server), "text" if known.gpus else "dim"),
        "engine": lambda: Run(plain(known.engine or NO_VALUE), "dim"),
        "model": lambda: Run(plain(known.version or ""), "dim"),
        "outside": lambda: Run(""),
        "slo": lambda: slo_row(sums.replica_verdicts(snapshot, view.found, view.limits, server)),
    }
    return [
        _replica(
            view,
            f"serve.{column}",
            server,
            lambda value, c=column: latency_run(value, _limit(view, c, number)),
        )
        if column in LATENCIES
        else makers[column]()
        for column in columns
    ]


def state_of(view: Serving, server: int) -> tuple[str, str]:
    """How a replica is: word and token."""
    if view.found.ready[server]:
        return "ready", "ok"
    code = int(view.snapshot.server_status[server]) if server < len(view.snapshot.server_status) else 0
    return ("down", "bad") if code == 1 else status_word(code)


def slots_of(snapshot: Snapshot, server: int) -> str:
    """``0-3`` or ``0,4,5``: slots on its node; GPUs on other nodes are counted behind."""
    known = snapshot.layout.servers[server]
    gpus = [snapshot.layout.gpus[gpu] for gpu in known.gpus]
    slots = sorted({gpu.slot for gpu in gpus if gpu.node == known.node})
    others = sum(gpu.node != known.node for gpu in gpus)
    if slots and slots == list(range(slots[0], slots[-1] + 1)):
        text = f"{slots[0]}-{slots[-1]}" if len(slots) > 1 else str(slots[0])
    else:
        text = ",".join(map(str, slots))
    return f"{text} +{others}".strip() if others else text or NO_VALUE


def _replica(
    view: Serving, key: str, server: int, words: Callable[[float], str] | Callable[[float], Run]
) -> Run:
    """A measured value; a dash where it is missing, faded where it or the replica is old."""
    reading = read(view.snapshot, key, server)
    if reading.missing:
        return Run(NO_VALUE, "dim")
    said = words(reading.value)
    run = Run(said) if isinstance(said, str) else said
    return run if reading.token == "text" and view.found.ready[server] else Run(run.text, "stale")


def _fresh(view: Serving, key: str, server: int) -> float:
    reading = read(view.snapshot, key, server)
    return math.nan if reading.why or not view.found.ready[server] else reading.value


def _replica_kv(view: Serving, server: int, glyphs: Glyphs) -> Row:
    reading = read(view.snapshot, "serve.kv_usage", server)
    ready = bool(view.found.ready[server])
    key = view.snapshot.layout.servers[server].key
    full = view.trends.full.get(key, math.nan) if ready else math.nan
    waits = read(view.snapshot, "serve.waiting", server).value > 0
    row = kv_row(reading.value, full, glyphs, waits=waits)
    if reading.missing or (ready and not reading.why):
        return row
    return tuple(Run(run.text, "stale") for run in row)


# values as people read them


def brief(value: float) -> str:
    """A number in at most five cells: ``0.04``, ``31.2k``."""
    return show(value, "1").replace(" ", "")


def count(value: float) -> str:
    """Whole things in at most four cells: ``104``, ``12k``."""
    return f"{value:.0f}" if value < 9999.5 else f"{value / 1e3:.0f}k" if value < 999_500 else brief(value)


def short_time(value: float) -> str:
    """A latency in at most six cells: ``84 ms``, ``7.2 s``, ``12m30s``."""
    text = show(value, "s")
    return f"{value * 1e3:.0f} ms" if len(text) > 6 and value < 1 else text


def that_fit(row: Row, width: int) -> Row:
    """The first runs of a row that fit whole; the first one is always there."""
    kept: list[Run] = []
    for run in row:
        if kept and row_width((*kept, run)) > width:
            break
        kept.append(run)
    return tuple(kept)


def value_run(value: float, unit: str) -> Run:
    """A value, or a dash."""
    return Run(NO_VALUE, "dim") if math.isnan(value) else Run(show(value, unit))


def latency_run(value: float, limit: float) -> Run:
    """A latency, marked where it is outside the objective."""
    return Run(short_time(value), "dim" if math.isnan(value) else "bad" if value > limit else "text")


def preemptions_run(value: float) -> Run:
    """Preemptions a minute."""
    if math.isnan(value):
        return Run(NO_VALUE, "dim")
    return Run(brief(value * 60), "warn" if value >= PREEMPTIONS_WORTH else "text")


def errors_run(share: float, rate: float) -> Run:
    """The share of requests that fail; without traffic their rate."""
    if math.isnan(share):
        return value_run(rate, "/s")
    return Run(show(share, "ratio"), "warn" if share >= ERRORS_WORTH else "text")


def imbalance_run(value: float) -> Run:
    """``x2.4``: the busiest replica over the mean."""
    if math.isnan(value):
        return Run(NO_VALUE, "dim")
    return Run(f"x{value:.1f}", "warn" if value >= UNEVEN else "text")


def kv_tokens_run(used: float, capacity: float) -> Run:
    """``1.2M/5.3M``"""
    if math.isnan(used) and math.isnan(capacity):
        return Run(NO_VALUE, "dim")
    return Run("/".join(NO_VALUE if math.isnan(value) else brief(value) for value in (used, capacity)))


def kv_row(usage: float, full: float, glyphs: Glyphs, *, waits: bool) -> Row:
    """A bar, per cent, and when it will be full."""
    if math.isnan(usage):
        return (Run(NO_VALUE, "dim"),)
    share = min(max(usage, 0.0), 1.0)
    filled = round(share * KV_BAR) if share < 0.1 else max(1, round(share * KV_BAR))
    token = f"scale{round(share * 10)}"
    row = (
        Run(glyphs.bar * filled, token),
        Run(glyphs.trough * (KV_BAR - filled), "rule"),
        Run(f"{share * 100:3.0f}%"),
    )
    return row if math.isnan(full) else (*row, _full_run(full, waits=waits))


def _full_run(seconds: float, *, waits: bool) -> Run:
    """`` 12m`` until it is full."""
    if seconds <= 0:
        return Run("full", "warn" if waits else "dim")
    words = f"{seconds:.0f}s" if seconds < 100 else f"{seconds / 60:.0f}m"
    return Run(f"{words:>4}", "warn" if seconds < FULL_SOON_S else "text")


def is_idle(view: Serving, number: int) -> bool:
    """Whether a service has nothing to do, so that no promise can be broken or kept."""
    asked = [
        view.found.figure(key, number).value for key in ("serve.requests", "serve.running", "serve.waiting")
    ]
    return not any(value != 0 for value in asked)


def _outside(view: Serving, number: int) -> Run:
    """For how long the promise that is broken most has been."""
    from coldaisle.analyzers.serving import verdicts

    broken = [verdict for verdict in verdicts(view.found, view.limits, number) if verdict.broken]
    if not broken:
        return Run("")
    worst = max(broken, key=lambda verdict: verdict.strain)
    kept = view.trends.outside.get((view.grouping.services[number].key, worst.name))
    return Run(since_words(kept, view.snapshot.at), "warn")


def slo_row(verdicts: Sequence[Verdict], *, idle: bool = False) -> Row:
    """The promise that is broken most, and by how much; else that all are kept, or that none is known."""
    if not verdicts:
        return (Run("none set", "dim"),)
    known = [verdict for verdict in verdicts if verdict.known]
    if not known:
        return (Run("idle" if idle else "? unknown", "dim"),)
    broken = sorted((v for v in known if v.broken), key=lambda verdict: -verdict.strain)
    if not broken:
        some = f" {len(known)}/{len(verdicts)}" if len(known) < len(verdicts) else ""
        return (Run("+ met", "ok"), Run(some, "dim"))
    worst = broken[0]
    runs = [Run(f"! {objective_name(worst.name).split()[0]} {times_over(worst)}", "bad")]
    runs.append(
        Run(f"  {show(worst.value, unit_of(worst.name))} of {show(worst.limit, unit_of(worst.name))}")
    )
    runs += [Run(f"  +{len(broken) - 1} more", "bad")] if len(broken) > 1 else []
    return tuple(runs)


def times_over(verdict: Verdict) -> str:
    """``x3.3``: by how much a promise is broken."""
    ratio = verdict.strain
    return (
        "x>999"
        if ratio > 999
        else f"x{ratio:.0f}"
        if ratio >= 10
        else f"x{ratio:.1f}"
        if ratio >= 1.05
        else "x1.0"
    )


def since_words(kept: Excursion | None, now: float) -> str:
    """``4m10s``; ``>15m00s`` where it was so before the window; empty: not known."""
    if kept is None or kept.since is None:
        return ""
    return f"{'>' if kept.since_bound else ''}{age(now - kept.since)}"


def objective_name(name: str) -> str:
    """``TTFT p99`` of ``ttft_p99``."""
    what, _, share = name.partition("_")
    return f"{what.upper() if what in ('ttft', 'itl', 'e2e') else what} {share}".strip()


def unit_of(name: str) -> str:
    """The unit of an objective."""
    return "ratio" if name == "errors" else "s"


# what is asked of the history


class Pressing(NamedTuple):
    """Replicas and metrics whose past matters now."""

    keys: tuple[str, ...]
    entities: tuple[str, ...]


def pressing(view: Serving) -> Pressing:
    """The replicas of services that break a promise now, then the fullest, as many as are asked for."""
    import numpy as np

    from coldaisle.analyzers.serving import FULL_FROM, keys_for, verdicts

    wanted: dict[int, None] = {}
    keys = {"serve.kv_usage": None}
    for number, service in enumerate(view.grouping.services):
        broken = [v.name for v in verdicts(view.found, view.limits, number) if v.broken]
        if broken and len(wanted) + len(service.servers) <= MOST_ASKED:
            wanted |= dict.fromkeys(service.servers)
            keys |= dict.fromkeys(key for name in broken for key in keys_for(name))
    usage = np.where(view.found.ready, _of_servers(view.snapshot, "serve.kv_usage"), np.nan)
    for server in np.argsort(-usage, kind="stable").tolist():
        if len(wanted) >= MOST_ASKED or not usage[server] >= FULL_FROM:
            break
        wanted[server] = None
    names = view.snapshot.layout.servers
    return Pressing(tuple(keys), tuple(names[server].key for server in sorted(wanted)))


def trends_of(view: Serving, answer: SeriesAnswer | None) -> Trends:
    """What an answer tells of the replicas and services that it covers."""
    from coldaisle.analyzers.serving import excursion, folded, measure, time_to_full

    if answer is None or "serve.kv_usage" not in answer.values:
        return Trends()
    row_of = {key: row for row, key in enumerate(answer.query.entities)}
    recent = answer.times >= answer.query.end - TREND_FOR_FULL_S
    seconds = time_to_full(answer.times[recent], answer.values["serve.kv_usage"][:, recent])
    full = {key: float(seconds[row]) for key, row in row_of.items() if not math.isnan(seconds[row])}
    outside = {}
    names = view.snapshot.layout.servers
    for number, service in enumerate(view.grouping.services):
        rows = [row_of[names[s].key] for s in service.servers if names[s].key in row_of]
        if len(rows) < len(service.servers):
            continue
        for name, column in view.limits.items():
            if not math.isnan(column[number]):
                series = folded(answer.values, measure(name), rows)
                outside[service.key, name] = excursion(answer.times, series, float(column[number]))
    return Trends(full, outside)


# nothing to show


def no_server(snapshot: Snapshot, width: int) -> list[Row]:
    """In place of the table: who could tell of inference servers, and how; then what fails."""
    rows: list[Row] = [(Run("no inference server is known", "warn"),), BLANK]
    rows += wrap(
        "vLLM, SGLang, TGI and TensorRT-LLM tell how they are on a page of metrics. Scrape the pages:", width
    )
    rows.append((Run("  coldaisle --exporter 'serve[1-4]:8000'", "accent"),))
    rows += wrap("or read them from the Prometheus server that scrapes them already:", width)
    rows.append((Run("  coldaisle --prometheus http://prom:9090", "accent"),))
    rows.append(BLANK)
    for engine, hint in ENGINES:
        rows.append(cut((Run(f"  {engine:<14}", "text"), Run(hint, "dim")), width))
    rows += [BLANK, cut((Run("  coldaisle demo", "accent"), Run("  shows simulated services", "dim")), width)]
    failing = failures(snapshot, width)
    return [*rows, *failing] if failing else rows


ENGINES = (
    ("vLLM", "port 8000, /metrics; on by itself"),
    ("SGLang", "port 30000, /metrics; start it with --enable-metrics"),
    ("TGI", "its port, /metrics; on by itself; no KV cache usage"),
    ("Triton", "port 8002, /metrics; on by itself"),
    ("trtllm-serve", "port 8000, /prometheus/metrics; return_perf_metrics: true"),
)
"""Where each engine's page is, and what switches it on."""


# the parts


def _limit(view: Serving, name: str, number: int) -> float:
    return float(view.limits[name][number]) if name in view.limits else math.nan


def _service_weights(view: Serving, column: str) -> Times:
    """[service] what services are sorted by, the highest first; NaN: last."""
    import numpy as np

    from coldaisle.analyzers import serving as sums

    if column == "slo":
        return sums.strain(view.found, view.limits)
    if column == "ready":
        known = np.array([len(service.servers) for service in view.grouping.services], dtype=np.float64)
        return np.where(np.isnan(view.found.expected), known, view.found.expected) - view.found.ready_count
    return view.found.values[_KEY_OF[column]]


def _replica_weights(view: Serving, column: str) -> Times:
    """[server] the same within a service."""
    import numpy as np

    from coldaisle.analyzers import serving as sums

    if column == "slo":
        worst = np.full(len(view.found.ready), np.nan)
        for name, limits in view.limits.items():
            key = sums.measure(name)
            values = (
                view.found.replicas[key] if key in view.found.replicas else _of_servers(view.snapshot, key)
            )
            with np.errstate(invalid="ignore", divide="ignore"):
                worst = np.fmax(worst, values / limits[view.grouping.of_server])
        return worst
    if column == "ready":
        return -view.found.ready.astype(np.float64)
    key = {"errors": sums.ERROR_SHARE, "imbalance": "serve.kv_usage"}.get(column, _KEY_OF[column])
    return view.found.replicas[key] if key in view.found.replicas else _of_servers(view.snapshot, key)


_KEY_OF = {
    "kv": "serve.kv_usage",
    "waiting": "serve.waiting",
    "ttft_p99": "serve.ttft_p99",
    "tokens": "serve.gen_tokens",
    "errors": "error_share",
    "imbalance": "imbalance",
}


def _of_servers(snapshot: Snapshot, key: str) -> Times:
    """[server] of a metric; NaN where nobody delivers it."""
    import numpy as np

    column, size = snapshot.column(key), len(snapshot.layout.servers)
    if column is None or len(column.values) != size:
        return np.full(size, np.nan)
    return column.values.astype(np.float64)
