"""The probe as it runs on a host: the real file and the real pynvml, against a C stub of the NVML library."""

from __future__ import annotations

import contextlib
import os
import queue
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from nvml import stub
from nvml.stub import StubHost
from services import require

from coldaisle.sources import bootstrap, frames, probe
from coldaisle.sources.bootstrap import ProbeOptions
from coldaisle.sources.catalog import catalog
from coldaisle.sources.source import Missing

INTERVAL = 0.3


class Running:
    """A probe as a child process, and what it says."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self.process = process
        self.hello: frames.Hello | None = None
        self.schema: frames.Schema | None = None
        self.events: list[frames.Happening] = []
        self.processes: list[frames.Proc] | None = None
        self.gpu_why: list[list[int]] = []
        self.node_why: list[int] = []
        self.lines = 0
        self._frames: queue.Queue[frames.Frame | None] = queue.Queue()
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            frame = frames.decode(line)
            assert frame is not None, line
            self._frames.put(frame)
        self._frames.put(None)

    def sample(self, within: float = 20.0) -> frames.Sample:
        """The next sample; all else that comes before it is kept."""
        deadline = time.monotonic() + within
        while True:
            frame = self._frames.get(timeout=max(0.01, deadline - time.monotonic()))
            self.lines += 1
            match frame:
                case None:
                    raise AssertionError("the probe ended")
                case frames.Sample():
                    self.gpu_why = frame.gpu_why or self.gpu_why
                    self.node_why = frame.node_why or self.node_why
                    return frame
                case frames.Hello():
                    self.hello = frame
                case frames.Schema():
                    self.schema, self.gpu_why, self.node_why = frame, [], []
                case frames.Happening():
                    self.events.append(frame)
                case frames.Processes():
                    self.processes = frame.processes

    def value(self, gpu: int, metric: str) -> float | None:
        """That metric in the next sample."""
        sample = self.sample()
        assert self.schema is not None
        return sample.gpu[gpu][self.schema.gpu_metrics.index(metric)]

    def why(self, gpu: int, metric: str) -> Missing:
        assert self.schema is not None
        return Missing(self.gpu_why[gpu][self.schema.gpu_metrics.index(metric)])

    def until(self, condition: Callable[[frames.Sample], object], within: float = 20.0) -> frames.Sample:
        """The first sample for which the condition holds."""
        deadline = time.monotonic() + within
        while time.monotonic() < deadline:
            sample = self.sample()
            if condition(sample):
                return sample
        raise AssertionError(f"not within {within} s; {self.hello} {self.events}")

    def gpu(self, sample: frames.Sample, gpu: int, metric: str) -> float | None:
        assert self.schema is not None
        return sample.gpu[gpu][self.schema.gpu_metrics.index(metric)]


@contextlib.contextmanager
def running(
    host: StubHost | None,
    *,
    python: str = sys.executable,
    patience: float = 30.0,
    backlog: float = 0.0,
    **environment: str,
) -> Iterator[Running]:
    command = bootstrap.local_command()
    command[0] = python
    options = ProbeOptions(interval=INTERVAL, patience=patience, backlog=backlog, retry=0.5)
    stubbed = host.environment() if host is not None else {}
    process = subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, **stubbed, **environment},
    )
    assert process.stdin is not None
    process.stdin.write(bootstrap.payload(options))
    process.stdin.flush()
    try:
        yield Running(process)
    finally:
        process.kill()
        process.wait(10)
        for pipe in (process.stdin, process.stdout, process.stderr):
            with contextlib.suppress(BrokenPipeError):
                pipe.close() if pipe else None


@pytest.fixture
def host(tmp_path: Path) -> StubHost:
    require("gcc")
    return StubHost(tmp_path / "nvml", gpus=2)


def pythons() -> list[str]:
    """Every Python from 3.6 on that is at hand."""
    found = (shutil.which(f"python3.{minor}") for minor in range(6, 15))
    roots = Path.home().glob(".pyenv/versions/3.*/bin/python")
    real = (path for path in found if path and "/shims/" not in path)
    return sorted({sys.executable, *real, *map(str, roots)})


def test_its_reasons_are_those_of_the_seam() -> None:
    names = ("PRESENT", "NOT_SAMPLED", "NOT_SUPPORTED", "NOT_PERMITTED", "BLANK", "LOST", "FAILED")
    assert [getattr(probe, name) for name in names] == [Missing[name] for name in names]


def test_its_metrics_are_in_the_catalog() -> None:
    kinds = {
        "gpu": probe.GPU_METRICS,
        "node": probe.NODE_METRICS,
        "port": probe.PORT_METRICS,
        "disk": probe.DISK_METRICS,
    }
    assert [
        f"{kind}.{name}"
        for kind, names in kinds.items()
        for name in names
        if f"{kind}.{name}" not in catalog()
    ] == []


def test_it_keeps_to_python_3_6() -> None:
    path = probe.__file__
    vermin = [
        str(Path(sys.executable).with_name("vermin")),
        "--target=3.6-",
        "--no-tips",
        "--violations",
        path,
    ]
    done = subprocess.run(vermin, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("python", pythons())
def test_it_runs_on(python: str, host: StubHost) -> None:
    version = subprocess.run([python, "-V"], capture_output=True, text=True, check=False)
    if version.returncode or version.stdout.split()[-1].startswith("2"):
        pytest.skip(f"{python} does not run here")
    with running(host, python=python) as probe_:
        assert probe_.value(1, "gpu.power") == 70
        assert probe_.hello is not None
        assert probe_.hello.python == version.stdout.split()[1]


def test_what_a_gpu_says_comes_in_canonical_units(host: StubHost) -> None:
    gpu = host.gpu(0).put(
        util=87, mem_util=40, power=612_000, temp=71, throttle=0x20, mem_used=40 << 30, margin=16,
        **{"clock/1": 1410, "gpm/2": 81, "gpm/5": 42.5, "gpm/10": 33, "field/82": 84},
    )  # fmt: skip
    gpu.grow("field/138", 0, 1e6).grow("field/75", 0, 3.1e8).grow("field/83", 0, 600_000)
    with running(host) as probe_:
        probe_.sample()
        sample = probe_.until(lambda s: probe_.gpu(s, 0, "gpu.nvlink_tx"))
        got = {name: probe_.gpu(sample, 0, f"gpu.{name}") for name in probe.GPU_METRICS}
    assert got["util"] == pytest.approx(0.87)
    assert got["power"] == 612
    assert got["power_ratio"] == pytest.approx(612 / 700, rel=1e-5)
    assert got["throttle"] == 0x20
    assert got["sm_clock"] == 1410
    assert got["mem_temp"] == 84
    assert got["temp_margin"] == 16
    assert got["sm_active"] == pytest.approx(0.81)
    assert got["tensor_active"] == pytest.approx(0.425)
    assert got["dram_active"] == pytest.approx(0.33)
    assert got["mem_ratio"] == pytest.approx((40 << 30) / ((80 << 30) - (1 << 29)), rel=1e-5)
    assert got["nvlink_tx"] == pytest.approx(1e6 * 1024, rel=0.05)
    assert got["thermal_violation"] == pytest.approx(0.31, rel=0.05)
    assert got["energy"] == pytest.approx(600, rel=0.05)


def test_what_the_boards_are(host: StubHost) -> None:
    with running(host) as probe_:
        probe_.sample()
        assert probe_.schema is not None
        board = probe_.schema.gpus[1]
    assert board.uuid == host.values["1/uuid"]
    assert board.pci == "0000:2b:00.0"
    assert board.minor == 1
    assert board.model == "NVIDIA H100 80GB HBM3"
    assert board.memory_bytes == 80 << 30
    assert board.power_limit_w == 700
    assert board.fabric == "00112233445566778899aabbccddeeff/1"
    assert board.slowdown_c == 34 + 53 + 2, "its temperature, its margin, and how far that may fall below 0"


def test_an_ampere_board_has_thresholds_and_no_profile(tmp_path: Path) -> None:
    require("gcc")
    with running(StubHost(tmp_path, gpus=1, model="ampere")) as probe_:
        sample = probe_.until(lambda s: s.dt)
        assert probe_.gpu(sample, 0, "gpu.temp_slowdown") == 89
        assert probe_.gpu(sample, 0, "gpu.sm_active") is None
        assert probe_.why(0, "gpu.sm_active") is Missing.NOT_SUPPORTED
        assert probe_.gpu(sample, 0, "gpu.pcie_tx") == 0, (
            "from the call that blocks, as nothing better is there"
        )


def test_each_value_fails_by_itself(host: StubHost) -> None:
    host.gpu(0).fail("nvmlDeviceGetTemperature", 4).fail("nvmlDeviceGetUtilizationRates", 999)
    with running(host) as probe_:
        sample = probe_.sample()
        assert probe_.gpu(sample, 0, "gpu.temp") is None
        assert probe_.why(0, "gpu.temp") is Missing.NOT_PERMITTED
        assert probe_.why(0, "gpu.util") is Missing.FAILED
        assert probe_.gpu(sample, 0, "gpu.power") == 70
        assert probe_.gpu(sample, 1, "gpu.temp") == 34


def test_what_is_not_supported_is_not_asked_again_soon(host: StubHost) -> None:
    host.gpu(0).fail("nvmlDeviceGetTemperature", 3)
    with running(host) as probe_:
        probe_.sample()
        assert probe_.why(0, "gpu.temp") is Missing.NOT_SUPPORTED
        host.gpu(0).fail("nvmlDeviceGetTemperature", 0)
        assert probe_.value(0, "gpu.temp") is None


def test_a_counter_that_goes_back_is_a_reset_not_a_negative_rate(host: StubHost) -> None:
    host.gpu(0).grow("field/138", 1e9, 1e5)
    with running(host) as probe_:
        probe_.until(lambda s: probe_.gpu(s, 0, "gpu.nvlink_tx"))
        host.gpu(0).grow("field/138", 0, 1e5)
        rates = [probe_.value(0, "gpu.nvlink_tx") for _ in range(6)]
    assert None in rates
    assert all(rate is None or rate >= 0 for rate in rates)


def test_a_lost_gpu_is_said_once_the_others_go_on_and_it_may_come_back(host: StubHost) -> None:
    with running(host) as probe_:
        probe_.sample()
        host.gpu(0).lose()
        sample = probe_.until(lambda s: probe_.gpu(s, 0, "gpu.power") is None)
        assert probe_.why(0, "gpu.power") is Missing.LOST
        assert probe_.gpu(sample, 1, "gpu.power") == 70
        probe_.sample()
        host.gpu(0).recover()
        probe_.until(lambda s: probe_.gpu(s, 0, "gpu.power") == 70)
        assert [event.kind for event in probe_.events] == ["gpu_lost", "gpu_back"]
        assert probe_.events[0].gpu == 0


def test_the_first_rates_after_a_loss_say_how_long_they_cover(host: StubHost) -> None:
    for gpu in (0, 1):
        host.gpu(gpu).grow("field/138", 1e9, 1e5)
    with running(host) as probe_:
        before = probe_.until(lambda s: probe_.gpu(s, 0, "gpu.nvlink_tx"))
        host.gpu(0).lose()
        probe_.until(lambda s: probe_.gpu(s, 0, "gpu.power") is None)
        lost = probe_.sample()
        host.gpu(0).recover()
        back = probe_.until(lambda s: probe_.gpu(s, 0, "gpu.nvlink_tx"))
        after = probe_.until(lambda s: s.gpu_dt is None)
    assert (before.gpu_dt, lost.gpu_dt) == (None, None)
    assert back.gpu_dt is not None
    first, second = (span or 0.0 for span in back.gpu_dt)
    assert first > lost.t - before.t
    assert 0 < second < first
    assert after.dt is not None


def test_a_gpu_lost_before_the_start_keeps_its_address(host: StubHost) -> None:
    host.gpu(1).lose()
    with running(host) as probe_:
        probe_.sample()
        assert probe_.schema is not None
        assert [gpu.pci for gpu in probe_.schema.gpus] == ["0000:1b:00.0", "0000:2b:00.0"]
        assert probe_.why(1, "gpu.power") is Missing.LOST


def test_a_call_that_hangs_costs_its_own_gpu_only(host: StubHost) -> None:
    with running(host) as probe_:
        probe_.sample()
        host.gpu(1).delay("nvmlDeviceGetPowerUsage", 600)
        sample = probe_.until(lambda s: probe_.gpu_why and probe_.why(1, "gpu.temp") is Missing.FAILED)
        sample = probe_.until(lambda s: probe_.gpu(s, 0, "gpu.power") == 70)
        assert sample.node, "the host's own readings go on"
        assert "gpu_hung" in [event.kind for event in probe_.events]
        host.gpu(1).delay("nvmlDeviceGetPowerUsage", 0)
        back = probe_.until(lambda s: probe_.gpu(s, 1, "gpu.power") == 70)
        assert [event.kind for event in probe_.events] == ["gpu_hung", "gpu_back"]
        assert back.gpu_dt is not None
        assert (back.gpu_dt[1] or 0) > 2.5, "its rates cover the hang"


def test_a_gpu_that_hangs_from_the_start_does_not_hide_the_others(host: StubHost) -> None:
    host.gpu(0).delay("nvmlDeviceGetUUID", 600)
    with running(host) as probe_:
        sample = probe_.until(lambda s: len(s.gpu) == 2 and probe_.gpu(s, 1, "gpu.power") == 70)
        assert probe_.gpu(sample, 0, "gpu.power") is None
        assert probe_.why(0, "gpu.power") is Missing.FAILED
        assert probe_.schema is not None
        assert probe_.schema.gpus[0].pci == "0000:1b:00.0"
        host.gpu(0).delay("nvmlDeviceGetUUID", 0)
        probe_.until(lambda s: probe_.gpu(s, 0, "gpu.power") == 70)
        assert probe_.schema.gpus[0].uuid == host.values["0/uuid"]


def test_a_library_older_than_the_reloaded_driver_needs_a_new_process(host: StubHost) -> None:
    with running(host) as probe_:
        probe_.sample()
        host.fail("nvmlInitWithFlags", stub.VERSION_MISMATCH)
        host.fail("nvmlDeviceGetFieldValues", stub.VERSION_MISMATCH)
        probe_.until(lambda s: not s.gpu)
        assert probe_.process.wait(20) == 0


def test_it_leaves_at_the_end_of_its_input_even_while_a_call_hangs(host: StubHost) -> None:
    host.delay("nvmlDeviceGetPowerUsage", 600)
    with running(host) as probe_:
        probe_.sample()
        assert probe_.process.stdin is not None
        probe_.process.stdin.close()
        assert probe_.process.wait(10) == 0


def test_it_leaves_without_a_heartbeat(host: StubHost) -> None:
    with running(host, patience=1.0) as probe_:
        assert probe_.process.stdin is not None
        for _ in range(8):
            probe_.sample()
            probe_.process.stdin.write(b"\n")
            probe_.process.stdin.flush()
        assert probe_.process.poll() is None
        assert probe_.process.wait(10) == 0


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (stub.DRIVER_NOT_LOADED, "driver is not loaded"),
        (stub.VERSION_MISMATCH, "upgraded and not reloaded"),
        (4, "may not open"),
    ],
)
def test_a_driver_in_trouble_is_said_and_looked_at_again(host: StubHost, code: int, words: str) -> None:
    host.fail("nvmlInit_v2", code).fail("nvmlInitWithFlags", code)
    with running(host) as probe_:
        sample = probe_.sample()
        assert probe_.hello is not None
        assert words in probe_.hello.problem
        assert probe_.hello.remedy
        assert sample.gpu == []
        host.fail("nvmlInit_v2", 0).fail("nvmlInitWithFlags", 0)
        probe_.until(lambda s: len(s.gpu) == 2)
        assert probe_.hello.problem == ""


def test_a_driver_reloaded_under_it_is_started_again(host: StubHost) -> None:
    with running(host) as probe_:
        probe_.sample()
        host.fail("nvmlDeviceGetFieldValues", stub.VERSION_MISMATCH)
        probe_.until(lambda s: not s.gpu)
        host.fail("nvmlDeviceGetFieldValues", 0)
        probe_.until(lambda s: len(s.gpu) == 2)


def test_without_nvidia_hardware_there_is_no_problem(tmp_path: Path) -> None:
    empty = str(tmp_path)
    with running(None, LD_LIBRARY_PATH="", COLDAISLE_PROBE_NVIDIA=empty, COLDAISLE_PROBE_SYS=empty) as probe_:
        assert probe_.sample().gpu == []
        assert probe_.hello is not None
        assert (probe_.hello.problem, probe_.hello.nvml) == ("", None)


def test_hardware_without_the_library_is_said(tmp_path: Path) -> None:
    (tmp_path / "gpus" / "0000:1b:00.0").mkdir(parents=True)
    with running(None, LD_LIBRARY_PATH="", COLDAISLE_PROBE_NVIDIA=str(tmp_path)) as probe_:
        probe_.sample()
        assert probe_.hello is not None
        assert "library was not found" in probe_.hello.problem


def test_an_xid_is_told_once_by_nvml_and_the_kernel_log(host: StubHost, tmp_path: Path) -> None:
    kernel = tmp_path / "kmsg"
    kernel.write_text("")
    with running(host, COLDAISLE_PROBE_KMSG=str(kernel)) as probe_:
        probe_.sample()
        probe_.sample()
        host.xid(1, 79)
        probe_.until(lambda s: probe_.events)
        now = int(time.monotonic() * 1e6)
        with kernel.open("a") as file:
            file.write(f"4,1,{now},-;NVRM: Xid (PCI:0000:2b:00): 79, pid=1, GPU has fallen off the bus.\n")
            file.write(f"4,2,{now},-;NVRM: Xid (PCI:0000:1b:00 GPU-I:05): 31, pid=7, MMU Fault\n")
            file.write(f"4,3,{now},-;Out of memory: Killed process 42 (python) total-vm:1kB\n")
        probe_.until(lambda s: len(probe_.events) >= 3)
        probe_.sample()
    assert [(event.kind, event.gpu, event.detail[:6]) for event in probe_.events] == [
        ("xid", 1, "Xid 79"),
        ("xid", 0, "Xid 31"),
        ("oom", None, "killed"),
    ]


def test_processes_have_a_user_and_a_command(host: StubHost) -> None:
    host.gpu(1).process(os.getpid(), 10 << 30, sm=40)
    with running(host) as probe_:
        probe_.until(lambda s: probe_.gpu(s, 1, "gpu.processes") == 1)
        probe_.sample()
        (process,) = probe_.processes or []
    assert (process.gpu, process.pid, process.memory_bytes, process.sm) == (1, os.getpid(), 10 << 30, 0.4)
    assert process.user
    assert "pytest" in (process.command or "")


def test_that_there_is_no_process_is_said_too(host: StubHost) -> None:
    with running(host) as probe_:
        probe_.until(lambda s: probe_.gpu(s, 1, "gpu.processes") == 0)
        probe_.sample()
        assert probe_.processes == []


def test_where_the_driver_is_missing_nothing_is_said_of_processes(host: StubHost) -> None:
    host.fail("nvmlInit_v2", 9).fail("nvmlInitWithFlags", 9)
    with running(host) as probe_:
        probe_.sample()
        probe_.sample()
        assert probe_.processes is None


def test_a_process_has_the_port_of_the_server_that_started_it(host: StubHost) -> None:
    serve = "import subprocess; worker = subprocess.Popen(['sleep', '60']); print(worker.pid, flush=True); worker.wait()"
    with subprocess.Popen(
        [sys.executable, "-c", serve, "--port", "8123"], stdout=subprocess.PIPE, text=True
    ) as server:
        assert server.stdout is not None
        worker = int(server.stdout.readline())
        try:
            host.gpu(1).process(worker, 10 << 30, sm=40)
            with running(host) as probe_:
                probe_.until(lambda s: probe_.gpu(s, 1, "gpu.processes") == 1)
                probe_.sample()
                (process,) = probe_.processes or []
        finally:
            os.kill(worker, signal.SIGTERM)
    assert (process.command, process.ports) == ("sleep 60", (8123,))


def test_a_mig_instance_is_a_row_with_its_boards_power(host: StubHost) -> None:
    host.gpu(0).mig(1, "1g.10gb", 10 << 30)
    host.gpu(0).mig(2, "2g.20gb", 20 << 30)
    with running(host) as probe_:
        sample = probe_.sample()
        assert probe_.schema is not None
        assert [(gpu.index, gpu.mig, gpu.mig_profile) for gpu in probe_.schema.gpus] == [
            (0, None, None),
            (0, "gi1", "1g.10gb"),
            (0, "gi2", "2g.20gb"),
            (1, None, None),
        ]
        assert probe_.gpu(sample, 1, "gpu.power") == 70
        assert probe_.gpu(sample, 2, "gpu.mem_total") == 20 << 30
        assert probe_.gpu(sample, 0, "gpu.mig_devices") == 2


def test_it_is_modest(host: StubHost) -> None:
    with running(host) as probe_:
        probe_.sample()
        pid = probe_.process.pid
        assert Path(f"/proc/{pid}/oom_score_adj").read_text().strip() == "1000"
        assert os.getpriority(os.PRIO_PROCESS, pid) == 19
