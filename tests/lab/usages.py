"""Small usages, job by job: what each of its GPUs read, and what accounting says of it."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from lab.month import H100, H100_BYTES, START

from coldaisle.analyzers.advice.advice import Advice, Counsel, Refused
from coldaisle.analyzers.advice.counsel import advise, settings
from coldaisle.analyzers.advice.settings import Site
from coldaisle.analyzers.usage import Board, Host, Stay, Usage

HOUR, GB = 3600.0, 1e9
Reads = Mapping[str, Any]
"""By metric a float, of every GPU, or one of each."""
WORKS: Reads = {
    "gpu.util": 0.98, "gpu.sm_active": 0.85, "gpu.tensor_active": 0.55, "gpu.dram_active": 0.4, "gpu.power": 620.0,
    "gpu.mem_used": 60 * GB, "gpu.sm_clock": 1700.0,
}  # fmt: skip
RESTS: Reads = {
    "gpu.util": 0.0, "gpu.sm_active": 0.0, "gpu.tensor_active": 0.0, "gpu.dram_active": 0.0, "gpu.power": 90.0,
    "gpu.mem_used": 0.6 * GB, "gpu.sm_clock": 345.0,
}  # fmt: skip


@dataclass(frozen=True)
class Work:
    """A job. Times are hours from the usage's start."""

    start: float
    hours: float
    gpus: int = 8
    first: int = 0
    """Its first board; the others are the next ones."""
    reads: Reads = field(default_factory=lambda: WORKS)
    stay: Mapping[str, object] = field(default_factory=dict)
    """What is otherwise of its Stay."""


def series(count: int, hours: float = 4.0, **what: object) -> list[Work]:
    """Jobs one after another on the same boards."""
    return [Work(number * hours, hours, **what) for number in range(count)]  # type: ignore[arg-type]


def having(reads: Reads, **over: float | Sequence[float]) -> Reads:
    """``reads`` with some otherwise: ``gpu__util=0.3``."""
    return {**reads, **{key.replace("__", "."): value for key, value in over.items()}}


def usage_of(
    works: Iterable[Work],
    *,
    hours: float = 48.0,
    step: float = 300.0,
    nodes: int = 2,
    each: int = 8,
    part: str = H100,
    memory: float = H100_BYTES,
    keys: Sequence[str] = tuple(WORKS),
) -> Usage:
    """Boards that no job holds are at rest."""
    bins, size = round(hours * HOUR / step), nodes * each
    means = {key: np.full((bins, size), RESTS[key], dtype=np.float32) for key in keys}
    stays = []
    for number, work in enumerate(works):
        low, high = (round(at * HOUR / step) for at in (work.start, work.start + work.hours))
        boards = tuple(range(work.first, work.first + work.gpus))
        for key in keys:
            means[key][max(low, 0) : max(high, 0), list(boards)] = work.reads[key]
        stays.append(_stay(number, work, boards, each, hours))
    return Usage(
        starts=START + step * np.arange(bins, dtype=np.float64),
        step=step,
        boards=tuple(
            Board(f"r01n{n + 1:02}/{slot}", f"r01n{n + 1:02}", "r01", part, memory, "gpu")
            for n in range(nodes)
            for slot in range(each)
        ),
        hosts=tuple(Host(f"r01n{n + 1:02}", "r01", 96, 2e12) for n in range(nodes)),
        means=means,
        stays=tuple(stays),
        jobs_known=True,
        source="made",
    )


def _stay(number: int, work: Work, boards: tuple[int, ...], each: int, hours: float) -> Stay:
    over = work.start + work.hours
    stay = Stay(
        id=f"slurm:{100 + number}",
        name="train",
        user="rsun",
        account="lab",
        partition="gpu",
        submitted_at=START + work.start * HOUR - 60,
        started_at=START + work.start * HOUR,
        ended_at=START + over * HOUR if over < hours else np.nan,
        state="COMPLETED" if over < hours else "RUNNING",
        gpu_count=work.gpus,
        boards=boards,
        hosts=tuple(sorted({board // each for board in boards})),
        cores=12 * work.gpus,
        memory_asked_bytes=100 * GB * work.gpus,
        memory_used_bytes=70 * GB * work.gpus,
        limit_s=1.4 * work.hours * HOUR,
        cpu_s=work.hours * HOUR * 12 * work.gpus * 0.5,
    )
    return replace(stay, **work.stay)  # type: ignore[arg-type]


def counsel_of(usage: Usage, site: Site | None = None) -> Counsel:
    """All that is advised; a rule that fails, which is logged alone, is a failure here."""
    failures: list[str] = []
    handler = logging.Handler(logging.ERROR)
    handler.emit = lambda record: failures.append(handler.format(record))  # type: ignore[method-assign]
    logger = logging.getLogger("coldaisle.analyzers.advice")
    logger.addHandler(handler)
    try:
        counsel = advise(usage, settings(site))
    finally:
        logger.removeHandler(handler)
    assert not failures, failures[0]
    return counsel


def given(usage: Usage, rule: str, site: Site | None = None) -> list[Advice]:
    """What one rule advises."""
    return [one for one in counsel_of(usage, site).given if one.rule == rule]


def refused(usage: Usage, rule: str, site: Site | None = None) -> list[Refused]:
    """What it would not."""
    return [one for one in counsel_of(usage, site).refused if one.rule == rule]
