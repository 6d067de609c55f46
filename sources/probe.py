"""The probe: reads one host, GPUs and all, and prints what it finds; see frames.py for the lines.

It travels as text to hosts where nothing of ours is installed, so: one file, the standard library and
pynvml's source (which comes along), Python 3.6 and later, no import of coldaisle. It only reads.

Threads: the main one polls the host and prints; a watch reads the heartbeat and ends the process even
while another thread is stuck; NVML is asked in a worker, because a call into a dead GPU may never
return. A worker that hangs is left behind and a new one goes on without that GPU.
"""

import collections
import ctypes
import errno
import glob
import json
import math
import os
import pwd
import re
import select
import socket
import sys
import threading
import time
import types
from typing import Any, Callable, Dict, Iterable, List, NamedTuple, Optional, Sequence, Set, Tuple

PROTOCOL = 1
RECORD = "\x1e"

# source.Missing, as integers; a test holds them equal.
PRESENT = 0
NOT_SAMPLED = 1
NOT_SUPPORTED = 2
NOT_PERMITTED = 4
BLANK = 5
LOST = 6
FAILED = 7

GONE = (15, 16)  # NVML_ERROR_GPU_IS_LOST, _RESET_REQUIRED
REFUSALS = (2, 3, 13, 25, 26)  # invalid argument, not supported, no such function, version, deprecated
RESTART = (1, 9, 18)  # uninitialized, driver not loaded, library and driver differ
REASONS = {
    2: NOT_SUPPORTED,
    3: NOT_SUPPORTED,
    4: NOT_PERMITTED,
    6: BLANK,
    13: NOT_SUPPORTED,
    15: LOST,
    16: LOST,
    21: BLANK,
    25: NOT_SUPPORTED,
    26: NOT_SUPPORTED,
    27: NOT_SAMPLED,
}

REASK = 300.0  # seconds until a refused reading is asked again
SLOW = 10.0  # seconds between readings that hardly change, or cost much
PROCESS_PERIOD = 5.0
MAX_COMMAND = 200
MAX_PROCESSES = 512
MAX_EVENTS = 50  # a poll; an XID storm has thousands
MAX_ROWS = 64
ALL_LINKS = 0xFFFFFFFF
NOT_AVAILABLE = (1 << 64) - 1
KIB, MIB = 1024.0, 1024.0 * 1024.0

GPU_METRICS = (
    "util mem_util gr_active sm_active sm_occupancy tensor_active fp64_active fp32_active fp16_active "
    "dram_active enc_util dec_util jpg_util ofa_util mem_used mem_free mem_reserved mem_total mem_ratio "
    "power power_instant power_limit power_requested power_max power_ratio energy temp mem_temp "
    "temp_slowdown temp_shutdown temp_max mem_temp_max temp_margin tlimit_slowdown tlimit_shutdown "
    "tlimit_max tlimit_mem_max sm_clock gr_clock mem_clock video_clock sm_clock_max mem_clock_max throttle "
    "power_violation thermal_violation sync_boost_violation board_violation low_util_violation "
    "reliability_violation hw_thermal_violation sw_thermal_violation power_brake_violation pcie_tx pcie_rx "
    "pcie_replay pcie_gen pcie_gen_max pcie_width pcie_width_max nvlink_tx nvlink_rx nvlink_links "
    "nvlink_crc nvlink_replay nvlink_recovery nvlink_errors ecc_sbe ecc_dbe ecc_sbe_aggregate "
    "ecc_dbe_aggregate remapped_correctable remapped_uncorrectable remap_pending remap_failure retired_sbe "
    "retired_dbe retired_pending processes mig_mode mig_devices fabric_state fabric_health recovery_action"
).split()
NODE_METRICS = (
    "cpu_util cpu_iowait cpu_steal cpu_busiest cpus load1 load5 load15 procs_running procs_blocked "
    "psi_cpu_some psi_cpu_full psi_mem_some psi_mem_full psi_io_some psi_io_full psi_irq_full mem_total "
    "mem_available mem_used mem_ratio mem_dirty swap_used oom_kills disk_util disk_read disk_write "
    "nfs_read nfs_write nfs_ops nfs_retrans nfs_rtt nfs_exec lustre_read lustre_write net_rx net_tx "
    "tcp_retrans temp_max cpu_power gpus probe_cost"
).split()
PORT_METRICS = (
    "rx tx rate state phys_state roce xmit_wait xmit_discards constraint_errors link_downed link_recovery "
    "symbol_errors integrity_errors overrun_errors rcv_errors rcv_remote_errors vl15_dropped cnp_sent "
    "cnp_handled ecn_marked out_of_sequence sequence_errors ack_timeouts buffer_drops rnr_nak "
    "adp_retransmits icrc_errors errors drops carrier_changes"
).split()
DISK_METRICS = "util read write read_time write_time queue".split()


# ---- values -----------------------------------------------------------------------------------------


class Row(object):
    """The readings of one entity in one poll: a value, or the reason why there is none, for each column."""

    __slots__ = ("columns", "values", "why")

    def __init__(self, columns: Dict[str, int], why: int = NOT_SUPPORTED) -> None:
        self.columns = columns
        self.values = [None] * len(columns)  # type: List[Optional[float]]
        self.why = [why] * len(columns)

    def set(self, name: str, value: Optional[float]) -> None:
        """A value; None, NaN and infinities are a blank."""
        if value is None or not math.isfinite(value):
            self.miss(name, BLANK)
            return
        column = self.columns[name]
        self.values[column] = value
        self.why[column] = PRESENT

    def miss(self, name: str, why: int) -> None:
        """No value, and why; a value that is already there stays."""
        column = self.columns[name]
        if self.values[column] is None:
            self.why[column] = why

    def get(self, name: str) -> Optional[float]:
        return self.values[self.columns[name]]

    def put(self, name: str, value: Optional[float], why: int) -> None:
        """What :meth:`Rates.rate` gave."""
        if value is None:
            self.miss(name, why)
        else:
            self.set(name, value)


class Columns(object):
    """The columns of a kind of entity."""

    def __init__(self, names: Sequence[str]) -> None:
        self.index = {name: i for i, name in enumerate(names)}

    def row(self, why: int = NOT_SUPPORTED) -> Row:
        return Row(self.index, why)


GPU, NODE, PORT, DISK = (
    Columns(GPU_METRICS),
    Columns(NODE_METRICS),
    Columns(PORT_METRICS),
    Columns(DISK_METRICS),
)


class Rates(object):
    """Counters to rates, over the monotonic time between two readings; a counter that goes back starts anew."""

    def __init__(self) -> None:
        self.last = {}  # type: Dict[Any, Tuple[float, float]]

    def delta(self, key: Any, now: float, counter: float) -> Optional[Tuple[float, float]]:
        """What was added, and in how many seconds; None at the first reading and after a reset."""
        before = self.last.get(key)
        self.last[key] = (now, counter)
        if before is None or counter < before[1] or now <= before[0]:
            return None
        return counter - before[1], now - before[0]

    def rate(self, key: Any, now: float, counter: float, scale: float = 1.0) -> Tuple[Optional[float], int]:
        """(units a second, PRESENT), or (None, NOT_SAMPLED)."""
        step = self.delta(key, now, counter)
        return (None, NOT_SAMPLED) if step is None else (step[0] * scale / step[1], PRESENT)

    def keep(self, keys: Set[Any]) -> None:
        """Forgets the counters of what is no longer there; keys are tuples that begin with the entity."""
        for key in [key for key in self.last if key[0] not in keys]:
            del self.last[key]


def tidy(value: Optional[float]) -> Optional[float]:
    """Seven digits, as the reader keeps no more; whole numbers without a point."""
    if value is None or isinstance(value, int):
        return value
    if value == int(value) and abs(value) < 1e15:
        return int(value)
    return float("%.7g" % value)


def reason_of(error: BaseException) -> int:
    """Why a file could not be read, or made no sense."""
    code = getattr(error, "errno", None)
    if code in (errno.EACCES, errno.EPERM):
        return NOT_PERMITTED
    if code in (errno.ENOENT, errno.EOPNOTSUPP, errno.ENOTDIR, errno.ENODEV, errno.EINVAL):
        return NOT_SUPPORTED
    return FAILED


def read_bytes(path: str, limit: int = 1 << 22) -> bytes:
    """A file of /proc or /sys, whole. OSError as usual."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        parts = []
        while limit > 0:
            part = os.read(fd, min(limit, 1 << 17))
            if not part:
                break
            parts.append(part)
            limit -= len(part)
        return b"".join(parts)
    finally:
        os.close(fd)


def read_text(path: str) -> str:
    return read_bytes(path).decode("utf-8", "replace").strip()


def list_dir(path: str) -> List[str]:
    """Names in a folder, sorted; none if it cannot be read."""
    try:
        return sorted(os.listdir(path))
    except OSError:
        return []


def normal_pci(address: str) -> Optional[str]:
    """``00000000:1B:00.0`` -> ``0000:1b:00.0``, as in source.normal_pci."""
    match = re.match(
        r"^(?:([0-9a-f]{1,8}):)?([0-9a-f]{1,2}):([0-9a-f]{1,2})(?:\.([0-7]))?$", address.strip().lower()
    )
    if match is None:
        return None
    domain, bus, device, function = (int(part or "0", 16) for part in match.groups())
    return "%04x:%02x:%02x.%x" % (domain, bus, device, function)


# ---- the host ----
class HostReading(NamedTuple):
    node: Row
    ports: List[Tuple[str, Row]]
    disks: List[Tuple[str, Row]]


class Host(object):
    def __init__(self, proc="/proc", sys="/sys"):
        pass

    def read(self, rates, now):
        return HostReading(NODE.row(), [], [])

    def facts(self):
        return {}

    def events(self):
        return []


# ---- GPUs: what is asked ----------------------------------------------------------------------------

Read = Callable[[Any, Any], Sequence[Optional[float]]]


class Call(NamedTuple):
    """One NVML function and the metrics it gives."""

    metrics: Tuple[str, ...]
    read: Read
    every: float = 0.0
    """Seconds between two calls; the last answer is repeated in between."""
    fallback: bool = False
    """Asked only where nothing better gave these metrics."""
    rate: Optional[float] = None
    """Given: the answer counts up, and this times its growth a second is the metric."""


def read_utilization(nv: Any, device: Any) -> Sequence[Optional[float]]:
    rates = nv.nvmlDeviceGetUtilizationRates(device)
    return (rates.gpu / 100.0, rates.memory / 100.0)


def read_memory(nv: Any, device: Any) -> Sequence[Optional[float]]:
    memory = nv.nvmlDeviceGetMemoryInfo(device, version=nv.nvmlMemory_v2)
    return (memory.used, memory.free, memory.total, memory.reserved)


def read_old_memory(nv: Any, device: Any) -> Sequence[Optional[float]]:
    memory = nv.nvmlDeviceGetMemoryInfo(device)
    return (memory.used, memory.free, memory.total)


def read_throttle(nv: Any, device: Any) -> Sequence[Optional[float]]:
    return (nv.nvmlDeviceGetCurrentClocksEventReasons(device),)


def read_old_throttle(nv: Any, device: Any) -> Sequence[Optional[float]]:
    return (nv.nvmlDeviceGetCurrentClocksThrottleReasons(device),)


def read_power_max(nv: Any, device: Any) -> Sequence[Optional[float]]:
    return (nv.nvmlDeviceGetPowerManagementLimitConstraints(device)[1] / 1e3,)


def read_pcie(nv: Any, device: Any) -> Sequence[Optional[float]]:
    return tuple(nv.nvmlDeviceGetPcieThroughput(device, counter) * 1e3 for counter in (0, 1))


def read_links(nv: Any, device: Any) -> Sequence[Optional[float]]:
    up = 0
    for link in range(getattr(nv, "NVML_NVLINK_MAX_LINKS", 18)):
        try:
            up += nv.nvmlDeviceGetNvLinkState(device, link)
        except nv.NVMLError as error:
            if link == 0 or error.value not in REFUSALS:
                raise
            break
    return (up,)


def read_remapped(nv: Any, device: Any) -> Sequence[Optional[float]]:
    return tuple(nv.nvmlDeviceGetRemappedRows(device))


def read_fabric(nv: Any, device: Any) -> Sequence[Optional[float]]:
    info = fabric_info(nv, device)
    return (info.state, info.healthSummary)


def fabric_info(nv: Any, device: Any) -> Any:
    """The NVSwitch fabric's state of a GPU, version 3 of the struct; NVMLError as usual."""
    info = nv.c_nvmlGpuFabricInfo_v3_t()
    nv.nvmlDeviceGetGpuFabricInfoV(device, ctypes.byref(info))
    return info


def one(function: str, *arguments: int, **options: float) -> Read:
    """A function of NVML that returns a single number."""
    scale = options.get("scale", 1)

    def read(nv: Any, device: Any) -> Sequence[Optional[float]]:
        return (getattr(nv, function)(device, *arguments) * scale,)

    return read


def first(function: str, scale: float) -> Read:
    """A function of NVML that returns [number, sampling period]."""

    def read(nv: Any, device: Any) -> Sequence[Optional[float]]:
        return (getattr(nv, function)(device)[0] * scale,)

    return read


def violation(policy: int) -> Read:
    def read(nv: Any, device: Any) -> Sequence[Optional[float]]:
        return (nv.nvmlDeviceGetViolationStatus(device, policy).violationTime,)

    return read


def retired(cause: int) -> Read:
    def read(nv: Any, device: Any) -> Sequence[Optional[float]]:
        return (len(nv.nvmlDeviceGetRetiredPages(device, cause)),)

    return read


NS = 1e-9
CALLS = (
    Call(("util", "mem_util"), read_utilization),
    Call(("mem_used", "mem_free", "mem_total", "mem_reserved"), read_memory),
    Call(("mem_used", "mem_free", "mem_total"), read_old_memory, fallback=True),
    Call(("power",), one("nvmlDeviceGetPowerUsage", scale=1e-3)),
    Call(("power_limit",), one("nvmlDeviceGetEnforcedPowerLimit", scale=1e-3)),
    Call(("power_requested",), one("nvmlDeviceGetPowerManagementLimit", scale=1e-3), every=SLOW),
    Call(("power_max",), read_power_max, every=60.0),
    Call(("energy",), one("nvmlDeviceGetTotalEnergyConsumption"), fallback=True, rate=1e-3),
    Call(("temp",), one("nvmlDeviceGetTemperature", 0)),
    Call(("temp_margin",), one("nvmlDeviceGetMarginTemperature")),
    Call(("temp_shutdown",), one("nvmlDeviceGetTemperatureThreshold", 0), every=60.0),
    Call(("temp_slowdown",), one("nvmlDeviceGetTemperatureThreshold", 1), every=60.0),
    Call(("mem_temp_max",), one("nvmlDeviceGetTemperatureThreshold", 2), every=60.0),
    Call(("temp_max",), one("nvmlDeviceGetTemperatureThreshold", 3), every=60.0),
    Call(("gr_clock",), one("nvmlDeviceGetClockInfo", 0)),
    Call(("sm_clock",), one("nvmlDeviceGetClockInfo", 1)),
    Call(("mem_clock",), one("nvmlDeviceGetClockInfo", 2)),
    Call(("video_clock",), one("nvmlDeviceGetClockInfo", 3)),
    Call(("sm_clock_max",), one("nvmlDeviceGetMaxClockInfo", 1), every=60.0),
    Call(("mem_clock_max",), one("nvmlDeviceGetMaxClockInfo", 2), every=60.0),
    Call(("throttle",), read_throttle),
    Call(("throttle",), read_old_throttle, fallback=True),
    Call(("power_violation",), violation(0), fallback=True, rate=NS),
    Call(("thermal_violation",), violation(1), fallback=True, rate=NS),
    Call(("sync_boost_violation",), violation(2), fallback=True, rate=NS),
    Call(("board_violation",), violation(3), fallback=True, rate=NS),
    Call(("low_util_violation",), violation(4), fallback=True, rate=NS),
    Call(("reliability_violation",), violation(5), fallback=True, rate=NS),
    Call(("enc_util",), first("nvmlDeviceGetEncoderUtilization", 0.01)),
    Call(("dec_util",), first("nvmlDeviceGetDecoderUtilization", 0.01)),
    Call(("jpg_util",), first("nvmlDeviceGetJpgUtilization", 0.01)),
    Call(("ofa_util",), first("nvmlDeviceGetOfaUtilization", 0.01)),
    Call(("pcie_tx", "pcie_rx"), read_pcie, fallback=True),  # blocks for 20 ms each
    Call(("pcie_replay",), one("nvmlDeviceGetPcieReplayCounter"), fallback=True, rate=1.0),
    Call(("pcie_gen",), one("nvmlDeviceGetCurrPcieLinkGeneration"), every=SLOW),
    Call(("pcie_gen_max",), one("nvmlDeviceGetMaxPcieLinkGeneration"), every=60.0),
    Call(("pcie_width",), one("nvmlDeviceGetCurrPcieLinkWidth"), every=SLOW),
    Call(("pcie_width_max",), one("nvmlDeviceGetMaxPcieLinkWidth"), every=60.0),
    Call(("nvlink_links",), read_links, every=SLOW),
    Call(("ecc_sbe",), one("nvmlDeviceGetTotalEccErrors", 0, 0), every=SLOW, fallback=True),
    Call(("ecc_dbe",), one("nvmlDeviceGetTotalEccErrors", 1, 0), every=SLOW, fallback=True),
    Call(("ecc_sbe_aggregate",), one("nvmlDeviceGetTotalEccErrors", 0, 1), every=SLOW, fallback=True),
    Call(("ecc_dbe_aggregate",), one("nvmlDeviceGetTotalEccErrors", 1, 1), every=SLOW, fallback=True),
    Call(
        ("remapped_correctable", "remapped_uncorrectable", "remap_pending", "remap_failure"),
        read_remapped,
        every=SLOW,
        fallback=True,
    ),
    Call(("retired_sbe",), retired(0), every=60.0, fallback=True),
    Call(("retired_dbe",), retired(1), every=60.0, fallback=True),
    Call(("retired_pending",), one("nvmlDeviceGetRetiredPagesPendingStatus"), every=60.0, fallback=True),
    Call(("fabric_state", "fabric_health"), read_fabric, every=SLOW),
)
INSTANCE_CALLS = (CALLS[1], CALLS[2])


class Field(NamedTuple):
    """A metric from nvmlDeviceGetFieldValues: the sum of those fields of the first alternative that answers."""

    metric: str
    alternatives: Tuple[Tuple[int, ...], ...]
    scale: float = 1.0
    counts: bool = False
    every: float = 0.0
    links: bool = False
    """Asked for all links together, or, where that is refused, link by link."""


FIELDS = (
    Field("power_instant", ((186,),), 1e-3),
    Field("energy", ((83,), (191,)), 1e-3, counts=True),
    Field("mem_temp", ((82,),)),
    Field("tlimit_shutdown", ((193,),), every=60.0),
    Field("tlimit_slowdown", ((194,),), every=60.0),
    Field("tlimit_mem_max", ((195,),), every=60.0),
    Field("tlimit_max", ((196,),), every=60.0),
    Field("power_violation", ((74,),), NS, counts=True),
    Field("thermal_violation", ((75,),), NS, counts=True),
    Field("sync_boost_violation", ((76,),), NS, counts=True),
    Field("board_violation", ((77,),), NS, counts=True),
    Field("low_util_violation", ((78,),), NS, counts=True),
    Field("reliability_violation", ((79,),), NS, counts=True),
    Field("sw_thermal_violation", ((269,),), NS, counts=True),
    Field("hw_thermal_violation", ((270,),), NS, counts=True),
    Field("power_brake_violation", ((271,),), NS, counts=True),
    Field("pcie_tx", ((197,),), counts=True),
    Field("pcie_rx", ((198,),), counts=True),
    Field("pcie_replay", ((94,),), counts=True),
    Field("nvlink_tx", ((138,),), KIB, counts=True, links=True),
    Field("nvlink_rx", ((139,),), KIB, counts=True, links=True),
    Field("nvlink_tx", ((202,),), counts=True, links=True),
    Field("nvlink_rx", ((204,),), counts=True, links=True),
    Field("nvlink_crc", ((38, 45), (163,)), counts=True, links=True),
    Field("nvlink_replay", ((52,), (161,)), counts=True, links=True),
    Field("nvlink_recovery", ((59,), (162,), (215,)), counts=True, links=True),
    Field("nvlink_errors", ((206, 207, 208, 219, 221),), counts=True, links=True),
    Field("ecc_sbe", ((3,),), every=SLOW),
    Field("ecc_dbe", ((4,),), every=SLOW),
    Field("ecc_sbe_aggregate", ((5,),), every=SLOW),
    Field("ecc_dbe_aggregate", ((6,),), every=SLOW),
    Field("remapped_correctable", ((142,),), every=SLOW),
    Field("remapped_uncorrectable", ((143,),), every=SLOW),
    Field("remap_pending", ((144,),), every=SLOW),
    Field("remap_failure", ((145,),), every=SLOW),
    Field("retired_sbe", ((29,),), every=60.0),
    Field("retired_dbe", ((30,),), every=60.0),
    Field("retired_pending", ((31,),), every=60.0),
    Field("recovery_action", ((230,),), every=SLOW),
)
SIGNED_32, UNSIGNED_32 = (5,), (1,)

GPM = (
    ("gr_active", 1, 0.01),
    ("sm_active", 2, 0.01),
    ("sm_occupancy", 3, 0.01),
    ("tensor_active", 5, 0.01),
    ("dram_active", 10, 0.01),
    ("fp64_active", 11, 0.01),
    ("fp32_active", 12, 0.01),
    ("fp16_active", 13, 0.01),
    ("pcie_tx", 20, MIB),
    ("pcie_rx", 21, MIB),
    ("nvlink_rx", 60, MIB),
    ("nvlink_tx", 61, MIB),
)


class Lost(Exception):
    """This GPU answers no more; holds NVML's code."""

    def __init__(self, code: int) -> None:
        super(Lost, self).__init__(code)
        self.code = code


class Restart(Exception):
    """NVML has to be started again; holds NVML's code."""

    def __init__(self, code: int) -> None:
        super(Restart, self).__init__(code)
        self.code = code


class Superseded(Exception):
    """This worker hung for so long that another one has taken over."""


class Refused(Exception):
    """One reading failed; holds the reason and whether to stop asking for a while."""

    def __init__(self, why: int, lasting: bool) -> None:
        super(Refused, self).__init__(why)
        self.why = why
        self.lasting = lasting


Ask = Callable[..., Any]
"""ask(read, device, ...) runs an NVML function under supervision: Lost, Restart, Superseded or Refused."""


# ---- GPUs: how it is asked --------------------------------------------------------------------------


def field_value(answer: Any) -> Optional[float]:
    """The number in a field's union, by its type; None for NVML's "not available"."""
    kind, value = answer.valueType, answer.value
    if kind == 3 or kind == 2:
        number = value.ullVal
        return None if number == NOT_AVAILABLE else number
    if kind == 1:
        return None if value.uiVal == 0xFFFFFFFF else value.uiVal
    return {0: value.dVal, 4: value.sllVal, 5: value.siVal, 6: value.usVal}.get(kind)


class Plan(NamedTuple):
    """How a field metric is read on one GPU: the (field, scope) pairs to sum, or why it cannot be."""

    field: Field
    pairs: Tuple[Tuple[int, int], ...]
    why: int


class Fields(object):
    """All that one GPU answers through nvmlDeviceGetFieldValues, asked together."""

    def __init__(self) -> None:
        self.plans = []  # type: List[Plan]
        self.replan_at = 0.0
        self.slow = {}  # type: Dict[str, Tuple[float, Optional[float], int]]

    def read(self, ask: Ask, device: Any, row: Row, rates: Rates, key: Any) -> None:
        """Fills the row; Lost and Restart pass through."""
        now = time.monotonic()
        try:
            if now >= self.replan_at:
                self._plan(ask, device, now)
            due = [plan for plan in self.plans if plan.pairs and not self._repeat(plan, row, now)]
            answers = self._ask(ask, device, [pair for plan in due for pair in plan.pairs])
        except Refused as refused:
            for field in FIELDS:
                row.miss(field.metric, refused.why)
            return
        for plan in self.plans:
            if not plan.pairs:
                row.miss(plan.field.metric, plan.why)
        for plan in due:
            self._fill(plan, answers, row, rates, key)

    def _plan(self, ask: Ask, device: Any, now: float) -> None:
        ids = [(i, ALL_LINKS if f.links else 0) for f in FIELDS for group in f.alternatives for i in group]
        answers = self._ask(ask, device, ids)
        refused_links = [pair for pair in ids if pair[1] == ALL_LINKS and answers[pair][1] != 0]
        links = self._links(ask, device, [pair[0] for pair in refused_links]) if refused_links else {}
        self.plans = [plan_of(field, answers, links) for field in FIELDS]
        passing = any(answers[pair][1] not in (0, 4) + REFUSALS for pair in ids)
        self.replan_at = now + (SLOW if passing else REASK)

    def _links(self, ask: Ask, device: Any, ids: List[int]) -> Dict[int, Tuple[Tuple[int, int], ...]]:
        answers = self._ask(ask, device, [(i, link) for i in ids for link in range(18)])
        found = {}
        for i in ids:
            pairs = tuple((i, link) for link in range(18) if answers[(i, link)][1] == 0)
            if len(pairs) > 1:  # link 0 alone is the whole-GPU field under another name
                found[i] = pairs
        return found

    def _ask(self, ask: Ask, device: Any, pairs: List[Tuple[int, int]]) -> Dict[Tuple[int, int], Any]:
        """(value, code) by pair."""
        if not pairs:
            return {}
        values = ask(lambda nv, d: nv.nvmlDeviceGetFieldValues(d, pairs), device, "nvmlDeviceGetFieldValues")
        return {pair: (field_value(answer), answer.nvmlReturn) for pair, answer in zip(pairs, values)}

    def _repeat(self, plan: Plan, row: Row, now: float) -> bool:
        kept = self.slow.get(plan.field.metric)
        if kept is None or now >= kept[0]:
            return False
        row.put(plan.field.metric, kept[1], kept[2])
        return True

    def _fill(
        self, plan: Plan, answers: Dict[Tuple[int, int], Any], row: Row, rates: Rates, key: Any
    ) -> None:
        field, total, now = plan.field, 0.0, time.monotonic()
        bad = [answers[pair][1] for pair in plan.pairs if answers[pair][1] != 0]
        if bad:
            raise_if_gone(bad[0])
            row.miss(field.metric, REASONS.get(bad[0], FAILED))
            self.replan_at = min(self.replan_at, now + SLOW)
            return
        values = [answers[pair][0] for pair in plan.pairs]
        if None in values:
            value, why = None, BLANK  # type: Tuple[Optional[float], int]
        elif field.counts:
            total = float(sum(values))
            value, why = rates.rate((key, field.metric, plan.pairs), now, total, field.scale)
        else:
            value, why = sum(values) * field.scale, PRESENT
        if field.every:
            self.slow[field.metric] = (now + field.every, value, why)
        if row.get(field.metric) is None:
            row.put(field.metric, value, why)


def plan_of(
    field: Field, answers: Dict[Tuple[int, int], Any], links: Dict[int, Tuple[Tuple[int, int], ...]]
) -> Plan:
    """The first alternative of a field that this GPU answers."""
    scope = ALL_LINKS if field.links else 0
    why = NOT_SUPPORTED
    for group in field.alternatives:
        pairs = []  # type: List[Tuple[int, int]]
        for i in group:
            code = answers[(i, scope)][1]
            pairs.extend([(i, scope)] if code == 0 else links.get(i, ()))
            if code not in REFUSALS:
                why = REASONS.get(code, FAILED)
        if pairs:
            return Plan(field, tuple(pairs), PRESENT)
    return Plan(field, (), why)


def raise_if_gone(code: int) -> None:
    """Lost or Restart, if that is what an NVML code means."""
    if code in GONE:
        raise Lost(code)
    if code in RESTART:
        raise Restart(code)


class Profile(object):
    """GPM on Hopper and later: two samples, and what happened in between."""

    def __init__(self, gi: Optional[int] = None) -> None:
        self.gi = gi
        self.rest_until = 0.0
        self.why = NOT_SAMPLED
        self.samples = None  # type: Any
        self.metrics = None  # type: Any
        self.filled = 0

    def read(self, ask: Ask, device: Any, row: Row) -> None:
        """Fills what is not there yet; ``device`` is the board, also for an instance."""
        now = time.monotonic()
        try:
            if now >= self.rest_until:
                self._sample(ask, device)
            if self.filled < 2 or now < self.rest_until:
                raise Refused(self.why, False)
            self._fill(ask, row)
        except Refused as refused:
            if refused.lasting:
                self.rest_until, self.why, self.filled = now + REASK, refused.why, 0
            for name, _, _ in GPM:
                row.miss(name, refused.why)

    def _sample(self, ask: Ask, device: Any) -> None:
        if self.samples is None:
            support = ask(lambda nv, d: nv.nvmlGpmQueryDeviceSupport(d), device, "nvmlGpmQueryDeviceSupport")
            if not support.isSupportedDevice:
                raise Refused(NOT_SUPPORTED, True)
            self.samples = ask(
                lambda nv, d: [nv.nvmlGpmSampleAlloc() for _ in range(2)], device, "nvmlGpmSampleAlloc"
            )
        self.samples.reverse()
        gi, sample = self.gi, self.samples[1]
        if gi is None:
            ask(lambda nv, d: nv.nvmlGpmSampleGet(d, sample), device, "nvmlGpmSampleGet")
        else:
            ask(lambda nv, d: nv.nvmlGpmMigSampleGet(d, gi, sample), device, "nvmlGpmMigSampleGet")
        self.filled = min(2, self.filled + 1)
        self.why = NOT_SAMPLED

    def _fill(self, ask: Ask, row: Row) -> None:
        def read(nv: Any, _device: Any) -> Any:
            if self.metrics is None:
                self.metrics = nv.c_nvmlGpmMetricsGet_t()
                self.metrics.version = nv.NVML_GPM_METRICS_GET_VERSION
                self.metrics.numMetrics = len(GPM)
                for i, (_, number, _) in enumerate(GPM):
                    self.metrics.metrics[i].metricId = number
            self.metrics.sample1, self.metrics.sample2 = self.samples
            return nv.nvmlGpmMetricsGet(self.metrics)

        answers = ask(read, None, "nvmlGpmMetricsGet").metrics
        for i, (name, _, scale) in enumerate(GPM):
            if row.get(name) is None:
                code = answers[i].nvmlReturn
                if code:
                    row.miss(name, REASONS.get(code, FAILED))
                else:
                    row.set(name, answers[i].value * scale)


class Process(NamedTuple):
    """A process on a GPU: a Proc of the wire without user and command."""

    gi: Optional[int]
    pid: int
    memory: Optional[int]
    sm: Optional[float]


class Instance(NamedTuple):
    """A MIG instance (a GPU instance with its compute instances) of a board."""

    gi: int
    device: Any
    uuid: Optional[str]
    profile: Optional[str]
    profiler: Profile


SAME_FACTS = ("index", "uuid", "pci", "minor", "model")
"""What a MIG instance has of its board."""


class Board(object):
    """One GPU: its handle, what it is, and the state of reading it."""

    def __init__(self, index: int, device: Any) -> None:
        self.index = index
        self.device = device
        self.facts = {"index": index}  # type: Dict[str, Any]
        self.instances = []  # type: List[Instance]
        self.fields = Fields()
        self.profile = Profile()
        self.rest = {}  # type: Dict[Tuple[Any, int], Tuple[float, int]]
        self.slow = {}  # type: Dict[Tuple[Any, int], Tuple[float, Sequence[Optional[float]]]]
        self.lost = 0  # NVML's code
        self.look_at = 0.0
        self.hung = False
        self.refused = PRESENT
        self.mig = None  # type: Optional[bool]
        self.tick = -1
        self.mig_at = 0.0
        self.processes = []  # type: List[Process]
        self.processes_why = NOT_SAMPLED
        self.processes_at = 0.0
        self.sm_since = 0
        self.rows = []  # type: List[Row]

    @property
    def pci(self) -> Optional[str]:
        return self.facts.get("pci")

    @property
    def place(self) -> str:
        """For people."""
        return "GPU %d (%s)" % (self.index, self.pci or "?")

    def blank_rows(self, why: int) -> List[Row]:
        return [GPU.row(why) for _ in range(1 + len(self.instances))]

    def schema(self) -> List[Dict[str, Any]]:
        """Its rows of the wire's Schema: the board, then its instances."""
        rows = [dict(self.facts)]
        for instance in self.instances:
            row = {name: self.facts[name] for name in SAME_FACTS if name in self.facts}  # type: Dict[str, Any]
            row.update(mig="gi%d" % instance.gi, mig_uuid=instance.uuid, mig_profile=instance.profile)
            rows.append(row)
        return rows


def read_calls(
    ask: Ask, board: Board, device: Any, key: Any, calls: Sequence[Call], row: Row, rates: Rates
) -> None:
    """The readings of CALLS, each fallible by itself."""
    for number, call in enumerate(calls):
        if call.fallback and all(
            row.get(name) is not None or row.why[row.columns[name]] != NOT_SUPPORTED for name in call.metrics
        ):
            continue
        read_call(ask, board, device, (key, number), call, row, rates)


def read_call(
    ask: Ask, board: Board, device: Any, key: Tuple[Any, int], call: Call, row: Row, rates: Rates
) -> None:
    now = time.monotonic()
    rest = board.rest.get(key)
    if rest is not None and now < rest[0]:
        for name in call.metrics:
            row.miss(name, rest[1])
        return
    kept = board.slow.get(key) if call.every else None
    try:
        values = kept[1] if kept is not None and now < kept[0] else ask(call.read, device, call.metrics[0])
    except Refused as refused:
        if refused.lasting:
            board.rest[key] = (now + REASK, refused.why)
        for name in call.metrics:
            row.miss(name, refused.why)
        return
    if call.every and (kept is None or now >= kept[0]):
        board.slow[key] = (now + call.every, values)
    for name, value in zip(call.metrics, values):
        if row.get(name) is not None:
            continue
        if call.rate is None or value is None:
            row.set(name, value)
        else:
            row.put(name, *rates.rate((key[0], name, "call"), time.monotonic(), value, call.rate))


def derive(row: Row) -> None:
    """Shares, where both parts are there."""
    used, total = row.get("mem_used"), row.get("mem_total")
    if used is not None and total:
        usable = total - (row.get("mem_reserved") or 0)
        row.set("mem_ratio", min(1.0, used / usable) if usable > 0 else None)
    power, limit = row.get("power"), row.get("power_limit")
    if power is not None and limit:
        row.set("power_ratio", power / limit)


# ---- NVML under supervision -------------------------------------------------------------------------

HANG = 3.0  # seconds in one call after which a GPU is left aside
SHARED = (
    "power power_instant power_limit power_requested power_max power_ratio energy temp mem_temp temp_margin "
    "temp_slowdown temp_shutdown temp_max mem_temp_max sm_clock gr_clock mem_clock sm_clock_max throttle "
    "power_violation thermal_violation"
).split()  # a MIG instance has its board's

PROBLEMS = {
    4: ("this user may not open the NVIDIA devices", "give our user access to /dev/nvidia*"),
    9: ("the NVIDIA driver is not loaded", "modprobe nvidia, or look for NVRM in dmesg"),
    12: ("the NVML library was not found", "install the driver's libnvidia-ml.so.1 (libnvidia-compute)"),
    18: (
        "the NVIDIA driver and its NVML library differ: upgraded and not reloaded",
        "reboot, or stop all GPU work and reload the nvidia modules",
    ),
}


def load_pynvml(boot: Dict[str, Any]) -> Any:
    """The pynvml that came along; under the name by which it finds itself."""
    source = boot.get("pynvml")
    if source is None:
        import pynvml

        return pynvml
    module = types.ModuleType("pynvml")
    sys.modules["pynvml"] = module
    exec(compile(source, "pynvml", "exec"), module.__dict__)
    return module


def text_of(value: Any) -> str:
    """pynvml gives bytes on some versions."""
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


class Task(NamedTuple):
    """What a worker is in the middle of."""

    board: Optional[Board]
    since: float
    what: str


class Worker(object):
    """A thread that asks NVML; when a call hangs it is left behind, and ends by itself when that returns."""

    def __init__(self, gpus: "Gpus") -> None:
        self.gpus = gpus
        self.task = None  # type: Optional[Task]
        self.superseded = False
        self.wanted = threading.Event()
        self.done = threading.Event()
        thread = threading.Thread(target=self._run, name="nvml")
        thread.daemon = True
        thread.start()

    def _run(self) -> None:
        while not self.superseded:
            self.wanted.wait()
            self.wanted.clear()
            try:
                self.gpus.poll(self)
            except Superseded:
                return
            except Exception as error:
                self.gpus.problem = ("reading the GPUs failed: %r" % (error,), "please report this")
            self.done.set()

    def ask_for(self, board: Optional[Board]) -> Ask:
        """``ask`` for one board: each call is marked, so that a hang is seen and its GPU known."""
        nv = self.gpus.nv

        def ask(read: Any, device: Any, what: str) -> Any:
            self.task = Task(board, time.monotonic(), what)
            try:
                return read(nv, device)
            except nv.NVMLError as error:
                raise_if_gone(error.value)
                raise Refused(
                    REASONS.get(error.value, FAILED), error.value in REFUSALS or error.value == 4
                ) from error
            except (AttributeError, TypeError, ValueError) as error:
                # This pynvml or driver has it in another shape.
                raise Refused(NOT_SUPPORTED, True) from error
            finally:
                self.task = None
                if self.superseded:
                    if board is not None:
                        board.hung = False
                    raise Superseded()

        return ask


class Gpus(object):
    """All GPUs of the host: started, read, lost, found again."""

    def __init__(self, nv: Any, nvidia: str, sys_root: str, retry: float) -> None:
        self.nv = nv
        self.nvidia = nvidia
        self.sys_root = sys_root
        self.retry = retry
        self.boards = []  # type: List[Board]
        self.rates = Rates()
        self.problem = ("", "")
        self.driver = None  # type: Optional[str]
        self.version = None  # type: Optional[str]
        self.started = False
        self.start_at = 0.0
        self.tick = 0
        self.worker = Worker(self)
        self.xids = None  # type: Optional[XidWatch]
        self.happened = collections.deque(maxlen=MAX_EVENTS)  # type: Any

    # -- from the main thread --

    def read(self, budget: float) -> None:
        """One poll; returns after ``budget`` seconds at the latest, with what is there."""
        self._supersede_if_hung()
        if self.worker.task is None or self.worker.done.is_set():
            self.tick += 1
            self.worker.done.clear()
            self.worker.wanted.set()
        self.worker.done.wait(budget)
        self._supersede_if_hung()

    def rows(self) -> List[Row]:
        """A row for each GPU and MIG instance, in the order of :meth:`schema`."""
        rows = []  # type: List[Row]
        for board in list(self.boards):
            if board.hung:
                rows.extend(board.blank_rows(FAILED))
            elif board.tick == self.tick and len(board.rows) == 1 + len(board.instances):
                rows.extend(board.rows)
            else:
                rows.extend(board.blank_rows(NOT_SAMPLED))
        return rows[: MAX_ROWS * 8]

    def schema(self) -> List[Dict[str, Any]]:
        return [row for board in list(self.boards) for row in board.schema()][: MAX_ROWS * 8]

    def pci(self) -> List[str]:
        """All GPUs that the kernel driver knows, also those our user may not open."""
        found = {normal_pci(name) for name in list_dir(self.nvidia + "/gpus")}
        return sorted(address for address in found if address)

    def _supersede_if_hung(self) -> None:
        task = self.worker.task
        if task is None or time.monotonic() - task.since < HANG:
            return
        if task.board is None:
            self.problem = ("NVML does not answer (%s)" % task.what, "look for NVRM and Xid in dmesg")
            return
        if not task.board.hung:
            task.board.hung = True
            self.say("gpu_hung", "%s: %s does not return" % (task.board.place, task.what), task.board)
        self.worker.superseded = True
        self.worker = Worker(self)

    def say(self, kind: str, detail: str, board: Optional[Board] = None) -> None:
        """An event of a board, or of the host."""
        self.happened.append((time.time(), kind, detail, board))

    # -- in the worker --

    def poll(self, worker: Worker) -> None:
        """Every board that is not stuck, each with its own misfortune."""
        if not self.started and not self._start(worker):
            return
        for board in list(self.boards):
            if worker.superseded:
                raise Superseded()
            if board.hung or board.tick == self.tick:
                continue
            try:
                self._read_board(worker, board)
            except Lost as lost:
                self._lose(board, lost.code)
            except Restart as restart:
                self._stop(restart.code)
                return

    def _start(self, worker: Worker) -> bool:
        now = time.monotonic()
        if now < self.start_at:
            return False
        self.start_at = now + self.retry
        ask = worker.ask_for(None)
        try:
            ask(lambda nv, d: nv.nvmlInit(), None, "nvmlInit")
            self.driver = text_of(
                ask(lambda nv, d: nv.nvmlSystemGetDriverVersion(), None, "nvmlSystemGetDriverVersion")
            )
            self.version = text_of(
                ask(lambda nv, d: nv.nvmlSystemGetNVMLVersion(), None, "nvmlSystemGetNVMLVersion")
            )
            count = ask(lambda nv, d: nv.nvmlDeviceGetCount(), None, "nvmlDeviceGetCount")
        except (Lost, Restart) as gone:
            self._explain(gone.code)
            return False
        except Refused as refused:
            self._explain(self._init_code(refused))
            return False
        self.boards = [self._board(worker, index) for index in range(min(count, MAX_ROWS))]
        self._place_the_lost()
        self.rates.keep({id(board) for board in self.boards})
        self.problem, self.started = ("", ""), True
        self.xids = XidWatch(self)
        return True

    def _init_code(self, refused: Refused) -> int:
        """The code behind a refusal to start: asked once more, plainly."""
        try:
            self.nv.nvmlInit()
        except self.nv.NVMLError as error:
            return int(error.value)
        return 999

    def _explain(self, code: int) -> None:
        """Why there are no GPU readings; nothing where there is no NVIDIA hardware."""
        self.boards = []
        if not self.pci() and not has_nvidia_hardware(self.sys_root) and code in (9, 12, 999):
            self.problem = ("", "")
            return
        unknown = ("NVML could not be started (error %d)" % code, "run nvidia-smi there")
        self.problem = PROBLEMS.get(code, unknown)

    def _stop(self, code: int) -> None:
        """NVML has lost its driver: begin again later."""
        if self.xids is not None:
            self.xids.ended = True
        try:
            self.nv.nvmlShutdown()
        except self.nv.NVMLError:
            pass
        self.started = False
        self.start_at = time.monotonic() + (0.0 if code == 1 else self.retry)
        self._explain(code)

    def _board(self, worker: Worker, index: int) -> Board:
        """The GPU of an index with its facts; one that cannot be opened is lost from the beginning."""
        known = [board for board in self.boards if board.index == index]
        board = known[0] if known else Board(index, None)
        try:
            self._identify(worker, board)
        except Lost as lost:
            self._lose(board, lost.code)
        except Restart:
            board.look_at = 0.0
        except Refused as refused:
            board.refused = refused.why
        return board

    def _identify(self, worker: Worker, board: Board) -> None:
        """Its handle and facts; what it does not tell is left out."""
        ask = worker.ask_for(board)
        board.device = ask(
            lambda nv, d: nv.nvmlDeviceGetHandleByIndex(board.index), None, "nvmlDeviceGetHandleByIndex"
        )
        facts = {"index": board.index}  # type: Dict[str, Any]
        for name, read in FACTS:
            try:
                value = ask(read, board.device, name)
            except Refused:
                continue
            if value is not None:
                facts[name] = value
        board.facts, board.refused = facts, PRESENT
        self._find_instances(worker, board)

    def _find_instances(self, worker: Worker, board: Board) -> None:
        """Its MIG instances as they are now."""
        ask = worker.ask_for(board)
        board.mig_at = time.monotonic() + SLOW
        try:
            on = ask(lambda nv, d: nv.nvmlDeviceGetMigMode(d)[0], board.device, "nvmlDeviceGetMigMode") == 1
            most = (
                ask(lambda nv, d: nv.nvmlDeviceGetMaxMigDeviceCount(d), board.device, "MaxMigDeviceCount")
                if on
                else 0
            )
        except Refused:
            board.mig = None
            return
        board.mig, board.facts["mig_enabled"] = on, on
        before = {instance.uuid: instance for instance in board.instances}
        found = []
        for number in range(min(most, 16)):
            try:
                instance = self._instance(ask, board, number)
            except Refused:
                continue
            found.append(before.get(instance.uuid, instance))
        board.instances = sorted(found, key=lambda instance: instance.gi)

    def _instance(self, ask: Ask, board: Board, number: int) -> Instance:
        device = ask(
            lambda nv, d: nv.nvmlDeviceGetMigDeviceHandleByIndex(d, number), board.device, "MigDeviceHandle"
        )
        gi = ask(lambda nv, d: nv.nvmlDeviceGetGpuInstanceId(d), device, "nvmlDeviceGetGpuInstanceId")
        uuid = text_of(ask(lambda nv, d: nv.nvmlDeviceGetUUID(d), device, "nvmlDeviceGetUUID"))
        try:
            name = text_of(ask(lambda nv, d: nv.nvmlDeviceGetName(d), device, "nvmlDeviceGetName"))
        except Refused:
            name = ""
        profile = name.partition(" MIG ")[2] or None
        return Instance(gi, device, uuid, profile, Profile(gi))

    def _place_the_lost(self) -> None:
        """A board that cannot be opened has the one address that the kernel knows and no other board has."""
        nameless = [board for board in self.boards if "pci" not in board.facts]
        free = [address for address in self.pci() if address not in {b.pci for b in self.boards}]
        for board, address in zip(nameless, free) if len(nameless) == len(free) else ():
            board.facts["pci"] = address

    def _lose(self, board: Board, code: int) -> None:
        board.look_at = time.monotonic() + self.retry
        board.rows, board.tick = board.blank_rows(LOST), self.tick
        if not board.lost:
            what = "needs a reset" if code == 16 else "does not answer any more"
            self.say("gpu_lost", "%s %s" % (board.place, what), board)
        board.lost = code

    def _read_board(self, worker: Worker, board: Board) -> None:
        now = time.monotonic()
        if board.lost:
            if now < board.look_at:
                board.rows, board.tick = board.blank_rows(LOST), self.tick
                return
            self._identify(worker, board)
            self.say("gpu_back", "%s answers again" % board.place, board)
            board.lost = 0
            if self.xids is not None:
                self.xids.register(board)
        if board.device is None:
            self._identify(worker, board)
        if now >= board.mig_at:
            self._find_instances(worker, board)
        row = self._board_row(worker.ask_for(board), board)
        rows = [row] + [
            self._instance_row(worker.ask_for(board), board, instance, row) for instance in board.instances
        ]
        board.rows, board.tick = rows, self.tick

    def _board_row(self, ask: Ask, board: Board) -> Row:
        row, key = GPU.row(), id(board)
        board.fields.read(ask, board.device, row, self.rates, key)
        board.profile.read(ask, board.device, row)
        read_calls(ask, board, board.device, key, CALLS, row, self.rates)
        derive(row)
        if board.mig is not None:
            row.set("mig_mode", float(board.mig))
            row.set("mig_devices", len(board.instances))
        self._read_processes(ask, board)
        if board.processes_why == PRESENT:
            row.set("processes", len(board.processes))
        else:
            row.miss("processes", board.processes_why)
        return row

    def _instance_row(self, ask: Ask, board: Board, instance: Instance, parent: Row) -> Row:
        row = GPU.row()
        instance.profiler.read(ask, board.device, row)
        read_calls(ask, board, instance.device, (id(board), instance.gi), INSTANCE_CALLS, row, self.rates)
        for name in SHARED:
            column = parent.columns[name]
            row.put(name, parent.values[column], parent.why[column])
        derive(row)
        row.set("processes", sum(process.gi == instance.gi for process in board.processes))
        return row

    def _read_processes(self, ask: Ask, board: Board) -> None:
        now = time.monotonic()
        if now < board.processes_at:
            return
        board.processes_at = now + PROCESS_PERIOD
        try:
            running = ask(
                lambda nv, d: nv.nvmlDeviceGetComputeRunningProcesses(d),
                board.device,
                "ComputeRunningProcesses",
            )
        except Refused as refused:
            board.processes, board.processes_why = [], refused.why
            return
        shares = self._process_shares(ask, board) if running else {}
        board.processes_why = PRESENT
        board.processes = [
            Process(instance_of(process), process.pid, process.usedGpuMemory, shares.get(process.pid))
            for process in running[:MAX_PROCESSES]
        ]

    def _process_shares(self, ask: Ask, board: Board) -> Dict[int, float]:
        """Share of SM time by process since the last look, where NVML tells."""
        try:
            samples = ask(
                lambda nv, d: nv.nvmlDeviceGetProcessUtilization(d, board.sm_since),
                board.device,
                "ProcessUtilization",
            )
        except Refused:
            return {}
        shares = {}  # type: Dict[int, float]
        for sample in samples:
            board.sm_since = max(board.sm_since, sample.timeStamp)
            shares[sample.pid] = min(1.0, sample.smUtil / 100.0)
        return shares


def instance_of(process: Any) -> Optional[int]:
    gi = getattr(process, "gpuInstanceId", None)
    return None if gi in (None, 0xFFFFFFFF) else gi


def has_nvidia_hardware(sys_root: str) -> bool:
    """Whether the PCI bus holds an NVIDIA display or 3D controller."""
    for device in list_dir(sys_root + "/bus/pci/devices"):
        try:
            folder = "%s/bus/pci/devices/%s" % (sys_root, device)
            if read_text(folder + "/vendor") == "0x10de" and read_text(folder + "/class").startswith("0x03"):
                return True
        except OSError:
            continue
    return False


def read_slowdown(nv: Any, device: Any) -> float:
    return float(nv.nvmlDeviceGetTemperatureThreshold(device, 1))


def read_fabric_name(nv: Any, device: Any) -> Optional[str]:
    """``cluster uuid/clique`` of a registered GPU, else its state in a word; None: no fabric."""
    info = fabric_info(nv, device)
    if info.state == 3:
        uuid = "".join("%02x" % (byte & 0xFF) for byte in bytearray(info.clusterUuid))
        return "%s/%d" % (uuid, info.cliqueId)
    return {1: "not started", 2: "in progress"}.get(info.state)


FACTS = (
    ("uuid", lambda nv, d: text_of(nv.nvmlDeviceGetUUID(d))),
    ("pci", lambda nv, d: normal_pci(text_of(nv.nvmlDeviceGetPciInfo(d).busId))),
    ("minor", lambda nv, d: nv.nvmlDeviceGetMinorNumber(d)),
    ("model", lambda nv, d: text_of(nv.nvmlDeviceGetName(d))[:100]),
    ("serial", lambda nv, d: text_of(nv.nvmlDeviceGetSerial(d))[:64]),
    ("memory_bytes", lambda nv, d: int(nv.nvmlDeviceGetMemoryInfo(d).total)),
    ("power_limit_w", lambda nv, d: nv.nvmlDeviceGetEnforcedPowerLimit(d) / 1e3),
    ("power_max_w", lambda nv, d: nv.nvmlDeviceGetPowerManagementLimitConstraints(d)[1] / 1e3),
    ("slowdown_c", read_slowdown),
    ("fabric", read_fabric_name),
)  # type: Tuple[Tuple[str, Callable[[Any, Any], Any]], ...]


# ---- events -----------------------------------------------------------------------------------------


class XidWatch(object):
    """XIDs as NVML announces them, in a thread of its own."""

    def __init__(self, gpus: Gpus) -> None:
        self.gpus = gpus
        self.ended = False
        self.events = None  # type: Any
        thread = threading.Thread(target=self._run, name="xid")
        thread.daemon = True
        thread.start()

    def register(self, board: Board) -> None:
        """Hear of this board too; one that cannot be registered is heard of through the kernel log alone."""
        nv = self.gpus.nv
        if self.events is None or board.device is None:
            return
        try:
            nv.nvmlDeviceRegisterEvents(board.device, nv.nvmlEventTypeXidCriticalError, self.events)
        except nv.NVMLError:
            pass

    def _run(self) -> None:
        nv = self.gpus.nv
        try:
            self.events = nv.nvmlEventSetCreate()
        except (nv.NVMLError, AttributeError):
            return
        for board in list(self.gpus.boards):
            self.register(board)
        while not self.ended:
            try:
                data = nv.nvmlEventSetWait_v2(self.events, 1000)
            except nv.NVMLError as error:
                if error.value == 10:
                    continue
                if error.value in RESTART:
                    return
                time.sleep(1.0)
                continue
            self._take(data)

    def _take(self, data: Any) -> None:
        here = address_of(data.device)
        board = next(
            (b for b in list(self.gpus.boards) if b.device is not None and address_of(b.device) == here), None
        )
        self.gpus.say("xid", "Xid %d" % data.eventData, board)


def address_of(device: Any) -> Optional[int]:
    """NVML's handles are pointers; two are the same GPU if they are equal."""
    return ctypes.cast(device, ctypes.c_void_p).value


XID_LINE = re.compile(r"NVRM: Xid \((?:PCI:)?([0-9a-fA-F:.]+)\)\s*:?\s*(\d+)(.*)")
OOM_LINE = re.compile(r"(?:Out of memory|Memory cgroup out of memory): Kill(?:ed)? process (\d+) \(([^)]*)\)")


class KernelLog(object):
    """New lines of the kernel log, where our user may read it."""

    def __init__(self, path: str, backlog: float) -> None:
        self.fd = -1
        self.why = PRESENT
        self.rest = b""
        try:
            self.fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
            if not backlog:
                os.lseek(self.fd, 0, os.SEEK_END)
        except OSError as error:
            self.why = reason_of(error)
        self.oldest = time.time() - backlog

    def lines(self) -> List[Tuple[float, str]]:
        """(time, text) since the last look, at most some hundred."""
        found = []  # type: List[Tuple[float, str]]
        while self.fd >= 0 and len(found) < 500:
            try:
                data = os.read(self.fd, 8192)
            except OSError as error:
                if error.errno == errno.EPIPE:  # the ring has overtaken us; the next read goes on
                    continue
                break
            if not data:
                break
            *whole, self.rest = (self.rest + data).split(b"\n")
            found.extend(self._record(line) for line in whole if b";" in line)
            self.rest = self.rest[-8192:]
        return [record for record in found if record[0] >= self.oldest]

    def _record(self, line: bytes) -> Tuple[float, str]:
        head, _, text = line.partition(b";")
        try:
            stamp = int(head.split(b",")[2]) / 1e6
            at = time.time() - (time.monotonic() - stamp)
        except (IndexError, ValueError):
            at = time.time()
        return min(at, time.time()), text.decode("utf-8", "replace")


class Happenings(object):
    """Events of NVML, the kernel log and the host, each once."""

    def __init__(self, gpus: Gpus, kernel: KernelLog) -> None:
        self.gpus = gpus
        self.kernel = kernel
        self.seen = {}  # type: Dict[Tuple[Optional[str], str], float]

    def new(self) -> List[Dict[str, Any]]:
        """Frames of what happened since the last call, an XID that both tell of once."""
        frames = []  # type: List[Dict[str, Any]]
        for at, text in self.kernel.lines():
            frames.extend(self._from_kernel(at, text))
        while self.gpus.happened:
            at, kind, detail, board = self.gpus.happened.popleft()
            if kind != "xid" or self._first(board.pci if board else None, detail.split()[1], at):
                frames.append(self._frame(at, kind, detail, board))
        return frames[:MAX_EVENTS]

    def _from_kernel(self, at: float, text: str) -> Iterable[Dict[str, Any]]:
        xid, oom = XID_LINE.search(text), OOM_LINE.search(text)
        if xid is not None:
            pci = normal_pci(xid.group(1))
            board = next((b for b in list(self.gpus.boards) if b.pci is not None and b.pci == pci), None)
            if self._first(pci, xid.group(2), at):
                yield self._frame(at, "xid", "Xid %s%s" % (xid.group(2), xid.group(3)), board)
        elif oom is not None:
            yield self._frame(at, "oom", "killed %s (%s) for memory" % (oom.group(1), oom.group(2)), None)

    def _first(self, pci: Optional[str], xid: str, at: float) -> bool:
        """Whether this XID of this GPU was not told in the last seconds."""
        known = self.seen.get((pci, xid))
        self.seen[(pci, xid)] = at
        return known is None or abs(at - known) > 5.0

    def _frame(self, at: float, kind: str, detail: str, board: Optional[Board]) -> Dict[str, Any]:
        frame = {"k": "event", "t": at, "kind": kind, "detail": detail[:300]}  # type: Dict[str, Any]
        if board is not None and board in self.gpus.boards:
            frame["gpu"] = row_of(self.gpus.boards, board)
        return frame


def row_of(boards: Sequence[Board], board: Board) -> int:
    """The row of a board in the schema."""
    row = 0
    for other in boards:
        if other is board:
            return row
        row += 1 + len(other.instances)
    return row


# ---- the loop ---------------------------------------------------------------------------------------


def say(frame: Dict[str, Any]) -> None:
    """One line; the end of the process if nobody listens."""
    line = RECORD + json.dumps(frame, separators=(",", ":"), allow_nan=False) + "\n"
    data = line.encode("utf-8", "replace")
    try:
        while data:
            data = data[os.write(1, data) :]
    except OSError:
        os._exit(0)


def watch_input(patience: float) -> None:
    """Ends the process at the end of the heartbeat, or without one, whatever else hangs."""
    while True:
        try:
            ready = select.select([0], [], [], patience)[0]
            if not ready or not os.read(0, 65536):
                os._exit(0)
        except OSError:
            os._exit(0)


def be_modest() -> None:
    """Last in line for the CPU, first to go when memory is short."""
    try:
        os.nice(19)
    except OSError:
        pass
    try:
        with open("/proc/self/oom_score_adj", "w") as file:
            file.write("1000")
    except OSError:
        pass


class Probe(object):
    """Everything together; :meth:`run` never returns."""

    def __init__(self, boot: Dict[str, Any]) -> None:
        options = boot.get("options", {})
        self.interval = float(options.get("interval", 2.0))
        self.patience = float(options.get("patience", 30.0))
        sys_root = os.environ.get("COLDAISLE_PROBE_SYS", "/sys")
        proc = os.environ.get("COLDAISLE_PROBE_PROC", "/proc")
        nvidia = os.environ.get("COLDAISLE_PROBE_NVIDIA", "/proc/driver/nvidia")
        self.host = Host(proc, sys_root)
        self.gpus = Gpus(load_pynvml(boot), nvidia, sys_root, float(options.get("retry", 30.0)))
        kernel = KernelLog(
            os.environ.get("COLDAISLE_PROBE_KMSG", "/dev/kmsg"), float(options.get("backlog", 0.0))
        )
        self.happenings = Happenings(self.gpus, kernel)
        self.rates = Rates()
        self.told = {}  # type: Dict[str, Any]
        self.schema_id = 0
        self.last = None  # type: Optional[float]
        self.cpu = None  # type: Optional[Tuple[float, float]]
        self.users = {}  # type: Dict[int, Optional[str]]

    def run(self) -> None:
        due = time.monotonic()
        while True:
            self.poll()
            now = time.monotonic()
            # On the beat; after a stall the missed beats are left out, not made up for.
            due += self.interval * (1 + int(max(0.0, now - due) / self.interval))
            time.sleep(max(0.0, due - now))

    def poll(self) -> None:
        began, t = time.monotonic(), time.time()
        self.gpus.read(min(1.5, 0.75 * self.interval))
        self._say_hello(t)
        reading = self.host.read(self.rates, time.monotonic())
        rows = self.gpus.rows()
        reading.node.set("gpus", sum(not board.lost for board in self.gpus.boards))
        self._cost(reading.node)
        self._say_schema(reading)
        for frame in self.happenings.new():
            say(frame)
        for kind, detail in self.host.events():
            say({"k": "event", "t": t, "kind": kind, "detail": detail[:300]})
        self._say_sample(t, began, rows, reading)
        self._say_processes(t)

    def _say_hello(self, t: float) -> None:
        name = socket.gethostname()
        facts = self.host.facts()
        hello = {
            "k": "hello",
            "probe": PROTOCOL,
            "python": "%d.%d.%d" % sys.version_info[:3],
            "hostname": name,
            "user": self._user(os.getuid()),
            "driver": self.gpus.driver,
            "nvml": self.gpus.version,
            "gpu_pci": self.gpus.pci() or None,
            "problem": self.gpus.problem[0],
            "remedy": self.gpus.problem[1],
        }  # type: Dict[str, Any]
        if "." in name:
            hello["fqdn"] = name
        hello.update(facts)
        if hello != self.told.get("hello"):
            self.told["hello"] = dict(hello)
            hello["t"] = t
            say(hello)

    def _say_schema(self, reading: "HostReading") -> None:
        schema = {
            "gpus": self.gpus.schema(),
            "gpu_metrics": ["gpu." + name for name in GPU_METRICS],
            "node_metrics": ["node." + name for name in NODE_METRICS],
            "ports": [name for name, _ in reading.ports],
            "port_metrics": ["port." + name for name in PORT_METRICS],
            "disks": [name for name, _ in reading.disks],
            "disk_metrics": ["disk." + name for name in DISK_METRICS],
        }  # type: Dict[str, Any]
        if schema != self.told.get("schema"):
            self.told = {"hello": self.told.get("hello"), "schema": json.loads(json.dumps(schema))}
            self.schema_id += 1
            say(dict(schema, k="schema", id=self.schema_id))

    def _say_sample(self, t: float, began: float, rows: List[Row], reading: "HostReading") -> None:
        frame = {"k": "sample", "t": t, "schema": self.schema_id}  # type: Dict[str, Any]
        frame["dt"] = None if self.last is None else tidy(began - self.last)
        self.last = began
        matrices = {
            "gpu": rows,
            "port": [row for _, row in reading.ports],
            "disk": [row for _, row in reading.disks],
        }
        for name, matrix in matrices.items():
            frame[name] = [[tidy(value) for value in row.values] for row in matrix]
            self._add_reasons(frame, name + "_why", [list(row.why) for row in matrix])
        frame["node"] = [tidy(value) for value in reading.node.values]
        self._add_reasons(frame, "node_why", list(reading.node.why))
        frame["took"] = tidy(time.monotonic() - began)
        say(frame)

    def _add_reasons(self, frame: Dict[str, Any], name: str, why: Any) -> None:
        if why != self.told.get(name):
            frame[name] = self.told[name] = why

    def _say_processes(self, t: float) -> None:
        processes = []
        row = 0
        for board in list(self.gpus.boards):
            places = {instance.gi: row + 1 + n for n, instance in enumerate(board.instances)}
            for process in board.processes:
                processes.append(
                    self._process(places.get(process.gi, row) if process.gi is not None else row, process)
                )
            row += 1 + len(board.instances)
        if processes != self.told.get("processes") and (processes or "processes" in self.told):
            self.told["processes"] = processes
            say({"k": "processes", "t": t, "processes": processes[:MAX_PROCESSES]})

    def _process(self, row: int, process: Process) -> Dict[str, Any]:
        told = {"gpu": row, "pid": process.pid}  # type: Dict[str, Any]
        told["user"], told["command"] = self._whose(process.pid)
        told["memory_bytes"], told["sm"] = process.memory, process.sm
        return told

    def _whose(self, pid: int) -> Tuple[Optional[str], Optional[str]]:
        folder = "/proc/%d" % pid
        try:
            user = self._user(os.stat(folder).st_uid)
            command = (
                read_bytes(folder + "/cmdline", 4096).replace(b"\0", b" ").decode("utf-8", "replace").strip()
            )
            return user, (command or read_text(folder + "/comm"))[:MAX_COMMAND] or None
        except OSError:
            return None, None  # gone, or of another PID namespace

    def _user(self, uid: int) -> Optional[str]:
        if uid not in self.users:
            try:
                self.users[uid] = pwd.getpwuid(uid).pw_name
            except KeyError:
                self.users[uid] = str(uid)
        return self.users[uid]

    def _cost(self, node: Row) -> None:
        times = os.times()
        now, cpu = time.monotonic(), times[0] + times[1]
        if self.cpu is None:
            node.miss("probe_cost", NOT_SAMPLED)
        else:
            node.set("probe_cost", (cpu - self.cpu[1]) / max(1e-3, now - self.cpu[0]))
        self.cpu = (now, cpu)


def main(boot: Dict[str, Any]) -> None:
    be_modest()
    probe = Probe(boot)
    watch = threading.Thread(target=watch_input, args=(probe.patience,), name="heartbeat")
    watch.daemon = True
    watch.start()
    probe.run()


if __name__ == "__main__":
    main(globals().get("BOOT") or {})
