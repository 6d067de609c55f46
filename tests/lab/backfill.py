"""What a usage would have been told by: dcgm-exporter's samples for a real Prometheus, and sacct's lines.

A sample stands in the middle of each bin; labels name the job that holds the board then, as ``hpc_job`` does.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence

import numpy as np

from coldaisle.analyzers.usage import Stay, Usage
from coldaisle.sources.slurm.sacct import FIELDS

NAMES: Mapping[str, tuple[str, float]] = {
    "gpu.util": ("DCGM_FI_DEV_GPU_UTIL", 100.0),
    "gpu.sm_active": ("DCGM_FI_PROF_SM_ACTIVE", 1.0),
    "gpu.tensor_active": ("DCGM_FI_PROF_PIPE_TENSOR_ACTIVE", 1.0),
    "gpu.dram_active": ("DCGM_FI_PROF_DRAM_ACTIVE", 1.0),
    "gpu.power": ("DCGM_FI_DEV_POWER_USAGE", 1.0),
    "gpu.mem_used": ("DCGM_FI_DEV_FB_USED", 1 / 2.0**20),
}
"""Catalog key -> the exporter's name, and how many of its units are one of ours."""


def samples(
    usage: Usage, keys: Iterable[str] = tuple(NAMES), *, has_jobs: bool = True, every: int = 1
) -> Iterator[str]:
    """OpenMetrics, a metric each, for ``prometheus(history=...)``; of every so many bins one sample."""
    stamps = [f"{at:.0f}" for at in (usage.starts + usage.step / 2).tolist()]
    owners = owners_of(usage) if has_jobs else np.full((len(stamps), len(usage.boards)), -1)
    chosen = range(0, len(stamps), every)
    for key in keys:
        name, scale = NAMES[key]
        lines = [f"# TYPE {name} gauge"]
        for board in range(len(usage.boards)):
            values = (usage.means[key][:, board] * scale).tolist()
            by_owner: dict[int, list[int]] = {}
            for at, owner in zip(chosen, owners[::every, board].tolist(), strict=True):
                by_owner.setdefault(owner, []).append(at)
            # OpenMetrics wants the samples of a series together
            for owner, mine in by_owner.items():
                head = f"{name}{{{labels(usage, board, usage.stays[owner] if owner >= 0 else None)}}} "
                lines += [f"{head}{values[at]:.5g} {stamps[at]}" for at in mine if not math.isnan(values[at])]
        yield "\n".join(lines) + "\n"


def labels(usage: Usage, board: int, stay: Stay | None = None) -> str:
    """Between the braces."""
    one = usage.boards[board]
    slot = one.key.rpartition("/")[2]
    said = (
        f'instance="{one.node}:9400",job="dcgm",Hostname="{one.node}",gpu="{slot}",UUID="GPU-{board:08x}",'
        f'modelName="{one.part}"'
    )
    return f'{said},hpc_job="{stay.id.removeprefix("slurm:")}"' if stay else said


def owners_of(usage: Usage) -> np.ndarray[tuple[int, int], np.dtype[np.int64]]:
    """[bin, board] index of the stay that holds it in the bin's middle; -1: none."""
    owners = np.full((len(usage.starts), len(usage.boards)), -1)
    middles = usage.starts + usage.step / 2
    for number, stay in enumerate(usage.stays):
        if stay.boards and stay.started_at == stay.started_at:
            ended = math.inf if math.isnan(stay.ended_at) else stay.ended_at
            first, last = np.searchsorted(middles, [stay.started_at, ended]).tolist()
            owners[first:last, list(stay.boards)] = number
    return owners


def accounting(usage: Usage, separator: str = "|", fields: Sequence[str] = FIELDS) -> str:
    """What sacct would have printed."""
    lines = [separator.join(fields)]
    lines += [separator.join(_cells(usage, stay)[field] for field in fields) for stay in usage.stays]
    return "\n".join(lines) + "\n"


def _cells(usage: Usage, stay: Stay) -> Mapping[str, str]:
    id_ = stay.id.removeprefix("slurm:")
    tres = f"billing=8,cpu={stay.cores or 1},gres/gpu={stay.gpu_count},mem=90G,node={max(len(stay.hosts), 1)}"
    has_run = stay.started_at == stay.started_at
    return {
        "JobIDRaw": id_, "JobID": id_, "User": stay.user, "Account": stay.account, "Partition": stay.partition,
        "State": stay.state, "Submit": _at(stay.submitted_at), "Eligible": _at(stay.submitted_at),
        "Start": _at(stay.started_at), "End": _at(stay.ended_at), "TimelimitRaw": _minutes(stay.limit_s),
        "NNodes": str(max(len(stay.hosts), 1)),
        "NodeList": ",".join(usage.hosts[host].key for host in stay.hosts) or "None assigned",
        "AllocTRES": tres if has_run else "", "ReqTRES": tres, "TotalCPU": "", "TRESUsageInTot": "",
        "JobName": stay.name,
    }  # fmt: skip


def _at(at: float) -> str:
    return f"{at:.0f}" if at == at else "Unknown"


def _minutes(seconds: float) -> str:
    return f"{seconds / 60:.0f}" if seconds == seconds else "UNLIMITED"
