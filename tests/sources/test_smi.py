"""nvidia-smi's text as a probe's frames, and hosts that have nothing else."""

from __future__ import annotations

import asyncio
import os
import shlex
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TypeVar

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lab.listening import listening
from lab.sshd import SshLab, wait_until
from services import find, require

from coldaisle.sources import frames
from coldaisle.sources.bootstrap import ProbeOptions, bootstrap_command
from coldaisle.sources.catalog import catalog
from coldaisle.sources.hosts import HostStream
from coldaisle.sources.smi import (
    BASIC,
    COLUMNS,
    HELP_COMMAND,
    PATIENCE_S,
    RATIOS,
    SmiReader,
    fields_of,
    query_command,
)
from coldaisle.sources.source import Event, GpuFact, Item, Kind, Missing, TargetState
from coldaisle.sources.ssh import Patience, SshSource

MIB = 2**20
NOW = 1_800_000_000.0
ROW = {
    "timestamp": "2027/01/15 08:00:00.250",
    "count": "2",
    "index": "0",
    "uuid": "GPU-7a0c1d32-0000-1111-2222-333344445555",
    "pci.bus_id": "00000000:1B:00.0",
    "name": "NVIDIA H100 80GB HBM3",
    "serial": "1650123456789",
    "driver_version": "590.48.01",
    "fabric.clusterUuid": "01234567-89ab-cdef-0123-456789abcdef",
    "fabric.cliqueId": "7",
    "utilization.gpu": "87",
    "utilization.memory": "40",
    "utilization.encoder": "0",
    "memory.used": "40540",
    "memory.free": "40540",
    "memory.reserved": "479",
    "memory.total": "81559",
    "power.draw": "512.25",
    "power.draw.instant": "530.00",
    "enforced.power.limit": "700.00",
    "power.limit": "650.00",
    "power.max_limit": "700.00",
    "temperature.gpu": "53",
    "temperature.gpu.tlimit": "24",
    "temperature.memory": "59",
    "clocks.current.sm": "1980",
    "clocks.current.memory": "2619",
    "clocks_event_reasons.active": "0x0000000000000024",
    "clocks_event_reasons_counters.sw_power_cap": "1000000",
    "clocks_event_reasons_counters.hw_thermal_slowdown": "500",
    "pcie.link.gen.gpucurrent": "5",
    "pcie.link.width.current": "16",
    "ecc.errors.corrected.volatile.total": "3",
    "ecc.errors.uncorrected.aggregate.total": "1",
    "remapped_rows.uncorrectable": "2",
    "remapped_rows.pending": "Yes",
    "remapped_rows.failure": "No",
    "retired_pages.pending": "[N/A]",
    "mig.mode.current": "Disabled",
    "fabric.state": "Completed",
    "fabric.health.summary": "Limited Capacity",
    "gpu_recovery_action": "Drain and Reset",
}
HELP = "List of valid properties to query for the switch:\n\n" + "".join(
    f'"{name}"\nWhat it is.\n\n' for name in ROW
)
ASKED = fields_of(HELP)
AnyFrame = TypeVar("AnyFrame", frames.Hello, frames.Schema, frames.Sample, frames.Happening)


def line(**changes: str) -> bytes:
    """A row; ``utilization__gpu="5"`` changes ``utilization.gpu``."""
    cells = ROW | {name.replace("__", "."): cell for name, cell in changes.items()}
    return ", ".join(cells[name] for name in ASKED).encode()


def second(**changes: str) -> bytes:
    """The other GPU's row."""
    own = {"index": "1", "uuid": "GPU-second", "pci__bus_id": "00000000:43:00.0"}
    return line(**{**own, **changes})


def of_kind(kind: type[AnyFrame], said: Sequence[frames.Frame]) -> list[AnyFrame]:
    return [frame for frame in said if isinstance(frame, kind)]


def feed(reader: SmiReader, *lines: bytes) -> list[frames.Frame]:
    return [frame for text in lines for frame in reader.feed(text)]


def values(said: Sequence[frames.Frame], gpu: int = 0) -> dict[str, float | Missing]:
    """The last sample's values of one GPU, or why they are missing."""
    schema, sample = of_kind(frames.Schema, said)[-1], of_kind(frames.Sample, said)[-1]
    assert sample.gpu_why is not None
    pairs = zip(schema.gpu_metrics, sample.gpu[gpu], sample.gpu_why[gpu], strict=True)
    return {key: Missing(why) if value is None else value for key, value, why in pairs}


@pytest.fixture
def reader() -> SmiReader:
    return SmiReader(ASKED, lambda: NOW)


def test_only_known_fields_are_asked_for_one_of_each_pair_of_aliases() -> None:
    text = (
        '"clocks_event_reasons.active" or "clocks_throttle_reasons.active"\nBitmask of "something".\n'
        '"gpu_uuid"\n"index"\n"vbios_version"\n"clocks.current.sm" or "clocks.sm"\r\n"bad;field"\n'
    )
    assert fields_of(text) == ("index", "gpu_uuid", "clocks.current.sm", "clocks_event_reasons.active")
    assert fields_of('"clocks_throttle_reasons.active"') == ("clocks_throttle_reasons.active",)
    assert set(fields_of("no list here")) == set(BASIC)


def test_every_metric_is_in_the_catalogue() -> None:
    keys = [*(column.key for column in COLUMNS), *RATIOS]
    assert len(keys) == len(set(keys))
    assert all(catalog()[key].kind is Kind.GPU for key in keys)


@pytest.mark.parametrize(
    ("interval", "pace"),
    [
        (1.0, "--loop=1"),
        (10.0, "--loop=10"),
        (0.5, "--loop-ms=500"),
        (2.5, "--loop-ms=2500"),
        (0.0, "--loop-ms=100"),
    ],
)
def test_the_command_keeps_the_pace_and_passes_any_login_shell(interval: float, pace: str) -> None:
    command = query_command(HELP, interval)
    words = shlex.split(command)
    assert words[:3] == ["exec", "/bin/sh", "-c"]
    assert f" --query-gpu={','.join(ASKED)} --format=csv,noheader,nounits {pace} " in words[3]
    for text in (words[3], shlex.split(HELP_COMMAND)[3]):
        assert not set("'!\\\n") & set(text)
        subprocess.run(["/bin/sh", "-n", "-c", text], check=True)


def test_a_sweep_is_told_as_soon_as_its_last_gpu_is_there(reader: SmiReader) -> None:
    assert reader.feed(line()) == []
    hello, schema, sample = reader.feed(second())
    assert isinstance(hello, frames.Hello)
    assert (hello.driver, hello.problem) == ("590.48.01", "")
    assert isinstance(schema, frames.Schema)
    assert isinstance(sample, frames.Sample)
    assert schema.gpus[0] == frames.Gpu(
        index=0,
        uuid=ROW["uuid"],
        pci="0000:1b:00.0",
        model="NVIDIA H100 80GB HBM3",
        memory_bytes=81559 * MIB,
        power_limit_w=700.0,
        power_max_w=700.0,
        mig_enabled=False,
        serial="1650123456789",
        fabric="01234567-89ab-cdef-0123-456789abcdef/7",
    )
    assert (schema.gpus[1].index, schema.gpus[1].pci) == (1, "0000:43:00.0")
    assert (sample.dt, sample.node, schema.node_metrics) == (None, [2.0], ["node.gpus"])


def test_values_are_in_canonical_units(reader: SmiReader) -> None:
    got = values(feed(reader, line(), second()))
    expected = {
        "gpu.util": 0.87,
        "gpu.mem_used": 40540 * MIB,
        "gpu.mem_ratio": 40540 / (81559 - 479),
        "gpu.power": 512.25,
        "gpu.power_instant": 530.0,
        "gpu.power_limit": 700.0,
        "gpu.power_requested": 650.0,
        "gpu.power_ratio": 512.25 / 700,
        "gpu.temp": 53.0,
        "gpu.temp_margin": 24.0,
        "gpu.mem_temp": 59.0,
        "gpu.sm_clock": 1980.0,
        "gpu.throttle": float(0x24),
        "gpu.pcie_gen": 5.0,
        "gpu.pcie_width": 16.0,
        "gpu.ecc_sbe": 3.0,
        "gpu.ecc_dbe_aggregate": 1.0,
        "gpu.remapped_uncorrectable": 2.0,
        "gpu.remap_pending": 1.0,
        "gpu.remap_failure": 0.0,
        "gpu.mig_mode": 0.0,
        "gpu.fabric_state": 3.0,
        "gpu.fabric_health": 3.0,
        "gpu.recovery_action": 4.0,
    }
    assert {key: got[key] for key in expected} == pytest.approx(expected)
    assert got["gpu.retired_pending"] is Missing.BLANK
    assert got["gpu.power_violation"] is Missing.NOT_SAMPLED
    assert "gpu.nvlink_tx" not in got


def test_counters_become_shares_of_the_time_between_the_host_s_timestamps(reader: SmiReader) -> None:
    feed(reader, b"coldaisle-host: 1800000000 n01 6.8.0", line(), second())
    later = {"timestamp": "2027/01/15 08:00:02.250"}
    said = feed(reader, line(**later, clocks_event_reasons_counters__sw_power_cap="1500000"), second(**later))
    sample = of_kind(frames.Sample, said)[0]
    assert sample.dt == pytest.approx(2.0)
    column = all_keys().index("gpu.power_violation")
    assert [row[column] for row in sample.gpu] == pytest.approx([0.25, 0.0])
    back = {"timestamp": "2027/01/15 08:00:04.250", "clocks_event_reasons_counters__sw_power_cap": "7"}
    said = feed(reader, line(**back), second(**later))
    assert of_kind(frames.Sample, said)[0].gpu[0][column] is None


def all_keys() -> list[str]:
    """The columns of the samples of a reader of these fields."""
    return of_kind(frames.Schema, feed(SmiReader(ASKED, lambda: NOW), line(), second()))[0].gpu_metrics


@pytest.mark.parametrize(
    ("cell", "why"),
    [
        ("[N/A]", Missing.BLANK),
        ("N/A", Missing.BLANK),
        ("", Missing.BLANK),
        ("[Not Supported]", Missing.NOT_SUPPORTED),
        ("[Requested functionality has been deprecated]", Missing.NOT_SUPPORTED),
        ("[Insufficient Permissions]", Missing.NOT_PERMITTED),
        ("[GPU requires reset]", Missing.LOST),
        ("[GPU is lost]", Missing.LOST),
        ("[Unknown Error]", Missing.FAILED),
        ("ERR!", Missing.FAILED),
        ("[Something new]", Missing.FAILED),
        ("nan", Missing.FAILED),
        ("1e999", Missing.FAILED),
    ],
)
@pytest.mark.parametrize("key", ["gpu.power", "gpu.throttle", "gpu.remap_pending"])
def test_no_value_says_why(reader: SmiReader, cell: str, why: Missing, key: str) -> None:
    name = next(f for column in COLUMNS if column.key == key for f in column.fields if f in ASKED)
    got = values(feed(reader, line(**{name.replace(".", "__"): cell}), second()))
    assert got[key] is why
    if key == "gpu.power":
        assert got["gpu.power_ratio"] is why


def test_reasons_are_sent_when_they_change(reader: SmiReader) -> None:
    feed(reader, line(), second())
    samples = [
        of_kind(frames.Sample, feed(reader, line(temperature__memory=cell), second()))[0].gpu_why is not None
        for cell in ("59", "59", "[N/A]", "[N/A]", "60")
    ]
    # the first two differ from the one before by their rates: waiting, then still at the same instant
    assert samples == [False, False, True, False, True]


def test_a_gpu_that_says_it_is_lost_is_an_event_and_comes_back(reader: SmiReader) -> None:
    feed(reader, line(), second())
    known = {"timestamp", "count", "index", "uuid", "pci.bus_id", "name"}
    gone = {name.replace(".", "__"): "[GPU is lost]" for name in ROW if name not in known}
    own = {"index": "1", "uuid": "GPU-second", "pci__bus_id": "00000000:43:00.0"}
    said = feed(reader, line(), line(**{**gone, **own}))
    assert [(f.kind, f.gpu, f.detail) for f in of_kind(frames.Happening, said)] == [
        ("gpu_lost", 1, "GPU 1: GPU is lost")
    ]
    sample = of_kind(frames.Sample, said)[0]
    assert sample.gpu_why is not None
    assert set(sample.gpu_why[1]) == {Missing.LOST}
    assert sample.node == [1.0]
    assert not of_kind(frames.Schema, said) or of_kind(frames.Schema, said)[0].gpus[1].model
    assert not of_kind(frames.Happening, feed(reader, line(), line(**{**gone, **own})))
    assert of_kind(frames.Sample, feed(reader, line(), second()))[0].node == [2.0]


@pytest.mark.parametrize(
    "text",
    [
        b"Unable to determine the device handle for GPU 0000:43:00.0: GPU is lost.  Reboot the system",
        b"Unable to determine the device handle for GPU1: 0000:43:00.0: Unknown Error",
        b"Unable to determine the device handle for GPU0000:43:00.0: Unknown Error",
    ],
)
def test_a_gpu_without_a_handle_is_lost(reader: SmiReader, text: bytes) -> None:
    feed(reader, line(), second())
    assert not feed(reader, line())
    said = feed(reader, text)
    assert reader.problem.startswith("GPU 0000:43:00.0: ")
    assert "reboot" in reader.remedy
    said += feed(reader, line())
    sample = of_kind(frames.Sample, said)[0]
    assert sample.gpu_why is not None
    assert set(sample.gpu_why[1]) == {Missing.LOST}
    assert [event.gpu for event in of_kind(frames.Happening, said)] == [1]
    assert reader.problem == ""


def test_without_a_count_the_first_index_ends_a_sweep(reader: SmiReader) -> None:
    assert not feed(reader, line(count="[N/A]"), second(count="[N/A]"))
    said = feed(reader, line(count="[N/A]"))
    assert len(of_kind(frames.Sample, said)) == 1
    assert len(of_kind(frames.Schema, said)[0].gpus) == 2


def test_a_count_that_is_too_small_is_not_believed_twice(reader: SmiReader) -> None:
    for _ in range(3):
        said = feed(reader, line(count="1"), second(count="1"))
    sample = of_kind(frames.Sample, said)[-1]
    assert len(sample.gpu) == 2
    assert sample.node == [2.0]


def test_a_cut_line_costs_that_row_alone(reader: SmiReader) -> None:
    feed(reader, line(), second())
    said = feed(reader, line()[:80], second(), line(), second())
    first, then = of_kind(frames.Sample, said)
    assert first.node == [1.0]
    assert first.gpu_why is not None
    assert set(first.gpu_why[0]) == {Missing.FAILED}
    assert then.node == [2.0]
    assert reader.ignored == 1


def test_banners_are_counted_and_left_out(reader: SmiReader) -> None:
    assert feed(reader, b"Welcome, all of you, to the cluster!", b"", b"\xff\xfe\x00", b"," * 500) == []
    assert reader.ignored == 3
    assert len(feed(reader, line(), second())) == 3


@pytest.mark.parametrize(
    ("text", "problem", "remedy"),
    [
        (
            "NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver. Make sure that",
            "not loaded",
            "modprobe",
        ),
        ("Failed to initialize NVML: Driver/library version mismatch", "different versions", "reboot"),
        ("Failed to initialize NVML: Unknown Error", "cannot start", "nvidia-smi"),
        ("No devices were found", "finds no GPU", "lspci"),
        ("NVIDIA-SMI couldn't find libnvidia-ml.so library in your system.", "libnvidia-ml", "install"),
        ("sh: 1: exec: nvidia-smi: not found", "no nvidia-smi", "install"),
        ("bash: nvidia-smi: command not found", "no nvidia-smi", "install"),
        ('Field "fan.noise" is not a valid field to query.', "refuses a field", "Python"),
    ],
)
def test_trouble_is_told_with_what_to_do(reader: SmiReader, text: str, problem: str, remedy: str) -> None:
    (hello,) = of_kind(frames.Hello, feed(reader, text.encode(), text.encode()))
    assert problem in hello.problem
    assert remedy in hello.remedy
    assert reader.problem == hello.problem
    said = feed(reader, line(), second())
    assert of_kind(frames.Hello, said)[0].problem == ""
    assert reader.problem == ""


@pytest.mark.parametrize("zone_hours", [0.0, 9.0, -8.0, 5.75])
def test_the_host_s_clock_is_told_whatever_zone_its_timestamps_are_in(zone_hours: float) -> None:
    reader = SmiReader(ASKED, lambda: NOW)
    read_at = 1_800_000_000.25 - zone_hours * 3600  # ROW's timestamp, in that zone
    started = int(read_at) - 100  # nvidia-smi can take long to start
    reader.feed(f"coldaisle-host: {started} n01 6.8.0-45".encode())
    said = feed(reader, line(), second())
    hello, sample = of_kind(frames.Hello, said)[0], of_kind(frames.Sample, said)[0]
    assert (hello.hostname, hello.kernel) == ("n01", "6.8.0-45")
    assert sample.t == pytest.approx(read_at, abs=0.001)


def test_a_stream_takes_every_frame(reader: SmiReader) -> None:
    told: list[Item] = []
    stream = HostStream("n01", lambda: NOW, told.append)
    for frame in feed(reader, b"coldaisle-host: 1800000000 n01 6.8.0", line(), second(), line(), second()):
        stream.take(frame)
    assert (stream.garbled, stream.samples) == (0, 2)
    assert stream.pending[Kind.GPU].values.shape == (2, len(all_keys()))
    assert {fact.gpu.pci for fact in told if isinstance(fact, GpuFact)} == {"0000:1b:00.0", "0000:43:00.0"}
    assert not [item for item in told if isinstance(item, Event)]


CELLS = st.sampled_from(
    [
        *ROW.values(),
        "[N/A]",
        "[GPU is lost]",
        "ERR!",
        "nan",
        "-1",
        "9" * 30,
        "0x",
        "inf",
        "a b",
        "\x1b[31m",
        "٣",
    ]
)
LINES = st.one_of(
    st.binary(max_size=300),
    st.lists(CELLS, min_size=len(ASKED), max_size=len(ASKED)).map(lambda row: ", ".join(row).encode()),
    st.fixed_dictionaries({}, optional={name.replace(".", "__"): CELLS for name in ROW}).map(
        lambda c: line(**c)
    ),
    st.sampled_from(
        [
            line(),
            second(),
            b"coldaisle-host: 1 a",
            b"coldaisle-host: 99999999999 x y z",
            b"No devices were found",
        ]
    ),
    st.sampled_from(["0000:43:00.0", "zz"]).map(
        lambda pci: f"Unable to determine the device handle for GPU {pci}: x".encode()
    ),
)


@settings(deadline=None, max_examples=200)
@given(st.lists(LINES, max_size=30))
def test_garbage_never_raises_and_a_stream_can_use_what_comes_of_it(lines: list[bytes]) -> None:
    reader = SmiReader(ASKED, lambda: NOW)
    stream = HostStream("n01", lambda: NOW, lambda item: None)
    for text in lines:
        for frame in reader.feed(text):
            stream.take(frame)
    assert stream.garbled == 0


def test_endless_new_gpus_are_bounded() -> None:
    reader = SmiReader(ASKED, lambda: NOW)
    said = [
        frame
        for number in range(600)
        for frame in reader.feed(line(count="0", index=str(number), pci__bus_id=f"{number:08x}:00:00.0"))
    ]
    assert max(len(sample.gpu) for sample in of_kind(frames.Sample, said)) == 256
    assert reader.ignored == 600 - 256


# captures of the real tool


def samples() -> Path:
    folder = os.environ.get("COLDAISLE_SAMPLES")
    if not folder or not (Path(folder) / "nvidia-smi").is_dir():
        pytest.skip("COLDAISLE_SAMPLES names no folder with nvidia-smi")
    return Path(folder) / "nvidia-smi"


def sections(text: str) -> Iterator[tuple[str, list[str]]]:
    """(command, output lines) of a capture."""
    command, output = "", list[str]()
    for row in text.splitlines():
        if row.startswith("# $ "):
            command, output = row[4:], []
        elif row.startswith("####") and output:
            yield command, output
            command, output = "", []
        elif not row.startswith("#"):
            output.append(row)
    yield command, output


def rows_of(output: Sequence[str]) -> tuple[list[str], list[list[str]]]:
    """(fields without their units, rows) of a CSV."""
    table = [row.split(", ") for row in output if row.strip()]
    return [name.split(" [")[0] for name in table[0]], table[1:]


def test_captures_of_five_boards_read() -> None:
    files = sorted((samples() / "captures").glob("*.txt"))
    assert len(files) >= 5
    for file in files:
        parts = list(sections(file.read_text(encoding="utf-8")))
        listing = next("\n".join(out) for command, out in parts if command == "nvidia-smi --help-query-gpu")
        asked = fields_of(listing)
        assert len(asked) > 45, file.name
        sweeps = [rows_of(out) for command, out in parts if command.startswith("nvidia-smi --query-gpu=")]
        assert len(sweeps) == 2, file.name
        reader = SmiReader(asked, lambda: NOW)
        for header, rows in sweeps:
            assert set(asked) <= set(header)
            cells = dict(zip(header, rows[0], strict=True))
            said = feed(reader, ", ".join(cells[name] for name in asked).encode())
            check_capture(file.name, cells, said, reader)
        assert reader.ignored == 0


def check_capture(name: str, cells: dict[str, str], said: list[frames.Frame], reader: SmiReader) -> None:
    sample = of_kind(frames.Sample, said)[0]
    keys = [*(c.key for c in COLUMNS if any(f in cells for f in c.fields)), *RATIOS]
    got = dict(zip(keys, sample.gpu[0], strict=True))
    assert got["gpu.power"] == float(cells["power.draw"].split()[0])
    assert got["gpu.temp"] == float(cells["temperature.gpu"])
    assert got["gpu.mem_total"] == float(cells["memory.total"].split()[0]) * MIB
    assert got["gpu.throttle"] == int(cells["clocks_event_reasons.active"], 16)
    assert (got["gpu.util"] is None) == (cells["utilization.gpu"] == "[N/A]"), name
    assert (got["gpu.temp_margin"] is None) == ("geforce" in name)
    if "mig" in name:
        assert got["gpu.mig_mode"] == 1.0
    for key, value in got.items():
        if value is not None:
            assert catalog()[key].low <= value <= catalog()[key].high, (name, key, value)
    schema = of_kind(frames.Schema, said)
    assert reader.driver is not None
    assert reader.driver in name
    assert not schema or schema[0].gpus[0].model == cells["name"]


def test_other_columns_with_units_read() -> None:
    lines = (samples() / "csv" / "query.txt").read_text(encoding="utf-8").splitlines()
    header, rows = rows_of(lines)
    reader = SmiReader(header, lambda: NOW)
    said = feed(reader, *(", ".join(row).encode() for row in [*rows, rows[0]]))
    schema, sample = of_kind(frames.Schema, said)[0], of_kind(frames.Sample, said)[0]
    assert [gpu.index for gpu in schema.gpus] == [0, 1]
    column = schema.gpu_metrics.index("gpu.mem_used")
    assert [row[column] for row in sample.gpu] == [575 * MIB, 1234 * MIB]


def test_the_list_of_an_older_driver_has_older_names() -> None:
    asked = fields_of((samples() / "csv" / "fields.txt").read_text(encoding="utf-8"))
    assert {"uuid", "pci.bus_id", "clocks_throttle_reasons.active", "pcie.link.gen.current"} <= set(asked)
    assert not {"clocks_event_reasons.active", "gpu_uuid", "pcie.link.gen.gpucurrent"} & set(asked)


# a real shell, a real sshd

FAKE = """#!/bin/sh
if [ "$1" = --help-query-gpu ]; then cat "{folder}/help"; exit; fi
echo "$*" > "{folder}/arguments"
if [ -f "{folder}/trouble" ]; then cat "{folder}/trouble"; exit 9; fi
echo $$ > "{folder}/pid"
while :; do
  stamp=$(date "+%Y/%m/%d %H:%M:%S.%3N")
  while read -r row; do echo "$stamp, $row"; done < "{folder}/rows"
  sleep 0.2
done
"""


class Fake:
    """An nvidia-smi of a few lines, in a folder that PATH can begin with."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir()
        (folder / "help").write_text(HELP)
        self.say()
        script = folder / "nvidia-smi"
        script.write_text(FAKE.format(folder=folder))
        script.chmod(0o755)

    @property
    def path(self) -> str:
        return f"{self.folder}:{os.defpath}"

    def say(self, **changes: str) -> None:
        """What its two GPUs read from now on; their timestamps are its own."""
        rows = [row.decode().partition(", ")[2] for row in (line(**changes), second(**changes))]
        fresh = self.folder / "rows.new"
        fresh.write_text("".join(f"{row}\n" for row in rows))
        fresh.rename(self.folder / "rows")

    def fail(self, text: str) -> None:
        """From now on it only says this."""
        (self.folder / "trouble").write_text(text + "\n")

    @property
    def runs(self) -> bool:
        try:
            return Path(f"/proc/{int((self.folder / 'pid').read_text())}/stat").read_text().split()[2] != "Z"
        except (OSError, ValueError):
            return False


@pytest.fixture
def fake(tmp_path: Path) -> Fake:
    return Fake(tmp_path / "smi")


@pytest.mark.parametrize("end", ["silence", "end of input"])
def test_the_remote_nvidia_smi_leaves_without_a_heartbeat(fake: Fake, end: str) -> None:
    assert f"timeout {PATIENCE_S}" in query_command(HELP, 1.0)
    words = shlex.split(query_command(HELP, 1.0).replace(f"timeout {PATIENCE_S}", "timeout 1"))
    with subprocess.Popen(
        words[1:], env={"PATH": fake.path}, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as child:
        assert child.stdin is not None
        assert child.stdout is not None
        assert child.stdout.readline().startswith(b"coldaisle-host: ")
        for _ in range(4):
            assert child.stdout.readline().endswith(b"\n")
            child.stdin.write(b"\n")
            child.stdin.flush()
        assert fake.runs
        if end == "end of input":
            child.stdin.close()
        assert child.wait(10.0) == -15
        assert not fake.runs


SHELLS = {"dash": [], "bash": [], "zsh": ["-f"], "tcsh": ["-f"], "fish": ["--no-config"]}


@pytest.mark.parametrize("shell", SHELLS)
def test_every_login_shell_passes_the_commands_on(fake: Fake, shell: str) -> None:
    require(shell)
    start = [find(shell) or shell, *SHELLS[shell], "-c"]
    environment = {"PATH": fake.path, "HOME": str(fake.folder)}
    listing = subprocess.run([*start, HELP_COMMAND], env=environment, capture_output=True, check=True)
    assert listing.stdout.decode() == HELP
    with subprocess.Popen(
        [*start, query_command(HELP, 1.0)], env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as child:
        assert child.stdin is not None
        assert child.stdout is not None
        reader = SmiReader(ASKED, lambda: NOW)
        said = feed(reader, *(child.stdout.readline() for _ in range(3)))
        child.stdin.close()
        assert child.wait(10.0) == -15
    assert of_kind(frames.Hello, said)[0].hostname
    assert (of_kind(frames.Sample, said)[0].node, reader.ignored) == ([2.0], 0)


def test_heartbeats_keep_it_running(fake: Fake) -> None:
    words = shlex.split(query_command(HELP, 1.0).replace(f"timeout {PATIENCE_S}", "timeout 1"))
    with subprocess.Popen(
        words[1:], env={"PATH": fake.path}, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as child:
        assert child.stdin is not None
        assert child.stdout is not None
        for _ in range(20):  # 0.2 s a sweep of two rows: about 2 s
            child.stdout.readline()
            child.stdin.write(b"\n")
            child.stdin.flush()
        assert child.poll() is None
        child.stdin.close()
        child.wait(10.0)


QUICK = Patience(
    connect=4.0, login=6.0, start=8.0, silence=4.0, first_pause=0.2, longest_pause=1.0, scout=0.5
)


def without_python(options: ProbeOptions) -> tuple[str, bytes]:
    """The real bootstrap, as it ends where there is no Python."""
    command, payload = bootstrap_command(options)
    for python in ("python3 /usr/bin/python3", "/usr/libexec/platform-python"):
        assert python in command
        command = command.replace(python, "/nowhere/python3")
    return command, payload


@pytest.fixture
def lab(tmp_path: Path, fake: Fake, monkeypatch: pytest.MonkeyPatch) -> Iterator[SshLab]:
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    with SshLab(tmp_path / "lab", ["n01"], environment={"n01": {"PATH": fake.path}}) as lab:
        yield lab


def source_of(lab: SshLab, *hosts: str) -> SshSource:
    return SshSource(lab.settings(*hosts), patience=QUICK, boot=without_python)


async def test_a_host_without_python_is_read_through_nvidia_smi(lab: SshLab, fake: Fake) -> None:
    async with listening(source_of(lab)) as heard:
        target = await heard.until_state("n01", TargetState.OK)
        assert target.what == "nvidia-smi 590.48.01"
        await heard.until("a first reading", lambda: heard.value("n01", "gpu.power") == 512.25)
        await heard.until("its load", lambda: heard.value("n01", "gpu.util") == pytest.approx(0.87))
        await heard.until("its GPUs are counted", lambda: heard.value("n01", "node.gpus") == 2.0)
        assert heard.reason("n01", "gpu.retired_pending") is Missing.BLANK
        fact = heard.nodes["n01"]
        assert (fact.driver, fact.gpus_visible, fact.problem) == ("590.48.01", 2, "")
        assert fact.hostname
        assert abs(fact.clock_offset_s or 0.0) < 5.0
        assert {board.model for board in heard.gpus} == {"NVIDIA H100 80GB HBM3"}
        assert "--loop-ms=500" in (fake.folder / "arguments").read_text()
        fake.say(power__draw="300.00")
        await heard.until("a new value", lambda: heard.value("n01", "gpu.power") == 300.0, 5.0)
        assert lab.connections("n01") == 1
        assert fake.runs
    await asyncio.to_thread(wait_until, "nothing runs there", lambda: not (lab.processes("n01") or fake.runs))


async def test_a_cut_connection_ends_nvidia_smi_and_is_made_again(lab: SshLab, fake: Fake) -> None:
    relay = lab.relay("n01", "far")
    async with listening(source_of(lab, "far")) as heard:
        await heard.until("it reads", lambda: heard.samples("far") > 0)
        first = (fake.folder / "pid").read_text()
        relay.cut()
        await heard.until_state("far", TargetState.FAILING)
        await asyncio.to_thread(
            wait_until, "the first has left", lambda: not Path(f"/proc/{first.strip()}").exists()
        )
        await heard.until_state("far", TargetState.OK)
        assert (fake.folder / "pid").read_text() != first


async def test_a_driver_that_does_not_answer_is_said_and_found_again(lab: SshLab, fake: Fake) -> None:
    fake.fail("NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver.")
    async with listening(source_of(lab)) as heard:
        target = await heard.until_state("n01", TargetState.FAILING)
        assert target.detail == "the NVIDIA driver is not loaded"
        assert "modprobe" in target.remedy
        assert heard.nodes["n01"].problem == target.detail
        (fake.folder / "trouble").unlink()
        await heard.until_state("n01", TargetState.OK)
        await heard.until("the problem is gone", lambda: heard.nodes["n01"].problem == "")


async def test_neither_python_nor_nvidia_smi(lab: SshLab, fake: Fake) -> None:
    (fake.folder / "nvidia-smi").unlink()
    async with listening(source_of(lab)) as heard:
        target = await heard.until_state("n01", TargetState.FAILING)
    assert target.detail == "it has neither Python 3.6 or later nor nvidia-smi"
    assert target.remedy == "install Python 3.6 or later there"
