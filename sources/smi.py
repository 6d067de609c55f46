"""Hosts without Python: what ``nvidia-smi --query-gpu`` prints, as a probe's frames.

::

    HELP_COMMAND ── its output ── fields_of ── query_command ── lines ── SmiReader ── frames

Fields come and go with the driver, and one that it does not know fails the whole command: so it is
asked for its list first. Field names and texts are those of drivers 390 to 610; a field that is
missing there is a metric that the schema does not have. This reads GPUs only: no host, no processes,
no MIG instances, no NVLink.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import NamedTuple, TypeAlias

from coldaisle.sources import frames
from coldaisle.sources.source import Clock, Missing, normal_pci

PATIENCE_S = 45
"""Silence on its standard input after which the remote nvidia-smi is ended."""
MAX_HELP = 1_000_000
"""Bytes; the longest list of fields seen has 60 kB."""
MAX_GPUS = 256
MAX_LINE = 20_000
QUARTER_HOUR_S = 900.0
MIB = 2.0**20

NO_NVIDIA_SMI_STATUS = 127
HOST_LINE = "coldaisle-host:"
"""What the remote shell prints first: the host's clock, name and kernel."""

_PATH = 'PATH="$PATH:/usr/bin:/usr/local/bin:/usr/local/nvidia/bin:/usr/lib/wsl/lib"; export PATH; '
_IN_UTC = "TZ=UTC0; LC_ALL=C; export TZ LC_ALL; "
"""So that its timestamps have no daylight-saving jump."""
_SAY_HOST = f'echo "{HOST_LINE} $(date +%s) $(uname -nr)"; '
_WATCH = (
    f't="timeout {PATIENCE_S}"; $t true 2>/dev/null || t=; exec 3<&0; '
    '(while $t sh -c "read x" <&3; do :; done; kill $$ && sleep 1 && kill -9 $$) >/dev/null 2>&1 & '
)
"""Ends the shell, which is nvidia-smi by then, when its input ends or is silent. Without ``timeout``
on the host only the end counts."""

HELP_COMMAND = f"exec /bin/sh -c '{_PATH}exec nvidia-smi --help-query-gpu </dev/null'"
"""Lists the fields. Within its quotes is none of what sh, csh or fish do not leave alone: ``'``, ``!``, ``\\``."""

Number: TypeAlias = Callable[[str], float]
"""The value in a cell, in canonical units; ValueError or KeyError if there is none."""


def _number(scale: float = 1.0) -> Number:
    return lambda cell: scale * float(cell.split(maxsplit=1)[0])


def _word(*words: tuple[str, float]) -> Number:
    """A state in words; numbers stand for themselves."""
    values = dict(words)

    def read(cell: str) -> float:
        value = values.get(cell.lower())
        return float(cell) if value is None else value

    return read


def _hex(cell: str) -> float:
    prefix, _, digits = cell.partition("x")
    if prefix != "0":
        raise ValueError(cell)
    return float(int(digits, 16))


_plain, _percent, _mib = _number(), _number(0.01), _number(MIB)
_yes = _word(("no", 0), ("yes", 1))
_enabled = _word(("disabled", 0), ("enabled", 1))
_fabric = _word(("not supported", 0), ("not started", 1), ("in progress", 2), ("completed", 3))
_health = _word(
    ("not supported", 0), ("healthy", 1), ("unhealthy", 2), ("limited capacity", 3), ("limited", 3)
)
_recovery = _word(
    ("none", 0), ("reset", 1), ("gpu reset", 1), ("reboot", 2), ("node reboot", 2),
    ("drain p2p", 3), ("drain and reset", 4),
)  # fmt: skip


class Column(NamedTuple):
    """One metric: the fields that give it, the best first (aliases of older drivers after it)."""

    key: str
    fields: tuple[str, ...]
    read: Number = _plain
    counts: bool = False
    """The cell is a counter of microseconds; the metric is its rate."""


_EVENTS = "clocks_event_reasons_counters."
COLUMNS: tuple[Column, ...] = (
    Column("gpu.util", ("utilization.gpu",), _percent),
    Column("gpu.mem_util", ("utilization.memory",), _percent),
    Column("gpu.enc_util", ("utilization.encoder",), _percent),
    Column("gpu.dec_util", ("utilization.decoder",), _percent),
    Column("gpu.jpg_util", ("utilization.jpeg",), _percent),
    Column("gpu.ofa_util", ("utilization.ofa",), _percent),
    Column("gpu.mem_used", ("memory.used",), _mib),
    Column("gpu.mem_free", ("memory.free",), _mib),
    Column("gpu.mem_reserved", ("memory.reserved",), _mib),
    Column("gpu.mem_total", ("memory.total",), _mib),
    Column("gpu.power", ("power.draw", "power.draw.average")),
    Column("gpu.power_instant", ("power.draw.instant", "gpu.power.draw.instant")),
    Column("gpu.power_limit", ("enforced.power.limit", "gpu.power.current_limit")),
    Column("gpu.power_requested", ("power.limit", "gpu.power.requested_limit")),
    Column("gpu.power_max", ("power.max_limit", "gpu.power.max_limit")),
    Column("gpu.temp", ("temperature.gpu",)),
    Column("gpu.mem_temp", ("temperature.memory",)),
    Column("gpu.temp_margin", ("temperature.gpu.tlimit",)),
    Column("gpu.sm_clock", ("clocks.current.sm", "clocks.sm")),
    Column("gpu.gr_clock", ("clocks.current.graphics", "clocks.gr")),
    Column("gpu.mem_clock", ("clocks.current.memory", "clocks.mem")),
    Column("gpu.video_clock", ("clocks.current.video", "clocks.video")),
    Column("gpu.sm_clock_max", ("clocks.max.sm",)),
    Column("gpu.mem_clock_max", ("clocks.max.memory", "clocks.max.mem")),
    Column("gpu.throttle", ("clocks_event_reasons.active", "clocks_throttle_reasons.active"), _hex),
    Column("gpu.power_violation", (f"{_EVENTS}sw_power_cap",), counts=True),
    Column("gpu.sync_boost_violation", (f"{_EVENTS}sync_boost",), counts=True),
    Column("gpu.sw_thermal_violation", (f"{_EVENTS}sw_thermal_slowdown",), counts=True),
    Column("gpu.hw_thermal_violation", (f"{_EVENTS}hw_thermal_slowdown",), counts=True),
    Column("gpu.power_brake_violation", (f"{_EVENTS}hw_power_brake_slowdown",), counts=True),
    Column("gpu.pcie_gen", ("pcie.link.gen.gpucurrent", "pcie.link.gen.current")),
    Column("gpu.pcie_gen_max", ("pcie.link.gen.max",)),
    Column("gpu.pcie_width", ("pcie.link.width.current",)),
    Column("gpu.pcie_width_max", ("pcie.link.width.max",)),
    Column("gpu.ecc_sbe", ("ecc.errors.corrected.volatile.total",)),
    Column("gpu.ecc_dbe", ("ecc.errors.uncorrected.volatile.total",)),
    Column("gpu.ecc_sbe_aggregate", ("ecc.errors.corrected.aggregate.total",)),
    Column("gpu.ecc_dbe_aggregate", ("ecc.errors.uncorrected.aggregate.total",)),
    Column("gpu.remapped_correctable", ("remapped_rows.correctable", "remapped_rows.sbe")),
    Column("gpu.remapped_uncorrectable", ("remapped_rows.uncorrectable", "remapped_rows.dbe")),
    Column("gpu.remap_pending", ("remapped_rows.pending",), _yes),
    Column("gpu.remap_failure", ("remapped_rows.failure",), _yes),
    Column("gpu.retired_sbe", ("retired_pages.single_bit_ecc.count", "retired_pages.sbe")),
    Column("gpu.retired_dbe", ("retired_pages.double_bit.count", "retired_pages.dbe")),
    Column("gpu.retired_pending", ("retired_pages.pending",), _yes),
    Column("gpu.mig_mode", ("mig.mode.current",), _enabled),
    Column("gpu.fabric_state", ("fabric.state",), _fabric),
    Column("gpu.fabric_health", ("fabric.health.summary",), _health),
    Column("gpu.recovery_action", ("gpu_recovery_action",), _recovery),
)
IDENTITY: tuple[tuple[str, ...], ...] = (
    ("timestamp",),
    ("count",),
    ("index",),
    ("uuid", "gpu_uuid"),
    ("pci.bus_id", "gpu_bus_id"),
    ("name", "gpu_name"),
    ("serial", "gpu_serial"),
    ("driver_version",),
    ("fabric.clusterUuid",),
    ("fabric.cliqueId",),
)
"""What a GPU is and when it was read; the first of each row is the name used here."""
BASIC = (
    "timestamp",
    "count",
    "index",
    "uuid",
    "pci.bus_id",
    "name",
    "driver_version",
    "utilization.gpu",
    "utilization.memory",
    "memory.used",
    "memory.free",
    "memory.total",
    "power.draw",
    "power.limit",
    "temperature.gpu",
    "clocks.sm",
    "clocks.gr",
    "clocks.mem",
)
"""Fields that every driver of the last ten years has; asked for where the list cannot be had."""

RATIOS = ("gpu.mem_ratio", "gpu.power_ratio")
"""Computed here, from the columns that they need."""

_LISTED = re.compile(r'^"[\w.]+"(?: or "[\w.]+")*\s*$', re.MULTILINE)
_NAME = re.compile(r'"([\w.]+)"')


def fields_of(help_text: str) -> tuple[str, ...]:
    """The fields to ask for: those of ours that the driver lists, one of each pair of aliases."""
    listed = {name for line in _LISTED.findall(help_text[:MAX_HELP]) for name in _NAME.findall(line)} or BASIC
    wanted = [*IDENTITY, *(column.fields for column in COLUMNS)]
    chosen = (next((name for name in names if name in listed), None) for names in wanted)
    return tuple(dict.fromkeys(name for name in chosen if name is not None))


def query_command(help_text: str, interval: float) -> str:
    """The command, for any login shell, that prints :func:`fields_of` every ``interval`` seconds.

    Its standard input is a heartbeat: it leaves at the end of that, or after :data:`PATIENCE_S` of
    silence. Standard error is joined to its output.
    """
    asked = ",".join(fields_of(help_text))
    query = f"exec nvidia-smi --query-gpu={asked} --format=csv,noheader,nounits {_pace(interval)}"
    return f"exec /bin/sh -c '{_PATH}{_IN_UTC}{_SAY_HOST}{_WATCH}{query} </dev/null 3<&- 2>&1'"


def _pace(interval: float) -> str:
    if interval >= 1 and float(interval).is_integer():
        return f"--loop={int(interval)}"
    return f"--loop-ms={max(100, round(interval * 1000))}"


class Trouble(NamedTuple):
    """A message of nvidia-smi about the whole node."""

    pattern: re.Pattern[str]
    problem: str
    remedy: str


TROUBLES: tuple[Trouble, ...] = tuple(
    Trouble(re.compile(pattern, re.IGNORECASE), problem, remedy)
    for pattern, problem, remedy in (
        (
            r"driver/library version mismatch",
            "NVIDIA driver and library are of different versions: upgraded, not reloaded",
            "reload the driver's modules there, or reboot",
        ),
        (
            r"couldn't communicate with the nvidia driver|driver not loaded",
            "the NVIDIA driver is not loaded",
            "load it there (modprobe nvidia), and see dmesg if that fails",
        ),
        (
            r"couldn't find libnvidia-ml|libnvidia-ml\.so.*(not found|no such file)",
            "the NVIDIA library (libnvidia-ml) is missing",
            "install the driver's compute libraries there",
        ),
        (r"no devices were found", "the NVIDIA driver finds no GPU", "see lspci and dmesg there"),
        (
            r"failed to initialize nvml|nvidia-smi has failed",
            "nvidia-smi cannot start",
            "run nvidia-smi there",
        ),
        (
            r"is not a valid field to query",
            "its nvidia-smi refuses a field that it lists",
            "install Python 3.6 or later there",
        ),
        (
            r"nvidia-smi: (command )?not found|nvidia-smi: no such file",
            "there is no nvidia-smi",
            "install the driver's utilities, or Python 3.6 or later",
        ),
    )
)
_HANDLE = re.compile(
    r"unable to determine the device handle for gpu\s*(?:\d{1,3}:\s+)?([0-9a-f]{1,8}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-9a-f])"
    r"\s*:\s*(.{0,200})",
    re.IGNORECASE,
)

GAPS: Mapping[str, Missing] = {
    "": Missing.BLANK,
    "n/a": Missing.BLANK,
    "not supported": Missing.NOT_SUPPORTED,
    "requested functionality has been deprecated": Missing.NOT_SUPPORTED,
    "function not found": Missing.NOT_SUPPORTED,
    "not found": Missing.NOT_SUPPORTED,
    "insufficient permissions": Missing.NOT_PERMITTED,
    "no permission": Missing.NOT_PERMITTED,
    "gpu is lost": Missing.LOST,
    "gpu requires reset": Missing.LOST,
}
"""Texts that stand for no value, without their brackets; any other text is a failed reading."""


def read_cell(cell: str, read: Number) -> float | Missing:
    """A cell's value in canonical units, or why there is none."""
    if cell.startswith("[") and cell.endswith("]"):
        return GAPS.get(cell[1:-1].strip().lower(), Missing.FAILED)
    try:
        value = read(cell)
    except (ValueError, OverflowError, IndexError):
        return GAPS.get(cell.lower(), Missing.FAILED)
    return value if math.isfinite(value) else Missing.FAILED


@dataclass(frozen=True, slots=True)
class Row:
    """One GPU at one instant."""

    cells: Mapping[str, str]
    arrived: float
    """By our clock."""
    at: float | None = None
    """By the host's timestamp, read as UTC."""
    index: int | None = None
    uuid: str | None = None
    pci: str | None = None
    lost: str = ""
    """Why nothing can be read of it."""

    def text(self, name: str) -> str | None:
        """A cell of text; None: there is none."""
        return _text(self.cells.get(name, ""))

    @property
    def place(self) -> str:
        """What it is told from the others by."""
        return self.pci or self.uuid or str(self.index)


@dataclass(slots=True)
class Board:
    """A GPU of the schema, with what its next row is compared to."""

    row: int
    gpu: frames.Gpu
    counters: dict[str, tuple[float, float]] = field(default_factory=dict)
    """By metric: (microseconds, when)."""
    lost: bool = False


class Host(NamedTuple):
    """The host line."""

    clock: float
    name: str
    kernel: str | None


class SmiReader:
    """The lines of one nvidia-smi, as frames. Nothing raises: what cannot be used is counted.

    ``asked`` is what :func:`fields_of` gave; ``clock`` is ours.
    """

    def __init__(self, asked: Sequence[str], clock: Clock) -> None:
        self.problem = ""
        """Why there are no readings, as nvidia-smi said last; empty: there are."""
        self.remedy = ""
        self.driver: str | None = None
        self.ignored = 0
        """Lines that are no reading: banners, cut ones, garbage."""
        self._asked = tuple(asked)
        self._names = tuple(_OURS.get(name, name) for name in self._asked)
        self._columns = _columns(self._asked)
        self._keys = [*(column.key for column, _ in self._columns), *RATIOS]
        self._clock = clock
        self._host: Host | None = None
        self._zone: float | None = None
        self._offset = 0.0
        """The host's clock minus ours."""
        self._sweep: list[Row] = []
        self._last_index: int | None = None
        self._counted = True
        self._boards: list[Board] = []
        self._schema = 0
        self._told: tuple[str | None, str] | None = None
        self._told_gpus: list[frames.Gpu] = []
        self._why: list[list[int]] | None = None
        self._before: float | None = None

    def feed(self, line: bytes) -> list[frames.Frame]:
        """One line, without its end; the frames that it completes."""
        text = line[:MAX_LINE].decode("utf-8", "replace").strip()
        if not text:
            return []
        row = self._lost_row(text) or self._row(text)
        if row is not None:
            return self._take_row(row)
        trouble = next((t for t in TROUBLES if t.pattern.search(text)), None)
        if trouble is not None:
            self.problem, self.remedy = trouble.problem, trouble.remedy
            return self._hello()
        if not self._take_host(text):
            self.ignored += 1
        return []

    # lines

    def _take_host(self, text: str) -> bool:
        words = text.partition(HOST_LINE)[2].split()
        if len(words) < 2 or not words[0].isdecimal() or len(words[0]) > 11:
            return False
        self._host = Host(float(words[0]), words[1][:255], " ".join(words[2:])[:255] or None)
        self._offset = self._host.clock - self._clock()
        return True

    def _lost_row(self, text: str) -> Row | None:
        found = _HANDLE.search(text)
        if found is None:
            return None
        why = found[2].strip() or "no device handle"
        self.problem, self.remedy = f"GPU {found[1]}: {why}", "reset the GPU, or reboot the node"
        return Row({}, self._clock(), pci=normal_pci(found[1]), lost=why)

    def _row(self, text: str) -> Row | None:
        cells = [cell.strip() for cell in text.split(",")]
        if len(cells) != len(self._asked):
            return None
        named = dict(zip(self._names, cells, strict=True))
        index = named.get("index", "")
        row = Row(
            named,
            self._clock(),
            at=_seconds(named.get("timestamp", "")),
            index=int(index) if _is_small(index) else None,
            uuid=_text(named.get("uuid", "")),
            pci=normal_pci(named.get("pci.bus_id", "")),
        )
        known = row.index is not None or row.pci is not None
        return row if known and (row.uuid is None or row.uuid.startswith("GPU-")) else None

    # sweeps

    def _take_row(self, row: Row) -> list[frames.Frame]:
        told: list[frames.Frame] = []
        if self._is_full(row):
            self.ignored += 1
            return told
        if self._begins(row):
            told = self._finish()
        self._sweep.append(row)
        if len(self._sweep) >= self._expected(row):
            told += self._finish()
        return told

    def _begins(self, row: Row) -> bool:
        """Whether this row is of the next sweep: GPUs come in the order of their indices."""
        if not self._sweep:
            if self._follows(row):
                self._counted = False  # the sweep before was longer than its count said
            return False
        return any(row.place == other.place for other in self._sweep) or (
            row.index is not None and self._last_seen() is not None and not self._follows(row)
        )

    def _follows(self, row: Row) -> bool:
        last = self._last_seen() if self._sweep else self._last_index
        return row.index is not None and last is not None and row.index > last

    def _last_seen(self) -> int | None:
        return next((row.index for row in reversed(self._sweep) if row.index is not None), None)

    def _expected(self, row: Row) -> int:
        count = row.cells.get("count", "")
        return min(int(count), MAX_GPUS) if self._counted and _is_small(count) and int(count) else MAX_GPUS

    def _finish(self) -> list[frames.Frame]:
        rows, self._last_index, self._sweep = self._sweep, self._last_seen(), []
        if not rows:
            return []
        if not all(row.lost for row in rows):
            self.problem = self.remedy = ""
        boards = {self._board(row).row: row for row in rows}
        told = self._hello() + self._schema_frame()
        return [*told, *self._lost(boards), self._sample(rows, boards)]

    def _board(self, row: Row) -> Board:
        board = next((board for board in self._boards if _same(board.gpu, row)), None)
        if board is None:
            board = Board(len(self._boards), frames.Gpu(pci=row.pci))
            self._boards.append(board)
        if not row.lost:
            board.gpu = _gpu(row, board.gpu)
        self.driver = row.text("driver_version") or self.driver
        return board

    def _is_full(self, row: Row) -> bool:
        """Whether there is no place for it: no host has so many GPUs."""
        return len(self._boards) >= MAX_GPUS and not any(_same(board.gpu, row) for board in self._boards)

    # frames

    def _hello(self) -> list[frames.Frame]:
        said = (self.driver, self.problem)
        if said == self._told:
            return []
        self._told = said
        name, kernel = (self._host.name, self._host.kernel) if self._host else ("", None)
        return [
            frames.Hello(
                t=self._now(None),
                probe=1,
                python="",
                hostname=name,
                kernel=kernel,
                driver=self.driver,
                problem=self.problem,
                remedy=self.remedy,
            )
        ]

    def _schema_frame(self) -> list[frames.Frame]:
        gpus = [board.gpu for board in self._boards]
        if gpus == self._told_gpus:
            return []
        self._told_gpus = gpus
        self._schema += 1
        self._why = None
        return [frames.Schema(self._schema, gpus, self._keys, ["node.gpus"], [], [], [], [])]

    def _lost(self, rows: Mapping[int, Row]) -> Iterable[frames.Frame]:
        for board in self._boards:
            row = rows.get(board.row)
            if row is None:
                continue
            why = _why_lost(row)
            if why and not board.lost:
                detail = f"GPU {board.gpu.index if board.gpu.index is not None else board.gpu.pci}: {why}"
                yield frames.Happening(self._now(row), "gpu_lost", detail, board.row)
            board.lost = bool(why)

    def _sample(self, rows: Sequence[Row], by_board: Mapping[int, Row]) -> frames.Sample:
        values: list[list[float | None]] = []
        why: list[list[int]] = []
        for board in self._boards:
            cells = self._read(board, by_board.get(board.row))
            values.append([None if isinstance(cell, Missing) else cell for cell in cells])
            why.append([int(cell) if isinstance(cell, Missing) else 0 for cell in cells])
        at = self._now(rows[-1])
        before, self._before = self._before, at
        fresh, self._why = why != self._why, why
        readable = sum(any(cell is not None for cell in row) for row in values)
        return frames.Sample(
            t=at,
            schema=self._schema,
            dt=_span(before, at),
            gpu=values,
            node=[float(readable)],
            gpu_why=why if fresh else None,
            took=max(0.0, at - self._now(rows[0])),
        )

    def _read(self, board: Board, row: Row | None) -> list[float | Missing]:
        if row is None or row.lost:
            return [Missing.FAILED if row is None else Missing.LOST] * len(self._keys)
        read = {c.key: read_cell(row.cells[name], c.read) for c, name in self._columns}
        at = self._now(row)
        for column, _ in self._columns:
            if column.counts:
                read[column.key] = _rate(board, column.key, read[column.key], at)
        return [*read.values(), _memory_ratio(read), _power_ratio(read)]

    def _now(self, row: Row | None) -> float:
        """When a row was read, by the host's clock; without its line or timestamp by ours."""
        if row is None:
            return self._clock() + self._offset
        if row.at is None or self._host is None:
            return row.arrived + self._offset
        if self._zone is None:  # whole quarters of an hour between its clock and its first timestamp
            self._zone = QUARTER_HOUR_S * round((row.at - self._host.clock) / QUARTER_HOUR_S)
        self._offset = row.at - self._zone - row.arrived
        return row.at - self._zone


_OURS = {name: names[0] for names in IDENTITY for name in names}


def _columns(asked: Sequence[str]) -> list[tuple[Column, str]]:
    """The metrics that the fields asked for give, each with its field."""
    found = ((column, next((n for n in column.fields if n in asked), None)) for column in COLUMNS)
    return [(column, name) for column, name in found if name is not None]


def _text(cell: str) -> str | None:
    return None if cell.startswith("[") or cell.lower() in GAPS else cell


def _is_small(cell: str) -> bool:
    return cell.isascii() and cell.isdecimal() and len(cell) <= 4


def _seconds(stamp: str) -> float | None:
    try:
        return datetime.strptime(stamp, "%Y/%m/%d %H:%M:%S.%f").replace(tzinfo=UTC).timestamp()
    except ValueError:
        return None


def _same(gpu: frames.Gpu, row: Row) -> bool:
    """Whether a row is of this GPU: by address, else by index."""
    if row.pci is not None and gpu.pci is not None:
        return row.pci == gpu.pci
    return row.index is not None and row.index == gpu.index


def _gpu(row: Row, before: frames.Gpu) -> frames.Gpu:
    """What the board is; texts that a failing GPU no longer gives stay as they were."""

    def number(name: str, read: Number) -> float | None:
        value = read_cell(row.cells.get(name, ""), read)
        return None if isinstance(value, Missing) else value

    memory = number("memory.total", _mib)
    mig = number("mig.mode.current", _enabled)
    return frames.Gpu(
        index=row.index if row.index is not None else before.index,
        uuid=row.uuid or before.uuid,
        pci=row.pci or before.pci,
        model=row.text("name") or before.model,
        memory_bytes=int(memory) if memory is not None and memory < 1e15 else before.memory_bytes,
        power_limit_w=number("enforced.power.limit", _plain) or before.power_limit_w,
        power_max_w=number("power.max_limit", _plain) or before.power_max_w,
        mig_enabled=bool(mig) if mig is not None else before.mig_enabled,
        serial=row.text("serial") or before.serial,
        fabric=_fabric_name(row) or before.fabric,
    )


def _fabric_name(row: Row) -> str | None:
    """``cluster uuid/clique`` of a registered GPU, else its state in a word; None: no fabric."""
    cluster, state = row.text("fabric.clusterUuid"), row.text("fabric.state")
    if state is None or state.lower() != "completed" or cluster is None:
        return state.lower() if state is not None else None
    return f"{cluster}/{row.text('fabric.cliqueId') or '0'}"


def _why_lost(row: Row) -> str:
    """Why a GPU gives nothing, if most of its readings say that it is lost."""
    if row.lost:
        return row.lost
    said = [cell[1:-1] for cell in row.cells.values() if cell.startswith("[") and cell.endswith("]")]
    lost = [text for text in said if GAPS.get(text.strip().lower()) is Missing.LOST]
    return lost[0] if len(lost) > len(row.cells) / 4 else ""


def _span(before: float | None, now: float) -> float | None:
    return now - before if before is not None and now > before else None


def _rate(board: Board, key: str, counter: float | Missing, at: float) -> float | Missing:
    """Share of the time since the last row; NOT_SAMPLED in the first and after a reset of the counter."""
    if isinstance(counter, Missing):
        board.counters.pop(key, None)
        return counter
    before = board.counters.get(key)
    board.counters[key] = (counter, at)
    if before is None or counter < before[0] or at <= before[1]:
        return Missing.NOT_SAMPLED
    return (counter - before[0]) / 1e6 / (at - before[1])


def _memory_ratio(read: Mapping[str, float | Missing]) -> float | Missing:
    used, total = read.get("gpu.mem_used"), read.get("gpu.mem_total")
    reserved = read.get("gpu.mem_reserved", 0.0)
    if isinstance(used, Missing | None) or isinstance(total, Missing | None):
        return _first_gap(used, total)
    usable = total - (0.0 if isinstance(reserved, Missing) else reserved)
    return min(1.0, used / usable) if usable > 0 else Missing.BLANK


def _power_ratio(read: Mapping[str, float | Missing]) -> float | Missing:
    power, limit = read.get("gpu.power"), read.get("gpu.power_limit")
    if isinstance(power, Missing | None) or isinstance(limit, Missing | None):
        return _first_gap(power, limit)
    return power / limit if limit > 0 else Missing.BLANK


def _first_gap(*cells: float | Missing | None) -> Missing:
    return next((cell for cell in cells if isinstance(cell, Missing)), Missing.NOT_SUPPORTED)
