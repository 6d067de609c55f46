"""Replay of real incidents: the GWDG GPU incident data set (Zenodo 10.5281/zenodo.19052367, CC-BY-4.0).

Each file holds about ten days of one A100 node of four boards, a sample every ten minutes, in long form: dcgm-exporter's
default fields (no profiling, no clock-event bits, no power limit), node_exporter and InfiniBand; nobody tells of jobs. It
is not part of this project: the folder ``gwdg`` is looked for in that of the environment variable COLDAISLE_TRACES.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from benchmarks.quality.watching import Seen, Watched, watch
from coldaisle.analyzers.finding import Severity
from coldaisle.sources.source import Batch, EntityRef, GpuFact, GpuRef, Item, Kind, NodeFact, NodeRef, PortRef

POLL_S = 600.0
WINDOW_S = 9 * POLL_S


class Field(NamedTuple):
    """What a series of the data set means here."""

    key: str
    factor: float = 1.0
    is_rate: bool = False
    """A counter: its increase a second counts."""


_DCGM = {
    "XID_ERRORS": Field("gpu.xid_last"), "SM_CLOCK": Field("gpu.sm_clock"), "MEM_CLOCK": Field("gpu.mem_clock"),
    "POWER_USAGE": Field("gpu.power"), "GPU_UTIL": Field("gpu.util", 0.01), "MEM_COPY_UTIL": Field("gpu.mem_util", 0.01),
    "GPU_TEMP": Field("gpu.temp"), "MEMORY_TEMP": Field("gpu.mem_temp"), "FB_USED": Field("gpu.mem_used", 2.0**20),
    "FB_FREE": Field("gpu.mem_free", 2.0**20), "TOTAL_ENERGY_CONSUMPTION": Field("gpu.energy", 1e-3, True),
    "NVLINK_BANDWIDTH_TOTAL": Field("gpu.nvlink_bandwidth", 1e6), "PCIE_REPLAY_COUNTER": Field("gpu.pcie_replay", 1.0, True),
    "CORRECTABLE_REMAPPED_ROWS": Field("gpu.remapped_correctable"), "ROW_REMAP_FAILURE": Field("gpu.remap_failure"),
    "UNCORRECTABLE_REMAPPED_ROWS": Field("gpu.remapped_uncorrectable"),
}  # fmt: skip
_NODE = {
    "node_load1": Field("node.load1"), "node_memory_MemTotal_bytes": Field("node.mem_total"),
    "node_memory_MemAvailable_bytes": Field("node.mem_available"), "node_vmstat_oom_kill": Field("node.oom_kills", 1.0, True),
    "node_procs_blocked": Field("node.procs_blocked"), "ipmi_dcmi_power_consumption_watts": Field("node.power"),
}  # fmt: skip
_PORT = {
    "port_data_received_bytes_total": Field("port.rx", 1.0, True), "state_id": Field("port.state"),
    "port_data_transmitted_bytes_total": Field("port.tx", 1.0, True), "rate_bytes_per_second": Field("port.rate"),
    "port_transmit_wait_total": Field("port.xmit_wait", 1.0, True), "symbol_error_total": Field("port.symbol_errors", 1.0, True),
    "link_downed_total": Field("port.link_downed"), "link_error_recovery_total": Field("port.link_recovery"),
    "port_errors_received_total": Field("port.rcv_errors", 1.0, True),
}  # fmt: skip
FIELDS: dict[Kind, dict[str, Field]] = {
    Kind.GPU: {f"DCGM_FI_DEV_{name}": field for name, field in _DCGM.items()},
    Kind.NODE: _NODE,
    Kind.PORT: {f"node_infiniband_{name}": field for name, field in _PORT.items()},
}


@dataclass(frozen=True, slots=True)
class Incident:
    """One file, and what its data show."""

    file: str
    """Of the folder, without ``_tidy.csv.bz2``."""
    lost: tuple[int, ...] = ()
    """Boards that fell off the bus."""
    lost_at: str = ""
    """The first sample with XID 79, UTC."""
    back_at: str = ""
    """The first one after the node was started again."""
    hot: tuple[int, ...] = ()
    """Boards that really were too hot: the lost one, and its hot sibling."""
    full: tuple[int, ...] = ()
    """Boards whose memory really grew to 99 %, for whatever came of it."""
    silent_from: str = ""
    """The first sample that is missing because the monitoring was down, together with other nodes."""

    @property
    def node(self) -> str:
        return self.file.partition("_")[0]


INCIDENTS = (
    Incident("ggpu129_2026-01-09_gpu-lost", (3,), "2026-01-07 23:10", "2026-01-11 13:40", hot=(2, 3)),
    Incident("ggpu139_2025-03-21_gpus-dropped-off-bus-maybe", (0, 1, 2, 3), "2025-03-19 09:10", "2025-03-19 10:40", silent_from="2025-03-21 12:00"),
    Incident("ggpu142_2025-03-15_unknown-error-possibly-nongpu", (0, 1, 2, 3), "2025-03-15 13:50", "2025-03-17 15:10"),
    Incident("ggpu142_2025-09-12_gpus-dropped-off-bus", (0, 1, 2, 3), "2025-09-08 12:20", "2025-09-12 11:50"),
    Incident("ggpu143_2025-03-21_gpu-problem", silent_from="2025-03-21 12:00"),
    Incident("ggpu149_2025-06-12_gpus-dropped-off-bus", (0, 1, 2, 3), "2025-06-11 16:10", "2025-06-12 16:00", full=(1, 2)),
)  # fmt: skip


def seconds(utc: str) -> float:
    """``2026-01-07 23:10`` in seconds since the epoch."""
    return float(pd.Timestamp(utc, tz="UTC").timestamp())


def path_of(root: Path, incident: Incident) -> Path:
    return root / "gwdg" / f"{incident.file}_tidy.csv.bz2"


def items(path: Path) -> Iterator[Item]:
    """What a source would have told, in time order: facts first, then a batch a kind and instant."""
    node = path.name.partition("_")[0]
    table = pd.read_csv(
        path, usecols=["timeUtc", "metric", "value", "gpu", "device", "uuid", "modelName"], low_memory=False
    )
    wanted = {name for fields in FIELDS.values() for name in fields}
    table = table[table["metric"].isin(wanted)]
    table = table.assign(at=_as_seconds(table["timeUtc"]))
    batches = sorted(
        (batch for kind in FIELDS for batch in _batches(kind, node, table)), key=lambda batch: batch.at
    )
    yield from _facts(node, table, batches[0].at)
    yield from batches


def _as_seconds(texts: pd.Series[str]) -> pd.Series[float]:
    unique = pd.Series(texts.unique())
    stamps = pd.to_datetime(unique, utc=True)
    known = dict(zip(unique, (stamp.timestamp() for stamp in stamps), strict=True))
    return texts.map(known)


def _facts(node: str, table: pd.DataFrame, at: float) -> Iterator[Item]:
    yield NodeFact(at, node, hostname=node)
    boards = table[table["metric"] == "DCGM_FI_DEV_GPU_TEMP"]
    for ref in _gpu_refs(node, table).values():
        yield GpuFact(at, ref, model=str(boards["modelName"].iloc[0]))


def _gpu_refs(node: str, table: pd.DataFrame) -> dict[str, GpuRef]:
    """By the exporter's index."""
    boards = table[table["metric"] == "DCGM_FI_DEV_GPU_TEMP"].drop_duplicates("gpu").sort_values("gpu")
    return {
        str(int(index)): GpuRef(node, str(uuid), f"0000:{0x10 + int(index):02x}:00.0", int(index), int(index))
        for index, uuid in zip(boards["gpu"], boards["uuid"], strict=True)
    }


def _batches(kind: Kind, node: str, table: pd.DataFrame) -> Iterator[Batch]:
    """Everything of one kind; rates over the true interval, none across a counter that fell back."""
    fields = FIELDS[kind]
    rows = table[table["metric"].isin(list(fields))]
    refs = _refs(kind, node, rows)
    entity = _entity(kind, rows)
    cells = rows.assign(entity=entity).pivot_table(
        index="at", columns=["entity", "metric"], values="value", aggfunc="last"
    )
    times = cells.index.to_numpy(dtype=np.float64)
    keys = tuple(field.key for field in fields.values())
    values = np.full((len(times), len(refs), len(keys)), np.nan)
    for place, name in enumerate(refs):
        for column, (metric, field) in enumerate(fields.items()):
            if (name, metric) in cells:
                values[:, place, column] = _told(cells[name, metric].to_numpy(), times, field)
    keys, values = _with_ratios(kind, keys, values)
    subsets: dict[bytes, tuple[EntityRef, ...]] = {}
    for at, row in zip(times.tolist(), values.astype(np.float32), strict=True):
        there = np.asarray(~np.isnan(row).all(axis=1))
        some = subsets.setdefault(
            there.tobytes(),
            tuple(ref for ref, is_there in zip(refs.values(), there, strict=True) if is_there),
        )
        if some:
            yield Batch(at, kind, some, keys, row[there])


def _refs(kind: Kind, node: str, rows: pd.DataFrame) -> Mapping[str, EntityRef]:
    if kind is Kind.GPU:
        return _gpu_refs(node, rows)
    if kind is Kind.NODE:
        return {node: NodeRef(node)}
    return {str(device): PortRef(node, f"{device}/1") for device in sorted(rows["device"].unique())}


def _entity(kind: Kind, rows: pd.DataFrame) -> pd.Series[str] | str:
    if kind is Kind.GPU:
        return rows["gpu"].astype(float).astype(int).astype(str)
    if kind is Kind.NODE:
        return ""
    return rows["device"].astype(str)


def _told(values: np.ndarray, times: np.ndarray, field: Field) -> np.ndarray:
    if not field.is_rate:
        return values * field.factor
    grown = np.diff(values, prepend=np.nan) / np.diff(times, prepend=np.nan)
    return np.where(grown >= 0, grown * field.factor, np.nan)


def _with_ratios(kind: Kind, keys: tuple[str, ...], values: np.ndarray) -> tuple[tuple[str, ...], np.ndarray]:
    """Shares of memory, as the vocabularies make them."""
    if kind is Kind.GPU:
        used, free = (values[..., keys.index(key)] for key in ("gpu.mem_used", "gpu.mem_free"))
        share = used / np.where(used + free > 0, used + free, np.nan)
        return (*keys, "gpu.mem_ratio"), np.concatenate([values, share[..., None]], axis=2)
    if kind is Kind.NODE:
        total, left = (values[..., keys.index(key)] for key in ("node.mem_total", "node.mem_available"))
        return (*keys, "node.mem_ratio"), np.concatenate([values, (1 - left / total)[..., None]], axis=2)
    return keys, values


# --- what came of it ------------------------------------------------------------------------------


class Replayed(NamedTuple):
    """One incident as the program saw it. Instants in seconds since the epoch; None: not seen."""

    incident: Incident
    watched: Watched

    def first(self, detector: str, *, variants: Iterable[str] = (), after: float = -np.inf) -> float | None:
        """When a finding of a detector was first a warning or worse."""
        times = [
            seen.first_loud
            for seen in self.watched.seen.values()
            if seen.finding.detector == detector
            and seen.first_loud is not None
            and seen.first_loud >= after
            and (not variants or seen.finding.variant in variants)
        ]
        return min(times, default=None)

    def false(self) -> dict[str, Seen]:
        """Warnings or worse that the incident does not account for: by id."""
        return {key: seen for key, seen in self.watched.seen.items() if not self._is_true(seen)}

    def _is_true(self, seen: Seen) -> bool:
        told, of = seen.finding, self.incident
        if seen.worst < Severity.WARNING:
            return True
        # What corpses do is no measure, nor what lies in the same window.
        is_dead = bool(of.lost) and seconds(of.lost_at) <= seen.first <= seconds(of.back_at) + WINDOW_S
        if told.detector == "gpu_fault":
            return is_dead
        if told.scope.gpus and set(told.scope.gpus) <= {f"{of.node}/{gpu}" for gpu in of.hot}:
            return True  # it is hot, and whoever works with it waits for it
        if told.detector == "memory_exhaustion" and set(told.scope.gpus) <= {
            f"{of.node}/{gpu}" for gpu in of.full
        }:
            return True
        return told.detector == "telemetry_gap" or is_dead  # a gap is one, whatever it comes from


def replay(root: Path, incident: Incident, only: frozenset[str] | None = None) -> Replayed:
    """Fold the whole diagnosis over a file; ``only``: of these detectors."""
    return Replayed(incident, watch(items(path_of(root, incident)), POLL_S, only))


def replay_rows(root: str | None) -> str:
    """A Markdown table of all incidents."""
    if not root or not (Path(root) / "gwdg").is_dir():
        return "Real incidents: COLDAISLE_TRACES names no folder with `gwdg` in it.\n"
    lines = [
        "| incident | GPU-hours | fault found after XID 79 | thermal found before it | gap found | false |",
        "|---|---|---|---|---|---|",
    ]
    for incident in INCIDENTS:
        done = replay(Path(root), incident)
        lines.append(
            f"| {incident.file} | {done.watched.gpu_hours:,.0f} | {_fault(done)} | {_thermal(done)} | {_gap(done)} "
            f"| {', '.join(done.false()) or 'none'} |"
        )
    return "\n".join(lines) + "\n"


def _fault(done: Replayed) -> str:
    if not done.incident.lost:
        return "no fault" if done.first("gpu_fault") is None else "a false one"
    lost_at = seconds(done.incident.lost_at)
    found = done.first("gpu_fault", after=lost_at)
    return "missed" if found is None else f"{(found - lost_at) / 60:.0f} min"


def _thermal(done: Replayed) -> str:
    if not done.incident.hot:
        return "-"
    found = done.first("thermal_throttling")
    return "missed" if found is None else f"{(seconds(done.incident.lost_at) - found) / 3600:.0f} h"


def _gap(done: Replayed) -> str:
    if not done.incident.silent_from:
        return "-"
    began = seconds(done.incident.silent_from)
    found = done.first("telemetry_gap", after=began)
    return "missed" if found is None else f"{(found - began) / 60:.0f} min"
