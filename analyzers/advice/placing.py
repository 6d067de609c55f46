"""Which boards of its nodes a job is likely to have had, where nobody says: those that worked while it ran, and not beyond.

Accounting knows a job's nodes and how many GPUs it had, not which. What a node's boards did decides most of it. Boards that did
nothing are alike: which of two jobs had an idle one changes nothing of what both together left idle. So sums over a pool can be
told from a likely placing, and nothing can be told of single jobs.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from coldaisle.analyzers.advice.idling import Thresholds, idle_cells
from coldaisle.analyzers.advice.pool import Bools, Index, Numbers, Pool

LIKELY = 0.25
"""Share of a job's time in which a board that it had works, at least; who is idle for longer is told by what is left."""
SURE = 0.75
"""So much of it leaves no doubt, also where the next job's work begins at once."""
BEYOND = 0.5
"""What a board loses as a candidate where its work goes on after a job's end: it may be that of a job that starts later."""


class _Part(NamedTuple):
    """What a job holds of one node."""

    stay: int
    host: str
    gpus: int
    first: int
    end: int


def placed(pool: Pool, rules: Thresholds) -> Pool | None:
    """The pool with likely boards of jobs of which only nodes are known; None: there are none, or nothing was measured."""
    return pool.cached("placed", lambda: _placed(pool, rules))


def _placed(pool: Pool, rules: Thresholds) -> Pool | None:
    parts = list(_parts(pool)) if pool.homeless else []
    cells = idle_cells(pool, rules) if parts else None
    if cells is None:
        return None
    known, idle = cells
    boards = _boards(pool, known & ~idle, parts)
    stays = tuple(
        replace(stay, boards=boards[number]) if number in boards else stay
        for number, stay in enumerate(pool.stays)
    )
    return Pool(replace(pool.usage, stays=stays), pool.common)


def _boards(pool: Pool, works: Bools, parts: Sequence[_Part]) -> dict[int, tuple[int, ...]]:
    """By stay; left out: those for which no more were free on one of their nodes. ``works``: [board, bin]"""
    on_host: dict[str, list[int]] = {}
    for number, board in enumerate(pool.usage.boards):
        on_host.setdefault(board.node, []).append(number)
    of_host: dict[str, list[_Part]] = {}
    for part in parts:
        of_host.setdefault(part.host, []).append(part)
    found: dict[int, list[int]] = {}
    short: set[int] = set()
    for host, several in of_host.items():
        mine = np.array(on_host.get(host, ()), dtype=np.intp)
        for part, chosen in zip(several, _choose(pool, works[mine], mine, several), strict=True):
            found.setdefault(part.stay, []).extend(chosen)
            if len(chosen) < part.gpus:
                short.add(part.stay)
    return {stay: tuple(sorted(boards)) for stay, boards in found.items() if stay not in short}


def _parts(pool: Pool) -> Iterator[_Part]:
    """Of jobs of which nobody says which boards they had; one over several nodes has as many of each."""
    first, end = pool.bins_of(pool.started), pool.bins_of(pool.ended)
    for number, boards in enumerate(pool.boards_of):
        stay = pool.stays[number]
        hosts = [pool.usage.hosts[host].key for host in stay.hosts if 0 <= host < len(pool.usage.hosts)]
        is_whole = bool(hosts) and stay.gpu_count > 0 and stay.gpu_count % len(hosts) == 0
        if boards is None and is_whole and end[number] > first[number]:
            share = stay.gpu_count // len(hosts)
            for host in hosts:
                yield _Part(number, host, share, int(first[number]), int(end[number]))


def _choose(pool: Pool, works: Bools, boards: Index, parts: Sequence[_Part]) -> list[list[int]]:
    """[part] its boards on one node; fewer than it had where no more were free all of its time.

    ``works``: [board of the node, bin]. In the order of their starts, so that who fits on the node finds a place: first the boards
    that worked for it, then those that worked least, which leaves the others to whom they worked for.
    """
    taken = pool.held[boards]
    share, likely = _shares(works, parts)
    chosen: list[list[int]] = [[] for _ in parts]
    for number in sorted(range(len(parts)), key=lambda at: (parts[at].first, -parts[at].end)):
        _, _, gpus, first, end = parts[number]
        free = np.flatnonzero(~taken[:, first:end].any(axis=1))
        is_likely = (likely[number, free] >= LIKELY) | (share[number, free] >= SURE)
        rank = np.where(is_likely, -likely[number, free], share[number, free])
        rows = free[np.lexsort((rank, ~is_likely))][:gpus]
        taken[rows, first:end] = True
        chosen[number] = boards[rows].tolist()
    return chosen


def _shares(works: Bools, parts: Sequence[_Part]) -> tuple[Numbers, Numbers]:
    """[part, board] share of its time in which the board worked; and that less, where it goes on beyond it."""
    bins = works.shape[1]
    first, end = (
        np.array([getattr(part, name) for part in parts], dtype=np.intp) for name in ("first", "end")
    )
    total = np.zeros((len(works), bins + 1))
    np.cumsum(works, axis=1, out=total[:, 1:])
    share: Numbers = ((total[:, end] - total[:, first]) / (end - first)).T
    return share, share - BEYOND * _through(works, end)


def _through(works: Bools, at: Index) -> Bools:
    """[instant, board] whether it works on, two bins before the instant and two after it: the nearest are of both sides."""
    bins = works.shape[1]
    goes_on = (at >= 2) & (at + 2 <= bins)
    beside = np.clip(at[:, None] + np.arange(-2, 2), 0, bins - 1)
    through: Bools = works[:, beside].all(axis=2).T & goes_on[:, None]
    return through
