"""``python -m coldaisle.sources.simulator.scenarios NAME [SEED [BOARD [MINUTES]]]``: an episode to look at, a minute a line.

Where some boards (nodes, servers) are the cause, their median stands before the median of all others: ``1140 1980``.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable

import numpy as np

from coldaisle.sources.simulator.scenarios import SCENARIOS, Label, Observed, World, world
from coldaisle.sources.source import Batch, EntityRef, Event, GpuRef, Kind, PortRef, ServerRef

COLUMNS: dict[Kind, tuple[tuple[str, float], ...]] = {
    Kind.GPU: (
        ("util", 100), ("sm_active", 100), ("tensor_active", 100), ("dram_active", 100), ("power", 1), ("sm_clock", 1), ("temp", 1),
        ("mem_temp", 1), ("throttle", 1), ("thermal_violation", 100), ("power_violation", 100), ("nvlink_tx", 1e-9),
        ("pcie_rx", 1e-9), ("mem_ratio", 100),
    ),
    Kind.NODE: (
        ("cpu_util", 100), ("cpu_iowait", 100), ("psi_cpu_some", 100), ("psi_io_some", 100), ("nfs_read", 1e-6), ("nfs_write", 1e-6),
        ("nfs_rtt", 1e3), ("mem_ratio", 100),
    ),
    Kind.PORT: (("tx", 1e-9), ("xmit_wait", 1e-6), ("symbol_errors", 1)),
    Kind.SERVER: (
        ("kv_usage", 100), ("running", 1), ("waiting", 1), ("preemptions", 60), ("gen_tokens", 1), ("ttft_p99", 1), ("itl_p50", 1e3),
    ),
}  # fmt: skip
"""With factors for people: per cent, GB/s (MB/s for storage), ms, preemptions a minute."""
LINE_S = 60.0


def say(text: object) -> None:
    """A line."""
    sys.stdout.write(f"{text}\n")


def main(arguments: list[str]) -> int:
    """Print it; the exit status."""
    if not arguments or arguments[0] not in SCENARIOS:
        say("\n".join(f"{s.name:22}{s.condition or '-':26}{s.help}" for s in SCENARIOS.values()))
        return 2
    seed = int(arguments[1]) if len(arguments) > 1 else 1
    minutes = float(arguments[3]) if len(arguments) > 3 else None
    made = world(arguments[:1], seed, parts=arguments[2:3] or ("H100",), minutes=minutes)
    label = made.labels[0]
    start, evident, end = (at - made.start for at in (label.start, label.evident, label.end))
    say(
        f"{label.scenario}: {label.condition or 'nothing to find'} {label.variant}, like {', '.join(label.lookalike_of)}"
    )
    say(
        f"from {start:.0f} s, seen from {evident:.0f} s, until {end:.0f} s; lost {label.loss:.0%}, weak: {label.is_weak}"
    )
    say(
        f"cause: {' '.join((*label.racks, *label.nodes, *label.gpus, *label.servers)) or '-'}; job {' '.join(label.jobs) or '-'}"
    )
    for line in _lines(made, label):
        say(line)
    return 0


def _lines(made: World, label: Label) -> Iterable[str]:
    """Events as they come, and a line a poll, when all its batches are there."""
    shown: dict[str, str] = {}
    since: float | None = None
    headed = False
    for item in made.items(Observed(poll=LINE_S, drops=0.0)):
        if isinstance(item, Event):
            yield f"{item.at - made.start:6.0f} {item.kind}: {item.detail}"
        if not isinstance(item, Batch):
            continue
        if since is not None and item.at != since:
            if not headed:
                yield "     s " + " ".join(f"{key.partition('.')[2][:9]:>9}" for key in shown)
            headed = True
            yield f"{since - made.start:6.0f} " + " ".join(f"{text:>9}" for text in shown.values())
        since = item.at
        shown |= _columns(item, label)


def _columns(batch: Batch, label: Label) -> dict[str, str]:
    roots = np.array([_is_root(ref, label) for ref in batch.entities])
    found: dict[str, str] = {}
    for name, factor in COLUMNS[batch.kind]:
        key = f"{batch.kind}.{name}"
        if key in batch.metrics:
            values = factor * batch.values[:, batch.metrics.index(key)].astype(float)
            some = [values[roots], values[~roots]] if roots.any() and not roots.all() else [values]
            found[key] = " ".join(_short(each) for each in some)
    return found


def _is_root(ref: EntityRef, label: Label) -> bool:
    if isinstance(ref, GpuRef):
        return f"{ref.node}/{ref.index}" in label.gpus
    if isinstance(ref, PortRef):
        return f"{ref.node}/{ref.port[5]}" in label.gpus
    if isinstance(ref, ServerRef):
        return f"{ref.node}/{ref.server}" in label.servers
    return getattr(ref, "node", "") in label.nodes


def _short(values: np.ndarray[tuple[int, ...], np.dtype[np.float64]]) -> str:
    known = values[~np.isnan(values)]
    if not len(known):
        return "-"
    middle = float(np.median(known))
    return f"{middle:.0f}" if abs(middle) >= 10 else f"{middle:.2g}"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
