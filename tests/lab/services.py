"""Inference services in a cluster that was never measured, and a feed that answers for them: for tests of the screen."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field, replace

import numpy as np
from lab.snapshots import FakeFeed, Faults, make_snapshot

from coldaisle.analyzers.snapshot import Column, SeriesAnswer, SeriesQuery, Snapshot, Status
from coldaisle.sources.catalog import catalog
from coldaisle.sources.cluster import Layout, Server
from coldaisle.sources.settings import ServingSettings, SloSettings
from coldaisle.sources.source import Kind, Missing, ServiceFact

NAN = float("nan")
KV_KEYS = ("serve.kv_usage", "serve.kv_capacity", "serve.kv_used", "serve.prefix_hit", "serve.preemptions")
LATENCY_KEYS = tuple(key for key in catalog() if key.startswith(("serve.ttft", "serve.itl", "serve.e2e")))
DEFAULTS: Mapping[str, float] = {
    "serve.kv_usage": 0.41,
    "serve.kv_capacity": 266_336.0,
    "serve.kv_used": 109_000.0,
    "serve.running": 52.0,
    "serve.waiting": 0.0,
    "serve.max_running": 256.0,
    "serve.preemptions": 0.0,
    "serve.prefix_hit": 0.42,
    "serve.prompt_tokens": 2840.0,
    "serve.gen_tokens": 1350.0,
    "serve.requests": 1.5,
    "serve.errors": 0.0,
    "serve.up": 1.0,
    "serve.ttft_p50": 0.36,
    "serve.ttft_p95": 0.78,
    "serve.ttft_p99": 1.08,
    "serve.itl_p50": 0.041,
    "serve.itl_p95": 0.082,
    "serve.itl_p99": 0.121,
    "serve.e2e_p50": 37.0,
    "serve.e2e_p95": 88.0,
    "serve.e2e_p99": 120.0,
}


@dataclass(frozen=True, slots=True)
class Spec:
    """A service: what each replica says is in ``values``, the same for all or one after the other."""

    name: str
    replicas: int
    gpus: int = 2
    """Boards a replica; 0: not known."""
    model: str | None = None
    engine: str | None = "vLLM"
    version: str | None = "0.11.0"
    absent: tuple[str, ...] = ()
    expected: int | None = None
    values: Mapping[str, float | Sequence[float]] = field(default_factory=dict)
    stale: tuple[int, ...] = ()
    lost: tuple[int, ...] = ()
    deployed: bool = True
    """Whether a source knows the deployment."""


NIGHT = (
    Spec(
        "chat-70b",
        7,
        expected=8,
        stale=(4,),
        lost=(5,),
        values={
            "serve.kv_usage": (0.42, 0.38, 0.97, 0.51, 0.44, 0.40, 0.35),
            "serve.running": (52, 48, 134, 61, 50, 49, 44),
            "serve.waiting": (0, 0, 41, 0, 0, 0, 0),
            "serve.preemptions": (0, 0, 0.052, 0, 0, 0, 0),
            "serve.ttft_p50": (0.36, 0.35, 2.9, 0.37, 0.36, 0.36, 0.35),
            "serve.ttft_p99": (1.08, 1.06, 6.2, 1.1, 1.07, 1.08, 1.05),
            "serve.itl_p99": (0.121, 0.118, 0.28, 0.13, 0.12, 0.12, 0.11),
            "serve.gen_tokens": (1350, 1290, 1810, 1440, 1330, 1340, 1210),
            "serve.errors": (0, 0, 0.011, 0, 0, 0, 0),
        },
    ),
    Spec("code-32b", 4, model="code-32b-instruct", engine="SGLang", version="0.5.9", expected=4),
    Spec("staging", 2, gpus=1, model="small-8b", values={
        **dict.fromkeys(LATENCY_KEYS, NAN),
        **dict.fromkeys(("serve.running", "serve.requests", "serve.gen_tokens", "serve.prompt_tokens", "serve.kv_usage"), 0.0),
    }),
    Spec("summarise", 3, engine="TGI", version="3.0.1", absent=KV_KEYS, values=dict.fromkeys(KV_KEYS, NAN)),
)  # fmt: skip
PROMISES = ServingSettings(
    errors=0.01,
    slo={"chat-70b": SloSettings(ttft_p99=2.0, itl_p99=0.3), "code-32b": SloSettings(ttft_p99=1.5)},
)


def make_services(specs: Sequence[Spec] = NIGHT, racks: int = 4, nodes: int = 4, gpus: int = 8) -> Snapshot:
    """A healthy cluster with services on its GPUs, one replica after the other."""
    return with_services(make_snapshot(racks, nodes, gpus, faults=Faults()), specs)


def with_services(snapshot: Snapshot, specs: Sequence[Spec]) -> Snapshot:
    """The snapshot with these services instead of its servers."""
    layout = _with_servers(snapshot.layout, specs)
    replicas = [(spec, number) for spec in specs for number in range(spec.replicas)]
    status = np.array([_status(spec, number) for spec, number in replicas], dtype=np.uint8)
    age = np.choose(status, (np.nan, 1.0, 43.0, 600.0))
    seen = snapshot.at - age
    columns = {key: value for key, value in snapshot.columns.items() if not key.startswith("serve.")}
    for key, default in DEFAULTS.items():
        values = np.array([_value(spec, number, key, default) for spec, number in replicas], dtype=np.float32)
        reason = np.where(np.isnan(values), Missing.BLANK, Missing.PRESENT).astype(np.uint8)
        reason[status != Status.OK] = Missing.STALE
        columns[key] = Column(values, seen.copy(), reason, np.zeros(len(values), dtype=np.uint8))
    facts = {
        spec.name: ServiceFact(snapshot.at, spec.name, expected=spec.expected)
        for spec in specs
        if spec.expected is not None
    }
    return replace(
        snapshot, layout=layout, columns=columns, server_status=status, server_seen=seen, replicas=facts
    )


def _with_servers(layout: Layout, specs: Sequence[Spec]) -> Layout:
    servers: list[Server] = []
    ports: dict[int, int] = {}
    at = 0
    for spec in specs:
        for _ in range(spec.replicas):
            boards = tuple(range(at, at + spec.gpus))
            node = layout.gpus[min(at, len(layout.gpus) - 1)].node
            at += max(spec.gpus, 1)
            port = ports[node] = ports.get(node, 7999) + 1
            name = f"{layout.nodes[node].key}:{port}"
            servers.append(
                Server(
                    f"{layout.nodes[node].key}/{name}",
                    node,
                    name,
                    gpus=boards,
                    engine=spec.engine,
                    model=spec.model or spec.name,
                    service=spec.name if spec.deployed else None,
                    version=spec.version,
                    absent=spec.absent,
                )
            )
    nodes = [server.node for server in servers]
    first = {node: nodes.index(node) for node in set(nodes)}
    placed = tuple(
        replace(node, servers=range(first.get(at, 0), first.get(at, 0) + nodes.count(at)))
        for at, node in enumerate(layout.nodes)
    )
    rows = {**layout.rows, Kind.SERVER: np.arange(len(servers), dtype=np.intp)}
    return replace(layout, version=layout.version + 1, servers=tuple(servers), nodes=placed, rows=rows)


def _status(spec: Spec, number: int) -> Status:
    return Status.STALE if number in spec.stale else Status.LOST if number in spec.lost else Status.OK


def _value(spec: Spec, number: int, key: str, default: float) -> float:
    value = spec.values.get(key, default)
    return float(value) if isinstance(value, int | float) else float(value[number])


class ServiceFeed(FakeFeed):
    """Answers with series that lead to the values of its first snapshot; what is silent has none at the end."""

    def __init__(self, *snapshots: Snapshot) -> None:
        super().__init__(*snapshots)
        self.known = snapshots[0]

    def query(self, q: SeriesQuery) -> Future[SeriesAnswer]:
        if not q.keys[0].startswith("serve."):
            return super().query(q)
        self.queries.append(q)
        future: Future[SeriesAnswer] = Future()
        future.set_result(series_towards(self.known, q))
        return future


def series_towards(snapshot: Snapshot, query: SeriesQuery) -> SeriesAnswer:
    """Waves that end at the snapshot's values; what is high now rose in the last third."""
    edges = np.linspace(query.start, query.end, query.points + 1)
    times = (edges[:-1] + edges[1:]) / 2
    place = np.linspace(0.0, 1.0, query.points)
    index = {server.key: at for at, server in enumerate(snapshot.layout.servers)}
    values = {}
    for key in query.keys:
        column = snapshot.columns.get(key)
        rows = np.full((len(query.entities), query.points), np.nan, dtype=np.float32)
        usual = DEFAULTS.get(key, 1.0)
        for row, entity in enumerate(query.entities):
            if column is None or entity not in index:
                continue
            now = float(column.values[index[entity]])
            rise = usual + (now - usual) * np.clip((place - 0.66) * 4, 0, 1) if now > 1.5 * usual else now
            rows[row] = rise * (1 - 0.12 * (1 - place) * np.sin(place * 21 + row))
            if snapshot.server_status[index[entity]] != Status.OK:
                rows[row, -query.points // 8 :] = np.nan
        values[key] = rows
    return SeriesAnswer(query, times, values)
