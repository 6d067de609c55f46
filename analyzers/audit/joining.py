"""A usage from what Prometheus aggregated and what Slurm accounted for, or from either alone.

Jobs join by Slurm's id: accounting knows when and how many, labels beside GPUs know which. Where only accounting is there,
nothing is known of boards; where only labels are, nothing of waiting.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from coldaisle.analyzers.usage import Board, Host, Stay, Usage
from coldaisle.sources.prometheus.aggregates import Gathered, Held, Seen, Span
from coldaisle.sources.racks import RackRules, place, short_name
from coldaisle.sources.slurm.records import SlurmNode
from coldaisle.sources.slurm.sacct import Accounted

NO_RULES = RackRules()


class Joined(NamedTuple):
    """A usage, and what has to be said of how it was made."""

    usage: Usage
    remarks: tuple[str, ...]


def joined(
    span: Span,
    gathered: Gathered | None,
    accounted: Sequence[Accounted] | None,
    *,
    nodes: Sequence[SlurmNode] = (),
    rules: RackRules = NO_RULES,
    source: str = "",
) -> Joined:
    """The usage of a span. ``accounted``: None where nobody was asked for accounting; ``nodes``: as Slurm has them now."""
    remarks: list[str] = []
    hosts = _hosts(gathered, accounted or (), nodes, rules)
    number = {host.key: at for at, host in enumerate(hosts)}
    held = _by_job(gathered.held if gathered else ())
    if accounted is None:
        stays = [_of_label(job, several, span) for (job, _), several in held.items()]
    else:
        stays = [
            *_of_accounting(accounted, held, number, span, remarks),
            *_not_accounted(accounted, held, span, remarks),
        ]
    boards = _boards(gathered, hosts, number, nodes, stays) if gathered else ()
    if gathered is not None and held:
        hosts_of = [number[board.node] for board in boards]
        stays = [_with_hosts(stay, hosts_of) for stay in stays]
    if gathered is not None:
        remarks += _late(gathered, span)
        remarks += _divided(gathered)
    usage = Usage(
        starts=span.starts,
        step=span.step,
        boards=tuple(boards),
        hosts=tuple(hosts),
        means={key: v for key, v in gathered.means.items() if key.startswith("gpu.")} if gathered else {},
        peaks=dict(gathered.peaks) if gathered else {},
        host_means=_of_hosts(gathered, hosts) if gathered else {},
        coverage=gathered.coverage if gathered else None,
        stays=tuple(sorted(stays, key=_order)),
        jobs_known=accounted is not None or bool(gathered and gathered.jobs_known),
        source=source,
    )
    return Joined(usage, tuple(remarks))


def _came_or_went(board: Seen, bins: int) -> bool:
    """Whether it was there for a part of the span alone; less than a twentieth is taken for an outage."""
    return board.last - board.first + 1 < 0.95 * bins


def _late(gathered: Gathered, span: Span) -> Iterable[str]:
    """Of what came or went within the span it has to be said how it counts."""
    short = sum(_came_or_went(board, span.bins) for board in gathered.boards)
    if short:
        yield (
            f"{short} of {len(gathered.boards)} GPUs were seen in a part of the span alone: they count as installed from "
            "their first sample to their last"
        )
    replaced = sum(len(board.uuids) > 1 for board in gathered.boards)
    if replaced:
        yield f"{replaced} places held more than one board, one after the other"
    moved = sum(board.was_elsewhere for board in gathered.boards)
    if moved:
        yield f"{moved} GPUs changed hosts: they count, with all that they did, where they were last"


def _divided(gathered: Gathered) -> Iterable[str]:
    divided = len({one.board for one in gathered.held if one.share < 1})
    if divided:
        yield (
            f"{divided} GPUs are divided (MIG): a job counts for its share of their instances, and what an instance did for "
            "what its GPU did; an instance that is idle beside a busy one is in the interval alone"
        )


def _order(stay: Stay) -> tuple[float, str]:
    return (stay.submitted_at if stay.submitted_at == stay.submitted_at else stay.started_at, stay.id)


def _hosts(
    gathered: Gathered | None, accounted: Sequence[Accounted], nodes: Sequence[SlurmNode], rules: RackRules
) -> list[Host]:
    known = {node.name: node for node in nodes}
    names = dict.fromkeys(board.node for board in gathered.boards) if gathered else {}
    names |= dict.fromkeys(node.name for node in nodes if node.gres)
    if not names:
        names = dict.fromkeys(short_name(node) for job in accounted if job.gpus for node in job.nodes)
    told = {board.node: (board.rack, "label") for board in gathered.boards if board.rack} if gathered else {}
    places = place(tuple(names), rules, told)
    cores = _constant(gathered, "node.cpus")
    memory = _constant(gathered, "node.mem_total")
    return [
        Host(
            name,
            where.rack,
            known[name].cpus if name in known else _whole(cores.get(name)),
            float(known[name].memory or math.nan) if name in known else memory.get(name, math.nan),
            known[name].state if name in known else "",
            known[name].cpus_used if name in known else None,
            float(known[name].memory_used or math.nan) if name in known else math.nan,
        )
        for name, where in places.items()
    ]


def _constant(gathered: Gathered | None, key: str) -> Mapping[str, float]:
    values = gathered.constants.get(key) if gathered else None
    if gathered is None or values is None:
        return {}
    return {name: float(v) for name, v in zip(gathered.hosts, values.tolist(), strict=True) if v == v}


def _whole(value: float | None) -> int | None:
    return None if value is None else round(value)


def _boards(
    gathered: Gathered,
    hosts: Sequence[Host],
    number: Mapping[str, int],
    nodes: Sequence[SlurmNode],
    stays: Iterable[Stay],
) -> list[Board]:
    sizes = gathered.constants.get("gpu.mem_total")
    memory = sizes.tolist() if sizes is not None else [math.nan] * len(gathered.boards)
    partitions = {node.name: node.partitions[0] for node in nodes if node.partitions}
    if not partitions:
        partitions = _partitions(stays, hosts, [board.node for board in gathered.boards])
    return [
        Board(
            f"{board.node}/{board.slot}",
            board.node,
            hosts[number[board.node]].rack,
            board.model,
            size,
            partitions.get(board.node, ""),
            *((board.first, board.last) if _came_or_went(board, gathered.span.bins) else (0, None)),
        )
        for board, size in zip(gathered.boards, memory, strict=True)
    ]


def _partitions(stays: Iterable[Stay], hosts: Sequence[Host], nodes: Sequence[str]) -> dict[str, str]:
    """Node -> the partition of most of the jobs that ran there."""
    counts: dict[str, Counter[str]] = {}
    for stay in stays:
        if stay.partition:
            on = {hosts[host].key for host in stay.hosts} | {nodes[board] for board in stay.boards or ()}
            for node in on:
                counts.setdefault(node, Counter())[stay.partition.partition(",")[0]] += 1
    return {node: count.most_common(1)[0][0] for node, count in counts.items()}


def _of_hosts(
    gathered: Gathered, hosts: Sequence[Host]
) -> dict[str, np.ndarray[tuple[int, int], np.dtype[np.float32]]]:
    column = {name: at for at, name in enumerate(gathered.hosts)}
    places = np.array([column.get(host.key, -1) for host in hosts], dtype=np.intp)
    found = {}
    for key, values in gathered.means.items():
        if key.startswith("node."):
            chosen = (
                values[:, np.maximum(places, 0)].copy()
                if values.shape[1]
                else np.full((len(values), len(hosts)), np.nan, np.float32)
            )
            chosen[:, places < 0] = np.nan
            found[key] = chosen
    return found


def _by_job(held: Iterable[Held]) -> dict[tuple[str, int], list[Held]]:
    """(job, run) -> its GPUs: runs of a job that do not touch are those of a requeued one."""
    of_job: dict[str, list[Held]] = {}
    for one in held:
        of_job.setdefault(one.job, []).append(one)
    runs: dict[tuple[str, int], list[Held]] = {}
    for job, several in of_job.items():
        run, until = 0, -math.inf
        for one in sorted(several, key=lambda h: h.start):
            if until > -math.inf and one.start - until > 3600:
                run += 1
            until = max(until, one.end)
            runs.setdefault((job, run), []).append(one)
    return runs


_POD = re.compile(r"(?:-[0-9a-f]{6,10})?-[a-z0-9]{5}$|(?:-worker|-master|-replica)?(?:-\d{1,4}){1,2}$")
"""What controllers put behind their names: a ReplicaSet's hash and five characters of the pod, or its number."""


def pods_of(pod: str) -> str:
    """What a pod without a known owner belongs to, by its name: ``train`` of ``train-7c9f8d6b5-x2x4z``, ``train-0``."""
    found = _POD.sub("", pod)
    tail = pod[len(found) :].rpartition("-")[2]
    # five letters may be a word: names that Kubernetes makes have no vowels
    is_word = len(tail) == 5 and not tail.isdigit() and bool(set(tail) & set("aeiouy013"))
    return found if found and not is_word else pod


def _of_label(job: str, several: Sequence[Held], span: Span) -> Stay:
    """A job as labels alone tell of it."""
    is_open = any(one.is_open for one in several)
    first = several[0]
    space = job.removeprefix("k8s:").partition("/")[0] if job.startswith("k8s:") else ""
    return Stay(
        id=job,
        name=pods_of(first.name) if space else first.name,
        user=first.user or space,
        account=space,
        partition=first.partition,
        submitted_at=math.nan,
        started_at=max(min(one.start for one in several), span.start),
        ended_at=math.nan if is_open else max(one.end for one in several),
        state="RUNNING" if is_open else "",
        gpu_count=len({one.board for one in several}),
        boards=tuple(sorted({one.board for one in several})),
        share=_share(several),
    )


def _share(several: Sequence[Held]) -> float:
    """Of each of its GPUs that a job holds."""
    return sum(one.share for one in several) / len(several) if several else 1.0


def _of_accounting(
    accounted: Sequence[Accounted],
    held: Mapping[tuple[str, int], Sequence[Held]],
    number: Mapping[str, int],
    span: Span,
    remarks: list[str],
) -> Iterable[Stay]:
    runs: dict[str, list[Sequence[Held]]] = {}
    for (labelled, _), several in held.items():
        runs.setdefault(labelled, []).append(several)
    without = by_label = wrong = 0
    for job in accounted:
        mine = _matching(runs.get(f"slurm:{job.id}", ()), job)
        boards = tuple(sorted({one.board for one in mine})) if mine else None
        gpus = job.gpus or len(boards or ())
        if not gpus:
            without += 1
            continue
        by_label += not job.gpus
        if boards is not None and len(boards) != gpus:
            wrong += 1
            # a label that stands at other boards, too, says of none which it is
            boards = None if len(boards) > gpus else boards
        yield replace(_stay(job, gpus, boards, number), share=_share(mine))
    if accounted and without == len(accounted):
        remarks.append(
            f"accounting counts no GPUs ({without} jobs): AccountingStorageTRES=gres/gpu in slurm.conf brings them"
        )
    if by_label:
        remarks.append(
            f"accounting counts no GPUs of {by_label} jobs: they have those that labels show; "
            "AccountingStorageTRES=gres/gpu in slurm.conf brings them"
        )
    if wrong:
        remarks.append(f"{wrong} jobs had another number of GPUs by accounting than labels show")


def _stay(job: Accounted, gpus: int, boards: tuple[int, ...] | None, number: Mapping[str, int]) -> Stay:
    return Stay(
        id=f"slurm:{job.id}",
        name=job.name,
        user=job.user,
        account=job.account,
        partition=job.partition,
        submitted_at=_or_nan(job.eligible if job.eligible is not None else job.submitted),
        started_at=_or_nan(job.start),
        ended_at=_or_nan(job.end),
        state=job.state,
        gpu_count=gpus,
        boards=boards if job.start is not None else None,
        hosts=tuple(number[n] for n in (short_name(node) for node in job.nodes) if n in number),
        cores=job.cpus,
        memory_asked_bytes=_or_nan(job.memory_asked),
        memory_used_bytes=_or_nan(job.memory_used),
        limit_s=_or_nan(job.limit_s),
        cpu_s=_or_nan(job.cpu_s),
    )


def _not_accounted(
    accounted: Sequence[Accounted],
    held: Mapping[tuple[str, int], Sequence[Held]],
    span: Span,
    remarks: list[str],
) -> list[Stay]:
    """Jobs that labels show and accounting has not: a file of fewer days, pods beside Slurm. They held their GPUs all the same."""
    known = {f"slurm:{job.id}" for job in accounted}
    found = [_of_label(job, several, span) for (job, _), several in held.items() if job not in known]
    if found:
        remarks.append(
            f"{len(found)} jobs that labels show are not in the accounting: they count without users, waits and final states; "
            "does it cover the whole span?"
        )
    return found


def _matching(runs: Sequence[Sequence[Held]], job: Accounted) -> Sequence[Held]:
    """The run that lies within a job's time; a requeued job has several."""
    if job.start is None or len(runs) < 2:
        return runs[0] if runs and job.start is not None else ()
    end = job.end if job.end is not None else math.inf
    best = max(
        runs, key=lambda run: sum(max(0.0, min(h.end, end) - max(h.start, job.start or 0.0)) for h in run)
    )
    return best if any(h.start < end and h.end > job.start for h in best) else ()


def _or_nan(value: float | None) -> float:
    return math.nan if value is None else float(value)


def _with_hosts(stay: Stay, hosts_of: Sequence[int]) -> Stay:
    if stay.hosts or not stay.boards:
        return stay
    return replace(stay, hosts=tuple(sorted({hosts_of[board] for board in stay.boards})))
