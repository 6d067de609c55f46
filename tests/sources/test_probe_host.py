"""The probe's readings of the host, from small trees that look like /proc and /sys."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from coldaisle.sources import probe

ACTIVE, DOWN = "4: ACTIVE\n", "1: DOWN\n"
SNMP = "Ip: Forwarding\nIp: 1\nTcp: RtoMin OutSegs RetransSegs\nTcp: 200 900 {retrans}\n"
DEV = "Inter-|   Receive  |  Transmit\n face |bytes packets errs drop|bytes packets errs drop\n"


class Tree:
    """Folders that stand for /proc and /sys, and the probe's reading of them at made-up times."""

    def __init__(self, root: Path) -> None:
        self.proc, self.sys = root / "proc", root / "sys"
        self.proc.mkdir()
        self.sys.mkdir()
        self.host = probe.Host(str(self.proc), str(self.sys))
        self.rates = probe.Rates()

    def write(self, path: str, text: str | int) -> None:
        """``path`` begins with proc/ or sys/."""
        file = self.proc.parent / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(str(text))

    def read(self, now: float) -> probe.HostReading:
        return self.host.read(self.rates, now)

    def port(self, name: str, files: dict[str, str | int]) -> None:
        """Files below an InfiniBand port, ``mlx5_0/1``."""
        device, number = name.split("/")
        for file, text in files.items():
            self.write(f"sys/class/infiniband/{device}/ports/{number}/{file}", text)

    def netdev(self, name: str, *, device: bool = True, **files: str | int) -> None:
        for file, text in {"operstate": "up", "carrier_changes": 1, "speed": 100000, **files}.items():
            self.write(f"sys/class/net/{name}/{file}", text)
        if device:
            (self.sys / "class/net" / name / "device").mkdir(exist_ok=True)

    def traffic(self, **counters: tuple[int, int]) -> None:
        """Bytes received and sent, by netdev."""
        lines = [f"{name:>6}:{rx} 9 1 2 0 0 0 0 {tx} 9 3 4 0 0 0 0\n" for name, (rx, tx) in counters.items()]
        self.write("proc/net/dev", DEV + "".join(lines))

    def disks(self, lines: str) -> None:
        self.write("proc/diskstats", lines)
        for line in lines.splitlines():
            self.write(f"sys/block/{line.split()[2]}/size", 1000)


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    return Tree(tmp_path)


def value(row: probe.Row, name: str) -> float:
    found = row.get(name)
    assert found is not None, (name, why(row, name))
    return found


def why(row: probe.Row, name: str) -> int:
    return row.why[row.columns[name]]


def missing(row: probe.Row, name: str) -> int:
    assert row.get(name) is None
    return why(row, name)


def stat(*cpus: str, running: int = 3, blocked: int = 1) -> str:
    """/proc/stat of CPUs with user, nice, system, idle, iowait, irq, softirq, steal, guest, guest_nice."""
    columns = [[int(word) for word in cpu.split()] for cpu in cpus]
    total = " ".join(str(sum(column)) for column in zip(*columns, strict=True))
    lines = [f"cpu  {total}"] + [f"cpu{i} {cpu}" for i, cpu in enumerate(cpus)]
    tail = ["intr 5 0 5", "btime 1700000000", f"procs_running {running}", f"procs_blocked {blocked}"]
    return "\n".join(lines + tail) + "\n"


def test_an_empty_tree_has_nothing_and_says_why(tree: Tree) -> None:
    reading = tree.read(1.0)
    assert (reading.ports, reading.disks) == ([], [])
    assert set(reading.node.values) == {None}
    assert set(reading.node.why) == {probe.NOT_SUPPORTED}
    assert tree.host.events() == []


# ---- CPUs, memory, pressure ----


def test_shares_of_cpu_time(tree: Tree) -> None:
    tree.write("proc/stat", stat("0 0 0 0 0 0 0 0 0 0", "0 0 0 0 0 0 0 0 0 0"))
    first = tree.read(1.0).node
    assert missing(first, "cpu_util") == missing(first, "cpu_busiest") == probe.NOT_SAMPLED
    # Guest time, the ninth column, is inside user's and counts once.
    tree.write("proc/stat", stat("60 5 5 10 10 2 3 5 60 0", "0 0 0 100 0 0 0 0 0 0"))
    node = tree.read(2.0).node
    assert value(node, "cpu_util") == pytest.approx(75 / 200)
    assert value(node, "cpu_iowait") == pytest.approx(10 / 200)
    assert value(node, "cpu_steal") == pytest.approx(5 / 200)
    assert value(node, "cpu_busiest") == pytest.approx(0.75)
    assert [value(node, name) for name in ("cpus", "procs_running", "procs_blocked")] == [2, 3, 1]


def test_idle_time_that_goes_back_a_little_is_no_time(tree: Tree) -> None:
    tree.write("proc/stat", stat("0 0 0 100 50 0 0 0 0 0"))
    tree.read(1.0)
    tree.write("proc/stat", stat("25 0 0 175 48 0 0 0 0 0"))
    node = tree.read(2.0).node
    assert value(node, "cpu_util") == pytest.approx(0.25)
    assert value(node, "cpu_iowait") == 0


def test_load_and_memory(tree: Tree) -> None:
    tree.write("proc/loadavg", "0.21 10.5 224.00 1/719 19737\n")
    tree.write(
        "proc/meminfo",
        "MemTotal: 1000 kB\nMemFree: 1 kB\nMemAvailable: 250 kB\nDirty: 4 kB\nSwapTotal: 50 kB\nSwapFree: 20 kB\n",
    )
    node = tree.read(1.0).node
    assert [value(node, name) for name in ("load1", "load5", "load15")] == [0.21, 10.5, 224.0]
    names = ("mem_total", "mem_available", "mem_used", "mem_ratio", "mem_dirty", "swap_used")
    assert [value(node, name) for name in names] == [1024e3, 256e3, 768e3, 0.75, 4096, 30720]


def test_memory_of_a_kernel_that_does_not_estimate_what_is_available(tree: Tree) -> None:
    tree.write("proc/meminfo", "MemTotal: 1000 kB\nMemFree: 1 kB\n")
    node = tree.read(1.0).node
    assert value(node, "mem_total") == 1024e3
    assert missing(node, "mem_used") == missing(node, "mem_ratio") == probe.NOT_SUPPORTED


def test_pressure_is_a_share_of_time(tree: Tree) -> None:
    line = "{} avg10=0.00 avg60=0.00 avg300=0.00 total={}\n"
    tree.write("proc/pressure/io", line.format("some", 1_000_000) + line.format("full", 0))
    tree.write("proc/pressure/irq", line.format("full", 0))
    assert missing(tree.read(10.0).node, "psi_io_some") == probe.NOT_SAMPLED
    tree.write("proc/pressure/io", line.format("some", 1_500_000) + line.format("full", 250_000))
    tree.write("proc/pressure/irq", line.format("full", 2_000_100))  # the clock was read a little before
    node = tree.read(12.0).node
    assert value(node, "psi_io_some") == pytest.approx(0.25)
    assert value(node, "psi_io_full") == pytest.approx(0.125)
    assert value(node, "psi_irq_full") == 1.0
    assert missing(node, "psi_cpu_some") == missing(node, "psi_mem_full") == probe.NOT_SUPPORTED


def test_pressure_that_is_switched_off_is_not_supported(tree: Tree, monkeypatch: pytest.MonkeyPatch) -> None:
    read = probe.read_bytes

    def refuse(path: str, limit: int = 1 << 22) -> bytes:
        if "/pressure/" in path:
            raise OSError(95, os.strerror(95), path)  # EOPNOTSUPP: booted with psi=0
        return read(path, limit)

    monkeypatch.setattr(probe, "read_bytes", refuse)
    assert missing(tree.read(1.0).node, "psi_cpu_some") == probe.NOT_SUPPORTED


def test_kills_for_memory_are_a_rate_and_an_event(tree: Tree) -> None:
    tree.write("proc/vmstat", "nr_free_pages 7\noom_kill 4\n")
    tree.read(1.0)
    assert tree.host.events() == []
    tree.write("proc/vmstat", "nr_free_pages 7\noom_kill 7\n")
    assert value(tree.read(3.0).node, "oom_kills") == pytest.approx(1.5)
    assert tree.host.events() == [("oom", "3 processes killed (vmstat)")]
    assert tree.host.events() == []
    tree.write("proc/vmstat", "nr_free_pages 7\noom_kill 8\n")
    tree.read(4.0)
    assert tree.host.events() == [("oom", "1 process killed (vmstat)")]


def test_tcp_segments_sent_again(tree: Tree) -> None:
    tree.write("proc/net/snmp", SNMP.format(retrans=100))
    tree.read(1.0)
    tree.write("proc/net/snmp", SNMP.format(retrans=130))
    assert value(tree.read(4.0).node, "tcp_retrans") == pytest.approx(10.0)
    tree.write("proc/net/snmp", SNMP.format(retrans=5))
    assert missing(tree.read(5.0).node, "tcp_retrans") == probe.NOT_SAMPLED


def test_facts(tree: Tree) -> None:
    tree.write("proc/stat", stat("1 1 1 1 1 1 1 1 0 0", "1 1 1 1 1 1 1 1 0 0"))
    tree.write("proc/meminfo", "MemTotal: 1000 kB\n")
    tree.write("proc/sys/kernel/osrelease", "5.14.0-427.el9.x86_64\n")
    assert tree.host.facts() == {
        "cpus": 2,
        "memory_bytes": 1024000,
        "kernel": "5.14.0-427.el9.x86_64",
        "booted_at": 1700000000,
    }


def test_facts_of_an_empty_tree(tree: Tree) -> None:
    facts = tree.host.facts()
    assert (facts["cpus"], facts["memory_bytes"], facts["booted_at"]) == (None, None, None)


@pytest.mark.parametrize(
    "garbage", ["", "\n", "nonsense", "cpu x y z\n", "\x00\xff", ": : :\n" * 9, "9" * 5000]
)
def test_garbage_in_one_file_harms_no_other(tree: Tree, garbage: str) -> None:
    tree.write("proc/loadavg", "1 2 3 1/2 3\n")
    names = (
        "stat",
        "meminfo",
        "vmstat",
        "diskstats",
        "net/dev",
        "net/snmp",
        "self/mountstats",
        "pressure/cpu",
    )
    for name in names:
        tree.write("proc/" + name, garbage)
    tree.write("sys/block/sda/size", garbage)
    tree.netdev("eth0", operstate=garbage, speed=garbage, carrier_changes=garbage)
    tree.port("mlx5_0/1", {"state": garbage, "rate": garbage, "counters/port_xmit_data": garbage})
    for now in (1.0, 2.0, 3.0):
        reading = tree.read(now)
        assert value(reading.node, "load1") == 1
        assert [name for name, _ in reading.ports] == ["eth0", "mlx5_0/1"]
        assert all(row.get(name) is None for _, row in reading.ports for name in ("rate", "rx", "tx"))
    assert tree.host.events() == []


def test_garbage_in_a_pressure_file_is_a_failure(tree: Tree) -> None:
    tree.write("proc/pressure/cpu", "some total=lots\n")
    assert missing(tree.read(1.0).node, "psi_cpu_some") == probe.FAILED


# ---- disks, file systems over the network ----


def test_whole_disks_once(tree: Tree) -> None:
    names = ("sda", "nvme0n1", "nvme0c0n1", "loop0", "ram0", "zram0", "dm-0", "md127", "sr0")
    tree.disks("".join(f"8 0 {name} 0 0 0 0 0 0 0 0 0 0 0\n" for name in names))
    tree.write("proc/diskstats", (tree.proc / "diskstats").read_text() + "8 1 sda1 0 0 0 0 0 0 0 0 0 0 0\n")
    assert [name for name, _ in tree.read(1.0).disks] == ["nvme0n1", "sda"]


def test_disk_rates_times_and_the_node(tree: Tree) -> None:
    tree.disks("8 0 sda 10 0 100 50 0 0 0 0 0 1000 2000\n8 1 sdb 0 0 0 0 0 0 0 0 0 0 0 5 5 5 5 5 5\n")
    first = tree.read(1.0)
    assert missing(first.node, "disk_util") == missing(first.disks[0][1], "read") == probe.NOT_SAMPLED
    tree.disks("8 0 sda 14 0 2100 90 0 0 0 0 0 2000 6000\n8 1 sdb 0 0 0 0 5 0 1000 10 0 500 10 5 5 5 5 5 5\n")
    reading = tree.read(3.0)
    sda, sdb = (row for _, row in reading.disks)
    assert value(sda, "read") == 2000 * 512 / 2
    assert value(sda, "read_time") == pytest.approx(0.010)
    assert missing(sda, "write_time") == probe.BLANK  # nothing was written: no mean
    assert value(sda, "util") == pytest.approx(0.5)
    assert value(sda, "queue") == pytest.approx(2.0)
    assert value(sdb, "write_time") == pytest.approx(0.002)
    assert value(reading.node, "disk_util") == pytest.approx(0.5)
    assert value(reading.node, "disk_read") == 2000 * 512 / 2
    assert value(reading.node, "disk_write") == 1000 * 512 / 2


def test_a_garbled_line_is_that_disk_s_alone(tree: Tree) -> None:
    for reads in (0, 100):
        tree.disks(f"8 0 sda 1 0 x 5\n8 1 sdb 1 0 {reads} 0 0 0 0 0 0 0 0\n")
        reading = tree.read(float(reads))
    sda, sdb = (row for _, row in reading.disks)
    assert missing(sda, "read") == probe.FAILED
    assert value(sdb, "read") == 512


def mount(where: str, read: int, ops: tuple[int, int, int, int], options: str = "rw,vers=4.2") -> str:
    """A mount of mountstats; ``ops``: operations, transmissions, ms of round trips, ms in all."""
    count, sent, rtt, spent = ops
    return (
        f"device nas:/{where.strip('/')} mounted on {where} with fstype nfs4 statvers=1.1\n"
        f"\topts:\t{options}\n\tage:\t100\n\tbytes:\t1 1 1 1 {read} {read // 2} 9 9\n"
        "\tper-op statistics\n\t        NULL: 0 0 0 0 0 0 0 0\n"
        f"\t        READ: {count} {sent} 0 5 5 7 {rtt} {spent} 0\n\t       WRITE: 0 0 0 0 0 0 0 0\n\n"
    )


PLAIN = (
    "device /dev/sda1 mounted on / with fstype ext4\ndevice nfsd mounted on /proc/fs/nfsd with fstype nfsd\n"
)


def test_nfs_mounts_are_summed_and_means_weighted(tree: Tree) -> None:
    tree.write("proc/self/mountstats", PLAIN + mount("/a", 0, (0, 0, 0, 0)) + mount("/b", 0, (0, 0, 0, 0)))
    assert missing(tree.read(1.0).node, "nfs_read") == probe.NOT_SAMPLED
    a, b = mount("/a", 4000, (30, 32, 300, 600)), mount("/b", 2000, (10, 10, 500, 600))
    tree.write("proc/self/mountstats", PLAIN + a + b)
    node = tree.read(3.0).node
    assert [value(node, name) for name in ("nfs_read", "nfs_write", "nfs_ops", "nfs_retrans")] == [
        3000,
        1500,
        20,
        1,
    ]
    assert value(node, "nfs_rtt") == pytest.approx(0.020)
    assert value(node, "nfs_exec") == pytest.approx(0.030)
    quiet = tree.read(4.0).node
    assert value(quiet, "nfs_ops") == 0
    assert missing(quiet, "nfs_rtt") == probe.BLANK


def test_a_mount_that_is_new_or_reset_or_shown_twice(tree: Tree) -> None:
    tree.write("proc/self/mountstats", mount("/a", 1000, (10, 10, 1, 1)) + mount("/b", 9000, (10, 10, 1, 1)))
    tree.read(1.0)
    a = mount("/a", 2000, (20, 20, 1, 1))
    again = a.replace("mounted on /a ", "mounted on /elsewhere ")
    tree.write(
        "proc/self/mountstats", a + again + mount("/b", 0, (0, 0, 0, 0)) + mount("/c", 7777, (9, 9, 9, 9))
    )
    node = tree.read(2.0).node
    assert value(node, "nfs_read") == 1000
    assert value(node, "nfs_ops") == 10


def test_without_nfs_mounts(tree: Tree) -> None:
    tree.write("proc/self/mountstats", PLAIN)
    tree.read(1.0)
    assert missing(tree.read(2.0).node, "nfs_read") == probe.NOT_SUPPORTED


@pytest.mark.parametrize("folder", ["proc/fs/lustre/llite", "sys/kernel/debug/lustre/llite"])
def test_lustre(tree: Tree, folder: str) -> None:
    line = "{}_bytes 29 samples [bytes] 1 4194304 {}\n"
    tree.write(f"{folder}/scratch-ffff/stats", "snapshot_time 1.5 secs.usecs\n")
    assert missing(tree.read(1.0).node, "lustre_read") == probe.NOT_SAMPLED
    tree.write(f"{folder}/scratch-ffff/stats", line.format("read", 4000) + line.format("write", 6000))
    node = tree.read(3.0).node
    assert value(node, "lustre_read") == 2000
    assert value(node, "lustre_write") == 3000


def test_lustre_whose_counters_are_root_s(tree: Tree) -> None:
    (tree.sys / "fs/lustre/llite/scratch-ffff").mkdir(parents=True)
    assert missing(tree.read(1.0).node, "lustre_read") == probe.NOT_PERMITTED


# ---- netdevs ----


def test_netdevs_and_which_count_for_the_node(tree: Tree) -> None:
    tree.netdev("eth0", speed=200000)
    tree.netdev("eth1", speed=-1)
    tree.netdev("bond0", device=False)
    (tree.sys / "class/net/bond0/bonding").mkdir()
    for name in ("lo", "veth12", "docker0", "br-1a", "tun0", "vlan7"):
        tree.netdev(name, device=False)
    tree.traffic(lo=(0, 0), eth0=(0, 0), eth1=(0, 0), bond0=(0, 0))
    tree.read(1.0)
    tree.traffic(lo=(9, 9), eth0=(1000, 400), eth1=(500, 0), bond0=(1500, 400))
    reading = tree.read(2.0)
    ports = dict(reading.ports)
    assert list(ports) == ["bond0", "eth0", "eth1"]
    assert value(ports["eth0"], "rate") == 25e9
    assert missing(ports["eth1"], "rate") == probe.BLANK
    assert [value(ports["bond0"], name) for name in ("rx", "tx")] == [1500, 400]
    assert [value(reading.node, name) for name in ("net_rx", "net_tx")] == [1500, 400]
    assert [value(ports["eth0"], name) for name in ("state", "errors", "drops")] == [4, 0, 0]


def test_virtual_functions_and_representors_are_not_ports(tree: Tree) -> None:
    tree.netdev("eth0")
    tree.netdev("eth0v1")
    (tree.sys / "class/net/eth0v1/device/physfn").mkdir()
    tree.netdev("eth0_3", phys_port_name="pf0vf3")
    assert [name for name, _ in tree.read(1.0).ports] == ["eth0"]


def test_errors_and_drops_of_both_directions(tree: Tree) -> None:
    tree.netdev("eth0")
    for errors, now in ((0, 1.0), (4, 2.0)):
        tree.write("proc/net/dev", f"{DEV}eth0:10 9 {errors} {errors} 0 0 0 0 20 9 {errors} 1 0 0 0 0\n")
        row = dict(tree.read(now).ports)["eth0"]
    assert value(row, "errors") == 8
    assert value(row, "drops") == 4


@pytest.mark.parametrize(
    ("operstate", "carrier", "state"),
    [("up", 1, 4), ("down", 0, 1), ("unknown", 1, 4), ("unknown", 0, 1), ("lowerlayerdown", 0, 1)],
)
def test_the_state_of_a_netdev(tree: Tree, operstate: str, carrier: int, state: int) -> None:
    tree.netdev("eth0", operstate=operstate, carrier=carrier)
    assert value(dict(tree.read(1.0).ports)["eth0"], "state") == state


# ---- InfiniBand, RoCE ----

COUNTERS: dict[str, str | int] = {
    "state": ACTIVE,
    "phys_state": "5: LinkUp\n",
    "rate": "400 Gb/sec (4X NDR)\n",
    "link_layer": "InfiniBand\n",
    "counters/port_rcv_data": 1000,
    "counters/port_xmit_data": 1 << 40,
    "counters/port_xmit_wait": 10,
    "counters/link_downed": 3,
    "counters/symbol_error": 7,
    "counters/port_xmit_constraint_errors": 1,
    "counters/port_rcv_constraint_errors": 1,
}


def test_an_infiniband_port_counts_words_of_four_bytes(tree: Tree) -> None:
    tree.port("mlx5_0/1", COUNTERS)
    row = dict(tree.read(1.0).ports)["mlx5_0/1"]
    assert missing(row, "rx") == probe.NOT_SAMPLED
    assert [value(row, name) for name in ("state", "phys_state", "rate", "roce")] == [4, 5, 50e9, 0]
    tree.port("mlx5_0/1", {"counters/port_rcv_data": 3000, "counters/port_xmit_data": (1 << 40) + 500})
    tree.port(
        "mlx5_0/1", {"counters/port_xmit_wait": 30, "counters/link_downed": 4, "counters/symbol_error": 11}
    )
    tree.port("mlx5_0/1", {"counters/port_rcv_constraint_errors": 7})
    row = dict(tree.read(3.0).ports)["mlx5_0/1"]
    assert [value(row, name) for name in ("rx", "tx", "xmit_wait")] == [4000, 1000, 10]
    assert [value(row, name) for name in ("link_downed", "symbol_errors", "constraint_errors")] == [4, 2, 3]
    assert missing(row, "cnp_sent") == missing(row, "errors") == probe.NOT_SUPPORTED


def test_the_wide_counters_of_old_adapters_come_first(tree: Tree) -> None:
    for now, words in ((1.0, 0), (2.0, 100)):
        tree.port("mlx4_0/2", {"state": ACTIVE, "counters/port_xmit_data": 4294967295})
        tree.port("mlx4_0/2", {"counters_ext/port_xmit_data_64": words})
        row = dict(tree.read(now).ports)["mlx4_0/2"]
    assert value(row, "tx") == 400


@pytest.mark.parametrize(
    ("file", "metric", "ceiling"),
    [
        ("port_xmit_data", "tx", 4294967295),
        ("port_xmit_wait", "xmit_wait", 4294967295),
        ("symbol_error", "symbol_errors", 65535),
        ("excessive_buffer_overrun_errors", "overrun_errors", 15),
    ],
)
def test_a_counter_at_its_ceiling_tells_nothing(tree: Tree, file: str, metric: str, ceiling: int) -> None:
    tree.port("mlx4_0/1", {"state": ACTIVE, f"counters/{file}": ceiling})
    tree.read(1.0)
    assert missing(dict(tree.read(2.0).ports)["mlx4_0/1"], metric) == probe.BLANK


def test_a_counter_that_was_cleared_begins_anew(tree: Tree) -> None:
    for now, words, expected in ((1.0, 1000, None), (2.0, 10, None), (3.0, 20, 40.0)):
        tree.port("mlx5_0/1", {"state": ACTIVE, "counters/port_rcv_data": words})
        assert dict(tree.read(now).ports)["mlx5_0/1"].get("rx") == expected


def test_roce_congestion(tree: Tree) -> None:
    names = {"np_cnp_sent": "cnp_sent", "rp_cnp_handled": "cnp_handled", "out_of_sequence": "out_of_sequence"}
    tree.port("mlx5_bond_0/1", {"state": ACTIVE, "link_layer": "Ethernet\n", "rate": "200 Gb/sec (2X NDR)\n"})
    for now, count in ((1.0, 50), (2.0, 80)):
        tree.port("mlx5_bond_0/1", {f"hw_counters/{file}": count for file in names})
        row = dict(tree.read(now).ports)["mlx5_bond_0/1"]
    assert [value(row, name) for name in ("roce", "rate")] == [1, 25e9]
    assert [value(row, metric) for metric in names.values()] == [30, 30, 30]


def test_an_adapter_without_performance_management(tree: Tree) -> None:
    tree.port("mlx4_0/1", {"state": ACTIVE, "counters/port_xmit_data": "N/A (no PMA)\n"})
    row = dict(tree.read(1.0).ports)["mlx4_0/1"]
    assert missing(row, "tx") == probe.NOT_SUPPORTED
    assert value(row, "state") == 4


def test_health_counters_are_read_seldom_and_repeated(tree: Tree) -> None:
    def symbols(now: float, count: int) -> float | None:
        tree.port("mlx5_0/1", {"state": ACTIVE, "counters/symbol_error": count})
        return dict(tree.read(now).ports)["mlx5_0/1"].get("symbol_errors")

    assert symbols(1.0, 0) is None
    assert symbols(2.0, 10) == 10
    assert symbols(3.0, 500) == 10
    assert symbols(2.0 + probe.SLOW, 30) == pytest.approx(20 / probe.SLOW)


def test_links_that_go_and_come(tree: Tree) -> None:
    tree.port("mlx5_0/1", {**COUNTERS})
    tree.netdev("eth0")
    tree.read(1.0)
    assert tree.host.events() == []
    tree.port("mlx5_0/1", {"state": DOWN, "phys_state": "2: Polling\n"})
    tree.netdev("eth0", operstate="down")
    row = dict(tree.read(2.0).ports)["mlx5_0/1"]
    assert [value(row, name) for name in ("state", "phys_state")] == [1, 2]
    assert tree.host.events() == [("link_down", "eth0: down"), ("link_down", "mlx5_0/1: 1: DOWN")]
    tree.port("mlx5_0/1", {"state": "2: INIT\n"})
    tree.read(3.0)
    assert tree.host.events() == []
    tree.port("mlx5_0/1", {"state": ACTIVE})
    tree.read(4.0)
    assert tree.host.events() == [("link_up", "mlx5_0/1: 4: ACTIVE")]


def test_an_adapter_that_falls_off_the_bus(tree: Tree) -> None:
    tree.port("mlx5_0/1", COUNTERS)
    tree.read(1.0)
    shutil.rmtree(tree.sys / "class/infiniband/mlx5_0")
    row = dict(tree.read(2.0).ports)["mlx5_0/1"]
    assert missing(row, "state") == missing(row, "rx") == probe.NOT_SUPPORTED
    assert tree.read(2.0 + probe.RESCAN).ports == []
    assert tree.host.events() == [("link_down", "mlx5_0/1: gone")]


def test_there_are_never_more_rows_than_the_bound(tree: Tree) -> None:
    for i in range(100):
        tree.netdev(f"eth{i}")
        tree.write(f"sys/block/sd{i}/size", 1)
    reading = tree.read(1.0)
    assert (len(reading.ports), len(reading.disks)) == (probe.MAX_ROWS, probe.MAX_ROWS)


# ---- heat and power ----


def test_the_hottest_sensor(tree: Tree) -> None:
    sensors = {"hwmon0": {"temp1_input": 45000, "temp2_input": 61500}, "hwmon1": {"temp1_input": 127000}}
    for chip, inputs in sensors.items():
        for name, millidegrees in inputs.items():
            tree.write(f"sys/class/hwmon/{chip}/{name}", millidegrees)
    tree.write("sys/class/hwmon/hwmon2/name", "coretemp\n")
    tree.write("sys/class/hwmon/hwmon2/temp1_input", 58000)
    tree.write("sys/class/hwmon/hwmon2/temp1_label", "Package id 0\n")
    assert value(tree.read(1.0).node, "temp_max") == pytest.approx(61.5)
    tree.write("sys/class/hwmon/hwmon2/temp1_input", 93000)
    assert value(tree.read(1.0 + probe.SLOW).node, "temp_max") == pytest.approx(93.0)


def package(tree: Tree, zone: str, microjoules: int, name: str = "package-0") -> None:
    folder = f"sys/class/powercap/{zone}"
    tree.write(f"{folder}/name", name)
    tree.write(f"{folder}/max_energy_range_uj", 1_000_000_000)
    tree.write(f"{folder}/energy_uj", microjoules)


def test_cpu_power_of_all_packages_and_the_wrap(tree: Tree) -> None:
    for now, first, second in ((1.0, 100_000_000, 999_000_000), (3.0, 500_000_000, 199_000_000)):
        package(tree, "intel-rapl:0", first)
        package(tree, "intel-rapl:1", second, "package-1")
        package(tree, "intel-rapl:0:0", int(now) * 7_000_000, "dram")
        package(tree, "intel-rapl:2", int(now) * 7_000_000, "psys")
        node = tree.read(now).node
    assert value(node, "cpu_power") == pytest.approx((400 + 200) / 2)


def test_cpu_power_that_is_root_s(tree: Tree, monkeypatch: pytest.MonkeyPatch) -> None:
    package(tree, "intel-rapl:0", 1)
    read = probe.read_bytes

    def refuse(path: str, limit: int = 1 << 22) -> bytes:
        if path.endswith("energy_uj"):
            raise PermissionError(13, "Permission denied", path)
        return read(path, limit)

    monkeypatch.setattr(probe, "read_bytes", refuse)
    assert missing(tree.read(1.0).node, "cpu_power") == probe.NOT_PERMITTED


# ---- the machine itself, and what others recorded ----


def test_this_machine() -> None:
    host, rates = probe.Host(), probe.Rates()
    host.read(rates, 1.0)
    node = host.read(rates, 2.0).node
    assert value(node, "cpus") >= 1
    assert 0 < value(node, "mem_ratio") < 1
    assert host.facts()["booted_at"] > 1e9


def samples(tree: Tree) -> None:
    root = os.environ.get("COLDAISLE_SAMPLES")
    if root is None:
        pytest.skip("COLDAISLE_SAMPLES is not set")
    shutil.copytree(Path(root) / "proc", tree.proc, dirs_exist_ok=True)
    shutil.copytree(Path(root) / "sysfs-infiniband/h100-host", tree.sys / "class/infiniband")
    tree.write("proc/self/mountstats", (tree.proc / "10/mountstats").read_text())


def recorded_node(reading: probe.HostReading) -> None:
    node = reading.node
    assert value(node, "cpus") == 8
    assert value(node, "mem_total") == 3742148 * 1024
    assert missing(node, "mem_ratio") == probe.NOT_SUPPORTED  # before Linux 3.14
    assert value(node, "load1") == 0.21
    assert missing(node, "cpu_util") == probe.NOT_SAMPLED  # nothing moves in a recording
    for name in ("psi_io_some", "psi_irq_full", "oom_kills", "tcp_retrans", "nfs_ops", "nfs_retrans"):
        assert value(node, name) == 0, name


def recorded_disks(reading: probe.HostReading) -> None:
    assert [name for name, _ in reading.disks] == ["nvme0n1", "sda", "sdb", "sdc", "vda"]
    assert all(value(row, "util") == 0 for _, row in reading.disks)


def recorded_ports(reading: probe.HostReading) -> None:
    ports = dict(reading.ports)
    assert len(ports) == 9
    assert {value(row, "rate") for name, row in ports.items() if "bond" not in name} == {50e9}
    assert value(ports["mlx5_bond_0/1"], "rate") == 25e9
    assert [name for name, row in ports.items() if value(row, "roce")] == ["mlx5_bond_0/1"]
    for row in ports.values():
        assert [value(row, name) for name in ("state", "phys_state", "rx", "tx")] == [4, 5, 0, 0]
        assert value(row, "link_downed") >= 0
    assert missing(ports["mlx5_0/1"], "overrun_errors") == probe.BLANK  # at its ceiling of 15


@pytest.mark.parametrize("check", [recorded_node, recorded_disks, recorded_ports])
def test_recorded_hosts(tree: Tree, check: Callable[[probe.HostReading], None]) -> None:
    samples(tree)
    for name in ("sda", "sdb", "sdc", "vda", "nvme0n1", "dm-0", "loop0"):
        tree.write(f"sys/block/{name}/size", 1000)
    tree.read(1.0)
    check(tree.read(2.0))


def launched(tree: Tree, pid: int, parent: int, *command: str) -> None:
    tree.write(f"proc/{pid}/cmdline", "".join(f"{word}\0" for word in command))
    tree.write(f"proc/{pid}/stat", f"{pid} (a) b) S {parent} 1 1 0 -1")


def test_a_worker_serves_the_port_of_the_parent_that_names_one(tree: Tree) -> None:
    launched(tree, 10, 1, "sh", "-c", "vllm serve m --port 7000 --host x")
    launched(tree, 20, 10, "python3", "vllm", "serve", "m", "--port", "8001", "--tensor-parallel-size", "2")
    launched(tree, 30, 20, "VLLM::EngineCore")
    launched(tree, 40, 30, "VLLM::Worker_TP1")
    launched(tree, 50, 1, "tritonserver", "--http-port=8000", "--metrics-port=8002", "--port=99999999")
    launched(tree, 60, 99, "VLLM::EngineCore")
    found = {pid: probe.ports_served(str(tree.proc), pid) for pid in (10, 20, 30, 40, 50, 60, 70)}
    assert found == {10: [], 20: [8001], 30: [8001], 40: [8001], 50: [8000, 8002], 60: [], 70: []}
