"""A libnvidia-ml.so.1 without a GPU: compiled here with gcc, loaded by the real pynvml, driven by a file.

::

    host = StubHost(tmp_path, gpus=8)                    # H100-like boards, idle
    host.gpu(3).set("power", 612_000).grow("energy", 5e6, 612_000)
    host.gpu(3).fail("nvmlDeviceGetTemperature", 15)     # an NVML return code, on this GPU
    host.delay("nvmlDeviceGetPowerUsage", 10)            # seconds, on all GPUs; 0 ends a running one too
    host.gpu(5).lose()
    host.xid(3, 79)
    subprocess.run(..., env={**os.environ, **host.environment()})

Every change is written at once (by rename) and seen by the next NVML call. Values are in NVML's own
units: mW, mJ, KiB, ns, per cent. The names are those in :func:`hopper`; a name that is not set answers
NVML_ERROR_NOT_SUPPORTED. ``field/138`` is field 138 of nvmlDeviceGetFieldValues, ``gpm/2`` GPM metric 2.
"""

from __future__ import annotations

import functools
import os
import shutil
import subprocess
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

Value = int | float | str

GIB = 1 << 30
NOT_SUPPORTED, DRIVER_NOT_LOADED, FUNCTION_NOT_FOUND, GPU_IS_LOST = 3, 9, 13, 15
RESET_REQUIRED, VERSION_MISMATCH = 16, 18


def missing() -> str:
    """Why the stub cannot be built here; empty: it can."""
    return "" if shutil.which("gcc") else "gcc is not installed: the NVML stub cannot be built"


@functools.cache
def library_directory() -> Path:
    """The folder with libnvidia-ml.so.1, for LD_LIBRARY_PATH; compiled once a process and kept while unchanged."""
    source = Path(__file__).with_name("nvml_stub.c")
    digest = f"{source.stat().st_mtime_ns:x}"
    folder = Path(tempfile.gettempdir()) / f"coldaisle-nvml-stub-{os.getuid()}-{digest}"
    library = folder / "libnvidia-ml.so.1"
    if not library.exists():
        folder.mkdir(mode=0o755, exist_ok=True)
        fresh = folder / f"{os.getpid()}.so"
        subprocess.run(
            ["gcc", "-O2", "-Wall", "-shared", "-fPIC", "-o", str(fresh), str(source), "-lpthread"],
            check=True,
            capture_output=True,
            text=True,
        )
        fresh.rename(library)
    return folder


def hopper(index: int, name: str = "NVIDIA H100 80GB HBM3") -> dict[str, Value]:
    """What an idle H100 answers; made up, in the shape of the real one (T.limit offsets, no retired pages)."""
    return {
        "uuid": f"GPU-{index:08x}-0000-4000-8000-{index:012x}",
        "name": name,
        "serial": f"16500000{index:04d}",
        "pci": f"00000000:{0x1B + 0x10 * (index % 14):02X}:00.0",
        "minor": index,
        "architecture": 9,
        "capability_major": 9,
        "capability_minor": 0,
        "util": 0,
        "mem_util": 0,
        "mem_total": 80 * GIB,
        "mem_used": 0,
        "mem_reserved": GIB // 2,
        "power": 70_000,
        "power_limit": 700_000,
        "power_requested": 700_000,
        "power_min": 200_000,
        "power_max": 700_000,
        "energy": "1000000 70000",
        "temp": 34,
        "margin": 53,
        "clock/0": 345,
        "clock/1": 345,
        "clock/2": 2619,
        "clock/3": 765,
        "clock_max/1": 1980,
        "clock_max/2": 2619,
        "throttle": 1,
        "enc": 0,
        "dec": 0,
        "jpg": 0,
        "ofa": 0,
        "codec_period": 167000,
        "pcie_gen": 5,
        "pcie_gen_max": 5,
        "pcie_width": 16,
        "pcie_width_max": 16,
        "nvlinks": 18,
        "mig_mode": 0,
        "mig_max": 7,
        "gpm_supported": 1,
        "fabric": "3 1 1 00112233445566778899aabbccddeeff",
        **{f"field/{i}": 0 for i in (3, 4, 5, 6, 52, 59, 74, 75, 76, 77, 78, 79, 94, 230, 269, 270, 271)},
        **{f"field/{i}": 0 for i in (138, 139, 142, 143, 144, 145, 197, 198)},
        "field/82": 39,
        "field/83": "1000000 70000",
        "field/186": 71_000,
        "field/193": -8,
        "field/194": -2,
        "field/195": 0,
        "field/196": 0,
        **{f"gpm/{i}": 0 for i in (1, 2, 3, 5, 10, 11, 12, 13, 20, 21, 60, 61)},
    }


_FIELDS_OF_AMPERE = (3, 4, 5, 6, 38, 45, 52, 59, 74, 75, 76, 77, 78, 79, 94, 138, 139, 142, 143, 144, 145)


def ampere(index: int) -> dict[str, Value]:
    """What an idle A100 answers: thresholds in degrees, no GPM, no PCIe byte counters, no fabric."""
    values = {
        k: v for k, v in hopper(index, "NVIDIA A100-SXM4-80GB").items() if not k.startswith(("gpm", "field/"))
    }
    for gone in ("margin", "fabric"):
        del values[gone]
    values.update(
        {
            "architecture": 8,
            "capability_major": 8,
            "power_limit": 400_000,
            "power_max": 400_000,
            "threshold/0": 92,
            "threshold/1": 89,
            "threshold/2": 95,
            "threshold/3": 85,
            "pcie_tx_kb": 0,
            "pcie_rx_kb": 0,
            "nvlinks": 12,
            "field/82": 40,
            **{f"field/{i}": 0 for i in _FIELDS_OF_AMPERE},
        }
    )
    return values


@dataclass
class StubGpu:
    """One GPU (or, by :meth:`mig`, an instance of it); every method writes the file and returns this GPU."""

    host: StubHost
    index: int
    prefix: str

    def set(self, name: str, value: Value) -> StubGpu:
        """One value, in NVML's unit."""
        return self.put(**{name: value})

    def put(self, **values: Value) -> StubGpu:
        """Several values at once; for names with a slash use ``**{"gpm/2": 90}``."""
        return self._write({f"{self.prefix}{name}": value for name, value in values.items()})

    def grow(self, name: str, start: float, per_second: float) -> StubGpu:
        """A counter: ``start`` when the host was made, and that much more each second since."""
        return self.set(name, f"{start:.17g} {per_second:.17g}")

    def remove(self, name: str) -> StubGpu:
        """From now on NOT_SUPPORTED."""
        return self._write({f"{self.prefix}{name}": None})

    def fail(self, function: str, code: int) -> StubGpu:
        """That NVML function returns ``code`` for this GPU; 0: it works again."""
        return self._write({f"{self.index}/fail/{function}": code or None})

    def delay(self, function: str, seconds: float) -> StubGpu:
        """That NVML function takes ``seconds`` for this GPU; 0 ends also one that is waiting now."""
        return self._write({f"{self.index}/delay/{function}": seconds or None})

    def lose(self, code: int = GPU_IS_LOST) -> StubGpu:
        """Fallen off the bus: everything returns ``code``."""
        return self._write({f"{self.index}/lost": code})

    def recover(self) -> StubGpu:
        """Back again."""
        return self._write({f"{self.index}/lost": None})

    def process(self, pid: int, memory: int, *, sm: int = 0, gi: int = 0xFFFFFFFF) -> StubGpu:
        """One more process on it: bytes, per cent, GPU instance."""
        n = sum(key.startswith(f"{self.index}/proc/") for key in self.host.values)
        return self._write({f"{self.index}/proc/{n}": f"{pid} {memory} {gi} {sm}"})

    def end_processes(self) -> StubGpu:
        """None left."""
        return self._write({key: None for key in self.host.values if key.startswith(f"{self.index}/proc/")})

    def mig(self, gi: int, profile: str, memory: int) -> StubGpu:
        """Cut off an instance (``1g.10gb``); the parent's MIG mode is switched on."""
        instance = StubGpu(self.host, self.index, f"{self.index}/mig/{gi}/")
        self.put(mig_mode=1)
        return instance.put(
            uuid=f"MIG-{self.index:08x}-0000-4000-8000-{gi:012x}",
            name=f"{self.host.values[f'{self.index}/name']} MIG {profile}",
            mem_total=memory,
            mem_used=0,
        )

    def _write(self, values: dict[str, Value | None]) -> StubGpu:
        self.host.update(values)
        return self


@dataclass
class StubHost:
    """A host's NVML. ``folder`` gets the state file and a stand-in for /proc/driver/nvidia."""

    folder: Path
    gpus: int = 8
    driver: str = "580.95.05"
    model: str = "hopper"
    """``hopper`` or ``ampere``."""
    values: dict[str, Value] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        board = hopper if self.model == "hopper" else ampere
        values: dict[str, Value | None] = {"since": f"{time.time():.3f}", "gpus": self.gpus}
        values.update({"driver": self.driver, "nvml": f"13.{self.driver}"})
        for index in range(self.gpus):
            values.update({f"{index}/{name}": value for name, value in board(index).items()})
            pci = str(values[f"{index}/pci"])[4:].lower()
            (self.folder / "driver" / "gpus" / pci).mkdir(parents=True, exist_ok=True)
        self.update(values)

    def gpu(self, index: int) -> StubGpu:
        """The GPU with that NVML index."""
        return StubGpu(self, index, f"{index}/")

    def set(self, name: str, value: Value) -> StubHost:
        """A value of the host: ``driver``, ``gpus`` (how many NVML counts)."""
        self.update({name: value})
        return self

    def fail(self, function: str, code: int) -> StubHost:
        """That NVML function returns ``code`` on every GPU; 0: it works again."""
        self.update({f"fail/{function}": code or None})
        return self

    def delay(self, function: str, seconds: float) -> StubHost:
        """That NVML function takes ``seconds`` on every GPU; 0 ends also those that wait now."""
        self.update({f"delay/{function}": seconds or None})
        return self

    def xid(self, gpu: int, code: int) -> StubHost:
        """An XID event, for every event set that exists now."""
        n = sum(key.startswith("xid/") for key in self.values)
        self.update({f"xid/{n}": f"{gpu} {code}"})
        return self

    def update(self, values: dict[str, Value | None]) -> None:
        """Several keys of the file at once; None removes one."""
        for key, value in values.items():
            if value is None:
                self.values.pop(key, None)
            else:
                self.values[key] = value
        fresh = self.state.with_suffix(".new")
        fresh.write_text("".join(f"{key} {value}\n" for key, value in self.values.items()))
        fresh.rename(self.state)

    @property
    def state(self) -> Path:
        """The file that the library reads."""
        return self.folder / "nvml.state"

    def environment(self) -> dict[str, str]:
        """What a process needs to see these GPUs (for sshd: ``SetEnv``); compiles the library."""
        return {
            "LD_LIBRARY_PATH": str(library_directory()),
            "NVML_STUB_FILE": str(self.state),
            "COLDAISLE_PROBE_NVIDIA": str(self.folder / "driver"),
        }
