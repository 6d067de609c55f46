"""Nodes that the scheduler may not use: drained, down, failed. A fact of the moment, told of a snapshot as well."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from coldaisle.analyzers.advice.advice import Advice, Grade, Ground, Refused, Saving
from coldaisle.analyzers.advice.pool import HOUR, WEEK, Index, Pool
from coldaisle.analyzers.advice.telling import between, counted
from coldaisle.analyzers.finding import NOWHERE, Scope
from coldaisle.analyzers.sizing.quantity import exact

NAME = "out_of_service"


class Thresholds(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """See the TOML file."""

    share: float
    states: list[str]


def advise(pool: Pool, rules: Thresholds) -> Iterator[Advice | Refused]:
    """One line."""
    states = {host.key: host.state for host in pool.usage.hosts if host.state}
    if not states:
        yield Refused(NAME, NOWHERE, "no scheduler tells the state of nodes")
        return
    nodes = sorted(key for key, state in states.items() if is_out(state, tuple(rules.states)))
    boards = [board for board in pool.usage.boards if board.node in set(nodes)]
    if not boards or len(boards) < rules.share * pool.size:
        return
    count = len(boards)
    yield Advice(
        id=NAME,
        rule=NAME,
        action=f"bring back {counted(len(nodes), 'node')} with {counted(count, 'GPU')}",
        scope=Scope(nodes=tuple(nodes), racks=tuple(sorted({board.rack for board in boards if board.rack}))),
        quantity=exact(count, "gpus", "GPUs of nodes that are drained, down or failed"),
        saving=Saving(between(0.0, count * WEEK / HOUR, count * WEEK / HOUR, "gpu_hours", "GPUs x a week")),
        grade=Grade.A,
        grounds=(
            Ground(
                "slurm.node_state",
                0.0,
                len(states),
                len(states) / max(len(pool.usage.hosts), 1),
                tuple(nodes[:5]),
            ),
        ),
        because=f"{count / pool.size:.1%} of {pool.size:,} GPUs are in nodes that the scheduler may not use now",
        would_change="how long they have been out: the state is of the end of the span",
        but="drained on purpose, they come back by themselves",
    )


OUT = ("drain", "down", "fail", "maint", "error", "not_respond", "unknown", "cordon", "notready")


def is_out(state: str, words: tuple[str, ...] = OUT) -> bool:
    """``drain``, ``drained*``, ``DOWN+DRAIN``, ``mixed+drain``"""
    low = state.lower()[:200]
    return any(word in low for word in words)


def share_out(pool: Pool, boards: Index) -> float:
    """Of these boards, in nodes that are out of service."""
    out = {host.key for host in pool.usage.hosts if is_out(host.state)}
    chosen = boards.tolist()
    return sum(pool.usage.boards[board].node in out for board in chosen) / max(len(chosen), 1)
