"""Snapshots of a cluster that was never measured, and a feed that gives them out: for tests of the screen.

Everything is a function of the arguments and the seed. Nothing here runs a monitor, a thread or a clock.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field, replace

import numpy as np

from coldaisle.analyzers.snapshot import (
    Column,
    Cost,
    Coverage,
    EventView,
    Join,
    SeriesAnswer,
    SeriesQuery,
    Snapshot,
    SourceView,
    Status,
    Times,
)
from coldaisle.sources.catalog import catalog
from coldaisle.sources.cluster import Gpu, Job, Layout, Node, Part, Rack, Server
from coldaisle.sources.source import (
    Codes,
    Floats,
    GpuRef,
    Kind,
    Missing,
    Process,
    Target,
    TargetState,
)

AT = 1772331161.0
"""2026-03-01 03:12:41 in Berlin, 02:12:41 UTC."""
NO_SOURCE = 255
PORTS = ("mlx5_0/1", "mlx5_1/1", "eth0")
DISKS = ("nvme0n1", "nvme1n1")
MODEL = "NVIDIA H100 80GB HBM3"


@dataclass(frozen=True, slots=True)
class Faults:
    """What is wrong in a made-up cluster. Racks, nodes and GPUs by their keys; all must exist."""

    lost: tuple[str, ...] = ()
    """GPUs that fell off the bus."""
    stale: tuple[str, ...] = ()
    """Nodes not heard of for 43 s."""
    gone: tuple[str, ...] = ()
    """Nodes not heard of for 10 minutes."""
    never: tuple[str, ...] = ()
    """Nodes that are expected and never answered."""
    drained: tuple[str, ...] = ()
    hot: tuple[str, ...] = ()
    """Racks that throttle for heat."""
    absent: Mapping[str, Missing] = field(default_factory=dict)
    """Metrics that nobody has a value of, and why."""
    unknown: tuple[str, ...] = ()
    """Metrics that have no column at all."""


NIGHT = Faults(
    lost=("r11n02/3",),
    stale=("r14n03",),
    drained=("r02n04",),
    hot=("r07",),
    absent={"gpu.mem_temp": Missing.NOT_SUPPORTED, "gpu.ecc_dbe": Missing.NOT_EXPORTED},
)
"""A night like any other; needs at least 14 racks of 4 nodes of 8 GPUs."""


def make_snapshot(
    racks: int = 16,
    nodes: int = 4,
    gpus: int = 8,
    seed: int = 1,
    *,
    faults: Faults | None = None,
    at: float = AT,
    name: str = "atlas",
    live: bool = True,
    jobs_known: bool = True,
    mig: tuple[str, ...] = (),
    rack_names: tuple[str, ...] = (),
    version: int = 1,
) -> Snapshot:
    """A cluster of ``racks`` x ``nodes`` x ``gpus``; without ``faults`` a healthy one, 16 x 4 x 8 gives a NIGHT.

    Args:
        mig: keys of GPUs that are split into two MIG instances each.
        rack_names: names to use instead of r01, r02, ..., for as many racks as are given.
    """
    if faults is None:
        faults = NIGHT if (racks >= 14 and nodes >= 4 and gpus >= 4 and not rack_names) else Faults()
    layout = make_layout(racks, nodes, gpus, mig=mig, rack_names=rack_names, version=version, faults=faults)
    jobs = _jobs(layout, gpus, at, faults) if jobs_known else ()
    gpu_job = np.full(len(layout.gpus), -1, dtype=np.int32)
    for index, job in enumerate(jobs):
        gpu_job[list(job.gpus)] = index
    node_status, node_seen = _node_health(layout, at, faults)
    gpu_status, gpu_seen = _gpu_health(layout, node_status, node_seen, faults)
    columns = _columns(layout, gpu_job, gpu_status, gpu_seen, node_status, node_seen, faults, seed)
    seen_gpus = int(np.isin(gpu_status[layout.boards], (Status.OK, Status.STALE)).sum())
    seen_nodes = int(np.isin(node_status, (Status.OK, Status.STALE)).sum())
    return Snapshot(
        at=at,
        name=name,
        live=live,
        layout=layout,
        columns=columns,
        gpu_status=gpu_status,
        gpu_seen=gpu_seen,
        node_status=node_status,
        node_seen=node_seen,
        jobs=jobs,
        gpu_job=gpu_job,
        jobs_known=jobs_known,
        sources=_sources(layout, node_status, at, tuple(columns)),
        coverage=Coverage(seen_nodes, len(layout.nodes), seen_gpus, len(layout.boards)),
        events=_events(layout, at, faults),
        processes=_processes(layout, gpu_job, jobs),
        joins=(Join(at - 300, layout.nodes[0].key + ".cluster", layout.nodes[0].key, "GPU UUID"),)
        if layout.nodes
        else (),
        cost=Cost(cpu=0.061, rss_bytes=181 << 20, tick_s=0.034, history_bytes=48 << 20),
    )


def make_layout(
    racks: int,
    nodes: int,
    gpus: int,
    *,
    mig: tuple[str, ...] = (),
    rack_names: tuple[str, ...] = (),
    version: int = 1,
    faults: Faults = Faults(),
) -> Layout:
    """Racks r01.., nodes r01n01.., GPUs r01n01/0..; every node has PORTS and DISKS, the first a server."""
    rack_list: list[Rack] = []
    node_list: list[Node] = []
    gpu_list: list[Gpu] = []
    ports: list[Part] = []
    disks: list[Part] = []
    servers: list[Server] = []
    for r in range(racks):
        rack_name = rack_names[r] if r < len(rack_names) else f"r{r + 1:02d}"
        first_node, first_gpu = len(node_list), len(gpu_list)
        for n in range(nodes):
            key, index = f"{rack_name}n{n + 1:02d}", len(node_list)
            node_gpus = _node_gpus(key, index, gpus, len(gpu_list), mig)
            parts = len(ports), len(disks), len(servers)
            ports += [Part(f"{key}/{port}", index, port) for port in PORTS]
            disks += [Part(f"{key}/{disk}", index, disk) for disk in DISKS]
            if index == 0:
                servers.append(Server(f"{key}/127.0.0.1:8000", index, "127.0.0.1:8000"))
            node_list.append(
                Node(
                    key=key,
                    rack=r,
                    gpus=range(len(gpu_list), len(gpu_list) + len(node_gpus)),
                    ports=range(parts[0], len(ports)),
                    disks=range(parts[1], len(disks)),
                    servers=range(parts[2], len(servers)),
                    hostname=f"{key}.atlas.example",
                    cpus=96,
                    memory_bytes=2 << 40,
                    kernel="5.15.0-113-generic",
                    driver="580.95.05",
                    booted_at=AT - 40 * 86400,
                    gpus_expected=gpus,
                    state="drain" if key in faults.drained else "alloc",
                )
            )
            gpu_list += node_gpus
        rack_list.append(
            Rack(rack_name, "pattern", range(first_node, len(node_list)), range(first_gpu, len(gpu_list)))
        )
    kinds = (Kind.GPU, Kind.NODE, Kind.PORT, Kind.DISK, Kind.SERVER)
    counts = len(gpu_list), len(node_list), len(ports), len(disks), len(servers)
    return Layout(
        version=version,
        racks=tuple(rack_list),
        nodes=tuple(node_list),
        gpus=tuple(gpu_list),
        ports=tuple(ports),
        disks=tuple(disks),
        servers=tuple(servers),
        rows={kind: np.arange(count, dtype=np.intp) for kind, count in zip(kinds, counts, strict=True)},
        node_of={node.key: i for i, node in enumerate(node_list)},
        gpu_of={gpu.key: i for i, gpu in enumerate(gpu_list)},
        boards=np.array([i for i, gpu in enumerate(gpu_list) if gpu.parent < 0], dtype=np.intp),
    )


def _node_gpus(node: str, index: int, gpus: int, first: int, mig: tuple[str, ...]) -> list[Gpu]:
    found: list[Gpu] = []
    for slot in range(gpus):
        key, board = f"{node}/{slot}", first + len(found)
        found.append(
            Gpu(
                key=key,
                node=index,
                slot=slot,
                uuid=f"GPU-{index:06d}{slot:02d}",
                pci=f"0000:{0x18 + slot:02x}:00.0",
                minor=slot,
                index=slot,
                model=MODEL,
                memory_bytes=80 << 30,
                power_limit_w=700.0,
                power_max_w=700.0,
                slowdown_c=87.0,
                mig_enabled=key in mig,
            )
        )
        if key in mig:
            found += [
                Gpu(
                    f"{key}:gi{i}",
                    index,
                    slot,
                    parent=board,
                    mig=f"gi{i}",
                    mig_profile="3g.40gb",
                    model=MODEL,
                )
                for i in (1, 2)
            ]
    return found


def _jobs(layout: Layout, gpus: int, at: float, faults: Faults) -> tuple[Job, ...]:
    """Jobs of 1 to 4 nodes, one after the other; every ninth node and what is drained stays free."""
    users = ("kim", "mlee", "rsun", "kpark")
    free = {n for n, node in enumerate(layout.nodes) if n % 9 == 8 or node.key in faults.drained}
    jobs: list[Job] = []
    n, size = 0, 1
    while n < len(layout.nodes):
        held = [i for i in range(n, min(n + size, len(layout.nodes))) if i not in free]
        if held:
            number = len(jobs)
            jobs.append(
                Job(
                    id=f"slurm:{4700 + number}",
                    name=("train-moe", "chat-70b", "vit-large", "eval")[number % 4],
                    user=users[number % 4],
                    since=at - 3600.0 * (1 + number % 7),
                    nodes=tuple(layout.nodes[i].key for i in held),
                    gpus=tuple(g for i in held for g in layout.nodes[i].gpus if layout.gpus[g].parent < 0),
                    account="proj-moe",
                    partition="gpu",
                    limit_at=at + 33060.0,
                    workload="inference" if number % 4 == 1 else "training",
                )
            )
        n, size = n + size, size % 4 + 1
    return tuple(jobs)


def _node_health(layout: Layout, at: float, faults: Faults) -> tuple[Codes, Times]:
    status = np.full(len(layout.nodes), Status.OK, dtype=np.uint8)
    seen = at - 1.0 - np.arange(len(layout.nodes), dtype=np.float64) % 4
    for names, code, when in (
        (faults.stale, Status.STALE, at - 43.0),
        (faults.gone, Status.LOST, at - 600.0),
        (faults.never, Status.UNKNOWN, np.nan),
    ):
        for name in names:
            status[layout.node_of[name]] = code
            seen[layout.node_of[name]] = when
    return status, seen


def _gpu_health(layout: Layout, node_status: Codes, node_seen: Times, faults: Faults) -> tuple[Codes, Times]:
    node = np.array([gpu.node for gpu in layout.gpus], dtype=np.intp)
    status, seen = node_status[node].copy(), node_seen[node].copy()
    for key in faults.lost:
        status[layout.gpu_of[key]] = Status.LOST
        seen[layout.gpu_of[key]] -= 209.0
    return status, seen


def _columns(
    layout: Layout,
    gpu_job: np.ndarray[tuple[int], np.dtype[np.int32]],
    gpu_status: Codes,
    gpu_seen: Times,
    node_status: Codes,
    node_seen: Times,
    faults: Faults,
    seed: int,
) -> dict[str, Column]:
    rng = np.random.default_rng(seed)
    parts = {Kind.PORT: layout.ports, Kind.DISK: layout.disks, Kind.SERVER: layout.servers}
    values = {
        **_gpu_values(layout, gpu_job, faults, rng),
        **_node_values(layout, rng),
        **_part_values(layout, rng),
    }
    columns: dict[str, Column] = {}
    for key, numbers in values.items():
        kind = Kind(key.partition(".")[0])
        if kind is Kind.GPU:
            status, seen = gpu_status, gpu_seen
        else:
            node = np.array([part.node for part in parts.get(kind, ())], dtype=np.intp)
            status = node_status if kind is Kind.NODE else node_status[node]
            seen = node_seen if kind is Kind.NODE else node_seen[node]
        columns[key] = _column(
            numbers, status, seen, Missing.LOST if kind is Kind.GPU else Missing.UNREACHABLE
        )
        if kind is Kind.GPU:
            silent = (
                (node_status == Status.LOST)[[gpu.node for gpu in layout.gpus]] if layout.gpus else slice(0)
            )
            columns[key].reason[silent] = Missing.UNREACHABLE
    for key, why in faults.absent.items():
        rows = len(layout.gpus) if key.startswith("gpu.") else len(layout.nodes)
        columns[key] = _empty(rows, why)
    for key in faults.unknown:
        columns.pop(key, None)
    _blank_instances(layout, columns)
    assert set(columns) <= set(catalog())
    return columns


def _column(numbers: Floats, status: Codes, seen: Times, lost: Missing) -> Column:
    values = numbers.astype(np.float32)
    reason = np.where(np.isnan(values), Missing.NOT_SUPPORTED, Missing.PRESENT).astype(np.uint8)
    reason[status == Status.STALE] = Missing.STALE
    for code, why in ((Status.LOST, lost), (Status.UNKNOWN, Missing.NOT_SAMPLED)):
        values[status == code] = np.nan
        reason[status == code] = why
    source = np.where(status == Status.UNKNOWN, NO_SOURCE, 0).astype(np.uint8)
    return Column(values, seen.copy(), reason, source)


def _empty(rows: int, why: Missing) -> Column:
    nothing = np.full(rows, np.nan)
    return Column(
        nothing.astype(np.float32), nothing, np.full(rows, why, np.uint8), np.full(rows, NO_SOURCE, np.uint8)
    )


def _gpu_values(
    layout: Layout,
    gpu_job: np.ndarray[tuple[int], np.dtype[np.int32]],
    faults: Faults,
    rng: np.random.Generator,
) -> dict[str, Floats]:
    n = len(layout.gpus)
    busy = gpu_job >= 0
    hot = np.zeros(n, dtype=bool)
    for rack in layout.racks:
        if rack.name in faults.hot:
            hot[rack.gpus.start : rack.gpus.stop] = True
    hot &= busy & (rng.random(n) < 0.9)
    mean = 0.74 + 0.18 * rng.random(max(int(gpu_job.max(initial=-1)) + 1, 1))
    sm = np.where(busy, np.clip(mean[gpu_job] + rng.normal(0, 0.03, n), 0, 0.99), 0.0)
    sm[hot] *= 0.6
    power = np.clip(72.0 + 630.0 * sm**0.8 + rng.normal(0, 6, n), 60, 720)
    temp = 27 + power / 16 + rng.normal(0, 1.2, n) + 12.0 * hot
    used = np.where(busy, (0.55 + 0.4 * rng.random(n)) * 80e9, 0.6e9)
    throttle = np.where(busy, np.where(power > 680, 0x4, 0x0), 0x1)
    throttle[hot] |= 0x20
    return {
        "gpu.util": np.where(busy, 1.0 - 0.02 * rng.random(n), 0.0),
        "gpu.sm_active": sm,
        "gpu.sm_occupancy": sm * 0.45,
        "gpu.tensor_active": sm * 0.55,
        "gpu.dram_active": sm * 0.48,
        "gpu.mem_used": used,
        "gpu.mem_total": np.full(n, 80e9),
        "gpu.mem_ratio": used / 80e9,
        "gpu.power": power,
        "gpu.power_limit": np.full(n, 700.0),
        "gpu.power_ratio": power / 700.0,
        "gpu.temp": temp,
        "gpu.mem_temp": temp + 8,
        "gpu.temp_slowdown": np.full(n, 87.0),
        "gpu.sm_clock": np.where(hot, 1170.0, np.where(busy, 1755.0, 345.0)),
        "gpu.sm_clock_max": np.full(n, 1980.0),
        "gpu.throttle": throttle.astype(np.float64),
        "gpu.thermal_violation": np.where(hot, 0.31, 0.0),
        "gpu.power_violation": np.where(power > 680, 0.04, 0.0),
        "gpu.pcie_rx": sm * 6e9,
        "gpu.pcie_tx": sm * 5e9,
        "gpu.nvlink_rx": sm * 210e9,
        "gpu.nvlink_tx": sm * 205e9,
        "gpu.ecc_dbe": np.zeros(n),
    }


def _node_values(layout: Layout, rng: np.random.Generator) -> dict[str, Floats]:
    n = len(layout.nodes)
    draw = rng.random(n)
    return {
        "node.cpu_util": 0.2 + 0.3 * draw,
        "node.cpu_iowait": 0.01 + 0.02 * draw,
        "node.cpus": np.full(n, 96.0),
        "node.load1": 20 + 30 * draw,
        "node.psi_cpu_some": 0.02 * draw,
        "node.psi_io_full": 0.01 * draw,
        "node.psi_mem_full": np.zeros(n),
        "node.mem_total": np.full(n, 2.0 * 2**40),
        "node.mem_ratio": 0.2 + 0.4 * draw,
        "node.mem_available": 2.0 * 2**40 * (0.8 - 0.4 * draw),
        "node.disk_util": 0.1 + 0.3 * draw,
        "node.disk_read": 1.2e9 * draw,
        "node.disk_write": 0.4e9 * draw,
        "node.nfs_read": 0.8e9 * draw,
        "node.nfs_write": 0.1e9 * draw,
        "node.nfs_rtt": 0.002 + 0.01 * draw,
        "node.net_rx": 0.9e9 * draw,
        "node.net_tx": 0.3e9 * draw,
        "node.power": 6200 + 2600 * draw,
        "node.inlet_temp": 24 + 2 * draw,
        "node.probe_cost": np.full(n, 0.004),
    }


def _part_values(layout: Layout, rng: np.random.Generator) -> dict[str, Floats]:
    ethernet = np.array([part.name.startswith("eth") for part in layout.ports], dtype=bool)
    draw, disk = rng.random(len(layout.ports)), rng.random(len(layout.disks))
    return {
        "port.rx": np.where(ethernet, 0.2e9, 21e9) * draw,
        "port.tx": np.where(ethernet, 0.1e9, 20e9) * draw,
        "port.rate": np.where(ethernet, 3.125e9, 50e9),
        "port.state": np.full(len(layout.ports), 4.0),
        "port.link_downed": np.where(ethernet, np.nan, 0.0),
        "port.symbol_errors": np.where(ethernet, np.nan, 0.0),
        "port.xmit_wait": np.where(ethernet, np.nan, 1200.0) * draw,
        "disk.util": 0.4 * disk,
        "disk.read": 0.6e9 * disk,
        "disk.write": 0.2e9 * disk,
        "disk.read_time": 0.0004 + 0.001 * disk,
        "serve.running": np.full(len(layout.servers), 34.0),
        "serve.kv_usage": np.full(len(layout.servers), 0.62),
    }


def _blank_instances(layout: Layout, columns: dict[str, Column]) -> None:
    """A board split by MIG has no utilisation of its own; its instances have no power or temperature."""
    children = [i for i, gpu in enumerate(layout.gpus) if gpu.parent >= 0]
    split = sorted({layout.gpus[i].parent for i in children})
    activity = ("util", "sm_active", "sm_occupancy", "tensor_active", "dram_active")
    for key, column in columns.items():
        if key.startswith("gpu."):
            rows = split if key.removeprefix("gpu.") in activity else children
            column.values[rows] = np.nan
            column.reason[rows] = Missing.NOT_SUPPORTED


def _sources(
    layout: Layout, node_status: Codes, at: float, metrics: tuple[str, ...]
) -> tuple[SourceView, ...]:
    targets = tuple(_target(node, Status(node_status[i]), at) for i, node in enumerate(layout.nodes))
    ok = sum(target.state is TargetState.OK for target in targets)
    state = "ok" if ok == len(targets) else "partial" if ok else "failing"
    first = tuple(
        Target(at, f"{node.key}:9400", TargetState.OK, (node.key,), latency_s=0.012, what="dcgm-exporter")
        for node in layout.nodes[:2]
    )
    return (
        SourceView("ssh", "ssh", state, "", "", 2.0, 2.0, at - 1, targets, ok, 0.021, metrics),
        SourceView(
            "exporters",
            "exporters",
            "ok",
            "",
            "",
            5.0,
            30.0,
            at - 9,
            first,
            len(first),
            0.012,
            ("gpu.util", "gpu.power"),
        ),
    )


def _target(node: Node, status: Status, at: float) -> Target:
    if status is Status.OK:
        return Target(
            at, node.key, TargetState.OK, (node.key,), latency_s=0.02, what="probe 3.11 nvml 580.95"
        )
    state = TargetState.STALE if status is Status.STALE else TargetState.FAILING
    return Target(
        at, node.key, state, (node.key,), "no answer", f"try: ssh {node.key}", what="probe 3.11 nvml 580.95"
    )


def _events(layout: Layout, at: float, faults: Faults) -> tuple[EventView, ...]:
    events = (
        [EventView(at - 1281, layout.nodes[0].key, "reboot", "up again after 4 min")] if layout.nodes else []
    )
    events += [EventView(at - 520, rack, "throttle", "thermal slowdown begins") for rack in faults.hot]
    events += [EventView(at - 209, key, "xid", "XID 79: GPU has fallen off the bus") for key in faults.lost]
    return tuple(events)


def _processes(
    layout: Layout, gpu_job: np.ndarray[tuple[int], np.dtype[np.int32]], jobs: tuple[Job, ...]
) -> dict[str, tuple[Process, ...]]:
    return {
        node.key: tuple(
            Process(
                GpuRef(node.key, uuid=layout.gpus[g].uuid, index=layout.gpus[g].slot),
                pid=31000 + g,
                user=jobs[gpu_job[g]].user,
                command=f"python train.py --rank {layout.gpus[g].slot}",
                memory_bytes=60 << 30,
                sm=0.9,
            )
            for g in node.gpus
            if gpu_job[g] >= 0
        )
        for node in layout.nodes[:2]
    }


def with_values(
    snapshot: Snapshot, key: str, changes: Mapping[str, float], why: Missing = Missing.PRESENT
) -> Snapshot:
    """The snapshot with some values of one metric replaced, by entity key (GPUs and nodes); the reason likewise."""
    index = snapshot.layout.gpu_of if key.startswith("gpu.") else snapshot.layout.node_of
    old = snapshot.columns[key]
    values, reason = old.values.copy(), old.reason.copy()
    for entity, value in changes.items():
        values[index[entity]] = value
        reason[index[entity]] = why
    return replace(snapshot, columns={**snapshot.columns, key: Column(values, old.at, reason, old.source)})


def make_answer(query: SeriesQuery) -> SeriesAnswer:
    """Slow waves, another phase for each entity and metric; the bin at a quarter of the way is empty."""
    edges = np.linspace(query.start, query.end, query.points + 1)
    times = (edges[:-1] + edges[1:]) / 2
    phase = np.arange(len(query.entities), dtype=np.float64)[:, None]
    values: dict[str, Floats] = {}
    for k, key in enumerate(query.keys):
        metric = catalog()[key]
        top = {"ratio": 1.0, "W": 700.0, "C": 80.0, "MHz": 1980.0, "B/s": 2e11, "B": 8e10}.get(
            metric.unit, 100.0
        )
        wave = top * (0.55 + 0.35 * np.sin(times[None, :] / 97.0 + phase + k))
        wave[:, query.points // 4] = np.nan
        values[key] = wave.astype(np.float32)
    return SeriesAnswer(query, times, values)


class FakeFeed:
    """A :class:`coldaisle.tui.feed.Feed` without a thread: gives out snapshots when told to.

    ``start`` publishes those given to it, in order; ``send`` publishes another; ``fail`` ends it as a crash would.
    """

    def __init__(self, *snapshots: Snapshot) -> None:
        self.snapshots: Iterable[Snapshot] = snapshots
        self.queries: list[SeriesQuery] = []
        self.travels: list[float | None] = []
        self.started = False
        self.stopped = False
        self._publish: Callable[[Snapshot], None] | None = None
        self._failed: Callable[[BaseException], None] | None = None
        self._newest: Snapshot | None = None

    def is_ahead_of(self, shown: Snapshot | None) -> bool:
        """Whether a picture it was made for or told to send is not the one that is shown."""
        return not self.started or (self._newest is not None and self._newest is not shown)

    def start(self, publish: Callable[[Snapshot], None], failed: Callable[[BaseException], None]) -> None:
        self.started = True
        self._publish, self._failed = publish, failed
        for snapshot in self.snapshots:
            self._newest = snapshot
            publish(snapshot)

    def send(self, snapshot: Snapshot) -> None:
        """Publish one more."""
        assert self._publish is not None
        self._newest = snapshot
        self._publish(snapshot)

    def fail(self, error: BaseException) -> None:
        """Say that the monitor died of ``error``."""
        assert self._failed is not None
        self._failed(error)

    def query(self, q: SeriesQuery) -> Future[SeriesAnswer]:
        self.queries.append(q)
        future: Future[SeriesAnswer] = Future()
        future.set_result(make_answer(q))
        return future

    def travel(self, at: float | None) -> None:
        self.travels.append(at)

    def stop(self) -> None:
        self.stopped = True
