"""From an instant of the simulation to the catalog's metrics, one table a kind of entity.

Each function returns columns by catalog key, in a fixed order, canonical units.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from coldaisle.sources.simulator.physics import unit
from coldaisle.sources.simulator.plan import MIB, Array, Bools, Plan
from coldaisle.sources.simulator.serving import PREFIX_HIT, Fleet
from coldaisle.sources.simulator.simulation import Instant
from coldaisle.sources.simulator.workloads import Work
from coldaisle.sources.source import Codes, Floats, Missing

Columns = Mapping[str, Array]

_RESERVED = 620 * MIB
_NFS_CEILING = 2.4e9
"""Bytes/s that a node gets from the file servers."""
_PSU = 0.94
_SWITCH_W = 420.0
"""Switches and the rack's management."""


def table(columns: Columns) -> Floats:
    """[entity, metric] of a table's columns."""
    width = len(columns)
    first = next(iter(columns.values()))
    values = np.empty((width, len(first)), dtype=np.float32)
    for i, column in enumerate(columns.values()):
        values[i] = column
    return np.ascontiguousarray(values.T)


def gpu_columns(plan: Plan, now: Instant) -> Columns:
    """Boards; a lost one is blanked by the caller."""
    return {
        **_activity_columns(plan, now),
        **_framebuffer_columns(plan, now),
        **_power_columns(plan, now),
        **_link_columns(plan, now),
        **_health_columns(plan, now),
    }


def _activity_columns(plan: Plan, now: Instant) -> Columns:
    b = now.boards
    zero = np.zeros(plan.gpus)
    busy = np.floor(b.util * 100) / 100
    active = unit(1 - now.shares.gap)
    return {
        "gpu.util": busy,
        "gpu.mem_util": np.floor(unit(b.dram * 1.15) * 100) / 100,
        "gpu.gr_active": active,
        "gpu.sm_active": b.sm,
        "gpu.sm_occupancy": b.sm * (0.22 + 0.2 * plan.phase),
        "gpu.tensor_active": b.tensor,
        "gpu.fp32_active": b.fp32,
        "gpu.fp16_active": 0.3 * b.fp32,
        "gpu.fp64_active": zero,
        "gpu.dram_active": b.dram,
    }


def _framebuffer_columns(plan: Plan, now: Instant) -> Columns:
    board, b = plan.columns, now.boards
    zero = np.zeros(plan.gpus)
    usable = board["memory"] - _RESERVED
    used = np.floor(np.maximum(usable * b.memory, 4 * MIB) / MIB) * MIB
    return {
        "gpu.mem_used": used,
        "gpu.mem_free": usable - used,
        "gpu.mem_reserved": zero + _RESERVED,
        "gpu.mem_total": board["memory"],
        "gpu.mem_ratio": used / usable,
    }


def _power_columns(plan: Plan, now: Instant) -> Columns:
    board, b = plan.columns, now.boards
    zero = np.zeros(plan.gpus)
    return {
        "gpu.power": np.round(b.power, 2),
        "gpu.power_instant": np.round(b.power_instant, 2),
        "gpu.power_limit": b.limit,
        "gpu.power_requested": b.limit,
        "gpu.power_max": board["power"],
        "gpu.power_ratio": b.power / b.limit,
        "gpu.energy": b.energy,
        "gpu.temp": b.temp,
        "gpu.mem_temp": b.mem_temp,
        "gpu.temp_slowdown": board["slowdown"],
        "gpu.temp_shutdown": board["shutdown"],
        "gpu.mem_temp_max": board["mem_max"],
        "gpu.temp_margin": np.minimum(board["slowdown"] - b.temp, board["mem_max"] - b.mem_temp),
        "gpu.sm_clock": b.clock,
        "gpu.gr_clock": b.clock,
        "gpu.mem_clock": board["mem_clock"],
        "gpu.sm_clock_max": board["clock"],
        "gpu.mem_clock_max": board["mem_clock"],
        "gpu.throttle": b.throttle,
        "gpu.power_violation": b.power_violation,
        "gpu.thermal_violation": b.sw_thermal + b.hw_thermal,
        "gpu.sw_thermal_violation": b.sw_thermal,
        "gpu.hw_thermal_violation": b.hw_thermal,
        "gpu.power_brake_violation": zero,
    }


def _link_columns(plan: Plan, now: Instant) -> Columns:
    board, b = plan.columns, now.boards
    zero = np.zeros(plan.gpus)
    return {
        "gpu.pcie_tx": b.pcie_tx,
        "gpu.pcie_rx": b.pcie_rx,
        "gpu.pcie_replay": zero,
        "gpu.pcie_gen": np.where(b.context, board["pcie_gen"], 1.0),
        "gpu.pcie_gen_max": board["pcie_gen"],
        "gpu.pcie_width": zero + 16,
        "gpu.pcie_width_max": zero + 16,
        "gpu.nvlink_tx": b.nvlink,
        "gpu.nvlink_rx": b.nvlink * 0.998,
        "gpu.nvlink_links": board["links"],
        "gpu.nvlink_crc": zero,
        "gpu.nvlink_replay": zero,
    }


def _health_columns(plan: Plan, now: Instant) -> Columns:
    zero = np.zeros(plan.gpus)
    days = (now.time - plan.booted_at[plan.node_of]) / 86_400
    context = now.boards.context.astype(np.float64)
    return {
        "gpu.ecc_sbe": np.floor(np.maximum(days, 0) * plan.ecc),
        "gpu.ecc_dbe": zero,
        "gpu.remapped_correctable": np.floor(plan.ecc / 4),
        "gpu.remapped_uncorrectable": zero,
        "gpu.remap_pending": zero,
        "gpu.remap_failure": zero,
        "gpu.processes": context,
        "gpu.recovery_action": zero,
        "gpu.fabric_state": zero + 3,
    }


def reasons(plan: Plan, lost: tuple[int, ...], dropped: Bools, metrics: int) -> Codes | None:
    """[gpu, metric]: LOST in the rows of lost boards, FAILED in those of dropped samples; None: all is there."""
    if not lost and not dropped.any():
        return None
    codes = np.zeros((plan.gpus, metrics), dtype=np.uint8)
    codes[dropped] = Missing.FAILED
    codes[list(lost)] = Missing.LOST
    return codes


def _per_node(plan: Plan, values: Array) -> Array:
    total: Array = values.reshape(len(plan.nodes), plan.slots).sum(axis=1)
    return total


@dataclass(frozen=True, slots=True, eq=False)
class _Demand:
    """What the jobs ask of each host, [node]; ratios."""

    cpu: Array
    psi_cpu: Array
    psi_io: Array
    io_starved: Bools
    """[job + 1]"""


def _demand(plan: Plan, now: Instant, jitter: Array) -> _Demand:
    """Cores busy, and the share of time in which a task waits for a core or for a file."""
    jobs, wrong, of = now.assignment, now.effects, now.assignment.job_of
    starving = wrong.batch > 0
    cpu_starved, io_starved = starving & ~wrong.io_bound, starving & wrong.io_bound
    unmet = 1 - 1 / np.maximum(wrong.batch, 1)
    active = np.minimum(now.pace.speed, 1.2) * (1 - now.pausing)
    cores = jobs.columns["cpu"] * np.where(wrong.hung, 0.1, active)
    cores = np.where(cpu_starved, 0.985, np.where(io_starved, 0.09, np.where(now.starting, 0.2, cores)))
    cores = np.where(wrong.stopped, 0.01, cores) + np.where(wrong.hung, 1 / 28, 0)
    waits = np.where(io_starved, 0.6 * unmet + 0.25, np.maximum(0.25 * now.pausing, 0.12 * now.starting))
    return _Demand(
        cpu=np.clip(_mean(plan, cores[of]) + 0.012 + 0.006 * jitter, 0.003, 1.0),
        psi_cpu=_mean(plan, np.where(cpu_starved, unmet, 0.0)[of]),
        psi_io=_mean(plan, waits[of]),
        io_starved=io_starved,
    )


def node_columns(plan: Plan, now: Instant) -> Columns:
    """Hosts: what their jobs ask of cores, memory and file servers."""
    normal = now.draw.standard_normal((4, len(plan.nodes))) * now.noise
    demand = _demand(plan, now, normal[0])
    return {
        **_core_columns(plan, demand, normal),
        **_memory_columns(plan, now),
        **_storage_columns(plan, now, demand, normal),
        **_chassis_columns(plan, now, demand),
        "node.gpus": plan.slots - _per_node(plan, now.effects.lost.astype(np.float64)),
        "node.probe_cost": np.maximum(0.004 + 0.0005 * normal[3], 0.001),
    }


def _core_columns(plan: Plan, demand: _Demand, normal: Array) -> Columns:
    cpu, pool = demand.cpu, float(plan.spec.cpus)
    load = cpu * pool * (1 + 0.4 * demand.psi_cpu) + 60 * demand.psi_io
    zero = np.zeros(len(cpu))
    return {
        "node.cpu_util": cpu,
        "node.cpu_iowait": np.minimum(0.35 * demand.psi_io, 1.0) * (1 - cpu),
        "node.cpu_steal": zero,
        "node.cpu_busiest": unit(cpu + 0.45 * np.sqrt(cpu)),
        "node.cpus": zero + pool,
        "node.load1": np.maximum(load * (1 + 0.02 * normal[2]), 0.01),
        "node.load5": load,
        "node.load15": load,
        "node.procs_running": np.round(np.maximum(load - 60 * demand.psi_io, 1)),
        "node.procs_blocked": np.round(40 * demand.psi_io),
        "node.psi_cpu_some": unit(demand.psi_cpu + 0.01 + 0.03 * cpu + 0.004 * normal[3]),
        "node.psi_mem_some": zero,
        "node.psi_mem_full": zero,
        "node.psi_io_some": unit(demand.psi_io + 0.002),
        "node.psi_io_full": unit(0.7 * demand.psi_io),
    }


def _memory_columns(plan: Plan, now: Instant) -> Columns:
    used, zero = _memory(plan, now), np.zeros(len(plan.nodes))
    return {
        "node.mem_total": zero + plan.spec.memory,
        "node.mem_available": plan.spec.memory - used,
        "node.mem_used": used,
        "node.mem_ratio": used / plan.spec.memory,
        "node.mem_dirty": 2e8 + 3e9 * _mean(plan, now.pausing[now.assignment.job_of]),
        "node.swap_used": zero,
        "node.oom_kills": zero,
    }


def _storage_columns(plan: Plan, now: Instant, demand: _Demand, normal: Array) -> Columns:
    """Scratch disks, file servers and the Ethernet between; round trips grow as the servers' ceiling comes near."""
    scratch = _scratch(plan, now)
    read, write = _nfs(plan, now, demand.io_starved)
    fraction = read / _NFS_CEILING
    rtt = 0.0009 * (1 + 0.1 * unit(0.5 + 0.2 * normal[1])) / np.maximum(1 - 0.93 * unit(fraction), 0.05)
    return {
        "node.disk_util": scratch / 6e9 + 0.003,
        "node.disk_read": 0.8 * scratch,
        "node.disk_write": 0.2 * scratch + 4e5,
        "node.nfs_read": read,
        "node.nfs_write": write,
        "node.nfs_ops": (read + write) / 1.0e6 + 12,
        "node.nfs_retrans": np.zeros(len(read)),
        "node.nfs_rtt": rtt,
        "node.nfs_exec": rtt * (1.4 + 6 * unit(fraction - 0.7)),
        "node.net_rx": 1.04 * read + 3e5,
        "node.net_tx": 1.04 * write + 2e5,
        "node.tcp_retrans": 0.2 + 2 * fraction,
    }


def _chassis_columns(plan: Plan, now: Instant, demand: _Demand) -> Columns:
    """What the BMC measures: boards, cores, fans and the supplies' losses."""
    boards = _per_node(plan, np.where(now.effects.lost, 0.0, now.boards.power))
    cores = plan.spec.cpu_power * (0.25 + 0.75 * demand.cpu)
    power = (boards + plan.spec.base_power + cores) / _PSU
    inlet = now.inlet[plan.rack_of] + 0.6 * ((np.arange(len(plan.nodes)) % 4) - 1.5)
    return {
        "node.temp_max": np.round(inlet + 28 + 22 * demand.cpu),
        "node.cpu_power": cores,
        "node.power": np.round(power),
        "node.inlet_temp": np.round(inlet),
        "node.outlet_temp": np.round(inlet + power / 620),
        "node.fan_rpm": np.round((5200 + 330 * np.clip(inlet - 22, 0, 24) + 0.35 * power) / 60) * 60,
    }


def _mean(plan: Plan, values: Array) -> Array:
    return _per_node(plan, values) / plan.slots


def _nfs(plan: Plan, now: Instant, io_starved: Bools) -> tuple[Array, Array]:
    """(read, written) bytes/s of each node: batches, loading at the start, checkpoints."""
    jobs, of = now.assignment, now.assignment.job_of
    per_node = _NFS_CEILING / plan.slots
    quiet = now.effects.hung | now.effects.stopped
    read = np.where(quiet, 0.0, jobs.columns["read"] * np.clip(now.pace.speed, 0, 1.2) * (1 - now.pausing))
    read = np.where(io_starved, 0.95 * per_node, np.where(now.starting, 0.55 * per_node, read))
    written = np.where(quiet, 0.0, 0.8 * per_node * now.pausing)
    return _per_node(plan, read[of]) + 2e4, _per_node(plan, written[of]) + 8e3


def _memory(plan: Plan, now: Instant) -> Array:
    """Host memory in use: the system, and what jobs stage."""
    jobs, of = now.assignment, now.assignment.job_of
    share = np.where(jobs.work == Work.TRAIN, 0.16 + 0.45 * jobs.columns["cpu"], 0.08)
    share[-1] = 0.0
    return plan.spec.memory * (
        0.014 + _mean(plan, share[of]) * (0.6 + 0.4 * plan.phase.reshape(-1, plan.slots)[:, 0])
    )


def _scratch(plan: Plan, now: Instant) -> Array:
    """Bytes/s on the local scratch disk: a part of what the loaders read, cached."""
    return 0.4 * _per_node(plan, now.assignment.columns["read"][now.assignment.job_of] * (1 - now.shares.gap))


def disk_columns(plan: Plan, now: Instant) -> Columns:
    """Two disks a node: system, scratch."""
    scratch = _scratch(plan, now)
    system = np.full_like(scratch, 6e5)
    moved = np.stack([system, scratch], axis=1).ravel()
    util = unit(moved / 6e9 + 0.002)
    return {
        "disk.util": util,
        "disk.read": 0.8 * moved,
        "disk.write": 0.2 * moved,
        "disk.read_time": 0.00009 / (1 - 0.9 * util),
        "disk.write_time": 0.00003 / (1 - 0.9 * util),
        "disk.queue": util * 3,
    }


def port_columns(plan: Plan, now: Instant) -> Columns:
    """Rails: port i of a node carries the traffic of slot i."""
    wrong, board = now.effects, plan.columns
    lame = wrong.link < 1
    rate = board["port"] * wrong.link
    sent = now.boards.fabric + 900.0
    fill = sent / rate
    noise = now.draw.random(plan.gpus)
    zero = np.zeros(plan.gpus)
    return {
        "port.rx": sent * 0.998,
        "port.tx": sent,
        "port.rate": rate,
        "port.state": zero + 4,
        "port.phys_state": zero + 5,
        "port.roce": zero,
        "port.xmit_wait": 4e6 * unit(fill) ** 3 * (0.8 + 0.4 * noise),
        "port.xmit_discards": zero,
        "port.link_downed": zero + lame,
        "port.link_recovery": zero + 2 * lame,
        "port.symbol_errors": np.where(lame, np.floor(2 + 30 * noise), 0.0),
        "port.integrity_errors": np.where(lame, np.floor(3 * noise), 0.0),
        "port.rcv_errors": np.where(lame, np.floor(1 + 6 * noise), 0.0),
        "port.rcv_remote_errors": zero,
        "port.overrun_errors": zero,
    }


def serve_columns(fleet: Fleet, now: Instant) -> Columns:
    """Inference servers; percentiles of the latencies that their queues and batches make."""
    s = now.served
    count = len(s.kv)
    normal = now.draw.standard_normal((2, count)) * now.noise
    first = fleet.prompt / fleet.prefill * 1.6 + s.iteration + 0.02
    ttft = first + 0.55 * s.queue_s
    itl = s.iteration * (1 + 0.02 * normal[0])
    slow = 1 + 6 * np.clip(s.preempted / np.maximum(s.finished, 0.05), 0, 2)
    total = ttft + fleet.answer * itl
    served = s.finished + s.preempted > 1e-3
    columns = {
        "serve.kv_usage": s.kv,
        "serve.kv_capacity": fleet.capacity,
        "serve.kv_used": np.round(s.kv * fleet.capacity),
        "serve.running": np.round(s.running),
        "serve.waiting": np.floor(s.waiting),
        "serve.max_running": np.full(count, 256.0),
        "serve.preemptions": np.where(s.preempted < 1e-3, 0.0, s.preempted),
        "serve.prefix_hit": unit(PREFIX_HIT - 0.35 * unit((s.kv - 0.85) / 0.15) + 0.02 * normal[1]),
        "serve.prompt_tokens": s.prompt_rate,
        "serve.gen_tokens": s.token_rate,
        "serve.requests": s.finished,
        "serve.errors": s.abandoned,
    }
    latencies = {
        "serve.ttft_p50": ttft,
        "serve.ttft_p95": first * 2.1 + 1.2 * s.queue_s,
        "serve.ttft_p99": first * 3.0 + 1.6 * s.queue_s,
        "serve.itl_p50": itl,
        "serve.itl_p95": itl * (1.5 + 2 * s.prefill_share) * np.sqrt(slow),
        "serve.itl_p99": itl * (2.0 + 4 * s.prefill_share) * slow,
        "serve.e2e_p50": total,
        "serve.e2e_p95": 2.4 * total,
        "serve.e2e_p99": 3.3 * total + s.queue_s,
        "serve.queue_p50": 0.55 * s.queue_s,
        "serve.queue_p99": 1.6 * s.queue_s,
    }
    columns |= {key: np.where(served, np.maximum(value, 1e-4), np.nan) for key, value in latencies.items()}
    down = now.effects.down
    told = {key: np.where(down, np.nan, value) for key, value in columns.items()}
    return told | {"serve.up": np.where(down, 0.0, 1.0)}


def rack_columns(plan: Plan, now: Instant, nodes: Columns) -> Columns:
    """What the facility measures, whether or not a node answers us."""
    power = np.bincount(plan.rack_of, weights=nodes["node.power"], minlength=len(plan.racks)) + _SWITCH_W
    outlet = np.bincount(plan.rack_of, weights=nodes["node.outlet_temp"], minlength=len(plan.racks))
    return {
        "rack.power": power,
        "rack.current": power / (np.sqrt(3) * 400 * 0.98),
        "rack.inlet_temp": np.round(now.inlet, 1),
        "rack.outlet_temp": np.round(outlet / np.bincount(plan.rack_of), 1),
    }
