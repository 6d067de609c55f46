"""Inference services: replicas put together, summed where sums mean something, else told of the worst one.

A percentile of a service cannot be had from the percentiles of its replicas: what is told is the worst
replica's. A replica that is silent or down is counted and takes part in no sum and no mean. Pure functions of
a snapshot or of a series answer, vectorised over thousands of replicas.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from coldaisle.analyzers.snapshot import Snapshot, Status, Times
from coldaisle.sources.settings import SLO_NAMES
from coldaisle.sources.source import Missing
from coldaisle.sources.text import natural_key

if TYPE_CHECKING:
    from coldaisle.sources.cluster import Layout, Rows, Server
    from coldaisle.sources.settings import ServingSettings

Ints = NDArray[np.intp]
Bools = NDArray[np.bool_]
Series = NDArray[np.float64]

SUMS = (
    "serve.running", "serve.waiting", "serve.swapped", "serve.max_running", "serve.preemptions", "serve.evicted",
    "serve.prompt_tokens", "serve.gen_tokens", "serve.requests", "serve.errors", "serve.kv_used", "serve.kv_capacity",
)  # fmt: skip
"""What the replicas of a service have together."""
WORST = (
    "serve.kv_usage", "serve.cpu_kv_usage", "serve.swa_usage", "serve.mamba_usage",
    *(f"serve.{what}_{share}" for what in ("ttft", "itl", "e2e") for share in ("p50", "p95", "p99")),
    "serve.queue_p50", "serve.queue_p99",
)  # fmt: skip
"""What is told of the replica where it is highest."""
PREFIX_HIT = "serve.prefix_hit"
KV_MEAN = "kv_mean"
"""KV cache in use, of the capacity of all replicas; where no capacity is told, the plain mean."""
IMBALANCE = "imbalance"
"""The busiest replica over the mean: by KV cache where it is told, else by running requests."""
TOKENS_PER_JOULE = "tokens_per_joule"
"""Tokens generated over the energy of the GPUs that replicas have for themselves."""
ERROR_SHARE = "error_share"
"""Requests that failed, of all that ended."""

BUSY_KV, BUSY_RUNNING = 0.02, 2.0
"""Mean load of a replica under which an imbalance is chance (our choice)."""
FULL_AT = 0.95
"""Usage from which a cache counts as full: admissions wait for room (our choice)."""
FULL_FROM = 0.5
"""Usage under which a trend of the KV cache is nobody's worry (our choice)."""
FULL_WITHIN_S = 3600.0
"""A trend of a few minutes says nothing of what lies farther ahead (our choice)."""
SURE = 3.0
"""Standard errors by which a slope must be above zero to count as rising."""
LEAST_POINTS = 6


class Service(NamedTuple):
    """Replicas that clients see as one: of one model and deployment, else of one model, else a server alone."""

    key: str
    """Unique and stable; not for showing."""
    name: str
    """As people know it; other people's text."""
    model: str | None
    deployment: str | None
    servers: tuple[int, ...]
    """Indices into Layout.servers."""


@dataclass(frozen=True, slots=True, eq=False)
class Grouping:
    """Who belongs to which service; follows from a layout alone, so it is made once for each."""

    layout: Layout
    services: tuple[Service, ...]
    """By name."""
    of_server: Rows
    """[server] index into services."""
    by_key: Mapping[str, int]
    servers: Mapping[str, int]
    """Server key -> index into Layout.servers."""
    gpus: Rows
    """[pair] GPUs of servers, flat: index into Layout.gpus ..."""
    gpu_server: Rows
    """[pair] ... and the server that runs on it."""
    shared: Bools
    """[server] whether another server runs on one of its GPUs."""

    def service_of(self, server: int) -> Service:
        """The service that a server belongs to."""
        return self.services[int(self.of_server[server])]


class Figure(NamedTuple):
    """One number of a service."""

    value: float
    """NaN: nobody tells."""
    told: int
    """Replicas that it speaks of."""
    worst: int = -1
    """The server that it is the value of; -1: of no single one."""


@dataclass(frozen=True, slots=True, eq=False)
class Totals:
    """All services at an instant, and the replicas' numbers that are not measured but computed."""

    grouping: Grouping
    ready: Bools
    """[server] heard of, and not down."""
    ready_count: Ints
    """[service]"""
    expected: Times
    """[service] replicas that there should be; NaN: nobody says."""
    values: Mapping[str, Times]
    """[service] of a catalog key or of one of the names above."""
    told: Mapping[str, Ints]
    """[service] replicas that tell it."""
    worst: Mapping[str, Ints]
    """[service] the server with the highest value; -1: none. Of WORST only."""
    replicas: Mapping[str, Times]
    """[server] TOKENS_PER_JOULE and ERROR_SHARE; NaN: missing."""

    def figure(self, key: str, service: int) -> Figure:
        """A number of a service; what no source delivers is missing."""
        if key not in self.values:
            return Figure(math.nan, 0)
        worst = int(self.worst[key][service]) if key in self.worst else -1
        return Figure(float(self.values[key][service]), int(self.told[key][service]), worst)


class Verdict(NamedTuple):
    """A promise of a service, and how it is kept now."""

    name: str
    """As in the configuration: ``ttft_p99``."""
    limit: float
    """Seconds; ``errors``: a ratio."""
    value: float
    """Of the worst replica, or of all requests; NaN: not known."""
    worst: int = -1
    """The server that it is the value of."""

    @property
    def known(self) -> bool:
        return not math.isnan(self.value)

    @property
    def broken(self) -> bool:
        """Whether the value is outside the limit; what is not known is not broken."""
        return self.value > self.limit

    @property
    def strain(self) -> float:
        """Value over limit: above 1 is outside; NaN: not known."""
        return float(_strain(np.array([self.value]), np.array([self.limit]))[0])


class Excursion(NamedTuple):
    """How a series kept to a limit over a window."""

    share: float
    """Of the points that have a value, those outside; NaN: none has one."""
    since: float | None
    """Since when it is outside without a break; None: it is not, at the end."""
    since_bound: bool = False
    """Whether it was outside already when the window begins."""


def group(layout: Layout) -> Grouping:
    """The services of a layout, in natural order of their names."""
    members: dict[tuple[str | None, ...], list[int]] = {}
    for index, server in enumerate(layout.servers):
        members.setdefault(_identity(server), []).append(index)
    deployments = [identity[0] for identity in members]
    found = [_service(layout, who, rows, deployments.count(who[0]) > 1) for who, rows in members.items()]
    services = tuple(sorted(found, key=lambda service: (natural_key(service.name), service.key)))
    of_server = np.zeros(len(layout.servers), dtype=np.intp)
    for number, service in enumerate(services):
        of_server[list(service.servers)] = number
    pairs = [(gpu, index) for index, server in enumerate(layout.servers) for gpu in server.gpus]
    gpus, gpu_server = (np.array([pair[i] for pair in pairs], dtype=np.intp) for i in (0, 1))
    users = np.bincount(gpus, minlength=len(layout.gpus))
    shared = np.bincount(gpu_server[users[gpus] > 1], minlength=len(layout.servers)) > 0
    return Grouping(
        layout,
        services,
        of_server,
        {service.key: number for number, service in enumerate(services)},
        {server.key: index for index, server in enumerate(layout.servers)},
        gpus,
        gpu_server,
        shared,
    )


def totals(snapshot: Snapshot, grouping: Grouping) -> Totals:
    """Every number of every service. ``grouping`` is of the snapshot's layout."""
    ready = _ready(snapshot)
    size, of = len(grouping.services), grouping.of_server
    fresh = {key: _fresh(snapshot, key, ready) for key in (*SUMS, *WORST, PREFIX_HIT)}
    values: dict[str, Times] = {}
    told: dict[str, Ints] = {}
    worst: dict[str, Ints] = {}
    for key in SUMS:
        values[key], told[key] = _sum(fresh[key], of, size)
    for key in WORST:
        values[key], told[key], worst[key] = _highest(fresh[key], of, size)
    capacity, prompts = fresh["serve.kv_capacity"], fresh["serve.prompt_tokens"]
    values[KV_MEAN], told[KV_MEAN] = _mean(fresh["serve.kv_usage"], capacity, of, size)
    values[PREFIX_HIT], told[PREFIX_HIT] = _mean(fresh[PREFIX_HIT], prompts, of, size)
    values[IMBALANCE], told[IMBALANCE] = _imbalance(fresh, of, size)
    power = _power(snapshot, grouping)
    tokens = np.where(np.isnan(power), np.nan, fresh["serve.gen_tokens"])
    values[TOKENS_PER_JOULE], told[TOKENS_PER_JOULE] = _quotient(tokens, power, of, size)
    failed, ended = fresh["serve.errors"], fresh["serve.errors"] + fresh["serve.requests"]
    values[ERROR_SHARE], told[ERROR_SHARE] = _quotient(
        np.where(np.isnan(ended), np.nan, failed), ended, of, size
    )
    replicas = {TOKENS_PER_JOULE: _divided(tokens, power), ERROR_SHARE: _divided(failed, ended)}
    return Totals(
        grouping,
        ready,
        np.bincount(of[ready], minlength=size),
        _expected(snapshot, grouping),
        values,
        told,
        worst,
        replicas,
    )


def limits_of(grouping: Grouping, settings: ServingSettings) -> Mapping[str, Times]:
    """[service] of every objective that any service has; NaN: this one has none."""
    promised = [settings.of(service.deployment, service.model) for service in grouping.services]
    return {
        name: np.array([limits.get(name, math.nan) for limits in promised])
        for name in SLO_NAMES
        if any(name in limits for limits in promised)
    }


def verdicts(found: Totals, limits: Mapping[str, Times], service: int) -> tuple[Verdict, ...]:
    """How a service keeps each of its promises."""
    kept = []
    for name, column in limits.items():
        if not math.isnan(limit := float(column[service])):
            figure = found.figure(measure(name), service)
            kept.append(Verdict(name, limit, figure.value, figure.worst))
    return tuple(kept)


def replica_verdicts(
    snapshot: Snapshot, found: Totals, limits: Mapping[str, Times], server: int
) -> tuple[Verdict, ...]:
    """How one replica keeps the promises of its service; of one that is not ready nothing is known."""
    service, kept = int(found.grouping.of_server[server]), []
    for name, column in limits.items():
        if not math.isnan(limit := float(column[service])):
            kept.append(Verdict(name, limit, _replica_value(snapshot, found, measure(name), server), server))
    return tuple(kept)


def strain(found: Totals, limits: Mapping[str, Times]) -> Times:
    """[service] its worst value over the limit: above 1 a promise is broken; NaN: none is known."""
    worst = np.full(len(found.grouping.services), np.nan)
    for name, column in limits.items():
        worst = np.fmax(worst, _strain(found.values[measure(name)], column))
    return worst


def measure(name: str) -> str:
    """What an objective is held against: ``ttft_p99`` -> ``serve.ttft_p99``."""
    return ERROR_SHARE if name == "errors" else f"serve.{name}"


def keys_for(name: str) -> tuple[str, ...]:
    """Catalog keys whose history tells how an objective was kept."""
    return ("serve.errors", "serve.requests") if name == "errors" else (measure(name),)


# over time


def folded(values: Mapping[str, NDArray[np.float32]], key: str, rows: Sequence[int]) -> Series:
    """[point] one series of some replicas, out of an answer's values: their sum, or the worst one's.

    ERROR_SHARE needs ``serve.errors`` and ``serve.requests``. A key that was not answered is all NaN.
    """
    if key == ERROR_SHARE:
        failed = folded(values, "serve.errors", rows)
        return _divided(failed, failed + folded(values, "serve.requests", rows))
    points = next((array.shape[1] for array in values.values()), 0)
    if key not in values or not len(rows):
        return np.full(points, np.nan)
    series = _carried(values[key][list(rows)].astype(np.float64))
    silent = np.isnan(series).all(axis=0)
    if key in SUMS:
        return np.where(silent, np.nan, np.nansum(series, axis=0))
    return np.where(silent, np.nan, np.fmax.reduce(series, axis=0))


def excursion(times: Times, series: Series, limit: float) -> Excursion:
    """How a series kept to a limit; ``times`` [point] are in order. Points without a value say nothing."""
    there = ~np.isnan(series)
    if not there.any():
        return Excursion(math.nan, None)
    outside = series[there] > limit
    if not outside[-1]:
        return Excursion(float(outside.mean()), None)
    inside = np.flatnonzero(~outside)
    first = int(inside[-1]) + 1 if len(inside) else 0
    return Excursion(float(outside.mean()), float(times[there][first]), not len(inside))


def time_to_full(times: Times, usage: NDArray[np.float32]) -> Times:
    """[replica] seconds from the last point until its KV cache is full, if it goes on as it went.

    Least squares over ``usage`` [replica, point]; 0: it is full. NaN: not rising for sure, or under FULL_FROM, or
    farther ahead than FULL_WITHIN_S, or too few points.
    """
    there = ~np.isnan(usage)
    count = there.sum(axis=1)
    y = np.where(there, usage, 0.0).astype(np.float64)
    t = np.where(there, times - (times[-1] if len(times) else 0.0), 0.0)
    with np.errstate(invalid="ignore", divide="ignore"):
        mean_t, mean_y = t.sum(axis=1) / count, y.sum(axis=1) / count
        dt = np.where(there, t - mean_t[:, None], 0.0)
        dy = np.where(there, y - mean_y[:, None], 0.0)
        spread = (dt**2).sum(axis=1)
        slope = (dt * dy).sum(axis=1) / spread
        error = np.sqrt(((dy - slope[:, None] * dt) ** 2).sum(axis=1) / (count - 2) / spread)
        now = np.minimum(mean_y - slope * mean_t, 1.0)
        ahead = (1 - now) / slope
        rising = (
            (count >= LEAST_POINTS) & (slope > SURE * error) & (now >= FULL_FROM) & (ahead <= FULL_WITHIN_S)
        )
    return np.where((count > 0) & (now >= FULL_AT), 0.0, np.where(rising, ahead, np.nan))


# the parts


def _identity(server: Server) -> tuple[str | None, ...]:
    if server.service or server.model:
        return (server.service or None, server.model or None)
    return (None, None, server.key)


def _service(layout: Layout, identity: tuple[str | None, ...], rows: list[int], clashes: bool) -> Service:
    deployment, model = identity[0], identity[1]
    name = deployment or model or layout.servers[rows[0]].name
    if deployment and model and clashes:
        name = f"{deployment} {model}"
    return Service(repr(identity), name, model, deployment, tuple(rows))


def _ready(snapshot: Snapshot) -> Bools:
    status = snapshot.server_status
    if len(status) != len(snapshot.layout.servers):
        return np.zeros(len(snapshot.layout.servers), dtype=np.bool_)
    up = snapshot.column("serve.up")
    down = (
        up is not None and len(up.values) == len(status) and (up.values == 0) & (up.reason == Missing.PRESENT)
    )
    return np.asarray((status == Status.OK) & ~np.asarray(down, dtype=np.bool_), dtype=np.bool_)


def _fresh(snapshot: Snapshot, key: str, ready: Bools) -> Times:
    """[server] values that may be summed: of replicas that are ready, and not stale."""
    column = snapshot.column(key)
    if column is None or len(column.values) != len(ready):
        return np.full(len(ready), np.nan)
    return np.where(ready & (column.reason == Missing.PRESENT), column.values.astype(np.float64), np.nan)


def _sum(values: Times, of: Rows, size: int) -> tuple[Times, Ints]:
    there = ~np.isnan(values)
    told = np.bincount(of[there], minlength=size)
    total = np.bincount(of[there], weights=values[there], minlength=size)
    return np.where(told > 0, total, np.nan), told


def _highest(values: Times, of: Rows, size: int) -> tuple[Times, Ints, Ints]:
    """The highest value of each service, how many tell, and which server has it."""
    there = np.flatnonzero(~np.isnan(values))
    order = there[np.argsort(values[there], kind="stable")]
    worst = np.full(size, -1, dtype=np.intp)
    worst[of[order]] = order  # the last one stays
    highest = np.where(worst >= 0, values[worst] if len(values) else np.nan, np.nan)
    return highest, np.bincount(of[there], minlength=size), worst


def _mean(values: Times, weights: Times, of: Rows, size: int) -> tuple[Times, Ints]:
    """Weighted; in a service where a weight is missing, or all are 0, the plain mean."""
    plain, told = _sum(values, of, size)
    weight = np.where(np.isnan(values), np.nan, weights)
    total, weighed = _sum(weight, of, size)
    product, _ = _sum(values * weight, of, size)
    usable = (weighed == told) & (np.nan_to_num(total) > 0)
    return np.where(usable, _divided(product, total), _divided(plain, told.astype(np.float64))), told


def _imbalance(fresh: Mapping[str, Times], of: Rows, size: int) -> tuple[Times, Ints]:
    """Of services with at least two replicas that tell and enough to do."""
    by_kv, told_kv = _uneven(fresh["serve.kv_usage"], BUSY_KV, of, size)
    by_running, told_running = _uneven(fresh["serve.running"], BUSY_RUNNING, of, size)
    use_kv = told_kv >= np.maximum(told_running, 2)
    return np.where(use_kv, by_kv, by_running), np.where(use_kv, told_kv, told_running)


def _uneven(values: Times, least: float, of: Rows, size: int) -> tuple[Times, Ints]:
    total, told = _sum(values, of, size)
    highest, _, _ = _highest(values, of, size)
    mean = _divided(total, told.astype(np.float64))
    return np.where((told >= 2) & (mean >= least), _divided(highest, mean), np.nan), told


def _power(snapshot: Snapshot, grouping: Grouping) -> Times:
    """[server] watts of its GPUs; NaN: they are not known, one does not tell, or another server runs on one of them."""
    servers = len(grouping.of_server)
    column = snapshot.column("gpu.power")
    if column is None or not len(grouping.gpus):
        return np.full(servers, np.nan)
    watts = np.where(column.reason == Missing.PRESENT, column.values, np.nan)[grouping.gpus].astype(
        np.float64
    )
    total = np.bincount(grouping.gpu_server, weights=watts, minlength=servers)
    known = np.bincount(grouping.gpu_server, minlength=servers) > 0
    return np.where(known & ~grouping.shared, total, np.nan)


def _quotient(part: Times, whole: Times, of: Rows, size: int) -> tuple[Times, Ints]:
    """Sum over sum, of the replicas that tell both."""
    both = ~np.isnan(part) & ~np.isnan(whole)
    above, told = _sum(np.where(both, part, np.nan), of, size)
    below, _ = _sum(np.where(both, whole, np.nan), of, size)
    return _divided(above, below), told


def _divided(part: Series, whole: Series) -> Series:
    """NaN where there is nothing to divide by."""
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(whole > 0, part / whole, np.nan)


def _strain(values: Times, limits: Times) -> Times:
    """Value over limit; over a limit of 0 everything is infinitely far outside. NaN: no value, or no limit."""
    with np.errstate(invalid="ignore", divide="ignore"):
        ratio = np.where(limits > 0, values / limits, np.where(values > 0, np.inf, values))
    return np.where(np.isnan(limits), np.nan, ratio)


def _expected(snapshot: Snapshot, grouping: Grouping) -> Times:
    def of(service: Service) -> Iterator[float]:
        fact = snapshot.replicas.get(service.deployment or service.model or "")
        yield math.nan if fact is None or fact.expected is None else float(fact.expected)

    return np.array([count for service in grouping.services for count in of(service)], dtype=np.float64)


def _replica_value(snapshot: Snapshot, found: Totals, key: str, server: int) -> float:
    if not found.ready[server]:
        return math.nan
    if key in found.replicas:
        return float(found.replicas[key][server])
    column = snapshot.column(key)
    if column is None or column.reason[server] != Missing.PRESENT:
        return math.nan
    return float(column.values[server])


def _carried(series: Series) -> Series:
    """A sample stands for one more point: a replica that is asked a little less often leaves no dents in a sum."""
    before = np.concatenate([np.full((len(series), 1), np.nan), series[:, :-1]], axis=1)
    return np.where(np.isnan(series), before, series)
