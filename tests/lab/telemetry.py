"""Windows made of arrays, by the way that the program makes them: for tests of detectors.

``window_of(gpus=gpus("n01"), metrics={"gpu.power": watts})``: an array is [time, entity], or anything that broadcasts to it;
the last row lies at ``at``. Nothing is invented: there is what is named and nothing else.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from coldaisle.analyzers.detectors import Ready, detectors
from coldaisle.analyzers.diagnosis import Windows
from coldaisle.analyzers.finding import Candidate, Verdict
from coldaisle.analyzers.view import View
from coldaisle.analyzers.window import Window
from coldaisle.sources.catalog import catalog, kind_of
from coldaisle.sources.collector import Collector, SteadyClock
from coldaisle.sources.history import History
from coldaisle.sources.racks import RackRules
from coldaisle.sources.registry import Registry
from coldaisle.sources.source import (
    Batch,
    EntityRef,
    Event,
    GpuFact,
    GpuRef,
    Item,
    JobFact,
    JobRef,
    Kind,
    Missing,
    NodeFact,
    NodeRef,
    PortRef,
    RackRef,
    Rank,
    ServerFact,
    ServerRef,
)

AT = 1_772_331_180.0
"""A whole minute."""
STEP = 5.0
H100 = "NVIDIA H100 80GB HBM3"
POWER_W, MEMORY_BYTES = 700.0, 80 << 30


def gpus(*nodes: str, each: int = 8) -> tuple[str, ...]:
    """Keys of the boards of some nodes: ``n01/0``, ..."""
    return tuple(f"{node}/{slot}" for node in nodes for slot in range(each))


def gpu_ref(key: str) -> GpuRef:
    node, _, slot = key.partition("/")
    number = int(slot)
    return GpuRef(node, f"GPU-{node}-{slot}", f"0000:{0x10 + number:02x}:00.0", number, number)


def job(id: str, gpus: Sequence[str], *, since: float = AT - 7200.0, **more: Any) -> JobFact:
    """A Slurm job on some boards; ``job("4711", gpus("n01"))``."""
    nodes = tuple(dict.fromkeys(key.partition("/")[0] for key in gpus))
    told = {"until": None, "name": f"train-{id}", "user": "ana", **more}
    return JobFact(since, id=f"slurm:{id}", nodes=nodes, gpus=tuple(map(gpu_ref, gpus)), **told)


def xid(key: str, code: int, at: float = AT - 2.0, said: str = "of some kind") -> Event:
    """What a driver writes into the kernel's log."""
    return Event(at, gpu_ref(key), "xid", f"XID {code}: {said}")


def window_of(
    *,
    at: float = AT,
    step: float | Mapping[str, float] = STEP,
    gpus: Sequence[str] = (),
    nodes: Sequence[str] = (),
    ports: Sequence[str] = (),
    servers: Sequence[str] = (),
    racks: Mapping[str, str] | None = None,
    metrics: Mapping[str, ArrayLike],
    polls: int | None = None,
    jobs: Sequence[JobFact] = (),
    events: Sequence[Event] = (),
    facts: Iterable[Item] = (),
    model: str = H100,
    with_facts: bool = True,
    late: float = 0.0,
) -> Window:
    """The window that ends at ``at``.

    Args:
        step: seconds between samples, of all metrics or by kind (``{"gpu": 5.0, "node": 15.0}``).
        gpus, nodes, ports, servers: keys: ``n01/3``, ``n01``, ``n01/mlx5_0/1``, ``n01:8000``. Nodes of boards need not be named.
        racks: by node.
        metrics: by catalog key, NaN: missing. An entity without any value at an instant is not told of then.
        polls: rows of time; as many as the longest array has.
        facts: more items, taken after the others and before the samples.
        with_facts: whether nodes and boards are described (model, limit, PCI addresses), as probes do and exporters do not.
        late: seconds since the last sample.
    """
    source = _Told(step if isinstance(step, float) else min(step.values()))
    clock = _Clock(at)
    collector = Collector([source], History(), Registry({}), clock)
    view = View(collector, "lab", RackRules())
    refs = _refs(gpus, nodes, ports, servers, metrics)
    items: list[Item] = list(_facts(refs, racks or {}, model, at - 86400.0)) if with_facts else []
    items += [*_servers(refs, at - 86400.0), *jobs, *facts, *events]
    for kind in (key for key in refs if refs[key]):
        own = {key: value for key, value in metrics.items() if kind_of(key) is kind}
        every = step if isinstance(step, float) else step.get(str(kind), STEP)
        items += _batches(kind, refs[kind], own, polls, every, at - late)
    for item in sorted(items, key=_when):
        collector.take(collector.supervised[0], item)
    return Windows(view).at(view.snapshot(at, None))


def verdict(name: str, window: Window, **site: object) -> Verdict:
    """What one detector says of it; ``site``: thresholds to use instead of ours."""
    (ready,) = detectors({name: site}, frozenset({name}))
    return said_of(ready, window)


def said_of(ready: Ready, window: Window) -> Verdict:
    """What a detector says, as :func:`coldaisle.analyzers.diagnosis.verdict_of` asks it, but its mistakes are raised."""
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        said: Verdict = ready.module.detect(window, ready.thresholds)
    return said


def found(name: str, window: Window, **site: object) -> tuple[Candidate, ...]:
    """The same, its candidates alone."""
    return verdict(name, window, **site).candidates


def jitter(shape: tuple[int, ...], share: float = 0.01, seed: int = 1) -> NDArray[np.float64]:
    """Factors about 1, as measurements have them."""
    return 1 + share * np.random.default_rng(seed).standard_normal(shape)


Cells = dict[str, NDArray[np.float64]]
"""[time, entity] by catalog key, to be changed by whoever tells a story with them."""

_DENSE = {
    "gpu.util": 0.98, "gpu.mem_util": 0.5, "gpu.gr_active": 0.97, "gpu.sm_active": 0.85, "gpu.tensor_active": 0.5,
    "gpu.dram_active": 0.4, "gpu.power": 610.0, "gpu.energy": 610.0, "gpu.temp": 62.0, "gpu.mem_temp": 76.0, "gpu.sm_clock": 1905.0,
    "gpu.nvlink_tx": 5e10, "gpu.nvlink_rx": 5e10,
}  # fmt: skip
"""What trembles, on a board in a dense job."""
_FIXED = {
    "gpu.power_limit": 700.0, "gpu.power_max": 700.0, "gpu.throttle": 0.0, "gpu.thermal_violation": 0.0, "gpu.power_violation": 0.0,
    "gpu.temp_slowdown": 87.0, "gpu.mem_ratio": 0.85, "gpu.xid_last": 0.0, "gpu.ecc_dbe": 0.0, "gpu.ecc_sbe": 0.0,
    "gpu.remapped_uncorrectable": 0.0, "gpu.remap_pending": 0.0, "gpu.remap_failure": 0.0,
}  # fmt: skip
BY_DEFAULT = frozenset({
    "gpu.util", "gpu.mem_util", "gpu.power", "gpu.energy", "gpu.temp", "gpu.mem_temp", "gpu.sm_clock", "gpu.mem_ratio",
    "gpu.xid_last", "gpu.remapped_uncorrectable", "gpu.remap_failure",
})  # fmt: skip
"""What dcgm-exporter exports without a field list of one's own, profiling left out."""
_IDLE = {"gpu.util": 0.0, "gpu.mem_util": 0.0, "gpu.gr_active": 0.0, "gpu.sm_active": 0.0, "gpu.tensor_active": 0.0,
         "gpu.dram_active": 0.0, "gpu.power": 118.0, "gpu.energy": 118.0, "gpu.temp": 34.0, "gpu.mem_temp": 41.0, "gpu.sm_clock": 1980.0,
         "gpu.nvlink_tx": 0.0, "gpu.nvlink_rx": 0.0}  # fmt: skip


def dense(gpus: int, polls: int = 400, *, fields: str = "full", seed: int = 1) -> Cells:
    """Boards of a dense job; ``fields``: ``full``, or ``default`` for what dcgm-exporter exports by itself."""
    keys = [key for key in (*_DENSE, *_FIXED) if fields == "full" or key in BY_DEFAULT]
    made = {}
    for number, key in enumerate(keys):
        if key in _DENSE:
            values = _DENSE[key] * jitter((polls, gpus), 0.006, seed * 100 + number)
            made[key] = np.minimum(values, 1.0) if catalog()[key].unit == "ratio" else _as_read(key, values)
        else:
            made[key] = np.full((polls, gpus), _FIXED[key])
    return made


def idle(cells: Cells, gpus: Sequence[int], polls: slice = slice(None)) -> Cells:
    """The same, in which some boards rest with a context."""
    for key, value in _IDLE.items():
        if key in cells:
            cells[key][polls, list(gpus)] = value
    return cells


def _as_read(key: str, values: NDArray[np.float64]) -> NDArray[np.float64]:
    """As sensors have it: whole degrees, clocks in steps of 15 MHz."""
    if key.endswith("temp"):
        return np.rint(values)
    return np.rint(values / 15) * 15 if key.endswith("clock") else values


class _Told:
    """A source whose items somebody else hands over."""

    name = "lab"
    kind = "lab"
    rank = Rank.EXPORTER

    def __init__(self, interval: float) -> None:
        self.interval = interval

    async def stream(self) -> AsyncGenerator[Item, None]:
        return
        yield


class _Clock(SteadyClock):
    """Stands still."""

    def __init__(self, at: float) -> None:
        super().__init__(lambda: at, lambda: at)

    def correct(self) -> float:
        return 0.0


def _refs(
    gpus: Sequence[str],
    nodes: Sequence[str],
    ports: Sequence[str],
    servers: Sequence[str],
    metrics: Mapping[str, ArrayLike],
) -> dict[Kind, tuple[EntityRef, ...]]:
    hosts = dict.fromkeys((*nodes, *(key.partition("/")[0] for key in (*gpus, *ports))))
    known = {kind_of(key) for key in metrics}
    return {
        Kind.GPU: tuple(map(gpu_ref, gpus)),
        Kind.NODE: tuple(map(NodeRef, hosts)),
        Kind.PORT: tuple(PortRef(*_split(key, "/")) for key in ports),
        Kind.SERVER: tuple(ServerRef(key.partition(":")[0], key) for key in servers),
        Kind.JOB: (JobRef("slurm:1"),) if Kind.JOB in known else (),
        Kind.RACK: (RackRef("r01"),) if Kind.RACK in known else (),
    }


def _split(key: str, by: str) -> tuple[str, str]:
    first, _, rest = key.partition(by)
    return first, rest


def _facts(
    refs: Mapping[Kind, Sequence[Any]], racks: Mapping[str, str], model: str, at: float
) -> Iterator[Item]:
    for ref in refs[Kind.NODE]:
        pci = tuple(gpu.pci for gpu in refs[Kind.GPU] if gpu.node == ref.node)
        rack = racks.get(ref.node)
        yield NodeFact(
            at, ref.node, hostname=ref.node, rack=rack, place="lab" if rack else None, gpu_pci=pci or None
        )
    for gpu in refs[Kind.GPU]:
        yield GpuFact(
            at, gpu, model, MEMORY_BYTES, power_limit_w=POWER_W, power_max_w=POWER_W, slowdown_c=87.0
        )


def _servers(refs: Mapping[Kind, Sequence[Any]], at: float) -> Iterator[Item]:
    for server in refs[Kind.SERVER]:
        yield ServerFact(at, server, engine="vLLM", model="llama-70b")


def _batches(
    kind: Kind,
    refs: tuple[EntityRef, ...],
    metrics: Mapping[str, ArrayLike],
    polls: int | None,
    step: float,
    end: float,
) -> Iterator[Batch]:
    if not metrics:
        return
    arrays = [np.asarray(value, dtype=np.float32) for value in metrics.values()]
    count = polls or max((len(array) for array in arrays if array.ndim == 2), default=1)
    cells = np.stack([np.broadcast_to(array, (count, len(refs))) for array in arrays], axis=2)
    keys = tuple(metrics)
    subsets: dict[bytes, tuple[EntityRef, ...]] = {}
    for row, values in enumerate(cells):
        there = ~np.isnan(values).all(axis=1)
        some = subsets.setdefault(
            there.tobytes(), tuple(ref for ref, is_there in zip(refs, there, strict=True) if is_there)
        )
        if some:
            blank = np.where(np.isnan(values[there]), Missing.BLANK, Missing.PRESENT).astype(np.uint8)
            yield Batch(end - step * (count - 1 - row), kind, some, keys, values[there].copy(), blank)


def _when(item: Item) -> float:
    return item.at if isinstance(item, Batch) else -np.inf
