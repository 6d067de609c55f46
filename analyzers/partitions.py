"""Partitions beside what runs and waits in them, and what a partition has against a job that waits. Pure."""

from __future__ import annotations

import re

from coldaisle.analyzers.snapshot import Snapshot
from coldaisle.sources.cluster import Job
from coldaisle.sources.source import Demand, Partition
from coldaisle.sources.units import show

_STOPPED = ("down", "inactive")
_SAFE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
"""Names that may stand in a command that is shown."""


def partitions_of(snapshot: Snapshot, job: Job) -> tuple[Partition, ...]:
    """The partitions that a job runs or may start in, as far as they are known; one that waits may name several."""
    names = (job.partition or "").split(",")
    return tuple(one for name in names for one in snapshot.partitions if one.name == name)


def demand_of(snapshot: Snapshot, partition: Partition) -> tuple[Demand, Demand]:
    """(what runs, what waits for hardware) in a partition; zeros: its scheduler counts nothing there."""
    for queue in snapshot.queues.values():
        for name, running, waiting in queue.partitions:
            if name == partition.name:
                return running, waiting
    return Demand(0, 0), Demand(0, 0)


def hindrance(snapshot: Snapshot, job: Job) -> str | None:
    """Why no partition of a waiting job will start it, as far as their configuration says; other people's text.

    None: nothing is known to stand against it in one of them at least.
    """
    if not job.is_waiting or not job.partition:
        return None
    known = partitions_of(snapshot, job)
    if len(known) < len(job.partition.split(",")):
        return None
    found = [_against(one, job) for one in known]
    return "; ".join(filter(None, found)) if all(found) else None


def _against(one: Partition, job: Job) -> str | None:
    if one.state in _STOPPED:
        command = f" (scontrol update partition={one.name} state=up)" if _SAFE.fullmatch(one.name) else ""
        return f"partition {one.name} is {one.state}: it starts no job until it is set up again{command}"
    if (
        one.accounts and job.account and job.account not in one.accounts
    ) or job.account in one.accounts_denied:
        return f"partition {one.name} does not let account {job.account} in"
    if one.most_nodes and job.nodes_asked and job.nodes_asked > one.most_nodes:
        return f"asks for {job.nodes_asked} nodes, partition {one.name} gives a job {one.most_nodes} at most"
    if one.gpus is not None and job.gpus_asked and job.gpus_asked > one.gpus:
        return f"asks for {job.gpus_asked} GPUs, partition {one.name} has {one.gpus}"
    if job.reason == "PartitionTimeLimit" and one.limit_s is not None:
        return f"asks for more time than partition {one.name} allows, {show(one.limit_s, 's')}"
    return None


def summary(one: Partition) -> str:
    """``down, limit 1 d``: what sets it apart; empty: it is up, and without a limit. Other people's text."""
    parts = [] if one.state == "up" else [one.state]
    if one.limit_s is not None:
        parts.append(f"limit {show(one.limit_s, 's')}")
    return ", ".join(parts)
