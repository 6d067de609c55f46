"""From a recorded world to the catalog's metrics at an instant, as exporters make them: means, last values, rates.

Each function returns columns by catalog key, canonical units, without noise and gaps.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np

from coldaisle.sources.catalog import catalog
from coldaisle.sources.simulator.plan import MIB, Array, Bools, Ints
from coldaisle.sources.simulator.scenarios.pieces import SLOTS, Feed
from coldaisle.sources.simulator.scenarios.world import Recorded, Stage
from coldaisle.sources.source import Floats

Columns = dict[str, Array]

WAIT_TICKS = 2.5e8
"""xmit_wait ticks a second of a port that cannot send at all."""
RESERVED = 620 * MIB
HOST_MEMORY = 2.0**41
CPUS = 192.0
WORKERS = 16.0
_COUNTED = frozenset({"ecc_sbe", "ecc_dbe", "remapped_uncorrectable", "remapped_correctable"})
"""Counters: what a feed says comes on top."""


@dataclass(frozen=True, slots=True)
class Told:
    """A feed with its place."""

    gpus: Ints
    piece: int
    feed: Feed

    def acts(self, time: float) -> bool:
        """Whether it does at this second of the world."""
        return self.feed.start <= time < self.feed.end

    @property
    def nodes(self) -> Ints:
        """Nodes of its GPUs."""
        return np.unique(self.gpus // SLOTS)


def feeds_of(stage: Stage) -> list[Told]:
    """All of a world."""
    return [
        Told(stage.gpus_of(number, feed.where), number, feed)
        for number, piece in enumerate(stage.pieces)
        for feed in piece.feeds
    ]


def mean(rows: Mapping[str, Floats], key: str, time: float, seconds: float) -> Array:
    """Mean over the last ``seconds`` (at least one) before ``time``."""
    last = max(int(time), 1)
    first = max(last - max(round(seconds), 1), 0)
    found: Array = rows[key][first:last].mean(axis=0, dtype=np.float64)
    return found


@dataclass(slots=True, eq=False)
class Columnist:
    """Makes the columns of a world."""

    stage: Stage
    recorded: Recorded
    poll: float
    feeds: list[Told]
    constant: Columns = field(init=False)
    _drops_gen: Bools = field(init=False)
    _sbe: Array = field(init=False)

    def __post_init__(self) -> None:
        stage = self.stage
        draw = np.random.default_rng((stage.seed, 8))
        part = stage.per_gpu
        zero = np.zeros(stage.gpus)
        self._drops_gen = (draw.random(stage.nodes) < 0.5).repeat(SLOTS)
        self._sbe = np.where(draw.random(stage.gpus) < 0.06, draw.integers(1, 60, stage.gpus), 0).astype(
            float
        )
        self.constant = {
            "gpu.mem_total": part("memory"),
            "gpu.mem_reserved": zero + RESERVED,
            "gpu.power_max": part("power"),
            "gpu.temp_slowdown": part("slowdown"),
            "gpu.temp_shutdown": part("shutdown"),
            "gpu.mem_temp_max": part("mem_max"),
            "gpu.mem_clock": part("mem_clock"),
            "gpu.sm_clock_max": part("clock"),
            "gpu.pcie_gen_max": part("pcie_gen"),
            "gpu.pcie_width_max": zero + 16,
            "gpu.nvlink_links": part("links"),
        }

    def gpu(self, time: float) -> Columns:
        """Boards."""
        columns = {
            **self.constant,
            **self._activity(time),
            **self._power(time),
            **self._links(time),
            **self._health(),
        }
        for told in self.feeds:
            name = f"gpu.{told.feed.what}"
            if name in columns and told.acts(time):
                value = told.feed.value + told.feed.rise * (time - told.feed.start)
                column = columns[name] = columns[name].copy()
                column[told.gpus] = (
                    np.floor(value) + column[told.gpus] if told.feed.what in _COUNTED else value
                )
        return _in_range(columns)

    def _activity(self, time: float) -> Columns:
        rows, now = self.recorded.gpu, int(time) - 1
        dram = mean(rows, "dram", time, self.poll)
        usable = self.constant["gpu.mem_total"] - RESERVED
        used = np.maximum(np.floor(usable * rows["memory"][now] / MIB) * MIB, 4 * MIB)
        return {
            "gpu.util": np.round(mean(rows, "util", time, 1.0), 2),
            "gpu.mem_util": np.round(np.minimum(mean(rows, "dram", time, 1.0) * 1.1, 1.0), 2),
            "gpu.gr_active": mean(rows, "util", time, self.poll),
            "gpu.sm_active": mean(rows, "sm", time, self.poll),
            "gpu.sm_occupancy": 0.3 * mean(rows, "sm", time, self.poll),
            "gpu.tensor_active": mean(rows, "tensor", time, self.poll),
            "gpu.dram_active": dram,
            "gpu.mem_used": used,
            "gpu.mem_free": usable - used,
            "gpu.mem_ratio": used / usable,
            "gpu.processes": rows["context"][now].astype(float),
        }

    def _power(self, time: float) -> Columns:
        rows, now = self.recorded.gpu, int(time) - 1
        core, memory = (
            np.round(rows["temp"][now].astype(float)),
            np.round(rows["mem_temp"][now].astype(float)),
        )
        limit = rows["limit"][now].astype(float)
        margin = np.minimum(
            self.constant["gpu.temp_slowdown"] - core, self.constant["gpu.mem_temp_max"] - memory
        )
        return {
            "gpu.power": rows["power"][now].astype(float),
            "gpu.energy": mean(rows, "power", time, self.poll),
            "gpu.power_limit": limit,
            "gpu.power_requested": limit,
            "gpu.temp": core,
            "gpu.mem_temp": memory,
            "gpu.temp_margin": margin,
            "gpu.sm_clock": rows["clock"][now].astype(float),
            "gpu.gr_clock": rows["clock"][now].astype(float),
            "gpu.throttle": rows["bits"][now].astype(float),
            "gpu.power_violation": mean(rows, "by_power", time, self.poll),
            "gpu.thermal_violation": mean(rows, "by_heat", time, self.poll),
            "gpu.sw_thermal_violation": mean(rows, "by_heat", time, self.poll),
            "gpu.hw_thermal_violation": mean(rows, "by_hw_heat", time, self.poll),
            "gpu.power_brake_violation": mean(rows, "by_brake", time, self.poll),
        }

    def _links(self, time: float) -> Columns:
        rows, now = self.recorded.gpu, int(time) - 1
        nvlink = mean(rows, "nvlink", time, self.poll)
        zero = np.zeros(self.stage.gpus)
        rests = self._drops_gen & (rows["context"][now] == 0)
        return {
            "gpu.pcie_rx": mean(rows, "pcie_rx", time, self.poll),
            "gpu.pcie_tx": mean(rows, "pcie_tx", time, self.poll),
            "gpu.pcie_replay": zero,
            "gpu.pcie_gen": np.where(rests, 1.0, self.constant["gpu.pcie_gen_max"]),
            "gpu.pcie_width": zero + 16,
            "gpu.nvlink_tx": nvlink,
            "gpu.nvlink_rx": nvlink * 0.99,
            "gpu.nvlink_bandwidth": 1.99 * nvlink,
            "gpu.nvlink_crc": zero,
            "gpu.nvlink_replay": zero,
        }

    def _health(self) -> Columns:
        zero = np.zeros(self.stage.gpus)
        return {
            "gpu.ecc_sbe": self._sbe,
            "gpu.ecc_dbe": zero,
            "gpu.remapped_uncorrectable": zero,
            "gpu.remapped_correctable": zero,
            "gpu.remap_pending": zero,
            "gpu.remap_failure": zero,
            "gpu.xid_last": zero,
        }

    def node(self, time: float) -> Columns:
        """Hosts."""
        rows, now = self.recorded.node, int(time) - 1
        loading, saving = mean(rows, "loading", time, self.poll), mean(rows, "saving", time, self.poll)
        factor = np.maximum(rows["loader"][now].astype(float), 1.0)
        host = self._hosts()
        neighbour = self._nodes_where("cpu_busy", time)
        slow_io = host["is_io"] * loading * (1 - 0.9 / factor)
        crowd = 1 + (host["crowd"] - 1) * np.minimum(factor - 1, 1.0)
        cores = loading * np.where(host["is_cpu"] > 0, host["cores"], np.where(host["is_io"] > 0, 0.02, 0.04))
        works = host["works"] * (
            0.3 + 0.7 * np.minimum(mean(rows, "computing", time, self.poll) + loading, 1.0)
        )
        cpu = np.maximum(0.01 + host["cpu"] * works + cores, 0.98 * neighbour)
        single = np.maximum(host["is_host"], host["is_cpu"]) * loading
        memory = rows["host_memory"][now].astype(float)
        tight = np.maximum(memory - 0.93, 0.0) / 0.07
        return {
            "node.cpu_util": np.minimum(cpu, 0.995),
            "node.cpu_busiest": np.clip(
                np.maximum(0.45 + 0.5 * single, np.where(neighbour > 0, 0.99, cpu)), 0, 1
            ),
            "node.cpu_iowait": 0.003 + slow_io * WORKERS / CPUS * host["crowd"] + 0.02 * saving,
            "node.cpu_steal": np.zeros(len(cpu)),
            "node.cpus": np.full(len(cpu), CPUS),
            "node.load1": CPUS * cpu + WORKERS * slow_io,
            "node.procs_running": np.round(CPUS * cpu * np.where(neighbour > 0, 1.6, 1.0)),
            "node.procs_blocked": np.round(WORKERS * slow_io + 8 * saving),
            "node.psi_cpu_some": np.maximum(
                0.008 + host["is_cpu"] * loading * (1 - 1 / crowd), 0.6 * neighbour
            ),
            "node.psi_io_some": np.minimum(0.003 + 0.8 * slow_io + 0.5 * saving, 1.0),
            "node.psi_io_full": np.minimum(0.001 + 0.5 * slow_io + 0.4 * saving, 1.0),
            "node.psi_mem_some": np.minimum(0.6 * tight, 1.0),
            "node.psi_mem_full": np.minimum(0.4 * tight, 1.0),
            "node.mem_total": np.full(len(cpu), HOST_MEMORY),
            "node.mem_available": HOST_MEMORY * (1 - memory),
            "node.mem_used": HOST_MEMORY * memory,
            "node.mem_ratio": memory,
            "node.oom_kills": self._oom_kills(time),
            **self._storage(time, host, loading, factor),
            "node.inlet_temp": np.round(rows["inlet"][now].astype(float)),
            "node.fan_rpm": np.where(
                self._nodes_where("fan", time) > 0, 0.0, 9000 + 60 * np.round(2 * memory)
            ),
        }

    def _storage(self, time: float, host: Columns, loading: Array, factor: Array) -> Columns:
        """What is read for batches and written for checkpoints, and how long an operation takes."""
        rows = self.recorded.node
        fills = (host["is_io"] > 0) & (host["at_ceiling"] > 0)
        slower = np.where(fills, 1.0, factor)
        read = 2 * host["read"] * loading / slower
        write = mean(rows, "write", time, self.poll)
        rtt = 0.0015 * np.where(host["is_io"] > 0, slower, 1.0) * (1 + 6 * fills * loading) + 0.02 * mean(
            rows, "saving", time, self.poll
        )
        quiet = np.full(len(read), 1e6)
        return {
            "node.nfs_read": read + 2e4,
            "node.nfs_write": write + 1e4,
            "node.nfs_ops": (read + write) / 1e6 + 10,
            "node.nfs_retrans": np.zeros(len(read)),
            "node.nfs_rtt": rtt,
            "node.nfs_exec": 1.5 * rtt,
            "node.net_rx": 1.04 * read + 3e5,
            "node.net_tx": 1.04 * write + 2e5,
            "node.tcp_retrans": np.full(len(read), 0.2),
            "node.disk_read": quiet,
            "node.disk_write": 2 * quiet,
            "node.disk_util": np.full(len(read), 0.01),
        }

    def _hosts(self) -> Columns:
        """[node] numbers of the pieces' hosts."""
        pieces = [piece for piece in self.stage.pieces for _ in range(piece.nodes)]
        hosts = [piece.host for piece in pieces]

        def of(values: Iterable[float]) -> Array:
            return np.array(list(values), dtype=float)

        return {
            "works": of(bool(p.program or p.services) for p in pieces),
            "cpu": of(h.cpu for h in hosts),
            "cores": of(h.cores for h in hosts),
            "crowd": of(h.crowd for h in hosts),
            "read": of(h.read for h in hosts),
            "at_ceiling": of(h.at_ceiling for h in hosts),
            **{f"is_{kind}": of(h.loader == kind for h in hosts) for kind in ("cpu", "io", "host")},
        }

    def _nodes_where(self, what: str, time: float) -> Array:
        found = np.zeros(self.stage.nodes)
        for told in self.feeds:
            if told.feed.what == what and told.acts(time):
                found[told.nodes] = 1.0
        return found

    def _oom_kills(self, time: float) -> Array:
        rate = np.zeros(self.stage.nodes)
        for number, piece in enumerate(self.stage.pieces):
            for told in piece.told:
                if told.kind == "oom" and time - self.poll < told.at <= time:
                    rate[int(self.stage.gpus_of(number)[told.gpu or 0]) // SLOTS] += 1 / self.poll
        return rate

    def port(self, time: float) -> Columns:
        """Rails: port i of a node carries the traffic of slot i."""
        rail = mean(self.recorded.gpu, "rail", time, self.poll)
        wait = mean(self.recorded.gpu, "wait", time, self.poll)
        zero = np.zeros(self.stage.gpus)
        rate = self.stage.per_gpu("port")
        columns = {
            "port.tx": rail + 1e4,
            "port.rx": 0.99 * rail + 1e4,
            "port.rate": rate,
            "port.state": zero + 4,
            "port.phys_state": zero + 5,
            "port.roce": zero.copy(),
            "port.xmit_wait": 1e3 + WAIT_TICKS * wait,
            "port.xmit_discards": zero,
            "port.symbol_errors": zero.copy(),
            "port.rcv_errors": zero.copy(),
            "port.integrity_errors": zero.copy(),
            "port.link_downed": zero.copy(),
            "port.link_recovery": zero.copy(),
            "port.cnp_sent": np.full_like(zero, np.nan),
            "port.cnp_handled": np.full_like(zero, np.nan),
            "port.ecn_marked": np.full_like(zero, np.nan),
            "port.out_of_sequence": np.full_like(zero, np.nan),
        }
        for told in self.feeds:
            if told.acts(time):
                _port_feed(columns, told, wait)
        return columns

    def server(self, time: float) -> Columns:
        """Inference servers."""
        rows, now = self.recorded.server, int(time) - 1
        before = max(now - max(round(self.poll), 1), 0)

        def rate(key: str) -> Array:
            rise: Array = rows[key][now].astype(float) - rows[key][before]
            return rise / max(now - before, 1)

        service = [self.stage.pieces[p].services[w] for p, w in self.stage.servers]
        capacity = np.array([s.kv_tokens for s in service])
        last = {
            key: rows[name][now].astype(float)
            for key, name in {
                "serve.kv_usage": "kv", "serve.running": "running", "serve.waiting": "waiting", "serve.prefix_hit": "hit",
                "serve.ttft_p50": "ttft50", "serve.ttft_p99": "ttft99", "serve.itl_p50": "itl50", "serve.itl_p99": "itl99",
                "serve.queue_p50": "queue50", "serve.queue_p99": "queue99", "serve.e2e_p99": "e2e99",
            }.items()
        }  # fmt: skip
        return {
            **last,
            "serve.kv_capacity": capacity,
            "serve.kv_used": np.round(last["serve.kv_usage"] * capacity),
            "serve.max_running": np.array([float(s.max_running) for s in service]),
            "serve.preemptions": rate("preemptions"),
            "serve.gen_tokens": rate("gen"),
            "serve.prompt_tokens": rate("prompt"),
            "serve.requests": rate("finished"),
            "serve.up": np.ones(len(service)),
        }


def _port_feed(columns: Columns, told: Told, wait: Array) -> None:
    gpus, value = told.gpus, told.feed.value
    match told.feed.what:
        case "port_rate":
            columns["port.rate"] = columns["port.rate"].copy()
            columns["port.rate"][gpus] *= value
            columns["port.link_recovery"][gpus] += 1
        case "port_errors":
            columns["port.symbol_errors"][gpus] = value
            columns["port.rcv_errors"][gpus] = 0.2 * value
            columns["port.integrity_errors"][gpus] = 0.05 * value
        case "roce":
            columns["port.roce"][gpus] = 1.0
            columns["port.xmit_wait"][gpus] = np.nan
            columns["port.ecn_marked"][gpus] = 3e5 * wait[gpus]
            columns["port.cnp_sent"][gpus] = 4e4 * wait[gpus]
            columns["port.cnp_handled"][gpus] = 4e4 * wait[gpus]
            columns["port.out_of_sequence"][gpus] = np.floor(4 * wait[gpus])
        case _:
            pass


def _in_range(columns: Columns) -> Columns:
    known = catalog()
    return {key: np.clip(values, known[key].low, known[key].high) for key, values in columns.items()}
