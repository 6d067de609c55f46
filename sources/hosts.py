"""From the lines of many probes to one batch per kind and tick.

::

    bytes ── LineBuffer ── HostStream (a host) ──┐
    bytes ── LineBuffer ── HostStream (a host) ──┴── Fleet.tick(at) ── one Batch per kind

Nobody waits for anybody: a host that answers late is in the next tick, and its cells are NaN until
then. What a host may send is bounded in every direction; what breaks the bounds, is cut or is not
the protocol is counted and left out. Used by :mod:`.local` (one host) and :mod:`.ssh` (hundreds).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import NamedTuple, TypeAlias, TypeVar

import msgspec
import numpy as np
from numpy.typing import NDArray

from coldaisle.sources import frames
from coldaisle.sources.catalog import catalog
from coldaisle.sources.source import (
    Batch,
    Clock,
    Codes,
    DiskRef,
    EntityRef,
    Event,
    Floats,
    GpuFact,
    GpuRef,
    Item,
    Kind,
    Missing,
    NodeFact,
    NodeRef,
    PortRef,
    Process,
    ProcessFact,
    normal_pci,
)

Positions: TypeAlias = NDArray[np.intp]

KINDS = (Kind.NODE, Kind.GPU, Kind.PORT, Kind.DISK)
MAX_ENTITIES = 512
"""GPUs with MIG instances, ports or disks of one host."""
MAX_METRICS = 256
MAX_PROCESSES = 4096
MAX_PORTS = 8
"""Of a process."""
MAX_TEXT = 512
"""Characters of any foreign text that is kept (a model, a command, an event)."""
MAX_GARBLED = 20
"""Lines in a row that begin like ours and are not: then it is not our probe that speaks."""
MAX_NOISE = 1_000_000
"""Bytes of other people's text before the first line of ours."""
MAX_INTERVAL_S = 86_400.0
END_OF_TIME = 1e11
"""Seconds since the epoch; a later clock is no clock."""
MAX_EVENTS = 200
"""Events of one host between two ticks; the rest is counted."""
SAME_EVENT_S = 2.0
CLOCK_JUMP_S = 2.0
CLOCK_TOLD_S = 0.5
"""A node's clock offset is told again when it differs by so much."""
REBOOT_S = 60.0
"""A boot time that differs by less is the same boot, read with a corrected clock."""


class LineBuffer:
    """Bytes as they come, to lines without their end; a line longer than ``limit`` is left out."""

    def __init__(self, limit: int = frames.MAX_LINE) -> None:
        self._limit = limit
        self._rest = bytearray()
        self._skipping = False
        self.dropped = 0
        """Bytes of lines that were too long."""

    def feed(self, data: bytes) -> Iterator[bytes]:
        """The lines that ``data`` completes."""
        lines = data.split(b"\n")
        for piece in lines[:-1]:
            yield from self._complete(piece)
        self._keep(lines[-1])

    def _complete(self, piece: bytes) -> Iterator[bytes]:
        line = bytes(self._rest) + piece if self._rest else piece
        self._rest.clear()
        if self._skipping or len(line) > self._limit:
            self.dropped += len(line)
            self._skipping = False
        else:
            yield line

    def _keep(self, piece: bytes) -> None:
        if self._skipping:
            self.dropped += len(piece)
            return
        self._rest += piece
        if len(self._rest) > self._limit:
            self.dropped += len(self._rest)
            self._rest.clear()
            self._skipping = True


class Part(NamedTuple):
    """One kind of a host's schema."""

    entities: tuple[EntityRef, ...]
    metrics: tuple[str, ...]
    """Those of the catalogue; unknown ones are left out."""
    width: int
    """Columns that the probe sends."""
    known: Positions | None
    """Positions of ``metrics`` among the probe's columns; None: all of them."""
    rates: NDArray[np.bool_]
    """[metric]: whether it is a mean over the sample's interval."""


class Reading(NamedTuple):
    """One kind of one host, not yet in a tick."""

    values: Floats
    """[entity, metric] of the part."""
    seconds: Floats
    """[entity]: what the rates cover; NaN: not known."""


class HostClock:
    """How far a host's clock is from ours, learnt from the least delayed of its last samples."""

    def __init__(self, window: int = 16) -> None:
        self._seen: deque[float] = deque(maxlen=window)
        self._odd: deque[tuple[float, float]] = deque(maxlen=3)
        self.offset = 0.0
        """The host's clock minus ours, seconds."""

    def learn(self, theirs: float, ours: float) -> float:
        """Take a pair of readings; by how many seconds the host's clock jumped, mostly 0.0.

        A delay only ever makes the host look late, so a jump ahead shows at once, and a jump back
        when three samples in a row agree on it. Samples that come all at once were held up, by a network or
        by our own suspension: they say nothing.
        """
        offset = theirs - ours
        if not self._seen:
            return self._set(offset)
        away = offset - self.offset
        if away > CLOCK_JUMP_S:
            self._set(offset)
            return away
        if away < -CLOCK_JUMP_S:
            return self._maybe_back(theirs, ours)
        self._odd.clear()
        self._seen.append(offset)
        self.offset = max(self._seen)
        return 0.0

    def _maybe_back(self, theirs: float, ours: float) -> float:
        self._odd.append((theirs, ours))
        offsets = [then - now for then, now in self._odd]
        (first, began), (last, ended) = self._odd[0], self._odd[-1]
        if (
            len(self._odd) < 3
            or ended - began < (last - first) / 2
            or max(offsets) - min(offsets) > CLOCK_JUMP_S
        ):
            return 0.0
        jump = max(offsets) - self.offset
        self._set(max(offsets))
        return jump

    def _set(self, offset: float) -> float:
        self._seen.clear()
        self._odd.clear()
        self._seen.append(offset)
        self.offset = offset
        return 0.0


class HostStream:
    """What one host's probe says, line by line: facts and events at once, readings for the next tick.

    ``tell`` is called with each fact and event. Nothing raises: what cannot be used is counted.
    """

    def __init__(self, node: str, clock: Clock, tell: Callable[[Item], None], interval: float = 2.0) -> None:
        self.node = node
        self.hello: frames.Hello | None = None
        self.parts: dict[Kind, Part] = {}
        self.why: dict[Kind, Codes] = {}
        self.pending: dict[Kind, Reading] = {}
        self.version = 0
        """Grows when ``parts`` changes."""
        self.why_version = 0
        """Grows when ``why`` changes."""
        self.lost = False
        """Whether its cells are unreachable, as its transport says."""
        self.noise = 0
        """Bytes that were not ours since the (re)start: banners, motd, garbage."""
        self.noise_text = ""
        """The last of it, for a message."""
        self.garbled = 0
        """Lines of ours that could not be used, since the (re)start."""
        self.samples = 0
        self.heard_at: float | None = None
        """When the last sample came, by our clock."""
        self.latency_s: float | None = None
        """Seconds from the beginning of the last poll to its arrival, beyond the least delay seen."""
        self.host_clock = HostClock()
        self._clock = clock
        self._tell = tell
        self._interval = interval
        self._schema: int | None = None
        self._garbled_in_row = 0
        self._gpus: tuple[GpuRef, ...] = ()
        self._told: NodeFact | None = None
        self._events = 0
        self._recent: deque[Event] = deque(maxlen=MAX_EVENTS)

    def restart(self) -> None:
        """A new probe will speak: its schema and its noise are its own, the entities stay until it tells its own."""
        self._schema = None
        self.hello = None
        self.noise = self.garbled = self._garbled_in_row = self.samples = 0
        self.noise_text = ""
        self.host_clock = HostClock()

    @property
    def quiet_s(self) -> float:
        """Seconds since the last sample of any of its probes; infinite: there was none."""
        return float("inf") if self.heard_at is None else max(0.0, self._clock() - self.heard_at)

    @property
    def hopeless(self) -> str:
        """Why nothing useful will come of this stream any more; empty: it may."""
        if self._garbled_in_row > MAX_GARBLED:
            return "what answers there does not speak the probe's protocol"
        if self.hello is None and self.noise > MAX_NOISE:
            return "its login shell prints without end"
        return ""

    def feed(self, line: bytes) -> None:
        """One line, without its end."""
        start = line.rfind(frames.RECORD)
        if start != 0:
            self._count_noise(line[:start] if start > 0 else line)
            if start < 0:
                return
        try:
            frame = frames.decode(line[start:])
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            self._reject()
            if self.hello is None:  # any byte may be in what a login shell prints
                self._garbled_in_row = 0
                self._count_noise(line[start:])
            return
        if frame is not None:
            self.take(frame)

    def _count_noise(self, text: bytes) -> None:
        self.noise += len(text) + 1
        if text.strip():
            self.noise_text = text[-MAX_TEXT:].decode("utf-8", "replace").strip()

    def _reject(self) -> None:
        self.garbled += 1
        self._garbled_in_row += 1

    def take(self, frame: frames.Frame) -> None:
        """One frame, from whatever speaks for the host."""
        accepted = True
        if not isinstance(frame, frames.Schema) and not 0 <= frame.t < END_OF_TIME:
            self._reject()
            return
        match frame:
            case frames.Sample():
                accepted = self._take_sample(frame)
            case frames.Schema():
                accepted = self._take_schema(frame)
            case frames.Hello():
                self._take_hello(frame)
            case frames.Processes():
                self._take_processes(frame)
            case frames.Happening():
                self._take_event(frame)
        if accepted:
            self._garbled_in_row = 0
        else:
            self._reject()

    # who it is

    def _take_hello(self, hello: frames.Hello) -> None:
        before, self.hello = self.hello, hello
        self._learn_clock(hello.t)
        if before is not None and (before.driver, before.problem) != (hello.driver, hello.problem):
            detail = hello.problem or f"driver {hello.driver}"
            self._tell(Event(self._clock(), NodeRef(self.node), "driver", _short(detail) or ""))
        self._tell_node()

    def _tell_node(self) -> None:
        hello = self.hello
        if hello is None:
            return
        fact = NodeFact(
            at=self._clock(),
            node=self.node,
            hostname=_short(hello.hostname),
            cpus=hello.cpus,
            memory_bytes=hello.memory_bytes,
            kernel=_short(hello.kernel),
            driver=_short(hello.driver),
            booted_at=None if hello.booted_at is None else hello.booted_at - self.host_clock.offset,
            gpu_pci=_addresses(hello.gpu_pci),
            gpus_visible=None if self._schema is None else sum(gpu.mig is None for gpu in self._gpus),
            clock_offset_s=round(self.host_clock.offset, 3),
            problem=_short(hello.problem) or "",
        )
        self._tell_reboot(fact)
        self._told = fact
        self._tell(fact)

    def _tell_reboot(self, fact: NodeFact) -> None:
        before = self._told.booted_at if self._told else None
        if before is not None and fact.booted_at is not None and fact.booted_at - before > REBOOT_S:
            detail = f"it started {max(fact.at - fact.booted_at, 0):.0f} s ago"
            self._tell(Event(fact.booted_at, NodeRef(self.node), "reboot", detail))

    def _learn_clock(self, theirs: float) -> None:
        jump = self.host_clock.learn(theirs, self._clock())
        if jump:
            detail = f"the node's clock jumped by {jump:+.1f} s"
            self._tell(Event(self._clock(), NodeRef(self.node), "clock_jump", detail))
        told = self._told.clock_offset_s if self._told else None
        if told is not None and abs(told - self.host_clock.offset) > CLOCK_TOLD_S:
            self._tell_node()

    # what it has

    def _take_schema(self, schema: frames.Schema) -> bool:
        lists: tuple[Sequence[object], ...] = (schema.gpus, schema.ports, schema.disks)
        columns = (schema.gpu_metrics, schema.node_metrics, schema.port_metrics, schema.disk_metrics)
        if (
            max(len(rows) for rows in lists) > MAX_ENTITIES
            or max(len(keys) for keys in columns) > MAX_METRICS
        ):
            return False
        node = self.node
        self._gpus = tuple(_gpu_ref(node, gpu) for gpu in schema.gpus)
        ports = tuple(PortRef(node, _short(port) or "") for port in schema.ports)
        disks = tuple(DiskRef(node, _short(disk) or "") for disk in schema.disks)
        self._lay_out(
            {
                Kind.NODE: _part(Kind.NODE, (NodeRef(node),), schema.node_metrics),
                Kind.GPU: _part(Kind.GPU, self._gpus, schema.gpu_metrics),
                Kind.PORT: _part(Kind.PORT, ports, schema.port_metrics),
                Kind.DISK: _part(Kind.DISK, disks, schema.disk_metrics),
            }
        )
        self._schema = schema.id
        self._tell_node()
        for ref, gpu in zip(self._gpus, schema.gpus, strict=True):
            self._tell(_gpu_fact(self._clock(), ref, gpu))
        return True

    def _lay_out(self, parts: dict[Kind, Part]) -> None:
        same = {
            kind: part
            for kind, part in parts.items()
            if kind in self.parts and self.parts[kind][:3] == part[:3]
        }
        if len(same) != len(parts):
            self.version += 1
            self.pending = {kind: reading for kind, reading in self.pending.items() if kind in same}
        self.parts = {kind: self.parts[kind] if kind in same else part for kind, part in parts.items()}
        self.why = {
            kind: np.full((len(part.entities), len(part.metrics)), Missing.NOT_SAMPLED, dtype=np.uint8)
            for kind, part in self.parts.items()
        }
        self.why_version += 1

    # what it reads

    def _take_sample(self, sample: frames.Sample) -> bool:
        if sample.schema != self._schema:
            return False
        try:
            readings = {kind: _matrix(rows, self.parts[kind], np.float32) for kind, rows in _values(sample)}
            why = {kind: _matrix(rows, self.parts[kind], np.uint8) for kind, rows in _whys(sample)}
            seconds = {kind: _seconds(sample, kind, len(self.parts[kind].entities)) for kind in readings}
        except (ValueError, OverflowError, TypeError):
            return False
        for kind, values in readings.items():
            reading = Reading(values, seconds[kind])
            self.pending[kind] = _merged(self.pending.get(kind), reading, self.parts[kind])
        if why:
            self.why.update(why)
            self.why_version += 1
        self._arrived(sample)
        return True

    def _arrived(self, sample: frames.Sample) -> None:
        now = self._clock()
        self._learn_clock(sample.t)
        delay = max(0.0, now - (sample.t - self.host_clock.offset))
        self.latency_s = delay + min(max(0.0, sample.took or 0.0), MAX_INTERVAL_S)
        self.heard_at = now
        self.samples += 1
        self._events = 0

    def _take_processes(self, frame: frames.Processes) -> None:
        processes = tuple(
            Process(
                self._gpus[proc.gpu],
                proc.pid,
                _short(proc.user),
                _short(proc.command),
                proc.memory_bytes,
                proc.sm,
                proc.ports[:MAX_PORTS],
            )
            for proc in frame.processes[:MAX_PROCESSES]
            if 0 <= proc.gpu < len(self._gpus)
        )
        self._tell(ProcessFact(self._ours(frame.t), self.node, processes))

    def _take_event(self, event: frames.Happening) -> None:
        self._events += 1
        if self._events > MAX_EVENTS:
            return
        known = event.gpu is not None and 0 <= event.gpu < len(self._gpus)
        entity: EntityRef = self._gpus[event.gpu] if known and event.gpu is not None else NodeRef(self.node)
        told = Event(self._ours(event.t), entity, _short(event.kind) or "", _short(event.detail) or "")
        if not any(_same_event(told, before) for before in self._recent):
            self._recent.append(told)
            self._tell(told)

    def _ours(self, theirs: float) -> float:
        """A host's time by our clock; never in our future, which a wrong one could be."""
        return min(theirs - self.host_clock.offset, self._clock())


def _same_event(one: Event, other: Event) -> bool:
    """Whether both are one happening: a probe that comes again reads a piece of the kernel log twice."""
    same = (one.entity, one.kind, one.detail) == (other.entity, other.kind, other.detail)
    return same and abs(one.at - other.at) < SAME_EVENT_S


def _short(text: str | None) -> str | None:
    return text[:MAX_TEXT] if text is not None else None


def _addresses(addresses: Sequence[str] | None) -> tuple[str, ...] | None:
    if addresses is None:
        return None
    normal = (normal_pci(address) for address in addresses[:MAX_ENTITIES])
    return tuple(sorted({address for address in normal if address is not None}))


def _gpu_ref(node: str, gpu: frames.Gpu) -> GpuRef:
    pci = normal_pci(gpu.pci) if gpu.pci else None
    return GpuRef(
        node, _short(gpu.uuid), pci, gpu.minor, gpu.index, _short(gpu.mig) or None, _short(gpu.mig_uuid)
    )


def _gpu_fact(at: float, ref: GpuRef, gpu: frames.Gpu) -> GpuFact:
    return GpuFact(
        at=at,
        gpu=ref,
        model=_short(gpu.model),
        memory_bytes=gpu.memory_bytes,
        power_limit_w=gpu.power_limit_w,
        power_max_w=gpu.power_max_w,
        slowdown_c=gpu.slowdown_c,
        mig_profile=_short(gpu.mig_profile),
        mig_enabled=gpu.mig_enabled,
        serial=_short(gpu.serial),
        fabric=_short(gpu.fabric),
    )


def _part(kind: Kind, entities: tuple[EntityRef, ...], sent: Sequence[str]) -> Part:
    ours = catalog()
    first = {key: place for place, key in reversed(list(enumerate(sent)))}
    metrics = tuple(key for key in dict.fromkeys(sent) if key in ours and ours[key].kind is kind)
    known = np.array([first[key] for key in metrics], dtype=np.intp)
    rates = np.array([ours[key].is_rate for key in metrics], dtype=np.bool_)
    return Part(entities, metrics, len(sent), None if len(metrics) == len(sent) else known, rates)


Number = TypeVar("Number", np.float32, np.uint8)
Rows: TypeAlias = Sequence[Sequence[float | None]] | Sequence[Sequence[int]]


def _values(sample: frames.Sample) -> Iterable[tuple[Kind, Rows]]:
    return (
        (Kind.NODE, [sample.node]),
        (Kind.GPU, sample.gpu),
        (Kind.PORT, sample.port),
        (Kind.DISK, sample.disk),
    )


def _whys(sample: frames.Sample) -> Iterator[tuple[Kind, Rows]]:
    if sample.node_why is not None:
        yield Kind.NODE, [sample.node_why]
    for kind, rows in (
        (Kind.GPU, sample.gpu_why),
        (Kind.PORT, sample.port_why),
        (Kind.DISK, sample.disk_why),
    ):
        if rows is not None:
            yield kind, rows


def _matrix(rows: Rows, part: Part, dtype: type[Number]) -> NDArray[Number]:
    """Rows of a frame as [entity, metric]; ValueError where they are not what the schema said."""
    shape = (len(part.entities), part.width)
    if not part.entities or not part.width:
        if any(rows):
            raise ValueError("readings of nothing")
        return np.empty((len(part.entities), len(part.metrics)), dtype=dtype)
    with np.errstate(over="ignore"):  # a number beyond float32 becomes Inf, and Inf a blank
        array = np.array(rows, dtype=dtype)
    if array.shape != shape:
        raise ValueError(f"{array.shape} is not {shape}")
    return array if part.known is None else array[:, part.known]


def _seconds(sample: frames.Sample, kind: Kind, count: int) -> Floats:
    """[entity]: what a sample's rates cover, NaN where it does not say; ValueError as :func:`_matrix`."""
    own = sample.gpu_dt if kind is Kind.GPU else None
    if own is not None and len(own) != count:
        raise ValueError(f"the intervals of {len(own)} GPUs, not of {count}")
    seconds = np.array([sample.dt] * count if own is None else own, dtype=np.float64)
    seconds[~((seconds > 0) & (seconds < MAX_INTERVAL_S))] = np.nan
    return seconds.astype(np.float32)


def _merged(before: Reading | None, new: Reading, part: Part) -> Reading:
    """Two samples of one tick as one: the newer values, and rates as their mean, weighted by time."""
    if before is None:
        return new
    seconds = before.seconds + new.seconds
    with np.errstate(over="ignore", invalid="ignore"):  # Inf is a blank later
        weight = (before.seconds / seconds)[:, np.newaxis]
        mean = before.values * weight + new.values * (1 - weight)
    use = part.rates[np.newaxis, :] & ~np.isnan(mean)
    return Reading(
        np.where(use, mean, new.values).astype(np.float32),
        np.where(np.isnan(seconds), new.seconds, seconds),
    )


@dataclass(slots=True)
class Slot:
    """Where one host stands in a kind's matrix."""

    stream: HostStream
    rows: slice
    columns: slice | Positions


@dataclass(slots=True)
class Layout:
    """One kind of all hosts together; lives as long as no host changes what it has."""

    entities: tuple[EntityRef, ...]
    metrics: tuple[str, ...]
    slots: list[Slot]
    low: Floats
    high: Floats
    base: Codes
    """[entity, metric]: why a value is missing, if it is."""
    reasons: Codes
    """As last emitted: the same object while nothing changes."""


class Fleet:
    """Many hosts as one source: their streams, and one batch per kind and tick."""

    def __init__(
        self, nodes: Iterable[str], clock: Clock, tell: Callable[[Item], None], interval: float = 2.0
    ) -> None:
        self.interval = interval
        self.streams: Mapping[str, HostStream] = {
            node: HostStream(node, clock, tell, interval) for node in nodes
        }
        self._layouts: dict[Kind, Layout] = {}
        self._version: tuple[int, ...] = ()
        self._why: tuple[tuple[int, bool], ...] = ()

    def tick(self, at: float) -> list[Batch]:
        """Everything that came since the last tick; empty while no host has said what it has."""
        self._follow_layout()
        self._follow_reasons()
        return [self._batch(at, kind, layout) for kind, layout in self._layouts.items()]

    def _follow_layout(self) -> None:
        version = tuple(stream.version for stream in self.streams.values())
        if version == self._version:
            return
        self._version, self._why = version, ()
        for kind in KINDS:
            layout = _layout(kind, self.streams.values(), self._layouts.get(kind))
            if layout is not None:
                self._layouts[kind] = layout
            else:
                self._layouts.pop(kind, None)

    def _follow_reasons(self) -> None:
        why = tuple((stream.why_version, stream.lost) for stream in self.streams.values())
        if why == self._why:
            return
        self._why = why
        for kind, layout in self._layouts.items():
            layout.base = _base_reasons(kind, layout)

    def _batch(self, at: float, kind: Kind, layout: Layout) -> Batch:
        values = np.full((len(layout.entities), len(layout.metrics)), np.nan, dtype=np.float32)
        intervals = np.full(len(layout.entities), self.interval, dtype=np.float32)
        for slot in layout.slots:
            reading = slot.stream.pending.pop(kind, None)
            if reading is not None:
                values[slot.rows, slot.columns] = reading.values
                is_told = ~np.isnan(reading.seconds)
                intervals[slot.rows][is_told] = reading.seconds[is_told]
        reasons = _reasons(values, layout)
        return Batch(at, kind, layout.entities, layout.metrics, values, reasons, intervals)


def _reasons(values: Floats, layout: Layout) -> Codes:
    """Blank what lies outside the catalogue's range, in place, and say why each missing value is missing."""
    blank = (values < layout.low) | (values > layout.high)
    values[blank] = np.nan
    reasons = np.where(np.isnan(values), layout.base, np.uint8(Missing.PRESENT))
    reasons[blank] = Missing.BLANK
    if not np.array_equal(reasons, layout.reasons):
        layout.reasons = reasons
    return layout.reasons


def _base_reasons(kind: Kind, layout: Layout) -> Codes:
    base = np.full((len(layout.entities), len(layout.metrics)), Missing.NOT_SUPPORTED, dtype=np.uint8)
    for slot in layout.slots:
        if slot.stream.lost:
            base[slot.rows] = Missing.UNREACHABLE
        else:
            base[slot.rows, slot.columns] = slot.stream.why[kind]
    return base


@cache
def _order() -> Mapping[str, int]:
    return {key: place for place, key in enumerate(catalog())}


def _layout(kind: Kind, streams: Iterable[HostStream], before: Layout | None) -> Layout | None:
    """All hosts' entities and the union of their metrics, in the catalogue's order; None: there are none."""
    having = [stream for stream in streams if kind in stream.parts and stream.parts[kind].entities]
    union = {key for stream in having for key in stream.parts[kind].metrics}
    metrics = tuple(sorted(union, key=_order().__getitem__))
    if not having or not metrics:
        return None
    column = {key: place for place, key in enumerate(metrics)}
    slots, start = [], 0
    for stream in having:
        part = stream.parts[kind]
        rows = slice(start, start + len(part.entities))
        start = rows.stop
        slots.append(Slot(stream, rows, _columns([column[key] for key in part.metrics], len(metrics))))
    entities = tuple(ref for stream in having for ref in stream.parts[kind].entities)
    if before is not None and before.entities == entities:
        entities = before.entities
    if before is not None and before.metrics == metrics:
        metrics = before.metrics
    ours = catalog()
    nothing = np.zeros((0, 0), dtype=np.uint8)
    low = np.array([ours[key].low for key in metrics], dtype=np.float32)
    high = np.array([ours[key].high for key in metrics], dtype=np.float32)
    return Layout(entities, metrics, slots, low, high, nothing, nothing)


def _columns(places: list[int], width: int) -> slice | Positions:
    """The places as an index; as a slice, which is cheaper, where they are all of the columns in order."""
    return slice(None) if places == list(range(width)) else np.array(places, dtype=np.intp)
