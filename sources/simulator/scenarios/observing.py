"""How sources see a world: at a poll, through a set of fields, with jitter, gaps and stuck feeds; as the items that they give."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np

from coldaisle.sources.simulator.plan import Bools
from coldaisle.sources.simulator.scenarios.columns import Columnist, Columns, feeds_of
from coldaisle.sources.simulator.scenarios.labels import Observed
from coldaisle.sources.simulator.scenarios.pieces import CONSTANT, SLOTS, STUCK, Told
from coldaisle.sources.simulator.scenarios.truth import Names, job_id
from coldaisle.sources.simulator.scenarios.world import Recorded, Stage
from coldaisle.sources.source import (
    Batch,
    EntityRef,
    Event,
    Floats,
    GpuFact,
    GpuRef,
    Item,
    JobFact,
    JobRef,
    Kind,
    NodeFact,
    NodeRef,
    PortRef,
    ServerFact,
    ServerRef,
    Target,
    TargetState,
)

PROFILING = frozenset(
    {"gpu.sm_active", "gpu.sm_occupancy", "gpu.tensor_active", "gpu.dram_active", "gpu.gr_active"}
)
"""Needs DCGM's profiling module; NVML has link traffic without it."""
DEFAULT = frozenset(
    {"gpu.sm_clock", "gpu.mem_clock", "gpu.temp", "gpu.mem_temp", "gpu.power", "gpu.energy", "gpu.util", "gpu.mem_util",
     "gpu.xid_last", "gpu.mem_used", "gpu.mem_free", "gpu.mem_reserved", "gpu.mem_total", "gpu.mem_ratio",
     "gpu.nvlink_bandwidth", "gpu.pcie_replay", "gpu.remapped_uncorrectable", "gpu.remapped_correctable", "gpu.remap_failure"}
)  # fmt: skip
"""What dcgm-exporter exports by itself, with profiling commented out."""
NOT_OF_NVML = PROFILING | {"gpu.xid_last", "gpu.sm_occupancy", "gpu.nvlink_bandwidth"}
NOT_OF_DCGM = frozenset({"gpu.processes"})

_BLANK, _STALE, _MULTIPLEX, _TWICE = 0.001, 0.002, 0.004, 0.003
"""Chances a sample: blanked cells, a row told again, profiling fields without a value, a batch delivered twice."""
_STUCK, _RESTART = 0.001, 0.03
"""Chances a board and a node and twenty minutes: a feed stands for some polls, an exporter is started anew."""
_SPREAD = {"gpu.power": 0.008, "gpu.sm_active": 0.01, "gpu.tensor_active": 0.01, "gpu.dram_active": 0.01, "gpu.energy": 0.001,
           "gpu.nvlink_tx": 0.005, "gpu.nvlink_rx": 0.005, "gpu.pcie_rx": 0.03, "gpu.pcie_tx": 0.03, "node.cpu_util": 0.04,
           "node.nfs_read": 0.1, "node.nfs_write": 0.1, "node.net_rx": 0.1, "node.psi_cpu_some": 0.1, "node.psi_io_some": 0.1,
           "port.tx": 0.005, "port.rx": 0.005, "port.xmit_wait": 0.1, "port.symbol_errors": 0.3, "port.rcv_errors": 0.3}  # fmt: skip
"""Relative, of a measurement."""


class View:
    """One way to look at a recorded world."""

    def __init__(
        self, stage: Stage, recorded: Recorded, start: float, names: Names, observed: Observed, seed: int
    ) -> None:
        self.stage, self.start, self.observed, self.names = stage, start, observed, names
        self.draw = np.random.default_rng((stage.seed, 7, seed))
        self.feeds = feeds_of(stage)
        self.columns = Columnist(stage, recorded, observed.poll, self.feeds)
        nodes = names.nodes
        self.node_refs = tuple(NodeRef(node) for node in nodes)
        self.gpu_refs = tuple(_gpu_ref(stage.seed, nodes[g // SLOTS], g) for g in range(stage.gpus))
        self.port_refs = tuple(PortRef(nodes[g // SLOTS], f"mlx5_{g % SLOTS}/1") for g in range(stage.gpus))
        self.server_refs = tuple(ServerRef(name.partition(":")[0], name) for name in names.servers)
        self._frozen: dict[int, Floats] = {}
        self._last: Floats | None = None
        self._subsets: dict[bytes, tuple[EntityRef, ...]] = {}
        self._gaps, self._stuck = self._bad_luck()
        self._unsupported = self.draw.random(stage.gpus) < (0.01 if observed.noise else 0.0)
        self._was_silent = np.zeros(stage.nodes, dtype=np.bool_)

    def _bad_luck(self) -> tuple[list[tuple[int, float, float]], list[tuple[int, float, float]]]:
        """(node, from, until) of exporters that are started anew; (gpu, from, until) of feeds that stand."""
        if not self.observed.noise:
            return [], []
        seconds, poll = self.stage.seconds, self.observed.poll
        chance = seconds / 1200

        def some(count: int, odds: float, least: float, most: float) -> list[tuple[int, float, float]]:
            hit = np.flatnonzero(self.draw.random(count) < odds * chance)
            begins = self.draw.uniform(0, seconds, len(hit))
            lasts = self.draw.uniform(least, most, len(hit))
            return list(zip(hit.tolist(), begins.tolist(), (begins + lasts).tolist(), strict=True))

        return some(self.stage.nodes, _RESTART, poll, 2 * poll), some(
            self.stage.gpus, _STUCK, 2 * poll, 4 * poll
        )

    def items(self) -> Iterator[Item]:
        """Facts, then events and batches in time order."""
        yield from self._facts()
        told = sorted(self._events(), key=lambda pair: pair[0])
        poll = self.observed.poll
        time = poll
        while time <= self.stage.seconds - 1:
            jitter = float(self.draw.uniform(-0.08, 0.08)) * poll if self.observed.noise else 0.0
            at = self.start + time + float(np.clip(jitter, -0.4, 0.4))
            while told and told[0][0] <= self.start + time:
                item = told.pop(0)[1]
                yield replace(item, at=at) if isinstance(item, Event) and item.at > at else item
            yield from self._batches(time, at)
            time += poll

    # --- what is said once -------------------------------------------------------------------------

    def _facts(self) -> Iterator[Item]:
        stage, start = self.stage, self.start
        rack_of = [self.names.racks[n] for n in stage.piece_of[::SLOTS].tolist()]
        for number, node in enumerate(self.names.nodes):
            pci = tuple(ref.pci or "" for ref in self.gpu_refs[number * SLOTS : (number + 1) * SLOTS])
            yield NodeFact(
                start, node, hostname=node, rack=rack_of[number], place="scenario", cpus=192, memory_bytes=2**41,
                driver="570.86.15", gpu_pci=pci,
            )  # fmt: skip
        yield from (Target(start, f"{node}:9400", TargetState.OK, (node,)) for node in self.names.nodes)
        tells_limits = self.observed.fields != "default"
        for number, ref in enumerate(self.gpu_refs):
            part = stage.pieces[int(stage.piece_of[number])].part
            yield GpuFact(
                start, ref, part.model, int(part.memory), None, part.power if tells_limits else None,
                part.slowdown if tells_limits else None,
            )  # fmt: skip
        if self.observed.jobs:
            yield from (
                self._job(n, None) for n, piece in enumerate(stage.pieces) if piece.program is not None
            )
        for number, server in enumerate(self.server_refs):
            piece, which = stage.servers[number]
            gpus = tuple(self.gpu_refs[g] for g in stage.server_gpus(piece, which).tolist())
            yield ServerFact(start, server, "vLLM", f"model-{piece}", f"service-{piece}", gpus=gpus)

    def _job(self, number: int, until: float | None) -> JobFact:
        piece = self.stage.pieces[number]
        gpus = self.stage.gpus_of(number, piece.job_gpus).tolist()
        nodes = tuple(dict.fromkeys(self.names.nodes[g // SLOTS] for g in gpus))
        return JobFact(
            self.start + piece.job_started, until, job_id(number), piece.name, f"{piece.user}{number}", nodes,
            tuple(self.gpu_refs[g] for g in gpus), partition="gpu", workload=piece.workload, gpu_count=len(gpus),
        )  # fmt: skip

    def _events(self) -> Iterator[tuple[float, Item]]:
        """With the instant at which each is told: an exporter shows at its next poll what a probe is told at once."""
        poll, start = self.observed.poll, self.start
        at_once = self.observed.fields == "nvml"
        for number, piece in enumerate(self.stage.pieces):
            for told in piece.told:
                if told.kind == "oom" and not self.observed.host:
                    continue
                at = told.at if at_once else poll * np.ceil(told.at / poll)
                yield (
                    start + at,
                    Event(start + at, self._entity(number, told), told.kind, _said(told, at_once)),
                )
            if self.observed.jobs and piece.job_ended is not None:
                at = start + piece.job_ended
                yield at, Event(at, JobRef(job_id(number)), "job_end", f"ended: {piece.end_reason}")
                yield at, self._job(number, at)
        for feed in self.feeds:
            if feed.feed.what == "gone" and self.observed.fields != "default":
                at = start + poll * float(np.ceil(feed.feed.start / poll))
                for gpu in feed.gpus.tolist():
                    yield at, Event(at, self.gpu_refs[gpu], "gpu_lost", "its exporter has it no more")

    def _entity(self, number: int, told: Told) -> EntityRef:
        gpus = self.stage.gpus_of(number)
        if told.gpu is None or told.kind == "oom":
            return self.node_refs[int(gpus[told.gpu or 0]) // SLOTS]
        return self.gpu_refs[int(gpus[told.gpu])]

    # --- batches -----------------------------------------------------------------------------------

    def _batches(self, time: float, at: float) -> Iterator[Item]:
        silent = self._silent(time)
        yield from self._targets(at, silent)
        yield from self._gpu_batches(time, at, silent.repeat(SLOTS))
        if self.observed.host:
            lost = silent | (self.draw.random(len(silent)) < self.observed.drops)
            yield self._made(at, Kind.NODE, self.node_refs, self.columns.node(time), lost)
            yield self._made(at, Kind.PORT, self.port_refs, self.columns.port(time), lost.repeat(SLOTS))
        if self.server_refs:
            drops = self.draw.random(len(self.server_refs)) < self.observed.drops
            yield self._made(at, Kind.SERVER, self.server_refs, self.columns.server(time), drops)

    def _silent(self, time: float) -> Bools:
        """[node] whose exporters do not answer."""
        silent = np.zeros(self.stage.nodes, dtype=np.bool_)
        for told in self.feeds:
            if told.feed.what == "node_gone" and told.acts(time):
                silent[told.nodes] = True
        for node, begins, ends in self._gaps:
            silent[node] |= begins <= time < ends
        return silent

    def _targets(self, at: float, silent: Bools) -> Iterator[Target]:
        for number in np.flatnonzero(silent != self._was_silent).tolist():
            node = self.names.nodes[number]
            state = TargetState.FAILING if silent[number] else TargetState.OK
            detail = "connection refused" if silent[number] else ""
            yield Target(at, f"{node}:9400", state, (node,), detail)
        self._was_silent = silent

    def _gpu_batches(self, time: float, at: float, silent: Bools) -> Iterator[Batch]:
        columns = {key: column for key, column in self.columns.gpu(time).items() if self._is_seen(key)}
        keys = tuple(columns)
        values = self._noisy(columns)
        values[self._unsupported, [keys.index("gpu.mem_temp")]] = np.nan
        self._freeze(time, keys, values)
        if self.observed.noise:
            self._blemish(keys, values)
        values[silent | (self.draw.random(len(values)) < self.observed.drops)] = np.nan
        self._last = values
        gone = np.zeros(len(values), dtype=np.bool_)
        for told in self.feeds:
            if told.feed.what == "gone" and told.acts(time):
                gone[told.gpus] = True
        batch = Batch(at, Kind.GPU, self._some(self.gpu_refs, ~gone), keys, values[~gone])
        yield batch
        if self.observed.noise and self.draw.random() < _TWICE:
            yield batch

    def _freeze(self, time: float, keys: Sequence[str], values: Floats) -> None:
        """Feeds that stand tell what they told last; a counter that stands has no rate."""
        frozen = {
            int(g): t.feed.value
            for t in self.feeds
            if t.feed.what == "frozen" and t.acts(time)
            for g in t.gpus
        }
        frozen |= {gpu: STUCK for gpu, begins, ends in self._stuck if begins <= time < ends}
        rates = [i for i, key in enumerate(keys) if key.endswith("_violation") or key == "gpu.pcie_replay"]
        for gpu, how in frozen.items():
            if gpu not in self._frozen:
                last = self._last
                whole = last is not None and not np.isnan(last[gpu]).all()
                self._frozen[gpu] = last[gpu].copy() if whole and last is not None else values[gpu].copy()
                if how != CONSTANT:
                    self._frozen[gpu][rates] = 0.0
                    self._frozen[gpu][keys.index("gpu.energy")] = 0.0 if how == STUCK else np.nan
            values[gpu] = self._frozen[gpu]
        for gpu in self._frozen.keys() - frozen.keys():
            del self._frozen[gpu]

    def _blemish(self, keys: Sequence[str], values: Floats) -> None:
        draw = self.draw
        values[draw.random(values.shape) < _BLANK] = np.nan
        prof = np.array([key in PROFILING for key in keys])
        values[(draw.random(len(values)) < _MULTIPLEX)[:, None] & prof] = np.nan
        if self._last is not None:
            again = draw.random(len(values)) < _STALE
            values[again] = self._last[again]

    def _noisy(self, columns: Columns) -> Floats:
        values = np.stack(list(columns.values()), axis=1).astype(np.float32)
        if self.observed.noise:
            for place, key in enumerate(columns):
                spread = _SPREAD.get(key)
                if spread:
                    values[:, place] *= 1 + spread * self.draw.standard_normal(len(values))
                    if key in PROFILING or key.startswith("node.psi") or key == "node.cpu_util":
                        values[:, place] = np.minimum(values[:, place], 1.0)
        for place, key in enumerate(columns):
            if key == "gpu.power":
                values[:, place] = np.round(values[:, place], 1)
        return values

    def _made(
        self, at: float, kind: Kind, refs: tuple[EntityRef, ...], columns: Columns, lost: Bools
    ) -> Batch:
        values = self._noisy(columns)
        values[lost] = np.nan
        return Batch(at, kind, refs, tuple(columns), values)

    def _some(self, refs: tuple[EntityRef, ...], which: Bools) -> tuple[EntityRef, ...]:
        if which.all():
            return refs
        key = which.tobytes()
        if key not in self._subsets:
            self._subsets[key] = tuple(ref for ref, yes in zip(refs, which.tolist(), strict=True) if yes)
        return self._subsets[key]

    def _is_seen(self, key: str) -> bool:
        match self.observed.fields:
            case "full":
                return key not in NOT_OF_DCGM
            case "nvml":
                return key not in NOT_OF_NVML
            case _:
                return key in DEFAULT


def _gpu_ref(seed: int, node: str, gpu: int) -> GpuRef:
    slot = gpu % SLOTS
    return GpuRef(node, f"GPU-{seed:08x}-{gpu:012x}", f"0000:{0x10 + 8 * slot:02x}:00.0", slot, slot)


def _said(told: Told, at_once: bool) -> str:
    """Kernel lines say more than an exporter's gauge of the last code."""
    if told.kind != "xid" or at_once:
        return told.detail
    return f"xid {told.detail.split()[1].rstrip(':,')}"
