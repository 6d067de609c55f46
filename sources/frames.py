"""What a probe says, decoded: one JSON object a line, after a record separator.

A login shell may print anything before or between; only lines that begin with the record separator
(RS, 0x1e, as in RFC 7464) are ours. ``probe.py`` writes them, on Python 3.6 and later.
"""

from __future__ import annotations

from typing import TypeAlias

import msgspec

RECORD = b"\x1e"
MAX_LINE = 2_000_000
"""Bytes; a longer line is not a probe's."""


class Hello(msgspec.Struct, tag="hello", tag_field="k"):
    """The first line: who speaks. Also sent again when one of these changes (driver reloaded)."""

    t: float
    """The host's clock, seconds since the epoch."""
    probe: int
    """Version of this protocol."""
    python: str
    hostname: str
    fqdn: str | None = None
    user: str | None = None
    kernel: str | None = None
    cpus: int | None = None
    memory_bytes: int | None = None
    booted_at: float | None = None
    driver: str | None = None
    nvml: str | None = None
    """NVML library version, if it loaded."""
    gpu_pci: list[str] | None = None
    """All GPUs the kernel driver lists, also those this user may not open."""
    problem: str = ""
    """Why there are no GPU readings, with what to do; empty: there are, or there is no NVIDIA hardware."""
    remedy: str = ""


class Gpu(msgspec.Struct):
    """One GPU or MIG instance of the schema, in the order of the rows to come. See source.GpuRef, GpuFact."""

    index: int | None = None
    uuid: str | None = None
    pci: str | None = None
    minor: int | None = None
    mig: str | None = None
    mig_uuid: str | None = None
    mig_profile: str | None = None
    mig_enabled: bool | None = None
    model: str | None = None
    memory_bytes: int | None = None
    power_limit_w: float | None = None
    power_max_w: float | None = None
    slowdown_c: float | None = None
    serial: str | None = None
    fabric: str | None = None


class Schema(msgspec.Struct, tag="schema", tag_field="k"):
    """The rows and columns of the samples that follow; sent at the start and when one changes."""

    id: int
    gpus: list[Gpu]
    gpu_metrics: list[str]
    node_metrics: list[str]
    ports: list[str]
    port_metrics: list[str]
    disks: list[str]
    disk_metrics: list[str]


class Sample(msgspec.Struct, tag="sample", tag_field="k"):
    """One poll. Matrices are [entity][metric]; null is missing. ``*_why`` holds source.Missing codes and
    is sent only when it differs from the last one sent for this schema."""

    t: float
    schema: int
    dt: float | None
    """Seconds that this sample's rates cover; null in the first."""
    gpu_dt: list[float | None] | None = None
    """The same for each GPU, where one differs (it hung, or was lost); None: ``dt`` holds for all."""
    gpu: list[list[float | None]] = []
    node: list[float | None] = []
    port: list[list[float | None]] = []
    disk: list[list[float | None]] = []
    gpu_why: list[list[int]] | None = None
    node_why: list[int] | None = None
    port_why: list[list[int]] | None = None
    disk_why: list[list[int]] | None = None
    took: float | None = None
    """Seconds the poll took on the host."""


class Happening(msgspec.Struct, tag="event", tag_field="k"):
    """An event: ``xid``, ``oom``, ``gpu_lost``, ``link_down``, ... ``gpu`` is a row of the schema, or null: the node's."""

    t: float
    kind: str
    detail: str
    gpu: int | None = None


class Proc(msgspec.Struct):
    """A process on a GPU; ``gpu`` is a row of the schema."""

    gpu: int
    pid: int
    user: str | None = None
    command: str | None = None
    memory_bytes: int | None = None
    sm: float | None = None
    ports: tuple[int, ...] = ()


class Processes(msgspec.Struct, tag="processes", tag_field="k"):
    """All processes on the GPUs; sent when they change."""

    t: float
    processes: list[Proc]


Frame: TypeAlias = Hello | Schema | Sample | Happening | Processes

_decoder = msgspec.json.Decoder(Hello | Schema | Sample | Happening | Processes)


def decode(line: bytes) -> Frame | None:
    """One line of a probe's output; None if it is not ours (a login banner). msgspec.DecodeError if it is cut."""
    if not line.startswith(RECORD):
        return None
    frame: Frame = _decoder.decode(line[1:])
    return frame
