"""Generated pages of exporters, and an HTTP server that serves them, or misbehaves, on loopback.

``python -m`` is not needed: benchmarks run :func:`serve_forever` in a process of its own.
"""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import random
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field

from lab.serving import serving

FIELDS: tuple[tuple[str, str, float, float, int], ...] = (
    # name, type, low, high, decimals
    ("DCGM_FI_DEV_SM_CLOCK", "gauge", 1200, 1980, 0),
    ("DCGM_FI_DEV_MEM_CLOCK", "gauge", 2619, 2619, 0),
    ("DCGM_FI_DEV_MEMORY_TEMP", "gauge", 40, 80, 0),
    ("DCGM_FI_DEV_GPU_TEMP", "gauge", 35, 75, 0),
    ("DCGM_FI_DEV_POWER_USAGE", "gauge", 70, 700, 6),
    ("DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION", "counter", 1e11, 2e11, 0),
    ("DCGM_FI_DEV_PCIE_REPLAY_COUNTER", "counter", 0, 0, 0),
    ("DCGM_FI_DEV_GPU_UTIL", "gauge", 0, 100, 0),
    ("DCGM_FI_DEV_MEM_COPY_UTIL", "gauge", 0, 100, 0),
    ("DCGM_FI_DEV_ENC_UTIL", "gauge", 0, 0, 0),
    ("DCGM_FI_DEV_DEC_UTIL", "gauge", 0, 0, 0),
    ("DCGM_FI_DEV_XID_ERRORS", "gauge", 0, 0, 0),
    ("DCGM_FI_DEV_FB_FREE", "gauge", 10000, 80000, 0),
    ("DCGM_FI_DEV_FB_USED", "gauge", 100, 70000, 0),
    ("DCGM_FI_DEV_NVLINK_BANDWIDTH_TOTAL", "counter", 0, 200000, 0),
    ("DCGM_FI_DEV_UNCORRECTABLE_REMAPPED_ROWS", "counter", 0, 0, 0),
    ("DCGM_FI_DEV_CORRECTABLE_REMAPPED_ROWS", "counter", 0, 2, 0),
    ("DCGM_FI_PROF_GR_ENGINE_ACTIVE", "gauge", 0, 1, 6),
    ("DCGM_FI_PROF_PIPE_TENSOR_ACTIVE", "gauge", 0, 1, 6),
    ("DCGM_FI_PROF_DRAM_ACTIVE", "gauge", 0, 1, 6),
    ("DCGM_FI_PROF_PCIE_TX_BYTES", "gauge", 0, 5e10, 0),
    ("DCGM_FI_PROF_PCIE_RX_BYTES", "gauge", 0, 5e10, 0),
)


def gpu_labels(node: str, gpu: int) -> dict[str, str]:
    """Labels as dcgm-exporter 3.3 to 4.5 write them."""
    return {
        "gpu": str(gpu),
        "UUID": f"GPU-{node}-0000-4000-8000-{gpu:012d}",
        "pci_bus_id": f"00000000:{0x10 + gpu * 0x11:02X}:00.0",
        "device": f"nvidia{gpu}",
        "modelName": "NVIDIA H100 80GB HBM3",
        "Hostname": node,
        "DCGM_FI_DRIVER_VERSION": "580.105.08",
    }


def line(name: str, labels: dict[str, str], value: object) -> str:
    """One sample as exporters write it."""
    block = ",".join(f'{key}="{value_}"' for key, value_ in labels.items())
    return f"{name}{{{block}}} {value}\n"


def dcgm_page(node: str = "n01", gpus: int = 8, seed: int = 0) -> bytes:
    """8 GPUs × 22 metrics, about 45 kB; another seed gives other numbers of the same shape."""
    chance = random.Random(f"{node} {seed}")
    lines: list[str] = []
    for name, type_, low, high, decimals in FIELDS:
        lines.append(f"# HELP {name} A field of DCGM.\n# TYPE {name} {type_}\n")
        for gpu in range(gpus):
            value = chance.uniform(low, high)
            lines.append(line(name, gpu_labels(node, gpu), f"{value:.{decimals}f}"))
    return "".join(lines).encode()


def node_page(node: str = "n01", cpus: int = 2, seconds: float | None = None) -> bytes:
    """A small page of node_exporter; its counters say that one fifth of the CPU was busy, 1 MB/s read."""
    now = time.time() if seconds is None else seconds
    lines = [
        line("node_uname_info", {"nodename": node, "release": "6.1.0"}, 1),
        f"node_boot_time_seconds 1.7e9\nnode_time_seconds {now}\nnode_load1 3.5\nnode_vmstat_oom_kill 0\n",
        "node_memory_MemTotal_bytes 1e12\nnode_memory_MemAvailable_bytes 4e11\n",
    ]
    for mode, share in (("idle", 0.7), ("user", 0.15), ("system", 0.05), ("iowait", 0.1)):
        for cpu in range(cpus):
            labels = {"cpu": str(cpu), "mode": mode}
            lines.append(line("node_cpu_seconds_total", labels, now * share))
    disks = ("nvme0n1", "nvme0n1p1", "dm-0")
    lines += [line("node_disk_read_bytes_total", {"device": disk}, now * 1e6) for disk in disks]
    port = {"device": "mlx5_0", "port": "1"}
    lines.append(line("node_infiniband_port_data_received_bytes_total", port, now * 1e9))
    return "".join(lines).encode()


def one_gpu(values: dict[str, object], labels: dict[str, str] | None = None) -> bytes:
    """A page of one GPU with these fields."""
    return "".join(
        line(name, labels or gpu_labels("n01", 0), value) for name, value in values.items()
    ).encode()


def amd_labels(node: str, gpu: int, *, upper: bool = False, **more: str) -> dict[str, str]:
    """Labels as AMD's device-metrics-exporter writes them; in upper case as its first releases did."""
    labels = {
        "gpu_uuid": f"{gpu:08x}-4200-4242-037f-{node.encode().hex():>012.12}",
        "gpu_id": str(gpu),
        "serial_number": f"69224700{gpu:04d}",
        "card_series": "AMD Instinct MI300X",
        "card_model": "0x74a1",
        "card_vendor": "Advanced Micro Devices, Inc. [AMD/ATI]",
        "driver_version": "6.14.14",
        "hostname": node,
        "gpu_partition_id": "0",
        "gpu_compute_partition_type": "spx",
        "gpu_memory_partition_type": "nps1",
    } | more
    return {key.upper(): value for key, value in labels.items()} if upper else labels


AMD_FIELDS: tuple[tuple[str, float, float, int], ...] = (
    # name, low, high, decimals
    ("gpu_gfx_activity", 0, 100, 0),
    ("gpu_umc_activity", 0, 100, 0),
    ("gpu_package_power", 140, 750, 0),
    ("gpu_energy_consumed", 1e15, 2e15, 3),
    ("gpu_junction_temperature", 40, 90, 0),
    ("gpu_memory_temperature", 35, 80, 0),
    ("gpu_used_vram", 300, 190000, 0),
    ("gpu_total_vram", 196592, 196592, 0),
    ("gpu_ecc_correct_total", 0, 0, 0),
    ("gpu_ecc_uncorrect_total", 0, 0, 0),
    ("gpu_violation_ppt_residency_percentage", 0, 20, 0),
    ("pcie_bandwidth", 0, 90000, 0),
    ("gpu_health", 1, 1, 0),
)


def amd_page(
    node: str = "a01", gpus: int = 8, seed: int = 0, *, prefix: str = "", upper: bool = False
) -> bytes:
    """A page of MI300X; ``prefix`` as MetricsFieldPrefix puts it before every name."""
    chance = random.Random(f"{node} {seed}")
    lines: list[str] = [f"# TYPE {prefix}gpu_nodes_total gauge\n{prefix}gpu_nodes_total 1\n"]
    for name, low, high, decimals in AMD_FIELDS:
        lines.append(f"# HELP {prefix}{name} A field.\n# TYPE {prefix}{name} gauge\n")
        for gpu in range(gpus):
            labels = amd_labels(node, gpu, upper=upper)
            lines.append(line(prefix + name, labels, f"{chance.uniform(low, high):.{decimals}f}"))
    for gpu in range(gpus):
        for die in range(8):
            clock = amd_labels(node, gpu, upper=upper, clock_index=str(die), clock_type="system")
            lines.append(line(f"{prefix}gpu_clock", clock, 2100 - die))
        clock = amd_labels(node, gpu, upper=upper, clock_index="8", clock_type="memory")
        lines.append(line(f"{prefix}gpu_clock", clock, 1300))
    return "".join(lines).encode()


def ipmi_page(power: float | str = 6400, inlet: float | str = 24, *, inlet_name: str = "Inlet Temp") -> bytes:
    """What ipmi_exporter says of one BMC; NaN where the sensor gives no reading."""
    return f"""\
ipmi_up{{collector="dcmi"}} 1
ipmi_up{{collector="ipmi"}} 1
ipmi_dcmi_power_consumption_watts {power}
ipmi_temperature_celsius{{id="18",name="{inlet_name}"}} {inlet}
ipmi_temperature_celsius{{id="19",name="Exhaust Temp"}} 41
ipmi_temperature_celsius{{id="20",name="CPU1 Temp"}} 63
ipmi_temperature_celsius{{id="21",name="CPU1 Tctl"}} 95
ipmi_temperature_state{{id="18",name="{inlet_name}"}} 0
ipmi_temperature_state{{id="20",name="CPU1 Temp"}} 1
ipmi_fan_speed_rpm{{id="12",name="Fan1A"}} 9600
ipmi_fan_speed_rpm{{id="13",name="Fan1B"}} 9480
ipmi_fan_speed_rpm{{id="14",name="Fan2A"}} NaN
ipmi_fan_speed_state{{id="12",name="Fan1A"}} 0
ipmi_fan_speed_state{{id="14",name="Fan2A"}} NaN
ipmi_power_watts{{id="90",name="PS1 Input Power"}} 3300
ipmi_power_watts{{id="91",name="PS2 Input Power"}} 3200
ipmi_power_watts{{id="92",name="PS1 Output Power"}} 3150
ipmi_chassis_power_state 1
ipmi_sel_entries_count 17
""".encode()


Writer = asyncio.StreamWriter
Behaviour = Callable[[Writer, bytes], Awaitable[None]]
"""Answers one request, whose head it is given, as it likes."""


def ok(body: bytes, *, extra: str = "", packed: bool = False) -> bytes:
    """A whole answer."""
    content = gzip.compress(body) if packed else body
    encoding = "Content-Encoding: gzip\r\n" if packed else ""
    head = f"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n{encoding}{extra}Content-Length: {len(content)}\r\n\r\n"
    return head.encode() + content


@dataclass
class Pages:
    """A server on loopback. ``answer`` is the page now; ``behave``, if set, answers instead."""

    answer: bytes | Callable[[], bytes] = b""
    behave: Behaviour | None = None
    status: str = ""
    """``301 Moved``, with ``extra`` headers, instead of a page."""
    extra: str = ""
    requests: list[bytes] = field(default_factory=list)
    connections: int = 0
    port: int = 0
    host: str = "127.0.0.1"
    tls: ssl.SSLContext | None = None

    @property
    def target(self) -> str:
        return f"{self.host}:{self.port}"

    async def serve(self, reader: asyncio.StreamReader, writer: Writer) -> None:
        """One connection, kept alive."""
        self.connections += 1
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                self.requests.append(head)
                if self.behave is not None:
                    await self.behave(writer, head)
                    break
                writer.write(self._whole())
                await writer.drain()
        writer.close()

    def _whole(self) -> bytes:
        if self.status:
            return f"HTTP/1.1 {self.status}\r\n{self.extra}Content-Length: 0\r\n\r\n".encode()
        return ok(self.answer() if callable(self.answer) else self.answer, extra=self.extra)


@contextlib.asynccontextmanager
async def served(pages: Pages) -> AsyncIterator[Pages]:
    """The server for the length of a block; open connections end with it."""
    async with serving(pages.serve, pages.host, pages.port, pages.tls) as pages.port:
        yield pages


async def serve_many(count: int, ready: Callable[[list[int]], None]) -> None:
    """``count`` servers with changing dcgm-exporter pages, for ever."""
    async with contextlib.AsyncExitStack() as stack:
        ports: list[int] = []
        for place in range(count):
            node = f"n{place:04d}"
            turns = [ok(dcgm_page(node, seed=seed)) for seed in range(2)]
            pages = await stack.enter_async_context(served(_Turning(turns)))
            ports.append(pages.port)
        ready(ports)
        await asyncio.Event().wait()


class _Turning(Pages):
    """Answers in turn, made beforehand."""

    def __init__(self, answers: list[bytes]) -> None:
        super().__init__()
        self._answers = answers
        self._turn = 0

    def _whole(self) -> bytes:
        self._turn += 1
        self.requests.clear()
        return self._answers[self._turn % len(self._answers)]
