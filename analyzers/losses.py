"""What findings cost: the share of the work of the jobs and servers that they touch, and GPU-hours an hour. Pure.

A job that runs in lock-step loses what its slowest part loses, so that several causes in one job cost what the worst of them
does, and a GPU that two findings touch is lost once.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from coldaisle.analyzers.arbitration import Held
from coldaisle.analyzers.features import allocated
from coldaisle.analyzers.finding import Finding, Loss, Usefulness
from coldaisle.analyzers.reach import Reach
from coldaisle.analyzers.window import Window

AT_WORK = 0.05
"""Utilisation of a GPU that somebody uses, where nobody says who holds what."""

Lost = Mapping[int, float]
"""GPU -> share of its work."""


def lost_gpus(window: Window, held: Iterable[Held]) -> tuple[Lost, Loss]:
    """What these candidates cost together, by GPU and in sum."""
    lost: dict[int, float] = {}
    unplaced: dict[int, float] = {}
    of_servers = 0.0  # of those whose GPUs nobody knows: a share, and no GPU-hours
    for one in held:
        loss = min(max(one.candidate.loss, 0.0), 1.0) if one.candidate.loss == one.candidate.loss else 0.0
        bearers = _bearers(window, one.reach)
        for gpu in bearers:
            lost[gpu] = max(lost.get(gpu, 0.0), loss)
        if not bearers and one.reach.servers:
            of_servers = max(of_servers, loss)
        for job in one.reach.jobs:
            if not window.jobs[job].gpus:
                unplaced[job] = max(unplaced.get(job, 0.0), loss)
    hours = sum(lost.values())
    size = float(len(lost))
    for job, loss in unplaced.items():
        count = window.jobs[job].gpu_count or 0
        hours += loss * count
        size += count
    return lost, Loss(hours / size if size else max([of_servers, *unplaced.values()]), hours)


def _bearers(window: Window, reach: Reach) -> set[int]:
    """Whose work it is: the GPUs of the jobs and servers that are touched, else the GPUs themselves, else the nodes'."""
    layout = window.layout
    gpus = {gpu for job in reach.jobs for gpu in window.jobs[job].gpus}
    gpus |= {gpu for server in reach.servers for gpu in layout.servers[server].gpus}
    gpus |= reach.gpus
    if not gpus and not reach.jobs and not reach.servers:
        gpus = {gpu for node in reach.nodes for gpu in layout.nodes[node].gpus}
    return {gpu for gpu in gpus if layout.gpus[gpu].parent < 0} or gpus


def usefulness(window: Window, findings: Sequence[tuple[Finding, Lost]]) -> Usefulness:
    """Of the GPUs that are held: what of their work is not lost, and to what the rest is."""
    worst = np.zeros(len(window.layout.gpus))
    cause = np.full(len(window.layout.gpus), -1)
    for number, (_, lost) in enumerate(findings):
        for gpu, loss in lost.items():
            if loss > worst[gpu]:
                worst[gpu], cause[gpu] = loss, number
    held = in_use(window)
    worst[~held] = 0.0
    by_cause: dict[str, float] = {}
    for number, (finding, _) in enumerate(findings):
        hours = float(worst[cause == number].sum())
        if hours > 0:
            by_cause[finding.detector] = by_cause.get(finding.detector, 0.0) + hours
    count, total = int(held.sum()), float(worst.sum())
    ordered = sorted(by_cause.items(), key=lambda pair: (-pair[1], pair[0]))
    return Usefulness(count, 1 - total / count if count else float("nan"), total, tuple(ordered))


def in_use(window: Window) -> NDArray[np.bool_]:
    """[gpu] boards that are held; where nobody says who holds what, those at work."""
    held = allocated(window).copy()
    if not window.snapshot.jobs_known:
        held |= window.current("gpu.util") >= AT_WORK
    for gpu in np.flatnonzero(held & ~window.groups.is_board):
        held[window.layout.gpus[gpu].parent] = True
    return held & window.groups.is_board
