"""How exporters see a world: sampled at a poll, averaged, rounded, with gaps; as the items that every source gives."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from coldaisle.sources.catalog import catalog
from coldaisle.sources.simulator.plan import Array, Bools
from coldaisle.sources.simulator.scenarios.labels import Observed
from coldaisle.sources.simulator.scenarios.world import SLOTS, Feed, Recorded, Stage
from coldaisle.sources.source import (
    Batch,
    Event,
    Floats,
    GpuFact,
    GpuRef,
    Item,
    JobFact,
    JobRef,
    Kind,
    NodeFact,
    NodeRef,
    PortRef,
    ServerFact,
    ServerRef,
)

MIB = 2.0**20
PROFILING = frozenset(
    {"gpu.sm_active", "gpu.tensor_active", "gpu.dram_active", "gpu.gr_active", "gpu.pcie_rx", "gpu.pcie_tx", "gpu.nvlink_tx", "gpu.nvlink_rx"}
)  # fmt: skip
DEFAULT = frozenset(
    {"gpu.sm_clock", "gpu.mem_clock", "gpu.temp", "gpu.mem_temp", "gpu.power", "gpu.energy", "gpu.util", "gpu.mem_util",
     "gpu.xid_last", "gpu.mem_used", "gpu.mem_free", "gpu.mem_total", "gpu.mem_ratio", "gpu.nvlink_bandwidth",
     "gpu.pcie_replay", "gpu.remapped_uncorrectable", "gpu.remapped_correctable", "gpu.remap_failure"}
)  # fmt: skip
"""What dcgm-exporter exports by itself, with profiling commented out."""
WAIT_TICKS = 2.5e8
"""xmit_wait ticks a second of a port that cannot send at all."""


class View:
    """One way to look at a recorded world."""

    def __init__(
        self, stage: Stage, recorded: Recorded, start: float, nodes: tuple[str, ...], racks: tuple[str, ...],
        servers: tuple[str, ...], observed: Observed, seed: int,
    ) -> None:  # fmt: skip
        self.stage, self.recorded, self.start, self.observed = stage, recorded, start, observed
        self.draw = np.random.default_rng((stage.seed, 7, seed))
        self.nodes = nodes
        self.rack_of = dict(zip(nodes, self._racks(racks), strict=True))
        self.gpu_refs = tuple(
            GpuRef(
                nodes[g // SLOTS],
                f"GPU-{stage.seed:04x}-{g:08x}",
                f"0000:{0x10 + 8 * (g % SLOTS):02x}:00.0",
                g % SLOTS,
                g % SLOTS,
            )
            for g in range(stage.gpus)
        )
        self.node_refs = tuple(NodeRef(node) for node in nodes)
        self.port_refs = tuple(PortRef(nodes[g // SLOTS], f"mlx5_{g % SLOTS}/1") for g in range(stage.gpus))
        self.server_refs = tuple(
            ServerRef(nodes[self._server_node(i)], name) for i, name in enumerate(servers)
        )
        self._feeds = [
            (stage.gpus_of(n, f.where if f.what != "cpu_busy" else None), n, f)
            for n, piece in enumerate(stage.pieces)
            for f in piece.feeds
        ]
        self._frozen: dict[int, Floats] = {}
        self._last: Floats | None = None
        self._subsets: dict[bytes, tuple[GpuRef, ...]] = {}

    def _racks(self, racks: tuple[str, ...]) -> list[str]:
        return [racks[n] for n, piece in enumerate(self.stage.pieces) for _ in range(piece.nodes)]

    def _server_node(self, server: int) -> int:
        piece, which = self.stage.servers[server]
        return int(self.stage.server_gpus(piece, which)[0]) // SLOTS

    def items(self) -> Iterator[Item]:
        """Facts, then events and batches in time order."""
        yield from self._facts()
        told = sorted(self._events(), key=lambda event: event.at)
        poll = self.observed.poll
        time = poll
        while time <= self.stage.seconds - 1:
            shift = float(self.draw.uniform(-0.05, 0.05)) * poll if self.observed.noise else 0.0
            at = self.start + time + max(shift, -0.45)
            while told and told[0].at <= at:
                yield told.pop(0)
            yield from self._batches(time, at)
            time += poll

    def _facts(self) -> Iterator[Item]:
        stage, start = self.stage, self.start
        for number, node in enumerate(self.nodes):
            pci = tuple(ref.pci or "" for ref in self.gpu_refs[number * SLOTS : (number + 1) * SLOTS])
            yield NodeFact(
                start,
                node,
                hostname=node,
                rack=self.rack_of[node],
                place="scenario",
                cpus=192,
                driver="570.86.15",
                gpu_pci=pci,
            )
        for number, ref in enumerate(self.gpu_refs):
            part = self._part(number)
            yield GpuFact(
                start,
                ref,
                part.model,
                int(part.memory),
                part.power if self.observed.fields != "default" else None,
                part.power,
                part.slowdown,
            )
        for number, piece in enumerate(stage.pieces):
            if piece.program is not None:
                yield self._job(number, None)
        for number, ref in enumerate(self.server_refs):
            piece, which = stage.servers[number]
            gpus = tuple(self.gpu_refs[g] for g in stage.server_gpus(piece, which).tolist())
            yield ServerFact(start, ref, "vLLM", f"model-{piece}", f"service-{piece}", gpus=gpus)

    def _job(self, number: int, until: float | None) -> JobFact:
        piece = self.stage.pieces[number]
        gpus = self.stage.gpus_of(number, piece.job_gpus).tolist()
        nodes = tuple(dict.fromkeys(self.nodes[g // SLOTS] for g in gpus))
        return JobFact(
            self.start + piece.job_started, until, f"slurm:{4000 + number}", piece.name, f"{piece.user}{number}", nodes,
            tuple(self.gpu_refs[g] for g in gpus), partition="gpu", workload=piece.workload, gpu_count=len(gpus),
        )  # fmt: skip

    def _part(self, gpu: int):
        return self.stage.pieces[int(np.searchsorted(self.stage.first, gpu, side="right")) - 1].part

    def _events(self) -> Iterator[Item]:
        """What is told by itself; an end of a job is a fact at its instant, given as an item here."""
        for number, piece in enumerate(self.stage.pieces):
            gpus = self.stage.gpus_of(number)
            for told in piece.told:
                gpu = gpus[told.gpu] if told.gpu is not None else None
                entity = self.node_refs[int(gpus[0]) // SLOTS] if gpu is None else self.gpu_refs[int(gpu)]
                if told.kind != "xid" or self.observed.fields != "default":
                    yield Event(self.start + told.at, entity, told.kind, told.detail)
            if piece.job_ended is not None:
                yield Event(
                    self.start + piece.job_ended,
                    JobRef(f"slurm:{4000 + number}"),
                    "job_end",
                    "ended: CANCELLED",
                )

    # --- batches -----------------------------------------------------------------------------------

    def _batches(self, time: float, at: float) -> Iterator[Item]:
        for number, piece in enumerate(self.stage.pieces):
            ended = piece.job_ended
            if ended is not None and time - self.observed.poll < ended <= time:
                yield self._job(number, self.start + ended)
        silent = self._silent(time)
        yield from self._gpu_batch(time, at, silent)
        if self.observed.host:
            yield from self._node_batch(time, at, silent)
            yield from self._port_batch(time, at, silent)
        yield from self._server_batch(time, at)

    def _silent(self, time: float) -> Bools:
        """[gpu] whose exporters do not answer."""
        silent = np.zeros(self.stage.gpus, dtype=np.bool_)
        for gpus, _, feed in self._feeds:
            if feed.what in ("node_gone", "gone") and feed.start <= time < feed.end:
                silent[gpus] = True
        return silent

    def _gpu_batch(self, time: float, at: float, silent: Bools) -> Iterator[Batch]:
        columns = self._gpu_columns(time)
        keys = tuple(key for key in columns if self._is_seen(key))
        values = np.stack([columns[key] for key in keys], axis=1).astype(np.float32)
        for gpus, _, feed in self._feeds:
            if feed.what == "frozen" and feed.start <= time < feed.end and self._last is not None:
                for gpu in gpus.tolist():
                    values[gpu] = self._frozen.setdefault(gpu, self._last[gpu].copy())
        if self.observed.noise:
            values[self.draw.random(values.shape) < 0.001] = np.nan
        values[self.draw.random(len(values)) < self.observed.drops] = np.nan
        self._last = values
        yield self._batch(at, Kind.GPU, self.gpu_refs, keys, values, ~silent)

    def _batch(
        self, at: float, kind: Kind, refs: tuple, keys: tuple[str, ...], values: Floats, speaks: Bools
    ) -> Batch:  # type: ignore[type-arg]
        if speaks.all():
            return Batch(at, kind, refs, keys, values)
        known = self._subsets.setdefault(
            kind.encode() + speaks.tobytes(),
            tuple(ref for ref, yes in zip(refs, speaks.tolist(), strict=True) if yes),
        )
        return Batch(at, kind, known, keys, values[speaks])

    def _is_seen(self, key: str) -> bool:
        fields = self.observed.fields
        return (
            fields == "full"
            or (fields == "nvml" and key not in PROFILING)
            or (fields == "default" and key in DEFAULT)
        )

    def _mean(self, what: dict[str, Floats], key: str, time: float, seconds: float | None = None) -> Array:
        """Mean over the last seconds, by default the poll."""
        last = int(time)
        first = max(last - max(int(seconds or self.observed.poll), 1), 0)
        found: Array = (
            what[key][first:last].mean(axis=0, dtype=np.float64)
            if last > first
            else what[key][last].astype(np.float64)
        )
        return found

    def _noisy(self, values: Array, share: float) -> Array:
        return (
            values * (1 + share * self.draw.standard_normal(len(values))) if self.observed.noise else values
        )

    def _gpu_columns(self, time: float) -> dict[str, Array]:
        r, now = self.recorded.gpu, int(time) - 1
        memory = (
            np.array([self._part(g).memory for g in range(self.stage.gpus)])
            if not hasattr(self, "_memory")
            else self._memory
        )
        self._memory = memory
        util = np.round(self._mean(r, "util", time, 1.0), 2)
        power = self._noisy(r["power"][now].astype(float), 0.012)
        sm, dram = (
            np.clip(self._noisy(self._mean(r, "sm", time), 0.01), 0, 1),
            np.clip(self._noisy(self._mean(r, "dram", time), 0.01), 0, 1),
        )
        nvlink = self._mean(r, "nvlink", time)
        usable = memory - 620 * MIB
        used = np.maximum(usable * r["memory"][now], 4 * MIB)
        zero = np.zeros(self.stage.gpus)
        columns = {
            "gpu.util": util,
            "gpu.mem_util": np.round(np.clip(self._mean(r, "dram", time, 1.0) * 1.1, 0, 1), 2),
            "gpu.gr_active": self._mean(r, "util", time),
            "gpu.sm_active": sm,
            "gpu.tensor_active": np.clip(self._mean(r, "tensor", time), 0, 1),
            "gpu.dram_active": dram,
            "gpu.mem_used": np.floor(used / MIB) * MIB,
            "gpu.mem_free": usable - used,
            "gpu.mem_total": memory,
            "gpu.mem_ratio": used / usable,
            "gpu.power": np.round(power, 1),
            "gpu.energy": self._mean(r, "power", time),
            "gpu.power_limit": r["limit"][now].astype(float),
            "gpu.power_max": np.array([self._part(g).power for g in range(0, self.stage.gpus, SLOTS)]).repeat(
                SLOTS
            ),
            "gpu.temp": np.round(r["temp"][now].astype(float)),
            "gpu.mem_temp": np.round(r["mem_temp"][now].astype(float)),
            "gpu.sm_clock": r["clock"][now].astype(float),
            "gpu.mem_clock": zero + 2619.0,
            "gpu.throttle": r["bits"][now].astype(float),
            "gpu.thermal_violation": self._mean(r, "by_heat", time),
            "gpu.power_violation": self._mean(r, "by_power", time),
            "gpu.hw_thermal_violation": self._mean(r, "by_hw_heat", time),
            "gpu.pcie_rx": self._mean(r, "pcie_rx", time),
            "gpu.pcie_tx": self._mean(r, "pcie_tx", time),
            "gpu.pcie_replay": zero,
            "gpu.pcie_gen": zero + 5,
            "gpu.pcie_gen_max": zero + 5,
            "gpu.pcie_width": zero + 16,
            "gpu.pcie_width_max": zero + 16,
            "gpu.nvlink_tx": nvlink,
            "gpu.nvlink_rx": nvlink * 0.98,
            "gpu.nvlink_bandwidth": 2 * nvlink,
            "gpu.nvlink_links": np.array(
                [float(self._part(g).links) for g in range(0, self.stage.gpus, SLOTS)]
            ).repeat(SLOTS),
            "gpu.nvlink_crc": zero,
            "gpu.ecc_sbe": zero.copy(),
            "gpu.ecc_dbe": zero.copy(),
            "gpu.remapped_uncorrectable": zero.copy(),
            "gpu.remapped_correctable": zero.copy(),
            "gpu.remap_pending": zero.copy(),
            "gpu.remap_failure": zero.copy(),
            "gpu.xid_last": zero.copy(),
        }
        for gpus, _, feed in self._feeds:
            if feed.start <= time < feed.end:
                _changed(columns, gpus, feed)
        low = {key: catalog()[key].low for key in columns}
        return {key: np.maximum(values, low[key]) for key, values in columns.items()}

    def _node_batch(self, time: float, at: float, silent: Bools) -> Iterator[Batch]:
        stage, r = self.stage, self.recorded.node
        loading, saving = self._mean(r, "loading", time), self._mean(r, "saving", time)
        kind = np.array([piece.loader for piece in stage.pieces for _ in range(piece.nodes)])
        cpu = np.array(
            [
                piece.cpu if piece.program or piece.services else 0.01
                for piece in stage.pieces
                for _ in range(piece.nodes)
            ]
        )
        by = {name: np.where(kind == name, loading, 0.0) for name in ("cpu", "io", "host")}
        busy_cpu = np.zeros(stage.nodes)
        for gpus, _, feed in self._feeds:
            if feed.what == "cpu_busy" and feed.start <= time < feed.end and feed.where is not None:
                busy_cpu[gpus[0] // SLOTS + np.array(feed.where)] = 1.0
        write = saving * 6e9 + 1e6
        columns = {
            "node.cpu_util": np.clip(
                np.maximum(cpu * (1 - by["cpu"]) + 0.97 * by["cpu"], 0.98 * busy_cpu)
                * self._noisy(np.ones(stage.nodes), 0.03),
                0,
                1,
            ),
            "node.cpu_busiest": np.clip(0.55 + 0.45 * np.maximum(by["host"], by["cpu"]), 0, 1),
            "node.cpu_iowait": np.clip(0.004 + 0.22 * by["io"] + 0.05 * saving, 0, 1),
            "node.cpus": np.full(stage.nodes, 192.0),
            "node.psi_cpu_some": np.clip(0.01 + 0.55 * by["cpu"] + 0.6 * busy_cpu, 0, 1),
            "node.psi_io_some": np.clip(0.003 + 0.45 * by["io"] + 0.5 * saving, 0, 1),
            "node.psi_io_full": np.clip(0.001 + 0.35 * by["io"] + 0.4 * saving, 0, 1),
            "node.psi_mem_full": np.zeros(stage.nodes),
            "node.nfs_read": 2e7 + 4e7 * cpu + 2.3e9 * by["io"],
            "node.nfs_write": write,
            "node.nfs_rtt": 0.002 + 0.09 * by["io"] + 0.03 * saving,
            "node.disk_read": np.full(stage.nodes, 1e6),
            "node.disk_write": np.full(stage.nodes, 2e6),
            "node.mem_total": np.full(stage.nodes, 2.0**41),
            "node.mem_available": 2.0**41 * (1 - r["host_memory"][int(time) - 1].astype(float)),
            "node.mem_ratio": r["host_memory"][int(time) - 1].astype(float),
            "node.oom_kills": np.zeros(stage.nodes),
        }
        columns["node.nfs_read"] = self._noisy(columns["node.nfs_read"], 0.1)
        keys = tuple(columns)
        values = np.stack([columns[key] for key in keys], axis=1).astype(np.float32)
        values[self.draw.random(len(values)) < self.observed.drops] = np.nan
        gone = silent.copy()
        for gpus, _, feed in self._feeds:
            if feed.what == "gone":
                gone[gpus] = False  # a board is gone, its node answers
        yield self._batch(at, Kind.NODE, self.node_refs, keys, values, ~gone.reshape(-1, SLOTS).all(axis=1))

    def _port_batch(self, time: float, at: float, silent: Bools) -> Iterator[Batch]:
        rail = self._mean(self.recorded.gpu, "rail", time)
        rate = np.array([self._part(g).port for g in range(0, self.stage.gpus, SLOTS)]).repeat(SLOTS)
        zero = np.zeros(self.stage.gpus)
        congestion = np.clip(rail / (0.82 * rate) - 0.9, 0, 0.1) * 10
        columns = {
            "port.tx": rail + 1e4,
            "port.rx": 0.99 * rail + 1e4,
            "port.rate": rate.copy(),
            "port.state": zero + 4,
            "port.phys_state": zero + 5,
            "port.xmit_wait": 1e5 + congestion * 0.3 * WAIT_TICKS,
            "port.xmit_discards": zero.copy(),
            "port.symbol_errors": zero.copy(),
            "port.rcv_errors": zero.copy(),
            "port.link_downed": zero.copy(),
            "port.link_recovery": zero.copy(),
        }
        for gpus, _, feed in self._feeds:
            if not feed.start <= time < feed.end:
                continue
            if feed.what == "port_rate":
                columns["port.rate"][gpus] = rate[gpus] * (0.5 if feed.value > 0.2 else 0.25)
            elif feed.what == "port_errors":
                columns["port.symbol_errors"][gpus] = feed.value
                columns["port.rcv_errors"][gpus] = 0.3 * feed.value
                columns["port.xmit_wait"][gpus] += 0.2 * WAIT_TICKS
        keys = tuple(columns)
        values = np.stack([self._noisy(columns[key], 0.0) for key in keys], axis=1).astype(np.float32)
        whole = silent.reshape(-1, SLOTS).all(axis=1).repeat(SLOTS)
        yield self._batch(at, Kind.PORT, self.port_refs, keys, values, ~whole)

    def _server_batch(self, time: float, at: float) -> Iterator[Batch]:
        if not self.server_refs:
            return
        r, now = self.recorded.server, int(time) - 1
        before = max(now - int(self.observed.poll), 0)
        span = max(now - before, 1)

        def rate(key: str) -> Array:
            return (r[key][now] - r[key][before]).astype(float) / span

        service = [self.stage.pieces[p].services[w] for p, w in self.stage.servers]
        columns = {
            "serve.kv_usage": r["kv"][now].astype(float),
            "serve.kv_capacity": np.array([s.kv_tokens for s in service]),
            "serve.running": r["running"][now].astype(float),
            "serve.waiting": r["waiting"][now].astype(float),
            "serve.max_running": np.array([float(s.max_running) for s in service]),
            "serve.preemptions": rate("preemptions"),
            "serve.gen_tokens": rate("gen"),
            "serve.prompt_tokens": rate("prompt"),
            "serve.requests": rate("finished"),
            "serve.ttft_p50": r["ttft50"][now].astype(float),
            "serve.ttft_p99": r["ttft99"][now].astype(float),
            "serve.itl_p50": r["itl50"][now].astype(float),
            "serve.itl_p99": r["itl99"][now].astype(float),
            "serve.queue_p50": r["queue50"][now].astype(float),
            "serve.queue_p99": r["queue99"][now].astype(float),
            "serve.e2e_p99": r["e2e99"][now].astype(float),
            "serve.up": np.ones(len(service)),
        }
        keys = tuple(columns)
        values = np.stack([columns[key] for key in keys], axis=1).astype(np.float32)
        values[self.draw.random(len(values)) < self.observed.drops] = np.nan
        yield Batch(at, Kind.SERVER, self.server_refs, keys, values)


def _changed(columns: dict[str, Array], gpus: Array, feed: Feed) -> None:
    """What a feed does to the columns of GPUs."""
    match feed.what:
        case "xid":
            columns["gpu.xid_last"][gpus] = feed.value
        case "ecc_dbe":
            columns["gpu.ecc_dbe"][gpus] += feed.value
        case "pcie_width" | "pcie_gen" | "nvlink_links":
            columns[f"gpu.{feed.what}"][gpus] = feed.value
        case "unused":
            columns["gpu.util"][gpus] = 0.0
        case _:
            pass
