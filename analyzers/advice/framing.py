"""The frame that advice on a group of jobs has, whatever the rule: whose it is, what it rests on, and who is asked."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from typing import NamedTuple

from coldaisle.analyzers.advice.advice import Advice, Grade, Refused, Saving
from coldaisle.analyzers.advice.groups import Group, ground, sized
from coldaisle.analyzers.advice.pool import Pool
from coldaisle.analyzers.sizing.quantity import Quantity

SERVED = ("inference", "interactive")
"""Work that somebody waits for: its throughput sizes nothing."""


class Said(NamedTuple):
    """What a rule has to say of a group; see Advice."""

    action: str
    quantity: Quantity
    grade: Grade
    because: str
    would_change: str
    but: str = ""
    saving: Saving = Saving()


def over_groups(
    pool: Pool,
    rule: str,
    judge: Callable[[Group], Advice | None],
    *,
    measured: bool = True,
    but_not: Collection[str] = (),
) -> Iterator[Advice | Refused]:
    """What ``judge`` says of each group that is thick enough, and which are not. ``but_not``: kinds of work that are left out."""
    for group in sized(pool, rule, measured):
        if isinstance(group, Refused):
            yield group
        elif group.workload not in but_not and (found := judge(group)):
            yield found


def of_group(pool: Pool, rule: str, group: Group, said: Said, *metrics: str) -> Advice:
    """Advice on one group, which rests on these metrics."""
    return Advice(
        id=f"{rule}:{group.key}",
        rule=rule,
        action=said.action,
        scope=group.scope(pool),
        quantity=said.quantity,
        saving=said.saving,
        grade=said.grade,
        grounds=tuple(ground(pool, group, metric) for metric in metrics),
        because=said.because,
        would_change=said.would_change,
        but=said.but,
    )
