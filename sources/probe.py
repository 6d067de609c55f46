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
import queue
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
LATE = 1.2  # times the sample's own interval: from there on a GPU tells its own, after a hang or a loss
MAX_COMMAND = 200
MAX_PORTS = 4
GENERATIONS = 6
"""How far up the parents of a GPU process are asked for the port that it serves."""
PORT_OPTION = re.compile(r"-port[=\0 ](\d{1,5})\0", re.IGNORECASE)
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

    def is_pending(self, name: str) -> bool:
        """Whether a counter waits for its second reading: nothing else is put in its place meanwhile."""
        return self.why[self.columns[name]] == NOT_SAMPLED

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


def ports_served(proc: str, pid: int) -> List[int]:
    """The ports that a process names in its command line (``--port 8000``), or else the nearest of its parents.

    An inference engine runs its workers as children, under names that say nothing of the server.
    """
    for _ in range(GENERATIONS):
        if pid <= 1:
            break
        try:
            line = read_bytes("%s/%d/cmdline" % (proc, pid), 1 << 16).decode("utf-8", "replace")
            found = PORT_OPTION.findall(line + "\0")
            if found:
                return [int(port) for port in found[:MAX_PORTS]]
            pid = int(read_text("%s/%d/stat" % (proc, pid)).rpartition(")")[2].split()[1])
        except (OSError, ValueError, IndexError):
            break
    return []


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


# ---- the host ---------------------------------------------------------------------------------------

RESCAN = 30.0  # seconds between two looks for devices that came or went
SECTOR = 512.0  # bytes in /proc/diskstats, whatever the disk's own are
TROUBLE = (OSError, ValueError, IndexError, KeyError, OverflowError)  # of a file that is absent or garbled
NODE_KEY = ("node", "")
NO_DISK = re.compile(r"^(loop|ram|zram|dm-|md|sr|fd)\d|^nvme\d+c\d+n")  # not hardware, or counted twice
NO_PORT = re.compile(r"^(lo$|veth|docker|br-|virbr|cni|flannel|cali|tun|tap|dummy|ifb)")
REPRESENTOR = re.compile(r"^(c\d+)?pf\d+[vs]f\d+$")  # the switch side of a virtual function
DISK_NODE_METRICS = ("disk_util", "disk_read", "disk_write")
STAT_METRICS = "cpu_util cpu_iowait cpu_steal cpu_busiest cpus procs_running procs_blocked".split()
NFS_METRICS = ("nfs_read", "nfs_write", "nfs_ops", "nfs_retrans", "nfs_rtt", "nfs_exec")
LUSTRE_METRICS = ("lustre_read", "lustre_write")
NETDEV_METRICS = ("rx", "tx", "errors", "drops")
ACTIVE = 4

HostReading = NamedTuple(
    "HostReading", [("node", Row), ("ports", List[Tuple[str, Row]]), ("disks", List[Tuple[str, Row]])]
)
"""One poll of a host. In Rates the node's keys begin with NODE_KEY, those of others with
("port", name) and ("disk", name)."""


class PortCounter(NamedTuple):
    """A metric of an InfiniBand port: the sum of these files, below ports/<n>."""

    metric: str
    files: Tuple[str, ...]
    bits: int = 64
    """The counter stays at its highest value once it is there; then its growth is not known."""
    scale: float = 1.0
    often: bool = False
    """Read in every poll; each read is a question to the adapter's firmware."""
    is_total: bool = False
    """The count itself is the metric, not its growth."""


# Of several with the same metric, the first whose files are there. Widths: InfiniBand's PortCounters.
PORT_COUNTERS = (
    PortCounter("rx", ("counters_ext/port_rcv_data_64",), 64, 4.0, often=True),  # counts words of four bytes
    PortCounter("rx", ("counters/port_rcv_data",), 32, 4.0, often=True),
    PortCounter("rx", ("hw_counters/rx_bytes",), often=True),  # EFA
    PortCounter("tx", ("counters_ext/port_xmit_data_64",), 64, 4.0, often=True),
    PortCounter("tx", ("counters/port_xmit_data",), 32, 4.0, often=True),
    PortCounter("tx", ("hw_counters/tx_bytes",), often=True),
    PortCounter("xmit_wait", ("counters/port_xmit_wait",), 32, often=True),
    PortCounter("xmit_discards", ("counters/port_xmit_discards",), 16),
    PortCounter(
        "constraint_errors",
        ("counters/port_xmit_constraint_errors", "counters/port_rcv_constraint_errors"),
        8,
    ),
    PortCounter("link_downed", ("counters/link_downed",), is_total=True),
    PortCounter("link_recovery", ("counters/link_error_recovery",), is_total=True),
    PortCounter("symbol_errors", ("counters/symbol_error",), 16),
    PortCounter("integrity_errors", ("counters/local_link_integrity_errors",), 4),
    PortCounter("overrun_errors", ("counters/excessive_buffer_overrun_errors",), 4),
    PortCounter("rcv_errors", ("counters/port_rcv_errors",), 16),
    PortCounter("rcv_remote_errors", ("counters/port_rcv_remote_physical_errors",), 16),
    PortCounter("vl15_dropped", ("counters/VL15_dropped",), 16),
    PortCounter("cnp_sent", ("hw_counters/np_cnp_sent",), often=True),
    PortCounter("cnp_handled", ("hw_counters/rp_cnp_handled",), often=True),
    PortCounter("ecn_marked", ("hw_counters/np_ecn_marked_roce_packets",), often=True),
    PortCounter("out_of_sequence", ("hw_counters/out_of_sequence",)),
    PortCounter("sequence_errors", ("hw_counters/packet_seq_err",)),
    PortCounter("ack_timeouts", ("hw_counters/local_ack_timeout_err",)),
    PortCounter("buffer_drops", ("hw_counters/out_of_buffer",)),
    PortCounter("rnr_nak", ("hw_counters/rnr_nak_retry_err",)),
    PortCounter("adp_retransmits", ("hw_counters/roce_adp_retrans",)),
    PortCounter("icrc_errors", ("hw_counters/rx_icrc_encapsulated",)),
)


def attempt(row: Row, names: Iterable[str], read: Callable[..., None], *arguments: Any) -> None:
    """A reading that may fail: what it did not set by then is missing, and why."""
    try:
        read(*arguments)
    except TROUBLE as error:
        why = reason_of(error)
        for name in names:
            row.miss(name, why)


def read_count(path: str) -> int:
    """A file with one whole number; OSError, ValueError."""
    text = read_text(path)
    if text.startswith("N/A"):  # an adapter without performance management
        raise OSError(errno.EOPNOTSUPP, "not available", path)
    if len(text) > 20:
        raise ValueError("more than 64 bits")
    return int(text)


class Growth(object):
    """What a group of counters of like parts (mounts, packages) added together; parts come and go."""

    def __init__(self) -> None:
        self.at = 0.0
        self.last = {}  # type: Dict[Any, Sequence[int]]

    def since(
        self, now: float, parts: Dict[Any, Sequence[int]], wraps: Optional[Dict[Any, int]] = None
    ) -> Optional[Tuple[List[int], float]]:
        """Sums over the parts that were there before, and seconds; None if there were none. ``wraps``: the
        value after which a part's counters begin at 0; others that go back were reset and add nothing."""
        before, seconds = self.last, now - self.at
        self.last, self.at = parts, now
        added = [growth_of(parts[key], before[key], (wraps or {}).get(key)) for key in parts if key in before]
        known = [part for part in added if part is not None]
        return ([sum(column) for column in zip(*known)], seconds) if known and seconds > 0 else None


def growth_of(after: Sequence[int], before: Sequence[int], wrap: Optional[int]) -> Optional[List[int]]:
    added = [a - b for a, b in zip(after, before)]
    if wrap is not None:
        added = [step if step >= 0 else step + wrap for step in added]
    return None if min(added) < 0 else added


# ---- CPUs, memory, pressure ----


class Cpus(object):
    """Shares of CPU time from /proc/stat, between two readings."""

    def __init__(self) -> None:
        self.all = []  # type: List[int]
        self.each = {}  # type: Dict[bytes, Tuple[int, int]]

    def read(self, lines: Sequence[bytes], row: Row) -> None:
        each = {}  # type: Dict[bytes, Tuple[int, int]]
        together = []  # type: List[int]
        for line in lines:
            if not line.startswith(b"cpu"):
                continue
            words = line.split()
            ticks = list(map(int, words[1:9]))  # user, nice, system, idle, iowait, irq, softirq, steal
            if words[0] == b"cpu":
                together = ticks
            else:
                each[words[0]] = (sum(ticks), ticks[3] + ticks[4] + ticks[7])
        row.set("cpus", len(each))
        self._shares(together, row)
        busy = [busy_share(each[name], self.each[name]) for name in each if name in self.each]
        row.put("cpu_busiest", max(busy) if busy else None, NOT_SAMPLED)
        self.each = each

    def _shares(self, ticks: List[int], row: Row) -> None:
        # Idle and iowait may go back a little.
        steps, self.all = [max(0, a - b) for a, b in zip(ticks, self.all)], ticks
        total = float(sum(steps))
        if not total:
            for name in ("cpu_util", "cpu_iowait", "cpu_steal"):
                row.miss(name, NOT_SAMPLED)
            return
        row.set("cpu_util", (total - steps[3] - steps[4] - steps[7]) / total)
        row.set("cpu_iowait", steps[4] / total)
        row.set("cpu_steal", steps[7] / total)


def busy_share(after: Tuple[int, int], before: Tuple[int, int]) -> float:
    """Of one CPU, from (ticks, ticks without work)."""
    ticks = after[0] - before[0]
    return min(1.0, max(0.0, 1.0 - (after[1] - before[1]) / ticks)) if ticks > 0 else 0.0


def number_after(lines: Sequence[bytes], word: bytes) -> int:
    """The number of the line that begins with a word; KeyError if there is none."""
    for line in reversed(lines):
        if line.startswith(word + b" "):
            return int(line.split()[1])
    raise KeyError(word)


def set_memory(data: bytes, row: Row) -> None:
    """From /proc/meminfo, in kB."""
    kilobytes = {}  # type: Dict[bytes, float]
    for line in data.splitlines():
        words = line.split()
        if len(words) > 1 and words[1].isdigit():
            kilobytes[words[0]] = int(words[1]) * KIB
    total, available = kilobytes[b"MemTotal:"], kilobytes.get(b"MemAvailable:")
    found = {"mem_total": total, "mem_available": available}  # type: Dict[str, Optional[float]]
    found["mem_dirty"] = kilobytes.get(b"Dirty:")
    if available is not None:
        found["mem_used"] = max(0.0, total - available)
        found["mem_ratio"] = max(0.0, 1.0 - available / total) if total else None
    if b"SwapTotal:" in kilobytes and b"SwapFree:" in kilobytes:
        found["swap_used"] = kilobytes[b"SwapTotal:"] - kilobytes[b"SwapFree:"]
    for name in found:
        if found[name] is not None:
            row.set(name, found[name])


def pressure_totals(data: bytes) -> Dict[str, int]:
    """``some`` and ``full`` of a file of /proc/pressure, in microseconds."""
    totals = {}
    for line in data.decode("ascii").splitlines():
        words = line.split()
        totals[words[0]] = int(words[-1].split("total=")[1])
    return totals


def set_share(row: Row, name: str, value: Optional[float], why: int) -> None:
    """A share of time. The clock was read before the counter, so that a full one may come out above 1."""
    row.put(name, None if value is None else min(1.0, value), why)


# ---- disks, file systems over the network ----


def read_disk(name: str, words: Sequence[bytes], row: Row, rates: Rates, now: float) -> None:
    """A line of /proc/diskstats, without numbers and name."""
    key = ("disk", name)
    reads, _, sectors_read, ms_read, writes, _, sectors_written, ms_write = [int(word) for word in words[:8]]
    ms_busy, ms_queued = int(words[9]), int(words[10])
    row.put("read", *rates.rate((key, "read"), now, sectors_read, SECTOR))
    row.put("write", *rates.rate((key, "write"), now, sectors_written, SECTOR))
    row.put("queue", *rates.rate((key, "queue"), now, ms_queued, 1e-3))
    set_share(row, "util", *rates.rate((key, "util"), now, ms_busy, 1e-3))
    for metric, count, spent in (("read_time", reads, ms_read), ("write_time", writes, ms_write)):
        number = rates.delta((key, metric, "count"), now, count)
        time_spent = rates.delta((key, metric, "ms"), now, spent)
        if number is None or time_spent is None:
            row.miss(metric, NOT_SAMPLED)
        else:
            row.set(metric, time_spent[0] / number[0] * 1e-3 if number[0] else None)


def sum_up(
    node: Row, name: str, rows: Sequence[Row], column: str, how: Callable[[List[float]], float] = sum
) -> None:
    """A metric of the node from its devices'."""
    values = [value for value in (row.get(column) for row in rows) if value is not None]
    if values:
        node.set(name, how(values))
    elif rows:
        node.miss(name, min(row.why[row.columns[column]] for row in rows))


def nfs_mounts(data: bytes) -> Dict[Any, Sequence[int]]:
    """read, written, operations, transmissions, ms of round trips, ms of operations, by mounted file system."""
    mounts = {}  # type: Dict[Any, Sequence[int]]
    for block in (b"\n" + data).split(b"\ndevice ")[1:]:
        lines = block.split(b"\n")
        place, _, kind = lines[0].rpartition(b" with fstype ")
        if kind.split(b" ")[0] not in (b"nfs", b"nfs4") or len(lines) < 2:
            continue
        # Mounted twice, a file system shares its counters, and shows them twice.
        shared = b"nosharecache" not in lines[1]
        try:
            mounts[(place.split(b" mounted on ")[0] if shared else place, lines[1])] = nfs_counters(lines)
        except TROUBLE:
            continue
    return mounts


def nfs_counters(lines: Sequence[bytes]) -> List[int]:
    """A mount's block of mountstats; KeyError, ValueError, IndexError."""
    moved = [line.split()[5:7] for line in lines if line.startswith(b"\tbytes:")]
    counters = [int(moved[0][0]), int(moved[0][1]), 0, 0, 0, 0]
    start = [i for i, line in enumerate(lines) if line.startswith(b"\tper-op")]
    for line in lines[start[0] + 1 :]:
        if b": 0 " in line or not line.strip():
            continue
        words = line.split()
        for i, column in enumerate((1, 2, 7, 8)):
            counters[2 + i] += int(words[column])
    return counters


def lustre_counters(data: bytes) -> List[int]:
    """Bytes read and written, of one llite's stats: a name, count, "samples", unit, least, most, sum."""
    counters = [0, 0]
    for line in data.splitlines():
        words = line.split()
        if words and words[0] in (b"read_bytes", b"write_bytes"):
            counters[words[0] == b"write_bytes"] = int(words[6])
    return counters


# ---- network ----


class Port(object):
    """A port of the network: an InfiniBand or RoCE port, or a netdev. Slow readings are kept for a while."""

    def __init__(self, name: str, path: str) -> None:
        self.name = name
        self.path = path
        self.state = None  # type: Optional[int]
        self.state_text = ""
        self.kept = {}  # type: Dict[str, Tuple[Optional[float], int]]
        self.due = 0.0
        self.asked = 0

    @property
    def key(self) -> Tuple[str, str]:
        return ("port", self.name)

    def file(self, name: str) -> str:
        return os.path.join(self.path, name)

    def see(self, state: int, text: str) -> Optional[Tuple[str, str]]:
        """Notes the state; an event if the link went down or came back."""
        before, self.state, self.state_text = self.state, state, text
        if before == state:
            return None
        self.due = 0.0
        if before is None or (before == ACTIVE) == (state == ACTIVE):
            return None
        return ("link_up" if state == ACTIVE else "link_down", "%s: %s" % (self.name, text))

    def is_due(self, now: float) -> bool:
        """Whether the slow readings are to be taken; rates need two of them soon."""
        if now < self.due:
            return False
        self.asked += 1
        self.due = now + SLOW if self.asked > 1 else 0.0
        return True

    def repeat(self, row: Row) -> None:
        for name, (value, why) in self.kept.items():
            row.put(name, value, why)

    def read(self, row: Row, rates: Rates, now: float) -> Optional[Tuple[str, str]]:
        """Fills a row; an event of the link, if there was one."""
        raise NotImplementedError


class InfiniBandPort(Port):
    def __init__(self, name: str, path: str) -> None:
        Port.__init__(self, name, path)
        found = {}  # type: Dict[str, PortCounter]
        for counter in PORT_COUNTERS:
            if counter.metric not in found and all(os.path.exists(self.file(name)) for name in counter.files):
                found[counter.metric] = counter
        self.often = [counter for counter in found.values() if counter.often]
        self.seldom = [counter for counter in found.values() if not counter.often]

    def read(self, row: Row, rates: Rates, now: float) -> Optional[Tuple[str, str]]:
        event = None  # type: Optional[Tuple[str, str]]
        try:
            text = read_text(self.file("state"))
            row.set("state", int(text.split(":")[0]))
            event = self.see(int(text.split(":")[0]), text)
        except TROUBLE as error:
            row.miss("state", reason_of(error))
        for counter in self.often:
            row.put(counter.metric, *self.count(counter, rates, now))
        if self.is_due(now):
            self.kept = {counter.metric: self.count(counter, rates, now) for counter in self.seldom}
            for metric, read in (("phys_state", self.phys_state), ("rate", self.rate), ("roce", self.roce)):
                self.kept[metric] = reading(read)
        self.repeat(row)
        return event

    def count(self, counter: PortCounter, rates: Rates, now: float) -> Tuple[Optional[float], int]:
        try:
            counts = [read_count(self.file(name)) for name in counter.files]
        except TROUBLE as error:
            return None, reason_of(error)
        if counter.is_total:
            return sum(counts), PRESENT
        if any(count == (1 << counter.bits) - 1 for count in counts):
            return None, BLANK
        return rates.rate((self.key, counter.metric), now, sum(counts), counter.scale)

    def phys_state(self) -> float:
        return int(read_text(self.file("phys_state")).split(":")[0])

    def rate(self) -> float:
        """``400 Gb/sec (4X NDR)``, in bytes a second."""
        gigabits, unit = read_text(self.file("rate")).split()[:2]
        if unit != "Gb/sec":
            raise ValueError(unit)
        return float(gigabits) * 1e9 / 8

    def roce(self) -> float:
        return 1 if read_text(self.file("link_layer")) == "Ethernet" else 0


def reading(read: Callable[..., Optional[float]], *arguments: Any) -> Tuple[Optional[float], int]:
    """(value, PRESENT), or (None, why); no value is a blank."""
    try:
        value = read(*arguments)
        return (None, BLANK) if value is None or not math.isfinite(value) else (value, PRESENT)
    except TROUBLE as error:
        return None, reason_of(error)


class Netdev(Port):
    """``words`` are those of its line in /proc/net/dev."""

    def __init__(self, name: str, path: str, physical: bool) -> None:
        Port.__init__(self, name, path)
        self.physical = physical
        self.words = []  # type: Sequence[bytes]

    def read(self, row: Row, rates: Rates, now: float) -> Optional[Tuple[str, str]]:
        event = None  # type: Optional[Tuple[str, str]]
        try:
            text, state = self.link()
            row.set("state", state)
            event = self.see(state, text)
        except TROUBLE as error:
            row.miss("state", reason_of(error))
        row.put("carrier_changes", *reading(read_count, self.file("carrier_changes")))
        attempt(row, NETDEV_METRICS, self.traffic, row, rates, now)
        if self.is_due(now):  # a driver asks the card for its speed, under the network's lock
            self.kept["rate"] = reading(self.speed)
        self.repeat(row)
        return event

    def link(self) -> Tuple[str, int]:
        text = read_text(self.file("operstate"))
        up = text == "up" or (text == "unknown" and read_text(self.file("carrier")) == "1")
        return text, ACTIVE if up else 1

    def speed(self) -> Optional[float]:
        """Bytes a second; None without a link."""
        try:
            megabits = read_count(self.file("speed"))
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise
            return None
        return megabits * 1e6 / 8 if 0 < megabits < 0xFFFFFFFF else None

    def traffic(self, row: Row, rates: Rates, now: float) -> None:
        if not self.words:
            raise OSError(errno.ENODEV, "not in net/dev", self.name)
        counts = [int(word) for word in self.words]
        row.put("rx", *rates.rate((self.key, "rx"), now, counts[0]))
        row.put("tx", *rates.rate((self.key, "tx"), now, counts[8]))
        row.put("errors", *rates.rate((self.key, "errors"), now, counts[2] + counts[10]))
        row.put("drops", *rates.rate((self.key, "drops"), now, counts[3] + counts[11]))


def retransmitted(data: bytes) -> int:
    """TCP's RetransSegs of /proc/net/snmp: a line of names, a line of numbers. KeyError without."""
    names = []  # type: List[bytes]
    for line in data.splitlines():
        if line.startswith(b"Tcp:"):
            if names:
                return int(dict(zip(names, line.split()))[b"RetransSegs"])
            names = line.split()
    raise KeyError("RetransSegs")


# ---- all of it ----


class Host(object):
    """Reads /proc and /sys, or trees like them. Each value may fail by itself."""

    def __init__(self, proc: str = "/proc", sys: str = "/sys") -> None:
        self.proc = proc
        self.sys = sys
        self.cpus = Cpus()
        self.nfs, self.lustre, self.rapl = Growth(), Growth(), Growth()
        self.scan_at = self.facts_at = 0.0
        self.known = {}  # type: Dict[str, Any]
        self.disks = []  # type: List[str]
        self.ports = {}  # type: Dict[str, Port]
        self.sensors = []  # type: List[str]
        self.packages = {}  # type: Dict[str, int]
        self.llites = []  # type: List[str]
        self.temperature = (None, NOT_SUPPORTED)  # type: Tuple[Optional[float], int]
        self.temperature_at = 0.0
        self.killed = None  # type: Optional[int]
        self.happened = []  # type: List[Tuple[str, str]]
        self.readings = (
            (("load1", "load5", "load15"), self._load),
            (tuple(STAT_METRICS), self._stat),
            (("psi_cpu_some", "psi_cpu_full"), lambda *a: self._pressure("cpu", "psi_cpu", *a)),
            (("psi_mem_some", "psi_mem_full"), lambda *a: self._pressure("memory", "psi_mem", *a)),
            (("psi_io_some", "psi_io_full"), lambda *a: self._pressure("io", "psi_io", *a)),
            (("psi_irq_full",), lambda *a: self._pressure("irq", "psi_irq", *a)),
            (("mem_total", "mem_available", "mem_used", "mem_ratio", "mem_dirty", "swap_used"), self._memory),
            (("oom_kills",), self._oom),
            (NFS_METRICS, self._nfs),
            (LUSTRE_METRICS, self._lustre),
            (("tcp_retrans",), self._tcp),
            (("temp_max",), self._temperature),
            (("cpu_power",), self._power),
        )  # type: Sequence[Tuple[Tuple[str, ...], Callable[..., None]]]

    def read(self, rates: Rates, now: float) -> HostReading:
        """One poll; ``now`` in monotonic seconds."""
        if now >= self.scan_at:
            self._scan()
            self.scan_at = now + RESCAN
        node = NODE.row()
        for names, read in self.readings:
            attempt(node, names, read, node, rates, now)
        disks, ports = self._read_disks(node, rates, now), self._read_ports(rates, now)
        rows = [row for _, row in disks]
        sum_up(node, "disk_util", rows, "util", max)
        sum_up(node, "disk_read", rows, "read")
        sum_up(node, "disk_write", rows, "write")
        physical = [row for name, row in ports if getattr(self.ports[name], "physical", False)]
        sum_up(node, "net_rx", physical, "rx")
        sum_up(node, "net_tx", physical, "tx")
        return HostReading(node, ports, disks)

    def events(self) -> List[Tuple[str, str]]:
        """(kind, detail): oom, link_down, link_up, in the polls since this was last asked."""
        happened, self.happened = self.happened, []
        return happened

    def facts(self) -> Dict[str, Any]:
        """cpus, memory_bytes, kernel, booted_at (seconds since the epoch); None where not known."""
        now = time.monotonic()
        if now >= self.facts_at:
            self.facts_at = now + RESCAN
            booted_at = reading(self._number, "stat", b"btime")[0]
            before = self.known.get("booted_at")
            if booted_at is not None and before is not None and abs(booted_at - before) < 2.0:
                booted_at = before  # some kernels round it now this way, now that
            memory = reading(self._number, "meminfo", b"MemTotal:")[0]
            self.known = {
                "cpus": reading(self._count_cpus)[0],
                "memory_bytes": None if memory is None else int(memory) * 1024,
                "kernel": self._kernel(),
                "booted_at": booted_at,
            }
        return dict(self.known)

    def _number(self, name: str, word: bytes) -> int:
        return number_after(self._bytes(name).splitlines(), word)

    def _count_cpus(self) -> Optional[int]:
        return len(re.findall(rb"^cpu\d", self._bytes("stat"), re.MULTILINE)) or None

    def _kernel(self) -> str:
        try:
            return read_text(os.path.join(self.proc, "sys/kernel/osrelease"))
        except OSError:
            return os.uname().release

    def _bytes(self, name: str) -> bytes:
        return read_bytes(os.path.join(self.proc, name))

    def _note(self, event: Optional[Tuple[str, str]]) -> None:
        if event is not None and len(self.happened) < MAX_EVENTS:
            self.happened.append(event)

    # what there is

    def _scan(self) -> None:
        blocks = list_dir(os.path.join(self.sys, "block"))
        self.disks = [name for name in blocks if self._is_disk(name)][:MAX_ROWS]
        self._scan_ports()
        self.sensors = self._find_sensors()
        self.packages = self._find_packages()
        self.llites = glob.glob(os.path.join(self.proc, "fs/lustre/llite/*/stats")) or glob.glob(
            os.path.join(self.sys, "kernel/debug/lustre/llite/*/stats")
        )

    def _is_disk(self, name: str) -> bool:
        if NO_DISK.match(name):
            return False
        try:
            return read_text(os.path.join(self.sys, "block", name, "size")) != "0"  # an empty drive
        except OSError:
            return True

    def _scan_ports(self) -> None:
        before, found = self.ports, (self._infiniband_ports() + self._netdevs())[:MAX_ROWS]
        self.ports = {}
        for port in found:
            self.ports[port.name] = before.get(port.name, port)
        for name in sorted(set(before) - set(self.ports)):
            if before[name].state == ACTIVE:
                self._note(("link_down", "%s: gone" % name))

    def _infiniband_ports(self) -> List[Port]:
        base = os.path.join(self.sys, "class/infiniband")
        ports = []  # type: List[Port]
        for device in list_dir(base):
            if os.path.exists(os.path.join(base, device, "device/physfn")):
                continue  # a virtual function, a guest's
            for number in list_dir(os.path.join(base, device, "ports")):
                path = os.path.join(base, device, "ports", number)
                ports.append(InfiniBandPort("%s/%s" % (device, number), path))
        return ports

    def _netdevs(self) -> List[Port]:
        base = os.path.join(self.sys, "class/net")
        devices = []  # type: List[Port]
        for name in list_dir(base):
            path = os.path.join(base, name)
            physical = os.path.exists(os.path.join(path, "device"))
            if NO_PORT.match(name) or not (physical or os.path.exists(os.path.join(path, "bonding"))):
                continue
            if not (os.path.exists(os.path.join(path, "device/physfn")) or is_representor(path)):
                devices.append(Netdev(name, path, physical))
        return devices

    def _find_sensors(self) -> List[str]:
        found = []  # type: List[str]
        for chip in glob.glob(os.path.join(self.sys, "class/hwmon/hwmon*")):
            inputs = sorted(glob.glob(os.path.join(chip, "temp*_input")))
            try:
                name = read_text(os.path.join(chip, "name"))
            except OSError:
                name = ""
            if name == "drivetemp":
                continue  # asking keeps a disk from its rest
            # The package is as hot as its hottest core, and each core is asked by an interrupt.
            packages = [path for path in inputs if is_package(path)] if name == "coretemp" else []
            found.extend(packages or inputs)
        return found

    def _find_packages(self) -> Dict[str, int]:
        """Energy counter of each CPU package: where it begins again."""
        found = {}
        for zone in sorted(glob.glob(os.path.join(self.sys, "class/powercap/intel-rapl:*"))):
            try:
                if re.search(r":\d+$", zone) and read_text(os.path.join(zone, "name")).startswith("package"):
                    wrap = read_count(os.path.join(zone, "max_energy_range_uj"))
                    found[os.path.join(zone, "energy_uj")] = wrap
            except TROUBLE:
                continue
        return found

    # devices

    def _read_disks(self, node: Row, rates: Rates, now: float) -> List[Tuple[str, Row]]:
        try:
            lines = [line.split() for line in self._bytes("diskstats").splitlines()]
            why = NOT_SUPPORTED
        except OSError as error:
            lines, why = [], reason_of(error)
        words = {line[2].decode("utf-8", "replace"): line[3:] for line in lines if len(line) > 3}
        rows = [(name, DISK.row(why)) for name in self.disks]
        for name, row in rows:
            if name in words:
                attempt(row, DISK_METRICS, read_disk, name, words[name], row, rates, now)
        if not rows:
            for metric in DISK_NODE_METRICS:
                node.miss(metric, why)
        return rows

    def _read_ports(self, rates: Rates, now: float) -> List[Tuple[str, Row]]:
        try:
            lines = self._bytes("net/dev").decode("utf-8", "replace").splitlines()
        except OSError:
            lines = []
        words = {}
        for line in lines:
            name, colon, counts = line.rpartition(":")
            if colon:
                words[name.strip()] = counts.encode("utf-8").split()
        rows = []
        for name, port in sorted(self.ports.items()):
            row = PORT.row()
            if isinstance(port, Netdev):
                port.words = words.get(name, ())
            self._note(port.read(row, rates, now))
            rows.append((name, row))
        return rows

    # the node

    def _load(self, row: Row, rates: Rates, now: float) -> None:
        words = self._bytes("loadavg").split()
        for i, name in enumerate(("load1", "load5", "load15")):
            row.set(name, float(words[i]))

    def _stat(self, row: Row, rates: Rates, now: float) -> None:
        lines = self._bytes("stat").split(b"\n")
        for name in ("procs_running", "procs_blocked"):
            row.put(name, *reading(number_after, lines, name.encode("ascii")))
        self.cpus.read(lines, row)

    def _pressure(self, name: str, prefix: str, row: Row, rates: Rates, now: float) -> None:
        totals = pressure_totals(self._bytes("pressure/" + name))
        for kind in ("some", "full"):
            metric = "%s_%s" % (prefix, kind)
            if kind in totals and metric in row.columns:
                set_share(row, metric, *rates.rate((NODE_KEY, metric), now, totals[kind], 1e-6))

    def _memory(self, row: Row, rates: Rates, now: float) -> None:
        set_memory(self._bytes("meminfo"), row)

    def _oom(self, row: Row, rates: Rates, now: float) -> None:
        lines = self._bytes("vmstat").splitlines()
        try:
            killed = number_after(lines, b"oom_kill")
        except KeyError:
            return  # before Linux 4.13
        before, self.killed = self.killed, killed
        if before is not None and killed > before:
            number = killed - before
            self._note(("oom", "%d process%s killed (vmstat)" % (number, "" if number == 1 else "es")))
        row.put("oom_kills", *rates.rate((NODE_KEY, "oom_kills"), now, killed))

    def _nfs(self, row: Row, rates: Rates, now: float) -> None:
        mounts = nfs_mounts(self._bytes("self/mountstats"))
        growth = self.nfs.since(now, mounts)
        if growth is None:
            for name in NFS_METRICS if mounts else ():
                row.miss(name, NOT_SAMPLED)
            return
        (read, written, ops, sent, rtt, spent), seconds = growth
        row.set("nfs_read", read / seconds)
        row.set("nfs_write", written / seconds)
        row.set("nfs_ops", ops / seconds)
        row.set("nfs_retrans", max(0, sent - ops) / seconds)  # an operation that failed early was never sent
        row.set("nfs_rtt", rtt * 1e-3 / ops if ops else None)
        row.set("nfs_exec", spent * 1e-3 / ops if ops else None)

    def _lustre(self, row: Row, rates: Rates, now: float) -> None:
        if not self.llites and list_dir(os.path.join(self.sys, "fs/lustre/llite")):
            raise OSError(errno.EACCES, "the counters are in debugfs, which is root's")
        growth = self.lustre.since(now, {path: lustre_counters(read_bytes(path)) for path in self.llites})
        for i, name in enumerate(LUSTRE_METRICS if self.llites else ()):
            if growth is None:
                row.miss(name, NOT_SAMPLED)
            else:
                row.set(name, growth[0][i] / growth[1])

    def _tcp(self, row: Row, rates: Rates, now: float) -> None:
        segments = retransmitted(self._bytes("net/snmp"))
        row.put("tcp_retrans", *rates.rate((NODE_KEY, "tcp_retrans"), now, segments))

    def _temperature(self, row: Row, rates: Rates, now: float) -> None:
        if now >= self.temperature_at:
            self.temperature_at = now + SLOW
            self.temperature = hottest(self.sensors)
        row.put("temp_max", *self.temperature)

    def _power(self, row: Row, rates: Rates, now: float) -> None:
        if not self.packages:
            return
        energy = {path: [read_count(path)] for path in self.packages}  # type: Dict[Any, Sequence[int]]
        growth = self.rapl.since(now, energy, self.packages)
        if growth is None:
            row.miss("cpu_power", NOT_SAMPLED)
        else:
            row.set("cpu_power", growth[0][0] * 1e-6 / growth[1])


def is_representor(path: str) -> bool:
    try:
        return REPRESENTOR.match(read_text(os.path.join(path, "phys_port_name"))) is not None
    except OSError:
        return False


def is_package(path: str) -> bool:
    """Whether a temp*_input is a CPU package's, not a core's."""
    try:
        return read_text(path.replace("_input", "_label")).startswith("Package")
    except OSError:
        return False


def hottest(paths: Sequence[str]) -> Tuple[Optional[float], int]:
    """Of sensors in millidegrees; one that is not connected says -128 or 127 degrees."""
    why, values = NOT_SUPPORTED, []
    for path in paths:
        value, why = reading(read_count, path)
        if value is not None and -40e3 < value < 126e3:
            values.append(value * 1e-3)
    return (max(values), PRESENT) if values else (None, BLANK if why == PRESENT else why)


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
                if not row.is_pending(name):
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
            if row.get(name) is None and not row.is_pending(name):
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
        self.read_at = None  # type: Optional[float]
        self.covers = None  # type: Optional[float]
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
                        self.gpus.say("gpu_back", "%s answers again" % board.place, board)
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

    def covers(self) -> List[Optional[float]]:
        """Seconds that the rates of each of :meth:`rows` cover; None: there are no rates."""
        spans = []  # type: List[Optional[float]]
        for board in list(self.boards):
            is_read = board.tick == self.tick and not (board.hung or board.lost)
            spans.extend([board.covers if is_read else None] * (1 + len(board.instances)))
        return spans[: MAX_ROWS * 8]

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
        if not self.started:
            self.start_at = 0.0
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
            if gone.code == 18 and self.version is not None:
                leave()  # the library in this process is the old one: only a new process loads the new one
            self._explain(gone.code)
            return False
        except Refused as refused:
            self._explain(getattr(refused.__cause__, "value", 999))
            return False
        known = {board.index: board for board in self.boards}
        # All are listed before one is opened: one that hangs in there must not hide the others.
        self.boards = [known.get(index) or Board(index, None) for index in range(min(count, MAX_ROWS))]
        for board in self.boards:
            if not board.hung:
                self._open(worker, board)
        self._place_the_lost()
        self.rates.keep({id(board) for board in self.boards})
        self.problem, self.started = ("", ""), True
        self.xids = XidWatch(self)
        return True

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

    def _open(self, worker: Worker, board: Board) -> None:
        """The handle and facts of a GPU; one that cannot be opened is lost from the beginning."""
        try:
            self._identify(worker, board)
        except Lost as lost:
            self._lose(board, lost.code)
        except Restart:
            board.look_at = 0.0
        except Refused as refused:
            board.refused = refused.why

    def _identify(self, worker: Worker, board: Board) -> None:
        """Its handle and facts; what it does not tell is left out."""
        ask = worker.ask_for(board)
        device = ask(
            lambda nv, d: nv.nvmlDeviceGetHandleByIndex(board.index), None, "nvmlDeviceGetHandleByIndex"
        )
        facts = {"index": board.index}  # type: Dict[str, Any]
        for name, read in FACTS:
            try:
                value = ask(read, device, name)
            except Refused:
                continue
            if value is not None:
                facts[name] = value
        board.device, board.facts, board.refused = device, facts, PRESENT
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
        row, key, began = GPU.row(), id(board), time.monotonic()
        board.fields.read(ask, board.device, row, self.rates, key)
        # Here, as most counters are fields: also a reading that hangs later has moved them on.
        board.covers = None if board.read_at is None else began - board.read_at
        board.read_at = began
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
            if sample.smUtil <= 100:  # some drivers give memory that was never written
                shares[sample.pid] = sample.smUtil / 100.0
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
    """The temperature that slows it; newer parts tell only by how much their margin may fall below 0."""
    try:
        return float(nv.nvmlDeviceGetTemperatureThreshold(device, 1))
    except nv.NVMLError as error:
        if error.value not in REFUSALS:
            raise
    (offset,) = nv.nvmlDeviceGetFieldValues(device, [194])
    below = None if offset.nvmlReturn else field_value(offset)
    if below is None:
        raise ValueError("no T.limit of a slowdown")
    margin = nv.nvmlDeviceGetMarginTemperature(device)
    return float(nv.nvmlDeviceGetTemperature(device, 0) + margin - below)


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


XID_LINE = re.compile(r"NVRM: Xid \((?:PCI:)?([0-9a-fA-F:.]+)[^)]*\)\s*:?\s*(\d+)(.*)")
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
        leave()


def leave() -> None:
    """The end, at once, whatever hangs. The pipes are closed first: with a thread stuck in the kernel the
    process stays, and an open pipe would keep the SSH session alive."""
    for fd in (0, 1, 2):
        try:
            os.close(fd)
        except OSError:
            pass
    os._exit(0)


def watch_input(patience: float) -> None:
    """Ends the process at the end of the heartbeat, or without one, whatever else hangs."""
    while True:
        try:
            ready = select.select([0], [], [], patience)[0]
            if not ready or not os.read(0, 65536):
                leave()
        except OSError:
            leave()


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


class Users(object):
    """Names of users, looked up in a thread of its own: a directory service may take its time, or for ever."""

    def __init__(self) -> None:
        self.names = {}  # type: Dict[int, str]
        self.wanted = queue.Queue()  # type: Any
        thread = threading.Thread(target=self._run, name="users")
        thread.daemon = True
        thread.start()

    def name(self, uid: int) -> str:
        """The name, or until it is known the number."""
        if uid not in self.names:
            self.names[uid] = str(uid)
            self.wanted.put(uid)
        return self.names[uid]

    def _run(self) -> None:
        while True:
            uid = self.wanted.get()
            try:
                self.names[uid] = pwd.getpwuid(uid).pw_name
            except KeyError:
                continue


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
        self.users = Users()
        self.ports = {}  # type: Dict[Tuple[int, Optional[str]], List[int]]

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
        rows, covers = self.gpus.rows(), self.gpus.covers()
        reading.node.set("gpus", sum(not board.lost for board in self.gpus.boards))
        self._cost(reading.node)
        self._say_schema(reading)
        for frame in self.happenings.new():
            say(frame)
        for kind, detail in self.host.events():
            say({"k": "event", "t": t, "kind": kind, "detail": detail[:300]})
        self._say_sample(t, began, rows, covers, reading)
        self._say_processes(t)

    def _say_hello(self, t: float) -> None:
        name = socket.gethostname()
        facts = self.host.facts()
        hello = {
            "k": "hello",
            "probe": PROTOCOL,
            "python": "%d.%d.%d" % sys.version_info[:3],
            "hostname": name,
            "user": os.environ.get("USER") or os.environ.get("LOGNAME") or self.users.name(os.getuid()),
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

    def _say_sample(
        self, t: float, began: float, rows: List[Row], covers: List[Optional[float]], reading: "HostReading"
    ) -> None:
        frame = {"k": "sample", "t": t, "schema": self.schema_id}  # type: Dict[str, Any]
        seconds = None if self.last is None else began - self.last
        frame["dt"], self.last = tidy(seconds), began
        if seconds is not None and any(span is not None and span > LATE * seconds for span in covers):
            frame["gpu_dt"] = [tidy(span) for span in covers]
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
        has_looked = any(board.processes_why == PRESENT for board in self.gpus.boards)
        if processes != self.told.get("processes") and (has_looked or "processes" in self.told):
            self.told["processes"] = processes
            say({"k": "processes", "t": t, "processes": processes[:MAX_PROCESSES]})

    def _process(self, row: int, process: Process) -> Dict[str, Any]:
        told = {"gpu": row, "pid": process.pid}  # type: Dict[str, Any]
        told["user"], told["command"] = self._whose(process.pid)
        told["memory_bytes"], told["sm"] = process.memory, process.sm
        told["ports"] = self._ports_of(process.pid, told["command"])
        return told

    def _ports_of(self, pid: int, command: Optional[str]) -> List[int]:
        """Looked up once a process: a parent's command line does not change."""
        if len(self.ports) > 1024:
            self.ports.clear()
        if (pid, command) not in self.ports:
            self.ports[pid, command] = ports_served("/proc", pid)
        return self.ports[pid, command]

    def _whose(self, pid: int) -> Tuple[Optional[str], Optional[str]]:
        folder = "/proc/%d" % pid
        try:
            user = self.users.name(os.stat(folder).st_uid)
            command = (
                read_bytes(folder + "/cmdline", 4096).replace(b"\0", b" ").decode("utf-8", "replace").strip()
            )
            return user, (command or read_text(folder + "/comm"))[:MAX_COMMAND] or None
        except OSError:
            return None, None  # gone, or of another PID namespace

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
